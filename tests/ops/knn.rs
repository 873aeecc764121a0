//! Nearest voxels and points against looking at everything.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::shaders;
use geopurify::ops::knn::{knn_between, knn_points, knn_voxels};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor, int_values};

use crate::camera::{points, tensor};
use crate::common::{Random, devices, everywhere};
use crate::helpers::twin::{against_twin, sizes};
use crate::helpers::voxels::distinct;

/// Squared distances and indices by looking at everything, ordered by (distance, index).
fn knn_by_definition(coords: &[[i32; 3]], k: usize, include_self: bool) -> (Vec<i32>, Vec<i32>) {
    let (mut index, mut sq_dist) = (Vec::new(), Vec::new());
    for (i, a) in coords.iter().enumerate() {
        let mut all: Vec<(i32, i32)> = coords
            .iter()
            .enumerate()
            .filter(|(j, _)| include_self || *j != i)
            .map(|(j, b)| ((0..3).map(|d| (a[d] - b[d]).pow(2)).sum(), j as i32))
            .collect();
        all.sort_unstable();
        all.resize(all.len().max(k), (i32::MAX, -1));
        for &(distance, neighbor) in &all[..k] {
            index.push(neighbor);
            sq_dist.push(distance);
        }
    }
    (index, sq_dist)
}

#[test]
fn nearest_voxels_equal_the_definition() {
    let mut scenes: Vec<(String, Vec<[i32; 3]>)> = sizes(shaders::knn::search::WG)
        .into_iter()
        .map(|n| (format!("{n} on a surface"), distinct(n, 10).chunks_exact(4).map(|c| [c[1], c[2], c[3]]).collect()))
        .collect();
    let line: Vec<[i32; 3]> = (0..150).map(|i| [3 * i, 7, 9]).collect();
    let clusters: Vec<[i32; 3]> =
        (0..120).map(|i| if i % 2 == 0 { [i, i / 7, 3] } else { [20_000 + i, i % 5, 15_000] }).collect();
    let isolated: Vec<[i32; 3]> = (0..60).map(|i| [i * i * 7, 1000 - i, i * 31 % 97]).collect();
    let repeated: Vec<[i32; 3]> = (0..200).map(|i| [i % 3, 0, 0]).collect();
    scenes.extend([
        ("a line".to_owned(), line),
        ("two far clusters".to_owned(), clusters),
        ("isolated voxels".to_owned(), isolated),
        ("repeated voxels".to_owned(), repeated),
    ]);
    for (scene, coords) in &scenes {
        let n = coords.len();
        for (k, include_self) in [(1, false), (96, false), (128, true)] {
            let (index, sq_dist) = knn_by_definition(coords, k, include_self);
            for (name, device) in devices() {
                let flat = int_tensor(coords.as_flattened().to_vec(), [n, 3], &device);
                let found = knn_voxels(flat.clone(), k, include_self, 0..n).unwrap();
                assert!(int_values(found.sq_dist).unwrap() == sq_dist, "{name}, {scene}, k = {k}: distances");
                assert!(int_values(found.index).unwrap() == index, "{name}, {scene}, k = {k}: indices");
                let part = n / 3..n / 2;
                let found = int_values(knn_voxels(flat, k, include_self, part.clone()).unwrap().index).unwrap();
                assert!(found == index[part.start * k..part.end * k], "{name}, {scene}, k = {k}: rows {part:?}");
            }
        }
    }
}

#[test]
fn isolated_voxels_beside_a_crowd_equal_the_twin() {
    // Whoever is alone looks through the whole crowd before 96 neighbours are certain.
    let crowd = (0..30_000).map(|i| [i % 40, i / 40 % 30, i / 1200]);
    let alone = (0..100).map(|i| [300 + 37 * i % 400, 500 + 91 * i % 700, 300 + 17 * i % 500]);
    let coords: Vec<[i32; 3]> = alone.chain(crowd).collect();
    let n = coords.len();
    against_twin(
        |device| {
            let found =
                knn_voxels(int_tensor(coords.as_flattened().to_vec(), [n, 3], device), 96, false, 0..n).unwrap();
            (int_values(found.index).unwrap(), int_values(found.sq_dist).unwrap())
        },
        |name, found, twin| assert!(found == twin, "{name}"),
    );
}

#[test]
fn voxels_too_far_for_a_distance_saturate() {
    let coords = vec![0, 0, 0, 2_000_000, 2_000_000, 0, 46_000, 0, 0, 46_341, 0, 0];
    for (name, device) in devices() {
        let found = knn_voxels(int_tensor(coords.clone(), [4, 3], &device), 3, false, 0..1).unwrap();
        assert_eq!(int_values(found.index).unwrap(), [2, 1, 3], "{name}");
        assert_eq!(int_values(found.sq_dist).unwrap(), [46_000 * 46_000, i32::MAX, i32::MAX], "{name}");
    }
}

#[test]
fn nearest_points_equal_the_twin_and_the_definition() {
    for n in [1, 63, 64, 65, 400] {
        let mut random = Random(11);
        let mut points = random.floats(n * 3);
        // Some coincide, one is far away.
        for i in 0..n / 8 {
            points.copy_within(3 * i..3 * i + 3, 3 * (n - 1 - i));
        }
        if n > 60 {
            points[3 * 30] = 5000.0;
        }
        let k = 20;
        let mut expected = Vec::new();
        for i in 0..n {
            let mut all: Vec<(f32, i32)> = (0..n)
                .filter(|&j| j != i)
                .map(|j| {
                    let d = [0, 1, 2].map(|a| points[3 * i + a] - points[3 * j + a]);
                    (d[0] * d[0] + d[1] * d[1] + d[2] * d[2], j as i32)
                })
                .collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            all.resize(all.len().max(k), (f32::MAX, -1));
            expected.extend_from_slice(&all[..k]);
        }
        for (name, device) in devices() {
            let found = knn_points(float_tensor(points.clone(), [n, 3], &device), k, false, 0..n).unwrap();
            let index = int_values(found.index).unwrap();
            let sq_dist = float_values(found.sq_dist).unwrap();
            for (i, &(distance, neighbor)) in expected.iter().enumerate() {
                // A GPU may contract a product and a sum: equal to rounding, so near-ties may swap.
                let near = (sq_dist[i] - distance).abs() <= 4.0 * f32::EPSILON * distance;
                assert!(near, "{name}, {n} points, entry {i}: {} for {distance}", sq_dist[i]);
                let alone = |other: usize| expected.get(other).is_none_or(|e| (e.0 - distance).abs() > 1e-5 * distance);
                if alone(i.wrapping_sub(1)) && alone(i + 1) {
                    assert_eq!(index[i], neighbor, "{name}, {n} points, entry {i}");
                }
            }
        }
    }
    let nan = float_tensor(vec![0.0, f32::NAN, 0.0], [1, 3], &Device::flex());
    assert!(matches!(knn_points(nan, 1, false, 0..1), Err(OpError::Value { .. })));
}

#[test]
fn nearest_of_other_points_equal_brute_force() {
    // Queries inside and far outside of the points; points on one another; one point.
    for (num_points, num_queries, scale) in [(1, 5, 1.0), (500, 333, 0.4), (500, 70, 25.0), (64, 64, 0.0)] {
        let (among, queries) = (points(num_points, 1.0, 1), points(num_queries, scale, 2));
        let k = 4;
        let expected: Vec<i32> = queries
            .iter()
            .flat_map(|q| {
                let sq_dist = |p: &[f32; 3]| {
                    let d: [f32; 3] = std::array::from_fn(|axis| q[axis] - p[axis]);
                    d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
                };
                let mut order: Vec<(f32, i32)> = among.iter().zip(0..).map(|(p, i)| (sq_dist(p), i)).collect();
                order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                (0..k).map(move |i| order.get(i).map_or(-1, |&(_, index)| index)).collect::<Vec<_>>()
            })
            .collect();
        everywhere(|name, device| {
            let found = knn_between(tensor(&queries, device), tensor(&among, device), k).unwrap();
            assert_eq!(int_values(found.index).unwrap(), expected, "{name}, {num_points} points");
        });
    }
    let none = knn_between(tensor(&points(3, 1.0, 1), &Device::flex()), Tensor::zeros([0, 3], &Device::flex()), 2);
    assert_eq!(int_values(none.unwrap().index).unwrap(), [-1; 6]);
    let wild = [[f32::NAN, 0.0, 0.0]];
    assert!(knn_between(tensor(&wild, &Device::flex()), tensor(&points(3, 1.0, 1), &Device::flex()), 1).is_err());
}
