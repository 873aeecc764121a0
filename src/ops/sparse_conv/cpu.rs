//! Host twin of the sparse convolution: one matrix product per kernel cell over the voxels that have a
//! neighbour there, read and added in place through the map, so nothing is gathered into memory.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::ops::gemm::{Activation, Panels, Product, multiply_add_rows, pack, panel_width};
use crate::ops::present;

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

/// Most rows of the weight's gradient in one task.
const TASK_INPUTS: usize = 192;

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
    let num_src = x.len() / num_in;
    let product = Product {
        x,
        panels: Panels::F32(panels),
        bias,
        activation: Activation::None,
        num_taps: kernel_volume,
        num_in,
        num_out,
        src: |dst: usize, k: usize| Some(present(map[dst * kernel_volume + k], num_src)? * num_in),
    };
    product.run(map.len() / kernel_volume)
}

/// Gradient of `x`: Σₖ grad_out\[map\[u, k\]\] · weight\[K − 1 − k\]ᵀ, for the map is its own inverse under reversal of k.
#[must_use]
pub fn grad_x(grad_out: &[f32], weight: &[f32], map: &[i32], dims: Dims) -> Vec<f32> {
    let Dims { kernel_volume, num_in, num_out } = dims;
    let panels = pack_reversed(weight, panel_width(), dims);
    let num_src = grad_out.len() / num_out;
    let product = Product {
        x: grad_out,
        panels: Panels::F32(&panels),
        bias: None,
        activation: Activation::None,
        num_taps: kernel_volume,
        num_in: num_out,
        num_out: num_in,
        src: |dst: usize, k: usize| Some(present(map[dst * kernel_volume + k], num_src)? * num_out),
    };
    product.run(map.len() / kernel_volume)
}

/// The reversed, transposed weight as [`pack`] would lay it out, `[in / width, K · out, width]`.
fn pack_reversed(weight: &[f32], width: usize, dims: Dims) -> Vec<f32> {
    /// Values of a row of the weight read at once: a line of cache.
    const LINE: usize = 16;
    let Dims { kernel_volume, num_in, num_out } = dims;
    let panel_len = kernel_volume * num_out * width;
    let mut panels = vec![0.0; num_in.div_ceil(width) * panel_len];
    panels.par_chunks_mut(panel_len).enumerate().for_each(|(panel, values)| {
        let rows = panel * width..num_in.min((panel + 1) * width);
        for (k, values) in values.chunks_exact_mut(num_out * width).enumerate() {
            let matrix = &weight[(kernel_volume - 1 - k) * num_in * num_out..][..num_in * num_out];
            for (line, values) in values.chunks_mut(LINE * width).enumerate() {
                let len = values.len() / width;
                for (col, row) in rows.clone().enumerate() {
                    let row = &matrix[row * num_out + line * LINE..][..len];
                    for (to, value) in values.chunks_exact_mut(width).zip(row) {
                        to[col] = *value;
                    }
                }
            }
        }
    });
    panels
}

/// Gradient of the weight `[K, in, out]`: Σᵥ x\[map\[v, k\]\]ᵀ · grad_out\[v\].
#[must_use]
pub fn grad_weight(x: &[f32], grad_out: &[f32], map: &[i32], dims: Dims) -> Vec<f32> {
    let arch = Arch::new();
    let Dims { kernel_volume, num_in, num_out } = dims;
    // Rows of a task, about equal.
    let rows = num_in.div_ceil(num_in.div_ceil(TASK_INPUTS)).next_multiple_of(6);
    let mut grad = vec![0.0; kernel_volume * num_in * num_out];
    grad.par_chunks_mut(num_in * num_out).enumerate().for_each(|(k, grad)| {
        let pairs = pairs(map, kernel_volume, k, x.len() / num_in);
        grad.par_chunks_mut(rows * num_out).enumerate().for_each(|(block, grad)| {
            arch.dispatch(GradWeight { x, grad_out, pairs: &pairs, first_in: block * rows, grad, dims });
        });
    });
    grad
}

/// Destination and source voxel wherever cell `k` holds a voxel.
fn pairs(map: &[i32], kernel_volume: usize, k: usize, num_src: usize) -> Vec<(usize, usize)> {
    let cells = map.iter().skip(k).step_by(kernel_volume).enumerate();
    cells.filter_map(|(dst, src)| Some((dst, present(*src, num_src)?))).collect()
}

/// Rows `first_in..` of the gradient of one kernel cell.
pub(crate) struct GradWeight<'a> {
    /// `[.., in]`.
    pub(crate) x: &'a [f32],
    /// `[.., out]`.
    pub(crate) grad_out: &'a [f32],
    /// Rows of `grad_out` and of `x` that meet.
    pub(crate) pairs: &'a [(usize, usize)],
    pub(crate) first_in: usize,
    /// `[.., out]`, as many rows as are wanted.
    pub(crate) grad: &'a mut [f32],
    pub(crate) dims: Dims,
}

/// Pairs whose values are moved together: they fill a line of cache.
const PAIRS: usize = 16;
/// Pairs that are summed at once: their values stay in the cache of one core.
const DEPTH: usize = 256;

impl WithSimd for GradWeight<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Dims { num_in, num_out, .. } = self.dims;
        let width = panel_width();
        let num_panels = num_out.div_ceil(width);
        let num_rows = self.grad.len() / num_out;
        // Panel by panel, so that the inner kernel walks the sums in order.
        let mut sums = vec![0.0; num_panels * num_rows * width];
        let mut inputs = vec![0.0; num_rows * DEPTH];
        // A line more than a panel needs: panels a power of two apart would share few sets of the cache.
        let panel_len = (DEPTH + 1) * width;
        let mut panels = vec![0.0; num_panels * panel_len];
        for pairs in self.pairs.chunks(DEPTH) {
            let depth = pairs.len();
            for (block, pairs) in pairs.chunks(PAIRS).enumerate() {
                let mut sources = [&self.x[..0]; PAIRS];
                for (source, (_, src)) in sources.iter_mut().zip(pairs) {
                    *source = &self.x[src * num_in + self.first_in..][..num_rows];
                }
                let sources = &sources[..pairs.len()];
                for (row, inputs) in inputs.chunks_exact_mut(DEPTH).enumerate() {
                    for (to, source) in inputs[block * PAIRS..].iter_mut().zip(sources) {
                        *to = source[row];
                    }
                }
                for (p, (dst, _)) in pairs.iter().enumerate() {
                    let row = &self.grad_out[dst * num_out..][..num_out];
                    let at = (block * PAIRS + p) * width;
                    let (whole, rest) = row.split_at(num_out / width * width);
                    let mut panels = panels.chunks_exact_mut(panel_len);
                    for (line, panel) in whole.chunks_exact(width).zip(&mut panels) {
                        let (from, _) = S::as_simd_f32s(line);
                        let (to, _) = S::as_mut_simd_f32s(&mut panel[at..at + width]);
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                    }
                    if let Some(panel) = panels.next() {
                        panel[at..at + rest.len()].copy_from_slice(rest);
                    }
                }
            }
            for (panel, sums) in panels.chunks_exact(panel_len).zip(sums.chunks_exact_mut(num_rows * width)) {
                let row = |i: usize| (&inputs[i * DEPTH..][..depth], i * width);
                multiply_add_rows(simd, num_rows, row, &panel[..depth * width], sums);
            }
        }
        for (panel, sums) in sums.chunks_exact(num_rows * width).enumerate() {
            let first = panel * width;
            let present = width.min(num_out - first);
            for (grad, sums) in self.grad.chunks_exact_mut(num_out).zip(sums.chunks_exact(width)) {
                grad[first..first + present].copy_from_slice(&sums[..present]);
            }
        }
    }
}
