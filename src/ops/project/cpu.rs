//! Host twin of the projection.

use rayon::prelude::*;

use super::{Camera, Visibility};

/// `points [N]` and `depth [height · width]` → the pixel of every point, -1 where it is not seen.
pub(crate) fn project(points: &[[f32; 3]], depth: &[f32], camera: &Camera, rule: Visibility) -> Vec<i32> {
    points.par_iter().with_min_len(4096).map(|&point| pixel_of(point, depth, camera, rule)).collect()
}

/// In f32 and in the order of the shader.
fn pixel_of(point: [f32; 3], depth: &[f32], camera: &Camera, rule: Visibility) -> i32 {
    let [x, y, z] =
        camera.world_to_camera.map(|row| row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + row[3]);
    let column = (x * camera.focal[0] / z + camera.center[0]).round_ties_even();
    let row = (y * camera.focal[1] / z + camera.center[1]).round_ties_even();
    let border = rule.border as f32;
    // Phrased so that a NaN, from a point in the camera's own plane, is outside.
    let inside = |at: f32, size: usize| at >= border && at < size as f32 - border;
    if !(z > 0.0 && inside(column, camera.width) && inside(row, camera.height)) {
        return -1;
    }
    let pixel = row as usize * camera.width + column as usize;
    let seen = depth[pixel];
    if (seen - z).abs() <= rule.depth_tolerance * seen { pixel as i32 } else { -1 }
}
