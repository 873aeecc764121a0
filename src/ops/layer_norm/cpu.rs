//! Host twin of the layer norm.

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use super::Around;
use crate::ops::math::sum;

/// Values of one task.
const TASK_VALUES: usize = 1 << 14;

/// Rows of `dim` values; `around` as in [`layer_norm`](super::layer_norm), flat.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, around: Around<&[f32]>) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let arch = Arch::new();
    let dim = weight.len();
    let task = (TASK_VALUES / dim).max(1) * dim;
    out.par_chunks_mut(task).enumerate().for_each(|(i, out)| {
        let at = i * task..i * task + out.len();
        let around = match around {
            Around::Nothing => Around::Nothing,
            Around::Add(other) => Around::Add(&other[at.clone()]),
            Around::Residual { residual, scale } => Around::Residual { residual: &residual[at.clone()], scale },
        };
        arch.dispatch(Rows { x: &x[at], weight, bias, epsilon, around, out });
    });
    out
}

struct Rows<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
    around: Around<&'a [f32]>,
    out: &'a mut [f32],
}

impl NullaryFnOnce for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { x, weight, bias, epsilon, around, out } = self;
        let dim = weight.len();
        let rows = out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).enumerate();
        let mut added = Vec::new();
        for (r, (out, x)) in rows {
            let row = r * dim..(r + 1) * dim;
            match around {
                Around::Nothing => normalize(x, weight, bias, epsilon, out),
                Around::Add(other) => {
                    added.clear();
                    added.extend(x.iter().zip(&other[row]).map(|(x, other)| x + other));
                    normalize(&added, weight, bias, epsilon, out);
                }
                Around::Residual { residual, scale } => {
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
