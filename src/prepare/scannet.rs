//! ScanNet (Dai et al., CVPR 2017), as its download script leaves it. Each scene is a folder with
//! `NAME.sens`, `NAME_vh_clean_2.ply`, and labels as a mesh or as segments and groups.

use std::fs;
use std::path::{Path, PathBuf};

use super::frames::{Cameras, link, write_frames};
use super::{Manifest, Outcome, PrepareError, Progress, Settings, Target, check_whole};
use crate::cloud::{CloudError, Field, write_with_fields};
use crate::labels::Preset;
use crate::labels::benchmarks::{SCANNET_TABLE, ScanNetFiles, ScanNetTable, find_table, scannet_labels};
use crate::labels::{LabelsError, SCANNET_LABELS};
use crate::views::{Layout, OpenOptions, open};

/// Number of folder levels that are searched for scenes.
const DEPTH: usize = 4;
const MESH: &str = "_vh_clean_2.ply";

/// A downloaded scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Name of the scene, such as `scene0000_00`.
    pub name: String,
    /// Folder of its files.
    pub folder: PathBuf,
}

impl Download {
    /// Returns the path of the recording.
    #[must_use]
    pub fn sens(&self) -> PathBuf {
        self.folder.join(format!("{}.sens", self.name))
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}{ending}", self.name))
    }

    /// Returns the bytes of the recording, as the expected duration relative to other scenes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        fs::metadata(self.sens()).map_or(1, |file| file.len().max(1))
    }
}

/// Finds the scenes in `root` and in the folders below it, in the order of their names. A scene is a folder
/// with `NAME.sens` or `NAME_vh_clean_2.ply`.
///
/// # Errors
/// [`PrepareError::Io`], and [`PrepareError::Missing`] if there is no scene or two have the same name.
pub fn find(root: &Path) -> Result<Vec<Download>, PrepareError> {
    let mut found = Vec::new();
    walk(root, DEPTH, &mut found)?;
    found.sort_by(|a, b| (&a.name, &a.folder).cmp(&(&b.name, &b.folder)));
    found.dedup();
    if found.is_empty() {
        let expected = "folders with NAME.sens and NAME_vh_clean_2.ply, as ScanNet's download script leaves them";
        return Err(PrepareError::missing(root, "no scene in it or the folders in it", expected));
    }
    if let Some([first, second]) = found.array_windows().find(|[a, b]| a.name == b.name) {
        let said = format!("the scene '{}' is in {} too", first.name, second.folder.display());
        return Err(PrepareError::missing(&first.folder, said, "a name of its own for each scene"));
    }
    Ok(found)
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<Download>) -> Result<(), PrepareError> {
    let io = |error| PrepareError::io(folder, "read", error);
    let before = found.len();
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            folders.push(path);
        } else if let Some(name) = file.strip_suffix(".sens").or_else(|| file.strip_suffix(MESH))
            && !name.is_empty()
        {
            found.push(Download { name: name.to_owned(), folder: folder.to_path_buf() });
        }
    }
    // Folders within a scene's folder belong to the scene.
    if depth > 1 && found.len() == before {
        for path in folders {
            walk(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// Unpacks a scene as the folder `output/NAME`, in ScanNet's layout. It holds every n-th frame as `color`,
/// `depth`, `pose` and `intrinsic`, the mesh, and the labels of its points. The classes of ScanNet200 are
/// added as the property `scannet200` if the download has them and their table is found, up to the folder
/// around `root`.
///
/// The folder appears only when it is complete. An existing one is kept if it has the same files and
/// settings.
///
/// # Errors
/// [`PrepareError`].
pub fn prepare(
    scene: &Download,
    root: &Path,
    output: &Path,
    settings: &Settings,
    progress: &Progress<'_>,
) -> Result<Outcome, PrepareError> {
    settings.check()?;
    let (mesh, sens, labelled) = (scene.file(MESH), scene.sens(), scene.file(&format!("_vh_clean_2{SCANNET_LABELS}")));
    for (path, what) in [(&sens, "the recording"), (&mesh, "the reduced mesh")] {
        if !path.is_file() {
            return Err(PrepareError::missing(path, "is not there", what));
        }
    }
    let segments = ScanNetFiles::of(&scene.folder, &scene.name);
    let table = find_table(&scene.folder, root, SCANNET_TABLE);
    let info = scene.file(".txt");
    let mut sources = vec![sens.clone(), mesh.clone()];
    sources.extend([&labelled, &info].into_iter().filter(|path| path.is_file()).cloned());
    if let Some(ScanNetFiles { groups, segments }) = &segments {
        sources.extend([groups.clone(), segments.clone()]);
        sources.extend(table.as_ref().ok().cloned());
    }
    let mut manifest = Manifest::new("scannet", &scene.name, &sources, settings)?;
    let target = match Target::new(output, &mut manifest)? {
        Ok(target) => target,
        Err(kept) => {
            progress(1.0);
            return Ok(kept);
        }
    };

    let dataset = open(&sens, &OpenOptions { layout: Some(Layout::Sens), ..OpenOptions::default() })?;
    check_whole(&*dataset, &sens)?;
    let every: Vec<usize> = (0..dataset.len()).step_by(settings.frame_step).collect();
    let indices: Vec<usize> = every.iter().copied().filter(|&index| dataset.frames()[index].pose.is_some()).collect();
    if indices.is_empty() {
        let found = format!("none of {} frames has a valid pose", every.len());
        return Err(PrepareError::missing(&sens, found, "frames whose camera was tracked"));
    }
    write_frames(&*dataset, &indices, target.path(), Cameras::One, settings.size, progress)?;
    manifest.frames = indices.len();
    manifest.frames_without_pose = every.len() - indices.len();

    link(&mesh, &target.path().join(format!("{}{MESH}", scene.name)))?;
    if info.is_file() {
        link(&info, &target.path().join(format!("{}.txt", scene.name)))?;
    }
    let to = target.path().join(format!("{}_vh_clean_2{SCANNET_LABELS}", scene.name));
    match (segments, table) {
        (Some(files), Ok(table)) => {
            let labels = scannet_labels(&files, &ScanNetTable::read(&table)?)?;
            let mut fields = vec![Field::new(Preset::SCANNET200.name, labels.scannet200)];
            if !labelled.is_file() {
                fields.push(Field::new("label", labels.nyu40));
            }
            let from = if labelled.is_file() { &labelled } else { &mesh };
            write_with_fields(from, &to, &fields).map_err(|error| match error {
                CloudError::Field { found, .. } => {
                    let expected = format!("a segment for each point of {}", from.display());
                    PrepareError::missing(&files.segments, found, expected)
                }
                error => error.into(),
            })?;
            manifest.labels = vec!["label".into(), Preset::SCANNET200.name.into()];
        }
        (segments, table) => {
            if labelled.is_file() {
                link(&labelled, &to)?;
                manifest.labels = vec!["label".into()];
            }
            let why = match (segments, table) {
                (Some(_), Err(error @ LabelsError::Table { .. })) => error.to_string(),
                _ => format!("no {0}.aggregation.json and {0}_vh_clean_2.0.010000.segs.json", scene.name),
            };
            let lacks = if labelled.is_file() { "no labels of ScanNet200" } else { "no labels" };
            // The result must not depend on paths of this machine.
            manifest.notes.push(lacks.to_owned());
            log::info!("{}: {lacks}: {why}", scene.name);
        }
    }
    target.finish(manifest)
}
