//! Group norm over the pixels of each image, channels last.

pub mod cpu;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain};
use crate::gpu::shaders::group_norm::{moments, normalize};
use crate::gpu::{check_binding, empty_f32, launch};

/// What follows a norm in the same pass.
#[derive(Clone, Copy, Debug)]
pub enum After<T> {
    /// norm(x).
    Nothing,
    /// max(norm(x), 0).
    Relu,
    /// norm(x) + the tensor `[B, H / 2, W / 2, C]` with every pixel repeated twice in both directions.
    AddUpsampled(T),
}

/// Backend side of [`group_norm`]; preconditions are checked there.
#[backend_extension(Cube, Flex)]
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

/// (x − mean) / √(variance + ε) · weight + bias of `x [B, H, W, C]`, mean and biased variance over the
/// pixels and the C / `num_groups` channels of each group of each image, as PyTorch's `GroupNorm`.
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
    after: After<Tensor<4>>,
) -> Result<Tensor<4>, OpError> {
    let mut shapes = ShapeCheck::new("group_norm");
    shapes.check("x", x.dims(), ["B".into(), "H".into(), "W".into(), "C".into()])?;
    shapes.check("weight", weight.dims(), ["C".into()])?;
    shapes.check("bias", bias.dims(), ["C".into()])?;
    let [batch, height, width, dim] = x.dims();
    if num_groups == 0 || dim % num_groups != 0 {
        return Err(shapes.value(format!("{num_groups} groups of {dim} channels, expected a divisor")));
    }
    if let After::AddUpsampled(coarse) = &after {
        if height % 2 + width % 2 != 0 {
            return Err(shapes.value(format!("an image of {height} x {width}, expected even sizes")));
        }
        shapes.check("coarse", coarse.dims(), ["B".into(), (height / 2).into(), (width / 2).into(), "C".into()])?;
    }
    if batch * height * width * dim == 0 {
        return Ok(x);
    }
    check_binding(limits_of(&x.device()), "group_norm: x", batch * height * width, dim * 4)?;
    let (weight, bias) = (plain(weight.clone()).into_dispatch(), plain(bias.clone()).into_dispatch());
    let x = plain(x).into_dispatch();
    Ok(Tensor::from_dispatch(match after {
        After::Nothing => Dispatch::group_norm(x, weight, bias, num_groups, epsilon, false),
        After::Relu => Dispatch::group_norm(x, weight, bias, num_groups, epsilon, true),
        After::AddUpsampled(coarse) => {
            let coarse = plain(coarse).into_dispatch();
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
    after: After<FloatTensor<CubeBackend>>,
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
    let coarse = match &after {
        After::AddUpsampled(coarse) => Some(into_contiguous(coarse.clone())),
        After::Nothing | After::Relu => None,
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
            relu: u32::from(matches!(after, After::Relu)),
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
        launch_wgsl(x, weight, bias, num_groups, epsilon, if relu { After::Relu } else { After::Nothing })
    }

    fn group_norm_add_upsampled(
        x: FloatTensor<Self>,
        coarse: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        num_groups: usize,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        launch_wgsl(x, weight, bias, num_groups, epsilon, After::AddUpsampled(coarse))
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
        let after = if relu { After::Relu } else { After::Nothing };
        let out = cpu::group_norm(&x, &weight, &bias, num_groups, epsilon, [shape[1], shape[2]], after);
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
        let after = After::AddUpsampled(&*coarse);
        let out = cpu::group_norm(&x, &weight, &bias, num_groups, epsilon, [shape[1], shape[2]], after);
        host_tensor(out, shape)
    }
}
