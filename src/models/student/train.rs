//! Training of the student: initial weights, forward pass with batch statistics, access to parameters by
//! name, and export under the reference's keys.

use burn::prelude::*;
use burn::tensor::Gradients;

use super::config::{NUM_BLOCKS, OUTPUT_KEY};
use super::{AffinityPredictor, ResidualBlock, StudentConfig};
use crate::models::conv_norm::{ConvKeys, ConvNorm, draw_kernel, host, parameter, replace};
use crate::ops::batch_norm::BatchNormed;
use crate::ops::kernel_map::kernel_map;
use crate::ops::matmul::{Form, matmul};
use crate::ops::sparse_conv::sparse_conv;
use crate::ops::{OpError, float_tensor};
use crate::weights::StateDict;

impl AffinityPredictor {
    /// Creates an untrained student, initialized as in the reference: kernels uniform in ±1 / √(inputs ·
    /// cells of the kernel), scales 1, shifts 0, running means 0 and variances 1. The values depend on `seed`
    /// alone, with one random stream for each kernel in the checkpoint's order.
    #[must_use]
    pub fn new(config: &StudentConfig, seed: u64, device: &Device) -> Self {
        let mut streams = 0..;
        let mut layer = |keys: &ConvKeys| ConvNorm::new([seed, streams.next().unwrap_or(0)], keys.shape, device);
        let input_layer = layer(&config.input_layer());
        let res_blocks = config.res_blocks();
        let res_blocks =
            res_blocks.iter().map(|[first, second]| ResidualBlock { first: layer(first), second: layer(second) });
        let res_blocks = res_blocks.collect();
        let hidden = config.hidden_dim;
        let output = draw_kernel([seed, streams.next().unwrap_or(0)], hidden, config.embed_dim);
        let output_layer = parameter(float_tensor(output, [hidden, config.embed_dim], device));
        Self { input_layer, res_blocks, output_layer, num_batches_tracked: 0 }
    }

    /// Returns the student's widths.
    #[must_use]
    pub fn config(&self) -> StudentConfig {
        let ([_, input_dim, _], [hidden_dim, embed_dim]) = (self.input_layer.kernel.dims(), self.output_layer.dims());
        StudentConfig { input_dim, hidden_dim, embed_dim }
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

    /// Computes the embedding `[V, embed]` (not normalised) as in training. Batch norms use the mean and
    /// variance of these voxels, and their running statistics move a tenth of the way there (unbiased
    /// variance). `features [V, input]` and `coords [V, 4]` (batch, x, y, z; distinct, in any order) must be
    /// on the device of the parameters. On an autodiff device gradients flow to the parameters.
    ///
    /// # Errors
    /// [`OpError`] if shapes disagree, there are fewer than two voxels, or a layer does not fit the device.
    /// The running statistics are then unchanged.
    pub fn forward_train(&mut self, features: Tensor<2>, coords: Tensor<2, Int>) -> Result<Tensor<2>, OpError> {
        let map = kernel_map(coords, 3)?;
        let mut seen = Vec::with_capacity(1 + 2 * NUM_BLOCKS);
        let mut forward = |layer: &ConvNorm, x: Tensor<2>, identity: Option<Tensor<2>>| -> Result<_, OpError> {
            let x = sparse_conv(x, layer.kernel.clone(), None, map.clone())?;
            let BatchNormed { y, mean, unbiased_variance } = layer.norm(x, identity, true)?;
            seen.push((mean, unbiased_variance));
            Ok(y)
        };
        let mut x = forward(&self.input_layer, features, None)?;
        for ResidualBlock { first, second } in &self.res_blocks {
            let hidden = forward(first, x.clone(), None)?;
            x = forward(second, hidden, Some(x))?;
        }
        for (layer, (mean, variance)) in self.layers_mut().zip(seen) {
            layer.follow(mean, variance);
        }
        self.num_batches_tracked += 1;
        matmul(x, self.output_layer.clone(), Form::Plain)
    }

    /// Replaces every parameter by the result of `step`. `step` receives the parameter's key, its values and
    /// its gradient, both flat and without autodiff, and returns as many new values. Parameters are visited
    /// in the checkpoint's order. Gradients are taken out of `gradients`; a parameter without one is not
    /// changed.
    ///
    /// # Errors
    /// The error of `step`. Earlier parameters have then been replaced, and later ones are unchanged. The
    /// current one is NaN, because values have a single owner so that they can be changed in place.
    pub fn update<E>(
        &mut self,
        gradients: &mut Gradients,
        mut step: impl FnMut(&str, Tensor<1>, Tensor<1>) -> Result<Tensor<1>, E>,
    ) -> Result<(), E> {
        for (keys, layer) in self.config().layers().iter().zip(self.layers_mut()) {
            layer.update(keys, gradients, &mut step)?;
        }
        replace(&mut self.output_layer, gradients, |values, gradient| step(OUTPUT_KEY, values, gradient))
    }

    /// Returns the weights under the reference's keys, with the counts of training steps, as
    /// [`load`](Self::load) reads them.
    ///
    /// # Errors
    /// [`OpError::Device`] if the values cannot be read back.
    pub fn state_dict(&self) -> Result<StateDict, OpError> {
        let mut state = StateDict::default();
        for (keys, layer) in self.config().layers().iter().zip(self.layers()) {
            layer.export(keys, self.num_batches_tracked, &mut state)?;
        }
        state.tensors.insert(OUTPUT_KEY.to_owned(), host(&self.output_layer)?);
        Ok(state)
    }

    fn layers(&self) -> impl Iterator<Item = &ConvNorm> {
        std::iter::once(&self.input_layer).chain(self.res_blocks.iter().flat_map(|block| [&block.first, &block.second]))
    }

    fn layers_mut(&mut self) -> impl Iterator<Item = &mut ConvNorm> {
        let blocks = self.res_blocks.iter_mut().flat_map(|block| [&mut block.first, &mut block.second]);
        std::iter::once(&mut self.input_layer).chain(blocks)
    }
}
