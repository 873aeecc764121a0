//! Training of a teacher of Sonata's architecture, on rooms whose objects are known.

mod measure;
mod pairs;
mod view;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::prelude::*;
use serde::{Deserialize, Serialize};

pub use measure::{ObjectPrecision, object_precision};
pub use pairs::{Cell, Pairs, draw_pairs, majority};
pub use view::{Setting, Shown, disturbed, part};

use super::error::{PretrainError, check_setting};
use super::rooms::{find_rooms, room_at};
use super::run::{LoopSettings, Loss, StepContext, Task, config_text, settings_over, settings_text};
use super::scan::LabelledScan;
use crate::models::ModelError;
use crate::models::sonata::{Sonata, SonataConfig};
use crate::ops::info_nce::{InfoNce, info_nce};
use crate::ops::normalize_rows;
use crate::ops::{float_tensor, float_values, int_tensor, int_values};
use crate::weights::StateDict;

/// Stream of random numbers for the choices of a step.
const DRAWN: u64 = 0;
/// Number of copies of a part that a step compares.
const COPIES: usize = 2;
/// Weights of the layer that takes position, colour and normal.
const STEM: &str = "embedding.stem.linear.weight";
/// Number of these values.
const NUM_CHANNELS: usize = 9;
/// Name of the most important validation figure.
const FIGURE: &str = "val_border_precision";

/// Settings for training a teacher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SonataSettings {
    /// Number of points in the part of a room that a step sees.
    pub points: usize,
    /// Number of anchors of a step.
    pub anchors: usize,
    /// Number of negatives of an anchor.
    pub negatives: usize,
    /// Temperature of the contrastive loss.
    pub temperature: f32,
    /// Number of rooms to train on at most; the first ones are taken.
    pub training_rooms: usize,
    /// Number of rooms to validate on at most.
    pub validation_rooms: usize,
    /// Settings of the training loop.
    pub training: LoopSettings,
    /// Configuration of the encoder.
    pub model: SonataConfig,
}

impl Default for SonataSettings {
    fn default() -> Self {
        let training = LoopSettings {
            steps: 2400,
            learning_rate: 2e-3,
            warmup: 40,
            weight_decay: 0.02,
            average_decay: 0.99,
            validate_every: 100,
            checkpoint_every: 100,
            ..LoopSettings::default()
        };
        Self {
            points: 15_000,
            anchors: 768,
            negatives: 64,
            temperature: 0.07,
            training_rooms: 100,
            validation_rooms: 3,
            training,
            model: SonataConfig::small(),
        }
    }
}

impl SonataSettings {
    /// Reads settings from TOML. Settings that the text leaves out keep their defaults, in tables too.
    ///
    /// # Errors
    /// [`PretrainError::Config`].
    pub fn parse(text: &str) -> Result<Self, PretrainError> {
        settings_over(&Self::default(), text)
    }

    /// Checks the settings, except those of the loop, which it checks itself.
    ///
    /// # Errors
    /// [`PretrainError::Setting`] for the first bad setting; [`PretrainError::Model`] if the encoder cannot
    /// run here.
    pub fn validate(&self) -> Result<(), PretrainError> {
        self.model.validate().map_err(ModelError::from)?;
        let is_temperature = self.temperature > 0.0 && self.temperature.is_finite();
        let has_channels = self.model.in_channels == NUM_CHANNELS;
        check_setting("points", self.points >= 100, &self.points, "100 at least")?;
        check_setting("training_rooms", self.training_rooms > 0, &self.training_rooms, "1 or more")?;
        check_setting("anchors", (1..1 << 20).contains(&self.anchors), &self.anchors, "from 1 to a million")?;
        check_setting("negatives", (1..1 << 12).contains(&self.negatives), &self.negatives, "from 1 to 4095")?;
        check_setting("temperature", is_temperature, &self.temperature, "above 0")?;
        check_setting("in_channels", has_channels, &self.model.in_channels, "9: position, colour, normal")
    }
}

/// Trains an encoder to tell which surfaces belong together.
///
/// A step draws a point of an object in one room's scan and takes the part of the scan around it. It makes
/// two copies of the part, each [disturbed] in its own way: rotated, mirrored, scaled, thinned, with holes,
/// and with noise in positions, normals and colours. Both go through the encoder together. The loss is
/// InfoNCE over cosines of the cells' features:
///
/// * An anchor is a cell that mostly belongs to one object. Its object is drawn with a probability in
///   proportion to the square root of its surface. Every second anchor has another object within 0.25 m, if
///   possible, because purification needs a border there.
/// * The positive of an anchor is another cell of the same object. Three times out of four it lies within
///   0.25 m, else anywhere in the part. It comes from the other copy as often as from the anchor's own, so
///   that features depend on the object and not on how it was scanned. If the object goes around the room,
///   the positive faces the same way as the anchor: every wall stands for itself.
/// * Half of the negatives are cells of other objects within 0.25 m and a quarter within 0.5 m, if there
///   are any.
/// * The other negatives are cells of other objects within 1 m. Cells farther away are taken only if one of
///   the two objects goes around the room, as floors, walls and ceilings do. A distant object may be of the
///   same kind, and nothing near it tells a second chair from the first. Pushing the two apart would ask
///   for features of the place, not of the object. Surfaces around a room occur only once. All this follows
///   from the objects' extents; classes are not used.
#[derive(Debug)]
pub struct SonataTask {
    settings: SonataSettings,
    rooms: Vec<PathBuf>,
    validation: Vec<PathBuf>,
    device: Device,
}

impl SonataTask {
    /// Makes a task that trains on the rooms in `rooms/train`. It validates on the first rooms in
    /// `rooms/val`, on `device`.
    ///
    /// # Errors
    /// As [`SonataSettings::validate`] and [`find_rooms`].
    pub fn new(settings: SonataSettings, rooms: &Path, device: &Device) -> Result<Self, PretrainError> {
        settings.validate()?;
        let mut validation = find_rooms(rooms, "val")?;
        validation.truncate(settings.validation_rooms);
        let mut rooms = find_rooms(rooms, "train")?;
        rooms.truncate(settings.training_rooms);
        Ok(Self { settings, rooms, validation, device: device.clone().without_autodiff() })
    }

    /// Returns the numbers of rooms to train on and to validate on.
    #[must_use]
    pub fn num_rooms(&self) -> [usize; 2] {
        [self.rooms.len(), self.validation.len()]
    }

    /// Returns the room of `step`. Every room comes once before any comes again.
    fn room(&self, seed: u64, step: u64) -> &Path {
        &self.rooms[room_at(self.rooms.len(), seed, step)]
    }
}

impl Task for SonataTask {
    fn name(&self) -> &'static str {
        "sonata"
    }

    fn settings(&self) -> Result<String, PretrainError> {
        settings_text(&self.settings)
    }

    fn model_config(&self) -> Result<String, PretrainError> {
        config_text(&self.settings.model)
    }

    fn initial(&self, seed: u64) -> Result<StateDict, PretrainError> {
        let mut state = self.settings.model.initial(seed);
        // Parts are moved by metres along x and y. A random layer would make its output mostly of these
        // positions, and little of colours and normals.
        if let Some(stem) = state.tensors.get_mut(STEM) {
            stem.data.chunks_exact_mut(NUM_CHANNELS).for_each(|row| row[..2].fill(0.0));
        }
        Ok(state)
    }

    fn loss(&mut self, context: StepContext<'_>) -> Result<Loss, PretrainError> {
        let mut random = context.random(&[DRAWN]);
        let folder = self.room(context.seed, context.step);
        let scan = LabelledScan::read(folder)?;
        let kept = part(&scan, self.settings.points, &mut random);
        let (mut coords, mut features, mut points) = (Vec::new(), Vec::new(), Vec::new());
        let setting = Setting::draw(&mut random);
        for copy in 0..COPIES {
            let shown = disturbed(&scan, &kept, &setting, &mut random)?;
            coords.extend(shown.prepared.voxels.iter().flat_map(|&[x, y, z]| [copy as i32, x, y, z]));
            features.extend_from_slice(shown.prepared.features.as_flattened());
            points.extend(shown.points);
        }
        let SonataSettings { anchors, negatives, temperature, ref model, .. } = self.settings;
        let device = context.parameters.device().clone();
        let num_voxels = points.len();
        let (encoder, _) = Sonata::load(context.parameters, model, &device)?;
        let features = float_tensor(features, [num_voxels, model.in_channels], &device);
        let encoded = encoder.forward(features, int_tensor(coords, [num_voxels, 4], &device), &mut |_| ())?;
        let cells = cells(&scan, &points, &int_values(encoded.cell_from_voxel)?, &int_values(encoded.coords)?);
        let Some(pairs) = draw_pairs(&cells, &scan.spans_room, [anchors, negatives], &mut random) else {
            let message = format!("no two objects in a part of {} voxels", num_voxels / COPIES);
            return Err(PretrainError::Rooms { path: folder.to_path_buf(), message });
        };
        let num_anchors = pairs.anchors.len();
        let InfoNce { loss, accuracy } = info_nce(
            normalize_rows(encoded.features),
            int_tensor(pairs.anchors, [num_anchors], &device),
            int_tensor(pairs.positives, [num_anchors], &device),
            int_tensor(pairs.negatives, [num_anchors, negatives], &device),
            temperature,
        )?;
        let accuracy = float_values(accuracy)?.first().copied().map_or(f64::NAN, f64::from);
        let parts = [("accuracy", accuracy), ("voxels", num_voxels as f64), ("cells", cells.len() as f64)];
        Ok(Loss { total: loss, parts: parts.map(|(name, value)| (name.to_owned(), value)).into() })
    }

    fn validate(
        &mut self,
        weights: StateDict,
        _step: u64,
        _folder: &Path,
    ) -> Result<BTreeMap<String, f64>, PretrainError> {
        let (model, _) = Sonata::load(weights, &self.settings.model, &self.device)?;
        let of_room = |room: &PathBuf| object_precision(&model, &LabelledScan::read(room)?);
        let of_rooms: Vec<ObjectPrecision> = self.validation.iter().map(of_room).collect::<Result<_, _>>()?;
        Ok(ObjectPrecision::mean(&of_rooms).figures())
    }

    fn main_figure(&self) -> &'static str {
        FIGURE
    }
}

/// Returns the cells of a step. `points [V]` are the scan's points that stand for its voxels, `coords [M, 4]`
/// the coordinates of the cells.
fn cells(scan: &LabelledScan, points: &[u32], cell_from_voxel: &[i32], coords: &[i32]) -> Vec<Cell> {
    let coords = coords.as_chunks::<4>().0;
    let instances = points.iter().map(|&point| scan.instances[point as usize]);
    let of_cells = majority(cell_from_voxel, instances, coords.len());
    let mut sums = vec![([0.0_f32; 6], 0.0_f32); coords.len()];
    for (&point, &cell) in points.iter().zip(cell_from_voxel) {
        let (sum, count) = &mut sums[cell as usize];
        let values = scan.points[point as usize].iter().chain(&scan.normals[point as usize]);
        sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += x);
        *count += 1.0;
    }
    let mut cells = Vec::with_capacity(coords.len());
    for ((&[copy, ..], (instance, share)), ([x, y, z, i, j, k], count)) in coords.iter().zip(of_cells).zip(sums) {
        let length = (i * i + j * j + k * k).sqrt().max(1e-12);
        cells.push(Cell {
            copy: copy.unsigned_abs(),
            instance,
            share,
            position: [x, y, z].map(|sum| sum / count.max(1.0)),
            normal: [i, j, k].map(|sum| sum / length),
        });
    }
    cells
}
