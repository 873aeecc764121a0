//! X-Decoder's cases: every stage on its own, and the whole.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::images::Rgb8Image;
use geopurify::images::resize::{prepare_reference, resize_bicubic};
use geopurify::models::clip::tokenizer::{EOS, Tokenizer};
use geopurify::models::xdecoder::{Observed, PixelMaps, XDecoder, XDecoderConfig, prompts};
use geopurify::ops::bicubic_antialias::bicubic_antialias as resample;
use geopurify::ops::conv2d::Precision;
use geopurify::ops::{float_values, int_values};
use geopurify::weights::{TensorSource, WeightsFile};

use crate::Line;
use crate::case::Case;
use crate::ops::{compare, equal, floats};

/// The model of a case, kept for the other cases of the same weights.
fn model(case: &Case, device: &Device) -> Arc<XDecoder> {
    type Kept = Vec<(PathBuf, String, Device, Arc<XDecoder>)>;
    static KEPT: Mutex<Kept> = Mutex::new(Vec::new());
    let path = case.weights.clone().expect("the case has weights").canonicalize().unwrap();
    let mut kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let same = |k: &&(PathBuf, String, Device, Arc<XDecoder>)| (&k.0, &k.1, &k.2) == (&path, &case.seed, device);
    if let Some((.., model)) = kept.iter().find(same) {
        return model.clone();
    }
    let model = Arc::new(load(&mut case.generated(), case, device));
    kept.push((path, case.seed.clone(), device.clone(), model.clone()));
    model
}

fn load(source: &mut dyn TensorSource, case: &Case, device: &Device) -> XDecoder {
    let config: XDecoderConfig = match case.config.get("model") {
        Some(config) => serde_json::from_value(config.clone()).unwrap(),
        // The text case states the text encoder alone; its weights are those of the published model.
        None => XDecoderConfig::focal_l(),
    };
    let (model, report) = XDecoder::load(source, config, Precision::F32, device).unwrap();
    assert!(report.is_complete(), "{report}");
    model
}

/// `[B, h, w, C]` of one image as the reference's `[C, h, w]`.
fn planes(x: Tensor<4>) -> Vec<f32> {
    float_values(x.permute([0, 3, 1, 2])).unwrap()
}

/// A `[C, h, w]` tensor of the case, channels last.
fn map(case: &Case, name: &str, device: &Device) -> Tensor<4> {
    floats::<3>(case, name, device).unsqueeze::<4>().permute([0, 2, 3, 1])
}

fn has(case: &Case, name: &str) -> bool {
    case.tensors.names().iter().any(|n| n == name)
}

fn labels(case: &Case) -> Vec<String> {
    serde_json::from_value(case.config["labels"].clone()).unwrap()
}

/// `in.image [3, H, W]` prepared: normalised, padded, channels last.
fn prepared(case: &Case, model: &XDecoder) -> Tensor<4> {
    let (shape, image) = case.f32("in.image");
    let pixels = shape[1] * shape[2];
    let interleaved: Vec<f32> = (0..3 * pixels).map(|i| image[i % 3 * pixels + i / 3]).collect();
    model.prepare(&interleaved, [shape[1], shape[2]]).unwrap()
}

/// Differences are counted in steps of the 8 bits; the case allows `max_abs`.
pub(crate) fn image_prep(case: &Case, _: &Device) -> Vec<Line> {
    let (shape, rgb) = case.i32("in.rgb");
    let pixels = rgb.as_chunks::<3>().0.iter().map(|p| p.map(|value| value as u8)).collect();
    let image = Rgb8Image::new(shape[1], shape[0], pixels).unwrap();
    let size: [usize; 2] = serde_json::from_value(case.config["img_dim"].clone()).unwrap();
    let scale = case.config["resolution_scale"].as_f64().unwrap();
    let allowed = case.config["max_abs"].as_f64().unwrap();
    let half = resize_bicubic(&image, image.width() / 2, image.height() / 2).unwrap();
    let prepared = prepare_reference(&image, scale, size[0], size[1]).unwrap();
    let line = |tensor: &str, found: &Rgb8Image, expected: &[f32]| {
        let found = found.pixels().as_flattened();
        assert_eq!(found.len(), expected.len(), "{tensor}");
        let differences = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
        Line { tensor: tensor.to_owned(), found: differences.fold(0.0, f64::max), allowed }
    };
    let expected: Vec<f32> = case.i32("out.half").1.iter().map(|&value| value as f32).collect();
    vec![line("out.half", &half, &expected), line("out.image", &prepared, &case.f32("out.image").1)]
}

pub(crate) fn clip_tokenize(case: &Case, _: &Device) -> Vec<Line> {
    let strings: Vec<String> = serde_json::from_value(case.config["strings"].clone()).unwrap();
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for text in &strings {
        let tokens = Tokenizer::new().encode(text);
        let filled = (0..77).map(|i| tokens.get(i).map_or(EOS as i32, |&token| token as i32));
        ids.extend(filled);
        mask.extend((0..77).map(|i| i32::from(i < tokens.len())));
    }
    vec![
        equal("out.input_ids", &ids, &case.i32("out.input_ids").1),
        equal("out.attention_mask", &mask, &case.i32("out.attention_mask").1),
    ]
}

pub(crate) fn bicubic_antialias(case: &Case, device: &Device) -> Vec<Line> {
    let outs = case.tensors.names().into_iter().filter(|n| n.starts_with("out."));
    let outs = outs.map(|name| {
        let shape = case.tensors.tensor(&name).unwrap().shape.to_vec();
        let out = resample(floats(case, "in.masks", device), [shape[1], shape[2]]).unwrap();
        compare(case, &name, &float_values(out).unwrap())
    });
    outs.collect()
}

pub(crate) fn text_embeddings(case: &Case, device: &Device) -> Vec<Line> {
    let model = model(case, device);
    let encoder = &model.text_encoder;
    let (labels, templates): (Vec<String>, Vec<String>) =
        (labels(case), serde_json::from_value(case.config["templates"].clone()).unwrap());
    let names: Vec<String> = serde_json::from_value(case.config["class_names"].clone()).unwrap();
    let wrapped: Vec<String> = names.iter().map(|name| prompts::scene_label(name)).collect();
    let of_first: Vec<String> = prompts::prompts(&labels[0]).collect();
    let expected: Vec<String> = templates.iter().map(|template| template.replace("{}", &labels[0])).collect();
    let mut lines = vec![
        equal("config.labels", &wrapped, &labels[..labels.len() - 1]),
        equal("config.templates", &of_first, &expected),
    ];
    let mut observed = Vec::new();
    encoder
        .embed_prompts(&of_first[..1], &mut |name, x| {
            observed.push((name.to_owned(), float_values(x.clone()).unwrap()))
        })
        .unwrap();
    for (name, found) in observed {
        let name = format!("mid.first_prompt_{name}");
        if has(case, &name) {
            // Rows behind the end of the text are not computed: nothing before them depends on them.
            lines.push(compare_first(case, &name, &found));
        }
    }
    assert_eq!(lines.len(), 6, "every mid.first_prompt_* is compared");
    let first = encoder.embed_prompts(&of_first, &mut |_, _| ()).unwrap();
    lines.push(compare(case, "mid.first_label_prompt_embeddings", &float_values(first).unwrap()));
    let out = encoder.embed_labels(&labels).unwrap();
    lines.push(compare(case, "out.text_embeddings", &float_values(out).unwrap()));
    lines.push(compare(case, "out.logit_scale", &[encoder.logit_scale()]));
    lines
}

/// As [`compare`], with as many of the expected values as were computed.
fn compare_first(case: &Case, name: &str, found: &[f32]) -> Line {
    let (_, expected) = case.f32(name);
    let allowed = case.tolerance[name].rel_l2.unwrap();
    Line { tensor: name.to_owned(), found: crate::common::rel_l2(found, &expected[..found.len()]), allowed }
}

pub(crate) fn focal_backbone(case: &Case, device: &Device) -> Vec<Line> {
    let model = model(case, device);
    let image = prepared(case, &model);
    let mut lines = Vec::new();
    if has(case, "mid.padded") {
        lines.push(compare(case, "mid.padded", &planes(image.clone())));
    }
    let mut observe = |name: &str, x: &Tensor<4>| {
        let name = format!("mid.{name}");
        match name.as_str() {
            "mid.layer0_block0" => lines.push(compare(case, &name, &float_values(x.clone()).unwrap())),
            _ if has(case, &name) => lines.push(compare(case, &name, &planes(x.clone()))),
            _ => {}
        }
    };
    let maps = model.backbone.forward(image, &mut observe).unwrap();
    for (i, map) in maps.into_iter().enumerate() {
        lines.push(compare(case, &format!("out.res{}", i + 2), &planes(map)));
    }
    lines
}

pub(crate) fn pixel_decoder(case: &Case, device: &Device) -> Vec<Line> {
    let model = model(case, device);
    let maps: Vec<_> = (2..=5).map(|i| map(case, &format!("in.res{i}"), device)).collect();
    let mut lines = Vec::new();
    let mut observe = |name: &str, x: &Tensor<4>| lines.push(compare(case, &format!("mid.{name}"), &planes(x.clone())));
    let out = model.pixel_decoder.forward(&maps, &mut observe).unwrap();
    lines.push(compare(case, "out.mask_features", &planes(out.mask_features)));
    for (i, map) in out.multi_scale.into_iter().enumerate() {
        lines.push(compare(case, &format!("out.multi_scale_{i}"), &planes(map)));
    }
    lines
}

/// Compares what the decoder shows of itself. The masks are hard decisions: where a case says that so many
/// of their bits may differ, the count over all of them is held against that.
struct Comparison<'a> {
    case: &'a Case,
    lines: Vec<Line>,
    turned_bits: usize,
    num_masks: usize,
}

impl<'a> Comparison<'a> {
    fn new(case: &'a Case) -> Self {
        Self { case, lines: Vec::new(), turned_bits: 0, num_masks: 0 }
    }

    fn observe(&mut self, shown: Observed<'_>) {
        match shown {
            Observed::Mask(layer, blocked) => {
                let name = format!("mid.attn_mask_{layer}");
                if has(self.case, &name) {
                    let (found, (_, expected)) = (int_values(blocked.clone()).unwrap(), self.case.i32(&name));
                    assert_eq!(found.len(), expected.len(), "{name}");
                    self.turned_bits += found.iter().zip(&expected).filter(|(a, b)| a != b).count();
                    self.num_masks += 1;
                }
            }
            Observed::Queries(layer, queries) => {
                let name = format!("mid.queries_{layer}");
                if has(self.case, &name) {
                    self.lines.push(compare(self.case, &name, &float_values(queries.clone()).unwrap()));
                }
            }
        }
    }

    fn lines(mut self) -> Vec<Line> {
        assert!(self.num_masks > 0, "{}: no attention mask was compared", self.case.name);
        let may = self.case.config.get("mid_attn_mask_bits_may_differ").and_then(|bits| bits.as_f64()).unwrap_or(0.0);
        let tensor = format!("mid.attn_mask_* ({})", self.num_masks);
        self.lines.push(Line { tensor: tensor.replace(' ', ""), found: self.turned_bits as f64, allowed: may });
        self.lines
    }
}

pub(crate) fn decoder(case: &Case, device: &Device) -> Vec<Line> {
    let model = model(case, device);
    let multi_scale = (0..3).map(|i| map(case, &format!("in.multi_scale_{i}"), device)).collect();
    let maps = PixelMaps { mask_features: map(case, "in.mask_features", device), multi_scale };
    let text = floats(case, "in.text_embeddings", device);
    let mut observed = Comparison::new(case);
    let scale = model.text_encoder.logit_scale();
    let out = model.predictor.forward(&maps, text, scale, &mut |shown| observed.observe(shown)).unwrap();
    let mut lines = observed.lines();
    lines.push(compare(case, "out.pred_logits", &float_values(out.pred_logits).unwrap()));
    lines.push(compare(case, "out.pred_masks", &float_values(out.pred_masks).unwrap()));
    lines.push(compare(case, "out.mask_embed", &float_values(out.mask_embed).unwrap()));
    lines
}

pub(crate) fn forward_seg_all(case: &Case, device: &Device) -> Vec<Line> {
    let model = match case.config.get("checkpoint") {
        Some(file) => {
            let mut source = WeightsFile::open(&case.dir.join(file.as_str().unwrap())).unwrap();
            Arc::new(load(&mut source, case, device))
        }
        None => model(case, device),
    };
    let text = model.text_encoder.embed_labels(&labels(case)).unwrap();
    let scale = model.text_encoder.logit_scale();
    let values = float_values(text.clone()).unwrap();
    let null = values.len() - model.config.dim_proj;
    let mut lines = vec![
        compare(case, "out.text_embed", &values[..null]),
        compare(case, "out.null_embed", &values[null..]),
        compare(case, "out.logit_scale", &[scale]),
    ];
    let mut mids = Vec::new();
    let maps = model.backbone.forward(prepared(case, &model), &mut |_, _| ()).unwrap();
    mids.extend(maps.iter().enumerate().map(|(i, map)| (format!("mid.res{}", i + 2), map.clone())));
    let maps = model.pixel_decoder.forward(&maps, &mut |_, _| ()).unwrap();
    mids.push(("mid.mask_features".to_owned(), maps.mask_features.clone()));
    mids.extend(maps.multi_scale.iter().enumerate().map(|(i, map)| (format!("mid.multi_scale_{i}"), map.clone())));
    lines
        .extend(mids.into_iter().filter(|(name, _)| has(case, name)).map(|(name, x)| compare(case, &name, &planes(x))));
    let mut observed = Comparison::new(case);
    let out = model.predictor.forward(&maps, text, scale, &mut |shown| observed.observe(shown)).unwrap();
    if case.tensors.names().iter().any(|name| name.starts_with("mid.attn_mask")) {
        lines.extend(observed.lines());
    }
    let out = out.without_class_token();
    lines.push(compare(case, "out.pred_logits", &float_values(out.pred_logits).unwrap()));
    lines.push(compare(case, "out.pred_masks", &float_values(out.pred_masks).unwrap()));
    lines.push(compare(case, "out.mask_embed", &float_values(out.mask_embed).unwrap()));
    lines
}
