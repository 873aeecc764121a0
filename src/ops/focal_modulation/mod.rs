//! The context aggregation of focal modulation (Yang et al., NeurIPS 2022).

pub mod cpu;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain};
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
#[backend_extension(Cube, Flex)]
pub trait FocalModulationBackend: Backend {
    /// `[B, H, W, C]` from the context of that shape, `gates [B, H, W, levels + 1]` and `kernels [taps, C]`.
    fn focal_modulation(
        context: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        kernels: FloatTensor<Self>,
        levels: Levels,
    ) -> FloatTensor<Self>;
}

/// (Σₗ cₗ · gₗ + GELU(mean c) · g) / divisor, where c₀ = GELU(depthwise₀(`context`)), cₗ₊₁ =
/// GELU(depthwiseₗ₊₁(cₗ)), the mean is that of the last level over all pixels, and gₗ, g are the `gates`,
/// one per level and the global one last.
///
/// `context [B, H, W, C]`, `gates [B, H, W, levels + 1]`, `kernels [Σ k², C]` with the taps of a level in
/// row-major order; zeros around the image. Gives `[B, H, W, C]`.
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
    let d = |x: Tensor<4>| plain(x).into_dispatch();
    Ok(Tensor::from_dispatch(Dispatch::focal_modulation(d(context), d(gates), plain(kernels).into_dispatch(), levels)))
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
