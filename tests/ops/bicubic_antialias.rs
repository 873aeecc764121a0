//! Resampling against Keys' kernel in f64.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::shaders;
use geopurify::ops::bicubic_antialias::bicubic_antialias;
use geopurify::ops::{float_tensor, float_values};

use crate::common::{Random, devices};
use crate::helpers::definition::{check, rounded, sizes};

/// One axis of the resampling: every output sample is the mean of all input samples, weighted by Keys' kernel
/// with a = −0.5 at their distance, in units of the larger of the two steps.
fn resample_axis(x: &[f64], num_out: usize) -> Vec<f64> {
    let keys = |t: f64| match t.abs() {
        t if t <= 1.0 => 1.5 * t.powi(3) - 2.5 * t.powi(2) + 1.0,
        t if t < 2.0 => -0.5 * t.powi(3) + 2.5 * t.powi(2) - 4.0 * t + 2.0,
        _ => 0.0,
    };
    let step = x.len() as f64 / num_out as f64;
    let at = |i: usize| {
        let center = (i as f64 + 0.5) * step;
        let weights: Vec<f64> = (0..x.len()).map(|j| keys((j as f64 + 0.5 - center) / step.max(1.0))).collect();
        weights.iter().zip(x).map(|(weight, x)| weight * x).sum::<f64>() / weights.iter().sum::<f64>()
    };
    (0..num_out).map(at).collect()
}

fn resample(planes: &[f32], [height, width]: [usize; 2], [out_height, out_width]: [usize; 2]) -> Vec<f32> {
    let mut out = Vec::new();
    for plane in planes.chunks_exact(height * width) {
        let columns: Vec<Vec<f64>> = (0..width)
            .map(|x| resample_axis(&(0..height).map(|y| plane[y * width + x].into()).collect::<Vec<f64>>(), out_height))
            .collect();
        for y in 0..out_height {
            out.extend(resample_axis(&columns.iter().map(|column| column[y]).collect::<Vec<f64>>(), out_width));
        }
    }
    rounded(out)
}

fn run_resample(planes: &[f32], from: [usize; 2], to: [usize; 2], device: &Device) -> Vec<f32> {
    let count = planes.len() / (from[0] * from[1]);
    let planes = float_tensor(planes.to_vec(), [count, from[0], from[1]], device);
    let out = bicubic_antialias(planes, to).unwrap();
    assert_eq!(out.dims(), [count, to[0], to[1]]);
    float_values(out).unwrap()
}

#[test]
fn resamplings_equal_the_definition() {
    let mut cases = vec![
        ([1, 1], [1, 1]),
        ([1, 1], [3, 5]),
        ([5, 7], [10, 14]),
        ([16, 22], [8, 11]),
        ([12, 16], [3, 4]),
        ([9, 4], [4, 9]),
        ([3, 50], [50, 3]),
        ([40, 33], [1, 1]),
        ([17, 31], [16, 33]),
        ([2, 3], [64, 65]),
        ([31, 42], [37, 13]),
        ([1, 20], [1, 7]),
        ([20, 1], [33, 1]),
    ];
    // Results around a workgroup.
    cases.extend(sizes(shaders::bicubic_antialias::resample::WG).map(|width| ([2, 60], [1, width])));
    cases.extend(sizes(shaders::bicubic_antialias::resample::WG).map(|height| ([60, 2], [height, 1])));
    for (from, to) in cases {
        for count in [1, 3] {
            let planes = Random(61).floats(count * from[0] * from[1]);
            let what = format!("{count} planes, {from:?} to {to:?}");
            check(&what, &resample(&planes, from, to), |device| run_resample(&planes, from, to, device));
        }
    }
}

#[test]
fn resampling_to_the_same_size_changes_nothing() {
    for size in [[1, 1], [2, 3], [17, 33], [40, 8]] {
        let planes = Random(62).floats(2 * size[0] * size[1]);
        for (name, device) in devices() {
            assert_eq!(run_resample(&planes, size, size, &device), planes, "{name}, {size:?}");
        }
    }
}

#[test]
fn a_constant_plane_stays_constant() {
    for (from, to) in [([1, 1], [4, 9]), ([7, 5], [13, 2]), ([30, 40], [11, 200]), ([64, 64], [5, 5])] {
        let planes = [vec![3.5; from[0] * from[1]], vec![-0.1; from[0] * from[1]]].concat();
        let expected = [vec![3.5; to[0] * to[1]], vec![-0.1; to[0] * to[1]]].concat();
        check(&format!("{from:?} to {to:?}"), &expected, |device| run_resample(&planes, from, to, device));
    }
}

#[test]
fn planes_without_pixels_are_refused() {
    let device = Device::flex();
    let resample = |from: [usize; 3], to| {
        let planes = Tensor::<3>::zeros(from, &device);
        bicubic_antialias(planes, to).unwrap_err().to_string()
    };
    let expected = "expected sizes above 0";
    assert_eq!(resample([2, 0, 4], [3, 3]), format!("bicubic_antialias: from 0 x 4 to 3 x 3, {expected}"));
    assert_eq!(resample([2, 4, 0], [3, 3]), format!("bicubic_antialias: from 4 x 0 to 3 x 3, {expected}"));
    assert_eq!(resample([2, 4, 4], [0, 3]), format!("bicubic_antialias: from 4 x 4 to 0 x 3, {expected}"));
    assert_eq!(resample([0, 4, 4], [3, 0]), format!("bicubic_antialias: from 4 x 4 to 3 x 0, {expected}"));
}
