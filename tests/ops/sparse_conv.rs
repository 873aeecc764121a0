//! Convolutions over voxels against the twin, their gradients against differences and f64.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::{Limits, shaders, with_limits};
use geopurify::ops::kernel_map::kernel_map;
use geopurify::ops::sparse_conv::{PackedKernel, sparse_conv, sparse_conv_packed, weight_from_spconv};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor, int_values};

use crate::common::{Random, devices, everywhere, rel_l2};
use crate::helpers::definition::rounded;
use crate::helpers::twin::{against_twin, close, sizes};
use crate::helpers::voxels::{coords, distinct, sheet, shuffled_surface};

/// Output, gradient of x, of the weight and of the bias.
type ConvResult = [Vec<f32>; 4];

fn conv(coords: &[i32], dims: [usize; 2], device: &Device) -> ConvResult {
    let ([num_in, num_out], n) = (dims, coords.len() / 4);
    let mut random = Random(5);
    let device = device.clone().autodiff();
    let x = float_tensor(random.floats(n * num_in), [n, num_in], &device).require_grad();
    let weight = float_tensor(random.floats(27 * num_in * num_out), [27, num_in, num_out], &device).require_grad();
    let bias = float_tensor(random.floats(num_out), [num_out], &device).require_grad();
    let grad_out = float_tensor(random.floats(n * num_out), [n, num_out], &device);
    let map = kernel_map(int_tensor(coords.to_vec(), [n, 4], &device), 3).unwrap();
    let out = sparse_conv(x.clone(), weight.clone(), Some(bias.clone()), map).unwrap();
    let grads = (out.clone() * grad_out).sum().backward();
    [
        float_values(out.inner()).unwrap(),
        float_values(x.grad(&grads).unwrap()).unwrap(),
        float_values(weight.grad(&grads).unwrap()).unwrap(),
        float_values(bias.grad(&grads).unwrap()).unwrap(),
    ]
}

#[test]
fn sparse_convolution_and_its_gradients_equal_the_twin() {
    let rows = shaders::sparse_conv::forward::ROWS;
    let cols = shaders::sparse_conv::forward::COLS as usize;
    let mut cases: Vec<(usize, [usize; 2])> = sizes(rows).into_iter().skip(1).map(|n| (n, [5, 3])).collect();
    // Widths around the tile, and one past it on both sides.
    cases.extend([(90, [1, 1]), (90, [16, cols]), (90, [17, cols + 1]), (90, [cols + 6, cols - 1])]);
    for (n, dims) in cases {
        let coords = distinct(n, 6);
        against_twin(
            |device| conv(&coords, dims, device),
            |name, found, twin| {
                for (what, (found, twin)) in ["out", "x", "weight", "bias"].iter().zip(found.iter().zip(twin)) {
                    close(&format!("{name}, {n} voxels, {dims:?}, {what}"), found, twin);
                }
            },
        );
    }
}

#[test]
fn sparse_convolution_of_no_voxels_is_empty() {
    for (_, device) in devices() {
        let map = kernel_map(int_tensor(Vec::new(), [0, 4], &device), 3).unwrap();
        let x = Tensor::zeros([0, 4], &device);
        let out = sparse_conv(x, Tensor::zeros([27, 4, 2], &device), None, map).unwrap();
        assert_eq!(out.dims(), [0, 2]);
    }
}

#[test]
fn gradients_of_the_convolution_are_its_central_differences() {
    let coords = distinct(40, 7);
    let n = coords.len() / 4;
    let (num_in, num_out) = (3, 2);
    let mut random = Random(8);
    let (x, weight) = (random.floats(n * num_in), random.floats(27 * num_in * num_out));
    let loss = |x: &[f32], weight: &[f32], device: &Device| -> f64 {
        let map = kernel_map(int_tensor(coords.clone(), [n, 4], device), 3).unwrap();
        let x = float_tensor(x.to_vec(), [n, num_in], device);
        let weight = float_tensor(weight.to_vec(), [27, num_in, num_out], device);
        let out = float_values(sparse_conv(x, weight, None, map).unwrap()).unwrap();
        // Quadratic, so that central differences have no truncation error.
        out.iter().map(|v| f64::from(*v).powi(2) / 2.0).sum()
    };
    for (name, device) in devices() {
        let tracked = device.clone().autodiff();
        let map = kernel_map(int_tensor(coords.clone(), [n, 4], &tracked), 3).unwrap();
        let tx = float_tensor(x.clone(), [n, num_in], &tracked).require_grad();
        let tw = float_tensor(weight.clone(), [27, num_in, num_out], &tracked).require_grad();
        let out = sparse_conv(tx.clone(), tw.clone(), None, map).unwrap();
        let grads = (out.clone() * out / 2.0).sum().backward();
        let grad_x = float_values(tx.grad(&grads).unwrap()).unwrap();
        let grad_weight = float_values(tw.grad(&grads).unwrap()).unwrap();
        let step = 0.05;
        for i in (0..grad_x.len()).step_by(7) {
            let (mut up, mut down) = (x.clone(), x.clone());
            up[i] += step;
            down[i] -= step;
            let change = (loss(&up, &weight, &device) - loss(&down, &weight, &device)) / f64::from(up[i] - down[i]);
            assert!((change - f64::from(grad_x[i])).abs() < 2e-3, "{name}: x[{i}] {change} {}", grad_x[i]);
        }
        for i in (0..grad_weight.len()).step_by(11) {
            let (mut up, mut down) = (weight.clone(), weight.clone());
            up[i] += step;
            down[i] -= step;
            let change = (loss(&x, &up, &device) - loss(&x, &down, &device)) / f64::from(up[i] - down[i]);
            assert!((change - f64::from(grad_weight[i])).abs() < 2e-3, "{name}: w[{i}] {change} {}", grad_weight[i]);
        }
    }
}

#[test]
fn spconv_weights_come_into_our_order() {
    // The element says where it was: 100 kx + 10 ky + kz, for one output and one input channel.
    let values: Vec<f32> = (0..27).map(|i| (100 * (i / 9) + 10 * ((i / 3) % 3) + i % 3) as f32).collect();
    let weight = weight_from_spconv(float_tensor(values, [1, 3, 3, 3, 1], &Device::flex()));
    let ours = float_values(weight).unwrap();
    for (k, value) in ours.iter().enumerate() {
        let (x, y, z) = (k % 3, (k / 3) % 3, k / 9);
        assert_eq!(*value, (100 * x + 10 * y + z) as f32);
    }
}

#[test]
fn gradients_of_a_convolution_over_many_voxels() {
    // More than a workgroup takes in one launch, in slices and not.
    let (num_voxels, num_in, num_out) = (40_000, 5, 7);
    let coords = sheet(num_voxels);
    let mut rng = Random(11);
    let (x, grad) = (rng.floats(num_voxels * num_in), rng.floats(num_voxels * num_out));
    let weight = rng.floats(27 * num_in * num_out);
    let map = kernel_map(int_tensor(coords.clone(), [num_voxels, 4], &Device::flex()), 3).unwrap();
    let map = int_values(map).unwrap();
    let mut expected_weight = vec![0.0f64; 27 * num_in * num_out];
    let mut expected_x = vec![0.0f64; num_voxels * num_in];
    for dst in 0..num_voxels {
        for k in 0..27 {
            let Ok(src) = usize::try_from(map[dst * 27 + k]) else { continue };
            for i in 0..num_in {
                for o in 0..num_out {
                    let g = f64::from(grad[dst * num_out + o]);
                    expected_weight[(k * num_in + i) * num_out + o] += f64::from(x[src * num_in + i]) * g;
                    expected_x[src * num_in + i] += f64::from(weight[(k * num_in + i) * num_out + o]) * g;
                }
            }
        }
    }
    let (expected_weight, expected_x) = (rounded(expected_weight), rounded(expected_x));
    for (name, device) in devices() {
        let device = device.autodiff();
        let x = float_tensor(x.clone(), [num_voxels, num_in], &device).require_grad();
        let weight = float_tensor(weight.clone(), [27, num_in, num_out], &device).require_grad();
        let map = kernel_map(int_tensor(coords.clone(), [num_voxels, 4], &device), 3).unwrap();
        let out = sparse_conv(x.clone(), weight.clone(), None, map).unwrap();
        let grads = (out * float_tensor(grad.clone(), [num_voxels, num_out], &device)).sum().backward();
        let off = rel_l2(&float_values(weight.grad(&grads).unwrap()).unwrap(), &expected_weight);
        assert!(off < 1e-5, "{name}: gradient of the weight is off by {off}");
        let off = rel_l2(&float_values(x.grad(&grads).unwrap()).unwrap(), &expected_x);
        assert!(off < 1e-5, "{name}: gradient of x is off by {off}");
    }
}

#[test]
fn a_packed_kernel_convolves_as_the_plain_one() {
    for (num_in, num_out, edge) in [(5, 7, 3), (16, 24, 3), (48, 48, 3), (4, 9, 1)] {
        let voxels = shuffled_surface(400, 2, 11);
        let mut random = Random(12);
        let weight = random.floats(num_out * edge * edge * edge * num_in);
        let (bias, x) = (random.floats(num_out), random.floats(400 * num_in));
        everywhere(|name, device| {
            let map = kernel_map(coords(&voxels, device), edge).unwrap();
            let x = float_tensor(x.clone(), [400, num_in], device);
            let kernel = PackedKernel::from_spconv(&weight, bias.clone(), [num_out, edge, num_in], device).unwrap();
            let packed = sparse_conv_packed(x.clone(), &kernel, map.clone()).unwrap();
            let plain = float_tensor(weight.clone(), [num_out, edge, edge, edge, num_in], device);
            let bias = float_tensor(bias.clone(), [num_out], device);
            let expected = sparse_conv(x.clone(), weight_from_spconv(plain), Some(bias), map.clone()).unwrap();
            assert_eq!(float_values(packed).unwrap(), float_values(expected).unwrap(), "{name}, {num_in} to {num_out}");
            let narrow = x.narrow(1, 0, num_in - 1);
            assert!(matches!(sparse_conv_packed(narrow, &kernel, map), Err(OpError::Shape { .. })), "{name}");
        });
    }
    let short = PackedKernel::from_spconv(&[0.0; 26], vec![0.0], [1, 3, 1], &Device::flex()).unwrap_err().to_string();
    assert!(short.contains("a weight of 26") && short.contains("[1, 3, 3, 3, 1]"), "{short}");
}

#[test]
fn what_does_not_fit_a_buffer_is_named() {
    let limits = Limits { max_binding_bytes: 1000, max_workgroups: 65_535 };
    for (_, device) in devices() {
        let error = with_limits(limits, || {
            let map = int_tensor(vec![0; 27 * 9], [9, 27], &device);
            sparse_conv(Tensor::zeros([9, 40], &device), Tensor::zeros([27, 40, 2], &device), None, map).unwrap_err()
        });
        assert_eq!(
            error.to_string(),
            "sparse_conv: x wants 1440 bytes in one buffer, the device allows 1000: split the scene, or use --device cpu"
        );
    }
}
