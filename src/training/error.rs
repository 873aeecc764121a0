use std::path::PathBuf;

use super::LogError;
use crate::images::ImageError;

/// Why the folder of a run cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A checkpoint, or the folder, is not what this run needs.
    #[error("{}: {message}", path.display())]
    Run {
        /// File or folder.
        path: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A log cannot be written or taken up again.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The picture of the loss cannot be drawn.
    #[error(transparent)]
    Image(#[from] ImageError),
}
