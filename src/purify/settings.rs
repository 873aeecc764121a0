//! Settings of purification, and their checks.

use serde::{Deserialize, Serialize};

use super::{PurifyError, Scan};
use crate::ops::voxel_grid::upright;
use crate::purify::source::FeatureSource;

/// Most iterations. Features no longer change long before.
pub const MOST_ITERATIONS: usize = 10_000;

/// Settings of purification. The defaults are those of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Edge of a voxel, in the scan's unit (metres).
    pub voxel_size: f64,
    /// Linear map from positions to voxel units (rows x, y, z), for rotated or scaled grids. `None` for
    /// upright cubes of edge `voxel_size`.
    pub voxel_transform: Option<[[f64; 3]; 3]>,
    /// Neighbours per voxel, the voxel itself excluded.
    pub neighbors: usize,
    /// Factor of the cosines before the softmax (1/α of the paper).
    pub sharpness: f32,
    /// Number of times A is applied. The paper gives 18, not counting the first; the reference applies it
    /// 19 times.
    pub iterations: usize,
    /// Host memory for temporary values, in bytes. The results do not depend on it.
    pub working_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            voxel_size: 0.02,
            voxel_transform: None,
            neighbors: 96,
            sharpness: 20.0,
            iterations: 19,
            working_bytes: 1 << 30,
        }
    }
}

impl Settings {
    /// Linear map from positions to voxel units.
    pub(super) fn voxels_per_unit(&self) -> [[f64; 3]; 3] {
        self.voxel_transform.unwrap_or_else(|| upright(self.voxel_size))
    }
}

/// Makes the error for a refused setting.
pub(super) fn setting(
    name: &'static str,
    value: &dyn std::fmt::Display,
    expected: &'static str,
) -> Result<(), PurifyError> {
    Err(PurifyError::Setting { name, value: value.to_string(), expected })
}

pub(super) fn check_scan(scan: &Scan<'_>, features: &dyn FeatureSource, settings: Settings) -> Result<(), PurifyError> {
    if !(settings.voxel_size.is_finite() && settings.voxel_size > 0.0) {
        return setting("voxel size", &settings.voxel_size, "a length above 0");
    }
    if !settings.voxels_per_unit().as_flattened().iter().all(|value| value.is_finite()) {
        return setting("voxel transform", &format!("{:?}", settings.voxel_transform), "finite numbers");
    }
    if !settings.sharpness.is_finite() {
        return setting("sharpness", &settings.sharpness, "a finite number");
    }
    if settings.iterations > MOST_ITERATIONS {
        return setting("number of iterations", &settings.iterations, "at most 10000");
    }
    if scan.positions.is_empty() {
        return Err(PurifyError::Empty);
    }
    if features.num_points() != scan.positions.len() {
        return Err(PurifyError::RowCount { features: features.num_points(), points: scan.positions.len() });
    }
    Ok(())
}
