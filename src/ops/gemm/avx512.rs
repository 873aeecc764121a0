//! The inner kernels for processors with AVX-512: 8 rows by two registers of 16 columns, in f32 and in bf16.
//!
//! The one in f32 sums in the order of the kernel for any processor, so both give the same bits.

use std::arch::x86_64::{
    __m256bh, __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use half::bf16;

/// Rows of the inner kernel: 8 × 2 sums hide the latency of both units, and leave registers for what is loaded.
pub(super) const ROWS: usize = 8;
/// Columns of a panel.
pub(super) const WIDTH: usize = 2 * LANES;
const LANES: usize = 16;

/// Stands for a processor that has AVX-512.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    /// AVX-512 if this processor has it.
    #[inline(always)]
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }

    /// `sums` += rows times the panel `b [depth, WIDTH]`; see [`multiply_add_rows`](super::multiply_add_rows).
    #[inline]
    pub(super) fn multiply_add_rows<'a>(
        self,
        num_rows: usize,
        row: impl Fn(usize) -> (&'a [f32], usize),
        b: &[f32],
        sums: &mut [f32],
    ) {
        // SAFETY: a value of this type is made only where the processor has the feature.
        unsafe { groups(num_rows, row, b, sums) }
    }
}

#[target_feature(enable = "avx512f")]
fn groups<'a>(num_rows: usize, row: impl Fn(usize) -> (&'a [f32], usize), b: &[f32], sums: &mut [f32]) {
    let (b, _) = b.as_chunks();
    let mut first = 0;
    while first + ROWS <= num_rows {
        group::<ROWS>(first, &row, b, sums);
        first += ROWS;
    }
    match num_rows - first {
        7 => group::<7>(first, &row, b, sums),
        6 => group::<6>(first, &row, b, sums),
        5 => group::<5>(first, &row, b, sums),
        4 => group::<4>(first, &row, b, sums),
        3 => group::<3>(first, &row, b, sums),
        2 => group::<2>(first, &row, b, sums),
        1 => group::<1>(first, &row, b, sums),
        _ => {}
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn group<'a, const N: usize>(
    first: usize,
    row: &impl Fn(usize) -> (&'a [f32], usize),
    b: &[[f32; WIDTH]],
    sums: &mut [f32],
) {
    let rows: [(&[f32], usize); N] = std::array::from_fn(|r| row(first + r));
    let a = rows.map(|(factors, _)| &factors[..b.len()]);
    let mut acc = [[_mm512_setzero_ps(); 2]; N];
    for (p, columns) in b.iter().enumerate() {
        let columns = load(columns);
        for r in 0..N {
            let factor = _mm512_set1_ps(a[r][p]);
            acc[r][0] = _mm512_fmadd_ps(factor, columns[0], acc[r][0]);
            acc[r][1] = _mm512_fmadd_ps(factor, columns[1], acc[r][1]);
        }
    }
    for ((_, at), acc) in rows.into_iter().zip(acc) {
        if let Some(sums) = sums[at..].first_chunk_mut() {
            let before = load(sums);
            store(sums, [_mm512_add_ps(before[0], acc[0]), _mm512_add_ps(before[1], acc[1])]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32; WIDTH]) -> [__m512; 2] {
    let first = values.as_ptr();
    // SAFETY: both halves lie in the array, and the load needs no alignment.
    unsafe { [_mm512_loadu_ps(first), _mm512_loadu_ps(first.add(LANES))] }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(values: &mut [f32; WIDTH], registers: [__m512; 2]) {
    let first = values.as_mut_ptr();
    // SAFETY: both halves lie in the array, and the store needs no alignment.
    unsafe {
        _mm512_storeu_ps(first, registers[0]);
        _mm512_storeu_ps(first.add(LANES), registers[1]);
    }
}

/// Stands for a processor that has AVX-512 with products in bf16.
#[derive(Clone, Copy)]
pub(super) struct Avx512Bf16(());

impl Avx512Bf16 {
    /// Products in bf16 if this processor has them.
    #[inline(always)]
    pub(super) fn detect() -> Option<Self> {
        let has_both = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
        has_both.then_some(Self(()))
    }

    /// Rounds values to the nearest, of two equally near ones to the even; values too small for a normal number become 0.
    #[inline]
    pub(super) fn round(self, values: &[f32], to: &mut [bf16]) {
        // SAFETY: a value of this type is made only where the processor has the features.
        unsafe { round(values, to) }
    }

    /// `sums` += rows times the panel `b [depth / 2, WIDTH, 2]`; see
    /// [`multiply_add_rows`](super::multiply_add_rows). The depth is even.
    #[inline]
    pub(super) fn multiply_add_rows<'a>(
        self,
        num_rows: usize,
        row: impl Fn(usize) -> (&'a [bf16], usize),
        b: &[bf16],
        sums: &mut [f32],
    ) {
        // SAFETY: a value of this type is made only where the processor has the features.
        unsafe { groups_bf16(num_rows, row, b, sums) }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn round(values: &[f32], to: &mut [bf16]) {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let (to_blocks, to_rest) = to.as_chunks_mut::<LANES>();
    for (values, to) in blocks.iter().zip(to_blocks) {
        // SAFETY: the array has as many values as the register, and the load needs no alignment.
        let rounded = _mm512_cvtneps_pbh(unsafe { _mm512_loadu_ps(values.as_ptr()) });
        // SAFETY: both are 32 bytes of plain numbers.
        *to = unsafe { std::mem::transmute::<__m256bh, [bf16; LANES]>(rounded) };
    }
    for (value, to) in rest.iter().zip(to_rest) {
        *to = super::rounded(*value);
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn groups_bf16<'a>(num_rows: usize, row: impl Fn(usize) -> (&'a [bf16], usize), b: &[bf16], sums: &mut [f32]) {
    let (b, _) = b.as_chunks();
    let mut first = 0;
    while first + ROWS <= num_rows {
        group_bf16::<ROWS>(first, &row, b, sums);
        first += ROWS;
    }
    match num_rows - first {
        7 => group_bf16::<7>(first, &row, b, sums),
        6 => group_bf16::<6>(first, &row, b, sums),
        5 => group_bf16::<5>(first, &row, b, sums),
        4 => group_bf16::<4>(first, &row, b, sums),
        3 => group_bf16::<3>(first, &row, b, sums),
        2 => group_bf16::<2>(first, &row, b, sums),
        1 => group_bf16::<1>(first, &row, b, sums),
        _ => {}
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn group_bf16<'a, const N: usize>(
    first: usize,
    row: &impl Fn(usize) -> (&'a [bf16], usize),
    b: &[[bf16; 2 * WIDTH]],
    sums: &mut [f32],
) {
    let rows: [(&[bf16], usize); N] = std::array::from_fn(|r| row(first + r));
    let a = rows.map(|(factors, _)| &factors.as_chunks::<2>().0[..b.len()]);
    let mut acc = [[_mm512_setzero_ps(); 2]; N];
    for (p, columns) in b.iter().enumerate() {
        let columns = load_bf16(columns);
        for r in 0..N {
            let [low, high] = a[r][p].map(|factor| u32::from(factor.to_bits()));
            // SAFETY: both are 64 bytes of plain numbers.
            let factors: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32((high << 16 | low).cast_signed())) };
            acc[r][0] = _mm512_dpbf16_ps(acc[r][0], factors, columns[0]);
            acc[r][1] = _mm512_dpbf16_ps(acc[r][1], factors, columns[1]);
        }
    }
    for ((_, at), acc) in rows.into_iter().zip(acc) {
        if let Some(sums) = sums[at..].first_chunk_mut() {
            let before = load(sums);
            store(sums, [_mm512_add_ps(before[0], acc[0]), _mm512_add_ps(before[1], acc[1])]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn load_bf16(values: &[bf16; 2 * WIDTH]) -> [__m512bh; 2] {
    let first = values.as_ptr();
    // SAFETY: both halves lie in the array, the load needs no alignment, and all bits are numbers.
    unsafe {
        [
            std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(first.cast())),
            std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(first.add(WIDTH).cast())),
        ]
    }
}
