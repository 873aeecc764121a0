//! Attention of X-Decoder on one 648 x 484 view, 8 heads of 64 channels: the decoder's 201 queries against the
//! 5376 pixels of its finest level with a mask, and the pixel decoder's 336 pixels among themselves; beside
//! each burn's matrix products and softmax on the same device. Items are floating-point operations of the two
//! products, two per multiply-add: items per second are FLOP/s.

mod common;

use burn::prelude::*;
use burn::tensor::activation::softmax;
use common::{features, finish};
use divan::counter::ItemsCount;
use geopurify::ops::attention::{Mask, attention};

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

fn main() {
    divan::main();
}
