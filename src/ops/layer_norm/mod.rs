//! Layer norm over channels, with the sum before it or the residual behind it in one pass, and its gradients.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::run::Operands;
use super::{OpError, ShapeCheck, host_tensor, limits_of, plain, run, run_twin, with_gradient};
use crate::gpu::shaders::layer_norm::layer_norm as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// A sum before a norm or behind it, made in the same pass.
#[derive(Clone, Copy, Debug)]
pub enum Fusion<T> {
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

/// (x − mean) / √(variance + ε) · weight + bias over the last dimension of `x [.., C]`, with the biased
/// variance, as PyTorch's `LayerNorm`; `fusion` adds to what goes in or comes out. Gradients flow to every
/// tensor; sums over rows have a fixed order, so two runs on one device agree to the bit.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::TooLarge`] where `x` does not fit one buffer.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    epsilon: f32,
    fusion: Fusion<Tensor<D>>,
) -> Result<Tensor<D>, OpError> {
    let dims = x.dims();
    let dim = dims[D - 1];
    let num_rows: usize = dims[..D - 1].iter().product();
    let mut shapes = ShapeCheck::new("layer_norm");
    shapes.check("x", [num_rows, dim], ["R".into(), "C".into()])?;
    shapes.check("weight", weight.dims(), ["C".into()])?;
    shapes.check("bias", bias.dims(), ["C".into()])?;
    match &fusion {
        Fusion::Nothing => {}
        Fusion::Add(other) => shapes.check("other", other.dims(), dims.map(Into::into))?,
        Fusion::Residual { residual, scale } => {
            shapes.check("residual", residual.dims(), dims.map(Into::into))?;
            let mut row = [1; D];
            row[D - 1] = dim;
            shapes.check("scale", scale.dims(), row.map(Into::into))?;
        }
    }
    // Before any reshape: burn takes a 0 there for "as it was".
    if num_rows == 0 || dim == 0 {
        return Ok(x);
    }
    check_binding(limits_of(&x.device()), "layer_norm: x", num_rows, dim * 4)?;
    let rows = |x: Tensor<D>| x.reshape([num_rows, dim]);
    let (other, residual, scale) = match fusion {
        Fusion::Nothing => (None, None, None),
        Fusion::Add(other) => (Some(rows(other)), None, None),
        Fusion::Residual { residual, scale } => (None, Some(rows(residual)), Some(scale.reshape([1, dim]))),
    };
    let (x, weight, bias) = (rows(x), weight.clone(), bias.clone());
    let input = NormInput {
        x: plain(x.clone()),
        other: other.clone().map(plain),
        scale: scale.clone().map(|scale| plain(scale).reshape([dim])),
        weight: plain(weight.clone()),
        bias: plain(bias.clone()),
        epsilon,
    };
    let out: Tensor<2> = run(
        (x.clone(), [weight.clone(), bias.clone()], [other.clone(), residual.clone(), scale.clone()]),
        |(x, [weight, bias], surroundings)| {
            forward_wgsl([&x, &weight, &bias], epsilon, fusion_of(surroundings.each_ref().map(Option::as_ref)))
        },
        |(x, [weight, bias], surroundings)| {
            let fusion = fusion_of(surroundings.each_ref().map(Option::as_deref));
            host_tensor(cpu::layer_norm(&x, &weight, &bias, epsilon, fusion), [num_rows, dim])
        },
    );
    let parents = (x, other, residual, scale, weight, bias);
    Ok(with_gradient(parents, out, move |grad, wants| gradients(input, grad, wants)).reshape(dims))
}

/// The fusion that has these of: the other summand, the residual and its scale.
fn fusion_of<T>([other, residual, scale]: [Option<T>; 3]) -> Fusion<T> {
    match (other, residual, scale) {
        (Some(other), _, _) => Fusion::Add(other),
        (None, Some(residual), Some(scale)) => Fusion::Residual { residual, scale },
        _ => Fusion::Nothing,
    }
}

/// `x`, weight and bias → the result, shaped as `x`.
fn forward_wgsl([x, weight, bias]: [&CubeTensor; 3], epsilon: f32, fusion: Fusion<&CubeTensor>) -> CubeTensor {
    let [num_rows, dim] = x.shape().dims();
    let out = empty_f32(x, [num_rows, dim]);
    let mut buffers = vec![&x.handle, &weight.handle, &bias.handle, &out.handle];
    let shader = match fusion {
        Fusion::Nothing => &shader::BASE,
        Fusion::Add(other) => {
            buffers.push(&other.handle);
            &shader::ADD
        }
        Fusion::Residual { residual, scale } => {
            buffers.extend([&residual.handle, &scale.handle]);
            &shader::RESIDUAL
        }
    };
    let params = shader::Params { num_rows: num_rows as u32, num_channels: dim as u32, epsilon };
    launch(&x.client, shader, num_rows, &params, &buffers);
    out
}

/// The input of a norm, kept for the backward pass.
struct NormInput {
    x: Tensor<2>,
    other: Option<Tensor<2>>,
    scale: Option<Tensor<1>>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f32,
}

/// The gradients of x, other, residual, scale, weight and bias.
type NormGradients =
    (Option<Tensor<2>>, Option<Tensor<2>>, Option<Tensor<2>>, Option<Tensor<2>>, Option<Tensor<1>>, Option<Tensor<1>>);

fn gradients(input: NormInput, grad: Tensor<2>, wants: [bool; 6]) -> NormGradients {
    let NormInput { x, other, scale, weight, bias, epsilon } = input;
    let [wants_x, wants_other, wants_residual, wants_scale, wants_weight, wants_bias] = wants;
    let dim = weight.dims()[0];
    let scaled = |tensor: Tensor<1>| match &scale {
        Some(scale) => tensor * scale.clone(),
        None => tensor,
    };
    let grad_residual = wants_residual.then(|| grad.clone());
    let (grad_z, sums) = grad_z(grad, x, other, scaled(weight.clone()), epsilon, wants_x || wants_other);
    let row = |i: usize| sums.clone().narrow(0, i, 1).reshape([dim]);
    let grad_bias = wants_bias.then(|| scaled(row(0)));
    let grad_weight = wants_weight.then(|| scaled(row(1)));
    let grad_scale = wants_scale.then(|| (row(0) * bias + row(1) * weight).reshape([1, dim]));
    let grad_x = grad_z.clone().filter(|_| wants_x);
    (grad_x, grad_z.filter(|_| wants_other), grad_residual, grad_scale, grad_weight, grad_bias)
}

/// For y = norm(z), z = `x` or `x` + `other`, all `[R, C]`, with the factors `weight [C]`: the gradient of z from
/// `grad`, that of y, where `wants_z`; and `[2, C]`: Σ grad and Σ grad · (z − mean) / √(variance + ε) over the rows.
fn grad_z(
    grad: Tensor<2>,
    x: Tensor<2>,
    other: Option<Tensor<2>>,
    weight: Tensor<1>,
    epsilon: f32,
    wants_z: bool,
) -> (Option<Tensor<2>>, Tensor<2>) {
    if grad.is_on_host() {
        let shape = x.dims();
        return run_twin(([grad, x], other, weight), |([grad, x], other, weight)| {
            let (grad_z, sums) = cpu::grad(&grad, &x, other.as_deref(), &weight, epsilon, wants_z);
            (wants_z.then(|| host_tensor(grad_z, shape)), host_tensor(sums, [2, shape[1]]))
        });
    }
    let z = match other {
        Some(other) => x + other,
        None => x,
    };
    let centered = z.clone() - z.mean_dim(1);
    let inverse = (centered.clone().square().mean_dim(1) + epsilon).sqrt().recip();
    let normalized = centered * inverse.clone();
    let sums = Tensor::cat(vec![grad.clone().sum_dim(0), (grad.clone() * normalized.clone()).sum_dim(0)], 0);
    let grad_z = wants_z.then(|| {
        let grad = grad * weight.unsqueeze::<2>();
        let along = (grad.clone() * normalized.clone()).mean_dim(1);
        (grad.clone() - grad.mean_dim(1) - normalized * along) * inverse
    });
    (grad_z, sums)
}
