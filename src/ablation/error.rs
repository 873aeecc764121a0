use std::path::{Path, PathBuf};

use crate::distill::DistillError;
use crate::eval::metrics::MetricsError;
use crate::eval::scenes::ScenesError;
use crate::eval::truth::TruthError;
use crate::images::ImageError;
use crate::labels::LabelsError;
use crate::ops::OpError;
use crate::pipeline::PipelineError;
use crate::purify::PurifyError;
use crate::session::SessionError;
use crate::weights::WeightsError;

/// Error of an ablation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AblationError {
    /// The settings do not fit the rooms.
    #[error("{message}")]
    Settings {
        /// Difference between what was given and what was expected.
        message: String,
    },
    /// The folder of rooms has none.
    #[error(transparent)]
    Scenes(#[from] ScenesError),
    /// A room cannot be prepared.
    #[error("{room}: {source}")]
    Failed {
        /// The room.
        room: String,
        /// Reason.
        source: Box<AblationError>,
    },
    /// The file of a lifted room has wrong content.
    #[error("{}: {message}", path.display())]
    Room {
        /// The file.
        path: PathBuf,
        /// Difference between the content and what was expected.
        message: String,
    },
    /// A file or folder cannot be written or read.
    #[error("{}: {source}", path.display())]
    Write {
        /// File or folder.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// Labels and predictions cannot be counted.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The labels of a room cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// The numbers of labels and points of a room differ.
    #[error(transparent)]
    Truth(#[from] TruthError),
    /// A room cannot be read or rendered, or weights are missing.
    #[error(transparent)]
    Session(Box<SessionError>),
    /// A room cannot be lifted.
    #[error(transparent)]
    Pipeline(Box<PipelineError>),
    /// A file of tensors cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A student cannot be trained.
    #[error(transparent)]
    Distill(#[from] DistillError),
    /// A room cannot be purified.
    #[error(transparent)]
    Purify(#[from] PurifyError),
    /// The picture cannot be drawn.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] OpError),
}

impl AblationError {
    pub(super) fn json(path: &Path, error: &serde_json::Error) -> Self {
        Self::Room { path: path.to_path_buf(), message: error.to_string() }
    }

    pub(super) fn settings(message: impl Into<String>) -> Self {
        Self::Settings { message: message.into() }
    }
}

impl From<SessionError> for AblationError {
    fn from(error: SessionError) -> Self {
        Self::Session(Box::new(error))
    }
}

impl From<PipelineError> for AblationError {
    fn from(error: PipelineError) -> Self {
        Self::Pipeline(Box::new(error))
    }
}
