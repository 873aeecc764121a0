//! How each operation of the golden cases is run and compared.

use std::collections::HashSet;

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::models::student::AffinityPredictor;
use geopurify::ops::affinity::affinity;
use geopurify::ops::knn::{knn_points, knn_voxels};
use geopurify::ops::normalize_rows;
use geopurify::ops::pooling::{AffinityRows, pooling as pool};
use geopurify::ops::segment_reduce::{Reduction, segment_reduce};
use geopurify::ops::sparse_conv::{sparse_conv, weight_from_spconv};
use geopurify::ops::voxel_grid::{quantize, voxel_grid};
use geopurify::ops::{float_tensor, float_values, int_tensor, int_values, kernel_map::kernel_map};
use geopurify::query::predict;
use geopurify::weights::{StateDict, read_state_dict};

use crate::Line;
use crate::case::Case;
use crate::common::rel_l2;

/// Against `out.*` or `mid.*` by the case's own tolerance; `mid.*` without one take the loosest.
pub(crate) fn compare(case: &Case, tensor: &str, actual: &[f32]) -> Line {
    let (_, expected) = case.f32(tensor);
    let stated = case.tolerance.get(tensor).and_then(|t| t.rel_l2);
    let loosest = case.tolerance.values().filter_map(|t| t.rel_l2).fold(0.0, f64::max);
    Line {
        tensor: tensor.to_owned(),
        found: if actual.len() == expected.len() { rel_l2(actual, &expected) } else { f64::INFINITY },
        allowed: stated.unwrap_or(loosest),
    }
}

/// Share of elements that differ; none may.
pub(crate) fn equal<T: PartialEq>(tensor: &str, actual: &[T], expected: &[T]) -> Line {
    let found = if actual.len() == expected.len() {
        actual.iter().zip(expected).filter(|(a, b)| a != b).count() as f64 / expected.len().max(1) as f64
    } else {
        f64::INFINITY
    };
    Line { tensor: tensor.to_owned(), found, allowed: 0.0 }
}

pub(crate) fn config(case: &Case, key: &str) -> usize {
    case.config[key].as_u64().unwrap_or_else(|| panic!("{}: config.{key} is no number", case.name)) as usize
}

pub(crate) fn floats<const D: usize>(case: &Case, name: &str, device: &Device) -> Tensor<D> {
    let (shape, values) = case.f32(name);
    float_tensor(values, shape.try_into().expect("the rank the op wants"), device)
}

pub(crate) fn ints<const D: usize>(case: &Case, name: &str, device: &Device) -> Tensor<D, Int> {
    let (shape, values) = case.i32(name);
    int_tensor(values, shape.try_into().expect("the rank the op wants"), device)
}

/// `[V, 3]` coordinates with the batch index in front, taken from the ends of the batches.
pub(crate) fn batched(coords: &[i32], ends: &[i32], device: &Device) -> Tensor<2, Int> {
    let rows: Vec<i32> = coords
        .chunks_exact(3)
        .enumerate()
        .flat_map(|(i, c)| {
            let batch = ends.iter().filter(|&&end| i as i32 >= end).count() as i32;
            [batch, c[0], c[1], c[2]]
        })
        .collect();
    int_tensor(rows, [coords.len() / 3, 4], device)
}

fn voxels(case: &Case, name: &str, device: &Device) -> Tensor<2, Int> {
    let (_, coords) = case.i32(name);
    // Grids start anywhere; the student only looks at differences.
    batched(&coords, &[], device)
}

pub(crate) fn voxelize(case: &Case, device: &Device) -> Vec<Line> {
    let (_, points) = case.f32("in.points");
    let points: Vec<[f64; 3]> = points.chunks_exact(3).map(|p| [p[0].into(), p[1].into(), p[2].into()]).collect();
    let transform: [[f64; 3]; 3] = serde_json::from_value(case.config["transform"].clone()).unwrap();
    let (cells, _) = quantize(&points, &transform).unwrap();
    let mut lines = vec![equal("out.voxel_of_point", cells.as_flattened(), &case.i32("out.voxel_of_point").1)];

    let grid = voxel_grid(batched(cells.as_flattened(), &[], device)).unwrap();
    let coords = int_values(grid.coords.clone()).unwrap();
    let coords: Vec<[i32; 3]> = coords.chunks_exact(4).map(|c| [c[1], c[2], c[3]]).collect();
    let mut lexicographic: Vec<usize> = (0..coords.len()).collect();
    lexicographic.sort_by_key(|&v| coords[v]);
    let unique: Vec<i32> = lexicographic.iter().flat_map(|&v| coords[v]).collect();
    lines.push(equal("out.unique_sorted", &unique, &case.i32("out.unique_sorted").1));

    let voxel_from_point = int_values(grid.voxel_from_point).unwrap();
    let mut first = vec![i32::MAX; coords.len()];
    for (point, &voxel) in voxel_from_point.iter().enumerate() {
        first[voxel as usize] = first[voxel as usize].min(point as i32);
    }
    let group: Vec<i32> = voxel_from_point.iter().map(|&v| first[v as usize]).collect();
    lines.push(equal("out.group_of_point", &group, &case.i32("out.group_of_point").1));

    let features = floats::<2>(case, "in.features", device);
    let [_, channels] = features.dims();
    let means =
        float_values(segment_reduce(features, grid.point_from_sorted, grid.offsets, Reduction::Mean).unwrap()).unwrap();
    let sorted: Vec<f32> =
        lexicographic.iter().flat_map(|&v| &means[v * channels..(v + 1) * channels]).copied().collect();
    lines.push(compare(case, "out.mean_sorted", &sorted));
    lines
}

pub(crate) fn minkconv(case: &Case, device: &Device) -> Vec<Line> {
    let device = device.clone().autodiff();
    let (kernel_size, num_in, num_out) = (config(case, "kernel_size"), config(case, "cin"), config(case, "cout"));
    let shape = [kernel_size.pow(3), num_in, num_out];
    let mut state = case.weights.as_ref().map(|_| case.state_dict());
    let kernel = match &mut state {
        Some(state) => float_tensor(state.take("kernel", &shape).unwrap().data, shape, &device),
        None => floats(case, "in.kernel", &device),
    }
    .require_grad();
    let bias = case.config["bias"].as_bool().unwrap().then(|| {
        let bias = state.as_mut().unwrap().take("bias", &[1, num_out]).unwrap();
        float_tensor(bias.data, [num_out], &device).require_grad()
    });
    let x = floats::<2>(case, "in.features", &device).require_grad();
    let map = kernel_map(voxels(case, "in.coords", &device), kernel_size).unwrap();
    let out = sparse_conv(x.clone(), kernel.clone(), bias.clone(), map).unwrap();
    let mut lines = vec![compare(case, "out.features", &float_values(out.clone().inner()).unwrap())];
    if case.tensors.names().iter().any(|n| n == "in.grad_output") {
        let grads = (out * floats(case, "in.grad_output", &device)).sum().backward();
        let grad_x = float_values(x.grad(&grads).unwrap()).unwrap();
        lines.push(compare(case, "out.grad_features", &grad_x));
        let grad_kernel = float_values(kernel.grad(&grads).unwrap()).unwrap();
        lines.push(compare(case, "out.grad_kernel", &grad_kernel));
        if let Some(bias) = bias {
            lines.push(compare(case, "out.grad_bias", &float_values(bias.grad(&grads).unwrap()).unwrap()));
        }
    }
    lines
}

pub(crate) fn submconv(case: &Case, device: &Device) -> Vec<Line> {
    let size = config(case, "kernel_size");
    let (num_in, num_out) = (config(case, "in_channels"), config(case, "out_channels"));
    let mut state = case.state_dict();
    let shape = [num_out, size, size, size, num_in];
    let weight = float_tensor(state.take("weight", &shape).unwrap().data, shape, device);
    let bias = float_tensor(state.take("bias", &[num_out]).unwrap().data, [num_out], device);
    let coords = batched(&case.i32("in.grid_coord").1, &case.i32("in.offset").1, device);
    let map = kernel_map(coords, size).unwrap();

    let found = int_values(map.clone()).unwrap();
    let pairs: Vec<i32> = (0..size.pow(3))
        .map(|zyx| {
            // The case counts with z fastest, the map with x fastest.
            let (x, y, z) = (zyx / (size * size), (zyx / size) % size, zyx % size);
            let k = x + size * (y + size * z);
            found.chunks_exact(size.pow(3)).filter(|row| row[k] >= 0).count() as i32
        })
        .collect();
    let x = floats::<2>(case, "in.feat", device);
    let out = sparse_conv(x, weight_from_spconv(weight), Some(bias), map).unwrap();
    vec![
        equal("mid.pairs_per_offset", &pairs, &case.i32("mid.pairs_per_offset").1),
        compare(case, "out.feat", &float_values(out).unwrap()),
    ]
}

pub(crate) fn knn(case: &Case, device: &Device) -> Vec<Line> {
    let k = config(case, "k");
    let n = case.tensors.tensor("in.coords").unwrap().shape[0];
    if case.tensors.tensor("in.coords").unwrap().to_f32().is_err() {
        let found = knn_voxels(ints(case, "in.coords", device), k, false, 0..n).unwrap();
        let sq_dist = int_values(found.sq_dist).unwrap();
        return vec![equal("out.sq_dist_sorted", &sq_dist, &case.i32("out.sq_dist_sorted").1)];
    }
    let found = knn_points(floats(case, "in.coords", device), k, false, 0..n).unwrap();
    let mut index = int_values(found.index).unwrap();
    index.chunks_exact_mut(k).for_each(<[i32]>::sort_unstable);
    let sure = case.i32("in.sure").1;
    let on_sure = |rows: &[i32]| -> Vec<i32> {
        rows.chunks_exact(k).zip(&sure).filter(|(_, s)| **s == 1).flat_map(|(row, _)| row).copied().collect()
    };
    vec![
        equal("out.neighbours_sorted", &on_sure(&index), &on_sure(&case.i32("out.neighbours_sorted").1)),
        compare(case, "out.sq_dist_sorted", &float_values(found.sq_dist).unwrap()),
    ]
}

pub(crate) fn pooling(case: &Case, device: &Device) -> Vec<Line> {
    let neighbors = ints::<2>(case, "in.neighbours", device);
    let sharpness = config(case, "sharpen") as f32;
    let weights = affinity(&[floats(case, "in.embeddings", device)], neighbors.clone(), 0, sharpness).unwrap();
    let mut lines = vec![compare(case, "out.weights", &float_values(weights.clone()).unwrap())];
    let matrix = [AffinityRows { neighbors, weights }];
    for iterations in case.config["applications"].as_array().unwrap() {
        let iterations = iterations.as_u64().unwrap() as usize;
        let pooled = pool(floats(case, "in.features", device), &matrix, iterations).unwrap();
        lines.push(compare(case, &format!("out.pooled{iterations}"), &float_values(pooled).unwrap()));
    }
    lines
}

pub(crate) fn student_eval(case: &Case, device: &Device) -> Vec<Line> {
    let (predictor, _, report) = AffinityPredictor::load(case.state_dict(), device).unwrap();
    assert!(report.is_complete(), "{report}");
    let mut lines = Vec::new();
    let mids: Vec<String> = case.tensors.names().into_iter().filter(|n| n.starts_with("mid.")).collect();
    let observe = |layer: &str, x: &Tensor<2>| {
        // mid.input_layer, mid.res_block0; a suffix first<n> keeps the first rows or channels.
        let layer = layer.replace("res_blocks.", "res_block");
        for mid in mids.iter().filter(|m| m.trim_start_matches("mid.").starts_with(&layer)) {
            let shape = &case.tensors.tensor(mid).unwrap().shape;
            let part = x.clone().slice([0..shape[0], 0..shape[1]]);
            lines.push(compare(case, mid, &float_values(part).unwrap()));
        }
    };
    let features = floats(case, "in.features", device);
    let embedding = predictor.fold().forward_observed(features, voxels(case, "in.coords", device), observe).unwrap();
    let seen: HashSet<String> = lines.iter().map(|l| l.tensor.clone()).collect();
    assert!(mids.iter().all(|m| seen.contains(m)), "{}: {mids:?}, compared {seen:?}", case.name);
    lines.push(compare(case, "out.embedding", &float_values(embedding.clone()).unwrap()));
    lines.push(compare(case, "out.normalized", &float_values(normalize_rows(embedding)).unwrap()));
    lines
}

pub(crate) fn student_checkpoint(case: &Case, device: &Device) -> Vec<Line> {
    let files = case.config["files"].as_array().unwrap();
    files
        .iter()
        .map(|file| {
            let file = file.as_str().unwrap();
            let state: StateDict = read_state_dict(&case.dir.join(file)).unwrap();
            let (predictor, _, _) = AffinityPredictor::load(state, device).unwrap();
            let features = floats(case, "in.features", device);
            let out = predictor.fold().forward(features, voxels(case, "in.coords", device)).unwrap();
            let line = compare(case, "out.embedding", &float_values(out).unwrap());
            Line { tensor: format!("{}:{}", line.tensor, file.rsplit('/').next().unwrap()), ..line }
        })
        .collect()
}

/// From given point features to labels: what purification and the question to the text embeddings make of them.
pub(crate) fn evaluate_scene(case: &Case, device: &Device) -> Vec<Line> {
    let (_, voxel_of_point) = case.i32("in.voxel_of_point");
    let (shape, coords) = case.i32("in.voxel_coords");
    let (num_points, num_voxels) = (voxel_of_point.len(), shape[0]);
    let mut sorted: Vec<i32> = (0..num_points as i32).collect();
    sorted.sort_by_key(|&point| voxel_of_point[point as usize]);
    let first = |voxel: i32| voxel_of_point.iter().filter(|&&v| v < voxel).count() as i32;
    let offsets: Vec<i32> = (0..=num_voxels as i32).map(first).collect();
    let mean = |name: &str| {
        let points = int_tensor(sorted.clone(), [num_points], device);
        {
            let offsets = int_tensor(offsets.clone(), [num_voxels + 1], device);
            segment_reduce(floats(case, name, device), points, offsets, Reduction::Mean).unwrap()
        }
    };
    let (semantic, geometry) = (mean("in.point_features"), mean("in.colour_normal"));
    let (predictor, _, _) = AffinityPredictor::load(case.generated(), device).unwrap();
    let input = Tensor::cat(vec![semantic.clone(), geometry], 1);
    let embedding = normalize_rows(predictor.fold().forward(input, batched(&coords, &[], device)).unwrap());
    let neighbors = ints::<2>(case, "in.neighbours", device);
    let sharpness = config(case, "sharpen") as f32;
    let weights = affinity(std::slice::from_ref(&embedding), neighbors.clone(), 0, sharpness).unwrap();
    let matrix = [AffinityRows { neighbors, weights }];
    let pooled = pool(semantic, &matrix, config(case, "applications")).unwrap();
    let points = pooled.select(0, int_tensor(voxel_of_point, [num_points], device));

    let scale = case.config["logit_scale"].as_f64().unwrap() as f32;
    let text = normalize_rows(floats(case, "in.text_features", device));
    let logits = normalize_rows(points.clone()).matmul(text.transpose()) * scale;
    let logits = float_values(logits).unwrap();
    let num_labels = logits.len() / num_points;
    let features = float_values(points.clone()).unwrap();
    let pred = predict(&features, &floats(case, "in.text_features", device), num_labels, None).unwrap().label;
    let sure = case.i32("in.sure").1;
    let where_sure = |pred: &[i32]| -> Vec<i32> {
        pred.iter().zip(&sure).filter(|(_, sure)| **sure == 1).map(|(pred, _)| *pred).collect()
    };
    vec![
        compare(case, "mid.embedding_normalized", &float_values(embedding).unwrap()),
        compare(case, "out.scene_features", &float_values(points).unwrap()),
        compare(case, "out.logits", &logits),
        equal("out.pred", &where_sure(&pred), &where_sure(&case.i32("out.pred").1)),
    ]
}
