//! Bilinear resampling against its definition in f64.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::shaders;
use geopurify::ops::bilinear::{Corners, bilinear};
use geopurify::ops::{float_tensor, float_values};

use crate::common::{Random, devices};
use crate::helpers::definition::{check, rounded, sizes};

const BOTH: [Corners; 2] = [Corners::Aligned, Corners::Free];

/// The place of output sample `i` among the input's.
fn place(i: usize, [num_in, num_out]: [usize; 2], corners: Corners) -> f64 {
    let place = match corners {
        Corners::Aligned if num_out == 1 => 0.0,
        Corners::Aligned => i as f64 * (num_in as f64 - 1.0) / (num_out as f64 - 1.0),
        Corners::Free => (i as f64 + 0.5) * num_in as f64 / num_out as f64 - 0.5,
    };
    place.clamp(0.0, num_in as f64 - 1.0)
}

/// Every sample is a sum over all pixels, weighted by a tent around the place.
fn definition(
    x: &[f32],
    [batch, h, w, channels]: [usize; 4],
    [height, width]: [usize; 2],
    corners: Corners,
) -> Vec<f32> {
    let mut out = Vec::new();
    for image in x.chunks_exact(h * w * channels).take(batch) {
        for y in 0..height {
            for x in 0..width {
                let center = [place(y, [h, height], corners), place(x, [w, width], corners)];
                let mut sums = vec![0.0; channels];
                for (pixel, values) in image.chunks_exact(channels).enumerate() {
                    let tent = |at: usize, center: f64| (1.0 - (at as f64 - center).abs()).max(0.0);
                    let weight = tent(pixel / w, center[0]) * tent(pixel % w, center[1]);
                    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * f64::from(*value));
                }
                out.extend(sums);
            }
        }
    }
    rounded(out)
}

fn run(x: &[f32], shape: [usize; 4], to: [usize; 2], corners: Corners, device: &Device) -> Vec<f32> {
    let out = bilinear(float_tensor(x.to_vec(), shape, device), to, corners).unwrap();
    assert_eq!(out.dims(), [shape[0], to[0], to[1], shape[3]]);
    float_values(out).unwrap()
}

#[test]
fn resamplings_equal_the_definition() {
    let mut cases = vec![
        ([1, 1, 1, 1], [1, 1]),
        ([1, 1, 1, 3], [3, 5]),
        ([2, 5, 7, 3], [10, 14]),
        ([3, 9, 4, 2], [4, 9]),
        ([1, 3, 25, 5], [25, 3]),
        ([1, 20, 16, 1], [1, 1]),
        ([1, 1, 20, 2], [1, 7]),
        ([1, 20, 1, 2], [33, 1]),
        ([1, 5, 5, 9], [12, 5]),
    ];
    // Results around a workgroup.
    cases.extend(sizes(shaders::bicubic_antialias::resample::WG).map(|width| ([1, 2, 11, 1], [1, width])));
    cases.extend(sizes(shaders::bicubic_antialias::resample::WG).map(|channels| ([1, 2, 2, channels], [3, 1])));
    for (shape, to) in cases {
        for corners in BOTH {
            let x = Random(61).floats(shape.iter().product());
            let what = format!("{shape:?} to {to:?}, {corners:?}");
            check(&what, &definition(&x, shape, to, corners), |device| run(&x, shape, to, corners, device));
        }
    }
}

#[test]
fn resampling_to_the_same_size_changes_nothing() {
    for shape in [[1, 1, 1, 2], [2, 2, 3, 1], [1, 17, 33, 3]] {
        let x = Random(62).floats(shape.iter().product());
        for (name, device) in devices() {
            for corners in BOTH {
                assert_eq!(run(&x, shape, [shape[1], shape[2]], corners, &device), x, "{name}, {shape:?}, {corners:?}");
            }
        }
    }
}

#[test]
fn the_outer_samples_stay_where_corners_are_aligned() {
    for (name, device) in devices() {
        let x = [1.0, 2.0, 3.0, 5.0];
        let out = run(&x, [1, 2, 2, 1], [3, 3], Corners::Aligned, &device);
        assert_eq!(out, [1.0, 1.5, 2.0, 2.0, 2.75, 3.5, 3.0, 4.0, 5.0], "{name}");
        let out = run(&x, [1, 2, 2, 1], [1, 4], Corners::Free, &device);
        assert_eq!(out, [2.0, 2.375, 3.125, 3.5], "{name}");
    }
}

#[test]
fn images_without_pixels_are_refused_and_none_give_none() {
    for (_, device) in devices() {
        let resample = |shape: [usize; 4], to| bilinear(Tensor::zeros(shape, &device), to, Corners::Free);
        let expected = "expected sizes above 0";
        let refused = |shape, to| resample(shape, to).unwrap_err().to_string();
        assert_eq!(refused([1, 0, 4, 1], [3, 3]), format!("bilinear: from 0 x 4 to 3 x 3, {expected}"));
        assert_eq!(refused([1, 4, 4, 1], [3, 0]), format!("bilinear: from 4 x 4 to 3 x 0, {expected}"));
        assert_eq!(resample([0, 4, 4, 2], [3, 5]).unwrap().dims(), [0, 3, 5, 2]);
        assert_eq!(resample([1, 4, 4, 0], [3, 5]).unwrap().dims(), [1, 3, 5, 0]);
    }
}
