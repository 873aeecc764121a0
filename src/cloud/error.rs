//! Errors of reading and writing scans.

use std::io;
use std::path::{Path, PathBuf};

/// Error of reading or writing a scan.
///
/// Every variant names the file and the place in it: the byte offset for binary data, the line for text, or
/// the field.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloudError {
    /// The operating system refused to open, read or write the file.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Action that failed, as a verb ("open", "write").
        action: &'static str,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The file is empty.
    #[error("{}: the file is empty (0 bytes)", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The content is not of a format that is read. Its name is given if it is known.
    #[error("{}: {found}; expected PLY, LAS, LAZ, PCD, E57, PTX, OBJ, glTF, STL, OFF, SPZ, splat, or text with x, y and z in each line", .path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Content or extension that was found.
        found: String,
    },
    /// The format is known, but this build of the library does not include it.
    #[error("{}: a {format} file, which this build cannot read; build with the feature `{feature}`", .path.display())]
    NotBuilt {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
        /// The Cargo feature that reads it.
        feature: &'static str,
    },
    /// A line of text (a header line or a point) does not follow the format.
    #[error("{}: {format}, line {line}: found {found}; expected {expected}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: &'static str,
        /// Line number, from 1.
        line: u64,
        /// Content of the line.
        found: String,
        /// Content that the format asks for.
        expected: String,
    },
    /// A binary field holds an impossible value.
    #[error("{}: {format}, byte {offset}: {field} is {found}; expected {expected}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: &'static str,
        /// Offset of the field from the start of the file, in bytes.
        offset: u64,
        /// The field's name.
        field: String,
        /// Its value.
        found: String,
        /// Value that is possible.
        expected: String,
    },
    /// The header promises more data than the file holds.
    #[error("{}: {format}, byte {offset}: {what} needs {needed} bytes; expected that many, but the file has only {available} left (cut off, or a damaged header)", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: &'static str,
        /// Start of the data, in bytes from the start of the file.
        offset: u64,
        /// Piece of data that was to be read.
        what: String,
        /// Number of bytes it needs (saturating).
        needed: u64,
        /// Bytes the file still has from `offset`.
        available: u64,
    },
    /// A decoder (LAZ, LZF, E57) rejected the data.
    #[error("{}: {format}, byte {offset}: {what} cannot be decoded: {message}", .path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: &'static str,
        /// Start of the piece, in bytes from the start of the file.
        offset: u64,
        /// Piece of data (a chunk, a scan).
        what: String,
        /// Message of the decoder.
        message: String,
    },
    /// The file is valid but uses something that is not supported.
    #[error("{}: {format}, byte {offset}: {what} is not supported; expected {expected}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// Offset of the field that asks for the feature, in bytes from the start of the file.
        offset: u64,
        /// The unsupported feature.
        what: String,
        /// Values that are supported.
        expected: String,
    },
    /// A field to be written fits neither the points nor the format.
    #[error("{}: field \"{field}\": {found}; expected {expected}", .path.display())]
    Field {
        /// The file to be written.
        path: PathBuf,
        /// The field's name.
        field: String,
        /// Problem with the field.
        found: String,
        /// Values that would fit.
        expected: String,
    },
}

impl CloudError {
    #[cfg(not(all(feature = "las", feature = "e57", feature = "meshes")))]
    pub(super) fn not_built(path: &std::path::Path, format: &'static str, feature: &'static str) -> Self {
        Self::NotBuilt { path: path.to_path_buf(), format, feature }
    }

    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), action, source }
    }
}

/// File and format being read. Makes errors that name both.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub path: &'a Path,
    pub format: &'static str,
}

impl Origin<'_> {
    pub(super) fn line(&self, line: u64, found: impl Into<String>, expected: impl Into<String>) -> CloudError {
        CloudError::Line {
            path: self.path.to_path_buf(),
            format: self.format,
            line,
            found: found.into(),
            expected: expected.into(),
        }
    }

    pub(super) fn value(
        &self,
        offset: u64,
        field: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> CloudError {
        CloudError::Value {
            path: self.path.to_path_buf(),
            format: self.format,
            offset,
            field: field.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    pub(super) fn truncated(&self, offset: u64, what: impl Into<String>, needed: u64, available: u64) -> CloudError {
        CloudError::Truncated {
            path: self.path.to_path_buf(),
            format: self.format,
            offset,
            what: what.into(),
            needed,
            available,
        }
    }

    pub(super) fn decode(&self, offset: u64, what: impl Into<String>, message: impl ToString) -> CloudError {
        CloudError::Decode {
            path: self.path.to_path_buf(),
            format: self.format,
            offset,
            what: what.into(),
            message: message.to_string(),
        }
    }

    pub(super) fn unsupported(&self, offset: u64, what: impl Into<String>, expected: impl Into<String>) -> CloudError {
        CloudError::Unsupported {
            path: self.path.to_path_buf(),
            format: self.format,
            offset,
            what: what.into(),
            expected: expected.into(),
        }
    }
}

/// `text` in quotes, shortened to fit a message, with control characters escaped.
pub(crate) fn quoted(text: &[u8]) -> String {
    const LONGEST: usize = 40;
    let cut = text.get(..LONGEST.min(text.len())).unwrap_or_default();
    let dots = if text.len() > LONGEST { "..." } else { "" };
    format!("\"{}{dots}\"", cut.escape_ascii())
}
