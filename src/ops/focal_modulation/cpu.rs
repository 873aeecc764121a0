//! Host twin of the focal modulation. A task takes two SIMD registers of channels through all levels, so
//! that its planes stay in the second-level cache.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Levels;
use crate::ops::gemm::panel_width;
use crate::ops::math::gelu;

/// Neighbouring pixels of one step: 4 × 2 sums and 2 weights in registers.
const PIXELS: usize = 4;

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
    let (arch, block) = (Arch::new(), panel_width());
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
    let mut out = vec![0.0; context.len()];
    out.par_chunks_mut(width * num_channels).enumerate().for_each(|(row, out)| {
        let (image, y) = (row / height, row % height);
        for (b, part) in blocks[image * num_blocks..][..num_blocks].iter().enumerate() {
            let present = block.min(num_channels - b * block);
            let part = part[y * width * block..][..width * block].chunks_exact(block);
            for (out, part) in out.chunks_exact_mut(num_channels).zip(part) {
                out[b * block..b * block + present].copy_from_slice(&part[..present]);
            }
        }
    });
    out
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
        let present = block.min(num_channels - first);
        let num_gates = levels.num_levels + 1;
        // Planes with a border of zeros; rows are a few pixels longer, as steps run over the end.
        let border = levels.kernel(levels.num_levels - 1) / 2;
        let pitch = (width.next_multiple_of(PIXELS) + 2 * border) * block;
        let mut plane = vec![0.0; (height + 2 * border) * pitch];
        let mut next = plane.clone();
        for (y, row) in context.chunks_exact(width * num_channels).enumerate() {
            let to = plane[(y + border) * pitch + border * block..].chunks_exact_mut(block);
            for (to, from) in to.zip(row.chunks_exact(num_channels)) {
                to[..present].copy_from_slice(&from[first..first + present]);
            }
        }
        let mut out = vec![0.0; height * width * block];
        let mut weight = Vec::new();
        let mut first_tap = 0;
        for level in 0..levels.num_levels {
            let kernel = levels.kernel(level);
            weight.clear();
            weight.resize(kernel * kernel * block, 0.0);
            for (to, from) in weight.chunks_exact_mut(block).zip(kernels.chunks_exact(num_channels).skip(first_tap)) {
                to[..present].copy_from_slice(&from[first..first + present]);
            }
            first_tap += kernel * kernel;
            let reach = (border - kernel / 2) * (pitch + block);
            for y in 0..height {
                let at = (y + border) * pitch + border * block;
                let to = &mut next[at..at + width.next_multiple_of(PIXELS) * block];
                for x in (0..width).step_by(PIXELS) {
                    let from = &plane[y * pitch + x * block + reach..];
                    convolve(simd, from, pitch, &weight, kernel, &mut to[x * block..][..PIXELS * block]);
                }
                let to = &mut to[..width * block];
                to.iter_mut().for_each(|x| *x = gelu(*x));
                let row = y * width..(y + 1) * width;
                let sums = out[row.start * block..row.end * block].chunks_exact_mut(block);
                let gates = gates[row.start * num_gates..row.end * num_gates].chunks_exact(num_gates);
                for ((sum, value), gates) in sums.zip(to.chunks_exact(block)).zip(gates) {
                    sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += value * gates[level]);
                }
                // What ran over the end of the row must be border again.
                next[at + width * block..at + width.next_multiple_of(PIXELS) * block].fill(0.0);
            }
            std::mem::swap(&mut plane, &mut next);
        }
        let mut global = vec![0.0; block];
        for y in 0..height {
            let mut row_sum = vec![0.0; block];
            let at = (y + border) * pitch + border * block;
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

/// A depthwise convolution at `PIXELS` neighbouring pixels: `from` begins at the first one's upper left tap.
#[inline(always)]
fn convolve<S: Simd>(simd: S, from: &[f32], pitch: usize, weight: &[f32], kernel: usize, to: &mut [f32]) {
    let block = 2 * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); 2]; PIXELS];
    for dy in 0..kernel {
        let (from, _) = S::as_simd_f32s(&from[dy * pitch..][..(kernel + PIXELS - 1) * block]);
        let (weight, _) = S::as_simd_f32s(&weight[dy * kernel * block..][..kernel * block]);
        let (from, _) = pulp::as_arrays::<2, _>(from);
        let (weight, _) = pulp::as_arrays::<2, _>(weight);
        for (dx, w) in weight.iter().enumerate() {
            let from = &from[dx..dx + PIXELS];
            for p in 0..PIXELS {
                sums[p][0] = simd.mul_add_e_f32s(from[p][0], w[0], sums[p][0]);
                sums[p][1] = simd.mul_add_e_f32s(from[p][1], w[1], sums[p][1]);
            }
        }
    }
    let (to, _) = S::as_mut_simd_f32s(to);
    for p in 0..PIXELS {
        to[2 * p] = sums[p][0];
        to[2 * p + 1] = sums[p][1];
    }
}
