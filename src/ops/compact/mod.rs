//! Stable compaction: positions that have an index before those that have none.

pub mod cpu;

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::prefix_sum::prefix_sum;
use super::{OpError, host_tensor, int_tensor, int_values, limits_of, run};
use crate::gpu::shaders::compact::{mark, place};
use crate::gpu::{check_binding, empty_i32, launch, scalar_buffer};

/// A stable ordering of positions, see [`compact`]: a permutation and its inverse.
#[derive(Clone, Debug)]
pub struct Compacted {
    /// `[N]` the positions that have an index, then those that have none, each ascending.
    pub position_from_place: Tensor<1, Int>,
    /// `[N]` where each position went.
    pub place_from_position: Tensor<1, Int>,
    /// How many positions have an index.
    pub num_present: usize,
}

impl Compacted {
    /// The positions that have an index, ascending.
    #[must_use]
    pub fn present(&self) -> Tensor<1, Int> {
        self.positions(0..self.num_present)
    }

    /// The positions that have none, ascending.
    #[must_use]
    pub fn absent(&self) -> Tensor<1, Int> {
        let [num_positions] = self.position_from_place.dims();
        self.positions(self.num_present..num_positions)
    }

    fn positions(&self, places: Range<usize>) -> Tensor<1, Int> {
        if places.is_empty() {
            return int_tensor(Vec::new(), [0], &self.position_from_place.device());
        }
        self.position_from_place.clone().narrow(0, places.start, places.len())
    }
}

/// Brings the positions of `index [N]` that have an index, one that is not negative, before those that have none. Both
/// keep their order. Waits for the device, since the number of either is known only then.
///
/// # Errors
/// [`OpError::TooLarge`] where the positions do not fit one buffer; [`OpError::Device`].
pub fn compact(index: Tensor<1, Int>) -> Result<Compacted, OpError> {
    let ([num_positions], device) = (index.dims(), index.device());
    // One word more than there are positions.
    check_binding(limits_of(&device), "compact: index", num_positions + 1, 4)?;
    if num_positions == 0 {
        let none = int_tensor(Vec::new(), [0], &device);
        return Ok(Compacted { position_from_place: none.clone(), place_from_position: none, num_present: 0 });
    }
    let (position_from_place, place_from_position, num_present): (_, _, Tensor<1, Int>) = run(
        index,
        |index| compact_wgsl(&index),
        |index| {
            let compacted = cpu::compact(&index);
            (
                host_tensor(compacted.position_from_place, [num_positions]),
                host_tensor(compacted.place_from_position, [num_positions]),
                host_tensor(vec![compacted.num_present as i32], [1]),
            )
        },
    );
    let num_present = int_values(num_present)?[0] as usize;
    Ok(Compacted { position_from_place, place_from_position, num_present })
}

/// `index [N]` → position_from_place, place_from_position `[N]`, num_present `[1]`.
fn compact_wgsl(index: &CubeTensor) -> (CubeTensor, CubeTensor, CubeTensor) {
    let n = index.shape()[0];
    let num_positions = n as u32;
    let marks = scalar_buffer(&index.client, n);
    launch(
        &index.client,
        &mark::BASE,
        n.div_ceil(mark::WG as usize),
        &mark::Params { num_positions },
        &[&index.handle, &marks],
    );
    let scanned = prefix_sum(&index.client, &marks, n);
    let (position_from_place, place_from_position) = (empty_i32(index, [n]), empty_i32(index, [n]));
    let num_present = empty_i32(index, [1]);
    launch(
        &index.client,
        &place::BASE,
        n.div_ceil(place::WG as usize),
        &place::Params { num_positions },
        &[&scanned, &position_from_place.handle, &place_from_position.handle, &num_present.handle],
    );
    (position_from_place, place_from_position, num_present)
}
