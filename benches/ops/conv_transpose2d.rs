//! LSeg's transposed convolution of the finest level: 40 x 40 patches with 256 channels, kernel 4. Items are
//! floating-point operations, two per multiply-add: items per second are FLOP/s.

use divan::counter::ItemsCount;
use geopurify::ops::conv_transpose2d::{TransposedWeight, conv_transpose2d};
use geopurify::ops::conv2d::Precision;
use geopurify::ops::float_values;

use crate::common::{device, features, finish};

const SIDE: usize = 40;
const CHANNELS: usize = 256;
const KERNEL: usize = 4;

#[divan::bench(sample_count = 10, sample_size = 1)]
fn patches_40_to_160(bencher: divan::Bencher<'_, '_>) {
    let map = features(SIDE * SIDE, CHANNELS).reshape([1, SIDE, SIDE, CHANNELS]);
    let weight = float_values(features(CHANNELS, CHANNELS * KERNEL * KERNEL)).expect("the device gives values");
    let extents = [CHANNELS, CHANNELS, KERNEL];
    let weight =
        TransposedWeight::new(&weight, &[0.0; CHANNELS], extents, Precision::F32, &device()).expect("valid input");
    let flop = 2 * SIDE * SIDE * CHANNELS * CHANNELS * KERNEL * KERNEL;
    bencher.counter(ItemsCount::new(flop)).bench_local(|| {
        let out = conv_transpose2d(map.clone(), &weight).expect("valid input");
        finish();
        out
    });
}
