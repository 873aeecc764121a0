//! X-Decoder as published (Focal-L, 201 queries) on one 648 x 484 view with random weights, stage by stage,
//! and the prompts of one label. Items are floating-point operations (two per multiply-add) where the count
//! is known: items per second are FLOP/s.

use std::sync::OnceLock;

use burn::prelude::*;
use divan::counter::ItemsCount;
use geopurify::models::xdecoder::{PixelMaps, TextEmbeddings, XDecoder, XDecoderConfig};

use crate::common::{RandomWeights, device, finish, precision};

const SIZE: [usize; 2] = [484, 648];
/// Of a view of that size, after padding to 512 x 672.
const BACKBONE_FLOP: usize = 490_000_000_000;
const PIXEL_DECODER_FLOP: usize = 258_000_000_000;
const PREDICTOR_FLOP: usize = 93_500_000_000;

/// The model, with weights in [`precision`].
fn model() -> &'static XDecoder {
    static MODEL: OnceLock<XDecoder> = OnceLock::new();
    MODEL.get_or_init(|| {
        let config = XDecoderConfig::focal_l();
        let mut weights = RandomWeights::new(config.keys());
        XDecoder::load(&mut weights, config, precision(), &device()).expect("all weights are there").0
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
    let rows = crate::common::features(20, model().config.dim_proj);
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
