//! Sonata's cases: its parts, each on its own, and the whole.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::models::sonata::{
    Attention, Block, BlockShape, Cloud, GRID_METRES, GridPooling, Level, Observed, RowOrder, Sonata, SonataConfig,
    transform as to_voxels,
};
use geopurify::ops::serialization::{Curve, Serialization, serialization as serialize};
use geopurify::ops::serialized_attention::Padding;
use geopurify::ops::{float_values, int_tensor, int_values};
use geopurify::weights::{StateDict, read_state_dict};

use crate::Line;
use crate::case::Case;
use crate::ops::{batched, compare, config, equal, floats};

fn has(case: &Case, name: &str) -> bool {
    case.tensors.names().iter().any(|n| n == name)
}

fn curves(case: &Case) -> Vec<Curve> {
    let names: Vec<String> = serde_json::from_value(case.config["order"].clone()).unwrap();
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// `in.grid_coord` with batches by `in.offset`.
fn voxels(case: &Case, device: &Device) -> Tensor<2, Int> {
    batched(&case.i32("in.grid_coord").1, &case.i32("in.offset").1, device)
}

/// Elements of an integer tensor of 64 bits.
fn wide(case: &Case, name: &str) -> Vec<i64> {
    case.tensors.tensor(name).unwrap().to_i64().unwrap()
}

fn serialized(case: &Case, found: &Serialization) -> Vec<Line> {
    let (mut codes, mut orders, mut inverses) = (Vec::new(), Vec::new(), Vec::new());
    for sequence in &found.sequences {
        let keys = int_values(sequence.keys.clone()).unwrap();
        codes.extend(keys.chunks_exact(3).map(|key| {
            let position = i64::from(key[0] as u32) | i64::from(key[1] as u32) << 32;
            i64::from(key[2]) << (3 * found.depth) | position
        }));
        orders.extend(int_values(sequence.order.clone()).unwrap());
        inverses.extend(int_values(sequence.inverse.clone()).unwrap());
    }
    vec![
        equal("out.depth", &[found.depth as i32], &case.i32("out.depth").1),
        equal("out.code", &codes, &wide(case, "out.code")),
        equal("out.order", &orders, &case.i32("out.order").1),
        equal("out.inverse", &inverses, &case.i32("out.inverse").1),
    ]
}

pub(crate) fn serialization(case: &Case, device: &Device) -> Vec<Line> {
    serialized(case, &serialize(voxels(case, device), &curves(case)).unwrap())
}

fn sizes(ends: &[i32]) -> Vec<usize> {
    std::iter::once(&0).chain(ends).zip(ends).map(|(first, end)| (end - first) as usize).collect()
}

pub(crate) fn padding(case: &Case, _: &Device) -> Vec<Line> {
    let most: Vec<usize> = serde_json::from_value(case.config["patch_size_max"].clone()).unwrap();
    let of = |(j, &most): (usize, &usize)| {
        let found = Padding::new(&sizes(&case.i32(&format!("in.offset.{j}")).1), most);
        let line = |name: &str, found: &[i32]| {
            let name = format!("out.{name}.{j}");
            equal(&name, found, &case.i32(&name).1)
        };
        [line("patch_size", &[found.patch_size as i32]), line("pad", &found.pad), line("unpad", &found.unpad)]
    };
    most.iter().enumerate().flat_map(of).collect()
}

fn block_shape(case: &Case) -> BlockShape {
    let channels = config(case, "channels");
    BlockShape {
        channels,
        num_heads: config(case, "num_heads"),
        hidden: channels * case.config.get("mlp_ratio").map_or(0, |_| config(case, "mlp_ratio")),
        qkv_bias: case.config["qkv_bias"].as_bool().unwrap(),
    }
}

pub(crate) fn attention(case: &Case, device: &Device) -> Vec<Line> {
    let (index, most) = (config(case, "order_index"), config(case, "patch_size"));
    let found = serialize(voxels(case, device), &curves(case)).unwrap();
    let padding = Padding::new(&found.batch_sizes, most);
    let sequence = &found.sequences[index];
    let (order, inverse) = (int_values(sequence.order.clone()).unwrap(), int_values(sequence.inverse.clone()).unwrap());
    let of_slot: Vec<i32> = padding.pad.iter().map(|&place| order[place as usize]).collect();
    let own_slot: Vec<i32> = inverse.iter().map(|&place| padding.unpad[place as usize]).collect();
    let patches = padding.patches(&sequence.order).unwrap();
    let slots = int_values(patches.clone()).unwrap();
    let own: Vec<i32> = (0..order.len() as i32)
        .map(|voxel| slots.iter().position(|&slot| slot == voxel).map_or(-1, |slot| slot as i32))
        .collect();
    let of_patches: Vec<i32> = slots.iter().map(|&slot| if slot < 0 { -1 - slot } else { slot }).collect();
    let layer = Attention::load(&mut case.generated(), "", block_shape(case), device).unwrap();
    let out = layer.forward(floats(case, "in.feat", device), &patches).unwrap();
    vec![
        equal("out.patch_size", &[padding.patch_size as i32], &case.i32("out.patch_size").1),
        equal("out.pad", &padding.pad, &case.i32("out.pad").1),
        equal("out.unpad", &padding.unpad, &case.i32("out.unpad").1),
        equal("mid.order", &of_slot, &case.i32("mid.order").1),
        equal("mid.order_(patches)", &of_patches, &case.i32("mid.order").1),
        equal("mid.inverse", &own_slot, &case.i32("mid.inverse").1),
        equal("mid.inverse_(patches)", &own, &case.i32("mid.inverse").1),
        compare(case, "out.feat", &float_values(out).unwrap()),
    ]
}

pub(crate) fn block(case: &Case, device: &Device) -> Vec<Line> {
    let index = config(case, "order_index");
    let level = Level::new(voxels(case, device), &curves(case), index + 1, config(case, "patch_size")).unwrap();
    let block = Block::load(&mut case.generated(), "", block_shape(case), device).unwrap();
    let mut lines = Vec::new();
    let mut observe = |name: &str, x: &Tensor<2>| {
        lines.push(compare(case, &format!("mid.{name}"), &float_values(x.clone()).unwrap()));
    };
    let out = block.forward(floats(case, "in.feat", device), &level, index, &mut observe).unwrap();
    assert_eq!(lines.len(), 6, "every part is compared");
    lines.push(compare(case, "out.feat", &float_values(out).unwrap()));
    lines
}

pub(crate) fn gridpool(case: &Case, device: &Device) -> Vec<Line> {
    let widths = [config(case, "in_channels"), config(case, "out_channels")];
    let pooling = GridPooling::load(&mut case.generated(), "", widths, config(case, "stride"), device).unwrap();
    let coords = voxels(case, device);
    let mut lines = Vec::new();
    let mut observe = |name: &str, x: &Tensor<2>| {
        lines.push(compare(case, &format!("mid.{name}"), &float_values(x.clone()).unwrap()));
    };
    let pooled = pooling.forward(floats(case, "in.feat", device), &coords, &mut observe).unwrap();
    let cells = int_values(pooled.coords.clone()).unwrap();
    let axes: Vec<i32> = cells.chunks_exact(4).flat_map(|c| c[1..].to_vec()).collect();
    let batch: Vec<i32> = cells.chunks_exact(4).map(|c| c[0]).collect();
    let found = serialize(pooled.coords, &curves(case)).unwrap();
    let ends: Vec<i32> = found
        .batch_sizes
        .iter()
        .scan(0, |end, &size| {
            *end += size as i32;
            Some(*end)
        })
        .collect();
    lines.extend([
        equal("out.grid_coord", &axes, &case.i32("out.grid_coord").1),
        equal("out.batch", &batch, &case.i32("out.batch").1),
        equal("out.offset", &ends, &case.i32("out.offset").1),
        equal("out.cluster", &int_values(pooled.cell_from_voxel).unwrap(), &case.i32("out.cluster").1),
        compare(case, "out.feat", &float_values(pooled.features).unwrap()),
    ]);
    lines.extend(serialized(case, &found));
    lines
}

/// `in.coord`, `in.color` and `in.normal`.
struct Points([Vec<[f32; 3]>; 3]);

impl Points {
    fn new(case: &Case) -> Self {
        Self(["in.coord", "in.color", "in.normal"].map(|name| case.f32(name).1.as_chunks::<3>().0.to_vec()))
    }

    fn cloud(&self) -> Cloud<'_> {
        let [points, colors, normals] = &self.0;
        Cloud { points, colors, normals }
    }
}

pub(crate) fn transform(case: &Case, _: &Device) -> Vec<Line> {
    let points = Points::new(case);
    let grid = case.config["grid_size"].as_f64().unwrap() as f32;
    let found = to_voxels(points.cloud(), grid, RowOrder::Hashed).unwrap();
    let columns = |columns: std::ops::Range<usize>| -> Vec<f32> {
        found.features.iter().flat_map(|row| row[columns.clone()].to_vec()).collect()
    };
    vec![
        equal("out.grid_coord", found.voxels.as_flattened(), &case.i32("out.grid_coord").1),
        equal("out.inverse", &found.voxel_from_point, &case.i32("out.inverse").1),
        equal("mid.index", &found.point_from_voxel, &case.i32("mid.index").1),
        equal("out.offset", &[found.voxels.len() as i32], &case.i32("out.offset").1),
        compare(case, "out.coord", &columns(0..3)),
        compare(case, "out.color", &columns(3..6)),
        compare(case, "out.feat", &columns(0..9)),
    ]
}

/// The whole, and every stage of it as far as the case holds it: in full, or its first rows with the mean and the
/// standard deviation of each column.
pub(crate) fn sonata(case: &Case, device: &Device) -> Vec<Line> {
    let settings: SonataConfig = serde_json::from_value(case.config.clone()).unwrap();
    let (model, report) = Sonata::load(case.generated(), &settings, device).unwrap();
    assert!(report.is_complete(), "{report}");
    let points = Points::new(case);
    let prepared = to_voxels(points.cloud(), GRID_METRES, RowOrder::Hashed).unwrap();
    let mut lines = vec![
        equal("mid.inverse", &prepared.voxel_from_point, &case.i32("mid.inverse").1),
        compare(case, "mid.feat", prepared.features.as_flattened()),
    ];
    if has(case, "mid.coord") {
        let coord: Vec<f32> = prepared.features.iter().flat_map(|row| row[..3].to_vec()).collect();
        lines.push(compare(case, "mid.coord", &coord));
    }
    let mut observe = |part: Observed<'_>| match part {
        Observed::Embedding(x) => {
            if has(case, "mid.embedding") {
                lines.push(compare(case, "mid.embedding", &float_values(x.clone()).unwrap()));
            } else {
                lines.push(head(case, "mid.embedding.head", x));
            }
        }
        Observed::Stage { index, level, features, cell_from_voxel } => {
            let name = |part: &str| format!("mid.stage{index}.{part}");
            let coords = int_values(level.coords.clone()).unwrap();
            let axes: Vec<i32> = coords.chunks_exact(4).flat_map(|c| c[1..].to_vec()).collect();
            lines.push(equal(&name("grid_coord"), &axes, &case.i32(&name("grid_coord")).1));
            if let Some(cluster) = cell_from_voxel {
                let cluster = int_values(cluster.clone()).unwrap();
                lines.push(equal(&name("cluster"), &cluster, &case.i32(&name("cluster")).1));
            }
            if has(case, &name("depth")) {
                lines.push(equal(&name("depth"), &[level.depth as i32], &case.i32(&name("depth")).1));
                let found = serialize(level.coords.clone(), &curves(case)).unwrap();
                let order = found.sequences.into_iter().flat_map(|s| int_values(s.order).unwrap());
                lines.push(equal(&name("order"), &order.collect::<Vec<_>>(), &case.i32(&name("order")).1));
                lines.push(compare(case, &name("feat"), &float_values(features.clone()).unwrap()));
            } else {
                lines.push(head(case, &name("head"), features));
                lines.extend(moments(case, &name(""), features));
            }
        }
    };
    let cells = model.forward(prepared.features(device), prepared.coords(device), &mut observe).unwrap();
    let [num_cells, num_channels] = cells.features.dims();
    assert_eq!((num_channels, num_cells > 0), (model.num_channels(), true));
    let of_voxels = cells.features.select(0, cells.cell_from_voxel);
    if has(case, "out.point_feat") {
        let inverse = prepared.voxel_from_point.clone();
        let len = inverse.len();
        let of_points = of_voxels.select(0, int_tensor(inverse, [len], device));
        lines.push(compare(case, "out.point_feat", &float_values(of_points).unwrap()));
        // The public way, whose rows lie in another order on the way.
        let encoded = model.encode(points.cloud()).unwrap();
        lines.push(compare(case, "out.point_feat", &float_values(encoded.of_points()).unwrap()));
    } else {
        let (shape, rows) = case.i32("in.rows");
        let chosen = of_voxels.clone().select(0, int_tensor(rows, [shape[0]], device));
        lines.push(compare(case, "out.voxel_feat", &float_values(chosen).unwrap()));
        lines.extend(moments(case, "out.all.", &of_voxels));
    }
    lines
}

/// The first rows, as many as the case has.
fn head(case: &Case, name: &str, x: &Tensor<2>) -> Line {
    let (shape, _) = case.f32(name);
    compare(case, name, &float_values(x.clone().narrow(0, 0, shape[0].min(x.dims()[0]))).unwrap())
}

/// Mean and standard deviation of every column, in f64.
fn moments(case: &Case, prefix: &str, x: &Tensor<2>) -> [Line; 2] {
    let [num_rows, num_columns] = x.dims();
    let values = float_values(x.clone()).unwrap();
    let mean_of = |value: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
        let mut sums = vec![0.0; num_columns];
        for row in values.chunks_exact(num_columns) {
            row.iter().enumerate().for_each(|(c, &x)| sums[c] += value(c, x.into()) / num_rows as f64);
        }
        sums
    };
    let mean = mean_of(&|_, x| x);
    let variance = mean_of(&|c, x| (x - mean[c]).powi(2));
    let narrow = |values: &[f64]| -> Vec<f32> { values.iter().map(|&x| x as f32).collect() };
    let std: Vec<f64> = variance.iter().map(|v| v.sqrt()).collect();
    [
        compare(case, &format!("{prefix}col_mean"), &narrow(&mean)),
        compare(case, &format!("{prefix}col_std"), &narrow(&std)),
    ]
}

/// Files of the reference hold what the generator gives, and give an encoder.
pub(crate) fn checkpoint(case: &Case, device: &Device) -> Vec<Line> {
    let settings: SonataConfig = serde_json::from_value(case.config.clone()).unwrap();
    let generated = case.state_dict();
    let shared: Vec<String> = case_json(case)["files"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(_, path)| path.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(shared.len(), 3);
    let mut lines = Vec::new();
    for file in shared {
        let path = case.dir.join(&file);
        let state = read_state_dict(&path).unwrap();
        let half = file.contains("f16");
        let differing = differing(&state, &generated, half);
        lines.push(Line { tensor: format!("{file}_tensors"), found: differing as f64, allowed: 0.0 });
        let key = "enc.enc2.block1.cpe.0.weight";
        let name = format!("out.{}{key}", if half { "f16." } else { "" });
        lines.push(equal(&name, &state.tensors[key].data, &case.f32(&name).1));
        let (model, report) = Sonata::load(state, &settings, device).unwrap();
        assert!(report.is_complete() && report.ignored == ["embedding.mask_token"], "{report}");
        lines.push(equal("channels", &[model.num_channels()], &[32 + 48 + 64]));
    }
    lines
}

fn case_json(case: &Case) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(case.dir.join("case.json")).unwrap()).unwrap()
}

/// Tensors that are missing or differ in a bit.
fn differing(found: &StateDict, expected: &StateDict, half: bool) -> usize {
    let same = |(key, tensor): (&String, &geopurify::weights::HostTensor)| {
        found.tensors.get(key).is_some_and(|found| {
            let pairs = found.data.iter().zip(&tensor.data);
            let rounded = |x: f32| if half { half::f16::from_f32(x).to_f32() } else { x };
            found.shape == tensor.shape && pairs.into_iter().all(|(a, &b)| a.to_bits() == rounded(b).to_bits())
        })
    };
    expected.tensors.iter().filter(|&tensor| !same(tensor)).count()
        + found.tensors.len().abs_diff(expected.tensors.len())
}
