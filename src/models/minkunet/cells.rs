//! A scan as MinkUNet takes it: the cells of a grid, and what is known of each.

use std::borrow::Cow;

use burn::prelude::*;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ops::kernel_map::cpu::kernel_map;
use crate::ops::normals::cpu::principal_axes;
use crate::ops::voxel_grid::cpu::{QuantizeError, VoxelGrid, quantize, upright, voxel_grid};
use crate::ops::{float_tensor, int_tensor};

/// Channels of [`Input::ShapeAndColor`].
const SHAPE_CHANNELS: usize = 11;
/// Cells around a cell, itself included.
const AROUND: usize = 27;
/// Share of the cells that lie below the floor, as strays do.
const BELOW_FLOOR: f64 = 0.02;
/// Heights in metres that the two channels of height are measured in.
const HEIGHTS: [f32; 2] = [2.5, 0.5];

/// What a network is told of a cell besides its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Nothing: every channel is 1, as in the published networks.
    #[default]
    Ones,
    /// The mean colour of the cell's points, from -1 to 1, as the published networks take colours. Grey if there are
    /// none.
    Color,
    /// Shape and colour, 11 channels: 1; the height over the floor, coarse and fine; how upright the normal is,
    /// how flat, how linear and how rough the cell and those around it are; 1 if there are colours, and the mean colour.
    ShapeAndColor,
}

impl Input {
    /// Number of channels.
    #[must_use]
    pub fn num_channels(self) -> usize {
        match self {
            Self::Ones | Self::Color => 3,
            Self::ShapeAndColor => SHAPE_CHANNELS,
        }
    }
}

/// Cells of a scan that hold points.
#[derive(Clone, Debug, PartialEq)]
pub struct Cells {
    /// `[M]` mean position of the points of each cell, in metres.
    pub positions: Vec<[f32; 3]>,
    /// `[M, in]` what is known of each cell.
    pub features: Vec<f32>,
    /// `[N]` cell of every point.
    pub cell_from_point: Vec<i32>,
    coords: Vec<[i32; 4]>,
    edge: f64,
}

impl Cells {
    /// Cuts `points [N]`, in metres and z up, into cells of edge `edge` metres. `colors` are those of the points.
    ///
    /// # Errors
    /// [`QuantizeError`] if a point is not finite, or the scan has 2²¹ cells or more along an axis.
    pub fn new(
        points: &[[f64; 3]],
        colors: Option<&[[u8; 3]]>,
        input: Input,
        edge: f64,
    ) -> Result<Self, QuantizeError> {
        let (coords, _) = quantize(points, &upright(edge))?;
        let coords: Vec<[i32; 4]> = coords.into_par_iter().map(|[x, y, z]| [0, x, y, z]).collect();
        let grid = voxel_grid(&coords);
        let corner = points.first().copied().unwrap_or_default();
        let positions = means(&grid, |point| {
            let p = points[point];
            [0, 1, 2].map(|axis| (p[axis] - corner[axis]) as f32)
        });
        let colors =
            colors.map(|colors| means(&grid, |point| colors[point].map(|value| f32::from(value) / 127.5 - 1.0)));
        let features = match input {
            Input::Ones => vec![1.0; positions.len() * input.num_channels()],
            Input::Color => colors.unwrap_or_else(|| vec![[0.0; 3]; positions.len()]).into_flattened(),
            Input::ShapeAndColor => shape_and_color(&grid.coords, &positions, colors.as_deref(), edge),
        };
        Ok(Self { positions, features, cell_from_point: grid.voxel_from_point, coords: grid.coords, edge })
    }

    /// The same cells, for a network that takes this edge in metres for theirs: of a scan in another unit.
    #[must_use]
    pub fn in_metres(mut self, edge: f64) -> Self {
        let factor = (edge / self.edge) as f32;
        self.positions.as_flattened_mut().iter_mut().for_each(|x| *x *= factor);
        self.edge = edge;
        self
    }

    /// Number of cells, M.
    #[must_use]
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// True if there are no cells.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Number of channels of [`features`](Self::features).
    #[must_use]
    pub fn num_channels(&self) -> usize {
        self.features.len() / self.len().max(1)
    }

    /// The cells `kept`, which are ascending and distinct. The points are left out.
    #[must_use]
    pub fn part(&self, kept: &[u32]) -> Self {
        let channels = self.num_channels();
        let row = |&cell: &u32| &self.features[cell as usize * channels..][..channels];
        let coords: Vec<[i32; 4]> = kept.iter().map(|&cell| self.coords[cell as usize]).collect();
        let least = [1, 2, 3].map(|axis| coords.iter().map(|c| c[axis]).min().unwrap_or(0));
        Self {
            positions: kept.iter().map(|&cell| self.positions[cell as usize]).collect(),
            features: kept.iter().flat_map(row).copied().collect(),
            cell_from_point: Vec::new(),
            coords: coords.into_iter().map(|[b, x, y, z]| [b, x - least[0], y - least[1], z - least[2]]).collect(),
            edge: self.edge,
        }
    }

    /// Input of the network for the cells turned by `angle` about z. Where a turn puts several cells into one, their
    /// mean stands for them. At angle 0 each cell has its own row, in the same order.
    #[must_use]
    pub fn turned(&self, angle: f64) -> Grid<'_> {
        let channels = self.num_channels();
        if angle == 0.0 {
            let rows = (0..self.len() as i32).collect();
            let (coords, features) = (Cow::Borrowed(&*self.coords), Cow::Borrowed(&*self.features));
            return Grid { coords, features, row_from_cell: rows, num_channels: channels };
        }
        let (sin, cos) = angle.sin_cos();
        let place = |p: &[f32; 3]| {
            let [x, y, z] = p.map(f64::from);
            [cos * x - sin * y, sin * x + cos * y, z].map(|value| (value / self.edge).floor() as i64)
        };
        let places: Vec<[i64; 3]> = self.positions.iter().map(place).collect();
        let least = [0, 1, 2].map(|axis| places.iter().map(|p| p[axis]).min().unwrap_or(0));
        let coord = |p: &[i64; 3]| [0, (p[0] - least[0]) as i32, (p[1] - least[1]) as i32, (p[2] - least[2]) as i32];
        let coords: Vec<[i32; 4]> = places.iter().map(coord).collect();
        let grid = voxel_grid(&coords);
        let mut features = vec![0.0_f32; grid.coords.len() * channels];
        for (row, bounds) in features.chunks_exact_mut(channels.max(1)).zip(grid.offsets.windows(2)) {
            let cells = &grid.point_from_sorted[bounds[0] as usize..bounds[1] as usize];
            for &cell in cells {
                let of_cell = &self.features[cell as usize * channels..][..channels];
                row.iter_mut().zip(of_cell).for_each(|(sum, x)| *sum += x);
            }
            row.iter_mut().for_each(|sum| *sum /= cells.len() as f32);
        }
        let VoxelGrid { coords, voxel_from_point, .. } = grid;
        Grid {
            coords: Cow::Owned(coords),
            features: Cow::Owned(features),
            row_from_cell: voxel_from_point,
            num_channels: channels,
        }
    }
}

/// Input of the network, and the row of every cell in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid<'a> {
    /// `[V]` batch 0, x, y, z, from 0.
    pub coords: Cow<'a, [[i32; 4]]>,
    /// `[V, in]`.
    pub features: Cow<'a, [f32]>,
    /// `[M]` row of every cell.
    pub row_from_cell: Vec<i32>,
    num_channels: usize,
}

impl Grid<'_> {
    /// The coordinates as a tensor `[V, 4]`.
    #[must_use]
    pub fn coords(&self, device: &Device) -> Tensor<2, Int> {
        int_tensor(self.coords.as_flattened().to_vec(), [self.coords.len(), 4], device)
    }

    /// The features as a tensor `[V, in]`.
    #[must_use]
    pub fn features(&self, device: &Device) -> Tensor<2> {
        float_tensor(self.features.to_vec(), [self.coords.len(), self.num_channels], device)
    }
}

/// Mean of `value` over the points of each cell.
fn means(grid: &VoxelGrid, value: impl Fn(usize) -> [f32; 3] + Sync) -> Vec<[f32; 3]> {
    let mean = |bounds: &[i32]| {
        let points = &grid.point_from_sorted[bounds[0] as usize..bounds[1] as usize];
        let mut sum = [0.0_f64; 3];
        for &point in points {
            sum.iter_mut().zip(value(point as usize)).for_each(|(sum, x)| *sum += f64::from(x));
        }
        sum.map(|sum| (sum / points.len() as f64) as f32)
    };
    grid.offsets.par_windows(2).with_min_len(256).map(mean).collect()
}

/// See [`Input::ShapeAndColor`].
fn shape_and_color(coords: &[[i32; 4]], positions: &[[f32; 3]], colors: Option<&[[f32; 3]]>, edge: f64) -> Vec<f32> {
    let floor = floor_height(positions);
    let around = kernel_map(coords, 3);
    let mut features = vec![0.0; coords.len() * SHAPE_CHANNELS];
    let rows = features.par_chunks_exact_mut(SHAPE_CHANNELS).zip(around.par_chunks_exact(AROUND)).enumerate();
    rows.with_min_len(256).for_each(|(cell, (row, around))| {
        let offsets = around.iter().filter_map(|&other| {
            let other = positions.get(usize::try_from(other).ok()?)?;
            Some([0, 1, 2].map(|axis| (other[axis] - positions[cell][axis]) / edge as f32))
        });
        let height = positions[cell][2] - floor;
        let [upright, flat, linear, rough] = shape(offsets);
        let [r, g, b] = colors.map_or([0.0; 3], |colors| colors[cell]);
        let colored = f32::from(u8::from(colors.is_some()));
        let [coarse, fine] = HEIGHTS;
        row.copy_from_slice(&[
            1.0,
            (height / coarse).clamp(-1.0, 2.0),
            (height / fine).tanh(),
            upright,
            flat,
            linear,
            rough,
            colored,
            r,
            g,
            b,
        ]);
    });
    features
}

/// How upright the normal is, how flat, how linear, and how rough: from the variances along the principal axes of the
/// cells around. All 0 where fewer than three cells are.
fn shape(offsets: impl Iterator<Item = [f32; 3]> + Clone) -> [f32; 4] {
    let (mut count, mut mean) = (0.0_f32, [0.0_f32; 3]);
    for offset in offsets.clone() {
        count += 1.0;
        mean.iter_mut().zip(offset).for_each(|(sum, x)| *sum += x);
    }
    if count < 3.0 {
        return [0.0; 4];
    }
    let mean = mean.map(|sum| sum / count);
    let mut covariance = [[0.0_f32; 3]; 3];
    for offset in offsets {
        let d: [f32; 3] = std::array::from_fn(|axis| offset[axis] - mean[axis]);
        for (row, x) in covariance.iter_mut().zip(d) {
            row.iter_mut().zip(d).for_each(|(sum, y)| *sum += x * y / count);
        }
    }
    let (variances, axes) = principal_axes(covariance);
    let mut order = [0, 1, 2];
    order.sort_unstable_by(|&a, &b| variances[b].total_cmp(&variances[a]));
    let [largest, middle, least] = order.map(|axis| variances[axis].max(0.0));
    if largest <= 1e-9 {
        return [0.0; 4];
    }
    let deviation = f32::sqrt;
    let length = deviation(largest);
    [
        axes[order[2]][2].abs(),
        (deviation(middle) - deviation(least)) / length,
        (length - deviation(middle)) / length,
        deviation(least) / (length + deviation(middle) + deviation(least)) * 3.0,
    ]
}

/// Height of the floor: the lowest cells but a few.
fn floor_height(positions: &[[f32; 3]]) -> f32 {
    let mut heights: Vec<f32> = positions.iter().map(|p| p[2]).collect();
    if heights.is_empty() {
        return 0.0;
    }
    let at = (heights.len() as f64 * BELOW_FLOOR) as usize;
    *heights.select_nth_unstable_by(at, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A floor of 2 × 2 m with a wall at its end, two points in every cell of 5 cm.
    fn corner() -> (Vec<[f64; 3]>, Vec<[u8; 3]>) {
        let mut points = Vec::new();
        for i in 0..40 {
            for j in 0..40 {
                let [a, b] = [f64::from(i), f64::from(j)].map(|x| 0.05 * x);
                points.extend([[a + 0.01, b + 0.02, 0.02], [a + 0.03, b + 0.02, 0.02]]);
                points.extend([[1.97, a + 0.01, b + 0.02], [1.97, a + 0.03, b + 0.02]]);
            }
        }
        let colors = points.iter().map(|p| if p[2] > 0.05 { [255, 0, 127] } else { [0, 255, 128] }).collect();
        (points, colors)
    }

    #[test]
    fn floor_and_wall_differ_in_height_and_normal() {
        let (points, colors) = corner();
        let cells = Cells::new(&points, Some(&colors), Input::ShapeAndColor, 0.05).unwrap();
        assert_eq!((cells.len(), cells.num_channels()), (1600 + 1600 - 40, SHAPE_CHANNELS));
        let row = |at: [f64; 3]| {
            let point = points.iter().position(|p| (0..3).all(|k| (p[k] - at[k]).abs() < 1e-9)).unwrap();
            &cells.features[cells.cell_from_point[point] as usize * SHAPE_CHANNELS..][..SHAPE_CHANNELS]
        };
        let close = |row: &[f32], expected: [f32; SHAPE_CHANNELS]| {
            assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-3), "{row:?} {expected:?}");
        };
        let grey = 128.0 / 127.5 - 1.0;
        close(row([0.51, 0.52, 0.02]), [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, -1.0, 1.0, grey]);
        let fine = (1.0_f32 / 0.5).tanh();
        close(row([1.97, 0.51, 1.02]), [1.0, 0.4, fine, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, -1.0, -grey]);
        let colorless = Cells::new(&points, None, Input::ShapeAndColor, 0.05).unwrap();
        assert!(colorless.features.chunks_exact(SHAPE_CHANNELS).all(|row| row[7..] == [0.0; 4]));
        assert!(Cells::new(&points, None, Input::Ones, 0.02).unwrap().features.iter().all(|&x| x == 1.0));
    }

    #[test]
    fn a_quarter_turn_moves_cells_and_half_way_some_merge() {
        let (points, colors) = corner();
        let cells = Cells::new(&points, Some(&colors), Input::Color, 0.05).unwrap();
        let own = cells.turned(0.0);
        assert_eq!((own.coords.len(), &own.row_from_cell[..3]), (cells.len(), &[0, 1, 2][..]));
        let turned = cells.turned(std::f64::consts::FRAC_PI_4);
        assert!(turned.coords.len() < cells.len() && turned.coords.len() > cells.len() / 2);
        assert_eq!(turned.row_from_cell.len(), cells.len());
        // The colours of a wall stay apart from those of a floor, but where both meet.
        let mixed = turned.features.chunks_exact(3).filter(|row| row[0].abs() < 0.99).count();
        assert!(mixed < 200, "{mixed}");
        let part = cells.part(&[5, 9]);
        assert_eq!((part.len(), part.turned(0.0).features.len()), (2, 6));
        assert_eq!([1, 2, 3].map(|axis| part.coords.iter().map(|c| c[axis]).min().unwrap()), [0; 3]);
    }
}
