//! A teacher of Sonata's architecture that learns from rooms whose objects are known.

mod measure;
mod pairs;
mod scan;
mod view;

use std::path::{Path, PathBuf};

use burn::prelude::*;
use serde::{Deserialize, Serialize};

pub use measure::{ObjectPrecision, object_precision};
pub use pairs::{Cell, NEAR_METRES, Pairs, draw_pairs, majority};
pub use scan::LabelledScan;
pub use view::{Shown, disturbed, part};

use crate::cloud::CloudError;
use crate::eval::labels::LabelsError;
use crate::models::ModelError;
use crate::models::parameters::{Parameters, Rate};
use crate::models::sonata::{Sonata, SonataConfig, SonataError};
use crate::models::student::normalize_rows;
use crate::ops::info_nce::{InfoNce, info_nce};
use crate::ops::{OpError, float_tensor, float_values, int_tensor, int_values};
use crate::random::SplitMix64;

/// Of a stream of random numbers: what a step draws.
const STEP: u64 = 1;
/// Copies of a part that a step compares.
const COPIES: usize = 2;

/// Why a teacher cannot be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TeacherError {
    /// A scan cannot be read.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The objects of its points cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// A part of a scan cannot be encoded.
    #[error(transparent)]
    Sonata(#[from] SonataError),
    /// The encoder cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] OpError),
    /// A room is none to learn from.
    #[error("{room}: {message}")]
    Room {
        /// Which.
        room: String,
        /// What is wrong.
        message: String,
    },
}

/// How a teacher is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherSettings {
    /// Seed of weights, parts, copies and pairs.
    pub seed: u64,
    /// Steps of the optimizer.
    pub steps: usize,
    /// Points of the part of a room that a step sees.
    pub points: usize,
    /// Anchors of a step.
    pub anchors: usize,
    /// Negatives of an anchor.
    pub negatives: usize,
    /// Temperature of the contrastive loss.
    pub temperature: f32,
    /// Rate of the optimizer, between warm-up and decay.
    pub learning_rate: f64,
    /// Decoupled decay of matrices and kernels.
    pub weight_decay: f64,
    /// Share of the steps over which the rate rises.
    pub warmup: f64,
}

impl Default for TeacherSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: 1000,
            points: 15_000,
            anchors: 768,
            negatives: 64,
            temperature: 0.1,
            learning_rate: 2e-3,
            weight_decay: 0.02,
            warmup: 0.05,
        }
    }
}

impl TeacherSettings {
    /// The rate of the parameter `key` in `step`, counted from 0: up in a line, then down half a cosine to 0. Norms and
    /// biases do not decay.
    #[must_use]
    pub fn rate(&self, key: &str, step: usize) -> Rate {
        let (step, steps, warmup) = (step as f64, self.steps as f64, self.warmup * self.steps as f64);
        let share = match step < warmup {
            true => (step + 1.0) / (warmup + 1.0),
            false => 0.5 * (1.0 + (std::f64::consts::PI * (step - warmup) / (steps - warmup).max(1.0)).min(std::f64::consts::PI).cos()),
        };
        let is_norm = [".norm.", ".norm.0.", ".cpe.2.", ".norm1.", ".norm2."].iter().any(|name| key.contains(name));
        let weight_decay = if is_norm || key.ends_with(".bias") { 0.0 } else { self.weight_decay };
        Rate { learning_rate: share * self.learning_rate, weight_decay }
    }
}

/// What a step has of its loss.
#[derive(Clone, Debug)]
pub struct TeacherLoss {
    /// `[1]`, with gradients to the parameters.
    pub loss: Tensor<1>,
    /// What to log.
    pub report: TeacherReport,
}

/// What to log of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TeacherReport {
    /// Mean cross entropy.
    pub loss: f64,
    /// Share of anchors whose positive is more similar than every negative.
    pub accuracy: f64,
    /// The room.
    pub room: String,
    /// Voxels of both copies.
    pub voxels: usize,
    /// Cells of both copies.
    pub cells: usize,
}

/// Teaches an encoder which surfaces belong together.
///
/// A step takes a part of one room's scan around a point of an object that is drawn, and two copies of it, each
/// [disturbed](disturbed) in its own way: turned, mirrored, scaled, thinned, with holes, and with noise in positions, normals
/// and colours. Both go through the encoder together. The loss is InfoNCE over cosines of the cells' features:
///
/// * An anchor is a cell (of one object to three quarters at least); its object is drawn with the root of its surface.
/// * Its positive is another cell of the same object, every second time of the other copy: features depend on the object
///   rather than on how it was scanned.
/// * Half of its negatives are cells of other objects within 0.5 m: that is where purification needs a border.
/// * The other half are cells of other objects within 1 m, and beyond that only where one of the two objects goes around
///   the room, as floors, walls and ceilings do. A thing far away may be another of the same kind, and nothing near it
///   tells a second chair from the first: pushing them apart would ask for features of the place, not of the thing. The
///   surfaces around a room are there once. Both follow from the objects' extents; classes are not used.
#[derive(Debug)]
pub struct TeacherTask {
    settings: TeacherSettings,
    config: SonataConfig,
    rooms: Vec<PathBuf>,
}

impl TeacherTask {
    /// A task over the rooms in these folders, see [`LabelledScan::read`].
    ///
    /// # Errors
    /// [`TeacherError::Room`] where there is no room; [`TeacherError::Model`] where the configuration is not valid.
    pub fn new(settings: TeacherSettings, config: SonataConfig, rooms: Vec<PathBuf>) -> Result<Self, TeacherError> {
        config.validate().map_err(ModelError::from)?;
        if rooms.is_empty() {
            let message = "there is no room to learn from".to_owned();
            return Err(TeacherError::Room { room: "rooms".to_owned(), message });
        }
        Ok(Self { settings, config, rooms })
    }

    /// How it is trained.
    #[must_use]
    pub fn settings(&self) -> &TeacherSettings {
        &self.settings
    }

    /// The encoder's configuration.
    #[must_use]
    pub fn config(&self) -> &SonataConfig {
        &self.config
    }

    /// The room of `step`: every room once before any comes again, in an order that follows from the seed.
    fn room(&self, step: usize) -> &Path {
        let round = (step / self.rooms.len()) as u64;
        let order = SplitMix64::stream(self.settings.seed, &[STEP, 0, round]).permutation(self.rooms.len());
        &self.rooms[order[step % self.rooms.len()]]
    }

    /// The loss of `step`, counted from 0, which alone decides on what is drawn.
    ///
    /// # Errors
    /// [`TeacherError`].
    pub fn loss(&self, parameters: &mut Parameters, step: usize) -> Result<TeacherLoss, TeacherError> {
        let scan = LabelledScan::read(self.room(step))?;
        let mut random = SplitMix64::stream(self.settings.seed, &[STEP, 1, step as u64]);
        let kept = part(&scan, self.settings.points, &mut random);
        let (mut coords, mut features, mut points) = (Vec::new(), Vec::new(), Vec::new());
        for copy in 0..COPIES {
            let shown = disturbed(&scan, &kept, &mut random)?;
            coords.extend(shown.prepared.voxels.iter().flat_map(|&[x, y, z]| [copy as i32, x, y, z]));
            features.extend_from_slice(shown.prepared.features.as_flattened());
            points.extend(shown.points);
        }
        let device = parameters.device().clone();
        let num_voxels = points.len();
        let (model, _) = Sonata::load(parameters, &self.config, &device)?;
        let features = float_tensor(features, [num_voxels, self.config.in_channels], &device);
        let encoded = model.forward(features, int_tensor(coords, [num_voxels, 4], &device), &mut |_| ())?;
        let cells = cells(&scan, &points, &int_values(encoded.cell_from_voxel)?, &int_values(encoded.coords)?);
        let TeacherSettings { anchors, negatives, temperature, .. } = self.settings;
        let pairs = draw_pairs(&cells, &scan.spans_room, [anchors, negatives], &mut random);
        let pairs = pairs.map_err(|error| match error {
            TeacherError::Room { message, .. } => TeacherError::Room { room: scan.name.clone(), message },
            other => other,
        })?;
        let num_anchors = pairs.anchors.len();
        let InfoNce { loss, accuracy } = info_nce(
            normalize_rows(encoded.features),
            int_tensor(pairs.anchors, [num_anchors], &device),
            int_tensor(pairs.positives, [num_anchors], &device),
            int_tensor(pairs.negatives, [num_anchors, negatives], &device),
            temperature,
        )?;
        let report = TeacherReport {
            loss: f64::from(float_values(loss.clone().inner())?[0]),
            accuracy: f64::from(float_values(accuracy)?[0]),
            room: scan.name,
            voxels: num_voxels,
            cells: cells.len(),
        };
        Ok(TeacherLoss { loss, report })
    }

    /// The precision of the encoder as it is, over `rooms` together.
    ///
    /// # Errors
    /// [`TeacherError`].
    pub fn measure(&self, parameters: &Parameters, rooms: &[PathBuf]) -> Result<ObjectPrecision, TeacherError> {
        let device = parameters.device().clone().without_autodiff();
        let (model, _) = Sonata::load(parameters.state_dict()?, &self.config, &device)?;
        let of_room = |room: &PathBuf| object_precision(&model, &LabelledScan::read(room)?);
        Ok(ObjectPrecision::mean(&rooms.iter().map(of_room).collect::<Result<Vec<_>, _>>()?))
    }
}

/// The cells of a step: `points [V]` of the scan stand for its voxels, `coords [M, 4]` are the cells'.
fn cells(scan: &LabelledScan, points: &[u32], cell_from_voxel: &[i32], coords: &[i32]) -> Vec<Cell> {
    let coords = coords.as_chunks::<4>().0;
    let instances = points.iter().map(|&point| scan.instances[point as usize]);
    let of_cells = majority(cell_from_voxel, instances, coords.len());
    let mut sums = vec![([0.0_f32; 3], 0.0_f32); coords.len()];
    for (&point, &cell) in points.iter().zip(cell_from_voxel) {
        let (sum, count) = &mut sums[cell as usize];
        sum.iter_mut().zip(scan.points[point as usize]).for_each(|(sum, x)| *sum += x);
        *count += 1.0;
    }
    let cell = |((&[copy, ..], (instance, share)), (sum, count)): ((&[i32; 4], (u32, f32)), ([f32; 3], f32))| Cell {
        copy: copy.unsigned_abs(),
        instance,
        share,
        position: sum.map(|x| x / count.max(1.0)),
    };
    coords.iter().zip(of_cells).zip(sums).map(cell).collect()
}
