//! What all operations promise: empty tensors, views, limits, gradients kept apart, and errors that name the tensor.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::{Limits, with_limits};
use geopurify::ops::affinity::affinity;
use geopurify::ops::attention::{Mask, attention};
use geopurify::ops::bicubic_antialias::bicubic_antialias;
use geopurify::ops::conv2d::{Activation, PackedWeight, Precision, conv2d};
use geopurify::ops::focal_modulation::{Levels, focal_modulation};
use geopurify::ops::group_norm::{Epilogue, group_norm};
use geopurify::ops::knn::knn_points;
use geopurify::ops::layer_norm::{Fusion, layer_norm};
use geopurify::ops::normals::{Orientation, normals};
use geopurify::ops::sparse_conv::sparse_conv;
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor};

use crate::common::{Random, devices};
use crate::focal_modulation::levels;
use crate::helpers::definition::EPSILON;

#[test]
fn shapes_are_checked_at_the_door() {
    let device = Device::flex();
    let x = Tensor::<2>::zeros([4, 3], &device);
    let map = int_tensor(vec![0; 4 * 27], [4, 27], &device);
    let error = sparse_conv(x.clone(), Tensor::zeros([27, 5, 2], &device), None, map).unwrap_err();
    assert_eq!(error.to_string(), "sparse_conv: weight is [27, 5, 2], expected [K, in = 3, out]");
    let error = knn_points(x.clone(), 129, false, 0..4).unwrap_err();
    assert_eq!(error.to_string(), "knn: k is 129, expected 1 to 128");
    assert!(knn_points(x.clone(), 1, false, 2..9).is_err());
    let neighbors = int_tensor(vec![0; 4], [2, 2], &device);
    let error = affinity(&[], neighbors.clone(), 0, 1.0).unwrap_err();
    assert_eq!(error.to_string(), "affinity: the embedding has no channels");
    let error = affinity(&[x.clone(), Tensor::zeros([5, 1], &device)], neighbors.clone(), 0, 1.0).unwrap_err();
    assert_eq!(error.to_string(), "affinity: embedding is [5, 1], expected [4, D]");
    let error = affinity(std::slice::from_ref(&x), neighbors.clone(), 3, 1.0).unwrap_err();
    assert_eq!(error.to_string(), "affinity: rows 3..5, expected within 0..4");
    let error = normals(x, neighbors, 3, Orientation::Up).unwrap_err();
    assert_eq!(error.to_string(), "normals: rows 3..5, expected within 0..4");
}

#[test]
fn nothing_gives_nothing() {
    for (name, device) in devices() {
        let vector = |len: usize| Tensor::<1>::zeros([len], &device);
        for shape in [[0, 6], [4, 0]] {
            let (x, other) = (Tensor::<2>::zeros(shape, &device), Tensor::zeros(shape, &device));
            let out = layer_norm(x, &vector(shape[1]), &vector(shape[1]), EPSILON, Fusion::Add(other)).unwrap();
            assert_eq!(out.dims(), shape, "{name}");
        }
        for shape in [[0, 2, 2, 6], [2, 0, 2, 6], [2, 2, 2, 0]] {
            let x = Tensor::<4>::zeros(shape, &device);
            let coarse = Tensor::zeros([shape[0], shape[1] / 2, shape[2] / 2, shape[3]], &device);
            let (weight, bias) = (vector(shape[3]), vector(shape[3]));
            let out = group_norm(x, &weight, &bias, 2, EPSILON, Epilogue::AddUpsampled(coarse)).unwrap();
            assert_eq!(out.dims(), shape, "{name}");
        }
        for shape in [[0, 2, 2, 6], [2, 0, 2, 6], [2, 2, 2, 0]] {
            let gates = Tensor::zeros([shape[0], shape[1], shape[2], 2], &device);
            let kernels = Tensor::zeros([9, shape[3]], &device);
            let out = focal_modulation(Tensor::zeros(shape, &device), gates, kernels, levels(1, 3, true)).unwrap();
            assert_eq!(out.dims(), shape, "{name}");
        }
        let resampled = bicubic_antialias(Tensor::zeros([0, 3, 4], &device), [5, 6]).unwrap();
        assert_eq!(resampled.dims(), [0, 5, 6], "{name}");
    }
}

#[test]
fn views_are_read_in_their_own_order() {
    let mut random = Random(71);
    let (image, rows) = (random.floats(4 * 6 * 10), random.floats(10 * 12));
    for (name, device) in devices() {
        // Every tensor once as a view with its axes swapped, once copied into that order on the host.
        let copied = |x: Tensor<4>| float_tensor(float_values(x.clone()).unwrap(), x.dims(), &device);
        let same = |what: &str, on: &dyn Fn(Tensor<4>) -> Tensor<4>| {
            let view = float_tensor(image.clone(), [1, 10, 6, 4], &device).swap_dims(1, 3);
            let expected = float_values(on(copied(view.clone()))).unwrap();
            assert_eq!(float_values(on(view)).unwrap(), expected, "{name}, {what}");
        };
        let vector = float_tensor(rows[..10].to_vec(), [10], &device);
        let weight = float_tensor(rows.clone(), [10, 12], &device).swap_dims(0, 1);
        let packed = PackedWeight::from_rows(weight);
        same("conv2d", &|x| conv2d(x, &packed, 1, 0, Activation::None).unwrap());
        same("layer_norm", &|x| layer_norm(x.clone(), &vector, &vector, EPSILON, Fusion::Add(x)).unwrap());
        same("group_norm", &|x| group_norm(x, &vector, &vector, 2, EPSILON, Epilogue::Relu).unwrap());
        same("focal_modulation", &|x| {
            let gates = x.clone().slice([0..1, 0..4, 0..6, 3..5]);
            let kernels = float_tensor(rows[..90].to_vec(), [10, 9], &device).swap_dims(0, 1);
            focal_modulation(x, gates, kernels, levels(1, 3, true)).unwrap()
        });
        same("attention", &|x| {
            let x = x.squeeze_dim::<3>(0);
            let blocked = x.clone().slice([0..4, 0..6, 0..6]).greater_elem(0.0).int().swap_dims(1, 2);
            attention(x.clone(), x.clone(), x, 2, Mask::Blocked(blocked)).unwrap().unsqueeze()
        });
        same("bicubic_antialias", &|x| bicubic_antialias(x.squeeze_dim::<3>(0), [3, 14]).unwrap().unsqueeze());
    }
}

#[test]
fn the_second_largest_tensors_are_checked_too() {
    let limits = Limits { max_binding_bytes: 1000, max_workgroups: 65_535 };
    for (name, device) in devices() {
        let zeros = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &device);
        let refused = |what: &str, out: Result<(), OpError>| {
            let error = out.expect_err(what).to_string();
            assert!(error.starts_with(&format!("{what} wants 1")), "{name}: {error}");
        };
        with_limits(limits, || {
            // A narrow head: the mask is larger than the queries and the keys.
            let blocked = Mask::Blocked(int_tensor(vec![0; 400], [1, 20, 20], &device));
            let out = attention(zeros([1, 20, 2]), zeros([1, 20, 2]), zeros([1, 20, 2]), 1, blocked);
            refused("attention: blocked", out.map(|_| ()));
            // More gates than channels.
            let (context, gates) = (Tensor::zeros([1, 5, 11, 2], &device), Tensor::zeros([1, 5, 11, 5], &device));
            let points = Levels { num_levels: 4, window: 1, growth: 0, scaled: true };
            let out = focal_modulation(context, gates, Tensor::zeros([4, 2], &device), points);
            refused("focal_modulation: gates", out.map(|_| ()));
        });
    }
}

#[test]
fn on_a_device_with_gradients_the_values_are_the_same() {
    for (name, device) in devices() {
        let tracked = device.clone().autodiff();
        let run = |device: &Device| {
            let x = float_tensor(Random(81).floats(2 * 4 * 6 * 8), [2, 4, 6, 8], device);
            let vector = float_tensor(Random(82).floats(8), [8], device);
            let weight = float_tensor(Random(83).floats(72), [9, 8], device);
            let packed = PackedWeight::from_rows(weight.clone());
            let rows = x.clone().reshape([2, 24, 8]);
            let gates = x.clone().slice([0..2, 0..4, 0..6, 0..2]);
            let results = [
                conv2d(x.clone(), &packed, 1, 0, Activation::None).unwrap().reshape([-1]),
                layer_norm(rows.clone(), &vector, &vector, EPSILON, Fusion::Nothing).unwrap().reshape([-1]),
                group_norm(x.clone(), &vector, &vector, 2, EPSILON, Epilogue::Nothing).unwrap().reshape([-1]),
                focal_modulation(x.clone(), gates, weight, levels(1, 3, true)).unwrap().reshape([-1]),
                attention(rows.clone(), rows.clone(), rows.clone(), 2, Mask::Causal).unwrap().reshape([-1]),
                bicubic_antialias(rows, [7, 3]).unwrap().reshape([-1]),
            ];
            // The last one has no gradient and comes out plain.
            let tracks = results.clone().map(|result: Tensor<1>| result.device().is_autodiff());
            assert_eq!(tracks, [0, 1, 2, 3, 4, 5].map(|i| device.is_autodiff() && i < 5), "{name}");
            results.map(|result| float_values(result).unwrap())
        };
        assert_eq!(run(&tracked), run(&device), "{name}");
    }
}

#[test]
fn what_does_not_fit_a_buffer_is_named() {
    let limits = Limits { max_binding_bytes: 1000, max_workgroups: 65_535 };
    for (name, device) in devices() {
        let zeros4 = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
        let zeros3 = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &device);
        let vector = |len: usize| Tensor::<1>::zeros([len], &device);
        let refused = |expected: &str, bytes: usize, on: &dyn Fn() -> OpError| {
            let error = with_limits(limits, on);
            assert!(matches!(error, OpError::TooLarge(_)), "{name}: {error}");
            assert_eq!(
                error.to_string(),
                format!(
                    "{expected} wants {bytes} bytes in one buffer, the device allows 1000: split the scene, or use \
                     --device cpu"
                ),
                "{name}"
            );
        };
        let packed = |num_out, num_in| {
            let weight = vec![0.0; num_out * num_in];
            PackedWeight::new(&weight, None, [num_out, num_in, 1], Precision::F32, &device)
        };
        let (narrowing, widening) = (packed(2, 30).unwrap(), packed(70, 2).unwrap());
        let convolve = |shape, weight| conv2d(zeros4(shape), weight, 1, 0, Activation::None).unwrap_err();
        refused("conv2d: x", 1080, &|| convolve([1, 3, 3, 30], &narrowing));
        refused("conv2d: out", 1120, &|| convolve([1, 1, 4, 2], &widening));
        refused("layer_norm: x", 1200, &|| {
            layer_norm(zeros3([2, 15, 10]), &vector(10), &vector(10), EPSILON, Fusion::Nothing).unwrap_err()
        });
        refused("group_norm: x", 1200, &|| {
            group_norm(zeros4([2, 3, 5, 10]), &vector(10), &vector(10), 5, EPSILON, Epilogue::Nothing).unwrap_err()
        });
        refused("focal_modulation: context", 1200, &|| {
            let (gates, kernels) = (zeros4([2, 3, 5, 2]), Tensor::zeros([9, 10], &device));
            focal_modulation(zeros4([2, 3, 5, 10]), gates, kernels, levels(1, 3, true)).unwrap_err()
        });
        refused("attention: q", 1200, &|| {
            attention(zeros3([2, 15, 10]), zeros3([2, 3, 10]), zeros3([2, 3, 10]), 1, Mask::None).unwrap_err()
        });
        refused("attention: k", 1200, &|| {
            attention(zeros3([2, 3, 10]), zeros3([2, 15, 10]), zeros3([2, 15, 10]), 1, Mask::None).unwrap_err()
        });
        refused("bicubic_antialias: planes", 1200, &|| bicubic_antialias(zeros3([3, 10, 10]), [2, 2]).unwrap_err());
        refused("bicubic_antialias: half way", 1200, &|| bicubic_antialias(zeros3([3, 10, 5]), [2, 10]).unwrap_err());
        refused("bicubic_antialias: out", 1200, &|| bicubic_antialias(zeros3([3, 5, 5]), [20, 5]).unwrap_err());
        // How wide a panel is depends on the device.
        let error = with_limits(limits, || packed(40, 40).unwrap_err().to_string());
        assert!(error.starts_with("conv2d: weight wants ") && error.contains("the device allows 1000"), "{error}");
    }
}
