//! What has an index before what has none, a fifth of all. Items are points.

use divan::counter::ItemsCount;
use geopurify::ops::compact::compact;
use geopurify::ops::int_tensor;

use crate::common::{device, finish};

#[divan::bench(args = [10_000, 1_000_000], sample_count = 10, sample_size = 1)]
fn points(bencher: divan::Bencher<'_, '_>, points: usize) {
    let index = |i: usize| if (i * 7919).is_multiple_of(5) { i as i32 } else { -1 };
    let index = int_tensor((0..points).map(index).collect(), [points], &device());
    bencher.counter(ItemsCount::new(points)).bench_local(|| {
        let out = compact(index.clone()).expect("valid input");
        finish();
        out
    });
}
