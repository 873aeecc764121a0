//! Lookup of voxels.

use geopurify::gpu::shaders;
use geopurify::ops::hash_grid::lookup;
use geopurify::ops::{int_tensor, int_values};

use crate::helpers::twin::{against_twin, sizes};
use crate::helpers::voxels::surface;

#[test]
fn hash_grid_finds_every_voxel_and_nothing_else() {
    for n in sizes(shaders::hash_grid::insert::WG) {
        let coords = surface(n, 3);
        let mut queries = coords.clone();
        queries.extend(coords.iter().map(|c| c - 1));
        queries.extend([i32::MIN, i32::MAX, 0, -1]);
        against_twin(
            |device| {
                let coords = int_tensor(coords.clone(), [n, 4], device);
                let num_queries = queries.len() / 4;
                int_values(lookup(coords, int_tensor(queries.clone(), [num_queries, 4], device)).unwrap()).unwrap()
            },
            |name, found, twin| {
                assert_eq!(found, twin, "{name}, {n} voxels");
                for (query, &voxel) in coords.chunks_exact(4).zip(found) {
                    let first = coords.chunks_exact(4).position(|c| c == query);
                    assert_eq!(Some(voxel as usize), first, "{name}: the lowest index wins");
                }
            },
        );
    }
}
