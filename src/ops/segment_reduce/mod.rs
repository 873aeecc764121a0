//! Mean or maximum of the features of a segment: the points of a voxel, the voxels of a cell.

pub mod cpu;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};

use super::radix_sort::radix_sort;
use super::{Host, OpError, ShapeCheck, as_i32, host_tensor, into_cube, into_cube_int, limits_of, plain_int};
use crate::gpu::shaders::segment_reduce::segment_reduce as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// What becomes of the rows of a segment, channel by channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean.
    Mean,
    /// The largest value.
    Max,
}

/// Backend side of [`segment_reduce`]; preconditions are checked there.
#[backend_extension(Cube, Flex, Autodiff)]
pub trait SegmentReduceBackend: Backend {
    /// See [`segment_reduce`].
    fn segment_reduce(
        features: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
        reduction: Reduction,
    ) -> FloatTensor<Self>;
}

/// The backward side of [`segment_reduce`].
pub trait SegmentReduceGradBackend: Backend {
    /// Gradient of the features, `[N, C]`, from that of the result, `[S, C]`: of the mean, or of the maximum where
    /// `maximum` is given, the features and the result.
    fn segment_reduce_grad(
        grad_out: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
        maximum: Option<[FloatTensor<Self>; 2]>,
    ) -> FloatTensor<Self>;
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
    Ok(Tensor::from_dispatch(Dispatch::segment_reduce(
        features.into_dispatch(),
        plain_int(point_from_sorted).into_dispatch(),
        plain_int(offsets).into_dispatch(),
        reduction,
    )))
}

impl SegmentReduceBackend for CubeBackend {
    fn segment_reduce(
        features: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
        reduction: Reduction,
    ) -> FloatTensor<Self> {
        let (features, order, offsets) =
            (into_contiguous(features), into_contiguous(point_from_sorted), into_contiguous(offsets));
        let (num_segments, num_channels) = (offsets.shape()[0] - 1, features.shape()[1]);
        let reduced = empty_f32(&features, [num_segments, num_channels]);
        launch(
            &features.client,
            match reduction {
                Reduction::Mean => &shader::BASE,
                Reduction::Max => &shader::MAX,
            },
            (num_segments * num_channels).div_ceil(shader::WG as usize),
            &shader::Params { num_segments: num_segments as u32, num_channels: num_channels as u32 },
            &[&features.handle, &order.handle, &offsets.handle, &reduced.handle],
        );
        reduced
    }
}

impl SegmentReduceBackend for Flex {
    fn segment_reduce(
        features: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
        reduction: Reduction,
    ) -> FloatTensor<Self> {
        let num_channels = features.shape()[1];
        let (features, order, offsets) = (Host::new(features), Host::new(point_from_sorted), Host::new(offsets));
        let reduced = cpu::segment_reduce(&features, num_channels, &order, &offsets, reduction);
        host_tensor(reduced, [offsets.len() - 1, num_channels])
    }
}

impl SegmentReduceGradBackend for CubeBackend {
    fn segment_reduce_grad(
        grad_out: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
        maximum: Option<[FloatTensor<Self>; 2]>,
    ) -> FloatTensor<Self> {
        let num_points = point_from_sorted.shape()[0];
        let grad_out = Tensor::<2>::from_primitive::<Self>(grad_out);
        let [num_segments, num_channels] = grad_out.dims();
        let order = into_contiguous(point_from_sorted);
        let offsets = Tensor::<1, Int>::from_primitive::<Self>(offsets);
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
            Some(maximum) => {
                let [features, reduced] = maximum.map(Tensor::<2>::from_primitive::<Self>);
                let order = Tensor::<1, Int>::from_primitive::<Self>(order.clone());
                let is_largest = features.select(0, order).equal(reduced.select(0, segment.clone()));
                // Of the largest rows the one that comes first: whose distance from the segment's start, negated, is
                // largest.
                let nearness = wide(start - place.clone()).float();
                let nearness = nearness.mask_fill(is_largest.clone().bool_not(), f32::MIN);
                let [of_rows, sorted] = [into_cube(nearness.clone()), into_cube_int(place)];
                let first = Self::segment_reduce(of_rows, sorted, into_cube_int(offsets), Reduction::Max);
                let first = Tensor::<2>::from_primitive::<Self>(first).select(0, segment);
                grad.mask_fill(is_largest.bool_and(nearness.equal(first)).bool_not(), 0.0)
            }
        };
        let is_outside = is_outside.unsqueeze_dim::<2>(1).expand([num_points, num_channels]);
        let grad = grad.mask_fill(is_outside, 0.0);

        // What sorts a permutation is its inverse.
        let bits = usize::BITS - num_points.saturating_sub(1).leading_zeros();
        let inverse = radix_sort(&order.client, &order.handle, num_points, &[bits]);
        let (client, device) = (order.client.clone(), order.device.clone());
        let inverse = CubeTensor::new_contiguous(client, device, Shape::from([num_points]), inverse, order.dtype);
        into_cube(grad.select(0, Tensor::from_primitive::<Self>(inverse)))
    }
}

impl SegmentReduceGradBackend for Flex {
    fn segment_reduce_grad(
        grad_out: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
        maximum: Option<[FloatTensor<Self>; 2]>,
    ) -> FloatTensor<Self> {
        let (num_points, num_channels) = (point_from_sorted.shape()[0], grad_out.shape()[1]);
        let (order, offsets) = (Host::new(point_from_sorted), Host::new(offsets));
        let features = maximum.map(|[features, _]| Host::<f32>::new(features));
        let grad = cpu::segment_reduce_grad(&Host::new(grad_out), num_channels, &order, &offsets, features.as_deref());
        host_tensor(grad, [num_points, num_channels])
    }
}

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct State<B: Backend> {
    point_from_sorted: IntTensor<B>,
    offsets: IntTensor<B>,
    /// The features and the result, for a maximum.
    maximum: Option<[FloatTensor<B>; 2]>,
}

#[derive(Debug)]
struct SegmentReduceBackward;

impl<B: SegmentReduceGradBackend> Backward<B, 1> for SegmentReduceBackward {
    type State = State<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [features] = ops.parents;
        let grad_out = grads.consume::<B>(&ops.node);
        if let Some(features) = features {
            let State { point_from_sorted, offsets, maximum } = ops.state;
            grads.register::<B>(features.id, B::segment_reduce_grad(grad_out, point_from_sorted, offsets, maximum));
        }
    }
}

impl<B: SegmentReduceBackend + SegmentReduceGradBackend, C: CheckpointStrategy> SegmentReduceBackend
    for Autodiff<B, C>
{
    fn segment_reduce(
        features: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
        reduction: Reduction,
    ) -> FloatTensor<Self> {
        let prep = SegmentReduceBackward.prepare::<C>([features.node()]).compute_bound().stateful();
        let features = features.into_primitive();
        let reduced = B::segment_reduce(features.clone(), point_from_sorted.clone(), offsets.clone(), reduction);
        match prep {
            OpsKind::Tracked(prep) => {
                let maximum = (reduction == Reduction::Max).then(|| [features, reduced.clone()]);
                prep.finish(State { point_from_sorted, offsets, maximum }, reduced)
            }
            OpsKind::UnTracked(prep) => prep.finish(reduced),
        }
    }
}
