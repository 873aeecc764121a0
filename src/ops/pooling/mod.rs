//! Application of the affinity matrix to features.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::{OpError, ShapeCheck, host_tensor, limits_of, plain, run};
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
    /// Voxel index; one outside `0..V`, such as -1, is no neighbour.
    pub neighbors: Tensor<2, Int>,
    /// Weight, 0 where there is no neighbour.
    pub weights: Tensor<2>,
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
    if let [AffinityRows { neighbors, weights }] = matrix {
        let k = neighbors.dims()[1];
        return Ok(run(
            (features, neighbors.clone(), weights.clone()),
            |(features, neighbors, weights)| {
                (0..iterations).fold(features, |x, _| pooling_rows_wgsl(&x, &neighbors, &weights, 0))
            },
            |(features, neighbors, weights)| {
                let pooled = cpu::pooling(&features, num_channels, &neighbors, &weights, k, iterations);
                host_tensor(pooled, [num_voxels, num_channels])
            },
        ));
    }
    let mut x = plain(features);
    for _ in 0..iterations {
        let mut first_row = 0;
        let parts = matrix.iter().filter(|rows| rows.neighbors.dims()[0] > 0).map(|rows| {
            let [num_rows, k] = rows.neighbors.dims();
            let part: Tensor<2> = run(
                (x.clone(), rows.neighbors.clone(), rows.weights.clone()),
                |(x, neighbors, weights)| pooling_rows_wgsl(&x, &neighbors, &weights, first_row),
                |(x, neighbors, weights)| {
                    let pooled = cpu::pooling_rows(&x, num_channels, &neighbors, &weights, k, first_row);
                    host_tensor(pooled, [num_rows, num_channels])
                },
            );
            first_row += num_rows;
            part
        });
        x = Tensor::cat(parts.collect(), 0);
    }
    Ok(x)
}

/// Rows `first_row..` of A·x, for `x [V, C]` and R rows of A.
fn pooling_rows_wgsl(x: &CubeTensor, neighbors: &CubeTensor, weights: &CubeTensor, first_row: usize) -> CubeTensor {
    let [num_rows, k] = neighbors.shape().dims();
    let [num_voxels, num_channels] = x.shape().dims();
    let pooled = empty_f32(x, [num_rows, num_channels]);
    launch(
        &x.client,
        &shader::BASE,
        (num_rows * num_channels).div_ceil(shader::WG as usize),
        &shader::Params {
            num_voxels: num_voxels as u32,
            num_rows: num_rows as u32,
            first_row: first_row as u32,
            k: k as u32,
            num_channels: num_channels as u32,
        },
        &[&x.handle, &neighbors.handle, &weights.handle, &pooled.handle],
    );
    pooled
}
