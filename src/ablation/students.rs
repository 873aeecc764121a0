//! The students of an ablation and their training.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use super::{Ablation, AblationError, AblationEvent, AblationSettings, LoadedStudent};
use crate::distill::{Config, RunOptions, STUDENT_FILE, SceneFile, Scenes, train};
use crate::models::student::AffinityPredictor;
use crate::random::SplitMix64;
use crate::weights::{WeightsFile, bytes_sha256, file_sha256};

const STUDENTS_FOLDER: &str = "students";
/// Stream of random numbers that chooses a seed's training scenes.
const SCENES: u64 = 0x5363;
/// Share of the steps used for warm-up, like the paper's 2 of 50 epochs.
const WARMUP_SHARE: f64 = 0.04;
/// Number of hash characters in the folder names of runs.
const KEY_LENGTH: usize = 12;

/// Kind of negatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Negatives {
    /// Negatives from the whole scene, and from nearby.
    Hybrid,
    /// Negatives from the whole scene only.
    Macro,
}

/// Trained student.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainedStudent {
    /// Its seed, scenes and negatives.
    #[serde(flatten)]
    pub run: StudentRun,
    /// Number of optimizer steps.
    pub steps: usize,
    /// Names of its training scenes.
    pub trained_on: Vec<String>,
    /// SHA-256 of its weights.
    pub sha256: String,
}

/// One student of an ablation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StudentRun {
    /// Seed of weights, order, anchors and choice of scenes.
    pub seed: u64,
    /// Number of training scenes.
    pub scenes: usize,
    /// Kind of negatives.
    pub negatives: Negatives,
}

impl fmt::Display for StudentRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let negatives = match self.negatives {
            Negatives::Hybrid => "hybrid",
            Negatives::Macro => "macro",
        };
        write!(f, "learned-{}-scenes-{negatives}-seed-{}", self.scenes, self.seed)
    }
}

impl StudentRun {
    /// True for the students that are compared by T and by negatives.
    #[must_use]
    pub fn is_usual(&self, settings: &AblationSettings) -> bool {
        self.negatives == Negatives::Hybrid && self.scenes == settings.most_scenes()
    }

    /// Training settings of this student.
    fn config(&self, settings: &AblationSettings) -> Config {
        let base = &settings.training;
        let (count, steps) = (self.scenes as f64, settings.steps as f64);
        let epochs = ((steps * base.accumulate as f64 / count).round() as usize).max(1);
        let warmup_epochs = ((epochs as f64 * WARMUP_SHARE).round() as usize).min(epochs - 1);
        let micro_negatives = if self.negatives == Negatives::Macro { 0 } else { base.micro_negatives };
        Config { seed: self.seed, epochs, warmup_epochs, micro_negatives, ..base.clone() }
    }
}

impl AblationSettings {
    /// All students, in the order of training.
    #[must_use]
    pub fn runs(&self) -> Vec<StudentRun> {
        let hybrid = self.scenes.iter().map(|&scenes| (scenes, Negatives::Hybrid));
        let kinds: Vec<_> = hybrid.chain([(self.most_scenes(), Negatives::Macro)]).collect();
        let of_seed = |seed| kinds.iter().map(move |&(scenes, negatives)| StudentRun { seed, scenes, negatives });
        (0..self.seeds as u64).flat_map(of_seed).collect()
    }
}

/// Training scenes of `run`: the first of an order that its seed draws from the pool. The pool has the
/// largest number of scenes asked for. So a seed's smaller sets are parts of its larger ones.
fn scenes_of(run: StudentRun, pool: &[SceneFile]) -> Vec<SceneFile> {
    let order = SplitMix64::stream(run.seed, &[SCENES]).permutation(pool.len());
    let mut chosen = order[..run.scenes.min(pool.len())].to_vec();
    chosen.sort_unstable();
    chosen.into_iter().map(|scene| pool[scene].clone()).collect()
}

impl Ablation<'_, '_> {
    /// Trains a student, or loads it if it is trained already.
    pub(super) fn student(&mut self, run: StudentRun, training: &[SceneFile]) -> Result<LoadedStudent, AblationError> {
        let config = run.config(self.settings);
        let pool = &training[..self.settings.most_scenes()];
        let scenes = Scenes { training: scenes_of(run, pool), validation: Vec::new() };
        let folder = self.run_folder(run, &config, &scenes)?;
        let file = folder.join(STUDENT_FILE);
        let start = Instant::now();
        let is_new = !file.is_file();
        if is_new {
            let options = RunOptions {
                resume: true,
                keep_last: Some(1),
                validate_every: Some(config.epochs),
                max_memory: self.settings.max_memory,
                keep_max_memory: false,
                device_name: self.device_name.to_owned(),
            };
            let on_event = &mut self.on_event;
            train(&folder, &config, &scenes, &options, self.device, &mut |event| {
                on_event(&AblationEvent::Training { run, event: &event });
            })?;
        }
        (self.on_event)(&AblationEvent::Trained { run, seconds: is_new.then(|| start.elapsed().as_secs_f64()) });
        let (student, student_config, _) = AffinityPredictor::load(WeightsFile::open(&file)?, self.device)?;
        let about = TrainedStudent {
            run,
            steps: config.epochs * run.scenes.div_ceil(config.accumulate),
            trained_on: scenes.training.into_iter().map(|scene| scene.name).collect(),
            sha256: file_sha256(&file)?,
        };
        Ok(LoadedStudent { run, student: student.fold(), config: student_config, about })
    }

    /// Folder of a student. Everything that would change the student is part of its name.
    fn run_folder(&self, run: StudentRun, config: &Config, scenes: &Scenes) -> Result<PathBuf, AblationError> {
        let keys: Vec<&str> = scenes.training.iter().map(|scene| scene.key.as_str()).collect();
        let key = json!({
            "geopurify": env!("CARGO_PKG_VERSION"), "config": config.to_toml()?, "scenes": keys,
            "max_memory": self.settings.max_memory, "device": self.device_name,
        });
        let key = bytes_sha256(key.to_string().as_bytes());
        let folder = self.folder.join(STUDENTS_FOLDER);
        std::fs::create_dir_all(&folder).map_err(|source| AblationError::Write { path: folder.clone(), source })?;
        Ok(folder.join(format!("{run}-{}", key.get(..KEY_LENGTH).unwrap_or(&key))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purify;

    fn settings() -> AblationSettings {
        AblationSettings {
            seeds: 2,
            scenes: vec![5, 10, 20, 50],
            iterations: vec![1, 18, 36],
            candidates: vec![4],
            kernels: AblationSettings::usual_kernels(),
            sharpness: vec![10.0],
            steps: 100,
            training: Config { hidden_dim: 64, ..Config::of(crate::distill::Recipe::Paper) },
            max_memory: 1 << 29,
            purify: purify::Settings::default(),
        }
    }

    #[test]
    fn every_student_makes_as_many_steps() {
        let settings = settings();
        let runs = settings.runs();
        assert_eq!(runs.len(), 10);
        for run in &runs {
            let config = run.config(&settings);
            config.validate().unwrap();
            assert_eq!((config.epochs * run.scenes, config.seed, config.hidden_dim), (100, run.seed, 64));
            assert_eq!(config.micro_negatives == 0, run.negatives == Negatives::Macro);
        }
        assert_eq!(runs.iter().filter(|run| run.is_usual(&settings)).count(), 2);
        assert_eq!(runs[0].to_string(), "learned-5-scenes-hybrid-seed-0");
    }

    #[test]
    fn few_scenes_are_among_the_many_and_differ_by_seed() {
        let pool: Vec<SceneFile> =
            (0..50).map(|i| SceneFile { name: format!("{i:02}"), path: PathBuf::new(), key: i.to_string() }).collect();
        let names = |seed, scenes| -> Vec<String> {
            let run = StudentRun { seed, scenes, negatives: Negatives::Hybrid };
            scenes_of(run, &pool).into_iter().map(|scene| scene.name).collect()
        };
        let (few, many) = (names(0, 5), names(0, 20));
        assert_eq!((few.len(), many.len(), names(0, 50).len()), (5, 20, 50));
        assert!(few.iter().all(|name| many.contains(name)));
        assert_ne!(few, names(1, 5));
    }

    #[test]
    fn what_cannot_be_studied_is_said() {
        settings().check(50).unwrap();
        let message = settings().check(49).unwrap_err().to_string();
        assert_eq!(message, "50 training scenes were asked for, but there are only 49");
        assert_eq!(AblationSettings::usual_scenes(28), [5, 10, 20]);
        assert_eq!(AblationSettings::usual_scenes(50), [5, 10, 20, 50]);
        assert_eq!(AblationSettings::usual_scenes(2), [2]);
        assert!(AblationSettings { seeds: 0, ..settings() }.check(50).is_err());
        assert!(AblationSettings { scenes: vec![5, 5], ..settings() }.check(50).is_err());
        assert_eq!(settings().all_iterations(), [1, 4, 18, 36]);
        assert_eq!(settings().all_sharpness(), [20.0, 10.0]);
        assert_eq!(settings().usual_iterations(), 18);
        assert_eq!(AblationSettings { iterations: vec![1, 2, 3], ..settings() }.usual_iterations(), 2);
    }
}
