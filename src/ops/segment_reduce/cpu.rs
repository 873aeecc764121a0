//! Host twin of the mean or maximum per segment.

use rayon::prelude::*;

use super::Reduction;
use crate::ops::present;

/// See [`super::segment_reduce`]: `[S, channels]`, row-major.
#[must_use]
pub fn segment_reduce(
    features: &[f32],
    channels: usize,
    point_from_sorted: &[i32],
    offsets: &[i32],
    reduction: Reduction,
) -> Vec<f32> {
    let num_points = features.len() / channels;
    let start = match reduction {
        Reduction::Mean => 0.0,
        Reduction::Max => f32::MIN,
    };
    let mut reduced = vec![start; (offsets.len() - 1) * channels];
    reduced.par_chunks_exact_mut(channels).with_min_len(64).zip(offsets.par_windows(2)).for_each(|(values, bounds)| {
        let points = points_of(point_from_sorted, bounds);
        let rows = points.iter().filter_map(|&point| present(point, num_points));
        let rows = rows.map(|point| &features[point * channels..][..channels]);
        match reduction {
            Reduction::Mean => {
                rows.for_each(|row| values.iter_mut().zip(row).for_each(|(sum, value)| *sum += value));
                values.iter_mut().for_each(|sum| *sum /= bounds[1].wrapping_sub(bounds[0]) as u32 as f32);
            }
            Reduction::Max => {
                rows.for_each(|row| values.iter_mut().zip(row).for_each(|(most, &value)| *most = most.max(value)));
            }
        }
    });
    reduced
}

/// The points between two offsets; an offset past the end is the end.
fn points_of<'a>(point_from_sorted: &'a [i32], bounds: &[i32]) -> &'a [i32] {
    let [first, end] = [bounds[0], bounds[1]].map(|offset| (offset as u32 as usize).min(point_from_sorted.len()));
    point_from_sorted.get(first..end).unwrap_or_default()
}

/// Gradient of `features`, `[N, channels]`, from `grad_out [S, channels]`: of the mean, or of the maximum of the features
/// that are `maximum_of`, which goes to the first row that has it.
#[must_use]
pub fn segment_reduce_grad(
    grad_out: &[f32],
    channels: usize,
    point_from_sorted: &[i32],
    offsets: &[i32],
    maximum_of: Option<&[f32]>,
) -> Vec<f32> {
    let points = |bounds: &[i32]| points_of(point_from_sorted, bounds);
    let mut segment_from_point = vec![usize::MAX; point_from_sorted.len()];
    for (segment, bounds) in offsets.windows(2).enumerate() {
        for &point in points(bounds) {
            if let Some(of_point) = usize::try_from(point).ok().and_then(|point| segment_from_point.get_mut(point)) {
                *of_point = segment;
            }
        }
    }
    let num_points = point_from_sorted.len();
    // The point of each element of the maxima.
    let largest = maximum_of.map(|features| {
        let mut largest = vec![-1; (offsets.len() - 1) * channels];
        let segments = largest.par_chunks_exact_mut(channels).with_min_len(64).zip(offsets.par_windows(2));
        segments.for_each(|(largest, bounds)| {
            let mut points = points(bounds).iter().copied().filter(|&point| present(point, num_points).is_some());
            let Some(first) = points.next() else { return };
            let row = |point: i32| &features[point as usize * channels..][..channels];
            let mut most = row(first).to_vec();
            largest.fill(first);
            for point in points {
                for ((largest, most), &value) in largest.iter_mut().zip(&mut most).zip(row(point)) {
                    let is_larger = value > *most || most.is_nan();
                    *largest = if is_larger { point } else { *largest };
                    *most = if is_larger { value } else { *most };
                }
            }
        });
        largest
    });
    let mut grad = vec![0.0; point_from_sorted.len() * channels];
    let rows = grad.par_chunks_exact_mut(channels).with_min_len(64).enumerate();
    rows.zip(segment_from_point).for_each(|((point, grad), segment)| {
        let Some(bounds) = offsets.get(segment..).and_then(|rest| rest.get(..2)) else { return };
        let of_segment = segment * channels..(segment + 1) * channels;
        let grad_out = &grad_out[of_segment.clone()];
        if let Some(largest) = &largest {
            for ((grad, grad_out), &largest) in grad.iter_mut().zip(grad_out).zip(&largest[of_segment]) {
                *grad = if largest as usize == point { *grad_out } else { 0.0 };
            }
        } else {
            let count = bounds[1].wrapping_sub(bounds[0]) as u32 as f32;
            grad.iter_mut().zip(grad_out).for_each(|(grad, grad_out)| *grad = grad_out / count);
        }
    });
    grad
}
