//! Convolutions and linear layers against their definition in f64.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::shaders;
use geopurify::ops::conv2d::{Activation, PackedWeight, Precision, conv2d, linear};
use geopurify::ops::{OpError, float_tensor, float_values};
use half::{bf16, f16};

use crate::common::{Random, devices};
use crate::helpers::definition::{check, close, gelu, rounded, sizes};

const ACTIVATIONS: [Activation; 4] = [Activation::None, Activation::Relu, Activation::Gelu, Activation::QuickGelu];

fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => gelu(x),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
    }
}

/// A convolution with its values.
struct Conv {
    /// B, H, W, in.
    shape: [usize; 4],
    num_out: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    x: Vec<f32>,
    /// `[out, in, k, k]`.
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Conv {
    fn new(shape: [usize; 4], num_out: usize, [kernel, stride, padding]: [usize; 3], bias: bool) -> Self {
        let mut random = Random(11);
        let x = random.floats(shape.iter().product());
        let weight = random.floats(num_out * shape[3] * kernel * kernel);
        let bias = bias.then(|| random.floats(num_out));
        Self { shape, num_out, kernel, stride, padding, x, weight, bias }
    }

    fn linear(rows: usize, num_in: usize, num_out: usize) -> Self {
        Self::new([1, 1, rows, num_in], num_out, [1, 1, 0], true)
    }

    fn out_shape(&self) -> [usize; 4] {
        let size = |size: usize| {
            let room = size + 2 * self.padding;
            if room < self.kernel { 0 } else { (room - self.kernel) / self.stride + 1 }
        };
        [self.shape[0], size(self.shape[1]), size(self.shape[2]), self.num_out]
    }

    /// Every input pixel gives its share to the results whose kernel covers it.
    fn definition(&self, activation: Activation) -> Vec<f32> {
        let [batch, height, width, num_in] = self.shape;
        let [_, out_height, out_width, num_out] = self.out_shape();
        let mut out = vec![0.0; batch * out_height * out_width * num_out];
        // The result whose kernel has its element `i` on a row or column, if there is one.
        let target = |at: usize, i: usize, size: usize| {
            let shifted = (at + self.padding).checked_sub(i)?;
            (shifted.is_multiple_of(self.stride) && shifted / self.stride < size).then_some(shifted / self.stride)
        };
        for (pixel, x) in self.x.chunks_exact(num_in).enumerate() {
            let (image, y, column) = (pixel / (height * width), pixel / width % height, pixel % width);
            for i in 0..self.kernel {
                for j in 0..self.kernel {
                    let (Some(to_y), Some(to_x)) = (target(y, i, out_height), target(column, j, out_width)) else {
                        continue;
                    };
                    let to = &mut out[((image * out_height + to_y) * out_width + to_x) * num_out..][..num_out];
                    for (o, to) in to.iter_mut().enumerate() {
                        for (c, &x) in x.iter().enumerate() {
                            let at = ((o * num_in + c) * self.kernel + i) * self.kernel + j;
                            *to += f64::from(x) * f64::from(self.weight[at]);
                        }
                    }
                }
            }
        }
        for (i, to) in out.iter_mut().enumerate() {
            let bias = self.bias.as_ref().map_or(0.0, |bias| bias[i % num_out].into());
            *to = activate(*to + bias, activation);
        }
        rounded(out)
    }

    fn packed(&self, precision: Precision, device: &Device) -> PackedWeight {
        let extents = [self.num_out, self.shape[3], self.kernel];
        PackedWeight::new(&self.weight, self.bias.clone(), extents, precision, device).unwrap()
    }

    fn run(&self, activation: Activation, precision: Precision, device: &Device) -> Vec<f32> {
        let x = float_tensor(self.x.clone(), self.shape, device);
        let out = conv2d(x, &self.packed(precision, device), self.stride, self.padding, activation).unwrap();
        assert_eq!(out.dims(), self.out_shape());
        float_values(out).unwrap()
    }

    fn check(&self, activation: Activation) {
        let Self { shape, num_out, kernel, stride, padding, .. } = self;
        let what =
            format!("{shape:?} to {num_out}, kernel {kernel}, stride {stride}, padding {padding}, {activation:?}");
        check(&what, &self.definition(activation), |device| self.run(activation, Precision::F32, device));
    }
}

#[test]
fn convolutions_of_every_kernel_stride_and_padding_equal_the_definition() {
    let mut activations = ACTIVATIONS.into_iter().cycle();
    for kernel in [1, 3, 7] {
        for stride in [1, 2, 4] {
            for padding in 0..=3 {
                let conv = Conv::new([2, 9, 8, 5], 7, [kernel, stride, padding], padding != 2);
                conv.check(activations.next().unwrap());
            }
        }
        // Every activation with every kernel, also behind sums of both signs that are far from 0.
        for activation in ACTIVATIONS {
            Conv::new([1, 7, 11, 3], 9, [kernel, 1, kernel / 2], true).check(activation);
        }
        // The stem of a network: an image of three channels, strips and points.
        for [height, width] in [[1, 1], [1, 9], [9, 1], [2, 2]] {
            Conv::new([3, height, width, 3], 4, [kernel, 2, 3], false).check(Activation::None);
        }
    }
}

#[test]
fn products_of_every_size_around_the_tiles_equal_the_definition() {
    let tile = |tile| sizes(tile).into_iter();
    let rows = tile(shaders::conv2d::conv2d::ROWS).map(|rows| [rows, 19, 37]);
    let cols = tile(shaders::conv2d::conv2d::COLS).map(|cols| [70, 21, cols]);
    // The host takes 1024 terms at a time.
    let depths = tile(shaders::conv2d::conv2d::DEPTH).chain([1023, 1024, 1025]).map(|depth| [66, depth, 67]);
    for [rows, num_in, num_out] in rows.chain(cols).chain(depths).chain([[1, 1, 1], [65, 17, 65], [64, 16, 64]]) {
        Conv::linear(rows, num_in, num_out).check(Activation::None);
    }
    // Rows of a tile that belong to different images and lines, and more than one tile of columns and depth.
    Conv::new([3, 6, 7, 17], 65, [3, 1, 1], true).check(Activation::Gelu);
    Conv::new([2, 13, 5, 33], 3, [3, 2, 1], true).check(Activation::Relu);
}

#[test]
fn images_of_a_convolution_do_not_mix() {
    let conv = Conv::new([3, 6, 5, 4], 6, [3, 1, 1], true);
    for (name, device) in devices() {
        let together = conv.run(Activation::None, Precision::F32, &device);
        for image in 0..3 {
            let (size, out_size) = (6 * 5 * 4, 6 * 5 * 6);
            let x = float_tensor(conv.x[image * size..][..size].to_vec(), [1, 6, 5, 4], &device);
            let alone = conv2d(x, &conv.packed(Precision::F32, &device), 1, 1, Activation::None).unwrap();
            let alone = float_values(alone).unwrap();
            assert_eq!(alone, together[image * out_size..][..out_size], "{name}, image {image}");
        }
    }
}

#[test]
fn a_kernel_that_does_not_fit_gives_an_empty_result() {
    for (name, device) in devices() {
        for (shape, padding, expected) in [
            ([2, 3, 9, 4], 1, [2, 0, 5, 6]),
            ([2, 9, 4, 4], 1, [2, 5, 0, 6]),
            ([1, 1, 1, 4], 2, [1, 0, 0, 6]),
            ([0, 9, 9, 4], 0, [0, 3, 3, 6]),
        ] {
            let conv = Conv::new(shape, 6, [7, 1, padding], true);
            let x = float_tensor(conv.x.clone(), shape, &device);
            let out = conv2d(x, &conv.packed(Precision::F32, &device), 1, padding, Activation::Relu).unwrap();
            assert_eq!(out.dims(), expected, "{name}");
            assert!(float_values(out).unwrap().is_empty(), "{name}");
        }
        // The padding alone makes room for the kernel.
        let conv = Conv::new([1, 1, 1, 4], 6, [7, 1, 3], true);
        close(&name, &conv.run(Activation::None, Precision::F32, &device), &conv.definition(Activation::None));
    }
}

#[test]
fn a_linear_layer_takes_every_rank() {
    let conv = Conv::linear(24, 10, 12);
    let definition = conv.definition(Activation::QuickGelu);
    for (name, device) in devices() {
        let weight = conv.packed(Precision::F32, &device);
        assert_eq!(weight.num_out(), 12);
        let matrix = float_tensor(conv.x.clone(), [24, 10], &device);
        let sequences = float_tensor(conv.x.clone(), [3, 8, 10], &device);
        let images = float_tensor(conv.x.clone(), [2, 3, 4, 10], &device);
        let matrix = linear(matrix, &weight, Activation::QuickGelu).unwrap();
        let sequences = linear(sequences, &weight, Activation::QuickGelu).unwrap();
        let images = linear(images, &weight, Activation::QuickGelu).unwrap();
        assert_eq!((matrix.dims(), sequences.dims(), images.dims()), ([24, 12], [3, 8, 12], [2, 3, 4, 12]));
        let matrix = float_values(matrix).unwrap();
        close(&name, &matrix, &definition);
        assert_eq!(float_values(sequences).unwrap(), matrix, "{name}");
        assert_eq!(float_values(images).unwrap(), matrix, "{name}");
    }
}

#[test]
fn rows_on_the_device_pack_as_the_same_matrix_from_the_host() {
    for [rows, num_in, num_out] in [[5, 1, 1], [5, 17, 63], [70, 16, 64], [5, 33, 65], [3, 7, 200]] {
        let conv = Conv { bias: None, ..Conv::linear(rows, num_in, num_out) };
        for (name, device) in devices() {
            let x = float_tensor(conv.x.clone(), [rows, num_in], &device);
            let weight = float_tensor(conv.weight.clone(), [num_out, num_in], &device);
            let found = linear(x, &PackedWeight::from_rows(weight), Activation::None).unwrap();
            let expected = conv.run(Activation::None, Precision::F32, &device);
            assert_eq!(float_values(found).unwrap(), expected, "{name}, {num_in} to {num_out}");
        }
    }
}

#[test]
fn weights_of_16_bits_are_the_rounded_weights() {
    for (shape, num_out, kernel) in
        [([1, 1, 70, 37], 65, 1), ([2, 5, 6, 3], 9, 3), ([1, 8, 8, 17], 64, 7), ([1, 1, 1, 1], 1, 1)]
    {
        let conv = Conv::new(shape, num_out, [kernel, 1, kernel / 2], true);
        let weight = conv.weight.iter().map(|&w| f16::from_f32(w).to_f32()).collect();
        let conv_rounded = Conv { weight, x: conv.x.clone(), bias: conv.bias.clone(), ..conv };
        for activation in [Activation::None, Activation::Gelu] {
            let what = format!("{shape:?} to {num_out}, {activation:?}");
            check(&what, &conv_rounded.definition(activation), |device| {
                let half = conv.run(activation, Precision::F16, device);
                // The values are the same f32s when they are multiplied.
                close(&what, &half, &conv_rounded.run(activation, Precision::F32, device));
                half
            });
        }
    }
}

#[test]
fn products_in_bf16_are_those_of_rounded_values_and_weights() {
    let device = Device::flex();
    let round = |values: &[f32]| values.iter().map(|&value| bf16::from_f32(value).to_f32()).collect::<Vec<f32>>();
    for (shape, num_out, kernel) in [
        ([1, 1, 70, 37], 65, 1),
        ([2, 5, 6, 3], 9, 3),
        ([1, 8, 8, 17], 64, 7),
        ([1, 1, 1, 1], 1, 1),
        ([1, 1, 9, 1025], 33, 1),
    ] {
        let conv = Conv::new(shape, num_out, [kernel, 1, kernel / 2], true);
        let conv_rounded = Conv { weight: round(&conv.weight), x: round(&conv.x), bias: conv.bias.clone(), ..conv };
        for activation in [Activation::None, Activation::Gelu] {
            let found = conv.run(activation, Precision::Bf16, &device);
            close(&format!("{shape:?} to {num_out}, {activation:?}"), &found, &conv_rounded.definition(activation));
        }
    }
}

#[test]
fn weights_in_bf16_are_for_the_host_and_without_gradients() {
    let conv = Conv::linear(3, 4, 5);
    let extents = [5, 4, 1];
    for (name, device) in devices().into_iter().filter(|(_, device)| *device != Device::flex()) {
        let error = PackedWeight::new(&conv.weight, None, extents, Precision::Bf16, &device).unwrap_err();
        let expected = "conv2d: weights in bf16 on a GPU, expected f32 or f16 there";
        assert_eq!(error.to_string(), expected, "{name}");
    }
    let device = Device::flex();
    let x = Tensor::from_inner(float_tensor(conv.x.clone(), [3, 4], &device)).require_grad();
    let error = linear(x, &conv.packed(Precision::Bf16, &device), Activation::None).unwrap_err();
    assert_eq!(error.to_string(), "conv2d: weights in bf16, expected f32 or f16 where gradients are wanted");
}

#[test]
fn convolutions_refuse_what_does_not_fit_together() {
    let device = Device::flex();
    let new = |weight: &[f32], bias: Option<Vec<f32>>, extents| {
        PackedWeight::new(weight, bias, extents, Precision::F32, &device).map_err(|e| e.to_string())
    };
    let error = new(&[0.0; 5], None, [2, 3, 1]).unwrap_err();
    assert_eq!(error, "conv2d: a weight of 5 and a bias of 2 values, expected [2, 3, 1, 1] and [2]");
    let error = new(&[0.0; 54], Some(vec![0.0; 3]), [2, 3, 3]).unwrap_err();
    assert_eq!(error, "conv2d: a weight of 54 and a bias of 3 values, expected [2, 3, 3, 3] and [2]");
    let (small, large) = (new(&[0.0; 6], None, [2, 3, 1]).unwrap(), new(&[0.0; 54], None, [2, 3, 3]).unwrap());
    let error = conv2d(Tensor::zeros([1, 4, 5, 2], &device), &small, 1, 0, Activation::None).unwrap_err();
    assert_eq!(error.to_string(), "conv2d: x is [1, 4, 5, 2], expected [B, H, W, 3]");
    assert!(matches!(error, OpError::Shape { op: "conv2d", tensor: "x", .. }));
    let error = conv2d(Tensor::zeros([1, 4, 5, 3], &device), &small, 0, 0, Activation::None).unwrap_err();
    assert_eq!(error.to_string(), "conv2d: the stride is 0, expected 1 or more");
    let error = linear(Tensor::<2>::zeros([4, 3], &device), &large, Activation::None).unwrap_err();
    assert_eq!(error.to_string(), "conv2d: a kernel of edge 3, expected 1 for a linear layer");
    assert!(matches!(error, OpError::Value { op: "conv2d", .. }));
}

#[test]
fn a_linear_layer_of_nothing_gives_nothing() {
    for (name, device) in devices() {
        let weight = PackedWeight::new(&[0.5; 15], None, [3, 5, 1], Precision::F32, &device).unwrap();
        let rows = linear(Tensor::<2>::zeros([0, 5], &device), &weight, Activation::Gelu).unwrap();
        assert_eq!(rows.dims(), [0, 3], "{name}");
        let rows = linear(Tensor::<3>::zeros([2, 0, 5], &device), &weight, Activation::Gelu).unwrap();
        assert_eq!(rows.dims(), [2, 0, 3], "{name}");
        let rows = linear(Tensor::<4>::zeros([0, 2, 2, 5], &device), &weight, Activation::Gelu).unwrap();
        assert_eq!(rows.dims(), [0, 2, 2, 3], "{name}");
        let error = linear(Tensor::<2>::zeros([0, 4], &device), &weight, Activation::Gelu).unwrap_err();
        assert!(matches!(error, OpError::Shape { op: "conv2d", tensor: "x", .. }), "{name}: {error}");
        let weights = [
            PackedWeight::new(&[], None, [0, 5, 1], Precision::F32, &device).unwrap(),
            PackedWeight::from_rows(Tensor::zeros([0, 5], &device)),
        ];
        for weight in weights {
            let rows = linear(Tensor::<2>::zeros([4, 5], &device), &weight, Activation::Gelu).unwrap();
            assert_eq!(rows.dims(), [4, 0], "{name}");
        }
    }
}

#[test]
fn a_convolution_of_nothing_is_its_bias() {
    for (name, device) in devices() {
        // No channels, and no pixels but the padding.
        for (shape, padding) in [([1, 2, 3, 0], 0), ([1, 0, 0, 4], 1)] {
            let weight = vec![1.0; 3 * shape[3]];
            let bias = Some(vec![1.0, -2.0, 3.0]);
            let weight = PackedWeight::new(&weight, bias, [3, shape[3], 1], Precision::F32, &device).unwrap();
            let out = conv2d(Tensor::zeros(shape, &device), &weight, 1, padding, Activation::Relu).unwrap();
            for pixel in float_values(out).unwrap().chunks_exact(3) {
                assert_eq!(pixel, [1.0, 0.0, 3.0], "{name}, {shape:?}");
            }
        }
    }
}
