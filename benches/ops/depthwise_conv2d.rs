//! The depthwise 3 x 3 convolution of the small X-Decoder's first stage, beside burn's grouped one. Items are
//! bytes read and written once.

use burn::prelude::*;
use burn::tensor::module::conv2d as burn_conv2d;
use burn::tensor::ops::ConvOptions;
use divan::counter::BytesCount;
use geopurify::ops::depthwise_conv2d::depthwise_conv2d;

use crate::common::{device, features, finish};

const SHAPE: [usize; 4] = [1, 128, 168, 96];

fn x() -> Tensor<4> {
    features(SHAPE[1] * SHAPE[2], SHAPE[3]).reshape(SHAPE)
}

fn bytes() -> BytesCount {
    BytesCount::new(2 * 4 * SHAPE.iter().product::<usize>())
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn ours(bencher: divan::Bencher<'_, '_>) {
    let (x, weight, bias) = (x(), features(9, SHAPE[3]), Tensor::<1>::zeros([SHAPE[3]], &device()));
    bencher.counter(bytes()).bench_local(|| {
        let out = depthwise_conv2d(x.clone(), weight.clone(), bias.clone(), 3).expect("valid input");
        finish();
        out
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn burn(bencher: divan::Bencher<'_, '_>) {
    let x = features(SHAPE[3], SHAPE[1] * SHAPE[2]).reshape([1, SHAPE[3], SHAPE[1], SHAPE[2]]);
    let weight = features(SHAPE[3], 9).reshape([SHAPE[3], 1, 3, 3]);
    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], SHAPE[3]);
    bencher.counter(bytes()).bench_local(|| {
        let out = burn_conv2d(x.clone(), weight.clone(), None, options.clone());
        finish();
        out
    });
}
