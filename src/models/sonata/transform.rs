use burn::prelude::*;
use rayon::prelude::*;

use crate::ops::serialization::MAX_DEPTH;
use crate::ops::voxel_grid::cpu::voxel_grid;
use crate::ops::{OpError, float_tensor, int_tensor};

/// Number of input channels: position, colour and normal.
const NUM_CHANNELS: usize = 9;

/// Input of the encoder: a cloud whose points all have colour and normal.
#[derive(Clone, Copy, Debug)]
pub struct Cloud<'a> {
    /// `[N]` positions in metres, z up.
    pub points: &'a [[f32; 3]],
    /// `[N]` red, green and blue in 0..255. The published evaluation divides by 255 twice. Pass colours in
    /// 0..1 to get its results.
    pub colors: &'a [[f32; 3]],
    /// `[N]` unit normals.
    pub normals: &'a [[f32; 3]],
}

/// Reasons why a cloud cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SonataError {
    /// The cloud has no points.
    #[error("there are no points to encode")]
    Empty,
    /// The number of attributes differs from the number of points.
    #[error("{found} {attribute} for {points} points; expected one per point")]
    Attributes {
        /// Name of the attribute: colours or normals.
        attribute: &'static str,
        /// Number of values.
        found: usize,
        /// Number of points.
        points: usize,
    },
    /// The position of a point is not finite.
    #[error("point {index} is not finite: {position:?}")]
    NotFinite {
        /// Index of the point.
        index: usize,
        /// Its coordinates.
        position: [f32; 3],
    },
    /// The cloud is too long for the encoder's curves.
    #[error(
        "the cloud is {extent} m long along axis {axis}, {voxels} voxels of {grid} m, expected fewer than 2^{MAX_DEPTH} - 1: cut it or use larger voxels"
    )]
    TooFar {
        /// 0, 1, 2 for x, y, z.
        axis: usize,
        /// Its extent along the axis, in metres.
        extent: f32,
        /// The extent in voxels.
        voxels: f32,
        /// Edge of a voxel, in metres.
        grid: f32,
    },
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// Order of voxels in the rows of the input. It affects features only by rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowOrder {
    /// By Morton code: spatial neighbours are close in memory.
    #[default]
    Morton,
    /// By the 64-bit FNV-1 hash of the voxel, as in the published code.
    Hashed,
}

/// A cloud converted to voxels.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// `[V]` voxel coordinates, from 0.
    pub voxels: Vec<[i32; 3]>,
    /// `[V]` index of the first point of each voxel, which represents it.
    pub point_from_voxel: Vec<i32>,
    /// `[N]` index of the voxel of every point.
    pub voxel_from_point: Vec<i32>,
    /// `[V]` input features: position relative to the cloud's centre in x and y and to its lowest point in z,
    /// colour in 0..1, normal.
    pub features: Vec<[f32; NUM_CHANNELS]>,
}

impl Prepared {
    /// Returns the voxels of batch 0 as a tensor `[V, 4]`.
    #[must_use]
    pub fn coords(&self, device: &Device) -> Tensor<2, Int> {
        let coords = self.voxels.iter().flat_map(|&[x, y, z]| [0, x, y, z]).collect();
        int_tensor(coords, [self.voxels.len(), 4], device)
    }

    /// Returns the features as a tensor `[V, 9]`.
    #[must_use]
    pub fn features(&self, device: &Device) -> Tensor<2> {
        float_tensor(self.features.as_flattened().to_vec(), [self.features.len(), NUM_CHANNELS], device)
    }
}

/// Sonata's default transform, with one difference: the first point of a voxel represents it, while the
/// published code draws one at random. The cloud is moved so that its centre is at 0 in x and y and its
/// lowest point at 0 in z. Then it is cut into voxels of edge `grid` metres. All of this is computed in f32.
///
/// # Errors
/// Any [`SonataError`] except [`SonataError::Op`].
pub fn transform(cloud: Cloud<'_>, grid: f32, order: RowOrder) -> Result<Prepared, SonataError> {
    let Cloud { points, colors, normals } = cloud;
    for (attribute, found) in [("colours", colors.len()), ("normals", normals.len())] {
        if found != points.len() {
            return Err(SonataError::Attributes { attribute, found, points: points.len() });
        }
    }
    if let Some(index) = points.par_iter().position_first(|p| p.iter().any(|value| !value.is_finite())) {
        return Err(SonataError::NotFinite { index, position: points[index] });
    }
    let bounds = |points: &[[f32; 3]]| {
        let least = points.iter().fold([f32::INFINITY; 3], |a, p| [0, 1, 2].map(|i| a[i].min(p[i])));
        (least, points.iter().fold([f32::NEG_INFINITY; 3], |a, p| [0, 1, 2].map(|i| a[i].max(p[i]))))
    };
    if points.is_empty() {
        return Err(SonataError::Empty);
    }
    let (least, most) = bounds(points);
    let shift = [(least[0] + most[0]) / 2.0, (least[1] + most[1]) / 2.0, least[2]];
    let centered: Vec<[f32; 3]> = points.par_iter().map(|p| [0, 1, 2].map(|i| p[i] - shift[i])).collect();
    let (least, most) = bounds(&centered);
    let first = least.map(|value| (value / grid).floor());
    for axis in 0..3 {
        let voxels = (most[axis] / grid).floor() - first[axis];
        if !voxels.is_finite() || voxels > ((1 << MAX_DEPTH) - 2) as f32 {
            return Err(SonataError::TooFar { axis, extent: most[axis] - least[axis], voxels, grid });
        }
    }
    let cell = |p: &[f32; 3], axis: usize| ((p[axis] / grid).floor() - first[axis]) as i32;
    let coords: Vec<[i32; 4]> = centered.par_iter().map(|p| [0, cell(p, 0), cell(p, 1), cell(p, 2)]).collect();
    let found = voxel_grid(&coords);
    let num_voxels = found.coords.len();
    let mut rows: Vec<i32> = (0..num_voxels as i32).collect();
    if order == RowOrder::Hashed {
        rows.sort_by_cached_key(|&row| hash(&found.coords[row as usize]));
    }
    let mut row_from_found = vec![0; num_voxels];
    rows.iter().zip(0..).for_each(|(&found, row)| row_from_found[found as usize] = row);
    let point_from_voxel: Vec<i32> =
        rows.iter().map(|&row| found.point_from_sorted[found.offsets[row as usize] as usize]).collect();
    let channels = |&point: &i32| {
        let point = point as usize;
        let ([x, y, z], [r, g, b], [i, j, k]) = (centered[point], colors[point], normals[point]);
        [x, y, z, r / 255.0, g / 255.0, b / 255.0, i, j, k]
    };
    Ok(Prepared {
        voxels: rows.iter().map(|&row| found.coords[row as usize]).map(|[_, x, y, z]| [x, y, z]).collect(),
        features: point_from_voxel.iter().map(channels).collect(),
        point_from_voxel,
        voxel_from_point: found.voxel_from_point.iter().map(|&voxel| row_from_found[voxel as usize]).collect(),
    })
}

/// Computes the FNV-1 hash of the three coordinates, each as one 64-bit word.
fn hash(&[_, x, y, z]: &[i32; 4]) -> u64 {
    let step = |hash: u64, value: i32| hash.wrapping_mul(0x0100_0000_01b3) ^ value as u64;
    [x, y, z].into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}
