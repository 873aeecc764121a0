//! Weights of the golden cases. They are never stored: each element follows from the seed, the
//! tensor's name and its index.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use geopurify::weights::{Dtype, HostTensor, Inventory, StateDict, TensorInfo, TensorSource, WeightsError};
use rayon::prelude::*;
use serde::Deserialize;

/// A `<model>.weights.json`: the floating-point tensors of a model and how they are filled.
#[derive(Deserialize)]
struct Manifest {
    tensors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    center: f64,
    scale: f64,
}

/// The weights that a manifest gives with a seed, made when they are taken.
pub(crate) struct Generated {
    entries: BTreeMap<String, Entry>,
    inventory: Inventory,
    seed: String,
}

impl Generated {
    pub(crate) fn open(path: &Path, seed: &str) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let manifest: Manifest =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let info = |entry: &Entry| TensorInfo { shape: entry.shape.clone(), dtype: Dtype::F32 };
        let inventory = Inventory {
            source: path.to_path_buf(),
            tensors: manifest.tensors.iter().map(|entry| (entry.name.clone(), info(entry))).collect(),
            ..Inventory::default()
        };
        let entries = manifest.tensors.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        Self { entries, inventory, seed: seed.to_owned() }
    }

    pub(crate) fn state_dict(&self) -> StateDict {
        let tensors = self.entries.values().map(|entry| (entry.name.clone(), self.tensor(entry))).collect();
        StateDict { source: self.inventory.source.clone(), tensors, ..StateDict::default() }
    }

    fn tensor(&self, entry: &Entry) -> HostTensor {
        let key = fnv1a64(&format!("{}/{}", self.seed, entry.name));
        let len = entry.shape.iter().product::<usize>() as u64;
        let value = |i| (entry.center + entry.scale * (2.0 * uniform(key, i) - 1.0)) as f32;
        let data = (0..len).into_par_iter().map(value).collect();
        HostTensor { shape: entry.shape.clone(), dtype_in_file: Dtype::F32, data }
    }
}

impl TensorSource for Generated {
    fn inventory(&self) -> Cow<'_, Inventory> {
        Cow::Borrowed(&self.inventory)
    }

    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        let entry = &self.entries[key];
        assert_eq!(entry.shape, shape, "{key}");
        Ok(self.tensor(entry))
    }
}

fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Number `index` of the stream `key`, in [0, 1).
fn uniform(key: u64, index: u64) -> f64 {
    let mut z = key.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f64 / (1u64 << 24) as f64
}
