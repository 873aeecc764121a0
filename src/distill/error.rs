use std::path::PathBuf;

use crate::ops::OpError;
use crate::ops::voxel_grid::QuantizeError;
use crate::pipeline::PipelineError;
use crate::session::SessionError;
use crate::training::{LogError, RunError};
use crate::weights::WeightsError;

/// Error of training a student.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistillError {
    /// The settings cannot be read.
    #[error("settings: {reason}")]
    Config {
        /// Reason.
        reason: String,
    },
    /// A setting is out of range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// Values it may have.
        expected: &'static str,
    },
    /// A scene is too small to draw pairs from.
    #[error("{scene}: {samples} samples, expected at least {expected} for this number of negatives")]
    TooSmall {
        /// The scene.
        scene: String,
        /// Number of its voxels or points.
        samples: usize,
        /// Number that is needed.
        expected: usize,
    },
    /// Scenes, teacher and student do not fit together.
    #[error("{scene}: {message}")]
    Mismatch {
        /// The scene.
        scene: String,
        /// Difference between the content and what was expected.
        message: String,
    },
    /// The loss became NaN or infinite.
    #[error(
        "the loss of step {step} ({scene}) is {loss}: try a lower learning_rate, or check the features of the scene"
    )]
    Diverged {
        /// Number of the step.
        step: usize,
        /// Scene of the step.
        scene: String,
        /// Value of the loss.
        loss: f32,
    },
    /// A weight became NaN or infinite.
    #[error(
        "after step {step} {key} has a NaN or infinite value: try a lower learning_rate, or check the features of the scenes"
    )]
    NotFinite {
        /// Key of the weight.
        key: String,
        /// Number of the step.
        step: usize,
    },
    /// The user has no cache folder.
    #[error("this user has no cache folder for prepared scenes")]
    NoCacheFolder,
    /// The path of the cache cannot stand in a list of scenes.
    #[error("{}: the path of the cache must be UTF-8", path.display())]
    CacheNotText {
        /// The folder.
        path: PathBuf,
    },
    /// A prepared scene of a run no longer exists.
    #[error("{scene}: the prepared scene {} no longer exists", path.display())]
    Gone {
        /// The scene.
        scene: String,
        /// Its file.
        path: PathBuf,
    },
    /// There are no training scenes.
    #[error("no scene to train on")]
    NoScenes,
    /// The folder of a run cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The points of a scene do not fit the voxel grid.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// A file of tensors cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A scene cannot be read or rendered, or weights are missing.
    #[error(transparent)]
    Session(Box<SessionError>),
    /// A scene cannot be prepared.
    #[error(transparent)]
    Pipeline(Box<PipelineError>),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] OpError),
}

impl From<LogError> for DistillError {
    fn from(error: LogError) -> Self {
        Self::Run(error.into())
    }
}

impl From<SessionError> for DistillError {
    fn from(error: SessionError) -> Self {
        Self::Session(Box::new(error))
    }
}

impl From<PipelineError> for DistillError {
    fn from(error: PipelineError) -> Self {
        Self::Pipeline(Box::new(error))
    }
}
