//! Rows of the affinity matrix A: a softmax of cosines over each voxel's neighbours.

pub mod cpu;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain, plain_int};
use crate::gpu::shaders::affinity::{logits, softmax};
use crate::gpu::{check_binding, empty_f32, launch};

/// Backend side of [`affinity`]; preconditions are checked there.
#[backend_extension(Cube, Flex)]
pub trait AffinityBackend: Backend {
    /// See [`affinity`].
    fn affinity(
        embedding: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        first_row: usize,
        sharpness: f32,
    ) -> FloatTensor<Self>;
}

/// Weights `[R, K]` of the voxels `first_row..first_row + R`: softmax over their `neighbors [R, K]` of
/// `sharpness` · ⟨e, e′⟩, with e the rows of `embedding [V, D]` (of unit length for cosines).
///
/// Absent neighbours (-1) weigh 0 and every other row sums to 1; a row with no neighbour at all is 0.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] where K is more than
/// [`MAX_K`](super::knn::MAX_K) or the rows leave the embedding; [`OpError::TooLarge`] where the
/// embedding or the weights do not fit one buffer.
pub fn affinity(
    embedding: Tensor<2>,
    neighbors: Tensor<2, Int>,
    first_row: usize,
    sharpness: f32,
) -> Result<Tensor<2>, OpError> {
    let mut shapes = ShapeCheck::new("affinity");
    shapes.check("embedding", embedding.dims(), ["V".into(), "D".into()])?;
    shapes.check("neighbors", neighbors.dims(), ["R".into(), "K".into()])?;
    let ([num_voxels, num_channels], [num_rows, k]) = (embedding.dims(), neighbors.dims());
    if k > super::knn::MAX_K {
        return Err(shapes.value(format!("{k} neighbours a row, expected at most {}", super::knn::MAX_K)));
    }
    if first_row + num_rows > num_voxels {
        let last = first_row + num_rows;
        return Err(shapes.value(format!("rows {first_row}..{last}, expected within 0..{num_voxels}")));
    }
    if num_rows == 0 || k == 0 {
        return Ok(Tensor::zeros([num_rows, k], &embedding.device()));
    }
    let limits = limits_of(&embedding.device());
    check_binding(limits, "affinity: embedding", num_voxels, num_channels * 4)?;
    check_binding(limits, "affinity: weights", num_rows, k * 4)?;
    Ok(Tensor::from_dispatch(Dispatch::affinity(
        plain(embedding).into_dispatch(),
        plain_int(neighbors).into_dispatch(),
        first_row,
        sharpness,
    )))
}

impl AffinityBackend for CubeBackend {
    fn affinity(
        embedding: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        first_row: usize,
        sharpness: f32,
    ) -> FloatTensor<Self> {
        let (embedding, neighbors) = (into_contiguous(embedding), into_contiguous(neighbors));
        let num_channels = embedding.shape()[1];
        let [rows, k] = neighbors.shape().dims();
        let weights = empty_f32(&embedding, [rows, k]);
        let (num_rows, k_words) = (rows as u32, k as u32);
        launch(
            &embedding.client,
            &logits::BASE,
            (rows * k).div_ceil(logits::WG as usize),
            &logits::Params {
                num_rows,
                first_row: first_row as u32,
                k: k_words,
                num_channels: num_channels as u32,
                sharpness,
            },
            &[&embedding.handle, &neighbors.handle, &weights.handle],
        );
        launch(
            &embedding.client,
            &softmax::BASE,
            rows,
            &softmax::Params { num_rows, k: k_words },
            &[&neighbors.handle, &weights.handle],
        );
        weights
    }
}

impl AffinityBackend for Flex {
    fn affinity(
        embedding: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        first_row: usize,
        sharpness: f32,
    ) -> FloatTensor<Self> {
        let num_channels = embedding.shape()[1];
        let [num_rows, k] = neighbors.shape().dims();
        let weights =
            cpu::affinity(&Host::new(embedding), num_channels, &Host::new(neighbors), k, first_row, sharpness);
        host_tensor(weights, [num_rows, k])
    }
}
