//! Errors of the generation of rooms.

use std::io;
use std::path::{Path, PathBuf};

use crate::cloud::CloudError;
use crate::images::ImageError;
use crate::ops::OpError;
use crate::views::ViewsError;

/// Reason why a room could not be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
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
    /// The folder of a room holds another room, or something else.
    #[error("{}: holds something else than this room ({found}); choose another folder, or remove it", .path.display())]
    Differs {
        /// The folder.
        path: PathBuf,
        /// Difference that was found.
        found: String,
    },
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
    /// One of many rooms failed.
    #[error("{made} of {rooms} rooms are there: {source}")]
    Stopped {
        /// Number of rooms that are there.
        made: usize,
        /// Number of rooms that were asked for.
        rooms: usize,
        /// The failure.
        source: Box<SynthError>,
    },
    /// A folder of assets has none of the models that are known.
    #[error("{}: there is none of the {known} models that are known; scripts/assets prepares such a folder", .path.display())]
    NoModels {
        /// The folder.
        path: PathBuf,
        /// Number of models that are known.
        known: usize,
    },
    /// A model cannot be furniture.
    #[error("{}: the model has {found}; expected {expected}", .path.display())]
    Model {
        /// The file of the model.
        path: PathBuf,
        /// What was found.
        found: String,
        /// What a model may have.
        expected: &'static str,
    },
    /// The program's list of models is damaged.
    #[error("the list of models in the program cannot be read: {0}")]
    Catalogue(String),
    /// A picture of a surface could not be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A picture could not be encoded.
    #[error("{}: cannot encode the picture: {source}", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// The encoder's error.
        #[source]
        source: image::ImageError,
    },
    /// The views could not be rendered.
    #[error(transparent)]
    Render(#[from] OpError),
    /// The camera is invalid.
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
