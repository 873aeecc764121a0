//! Gradients of the dense operations, on every device, beside burn's own of a composition of its operations.

mod common;

use burn::prelude::*;
use burn::tensor::{Device, activation};
use common::{Random, devices, rel_l2};
use geopurify::ops::depthwise_conv2d::depthwise_conv2d;
use geopurify::ops::focal_modulation::{Levels, focal_modulation};
use geopurify::ops::group_norm::{Epilogue, group_norm};
use geopurify::ops::layer_norm::{Fusion, layer_norm};
use geopurify::ops::{float_tensor, float_values};

const EPSILON: f32 = 1e-5;

/// The values of a function of flat tensors and, of those it is `tracked` in, the gradients of their weighted sum.
fn gradients(
    run: &dyn Fn(&[Tensor<1>]) -> Tensor<1>,
    inputs: &[Vec<f32>],
    tracked: &[bool],
    device: &Device,
) -> (Vec<f32>, Vec<Option<Vec<f32>>>) {
    let autodiff = device.clone().autodiff();
    let tensors: Vec<_> = inputs
        .iter()
        .zip(tracked)
        .map(|(values, tracked)| match tracked {
            true => float_tensor(values.clone(), [values.len()], &autodiff).require_grad(),
            false => float_tensor(values.clone(), [values.len()], device),
        })
        .collect();
    let out = run(&tensors);
    let values = float_values(out.clone().inner()).unwrap();
    let factors = float_tensor(Random(9).floats(values.len()), [values.len()], &autodiff);
    let grads = (out * factors).sum().backward();
    let of = |tensor: &Tensor<1>| float_values(tensor.grad(&grads).expect("a gradient")).unwrap();
    (values, tensors.iter().zip(tracked).map(|(tensor, tracked)| tracked.then(|| of(tensor))).collect())
}

/// Compares an operation with a composition: all inputs tracked, and each alone beside plain ones.
fn check(
    what: &str,
    names: &[&str],
    lens: &[usize],
    run: &dyn Fn(&[Tensor<1>]) -> Tensor<1>,
    composed: &dyn Fn(&[Tensor<1>]) -> Tensor<1>,
) {
    let mut rng = Random(lens.iter().sum::<usize>() as u64);
    let inputs: Vec<_> = lens.iter().map(|&len| rng.floats(len).iter().map(|x| x + 0.25).collect()).collect();
    let all = vec![true; inputs.len()];
    let (expected, expected_grads) = gradients(composed, &inputs, &all, &Device::flex());
    for (name, device) in devices() {
        let plain: Vec<_> =
            inputs.iter().map(|values: &Vec<f32>| float_tensor(values.clone(), [values.len()], &device)).collect();
        let plain = run(&plain);
        assert!(!plain.device().is_autodiff(), "{what} on {name}: plain in, plain out");
        let (values, grads) = gradients(run, &inputs, &all, &device);
        assert_eq!(float_values(plain).unwrap(), values, "{what} on {name}: tracking changes the result");
        assert!(rel_l2(&values, &expected) < 1e-5, "{what} on {name}: result");
        for ((part, grad), expected) in names.iter().zip(&grads).zip(&expected_grads) {
            let off = rel_l2(grad.as_ref().unwrap(), expected.as_ref().unwrap());
            assert!(off < 2e-5, "{what} on {name}: gradient of {part} is off by {off}");
        }
        assert_eq!(gradients(run, &inputs, &all, &device).1, grads, "{what} on {name}: a second run differs");
        for alone in 0..inputs.len() {
            let tracked: Vec<_> = (0..inputs.len()).map(|i| i == alone).collect();
            let grad = &gradients(run, &inputs, &tracked, &device).1[alone];
            assert_eq!(*grad, grads[alone], "{what} on {name}: {} alone", names[alone]);
        }
    }
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let len = x.shape().num_elements();
    x.reshape([len])
}

fn composed_layer_norm(z: Tensor<2>, weight: &Tensor<1>, bias: &Tensor<1>) -> Tensor<2> {
    let centered = z.clone() - z.mean_dim(1);
    let deviation = (centered.clone().powi_scalar(2).mean_dim(1) + EPSILON).sqrt();
    centered / deviation * weight.clone().unsqueeze::<2>() + bias.clone().unsqueeze::<2>()
}

#[test]
fn layer_norm_has_the_gradients_of_its_composition() {
    for (num_rows, dim) in [(3, 5), (70, 37), (1100, 32), (9, 200)] {
        let (size, len) = ([num_rows, dim], num_rows * dim);
        check(
            &format!("layer_norm of {size:?}"),
            &["x", "weight", "bias"],
            &[len, dim, dim],
            &|t| flat(layer_norm(t[0].clone().reshape(size), &t[1], &t[2], EPSILON, Fusion::Nothing).unwrap()),
            &|t| flat(composed_layer_norm(t[0].clone().reshape(size), &t[1], &t[2])),
        );
        check(
            &format!("layer_norm of a sum of {size:?}"),
            &["x", "other", "weight", "bias"],
            &[len, len, dim, dim],
            &|t| {
                let around = Fusion::Add(t[1].clone().reshape(size));
                flat(layer_norm(t[0].clone().reshape(size), &t[2], &t[3], EPSILON, around).unwrap())
            },
            &|t| flat(composed_layer_norm((t[0].clone() + t[1].clone()).reshape(size), &t[2], &t[3])),
        );
        check(
            &format!("layer_norm beside a residual of {size:?}"),
            &["x", "residual", "scale", "weight", "bias"],
            &[len, len, dim, dim, dim],
            &|t| {
                let (residual, scale) = (t[1].clone().reshape(size), t[2].clone().reshape([1, dim]));
                let around = Fusion::Residual { residual, scale };
                flat(layer_norm(t[0].clone().reshape(size), &t[3], &t[4], EPSILON, around).unwrap())
            },
            &|t| {
                let norm = composed_layer_norm(t[0].clone().reshape(size), &t[3], &t[4]);
                flat(t[1].clone().reshape(size) + t[2].clone().reshape([1, dim]) * norm)
            },
        );
    }
}

fn composed_group_norm(x: Tensor<4>, weight: &Tensor<1>, bias: &Tensor<1>, num_groups: usize) -> Tensor<4> {
    let [batch, height, width, dim] = x.dims();
    let x = x.reshape([batch, height * width, num_groups, dim / num_groups]);
    let centered = x.clone() - x.mean_dim(3).mean_dim(1);
    let deviation = (centered.clone().powi_scalar(2).mean_dim(3).mean_dim(1) + EPSILON).sqrt();
    let normalized = (centered / deviation).reshape([batch, height, width, dim]);
    normalized * weight.clone().reshape([1, 1, 1, dim]) + bias.clone().reshape([1, 1, 1, dim])
}

#[test]
fn group_norm_has_the_gradients_of_its_composition() {
    for (size, num_groups) in [([1, 2, 2, 6], 3), ([2, 6, 10, 24], 4), ([3, 14, 8, 64], 8), ([1, 12, 4, 5], 1)] {
        let [batch, height, width, dim] = size;
        let len = batch * height * width * dim;
        for relu in [false, true] {
            let run = move |t: &[Tensor<1>]| {
                let after = if relu { Epilogue::Relu } else { Epilogue::Nothing };
                flat(group_norm(t[0].clone().reshape(size), &t[1], &t[2], num_groups, EPSILON, after).unwrap())
            };
            let composed = move |t: &[Tensor<1>]| {
                let out = composed_group_norm(t[0].clone().reshape(size), &t[1], &t[2], num_groups);
                flat(if relu { activation::relu(out) } else { out })
            };
            let what = format!("group_norm of {size:?}, relu {relu}");
            check(&what, &["x", "weight", "bias"], &[len, dim, dim], &run, &composed);
        }
        let coarse = [batch, height / 2, width / 2, dim];
        check(
            &format!("group_norm of {size:?} plus a coarse image"),
            &["x", "coarse", "weight", "bias"],
            &[len, len / 4, dim, dim],
            &|t| {
                let after = Epilogue::AddUpsampled(t[1].clone().reshape(coarse));
                flat(group_norm(t[0].clone().reshape(size), &t[2], &t[3], num_groups, EPSILON, after).unwrap())
            },
            &|t| {
                let out = composed_group_norm(t[0].clone().reshape(size), &t[2], &t[3], num_groups);
                let cells = t[1].clone().reshape([batch, height / 2, 1, width / 2, 1, dim]);
                flat(out + cells.repeat_dim(2, 2).repeat_dim(4, 2).reshape(size))
            },
        );
    }
}

/// `weight [k², C]`.
fn composed_depthwise(x: Tensor<4>, weight: Tensor<2>, kernel: usize) -> Tensor<4> {
    let ([batch, height, width, dim], reach) = (x.dims(), kernel / 2);
    let above = Tensor::zeros([batch, reach, width, dim], &x.device());
    let x = Tensor::cat(vec![above.clone(), x, above], 1);
    let beside = Tensor::zeros([batch, height + 2 * reach, reach, dim], &x.device());
    let x = Tensor::cat(vec![beside.clone(), x, beside], 2);
    (0..kernel * kernel)
        .map(|tap| {
            let seen = x.clone().narrow(1, tap / kernel, height).narrow(2, tap % kernel, width);
            seen * weight.clone().narrow(0, tap, 1).reshape([1, 1, 1, dim])
        })
        .reduce(|a, b| a + b)
        .expect("a tap")
}

#[test]
fn depthwise_conv2d_has_the_gradients_of_its_composition() {
    for (size, kernel) in
        [([1, 1, 1, 3], 3), ([2, 5, 7, 35], 3), ([1, 9, 4, 32], 5), ([3, 3, 11, 17], 7), ([1, 4, 6, 9], 9)]
    {
        let [batch, height, width, dim] = size;
        check(
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

#[test]
fn focal_modulation_has_the_gradients_of_its_composition() {
    for (size, num_levels, window, scaled) in [
        ([1, 1, 1, 3], 1, 3, false),
        ([2, 5, 7, 35], 2, 3, true),
        ([2, 12, 9, 32], 3, 3, true),
        ([1, 3, 10, 17], 2, 1, false),
    ] {
        let [batch, height, width, dim] = size;
        let levels = Levels { num_levels, window, growth: 2, scaled };
        let gates = [batch, height, width, num_levels + 1];
        let kernels = [levels.num_taps(), dim];
        check(
            &format!("focal_modulation of {size:?}, {levels:?}"),
            &["context", "gates", "kernels"],
            &[batch * height * width * dim, gates.iter().product(), kernels[0] * dim],
            &|t| {
                let (x, gates) = (t[0].clone().reshape(size), t[1].clone().reshape(gates));
                flat(focal_modulation(x, gates, t[2].clone().reshape(kernels), levels).unwrap())
            },
            &|t| {
                let (mut x, gates) = (t[0].clone().reshape(size), t[1].clone().reshape(gates));
                let kernels = t[2].clone().reshape(kernels);
                let mut sum = Tensor::zeros(size, &x.device());
                let mut first_tap = 0;
                for level in 0..num_levels {
                    let kernel = levels.kernel(level);
                    let taps = kernels.clone().narrow(0, first_tap, kernel * kernel);
                    first_tap += kernel * kernel;
                    x = activation::gelu(composed_depthwise(x, taps, kernel));
                    sum = sum + x.clone() * gates.clone().narrow(3, level, 1);
                }
                let global = activation::gelu(x.mean_dim(2).mean_dim(1));
                let sum = sum + global * gates.narrow(3, num_levels, 1);
                flat(if scaled { sum / (num_levels + 1) as f32 } else { sum })
            },
        );
    }
}
