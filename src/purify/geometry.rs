//! The geometric input of the student: colours and normals.

use super::Scan;
use crate::ops::knn;
use crate::ops::normals::{self, Orientation};

/// Neighbours used to estimate a normal.
const NORMAL_NEIGHBORS: usize = 30;
/// Channels appended to the semantic features: colour and normal.
pub const GEOMETRY_CHANNELS: usize = 6;

/// `[N, 6]`: colour in 0..1, then the unit normal.
pub(crate) fn geometry_channels(scan: &Scan<'_>, notes: &mut Vec<String>) -> Vec<f32> {
    let num_points = scan.positions.len();
    let estimated;
    let normals = match scan.normals {
        Some(normals) => normals,
        None => {
            notes.push(format!("no normals: estimated from {NORMAL_NEIGHBORS} neighbours, turned upwards"));
            estimated = estimate_normals(scan.positions);
            &estimated
        }
    };
    if scan.colors.is_none() {
        notes.push("no colours: grey is assumed".to_owned());
    }
    let mut channels = Vec::with_capacity(num_points * GEOMETRY_CHANNELS);
    for (i, normal) in normals.iter().enumerate() {
        match scan.colors {
            Some(colors) => channels.extend(colors[i].map(|c| f32::from(c) / 255.0)),
            None => channels.extend([0.5; 3]),
        }
        channels.extend(normal.map(|n| if n.is_finite() { n } else { 0.0 }));
    }
    channels
}

/// Estimates normals of points from their neighbours. All are finite and point upwards, because a scan
/// without normals has no view point.
///
/// This runs on the host for every device. On a vertical wall rounding decides which way is up. If the sign
/// of a normal differed between devices, all later results would differ too.
pub(crate) fn estimate_normals(positions: &[[f64; 3]]) -> Vec<[f32; 3]> {
    let mut origin = [f64::INFINITY; 3];
    for p in positions {
        for axis in 0..3 {
            origin[axis] = origin[axis].min(p[axis]);
        }
    }
    let points: Vec<[f32; 3]> =
        positions.iter().map(|p| [0, 1, 2].map(|axis| (p[axis] - origin[axis]) as f32)).collect();
    let neighbors = knn::cpu::knn_points(&points, NORMAL_NEIGHBORS, false, 0..points.len());
    normals::cpu::normals(&points, &neighbors.index, NORMAL_NEIGHBORS, 0, Orientation::Up)
}
