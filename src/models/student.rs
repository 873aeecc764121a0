//! The student, "AffinityPredictor": a sparse CNN that embeds every voxel by its geometry.
//!
//! conv3 → BN → ReLU; four times (conv3 → BN → ReLU → conv3 → BN, plus identity, ReLU); conv1. The
//! published weights take 518 channels (512 lifted, 3 colour in 0..1, 3 normal) and give 128.

mod config;

use burn::module::{Module, Param, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::prelude::*;
pub use config::StudentConfig;
use config::{KERNEL_VOLUME, NUM_BLOCKS};

use crate::ops::kernel_map::kernel_map;
use crate::ops::sparse_conv::sparse_conv;
use crate::ops::{OpError, float_tensor};
use crate::weights::{HostTensor, LoadReport, TensorSource, WeightsError, match_keys};

/// Batch norm's ε, as in the reference.
const EPSILON: f64 = 1e-5;
/// How far an output voxel sees, in voxels along an axis: nine 3 × 3 × 3 convolutions in a row.
pub const RECEPTIVE_RADIUS: usize = 1 + 2 * NUM_BLOCKS;

/// A convolution without bias and its batch norm.
#[derive(Module, Debug)]
struct ConvNorm {
    kernel: Param<Tensor<3>>,
    bn: BatchNorm,
}

/// Two convolutions around an identity connection.
#[derive(Module, Debug)]
struct ResidualBlock {
    first: ConvNorm,
    second: ConvNorm,
}

/// The student with its batch norms as the checkpoint has them.
#[derive(Module, Debug)]
pub struct AffinityPredictor {
    input_layer: ConvNorm,
    res_blocks: Vec<ResidualBlock>,
    output_layer: Param<Tensor<2>>,
}

impl AffinityPredictor {
    /// Builds the student from the reference's weights, taken one tensor at a time. The report names
    /// every key; anything missing, left over or of another shape is fatal.
    ///
    /// # Errors
    /// [`WeightsError`] naming the file and the key.
    pub fn load(
        mut weights: impl TensorSource,
        device: &Device,
    ) -> Result<(Self, StudentConfig, LoadReport), WeightsError> {
        // Another model's checkpoint: the report against the published widths says what is missing.
        let held = weights.inventory().into_owned();
        let config = StudentConfig::of(&|key| held.shape(key)).unwrap_or(StudentConfig::PUBLISHED);
        let unused: Vec<_> = StudentConfig::UNUSED.iter().map(|(pattern, _)| *pattern).collect();
        let report = match_keys(&weights, &config.keys(), &unused);
        report.ensure_complete()?;
        let mut conv = |kernel: &str, norm: &str, num_in: usize| -> Result<ConvNorm, WeightsError> {
            let mut vector = |name: &str| -> Result<Tensor<1>, WeightsError> {
                let values = weights.take(&format!("{norm}.bn.{name}"), &[config.hidden_dim])?;
                Ok(float_tensor(values.data, [config.hidden_dim], device))
            };
            let mut bn = BatchNormConfig::new(config.hidden_dim).with_epsilon(EPSILON).init(device);
            bn.gamma = Param::from_tensor(vector("weight")?);
            bn.beta = Param::from_tensor(vector("bias")?);
            bn.running_mean = RunningState::new(vector("running_mean")?);
            bn.running_var = RunningState::new(vector("running_var")?);
            let shape = [KERNEL_VOLUME, num_in, config.hidden_dim];
            let HostTensor { data, .. } = weights.take(&format!("{kernel}.kernel"), &shape)?;
            Ok(ConvNorm { kernel: Param::from_tensor(float_tensor(data, shape, device)), bn })
        };
        let input_layer = conv("input_layer.0", "input_layer.1", config.input_dim)?;
        let res_blocks = (0..NUM_BLOCKS)
            .map(|i| {
                let mut half = |n: usize| {
                    conv(&format!("res_blocks.{i}.conv{n}"), &format!("res_blocks.{i}.norm{n}"), config.hidden_dim)
                };
                Ok(ResidualBlock { first: half(1)?, second: half(2)? })
            })
            .collect::<Result<_, WeightsError>>()?;
        let shape = [config.hidden_dim, config.embed_dim];
        let output = weights.take("output_layer.kernel", &shape)?;
        let output_layer = Param::from_tensor(float_tensor(output.data, shape, device));
        Ok((Self { input_layer, res_blocks, output_layer }, config, report))
    }

    /// The network for inference: running statistics folded into kernels and biases, so that a
    /// voxel's activations are written once per layer instead of once per step of the batch norm.
    #[must_use]
    pub fn fold(&self) -> Student {
        let fold = |layer: &ConvNorm| {
            let scale = layer.bn.gamma.val() / (layer.bn.running_var.value() + EPSILON).sqrt();
            let bias = layer.bn.beta.val() - layer.bn.running_mean.value() * scale.clone();
            let [_, _, num_out] = layer.kernel.dims();
            FoldedConv { kernel: layer.kernel.val() * scale.reshape([1, 1, num_out]), bias }
        };
        Student {
            input_layer: fold(&self.input_layer),
            res_blocks: self.res_blocks.iter().map(|b| [fold(&b.first), fold(&b.second)]).collect(),
            output_layer: self.output_layer.val(),
        }
    }
}

#[derive(Clone, Debug)]
struct FoldedConv {
    kernel: Tensor<3>,
    bias: Tensor<1>,
}

impl FoldedConv {
    fn forward(&self, x: Tensor<2>, map: &Tensor<2, Int>) -> Result<Tensor<2>, OpError> {
        sparse_conv(x, self.kernel.clone(), Some(self.bias.clone()), map.clone())
    }
}

/// The student ready for inference, see [`AffinityPredictor::fold`].
#[derive(Clone, Debug)]
pub struct Student {
    input_layer: FoldedConv,
    res_blocks: Vec<[FoldedConv; 2]>,
    output_layer: Tensor<2>,
}

impl Student {
    /// Embedding `[V, embed]` (not normalised) of voxels with `features [V, input]` at
    /// `coords [V, 4]` (batch, x, y, z), distinct, in any order.
    ///
    /// # Errors
    /// [`OpError`] where shapes disagree or a layer does not fit the device.
    pub fn forward(&self, features: Tensor<2>, coords: Tensor<2, Int>) -> Result<Tensor<2>, OpError> {
        self.forward_observed(features, coords, |_, _| ())
    }

    /// As [`forward`](Self::forward), showing the activations `[V, hidden]` after `input_layer` and
    /// every `res_blocks.{i}` to `observe`.
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
        let mut x = relu(self.input_layer.forward(features, &map)?);
        observe("input_layer", &x);
        for (i, [first, second]) in self.res_blocks.iter().enumerate() {
            let hidden = relu(first.forward(x.clone(), &map)?);
            x = relu(second.forward(hidden, &map)? + x);
            observe(&format!("res_blocks.{i}"), &x);
        }
        Ok(x.matmul(self.output_layer.clone()))
    }
}

fn relu(x: Tensor<2>) -> Tensor<2> {
    burn::tensor::activation::relu(x)
}

/// Rows divided by max(‖row‖₂, 1e-12), as PyTorch's `normalize`.
#[must_use]
pub fn normalize_rows(x: Tensor<2>) -> Tensor<2> {
    let norm = x.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12);
    x / norm
}
