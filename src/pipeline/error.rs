use std::path::PathBuf;

use crate::cloud::CloudError;
use crate::images::ImageError;
use crate::lift::{LiftError, ViewError};
use crate::models::ModelError;
use crate::models::sonata::SonataError;
use crate::ops::OpError;
use crate::ops::voxel_grid::cpu::QuantizeError;
use crate::purify::PurifyError;
use crate::query::saved::SavedError;
use crate::views::ViewsError;
use crate::weights::WeightsError;

/// Error of labelling a scan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// No point of the scan has a position.
    #[error("{}none of its {points} points has a position", prefix(.path.as_ref()))]
    NoPoints {
        /// The scan's file, if it has one.
        path: Option<PathBuf>,
        /// Number of its points.
        points: usize,
    },
    /// The recording gives no points.
    #[error("{}: there are neither depth maps with poses nor points to label; give a scan in the frame of its poses", path.display())]
    NothingToFuse {
        /// The recording.
        path: PathBuf,
    },
    /// No picture shows the scan.
    #[error(
        "none of the {views} views shows the scan{}: do its coordinates and the poses belong together?",
        first_error.as_ref().map(|error| format!(" ({unreadable} cannot be read: {error})")).unwrap_or_default()
    )]
    NothingSeen {
        /// Number of views that were tried.
        views: usize,
        /// Number of views that could not be read.
        unreadable: usize,
        /// Error of the first of them.
        first_error: Option<String>,
    },
    /// A result file cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// Reading or writing a scan failed.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// Reading a recording failed.
    #[error(transparent)]
    Views(Box<ViewsError>),
    /// A picture could not be made or written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A model could not be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The scan cannot be encoded.
    #[error(transparent)]
    Sonata(#[from] SonataError),
    /// The output of the model could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Lifting failed.
    #[error(transparent)]
    Lift(#[from] LiftError),
    /// The scan is too large for the cells of the 3D network.
    #[error("the 3D network: {0}")]
    Cells(#[from] QuantizeError),
    /// Purification failed.
    #[error(transparent)]
    Purify(#[from] PurifyError),
    /// The features could not be saved.
    #[error(transparent)]
    Saved(#[from] SavedError),
    /// Weights could not be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The device failed.
    #[error(transparent)]
    Op(#[from] OpError),
}

impl From<ViewsError> for PipelineError {
    fn from(error: ViewsError) -> Self {
        // Boxed because it is the largest error: every result of the pipeline would be as large.
        Self::Views(Box::new(error))
    }
}

fn prefix(path: Option<&PathBuf>) -> String {
    path.map_or(String::new(), |path| format!("{}: ", path.display()))
}
