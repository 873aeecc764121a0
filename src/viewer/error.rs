use std::net::SocketAddr;
use std::path::PathBuf;

use crate::pipeline::PipelineError;
use crate::query::saved::SavedError;
use crate::session::SessionError;

/// Error of the viewer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewerError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The folder holds no complete results.
    #[error("{}: no {name}: expected a folder with the results of a labelling", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The file that is missing.
        name: String,
    },
    /// A file of the results names one outside their folder.
    #[error("{}: names {}, expected a file of the same folder", path.display(), other.display())]
    Outside {
        /// The file of the results.
        path: PathBuf,
        /// What it names.
        other: PathBuf,
    },
    /// A file of the results can be read, but its content is damaged.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Difference between the content and what was expected.
        message: String,
    },
    /// Saved features cannot be read.
    #[error(transparent)]
    Saved(#[from] SavedError),
    /// The labelled scan cannot be read.
    #[error(transparent)]
    Scan(#[from] PipelineError),
    /// A question cannot be answered.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Another program listens on the port.
    #[error("{address}: another program uses this port")]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The server cannot listen.
    #[error("{address}: cannot serve here: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The system gives no random numbers, so there can be no token.
    #[error("the system gives no random numbers for a token")]
    NoToken,
}
