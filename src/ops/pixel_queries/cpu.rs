//! Host twin of the contest of queries for pixels.

use rayon::prelude::*;

use crate::gpu::shaders::pixel_queries::pixel_queries as shader;
use crate::ops::bicubic_antialias::cpu::{Axis, BLOCK, LANES, stretch, weighted_rows};
use crate::ops::math::exp;

/// Fewest picture rows of a task: masks are stretched again for the rows that neighbouring tasks share.
const MIN_ROWS: usize = 32;

/// `masks [Q, h, w]`, `confidences [Q]` → `[rows, columns]`, -1 where no query claims a pixel. `rows` and `columns` are
/// the windows that resample the masks.
pub(crate) fn pixel_queries(
    masks: &[f32],
    confidences: &[f32],
    [h, w]: [usize; 2],
    rows: &Axis,
    columns: &Axis,
) -> Vec<i32> {
    let (height, width) = (rows.first.len(), columns.first.len());
    let band = height.div_ceil(4 * rayon::current_num_threads()).max(MIN_ROWS);
    let arch = pulp::Arch::new();
    let mut query_from_pixel = vec![-1; height * width];
    query_from_pixel.par_chunks_mut(band * width).enumerate().for_each(|(index, out)| {
        let first_row = index * band;
        arch.dispatch(Band { masks, confidences, size: [h, w], rows, columns, first_row, out });
    });
    query_from_pixel
}

/// Consecutive rows of the picture. (A closure would not be inlined into the code that `pulp` compiles for the
/// processor at hand.)
struct Band<'a> {
    masks: &'a [f32],
    confidences: &'a [f32],
    size: [usize; 2],
    rows: &'a Axis,
    columns: &'a Axis,
    first_row: usize,
    out: &'a mut [i32],
}

impl pulp::NullaryFnOnce for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { masks, confidences, size: [h, w], rows, columns, first_row, out } = self;
        let width = columns.first.len();
        let windows = first_row..first_row + out.len() / width;
        let top = rows.first[windows.start] as usize;
        let bottom = rows.first[windows.end - 1] as usize + rows.num_taps;

        // Rows are filled up to whole blocks, with pixels that nothing can win.
        let stride = width.next_multiple_of(BLOCK);
        let blocks = windows.len() * stride / BLOCK;
        let mut lanes: Vec<[f32; LANES]> = Vec::new();
        let mut stretched = vec![0.0; (bottom - top) * stride];
        let mut winners = vec![[-1; BLOCK]; blocks];
        let mut best = vec![[shader::LEAST; BLOCK]; blocks];
        for row in best.chunks_exact_mut(stride / BLOCK) {
            row.as_flattened_mut()[width..].fill(f32::INFINITY);
        }
        // The least of each block of `best`: a query whose confidence is no larger wins nothing there, since a
        // probability is at most 1.
        let mut least = vec![shader::LEAST; blocks];

        for (q, (mask, &confidence)) in masks.chunks_exact(h * w).zip(confidences).enumerate() {
            let most = confidence.max(0.0);
            if !least.iter().any(|&least| most > least) {
                continue;
            }
            stretch(&mask[top * w..bottom * w], w, columns, &mut lanes, &mut stretched, stride);
            for (index, (best, (winners, least))) in best.iter_mut().zip(winners.iter_mut().zip(&mut least)).enumerate()
            {
                if most <= *least {
                    continue;
                }
                let (y, x) = (windows.start + index * BLOCK / stride, index * BLOCK % stride);
                let weights = &rows.weights[y * rows.num_taps..][..rows.num_taps];
                let above = &stretched[(rows.first[y] as usize - top) * stride..];
                let logits = weighted_rows::<BLOCK>(above, stride, weights, x);
                // The probability grows with the logit, but for the rounding of the exponential.
                let highest = logits.iter().fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most });
                if most / (1.0 + exp(-highest)) < *least * (1.0 - 1e-5) {
                    continue;
                }
                for lane in 0..BLOCK {
                    let value = confidence / (1.0 + exp(-logits[lane]));
                    let claims = if logits[lane] >= 0.0 { q as i32 } else { -1 };
                    let wins = value > best[lane];
                    winners[lane] = if wins { claims } else { winners[lane] };
                    best[lane] = if wins { value } else { best[lane] };
                }
                *least = best.iter().fold(f32::INFINITY, |least, &best| if best < least { best } else { least });
            }
        }
        for (out, winners) in out.chunks_exact_mut(width).zip(winners.chunks_exact(stride / BLOCK)) {
            out.copy_from_slice(&winners.as_flattened()[..width]);
        }
    }
}
