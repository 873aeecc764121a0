//! Matrix products on the host, for the twins of convolutions, linear layers and attention.
//!
//! The inner kernel is that of Goto and van de Geijn (2008): a block of rows by two SIMD registers of
//! columns is summed in registers over a panel of the right-hand side that was packed to be read in
//! order. Rows of the left-hand side are read where they lie, so a convolution gathers nothing into
//! memory. Every element is summed in one fixed order, whatever the number of threads.

use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::math;

/// Rows of the inner kernel: 6 × 2 sums, 2 columns and a broadcast fill 15 of 16 registers.
const ROWS: usize = 6;
/// Terms of one pass of the inner kernel: a panel of them takes half of a first-level cache.
pub(crate) const DEPTH: usize = 256;
/// Most rows of a task: one block of their terms stays in the second-level cache.
const TASK_ROWS: usize = 512;
/// Fewest rows of a task.
const LEAST_ROWS: usize = 32;
/// Values of a packed matrix that stay in the cache of one core while it makes several tasks.
const CACHED_VALUES: usize = 1 << 19;

/// A function applied to every element of a product, after the bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// max(x, 0).
    Relu,
    /// x · Φ(x), by the error function.
    Gelu,
    /// x · σ(1.702 x).
    QuickGelu,
}

/// Columns of a panel on this machine: two SIMD registers.
pub(crate) fn panel_width() -> usize {
    Arch::new().dispatch(PanelWidth)
}

struct PanelWidth;

impl WithSimd for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        2 * S::F32_LANES
    }
}

/// A matrix `[depth, num_out]` as panels of `width` columns, `[num_out / width, depth, width]`, the last
/// one padded with zeros.
pub(crate) fn pack<T: Copy + Default + Send>(
    depth: usize,
    num_out: usize,
    width: usize,
    value: impl Fn(usize, usize) -> T + Sync,
) -> Vec<T> {
    let mut panels = vec![T::default(); num_out.div_ceil(width) * depth * width];
    panels.par_chunks_mut((depth * width).max(1)).enumerate().for_each(|(panel, values)| {
        let first = panel * width;
        let present = width.min(num_out - first);
        for (d, row) in values.chunks_exact_mut(width).enumerate() {
            for (col, to) in row[..present].iter_mut().enumerate() {
                *to = value(d, first + col);
            }
        }
    });
    panels
}

/// A packed matrix.
#[derive(Clone, Copy)]
pub(crate) enum Panels<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

/// out\[r\] = activation(Σₜ x\[src(r, t)..\] · panels\[t\] + bias): every row of the result is a sum over
/// `num_taps` stretches of `num_in` values of `x`, each with its own block of the packed matrix
/// `[num_taps · num_in, num_out]`. A stretch that `src` says is absent contributes nothing.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a, Src> {
    pub x: &'a [f32],
    pub panels: Panels<'a>,
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
    pub num_taps: usize,
    pub num_in: usize,
    pub num_out: usize,
    /// The index in `x` at which the stretch of a row and tap begins.
    pub src: Src,
}

impl<Src: Fn(usize, usize) -> Option<usize> + Sync> Product<'_, Src> {
    /// The rows `0..num_rows`, in parallel.
    pub(crate) fn run(&self, num_rows: usize) -> Vec<f32> {
        let mut out = vec![0.0; num_rows * self.num_out];
        let is_large = self.num_taps * self.num_in * self.num_out > CACHED_VALUES;
        let task_rows = task_rows(num_rows, is_large, rayon::current_num_threads());
        let arch = Arch::new();
        out.par_chunks_mut((task_rows * self.num_out).max(1)).enumerate().for_each(|(task, out)| {
            arch.dispatch(Task { product: self, first_row: task * task_rows, out });
        });
        out
    }
}

/// Rows of a task of a product of `num_rows`. There are a few tasks for every thread; but every task reads the whole
/// matrix, so where that `is_large`, too much for a cache of its own, there are as few as [`TASK_ROWS`] allows. Every
/// thread gets as many tasks as the others, all of the same size: with one more, all the others would wait for it.
fn task_rows(num_rows: usize, is_large: bool, num_threads: usize) -> usize {
    let few = if is_large { num_threads } else { 4 * num_threads };
    let num_tasks = num_rows.div_ceil(TASK_ROWS).max(few).next_multiple_of(num_threads.max(1));
    num_rows.div_ceil(num_tasks.max(1)).max(LEAST_ROWS).next_multiple_of(ROWS)
}

struct Task<'a, 'b, Src> {
    product: &'a Product<'b, Src>,
    first_row: usize,
    out: &'a mut [f32],
}

impl<Src: Fn(usize, usize) -> Option<usize> + Sync> WithSimd for Task<'_, '_, Src> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.product.rows(simd, self.first_row, self.out);
    }
}

impl<Src: Fn(usize, usize) -> Option<usize> + Sync> Product<'_, Src> {
    /// The rows from `first_row`, as many as fit `out`, which must hold zeros.
    #[inline(always)]
    pub(crate) fn rows<S: Simd>(&self, simd: S, first_row: usize, out: &mut [f32]) {
        let Self { num_in, num_out, num_taps, .. } = *self;
        let width = 2 * S::F32_LANES;
        let padded = num_out.next_multiple_of(width);
        let num_rows = out.len() / num_out.max(1);
        if padded == num_out {
            self.accumulate(simd, first_row, num_rows, out);
        } else {
            let mut sums = vec![0.0; num_rows * padded];
            self.accumulate(simd, first_row, num_rows, &mut sums);
            for (out, sums) in out.chunks_exact_mut(num_out.max(1)).zip(sums.chunks_exact(padded.max(1))) {
                out.copy_from_slice(&sums[..num_out]);
            }
        }
        debug_assert_eq!(num_rows * num_out, out.len(), "{num_taps} taps of {num_in}");
        for out in out.chunks_exact_mut(num_out.max(1)) {
            if let Some(bias) = self.bias {
                out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
            match self.activation {
                Activation::None => {}
                Activation::Relu => out.iter_mut().for_each(|x| *x = x.max(0.0)),
                Activation::Gelu => out.iter_mut().for_each(|x| *x = math::gelu(*x)),
                Activation::QuickGelu => out.iter_mut().for_each(|x| *x = math::quick_gelu(*x)),
            }
        }
    }

    #[inline(always)]
    fn accumulate<S: Simd>(&self, simd: S, first_row: usize, num_rows: usize, sums: &mut [f32]) {
        let Self { x, num_in, num_out, num_taps, .. } = *self;
        let width = 2 * S::F32_LANES;
        let padded = num_out.next_multiple_of(width);
        let depth_of_all = num_taps * num_in;
        let mut widened = [0.0f32; DEPTH * 32];
        let mut pairs = Vec::with_capacity(num_rows);
        for tap in 0..num_taps {
            pairs.clear();
            pairs.extend((0..num_rows).filter_map(|r| Some((r, (self.src)(first_row + r, tap)?))));
            if pairs.is_empty() {
                continue;
            }
            for first in (0..num_in).step_by(DEPTH) {
                let depth = DEPTH.min(num_in - first);
                for panel in 0..padded / width {
                    let at = (panel * depth_of_all + tap * num_in + first) * width;
                    let b = match self.panels {
                        Panels::F32(values) => &values[at..at + depth * width],
                        Panels::F16(values) => {
                            let widened = &mut widened[..depth * width];
                            values[at..at + depth * width].convert_to_f32_slice(widened);
                            &*widened
                        }
                    };
                    let row = |i: usize| {
                        let (dst, src): (usize, usize) = pairs[i];
                        (&x[src + first..][..depth], dst * padded + panel * width)
                    };
                    multiply_add_rows(simd, pairs.len(), row, b, sums);
                }
            }
        }
    }
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

/// `sums` += rows times the panel `b`, in groups of [`ROWS`]: `row` gives a row's factors and where in
/// `sums` its columns are.
#[inline(always)]
pub(crate) fn multiply_add_rows<'a, S: Simd>(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_get_tasks_of_one_size() {
        // Of a vision transformer, of X-Decoder's third stage, of a map of a whole picture, of a few rows.
        for (num_rows, is_large, num_threads, expected) in [
            (1601, true, 2, 402),
            (1344, true, 2, 336),
            (25_600, true, 2, 516),
            (1601, false, 2, 204),
            (1601, true, 16, 102),
            (10, true, 2, 36),
            (0, false, 8, 36),
        ] {
            assert_eq!(task_rows(num_rows, is_large, num_threads), expected, "{num_rows} {is_large} {num_threads}");
        }
        for num_rows in 1000..6000 {
            let rows = task_rows(num_rows, true, 2);
            let num_tasks = num_rows.div_ceil(rows);
            // The slower thread has a hundredth more than its half, and a group of rows for each of its tasks.
            let slower = num_tasks.div_ceil(2) * rows;
            assert!(2 * slower <= num_rows + num_rows / 50 + 2 * ROWS * num_tasks, "{num_rows}: {num_tasks} of {rows}");
            assert!(rows <= TASK_ROWS + ROWS, "{num_rows}: {rows}");
        }
    }
}
