//! Cameras, and points before them.

#![allow(dead_code, reason = "not every test binary has all of it")]

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::ops::float_tensor;
use geopurify::ops::pinhole::Pinhole;
use geopurify::ops::project::Camera;

use crate::common::Random;

pub(crate) fn points(n: usize, scale: f32, seed: u64) -> Vec<[f32; 3]> {
    let values: Vec<f32> = Random(seed).floats(3 * n).into_iter().map(|x| x * scale).collect();
    values.as_chunks::<3>().0.to_vec()
}

pub(crate) fn tensor(points: &[[f32; 3]], device: &Device) -> Tensor<2> {
    float_tensor(points.as_flattened().to_vec(), [points.len(), 3], device)
}

/// Looks along x from the origin: image x is world -y, image y is world -z.
pub(crate) const CAMERA: Camera = Camera {
    world_to_camera: [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0]],
    focal: [50.0, 40.0],
    center: [40.0, 30.0],
    width: 80,
    height: 60,
};

/// A camera near the origin, turned by so many radians around y.
pub(crate) fn turned(width: usize, height: usize, turn: f32) -> Pinhole {
    let (sin, cos) = turn.sin_cos();
    let focal = width as f32 * 0.8;
    Pinhole {
        width,
        height,
        focal: [focal, focal * 1.1],
        principal: [width as f32 * 0.5 - 0.37, height as f32 * 0.5 + 0.11],
        axes: [[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]],
        center: [0.1, -0.2, 0.3],
        near: 0.05,
    }
}
