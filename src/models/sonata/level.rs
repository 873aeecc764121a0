use burn::prelude::*;

use crate::ops::OpError;
use crate::ops::kernel_map::kernel_map;
use crate::ops::serialization::{Curve, serialization};
use crate::ops::serialized_attention::Padding;

/// Cells along each axis of the position encoding's kernel.
const KERNEL: usize = 3;

/// The voxels of a stage with everything that its blocks need to know about them.
#[derive(Clone, Debug)]
pub struct Level {
    /// `[V, 4]` (batch, x, y, z), distinct.
    pub coords: Tensor<2, Int>,
    /// Number of bits of a coordinate.
    pub depth: u32,
    /// `[V, 27]` neighbor indices, see [`kernel_map`].
    pub src_from_dst: Tensor<2, Int>,
    /// `[P, K]` for each curve that a block uses, see [`Padding::patches`].
    pub patches: Vec<Tensor<2, Int>>,
}

impl Level {
    /// Prepares a level for `num_blocks` blocks. Block i uses curve i modulo the number of curves. Patches
    /// have at most `max_patch` voxels.
    ///
    /// # Errors
    /// As [`serialization`], [`kernel_map`] and [`Padding::patches`].
    pub fn new(coords: Tensor<2, Int>, curves: &[Curve], num_blocks: usize, max_patch: usize) -> Result<Self, OpError> {
        let serialized = serialization(coords.clone(), &curves[..curves.len().min(num_blocks)])?;
        let padding = Padding::new(&serialized.batch_sizes, max_patch);
        let patches = serialized.sequences.iter().map(|sequence| padding.patches(&sequence.order));
        let patches = patches.collect::<Result<_, _>>()?;
        Ok(Self { src_from_dst: kernel_map(coords.clone(), KERNEL)?, coords, depth: serialized.depth, patches })
    }
}
