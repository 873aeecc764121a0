use std::fmt::Display;
use std::path::PathBuf;

use crate::cloud::CloudError;
use crate::distill::DistillError;
use crate::eval::metrics::MetricsError;
use crate::images::ImageError;
use crate::labels::LabelsError;
use crate::models::ModelError;
use crate::models::sonata::SonataError;
use crate::ops::OpError;
use crate::ops::voxel_grid::cpu::QuantizeError;
use crate::pipeline::PipelineError;
use crate::session::SessionError;
use crate::training::{LogError, RunError};
use crate::views::ViewsError;
use crate::weights::WeightsError;

/// Reason why a model could not be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainError {
    /// Settings cannot be read.
    #[error("settings: {0}")]
    Config(String),
    /// A setting is out of range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// Values that are allowed.
        expected: &'static str,
    },
    /// A folder of rooms does not have the form that `geopurify synth` writes.
    #[error("{}: {message}", path.display())]
    Rooms {
        /// The folder or file.
        path: PathBuf,
        /// Description of what was found and what was expected.
        message: String,
    },
    /// The folder of rooms lacks a part.
    #[error(transparent)]
    NoPart(Box<SessionError>),
    /// The gradient was NaN or infinite for many steps in a row.
    #[error(
        "the gradient became NaN or infinite, at step {step} and at {before} steps before it: use a lower learning_rate"
    )]
    Diverged {
        /// Number of the step.
        step: u64,
        /// Number of steps before it that were left out.
        before: u64,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The folder of a run or a checkpoint does not fit this run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A log cannot be written or continued.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file of tensors cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A picture cannot be read, drawn or written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A recording cannot be read.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// A scan cannot be read.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// A scan cannot be used.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A prepared scene cannot be read.
    #[error(transparent)]
    Scene(#[from] Box<DistillError>),
    /// The objects of a scan's points cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// A scan cannot be encoded.
    #[error(transparent)]
    Sonata(#[from] SonataError),
    /// A scan has too many cells.
    #[error(transparent)]
    Cells(#[from] QuantizeError),
    /// The model cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Predictions cannot be counted.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// Checks that a setting holds.
///
/// # Errors
/// [`PretrainError::Setting`] if it does not.
pub(super) fn check_setting(
    name: &'static str,
    holds: bool,
    value: &dyn Display,
    expected: &'static str,
) -> Result<(), PretrainError> {
    if holds { Ok(()) } else { Err(PretrainError::Setting { name, value: value.to_string(), expected }) }
}
