//! Bicubic resampling of planes with antialiasing, as Pillow and PyTorch's `antialias=True` do it.

pub mod cpu;

use std::ops::Range;

use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::{OpError, ShapeCheck, host_tensor, limits_of, run};
use crate::gpu::shaders::bicubic_antialias::resample;
use crate::gpu::{check_binding, empty_f32, launch, upload};

/// Resamples every plane of `planes [N, h, w]` to `size` (height, width): `[N, height, width]`. The cubic kernel
/// with a = −0.5 is stretched by the scale where an axis shrinks; weights are renormalised at the borders.
///
/// # Errors
/// [`OpError::Value`] where a plane or the result has no pixels; [`OpError::TooLarge`] where a tensor does not
/// fit one buffer.
pub fn bicubic_antialias(planes: Tensor<3>, size: [usize; 2]) -> Result<Tensor<3>, OpError> {
    let [num_planes, h, w] = planes.dims();
    let [height, width] = size;
    if h * w * height * width == 0 || h.max(w).max(height).max(width) > i32::MAX as usize {
        let message = format!("from {h} x {w} to {height} x {width}, expected sizes above 0");
        return Err(ShapeCheck::new("bicubic_antialias").value(message));
    }
    let limits = limits_of(&planes.device());
    check_binding(limits, "bicubic_antialias: planes", num_planes * h, w * 4)?;
    check_binding(limits, "bicubic_antialias: half way", num_planes * h, width * 4)?;
    check_binding(limits, "bicubic_antialias: out", num_planes * height, width * 4)?;
    if num_planes == 0 {
        return Ok(Tensor::zeros([0, height, width], &planes.device()));
    }
    Ok(run(
        planes,
        |planes| {
            // The first pass gives [planes · h, width, 1], which the second reads as [planes, h, width].
            let wide = along(&planes, 0..num_planes * h, [w, 1], &cpu::Axis::new(w, width));
            along(&wide, 0..num_planes, [h, width], &cpu::Axis::new(h, height))
        },
        |planes| host_tensor(cpu::resample(&planes, (h, w), (height, width)), [num_planes, height, width]),
    ))
}

/// `outer` of `x [.., num_in, inner]` resampled along one axis.
pub(crate) fn along(x: &CubeTensor, outer: Range<usize>, [num_in, inner]: [usize; 2], axis: &cpu::Axis) -> CubeTensor {
    let num_out = axis.first.len();
    let out = empty_f32(x, [outer.len(), num_out, inner]);
    let num_values = outer.len() * num_out * inner;
    let (first, weights) = (upload(&x.client, &axis.first), upload(&x.client, &axis.weights));
    launch(
        &x.client,
        &resample::BASE,
        num_values.div_ceil(resample::WG as usize),
        &resample::Params {
            num_values: num_values as u32,
            num_in: num_in as u32,
            num_out: num_out as u32,
            inner: inner as u32,
            num_taps: axis.num_taps as u32,
            first_outer: outer.start as u32,
        },
        &[&x.handle, &first, &weights, &out.handle],
    );
    out
}
