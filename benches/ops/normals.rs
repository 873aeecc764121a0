//! Normals from 30 neighbours; the search for them is not counted.

use divan::counter::ItemsCount;
use geopurify::ops::knn::knn_points;
use geopurify::ops::normals::{Orientation, normals};

use crate::common::{finish, room_coords, sizes};

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn points(bencher: divan::Bencher<'_, '_>, n: usize) {
    let points = room_coords(n).float();
    let neighbors = knn_points(points.clone(), 30, false, 0..n).expect("valid input").index;
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let found = normals(points.clone(), neighbors.clone(), 0, Orientation::Up).expect("valid input");
        finish();
        found
    });
}
