//! A scan and its features as voxels.

use burn::prelude::*;

use super::columns::{channel_block, scatter_columns};
use super::geometry::{GEOMETRY_CHANNELS, geometry_channels};
use super::settings::{Settings, check_scan};
use super::source::{FeatureSource, MemoryFeatures};
use super::{PurifyError, Scan};
use crate::gpu::check_binding;
use crate::ops::segment_reduce::{Reduction, segment_reduce};
use crate::ops::voxel_grid::{self, quantize, voxel_grid};
use crate::ops::{OpError, float_tensor, float_values, int_tensor, int_values, limits_of};
use crate::stages::StageTimer;

/// Scan as input of the student.
#[derive(Clone, Debug)]
pub struct Voxelized {
    /// `[V, C + 6]`: the means of semantic features, colour in 0..1, and normal.
    pub matrix: Vec<f32>,
    /// `[V]` coordinates, from the smallest voxel of the scan on, in Morton order.
    pub coords: Vec<[i32; 3]>,
    /// `[N]`: voxel index of every point.
    pub voxel_from_point: Vec<i32>,
}

/// Averages `scan` and its `features [N, C]` over voxels.
///
/// # Errors
/// [`PurifyError`] as [`purify`](super::purify()).
pub fn voxel_means(
    scan: &Scan<'_>,
    features: &dyn FeatureSource,
    settings: Settings,
    device: &Device,
    timer: &mut StageTimer<'_>,
) -> Result<Voxelized, PurifyError> {
    check_scan(scan, features, settings)?;
    voxelized(scan, features, settings, device, timer, &mut Vec::new())
}

pub(super) fn voxelized(
    scan: &Scan<'_>,
    features: &dyn FeatureSource,
    settings: Settings,
    device: &Device,
    timer: &mut StageTimer<'_>,
    notes: &mut Vec<String>,
) -> Result<Voxelized, PurifyError> {
    let limits = limits_of(device);
    let voxels = timer.run("voxel grid", |_| voxelize(scan.positions, &settings.voxels_per_unit(), device))?;
    let num_voxels = voxels.coords.len();
    check_binding(limits, "voxels", num_voxels, 12).map_err(OpError::from)?;
    timer.bytes("voxel grid", scan.positions.len() * (24 + 16 + 8) + num_voxels * 20);

    let width = features.num_channels() + GEOMETRY_CHANNELS;
    let mut matrix = vec![0.0_f32; num_voxels * width];
    timer.run("voxel means", |tick| {
        let geometry = MemoryFeatures { values: geometry_channels(scan, notes), num_channels: GEOMETRY_CHANNELS };
        let sources: [&dyn FeatureSource; 2] = [features, &geometry];
        let block = channel_block(limits, settings, features.num_points());
        let mut column = 0;
        for source in sources {
            let count = source.num_channels();
            for first in (0..count).step_by(block) {
                let channels = first..(first + block).min(count);
                let num = channels.len();
                let rows = float_tensor(source.read(channels)?, [source.num_points(), num], device);
                let (order, offsets) = (voxels.point_from_sorted.clone(), voxels.offsets.clone());
                let means = segment_reduce(rows, order, offsets, Reduction::Mean)?;
                scatter_columns(&mut matrix, width, column, &float_values(means)?, num);
                column += num;
                tick(column as f64 / width as f64);
            }
        }
        Ok::<_, PurifyError>(())
    })?;
    timer.bytes("voxel means", (features.num_points() + num_voxels) * width * 4);
    Ok(Voxelized { matrix, coords: voxels.coords, voxel_from_point: voxels.voxel_from_point })
}

/// Voxels of a scan.
struct Voxels {
    coords: Vec<[i32; 3]>,
    voxel_from_point: Vec<i32>,
    point_from_sorted: Tensor<1, Int>,
    offsets: Tensor<1, Int>,
}

/// Groups points into voxels under a linear map. The host re-centres and rounds down the coordinates in
/// f64, which no GPU language has. So every device gets the same partition. If there are more points than
/// the device can bind, the host groups them too.
fn voxelize(positions: &[[f64; 3]], voxels_per_unit: &[[f64; 3]; 3], device: &Device) -> Result<Voxels, PurifyError> {
    let (cells, _) = quantize(positions, voxels_per_unit)?;
    let coords: Vec<[i32; 4]> = cells.iter().map(|&[x, y, z]| [0, x, y, z]).collect();
    let without_batch = |coords: &[[i32; 4]]| coords.iter().map(|&[_, x, y, z]| [x, y, z]).collect();
    let limits = limits_of(device);
    if coords.len() <= limits.rows(16) {
        let grid = voxel_grid(int_tensor(coords.into_flattened(), [positions.len(), 4], device))?;
        return Ok(Voxels {
            coords: without_batch(int_values(grid.coords)?.as_chunks().0),
            voxel_from_point: int_values(grid.voxel_from_point)?,
            point_from_sorted: grid.point_from_sorted,
            offsets: grid.offsets,
        });
    }
    let grid = voxel_grid::cpu::voxel_grid(&coords);
    let on_device = |values: Vec<i32>| -> Result<Tensor<1, Int>, OpError> {
        check_binding(limits, "points", values.len(), 4)?;
        let len = values.len();
        Ok(int_tensor(values, [len], device))
    };
    Ok(Voxels {
        coords: without_batch(&grid.coords),
        voxel_from_point: grid.voxel_from_point,
        point_from_sorted: on_device(grid.point_from_sorted)?,
        offsets: on_device(grid.offsets)?,
    })
}
