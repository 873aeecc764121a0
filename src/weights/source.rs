//! Sources of tensors that models are loaded from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::Tensor;

use super::{Dtype, HostTensor, StateDict, WeightsError};

/// Shape and element type of a stored tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Element type in the file.
    pub dtype: Dtype,
}

/// Names, shapes and types of the tensors in a source of weights, without their elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// File the weights come from, for messages.
    pub source: PathBuf,
    /// Every tensor, floating-point or not, by name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Names of entries that are not tensors, with their type.
    pub not_tensors: BTreeMap<String, String>,
    /// Prefix that was removed from every key, if all keys had it.
    pub stripped_prefix: Option<&'static str>,
}

impl Inventory {
    /// Returns the shape of the tensor `key`.
    #[must_use]
    pub fn shape(&self, key: &str) -> Option<Vec<usize>> {
        self.tensors.get(key).map(|tensor| tensor.shape.clone())
    }

    /// Checks that `key` is a floating-point tensor of this shape.
    pub(super) fn check(&self, key: &str, shape: &[usize]) -> Result<(), WeightsError> {
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
    /// Returns the list of tensors.
    fn inventory(&self) -> Cow<'_, Inventory>;

    /// Returns the floating-point tensor `key`, which must have exactly `shape`. Take each tensor only once,
    /// because the source may give it away.
    ///
    /// # Errors
    /// [`WeightsError::MissingKey`], [`WeightsError::WrongDtype`] for an integer tensor,
    /// [`WeightsError::Shape`], [`WeightsError::Number`] for NaN, infinities and negative variances in a file,
    /// or the error of a damaged file.
    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError>;

    /// Returns the tensor `key` of exactly `shape`, flat and row-major, if it is a parameter in training: on
    /// an autodiff device, with gradients. Returns `None` if the source only has values, which
    /// [`take`](Self::take) returns.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    fn parameter(&mut self, _key: &str, _shape: &[usize]) -> Result<Option<Tensor<1>>, WeightsError> {
        Ok(None)
    }
}

impl StateDict {
    /// Lists the tensors of a source whose floating-point tensors are replaced by `floats` (key, shape,
    /// type).
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
            // If a key is in both, the floating-point tensor wins.
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
