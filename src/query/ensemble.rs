//! Labels as OpenScene and CUA-O3D give them: from the features of a 3D network, from fused views, or from both.
//!
//! Unlike [`predict`](super::predict), the last comparison is by products: a row's length does not change its best word,
//! but it is the row's weight where the scores of several runs are added.

use std::fmt;
use std::str::FromStr;

use burn::prelude::*;

use super::products;
use crate::ops::{OpError, ShapeCheck};

/// Added to lengths before they divide, as in the reference.
pub const EPSILON: f32 = 1e-5;

/// How the features of the network and of the views become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensemble {
    /// OpenScene: each row is taken from whichever has the larger cosine with its best word, the network's where they
    /// are equal.
    Surer,
    /// CUA-O3D: the mean of both.
    Mean,
}

impl fmt::Display for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Surer => "larger",
            Self::Mean => "mean",
        })
    }
}

/// There is no rule of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no rule; expected larger or mean")]
pub struct UnknownEnsemble(String);

impl FromStr for Ensemble {
    type Err = UnknownEnsemble;

    fn from_str(name: &str) -> Result<Self, UnknownEnsemble> {
        let named = [Self::Surer, Self::Mean].into_iter().find(|rule| rule.to_string() == name);
        named.ok_or_else(|| UnknownEnsemble(name.to_owned()))
    }
}

/// Products `[V, K]` of the rows of `features [V, C]` with `words [K, C]`, nothing normalised.
///
/// # Errors
/// [`OpError::Value`] if the features are not rows of C channels, and errors of the device.
pub fn scores(features: &[f32], words: &Tensor<2>) -> Result<Vec<f32>, OpError> {
    let mut scores = Vec::new();
    products(features, words, &|rows| rows, &mut |block| scores.extend_from_slice(block))?;
    Ok(scores)
}

/// The word of every row of `scores [V, K]` with the largest score, the first of equal ones. A row of zeros, which is
/// what a point without any feature has, gets -1.
#[must_use]
pub fn best_words(scores: &[f32], num_words: usize) -> Vec<i32> {
    let best = |row: &[f32]| {
        let mut best = 0;
        for (word, score) in row.iter().enumerate() {
            if *score > row[best] {
                best = word;
            }
        }
        if row.iter().all(|&score| score == 0.0) { -1 } else { best as i32 }
    };
    scores.chunks_exact(num_words.max(1)).map(best).collect()
}

/// Combines `network [V, C]` and `fused [V, C]` into `[V, C]`, not normalised; `words [K, C]` are what the surer one
/// is sure of. A row of `fused` that no view saw is all zeros. It leaves the network's row as it is in
/// [`Ensemble::Surer`], and halves it in [`Ensemble::Mean`], as in the reference.
///
/// # Errors
/// [`OpError::Shape`] if the two differ in size; [`OpError::Value`] without words or if the features are not rows of C
/// channels; errors of the device.
pub fn ensemble(rule: Ensemble, network: &[f32], fused: &[f32], words: &Tensor<2>) -> Result<Vec<f32>, OpError> {
    ShapeCheck::new("ensemble").check("fused", [fused.len()], [network.len().into()])?;
    let [num_words, num_channels] = words.dims();
    match rule {
        Ensemble::Mean => Ok(network.iter().zip(fused).map(|(a, b)| (a + b) / 2.0).collect()),
        Ensemble::Surer if num_words == 0 => {
            Err(OpError::Value { op: "ensemble", message: "there are no words".to_owned() })
        }
        Ensemble::Surer => {
            let sureness = [best_cosines(network, words)?, best_cosines(fused, words)?];
            let rows = network.chunks_exact(num_channels).zip(fused.chunks_exact(num_channels));
            let surer = rows.zip(sureness[0].iter().zip(&sureness[1])).flat_map(|((network, fused), (a, b))| {
                if a < b && fused.iter().any(|&value| value != 0.0) { fused } else { network }
            });
            Ok(surer.copied().collect())
        }
    }
}

/// Cosine `[V]` of every row with its best word.
fn best_cosines(features: &[f32], words: &Tensor<2>) -> Result<Vec<f32>, OpError> {
    let [num_words, _] = words.dims();
    let mut best = Vec::new();
    let unit = |rows: Tensor<2>| {
        let lengths = (rows.clone() * rows.clone()).sum_dim(1).sqrt() + EPSILON;
        rows / lengths
    };
    products(features, words, &unit, &mut |block| {
        best.extend(block.chunks_exact(num_words).map(|row| row.iter().copied().fold(f32::NEG_INFINITY, f32::max)));
    })?;
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::float_tensor;

    fn words() -> Tensor<2> {
        float_tensor(vec![1.0, 0.0, 0.0, 1.0], [2, 2], &Device::flex())
    }

    #[test]
    fn a_row_comes_from_the_surer_one_or_is_the_mean() {
        // Surer are: the views, the network, nobody, the network because no view saw the row.
        let network = [3.0, 4.0, 0.0, 9.0, 1.0, 0.0, -1.0, -1.0];
        let fused = [0.1, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        let surer = ensemble(Ensemble::Surer, &network, &fused, &words()).unwrap();
        assert_eq!(surer, [0.1, 0.0, 0.0, 9.0, 1.0, 0.0, -1.0, -1.0]);
        let mean = ensemble(Ensemble::Mean, &network, &fused, &words()).unwrap();
        assert_eq!(mean[..4], [1.55, 2.0, 0.5, 5.0]);
        let scores = scores(&surer, &words()).unwrap();
        assert_eq!(scores, surer);
        assert_eq!(best_words(&scores, 2), [0, 1, 0, 0]);
    }

    #[test]
    fn rules_are_read_by_their_names() {
        for rule in [Ensemble::Surer, Ensemble::Mean] {
            assert_eq!(rule.to_string().parse(), Ok(rule));
        }
        let error = "best".parse::<Ensemble>().unwrap_err().to_string();
        assert_eq!(error, "'best' is no rule; expected larger or mean");
    }

    #[test]
    fn a_row_without_a_feature_has_no_word() {
        assert_eq!(best_words(&[0.0, 0.0, -2.0, -1.0, 0.0, -1.0], 2), [-1, 1, 0]);
        assert!(best_words(&[], 2).is_empty());
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        assert!(ensemble(Ensemble::Mean, &[1.0, 2.0], &[1.0], &words()).is_err());
        assert!(ensemble(Ensemble::Surer, &[1.0], &[1.0], &words()).is_err());
        let none = float_tensor(Vec::new(), [0, 2], &Device::flex());
        assert!(ensemble(Ensemble::Surer, &[1.0, 2.0], &[1.0, 2.0], &none).is_err());
        assert!(scores(&[1.0, 2.0, 3.0], &words()).is_err());
    }
}
