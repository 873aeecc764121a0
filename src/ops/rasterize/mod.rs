//! Triangles drawn with depth and the index of what is seen, and values interpolated over them.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn::tensor::DType;
use burn_wgpu::CubeTensor;

use super::pinhole::{Pinhole, pinhole_params};
use super::splat::{Drawn, check_count, cleared, fill_wgsl};
use super::{OpError, ShapeCheck, host_tensor, int_tensor, int_values, limits_of, plain, plain_int, rows, run};
use crate::gpu::shaders::rasterize::{rasterize as shader, shade as shade_shader};
use crate::gpu::{check_binding, empty_f32, empty_i32, launch};

/// Triangles with their vertices on a device, looked through once, so that drawing them need not.
#[derive(Clone, Debug)]
pub struct Mesh {
    vertices: Tensor<2>,
    triangles: Tensor<2, Int>,
}

impl Mesh {
    /// `triangles [T, 3]`, each three rows of `vertices [V, 3]`. Vertices are finite. Reads the largest index back, so
    /// it waits for the device.
    ///
    /// # Errors
    /// [`OpError::Shape`] where the rows are not of three; [`OpError::Value`] where a triangle has a corner outside
    /// 0..V, or there are more triangles than an i32 counts; [`OpError::TooLarge`] where a tensor does not fit one
    /// buffer; [`OpError::Device`] where the device failed.
    pub fn new(vertices: Tensor<2>, triangles: Tensor<2, Int>) -> Result<Self, OpError> {
        let mut shapes = ShapeCheck::new("rasterize");
        shapes.check("vertices", vertices.dims(), ["V".into(), 3.into()])?;
        shapes.check("triangles", triangles.dims(), ["T".into(), 3.into()])?;
        let ([num_vertices, _], [num_triangles, _]) = (vertices.dims(), triangles.dims());
        let limits = limits_of(&vertices.device());
        check_binding(limits, "rasterize: vertices", num_vertices, 12)?;
        check_binding(limits, "rasterize: triangles", num_triangles, 12)?;
        check_count("triangles", &shapes, num_triangles)?;
        let triangles = plain_int(triangles);
        if num_triangles > 0 {
            let (least, most) = (int_values(triangles.clone().min())?[0], int_values(triangles.clone().max())?[0]);
            if least < 0 || most as usize >= num_vertices {
                let message = format!("triangles with corners {least} to {most}, expected 0 to below {num_vertices}");
                return Err(shapes.value(message));
            }
        }
        Ok(Self { vertices: plain(vertices), triangles })
    }

    /// The same with only the triangles that are `shown`, one entry for each; they keep their numbers.
    ///
    /// # Errors
    /// [`OpError::Shape`] unless there are as many entries as triangles.
    pub fn showing(&self, shown: &[bool]) -> Result<Self, OpError> {
        let mut shapes = ShapeCheck::new("rasterize");
        shapes.check("triangles", self.triangles.dims(), ["T".into(), 3.into()])?;
        shapes.check("shown", [shown.len()], ["T".into()])?;
        if shown.is_empty() {
            return Ok(self.clone());
        }
        // A triangle with a corner twice is not drawn.
        let factors = shown.iter().map(|&shown| i32::from(shown)).collect();
        let factors = int_tensor(factors, [shown.len(), 1], &self.triangles.device());
        Ok(Self { vertices: self.vertices.clone(), triangles: self.triangles.clone() * factors })
    }
}

/// Draws the triangles of `mesh`, from both sides.
///
/// A pixel shows the triangle that the ray through its centre meets first, at `camera.near` or beyond; of equally
/// near ones that with the lowest index. Triangles that reach behind the camera are cut exactly, pixel by
/// pixel. Along a common edge two triangles leave no pixel out. Triangles with a corner twice are not drawn.
///
/// The answer does not depend on scheduling; devices may differ where rounding decides.
///
/// # Errors
/// [`OpError::Value`] where the camera is not finite or its image has no pixels or too many;
/// [`OpError::TooLarge`] where the image does not fit one buffer.
pub fn rasterize(mesh: &Mesh, camera: &Pinhole) -> Result<Drawn, OpError> {
    camera.check("rasterize")?;
    let (device, num_triangles) = (mesh.vertices.device(), mesh.triangles.dims()[0]);
    check_binding(limits_of(&device), "rasterize: image", camera.num_pixels(), 4)?;
    if num_triangles == 0 {
        return Ok(Drawn::empty(camera, &device));
    }
    let (depth, index) = run(
        (mesh.vertices.clone(), mesh.triangles.clone()),
        |(vertices, triangles)| rasterize_wgsl(&vertices, &triangles, *camera),
        |(vertices, triangles)| {
            // Corners are not negative, as `Mesh::new` checked: the bits are the same.
            let seen = cpu::rasterize(camera, rows(&vertices), bytemuck::cast_slice(&triangles));
            let size = [camera.height, camera.width];
            (host_tensor(seen.depth, size), host_tensor(seen.index, size))
        },
    );
    Ok(Drawn { depth, index })
}

fn rasterize_wgsl(vertices: &CubeTensor, triangles: &CubeTensor, camera: Pinhole) -> (CubeTensor, CubeTensor) {
    let client = &vertices.client;
    let (num_triangles, size) = (triangles.shape()[0], [camera.height, camera.width]);
    let [nearest, index] = std::array::from_fn(|_| cleared(client, camera.num_pixels()));
    for (stage, large) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let num_workgroups = if large == 1 { num_triangles } else { num_triangles.div_ceil(shader::WG as usize) };
        launch(
            client,
            &shader::BASE,
            num_workgroups,
            &pinhole_params!(
                camera,
                shader::Params {
                    num_triangles: num_triangles as u32,
                    stage,
                    large,
                    focal_x: camera.focal[0],
                    focal_y: camera.focal[1],
                    ray_x: 1.0 / camera.focal[0],
                    ray_y: 1.0 / camera.focal[1],
                    near: camera.near,
                }
            ),
            &[&vertices.handle, &triangles.handle, &nearest, &index],
        );
    }
    let (depth, seen) = (empty_f32(vertices, size), empty_i32(vertices, size));
    fill_wgsl(client, size, (0, 0.0), [&nearest, &index], [&depth.handle, &seen.handle]);
    (depth, seen)
}

/// The rows of `colors [V, C]` at the corners of the triangle each pixel shows, interpolated in space (not in
/// the image): `[height, width, C]`, 0 where `index [height, width]` is of no triangle.
///
/// `index` is that of [`rasterize`] with the same mesh and camera.
///
/// # Errors
/// [`OpError::Shape`] where the tensors disagree; [`OpError::Value`] and [`OpError::TooLarge`] as [`rasterize`], the
/// latter also where the colours do not fit one buffer.
pub fn shade(mesh: &Mesh, colors: Tensor<2>, index: Tensor<2, Int>, camera: &Pinhole) -> Result<Tensor<3>, OpError> {
    let mut shapes = ShapeCheck::new("shade");
    shapes.check("vertices", mesh.vertices.dims(), ["V".into(), 3.into()])?;
    shapes.check("colors", colors.dims(), ["V".into(), "C".into()])?;
    shapes.check("index", index.dims(), [camera.height.into(), camera.width.into()])?;
    camera.check("shade")?;
    let [num_vertices, num_channels] = colors.dims();
    let device = mesh.vertices.device();
    check_binding(limits_of(&device), "shade: colors", num_vertices, num_channels * 4)?;
    check_binding(limits_of(&device), "shade: image", camera.num_pixels(), num_channels * 4)?;
    if mesh.triangles.dims()[0] == 0 || num_channels == 0 {
        return Ok(Tensor::zeros([camera.height, camera.width, num_channels], (&device, DType::F32)));
    }
    Ok(run(
        (mesh.vertices.clone(), mesh.triangles.clone(), colors, index),
        |(vertices, triangles, colors, index)| shade_wgsl(&vertices, &triangles, &colors, &index, *camera),
        |(vertices, triangles, colors, index)| {
            let triangles = bytemuck::cast_slice(&triangles);
            let shaded = cpu::shade(camera, rows(&vertices), triangles, &colors, num_channels, &index);
            host_tensor(shaded, [camera.height, camera.width, num_channels])
        },
    ))
}

fn shade_wgsl(
    vertices: &CubeTensor,
    triangles: &CubeTensor,
    colors: &CubeTensor,
    index: &CubeTensor,
    camera: Pinhole,
) -> CubeTensor {
    let num_channels = colors.shape()[1];
    let out = empty_f32(vertices, [camera.height, camera.width, num_channels]);
    launch(
        &vertices.client,
        &shade_shader::BASE,
        camera.num_pixels().div_ceil(shade_shader::WG as usize),
        &pinhole_params!(
            camera,
            shade_shader::Params {
                num_triangles: triangles.shape()[0] as u32,
                num_channels: num_channels as u32,
                ray_x: 1.0 / camera.focal[0],
                ray_y: 1.0 / camera.focal[1],
            }
        ),
        &[&vertices.handle, &triangles.handle, &colors.handle, &index.handle, &out.handle],
    );
    out
}
