//! Rows of the affinity matrix A: a softmax of cosines over each voxel's neighbours.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::{OpError, ShapeCheck, host_tensor, limits_of, run};
use crate::gpu::shaders::affinity::{logits as logits_shader, softmax};
use crate::gpu::{check_binding, empty_f32, launch};

/// Weights `[R, K]` of the voxels `first_row..first_row + R`: softmax over their `neighbors [R, K]` of
/// `sharpness` · ⟨e, e′⟩, with e the rows of the embedding `[V, D]` (of unit length for cosines).
///
/// The embedding comes in one or more blocks of channels `[V, Dᵢ]`, for scenes whose embedding does not fit
/// one buffer: dot products add up. A neighbour outside `0..V`, such as -1, is
/// absent: it weighs 0. The weights of a row sum to 1; a row without a neighbour is 0.
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
    let mut logits: Option<Tensor<2>> = None;
    for block in embedding {
        let part: Tensor<2> = run(
            (block.clone(), neighbors.clone()),
            |(block, neighbors)| logits_wgsl(&block, &neighbors, first_row, sharpness),
            |(block, neighbors)| {
                let num_channels = block.dims::<2>()[1];
                let logits = cpu::logits(&block, num_channels, &neighbors, k, first_row, sharpness);
                host_tensor(logits, [num_rows, k])
            },
        );
        logits = Some(match logits {
            Some(sum) => sum + part,
            None => part,
        });
    }
    let logits = logits.unwrap_or_else(|| Tensor::zeros([num_rows, k], &device));
    Ok(run(
        (neighbors, logits),
        |(neighbors, logits)| softmax_wgsl(&neighbors, &logits, num_voxels),
        |(neighbors, logits)| host_tensor(cpu::softmax(&neighbors, &logits, k, num_voxels), [num_rows, k]),
    ))
}

/// `[R, K]`: `sharpness` · ⟨e, e′⟩ of the voxels `first_row..first_row + R` and their neighbours, 0 where there is none.
fn logits_wgsl(embedding: &CubeTensor, neighbors: &CubeTensor, first_row: usize, sharpness: f32) -> CubeTensor {
    let [num_voxels, num_channels] = embedding.shape().dims();
    let [rows, k] = neighbors.shape().dims();
    let logits = empty_f32(embedding, [rows, k]);
    launch(
        &embedding.client,
        &logits_shader::BASE,
        (rows * k).div_ceil(logits_shader::WG as usize),
        &logits_shader::Params {
            num_rows: rows as u32,
            num_voxels: num_voxels as u32,
            first_row: first_row as u32,
            k: k as u32,
            num_channels: num_channels as u32,
            sharpness,
        },
        &[&embedding.handle, &neighbors.handle, &logits.handle],
    );
    logits
}

/// Softmax of every row of `logits [R, K]` over its present neighbours.
fn softmax_wgsl(neighbors: &CubeTensor, logits: &CubeTensor, num_voxels: usize) -> CubeTensor {
    let [rows, k] = neighbors.shape().dims();
    let weights = empty_f32(logits, [rows, k]);
    launch(
        &logits.client,
        &softmax::BASE,
        rows,
        &softmax::Params { num_rows: rows as u32, num_voxels: num_voxels as u32, k: k as u32 },
        &[&neighbors.handle, &logits.handle, &weights.handle],
    );
    weights
}
