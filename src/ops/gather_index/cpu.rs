//! Host twin of the composition of index maps.

use rayon::prelude::*;

/// `c_from_b[b_from_a[i]]` for every i, -1 where either is none.
pub(crate) fn gather_index(c_from_b: &[i32], b_from_a: &[i32]) -> Vec<i32> {
    let c_of = |&b: &i32| usize::try_from(b).ok().and_then(|b| c_from_b.get(b)).map_or(-1, |&c| c.max(-1));
    b_from_a.par_iter().with_min_len(1 << 14).map(c_of).collect()
}
