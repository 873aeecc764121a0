//! Errors of reading and using recordings.

use std::io;
use std::path::{Path, PathBuf};

use super::Layout;
use crate::cloud::CloudError;
use crate::images::ImageError;

/// Reasons why a recording or its frames cannot be used.
///
/// Every variant about a file names it and what was expected there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewsError {
    /// The operating system could not open, list or read something.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The action that failed, as a verb ("open", "list").
        action: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The folder of a recording is empty.
    #[error("{}: the folder is empty", .path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The content matches no layout.
    #[error("{}: no known layout of a recording: {found}. Known layouts:\n{}", .path.display(), Layout::overview())]
    UnknownLayout {
        /// The file or folder.
        path: PathBuf,
        /// Description of the content.
        found: String,
    },
    /// A file or folder that the layout needs is missing.
    #[error("{}: {what} is missing; layout {layout} expects {expected}", .path.display())]
    Missing {
        /// The recording.
        path: PathBuf,
        /// The layout being read.
        layout: Layout,
        /// The missing item.
        what: String,
        /// The place where it was expected.
        expected: String,
    },
    /// No frame has a picture.
    #[error("{}: no usable frame ({found}); layout {layout} expects {}", .path.display(), .layout.expects())]
    NoFrames {
        /// The recording.
        path: PathBuf,
        /// The layout being read.
        layout: Layout,
        /// Numbers of frames by defect.
        found: String,
    },
    /// A line of text violates the format.
    #[error("{}, line {line}: found {found}; expected {expected}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Content of the line.
        found: String,
        /// Expected content.
        expected: String,
    },
    /// A value is invalid.
    #[error("{}: {field} is {found}; expected {expected}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Name of the value.
        field: String,
        /// Value found.
        found: String,
        /// Expected value.
        expected: String,
    },
    /// The file ends before the data that it declares.
    #[error("{}, byte {offset}: {what} needs {needed} bytes, but only {available} are left: the file is cut off, or its header is damaged", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Byte offset of the data in the file.
        offset: u64,
        /// Description of the data.
        what: String,
        /// Number of bytes declared (saturating).
        needed: u64,
        /// Number of bytes available from `offset` on.
        available: u64,
    },
    /// A decoder (PNG, zlib, zip, LZFSE, JSON) rejected the data.
    #[error("{}: {what} cannot be decoded: {message}", .path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// The part that cannot be decoded.
        what: String,
        /// Message of the decoder.
        message: String,
    },
    /// The file is valid but uses an unsupported feature.
    #[error("{}: {what} is not supported; expected {expected}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The unsupported feature.
        what: String,
        /// Supported alternatives.
        expected: String,
    },
    /// The size of a picture or depth map differs from the recording's.
    #[error("{}: {} x {} pixels; expected {} x {}, as {reason}", .path.display(), found[0], found[1], expected[0], expected[1])]
    Size {
        /// The picture.
        path: PathBuf,
        /// Its width and height.
        found: [usize; 2],
        /// Expected width and height.
        expected: [usize; 2],
        /// Source of the expected size.
        reason: &'static str,
    },
    /// The recording has no frame of this index.
    #[error("there is no frame {index}: the recording has {count} frames, counted from 0")]
    UnknownFrame {
        /// The index.
        index: usize,
        /// Number of frames.
        count: usize,
    },
    /// A camera, depth map or option has an invalid value.
    #[error("{what} is {found}; expected {expected}")]
    Argument {
        /// Name of the value.
        what: &'static str,
        /// Value found.
        found: String,
        /// Expected value.
        expected: &'static str,
    },
    /// No frame can be fused.
    #[error("no depth to fuse in {frames} frames ({found}); expected frames with a depth map and a valid pose")]
    NothingToFuse {
        /// Number of frames given.
        frames: usize,
        /// Numbers of frames by defect.
        found: String,
    },
    /// The fused cloud would need too much memory.
    #[error(
        "more than {limit} voxels of {voxel} m are occupied: use larger voxels, a smaller maximum depth, or fewer frames"
    )]
    TooManyVoxels {
        /// Largest allowed number of voxels.
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
