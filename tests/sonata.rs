//! Sonata's operations against their definitions on every device, the encoder against itself in other forms, and
//! `encode` as a user runs it.

mod common;
#[path = "common/weights.rs"]
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use burn::prelude::*;
use burn::tensor::Device;
use common::{Random, devices, rel_l2};
use geopurify::cloud::PointCloud;
use geopurify::gpu::{Limits, with_limits};
use geopurify::models::sonata::{Cloud, GRID_METRES, RowOrder, Sonata, SonataConfig, SonataError, transform};
use geopurify::ops::kernel_map::kernel_map;
use geopurify::ops::segment_reduce::{Reduction, segment_reduce};
use geopurify::ops::serialization::{Curve, serialization};
use geopurify::ops::serialized_attention::{MAX_PATCH, Padding, serialized_attention};
use geopurify::ops::sparse_conv::{PackedKernel, sparse_conv, sparse_conv_packed, weight_from_spconv};
use geopurify::ops::voxel_grid::{VoxelOrder, voxel_grid_in};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor, int_values};
use geopurify::weights::{SafetensorsFile, read_state_dict};
use weights::{WeightFiles, tiny_sonata, tiny_weights};

/// f32 sums of a few hundred terms of order one, in another order.
const ROUNDING: f64 = 3e-6;
/// The whole encoder in f32, with sums in another order.
const MODEL_ROUNDING: f64 = 2e-5;

/// Every device, plainly and with dispatches folded after three workgroups.
fn everywhere(body: impl Fn(&str, &Device)) {
    for (name, device) in devices() {
        body(&name, &device);
        let folded = Limits { max_binding_bytes: u64::MAX, max_workgroups: 3 };
        with_limits(folded, || body(&format!("{name}, folded"), &device));
    }
}

/// `n` distinct voxels of a rolling surface in `batches` batches, in random order.
fn surface(n: usize, batches: usize, seed: u64) -> Vec<[i32; 4]> {
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

fn coords(voxels: &[[i32; 4]], device: &Device) -> Tensor<2, Int> {
    int_tensor(voxels.as_flattened().to_vec(), [voxels.len(), 4], device)
}

// ---- serialization ----

#[test]
fn a_hilbert_curve_visits_neighbours_one_after_the_other() {
    everywhere(|name, device| {
        for (side, depth) in [(1, 1), (3, 2), (7, 3), (15, 4)] {
            // A cube that ends one short of a power of two has the curve's full depth, but not all of its cells.
            let cube: Vec<[i32; 4]> =
                (0..side * side * side).map(|i| [0, i % side, i / side % side, i / (side * side)]).collect();
            let found = serialization(coords(&cube, device), &Curve::ALL).unwrap();
            assert_eq!((found.depth, found.batch_sizes), (depth, vec![cube.len()]), "{name}");
            for (curve, sequence) in Curve::ALL.into_iter().zip(&found.sequences) {
                let keys = int_values(sequence.keys.clone()).unwrap();
                let order = int_values(sequence.order.clone()).unwrap();
                let positions: Vec<i32> = order.iter().map(|&v| keys[v as usize * 3]).collect();
                assert!(positions.is_sorted_by(|a, b| a < b), "{name}, {curve:?}");
                let is_hilbert = matches!(curve, Curve::Hilbert | Curve::HilbertTransposed);
                for (place, pair) in order.windows(2).enumerate().filter(|_| is_hilbert) {
                    if positions[place + 1] == positions[place] + 1 {
                        let [a, b] = [pair[0], pair[1]].map(|v| cube[v as usize]);
                        let steps: i32 = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum();
                        assert_eq!(steps, 1, "{name}, {curve:?}: {a:?} {b:?}");
                    }
                }
            }
        }
    });
}

/// The bits of three coordinates from the top, the first coordinate's first.
fn interleaved([a, b, c]: [i32; 3]) -> u64 {
    (0..21).rev().fold(0, |code, bit| [a, b, c].iter().fold(code, |code, v| code << 1 | (v >> bit & 1) as u64))
}

#[test]
fn voxels_are_ordered_by_batch_then_along_each_curve() {
    everywhere(|name, device| {
        for n in [1, 2, 255, 256, 257, 1500] {
            let voxels = surface(n, 3, 5);
            let found = serialization(coords(&voxels, device), &Curve::ALL).unwrap();
            let sizes: Vec<usize> = (0..found.batch_sizes.len())
                .map(|batch| voxels.iter().filter(|v| v[0] == batch as i32).count())
                .collect();
            assert_eq!(found.batch_sizes, sizes, "{name}");
            for (curve, sequence) in Curve::ALL.into_iter().zip(&found.sequences) {
                let order = int_values(sequence.order.clone()).unwrap();
                let inverse = int_values(sequence.inverse.clone()).unwrap();
                let keys: Vec<[i32; 3]> = int_values(sequence.keys.clone()).unwrap().as_chunks().0.to_vec();
                assert!((0..n).all(|place| inverse[order[place] as usize] == place as i32), "{name}, {curve:?}");
                let key = |v: i32| {
                    let [low, high, batch] = keys[v as usize];
                    (batch, high as u32, low as u32)
                };
                assert!(order.windows(2).all(|pair| key(pair[0]) < key(pair[1])), "{name}, {curve:?}, {n}");
                let expected = |&[_, x, y, z]: &[i32; 4]| match curve {
                    Curve::Z => Some(interleaved([x, y, z])),
                    Curve::ZTransposed => Some(interleaved([y, x, z])),
                    _ => None,
                };
                for (voxel, key) in voxels.iter().zip(&keys) {
                    let code = u64::from(key[0] as u32) | u64::from(key[1] as u32) << 32;
                    assert!(expected(voxel).is_none_or(|expected| expected == code), "{name}, {curve:?}");
                }
            }
        }
    });
}

#[test]
fn what_has_no_place_on_a_curve_is_refused() {
    for (name, device) in devices() {
        let serialize = |voxels: &[[i32; 4]]| serialization(coords(voxels, &device), &[Curve::Hilbert]);
        for bad in [[0, -1, 0, 0], [0, 0, 65_535, 0], [-1, 0, 0, 0], [65_536, 0, 0, 0]] {
            assert!(matches!(serialize(&[[0; 4], bad]), Err(OpError::Value { .. })), "{name}, {bad:?}");
        }
        assert_eq!(serialize(&[[0, 65_534, 65_534, 65_534]]).unwrap().depth, 16, "{name}");
        assert_eq!(serialize(&[]).unwrap().batch_sizes.len(), 0, "{name}");
        let tall = int_tensor(vec![0; 6], [2, 3], &device);
        assert!(matches!(serialization(tall, &Curve::ALL), Err(OpError::Shape { .. })), "{name}");
    }
    assert!("peano".parse::<Curve>().unwrap_err().to_string().contains("no curve 'peano'"));
}

// ---- patches ----

#[test]
fn the_last_patch_borrows_from_the_one_before() {
    let of = |sizes: &[usize], most| {
        let Padding { patch_size, pad, unpad } = Padding::new(sizes, most);
        (patch_size, pad, unpad)
    };
    assert_eq!(of(&[5], 4), (4, vec![0, 1, 2, 3, 4, 1, 2, 3], vec![0, 1, 2, 3, 4]));
    // The smallest cloud sets the size; the second cloud's rows are 3..10.
    let pad = vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 7, 8];
    assert_eq!(of(&[3, 0, 7], 128), (3, pad, (0..10).collect()));
    assert_eq!(of(&[4, 6], 3), (3, vec![0, 1, 2, 3, 1, 2, 4, 5, 6, 7, 8, 9], vec![0, 1, 2, 3, 6, 7, 8, 9, 10, 11]));
    assert_eq!(of(&[2], 128), (2, vec![0, 1], vec![0, 1]));
    assert_eq!(of(&[], 128), (1, vec![], vec![]));
}

/// Queries, keys and values with the patches they are in.
struct PatchCase {
    qkv: Vec<f32>,
    num_voxels: usize,
    order: Vec<i32>,
    padding: Padding,
    num_heads: usize,
    head_dim: usize,
}

impl PatchCase {
    fn new(sizes: &[usize], max_patch: usize, [num_heads, head_dim]: [usize; 2]) -> Self {
        let mut random = Random(sizes.len() as u64 + 7);
        let num_voxels = sizes.iter().sum();
        let mut order: Vec<i32> = (0..num_voxels as i32).collect();
        let mut first = 0;
        for size in sizes {
            for i in (1..*size).rev() {
                order.swap(first + i, first + random.below(i + 1));
            }
            first += size;
        }
        let qkv = (0..num_voxels * 3 * num_heads * head_dim).map(|_| 2.0 * random.signed()).collect();
        Self { qkv, num_voxels, order, padding: Padding::new(sizes, max_patch), num_heads, head_dim }
    }

    fn definition(&self) -> Vec<f32> {
        let (dim, patch) = (self.num_heads * self.head_dim, self.padding.patch_size);
        let mut out = vec![0.0; self.num_voxels * dim];
        for (place, &slot) in self.padding.unpad.iter().enumerate() {
            let voxel = self.order[place] as usize;
            let first = slot as usize / patch * patch;
            let keys: Vec<usize> = self.padding.pad[first..first + patch]
                .iter()
                .map(|&place| self.order[place as usize] as usize)
                .collect();
            for head in 0..self.num_heads {
                let at = |voxel: usize, part: usize, d: usize| {
                    f64::from(self.qkv[voxel * 3 * dim + part * dim + head * self.head_dim + d])
                };
                let score = |&key: &usize| {
                    (0..self.head_dim).map(|d| at(voxel, 0, d) * at(key, 1, d)).sum::<f64>()
                        / (self.head_dim as f64).sqrt()
                };
                let weights: Vec<f64> = keys.iter().map(|key| score(key).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..self.head_dim {
                    let mixed: f64 = keys.iter().zip(&weights).map(|(&key, w)| w / total * at(key, 2, d)).sum();
                    out[voxel * dim + head * self.head_dim + d] = mixed as f32;
                }
            }
        }
        out
    }

    fn run(&self, device: &Device) -> Vec<f32> {
        let dim = self.num_heads * self.head_dim;
        let qkv = float_tensor(self.qkv.clone(), [self.num_voxels, 3 * dim], device);
        let order = int_tensor(self.order.clone(), [self.num_voxels], device);
        let patches = self.padding.patches(&order).unwrap();
        let out = serialized_attention(qkv, patches, self.num_heads).unwrap();
        assert_eq!(out.dims(), [self.num_voxels, dim]);
        float_values(out).unwrap()
    }
}

#[test]
fn attention_within_patches_equals_the_definition() {
    let sizes: [(&[usize], usize); 8] = [
        (&[1], 8),
        (&[5], 4),
        (&[64], 64),
        (&[200], 63),
        (&[200, 131], 65),
        (&[300], 128),
        (&[700], 300),
        (&[19, 90, 40], 64),
    ];
    for (sizes, most) in sizes {
        for heads in [[1, 1], [3, 5], [2, 16], [1, 17], [2, 12], [1, 64]] {
            let case = PatchCase::new(sizes, most, heads);
            let definition = case.definition();
            everywhere(|name, device| {
                let difference = rel_l2(&case.run(device), &definition);
                assert!(difference <= ROUNDING, "{name}, {sizes:?} by {most}, {heads:?}: {difference:e}");
            });
        }
    }
}

#[test]
fn scores_far_apart_do_not_overflow() {
    let mut case = PatchCase::new(&[40], 16, [1, 16]);
    case.qkv.iter_mut().for_each(|x| *x *= 60.0);
    everywhere(|name, device| {
        let found = case.run(device);
        assert!(found.iter().all(|x| x.is_finite() && x.abs() <= 121.0), "{name}");
    });
}

#[test]
fn attention_refuses_what_does_not_fit_together() {
    let device = Device::flex();
    let run = |width: usize, patch: usize, heads| {
        let qkv = Tensor::zeros([4, width], &device);
        let patches = int_tensor(vec![0; patch], [1, patch], &device);
        serialized_attention(qkv, patches, heads).unwrap_err().to_string()
    };
    assert!(run(13, 4, 1).contains("qkv is [4, 13]"));
    assert!(run(12, 4, 3).contains("3 heads of 4 channels"));
    assert!(run(3 * 65, 4, 1).contains("at most 64"));
    assert!(run(12, MAX_PATCH + 1, 1).contains("patches of 16385 voxels"));
    let order = int_tensor(vec![0; 3], [3], &device);
    assert!(matches!(Padding::new(&[4], 2).patches(&order), Err(OpError::Shape { .. })));
}

// ---- pooling and convolution ----

#[test]
fn cells_are_in_ascending_order_and_hold_their_largest_values() {
    everywhere(|name, device| {
        for n in [1, 255, 257, 1500] {
            let voxels = surface(n, 2, 9);
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
fn a_packed_kernel_convolves_as_the_plain_one() {
    for (num_in, num_out, edge) in [(5, 7, 3), (16, 24, 3), (48, 48, 3), (4, 9, 1)] {
        let voxels = surface(400, 2, 11);
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

// ---- the encoder ----

fn weight_files() -> &'static WeightFiles {
    static FILES: OnceLock<(tempfile::TempDir, WeightFiles)> = OnceLock::new();
    let (_, files) = FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let files = tiny_weights(folder.path()).unwrap();
        (folder, files)
    });
    files
}

fn model(device: &Device) -> Sonata {
    let state = read_state_dict(&weight_files().sonata).unwrap();
    let (model, report) = Sonata::load(state, &tiny_sonata(), device).unwrap();
    assert!(report.is_complete(), "{report}");
    model
}

/// A floor and two walls, several points to a voxel.
struct Room {
    points: Vec<[f32; 3]>,
    colors: Vec<[f32; 3]>,
    normals: Vec<[f32; 3]>,
}

fn room(n: usize) -> Room {
    let mut random = Random(31);
    let mut unit = || random.signed() / 2.0 + 0.5;
    let (mut points, mut colors, mut normals) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n {
        let (a, b) = (1.2 * unit(), 1.2 * unit());
        points.push([[a, b, 0.0], [a, 0.0, b], [0.0, a, b]][i % 3]);
        normals.push([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]][i % 3]);
        colors.push([(i % 3 * 100) as f32, 255.0 * unit(), 30.0]);
    }
    Room { points, colors, normals }
}

impl Room {
    fn cloud(&self) -> Cloud<'_> {
        Cloud { points: &self.points, colors: &self.colors, normals: &self.normals }
    }
}

#[test]
fn devices_and_runs_agree() {
    let room = room(9000);
    let host = model(&Device::flex()).encode(room.cloud()).unwrap();
    let expected = float_values(host.features.clone()).unwrap();
    assert_eq!(host.features.dims(), [host.cells.len(), 32 + 48 + 64]);
    assert_eq!(host.cell_from_point.len(), 9000);
    assert!(host.cells.len() > 300 && host.cells.is_sorted());
    for (name, device) in devices() {
        let model = model(&device);
        let [first, second] = [(); 2].map(|()| model.encode(room.cloud()).unwrap());
        assert_eq!((&first.cells, &first.cell_from_point), (&host.cells, &host.cell_from_point), "{name}");
        let [a, b] = [&first, &second].map(|encoded| float_values(encoded.features.clone()).unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}: two runs differ");
        let difference = rel_l2(&a, &expected);
        assert!(difference <= MODEL_ROUNDING, "{name}: {difference:e}");
    }
}

#[test]
fn a_point_has_its_cells_features() {
    let room = room(500);
    let encoded = model(&Device::flex()).encode(room.cloud()).unwrap();
    let rows = float_values(encoded.features.clone()).unwrap();
    let points = float_values(encoded.of_points()).unwrap();
    let channels = encoded.features.dims()[1];
    for (point, &cell) in encoded.cell_from_point.iter().enumerate() {
        let row = cell as usize * channels..(cell as usize + 1) * channels;
        assert_eq!(points[point * channels..][..channels], rows[row]);
        // The room begins at 0 in every axis but is centred in x and y, so cells count from its corner.
        let cell_edge = 4.0 * GRID_METRES;
        let z = (room.points[point][2] / cell_edge).floor() as i32;
        assert!((encoded.cells[cell as usize][2] - z).abs() <= 1);
    }
}

#[test]
fn neither_the_rows_order_nor_another_cloud_changes_the_features() {
    let room = room(6000);
    let device = Device::flex();
    let model = model(&device);
    let prepared = transform(room.cloud(), GRID_METRES, RowOrder::Hashed).unwrap();
    let forward = |rows: &[[i32; 4]], features: Vec<f32>| {
        let x = float_tensor(features, [rows.len(), 9], &device);
        let cells = model.forward(x, coords(rows, &device), &mut |_| ()).unwrap();
        let of_voxel = cells.features.select(0, cells.cell_from_voxel);
        (float_values(of_voxel).unwrap(), int_values(cells.coords).unwrap())
    };
    let voxels: Vec<[i32; 4]> = prepared.voxels.iter().map(|&[x, y, z]| [0, x, y, z]).collect();
    let features = prepared.features.as_flattened().to_vec();
    let (alone, cells) = forward(&voxels, features.clone());
    let reversed: Vec<[i32; 4]> = voxels.iter().rev().copied().collect();
    let (turned, same_cells) = forward(&reversed, prepared.features.iter().rev().flatten().copied().collect());
    let back: Vec<f32> = turned.chunks_exact(144).rev().flatten().copied().collect();
    assert_eq!(cells, same_cells);
    assert!(rel_l2(&back, &alone) <= MODEL_ROUNDING, "{:e}", rel_l2(&back, &alone));
    // Two copies as two clouds of one batch.
    let both: Vec<[i32; 4]> = [0, 1].iter().flat_map(|&b| voxels.iter().map(move |v| [b, v[1], v[2], v[3]])).collect();
    let (pair, _) = forward(&both, [features.clone(), features].concat());
    let (first, second) = pair.split_at(alone.len());
    assert!(rel_l2(first, &alone) <= MODEL_ROUNDING && rel_l2(second, &alone) <= MODEL_ROUNDING);
}

#[test]
fn the_first_point_of_a_voxel_stands_for_it() {
    let points = [[5.0, 5.0, 1.0], [5.009, 5.001, 1.001], [5.1, 5.3, 1.05], [5.0, 5.0, 1.03]];
    let colors = [[0.0, 51.0, 255.0], [9.0; 3], [102.0; 3], [255.0; 3]];
    let normals = [[0.0, 0.0, 1.0]; 4];
    for order in [RowOrder::Morton, RowOrder::Hashed] {
        let cloud = Cloud { points: &points, colors: &colors, normals: &normals };
        let found = transform(cloud, GRID_METRES, order).unwrap();
        assert_eq!((found.voxels.len(), found.point_from_voxel.len()), (3, 3));
        let of = |point: usize| found.voxel_from_point[point] as usize;
        assert_eq!(of(0), of(1));
        assert_eq!(found.point_from_voxel[of(1)], 0);
        assert_eq!(found.voxels[of(0)], [0; 3]);
        assert_eq!(found.voxels[of(2)], [5, 15, 2]);
        let row = found.features[of(0)];
        assert!((row[0] + 0.05).abs() < 1e-6 && (row[1] + 0.15).abs() < 1e-6 && row[2] == 0.0, "{row:?}");
        assert_eq!(row[3..], [0.0, 0.2, 1.0, 0.0, 0.0, 1.0]);
    }
}

#[test]
fn one_point_and_a_few_are_encoded() {
    let model = model(&Device::flex());
    for n in [1, 2, 7] {
        let room = room(n);
        let encoded = model.encode(room.cloud()).unwrap();
        assert!(float_values(encoded.features).unwrap().iter().all(|x| x.is_finite()));
        assert_eq!(encoded.cell_from_point.len(), n);
    }
}

#[test]
fn clouds_that_cannot_be_encoded_are_refused() {
    let model = model(&Device::flex());
    let refuse = |room: &Room| model.encode(room.cloud()).unwrap_err();
    assert!(matches!(refuse(&room(0)), SonataError::Empty));
    let mut far = room(10);
    far.points[3][1] = 2000.0;
    let error = refuse(&far);
    assert!(matches!(error, SonataError::TooFar { axis: 1, .. }), "{error}");
    assert!(error.to_string().contains("along axis 1"), "{error}");
    far.points[3][1] = f32::MAX;
    assert!(matches!(refuse(&far), SonataError::TooFar { axis: 1, .. }));
    far.points[3][1] = f32::NAN;
    assert!(matches!(refuse(&far), SonataError::NotFinite { index: 3, .. }));
    let mut short = room(10);
    short.normals.pop();
    assert_eq!(refuse(&short).to_string(), "9 normals for 10 points; expected one per point");
    for (name, device) in devices() {
        let device_model = self::model(&device);
        let small = Limits { max_binding_bytes: 20_000, max_workgroups: 65_535 };
        let error = with_limits(small, || device_model.encode(room(3000).cloud()).unwrap_err());
        assert!(matches!(error, SonataError::Op(OpError::TooLarge(_))), "{name}: {error}");
    }
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let load = |config: &SonataConfig| {
        let state = read_state_dict(&weight_files().sonata).unwrap();
        Sonata::load(state, config, &Device::flex()).unwrap_err().to_string()
    };
    let rpe = SonataConfig { enable_rpe: true, ..tiny_sonata() };
    assert!(load(&rpe).contains("enable_rpe is true, expected false"));
    let deeper = SonataConfig { enc_depths: vec![1, 2, 1, 1, 1], ..tiny_sonata() };
    assert!(load(&deeper).contains("enc.enc1.block1"));
    let shallow = SonataConfig { enc_depths: vec![1; 3], ..tiny_sonata() };
    assert!(!load(&shallow).is_empty());
}

#[test]
fn encoders_of_few_stages_run() {
    let device = Device::flex();
    for stages in 1..=4 {
        let published = tiny_sonata();
        let config = SonataConfig {
            enc_depths: vec![1; stages],
            enc_channels: published.enc_channels[..stages].to_vec(),
            enc_num_head: published.enc_num_head[..stages].to_vec(),
            enc_patch_size: vec![64; stages],
            stride: vec![2; stages - 1],
            ..published
        };
        let mut state = read_state_dict(&weight_files().sonata).unwrap();
        state.tensors.retain(|key, _| (stages..5).all(|stage| !key.starts_with(&format!("enc.enc{stage}."))));
        let (model, _) = Sonata::load(state, &config, &device).unwrap();
        let encoded = model.encode(room(300).cloud()).unwrap();
        let first = stages.saturating_sub(3);
        let expected: usize = config.enc_channels[first..].iter().sum();
        assert_eq!((encoded.features.dims()[1], model.num_channels()), (expected, expected));
    }
}

// ---- the command ----

fn encode(arguments: &[&str]) -> Output {
    let files = weight_files();
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command.arg("encode").args(arguments).env("GEOPURIFY_DEVICE", "cpu");
    command.arg("--weights").arg(&files.sonata).output().unwrap()
}

fn with_config<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let config = weight_files().sonata_config.to_str().unwrap();
    [arguments, &["--config", config]].concat()
}

fn write_room(path: &Path, n: usize) {
    let room = room(n);
    let cloud = PointCloud {
        positions: room.points.iter().map(|p| p.map(f64::from)).collect(),
        colors: Some(room.colors.iter().map(|c| c.map(|v| v as u8)).collect()),
        normals: Some(room.normals),
        ..PointCloud::default()
    };
    cloud.write_ply(path, &[]).unwrap();
}

#[test]
fn a_scan_is_encoded_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (scan, cells, points) = (at("room.ply"), at("cells.safetensors"), at("points.safetensors"));
    let (picture, colored) = (at("pca.png"), at("pca.ply"));
    write_room(Path::new(&scan), 5000);
    let usual = ["--up", "z", "--voxel", "0.02"];
    let drawn = ["--picture", &picture, "--colored", &colored, "--f32"];
    let output = encode(&with_config(&[&[scan.as_str(), "-o", &cells], &drawn[..], &usual].concat()));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(out.contains("stage 4") && out.contains("whole run") && out.contains("cells of 144 channels"), "{out}");

    let file = SafetensorsFile::open(&cells).unwrap();
    let features = file.tensor("features").unwrap();
    let [num_cells, channels] = *features.shape else { panic!("{:?}", features.shape) };
    let rows = features.to_f32().unwrap();
    let cell_from_point = file.tensor("cell_from_point").unwrap().to_i64().unwrap();
    assert_eq!((channels, cell_from_point.len()), (144, 5000));
    assert_eq!(file.tensor("cells").unwrap().shape, [num_cells, 3]);
    assert!(cell_from_point.iter().all(|&cell| (0..num_cells as i64).contains(&cell)));
    // The library says the same.
    let room = room(5000);
    let rounded: Vec<[f32; 3]> = room.colors.iter().map(|c| c.map(|v| f32::from(v as u8))).collect();
    let cloud = PointCloud::read(Path::new(&scan)).unwrap();
    let (_, centered) = cloud.centered();
    let cloud = Cloud { points: &centered, colors: &rounded, normals: &room.normals };
    let expected = float_values(model(&Device::flex()).encode(cloud).unwrap().features).unwrap();
    assert!(rel_l2(&rows, &expected) <= MODEL_ROUNDING, "{:e}", rel_l2(&rows, &expected));

    assert_eq!(PointCloud::read(Path::new(&colored)).unwrap().len(), 5000);
    let png = image::open(&picture).unwrap();
    assert!(png.width() > 1000 && png.height() > 400);

    let output = encode(&with_config(&[&[scan.as_str(), "-o", &points, "--per-point", "--json"], &usual[..]].concat()));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["points"].as_u64(), json["cells"].as_u64()), (Some(5000), Some(num_cells as u64)));
    let file = SafetensorsFile::open(&points).unwrap();
    let features = file.tensor("features").unwrap();
    assert_eq!(features.shape, [5000, 144]);
    let of_points = features.to_f32().unwrap();
    let gathered: Vec<f32> =
        cell_from_point.iter().flat_map(|&cell| rows[cell as usize * 144..][..144].to_vec()).collect();
    assert!(rel_l2(&of_points, &gathered) < 4e-4, "16 bits: {:e}", rel_l2(&of_points, &gathered));
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".partial")));
}

#[test]
fn what_cannot_be_encoded_is_said_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (scan, out) = (at("room.ply"), at("out.safetensors"));
    write_room(Path::new(&scan), 50);
    let fail = |arguments: &[&str]| {
        let output = encode(arguments);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(!err.contains("panicked") && !Path::new(&out).exists(), "{err}");
        err
    };
    assert!(fail(&[&scan, "-o", &out]).contains("--config FILE.json"));
    assert!(fail(&with_config(&[&scan, "-o", "/nowhere/out.safetensors"])).contains("no such folder"));
    assert!(fail(&with_config(&[&scan, "-o", &out, "--voxel", "0"])).contains("--voxel is 0"));
    assert!(fail(&with_config(&[&scan, "-o", &out, "--voxel", "0.00001"])).contains("voxels of"));
    assert!(fail(&with_config(&[&at("none.ply"), "-o", &out])).contains("none.ply"));
    assert!(fail(&with_config(&[&scan, "-o", &scan])).contains("would replace the scan"));
    assert!(fail(&with_config(&[&scan, "-o", &out, "--picture", &out])).contains("replace another result"));
    assert!(fail(&with_config(&[&scan, "-o", &out, "--colored", &at("c.pcd")])).contains("PLY, LAS or LAZ"));
}
