//! Edge of the voxels of a scan. There are two rules: [`voxel_size_for_purification`] is that of `infer`,
//! `eval` and `purify`, and [`voxel_size_for_training`] that of `train`, `encode` and `ablation`.

use std::collections::HashSet;

use super::{Compat, Scene, Turned};
use crate::random::SplitMix64;

/// Voxel edge in metres for which the student was trained.
pub const VOXEL_METRES: f64 = 0.02;
/// Voxel edge as a multiple of the distance between points, if points are too sparse for [`VOXEL_METRES`].
/// With it most voxels have neighbours.
const VOXELS_PER_SPACING: f64 = 1.5;
/// Least number of voxels along the longest side of a scan that still shows its parts.
const MIN_VOXELS_ACROSS: f64 = 64.0;
/// Mean number of occupied cells around a voxel at which voxels are large enough. Recorded rooms have 7 to 18
/// at 2 cm, most of them about 10. A flat wall along the grid cannot have more than 8.
const ENOUGH_NEIGHBORS: f64 = 6.0;
/// Ratio between an edge that is tried and the next: four of them double it.
const STEP: f64 = 1.189_207_115_002_721;
/// Largest edge that is tried, as a multiple of the distance between points.
const MOST_PER_SPACING: f64 = 3.5;
/// Steps that reach that edge from the distance between points.
const MOST_STEPS: usize = 7;
/// Edge of a block of cells, in cells. Occupied cells are counted in whole blocks.
const BLOCK: i64 = 16;
/// Points whose cells are looked at, about.
const SAMPLED_POINTS: usize = 500_000;

/// Voxel edge for Sonata and for a student in training, which know lengths, in the unit of `scene`, and the
/// reason if it is not the usual one.
///
/// The usual edge is 2 cm. It is smaller for a scan that would be only a handful of voxels. It is larger if
/// points are so far apart that hardly any voxel would have a neighbour: in a landscape, or a scan of unknown
/// unit.
#[must_use]
pub fn voxel_size_for_training(scene: &Scene) -> (f64, Option<String>) {
    let (usual, finest, extent) = finest(scene, scene.positions());
    let unit = unit_behind(scene);
    match scene.cloud.spacing() {
        Some(spacing) if spacing > finest => {
            let size = spacing * VOXELS_PER_SPACING;
            let why = || {
                format!("points are {spacing:.3}{unit} apart: voxels of {size:.3}{unit} instead of {usual:.3}{unit}")
            };
            (size, (size != usual).then(why))
        }
        _ if finest < usual => (
            finest,
            Some(format!(
                "the scan is {extent:.3}{unit} across: voxels of {finest:.4}{unit} instead of {usual:.3}{unit}"
            )),
        ),
        _ => (usual, None),
    }
}

/// Voxel edge for purification, in the unit of `scan`, and the reason if it is not the usual one.
///
/// The student and the affinities need occupied cells around a voxel. So the edge is the smallest one tried,
/// from 2 cm on, at which 6 of the 26 cells around a voxel are occupied on average. Like that of
/// [`voxel_size_for_training`] it is smaller for a scan of a handful of voxels. It stays the published 2 cm
/// with [`Compat::Reference`].
#[must_use]
pub fn voxel_size_for_purification(scan: &Turned<'_>, compat: Compat) -> (f64, Option<String>) {
    let (scene, positions) = (scan.scene(), scan.positions());
    let (usual, finest, extent) = finest(scene, positions);
    if compat == Compat::Reference {
        return (usual, None);
    }
    let spacing = scene.cloud.spacing().filter(|spacing| spacing.is_finite()).unwrap_or(0.0);
    let first = finest.max(spacing);
    let around_first = occupied_neighbors(positions, first);
    let (mut size, mut around) = (first, around_first);
    for _ in 0..MOST_STEPS {
        if around >= ENOUGH_NEIGHBORS || size * STEP > spacing * MOST_PER_SPACING {
            break;
        }
        size *= STEP;
        around = occupied_neighbors(positions, size);
    }
    let unit = unit_behind(scene);
    let why = if size < usual {
        format!("the scan is {extent:.3}{unit} across: voxels of {size:.4}{unit} instead of {usual:.3}{unit}")
    } else if size > first {
        format!(
            "points are sparse: voxels of {size:.3}{unit} instead of {usual:.3}{unit}. {around:.1} of the 26 cells \
             around one are occupied, {around_first:.1} at {first:.3}{unit}"
        )
    } else {
        format!(
            "points are sparse: voxels of {size:.3}{unit} instead of {usual:.3}{unit}. {around:.1} of the 26 cells \
             around one are occupied"
        )
    };
    (size, (size != usual).then_some(why))
}

/// The scan's unit as it stands behind a number, if it is known.
fn unit_behind(scene: &Scene) -> String {
    scene.unit().map_or_else(String::new, |unit| format!(" {}", unit.symbol()))
}

/// The usual edge, the smallest edge that fits the extent of `positions`, and that extent.
fn finest(scene: &Scene, positions: &[[f64; 3]]) -> (f64, f64, f64) {
    let usual = VOXEL_METRES / scene.metres_per_unit().unwrap_or(1.0);
    let along = |axis: usize| {
        let values = positions.iter().map(|p| p[axis]);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        high - low
    };
    let extent = (0..3).map(along).fold(0.0, f64::max);
    let finest = if extent > 0.0 { usual.min(extent / MIN_VOXELS_ACROSS) } else { usual };
    (usual, finest, extent)
}

/// Mean number of occupied cells among the 26 around an occupied one. Cells are cubes of edge `edge`. Large
/// scans are sampled by blocks of cells. 0 without points.
#[must_use]
pub fn occupied_neighbors(positions: &[[f64; 3]], edge: f64) -> f64 {
    // The share of the blocks that is looked at, in 2⁻⁶⁴.
    let share = (SAMPLED_POINTS as f64 / positions.len().max(1) as f64).min(1.0);
    let most = (share * u64::MAX as f64) as u64;
    // The cast saturates, so absurd coordinates share the outermost cell.
    let cell = |p: &[f64; 3]| p.map(|x| (x / edge).floor() as i64);
    let is_sampled = |cell: &[i64; 3]| {
        let block = cell.map(|x| x.div_euclid(BLOCK) as u64);
        SplitMix64::stream(0, &block).next_u64() <= most
    };
    let cells: HashSet<[i64; 3]> = positions.iter().map(cell).filter(is_sampled).collect();
    // Where blocks are left out, cells at a border do not know all cells around them.
    let is_inside =
        |cell: &&[i64; 3]| share >= 1.0 || cell.iter().all(|x| (1..BLOCK - 1).contains(&x.rem_euclid(BLOCK)));
    let (mut centers, mut found) = (0_usize, 0_usize);
    for cell in cells.iter().filter(is_inside) {
        centers += 1;
        for offset in (0..27).filter(|offset| *offset != 13) {
            let step = [offset % 3 - 1, offset / 3 % 3 - 1, offset / 9 - 1];
            let other: [i64; 3] = std::array::from_fn(|axis| cell[axis].saturating_add(step[axis]));
            found += usize::from(cells.contains(&other));
        }
    }
    found as f64 / centers.max(1) as f64
}

#[cfg(test)]
mod tests {
    use glam::DMat3;

    use super::*;
    use crate::cloud::{PointCloud, Unit};

    #[test]
    fn voxels_are_two_centimetres_unless_points_are_far_apart() {
        let grid = |step: f64, unit| {
            let positions = (0..40_000).map(|i| [f64::from(i % 200) * step, f64::from(i / 200) * step, 0.0]).collect();
            Scene::new(PointCloud { positions, unit, ..PointCloud::default() }, None).unwrap()
        };
        assert_eq!(voxel_size_for_training(&grid(0.01, Some(Unit::Metre))), (0.02, None));
        assert_eq!(voxel_size_for_training(&grid(8.0, Some(Unit::Millimetre))).0, 20.0);
        let (size, why) = voxel_size_for_training(&grid(1.0, Some(Unit::Metre)));
        assert!(
            (size - 1.5).abs() < 1e-9 && why.unwrap().contains("1.000 m apart: voxels of 1.500 m instead of 0.020 m")
        );
        let (size, why) = voxel_size_for_training(&grid(0.001, Some(Unit::Metre)));
        assert!((size - 0.199 / 64.0).abs() < 1e-9 && why.unwrap().contains("0.199 m across"));
        let one = PointCloud { positions: vec![[1.0; 3]], unit: Some(Unit::Metre), ..PointCloud::default() };
        assert_eq!(voxel_size_for_training(&Scene::new(one, None).unwrap()), (0.02, None));
    }

    #[test]
    fn cells_around_a_cell_are_counted() {
        // A square of 100 × 100 cells: 8 around each, 5 at its edges, 3 at its corners.
        let square = |side: usize| -> Vec<[f64; 3]> {
            (0..side * side).map(|i| [(i % side) as f64 + 0.5, (i / side) as f64 + 0.5, 7.5]).collect()
        };
        let all = (98.0 * 98.0 * 8.0 + 4.0 * 98.0 * 5.0 + 4.0 * 3.0) / 1e4;
        assert!((occupied_neighbors(&square(100), 1.0) - all).abs() < 1e-9);
        // Half of the blocks are looked at; the cells at their borders are no measure.
        let sampled = occupied_neighbors(&square(1000), 1.0);
        assert!((7.95..=8.0).contains(&sampled), "{sampled}");
        assert_eq!(occupied_neighbors(&[[0.0; 3]], 1.0), 0.0);
        assert_eq!(occupied_neighbors(&[], 1.0), 0.0);
    }

    #[test]
    fn purification_takes_voxels_with_enough_cells_around() {
        let scatter = |per_square_metre: f64| {
            let mut random = SplitMix64::new(1);
            let count = (per_square_metre * 12.0) as usize;
            let positions = (0..count).map(|_| [4.0 * random.unit(), 3.0 * random.unit(), 0.01]).collect();
            Scene::new(PointCloud { positions, unit: Some(Unit::Metre), ..PointCloud::default() }, None).unwrap()
        };
        // As dense as the recorded rooms: the published size.
        let dense = scatter(8000.0);
        assert_eq!(voxel_size_for_purification(&dense.turned(DMat3::IDENTITY), Compat::Fixed), (0.02, None));
        // As sparse as the example room.
        let sparse = scatter(1000.0);
        assert!(occupied_neighbors(sparse.positions(), 0.02) < 3.0);
        let (size, why) = voxel_size_for_purification(&sparse.turned(DMat3::IDENTITY), Compat::Fixed);
        let around = |size| occupied_neighbors(sparse.positions(), size);
        assert!((size / 0.02 - 2.0).abs() < 1e-9, "{size}");
        assert!(around(size) >= ENOUGH_NEIGHBORS && around(size / STEP) < ENOUGH_NEIGHBORS);
        let why = why.unwrap();
        assert!(why.starts_with("points are sparse: voxels of 0.040 m instead of 0.020 m. 6."), "{why}");
        // The published code knows one size.
        assert_eq!(voxel_size_for_purification(&sparse.turned(DMat3::IDENTITY), Compat::Reference), (0.02, None));
        // Points on a line never have enough around them.
        let positions = (0..1000).map(|i| [f64::from(i), 0.0, 0.0]).collect();
        let line =
            Scene::new(PointCloud { positions, unit: Some(Unit::Metre), ..PointCloud::default() }, None).unwrap();
        let size = voxel_size_for_purification(&line.turned(DMat3::IDENTITY), Compat::Fixed).0;
        assert!(size > 2.5 && size <= MOST_PER_SPACING, "{size}");
    }
}
