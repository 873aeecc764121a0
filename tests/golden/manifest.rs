//! Weights of the golden cases. They are never stored: each element follows from the seed, the
//! tensor's name and its index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use geopurify::weights::{Dtype, HostTensor, StateDict};
use serde::Deserialize;

/// A `<model>.weights.json`: the floating-point tensors of a model and how they are filled.
#[derive(Deserialize)]
pub struct Manifest {
    tensors: Vec<Entry>,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    center: f64,
    scale: f64,
}

impl Manifest {
    pub fn open(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let manifest: Self = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path: path.to_path_buf(), ..manifest }
    }

    /// The weights that belong to `seed`.
    pub fn state_dict(&self, seed: &str) -> StateDict {
        let tensors: BTreeMap<_, _> = self
            .tensors
            .iter()
            .map(|entry| {
                let key = fnv1a64(&format!("{seed}/{}", entry.name));
                let len = entry.shape.iter().product::<usize>() as u64;
                let tensor = HostTensor {
                    shape: entry.shape.clone(),
                    dtype_in_file: Dtype::F32,
                    data: (0..len)
                        .map(|i| (entry.center + entry.scale * (2.0 * uniform(key, i) - 1.0)) as f32)
                        .collect(),
                };
                (entry.name.clone(), tensor)
            })
            .collect();
        StateDict { source: self.path.clone(), tensors, ..StateDict::default() }
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
