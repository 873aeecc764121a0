//! A measure of how well features separate the objects of a room where they meet.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::pairs::majority;
use crate::models::sonata::{Cloud, Encoded, Sonata};
use crate::ops::affinity::cpu::dot;
use crate::ops::float_values;
use crate::ops::knn::cpu::knn_voxels;
use crate::pretrain::PretrainError;
use crate::pretrain::scan::LabelledScan;

/// Number of nearest cells that share a cell's weights.
const NEIGHBORS: usize = 16;
/// Factor on the cosines, the same as in purification.
const SHARPNESS: f32 = 20.0;

/// Share of a cell's weights that lies on its own object, as means over cells. The weights are softmax(20 ·
/// cosine) over the 16 nearest cells. A cell belongs to the object of most of its points. A border cell has a
/// neighbour that belongs to another object.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ObjectPrecision {
    /// With the encoder's features, over all cells.
    pub precision: f64,
    /// With equal weights.
    pub uniform: f64,
    /// With mean colour (each channel from -1 to 1) and normal as features.
    pub appearance: f64,
    /// As `precision`, over border cells.
    pub border_precision: f64,
    /// As `uniform`, over border cells.
    pub border_uniform: f64,
    /// As `appearance`, over border cells.
    pub border_appearance: f64,
    /// Number of cells.
    pub num_cells: usize,
    /// Number of border cells.
    pub num_border: usize,
}

impl ObjectPrecision {
    /// Returns the figures by name, for the log.
    #[must_use]
    pub fn figures(&self) -> BTreeMap<String, f64> {
        [
            ("val_precision", self.precision),
            ("val_uniform", self.uniform),
            ("val_appearance", self.appearance),
            ("val_border_precision", self.border_precision),
            ("val_border_uniform", self.border_uniform),
            ("val_border_appearance", self.border_appearance),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Returns the means over the cells of several rooms.
    #[must_use]
    pub fn mean(of_rooms: &[Self]) -> Self {
        let cells = of_rooms.iter().map(|room| room.num_cells).sum::<usize>();
        let border = of_rooms.iter().map(|room| room.num_border).sum::<usize>();
        let all = |value: fn(&Self) -> f64| {
            of_rooms.iter().map(|room| value(room) * room.num_cells as f64).sum::<f64>() / cells.max(1) as f64
        };
        let of_border = |value: fn(&Self) -> f64| {
            of_rooms.iter().map(|room| value(room) * room.num_border as f64).sum::<f64>() / border.max(1) as f64
        };
        Self {
            precision: all(|room| room.precision),
            uniform: all(|room| room.uniform),
            appearance: all(|room| room.appearance),
            border_precision: of_border(|room| room.border_precision),
            border_uniform: of_border(|room| room.border_uniform),
            border_appearance: of_border(|room| room.border_appearance),
            num_cells: cells,
            num_border: border,
        }
    }
}

/// Measures `model` in one room. The model must be on a device without autodiff.
///
/// # Errors
/// [`PretrainError::Sonata`], [`PretrainError::Op`].
pub fn object_precision(model: &Sonata, scan: &LabelledScan) -> Result<ObjectPrecision, PretrainError> {
    let colors: Vec<[f32; 3]> = scan.colors.iter().map(|color| color.map(f32::from)).collect();
    let cloud = Cloud { points: &scan.points, colors: &colors, normals: &scan.normals };
    let Encoded { features, cell_from_point, cells } = model.encode(cloud)?;
    let num_cells = cells.len();
    let features = float_values(features)?;
    let mut appearance = vec![[0.0_f32; 6]; num_cells];
    for ((&cell, color), normal) in cell_from_point.iter().zip(&colors).zip(&scan.normals) {
        let values = color.iter().map(|x| x / 127.5 - 1.0).chain(normal.iter().copied());
        appearance[cell as usize].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    let instances = majority(&cell_from_point, scan.instances.iter().copied(), num_cells);
    let instances: Vec<u32> = instances.into_iter().map(|(instance, _)| instance).collect();
    let neighbors = knn_voxels(&cells, NEIGHBORS, false, 0..num_cells).index;
    let learned = shares(&features, features.len() / num_cells.max(1), &neighbors, &instances);
    let seen = shares(appearance.as_flattened(), 6, &neighbors, &instances);
    let is_border: Vec<bool> = learned.iter().map(|row| row.uniform < 1.0).collect();
    let mean = |rows: &[Share], value: fn(&Share) -> f64, of_border: bool| {
        let counted = rows.iter().zip(&is_border).filter(|(_, is_border)| !of_border || **is_border);
        let (sum, count) = counted.fold((0.0, 0_usize), |(sum, count), (row, _)| (sum + value(row), count + 1));
        sum / count.max(1) as f64
    };
    Ok(ObjectPrecision {
        precision: mean(&learned, |row| row.weighted, false),
        uniform: mean(&learned, |row| row.uniform, false),
        appearance: mean(&seen, |row| row.weighted, false),
        border_precision: mean(&learned, |row| row.weighted, true),
        border_uniform: mean(&learned, |row| row.uniform, true),
        border_appearance: mean(&seen, |row| row.weighted, true),
        num_cells,
        num_border: is_border.iter().filter(|is_border| **is_border).count(),
    })
}

/// Share of a cell's weights, and of its neighbours, that belongs to its own object. Both are 1 for a cell
/// without neighbours.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Share {
    weighted: f64,
    uniform: f64,
}

/// Returns the shares of all cells, with `features [M, C]` of any length and `neighbors [M, K]`.
fn shares(features: &[f32], num_channels: usize, neighbors: &[i32], instances: &[u32]) -> Vec<Share> {
    let mut unit = features.to_vec();
    unit.par_chunks_exact_mut(num_channels.max(1)).for_each(|row| {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
        row.iter_mut().for_each(|x| *x /= length);
    });
    let row = |cell: usize| &unit[cell * num_channels..(cell + 1) * num_channels];
    let of_cell = |(cell, neighbors): (usize, &[i32])| {
        let present = || neighbors.iter().filter_map(|&other| usize::try_from(other).ok());
        // Cosines are at most 1, so no weight overflows.
        let weight = |other: usize| (f64::from(SHARPNESS) * (f64::from(dot(row(cell), row(other))) - 1.0)).exp();
        let (mut own, mut all, mut num_own, mut num) = (0.0, 0.0, 0, 0);
        for other in present() {
            let (weight, is_own) = (weight(other), instances[other] == instances[cell]);
            all += weight;
            num += 1;
            if is_own {
                own += weight;
                num_own += 1;
            }
        }
        match num {
            0 => Share { weighted: 1.0, uniform: 1.0 },
            _ => Share { weighted: own / all, uniform: f64::from(num_own) / f64::from(num) },
        }
    };
    neighbors.par_chunks_exact(NEIGHBORS).enumerate().map(of_cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_counted_by_hand() {
        // Neighbours of cell 0: 1 (its object, the same feature), 2 (another object, orthogonal), 3 (another
        // object, the same feature).
        let features = [1.0, 0.0, 2.0, 0.0, 0.0, 1.0, 3.0, 0.0];
        let mut neighbors = vec![-1; 4 * NEIGHBORS];
        neighbors[..3].copy_from_slice(&[1, 2, 3]);
        neighbors[NEIGHBORS] = 0;
        let found = shares(&features, 2, &neighbors, &[0, 0, 1, 1]);
        let expected = 1.0 / (2.0 + (-20.0_f64).exp());
        assert!((found[0].weighted - expected).abs() < 1e-12 && (found[0].uniform - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(found[1], Share { weighted: 1.0, uniform: 1.0 });
        assert_eq!(found[2], Share { weighted: 1.0, uniform: 1.0 });
    }

    #[test]
    fn rooms_count_by_their_cells() {
        let small =
            ObjectPrecision { precision: 0.5, border_uniform: 1.0, num_cells: 10, num_border: 0, ..Default::default() };
        let large =
            ObjectPrecision { precision: 0.8, border_uniform: 0.4, num_cells: 20, num_border: 5, ..Default::default() };
        let mean = ObjectPrecision::mean(&[small, large]);
        assert!((mean.precision - 0.7).abs() < 1e-12 && (mean.border_uniform - 0.4).abs() < 1e-12);
        assert_eq!((mean.num_cells, mean.num_border), (30, 5));
        assert_eq!(ObjectPrecision::mean(&[]).precision, 0.0);
    }
}
