//! Class histograms of labelled scans, which [`select`](super::select) chooses from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::select::{SceneMetrics, SelectError};
use crate::labels::{LabelIds, SCANNET_LABELS, classes_from_nyu40, is_scannets, nyu40, read_labels};

/// Number of folder levels that are searched: a folder of scenes, with a folder for each scene.
const DEPTH: usize = 3;

/// What to count in labelled scans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountSettings {
    /// Number of classes. Their labels are 0 and up.
    pub num_classes: usize,
    /// Labels that are not counted.
    pub ignore: Vec<i64>,
    /// Meaning of the label numbers. By default NYU40 numbers in ScanNet's meshes, otherwise class numbers.
    pub label_ids: LabelIds,
    /// Property of the points that holds the labels.
    pub field: String,
}

/// Counted scenes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    /// Scenes with at least one counted label, in the order of their names.
    pub scenes: Vec<SceneMetrics>,
    /// Names of the scenes without one.
    pub left_out: Vec<String>,
}

/// Counts the labels of all `inputs`: labelled scans, or folders with labelled PLY files up to two levels
/// down. If a folder has meshes of ScanNet (`NAME.labels.ply`), only these are counted.
///
/// # Errors
/// [`SelectError::NoScans`], [`SelectError::SameName`], [`SelectError::Labels`],
/// [`SelectError::TooFewClasses`], [`SelectError::LabelInScan`], [`SelectError::Io`].
pub fn count_labels(inputs: &[PathBuf], settings: &CountSettings) -> Result<Counted, SelectError> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for input in inputs {
        let found = if input.is_dir() { labelled_files(input)? } else { vec![input.clone()] };
        for path in found {
            let scene = scene_name(&path);
            if let Some(first) = files.insert(scene.clone(), path.clone()).filter(|first| *first != path) {
                return Err(SelectError::SameName { first, second: path, scene });
            }
        }
    }
    let files: Vec<(String, PathBuf)> = files.into_iter().collect();
    let counted: Vec<_> =
        files.par_iter().map(|(scene, path)| count_file(scene, path, settings)).collect::<Result<_, _>>()?;
    let mut result = Counted::default();
    for (metrics, (scene, _)) in counted.into_iter().zip(files) {
        match metrics {
            Some(metrics) => result.scenes.push(metrics),
            None => result.left_out.push(scene),
        }
    }
    Ok(result)
}

/// Returns the labelled PLY files below `folder`, in the order of their names: only ScanNet's, if there are
/// any.
fn labelled_files(folder: &Path) -> Result<Vec<PathBuf>, SelectError> {
    fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), SelectError> {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(|source| SelectError::Io { path: folder.into(), action: "read", source })?;
        entries.sort();
        for path in entries {
            if path.is_dir() {
                if depth > 1 {
                    walk(&path, depth - 1, found)?;
                }
            } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("ply")) {
                found.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(folder, DEPTH, &mut found)?;
    if found.iter().any(|path| is_scannets(path)) {
        found.retain(|path| is_scannets(path));
    }
    if found.is_empty() {
        return Err(SelectError::NoScans { folder: folder.into(), levels: DEPTH - 1 });
    }
    Ok(found)
}

/// Returns a scene's name: the file's name without its ending.
fn scene_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    match name.strip_suffix(SCANNET_LABELS) {
        Some(name) => name.to_owned(),
        None => path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
    }
}

fn count_file(scene: &str, path: &Path, settings: &CountSettings) -> Result<Option<SceneMetrics>, SelectError> {
    let mut labels = read_labels(path, &settings.field)?;
    let is_nyu40 = match settings.label_ids {
        LabelIds::Auto => is_scannets(path),
        ids => ids == LabelIds::Nyu40,
    };
    let num_classes = settings.num_classes;
    if is_nyu40 && num_classes < nyu40::SCANNET20.len() {
        return Err(SelectError::TooFewClasses { path: path.into(), num_classes });
    }
    let mut ignore = settings.ignore.clone();
    if is_nyu40 {
        // Outside the values of every label set, so that it is not mistaken for a class.
        const OTHER: i64 = i64::MIN;
        ignore.push(OTHER);
        classes_from_nyu40(&mut labels, &nyu40::SCANNET20.map(i64::from), OTHER);
    }
    SceneMetrics::of_labels(scene, labels, num_classes, &ignore).map_err(|error| match error {
        SelectError::Label { point, label, .. } => {
            let expected = if is_nyu40 {
                format!("NYU40's 0 to {}", nyu40::LARGEST)
            } else {
                format!("0 to {}", num_classes.saturating_sub(1))
            };
            SelectError::LabelInScan { path: path.into(), point, label, expected }
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_are_called_as_their_files() {
        let name = |path: &str| scene_name(Path::new(path));
        assert_eq!(name("a/scene0000_00_vh_clean_2.labels.ply"), "scene0000_00_vh_clean_2");
        assert_eq!(name("room.v2.ply"), "room.v2");
        assert_eq!(name("room"), "room");
    }
}
