//! Projection of points into a view, with the test of what hides them.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::pinhole::Pinhole;
use super::{OpError, ShapeCheck, host_tensor, limits_of, rows, run};
use crate::gpu::shaders::project::project as shader;
use crate::gpu::{check_binding, empty_i32, launch};

/// A pinhole camera over an image. Axes: x to the right, y down, z forward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Camera {
    /// Rows of the rigid transform from the points' frame to the camera's, `[R | t]`.
    pub world_to_camera: [[f32; 4]; 3],
    /// Focal lengths in pixels, along x and y.
    pub focal: [f32; 2],
    /// Principal point in pixels, the middle of the first pixel being (0, 0).
    pub center: [f32; 2],
    /// Columns of the image.
    pub width: usize,
    /// Rows of the image.
    pub height: usize,
}

impl Camera {
    /// The camera as the reference takes it for an image resized to `size` (height, width), at the points' own frame: the
    /// principal point is moved to the middle, and the focal lengths scaled as if it had been there.
    #[must_use]
    pub fn centered(focal: [f32; 2], center: [f32; 2], [height, width]: [usize; 2]) -> Self {
        let size = [width as f32, height as f32];
        Self {
            world_to_camera: [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
            focal: std::array::from_fn(|axis| focal[axis] * size[axis] / (2.0 * center[axis])),
            center: size.map(|size| size / 2.0),
            width,
            height,
        }
    }
}

impl From<&Pinhole> for Camera {
    /// The camera that draws points, as the one that sees them. What is nearer than the near plane is seen too.
    fn from(pinhole: &Pinhole) -> Self {
        let row = |axis: [f32; 3]| {
            let along: f64 = axis.iter().zip(pinhole.center).map(|(&a, c)| f64::from(a) * f64::from(c)).sum();
            [axis[0], axis[1], axis[2], -along as f32]
        };
        Self {
            world_to_camera: pinhole.axes.map(row),
            focal: pinhole.focal,
            center: pinhole.principal,
            width: pinhole.width,
            height: pinhole.height,
        }
    }
}

/// When a point counts as seen. The defaults are the reference's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Visibility {
    /// Pixels at the image's edge that see nothing.
    pub border: usize,
    /// How far a point may be from the depth map, as a share of the depth there.
    pub depth_tolerance: f32,
}

impl Default for Visibility {
    fn default() -> Self {
        Self { border: 10, depth_tolerance: 0.05 }
    }
}

/// The pixel (row · width + column) at which each of `points [N, 3]` is seen, -1 where it is not: it lies behind the
/// camera, within `border` pixels of the edge or outside, or its distance along the axis differs from `depth
/// [H, W]` at its pixel by more than the tolerance. Pixels are rounded to the nearest, halves to the even one; a
/// depth of 0 sees nothing.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree with each other or the camera; [`OpError::TooLarge`] where the points
/// do not fit one buffer.
pub fn project(
    points: Tensor<2>,
    depth: Tensor<2>,
    camera: Camera,
    visibility: Visibility,
) -> Result<Tensor<1, Int>, OpError> {
    let mut shapes = ShapeCheck::new("project");
    shapes.check("points", points.dims(), ["N".into(), 3.into()])?;
    shapes.check("depth", depth.dims(), [camera.height.into(), camera.width.into()])?;
    let (num_points, device) = (points.dims()[0], points.device());
    check_binding(limits_of(&device), "project: points", num_points, 12)?;
    check_binding(limits_of(&device), "project: depth", camera.height, camera.width * 4)?;
    if num_points == 0 || camera.height * camera.width == 0 {
        return Ok(super::int_tensor(vec![-1; num_points], [num_points], &device));
    }
    Ok(run(
        (points, depth),
        |(points, depth)| project_wgsl(&points, Some(&depth), camera, visibility),
        |(points, depth)| host_tensor(cpu::project(rows(&points), &depth, &camera, visibility), [num_points]),
    ))
}

/// As [`project`], for points that nothing hides.
///
/// # Errors
/// As [`project`].
pub fn project_unhidden(points: Tensor<2>, camera: Camera, border: usize) -> Result<Tensor<1, Int>, OpError> {
    ShapeCheck::new("project").check("points", points.dims(), ["N".into(), 3.into()])?;
    let (num_points, device) = (points.dims()[0], points.device());
    check_binding(limits_of(&device), "project: points", num_points, 12)?;
    // Pixels are numbered by i32.
    check_binding(limits_of(&device), "project: pixels", camera.height, camera.width * 4)?;
    if num_points == 0 || camera.height * camera.width == 0 {
        return Ok(super::int_tensor(vec![-1; num_points], [num_points], &device));
    }
    Ok(run(
        points,
        |points| project_wgsl(&points, None, camera, Visibility { border, ..Visibility::default() }),
        |points| host_tensor(cpu::project_unhidden(rows(&points), &camera, border), [num_points]),
    ))
}

fn project_wgsl(points: &CubeTensor, depth: Option<&CubeTensor>, camera: Camera, visibility: Visibility) -> CubeTensor {
    let num_points = points.shape()[0];
    let pixel_from_point = empty_i32(points, [num_points]);
    let [[xx, xy, xz, xt], [yx, yy, yz, yt], [zx, zy, zz, zt]] = camera.world_to_camera;
    let params = shader::Params {
        xx,
        xy,
        xz,
        xt,
        yx,
        yy,
        yz,
        yt,
        zx,
        zy,
        zz,
        zt,
        focal_x: camera.focal[0],
        focal_y: camera.focal[1],
        center_x: camera.center[0],
        center_y: camera.center[1],
        depth_tolerance: visibility.depth_tolerance,
        num_points: num_points as u32,
        width: camera.width as u32,
        height: camera.height as u32,
        border: visibility.border as u32,
    };
    let mut buffers = vec![&points.handle, &pixel_from_point.handle];
    let shader = match depth {
        Some(depth) => {
            buffers.push(&depth.handle);
            &shader::BASE
        }
        None => &shader::UNHIDDEN,
    };
    launch(&points.client, shader, num_points.div_ceil(shader::WG as usize), &params, &buffers);
    pixel_from_point
}
