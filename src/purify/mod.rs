//! Geometric purification: point features in, features cleaned by the student's affinities out.
//!
//! Voxel means → student embedding → K nearest voxels → affinity matrix A → A applied again and again. What weighs the
//! neighbours may also be something simpler than the student, to compare with ([`Affinities`]).
//!
//! A scene of any size goes through in pieces that fit the device: the means and the pooling in blocks
//! of channels (channels do not mix), the student in spatial tiles with a halo as wide as it sees, the
//! neighbours and the rows of A in runs of voxels. None of this approximates: a tiled scene equals the
//! untiled one to rounding. What is kept whole lives on the host: one `[V, C + 6]` matrix, whose first C
//! columns the pooled features overwrite, and the embedding.

mod affinities;
mod columns;
mod embedding;
mod error;
mod geometry;
mod graph;
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
pub use settings::Settings;
use settings::check_scan;
pub use source::{FeatureSource, FileFeatures, MemoryFeatures};
pub use tiles::{Tile, tiles};
use voxels::voxelized;
pub use voxels::{Voxelized, voxel_means};

/// A scan, point by point.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    /// Positions in the scan's unit; every one finite.
    pub positions: &'a [[f64; 3]],
    /// Colours 0..=255; grey (0.5) where a scan has none.
    pub colors: Option<&'a [[u8; 3]]>,
    /// Unit normals; estimated where a scan has none.
    pub normals: Option<&'a [[f32; 3]]>,
}

/// Purified features.
#[derive(Clone, Debug)]
pub struct Purified {
    /// `[V, C]`, row-major.
    pub features: Vec<f32>,
    /// C.
    pub num_channels: usize,
    /// Edge of a voxel, in the scan's unit.
    pub voxel_size: f64,
    /// `[V]` integer voxel coordinates, from the smallest voxel of the scan on, in Morton order.
    pub coords: Vec<[i32; 3]>,
    /// `[N]`, the voxel of every point.
    pub voxel_from_point: Vec<i32>,
    /// What was done and how long it took.
    pub report: Report,
}

/// What a run did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Number of points.
    pub num_points: usize,
    /// Number of voxels.
    pub num_voxels: usize,
    /// Spatial tiles the student ran in.
    pub num_tiles: usize,
    /// Largest |row sum of A − 1| over the voxels that have a neighbour.
    pub max_row_sum_error: f64,
    /// Things the user should know: what was missing and what was done about it.
    pub notes: Vec<String>,
    /// Times and bytes, in order.
    pub stages: Vec<Stage>,
}

/// Purifies `features [N, C]` of the points of `scan` by `affinities` on `device`.
///
/// # Errors
/// [`PurifyError`]; nothing is computed on input that does not fit together.
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
    let compared = match affinities {
        Affinities::Learned { config, .. } => config.embed_dim,
        Affinities::Uniform => 1,
        Affinities::ColorNormal(_) => GEOMETRY_CHANNELS,
    };
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
