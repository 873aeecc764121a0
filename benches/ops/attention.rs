//! Attention of X-Decoder on one 648 x 484 view, 8 heads of 64 channels: the decoder's 201 queries against the
//! 5376 pixels of its finest level with a mask, and the pixel decoder's 336 pixels among themselves; beside
//! each burn's matrix products and softmax on the same device. Items are floating-point operations of the two
//! products, two per multiply-add: items per second are FLOP/s.

use burn::prelude::*;
use burn::tensor::activation::softmax;
use divan::counter::ItemsCount;
use geopurify::ops::attention::{Mask, attention};

use crate::common::{features, finish};

const HEADS: usize = 8;
const HEAD_DIM: usize = 64;
const DIM: usize = HEADS * HEAD_DIM;

const QUERIES: usize = 201;
const PIXELS: usize = 5376;
const COARSE_PIXELS: usize = 336;

fn sequence(len: usize) -> Tensor<3> {
    features(len, DIM).reshape([1, len, DIM])
}

/// Half of the keys of every query.
fn blocked(num_queries: usize, num_keys: usize) -> Tensor<3, Bool> {
    features(num_queries, num_keys).greater_elem(0.0).reshape([1, num_queries, num_keys])
}

fn flop(num_queries: usize, num_keys: usize) -> ItemsCount {
    ItemsCount::new(4 * num_queries * num_keys * DIM)
}

fn ours(bencher: divan::Bencher<'_, '_>, num_queries: usize, num_keys: usize, mask: Mask) {
    let (q, k, v) = (sequence(num_queries), sequence(num_keys), sequence(num_keys));
    bencher.counter(flop(num_queries, num_keys)).bench_local(|| {
        let out = attention(q.clone(), k.clone(), v.clone(), HEADS, mask.clone()).expect("valid input");
        finish();
        out
    });
}

fn of_burn(bencher: divan::Bencher<'_, '_>, num_queries: usize, num_keys: usize, mask: Option<Tensor<3, Bool>>) {
    let (q, k, v) = (sequence(num_queries), sequence(num_keys), sequence(num_keys));
    let heads = |x: &Tensor<3>| {
        let [_, len, _] = x.dims();
        x.clone().reshape([1, len, HEADS, HEAD_DIM]).swap_dims(1, 2)
    };
    bencher.counter(flop(num_queries, num_keys)).bench_local(|| {
        let scores = heads(&q).matmul(heads(&k).swap_dims(2, 3)) / (HEAD_DIM as f64).sqrt();
        let scores = match &mask {
            Some(mask) => {
                let mask = mask.clone().unsqueeze_dim::<4>(1).expand([1, HEADS, num_queries, num_keys]);
                scores.mask_fill(mask, f32::MIN)
            }
            None => scores,
        };
        let out = softmax(scores, 3).matmul(heads(&v)).swap_dims(1, 2).reshape([1, num_queries, DIM]);
        finish();
        out
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn masked_201x5376(bencher: divan::Bencher<'_, '_>) {
    ours(bencher, QUERIES, PIXELS, Mask::Blocked(blocked(QUERIES, PIXELS).int()));
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn masked_201x5376_of_burn(bencher: divan::Bencher<'_, '_>) {
    of_burn(bencher, QUERIES, PIXELS, Some(blocked(QUERIES, PIXELS)));
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn self_336x336(bencher: divan::Bencher<'_, '_>) {
    ours(bencher, COARSE_PIXELS, COARSE_PIXELS, Mask::None);
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn self_336x336_of_burn(bencher: divan::Bencher<'_, '_>) {
    of_burn(bencher, COARSE_PIXELS, COARSE_PIXELS, None);
}

/// Keys of a small model in training, whose 41 queries in each of four images have 4 heads of 16 channels: the
/// queries themselves, or pixels.
const TRAINED: [usize; 2] = [41, 768];
const CASES: [(usize, bool); 4] = [(768, false), (768, true), (41, false), (41, true)];

fn trained(len: usize) -> Tensor<3> {
    Tensor::from_inner(features(4 * len, 64).reshape([4, len, 64])).require_grad()
}

fn loss([q, k, v]: &[Tensor<3>; 3], mask: Mask) -> Tensor<1> {
    attention(q.clone(), k.clone(), v.clone(), 4, mask).expect("valid input").sum()
}

fn trained_mask(num_keys: usize, masked: bool) -> Mask {
    let blocked = features(4 * TRAINED[0], num_keys).greater_elem(0.0).reshape([4, TRAINED[0], num_keys]);
    if masked { Mask::Blocked(blocked.int()) } else { Mask::None }
}

#[divan::bench(args = CASES, sample_count = 10, sample_size = 1)]
fn trained_forward(bencher: divan::Bencher<'_, '_>, (num_keys, masked): (usize, bool)) {
    let inputs = [TRAINED[0], num_keys, num_keys].map(trained);
    let mask = trained_mask(num_keys, masked);
    bencher.bench_local(|| {
        let loss = loss(&inputs, mask.clone());
        finish();
        loss
    });
}

#[divan::bench(args = CASES, sample_count = 10, sample_size = 1)]
fn trained_backward(bencher: divan::Bencher<'_, '_>, (num_keys, masked): (usize, bool)) {
    let inputs = [TRAINED[0], num_keys, num_keys].map(trained);
    let mask = trained_mask(num_keys, masked);
    bencher
        .with_inputs(|| {
            let loss = loss(&inputs, mask.clone());
            finish();
            loss
        })
        .bench_local_values(|loss| {
            let gradients = loss.backward();
            finish();
            gradients
        });
}

/// The same made of burn's matrix products and softmax, without a mask.
fn loss_of_burn([q, k, v]: &[Tensor<3>; 3]) -> Tensor<1> {
    let heads = |x: &Tensor<3>| {
        let [batch, len, _] = x.dims();
        x.clone().reshape([batch, len, 4, 16]).swap_dims(1, 2)
    };
    softmax(heads(q).matmul(heads(k).swap_dims(2, 3)) / 4.0, 3).matmul(heads(v)).sum()
}

#[divan::bench(args = TRAINED, sample_count = 10, sample_size = 1)]
fn trained_forward_of_burn(bencher: divan::Bencher<'_, '_>, num_keys: usize) {
    let inputs = [TRAINED[0], num_keys, num_keys].map(trained);
    bencher.bench_local(|| {
        let loss = loss_of_burn(&inputs);
        finish();
        loss
    });
}

#[divan::bench(args = TRAINED, sample_count = 10, sample_size = 1)]
fn trained_backward_of_burn(bencher: divan::Bencher<'_, '_>, num_keys: usize) {
    let inputs = [TRAINED[0], num_keys, num_keys].map(trained);
    bencher
        .with_inputs(|| {
            let loss = loss_of_burn(&inputs);
            finish();
            loss
        })
        .bench_local_values(|loss| {
            let gradients = loss.backward();
            finish();
            gradients
        });
}
