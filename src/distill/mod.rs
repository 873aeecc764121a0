//! Training the student: it learns the similarities of a frozen teacher by contrast, without labels.
//!
//! Pairs come from the teacher's features ([`sampling`]), the loss is InfoNCE, the optimizer AdamW with warm-up and cosine
//! decay. A [`Trainer`] runs epochs over [`TrainingScene`]s; everything random comes from the seed and the number of the
//! step, so that a run that is resumed from a checkpoint goes on as if it had never stopped.

pub(crate) mod checkpoint;
mod config;
pub mod curve;
mod error;
pub mod events;
pub mod metrics_log;
pub mod optimizer;
mod run;
pub mod sampling;
mod scene;
pub mod schedule;
mod trainer;
mod validation;

pub use config::{Config, Positives, Preset, Samples, Shown, UnknownPreset};
pub use error::DistillError;
pub(crate) use run::lock;
pub use run::{
    CONFIG_FILE, CURVE_FILE, Event, METRICS_FILE, RunOptions, STUDENT_FILE, SceneFile, Scenes, Trained, read_config,
    read_scenes, train,
};
pub use scene::TrainingScene;
pub use trainer::{StepReport, Trainer};
pub use validation::Precision;
