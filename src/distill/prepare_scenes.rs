//! Prepares all scenes of a run.

use std::path::{Path, PathBuf};

use super::{DistillError, Preparer, Scenes};
use crate::session::Source;
use crate::stages::Progress;
use crate::training::RunError;

/// Scenes of a run, as [`prepare_scenes`] leaves them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreparedScenes {
    /// Scenes that are ready.
    pub scenes: Scenes,
    /// Scenes, and frames of recordings without poses, that could not be prepared.
    pub failed: Vec<String>,
}

/// Prepares the scenes `training` and `validation`. A scene that fails is told to `on_failed`. The others are
/// prepared all the same, and stay in the cache.
///
/// # Errors
/// [`DistillError::Mismatch`] if a scene is in both.
pub fn prepare_scenes(
    preparer: &mut Preparer<'_>,
    [training, validation]: [&[Source]; 2],
    progress: &mut Progress<'_>,
    on_failed: &mut dyn FnMut(&Source, DistillError),
) -> Result<PreparedScenes, DistillError> {
    let mut prepared = PreparedScenes::default();
    let PreparedScenes { scenes, failed } = &mut prepared;
    for (sources, files) in [(training, &mut scenes.training), (validation, &mut scenes.validation)] {
        for source in sources {
            match preparer.prepare(source, progress) {
                Ok(found) => files.extend(found),
                Err(error) => {
                    on_failed(source, error);
                    failed.push(source.path().display().to_string());
                }
            }
        }
    }
    failed.extend_from_slice(preparer.failed());
    let is_both = |held: &&super::SceneFile| scenes.training.iter().any(|scene| scene.key == held.key);
    match scenes.validation.iter().find(is_both) {
        Some(both) => Err(DistillError::Mismatch {
            scene: both.name.clone(),
            message: "a scene to learn from cannot be one to validate on".to_owned(),
        }),
        None => Ok(prepared),
    }
}

/// Makes the folder for prepared scenes if it does not exist, and returns its absolute path. The default is
/// `geopurify/training` in the user's cache folder.
///
/// # Errors
/// [`DistillError::NoCacheFolder`] if this user has none, [`DistillError::CacheNotText`], [`DistillError::Run`].
pub fn cache_folder(given: Option<&Path>) -> Result<PathBuf, DistillError> {
    let usual = || Some(dirs::cache_dir()?.join("geopurify/training"));
    let folder = given.map(Path::to_path_buf).or_else(usual).ok_or(DistillError::NoCacheFolder)?;
    let made = std::fs::create_dir_all(&folder);
    // A run's list of scenes must find the files from any folder.
    let absolute = made.and_then(|()| std::path::absolute(&folder));
    let absolute = absolute.map_err(|source| RunError::Io { path: folder, source })?;
    // The list is JSON, whose text is UTF-8.
    if absolute.to_str().is_none() {
        return Err(DistillError::CacheNotText { path: absolute });
    }
    Ok(absolute)
}
