//! Voxels and neighbours to run on.

use std::collections::BTreeSet;

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::ops::voxel_grid::voxel_grid;
use geopurify::ops::{int_tensor, int_values};

use crate::common::Random;

/// `n` voxels of a rolling surface, several thick in places, with repeats and two batches.
pub(crate) fn surface(n: usize, seed: u64) -> Vec<i32> {
    let mut random = Random(seed);
    let side = ((n as f64).sqrt() as usize / 2).max(2);
    (0..n)
        .flat_map(|_| {
            let (x, y) = (random.below(side) as i32, random.below(side) as i32);
            let z = 40 + ((x as f32 * 0.3).sin() * 4.0 + (y as f32 * 0.2).cos() * 3.0) as i32 + random.below(2) as i32;
            [random.below(2) as i32, x, y, z]
        })
        .collect()
}

/// Distinct voxels of one batch, `[V, 4]`.
pub(crate) fn distinct(n: usize, seed: u64) -> Vec<i32> {
    let coords: Vec<i32> = surface(n, seed).chunks_exact(4).flat_map(|c| [0, c[1], c[2], c[3]]).collect();
    let grid = voxel_grid(int_tensor(coords, [n, 4], &Device::flex())).unwrap();
    int_values(grid.coords).unwrap()
}

/// `n` distinct voxels of a rolling surface in `batches` batches, in random order.
pub(crate) fn shuffled_surface(n: usize, batches: usize, seed: u64) -> Vec<[i32; 4]> {
    let mut random = Random(seed);
    let side = ((n as f64).sqrt() as usize).max(2);
    let mut voxels = BTreeSet::new();
    while voxels.len() < n {
        let (x, y) = (random.below(side) as i32, random.below(side) as i32);
        let z = 9 + ((x as f32 * 0.3).sin() * 4.0 + (y as f32 * 0.2).cos() * 3.0) as i32 + random.below(3) as i32;
        voxels.insert([random.below(batches) as i32, x, y, z]);
    }
    let mut voxels: Vec<[i32; 4]> = voxels.into_iter().collect();
    for i in (1..voxels.len()).rev() {
        voxels.swap(i, random.below(i + 1));
    }
    voxels
}

pub(crate) fn coords(voxels: &[[i32; 4]], device: &Device) -> Tensor<2, Int> {
    int_tensor(voxels.as_flattened().to_vec(), [voxels.len(), 4], device)
}

/// Distinct voxels of a thin, wavy sheet.
pub(crate) fn sheet(num_voxels: usize) -> Vec<i32> {
    let side = (num_voxels as f64).sqrt().ceil() as i32;
    (0..num_voxels as i32).flat_map(|i| [0, i % side, i / side, (i % side + 3 * (i / side)) / 7 % 5]).collect()
}

/// Neighbour lists with holes and, in row 0, nothing at all.
pub(crate) fn neighbor_lists(n: usize, k: usize) -> Vec<i32> {
    let mut random = Random(15);
    (0..n * k)
        .map(|i| if i < k { -1 } else { random.below(n + n / 4 + 1) as i32 })
        .map(|v| if v < n as i32 { v } else { -1 })
        .collect()
}
