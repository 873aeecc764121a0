//! Hash table from integer voxel to its index.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::{OpError, ShapeCheck, host_tensor, int_tensor, limits_of, rows, run};
use crate::gpu::shaders::hash_grid::{clear, insert, lookup as lookup_shader};
use crate::gpu::{check_binding, empty_i32, launch};

/// Index of the voxel at every query, -1 where there is none: `coords [V, 4]`, `queries [Q, 4]` → `[Q]`.
///
/// Coordinates are any i32, negative ones too, with the batch index in column 0. Where a voxel is
/// listed twice its lowest index is found. The table has open addressing with linear probing and is at
/// most a quarter full: blocks of voxels crowd the table in places.
///
/// # Errors
/// [`OpError::Shape`] where the rows are not of four; [`OpError::TooLarge`] where one of the two does not fit
/// one buffer.
pub fn lookup(coords: Tensor<2, Int>, queries: Tensor<2, Int>) -> Result<Tensor<1, Int>, OpError> {
    let mut shapes = ShapeCheck::new("hash_grid");
    shapes.check("coords", coords.dims(), ["V".into(), 4.into()])?;
    shapes.check("queries", queries.dims(), ["Q".into(), 4.into()])?;
    let ([num_voxels, _], [num_queries, _]) = (coords.dims(), queries.dims());
    let limits = limits_of(&coords.device());
    check_binding(limits, "hash_grid: coords", num_voxels, 16)?;
    check_binding(limits, "hash_grid: queries", num_queries, 16)?;
    if num_voxels == 0 || num_queries == 0 {
        return Ok(int_tensor(vec![-1; num_queries], [num_queries], &coords.device()));
    }
    Ok(run(
        (coords, queries),
        |(coords, queries)| lookup_wgsl(&coords, &queries),
        |(coords, queries)| {
            let grid = cpu::HashGrid::build(rows(&coords));
            let found: Vec<i32> = rows::<i32, 4>(&queries).iter().map(|query| grid.lookup(*query)).collect();
            host_tensor(found, [num_queries])
        },
    ))
}

fn lookup_wgsl(coords: &CubeTensor, queries: &CubeTensor) -> CubeTensor {
    let table = build(coords);
    let num_queries = queries.shape()[0];
    let found = empty_i32(coords, [num_queries]);
    launch(
        &coords.client,
        &lookup_shader::BASE,
        num_queries.div_ceil(lookup_shader::WG as usize),
        &lookup_shader::Params { num_queries: num_queries as u32, mask: mask(&table) },
        &[&table.handle, &coords.handle, &queries.handle, &found.handle],
    );
    found
}

/// The table of contiguous `coords [V, 4]`, V > 0; its capacity is a power of two.
pub(crate) fn build(coords: &CubeTensor) -> CubeTensor {
    let num_voxels = coords.shape()[0];
    let capacity = (4 * num_voxels).next_power_of_two();
    let table = empty_i32(coords, [capacity]);
    launch(
        &coords.client,
        &clear::BASE,
        capacity.div_ceil(clear::WG as usize),
        &clear::Params { capacity: capacity as u32 },
        &[&table.handle],
    );
    launch(
        &coords.client,
        &insert::BASE,
        num_voxels.div_ceil(insert::WG as usize),
        &insert::Params { num_voxels: num_voxels as u32, mask: capacity as u32 - 1 },
        &[&coords.handle, &table.handle],
    );
    table
}

/// The mask that turns a hash into a slot of `table`.
pub(crate) fn mask(table: &CubeTensor) -> u32 {
    table.shape()[0] as u32 - 1
}
