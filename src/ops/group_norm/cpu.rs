//! Host twin of the group norm.

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use super::After;

/// Rows whose sums are taken in f32, before they are added up in f64.
const TASK_ROWS: usize = 64;

/// `x [B, H, W, C]` in images of `height` × `width` pixels, flat; `after` as in
/// [`group_norm`](super::group_norm).
pub(crate) fn group_norm(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    num_groups: usize,
    epsilon: f32,
    [height, width]: [usize; 2],
    after: After<&[f32]>,
) -> Vec<f32> {
    let dim = weight.len();
    let arch = Arch::new();
    let mut out = vec![0.0; x.len()];
    let images = x.chunks_exact(height * width * dim).zip(out.chunks_exact_mut(height * width * dim));
    for (image, (x, out)) in images.enumerate() {
        let means = per_group(x, num_groups, &vec![0.0; dim], |x| x);
        let variances = per_group(x, num_groups, &means, |x| x * x);
        let inverses: Vec<f32> = variances.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect();
        let rows = out.par_chunks_mut(width * dim).zip(x.par_chunks(width * dim)).enumerate();
        rows.for_each(|(y, (out, x))| {
            let coarse = match after {
                After::AddUpsampled(coarse) => {
                    let coarse_row = width / 2 * dim;
                    Some(&coarse[(image * (height / 2) + y / 2) * coarse_row..][..coarse_row])
                }
                After::Nothing | After::Relu => None,
            };
            let relu = matches!(after, After::Relu);
            arch.dispatch(Normalize { x, means: &means, inverses: &inverses, weight, bias, relu, coarse, out });
        });
    }
    out
}

/// For every channel the mean of f(x − center) over its group and all pixels.
fn per_group(x: &[f32], num_groups: usize, center: &[f32], f: impl Fn(f32) -> f32 + Copy + Send + Sync) -> Vec<f32> {
    let dim = center.len();
    let arch = Arch::new();
    let parts: Vec<_> = x.par_chunks(TASK_ROWS * dim).map(|x| arch.dispatch(Sums { x, center, f })).collect();
    let mut sums = vec![0.0f64; dim];
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(part));
    }
    let group = dim / num_groups;
    let count = (x.len() / num_groups) as f64;
    sums.chunks_exact(group).flat_map(|s| std::iter::repeat_n((s.iter().sum::<f64>() / count) as f32, group)).collect()
}

struct Sums<'a, F> {
    x: &'a [f32],
    center: &'a [f32],
    f: F,
}

impl<F: Fn(f32) -> f32> NullaryFnOnce for Sums<'_, F> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn call(self) -> Vec<f32> {
        let mut sums = vec![0.0; self.center.len()];
        for row in self.x.chunks_exact(self.center.len()) {
            for ((sum, x), center) in sums.iter_mut().zip(row).zip(self.center) {
                *sum += (self.f)(x - center);
            }
        }
        sums
    }
}

struct Normalize<'a> {
    x: &'a [f32],
    means: &'a [f32],
    inverses: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    relu: bool,
    coarse: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl NullaryFnOnce for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let dim = self.weight.len();
        for (i, (out, x)) in self.out.chunks_exact_mut(dim).zip(self.x.chunks_exact(dim)).enumerate() {
            for c in 0..dim {
                out[c] = (x[c] - self.means[c]) * self.inverses[c] * self.weight[c] + self.bias[c];
            }
            if self.relu {
                out.iter_mut().for_each(|x| *x = x.max(0.0));
            }
            if let Some(coarse) = self.coarse {
                out.iter_mut().zip(&coarse[i / 2 * dim..]).for_each(|(out, coarse)| *out += coarse);
            }
        }
    }
}
