//! Training of the student. It learns the similarities of a frozen teacher by contrast, without labels.
//!
//! Pairs come from the teacher's features ([`sampling`]). The loss is InfoNCE. The optimizer is AdamW with
//! warm-up and cosine decay. A [`Trainer`] runs epochs over [`TrainingScene`]s. All random numbers come from
//! the seed and the step number. So a run resumed from a checkpoint continues as if it had never stopped.

mod about;
pub mod affinity_precision;
mod config;
mod error;
pub mod kmeans;
pub mod label_counts;
mod memory;
mod preparation;
mod prepare_scenes;
mod preparer;
mod run;
pub mod sampling;
mod scene;
mod scene_file;
pub mod select;
mod trainer;
mod validation;

pub use config::{Config, Positives, Recipe, Samples, Shown, UnknownRecipe};
pub use error::DistillError;
pub use memory::usual_memory;
pub use preparation::{Teachers, TrainingOptions, training_scene};
pub use prepare_scenes::{PreparedScenes, cache_folder, prepare_scenes};
pub use preparer::{PrepareSettings, Preparer, fingerprint};
pub use run::{
    CONFIG_FILE, Event, RunOptions, STUDENT_FILE, Trained, check_run_folder, read_config, read_scenes, train,
};
pub use scene::TrainingScene;
pub use scene_file::{SceneFile, Scenes};
pub use trainer::{StepReport, Trainer};
pub use validation::Precision;
