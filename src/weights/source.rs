//! Where a model takes its tensors from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;

use super::{Dtype, HostTensor, IntTensor, StateDict, WeightsError};

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
