//! Host twin of the bicubic resampling with antialiasing.
//!
//! The kernel is that of Pillow and of PyTorch with `antialias=True`: the cubic convolution with a = -0.5,
//! stretched by the scale where an axis shrinks, weights renormalised where the window meets the border.
//! Where an axis grows this is not the plain bicubic of `antialias=False`, which has a = -0.75 and repeats
//! the border.

use rayon::prelude::*;

/// Rows that go through the horizontal pass together, one per SIMD lane.
pub(crate) const LANES: usize = 16;

/// Columns that the vertical pass sums in registers.
pub(crate) const BLOCK: usize = 32;

/// Half the width of the cubic kernel where the axis grows, in input samples.
const SUPPORT: f64 = 2.0;

/// The cubic convolution kernel with a = -0.5.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < SUPPORT {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}

/// The windows of one axis with weights of any type: see [`Axis`].
pub(crate) struct Windows<W> {
    pub(crate) first: Vec<u32>,
    pub(crate) weights: Vec<W>,
    pub(crate) num_taps: usize,
}

/// The windows that resample `num_in` samples to `num_out`; the weights of each, which sum to one, become
/// those of the table by `convert`.
///
/// # Panics
/// If a size is 0, or `num_in` is not below 2³².
pub(crate) fn windows<W: Clone + Default>(num_in: usize, num_out: usize, convert: impl Fn(f64) -> W) -> Windows<W> {
    assert!(num_in > 0 && num_out > 0, "resampling {num_in} samples to {num_out}: both must be at least 1");
    assert!(u32::try_from(num_in).is_ok(), "{num_in} samples along one axis, at most 2^32 - 1 can be indexed");
    let scale = num_in as f64 / num_out as f64;
    let stretch = scale.max(1.0);
    let support = SUPPORT * stretch;
    let bounds = |i: usize| {
        let center = scale * (i as f64 + 0.5);
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(num_in);
        (center, first, end)
    };
    let num_taps = (0..num_out).map(bounds).map(|(_, first, end)| end - first).max().unwrap_or(1);
    let mut table =
        Windows { first: Vec::with_capacity(num_out), weights: vec![W::default(); num_out * num_taps], num_taps };
    let mut kernel = Vec::with_capacity(num_taps);
    for (i, row) in table.weights.chunks_exact_mut(num_taps).enumerate() {
        let (center, first, end) = bounds(i);
        kernel.clear();
        kernel.extend((first..end).map(|j| cubic((j as f64 - center + 0.5) / stretch)));
        let sum: f64 = kernel.iter().sum();
        let shifted = first.min(num_in - num_taps);
        row[first - shifted..].iter_mut().zip(&kernel).for_each(|(to, weight)| *to = convert(weight / sum));
        table.first.push(shifted as u32);
    }
    table
}

/// The windows of one axis: output sample i is the sum over t < `num_taps` of
/// `weights[i * num_taps + t]` times input sample `first[i] + t`.
///
/// `first[i] + num_taps` never exceeds the input, so nothing has to be clamped. Narrower windows are filled up
/// with zero weights: an input must be finite also where it has no weight.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    /// First input sample of each output sample.
    pub(crate) first: Vec<u32>,
    /// Weights, `[outputs, num_taps]`.
    pub(crate) weights: Vec<f32>,
    /// Length of the longest window, at least 1.
    pub(crate) num_taps: usize,
}

impl Axis {
    /// The windows that resample `num_in` samples to `num_out`.
    ///
    /// # Panics
    /// If a size is 0, or `num_in` is not below 2³².
    #[must_use]
    pub(crate) fn new(num_in: usize, num_out: usize) -> Self {
        let Windows { first, weights, num_taps } = windows(num_in, num_out, |weight| weight as f32);
        Self { first, weights, num_taps }
    }

    /// The input samples of output sample `i` with their weights.
    pub(crate) fn taps(&self, i: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let weights = self.weights[i * self.num_taps..][..self.num_taps].iter().copied();
        (self.first[i] as usize..).zip(weights)
    }

    /// The windows of the first `num_out` output samples only.
    #[must_use]
    pub(crate) fn cropped(mut self, num_out: usize) -> Self {
        self.first.truncate(num_out);
        self.weights.truncate(num_out * self.num_taps);
        self
    }
}

/// Resamples every plane of `planes [n, h, w]` to `[n, out_h, out_w]`: first along the rows, then along the
/// columns, the order of the reference.
///
/// # Panics
/// If a size is 0, or the number of values is no multiple of `h * w`.
#[must_use]
pub(crate) fn resample(planes: &[f32], (h, w): (usize, usize), (out_h, out_w): (usize, usize)) -> Vec<f32> {
    let (rows, columns) = (Axis::new(h, out_h), Axis::new(w, out_w));
    assert!(planes.len().is_multiple_of(h * w), "{} values are no planes of {h} x {w}", planes.len());
    let mut resampled = vec![0.0; planes.len() / (h * w) * out_h * out_w];
    let num_planes = planes.len() / (h * w);
    // A few planes are cut into bands, so that no thread is idle; a band repeats the first pass of the input
    // rows it shares with the next.
    let bands = (4 * rayon::current_num_threads()).div_ceil(num_planes.max(1));
    let band = out_h.div_ceil(bands);
    let arch = pulp::Arch::new();
    resampled.par_chunks_mut(out_h * out_w).zip(planes.par_chunks(h * w)).for_each(|(out, plane)| {
        let bands = out.par_chunks_mut(band * out_w).enumerate();
        bands.for_each_init(Scratch::default, |scratch, (index, out)| {
            let first_row = index * band;
            arch.dispatch(Band { plane, width: w, rows: &rows, columns: &columns, first_row, scratch, out });
        });
    });
    resampled
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// Input rows, transposed: `[w, LANES]`.
    lanes: Vec<[f32; LANES]>,
    /// The rows of the band after the horizontal pass: `[rows, out_w]`.
    stretched: Vec<f32>,
}

/// Consecutive output rows of one plane. (A closure would not be inlined into the code that `pulp` compiles
/// for the processor at hand.)
struct Band<'a> {
    plane: &'a [f32],
    width: usize,
    rows: &'a Axis,
    columns: &'a Axis,
    first_row: usize,
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { plane, width, rows, columns, first_row, scratch, out } = self;
        let out_w = columns.first.len();
        let windows = first_row..first_row + out.len() / out_w;
        let top = rows.first[windows.start] as usize;
        let bottom = rows.first[windows.end - 1] as usize + rows.num_taps;

        let Scratch { lanes, stretched } = scratch;
        stretched.resize((bottom - top) * out_w, 0.0);
        stretch(&plane[top * width..bottom * width], width, columns, lanes, stretched, out_w);

        for (y, out) in windows.zip(out.chunks_exact_mut(out_w)) {
            let weights = &rows.weights[y * rows.num_taps..][..rows.num_taps];
            let above = &stretched[(rows.first[y] as usize - top) * out_w..];
            let mut x = 0;
            while x < out_w {
                x += if out_w - x >= BLOCK {
                    column_block::<BLOCK>(above, weights, x, out)
                } else if out_w - x >= 8 {
                    column_block::<8>(above, weights, x, out)
                } else {
                    column_block::<1>(above, weights, x, out)
                };
            }
        }
    }
}

/// Resamples `rows [.., width]` along themselves, each to the front of a row of `out [.., stride]`.
#[inline(always)]
pub(crate) fn stretch(
    rows: &[f32],
    width: usize,
    columns: &Axis,
    lanes: &mut Vec<[f32; LANES]>,
    out: &mut [f32],
    stride: usize,
) {
    lanes.resize(width, [0.0; LANES]);
    for (from, to) in rows.chunks(LANES * width).zip(out.chunks_mut(LANES * stride)) {
        for (lane, row) in from.chunks_exact(width).enumerate() {
            lanes.iter_mut().zip(row).for_each(|(lanes, &value)| lanes[lane] = value);
        }
        let windows = columns.first.iter().zip(columns.weights.chunks_exact(columns.num_taps));
        for (x, (&first, weights)) in windows.enumerate() {
            let mut sums = [0.0_f32; LANES];
            for (values, &weight) in lanes[first as usize..].iter().zip(weights) {
                for lane in 0..LANES {
                    sums[lane] += weight * values[lane];
                }
            }
            to.chunks_exact_mut(stride).zip(sums).for_each(|(row, sum)| row[x] = sum);
        }
    }
}

/// Columns `x..x + WIDTH` of the weighted sum of the first of `rows [.., stride]`.
#[inline(always)]
pub(crate) fn weighted_rows<const WIDTH: usize>(
    rows: &[f32],
    stride: usize,
    weights: &[f32],
    x: usize,
) -> [f32; WIDTH] {
    let mut sums = [0.0_f32; WIDTH];
    for (row, &weight) in rows.chunks_exact(stride).zip(weights) {
        let values = &row[x..x + WIDTH];
        for lane in 0..WIDTH {
            sums[lane] += weight * values[lane];
        }
    }
    sums
}

/// Columns `x..x + WIDTH` of an output row, from rows of the same length; gives WIDTH.
#[inline(always)]
fn column_block<const WIDTH: usize>(rows: &[f32], weights: &[f32], x: usize, out: &mut [f32]) -> usize {
    let sums = weighted_rows::<WIDTH>(rows, out.len(), weights, x);
    out[x..x + WIDTH].copy_from_slice(&sums);
    WIDTH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(found.len(), expected.len());
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= tolerance, "value {i}: {a}, expected {b}");
        }
    }

    /// The definition, sample by sample.
    fn direct(plane: &[f32], (h, w): (usize, usize), (out_h, out_w): (usize, usize)) -> Vec<f32> {
        let (rows, columns) = (Axis::new(h, out_h), Axis::new(w, out_w));
        let mut out = Vec::new();
        for y in 0..out_h {
            for x in 0..out_w {
                let mut sum = 0.0;
                for v in 0..rows.num_taps {
                    for u in 0..columns.num_taps {
                        let value = plane[(rows.first[y] as usize + v) * w + columns.first[x] as usize + u];
                        sum += rows.weights[y * rows.num_taps + v] * columns.weights[x * columns.num_taps + u] * value;
                    }
                }
                out.push(sum);
            }
        }
        out
    }

    fn noise(len: usize) -> Vec<f32> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn windows_of_halving_by_hand() {
        // Centre 2i + 1, kernel at 0.25, 0.75, 1.25 and 1.75 on either side.
        let (a, b, c, d) = (0.867_187_5, 0.226_562_5, -0.070_312_5, -0.023_437_5);
        let axis = Axis::new(8, 4);
        assert_eq!((axis.num_taps, axis.first.as_slice()), (7, [0, 0, 1, 1].as_slice()));
        let scaled = |weights: [f32; 7]| weights.map(|weight| weight / weights.iter().sum::<f32>());
        assert_close(&axis.weights[..7], &scaled([a, a, b, c, d, 0.0, 0.0]), 1e-7);
        assert_close(&axis.weights[7..14], &scaled([c, b, a, a, b, c, d]), 1e-7);
        assert_close(&axis.weights[21..], &scaled([0.0, 0.0, d, c, b, a, a]), 1e-7);
        let axis = Axis::new(16, 8);
        assert_eq!((axis.num_taps, axis.first.as_slice()), (8, [0, 0, 1, 3, 5, 7, 8, 8].as_slice()));
        assert_close(&axis.weights[3 * 8..4 * 8], &[d, c, b, a, a, b, c, d].map(|weight| weight / 2.0), 1e-7);
    }

    #[test]
    fn windows_keep_inside_and_sum_to_one() {
        for (num_in, num_out) in [(1, 1), (1, 9), (2, 1), (3, 50), (50, 3), (17, 16), (128, 484), (168, 648), (4000, 7)]
        {
            let axis = Axis::new(num_in, num_out);
            assert_eq!(axis.first.len(), num_out);
            for (&first, weights) in axis.first.iter().zip(axis.weights.chunks_exact(axis.num_taps)) {
                assert!(first as usize + axis.num_taps <= num_in);
                assert!((weights.iter().sum::<f32>() - 1.0).abs() < 2e-6);
            }
        }
    }

    #[test]
    fn a_constant_and_the_same_size_stay_as_they_are() {
        assert_close(&resample(&[3.5; 7 * 5], (7, 5), (13, 2)), &[3.5; 26], 1e-5);
        let plane = noise(6 * 9);
        assert_close(&resample(&plane, (6, 9), (6, 9)), &plane, 0.0);
    }

    #[test]
    fn upsampling_two_samples() {
        // Centres 0.25, 0.75, 1.25, 1.75: distances 0.25 and 0.75 from one side, 0.25 and 1.25 at the border.
        let (near, far, outside) = (0.867_187_5_f32, 0.226_562_5, -0.070_312_5);
        let step = near / (near + far);
        let border = outside / (near + outside);
        assert_close(&resample(&[0.0, 1.0], (1, 2), (1, 4)), &[border, 1.0 - step, step, 1.0 - border], 1e-6);
    }

    #[test]
    fn agrees_with_the_definition_at_every_size() {
        for (size, out) in [
            ((1, 1), (1, 1)),
            ((1, 1), (5, 40)),
            ((15, 33), (17, 31)),
            ((16, 8), (61, 33)),
            ((33, 40), (7, 100)),
            ((40, 50), (1, 1)),
        ] {
            let planes = noise(3 * size.0 * size.1);
            let expected: Vec<f32> =
                planes.chunks(size.0 * size.1).flat_map(|plane| direct(plane, size, out)).collect();
            assert_close(&resample(&planes, size, out), &expected, 1e-5);
        }
    }

    #[test]
    fn no_planes_give_none() {
        assert!(resample(&[], (4, 4), (8, 8)).is_empty());
    }

    #[test]
    #[should_panic(expected = "both must be at least 1")]
    fn an_empty_axis_is_refused() {
        let _ = Axis::new(0, 3);
    }
}
