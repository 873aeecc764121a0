//! Convolutions and linear layers of X-Decoder on one 648 x 484 view, in f32 and with weights of 16 bits, and
//! beside each burn's own on the same device: its convolution, or its matrix product, bias and activation.
//! Items are floating-point operations, two per multiply-add: items per second are FLOP/s.

use burn::prelude::*;
use burn::tensor::activation::{gelu, relu};
use burn::tensor::module;
use burn::tensor::ops::ConvOptions;
use divan::counter::ItemsCount;
use geopurify::ops::conv2d::{Activation, PackedWeight, Precision, conv2d, linear};
use geopurify::ops::float_values;

use crate::common::{device, features, finish};

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::F16];

/// The 3 x 3 convolutions of the pixel decoder at the finest map.
const HEIGHT: usize = 128;
const WIDTH: usize = 168;
const CHANNELS: usize = 512;
const CONV_FLOP: usize = 2 * HEIGHT * WIDTH * 9 * CHANNELS * CHANNELS;

fn pack(num_out: usize, num_in: usize, kernel: usize, precision: Precision) -> PackedWeight {
    let weight = float_values(features(num_out, num_in * kernel * kernel)).expect("the device gives values");
    let bias = float_values(features(1, num_out)).expect("the device gives values");
    PackedWeight::new(&weight, Some(bias), [num_out, num_in, kernel], precision, &device()).expect("valid input")
}

#[divan::bench(args = PRECISIONS, sample_count = 3, sample_size = 1)]
fn conv_3x3(bencher: divan::Bencher<'_, '_>, precision: Precision) {
    let x = features(HEIGHT * WIDTH, CHANNELS).reshape([1, HEIGHT, WIDTH, CHANNELS]);
    let weight = pack(CHANNELS, CHANNELS, 3, precision);
    bencher.counter(ItemsCount::new(CONV_FLOP)).bench_local(|| {
        let out = conv2d(x.clone(), &weight, 1, 1, Activation::None).expect("valid input");
        finish();
        out
    });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn conv_3x3_of_burn(bencher: divan::Bencher<'_, '_>) {
    let x = features(CHANNELS, HEIGHT * WIDTH).reshape([1, CHANNELS, HEIGHT, WIDTH]);
    let weight = features(CHANNELS, 9 * CHANNELS).reshape([CHANNELS, CHANNELS, 3, 3]);
    let bias = features(1, CHANNELS).reshape([CHANNELS]);
    bencher.counter(ItemsCount::new(CONV_FLOP)).bench_local(|| {
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let out = module::conv2d(x.clone(), weight.clone(), Some(bias.clone()), options);
        finish();
        out
    });
}

/// A convolution of a small model in training: 64 channels on four maps of 48 x 64.
const SMALL: [usize; 4] = [4, 48, 64, 64];
/// A linear layer of one, from 32 to 128 channels.
const SMALL_ROWS: [usize; 3] = [12_288, 32, 128];

/// Input and weight `[out, in, k, k]` that track gradients.
fn tracked(shape: [usize; 4], num_out: usize, kernel: usize) -> (Tensor<4>, Tensor<4>) {
    let with_gradient = |tensor: Tensor<2>, shape: [usize; 4]| Tensor::from_inner(tensor.reshape(shape)).require_grad();
    let [batch, height, width, num_in] = shape;
    let x = with_gradient(features(batch * height * width, num_in), shape);
    let weight = features(num_out, num_in * kernel * kernel);
    (x, with_gradient(weight, [num_out, num_in, kernel, kernel]))
}

/// The forward pass of a layer that is trained, packing included.
fn forward(x: &Tensor<4>, weight: &Tensor<4>, activation: Activation) -> Tensor<4> {
    let packed = PackedWeight::from_tensor(weight.clone()).expect("valid input");
    conv2d(x.clone(), &packed, 1, weight.dims()[2] / 2, activation).expect("valid input")
}

fn train(bencher: divan::Bencher<'_, '_>, (x, weight): (Tensor<4>, Tensor<4>), activation: Activation) {
    bencher
        .with_inputs(|| {
            let loss = forward(&x, &weight, activation).sum();
            finish();
            loss
        })
        .bench_local_values(|loss| {
            let gradients = loss.backward();
            finish();
            gradients
        });
}

fn flop([batch, height, width, num_in]: [usize; 4], num_out: usize, kernel: usize) -> usize {
    2 * batch * height * width * num_in * num_out * kernel * kernel
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn small_conv_forward(bencher: divan::Bencher<'_, '_>) {
    let (x, weight) = tracked(SMALL, 64, 3);
    bencher.counter(ItemsCount::new(flop(SMALL, 64, 3))).bench_local(|| {
        let out = forward(&x, &weight, Activation::None);
        finish();
        out
    });
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn small_conv_backward(bencher: divan::Bencher<'_, '_>) {
    train(bencher.counter(ItemsCount::new(2 * flop(SMALL, 64, 3))), tracked(SMALL, 64, 3), Activation::None);
}

#[divan::bench(args = [Activation::None, Activation::Gelu], sample_count = 20, sample_size = 1)]
fn small_linear_forward(bencher: divan::Bencher<'_, '_>, activation: Activation) {
    let [rows, num_in, num_out] = SMALL_ROWS;
    let (x, weight) = tracked([1, 1, rows, num_in], num_out, 1);
    bencher.counter(ItemsCount::new(2 * rows * num_in * num_out)).bench_local(|| {
        let out = forward(&x, &weight, activation);
        finish();
        out
    });
}

#[divan::bench(args = [Activation::None, Activation::Gelu], sample_count = 20, sample_size = 1)]
fn small_linear_backward(bencher: divan::Bencher<'_, '_>, activation: Activation) {
    let [rows, num_in, num_out] = SMALL_ROWS;
    let bencher = bencher.counter(ItemsCount::new(4 * rows * num_in * num_out));
    train(bencher, tracked([1, 1, rows, num_in], num_out, 1), activation);
}

fn ours(
    bencher: divan::Bencher<'_, '_>,
    [rows, num_in, num_out]: [usize; 3],
    activation: Activation,
    precision: Precision,
) {
    let (x, weight) = (features(rows, num_in), pack(num_out, num_in, 1, precision));
    bencher.counter(ItemsCount::new(2 * rows * num_in * num_out)).bench_local(|| {
        let out = linear(x.clone(), &weight, activation).expect("valid input");
        finish();
        out
    });
}

fn of_burn(
    bencher: divan::Bencher<'_, '_>,
    [rows, num_in, num_out]: [usize; 3],
    activation: impl Fn(Tensor<2>) -> Tensor<2>,
) {
    let (x, weight, bias) = (features(rows, num_in), features(num_in, num_out), features(1, num_out));
    bencher.counter(ItemsCount::new(2 * rows * num_in * num_out)).bench_local(|| {
        let out = activation(x.clone().matmul(weight.clone()) + bias.clone());
        finish();
        out
    });
}

/// The first layer of a block's MLP in the third stage of the backbone.
const MLP: [usize; 3] = [1344, 768, 3072];
/// The first layer of the decoder's feed-forward networks, one row per query.
const QUERIES: [usize; 3] = [201, 512, 2048];

#[divan::bench(args = PRECISIONS, sample_count = 10, sample_size = 1)]
fn linear_gelu_1344x768_to_3072(bencher: divan::Bencher<'_, '_>, precision: Precision) {
    ours(bencher, MLP, Activation::Gelu, precision);
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn linear_gelu_1344x768_to_3072_of_burn(bencher: divan::Bencher<'_, '_>) {
    of_burn(bencher, MLP, gelu);
}

#[divan::bench(args = PRECISIONS, sample_count = 30, sample_size = 1)]
fn linear_relu_201x512_to_2048(bencher: divan::Bencher<'_, '_>, precision: Precision) {
    ours(bencher, QUERIES, Activation::Relu, precision);
}

#[divan::bench(sample_count = 30, sample_size = 1)]
fn linear_relu_201x512_to_2048_of_burn(bencher: divan::Bencher<'_, '_>) {
    of_burn(bencher, QUERIES, relu);
}
