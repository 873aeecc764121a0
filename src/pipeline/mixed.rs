//! Features of points by views and by a 3D network together.

use std::ops::Range;

use burn::prelude::*;
use rayon::prelude::*;

use super::PipelineError;
use super::lifted_views::{LiftedViews, blocks};
use super::network::CellFeatures;
use crate::ops::float_values;
use crate::purify::FeatureSource;
use crate::query::ensemble::{EPSILON, Ensemble, scores};
use crate::weights::WeightsError;

/// Channels that are read at once to measure rows.
const BLOCK_CHANNELS: usize = 16;

/// How the features of the views and of the network become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixing {
    /// Weighted sum of both in unit length. Of a point that no view sees, the network alone speaks.
    Weighted {
        /// Weight of the network, 0 to 1.
        share: f32,
    },
    /// A published rule, nothing normalised.
    Rule(Ensemble),
}

/// What the views and the network say of a point together: a factor times each.
pub(super) struct Mixed {
    lifted: LiftedViews,
    cells: CellFeatures,
    /// `[N]` factors on the rows of the views and of the network.
    factors: Vec<[f32; 2]>,
}

impl Mixed {
    /// Mixes the two. `words` are what the surer one is sure of.
    ///
    /// # Errors
    /// [`PipelineError::Weights`] if features cannot be read, [`PipelineError::Op`].
    pub(super) fn new(
        lifted: LiftedViews,
        cells: CellFeatures,
        mixing: Mixing,
        words: &Tensor<2>,
    ) -> Result<Self, PipelineError> {
        let factors = match mixing {
            Mixing::Rule(Ensemble::Mean) => vec![[0.5; 2]; cells.num_points()],
            Mixing::Rule(Ensemble::Surer) => {
                let sureness = [best_cosines(&lifted, words)?, best_cosines(&cells, words)?];
                let points = sureness[0].iter().zip(&sureness[1]).zip(lifted.num_views_of_point());
                points
                    .map(
                        |((views, network), &num_views)| {
                            if num_views > 0 && network < views { [1.0, 0.0] } else { [0.0, 1.0] }
                        },
                    )
                    .collect()
            }
            Mixing::Weighted { share } => {
                let lengths = [lengths(&lifted)?, lengths(&cells)?];
                let factor = |weight: f32, length: f32| if length > 0.0 { weight / length } else { 0.0 };
                let points = lengths[0].iter().zip(&lengths[1]).zip(lifted.num_views_of_point());
                let weighted = points.map(|((&views, &network), &num_views)| {
                    let share = if num_views == 0 { 1.0 } else { share };
                    [factor(1.0 - share, views), factor(share, network)]
                });
                weighted.collect()
            }
        };
        Ok(Self { lifted, cells, factors })
    }

    /// Label of every point: the word with the largest product, the first of equal ones; -1 for a background word.
    ///
    /// # Errors
    /// As [`predict`].
    pub(super) fn labels(&self, words: &Tensor<2>, num_labels: usize) -> Result<Vec<i32>, PipelineError> {
        let [num_words, _] = words.dims();
        let of_lifted = self.lifted.word_scores(words)?;
        let of_cells = scores(&self.cells.rows, words)?;
        let mut labels = Vec::with_capacity(self.num_points());
        for points in blocks(self.num_points()) {
            let mut of_points = of_lifted.of_points(points.clone())?;
            let cells = &self.cells.cell_from_point[points.clone()];
            let rows = of_points.par_chunks_mut(num_words.max(1)).zip(cells).zip(&self.factors[points]);
            let label = |((of_point, &cell), [of_views, of_network]): ((&mut [f32], &i32), &[f32; 2])| {
                let of_cell = &of_cells[cell as usize * num_words..][..num_words];
                for (score, of_cell) in of_point.iter_mut().zip(of_cell) {
                    *score = of_views * *score + of_network * of_cell;
                }
                let best =
                    (1..num_words).fold(0, |best, word| if of_point[word] > of_point[best] { word } else { best });
                if best < num_labels { best as i32 } else { -1 }
            };
            labels.par_extend(rows.with_min_len(256).map(label));
        }
        Ok(labels)
    }
}

impl FeatureSource for Mixed {
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

/// Cosine `[N]` of every row with its best word, with the lengths of OpenScene's rule.
fn best_cosines(source: &dyn FeatureSource, words: &Tensor<2>) -> Result<Vec<f32>, PipelineError> {
    let [num_words, num_channels] = words.dims();
    let words = float_values(words.clone())?;
    let mut scores = vec![0.0_f32; source.num_points() * num_words];
    for first in (0..num_channels).step_by(BLOCK_CHANNELS) {
        let channels = first..num_channels.min(first + BLOCK_CHANNELS);
        let values = source.read(channels.clone())?;
        let rows = scores.par_chunks_mut(num_words.max(1)).zip(values.par_chunks(channels.len()));
        rows.with_min_len(256).for_each(|(scores, row)| {
            for (score, word) in scores.iter_mut().zip(words.chunks_exact(num_channels)) {
                *score += row.iter().zip(&word[channels.clone()]).map(|(x, y)| x * y).sum::<f32>();
            }
        });
    }
    let best = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let best = scores.par_chunks(num_words.max(1)).with_min_len(256).map(best);
    Ok(best.zip(lengths(source)?).map(|(score, length)| score / (length + EPSILON)).collect())
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
    use crate::lift::{DenseLifter, DenseView, Lifter, Projection, View};
    use crate::ops::project::Visibility;
    use crate::ops::{float_tensor, int_tensor};

    /// Three points. A view sees the first by a query along x and the second by one along y.
    fn lifted(device: &Device) -> LiftedViews {
        let points = vec![[0.0; 3], [1.0, 0.0, 0.0], [1.2, 0.0, 0.0]];
        let mut lifter = Lifter::new(points, Visibility::default(), device);
        let query_from_pixel = int_tensor(vec![0, 1], [1, 2], device);
        let view = View::from_parts(query_from_pixel, vec![2.0, 0.0, 0.0, 4.0], vec![1.0, 0.0, 0.0, 1.0], 2).unwrap();
        lifter.add(&Projection::of_pixels(vec![0, 1, -1], [1, 2], device).unwrap(), &view).unwrap();
        LiftedViews::Queries(lifter.finish().unwrap())
    }

    /// The same features, one for every pixel.
    fn dense(device: &Device) -> LiftedViews {
        let points = vec![[0.0; 3], [1.0, 0.0, 0.0], [1.2, 0.0, 0.0]];
        let mut lifter = DenseLifter::new(points, Visibility::default(), device);
        let seen = Projection::of_pixels(vec![0, 1, -1], [1, 2], device).unwrap();
        lifter.add(&seen, DenseView { grid: [1, 2], values: &[2.0, 0.0, 0.0, 4.0] }).unwrap();
        LiftedViews::Dense(lifter.finish().unwrap())
    }

    #[test]
    fn features_of_pixels_are_weighed_as_those_of_queries_are() {
        let device = Device::flex();
        let cells = CellFeatures { rows: vec![0.0, 3.0, 5.0, 0.0], num_channels: 2, cell_from_point: vec![0, 0, 1] };
        let words = float_tensor(vec![1.0, 0.0, 0.0, 1.0], [2, 2], &device);
        for share in [0.25, 0.75] {
            let mixed = |views| Mixed::new(views, cells.clone(), Mixing::Weighted { share }, &words).unwrap();
            let [dense, queries] = [dense(&device), lifted(&device)].map(mixed);
            assert_eq!(dense.read(0..2).unwrap(), queries.read(0..2).unwrap());
            assert_eq!(dense.labels(&words, 2).unwrap(), queries.labels(&words, 2).unwrap());
        }
        // Without a network the nearest word is the label; the third point has what its neighbour has.
        assert_eq!(dense(&device).labels(&words, 2).unwrap(), [0, 1, 1]);
        assert_eq!(dense(&device).labels(&words, 1).unwrap(), [0, -1, -1]);
    }

    #[test]
    fn views_and_network_are_weighed_in_unit_length() {
        let device = Device::flex();
        let lifted = lifted(&device);
        let cells = CellFeatures { rows: vec![0.0, 3.0, 5.0, 0.0], num_channels: 2, cell_from_point: vec![0, 0, 1] };
        let words = float_tensor(vec![1.0, 0.0, 0.0, 1.0], [2, 2], &device);
        let mixing = |share| Mixing::Weighted { share };
        let mixed = Mixed::new(lifted.clone(), cells.clone(), mixing(0.75), &words).unwrap();
        // The third point is in no view: the network alone speaks.
        let expected = [0.25, 0.75, 0.0, 1.0, 1.0, 0.0];
        assert_eq!((mixed.num_points(), mixed.num_channels(), mixed.read(0..2).unwrap()), (3, 2, expected.to_vec()));
        assert_eq!(mixed.read(1..2).unwrap(), [0.75, 1.0, 0.0]);
        assert_eq!(mixed.labels(&words, 2).unwrap(), [1, 1, 0]);
        assert_eq!(mixed.labels(&words, 1).unwrap(), [-1, -1, 0]);
        assert_eq!(Mixed::new(lifted, cells, mixing(0.25), &words).unwrap().labels(&words, 2).unwrap(), [0, 1, 0]);
    }

    #[test]
    fn published_rules_take_the_surer_or_the_mean() {
        let device = Device::flex();
        // The views say (2, 0) / 2 and (0, 4) / 4 in unit length, and nothing of the third point.
        let cells = CellFeatures { rows: vec![3.0, 3.0, 5.0, 0.0], num_channels: 2, cell_from_point: vec![0, 1, 0] };
        let words = float_tensor(vec![1.0, 0.0, 0.0, 1.0], [2, 2], &device);
        let mixed = |rule| Mixed::new(lifted(&device), cells.clone(), Mixing::Rule(rule), &words).unwrap();
        let views = lifted(&device).read(0..2).unwrap();
        // The views are surer of the first; both are sure of the second, so the network's stays.
        let expected = [views[0], views[1], 5.0, 0.0, 3.0, 3.0];
        assert_eq!(mixed(Ensemble::Surer).read(0..2).unwrap(), expected);
        let mean: Vec<f32> = views.iter().zip([3.0, 3.0, 5.0, 0.0, 3.0, 3.0]).map(|(a, b)| 0.5 * a + 0.5 * b).collect();
        assert_eq!(mixed(Ensemble::Mean).read(0..2).unwrap(), mean);
    }
}
