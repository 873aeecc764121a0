//! Attention within patches of voxels against its definition, forward and backward.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::ops::serialized_attention::{MAX_PATCH, Padding, serialized_attention};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor};

use crate::common::{Random, devices, everywhere, rel_l2};
use crate::helpers::attention_gradient::{Hidden, ROUNDING, Sizes};

#[test]
fn the_last_patch_borrows_from_the_one_before() {
    let of = |sizes: &[usize], most| {
        let Padding { patch_size, pad, unpad } = Padding::new(sizes, most);
        (patch_size, pad, unpad)
    };
    assert_eq!(of(&[5], 4), (4, vec![0, 1, 2, 3, 4, 1, 2, 3], vec![0, 1, 2, 3, 4]));
    // The smallest cloud sets the size; the second cloud's rows are 3..10.
    let pad = vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 7, 8];
    assert_eq!(of(&[3, 0, 7], 128), (3, pad, (0..10).collect()));
    assert_eq!(of(&[4, 6], 3), (3, vec![0, 1, 2, 3, 1, 2, 4, 5, 6, 7, 8, 9], vec![0, 1, 2, 3, 6, 7, 8, 9, 10, 11]));
    assert_eq!(of(&[2], 128), (2, vec![0, 1], vec![0, 1]));
    assert_eq!(of(&[], 128), (1, vec![], vec![]));
}

/// Queries, keys and values with the patches they are in.
struct PatchCase {
    qkv: Vec<f32>,
    num_voxels: usize,
    order: Vec<i32>,
    padding: Padding,
    num_heads: usize,
    head_dim: usize,
}

impl PatchCase {
    fn new(sizes: &[usize], max_patch: usize, [num_heads, head_dim]: [usize; 2]) -> Self {
        let mut random = Random(sizes.len() as u64 + 7);
        let num_voxels = sizes.iter().sum();
        let mut order: Vec<i32> = (0..num_voxels as i32).collect();
        let mut first = 0;
        for size in sizes {
            for i in (1..*size).rev() {
                order.swap(first + i, first + random.below(i + 1));
            }
            first += size;
        }
        let qkv = (0..num_voxels * 3 * num_heads * head_dim).map(|_| 2.0 * random.signed()).collect();
        Self { qkv, num_voxels, order, padding: Padding::new(sizes, max_patch), num_heads, head_dim }
    }

    fn definition(&self) -> Vec<f32> {
        let (dim, patch) = (self.num_heads * self.head_dim, self.padding.patch_size);
        let mut out = vec![0.0; self.num_voxels * dim];
        for (place, &slot) in self.padding.unpad.iter().enumerate() {
            let voxel = self.order[place] as usize;
            let first = slot as usize / patch * patch;
            let keys: Vec<usize> = self.padding.pad[first..first + patch]
                .iter()
                .map(|&place| self.order[place as usize] as usize)
                .collect();
            for head in 0..self.num_heads {
                let at = |voxel: usize, part: usize, d: usize| {
                    f64::from(self.qkv[voxel * 3 * dim + part * dim + head * self.head_dim + d])
                };
                let score = |&key: &usize| {
                    (0..self.head_dim).map(|d| at(voxel, 0, d) * at(key, 1, d)).sum::<f64>()
                        / (self.head_dim as f64).sqrt()
                };
                let weights: Vec<f64> = keys.iter().map(|key| score(key).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..self.head_dim {
                    let mixed: f64 = keys.iter().zip(&weights).map(|(&key, w)| w / total * at(key, 2, d)).sum();
                    out[voxel * dim + head * self.head_dim + d] = mixed as f32;
                }
            }
        }
        out
    }

    fn run(&self, device: &Device) -> Vec<f32> {
        let dim = self.num_heads * self.head_dim;
        let qkv = float_tensor(self.qkv.clone(), [self.num_voxels, 3 * dim], device);
        let order = int_tensor(self.order.clone(), [self.num_voxels], device);
        let patches = self.padding.patches(&order).unwrap();
        let out = serialized_attention(qkv, patches, self.num_heads).unwrap();
        assert_eq!(out.dims(), [self.num_voxels, dim]);
        float_values(out).unwrap()
    }
}

#[test]
fn attention_within_patches_equals_the_definition() {
    let sizes: [(&[usize], usize); 8] = [
        (&[1], 8),
        (&[5], 4),
        (&[64], 64),
        (&[200], 63),
        (&[200, 131], 65),
        (&[300], 128),
        (&[700], 300),
        (&[19, 90, 40], 64),
    ];
    for (sizes, most) in sizes {
        for heads in [[1, 1], [3, 5], [2, 16], [1, 17], [2, 12], [1, 64]] {
            let case = PatchCase::new(sizes, most, heads);
            let definition = case.definition();
            everywhere(|name, device| {
                let difference = rel_l2(&case.run(device), &definition);
                assert!(difference <= ROUNDING, "{name}, {sizes:?} by {most}, {heads:?}: {difference:e}");
            });
        }
    }
}

#[test]
fn scores_far_apart_do_not_overflow() {
    let mut case = PatchCase::new(&[40], 16, [1, 16]);
    case.qkv.iter_mut().for_each(|x| *x *= 60.0);
    everywhere(|name, device| {
        let found = case.run(device);
        assert!(found.iter().all(|x| x.is_finite() && x.abs() <= 121.0), "{name}");
    });
}

#[test]
fn attention_refuses_what_does_not_fit_together() {
    let device = Device::flex();
    let run = |width: usize, patch: usize, heads| {
        let qkv = Tensor::zeros([4, width], &device);
        let patches = int_tensor(vec![0; patch], [1, patch], &device);
        serialized_attention(qkv, patches, heads).unwrap_err().to_string()
    };
    assert!(run(13, 4, 1).contains("qkv is [4, 13]"));
    assert!(run(12, 4, 3).contains("3 heads of 4 channels"));
    assert!(run(3 * 65, 4, 1).contains("at most 64"));
    assert!(run(12, MAX_PATCH + 1, 1).contains("patches of 16385 voxels"));
    let order = int_tensor(vec![0; 3], [3], &device);
    assert!(matches!(Padding::new(&[4], 2).patches(&order), Err(OpError::Shape { .. })));
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
