//! Tensors in host memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rayon::prelude::*;

use super::dtype::Dtype;
use super::error::WeightsError;

/// Last part of the names of the variances that batch normalisation divides by.
const VARIANCE: &str = "running_var";

/// Numbers that are checked together.
const BLOCK: usize = 1 << 14;

/// A floating-point tensor, always in f32, whatever type the file has.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Element type in the file.
    pub dtype_in_file: Dtype,
    /// Elements in row-major order, as many as the product of `shape`.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// Checks that all numbers are finite, and those of a variance not negative. `path` and `key` name the
    /// tensor in errors.
    ///
    /// # Errors
    /// [`WeightsError::Number`] with the row of the first number that is refused.
    pub(super) fn check_numbers(&self, path: &Path, key: &str) -> Result<(), WeightsError> {
        let is_variance = key == VARIANCE || key.strip_suffix(VARIANCE).is_some_and(|before| before.ends_with('.'));
        let least = if is_variance { 0.0 } else { f32::MIN };
        let is_right = |value: f32| (value.is_finite()) & (value >= least);
        // Without an early end inside a block, the compiler checks many numbers at once.
        let holds_wrong = |block: &[f32]| !block.iter().fold(true, |right, &value| right & is_right(value));
        let Some(block) = self.data.par_chunks(BLOCK).position_first(holds_wrong) else { return Ok(()) };
        let Some(at) = (block * BLOCK..self.data.len()).find(|&at| !is_right(self.data[at])) else { return Ok(()) };
        let expected = if is_variance { "a finite number, not negative" } else { "a finite number" };
        let row_len: usize = self.shape.iter().skip(1).product();
        let (row, found) = (at / row_len.max(1), self.data[at]);
        Err(WeightsError::Number { path: path.to_path_buf(), key: key.to_owned(), row, found, expected })
    }
}

/// An integer or boolean tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntTensor {
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Element type in the file.
    pub dtype_in_file: Dtype,
    /// Elements in row-major order; booleans are 0 or 1.
    pub data: Vec<i64>,
}

/// Named tensors of one model, ordered by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StateDict {
    /// File the tensors came from, for messages.
    pub source: PathBuf,
    /// Floating-point tensors.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Integer and boolean tensors (counters, masks, index tables).
    pub integers: BTreeMap<String, IntTensor>,
    /// Names of entries that are not tensors, with their type.
    pub not_tensors: BTreeMap<String, String>,
    /// Prefix that was removed from every key, if all keys had it.
    pub stripped_prefix: Option<&'static str>,
}

impl StateDict {
    /// Removes and returns the floating-point tensor `key`, which must have exactly `shape`.
    ///
    /// # Errors
    /// [`WeightsError::MissingKey`], [`WeightsError::WrongDtype`] for an integer tensor, or
    /// [`WeightsError::Shape`]. The tensor then stays in the dict.
    pub fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        match self.tensors.remove(key) {
            Some(tensor) if tensor.shape == shape => Ok(tensor),
            Some(tensor) => {
                let found = tensor.shape.clone();
                self.tensors.insert(key.to_owned(), tensor);
                Err(WeightsError::Shape {
                    path: self.source.clone(),
                    key: key.to_owned(),
                    expected: shape.to_vec(),
                    found,
                })
            }
            None => Err(match self.integers.get(key) {
                Some(tensor) => WeightsError::WrongDtype {
                    path: self.source.clone(),
                    key: key.to_owned(),
                    expected: "a floating-point type",
                    found: tensor.dtype_in_file,
                },
                None => WeightsError::MissingKey {
                    path: self.source.clone(),
                    key: key.to_owned(),
                    hint: format!("the file has {} tensors", self.len()),
                },
            }),
        }
    }

    /// Returns the number of tensors, of both kinds.
    pub fn len(&self) -> usize {
        self.tensors.len() + self.integers.len()
    }

    /// Returns true if there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty() && self.integers.is_empty()
    }

    /// Returns the path of the file, for messages.
    pub fn source(&self) -> &Path {
        &self.source
    }
}

/// Converts little-endian elements of a floating-point type to f32.
///
/// `bytes` holds `out.len()` elements. Integer types leave `out` unchanged, so callers must check the type.
pub(super) fn floats_from_le(bytes: &[u8], dtype: Dtype, out: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        Dtype::F64 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f64::from_le_bytes(*bytes) as f32;
            }
        }
        Dtype::F16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        Dtype::Bf16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
        Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::I8 | Dtype::U8 | Dtype::Bool => {}
    }
}

/// Converts little-endian elements of an integer type to i64. A float type gives an empty result.
pub(super) fn ints_from_le(bytes: &[u8], dtype: Dtype) -> Vec<i64> {
    match dtype {
        Dtype::I64 => collect(bytes, i64::from_le_bytes),
        Dtype::I32 => collect(bytes, |b| i32::from_le_bytes(b).into()),
        Dtype::I16 => collect(bytes, |b| i16::from_le_bytes(b).into()),
        Dtype::I8 => collect(bytes, |b| i8::from_le_bytes(b).into()),
        Dtype::U8 => collect(bytes, |[b]| b.into()),
        Dtype::Bool => collect(bytes, |[b]| (b != 0).into()),
        Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16 => Vec::new(),
    }
}

fn collect<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> i64) -> Vec<i64> {
    bytes.as_chunks().0.iter().map(|b| convert(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> HostTensor {
        HostTensor { shape: shape.to_vec(), dtype_in_file: Dtype::F32, data: vec![0.0; shape.iter().product()] }
    }

    #[test]
    fn take_checks_before_it_removes() {
        let mut state = StateDict::default();
        state.tensors.insert("w".into(), tensor(&[2, 3]));
        assert!(matches!(state.take("w", &[3, 2]), Err(WeightsError::Shape { .. })));
        assert_eq!(state.take("w", &[2, 3]).unwrap().data.len(), 6);
        assert!(matches!(state.take("w", &[2, 3]), Err(WeightsError::MissingKey { .. })));
    }

    #[test]
    fn conversions() {
        let mut out = [0.0; 2];
        let halves = [f16::from_f32(-1.5), f16::from_f32(65504.0)].map(f16::to_le_bytes);
        floats_from_le(halves.as_flattened(), Dtype::F16, &mut out);
        assert_eq!(out, [-1.5, 65504.0]);
        let brains = [bf16::from_f32(3.0), bf16::INFINITY].map(bf16::to_le_bytes);
        floats_from_le(brains.as_flattened(), Dtype::Bf16, &mut out);
        assert_eq!(out, [3.0, f32::INFINITY]);
        let doubles = [0.1f64, -2.0].map(f64::to_le_bytes);
        floats_from_le(doubles.as_flattened(), Dtype::F64, &mut out);
        assert_eq!(out, [0.1f64 as f32, -2.0]);
        assert_eq!(ints_from_le(&[255, 1], Dtype::I8), [-1, 1]);
        assert_eq!(ints_from_le(&[255, 1], Dtype::Bool), [1, 1]);
        assert_eq!(ints_from_le(&[255, 255], Dtype::I16), [-1]);
    }
}
