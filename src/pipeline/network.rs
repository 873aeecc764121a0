//! Features of points by a 3D network, which needs no views, and by it and the views together.

use std::collections::HashMap;
use std::ops::Range;

use burn::prelude::*;
use rayon::prelude::*;

use super::fused::FusedFeatures;
use super::lifted_views::{LiftedViews, blocks};
use super::voxel::occupied_neighbors;
use super::{Compat, PipelineError, Turned};
use crate::models::minkunet::{Cells, Input, MinkUnet, MinkUnetConfig, TextSpace};
use crate::models::xdecoder::TextEmbeddings;
use crate::ops::voxel_grid::cpu::{QuantizeError, VoxelGrid, quantize, voxel_grid};
use crate::ops::{float_tensor, float_values, int_tensor};
use crate::purify::FeatureSource;
use crate::query::ensemble::{EPSILON, Ensemble, ensemble, scores};
use crate::query::{Predictions, predict};
use crate::stages::StageTimer;
use crate::weights::WeightsError;

/// Cells that go through the network at once. Larger scans are cut.
const MOST_CELLS: usize = 250_000;
/// Width of the strip around a part that the network sees too, in metres.
const HALO_METRES: f32 = 2.0;
/// Occupied cells around a cell, on average, below which points are too far apart for the network.
const FEWEST_NEIGHBORS: f64 = 4.0;
/// Cosine with the background that our networks' features are given. They learned the words for what is there, and no
/// word for what was not asked for. On made rooms, the cosine with the right word is 0.45 to 0.7 and with a wrong one
/// below 0.35, in 19 of 20 cells.
const BACKGROUND: f32 = 0.38;
/// Points whose features are joined with fused ones at once.
const BLOCK_POINTS: usize = 1 << 14;
/// Channels that are read at once to measure rows.
const BLOCK_CHANNELS: usize = 16;

/// A 3D network and how it is used.
#[derive(Clone, Copy)]
pub struct Network3d<'a> {
    /// The network. Its first head is in the space of the words.
    pub network: &'a MinkUnet,
    /// Number of turns about the up direction over which its features are averaged.
    pub num_turns: usize,
    /// Runs as in the published evaluation, in place of turns. A network that is told of shape takes turns all the same.
    pub repeats: Option<Repeats>,
    /// How its features and those of views become one; `None` for the weighted sum of unit vectors.
    pub rule: Option<Ensemble>,
    /// Features fused from views beforehand, which join those of a network that answers alone.
    pub fused: Option<&'a FusedFeatures>,
}

/// Runs of a network whose scores are added, each on voxels drawn anew: turned, tilted and scaled at random, as in the
/// published evaluation of OpenScene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeats {
    /// Number of runs.
    pub count: usize,
    /// Seed of the first run; each further run adds 1.
    pub seed: u64,
}

impl Network3d<'_> {
    /// Edge of a cell in the scan's unit.
    fn edge(&self, scan: &Turned<'_>) -> f64 {
        self.network.config().edge() / scan.scene().metres_per_unit().unwrap_or(1.0)
    }

    /// True if hardly any cell of `scan` has a neighbour, as in landscapes: the network learned nothing of such scans.
    pub(super) fn finds_too_sparse(&self, scan: &Turned<'_>) -> bool {
        occupied_neighbors(scan.positions(), self.edge(scan)) < FEWEST_NEIGHBORS
    }
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
    /// Runs the network on the cells of `scan`, which is turned so that z is up. A scan of more than 250,000 cells is
    /// cut into parts side by side, each seen with a strip of two metres around it. This is no exact division: the
    /// network sees farther, but it learned from parts of rooms.
    ///
    /// # Errors
    /// [`PipelineError::Cells`] for a scan of too many cells; [`PipelineError::Op`].
    pub(super) fn of(
        scan: &Turned<'_>,
        network: Network3d<'_>,
        text: &TextEmbeddings,
        device: &Device,
        timer: &mut StageTimer<'_>,
    ) -> Result<Self, PipelineError> {
        timer.progress("3d network", 0.0);
        let edge = network.edge(scan);
        let is_told = network.network.config().input == Input::ShapeAndColor;
        if let Some(repeats) = network.repeats.filter(|_| !is_told) {
            return Self::of_repeats(scan, network, repeats, device, timer);
        }
        let Network3d { network, num_turns, .. } = network;
        let config = network.config();
        let colors = scan.scene().colors().filter(|_| config.input != Input::Ones);
        let cells = Cells::new(scan.positions(), colors, config.input, edge)?.in_metres(config.edge());
        let num_channels = config.text_width();
        let mut rows = vec![0.0; cells.len() * num_channels];
        let parts = parts(&cells.positions, (0..cells.len() as u32).collect(), MOST_CELLS);
        for (number, Part { inner, seen }) in parts.iter().enumerate() {
            let is_whole = parts.len() == 1;
            let features = match is_whole {
                true => network.features(&cells, num_turns, device)?,
                false => network.features(&cells.part(seen), num_turns, device)?,
            };
            let values = float_values(features)?;
            for (row, cell) in seen.iter().enumerate() {
                if is_whole || inner.binary_search(cell).is_ok() {
                    let to = *cell as usize * num_channels;
                    rows[to..to + num_channels].copy_from_slice(&values[row * num_channels..][..num_channels]);
                }
            }
            timer.progress("3d network", (number + 1) as f64 / parts.len() as f64);
        }
        if config.text == TextSpace::XDecoder {
            let [num_rows, _] = text.rows.dims();
            let background = float_values(text.rows.clone().slice_dim(0, num_rows.saturating_sub(1)..num_rows))?;
            rows.par_chunks_mut(num_channels.max(1)).for_each(|row| set_background(row, &background));
        }
        timer.lap("3d network");
        Ok(Self { rows, num_channels, cell_from_point: cells.cell_from_point })
    }

    /// The sum of several runs, nothing normalised, so that products with words add up as in the published evaluation.
    /// The whole scan goes through at once. Points that share a voxel in every run share a row.
    fn of_repeats(
        scan: &Turned<'_>,
        network: Network3d<'_>,
        repeats: Repeats,
        device: &Device,
        timer: &mut StageTimer<'_>,
    ) -> Result<Self, PipelineError> {
        let edge = network.edge(scan);
        let network = network.network;
        let count = repeats.count.max(1);
        let grid = |run: usize| {
            let transform = Compat::Reference.voxel_transform(edge, repeats.seed.wrapping_add(run as u64));
            let (coords, _) = quantize(scan.positions(), &transform)?;
            let coords: Vec<[i32; 4]> = coords.into_iter().map(|[x, y, z]| [0, x, y, z]).collect();
            Ok::<_, QuantizeError>(voxel_grid(&coords))
        };
        let grids = (0..count).map(grid).collect::<Result<Vec<_>, _>>()?;
        let (mut rows_of_voxels, mut first_points) = (HashMap::new(), Vec::new());
        let row = |point: usize| {
            let voxels: Vec<i32> = grids.iter().map(|grid| grid.voxel_from_point[point]).collect();
            *rows_of_voxels.entry(voxels).or_insert_with(|| {
                first_points.push(point);
                first_points.len() as i32 - 1
            })
        };
        let cell_from_point: Vec<i32> = (0..scan.positions().len()).map(row).collect();
        let num_channels = network.config().text_width();
        let mut rows = vec![0.0_f32; first_points.len() * num_channels];
        for (run, grid) in grids.iter().enumerate() {
            let inputs = inputs(grid, scan.scene().colors(), network.config());
            let num_voxels = grid.coords.len();
            let inputs = float_tensor(inputs, [num_voxels, network.config().in_channels], device);
            let coords = int_tensor(grid.coords.as_flattened().to_vec(), [num_voxels, 4], device);
            let values = float_values(network.head(network.forward(inputs, coords)?, 0)?)?;
            let sums = rows.par_chunks_mut(num_channels.max(1)).zip(&first_points);
            sums.with_min_len(256).for_each(|(sum, &point)| {
                let voxel = grid.voxel_from_point[point] as usize;
                sum.iter_mut().zip(&values[voxel * num_channels..]).for_each(|(sum, x)| *sum += x);
            });
            timer.progress("3d network", (run + 1) as f64 / count as f64);
        }
        timer.lap("3d network");
        Ok(Self { rows, num_channels, cell_from_point })
    }

    /// Joins the features with those fused from views, point by point. By default the surer one counts.
    ///
    /// # Errors
    /// [`PipelineError::Op`].
    pub(super) fn joined(
        self,
        fused: &FusedFeatures,
        rule: Option<Ensemble>,
        words: &Tensor<2>,
    ) -> Result<Self, PipelineError> {
        let (num_points, num_channels) = (self.num_points(), self.num_channels);
        let mut rows = Vec::with_capacity(num_points * num_channels);
        for first in (0..num_points).step_by(BLOCK_POINTS) {
            let points = first..num_points.min(first + BLOCK_POINTS);
            let row = |&cell: &i32| &self.rows[cell as usize * num_channels..][..num_channels];
            let network: Vec<f32> = self.cell_from_point[points.clone()].iter().flat_map(row).copied().collect();
            let rule = rule.unwrap_or(Ensemble::Surer);
            rows.extend(ensemble(rule, &network, &fused.of_points(points), words)?);
        }
        Ok(Self { rows, num_channels, cell_from_point: (0..num_points as i32).collect() })
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

/// What a published network is told of every voxel: ones, or the colour of the voxel's first point.
fn inputs(grid: &VoxelGrid, colors: Option<&[[u8; 3]]>, config: &MinkUnetConfig) -> Vec<f32> {
    let (Some(colors), Input::Color) = (colors, config.input) else {
        let value = if config.input == Input::Ones { 1.0 } else { 0.0 };
        return vec![value; grid.coords.len() * config.in_channels];
    };
    let first = |offset: &i32| colors[grid.point_from_sorted[*offset as usize] as usize];
    let offsets = &grid.offsets[..grid.coords.len()];
    offsets.iter().flat_map(|offset| first(offset).map(|value| f32::from(value) / 127.5 - 1.0)).collect()
}

/// Brings a feature to unit length, and gives it the cosine [`BACKGROUND`] with the row of the background, also of unit
/// length.
fn set_background(feature: &mut [f32], background: &[f32]) {
    let length = feature.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length <= 0.0 {
        return;
    }
    let along = feature.iter().zip(background).map(|(x, b)| x * b).sum::<f32>() / length;
    // What is left beside the background keeps its direction.
    let beside = (1.0 - along * along).max(1e-6).sqrt();
    let kept = (1.0 - BACKGROUND * BACKGROUND).sqrt() / beside;
    for (x, b) in feature.iter_mut().zip(background) {
        *x = kept * (*x / length - along * b) + BACKGROUND * b;
    }
}

/// Cells of a part, and those that the network sees for it; both ascending.
struct Part {
    inner: Vec<u32>,
    seen: Vec<u32>,
}

/// Halves `cells` along x or y, whichever is longer, until no part has more than `most`.
fn parts(positions: &[[f32; 3]], cells: Vec<u32>, most: usize) -> Vec<Part> {
    let all = cells.clone();
    let mut waiting = vec![cells];
    let mut parts = Vec::new();
    while let Some(mut cells) = waiting.pop() {
        let bounds = [0, 1].map(|axis| {
            let along = cells.iter().map(|&cell| positions[cell as usize][axis]);
            along.fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], x| [low.min(x), high.max(x)])
        });
        if cells.len() > most.max(1) {
            let [x, y] = bounds.map(|[low, high]| high - low);
            let axis = usize::from(y > x);
            let middle = cells.len() / 2;
            let along = |cell: &u32| positions[*cell as usize][axis];
            cells.select_nth_unstable_by(middle, |a, b| along(a).total_cmp(&along(b)).then(a.cmp(b)));
            waiting.push(cells.split_off(middle));
            waiting.push(cells);
            continue;
        }
        cells.sort_unstable();
        let is_near = |cell: &&u32| {
            let p = positions[**cell as usize];
            bounds.iter().zip(p).all(|([low, high], x)| x >= low - HALO_METRES && x <= high + HALO_METRES)
        };
        let seen = if cells.len() == all.len() { cells.clone() } else { all.iter().filter(is_near).copied().collect() };
        parts.push(Part { inner: cells, seen });
    }
    parts
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

/// How the features of the views and of the network become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mixing {
    /// Weighted sum of both in unit length. Of a point that no view sees, the network alone speaks.
    Weighted {
        /// Weight of the network, 0 to 1.
        share: f32,
    },
    /// A published rule, nothing normalised.
    Rule(Ensemble),
}

impl Mixing {
    /// The rule, or else the weighted sum.
    pub(super) fn of(rule: Option<Ensemble>, share: f32) -> Self {
        rule.map_or(Self::Weighted { share }, Self::Rule)
    }
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
    use crate::cloud::PointCloud;
    use crate::lift::{DenseLifter, DenseView, Lifter, Projection, View};
    use crate::ops::project::Visibility;
    use crate::pipeline::Scene;
    use crate::pipeline::fused::tests::write as fused_file;
    use crate::random::SplitMix64;
    use crate::weights::{Dtype, HostTensor, StateDict};

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
            let mixed = |views| Mixed::new(views, cells.clone(), Mixing::of(None, share), &words).unwrap();
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
        let mixing = |share| Mixing::of(None, share);
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
        let mixed = |rule| Mixed::new(lifted(&device), cells.clone(), Mixing::of(Some(rule), 0.6), &words).unwrap();
        let views = lifted(&device).read(0..2).unwrap();
        // The views are surer of the first; both are sure of the second, so the network's stays.
        let expected = [views[0], views[1], 5.0, 0.0, 3.0, 3.0];
        assert_eq!(mixed(Ensemble::Surer).read(0..2).unwrap(), expected);
        let mean: Vec<f32> = views.iter().zip([3.0, 3.0, 5.0, 0.0, 3.0, 3.0]).map(|(a, b)| 0.5 * a + 0.5 * b).collect();
        assert_eq!(mixed(Ensemble::Mean).read(0..2).unwrap(), mean);
    }

    #[test]
    fn fused_features_join_those_of_the_network_point_by_point() {
        let device = Device::flex();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("room_0.pt");
        fused_file(&path, &[1, 0, 1], &[2, 2], &[0.0, 1.0, 0.5, 0.5]);
        let fused = FusedFeatures::read(&path, 3, 2).unwrap();
        let cells = CellFeatures { rows: vec![3.0, 3.0, 5.0, 0.0], num_channels: 2, cell_from_point: vec![0, 0, 1] };
        let words = float_tensor(vec![1.0, 0.0, 0.0, 1.0], [2, 2], &device);
        // The views are surer of the first, saw nothing of the second, and are less sure of the third.
        let surer = cells.clone().joined(&fused, None, &words).unwrap();
        assert_eq!(surer.read(0..2).unwrap(), [0.0, 1.0, 3.0, 3.0, 5.0, 0.0]);
        assert_eq!(surer.labels(&words, 2).unwrap(), [1, 0, 0]);
        let mean = cells.joined(&fused, Some(Ensemble::Mean), &words).unwrap();
        assert_eq!(mean.read(0..2).unwrap(), [1.5, 2.0, 1.5, 1.5, 2.75, 0.25]);
    }

    /// A small published network of these values: ones as input, features of 6 channels.
    fn published(device: &Device) -> MinkUnet {
        let config = MinkUnetConfig {
            init_dim: 3,
            planes: [4; 8],
            layers: [1; 8],
            heads: vec![("final".to_owned(), 6)],
            ..MinkUnetConfig::openscene()
        };
        let mut random = SplitMix64::new(5);
        let mut state = StateDict::default();
        for (key, shape) in config.keys() {
            let len: usize = shape.iter().product();
            let low = if key.ends_with("kernel") || key.ends_with("running_mean") { -0.5 } else { 0.5 };
            let data = (0..len).map(|_| (low + random.unit()) as f32).collect();
            state.tensors.insert(key, HostTensor { shape, dtype_in_file: Dtype::F32, data });
        }
        MinkUnet::load_as(config, state, device).unwrap().0
    }

    #[test]
    fn repeats_add_the_runs_of_the_published_evaluation() {
        let device = Device::flex();
        let network = published(&device);
        let mut random = SplitMix64::new(9);
        let positions: Vec<[f64; 3]> =
            (0..300).map(|_| [0.4 * random.unit(), 0.4 * random.unit(), 0.04 * random.unit()]).collect();
        let scene = Scene::new(PointCloud { positions, ..PointCloud::default() }, None).unwrap();
        let scan = scene.turned(glam::DMat3::IDENTITY);
        let rows = |count: usize, seed: u64| {
            let repeats = Some(Repeats { count, seed });
            let network = Network3d { network: &network, num_turns: 4, repeats, rule: None, fused: None };
            let words = float_tensor(vec![0.0; 6], [1, 6], &device);
            let text = TextEmbeddings { labels: vec!["a".to_owned()], rows: words, logit_scale: 1.0 };
            let cells = CellFeatures::of(&scan, network, &text, &device, &mut StageTimer::default()).unwrap();
            cells.read(0..6).unwrap()
        };
        // A run by itself: every point has the row of its voxel.
        let run = |seed: u64| {
            let transform = Compat::Reference.voxel_transform(0.02, seed);
            let (coords, _) = quantize(scan.positions(), &transform).unwrap();
            let grid = voxel_grid(&coords.into_iter().map(|[x, y, z]| [0, x, y, z]).collect::<Vec<_>>());
            let ones = float_tensor(vec![1.0; 3 * grid.coords.len()], [grid.coords.len(), 3], &device);
            let coords = int_tensor(grid.coords.as_flattened().to_vec(), [grid.coords.len(), 4], &device);
            let values = float_values(network.head(network.forward(ones, coords).unwrap(), 0).unwrap()).unwrap();
            let row = |&voxel: &i32| values[6 * voxel as usize..][..6].to_vec();
            grid.voxel_from_point.iter().flat_map(row).collect::<Vec<f32>>()
        };
        assert_eq!(rows(1, 3), run(3));
        assert_ne!(run(3), run(4));
        let expected: Vec<f32> = run(3).iter().zip(run(4)).zip(run(5)).map(|((a, b), c)| a + b + c).collect();
        assert_eq!(rows(3, 3), expected);
    }

    #[test]
    fn a_feature_gets_the_background_and_keeps_the_rest() {
        let mut feature = [3.0, 4.0, 0.0];
        set_background(&mut feature, &[0.0, 0.0, 1.0]);
        let rest = (1.0 - BACKGROUND * BACKGROUND).sqrt();
        let close =
            |expected: [f32; 3], feature: &[f32]| expected.iter().zip(feature).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close([0.6 * rest, 0.8 * rest, BACKGROUND], &feature), "{feature:?}");
        let mut feature = [0.6, 0.0, 0.8];
        set_background(&mut feature, &[0.0, 0.0, 1.0]);
        assert!(close([rest, 0.0, BACKGROUND], &feature), "{feature:?}");
        let mut nothing = [0.0; 3];
        set_background(&mut nothing, &[0.0, 0.0, 1.0]);
        assert_eq!(nothing, [0.0; 3]);
    }

    #[test]
    fn parts_cover_every_cell_once_and_see_what_is_around() {
        let positions: Vec<[f32; 3]> =
            (0..1000).map(|i| [0.1 * (i % 100) as f32, 0.1 * (i / 100) as f32, 0.0]).collect();
        let whole = parts(&positions, (0..1000).collect(), 1000);
        assert_eq!((whole.len(), whole[0].inner.len(), whole[0].seen.len()), (1, 1000, 1000));
        let cut = parts(&positions, (0..1000).collect(), 300);
        let mut all: Vec<u32> = cut.iter().flat_map(|part| part.inner.iter().copied()).collect();
        all.sort_unstable();
        assert!(cut.len() == 4 && all == Vec::from_iter(0..1000));
        // Each is 25 columns wide, with 20 more on every side where there are cells.
        let widths: Vec<usize> = cut.iter().map(|part| part.seen.len() / 10).collect();
        assert!(widths.iter().all(|width| (45..=66).contains(width)), "{widths:?}");
        assert!(cut.iter().all(|part| part.inner.iter().all(|cell| part.seen.binary_search(cell).is_ok())));
    }

    #[test]
    fn a_point_has_the_features_of_its_cell() {
        let cells = CellFeatures { rows: vec![0.0, 3.0, 5.0, 0.0], num_channels: 2, cell_from_point: vec![1, 0, 1] };
        assert_eq!(cells.read(0..2).unwrap(), [5.0, 0.0, 0.0, 3.0, 5.0, 0.0]);
        let words = float_tensor(vec![1.0, 0.0, 0.0, 1.0], [2, 2], &Device::flex());
        assert_eq!(cells.labels(&words, 2).unwrap(), [0, 1, 0]);
    }
}
