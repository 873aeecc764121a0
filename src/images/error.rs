//! Errors of reading, writing and drawing pictures.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::OverBudget;

/// Reasons why a picture cannot be read, written, resampled or drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The operating system could not open, read or write the file.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The action that failed, as a verb ("open", "write").
        action: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The first bytes are not those of a known format.
    #[error("{}: {found}; expected a JPEG, PNG, WebP, BMP or PNM picture", .path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Description of the content.
        found: String,
    },
    /// The header declares a picture without pixels, or with too many.
    #[error("{}: the {format} header declares {width} x {height} pixels; expected 1 to {limit} pixels", .path.display())]
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
    /// The header declares far more pixels than so few bytes can hold.
    #[error("{}: the {format} header declares {width} x {height} pixels in {bytes} bytes: {source}", .path.display())]
    OutOfProportion {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: &'static str,
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
        /// Length of the picture's data in bytes.
        bytes: usize,
        /// The bound that it exceeds.
        source: OverBudget,
    },
    /// The file ends before the picture is complete.
    #[error("{}: the {format} data end too early ({found}): the file is cut off", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: &'static str,
        /// Description of the missing part.
        found: String,
    },
    /// The decoder rejected the data.
    #[error("{}: the {format} data cannot be decoded: {message}", .path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: &'static str,
        /// Message of the decoder.
        message: String,
    },
    /// A chart could not be drawn.
    #[error("a chart cannot be drawn: {message}")]
    Chart {
        /// Message of the library that draws charts.
        message: String,
    },
    /// A picture to be made has no pixels, or too many.
    #[error("a picture of {width} x {height} pixels; expected 1 to {limit} pixels", limit = super::MAX_PIXELS)]
    Size {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// An array that belongs to a picture has the wrong number of elements.
    #[error("{found} {what} for a picture of {width} x {height} pixels; expected {expected}")]
    Count {
        /// Name of the elements ("labels").
        what: &'static str,
        /// Number of elements found.
        found: usize,
        /// Number of elements expected.
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
