//! Steps of training: batches, loss, gradients, optimizer.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::prelude::*;
use burn::tensor::Gradients;
use serde::Serialize;

use super::sampling::{Batch, batch, least_samples};
use super::{Config, DistillError, TrainingScene};
use crate::models::student::{AffinityPredictor, Student, StudentConfig};
use crate::ops::info_nce::info_nce;
use crate::ops::normalize_rows;
use crate::ops::{float_tensor, float_values, int_tensor, limits_of, plain};
use crate::random::SplitMix64;
use crate::training::{AdamW, AdamWConfig, AdamWState, Group, HostMoments, Schedule};
use crate::weights::{Dtype, HostTensor, StateDict};

/// Stream of random numbers from which a step draws its batch.
const BATCH: u64 = 2;
/// 4-byte values that a step keeps per layer, voxel and channel: the input and the output of the convolution.
const VALUES_PER_LAYER: u64 = 2;
/// Number of the student's convolutions that keep values.
const NUM_LAYERS: u64 = 9;
/// Copies of the weights: value, gradient, accumulated gradient of earlier scenes, two moments, and the
/// packed form of a convolution.
const WEIGHT_COPIES: u64 = 6;

/// Prefix of a parameter's key in a checkpoint, for its moments.
const EXP_AVG: &str = "optimizer.exp_avg.";
const EXP_AVG_SQ: &str = "optimizer.exp_avg_sq.";

/// Report of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Number of steps done, including this one.
    #[serde(skip)]
    pub step: usize,
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Mean loss of its scenes.
    pub loss: f64,
    /// Share of anchors whose positive is more similar than all negatives.
    pub accuracy: f64,
    /// Learning rate of the residual blocks.
    pub learning_rate: f64,
    /// Names of its scenes.
    pub scenes: Vec<String>,
    /// Number of voxels of the student's input.
    pub voxels: usize,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Indices of cropped scenes, and the number of voxels used.
    #[serde(skip)]
    pub cropped: Vec<(usize, usize)>,
}

/// A student in training.
#[derive(Debug)]
pub struct Trainer {
    model: AffinityPredictor,
    student: StudentConfig,
    optimizer: AdamW,
    schedule: Schedule,
    config: Config,
    device: Device,
    steps: usize,
}

impl Trainer {
    /// Makes a student before its first step, for scenes with `input_dim` channels and epochs of
    /// `steps_per_epoch` steps.
    #[must_use]
    pub fn new(config: &Config, input_dim: usize, steps_per_epoch: usize, device: &Device) -> Self {
        let student = StudentConfig { input_dim, hidden_dim: config.hidden_dim, embed_dim: config.embed_dim };
        let device = device.clone().without_autodiff().autodiff();
        let schedule = Schedule {
            factors: config.rate_factors,
            final_rate: config.final_rate * config.learning_rate,
            ..Schedule::new(
                config.learning_rate,
                (config.warmup_epochs * steps_per_epoch) as u64,
                (config.epochs * steps_per_epoch) as u64,
            )
        };
        Self {
            model: AffinityPredictor::new(&student, config.seed, &device),
            student,
            optimizer: AdamW::new(Self::optimizer_config(config)),
            schedule,
            config: config.clone(),
            device,
            steps: 0,
        }
    }

    fn optimizer_config(config: &Config) -> AdamWConfig {
        AdamWConfig { weight_decay: config.weight_decay, ..AdamWConfig::default() }
    }

    /// Number of optimizer steps so far.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Layer widths of the student.
    #[must_use]
    pub fn student(&self) -> StudentConfig {
        self.student
    }

    /// The current network for inference, with folded batch norms.
    #[must_use]
    pub fn folded(&self) -> Student {
        self.model.fold()
    }

    /// Most voxels of `scene` that a step within `max_memory` bytes can use.
    #[must_use]
    pub fn max_voxels(&self, scene: &TrainingScene, max_memory: u64) -> usize {
        let teacher_dim = scene.teacher_dim;
        let samples_per_voxel = scene.num_samples().div_ceil(scene.num_voxels().max(1));
        let StudentConfig { input_dim, hidden_dim, embed_dim } = self.student;
        let keys = self.student.keys();
        let weights: usize = keys.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        let weights = weights as u64 * 4 * WEIGHT_COPIES;
        let of_layers = NUM_LAYERS * VALUES_PER_LAYER * hidden_dim as u64;
        // The teacher's rows exist once on the host and once on the device.
        let of_samples = samples_per_voxel * (input_dim + 2 * teacher_dim);
        let of_voxel = 4 * (of_layers + (input_dim + 4 * embed_dim + of_samples) as u64 + 54);
        let fit = max_memory.saturating_sub(weights) / of_voxel;
        let limits = limits_of(&self.device);
        let of_device = limits
            .rows(4 * input_dim.max(hidden_dim).max(embed_dim))
            .min(limits.rows(4 * teacher_dim) / samples_per_voxel.max(1));
        let most = usize::try_from(fit).unwrap_or(usize::MAX).min(of_device);
        // A grid that is up to 1.1 times finer has up to 1.1³ times as many voxels.
        if self.config.augment { most / 4 * 3 } else { most }
    }

    /// Does one optimizer step along the mean gradient of `scenes`, each with its index. `epoch` is counted
    /// from 0. A scene that does not fit `max_memory` is cropped.
    ///
    /// # Errors
    /// [`DistillError::TooSmall`], [`DistillError::Mismatch`], [`DistillError::Diverged`], errors of reading
    /// a scene, and [`DistillError::Op`]. The trainer cannot be used after an error.
    pub fn step(
        &mut self,
        epoch: usize,
        scenes: impl ExactSizeIterator<Item = (usize, Result<TrainingScene, DistillError>)>,
        max_memory: u64,
    ) -> Result<StepReport, DistillError> {
        let start = Instant::now();
        let count = scenes.len();
        let mut report = StepReport {
            step: self.steps + 1,
            epoch: epoch + 1,
            loss: 0.0,
            accuracy: 0.0,
            learning_rate: self.schedule.rate(self.steps as u64, Group::Middle),
            scenes: Vec::with_capacity(count),
            voxels: 0,
            seconds: 0.0,
            cropped: Vec::new(),
        };
        let mut sums: BTreeMap<String, Tensor<1>> = BTreeMap::new();
        self.optimizer.begin_step();
        for (i, (number, scene)) in scenes.enumerate() {
            let scene = scene?;
            let mut random = SplitMix64::stream(self.config.seed, &[BATCH, epoch as u64, number as u64]);
            let seen = self.draw(&scene, max_memory, &mut random)?;
            let name = scene.name;
            let (loss, accuracy, mut gradients) = self.backward(seen.0, count)?;
            if !loss.is_finite() {
                return Err(DistillError::Diverged { step: report.step, scene: name, loss });
            }
            report.loss += f64::from(loss) / count as f64;
            report.accuracy += f64::from(accuracy) / count as f64;
            report.voxels += seen.1;
            report.scenes.push(name);
            if seen.2 {
                report.cropped.push((number, seen.1));
            }
            let Self { model, optimizer, schedule, steps, .. } = self;
            model.update(&mut gradients, |key, values, gradient| {
                let gradient = match sums.remove(key) {
                    Some(sum) => sum + gradient,
                    None => gradient,
                };
                if i + 1 == count {
                    return optimizer.update(key, values, gradient, schedule.rate(*steps as u64, Group::of(key)));
                }
                sums.insert(key.to_owned(), gradient);
                Ok(values)
            })?;
        }
        self.steps += 1;
        report.seconds = start.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Draws a batch of `scene`. Also returns its number of voxels, and true if the scene was cropped.
    fn draw(
        &self,
        scene: &TrainingScene,
        max_memory: u64,
        random: &mut SplitMix64,
    ) -> Result<(Batch, usize, bool), DistillError> {
        if scene.num_channels != self.student.input_dim {
            let message =
                format!("features of {} channels, the student takes {}", scene.num_channels, self.student.input_dim);
            return Err(DistillError::Mismatch { scene: scene.name.clone(), message });
        }
        let max_voxels = self.max_voxels(scene, max_memory);
        if max_voxels < least_samples(&self.config) {
            return Err(DistillError::Setting {
                name: "max_memory",
                value: format!("{} MiB", max_memory >> 20),
                expected: "enough for the student's weights and a few hundred voxels",
            });
        }
        let seen = batch(scene, &self.config, max_voxels, random, &self.device.clone().without_autodiff())?;
        let (voxels, is_cropped) = (seen.coords.len(), seen.is_cropped);
        Ok((seen, voxels, is_cropped))
    }

    /// Computes loss and accuracy of a batch, and its share of the gradients of a step of `count` batches.
    fn backward(&mut self, batch: Batch, count: usize) -> Result<(f32, f32, Gradients), DistillError> {
        let (num_voxels, num_anchors) = (batch.coords.len(), batch.anchors.len());
        let device = &self.device;
        let features = float_tensor(batch.features, [num_voxels, self.student.input_dim], device);
        let coords: Vec<i32> = batch.coords.iter().flat_map(|&[x, y, z]| [0, x, y, z]).collect();
        let coords = int_tensor(coords, [num_voxels, 4], device);
        let embedding = normalize_rows(self.model.forward_train(features, coords)?);
        let num_negatives = batch.negatives.len() / num_anchors;
        let found = info_nce(
            embedding,
            int_tensor(batch.anchors, [num_anchors], device),
            int_tensor(batch.positives, [num_anchors], device),
            int_tensor(batch.negatives, [num_anchors, num_negatives], device),
            self.config.temperature,
        )?;
        let loss = float_values(found.loss.clone().inner())?[0];
        let accuracy = float_values(plain(found.accuracy))?[0];
        Ok((loss, accuracy, (found.loss / count as f32).backward()))
    }

    /// Weights of the student under the keys of the reference.
    ///
    /// # Errors
    /// [`DistillError::NotFinite`] if a weight became NaN or infinite; [`DistillError::Op`] if weights cannot
    /// be read back.
    pub fn weights(&self) -> Result<StateDict, DistillError> {
        let state = self.model.state_dict()?;
        let spoiled = state.tensors.iter().find(|(_, tensor)| tensor.data.iter().any(|value| !value.is_finite()));
        match spoiled {
            Some((key, _)) => Err(DistillError::NotFinite { key: key.clone(), step: self.steps }),
            None => Ok(state),
        }
    }

    /// Weights of the student and moments of the optimizer.
    ///
    /// # Errors
    /// The same as [`weights`](Self::weights).
    pub fn state(&self) -> Result<StateDict, DistillError> {
        let mut state = self.weights()?;
        for (key, moments) in self.optimizer.state()?.moments {
            for (prefix, data) in [(EXP_AVG, moments.exp_avg), (EXP_AVG_SQ, moments.exp_avg_sq)] {
                let tensor = HostTensor { shape: vec![data.len()], dtype_in_file: Dtype::F32, data };
                state.tensors.insert(format!("{prefix}{key}"), tensor);
            }
        }
        Ok(state)
    }

    /// Restores a [`state`](Self::state) after `steps` steps.
    ///
    /// # Errors
    /// [`DistillError::Weights`] if a weight or a moment is missing or has another shape.
    pub fn restore(&mut self, mut state: StateDict, steps: usize) -> Result<(), DistillError> {
        let mut moments = BTreeMap::new();
        for (key, shape) in self.student.keys().into_iter().filter(|(key, _)| !key.contains("running_")) {
            let len = shape.iter().product();
            let exp_avg = state.take(&format!("{EXP_AVG}{key}"), &[len])?.data;
            let exp_avg_sq = state.take(&format!("{EXP_AVG_SQ}{key}"), &[len])?.data;
            moments.insert(key, HostMoments { exp_avg, exp_avg_sq });
        }
        let num_batches = state.integers.values().next().map_or(0, |counts| counts.data.first().copied().unwrap_or(0));
        let (mut model, _, _) = AffinityPredictor::load(state, &self.device)?;
        model.set_num_batches_tracked(num_batches.unsigned_abs());
        let state = AdamWState { num_steps: steps as u64, moments };
        self.optimizer = AdamW::resume(Self::optimizer_config(&self.config), state, &self.device)?;
        self.model = model;
        self.steps = steps;
        Ok(())
    }
}
