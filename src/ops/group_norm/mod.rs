//! Group norm over the pixels of each image, channels last, and its gradients.

pub mod cpu;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};

use super::{Host, OpError, ShapeCheck, from_cube, host_tensor, into_cube, into_tracked, limits_of};
use crate::gpu::shaders::group_norm::{moments, normalize};
use crate::gpu::{check_binding, empty_f32, launch};

/// What follows a norm in the same pass.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<T> {
    /// norm(x).
    Nothing,
    /// max(norm(x), 0).
    Relu,
    /// norm(x) + the tensor `[B, H / 2, W / 2, C]` with every pixel repeated twice in both directions.
    AddUpsampled(T),
}

/// Backend side of [`group_norm`]; preconditions are checked there.
#[backend_extension(Cube, Flex, Autodiff)]
pub trait GroupNormBackend: Backend {
    /// norm(x) of `x [B, H, W, C]`, and max(·, 0) of it with `relu`.
    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        num_groups: usize,
        epsilon: f32,
        relu: bool,
    ) -> FloatTensor<Self>;

    /// norm(x) + `coarse [B, H / 2, W / 2, C]`, upsampled.
    fn group_norm_add_upsampled(
        x: FloatTensor<Self>,
        coarse: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        num_groups: usize,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

/// What the gradients of a norm are computed from: its input `[B, H, W, C]`, parameters `[C]` and options.
#[derive(Clone, Debug)]
pub struct NormInput<T> {
    /// The input.
    pub x: T,
    /// Factor of every channel.
    pub weight: T,
    /// Summand of every channel.
    pub bias: T,
    /// Groups of channels.
    pub num_groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether the result was cut at 0.
    pub relu: bool,
}

/// Backward side of [`group_norm`], on plain tensors.
pub trait GroupNormGradBackend: GroupNormBackend {
    /// From the gradient `[B, H, W, C]` of the result: that of `x`, where `wants_x`, and `[2, C]`: those of bias
    /// and weight.
    fn group_norm_grad(
        grad: FloatTensor<Self>,
        input: NormInput<FloatTensor<Self>>,
        wants_x: bool,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>);

    /// Gradient `[B, H / 2, W / 2, C]` of what was upsampled, from that of the result.
    fn upsampled_grad(grad: FloatTensor<Self>) -> FloatTensor<Self>;
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
    let [batch, height, width, dim] = x.dims();
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
    let tracked = [x.device(), weight.device(), bias.device()].iter().any(Device::is_autodiff)
        || matches!(&epilogue, Epilogue::AddUpsampled(coarse) if coarse.device().is_autodiff());
    let [weight, bias] = [weight, bias].map(|vector| into_tracked(vector.clone(), tracked).into_dispatch());
    let x = into_tracked(x, tracked).into_dispatch();
    Ok(Tensor::from_dispatch(match epilogue {
        Epilogue::Nothing => Dispatch::group_norm(x, weight, bias, num_groups, epsilon, false),
        Epilogue::Relu => Dispatch::group_norm(x, weight, bias, num_groups, epsilon, true),
        Epilogue::AddUpsampled(coarse) => {
            let coarse = into_tracked(coarse, tracked).into_dispatch();
            Dispatch::group_norm_add_upsampled(x, coarse, weight, bias, num_groups, epsilon)
        }
    }))
}

fn launch_wgsl(
    x: FloatTensor<CubeBackend>,
    weight: FloatTensor<CubeBackend>,
    bias: FloatTensor<CubeBackend>,
    num_groups: usize,
    epsilon: f32,
    epilogue: Epilogue<FloatTensor<CubeBackend>>,
) -> FloatTensor<CubeBackend> {
    let (x, weight, bias) = (into_contiguous(x), into_contiguous(weight), into_contiguous(bias));
    let [batch, height, width, dim] = x.shape().dims();
    let statistics = empty_f32(&x, [batch * num_groups, 2]);
    let (num_pixels, num_channels, num_groups) = ((height * width) as u32, dim as u32, num_groups as u32);
    launch(
        &x.client,
        &moments::BASE,
        batch * num_groups as usize,
        &moments::Params { num_images: batch as u32, num_pixels, num_channels, num_groups, epsilon },
        &[&x.handle, &statistics.handle],
    );
    let out = empty_f32(&x, [batch, height, width, dim]);
    let coarse = match &epilogue {
        Epilogue::AddUpsampled(coarse) => Some(into_contiguous(coarse.clone())),
        Epilogue::Nothing | Epilogue::Relu => None,
    };
    let mut buffers = vec![&x.handle, &statistics.handle, &weight.handle, &bias.handle, &out.handle];
    buffers.extend(coarse.iter().map(|coarse| &coarse.handle));
    let shader = if coarse.is_some() { &normalize::UPSAMPLED } else { &normalize::BASE };
    let num_values = batch * height * width * dim;
    launch(
        &x.client,
        shader,
        num_values.div_ceil(normalize::WG as usize),
        &normalize::Params {
            num_values: num_values as u32,
            height: height as u32,
            width: width as u32,
            num_channels,
            num_groups,
            relu: u32::from(matches!(epilogue, Epilogue::Relu)),
        },
        &buffers,
    );
    out
}

impl GroupNormBackend for CubeBackend {
    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        num_groups: usize,
        epsilon: f32,
        relu: bool,
    ) -> FloatTensor<Self> {
        launch_wgsl(x, weight, bias, num_groups, epsilon, if relu { Epilogue::Relu } else { Epilogue::Nothing })
    }

    fn group_norm_add_upsampled(
        x: FloatTensor<Self>,
        coarse: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        num_groups: usize,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        launch_wgsl(x, weight, bias, num_groups, epsilon, Epilogue::AddUpsampled(coarse))
    }
}

impl GroupNormBackend for Flex {
    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        num_groups: usize,
        epsilon: f32,
        relu: bool,
    ) -> FloatTensor<Self> {
        let shape: [usize; 4] = x.shape().dims();
        let (x, weight, bias) = (Host::<f32>::new(x), Host::<f32>::new(weight), Host::<f32>::new(bias));
        let epilogue = if relu { Epilogue::Relu } else { Epilogue::Nothing };
        let out = cpu::group_norm(&x, &weight, &bias, num_groups, epsilon, [shape[1], shape[2]], epilogue);
        host_tensor(out, shape)
    }

    fn group_norm_add_upsampled(
        x: FloatTensor<Self>,
        coarse: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        num_groups: usize,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let shape: [usize; 4] = x.shape().dims();
        let (x, weight, bias) = (Host::<f32>::new(x), Host::<f32>::new(weight), Host::<f32>::new(bias));
        let coarse = Host::<f32>::new(coarse);
        let epilogue = Epilogue::AddUpsampled(&*coarse);
        let out = cpu::group_norm(&x, &weight, &bias, num_groups, epsilon, [shape[1], shape[2]], epilogue);
        host_tensor(out, shape)
    }
}

impl GroupNormGradBackend for CubeBackend {
    fn group_norm_grad(
        grad: FloatTensor<Self>,
        input: NormInput<FloatTensor<Self>>,
        wants_x: bool,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>) {
        let NormInput { x, weight, bias, num_groups, epsilon, relu } = input;
        let (grad, x) = (from_cube::<4>(grad), from_cube::<4>(x));
        let [batch, height, width, dim] = x.dims();
        // Row by row, so that no sum of one invocation is long.
        let grouped = |x: Tensor<4>| x.reshape([batch, height, width, num_groups, dim / num_groups]);
        let mean = |x: Tensor<5>| x.mean_dim(4).mean_dim(2).mean_dim(1);
        let channels = |x: CubeTensor| from_cube::<1>(x).reshape([1, 1, 1, num_groups, dim / num_groups]);
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
            into_cube(grad_x.reshape([batch, height, width, dim]))
        });
        (grad_x, into_cube(sums))
    }

    fn upsampled_grad(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let [batch, height, width, dim] = grad.shape().dims();
        let cells = from_cube::<4>(grad).reshape([batch, height / 2, 2, width / 2, 2, dim]);
        into_cube(cells.sum_dim(4).sum_dim(2).reshape([batch, height / 2, width / 2, dim]))
    }
}

impl GroupNormGradBackend for Flex {
    fn group_norm_grad(
        grad: FloatTensor<Self>,
        input: NormInput<FloatTensor<Self>>,
        wants_x: bool,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>) {
        let NormInput { x, weight, bias, num_groups, epsilon, relu } = input;
        let shape: [usize; 4] = x.shape().dims();
        let [grad, x, weight, bias] = [grad, x, weight, bias].map(Host::<f32>::new);
        let input = NormInput { x: &*x, weight: &*weight, bias: &*bias, num_groups, epsilon, relu };
        let (grad_x, sums) = cpu::grad(&grad, input, shape[1] * shape[2], wants_x);
        (wants_x.then(|| host_tensor(grad_x, shape)), host_tensor(sums, [2, shape[3]]))
    }

    fn upsampled_grad(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let [batch, height, width, dim] = grad.shape().dims();
        host_tensor(cpu::upsampled_grad(&Host::new(grad), width, dim), [batch, height / 2, width / 2, dim])
    }
}

/// The backward pass of the norm itself: parents in the order x, weight, bias.
fn register<B: GroupNormGradBackend>(
    input: NormInput<FloatTensor<B>>,
    [x, weight, bias]: [Option<NodeId>; 3],
    grad: FloatTensor<B>,
    grads: &mut Gradients,
) {
    if x.is_none() && weight.is_none() && bias.is_none() {
        return;
    }
    let dim = input.weight.shape()[0];
    let (grad_x, sums) = B::group_norm_grad(grad, input, x.is_some());
    if let (Some(id), Some(grad)) = (x, grad_x) {
        grads.register::<B>(id, grad);
    }
    for (row, id) in [bias, weight].into_iter().enumerate() {
        if let Some(id) = id {
            let sum = B::float_slice(sums.clone(), &[(row..row + 1).into(), (0..dim).into()]);
            grads.register::<B>(id, B::float_reshape(sum, Shape::from([dim])));
        }
    }
}

#[derive(Debug)]
struct NormBackward;

impl<B: GroupNormGradBackend> Backward<B, 3> for NormBackward {
    type State = NormInput<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        register::<B>(ops.state, parents, grad, grads);
    }
}

#[derive(Debug)]
struct NormAddBackward;

impl<B: GroupNormGradBackend> Backward<B, 4> for NormAddBackward {
    type State = NormInput<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [x, coarse, weight, bias] = ops.parents.map(|node| node.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        if let Some(id) = coarse {
            grads.register::<B>(id, B::upsampled_grad(grad.clone()));
        }
        register::<B>(ops.state, [x, weight, bias], grad, grads);
    }
}

impl<B: GroupNormGradBackend, C: CheckpointStrategy> GroupNormBackend for Autodiff<B, C> {
    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        num_groups: usize,
        epsilon: f32,
        relu: bool,
    ) -> FloatTensor<Self> {
        let prep = NormBackward.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful();
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        let out = B::group_norm(x.clone(), weight.clone(), bias.clone(), num_groups, epsilon, relu);
        match prep {
            OpsKind::Tracked(prep) => prep.finish(NormInput { x, weight, bias, num_groups, epsilon, relu }, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn group_norm_add_upsampled(
        x: FloatTensor<Self>,
        coarse: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        num_groups: usize,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), coarse.node(), weight.node(), bias.node()];
        let prep = NormAddBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, coarse) = (x.into_primitive(), coarse.into_primitive());
        let (weight, bias) = (weight.into_primitive(), bias.into_primitive());
        let out = B::group_norm_add_upsampled(x.clone(), coarse, weight.clone(), bias.clone(), num_groups, epsilon);
        let relu = false;
        match prep {
            OpsKind::Tracked(prep) => prep.finish(NormInput { x, weight, bias, num_groups, epsilon, relu }, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}
