//! Attention against its definition in f64, and its gradients against those of its composition.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::shaders;
use geopurify::ops::attention::{MAX_HEAD_DIM, Mask, attention};
use geopurify::ops::{float_tensor, float_values, int_tensor};

use crate::common::{Random, devices};
use crate::helpers::attention_gradient::Sizes;
use crate::helpers::definition::{check, close, rounded, sizes};

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
