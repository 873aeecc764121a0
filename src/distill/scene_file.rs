//! Prepared scenes of a run, on disk.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A prepared scene on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SceneFile {
    /// Name, for messages and logs.
    pub name: String,
    /// File written by [`TrainingScene::write`](super::TrainingScene::write).
    pub path: PathBuf,
    /// Key of its sources: two files with the same key have the same content.
    pub key: String,
}

/// The scenes of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenes {
    /// Scenes for training.
    pub training: Vec<SceneFile>,
    /// Scenes for validation.
    pub validation: Vec<SceneFile>,
}
