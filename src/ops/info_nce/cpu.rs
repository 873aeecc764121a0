//! Host twin of the contrastive loss.

use rayon::prelude::*;

use super::PIECE;
use crate::ops::affinity::cpu::dot;

/// The loss and what its gradient needs.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Mean cross entropy.
    pub loss: f32,
    /// Share of anchors whose positive has the largest logit.
    pub accuracy: f32,
    /// `[A, T]`: derivative of the loss by every dot product.
    pub coefficients: Vec<f32>,
}

/// The loss over `anchors [A]` and their `targets [A, T]`, the positive first, all of them rows of `embedding`.
#[must_use]
pub fn forward(
    embedding: &[f32],
    num_channels: usize,
    anchors: &[i32],
    targets: &[i32],
    num_targets: usize,
    temperature: f32,
) -> Forward {
    let row = |i: i32| &embedding[i as usize * num_channels..][..num_channels];
    let per_anchor = 1.0 / (anchors.len() as f32 * temperature);
    let mut coefficients = vec![0.0; targets.len()];
    let tasks = coefficients.par_chunks_exact_mut(num_targets).zip(targets.par_chunks_exact(num_targets));
    let losses: Vec<(f32, bool)> = tasks
        .zip(anchors)
        .with_min_len(16)
        .map(|((weights, targets), &anchor)| {
            for (weight, &target) in weights.iter_mut().zip(targets) {
                *weight = dot(row(anchor), row(target)) / temperature;
            }
            let (positive, others) = weights.split_first_mut().expect("a positive and a negative at least");
            let largest_negative = others.iter().copied().fold(f32::MIN, f32::max);
            let logit = *positive;
            let largest = logit.max(largest_negative);
            others.iter_mut().for_each(|weight| *weight = (*weight - largest).exp());
            let negatives: f32 = others.iter().sum();
            let total = negatives + (logit - largest).exp();
            // p − 1 as the sum of the others: without cancellation.
            *positive = -negatives;
            weights.iter_mut().for_each(|weight| *weight *= per_anchor / total);
            (total.ln() + largest - logit, logit > largest_negative)
        })
        .collect();
    let mean = |sum: f64| (sum / losses.len() as f64) as f32;
    Forward {
        loss: mean(losses.iter().map(|(loss, _)| f64::from(*loss)).sum()),
        accuracy: mean(losses.iter().filter(|(_, correct)| *correct).count() as f64),
        coefficients,
    }
}

/// Gradient of the loss by `embedding`, from the coefficients of [`forward`]. Every row is the sum of its
/// contributions in a fixed order: as a target by ascending (anchor, target), then as an anchor.
#[must_use]
pub fn grad(
    embedding: &[f32],
    num_channels: usize,
    anchors: &[i32],
    targets: &[i32],
    num_targets: usize,
    coefficients: &[f32],
) -> Vec<f32> {
    let row = |i: i32| &embedding[i as usize * num_channels..][..num_channels];
    let add = |sum: &mut [f32], factor: f32, row: &[f32]| {
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
    };
    let mut anchor_grad = vec![0.0; anchors.len() * num_channels];
    let tasks = targets.par_chunks_exact(num_targets).zip(coefficients.par_chunks_exact(num_targets));
    anchor_grad.par_chunks_exact_mut(num_channels).with_min_len(16).zip(tasks).for_each(|(sum, (targets, factors))| {
        targets.iter().zip(factors).for_each(|(&target, &factor)| add(sum, factor, row(target)));
    });

    // A counting sort of the contributions by the row they go to.
    let num_rows = embedding.len() / num_channels;
    let mut ends = vec![0_usize; num_rows + 1];
    let rows = || targets.iter().chain(anchors).map(|&row| row as usize);
    rows().for_each(|row| ends[row + 1] += 1);
    for row in 0..num_rows {
        ends[row + 1] += ends[row];
    }
    let offsets = ends.clone();
    let mut sorted = vec![0_usize; targets.len() + anchors.len()];
    for (entry, row) in rows().enumerate() {
        sorted[ends[row]] = entry;
        ends[row] += 1;
    }

    let add_entries = |sum: &mut [f32], entries: &[usize]| {
        for &entry in entries {
            match entry.checked_sub(targets.len()) {
                Some(anchor) => add(sum, 1.0, &anchor_grad[anchor * num_channels..][..num_channels]),
                None => add(sum, coefficients[entry], row(anchors[entry / num_targets])),
            }
        }
    };
    let mut grad = vec![0.0; embedding.len()];
    let tasks = grad.par_chunks_exact_mut(num_channels).zip(offsets.par_windows(2));
    tasks.with_min_len(16).for_each(|(sum, bounds)| {
        let (first, others) = sorted[bounds[0]..bounds[1]].split_at(PIECE.min(bounds[1] - bounds[0]));
        add_entries(sum, first);
        // A row that tens of thousands contribute to would lose digits in one long sum.
        for entries in others.chunks(PIECE) {
            let mut piece = vec![0.0; num_channels];
            add_entries(&mut piece, entries);
            add(sum, 1.0, &piece);
        }
    });
    grad
}
