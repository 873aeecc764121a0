//! The 96 nearest voxels of every voxel of a room, and of as many points; and the nearest of 200,000 points to others.

use divan::counter::ItemsCount;
use geopurify::ops::knn::{knn_between, knn_points, knn_voxels};

use crate::common::{features, finish, room_coords, sizes};

const POINTS: usize = 200_000;
const QUERIES: usize = POINTS / 10;

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn voxels(bencher: divan::Bencher<'_, '_>, n: usize) {
    let coords = room_coords(n);
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let found = knn_voxels(coords.clone(), 96, false, 0..n).expect("valid input");
        finish();
        found
    });
}

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn points(bencher: divan::Bencher<'_, '_>, n: usize) {
    let points = room_coords(n).float();
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let found = knn_points(points.clone(), 96, false, 0..n).expect("valid input");
        finish();
        found
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn nearest_of_others(bencher: divan::Bencher<'_, '_>) {
    let (queries, among) = (features(QUERIES, 3), features(POINTS, 3));
    bencher.counter(ItemsCount::new(QUERIES)).bench_local(|| {
        let found = knn_between(queries.clone(), among.clone(), 1).expect("valid input");
        finish();
        found
    });
}
