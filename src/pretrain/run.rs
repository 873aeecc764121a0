//! Training loop for any [`Task`], in a folder of its own.
//!
//! Every random choice follows from the seed and the number of the step. A checkpoint holds everything that
//! one step hands to the next. So a run that was killed and resumed ends with the same weights, to the bit.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{PretrainError, check_setting};
use crate::ops::{OpError, float_tensor, float_values};
use crate::pretrain::parameters::{Parameters, Rate};
use crate::random::SplitMix64;
use crate::training::checkpoint;
use crate::training::{
    AdamW, AdamWConfig, AdamWState, Group, HostMoments, METRICS_FILE, MetricsLog, RunError, RunFolder, Schedule,
    read_series,
};
use crate::weights::{Dtype, HostTensor, SafetensorsWriter, StateDict, TensorSpec, WeightsFile, write_state_dict};

/// File of the averaged weights in a run's folder, with the reference's keys.
pub const MODEL_FILE: &str = "model.safetensors";
/// File of the model's configuration, beside the weights.
pub const CONFIG_FILE: &str = "config.json";
/// File of the run's settings.
pub const SETTINGS_FILE: &str = "settings.toml";
/// Largest number of consecutive steps with a NaN or infinite gradient. Such a step is left out, because a
/// single image can be at fault.
const MOST_SKIPPED: u64 = 20;
/// Number of steps over which the pace is measured.
const PACE_STEPS: usize = 100;

/// Settings of the training loop, the same for every model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoopSettings {
    /// Seed of the initial weights and of every random choice.
    pub seed: u64,
    /// Number of optimizer steps.
    pub steps: u64,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Learning rate at the end, as a share of `learning_rate`.
    pub final_rate: f64,
    /// Number of steps over which the learning rate rises.
    pub warmup: u64,
    /// Decoupled weight decay, for parameters that the task does not exempt.
    pub weight_decay: f64,
    /// AdamW's decay of the second moment.
    pub beta2: f64,
    /// Largest norm of the gradient over all parameters. Longer gradients are shortened to it. 0 for no
    /// limit.
    pub clip_norm: f64,
    /// Decay of the moving average of the weights, which is exported. The decay is smaller in the first
    /// steps.
    pub average_decay: f64,
    /// Number of steps between validations.
    pub validate_every: u64,
    /// Number of steps between checkpoints.
    pub checkpoint_every: u64,
    /// Number of checkpoints to keep.
    pub keep_last: usize,
    /// True to export the weights as f16.
    pub export_f16: bool,
}

impl Default for LoopSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: 10_000,
            learning_rate: 1e-3,
            final_rate: 0.01,
            warmup: 300,
            weight_decay: 0.05,
            beta2: 0.999,
            clip_norm: 1.0,
            average_decay: 0.998,
            validate_every: 500,
            checkpoint_every: 250,
            keep_last: 2,
            export_f16: true,
        }
    }
}

/// Returns `usual`, overridden by the settings in a TOML text, also within tables.
///
/// # Errors
/// [`PretrainError::Config`] if the text is not TOML or names an unknown setting.
pub(super) fn settings_over<S: Serialize + DeserializeOwned>(usual: &S, text: &str) -> Result<S, PretrainError> {
    let wrong = |error: &dyn std::fmt::Display| PretrainError::Config(error.to_string());
    let mut settings = toml::Table::try_from(usual).map_err(|error| wrong(&error))?;
    put_over(&mut settings, text.parse().map_err(|error: toml::de::Error| wrong(&error))?);
    settings.try_into().map_err(|error| wrong(&error))
}

/// Settings as TOML, for [`Task::settings`].
///
/// # Errors
/// [`PretrainError::Config`].
pub(super) fn settings_text<S: Serialize>(settings: &S) -> Result<String, PretrainError> {
    toml::to_string(settings).map_err(|error| PretrainError::Config(error.to_string()))
}

/// A model's configuration as JSON, for [`Task::model_config`].
///
/// # Errors
/// [`PretrainError::Config`].
pub(super) fn config_text<C: Serialize>(config: &C) -> Result<String, PretrainError> {
    let json = serde_json::to_string_pretty(config).map_err(|error| PretrainError::Config(error.to_string()))?;
    Ok(json + "\n")
}

fn put_over(usual: &mut toml::Table, given: toml::Table) {
    for (name, value) in given {
        match (usual.get_mut(&name), value) {
            (Some(toml::Value::Table(usual)), toml::Value::Table(given)) => put_over(usual, given),
            (_, value) => drop(usual.insert(name, value)),
        }
    }
}

impl LoopSettings {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// [`PretrainError::Setting`] for the first bad setting.
    pub fn validate(&self) -> Result<(), PretrainError> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let share = |x: f64| (0.0..1.0).contains(&x);
        check_setting("steps", self.steps > 0, &self.steps, "at least 1")?;
        check_setting("learning_rate", positive(self.learning_rate), &self.learning_rate, "above 0")?;
        check_setting("final_rate", share(self.final_rate), &self.final_rate, "from 0 to below 1")?;
        check_setting("weight_decay", share(self.weight_decay), &self.weight_decay, "from 0 to below 1")?;
        check_setting("beta2", share(self.beta2), &self.beta2, "from 0 to below 1")?;
        check_setting("clip_norm", self.clip_norm >= 0.0, &self.clip_norm, "at least 0")?;
        check_setting("average_decay", share(self.average_decay), &self.average_decay, "from 0 to below 1")?;
        check_setting("validate_every", self.validate_every > 0, &self.validate_every, "at least 1")?;
        check_setting("checkpoint_every", self.checkpoint_every > 0, &self.checkpoint_every, "at least 1")
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            base_rate: self.learning_rate,
            factors: [1.0; 3],
            warmup: self.warmup.min(self.steps),
            total: self.steps,
            start_factor: 1e-3,
            final_rate: self.final_rate * self.learning_rate,
        }
    }
}

/// Loss of a step.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Value to minimise, `[1]`, on the parameters' device.
    pub total: Tensor<1>,
    /// Parts of the loss, and other values for the log.
    pub parts: BTreeMap<String, f64>,
}

/// Inputs of a step.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// The weights.
    pub parameters: &'a mut Parameters,
    /// Moving average of the weights, by key and flat, on the plain device. A task that teaches itself can
    /// use it.
    pub average: &'a BTreeMap<String, Tensor<1>>,
    /// Number of the step, from 0.
    pub step: u64,
    /// Number of steps of the run.
    pub num_steps: u64,
    /// Seed of the run; see [`random`](Self::random).
    pub seed: u64,
}

impl StepContext<'_> {
    /// Returns this step's random numbers for one purpose, which `path` numbers.
    #[must_use]
    pub fn random(&self, path: &[u64]) -> SplitMix64 {
        let path: Vec<u64> = [self.step].iter().chain(path).copied().collect();
        SplitMix64::stream(self.seed, &path)
    }
}

/// Factors on the run's learning rate and weight decay, for one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// Factor on the learning rate.
    pub learning_rate: f64,
    /// Factor on the weight decay.
    pub weight_decay: f64,
}

/// A model to train.
pub trait Task {
    /// Returns the name of the task, for checkpoints.
    fn name(&self) -> &'static str;

    /// Returns all settings as TOML, for checkpoints and the folder.
    ///
    /// # Errors
    /// [`PretrainError::Config`].
    fn settings(&self) -> Result<String, PretrainError>;

    /// Returns the model's configuration as JSON. It is exported with the weights.
    ///
    /// # Errors
    /// [`PretrainError::Config`].
    fn model_config(&self) -> Result<String, PretrainError>;

    /// Returns the weights before the first step.
    ///
    /// # Errors
    /// [`PretrainError`].
    fn initial(&self, seed: u64) -> Result<StateDict, PretrainError>;

    /// Returns the loss of a step. It may depend only on `context` and on [`state`](Self::state).
    ///
    /// # Errors
    /// [`PretrainError`].
    fn loss(&mut self, context: StepContext<'_>) -> Result<Loss, PretrainError>;

    /// Returns the factors for the parameter `key` of `shape`. By default, parameters with at most one axis
    /// have no decay.
    fn factors(&self, _key: &str, shape: &[usize]) -> Factors {
        Factors { learning_rate: 1.0, weight_decay: if shape.len() > 1 { 1.0 } else { 0.0 } }
    }

    /// Updates the task's own state after a step.
    ///
    /// # Errors
    /// [`PretrainError`].
    fn stepped(&mut self, _parameters: &Parameters) -> Result<(), PretrainError> {
        Ok(())
    }

    /// Returns the task's own state from step to step, for checkpoints.
    ///
    /// # Errors
    /// [`PretrainError`].
    fn state(&self) -> Result<BTreeMap<String, HostTensor>, PretrainError> {
        Ok(BTreeMap::new())
    }

    /// Restores the state that [`state`](Self::state) returned.
    ///
    /// # Errors
    /// [`PretrainError`].
    fn restore(&mut self, _state: BTreeMap<String, HostTensor>) -> Result<(), PretrainError> {
        Ok(())
    }

    /// Measures the averaged `weights`. Returns the figures by name; pictures go to `folder`.
    ///
    /// # Errors
    /// [`PretrainError`].
    fn validate(
        &mut self,
        weights: StateDict,
        step: u64,
        folder: &Path,
    ) -> Result<BTreeMap<String, f64>, PretrainError>;

    /// Returns the name of the validation figure that is drawn beside the loss.
    fn main_figure(&self) -> &'static str;
}

/// Options of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Continue from the last checkpoint.
    pub resume: bool,
    /// Name of the device, for checkpoints.
    pub device_name: String,
    /// Stop after this step as if killed, with checkpoints as usual. For tests.
    pub stop_after: Option<u64>,
}

/// Event during a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// Note for the user.
    Note(String),
    /// A step is done.
    Step {
        /// Number of steps done.
        step: u64,
        /// Number of steps of the whole run.
        num_steps: u64,
        /// The step's entry in the log.
        report: &'a StepReport,
        /// Seconds left, at the recent pace.
        remaining: f64,
    },
    /// The averaged weights were validated.
    Validation {
        /// Number of steps done.
        step: u64,
        /// Figures by name.
        figures: &'a BTreeMap<String, f64>,
        /// Duration in seconds.
        seconds: f64,
    },
}

/// Entry of the log for one step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The loss.
    pub loss: f64,
    /// Parts of the loss.
    #[serde(flatten)]
    pub parts: BTreeMap<String, f64>,
    /// Learning rate.
    pub learning_rate: f64,
    /// Norm of the gradient before it was shortened.
    pub gradient_norm: f64,
    /// Seconds for the loss.
    pub forward_seconds: f64,
    /// Seconds for the gradient.
    pub backward_seconds: f64,
    /// Seconds for the whole step.
    pub seconds: f64,
}

/// Result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// File of the exported weights.
    pub model: PathBuf,
    /// Number of steps done.
    pub steps: u64,
    /// Loss of the first step and mean loss of the last tenth.
    pub losses: [f64; 2],
    /// Figures of the last validation.
    pub figures: BTreeMap<String, f64>,
}

/// Metadata of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    task: String,
    steps: u64,
    optimizer_steps: u64,
    skipped: u64,
    settings: String,
    device: String,
}

/// Trains `task` with `settings` in `folder`.
///
/// # Errors
/// [`PretrainError`]. Checkpoints stay, so a failed run can be resumed.
pub fn train(
    folder: &Path,
    task: &mut dyn Task,
    settings: &LoopSettings,
    options: &RunOptions,
    device: &Device,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Trained, PretrainError> {
    settings.validate()?;
    let run_folder = RunFolder::open(folder)?;
    let device = if device.is_autodiff() { device.clone() } else { device.clone().autodiff() };
    let wrong = |message: &str| RunError::Run { path: folder.to_path_buf(), message: message.to_owned() };
    let last = checkpoint::list(folder, checkpoint::STEPS)?.pop();
    let mut run = match last {
        Some(_) if !options.resume => {
            return Err(
                wrong("the folder has a run already: continue it with --resume, or choose another folder").into()
            );
        }
        Some((_, path)) => Run::take_up(&run_folder, task, settings, options, &device, &path, on_event)?,
        None if folder.join(MODEL_FILE).exists() => {
            return Err(wrong("the folder has model.safetensors, but no checkpoint: choose another folder").into());
        }
        None => {
            if options.resume {
                on_event(Event::Note("there is no checkpoint yet: training starts from the beginning".to_owned()));
            }
            Run::start(&run_folder, task, settings, options, &device)?
        }
    };
    run.train(on_event)
}

struct Run<'a> {
    folder: &'a RunFolder,
    task: &'a mut dyn Task,
    settings: &'a LoopSettings,
    options: &'a RunOptions,
    schedule: Schedule,
    parameters: Parameters,
    average: BTreeMap<String, Tensor<1>>,
    optimizer: AdamW,
    factors: BTreeMap<String, Factors>,
    log: MetricsLog,
    step: u64,
    skipped: u64,
    figures: BTreeMap<String, f64>,
}

fn adamw(settings: &LoopSettings) -> AdamWConfig {
    AdamWConfig { beta2: settings.beta2, weight_decay: settings.weight_decay, ..AdamWConfig::default() }
}

impl<'a> Run<'a> {
    fn start(
        folder: &'a RunFolder,
        task: &'a mut dyn Task,
        settings: &'a LoopSettings,
        options: &'a RunOptions,
        device: &Device,
    ) -> Result<Self, PretrainError> {
        let parameters = Parameters::new(task.initial(settings.seed)?, device);
        let average = parameters.values().map(|(key, values)| (key.to_owned(), values)).collect();
        folder.write(SETTINGS_FILE, task.settings()?.as_bytes())?;
        let log = MetricsLog::create(&folder.file(METRICS_FILE))?;
        Ok(Self {
            factors: factors(task, &parameters),
            schedule: settings.schedule(),
            optimizer: AdamW::new(adamw(settings)),
            step: 0,
            skipped: 0,
            figures: BTreeMap::new(),
            folder,
            task,
            settings,
            options,
            parameters,
            average,
            log,
        })
    }

    fn take_up(
        folder: &'a RunFolder,
        task: &'a mut dyn Task,
        settings: &'a LoopSettings,
        options: &'a RunOptions,
        device: &Device,
        path: &Path,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self, PretrainError> {
        let found: About = checkpoint::about(path)?;
        let wrong = |message: String| RunError::Run { path: path.to_path_buf(), message };
        if found.task != task.name() {
            return Err(wrong(format!("the run trains {}, not {}", found.task, task.name())).into());
        }
        let asked = task.settings()?;
        if found.settings != asked {
            on_event(Event::Note(
                "the settings differ from those of the run so far: it continues with the new ones".to_owned(),
            ));
            folder.write(SETTINGS_FILE, asked.as_bytes())?;
        }
        if found.device != options.device_name {
            let (before, now) = (&found.device, &options.device_name);
            on_event(Event::Note(format!("the run was on {before} and continues on {now}: rounding differs")));
        }
        let state = WeightsFile::open(path)?.state_dict()?;
        let mut parts: BTreeMap<String, BTreeMap<String, HostTensor>> = BTreeMap::new();
        for (key, tensor) in state.tensors {
            if let Some((part, key)) = key.split_once('/') {
                parts.entry(part.to_owned()).or_default().insert(key.to_owned(), tensor);
            }
        }
        let mut part = |name: &str| parts.remove(name).unwrap_or_default();
        let initial = task.initial(settings.seed)?;
        let tensors = part(PARAMETERS);
        let same = initial.tensors.len() == tensors.len()
            && initial.tensors.iter().all(|(key, t)| tensors.get(key).is_some_and(|found| found.shape == t.shape));
        if !same {
            return Err(wrong("its weights belong to another model configuration".to_owned()).into());
        }
        let parameters = Parameters::new(StateDict { tensors, ..initial }, device);
        let plain = device.clone().without_autodiff();
        let average = part(AVERAGE).into_iter().map(|(key, tensor)| {
            let len = tensor.data.len();
            (key, float_tensor(tensor.data, [len], &plain))
        });
        let average = average.collect();
        let mut exp_avg_sq = part(EXP_AVG_SQ);
        let moments = part(EXP_AVG).into_iter().map(|(key, tensor)| {
            let exp_avg_sq = exp_avg_sq.remove(&key).map(|tensor| tensor.data).unwrap_or_default();
            (key, HostMoments { exp_avg: tensor.data, exp_avg_sq })
        });
        let state = AdamWState { num_steps: found.optimizer_steps, moments: moments.collect() };
        task.restore(part(TASK))?;
        on_event(Event::Note(format!("continuing after step {} of {}", found.steps, settings.steps)));
        Ok(Self {
            factors: factors(task, &parameters),
            schedule: settings.schedule(),
            optimizer: AdamW::resume(adamw(settings), state, device)?,
            step: found.steps,
            skipped: found.skipped,
            figures: BTreeMap::new(),
            log: MetricsLog::resume(&folder.file(METRICS_FILE), found.steps)?,
            folder,
            task,
            settings,
            options,
            parameters,
            average,
        })
    }

    fn train(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Trained, PretrainError> {
        if self.step == 0 {
            // A broken validation should show before hours of training, not after.
            self.validate(on_event)?;
        }
        let mut pace: VecDeque<f64> = VecDeque::with_capacity(PACE_STEPS);
        while self.step < self.settings.steps {
            let report = self.one_step()?;
            self.log.write(self.step, &report)?;
            if pace.len() == PACE_STEPS {
                pace.pop_front();
            }
            pace.push_back(report.seconds);
            let num_steps = self.settings.steps;
            let mean = pace.iter().sum::<f64>() / pace.len() as f64;
            let remaining = mean * (num_steps - self.step) as f64;
            on_event(Event::Step { step: self.step, num_steps, report: &report, remaining });
            let is_last = self.step == num_steps;
            if is_last || self.step.is_multiple_of(self.settings.validate_every) {
                self.validate(on_event)?;
            }
            if is_last || self.step.is_multiple_of(self.settings.checkpoint_every) {
                self.save()?;
            }
            if self.options.stop_after == Some(self.step) {
                break;
            }
        }
        let losses = read_series(&self.folder.file(METRICS_FILE), "loss")?;
        let last = &losses[losses.len() - losses.len().div_ceil(10)..];
        let mean = last.iter().map(|(_, loss)| loss).sum::<f64>() / last.len().max(1) as f64;
        Ok(Trained {
            model: self.folder.file(MODEL_FILE),
            steps: self.step,
            losses: [losses.first().map_or(f64::NAN, |(_, loss)| *loss), mean],
            figures: self.figures.clone(),
        })
    }

    fn one_step(&mut self) -> Result<StepReport, PretrainError> {
        let start = Instant::now();
        let context = StepContext {
            parameters: &mut self.parameters,
            average: &self.average,
            step: self.step,
            num_steps: self.settings.steps,
            seed: self.settings.seed,
        };
        let Loss { total, parts } = self.task.loss(context)?;
        let loss = f64::from(float_values(total.clone().inner())?.first().copied().unwrap_or(f32::NAN));
        let forward_seconds = start.elapsed().as_secs_f64();
        let mut gradients = total.backward();
        let mut gradients = self.parameters.gradients(&mut gradients);
        let norm = global_norm(&gradients)?;
        let backward_seconds = start.elapsed().as_secs_f64() - forward_seconds;
        let learning_rate = self.schedule.rate(self.step, Group::Middle);
        if norm.is_finite() && loss.is_finite() {
            self.skipped = 0;
            let clip = self.settings.clip_norm;
            if clip > 0.0 && norm > clip {
                let factor = clip / norm;
                gradients = gradients.into_iter().map(|(key, gradient)| (key, gradient * factor)).collect();
            }
            let (factors, weight_decay) = (&self.factors, self.settings.weight_decay);
            self.parameters.step(gradients, &mut self.optimizer, |key| {
                let factor = factors.get(key).copied();
                let Factors { learning_rate: rate, weight_decay: decay } =
                    factor.unwrap_or(Factors { learning_rate: 1.0, weight_decay: 1.0 });
                Rate { learning_rate: learning_rate * rate, weight_decay: weight_decay * decay }
            })?;
            self.follow();
            self.task.stepped(&self.parameters)?;
        } else {
            self.skipped += 1;
            if self.skipped > MOST_SKIPPED {
                return Err(PretrainError::Diverged { step: self.step, before: self.skipped - 1 });
            }
        }
        self.step += 1;
        let seconds = start.elapsed().as_secs_f64();
        Ok(StepReport { loss, parts, learning_rate, gradient_norm: norm, forward_seconds, backward_seconds, seconds })
    }

    /// Moves the average towards the weights.
    fn follow(&mut self) {
        // In the beginning it is the mean over all steps, so that the start is soon forgotten.
        let decay = self.settings.average_decay.min((1.0 + self.step as f64) / (10.0 + self.step as f64));
        for (key, values) in self.parameters.values() {
            if let Some(average) = self.average.get_mut(key) {
                let before = std::mem::replace(average, values.clone());
                *average = before.mul_scalar(decay) + values.mul_scalar(1.0 - decay);
            }
        }
    }

    fn validate(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<(), PretrainError> {
        let start = Instant::now();
        let figures = self.task.validate(self.averaged()?, self.step, self.folder.path())?;
        self.log.write(self.step, &figures)?;
        on_event(Event::Validation { step: self.step, figures: &figures, seconds: start.elapsed().as_secs_f64() });
        self.figures = figures;
        Ok(())
    }

    /// Returns the averaged weights in the checkpoint's layout.
    fn averaged(&self) -> Result<StateDict, PretrainError> {
        let mut tensors = BTreeMap::new();
        for (key, shape) in self.parameters.shapes() {
            if let Some(average) = self.average.get(key) {
                let data = float_values(average.clone())?;
                tensors.insert(key.to_owned(), HostTensor { shape: shape.to_vec(), dtype_in_file: Dtype::F32, data });
            }
        }
        Ok(StateDict { source: self.folder.file(MODEL_FILE), tensors, ..StateDict::default() })
    }

    /// Writes a checkpoint, then the exported files.
    fn save(&mut self) -> Result<(), PretrainError> {
        let averaged = self.averaged()?;
        let AdamWState { num_steps, moments } = self.optimizer.state()?;
        let mut tensors = BTreeMap::new();
        let mut put = |part: &str, key: &str, shape: Vec<usize>, data: Vec<f32>| {
            tensors.insert(format!("{part}/{key}"), HostTensor { shape, dtype_in_file: Dtype::F32, data });
        };
        for (key, tensor) in self.parameters.state_dict()?.tensors {
            put(PARAMETERS, &key, tensor.shape, tensor.data);
        }
        for (key, tensor) in &averaged.tensors {
            put(AVERAGE, key, tensor.shape.clone(), tensor.data.clone());
        }
        for (key, HostMoments { exp_avg, exp_avg_sq }) in moments {
            put(EXP_AVG, &key, vec![exp_avg.len()], exp_avg);
            put(EXP_AVG_SQ, &key, vec![exp_avg_sq.len()], exp_avg_sq);
        }
        for (key, tensor) in self.task.state()? {
            put(TASK, &key, tensor.shape, tensor.data);
        }
        let about = About {
            task: self.task.name().to_owned(),
            steps: self.step,
            optimizer_steps: num_steps,
            skipped: self.skipped,
            settings: self.task.settings()?,
            device: self.options.device_name.clone(),
        };
        let path =
            checkpoint::path(self.folder.path(), checkpoint::STEPS, usize::try_from(self.step).unwrap_or(usize::MAX));
        let metadata = checkpoint::metadata(&path, &about)?;
        write_state_dict(&path, &StateDict { tensors, ..StateDict::default() }, &metadata)?;
        checkpoint::prune(self.folder.path(), checkpoint::STEPS, self.settings.keep_last.max(1))?;
        export(&self.folder.file(MODEL_FILE), &averaged, self.settings.export_f16)?;
        self.folder.write(CONFIG_FILE, self.task.model_config()?.as_bytes())?;
        let figure = self.task.main_figure();
        Ok(self.folder.draw_curve(figure, figure)?)
    }
}

/// Parts of a checkpoint. Keys begin with the part and a slash.
const PARAMETERS: &str = "parameters";
const AVERAGE: &str = "average";
const EXP_AVG: &str = "exp_avg";
const EXP_AVG_SQ: &str = "exp_avg_sq";
const TASK: &str = "task";

fn factors(task: &dyn Task, parameters: &Parameters) -> BTreeMap<String, Factors> {
    parameters.shapes().map(|(key, shape)| (key.to_owned(), task.factors(key, shape))).collect()
}

/// Returns the norm of all gradients together. Each gradient is summed on the device, then the sums are added
/// in f64 in the order of the keys.
fn global_norm(gradients: &BTreeMap<String, Tensor<1>>) -> Result<f64, OpError> {
    let squares: Vec<Tensor<1>> = gradients.values().map(|gradient| gradient.clone().powi_scalar(2).sum()).collect();
    if squares.is_empty() {
        return Ok(0.0);
    }
    Ok(float_values(Tensor::cat(squares, 0))?.into_iter().map(f64::from).sum::<f64>().sqrt())
}

/// Writes weights under their keys, as a sealed file.
fn export(path: &Path, state: &StateDict, as_f16: bool) -> Result<(), PretrainError> {
    let dtype = if as_f16 { Dtype::F16 } else { Dtype::F32 };
    let specs = state.tensors.iter().map(|(name, tensor)| TensorSpec::new(name, dtype, tensor.shape.clone()));
    let specs: Vec<TensorSpec> = specs.collect();
    let mut writer = SafetensorsWriter::create_sealed(path, &specs, &BTreeMap::new())?;
    for tensor in state.tensors.values() {
        writer.write_f32(&tensor.data)?;
    }
    Ok(writer.finish()?)
}
