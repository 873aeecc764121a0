//! Exclusive prefix sum of 32-bit counts on the GPU, a step of other operations.

use crate::gpu::shaders::prefix_sum::{reduce, scan};
use crate::gpu::{Client, Handle, launch, scalar_buffer};

/// `scanned[i]` = sum of `values[..i]`, for `i` in `0..=len`: the last word is the total.
///
/// `values` holds `len` words, `len > 0`; sums are modulo 2³². Levels of blocks, reduce then scan.
pub(crate) fn prefix_sum(client: &Client, values: &Handle, len: usize) -> Handle {
    let num_blocks = len.div_ceil(reduce::BLOCK as usize);
    let num_values = len as u32;
    let block_offsets = if num_blocks == 1 {
        client.create_from_slice(bytemuck::bytes_of(&0_u32))
    } else {
        let sums = scalar_buffer(client, num_blocks);
        launch(client, &reduce::BASE, num_blocks, &reduce::Params { num_values }, &[values, &sums]);
        prefix_sum(client, &sums, num_blocks)
    };
    let scanned = scalar_buffer(client, len + 1);
    launch(client, &scan::BASE, num_blocks, &scan::Params { num_values }, &[values, &block_offsets, &scanned]);
    scanned
}
