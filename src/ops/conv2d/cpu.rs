//! Host twin of the convolution: a matrix product over the taps that lie inside the image.

use super::Geometry;
use crate::ops::gemm::{Activation, Panels, Product};

/// `x [B, H, W, in]` and a packed weight `[k · k · in, out]` → `[B, H', W', out]`, flat.
pub(crate) fn forward(x: &[f32], panels: Panels<'_>, bias: &[f32], geometry: Geometry, act: Activation) -> Vec<f32> {
    let Geometry { batch, height, width, num_in, num_out, kernel, stride, padding } = geometry;
    let [out_height, out_width] = geometry.out_size();
    let product = Product {
        x,
        panels,
        bias: Some(bias),
        activation: act,
        num_taps: kernel * kernel,
        num_in,
        num_out,
        src: |row: usize, tap: usize| {
            let (image, row) = (row / (out_height * out_width), row % (out_height * out_width));
            let y = (row / out_width * stride + tap / kernel).checked_sub(padding).filter(|&y| y < height)?;
            let x = (row % out_width * stride + tap % kernel).checked_sub(padding).filter(|&x| x < width)?;
            Some(((image * height + y) * width + x) * num_in)
        },
    };
    product.run(batch * out_height * out_width)
}
