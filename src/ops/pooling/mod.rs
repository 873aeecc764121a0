//! Application of the affinity matrix to features.

pub mod cpu;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain, plain_int};
use crate::gpu::shaders::pooling::pooling as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// Channels the host pools at a time: as many as fit the vector registers. Whoever cuts the channels himself
/// does well to cut at multiples of it.
pub const CHANNEL_BLOCK: usize = 64;

/// Consecutive rows of the affinity matrix: neighbours and weights, both `[R, K]`.
///
/// A scene whose matrix does not fit one buffer of the device comes in several of these.
#[derive(Clone, Debug)]
pub struct AffinityRows {
    /// Voxel index, -1 for none.
    pub neighbors: Tensor<2, Int>,
    /// Weight, 0 beside -1.
    pub weights: Tensor<2>,
}

/// Backend side of [`pooling`]; preconditions are checked there.
#[backend_extension(Cube, Flex)]
pub trait PoolingBackend: Backend {
    /// Rows `first_row..` of A·x, for `x [V, C]` and `R` rows of A.
    fn pooling_rows(
        x: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        weights: FloatTensor<Self>,
        first_row: usize,
    ) -> FloatTensor<Self>;
    /// A applied `iterations` times to `x [V, C]`, for A given whole.
    fn pooling(
        x: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        weights: FloatTensor<Self>,
        iterations: usize,
    ) -> FloatTensor<Self>;
}

/// A applied `iterations` times to `features [V, C]`: each application replaces every row by the
/// weighted sum of its neighbours' rows, added in neighbour order.
///
/// `matrix` holds the rows of A in order, V in all. A row without any neighbour keeps its value.
/// Channels do not mix, so a caller may pass any block of them; two blocks ping-pong.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] where the rows of A are not V;
/// [`OpError::TooLarge`] where the features do not fit one buffer: pass fewer channels at a time.
pub fn pooling(features: Tensor<2>, matrix: &[AffinityRows], iterations: usize) -> Result<Tensor<2>, OpError> {
    let mut shapes = ShapeCheck::new("pooling");
    shapes.check("features", features.dims(), ["V".into(), "C".into()])?;
    let [num_voxels, num_channels] = features.dims();
    let mut num_rows = 0;
    for rows in matrix {
        let mut part = ShapeCheck::new("pooling");
        part.check("neighbors", rows.neighbors.dims(), ["R".into(), "K".into()])?;
        part.check("weights", rows.weights.dims(), ["R".into(), "K".into()])?;
        num_rows += rows.neighbors.dims()[0];
    }
    if num_rows != num_voxels {
        return Err(shapes.value(format!("the matrix has {num_rows} rows, expected {num_voxels}")));
    }
    let nothing_to_add = matrix.iter().all(|rows| rows.neighbors.dims()[1] == 0);
    if num_voxels == 0 || num_channels == 0 || iterations == 0 || nothing_to_add {
        return Ok(features);
    }
    check_binding(limits_of(&features.device()), "pooling: features", num_voxels, num_channels * 4)?;
    let mut x = plain(features);
    if let [rows] = matrix {
        return Ok(Tensor::from_dispatch(Dispatch::pooling(
            x.into_dispatch(),
            plain_int(rows.neighbors.clone()).into_dispatch(),
            plain(rows.weights.clone()).into_dispatch(),
            iterations,
        )));
    }
    for _ in 0..iterations {
        let mut first_row = 0;
        let parts = matrix.iter().filter(|rows| rows.neighbors.dims()[0] > 0).map(|rows| {
            let part = Dispatch::pooling_rows(
                x.clone().into_dispatch(),
                plain_int(rows.neighbors.clone()).into_dispatch(),
                plain(rows.weights.clone()).into_dispatch(),
                first_row,
            );
            first_row += rows.neighbors.dims()[0];
            Tensor::<2>::from_dispatch(part)
        });
        x = Tensor::cat(parts.collect(), 0);
    }
    Ok(x)
}

impl PoolingBackend for CubeBackend {
    fn pooling_rows(
        x: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        weights: FloatTensor<Self>,
        first_row: usize,
    ) -> FloatTensor<Self> {
        let (x, neighbors, weights) = (into_contiguous(x), into_contiguous(neighbors), into_contiguous(weights));
        let [num_rows, k] = neighbors.shape().dims();
        let num_channels = x.shape()[1];
        let pooled = empty_f32(&x, [num_rows, num_channels]);
        launch(
            &x.client,
            &shader::BASE,
            (num_rows * num_channels).div_ceil(shader::WG as usize),
            &shader::Params {
                num_rows: num_rows as u32,
                first_row: first_row as u32,
                k: k as u32,
                num_channels: num_channels as u32,
            },
            &[&x.handle, &neighbors.handle, &weights.handle, &pooled.handle],
        );
        pooled
    }

    fn pooling(
        mut x: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        weights: FloatTensor<Self>,
        iterations: usize,
    ) -> FloatTensor<Self> {
        for _ in 0..iterations {
            x = Self::pooling_rows(x, neighbors.clone(), weights.clone(), 0);
        }
        x
    }
}

impl PoolingBackend for Flex {
    fn pooling_rows(
        x: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        weights: FloatTensor<Self>,
        first_row: usize,
    ) -> FloatTensor<Self> {
        let num_channels = x.shape()[1];
        let [num_rows, k] = neighbors.shape().dims();
        let pooled =
            cpu::pooling_rows(&Host::new(x), num_channels, &Host::new(neighbors), &Host::new(weights), k, first_row);
        host_tensor(pooled, [num_rows, num_channels])
    }

    fn pooling(
        x: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        weights: FloatTensor<Self>,
        iterations: usize,
    ) -> FloatTensor<Self> {
        let [num_voxels, num_channels] = x.shape().dims();
        let k = neighbors.shape()[1];
        let pooled =
            cpu::pooling(&Host::new(x), num_channels, &Host::new(neighbors), &Host::new(weights), k, iterations);
        host_tensor(pooled, [num_voxels, num_channels])
    }
}
