//! Group norm with ReLU at the finest map of X-Decoder's pixel decoder, 128 x 168 pixels of 512 channels in 32
//! groups, beside burn's own on the same device (channels first, as it wants them). Bytes are the map read
//! and written once each.

use burn::nn::GroupNormConfig;
use burn::tensor::activation::relu;
use divan::counter::BytesCount;
use geopurify::ops::group_norm::{Epilogue, group_norm};

use crate::common::{device, features, finish};

const HEIGHT: usize = 128;
const WIDTH: usize = 168;
const CHANNELS: usize = 512;
const GROUPS: usize = 32;
const BYTES: usize = 2 * HEIGHT * WIDTH * CHANNELS * 4;

#[divan::bench(sample_count = 10, sample_size = 1)]
fn with_relu(bencher: divan::Bencher<'_, '_>) {
    let x = features(HEIGHT * WIDTH, CHANNELS).reshape([1, HEIGHT, WIDTH, CHANNELS]);
    let vector = features(1, CHANNELS).reshape([CHANNELS]);
    bencher.counter(BytesCount::new(BYTES)).bench_local(|| {
        let out = group_norm(x.clone(), &vector, &vector, GROUPS, 1e-5, Epilogue::Relu).expect("valid input");
        finish();
        out
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn with_relu_of_burn(bencher: divan::Bencher<'_, '_>) {
    let x = features(CHANNELS, HEIGHT * WIDTH).reshape([1, CHANNELS, HEIGHT, WIDTH]);
    let norm = GroupNormConfig::new(GROUPS, CHANNELS).init(&device());
    bencher.counter(BytesCount::new(BYTES)).bench_local(|| {
        let out = relu(norm.forward(x.clone()));
        finish();
        out
    });
}
