//! A walk around the corner of a room.

use geopurify::views::{Pose, PoseConvention};
use glam::{DMat3, DVec3};

/// Poses of a camera that walks around the corner and looks at the box.
pub(crate) fn poses(count: usize) -> Vec<Pose> {
    let pose = |i: usize| {
        let angle = (0.2 + 0.6 * i as f64 / count as f64) * std::f64::consts::FRAC_PI_2;
        let eye = DVec3::new(1.0 + 2.4 * angle.cos(), 1.0 + 2.4 * angle.sin(), 1.5);
        let forward = (DVec3::new(1.0, 1.0, 0.5) - eye).normalize();
        let right = forward.cross(DVec3::Z).normalize();
        let rotation = DMat3::from_cols(right, forward.cross(right), forward);
        Pose::new(rotation, eye, PoseConvention::OPENCV_CAMERA_TO_WORLD).unwrap()
    };
    (0..count).map(pose).collect()
}
