//! Depthwise 2D convolution: every channel with a kernel of its own.

pub mod cpu;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain};
use crate::gpu::shaders::depthwise_conv2d::depthwise_conv2d as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// Backend side of [`depthwise_conv2d`]; preconditions are checked there.
#[backend_extension(Cube, Flex)]
pub trait DepthwiseConv2dBackend: Backend {
    /// `x [B, H, W, C]`, `weight [k², C]`, `bias [C]` → `[B, H, W, C]`.
    fn depthwise_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        kernel: usize,
    ) -> FloatTensor<Self>;
}

/// out\[b, y, x, c\] = Σ x\[b, y + i − k / 2, x + j − k / 2, c\] · weight\[i · k + j, c\] + bias\[c\], zeros outside
/// the image: `x [B, H, W, C]`, `weight [k², C]`, `bias [C]` → `[B, H, W, C]`.
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
    let (weight, bias) = (plain(weight).into_dispatch(), plain(bias).into_dispatch());
    Ok(Tensor::from_dispatch(Dispatch::depthwise_conv2d(plain(x).into_dispatch(), weight, bias, kernel)))
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
