//! Layer norms against their definition in f64, and their gradients against those of their composition.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::shaders;
use geopurify::ops::layer_norm::{Fusion, layer_norm};
use geopurify::ops::{OpError, float_tensor, float_values};

use crate::common::{Random, devices};
use crate::helpers::definition::{EPSILON, check, rounded, sizes};
use crate::helpers::gradient::{check_gradients, flat};

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

fn composed_layer_norm(z: Tensor<2>, weight: &Tensor<1>, bias: &Tensor<1>) -> Tensor<2> {
    let centered = z.clone() - z.mean_dim(1);
    let deviation = (centered.clone().powi_scalar(2).mean_dim(1) + EPSILON).sqrt();
    centered / deviation * weight.clone().unsqueeze::<2>() + bias.clone().unsqueeze::<2>()
}

#[test]
fn layer_norm_has_the_gradients_of_its_composition() {
    for (num_rows, dim) in [(3, 5), (70, 37), (1100, 32), (9, 200)] {
        let (size, len) = ([num_rows, dim], num_rows * dim);
        check_gradients(
            &format!("layer_norm of {size:?}"),
            &["x", "weight", "bias"],
            &[len, dim, dim],
            &|t| flat(layer_norm(t[0].clone().reshape(size), &t[1], &t[2], EPSILON, Fusion::Nothing).unwrap()),
            &|t| flat(composed_layer_norm(t[0].clone().reshape(size), &t[1], &t[2])),
        );
        check_gradients(
            &format!("layer_norm of a sum of {size:?}"),
            &["x", "other", "weight", "bias"],
            &[len, len, dim, dim],
            &|t| {
                let around = Fusion::Add(t[1].clone().reshape(size));
                flat(layer_norm(t[0].clone().reshape(size), &t[2], &t[3], EPSILON, around).unwrap())
            },
            &|t| flat(composed_layer_norm((t[0].clone() + t[1].clone()).reshape(size), &t[2], &t[3])),
        );
        check_gradients(
            &format!("layer_norm beside a residual of {size:?}"),
            &["x", "residual", "scale", "weight", "bias"],
            &[len, len, dim, dim, dim],
            &|t| {
                let (residual, scale) = (t[1].clone().reshape(size), t[2].clone().reshape([1, dim]));
                let around = Fusion::Residual { residual, scale };
                flat(layer_norm(t[0].clone().reshape(size), &t[3], &t[4], EPSILON, around).unwrap())
            },
            &|t| {
                let norm = composed_layer_norm(t[0].clone().reshape(size), &t[3], &t[4]);
                flat(t[1].clone().reshape(size) + t[2].clone().reshape([1, dim]) * norm)
            },
        );
    }
}
