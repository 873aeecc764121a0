//! Host twin of attention: blocks of queries against all keys of a head, as two matrix products.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Extents;
use crate::ops::gemm::{Activation, Panels, Product, pack, panel_width};
use crate::ops::math::{exp2_of_negative, largest};

/// Queries of a task, whole blocks of the inner kernel: their scores of one head stay in the second-level cache.
const TASK_QUERIES: usize = 36;
/// Panels of keys from which on the distance between rows of scores matters.
const MANY_PANELS: usize = 16;
/// Independent sums of weights.
const LANES: usize = 16;

/// Which keys a query may not attend to.
#[derive(Clone, Copy)]
pub(crate) enum Blocked<'a> {
    None,
    /// Those behind it.
    Causal,
    /// `[B or 1, Nq, Nk]`, not 0 where blocked.
    At(&'a [i32]),
}

/// `q [B, Nq, E]`, `k`, `v [B, Nk, E]`, flat → `[B, Nq, E]`.
pub(crate) fn attention(q: &[f32], k: &[f32], v: &[f32], blocked: Blocked<'_>, extents: Extents) -> Vec<f32> {
    let Extents { num_queries, num_keys, num_heads, head_dim, .. } = extents;
    let dim = num_heads * head_dim;
    let query = |image, row| (image * num_queries + row) * dim;
    attention_of_rows([q, k, v], query, |image, row| (image * num_keys + row) * dim, blocked, extents)
}

/// As [`attention`], where `query` and `key` say at which value the row of an image begins: of `q`, and of `k` and `v`.
pub(crate) fn attention_of_rows(
    [q, k, v]: [&[f32]; 3],
    query: impl Fn(usize, usize) -> usize + Copy + Sync,
    key: impl Fn(usize, usize) -> usize + Sync,
    blocked: Blocked<'_>,
    extents: Extents,
) -> Vec<f32> {
    let Extents { batch, num_queries, num_keys, num_heads, head_dim } = extents;
    let dim = num_heads * head_dim;
    let width = panel_width();
    let stride = score_stride(num_keys, width);
    // Per image and head: kᵀ [head_dim, stride], zeros behind the keys, and v [Nk, head_dim].
    let panels: Vec<[Vec<f32>; 2]> = (0..batch * num_heads)
        .into_par_iter()
        .map(|i| {
            let first = |row| key(i / num_heads, row) + i % num_heads * head_dim;
            let at: Vec<usize> = (0..num_keys).map(first).collect();
            let keys = pack(head_dim, stride, width, |d, row| at.get(row).map_or(0.0, |at| k[at + d]));
            [keys, pack(num_keys, head_dim, width, |row, d| v[at[row] + d])]
        })
        .collect();
    let mut out = vec![0.0; batch * num_queries * dim];
    let arch = Arch::new();
    let images = out.chunks_mut(num_queries * dim).enumerate();
    let tasks = images.flat_map(|(image, out)| {
        out.chunks_mut(TASK_QUERIES * dim).enumerate().map(move |(i, out)| (image, i * TASK_QUERIES, out))
    });
    tasks.collect::<Vec<_>>().into_par_iter().for_each(|(image, first_query, out)| {
        let panels = &panels[image * num_heads..][..num_heads];
        arch.dispatch(Queries { q, query, panels, blocked, extents, image, first_query, out });
    });
    out
}

/// Values from one row of scores to the next: an odd number of panels, since rows a power of two apart would all
/// fall into the same few lines of the cache.
fn score_stride(num_keys: usize, width: usize) -> usize {
    let panels = num_keys.div_ceil(width);
    width * if panels >= MANY_PANELS { panels | 1 } else { panels }
}

struct Queries<'a, Q> {
    q: &'a [f32],
    query: Q,
    panels: &'a [[Vec<f32>; 2]],
    blocked: Blocked<'a>,
    extents: Extents,
    image: usize,
    first_query: usize,
    out: &'a mut [f32],
}

impl<Q: Fn(usize, usize) -> usize + Sync> WithSimd for Queries<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { q, query, panels, blocked, extents, image, first_query, out } = self;
        let Extents { num_queries, num_keys, num_heads, head_dim, .. } = extents;
        let dim = num_heads * head_dim;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let num_rows = out.len() / dim;
        let stride = score_stride(num_keys, 2 * S::F32_LANES);
        let mut scores = vec![0.0; num_rows * stride];
        let mut inverses = vec![0.0; num_rows];
        let mut mixed = vec![0.0; num_rows * head_dim];
        for (head, [keys, values]) in panels.iter().enumerate() {
            scores.fill(0.0);
            let product = Product {
                x: q,
                panels: Panels::F32(keys),
                bias: None,
                activation: Activation::None,
                num_taps: 1,
                num_in: head_dim,
                num_out: stride,
                src: |row: usize, _| Some(query(image, row) + head * head_dim),
            };
            product.rows(simd, first_query, &mut scores);
            for (r, row) in scores.chunks_exact_mut(stride).enumerate() {
                let query = first_query + r;
                let mask = match blocked {
                    Blocked::At(mask) => {
                        let image = if mask.len() == num_queries * num_keys { 0 } else { image };
                        Some(&mask[(image * num_queries + query) * num_keys..][..num_keys])
                    }
                    Blocked::None | Blocked::Causal => None,
                };
                let seen = if matches!(blocked, Blocked::Causal) { num_keys.min(query + 1) } else { num_keys };
                inverses[r] = weigh(&mut row[..num_keys], seen, mask, scale);
            }
            mixed.fill(0.0);
            let product = Product {
                x: &scores,
                panels: Panels::F32(values),
                bias: None,
                activation: Activation::None,
                num_taps: 1,
                num_in: num_keys,
                num_out: head_dim,
                src: |row: usize, _| Some(row * stride),
            };
            product.rows(simd, 0, &mut mixed);
            for ((out, mixed), inverse) in out.chunks_exact_mut(dim).zip(mixed.chunks_exact(head_dim)).zip(&inverses) {
                let out = &mut out[head * head_dim..][..head_dim];
                out.iter_mut().zip(mixed).for_each(|(out, mixed)| *out = mixed * inverse);
            }
        }
    }
}

/// Turns scores into weights, of which the largest is 1: eˢ of `scale` · the first `seen` scores that are not blocked; the
/// others become 0. Returns the inverse of their sum, 0 where there are none.
#[inline(always)]
fn weigh(scores: &mut [f32], seen: usize, blocked: Option<&[i32]>, scale: f32) -> f32 {
    let (scores, behind) = scores.split_at_mut(seen);
    behind.fill(0.0);
    if let Some(blocked) = blocked {
        for (score, blocked) in scores.iter_mut().zip(blocked) {
            *score = if *blocked == 0 { *score } else { f32::NEG_INFINITY };
        }
    }
    let largest = largest(scores);
    if largest == f32::NEG_INFINITY {
        scores.fill(0.0);
        return 0.0;
    }
    let factor = scale * std::f32::consts::LOG2_E;
    let offset = largest * factor;
    let (blocks, rest) = scores.as_chunks_mut::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        for lane in 0..LANES {
            let weight = exp2_of_negative(block[lane] * factor - offset);
            block[lane] = weight;
            sums[lane] += weight;
        }
    }
    let mut sum = sums.iter().sum::<f32>();
    for score in rest {
        *score = exp2_of_negative(*score * factor - offset);
        sum += *score;
    }
    if let Some(blocked) = blocked {
        for (weight, blocked) in scores.iter_mut().zip(blocked) {
            *weight = if *blocked == 0 { *weight } else { 0.0 };
        }
    }
    1.0 / sum
}
