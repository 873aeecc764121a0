//! What belongs together on disk: the scan in a recording's folder, the recording beside a scan, and the
//! parts of a data set.

use std::path::{Path, PathBuf};

use crate::pipeline::SUMMARY_FILE;
use crate::views::{Layout, detect};

/// Extensions by which scans in a folder are found. Plain text can be anything, so such files must be given
/// by name.
pub const SCAN_EXTENSIONS: [&str; 15] =
    ["ply", "las", "laz", "pcd", "e57", "xyz", "pts", "ptx", "spz", "splat", "obj", "gltf", "glb", "stl", "off"];

/// Folders into which data sets are divided.
pub(super) const SPLITS: [&str; 3] = ["train", "val", "test"];

/// Suffix of ScanNet's reduced meshes after the scene's name.
const REDUCED_MESH: &str = "_vh_clean_2.ply";
/// Suffix of meshes with true labels. They show the scan beside them once more.
const LABELS: &str = ".labels.ply";
/// Points that a reconstruction leaves beside its pictures. They are too few to be the scan.
const SPARSE: [&str; 2] = ["sparse_pc.ply", "points3d.ply"];
/// Beginnings of the names of results.
const RESULTS: [&str; 3] = ["labelled.", "labels-coloured.", "query-"];

/// Scans in `folder`, sorted by name. Meshes with true labels and results are left out.
///
/// # Errors
/// The system's error if the folder cannot be listed.
pub(super) fn scans_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?;
    let mut scans: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    scans.retain(|path| {
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        path.is_file() && SCAN_EXTENSIONS.contains(&extension.as_str()) && !is_copy(path)
    });
    scans.sort();
    Ok(scans)
}

/// True for a mesh with true labels beside its scan, and for results of a labelling.
fn is_copy(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let scan = name.strip_suffix(LABELS).map(|name| path.with_file_name(format!("{name}.ply")));
    scan.is_some_and(|scan| scan.is_file()) || path.parent().is_some_and(is_results) && is_result(path)
}

/// True if `path` is called like a labelled scan or an answer.
pub(super) fn is_result(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    RESULTS.iter().any(|start| name.starts_with(start)) && ["ply", "las", "laz", "png"].contains(&&*extension)
}

/// True if `folder` holds results of a labelling.
#[must_use]
pub fn is_results(folder: &Path) -> bool {
    folder.join(SUMMARY_FILE).is_file() && folder.join(crate::query::saved::FILE_NAME).is_file()
}

/// True if `folder` holds results of a labelling, and neither a scan nor a recording beside them.
#[must_use]
pub fn holds_only_results(folder: &Path) -> bool {
    is_results(folder)
        && scans_in(folder).is_ok_and(|scans| scans.is_empty())
        // The sheet of the results is a picture.
        && !detect(folder).is_ok_and(|layout| layout != Layout::Images)
}

/// The scan of the recording in `folder`: ScanNet's reduced mesh, else a scan of the folder's name, else the
/// only one.
#[must_use]
pub(super) fn scan_of(folder: &Path) -> Option<PathBuf> {
    let mut scans = scans_in(folder).ok()?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    scans.retain(|path| !SPARSE.contains(&name(path).to_ascii_lowercase().as_str()));
    let reduced = scans.iter().find(|path| name(path).ends_with(REDUCED_MESH));
    let own = || scans.iter().find(|path| path.file_stem() == folder.file_name());
    let only = || scans.first().filter(|_| scans.len() == 1);
    reduced.or_else(own).or_else(only).cloned()
}

/// The recording of a scan called `name` in `folder`: `NAME.sens`, or a recording in the folder `NAME`, or
/// `folder` itself if the scan `is_alone` in it.
#[must_use]
pub fn recording_of(folder: &Path, name: &str, is_alone: bool) -> Option<PathBuf> {
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

/// The part `split` of a data set: `folder/split` if the folder is divided into two or more of `train`, `val` and `test`.
#[must_use]
pub fn split_of(folder: &Path, split: &str) -> Option<PathBuf> {
    let part = folder.join(split);
    let count = SPLITS.iter().filter(|split| folder.join(split).is_dir()).count();
    (count > 1 && part.is_dir()).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::touch;

    #[test]
    fn a_scan_is_found_beside_its_recording() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, &["a/a_vh_clean_2.ply", "a/a_vh_clean_2.labels.ply", "a/a_vh_clean.ply"]);
        touch(root, &["b/b.ply", "b/other.ply", "c/mesh.obj", "c/sparse_pc.ply", "d/one.ply", "d/two.ply"]);
        assert_eq!(scan_of(&root.join("a")), Some(root.join("a/a_vh_clean_2.ply")));
        assert_eq!(scan_of(&root.join("b")), Some(root.join("b/b.ply")));
        assert_eq!(scan_of(&root.join("c")), Some(root.join("c/mesh.obj")));
        assert_eq!(scan_of(&root.join("d")), None);
        assert_eq!(scans_in(&root.join("a")).unwrap().len(), 2);
    }

    #[test]
    fn results_are_no_scans() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, &["labelled.ply", "query-chair.ply"]);
        assert_eq!(scans_in(root).unwrap().len(), 2);
        touch(root, &["summary.json", "features.safetensors"]);
        touch(root, &["sheet.png"]);
        assert!(is_results(root) && scans_in(root).unwrap().is_empty() && holds_only_results(root));
        touch(root, &["room.ply"]);
        assert!(!holds_only_results(root));
    }

    #[test]
    fn a_data_set_is_told_by_its_parts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, &["test/room/room.ply"]);
        assert_eq!(split_of(root, "test"), None);
        touch(root, &["train/room/room.ply"]);
        assert_eq!(split_of(root, "test"), Some(root.join("test")));
        assert_eq!(split_of(root, "val"), None);
    }
}
