//! Batch norm over rows as training needs it, with gradients.

pub(crate) mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::{CubeBackend, CubeTensor};

use super::run::Operands;
use super::{OpError, ShapeCheck, host_tensor, limits_of, plain, run, with_gradient};
use crate::gpu::shaders::batch_norm::{combine, grad as grad_shader, grad_sums, normalize, sums};
use crate::gpu::{check_binding, empty_f32, launch};

/// The result of [`batch_norm`].
#[derive(Clone, Debug)]
pub struct BatchNormed {
    /// The result `[V, C]`.
    pub y: Tensor<2>,
    /// Mean of every channel over the rows, `[C]`; carries no gradient.
    pub mean: Tensor<1>,
    /// Variance of every channel over the rows, divided by V − 1, `[C]`; carries no gradient.
    pub unbiased_variance: Tensor<1>,
}

/// (x − mean) / √(variance + ε) · weight + bias of `x [V, C]`, mean and biased variance of every channel
/// over the rows, as PyTorch's `BatchNorm` in training; then `residual [V, C]` is added and, with `relu`, the
/// result cut at 0 from below, where a NaN stays one. Gradients flow to `x`, `residual`, `weight` and `bias`. Sums over rows have
/// a fixed order, so two runs on one device agree to the bit; the variance is taken about the mean.
///
/// # Errors
/// [`OpError::Shape`] where shapes disagree; [`OpError::Value`] for fewer than two rows, which have no
/// variance; [`OpError::TooLarge`] where `x` does not fit one buffer.
pub fn batch_norm(
    x: Tensor<2>,
    residual: Option<Tensor<2>>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f32,
    relu: bool,
) -> Result<BatchNormed, OpError> {
    let mut shapes = ShapeCheck::new("batch_norm");
    shapes.check("x", x.dims(), ["V".into(), "C".into()])?;
    if let Some(residual) = &residual {
        shapes.check("residual", residual.dims(), ["V".into(), "C".into()])?;
    }
    shapes.check("weight", weight.dims(), ["C".into()])?;
    shapes.check("bias", bias.dims(), ["C".into()])?;
    let [num_rows, dim] = x.dims();
    if num_rows < 2 {
        return Err(shapes.value(format!("{num_rows} rows, which have no variance; at least 2 are needed")));
    }
    if dim == 0 {
        let none = Tensor::zeros([0], &x.device().without_autodiff());
        return Ok(BatchNormed { y: x, mean: none.clone(), unbiased_variance: none });
    }
    check_binding(limits_of(&x.device()), "batch_norm: x", num_rows, dim * 4)?;
    let options = Options { epsilon, relu };
    let (plain_x, plain_weight) = (plain(x.clone()), plain(weight.clone()));
    let (y, statistics): (Tensor<2>, Tensor<2>) = run(
        (plain_x.clone(), residual.clone(), plain_weight.clone(), bias.clone()),
        |(x, residual, weight, bias)| forward_wgsl(&x, residual.as_ref(), [&weight, &bias], options),
        |(x, residual, weight, bias)| {
            let norm = cpu::Norm { weight: &weight, epsilon, relu };
            let statistics = cpu::statistics(&x, dim);
            let y = cpu::normalize(&x, residual.as_deref(), &bias, &statistics, norm);
            (host_tensor(y, [num_rows, dim]), host_tensor(statistics, [2, dim]))
        },
    );
    let row = |i: usize| statistics.clone().narrow(0, i, 1).reshape([dim]);
    let (mean, unbiased_variance) = (row(0), row(1) * (num_rows as f64 / (num_rows as f64 - 1.0)));
    let adds = residual.is_some();
    let forward = Forward { x: plain_x, y: y.clone(), statistics, weight: plain_weight, options };
    let y = with_gradient((x, residual, weight, bias), y, move |grad_y: Tensor<2>, wants| {
        let (grad_x, grad_residual, sums) = grad(grad_y.clone(), forward, adds);
        let row = |i: usize| sums.clone().narrow(0, i, 1).reshape([dim]);
        // The residual's gradient is the result's where nothing was cut off.
        let grad_residual = wants[1].then(|| grad_residual.unwrap_or(grad_y));
        (wants[0].then_some(grad_x), grad_residual, wants[2].then(|| row(1)), wants[3].then(|| row(0)))
    });
    Ok(BatchNormed { y, mean, unbiased_variance })
}

#[derive(Clone, Copy)]
struct Options {
    epsilon: f32,
    relu: bool,
}

/// A forward pass, as the backward pass needs it.
struct Forward {
    x: Tensor<2>,
    y: Tensor<2>,
    /// `[2, C]`: mean and biased variance.
    statistics: Tensor<2>,
    weight: Tensor<1>,
    options: Options,
}

/// Gradients of x; of the residual, where one was added and the result was cut; and of bias and weight, `[2, C]`.
fn grad(grad: Tensor<2>, forward: Forward, adds: bool) -> (Tensor<2>, Option<Tensor<2>>, Tensor<2>) {
    let Forward { x, y, statistics, weight, options } = forward;
    let (shape, adds) = (x.dims(), adds && options.relu);
    run(
        ([grad, x, y, statistics], weight),
        |(rows, weight)| grad_wgsl(&rows, &weight, options, adds),
        |([grad, x, y, statistics], weight)| {
            let norm = cpu::Norm { weight: &weight, epsilon: options.epsilon, relu: options.relu };
            let (grad_x, grad_residual, sums) = cpu::grad(&grad, &x, &y, &statistics, norm, adds);
            let grad_residual = adds.then(|| host_tensor(grad_residual, shape));
            (host_tensor(grad_x, shape), grad_residual, host_tensor(sums, [2, shape[1]]))
        },
    )
}

/// Adds up the blocks of `partial [num_blocks, num_sums]` into `totals`, from element `first`.
fn combine_wgsl(partial: &CubeTensor, totals: &CubeTensor, first: usize, scale: f32) {
    let [num_blocks, num_sums] = partial.shape().dims();
    launch(
        &partial.client,
        &combine::BASE,
        num_sums.div_ceil(combine::WG as usize),
        &combine::Params { num_blocks: num_blocks as u32, num_sums: num_sums as u32, first: first as u32, scale },
        &[&partial.handle, &totals.handle],
    );
}

fn forward_wgsl(
    x: &CubeTensor,
    residual: Option<&CubeTensor>,
    [weight, bias]: [&CubeTensor; 2],
    Options { epsilon, relu }: Options,
) -> (CubeTensor, CubeTensor) {
    let [num_rows, dim] = x.shape().dims();
    let num_blocks = num_rows.div_ceil(sums::BLOCK_ROWS as usize);
    let num_groups = num_blocks * dim.div_ceil(sums::CHANNELS as usize);
    let params = sums::Params { num_rows: num_rows as u32, num_channels: dim as u32 };
    let (partial, statistics) = (empty_f32(x, [num_blocks, dim]), empty_f32(x, [2, dim]));
    let scale = 1.0 / num_rows as f32;
    launch(&x.client, &sums::BASE, num_groups, &params, &[&x.handle, &partial.handle]);
    combine_wgsl(&partial, &statistics, 0, scale);
    let buffers = [&x.handle, &partial.handle, &statistics.handle];
    launch(&x.client, &sums::CENTERED, num_groups, &params, &buffers);
    combine_wgsl(&partial, &statistics, dim, scale);

    let y = empty_f32(x, [num_rows, dim]);
    let mut buffers = vec![&x.handle, &statistics.handle, &weight.handle, &bias.handle, &y.handle];
    buffers.extend(residual.map(|residual| &residual.handle));
    let shader = if residual.is_some() { &normalize::ADD } else { &normalize::BASE };
    let num_values = num_rows * dim;
    launch(
        &x.client,
        shader,
        num_values.div_ceil(normalize::WG as usize),
        &normalize::Params { num_values: num_values as u32, num_channels: dim as u32, epsilon, relu: u32::from(relu) },
        &buffers,
    );
    (y, statistics)
}

/// Gradients of x, of the residual with `adds`, and of bias and weight, `[2, C]`.
fn grad_wgsl(
    [out_grad, x, y, statistics]: &[CubeTensor; 4],
    weight: &CubeTensor,
    Options { epsilon, relu }: Options,
    adds: bool,
) -> (CubeTensor, Option<CubeTensor>, CubeTensor) {
    let [num_rows, dim] = x.shape().dims();
    let (num_channels, relu) = (dim as u32, u32::from(relu));
    let num_blocks = num_rows.div_ceil(grad_sums::BLOCK_ROWS as usize);
    let (partial, sums) = (empty_f32(x, [num_blocks, 2 * dim]), empty_f32(x, [2, dim]));
    launch(
        &x.client,
        &grad_sums::BASE,
        num_blocks * dim.div_ceil(grad_sums::CHANNELS as usize),
        &grad_sums::Params { num_rows: num_rows as u32, num_channels, epsilon, relu },
        &[&out_grad.handle, &x.handle, &y.handle, &statistics.handle, &partial.handle],
    );
    combine_wgsl(&partial, &sums, 0, 1.0);

    let grad_x = empty_f32(x, [num_rows, dim]);
    let grad_residual = adds.then(|| empty_f32(x, [num_rows, dim]));
    let weight = Tensor::<1>::from_primitive::<CubeBackend>(weight.clone()).reshape([1, dim]);
    let statistics = Tensor::<2>::from_primitive::<CubeBackend>(statistics.clone());
    let factors = Tensor::cat(vec![statistics, weight], 0);
    let factors = factors.into_gpu();
    let mut buffers = vec![&out_grad.handle, &x.handle, &y.handle, &factors.handle, &sums.handle, &grad_x.handle];
    buffers.extend(grad_residual.iter().map(|grad| &grad.handle));
    let num_values = num_rows * dim;
    launch(
        &x.client,
        if adds { &grad_shader::ADD } else { &grad_shader::BASE },
        num_values.div_ceil(grad_shader::WG as usize),
        &grad_shader::Params { num_values: num_values as u32, num_channels, num_rows: num_rows as f32, epsilon, relu },
        &buffers,
    );
    (grad_x, grad_residual, sums)
}
