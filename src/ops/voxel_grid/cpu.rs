//! Host twin, and the quantisation of points, which is host work on every device: it needs f64.

use glam::DMat3;
use rayon::prelude::*;

use super::{COORDINATE_BITS, VoxelOrder};
use crate::ops::radix_sort::cpu::sort_by_key;
use crate::random::SplitMix64;

/// Why points could not be made voxels.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    /// A point has no position.
    #[error("point {index} is not finite: {position:?}")]
    NotFinite {
        /// Index of the point.
        index: usize,
        /// Its coordinates.
        position: [f64; 3],
    },
    /// The scene is too long for 21-bit coordinates.
    #[error("the points span {voxels:.0} voxels along axis {axis}, expected fewer than 2^21: use larger voxels")]
    TooFar {
        /// 0, 1, 2 for x, y, z.
        axis: usize,
        /// Extent in voxels.
        voxels: f64,
    },
}

/// The transform of upright voxels of edge `voxel_size`, as [`quantize`] takes it.
#[must_use]
pub fn upright(voxel_size: f64) -> [[f64; 3]; 3] {
    let scale = 1.0 / voxel_size;
    [[scale, 0.0, 0.0], [0.0, scale, 0.0], [0.0, 0.0, scale]]
}

/// A random transform as GeoPurify's published code draws one for every scene: a turn about z by any angle, about x and y
/// by up to 2.8°, a scale of 0.9 to 1.1.
#[must_use]
pub fn augmented(voxel_size: f64, random: &mut SplitMix64) -> [[f64; 3]; 3] {
    let mut uniform = |low: f64, high: f64| low + (high - low) * random.unit();
    let scale = uniform(0.9, 1.1) / voxel_size;
    let tilt = std::f64::consts::PI / 64.0;
    let (x, y) = (uniform(-tilt, tilt), uniform(-tilt, tilt));
    let z = uniform(-std::f64::consts::PI, std::f64::consts::PI);
    let turn = DMat3::from_rotation_z(z) * DMat3::from_rotation_y(y) * DMat3::from_rotation_x(x);
    (turn * scale).transpose().to_cols_array_2d()
}

/// Integer voxels of `points [N]` (scene units) under the linear `transform` (row-major, voxels per
/// unit): ⌊T·p⌋ in f64, less its minimum over the points per axis, which is the second result.
///
/// For voxels of side s, T is the identity divided by s. All coordinates are in 0..2²¹.
///
/// # Errors
/// [`QuantizeError`] where a point is not finite or the scene is too long.
pub fn quantize(points: &[[f64; 3]], transform: &[[f64; 3]; 3]) -> Result<(Vec<[i32; 3]>, [i64; 3]), QuantizeError> {
    let floor = |p: &[f64; 3]| transform.map(|row| (row[0] * p[0] + row[1] * p[1] + row[2] * p[2]).floor());
    let wrong = |p: &[f64; 3]| floor(p).iter().any(|v| !v.is_finite());
    if let Some(index) = points.par_iter().position_first(wrong) {
        return Err(QuantizeError::NotFinite { index, position: points[index] });
    }
    let (least, most) = points
        .par_iter()
        .map(|p| {
            let v = floor(p);
            (v, v)
        })
        .reduce_with(|a, b| ([0, 1, 2].map(|i| a.0[i].min(b.0[i])), [0, 1, 2].map(|i| a.1[i].max(b.1[i]))))
        .unwrap_or_default();
    for axis in 0..3 {
        let voxels = most[axis] - least[axis];
        // Past 2⁵³ neighbouring voxels are one f64, and the origin must fit i64.
        if voxels >= f64::from(1 << COORDINATE_BITS) || least[axis].abs() > 9e15 {
            return Err(QuantizeError::TooFar { axis, voxels: voxels.max(least[axis].abs()) });
        }
    }
    let voxels = points
        .par_iter()
        .map(|p| {
            let v = floor(p);
            [0, 1, 2].map(|i| (v[i] - least[i]) as i32)
        })
        .collect();
    Ok((voxels, least.map(|v| v as i64)))
}

/// Spreads the low 21 bits to every third bit.
fn spread(v: u32) -> u64 {
    let mut x = u64::from(v) & 0x1f_ffff;
    x = (x | (x << 32)) & 0x001f_0000_0000_ffff;
    x = (x | (x << 16)) & 0x001f_0000_ff00_00ff;
    x = (x | (x << 8)) & 0x100f_00f0_0f00_f00f;
    x = (x | (x << 4)) & 0x10c3_0c30_c30c_30c3;
    (x | (x << 2)) & 0x1249_2492_4924_9249
}

/// Morton code of three 21-bit coordinates; x owns the lowest bit.
#[must_use]
pub fn morton_code(x: u32, y: u32, z: u32) -> u64 {
    spread(x) | (spread(y) << 1) | (spread(z) << 2)
}

/// Host form of [`super::VoxelGrid`].
#[derive(Clone, Debug, PartialEq)]
pub struct VoxelGrid {
    /// (batch, x, y, z) of every voxel.
    pub coords: Vec<[i32; 4]>,
    /// The voxel of every point.
    pub voxel_from_point: Vec<i32>,
    /// Points grouped by voxel.
    pub point_from_sorted: Vec<i32>,
    /// Start of each voxel's points, then the number of points.
    pub offsets: Vec<i32>,
}

/// See [`super::voxel_grid`]; coordinates are in 0..2²¹.
#[must_use]
pub fn voxel_grid(coords: &[[i32; 4]]) -> VoxelGrid {
    voxel_grid_in(VoxelOrder::Morton, coords)
}

/// See [`super::voxel_grid_in`]; coordinates are in 0..2²¹.
#[must_use]
pub fn voxel_grid_in(order: VoxelOrder, coords: &[[i32; 4]]) -> VoxelGrid {
    let code = |c: &[i32; 4]| match order {
        VoxelOrder::Morton => morton_code(c[1] as u32, c[2] as u32, c[3] as u32),
        VoxelOrder::Lexicographic => {
            c[1..].iter().fold(0, |code, &value| code << COORDINATE_BITS | u64::from(value as u32))
        }
    };
    let codes: Vec<u64> = coords.par_iter().map(code).collect();
    let mut point_from_sorted = sort_by_key(&codes);
    if coords.iter().any(|c| c[0] != coords[0][0]) {
        point_from_sorted.par_sort_by_key(|point| coords[*point as usize][0]);
    }
    let mut grid = VoxelGrid {
        coords: Vec::new(),
        voxel_from_point: vec![0; coords.len()],
        point_from_sorted,
        offsets: Vec::new(),
    };
    for (sorted, &point) in grid.point_from_sorted.iter().enumerate() {
        let voxel = coords[point as usize];
        if grid.coords.last() != Some(&voxel) {
            grid.coords.push(voxel);
            grid.offsets.push(sorted as i32);
        }
        grid.voxel_from_point[point as usize] = grid.coords.len() as i32 - 1;
    }
    grid.offsets.push(coords.len() as i32);
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn morton_codes_interleave_with_x_lowest() {
        assert_eq!([morton_code(1, 0, 0), morton_code(0, 1, 0), morton_code(0, 0, 1)], [1, 2, 4]);
        let largest = (1 << COORDINATE_BITS) - 1;
        assert_eq!(morton_code(largest, largest, largest), (1 << 63) - 1);
        let (p, mut code) = ([0x15_3a7c, 0x0c_91e5, 0x1f_0042], 0_u64);
        for bit in 0..21 {
            for (axis, v) in p.iter().enumerate() {
                code |= u64::from(v >> bit & 1) << (3 * bit + axis);
            }
        }
        assert_eq!(morton_code(p[0], p[1], p[2]), code);
    }

    #[test]
    fn quantisation_floors_in_f64_and_recentres() {
        let scale = |s: f64| [[s, 0.0, 0.0], [0.0, s, 0.0], [0.0, 0.0, s]];
        let points = [[500_000.01, -0.01, 0.0], [500_000.05, 0.03, -0.019]];
        let (voxels, origin) = quantize(&points, &scale(50.0)).unwrap();
        assert_eq!(voxels, [[0, 0, 1], [2, 2, 0]]);
        assert_eq!(origin, [25_000_000, -1, -1]);
        assert_eq!(quantize(&[], &scale(1.0)), Ok((Vec::new(), [0; 3])));
        let gap = quantize(&[[0.0; 3], [0.0, f64::NAN, 0.0]], &scale(1.0));
        assert!(matches!(gap, Err(QuantizeError::NotFinite { index: 1, .. })));
        let far = quantize(&[[0.0; 3], [0.0, 2_097_152.0, 0.0]], &scale(1.0));
        assert_eq!(far, Err(QuantizeError::TooFar { axis: 1, voxels: 2_097_152.0 }));
        assert!(quantize(&[[0.0; 3], [0.0, 2_097_151.0, 0.0]], &scale(1.0)).is_ok());
    }
}
