//! What can go wrong when a data set is prepared.

use std::io;
use std::path::{Path, PathBuf};

use crate::cloud::CloudError;
use crate::images::ImageError;
use crate::labels::LabelsError;
use crate::views::ViewsError;

/// Why a scene could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The system refused to read or write.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done, as a verb.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Something of the download is not there.
    #[error("{}: {found}; expected {expected}", .path.display())]
    Missing {
        /// The folder or file.
        path: PathBuf,
        /// What there is.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// The folder of a scene holds one that was prepared otherwise.
    #[error("{}: holds something else than this scene ({found}); choose another folder, or remove it", .path.display())]
    Differs {
        /// The folder.
        path: PathBuf,
        /// What is different.
        found: String,
    },
    /// An archive is damaged or is none.
    #[error("{}: {what}: {message}; expected a whole zip archive, as it is downloaded", .path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The piece of it.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// A setting that nothing can be prepared with.
    #[error("{what} is {found}; expected {expected}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// Its value.
        found: String,
        /// What is possible.
        expected: &'static str,
    },
    /// A picture could not be encoded.
    #[error("{}: cannot encode the picture: {source}", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder says.
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
