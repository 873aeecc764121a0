//! Where a model takes its tensors from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;

use super::pytorch::{Checkpoint, CheckpointTensors, read_pytorch};
use super::{Dtype, HostTensor, IntTensor, SafetensorsFile, StateDict, WeightsError};

/// Shape and element type of a stored tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Element type in the file.
    pub dtype: Dtype,
}

/// What a source of weights holds, without the elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// File the weights come from, for messages.
    pub source: PathBuf,
    /// Every tensor, floating-point or not, by name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Entries that are no tensor, with the name of what they are.
    pub not_tensors: BTreeMap<String, String>,
    /// The prefix that was taken off every key, if all had one.
    pub stripped_prefix: Option<&'static str>,
}

impl Inventory {
    /// Shape of the tensor `key`.
    #[must_use]
    pub fn shape(&self, key: &str) -> Option<Vec<usize>> {
        self.tensors.get(key).map(|tensor| tensor.shape.clone())
    }

    /// Checks that `key` is a floating-point tensor of this shape.
    fn check(&self, key: &str, shape: &[usize]) -> Result<(), WeightsError> {
        let (path, key) = (self.source.clone(), key.to_owned());
        match self.tensors.get(&key) {
            None => {
                let hint = format!("the file has {} tensors", self.tensors.len());
                Err(WeightsError::MissingKey { path, key, hint })
            }
            Some(tensor) if !tensor.dtype.is_float() => {
                let found = tensor.dtype;
                Err(WeightsError::WrongDtype { path, key, expected: "a floating-point type", found })
            }
            Some(tensor) if tensor.shape != shape => {
                let (expected, found) = (shape.to_vec(), tensor.shape.clone());
                Err(WeightsError::Shape { path, key, expected, found })
            }
            Some(_) => Ok(()),
        }
    }
}

/// Named tensors that a model takes one at a time.
pub trait TensorSource {
    /// What there is to take.
    fn inventory(&self) -> Cow<'_, Inventory>;

    /// Hands over the floating-point tensor `key`, which must have exactly `shape`. A tensor is taken
    /// once: a second time it may be gone.
    ///
    /// # Errors
    ///
    /// [`WeightsError::MissingKey`], [`WeightsError::WrongDtype`] for an integer tensor,
    /// [`WeightsError::Shape`], or that the file is damaged.
    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError>;

    /// The tensor `key` of exactly `shape`, flat and row-major, where it is a parameter in training: on an autodiff
    /// device, and with gradients. `None` where the source has values alone, to be [taken](Self::take).
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    fn parameter(&mut self, _key: &str, _shape: &[usize]) -> Result<Option<Tensor<1>>, WeightsError> {
        Ok(None)
    }
}

impl StateDict {
    /// What a source holds that has `floats` (key, shape, type) in the place of these floating-point tensors.
    pub(crate) fn inventory_with<'a>(
        &'a self,
        floats: impl Iterator<Item = (&'a String, &'a Vec<usize>, Dtype)>,
    ) -> Cow<'a, Inventory> {
        let integers = self.integers.iter().map(|(key, t)| (key, &t.shape, t.dtype_in_file));
        let info = |(key, shape, dtype): (&String, &Vec<usize>, Dtype)| {
            (key.clone(), TensorInfo { shape: shape.clone(), dtype })
        };
        Cow::Owned(Inventory {
            source: self.source.clone(),
            // A key that is in both is the floating-point one.
            tensors: integers.chain(floats).map(info).collect(),
            not_tensors: self.not_tensors.clone(),
            stripped_prefix: self.stripped_prefix,
        })
    }
}

impl TensorSource for StateDict {
    fn inventory(&self) -> Cow<'_, Inventory> {
        self.inventory_with(self.tensors.iter().map(|(key, t)| (key, &t.shape, t.dtype_in_file)))
    }

    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        StateDict::take(self, key, shape)
    }
}

impl<T: TensorSource + ?Sized> TensorSource for &mut T {
    fn inventory(&self) -> Cow<'_, Inventory> {
        (**self).inventory()
    }

    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        (**self).take(key, shape)
    }

    fn parameter(&mut self, key: &str, shape: &[usize]) -> Result<Option<Tensor<1>>, WeightsError> {
        (**self).parameter(key, shape)
    }
}

/// An open file of weights, of either kind. A tensor is read when it is taken, so memory holds the
/// tensors a model has taken and no second copy of them.
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
    /// safetensors file.
    ///
    /// # Errors
    ///
    /// [`WeightsError`] naming the file.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let mut start = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(9).read_to_end(&mut start))
            .map_err(|error| WeightsError::io(path, error))?;
        // A safetensors header is JSON behind its length; no PyTorch container has a brace there.
        if start.get(8) != Some(&b'{') {
            let (tensors, inventory) = CheckpointTensors::new(read_pytorch(path)?)?;
            return Ok(Self { inventory, backing: Backing::Pytorch(Box::new(tensors)) });
        }
        Self::of_safetensors(SafetensorsFile::open(path)?)
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

    /// What the file holds.
    #[must_use]
    pub fn contents(&self) -> &Inventory {
        &self.inventory
    }

    /// Path the file was opened from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inventory.source
    }

    /// The checkpoint, where the file is one of PyTorch.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        match &self.backing {
            Backing::Pytorch(tensors) => Some(tensors.checkpoint()),
            Backing::Safetensors(_) => None,
        }
    }

    /// A free-form text entry of a safetensors file.
    pub(super) fn metadata(&self, entry: &str) -> Option<&str> {
        match &self.backing {
            Backing::Pytorch(_) => None,
            Backing::Safetensors(file) => file.metadata()?.get(entry).map(String::as_str),
        }
    }

    /// Reads everything, integers too.
    ///
    /// # Errors
    ///
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
        match &mut self.backing {
            Backing::Pytorch(tensors) => tensors.read(key)?.ok_or_else(|| {
                let hint = "it is not a floating-point tensor".to_owned();
                WeightsError::MissingKey { path: self.inventory.source.clone(), key: key.to_owned(), hint }
            }),
            Backing::Safetensors(file) => {
                let view = file.tensor(key)?;
                let tensor = HostTensor { shape: view.shape.to_vec(), dtype_in_file: view.dtype, data: view.to_f32()? };
                file.release(key);
                Ok(tensor)
            }
        }
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
