//! Computes the student's embeddings of voxels, in tiles that fit the device.

use burn::prelude::*;

use super::settings::Settings;
use super::tiles::{Tile, tiles};

use crate::models::student::{RECEPTIVE_RADIUS, Student, StudentConfig};
use crate::ops::{OpError, float_tensor, float_values, int_tensor, limits_of, normalize_rows};

/// A student with its layer widths, and the device where it runs.
pub(crate) struct Embedder<'a> {
    pub(crate) student: &'a Student,
    pub(crate) config: StudentConfig,
    pub(crate) device: &'a Device,
}

impl Embedder<'_> {
    /// Tiles of the voxels at `coords [V]`. The widest activation of a tile fits a binding, and about five
    /// of them fit the memory.
    pub(super) fn tiles(&self, coords: &[[i32; 3]], settings: Settings) -> Vec<Tile> {
        let widest = self.config.input_dim.max(self.config.hidden_dim) * 4;
        let max_voxels = limits_of(self.device).rows(widest).min(settings.working_bytes / (5 * widest)).max(1);
        tiles(coords, RECEPTIVE_RADIUS as i32, max_voxels)
    }

    /// Normalised embeddings `[V, embed]` of the voxels at `coords [V]` with `features [V, C + 6]`. Runs in
    /// as many tiles as memory and device need.
    ///
    /// # Errors
    /// [`OpError`].
    pub(crate) fn embed_voxels(
        &self,
        features: &[f32],
        coords: &[[i32; 3]],
        settings: Settings,
    ) -> Result<Vec<f32>, OpError> {
        self.embed(&self.tiles(coords, settings), features, coords, &mut |_| ())
    }

    /// As [`embed_voxels`](Self::embed_voxels), in the given tiles. Calls `tick` with the share that is
    /// done.
    pub(super) fn embed(
        &self,
        tiles: &[Tile],
        features: &[f32],
        coords: &[[i32; 3]],
        tick: &mut dyn FnMut(f64),
    ) -> Result<Vec<f32>, OpError> {
        let (width, dim) = (self.config.input_dim, self.config.embed_dim);
        let mut embedding = vec![0.0_f32; coords.len() * dim];
        let mut done = 0;
        for tile in tiles {
            let n = tile.voxels.len();
            let mut tile_features = Vec::with_capacity(n * width);
            let mut tile_coords = Vec::with_capacity(n * 4);
            for &voxel in &tile.voxels {
                let voxel = voxel as usize;
                tile_features.extend_from_slice(&features[voxel * width..(voxel + 1) * width]);
                tile_coords.extend([0, coords[voxel][0], coords[voxel][1], coords[voxel][2]]);
            }
            let tile_features = float_tensor(tile_features, [n, width], self.device);
            let rows = self.student.forward(tile_features, int_tensor(tile_coords, [n, 4], self.device))?;
            let rows = float_values(normalize_rows(rows))?;
            for (&voxel, row) in tile.voxels.iter().zip(rows.chunks_exact(dim)).take(tile.num_inner) {
                embedding[voxel as usize * dim..(voxel as usize + 1) * dim].copy_from_slice(row);
            }
            done += tile.num_inner;
            tick(done as f64 / coords.len() as f64);
        }
        Ok(embedding)
    }
}
