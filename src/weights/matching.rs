//! Comparison of a file's keys with those of a model.

use std::collections::BTreeSet;

use super::dtype::Dtype;
use super::error::WeightsError;
use super::report::{Cast, LoadReport, Misshaped};
use super::source::TensorSource;

impl LoadReport {
    /// Turns an incomplete match into an error that carries this report.
    ///
    /// # Errors
    /// [`WeightsError::Incomplete`] if a key is missing, unused, misshaped or not a float.
    pub fn ensure_complete(&self) -> Result<(), WeightsError> {
        if self.is_complete() {
            return Ok(());
        }
        Err(WeightsError::Incomplete { report: Box::new(self.clone()) })
    }
}

/// Compares the keys of `source` with those a model needs. Reads no elements.
///
/// `expected` holds each key with its shape. `ignored` holds patterns ([`key_matches`]) for keys of the file
/// that are allowed to be unused. A key that the model expects is never ignored.
pub fn match_keys(
    source: &(impl TensorSource + ?Sized),
    expected: &[(String, Vec<usize>)],
    ignored: &[&str],
) -> LoadReport {
    let held = source.inventory();
    let mut report = LoadReport {
        source: held.source.clone(),
        stripped_prefix: held.stripped_prefix,
        not_tensors: held.not_tensors.iter().map(|(key, what)| (key.clone(), what.clone())).collect(),
        ..LoadReport::default()
    };
    let mut known = BTreeSet::new();
    for (key, shape) in expected {
        if !known.insert(key.as_str()) {
            continue;
        }
        let Some(tensor) = held.tensors.get(key) else {
            report.missing.push((key.clone(), shape.clone()));
            continue;
        };
        if !tensor.dtype.is_float() {
            report.not_float.push(Cast { key: key.clone(), from: tensor.dtype });
        } else if tensor.shape != *shape {
            let (expected, found) = (shape.clone(), tensor.shape.clone());
            report.misshaped.push(Misshaped { key: key.clone(), expected, found });
        } else {
            if tensor.dtype != Dtype::F32 {
                report.cast.push(Cast { key: key.clone(), from: tensor.dtype });
            }
            report.applied.push(key.clone());
        }
    }
    for key in held.tensors.keys() {
        if known.contains(key.as_str()) {
            continue;
        }
        if ignored.iter().any(|pattern| key_matches(pattern, key)) {
            report.ignored.push(key.clone());
        } else {
            report.unused.push(key.clone());
        }
    }
    report.applied.sort();
    report.missing.sort();
    report.unused.sort();
    report.misshaped.sort_by(|a, b| a.key.cmp(&b.key));
    report.not_float.sort_by(|a, b| a.key.cmp(&b.key));
    report.cast.sort_by(|a, b| a.key.cmp(&b.key));
    report.ignored.sort();
    report
}

/// Returns true if `pattern` matches `key`. A pattern that ends in `*` matches a prefix. Any other matches
/// the whole key or its last dotted parts (`num_batches_tracked` matches `bn.num_batches_tracked`).
#[must_use]
pub fn key_matches(pattern: &str, key: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HostTensor, IntTensor, StateDict};
    use super::*;

    fn state() -> StateDict {
        let mut state = StateDict::default();
        for (key, dtype_in_file) in [("a.weight", Dtype::F32), ("b.weight", Dtype::F16)] {
            let data = vec![0.0; 6];
            let shape = vec![2, 3];
            state.tensors.insert(key.to_owned(), HostTensor { shape, dtype_in_file, data });
        }
        state.integers.insert(
            "a.num_batches_tracked".to_owned(),
            IntTensor { shape: vec![], dtype_in_file: Dtype::I64, data: vec![5] },
        );
        state
    }

    fn expected(keys: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
        keys.iter().map(|(key, shape)| (key.to_string(), shape.to_vec())).collect()
    }

    #[test]
    fn a_full_match_is_complete_and_tells_casts_and_ignored() {
        let want = expected(&[("b.weight", &[2, 3]), ("a.weight", &[2, 3])]);
        let report = match_keys(&state(), &want, &["num_batches_tracked"]);
        report.ensure_complete().unwrap();
        assert_eq!(report.applied, ["a.weight", "b.weight"]);
        assert_eq!(report.cast[0].key, "b.weight");
        assert_eq!(report.ignored, ["a.num_batches_tracked"]);
    }

    #[test]
    fn every_difference_is_fatal_and_named() {
        let want = expected(&[("a.weight", &[3, 2]), ("c.weight", &[4]), ("a.num_batches_tracked", &[])]);
        let report = match_keys(&state(), &want, &["num_batches_tracked"]);
        let text = report.ensure_complete().unwrap_err().to_string();
        for line in [
            "missing    c.weight [4]",
            "unused     b.weight",
            "misshaped  a.weight expected [3, 2], found [2, 3]",
            "not float  a.num_batches_tracked is i64",
        ] {
            assert!(text.contains(line), "{line:?} not in {text}");
        }
    }

    #[test]
    fn patterns() {
        assert!(key_matches("weight", "a.weight"));
        assert!(key_matches("a.weight", "a.weight"));
        assert!(!key_matches("eight", "a.weight"));
        assert!(key_matches("criterion.*", "criterion.empty_weight"));
        assert!(!key_matches("criterion.*", "a.criterion.x"));
    }
}
