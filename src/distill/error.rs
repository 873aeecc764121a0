use crate::ops::OpError;
use crate::ops::voxel_grid::QuantizeError;
use crate::pipeline::PipelineError;
use crate::session::SessionError;
use crate::training::{LogError, RunError};
use crate::weights::WeightsError;

/// Why a student could not be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistillError {
    /// Settings that cannot be read.
    #[error("settings: {reason}")]
    Config {
        /// What is wrong with them.
        reason: String,
    },
    /// A setting is out of range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A scene is too small to draw pairs from.
    #[error("{scene}: {samples} samples, expected {expected} at least for so many negatives")]
    TooSmall {
        /// The scene.
        scene: String,
        /// Its voxels or points.
        samples: usize,
        /// How many are needed.
        expected: usize,
    },
    /// Scenes, teacher and student do not fit together.
    #[error("{scene}: {message}")]
    Mismatch {
        /// The scene.
        scene: String,
        /// What was found and what was expected.
        message: String,
    },
    /// The loss is no number any more.
    #[error("the loss of step {step} ({scene}) is {loss}: a lower learning_rate, or a look at the scene's features")]
    Diverged {
        /// The step.
        step: usize,
        /// Its scene.
        scene: String,
        /// The loss.
        loss: f32,
    },
    /// A weight is no number any more.
    #[error(
        "after step {step} {key} holds a value that is no number: a lower learning_rate, or a look at the scenes' features"
    )]
    NotFinite {
        /// The weight.
        key: String,
        /// The step.
        step: usize,
    },
    /// There is nothing to train on.
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
    /// A scene cannot be read or seen, or weights are missing.
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
