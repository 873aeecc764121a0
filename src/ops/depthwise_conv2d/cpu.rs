//! Host twin of the depthwise convolution and of its gradients.

use pulp::{Arch, NullaryFnOnce, Simd, WithSimd};
use rayon::prelude::*;

use crate::ops::gemm::register_pair;
use crate::ops::planes::{Plane, join, join_sums};

/// `x [B, H, W, C]` in images of `height` × `width` pixels, `weight [k², C]`, `bias [C]`, flat.
pub(crate) fn depthwise_conv2d(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    [height, width]: [usize; 2],
    kernel: usize,
) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let arch = Arch::new();
    out.par_chunks_mut(width * bias.len()).enumerate().for_each(|(row, out)| {
        let image = &x[row / height * height * width * bias.len()..][..height * width * bias.len()];
        arch.dispatch(Row { image, weight, bias, y: row % height, size: [height, width], kernel, out });
    });
    out
}

/// One row of pixels of one image.
struct Row<'a> {
    image: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    y: usize,
    size: [usize; 2],
    kernel: usize,
    out: &'a mut [f32],
}

impl NullaryFnOnce for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { image, weight, bias, y, size: [height, width], kernel, out } = self;
        let dim = bias.len();
        let reach = kernel / 2;
        for (x, out) in out.chunks_exact_mut(dim).enumerate() {
            out.copy_from_slice(bias);
            for dy in reach.saturating_sub(y)..kernel.min(height + reach - y) {
                for dx in reach.saturating_sub(x)..kernel.min(width + reach - x) {
                    let from = &image[((y + dy - reach) * width + x + dx - reach) * dim..][..dim];
                    let weight = &weight[(dy * kernel + dx) * dim..][..dim];
                    for c in 0..dim {
                        out[c] += from[c] * weight[c];
                    }
                }
            }
        }
    }
}

/// Gradients of `x`, `weight` and the bias from `grad [B, H, W, C]`; they mean nothing where `wants` denies them.
pub(crate) fn grad(
    grad: &[f32],
    x: &[f32],
    weight: &[f32],
    [height, width, num_channels]: [usize; 3],
    kernel: usize,
    wants: [bool; 3],
) -> [Vec<f32>; 3] {
    let (arch, block) = (Arch::new(), register_pair());
    let num_blocks = num_channels.div_ceil(block);
    let image_len = height * width * num_channels;
    let parts: Vec<[Vec<f32>; 3]> = (0..x.len() / image_len * num_blocks)
        .into_par_iter()
        .map(|task| {
            let (image, first) = (task / num_blocks, task % num_blocks * block);
            let layout = Plane { height, width, border: kernel / 2, block, num_channels, first };
            let (grad, x) = (&grad[image * image_len..][..image_len], &x[image * image_len..][..image_len]);
            arch.dispatch(GradBlock { grad, x, weight, layout, kernel, wants })
        })
        .collect();
    let part = |i: usize| parts.iter().map(|part| &part[i]).collect::<Vec<_>>();
    let grad_x = if wants[0] { join(&part(0), block, [height, width, num_channels]) } else { Vec::new() };
    [grad_x, join_sums(&part(1), block, num_channels), join_sums(&part(2), block, num_channels)]
}

/// Some channels of one image.
struct GradBlock<'a> {
    grad: &'a [f32],
    x: &'a [f32],
    weight: &'a [f32],
    layout: Plane,
    kernel: usize,
    wants: [bool; 3],
}

impl WithSimd for GradBlock<'_> {
    type Output = [Vec<f32>; 3];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [Vec<f32>; 3] {
        let Self { grad, x, weight, layout, kernel, wants } = self;
        let (block, row) = (layout.block, layout.width * layout.block);
        let grad = layout.load(grad);
        let mut grad_x = Vec::new();
        if wants[0] {
            let weight = layout.weight(weight, true);
            let mut buffer = vec![0.0; layout.row_len()];
            grad_x.reserve_exact(layout.height * row);
            for y in 0..layout.height {
                layout.convolve(simd, &grad, &weight, kernel, y, &mut buffer);
                grad_x.extend_from_slice(&buffer[..row]);
            }
        }
        let mut grad_weight = vec![0.0; kernel * kernel * block];
        if wants[1] {
            layout.grad_weight(simd, &layout.load(x), &grad, kernel, &mut grad_weight);
        }
        let mut grad_bias = vec![0.0; block];
        if wants[2] {
            let mut row_sum = vec![0.0; block];
            for y in 0..layout.height {
                row_sum.fill(0.0);
                for grad in grad[layout.at(y)..][..row].chunks_exact(block) {
                    row_sum.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
                }
                grad_bias.iter_mut().zip(&row_sum).for_each(|(sum, row)| *sum += row);
            }
        }
        [grad_x, grad_weight, grad_bias]
    }
}
