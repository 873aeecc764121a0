//! PyTorch checkpoints (`torch.save`): the ZIP archive and the stream written before 1.6.
//!
//! The pickle inside is read as data. Nothing it names is looked up or called.
//!
//! Three rules bound the memory that any file can take. Archive entries must be stored uncompressed.
//! The number of pickle operations is limited. The tensors asked for may together take at most eight
//! times the file's size, because a view with stride 0 turns one element into any number.

mod arrays;
mod container;
mod numpy;
mod pickle;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value as Json;

use super::tensor::{floats_from_le, ints_from_le};
use super::{HostTensor, IntTensor, Inventory, StateDict, TensorInfo, WeightsError};
use crate::files::{Budget, MappedFile};
pub use arrays::{Item, NumberArray, read_items};
use container::Blob;
use pickle::{Id, MAX_BYTES, Pickle, Tensor, Value};

/// Names under which training scripts put the weights, in the order they are tried.
const STATE_DICT_KEYS: [&str; 3] = ["model_state_dict", "state_dict", "model"];
/// Prefix that data-parallel wrappers put before every key.
const WRAPPER_PREFIX: &str = "module.";

/// Most bytes of host memory per byte of file: a byte tensor becomes i64.
const EXPANSION: u64 = 8;
/// Memory always granted, for tiny files.
const EXPANSION_FLOOR: u64 = 1 << 20;
/// Most entries of a state dict or of a value converted to JSON.
const MAX_ENTRIES: usize = 100_000;
/// Deepest nesting of dictionaries and lists followed.
const MAX_DEPTH: usize = 32;
/// Longest key, with its dots, in bytes.
const MAX_KEY: usize = 512;
/// Most bytes of text in a value converted to JSON.
const MAX_TEXT: usize = 1 << 20;

/// Values that are no dictionary or list, by name.
type Leaves = BTreeMap<String, Id>;

/// Kind of a value at the top of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A tensor of this shape.
    Tensor(Vec<usize>),
    /// A dictionary with this many entries.
    Dict(usize),
    /// A list or tuple with this many items.
    List(usize),
    /// Anything else, by the name of its Python type.
    Other(String),
}

/// An open PyTorch checkpoint: parsed, with tensor bytes read only when asked for.
pub struct Checkpoint {
    path: PathBuf,
    bytes: MappedFile,
    pickle: Pickle,
    storages: HashMap<String, Blob>,
}

/// Opens a PyTorch checkpoint.
///
/// # Errors
/// [`WeightsError::Io`], or an error that says how the file is not a checkpoint that can be
/// read: [`WeightsError::WrongFormat`], [`WeightsError::Unsupported`],
/// [`WeightsError::Malformed`], [`WeightsError::Checksum`].
pub fn read_pytorch(path: impl AsRef<Path>) -> Result<Checkpoint, WeightsError> {
    open_at_most(path.as_ref(), MAX_BYTES)
}

/// Opens a file of `torch.save` whose pickle may have `most` bytes.
fn open_at_most(path: &Path, most: usize) -> Result<Checkpoint, WeightsError> {
    let bytes = MappedFile::open(path).map_err(|error| WeightsError::io(path, error))?;
    let opened = container::open(path, &bytes, most)?;
    Ok(Checkpoint { path: path.to_path_buf(), bytes, pickle: opened.pickle, storages: opened.storages })
}

impl Checkpoint {
    /// Path the checkpoint was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names and kinds at the top, in the file's order: at most 100,000, and none unless the top is a
    /// dictionary or a module of TorchScript.
    pub fn entries(&self) -> Vec<(String, EntryKind)> {
        let entries = self.pickle.items(self.pickle.root()).unwrap_or_default();
        entries
            .iter()
            .take(MAX_ENTRIES)
            .map(|&(key, value)| {
                let kind = match self.pickle.get(value) {
                    Value::Tensor(tensor) => EntryKind::Tensor(tensor.shape.clone()),
                    Value::Dict(_) | Value::Scripted(_) => {
                        EntryKind::Dict(self.pickle.items(value).map_or(0, <[_]>::len))
                    }
                    Value::List(items) | Value::Tuple(items) => EntryKind::List(items.len()),
                    _ => EntryKind::Other(self.pickle.type_name(value).to_owned()),
                };
                (self.key(key), kind)
            })
            .collect()
    }

    /// Reads the weights: the dictionary under `model_state_dict`, `state_dict` or `model`,
    /// or the whole checkpoint if its values are tensors. Nested names are joined with dots,
    /// and `module.` is taken off if every key begins with it. Of a TorchScript archive these are the
    /// tensors of its modules, under the names that its state dict has.
    ///
    /// # Errors
    /// [`WeightsError::MissingKey`] if there are no weights in any of these places,
    /// [`WeightsError::TooLarge`] if they claim more than the file can hold, and
    /// [`WeightsError::Malformed`] or [`WeightsError::Checksum`] for damaged bytes.
    pub fn state_dict(&self) -> Result<StateDict, WeightsError> {
        let (leaves, stripped_prefix) = self.weights()?;
        Ok(StateDict { stripped_prefix, ..self.read(leaves)? })
    }

    /// Finds the weights by name. Also returns the prefix taken off.
    fn weights(&self) -> Result<(Leaves, Option<&'static str>), WeightsError> {
        let root = self.pickle.root();
        let nested = STATE_DICT_KEYS
            .iter()
            .filter_map(|key| self.pickle.lookup(root, key))
            .find(|&id| self.holds_tensors(id, 2));
        let depth = if matches!(self.pickle.get(root), Value::Scripted(_)) { MAX_DEPTH } else { 1 };
        let Some(id) = nested.or(Some(root).filter(|&id| self.holds_tensors(id, depth))) else {
            return Err(WeightsError::MissingKey {
                path: self.path.clone(),
                key: STATE_DICT_KEYS[0].to_owned(),
                hint: self.describe_root(),
            });
        };
        Ok(strip_prefix(self.leaves(id)?, WRAPPER_PREFIX))
    }

    /// Reads every tensor at or below the value at `keys`, names joined with dots, list
    /// positions as numbers (`state.0.exp_avg` below `optimizer_state_dict`). No prefix is
    /// taken off.
    ///
    /// # Errors
    /// [`WeightsError::MissingKey`] if there is no such value, else as
    /// [`state_dict`](Self::state_dict).
    pub fn state_dict_at(&self, keys: &[&str]) -> Result<StateDict, WeightsError> {
        self.read(self.leaves(self.find(keys)?)?)
    }

    /// The value at `keys` as JSON, such as a configuration or an epoch.
    ///
    /// Tuples become arrays, integer keys become text. Tensors, objects and infinities become null.
    ///
    /// # Errors
    /// [`WeightsError::MissingKey`] if there is no such value, [`WeightsError::TooLarge`] if it
    /// is larger or deeper than a configuration can be.
    pub fn json(&self, keys: &[&str]) -> Result<Json, WeightsError> {
        let mut budget = JsonBudget { entries: MAX_ENTRIES, text: MAX_TEXT };
        self.to_json(self.find(keys)?, MAX_DEPTH, &mut budget)
    }

    fn find(&self, keys: &[&str]) -> Result<Id, WeightsError> {
        keys.iter().try_fold(self.pickle.root(), |id, key| {
            self.pickle.lookup(id, key).ok_or_else(|| WeightsError::MissingKey {
                path: self.path.clone(),
                key: keys.join("."),
                hint: self.describe_root(),
            })
        })
    }

    /// Tells whether the dictionary `id` has a tensor among its values, down to `depth` levels.
    /// Only the first entries are looked at, because a file may hold one dictionary many times over.
    fn holds_tensors(&self, id: Id, depth: usize) -> bool {
        fn search(pickle: &Pickle, id: Id, depth: usize, left: &mut usize) -> bool {
            for &(_, value) in pickle.items(id).unwrap_or_default() {
                let Some(fewer) = left.checked_sub(1) else {
                    return false;
                };
                *left = fewer;
                if matches!(pickle.get(value), Value::Tensor(_))
                    || (depth > 1 && search(pickle, value, depth - 1, left))
                {
                    return true;
                }
            }
            false
        }
        search(&self.pickle, id, depth, &mut { MAX_ENTRIES })
    }

    fn describe_root(&self) -> String {
        const SHOWN: usize = 12;
        let Some(entries) = self.pickle.items(self.pickle.root()) else {
            return format!(
                "the file holds a {}; save its state_dict() instead",
                self.pickle.type_name(self.pickle.root())
            );
        };
        let mut names: Vec<_> =
            entries.iter().take(SHOWN).map(|&(key, _)| self.key(key).chars().take(60).collect::<String>()).collect();
        if entries.len() > SHOWN {
            names.push(format!("and {} more", entries.len() - SHOWN));
        }
        format!("the file has at its top: {}", names.join(", "))
    }

    /// A dictionary key as text.
    fn key(&self, id: Id) -> String {
        match self.pickle.get(id) {
            Value::Str(key) => key.chars().take(MAX_KEY).collect(),
            Value::Int(key) => key.to_string(),
            _ => format!("<{}>", self.pickle.type_name(id)),
        }
    }

    fn too_large(&self, what: &str, found: u64, limit: u64) -> WeightsError {
        WeightsError::TooLarge { path: self.path.clone(), what: what.to_owned(), found, limit }
    }

    /// Everything at or below `id`, by name. Checks that the tensors fit the memory granted and that
    /// their storages are in the file.
    fn leaves(&self, id: Id) -> Result<Leaves, WeightsError> {
        let mut leaves = Leaves::new();
        let mut visited = 0;
        self.collect_leaves(id, String::new(), MAX_DEPTH, &mut visited, &mut leaves)?;

        let mut budget = Budget::new(self.bytes.len() as u64, EXPANSION, EXPANSION_FLOOR);
        for leaf in leaves.values() {
            let Value::Tensor(tensor) = self.pickle.get(*leaf) else {
                continue;
            };
            let element = if tensor.dtype.is_float() { 4 } else { 8 };
            let needed = (tensor.numel as u64).saturating_mul(element);
            budget
                .charge(needed)
                .map_err(|over| self.too_large("the memory its tensors take in bytes", over.needed, over.limit))?;
            self.storage_of(tensor)?;
        }
        Ok(leaves)
    }

    fn verify(&self, key: &str, blob: &Blob) -> Result<(), WeightsError> {
        container::verify(&self.path, &self.bytes, &format!("data/{key}"), blob)
    }

    fn read(&self, leaves: Leaves) -> Result<StateDict, WeightsError> {
        // A map iterates in order, so a file with several faults always gives the same error.
        let mut used: BTreeMap<&str, &Blob> = BTreeMap::new();
        for leaf in leaves.values() {
            if let Value::Tensor(tensor) = self.pickle.get(*leaf) {
                let (key, blob, _) = self.storage_of(tensor)?;
                used.insert(key, blob);
            }
        }
        let used: Vec<_> = used.into_iter().collect();
        used.par_iter().map(|(key, blob)| self.verify(key, blob)).collect::<Result<Vec<()>, _>>()?;

        let leaves: Vec<_> = leaves.into_iter().collect();
        let read: Vec<_> = leaves
            .into_par_iter()
            .map(|(key, id)| Ok((key, self.read_leaf(id)?)))
            .collect::<Result<_, WeightsError>>()?;
        let mut state = StateDict { source: self.path.clone(), ..StateDict::default() };
        for (key, leaf) in read {
            match leaf {
                Leaf::Float(tensor) => {
                    state.tensors.insert(key, tensor);
                }
                Leaf::Int(tensor) => {
                    state.integers.insert(key, tensor);
                }
                Leaf::Other(what) => {
                    state.not_tensors.insert(key, what);
                }
            }
        }
        Ok(state)
    }

    /// Flattens nested dictionaries and lists. Depth and number of visits are bounded, because a
    /// pickle may hold a value many times over or within itself.
    fn collect_leaves(
        &self,
        id: Id,
        path: String,
        depth: usize,
        visited: &mut usize,
        leaves: &mut Leaves,
    ) -> Result<(), WeightsError> {
        *visited += 1;
        if *visited > MAX_ENTRIES {
            let limit = MAX_ENTRIES as u64;
            return Err(self.too_large("the number of entries", limit + 1, limit));
        }
        if path.len() > MAX_KEY {
            let limit = MAX_KEY as u64;
            return Err(self.too_large("the length of a key", path.len() as u64, limit));
        }
        let below = |name: &str| {
            if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
        };
        let deeper = || {
            let limit = MAX_DEPTH as u64;
            depth.checked_sub(1).ok_or_else(|| self.too_large("the nesting", limit + 1, limit))
        };
        match self.pickle.get(id) {
            Value::Dict(entries) => {
                for &(key, value) in entries {
                    let name = below(&self.key(key));
                    self.collect_leaves(value, name, deeper()?, visited, leaves)?;
                }
            }
            // Its other attributes are flags, names and numbers of its code.
            Value::Scripted(_) => {
                for &(key, value) in self.pickle.items(id).unwrap_or_default() {
                    let name = below(&self.key(key));
                    if matches!(self.pickle.get(value), Value::Scripted(_) | Value::Tensor(_)) {
                        self.collect_leaves(value, name, deeper()?, visited, leaves)?;
                    }
                }
            }
            Value::List(items) | Value::Tuple(items) => {
                for (index, &item) in items.iter().enumerate() {
                    let name = below(&index.to_string());
                    self.collect_leaves(item, name, deeper()?, visited, leaves)?;
                }
            }
            _ => {
                leaves.insert(path, id);
            }
        }
        Ok(())
    }

    /// Key, place and bytes of the storage behind a tensor.
    fn storage_of(&self, tensor: &Tensor) -> Result<(&str, &Blob, &[u8]), WeightsError> {
        let Value::Storage(storage) = self.pickle.get(tensor.storage) else {
            return Err(WeightsError::malformed(&self.path, 0, "a tensor has no storage"));
        };
        let blob = self.storages.get(&*storage.key).ok_or_else(|| {
            WeightsError::malformed(
                &self.path,
                self.bytes.len(),
                format!("storage '{}' is not in the file", storage.key),
            )
        })?;
        Ok((&storage.key, blob, &self.bytes[blob.range.clone()]))
    }

    fn read_leaf(&self, id: Id) -> Result<Leaf, WeightsError> {
        let Value::Tensor(tensor) = self.pickle.get(id) else {
            return Ok(Leaf::Other(self.pickle.type_name(id).to_owned()));
        };
        let (key, blob, storage) = self.storage_of(tensor)?;
        let size = tensor.dtype.size();
        let window = tensor
            .offset
            .checked_mul(size)
            .zip(tensor.end.checked_mul(size))
            .and_then(|(start, end)| storage.get(start..end))
            .ok_or_else(|| {
                WeightsError::malformed(&self.path, blob.range.end, format!("a tensor reaches past storage '{key}'"))
            })?;
        let gathered;
        let elements = if is_contiguous(tensor) {
            window
        } else {
            gathered = gather(tensor, window);
            &gathered
        };
        let shape = tensor.shape.clone();
        let dtype_in_file = tensor.dtype;
        Ok(if dtype_in_file.is_float() {
            let mut data = vec![0.0; tensor.numel];
            floats_from_le(elements, dtype_in_file, &mut data);
            Leaf::Float(HostTensor { shape, dtype_in_file, data })
        } else {
            Leaf::Int(IntTensor { shape, dtype_in_file, data: ints_from_le(elements, dtype_in_file) })
        })
    }

    fn to_json(&self, id: Id, depth: usize, budget: &mut JsonBudget) -> Result<Json, WeightsError> {
        let limit = MAX_ENTRIES as u64;
        budget.entries =
            budget.entries.checked_sub(1).ok_or_else(|| self.too_large("the number of values", limit + 1, limit))?;
        let limit = MAX_DEPTH as u64;
        let deeper = || depth.checked_sub(1).ok_or_else(|| self.too_large("the nesting", limit + 1, limit));
        Ok(match self.pickle.get(id) {
            Value::Bool(value) => Json::from(*value),
            Value::Int(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::Str(text) => {
                budget.charge(self, text)?;
                Json::from(&**text)
            }
            Value::List(items) | Value::Tuple(items) => {
                Json::Array(items.iter().map(|&item| self.to_json(item, deeper()?, budget)).collect::<Result<_, _>>()?)
            }
            Value::Dict(entries) => {
                let mut object = serde_json::Map::new();
                for &(key, value) in entries {
                    let key = self.key(key);
                    budget.charge(self, &key)?;
                    object.insert(key, self.to_json(value, deeper()?, budget)?);
                }
                Json::Object(object)
            }
            Value::None
            | Value::Scripted(_)
            | Value::Global(_)
            | Value::Storage(_)
            | Value::Tensor(_)
            | Value::Bytes(_)
            | Value::Letters(_)
            | Value::ArrayType(_)
            | Value::Array(_)
            | Value::Opaque(_) => Json::Null,
        })
    }
}

/// The weights in an open checkpoint, read one at a time.
pub(super) struct CheckpointTensors {
    checkpoint: Checkpoint,
    leaves: Leaves,
    /// Keys of the storages whose checksum was compared.
    verified: HashSet<String>,
}

impl CheckpointTensors {
    /// Finds the weights where [`Checkpoint::state_dict`] does.
    pub(super) fn new(checkpoint: Checkpoint) -> Result<(Self, Inventory), WeightsError> {
        let (leaves, stripped_prefix) = checkpoint.weights()?;
        let mut inventory = Inventory { source: checkpoint.path.clone(), stripped_prefix, ..Inventory::default() };
        for (key, id) in &leaves {
            match checkpoint.pickle.get(*id) {
                Value::Tensor(tensor) => {
                    let info = TensorInfo { shape: tensor.shape.clone(), dtype: tensor.dtype };
                    inventory.tensors.insert(key.clone(), info);
                }
                _ => {
                    inventory.not_tensors.insert(key.clone(), checkpoint.pickle.type_name(*id).to_owned());
                }
            }
        }
        Ok((Self { checkpoint, leaves, verified: HashSet::new() }, inventory))
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Reads one floating-point tensor, `None` where there is none of this name. Gives the file's
    /// pages behind it back to the system.
    pub(super) fn read(&mut self, key: &str) -> Result<Option<HostTensor>, WeightsError> {
        let checkpoint = &self.checkpoint;
        let Some(&id) = self.leaves.get(key) else {
            return Ok(None);
        };
        let Value::Tensor(tensor) = checkpoint.pickle.get(id) else {
            return Ok(None);
        };
        let (storage, blob, _) = checkpoint.storage_of(tensor)?;
        if !self.verified.contains(storage) {
            checkpoint.verify(storage, blob)?;
            self.verified.insert(storage.to_owned());
        }
        let leaf = checkpoint.read_leaf(id)?;
        checkpoint.bytes.release(blob.range.clone());
        Ok(match leaf {
            Leaf::Float(tensor) => Some(tensor),
            Leaf::Int(_) | Leaf::Other(_) => None,
        })
    }
}

/// Takes `prefix` off every key if every key has it.
fn strip_prefix<T>(map: BTreeMap<String, T>, prefix: &'static str) -> (BTreeMap<String, T>, Option<&'static str>) {
    if map.is_empty() || !map.keys().all(|key| key.len() > prefix.len() && key.starts_with(prefix)) {
        return (map, None);
    }
    let stripped = map.into_iter().map(|(key, value)| (key[prefix.len()..].to_owned(), value)).collect();
    (stripped, Some(prefix))
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("storages", &self.storages.len())
            .finish_non_exhaustive()
    }
}

enum Leaf {
    Float(HostTensor),
    Int(IntTensor),
    Other(String),
}

/// The budget left for a conversion to JSON.
struct JsonBudget {
    entries: usize,
    text: usize,
}

impl JsonBudget {
    fn charge(&mut self, checkpoint: &Checkpoint, text: &str) -> Result<(), WeightsError> {
        match self.text.checked_sub(text.len()) {
            Some(left) => {
                self.text = left;
                Ok(())
            }
            None => {
                let limit = MAX_TEXT as u64;
                Err(checkpoint.too_large("the length of its text", limit + 1, limit))
            }
        }
    }
}

/// Tells whether the elements follow each other in row-major order. The stride of a dimension of
/// one element means nothing.
fn is_contiguous(tensor: &Tensor) -> bool {
    let mut expected = 1;
    tensor.numel == 0
        || tensor.shape.iter().zip(&tensor.stride).rev().all(|(&extent, &step)| {
            let fits = extent == 1 || step == expected;
            // Bounded by the number of elements.
            expected *= extent;
            fits
        })
}

/// Bytes of a strided tensor in row-major order. `window` begins at the tensor's first
/// element and holds every element it reaches.
fn gather(tensor: &Tensor, window: &[u8]) -> Vec<u8> {
    let size = tensor.dtype.size();
    let mut out = Vec::with_capacity(tensor.numel * size);
    let mut index = vec![0; tensor.shape.len()];
    let mut at = 0;
    for _ in 0..tensor.numel {
        out.extend_from_slice(&window[at * size..][..size]);
        // Counts like an odometer, moving `at` along. It lies in the window whenever it is
        // used; in between, the stride of a dimension of one element may carry it anywhere.
        for ((digit, &extent), &step) in index.iter_mut().zip(&tensor.shape).zip(&tensor.stride).rev() {
            *digit += 1;
            at = at.wrapping_add(step);
            if *digit < extent {
                break;
            }
            at = at.wrapping_sub(digit.wrapping_mul(step));
            *digit = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_goes_only_if_all_have_it() {
        let map = |keys: &[&str]| keys.iter().map(|key| (key.to_string(), ())).collect::<BTreeMap<_, _>>();
        assert_eq!(strip_prefix(map(&["module.a", "b"]), "module."), (map(&["module.a", "b"]), None));
        assert_eq!(strip_prefix(map(&["module.a", "module."]), "module.").1, None);
        assert_eq!(strip_prefix(map(&["module.a"]), "module."), (map(&["a"]), Some("module.")));
        assert_eq!(strip_prefix(map(&[]), "module.").1, None);
    }
}
