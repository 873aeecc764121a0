//! Tuples of arrays saved by `torch.save`: data, not weights.

use std::path::Path;

use super::numpy::Array;
use super::pickle::{Id, Value};
use super::{Checkpoint, EXPANSION, EXPANSION_FLOOR, Leaf, open_at_most};
use crate::files::Budget;
use crate::weights::WeightsError;

/// Most bytes of the pickle, which holds NumPy's arrays.
const MOST_BYTES: usize = 1 << 30;
/// Most items of a tuple.
const MOST_ITEMS: usize = 16;

/// An item of a saved tuple.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An array of NumPy, or a tensor.
    Array(NumberArray),
    /// A single number.
    Number(f64),
    /// Anything else, by the name of its Python type.
    Other(String),
}

/// Numbers with a shape.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberArray {
    /// Extent of each dimension.
    pub shape: Vec<usize>,
    /// The numbers in row-major order.
    pub values: Vec<f64>,
}

/// Reads the items of a tuple or list that `torch.save` wrote.
///
/// # Errors
/// [`WeightsError::WrongFormat`] if the file holds something else, [`WeightsError::TooLarge`] if the arrays claim more
/// memory than the file can fill; otherwise as [`read_pytorch`](super::read_pytorch).
pub fn read_items(path: &Path) -> Result<Vec<Item>, WeightsError> {
    let file = open_at_most(path, MOST_BYTES)?;
    let root = file.pickle.root();
    let items = match file.pickle.get(root) {
        Value::Tuple(items) | Value::List(items) if items.len() <= MOST_ITEMS => items,
        _ => {
            let reason = format!("the file holds a {}, not a tuple of arrays", file.pickle.type_name(root));
            return Err(WeightsError::WrongFormat { path: path.to_path_buf(), reason });
        }
    };
    let mut budget = Budget::new(file.bytes.len() as u64, EXPANSION, EXPANSION_FLOOR);
    items.iter().map(|&id| file.item(id, &mut budget)).collect()
}

impl Checkpoint {
    fn item(&self, id: Id, budget: &mut Budget) -> Result<Item, WeightsError> {
        let mut charge = |numel: usize| {
            let needed = (numel as u64).saturating_mul(8);
            let charged = budget.charge(needed);
            charged.map_err(|over| self.too_large("the memory its arrays take in bytes", over.needed, over.limit))
        };
        Ok(match self.pickle.get(id) {
            Value::Int(value) => Item::Number(*value as f64),
            Value::Float(value) => Item::Number(*value),
            Value::Array(Some(array)) => {
                charge(array.numel)?;
                Item::Array(NumberArray { shape: array.shape.clone(), values: self.numbers(array)? })
            }
            Value::Tensor(tensor) => {
                charge(tensor.numel)?;
                let (key, blob, _) = self.storage_of(tensor)?;
                self.verify(key, blob)?;
                let values = match self.read_leaf(id)? {
                    Leaf::Float(tensor) => tensor.data.into_iter().map(f64::from).collect(),
                    Leaf::Int(tensor) => tensor.data.into_iter().map(|value| value as f64).collect(),
                    Leaf::Other(what) => return Ok(Item::Other(what)),
                };
                Item::Array(NumberArray { shape: tensor.shape.clone(), values })
            }
            _ => Item::Other(self.pickle.type_name(id).to_owned()),
        })
    }

    fn numbers(&self, array: &Array) -> Result<Vec<f64>, WeightsError> {
        let unlike = |found: usize| {
            let reason = format!("an array of shape {:?} has {found} bytes", array.shape);
            WeightsError::malformed(&self.path, 0, reason)
        };
        let needed = array.numel.checked_mul(array.element.size).ok_or_else(|| unlike(0))?;
        let letters;
        let bytes: &[u8] = match self.pickle.get(array.data) {
            Value::Bytes(bytes) => bytes,
            Value::Letters(text) => match self.pickle.get(*text) {
                Value::Str(text) => {
                    let bytes = text.chars().map(|letter| u8::try_from(u32::from(letter)));
                    letters = bytes.collect::<Result<Vec<u8>, _>>().map_err(|_| unlike(text.len()))?;
                    &letters
                }
                _ => return Err(unlike(0)),
            },
            _ => return Err(unlike(0)),
        };
        match bytes.len() == needed {
            true => Ok(array.numbers(bytes)),
            false => Err(unlike(bytes.len())),
        }
    }
}
