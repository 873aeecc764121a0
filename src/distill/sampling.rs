//! Draws the input of one training step from a scene: pairs of samples, and the voxels that contain them.

use burn::prelude::*;

use super::{Config, DistillError, Positives, Samples, Shown, TrainingScene};
use crate::ops::contrastive_pairs::{Negatives, contrastive_pairs};
use crate::ops::knn::knn_between;
use crate::ops::voxel_grid::{self, augmented, quantize};
use crate::ops::{float_tensor, int_tensor, int_values};
use crate::random::SplitMix64;

/// Anchors are at most 1 / this number of the samples.
const SAMPLES_PER_ANCHOR: usize = 3;

/// Input of one step, drawn from a scene.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `[V, C]`: the student's input, one mean per voxel.
    pub features: Vec<f32>,
    /// `[V]`: distinct voxel coordinates.
    pub coords: Vec<[i32; 3]>,
    /// `[A]`: voxel of every anchor.
    pub anchors: Vec<i32>,
    /// `[A]`: voxel of every anchor's positive.
    pub positives: Vec<i32>,
    /// `[A, M]`: voxels of the negatives, first macro, then micro.
    pub negatives: Vec<i32>,
    /// True if only a part of the scene was used, to fit the memory.
    pub is_cropped: bool,
}

/// Anchors with their positives and negatives, as sample indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// `[A]`: anchors.
    pub anchors: Vec<u32>,
    /// `[A]`: positive of each anchor.
    pub positives: Vec<u32>,
    /// `[A, M]`: macro-negatives of each anchor, then its micro-negatives.
    pub negatives: Vec<u32>,
}

/// Draws the input of a step from `scene`. If the scene has more than `max_voxels` voxels, a part with that
/// many is used.
///
/// # Errors
/// [`DistillError::TooSmall`] if the scene has too few samples, [`DistillError::Op`].
pub fn batch(
    scene: &TrainingScene,
    config: &Config,
    max_voxels: usize,
    random: &mut SplitMix64,
    device: &Device,
) -> Result<Batch, DistillError> {
    let is_cropped = scene.num_voxels() > max_voxels;
    let kept = if is_cropped { crop(scene, max_voxels, random) } else { (0..scene.num_samples() as u32).collect() };
    // The samples of a teacher's cell are equally similar to all others, and the first of equal ones is
    // taken. A random order gives each of them a chance.
    let kept: Vec<u32> = random.permutation(kept.len()).into_iter().map(|i| kept[i]).collect();
    let num_anchors = config.anchors.min(kept.len() / SAMPLES_PER_ANCHOR);
    let anchors = random.sample(kept.len(), num_anchors).into_iter().map(|sample| sample as u32).collect();
    let pairs = pairs(scene, &kept, anchors, config, random, device)?;
    let transform = config.augment.then(|| augmented(scene.voxel_size, random));
    let (voxel_from_kept, coords) = voxels(scene, &kept, transform)?;
    Ok(Batch { is_cropped, ..gather(scene, &kept, &pairs, config.shown, &voxel_from_kept, &coords) })
}

/// Least number of samples from which pairs can be drawn.
#[must_use]
pub fn least_samples(config: &Config) -> usize {
    (config.spatial_neighbors + 1).max(config.macro_negatives + 2).max(SAMPLES_PER_ANCHOR)
}

/// Checks that pairs can be drawn from `num_samples` samples.
///
/// # Errors
/// [`DistillError::TooSmall`].
pub fn check_size(scene: &str, num_samples: usize, config: &Config) -> Result<(), DistillError> {
    let expected = least_samples(config);
    match num_samples < expected {
        true => Err(DistillError::TooSmall { scene: scene.to_owned(), samples: num_samples, expected }),
        false => Ok(()),
    }
}

/// Samples of the `max_voxels` voxels nearest to a random voxel, by the largest coordinate difference.
fn crop(scene: &TrainingScene, max_voxels: usize, random: &mut SplitMix64) -> Vec<u32> {
    let center = scene.voxel_coords[random.below(scene.num_voxels())];
    let distance = |voxel: usize| {
        let coords = scene.voxel_coords[voxel];
        (0..3).map(|axis| coords[axis].abs_diff(center[axis])).max().unwrap_or(0)
    };
    let mut order: Vec<(u32, u32)> = (0..scene.num_voxels()).map(|voxel| (distance(voxel), voxel as u32)).collect();
    let mut is_kept = vec![false; scene.num_voxels()];
    if max_voxels > 0 {
        order.select_nth_unstable(max_voxels - 1);
    }
    order[..max_voxels].iter().for_each(|&(_, voxel)| is_kept[voxel as usize] = true);
    let samples = scene.voxel_from_sample.iter().enumerate();
    samples.filter(|&(_, &voxel)| is_kept[voxel as usize]).map(|(sample, _)| sample as u32).collect()
}

/// Positives and negatives of `anchors`. All indices refer to the samples `kept`.
fn pairs(
    scene: &TrainingScene,
    kept: &[u32],
    anchors: Vec<u32>,
    config: &Config,
    random: &mut SplitMix64,
    device: &Device,
) -> Result<Pairs, DistillError> {
    let num_neighbors = config.spatial_neighbors;
    check_size(&scene.name, kept.len(), config)?;
    let position = |&sample: &u32| scene.positions[sample as usize];
    let points: Vec<f32> = kept.iter().flat_map(position).collect();
    let queries: Vec<f32> = anchors.iter().flat_map(|&anchor| position(&kept[anchor as usize])).collect();
    let found = knn_between(
        float_tensor(queries, [anchors.len(), 3], device),
        float_tensor(points, [kept.len(), 3], device),
        num_neighbors + 1,
    )?;
    let found = int_values(found.index)?;
    let mut neighbors = Vec::with_capacity(anchors.len() * num_neighbors);
    for (row, &anchor) in found.chunks_exact(num_neighbors + 1).zip(&anchors) {
        // The anchor is at distance 0, but other samples may be too. Then the anchor may be missing, and the
        // last neighbour is dropped.
        let own = row.iter().position(|&neighbor| neighbor == anchor as i32).unwrap_or(num_neighbors);
        neighbors.extend(row[..own].iter().chain(&row[own + 1..]));
    }
    let teacher = float_tensor(scene.teacher_rows(kept), [kept.len(), scene.teacher_dim], device);
    let num_anchors = anchors.len();
    let negatives = Negatives { num_macro: config.macro_negatives, num_micro: config.micro_negatives };
    let anchor_rows = int_tensor(anchors.iter().map(|&anchor| anchor as i32).collect(), [num_anchors], device);
    let neighbors = int_tensor(neighbors, [num_anchors, num_neighbors], device);
    let found = contrastive_pairs(teacher, anchor_rows, neighbors, negatives)?;
    let unsigned = |values: Vec<i32>| values.into_iter().map(|value| value as u32);
    let positives = match config.positives {
        Positives::Sample => unsigned(int_values(found.positive.clone())?).collect(),
        Positives::Cell => positives_of_cells(scene, kept, &anchors, random, device)?,
    };
    let negatives = unsigned(int_values(found.negatives())?).collect();
    Ok(Pairs { anchors, positives, negatives })
}

/// Draws, for every anchor, a random sample of the cell that the teacher finds most similar to the anchor's
/// own. Only cells with samples in `kept` count. If there is only one cell, the sample is from the anchor's
/// own. All indices refer to the samples `kept`.
fn positives_of_cells(
    scene: &TrainingScene,
    kept: &[u32],
    anchors: &[u32],
    random: &mut SplitMix64,
    device: &Device,
) -> Result<Vec<u32>, DistillError> {
    let row = |&sample: &u32| scene.teacher_from_sample[sample as usize];
    let num_rows = scene.teacher.len() / scene.teacher_dim;
    let (cell_from_kept, cells) = renumber(kept.iter().map(row).collect(), num_rows);
    let mut samples = vec![Vec::new(); cells.len()];
    cell_from_kept.iter().zip(0..).for_each(|(&cell, sample)| samples[cell as usize].push(sample));
    let own: Vec<i32> = anchors.iter().map(|&anchor| cell_from_kept[anchor as usize]).collect();
    let positives = if cells.len() > 1 {
        let num_anchors = anchors.len();
        let one_of_each: Vec<u32> = samples.iter().map(|of_cell: &Vec<usize>| kept[of_cell[0]]).collect();
        let features = float_tensor(scene.teacher_rows(&one_of_each), [cells.len(), scene.teacher_dim], device);
        let none = int_tensor(vec![-1; num_anchors], [num_anchors, 1], device);
        let alone = Negatives { num_macro: 0, num_micro: 0 };
        int_values(contrastive_pairs(features, int_tensor(own, [num_anchors], device), none, alone)?.positive)?
    } else {
        own
    };
    Ok(positives
        .into_iter()
        .map(|cell| &samples[cell as usize])
        .map(|of_cell| of_cell[random.below(of_cell.len())] as u32)
        .collect())
}

/// Voxel of every sample of `kept`, and the coordinates of these voxels. They are the scene's voxels in its
/// order, or those of a grid under `transform`.
fn voxels(
    scene: &TrainingScene,
    kept: &[u32],
    transform: Option<[[f64; 3]; 3]>,
) -> Result<(Vec<i32>, Vec<[i32; 3]>), DistillError> {
    let Some(transform) = transform else {
        let of_sample = kept.iter().map(|&sample| scene.voxel_from_sample[sample as usize]);
        let (voxel_from_kept, voxels) = renumber(of_sample.collect(), scene.num_voxels());
        return Ok((voxel_from_kept, voxels.into_iter().map(|voxel| scene.voxel_coords[voxel as usize]).collect()));
    };
    let positions: Vec<[f64; 3]> = kept.iter().map(|&i| scene.positions[i as usize].map(f64::from)).collect();
    let (cells, _) = quantize(&positions, &transform)?;
    let cells: Vec<[i32; 4]> = cells.into_iter().map(|[x, y, z]| [0, x, y, z]).collect();
    let grid = voxel_grid::cpu::voxel_grid(&cells);
    Ok((grid.voxel_from_point, grid.coords.into_iter().map(|[_, x, y, z]| [x, y, z]).collect()))
}

/// Replaces numbers below `limit` by their rank among the numbers that occur. Also returns the numbers that
/// occur.
fn renumber(numbers: Vec<i32>, limit: usize) -> (Vec<i32>, Vec<u32>) {
    let mut rank = vec![-1; limit];
    numbers.iter().for_each(|&number| rank[number as usize] = 0);
    let mut present = Vec::new();
    for (number, rank) in rank.iter_mut().enumerate().filter(|(_, rank)| **rank == 0) {
        *rank = present.len() as i32;
        present.push(number as u32);
    }
    (numbers.into_iter().map(|number| rank[number as usize]).collect(), present)
}

/// Builds the voxels of the input, in ascending order. Each is the mean of its samples in the input.
fn gather(
    scene: &TrainingScene,
    kept: &[u32],
    pairs: &Pairs,
    shown: Shown,
    voxel_from_kept: &[i32],
    coords: &[[i32; 3]],
) -> Batch {
    let is_shown: Vec<bool> = match shown {
        Shown::Scene => vec![true; kept.len()],
        Shown::Sampled => {
            let mut is_shown = vec![false; kept.len()];
            let all = pairs.anchors.iter().chain(&pairs.positives).chain(&pairs.negatives);
            all.for_each(|&sample| is_shown[sample as usize] = true);
            is_shown
        }
    };
    let mut row_from_voxel = vec![-1; coords.len()];
    for (&voxel, _) in voxel_from_kept.iter().zip(&is_shown).filter(|(_, is_shown)| **is_shown) {
        row_from_voxel[voxel as usize] = 0;
    }
    let mut shown_coords = Vec::new();
    for (voxel, row) in row_from_voxel.iter_mut().enumerate().filter(|(_, row)| **row == 0) {
        *row = shown_coords.len() as i32;
        shown_coords.push(coords[voxel]);
    }
    let width = scene.num_channels;
    let mut features = vec![0.0_f32; shown_coords.len() * width];
    let mut counts = vec![0_u32; shown_coords.len()];
    for (i, &sample) in kept.iter().enumerate().filter(|&(i, _)| is_shown[i]) {
        let row = row_from_voxel[voxel_from_kept[i] as usize] as usize;
        let values = &scene.features[sample as usize * width..][..width];
        features[row * width..][..width].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        counts[row] += 1;
    }
    for (row, &count) in features.chunks_exact_mut(width).zip(&counts).filter(|(_, count)| **count > 1) {
        row.iter_mut().for_each(|sum| *sum /= count as f32);
    }
    let rows = |samples: &[u32]| -> Vec<i32> {
        samples.iter().map(|&sample| row_from_voxel[voxel_from_kept[sample as usize] as usize]).collect()
    };
    Batch {
        features,
        coords: shown_coords,
        anchors: rows(&pairs.anchors),
        positives: rows(&pairs.positives),
        negatives: rows(&pairs.negatives),
        is_cropped: false,
    }
}

impl TrainingScene {
    /// The scene with its voxels as samples. Features are means; the teacher's row is that of a voxel's first
    /// sample.
    #[must_use]
    pub fn of_voxels(&self) -> Self {
        if self.samples == Samples::Voxels {
            return self.clone();
        }
        let all: Vec<u32> = (0..self.num_samples() as u32).collect();
        let none = Pairs { anchors: Vec::new(), positives: Vec::new(), negatives: Vec::new() };
        let means = gather(self, &all, &none, Shown::Scene, &self.voxel_from_sample, &self.voxel_coords);
        let first = self.first_samples();
        Self {
            samples: Samples::Voxels,
            positions: self.voxel_coords.iter().map(|coords| coords.map(|c| c as f32)).collect(),
            features: means.features,
            voxel_from_sample: (0..self.num_voxels() as i32).collect(),
            teacher_from_sample: first.iter().map(|&i| self.teacher_from_sample[i as usize]).collect(),
            voxel_size: 1.0,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::tests::walls;
    use super::*;
    use crate::distill::Recipe;

    fn settings(recipe: Recipe) -> Config {
        Config { anchors: 40, macro_negatives: 6, micro_negatives: 4, spatial_neighbors: 12, ..Config::of(recipe) }
    }

    fn draw(scene: &TrainingScene, config: &Config, max_voxels: usize, seed: u64) -> Batch {
        batch(scene, config, max_voxels, &mut SplitMix64::new(seed), &Device::flex()).unwrap()
    }

    #[test]
    fn pairs_are_what_the_teacher_says() {
        let scene = walls(Samples::Voxels, 12);
        let drawn = draw(&scene, &settings(Recipe::Paper), usize::MAX, 1);
        assert_eq!((drawn.coords.len(), drawn.anchors.len()), (scene.num_voxels(), 40));
        assert_eq!(drawn.features, scene.features);
        let wall = |voxel: i32| drawn.coords[voxel as usize][0];
        for (a, &anchor) in drawn.anchors.iter().enumerate() {
            let negatives = &drawn.negatives[a * 10..][..10];
            assert!(wall(drawn.positives[a]) == wall(anchor) && drawn.positives[a] != anchor);
            assert!(negatives[..6].iter().all(|&negative| wall(negative) != wall(anchor)), "macro");
            for &negative in &negatives[6..] {
                let offset = (0..3).map(|i| drawn.coords[negative as usize][i] - drawn.coords[anchor as usize][i]);
                let offset: Vec<i32> = offset.collect();
                assert!(negative != anchor && offset[0] == 0 && offset.iter().all(|d| d.abs() <= 4), "{offset:?}");
            }
        }
        assert_eq!(draw(&scene, &settings(Recipe::Paper), usize::MAX, 1), drawn);
        assert_ne!(draw(&scene, &settings(Recipe::Paper), usize::MAX, 2).anchors, drawn.anchors);
    }

    #[test]
    fn a_positive_may_be_of_another_cell() {
        let scene = walls(Samples::Voxels, 12);
        let config = Config { positives: Positives::Cell, ..settings(Recipe::Paper) };
        let drawn = draw(&scene, &config, usize::MAX, 1);
        let place = |voxel: i32| scene.voxel_coords.iter().position(|c| *c == drawn.coords[voxel as usize]).unwrap();
        let cell = |voxel: i32| scene.teacher_from_sample[place(voxel)] as usize;
        let features = |cell: usize| &scene.teacher[cell * scene.teacher_dim..][..scene.teacher_dim];
        let cosine = |a: usize, b: usize| {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            let (a, b) = (features(a), features(b));
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let num_cells = scene.teacher.len() / scene.teacher_dim;
        for (&anchor, &positive) in drawn.anchors.iter().zip(&drawn.positives) {
            let (own, found) = (cell(anchor), cell(positive));
            assert_ne!(own, found);
            let best =
                (0..num_cells).filter(|&other| other != own).map(|other| cosine(own, other)).fold(-1.0, f32::max);
            assert!(cosine(own, found) > best - 1e-6);
        }
        // Everything else is unchanged, and different samples of a cell are drawn.
        let usual = draw(&scene, &settings(Recipe::Paper), usize::MAX, 1);
        assert_eq!((&drawn.anchors, &drawn.negatives), (&usual.anchors, &usual.negatives));
        let distinct: std::collections::BTreeSet<_> = drawn.positives.iter().collect();
        assert!(distinct.len() > num_cells, "{} samples", distinct.len());
        let one = TrainingScene { teacher_from_sample: vec![0; scene.num_samples()], ..scene.clone() };
        assert_eq!(draw(&one, &config, usize::MAX, 1).positives.len(), 40);
    }

    #[test]
    fn only_sampled_points_make_the_voxels_of_the_reference() {
        let scene = walls(Samples::Points, 12);
        let config = Config { augment: false, anchors: 4, ..settings(Recipe::Reference) };
        let drawn = draw(&scene, &config, usize::MAX, 3);
        assert!(drawn.coords.len() < scene.num_voxels() && !drawn.is_cropped);
        let shown: std::collections::BTreeSet<_> =
            drawn.anchors.iter().chain(&drawn.positives).chain(&drawn.negatives).copied().collect();
        assert_eq!(shown, (0..drawn.coords.len() as i32).collect());
        // Each row is the mean of one or two points of its voxel.
        for (row, coords) in drawn.features.chunks_exact(4).zip(&drawn.coords) {
            let voxel = scene.voxel_coords.iter().position(|c| c == coords).unwrap();
            let [first, second] = [0, 1].map(|i| &scene.features[(2 * voxel + i) * 4..][..4]);
            let mean: Vec<f32> = first.iter().zip(second).map(|(a, b)| (a + b) / 2.0).collect();
            assert!(row == first || row == second || row == mean, "{row:?} of {first:?}, {second:?}");
        }
        let turned = draw(&scene, &Config { augment: true, ..config }, usize::MAX, 3);
        assert_ne!(turned.coords, drawn.coords);
    }

    #[test]
    fn a_crop_is_a_neighbourhood_within_the_limit() {
        let scene = walls(Samples::Points, 16);
        let drawn =
            draw(&scene, &Config { augment: false, shown: Shown::Scene, ..settings(Recipe::Reference) }, 100, 4);
        assert!(drawn.is_cropped);
        assert_eq!(drawn.coords.len(), 100);
        let span = |axis: usize| {
            let values = || drawn.coords.iter().map(|c| c[axis]);
            values().max().unwrap() - values().min().unwrap()
        };
        assert!(span(1) < 15 && span(2) < 15, "{} x {}", span(1), span(2));
        assert!(draw(&scene, &settings(Recipe::Reference), 100, 4).is_cropped);
    }

    #[test]
    fn a_scene_without_enough_samples_is_refused() {
        let scene = walls(Samples::Voxels, 2);
        let error = batch(&scene, &settings(Recipe::Paper), usize::MAX, &mut SplitMix64::new(1), &Device::flex());
        assert_eq!(
            error.unwrap_err().to_string(),
            "walls: 8 samples, expected at least 13 for this number of negatives"
        );
    }

    #[test]
    fn voxels_of_points_are_their_means() {
        let scene = walls(Samples::Points, 5);
        let voxels = scene.of_voxels();
        voxels.validate().unwrap();
        assert_eq!((voxels.num_samples(), voxels.samples), (scene.num_voxels(), Samples::Voxels));
        assert_eq!(voxels.features[0], (scene.features[0] + scene.features[4]) / 2.0);
        assert_eq!(voxels.teacher_from_sample[7], scene.teacher_from_sample[14]);
    }
}
