//! Training of a 3D network on lifted features, without labels, as OpenScene distils its own (Peng et al., CVPR 2023).

use std::collections::BTreeMap;
use std::path::Path;

use burn::prelude::*;
use glam::{DQuat, DVec3};
use serde::{Deserialize, Serialize};

use super::degrade::{Degraded, degraded};
use super::parts::{Parts, initial, nearest};
use super::{CHANGES, VALIDATION, WAYS};
use crate::distill::{SceneFile, Scenes, TrainingScene};
use crate::models::ModelError;
use crate::models::minkunet::{Cells, MinkUnet, MinkUnetConfig, TextSpace};
use crate::ops::{float_tensor, float_values, normalize_rows};
use crate::pretrain::error::{PretrainError, check_setting};
use crate::pretrain::rooms::room_at;
use crate::pretrain::run::{LoopSettings, Loss, StepContext, Task, config_text, settings_over, settings_text};
use crate::pretrain::scan::LabelledScan;
use crate::purify::GEOMETRY_CHANNELS;
use crate::random::SplitMix64;
use crate::weights::StateDict;

/// Settings for training a 3D network on lifted features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LiftedSettings {
    /// Number of scenes in a step.
    pub batch: usize,
    /// Largest number of cells of a scene that a step sees.
    pub cells: usize,
    /// Settings of the training loop.
    pub training: LoopSettings,
    /// Configuration of the network. Its head must have the width of the lifted features. Without it, the network is
    /// small and knows shape and colour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<MinkUnetConfig>,
}

impl Default for LiftedSettings {
    fn default() -> Self {
        let training = LoopSettings {
            steps: 2000,
            learning_rate: 3e-3,
            warmup: 100,
            weight_decay: 0.02,
            average_decay: 0.995,
            validate_every: 500,
            ..LoopSettings::default()
        };
        Self { batch: 2, cells: 9000, training, model: None }
    }
}

impl LiftedSettings {
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
        if let Some(model) = &self.model {
            model.validate().map_err(ModelError::from)?;
        }
        check_setting("batch", (1..=1024).contains(&self.batch), &self.batch, "1 to 1024")?;
        check_setting("cells", (100..1 << 24).contains(&self.cells), &self.cells, "from 100 to 16 million")
    }
}

/// Trains a 3D network to give every cell of a scan the features that views put there.
///
/// The scenes are those that a student learns from. A step takes some, scans each once more in its own way
/// ([`degraded`]), and shows the network a part of each. The loss is 1 minus the cosine of a cell's output and of the
/// mean of the features lifted to its points; cells that no view saw do not count.
///
/// Validation measures the mean cosine on scenes that the network did not learn from.
#[derive(Debug)]
pub struct LiftedTask {
    settings: LiftedSettings,
    model: MinkUnetConfig,
    scenes: Scenes,
    device: Device,
}

/// A scene that was scanned once more.
struct Scanned {
    cells: Cells,
    /// `[M, D]`: the mean of the lifted features of each cell, of unit length; 0 for cells that no view saw.
    lifted: Vec<f32>,
}

impl LiftedTask {
    /// Makes a task that learns from prepared `scenes`, whose features are in the space of `text`, on `device`.
    ///
    /// # Errors
    /// As [`LiftedSettings::validate`]; [`PretrainError::Setting`] without a scene to learn from, or if the network's
    /// head has another width than the features; errors of reading the first scene.
    pub fn new(
        settings: LiftedSettings,
        scenes: Scenes,
        text: TextSpace,
        device: &Device,
    ) -> Result<Self, PretrainError> {
        settings.validate()?;
        let setting = |name, value: String, expected| Err(PretrainError::Setting { name, value, expected });
        let Some(first) = scenes.training.first() else {
            return setting("scenes", "empty".to_owned(), "one scene to learn from, at least");
        };
        let width = TrainingScene::read(&first.path).map_err(Box::new)?.num_channels.saturating_sub(GEOMETRY_CHANNELS);
        let small = || MinkUnetConfig { text, ..MinkUnetConfig::small(width) };
        let model = settings.model.clone().unwrap_or_else(small);
        if model.text_width() != width {
            let value = format!("{}, while the features have {width}", model.text_width());
            return setting("model.heads", value, "the width of the features");
        }
        Ok(Self { settings, model, scenes, device: device.clone().without_autodiff() })
    }

    fn scanned(&self, scene: &SceneFile, random: &mut SplitMix64) -> Result<Scanned, PretrainError> {
        let scene = TrainingScene::read(&scene.path).map_err(Box::new)?;
        let width = self.model.text_width();
        if scene.num_channels != width + GEOMETRY_CHANNELS {
            let value = format!("{width}, while the features of {} have {}", scene.name, scene.num_channels);
            return Err(PretrainError::Setting { name: "model.heads", value, expected: "the width of the features" });
        }
        let scan = degraded(&scan_of(&scene, width), random);
        let cells = scan.cells(&self.model)?;
        let lifted = means(&scene, &scan, &cells, width);
        Ok(Scanned { cells, lifted })
    }
}

/// The scan of a prepared scene, z up.
fn scan_of(scene: &TrainingScene, width: usize) -> LabelledScan {
    let metres = scene.voxel_metres / scene.voxel_size;
    let turn = DQuat::from_rotation_arc(DVec3::from(scene.up).normalize_or(DVec3::Z), DVec3::Z);
    let in_metres = |p: &[f32; 3]| turn * (DVec3::from(p.map(f64::from)) * metres);
    let placed: Vec<DVec3> = scene.positions.iter().map(in_metres).collect();
    let least = placed.iter().copied().reduce(DVec3::min).unwrap_or_default();
    let geometry = || scene.features.chunks_exact(width + GEOMETRY_CHANNELS).map(|row| &row[width..]);
    let num_points = placed.len();
    LabelledScan {
        name: scene.name.clone(),
        points: placed.into_iter().map(|p| (p - least).as_vec3().to_array()).collect(),
        colors: geometry().map(|row| [row[0], row[1], row[2]].map(|value| (255.0 * value) as u8)).collect(),
        normals: geometry().map(|row| [row[3], row[4], row[5]]).collect(),
        classes: vec![0; num_points],
        instances: vec![0; num_points],
        spans_room: vec![true],
    }
}

/// The mean of the lifted features of the points of each cell, `[M, D]`, of unit length.
fn means(scene: &TrainingScene, scan: &Degraded, cells: &Cells, width: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f32; cells.len() * width];
    for (&point, &cell) in scan.kept.iter().zip(&cells.cell_from_point) {
        let row = &scene.features[point as usize * scene.num_channels..][..width];
        sums[cell as usize * width..][..width].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    for row in sums.chunks_exact_mut(width.max(1)) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|x| *x /= length);
        }
    }
    sums
}

impl Task for LiftedTask {
    fn name(&self) -> &'static str {
        "openscene lifted"
    }

    fn settings(&self) -> Result<String, PretrainError> {
        settings_text(&LiftedSettings { model: Some(self.model.clone()), ..self.settings.clone() })
    }

    fn model_config(&self) -> Result<String, PretrainError> {
        config_text(&self.model)
    }

    fn initial(&self, seed: u64) -> Result<StateDict, PretrainError> {
        initial(&self.model, seed, &self.device)
    }

    fn loss(&mut self, context: StepContext<'_>) -> Result<Loss, PretrainError> {
        let width = self.model.text_width();
        let (mut parts, mut lifted) = (Parts::default(), Vec::new());
        for copy in 0..self.settings.batch as u64 {
            let at = context.step * self.settings.batch as u64 + copy;
            let scene = &self.scenes.training[room_at(self.scenes.training.len(), context.seed, at)];
            let mut random = context.random(&[CHANGES, copy]);
            let scanned = self.scanned(scene, &mut random)?;
            let middle = scanned.cells.positions[random.below(scanned.cells.len())];
            let kept = nearest(&scanned.cells, middle, self.settings.cells);
            parts.add(&scanned.cells.part(&kept));
            lifted.extend(kept.iter().flat_map(|&cell| &scanned.lifted[cell as usize * width..][..width]));
        }
        let num_cells = parts.num_cells();
        let num_seen = lifted.chunks_exact(width.max(1)).filter(|row| row.iter().any(|&x| x != 0.0)).count();
        let out = parts.forward(&self.model, &mut *context.parameters)?;
        let lifted = float_tensor(lifted, [num_cells, width], context.parameters.device());
        // A cell that no view saw has a product of 0, and no gradient.
        let cosine = (out * lifted).sum() / num_seen.max(1) as f64;
        let parts = [("cells", num_cells as f64), ("seen", num_seen as f64)];
        Ok(Loss { total: cosine.neg() + 1.0, parts: parts.map(|(name, value)| (name.to_owned(), value)).into() })
    }

    fn validate(
        &mut self,
        weights: StateDict,
        _step: u64,
        _folder: &Path,
    ) -> Result<BTreeMap<String, f64>, PretrainError> {
        let (network, _) = MinkUnet::load_as(self.model.clone(), weights, &self.device)?;
        let (mut sum, mut num_seen) = (0.0, 0_usize);
        for (scene, number) in self.scenes.validation.iter().zip(0..) {
            for way in 0..WAYS {
                let scanned = self.scanned(scene, &mut SplitMix64::stream(VALIDATION, &[number, way]))?;
                let found = normalize_rows(network.features(&scanned.cells, 1, &self.device)?);
                let width = self.model.text_width().max(1);
                let rows = float_values(found)?;
                for (found, lifted) in rows.chunks_exact(width).zip(scanned.lifted.chunks_exact(width)) {
                    sum += f64::from(found.iter().zip(lifted).map(|(a, b)| a * b).sum::<f32>());
                    num_seen += usize::from(lifted.iter().any(|&x| x != 0.0));
                }
            }
        }
        let figure = (num_seen > 0).then(|| ("val_cosine".to_owned(), sum / num_seen as f64));
        Ok(figure.into_iter().collect())
    }

    fn main_figure(&self) -> &'static str {
        "val_cosine"
    }
}
