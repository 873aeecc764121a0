//! The networks, with their layers named as in the reference checkpoints.

pub mod clip;
mod conv_norm;
pub mod import;
mod keys;
mod layers;
pub mod lseg;
pub mod minkunet;
pub mod signature;
pub mod sonata;
pub mod student;
pub mod xdecoder;

use crate::ops::OpError;
use crate::weights::WeightsError;

/// Reasons why a model cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The configuration is of an X-Decoder variant that is not supported.
    #[error(transparent)]
    Config(#[from] xdecoder::ConfigError),
    /// The configuration is of a Sonata variant that is not supported.
    #[error(transparent)]
    Sonata(#[from] sonata::ConfigError),
    /// The configuration is of a CLIP variant that is not supported.
    #[error(transparent)]
    Clip(#[from] clip::ConfigError),
    /// The configuration is of an LSeg variant that is not supported.
    #[error(transparent)]
    LSeg(#[from] lseg::ConfigError),
    /// The configuration is not one of a MinkUNet.
    #[error(transparent)]
    MinkUnet(#[from] minkunet::ConfigError),
    /// The weights do not belong to the model.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A weight does not fit the device.
    #[error(transparent)]
    Op(#[from] OpError),
}
