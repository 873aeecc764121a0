//! The student ("AffinityPredictor"): a sparse CNN that embeds every voxel by its geometry.
//!
//! Its layers are conv3 → BN → ReLU, then four residual blocks (conv3 → BN → ReLU → conv3 → BN, plus
//! identity, ReLU), then conv1. The published weights take 518 channels (512 lifted, 3 colour in 0..1, 3
//! normal) and output 128.

mod config;
mod train;

use burn::prelude::*;
pub use config::StudentConfig;
use config::{NUM_BLOCKS, OUTPUT_KEY};

use super::conv_norm::{ConvKeys, ConvNorm, FoldedConv, parameter};
use crate::ops::kernel_map::kernel_map;
use crate::ops::matmul::{Form, matmul};
use crate::ops::sparse_conv::sparse_conv;
use crate::ops::{OpError, float_tensor, plain};
use crate::weights::{LoadReport, TensorSource, WeightsError, match_keys};

/// Receptive radius of an output voxel, in voxels along an axis: nine 3 × 3 × 3 convolutions in a row.
pub const RECEPTIVE_RADIUS: usize = 1 + 2 * NUM_BLOCKS;

/// Two convolutions with a residual connection.
#[derive(Clone, Debug)]
struct ResidualBlock {
    first: ConvNorm,
    second: ConvNorm,
}

/// The student with separate batch norms, as in the checkpoint. On an autodiff device its parameters track
/// gradients, so it can be trained.
#[derive(Clone, Debug)]
pub struct AffinityPredictor {
    input_layer: ConvNorm,
    res_blocks: Vec<ResidualBlock>,
    output_layer: Tensor<2>,
    num_batches_tracked: u64,
}

impl AffinityPredictor {
    /// Builds the student from the reference's weights, taken one tensor at a time. The report lists every
    /// key. A key that is missing, unknown or of another shape is an error. The count of training steps
    /// starts at 0, see [`set_num_batches_tracked`](Self::set_num_batches_tracked).
    ///
    /// # Errors
    /// [`WeightsError`] with the file and the key.
    pub fn load(
        mut weights: impl TensorSource,
        device: &Device,
    ) -> Result<(Self, StudentConfig, LoadReport), WeightsError> {
        // Another model's checkpoint: the report against the published widths lists what is missing.
        let held = weights.inventory().into_owned();
        let config = StudentConfig::of(&|key| held.shape(key)).unwrap_or(StudentConfig::PUBLISHED);
        let unused: Vec<_> = StudentConfig::UNUSED.iter().map(|(pattern, _)| *pattern).collect();
        let report = match_keys(&weights, &config.keys(), &unused);
        report.ensure_complete()?;
        let mut layer = |keys: &ConvKeys| ConvNorm::load(&mut weights, keys, device);
        let input_layer = layer(&config.input_layer())?;
        let res_blocks = config.res_blocks();
        let res_blocks =
            res_blocks.iter().map(|[first, second]| Ok(ResidualBlock { first: layer(first)?, second: layer(second)? }));
        let res_blocks = res_blocks.collect::<Result<_, WeightsError>>()?;
        let shape = [config.hidden_dim, config.embed_dim];
        let output = weights.take(OUTPUT_KEY, &shape)?;
        let output_layer = parameter(float_tensor(output.data, shape, device));
        Ok((Self { input_layer, res_blocks, output_layer, num_batches_tracked: 0 }, config, report))
    }

    /// Returns the network for inference, without autodiff. The running statistics are folded into kernels
    /// and biases, so a voxel's activations are written once per layer instead of once per step of the batch
    /// norm.
    #[must_use]
    pub fn fold(&self) -> Student {
        Student {
            input_layer: self.input_layer.fold(),
            res_blocks: self.res_blocks.iter().map(|b| [b.first.fold(), b.second.fold()]).collect(),
            output_layer: plain(self.output_layer.clone()),
        }
    }
}

/// The student for inference, see [`AffinityPredictor::fold`].
#[derive(Clone, Debug)]
pub struct Student {
    input_layer: FoldedConv,
    res_blocks: Vec<[FoldedConv; 2]>,
    output_layer: Tensor<2>,
}

impl Student {
    /// Computes the embedding `[V, embed]` (not normalised) of voxels with `features [V, input]` at `coords
    /// [V, 4]` (batch, x, y, z), which are distinct and in any order.
    ///
    /// # Errors
    /// [`OpError`] if shapes disagree or a layer does not fit the device.
    pub fn forward(&self, features: Tensor<2>, coords: Tensor<2, Int>) -> Result<Tensor<2>, OpError> {
        self.forward_observed(features, coords, |_, _| ())
    }

    /// Does the same as [`forward`](Self::forward), and passes to `observe` the activations `[V, hidden]`
    /// after `input_layer` and after every `res_blocks.{i}`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_observed(
        &self,
        features: Tensor<2>,
        coords: Tensor<2, Int>,
        mut observe: impl FnMut(&str, &Tensor<2>),
    ) -> Result<Tensor<2>, OpError> {
        let map = kernel_map(coords, 3)?;
        let convolve = |layer: &FoldedConv, x: Tensor<2>| {
            sparse_conv(x, layer.kernel.clone(), Some(layer.bias.clone()), map.clone())
        };
        let mut x = relu(convolve(&self.input_layer, features)?);
        observe("input_layer", &x);
        for (i, [first, second]) in self.res_blocks.iter().enumerate() {
            let hidden = relu(convolve(first, x.clone())?);
            x = relu(convolve(second, hidden)? + x);
            observe(&format!("res_blocks.{i}"), &x);
        }
        matmul(x, self.output_layer.clone(), Form::Plain)
    }
}

fn relu(x: Tensor<2>) -> Tensor<2> {
    burn::tensor::activation::relu(x)
}
