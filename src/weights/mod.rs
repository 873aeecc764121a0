//! Weights on disk: PyTorch checkpoints and safetensors, read into plain host memory, and the store that
//! keeps them ready.
//!
//! Nothing here knows a model. A loader takes tensors from a [`TensorSource`], which is a whole
//! [`StateDict`] or a [`WeightsFile`] read one tensor at a time, compares the keys with what the model
//! expects ([`match_keys`]), and refuses to go on unless the [`LoadReport`] is complete.
//!
//! Checkpoints come from strangers. The readers execute nothing, check every declared size
//! against the file before allocating, and answer any file with a value or a [`WeightsError`].

use std::path::Path;

pub mod demo;
mod dtype;
mod error;
#[cfg(feature = "download")]
pub mod fetch;
mod file;
mod matching;
mod name;
mod pytorch;
pub mod registry;
mod report;
mod safetensors;
mod sha256;
mod source;
pub mod store;
mod tensor;

pub use self::safetensors::{SafetensorsFile, SafetensorsWriter, TensorSpec, TensorView, write_state_dict};
pub use dtype::Dtype;
pub use error::WeightsError;
pub use file::WeightsFile;
pub use matching::{key_matches, match_keys};
pub use name::is_name;
pub use pytorch::{Checkpoint, EntryKind, read_pytorch};
pub use report::{Cast, LoadReport, Misshaped};
pub use sha256::{bytes_sha256, file_sha256};
pub use source::{Inventory, TensorInfo, TensorSource};
pub use tensor::{HostTensor, IntTensor, StateDict};

/// Reads the weights in a file of either kind whole: a PyTorch checkpoint by [`Checkpoint::state_dict`],
/// safetensors as they are.
///
/// # Errors
///
/// [`WeightsError`] naming the file, and the key or offset where there is one.
pub fn read_state_dict(path: &Path) -> Result<StateDict, WeightsError> {
    WeightsFile::open(path)?.state_dict()
}
