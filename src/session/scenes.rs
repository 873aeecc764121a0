//! Scenes of a folder, whatever its arrangement.

use std::path::{Path, PathBuf};

use super::SessionError;
use super::beside::{SPLITS, is_results, split_of};
use super::source::Source;
use crate::views::{Layout, detect};

/// Depth to which scenes are searched: houses, each with rooms, each with its own folder.
const DEPTH: usize = 2;

/// Finds the scenes at `path`: a scan, a recording, a scene's own folder, a folder of any of these, or a data
/// set of such folders in `train`, `val` and `test`. Folders with results of a labelling are left out.
///
/// # Errors
/// [`SessionError::NoScan`] if there is none, [`SessionError::Io`].
pub fn scenes_at(path: &Path, layout: Option<Layout>) -> Result<Vec<Source>, SessionError> {
    let parts: Vec<PathBuf> = SPLITS.iter().filter_map(|split| split_of(path, split)).collect();
    if parts.is_empty() {
        return below(path, layout, DEPTH);
    }
    let mut sources = Vec::new();
    for part in parts {
        sources.extend(below(&part, layout, DEPTH)?);
    }
    Ok(sources)
}

/// Sources of `folder`, or those of the folders in it if it is not a scene itself.
fn below(folder: &Path, layout: Option<Layout>, depth: usize) -> Result<Vec<Source>, SessionError> {
    let own = Source::at(folder, layout);
    let is_scene = own.iter().flatten().any(|source| source.recording() == Some(folder));
    if depth == 0 || !folder.is_dir() || is_scene {
        return own;
    }
    let io = |source| SessionError::Io { path: folder.to_path_buf(), source };
    let entries = std::fs::read_dir(folder).map_err(io)?;
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    // Pictures in a folder beside scans belong to them.
    let has_scans = own.is_ok();
    let is_wanted = |path: &PathBuf| {
        path.is_dir() && !is_results(path) && !(has_scans && detect(path).is_ok_and(|layout| layout == Layout::Images))
    };
    folders.retain(is_wanted);
    folders.sort();
    let mut sources = Vec::new();
    for folder in &folders {
        // The recording of a scan in `folder` is part of that source.
        let is_taken = own.iter().flatten().any(|source| source.recording() == Some(folder.as_path()));
        if !is_taken && let Ok(found) = below(folder, layout, depth - 1) {
            sources.extend(found);
        }
    }
    match own {
        Ok(own) => Ok(own.into_iter().chain(sources).collect()),
        Err(error) if sources.is_empty() => Err(error),
        Err(_) => Ok(sources),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::touch;

    #[test]
    fn one_scene_is_one_source_however_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for room in ["train/a", "test/b"] {
            let name = room.rsplit('/').next().unwrap();
            touch(root, &[&format!("{room}/color/0.jpg"), &format!("{room}/pose/0.txt")]);
            touch(root, &[&format!("{room}/{name}_vh_clean_2.ply"), &format!("{room}/{name}_vh_clean_2.labels.ply")]);
        }
        let scene = |part: &str, name: &str| {
            let recording = root.join(part).join(name);
            Source::SceneFolder { scan: recording.join(format!("{name}_vh_clean_2.ply")), recording }
        };
        assert_eq!(scenes_at(&root.join("train/a"), None).unwrap(), [scene("train", "a")]);
        assert_eq!(scenes_at(&root.join("test"), None).unwrap(), [scene("test", "b")]);
        assert_eq!(scenes_at(root, None).unwrap(), [scene("train", "a"), scene("test", "b")]);

        // A scan with its recording beside it, and one without.
        touch(root, &["pairs/c.ply", "pairs/d.ply", "pairs/c/color/0.jpg", "pairs/c/pose/0.txt"]);
        touch(root, &["pairs/textures/0.jpg"]);
        let [scan, recording, alone] = ["c.ply", "c", "d.ply"].map(|name| root.join("pairs").join(name));
        let pairs = [Source::SceneFolder { scan, recording }, Source::Scan(alone)];
        assert_eq!(scenes_at(&root.join("pairs"), None).unwrap(), pairs);
        touch(root, &["empty/none.txt"]);
        assert!(matches!(scenes_at(&root.join("empty"), None), Err(SessionError::NoScan { .. })));
    }
}
