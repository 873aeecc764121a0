use std::path::PathBuf;

use super::LogError;
use crate::images::ImageError;

/// Error of a run's folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A checkpoint or the folder does not fit this run.
    #[error("{}: {message}", path.display())]
    Run {
        /// File or folder.
        path: PathBuf,
        /// Difference between the content and what was expected.
        message: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A log cannot be written or resumed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The picture of the loss cannot be drawn.
    #[error(transparent)]
    Image(#[from] ImageError),
}
