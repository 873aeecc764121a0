//! Initial weights, before training.

use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::TAU;

use super::config::XDecoderConfig;
use crate::random::SplitMix64;
use crate::weights::{Dtype, HostTensor, StateDict};

/// Initial factor of a block's residual branch, in models that learn one. Norms follow the branches, so with
/// a factor of 1 the still random branches would drown the image.
const LAYER_SCALE: f32 = 0.5;
/// Initial value of the learned scale of cosines, as in CLIP: ln(1 / 0.07).
const LOGIT_SCALE: f32 = 2.659_26;
/// Standard deviation of token rows and of positions. Norms divide by it, so it decides how fast their
/// directions change.
const TOKEN_STD: f64 = 0.05;
const POSITION_STD: f64 = 0.02;

/// Draws weights of `config` from `seed`, distributed as in PyTorch's modules: matrices and kernels uniform
/// by the number of their inputs (and outputs), norms 1 and 0, biases 0, embeddings normal. Rows of the
/// vocabulary that are not in `tokens` are 0, so a word that is never seen in training contributes nothing. A
/// tensor depends only on the seed, its key and its shape.
#[must_use]
pub fn initial_weights(config: &XDecoderConfig, seed: u64, tokens: &BTreeSet<u32>) -> StateDict {
    let tensor = |(key, shape): (String, Vec<usize>)| {
        let mut random = SplitMix64::stream(seed, &[fnv1a(&key)]);
        let data = values(&key, &shape, tokens, &mut random);
        (key, HostTensor { shape, dtype_in_file: Dtype::F32, data })
    };
    let tensors: BTreeMap<String, HostTensor> = config.keys().into_iter().map(tensor).collect();
    StateDict { tensors, ..StateDict::default() }
}

fn values(key: &str, shape: &[usize], tokens: &BTreeSet<u32>, random: &mut SplitMix64) -> Vec<f32> {
    let len: usize = shape.iter().product();
    let ends = |end: &str| key.ends_with(end);
    if ends("logit_scale") {
        return vec![LOGIT_SCALE; len];
    }
    if ends("gamma_1") || ends("gamma_2") {
        return vec![LAYER_SCALE; len];
    }
    if ends("token_embedding.weight") {
        let width = shape.last().copied().unwrap_or(1).max(1);
        let mut values = vec![0.0; len];
        for &token in tokens {
            if let Some(row) = values.chunks_exact_mut(width).nth(token as usize) {
                row.iter_mut().for_each(|value| *value = (TOKEN_STD * normal(random)) as f32);
            }
        }
        return values;
    }
    let mut drawn = |std: f64| (0..len).map(|_| (std * normal(random)) as f32).collect();
    if ends("positional_embedding") {
        return drawn(POSITION_STD);
    }
    if ends("query_feat.weight") || ends("query_embed.weight") || ends("level_embed.weight") {
        return drawn(1.0);
    }
    match shape {
        // Matrices that are multiplied from the right: [in, out].
        [num_in, _] if ends("class_embed") || ends("lang_proj") => drawn((*num_in as f64).sqrt().recip()),
        [num_out, num_in] => {
            // A packed input projection holds three matrices.
            let num_out = if ends("in_proj_weight") { num_out / 3 } else { *num_out };
            uniform(len, (6.0 / (num_in + num_out) as f64).sqrt(), random)
        }
        [_, num_in, height, width] => uniform(len, (3.0 / (num_in * height * width) as f64).sqrt(), random),
        _ if ends("weight") => vec![1.0; len],
        _ => vec![0.0; len],
    }
}

fn uniform(len: usize, bound: f64, random: &mut SplitMix64) -> Vec<f32> {
    (0..len).map(|_| ((2.0 * random.unit() - 1.0) * bound) as f32).collect()
}

/// Draws a standard normal number (Box and Muller, 1958).
fn normal(random: &mut SplitMix64) -> f64 {
    let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
    radius * (TAU * random.unit()).cos()
}

fn fnv1a(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_has_the_spread_of_its_kind() {
        let mut config = XDecoderConfig::focal_t();
        config.text.vocab_size = 9;
        let weights = initial_weights(&config, 3, &BTreeSet::from([2, 5, 400]));
        assert_eq!(weights, initial_weights(&config, 3, &BTreeSet::from([2, 5, 400])));
        assert_ne!(weights, initial_weights(&config, 4, &BTreeSet::from([2, 5, 400])));
        let find = |end: &str| &weights.tensors.iter().find(|(key, _)| key.ends_with(end)).unwrap().1.data;
        let std = |values: &[f32]| (values.iter().map(|x| f64::from(x * x)).sum::<f64>() / values.len() as f64).sqrt();
        assert!((std(find("query_feat.weight")) - 1.0).abs() < 0.01);
        assert!((std(find("linear1.weight")) - (2.0_f64 / (512.0 + 2048.0)).sqrt()).abs() < 1e-3);
        assert!((std(find("in_proj_weight")) - (2.0_f64 / 1024.0).sqrt()).abs() < 1e-3);
        assert!(find("norm.weight").iter().all(|&x| x == 1.0) && find("norm.bias").iter().all(|&x| x == 0.0));
        let rows = find("token_embedding.weight").chunks_exact(512);
        let used: Vec<bool> = rows.map(|row| row.iter().any(|&x| x != 0.0)).collect();
        assert_eq!(used, [false, false, true, false, false, true, false, false, false]);
    }
}
