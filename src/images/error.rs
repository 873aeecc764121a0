//! What can go wrong with pictures.

use std::io;
use std::path::{Path, PathBuf};

/// Why a picture could not be read, written, resampled or drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The operating system refused to open, read or write the file.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done, as a verb ("open", "write").
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The first bytes are not those of a JPEG or PNG file.
    #[error("{}: {found}; expected a JPEG or PNG picture", .path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What was seen instead.
        found: String,
    },
    /// The header declares a picture without pixels, or with more than are read.
    #[error("{}: the {format} header declares {width} x {height} pixels; expected 1 to {limit} in all", .path.display())]
    DeclaredSize {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: &'static str,
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
        /// Largest number of pixels accepted.
        limit: u64,
    },
    /// The file ends before its picture does.
    #[error("{}: the {format} data end too early ({found}); expected the whole picture: the file is cut off", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: &'static str,
        /// What is missing.
        found: String,
    },
    /// The decoder rejected the data.
    #[error("{}: the {format} data cannot be decoded: {message}", .path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: &'static str,
        /// What the decoder expected or said.
        message: String,
    },
    /// A picture must have pixels, and not too many.
    #[error("a picture of {width} x {height} pixels; expected 1 to {limit} in all", limit = super::MAX_PIXELS)]
    Size {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// An array that goes with a picture has another number of elements.
    #[error("{found} {what} for a picture of {width} x {height} pixels; expected {expected}")]
    Count {
        /// What is counted ("labels").
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
        /// Width of the picture in pixels.
        width: usize,
        /// Height of the picture in pixels.
        height: usize,
    },
    /// A pixel's label has no name or colour.
    #[error("pixel {pixel} has label {label}; expected below {count}, or negative for none")]
    UnknownLabel {
        /// Index of the pixel in row-major order.
        pixel: usize,
        /// Its label.
        label: i32,
        /// Number of names or colours given.
        count: usize,
    },
}

impl ImageError {
    pub(super) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), action, source }
    }
}
