//! Depthwise 2D convolution, every channel with a kernel of its own, and its gradients.

pub mod cpu;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, from_cube, host_tensor, into_cube, into_tracked, limits_of};
use crate::gpu::shaders::depthwise_conv2d::depthwise_conv2d as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// Backend side of [`depthwise_conv2d`]; preconditions are checked there.
#[backend_extension(Cube, Flex, Autodiff)]
pub trait DepthwiseConv2dBackend: Backend {
    /// `x [B, H, W, C]`, `weight [k², C]`, `bias [C]` → `[B, H, W, C]`.
    fn depthwise_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        kernel: usize,
    ) -> FloatTensor<Self>;
}

/// Backward side of [`depthwise_conv2d`], on plain tensors.
pub trait DepthwiseConv2dGradBackend: DepthwiseConv2dBackend {
    /// Gradients of `x`, `weight` and the bias from that of the result, `[B, H, W, C]`; those that `wants` names, in
    /// this order.
    fn depthwise_conv2d_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        kernel: usize,
        wants: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3];
}

/// out\[b, y, x, c\] = Σ x\[b, y + i − k / 2, x + j − k / 2, c\] · weight\[i · k + j, c\] + bias\[c\], zeros outside
/// the image: `x [B, H, W, C]`, `weight [k², C]`, `bias [C]` → `[B, H, W, C]`. Gradients flow to every tensor;
/// sums have a fixed order, so two runs on one device agree to the bit.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] for a kernel of even size;
/// [`OpError::TooLarge`] where `x` does not fit one buffer.
pub fn depthwise_conv2d(x: Tensor<4>, weight: Tensor<2>, bias: Tensor<1>, kernel: usize) -> Result<Tensor<4>, OpError> {
    let mut shapes = ShapeCheck::new("depthwise_conv2d");
    shapes.check("x", x.dims(), ["B".into(), "H".into(), "W".into(), "C".into()])?;
    shapes.check("weight", weight.dims(), [(kernel * kernel).into(), "C".into()])?;
    shapes.check("bias", bias.dims(), ["C".into()])?;
    if kernel.is_multiple_of(2) {
        return Err(shapes.value(format!("a kernel of edge {kernel}, expected an odd one")));
    }
    let [batch, height, width, dim] = x.dims();
    if batch * height * width * dim == 0 {
        return Ok(x);
    }
    check_binding(limits_of(&x.device()), "depthwise_conv2d: x", batch * height * width, dim * 4)?;
    let tracked = [x.device(), weight.device(), bias.device()].iter().any(Device::is_autodiff);
    let (weight, bias) = (into_tracked(weight, tracked).into_dispatch(), into_tracked(bias, tracked).into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::depthwise_conv2d(
        into_tracked(x, tracked).into_dispatch(),
        weight,
        bias,
        kernel,
    )))
}

impl DepthwiseConv2dBackend for CubeBackend {
    fn depthwise_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        kernel: usize,
    ) -> FloatTensor<Self> {
        let (x, weight, bias) = (into_contiguous(x), into_contiguous(weight), into_contiguous(bias));
        let shape: [usize; 4] = x.shape().dims();
        let [_, height, width, dim] = shape;
        let num_values: usize = shape.iter().product();
        let out = empty_f32(&x, shape);
        launch(
            &x.client,
            &shader::BASE,
            num_values.div_ceil(shader::WG as usize),
            &shader::Params {
                num_values: num_values as u32,
                height: height as u32,
                width: width as u32,
                num_channels: dim as u32,
                kernel: kernel as u32,
            },
            &[&x.handle, &weight.handle, &bias.handle, &out.handle],
        );
        out
    }
}

impl DepthwiseConv2dBackend for Flex {
    fn depthwise_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        kernel: usize,
    ) -> FloatTensor<Self> {
        let shape: [usize; 4] = x.shape().dims();
        let (x, weight, bias) = (Host::<f32>::new(x), Host::<f32>::new(weight), Host::<f32>::new(bias));
        host_tensor(cpu::depthwise_conv2d(&x, &weight, &bias, [shape[1], shape[2]], kernel), shape)
    }
}

impl DepthwiseConv2dGradBackend for CubeBackend {
    fn depthwise_conv2d_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        kernel: usize,
        wants: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        let [batch, height, width, dim] = x.shape().dims();
        let (out_grad, x) = (from_cube::<4>(grad.clone()), from_cube::<4>(x));
        let sum = |x: Tensor<4>| x.sum_dim(2).sum_dim(1).sum_dim(0).reshape([1, dim]);
        let grad_x = wants[0].then(|| {
            let none = into_cube(Tensor::<1>::zeros([dim], &x.device()));
            Self::depthwise_conv2d(grad, into_cube(from_cube::<2>(weight).flip([0])), none, kernel)
        });
        let grad_weight = wants[1].then(|| {
            let reach = kernel / 2;
            let framed = Tensor::zeros([batch, height + 2 * reach, width + 2 * reach, dim], &x.device());
            let inside = [0..batch, reach..reach + height, reach..reach + width, 0..dim];
            let framed = framed.slice_assign(inside, x);
            let taps = (0..kernel * kernel).map(|tap| {
                let seen = framed.clone().narrow(1, tap / kernel, height).narrow(2, tap % kernel, width);
                sum(out_grad.clone() * seen)
            });
            into_cube(Tensor::cat(taps.collect(), 0))
        });
        let grad_bias = wants[2].then(|| into_cube(sum(out_grad.clone()).reshape([dim])));
        [grad_x, grad_weight, grad_bias]
    }
}

impl DepthwiseConv2dGradBackend for Flex {
    fn depthwise_conv2d_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        kernel: usize,
        wants: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        let shape: [usize; 4] = x.shape().dims();
        let [_, height, width, dim] = shape;
        let [grad, x, weight] = [grad, x, weight].map(Host::<f32>::new);
        let [grad_x, grad_weight, grad_bias] = cpu::grad(&grad, &x, &weight, [height, width, dim], kernel, wants);
        [
            wants[0].then(|| host_tensor(grad_x, shape)),
            wants[1].then(|| host_tensor(grad_weight, [kernel * kernel, dim])),
            wants[2].then(|| host_tensor(grad_bias, [dim])),
        ]
    }
}

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct State<B: Backend> {
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    kernel: usize,
}

#[derive(Debug)]
struct ConvBackward;

impl<B: DepthwiseConv2dGradBackend> Backward<B, 3> for ConvBackward {
    type State = State<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        let State { x, weight, kernel } = ops.state;
        let made = B::depthwise_conv2d_grad(grad, x, weight, kernel, parents.map(|id| id.is_some()));
        for (id, grad) in parents.into_iter().zip(made) {
            if let (Some(id), Some(grad)) = (id, grad) {
                grads.register::<B>(id, grad);
            }
        }
    }
}

impl<B: DepthwiseConv2dGradBackend, C: CheckpointStrategy> DepthwiseConv2dBackend for Autodiff<B, C> {
    fn depthwise_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        kernel: usize,
    ) -> FloatTensor<Self> {
        let prep = ConvBackward.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful();
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let out = B::depthwise_conv2d(x.clone(), weight.clone(), bias.into_primitive(), kernel);
        match prep {
            OpsKind::Tracked(prep) => prep.finish(State { x, weight, kernel }, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}
