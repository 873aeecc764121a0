//! Largest of 96 channels per cell, four voxels a cell.

mod common;

use common::{device, features, finish, sizes};
use divan::counter::BytesCount;
use geopurify::ops::int_tensor;
use geopurify::ops::segment_max::segment_max;

const CHANNELS: usize = 96;

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn voxels(bencher: divan::Bencher<'_, '_>, n: usize) {
    let rows = features(n, CHANNELS);
    let order = int_tensor((0..n as i32).collect(), [n], &device());
    let offsets: Vec<i32> = (0..=n / 4).map(|i| 4 * i as i32).collect();
    let offsets = int_tensor(offsets, [n / 4 + 1], &device());
    bencher.counter(BytesCount::new((n + n / 4) * CHANNELS * 4)).bench_local(|| {
        let largest = segment_max(rows.clone(), order.clone(), offsets.clone()).expect("valid input");
        finish();
        largest
    });
}

fn main() {
    divan::main();
}
