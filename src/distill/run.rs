//! A training run in its own folder: logs, checkpoints, and the trained weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::prelude::*;

use super::about::About;
use super::scene_file::Scenes;
use super::trainer::{StepReport, Trainer};
use super::validation::{Precision, Validator};
use super::{Config, DistillError, TrainingScene};
use crate::random::SplitMix64;
use crate::training::checkpoint;
use crate::training::{
    CURVE_FILE, EventWriter, LogError, METRICS_FILE, MetricsLog, RunError, RunFolder, last_event_file, now, read_series,
};
use crate::weights::{WeightsFile, write_state_dict};

/// Name of the settings file in a run's folder.
pub const CONFIG_FILE: &str = "config.toml";
/// Name of the description of a run in its folder. It is written before the first step, and says everything
/// that the run uses and that its other files do not.
pub(super) const RUN_FILE: &str = "run.json";
/// Name of the list of scenes in a run's folder.
pub(super) const SCENES_FILE: &str = "scenes.json";
/// Name of the trained weights in a run's folder. They have the keys of the reference.
pub const STUDENT_FILE: &str = "student.safetensors";
/// Number of checkpoints that a run keeps, and of epochs between validations, if nothing else is asked for.
const USUAL_KEEP_LAST: usize = 3;
const USUAL_VALIDATE_EVERY: usize = 1;
/// Stream of random numbers that orders the scenes of an epoch.
const ORDER: u64 = 1;

/// Options of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// True to continue from the last checkpoint.
    pub resume: bool,
    /// Number of checkpoints to keep. By default, that of the run so far, else 3.
    pub keep_last: Option<usize>,
    /// Number of epochs between validations. By default, that of the run so far, else 1.
    pub validate_every: Option<usize>,
    /// Memory limit of a step in bytes. Scenes that need more are cropped.
    pub max_memory: u64,
    /// True if a resumed run keeps its own `max_memory`.
    pub keep_max_memory: bool,
    /// Name of the device, for checkpoints.
    pub device_name: String,
}

/// Event of a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// Message for the user.
    Note(String),
    /// A step was done.
    Step {
        /// Report of the step.
        report: &'a StepReport,
        /// Number of steps of the whole run.
        num_steps: usize,
        /// Estimated remaining time in seconds.
        remaining: f64,
    },
    /// An epoch was done and saved.
    Epoch {
        /// Number of epochs done.
        epochs: usize,
        /// Mean loss of its steps.
        loss: f64,
        /// Precision on held-out scenes, if this epoch was validated.
        validation: Option<&'a Precision>,
    },
}

/// Result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// File of the trained weights.
    pub student: PathBuf,
    /// Loss of the first step and mean loss of the last epoch.
    pub losses: [f64; 2],
    /// Number of optimizer steps.
    pub steps: usize,
    /// Last validation.
    pub validation: Option<Precision>,
}

/// Reads the list of scenes of the run in `folder`.
///
/// # Errors
/// [`DistillError::Run`], [`DistillError::Gone`] if the file of a scene does not exist.
pub fn read_scenes(folder: &Path) -> Result<Scenes, DistillError> {
    let path = folder.join(SCENES_FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| RunError::Io { path: path.clone(), source })?;
    let scenes: Scenes =
        serde_json::from_str(&text).map_err(|error| RunError::Run { path, message: error.to_string() })?;
    match scenes.training.iter().chain(&scenes.validation).find(|scene| !scene.path.is_file()) {
        Some(gone) => Err(DistillError::Gone { scene: gone.name.clone(), path: gone.path.clone() }),
        None => Ok(scenes),
    }
}

/// Reads the description that a run wrote into `folder` before its first step, if there is one.
fn read_run(folder: &Path) -> Result<Option<About>, DistillError> {
    let path = folder.join(RUN_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RunError::Io { path, source }.into()),
    };
    let about = serde_json::from_str(&text).map_err(|error| RunError::Run { path, message: error.to_string() })?;
    Ok(Some(about))
}

/// Reads the settings of the run in `folder`.
///
/// # Errors
/// [`DistillError::Run`], [`DistillError::Config`], [`DistillError::Setting`].
pub fn read_config(folder: &Path) -> Result<Config, DistillError> {
    let path = folder.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| RunError::Io { path, source })?;
    Config::parse(&text, None)
}

/// Fails if a run cannot be in `folder`: another is there that is not to be resumed, or files that it would
/// overwrite. Files of a run killed before its first checkpoint may be overwritten.
///
/// # Errors
/// [`DistillError::Run`].
pub fn check_run_folder(folder: &Path, resume: bool) -> Result<(), DistillError> {
    let has_checkpoint = !checkpoint::list(folder, checkpoint::EPOCHS)?.is_empty();
    if has_checkpoint && !resume {
        let message = "this folder already holds a run: continue it by --resume, or give another folder".to_owned();
        return Err(RunError::Run { path: folder.to_path_buf(), message }.into());
    }
    let is_there = |name: &str| folder.join(name).exists();
    let is_early_run = (is_there(RUN_FILE) || is_there(SCENES_FILE)) && !is_there(STUDENT_FILE);
    let others = [CONFIG_FILE, METRICS_FILE, STUDENT_FILE, CURVE_FILE];
    match others.into_iter().find(|name| is_there(name)) {
        Some(name) if !has_checkpoint && !is_early_run => Err(RunError::Run {
            path: folder.join(name),
            message: "this would be overwritten, and there is no checkpoint to resume: give another folder".into(),
        }
        .into()),
        _ => Ok(()),
    }
}

/// Trains a student on `scenes` with the settings `config`, in `folder`.
///
/// # Errors
/// [`DistillError`]. Everything finished before stays, so a failed run can be resumed.
pub fn train(
    folder: &Path,
    config: &Config,
    scenes: &Scenes,
    options: &RunOptions,
    device: &Device,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Trained, DistillError> {
    config.validate()?;
    let Some(first) = scenes.training.first() else { return Err(DistillError::NoScenes) };
    let folder = RunFolder::open(folder)?;
    let input_dim = TrainingScene::read(&first.path)?.num_channels;
    let mut run = Run {
        folder: &folder,
        device,
        config,
        scenes,
        options,
        max_memory: options.max_memory,
        keep_last: options.keep_last.unwrap_or(USUAL_KEEP_LAST),
        validate_every: options.validate_every.unwrap_or(USUAL_VALIDATE_EVERY),
        input_dim,
        num_steps: config.epochs * steps_per_epoch(config, scenes.training.len()),
        trainer: Trainer::new(config, input_dim, steps_per_epoch(config, scenes.training.len()), device),
        logs: None,
        is_cropped: vec![false; scenes.training.len()],
        on_event,
    };
    let done = run.start()?;
    run.train(done)
}

/// Number of optimizer steps per epoch.
fn steps_per_epoch(config: &Config, num_scenes: usize) -> usize {
    num_scenes.div_ceil(config.accumulate)
}

struct Logs {
    metrics: MetricsLog,
    events: EventWriter,
}

struct Run<'a, 'e> {
    folder: &'a RunFolder,
    device: &'a Device,
    config: &'a Config,
    scenes: &'a Scenes,
    options: &'a RunOptions,
    max_memory: u64,
    keep_last: usize,
    validate_every: usize,
    input_dim: usize,
    num_steps: usize,
    trainer: Trainer,
    logs: Option<Logs>,
    /// True for each scene whose cropping was already reported.
    is_cropped: Vec<bool>,
    on_event: &'e mut dyn FnMut(Event<'_>),
}

impl Run<'_, '_> {
    fn about(&self, epochs: usize) -> About {
        About {
            epochs,
            steps: self.trainer.steps(),
            config: self.config.clone(),
            scenes: self.scenes.training.iter().map(|scene| scene.key.clone()).collect(),
            input_dim: self.input_dim,
            max_memory: self.max_memory,
            keep_last: Some(self.keep_last),
            validate_every: Some(self.validate_every),
            device: self.options.device_name.clone(),
        }
    }

    /// Prepares the folder or resumes the run in it. Returns the number of epochs done.
    fn start(&mut self) -> Result<usize, DistillError> {
        check_run_folder(self.folder.path(), self.options.resume)?;
        match checkpoint::list(self.folder.path(), checkpoint::EPOCHS)?.pop() {
            Some((_, path)) => self.take_up(&path),
            None => {
                if self.options.resume {
                    (self.on_event)(Event::Note(
                        "there is no checkpoint yet: training starts from the beginning".to_owned(),
                    ));
                }
                if self.options.resume
                    && let Some(found) = read_run(self.folder.path())?
                {
                    self.adopt(&found);
                }
                // The list of scenes is written last: without it, no run was started.
                let about = serde_json::to_vec_pretty(&self.about(0))
                    .map_err(|error| RunError::Run { path: self.folder.file(RUN_FILE), message: error.to_string() })?;
                self.folder.write(RUN_FILE, &about)?;
                self.folder.write(CONFIG_FILE, self.config.to_toml()?.as_bytes())?;
                self.write_scenes()?;
                // Removes event files of a run that was killed before its first checkpoint.
                while let Some(stale) = last_event_file(self.folder.path())? {
                    std::fs::remove_file(&stale).map_err(|source| RunError::Io { path: stale, source })?;
                }
                self.logs = Some(Logs {
                    metrics: MetricsLog::create(&self.folder.file(METRICS_FILE))?,
                    events: EventWriter::create(self.folder.path())?,
                });
                Ok(0)
            }
        }
    }

    fn write_scenes(&self) -> Result<(), DistillError> {
        let scenes = serde_json::to_vec_pretty(self.scenes)
            .map_err(|error| RunError::Run { path: self.folder.file(SCENES_FILE), message: error.to_string() })?;
        Ok(self.folder.write(SCENES_FILE, &scenes)?)
    }

    fn take_up(&mut self, path: &Path) -> Result<usize, DistillError> {
        let found: About = checkpoint::about(path)?;
        let wrong = |message: String| Err(RunError::Run { path: path.to_path_buf(), message }.into());
        let expected = self.about(found.epochs);
        if found.config != expected.config {
            return wrong(format!(
                "the run has settings that differ from those given: {}",
                differences(&found.config, &expected.config)?
            ));
        }
        if found.scenes != expected.scenes {
            return wrong("the run has other scenes, or they were prepared in another way".to_owned());
        }
        if found.input_dim != expected.input_dim {
            return wrong(format!("the run's student takes {} channels, not {}", found.input_dim, expected.input_dim));
        }
        self.adopt(&found);
        self.write_scenes()?;
        let steps = found.steps;
        self.trainer.restore(WeightsFile::open(path)?.state_dict()?, steps)?;
        let events = match last_event_file(self.folder.path())? {
            None => EventWriter::create(self.folder.path())?,
            Some(path) => match EventWriter::resume(&path, steps as u64) {
                // A power failure may leave an event file without content.
                Err(LogError::Format { .. }) => {
                    (self.on_event)(Event::Note(format!("{}: damaged, a new event file is started", path.display())));
                    EventWriter::create(self.folder.path())?
                }
                resumed => resumed?,
            },
        };
        self.logs = Some(Logs { metrics: MetricsLog::resume(&self.folder.file(METRICS_FILE), steps as u64)?, events });
        (self.on_event)(Event::Note(format!("continuing after epoch {} of {}", found.epochs, self.config.epochs)));
        Ok(found.epochs)
    }

    /// Takes over what the run used so far, where nothing else is asked for.
    fn adopt(&mut self, found: &About) {
        if self.options.keep_max_memory {
            self.max_memory = found.max_memory;
        } else if found.max_memory != self.max_memory {
            (self.on_event)(Event::Note(format!(
                "the run had --max-memory {}, it continues with {}: scenes may be cropped differently",
                found.max_memory >> 20,
                self.max_memory >> 20
            )));
        }
        if found.device != self.options.device_name {
            (self.on_event)(Event::Note(format!(
                "the run was on {}, it continues on {}: rounding differs",
                found.device, self.options.device_name
            )));
        }
        self.keep_last = self.options.keep_last.or(found.keep_last).unwrap_or(USUAL_KEEP_LAST);
        self.validate_every = self.options.validate_every.or(found.validate_every).unwrap_or(USUAL_VALIDATE_EVERY);
    }

    fn train(mut self, done: usize) -> Result<Trained, DistillError> {
        let validator = Validator::new(&self.scenes.validation, self.config, self.trainer.student())?;
        // Validates before the first epoch too: it gives the precision of the start, and shows early if
        // validation fails.
        let mut validation = if done == 0 { self.validate(&validator)? } else { None };
        let start = Instant::now();
        let first_step = self.trainer.steps();
        for epoch in done..self.config.epochs {
            let loss = self.epoch(epoch, start, first_step)?;
            let epochs = epoch + 1;
            let is_due = epochs.is_multiple_of(self.validate_every.max(1)) || epochs == self.config.epochs;
            let found = if is_due { self.validate(&validator)? } else { None };
            self.save(epochs)?;
            self.folder.draw_curve("affinity_precision", "affinity precision")?;
            (self.on_event)(Event::Epoch { epochs, loss, validation: found.as_ref() });
            validation = found.or(validation);
        }
        if done == self.config.epochs {
            self.folder.draw_curve("affinity_precision", "affinity precision")?;
        }
        let path = self.folder.file(STUDENT_FILE);
        write_state_dict(&path, &self.trainer.weights()?, &BTreeMap::new())?;
        let losses = read_series(&self.folder.file(METRICS_FILE), "loss")?;
        let last = &losses[losses.len().saturating_sub(steps_per_epoch(self.config, self.scenes.training.len()))..];
        let mean = last.iter().map(|(_, loss)| loss).sum::<f64>() / last.len().max(1) as f64;
        let first = losses.first().map_or(f64::NAN, |(_, loss)| *loss);
        Ok(Trained { student: path, losses: [first, mean], steps: self.trainer.steps(), validation })
    }

    /// Measures the precision on held-out scenes, if there are any.
    fn validate(&mut self, validator: &Validator<'_>) -> Result<Option<Precision>, DistillError> {
        let found = validator.run(&self.trainer.folded(), self.device)?;
        if let (Some(logs), Some(precision)) = (&mut self.logs, &found) {
            let step = self.trainer.steps() as u64;
            logs.metrics.write(step, precision)?;
            let value = precision.affinity_precision as f32;
            logs.events.scalar("validation/affinity_precision", step, value, now())?;
            logs.events.flush()?;
        }
        Ok(found)
    }

    /// Trains one epoch and returns its mean loss.
    fn epoch(&mut self, epoch: usize, start: Instant, first_step: usize) -> Result<f64, DistillError> {
        let order =
            SplitMix64::stream(self.config.seed, &[ORDER, epoch as u64]).permutation(self.scenes.training.len());
        let mut sum = 0.0;
        for group in order.chunks(self.config.accumulate) {
            let scenes = &self.scenes.training;
            let load = |&scene: &usize| (scene, TrainingScene::read(&scenes[scene].path));
            let report = self.trainer.step(epoch, group.iter().map(load), self.max_memory)?;
            sum += report.loss;
            for &(scene, voxels) in &report.cropped {
                if !std::mem::replace(&mut self.is_cropped[scene], true) {
                    (self.on_event)(Event::Note(format!(
                        "{}: cropped to {voxels} voxels per step, to stay within --max-memory",
                        scenes[scene].name
                    )));
                }
            }
            self.log(&report)?;
            let done = self.trainer.steps();
            let pace = start.elapsed().as_secs_f64() / (done - first_step) as f64;
            let remaining = pace * (self.num_steps - done) as f64;
            (self.on_event)(Event::Step { report: &report, num_steps: self.num_steps, remaining });
        }
        Ok(sum / order.chunks(self.config.accumulate).len() as f64)
    }

    fn log(&mut self, report: &StepReport) -> Result<(), DistillError> {
        let Some(logs) = &mut self.logs else { return Ok(()) };
        let step = report.step as u64;
        logs.metrics.write(step, report)?;
        for (tag, value) in
            [("train/loss", report.loss), ("train/accuracy", report.accuracy), ("train/rate", report.learning_rate)]
        {
            logs.events.scalar(tag, step, value as f32, now())?;
        }
        Ok(logs.events.flush()?)
    }

    /// Writes the checkpoint after `epochs` epochs and removes old ones.
    fn save(&self, epochs: usize) -> Result<(), DistillError> {
        let path = checkpoint::path(self.folder.path(), checkpoint::EPOCHS, epochs);
        let metadata = checkpoint::metadata(&path, &self.about(epochs))?;
        write_state_dict(&path, &self.trainer.state()?, &metadata)?;
        Ok(checkpoint::prune(self.folder.path(), checkpoint::EPOCHS, self.keep_last.max(1))?)
    }
}

/// Lists settings that differ, as `name is FOUND, not ASKED`.
fn differences(found: &Config, asked: &Config) -> Result<String, DistillError> {
    let table = |config: &Config| {
        toml::Table::try_from(config).map_err(|error| DistillError::Config { reason: error.to_string() })
    };
    let (found, asked) = (table(found)?, table(asked)?);
    let differing = found.iter().filter(|(key, value)| asked.get(*key) != Some(value));
    let said = differing.map(|(key, value)| {
        let asked = asked.get(key).map_or_else(String::new, ToString::to_string);
        format!("{key} is {value}, not {asked}")
    });
    Ok(said.collect::<Vec<_>>().join("; "))
}
