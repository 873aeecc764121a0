//! Real models and surfaces for made rooms: which there are, and reading them.
//!
//! `catalogue.toml` lists the models with their kind, size and origin. A folder holds the files themselves
//! (`scripts/assets` prepares it). Files are not trusted: a model that cannot be read is left out and reported.

mod catalogue;
mod model;
mod tops;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use glam::Vec3;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::picture::Picture;
use super::{Split, SynthError};
use crate::cloud::Wrap;
use crate::images::{Orientation, read_image};

pub(super) use catalogue::ModelKind;
pub(super) use model::{Model, Part};
pub(super) use tops::Level;

use catalogue::Entry;

/// Models and surfaces in a folder, with which [`write_room`](super::write_room) furnishes.
#[derive(Debug)]
pub struct Assets {
    root: PathBuf,
    share: f32,
    entries: Vec<Entry>,
    /// Each model is read when it is first needed.
    models: Vec<OnceLock<Option<Arc<Model>>>>,
    woods: Vec<Wood>,
    num_missing: usize,
    unread: Mutex<BTreeMap<PathBuf, String>>,
    digest: String,
}

/// A picture of wood, and its width on a surface in metres.
#[derive(Clone, Debug)]
pub(super) struct Wood {
    pub picture: Arc<Picture>,
    pub width: f32,
}

/// What a room was furnished from, as in `synth.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssetsInfo {
    /// Number of models that were there.
    pub models: usize,
    /// Share of the furniture that is a model.
    pub share: f32,
    /// Hash of the names and sizes of the models' files.
    pub digest: String,
}

impl Assets {
    /// Looks which models are in `root`. `share` is the share of the furniture that shall be a model, 0 to 1.
    ///
    /// # Errors
    /// [`SynthError::Setting`] for a share out of range, [`SynthError::NoModels`] if there is none,
    /// [`SynthError::Image`] if a picture of a surface cannot be read.
    pub fn open(root: &Path, share: f32) -> Result<Self, SynthError> {
        if !(0.0..=1.0).contains(&share) {
            let found = share.to_string();
            return Err(SynthError::Setting { what: "the share of models", found, expected: "0 to 1" });
        }
        let (known, woods) = catalogue::read()?;
        let num_known = known.len();
        let mut listed = String::new();
        let mut entries = Vec::new();
        for entry in known {
            let path = root.join(&entry.file);
            let Some(size) = path.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len()) else {
                continue;
            };
            listed += &format!("{} {size}\n", entry.file.display());
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(SynthError::NoModels { path: root.to_path_buf(), known: num_known });
        }
        let mut pictures = Vec::new();
        for wood in woods {
            let path = root.join(&wood.file);
            if path.is_file() {
                listed += &format!("{}\n", wood.file.display());
                let picture = Picture::new(&read_image(&path, Orientation::AsStored)?, [1.0; 3], [Wrap::Repeat; 2]);
                pictures.push(Wood { picture: Arc::new(picture), width: wood.width });
            }
        }
        Ok(Self {
            root: root.to_path_buf(),
            share,
            models: entries.iter().map(|_| OnceLock::new()).collect(),
            num_missing: num_known - entries.len(),
            entries,
            woods: pictures,
            unread: Mutex::default(),
            digest: Sha256::digest(listed.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// Returns the number of models that are there, and of those that are known but not there.
    #[must_use]
    pub fn counts(&self) -> [usize; 2] {
        [self.entries.len(), self.num_missing]
    }

    /// Returns the models that could not be read so far, with the reason.
    #[must_use]
    pub fn unreadable(&self) -> Vec<(PathBuf, String)> {
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.iter().map(|(path, why)| (path.clone(), why.clone())).collect()
    }

    /// Returns the models that rooms of a split may have, below the folder.
    #[must_use]
    pub fn models_of(&self, split: Split) -> Vec<&Path> {
        self.entries.iter().filter(|entry| entry.split == split).map(|entry| entry.file.as_path()).collect()
    }

    pub(super) fn info(&self) -> AssetsInfo {
        AssetsInfo { models: self.entries.len(), share: self.share, digest: self.digest.clone() }
    }

    /// Returns the models of a split.
    pub(super) fn stock(&self, split: Split) -> Stock<'_> {
        Stock { assets: self, split }
    }

    /// Returns a model; `None` if it cannot be read.
    fn model(&self, number: usize) -> Option<Arc<Model>> {
        let (entry, place) = (self.entries.get(number)?, self.models.get(number)?);
        let model = place.get_or_init(|| match model::load(&self.root.join(&entry.file), entry) {
            Ok(model) => Some(Arc::new(model)),
            Err(error) => {
                let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
                unread.insert(entry.file.clone(), error.to_string());
                None
            }
        });
        model.clone()
    }
}

/// The models of one split.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stock<'a> {
    assets: &'a Assets,
    split: Split,
}

impl<'a> Stock<'a> {
    pub(super) fn share(&self) -> f32 {
        self.assets.share
    }

    pub(super) fn woods(&self) -> &'a [Wood] {
        &self.assets.woods
    }

    /// Returns the numbers of the models of these kinds whose size `fits`.
    pub(super) fn fitting(&self, kinds: &[ModelKind], fits: impl Fn(Vec3) -> bool) -> Vec<usize> {
        let suits = |entry: &Entry| entry.split == self.split && kinds.contains(&entry.kind) && fits(entry.size);
        (0..self.assets.entries.len()).filter(|&number| suits(&self.assets.entries[number])).collect()
    }

    /// Returns a model with its kind; `None` if it cannot be read.
    pub(super) fn model(&self, number: usize) -> Option<(Arc<Model>, ModelKind)> {
        Some((self.assets.model(number)?, self.assets.entries.get(number)?.kind))
    }
}
