//! Training of a 3D network of OpenScene's architecture, on rooms whose classes are known, or on lifted features.

mod degrade;
mod lifted;
mod parts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
pub use degrade::{Degraded, degraded};
pub use lifted::{LiftedSettings, LiftedTask};
use parts::{Parts, initial, nearest};
use serde::{Deserialize, Serialize};

use super::error::{PretrainError, check_setting};
use super::figures::{add_ious, add_means};
use super::rooms::{find_rooms, room_at};
use super::run::{LoopSettings, Loss, StepContext, Task, config_text, settings_over, settings_text};
use super::scan::LabelledScan;
use super::words::{CLASSES, class_of};
use crate::eval::metrics::Confusion;
use crate::labels::{Preset, classes_from_nyu40, nyu40_from_class};
use crate::models::ModelError;
use crate::models::minkunet::{Cells, MinkUnet, MinkUnetConfig};
use crate::models::xdecoder::TextEncoder;
use crate::models::xdecoder::prompts::scene_label;
use crate::ops::matmul::{Form, matmul};
use crate::ops::{float_tensor, float_values, int_tensor};
use crate::query::predict;
use crate::random::SplitMix64;
use crate::weights::StateDict;

/// Streams of random numbers: the changes of the rooms, and the words.
const CHANGES: u64 = 1;
const WORDS: u64 = 2;
/// Stream of random numbers for the rooms of the validation.
const VALIDATION: u64 = 3;
/// Number of ways in which a room is degraded for the validation.
const WAYS: u64 = 2;
/// Number of names that are embedded at once.
const NAMES_AT_ONCE: usize = 16;

/// Settings for training a 3D network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenSceneSettings {
    /// Number of rooms in a step.
    pub batch: usize,
    /// Largest number of cells of a room that a step sees.
    pub cells: usize,
    /// Factor of the cosines between cells and words in the loss.
    pub sharpness: f64,
    /// How much rare classes weigh: a class of n cells weighs n to the power of minus this, 0 to 1.
    pub balance: f64,
    /// Number of rooms to train on at most; the first ones are taken.
    pub training_rooms: usize,
    /// Number of rooms to validate on at most.
    pub validation_rooms: usize,
    /// Settings of the training loop.
    pub training: LoopSettings,
    /// Configuration of the network. Its head must have the width of the text encoder.
    pub model: MinkUnetConfig,
}

impl Default for OpenSceneSettings {
    fn default() -> Self {
        let training = LoopSettings {
            steps: 6500,
            learning_rate: 3e-3,
            warmup: 100,
            weight_decay: 0.02,
            average_decay: 0.995,
            validate_every: 1000,
            ..LoopSettings::default()
        };
        Self {
            batch: 2,
            cells: 9000,
            sharpness: 16.0,
            balance: 0.5,
            training_rooms: 1000,
            validation_rooms: 8,
            training,
            model: MinkUnetConfig::small(64),
        }
    }
}

impl OpenSceneSettings {
    /// Reads settings from TOML. Settings that the text leaves out keep their defaults, in tables too.
    ///
    /// # Errors
    /// [`PretrainError::Config`].
    pub fn parse(text: &str) -> Result<Self, PretrainError> {
        settings_over(&Self::default(), text)
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`PretrainError::Setting`] for the first bad setting; [`PretrainError::Model`] for the network's.
    pub fn validate(&self) -> Result<(), PretrainError> {
        self.training.validate()?;
        self.model.validate().map_err(ModelError::from)?;
        let is_sharpness = self.sharpness > 0.0 && self.sharpness.is_finite();
        check_setting("batch", (1..=1024).contains(&self.batch), &self.batch, "1 to 1024")?;
        check_setting("cells", (100..1 << 24).contains(&self.cells), &self.cells, "from 100 to 16 million")?;
        check_setting("sharpness", is_sharpness, &self.sharpness, "above 0")?;
        check_setting("balance", (0.0..=1.0).contains(&self.balance), &self.balance, "0 to 1")?;
        check_setting("training_rooms", self.training_rooms > 0, &self.training_rooms, "1 or more")
    }
}

/// Embeddings of all names of all classes.
#[derive(Clone, Debug)]
struct Names {
    /// For each class its names' rows.
    rows: Vec<Vec<Vec<f32>>>,
    dim: usize,
}

impl Names {
    fn embed(encoder: &TextEncoder) -> Result<Self, PretrainError> {
        let names: Vec<String> = CLASSES.iter().flat_map(|class| class.names).map(|name| scene_label(name)).collect();
        let (mut rows, mut dim) = (Vec::new(), 0);
        for names in names.chunks(NAMES_AT_ONCE) {
            let embedded = encoder.embed_labels(names)?;
            dim = embedded.dims()[1];
            let values = float_values(embedded)?;
            rows.extend(values.chunks_exact(dim.max(1)).map(<[f32]>::to_vec));
        }
        let mut rows = rows.into_iter();
        let rows = CLASSES.iter().map(|class| rows.by_ref().take(class.names.len()).collect()).collect();
        Ok(Self { rows, dim })
    }

    /// One row for each class, `[C · D]`. Half of the time a class takes its first name.
    fn draw(&self, random: &mut SplitMix64) -> Vec<f32> {
        let row = |rows: &Vec<Vec<f32>>| {
            let place = if random.below(2) == 0 { 0 } else { random.below(rows.len()) };
            rows[place].clone()
        };
        self.rows.iter().flat_map(row).collect()
    }
}

/// Trains a 3D network to give every cell of a scan a vector near to the words for what is there.
///
/// A step takes rooms, [degrades](degraded) each in its own way, and shows the network a part of each: the cells around
/// an object, which is drawn first so that small ones are seen as often as walls. The loss is the cross-entropy of the
/// cosines between cells and words. A class goes by one of its names, drawn for the step. So the network learns the
/// space of the text encoder, and any word can be asked later.
///
/// Validation measures held-out rooms, degraded too: clean rooms rank networks wrongly.
#[derive(Debug)]
pub struct OpenSceneTask {
    settings: OpenSceneSettings,
    rooms: Vec<(PathBuf, OnceLock<LabelledScan>)>,
    validation: Vec<PathBuf>,
    names: Names,
    /// Embeddings of the words that the validation asks for, `[C, D]`.
    asked: Tensor<2>,
    device: Device,
}

impl OpenSceneTask {
    /// Makes a task that trains on the rooms in `rooms/train`, and validates on those in `rooms/val`, on `device`.
    /// `encoder` embeds the words.
    ///
    /// # Errors
    /// As [`OpenSceneSettings::validate`] and [`find_rooms`]; [`PretrainError::Setting`] if the network's head has
    /// another width than the text encoder.
    pub fn new(
        settings: OpenSceneSettings,
        rooms: &Path,
        encoder: &TextEncoder,
        device: &Device,
    ) -> Result<Self, PretrainError> {
        settings.validate()?;
        let names = Names::embed(encoder)?;
        let head = settings.model.text_width();
        if head != names.dim {
            let value = format!("{head}, while the text encoder has {}", names.dim);
            return Err(PretrainError::Setting {
                name: "model.heads",
                value,
                expected: "the width of the text encoder",
            });
        }
        let mut validation = find_rooms(rooms, "val")?;
        validation.truncate(settings.validation_rooms);
        let mut rooms = find_rooms(rooms, "train")?;
        rooms.truncate(settings.training_rooms);
        let rooms = rooms.into_iter().map(|room| (room, OnceLock::new())).collect();
        let words = Preset::SCANNET20.words();
        let labels: Vec<String> = words.iter().map(|word| scene_label(word)).collect();
        let asked = encoder.embed_labels(&labels)?;
        Ok(Self { settings, rooms, validation, names, asked, device: device.clone().without_autodiff() })
    }

    /// Returns the numbers of rooms to train on and to validate on.
    #[must_use]
    pub fn num_rooms(&self) -> [usize; 2] {
        [self.rooms.len(), self.validation.len()]
    }

    /// Returns the room at place `at` of all that a run sees, see [`room_at`].
    fn room(&self, seed: u64, at: u64) -> Result<&LabelledScan, PretrainError> {
        let (folder, held) = &self.rooms[room_at(self.rooms.len(), seed, at)];
        if let Some(scan) = held.get() {
            return Ok(scan);
        }
        let scan = LabelledScan::read(folder)?;
        Ok(held.get_or_init(|| scan))
    }

    /// The part of a degraded room that a step sees, and the class of each cell; -1 for none.
    fn part(&self, room: &LabelledScan, random: &mut SplitMix64) -> Result<(Cells, Vec<i32>), PretrainError> {
        let scan = degraded(room, random);
        let cells = scan.cells(&self.settings.model)?;
        let classes = of_cells(room, &scan, &cells);
        let place = |&nyu40: &u8| class_of(nyu40).map_or(-1, |class| class as i32);
        let classes: Vec<i32> = classes.iter().map(place).collect();
        if cells.len() <= self.settings.cells {
            return Ok((cells, classes));
        }
        let mut present = classes.clone();
        present.sort_unstable();
        present.dedup();
        let class = present[random.below(present.len())];
        let of_class: Vec<usize> = (0..cells.len()).filter(|&cell| classes[cell] == class).collect();
        let middle = cells.positions[of_class[random.below(of_class.len())]];
        let kept = nearest(&cells, middle, self.settings.cells);
        Ok((cells.part(&kept), kept.iter().map(|&cell| classes[cell as usize]).collect()))
    }
}

/// NYU40's number of every cell: that of most of its points, the least of equal ones.
fn of_cells(room: &LabelledScan, scan: &Degraded, cells: &Cells) -> Vec<u8> {
    let classes = scan.kept.iter().map(|&point| room.classes[point as usize]);
    let mut pairs: Vec<(i32, u8)> = cells.cell_from_point.iter().copied().zip(classes).collect();
    pairs.sort_unstable();
    let mut best = vec![(0, 0); cells.len()];
    for run in pairs.chunk_by(|a, b| a == b) {
        let (cell, class) = run[0];
        if run.len() > best[cell as usize].0 {
            best[cell as usize] = (run.len(), class);
        }
    }
    best.into_iter().map(|(_, class)| class).collect()
}

/// Weight of every cell: the number of cells of its class to the power of -`balance`, with mean 1. 0 without a class.
fn class_weights(classes: &[i32], balance: f64) -> Vec<f32> {
    let mut counts = vec![0_u32; CLASSES.len()];
    let known = || classes.iter().filter_map(|&class| usize::try_from(class).ok());
    known().for_each(|class| counts[class] += 1);
    let weight = |class: usize| f64::from(counts[class]).powf(-balance);
    let sum: f64 = known().map(weight).sum();
    let of_cell = |&class: &i32| usize::try_from(class).map_or(0.0, |class| (weight(class) / sum) as f32);
    classes.iter().map(of_cell).collect()
}

impl Task for OpenSceneTask {
    fn name(&self) -> &'static str {
        "openscene"
    }

    fn settings(&self) -> Result<String, PretrainError> {
        settings_text(&self.settings)
    }

    fn model_config(&self) -> Result<String, PretrainError> {
        config_text(&self.settings.model)
    }

    fn initial(&self, seed: u64) -> Result<StateDict, PretrainError> {
        initial(&self.settings.model, seed, &self.device)
    }

    fn loss(&mut self, context: StepContext<'_>) -> Result<Loss, PretrainError> {
        let (mut parts, mut classes) = (Parts::default(), Vec::new());
        for copy in 0..self.settings.batch as u64 {
            let room = self.room(context.seed, context.step * self.settings.batch as u64 + copy)?;
            let (cells, of_cells) = self.part(room, &mut context.random(&[CHANGES, copy]))?;
            parts.add(&cells);
            classes.extend(of_cells);
        }
        let device = context.parameters.device().clone();
        let text = self.names.draw(&mut context.random(&[WORDS]));
        let (num_cells, dim) = (classes.len(), self.names.dim);
        let out = parts.forward(&self.settings.model, &mut *context.parameters)? * self.settings.sharpness;
        let text = float_tensor(text, [CLASSES.len(), dim], &device);
        let logits = matmul(out, text, Form::RightTransposed)?;
        let weights = class_weights(&classes, self.settings.balance);
        let weights = float_tensor(weights, [num_cells, 1], &device);
        let targets = int_tensor(classes.iter().map(|&class| class.max(0)).collect(), [num_cells, 1], &device);
        let found = float_values(logits.clone().inner())?;
        let total = (log_softmax(logits, 1).gather(1, targets) * weights).sum().neg();
        let (mut right, mut known) = (0.0, 0.0);
        for (row, &class) in found.chunks_exact(CLASSES.len()).zip(&classes) {
            if let Ok(class) = usize::try_from(class) {
                known += 1.0;
                right += f64::from(u8::from(row.iter().all(|&x| x <= row[class])));
            }
        }
        let parts = [("accuracy", right / f64::max(known, 1.0)), ("cells", num_cells as f64)];
        Ok(Loss { total, parts: parts.map(|(name, value)| (name.to_owned(), value)).into() })
    }

    fn validate(
        &mut self,
        weights: StateDict,
        _step: u64,
        _folder: &Path,
    ) -> Result<BTreeMap<String, f64>, PretrainError> {
        let (network, _) = MinkUnet::load_as(self.settings.model.clone(), weights, &self.device)?;
        let preset = Preset::SCANNET20;
        let nyu40 = nyu40_from_class(&preset).unwrap_or_default();
        let num_classes = preset.labels.len();
        let mut counts = Confusion::new(num_classes)?;
        for (room, number) in self.validation.iter().zip(0..) {
            let room = LabelledScan::read(room)?;
            for way in 0..WAYS {
                let scan = degraded(&room, &mut SplitMix64::stream(VALIDATION, &[number, way]));
                let cells = scan.cells(&self.settings.model)?;
                let features = float_values(network.features(&cells, 1, &self.device)?)?;
                let found = predict(&features, &self.asked, num_classes, None)?;
                let mut truth: Vec<i64> = of_cells(&room, &scan, &cells).into_iter().map(i64::from).collect();
                classes_from_nyu40(&mut truth, &nyu40, -1);
                let truth: Vec<i32> = truth.into_iter().map(|class| class as i32).collect();
                counts.add(&truth, &found.label, &[-1])?;
            }
        }
        let mut figures = BTreeMap::new();
        add_means(&mut figures, "", &counts)?;
        add_ious(&mut figures, preset.labels, &counts);
        Ok(figures)
    }

    fn main_figure(&self) -> &'static str {
        "val_miou"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_back_and_checked() {
        let settings = OpenSceneSettings::default();
        settings.validate().unwrap();
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(OpenSceneSettings::parse(&text).unwrap(), settings);
        assert_eq!(OpenSceneSettings::parse("cells = 500\n[model]\nedge_mm = 40").unwrap().model.edge_mm, 40);
        for text in ["cells = 5", "balance = 2.0", "[model]\nin_channels = 4", "[training]\nsteps = 0"] {
            assert!(OpenSceneSettings::parse(text).unwrap().validate().is_err(), "{text}");
        }
    }

    #[test]
    fn rare_classes_weigh_more_and_unknown_cells_nothing() {
        let weights = class_weights(&[0, 0, 0, 0, 1, -1], 0.5);
        assert_eq!(weights, [1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 2.0 / 6.0, 0.0]);
        assert_eq!(class_weights(&[0, 0, 1], 0.0), [1.0 / 3.0; 3]);
        assert!(class_weights(&[-1], 0.5).iter().all(|&weight| weight == 0.0));
    }

    #[test]
    fn a_cell_has_the_class_of_most_of_its_points() {
        let room = LabelledScan {
            name: "row".to_owned(),
            points: [1, 2, 3, 4, 6, 7].map(|x| [0.01 * x as f32, 0.0, 0.0]).to_vec(),
            colors: vec![[0; 3]; 6],
            normals: vec![[0.0; 3]; 6],
            classes: vec![4, 9, 9, 4, 7, 3],
            instances: vec![0; 6],
            spans_room: vec![true],
        };
        let kept = vec![0, 1, 2, 4, 5];
        let points = kept.iter().map(|&point| room.points[point as usize].map(f64::from)).collect();
        let scan = Degraded { points, colors: None, kept };
        let cells = scan.cells(&MinkUnetConfig::small(8)).unwrap();
        assert_eq!(of_cells(&room, &scan, &cells), [9, 3]);
    }
}
