//! Layers that several networks share, loaded by the names in the reference's state dicts.

use std::borrow::Cow;
use std::ops::Range;

use burn::prelude::*;

use super::ModelError;
use crate::ops::attention::{Mask, attention};
use crate::ops::conv_transpose2d::TransposedWeight;
use crate::ops::conv2d::{Activation, PackedWeight, Precision, linear};
use crate::ops::layer_norm::{Fusion, layer_norm};
use crate::ops::{OpError, float_tensor};
use crate::weights::TensorSource;

/// A tensor of a source or a part of one, row-major.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub(crate) enum Values<'a> {
    /// Frozen values, in host memory.
    Host(Cow<'a, [f32]>),
    /// Flat parameter in training. Gradients flow to it.
    Parameter(Tensor<1>),
}

impl Values<'_> {
    /// Returns the values in `range`.
    pub(crate) fn part(&self, range: Range<usize>) -> Values<'_> {
        match self {
            Self::Host(values) => Values::Host(Cow::Borrowed(&values[range])),
            Self::Parameter(values) => Values::Parameter(values.clone().slice(range)),
        }
    }

    /// Converts the values to a tensor. Host values are uploaded to `device`.
    pub(crate) fn into_tensor<const D: usize>(self, shape: [usize; D], device: &Device) -> Tensor<D> {
        match self {
            Self::Host(values) => float_tensor(values.into_owned(), shape, device),
            Self::Parameter(values) => values.reshape(shape),
        }
    }
}

/// Loads a model's tensors from a source to a device, one at a time. If the source has parameters, the
/// model's tensors are computed from them by differentiable operations. Otherwise the values are packed on
/// the host.
pub(crate) struct Loader<'a> {
    source: &'a mut dyn TensorSource,
    device: &'a Device,
    precision: Precision,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(source: &'a mut dyn TensorSource, device: &'a Device, precision: Precision) -> Self {
        Self { source, device, precision }
    }

    /// Takes a tensor as the source has it.
    pub(crate) fn values(&mut self, key: &str, shape: &[usize]) -> Result<Values<'static>, ModelError> {
        Ok(match self.source.parameter(key, shape)? {
            Some(parameter) => Values::Parameter(parameter),
            None => Values::Host(Cow::Owned(self.source.take(key, shape)?.data)),
        })
    }

    /// Takes the values of a tensor, without gradients even in training.
    pub(crate) fn host(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        Ok(self.source.take(key, shape)?.data)
    }

    /// Takes a tensor in f32, whatever the precision of the weights.
    pub(crate) fn tensor<const D: usize>(&mut self, key: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        Ok(self.values(key, &shape)?.into_tensor(shape, self.device))
    }

    /// Uploads values computed on the host.
    pub(crate) fn upload<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        float_tensor(values, shape, self.device)
    }

    /// Packs a weight `[out, in, k, k]` and, if the layer has one, a bias `[out]`.
    pub(crate) fn pack(
        &self,
        weight: Values<'_>,
        bias: Option<Values<'_>>,
        [num_out, num_in, kernel]: [usize; 3],
    ) -> Result<PackedWeight, ModelError> {
        let packed = match weight {
            Values::Host(weight) => {
                PackedWeight::new(&weight, None, [num_out, num_in, kernel], self.precision, self.device)?
            }
            Values::Parameter(weight) => PackedWeight::from_tensor(weight.reshape([num_out, num_in, kernel, kernel]))?,
        };
        Ok(match bias {
            Some(bias) => packed.with_bias(bias.into_tensor([num_out], self.device))?,
            None => packed,
        })
    }

    /// Packs the part `rows` of a linear layer's weight `[.., in]` and bias `[..]`.
    pub(crate) fn pack_rows(
        &self,
        weight: &Values<'_>,
        bias: &Values<'_>,
        rows: Range<usize>,
        num_in: usize,
    ) -> Result<PackedWeight, ModelError> {
        let num_out = rows.len();
        let part = weight.part(rows.start * num_in..rows.end * num_in);
        self.pack(part, Some(bias.part(rows)), [num_out, num_in, 1])
    }

    /// Loads `{prefix}.weight [out, in]` and `{prefix}.bias [out]`.
    pub(crate) fn linear(&mut self, prefix: &str, num_in: usize, num_out: usize) -> Result<PackedWeight, ModelError> {
        let weight = self.values(&format!("{prefix}.weight"), &[num_out, num_in])?;
        let bias = self.values(&format!("{prefix}.bias"), &[num_out])?;
        self.pack(weight, Some(bias), [num_out, num_in, 1])
    }

    /// Loads `{prefix}.weight [out, in, k, k]` and, if the layer has one, `{prefix}.bias [out]`.
    pub(crate) fn conv2d(
        &mut self,
        prefix: &str,
        [num_out, num_in, kernel]: [usize; 3],
        has_bias: bool,
    ) -> Result<PackedWeight, ModelError> {
        let weight = self.values(&format!("{prefix}.weight"), &[num_out, num_in, kernel, kernel])?;
        let bias = has_bias.then(|| self.values(&format!("{prefix}.bias"), &[num_out])).transpose()?;
        self.pack(weight, bias, [num_out, num_in, kernel])
    }

    /// Loads a convolution without bias, `conv [out, in, k, k]`, and the batch norm that follows it, `norm`, as one
    /// convolution. The norm's statistics are the running ones.
    pub(crate) fn conv2d_norm(
        &mut self,
        (conv, norm): (&str, &str),
        [num_out, num_in, kernel]: [usize; 3],
        epsilon: f32,
    ) -> Result<PackedWeight, ModelError> {
        let mut weight = self.host(&format!("{conv}.weight"), &[num_out, num_in, kernel, kernel])?;
        let mut of_norm = |name: &str| self.host(&format!("{norm}.{name}"), &[num_out]);
        let (scale, shift) = (of_norm("weight")?, of_norm("bias")?);
        let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
        let mut bias = Vec::with_capacity(num_out);
        for (out, rows) in weight.chunks_exact_mut((num_in * kernel * kernel).max(1)).enumerate() {
            let factor = f64::from(scale[out]) / (f64::from(variance[out]) + f64::from(epsilon)).sqrt();
            rows.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
            bias.push((f64::from(shift[out]) - f64::from(mean[out]) * factor) as f32);
        }
        Ok(PackedWeight::new(&weight, Some(bias), [num_out, num_in, kernel], self.precision, self.device)?)
    }

    /// Loads the transposed convolution `{prefix}.weight [in, out, k, k]`, `{prefix}.bias [out]` of stride k.
    pub(crate) fn conv_transpose2d(
        &mut self,
        prefix: &str,
        [num_in, num_out, kernel]: [usize; 3],
    ) -> Result<TransposedWeight, ModelError> {
        let weight = self.host(&format!("{prefix}.weight"), &[num_in, num_out, kernel, kernel])?;
        let bias = self.host(&format!("{prefix}.bias"), &[num_out])?;
        Ok(TransposedWeight::new(&weight, &bias, [num_in, num_out, kernel], self.precision, self.device)?)
    }

    /// Loads the matrix `key [in, out]`, which inputs are multiplied with from the right.
    pub(crate) fn projection(&mut self, key: &str, num_in: usize, num_out: usize) -> Result<PackedWeight, ModelError> {
        let transposed = match self.values(key, &[num_in, num_out])? {
            Values::Host(values) => {
                let value = |i: usize| values[i % num_in * num_out + i / num_in];
                Values::Host((0..num_in * num_out).map(value).collect())
            }
            Values::Parameter(values) => {
                Values::Parameter(values.reshape([num_in, num_out]).transpose().reshape([num_in * num_out]))
            }
        };
        self.pack(transposed, None, [num_out, num_in, 1])
    }

    /// Loads the depthwise weight `{prefix}.weight [C, 1, k, k]` as `[k · k, C]`.
    pub(crate) fn depthwise(&mut self, prefix: &str, dim: usize, kernel: usize) -> Result<Tensor<2>, ModelError> {
        let area = kernel * kernel;
        Ok(match self.values(&format!("{prefix}.weight"), &[dim, 1, kernel, kernel])? {
            Values::Host(values) => {
                let by_tap = (0..values.len()).map(|i| values[i % dim * area + i / dim]);
                self.upload(by_tap.collect(), [area, dim])
            }
            Values::Parameter(values) => values.reshape([dim, area]).transpose(),
        })
    }

    /// Loads `{prefix}.weight [C]` and `{prefix}.bias [C]`.
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
    /// Computes the layer norm of `x [.., C]`.
    pub(crate) fn layer<const D: usize>(&self, x: Tensor<D>) -> Result<Tensor<D>, OpError> {
        self.forward_fused(x, Fusion::Nothing)
    }

    /// Computes the layer norm, fused with the operations before or after it.
    pub(crate) fn forward_fused<const D: usize>(
        &self,
        x: Tensor<D>,
        fusion: Fusion<Tensor<D>>,
    ) -> Result<Tensor<D>, OpError> {
        layer_norm(x, &self.weight, &self.bias, self.epsilon, fusion)
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
    /// Loads `{prefix}.in_proj_weight [3 E, E]` (q, k, v), `in_proj_bias` and `out_proj`.
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        prefix: &str,
        dim: usize,
        num_heads: usize,
    ) -> Result<Self, ModelError> {
        let input = [format!("{prefix}.in_proj_weight"), format!("{prefix}.in_proj_bias")];
        Self::load_named(loader, input, &format!("{prefix}.out_proj"), dim, num_heads)
    }

    /// Loads an input projection (q, k, v) from the keys of its weight and its bias, and `{output}`.
    pub(crate) fn load_named(
        loader: &mut Loader<'_>,
        [weight, bias]: [String; 2],
        output: &str,
        dim: usize,
        num_heads: usize,
    ) -> Result<Self, ModelError> {
        let weight = loader.values(&weight, &[3 * dim, dim])?;
        let bias = loader.values(&bias, &[3 * dim])?;
        let part = |i: usize| loader.pack_rows(&weight, &bias, i * dim..(i + 1) * dim, dim);
        let (q_proj, k_proj, v_proj) = (part(0)?, part(1)?, part(2)?);
        let out_proj = loader.linear(output, dim, dim)?;
        Ok(Self { q_proj, k_proj, v_proj, out_proj, num_heads })
    }

    /// Computes `[B, Nq, E]` from `query [B, Nq, E]` and `key`, `value [B, Nk, E]`.
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

/// Two linear layers with an activation in between.
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
