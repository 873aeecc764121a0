//! Every operation on every device against its CPU twin, at the sizes where kernels break: nothing,
//! one, a workgroup minus, exactly and plus one, several workgroups, and past the fold of the dispatch.

mod common;

use burn::prelude::*;
use burn::tensor::Device;
use common::{Random, devices, rel_l2};
use geopurify::gpu::{Limits, shaders, with_limits};
use geopurify::ops::affinity::affinity;
use geopurify::ops::hash_grid::lookup;
use geopurify::ops::kernel_map::kernel_map;
use geopurify::ops::knn::{knn_points, knn_voxels};
use geopurify::ops::normals::{Orientation, normals};
use geopurify::ops::pooling::{AffinityRows, pooling};
use geopurify::ops::segment_reduce::{Reduction, segment_reduce};
use geopurify::ops::sparse_conv::{sparse_conv, weight_from_spconv};
use geopurify::ops::voxel_grid::voxel_grid;
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor, int_values};

/// f32 sums of a few hundred terms of order one, in another order.
const ROUNDING: f64 = 2e-6;

/// Sizes around a workgroup of `wg` threads.
fn sizes(wg: u32) -> Vec<usize> {
    let wg = wg as usize;
    vec![0, 1, wg - 1, wg, wg + 1, 5 * wg + 3]
}

/// Runs `body` on the host, then on every device with the result of the host, plainly and with
/// dispatches folded after three workgroups.
fn against_twin<T>(on: impl Fn(&Device) -> T, compare: impl Fn(&str, &T, &T)) {
    let twin = on(&Device::flex());
    for (name, device) in devices() {
        compare(&name, &on(&device), &twin);
        let folded = Limits { max_binding_bytes: u64::MAX, max_workgroups: 3 };
        compare(&format!("{name}, folded"), &with_limits(folded, || on(&device)), &twin);
    }
}

/// `n` voxels of a rolling surface, several thick in places, with repeats and two batches.
fn surface(n: usize, seed: u64) -> Vec<i32> {
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
fn distinct(n: usize, seed: u64) -> Vec<i32> {
    let coords: Vec<i32> = surface(n, seed).chunks_exact(4).flat_map(|c| [0, c[1], c[2], c[3]]).collect();
    let grid = voxel_grid(int_tensor(coords, [n, 4], &Device::flex())).unwrap();
    int_values(grid.coords).unwrap()
}

fn close(what: &str, found: &[f32], expected: &[f32]) {
    let difference = rel_l2(found, expected);
    assert!(difference <= ROUNDING, "{what}: {difference:e}");
}

#[test]
fn voxel_grid_and_means_equal_the_twin() {
    for n in sizes(shaders::voxel_grid::encode::WG) {
        let coords = surface(n, 1);
        let features = Random(2).floats(n * 7);
        against_twin(
            |device| {
                let grid = voxel_grid(int_tensor(coords.clone(), [n, 4], device)).unwrap();
                let features = float_tensor(features.clone(), [n, 7], device);
                let means =
                    segment_reduce(features, grid.point_from_sorted.clone(), grid.offsets.clone(), Reduction::Mean)
                        .unwrap();
                let ints = [
                    int_values(grid.coords).unwrap(),
                    int_values(grid.voxel_from_point).unwrap(),
                    int_values(grid.point_from_sorted).unwrap(),
                    int_values(grid.offsets).unwrap(),
                ];
                (ints, float_values(means).unwrap())
            },
            |name, found, twin| {
                assert_eq!(found.0, twin.0, "{name}, {n} points");
                // The same additions in the same order: equal but for the division.
                close(&format!("{name}, {n} points"), &found.1, &twin.1);
            },
        );
    }
}

#[test]
fn voxel_grid_orders_by_batch_then_morton_code_and_refuses_what_it_cannot_code() {
    // Morton codes with x in the lowest bit: (1,0,0) → 1, (0,1,0) → 2, (0,0,1) → 4, (2,0,0) → 8.
    let coords = vec![1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0];
    let largest = (1 << 21) - 1;
    for (name, device) in devices() {
        let grid = voxel_grid(int_tensor(coords.clone(), [6, 4], &device)).unwrap();
        let expected = [0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 2, 0, 0, 1, 0, 0, 0];
        assert_eq!(int_values(grid.coords).unwrap(), expected, "{name}");
        assert_eq!(int_values(grid.voxel_from_point).unwrap(), [4, 3, 2, 1, 0, 1], "{name}");
        assert_eq!(int_values(grid.offsets).unwrap(), [0, 1, 3, 4, 5, 6], "{name}");

        let far = int_tensor(vec![0, largest, largest, largest, 0, 0, largest, 0], [2, 4], &device);
        let far = int_values(voxel_grid(far).unwrap().coords).unwrap();
        assert_eq!(far, [0, 0, largest, 0, 0, largest, largest, largest], "{name}");
        for bad in [-1, largest + 1] {
            let coords = int_tensor(vec![0, 0, bad, 0], [1, 4], &device);
            assert!(matches!(voxel_grid(coords), Err(OpError::Value { .. })), "{name}, {bad}");
        }
    }
}

#[test]
fn the_radix_sort_survives_more_tiles_than_one_scan_block_and_more_blocks_than_the_fold() {
    // 70,000 points are 137 tiles of 512, and 16 · 137 counts are two blocks of the prefix sum.
    let n = 70_000;
    let mut random = Random(9);
    let coords: Vec<i32> =
        (0..n).flat_map(|_| [0, random.below(50), random.below(50), random.below(9)].map(|v| v as i32)).collect();
    against_twin(
        |device| {
            let grid = voxel_grid(int_tensor(coords.clone(), [n, 4], device)).unwrap();
            (int_values(grid.coords).unwrap(), int_values(grid.point_from_sorted).unwrap())
        },
        |name, found, twin| assert!(found == twin, "{name}"),
    );
}

#[test]
fn hash_grid_finds_every_voxel_and_nothing_else() {
    for n in sizes(shaders::hash_grid::insert::WG) {
        let coords = surface(n, 3);
        let mut queries = coords.clone();
        queries.extend(coords.iter().map(|c| c - 1));
        queries.extend([i32::MIN, i32::MAX, 0, -1]);
        against_twin(
            |device| {
                let coords = int_tensor(coords.clone(), [n, 4], device);
                let num_queries = queries.len() / 4;
                int_values(lookup(coords, int_tensor(queries.clone(), [num_queries, 4], device)).unwrap()).unwrap()
            },
            |name, found, twin| {
                assert_eq!(found, twin, "{name}, {n} voxels");
                for (query, &voxel) in coords.chunks_exact(4).zip(found) {
                    let first = coords.chunks_exact(4).position(|c| c == query);
                    assert_eq!(Some(voxel as usize), first, "{name}: the lowest index wins");
                }
            },
        );
    }
}

#[test]
fn kernel_map_equals_the_twin_and_inverts_itself() {
    for kernel_size in [1, 3, 5] {
        for n in sizes(shaders::kernel_map::kernel_map::WG / 27 + 1) {
            let coords = distinct(n, 4);
            let num_voxels = coords.len() / 4;
            let volume = kernel_size * kernel_size * kernel_size;
            against_twin(
                |device| {
                    let coords = int_tensor(coords.clone(), [num_voxels, 4], device);
                    int_values(kernel_map(coords, kernel_size).unwrap()).unwrap()
                },
                |name, found, twin| {
                    assert_eq!(found, twin, "{name}, {n} voxels, kernel {kernel_size}");
                    for v in 0..num_voxels {
                        for k in 0..volume {
                            if let Ok(u) = usize::try_from(found[v * volume + k]) {
                                assert_eq!(found[u * volume + volume - 1 - k], v as i32);
                            }
                        }
                    }
                },
            );
        }
    }
    let coords = int_tensor(vec![0; 4], [1, 4], &Device::flex());
    assert!(matches!(kernel_map(coords, 2), Err(OpError::Value { .. })));
}

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
fn normals_of_a_tilted_plane_and_a_sphere() {
    let mut random = Random(12);
    let n = 500;
    let tilted = [0.6_f32, 0.0, 0.8];
    let plane: Vec<f32> = (0..n)
        .flat_map(|_| {
            let (u, v) = (random.signed(), random.signed());
            [0.8 * u + 100.0, v - 40.0, -0.6 * u + 3.0]
        })
        .collect();
    let sphere: Vec<f32> = (0..n)
        .flat_map(|_| {
            let p = [random.signed(), random.signed(), random.signed()];
            let norm = p.iter().map(|v| v * v).sum::<f32>().sqrt();
            p.map(|v| v / norm)
        })
        .collect();
    for (name, device) in devices() {
        let run = |points: &[f32], orientation| {
            let points = float_tensor(points.to_vec(), [points.len() / 3, 3], &device);
            let neighbors = knn_points(points.clone(), 16, false, 0..points.dims()[0]).unwrap().index;
            float_values(normals(points, neighbors, 0, orientation).unwrap()).unwrap()
        };
        for normal in run(&plane, Orientation::Up).chunks_exact(3) {
            let along: f32 = normal.iter().zip(tilted).map(|(a, b)| a * b).sum();
            assert!(along > 1.0 - 1e-4, "{name}: {normal:?}");
        }
        let inward = run(&sphere, Orientation::Viewpoint([0.0; 3]));
        let mut agree = 0.0;
        for (normal, point) in inward.chunks_exact(3).zip(sphere.chunks_exact(3)) {
            let along: f32 = normal.iter().zip(point).map(|(a, b)| a * b).sum();
            assert!(along <= 0.0, "{name}: {normal:?} at {point:?} looks away from the view point");
            agree -= along / n as f32;
        }
        assert!(agree > 0.98, "{name}: {agree}");
        // One point, and coincident ones: the documented answer.
        assert_eq!(run(&[1.0, 2.0, 3.0], Orientation::Up), [0.0, 0.0, 1.0], "{name}");
        assert_eq!(run(&[1.0; 30], Orientation::Up), [0.0, 0.0, 1.0].repeat(10), "{name}");
    }
}

#[test]
fn normals_equal_the_twin() {
    for n in sizes(shaders::normals::normals::WG) {
        let points: Vec<f32> =
            surface(n, 13).chunks_exact(4).flat_map(|c| [c[1] as f32, c[2] as f32, c[3] as f32]).collect();
        let mut random = Random(14);
        let neighbors: Vec<i32> = (0..n * 9).map(|_| random.below(n + 1) as i32 - 1).collect();
        against_twin(
            |device| {
                let points = float_tensor(points.clone(), [n, 3], device);
                let neighbors = int_tensor(neighbors.clone(), [n, 9], device);
                let view = Orientation::Viewpoint([3.0, 5.0, 900.0]);
                // The last rows on their own are the last rows of all.
                let first = n / 3;
                let part = normals(points.clone(), neighbors.clone().slice([first..n, 0..9]), first, view).unwrap();
                let all = float_values(normals(points, neighbors, 0, view).unwrap()).unwrap();
                assert_eq!(float_values(part).unwrap(), all[3 * first..]);
                all
            },
            |name, found, twin| {
                for (i, (a, b)) in found.chunks_exact(3).zip(twin.chunks_exact(3)).enumerate() {
                    let along: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    // Random neighbours make near-ties of the two smallest variances rare, not impossible.
                    assert!(along > 0.999, "{name}, {n} points, point {i}: {a:?} {b:?}");
                }
            },
        );
    }
}

/// Neighbour lists with holes and, in row 0, nothing at all.
fn neighbor_lists(n: usize, k: usize) -> Vec<i32> {
    let mut random = Random(15);
    (0..n * k)
        .map(|i| if i < k { -1 } else { random.below(n + n / 4 + 1) as i32 })
        .map(|v| if v < n as i32 { v } else { -1 })
        .collect()
}

#[test]
fn affinity_and_pooling_equal_the_twin() {
    for k in [1, 7, 96, 128] {
        for n in sizes(shaders::affinity::softmax::WG).into_iter().filter(|n| *n < 200) {
            let mut random = Random(16);
            let (embedding, features) = (random.floats(n * 20), random.floats(n * 13));
            let neighbors = neighbor_lists(n, k);
            against_twin(
                |device| {
                    let neighbors = int_tensor(neighbors.clone(), [n, k], device);
                    let embedding = float_tensor(embedding.clone(), [n, 20], device);
                    let weights = affinity(&[embedding], neighbors.clone(), 0, 3.0).unwrap();
                    let matrix = [AffinityRows { neighbors, weights: weights.clone() }];
                    let features = float_tensor(features.clone(), [n, 13], device);
                    (float_values(weights).unwrap(), float_values(pooling(features, &matrix, 3).unwrap()).unwrap())
                },
                |name, found, twin| {
                    close(&format!("{name}, {n} x {k}, weights"), &found.0, &twin.0);
                    close(&format!("{name}, {n} x {k}, pooled"), &found.1, &twin.1);
                    for (row, neighbors) in found.0.chunks_exact(k).zip(neighbors.chunks_exact(k)) {
                        let expected = if neighbors.iter().any(|v| *v >= 0) { 1.0 } else { 0.0 };
                        let sum: f32 = row.iter().sum();
                        assert!((sum - expected).abs() < 1e-5, "{name}: a row sums to {sum}");
                        assert!(row.iter().zip(neighbors).all(|(w, v)| *v >= 0 || *w == 0.0), "{name}: -1 weighs");
                    }
                    if n > 0 {
                        close("a row without neighbours keeps its value", &found.1[..13], &features[..13]);
                    }
                },
            );
        }
    }
}

#[test]
fn a_matrix_in_parts_pools_as_the_whole() {
    let (n, k) = (150, 9);
    let mut random = Random(17);
    let (embedding, features) = (random.floats(n * 8), random.floats(n * 5));
    let neighbors = neighbor_lists(n, k);
    for (name, device) in devices() {
        let run = |rows_per_part: usize| {
            let embedding = float_tensor(embedding.clone(), [n, 8], &device);
            // The parts also take the embedding in blocks of channels.
            let embedding = match rows_per_part < n {
                true => vec![embedding.clone().slice([0..n, 0..3]), embedding.slice([0..n, 3..8])],
                false => vec![embedding],
            };
            let matrix: Vec<AffinityRows> = (0..n)
                .step_by(rows_per_part)
                .map(|first| {
                    let rows = rows_per_part.min(n - first);
                    let part = neighbors[first * k..(first + rows) * k].to_vec();
                    let neighbors = int_tensor(part, [rows, k], &device);
                    let weights = affinity(&embedding, neighbors.clone(), first, 20.0).unwrap();
                    AffinityRows { neighbors, weights }
                })
                .collect();
            let features = float_tensor(features.clone(), [n, 5], &device);
            float_values(pooling(features, &matrix, 6).unwrap()).unwrap()
        };
        close(&name, &run(41), &run(n));
        let features = float_tensor(features.clone(), [n, 5], &device);
        assert!(matches!(pooling(features.clone(), &[], 1), Err(OpError::Value { .. })), "{name}: rows are missing");
        let none = AffinityRows {
            neighbors: int_tensor(Vec::new(), [n, 0], &device),
            weights: float_tensor(Vec::new(), [n, 0], &device),
        };
        let kept = float_values(pooling(features.clone(), &[none], 4).unwrap()).unwrap();
        assert_eq!(kept, float_values(features).unwrap(), "{name}: rows without neighbours keep their values");
    }
}

#[test]
fn relative_differences_are_norms_over_the_whole_tensor() {
    assert_eq!(rel_l2(&[0.0], &[0.0]), 0.0);
    assert_eq!(rel_l2(&[1.0], &[0.0]), f64::INFINITY);
    assert_eq!(rel_l2(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
    assert_eq!(rel_l2(&[0.0, 0.0], &[3.0, 4.0]), 1.0);
    assert!(rel_l2(&[f32::NAN], &[1.0]).is_nan());
}

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
