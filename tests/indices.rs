//! Indices from outside: one that is out of range is refused, or stands for what the operation says. Never is anything
//! read or written through it.

mod common;

use burn::prelude::*;
use geopurify::ops::affinity::affinity;
use geopurify::ops::contrastive_pairs::{Negatives, contrastive_pairs};
use geopurify::ops::fuse_views::fuse_views;
use geopurify::ops::gather_index::gather_index;
use geopurify::ops::info_nce::info_nce;
use geopurify::ops::kernel_map::kernel_map;
use geopurify::ops::normals::{Orientation, normals};
use geopurify::ops::pinhole::Pinhole;
use geopurify::ops::pooling::{AffinityRows, pooling};
use geopurify::ops::rasterize::{Mesh, shade};
use geopurify::ops::segment_reduce::{Reduction, segment_reduce};
use geopurify::ops::serialized_attention::serialized_attention;
use geopurify::ops::sparse_conv::{PackedKernel, sparse_conv, sparse_conv_packed};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor, int_values};

use common::{Random, devices};

/// Indices that are none of `count`.
fn strange(count: usize) -> [i32; 6] {
    [count as i32, count as i32 + 7, 1 << 20, i32::MAX, i32::MIN, -2]
}

/// `indices`, every third one replaced: by something out of range, and by what that stands for.
fn with_strangers(indices: &[i32], count: usize, stands_for: i32) -> [Vec<i32>; 2] {
    let strange = strange(count);
    let replaced = |by: &dyn Fn(usize) -> i32| {
        indices.iter().enumerate().map(|(i, &index)| if i % 3 == 1 { by(i) } else { index }).collect()
    };
    [replaced(&|i| strange[i / 3 % strange.len()]), replaced(&|_| stands_for)]
}

fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
    float_values(tensor).unwrap().into_iter().map(f32::to_bits).collect()
}

fn is_refused<T>(result: Result<T, OpError>) -> bool {
    matches!(result, Err(OpError::Value { .. }))
}

#[test]
fn a_neighbor_that_is_no_voxel_is_absent() {
    const V: usize = 40;
    const K: usize = 7;
    const C: usize = 5;
    for (name, device) in devices() {
        let mut random = Random(1);
        let neighbors: Vec<i32> = (0..V * K).map(|_| random.below(V) as i32).collect();
        let tables = with_strangers(&neighbors, V, -1).map(|table| int_tensor(table, [V, K], &device));
        let features = float_tensor(random.floats(V * C), [V, C], &device);
        let points = float_tensor(random.floats(V * 3), [V, 3], &device);
        let weights = float_tensor(random.floats(V * K), [V, K], &device);

        let [found, expected] =
            tables.clone().map(|table| bits(affinity(std::slice::from_ref(&features), table, 0, 20.0).unwrap()));
        assert_eq!(found, expected, "affinity on {name}");
        let [found, expected] =
            tables.clone().map(|table| bits(normals(points.clone(), table, 0, Orientation::Up).unwrap()));
        assert_eq!(found, expected, "normals on {name}");
        let [found, expected] = tables.clone().map(|neighbors| {
            let rows = [AffinityRows { neighbors, weights: weights.clone() }];
            bits(pooling(features.clone(), &rows, 3).unwrap())
        });
        assert_eq!(found, expected, "pooling on {name}");
        let [found, expected] = tables.map(|neighbors| {
            let part = |first: usize, len: usize| AffinityRows {
                neighbors: neighbors.clone().narrow(0, first, len),
                weights: weights.clone().narrow(0, first, len),
            };
            bits(pooling(features.clone(), &[part(0, 13), part(13, V - 13)], 3).unwrap())
        });
        assert_eq!(found, expected, "pooling in parts on {name}");
    }
}

#[test]
fn a_kernel_cell_that_names_no_voxel_is_empty() {
    const SIDE: usize = 4;
    const V: usize = SIDE * SIDE * SIDE;
    let (num_in, num_out) = (6, 10);
    for (name, device) in devices() {
        let coords =
            (0..V as i32).flat_map(|i| [0, i % SIDE as i32, i / SIDE as i32 % SIDE as i32, i / (SIDE * SIDE) as i32]);
        let map = kernel_map(int_tensor(coords.collect(), [V, 4], &device), 3).unwrap();
        let tables = with_strangers(&int_values(map).unwrap(), V, -1);
        let mut random = Random(2);
        let (x, weight) = (random.floats(V * num_in), random.floats(27 * num_in * num_out));
        let packed = PackedKernel::from_spconv(&weight, random.floats(num_out), [num_out, 3, num_in], &device).unwrap();
        let [found, expected] = tables.map(|table| {
            let table = int_tensor(table, [V, 27], &device);
            let tracked = device.clone().autodiff();
            let x = float_tensor(x.clone(), [V, num_in], &tracked).require_grad();
            let weight = float_tensor(weight.clone(), [27, num_in, num_out], &tracked).require_grad();
            let out = sparse_conv(x.clone(), weight.clone(), None, table.clone()).unwrap();
            let grads = out.clone().square().sum().backward();
            let packed = sparse_conv_packed(x.clone().inner(), &packed, table).unwrap();
            let gradients = [bits(x.grad(&grads).unwrap()), bits(weight.grad(&grads).unwrap())];
            (bits(out.inner()), bits(packed), gradients)
        });
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_segment_leaves_out_points_that_do_not_exist() {
    let (n, c) = (9, 4);
    for (name, device) in devices() {
        let mut random = Random(3);
        let values = random.floats(n * c);
        let features = float_tensor(values.clone(), [n, c], &device);
        let order = vec![0, 5, i32::MAX, 2, n as i32, 7, -1, i32::MIN, 3];
        // The third segment ends where there are no more points, the fourth begins there.
        let offsets = vec![0, 3, 5, 1 << 20, i32::MAX];
        let reduce = |reduction| {
            let (order, offsets) = (int_tensor(order.clone(), [n], &device), int_tensor(offsets.clone(), [5], &device));
            float_values(segment_reduce(features.clone(), order, offsets, reduction).unwrap()).unwrap()
        };
        let at = |point: usize, channel: usize| values[point * c + channel];
        let (mean, most) = (reduce(Reduction::Mean), reduce(Reduction::Max));
        for channel in 0..c {
            assert_eq!(mean[channel], (at(0, channel) + at(5, channel)) / 3.0, "{name}");
            assert_eq!(mean[c + channel], at(2, channel) / 2.0, "{name}");
            assert_eq!(most[channel], at(0, channel).max(at(5, channel)), "{name}");
            assert_eq!(most[2 * c + channel], at(7, channel).max(at(3, channel)), "{name}");
            assert_eq!(most[3 * c + channel], f32::MIN, "{name}");
        }
        for reduction in [Reduction::Mean, Reduction::Max] {
            let tracked = float_tensor(values.clone(), [n, c], &device.clone().autodiff()).require_grad();
            let (order, offsets) = (int_tensor(order.clone(), [n], &device), int_tensor(offsets.clone(), [5], &device));
            let grads = segment_reduce(tracked.clone(), order, offsets, reduction).unwrap().sum().backward();
            assert_eq!(tracked.grad(&grads).unwrap().dims(), [n, c], "{name}");
        }
    }
}

#[test]
fn a_slot_that_names_no_voxel_holds_the_last_as_a_key() {
    let (v, heads, dim) = (12, 2, 8);
    for (name, device) in devices() {
        let mut random = Random(4);
        let values = random.floats(v * 3 * dim);
        let slots = |strangers: [i32; 4]| {
            let own = (0..v as i32).chain(strangers);
            int_tensor(own.collect(), [2, 8], &device)
        };
        let last = -(v as i32);
        let tables = [slots([v as i32, i32::MAX, i32::MIN, -1 - v as i32]), slots([last; 4])];
        let [found, expected] = tables.map(|patches| {
            let qkv = float_tensor(values.clone(), [v, 3 * dim], &device.clone().autodiff()).require_grad();
            let out = serialized_attention(qkv.clone(), patches, heads).unwrap();
            let grads = out.clone().square().sum().backward();
            (bits(out.inner()), bits(qkv.grad(&grads).unwrap()))
        });
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn an_index_of_nothing_gives_nothing() {
    for (name, device) in devices() {
        let strange = strange(3);
        let c_from_b = int_tensor(vec![4, 5, 6], [3], &device);
        let found = gather_index(c_from_b, int_tensor(strange.to_vec(), [6], &device)).unwrap();
        assert_eq!(int_values(found).unwrap(), [-1; 6], "{name}");

        let vertices = float_tensor(vec![-1.0, -1.0, 2.0, 1.0, -1.0, 2.0, 0.0, 1.0, 2.0], [3, 3], &device);
        let mesh = Mesh::new(vertices, int_tensor(vec![0, 1, 2], [1, 3], &device)).unwrap();
        let camera = Pinhole {
            width: 6,
            height: 1,
            focal: [1.0; 2],
            principal: [0.0; 2],
            axes: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            center: [0.0; 3],
            near: 0.1,
        };
        let colors = float_tensor(vec![1.0; 6], [3, 2], &device);
        let shaded = shade(&mesh, colors, int_tensor(strange.to_vec(), [1, 6], &device), &camera).unwrap();
        assert_eq!(float_values(shaded).unwrap(), [0.0; 12], "{name}");

        let logits = float_tensor(vec![0.5, 0.25], [1, 2], &device);
        let fused = fuse_views(int_tensor(vec![0, -2, i32::MIN], [1, 3], &device), logits).unwrap();
        assert_eq!(int_values(fused.consensus).unwrap(), [0, -1, -1], "{name}");
    }
}

#[test]
fn operations_that_promise_an_index_refuse_another() {
    for (name, device) in devices() {
        let rows = float_tensor(Random(5).floats(6 * 3), [6, 3], &device);
        let list = |index: i32| int_tensor(vec![index], [1], &device);
        let table = |index: i32| int_tensor(vec![index], [1, 1], &device);
        let negatives = Negatives { num_macro: 1, num_micro: 0 };
        for index in strange(6) {
            assert!(is_refused(info_nce(rows.clone(), list(index), list(0), table(1), 0.1)), "{index} on {name}");
            assert!(is_refused(info_nce(rows.clone(), list(0), list(index), table(1), 0.1)), "{index} on {name}");
            assert!(is_refused(info_nce(rows.clone(), list(0), list(1), table(index), 0.1)), "{index} on {name}");
            let pairs = |anchor, neighbor| contrastive_pairs(rows.clone(), list(anchor), table(neighbor), negatives);
            assert!(is_refused(pairs(index, 1)) && is_refused(pairs(0, index)), "{index} on {name}");
            let triangle = int_tensor(vec![0, 1, index], [1, 3], &device);
            assert!(is_refused(Mesh::new(rows.clone(), triangle)), "{index} on {name}");
            let fused = fuse_views(table(index), rows.clone());
            assert_eq!(is_refused(fused), index >= 6, "{index} on {name}");
        }
    }
}
