use std::path::PathBuf;

use super::metrics_log::LogError;
use crate::images::ImageError;
use crate::ops::OpError;
use crate::ops::voxel_grid::QuantizeError;
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
    /// A checkpoint, or the folder of a run, is not what this run needs.
    #[error("{}: {message}", path.display())]
    Run {
        /// File or folder.
        path: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// A file of a run cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The points of a scene do not fit the voxel grid.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// A file of tensors cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A log of a run cannot be written or taken up again.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The picture of the loss cannot be drawn.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] OpError),
}
