//! Mean or maximum of the features of a segment: the points of a voxel, the voxels of a cell.

pub mod cpu;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain, plain_int};
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
#[backend_extension(Cube, Flex)]
pub trait SegmentReduceBackend: Backend {
    /// See [`segment_reduce`].
    fn segment_reduce(
        features: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
        reduction: Reduction,
    ) -> FloatTensor<Self>;
}

/// Mean or maximum of the rows of `features [N, C]` in every segment.
///
/// Segment `s` holds the points `point_from_sorted[offsets[s]..offsets[s + 1]]`; `offsets` is
/// `[S + 1]`, `point_from_sorted` `[N]`. For a mean the rows are added in that order, in f32, so
/// that the result `[S, C]` does not depend on the device's scheduling. Empty segments give NaN for a mean
/// and the lowest finite f32 for a maximum; a [`VoxelGrid`](super::voxel_grid::VoxelGrid) has none.
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
        plain(features).into_dispatch(),
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
