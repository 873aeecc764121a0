use burn::prelude::*;

use super::{EPSILON, gelu};
use crate::models::ModelError;
use crate::models::layers::{Loader, Norm};
use crate::ops::OpError;
use crate::ops::conv2d::{Activation, PackedWeight, Precision, linear};
use crate::ops::segment_reduce::{Reduction, segment_reduce};
use crate::ops::voxel_grid::{VoxelOrder, voxel_grid_in};
use crate::weights::TensorSource;

/// Pooling between two stages: merges the voxels of each cell.
#[derive(Clone, Debug)]
pub struct GridPooling {
    proj: PackedWeight,
    norm: Norm,
    stride: usize,
}

/// Voxels of the next stage, the result of pooling.
#[derive(Clone, Debug)]
pub struct Pooled {
    /// `[M, C]` features.
    pub features: Tensor<2>,
    /// `[M, 4]` (batch, x, y, z), ascending.
    pub coords: Tensor<2, Int>,
    /// `[V]` index of the cell of every voxel.
    pub cell_from_voxel: Tensor<1, Int>,
}

impl GridPooling {
    /// Loads `{prefix}proj` and `{prefix}norm.0`, which map `num_in` to `num_out` channels. `stride` is the
    /// number of voxels of a cell along each axis.
    ///
    /// # Errors
    /// [`ModelError::Weights`], [`ModelError::Op`].
    pub fn load(
        source: &mut dyn TensorSource,
        prefix: &str,
        [num_in, num_out]: [usize; 2],
        stride: usize,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut loader = Loader::new(source, device, Precision::F32);
        let proj = loader.linear(&format!("{prefix}proj"), num_in, num_out)?;
        Ok(Self { proj, norm: loader.norm(&format!("{prefix}norm.0"), num_out, EPSILON)?, stride: stride.max(1) })
    }

    /// Pools `x [V, C]` of the voxels `coords [V, 4]`. `observe` receives `max`, the largest values before
    /// the norm.
    ///
    /// # Errors
    /// [`OpError`] if shapes disagree or a tensor does not fit the device.
    pub fn forward(
        &self,
        x: Tensor<2>,
        coords: &Tensor<2, Int>,
        observe: &mut dyn FnMut(&str, &Tensor<2>),
    ) -> Result<Pooled, OpError> {
        let batch = coords.clone().narrow(1, 0, 1);
        let cells = coords.clone().narrow(1, 1, 3) / self.stride as i32;
        let grid = voxel_grid_in(VoxelOrder::Lexicographic, Tensor::cat(vec![batch, cells], 1))?;
        let projected = linear(x, &self.proj, Activation::None)?;
        let largest = segment_reduce(projected, grid.point_from_sorted, grid.offsets, Reduction::Max)?;
        observe("max", &largest);
        Ok(Pooled {
            features: gelu(self.norm.layer(largest)?),
            coords: grid.coords,
            cell_from_voxel: grid.voxel_from_point,
        })
    }
}
