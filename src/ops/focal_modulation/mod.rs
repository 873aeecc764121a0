//! The context aggregation of focal modulation (Yang et al., NeurIPS 2022), with gradients.

pub mod cpu;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};

use super::depthwise_conv2d::{DepthwiseConv2dBackend, DepthwiseConv2dGradBackend};
use super::{Host, OpError, ShapeCheck, from_cube, host_tensor, into_cube, into_tracked, limits_of};
use crate::gpu::shaders::focal_modulation::{finish, level, mean};
use crate::gpu::{check_binding, empty_f32, launch};

/// The depthwise convolutions of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// How many there are.
    pub num_levels: usize,
    /// Kernel of the first one, odd.
    pub window: usize,
    /// How much the kernel grows from one to the next, even.
    pub growth: usize,
    /// Divide the sum by its number of terms, `num_levels` + 1.
    pub scaled: bool,
}

impl Levels {
    /// Edge of a level's kernel.
    #[must_use]
    pub fn kernel(&self, level: usize) -> usize {
        self.window + self.growth * level
    }

    /// Taps of all kernels together.
    #[must_use]
    pub fn num_taps(&self) -> usize {
        (0..self.num_levels).map(|level| self.kernel(level).pow(2)).sum()
    }

    fn divisor(&self) -> f32 {
        if self.scaled { (self.num_levels + 1) as f32 } else { 1.0 }
    }
}

/// Backend side of [`focal_modulation`]; preconditions are checked there.
#[backend_extension(Cube, Flex, Autodiff)]
pub trait FocalModulationBackend: Backend {
    /// `[B, H, W, C]` from the context of that shape, `gates [B, H, W, levels + 1]` and `kernels [taps, C]`.
    fn focal_modulation(
        context: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        kernels: FloatTensor<Self>,
        levels: Levels,
    ) -> FloatTensor<Self>;
}

/// Backward side of [`focal_modulation`], on plain tensors.
pub trait FocalModulationGradBackend: FocalModulationBackend {
    /// Gradients of context, gates and kernels, given as `inputs`, from that of the result, `[B, H, W, C]`; those
    /// that `wants` names, in this order.
    fn focal_modulation_grad(
        grad: FloatTensor<Self>,
        inputs: [FloatTensor<Self>; 3],
        levels: Levels,
        wants: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3];
}

/// (Σₗ cₗ · gₗ + GELU(mean c) · g) / divisor, where c₀ = GELU(depthwise₀(`context`)), cₗ₊₁ =
/// GELU(depthwiseₗ₊₁(cₗ)), the mean is that of the last level over all pixels, and gₗ, g are the `gates`,
/// one per level and the global one last.
///
/// `context [B, H, W, C]`, `gates [B, H, W, levels + 1]`, `kernels [Σ k², C]` with the taps of a level in
/// row-major order; zeros around the image. Gives `[B, H, W, C]`. Gradients flow to every tensor; sums have a
/// fixed order, so two runs on one device agree to the bit.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] for kernels of even size or no level;
/// [`OpError::TooLarge`] where the context does not fit one buffer.
pub fn focal_modulation(
    context: Tensor<4>,
    gates: Tensor<4>,
    kernels: Tensor<2>,
    levels: Levels,
) -> Result<Tensor<4>, OpError> {
    let mut shapes = ShapeCheck::new("focal_modulation");
    shapes.check("context", context.dims(), ["B".into(), "H".into(), "W".into(), "C".into()])?;
    shapes.check("gates", gates.dims(), ["B".into(), "H".into(), "W".into(), (levels.num_levels + 1).into()])?;
    shapes.check("kernels", kernels.dims(), [levels.num_taps().into(), "C".into()])?;
    if levels.num_levels == 0 || levels.window.is_multiple_of(2) || !levels.growth.is_multiple_of(2) {
        return Err(shapes.value(format!("{levels:?}, expected a level and odd kernels")));
    }
    let [batch, height, width, dim] = context.dims();
    if batch * height * width * dim == 0 {
        return Ok(context);
    }
    let limits = limits_of(&context.device());
    check_binding(limits, "focal_modulation: context", batch * height * width, dim * 4)?;
    check_binding(limits, "focal_modulation: gates", batch * height * width, (levels.num_levels + 1) * 4)?;
    let tracked = [context.device(), gates.device(), kernels.device()].iter().any(Device::is_autodiff);
    let d = |x: Tensor<4>| into_tracked(x, tracked).into_dispatch();
    let kernels = into_tracked(kernels, tracked).into_dispatch();
    Ok(Tensor::from_dispatch(Dispatch::focal_modulation(d(context), d(gates), kernels, levels)))
}

impl FocalModulationBackend for CubeBackend {
    fn focal_modulation(
        context: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        kernels: FloatTensor<Self>,
        levels: Levels,
    ) -> FloatTensor<Self> {
        let mut context = into_contiguous(context);
        let (gates, kernels) = (into_contiguous(gates), into_contiguous(kernels));
        let shape: [usize; 4] = context.shape().dims();
        let [batch, height, width, dim] = shape;
        let num_values = batch * height * width * dim;
        let groups = num_values.div_ceil(level::WG as usize);
        let sum = empty_f32(&context, shape);
        let mut first_tap = 0;
        for l in 0..levels.num_levels {
            let next = empty_f32(&context, shape);
            let params = level::Params {
                num_values: num_values as u32,
                height: height as u32,
                width: width as u32,
                num_channels: dim as u32,
                kernel: levels.kernel(l) as u32,
                first_tap: first_tap as u32,
                level: l as u32,
                num_gates: levels.num_levels as u32 + 1,
            };
            let buffers = [&context.handle, &kernels.handle, &gates.handle, &next.handle, &sum.handle];
            launch(&context.client, &level::BASE, groups, &params, &buffers);
            first_tap += levels.kernel(l).pow(2);
            context = next;
        }
        let global = empty_f32(&context, [batch, dim]);
        launch(
            &context.client,
            &mean::BASE,
            batch * dim.div_ceil(mean::COLS as usize),
            &mean::Params { num_images: batch as u32, num_pixels: (height * width) as u32, num_channels: dim as u32 },
            &[&context.handle, &global.handle],
        );
        let out = empty_f32(&context, shape);
        launch(
            &context.client,
            &finish::BASE,
            groups,
            &finish::Params {
                num_values: num_values as u32,
                num_pixels: (height * width) as u32,
                num_channels: dim as u32,
                num_gates: levels.num_levels as u32 + 1,
                divisor: levels.divisor(),
            },
            &[&sum.handle, &global.handle, &gates.handle, &out.handle],
        );
        out
    }
}

impl FocalModulationBackend for Flex {
    fn focal_modulation(
        context: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        kernels: FloatTensor<Self>,
        levels: Levels,
    ) -> FloatTensor<Self> {
        let shape: [usize; 4] = context.shape().dims();
        let (context, gates, kernels) = (Host::<f32>::new(context), Host::<f32>::new(gates), Host::<f32>::new(kernels));
        let [_, height, width, dim] = shape;
        host_tensor(cpu::focal_modulation(&context, &gates, &kernels, [height, width, dim], levels), shape)
    }
}

/// x · Φ(x) and its derivative, Φ(x) + x · φ(x).
fn gelu_and_slope<const D: usize>(x: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    let below = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    let density = (x.clone().square() * -0.5).exp() * (1.0 / std::f64::consts::TAU.sqrt());
    (x.clone() * below.clone(), below + x * density)
}

impl FocalModulationGradBackend for CubeBackend {
    fn focal_modulation_grad(
        grad: FloatTensor<Self>,
        inputs: [FloatTensor<Self>; 3],
        levels: Levels,
        wants: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        let [context, gates, kernels] = inputs;
        let grad = from_cube::<4>(grad) / levels.divisor();
        let (gates, kernels) = (from_cube::<4>(gates), from_cube::<2>(kernels));
        let dim = kernels.dims()[1];
        let zeros = Tensor::<1>::zeros([dim], &kernels.device());
        let gate = |level: usize| gates.clone().narrow(3, level, 1);
        let mean = |x: Tensor<4>| x.mean_dim(2).mean_dim(1);
        let mut first_tap = 0;
        let taps = (0..levels.num_levels).map(|level| {
            let num_taps = levels.kernel(level).pow(2);
            first_tap += num_taps;
            into_cube(kernels.clone().narrow(0, first_tap - num_taps, num_taps))
        });
        let taps: Vec<CubeTensor> = taps.collect();

        // The input of every level and the output of the last, and the slope of every GELU.
        let mut values = vec![context];
        let mut slopes = Vec::new();
        for (level, taps) in taps.iter().enumerate() {
            let (x, bias) = (values[level].clone(), into_cube(zeros.clone()));
            let x = Self::depthwise_conv2d(x, taps.clone(), bias, levels.kernel(level));
            let (value, slope) = gelu_and_slope(from_cube::<4>(x));
            values.push(into_cube(value));
            slopes.push(slope);
        }
        let (global, global_slope) = gelu_and_slope(mean(from_cube(values[levels.num_levels].clone())));
        let grad_gates = wants[1].then(|| {
            let of_level = |value: Tensor<4>| (grad.clone() * value).sum_dim(3);
            let mut grads: Vec<_> = values[1..].iter().map(|value| of_level(from_cube(value.clone()))).collect();
            grads.push(of_level(global));
            into_cube(Tensor::cat(grads, 3))
        });
        if !wants[0] && !wants[2] {
            return [None, grad_gates, None];
        }

        // Gradient of a level's output that does not come through its gate: at first that of the mean.
        let mut flow = Some(mean(grad.clone() * gate(levels.num_levels)) * global_slope);
        let mut grad_taps = Vec::new();
        for level in (0..levels.num_levels).rev() {
            let mut before = grad.clone() * gate(level);
            if let Some(flow) = flow {
                before = before + flow;
            }
            let before = into_cube(before * slopes[level].clone());
            let wants = [level > 0 || wants[0], wants[2], false];
            let (x, kernel) = (values[level].clone(), levels.kernel(level));
            let [grad_x, grad_kernel, _] = Self::depthwise_conv2d_grad(before, x, taps[level].clone(), kernel, wants);
            flow = grad_x.map(from_cube);
            grad_taps.extend(grad_kernel.map(from_cube::<2>));
        }
        grad_taps.reverse();
        [flow.map(into_cube), grad_gates, wants[2].then(|| into_cube(Tensor::cat(grad_taps, 0)))]
    }
}

impl FocalModulationGradBackend for Flex {
    fn focal_modulation_grad(
        grad: FloatTensor<Self>,
        inputs: [FloatTensor<Self>; 3],
        levels: Levels,
        wants: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        let shape: [usize; 4] = inputs[0].shape().dims();
        let [batch, height, width, dim] = shape;
        let (grad, [context, gates, kernels]) = (Host::<f32>::new(grad), inputs.map(Host::<f32>::new));
        let size = [height, width, dim];
        let to_make = cpu::Wants { context: wants[0], kernels: wants[2] };
        let [context, gates, kernels] = cpu::grad(&grad, [&*context, &*gates, &*kernels], size, levels, to_make);
        [
            wants[0].then(|| host_tensor(context, shape)),
            wants[1].then(|| host_tensor(gates, [batch, height, width, levels.num_levels + 1])),
            wants[2].then(|| host_tensor(kernels, [levels.num_taps(), dim])),
        ]
    }
}

/// What the backward pass needs: context, gates and kernels.
#[derive(Clone, Debug)]
struct State<B: Backend> {
    inputs: [FloatTensor<B>; 3],
    levels: Levels,
}

#[derive(Debug)]
struct FocalModulationBackward;

impl<B: FocalModulationGradBackend> Backward<B, 3> for FocalModulationBackward {
    type State = State<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        let State { inputs, levels } = ops.state;
        let made = B::focal_modulation_grad(grad, inputs, levels, parents.map(|id| id.is_some()));
        for (id, grad) in parents.into_iter().zip(made) {
            if let (Some(id), Some(grad)) = (id, grad) {
                grads.register::<B>(id, grad);
            }
        }
    }
}

impl<B: FocalModulationGradBackend, C: CheckpointStrategy> FocalModulationBackend for Autodiff<B, C> {
    fn focal_modulation(
        context: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        kernels: FloatTensor<Self>,
        levels: Levels,
    ) -> FloatTensor<Self> {
        let nodes = [context.node(), gates.node(), kernels.node()];
        let prep = FocalModulationBackward.prepare::<C>(nodes).compute_bound().stateful();
        let inputs = [context, gates, kernels].map(|tensor| tensor.into_primitive());
        let [context, gates, kernels] = inputs.clone();
        let out = B::focal_modulation(context, gates, kernels, levels);
        match prep {
            OpsKind::Tracked(prep) => prep.finish(State { inputs, levels }, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}
