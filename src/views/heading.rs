//! The heading of a scan: the horizontal direction along its walls, with most of the scan's bulk behind it.
//!
//! Cameras stand and look along it, and voxels lie along it. So a room has the same pictures and the same
//! voxels however its file is turned. That is why nothing here follows the axes of the file.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4};

use glam::{DMat3, DVec2, DVec3, Vec3};

use super::strays::Core;
use crate::ops::knn::cpu::knn_points;
use crate::ops::normals::cpu::{Orientation, normals};

/// Largest number of points that are looked at.
const MOST_POINTS: usize = 24_000;
/// Number of neighbours from which a normal is estimated.
const NEIGHBORS: usize = 12;
/// Largest cosine between up and the normal of a wall.
const LEANING: f64 = 0.3;
/// Smallest share of the surface that is walls, and how far they must agree on a direction, 0 to 1.
const WALLS: f64 = 0.02;
const AGREED: f64 = 0.2;
/// How far from the direction found so far a wall may be to count, in radians, from one step to the next.
const WIDTHS: [f64; 8] = [0.4, 0.3, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05];
/// Smallest skewness of the surface across, 0 to 1, that tells one end of a room from the other.
const SKEWED: f64 = 0.001;

/// A small piece of the surface.
struct Piece {
    position: DVec3,
    /// Normal of length one, on either side.
    normal: DVec3,
    area: f64,
}

/// Returns the rotation from the scan's axes to those with z along `up`, which has length one, and x along the
/// heading. If the scan has no heading, the axis least aligned with `up` moves as little as possible.
pub(super) fn turn(points: &[[f32; 3]], faces: &[[u32; 3]], up: DVec3) -> DMat3 {
    let aside = if up.x.abs() <= up.y.abs().min(up.z.abs()) { DVec3::X } else { DVec3::Y };
    let x = if up == DVec3::Z { DVec3::X } else { aside.reject_from(up).normalize() };
    let given = DMat3::from_cols(x, up.cross(x), up).transpose();
    let Some(yaw) = heading(&pieces(points, faces), &given) else { return given };
    DMat3::from_rotation_z(-yaw) * given
}

/// Returns pieces of the surface: triangles, or points with the same area each.
fn pieces(points: &[[f32; 3]], faces: &[[u32; 3]]) -> Vec<Piece> {
    let core = Core::of(points);
    let position = |i: u32| Vec3::from_array(points[i as usize]).as_dvec3();
    if !faces.is_empty() {
        let is_kept = |face: &&[u32; 3]| face.iter().all(|&i| core.contains(points[i as usize]));
        let piece = |face: &[u32; 3]| {
            let [a, b, c] = face.map(position);
            let across = (b - a).cross(c - a);
            Piece { position: (a + b + c) / 3.0, normal: across.normalize_or_zero(), area: across.length() }
        };
        return faces.iter().filter(is_kept).map(piece).collect();
    }
    let kept: Vec<[f32; 3]> = points.iter().filter(|point| core.contains(**point)).copied().collect();
    let few: Vec<[f32; 3]> = kept.iter().step_by(kept.len().div_ceil(MOST_POINTS).max(1)).copied().collect();
    let neighbors = knn_points(&few, NEIGHBORS, false, 0..few.len());
    let normals = normals(&few, &neighbors.index, NEIGHBORS, 0, Orientation::Up);
    let piece = |(point, normal): (&[f32; 3], [f32; 3])| Piece {
        position: Vec3::from_array(*point).as_dvec3(),
        normal: Vec3::from_array(normal).as_dvec3(),
        area: 1.0,
    };
    few.iter().zip(normals).map(piece).collect()
}

/// Returns the angle about z, in radians, from x of the frame `given` to the heading. Returns `None` if there
/// are no walls, or if they do not agree.
fn heading(pieces: &[Piece], given: &DMat3) -> Option<f64> {
    let wall = |piece: &Piece| {
        let normal = *given * piece.normal;
        let upright = fade(normal.z / LEANING) * normal.truncate().length_squared();
        (normal.y.atan2(normal.x), piece.area * upright)
    };
    let walls: Vec<(f64, f64)> = pieces.iter().map(wall).filter(|(_, area)| *area > 0.0).collect();
    let total: f64 = walls.iter().map(|(_, area)| area).sum();
    // Four times the angle is the same for walls at right angles.
    let sum: DVec2 = walls.iter().map(|(angle, area)| DVec2::from_angle(4.0 * angle) * *area).sum();
    let surface: f64 = pieces.iter().map(|piece| piece.area).sum();
    let is_clear = total > WALLS * surface && sum.length() > AGREED * total;
    if !(is_clear && total.is_finite()) {
        return None;
    }
    let mut yaw = sum.to_angle() / 4.0;
    for width in WIDTHS {
        let (mut off, mut near) = (0.0, 0.0);
        for (angle, area) in &walls {
            let aside = (angle - yaw + FRAC_PI_4).rem_euclid(FRAC_PI_2) - FRAC_PI_4;
            let weight = area * fade(aside / width);
            (off, near) = (off + aside * weight, near + weight);
        }
        yaw += if near > 0.0 { off / near } else { 0.0 };
    }
    Some(yaw + FRAC_PI_2 * f64::from(quarter(pieces, given, yaw)))
}

/// Returns how many right angles to add to `yaw` so that x points to where the surface thins out. If it does
/// so nowhere, x stays as near to x of the frame as it can.
fn quarter(pieces: &[Piece], given: &DMat3, yaw: f64) -> u8 {
    let total: f64 = pieces.iter().map(|piece| piece.area).sum();
    let middle = pieces.iter().map(|piece| piece.position * piece.area).sum::<DVec3>() / total;
    let (mut skew, mut size) = (DVec2::ZERO, 0.0);
    for piece in pieces {
        let across = (*given * (piece.position - middle)).truncate();
        let square = across.length_squared() * piece.area;
        skew += across * square;
        size += across.length() * square;
    }
    let towards = if skew.length() > SKEWED * size { skew } else { DVec2::X };
    let along = |turns: &u8| DVec2::from_angle(yaw + FRAC_PI_2 * f64::from(*turns)).dot(towards);
    (0..4).max_by(|a, b| along(a).total_cmp(&along(b))).unwrap_or(0)
}

/// Returns a weight that falls smoothly from 1 at 0 to 0 at -1 and 1. A step would let rounding decide.
fn fade(x: f64) -> f64 {
    (1.0 - x * x).max(0.0).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// Four walls of a room of 6 x 4 x 2.5 m and a box in a corner, as points with noise of 2 mm.
    fn room() -> Vec<[f32; 3]> {
        let mut random = SplitMix64::new(11);
        let mut side = |low: [f64; 3], high: [f64; 3]| -> Vec<[f32; 3]> {
            (0..3000).map(|_| [0, 1, 2].map(|i| (low[i] + (high[i] - low[i]) * random.unit()) as f32)).collect()
        };
        let mut points = side([0.0, 0.0, 0.0], [6.0, 0.002, 2.5]);
        points.extend(side([0.0, 4.0, 0.0], [6.0, 4.002, 2.5]));
        points.extend(side([0.0, 0.0, 0.0], [0.002, 4.0, 2.5]));
        points.extend(side([6.0, 0.0, 0.0], [6.002, 4.0, 2.5]));
        points.extend(side([0.0, 0.0, 0.0], [6.0, 4.0, 0.002]));
        points.extend(side([4.5, 2.5, 1.0], [6.0, 4.0, 1.002]));
        points
    }

    fn turned(points: &[[f32; 3]], by: DMat3) -> Vec<[f32; 3]> {
        points.iter().map(|p| (by * Vec3::from_array(*p).as_dvec3()).as_vec3().to_array()).collect()
    }

    #[test]
    fn the_heading_turns_with_the_scan() {
        let points = room();
        let upright = turn(&points, &[], DVec3::Z);
        // Along the walls, but for the noise, and with z up.
        let [x, z] = [upright.row(0), upright.row(2)];
        assert!(x.abs().max_element() > 0.999_999 && z == DVec3::Z, "{upright}");
        for degrees in [0.3_f64, 30.0, 90.0, 135.0, 180.0, 200.0, 299.0] {
            let by = DMat3::from_rotation_z(degrees.to_radians());
            let found = turn(&turned(&points, by), &[], DVec3::Z);
            assert!((found * by).abs_diff_eq(upright, 1e-5), "{degrees}: {found} {upright}");
            let on_side = DMat3::from_rotation_x(FRAC_PI_2) * by;
            let found = turn(&turned(&points, on_side), &[], DVec3::NEG_Y);
            assert!((found * on_side).abs_diff_eq(upright, 1e-5), "{degrees}: {found} {upright}");
        }
    }

    #[test]
    fn without_walls_the_axes_stay() {
        let mut random = SplitMix64::new(2);
        let land: Vec<[f32; 3]> = (0..5000)
            .map(|_| [random.unit() as f32 * 90.0, random.unit() as f32 * 50.0, random.unit() as f32])
            .collect();
        assert_eq!(turn(&land, &[], DVec3::Z), DMat3::IDENTITY);
        // The walls of a round tower do not agree.
        let tower = |_| {
            let (sin, cos) = (random.unit() * 2.0 * std::f64::consts::PI).sin_cos();
            [cos as f32, sin as f32, 3.0 * random.unit() as f32]
        };
        let tower: Vec<[f32; 3]> = (0..5000).map(tower).collect();
        assert_eq!(turn(&tower, &[], DVec3::Z), DMat3::IDENTITY);
        for points in [vec![], vec![[1.0; 3]], vec![[1e38; 3]; 3]] {
            assert_eq!(turn(&points, &[], DVec3::Z), DMat3::IDENTITY);
        }
    }

    #[test]
    fn a_mesh_has_the_heading_of_its_triangles() {
        // A wall of 3 m, a wall of 1 m at its end, and half of their floor.
        let points =
            [[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [3.0, 0.0, 2.0], [0.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 1.0, 2.0]];
        let faces = [[0, 1, 2], [0, 2, 3], [0, 4, 5], [0, 5, 3], [0, 1, 4]];
        let upright = turn(&points, &faces, DVec3::Z);
        assert!(upright.row(0).abs().abs_diff_eq(DVec3::X, 1e-9), "{upright}");
        let by = DMat3::from_rotation_z(2.0);
        let found = turn(&turned(&points, by), &faces, DVec3::Z);
        assert!((found * by).abs_diff_eq(upright, 1e-6), "{found}");
    }
}
