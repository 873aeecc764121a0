//! The camera that points and triangles are drawn from.

use super::OpError;

/// Longest side of an image, in pixels.
pub const MAX_SIDE: usize = 4000;

/// A pinhole camera in the frame of the re-centred points, as kernels take it.
///
/// Axes are x right, y down, z forward; the centre of pixel (column, row) is at the image coordinates
/// (column, row).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pinhole {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Focal lengths in pixels, along the columns and along the rows.
    pub focal: [f32; 2],
    /// Principal point in pixels, column and row.
    pub principal: [f32; 2],
    /// The camera's x, y and z axis in the frame of the points.
    pub axes: [[f32; 3]; 3],
    /// Position of the camera in the frame of the points.
    pub center: [f32; 3],
    /// Least distance in front of the camera at which anything is drawn; above 0.
    pub near: f32,
}

/// The parameters `$params { .. }` of a shader that takes a [`Pinhole`], with those of its fields that all such shaders
/// have.
macro_rules! pinhole_params {
    ($camera:expr, $params:path { $($field:ident $(: $value:expr)?),* $(,)? }) => {{
        let camera: $crate::ops::pinhole::Pinhole = $camera;
        let [x, y, z] = camera.axes;
        $params {
            $($field $(: $value)?,)*
            width: camera.width as u32,
            height: camera.height as u32,
            principal_x: camera.principal[0],
            principal_y: camera.principal[1],
            xx: x[0],
            xy: x[1],
            xz: x[2],
            yx: y[0],
            yy: y[1],
            yz: y[2],
            zx: z[0],
            zy: z[1],
            zz: z[2],
            center_x: camera.center[0],
            center_y: camera.center[1],
            center_z: camera.center[2],
        }
    }};
}
pub(crate) use pinhole_params;

impl Pinhole {
    /// Number of pixels.
    #[must_use]
    pub fn num_pixels(&self) -> usize {
        self.width * self.height
    }

    /// Refuses an image without pixels or with more than [`MAX_SIDE`] on a side, and a near plane that is
    /// not in front.
    pub(crate) fn check(&self, op: &'static str) -> Result<(), OpError> {
        let refused = |message| Err(OpError::Value { op, message });
        let sides = [self.width, self.height];
        if sides.iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
            let [width, height] = sides;
            return refused(format!("an image of {width} x {height} pixels, expected 1 to {MAX_SIDE} on a side"));
        }
        let positive = self.focal.iter().chain([&self.near]).all(|value| *value > 0.0 && value.is_finite());
        let finite = self.axes.as_flattened().iter().chain(&self.center).chain(&self.principal).all(|v| v.is_finite());
        if !(positive && finite) {
            return refused(format!("{self:?}, expected finite values, focal lengths and near plane above 0"));
        }
        Ok(())
    }

    /// A point in the camera's axes. The products are added in order, as the kernels do.
    #[inline]
    #[must_use]
    pub fn to_camera(self, point: [f32; 3]) -> [f32; 3] {
        let d = [point[0] - self.center[0], point[1] - self.center[1], point[2] - self.center[2]];
        self.axes.map(|a| a[0] * d[0] + a[1] * d[1] + a[2] * d[2])
    }
}
