//! Host twin of the group norm and of its gradients.

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use super::{Epilogue, Groups};

/// Rows whose sums are taken in f32, before they are added up in f64.
const TASK_ROWS: usize = 64;

/// `x [B, H, W, C]` in images of `height` × `width` pixels, flat; `epilogue` as in
/// [`group_norm`](super::group_norm).
pub(crate) fn group_norm(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    Groups { num_groups, epsilon }: Groups,
    [height, width]: [usize; 2],
    epilogue: Epilogue<&[f32]>,
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
            let coarse = match epilogue {
                Epilogue::AddUpsampled(coarse) => {
                    let coarse_row = width / 2 * dim;
                    Some(&coarse[(image * (height / 2) + y / 2) * coarse_row..][..coarse_row])
                }
                Epilogue::Nothing | Epilogue::Relu => None,
            };
            let relu = matches!(epilogue, Epilogue::Relu);
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

/// The input of a norm.
#[derive(Clone, Copy)]
pub(crate) struct NormInput<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) groups: Groups,
    pub(crate) relu: bool,
}

/// Gradient of x, empty where nobody `wants_x`, and `[2, C]`: those of bias and weight; for images of
/// `num_pixels` pixels, flat.
pub(crate) fn grad(grad: &[f32], input: NormInput<'_>, num_pixels: usize, wants_x: bool) -> (Vec<f32>, Vec<f32>) {
    let NormInput { x, weight, bias, groups: Groups { num_groups, epsilon }, relu } = input;
    let dim = weight.len();
    let (group, count) = (dim / num_groups, (num_pixels * dim / num_groups) as f64);
    let (task, image_len) = (TASK_ROWS * dim, num_pixels * dim);
    let arch = Arch::new();
    let mut grad_x = vec![0.0; if wants_x { x.len() } else { 0 }];
    let mut totals = vec![0.0f64; 2 * dim];
    for (image, (x, grad)) in x.chunks_exact(image_len).zip(grad.chunks_exact(image_len)).enumerate() {
        // As in the forward pass to the bit, so that the same values are cut.
        let means = per_group(x, num_groups, &vec![0.0; dim], |x| x);
        let variances = per_group(x, num_groups, &means, |x| x * x);
        let inverses: Vec<f32> = variances.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect();
        let norm = Channels { means: &means, inverses: &inverses, weight, bias, relu };
        let tasks = x.par_chunks(task).zip(grad.par_chunks(task));
        let parts: Vec<_> = tasks.map(|(x, grad)| arch.dispatch(GradSums { x, grad, norm })).collect();
        let mut sums = vec![0.0f64; 2 * dim];
        for part in parts {
            sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(part));
        }
        sums[dim..].iter_mut().zip(&inverses).for_each(|(sum, inverse)| *sum *= f64::from(*inverse));
        totals.iter_mut().zip(&sums).for_each(|(total, sum)| *total += sum);
        let Some(grad_x) = grad_x.get_mut(image * image_len..(image + 1) * image_len) else { continue };
        let scaled = |row: usize, first: usize| -> f64 {
            (first..first + group).map(|c| sums[row * dim + c] * f64::from(weight[c])).sum::<f64>() / count
        };
        // grad_x = a · g + b · (x − mean) + c, per channel.
        let mut factors = vec![0.0f32; 3 * dim];
        for c in 0..dim {
            let inverse = f64::from(inverses[c]);
            factors[c] = inverses[c] * weight[c];
            factors[dim + c] = (-scaled(1, c / group * group) * inverse * inverse) as f32;
            factors[2 * dim + c] = (-scaled(0, c / group * group) * inverse) as f32;
        }
        let tasks = grad_x.par_chunks_mut(task).zip(x.par_chunks(task).zip(grad.par_chunks(task)));
        tasks.for_each(|(out, (x, grad))| arch.dispatch(GradX { x, grad, norm, factors: &factors, out }));
    }
    (grad_x, totals.into_iter().map(|total| total as f32).collect())
}

/// Every pixel of the coarse image is the sum of the four it was repeated to.
pub(crate) fn upsampled_grad(grad: &[f32], width: usize, dim: usize) -> Vec<f32> {
    let mut out = vec![0.0; grad.len() / 4];
    let tasks = out.par_chunks_mut(width / 2 * dim).zip(grad.par_chunks(2 * width * dim));
    tasks.for_each(|(out, grad)| {
        let (upper, lower) = grad.split_at(width * dim);
        let pairs = upper.chunks_exact(2 * dim).zip(lower.chunks_exact(2 * dim));
        for (out, (upper, lower)) in out.chunks_exact_mut(dim).zip(pairs) {
            for c in 0..dim {
                out[c] = (upper[c] + upper[dim + c]) + (lower[c] + lower[dim + c]);
            }
        }
    });
    out
}

/// Statistics and parameters of every channel of an image.
#[derive(Clone, Copy)]
struct Channels<'a> {
    means: &'a [f32],
    inverses: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    relu: bool,
}

impl<'a> Channels<'a> {
    /// The same, in slices whose length the compiler knows to be `dim`.
    #[inline(always)]
    fn of(&self, dim: usize) -> Self {
        let cut = |values: &'a [f32]| &values[..dim];
        let Self { means, inverses, weight, bias, relu } = *self;
        Self { means: cut(means), inverses: cut(inverses), weight: cut(weight), bias: cut(bias), relu }
    }

    /// The gradient where the result was not cut.
    #[inline(always)]
    fn passed(&self, c: usize, x: f32, grad: f32) -> f32 {
        let y = (x - self.means[c]) * self.inverses[c] * self.weight[c] + self.bias[c];
        if self.relu & (y <= 0.0) { 0.0 } else { grad }
    }
}

/// Σ g and Σ g · (x − mean) over a few rows.
struct GradSums<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    norm: Channels<'a>,
}

impl NullaryFnOnce for GradSums<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn call(self) -> Vec<f32> {
        let Self { x, grad, norm } = self;
        let dim = norm.means.len();
        let mut sums = vec![0.0; 2 * dim];
        let (plain, products) = sums.split_at_mut(dim);
        let (plain, products) = (&mut plain[..dim], &mut products[..dim]);
        let norm = norm.of(dim);
        for (x, grad) in x.chunks_exact(dim).zip(grad.chunks_exact(dim)) {
            for c in 0..dim {
                let g = norm.passed(c, x[c], grad[c]);
                plain[c] += g;
                products[c] += g * (x[c] - norm.means[c]);
            }
        }
        sums
    }
}

struct GradX<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    norm: Channels<'a>,
    factors: &'a [f32],
    out: &'a mut [f32],
}

impl NullaryFnOnce for GradX<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { x, grad, norm, factors, out } = self;
        let dim = norm.means.len();
        let norm = norm.of(dim);
        let (of_grad, of_x, constant) = (&factors[..dim], &factors[dim..2 * dim], &factors[2 * dim..3 * dim]);
        for ((out, x), grad) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(grad.chunks_exact(dim)) {
            for c in 0..dim {
                let g = norm.passed(c, x[c], grad[c]);
                out[c] = of_grad[c] * g + of_x[c] * (x[c] - norm.means[c]) + constant[c];
            }
        }
    }
}
