//! Host twin of the bilinear resampling.

use rayon::prelude::*;

use super::Corners;
use crate::ops::bicubic_antialias::cpu::Axis;

/// The two neighbours of every output sample and their weights. An axis of one sample has one neighbour.
pub(crate) fn axis(num_in: usize, num_out: usize, corners: Corners) -> Axis {
    let num_taps = num_in.min(2);
    let mut axis = Axis { first: Vec::with_capacity(num_out), weights: Vec::new(), num_taps };
    for i in 0..num_out {
        let place = match corners {
            Corners::Aligned => i as f64 * (num_in - 1) as f64 / (num_out - 1).max(1) as f64,
            Corners::Free => (i as f64 + 0.5) * num_in as f64 / num_out as f64 - 0.5,
        };
        let place = place.clamp(0.0, (num_in - 1) as f64);
        let first = (place as usize).min(num_in - num_taps);
        let right = place - first as f64;
        axis.first.push(first as u32);
        axis.weights.extend(&[(1.0 - right) as f32, right as f32][..num_taps]);
    }
    axis
}

/// Resamples images `x [.., h, w, C]` to the axes' sizes.
pub(crate) fn bilinear(x: &[f32], [h, w, channels]: [usize; 3], rows: &Axis, columns: &Axis) -> Vec<f32> {
    let (height, width) = (rows.first.len(), columns.first.len());
    let (from_row, to_row) = (w * channels, width * channels);
    let mut out = vec![0.0; x.len() / (h * from_row) * height * to_row];
    out.par_chunks_mut(to_row).enumerate().for_each_init(Vec::new, |blended, (row, out)| {
        let (image, y) = (row / height, row % height);
        let first = image * h + rows.first[y] as usize;
        let above = &x[first * from_row..][..rows.num_taps * from_row];
        blend(blended, above, &rows.weights[y * rows.num_taps..], from_row);
        for (x, out) in out.chunks_exact_mut(channels).enumerate() {
            let left = &blended[columns.first[x] as usize * channels..];
            let weights = &columns.weights[x * columns.num_taps..][..columns.num_taps];
            match *weights {
                [left_weight, right_weight] => {
                    let (left, right) = left[..2 * channels].split_at(channels);
                    for ((out, left), right) in out.iter_mut().zip(left).zip(right) {
                        *out = left_weight * left + right_weight * right;
                    }
                }
                _ => out.copy_from_slice(&left[..channels]),
            }
        }
    });
    out
}

/// The weighted sum of one or two rows.
fn blend(to: &mut Vec<f32>, rows: &[f32], weights: &[f32], len: usize) {
    to.clear();
    let (above, below) = rows.split_at(len);
    if below.is_empty() {
        to.extend_from_slice(above);
    } else {
        to.extend(above.iter().zip(below).map(|(above, below)| weights[0] * above + weights[1] * below));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_by_hand() {
        let of = |num_in, num_out, corners| {
            let axis = axis(num_in, num_out, corners);
            (axis.first, axis.weights)
        };
        assert_eq!(of(3, 5, Corners::Aligned).0, [0, 0, 1, 1, 1]);
        assert_eq!(of(3, 5, Corners::Aligned).1, [1.0, 0.0, 0.5, 0.5, 1.0, 0.0, 0.5, 0.5, 0.0, 1.0]);
        // Centres at -0.25, 0.25, 0.75, 1.25: the border repeats.
        assert_eq!(of(2, 4, Corners::Free), (vec![0; 4], vec![1.0, 0.0, 0.75, 0.25, 0.25, 0.75, 0.0, 1.0]));
        assert_eq!(of(7, 1, Corners::Aligned), (vec![0], vec![1.0, 0.0]));
        assert_eq!(of(7, 1, Corners::Free), (vec![3], vec![1.0, 0.0]));
        assert_eq!(of(1, 2, Corners::Aligned), (vec![0; 2], vec![1.0; 2]));
    }
}
