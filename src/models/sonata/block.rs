use burn::prelude::*;

use super::{EPSILON, Level};
use crate::models::ModelError;
use crate::models::layers::{FeedForward, Loader, Norm, Values};
use crate::ops::OpError;
use crate::ops::conv2d::{Activation, PackedWeight, Precision, linear};
use crate::ops::serialized_attention::serialized_attention;
use crate::ops::sparse_conv::{PackedKernel, sparse_conv_packed};
use crate::weights::TensorSource;

/// Widths of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShape {
    /// Channels of its voxels.
    pub channels: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Hidden channels of its MLP.
    pub hidden: usize,
    /// True if queries, keys and values have a bias.
    pub qkv_bias: bool,
}

/// Attention within patches of a space-filling curve, with its projections.
#[derive(Clone, Debug)]
pub struct Attention {
    qkv: PackedWeight,
    proj: PackedWeight,
    num_heads: usize,
}

impl Attention {
    /// Loads `{prefix}qkv` and `{prefix}proj`.
    ///
    /// # Errors
    /// [`ModelError::Weights`], [`ModelError::Op`].
    pub fn load(
        source: &mut dyn TensorSource,
        prefix: &str,
        shape: BlockShape,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let BlockShape { channels, num_heads, qkv_bias, .. } = shape;
        let mut loader = Loader::new(source, device, Precision::F32);
        let weight = loader.values(&format!("{prefix}qkv.weight"), &[3 * channels, channels])?;
        let bias = qkv_bias.then(|| loader.values(&format!("{prefix}qkv.bias"), &[3 * channels])).transpose()?;
        let qkv = loader.pack(weight, bias, [3 * channels, channels, 1])?;
        Ok(Self { qkv, proj: loader.linear(&format!("{prefix}proj"), channels, channels)?, num_heads })
    }

    /// Maps `x [V, C]` to `[V, C]` by attention within `patches`, which are one entry of
    /// [`Level::patches`](super::Level::patches).
    ///
    /// # Errors
    /// As [`serialized_attention`].
    pub fn forward(&self, x: Tensor<2>, patches: &Tensor<2, Int>) -> Result<Tensor<2>, OpError> {
        let qkv = linear(x, &self.qkv, Activation::None)?;
        let mixed = serialized_attention(qkv, patches.clone(), self.num_heads)?;
        linear(mixed, &self.proj, Activation::None)
    }
}

/// Block of a stage: a convolution as position encoding, attention, and an MLP. Each has a residual
/// connection.
#[derive(Clone, Debug)]
pub struct Block {
    cpe: (PackedKernel, PackedWeight, Norm),
    norm1: Norm,
    attn: Attention,
    norm2: Norm,
    mlp: FeedForward,
}

impl Block {
    /// Loads the tensors below `prefix`, which is empty or ends with a dot.
    ///
    /// # Errors
    /// [`ModelError::Weights`], [`ModelError::Op`].
    pub fn load(
        source: &mut dyn TensorSource,
        prefix: &str,
        shape: BlockShape,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let BlockShape { channels, hidden, .. } = shape;
        let attn = Attention::load(source, &format!("{prefix}attn."), shape, device)?;
        let mut loader = Loader::new(source, device, Precision::F32);
        let weight = loader.values(&format!("{prefix}cpe.0.weight"), &[channels, 3, 3, 3, channels])?;
        let bias = format!("{prefix}cpe.0.bias");
        let kernel = match weight {
            Values::Host(weight) => {
                let bias = loader.host(&bias, &[channels])?;
                PackedKernel::from_spconv(&weight, bias, [channels, 3, channels], device)?
            }
            Values::Parameter(weight) => {
                let weight = weight.reshape([channels, 3, 3, 3, channels]);
                PackedKernel::from_tensor(weight, loader.tensor(&bias, [channels])?)?
            }
        };
        let cpe = (
            kernel,
            loader.linear(&format!("{prefix}cpe.1"), channels, channels)?,
            loader.norm(&format!("{prefix}cpe.2"), channels, EPSILON)?,
        );
        let norm1 = loader.norm(&format!("{prefix}norm1.0"), channels, EPSILON)?;
        let norm2 = loader.norm(&format!("{prefix}norm2.0"), channels, EPSILON)?;
        let first = loader.linear(&format!("{prefix}mlp.0.fc1"), channels, hidden)?;
        let second = loader.linear(&format!("{prefix}mlp.0.fc2"), hidden, channels)?;
        let mlp = FeedForward { first, second, activation: Activation::Gelu };
        Ok(Self { cpe, norm1, attn, norm2, mlp })
    }

    /// Maps `x [V, C]` to `[V, C]`, as block `index` of a stage over the voxels of `level`. `observe`
    /// receives the output of each part before it is added: `cpe_conv`, `cpe`, `norm1`, `attn`, `norm2`,
    /// `mlp`.
    ///
    /// # Errors
    /// [`OpError`] if shapes disagree or a layer does not fit the device.
    pub fn forward(
        &self,
        x: Tensor<2>,
        level: &Level,
        index: usize,
        observe: &mut dyn FnMut(&str, &Tensor<2>),
    ) -> Result<Tensor<2>, OpError> {
        let Some(patches) = level.patches.get(index % level.patches.len().max(1)) else {
            return Err(OpError::Value { op: "sonata", message: "the level has no patches".to_owned() });
        };
        let mut branch = |name, out: Tensor<2>| {
            observe(name, &out);
            out
        };
        let (kernel, mix, norm) = &self.cpe;
        let conv = branch("cpe_conv", sparse_conv_packed(x.clone(), kernel, level.src_from_dst.clone())?);
        let x = x + branch("cpe", norm.layer(linear(conv, mix, Activation::None)?)?);
        let normed = branch("norm1", self.norm1.layer(x.clone())?);
        let x = x + branch("attn", self.attn.forward(normed, patches)?);
        let normed = branch("norm2", self.norm2.layer(x.clone())?);
        Ok(x + branch("mlp", self.mlp.forward(normed)?))
    }
}
