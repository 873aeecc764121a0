//! Surface normals by principal components of the neighbourhood.

pub mod cpu;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, plain, plain_int, rows};
use crate::gpu::shaders::normals::normals as shader;
use crate::gpu::{empty_f32, launch};

pub use cpu::Orientation;

/// Backend side of [`normals`]; preconditions are checked there.
#[backend_extension(Cube, Flex)]
pub trait NormalsBackend: Backend {
    /// See [`normals`].
    fn normals(points: FloatTensor<Self>, neighbors: IntTensor<Self>, orientation: Orientation) -> FloatTensor<Self>;
}

/// Unit normals `[N, 3]` of `points [N, 3]` from their `neighbors [N, K]` (-1: none).
///
/// The normal is the direction of least variance among the neighbours and the point itself (Hoppe et
/// al., SIGGRAPH 1992), by eight cyclic Jacobi sweeps, turned towards the view point or upwards (+z).
/// Fewer than two neighbours, or all of them coincident, give (0, 0, 1).
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree.
pub fn normals(points: Tensor<2>, neighbors: Tensor<2, Int>, orientation: Orientation) -> Result<Tensor<2>, OpError> {
    let mut shapes = ShapeCheck::new("normals");
    shapes.check("points", points.dims(), ["N".into(), 3.into()])?;
    shapes.check("neighbors", neighbors.dims(), ["N".into(), "K".into()])?;
    if points.dims()[0] == 0 {
        return Ok(plain(points));
    }
    Ok(Tensor::from_dispatch(Dispatch::normals(
        plain(points).into_dispatch(),
        plain_int(neighbors).into_dispatch(),
        orientation,
    )))
}

impl NormalsBackend for CubeBackend {
    fn normals(points: FloatTensor<Self>, neighbors: IntTensor<Self>, orientation: Orientation) -> FloatTensor<Self> {
        let (points, neighbors) = (into_contiguous(points), into_contiguous(neighbors));
        let [num_points, k] = neighbors.shape().dims();
        let normals = empty_f32(&points, [num_points, 3]);
        let (has_viewpoint, [view_x, view_y, view_z]) = match orientation {
            Orientation::Viewpoint(view) => (1, view),
            Orientation::Up => (0, [0.0; 3]),
        };
        launch(
            &points.client,
            &shader::BASE,
            num_points.div_ceil(shader::WG as usize),
            &shader::Params { num_points: num_points as u32, k: k as u32, has_viewpoint, view_x, view_y, view_z },
            &[&points.handle, &neighbors.handle, &normals.handle],
        );
        normals
    }
}

impl NormalsBackend for Flex {
    fn normals(points: FloatTensor<Self>, neighbors: IntTensor<Self>, orientation: Orientation) -> FloatTensor<Self> {
        let [num_points, k] = neighbors.shape().dims();
        let points = Host::<f32>::new(points);
        let normals = cpu::normals(rows(&points), &Host::new(neighbors), k, orientation);
        host_tensor(normals.into_flattened(), [num_points, 3])
    }
}
