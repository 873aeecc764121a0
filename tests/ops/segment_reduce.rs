//! Means and maxima by segment, and their gradients.

use std::collections::BTreeMap;

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::ops::segment_reduce::{Reduction, segment_reduce};
use geopurify::ops::voxel_grid::{VoxelOrder, voxel_grid_in};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor, int_values};

use crate::common::{Random, devices, everywhere, rel_l2};
use crate::helpers::voxels::{coords, shuffled_surface};

#[test]
fn cells_are_in_ascending_order_and_hold_their_largest_values() {
    everywhere(|name, device| {
        for n in [1, 255, 257, 1500] {
            let voxels = shuffled_surface(n, 2, 9);
            let cells: Vec<[i32; 4]> = voxels.iter().map(|v| [v[0], v[1] / 2, v[2] / 2, v[3] / 2]).collect();
            let features = Random(10).floats(n * 7);
            let grid = voxel_grid_in(VoxelOrder::Lexicographic, coords(&cells, device)).unwrap();
            let rows = float_tensor(features.clone(), [n, 7], device);
            let largest = segment_reduce(rows, grid.point_from_sorted, grid.offsets, Reduction::Max).unwrap();
            let mut expected: BTreeMap<[i32; 4], [f32; 7]> = BTreeMap::new();
            for (cell, row) in cells.iter().zip(features.as_chunks::<7>().0) {
                let largest = expected.entry(*cell).or_insert(*row);
                (0..7).for_each(|c| largest[c] = largest[c].max(row[c]));
            }
            let found: Vec<[i32; 4]> = int_values(grid.coords).unwrap().as_chunks().0.to_vec();
            assert!(found.iter().eq(expected.keys()), "{name}, {n}");
            assert_eq!(float_values(largest).unwrap(), expected.values().flatten().copied().collect::<Vec<_>>());
            let own = int_values(grid.voxel_from_point).unwrap();
            assert!(cells.iter().zip(own).all(|(cell, row)| found[row as usize] == *cell), "{name}, {n}");
        }
    });
}

#[test]
fn a_maximum_refuses_what_does_not_fit_together() {
    let device = Device::flex();
    let ints = |values: Vec<i32>| {
        let len = values.len();
        int_tensor(values, [len], &device)
    };
    let x = || Tensor::<2>::ones([3, 2], &device);
    let largest = |order, offsets| segment_reduce(x(), ints(order), ints(offsets), Reduction::Max);
    assert!(matches!(largest(vec![0; 2], vec![0, 2]), Err(OpError::Shape { .. })));
    assert!(matches!(largest(vec![0; 3], vec![]), Err(OpError::Value { .. })));
    assert_eq!(largest(vec![0; 3], vec![0]).unwrap().dims(), [0, 2]);
}

#[test]
fn reductions_by_segment_have_the_gradients_of_their_definitions() {
    let mut random = Random(65);
    for (num_points, lengths, channels) in [
        (1, vec![1], 1),
        (6, vec![6], 3),
        (23, vec![4, 0, 1, 7, 0, 11], 5),
        // The last three points are in no segment.
        (63, vec![1; 60], 7),
        (700, (0..40).map(|i| i % 37).collect(), 33),
    ] {
        let mut order: Vec<i32> = (0..num_points as i32).collect();
        (1..num_points).for_each(|i| order.swap(i, random.below(i + 1)));
        let mut offsets = vec![0];
        lengths.iter().for_each(|len: &i32| offsets.push(offsets[offsets.len() - 1] + len));
        let num_segments = lengths.len();
        // Few values, so that many are equal.
        let features: Vec<f32> = (0..num_points * channels).map(|_| random.below(4) as f32 - 2.0).collect();
        let factors = random.floats(num_segments * channels);
        for reduction in [Reduction::Mean, Reduction::Max] {
            let mut expected = vec![0.0f32; num_points * channels];
            for (segment, bounds) in offsets.windows(2).enumerate() {
                let points = &order[bounds[0] as usize..bounds[1] as usize];
                for channel in 0..channels {
                    let factor = factors[segment * channels + channel];
                    let at = |point: i32| point as usize * channels + channel;
                    let most = points.iter().map(|&point| features[at(point)]).fold(f32::MIN, f32::max);
                    match reduction {
                        Reduction::Mean => {
                            points.iter().for_each(|&point| expected[at(point)] = factor / points.len() as f32);
                        }
                        Reduction::Max => {
                            if let Some(&first) = points.iter().find(|&&point| features[at(point)] == most) {
                                expected[at(first)] = factor;
                            }
                        }
                    }
                }
            }
            for (name, device) in devices() {
                let run = || {
                    let on = device.clone().autodiff();
                    let features = float_tensor(features.clone(), [num_points, channels], &on).require_grad();
                    let out = segment_reduce(
                        features.clone(),
                        int_tensor(order.clone(), [num_points], &device),
                        int_tensor(offsets.clone(), [num_segments + 1], &device),
                        reduction,
                    );
                    let factors = float_tensor(factors.clone(), [num_segments, channels], &device);
                    let grads = (out.unwrap() * factors).sum().backward();
                    float_values(features.grad(&grads).unwrap()).unwrap()
                };
                let found = run();
                let off = rel_l2(&found, &expected);
                assert!(off < 1e-7, "{name}, {reduction:?}, {num_points} points of {channels}: off by {off:e}");
                assert_eq!(found, run(), "{name}: two runs differ");
            }
        }
    }
}
