//! Host twin of the maximum per segment.

use rayon::prelude::*;

/// See [`super::segment_max`]: `[S, channels]`, row-major.
#[must_use]
pub fn segment_max(features: &[f32], channels: usize, point_from_sorted: &[i32], offsets: &[i32]) -> Vec<f32> {
    let mut largest = vec![f32::MIN; (offsets.len() - 1) * channels];
    largest.par_chunks_exact_mut(channels).with_min_len(64).zip(offsets.par_windows(2)).for_each(
        |(largest, bounds)| {
            for &point in &point_from_sorted[bounds[0] as usize..bounds[1] as usize] {
                let row = &features[point as usize * channels..][..channels];
                largest.iter_mut().zip(row).for_each(|(largest, &value)| *largest = largest.max(value));
            }
        },
    );
    largest
}
