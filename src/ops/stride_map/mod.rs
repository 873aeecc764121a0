//! Cells of twice the edge, and which cells of the two levels belong together.

pub mod cpu;

use burn::prelude::*;

use super::voxel_grid::voxel_grid;
use super::{OpError, ShapeCheck, host_tensor, limits_of, plain_int, rows, run};
use crate::gpu::shaders::stride_map::{children, parents};
use crate::gpu::{check_binding, empty_i32, launch};

use cpu::VOLUME;

/// The next coarser level of a voxel set, see [`stride_map`].
#[derive(Clone, Debug)]
pub struct StrideMap {
    /// `[W, 4]` (batch, x, y, z): the coarse cells, in units of their own edge, in Morton order.
    pub coords: Tensor<2, Int>,
    /// `[W, 8]`: the cell at each place of a coarse cell, or -1.
    pub fine_from_coarse: Tensor<2, Int>,
    /// `[V, 8]`: the coarse cell of a cell at its place in it, -1 at the other places.
    pub coarse_from_fine: Tensor<2, Int>,
}

/// The cells of twice the edge that hold the voxels `coords [V, 4]`, which are distinct, and the maps of
/// [`sparse_conv_between`](super::sparse_conv::sparse_conv_between) for a convolution of kernel 2 and stride 2
/// (`fine_from_coarse`) and for the transposed one (`coarse_from_fine`).
///
/// A coarse cell is floor(x / 2), floor(y / 2), floor(z / 2), so the grid's origin matters. The place of a cell in
/// it is k = x + 2 y + 4 z of the lowest bits: x fastest, the order of MinkowskiEngine's kernels.
///
/// # Errors
/// [`OpError::Shape`] where `coords` is not `[V, 4]`, [`OpError::Value`] where a coordinate is negative or not below
/// 2²¹, [`OpError::TooLarge`] where a map does not fit one buffer, [`OpError::Device`].
pub fn stride_map(coords: Tensor<2, Int>) -> Result<StrideMap, OpError> {
    let mut shapes = ShapeCheck::new("stride_map");
    shapes.check("coords", coords.dims(), ["V".into(), 4.into()])?;
    let coords = plain_int(coords);
    let [num_fine, _] = coords.dims();
    check_binding(limits_of(&coords.device()), "stride_map: coarse_from_fine", num_fine, VOLUME * 4)?;
    let batch = coords.clone().narrow(1, 0, 1);
    // An arithmetic shift: a negative coordinate stays negative, and is refused.
    let halved = coords.clone().narrow(1, 1, 3).bitwise_right_shift_scalar(1);
    let grid = voxel_grid(Tensor::cat(vec![batch, halved], 1))?;
    let num_coarse = grid.num_voxels();
    if num_fine == 0 {
        let none = |dims: [usize; 2]| super::int_tensor(Vec::new(), dims, &coords.device());
        let (fine_from_coarse, coarse_from_fine) = (none([0, VOLUME]), none([0, VOLUME]));
        return Ok(StrideMap { coords: grid.coords, fine_from_coarse, coarse_from_fine });
    }
    let fine_from_coarse = run(
        (coords.clone(), grid.point_from_sorted, grid.offsets),
        |(coords, fine_from_sorted, offsets)| {
            let map = empty_i32(&coords, [num_coarse, VOLUME]);
            launch(
                &coords.client,
                &children::BASE,
                num_coarse.div_ceil(children::WG as usize),
                &children::Params { num_coarse: num_coarse as u32, num_fine: num_fine as u32 },
                &[&coords.handle, &fine_from_sorted.handle, &offsets.handle, &map.handle],
            );
            map
        },
        |(coords, fine_from_sorted, offsets)| {
            host_tensor(cpu::children(rows(&coords), &fine_from_sorted, &offsets), [num_coarse, VOLUME])
        },
    );
    let coarse_from_fine = run(
        (coords, grid.voxel_from_point),
        |(coords, parent_from_fine)| {
            let map = empty_i32(&coords, [num_fine, VOLUME]);
            launch(
                &coords.client,
                &parents::BASE,
                (num_fine * VOLUME).div_ceil(parents::WG as usize),
                &parents::Params { num_fine: num_fine as u32 },
                &[&coords.handle, &parent_from_fine.handle, &map.handle],
            );
            map
        },
        |(coords, parent_from_fine)| host_tensor(cpu::parents(rows(&coords), &parent_from_fine), [num_fine, VOLUME]),
    );
    Ok(StrideMap { coords: grid.coords, fine_from_coarse, coarse_from_fine })
}
