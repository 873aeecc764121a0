//! Blocks of channels of a matrix on the host.

use burn::prelude::*;
use rayon::prelude::*;

use super::settings::Settings;
use crate::gpu::Limits;
use crate::ops::float_tensor;
use crate::ops::pooling::CHANNEL_BLOCK;

/// Uploads `values [V, channels]` to the device, in as many blocks of channels as its buffers need.
pub(super) fn channel_blocks(values: &[f32], channels: usize, limits: Limits, device: &Device) -> Vec<Tensor<2>> {
    let num_voxels = values.len() / channels;
    let block = usize::try_from(limits.max_binding_bytes).unwrap_or(usize::MAX) / (num_voxels * 4);
    let firsts = (0..channels).step_by(block.clamp(1, channels));
    firsts
        .map(|first| {
            let count = block.clamp(1, channels - first);
            float_tensor(gather_columns(values, channels, first, count), [num_voxels, count], device)
        })
        .collect()
}

/// Channels per block, such that `rows` × block fits a binding and, on the host, the working memory.
pub(super) fn channel_block(limits: Limits, settings: Settings, rows: usize) -> usize {
    let on_device = usize::try_from(limits.max_binding_bytes).unwrap_or(usize::MAX) / (rows * 4).max(1);
    // Up to four copies of a block exist at once: as read, on the device, as a result, and read back.
    let fits = on_device.min(settings.working_bytes / (rows * 16).max(1)).max(1);
    if fits > CHANNEL_BLOCK { fits - fits % CHANNEL_BLOCK } else { fits }
}

pub(super) fn gather_columns(matrix: &[f32], width: usize, first: usize, count: usize) -> Vec<f32> {
    let mut columns = vec![0.0; matrix.len() / width * count];
    let rows = columns.par_chunks_exact_mut(count).zip(matrix.par_chunks_exact(width));
    rows.with_min_len(256).for_each(|(to, row)| to.copy_from_slice(&row[first..first + count]));
    columns
}

pub(super) fn scatter_columns(matrix: &mut [f32], width: usize, first: usize, columns: &[f32], count: usize) {
    let rows = matrix.par_chunks_exact_mut(width).zip(columns.par_chunks_exact(count));
    rows.with_min_len(256).for_each(|(row, values)| row[first..first + count].copy_from_slice(values));
}

/// Keeps the first `keep` of `width` columns, in place.
pub(super) fn narrow_rows(matrix: &mut Vec<f32>, width: usize, keep: usize) {
    let rows = matrix.len() / width;
    for row in 1..rows {
        matrix.copy_within(row * width..row * width + keep, row * keep);
    }
    matrix.truncate(rows * keep);
}
