//! Checkpoints: everything a run needs to resume as if it had never stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::RunError;
use crate::files;
use crate::weights::{SafetensorsFile, WeightsError};

/// Folder of the checkpoints within a run's folder.
const FOLDER: &str = "checkpoints";
/// Key of the description in a file's metadata.
const ABOUT: &str = "geopurify-checkpoint";
/// Prefix of checkpoint names of runs that count epochs. The number follows it.
pub(crate) const EPOCHS: &str = "epoch-";
/// Prefix of checkpoint names of runs that count optimizer steps.
pub(crate) const STEPS: &str = "step-";

/// Path of the checkpoint after `done` epochs or steps.
#[must_use]
pub(crate) fn path(run: &Path, unit: &str, done: usize) -> PathBuf {
    run.join(FOLDER).join(format!("{unit}{done:05}.safetensors"))
}

/// Checkpoints of a run, with the number of epochs or steps done, ascending.
///
/// # Errors
/// [`RunError::Io`] if the folder exists and cannot be listed.
pub(crate) fn list(run: &Path, unit: &str) -> Result<Vec<(usize, PathBuf)>, RunError> {
    let folder = run.join(FOLDER);
    let io = |source| RunError::Io { path: folder.clone(), source };
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

/// Removes all checkpoints of a run except the last `keep`.
///
/// # Errors
/// [`RunError::Io`].
pub(crate) fn prune(run: &Path, unit: &str, keep: usize) -> Result<(), RunError> {
    let all = list(run, unit)?;
    for (_, path) in &all[..all.len().saturating_sub(keep)] {
        std::fs::remove_file(path).map_err(|source| RunError::Io { path: path.clone(), source })?;
    }
    Ok(())
}

/// Makes the folder of checkpoints if it is missing.
///
/// # Errors
/// [`RunError::Io`].
pub(crate) fn make_folder(run: &Path) -> Result<(), RunError> {
    let folder = run.join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(|source| RunError::Io { path: folder, source })
}

/// Removes partly written checkpoints of a killed run. The run's folder must be locked.
///
/// # Errors
/// [`RunError::Io`].
pub(crate) fn remove_partials(run: &Path) -> Result<(), RunError> {
    let folder = run.join(FOLDER);
    files::remove_partials(&folder, Duration::ZERO).map_err(|source| RunError::Io { path: folder, source })
}

/// Reads the description in a checkpoint, after checking its seal.
///
/// # Errors
/// [`RunError::Run`] for a damaged file and for one that is not a checkpoint.
pub(crate) fn about<T: DeserializeOwned>(path: &Path) -> Result<T, RunError> {
    let wrong = |message: String| RunError::Run { path: path.to_path_buf(), message };
    let whole = || {
        let file = SafetensorsFile::open(path)?;
        file.verify_seal()?;
        Ok(file)
    };
    let file = whole().map_err(|error: WeightsError| {
        wrong(format!("{error}; without this file, --resume continues from the checkpoint before it"))
    })?;
    let about = file.metadata().and_then(|metadata| metadata.get(ABOUT));
    let about = about.ok_or_else(|| wrong("this is not a checkpoint of a training run".to_owned()))?;
    serde_json::from_str(about).map_err(|error| wrong(format!("its description: {error}")))
}

/// Metadata of a checkpoint that hold its description.
///
/// # Errors
/// [`RunError::Run`] naming `path`.
pub(crate) fn metadata(path: &Path, about: &impl Serialize) -> Result<BTreeMap<String, String>, RunError> {
    let text = serde_json::to_string(about);
    let text = text.map_err(|error| RunError::Run { path: path.to_path_buf(), message: error.to_string() })?;
    Ok(BTreeMap::from([(ABOUT.to_owned(), text)]))
}
