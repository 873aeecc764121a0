//! Host twin of the batch norm: every pass reads whole rows and is bound by memory.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

/// Rows of a task. Its sums are added up task by task, so the order does not depend on the threads.
const TASK_ROWS: usize = 512;
/// Rows whose sums are taken in f32, before they are added up in f64.
const RUN_ROWS: usize = 32;

/// Parameters of a norm that every pass needs.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub weight: &'a [f32],
    pub epsilon: f32,
    pub relu: bool,
}

/// Mean and biased variance of the columns of `x [V, dim]`, one behind the other: `[2, dim]`.
pub(crate) fn statistics(x: &[f32], dim: usize) -> Vec<f32> {
    let num_rows = x.len() / dim;
    let count = num_rows as f64;
    let means: Vec<f64> = column_sums(num_rows, dim, |row, sums| {
        for (sum, x) in sums.iter_mut().zip(&x[row * dim..][..dim]) {
            *sum += x;
        }
    });
    let means: Vec<f32> = means.into_iter().map(|sum| (sum / count) as f32).collect();
    let squares = column_sums(num_rows, dim, |row, sums| {
        for ((sum, x), mean) in sums.iter_mut().zip(&x[row * dim..][..dim]).zip(&means) {
            let d = x - mean;
            *sum += d * d;
        }
    });
    means.iter().copied().chain(squares.into_iter().map(|sum| (sum / count) as f32)).collect()
}

/// norm(x), plus `residual`, max(·, 0) with `relu`.
pub(crate) fn normalize(
    x: &[f32],
    residual: Option<&[f32]>,
    bias: &[f32],
    statistics: &[f32],
    norm: Norm<'_>,
) -> Vec<f32> {
    let dim = norm.weight.len();
    let (means, _) = statistics.split_at(dim);
    let inverses = inverses(statistics, norm);
    let scales: Vec<f32> = inverses.iter().zip(norm.weight).map(|(inverse, weight)| inverse * weight).collect();
    let least = if norm.relu { 0.0 } else { f32::NEG_INFINITY };
    let mut out = vec![0.0; x.len()];
    let arch = Arch::new();
    out.par_chunks_mut(TASK_ROWS * dim).enumerate().for_each(|(task, out)| {
        let x = &x[task * TASK_ROWS * dim..][..out.len()];
        let residual = residual.map(|residual| &residual[task * TASK_ROWS * dim..][..out.len()]);
        arch.dispatch(Normalize { x, residual, means, scales: &scales, bias, least, out });
    });
    out
}

/// Gradients of `x` and, where `masked` asks for it, of the residual; and `[2, dim]`: those of bias and weight.
pub(crate) fn grad(
    grad: &[f32],
    x: &[f32],
    y: &[f32],
    statistics: &[f32],
    norm: Norm<'_>,
    masked: bool,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let Norm { weight, relu, .. } = norm;
    let dim = weight.len();
    let num_rows = x.len() / dim;
    let (means, _) = statistics.split_at(dim);
    let inverses = inverses(statistics, norm);
    let mut sums = column_sums(num_rows, 2 * dim, |row, sums| {
        let (plain, normalized) = sums.split_at_mut(dim);
        let (grad, x, y) = (&grad[row * dim..][..dim], &x[row * dim..][..dim], &y[row * dim..][..dim]);
        let (normalized, means) = (&mut normalized[..dim], &means[..dim]);
        for c in 0..dim {
            let g = passed(grad[c], y[c], relu);
            plain[c] += g;
            normalized[c] += g * (x[c] - means[c]);
        }
    });
    sums[dim..].iter_mut().zip(&inverses).for_each(|(sum, inverse)| *sum *= f64::from(*inverse));

    let mean = |sum: &f64| (sum / num_rows as f64) as f32;
    let terms = GradTerms {
        means,
        inverses: &inverses,
        scales: &inverses.iter().zip(weight).map(|(inverse, weight)| inverse * weight).collect::<Vec<_>>(),
        mean_g: &sums[..dim].iter().map(mean).collect::<Vec<_>>(),
        mean_product: &sums[dim..].iter().map(mean).collect::<Vec<_>>(),
        relu,
    };
    let mut grad_x = vec![0.0; x.len()];
    let mut grad_residual = vec![0.0; if masked { x.len() } else { 0 }];
    let mut residuals: Vec<&mut [f32]> = grad_residual.chunks_mut(TASK_ROWS * dim).collect();
    residuals.resize_with(num_rows.div_ceil(TASK_ROWS), Default::default);
    let arch = Arch::new();
    let tasks = grad_x.par_chunks_mut(TASK_ROWS * dim).zip(residuals).enumerate();
    tasks.for_each(|(task, (grad_x, grad_residual))| {
        let rows = task * TASK_ROWS * dim..task * TASK_ROWS * dim + grad_x.len();
        let (grad, x, y) = (&grad[rows.clone()], &x[rows.clone()], &y[rows]);
        arch.dispatch(Grad { terms, grad, x, y, grad_x, grad_residual });
    });
    (grad_x, grad_residual, sums.into_iter().map(|sum| sum as f32).collect())
}

fn inverses(statistics: &[f32], norm: Norm<'_>) -> Vec<f32> {
    let variances = &statistics[norm.weight.len()..];
    variances.iter().map(|variance| 1.0 / (variance + norm.epsilon).sqrt()).collect()
}

/// A gradient where the ReLU let its value pass.
#[inline(always)]
fn passed(grad: f32, y: f32, relu: bool) -> f32 {
    if relu & (y <= 0.0) { 0.0 } else { grad }
}

/// The larger of the two; a NaN stays, unlike in `f32::max`, so that a run that has diverged shows it.
#[inline(always)]
fn at_least(x: f32, least: f32) -> f32 {
    if x < least { least } else { x }
}

/// Σ over rows of what `add` adds for a row, `width` sums.
fn column_sums(num_rows: usize, width: usize, add: impl Fn(usize, &mut [f32]) + Copy + Send + Sync) -> Vec<f64> {
    let arch = Arch::new();
    let tasks = (0..num_rows.div_ceil(TASK_ROWS)).into_par_iter().map(|task| {
        let rows = task * TASK_ROWS..num_rows.min((task + 1) * TASK_ROWS);
        arch.dispatch(Sums { rows, width, add })
    });
    let mut totals = vec![0.0; width];
    for part in tasks.collect::<Vec<_>>() {
        totals.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    totals
}

struct Sums<F> {
    rows: Range<usize>,
    width: usize,
    add: F,
}

impl<F: Fn(usize, &mut [f32])> NullaryFnOnce for Sums<F> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn call(self) -> Vec<f64> {
        let mut totals = vec![0.0f64; self.width];
        let mut sums = vec![0.0f32; self.width];
        for first in self.rows.clone().step_by(RUN_ROWS) {
            sums.fill(0.0);
            for row in first..self.rows.end.min(first + RUN_ROWS) {
                (self.add)(row, &mut sums);
            }
            totals.iter_mut().zip(&sums).for_each(|(total, sum)| *total += f64::from(*sum));
        }
        totals
    }
}

struct Normalize<'a> {
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    means: &'a [f32],
    scales: &'a [f32],
    bias: &'a [f32],
    /// The least value let through.
    least: f32,
    out: &'a mut [f32],
}

impl NullaryFnOnce for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { means, scales, bias, least, .. } = self;
        let dim = bias.len();
        let (means, scales) = (&means[..dim], &scales[..dim]);
        for (row, (out, x)) in self.out.chunks_exact_mut(dim).zip(self.x.chunks_exact(dim)).enumerate() {
            match self.residual {
                Some(residual) => {
                    let residual = &residual[row * dim..][..dim];
                    for c in 0..dim {
                        out[c] = at_least((x[c] - means[c]) * scales[c] + bias[c] + residual[c], least);
                    }
                }
                None => {
                    for c in 0..dim {
                        out[c] = at_least((x[c] - means[c]) * scales[c] + bias[c], least);
                    }
                }
            }
        }
    }
}

/// Per channel, what the gradient of the input is made of.
#[derive(Clone, Copy)]
struct GradTerms<'a> {
    means: &'a [f32],
    inverses: &'a [f32],
    scales: &'a [f32],
    mean_g: &'a [f32],
    mean_product: &'a [f32],
    relu: bool,
}

struct Grad<'a> {
    terms: GradTerms<'a>,
    grad: &'a [f32],
    x: &'a [f32],
    y: &'a [f32],
    grad_x: &'a mut [f32],
    /// Empty where nobody asks for it.
    grad_residual: &'a mut [f32],
}

impl NullaryFnOnce for Grad<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let GradTerms { means, inverses, scales, mean_g, mean_product, relu } = self.terms;
        let dim = means.len();
        let (inverses, scales) = (&inverses[..dim], &scales[..dim]);
        let (mean_g, mean_product) = (&mean_g[..dim], &mean_product[..dim]);
        for (row, grad_x) in self.grad_x.chunks_exact_mut(dim).enumerate() {
            let at = row * dim..(row + 1) * dim;
            let (grad, x, y) = (&self.grad[at.clone()], &self.x[at.clone()], &self.y[at.clone()]);
            for c in 0..dim {
                let g = passed(grad[c], y[c], relu);
                let normalized = (x[c] - means[c]) * inverses[c];
                grad_x[c] = scales[c] * (g - mean_g[c] - normalized * mean_product[c]);
            }
            if let Some(grad_residual) = self.grad_residual.get_mut(at) {
                for c in 0..dim {
                    grad_residual[c] = passed(grad[c], y[c], relu);
                }
            }
        }
    }
}
