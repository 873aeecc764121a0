//! Neighbours of voxels within a kernel.

use burn::tensor::Device;
use geopurify::gpu::shaders;
use geopurify::ops::kernel_map::kernel_map;
use geopurify::ops::{OpError, int_tensor, int_values};

use crate::helpers::twin::{against_twin, sizes};
use crate::helpers::voxels::distinct;

#[test]
fn kernel_map_equals_the_twin_and_inverts_itself() {
    for kernel_size in [1, 3, 5] {
        for n in sizes(shaders::kernel_map::kernel_map::WG / 27 + 1) {
            let coords = distinct(n, 4);
            let num_voxels = coords.len() / 4;
            let volume = kernel_size * kernel_size * kernel_size;
            against_twin(
                |device| {
                    let coords = int_tensor(coords.clone(), [num_voxels, 4], device);
                    int_values(kernel_map(coords, kernel_size).unwrap()).unwrap()
                },
                |name, found, twin| {
                    assert_eq!(found, twin, "{name}, {n} voxels, kernel {kernel_size}");
                    for v in 0..num_voxels {
                        for k in 0..volume {
                            if let Ok(u) = usize::try_from(found[v * volume + k]) {
                                assert_eq!(found[u * volume + volume - 1 - k], v as i32);
                            }
                        }
                    }
                },
            );
        }
    }
    let coords = int_tensor(vec![0; 4], [1, 4], &Device::flex());
    assert!(matches!(kernel_map(coords, 2), Err(OpError::Value { .. })));
}
