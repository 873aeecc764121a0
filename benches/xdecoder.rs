//! X-Decoder as published (Focal-L, 201 queries) on one 648 x 484 view with random weights, stage by stage,
//! and the prompts of one label. Items are floating-point operations (two per multiply-add) where the count
//! is known: items per second are FLOP/s.

mod common;

use std::borrow::Cow;
use std::sync::OnceLock;

use burn::prelude::*;
use common::{device, finish};
use divan::counter::ItemsCount;
use geopurify::models::xdecoder::{PixelMaps, TextEmbeddings, XDecoder, XDecoderConfig};
use geopurify::ops::conv2d::Precision;
use geopurify::weights::{Dtype, HostTensor, Inventory, TensorInfo, TensorSource, WeightsError};

const SIZE: [usize; 2] = [484, 648];
/// Of a view of that size, after padding to 512 x 672.
const BACKBONE_FLOP: usize = 490_000_000_000;
const PIXEL_DECODER_FLOP: usize = 258_000_000_000;
const PREDICTOR_FLOP: usize = 93_500_000_000;

/// Weights of the usual size: uniform, of the variance that keeps activations where they are.
struct RandomWeights(Inventory);

impl RandomWeights {
    fn new(config: &XDecoderConfig) -> Self {
        let info = |shape| TensorInfo { shape, dtype: Dtype::F32 };
        let tensors = config.keys().into_iter().map(|(key, shape)| (key, info(shape))).collect();
        Self(Inventory { tensors, ..Inventory::default() })
    }
}

impl TensorSource for RandomWeights {
    fn inventory(&self) -> Cow<'_, Inventory> {
        Cow::Borrowed(&self.0)
    }

    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        let mut state = key.len() as u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let fan_in: usize = shape.iter().skip(1).product();
        let scale = (3.0 / fan_in.max(1) as f32).sqrt();
        let center = if shape.len() == 1 && key.ends_with("weight") { 1.0 } else { 0.0 };
        let scale = if shape.len() < 2 { 0.1 } else { scale };
        let data = (0..shape.iter().product()).map(|_| center + scale * random()).collect();
        Ok(HostTensor { shape: shape.to_vec(), dtype_in_file: Dtype::F32, data })
    }
}

/// The model, `GEOPURIFY_BENCH_PRECISION=f16` for weights of 16 bits.
fn model() -> &'static XDecoder {
    static MODEL: OnceLock<XDecoder> = OnceLock::new();
    MODEL.get_or_init(|| {
        let config = XDecoderConfig::focal_l();
        let half = std::env::var("GEOPURIFY_BENCH_PRECISION").is_ok_and(|p| p == "f16");
        let precision = if half { Precision::F16 } else { Precision::F32 };
        let mut weights = RandomWeights::new(&config);
        XDecoder::load(&mut weights, config, precision, &device()).expect("all weights are there").0
    })
}

fn image() -> Tensor<4> {
    let values: Vec<f32> = (0..SIZE[0] * SIZE[1] * 3).map(|i| (i * 7919 % 256) as f32).collect();
    model().prepare(&values, SIZE).expect("a valid image")
}

fn maps() -> Vec<Tensor<4>> {
    model().backbone.forward(image(), &mut |_, _| ()).expect("fits")
}

fn pixel_maps() -> PixelMaps {
    model().pixel_decoder.forward(&maps(), &mut |_, _| ()).expect("fits")
}

fn text() -> TextEmbeddings {
    let rows = common::features(20, model().config.dim_proj);
    TextEmbeddings { labels: vec![String::new(); 19], rows, logit_scale: 20.0 }
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn backbone(bencher: divan::Bencher<'_, '_>) {
    let image = image();
    bencher.counter(ItemsCount::new(BACKBONE_FLOP)).bench_local(|| {
        let maps = model().backbone.forward(image.clone(), &mut |_, _| ()).expect("fits");
        finish();
        maps
    });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn pixel_decoder(bencher: divan::Bencher<'_, '_>) {
    let maps = maps();
    bencher.counter(ItemsCount::new(PIXEL_DECODER_FLOP)).bench_local(|| {
        let out = model().pixel_decoder.forward(&maps, &mut |_, _| ()).expect("fits");
        finish();
        out
    });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn predictor(bencher: divan::Bencher<'_, '_>) {
    let (maps, text) = (pixel_maps(), text());
    bencher.counter(ItemsCount::new(PREDICTOR_FLOP)).bench_local(|| {
        let out = model().predictor.forward(&maps, text.rows.clone(), text.logit_scale, &mut |_| ()).expect("fits");
        finish();
        out
    });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn view(bencher: divan::Bencher<'_, '_>) {
    let (image, text) = (image(), text());
    let flop = BACKBONE_FLOP + PIXEL_DECODER_FLOP + PREDICTOR_FLOP;
    bencher.counter(ItemsCount::new(flop)).bench_local(|| {
        let out = model().forward(image.clone(), &text).expect("fits");
        finish();
        out
    });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn label(bencher: divan::Bencher<'_, '_>) {
    let label = ["a bookshelf in a scene".to_owned()];
    bencher.bench_local(|| model().text_encoder.embed_labels(&label).expect("fits"));
}

fn main() {
    divan::main();
}
