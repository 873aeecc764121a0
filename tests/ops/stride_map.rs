//! The next coarser level of a voxel set, and convolutions between the two.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::shaders;
use geopurify::ops::sparse_conv::sparse_conv_between;
use geopurify::ops::stride_map::{StrideMap, stride_map};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor, int_values};

use crate::common::{Random, devices, rel_l2};
use crate::helpers::twin::{against_twin, close, sizes};
use crate::helpers::voxels::{coords, shuffled_surface};

#[test]
fn both_maps_hold_every_voxel_at_its_place() {
    for n in sizes(shaders::stride_map::children::WG) {
        let voxels = shuffled_surface(n, 2, 11);
        against_twin(
            |device| {
                let map = stride_map(coords(&voxels, device)).unwrap();
                [map.coords, map.fine_from_coarse, map.coarse_from_fine].map(|map| int_values(map).unwrap())
            },
            |name, found, twin| {
                assert_eq!(found, twin, "{name}, {n} voxels");
                let [coarse, children, parents] = found;
                assert_eq!(children.iter().filter(|&&v| v >= 0).count(), n);
                for (v, (cell, row)) in voxels.iter().zip(parents.chunks_exact(8)).enumerate() {
                    let place = (cell[1] % 2 + 2 * (cell[2] % 2) + 4 * (cell[3] % 2)) as usize;
                    let parent = row[place] as usize;
                    assert!(row.iter().enumerate().all(|(k, &w)| (w >= 0) == (k == place)));
                    assert_eq!(coarse[4 * parent..][..4], [cell[0], cell[1] / 2, cell[2] / 2, cell[3] / 2]);
                    assert_eq!(children[8 * parent + place], v as i32);
                }
            },
        );
    }
}

#[test]
fn a_negative_coordinate_is_refused() {
    for (name, device) in devices() {
        let refused = stride_map(int_tensor(vec![0, 3, -1, 5], [1, 4], &device));
        assert!(matches!(refused, Err(OpError::Value { .. })), "{name}");
    }
}

/// Parameters of a convolution down and one up again, flat: `x [V, in]`, `down [8, in, mid]`, its bias `[mid]`, `up [8,
/// mid, out]`.
fn parameters(num_voxels: usize, [num_in, mid, num_out]: [usize; 3]) -> [Vec<f32>; 4] {
    let mut random = Random(3);
    [num_voxels * num_in, 8 * num_in * mid, mid, 8 * mid * num_out].map(|len| random.floats(len))
}

/// Down and up again, from flat parameters.
fn there_and_back(map: &StrideMap, [num_in, mid, num_out]: [usize; 3], parameters: &[Tensor<1>; 4]) -> Tensor<2> {
    let [x, down, bias, up] = parameters.clone();
    let (fine, coarse) = (map.fine_from_coarse.clone(), map.coarse_from_fine.clone());
    let x = x.reshape([coarse.dims()[0], num_in]);
    let (down, up) = (down.reshape([8, num_in, mid]), up.reshape([8, mid, num_out]));
    let low = sparse_conv_between(x, down, Some(bias), fine.clone(), coarse.clone()).unwrap();
    sparse_conv_between(low, up, None, coarse, fine).unwrap()
}

/// The result, and the gradients of all parameters.
fn with_gradients(voxels: &[[i32; 4]], widths: [usize; 3], device: &Device) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let map = stride_map(coords(voxels, &device)).unwrap();
    let upload = |values: Vec<f32>| {
        let len = values.len();
        float_tensor(values, [len], &device).require_grad()
    };
    let parameters = parameters(voxels.len(), widths).map(upload);
    let out = there_and_back(&map, widths, &parameters);
    // Quadratic, so that every gradient depends on every value.
    let grads = (out.clone() * out.clone() / 2.0).sum().backward();
    let gradient = |of: &Tensor<1>| float_values(of.grad(&grads).unwrap()).unwrap();
    std::iter::once(float_values(out.inner()).unwrap()).chain(parameters.iter().map(gradient)).collect()
}

#[test]
fn convolutions_between_levels_and_their_gradients_equal_the_twin() {
    let cols = shaders::sparse_conv::forward::COLS as usize;
    for (n, widths) in [(1, [2, 3, 4]), (90, [3, 5, 2]), (130, [4, cols + 1, 17])] {
        let voxels = shuffled_surface(n, 2, 12);
        against_twin(
            |device| with_gradients(&voxels, widths, device),
            |name, found, twin| {
                for (what, (found, twin)) in ["out", "x", "down", "bias", "up"].iter().zip(found.iter().zip(twin)) {
                    close(&format!("{name}, {n} voxels, {what}"), found, twin);
                }
            },
        );
    }
}

#[test]
fn gradients_between_levels_are_central_differences() {
    /// The loss is of the second degree in each parameter, so only rounding is left.
    const ALLOWED: f64 = 1e-4;
    const STEP: f32 = 0.0625;
    let (widths, voxels) = ([2, 3, 2], shuffled_surface(30, 1, 13));
    let start = parameters(voxels.len(), widths);
    let map = stride_map(coords(&voxels, &Device::flex())).unwrap();
    let loss = |parameters: &[Vec<f32>; 4]| -> f64 {
        let on_host = |values: &Vec<f32>| float_tensor(values.clone(), [values.len()], &Device::flex());
        let out = there_and_back(&map, widths, &parameters.each_ref().map(on_host));
        float_values(out).unwrap().iter().map(|v| f64::from(*v).powi(2) / 2.0).sum()
    };
    let difference = |which: usize, at: usize| {
        let moved = |step: f32| {
            let mut parameters = start.clone();
            parameters[which][at] += step;
            (loss(&parameters), f64::from(parameters[which][at]))
        };
        let (up, down) = (moved(STEP), moved(-STEP));
        ((up.0 - down.0) / (up.1 - down.1)) as f32
    };
    for (name, device) in devices() {
        let found = with_gradients(&voxels, widths, &device);
        for (which, what) in ["x", "down", "bias", "up"].iter().enumerate() {
            let expected: Vec<f32> = (0..start[which].len()).map(|at| difference(which, at)).collect();
            let off = rel_l2(&found[1 + which], &expected);
            assert!(off < ALLOWED, "{name}: the gradient of {what} is off by {off:e}");
        }
    }
}

#[test]
fn shapes_that_disagree_are_refused_by_name() {
    let device = Device::flex();
    let map = stride_map(coords(&[[0, 0, 0, 0], [0, 5, 0, 0]], &device)).unwrap();
    let of = |x: [usize; 2], weight: [usize; 3]| {
        let (x, weight) = (Tensor::zeros(x, &device), Tensor::zeros(weight, &device));
        let (fine, coarse) = (map.fine_from_coarse.clone(), map.coarse_from_fine.clone());
        sparse_conv_between(x, weight, None, fine, coarse).map(|out| out.dims())
    };
    assert_eq!(of([2, 3], [8, 3, 4]).unwrap(), [2, 4]);
    for (x, weight) in [([3, 3], [8, 3, 4]), ([2, 2], [8, 3, 4]), ([2, 3], [27, 3, 4])] {
        assert!(matches!(of(x, weight), Err(OpError::Shape { .. })), "{x:?} {weight:?}");
    }
    assert!(stride_map(int_tensor(vec![0; 6], [2, 3], &device)).is_err());
}
