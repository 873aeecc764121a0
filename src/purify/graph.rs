//! The neighbours of voxels and their weights.

use burn::prelude::*;

use super::PurifyError;
use super::affinities::{Affinities, Basis, Geometry};
use super::columns::channel_blocks;
use super::embedding::Embedder;
use super::geometry::GEOMETRY_CHANNELS;
use super::settings::{Settings, setting};
use super::voxels::Voxelized;
use crate::gpu::Limits;
use crate::ops::knn::{self, knn_voxels};
use crate::ops::pooling::AffinityRows;
use crate::ops::{OpError, int_tensor, limits_of};
use crate::stages::StageTimer;

/// Data from which A is computed, and the number of tiles in which the student ran.
pub(super) fn basis(
    affinities: Affinities<'_>,
    voxelized: &Voxelized,
    num_channels: usize,
    settings: Settings,
    device: &Device,
    timer: &mut StageTimer<'_>,
) -> Result<(Basis, usize), OpError> {
    let Voxelized { matrix, coords, .. } = voxelized;
    let (num_voxels, width) = (coords.len(), num_channels + GEOMETRY_CHANNELS);
    let geometry = affinities.kernel().map(|kernel| Geometry::new(kernel, matrix, width));
    let Some((student, config)) = affinities.student() else {
        return Ok((Basis { embedding: None, geometry }, 0));
    };
    let limits = limits_of(device);
    let embedder = Embedder { student, config, device };
    let tiles = embedder.tiles(coords, settings);
    let embedding = timer.run("student", |tick| embedder.embed(&tiles, matrix, coords, tick))?;
    timer.bytes("student", num_voxels * 4 * (width + config.hidden_dim * 26 + config.embed_dim));
    let embedding = channel_blocks(&embedding, config.embed_dim, limits, device);
    Ok((Basis { embedding: Some(embedding), geometry }, tiles.len()))
}

/// Neighbours `[R, K]` of all voxels, in runs as long as the device can bind.
pub(super) fn neighbor_parts(
    coords: &[[i32; 3]],
    neighbors: usize,
    limits: Limits,
    device: &Device,
    tick: &mut dyn FnMut(f64),
) -> Result<Vec<Tensor<2, Int>>, OpError> {
    let num_voxels = coords.len();
    let rows_per_part = limits.rows(neighbors * 4).min(num_voxels);
    let mut parts = Vec::new();
    let flat: Vec<i32> = coords.iter().flatten().copied().collect();
    let voxels = int_tensor(flat, [num_voxels, 3], device);
    for first in (0..num_voxels).step_by(rows_per_part) {
        let queries = first..(first + rows_per_part).min(num_voxels);
        parts.push(knn_voxels(voxels.clone(), neighbors, false, queries.clone())?.index);
        tick(queries.end as f64 / num_voxels as f64);
    }
    device.sync().map_err(|e| OpError::Device(format!("{e:?}")))?;
    Ok(parts)
}

/// Voxels with known neighbours, to compare several ways of weighting them.
pub struct Graph {
    voxelized: Voxelized,
    num_channels: usize,
    parts: Vec<Tensor<2, Int>>,
}

impl Graph {
    /// Finds the neighbours of `voxelized`, made by [`voxel_means`](super::voxel_means) from features with `num_channels`
    /// channels.
    ///
    /// # Errors
    /// [`PurifyError::Empty`] without voxels, [`PurifyError::Setting`], [`PurifyError::Op`].
    pub fn new(
        voxelized: Voxelized,
        num_channels: usize,
        settings: Settings,
        device: &Device,
    ) -> Result<Self, PurifyError> {
        check(Affinities::Uniform, num_channels, settings)?;
        if voxelized.coords.is_empty() {
            return Err(PurifyError::Empty);
        }
        let coords = &voxelized.coords;
        let parts = neighbor_parts(coords, settings.neighbors, limits_of(device), device, &mut |_| ())?;
        Ok(Self { voxelized, num_channels, parts })
    }

    /// The voxels.
    #[must_use]
    pub fn voxelized(&self) -> &Voxelized {
        &self.voxelized
    }

    /// Rows of A, the same as [`purify`](super::purify()) applies.
    ///
    /// # Errors
    /// As [`purify`](super::purify()).
    pub fn rows(
        &self,
        affinities: Affinities<'_>,
        settings: Settings,
        device: &Device,
    ) -> Result<Vec<AffinityRows>, PurifyError> {
        check(affinities, self.num_channels, settings)?;
        let mut timer = StageTimer::default();
        let (basis, _) = basis(affinities, &self.voxelized, self.num_channels, settings, device, &mut timer)?;
        Ok(basis.rows(self.parts.clone(), self.voxelized.coords.len(), settings.sharpness)?.0)
    }
}

pub(super) fn check(affinities: Affinities<'_>, num_channels: usize, settings: Settings) -> Result<(), PurifyError> {
    if !(1..=knn::MAX_K).contains(&settings.neighbors) {
        return setting("neighbors", &settings.neighbors, "1 to 128");
    }
    if !settings.sharpness.is_finite() {
        return setting("sharpness", &settings.sharpness, "a finite number");
    }
    if let Some((_, config)) = affinities.student()
        && num_channels + GEOMETRY_CHANNELS != config.input_dim
    {
        return Err(PurifyError::ChannelCount {
            features: num_channels,
            student: config.input_dim,
            expected: config.input_dim.saturating_sub(GEOMETRY_CHANNELS),
        });
    }
    affinities.kernel().map_or(Ok(()), |kernel| kernel.check())
}
