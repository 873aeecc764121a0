//! The context aggregation of focal modulation (Yang et al., NeurIPS 2022), with gradients.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::run::Operands;
use super::{OpError, ShapeCheck, depthwise_conv2d, host_tensor, limits_of, plain, run, run_twin, with_gradient};
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
    let inputs = (plain(context.clone()), plain(gates.clone()), plain(kernels.clone()));
    let out = run(
        inputs.clone(),
        |(context, gates, kernels)| forward_wgsl(context, &gates, &kernels, levels),
        |(context, gates, kernels)| {
            let out = cpu::focal_modulation(&context, &gates, &kernels, [height, width, dim], levels);
            host_tensor(out, [batch, height, width, dim])
        },
    );
    Ok(with_gradient((context, gates, kernels), out, move |grad, wants| gradients(grad, inputs, levels, wants)))
}

fn forward_wgsl(mut context: CubeTensor, gates: &CubeTensor, kernels: &CubeTensor, levels: Levels) -> CubeTensor {
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

/// x · Φ(x) and its derivative, Φ(x) + x · φ(x).
fn gelu_and_slope<const D: usize>(x: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    let below = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    let density = (x.clone().square() * -0.5).exp() * (1.0 / std::f64::consts::TAU.sqrt());
    (x.clone() * below.clone(), below + x * density)
}

/// The gradients of context, gates and kernels.
type Gradients = (Option<Tensor<4>>, Option<Tensor<4>>, Option<Tensor<2>>);

/// The gradients that `wants` names, from that of the result, `[B, H, W, C]`.
fn gradients(
    grad: Tensor<4>,
    inputs: (Tensor<4>, Tensor<4>, Tensor<2>),
    levels: Levels,
    wants: [bool; 3],
) -> Gradients {
    if grad.is_on_host() {
        return gradients_twin(grad, inputs, levels, wants);
    }
    let (context, gates, kernels) = inputs;
    let grad = grad / levels.divisor();
    let dim = kernels.dims()[1];
    let zeros = Tensor::<1>::zeros([dim], &kernels.device());
    let gate = |level: usize| gates.clone().narrow(3, level, 1);
    let mean = |x: Tensor<4>| x.mean_dim(2).mean_dim(1);
    let mut first_tap = 0;
    let taps = (0..levels.num_levels).map(|level| {
        let num_taps = levels.kernel(level).pow(2);
        first_tap += num_taps;
        kernels.clone().narrow(0, first_tap - num_taps, num_taps)
    });
    let taps: Vec<Tensor<2>> = taps.collect();

    // The input of every level and the output of the last, and the slope of every GELU.
    let mut values = vec![context];
    let mut slopes = Vec::new();
    for (level, taps) in taps.iter().enumerate() {
        let x = depthwise_conv2d::convolve(values[level].clone(), taps.clone(), zeros.clone(), levels.kernel(level));
        let (value, slope) = gelu_and_slope(x);
        values.push(value);
        slopes.push(slope);
    }
    let (global, global_slope) = gelu_and_slope(mean(values[levels.num_levels].clone()));
    let grad_gates = wants[1].then(|| {
        let of_level = |value: Tensor<4>| (grad.clone() * value).sum_dim(3);
        let mut grads: Vec<_> = values[1..].iter().map(|value| of_level(value.clone())).collect();
        grads.push(of_level(global));
        Tensor::cat(grads, 3)
    });
    if !wants[0] && !wants[2] {
        return (None, grad_gates, None);
    }

    // Gradient of a level's output that does not come through its gate: at first that of the mean.
    let mut flow = Some(mean(grad.clone() * gate(levels.num_levels)) * global_slope);
    let mut grad_taps = Vec::new();
    for level in (0..levels.num_levels).rev() {
        let mut before = grad.clone() * gate(level);
        if let Some(flow) = flow {
            before = before + flow;
        }
        let before = before * slopes[level].clone();
        let wants = [level > 0 || wants[0], wants[2], false];
        let (x, kernel) = (values[level].clone(), levels.kernel(level));
        let (grad_x, grad_kernel, _) = depthwise_conv2d::gradients(before, x, taps[level].clone(), kernel, wants);
        flow = grad_x;
        grad_taps.extend(grad_kernel);
    }
    grad_taps.reverse();
    (flow, grad_gates, wants[2].then(|| Tensor::cat(grad_taps, 0)))
}

fn gradients_twin(
    grad: Tensor<4>,
    (context, gates, kernels): (Tensor<4>, Tensor<4>, Tensor<2>),
    levels: Levels,
    wants: [bool; 3],
) -> Gradients {
    let shape = context.dims();
    let [batch, height, width, dim] = shape;
    run_twin(([grad, context, gates], kernels), |([grad, context, gates], kernels)| {
        let to_make = cpu::Wants { context: wants[0], kernels: wants[2] };
        let inputs = [&*context, &*gates, &*kernels];
        let [context, gates, kernels] = cpu::grad(&grad, inputs, [height, width, dim], levels, to_make);
        (
            wants[0].then(|| host_tensor(context, shape)),
            wants[1].then(|| host_tensor(gates, [batch, height, width, levels.num_levels + 1])),
            wants[2].then(|| host_tensor(kernels, [levels.num_taps(), dim])),
        )
    })
}
