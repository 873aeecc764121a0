//! Group norms against their definition in f64, and their gradients against those of their composition.

use burn::prelude::*;
use burn::tensor::{Device, activation};
use geopurify::gpu::shaders;
use geopurify::ops::group_norm::{Epilogue, group_norm};
use geopurify::ops::{float_tensor, float_values};

use crate::common::Random;
use crate::helpers::definition::{EPSILON, ROUNDING, check, rounded, sizes};
use crate::helpers::gradient::{check_gradients, flat};

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
            check(&what, &self.definition(epilogue), |device| self.run(epilogue, device));
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

fn composed_group_norm(x: Tensor<4>, weight: &Tensor<1>, bias: &Tensor<1>, num_groups: usize) -> Tensor<4> {
    let [batch, height, width, dim] = x.dims();
    let x = x.reshape([batch, height * width, num_groups, dim / num_groups]);
    let centered = x.clone() - x.mean_dim(3).mean_dim(1);
    let deviation = (centered.clone().powi_scalar(2).mean_dim(3).mean_dim(1) + EPSILON).sqrt();
    let normalized = (centered / deviation).reshape([batch, height, width, dim]);
    normalized * weight.clone().reshape([1, 1, 1, dim]) + bias.clone().reshape([1, 1, 1, dim])
}

#[test]
fn group_norm_has_the_gradients_of_its_composition() {
    for (size, num_groups) in [([1, 2, 2, 6], 3), ([2, 6, 10, 24], 4), ([3, 14, 8, 64], 8), ([1, 12, 4, 5], 1)] {
        let [batch, height, width, dim] = size;
        let len = batch * height * width * dim;
        for relu in [false, true] {
            let run = move |t: &[Tensor<1>]| {
                let after = if relu { Epilogue::Relu } else { Epilogue::Nothing };
                flat(group_norm(t[0].clone().reshape(size), &t[1], &t[2], num_groups, EPSILON, after).unwrap())
            };
            let composed = move |t: &[Tensor<1>]| {
                let out = composed_group_norm(t[0].clone().reshape(size), &t[1], &t[2], num_groups);
                flat(if relu { activation::relu(out) } else { out })
            };
            let what = format!("group_norm of {size:?}, relu {relu}");
            check_gradients(&what, &["x", "weight", "bias"], &[len, dim, dim], &run, &composed);
        }
        let coarse = [batch, height / 2, width / 2, dim];
        check_gradients(
            &format!("group_norm of {size:?} plus a coarse image"),
            &["x", "coarse", "weight", "bias"],
            &[len, len / 4, dim, dim],
            &|t| {
                let after = Epilogue::AddUpsampled(t[1].clone().reshape(coarse));
                flat(group_norm(t[0].clone().reshape(size), &t[2], &t[3], num_groups, EPSILON, after).unwrap())
            },
            &|t| {
                let out = composed_group_norm(t[0].clone().reshape(size), &t[2], &t[3], num_groups);
                let cells = t[1].clone().reshape([batch, height / 2, 1, width / 2, 1, dim]);
                flat(out + cells.repeat_dim(2, 2).repeat_dim(4, 2).reshape(size))
            },
        );
    }
}
