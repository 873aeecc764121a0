//! Surface normals by principal components of the neighbourhood.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::{OpError, ShapeCheck, host_tensor, limits_of, rows, run};
use crate::gpu::shaders::normals::normals as shader;
use crate::gpu::{check_binding, empty_f32, launch};

pub use cpu::Orientation;

/// Unit normals `[R, 3]` of the points `first_row..first_row + R` among `points [N, 3]`, from their
/// `neighbors [R, K]` (-1: none).
///
/// The normal is the direction of least variance among the neighbours and the point itself (Hoppe et
/// al., SIGGRAPH 1992), by eight cyclic Jacobi sweeps, turned towards the view point or upwards (+z).
/// Fewer than two neighbours, or all of them coincident, give (0, 0, 1).
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] where the rows leave the points;
/// [`OpError::TooLarge`] where the points or the neighbours do not fit one buffer.
pub fn normals(
    points: Tensor<2>,
    neighbors: Tensor<2, Int>,
    first_row: usize,
    orientation: Orientation,
) -> Result<Tensor<2>, OpError> {
    let mut shapes = ShapeCheck::new("normals");
    shapes.check("points", points.dims(), ["N".into(), 3.into()])?;
    shapes.check("neighbors", neighbors.dims(), ["R".into(), "K".into()])?;
    let ([num_points, _], [num_rows, k]) = (points.dims(), neighbors.dims());
    if first_row + num_rows > num_points {
        let last = first_row + num_rows;
        return Err(shapes.value(format!("rows {first_row}..{last}, expected within 0..{num_points}")));
    }
    let device = points.device();
    check_binding(limits_of(&device), "normals: points", num_points, 12)?;
    check_binding(limits_of(&device), "normals: neighbors", num_rows, k * 4)?;
    if num_rows == 0 {
        return Ok(Tensor::zeros([0, 3], &device));
    }
    Ok(run(
        (points, neighbors),
        |(points, neighbors)| normals_wgsl(&points, &neighbors, first_row, orientation),
        |(points, neighbors)| {
            let normals = match k {
                // Without neighbours there is nothing to tell the number of rows by.
                0 => vec![[0.0, 0.0, 1.0]; num_rows],
                _ => cpu::normals(rows(&points), &neighbors, k, first_row, orientation),
            };
            host_tensor(normals.into_flattened(), [num_rows, 3])
        },
    ))
}

fn normals_wgsl(points: &CubeTensor, neighbors: &CubeTensor, first_row: usize, orientation: Orientation) -> CubeTensor {
    let [num_rows, k] = neighbors.shape().dims();
    let normals = empty_f32(points, [num_rows, 3]);
    let (has_viewpoint, [view_x, view_y, view_z]) = match orientation {
        Orientation::Viewpoint(view) => (1, view),
        Orientation::Up => (0, [0.0; 3]),
    };
    launch(
        &points.client,
        &shader::BASE,
        num_rows.div_ceil(shader::WG as usize),
        &shader::Params {
            num_points: points.shape()[0] as u32,
            num_rows: num_rows as u32,
            first_row: first_row as u32,
            k: k as u32,
            has_viewpoint,
            view_x,
            view_y,
            view_z,
        },
        &[&points.handle, &neighbors.handle, &normals.handle],
    );
    normals
}
