use crate::ops::OpError;
use crate::ops::voxel_grid::QuantizeError;
use crate::weights::WeightsError;

/// Error of purification.
#[derive(Debug, thiserror::Error)]
pub enum PurifyError {
    /// The scan has no points.
    #[error("the scan has no points")]
    Empty,
    /// The number of feature rows differs from the number of points.
    #[error("features have {features} rows, the scan has {points} points: one row per point, in the scan's order")]
    RowCount {
        /// Rows of the features.
        features: usize,
        /// Points of the scan.
        points: usize,
    },
    /// The number of feature channels does not fit the student.
    #[error(
        "features have {features} channels, the student takes {student}: {expected} semantic ones, colour and normal"
    )]
    ChannelCount {
        /// Channels of the features.
        features: usize,
        /// Input channels of the student.
        student: usize,
        /// Semantic channels among them.
        expected: usize,
    },
    /// A setting is out of range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// Values it may have.
        expected: &'static str,
    },
    /// The points do not fit the voxel grid.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The features could not be read or written.
    #[error(transparent)]
    Features(#[from] WeightsError),
}
