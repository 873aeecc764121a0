//! Weights on disk: PyTorch checkpoints and safetensors, read into plain host memory.
//!
//! Nothing here knows a device or a model. A loader reads a [`Checkpoint`], takes its
//! [`StateDict`], compares the keys with what the model expects ([`match_keys`]), and refuses
//! to go on unless the [`LoadReport`] is complete.
//!
//! Checkpoints come from strangers. The readers execute nothing, check every declared size
//! against the file before allocating, and answer any file with a value or a [`WeightsError`].

use std::io::Read as _;
use std::path::Path;

mod error;
mod pytorch;
mod report;
mod safetensors;
mod tensor;

pub use self::safetensors::{SafetensorsFile, SafetensorsWriter, TensorSpec, TensorView};
pub use error::WeightsError;
pub use pytorch::{Checkpoint, EntryKind, read_pytorch};
pub use report::{Cast, LoadReport, Misshaped, match_keys};
pub use tensor::{Dtype, HostTensor, IntTensor, StateDict};

/// Reads the weights in a file of either kind: a PyTorch checkpoint by [`Checkpoint::state_dict`],
/// safetensors whole.
///
/// # Errors
///
/// [`WeightsError`] naming the file, and the key or offset where there is one.
pub fn read_state_dict(path: &Path) -> Result<StateDict, WeightsError> {
    let mut start = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(9).read_to_end(&mut start))
        .map_err(|error| WeightsError::io(path, error))?;
    // A safetensors header is JSON behind its length; no PyTorch container has a brace there.
    if start.get(8) != Some(&b'{') {
        return read_pytorch(path)?.state_dict();
    }
    let file = SafetensorsFile::open(path)?;
    let mut state = StateDict { source: path.to_path_buf(), ..StateDict::default() };
    for name in file.names() {
        let view = file.tensor(&name)?;
        let (shape, dtype_in_file) = (view.shape.to_vec(), view.dtype);
        if dtype_in_file.is_float() {
            let data = view.to_f32()?;
            state.tensors.insert(name.clone(), HostTensor { shape, dtype_in_file, data });
        } else {
            let data = view.to_i64()?;
            state.integers.insert(name.clone(), IntTensor { shape, dtype_in_file, data });
        }
    }
    Ok(state)
}
