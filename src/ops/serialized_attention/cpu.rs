//! Host twin: the attention of many sequences, whose rows are found through the patches.

use rayon::prelude::*;

use super::Extents;
use crate::ops::attention;
use crate::ops::attention::cpu::{Blocked, RowsAt, attention_grad_of_rows, attention_of_rows};
use crate::ops::present;

/// See [`super::serialized_attention`]: `[V, C]`, row-major.
#[must_use]
pub fn serialized_attention(qkv: &[f32], patches: &[i32], num_voxels: usize, extents: Extents) -> Vec<f32> {
    let Extents { num_patches, patch_size, num_heads, head_dim } = extents;
    let dim = num_heads * head_dim;
    let parts = [0, 1, 2].map(|part| &qkv[part * dim..]);
    let row = |patch: usize, slot: usize| voxel_in(patches[patch * patch_size + slot], num_voxels) * 3 * dim;
    let extents =
        attention::Extents { batch: num_patches, num_queries: patch_size, num_keys: patch_size, num_heads, head_dim };
    let mixed = attention_of_rows(parts, row, row, Blocked::None, extents);
    let slot_from_voxel = slot_from_voxel(patches, num_voxels);
    let mut out = vec![0.0; num_voxels * dim];
    out.par_chunks_exact_mut(dim).with_min_len(256).zip(slot_from_voxel).for_each(|(out, slot)| {
        if let Some(mixed) = mixed.get(slot.saturating_mul(dim)..).and_then(|rest| rest.get(..dim)) {
            out.copy_from_slice(mixed);
        }
    });
    out
}

/// The voxel of a slot, its own or not; the last one where it names none.
fn voxel_in(slot: i32, num_voxels: usize) -> usize {
    (if slot < 0 { -1 - slot } else { slot } as usize).min(num_voxels - 1)
}

/// The slot that holds the result of every voxel; `usize::MAX` for a voxel without one.
fn slot_from_voxel(patches: &[i32], num_voxels: usize) -> Vec<usize> {
    let mut slot_from_voxel = vec![usize::MAX; num_voxels];
    for (slot, &voxel) in patches.iter().enumerate() {
        if let Some(voxel) = present(voxel, num_voxels) {
            slot_from_voxel[voxel] = slot;
        }
    }
    slot_from_voxel
}

/// Gradient of `qkv`, `[V, 3 · C]`, from `grad_out [V, C]`. That of a voxel's own slot comes first, then those of the
/// slots where it is a key alone, in their order.
#[must_use]
pub fn serialized_attention_grad(
    qkv: &[f32],
    grad_out: &[f32],
    patches: &[i32],
    num_voxels: usize,
    extents: Extents,
) -> Vec<f32> {
    let Extents { num_patches, patch_size, num_heads, head_dim } = extents;
    let dim = num_heads * head_dim;
    let parts = [0, 1, 2].map(|part| &qkv[part * dim..]);
    let row = |patch: usize, slot: usize| voxel_in(patches[patch * patch_size + slot], num_voxels) * 3 * dim;
    let result = |patch: usize, slot: usize| Some(present(patches[patch * patch_size + slot], num_voxels)? * dim);
    let of_patches =
        attention::Extents { batch: num_patches, num_queries: patch_size, num_keys: patch_size, num_heads, head_dim };
    let heads = attention_grad_of_rows(
        parts,
        grad_out,
        RowsAt { query: row, key: row, result },
        Blocked::None,
        of_patches,
        [true; 3],
    );
    let of_slot = |slot: usize, part: usize, head: usize| {
        &heads[slot / patch_size * num_heads + head][part][slot % patch_size * head_dim..][..head_dim]
    };
    let mut grad = vec![0.0; num_voxels * 3 * dim];
    let slots = slot_from_voxel(patches, num_voxels);
    grad.par_chunks_exact_mut(3 * dim).with_min_len(256).zip(slots).for_each(|(grad, slot)| {
        if slot < patches.len() {
            for (i, grad) in grad.chunks_exact_mut(head_dim).enumerate() {
                grad.copy_from_slice(of_slot(slot, i / num_heads, i % num_heads));
            }
        }
    });
    for (slot, &voxel) in patches.iter().enumerate().filter(|(_, voxel)| present(**voxel, num_voxels).is_none()) {
        let grad = &mut grad[voxel_in(voxel, num_voxels) * 3 * dim..][dim..3 * dim];
        for (i, grad) in grad.chunks_exact_mut(head_dim).enumerate() {
            let borrowed = of_slot(slot, 1 + i / num_heads, i % num_heads);
            grad.iter_mut().zip(borrowed).for_each(|(grad, borrowed)| *grad += borrowed);
        }
    }
    grad
}
