//! Focal modulation against its definition in f64, and its gradients against those of its composition.

use burn::prelude::*;
use burn::tensor::{Device, activation};
use geopurify::gpu::shaders;
use geopurify::ops::focal_modulation::{Levels, focal_modulation};
use geopurify::ops::{float_tensor, float_values};

use crate::common::{Random, devices};
use crate::helpers::definition::{check, gelu, rounded, sizes};
use crate::helpers::gradient::{check_gradients, composed_depthwise, flat};

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
pub(crate) fn levels(count: usize, window: usize, scaled: bool) -> Levels {
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

#[test]
fn focal_modulation_has_the_gradients_of_its_composition() {
    for (size, num_levels, window, scaled) in [
        ([1, 1, 1, 3], 1, 3, false),
        ([2, 5, 7, 35], 2, 3, true),
        ([2, 12, 9, 32], 3, 3, true),
        ([1, 3, 10, 17], 2, 1, false),
    ] {
        let [batch, height, width, dim] = size;
        let levels = Levels { num_levels, window, growth: 2, scaled };
        let gates = [batch, height, width, num_levels + 1];
        let kernels = [levels.num_taps(), dim];
        check_gradients(
            &format!("focal_modulation of {size:?}, {levels:?}"),
            &["context", "gates", "kernels"],
            &[batch * height * width * dim, gates.iter().product(), kernels[0] * dim],
            &|t| {
                let (x, gates) = (t[0].clone().reshape(size), t[1].clone().reshape(gates));
                flat(focal_modulation(x, gates, t[2].clone().reshape(kernels), levels).unwrap())
            },
            &|t| {
                let (mut x, gates) = (t[0].clone().reshape(size), t[1].clone().reshape(gates));
                let kernels = t[2].clone().reshape(kernels);
                let mut sum = Tensor::zeros(size, &x.device());
                let mut first_tap = 0;
                for level in 0..num_levels {
                    let kernel = levels.kernel(level);
                    let taps = kernels.clone().narrow(0, first_tap, kernel * kernel);
                    first_tap += kernel * kernel;
                    x = activation::gelu(composed_depthwise(x, taps, kernel));
                    sum = sum + x.clone() * gates.clone().narrow(3, level, 1);
                }
                let global = activation::gelu(x.mean_dim(2).mean_dim(1));
                let sum = sum + global * gates.narrow(3, num_levels, 1);
                flat(if scaled { sum / (num_levels + 1) as f32 } else { sum })
            },
        );
    }
}
