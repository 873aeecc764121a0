//! The gradients of attention, of attention within patches and of reductions by segment, on every device: against
//! burn's autodiff of the same made of matrix products, and from run to run.

mod common;

use std::time::Instant;

use burn::prelude::*;
use burn::tensor::Device;
use burn::tensor::activation::softmax;
use common::{Random, devices, rel_l2};
use geopurify::ops::attention::{Mask, attention};
use geopurify::ops::segment_reduce::{Reduction, segment_reduce};
use geopurify::ops::serialized_attention::{Padding, serialized_attention};
use geopurify::ops::{float_tensor, float_values, int_tensor};

/// f32 sums of up to a thousand terms in another order.
const ROUNDING: f64 = 3e-6;

#[derive(Clone)]
enum Hidden {
    None,
    Causal,
    At(usize, Vec<i32>),
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    num_queries: usize,
    num_keys: usize,
    num_heads: usize,
    head_dim: usize,
}

impl Sizes {
    fn inputs(&self) -> [Vec<f32>; 4] {
        let mut random = Random(61);
        let dim = self.num_heads * self.head_dim;
        let rows = [self.num_queries, self.num_keys, self.num_keys, self.num_queries];
        rows.map(|rows| random.floats(self.batch * rows * dim).iter().map(|x| 2.0 * x).collect())
    }

    /// A third of the keys seen, by any number but 0; the last query sees none.
    fn hidden(&self, images: usize) -> Hidden {
        let mut random = Random(62);
        let len = images * self.num_queries * self.num_keys;
        let mut hidden: Vec<i32> = (0..len).map(|_| [0, 1, -1, 0, 7, i32::MIN][random.below(6)]).collect();
        hidden.chunks_exact_mut(self.num_keys).rev().step_by(self.num_queries).for_each(|row| row.fill(1));
        Hidden::At(images, hidden)
    }

    fn mask(&self, hidden: &Hidden, device: &Device) -> Mask {
        match hidden {
            Hidden::None => Mask::None,
            Hidden::Causal => Mask::Causal,
            Hidden::At(images, values) => {
                Mask::Blocked(int_tensor(values.clone(), [*images, self.num_queries, self.num_keys], device))
            }
        }
    }

    /// Result and gradients of those inputs that are tracked.
    fn run(
        &self,
        device: &Device,
        tracked: [bool; 3],
        of: impl Fn([Tensor<3>; 3]) -> Tensor<3>,
    ) -> (Vec<f32>, [Option<Vec<f32>>; 3]) {
        let dim = self.num_heads * self.head_dim;
        let [q, k, v, factors] = self.inputs();
        let on_autodiff = device.clone().autodiff();
        let mut tracked = tracked.into_iter();
        let mut input = |values: Vec<f32>, rows: usize| {
            let shape = [self.batch, rows, dim];
            if tracked.next().unwrap() {
                float_tensor(values, shape, &on_autodiff).require_grad()
            } else {
                float_tensor(values, shape, device)
            }
        };
        let inputs = [input(q, self.num_queries), input(k, self.num_keys), input(v, self.num_keys)];
        let out = of(inputs.clone());
        let factors = float_tensor(factors, out.dims(), device);
        let values = float_values(out.clone()).unwrap();
        let grads = (out * factors).sum().backward();
        (values, inputs.map(|input| input.grad(&grads).map(|grad| float_values(grad).unwrap())))
    }

    fn composed(&self, [q, k, v]: [Tensor<3>; 3], hidden: &Hidden) -> Tensor<3> {
        let Self { batch, num_queries, num_keys, num_heads, head_dim } = *self;
        let heads = |x: Tensor<3>| {
            let len = x.dims()[1];
            x.reshape([batch, len, num_heads, head_dim]).swap_dims(1, 2)
        };
        let scores = heads(q.clone()).matmul(heads(k).swap_dims(2, 3)) / (head_dim as f64).sqrt();
        let hidden: Vec<i32> = match hidden {
            Hidden::None => vec![0; num_queries * num_keys],
            Hidden::Causal => (0..num_queries * num_keys).map(|i| i32::from(i % num_keys > i / num_keys)).collect(),
            Hidden::At(_, values) => values.clone(),
        };
        let images = hidden.len() / (num_queries * num_keys);
        let hidden = int_tensor(hidden, [images, 1, num_queries, num_keys], &q.device());
        let hidden = hidden.not_equal_elem(0).expand([batch, num_heads, num_queries, num_keys]);
        let weights = softmax(scores.mask_fill(hidden.clone(), f32::MIN), 3).mask_fill(hidden, 0.0);
        weights.matmul(heads(v)).swap_dims(1, 2).reshape([batch, num_queries, num_heads * head_dim])
    }

    fn check(&self) {
        let masks = [Hidden::None, Hidden::Causal, self.hidden(1), self.hidden(self.batch)];
        for (hidden, name) in masks.iter().zip(["all", "causal", "shared", "per image"]) {
            let (_, expected) = self.run(&Device::flex(), [true; 3], |inputs| self.composed(inputs, hidden));
            for (device_name, device) in devices() {
                let what = format!("{device_name}, {name}, {self:?}");
                let ours =
                    |[q, k, v]: [Tensor<3>; 3]| attention(q, k, v, self.num_heads, self.mask(hidden, &device)).unwrap();
                let (out, found) = self.run(&device, [true; 3], ours);
                let [q, k, v, _] = self.inputs();
                let plain =
                    |values, rows| float_tensor(values, [self.batch, rows, self.num_heads * self.head_dim], &device);
                let inference = ours([plain(q, self.num_queries), plain(k, self.num_keys), plain(v, self.num_keys)]);
                assert!(!inference.is_autodiff());
                assert_eq!(out, float_values(inference).unwrap(), "{what}: training changes the result");
                for ((found, expected), name) in found.iter().zip(&expected).zip(["q", "k", "v"]) {
                    let (found, expected) = (found.as_ref().unwrap(), expected.as_ref().unwrap());
                    // With a single key the gradients of q and k vanish up to rounding.
                    let size = expected.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                    let off = rel_l2(found, expected) * size / size.max(1.0);
                    let off =
                        if size == 0.0 { found.iter().map(|x| f64::from(x.abs())).fold(0.0, f64::max) } else { off };
                    assert!(off < ROUNDING, "{what}: the gradient of {name} is off by {off:e}");
                }
                for tracked in [[true, true, true], [true, false, false], [false, true, false], [false, false, true]] {
                    let (_, again) = self.run(&device, tracked, ours);
                    for ((again, found), tracked) in again.iter().zip(&found).zip(tracked) {
                        assert_eq!(again.as_ref(), found.as_ref().filter(|_| tracked), "{what}: {tracked:?} differs");
                    }
                }
            }
        }
    }
}

#[test]
fn attention_has_the_gradients_of_its_definition() {
    for [batch, num_queries, num_keys, num_heads, head_dim] in [
        [1, 1, 1, 1, 1],
        [2, 5, 7, 2, 3],
        // Blocks of 36 queries, panels of 16 or 32 keys, one more and one less.
        [1, 36, 16, 1, 16],
        [3, 37, 33, 2, 17],
        [2, 73, 31, 3, 8],
        [1, 4, 300, 1, 64],
        [4, 41, 41, 4, 16],
    ] {
        Sizes { batch, num_queries, num_keys, num_heads, head_dim }.check();
    }
}

/// Voxels in shuffled order, in clouds of these sizes.
fn patches(sizes: &[usize], max_patch: usize) -> (Vec<i32>, usize) {
    let padding = Padding::new(sizes, max_patch);
    let num_voxels: usize = sizes.iter().sum();
    let mut order: Vec<i32> = (0..num_voxels as i32).collect();
    let mut random = Random(63);
    (1..num_voxels).for_each(|i| order.swap(i, random.below(i + 1)));
    let patches = padding.patches(&int_tensor(order, [num_voxels], &Device::flex())).unwrap();
    (geopurify::ops::int_values(patches).unwrap(), padding.patch_size)
}

fn check_patches(patches: &[i32], patch_size: usize, num_heads: usize, head_dim: usize) {
    let (num_patches, dim) = (patches.len() / patch_size, num_heads * head_dim);
    let num_voxels = patches.iter().max().unwrap() + 1;
    let num_voxels = num_voxels as usize;
    let mut random = Random(64);
    let (values, factors) = (random.floats(num_voxels * 3 * dim), random.floats(num_voxels * dim));
    let gradient = |device: &Device, of: &dyn Fn(Tensor<2>) -> Tensor<2>| {
        let qkv = float_tensor(values.clone(), [num_voxels, 3 * dim], &device.clone().autodiff()).require_grad();
        let grads = (of(qkv.clone()) * float_tensor(factors.clone(), [num_voxels, dim], device)).sum().backward();
        float_values(qkv.grad(&grads).unwrap()).unwrap()
    };
    let host = Device::flex();
    let expected = gradient(&host, &|qkv| {
        let sizes = Sizes { batch: num_patches, num_queries: patch_size, num_keys: patch_size, num_heads, head_dim };
        let voxels = patches.iter().map(|&voxel| if voxel < 0 { -1 - voxel } else { voxel }).collect();
        let mut slots = vec![0; num_voxels];
        for (slot, &voxel) in patches.iter().enumerate().filter(|(_, voxel)| **voxel >= 0) {
            slots[voxel as usize] = slot as i32;
        }
        let rows = qkv.select(0, int_tensor(voxels, [patches.len()], &host));
        let part = |i: usize| {
            rows.clone().slice([0..patches.len(), i * dim..(i + 1) * dim]).reshape([num_patches, patch_size, dim])
        };
        let mixed = sizes.composed([part(0), part(1), part(2)], &Hidden::None);
        mixed.reshape([patches.len(), dim]).select(0, int_tensor(slots, [num_voxels], &host))
    });
    for (name, device) in devices() {
        let ours = |qkv| {
            let patches = int_tensor(patches.to_vec(), [num_patches, patch_size], &device);
            serialized_attention(qkv, patches, num_heads).unwrap()
        };
        let what = format!("{name}, {num_patches} patches of {patch_size}, {num_heads} heads of {head_dim}");
        let found = gradient(&device, &ours);
        let off = rel_l2(&found, &expected);
        assert!(off < ROUNDING, "{what}: off by {off:e}");
        assert_eq!(found, gradient(&device, &ours), "{what}: two runs differ");
        let plain = float_tensor(values.clone(), [num_voxels, 3 * dim], &device);
        let inference = ours(plain.clone());
        assert!(!inference.is_autodiff());
        let trained = ours(plain.autodiff().require_grad());
        assert_eq!(float_values(inference).unwrap(), float_values(trained).unwrap(), "{what}");
    }
}

#[test]
fn attention_in_patches_has_the_gradient_of_its_definition() {
    for (sizes, max_patch, num_heads, head_dim) in [
        (&[1][..], 16, 1, 1),
        (&[40], 16, 2, 5),
        (&[100, 61], 32, 3, 16),
        (&[37, 90, 41], 64, 1, 33),
        (&[200], 100, 2, 8),
    ] {
        let (patches, patch_size) = patches(sizes, max_patch);
        check_patches(&patches, patch_size, num_heads, head_dim);
    }
    // Voxel 1 is borrowed twice, once beside itself.
    check_patches(&[0, 1, -2, 2, -2, 3], 3, 2, 4);
}

#[test]
fn reductions_by_segment_have_the_gradients_of_their_definitions() {
    let mut random = Random(65);
    for (num_points, lengths, channels) in [
        (1, vec![1], 1),
        (6, vec![6], 3),
        (23, vec![4, 0, 1, 7, 0, 11], 5),
        // The last three points are in no segment.
        (63, vec![1; 60], 7),
        (700, (0..40).map(|i| i % 37).collect(), 33),
    ] {
        let mut order: Vec<i32> = (0..num_points as i32).collect();
        (1..num_points).for_each(|i| order.swap(i, random.below(i + 1)));
        let mut offsets = vec![0];
        lengths.iter().for_each(|len: &i32| offsets.push(offsets[offsets.len() - 1] + len));
        let num_segments = lengths.len();
        // Few values, so that many are equal.
        let features: Vec<f32> = (0..num_points * channels).map(|_| random.below(4) as f32 - 2.0).collect();
        let factors = random.floats(num_segments * channels);
        for reduction in [Reduction::Mean, Reduction::Max] {
            let mut expected = vec![0.0f32; num_points * channels];
            for (segment, bounds) in offsets.windows(2).enumerate() {
                let points = &order[bounds[0] as usize..bounds[1] as usize];
                for channel in 0..channels {
                    let factor = factors[segment * channels + channel];
                    let at = |point: i32| point as usize * channels + channel;
                    let most = points.iter().map(|&point| features[at(point)]).fold(f32::MIN, f32::max);
                    match reduction {
                        Reduction::Mean => {
                            points.iter().for_each(|&point| expected[at(point)] = factor / points.len() as f32);
                        }
                        Reduction::Max => {
                            if let Some(&first) = points.iter().find(|&&point| features[at(point)] == most) {
                                expected[at(first)] = factor;
                            }
                        }
                    }
                }
            }
            for (name, device) in devices() {
                let run = || {
                    let on = device.clone().autodiff();
                    let features = float_tensor(features.clone(), [num_points, channels], &on).require_grad();
                    let out = segment_reduce(
                        features.clone(),
                        int_tensor(order.clone(), [num_points], &device),
                        int_tensor(offsets.clone(), [num_segments + 1], &device),
                        reduction,
                    );
                    let factors = float_tensor(factors.clone(), [num_segments, channels], &device);
                    let grads = (out.unwrap() * factors).sum().backward();
                    float_values(features.grad(&grads).unwrap()).unwrap()
                };
                let found = run();
                let off = rel_l2(&found, &expected);
                assert!(off < 1e-7, "{name}, {reduction:?}, {num_points} points of {channels}: off by {off:e}");
                assert_eq!(found, run(), "{name}: two runs differ");
            }
        }
    }
}

/// Forward and backward on the host, in milliseconds; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn milliseconds_on_the_host() {
    let device = Device::flex().autodiff();
    let time = |name: &str, run: &dyn Fn() -> Tensor<1>| {
        let mut best = [f64::INFINITY; 2];
        for _ in 0..9 {
            let start = Instant::now();
            let sum = run();
            let forward = start.elapsed().as_secs_f64();
            sum.backward();
            let both = start.elapsed().as_secs_f64();
            best = [best[0].min(forward), best[1].min(both - forward)];
        }
        println!("{name}: forward {:.2} ms, backward {:.2} ms", best[0] * 1e3, best[1] * 1e3);
    };
    for num_keys in [768, 41] {
        let sizes = Sizes { batch: 4, num_queries: 41, num_keys, num_heads: 4, head_dim: 16 };
        let [q, k, v, _] = sizes.inputs();
        let input = |values, rows| float_tensor(values, [4, rows, 64], &device).require_grad();
        let [q, k, v] = [input(q, 41), input(k, num_keys), input(v, num_keys)];
        for hidden in [Hidden::None, sizes.hidden(4)] {
            let masked = if matches!(hidden, Hidden::None) { "" } else { ", masked" };
            time(&format!("attention, 4 x 41 x {num_keys}, 4 heads of 16{masked}"), &|| {
                attention(q.clone(), k.clone(), v.clone(), 4, sizes.mask(&hidden, &Device::flex())).unwrap().sum()
            });
        }
        time(&format!("  made of burn's operations, 4 x 41 x {num_keys}"), &|| {
            sizes.composed([q.clone(), k.clone(), v.clone()], &Hidden::None).sum()
        });
    }
    for patch in [256, 1024] {
        let (patches, patch_size) = patches(&[20_000], patch);
        let patches = int_tensor(patches.clone(), [patches.len() / patch_size, patch_size], &Device::flex());
        let qkv = float_tensor(Random(3).floats(20_000 * 144), [20_000, 144], &device).require_grad();
        time(&format!("serialized_attention, 20,000 voxels, patches of {patch}, 3 heads of 16"), &|| {
            serialized_attention(qkv.clone(), patches.clone(), 3).unwrap().sum()
        });
    }
    let features = float_tensor(Random(4).floats(20_000 * 48), [20_000, 48], &device).require_grad();
    let order = int_tensor((0..20_000).collect(), [20_000], &Device::flex());
    let offsets = int_tensor((0..=5_000).map(|i| i * 4).collect(), [5_001], &Device::flex());
    for reduction in [Reduction::Mean, Reduction::Max] {
        time(&format!("segment_reduce, 20,000 rows of 48, {reduction:?}"), &|| {
            segment_reduce(features.clone(), order.clone(), offsets.clone(), reduction).unwrap().sum()
        });
    }
    time("burn's gelu, 20,000 x 48", &|| burn::tensor::activation::gelu(features.clone()).sum());
}
