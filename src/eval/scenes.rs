//! Labelled scenes on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::labels::{SCANNET_LABELS, is_scannets};
use crate::views::{Layout, detect};

/// How deep scenes are looked for: a folder of splits, each of scenes, each a folder of its own.
const DEPTH: usize = 3;

/// What ScanNet's reduced meshes have behind the scene's name.
const SCANNET_MESH: &str = "_vh_clean_2";

/// A scan with labels, and the recording that it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledScene {
    /// Its name: that of the scan's file, without ScanNet's `_vh_clean_2`.
    pub name: String,
    /// The scan.
    pub scan: PathBuf,
    /// The file with the labels of its points.
    pub labels: PathBuf,
    /// The recording, if there is one.
    pub recording: Option<PathBuf>,
}

/// Why there are no scenes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenesError {
    /// A folder cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No scene is there.
    #[error(
        "{}: no labelled scene in it or {} folders down; expected scans NAME.ply with their labels beside them as NAME{SCANNET_LABELS}",
        folder.display(), DEPTH - 1
    )]
    None {
        /// The folder.
        folder: PathBuf,
    },
    /// Two scenes have one name.
    #[error("{} and {}: both are scene '{name}'; expected a name of its own for each", first.display(), second.display())]
    Twice {
        /// The name.
        name: String,
        /// The labels of one.
        first: PathBuf,
        /// The labels of the other.
        second: PathBuf,
    },
}

/// The labelled scenes in `folder` and its folders, in the order of their names.
///
/// A scene is a pair of `NAME.ply` and `NAME.labels.ply`. Its recording is `NAME.sens` or a recording in the folder `NAME`
/// beside them; or, where a scene has a folder for itself, that folder.
///
/// # Errors
/// [`ScenesError`].
pub fn find_scenes(folder: &Path) -> Result<Vec<LabelledScene>, ScenesError> {
    let mut found = BTreeMap::new();
    walk(folder, DEPTH, &mut found)?;
    if found.is_empty() {
        return Err(ScenesError::None { folder: folder.to_path_buf() });
    }
    Ok(found.into_values().collect())
}

fn walk(folder: &Path, depth: usize, found: &mut BTreeMap<String, LabelledScene>) -> Result<(), ScenesError> {
    let io = |source| ScenesError::Io { path: folder.to_path_buf(), source };
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect()).map_err(io)?;
    entries.sort();
    let labels: Vec<&PathBuf> = entries.iter().filter(|path| is_scannets(path) && path.is_file()).collect();
    for path in &labels {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let base = file.strip_suffix(SCANNET_LABELS).unwrap_or(&file);
        let name = base.strip_suffix(SCANNET_MESH).filter(|name| !name.is_empty()).unwrap_or(base);
        let scene = LabelledScene {
            name: name.to_owned(),
            scan: folder.join(format!("{base}.ply")),
            labels: path.to_path_buf(),
            recording: recording(folder, name, labels.len() == 1),
        };
        if let Some(other) = found.insert(name.to_owned(), scene) {
            return Err(ScenesError::Twice { name: name.to_owned(), first: other.labels, second: path.to_path_buf() });
        }
    }
    // A scene's own folders hold its pictures: many, and no scenes.
    if depth > 1 && labels.is_empty() {
        for path in entries.iter().filter(|path| path.is_dir()) {
            walk(path, depth - 1, found)?;
        }
    }
    Ok(())
}

fn recording(folder: &Path, name: &str, is_alone: bool) -> Option<PathBuf> {
    let is_recording = |path: &Path| detect(path).is_ok_and(|layout| layout != Layout::Images);
    let sens = folder.join(format!("{name}.sens"));
    if sens.is_file() {
        return Some(sens);
    }
    let own = folder.join(name);
    if own.is_dir() && is_recording(&own) {
        return Some(own);
    }
    (is_alone && is_recording(folder)).then(|| folder.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
    }

    #[test]
    fn scenes_are_found_in_folders_and_as_pairs() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert!(find_scenes(root).unwrap_err().to_string().contains("no labelled scene"));
        touch(
            root,
            &[
                "val/scene0011_00/scene0011_00_vh_clean_2.ply",
                "val/scene0011_00/scene0011_00_vh_clean_2.labels.ply",
                "val/scene0011_00/scene0011_00_vh_clean.ply",
                "val/scene0011_00/scene0011_00.sens",
                "train/scene0000_00/scene0000_00_vh_clean_2.labels.ply",
                "pairs/b.ply",
                "pairs/b.labels.ply",
                "pairs/a.ply",
                "pairs/a.labels.ply",
                "pairs/c.ply",
            ],
        );
        let scenes = find_scenes(root).unwrap();
        let names: Vec<&str> = scenes.iter().map(|scene| scene.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "scene0000_00", "scene0011_00"]);
        assert_eq!(scenes[0].scan, root.join("pairs/a.ply"));
        assert_eq!(scenes[3].recording, Some(root.join("val/scene0011_00/scene0011_00.sens")));
        assert_eq!(scenes[3].scan, root.join("val/scene0011_00/scene0011_00_vh_clean_2.ply"));
        assert!(scenes[..3].iter().all(|scene| scene.recording.is_none()));
        touch(root, &["train/a/a.labels.ply"]);
        let message = find_scenes(root).unwrap_err().to_string();
        assert!(message.contains("both are scene 'a'"), "{message}");
    }
}
