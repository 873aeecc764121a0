//! Host twin of attention: blocks of queries against all keys of a head, as two matrix products.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Extents;
use crate::ops::gemm::{Activation, Panels, Product, multiply_add_rows, pack, panel_width};
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

impl<'a> Blocked<'a> {
    pub(crate) fn new(blocked: Option<&'a [i32]>, causal: bool) -> Self {
        match blocked {
            Some(blocked) => Self::At(blocked),
            None if causal => Self::Causal,
            None => Self::None,
        }
    }
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
        let stride = score_stride(num_keys, panel_width());
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

/// Gradients of q, k and v, as far as they are `wanted` (empty where not), from `grad_out [B, Nq, E]`; see [`attention`].
pub(crate) fn attention_grad(
    [q, k, v]: [&[f32]; 3],
    grad_out: &[f32],
    blocked: Blocked<'_>,
    extents: Extents,
    wanted: [bool; 3],
) -> [Vec<f32>; 3] {
    let Extents { num_queries, num_keys, num_heads, head_dim, .. } = extents;
    let dim = num_heads * head_dim;
    let query = |image, row| (image * num_queries + row) * dim;
    let key = |image, row| (image * num_keys + row) * dim;
    let result = |image, row| Some(query(image, row));
    let heads = attention_grad_of_rows([q, k, v], grad_out, RowsAt { query, key, result }, blocked, extents, wanted);
    [(0, num_queries), (1, num_keys), (2, num_keys)].map(|(part, num_rows)| {
        let mut grad = vec![0.0; if wanted[part] { extents.batch * num_rows * dim } else { 0 }];
        grad.par_chunks_exact_mut(dim).with_min_len(256).enumerate().for_each(|(i, grad)| {
            let (image, row) = (i / num_rows, i % num_rows);
            for (grad, head) in grad.chunks_exact_mut(head_dim).zip(&heads[image * num_heads..]) {
                grad.copy_from_slice(&head[part][row * head_dim..][..head_dim]);
            }
        });
        grad
    })
}

/// At which value a row of an image begins.
pub(crate) struct RowsAt<Q, K, R> {
    /// A query's, in q.
    pub(crate) query: Q,
    /// A key's, in k and v.
    pub(crate) key: K,
    /// A query's result, in its gradient, where it has one.
    pub(crate) result: R,
}

/// The gradients of every head of every image, `[B · num_heads]`: of q `[Nq, head_dim]`, k and v `[Nk, head_dim]`, empty
/// where not `wanted`. Rows are found as in [`attention_of_rows`]; a query without a `result` in `grad_out` has a gradient
/// of 0 and gives none.
///
/// The weights are made again for a block of queries at a time. One task makes all of a head, so that sums over queries
/// have one order.
pub(crate) fn attention_grad_of_rows(
    inputs: [&[f32]; 3],
    grad_out: &[f32],
    at: RowsAt<
        impl Fn(usize, usize) -> usize + Sync,
        impl Fn(usize, usize) -> usize + Sync,
        impl Fn(usize, usize) -> Option<usize> + Sync,
    >,
    blocked: Blocked<'_>,
    extents: Extents,
    wanted: [bool; 3],
) -> Vec<[Vec<f32>; 3]> {
    let Extents { batch, num_queries, num_keys, num_heads, head_dim } = extents;
    let arch = Arch::new();
    let heads = (0..batch * num_heads).into_par_iter();
    heads
        .map(|i| {
            let (image, first) = (i / num_heads, i % num_heads * head_dim);
            let of_query = |row| Some((row, (at.query)(image, row) + first, (at.result)(image, row)? + first));
            let queries = (0..num_queries).filter_map(of_query).collect();
            let keys = (0..num_keys).map(|row| (at.key)(image, row) + first).collect();
            arch.dispatch(HeadGrad { inputs, grad_out, queries, keys, blocked, extents, image, wanted })
        })
        .collect()
}

struct HeadGrad<'a> {
    inputs: [&'a [f32]; 3],
    grad_out: &'a [f32],
    /// Number of a query, and where its head begins in q and in `grad_out`.
    queries: Vec<(usize, usize, usize)>,
    /// The first value of each key's head in k and v.
    keys: Vec<usize>,
    blocked: Blocked<'a>,
    extents: Extents,
    image: usize,
    wanted: [bool; 3],
}

impl WithSimd for HeadGrad<'_> {
    type Output = [Vec<f32>; 3];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { inputs: [q, k, v], grad_out, queries, keys, wanted, extents, .. } = &self;
        let Extents { num_queries, num_keys, head_dim, .. } = *extents;
        let [wants_q, wants_k, wants_v] = *wanted;
        let width = panel_width();
        let num_panels = num_keys.div_ceil(width);
        let scale = 1.0 / (head_dim as f32).sqrt();
        // Scores and all that is made of them are panels of keys, `[num_panels, rows, width]`: as right-hand sides of the
        // products over queries they lie as the inner kernel reads them.
        let transposed = |x: &[f32]| {
            let mut panels = vec![0.0; num_panels * head_dim * width];
            for (key, &at) in keys.iter().enumerate() {
                let first = key / width * head_dim * width + key % width;
                for (d, &value) in x[at..at + head_dim].iter().enumerate() {
                    panels[first + d * width] = value;
                }
            }
            panels
        };
        let keys_by_channel = transposed(k);
        let values_by_channel = if wants_q || wants_k { transposed(v) } else { Vec::new() };
        let padded_dim = head_dim.next_multiple_of(width);
        let mut key_panels = vec![0.0; if wants_q { padded_dim * num_panels * width } else { 0 }];
        if wants_q {
            for (key, &at) in keys.iter().enumerate() {
                for (panel, values) in k[at..at + head_dim].chunks(width).enumerate() {
                    key_panels[(panel * num_panels * width + key) * width..][..values.len()].copy_from_slice(values);
                }
            }
        }

        let mut grad_q = vec![0.0; if wants_q { num_queries * head_dim } else { 0 }];
        // `[num_panels, head_dim, width]`.
        let [mut grad_k, mut grad_v] =
            [wants_k, wants_v].map(|wants| vec![0.0; if wants { num_panels * head_dim * width } else { 0 }]);
        let mut weights = vec![0.0; TASK_QUERIES * num_panels * width];
        let mut grads = vec![0.0; weights.len()];
        let mut lanes = vec![0.0; TASK_QUERIES * width];
        let mut by_channel = vec![0.0; TASK_QUERIES * head_dim];
        let mut block_grad = vec![0.0; TASK_QUERIES * padded_dim];
        for block in queries.chunks(TASK_QUERIES) {
            let num_rows = block.len();
            let panel_len = num_rows * width;
            let weights = &mut weights[..num_panels * panel_len];
            let lanes = &mut lanes[..panel_len];
            weights.fill(0.0);
            for (weights, keys) in
                weights.chunks_exact_mut(panel_len).zip(keys_by_channel.chunks_exact(head_dim * width))
            {
                multiply_add_rows(simd, num_rows, |r| (&q[block[r].1..][..head_dim], r * width), keys, weights);
            }
            self.hide(block, width, weights);
            softmax(weights, lanes, width, scale);
            let turned = |x: &[f32], at: &dyn Fn(usize) -> usize, by_channel: &mut [f32]| {
                for r in 0..num_rows {
                    for (d, &value) in x[at(r)..][..head_dim].iter().enumerate() {
                        by_channel[d * num_rows + r] = value;
                    }
                }
            };
            if wants_v {
                turned(grad_out, &|r| block[r].2, &mut by_channel);
                for (grad, weights) in grad_v.chunks_exact_mut(head_dim * width).zip(weights.chunks_exact(panel_len)) {
                    multiply_add_rows(
                        simd,
                        head_dim,
                        |d| (&by_channel[d * num_rows..][..num_rows], d * width),
                        weights,
                        grad,
                    );
                }
            }
            if !(wants_q || wants_k) {
                continue;
            }
            let grads = &mut grads[..num_panels * panel_len];
            grads.fill(0.0);
            for (grads, values) in
                grads.chunks_exact_mut(panel_len).zip(values_by_channel.chunks_exact(head_dim * width))
            {
                multiply_add_rows(simd, num_rows, |r| (&grad_out[block[r].2..][..head_dim], r * width), values, grads);
            }
            through_softmax(weights, grads, lanes, width, scale);
            if wants_k {
                turned(q, &|r| block[r].1, &mut by_channel);
                for (grad, grads) in grad_k.chunks_exact_mut(head_dim * width).zip(grads.chunks_exact(panel_len)) {
                    multiply_add_rows(
                        simd,
                        head_dim,
                        |d| (&by_channel[d * num_rows..][..num_rows], d * width),
                        grads,
                        grad,
                    );
                }
            }
            if wants_q {
                let block_grad = &mut block_grad[..num_rows * padded_dim];
                block_grad.fill(0.0);
                for (column, keys) in key_panels.chunks_exact(num_panels * width * width).enumerate() {
                    for (grads, keys) in grads.chunks_exact(panel_len).zip(keys.chunks_exact(width * width)) {
                        let row = |r: usize| (&grads[r * width..][..width], r * padded_dim + column * width);
                        multiply_add_rows(simd, num_rows, row, keys, block_grad);
                    }
                }
                for (&(query, ..), grad) in block.iter().zip(block_grad.chunks_exact(padded_dim)) {
                    grad_q[query * head_dim..][..head_dim].copy_from_slice(&grad[..head_dim]);
                }
            }
        }
        let [grad_k, grad_v] = [grad_k, grad_v].map(|panels| {
            let mut grad = vec![0.0; if panels.is_empty() { 0 } else { num_keys * head_dim }];
            for (key, grad) in grad.chunks_exact_mut(head_dim).enumerate() {
                let first = key / width * head_dim * width + key % width;
                grad.iter_mut().enumerate().for_each(|(d, grad)| *grad = panels[first + d * width]);
            }
            grad
        });
        [grad_q, grad_k, grad_v]
    }
}

impl HeadGrad<'_> {
    /// Makes the scores −∞ of the keys that a query does not see, and of those that fill up the last panel.
    #[inline(always)]
    fn hide(&self, block: &[(usize, usize, usize)], width: usize, scores: &mut [f32]) {
        let Extents { num_queries, num_keys, .. } = self.extents;
        for (panel, scores) in scores.chunks_exact_mut(block.len() * width).enumerate() {
            let first = panel * width;
            for (&(query, ..), scores) in block.iter().zip(scores.chunks_exact_mut(width)) {
                let seen = if matches!(self.blocked, Blocked::Causal) { num_keys.min(query + 1) } else { num_keys };
                scores[seen.saturating_sub(first).min(width)..].fill(f32::NEG_INFINITY);
                if let Blocked::At(mask) = self.blocked {
                    let image = if mask.len() == num_queries * num_keys { 0 } else { self.image };
                    let mask = &mask[(image * num_queries + query) * num_keys..][..num_keys][first..];
                    for (score, blocked) in scores.iter_mut().zip(mask) {
                        *score = if *blocked == 0 { *score } else { f32::NEG_INFINITY };
                    }
                }
            }
        }
    }
}

/// Scores `[num_panels, rows, width]` become weights, by rows; 0 where the score is −∞. `lanes [rows, width]` is scratch.
#[inline(always)]
fn softmax(scores: &mut [f32], lanes: &mut [f32], width: usize, scale: f32) {
    let factor = scale * std::f32::consts::LOG2_E;
    lanes.fill(f32::NEG_INFINITY);
    for scores in scores.chunks_exact(lanes.len()) {
        for (most, &score) in lanes.iter_mut().zip(scores) {
            *most = if score > *most { score } else { *most };
        }
    }
    let offsets = by_rows(lanes, width, |most| largest(most) * factor);
    lanes.fill(0.0);
    for scores in scores.chunks_exact_mut(lanes.len()) {
        let rows = scores.chunks_exact_mut(width).zip(lanes.chunks_exact_mut(width)).zip(&offsets);
        for ((scores, sums), &offset) in rows {
            for (score, sum) in scores.iter_mut().zip(sums) {
                let weight = exp2_of_negative(*score * factor - offset);
                *score = if *score == f32::NEG_INFINITY { 0.0 } else { weight };
                *sum += *score;
            }
        }
    }
    let inverses = by_rows(lanes, width, |sums| {
        let sum = sums.iter().sum::<f32>();
        if sum == 0.0 { 0.0 } else { 1.0 / sum }
    });
    for weights in scores.chunks_exact_mut(lanes.len()) {
        for (weights, &inverse) in weights.chunks_exact_mut(width).zip(&inverses) {
            weights.iter_mut().for_each(|weight| *weight *= inverse);
        }
    }
}

/// Gradients of weights become those of q · kᵀ: weight · (gradient − Σ weight · gradient) · `scale`, the sum over a row.
#[inline(always)]
fn through_softmax(weights: &[f32], grads: &mut [f32], lanes: &mut [f32], width: usize, scale: f32) {
    lanes.fill(0.0);
    for (weights, grads) in weights.chunks_exact(lanes.len()).zip(grads.chunks_exact(lanes.len())) {
        for ((sum, weight), grad) in lanes.iter_mut().zip(weights).zip(grads) {
            *sum += weight * grad;
        }
    }
    let means = by_rows(lanes, width, |sums| sums.iter().sum::<f32>());
    for (weights, grads) in weights.chunks_exact(lanes.len()).zip(grads.chunks_exact_mut(lanes.len())) {
        let rows = weights.chunks_exact(width).zip(grads.chunks_exact_mut(width)).zip(&means);
        for ((weights, grads), &mean) in rows {
            for (weight, grad) in weights.iter().zip(grads) {
                *grad = weight * (*grad - mean) * scale;
            }
        }
    }
}

/// One value of each row of a block of queries.
#[inline(always)]
fn by_rows(lanes: &[f32], width: usize, value: impl Fn(&[f32]) -> f32) -> [f32; TASK_QUERIES] {
    let mut values = [0.0; TASK_QUERIES];
    values.iter_mut().zip(lanes.chunks_exact(width)).for_each(|(to, lanes)| *to = value(lanes));
    values
}
