//! The radix sort, seen through the order of voxels along one curve, which is little else. Items are keys.

use divan::counter::ItemsCount;
use geopurify::ops::serialization::{Curve, serialization};

use crate::common::{finish, room_batched, sizes};

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn keys(bencher: divan::Bencher<'_, '_>, n: usize) {
    let coords = room_batched(n);
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let serialized = serialization(coords.clone(), &[Curve::Z]).expect("valid input");
        finish();
        serialized
    });
}
