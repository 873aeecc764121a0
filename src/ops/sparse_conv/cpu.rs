//! Host twin of the sparse convolution: one matrix product per kernel cell over the voxels that have a
//! neighbour there, read and added in place through the map, so nothing is gathered into memory.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::ops::gemm::{Activation, DEPTH, Panels, Product, multiply_add_rows, pack, panel_width};

/// Extents of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Cells of the kernel, K.
    pub kernel_volume: usize,
    /// Input channels.
    pub num_in: usize,
    /// Output channels.
    pub num_out: usize,
}

/// Rows of the weight's gradient in one task.
const TASK_INPUTS: usize = 96;

/// out\[v\] = Σₖ x\[map\[v, k\]\] · weight\[k\] (+ bias): `x [V, in]`, `weight [K, in, out]`, `map [V, K]`.
#[must_use]
pub fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, map: &[i32], dims: Dims) -> Vec<f32> {
    let Dims { kernel_volume, num_in, num_out } = dims;
    let panels = pack(kernel_volume * num_in, num_out, panel_width(), |d, col| weight[d * num_out + col]);
    forward_packed(x, &panels, bias, map, dims)
}

/// As [`forward`], with the weight packed, `[panels, K · in, width]`.
#[must_use]
pub(crate) fn forward_packed(x: &[f32], panels: &[f32], bias: Option<&[f32]>, map: &[i32], dims: Dims) -> Vec<f32> {
    let Dims { kernel_volume, num_in, num_out } = dims;
    let product = Product {
        x,
        panels: Panels::F32(panels),
        bias,
        activation: Activation::None,
        num_taps: kernel_volume,
        num_in,
        num_out,
        src: |dst: usize, k: usize| Some(usize::try_from(map[dst * kernel_volume + k]).ok()? * num_in),
    };
    product.run(map.len() / kernel_volume)
}

/// Gradient of the weight `[K, in, out]`: Σᵥ x\[map\[v, k\]\]ᵀ · grad_out\[v\].
#[must_use]
pub fn grad_weight(x: &[f32], grad_out: &[f32], map: &[i32], dims: Dims) -> Vec<f32> {
    let arch = Arch::new();
    let Dims { kernel_volume, num_in, num_out } = dims;
    let mut grad = vec![0.0; kernel_volume * num_in * num_out];
    grad.par_chunks_mut(num_in * num_out).enumerate().for_each(|(k, grad)| {
        let pairs = pairs(map, kernel_volume, k);
        grad.par_chunks_mut(TASK_INPUTS * num_out).enumerate().for_each(|(block, grad)| {
            arch.dispatch(GradWeight { x, grad_out, pairs: &pairs, first_in: block * TASK_INPUTS, grad, dims });
        });
    });
    grad
}

/// Destination and source voxel wherever cell `k` holds a voxel.
fn pairs(map: &[i32], kernel_volume: usize, k: usize) -> Vec<(usize, usize)> {
    let cells = map.iter().skip(k).step_by(kernel_volume).enumerate();
    cells.filter_map(|(dst, src)| Some((dst, usize::try_from(*src).ok()?))).collect()
}

/// Rows `first_in..` of the gradient of one kernel cell.
struct GradWeight<'a> {
    x: &'a [f32],
    grad_out: &'a [f32],
    pairs: &'a [(usize, usize)],
    first_in: usize,
    grad: &'a mut [f32],
    dims: Dims,
}

impl WithSimd for GradWeight<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Dims { num_in, num_out, .. } = self.dims;
        let width = 2 * S::F32_LANES;
        let padded = num_out.next_multiple_of(width);
        let num_rows = self.grad.len() / num_out;
        let mut sums = vec![0.0; num_rows * padded];
        let mut inputs = vec![0.0; num_rows * DEPTH];
        let mut panel = vec![0.0; DEPTH * width];
        for pairs in self.pairs.chunks(DEPTH) {
            let depth = pairs.len();
            for (p, (_, src)) in pairs.iter().enumerate() {
                let x = &self.x[src * num_in + self.first_in..][..num_rows];
                for (row, value) in inputs.chunks_exact_mut(DEPTH).zip(x) {
                    row[p] = *value;
                }
            }
            for first in (0..num_out).step_by(width) {
                let present = width.min(num_out - first);
                for (to, (dst, _)) in panel.chunks_exact_mut(width).zip(pairs) {
                    to[..present].copy_from_slice(&self.grad_out[dst * num_out + first..][..present]);
                    to[present..].fill(0.0);
                }
                let row = |i: usize| (&inputs[i * DEPTH..][..depth], i * padded + first);
                multiply_add_rows(simd, num_rows, row, &panel[..depth * width], &mut sums);
            }
        }
        for (grad, sums) in self.grad.chunks_exact_mut(num_out).zip(sums.chunks_exact(padded)) {
            grad.copy_from_slice(&sums[..num_out]);
        }
    }
}
