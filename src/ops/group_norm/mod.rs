//! Group norm over the pixels of each image, channels last, and its gradients.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::run::Operands;
use super::{OpError, ShapeCheck, host_tensor, limits_of, plain, run, run_twin, with_gradient};
use crate::gpu::shaders::group_norm::{moments, normalize};
use crate::gpu::{check_binding, empty_f32, launch};

/// The step after a norm, made in the same pass.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<T> {
    /// norm(x).
    Nothing,
    /// max(norm(x), 0).
    Relu,
    /// norm(x) + the tensor `[B, H / 2, W / 2, C]` with every pixel repeated twice in both directions.
    AddUpsampled(T),
}

/// (x − mean) / √(variance + ε) · weight + bias of `x [B, H, W, C]`, mean and biased variance over the
/// pixels and the C / `num_groups` channels of each group of each image, as PyTorch's `GroupNorm`. Gradients
/// flow to every tensor; sums have a fixed order, so two runs on one device agree to the bit.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] where C is not a multiple of the
/// groups, or an image to be added to is of odd size; [`OpError::TooLarge`] where `x` does not fit one buffer.
pub fn group_norm(
    x: Tensor<4>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    num_groups: usize,
    epsilon: f32,
    epilogue: Epilogue<Tensor<4>>,
) -> Result<Tensor<4>, OpError> {
    let mut shapes = ShapeCheck::new("group_norm");
    shapes.check("x", x.dims(), ["B".into(), "H".into(), "W".into(), "C".into()])?;
    shapes.check("weight", weight.dims(), ["C".into()])?;
    shapes.check("bias", bias.dims(), ["C".into()])?;
    let shape = x.dims();
    let ([batch, height, width, dim], groups) = (shape, Groups { num_groups, epsilon });
    if num_groups == 0 || dim % num_groups != 0 {
        return Err(shapes.value(format!("{num_groups} groups of {dim} channels, expected a divisor")));
    }
    if let Epilogue::AddUpsampled(coarse) = &epilogue {
        if height % 2 + width % 2 != 0 {
            return Err(shapes.value(format!("an image of {height} x {width}, expected even sizes")));
        }
        shapes.check("coarse", coarse.dims(), ["B".into(), (height / 2).into(), (width / 2).into(), "C".into()])?;
    }
    if batch * height * width * dim == 0 {
        return Ok(x);
    }
    check_binding(limits_of(&x.device()), "group_norm: x", batch * height * width, dim * 4)?;
    let relu = matches!(epilogue, Epilogue::Relu);
    let coarse = match epilogue {
        Epilogue::AddUpsampled(coarse) => Some(coarse),
        Epilogue::Nothing | Epilogue::Relu => None,
    };
    let (weight, bias) = (weight.clone(), bias.clone());
    let input =
        NormInput { x: plain(x.clone()), weight: plain(weight.clone()), bias: plain(bias.clone()), groups, relu };
    let out = run(
        (x.clone(), coarse.clone(), [weight.clone(), bias.clone()]),
        |(x, coarse, [weight, bias])| forward_wgsl([&x, &weight, &bias], coarse.as_ref(), groups, relu),
        |(x, coarse, [weight, bias])| {
            let epilogue = match coarse.as_deref() {
                Some(coarse) => Epilogue::AddUpsampled(coarse),
                None if relu => Epilogue::Relu,
                None => Epilogue::Nothing,
            };
            host_tensor(cpu::group_norm(&x, &weight, &bias, groups, [height, width], epilogue), shape)
        },
    );
    Ok(with_gradient((x, coarse, weight, bias), out, move |grad: Tensor<4>, wants| {
        let [wants_x, wants_coarse, wants_weight, wants_bias] = wants;
        let grad_coarse = wants_coarse.then(|| upsampled_grad(grad.clone()));
        if !wants_x && !wants_weight && !wants_bias {
            return (None, grad_coarse, None, None);
        }
        let (grad_x, sums) = norm_grad(grad, input, wants_x);
        let row = |i: usize| sums.clone().narrow(0, i, 1).reshape([dim]);
        (grad_x, grad_coarse, wants_weight.then(|| row(1)), wants_bias.then(|| row(0)))
    }))
}

/// The groups of channels of a norm.
#[derive(Clone, Copy)]
pub(crate) struct Groups {
    num_groups: usize,
    epsilon: f32,
}

/// `x`, weight and bias → the result, shaped as `x`; `coarse` is upsampled and added.
fn forward_wgsl(
    [x, weight, bias]: [&CubeTensor; 3],
    coarse: Option<&CubeTensor>,
    Groups { num_groups, epsilon }: Groups,
    relu: bool,
) -> CubeTensor {
    let [batch, height, width, dim] = x.shape().dims();
    let statistics = empty_f32(x, [batch * num_groups, 2]);
    let (num_pixels, num_channels, num_groups) = ((height * width) as u32, dim as u32, num_groups as u32);
    launch(
        &x.client,
        &moments::BASE,
        batch * num_groups as usize,
        &moments::Params { num_images: batch as u32, num_pixels, num_channels, num_groups, epsilon },
        &[&x.handle, &statistics.handle],
    );
    let out = empty_f32(x, [batch, height, width, dim]);
    let mut buffers = vec![&x.handle, &statistics.handle, &weight.handle, &bias.handle, &out.handle];
    buffers.extend(coarse.map(|coarse| &coarse.handle));
    let num_values = batch * height * width * dim;
    launch(
        &x.client,
        if coarse.is_some() { &normalize::UPSAMPLED } else { &normalize::BASE },
        num_values.div_ceil(normalize::WG as usize),
        &normalize::Params {
            num_values: num_values as u32,
            height: height as u32,
            width: width as u32,
            num_channels,
            num_groups,
            relu: u32::from(relu),
        },
        &buffers,
    );
    out
}

/// The input of a norm, kept for the backward pass.
struct NormInput {
    /// `[B, H, W, C]`.
    x: Tensor<4>,
    /// `[C]`.
    weight: Tensor<1>,
    /// `[C]`.
    bias: Tensor<1>,
    groups: Groups,
    relu: bool,
}

/// From the gradient `[B, H, W, C]` of the result: that of `x`, where `wants_x`, and `[2, C]`: those of bias and weight.
fn norm_grad(grad: Tensor<4>, input: NormInput, wants_x: bool) -> (Option<Tensor<4>>, Tensor<2>) {
    let NormInput { x, weight, bias, groups, relu } = input;
    let shape = x.dims();
    let ([batch, height, width, dim], Groups { num_groups, epsilon }) = (shape, groups);
    if x.is_on_host() {
        return run_twin(([grad, x], [weight, bias]), |([grad, x], [weight, bias])| {
            let input = cpu::NormInput { x: &x, weight: &weight, bias: &bias, groups, relu };
            let (grad_x, sums) = cpu::grad(&grad, input, height * width, wants_x);
            (wants_x.then(|| host_tensor(grad_x, shape)), host_tensor(sums, [2, dim]))
        });
    }
    // Row by row, so that no sum of one invocation is long.
    let grouped = |x: Tensor<4>| x.reshape([batch, height, width, num_groups, dim / num_groups]);
    let mean = |x: Tensor<5>| x.mean_dim(4).mean_dim(2).mean_dim(1);
    let channels = |x: Tensor<1>| x.reshape([1, 1, 1, num_groups, dim / num_groups]);
    let sum = |x: Tensor<5>| x.sum_dim(2).sum_dim(1).sum_dim(0).reshape([1, dim]);
    let (weight, bias) = (channels(weight), channels(bias));
    let x = grouped(x);
    let centered = x.clone() - mean(x);
    let inverse = (mean(centered.clone().square()) + epsilon).sqrt().recip();
    let normalized = centered * inverse.clone();
    let grad = grouped(grad);
    let grad = if relu {
        let cut = (normalized.clone() * weight.clone() + bias).lower_equal_elem(0.0);
        grad.mask_fill(cut, 0.0)
    } else {
        grad
    };
    let sums = Tensor::cat(vec![sum(grad.clone()), sum(grad.clone() * normalized.clone())], 0);
    let grad_x = wants_x.then(|| {
        let grad = grad * weight;
        let along = mean(grad.clone() * normalized.clone());
        let grad_x = (grad.clone() - mean(grad) - normalized * along) * inverse;
        grad_x.reshape(shape)
    });
    (grad_x, sums)
}

/// Gradient `[B, H / 2, W / 2, C]` of what was upsampled, from that of the result.
fn upsampled_grad(grad: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, dim] = grad.dims();
    let shape = [batch, height / 2, width / 2, dim];
    if grad.is_on_host() {
        return run_twin(grad, |grad| host_tensor(cpu::upsampled_grad(&grad, width, dim), shape));
    }
    let cells = grad.reshape([batch, height / 2, 2, width / 2, 2, dim]);
    cells.sum_dim(4).sum_dim(2).reshape(shape)
}
