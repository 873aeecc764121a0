//! Host twin of the affinity matrix.

use rayon::prelude::*;

use crate::ops::present;

/// Partial sums of a dot product: enough of them to hide the latency of an addition in SIMD lanes.
const LANES: usize = 32;

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + tail
}

/// `sharpness` · ⟨e, e′⟩, `[R, k]`, of the voxels from `first_row` on and their neighbours, 0 for those that
/// are no voxel.
#[must_use]
pub fn logits(
    embedding: &[f32],
    num_channels: usize,
    neighbors: &[i32],
    k: usize,
    first_row: usize,
    sharpness: f32,
) -> Vec<f32> {
    let num_voxels = embedding.len() / num_channels.max(1);
    let voxel = |i: usize| &embedding[i * num_channels..][..num_channels];
    let mut logits = vec![0.0; neighbors.len()];
    let rows = logits.par_chunks_exact_mut(k).with_min_len(16).zip(neighbors.par_chunks_exact(k));
    rows.enumerate().for_each(|(row, (logits, neighbors))| {
        let own = voxel(first_row + row);
        for (logit, &neighbor) in logits.iter_mut().zip(neighbors) {
            if let Some(neighbor) = present(neighbor, num_voxels) {
                *logit = sharpness * dot(own, voxel(neighbor));
            }
        }
    });
    logits
}

/// Softmax of every row of `logits [R, k]` over its present neighbours; those that are not among `num_voxels`
/// weigh 0.
#[must_use]
pub fn softmax(neighbors: &[i32], logits: &[f32], k: usize, num_voxels: usize) -> Vec<f32> {
    let mut weights = vec![0.0; logits.len()];
    let rows = neighbors.par_chunks_exact(k).zip(logits.par_chunks_exact(k));
    weights.par_chunks_exact_mut(k).with_min_len(64).zip(rows).for_each(|(weights, (neighbors, logits))| {
        let is_present = |neighbor: i32| present(neighbor, num_voxels).is_some();
        let of_present =
            || neighbors.iter().zip(logits).filter(|(neighbor, _)| is_present(**neighbor)).map(|(_, logit)| *logit);
        let largest = of_present().fold(f32::MIN, f32::max);
        let mut sum = 0.0;
        for (weight, (&neighbor, &logit)) in weights.iter_mut().zip(neighbors.iter().zip(logits)) {
            if is_present(neighbor) {
                *weight = (logit - largest).exp();
                sum += *weight;
            }
        }
        if of_present().next().is_some() {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
    });
    weights
}
