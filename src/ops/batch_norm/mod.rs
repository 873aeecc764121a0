//! Batch norm over rows as training needs it, with gradients.

pub(crate) mod cpu;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain};
use crate::gpu::shaders::batch_norm::{combine, grad, grad_sums, normalize, sums};
use crate::gpu::{check_binding, empty_f32, launch};

/// Backend side of [`batch_norm`]; preconditions are checked there.
#[backend_extension(Cube, Flex, Autodiff)]
pub trait BatchNormBackend: Backend {
    /// norm(x) of `x [V, C]`, and max(·, 0) of it with `relu`; `[2, C]`: mean and biased variance.
    fn batch_norm_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// norm(x) + `residual [V, C]`, else as `batch_norm_rows`.
    fn batch_norm_add(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradient of `x` from that of the result `y`; `[2, C]`: gradients of bias and weight.
    fn batch_norm_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// As `batch_norm_grad`, with the gradient of the residual in the middle.
    fn batch_norm_add_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// What [`batch_norm`] gives.
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
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    let (y, statistics) = match residual {
        Some(residual) => Dispatch::batch_norm_add(x, residual.into_dispatch(), weight, bias, epsilon, relu),
        None => Dispatch::batch_norm_rows(x, weight, bias, epsilon, relu),
    };
    let statistics = plain(Tensor::<2>::from_dispatch(statistics));
    let row = |i: usize| statistics.clone().slice([i..i + 1, 0..dim]).reshape([dim]);
    let unbiased_variance = row(1) * (num_rows as f64 / (num_rows as f64 - 1.0));
    Ok(BatchNormed { y: Tensor::from_dispatch(y), mean: row(0), unbiased_variance })
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
    x: CubeTensor,
    residual: Option<CubeTensor>,
    weight: CubeTensor,
    bias: CubeTensor,
    epsilon: f32,
    relu: bool,
) -> (CubeTensor, CubeTensor) {
    let [x, weight, bias] = [x, weight, bias].map(into_contiguous);
    let residual = residual.map(into_contiguous);
    let [num_rows, dim] = x.shape().dims();
    let num_blocks = num_rows.div_ceil(sums::BLOCK_ROWS as usize);
    let num_groups = num_blocks * dim.div_ceil(sums::CHANNELS as usize);
    let params = sums::Params { num_rows: num_rows as u32, num_channels: dim as u32 };
    let (partial, statistics) = (empty_f32(&x, [num_blocks, dim]), empty_f32(&x, [2, dim]));
    let scale = 1.0 / num_rows as f32;
    launch(&x.client, &sums::BASE, num_groups, &params, &[&x.handle, &partial.handle]);
    combine_wgsl(&partial, &statistics, 0, scale);
    let buffers = [&x.handle, &partial.handle, &statistics.handle];
    launch(&x.client, &sums::CENTERED, num_groups, &params, &buffers);
    combine_wgsl(&partial, &statistics, dim, scale);

    let y = empty_f32(&x, [num_rows, dim]);
    let mut buffers = vec![&x.handle, &statistics.handle, &weight.handle, &bias.handle, &y.handle];
    buffers.extend(residual.iter().map(|residual| &residual.handle));
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

/// The arguments of a backward pass.
struct GradInput<T> {
    grad: T,
    x: T,
    y: T,
    statistics: T,
    weight: T,
    epsilon: f32,
    relu: bool,
}

/// Gradients of x, of the residual with `add`, and of bias and weight.
fn grad_wgsl(input: GradInput<CubeTensor>, add: bool) -> (CubeTensor, Option<CubeTensor>, CubeTensor) {
    let GradInput { grad, x, y, statistics, weight, epsilon, relu } = input;
    let [out_grad, x, y, statistics, weight] = [grad, x, y, statistics, weight].map(into_contiguous);
    let [num_rows, dim] = x.shape().dims();
    let (num_channels, relu) = (dim as u32, u32::from(relu));
    let num_blocks = num_rows.div_ceil(grad_sums::BLOCK_ROWS as usize);
    let (partial, sums) = (empty_f32(&x, [num_blocks, 2 * dim]), empty_f32(&x, [2, dim]));
    launch(
        &x.client,
        &grad_sums::BASE,
        num_blocks * dim.div_ceil(grad_sums::CHANNELS as usize),
        &grad_sums::Params { num_rows: num_rows as u32, num_channels, epsilon, relu },
        &[&out_grad.handle, &x.handle, &y.handle, &statistics.handle, &partial.handle],
    );
    combine_wgsl(&partial, &sums, 0, 1.0);

    let grad_x = empty_f32(&x, [num_rows, dim]);
    let grad_residual = add.then(|| empty_f32(&x, [num_rows, dim]));
    let weight = CubeBackend::float_reshape(weight, Shape::from([1, dim]));
    let factors = into_contiguous(CubeBackend::float_cat(vec![statistics, weight], 0));
    let mut buffers = vec![&out_grad.handle, &x.handle, &y.handle, &factors.handle, &sums.handle, &grad_x.handle];
    buffers.extend(grad_residual.iter().map(|grad| &grad.handle));
    let num_values = num_rows * dim;
    launch(
        &x.client,
        if add { &grad::ADD } else { &grad::BASE },
        num_values.div_ceil(grad::WG as usize),
        &grad::Params { num_values: num_values as u32, num_channels, num_rows: num_rows as f32, epsilon, relu },
        &buffers,
    );
    (grad_x, grad_residual, sums)
}

fn forward_cpu(
    x: FloatTensor<Flex>,
    residual: Option<FloatTensor<Flex>>,
    weight: FloatTensor<Flex>,
    bias: FloatTensor<Flex>,
    epsilon: f32,
    relu: bool,
) -> (FloatTensor<Flex>, FloatTensor<Flex>) {
    let [num_rows, dim] = x.shape().dims();
    let (x, weight, bias) = (Host::<f32>::new(x), Host::<f32>::new(weight), Host::<f32>::new(bias));
    let residual = residual.map(Host::<f32>::new);
    let norm = cpu::Norm { weight: &weight, epsilon, relu };
    let statistics = cpu::statistics(&x, dim);
    let y = cpu::normalize(&x, residual.as_deref(), &bias, &statistics, norm);
    (host_tensor(y, [num_rows, dim]), host_tensor(statistics, [2, dim]))
}

/// As [`grad_wgsl`].
fn grad_cpu(
    input: GradInput<FloatTensor<Flex>>,
    add: bool,
) -> (FloatTensor<Flex>, Option<FloatTensor<Flex>>, FloatTensor<Flex>) {
    let GradInput { grad, x, y, statistics, weight, epsilon, relu } = input;
    let [num_rows, dim] = x.shape().dims();
    let [grad, x, y, statistics, weight] = [grad, x, y, statistics, weight].map(Host::<f32>::new);
    let norm = cpu::Norm { weight: &weight, epsilon, relu };
    let (grad_x, grad_residual, sums) = cpu::grad(&grad, &x, &y, &statistics, norm, add);
    let grad_residual = add.then(|| host_tensor(grad_residual, [num_rows, dim]));
    (host_tensor(grad_x, [num_rows, dim]), grad_residual, host_tensor(sums, [2, dim]))
}

/// The plain backends differ in two functions.
macro_rules! implement {
    ($backend:ty, $forward:ident, $grad:ident) => {
        impl BatchNormBackend for $backend {
            fn batch_norm_rows(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                epsilon: f32,
                relu: bool,
            ) -> (FloatTensor<Self>, FloatTensor<Self>) {
                $forward(x, None, weight, bias, epsilon, relu)
            }

            fn batch_norm_add(
                x: FloatTensor<Self>,
                residual: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                epsilon: f32,
                relu: bool,
            ) -> (FloatTensor<Self>, FloatTensor<Self>) {
                $forward(x, Some(residual), weight, bias, epsilon, relu)
            }

            fn batch_norm_grad(
                grad: FloatTensor<Self>,
                x: FloatTensor<Self>,
                y: FloatTensor<Self>,
                statistics: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                epsilon: f32,
                relu: bool,
            ) -> (FloatTensor<Self>, FloatTensor<Self>) {
                let (grad_x, _, sums) = $grad(GradInput { grad, x, y, statistics, weight, epsilon, relu }, false);
                (grad_x, sums)
            }

            fn batch_norm_add_grad(
                grad: FloatTensor<Self>,
                x: FloatTensor<Self>,
                y: FloatTensor<Self>,
                statistics: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                epsilon: f32,
                relu: bool,
            ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
                let input = GradInput { grad: grad.clone(), x, y, statistics, weight, epsilon, relu };
                let (grad_x, grad_residual, sums) = $grad(input, relu);
                // Nothing was cut off: the residual's gradient is the result's.
                (grad_x, grad_residual.unwrap_or(grad), sums)
            }
        }
    };
}

implement!(CubeBackend, forward_wgsl, grad_wgsl);
implement!(Flex, forward_cpu, grad_cpu);

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct NormState<B: Backend> {
    x: FloatTensor<B>,
    y: FloatTensor<B>,
    statistics: FloatTensor<B>,
    weight: FloatTensor<B>,
    epsilon: f32,
    relu: bool,
}

/// Hands out the gradients of weight and bias, `sums [2, C]`.
fn register_sums<B: Backend>(
    weight: Option<NodeId>,
    bias: Option<NodeId>,
    sums: FloatTensor<B>,
    grads: &mut Gradients,
) {
    let dim = sums.shape()[1];
    let row = |i: usize| {
        let row = B::float_slice(sums.clone(), &[(i..i + 1).into(), (0..dim).into()]);
        B::float_reshape(row, Shape::from([dim]))
    };
    if let Some(id) = bias {
        grads.register::<B>(id, row(0));
    }
    if let Some(id) = weight {
        grads.register::<B>(id, row(1));
    }
}

#[derive(Debug)]
struct NormBackward;

impl<B: BatchNormBackend> Backward<B, 3> for NormBackward {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [x_id, weight_id, bias_id] = ops.parents.map(|node| node.map(|node| node.id));
        let NormState { x, y, statistics, weight, epsilon, relu } = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let (grad_x, sums) = B::batch_norm_grad(grad, x, y, statistics, weight, epsilon, relu);
        if let Some(id) = x_id {
            grads.register::<B>(id, grad_x);
        }
        register_sums::<B>(weight_id, bias_id, sums, grads);
    }
}

#[derive(Debug)]
struct NormAddBackward;

impl<B: BatchNormBackend> Backward<B, 4> for NormAddBackward {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [x_id, residual_id, weight_id, bias_id] = ops.parents.map(|node| node.map(|node| node.id));
        let NormState { x, y, statistics, weight, epsilon, relu } = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let (grad_x, grad_residual, sums) = B::batch_norm_add_grad(grad, x, y, statistics, weight, epsilon, relu);
        if let Some(id) = x_id {
            grads.register::<B>(id, grad_x);
        }
        if let Some(id) = residual_id {
            grads.register::<B>(id, grad_residual);
        }
        register_sums::<B>(weight_id, bias_id, sums, grads);
    }
}

impl<B: BatchNormBackend, C: CheckpointStrategy> BatchNormBackend for Autodiff<B, C> {
    fn batch_norm_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let prep = NormBackward.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful();
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        let (y, statistics) = B::batch_norm_rows(x.clone(), weight.clone(), bias, epsilon, relu);
        let y = match prep {
            OpsKind::Tracked(prep) => {
                let state = NormState { x, y: y.clone(), statistics: statistics.clone(), weight, epsilon, relu };
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        (y, <Self as AutodiffBackend>::from_inner(statistics))
    }

    fn batch_norm_add(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), residual.node(), weight.node(), bias.node()];
        let prep = NormAddBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        let residual = residual.into_primitive();
        let (y, statistics) = B::batch_norm_add(x.clone(), residual, weight.clone(), bias, epsilon, relu);
        let y = match prep {
            OpsKind::Tracked(prep) => {
                let state = NormState { x, y: y.clone(), statistics: statistics.clone(), weight, epsilon, relu };
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        (y, <Self as AutodiffBackend>::from_inner(statistics))
    }

    fn batch_norm_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (grad, x, y) = (grad.into_primitive(), x.into_primitive(), y.into_primitive());
        let (statistics, weight) = (statistics.into_primitive(), weight.into_primitive());
        let (grad_x, sums) = B::batch_norm_grad(grad, x, y, statistics, weight, epsilon, relu);
        (<Self as AutodiffBackend>::from_inner(grad_x), <Self as AutodiffBackend>::from_inner(sums))
    }

    fn batch_norm_add_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (grad, x, y) = (grad.into_primitive(), x.into_primitive(), y.into_primitive());
        let (statistics, weight) = (statistics.into_primitive(), weight.into_primitive());
        let (grad_x, grad_residual, sums) = B::batch_norm_add_grad(grad, x, y, statistics, weight, epsilon, relu);
        (
            <Self as AutodiffBackend>::from_inner(grad_x),
            <Self as AutodiffBackend>::from_inner(grad_residual),
            <Self as AutodiffBackend>::from_inner(sums),
        )
    }
}
