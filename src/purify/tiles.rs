use std::collections::BTreeMap;

/// Voxels that go through the student together. The embeddings of the inner voxels are kept. The halo
/// around them is as wide as the receptive field; its embeddings are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Indices of the inner voxels, then those of the halo, each ascending.
    pub voxels: Vec<u32>,
    /// Number of inner voxels.
    pub num_inner: usize,
}

/// Cuts `coords [V]` into tiles of about `max_voxels`, halo included, by cubes of one size.
///
/// Every voxel is inner in exactly one tile. Every voxel within `halo` (along each axis) of an inner voxel
/// is in the same tile. The cube is the largest power of two that keeps every tile within `max_voxels`. A
/// cube is never smaller than the halo, so that no voxel is repeated more than 27 times. A crowded place
/// may therefore exceed the limit.
#[must_use]
pub fn tiles(coords: &[[i32; 3]], halo: i32, max_voxels: usize) -> Vec<Tile> {
    if coords.is_empty() {
        return Vec::new();
    }
    if coords.len() <= max_voxels {
        return vec![Tile { voxels: (0..coords.len() as u32).collect(), num_inner: coords.len() }];
    }
    let extent = coords.iter().flatten().copied().max().unwrap_or(0);
    let smallest = (halo.max(1) as u32).next_power_of_two() as i32;
    let mut edge = (extent as u32 + 1).next_power_of_two() as i32;
    let largest = |tiles: &[Tile]| tiles.iter().map(|t| t.voxels.len()).max().unwrap_or(0);
    loop {
        edge /= 2;
        let cut = cut(coords, halo, edge.max(smallest));
        if edge <= smallest || largest(&cut) <= max_voxels {
            return cut;
        }
    }
}

fn cut(coords: &[[i32; 3]], halo: i32, edge: i32) -> Vec<Tile> {
    let mut cubes: BTreeMap<[i32; 3], (Vec<u32>, Vec<u32>)> = BTreeMap::new();
    for (voxel, c) in coords.iter().enumerate() {
        let home = c.map(|v| v.div_euclid(edge));
        cubes.entry(home).or_default().0.push(voxel as u32);
    }
    let homes: Vec<[i32; 3]> = cubes.keys().copied().collect();
    for (voxel, c) in coords.iter().enumerate() {
        let home = c.map(|v| v.div_euclid(edge));
        // Only neighbours whose cube comes within the halo can need this voxel.
        let reach = c.map(|v| ((v - halo).div_euclid(edge), (v + halo).div_euclid(edge)));
        for x in reach[0].0..=reach[0].1 {
            for y in reach[1].0..=reach[1].1 {
                for z in reach[2].0..=reach[2].1 {
                    if [x, y, z] != home
                        && let Some((_, border)) = cubes.get_mut(&[x, y, z])
                    {
                        border.push(voxel as u32);
                    }
                }
            }
        }
    }
    homes
        .into_iter()
        .filter_map(|home| cubes.remove(&home))
        .map(|(inner, border)| {
            let num_inner = inner.len();
            Tile { voxels: inner.into_iter().chain(border).collect(), num_inner }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(edge: i32) -> Vec<[i32; 3]> {
        (0..edge * edge * edge).map(|i| [i % edge, (i / edge) % edge, i / (edge * edge)]).collect()
    }

    #[test]
    fn a_scene_within_the_limit_is_one_tile() {
        let coords = block(4);
        assert_eq!(tiles(&coords, 9, 64), [Tile { voxels: (0..64).collect(), num_inner: 64 }]);
        assert!(tiles(&[], 9, 64).is_empty());
    }

    #[test]
    fn every_voxel_is_inner_once_and_sees_its_whole_neighbourhood() {
        let coords = block(12);
        let cut = tiles(&coords, 2, 300);
        assert!(cut.len() > 1);
        let mut inner: Vec<u32> = cut.iter().flat_map(|t| &t.voxels[..t.num_inner]).copied().collect();
        inner.sort_unstable();
        assert_eq!(inner, (0..coords.len() as u32).collect::<Vec<_>>());
        for tile in &cut {
            for &v in &tile.voxels[..tile.num_inner] {
                let near = coords
                    .iter()
                    .enumerate()
                    .filter(|(_, c)| (0..3).all(|axis| (c[axis] - coords[v as usize][axis]).abs() <= 2));
                for (other, _) in near {
                    assert!(tile.voxels.contains(&(other as u32)), "{v} does not see {other}");
                }
            }
        }
    }

    #[test]
    fn a_limit_below_the_smallest_cube_ends_at_that_cube() {
        let cut = tiles(&block(16), 4, 1);
        assert_eq!(cut.len(), 64);
        assert!(cut.iter().all(|t| t.num_inner == 64));
    }
}
