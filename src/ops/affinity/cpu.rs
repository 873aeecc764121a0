//! Host twin of the affinity matrix.

use rayon::prelude::*;

/// Partial sums of a dot product: enough of them to hide the latency of an addition in SIMD lanes.
const LANES: usize = 32;

fn dot(a: &[f32], b: &[f32]) -> f32 {
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

/// See [`super::affinity`]: weights `[R, k]`, row-major, of the voxels from `first_row` on.
#[must_use]
pub fn affinity(
    embedding: &[f32],
    num_channels: usize,
    neighbors: &[i32],
    k: usize,
    first_row: usize,
    sharpness: f32,
) -> Vec<f32> {
    let voxel = |i: usize| &embedding[i * num_channels..][..num_channels];
    let mut weights = vec![0.0; neighbors.len()];
    let rows = weights.par_chunks_exact_mut(k).with_min_len(16).zip(neighbors.par_chunks_exact(k));
    rows.enumerate().for_each(|(row, (weights, neighbors))| {
        let own = voxel(first_row + row);
        let mut largest = f32::MIN;
        for (weight, &neighbor) in weights.iter_mut().zip(neighbors) {
            *weight = f32::NEG_INFINITY;
            if let Ok(neighbor) = usize::try_from(neighbor) {
                *weight = sharpness * dot(own, voxel(neighbor));
                largest = largest.max(*weight);
            }
        }
        let mut sum = 0.0;
        for weight in weights.iter_mut() {
            *weight = (*weight - largest).exp();
            sum += *weight;
        }
        if sum > 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
    });
    weights
}
