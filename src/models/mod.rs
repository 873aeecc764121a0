//! The networks, with their layers named as in the reference checkpoints.

pub mod import;
mod layers;
pub mod sonata;
pub mod student;
pub mod xdecoder;

use crate::ops::OpError;
use crate::weights::WeightsError;

/// Why a model could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The configuration is of a variant that does not run here.
    #[error(transparent)]
    Config(#[from] xdecoder::ConfigError),
    /// As [`Config`](Self::Config), of Sonata.
    #[error(transparent)]
    Sonata(#[from] sonata::ConfigError),
    /// The weights are not the model's.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A weight does not fit the device.
    #[error(transparent)]
    Op(#[from] OpError),
}
