//! Host twin of the kernel map.

use rayon::prelude::*;

use crate::ops::hash_grid::cpu::HashGrid;

/// See [`super::kernel_map`]: `[V, kernel_size³]`, row-major.
#[must_use]
pub fn kernel_map(coords: &[[i32; 4]], kernel_size: usize) -> Vec<i32> {
    let grid = HashGrid::build(coords);
    let volume = kernel_size.pow(3);
    let radius = (kernel_size as i32 - 1) / 2;
    let mut map = vec![-1; coords.len() * volume];
    map.par_chunks_exact_mut(volume).with_min_len(64).zip(coords).for_each(|(row, &[b, x, y, z])| {
        let mut cells = row.iter_mut();
        for dz in -radius..=radius {
            for dy in -radius..=radius {
                for (dx, cell) in (-radius..=radius).zip(&mut cells) {
                    // Past the ends of i32 there is no voxel, and wrapping must not invent one.
                    let at = [x.checked_add(dx), y.checked_add(dy), z.checked_add(dz)];
                    if let [Some(x), Some(y), Some(z)] = at {
                        *cell = grid.lookup([b, x, y, z]);
                    }
                }
            }
        }
    });
    map
}
