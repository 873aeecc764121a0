//! Features of points by a 3D network, which needs no views.

use std::collections::HashMap;
use std::ops::Range;

use burn::prelude::*;
use rayon::prelude::*;

use super::fused::FusedFeatures;
use super::voxel::occupied_neighbors;
use super::{Compat, PipelineError, Turned};
use crate::models::minkunet::{Cells, Input, MinkUnet, MinkUnetConfig, TextSpace};
use crate::models::xdecoder::TextEmbeddings;
use crate::ops::voxel_grid::cpu::{QuantizeError, VoxelGrid, quantize, voxel_grid};
use crate::ops::{float_tensor, float_values, int_tensor};
use crate::purify::FeatureSource;
use crate::query::ensemble::{Ensemble, ensemble};
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

/// A 3D network and how it is used.
#[derive(Clone, Copy)]
pub struct Network3d<'a> {
    /// The network. Its first head is in the space of the words.
    pub network: &'a MinkUnet,
    /// Number of turns about the up direction over which its features are averaged.
    pub num_turns: usize,
    /// Runs as in the published evaluation, in place of turns. A network that is told of shape takes turns all the same.
    pub repeats: Option<Repeats>,
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
    pub(super) rows: Vec<f32>,
    pub(super) num_channels: usize,
    /// `[N]`.
    pub(super) cell_from_point: Vec<i32>,
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

    /// The features fused from views alone: zeros where no view sees a point.
    pub(super) fn of_fused(fused: &FusedFeatures, scan: &Turned<'_>) -> Self {
        let num_points = scan.positions().len();
        let cell_from_point = (0..num_points as i32).collect();
        Self { rows: fused.of_points(0..num_points), num_channels: fused.num_channels(), cell_from_point }
    }

    /// Joins the features with those fused from views, point by point.
    ///
    /// # Errors
    /// [`PipelineError::Op`].
    pub(super) fn joined(
        self,
        fused: &FusedFeatures,
        rule: Ensemble,
        words: &Tensor<2>,
    ) -> Result<Self, PipelineError> {
        let (num_points, num_channels) = (self.num_points(), self.num_channels);
        let mut rows = Vec::with_capacity(num_points * num_channels);
        for first in (0..num_points).step_by(BLOCK_POINTS) {
            let points = first..num_points.min(first + BLOCK_POINTS);
            let row = |&cell: &i32| &self.rows[cell as usize * num_channels..][..num_channels];
            let network: Vec<f32> = self.cell_from_point[points.clone()].iter().flat_map(row).copied().collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::PointCloud;
    use crate::pipeline::Scene;
    use crate::pipeline::fused::tests::write as fused_file;
    use crate::random::SplitMix64;
    use crate::weights::{Dtype, HostTensor, StateDict};

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
        let surer = cells.clone().joined(&fused, Ensemble::Surer, &words).unwrap();
        assert_eq!(surer.read(0..2).unwrap(), [0.0, 1.0, 3.0, 3.0, 5.0, 0.0]);
        assert_eq!(surer.labels(&words, 2).unwrap(), [1, 0, 0]);
        let mean = cells.joined(&fused, Ensemble::Mean, &words).unwrap();
        assert_eq!(mean.read(0..2).unwrap(), [1.5, 2.0, 1.5, 1.5, 2.75, 0.25]);
        // Alone, they say nothing of the second point.
        let cloud = PointCloud { positions: vec![[0.0; 3], [1.0; 3], [2.0; 3]], ..PointCloud::default() };
        let scene = Scene::new(cloud, None).unwrap();
        let alone = CellFeatures::of_fused(&fused, &scene.turned(glam::DMat3::IDENTITY));
        assert_eq!(alone.read(0..2).unwrap(), [0.0, 1.0, 0.0, 0.0, 0.5, 0.5]);
        assert_eq!(alone.labels(&words, 2).unwrap(), [1, -1, 0]);
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
            let network = Network3d { network: &network, num_turns: 4, repeats };
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
