//! Attention composed of matrix products, whose gradients burn knows.

use burn::prelude::*;
use burn::tensor::Device;
use burn::tensor::activation::softmax;
use geopurify::ops::attention::{Mask, attention};
use geopurify::ops::{float_tensor, float_values, int_tensor};

use crate::common::{Random, devices, rel_l2};

/// f32 sums of up to a thousand terms in another order.
pub(crate) const ROUNDING: f64 = 3e-6;

#[derive(Clone)]
pub(crate) enum Hidden {
    None,
    Causal,
    At(usize, Vec<i32>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub batch: usize,
    pub num_queries: usize,
    pub num_keys: usize,
    pub num_heads: usize,
    pub head_dim: usize,
}

impl Sizes {
    pub(crate) fn inputs(&self) -> [Vec<f32>; 4] {
        let mut random = Random(61);
        let dim = self.num_heads * self.head_dim;
        let rows = [self.num_queries, self.num_keys, self.num_keys, self.num_queries];
        rows.map(|rows| random.floats(self.batch * rows * dim).iter().map(|x| 2.0 * x).collect())
    }

    /// A third of the keys seen, by any number but 0; the last query sees none.
    pub(crate) fn hidden(&self, images: usize) -> Hidden {
        let mut random = Random(62);
        let len = images * self.num_queries * self.num_keys;
        let mut hidden: Vec<i32> = (0..len).map(|_| [0, 1, -1, 0, 7, i32::MIN][random.below(6)]).collect();
        hidden.chunks_exact_mut(self.num_keys).rev().step_by(self.num_queries).for_each(|row| row.fill(1));
        Hidden::At(images, hidden)
    }

    pub(crate) fn mask(&self, hidden: &Hidden, device: &Device) -> Mask {
        match hidden {
            Hidden::None => Mask::None,
            Hidden::Causal => Mask::Causal,
            Hidden::At(images, values) => {
                Mask::Blocked(int_tensor(values.clone(), [*images, self.num_queries, self.num_keys], device))
            }
        }
    }

    /// Result and gradients of those inputs that are tracked.
    pub(crate) fn run(
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

    pub(crate) fn composed(&self, [q, k, v]: [Tensor<3>; 3], hidden: &Hidden) -> Tensor<3> {
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

    pub(crate) fn check(&self) {
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
