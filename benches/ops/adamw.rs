//! A step of AdamW on one parameter. Bytes are those of reading four arrays and writing three.

use burn::prelude::*;
use divan::counter::BytesCount;
use geopurify::training::{AdamW, AdamWConfig};

use crate::common::{device, finish};

#[divan::bench(args = [1_000_000, 7_077_888], sample_count = 10, sample_size = 1)]
fn step(bencher: divan::Bencher<'_, '_>, len: usize) {
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let gradient = Tensor::<1>::ones([len], &device());
    let mut values = Some(Tensor::<1>::ones([len], &device()));
    bencher.counter(BytesCount::new(7 * len * 4)).bench_local(|| {
        optimizer.begin_step();
        let taken = values.take().expect("put back every time");
        values = Some(optimizer.update("p", taken, gradient.clone(), 1e-4).expect("equal lengths"));
        finish();
    });
}
