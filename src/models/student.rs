//! The student, "AffinityPredictor": a sparse CNN that embeds every voxel by its geometry.
//!
//! conv3 → BN → ReLU; four times (conv3 → BN → ReLU → conv3 → BN, plus identity, ReLU); conv1. The
//! published weights take 518 channels (512 lifted, 3 colour in 0..1, 3 normal) and give 128.

use burn::module::{Module, Param, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ops::kernel_map::kernel_map;
use crate::ops::sparse_conv::sparse_conv;
use crate::ops::{OpError, float_tensor};
use crate::weights::{HostTensor, LoadReport, StateDict, WeightsError, match_keys};

/// Cells of a 3 × 3 × 3 kernel.
const KERNEL_VOLUME: usize = 27;
/// Residual blocks.
const NUM_BLOCKS: usize = 4;
/// Batch norm's ε, as in the reference.
const EPSILON: f64 = 1e-5;
/// How far an output voxel sees, in voxels along an axis: nine 3 × 3 × 3 convolutions in a row.
pub const RECEPTIVE_RADIUS: usize = 1 + 2 * NUM_BLOCKS;
/// Buffers of the checkpoint that inference has no use for.
const IGNORED: &[&str] = &["num_batches_tracked"];

/// Widths of the student.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudentConfig {
    /// Input channels: semantic features, then colour, then normal.
    pub input_dim: usize,
    /// Channels between.
    pub hidden_dim: usize,
    /// Channels of the embedding.
    pub embed_dim: usize,
}

impl StudentConfig {
    /// The published widths.
    pub const PUBLISHED: Self = Self { input_dim: 518, hidden_dim: 512, embed_dim: 128 };

    /// The widths that the shapes of a state dict tell, `None` where it is no student's.
    #[must_use]
    pub fn of(state: &StateDict) -> Option<Self> {
        let input = &state.tensors.get("input_layer.0.kernel")?.shape;
        let output = &state.tensors.get("output_layer.kernel")?.shape;
        match (input.as_slice(), output.as_slice()) {
            (&[_, input_dim, hidden_dim], &[_, embed_dim]) => Some(Self { input_dim, hidden_dim, embed_dim }),
            _ => None,
        }
    }

    /// Every key of the checkpoint with its shape, in the checkpoint's order.
    #[must_use]
    pub fn keys(&self) -> Vec<(String, Vec<usize>)> {
        let mut keys = Vec::new();
        let norm = |keys: &mut Vec<(String, Vec<usize>)>, prefix: &str| {
            for name in ["weight", "bias", "running_mean", "running_var"] {
                keys.push((format!("{prefix}.bn.{name}"), vec![self.hidden_dim]));
            }
        };
        keys.push(("input_layer.0.kernel".to_owned(), vec![KERNEL_VOLUME, self.input_dim, self.hidden_dim]));
        norm(&mut keys, "input_layer.1");
        for block in 0..NUM_BLOCKS {
            for half in 1..=2 {
                let kernel = format!("res_blocks.{block}.conv{half}.kernel");
                keys.push((kernel, vec![KERNEL_VOLUME, self.hidden_dim, self.hidden_dim]));
                norm(&mut keys, &format!("res_blocks.{block}.norm{half}"));
            }
        }
        keys.push(("output_layer.kernel".to_owned(), vec![self.hidden_dim, self.embed_dim]));
        keys
    }
}

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
    /// Builds the student from the reference's state dict. The report names every key; anything
    /// missing, left over or of another shape is fatal.
    ///
    /// # Errors
    /// [`WeightsError`] naming the file and the key.
    pub fn load(mut state: StateDict, device: &Device) -> Result<(Self, StudentConfig, LoadReport), WeightsError> {
        // Another model's checkpoint: the report against the published widths says what is missing.
        let config = StudentConfig::of(&state).unwrap_or(StudentConfig::PUBLISHED);
        let report = match_keys(&state, &config.keys(), IGNORED);
        report.ensure_complete()?;
        let mut conv = |kernel: &str, norm: &str, num_in: usize| -> Result<ConvNorm, WeightsError> {
            let mut vector = |name: &str| -> Result<Tensor<1>, WeightsError> {
                let values = state.take(&format!("{norm}.bn.{name}"), &[config.hidden_dim])?;
                Ok(float_tensor(values.data, [config.hidden_dim], device))
            };
            let mut bn = BatchNormConfig::new(config.hidden_dim).with_epsilon(EPSILON).init(device);
            bn.gamma = Param::from_tensor(vector("weight")?);
            bn.beta = Param::from_tensor(vector("bias")?);
            bn.running_mean = RunningState::new(vector("running_mean")?);
            bn.running_var = RunningState::new(vector("running_var")?);
            let shape = [KERNEL_VOLUME, num_in, config.hidden_dim];
            let HostTensor { data, .. } = state.take(&format!("{kernel}.kernel"), &shape)?;
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
        let output = state.take("output_layer.kernel", &shape)?;
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
