//! Checkpoints: everything that a run needs to go on as if it had never stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Config, DistillError};
use crate::files;
use crate::weights::{SafetensorsFile, WeightsError};

/// Folder of a run that holds its checkpoints.
const FOLDER: &str = "checkpoints";
/// Key of the description among a file's metadata.
const ABOUT: &str = "geopurify-checkpoint";
/// What a run counts: before the number in a checkpoint's name.
pub const EPOCHS: &str = "epoch-";
/// As [`EPOCHS`], of runs that count the optimizer's steps.
pub const STEPS: &str = "step-";

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Epochs that are done.
    pub epochs: usize,
    /// Steps of the optimizer that are done.
    pub steps: usize,
    /// How the student is trained. In TOML, which keeps every digit of a number.
    #[serde(with = "in_toml")]
    pub config: Config,
    /// What the scenes are, in order: a run goes on with the same.
    pub scenes: Vec<String>,
    /// Channels of the student's input.
    pub input_dim: usize,
    /// Bytes a step may take, which decides where scenes are cropped.
    pub max_memory: u64,
    /// The device the run is on: another one rounds differently.
    pub device: String,
}

/// JSON rounds some numbers when it is read.
mod in_toml {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Config;

    pub fn serialize<S: Serializer>(config: &Config, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&config.to_toml().map_err(S::Error::custom)?)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Config, D::Error> {
        Config::parse(&String::deserialize(deserializer)?, None).map_err(D::Error::custom)
    }
}

/// Where the checkpoint after so many epochs or steps is.
#[must_use]
pub fn path(run: &Path, unit: &str, done: usize) -> PathBuf {
    run.join(FOLDER).join(format!("{unit}{done:05}.safetensors"))
}

/// The checkpoints of a run by the epochs or steps that are done in them, ascending.
///
/// # Errors
/// [`DistillError::Io`] where the folder is there and cannot be listed.
pub fn list(run: &Path, unit: &str) -> Result<Vec<(usize, PathBuf)>, DistillError> {
    let folder = run.join(FOLDER);
    let io = |source| DistillError::Io { path: folder.clone(), source };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let done = name.strip_prefix(unit).and_then(|name| name.strip_suffix(".safetensors"));
        if let Some(done) = done.and_then(|done| done.parse().ok()) {
            found.push((done, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes all checkpoints of a run but the last `keep`.
///
/// # Errors
/// [`DistillError::Io`].
pub fn prune(run: &Path, unit: &str, keep: usize) -> Result<(), DistillError> {
    let all = list(run, unit)?;
    for (_, path) in &all[..all.len().saturating_sub(keep)] {
        std::fs::remove_file(path).map_err(|source| DistillError::Io { path: path.clone(), source })?;
    }
    Ok(())
}

/// The folder of checkpoints, made where it is not there.
///
/// # Errors
/// [`DistillError::Io`].
pub fn make_folder(run: &Path) -> Result<(), DistillError> {
    let folder = run.join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(|source| DistillError::Io { path: folder, source })
}

/// Removes what a run left that was killed while it wrote a checkpoint. The run's folder must be locked.
///
/// # Errors
/// [`DistillError::Io`].
pub fn remove_partials(run: &Path) -> Result<(), DistillError> {
    let folder = run.join(FOLDER);
    let io = |source| DistillError::Io { path: folder.clone(), source };
    for entry in std::fs::read_dir(&folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_string_lossy().starts_with(files::PARTIAL) {
            std::fs::remove_file(entry.path()).map_err(io)?;
        }
    }
    Ok(())
}

/// What a checkpoint says of itself, after its seal was checked.
///
/// # Errors
/// [`DistillError::Run`] for a damaged file and for one that is no checkpoint.
pub fn about<T: DeserializeOwned>(path: &Path) -> Result<T, DistillError> {
    let wrong = |message: String| DistillError::Run { path: path.to_path_buf(), message };
    let whole = || {
        let file = SafetensorsFile::open(path)?;
        file.verify_seal()?;
        Ok(file)
    };
    let file = whole().map_err(|error: WeightsError| {
        wrong(format!("{error}; without this file, --resume goes on from the checkpoint before it"))
    })?;
    let about = file.metadata().and_then(|metadata| metadata.get(ABOUT));
    let about = about.ok_or_else(|| wrong("this is no checkpoint of a training run".to_owned()))?;
    serde_json::from_str(about).map_err(|error| wrong(format!("its description: {error}")))
}

/// The description as a checkpoint's metadata.
///
/// # Errors
/// [`DistillError::Run`] naming `path`.
pub fn metadata(path: &Path, about: &impl Serialize) -> Result<BTreeMap<String, String>, DistillError> {
    let text = serde_json::to_string(about);
    let text = text.map_err(|error| DistillError::Run { path: path.to_path_buf(), message: error.to_string() })?;
    Ok(BTreeMap::from([(ABOUT.to_owned(), text)]))
}
