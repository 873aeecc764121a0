//! Host twin of the sparse convolution: one matrix product per kernel cell over the voxels that have a
//! neighbour there, read and added in place through the map, so nothing is gathered into memory.
//!
//! The inner kernel is that of Goto and van de Geijn (2008): a block of rows by two SIMD registers of
//! columns is summed in registers over a panel of the right-hand side that was packed to be read in
//! order. Every output element is summed in one fixed order, whatever the number of threads.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

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

/// Rows of the inner kernel: 6 × 2 sums, 2 columns and a broadcast fill 15 of 16 registers.
const ROWS: usize = 6;
/// Terms of one pass of the inner kernel: a panel of them takes half of a first-level cache.
const DEPTH: usize = 256;
/// Most voxels of a task: their rows of one block of inputs stay in the second-level cache.
const TASK_VOXELS: usize = 512;
/// Rows of the weight's gradient in one task.
const TASK_INPUTS: usize = 96;

/// out\[v\] = Σₖ x\[map\[v, k\]\] · weight\[k\] (+ bias): `x [V, in]`, `weight [K, in, out]`, `map [V, K]`.
#[must_use]
pub fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, map: &[i32], dims: Dims) -> Vec<f32> {
    let arch = Arch::new();
    let width = arch.dispatch(PanelWidth);
    let weight = pack_weight(weight, dims, width);
    let num_voxels = map.len() / dims.kernel_volume;
    // A few tasks for every thread, also in a small scene.
    let task_voxels = num_voxels.div_ceil(4 * rayon::current_num_threads()).clamp(32, TASK_VOXELS);
    let mut out = vec![0.0; num_voxels * dims.num_out];
    let tasks = out.par_chunks_mut(task_voxels * dims.num_out).zip(map.par_chunks(task_voxels * dims.kernel_volume));
    tasks.for_each(|(out, map)| arch.dispatch(Forward { x, weight: &weight, bias, map, out, dims }));
    out
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

/// Columns of a panel: two SIMD registers.
struct PanelWidth;

impl WithSimd for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        2 * S::F32_LANES
    }
}

/// The weight as panels: for every cell and block of `DEPTH` inputs, every `width` columns of it as
/// `[depth, width]`, padded with zeros.
fn pack_weight(weight: &[f32], dims: Dims, width: usize) -> Vec<f32> {
    let Dims { num_in, num_out, .. } = dims;
    let padded = num_out.next_multiple_of(width);
    let mut packed = vec![0.0; weight.len() / num_out * padded];
    let cells = packed.par_chunks_mut(num_in * padded).zip(weight.par_chunks(num_in * num_out));
    cells.for_each(|(packed, cell)| {
        for (packed, block) in packed.chunks_mut(DEPTH * padded).zip(cell.chunks(DEPTH * num_out)) {
            let depth = block.len() / num_out;
            for (panel, first) in packed.chunks_exact_mut(depth * width).zip((0..num_out).step_by(width)) {
                let present = width.min(num_out - first);
                for (to, from) in panel.chunks_exact_mut(width).zip(block.chunks_exact(num_out)) {
                    to[..present].copy_from_slice(&from[first..first + present]);
                }
            }
        }
    });
    packed
}

/// `sums` += rows of `a` times the panel `b [depth, width]`: row r of `a` holds `depth` factors,
/// `sums[at[r]..]` the columns of the panel.
#[inline(always)]
fn multiply_add<S: Simd, const N: usize>(simd: S, a: [&[f32]; N], b: &[f32], sums: &mut [f32], at: [usize; N]) {
    let (b, _) = pulp::as_arrays::<2, _>(S::as_simd_f32s(b).0);
    let a = a.map(|row| &row[..b.len()]);
    let mut acc = [[simd.splat_f32s(0.0); 2]; N];
    for (p, columns) in b.iter().enumerate() {
        for r in 0..N {
            let factor = simd.splat_f32s(a[r][p]);
            acc[r][0] = simd.mul_add_e_f32s(factor, columns[0], acc[r][0]);
            acc[r][1] = simd.mul_add_e_f32s(factor, columns[1], acc[r][1]);
        }
    }
    for r in 0..N {
        let (row, _) = S::as_mut_simd_f32s(&mut sums[at[r]..at[r] + 2 * S::F32_LANES]);
        row[0] = simd.add_f32s(row[0], acc[r][0]);
        row[1] = simd.add_f32s(row[1], acc[r][1]);
    }
}

/// [`multiply_add`] over any number of rows, in groups of [`ROWS`].
#[inline(always)]
fn multiply_add_rows<'a, S: Simd>(
    simd: S,
    num_rows: usize,
    row: impl Fn(usize) -> (&'a [f32], usize),
    b: &[f32],
    sums: &mut [f32],
) {
    #[inline(always)]
    fn group<'a, S: Simd, const N: usize>(
        simd: S,
        first: usize,
        row: impl Fn(usize) -> (&'a [f32], usize),
        b: &[f32],
        sums: &mut [f32],
    ) {
        let rows: [(&[f32], usize); N] = std::array::from_fn(|r| row(first + r));
        multiply_add::<S, N>(simd, rows.map(|r| r.0), b, sums, rows.map(|r| r.1));
    }
    let mut first = 0;
    while first + ROWS <= num_rows {
        group::<S, ROWS>(simd, first, &row, b, sums);
        first += ROWS;
    }
    match num_rows - first {
        5 => group::<S, 5>(simd, first, &row, b, sums),
        4 => group::<S, 4>(simd, first, &row, b, sums),
        3 => group::<S, 3>(simd, first, &row, b, sums),
        2 => group::<S, 2>(simd, first, &row, b, sums),
        1 => group::<S, 1>(simd, first, &row, b, sums),
        _ => {}
    }
}

/// Rows of the output, `map` and `out` being those of the task.
struct Forward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    map: &'a [i32],
    out: &'a mut [f32],
    dims: Dims,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Dims { kernel_volume, num_in, num_out } = self.dims;
        let width = 2 * S::F32_LANES;
        let padded = num_out.next_multiple_of(width);
        let num_rows = self.map.len() / kernel_volume;
        let mut sums = vec![0.0; num_rows * padded];
        for (k, weight) in self.weight.chunks_exact(num_in * padded).enumerate() {
            let pairs = pairs(self.map, kernel_volume, k);
            for (block, weight) in weight.chunks(DEPTH * padded).enumerate() {
                let depth = weight.len() / padded;
                for (panel, b) in weight.chunks_exact(depth * width).enumerate() {
                    let row = |i: usize| {
                        let (dst, src) = pairs[i];
                        let x: &[f32] = &self.x[src * num_in + block * DEPTH..][..depth];
                        (x, dst * padded + panel * width)
                    };
                    multiply_add_rows(simd, pairs.len(), row, b, &mut sums);
                }
            }
        }
        for (out, sums) in self.out.chunks_exact_mut(num_out).zip(sums.chunks_exact(padded)) {
            out.copy_from_slice(&sums[..num_out]);
            if let Some(bias) = self.bias {
                out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
        }
    }
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
