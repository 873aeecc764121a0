//! Voxels of points: their order, their offsets, and what has no code.

use geopurify::gpu::shaders;
use geopurify::ops::segment_reduce::{Reduction, segment_reduce};
use geopurify::ops::voxel_grid::voxel_grid;
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor, int_values};

use crate::common::{Random, devices};
use crate::helpers::twin::{against_twin, close, sizes};
use crate::helpers::voxels::surface;

#[test]
fn voxel_grid_and_means_equal_the_twin() {
    for n in sizes(shaders::voxel_grid::encode::WG) {
        let coords = surface(n, 1);
        let features = Random(2).floats(n * 7);
        against_twin(
            |device| {
                let grid = voxel_grid(int_tensor(coords.clone(), [n, 4], device)).unwrap();
                let features = float_tensor(features.clone(), [n, 7], device);
                let means =
                    segment_reduce(features, grid.point_from_sorted.clone(), grid.offsets.clone(), Reduction::Mean)
                        .unwrap();
                let ints = [
                    int_values(grid.coords).unwrap(),
                    int_values(grid.voxel_from_point).unwrap(),
                    int_values(grid.point_from_sorted).unwrap(),
                    int_values(grid.offsets).unwrap(),
                ];
                (ints, float_values(means).unwrap())
            },
            |name, found, twin| {
                assert_eq!(found.0, twin.0, "{name}, {n} points");
                // The same additions in the same order: equal but for the division.
                close(&format!("{name}, {n} points"), &found.1, &twin.1);
            },
        );
    }
}

#[test]
fn voxel_grid_orders_by_batch_then_morton_code_and_refuses_what_it_cannot_code() {
    // Morton codes with x in the lowest bit: (1,0,0) → 1, (0,1,0) → 2, (0,0,1) → 4, (2,0,0) → 8.
    let coords = vec![1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0];
    let largest = (1 << 21) - 1;
    for (name, device) in devices() {
        let grid = voxel_grid(int_tensor(coords.clone(), [6, 4], &device)).unwrap();
        let expected = [0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 2, 0, 0, 1, 0, 0, 0];
        assert_eq!(int_values(grid.coords).unwrap(), expected, "{name}");
        assert_eq!(int_values(grid.voxel_from_point).unwrap(), [4, 3, 2, 1, 0, 1], "{name}");
        assert_eq!(int_values(grid.offsets).unwrap(), [0, 1, 3, 4, 5, 6], "{name}");

        let far = int_tensor(vec![0, largest, largest, largest, 0, 0, largest, 0], [2, 4], &device);
        let far = int_values(voxel_grid(far).unwrap().coords).unwrap();
        assert_eq!(far, [0, 0, largest, 0, 0, largest, largest, largest], "{name}");
        for bad in [-1, largest + 1] {
            let coords = int_tensor(vec![0, 0, bad, 0], [1, 4], &device);
            assert!(matches!(voxel_grid(coords), Err(OpError::Value { .. })), "{name}, {bad}");
        }
    }
}
