//! Golden cases on disk: what a reference computed for a fixed input and fixed weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use geopurify::weights::{SafetensorsFile, StateDict};
use serde::Deserialize;
use serde_json::Value;

use crate::manifest::Generated;

/// Where the cases are: the folders of `GEOPURIFY_GOLDEN`, separated as in `PATH`, else `tests/golden`.
pub(crate) fn golden_roots() -> Vec<PathBuf> {
    match std::env::var_os("GEOPURIFY_GOLDEN") {
        Some(folders) => std::env::split_paths(&folders).filter(|folder| !folder.as_os_str().is_empty()).collect(),
        None => vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")],
    }
}

/// How far an output may be from the reference's.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Tolerance {
    /// Largest |a - b| / |b| over the whole tensor.
    pub rel_l2: Option<f64>,
}

/// One directory with a `case.json` and a `tensors.safetensors`.
pub(crate) struct Case {
    pub dir: PathBuf,
    /// Path from the root, with `/`.
    pub name: String,
    pub op: String,
    pub seed: String,
    pub config: Value,
    pub tolerance: BTreeMap<String, Tolerance>,
    /// The weights manifest, if the case has weights.
    pub weights: Option<PathBuf>,
    pub tensors: SafetensorsFile,
}

#[derive(Deserialize)]
struct CaseJson {
    op: String,
    seed: String,
    config: Value,
    tolerance: BTreeMap<String, Tolerance>,
    weights: Option<String>,
}

/// Every case below `roots`, ordered by name.
pub(crate) fn cases(roots: &[PathBuf]) -> Vec<Case> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<Case>) {
        if dir.join("case.json").is_file() {
            found.push(Case::open(root, dir));
        }
        let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for entry in entries.map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                walk(root, &entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    roots.iter().for_each(|root| walk(root, root, &mut found));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

impl Case {
    /// The case in `dir`, named by its path from `root`.
    pub(crate) fn open(root: &Path, dir: &Path) -> Self {
        let path = dir.join("case.json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let json: CaseJson = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let below = dir.strip_prefix(root).unwrap_or(dir);
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        Self {
            dir: dir.to_path_buf(),
            name: parts.join("/"),
            op: json.op,
            seed: json.seed,
            config: json.config,
            tolerance: json.tolerance,
            weights: json.weights.map(|path| dir.join(path)),
            tensors: SafetensorsFile::open(dir.join("tensors.safetensors")).unwrap_or_else(|error| panic!("{error}")),
        }
    }

    /// The case's weights, all generated.
    pub(crate) fn state_dict(&self) -> StateDict {
        self.generated().state_dict()
    }

    /// The case's weights, generated as they are taken.
    pub(crate) fn generated(&self) -> Generated {
        let path = self.weights.as_ref();
        let path = path.unwrap_or_else(|| panic!("{} has no weights", self.name));
        Generated::open(path, &self.seed)
    }

    /// Shape and elements of a floating-point tensor.
    pub(crate) fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let read = || {
            let view = self.tensors.tensor(name)?;
            Ok::<_, geopurify::weights::WeightsError>((view.shape.to_vec(), view.to_f32()?))
        };
        read().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Shape and elements of an integer tensor, each of which must fit.
    pub(crate) fn i32(&self, name: &str) -> (Vec<usize>, Vec<i32>) {
        let read = || {
            let view = self.tensors.tensor(name)?;
            Ok::<_, geopurify::weights::WeightsError>((view.shape.to_vec(), view.to_i64()?))
        };
        let (shape, wide) = read().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let narrow =
            |value| i32::try_from(value).unwrap_or_else(|_| panic!("{}: {name} holds {value}, no i32", self.name));
        (shape, wide.into_iter().map(narrow).collect())
    }
}
