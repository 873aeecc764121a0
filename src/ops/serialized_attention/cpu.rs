//! Host twin: the attention of many sequences, whose rows are found through the patches.

use rayon::prelude::*;

use super::Extents;
use crate::ops::attention;
use crate::ops::attention::cpu::{Blocked, attention_of_rows};

/// See [`super::serialized_attention`]: `[V, C]`, row-major.
#[must_use]
pub fn serialized_attention(qkv: &[f32], patches: &[i32], num_voxels: usize, extents: Extents) -> Vec<f32> {
    let Extents { num_patches, patch_size, num_heads, head_dim } = extents;
    let dim = num_heads * head_dim;
    let parts = [0, 1, 2].map(|part| &qkv[part * dim..]);
    let row = |patch: usize, slot: usize| {
        let voxel = patches[patch * patch_size + slot];
        (if voxel < 0 { -1 - voxel } else { voxel }) as usize * 3 * dim
    };
    let extents =
        attention::Extents { batch: num_patches, num_queries: patch_size, num_keys: patch_size, num_heads, head_dim };
    let mixed = attention_of_rows(parts, row, row, Blocked::None, extents);
    let mut slot_from_voxel = vec![usize::MAX; num_voxels];
    for (slot, &voxel) in patches.iter().enumerate() {
        if let Ok(voxel) = usize::try_from(voxel) {
            slot_from_voxel[voxel] = slot;
        }
    }
    let mut out = vec![0.0; num_voxels * dim];
    out.par_chunks_exact_mut(dim).with_min_len(256).zip(slot_from_voxel).for_each(|(out, slot)| {
        if let Some(mixed) = mixed.get(slot.saturating_mul(dim)..).and_then(|rest| rest.get(..dim)) {
            out.copy_from_slice(mixed);
        }
    });
    out
}
