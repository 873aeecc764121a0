//! Mean of point features per voxel, and back to points.

pub mod cpu;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain, plain_int};
use crate::gpu::shaders::segment_mean::segment_mean as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// Backend side of [`segment_mean`]; preconditions are checked there.
#[backend_extension(Cube, Flex)]
pub trait SegmentMeanBackend: Backend {
    /// See [`segment_mean`].
    fn segment_mean(
        features: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// Mean of the rows of `features [N, C]` in every segment.
///
/// Segment `s` holds the points `point_from_sorted[offsets[s]..offsets[s + 1]]`; `offsets` is
/// `[S + 1]`, `point_from_sorted` `[N]`. The rows are added in that order, in f32, so that the result
/// `[S, C]` does not depend on the device's scheduling. Empty segments give NaN; a
/// [`VoxelGrid`](super::voxel_grid::VoxelGrid) has none.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] where `offsets` is empty;
/// [`OpError::TooLarge`] where the features or the means do not fit one buffer: pass fewer channels.
pub fn segment_mean(
    features: Tensor<2>,
    point_from_sorted: Tensor<1, Int>,
    offsets: Tensor<1, Int>,
) -> Result<Tensor<2>, OpError> {
    let mut shapes = ShapeCheck::new("segment_mean");
    shapes.check("features", features.dims(), ["N".into(), "C".into()])?;
    shapes.check("point_from_sorted", point_from_sorted.dims(), ["N".into()])?;
    let [num_offsets] = offsets.dims();
    if num_offsets == 0 {
        return Err(shapes.value("offsets is empty, expected one more than there are segments"));
    }
    let [num_points, num_channels] = features.dims();
    let limits = limits_of(&features.device());
    check_binding(limits, "segment_mean: features", num_points, num_channels * 4)?;
    check_binding(limits, "segment_mean: means", num_offsets - 1, num_channels * 4)?;
    if num_offsets == 1 || num_channels == 0 {
        return Ok(Tensor::zeros([num_offsets - 1, num_channels], &features.device()));
    }
    Ok(Tensor::from_dispatch(Dispatch::segment_mean(
        plain(features).into_dispatch(),
        plain_int(point_from_sorted).into_dispatch(),
        plain_int(offsets).into_dispatch(),
    )))
}

impl SegmentMeanBackend for CubeBackend {
    fn segment_mean(
        features: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let (features, order, offsets) =
            (into_contiguous(features), into_contiguous(point_from_sorted), into_contiguous(offsets));
        let (num_segments, num_channels) = (offsets.shape()[0] - 1, features.shape()[1]);
        let means = empty_f32(&features, [num_segments, num_channels]);
        launch(
            &features.client,
            &shader::BASE,
            (num_segments * num_channels).div_ceil(shader::WG as usize),
            &shader::Params { num_segments: num_segments as u32, num_channels: num_channels as u32 },
            &[&features.handle, &order.handle, &offsets.handle, &means.handle],
        );
        means
    }
}

impl SegmentMeanBackend for Flex {
    fn segment_mean(
        features: FloatTensor<Self>,
        point_from_sorted: IntTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let num_channels = features.shape()[1];
        let (features, order, offsets) = (Host::new(features), Host::new(point_from_sorted), Host::new(offsets));
        let means = cpu::segment_mean(&features, num_channels, &order, &offsets);
        host_tensor(means, [offsets.len() - 1, num_channels])
    }
}
