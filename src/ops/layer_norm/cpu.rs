//! Host twin of the layer norm and of its gradients.

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use super::Fusion;
use crate::ops::math::sum;

/// Values of one task.
const TASK_VALUES: usize = 1 << 14;

/// Rows of `dim` values; `fusion` as in [`layer_norm`](super::layer_norm), flat.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, fusion: Fusion<&[f32]>) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let arch = Arch::new();
    let dim = weight.len();
    let task = (TASK_VALUES / dim).max(1) * dim;
    out.par_chunks_mut(task).enumerate().for_each(|(i, out)| {
        let at = i * task..i * task + out.len();
        let fusion = match fusion {
            Fusion::Nothing => Fusion::Nothing,
            Fusion::Add(other) => Fusion::Add(&other[at.clone()]),
            Fusion::Residual { residual, scale } => Fusion::Residual { residual: &residual[at.clone()], scale },
        };
        arch.dispatch(Rows { x: &x[at], weight, bias, epsilon, fusion, out });
    });
    out
}

struct Rows<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
    fusion: Fusion<&'a [f32]>,
    out: &'a mut [f32],
}

impl NullaryFnOnce for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { x, weight, bias, epsilon, fusion, out } = self;
        let dim = weight.len();
        let rows = out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).enumerate();
        let mut added = Vec::new();
        for (r, (out, x)) in rows {
            let row = r * dim..(r + 1) * dim;
            match fusion {
                Fusion::Nothing => normalize(x, weight, bias, epsilon, out),
                Fusion::Add(other) => {
                    added.clear();
                    added.extend(x.iter().zip(&other[row]).map(|(x, other)| x + other));
                    normalize(&added, weight, bias, epsilon, out);
                }
                Fusion::Residual { residual, scale } => {
                    normalize(x, weight, bias, epsilon, out);
                    for ((x, residual), scale) in out.iter_mut().zip(&residual[row]).zip(scale) {
                        *x = residual + scale * *x;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn normalize(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let dim = x.len();
    let mean = sum(x, |x| x) / dim as f32;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / dim as f32;
    let inverse = 1.0 / (variance + epsilon).sqrt();
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = (x - mean) * inverse * weight + bias;
    }
}

/// Rows whose sums are taken in f32, before they are added up in f64.
const RUN_ROWS: usize = 64;
/// Independent sums along a row.
const LANES: usize = 16;

/// With z = `x` (+ `other`): the gradient of z, empty where nobody `wants_z`, and `[2, dim]`: Σ grad and
/// Σ grad · (z − mean) / √(variance + ε) over the rows.
pub(crate) fn grad(
    grad: &[f32],
    x: &[f32],
    other: Option<&[f32]>,
    weight: &[f32],
    epsilon: f32,
    wants_z: bool,
) -> (Vec<f32>, Vec<f32>) {
    let dim = weight.len();
    let task = (TASK_VALUES / dim).max(1) * dim;
    let mut grad_z = vec![0.0; if wants_z { x.len() } else { 0 }];
    let mut parts: Vec<&mut [f32]> = grad_z.chunks_mut(task).collect();
    parts.resize_with(x.len().div_ceil(task), Default::default);
    let arch = Arch::new();
    let sums = parts.into_par_iter().enumerate().map(|(i, grad_z)| {
        let at = i * task..x.len().min((i + 1) * task);
        let other = other.map(|other| &other[at.clone()]);
        arch.dispatch(GradRows { grad: &grad[at.clone()], x: &x[at], other, weight, epsilon, grad_z })
    });
    let mut totals = vec![0.0f64; 2 * dim];
    for part in sums.collect::<Vec<_>>() {
        totals.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    (grad_z, totals.into_iter().map(|total| total as f32).collect())
}

struct GradRows<'a> {
    grad: &'a [f32],
    x: &'a [f32],
    other: Option<&'a [f32]>,
    weight: &'a [f32],
    epsilon: f32,
    /// Empty where nobody asks for it.
    grad_z: &'a mut [f32],
}

impl NullaryFnOnce for GradRows<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn call(self) -> Vec<f64> {
        let Self { grad, x, other, weight, epsilon, grad_z } = self;
        let dim = weight.len();
        let mut totals = vec![0.0f64; 2 * dim];
        let mut sums = vec![0.0f32; 2 * dim];
        let mut added = vec![0.0f32; dim];
        let num_rows = x.len() / dim;
        for first in (0..num_rows).step_by(RUN_ROWS) {
            sums.fill(0.0);
            let (sum_grad, sum_product) = sums.split_at_mut(dim);
            let sum_product = &mut sum_product[..dim];
            for r in first..num_rows.min(first + RUN_ROWS) {
                let row = r * dim..(r + 1) * dim;
                let (grad, x) = (&grad[row.clone()], &x[row.clone()]);
                let z = match other {
                    Some(other) => {
                        let other = &other[row.clone()];
                        for c in 0..dim {
                            added[c] = x[c] + other[c];
                        }
                        &added[..dim]
                    }
                    None => x,
                };
                let [sum_z, sum_scaled] = two_sums(z, grad, weight, |z, grad, weight| [z, grad * weight]);
                let (mean, mean_scaled) = (sum_z / dim as f32, sum_scaled / dim as f32);
                let [squares, products] = two_sums(z, grad, weight, |z, grad, weight| {
                    let d = z - mean;
                    [d * d, d * (grad * weight)]
                });
                let inverse = 1.0 / (squares / dim as f32 + epsilon).sqrt();
                let along = products / dim as f32 * inverse;
                for c in 0..dim {
                    sum_grad[c] += grad[c];
                    sum_product[c] += grad[c] * ((z[c] - mean) * inverse);
                }
                if let Some(grad_z) = grad_z.get_mut(row) {
                    for c in 0..dim {
                        let normalized = (z[c] - mean) * inverse;
                        grad_z[c] = (grad[c] * weight[c] - mean_scaled - normalized * along) * inverse;
                    }
                }
            }
            totals.iter_mut().zip(&sums).for_each(|(total, sum)| *total += f64::from(*sum));
        }
        totals
    }
}

/// Two sums over a row at once, each in [`LANES`] interleaved ones that are added up pairwise.
#[inline(always)]
fn two_sums(z: &[f32], grad: &[f32], weight: &[f32], f: impl Fn(f32, f32, f32) -> [f32; 2]) -> [f32; 2] {
    let (z, z_rest) = z.as_chunks::<LANES>();
    let (grad, grad_rest) = grad.as_chunks::<LANES>();
    let (weight, weight_rest) = weight.as_chunks::<LANES>();
    let (mut first, mut second) = ([0.0f32; LANES], [0.0f32; LANES]);
    for ((z, grad), weight) in z.iter().zip(grad).zip(weight) {
        for lane in 0..LANES {
            let [a, b] = f(z[lane], grad[lane], weight[lane]);
            first[lane] += a;
            second[lane] += b;
        }
    }
    for (((lane, z), grad), weight) in z_rest.iter().enumerate().zip(grad_rest).zip(weight_rest) {
        let [a, b] = f(*z, *grad, *weight);
        first[lane] += a;
        second[lane] += b;
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            first[lane] += first[lane + half];
            second[lane] += second[lane + half];
        }
    }
    [first[0], second[0]]
}
