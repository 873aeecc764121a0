//! Host twin of the choice of pairs: products of all anchors with a block of rows at a time, each tile of
//! similarities taken into the running selections while it is in the cache.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{MIN_NORM, Negatives};
use crate::ops::affinity::cpu::dot;
use crate::ops::gemm::{Activation, Panels, Product, pack, panel_width};
use crate::ops::math;

/// Rows of a block: packed, they stay in a last-level cache.
const BLOCK_ROWS: usize = 512;
/// Most anchors of a task: their terms and similarities stay in the second-level cache.
const TASK_ANCHORS: usize = 192;
/// Similarities that are tested at once for being of interest.
const LANES: usize = 16;

/// Rows of every anchor, as [`contrastive_pairs`](super::contrastive_pairs) gives them.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `[A]`.
    pub positive: Vec<i32>,
    /// `[A, num_macro]`.
    pub macro_negatives: Vec<i32>,
    /// `[A, num_micro]`.
    pub micro_negatives: Vec<i32>,
}

/// Euclidean length of every row of `features [N, D]`.
#[must_use]
pub fn norms(features: &[f32], num_channels: usize) -> Vec<f32> {
    let rows = features.par_chunks_exact(num_channels).with_min_len(64);
    rows.map(|row| math::sum(row, |x| x * x).sqrt()).collect()
}

/// See [`super::contrastive_pairs`]; `norms` are those of [`norms`], `neighbors` is `[A, k]`.
#[must_use]
pub fn contrastive_pairs(
    features: &[f32],
    norms: &[f32],
    anchors: &[i32],
    neighbors: &[i32],
    negatives: Negatives,
) -> Rows {
    let Negatives { num_macro, num_micro } = negatives;
    let (num_points, num_channels) = (norms.len(), features.len() / norms.len());
    let scales: Vec<f32> = norms.iter().map(|norm| 1.0 / norm.max(MIN_NORM)).collect();
    // One more than asked for: the positive, known only at the end, may be among the least similar.
    let mut running = vec![Running::new(num_macro + 1); anchors.len()];
    let task_anchors = anchors.len().div_ceil(4 * rayon::current_num_threads()).clamp(6, TASK_ANCHORS);
    let (arch, width) = (Arch::new(), panel_width());
    for first_row in (0..num_points).step_by(BLOCK_ROWS) {
        let num_rows = BLOCK_ROWS.min(num_points - first_row);
        let block = &features[first_row * num_channels..][..num_rows * num_channels];
        let panels = pack(num_channels, num_rows, width, |channel, row| block[row * num_channels + channel]);
        let product = Product {
            x: features,
            panels: Panels::F32(&panels),
            bias: None,
            activation: Activation::None,
            num_taps: 1,
            num_in: num_channels,
            num_out: num_rows,
            src: |anchor: usize, _| Some(anchors[anchor] as usize * num_channels),
        };
        let scales = &scales[first_row..][..num_rows];
        running.par_chunks_mut(task_anchors).enumerate().for_each(|(task, running)| {
            let first_anchor = task * task_anchors;
            let anchors = &anchors[first_anchor..][..running.len()];
            arch.dispatch(Task { product: &product, scales, anchors, first_anchor, first_row, running });
        });
    }

    let k = neighbors.len() / anchors.len();
    let row = |i: i32| &features[i as usize * num_channels..][..num_channels];
    let tasks = running.into_par_iter().zip(anchors).enumerate().with_min_len(8);
    let chosen: Vec<(i32, Vec<i32>, Vec<i32>)> = tasks
        .map(|(at, (running, &anchor))| {
            let (positive, macro_negatives) = running.finish();
            let near = neighbors[at * k..][..k].iter().filter(|&&n| n >= 0 && n != anchor && n != positive);
            let mut near: Vec<u64> =
                near.map(|&n| key(dot(row(anchor), row(n)) * scales[n as usize], n as u32)).collect();
            near.sort_unstable();
            let mut micro_negatives: Vec<i32> = near.into_iter().take(num_micro).map(|key| key as i32).collect();
            micro_negatives.resize(num_micro, -1);
            (positive, macro_negatives, micro_negatives)
        })
        .collect();
    Rows {
        positive: chosen.iter().map(|c| c.0).collect(),
        macro_negatives: chosen.iter().flat_map(|c| &c.1).copied().collect(),
        micro_negatives: chosen.iter().flat_map(|c| &c.2).copied().collect(),
    }
}

/// An integer that orders by (similarity, row); the row is its low word.
fn key(similarity: f32, row: u32) -> u64 {
    // The sum makes a negative zero positive: the two are equal.
    let bits = (similarity + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(ordered) << 32 | u64::from(row)
}

fn similarity_of(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
}

/// Best candidates of one anchor among the rows seen so far.
#[derive(Clone, Debug)]
struct Running {
    /// Keys of the least similar rows, and of others since the last clearing.
    least: Vec<u64>,
    /// How many of them are wanted.
    list_len: usize,
    /// No row as similar as this or more can be among them.
    threshold: f32,
    /// Similarity of the most similar row.
    most: f32,
    most_row: i32,
}

impl Running {
    fn new(list_len: usize) -> Self {
        Self { least: Vec::new(), list_len, threshold: f32::INFINITY, most: f32::NEG_INFINITY, most_row: -1 }
    }

    /// Takes the rows from `first_row` on; `anchor` is the row that is passed over. Rows come in ascending
    /// order, so one that only equals a kept one does not replace it.
    #[inline(always)]
    fn take(&mut self, products: &[f32], scales: &[f32], first_row: usize, anchor: i32) {
        let mut at = first_row;
        for (products, scales) in products.chunks(LANES).zip(scales.chunks(LANES)) {
            let mut similarities = [0.0; LANES];
            for ((similarity, product), scale) in similarities.iter_mut().zip(products).zip(scales) {
                *similarity = product * scale;
            }
            let (threshold, most) = (self.threshold, self.most);
            // Without a way out of the loop, so that it compiles to SIMD code.
            if similarities.iter().fold(false, |any, s| any | (*s < threshold) | (*s > most)) {
                self.consider(&similarities[..products.len()], at, anchor);
            }
            at += LANES;
        }
    }

    #[inline(never)]
    fn consider(&mut self, similarities: &[f32], first_row: usize, anchor: i32) {
        for (&similarity, row) in similarities.iter().zip(first_row as i32..) {
            if row == anchor {
                continue;
            }
            if similarity > self.most {
                (self.most, self.most_row) = (similarity, row);
            }
            if similarity < self.threshold {
                self.least.push(key(similarity, row as u32));
                // Rarely, so that a row costs the same however they are ordered.
                if self.least.len() >= 4 * self.list_len + 64 {
                    self.clear();
                }
            }
        }
    }

    fn clear(&mut self) {
        if self.least.len() > self.list_len {
            let (_, last, _) = self.least.select_nth_unstable(self.list_len - 1);
            self.threshold = similarity_of(*last);
            self.least.truncate(self.list_len);
        }
    }

    /// The positive and, without it, the least similar rows.
    fn finish(mut self) -> (i32, Vec<i32>) {
        self.clear();
        self.least.sort_unstable();
        let rows = self.least.iter().map(|key| *key as i32);
        (self.most_row, rows.filter(|row| *row != self.most_row).take(self.list_len - 1).collect())
    }
}

/// A tile of similarities: the anchors of `running` by the rows of the product's block.
struct Task<'a, 'b, Src> {
    product: &'a Product<'b, Src>,
    scales: &'a [f32],
    anchors: &'a [i32],
    first_anchor: usize,
    first_row: usize,
    running: &'a mut [Running],
}

impl<Src: Fn(usize, usize) -> Option<usize> + Sync> WithSimd for Task<'_, '_, Src> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let num_rows = self.scales.len();
        let mut tile = vec![0.0; self.anchors.len() * num_rows];
        self.product.rows(simd, self.first_anchor, &mut tile);
        let anchors = self.running.iter_mut().zip(self.anchors);
        for ((running, &anchor), products) in anchors.zip(tile.chunks_exact(num_rows)) {
            running.take(products, self.scales, self.first_row, anchor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_by_similarity_then_row() {
        let ordered = [(-2.0, 9), (-1.0, 0), (-0.0, 1), (0.0, 2), (-0.0, 3), (1e-30, 0), (0.5, 7), (0.5, 8)];
        let keys: Vec<u64> = ordered.iter().map(|&(similarity, row)| key(similarity, row)).collect();
        assert!(keys.is_sorted());
        for (key, (similarity, row)) in keys.iter().zip(ordered) {
            assert_eq!((similarity_of(*key), *key as u32), (similarity, row));
        }
    }

    #[test]
    fn a_running_selection_keeps_the_least_and_the_most() {
        let mut running = Running::new(3);
        // Descending, so that every row enters, and in pieces shorter than the lanes.
        let similarities: Vec<f32> = (0..1000).map(|i| 500.0 - (i / 2) as f32).collect();
        for (piece, similarities) in similarities.chunks(10).enumerate() {
            running.take(similarities, &[1.0; 10], 10 * piece, 999);
        }
        assert_eq!(running.finish(), (0, vec![998, 996]));
    }
}
