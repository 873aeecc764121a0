//! The next coarser level of a room.

use divan::counter::ItemsCount;
use geopurify::ops::stride_map::stride_map;

use crate::common::{finish, room_batched, sizes};

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn voxels(bencher: divan::Bencher<'_, '_>, n: usize) {
    let coords = room_batched(n);
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let map = stride_map(coords.clone()).expect("valid input");
        finish();
        map
    });
}
