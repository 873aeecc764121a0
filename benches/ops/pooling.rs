//! 19 applications of A with 96 neighbours: 64 channels at every size, 518 at 20,000 voxels. Bytes
//! are the rows read, without reuse.

use divan::counter::BytesCount;
use geopurify::ops::affinity::affinity;
use geopurify::ops::knn::knn_voxels;
use geopurify::ops::pooling::{AffinityRows, pooling};

use crate::common::{features, finish, room_coords, sizes};

const ITERATIONS: usize = 19;

fn pool(bencher: divan::Bencher<'_, '_>, n: usize, channels: usize) {
    let neighbors = knn_voxels(room_coords(n), 96, false, 0..n).expect("valid input").index;
    let weights = affinity(&[features(n, 16)], neighbors.clone(), 0, 20.0).expect("valid input");
    let matrix = [AffinityRows { neighbors, weights }];
    let x = features(n, channels);
    bencher.counter(BytesCount::new(n * 96 * channels * 4 * ITERATIONS)).bench_local(|| {
        let pooled = pooling(x.clone(), &matrix, ITERATIONS).expect("valid input");
        finish();
        pooled
    });
}

#[divan::bench(args = sizes(), sample_count = 3, sample_size = 1)]
fn channels_64(bencher: divan::Bencher<'_, '_>, n: usize) {
    pool(bencher, n, 64);
}

#[divan::bench(args = [20_000], sample_count = 3, sample_size = 1)]
fn channels_518(bencher: divan::Bencher<'_, '_>, n: usize) {
    pool(bencher, n, 518);
}
