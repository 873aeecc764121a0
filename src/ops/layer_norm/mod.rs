//! Layer norm over channels, with the sum before it or the residual behind it in one pass.

pub mod cpu;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain};
use crate::gpu::shaders::layer_norm::layer_norm as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// What surrounds a norm, so that it needs no pass of its own.
#[derive(Clone, Copy, Debug)]
pub enum Around<T> {
    /// norm(x).
    Nothing,
    /// norm(x + other): a transformer layer with its norm behind.
    Add(T),
    /// residual + scale · norm(x): a block with its norm behind and a factor per channel.
    Residual {
        /// Shaped as `x`.
        residual: T,
        /// A factor per channel, `[C]`.
        scale: T,
    },
}

/// Backend side of [`layer_norm`]; preconditions are checked there.
#[backend_extension(Cube, Flex)]
pub trait LayerNormBackend: Backend {
    /// norm(x) of the rows of `x [R, C]`.
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// norm(x + other).
    fn layer_norm_add(
        x: FloatTensor<Self>,
        other: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// residual + scale · norm(x).
    fn layer_norm_residual(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

/// (x − mean) / √(variance + ε) · weight + bias over the last dimension of `x [.., C]`, with the biased
/// variance, as PyTorch's `LayerNorm`; `around` adds to what goes in or comes out.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::TooLarge`] where `x` does not fit one buffer.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    epsilon: f32,
    around: Around<Tensor<D>>,
) -> Result<Tensor<D>, OpError> {
    let dims = x.dims();
    let dim = dims[D - 1];
    let num_rows: usize = dims[..D - 1].iter().product();
    let mut shapes = ShapeCheck::new("layer_norm");
    shapes.check("x", [num_rows, dim], ["R".into(), "C".into()])?;
    shapes.check("weight", weight.dims(), ["C".into()])?;
    shapes.check("bias", bias.dims(), ["C".into()])?;
    match &around {
        Around::Nothing => {}
        Around::Add(other) => shapes.check("other", other.dims(), dims.map(Into::into))?,
        Around::Residual { residual, scale } => {
            shapes.check("residual", residual.dims(), dims.map(Into::into))?;
            let mut row = [1; D];
            row[D - 1] = dim;
            shapes.check("scale", scale.dims(), row.map(Into::into))?;
        }
    }
    // Before any reshape: burn takes a 0 there for "as it was".
    if num_rows == 0 || dim == 0 {
        return Ok(plain(x));
    }
    check_binding(limits_of(&x.device()), "layer_norm: x", num_rows, dim * 4)?;
    let rows = |x: Tensor<D>| x.reshape([num_rows, dim]);
    let around = match around {
        Around::Nothing => Around::Nothing,
        Around::Add(other) => Around::Add(rows(other)),
        Around::Residual { residual, scale } => {
            Around::Residual { residual: rows(residual), scale: scale.reshape([1, dim]) }
        }
    };
    let x = rows(x);
    let d = |x: Tensor<2>| plain(x).into_dispatch();
    let (weight, bias) = (plain(weight.clone()).into_dispatch(), plain(bias.clone()).into_dispatch());
    let out = match around {
        Around::Nothing => Dispatch::layer_norm(d(x), weight, bias, epsilon),
        Around::Add(other) => Dispatch::layer_norm_add(d(x), d(other), weight, bias, epsilon),
        Around::Residual { residual, scale } => {
            Dispatch::layer_norm_residual(d(x), d(residual), d(scale), weight, bias, epsilon)
        }
    };
    Ok(Tensor::<2>::from_dispatch(out).reshape(dims))
}

fn launch_wgsl(
    x: FloatTensor<CubeBackend>,
    weight: FloatTensor<CubeBackend>,
    bias: FloatTensor<CubeBackend>,
    epsilon: f32,
    around: Around<FloatTensor<CubeBackend>>,
) -> FloatTensor<CubeBackend> {
    let (x, weight, bias) = (into_contiguous(x), into_contiguous(weight), into_contiguous(bias));
    let [num_rows, dim] = x.shape().dims();
    let out = empty_f32(&x, [num_rows, dim]);
    let mut buffers = vec![&x.handle, &weight.handle, &bias.handle, &out.handle];
    let (around, shader) = match around {
        Around::Nothing => (vec![], &shader::BASE),
        Around::Add(other) => (vec![into_contiguous(other)], &shader::ADD),
        Around::Residual { residual, scale } => {
            (vec![into_contiguous(residual), into_contiguous(scale)], &shader::RESIDUAL)
        }
    };
    buffers.extend(around.iter().map(|tensor| &tensor.handle));
    let params = shader::Params { num_rows: num_rows as u32, num_channels: dim as u32, epsilon };
    launch(&x.client, shader, num_rows, &params, &buffers);
    out
}

impl LayerNormBackend for CubeBackend {
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        launch_wgsl(x, weight, bias, epsilon, Around::Nothing)
    }

    fn layer_norm_add(
        x: FloatTensor<Self>,
        other: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        launch_wgsl(x, weight, bias, epsilon, Around::Add(other))
    }

    fn layer_norm_residual(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        launch_wgsl(x, weight, bias, epsilon, Around::Residual { residual, scale })
    }
}

fn run_cpu(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    bias: FloatTensor<Flex>,
    epsilon: f32,
    around: Around<FloatTensor<Flex>>,
) -> FloatTensor<Flex> {
    let shape: [usize; 2] = x.shape().dims();
    let (x, weight, bias) = (Host::<f32>::new(x), Host::<f32>::new(weight), Host::<f32>::new(bias));
    let around = match around {
        Around::Nothing => Around::Nothing,
        Around::Add(other) => Around::Add(Host::<f32>::new(other)),
        Around::Residual { residual, scale } => {
            Around::Residual { residual: Host::new(residual), scale: Host::new(scale) }
        }
    };
    let around = match &around {
        Around::Nothing => Around::Nothing,
        Around::Add(other) => Around::Add(&**other),
        Around::Residual { residual, scale } => Around::Residual { residual: &**residual, scale: &**scale },
    };
    host_tensor(cpu::layer_norm(&x, &weight, &bias, epsilon, around), shape)
}

impl LayerNormBackend for Flex {
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        run_cpu(x, weight, bias, epsilon, Around::Nothing)
    }

    fn layer_norm_add(
        x: FloatTensor<Self>,
        other: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        run_cpu(x, weight, bias, epsilon, Around::Add(other))
    }

    fn layer_norm_residual(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        run_cpu(x, weight, bias, epsilon, Around::Residual { residual, scale })
    }
}
