//! What can go wrong with recordings.

use std::io;
use std::path::{Path, PathBuf};

use super::Layout;
use crate::cloud::CloudError;
use crate::images::ImageError;

/// Why a recording could not be read, or its frames not be used.
///
/// Every variant about a file names it and says what was expected there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewsError {
    /// The operating system refused to open, list or read something.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done, as a verb ("open", "list").
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The content is that of no layout.
    #[error("{}: no known layout of a recording: {found}. What would be recognised:\n{}", .path.display(), Layout::overview())]
    UnknownLayout {
        /// The file or folder.
        path: PathBuf,
        /// What was seen instead.
        found: String,
    },
    /// The layout asks for a file or folder that is not there.
    #[error("{}: {what} is missing; layout {layout} expects {expected}", .path.display())]
    Missing {
        /// The recording.
        path: PathBuf,
        /// The layout being read.
        layout: Layout,
        /// What is not there.
        what: String,
        /// Where it was looked for.
        expected: String,
    },
    /// There is not one frame with a picture.
    #[error("{}: no frame left to use ({found}); layout {layout} expects {}", .path.display(), .layout.expects())]
    NoFrames {
        /// The recording.
        path: PathBuf,
        /// The layout being read.
        layout: Layout,
        /// What became of the frames.
        found: String,
    },
    /// A line of text is not what the format asks for.
    #[error("{}, line {line}: found {found}; expected {expected}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What the line holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// A value is impossible.
    #[error("{}: {field} is {found}; expected {expected}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Which value.
        field: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The file ends before what it declares.
    #[error("{}, byte {offset}: {what} needs {needed} bytes; expected that many, but only {available} are left (cut off, or a damaged header)", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where the data start, in bytes from the start of the file.
        offset: u64,
        /// What was to be read.
        what: String,
        /// Bytes it needs (saturating).
        needed: u64,
        /// Bytes there are from `offset` on.
        available: u64,
    },
    /// A decoder (PNG, zlib, zip, LZFSE, JSON) rejected the data.
    #[error("{}: {what} cannot be decoded: {message}", .path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Which piece of it.
        what: String,
        /// What the decoder expected or said.
        message: String,
    },
    /// The file is valid but uses something that is not supported.
    #[error("{}: {what} is not supported; expected {expected}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The unsupported feature.
        what: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A picture or depth map has another size than the recording's.
    #[error("{}: {} x {} pixels; expected {} x {}, as {reason}", .path.display(), found[0], found[1], expected[0], expected[1])]
    Size {
        /// The picture.
        path: PathBuf,
        /// Its width and height.
        found: [usize; 2],
        /// The width and height it should have.
        expected: [usize; 2],
        /// Where that comes from.
        reason: &'static str,
    },
    /// A frame is asked for that the recording does not have.
    #[error("frame {index} of a recording with {count} frames; expected an index below that")]
    UnknownFrame {
        /// The index.
        index: usize,
        /// Number of frames.
        count: usize,
    },
    /// A camera, depth map or option with impossible numbers.
    #[error("{what} is {found}; expected {expected}")]
    Argument {
        /// Which number.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Nothing to fuse.
    #[error("no depth to fuse in {frames} frames ({found}); expected frames with a depth map and a valid pose")]
    NothingToFuse {
        /// Number of frames given.
        frames: usize,
        /// What became of them.
        found: String,
    },
    /// The fused cloud would take too much memory.
    #[error(
        "more than {limit} voxels of {voxel} m are occupied; expected at most that many: use larger voxels, a smaller largest depth, or fewer frames"
    )]
    TooManyVoxels {
        /// Most voxels allowed.
        limit: usize,
        /// Edge of a voxel in metres.
        voxel: f64,
    },
    /// A colour picture cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The points that come with a recording cannot be read.
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

impl ViewsError {
    pub(super) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), action, source }
    }

    pub(super) fn missing(path: &Path, layout: Layout, what: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Missing { path: path.to_path_buf(), layout, what: what.into(), expected: expected.into() }
    }

    pub(super) fn line(path: &Path, line: usize, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Line { path: path.to_path_buf(), line, found: found.into(), expected: expected.into() }
    }

    pub(super) fn value(
        path: &Path,
        field: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Value {
            path: path.to_path_buf(),
            field: field.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    pub(super) fn truncated(
        path: &Path,
        offset: usize,
        what: impl Into<String>,
        needed: u64,
        available: usize,
    ) -> Self {
        Self::Truncated {
            path: path.to_path_buf(),
            offset: offset as u64,
            what: what.into(),
            needed,
            available: available as u64,
        }
    }

    pub(super) fn decode(path: &Path, what: impl Into<String>, message: impl ToString) -> Self {
        Self::Decode { path: path.to_path_buf(), what: what.into(), message: message.to_string() }
    }

    pub(super) fn unsupported(path: &Path, what: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_path_buf(), what: what.into(), expected: expected.into() }
    }
}
