//! Host twin of the mean or maximum per segment.

use rayon::prelude::*;

use super::Reduction;

/// See [`super::segment_reduce`]: `[S, channels]`, row-major.
#[must_use]
pub fn segment_reduce(
    features: &[f32],
    channels: usize,
    point_from_sorted: &[i32],
    offsets: &[i32],
    reduction: Reduction,
) -> Vec<f32> {
    let start = match reduction {
        Reduction::Mean => 0.0,
        Reduction::Max => f32::MIN,
    };
    let mut reduced = vec![start; (offsets.len() - 1) * channels];
    reduced.par_chunks_exact_mut(channels).with_min_len(64).zip(offsets.par_windows(2)).for_each(|(values, bounds)| {
        let points = &point_from_sorted[bounds[0] as usize..bounds[1] as usize];
        let rows = points.iter().map(|&point| &features[point as usize * channels..][..channels]);
        match reduction {
            Reduction::Mean => {
                rows.for_each(|row| values.iter_mut().zip(row).for_each(|(sum, value)| *sum += value));
                values.iter_mut().for_each(|sum| *sum /= points.len() as f32);
            }
            Reduction::Max => {
                rows.for_each(|row| values.iter_mut().zip(row).for_each(|(most, &value)| *most = most.max(value)));
            }
        }
    });
    reduced
}
