//! Errors of reading and writing weights.

use std::io;
use std::path::{Path, PathBuf};

use super::Dtype;
use super::report::LoadReport;

/// Error of reading, writing or matching weights. Every variant names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The operating system reported an error.
    #[error("{}: {source}", path.display())]
    Io {
        /// File concerned.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is of another kind than expected.
    #[error("{}: {reason}", path.display())]
    WrongFormat {
        /// File concerned.
        path: PathBuf,
        /// Kind of file it looks like, and how to proceed.
        reason: String,
    },
    /// The file is valid but uses an unsupported feature.
    #[error("{}: not supported: {what}", path.display())]
    Unsupported {
        /// File concerned.
        path: PathBuf,
        /// The feature, and an alternative if there is one.
        what: String,
    },
    /// The file contradicts itself or its format.
    #[error("{}: malformed at byte {offset}: {reason}", path.display())]
    Malformed {
        /// File concerned.
        path: PathBuf,
        /// Byte offset in the file at or after which the contradiction was found.
        offset: u64,
        /// Description of the problem.
        reason: String,
    },
    /// The file would need more memory than any such file should.
    #[error("{}: {what} is {found}, above the limit of {limit}", path.display())]
    TooLarge {
        /// File concerned.
        path: PathBuf,
        /// The quantity, with its unit.
        what: String,
        /// Its value in the file.
        found: u64,
        /// The largest value accepted.
        limit: u64,
    },
    /// Checksum error: an archive entry differs from what was written.
    #[error(
        "{}: {entry} is damaged: its checksum is {found:08x}, but the archive records {expected:08x}",
        path.display()
    )]
    Checksum {
        /// File concerned.
        path: PathBuf,
        /// Archive entry.
        entry: String,
        /// CRC-32 in the archive's directory.
        expected: u32,
        /// CRC-32 of the bytes.
        found: u32,
    },
    /// Checksum error: the file differs from what was written.
    #[error("{}: damaged: its SHA-256 is {found}, but {expected} was recorded", path.display())]
    Damaged {
        /// File concerned.
        path: PathBuf,
        /// SHA-256 recorded when the file was written, in hexadecimal.
        expected: String,
        /// SHA-256 of the file now.
        found: String,
    },
    /// The file lacks a key.
    #[error("{}: no '{key}'; {hint}", path.display())]
    MissingKey {
        /// File concerned.
        path: PathBuf,
        /// The key asked for.
        key: String,
        /// Hint at what the file has instead.
        hint: String,
    },
    /// A tensor has another shape than expected.
    #[error("{}: '{key}' has shape {found:?}, expected {expected:?}", path.display())]
    Shape {
        /// File concerned.
        path: PathBuf,
        /// Tensor concerned.
        key: String,
        /// Shape asked for.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has another element type than expected.
    #[error("{}: '{key}' is {found}, expected {expected}", path.display())]
    WrongDtype {
        /// File concerned.
        path: PathBuf,
        /// Tensor concerned.
        key: String,
        /// Types that would be accepted.
        expected: &'static str,
        /// Type in the file.
        found: Dtype,
    },
    /// A tensor holds a number that it cannot hold.
    #[error("{}: '{key}', row {row}: the value is {found}; expected {expected}", path.display())]
    Number {
        /// File concerned.
        path: PathBuf,
        /// Tensor concerned.
        key: String,
        /// Row of the first such number: its index along the outermost extent, from 0.
        row: usize,
        /// The number.
        found: f32,
        /// Numbers that would be accepted.
        expected: &'static str,
    },
    /// A read lies outside a tensor, or a write does not match the declared length.
    #[error("{}: '{key}': {reason}", path.display())]
    Extent {
        /// File concerned.
        path: PathBuf,
        /// Tensor concerned.
        key: String,
        /// Description of the mismatch.
        reason: String,
    },
    /// The weights in the file are not exactly those that the model needs.
    #[error("the weights do not fit the model\n{report}")]
    Incomplete {
        /// Report of every key.
        report: Box<LoadReport>,
    },
}

impl WeightsError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    pub(super) fn malformed(path: &Path, offset: usize, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_path_buf(), offset: offset as u64, reason: reason.into() }
    }

    pub(super) fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_path_buf(), what: what.into() }
    }

    pub(super) fn extent(path: &Path, key: &str, reason: impl Into<String>) -> Self {
        Self::Extent { path: path.to_path_buf(), key: key.to_owned(), reason: reason.into() }
    }
}
