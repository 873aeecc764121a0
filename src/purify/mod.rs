//! Geometric purification: cleans point features by the student's affinities.
//!
//! Voxel means → student embedding → K nearest voxels → affinity matrix A → A applied repeatedly. For
//! comparison, simpler weights can replace those of the student ([`Affinities`]).
//!
//! A scene of any size is processed in pieces that fit the device. Means and pooling run in blocks of
//! channels (channels do not mix). The student runs in spatial tiles with a halo as wide as its receptive
//! field. Neighbours and rows of A are computed in runs of voxels. None of this approximates: a tiled scene
//! equals the untiled one to rounding. Two matrices are kept whole, on the host: one `[V, C + 6]`, whose
//! first C columns the pooled features overwrite, and the embeddings.

mod affinities;
mod columns;
mod embedding;
mod error;
mod geometry;
mod graph;
mod saved;
mod settings;
mod source;
mod tiles;
mod voxels;

use burn::prelude::*;
use serde::Serialize;

use crate::ops::pooling::pooling;
use crate::ops::{OpError, float_tensor, float_values, limits_of};
use crate::stages::{Stage, StageTimer};

pub use affinities::{Affinities, ColorNormal};
use columns::{channel_block, gather_columns, narrow_rows, scatter_columns};
pub(crate) use embedding::Embedder;
pub use error::PurifyError;
pub use geometry::GEOMETRY_CHANNELS;
pub(crate) use geometry::{estimate_normals, geometry_channels};
pub use graph::Graph;
use graph::{basis, check, neighbor_parts};
use settings::check_scan;
pub use settings::{MOST_ITERATIONS, Settings};
pub use source::{FeatureSource, FileFeatures, MemoryFeatures};
pub use tiles::{Tile, tiles};
use voxels::voxelized;
pub use voxels::{Voxelized, voxel_means};

/// Scan with one position, colour and normal per point.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    /// Positions in the scan's unit; all must be finite.
    pub positions: &'a [[f64; 3]],
    /// Colours 0..=255; grey (0.5) is used if the scan has none.
    pub colors: Option<&'a [[u8; 3]]>,
    /// Unit normals; estimated if the scan has none.
    pub normals: Option<&'a [[f32; 3]]>,
}

/// Purified features.
#[derive(Clone, Debug)]
pub struct Purified {
    /// `[V, C]`, row-major.
    pub features: Vec<f32>,
    /// Number of channels, C.
    pub num_channels: usize,
    /// Edge of a voxel, in the scan's unit.
    pub voxel_size: f64,
    /// `[V]` integer voxel coordinates, relative to the smallest ones of the scan, in Morton order.
    pub coords: Vec<[i32; 3]>,
    /// `[N]`: voxel index of every point.
    pub voxel_from_point: Vec<i32>,
    /// Counts, notes and times of the run.
    pub report: Report,
}

/// Report of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Number of points.
    pub num_points: usize,
    /// Number of voxels.
    pub num_voxels: usize,
    /// Number of spatial tiles in which the student ran.
    pub num_tiles: usize,
    /// Largest |row sum of A − 1| over the voxels that have a neighbour.
    pub max_row_sum_error: f64,
    /// Notes for the user: missing inputs and how they were replaced.
    pub notes: Vec<String>,
    /// Times and bytes of the stages, in order.
    pub stages: Vec<Stage>,
}

/// Purifies `features [N, C]` of the points of `scan` by `affinities` on `device`.
///
/// # Errors
/// [`PurifyError`]. Inputs are checked before anything is computed.
pub fn purify(
    scan: Scan<'_>,
    features: &dyn FeatureSource,
    affinities: Affinities<'_>,
    settings: Settings,
    device: &Device,
    timer: &mut StageTimer<'_>,
) -> Result<Purified, PurifyError> {
    check_scan(&scan, features, settings)?;
    let num_channels = features.num_channels();
    check(affinities, num_channels, settings)?;
    let limits = limits_of(device);
    let first_stage = timer.stages().len();
    let mut notes = Vec::new();

    let mut voxelized = voxelized(&scan, features, settings, device, timer, &mut notes)?;
    let num_voxels = voxelized.coords.len();
    let (basis, num_tiles) = basis(affinities, &voxelized, num_channels, settings, device, timer)?;
    let parts =
        timer.run("neighbours", |tick| neighbor_parts(&voxelized.coords, settings.neighbors, limits, device, tick))?;
    timer.bytes("neighbours", num_voxels * (12 + 8 * settings.neighbors));

    let (matrix_a, max_row_sum_error) = timer.run("affinity", |_| basis.rows(parts, num_voxels, settings.sharpness))?;
    let compared = affinities.student().map_or(0, |(_, config)| config.embed_dim)
        + affinities.kernel().map_or(0, |_| GEOMETRY_CHANNELS);
    timer.bytes("affinity", num_voxels * (settings.neighbors * 8 + compared * 4));
    drop(basis);

    let width = num_channels + GEOMETRY_CHANNELS;
    let matrix = &mut voxelized.matrix;
    timer.run("pooling", |tick| {
        let block = channel_block(limits, settings, num_voxels);
        for first in (0..num_channels).step_by(block) {
            let channels = first..(first + block).min(num_channels);
            let x = gather_columns(matrix, width, first, channels.len());
            let x = float_tensor(x, [num_voxels, channels.len()], device);
            let pooled = float_values(pooling(x, &matrix_a, settings.iterations)?)?;
            scatter_columns(matrix, width, first, &pooled, channels.len());
            tick(channels.end as f64 / num_channels as f64);
        }
        Ok::<_, OpError>(())
    })?;
    timer.bytes("pooling", num_voxels * (settings.neighbors * 8 + num_channels * 8) * settings.iterations);

    let Voxelized { mut matrix, coords, voxel_from_point } = voxelized;
    narrow_rows(&mut matrix, width, num_channels);
    let report = Report {
        num_points: scan.positions.len(),
        num_voxels,
        num_tiles,
        max_row_sum_error,
        notes,
        stages: timer.stages()[first_stage..].to_vec(),
    };
    Ok(Purified { features: matrix, num_channels, voxel_size: settings.voxel_size, coords, voxel_from_point, report })
}
