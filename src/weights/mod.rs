//! Weights on disk: readers of PyTorch checkpoints and safetensors into host memory, and the store of
//! installed weights.
//!
//! This module knows no model. A loader takes tensors from a [`TensorSource`], which is either a whole
//! [`StateDict`] or a [`WeightsFile`] that is read one tensor at a time. It compares the keys with those the
//! model expects ([`match_keys`]) and fails unless the [`LoadReport`] is complete.
//!
//! Checkpoints may come from untrusted sources. The readers execute nothing and check every declared size
//! against the file before allocating. Any file gives either a value or a [`WeightsError`].

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
mod seals;
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
pub use pytorch::{Checkpoint, EntryKind, Item, NumberArray, read_items, read_pytorch};
pub use report::{Cast, LoadReport, Misshaped};
pub use sha256::{bytes_sha256, file_sha256};
pub use source::{Inventory, TensorInfo, TensorSource};
pub use tensor::{HostTensor, IntTensor, StateDict};

/// Reads all weights in a file: a PyTorch checkpoint by [`Checkpoint::state_dict`], safetensors as they are.
///
/// # Errors
/// [`WeightsError`] naming the file, and the key or offset where there is one.
pub fn read_state_dict(path: &Path) -> Result<StateDict, WeightsError> {
    WeightsFile::open(path)?.state_dict()
}
