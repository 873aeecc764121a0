//! Grouping points by voxel, four points a voxel: encoding, radix sort, prefix sum, numbering.

use divan::counter::ItemsCount;
use geopurify::ops::int_tensor;
use geopurify::ops::voxel_grid::voxel_grid;

use crate::common::{device, finish, room, sizes};

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn points(bencher: divan::Bencher<'_, '_>, n: usize) {
    let voxels = room(n.div_ceil(4));
    let coords: Vec<i32> = (0..n)
        .flat_map(|i| {
            let v = voxels[(i * 7919) % voxels.len()];
            [0, v[0], v[1], v[2]]
        })
        .collect();
    let coords = int_tensor(coords, [n, 4], &device());
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let grid = voxel_grid(coords.clone()).expect("valid input");
        finish();
        grid
    });
}
