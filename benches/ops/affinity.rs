//! Softmax of 96 dot products of 128 channels per voxel; bytes are the rows read, without reuse.

use divan::counter::BytesCount;
use geopurify::ops::affinity::affinity;
use geopurify::ops::knn::knn_voxels;

use crate::common::{features, finish, room_coords, sizes};

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn voxels(bencher: divan::Bencher<'_, '_>, n: usize) {
    let neighbors = knn_voxels(room_coords(n), 96, false, 0..n).expect("valid input").index;
    let embedding = features(n, 128);
    bencher.counter(BytesCount::new(n * 96 * 128 * 4)).bench_local(|| {
        let weights = affinity(std::slice::from_ref(&embedding), neighbors.clone(), 0, 20.0).expect("valid input");
        finish();
        weights
    });
}
