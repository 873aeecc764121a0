//! Voxels of a room along each of the four curves. Items are voxels of all four.

use divan::counter::ItemsCount;
use geopurify::ops::serialization::{Curve, serialization};

use crate::common::{finish, room_batched, sizes};

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn voxels(bencher: divan::Bencher<'_, '_>, n: usize) {
    let coords = room_batched(n);
    bencher.counter(ItemsCount::new(4 * n)).bench_local(|| {
        let serialized = serialization(coords.clone(), &Curve::ALL).expect("valid input");
        finish();
        serialized
    });
}
