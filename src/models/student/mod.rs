//! The student ("AffinityPredictor"): a sparse CNN that embeds every voxel by its geometry.
//!
//! Its layers are conv3 → BN → ReLU, then four residual blocks (conv3 → BN → ReLU → conv3 → BN, plus
//! identity, ReLU), then conv1. The published weights take 518 channels (512 lifted, 3 colour in 0..1, 3
//! normal) and output 128.

mod config;
mod train;

use burn::prelude::*;
pub use config::StudentConfig;
use config::{KERNEL_VOLUME, NUM_BLOCKS};

use crate::ops::kernel_map::kernel_map;
use crate::ops::matmul::{Form, matmul};
use crate::ops::sparse_conv::sparse_conv;
use crate::ops::{OpError, float_tensor, plain};
use crate::weights::{HostTensor, LoadReport, TensorSource, WeightsError, match_keys};

/// Batch norm's ε, as in the reference.
const EPSILON: f64 = 1e-5;
/// Receptive radius of an output voxel, in voxels along an axis: nine 3 × 3 × 3 convolutions in a row.
pub const RECEPTIVE_RADIUS: usize = 1 + 2 * NUM_BLOCKS;

/// Parameters and running statistics of a batch norm. The statistics are never on an autodiff device.
#[derive(Clone, Debug)]
struct BatchNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    running_mean: Tensor<1>,
    running_var: Tensor<1>,
}

/// A convolution without bias, and its batch norm.
#[derive(Clone, Debug)]
struct ConvNorm {
    kernel: Tensor<3>,
    bn: BatchNorm,
}

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

/// Makes a tensor track gradients if the device does.
fn parameter<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.device().is_autodiff() { tensor.require_grad() } else { tensor }
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
        let inner = device.clone().without_autodiff();
        let mut conv = |kernel: &str, norm: &str, num_in: usize| -> Result<ConvNorm, WeightsError> {
            let mut vector = |name: &str, device: &Device| -> Result<Tensor<1>, WeightsError> {
                let values = weights.take(&format!("{norm}.bn.{name}"), &[config.hidden_dim])?;
                Ok(float_tensor(values.data, [config.hidden_dim], device))
            };
            let bn = BatchNorm {
                weight: parameter(vector("weight", device)?),
                bias: parameter(vector("bias", device)?),
                running_mean: vector("running_mean", &inner)?,
                running_var: vector("running_var", &inner)?,
            };
            let shape = [KERNEL_VOLUME, num_in, config.hidden_dim];
            let HostTensor { data, .. } = weights.take(&format!("{kernel}.kernel"), &shape)?;
            Ok(ConvNorm { kernel: parameter(float_tensor(data, shape, device)), bn })
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
        let output_layer = parameter(float_tensor(output.data, shape, device));
        Ok((Self { input_layer, res_blocks, output_layer, num_batches_tracked: 0 }, config, report))
    }

    /// Returns the network for inference, without autodiff. The running statistics are folded into kernels
    /// and biases, so a voxel's activations are written once per layer instead of once per step of the batch
    /// norm.
    #[must_use]
    pub fn fold(&self) -> Student {
        let fold = |layer: &ConvNorm| {
            let BatchNorm { weight, bias, running_mean, running_var } = layer.bn.clone();
            let scale = plain(weight) / (running_var + EPSILON).sqrt();
            let bias = plain(bias) - running_mean * scale.clone();
            let [_, _, num_out] = layer.kernel.dims();
            FoldedConv { kernel: plain(layer.kernel.clone()) * scale.reshape([1, 1, num_out]), bias }
        };
        Student {
            input_layer: fold(&self.input_layer),
            res_blocks: self.res_blocks.iter().map(|b| [fold(&b.first), fold(&b.second)]).collect(),
            output_layer: plain(self.output_layer.clone()),
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
        let mut x = relu(self.input_layer.forward(features, &map)?);
        observe("input_layer", &x);
        for (i, [first, second]) in self.res_blocks.iter().enumerate() {
            let hidden = relu(first.forward(x.clone(), &map)?);
            x = relu(second.forward(hidden, &map)? + x);
            observe(&format!("res_blocks.{i}"), &x);
        }
        matmul(x, self.output_layer.clone(), Form::Plain)
    }
}

fn relu(x: Tensor<2>) -> Tensor<2> {
    burn::tensor::activation::relu(x)
}
