//! The dense operations of the image models (convolution, norms, focal modulation, attention, resampling) on
//! every device: against their definitions, written here in f64 without a thought for speed, and against the
//! host's twin, at the sizes where kernels break: one, a tile minus, exactly and plus one, several
//! workgroups, and past the fold of the dispatch.

mod common;

use burn::prelude::*;
use burn::tensor::Device;
use common::{Random, devices};
use geopurify::gpu::{Limits, shaders, with_limits};
use geopurify::ops::attention::{MAX_HEAD_DIM, Mask, attention};
use geopurify::ops::bicubic_antialias::bicubic_antialias;
use geopurify::ops::conv2d::{Activation, PackedWeight, Precision, conv2d, linear};
use geopurify::ops::depthwise_conv2d::depthwise_conv2d;
use geopurify::ops::focal_modulation::{Levels, focal_modulation};
use geopurify::ops::group_norm::{Epilogue, group_norm};
use geopurify::ops::layer_norm::{Fusion, layer_norm};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor};
use half::f16;

/// f32 sums of at most a thousand terms of order one, in another order and behind an error function that is
/// off by 4e-7. Relative to the values, or to one where they are smaller: what is left of terms of order one
/// that cancel, as in the left tail of a GELU, has their rounding.
const ROUNDING: f64 = 2e-6;

const EPSILON: f32 = 1e-5;

const ACTIVATIONS: [Activation; 4] = [Activation::None, Activation::Relu, Activation::Gelu, Activation::QuickGelu];

/// Root of the mean square of the difference, in units of the larger of that of `expected` and 1.
fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let squares = |value: &dyn Fn(usize) -> f64| (0..found.len()).map(|i| value(i).powi(2)).sum::<f64>();
    let norm = squares(&|i| f64::from(expected[i])).max(found.len().max(1) as f64);
    (squares(&|i| f64::from(found[i]) - f64::from(expected[i])) / norm).sqrt()
}

#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f32]) {
    let difference = difference(found, expected);
    assert!(difference <= ROUNDING, "{what}: {difference:e}");
}

/// Runs `on` on every device, plainly and with dispatches folded after three workgroups: the result is that of
/// the definition and of the host's twin, and the fold changes no bit of it.
#[track_caller]
fn check(what: &str, definition: &[f32], on: impl Fn(&Device) -> Vec<f32>) {
    let twin = on(&Device::flex());
    for (name, device) in devices() {
        let found = on(&device);
        close(&format!("{name}, {what}, definition"), &found, definition);
        close(&format!("{name}, {what}, twin"), &found, &twin);
        let folded = Limits { max_binding_bytes: u64::MAX, max_workgroups: 3 };
        let folded = with_limits(folded, || on(&device));
        assert!(folded == found, "{name}, {what}: folded {:e}", difference(&folded, &found));
    }
}

/// Sizes around a tile of `tile`, and of several tiles.
fn sizes(tile: u32) -> [usize; 5] {
    let tile = tile as usize;
    [1, tile - 1, tile, tile + 1, 5 * tile + 3]
}

fn rounded(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|x| x as f32).collect()
}

/// (2 / √π) · e^(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n + 1)!!, whose terms all have one sign.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut total) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        total += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * total
}

fn gelu(x: f64) -> f64 {
    x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => gelu(x),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
    }
}

#[test]
fn the_error_function_here_has_its_known_values() {
    for (x, expected) in [(0.0, 0.0), (0.5, 0.520_499_877_813_046_5), (-1.0, -0.842_700_792_949_714_9)] {
        assert!((erf(x) - expected).abs() < 1e-15);
    }
    assert!((erf(3.0) - 0.999_977_909_503_001_4).abs() < 1e-14 && erf(-9.0) == -1.0);
    assert_eq!(difference(&[1.0, 0.0], &[1.0, 0.0]), 0.0);
    assert_eq!(difference(&[3.0], &[4.0]), 0.25);
    assert_eq!(difference(&[0.0], &[0.5]), 0.5);
    assert!(difference(&[f32::NAN], &[1.0]).is_nan());
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
    // The host takes 256 terms at a time.
    let depths = tile(shaders::conv2d::conv2d::DEPTH).chain([255, 256, 257]).map(|depth| [66, depth, 67]);
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

/// x + other, or residual and scale, of a layer norm.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Variant {
    Nothing,
    Add,
    Residual,
}

struct LayerNorm {
    num_rows: usize,
    dim: usize,
    x: Vec<f32>,
    /// What is added before, or the residual.
    other: Vec<f32>,
    scale: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl LayerNorm {
    fn new(num_rows: usize, dim: usize) -> Self {
        let mut random = Random(21);
        let [x, other] = [(); 2].map(|()| random.floats(num_rows * dim));
        let [scale, weight, bias] = [(); 3].map(|()| random.floats(dim));
        Self { num_rows, dim, x, other, scale, weight, bias }
    }

    fn definition(&self, variant: Variant) -> Vec<f32> {
        let mut out = Vec::new();
        for (x, other) in self.x.chunks_exact(self.dim).zip(self.other.chunks_exact(self.dim)) {
            let before = |c: usize| f64::from(x[c]) + if variant == Variant::Add { other[c].into() } else { 0.0 };
            let row: Vec<f64> = (0..self.dim).map(before).collect();
            let mean = row.iter().sum::<f64>() / self.dim as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / self.dim as f64;
            let spread = (variance + f64::from(EPSILON)).sqrt();
            out.extend((0..self.dim).map(|c| {
                let normal = (row[c] - mean) / spread * f64::from(self.weight[c]) + f64::from(self.bias[c]);
                match variant {
                    Variant::Residual => f64::from(other[c]) + f64::from(self.scale[c]) * normal,
                    Variant::Nothing | Variant::Add => normal,
                }
            }));
        }
        rounded(out)
    }

    fn run(&self, variant: Variant, device: &Device) -> Vec<f32> {
        let Self { num_rows, dim, .. } = *self;
        let rows = |values: &Vec<f32>| float_tensor(values.clone(), [num_rows, dim], device);
        let vector = |values: &Vec<f32>| float_tensor(values.clone(), [dim], device);
        let around = match variant {
            Variant::Nothing => Fusion::Nothing,
            Variant::Add => Fusion::Add(rows(&self.other)),
            Variant::Residual => {
                Fusion::Residual { residual: rows(&self.other), scale: vector(&self.scale).unsqueeze() }
            }
        };
        let out = layer_norm(rows(&self.x), &vector(&self.weight), &vector(&self.bias), EPSILON, around).unwrap();
        assert_eq!(out.dims(), [num_rows, dim]);
        float_values(out).unwrap()
    }
}

#[test]
fn layer_norms_of_every_width_equal_the_definition() {
    let wg = shaders::layer_norm::layer_norm::WG;
    // A task of the host holds 16,384 values: 300 rows of 65 are two of them, and 3 of 20,000 one each.
    let many = [[300, 65], [3, 20_000], [7, 2], [2, 17]];
    for [num_rows, dim] in sizes(wg).map(|dim| [4, dim]).into_iter().chain([1, 2, 3].map(|n| [n, 100])).chain(many) {
        let norm = LayerNorm::new(num_rows, dim);
        for variant in [Variant::Nothing, Variant::Add, Variant::Residual] {
            let what = format!("{num_rows} rows of {dim}, {variant:?}");
            // One value has no spread: the result is the bias, whatever the rounding of the mean.
            check(&what, &norm.definition(variant), |device| norm.run(variant, device));
        }
    }
}

#[test]
fn a_layer_norm_takes_every_rank() {
    let norm = LayerNorm::new(24, 10);
    for (name, device) in devices() {
        let vector = |values: &Vec<f32>| float_tensor(values.clone(), [10], &device);
        let (weight, bias) = (vector(&norm.weight), vector(&norm.bias));
        let images = |values: &Vec<f32>| float_tensor(values.clone(), [2, 3, 4, 10], &device);
        let around = Fusion::Residual { residual: images(&norm.other), scale: vector(&norm.scale).unsqueeze() };
        let out = layer_norm(images(&norm.x), &weight, &bias, EPSILON, around).unwrap();
        assert_eq!(out.dims(), [2, 3, 4, 10]);
        assert_eq!(float_values(out).unwrap(), norm.run(Variant::Residual, &device), "{name}");
        let row = float_tensor(norm.x[..10].to_vec(), [10], &device);
        let out = layer_norm(row, &weight, &bias, EPSILON, Fusion::Nothing).unwrap();
        assert_eq!(float_values(out).unwrap(), norm.run(Variant::Nothing, &device)[..10], "{name}");
    }
}

#[test]
fn a_layer_norm_of_constant_rows_is_its_bias() {
    for (dim, value) in [(1, 0.3), (5, -3.0), (128, 0.1), (1000, 7.7)] {
        let norm = LayerNorm { x: vec![value; 3 * dim], ..LayerNorm::new(3, dim) };
        // The mean is off by a rounding per addition of a lane (16 on the host, 128 on a GPU) and per lane,
        // and a few of the division, and no variance hides that: it comes out times 1 / √ε.
        let additions = (dim / 16 + 16 + 4) as f32;
        let tolerance = additions * f32::EPSILON / 2.0 * value.abs() / EPSILON.sqrt();
        for (name, device) in devices() {
            for (i, found) in norm.run(Variant::Nothing, &device).iter().enumerate() {
                let expected = norm.bias[i % dim];
                assert!((found - expected).abs() <= tolerance, "{name}, {dim} times {value}: {found} {expected}");
            }
        }
    }
}

#[test]
fn a_layer_norm_keeps_a_small_spread_beside_a_large_offset() {
    let (offset, spread) = (1e3, 0.5);
    for dim in [64, 200, 768] {
        let norm = LayerNorm::new(5, dim);
        let x = norm.x.iter().map(|x| offset + spread * x).collect();
        let norm = LayerNorm { x, weight: vec![1.0; dim], ..norm };
        // As for constant rows: the mean is off by a rounding of the offset per addition. Uniform values of
        // ±spread have a deviation of spread / √3, and that of 64 of them is at least three quarters of it.
        // A variance by E[x²] − E[x]² would be off by a rounding of offset² / spread² = 4e6: nothing is left.
        let additions = (dim / 16 + 16 + 4) as f32;
        let tolerance = additions * f32::EPSILON / 2.0 * offset / (0.75 * spread / 3.0_f32.sqrt());
        let definition = norm.definition(Variant::Nothing);
        for (name, device) in devices() {
            for (found, expected) in norm.run(Variant::Nothing, &device).iter().zip(&definition) {
                assert!((found - expected).abs() <= tolerance, "{name}, {dim} channels: {found} {expected}");
            }
        }
    }
}

#[test]
fn layer_norms_refuse_what_does_not_fit_together() {
    let device = Device::flex();
    let (x, good, bad) =
        (Tensor::<2>::zeros([4, 3], &device), Tensor::zeros([3], &device), Tensor::zeros([2], &device));
    let norm = |weight, bias, around| layer_norm(x.clone(), weight, bias, EPSILON, around).unwrap_err().to_string();
    assert_eq!(norm(&bad, &good, Fusion::Nothing), "layer_norm: weight is [2], expected [C = 3]");
    assert_eq!(norm(&good, &bad, Fusion::Nothing), "layer_norm: bias is [2], expected [C = 3]");
    let other = Tensor::zeros([3, 3], &device);
    assert_eq!(norm(&good, &good, Fusion::Add(other.clone())), "layer_norm: other is [3, 3], expected [4, 3]");
    let around = Fusion::Residual { residual: other, scale: Tensor::zeros([1, 3], &device) };
    assert_eq!(norm(&good, &good, around), "layer_norm: residual is [3, 3], expected [4, 3]");
}

#[test]
fn a_layer_norm_refuses_a_scale_of_another_width() {
    let device = Device::flex();
    let (x, vector) = (Tensor::<2>::zeros([4, 3], &device), Tensor::zeros([3], &device));
    for shape in [[1, 2], [4, 3]] {
        let around = Fusion::Residual { residual: x.clone(), scale: Tensor::zeros(shape, &device) };
        let error = layer_norm(x.clone(), &vector, &vector, EPSILON, around).unwrap_err();
        assert!(matches!(error, OpError::Shape { op: "layer_norm", tensor: "scale", .. }), "{error}");
    }
}

/// What a group norm is given.
struct GroupNorm {
    shape: [usize; 4],
    num_groups: usize,
    x: Vec<f32>,
    coarse: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl GroupNorm {
    fn new(shape: [usize; 4], num_groups: usize) -> Self {
        let [batch, height, width, dim] = shape;
        let mut random = Random(31);
        // A different mean for every image and channel, so that nothing may be mixed up.
        let value = |i: usize| (i / (height * width * dim)) as f32 - (i % dim % 3) as f32;
        let x = (0..shape.iter().product()).map(|i| value(i) + random.signed()).collect();
        let coarse = random.floats(batch * (height / 2) * (width / 2) * dim);
        let [weight, bias] = [(); 2].map(|()| random.floats(dim));
        Self { shape, num_groups, x, coarse, weight, bias }
    }

    fn definition(&self, epilogue: Epilogue<()>) -> Vec<f32> {
        let [batch, height, width, dim] = self.shape;
        let group = dim / self.num_groups;
        let at = |image: usize, pixel: usize, channel: usize| (image * height * width + pixel) * dim + channel;
        let mut out = vec![0.0; self.x.len()];
        for image in 0..batch {
            for first in (0..dim).step_by(group) {
                let all: Vec<usize> = (0..height * width)
                    .flat_map(|pixel| (first..first + group).map(move |channel| at(image, pixel, channel)))
                    .collect();
                let mean = all.iter().map(|&i| f64::from(self.x[i])).sum::<f64>() / all.len() as f64;
                let squares = all.iter().map(|&i| (f64::from(self.x[i]) - mean).powi(2)).sum::<f64>();
                let spread = (squares / all.len() as f64 + f64::from(EPSILON)).sqrt();
                for i in all {
                    let (channel, column, y) = (i % dim, i / dim % width, i / dim / width % height);
                    let normal = (f64::from(self.x[i]) - mean) / spread;
                    let normal = normal * f64::from(self.weight[channel]) + f64::from(self.bias[channel]);
                    out[i] = match epilogue {
                        Epilogue::Nothing => normal,
                        Epilogue::Relu => normal.max(0.0),
                        Epilogue::AddUpsampled(()) => {
                            let pixel = (image * (height / 2) + y / 2) * (width / 2) + column / 2;
                            normal + f64::from(self.coarse[pixel * dim + channel])
                        }
                    };
                }
            }
        }
        rounded(out)
    }

    fn run(&self, epilogue: Epilogue<()>, device: &Device) -> Vec<f32> {
        let [batch, height, width, dim] = self.shape;
        let x = float_tensor(self.x.clone(), self.shape, device);
        let [weight, bias] = [&self.weight, &self.bias].map(|values| float_tensor(values.clone(), [dim], device));
        let epilogue = match epilogue {
            Epilogue::Nothing => Epilogue::Nothing,
            Epilogue::Relu => Epilogue::Relu,
            Epilogue::AddUpsampled(()) => {
                Epilogue::AddUpsampled(float_tensor(self.coarse.clone(), [batch, height / 2, width / 2, dim], device))
            }
        };
        let out = group_norm(x, &weight, &bias, self.num_groups, EPSILON, epilogue).unwrap();
        assert_eq!(out.dims(), self.shape);
        float_values(out).unwrap()
    }

    fn check(&self) {
        let [_, height, width, _] = self.shape;
        let mut epilogues = vec![Epilogue::Nothing, Epilogue::Relu];
        if height % 2 == 0 && width % 2 == 0 {
            epilogues.push(Epilogue::AddUpsampled(()));
        }
        for epilogue in epilogues {
            let what = format!("{:?}, {} groups, {epilogue:?}", self.shape, self.num_groups);
            check(&what, &self.definition(after), |device| self.run(after, device));
        }
    }
}

#[test]
fn group_norms_equal_the_definition() {
    for num_groups in [1, 2, 3, 6] {
        GroupNorm::new([2, 6, 8, 6], num_groups).check();
        GroupNorm::new([3, 5, 7, 6], num_groups).check();
    }
    // A group of as many values as the workgroup that sums it has threads, and an image of as many as the one
    // that normalises it.
    for count in sizes(shaders::group_norm::moments::WG).into_iter().chain(sizes(shaders::group_norm::normalize::WG)) {
        GroupNorm::new([1, 1, count, 1], 1).check();
        GroupNorm::new([1, 2, 2, count], 1).check();
    }
    // The host sums 64 pixels at a time.
    for pixels in [63, 64, 65, 130] {
        GroupNorm::new([2, 1, pixels, 4], 2).check();
    }
    GroupNorm::new([2, 2, 2, 32], 32).check();
}

#[test]
fn a_group_norm_sums_a_large_map_without_drift() {
    // 102,400 values around 4 a group: summed one by one in f32 the mean would be off by a hundred roundings.
    let shape = [1, 160, 160, 8];
    let norm = GroupNorm::new(shape, 2);
    let norm = GroupNorm { x: norm.x.iter().map(|x| 5.0 + x).collect(), ..norm };
    let count = norm.x.len();
    let drifted = f64::from(norm.x.iter().sum::<f32>() / count as f32);
    let mean = norm.x.iter().map(|&x| f64::from(x)).sum::<f64>() / count as f64;
    assert!((drifted - mean).abs() > 3.0 * ROUNDING, "no drift to be noticed: {drifted}, exactly {mean}");
    norm.check();
}

#[test]
fn group_norms_refuse_what_does_not_fit_together() {
    let device = Device::flex();
    let x = |height, width| Tensor::<4>::zeros([1, height, width, 6], &device);
    let vector = |len: usize| Tensor::<1>::zeros([len], &device);
    let norm = |x, weight: usize, bias: usize, num_groups, epilogue| {
        group_norm(x, &vector(weight), &vector(bias), num_groups, EPSILON, epilogue).unwrap_err().to_string()
    };
    let none = Epilogue::Nothing;
    assert_eq!(norm(x(2, 2), 5, 6, 1, none.clone()), "group_norm: weight is [5], expected [C = 6]");
    assert_eq!(norm(x(2, 2), 6, 1, 1, none.clone()), "group_norm: bias is [1], expected [C = 6]");
    assert_eq!(norm(x(2, 2), 6, 6, 4, none.clone()), "group_norm: 4 groups of 6 channels, expected a divisor");
    assert_eq!(norm(x(2, 2), 6, 6, 0, none.clone()), "group_norm: 0 groups of 6 channels, expected a divisor");
    assert_eq!(norm(x(2, 2), 6, 6, 12, none), "group_norm: 12 groups of 6 channels, expected a divisor");
    for (height, width) in [(3, 4), (4, 3), (5, 3)] {
        let error = norm(x(height, width), 6, 6, 2, Epilogue::AddUpsampled(x(2, 2)));
        assert_eq!(error, format!("group_norm: an image of {height} x {width}, expected even sizes"));
    }
    let error = norm(x(4, 6), 6, 6, 2, Epilogue::AddUpsampled(x(2, 2)));
    assert_eq!(error, "group_norm: coarse is [1, 2, 2, 6], expected [B = 1, 2, 3, C = 6]");
}

/// What a focal modulation is given.
struct Focal {
    shape: [usize; 4],
    levels: Levels,
    context: Vec<f32>,
    gates: Vec<f32>,
    kernels: Vec<f32>,
}

impl Focal {
    fn new(shape: [usize; 4], levels: Levels) -> Self {
        let mut random = Random(41);
        let [batch, height, width, dim] = shape;
        let context = random.floats(shape.iter().product());
        let gates = random.floats(batch * height * width * (levels.num_levels + 1));
        // The taps of a level have a square sum of 3, so that the levels stay of order one.
        let mut kernels = Vec::new();
        for level in 0..levels.num_levels {
            let edge = levels.window + levels.growth * level;
            kernels.extend(random.floats(edge * edge * dim).iter().map(|w| 3.0 * w / edge as f32));
        }
        Self { shape, levels, context, gates, kernels }
    }

    fn definition(&self) -> Vec<f32> {
        let [batch, height, width, dim] = self.shape;
        let Levels { num_levels: count, window, growth, scaled } = self.levels;
        let mut out = vec![0.0; self.context.len()];
        for image in 0..batch {
            for channel in 0..dim {
                let at = |y: usize, x: usize| ((image * height + y) * width + x) * dim + channel;
                let gate = |y: usize, x: usize, level: usize| {
                    f64::from(self.gates[((image * height + y) * width + x) * (count + 1) + level])
                };
                let pixels: Vec<(usize, usize)> = (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).collect();
                let mut plane: Vec<f64> = pixels.iter().map(|&(y, x)| self.context[at(y, x)].into()).collect();
                let mut first_tap = 0;
                for level in 0..count {
                    let edge = window + growth * level;
                    let before = plane.clone();
                    for &(y, x) in &pixels {
                        let mut sum = 0.0;
                        for tap in 0..edge * edge {
                            let row = (y + tap / edge) as isize - (edge / 2) as isize;
                            let column = (x + tap % edge) as isize - (edge / 2) as isize;
                            if (0..height as isize).contains(&row) && (0..width as isize).contains(&column) {
                                let weight = f64::from(self.kernels[(first_tap + tap) * dim + channel]);
                                sum += before[row as usize * width + column as usize] * weight;
                            }
                        }
                        plane[y * width + x] = gelu(sum);
                        out[at(y, x)] += gelu(sum) * gate(y, x, level);
                    }
                    first_tap += edge * edge;
                }
                let global = gelu(plane.iter().sum::<f64>() / plane.len() as f64);
                for (y, x) in pixels {
                    let sum = out[at(y, x)] + global * gate(y, x, count);
                    out[at(y, x)] = if scaled { sum / (count + 1) as f64 } else { sum };
                }
            }
        }
        rounded(out)
    }

    fn run(&self, device: &Device) -> Vec<f32> {
        let [batch, height, width, dim] = self.shape;
        let context = float_tensor(self.context.clone(), self.shape, device);
        let gates = float_tensor(self.gates.clone(), [batch, height, width, self.levels.num_levels + 1], device);
        let kernels = float_tensor(self.kernels.clone(), [self.levels.num_taps(), dim], device);
        let out = focal_modulation(context, gates, kernels, self.levels).unwrap();
        assert_eq!(out.dims(), self.shape);
        float_values(out).unwrap()
    }

    fn check(&self) {
        check(&format!("{:?}, {:?}", self.shape, self.levels), &self.definition(), |device| self.run(device));
    }
}

/// Levels that grow by two, as those of the published models do.
fn levels(count: usize, window: usize, scaled: bool) -> Levels {
    Levels { num_levels: count, window, growth: 2, scaled }
}

#[test]
fn focal_modulations_equal_the_definition() {
    for count in 1..=4 {
        for window in [1, 3, 5] {
            let scaled = (count + window / 2) % 2 == 0;
            Focal::new([2, 7, 9, 5], levels(count, window, scaled)).check();
            // Smaller than every kernel but that of one pixel.
            Focal::new([2, 1, 1, 3], levels(count, window, !scaled)).check();
            Focal::new([1, 2, 3, 4], levels(count, window, scaled)).check();
        }
    }
    // Numbers of channels that fill a SIMD register, or 32 columns of the mean, or leave some of them over.
    for dim in [1, 7, 8, 16, 17, 24, 31, 32, 33, 70] {
        Focal::new([2, 6, 5, dim], levels(2, 3, true)).check();
    }
    // The host takes four pixels of a row at a time.
    for width in 1..=9 {
        Focal::new([1, 4, width, 3], levels(2, 3, false)).check();
    }
    for count in sizes(shaders::focal_modulation::level::WG) {
        Focal::new([1, 1, count, 1], levels(1, 3, true)).check();
    }
    Focal::new([1, 12, 10, 6], Levels { num_levels: 3, window: 3, growth: 0, scaled: true }).check();
    Focal::new([1, 12, 13, 6], Levels { num_levels: 2, window: 1, growth: 6, scaled: false }).check();
}

#[test]
fn images_of_a_focal_modulation_do_not_mix() {
    let focal = Focal::new([2, 5, 6, 9], levels(3, 3, true));
    for (name, device) in devices() {
        let together = focal.run(&device);
        for image in 0..2 {
            let part = |values: &[f32]| values[image * values.len() / 2..(image + 1) * values.len() / 2].to_vec();
            let alone = Focal {
                shape: [1, 5, 6, 9],
                context: part(&focal.context),
                gates: part(&focal.gates),
                kernels: focal.kernels.clone(),
                levels: focal.levels,
            };
            assert_eq!(alone.run(&device), part(&together), "{name}, image {image}");
        }
    }
}

#[test]
fn the_taps_of_levels_are_counted() {
    assert_eq!(levels(4, 3, true).num_taps(), 9 + 25 + 49 + 81);
    assert_eq!((0..4).map(|level| levels(4, 3, true).kernel(level)).collect::<Vec<_>>(), [3, 5, 7, 9]);
    assert_eq!(levels(0, 3, true).num_taps(), 0);
}

#[test]
fn focal_modulations_refuse_what_does_not_fit_together() {
    let device = Device::flex();
    let modulate = |gates: [usize; 4], kernels: [usize; 2], levels| {
        let context = Tensor::zeros([1, 4, 5, 6], &device);
        focal_modulation(context, Tensor::zeros(gates, &device), Tensor::zeros(kernels, &device), levels)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        modulate([1, 4, 5, 2], [34, 6], levels(2, 3, true)),
        "focal_modulation: gates is [1, 4, 5, 2], expected [B = 1, H = 4, W = 5, 3]"
    );
    assert_eq!(
        modulate([1, 4, 5, 3], [33, 6], levels(2, 3, true)),
        "focal_modulation: kernels is [33, 6], expected [34, C = 6]"
    );
    assert_eq!(
        modulate([1, 4, 5, 2], [4, 6], levels(1, 2, true)),
        "focal_modulation: Levels { num_levels: 1, window: 2, growth: 2, scaled: true }, expected a level and odd kernels"
    );
    let odd = Levels { num_levels: 1, window: 3, growth: 1, scaled: false };
    assert!(
        modulate([1, 4, 5, 2], [9, 6], odd).ends_with("growth: 1, scaled: false }, expected a level and odd kernels")
    );
    assert!(modulate([1, 4, 5, 1], [0, 6], levels(0, 3, true)).contains("num_levels: 0"));
}

/// Which keys the tests hide.
#[derive(Clone, Debug)]
enum Hidden {
    None,
    Causal,
    /// `[images, Nq, Nk]`.
    At(Vec<i32>),
}

/// What an attention is given.
struct Attention {
    batch: usize,
    num_queries: usize,
    num_keys: usize,
    num_heads: usize,
    head_dim: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Attention {
    fn new([batch, num_queries, num_keys, num_heads, head_dim]: [usize; 5]) -> Self {
        let mut random = Random(51);
        let dim = num_heads * head_dim;
        let q = random.floats(batch * num_queries * dim).iter().map(|x| 3.0 * x).collect();
        let [k, v] = [(); 2].map(|()| random.floats(batch * num_keys * dim));
        Self { batch, num_queries, num_keys, num_heads, head_dim, q, k, v }
    }

    /// Two thirds of the keys of every query, by any number but 0; the last query sees none, the one before it
    /// only the last key.
    fn hidden(&self, images: usize) -> Hidden {
        let Self { num_queries, num_keys, .. } = *self;
        let mut random = Random(52);
        let mut hidden: Vec<i32> =
            (0..images * num_queries * num_keys).map(|_| [0, 1, -1, 0, 7, i32::MIN][random.below(6)]).collect();
        for image in hidden.chunks_exact_mut(num_queries * num_keys) {
            let mut rows = image.chunks_exact_mut(num_keys).rev();
            rows.next().unwrap().fill(1);
            if let Some(row) = rows.next() {
                row.fill(1);
                row[num_keys - 1] = 0;
            }
        }
        Hidden::At(hidden)
    }

    fn definition(&self, hidden: &Hidden) -> Vec<f32> {
        let Self { batch, num_queries, num_keys, num_heads, head_dim, .. } = *self;
        let sees = |image: usize, query: usize, key: usize| match hidden {
            Hidden::None => true,
            Hidden::Causal => key <= query,
            Hidden::At(at) => at[(image * num_queries + query) * num_keys % at.len() + key] == 0,
        };
        let at = |image: usize, rows: usize, row: usize, head: usize, channel: usize| {
            ((image * rows + row) * num_heads + head) * head_dim + channel
        };
        let mut out = vec![0.0; self.q.len()];
        for i in 0..batch * num_queries * num_heads {
            let (image, query, head) = (i / num_heads / num_queries, i / num_heads % num_queries, i % num_heads);
            let seen: Vec<usize> = (0..num_keys).filter(|&key| sees(image, query, key)).collect();
            let score = |&key: &usize| {
                let product = |c| {
                    let (q, k) = (at(image, num_queries, query, head, c), at(image, num_keys, key, head, c));
                    f64::from(self.q[q]) * f64::from(self.k[k])
                };
                (0..head_dim).map(product).sum::<f64>() / (head_dim as f64).sqrt()
            };
            let scores: Vec<f64> = seen.iter().map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
            for c in 0..head_dim {
                let value = |key: usize| f64::from(self.v[at(image, num_keys, key, head, c)]);
                out[i * head_dim + c] =
                    seen.iter().zip(&scores).map(|(&key, score)| (score - largest).exp() / total * value(key)).sum();
            }
        }
        rounded(out)
    }

    fn run(&self, hidden: &Hidden, device: &Device) -> Vec<f32> {
        let Self { batch, num_queries, num_keys, num_heads, head_dim, .. } = *self;
        let dim = num_heads * head_dim;
        let q = float_tensor(self.q.clone(), [batch, num_queries, dim], device);
        let [k, v] = [&self.k, &self.v].map(|values| float_tensor(values.clone(), [batch, num_keys, dim], device));
        let mask = match hidden {
            Hidden::None => Mask::None,
            Hidden::Causal => Mask::Causal,
            Hidden::At(at) => {
                let images = at.len() / num_queries / num_keys;
                Mask::Blocked(int_tensor(at.clone(), [images, num_queries, num_keys], device))
            }
        };
        let out = attention(q, k, v, num_heads, mask).unwrap();
        assert_eq!(out.dims(), [batch, num_queries, dim]);
        float_values(out).unwrap()
    }

    fn check(&self) {
        let Self { batch, num_queries, num_keys, num_heads, head_dim, .. } = *self;
        let masks = [Hidden::None, Hidden::Causal, self.hidden(1), self.hidden(batch)];
        for (hidden, name) in masks.iter().zip(["all", "causal", "shared", "per image"]) {
            let what = format!(
                "{name}, {batch} times {num_queries} queries and {num_keys} keys, {num_heads} heads of {head_dim}"
            );
            check(&what, &self.definition(hidden), |device| self.run(hidden, device));
        }
    }
}

#[test]
fn attentions_equal_the_definition() {
    // Tiles of queries and keys on the device, and the host's 32 queries of a task.
    for num_queries in sizes(shaders::attention::attention::QUERIES).into_iter().chain([31, 32, 33]) {
        Attention::new([2, num_queries, 21, 3, 5]).check();
    }
    for num_keys in sizes(shaders::attention::attention::KEYS) {
        Attention::new([2, 19, num_keys, 3, 6]).check();
    }
    for head_dim in [1, 2, 3, 4, 15, 16, 17, 31, 32, 33, 48, 63, MAX_HEAD_DIM] {
        Attention::new([1, 18, 37, 2, head_dim]).check();
    }
    for num_heads in [1, 3, 8] {
        Attention::new([3, 17, 33, num_heads, 8]).check();
    }
    Attention::new([1, 1, 1, 1, 1]).check();
    // The host multiplies 256 keys at a time.
    Attention::new([1, 5, 257, 1, 64]).check();
    // More keys than a view has, within what a software driver grants the loops of an invocation.
    Attention::new([1, 2, 30_000, 1, 64]).check();
}

#[test]
fn a_query_that_sees_nothing_gives_zeros() {
    let case = Attention::new([2, 20, 70, 2, 9]);
    for (name, device) in devices() {
        let found = case.run(&Hidden::At(vec![1; 20 * 70]), &device);
        assert!(found.iter().all(|&x| x == 0.0), "{name}");
        // The last query of each image, and the only key of the one before it.
        let found = case.run(&case.hidden(2), &device);
        for image in 0..2 {
            let row = |query: usize| &found[(image * 20 + query) * 18..][..18];
            assert_eq!(row(19), [0.0; 18], "{name}");
            close(&name, row(18), &case.v[(image * 70 + 69) * 18..][..18]);
        }
    }
}

#[test]
fn images_of_an_attention_do_not_mix() {
    let case = Attention::new([3, 20, 35, 2, 7]);
    let hidden = case.hidden(3);
    let Hidden::At(at) = &hidden else { unreachable!() };
    for (name, device) in devices() {
        let together = case.run(&hidden, &device);
        for image in 0..3 {
            let part = |values: &[f32]| values[image * values.len() / 3..(image + 1) * values.len() / 3].to_vec();
            let [q, k, v] = [&case.q, &case.k, &case.v].map(|values| part(values));
            let alone = Attention { batch: 1, q, k, v, ..case };
            let hidden = Hidden::At(at[image * 20 * 35..(image + 1) * 20 * 35].to_vec());
            assert_eq!(alone.run(&hidden, &device), part(&together), "{name}, image {image}");
        }
    }
}

#[test]
fn logits_beyond_the_exponential_do_not_overflow() {
    // Products of integers with heads of 16 channels: every logit, up to 6400, is exact, so that what is
    // compared is the softmax alone.
    let mut random = Random(53);
    let mut integers = |len: usize| (0..len).map(|_| random.below(81) as f32 - 40.0).collect::<Vec<f32>>();
    for num_keys in [1, 30, 75] {
        let case = Attention::new([2, 18, num_keys, 2, 16]);
        let case = Attention { q: integers(case.q.len()), k: integers(case.k.len()), ..case };
        case.check();
        // Equal logits, all far above or far below 0.
        for sign in [1.0, -1.0] {
            let (q, k) = (vec![40.0; case.q.len()], vec![40.0 * sign; case.k.len()]);
            let v = case.v.clone();
            Attention { q, k, v, ..case }.check();
        }
    }
}

#[test]
fn one_key_gives_its_value() {
    let case = Attention::new([2, 18, 1, 3, 10]);
    for (name, device) in devices() {
        let found = case.run(&Hidden::None, &device);
        for (i, row) in found.chunks_exact(30).enumerate() {
            close(&name, row, &case.v[i / 18 * 30..][..30]);
        }
    }
}

#[test]
fn attentions_refuse_what_does_not_fit_together() {
    let device = Device::flex();
    let zeros = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &device);
    let attend = |k: [usize; 3], v: [usize; 3], heads, mask| {
        attention(zeros([2, 4, 12]), zeros(k), zeros(v), heads, mask).unwrap_err().to_string()
    };
    assert_eq!(
        attend([1, 5, 12], [1, 5, 12], 3, Mask::None),
        "attention: k is [1, 5, 12], expected [B = 2, Nk, E = 12]"
    );
    assert_eq!(
        attend([2, 5, 12], [2, 4, 12], 3, Mask::None),
        "attention: v is [2, 4, 12], expected [B = 2, Nk = 5, E = 12]"
    );
    for heads in [0, 5, 24] {
        assert_eq!(
            attend([2, 5, 12], [2, 5, 12], heads, Mask::None),
            format!("attention: {heads} heads of 12 channels, expected a divisor that leaves at most 64")
        );
    }
    let wide = zeros([1, 1, 65]);
    let error = attention(wide.clone(), wide.clone(), wide, 1, Mask::None).unwrap_err();
    assert_eq!(error.to_string(), "attention: 1 heads of 65 channels, expected a divisor that leaves at most 64");
    for shape in [[2, 4, 4], [3, 4, 5], [2, 5, 4]] {
        let blocked = Mask::Blocked(int_tensor(vec![0; shape.iter().product()], shape, &device));
        assert_eq!(
            attend([2, 5, 12], [2, 5, 12], 3, blocked),
            format!("attention: blocked is {shape:?}, expected [2, Nq = 4, Nk = 5]")
        );
    }
}

/// One axis of the resampling: every output sample is the mean of all input samples, weighted by Keys' kernel
/// with a = −0.5 at their distance, in units of the larger of the two steps.
fn resample_axis(x: &[f64], num_out: usize) -> Vec<f64> {
    let keys = |t: f64| match t.abs() {
        t if t <= 1.0 => 1.5 * t.powi(3) - 2.5 * t.powi(2) + 1.0,
        t if t < 2.0 => -0.5 * t.powi(3) + 2.5 * t.powi(2) - 4.0 * t + 2.0,
        _ => 0.0,
    };
    let step = x.len() as f64 / num_out as f64;
    let at = |i: usize| {
        let center = (i as f64 + 0.5) * step;
        let weights: Vec<f64> = (0..x.len()).map(|j| keys((j as f64 + 0.5 - center) / step.max(1.0))).collect();
        weights.iter().zip(x).map(|(weight, x)| weight * x).sum::<f64>() / weights.iter().sum::<f64>()
    };
    (0..num_out).map(at).collect()
}

fn resample(planes: &[f32], [height, width]: [usize; 2], [out_height, out_width]: [usize; 2]) -> Vec<f32> {
    let mut out = Vec::new();
    for plane in planes.chunks_exact(height * width) {
        let columns: Vec<Vec<f64>> = (0..width)
            .map(|x| resample_axis(&(0..height).map(|y| plane[y * width + x].into()).collect::<Vec<f64>>(), out_height))
            .collect();
        for y in 0..out_height {
            out.extend(resample_axis(&columns.iter().map(|column| column[y]).collect::<Vec<f64>>(), out_width));
        }
    }
    rounded(out)
}

fn run_resample(planes: &[f32], from: [usize; 2], to: [usize; 2], device: &Device) -> Vec<f32> {
    let count = planes.len() / (from[0] * from[1]);
    let planes = float_tensor(planes.to_vec(), [count, from[0], from[1]], device);
    let out = bicubic_antialias(planes, to).unwrap();
    assert_eq!(out.dims(), [count, to[0], to[1]]);
    float_values(out).unwrap()
}

#[test]
fn resamplings_equal_the_definition() {
    let mut cases = vec![
        ([1, 1], [1, 1]),
        ([1, 1], [3, 5]),
        ([5, 7], [10, 14]),
        ([16, 22], [8, 11]),
        ([12, 16], [3, 4]),
        ([9, 4], [4, 9]),
        ([3, 50], [50, 3]),
        ([40, 33], [1, 1]),
        ([17, 31], [16, 33]),
        ([2, 3], [64, 65]),
        ([31, 42], [37, 13]),
        ([1, 20], [1, 7]),
        ([20, 1], [33, 1]),
    ];
    // Results around a workgroup.
    cases.extend(sizes(shaders::bicubic_antialias::resample::WG).map(|width| ([2, 60], [1, width])));
    cases.extend(sizes(shaders::bicubic_antialias::resample::WG).map(|height| ([60, 2], [height, 1])));
    for (from, to) in cases {
        for count in [1, 3] {
            let planes = Random(61).floats(count * from[0] * from[1]);
            let what = format!("{count} planes, {from:?} to {to:?}");
            check(&what, &resample(&planes, from, to), |device| run_resample(&planes, from, to, device));
        }
    }
}

#[test]
fn resampling_to_the_same_size_changes_nothing() {
    for size in [[1, 1], [2, 3], [17, 33], [40, 8]] {
        let planes = Random(62).floats(2 * size[0] * size[1]);
        for (name, device) in devices() {
            assert_eq!(run_resample(&planes, size, size, &device), planes, "{name}, {size:?}");
        }
    }
}

#[test]
fn a_constant_plane_stays_constant() {
    for (from, to) in [([1, 1], [4, 9]), ([7, 5], [13, 2]), ([30, 40], [11, 200]), ([64, 64], [5, 5])] {
        let planes = [vec![3.5; from[0] * from[1]], vec![-0.1; from[0] * from[1]]].concat();
        let expected = [vec![3.5; to[0] * to[1]], vec![-0.1; to[0] * to[1]]].concat();
        check(&format!("{from:?} to {to:?}"), &expected, |device| run_resample(&planes, from, to, device));
    }
}

#[test]
fn planes_without_pixels_are_refused() {
    let device = Device::flex();
    let resample = |from: [usize; 3], to| {
        let planes = Tensor::<3>::zeros(from, &device);
        bicubic_antialias(planes, to).unwrap_err().to_string()
    };
    let expected = "expected sizes above 0";
    assert_eq!(resample([2, 0, 4], [3, 3]), format!("bicubic_antialias: from 0 x 4 to 3 x 3, {expected}"));
    assert_eq!(resample([2, 4, 0], [3, 3]), format!("bicubic_antialias: from 4 x 0 to 3 x 3, {expected}"));
    assert_eq!(resample([2, 4, 4], [0, 3]), format!("bicubic_antialias: from 4 x 4 to 0 x 3, {expected}"));
    assert_eq!(resample([0, 4, 4], [3, 0]), format!("bicubic_antialias: from 4 x 4 to 3 x 0, {expected}"));
}

#[test]
fn nothing_gives_nothing() {
    for (name, device) in devices() {
        let vector = |len: usize| Tensor::<1>::zeros([len], &device);
        for shape in [[0, 6], [4, 0]] {
            let (x, other) = (Tensor::<2>::zeros(shape, &device), Tensor::zeros(shape, &device));
            let out = layer_norm(x, &vector(shape[1]), &vector(shape[1]), EPSILON, Fusion::Add(other)).unwrap();
            assert_eq!(out.dims(), shape, "{name}");
        }
        for shape in [[0, 2, 2, 6], [2, 0, 2, 6], [2, 2, 2, 0]] {
            let x = Tensor::<4>::zeros(shape, &device);
            let coarse = Tensor::zeros([shape[0], shape[1] / 2, shape[2] / 2, shape[3]], &device);
            let (weight, bias) = (vector(shape[3]), vector(shape[3]));
            let out = group_norm(x, &weight, &bias, 2, EPSILON, Epilogue::AddUpsampled(coarse)).unwrap();
            assert_eq!(out.dims(), shape, "{name}");
        }
        for shape in [[0, 2, 2, 6], [2, 0, 2, 6], [2, 2, 2, 0]] {
            let gates = Tensor::zeros([shape[0], shape[1], shape[2], 2], &device);
            let kernels = Tensor::zeros([9, shape[3]], &device);
            let out = focal_modulation(Tensor::zeros(shape, &device), gates, kernels, levels(1, 3, true)).unwrap();
            assert_eq!(out.dims(), shape, "{name}");
        }
        let resampled = bicubic_antialias(Tensor::zeros([0, 3, 4], &device), [5, 6]).unwrap();
        assert_eq!(resampled.dims(), [0, 5, 6], "{name}");
    }
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
fn a_layer_norm_of_nothing_gives_nothing() {
    for (name, device) in devices() {
        for shape in [[2, 0, 6], [0, 2, 6], [2, 3, 0]] {
            let (x, other) = (Tensor::<3>::zeros(shape, &device), Tensor::zeros(shape, &device));
            let vector = Tensor::<1>::zeros([shape[2]], &device);
            let out = layer_norm(x, &vector, &vector, EPSILON, Fusion::Add(other)).unwrap();
            assert_eq!(out.dims(), shape, "{name}");
        }
    }
}

#[test]
fn attention_to_nothing_gives_zeros() {
    for (name, device) in devices() {
        for [batch, num_queries, num_keys, dim] in [[0, 3, 4, 6], [2, 0, 4, 6], [2, 3, 0, 6], [2, 3, 4, 0]] {
            let q = Tensor::<3>::ones([batch, num_queries, dim], &device);
            let k = Tensor::<3>::ones([batch, num_keys, dim], &device);
            let out = attention(q, k.clone(), k, 2, Mask::Causal).unwrap();
            assert_eq!(out.dims(), [batch, num_queries, dim], "{name}");
            assert!(float_values(out).unwrap().iter().all(|&x| x == 0.0), "{name}");
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

#[test]
fn views_are_read_in_their_own_order() {
    let mut random = Random(71);
    let (image, rows) = (random.floats(4 * 6 * 10), random.floats(10 * 12));
    for (name, device) in devices() {
        // Every tensor once as a view with its axes swapped, once copied into that order on the host.
        let copied = |x: Tensor<4>| float_tensor(float_values(x.clone()).unwrap(), x.dims(), &device);
        let same = |what: &str, on: &dyn Fn(Tensor<4>) -> Tensor<4>| {
            let view = float_tensor(image.clone(), [1, 10, 6, 4], &device).swap_dims(1, 3);
            let expected = float_values(on(copied(view.clone()))).unwrap();
            assert_eq!(float_values(on(view)).unwrap(), expected, "{name}, {what}");
        };
        let vector = float_tensor(rows[..10].to_vec(), [10], &device);
        let weight = float_tensor(rows.clone(), [10, 12], &device).swap_dims(0, 1);
        let packed = PackedWeight::from_rows(weight);
        same("conv2d", &|x| conv2d(x, &packed, 1, 0, Activation::None).unwrap());
        same("layer_norm", &|x| layer_norm(x.clone(), &vector, &vector, EPSILON, Fusion::Add(x)).unwrap());
        same("group_norm", &|x| group_norm(x, &vector, &vector, 2, EPSILON, Epilogue::Relu).unwrap());
        same("focal_modulation", &|x| {
            let gates = x.clone().slice([0..1, 0..4, 0..6, 3..5]);
            let kernels = float_tensor(rows[..90].to_vec(), [10, 9], &device).swap_dims(0, 1);
            focal_modulation(x, gates, kernels, levels(1, 3, true)).unwrap()
        });
        same("attention", &|x| {
            let x = x.squeeze_dim::<3>(0);
            let blocked = x.clone().slice([0..4, 0..6, 0..6]).greater_elem(0.0).int().swap_dims(1, 2);
            attention(x.clone(), x.clone(), x, 2, Mask::Blocked(blocked)).unwrap().unsqueeze()
        });
        same("bicubic_antialias", &|x| bicubic_antialias(x.squeeze_dim::<3>(0), [3, 14]).unwrap().unsqueeze());
    }
}

#[test]
fn the_second_largest_tensors_are_checked_too() {
    let limits = Limits { max_binding_bytes: 1000, max_workgroups: 65_535 };
    for (name, device) in devices() {
        let zeros = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &device);
        let refused = |what: &str, out: Result<(), OpError>| {
            let error = out.expect_err(what).to_string();
            assert!(error.starts_with(&format!("{what} wants 1")), "{name}: {error}");
        };
        with_limits(limits, || {
            // A narrow head: the mask is larger than the queries and the keys.
            let blocked = Mask::Blocked(int_tensor(vec![0; 400], [1, 20, 20], &device));
            let out = attention(zeros([1, 20, 2]), zeros([1, 20, 2]), zeros([1, 20, 2]), 1, blocked);
            refused("attention: blocked", out.map(|_| ()));
            // More gates than channels.
            let (context, gates) = (Tensor::zeros([1, 5, 11, 2], &device), Tensor::zeros([1, 5, 11, 5], &device));
            let points = Levels { num_levels: 4, window: 1, growth: 0, scaled: true };
            let out = focal_modulation(context, gates, Tensor::zeros([4, 2], &device), points);
            refused("focal_modulation: gates", out.map(|_| ()));
        });
    }
}

#[test]
fn on_a_device_with_gradients_the_values_are_the_same() {
    for (name, device) in devices() {
        let tracked = device.clone().autodiff();
        let run = |device: &Device| {
            let x = float_tensor(Random(81).floats(2 * 4 * 6 * 8), [2, 4, 6, 8], device);
            let vector = float_tensor(Random(82).floats(8), [8], device);
            let weight = float_tensor(Random(83).floats(72), [9, 8], device);
            let packed = PackedWeight::from_rows(weight.clone());
            let rows = x.clone().reshape([2, 24, 8]);
            let gates = x.clone().slice([0..2, 0..4, 0..6, 0..2]);
            let results = [
                conv2d(x.clone(), &packed, 1, 0, Activation::None).unwrap().reshape([-1]),
                layer_norm(rows.clone(), &vector, &vector, EPSILON, Fusion::Nothing).unwrap().reshape([-1]),
                group_norm(x.clone(), &vector, &vector, 2, EPSILON, Epilogue::Nothing).unwrap().reshape([-1]),
                focal_modulation(x.clone(), gates, weight, levels(1, 3, true)).unwrap().reshape([-1]),
                attention(rows.clone(), rows.clone(), rows.clone(), 2, Mask::Causal).unwrap().reshape([-1]),
                bicubic_antialias(rows, [7, 3]).unwrap().reshape([-1]),
            ];
            // The last one has no gradient and comes out plain.
            let tracks = results.clone().map(|result: Tensor<1>| result.device().is_autodiff());
            assert_eq!(tracks, [0, 1, 2, 3, 4, 5].map(|i| device.is_autodiff() && i < 5), "{name}");
            results.map(|result| float_values(result).unwrap())
        };
        assert_eq!(run(&tracked), run(&device), "{name}");
    }
}

#[test]
fn what_does_not_fit_a_buffer_is_named() {
    let limits = Limits { max_binding_bytes: 1000, max_workgroups: 65_535 };
    for (name, device) in devices() {
        let zeros4 = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
        let zeros3 = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &device);
        let vector = |len: usize| Tensor::<1>::zeros([len], &device);
        let refused = |expected: &str, bytes: usize, on: &dyn Fn() -> OpError| {
            let error = with_limits(limits, on);
            assert!(matches!(error, OpError::TooLarge(_)), "{name}: {error}");
            assert_eq!(
                error.to_string(),
                format!(
                    "{expected} wants {bytes} bytes in one buffer, the device allows 1000: split the scene, or use \
                     --device cpu"
                ),
                "{name}"
            );
        };
        let packed = |num_out, num_in| {
            let weight = vec![0.0; num_out * num_in];
            PackedWeight::new(&weight, None, [num_out, num_in, 1], Precision::F32, &device)
        };
        let (narrowing, widening) = (packed(2, 30).unwrap(), packed(70, 2).unwrap());
        let convolve = |shape, weight| conv2d(zeros4(shape), weight, 1, 0, Activation::None).unwrap_err();
        refused("conv2d: x", 1080, &|| convolve([1, 3, 3, 30], &narrowing));
        refused("conv2d: out", 1120, &|| convolve([1, 1, 4, 2], &widening));
        refused("layer_norm: x", 1200, &|| {
            layer_norm(zeros3([2, 15, 10]), &vector(10), &vector(10), EPSILON, Fusion::Nothing).unwrap_err()
        });
        refused("group_norm: x", 1200, &|| {
            group_norm(zeros4([2, 3, 5, 10]), &vector(10), &vector(10), 5, EPSILON, Epilogue::Nothing).unwrap_err()
        });
        refused("focal_modulation: context", 1200, &|| {
            let (gates, kernels) = (zeros4([2, 3, 5, 2]), Tensor::zeros([9, 10], &device));
            focal_modulation(zeros4([2, 3, 5, 10]), gates, kernels, levels(1, 3, true)).unwrap_err()
        });
        refused("attention: q", 1200, &|| {
            attention(zeros3([2, 15, 10]), zeros3([2, 3, 10]), zeros3([2, 3, 10]), 1, Mask::None).unwrap_err()
        });
        refused("attention: k", 1200, &|| {
            attention(zeros3([2, 3, 10]), zeros3([2, 15, 10]), zeros3([2, 15, 10]), 1, Mask::None).unwrap_err()
        });
        refused("bicubic_antialias: planes", 1200, &|| bicubic_antialias(zeros3([3, 10, 10]), [2, 2]).unwrap_err());
        refused("bicubic_antialias: half way", 1200, &|| bicubic_antialias(zeros3([3, 10, 5]), [2, 10]).unwrap_err());
        refused("bicubic_antialias: out", 1200, &|| bicubic_antialias(zeros3([3, 5, 5]), [20, 5]).unwrap_err());
        // How wide a panel is depends on the device.
        let error = with_limits(limits, || packed(40, 40).unwrap_err().to_string());
        assert!(error.starts_with("conv2d: weight wants ") && error.contains("the device allows 1000"), "{error}");
    }
}

/// Every channel by itself, every tap that lies inside the image.
fn define_depthwise(x: &[f32], weight: &[f32], bias: &[f32], shape: [usize; 4], kernel: usize) -> Vec<f32> {
    let [_, height, width, dim] = shape;
    let inside = |at: usize, tap: usize, size: usize| (at + tap).checked_sub(kernel / 2).filter(|&at| at < size);
    let value = |i: usize| {
        let (pixel, c) = (i / dim, i % dim);
        let (image, y, x_at) = (pixel / (height * width), pixel / width % height, pixel % width);
        let mut sum = f64::from(bias[c]);
        for tap in 0..kernel * kernel {
            if let (Some(y), Some(x_at)) = (inside(y, tap / kernel, height), inside(x_at, tap % kernel, width)) {
                let from = x[((image * height + y) * width + x_at) * dim + c];
                sum += f64::from(from) * f64::from(weight[tap * dim + c]);
            }
        }
        sum
    };
    rounded((0..x.len()).map(value).collect())
}

#[test]
fn depthwise_convolutions_equal_the_definition() {
    for (shape, kernel) in
        [([1, 1, 1, 1], 3), ([1, 5, 7, 17], 1), ([2, 6, 4, 24], 3), ([1, 3, 2, 8], 7), ([2, 9, 11, 33], 5)]
    {
        let mut random = Random(21);
        let (x, dim) = (random.floats(shape.iter().product()), shape[3]);
        let (weight, bias) = (random.floats(kernel * kernel * dim), random.floats(dim));
        let definition = define_depthwise(&x, &weight, &bias, shape, kernel);
        check(&format!("{shape:?}, kernel {kernel}"), &definition, |device| {
            let weight = float_tensor(weight.clone(), [kernel * kernel, dim], device);
            let bias = float_tensor(bias.clone(), [dim], device);
            float_values(depthwise_conv2d(float_tensor(x.clone(), shape, device), weight, bias, kernel).unwrap())
                .unwrap()
        });
    }
}

#[test]
fn depthwise_convolutions_refuse_what_does_not_fit_together() {
    let device = Device::flex();
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
    let weight = |taps: usize, dim: usize| Tensor::<2>::zeros([taps, dim], &device);
    let bias = Tensor::<1>::zeros([3], &device);
    let error = depthwise_conv2d(zeros([1, 2, 2, 3]), weight(9, 4), bias.clone(), 3).unwrap_err();
    assert_eq!(error.to_string(), "depthwise_conv2d: weight is [9, 4], expected [9, C = 3]");
    let error = depthwise_conv2d(zeros([1, 2, 2, 3]), weight(4, 3), bias.clone(), 2).unwrap_err();
    assert_eq!(error.to_string(), "depthwise_conv2d: a kernel of edge 2, expected an odd one");
    let empty = depthwise_conv2d(zeros([0, 2, 2, 3]), weight(9, 3), bias, 3).unwrap();
    assert_eq!(empty.dims(), [0, 2, 2, 3]);
}
