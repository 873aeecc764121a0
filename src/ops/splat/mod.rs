//! Points drawn as discs, with depth and the index of what is seen, and the gaps between them closed.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::pinhole::{Pinhole, pinhole_params};
use super::{OpError, ShapeCheck, float_tensor, host_tensor, int_tensor, limits_of, rows, run};
use crate::gpu::shaders::splat::{clear, fill as fill_shader, splat as shader};
use crate::gpu::{Client, Handle, check_binding, empty_f32, empty_i32, launch, scalar_buffer};

/// The image of a scene: depth, and the point or triangle seen through each pixel.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// `[height, width]`, distance along the camera's z axis; 0 where there is nothing.
    pub depth: Tensor<2>,
    /// `[height, width]`, point or triangle; -1 where there is nothing.
    pub index: Tensor<2, Int>,
}

impl Drawn {
    /// An image of nothing.
    pub(crate) fn empty(camera: &Pinhole, device: &Device) -> Self {
        let (shape, len) = ([camera.height, camera.width], camera.num_pixels());
        Self { depth: float_tensor(vec![0.0; len], shape, device), index: int_tensor(vec![-1; len], shape, device) }
    }
}

/// Draws `points [N, 3]` as discs with `radii [N]` in the points' unit, which face the camera.
///
/// A disc's radius in the image is its own by the horizontal focal length and the depth of its centre, held
/// between 0.75 and 32 pixels. The front surface of a pixel is everything on it that is at most `slack` of its
/// own radii behind the least depth there. The pixel shows the point of that surface whose centre is nearest in
/// the image, measured in whole 1/16 pixels; of equals the one with the lowest index. Points nearer than `camera.near`
/// or behind the camera, and such that are not finite, are not drawn, nor those with a radius below 0. Radii and
/// `slack` are finite, `slack` not negative.
///
/// The answer does not depend on scheduling; devices may differ where rounding decides.
///
/// # Errors
/// [`OpError::Shape`] where the tensors disagree; [`OpError::Value`] where the camera is not finite or its image
/// has no pixels or too many, or there are more points than an i32 counts; [`OpError::TooLarge`] where the points
/// or the image do not fit one buffer.
pub fn splat(points: Tensor<2>, radii: Tensor<1>, camera: &Pinhole, slack: f32) -> Result<Drawn, OpError> {
    let mut shapes = ShapeCheck::new("splat");
    shapes.check("points", points.dims(), ["N".into(), 3.into()])?;
    shapes.check("radii", radii.dims(), ["N".into()])?;
    camera.check("splat")?;
    check_count("points", &shapes, points.dims()[0])?;
    let device = points.device();
    let limits = limits_of(&device);
    check_binding(limits, "splat: points", points.dims()[0], 12)?;
    check_binding(limits, "splat: image", camera.num_pixels(), 4)?;
    if points.dims()[0] == 0 {
        return Ok(Drawn::empty(camera, &device));
    }
    let (depth, index) = run(
        (points, radii),
        |(points, radii)| splat_wgsl(&points, &radii, *camera, slack),
        |(points, radii)| {
            let seen = cpu::splat(camera, rows(&points), &radii, slack);
            let size = [camera.height, camera.width];
            (host_tensor(seen.depth, size), host_tensor(seen.index, size))
        },
    );
    Ok(Drawn { depth, index })
}

fn splat_wgsl(points: &CubeTensor, radii: &CubeTensor, camera: Pinhole, slack: f32) -> (CubeTensor, CubeTensor) {
    let client = &points.client;
    let (num_points, size) = (points.shape()[0], [camera.height, camera.width]);
    let [nearest, closest, index] = std::array::from_fn(|_| cleared(client, camera.num_pixels()));
    for stage in 0..4 {
        launch(
            client,
            &shader::BASE,
            num_points.div_ceil(shader::WG as usize),
            &pinhole_params!(
                camera,
                shader::Params {
                    num_points: num_points as u32,
                    stage,
                    focal_x: camera.focal[0],
                    focal_y: camera.focal[1],
                    near: camera.near,
                    slack,
                }
            ),
            &[&points.handle, &radii.handle, &nearest, &closest, &index],
        );
    }
    let (depth, seen) = (empty_f32(points, size), empty_i32(points, size));
    fill_wgsl(client, size, (0, 0.0), [&nearest, &index], [&depth.handle, &seen.handle]);
    (depth, seen)
}

/// Closes gaps between what was drawn, in one pass that sees `reach` pixels far.
///
/// A pixel is a gap if it is empty, or if something far behind its surroundings shows through them: along the
/// 8 directions of a compass a nearer pixel comes within `reach` pixels in at least 7. Directions that
/// leave the image within `reach` count as well, but at least 3 nearer pixels must be found, 4 where one direction
/// has none. To an empty pixel anything is nearer, to another one what has less than `leak` times its depth. A gap
/// takes depth and index of the nearest of those pixels in the image; of equals the first, from the right clockwise.
///
/// # Errors
/// [`OpError::Shape`] where the images disagree; [`OpError::TooLarge`] where they do not fit one buffer.
pub fn fill(drawn: Drawn, reach: usize, leak: f32) -> Result<Drawn, OpError> {
    let mut shapes = ShapeCheck::new("fill");
    shapes.check("depth", drawn.depth.dims(), ["height".into(), "width".into()])?;
    shapes.check("index", drawn.index.dims(), ["height".into(), "width".into()])?;
    let size = drawn.depth.dims();
    check_binding(limits_of(&drawn.depth.device()), "fill: image", size[0] * size[1], 4)?;
    if size[0] * size[1] == 0 || reach == 0 {
        return Ok(drawn);
    }
    let reach = reach.min(size[0].max(size[1]));
    let (depth, index) = run(
        (drawn.depth, drawn.index),
        |(depth, index)| {
            let filled = (empty_f32(&depth, size), empty_i32(&depth, size));
            let (from, to) = ([&depth.handle, &index.handle], [&filled.0.handle, &filled.1.handle]);
            fill_wgsl(&depth.client, size, (reach, leak), from, to);
            filled
        },
        |(depth, index)| {
            let filled = cpu::fill(&depth, &index, size[1], reach, leak);
            (host_tensor(filled.depth, size), host_tensor(filled.index, size))
        },
    );
    Ok(Drawn { depth, index })
}

/// Refuses a `count` whose indices do not fit the index image.
pub(crate) fn check_count(what: &str, shapes: &ShapeCheck, count: usize) -> Result<(), OpError> {
    match i32::try_from(count) {
        Ok(_) => Ok(()),
        Err(_) => Err(shapes.value(format!("{count} {what}, expected at most {}", i32::MAX))),
    }
}

/// A buffer of `len` words, each the largest there is.
pub(crate) fn cleared(client: &Client, len: usize) -> Handle {
    let words = scalar_buffer(client, len);
    let params = clear::Params { num_words: len as u32 };
    launch(client, &clear::BASE, len.div_ceil(clear::WG as usize), &params, &[&words]);
    words
}

/// One pass of filling; with a reach of 0 it only turns the depth of empty pixels into 0.
pub(crate) fn fill_wgsl(
    client: &Client,
    [height, width]: [usize; 2],
    (reach, leak): (usize, f32),
    from: [&Handle; 2],
    to: [&Handle; 2],
) {
    launch(
        client,
        &fill_shader::BASE,
        (height * width).div_ceil(fill_shader::WG as usize),
        &fill_shader::Params { width: width as u32, height: height as u32, reach: reach as u32, leak },
        &[from[0], from[1], to[0], to[1]],
    );
}
