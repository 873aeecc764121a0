//! Host twin of the maps between a level and the next coarser one.

/// Number of cells of a kernel of edge 2.
pub const VOLUME: usize = 8;

/// Place of a cell in the cell of twice the edge that holds it: x + 2 y + 4 z of the lowest bits.
fn place_in_parent([_, x, y, z]: [i32; 4]) -> usize {
    ((x & 1) + 2 * (y & 1) + 4 * (z & 1)) as usize
}

/// `[W, 8]`: the cell at each place of every coarse cell, or -1. The children of the coarse cell `w` are
/// `fine_from_sorted[offsets[w]..offsets[w + 1]]`.
#[must_use]
pub fn children(coords: &[[i32; 4]], fine_from_sorted: &[i32], offsets: &[i32]) -> Vec<i32> {
    let mut map = vec![-1; offsets.len().saturating_sub(1) * VOLUME];
    for (row, bounds) in map.chunks_exact_mut(VOLUME).zip(offsets.windows(2)) {
        for &v in fine_from_sorted.get(bounds[0] as usize..bounds[1] as usize).unwrap_or_default() {
            if let Some(&cell) = usize::try_from(v).ok().and_then(|v| coords.get(v)) {
                row[place_in_parent(cell)] = v;
            }
        }
    }
    map
}

/// `[V, 8]`: the coarse cell of every cell at its place in it, -1 at the other places.
#[must_use]
pub fn parents(coords: &[[i32; 4]], parent_from_fine: &[i32]) -> Vec<i32> {
    let mut map = vec![-1; coords.len() * VOLUME];
    for ((row, &cell), &parent) in map.chunks_exact_mut(VOLUME).zip(coords).zip(parent_from_fine) {
        row[place_in_parent(cell)] = parent;
    }
    map
}
