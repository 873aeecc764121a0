//! The contrastive loss of 4096 anchors with 64 negatives each, and its gradient, over an embedding of 128
//! channels.

use burn::prelude::*;
use divan::counter::ItemsCount;
use geopurify::ops::info_nce::info_nce;
use geopurify::ops::int_tensor;
use geopurify::ops::normalize_rows;

use crate::common::{device, features, finish, sizes};

const NUM_ANCHORS: usize = 4096;
const NUM_NEGATIVES: usize = 64;

fn rows(n: usize, step: usize, len: usize, device: &Device) -> Tensor<1, Int> {
    int_tensor((0..len).map(|i| (i * step % n) as i32).collect(), [len], device)
}

#[divan::bench(args = sizes(), sample_count = 10, sample_size = 1)]
fn forward_backward(bencher: divan::Bencher<'_, '_>, n: usize) {
    let device = device().autodiff();
    let embedding = normalize_rows(features(n, 128));
    let anchors = rows(n, 5, NUM_ANCHORS, &device);
    let positives = rows(n, 7, NUM_ANCHORS, &device);
    let negatives = rows(n, 7919, NUM_ANCHORS * NUM_NEGATIVES, &device).reshape([NUM_ANCHORS, NUM_NEGATIVES]);
    bencher.counter(ItemsCount::new(NUM_ANCHORS)).bench_local(|| {
        let embedding = Tensor::from_inner(embedding.clone()).require_grad();
        let loss = info_nce(embedding.clone(), anchors.clone(), positives.clone(), negatives.clone(), 0.07);
        let grads = loss.expect("valid input").loss.backward();
        let grad = embedding.grad(&grads);
        finish();
        grad
    });
}
