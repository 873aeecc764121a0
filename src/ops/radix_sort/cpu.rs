//! Host twin: a stable parallel sort of indices.

use rayon::prelude::*;

/// The order that sorts `keys` ascending; equal keys keep their order.
#[must_use]
pub fn sort_by_key(keys: &[u64]) -> Vec<i32> {
    let mut pairs: Vec<(u64, i32)> = keys.par_iter().enumerate().map(|(i, key)| (*key, i as i32)).collect();
    // The index makes every pair distinct, so an unstable sort is stable here.
    pairs.par_sort_unstable();
    pairs.into_par_iter().map(|(_, index)| index).collect()
}
