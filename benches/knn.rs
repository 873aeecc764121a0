//! The 96 nearest voxels of every voxel of a room, and of as many points.

mod common;

use common::{finish, room_coords, sizes};
use divan::counter::ItemsCount;
use geopurify::ops::knn::{knn_points, knn_voxels};

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

fn main() {
    divan::main();
}
