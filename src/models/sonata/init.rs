//! Initial weights of the encoder, before training.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::SonataConfig;
use crate::random::SplitMix64;
use crate::weights::{Dtype, HostTensor, StateDict};

/// Number of the random stream that draws the weights.
const WEIGHTS: u64 = 0;

impl SonataConfig {
    /// Returns the configuration of a small encoder with 2.2 million parameters, which can be trained on a
    /// CPU. Its voxels of 2 cm and its cells of 8 cm are those of the published one. Most of its width and
    /// depth is at the level of the cells, because two neighbouring cells share the features of the coarser
    /// levels.
    #[must_use]
    pub fn small() -> Self {
        Self {
            enc_depths: vec![1, 1, 3, 1, 1],
            enc_channels: vec![24, 48, 128, 32, 32],
            enc_num_head: vec![2, 4, 8, 2, 2],
            enc_patch_size: vec![128, 256, 256, 256, 256],
            ..Self::published()
        }
    }

    /// Returns initial weights as those of PyTorch's and spconv's layers: weights and biases uniform in ±1 /
    /// √(inputs · cells of the kernel), norms as the identity. The values depend on `seed` alone, with one
    /// random stream for each tensor in the checkpoint's order. The configuration must be
    /// [valid](Self::validate).
    #[must_use]
    pub fn initial(&self, seed: u64) -> StateDict {
        let mut tensors = BTreeMap::new();
        // Bound of the layer whose weight came last; `None` for a norm.
        let mut bound = None;
        for (number, (key, shape)) in self.keys().into_iter().enumerate() {
            let is_weight = key.ends_with(".weight");
            if is_weight {
                let num_inputs: usize = shape.iter().skip(1).product();
                bound = (shape.len() > 1).then(|| 1.0 / (num_inputs as f64).sqrt());
            }
            let len = shape.iter().product();
            let data = match bound {
                Some(bound) => {
                    let mut random = SplitMix64::stream(seed, &[WEIGHTS, number as u64]);
                    (0..len).map(|_| (bound * (2.0 * random.unit() - 1.0)) as f32).collect()
                }
                None => vec![f32::from(u8::from(is_weight)); len],
            };
            tensors.insert(key, HostTensor { shape, dtype_in_file: Dtype::F32, data });
        }
        StateDict { source: PathBuf::from("initial weights"), tensors, ..StateDict::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_start_as_pytorchs() {
        let config = SonataConfig::small();
        config.validate().unwrap();
        let state = config.initial(3);
        assert_eq!(state, config.initial(3));
        assert_ne!(state, config.initial(4));
        assert_eq!(state.tensors.len(), config.keys().len());
        let data = |key: &str| &state.tensors[key].data;
        assert!(data("enc.enc1.block0.norm1.0.weight").iter().all(|&x| x == 1.0));
        assert!(data("enc.enc1.down.norm.0.bias").iter().all(|&x| x == 0.0));
        let within = |key: &str, num_inputs: f32| {
            let bound = 1.0 / num_inputs.sqrt();
            let largest = data(key).iter().fold(0.0_f32, |a, x| a.max(x.abs()));
            assert!(largest <= bound && largest > 0.8 * bound, "{key}: {largest} of {bound}");
        };
        within("enc.enc1.block0.cpe.0.weight", 27.0 * 48.0);
        within("enc.enc1.block0.cpe.0.bias", 27.0 * 48.0);
        within("enc.enc1.down.proj.weight", 24.0);
        within("enc.enc0.block0.mlp.0.fc2.weight", 96.0);
        let num_values: usize = state.tensors.values().map(|tensor| tensor.data.len()).sum();
        assert!((2_100_000..2_400_000).contains(&num_values), "{num_values}");
    }
}
