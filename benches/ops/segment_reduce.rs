//! Mean and maximum of 64 channels per voxel, four points a voxel.

use burn::prelude::*;
use divan::counter::BytesCount;
use geopurify::ops::int_tensor;
use geopurify::ops::segment_reduce::{Reduction, segment_reduce};

use crate::common::{device, features, finish, sizes};

const CHANNELS: usize = 64;

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn mean(bencher: divan::Bencher<'_, '_>, n: usize) {
    reduce(bencher, n, Reduction::Mean);
}

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn max(bencher: divan::Bencher<'_, '_>, n: usize) {
    reduce(bencher, n, Reduction::Max);
}

fn reduce(bencher: divan::Bencher<'_, '_>, n: usize, reduction: Reduction) {
    let rows = features(n, CHANNELS);
    let order = int_tensor((0..n as i32).collect(), [n], &device());
    let offsets: Vec<i32> = (0..=n / 4).map(|i| 4 * i as i32).collect();
    let offsets = int_tensor(offsets, [n / 4 + 1], &device());
    bencher.counter(BytesCount::new((n + n / 4) * CHANNELS * 4)).bench_local(|| {
        let reduced = segment_reduce(rows.clone(), order.clone(), offsets.clone(), reduction).expect("valid input");
        finish();
        reduced
    });
}

#[divan::bench(args = [Reduction::Mean, Reduction::Max], sample_count = 10, sample_size = 1)]
fn backward_20000_rows_of_48(bencher: divan::Bencher<'_, '_>, reduction: Reduction) {
    let rows = Tensor::from_inner(features(20_000, 48)).require_grad();
    let order = int_tensor((0..20_000).collect(), [20_000], &device());
    let offsets = int_tensor((0..=5_000).map(|i| i * 4).collect(), [5_001], &device());
    bencher
        .with_inputs(|| {
            let reduced = segment_reduce(rows.clone(), order.clone(), offsets.clone(), reduction);
            let loss = reduced.expect("valid input").sum();
            finish();
            loss
        })
        .bench_local_values(|loss| {
            let gradients = loss.backward();
            finish();
            gradients
        });
}
