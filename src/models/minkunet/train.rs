//! Training of a MinkUNet: initial weights, forward pass with batch statistics, access to parameters by name, and
//! export under the reference's keys.

use std::collections::BTreeMap;
use std::convert::Infallible;

use burn::prelude::*;
use burn::tensor::Gradients;

use super::config::head_key;
use super::net::{Net, Step};
use super::{ConfigError, MinkUnet, MinkUnetConfig, head_of};
use crate::models::conv_norm::{ConvKeys, ConvNorm, draw_kernel, host, learnable, parameter, replace};
use crate::ops::batch_norm::BatchNormed;
use crate::ops::matmul::{Form, matmul};
use crate::ops::{OpError, float_tensor, plain};
use crate::weights::{LoadReport, StateDict, TensorSource, WeightsError, match_keys};

/// A layer with its keys.
#[derive(Clone, Debug)]
struct Layer {
    keys: ConvKeys,
    conv: ConvNorm,
}

/// MinkUNet with separate batch norms, as in the checkpoint. On an autodiff device its parameters track gradients, so
/// it can be trained.
#[derive(Clone, Debug)]
pub struct TrainableMinkUnet {
    net: Net<Layer>,
    /// `[last, head]` each.
    heads: Vec<Tensor<2>>,
    config: MinkUnetConfig,
    num_batches_tracked: u64,
}

impl TrainableMinkUnet {
    /// Creates an untrained network of any sizes: kernels uniform in ±1 / √(inputs · cells of the kernel), scales 1,
    /// shifts 0, running means 0 and variances 1. The values depend on `seed` alone, with one random stream for each
    /// kernel in the checkpoint's order.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: &MinkUnetConfig, seed: u64, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        let mut number = 0;
        let mut stream = || {
            number += 1;
            [seed, number - 1]
        };
        let Ok(net) = config.net().try_map(|keys| {
            let conv = ConvNorm::new(stream(), keys.shape, device);
            Ok::<_, Infallible>(Layer { keys: keys.clone(), conv })
        });
        let heads = config.heads.iter().map(|&(_, channels)| {
            let values = draw_kernel(stream(), config.last(), channels);
            parameter(float_tensor(values, [config.last(), channels], device))
        });
        let heads = heads.collect();
        Ok(Self { net, heads, config: config.clone(), num_batches_tracked: 0 })
    }

    /// Builds the network from a checkpoint as [`MinkUnet::load`] does. The count of training steps starts at 0, see
    /// [`set_num_batches_tracked`](Self::set_num_batches_tracked).
    ///
    /// # Errors
    /// [`WeightsError`] with the file and the key.
    pub fn load(weights: impl TensorSource, device: &Device) -> Result<(Self, LoadReport), WeightsError> {
        // Another model's checkpoint: the report against the published sizes lists what is missing.
        let held = weights.inventory().into_owned();
        let config = MinkUnetConfig::of(&|key| held.shape(key)).unwrap_or_else(MinkUnetConfig::openscene);
        Self::load_as(config, weights, device)
    }

    /// Builds a network of these sizes, also one whose heads have other names than the published ones.
    ///
    /// # Errors
    /// [`WeightsError`] with the file and the key.
    pub fn load_as(
        config: MinkUnetConfig,
        mut weights: impl TensorSource,
        device: &Device,
    ) -> Result<(Self, LoadReport), WeightsError> {
        let unused: Vec<_> = MinkUnetConfig::UNUSED.iter().map(|(pattern, _)| *pattern).collect();
        let report = match_keys(&weights, &config.keys(), &unused);
        report.ensure_complete()?;
        let net = config.net().try_map(|keys| {
            let conv = ConvNorm::load(&mut weights, keys, device)?;
            Ok::<_, WeightsError>(Layer { keys: keys.clone(), conv })
        })?;
        let heads = config.heads.iter().map(|(name, channels)| {
            let shape = [config.last(), *channels];
            learnable(&mut weights, &head_key(name), &shape, shape, device)
        });
        let heads = heads.collect::<Result<_, WeightsError>>()?;
        Ok((Self { net, heads, config, num_batches_tracked: 0 }, report))
    }

    /// Returns the network for inference, without autodiff. The running statistics are folded into kernels and biases.
    #[must_use]
    pub fn fold(&self) -> MinkUnet {
        let Ok(net) = self.net.try_map(|layer| Ok::<_, Infallible>(layer.conv.fold()));
        let heads = self.heads.iter().map(|head| plain(head.clone())).collect();
        MinkUnet { net, heads, config: self.config.clone() }
    }

    /// Sizes of the network.
    #[must_use]
    pub fn config(&self) -> &MinkUnetConfig {
        &self.config
    }

    /// Returns the number of training steps in the running statistics.
    #[must_use]
    pub fn num_batches_tracked(&self) -> u64 {
        self.num_batches_tracked
    }

    /// Sets the number of training steps, for a resumed run.
    pub fn set_num_batches_tracked(&mut self, num_batches: u64) {
        self.num_batches_tracked = num_batches;
    }

    /// Computes the last stage `[V, last]` as in training. Batch norms use the mean and variance of these cells, and
    /// their running statistics move a tenth of the way there (unbiased variance). `features [V, in]` and `coords [V,
    /// 4]` are those of [`MinkUnet::forward`], on the device of the parameters. On an autodiff device gradients flow to
    /// the parameters.
    ///
    /// # Errors
    /// As [`MinkUnet::forward`]; also if a level has fewer than two cells. The running statistics are then unchanged.
    pub fn forward_train(&mut self, features: Tensor<2>, coords: Tensor<2, Int>) -> Result<Tensor<2>, OpError> {
        let mut seen = BTreeMap::new();
        let mut apply = |Layer { keys, conv }: &Layer, step: Step<'_>| {
            let x = step.reads.convolve(step.x, conv.kernel.clone(), None)?;
            let BatchNormed { y, mean, unbiased_variance } = conv.norm(x, step.added, step.relu)?;
            seen.insert(keys.kernel.clone(), (mean, unbiased_variance));
            Ok(y)
        };
        let last = self.net.run(features, coords, &mut apply, &mut |_, _, _| ())?;
        for Layer { keys, conv } in self.net.layers_mut() {
            if let Some((mean, variance)) = seen.remove(&keys.kernel) {
                conv.follow(mean, variance);
            }
        }
        self.num_batches_tracked += 1;
        Ok(last)
    }

    /// Running statistics of every batch norm, by their keys in the checkpoint. They are not on an autodiff device.
    pub fn running_statistics(&self) -> impl Iterator<Item = (String, Tensor<1>)> {
        self.net.layers().into_iter().flat_map(|Layer { keys, conv }| conv.running(keys))
    }

    /// Computes a head as [`MinkUnet::head`] does, with gradients.
    ///
    /// # Errors
    /// As [`MinkUnet::head`].
    pub fn head(&self, last: Tensor<2>, head: usize) -> Result<Tensor<2>, OpError> {
        matmul(last, head_of(&self.heads, head)?, Form::Plain)
    }

    /// Replaces every parameter by the result of `step`, as
    /// [`AffinityPredictor::update`](crate::models::student::AffinityPredictor::update) does: `step` receives the
    /// parameter's key, its values and its gradient, both flat and without autodiff, in the checkpoint's order. A
    /// parameter without a gradient, such as an unused head, is not changed.
    ///
    /// # Errors
    /// The error of `step`. Earlier parameters have then been replaced, later ones are unchanged, and the current one
    /// is NaN.
    pub fn update<E>(
        &mut self,
        gradients: &mut Gradients,
        mut step: impl FnMut(&str, Tensor<1>, Tensor<1>) -> Result<Tensor<1>, E>,
    ) -> Result<(), E> {
        for Layer { keys, conv } in self.net.layers_mut() {
            conv.update(keys, gradients, &mut step)?;
        }
        for (head, (name, _)) in self.heads.iter_mut().zip(&self.config.heads) {
            let key = head_key(name);
            replace(head, gradients, |values, gradient| step(&key, values, gradient))?;
        }
        Ok(())
    }

    /// Returns the weights under the reference's keys, with the counts of training steps, as [`load`](Self::load) reads
    /// them.
    ///
    /// # Errors
    /// [`OpError::Device`] if the values cannot be read back.
    pub fn state_dict(&self) -> Result<StateDict, OpError> {
        let mut state = StateDict::default();
        for Layer { keys, conv } in self.net.layers() {
            conv.export(keys, self.num_batches_tracked, &mut state)?;
        }
        for (head, (name, _)) in self.heads.iter().zip(&self.config.heads) {
            state.tensors.insert(head_key(name), host(head)?);
        }
        Ok(state)
    }
}
