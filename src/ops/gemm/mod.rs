//! Matrix products on the host, for the twins of convolutions, linear layers and attention.
//!
//! The inner kernel is that of Goto and van de Geijn (2008): a block of rows by two SIMD registers of
//! columns is summed in registers over a panel of the right-hand side that was packed to be read in
//! order. Rows of the left-hand side are read where they lie, so a convolution gathers nothing into
//! memory. Every element is summed in one fixed order, whatever the number of threads.

#[cfg(target_arch = "x86_64")]
mod avx512;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::math;

/// Rows of the inner kernel: 6 × 2 sums, 2 columns and a broadcast fill 15 of 16 registers.
const ROWS: usize = 6;
/// Terms of one pass of the inner kernel. A panel of them streams through the first-level cache; with fewer terms, sums
/// are read and written oftener, which costs more.
const DEPTH: usize = 1024;
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

/// Columns of a panel on this machine: two of its widest SIMD registers.
pub(crate) fn panel_width() -> usize {
    #[cfg(target_arch = "x86_64")]
    if avx512::Avx512::detect().is_some() {
        return avx512::WIDTH;
    }
    register_pair()
}

/// Rows of the inner kernel on this machine.
fn kernel_rows() -> usize {
    #[cfg(target_arch = "x86_64")]
    if avx512::Avx512::detect().is_some() {
        return avx512::ROWS;
    }
    ROWS
}

/// Values of two SIMD registers as pulp dispatches to them.
pub(crate) fn register_pair() -> usize {
    Arch::new().dispatch(RegisterPair)
}

struct RegisterPair;

impl WithSimd for RegisterPair {
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

/// A matrix `[num_taps · num_in, num_out]` rounded to bf16, as panels of `width` columns whose terms come in pairs:
/// `[num_out / width, num_taps · num_in / 2, width, 2]`. An odd number of terms of a tap is filled up with a zero, see
/// [`paired`]; the last panel is padded with zeros.
pub(crate) fn pack_pairs(
    num_taps: usize,
    num_in: usize,
    num_out: usize,
    width: usize,
    value: impl Fn(usize, usize) -> f32 + Sync,
) -> Vec<bf16> {
    let of_tap = paired(num_in);
    let rounded = |d: usize, col: usize| {
        let (tap, d) = (d / of_tap, d % of_tap);
        if d < num_in { rounded(value(tap * num_in + d, col)) } else { bf16::ZERO }
    };
    let depth = num_taps * of_tap;
    let mut panels = pack(depth, num_out, width, rounded);
    panels.par_chunks_mut((depth * width).max(1)).for_each(|panel| {
        let mut lines = vec![bf16::ZERO; 2 * width];
        for pair in panel.chunks_exact_mut(2 * width) {
            lines.copy_from_slice(pair);
            let (first, second) = lines.split_at(width);
            for (to, (first, second)) in pair.as_chunks_mut().0.iter_mut().zip(first.iter().zip(second)) {
                *to = [*first, *second];
            }
        }
    });
    panels
}

/// Terms of a tap in a matrix of pairs.
pub(crate) fn paired(num_in: usize) -> usize {
    num_in.next_multiple_of(2)
}

/// The nearest number of bf16, of two equally near ones the even. What is too small for a normal number is 0, as it is
/// for processors that multiply in bf16.
fn rounded(value: f32) -> bf16 {
    let value = if value.is_subnormal() { 0.0_f32.copysign(value) } else { value };
    bf16::from_f32(value)
}

/// A packed matrix.
#[derive(Clone, Copy)]
pub(crate) enum Panels<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    /// As [`pack_pairs`] makes it. The other factors are rounded to bf16 too; sums are f32.
    Bf16(&'a [bf16]),
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
        let task_rows = task_rows(num_rows, kernel_rows(), is_large, rayon::current_num_threads());
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
fn task_rows(num_rows: usize, kernel_rows: usize, is_large: bool, num_threads: usize) -> usize {
    let few = if is_large { num_threads } else { 4 * num_threads };
    let num_tasks = num_rows.div_ceil(TASK_ROWS).max(few).next_multiple_of(num_threads.max(1));
    num_rows.div_ceil(num_tasks.max(1)).max(LEAST_ROWS).next_multiple_of(kernel_rows)
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
        let width = panel_width();
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
        let width = panel_width();
        let padded = num_out.next_multiple_of(width);
        let of_tap = match self.panels {
            Panels::F32(_) | Panels::F16(_) => num_in,
            Panels::Bf16(_) => paired(num_in),
        };
        let mut widened = match self.panels {
            Panels::F32(_) => Vec::new(),
            Panels::F16(_) | Panels::Bf16(_) => vec![0.0; DEPTH.min(of_tap) * width],
        };
        let mut rows = Rows::new(multiplies_bf16());
        let mut pairs = Vec::with_capacity(num_rows);
        for tap in 0..num_taps {
            pairs.clear();
            pairs.extend((0..num_rows).filter_map(|r| Some((r, (self.src)(first_row + r, tap)?))));
            if pairs.is_empty() {
                continue;
            }
            for first in (0..num_in).step_by(DEPTH) {
                let depth = DEPTH.min(num_in - first);
                if let Panels::Bf16(_) = self.panels {
                    rows.round(pairs.iter().map(|&(_, src): &(usize, usize)| &x[src + first..][..depth]));
                }
                for panel in 0..padded / width {
                    let at = ((panel * num_taps + tap) * of_tap + first) * width;
                    let sums_at = |i: usize| pairs[i].0 * padded + panel * width;
                    let row = |i: usize| (&x[pairs[i].1 + first..][..depth], sums_at(i));
                    match self.panels {
                        Panels::F32(values) => {
                            multiply_add_rows(simd, pairs.len(), row, &values[at..at + depth * width], sums);
                        }
                        Panels::F16(values) => {
                            let widened = &mut widened[..depth * width];
                            values[at..at + depth * width].convert_to_f32_slice(widened);
                            multiply_add_rows(simd, pairs.len(), row, widened, sums);
                        }
                        Panels::Bf16(values) => {
                            let values = &values[at..at + paired(depth) * width];
                            rows.multiply_add(simd, pairs.len(), sums_at, values, &mut widened, sums);
                        }
                    }
                }
            }
        }
    }
}

/// True if this processor multiplies in bf16.
fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    if avx512::Avx512Bf16::detect().is_some() {
        return true;
    }
    false
}

/// Rows of a product, rounded to bf16 for all panels.
struct Rows {
    /// True to multiply in bf16, if the processor can.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "other processors always multiply in f32"))]
    in_bf16: bool,
    /// Terms of a row, an even number.
    depth: usize,
    /// `[rows, depth]`, where the processor multiplies in bf16.
    narrow: Vec<bf16>,
    /// The same elsewhere.
    wide: Vec<f32>,
}

impl Rows {
    fn new(in_bf16: bool) -> Self {
        Self { in_bf16, depth: 0, narrow: Vec::new(), wide: Vec::new() }
    }

    /// Rounds rows of one length. An odd length is filled up with a zero.
    #[inline(always)]
    fn round<'a>(&mut self, rows: impl ExactSizeIterator<Item = &'a [f32]> + Clone) {
        self.depth = paired(rows.clone().next().map_or(0, <[f32]>::len));
        #[cfg(target_arch = "x86_64")]
        if self.in_bf16
            && let Some(unit) = avx512::Avx512Bf16::detect()
        {
            self.narrow.clear();
            self.narrow.resize(rows.len() * self.depth, bf16::ZERO);
            for (to, row) in self.narrow.chunks_exact_mut(self.depth).zip(rows) {
                unit.round(row, &mut to[..row.len()]);
            }
            return;
        }
        self.wide.clear();
        self.wide.resize(rows.len() * self.depth, 0.0);
        for (to, row) in self.wide.chunks_exact_mut(self.depth).zip(rows) {
            to.iter_mut().zip(row).for_each(|(to, value)| *to = rounded(*value).to_f32());
        }
    }

    /// `sums[sums_at(row)..]` += rows times the panel `b [depth / 2, width, 2]`. `widened` is scratch.
    #[inline(always)]
    fn multiply_add<S: Simd>(
        &self,
        simd: S,
        num_rows: usize,
        sums_at: impl Fn(usize) -> usize,
        b: &[bf16],
        widened: &mut [f32],
        sums: &mut [f32],
    ) {
        #[cfg(target_arch = "x86_64")]
        if self.in_bf16
            && let Some(unit) = avx512::Avx512Bf16::detect()
        {
            let row = |i: usize| (&self.narrow[i * self.depth..][..self.depth], sums_at(i));
            return unit.multiply_add_rows(num_rows, row, b, sums);
        }
        let width = b.len() / self.depth;
        let widened = &mut widened[..b.len()];
        for (lines, pairs) in widened.chunks_exact_mut(2 * width).zip(b.chunks_exact(2 * width)) {
            let (first, second) = lines.split_at_mut(width);
            for ((first, second), pair) in first.iter_mut().zip(second).zip(pairs.as_chunks::<2>().0) {
                (*first, *second) = (pair[0].to_f32(), pair[1].to_f32());
            }
        }
        let row = |i: usize| (&self.wide[i * self.depth..][..self.depth], sums_at(i));
        multiply_add_rows(simd, num_rows, row, widened, sums);
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

/// `sums` += rows times the panel `b [depth, panel_width()]`: `row` gives a row's factors and where in `sums` its columns
/// are.
#[inline(always)]
pub(crate) fn multiply_add_rows<'a, S: Simd>(
    simd: S,
    num_rows: usize,
    row: impl Fn(usize) -> (&'a [f32], usize),
    b: &[f32],
    sums: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(wide) = avx512::Avx512::detect() {
        return wide.multiply_add_rows(num_rows, row, b, sums);
    }
    multiply_add_rows_anywhere(simd, num_rows, row, b, sums);
}

/// [`multiply_add_rows`] by the registers that every processor of the architecture's level has, for panels of two.
#[inline(always)]
fn multiply_add_rows_anywhere<'a, S: Simd>(
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
        for (num_rows, kernel_rows, is_large, num_threads, expected) in [
            (1601, 6, true, 2, 402),
            (1601, 8, true, 2, 408),
            (1344, 6, true, 2, 336),
            (25_600, 6, true, 2, 516),
            (1601, 6, false, 2, 204),
            (1601, 6, true, 16, 102),
            (10, 6, true, 2, 36),
            (0, 8, false, 8, 32),
        ] {
            let rows = task_rows(num_rows, kernel_rows, is_large, num_threads);
            assert_eq!(rows, expected, "{num_rows} {kernel_rows} {is_large} {num_threads}");
        }
        for num_rows in 1000..6000 {
            let rows = task_rows(num_rows, ROWS, true, 2);
            let num_tasks = num_rows.div_ceil(rows);
            // The slower thread has a hundredth more than its half, and a group of rows for each of its tasks.
            let slower = num_tasks.div_ceil(2) * rows;
            assert!(2 * slower <= num_rows + num_rows / 50 + 2 * ROWS * num_tasks, "{num_rows}: {num_tasks} of {rows}");
            assert!(rows <= TASK_ROWS + ROWS, "{num_rows}: {rows}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn wide_registers_give_the_same_bits() {
        struct Anywhere<'a> {
            num_rows: usize,
            a: &'a [f32],
            b: &'a [f32],
            width: usize,
            sums: &'a mut [f32],
        }
        impl WithSimd for Anywhere<'_> {
            type Output = ();
            fn with_simd<S: Simd>(self, simd: S) {
                let (depth, pair) = (self.b.len() / self.width, 2 * S::F32_LANES);
                // The same columns as panels of two registers.
                for panel in 0..self.width / pair {
                    let rows = self.b.chunks_exact(self.width);
                    let b: Vec<f32> = rows.flat_map(|row| row[panel * pair..][..pair].to_vec()).collect();
                    let row = |r: usize| (&self.a[r * depth..][..depth], r * self.width + panel * pair);
                    multiply_add_rows_anywhere(simd, self.num_rows, row, &b, self.sums);
                }
            }
        }
        let Some(wide) = avx512::Avx512::detect() else {
            eprintln!("this processor has no AVX-512: its kernel is not tested");
            return;
        };
        let width = avx512::WIDTH;
        let mut random = crate::random::SplitMix64::new(3);
        let mut draw = |count: usize| -> Vec<f32> { (0..count).map(|_| random.unit() as f32 - 0.5).collect() };
        for (num_rows, depth) in [(1, 1), (7, 5), (8, 300), (29, 64), (0, 4), (3, 0)] {
            let (a, b, before) = (draw(num_rows * depth), draw(depth * width), draw(num_rows * width));
            let (mut found, mut expected) = (before.clone(), before);
            wide.multiply_add_rows(num_rows, |r| (&a[r * depth..][..depth], r * width), &b, &mut found);
            let sums = &mut expected;
            Arch::new().dispatch(Anywhere { num_rows, a: &a, b: &b, width, sums });
            assert_eq!(found, expected, "{num_rows} rows of {depth}");
        }
    }

    /// `x [rows, taps · num_in]` times the matrix, by panels of bf16.
    fn product_bf16(x: &[f32], matrix: &[f32], [num_taps, num_in, num_out]: [usize; 3]) -> Vec<f32> {
        let panels = pack_pairs(num_taps, num_in, num_out, panel_width(), |d, col| matrix[d * num_out + col]);
        let product = Product {
            x,
            panels: Panels::Bf16(&panels),
            bias: None,
            activation: Activation::None,
            num_taps,
            num_in,
            num_out,
            src: |row: usize, tap: usize| Some((row * num_taps + tap) * num_in),
        };
        product.run(x.len() / (num_taps * num_in))
    }

    #[test]
    fn products_in_bf16_are_those_of_rounded_factors() {
        let mut random = crate::random::SplitMix64::new(4);
        for extents @ [num_taps, num_in, num_out] in [[1, 2, 3], [9, 3, 40], [1, 1100, 33], [2, 64, 64], [1, 1, 1]] {
            let depth = num_taps * num_in;
            let mut draw = |count: usize| -> Vec<f32> { (0..count).map(|_| random.unit() as f32 - 0.5).collect() };
            let (x, matrix) = (draw(19 * depth), draw(depth * num_out));
            let found = product_bf16(&x, &matrix, extents);
            let exact = |value: f32| f64::from(bf16::from_f32(value).to_f32());
            for (at, &found) in found.iter().enumerate() {
                let (row, col) = (at / num_out, at % num_out);
                let terms = (0..depth).map(|d| exact(x[row * depth + d]) * exact(matrix[d * num_out + col]));
                let (expected, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                // Rounding of f32 in a sum of this many terms.
                let bound = size * 6e-8 * (2.0 + (depth as f64).sqrt());
                assert!((f64::from(found) - expected).abs() <= bound, "{extents:?} {at}: {found} {expected}");
            }
        }
    }

    #[test]
    fn processors_without_bf16_come_to_the_same_sums() {
        struct Both<'a> {
            x: &'a [f32],
            depth: usize,
            panel: &'a [bf16],
            width: usize,
        }
        impl WithSimd for Both<'_> {
            type Output = [Vec<f32>; 2];
            fn with_simd<S: Simd>(self, simd: S) -> [Vec<f32>; 2] {
                let Self { x, depth, panel, width } = self;
                let num_rows = x.len() / depth;
                [false, true].map(|in_bf16| {
                    let mut rows = Rows::new(in_bf16);
                    rows.round(x.chunks_exact(depth));
                    let (mut sums, mut widened) = (vec![0.25; num_rows * width], vec![0.0; panel.len()]);
                    rows.multiply_add(simd, num_rows, |row| row * width, panel, &mut widened, &mut sums);
                    sums
                })
            }
        }
        let (width, mut random) = (panel_width(), crate::random::SplitMix64::new(5));
        for depth in [1, 2, 63, 512] {
            let mut draw = |count: usize| -> Vec<f32> { (0..count).map(|_| random.unit() as f32 - 0.5).collect() };
            let (mut x, matrix) = (draw(11 * depth), draw(depth * width));
            x[0] = 1e-39;
            let panel = pack_pairs(1, depth, width, width, |d, col| matrix[d * width + col]);
            let [plain, native] = Arch::new().dispatch(Both { x: &x, depth, panel: &panel, width });
            for (plain, native) in plain.into_iter().zip(native) {
                // Only the order of the sums differs, and 512 terms are at most a quarter each.
                assert!((plain - native).abs() <= 1e-5, "depth {depth}: {plain} {native}");
            }
        }
    }

    #[test]
    fn bf16_rounds_to_the_even_and_drops_what_is_too_small() {
        for (value, expected) in [
            (1.0, 0x3f80),
            (1.0 + 0.5 / 128.0, 0x3f80),
            (1.0 + 1.5 / 128.0, 0x3f82),
            (-2.5e-39, 0x8000),
            (f32::INFINITY, 0x7f80),
            (3.4e38, 0x7f80),
        ] {
            assert_eq!(rounded(value).to_bits(), expected, "{value}");
            // Zeros elsewhere: with one term that is not, the product is the factor.
            let found = product_bf16(&[value, 0.0], &[1.0, 0.0], [1, 2, 1])[0];
            assert_eq!(found, rounded(value).to_f32(), "{value}");
        }
        assert!(rounded(f32::NAN).is_nan());
    }
}
