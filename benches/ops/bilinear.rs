//! Bilinear resampling in LSeg's decoder: the map of the finest level, 160 x 160 with 256 channels, to twice its size.
//! Bytes are the map read and the result written once each.

use divan::counter::BytesCount;
use geopurify::ops::bilinear::{Corners, bilinear};

use crate::common::{features, finish};

const SIDE: usize = 160;
const CHANNELS: usize = 256;

#[divan::bench(sample_count = 10, sample_size = 1)]
fn map_160_to_320(bencher: divan::Bencher<'_, '_>) {
    let map = features(SIDE * SIDE, CHANNELS).reshape([1, SIDE, SIDE, CHANNELS]);
    bencher.counter(BytesCount::new(5 * SIDE * SIDE * CHANNELS * 4)).bench_local(|| {
        let out = bilinear(map.clone(), [2 * SIDE, 2 * SIDE], Corners::Aligned).expect("valid input");
        finish();
        out
    });
}
