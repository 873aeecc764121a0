//! OpenScene's and CUA-O3D's network: its convolutions, each on its own, and the whole.

use std::collections::BTreeMap;

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::eval::metrics::Confusion;
use geopurify::eval::openscene::OpenSceneScores;
use geopurify::models::minkunet::{MinkUnet, MinkUnetConfig};
use geopurify::ops::kernel_map::kernel_map;
use geopurify::ops::sparse_conv::{sparse_conv, sparse_conv_between};
use geopurify::ops::stride_map::{StrideMap, stride_map};
use geopurify::ops::{float_tensor, float_values, int_values};
use geopurify::query::ensemble::{Ensemble, best_words, ensemble, scores};
use geopurify::weights::{StateDict, read_state_dict};

use crate::Line;
use crate::case::Case;
use crate::ops::{compare, config, equal, floats, ints};

/// Rows in the order of (batch, x, y, z), and the coordinates times `stride` in this order.
fn sorted(coords: Tensor<2, Int>, stride: i32) -> (Vec<usize>, Vec<i32>) {
    let coords = int_values(coords).unwrap();
    let coords: Vec<[i32; 4]> =
        coords.chunks_exact(4).map(|c| [c[0], c[1] * stride, c[2] * stride, c[3] * stride]).collect();
    let mut order: Vec<usize> = (0..coords.len()).collect();
    order.sort_by_key(|&row| coords[row]);
    let sorted = order.iter().flat_map(|&row| coords[row]).collect();
    (order, sorted)
}

fn gathered(x: Tensor<2>, order: &[usize]) -> Vec<f32> {
    let [_, width] = x.dims();
    let values = float_values(x).unwrap();
    order.iter().flat_map(|&row| &values[row * width..(row + 1) * width]).copied().collect()
}

fn kernel(state: &mut StateDict, key: &str, shape: [usize; 3], device: &Device) -> Tensor<3> {
    float_tensor(state.take(key, &shape).unwrap().data, shape, device)
}

fn down(x: Tensor<2>, weight: Tensor<3>, map: &StrideMap) -> Tensor<2> {
    sparse_conv_between(x, weight, None, map.fine_from_coarse.clone(), map.coarse_from_fine.clone()).unwrap()
}

pub(crate) fn mink_conv(case: &Case, device: &Device) -> Vec<Line> {
    let size = config(case, "kernel_size");
    let shape = [size.pow(3), config(case, "cin"), config(case, "cout")];
    let weight = kernel(&mut case.state_dict(), "kernel", shape, device);
    let (x, coords) = (floats(case, "in.features", device), ints::<2>(case, "in.coords", device));
    if config(case, "stride") == 1 {
        let out = sparse_conv(x, weight, None, kernel_map(coords, size).unwrap()).unwrap();
        return vec![compare(case, "out.features", &float_values(out).unwrap())];
    }
    let map = stride_map(coords).unwrap();
    let (order, coords) = sorted(map.coords.clone(), 2);
    vec![
        equal("out.coords", &coords, &case.i32("out.coords").1),
        compare(case, "out.features", &gathered(down(x, weight, &map), &order)),
    ]
}

pub(crate) fn mink_conv_up(case: &Case, device: &Device) -> Vec<Line> {
    let [num_in, num_mid] = case.tensors.tensor("mid.features").map(|mid| [config(case, "cin"), mid.shape[1]]).unwrap();
    let mut state = case.state_dict();
    let (x, coords) = (floats::<2>(case, "in.features", device), ints::<2>(case, "in.coords", device));
    let down_kernel = kernel(&mut state, "down.kernel", [8, x.dims()[1], num_mid], device);
    let up_kernel = kernel(&mut state, "up.kernel", [8, num_in, config(case, "cout")], device);
    let map = stride_map(coords).unwrap();
    let mid = down(x, down_kernel, &map);
    let (order, coords) = sorted(map.coords.clone(), 2);
    let out =
        sparse_conv_between(mid.clone(), up_kernel, None, map.coarse_from_fine.clone(), map.fine_from_coarse.clone())
            .unwrap();
    vec![
        equal("mid.coords", &coords, &case.i32("mid.coords").1),
        compare(case, "mid.features", &gathered(mid, &order)),
        compare(case, "out.features", &float_values(out).unwrap()),
    ]
}

/// The case's weights, under the names they have after an import: without the wrapper's prefix.
fn unwrapped(state: StateDict) -> StateDict {
    let bare = |key: String| key.strip_prefix("module.").map_or(key.clone(), str::to_owned);
    StateDict { tensors: state.tensors.into_iter().map(|(key, tensor)| (bare(key), tensor)).collect(), ..state }
}

pub(crate) fn mink_unet(case: &Case, device: &Device) -> Vec<Line> {
    let (model, _) = MinkUnet::load(unwrapped(case.state_dict()), device).unwrap();
    compare_unet(case, &model, device)
}

fn compare_unet(case: &Case, model: &MinkUnet, device: &Device) -> Vec<Line> {
    let has = |name: &str| case.tensors.names().iter().any(|n| n == name);
    let mut lines = Vec::new();
    let mut strides = BTreeMap::from([("stem".to_owned(), 1)]);
    for level in 1..=4 {
        for (name, stride) in [
            (format!("down{level}"), 1 << level),
            (format!("block{level}"), 1 << level),
            (format!("up{}", level + 3), 1 << (4 - level)),
            (format!("block{}", level + 4), 1 << (4 - level)),
        ] {
            strides.insert(name, stride);
        }
    }
    let observe = |name: &str, x: &Tensor<2>, coords: &Tensor<2, Int>| {
        let stride = strides[name];
        let (order, coords) = sorted(coords.clone(), stride);
        let of_level = format!("mid.coords_s{stride}");
        if name.starts_with("down") && has(&of_level) {
            lines.push(equal(&of_level, &coords, &case.i32(&of_level).1));
        }
        let tensor = format!("mid.{name}");
        if has(&tensor) {
            let num_rows = case.tensors.tensor(&tensor).unwrap().shape[0];
            lines.push(compare(case, &tensor, &gathered(x.clone(), &order[..num_rows])));
        }
    };
    let last =
        model.forward_observed(floats(case, "in.features", device), ints(case, "in.coords", device), observe).unwrap();
    for (head, (name, _)) in model.config().heads.iter().enumerate() {
        let out = model.head(last.clone(), head).unwrap();
        let tensor = match name.strip_prefix("final_") {
            Some(name) => format!("out.{name}"),
            None => "out.features".to_owned(),
        };
        if has("in.rows") {
            let rows: Vec<usize> = case.i32("in.rows").1.iter().map(|&row| row as usize).collect();
            lines.push(compare(case, "out.features_at", &gathered(out, &rows)));
        } else {
            lines.push(compare(case, &tensor, &float_values(out).unwrap()));
        }
    }
    lines
}

pub(crate) fn checkpoint(case: &Case, device: &Device) -> Vec<Line> {
    let files: Vec<String> = serde_json::from_value(case.config["files"].clone()).unwrap();
    let mut lines = Vec::new();
    for file in files {
        let mut state = read_state_dict(&case.dir.join(&file)).unwrap();
        let shapes = |key: &str| state.tensors.get(key).map(|tensor| tensor.shape.clone());
        let config = MinkUnetConfig::of(&shapes).unwrap();
        let generated = unwrapped(case.state_dict());
        for (key, shape) in config.keys() {
            let (held, wanted) = (&state.tensors[&key], &generated.tensors[&key]);
            assert_eq!((&held.shape, &held.data), (&shape, &wanted.data), "{file}: {key}");
        }
        let shape = state.tensors["net3d.conv0p1s1.kernel"].shape.clone();
        let first = state.take("net3d.conv0p1s1.kernel", &shape).unwrap();
        lines.push(compare(case, "out.first", &first.data));
        MinkUnet::load(unwrapped(read_state_dict(&case.dir.join(&file)).unwrap()), device).unwrap();
    }
    lines
}

/// Labels where the case is sure of them.
fn sure(case: &Case, labels: &[i32]) -> Vec<i32> {
    let sure = case.i32("in.sure").1;
    labels.iter().zip(sure).filter(|(_, sure)| *sure != 0).map(|(label, _)| *label).collect()
}

pub(crate) fn labels(case: &Case, device: &Device) -> Vec<Line> {
    let words = floats::<2>(case, "in.text", device);
    let [num_words, num_channels] = words.dims();
    let unlabeled = config(case, "unlabeled") as i32;
    let inverse = case.i32("in.inverse").1;
    let of_points = |values: &[f32], width: usize| -> Vec<f32> {
        inverse.iter().flat_map(|&v| &values[v as usize * width..][..width]).copied().collect()
    };
    let (network, fused) = (case.f32("in.features").1, case.f32("in.fused").1);
    let [surer, mean] = [Ensemble::Surer, Ensemble::Mean].map(|rule| ensemble(rule, &network, &fused, &words).unwrap());
    let of_points_surer = of_points(&surer, num_channels);
    let mut lines = vec![compare(case, "out.ensemble_features", &of_points_surer)];
    for (name, features) in [("distill", &network), ("fusion", &fused), ("ensemble", &surer), ("cua_ensemble", &mean)] {
        let scores = of_points(&scores(features, &words).unwrap(), num_words);
        let labels: Vec<i32> =
            best_words(&scores, num_words).into_iter().map(|label| if label < 0 { unlabeled } else { label }).collect();
        let tensor = format!("out.{name}_labels");
        lines.push(compare(case, &format!("out.{name}_scores"), &scores));
        lines.push(equal(&tensor, &sure(case, &labels), &sure(case, &case.i32(&tensor).1)));
    }
    lines
}

pub(crate) fn metrics(case: &Case, _: &Device) -> Vec<Line> {
    let unknown = config(case, "unknown") as i32;
    let mut lines = Vec::new();
    for (name, predictions) in [("plain", "in.predictions"), ("with_unknown", "in.predictions_with_unknown")] {
        let predictions: Vec<i32> =
            case.i32(predictions).1.into_iter().map(|label| if label == unknown { -1 } else { label }).collect();
        let mut confusion = Confusion::new(config(case, "num_classes")).unwrap();
        confusion.add(&case.i32("in.labels").1, &predictions, &[config(case, "ignore") as i32]).unwrap();
        let scores = OpenSceneScores::of(&confusion);
        let iou: Vec<f32> = scores.iou.iter().map(|&iou| iou as f32).collect();
        lines.push(compare(case, &format!("out.{name}_iou"), &iou));
        let means = [scores.mean_iou as f32, scores.mean_accuracy as f32];
        lines.push(compare(case, &format!("out.{name}_mean"), &means));
    }
    lines
}
