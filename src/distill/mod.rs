//! Training the student: it learns the similarities of a frozen teacher by contrast, without labels.
//!
//! Pairs come from the teacher's features ([`sampling`]), the loss is InfoNCE, the optimizer AdamW with warm-up and cosine
//! decay. A [`Trainer`] runs epochs over [`TrainingScene`]s; everything random comes from the seed and the number of the
//! step, so that a run that is resumed from a checkpoint goes on as if it had never stopped.

mod about;
pub mod affinity_precision;
mod config;
mod error;
pub mod kmeans;
mod preparation;
mod preparer;
mod run;
pub mod sampling;
mod scene;
mod scene_file;
pub mod select;
mod trainer;
mod validation;

pub use config::{Config, Positives, Preset, Samples, Shown, UnknownPreset};
pub use error::DistillError;
pub use preparation::{Teachers, TrainingOptions, training_scene};
pub use preparer::{PrepareSettings, Preparer, fingerprint};
pub use run::{CONFIG_FILE, Event, RunOptions, STUDENT_FILE, Trained, read_config, read_scenes, train};
pub use scene::TrainingScene;
pub use scene_file::{SceneFile, Scenes};
pub use trainer::{StepReport, Trainer};
pub use validation::Precision;
