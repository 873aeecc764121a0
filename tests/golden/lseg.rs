//! LSeg's cases: every stage of the network, the evaluator of a picture, and the lifting.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::lift::{DenseLifter, DenseView, Projection};
use geopurify::models::import::{ImportOptions, import};
use geopurify::models::lseg::{LOGIT_SCALE, LSeg, LSegConfig, Observed, enlarged, normalized};
use geopurify::ops::bilinear::{Corners, bilinear as resample};
use geopurify::ops::conv2d::Precision;
use geopurify::ops::matmul::{Form, matmul};
use geopurify::ops::project::Visibility;
use geopurify::ops::{float_values, int_tensor};
use geopurify::purify::FeatureSource as _;
use geopurify::weights::TensorSource;
use geopurify::weights::registry::Registry;
use geopurify::weights::store::Store;

use crate::Line;
use crate::case::Case;
use crate::clip::prompts;
use crate::ops::{compare, equal, floats};

fn config(case: &Case) -> LSegConfig {
    serde_json::from_value(case.config.clone()).unwrap()
}

/// The model of a case, kept for the other cases of the same weights.
fn model(case: &Case, device: &Device) -> Arc<LSeg> {
    type Kept = Vec<(PathBuf, Device, Arc<LSeg>)>;
    static KEPT: Mutex<Kept> = Mutex::new(Vec::new());
    let path = case.weights.clone().expect("the case has weights").canonicalize().unwrap();
    let mut kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((.., model)) = kept.iter().find(|(of, on, _)| (of, on) == (&path, device)) {
        return model.clone();
    }
    let model = Arc::new(load(&mut case.generated(), case, device));
    // The published model takes 2 GB.
    kept.retain(|(.., model)| model.config.vit.depth < LSegConfig::published().vit.depth);
    kept.push((path, device.clone(), model.clone()));
    model
}

fn load(source: &mut dyn TensorSource, case: &Case, device: &Device) -> LSeg {
    let (model, report) = LSeg::load(source, config(case), Precision::F32, device).unwrap();
    assert!(report.is_complete(), "{report}");
    model
}

/// A `[B, C, h, w]` tensor of the case, channels last.
fn map(case: &Case, name: &str, device: &Device) -> Tensor<4> {
    floats::<4>(case, name, device).permute([0, 2, 3, 1])
}

/// `[B, h, w, C]` as the reference's `[B, C, h, w]`.
fn planes(x: Tensor<4>) -> Vec<f32> {
    float_values(x.permute([0, 3, 1, 2])).unwrap()
}

fn has(case: &Case, name: &str) -> bool {
    case.tensors.names().iter().any(|n| n == name)
}

pub(crate) fn bilinear(case: &Case, device: &Device) -> Vec<Line> {
    let aligned = case.config["align_corners"].as_object().unwrap();
    let lines = aligned.iter().map(|(name, aligned)| {
        let name = format!("out.{name}");
        let shape = case.tensors.tensor(&name).unwrap().shape.to_vec();
        let corners = if aligned.as_bool().unwrap() { Corners::Aligned } else { Corners::Free };
        let out = resample(map(case, "in.x", device), [shape[2], shape[3]], corners).unwrap();
        compare(case, &name, &planes(out))
    });
    lines.collect()
}

/// Tokens, and the step between channels, that a large case keeps.
const FIRST: usize = 8;
const CHANNEL_STEP: usize = 8;

/// Every eighth channel and some pixels of a map, as `config.sampled` of the case says: the finer the level, the fewer.
fn sampled(name: &str, x: Tensor<4>) -> Vec<f32> {
    let level = usize::from(name.as_bytes()[name.len() - 1] - b'1');
    let finest = if name.starts_with("path") { 16 } else { 8 };
    let step = finest >> level;
    let [batch, height, width, channels] = x.dims();
    let values = planes(x);
    let mut out = Vec::new();
    for plane in (0..batch * channels).step_by(CHANNEL_STEP) {
        for row in (0..height).step_by(step) {
            let at = (plane * height + row) * width;
            out.extend(values[at..at + width].iter().step_by(step));
        }
    }
    out
}

pub(crate) fn network(case: &Case, device: &Device) -> Vec<Line> {
    let model = model(case, device);
    let mut lines = Vec::new();
    let mut observe = |name: &str, x: Observed<'_>| {
        let whole = format!("mid.{name}");
        let first = format!("mid.{name}_first{FIRST}");
        let thin = format!("mid.{name}_sampled");
        match x {
            Observed::Tokens(x) if has(case, &whole) => {
                lines.push(compare(case, &whole, &float_values(x.clone()).unwrap()));
            }
            Observed::Tokens(x) if has(case, &first) => {
                let x = x.clone().narrow(1, 0, FIRST);
                lines.push(compare(case, &first, &float_values(x).unwrap()));
            }
            Observed::Map(x) if has(case, &whole) => lines.push(compare(case, &whole, &planes(x.clone()))),
            Observed::Map(x) if has(case, &thin) => lines.push(compare(case, &thin, &sampled(name, x.clone()))),
            _ => {}
        }
    };
    let out = model.forward(map(case, "in.image", device), &mut observe).unwrap();
    if has(case, "out.features") {
        lines.push(compare(case, "out.features", &planes(out)));
    } else {
        lines.push(compare(case, "out.features_at", &at_pixels(case, out)));
    }
    let num_mids = case.tensors.names().iter().filter(|name| name.starts_with("mid.")).count();
    assert_eq!(lines.len(), num_mids + 1, "every mid.* is compared");
    lines
}

/// Rows `[pixels, C]` of `[1, h, w, C]` at the case's (row, column).
fn at_pixels(case: &Case, x: Tensor<4>) -> Vec<f32> {
    let [_, _, width, channels] = x.dims();
    let values = float_values(x).unwrap();
    let (_, pixels) = case.i32("in.pixels");
    let row = |pixel: &[i32; 2]| {
        let at = (pixel[0] as usize * width + pixel[1] as usize) * channels;
        values[at..at + channels].to_vec()
    };
    pixels.as_chunks::<2>().0.iter().flat_map(row).collect()
}

pub(crate) fn logits(case: &Case, device: &Device) -> Vec<Line> {
    let model = model(case, device);
    let labels: Vec<String> = serde_json::from_value(case.config["labels"].clone()).unwrap();
    let mut lines = Vec::new();
    prompts(case, &labels, &mut lines);
    lines.push(Line {
        tensor: "config.logit_scale".to_owned(),
        found: (case.config["logit_scale"].as_f64().unwrap() - f64::from(LOGIT_SCALE)).abs(),
        allowed: 1e-6,
    });
    let features = model.forward(map(case, "in.image", device), &mut |_, _| ()).unwrap();
    let [batch, height, width, channels] = features.dims();
    let text = model.text.embed_unit(&labels).unwrap();
    let pixels = features.reshape([batch * height * width, channels]);
    let logits = matmul(pixels, text, Form::RightTransposed).unwrap() * LOGIT_SCALE;
    let logits = logits.reshape([batch, height, width, labels.len()]);
    lines.push(compare(case, "mid.logits", &planes(logits.clone())));
    let out = resample(logits, [2 * height, 2 * width], Corners::Aligned).unwrap();
    lines.push(compare(case, "out.logits", &planes(out)));
    lines
}

/// The published form of a checkpoint, through the importer and the store.
pub(crate) fn checkpoint(case: &Case, device: &Device) -> Vec<Line> {
    let home = tempfile::tempdir().unwrap();
    let store = Store::at(home.path().join("home"));
    let config_file = home.path().join("lseg.json");
    std::fs::write(&config_file, serde_json::to_string(&config(case)).unwrap()).unwrap();
    let options = ImportOptions { config: Some(config_file), ..ImportOptions::default() };
    let file = case.dir.join(case.config["checkpoint"].as_str().unwrap());
    let imported = import(&store, &Registry::load(None).unwrap(), "lseg", &file, &options, &mut |_, _| {}).unwrap();
    assert!(imported.report.is_complete(), "{}", imported.report);
    assert_eq!(imported.report.cast.len(), 9, "matrices of CLIP's text side in 16 bits: {}", imported.report);
    let mut stored = store.open("lseg", "lseg").unwrap().tensors;
    let generated = case.state_dict();
    let cast: Vec<&str> = imported.report.cast.iter().map(|cast| cast.key.as_str()).collect();
    for key in &imported.report.applied {
        let expected = &generated.tensors[key];
        let found = stored.take(key, &expected.shape).unwrap();
        let half = cast.contains(&key.as_str());
        let right =
            |a: f32, b: f32| if half { ::half::f16::from_f32(a).to_f32() == b } else { a.to_bits() == b.to_bits() };
        assert!(expected.data.iter().zip(&found.data).all(|(a, b)| right(*a, *b)), "{key}");
    }
    let model = load(&mut store.open("lseg", "lseg").unwrap().tensors, case, device);
    let mut lines = Vec::new();
    let texts = ["a lamp in a scene", "other"].map(str::to_owned);
    prompts(case, &texts, &mut lines);
    let out = model.forward(map(case, "in.image", device), &mut |_, _| ()).unwrap();
    lines.push(compare(case, "out.features", &planes(out)));
    let text = model.text.embed_unit(&texts).unwrap();
    lines.push(compare(case, "out.text_normalized", &float_values(text).unwrap()));
    lines
}

/// `in.image [h, w, 3]` of a case, normalised, and resized if the case says so.
pub(crate) fn picture(case: &Case, device: &Device) -> Tensor<4> {
    let (shape, rgb) = case.i32("in.image");
    let values: Vec<f32> = rgb.into_iter().map(|value| value as f32).collect();
    resized(case, normalized(&values, [shape[0], shape[1]], device).unwrap())
}

fn resized(case: &Case, pictures: Tensor<4>) -> Tensor<4> {
    match serde_json::from_value::<Option<[usize; 2]>>(case.config["resize"].clone()).unwrap() {
        Some(size) => resample(pictures, size, Corners::Aligned).unwrap(),
        None => pictures,
    }
}

pub(crate) fn view(case: &Case, device: &Device) -> Vec<Line> {
    let model = model(case, device);
    let picture = picture(case, device);
    let mut lines = Vec::new();
    if has(case, "mid.resized") {
        lines.push(compare(case, "mid.resized", &planes(enlarged(picture.clone()).unwrap())));
    }
    let out = model.pixel_features(picture).unwrap();
    let out = if has(case, "in.pixels") { at_pixels(case, out) } else { planes(out) };
    lines.push(compare(case, "out.features", &out));
    lines
}

pub(crate) fn lift(case: &Case, device: &Device) -> Vec<Line> {
    let model = model(case, device);
    let (shape, images) = case.i32("in.images");
    let (_, mapping) = case.i32("in.mapping");
    let (_, points) = case.f32("in.points");
    let points: Vec<[f32; 3]> = points.as_chunks::<3>().0.to_vec();
    let (num_points, size) = (points.len(), [shape[1], shape[2]]);
    let step = case.config["net_sample_step"].as_u64().unwrap() as usize;
    let mut lines = Vec::new();
    // Which points a view sees is given.
    let mut lifter = DenseLifter::new(points, Visibility { border: 0, depth_tolerance: 0.0 }, device);
    let views = images.chunks_exact(size[0] * size[1] * 3).zip(mapping.chunks_exact(3 * num_points));
    for (number, (image, mapping)) in views.enumerate() {
        let values: Vec<f32> = image.iter().map(|&value| value as f32).collect();
        let picture = resized(case, normalized(&values, size, device).unwrap());
        if number == 0 {
            lines.push(compare(case, "mid.view0_resized", &planes(picture.clone())));
        }
        let [_, height, width, _] = picture.dims();
        let features = model.features_on(&values, size, [height, width]).unwrap();
        let [_, rows, columns, channels] = features.dims();
        if number == 0 {
            let thinned: Vec<i32> = (0..rows * columns)
                .filter(|i| i / columns % step + i % columns % step == 0)
                .map(|i| i as i32)
                .collect();
            let kept = int_tensor(thinned.clone(), [thinned.len()], device);
            let thin = features.clone().reshape([rows * columns, channels]).select(0, kept);
            lines.push(compare(case, "mid.view0_net", &float_values(thin.transpose()).unwrap()));
        }
        let pixels = mapping.as_chunks::<3>().0.iter();
        let pixels = pixels.map(|&[row, column, seen]| if seen == 0 { -1 } else { row * size[1] as i32 + column });
        let projection = Projection::of_pixels(pixels.collect(), size, device).unwrap();
        let values = float_values(features).unwrap();
        let view = DenseView { grid: [rows, columns], values: &values };
        if number == 0 {
            let mut first =
                DenseLifter::new(vec![[0.0; 3]; num_points], Visibility { border: 0, depth_tolerance: 0.0 }, device);
            first.add(&projection, view).unwrap();
            let lifted = first.finish().unwrap();
            let all = lifted.read(0..channels).unwrap();
            let rows = all.chunks_exact(channels).zip(&lifted.num_views_of_point);
            let seen: Vec<f32> = rows.filter(|(_, views)| **views > 0).flat_map(|(row, _)| row.to_vec()).collect();
            lines.push(compare(case, "mid.view0_lifted", &seen));
        }
        lifter.add(&projection, view).unwrap();
    }
    let lifted = lifter.finish().unwrap();
    let counts: Vec<i32> = lifted.num_views_of_point.iter().map(|&count| count as i32).collect();
    lines.push(equal("mid.view_count", &counts, &case.i32("mid.view_count").1));
    lines.push(compare(case, "out.scene_features", &lifted.read(0..lifted.num_channels()).unwrap()));
    lines
}
