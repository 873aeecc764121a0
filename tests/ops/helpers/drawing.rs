//! Scenes to draw, and comparison of what was drawn.

use burn::tensor::{Device, Int, Tensor};
use geopurify::gpu::Limits;
use geopurify::ops::splat::Drawn;
use geopurify::ops::splat::cpu::Seen;
use geopurify::ops::{float_tensor, float_values, int_tensor, int_values};

use crate::common::Random;

pub(crate) fn points(random: &mut Random, count: usize, size: f32) -> Vec<[f32; 3]> {
    (0..count).map(|_| [0; 3].map(|_| random.signed() * size)).collect()
}

pub(crate) fn floats<const C: usize>(rows: &[[f32; C]], device: &Device) -> Tensor<2> {
    float_tensor(rows.as_flattened().to_vec(), [rows.len(), C], device)
}

pub(crate) fn corners(triangles: &[[u32; 3]], device: &Device) -> Tensor<2, Int> {
    int_tensor(triangles.as_flattened().iter().map(|&v| v as i32).collect(), [triangles.len(), 3], device)
}

/// Equal to the bit where arithmetic is the host's; elsewhere products may be fused with sums, and a point
/// near the border of a pixel may fall on its other side.
pub(crate) fn check(name: &str, drawn: Drawn, expected: &Seen) {
    let (depth, index) = (float_values(drawn.depth).unwrap(), int_values(drawn.index).unwrap());
    if name == "cpu" || name.contains("llvmpipe") {
        assert_eq!(index, expected.index, "{name}");
        assert!(depth.iter().zip(&expected.depth).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
        return;
    }
    let same: Vec<usize> = (0..index.len()).filter(|&pixel| index[pixel] == expected.index[pixel]).collect();
    assert!(same.len() * 100 >= index.len() * 99, "{name}: {} of {} pixels agree", same.len(), index.len());
    for pixel in same {
        assert!((depth[pixel] - expected.depth[pixel]).abs() <= 1e-4 * expected.depth[pixel], "{name}");
    }
}

/// Launches of at most this many workgroups per dimension, so that small ones fold.
pub(crate) fn folds() -> [Limits; 2] {
    [65_535, 7].map(|max_workgroups| Limits { max_workgroups, ..Limits::HOST })
}
