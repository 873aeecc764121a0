//! Compares purified features with words: labels every voxel with a confidence, and finds the places of an
//! object.
//!
//! Features and words are vectors of the same space. They are compared by their cosine.

pub mod ensemble;
pub mod regions;
pub mod saved;

use burn::prelude::*;
use rayon::prelude::*;

use crate::ops::matmul::{Form, matmul};
use crate::ops::normalize_rows;
use crate::ops::{OpError, ShapeCheck, float_tensor, float_values};

/// Scores below the first quantile get the coldest colour, those above the second the hottest.
const COLDEST: f64 = 0.05;
const HOTTEST: f64 = 0.999;
/// Rows of features per block on the device.
const BLOCK_ROWS: usize = 1 << 15;

/// Nearest word of each row of features.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    /// `[V]`: the label, -1 for unlabelled rows.
    pub label: Vec<i32>,
    /// `[V]`: cosine with the nearest word, -1 to 1.
    pub score: Vec<f32>,
    /// `[V]`: difference between that cosine and the next word's; the cosine itself if there is only one
    /// word.
    pub margin: Vec<f32>,
}

/// Labels rows of `features [V, C]` (row-major) by `words [K, C]`. Rows may have any length.
///
/// A row gets the word with the largest cosine, the first of equal ones. The first `num_labels` words are
/// labels, the others stand for the background. A row stays unlabelled if its word is a background word, if
/// its cosine is below `threshold`, or if it is all zeros.
///
/// # Errors
/// [`OpError::Shape`] if the channels differ, [`OpError::Value`] without words, and errors of the device.
pub fn predict(
    features: &[f32],
    words: &Tensor<2>,
    num_labels: usize,
    threshold: Option<f32>,
) -> Result<Predictions, OpError> {
    let [num_words, _] = words.dims();
    if num_words == 0 {
        return Err(OpError::Value { op: "predict", message: "there are no words".to_owned() });
    }
    let mut predictions = Predictions::default();
    cosines(features, words, &mut |cosines| {
        let best_two = |row: &[f32]| {
            let mut best = (0, row[0]);
            let mut second = f32::NEG_INFINITY;
            for (word, &cosine) in row.iter().enumerate().skip(1) {
                if cosine > best.1 {
                    second = best.1;
                    best = (word, cosine);
                } else {
                    second = second.max(cosine);
                }
            }
            let (word, cosine) = best;
            let is_empty = row.iter().all(|&cosine| cosine == 0.0);
            let is_sure = threshold.is_none_or(|threshold| cosine >= threshold);
            let label = if word < num_labels && is_sure && !is_empty { word as i32 } else { -1 };
            let margin = if num_words == 1 { cosine } else { cosine - second };
            (label, cosine, margin)
        };
        let found: Vec<_> = cosines.par_chunks_exact(num_words).map(best_two).collect();
        for (label, score, margin) in found {
            predictions.label.push(label);
            predictions.score.push(score);
            predictions.margin.push(margin);
        }
    })?;
    Ok(predictions)
}

/// Cosine `[V]` of each row of `features [V, C]` with the single row of `word [1, C]`; 0 for a row of zeros.
///
/// # Errors
/// The same as [`predict`].
pub fn similarity(features: &[f32], word: &Tensor<2>) -> Result<Vec<f32>, OpError> {
    ShapeCheck::new("similarity").check("word", word.dims(), [1.into(), "C".into()])?;
    let mut all = Vec::new();
    cosines(features, word, &mut |cosines| all.extend_from_slice(cosines))?;
    Ok(all)
}

/// Scores of rows of features for a question that competes with other words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// `[V]`: cosine with the question; 0 for a row of zeros.
    pub score: Vec<f32>,
    /// `[V]`: how much larger it is than the cosine with the nearest other word; the cosine itself if there is
    /// no other word.
    pub margin: Vec<f32>,
}

/// Compares rows of `features [V, C]` with `words [K, C]`: the first is the question, the others compete with
/// it.
///
/// # Errors
/// The same as [`predict`].
pub fn compare(features: &[f32], words: &Tensor<2>) -> Result<Comparison, OpError> {
    let [num_words, _] = words.dims();
    if num_words == 0 {
        return Err(OpError::Value { op: "compare", message: "there are no words".to_owned() });
    }
    let mut comparison = Comparison::default();
    cosines(features, words, &mut |cosines| {
        for row in cosines.chunks_exact(num_words) {
            let other = row[1..].iter().copied().reduce(f32::max);
            comparison.score.push(row[0]);
            comparison.margin.push(row[0] - other.unwrap_or(0.0));
        }
    })?;
    Ok(comparison)
}

/// The scores that get the coldest and the hottest colour, and the largest score. Zeros without scores.
#[must_use]
pub fn heat_range(score: &[f32]) -> ([f32; 2], f32) {
    let mut sorted = score.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let at = |share: f64| sorted.get(((sorted.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or(0.0);
    ([at(COLDEST), at(HOTTEST)], at(1.0))
}

/// Computes cosines `[rows, K]` for blocks of rows and passes them to `take`, in order.
fn cosines(features: &[f32], words: &Tensor<2>, take: &mut dyn FnMut(&[f32])) -> Result<(), OpError> {
    products(features, &normalize_rows(words.clone()), &normalize_rows, take)
}

/// Computes the products `[rows, K]` with `words [K, C]` for blocks of rows, which `prepare` changes first, and passes
/// them to `take`, in order.
fn products(
    features: &[f32],
    words: &Tensor<2>,
    prepare: &dyn Fn(Tensor<2>) -> Tensor<2>,
    take: &mut dyn FnMut(&[f32]),
) -> Result<(), OpError> {
    let [_, num_channels] = words.dims();
    if num_channels == 0 || !features.len().is_multiple_of(num_channels) {
        let message = format!("{} values do not make rows of {num_channels} channels", features.len());
        return Err(OpError::Value { op: "predict", message });
    }
    for rows in features.chunks(BLOCK_ROWS * num_channels) {
        let shape = [rows.len() / num_channels, num_channels];
        let rows = prepare(float_tensor(rows.to_vec(), shape, &words.device()));
        take(&float_values(matmul(rows, words.clone(), Form::RightTransposed)?)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rows: &[[f32; 2]]) -> Tensor<2> {
        float_tensor(rows.as_flattened().to_vec(), [rows.len(), 2], &Device::flex())
    }

    #[test]
    fn a_row_takes_the_nearest_word_whatever_the_lengths() {
        let features = [3.0, 0.0, 0.0, 0.2, 3.0, 4.0];
        let predictions = predict(&features, &words(&[[1.0, 0.0], [0.0, 5.0]]), 2, None).unwrap();
        assert_eq!(predictions.label, [0, 1, 1]);
        let near = |values: &[f32], expected: &[f32]| {
            assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
        };
        near(&predictions.score, &[1.0, 1.0, 0.8]);
        near(&predictions.margin, &[1.0, 1.0, 0.2]);
    }

    #[test]
    fn background_threshold_and_empty_rows_leave_rows_unlabelled() {
        let (features, two) = ([1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0], words(&[[1.0, 0.0], [0.0, 1.0]]));
        assert_eq!(predict(&features, &two, 1, None).unwrap().label, [0, -1, 0, -1]);
        assert_eq!(predict(&features, &two, 2, Some(0.8)).unwrap().label, [0, 1, -1, -1]);
        let alone = predict(&features[..4], &words(&[[1.0, 0.0]]), 1, None).unwrap();
        assert_eq!((alone.label, alone.margin), (vec![0, -1], vec![1.0, 0.0]));
        assert_eq!(similarity(&features, &words(&[[0.0, 2.0]])).unwrap()[..2], [0.0, 1.0]);
    }

    #[test]
    fn a_question_competes_with_the_other_words() {
        let near = |values: &[f32], expected: &[f32]| {
            assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
        };
        let features = [3.0, 0.0, 0.0, 0.2, 3.0, 4.0, 0.0, 0.0];
        let found = compare(&features, &words(&[[1.0, 0.0], [0.0, 5.0]])).unwrap();
        near(&found.score, &[1.0, 0.0, 0.6, 0.0]);
        near(&found.margin, &[1.0, -1.0, -0.2, 0.0]);
        let alone = compare(&features, &words(&[[1.0, 0.0]])).unwrap();
        near(&alone.margin, &alone.score);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        assert!(compare(&[1.0, 2.0], &words(&[])).is_err());
        assert!(predict(&[1.0, 2.0, 3.0], &words(&[[1.0, 0.0]]), 1, None).is_err());
        assert!(predict(&[1.0, 2.0], &words(&[]), 0, None).is_err());
        assert!(similarity(&[1.0, 2.0], &words(&[[1.0, 0.0], [0.0, 1.0]])).is_err());
        assert_eq!(predict(&[], &words(&[[1.0, 0.0]]), 1, None).unwrap(), Predictions::default());
    }
}
