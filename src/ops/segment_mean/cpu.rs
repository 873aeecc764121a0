//! Host twin of the mean per segment.

use rayon::prelude::*;

/// See [`super::segment_mean`]: means `[S, channels]`, row-major.
#[must_use]
pub fn segment_mean(features: &[f32], channels: usize, point_from_sorted: &[i32], offsets: &[i32]) -> Vec<f32> {
    let mut means = vec![0.0; (offsets.len() - 1) * channels];
    means.par_chunks_exact_mut(channels).with_min_len(64).zip(offsets.par_windows(2)).for_each(|(mean, bounds)| {
        for &point in &point_from_sorted[bounds[0] as usize..bounds[1] as usize] {
            let row = &features[point as usize * channels..][..channels];
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        let count = (bounds[1] - bounds[0]) as f32;
        mean.iter_mut().for_each(|sum| *sum /= count);
    });
    means
}
