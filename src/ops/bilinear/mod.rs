//! Bilinear resampling of images, channels last, as PyTorch does it without antialiasing.

pub mod cpu;

use burn::backend::ops::FloatTensorOps;
use burn::prelude::*;
use burn_wgpu::CubeBackend;

use super::bicubic_antialias::along;
use super::{OpError, ShapeCheck, host_tensor, limits_of, run};
use crate::gpu::check_binding;

/// Where the samples of the result lie among those of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corners {
    /// The first and the last samples of both coincide: `align_corners=True`.
    Aligned,
    /// The edges of the outer pixels coincide: `align_corners=False`.
    Free,
}

/// Resamples every image of `x [B, H, W, C]` to `size` (height, width): `[B, height, width, C]`. A sample is the mean of
/// the two nearest along each axis, weighted by how near they are; beyond the outer samples the border repeats. No
/// gradient flows.
///
/// # Errors
/// [`OpError::Value`] where an image or the result has no pixels; [`OpError::TooLarge`] where a tensor does not fit one
/// buffer.
pub fn bilinear(x: Tensor<4>, size: [usize; 2], corners: Corners) -> Result<Tensor<4>, OpError> {
    let [batch, h, w, channels] = x.dims();
    let [height, width] = size;
    if h * w * height * width == 0 || h.max(w).max(height).max(width) > i32::MAX as usize {
        let message = format!("from {h} x {w} to {height} x {width}, expected sizes above 0");
        return Err(ShapeCheck::new("bilinear").value(message));
    }
    let limits = limits_of(&x.device());
    check_binding(limits, "bilinear: x", batch * h * w, channels * 4)?;
    check_binding(limits, "bilinear: half way", batch * h * width, channels * 4)?;
    check_binding(limits, "bilinear: out", batch * height * width, channels * 4)?;
    if batch * channels == 0 {
        return Ok(Tensor::zeros([batch, height, width, channels], &x.device()));
    }
    let (rows, columns) = (cpu::axis(h, height, corners), cpu::axis(w, width, corners));
    Ok(run(
        x,
        |x| {
            let wide = along(&x, 0..batch * h, [w, channels], &columns);
            let out = along(&wide, 0..batch, [h, width * channels], &rows);
            CubeBackend::float_reshape(out, Shape::from([batch, height, width, channels]))
        },
        |x| host_tensor(cpu::bilinear(&x, [h, w, channels], &rows, &columns), [batch, height, width, channels]),
    ))
}
