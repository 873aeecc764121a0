//! Host twin of the serialization.

use rayon::prelude::*;

use super::Curve;
use crate::ops::radix_sort::cpu::sort_by_key;
use crate::ops::voxel_grid::cpu::morton_code;

/// Position of a voxel on a curve through 2^`depth` voxels along each axis.
#[must_use]
pub fn position(voxel: [u32; 3], curve: Curve, depth: u32) -> u64 {
    let [x, y, z] = voxel;
    let mut p = if curve.is_transposed() { [y, x, z] } else { [x, y, z] };
    if !curve.is_hilbert() {
        return morton_code(p[2], p[1], p[0]);
    }
    // Skilling's transform: the interleaved bits become the Gray code of the position.
    for at in (0..depth).rev() {
        let lower = (1 << at) - 1;
        for axis in 0..3 {
            if p[axis] >> at & 1 == 1 {
                p[0] ^= lower;
            } else {
                let differ = (p[0] ^ p[axis]) & lower;
                p[0] ^= differ;
                p[axis] ^= differ;
            }
        }
    }
    let gray = morton_code(p[2], p[1], p[0]);
    [1, 2, 4, 8, 16, 32].into_iter().fold(gray, |code, shift| code ^ (code >> shift))
}

/// See [`super::serialization`]: keys, order and inverse.
#[must_use]
pub fn serialization(coords: &[[i32; 4]], curve: Curve, depth: u32) -> (Vec<[i32; 3]>, Vec<i32>, Vec<i32>) {
    let code = |&[_, x, y, z]: &[i32; 4]| position([x as u32, y as u32, z as u32], curve, depth);
    let positions: Vec<u64> = coords.par_iter().map(code).collect();
    let keys = positions.iter().zip(coords).map(|(&at, c)| [at as i32, (at >> 32) as i32, c[0]]).collect();
    let codes: Vec<u64> = positions.par_iter().zip(coords).map(|(at, c)| (c[0] as u64) << (3 * depth) | at).collect();
    let order = sort_by_key(&codes);
    let mut inverse = vec![0; order.len()];
    order.iter().zip(0..).for_each(|(&voxel, place)| inverse[voxel as usize] = place);
    (keys, order, inverse)
}
