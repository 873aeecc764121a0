//! The steps: trainings and evaluations, each in a folder of its own. A finished step is not repeated.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::data::Scenes;
use super::error::ReproduceError;
use super::missing::{Given, pinned};
use super::table::{DataSet, Learner, Step, Training, Way};
use crate::ablation::Negatives;
use crate::distill::{self, PrepareSettings, PreparedScenes, Preparer, STUDENT_FILE, fingerprint, prepare_scenes};
use crate::eval::evaluation::{Evaluation, EvaluationSettings};
use crate::eval::report::Counts;
use crate::eval::run::{Evaluated, SceneEvent};
use crate::files::write_atomic;
use crate::gpu::DeviceSelection;
use crate::labels::LabelIds;
use crate::pretrain::openscene::{LiftedSettings, LiftedTask};
use crate::pretrain::run::{self as loops, CONFIG_FILE, MODEL_FILE};
use crate::session::{
    AffinityKind, ImageModelKind, LabelOptions, Method, NetworkChoice, Networks, Session, Source, ViewSettings,
};
use crate::stages::{Progress, StageTimer};
use crate::weights::{bytes_sha256, file_sha256};

const TRAININGS_FOLDER: &str = "trainings";
const EVALUATIONS_FOLDER: &str = "evaluations";
/// File that says that a step is finished, and from what.
const DONE_FILE: &str = "done.json";
/// Version of the files of finished steps.
const FORMAT: u32 = 1;

/// What all steps share.
pub(super) struct Work<'a> {
    pub folder: &'a Path,
    /// Both data sets, if they are there.
    pub scenes: [Option<&'a Scenes>; 2],
    pub given: &'a Given,
    pub config: &'a distill::Config,
    pub network: &'a LiftedSettings,
    pub views: &'a ViewSettings,
    pub max_memory: u64,
    pub cache: &'a Path,
    pub device: DeviceSelection,
    /// Key of the settings that all steps depend on.
    pub key: &'a str,
    /// Fingerprints of scenes, by their places: recordings are large.
    pub fingerprints: RefCell<BTreeMap<PathBuf, Json>>,
}

/// Tells how far a step is.
pub(super) struct Told<'a> {
    pub progress: &'a mut Progress<'a>,
    pub say: &'a mut dyn FnMut(&str),
}

/// Trained weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trained {
    key: String,
    /// SHA-256 of the weights.
    sha256: String,
    /// Names of the scenes that they were learned from.
    scenes: Vec<String>,
}

/// Result of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Measured {
    key: String,
    /// Points after purification, if there was any.
    pub counts: Counts,
    pub num_scenes: usize,
    /// Names of the scenes that the student or the 3D network learned from here.
    pub trained_on: Vec<String>,
    /// Scenes without a view.
    pub skipped: Vec<String>,
    /// Scenes that failed. With any of these, the step is not finished.
    pub failed: Vec<String>,
}

/// Reads the file of a finished step, if it is whole.
fn read<T: DeserializeOwned>(folder: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(folder.join(DONE_FILE)).ok()?).ok()
}

fn write<T: Serialize>(folder: &Path, done: &T) -> Result<(), ReproduceError> {
    let path = folder.join(DONE_FILE);
    let written = write_atomic(&path, |out| {
        serde_json::to_writer(&mut *out, done)?;
        out.write_all(b"\n")
    });
    written.map_err(|source| ReproduceError::io(&path, source))
}

impl Work<'_> {
    fn of(&self, data: DataSet) -> Result<&Scenes, ReproduceError> {
        let missing = || ReproduceError::Settings(format!("{data} is not given"));
        self.scenes[data as usize].ok_or_else(missing)
    }

    fn training_folder(&self, training: Training) -> PathBuf {
        self.folder.join(TRAININGS_FOLDER).join(training.to_string())
    }

    fn evaluation_folder(&self, step: Step) -> PathBuf {
        self.folder.join(EVALUATIONS_FOLDER).join(step.to_string())
    }

    /// Key of a training: of the settings and of the scenes that it learns from.
    fn training_key(&self, training: Training, sources: &[Source]) -> Result<String, ReproduceError> {
        let mut fingerprints = self.fingerprints.borrow_mut();
        let mut files = Vec::new();
        for source in sources {
            let place = source.path().to_path_buf();
            files.push(match fingerprints.get(&place) {
                Some(known) => known.clone(),
                None => fingerprints.entry(place).or_insert(fingerprint(source)?).clone(),
            });
        }
        let key = json!({ "format": FORMAT, "settings": self.key, "step": training.to_string(), "files": files });
        Ok(bytes_sha256(key.to_string().as_bytes()))
    }

    /// Key of an evaluation. A scene counts by its name and the lengths of its files.
    fn evaluation_key(&self, step: Step, weights: Option<&str>) -> Result<String, ReproduceError> {
        let scenes = self.of(step.data)?;
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let files: Vec<_> = scenes
            .measured
            .iter()
            .map(|scene| json!([scene.name, length(&scene.scan), length(&scene.labels)]))
            .collect();
        let key = json!({
            "format": FORMAT, "settings": self.key, "step": step.to_string(), "preset": scenes.preset.name,
            "weights": weights, "files": files,
        });
        Ok(bytes_sha256(key.to_string().as_bytes()))
    }

    /// The training, if it is finished.
    fn trained(&self, training: Training) -> Result<Option<Trained>, ReproduceError> {
        let folder = self.training_folder(training);
        let Some(done) = read::<Trained>(&folder) else { return Ok(None) };
        let sources = self.of(training.data)?.to_learn_from(training.scenes);
        let weights = folder.join(weights_file(training.learner));
        let is_same = done.key == self.training_key(training, &sources)? && weights.is_file();
        Ok((is_same && file_sha256(&weights)? == done.sha256).then_some(done))
    }

    /// True if the training is finished.
    pub(super) fn is_trained(&self, training: Training) -> Result<bool, ReproduceError> {
        Ok(self.trained(training)?.is_some())
    }

    /// The result of the evaluation, if it is finished.
    pub(super) fn measured(&self, step: Step) -> Result<Option<Measured>, ReproduceError> {
        let trained = match step.way.training() {
            Some(training) => match self.trained(training)? {
                Some(trained) => Some(trained),
                None => return Ok(None),
            },
            None => None,
        };
        let key = self.evaluation_key(step, trained.as_ref().map(|trained| trained.sha256.as_str()))?;
        Ok(read::<Measured>(&self.evaluation_folder(step)).filter(|done| done.key == key))
    }

    /// Trains, or continues a training that was stopped.
    pub(super) fn train(&self, training: Training, told: &mut Told<'_>) -> Result<(), ReproduceError> {
        let folder = self.training_folder(training);
        let scenes = self.of(training.data)?;
        let sources = scenes.to_learn_from(training.scenes);
        let key = self.training_key(training, &sources)?;
        std::fs::create_dir_all(&folder).map_err(|source| ReproduceError::io(&folder, source))?;
        let image_model = match training.learner {
            Learner::Student(_, image_model) => image_model,
            Learner::Network => ImageModelKind::XDecoder,
        };
        let networks = pinned(&self.given.networks, image_model);
        let prepare = PrepareSettings {
            views: self.views.clone(),
            image_model,
            networks: networks.clone(),
            words: scenes.preset.words(),
            cache: self.cache.to_path_buf(),
        };
        let session = Session::with(self.device, networks)?;
        let selected = session.device();
        let prepared = {
            let mut preparer = Preparer::new(&prepare, self.config, selected, &mut *told.say)?;
            let mut first = None;
            let mut on_failed = |source: &Source, error| {
                first.get_or_insert_with(|| ReproduceError::Scene { scene: source.name(), source: Box::new(error) });
            };
            let found = prepare_scenes(&mut preparer, [&sources, &[]], &mut *told.progress, &mut on_failed)?;
            match (first, found) {
                (Some(error), _) => return Err(error),
                (None, PreparedScenes { scenes, failed }) if failed.is_empty() => scenes,
                (None, PreparedScenes { failed, .. }) => {
                    return Err(ReproduceError::Settings(format!("{} cannot be prepared", failed.join(", "))));
                }
            }
        };
        let names = prepared.training.iter().map(|scene| scene.name.clone()).collect();
        match training.learner {
            Learner::Student(negatives, _) => {
                let micro_negatives = if negatives == Negatives::Macro { 0 } else { self.config.micro_negatives };
                let config = distill::Config { micro_negatives, ..self.config.clone() };
                let options = distill::RunOptions {
                    resume: true,
                    keep_last: Some(1),
                    validate_every: Some(config.epochs),
                    max_memory: self.max_memory,
                    keep_max_memory: false,
                    device_name: selected.name.clone(),
                };
                distill::train(&folder, &config, &prepared, &options, &selected.device, &mut |event| {
                    if let distill::Event::Step { report, num_steps, .. } = event {
                        (told.progress)("train", report.step as f64 / num_steps as f64);
                    }
                })?;
            }
            Learner::Network => {
                let options =
                    loops::RunOptions { resume: true, device_name: selected.name.clone(), ..Default::default() };
                let text = image_model.text_space();
                let mut task = LiftedTask::new(self.network.clone(), prepared, text, &selected.device)?;
                let settings = &self.network.training;
                loops::train(&folder, &mut task, settings, &options, &selected.device, &mut |event| {
                    if let loops::Event::Step { step, num_steps, .. } = event {
                        (told.progress)("train", step as f64 / num_steps as f64);
                    }
                })?;
            }
        }
        let sha256 = file_sha256(&folder.join(weights_file(training.learner)))?;
        write(&folder, &Trained { key, sha256, scenes: names })
    }

    /// Evaluates, or continues an evaluation that was stopped. Its training must be finished.
    pub(super) fn evaluate(&self, step: Step, told: &mut Told<'_>) -> Result<Measured, ReproduceError> {
        let folder = self.evaluation_folder(step);
        let scenes = self.of(step.data)?;
        let trained = match step.way.training() {
            Some(training) => {
                let untrained = || ReproduceError::Settings(format!("{training} is not trained"));
                Some(self.trained(training)?.ok_or_else(untrained)?)
            }
            None => None,
        };
        let key = self.evaluation_key(step, trained.as_ref().map(|trained| trained.sha256.as_str()))?;
        let (options, networks) = self.labelling(step);
        let settings = EvaluationSettings {
            folder: scenes.root.clone(),
            output: folder.clone(),
            preset: scenes.preset,
            label_ids: LabelIds::Auto,
            field: None,
            ignore: Vec::new(),
            novel: None,
            parts_as_instances: false,
        };
        std::fs::create_dir_all(&folder).map_err(|source| ReproduceError::io(&folder, source))?;
        let evaluation = Evaluation::new(settings, &options)?;
        let _alone = evaluation.lock()?;
        let session = Session::with(self.device, networks)?;
        let labeller = {
            let mut progress = |stage, share| (told.progress)(stage, share);
            let mut timer = StageTimer::with_progress(&mut progress);
            session.labeller(evaluation.words().clone(), options, &mut timer)?
        };
        let num_scenes = scenes.measured.len();
        let Evaluated { report, .. } =
            evaluation.run(&scenes.measured, &labeller, &|error| error.to_string(), &mut |event| match event {
                SceneEvent::Note(note) => log::info!("{note}"),
                SceneEvent::Done { number, result, is_new } => {
                    let took = if is_new { format!("{:.1} s", result.seconds) } else { "done before".to_owned() };
                    (told.say)(&format!("{step}: {number}/{num_scenes} {}: {took}", result.scene));
                }
                SceneEvent::Skipped { number, skipped } => {
                    (told.say)(&format!(
                        "{step}: {number}/{num_scenes} {}: left out: {}",
                        skipped.scene, skipped.reason
                    ));
                }
                SceneEvent::Failed(failure) => {
                    (told.say)(&format!("error: {step}: {}: {}", failure.scene, failure.error));
                }
            })?;
        let measured = Measured {
            key,
            counts: report.purified.confusion,
            num_scenes: report.num_scenes,
            trained_on: trained.map(|trained| trained.scenes).unwrap_or_default(),
            skipped: report.skipped.into_iter().map(|skipped| skipped.scene).collect(),
            failed: report.failed.into_iter().map(|failed| failed.scene).collect(),
        };
        if measured.failed.is_empty() {
            write(&folder, &measured)?;
        }
        Ok(measured)
    }

    /// Options and weights by which scenes are labelled.
    fn labelling(&self, Step { data, way }: Step) -> (LabelOptions, Networks) {
        let usual =
            LabelOptions { method: Some(Method::GeoPurify), views: self.views.clone(), ..LabelOptions::default() };
        let lifted = |image_model| LabelOptions {
            image_model,
            affinities: Some(AffinityKind::Uniform),
            iterations: Some(0),
            ..usual.clone()
        };
        // T is counted as in the paper.
        let purified = |image_model, iterations: usize| LabelOptions {
            image_model,
            iterations: Some(iterations + 1),
            ..usual.clone()
        };
        let of_trained = |training: Training| self.training_folder(training).join(weights_file(training.learner));
        let network = |choice: NetworkChoice| {
            let networks = pinned(&self.given.networks, ImageModelKind::XDecoder);
            let options = LabelOptions { method: Some(Method::OpenScene), ..lifted(ImageModelKind::XDecoder) };
            (options, Networks { openscene: choice, ..networks })
        };
        match way {
            Way::Lifted(image_model) => (lifted(image_model), pinned(&self.given.networks, image_model)),
            Way::Student(training, iterations) => {
                let image_model = match training.learner {
                    Learner::Student(_, image_model) => image_model,
                    Learner::Network => ImageModelKind::XDecoder,
                };
                let student = NetworkChoice { weights: Some(of_trained(training)), config: None };
                let networks = Networks { student, ..pinned(&self.given.networks, image_model) };
                (purified(image_model, iterations), networks)
            }
            Way::GivenStudent(iterations) => {
                (purified(ImageModelKind::XDecoder, iterations), self.given.with_student())
            }
            Way::Network(training) => {
                let config = Some(self.training_folder(training).join(CONFIG_FILE));
                network(NetworkChoice { weights: Some(of_trained(training)), config })
            }
            Way::OpenScene => network(self.given.openscene(data)),
            Way::CuaO3d => network(self.given.cua()),
        }
    }
}

fn weights_file(learner: Learner) -> &'static str {
    match learner {
        Learner::Student(..) => STUDENT_FILE,
        Learner::Network => MODEL_FILE,
    }
}
