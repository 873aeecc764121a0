//! Errors of the preparation of data sets.

use std::io;
use std::path::{Path, PathBuf};

use crate::cloud::CloudError;
use crate::images::ImageError;
use crate::labels::LabelsError;
use crate::views::ViewsError;

/// Reason why a scene could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The system could not read or write a file.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The failed action, as a verb.
        action: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A part of the download is missing.
    #[error("{}: {found}; expected {expected}", .path.display())]
    Missing {
        /// The folder or file.
        path: PathBuf,
        /// Contents that were found.
        found: String,
        /// Contents that were expected.
        expected: String,
    },
    /// The folder of a scene holds another scene, or something else.
    #[error("{}: holds something else than this scene ({found}); choose another folder, or remove it", .path.display())]
    Differs {
        /// The folder.
        path: PathBuf,
        /// Difference that was found.
        found: String,
    },
    /// Another process prepares scenes in the folder.
    #[error("{}: another process prepares here", .path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The threads could not be started.
    #[error(transparent)]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// An archive is damaged, or is no archive.
    #[error("{}: {what}: {message}; expected a whole zip archive, as it is downloaded", .path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The affected part of the archive.
        what: String,
        /// Description of the fault.
        message: String,
    },
    /// A setting is out of its range.
    #[error("{what} is {found}; expected {expected}")]
    Setting {
        /// Name of the setting.
        what: &'static str,
        /// Its value.
        found: String,
        /// Values that are allowed.
        expected: &'static str,
    },
    /// A picture could not be encoded.
    #[error("{}: cannot encode the picture: {source}", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// The encoder's error.
        #[source]
        source: image::ImageError,
    },
    /// The recording cannot be read.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// A picture cannot be resampled.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The scan cannot be read or written.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The labels cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelsError),
}

impl PrepareError {
    pub(super) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), action, source }
    }

    pub(super) fn missing(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Missing { path: path.to_path_buf(), found: found.into(), expected: expected.into() }
    }
}
