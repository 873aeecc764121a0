//! Batch norm with ReLU of `[rows, 512]`, and its backward pass. Bytes are those of every array once: a
//! forward pass reads x and writes y, a backward pass reads the gradient, x and y and writes the gradient of x.

use burn::backend::Dispatch;
use burn::prelude::*;
use divan::counter::BytesCount;
use geopurify::ops::batch_norm::{BatchNormBackend, batch_norm};

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
    let x = features(rows, DIM).into_dispatch();
    let statistics = Tensor::<2>::ones([2, DIM], &device()).into_dispatch();
    bencher.counter(BytesCount::new(4 * rows * DIM * 4)).bench_local(|| {
        let weight = vector().into_dispatch();
        let (grad, y) = (x.clone(), x.clone());
        let gradients = Dispatch::batch_norm_grad(grad, x.clone(), y, statistics.clone(), weight, 1e-5, true);
        finish();
        gradients
    });
}
