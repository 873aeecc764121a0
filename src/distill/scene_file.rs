//! The scenes of a run, prepared on disk.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A prepared scene on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SceneFile {
    /// For messages and logs.
    pub name: String,
    /// Where [`TrainingScene::write`](super::TrainingScene::write) put it.
    pub path: PathBuf,
    /// What it was made of: two files of one key hold the same.
    pub key: String,
}

/// The scenes of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenes {
    /// To learn from.
    pub training: Vec<SceneFile>,
    /// To look how well that goes.
    pub validation: Vec<SceneFile>,
}
