//! Transposed convolutions against their definition in f64.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::ops::conv_transpose2d::{TransposedWeight, conv_transpose2d};
use geopurify::ops::conv2d::Precision;
use geopurify::ops::{float_tensor, float_values};

use crate::common::{Random, devices};
use crate::helpers::definition::{check, rounded};

/// Every pixel of the result has one pixel of `x` and one place of the kernel.
fn definition(x: &[f32], shape: [usize; 4], weight: &[f32], bias: &[f32], kernel: usize) -> Vec<f32> {
    let [batch, height, width, num_in] = shape;
    let num_out = bias.len();
    let mut out = Vec::new();
    for image in 0..batch {
        for y in 0..kernel * height {
            for column in 0..kernel * width {
                let pixel = (image * height + y / kernel) * width + column / kernel;
                let place = y % kernel * kernel + column % kernel;
                out.extend((0..num_out).map(|o| {
                    let product = |i: usize| {
                        let value = weight[(i * num_out + o) * kernel * kernel + place];
                        f64::from(x[pixel * num_in + i]) * f64::from(value)
                    };
                    f64::from(bias[o]) + (0..num_in).map(product).sum::<f64>()
                }));
            }
        }
    }
    rounded(out)
}

#[test]
fn transposed_convolutions_equal_the_definition() {
    for (shape, num_out, kernel) in [
        ([1, 1, 1, 1], 1, 1),
        ([1, 1, 1, 3], 2, 4),
        ([2, 3, 5, 7], 4, 2),
        ([1, 4, 3, 17], 33, 4),
        ([3, 2, 2, 64], 65, 2),
        ([1, 7, 6, 130], 5, 3),
    ] {
        let [.., num_in] = shape;
        let mut random = Random(71);
        let x = random.floats(shape.iter().product());
        let weight = random.floats(num_in * num_out * kernel * kernel);
        let bias = random.floats(num_out);
        let run = |device: &Device| {
            let extents = [num_in, num_out, kernel];
            let packed = TransposedWeight::new(&weight, &bias, extents, Precision::F32, device).unwrap();
            let out = conv_transpose2d(float_tensor(x.clone(), shape, device), &packed).unwrap();
            assert_eq!(out.dims(), [shape[0], kernel * shape[1], kernel * shape[2], num_out]);
            float_values(out).unwrap()
        };
        let what = format!("{shape:?} to {num_out} channels, kernel {kernel}");
        check(&what, &definition(&x, shape, &weight, &bias, kernel), run);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for (name, device) in devices() {
        let packed = TransposedWeight::new(&[1.0; 24], &[0.0; 2], [3, 2, 2], Precision::F32, &device).unwrap();
        let error = conv_transpose2d(Tensor::zeros([1, 2, 2, 4], &device), &packed).unwrap_err().to_string();
        assert!(error.starts_with("conv_transpose2d: x is [1, 2, 2, 4]"), "{name}: {error}");
        let error = TransposedWeight::new(&[1.0; 23], &[0.0; 2], [3, 2, 2], Precision::F32, &device).unwrap_err();
        let expected = "conv_transpose2d: a weight of 23 and a bias of 2 values, expected [3, 2, 2, 2] and [2]";
        assert_eq!(error.to_string(), expected, "{name}");
        let out = conv_transpose2d(Tensor::zeros([1, 0, 2, 3], &device), &packed).unwrap();
        assert_eq!(out.dims(), [1, 0, 4, 2], "{name}");
    }
}
