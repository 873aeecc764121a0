//! Mean or maximum of the features of a segment: the points of a voxel, the voxels of a cell.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::radix_sort::radix_sort;
use super::run::Operands;
use super::{
    OpError, ShapeCheck, as_i32, host_tensor, limits_of, plain, plain_int, run, run_twin, run_wgsl, with_gradient,
};
use crate::gpu::shaders::segment_reduce::segment_reduce as shader;
use crate::gpu::{check_binding, empty_f32, i32_tensor, launch};

/// How the rows of a segment become one, channel by channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean.
    Mean,
    /// The largest value.
    Max,
}

/// Mean or maximum of the rows of `features [N, C]` in every segment.
///
/// Segment `s` holds the points `point_from_sorted[offsets[s]..offsets[s + 1]]`; `offsets` is
/// `[S + 1]`, `point_from_sorted` `[N]`. For a mean the rows are added in that order, in f32, so
/// that the result `[S, C]` does not depend on the device's scheduling. Empty segments give NaN for a mean
/// and the lowest finite f32 for a maximum; a [`VoxelGrid`](super::voxel_grid::VoxelGrid) has none.
///
/// The gradient flows to `features`, for which `point_from_sorted` must name every point once; that of a maximum goes
/// to the first of equal rows in the order of the segment.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] where `offsets` is empty;
/// [`OpError::TooLarge`] where the features or the result do not fit one buffer: pass fewer channels.
pub fn segment_reduce(
    features: Tensor<2>,
    point_from_sorted: Tensor<1, Int>,
    offsets: Tensor<1, Int>,
    reduction: Reduction,
) -> Result<Tensor<2>, OpError> {
    let mut shapes = ShapeCheck::new("segment_reduce");
    shapes.check("features", features.dims(), ["N".into(), "C".into()])?;
    shapes.check("point_from_sorted", point_from_sorted.dims(), ["N".into()])?;
    let [num_offsets] = offsets.dims();
    if num_offsets == 0 {
        return Err(shapes.value("offsets is empty, expected one more than there are segments"));
    }
    let [num_points, num_channels] = features.dims();
    let limits = limits_of(&features.device());
    check_binding(limits, "segment_reduce: features", num_points, num_channels * 4)?;
    check_binding(limits, "segment_reduce: reduced", num_offsets - 1, num_channels * 4)?;
    if num_offsets == 1 || num_channels == 0 {
        return Ok(Tensor::zeros([num_offsets - 1, num_channels], &features.device()));
    }
    let (order, offsets) = (plain_int(point_from_sorted), plain_int(offsets));
    let plain_features = plain(features.clone());
    let reduced = reduce(plain_features.clone(), order.clone(), offsets.clone(), reduction);
    let maximum = (reduction == Reduction::Max).then(|| [plain_features, reduced.clone()]);
    Ok(with_gradient((features,), reduced, move |grad, [wants]| {
        (wants.then(|| reduce_grad(grad, order, offsets, maximum)),)
    }))
}

/// [`segment_reduce`] of plain tensors that were checked.
pub(crate) fn reduce(
    features: Tensor<2>,
    point_from_sorted: Tensor<1, Int>,
    offsets: Tensor<1, Int>,
    reduction: Reduction,
) -> Tensor<2> {
    let (num_channels, num_segments) = (features.dims()[1], offsets.dims()[0] - 1);
    run(
        (features, point_from_sorted, offsets),
        |(features, order, offsets)| reduce_wgsl(&features, &order, &offsets, reduction),
        |(features, order, offsets)| {
            let reduced = cpu::segment_reduce(&features, num_channels, &order, &offsets, reduction);
            host_tensor(reduced, [num_segments, num_channels])
        },
    )
}

fn reduce_wgsl(features: &CubeTensor, order: &CubeTensor, offsets: &CubeTensor, reduction: Reduction) -> CubeTensor {
    let ([num_points, num_channels], num_segments) = (features.shape().dims(), offsets.shape()[0] - 1);
    let reduced = empty_f32(features, [num_segments, num_channels]);
    launch(
        &features.client,
        match reduction {
            Reduction::Mean => &shader::BASE,
            Reduction::Max => &shader::MAX,
        },
        (num_segments * num_channels).div_ceil(shader::WG as usize),
        &shader::Params {
            num_points: num_points as u32,
            num_sorted: order.shape()[0] as u32,
            num_segments: num_segments as u32,
            num_channels: num_channels as u32,
        },
        &[&features.handle, &order.handle, &offsets.handle, &reduced.handle],
    );
    reduced
}

/// Gradient of the features, `[N, C]`, from that of the result, `[S, C]`. It is that of the maximum where `maximum` is
/// given, the features and the result, else that of the mean.
fn reduce_grad(
    grad_out: Tensor<2>,
    order: Tensor<1, Int>,
    offsets: Tensor<1, Int>,
    maximum: Option<[Tensor<2>; 2]>,
) -> Tensor<2> {
    let ([num_points], [num_segments, num_channels]) = (order.dims(), grad_out.dims());
    if grad_out.is_on_host() {
        let features = maximum.map(|[features, _]| features);
        return run_twin((grad_out, order, offsets, features), |(grad_out, order, offsets, features)| {
            let grad = cpu::segment_reduce_grad(&grad_out, num_channels, &order, &offsets, features.as_deref());
            host_tensor(grad, [num_points, num_channels])
        });
    }
    let starts = offsets.clone().slice(0..num_segments);
    let ends = offsets.clone().slice(1..num_segments + 1);
    let place = as_i32(Tensor::<1, Int>::arange(0..num_points as i64, &grad_out.device()));

    // The last segment that does not begin behind a place, bit by bit.
    let mut segment = place.zeros_like();
    for bit in (0..usize::BITS - (num_segments - 1).leading_zeros()).rev() {
        let next = segment.clone().add_scalar(1_i32 << bit);
        let start = starts.clone().select(0, next.clone().clamp_max(num_segments as i32 - 1));
        let begins = start.lower_equal(place.clone()).bool_and(next.clone().lower_elem(num_segments as i32));
        segment = segment.mask_where(begins, next);
    }
    let start = starts.clone().select(0, segment.clone());
    let end = ends.select(0, segment.clone());
    let is_outside = place.clone().lower(start.clone()).bool_or(place.clone().greater_equal(end.clone()));
    let wide = |x: Tensor<1, Int>| x.unsqueeze_dim::<2>(1).expand([num_points, num_channels]);
    let grad = grad_out.select(0, segment.clone());
    let grad = match maximum {
        None => grad / wide(end - start).float(),
        Some([features, reduced]) => {
            let point = order.clone().clamp(0, num_points as i32 - 1);
            let is_largest = features.select(0, point).equal(reduced.select(0, segment.clone()));
            // The first of the largest rows is the one whose distance from the segment's start, negated, is largest.
            let nearness = wide(start - place.clone()).float();
            let nearness = nearness.mask_fill(is_largest.clone().bool_not(), f32::MIN);
            let first = reduce(nearness.clone(), place, offsets, Reduction::Max).select(0, segment);
            grad.mask_fill(is_largest.bool_and(nearness.equal(first)).bool_not(), 0.0)
        }
    };
    let is_outside = is_outside.unsqueeze_dim::<2>(1).expand([num_points, num_channels]);
    let grad = grad.mask_fill(is_outside, 0.0);

    // The order that sorts a permutation is its inverse.
    let inverse: Tensor<1, Int> = run_wgsl(order, |order| {
        let bits = usize::BITS - num_points.saturating_sub(1).leading_zeros();
        i32_tensor(&order, radix_sort(&order.client, &order.handle, num_points, &[bits]), num_points)
    });
    grad.select(0, inverse)
}
