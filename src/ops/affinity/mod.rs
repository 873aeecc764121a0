//! Rows of the affinity matrix A: a softmax of cosines over each voxel's neighbours.

pub mod cpu;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain, plain_int};
use crate::gpu::shaders::affinity::{logits as logits_shader, softmax};
use crate::gpu::{check_binding, empty_f32, launch};

/// Backend side of [`affinity`]; preconditions are checked there.
#[backend_extension(Cube, Flex)]
pub trait AffinityBackend: Backend {
    /// `[R, K]`: `sharpness` · ⟨e, e′⟩ of the voxels `first_row..first_row + R` and their neighbours, 0 beside -1.
    fn affinity_logits(
        embedding: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        first_row: usize,
        sharpness: f32,
    ) -> FloatTensor<Self>;
    /// Softmax of every row of `logits [R, K]` over its present neighbours.
    fn affinity_softmax(neighbors: IntTensor<Self>, logits: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Weights `[R, K]` of the voxels `first_row..first_row + R`: softmax over their `neighbors [R, K]` of
/// `sharpness` · ⟨e, e′⟩, with e the rows of the embedding `[V, D]` (of unit length for cosines).
///
/// The embedding comes in one or more blocks of channels `[V, Dᵢ]`, for scenes whose embedding does not fit
/// one buffer: dot products add up. Absent neighbours (-1) weigh 0 and every other row sums to 1; a row with
/// no neighbour at all is 0.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] where K is more than
/// [`MAX_K`](super::knn::MAX_K), there is no block, or the rows leave the embedding; [`OpError::TooLarge`]
/// where a block or the weights do not fit one buffer.
pub fn affinity(
    embedding: &[Tensor<2>],
    neighbors: Tensor<2, Int>,
    first_row: usize,
    sharpness: f32,
) -> Result<Tensor<2>, OpError> {
    let mut shapes = ShapeCheck::new("affinity");
    let Some(first_block) = embedding.first() else {
        return Err(shapes.value("the embedding has no channels"));
    };
    shapes.check("neighbors", neighbors.dims(), ["R".into(), "K".into()])?;
    let ([num_voxels, _], [num_rows, k]) = (first_block.dims(), neighbors.dims());
    if k > super::knn::MAX_K {
        return Err(shapes.value(format!("{k} neighbours a row, expected at most {}", super::knn::MAX_K)));
    }
    if first_row + num_rows > num_voxels {
        let last = first_row + num_rows;
        return Err(shapes.value(format!("rows {first_row}..{last}, expected within 0..{num_voxels}")));
    }
    let device = first_block.device();
    let limits = limits_of(&device);
    check_binding(limits, "affinity: weights", num_rows, k * 4)?;
    for block in embedding {
        ShapeCheck::new("affinity").check("embedding", block.dims(), [num_voxels.into(), "D".into()])?;
        check_binding(limits, "affinity: embedding", num_voxels, block.dims()[1] * 4)?;
    }
    if num_rows == 0 || k == 0 {
        return Ok(Tensor::zeros([num_rows, k], &device));
    }
    let neighbors = plain_int(neighbors);
    let mut logits: Option<Tensor<2>> = None;
    for block in embedding {
        let block = plain(block.clone()).into_dispatch();
        let part = Dispatch::affinity_logits(block, neighbors.clone().into_dispatch(), first_row, sharpness);
        let part = Tensor::from_dispatch(part);
        logits = Some(match logits {
            Some(sum) => sum + part,
            None => part,
        });
    }
    let logits = logits.unwrap_or_else(|| Tensor::zeros([num_rows, k], &device));
    Ok(Tensor::from_dispatch(Dispatch::affinity_softmax(neighbors.into_dispatch(), logits.into_dispatch())))
}

impl AffinityBackend for CubeBackend {
    fn affinity_logits(
        embedding: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        first_row: usize,
        sharpness: f32,
    ) -> FloatTensor<Self> {
        let (embedding, neighbors) = (into_contiguous(embedding), into_contiguous(neighbors));
        let num_channels = embedding.shape()[1];
        let [rows, k] = neighbors.shape().dims();
        let logits = empty_f32(&embedding, [rows, k]);
        launch(
            &embedding.client,
            &logits_shader::BASE,
            (rows * k).div_ceil(logits_shader::WG as usize),
            &logits_shader::Params {
                num_rows: rows as u32,
                first_row: first_row as u32,
                k: k as u32,
                num_channels: num_channels as u32,
                sharpness,
            },
            &[&embedding.handle, &neighbors.handle, &logits.handle],
        );
        logits
    }

    fn affinity_softmax(neighbors: IntTensor<Self>, logits: FloatTensor<Self>) -> FloatTensor<Self> {
        let (neighbors, logits) = (into_contiguous(neighbors), into_contiguous(logits));
        let [rows, k] = neighbors.shape().dims();
        let weights = empty_f32(&logits, [rows, k]);
        launch(
            &logits.client,
            &softmax::BASE,
            rows,
            &softmax::Params { num_rows: rows as u32, k: k as u32 },
            &[&neighbors.handle, &logits.handle, &weights.handle],
        );
        weights
    }
}

impl AffinityBackend for Flex {
    fn affinity_logits(
        embedding: FloatTensor<Self>,
        neighbors: IntTensor<Self>,
        first_row: usize,
        sharpness: f32,
    ) -> FloatTensor<Self> {
        let num_channels = embedding.shape()[1];
        let [num_rows, k] = neighbors.shape().dims();
        let logits = cpu::logits(&Host::new(embedding), num_channels, &Host::new(neighbors), k, first_row, sharpness);
        host_tensor(logits, [num_rows, k])
    }

    fn affinity_softmax(neighbors: IntTensor<Self>, logits: FloatTensor<Self>) -> FloatTensor<Self> {
        let [num_rows, k] = neighbors.shape().dims();
        let weights = cpu::softmax(&Host::new(neighbors), &Host::new(logits), k);
        host_tensor(weights, [num_rows, k])
    }
}
