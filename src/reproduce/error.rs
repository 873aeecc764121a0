use std::path::{Path, PathBuf};

use crate::distill::DistillError;
use crate::eval::evaluation::EvaluationError;
use crate::eval::metrics::MetricsError;
use crate::eval::scenes::ScenesError;
use crate::images::ImageError;
use crate::pretrain::PretrainError;
use crate::session::SessionError;
use crate::weights::WeightsError;

/// Error of reproducing a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReproduceError {
    /// The settings make no sense.
    #[error("{0}")]
    Settings(String),
    /// The folder holds results of other settings.
    #[error("{}: {setting} is {found} here, not {asked}", path.display())]
    Differs {
        /// The file with the settings so far.
        path: PathBuf,
        /// Name of the setting.
        setting: String,
        /// Its value in the folder.
        found: String,
        /// Its value now.
        asked: String,
    },
    /// Another process works in the folder.
    #[error("{}: another process reproduces a table here", .0.display())]
    Busy(PathBuf),
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A scene to learn from cannot be prepared.
    #[error("{scene}: {source}")]
    Scene {
        /// The scene.
        scene: String,
        /// Reason.
        source: Box<DistillError>,
    },
    /// A data set has no labelled scene.
    #[error(transparent)]
    Scenes(#[from] ScenesError),
    /// A data set cannot be read, or weights cannot be opened.
    #[error(transparent)]
    Session(Box<SessionError>),
    /// A student cannot be trained.
    #[error(transparent)]
    Distill(Box<DistillError>),
    /// A 3D network cannot be trained.
    #[error(transparent)]
    Pretrain(Box<PretrainError>),
    /// Scenes cannot be evaluated.
    #[error(transparent)]
    Evaluation(Box<EvaluationError>),
    /// Counts do not fit the classes.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A file cannot be hashed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The picture cannot be drawn.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl ReproduceError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

impl From<SessionError> for ReproduceError {
    fn from(error: SessionError) -> Self {
        Self::Session(Box::new(error))
    }
}

impl From<DistillError> for ReproduceError {
    fn from(error: DistillError) -> Self {
        Self::Distill(Box::new(error))
    }
}

impl From<PretrainError> for ReproduceError {
    fn from(error: PretrainError) -> Self {
        Self::Pretrain(Box::new(error))
    }
}

impl From<EvaluationError> for ReproduceError {
    fn from(error: EvaluationError) -> Self {
        Self::Evaluation(Box::new(error))
    }
}
