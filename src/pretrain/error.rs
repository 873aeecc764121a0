use std::path::PathBuf;

use crate::cloud::CloudError;
use crate::eval::metrics::MetricsError;
use crate::images::ImageError;
use crate::labels::LabelsError;
use crate::models::ModelError;
use crate::models::sonata::SonataError;
use crate::ops::OpError;
use crate::pipeline::PipelineError;
use crate::training::{LogError, RunError};
use crate::views::ViewsError;
use crate::weights::WeightsError;

/// Why a model could not be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainError {
    /// Settings that cannot be read.
    #[error("settings: {0}")]
    Config(String),
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
    /// A folder of rooms is not as `geopurify synth` makes it.
    #[error("{}: {message}", path.display())]
    Rooms {
        /// The folder or file.
        path: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// The gradient has been no number for many steps in a row.
    #[error("the gradient of step {step} and of {before} before it is no number: a lower learning_rate")]
    Diverged {
        /// The step.
        step: u64,
        /// Steps before it that were left out.
        before: u64,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder of a run or a checkpoint is not what this run needs.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A log cannot be written or taken up again.
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
    /// The objects of a scan's points cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// A scan cannot be encoded.
    #[error(transparent)]
    Sonata(#[from] SonataError),
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
