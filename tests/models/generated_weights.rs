//! The generated weights that other tests and the example use: they load, and there is something to see.

use std::collections::BTreeMap;

use burn::tensor::Device;
use geopurify::lift::{Padding, View};
use geopurify::models::student::{AffinityPredictor, StudentConfig};
use geopurify::models::xdecoder::{XDecoder, XDecoderConfig};
use geopurify::ops::conv2d::Precision;
use geopurify::ops::{float_tensor, float_values, int_tensor};
use geopurify::weights::read_state_dict;

use crate::weights::tiny_weights;

/// A floor, a wall and a few boxes, as a picture of this height and width.
fn picture([height, width]: [usize; 2]) -> Vec<f32> {
    let boxes = [([0.1, 0.4, 0.3, 0.8], [180.0, 60.0, 40.0]), ([0.5, 0.3, 0.9, 0.6], [40.0, 80.0, 170.0])];
    let pixel = |i: usize| {
        let (y, x) = ((i / width) as f32 / height as f32, (i % width) as f32 / width as f32);
        let inside = |b: &[f32; 4]| b[0] <= x && x < b[2] && b[1] <= y && y < b[3];
        let hit = boxes.iter().find(|(b, _)| inside(b)).map(|(_, color)| *color);
        let color = hit.unwrap_or(if y > 0.65 { [130.0, 100.0, 70.0] } else { [210.0, 205.0, 190.0] });
        color.map(|value: f32| value - 20.0 * x)
    };
    (0..height * width).flat_map(pixel).collect()
}

#[test]
fn several_queries_and_labels_share_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let files = tiny_weights(dir.path()).unwrap();
    let config: XDecoderConfig = serde_json::from_slice(&std::fs::read(&files.config).unwrap()).unwrap();
    let mut state = read_state_dict(&files.xdecoder).unwrap();
    let (model, _) = XDecoder::load(&mut state, config, Precision::F32, &Device::flex()).unwrap();
    let words = ["wall", "floor", "box", "chair", "lamp", "table"].map(str::to_owned);
    let text = model.embed_text(&words).unwrap();
    let size = [240, 320];
    let queries = model.forward(model.prepare(&picture(size), size).unwrap(), &text).unwrap();
    let view = View::new(&queries, 0, &text, size, Padding::Cropped).unwrap();

    let num_pixels = (size[0] * size[1]) as f64;
    let query_from_pixel = view.query_from_pixel().unwrap();
    let claimed = query_from_pixel.iter().filter(|&&query| query >= 0).count() as f64;
    assert!(claimed / num_pixels > 0.7, "{claimed} of {num_pixels} pixels");
    let shares = |values: &mut dyn Iterator<Item = i32>| {
        let mut counts = BTreeMap::new();
        values.for_each(|value| *counts.entry(value).or_insert(0.0) += 1.0 / num_pixels);
        counts
    };
    let of_queries = shares(&mut query_from_pixel.into_iter());
    assert!(of_queries.values().filter(|&&share| share > 0.02).count() >= 4, "{of_queries:?}");
    let of_labels = shares(&mut view.label_from_pixel().unwrap().into_iter().filter(|&label| label >= 0));
    assert!(of_labels.values().filter(|&&share| share > 0.02).count() >= 3, "{of_labels:?}");
    assert!(view.embeddings().iter().chain(view.logits()).all(|value| value.is_finite()));
}

#[test]
fn the_student_takes_what_xdecoder_gives() {
    let dir = tempfile::tempdir().unwrap();
    let files = tiny_weights(dir.path()).unwrap();
    let xdecoder: XDecoderConfig = serde_json::from_slice(&std::fs::read(&files.config).unwrap()).unwrap();
    let state = read_state_dict(&files.student).unwrap();
    let (student, config, _) = AffinityPredictor::load(state, &Device::flex()).unwrap();
    assert_eq!(config, StudentConfig { input_dim: xdecoder.dim_proj + 6, hidden_dim: 32, embed_dim: 16 });
    let (coords, features): (Vec<_>, Vec<_>) =
        (0..8).map(|i| ([0, i % 2, i / 2 % 2, i / 4], [0.1 * i as f32; 54])).unzip();
    let device = Device::flex();
    let features = float_tensor(features.into_iter().flatten().collect(), [8, 54], &device);
    let coords = int_tensor(coords.into_iter().flatten().collect(), [8, 4], &device);
    let embedding = float_values(student.fold().forward(features, coords).unwrap()).unwrap();
    assert!(embedding.iter().all(|value| value.is_finite() && value.abs() < 100.0));
    assert_ne!(embedding[..16], embedding[7 * 16..]);
}

#[test]
fn the_same_files_every_time() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [first, second] = dirs.each_ref().map(|dir| tiny_weights(dir.path()).unwrap());
    for (a, b) in [
        (first.xdecoder, second.xdecoder),
        (first.student, second.student),
        (first.config, second.config),
        (first.sonata, second.sonata),
        (first.sonata_config, second.sonata_config),
    ] {
        assert!(std::fs::read(&a).unwrap() == std::fs::read(b).unwrap(), "{}", a.display());
    }
}
