//! What can go wrong when rooms are made.

use std::io;
use std::path::{Path, PathBuf};

use crate::cloud::CloudError;
use crate::ops::OpError;
use crate::views::ViewsError;

/// Why a room could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// A setting that no rooms can be made with.
    #[error("{what} is {found}; expected {expected}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// Its value.
        found: String,
        /// What is possible.
        expected: &'static str,
    },
    /// The folder of a room holds one that was made otherwise.
    #[error("{}: holds something else than this room ({found}); choose another folder, or remove it", .path.display())]
    Differs {
        /// The folder.
        path: PathBuf,
        /// What is different.
        found: String,
    },
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
    /// A picture could not be encoded.
    #[error("{}: cannot encode the picture: {source}", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder says.
        #[source]
        source: image::ImageError,
    },
    /// The views could not be drawn.
    #[error(transparent)]
    Render(#[from] OpError),
    /// The camera is not possible.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The scan could not be written.
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

impl SynthError {
    pub(super) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), action, source }
    }
}
