//! Voxels in the order of a space-filling curve.

pub mod cpu;

use std::str::FromStr;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::radix_sort::radix_sort;
use super::{OpError, ShapeCheck, host_tensor, int_tensor, int_values, limits_of, plain_int, rows, run};
use crate::gpu::shaders::serialization::{encode, invert};
use crate::gpu::{check_binding, empty_i32, i32_tensor, launch};

/// Most bits of a coordinate: three of them and the batch fill 64 bits.
pub const MAX_DEPTH: u32 = 16;

/// A space-filling curve through a cube of 2^depth voxels along each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// Bits interleaved, x highest.
    Z,
    /// The same with x and y exchanged.
    ZTransposed,
    /// Hilbert's curve after Skilling (2004).
    Hilbert,
    /// The same with x and y exchanged.
    HilbertTransposed,
}

impl Curve {
    /// All of them, in the order of Point Transformer V3.
    pub const ALL: [Self; 4] = [Self::Z, Self::ZTransposed, Self::Hilbert, Self::HilbertTransposed];

    /// Its name in configurations of Point Transformer V3.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Z => "z",
            Self::ZTransposed => "z-trans",
            Self::Hilbert => "hilbert",
            Self::HilbertTransposed => "hilbert-trans",
        }
    }

    fn is_hilbert(self) -> bool {
        matches!(self, Self::Hilbert | Self::HilbertTransposed)
    }

    fn is_transposed(self) -> bool {
        matches!(self, Self::ZTransposed | Self::HilbertTransposed)
    }
}

/// A name that no curve has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no curve '{0}'; there are z, z-trans, hilbert, hilbert-trans")]
pub struct UnknownCurve(String);

impl FromStr for Curve {
    type Err = UnknownCurve;

    fn from_str(name: &str) -> Result<Self, UnknownCurve> {
        Self::ALL.into_iter().find(|curve| curve.name() == name).ok_or_else(|| UnknownCurve(name.to_owned()))
    }
}

/// Voxels along one curve.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// `[V, 3]` position of every voxel on the curve as two words, low and high, and its batch; words are the
    /// bits of a u32.
    pub keys: Tensor<2, Int>,
    /// `[V]` the voxels by batch, then by position.
    pub order: Tensor<1, Int>,
    /// `[V]` the place of every voxel in `order`.
    pub inverse: Tensor<1, Int>,
}

/// Voxels along several curves.
#[derive(Clone, Debug)]
pub struct Serialization {
    /// Bits of a coordinate, common to all batches: those of the largest coordinate plus one.
    pub depth: u32,
    /// Voxels of every batch up to the last that has one.
    pub batch_sizes: Vec<usize>,
    /// One for each curve asked for.
    pub sequences: Vec<Sequence>,
}

/// Puts the voxels `coords [V, 4]` (batch, x, y, z), which must be distinct, in the order of each of `curves`, batch
/// after batch, as Point Transformer V3 does (Wu et al., CVPR 2024).
///
/// The Hilbert curve depends on the depth, so what is compared must have one extent.
///
/// # Errors
/// [`OpError::Shape`] where `coords` is not `[V, 4]`; [`OpError::Value`] where a coordinate is negative or above
/// 2¹⁶ − 2, or a batch not in 0..2¹⁶; [`OpError::TooLarge`] where the voxels do not fit one buffer;
/// [`OpError::Device`].
pub fn serialization(coords: Tensor<2, Int>, curves: &[Curve]) -> Result<Serialization, OpError> {
    let mut shapes = ShapeCheck::new("serialization");
    shapes.check("coords", coords.dims(), ["V".into(), 4.into()])?;
    let coords = plain_int(coords);
    let ([num_voxels, _], device) = (coords.dims(), coords.device());
    check_binding(limits_of(&device), "serialization: coords", num_voxels, 16)?;
    if num_voxels == 0 {
        let none = || int_tensor(Vec::new(), [0], &device);
        let keys = || int_tensor(Vec::new(), [0, 3], &device);
        let sequences = curves.iter().map(|_| Sequence { keys: keys(), order: none(), inverse: none() }).collect();
        return Ok(Serialization { depth: 0, batch_sizes: Vec::new(), sequences });
    }
    let least = int_values(coords.clone().min_dim(0))?;
    let most = int_values(coords.clone().max_dim(0))?;
    let largest = most[1..].iter().copied().max().unwrap_or(0);
    if least.iter().any(|value| *value < 0) || largest > (1 << MAX_DEPTH) - 2 || most[0] >= 1 << 16 {
        return Err(shapes.value(format!(
            "voxels span {least:?} to {most:?}, expected batches from 0 to 2^16 - 1 and coordinates from 0 to 2^{MAX_DEPTH} - 2"
        )));
    }
    let bits = |value: i32| i32::BITS - value.leading_zeros();
    let depth = bits(largest + 1);
    let batch_sizes = match most[0] {
        0 => vec![num_voxels],
        last => {
            let mut sizes = vec![0; last as usize + 1];
            int_values(coords.clone().narrow(1, 0, 1))?.iter().for_each(|&batch| sizes[batch as usize] += 1);
            sizes
        }
    };
    let along = |&curve: &Curve| {
        let (keys, order, inverse) = run(
            coords.clone(),
            |coords| along_wgsl(&coords, curve, depth, bits(most[0])),
            |coords| {
                let (keys, order, inverse) = cpu::serialization(rows(&coords), curve, depth);
                let keys = host_tensor(keys.into_flattened(), [num_voxels, 3]);
                (keys, host_tensor(order, [num_voxels]), host_tensor(inverse, [num_voxels]))
            },
        );
        Sequence { keys, order, inverse }
    };
    Ok(Serialization { depth, batch_sizes, sequences: curves.iter().map(along).collect() })
}

/// Keys `[V, 3]`, order `[V]` and inverse `[V]` of `coords [V, 4]`.
fn along_wgsl(coords: &CubeTensor, curve: Curve, depth: u32, batch_bits: u32) -> (CubeTensor, CubeTensor, CubeTensor) {
    let client = &coords.client;
    let n = coords.shape()[0];
    let keys = empty_i32(coords, [n, encode::KEY_WORDS as usize]);
    let params = encode::Params {
        num_voxels: n as u32,
        depth,
        hilbert: curve.is_hilbert().into(),
        transposed: curve.is_transposed().into(),
    };
    let groups = n.div_ceil(encode::WG as usize);
    launch(client, &encode::BASE, groups, &params, &[&coords.handle, &keys.handle]);
    let bits = 3 * depth;
    let order = radix_sort(client, &keys.handle, n, &[bits.min(32), bits.saturating_sub(32), batch_bits]);
    let inverse = empty_i32(coords, [n]);
    launch(
        client,
        &invert::BASE,
        n.div_ceil(invert::WG as usize),
        &invert::Params { len: n as u32 },
        &[&order, &inverse.handle],
    );
    (keys, i32_tensor(coords, order, n), inverse)
}
