//! Convolutions of every channel by itself, forward and backward.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::ops::depthwise_conv2d::depthwise_conv2d;
use geopurify::ops::{float_tensor, float_values};

use crate::common::Random;
use crate::helpers::definition::{check, rounded};
use crate::helpers::gradient::{check_gradients, composed_depthwise, flat};

/// Every channel by itself, every tap that lies inside the image.
fn define_depthwise(x: &[f32], weight: &[f32], bias: &[f32], shape: [usize; 4], kernel: usize) -> Vec<f32> {
    let [_, height, width, dim] = shape;
    let inside = |at: usize, tap: usize, size: usize| (at + tap).checked_sub(kernel / 2).filter(|&at| at < size);
    let value = |i: usize| {
        let (pixel, c) = (i / dim, i % dim);
        let (image, y, x_at) = (pixel / (height * width), pixel / width % height, pixel % width);
        let mut sum = f64::from(bias[c]);
        for tap in 0..kernel * kernel {
            if let (Some(y), Some(x_at)) = (inside(y, tap / kernel, height), inside(x_at, tap % kernel, width)) {
                let from = x[((image * height + y) * width + x_at) * dim + c];
                sum += f64::from(from) * f64::from(weight[tap * dim + c]);
            }
        }
        sum
    };
    rounded((0..x.len()).map(value).collect())
}

#[test]
fn depthwise_convolutions_equal_the_definition() {
    for (shape, kernel) in
        [([1, 1, 1, 1], 3), ([1, 5, 7, 17], 1), ([2, 6, 4, 24], 3), ([1, 3, 2, 8], 7), ([2, 9, 11, 33], 5)]
    {
        let mut random = Random(21);
        let (x, dim) = (random.floats(shape.iter().product()), shape[3]);
        let (weight, bias) = (random.floats(kernel * kernel * dim), random.floats(dim));
        let definition = define_depthwise(&x, &weight, &bias, shape, kernel);
        check(&format!("{shape:?}, kernel {kernel}"), &definition, |device| {
            let weight = float_tensor(weight.clone(), [kernel * kernel, dim], device);
            let bias = float_tensor(bias.clone(), [dim], device);
            float_values(depthwise_conv2d(float_tensor(x.clone(), shape, device), weight, bias, kernel).unwrap())
                .unwrap()
        });
    }
}

#[test]
fn depthwise_convolutions_refuse_what_does_not_fit_together() {
    let device = Device::flex();
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
    let weight = |taps: usize, dim: usize| Tensor::<2>::zeros([taps, dim], &device);
    let bias = Tensor::<1>::zeros([3], &device);
    let error = depthwise_conv2d(zeros([1, 2, 2, 3]), weight(9, 4), bias.clone(), 3).unwrap_err();
    assert_eq!(error.to_string(), "depthwise_conv2d: weight is [9, 4], expected [9, C = 3]");
    let error = depthwise_conv2d(zeros([1, 2, 2, 3]), weight(4, 3), bias.clone(), 2).unwrap_err();
    assert_eq!(error.to_string(), "depthwise_conv2d: a kernel of edge 2, expected an odd one");
    let empty = depthwise_conv2d(zeros([0, 2, 2, 3]), weight(9, 3), bias, 3).unwrap();
    assert_eq!(empty.dims(), [0, 2, 2, 3]);
}

#[test]
fn depthwise_conv2d_has_the_gradients_of_its_composition() {
    for (size, kernel) in
        [([1, 1, 1, 3], 3), ([2, 5, 7, 35], 3), ([1, 9, 4, 32], 5), ([3, 3, 11, 17], 7), ([1, 4, 6, 9], 9)]
    {
        let [batch, height, width, dim] = size;
        check_gradients(
            &format!("depthwise_conv2d of {size:?} by {kernel}"),
            &["x", "weight", "bias"],
            &[batch * height * width * dim, kernel * kernel * dim, dim],
            &|t| {
                let weight = t[1].clone().reshape([kernel * kernel, dim]);
                flat(depthwise_conv2d(t[0].clone().reshape(size), weight, t[2].clone(), kernel).unwrap())
            },
            &|t| {
                let weight = t[1].clone().reshape([kernel * kernel, dim]);
                let out = composed_depthwise(t[0].clone().reshape(size), weight, kernel);
                flat(out + t[2].clone().reshape([1, 1, 1, dim]))
            },
        );
    }
}
