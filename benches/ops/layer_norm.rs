//! Layer norms of X-Decoder's first and third stage on one 648 x 484 view: alone, and with a block's residual
//! and scale in the same pass; beside each burn's own on the same device. Bytes are the rows read and written
//! once each.

use burn::nn::LayerNormConfig;
use divan::counter::BytesCount;
use geopurify::ops::layer_norm::{Fusion, layer_norm};

use crate::common::{device, features, finish};

/// Rows and channels.
const SIZES: [(usize, usize); 2] = [(21_504, 192), (1_344, 768)];

#[divan::bench(args = SIZES, sample_count = 30, sample_size = 1)]
fn plain(bencher: divan::Bencher<'_, '_>, (rows, dim): (usize, usize)) {
    let (x, vector) = (features(rows, dim), features(1, dim).reshape([dim]));
    bencher.counter(BytesCount::new(2 * rows * dim * 4)).bench_local(|| {
        let out = layer_norm(x.clone(), &vector, &vector, 1e-5, Fusion::Nothing).expect("valid input");
        finish();
        out
    });
}

#[divan::bench(args = SIZES, sample_count = 30, sample_size = 1)]
fn plain_of_burn(bencher: divan::Bencher<'_, '_>, (rows, dim): (usize, usize)) {
    let (x, norm) = (features(rows, dim), LayerNormConfig::new(dim).init(&device()));
    bencher.counter(BytesCount::new(2 * rows * dim * 4)).bench_local(|| {
        let out = norm.forward(x.clone());
        finish();
        out
    });
}

#[divan::bench(args = SIZES, sample_count = 30, sample_size = 1)]
fn residual(bencher: divan::Bencher<'_, '_>, (rows, dim): (usize, usize)) {
    let (x, row) = (features(rows, dim), features(1, dim));
    let vector = row.clone().reshape([dim]);
    bencher.counter(BytesCount::new(3 * rows * dim * 4)).bench_local(|| {
        let around = Fusion::Residual { residual: x.clone(), scale: row.clone() };
        let out = layer_norm(x.clone(), &vector, &vector, 1e-5, around).expect("valid input");
        finish();
        out
    });
}

#[divan::bench(args = SIZES, sample_count = 30, sample_size = 1)]
fn residual_of_burn(bencher: divan::Bencher<'_, '_>, (rows, dim): (usize, usize)) {
    let (x, row, norm) = (features(rows, dim), features(1, dim), LayerNormConfig::new(dim).init(&device()));
    bencher.counter(BytesCount::new(3 * rows * dim * 4)).bench_local(|| {
        let out = x.clone() + row.clone() * norm.forward(x.clone());
        finish();
        out
    });
}
