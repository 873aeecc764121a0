//! Host twin of the projection.

use rayon::prelude::*;

use super::{Camera, Visibility};

/// `points [N]` and `depth [height · width]` → the pixel of every point, -1 where it is not seen.
pub(crate) fn project(points: &[[f32; 3]], depth: &[f32], camera: &Camera, rule: Visibility) -> Vec<i32> {
    let seen_at = |&point: &[f32; 3]| match pixel_of(point, camera, rule.border) {
        Some((pixel, z)) if (depth[pixel] - z).abs() <= rule.depth_tolerance * depth[pixel] => pixel as i32,
        _ => -1,
    };
    points.par_iter().with_min_len(4096).map(seen_at).collect()
}

/// As [`project`], for points that nothing hides.
pub(crate) fn project_unhidden(points: &[[f32; 3]], camera: &Camera, border: usize) -> Vec<i32> {
    let at = |&point: &[f32; 3]| pixel_of(point, camera, border).map_or(-1, |(pixel, _)| pixel as i32);
    points.par_iter().with_min_len(4096).map(at).collect()
}

/// The pixel and the distance along the axis, where the point is in sight. In f32 and in the order of the shader.
fn pixel_of(point: [f32; 3], camera: &Camera, border: usize) -> Option<(usize, f32)> {
    let [x, y, z] =
        camera.world_to_camera.map(|row| row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + row[3]);
    let column = (x * camera.focal[0] / z + camera.center[0]).round_ties_even();
    let row = (y * camera.focal[1] / z + camera.center[1]).round_ties_even();
    let border = border as f32;
    // Phrased so that a NaN, from a point in the camera's own plane, is outside.
    let inside = |at: f32, size: usize| at >= border && at < size as f32 - border;
    (z > 0.0 && inside(column, camera.width) && inside(row, camera.height))
        .then(|| (row as usize * camera.width + column as usize, z))
}
