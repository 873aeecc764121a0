//! Host twin of the pooling.

use rayon::prelude::*;

use super::CHANNEL_BLOCK as LANES;
use crate::ops::present;

/// Channels of a narrow block are padded to a multiple of this: a SIMD register.
const PADDING: usize = 8;

/// Rows of one task. Consecutive voxels are near in space and share most neighbours, so the rows of x
/// they read stay in the cache from one block of channels to the next row.
const TASK_ROWS: usize = 64;

/// See [`super::pooling`]: A applied `iterations` times, for A `[V, k]` given whole.
///
/// Channels do not mix, so a block of them goes through all iterations at once, in two buffers of its
/// own: the rows of the whole `x` are so far apart that every read would also miss the page table's cache.
#[must_use]
pub fn pooling(
    x: &[f32],
    channels: usize,
    neighbors: &[i32],
    weights: &[f32],
    k: usize,
    iterations: usize,
) -> Vec<f32> {
    let mut pooled = vec![0.0; x.len()];
    let num_voxels = x.len() / channels;
    let mut front = Vec::new();
    let mut back = Vec::new();
    for first in (0..channels).step_by(LANES) {
        let width = LANES.min(channels - first);
        let padded = width.next_multiple_of(PADDING);
        front.resize(num_voxels * padded, 0.0);
        back.resize(num_voxels * padded, 0.0);
        let block = front.par_chunks_exact_mut(padded).with_min_len(256);
        block.zip(x.par_chunks_exact(channels)).for_each(|(to, row)| {
            to[..width].copy_from_slice(&row[first..first + width]);
            to[width..].fill(0.0);
        });
        for _ in 0..iterations {
            apply(&front, padded, neighbors, weights, k, 0, &mut back);
            std::mem::swap(&mut front, &mut back);
        }
        let rows = pooled.par_chunks_exact_mut(channels).with_min_len(256);
        rows.zip(front.par_chunks_exact(padded))
            .for_each(|(row, from)| row[first..first + width].copy_from_slice(&from[..width]));
    }
    pooled
}

/// Rows `first_row..` of A·x, `[R, channels]`, for `R` rows of A.
#[must_use]
pub fn pooling_rows(
    x: &[f32],
    channels: usize,
    neighbors: &[i32],
    weights: &[f32],
    k: usize,
    first_row: usize,
) -> Vec<f32> {
    let mut pooled = vec![0.0; neighbors.len() / k * channels];
    apply(x, channels, neighbors, weights, k, first_row, &mut pooled);
    pooled
}

fn apply(
    x: &[f32],
    channels: usize,
    neighbors: &[i32],
    weights: &[f32],
    k: usize,
    first_row: usize,
    pooled: &mut [f32],
) {
    let arch = pulp::Arch::new();
    let tasks = pooled
        .par_chunks_mut(TASK_ROWS * channels)
        .zip(neighbors.par_chunks(TASK_ROWS * k))
        .zip(weights.par_chunks(TASK_ROWS * k));
    tasks.enumerate().for_each(|(task, ((pooled, neighbors), weights))| {
        let first_row = first_row + task * TASK_ROWS;
        arch.dispatch(Rows { x, channels, neighbors, weights, k, first_row, pooled });
    });
}

/// The rows of one task. (A closure would not be inlined into the code that `pulp` compiles for the
/// processor at hand.)
struct Rows<'a> {
    x: &'a [f32],
    channels: usize,
    neighbors: &'a [i32],
    weights: &'a [f32],
    k: usize,
    first_row: usize,
    pooled: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let mut first = 0;
        while first < self.channels {
            first += match self.channels - first {
                LANES.. => self.block::<LANES>(first),
                32.. => self.block::<32>(first),
                16.. => self.block::<16>(first),
                8.. => self.block::<8>(first),
                _ => self.block::<1>(first),
            };
        }
    }
}

impl Rows<'_> {
    /// The channels `first..first + WIDTH` of every row; gives WIDTH.
    #[inline(always)]
    fn block<const WIDTH: usize>(&mut self, first: usize) -> usize {
        let num_voxels = self.x.len() / self.channels;
        let rows = self.neighbors.chunks_exact(self.k).zip(self.weights.chunks_exact(self.k));
        for (row, (pooled, (neighbors, weights))) in self.pooled.chunks_exact_mut(self.channels).zip(rows).enumerate() {
            let mut sums = [0.0_f32; WIDTH];
            let mut any_neighbor = false;
            for (&neighbor, &weight) in neighbors.iter().zip(weights) {
                if let Some(neighbor) = present(neighbor, num_voxels) {
                    any_neighbor = true;
                    let values = &self.x[neighbor * self.channels + first..][..WIDTH];
                    for lane in 0..WIDTH {
                        sums[lane] += weight * values[lane];
                    }
                }
            }
            if !any_neighbor {
                let own = (self.first_row + row) * self.channels + first;
                sums.copy_from_slice(&self.x[own..own + WIDTH]);
            }
            pooled[first..first + WIDTH].copy_from_slice(&sums);
        }
        WIDTH
    }
}
