//! Host twin of the convolution: a matrix product over the taps that lie inside the image, and its gradients.

use pulp::Arch;
use rayon::prelude::*;

use super::Geometry;
use crate::ops::gemm::{Activation, Panels, Product, panel_width};
use crate::ops::math;
use crate::ops::sparse_conv::cpu::{Dims, GradWeight};

/// Pixels of the result that one task of the weight's gradient sums over, on the way to [`MAX_CHUNKS`].
const CHUNK_ROWS: usize = 2048;
/// Most partial sums of a weight's gradient.
const MAX_CHUNKS: usize = 16;
/// With fewer input channels, the taps of a pixel are copied together before their gradient is summed.
const FEW_CHANNELS: usize = 16;
/// Values of one task of an elementwise function.
const TASK_VALUES: usize = 1 << 14;
/// Rows of one partial sum of a bias's gradient.
const BIAS_ROWS: usize = 512;

/// `x [B, H, W, in]` and a packed weight `[k · k · in, out]` → `[B, H', W', out]`, flat.
pub(crate) fn forward(x: &[f32], panels: Panels<'_>, bias: &[f32], geometry: Geometry, act: Activation) -> Vec<f32> {
    let Geometry { batch, num_in, num_out, kernel, .. } = geometry;
    let [out_height, out_width] = geometry.out_size();
    let product = Product {
        x,
        panels,
        bias: Some(bias),
        activation: act,
        num_taps: kernel * kernel,
        num_in,
        num_out,
        src: |row: usize, tap: usize| Some(source(geometry, [out_height, out_width], row, tap)? * num_in),
    };
    product.run(batch * out_height * out_width)
}

/// The pixel of `x` that a tap reads for pixel `row` of the result; none outside the image.
#[inline(always)]
fn source(geometry: Geometry, [out_height, out_width]: [usize; 2], row: usize, tap: usize) -> Option<usize> {
    let Geometry { height, width, kernel, stride, padding, .. } = geometry;
    let (image, row) = (row / (out_height * out_width), row % (out_height * out_width));
    let y = (row / out_width * stride + tap / kernel).checked_sub(padding).filter(|&y| y < height)?;
    let x = (row % out_width * stride + tap % kernel).checked_sub(padding).filter(|&x| x < width)?;
    Some((image * height + y) * width + x)
}

/// The pixel of the result that reads pixel `row` of `x` through a tap, if one does.
#[inline(always)]
fn destination(geometry: Geometry, [out_height, out_width]: [usize; 2], row: usize, tap: usize) -> Option<usize> {
    let Geometry { height, width, kernel, stride, padding, .. } = geometry;
    let (image, row) = (row / (height * width), row % (height * width));
    let along = |at: usize, tap: usize, size: usize| {
        let place = (at + padding).checked_sub(tap)?;
        (place.is_multiple_of(stride) && place / stride < size).then_some(place / stride)
    };
    let y = along(row / width, tap / kernel, out_height)?;
    let x = along(row % width, tap % kernel, out_width)?;
    Some((image * out_height + y) * out_width + x)
}

/// Gradient of `x`: every pixel gathers from the pixels of the result that read it, times the transposed weight.
pub(crate) fn grad_x(grad_out: &[f32], panels: &[f32], geometry: Geometry) -> Vec<f32> {
    let Geometry { batch, height, width, num_in, num_out, kernel, .. } = geometry;
    let out_size = geometry.out_size();
    let panels = transposed(panels, [kernel * kernel, num_in, num_out], panel_width());
    let product = Product {
        x: grad_out,
        panels: Panels::F32(&panels),
        bias: None,
        activation: Activation::None,
        num_taps: kernel * kernel,
        num_in: num_out,
        num_out: num_in,
        src: |row: usize, tap: usize| Some(destination(geometry, out_size, row, tap)? * num_out),
    };
    product.run(batch * height * width)
}

/// The panels of `[taps · in, out]` as those of `[taps · out, in]`: square tiles trade places and are transposed.
fn transposed(panels: &[f32], [num_taps, num_in, num_out]: [usize; 3], width: usize) -> Vec<f32> {
    let (depth_in, depth_out) = (num_taps * num_in, num_taps * num_out);
    let mut result = vec![0.0; num_in.div_ceil(width) * depth_out * width];
    result.par_chunks_mut(depth_out * width).enumerate().for_each(|(to_panel, values)| {
        let first_in = to_panel * width;
        let columns = width.min(num_in - first_in);
        for tap in 0..num_taps {
            for (from_panel, panel) in panels.chunks_exact(depth_in * width).enumerate() {
                let first_out = from_panel * width;
                let rows = width.min(num_out - first_out);
                let from = &panel[(tap * num_in + first_in) * width..][..columns * width];
                let to = &mut values[(tap * num_out + first_out) * width..][..rows * width];
                for (row, to) in to.chunks_exact_mut(width).enumerate() {
                    for (to, from) in to.iter_mut().zip(from.chunks_exact(width)) {
                        *to = from[row];
                    }
                }
            }
        }
    });
    result
}

/// Panels `[P, depth, width]` as rows `[out, depth]`.
pub(crate) fn unpack_rows(panels: &[f32], [num_out, depth]: [usize; 2], width: usize) -> Vec<f32> {
    let mut rows = vec![0.0; num_out * depth];
    rows.par_chunks_mut((width * depth).max(1)).zip(panels.par_chunks((width * depth).max(1))).for_each(
        |(rows, panel)| {
            for (column, row) in rows.chunks_exact_mut(depth).enumerate() {
                for (to, from) in row.iter_mut().zip(panel.chunks_exact(width)) {
                    *to = from[column];
                }
            }
        },
    );
    rows
}

/// Gradient of the panels: for every tap, the transposed pixels it reads times the gradient. Stretches of pixels are
/// summed side by side, then one after the other.
pub(crate) fn grad_panels(x: &[f32], grad_out: &[f32], geometry: Geometry) -> Vec<f32> {
    let Geometry { num_in, num_out, kernel, .. } = geometry;
    let (area, out_size) = (kernel * kernel, geometry.out_size());
    let num_rows = grad_out.len() / num_out;
    let grad = if area > 1 && num_in < FEW_CHANNELS {
        let columns = columns(x, num_rows, geometry);
        grad_taps(&columns, grad_out, num_rows, [1, area * num_in, num_out], |row, _| Some(row))
    } else {
        let src = |row: usize, tap: usize| source(geometry, out_size, row, tap);
        grad_taps(x, grad_out, num_rows, [area, num_in, num_out], src)
    };
    let (width, depth) = (panel_width(), area * num_in);
    let mut panels = vec![0.0; num_out.div_ceil(width) * depth * width];
    panels.par_chunks_mut(depth * width).enumerate().for_each(|(panel, values)| {
        let first = panel * width;
        let present = width.min(num_out - first);
        for (to, from) in values.chunks_exact_mut(width).zip(grad.chunks_exact(num_out)) {
            to[..present].copy_from_slice(&from[first..first + present]);
        }
    });
    panels
}

/// The values every pixel of the result is made of, `[rows, k · k · in]`.
fn columns(x: &[f32], num_rows: usize, geometry: Geometry) -> Vec<f32> {
    let Geometry { num_in, kernel, .. } = geometry;
    let (area, out_size) = (kernel * kernel, geometry.out_size());
    let mut columns = vec![0.0; num_rows * area * num_in];
    columns.par_chunks_mut(area * num_in).enumerate().for_each(|(row, values)| {
        for (tap, values) in values.chunks_exact_mut(num_in).enumerate() {
            if let Some(pixel) = source(geometry, out_size, row, tap) {
                values.copy_from_slice(&x[pixel * num_in..][..num_in]);
            }
        }
    });
    columns
}

/// Σ over rows of x\[src(row, tap)\]ᵀ · grad_out\[row\], `[taps, in, out]`.
fn grad_taps(
    x: &[f32],
    grad_out: &[f32],
    num_rows: usize,
    [num_taps, num_in, num_out]: [usize; 3],
    src: impl Fn(usize, usize) -> Option<usize> + Sync,
) -> Vec<f32> {
    let arch = Arch::new();
    let dims = Dims { kernel_volume: num_taps, num_in, num_out };
    let (num_chunks, matrix) = (num_rows.div_ceil(CHUNK_ROWS).clamp(1, MAX_CHUNKS), num_in * num_out);
    let chunk_rows = num_rows.div_ceil(num_chunks);
    let mut partial = vec![0.0; num_chunks * num_taps * matrix];
    partial.par_chunks_mut(matrix).enumerate().for_each(|(task, grad)| {
        let (chunk, tap) = (task / num_taps, task % num_taps);
        let rows = chunk * chunk_rows..num_rows.min((chunk + 1) * chunk_rows);
        let pairs: Vec<_> = rows.filter_map(|row| Some((row, src(row, tap)?))).collect();
        arch.dispatch(GradWeight { x, grad_out, pairs: &pairs, first_in: 0, grad, dims });
    });
    let (total, rest) = partial.split_at_mut(num_taps * matrix);
    total.par_chunks_mut(TASK_VALUES).enumerate().for_each(|(task, total)| {
        for partial in rest.chunks_exact(num_taps * matrix) {
            let partial = &partial[task * TASK_VALUES..][..total.len()];
            total.iter_mut().zip(partial).for_each(|(total, partial)| *total += partial);
        }
    });
    partial.truncate(num_taps * matrix);
    partial
}

/// Sums of the columns of `grad_out [rows, out]`.
pub(crate) fn grad_bias(grad_out: &[f32], num_out: usize) -> Vec<f32> {
    let mut total = vec![0.0; num_out];
    let add = |total: &mut Vec<f32>, row: &[f32]| total.iter_mut().zip(row).for_each(|(total, x)| *total += x);
    let sums = grad_out.par_chunks(BIAS_ROWS * num_out).map(|rows| {
        let mut sum = vec![0.0; num_out];
        rows.chunks_exact(num_out).for_each(|row| add(&mut sum, row));
        sum
    });
    for sum in sums.collect::<Vec<_>>() {
        add(&mut total, &sum);
    }
    total
}

/// The activation of every value.
pub(crate) fn activate(x: &[f32], activation: Activation) -> Vec<f32> {
    match activation {
        Activation::None => x.to_vec(),
        Activation::Relu => map(
            x,
            x,
            #[inline(always)]
            |x, _| x.max(0.0),
        ),
        Activation::Gelu => map(
            x,
            x,
            #[inline(always)]
            |x, _| math::gelu(x),
        ),
        Activation::QuickGelu => map(
            x,
            x,
            #[inline(always)]
            |x, _| math::quick_gelu(x),
        ),
    }
}

/// `grad_out` times the derivative of the activation at `x`.
pub(crate) fn grad_activation(x: &[f32], grad_out: &[f32], activation: Activation) -> Vec<f32> {
    match activation {
        Activation::None => grad_out.to_vec(),
        Activation::Relu => map(
            x,
            grad_out,
            #[inline(always)]
            |x, grad| if x > 0.0 { grad } else { 0.0 },
        ),
        Activation::Gelu => map(
            x,
            grad_out,
            #[inline(always)]
            |x, grad| grad * math::gelu_slope(x),
        ),
        Activation::QuickGelu => map(
            x,
            grad_out,
            #[inline(always)]
            |x, grad| grad * math::quick_gelu_slope(x),
        ),
    }
}

/// f of every pair of values.
fn map(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let arch = Arch::new();
    let mut out = vec![0.0; x.len()];
    let tasks = out.par_chunks_mut(TASK_VALUES).zip(x.par_chunks(TASK_VALUES)).zip(y.par_chunks(TASK_VALUES));
    tasks.for_each(|((out, x), y)| {
        arch.dispatch(
            #[inline(always)]
            || {
                for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                    *out = f(*x, *y);
                }
            },
        );
    });
    out
}
