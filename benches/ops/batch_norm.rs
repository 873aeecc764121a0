//! Batch norm with ReLU of `[rows, 512]`, and its backward pass. Bytes are those of every array once: a
//! forward pass reads x and writes y, a backward pass reads the gradient, x and y and writes the gradient of x.

use burn::prelude::*;
use divan::counter::BytesCount;
use geopurify::ops::batch_norm::batch_norm;

use crate::common::{device, features, finish};

const DIM: usize = 512;
const ROWS: [usize; 2] = [2_000, 20_000];

fn vector() -> Tensor<1> {
    Tensor::ones([DIM], &device())
}

#[divan::bench(args = ROWS, sample_count = 10, sample_size = 1)]
fn forward(bencher: divan::Bencher<'_, '_>, rows: usize) {
    let x = features(rows, DIM);
    bencher.counter(BytesCount::new(2 * rows * DIM * 4)).bench_local(|| {
        let normed = batch_norm(x.clone(), None, vector(), vector(), 1e-5, true).expect("valid input");
        finish();
        normed
    });
}

#[divan::bench(args = ROWS, sample_count = 10, sample_size = 1)]
fn forward_residual(bencher: divan::Bencher<'_, '_>, rows: usize) {
    let x = features(rows, DIM);
    bencher.counter(BytesCount::new(3 * rows * DIM * 4)).bench_local(|| {
        let normed = batch_norm(x.clone(), Some(x.clone()), vector(), vector(), 1e-5, true).expect("valid input");
        finish();
        normed
    });
}

#[divan::bench(args = ROWS, sample_count = 10, sample_size = 1)]
fn backward(bencher: divan::Bencher<'_, '_>, rows: usize) {
    let x = features(rows, DIM).autodiff().require_grad();
    let forward = || {
        let normed = batch_norm(x.clone(), None, vector(), vector(), 1e-5, true).expect("valid input");
        finish();
        normed.y
    };
    bencher.counter(BytesCount::new(4 * rows * DIM * 4)).with_inputs(forward).bench_local_values(|y| {
        let gradients = y.backward();
        finish();
        gradients
    });
}
