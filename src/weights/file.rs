//! Files of weights, PyTorch or safetensors.

use std::borrow::Cow;
use std::io::Read as _;
use std::path::Path;

use super::pytorch::{Checkpoint, CheckpointTensors, read_pytorch};
use super::source::{Inventory, TensorInfo, TensorSource};
use super::{HostTensor, IntTensor, SafetensorsFile, StateDict, WeightsError};

/// An open file of weights, PyTorch or safetensors. A tensor is read when it is taken, so memory never holds
/// a second copy of the tensors.
pub struct WeightsFile {
    inventory: Inventory,
    backing: Backing,
}

enum Backing {
    Pytorch(Box<CheckpointTensors>),
    Safetensors(SafetensorsFile),
}

impl WeightsFile {
    /// Opens a PyTorch checkpoint, whose weights are found as [`Checkpoint::state_dict`] does, or a
    /// safetensors file. A safetensors file that holds its own hash is compared with it, once for each change.
    ///
    /// # Errors
    /// [`WeightsError`] naming the file.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let mut start = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(9).read_to_end(&mut start))
            .map_err(|error| WeightsError::io(path, error))?;
        // A safetensors file starts with the header's length and then JSON. No PyTorch container has a brace
        // there.
        if start.get(8) != Some(&b'{') {
            let (tensors, inventory) = CheckpointTensors::new(read_pytorch(path)?)?;
            return Ok(Self { inventory, backing: Backing::Pytorch(Box::new(tensors)) });
        }
        let file = SafetensorsFile::open(path)?;
        if file.is_sealed() {
            file.verify_seal_once()?;
        }
        Self::of_safetensors(file)
    }

    pub(super) fn of_safetensors(file: SafetensorsFile) -> Result<Self, WeightsError> {
        let mut inventory = Inventory { source: file.path().to_path_buf(), ..Inventory::default() };
        for name in file.names() {
            let view = file.tensor(&name)?;
            let info = TensorInfo { shape: view.shape.to_vec(), dtype: view.dtype };
            inventory.tensors.insert(name, info);
        }
        Ok(Self { inventory, backing: Backing::Safetensors(file) })
    }

    /// Returns the names, shapes and types of the tensors.
    #[must_use]
    pub fn contents(&self) -> &Inventory {
        &self.inventory
    }

    /// Returns the path the file was opened from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inventory.source
    }

    /// Returns the checkpoint, if the file is one of PyTorch.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        match &self.backing {
            Backing::Pytorch(tensors) => Some(tensors.checkpoint()),
            Backing::Safetensors(_) => None,
        }
    }

    /// Returns a free-form text entry of a safetensors file.
    pub(super) fn metadata(&self, entry: &str) -> Option<&str> {
        match &self.backing {
            Backing::Pytorch(_) => None,
            Backing::Safetensors(file) => file.metadata()?.get(entry).map(String::as_str),
        }
    }

    /// Reads all tensors, including integers.
    ///
    /// # Errors
    /// As [`Checkpoint::state_dict`].
    pub fn state_dict(&self) -> Result<StateDict, WeightsError> {
        let file = match &self.backing {
            Backing::Pytorch(tensors) => return tensors.checkpoint().state_dict(),
            Backing::Safetensors(file) => file,
        };
        let mut state = StateDict { source: file.path().to_path_buf(), ..StateDict::default() };
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
}

impl TensorSource for WeightsFile {
    fn inventory(&self) -> Cow<'_, Inventory> {
        Cow::Borrowed(&self.inventory)
    }

    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        self.inventory.check(key, shape)?;
        let tensor = match &mut self.backing {
            Backing::Pytorch(tensors) => tensors.read(key)?.ok_or_else(|| {
                let hint = "it is not a floating-point tensor".to_owned();
                WeightsError::MissingKey { path: self.inventory.source.clone(), key: key.to_owned(), hint }
            })?,
            Backing::Safetensors(file) => {
                let view = file.tensor(key)?;
                let tensor = HostTensor { shape: view.shape.to_vec(), dtype_in_file: view.dtype, data: view.to_f32()? };
                file.release(key);
                tensor
            }
        };
        tensor.check_numbers(&self.inventory.source, key)?;
        Ok(tensor)
    }
}

impl std::fmt::Debug for WeightsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightsFile")
            .field("path", &self.inventory.source)
            .field("tensors", &self.inventory.tensors.len())
            .finish_non_exhaustive()
    }
}
