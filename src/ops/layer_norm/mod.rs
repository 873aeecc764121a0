//! Layer norm over channels, with the sum before it or the residual behind it in one pass, and its gradients.

pub mod cpu;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, from_cube, host_tensor, into_cube, into_tracked, limits_of};
use crate::gpu::shaders::layer_norm::layer_norm as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// What surrounds a norm, so that it needs no pass of its own.
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

/// Backend side of [`layer_norm`]; preconditions are checked there.
#[backend_extension(Cube, Flex, Autodiff)]
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

/// Backward side of [`layer_norm`], on plain tensors.
pub trait LayerNormGradBackend: LayerNormBackend {
    /// Of y = norm(z), z = `x` or `x` + `other`, all `[R, C]`, with the factors `weight [C]`, the gradient of z
    /// from `grad`, that of y, where `wants_z`; and `[2, C]`: Σ grad and Σ grad · (z − mean) / √(variance + ε) over
    /// the rows.
    fn layer_norm_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        other: Option<FloatTensor<Self>>,
        weight: FloatTensor<Self>,
        epsilon: f32,
        wants_z: bool,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>);
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
    let fusion = match fusion {
        Fusion::Nothing => Fusion::Nothing,
        Fusion::Add(other) => Fusion::Add(rows(other)),
        Fusion::Residual { residual, scale } => {
            Fusion::Residual { residual: rows(residual), scale: scale.reshape([1, dim]) }
        }
    };
    let x = rows(x);
    let tracked = [x.device(), weight.device(), bias.device()].iter().any(Device::is_autodiff)
        || match &fusion {
            Fusion::Nothing => false,
            Fusion::Add(other) => other.device().is_autodiff(),
            Fusion::Residual { residual, scale } => residual.device().is_autodiff() || scale.device().is_autodiff(),
        };
    let d = |x: Tensor<2>| into_tracked(x, tracked).into_dispatch();
    let [weight, bias] = [weight, bias].map(|vector| into_tracked(vector.clone(), tracked).into_dispatch());
    let out = match fusion {
        Fusion::Nothing => Dispatch::layer_norm(d(x), weight, bias, epsilon),
        Fusion::Add(other) => Dispatch::layer_norm_add(d(x), d(other), weight, bias, epsilon),
        Fusion::Residual { residual, scale } => {
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
    fusion: Fusion<FloatTensor<CubeBackend>>,
) -> FloatTensor<CubeBackend> {
    let (x, weight, bias) = (into_contiguous(x), into_contiguous(weight), into_contiguous(bias));
    let [num_rows, dim] = x.shape().dims();
    let out = empty_f32(&x, [num_rows, dim]);
    let mut buffers = vec![&x.handle, &weight.handle, &bias.handle, &out.handle];
    let (fusion, shader) = match fusion {
        Fusion::Nothing => (vec![], &shader::BASE),
        Fusion::Add(other) => (vec![into_contiguous(other)], &shader::ADD),
        Fusion::Residual { residual, scale } => {
            (vec![into_contiguous(residual), into_contiguous(scale)], &shader::RESIDUAL)
        }
    };
    buffers.extend(fusion.iter().map(|tensor| &tensor.handle));
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
        launch_wgsl(x, weight, bias, epsilon, Fusion::Nothing)
    }

    fn layer_norm_add(
        x: FloatTensor<Self>,
        other: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        launch_wgsl(x, weight, bias, epsilon, Fusion::Add(other))
    }

    fn layer_norm_residual(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        launch_wgsl(x, weight, bias, epsilon, Fusion::Residual { residual, scale })
    }
}

fn run_cpu(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    bias: FloatTensor<Flex>,
    epsilon: f32,
    fusion: Fusion<FloatTensor<Flex>>,
) -> FloatTensor<Flex> {
    let shape: [usize; 2] = x.shape().dims();
    let (x, weight, bias) = (Host::<f32>::new(x), Host::<f32>::new(weight), Host::<f32>::new(bias));
    let fusion = match fusion {
        Fusion::Nothing => Fusion::Nothing,
        Fusion::Add(other) => Fusion::Add(Host::<f32>::new(other)),
        Fusion::Residual { residual, scale } => {
            Fusion::Residual { residual: Host::new(residual), scale: Host::new(scale) }
        }
    };
    let fusion = match &fusion {
        Fusion::Nothing => Fusion::Nothing,
        Fusion::Add(other) => Fusion::Add(&**other),
        Fusion::Residual { residual, scale } => Fusion::Residual { residual: &**residual, scale: &**scale },
    };
    host_tensor(cpu::layer_norm(&x, &weight, &bias, epsilon, fusion), shape)
}

impl LayerNormBackend for Flex {
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        run_cpu(x, weight, bias, epsilon, Fusion::Nothing)
    }

    fn layer_norm_add(
        x: FloatTensor<Self>,
        other: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        run_cpu(x, weight, bias, epsilon, Fusion::Add(other))
    }

    fn layer_norm_residual(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        run_cpu(x, weight, bias, epsilon, Fusion::Residual { residual, scale })
    }
}

impl LayerNormGradBackend for CubeBackend {
    fn layer_norm_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        other: Option<FloatTensor<Self>>,
        weight: FloatTensor<Self>,
        epsilon: f32,
        wants_z: bool,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>) {
        let (grad, x, weight) = (from_cube::<2>(grad), from_cube::<2>(x), from_cube::<1>(weight).unsqueeze::<2>());
        let z = match other {
            Some(other) => x + from_cube(other),
            None => x,
        };
        let centered = z.clone() - z.mean_dim(1);
        let inverse = (centered.clone().square().mean_dim(1) + epsilon).sqrt().recip();
        let normalized = centered * inverse.clone();
        let sums = Tensor::cat(vec![grad.clone().sum_dim(0), (grad.clone() * normalized.clone()).sum_dim(0)], 0);
        let grad_z = wants_z.then(|| {
            let grad = grad * weight;
            let along = (grad.clone() * normalized.clone()).mean_dim(1);
            into_cube((grad.clone() - grad.mean_dim(1) - normalized * along) * inverse)
        });
        (grad_z, into_cube(sums))
    }
}

impl LayerNormGradBackend for Flex {
    fn layer_norm_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        other: Option<FloatTensor<Self>>,
        weight: FloatTensor<Self>,
        epsilon: f32,
        wants_z: bool,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>) {
        let shape: [usize; 2] = x.shape().dims();
        let [grad, x, weight] = [grad, x, weight].map(Host::<f32>::new);
        let other = other.map(Host::<f32>::new);
        let (grad_z, sums) = cpu::grad(&grad, &x, other.as_deref(), &weight, epsilon, wants_z);
        (wants_z.then(|| host_tensor(grad_z, shape)), host_tensor(sums, [2, shape[1]]))
    }
}

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct NormState<B: Backend> {
    x: FloatTensor<B>,
    other: Option<FloatTensor<B>>,
    /// `[1, C]`.
    scale: Option<FloatTensor<B>>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    epsilon: f32,
}

/// Who asks for a gradient.
#[derive(Default)]
struct Parents {
    x: Option<NodeId>,
    other: Option<NodeId>,
    residual: Option<NodeId>,
    scale: Option<NodeId>,
    weight: Option<NodeId>,
    bias: Option<NodeId>,
}

impl<B: LayerNormGradBackend> NormState<B> {
    fn register(self, parents: &Parents, grad: FloatTensor<B>, grads: &mut Gradients) {
        let Self { x, other, scale, weight, bias, epsilon } = self;
        if let Some(id) = parents.residual {
            grads.register::<B>(id, grad.clone());
        }
        let dim = weight.shape()[0];
        let vector = |tensor| B::float_reshape(tensor, Shape::from([dim]));
        let scale = scale.map(vector);
        let scaled = |tensor: FloatTensor<B>| match &scale {
            Some(scale) => B::float_mul(tensor, scale.clone()),
            None => tensor,
        };
        let wants_z = parents.x.is_some() || parents.other.is_some();
        let (grad_z, sums) = B::layer_norm_grad(grad, x, other, scaled(weight.clone()), epsilon, wants_z);
        for id in [parents.x, parents.other].into_iter().flatten() {
            grads.register::<B>(id, grad_z.clone().expect("it was asked for"));
        }
        let row = |i: usize| vector(B::float_slice(sums.clone(), &[(i..i + 1).into(), (0..dim).into()]));
        if let Some(id) = parents.bias {
            grads.register::<B>(id, scaled(row(0)));
        }
        if let Some(id) = parents.weight {
            grads.register::<B>(id, scaled(row(1)));
        }
        if let Some(id) = parents.scale {
            let grad = B::float_add(B::float_mul(row(0), bias), B::float_mul(row(1), weight));
            grads.register::<B>(id, B::float_reshape(grad, Shape::from([1, dim])));
        }
    }
}

#[derive(Debug)]
struct NormBackward;

impl<B: LayerNormGradBackend> Backward<B, 3> for NormBackward {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [x, weight, bias] = ops.parents.map(|node| node.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        ops.state.register(&Parents { x, weight, bias, ..Default::default() }, grad, grads);
    }
}

#[derive(Debug)]
struct NormAddBackward;

impl<B: LayerNormGradBackend> Backward<B, 4> for NormAddBackward {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [x, other, weight, bias] = ops.parents.map(|node| node.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        ops.state.register(&Parents { x, other, weight, bias, ..Default::default() }, grad, grads);
    }
}

#[derive(Debug)]
struct NormResidualBackward;

impl<B: LayerNormGradBackend> Backward<B, 5> for NormResidualBackward {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [x, residual, scale, weight, bias] = ops.parents.map(|node| node.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        ops.state.register(&Parents { x, residual, scale, weight, bias, ..Default::default() }, grad, grads);
    }
}

impl<B: LayerNormGradBackend, C: CheckpointStrategy> LayerNormBackend for Autodiff<B, C> {
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let prep = NormBackward.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful();
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        let out = <B as LayerNormBackend>::layer_norm(x.clone(), weight.clone(), bias.clone(), epsilon);
        match prep {
            OpsKind::Tracked(prep) => {
                prep.finish(NormState { x, other: None, scale: None, weight, bias, epsilon }, out)
            }
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn layer_norm_add(
        x: FloatTensor<Self>,
        other: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), other.node(), weight.node(), bias.node()];
        let prep = NormAddBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, other) = (x.into_primitive(), other.into_primitive());
        let (weight, bias) = (weight.into_primitive(), bias.into_primitive());
        let out = B::layer_norm_add(x.clone(), other.clone(), weight.clone(), bias.clone(), epsilon);
        match prep {
            OpsKind::Tracked(prep) => {
                prep.finish(NormState { x, other: Some(other), scale: None, weight, bias, epsilon }, out)
            }
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn layer_norm_residual(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), residual.node(), scale.node(), weight.node(), bias.node()];
        let prep = NormResidualBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, residual, scale) = (x.into_primitive(), residual.into_primitive(), scale.into_primitive());
        let (weight, bias) = (weight.into_primitive(), bias.into_primitive());
        let out = B::layer_norm_residual(x.clone(), residual, scale.clone(), weight.clone(), bias.clone(), epsilon);
        match prep {
            OpsKind::Tracked(prep) => {
                prep.finish(NormState { x, other: None, scale: Some(scale), weight, bias, epsilon }, out)
            }
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}
