//! Building the table of a room's voxels and looking every one of them up.

use divan::counter::ItemsCount;
use geopurify::ops::hash_grid::lookup;

use crate::common::{finish, room_batched, sizes};

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn voxels(bencher: divan::Bencher<'_, '_>, n: usize) {
    let coords = room_batched(n);
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let found = lookup(coords.clone(), coords.clone()).expect("valid input");
        finish();
        found
    });
}
