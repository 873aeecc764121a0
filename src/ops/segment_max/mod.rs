//! Largest feature per cell, channel by channel.

pub mod cpu;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain, plain_int};
use crate::gpu::shaders::segment_max::segment_max as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// Backend side of [`segment_max`]; preconditions are checked there.
#[backend_extension(Cube, Flex)]
pub trait SegmentMaxBackend: Backend {
    /// See [`segment_max`].
    fn segment_max(
        features: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// The largest value of every channel among the rows of `features [N, C]` in every segment, `[S, C]`.
///
/// Segments are as for [`segment_mean`](super::segment_mean::segment_mean): segment `s` holds the points
/// `point_from_sorted[offsets[s]..offsets[s + 1]]`. Where a segment is empty, the result is the lowest finite
/// f32; a [`VoxelGrid`](super::voxel_grid::VoxelGrid) has none.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] where `offsets` is empty;
/// [`OpError::TooLarge`] where the features or the result do not fit one buffer.
pub fn segment_max(
    features: Tensor<2>,
    point_from_sorted: Tensor<1, Int>,
    offsets: Tensor<1, Int>,
) -> Result<Tensor<2>, OpError> {
    let mut shapes = ShapeCheck::new("segment_max");
    shapes.check("features", features.dims(), ["N".into(), "C".into()])?;
    shapes.check("point_from_sorted", point_from_sorted.dims(), ["N".into()])?;
    let [num_offsets] = offsets.dims();
    if num_offsets == 0 {
        return Err(shapes.value("offsets is empty, expected one more than there are segments"));
    }
    let [num_points, num_channels] = features.dims();
    let limits = limits_of(&features.device());
    check_binding(limits, "segment_max: features", num_points, num_channels * 4)?;
    check_binding(limits, "segment_max: out", num_offsets - 1, num_channels * 4)?;
    if num_offsets == 1 || num_channels == 0 {
        return Ok(Tensor::zeros([num_offsets - 1, num_channels], &features.device()));
    }
    Ok(Tensor::from_dispatch(Dispatch::segment_max(
        plain(features).into_dispatch(),
        plain_int(point_from_sorted).into_dispatch(),
        plain_int(offsets).into_dispatch(),
    )))
}

impl SegmentMaxBackend for CubeBackend {
    fn segment_max(
        features: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let (features, order, offsets) =
            (into_contiguous(features), into_contiguous(point_from_sorted), into_contiguous(offsets));
        let (num_segments, num_channels) = (offsets.shape()[0] - 1, features.shape()[1]);
        let largest = empty_f32(&features, [num_segments, num_channels]);
        launch(
            &features.client,
            &shader::BASE,
            (num_segments * num_channels).div_ceil(shader::WG as usize),
            &shader::Params { num_segments: num_segments as u32, num_channels: num_channels as u32 },
            &[&features.handle, &order.handle, &offsets.handle, &largest.handle],
        );
        largest
    }
}

impl SegmentMaxBackend for Flex {
    fn segment_max(
        features: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let num_channels = features.shape()[1];
        let (features, order, offsets) = (Host::new(features), Host::new(point_from_sorted), Host::new(offsets));
        let largest = cpu::segment_max(&features, num_channels, &order, &offsets);
        host_tensor(largest, [offsets.len() - 1, num_channels])
    }
}
