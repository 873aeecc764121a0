//! Pinhole cameras: intrinsics, lens distortion, poses and their conventions.

use std::fmt;

use glam::{DMat3, DQuat, DVec2, DVec3};

use super::ViewsError;

/// Largest deviation of a rotation matrix from orthonormal that counts as rounding in a text file.
const ROTATION_TOLERANCE: f64 = 0.01;

/// A pinhole camera and the size of its picture.
///
/// Pixels are counted from the upper left corner. The centre of the pixel in column i and row j is at (i, j),
/// so the picture reaches from −0.5 to width − 0.5. A point (x, y, z) in camera axes (x right, y down, z
/// forward) is projected to (fx·x/z + cx, fy·y/z + cy).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intrinsics {
    /// Width of the picture in pixels.
    pub width: usize,
    /// Height of the picture in pixels.
    pub height: usize,
    /// Horizontal focal length in pixels, positive.
    pub fx: f64,
    /// Vertical focal length in pixels, positive.
    pub fy: f64,
    /// Column of the principal point in pixels.
    pub cx: f64,
    /// Row of the principal point in pixels.
    pub cy: f64,
}

impl Intrinsics {
    /// Creates a camera.
    ///
    /// # Errors
    /// [`ViewsError::Argument`] if a size is 0, a focal length is not positive, or a number is not finite.
    pub fn new(width: usize, height: usize, fx: f64, fy: f64, cx: f64, cy: f64) -> Result<Self, ViewsError> {
        if width == 0 || height == 0 {
            let found = format!("{width} x {height}");
            return Err(ViewsError::Argument { what: "the picture's size", found, expected: "at least 1 x 1 pixel" });
        }
        let focal = |f: f64| f.is_finite() && f > 0.0;
        if !(focal(fx) && focal(fy)) {
            let found = format!("{fx}, {fy}");
            return Err(ViewsError::Argument { what: "the focal length", found, expected: "positive numbers" });
        }
        if !(cx.is_finite() && cy.is_finite()) {
            let found = format!("{cx}, {cy}");
            return Err(ViewsError::Argument { what: "the principal point", found, expected: "finite numbers" });
        }
        Ok(Self { width, height, fx, fy, cx, cy })
    }

    /// Returns the same camera for its picture resized to another size.
    #[must_use]
    pub fn scaled_to(&self, width: usize, height: usize) -> Self {
        let (sx, sy) = (width as f64 / self.width as f64, height as f64 / self.height as f64);
        Self {
            width,
            height,
            fx: self.fx * sx,
            fy: self.fy * sy,
            cx: (self.cx + 0.5) * sx - 0.5,
            cy: (self.cy + 0.5) * sy - 0.5,
        }
    }

    /// Projects a point in camera axes to pixel coordinates. Returns `None` if it is not in front of the
    /// camera. The result may be outside the picture.
    #[must_use]
    pub fn project(&self, point: DVec3) -> Option<DVec2> {
        let in_front = point.z > 0.0;
        in_front.then(|| DVec2::new(self.fx * point.x / point.z + self.cx, self.fy * point.y / point.z + self.cy))
    }

    /// Returns the column and row of the pixel that shows a point in camera axes; `None` outside the picture.
    #[must_use]
    pub fn pixel(&self, point: DVec3) -> Option<[usize; 2]> {
        let at = self.project(point)?.round();
        let inside = at.x >= 0.0 && at.y >= 0.0 && at.x < self.width as f64 && at.y < self.height as f64;
        inside.then_some([at.x as usize, at.y as usize])
    }

    /// Returns the point in camera axes that is projected to (u, v) pixels and has z-coordinate `depth`.
    #[must_use]
    pub fn unproject(&self, u: f64, v: f64, depth: f64) -> DVec3 {
        DVec3::new((u - self.cx) / self.fx * depth, (v - self.cy) / self.fy * depth, depth)
    }

    /// Returns the horizontal field of view in radians.
    #[must_use]
    pub fn horizontal_fov(&self) -> f64 {
        let (left, right) = (self.cx + 0.5, self.width as f64 - 0.5 - self.cx);
        (left / self.fx).atan() + (right / self.fx).atan()
    }
}

impl fmt::Display for Intrinsics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, height, fx, fy, cx, cy } = self;
        write!(f, "{width} x {height}, f {fx:.1} {fy:.1}, c {cx:.1} {cy:.1}")
    }
}

/// Lens distortion by Brown's polynomial model, as in OpenCV.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Distortion {
    pub k1: f64,
    pub k2: f64,
    pub k3: f64,
    pub p1: f64,
    pub p2: f64,
}

impl Distortion {
    /// Returns `None` if the distortion has no effect, so that pictures are not resampled.
    pub(super) fn unless_zero(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }

    pub(super) fn is_finite(&self) -> bool {
        [self.k1, self.k2, self.k3, self.p1, self.p2].iter().all(|k| k.is_finite())
    }

    /// Maps the point (x, y) of an ideal camera to its place behind the lens, both at z = 1. Returns `None`
    /// beyond the point where the polynomial turns back, because it is not valid there.
    pub(super) fn distort(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        let rr = x * x + y * y;
        let slope = 1.0 + rr * (3.0 * self.k1 + rr * (5.0 * self.k2 + rr * 7.0 * self.k3));
        let outward = slope > 0.0;
        if !outward {
            return None;
        }
        let radial = 1.0 + rr * (self.k1 + rr * (self.k2 + rr * self.k3));
        Some((
            x * radial + 2.0 * self.p1 * x * y + self.p2 * (rr + 2.0 * x * x),
            y * radial + 2.0 * self.p2 * x * y + self.p1 * (rr + 2.0 * y * y),
        ))
    }
}

/// Directions of a camera's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axes {
    /// x right, y down, z forward: OpenCV, COLMAP, most RGB-D recordings.
    OpenCv,
    /// x right, y up, z backward: OpenGL, Blender, ARKit.
    OpenGl,
}

/// Direction of the transform that a pose matrix describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Camera coordinates to world coordinates.
    CameraToWorld,
    /// World coordinates to camera coordinates.
    WorldToCamera,
}

/// Convention in which a recording stores poses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoseConvention {
    /// The camera's axes.
    pub axes: Axes,
    /// Direction of the matrix.
    pub direction: Direction,
}

impl PoseConvention {
    /// Camera-to-world, x right, y down, z forward, as in [`Pose`].
    pub const OPENCV_CAMERA_TO_WORLD: Self = Self { axes: Axes::OpenCv, direction: Direction::CameraToWorld };
    /// Camera-to-world, x right, y up, z backward.
    pub const OPENGL_CAMERA_TO_WORLD: Self = Self { axes: Axes::OpenGl, direction: Direction::CameraToWorld };
    /// World-to-camera, x right, y down, z forward.
    pub const OPENCV_WORLD_TO_CAMERA: Self = Self { axes: Axes::OpenCv, direction: Direction::WorldToCamera };
}

impl fmt::Display for PoseConvention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.direction {
            Direction::CameraToWorld => "camera-to-world, ",
            Direction::WorldToCamera => "world-to-camera, ",
        })?;
        f.write_str(match self.axes {
            Axes::OpenCv => "OpenCV axes (x right, y down, z forward)",
            Axes::OpenGl => "OpenGL axes (x right, y up, z backward)",
        })
    }
}

/// Reasons why numbers are not a pose.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPose {
    /// A number is NaN or infinite. Trackers write this when they are lost.
    #[error("a number is not finite")]
    NotFinite,
    /// The 3x3 part is not a rotation.
    #[error("the 3x3 part deviates from a rotation by {deviation:.3} (expected at most {})", ROTATION_TOLERANCE)]
    NotRotation {
        /// Largest absolute entry of RᵀR − 1.
        deviation: f64,
    },
    /// The axes are left-handed.
    #[error("the 3x3 part is a reflection")]
    Mirrored,
    /// The quaternion does not have unit length.
    #[error("the quaternion has length {length:.3}, expected 1")]
    NotUnit {
        /// Its length.
        length: f64,
    },
    /// There are too few numbers for a pose.
    #[error("there are {found} numbers, expected {expected}")]
    Count {
        /// Number of values found.
        found: usize,
        /// Number of values expected.
        expected: &'static str,
    },
    /// The pose file does not contain numbers.
    #[error("the file does not contain numbers")]
    Unreadable,
}

/// Camera pose: a rigid transform from camera axes (x right, y down, z forward) to the world, in metres if
/// the recording is metric. It is always finite and its 3x3 part is always a rotation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pose {
    rotation: DMat3,
    translation: DVec3,
}

impl Default for Pose {
    fn default() -> Self {
        Self::IDENTITY
    }
}

impl Pose {
    /// The camera's axes are those of the world.
    pub const IDENTITY: Self = Self { rotation: DMat3::IDENTITY, translation: DVec3::ZERO };

    /// Creates a pose from the rows of a 3x4 matrix, or of a 4x4 matrix with the last row 0, 0, 0, 1.
    ///
    /// # Errors
    /// [`InvalidPose`] if there are not 12 or 16 numbers, if one is not finite, or if the 3x3 part is not a
    /// rotation, up to rounding.
    pub fn from_rows(rows: &[f64], convention: PoseConvention) -> Result<Self, InvalidPose> {
        let (12 | 16, Some(m)) = (rows.len(), rows.first_chunk::<12>()) else {
            return Err(InvalidPose::Count { found: rows.len(), expected: "12 or 16" });
        };
        let rotation = DMat3::from_cols_array(&[m[0], m[4], m[8], m[1], m[5], m[9], m[2], m[6], m[10]]);
        Self::new(rotation, DVec3::new(m[3], m[7], m[11]), convention)
    }

    /// Creates a pose from a quaternion (x, y, z, w), which is normalised, and a translation.
    ///
    /// # Errors
    /// [`InvalidPose`] if a number is not finite or the length of the quaternion differs from one by over a
    /// tenth.
    pub fn from_quaternion(
        xyzw: [f64; 4],
        translation: DVec3,
        convention: PoseConvention,
    ) -> Result<Self, InvalidPose> {
        let quaternion = DQuat::from_array(xyzw);
        let length = quaternion.length();
        if !(length.is_finite() && translation.is_finite()) {
            return Err(InvalidPose::NotFinite);
        }
        if (length - 1.0).abs() > 0.1 {
            return Err(InvalidPose::NotUnit { length });
        }
        Self::new(DMat3::from_quat(quaternion.normalize()), translation, convention)
    }

    /// Creates a pose from a rotation matrix and a translation.
    ///
    /// # Errors
    /// [`InvalidPose`] as for [`from_rows`](Self::from_rows).
    pub fn new(rotation: DMat3, translation: DVec3, convention: PoseConvention) -> Result<Self, InvalidPose> {
        if !(rotation.is_finite() && translation.is_finite()) {
            return Err(InvalidPose::NotFinite);
        }
        let off = rotation.transpose() * rotation - DMat3::IDENTITY;
        let deviation = off.to_cols_array().iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        // Phrased so that a NaN after an overflow fails.
        let is_rotation = deviation <= ROTATION_TOLERANCE;
        if !is_rotation {
            return Err(InvalidPose::NotRotation { deviation });
        }
        if rotation.determinant() < 0.0 {
            return Err(InvalidPose::Mirrored);
        }
        let rotation =
            if deviation > 1e-9 { DMat3::from_quat(DQuat::from_mat3(&rotation).normalize()) } else { rotation };
        let pose = Self { rotation, translation };
        let pose = if convention.direction == Direction::WorldToCamera { pose.inverse() } else { pose };
        Ok(if convention.axes == Axes::OpenGl { pose.with_flipped_yz() } else { pose })
    }

    /// Returns the rotation from camera axes to world axes.
    #[must_use]
    pub fn rotation(&self) -> DMat3 {
        self.rotation
    }

    /// Returns the camera's centre in the world.
    #[must_use]
    pub fn center(&self) -> DVec3 {
        self.translation
    }

    /// Transforms a point from camera axes to the world.
    #[must_use]
    pub fn to_world(&self, point: DVec3) -> DVec3 {
        self.rotation * point + self.translation
    }

    /// Transforms a point from the world to camera axes.
    #[must_use]
    pub fn to_camera(&self, point: DVec3) -> DVec3 {
        self.rotation.transpose() * (point - self.translation)
    }

    /// Returns the transform from world to camera.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let rotation = self.rotation.transpose();
        Self { rotation, translation: -(rotation * self.translation) }
    }

    /// Returns the rows of the 3x4 matrix from camera axes to the world.
    #[must_use]
    pub fn rows(&self) -> [[f64; 4]; 3] {
        let (r, t) = (self.rotation, self.translation);
        [r.row(0).extend(t.x).to_array(), r.row(1).extend(t.y).to_array(), r.row(2).extend(t.z).to_array()]
    }

    /// Returns the angle of the rotation between two cameras, in radians.
    #[must_use]
    pub fn angle_to(&self, other: &Self) -> f64 {
        let trace = (0..3).map(|axis| self.rotation.col(axis).dot(other.rotation.col(axis))).sum::<f64>();
        ((trace - 1.0) / 2.0).clamp(-1.0, 1.0).acos()
    }

    /// Interpolates the pose a fraction `t` of the way from `self` to `other`, with a uniform rotation.
    #[must_use]
    pub fn interpolated(&self, other: &Self, t: f64) -> Self {
        let turn = DQuat::from_mat3(&self.rotation).slerp(DQuat::from_mat3(&other.rotation), t);
        Self { rotation: DMat3::from_quat(turn.normalize()), translation: self.translation.lerp(other.translation, t) }
    }

    /// Returns the camera with reversed y and z axes: from OpenGL to OpenCV axes and back.
    pub(super) fn with_flipped_yz(&self) -> Self {
        let (x, y, z) = (self.rotation.x_axis, self.rotation.y_axis, self.rotation.z_axis);
        Self { rotation: DMat3::from_cols(x, -y, -z), ..*self }
    }

    /// Returns the pose with world and camera mirrored in y, which converts a left-handed recording to
    /// right-handed.
    pub(super) fn mirrored(&self) -> Self {
        let mirror = DMat3::from_diagonal(DVec3::new(1.0, -1.0, 1.0));
        Self { rotation: mirror * self.rotation * mirror, translation: mirror * self.translation }
    }

    /// Returns the pose with another rotation and the same centre.
    pub(super) fn with_rotation(&self, rotation: DQuat) -> Self {
        Self { rotation: DMat3::from_quat(rotation.normalize()), ..*self }
    }

    /// Returns the pose with the inverse rotation and the same centre.
    pub(super) fn with_transposed_rotation(&self) -> Self {
        Self { rotation: self.rotation.transpose(), ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pose() -> Pose {
        let quaternion = DQuat::from_euler(glam::EulerRot::XYZ, 0.3, -1.1, 2.0);
        let translation = DVec3::new(1.0, -2.0, 0.5);
        Pose::from_quaternion(quaternion.to_array(), translation, PoseConvention::OPENCV_CAMERA_TO_WORLD).unwrap()
    }

    fn near(a: &Pose, b: &Pose) -> bool {
        a.rotation.abs_diff_eq(b.rotation, 1e-12) && a.translation.abs_diff_eq(b.translation, 1e-12)
    }

    #[test]
    fn pixels_are_where_they_were_after_scaling() {
        let camera = Intrinsics::new(640, 480, 525.0, 520.0, 319.5, 239.5).unwrap();
        let half = camera.scaled_to(320, 240);
        assert_eq!((half.cx, half.cy, half.fx), (159.5, 119.5, 262.5));
        // The left edge of the picture is still its left edge.
        let edge = camera.unproject(-0.5, -0.5, 2.0);
        assert!(half.project(edge).unwrap().abs_diff_eq(DVec2::splat(-0.5), 1e-12));
        assert_eq!(camera.pixel(camera.unproject(0.4, 479.4, 3.0)), Some([0, 479]));
        assert_eq!(camera.pixel(camera.unproject(-0.6, 10.0, 3.0)), None);
        assert_eq!(camera.pixel(DVec3::new(0.0, 0.0, -1.0)), None);
        assert_eq!(camera.pixel(DVec3::NAN), None);
        assert!((camera.horizontal_fov().to_degrees() - 62.7).abs() < 0.1);
    }

    #[test]
    fn impossible_cameras_are_refused() {
        assert!(Intrinsics::new(0, 4, 1.0, 1.0, 0.0, 0.0).is_err());
        assert!(Intrinsics::new(4, 4, 1.0, -1.0, 0.0, 0.0).is_err());
        assert!(Intrinsics::new(4, 4, f64::NAN, 1.0, 0.0, 0.0).is_err());
        assert!(Intrinsics::new(4, 4, 1.0, 1.0, f64::INFINITY, 0.0).is_err());
    }

    #[test]
    fn conventions_agree() {
        let pose = pose();
        let flat = |pose: &Pose| pose.rows().as_flattened().to_vec();
        let read = |rows: &[f64], convention| Pose::from_rows(rows, convention).unwrap();
        assert!(near(&read(&flat(&pose), PoseConvention::OPENCV_CAMERA_TO_WORLD), &pose));
        assert!(near(&read(&flat(&pose.inverse()), PoseConvention::OPENCV_WORLD_TO_CAMERA), &pose));
        let opengl = pose.with_flipped_yz();
        assert!(near(&read(&flat(&opengl), PoseConvention::OPENGL_CAMERA_TO_WORLD), &pose));
        // y is up and z backward, so points in front of the camera have negative z.
        let ahead = opengl.rotation * DVec3::new(0.0, 1.0, -2.0) + opengl.translation;
        assert!(pose.to_camera(ahead).abs_diff_eq(DVec3::new(0.0, -1.0, 2.0), 1e-12));
        let point = DVec3::new(0.2, 0.7, 3.0);
        assert!(pose.to_camera(pose.to_world(point)).abs_diff_eq(point, 1e-12));
        assert!(near(&pose.mirrored().mirrored(), &pose));
    }

    #[test]
    fn invalid_poses_are_told_apart() {
        let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
        let mut rows = pose().rows().as_flattened().to_vec();
        assert!(matches!(Pose::from_rows(&rows[..11], convention), Err(InvalidPose::Count { found: 11, .. })));
        rows[3] = f64::NEG_INFINITY;
        assert_eq!(Pose::from_rows(&rows, convention), Err(InvalidPose::NotFinite));
        let identity = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let scaled = identity.map(|x| x * 1.1);
        assert!(matches!(Pose::from_rows(&scaled, convention), Err(InvalidPose::NotRotation { .. })));
        let huge = identity.map(|x| x * 1e300);
        assert!(matches!(Pose::from_rows(&huge, convention), Err(InvalidPose::NotRotation { .. })));
        let mut mirrored = identity;
        mirrored[0] = -1.0;
        assert_eq!(Pose::from_rows(&mirrored, convention), Err(InvalidPose::Mirrored));
        let quaternion = |q| Pose::from_quaternion(q, DVec3::ZERO, convention);
        assert!(matches!(quaternion([0.0; 4]), Err(InvalidPose::NotUnit { .. })));
        assert_eq!(quaternion([0.0, 0.0, 0.0, f64::NAN]), Err(InvalidPose::NotFinite));
        // Rounded to three digits the matrix is still accepted as a rotation, and is made an exact one.
        let rounded: Vec<f64> = pose().rows().as_flattened().iter().map(|x| (x * 1e3).round() / 1e3).collect();
        let read = Pose::from_rows(&rounded, convention).unwrap();
        assert!((read.rotation.transpose() * read.rotation).abs_diff_eq(DMat3::IDENTITY, 1e-14));
        assert!(read.rotation.abs_diff_eq(pose().rotation, 2e-3));
    }

    #[test]
    fn between_two_poses() {
        let (a, b) = (Pose::IDENTITY, pose());
        assert!(near(&a.interpolated(&b, 0.0), &a) && near(&a.interpolated(&b, 1.0), &b));
        let half = a.interpolated(&b, 0.5);
        assert!((a.angle_to(&half) - half.angle_to(&b)).abs() < 1e-9);
    }

    #[test]
    fn distortion_ends_where_it_turns_back() {
        let barrel = Distortion { k1: -0.3, ..Distortion::default() };
        assert_eq!(barrel.distort(0.0, 0.0), Some((0.0, 0.0)));
        let (x, _) = barrel.distort(0.5, 0.0).unwrap();
        assert!((x - 0.4625).abs() < 1e-12);
        assert_eq!(barrel.distort(1.2, 0.0), None);
        assert_eq!(barrel.distort(f64::NAN, 0.0), None);
        assert!(Distortion::default().unless_zero().is_none());
    }
}
