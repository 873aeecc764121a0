//! Host twin of the focal modulation and of its gradients. A task takes two SIMD registers of channels through all levels, so
//! that its planes stay in the second-level cache.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Levels;
use crate::ops::gemm::register_pair;
use crate::ops::math::{erf, exp, gelu};
use crate::ops::planes::{Plane, join, join_sums};

/// `context [B, H, W, C]`, `gates [B, H, W, levels + 1]`, `kernels [Σ k², C]`, flat; the contract is that of
/// [`focal_modulation`](super::focal_modulation).
pub(crate) fn focal_modulation(
    context: &[f32],
    gates: &[f32],
    kernels: &[f32],
    [height, width, num_channels]: [usize; 3],
    levels: Levels,
) -> Vec<f32> {
    let pixels = height * width;
    let num_gates = levels.num_levels + 1;
    let (arch, block) = (Arch::new(), register_pair());
    let num_blocks = num_channels.div_ceil(block);
    let batch = context.len() / (pixels * num_channels);
    let blocks: Vec<Vec<f32>> = (0..batch * num_blocks)
        .into_par_iter()
        .map(|task| {
            let (image, first) = (task / num_blocks, task % num_blocks * block);
            let context = &context[image * pixels * num_channels..][..pixels * num_channels];
            let gates = &gates[image * pixels * num_gates..][..pixels * num_gates];
            arch.dispatch(Block { context, gates, kernels, size: [height, width], num_channels, first, levels })
        })
        .collect();
    join(&blocks, block, [height, width, num_channels])
}

/// The channels from `first` of one image.
struct Block<'a> {
    context: &'a [f32],
    gates: &'a [f32],
    kernels: &'a [f32],
    size: [usize; 2],
    num_channels: usize,
    first: usize,
    levels: Levels,
}

impl WithSimd for Block<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let Self { context, gates, kernels, size: [height, width], num_channels, first, levels } = self;
        let block = 2 * S::F32_LANES;
        let num_gates = levels.num_levels + 1;
        let border = levels.kernel(levels.num_levels - 1) / 2;
        let layout = Plane { height, width, border, block, num_channels, first };
        let mut plane = layout.load(context);
        let mut next = layout.zeros();
        let mut out = vec![0.0; height * width * block];
        let mut first_tap = 0;
        for level in 0..levels.num_levels {
            let kernel = levels.kernel(level);
            let taps = first_tap * num_channels..(first_tap + kernel * kernel) * num_channels;
            let weight = layout.weight(&kernels[taps], false);
            first_tap += kernel * kernel;
            for y in 0..height {
                let at = layout.at(y);
                let to = &mut next[at..at + layout.row_len()];
                layout.convolve(simd, &plane, &weight, kernel, y, to);
                let to = &mut to[..width * block];
                to.iter_mut().for_each(|x| *x = gelu(*x));
                let row = y * width..(y + 1) * width;
                let sums = out[row.start * block..row.end * block].chunks_exact_mut(block);
                let gates = gates[row.start * num_gates..row.end * num_gates].chunks_exact(num_gates);
                for ((sum, value), gates) in sums.zip(to.chunks_exact(block)).zip(gates) {
                    sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += value * gates[level]);
                }
                // Values past the end of the row must be border again.
                next[at + width * block..at + layout.row_len()].fill(0.0);
            }
            std::mem::swap(&mut plane, &mut next);
        }
        let mut global = vec![0.0; block];
        for y in 0..height {
            let mut row_sum = vec![0.0; block];
            let at = layout.at(y);
            for value in plane[at..at + width * block].chunks_exact(block) {
                row_sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += value);
            }
            global.iter_mut().zip(row_sum).for_each(|(sum, row)| *sum += row);
        }
        let count = (height * width) as f32;
        global.iter_mut().for_each(|x| *x = gelu(*x / count));
        let divisor = levels.divisor();
        for (sum, gates) in out.chunks_exact_mut(block).zip(gates.chunks_exact(num_gates)) {
            let gate = gates[levels.num_levels];
            sum.iter_mut().zip(&global).for_each(|(sum, global)| *sum = (*sum + global * gate) / divisor);
        }
        out
    }
}

/// Which gradients are asked for.
#[derive(Clone, Copy)]
pub(crate) struct Wants {
    pub context: bool,
    pub kernels: bool,
}

/// Gradients of the context, the gates and the kernels, shaped as they are, from `grad [B, H, W, C]`; those of
/// the context and the kernels mean nothing where they are not asked for.
pub(crate) fn grad(
    grad: &[f32],
    [context, gates, kernels]: [&[f32]; 3],
    [height, width, num_channels]: [usize; 3],
    levels: Levels,
    wants: Wants,
) -> [Vec<f32>; 3] {
    let pixels = height * width;
    let num_gates = levels.num_levels + 1;
    let (arch, block) = (Arch::new(), register_pair());
    let num_blocks = num_channels.div_ceil(block);
    let batch = context.len() / (pixels * num_channels);
    let parts: Vec<[Vec<f32>; 3]> = (0..batch * num_blocks)
        .into_par_iter()
        .map(|task| {
            let (image, first) = (task / num_blocks, task % num_blocks * block);
            let values = image * pixels * num_channels..(image + 1) * pixels * num_channels;
            let gates = &gates[image * pixels * num_gates..][..pixels * num_gates];
            let (grad, context, size) = (&grad[values.clone()], &context[values], [height, width]);
            let forward = Block { context, gates, kernels, size, num_channels, first, levels };
            arch.dispatch(GradBlock { forward, grad, wants })
        })
        .collect();
    let part = |i: usize| parts.iter().map(|part| &part[i]).collect::<Vec<_>>();
    let mut grad_gates = vec![0.0; gates.len()];
    grad_gates.par_chunks_mut(pixels * num_gates).zip(parts.par_chunks(num_blocks)).for_each(|(out, parts)| {
        for [_, part, _] in parts {
            out.iter_mut().zip(part).for_each(|(out, part)| *out += part);
        }
    });
    [join(&part(0), block, [height, width, num_channels]), grad_gates, join_sums(&part(2), block, num_channels)]
}

/// The backward pass of a block: of the context `[H, W, block]`, of the gates as far as these channels go, of the
/// kernels `[Σ k², block]`. What the forward pass had between is made anew, which is faster than to keep it.
struct GradBlock<'a> {
    forward: Block<'a>,
    grad: &'a [f32],
    wants: Wants,
}

impl WithSimd for GradBlock<'_> {
    type Output = [Vec<f32>; 3];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [Vec<f32>; 3] {
        let Self { forward, grad, wants } = self;
        let Block { context, gates, kernels, size: [height, width], num_channels, first, levels } = forward;
        let block = 2 * S::F32_LANES;
        let (num_gates, row) = (levels.num_levels + 1, width * block);
        let border = levels.kernel(levels.num_levels - 1) / 2;
        let layout = Plane { height, width, border, block, num_channels, first };
        let mut first_taps = vec![0];
        for level in 0..levels.num_levels {
            first_taps.push(first_taps[level] + levels.kernel(level).pow(2));
        }
        let weight = |level: usize, flipped: bool| {
            layout.weight(&kernels[first_taps[level] * num_channels..first_taps[level + 1] * num_channels], flipped)
        };

        // The input of every level and the output of the last, and the slope of every GELU.
        let mut planes = vec![layout.load(context)];
        let mut slopes = vec![vec![0.0; height * row]; levels.num_levels];
        let mut buffer = vec![0.0; layout.row_len()];
        for (level, slopes) in slopes.iter_mut().enumerate() {
            let (mut next, weight) = (layout.zeros(), weight(level, false));
            for (y, slopes) in slopes.chunks_exact_mut(row).enumerate() {
                layout.convolve(simd, &planes[level], &weight, levels.kernel(level), y, &mut buffer);
                let next = &mut next[layout.at(y)..][..row];
                for ((next, slope), &x) in next.iter_mut().zip(slopes).zip(&buffer[..row]) {
                    (*next, *slope) = gelu_and_slope(x);
                }
            }
            planes.push(next);
        }
        let count = (height * width) as f32;
        let mut global = vec![0.0; block];
        let mut row_sum = vec![0.0; block];
        for y in 0..height {
            row_sum.fill(0.0);
            for value in planes[levels.num_levels][layout.at(y)..][..row].chunks_exact(block) {
                row_sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += value);
            }
            global.iter_mut().zip(&row_sum).for_each(|(sum, row)| *sum += row);
        }
        let mut global_slope = vec![0.0; block];
        for (global, slope) in global.iter_mut().zip(&mut global_slope) {
            (*global, *slope) = gelu_and_slope(*global / count);
        }

        // From here on `grad` is that of the sum before the division.
        let mut undivided = vec![0.0; height * row];
        layout.pick(grad, &mut undivided);
        let divisor = levels.divisor();
        undivided.iter_mut().for_each(|x| *x /= divisor);
        let grad = undivided;
        let mut grad_gates = vec![0.0; height * width * num_gates];
        let mut grad_global = vec![0.0; block];
        for y in 0..height {
            row_sum.fill(0.0);
            for x in 0..width {
                let pixel = y * width + x;
                let grad = &grad[pixel * block..][..block];
                let gates = &gates[pixel * num_gates..][..num_gates];
                let grad_gates = &mut grad_gates[pixel * num_gates..][..num_gates];
                for level in 0..levels.num_levels {
                    grad_gates[level] = dot::<S>(simd, grad, &planes[level + 1][layout.at(y) + x * block..][..block]);
                }
                grad_gates[levels.num_levels] = dot::<S>(simd, grad, &global);
                let gate = gates[levels.num_levels];
                row_sum.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad * gate);
            }
            grad_global.iter_mut().zip(&row_sum).for_each(|(sum, row)| *sum += row);
        }

        let mut grad_kernels = vec![0.0; first_taps[levels.num_levels] * block];
        // Gradient of a level's output that does not come through its gate: at first that of the mean.
        let mean_grad = grad_global.iter().zip(&global_slope).map(|(grad, slope)| grad * slope / count);
        let mean_grad: Vec<f32> = mean_grad.collect();
        let mut flow = mean_grad.repeat(height * width);
        let mut before = layout.zeros();
        for level in (0..levels.num_levels).rev() {
            let kernel = levels.kernel(level);
            if !wants.context && !wants.kernels {
                break;
            }
            for y in 0..height {
                let before = before[layout.at(y)..][..row].chunks_exact_mut(block).enumerate();
                for (x, before) in before {
                    let pixel = y * width + x;
                    let at = pixel * block..(pixel + 1) * block;
                    let (grad, flow, slopes) = (&grad[at.clone()], &flow[at.clone()], &slopes[level][at]);
                    let gate = gates[pixel * num_gates + level];
                    for c in 0..block {
                        before[c] = (grad[c] * gate + flow[c]) * slopes[c];
                    }
                }
            }
            if wants.kernels {
                let grad_kernel = &mut grad_kernels[first_taps[level] * block..first_taps[level + 1] * block];
                layout.grad_weight(simd, &planes[level], &before, kernel, grad_kernel);
            }
            if level > 0 || wants.context {
                let weight = weight(level, true);
                for (y, flow) in flow.chunks_exact_mut(row).enumerate() {
                    layout.convolve(simd, &before, &weight, kernel, y, &mut buffer);
                    flow.copy_from_slice(&buffer[..row]);
                }
            }
        }
        [flow, grad_gates, grad_kernels]
    }
}

/// x · Φ(x) and its derivative, Φ(x) + x · φ(x).
#[inline(always)]
fn gelu_and_slope(x: f32) -> (f32, f32) {
    const INVERSE_SQRT_2_PI: f32 = 0.398_942_3;
    let below = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    (x * below, below + x * INVERSE_SQRT_2_PI * exp(-0.5 * x * x))
}

/// Σ a · b over a block of channels.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, _) = S::as_simd_f32s(a);
    let (b, _) = S::as_simd_f32s(b);
    simd.reduce_sum_f32s(simd.mul_add_e_f32s(a[0], b[0], simd.mul_f32s(a[1], b[1])))
}
