//! Layers that the frozen models share, loaded under the names of the reference's state dicts.

use burn::prelude::*;

use super::ModelError;
use crate::ops::attention::{Mask, attention};
use crate::ops::conv2d::{Activation, PackedWeight, Precision, linear};
use crate::ops::layer_norm::{Around, layer_norm};
use crate::ops::{OpError, float_tensor};
use crate::weights::TensorSource;

/// Takes a model's tensors from a source to a device, one at a time.
pub(crate) struct Loader<'a> {
    source: &'a mut dyn TensorSource,
    device: &'a Device,
    precision: Precision,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(source: &'a mut dyn TensorSource, device: &'a Device, precision: Precision) -> Self {
        Self { source, device, precision }
    }

    /// The values of a tensor, row-major.
    pub(crate) fn values(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        Ok(self.source.take(key, shape)?.data)
    }

    /// A tensor in f32, whatever the precision of the weights.
    pub(crate) fn tensor<const D: usize>(&mut self, key: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        Ok(float_tensor(self.values(key, &shape)?, shape, self.device))
    }

    /// Values made here, such as a part of a tensor.
    pub(crate) fn upload<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        float_tensor(values, shape, self.device)
    }

    /// A linear layer's weight and bias, given flat as `[out, in]` and `[out]`.
    pub(crate) fn pack(
        &self,
        weight: &[f32],
        bias: Option<Vec<f32>>,
        [num_out, num_in]: [usize; 2],
    ) -> Result<PackedWeight, ModelError> {
        Ok(PackedWeight::new(weight, bias, [num_out, num_in, 1], self.precision, self.device)?)
    }

    /// `{prefix}.weight [out, in]` and `{prefix}.bias [out]`.
    pub(crate) fn linear(&mut self, prefix: &str, num_in: usize, num_out: usize) -> Result<PackedWeight, ModelError> {
        let weight = self.values(&format!("{prefix}.weight"), &[num_out, num_in])?;
        let bias = self.values(&format!("{prefix}.bias"), &[num_out])?;
        self.pack(&weight, Some(bias), [num_out, num_in])
    }

    /// `{prefix}.weight [out, in, k, k]`, and `{prefix}.bias [out]` where the layer has one.
    pub(crate) fn conv2d(
        &mut self,
        prefix: &str,
        [num_out, num_in, kernel]: [usize; 3],
        has_bias: bool,
    ) -> Result<PackedWeight, ModelError> {
        let weight = self.values(&format!("{prefix}.weight"), &[num_out, num_in, kernel, kernel])?;
        let bias = has_bias.then(|| self.values(&format!("{prefix}.bias"), &[num_out])).transpose()?;
        Ok(PackedWeight::new(&weight, bias, [num_out, num_in, kernel], self.precision, self.device)?)
    }

    /// `{prefix}.weight [C]` and `{prefix}.bias [C]`.
    pub(crate) fn norm(&mut self, prefix: &str, dim: usize, epsilon: f32) -> Result<Norm, ModelError> {
        let weight = self.tensor(&format!("{prefix}.weight"), [dim])?;
        Ok(Norm { weight, bias: self.tensor(&format!("{prefix}.bias"), [dim])?, epsilon })
    }
}

/// Scale and shift of a norm over channels.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Tensor<1>,
    pub(crate) bias: Tensor<1>,
    pub(crate) epsilon: f32,
}

impl Norm {
    /// Layer norm of `x [.., C]`.
    pub(crate) fn layer<const D: usize>(&self, x: Tensor<D>) -> Result<Tensor<D>, OpError> {
        self.layer_around(x, Around::Nothing)
    }

    /// Layer norm with what comes before or behind it.
    pub(crate) fn layer_around<const D: usize>(
        &self,
        x: Tensor<D>,
        around: Around<Tensor<D>>,
    ) -> Result<Tensor<D>, OpError> {
        layer_norm(x, &self.weight, &self.bias, self.epsilon, around)
    }
}

/// PyTorch's `MultiheadAttention` with one packed input projection.
#[derive(Clone, Debug)]
pub(crate) struct MultiheadAttention {
    q_proj: PackedWeight,
    k_proj: PackedWeight,
    v_proj: PackedWeight,
    out_proj: PackedWeight,
    num_heads: usize,
}

impl MultiheadAttention {
    /// `{prefix}.in_proj_weight [3 E, E]` (q, k, v), `in_proj_bias`, `out_proj`.
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        prefix: &str,
        dim: usize,
        num_heads: usize,
    ) -> Result<Self, ModelError> {
        let weight = loader.values(&format!("{prefix}.in_proj_weight"), &[3 * dim, dim])?;
        let bias = loader.values(&format!("{prefix}.in_proj_bias"), &[3 * dim])?;
        let part = |i: usize| {
            let bias = bias[i * dim..(i + 1) * dim].to_vec();
            loader.pack(&weight[i * dim * dim..(i + 1) * dim * dim], Some(bias), [dim, dim])
        };
        let (q_proj, k_proj, v_proj) = (part(0)?, part(1)?, part(2)?);
        let out_proj = loader.linear(&format!("{prefix}.out_proj"), dim, dim)?;
        Ok(Self { q_proj, k_proj, v_proj, out_proj, num_heads })
    }

    /// `query [B, Nq, E]`, `key`, `value [B, Nk, E]` → `[B, Nq, E]`.
    pub(crate) fn forward(
        &self,
        query: Tensor<3>,
        key: Tensor<3>,
        value: Tensor<3>,
        mask: Mask,
    ) -> Result<Tensor<3>, OpError> {
        let q = linear(query, &self.q_proj, Activation::None)?;
        let k = linear(key, &self.k_proj, Activation::None)?;
        let v = linear(value, &self.v_proj, Activation::None)?;
        linear(attention(q, k, v, self.num_heads, mask)?, &self.out_proj, Activation::None)
    }
}

/// Two linear layers with an activation between.
#[derive(Clone, Debug)]
pub(crate) struct FeedForward {
    pub(crate) first: PackedWeight,
    pub(crate) second: PackedWeight,
    pub(crate) activation: Activation,
}

impl FeedForward {
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Result<Tensor<D>, OpError> {
        linear(linear(x, &self.first, self.activation)?, &self.second, Activation::None)
    }
}
