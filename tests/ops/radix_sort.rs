//! The radix sort, seen through the voxel grid, whose order it makes.

use geopurify::ops::voxel_grid::voxel_grid;
use geopurify::ops::{int_tensor, int_values};

use crate::common::Random;
use crate::helpers::twin::against_twin;

#[test]
fn the_radix_sort_survives_more_tiles_than_one_scan_block_and_more_blocks_than_the_fold() {
    // 70,000 points are 137 tiles of 512, and 16 · 137 counts are two blocks of the prefix sum.
    let n = 70_000;
    let mut random = Random(9);
    let coords: Vec<i32> =
        (0..n).flat_map(|_| [0, random.below(50), random.below(50), random.below(9)].map(|v| v as i32)).collect();
    against_twin(
        |device| {
            let grid = voxel_grid(int_tensor(coords.clone(), [n, 4], device)).unwrap();
            (int_values(grid.coords).unwrap(), int_values(grid.point_from_sorted).unwrap())
        },
        |name, found, twin| assert!(found == twin, "{name}"),
    );
}
