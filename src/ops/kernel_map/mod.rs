//! Which voxel lies under each cell of a convolution kernel.

pub mod cpu;

use burn::prelude::*;

use super::{OpError, ShapeCheck, hash_grid, host_tensor, int_tensor, limits_of, rows, run};
use crate::gpu::shaders::kernel_map::kernel_map as shader;
use crate::gpu::{check_binding, empty_i32, launch};

/// `src_from_dst [V, kernel_size³]` of a submanifold convolution over the voxels `coords [V, 4]`:
/// the voxel at `coords[v] + offset(k)` in the same batch, or -1.
///
/// With r = (kernel_size − 1) / 2, k = (dx + r) + kernel_size·(dy + r) + kernel_size²·(dz + r): x
/// fastest, offsets ascending, the order of MinkowskiEngine's kernels. Reversing k negates the
/// offset, so the map is its own inverse: `map[v, k] = u` exactly where `map[u, K − 1 − k] = v`.
///
/// # Errors
/// [`OpError::Value`] where `kernel_size` is not 1, 3 or 5; [`OpError::Shape`] where `coords` is not
/// `[V, 4]`; [`OpError::TooLarge`] where the map does not fit one buffer.
pub fn kernel_map(coords: Tensor<2, Int>, kernel_size: usize) -> Result<Tensor<2, Int>, OpError> {
    let mut shapes = ShapeCheck::new("kernel_map");
    shapes.check("coords", coords.dims(), ["V".into(), 4.into()])?;
    if !matches!(kernel_size, 1 | 3 | 5) {
        return Err(shapes.value(format!("kernel_size is {kernel_size}, expected 1, 3 or 5")));
    }
    let [num_voxels, _] = coords.dims();
    let volume = kernel_size.pow(3);
    if num_voxels == 0 {
        return Ok(int_tensor(Vec::new(), [0, volume], &coords.device()));
    }
    check_binding(limits_of(&coords.device()), "kernel_map: src_from_dst", num_voxels, volume * 4)?;
    Ok(run(
        coords,
        |coords| {
            let table = hash_grid::build(&coords);
            let map = empty_i32(&coords, [num_voxels, volume]);
            launch(
                &coords.client,
                &shader::BASE,
                (num_voxels * volume).div_ceil(shader::WG as usize),
                &shader::Params {
                    num_voxels: num_voxels as u32,
                    kernel_size: kernel_size as u32,
                    mask: hash_grid::mask(&table),
                },
                &[&table.handle, &coords.handle, &map.handle],
            );
            map
        },
        |coords| host_tensor(cpu::kernel_map(rows(&coords), kernel_size), [num_voxels, volume]),
    ))
}
