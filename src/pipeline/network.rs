//! Features of points by a 3D network, which needs no views, and by it and the views together.

use std::ops::Range;

use burn::prelude::*;
use rayon::prelude::*;

use super::{PipelineError, Turned};
use crate::lift::Lifted;
use crate::models::minkunet::{Cells, Input, MinkUnet};
use crate::ops::float_values;
use crate::purify::FeatureSource;
use crate::query::{Predictions, predict};
use crate::stages::StageTimer;
use crate::weights::WeightsError;

/// Channels that are read at once to measure rows.
const BLOCK_CHANNELS: usize = 16;

/// A 3D network and how it is used.
#[derive(Clone, Copy)]
pub struct Network3d<'a> {
    /// The network. Its first head is in the space of the words.
    pub network: &'a MinkUnet,
    /// Number of turns about the up direction over which its features are averaged.
    pub num_turns: usize,
}

/// Features of the cells of a scan by a 3D network. As a [`FeatureSource`], every point has those of its cell.
#[derive(Clone, Debug)]
pub(super) struct CellFeatures {
    /// `[M, C]`.
    rows: Vec<f32>,
    num_channels: usize,
    cell_from_point: Vec<i32>,
}

impl CellFeatures {
    /// Runs the network on the cells of `scan`, which is turned so that z is up.
    ///
    /// # Errors
    /// [`PipelineError::Cells`] for a scan of too many cells; [`PipelineError::Op`].
    pub(super) fn of(
        scan: &Turned<'_>,
        Network3d { network, num_turns }: Network3d<'_>,
        device: &Device,
        timer: &mut StageTimer<'_>,
    ) -> Result<Self, PipelineError> {
        timer.progress("3d network", 0.0);
        let config = network.config();
        let edge = config.edge() / scan.scene().metres_per_unit().unwrap_or(1.0);
        let colors = scan.scene().colors().filter(|_| config.input != Input::Ones);
        let cells = Cells::new(scan.positions(), colors, config.input, edge)?.in_metres(config.edge());
        let features = network.features(&cells, num_turns, device)?;
        let [_, num_channels] = features.dims();
        let rows = float_values(features)?;
        timer.lap("3d network");
        Ok(Self { rows, num_channels, cell_from_point: cells.cell_from_point })
    }

    /// Label of every point; see [`predict`].
    ///
    /// # Errors
    /// As [`predict`].
    pub(super) fn labels(&self, words: &Tensor<2>, num_labels: usize) -> Result<Vec<i32>, PipelineError> {
        let Predictions { label, .. } = predict(&self.rows, words, num_labels, None)?;
        Ok(self.cell_from_point.iter().map(|&cell| label[cell as usize]).collect())
    }
}

impl FeatureSource for CellFeatures {
    fn num_points(&self) -> usize {
        self.cell_from_point.len()
    }

    fn num_channels(&self) -> usize {
        self.num_channels
    }

    fn read(&self, channels: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        let width = channels.len();
        let mut values = vec![0.0; self.num_points() * width];
        let points = values.par_chunks_mut(width.max(1)).zip(&self.cell_from_point);
        points.with_min_len(256).for_each(|(out, &cell)| {
            out.copy_from_slice(&self.rows[cell as usize * self.num_channels..][channels.clone()]);
        });
        Ok(values)
    }
}

/// Weighted sum of what the views and the network say of a point, both in unit length. Of a point that no view sees,
/// the network alone speaks.
pub(super) struct Mixed<'a> {
    lifted: &'a Lifted,
    cells: &'a CellFeatures,
    /// `[N]` factors on the rows of the views and of the network.
    factors: Vec<[f32; 2]>,
}

impl<'a> Mixed<'a> {
    /// Mixes the two. `share` is the weight of the network, 0 to 1.
    ///
    /// # Errors
    /// [`PipelineError::Weights`] if features cannot be read.
    pub(super) fn new(lifted: &'a Lifted, cells: &'a CellFeatures, share: f32) -> Result<Self, PipelineError> {
        let lengths = [lengths(lifted)?, lengths(cells)?];
        let factor = |weight: f32, length: f32| if length > 0.0 { weight / length } else { 0.0 };
        let factors = lengths[0].iter().zip(&lengths[1]).zip(&lifted.num_views_of_point);
        let factors = factors.map(|((&views, &network), &num_views)| {
            let share = if num_views == 0 { 1.0 } else { share };
            [factor(1.0 - share, views), factor(share, network)]
        });
        Ok(Self { lifted, cells, factors: factors.collect() })
    }

    /// Label of every point: the word with the largest product, the first of equal ones; -1 for a background word.
    ///
    /// # Errors
    /// As [`predict`].
    pub(super) fn labels(&self, words: &Tensor<2>, num_labels: usize) -> Result<Vec<i32>, PipelineError> {
        let [num_words, _] = words.dims();
        let of_queries = crate::query::ensemble::scores(self.lifted.table(), words)?;
        let of_cells = crate::query::ensemble::scores(&self.cells.rows, words)?;
        let label = |(point, [of_views, of_network]): (usize, &[f32; 2])| {
            let cell = self.cells.cell_from_point[point] as usize;
            let mut scores: Vec<f32> =
                of_cells[cell * num_words..][..num_words].iter().map(|score| of_network * score).collect();
            for (row, weight) in self.lifted.rows_of(point) {
                let of_query = &of_queries[row * num_words..][..num_words];
                scores.iter_mut().zip(of_query).for_each(|(score, x)| *score += of_views * weight * x);
            }
            let best = (1..num_words).fold(0, |best, word| if scores[word] > scores[best] { word } else { best });
            if best < num_labels { best as i32 } else { -1 }
        };
        Ok(self.factors.par_iter().enumerate().with_min_len(256).map(label).collect())
    }
}

impl FeatureSource for Mixed<'_> {
    fn num_points(&self) -> usize {
        self.factors.len()
    }

    fn num_channels(&self) -> usize {
        self.cells.num_channels
    }

    fn read(&self, channels: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        let width = channels.len().max(1);
        let (mut values, network) = (self.lifted.read(channels.clone())?, self.cells.read(channels)?);
        let rows = values.par_chunks_mut(width).zip(network.par_chunks(width)).zip(&self.factors);
        rows.with_min_len(256).for_each(|((views, network), [of_views, of_network])| {
            views.iter_mut().zip(network).for_each(|(x, y)| *x = of_views * *x + of_network * y);
        });
        Ok(values)
    }
}

/// Length of every row, `[N]`.
fn lengths(source: &dyn FeatureSource) -> Result<Vec<f32>, WeightsError> {
    let mut squares = vec![0.0_f32; source.num_points()];
    for first in (0..source.num_channels()).step_by(BLOCK_CHANNELS) {
        let channels = first..source.num_channels().min(first + BLOCK_CHANNELS);
        let width = channels.len();
        let values = source.read(channels)?;
        squares.par_iter_mut().zip(values.par_chunks(width)).with_min_len(256).for_each(|(sum, row)| {
            *sum += row.iter().map(|x| x * x).sum::<f32>();
        });
    }
    Ok(squares.into_iter().map(f32::sqrt).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lift::{Lifter, Projection, View};
    use crate::ops::project::Visibility;
    use crate::ops::{float_tensor, int_tensor};

    /// Three points. A view sees the first by a query along x and the second by one along y.
    fn lifted(device: &Device) -> Lifted {
        let points = vec![[0.0; 3], [1.0, 0.0, 0.0], [1.2, 0.0, 0.0]];
        let mut lifter = Lifter::new(points, Visibility::default(), device);
        let query_from_pixel = int_tensor(vec![0, 1], [1, 2], device);
        let view = View::from_parts(query_from_pixel, vec![2.0, 0.0, 0.0, 4.0], vec![1.0, 0.0, 0.0, 1.0], 2).unwrap();
        lifter.add(&Projection::of_pixels(vec![0, 1, -1], [1, 2], device).unwrap(), &view).unwrap();
        lifter.finish().unwrap()
    }

    #[test]
    fn views_and_network_are_weighed_in_unit_length() {
        let device = Device::flex();
        let lifted = lifted(&device);
        let cells = CellFeatures { rows: vec![0.0, 3.0, 5.0, 0.0], num_channels: 2, cell_from_point: vec![0, 0, 1] };
        let mixed = Mixed::new(&lifted, &cells, 0.75).unwrap();
        // The third point is in no view: the network alone speaks.
        let expected = [0.25, 0.75, 0.0, 1.0, 1.0, 0.0];
        assert_eq!((mixed.num_points(), mixed.num_channels(), mixed.read(0..2).unwrap()), (3, 2, expected.to_vec()));
        assert_eq!(mixed.read(1..2).unwrap(), [0.75, 1.0, 0.0]);
        let words = float_tensor(vec![1.0, 0.0, 0.0, 1.0], [2, 2], &device);
        assert_eq!(mixed.labels(&words, 2).unwrap(), [1, 1, 0]);
        assert_eq!(mixed.labels(&words, 1).unwrap(), [-1, -1, 0]);
        assert_eq!(Mixed::new(&lifted, &cells, 0.25).unwrap().labels(&words, 2).unwrap(), [0, 1, 0]);
    }

    #[test]
    fn a_point_has_the_features_of_its_cell() {
        let cells = CellFeatures { rows: vec![0.0, 3.0, 5.0, 0.0], num_channels: 2, cell_from_point: vec![1, 0, 1] };
        assert_eq!(cells.read(0..2).unwrap(), [5.0, 0.0, 0.0, 3.0, 5.0, 0.0]);
        let words = float_tensor(vec![1.0, 0.0, 0.0, 1.0], [2, 2], &Device::flex());
        assert_eq!(cells.labels(&words, 2).unwrap(), [0, 1, 0]);
    }
}
