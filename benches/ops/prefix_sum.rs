//! The prefix sum, seen through compaction, which is little else, at a size of three levels of blocks. Items are
//! the summed values.

use divan::counter::ItemsCount;
use geopurify::ops::compact::compact;
use geopurify::ops::int_tensor;

use crate::common::{device, finish};

#[divan::bench(args = [8_000_000], sample_count = 5, sample_size = 1)]
fn values(bencher: divan::Bencher<'_, '_>, len: usize) {
    let index = int_tensor((0..len as i32).map(|i| i % 3 - 1).collect(), [len], &device());
    bencher.counter(ItemsCount::new(len)).bench_local(|| {
        let out = compact(index.clone()).expect("valid input");
        finish();
        out
    });
}
