//! Transposed 2D convolution whose kernel is as wide as its stride: every pixel becomes a square of its own.
//!
//! It is a product of the pixels with all places of the kernel at once, and a rearrangement. Both parts are other
//! operations, so it has no kernel and no twin of its own.

use burn::prelude::*;

use super::conv2d::{Activation, PackedWeight, Precision, linear};
use super::{OpError, ShapeCheck, limits_of};
use crate::gpu::check_binding;

/// The weight of a transposed convolution in the order in which its device reads it, with its bias.
#[derive(Clone, Debug)]
pub struct TransposedWeight {
    /// A linear layer `in` → k · k · `out`.
    places: PackedWeight,
    num_in: usize,
    num_out: usize,
    kernel: usize,
}

impl TransposedWeight {
    /// Packs PyTorch's weight `[in, out, k, k]`, given flat, and its bias `[out]`.
    ///
    /// # Errors
    /// [`OpError::Value`] where the lengths are not those of the extents; [`OpError::TooLarge`] where the weight does not
    /// fit one buffer.
    pub fn new(
        weight: &[f32],
        bias: &[f32],
        [num_in, num_out, kernel]: [usize; 3],
        precision: Precision,
        device: &Device,
    ) -> Result<Self, OpError> {
        let area = kernel * kernel;
        if weight.len() != num_in * num_out * area || bias.len() != num_out {
            return Err(ShapeCheck::new("conv_transpose2d").value(format!(
                "a weight of {} and a bias of {} values, expected [{num_in}, {num_out}, {kernel}, {kernel}] and [{num_out}]",
                weight.len(),
                bias.len()
            )));
        }
        // The row of place p and output o is the column (o, p) of the weight.
        let mut rows = Vec::with_capacity(weight.len());
        for place in 0..area {
            for out in 0..num_out {
                rows.extend((0..num_in).map(|i| weight[(i * num_out + out) * area + place]));
            }
        }
        let bias = bias.repeat(area);
        let places = PackedWeight::new(&rows, Some(bias), [area * num_out, num_in, 1], precision, device)?;
        Ok(Self { places, num_in, num_out, kernel })
    }
}

/// out\[b, k y + i, k x + j\] = x\[b, y, x\] · weight\[i, j\] + bias: `x [B, H, W, in]` → `[B, k H, k W, out]`, channels
/// last, as PyTorch's `ConvTranspose2d` with stride k and no padding.
///
/// # Errors
/// [`OpError::Shape`] where `x` has not the weight's channels; [`OpError::TooLarge`] where `x` or the result does not fit
/// one buffer.
pub fn conv_transpose2d(x: Tensor<4>, weight: &TransposedWeight) -> Result<Tensor<4>, OpError> {
    let &TransposedWeight { num_in, num_out, kernel, .. } = weight;
    let shapes = &mut ShapeCheck::new("conv_transpose2d");
    shapes.check("x", x.dims(), ["B".into(), "H".into(), "W".into(), num_in.into()])?;
    let [batch, height, width, _] = x.dims();
    let (out_height, out_width) = (kernel * height, kernel * width);
    if batch * out_height * out_width * num_out == 0 {
        return Ok(Tensor::zeros([batch, out_height, out_width, num_out], &x.device()));
    }
    let limits = limits_of(&x.device());
    check_binding(limits, "conv_transpose2d: x", batch * height * width, num_in * 4)?;
    check_binding(limits, "conv_transpose2d: out", batch * out_height * out_width, num_out * 4)?;
    let squares = linear(x, &weight.places, Activation::None)?;
    let squares = squares.reshape([batch * height, width, kernel, kernel * num_out]);
    Ok(squares.swap_dims(1, 2).reshape([batch, out_height, out_width, num_out]))
}
