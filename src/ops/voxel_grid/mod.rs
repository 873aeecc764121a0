//! Points to integer voxels, and the grouping of points by voxel.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::prefix_sum::prefix_sum;
use super::radix_sort::radix_sort;
use super::{OpError, ShapeCheck, host_tensor, int_tensor, int_values, limits_of, plain_int, rows, run};
use crate::gpu::shaders::voxel_grid::{assign, encode, mark};
use crate::gpu::{check_binding, empty_i32, i32_tensor, launch, scalar_buffer};

pub use cpu::{QuantizeError, augmented, quantize, upright};

/// Coordinates are below 2^`COORDINATE_BITS`: three of them fill a 63-bit Morton code.
pub const COORDINATE_BITS: u32 = 21;

/// In which order voxels are numbered, within a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VoxelOrder {
    /// By Morton code, x in the lowest bit: neighbours in space are near in memory.
    #[default]
    Morton,
    /// By x, then y, then z.
    Lexicographic,
}

/// Distinct voxels and which points they hold, see [`voxel_grid`].
#[derive(Clone, Debug)]
pub struct VoxelGrid {
    /// `[V, 4]` (batch, x, y, z), ordered by batch, then as [`VoxelOrder`] says.
    pub coords: Tensor<2, Int>,
    /// `[N]`, the voxel of every point.
    pub voxel_from_point: Tensor<1, Int>,
    /// `[N]`, points grouped by voxel, ascending inside each.
    pub point_from_sorted: Tensor<1, Int>,
    /// `[V + 1]`, where each voxel's points start in `point_from_sorted`.
    pub offsets: Tensor<1, Int>,
}

impl VoxelGrid {
    /// Number of voxels.
    #[must_use]
    pub fn num_voxels(&self) -> usize {
        self.coords.dims()[0]
    }
}

/// Groups points by voxel: `coords [N, 4]` (batch, x, y, z) may repeat, the result's do not.
///
/// The order of the voxels is that of their Morton codes within a batch, so that neighbours in space
/// are near in memory; it depends on the coordinates alone, not on the order of the points.
///
/// # Errors
/// [`OpError::Shape`] where `coords` is not `[N, 4]`, [`OpError::Value`] where a coordinate is
/// negative or not below 2²¹, [`OpError::TooLarge`] where `coords` does not fit one buffer,
/// [`OpError::Device`] where the device failed.
pub fn voxel_grid(coords: Tensor<2, Int>) -> Result<VoxelGrid, OpError> {
    voxel_grid_in(VoxelOrder::Morton, coords)
}

/// As [`voxel_grid`], with the voxels in this order.
///
/// # Errors
/// As [`voxel_grid`].
pub fn voxel_grid_in(order: VoxelOrder, coords: Tensor<2, Int>) -> Result<VoxelGrid, OpError> {
    let mut shapes = ShapeCheck::new("voxel_grid");
    shapes.check("coords", coords.dims(), ["N".into(), 4.into()])?;
    let coords = plain_int(coords);
    let [num_points, _] = coords.dims();
    check_binding(limits_of(&coords.device()), "voxel_grid: coords", num_points, 16)?;
    if num_points == 0 {
        let device = coords.device();
        let none = int_tensor(Vec::new(), [0], &device);
        return Ok(VoxelGrid {
            coords,
            voxel_from_point: none.clone(),
            point_from_sorted: none,
            offsets: int_tensor(vec![0], [1], &device),
        });
    }
    let least = int_values(coords.clone().min_dim(0))?;
    let most = int_values(coords.clone().max_dim(0))?;
    let bits = |value: &i32| i32::BITS - value.leading_zeros();
    let coordinate_bits = most[1..].iter().map(bits).max().unwrap_or(0);
    if least.iter().any(|v| *v < 0) || coordinate_bits > COORDINATE_BITS {
        return Err(
            shapes.value(format!("coordinates span {least:?} to {most:?}, expected 0 to 2^{COORDINATE_BITS} - 1"))
        );
    }
    let (voxels, [voxel_from_point, point_from_sorted], [offsets, num_voxels]): Grouped<Tensor<2, Int>, _> = run(
        coords,
        |coords| voxel_grid_wgsl(&coords, order, coordinate_bits, bits(&most[0])),
        |coords| {
            let grid = cpu::voxel_grid_in(order, rows(&coords));
            let num_voxels = grid.coords.len();
            (
                host_tensor(grid.coords.into_flattened(), [num_voxels, 4]),
                [host_tensor(grid.voxel_from_point, [num_points]), host_tensor(grid.point_from_sorted, [num_points])],
                [host_tensor(grid.offsets, [num_voxels + 1]), host_tensor(vec![num_voxels as i32], [1])],
            )
        },
    );
    let num_voxels = int_values::<1>(num_voxels)?[0] as usize;
    Ok(VoxelGrid {
        coords: voxels.narrow(0, 0, num_voxels),
        voxel_from_point,
        point_from_sorted,
        offsets: offsets.narrow(0, 0, num_voxels + 1),
    })
}

/// Voxels `[≥ V, 4]`; voxel_from_point and point_from_sorted `[N]`; offsets `[≥ V + 1]` and V `[1]`. What lies past V is
/// undefined.
type Grouped<T2, T1> = (T2, [T1; 2], [T1; 2]);

fn voxel_grid_wgsl(
    coords: &CubeTensor,
    order: VoxelOrder,
    coordinate_bits: u32,
    batch_bits: u32,
) -> Grouped<CubeTensor, CubeTensor> {
    let client = &coords.client;
    let n = coords.shape()[0];
    let groups = n.div_ceil(encode::WG as usize);
    let num_points = n as u32;

    let code_bits = 3 * coordinate_bits;
    let (encoder, word_bits) = match order {
        VoxelOrder::Morton => (&encode::BASE, vec![code_bits.min(32), code_bits.saturating_sub(32), batch_bits]),
        VoxelOrder::Lexicographic => {
            (&encode::LEXICOGRAPHIC, vec![coordinate_bits, coordinate_bits, coordinate_bits, batch_bits])
        }
    };
    let keys = scalar_buffer(client, n * word_bits.len());
    launch(client, encoder, groups, &encode::Params { num_points }, &[&coords.handle, &keys]);
    let order = radix_sort(client, &keys, n, &word_bits);

    let is_first = scalar_buffer(client, n);
    launch(client, &mark::BASE, groups, &mark::Params { num_points }, &[&coords.handle, &order, &is_first]);
    let num_before = prefix_sum(client, &is_first, n);

    let voxels = empty_i32(coords, [n, 4]);
    let voxel_from_point = empty_i32(coords, [n]);
    let offsets = empty_i32(coords, [n + 1]);
    launch(
        client,
        &assign::BASE,
        groups,
        &assign::Params { num_points },
        &[&coords.handle, &order, &num_before, &voxel_from_point.handle, &voxels.handle, &offsets.handle],
    );
    let num_voxels = i32_tensor(coords, num_before.offset_start(n as u64 * 4), 1);
    let point_from_sorted = i32_tensor(coords, order, n);
    (voxels, [voxel_from_point, point_from_sorted], [offsets, num_voxels])
}
