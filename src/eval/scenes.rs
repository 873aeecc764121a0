//! Labelled scenes on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cloud::{PointCloud, recognise};
use crate::labels::benchmarks::{
    MATTERPORT_PRESETS, MATTERPORT_TABLE, MatterportTable, REGIONS, SCANNET_TABLE, ScanNetFiles, ScanNetTable,
    find_table, matterport_labels, region_meshes, scannet_labels, scannet_objects,
};
use crate::labels::{LabelsError, Preset, SCANNET_LABELS, is_scannets, nyu40_from_class, read_labels};
use crate::session::recording_of;

/// Depth to which scenes are searched: a folder of splits, each with scenes, each with its own folder.
const DEPTH: usize = 3;

/// Suffix of ScanNet's reduced meshes after the scene's name.
const SCANNET_MESH: &str = "_vh_clean_2";

/// Property of points that holds the number of their object.
const INSTANCE: &str = "instance";

/// Storage of a scene's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelSource {
    /// A property of the points of a mesh.
    Points,
    /// ScanNet's groups of segments.
    Segments(ScanNetFiles),
    /// Categories of a mesh's faces: Matterport3D.
    Faces,
    /// The scan's own file, with numbers of classes: OpenScene's prepared data.
    Prepared,
}

/// Labels of a scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SceneLabels {
    /// `[N]`: one label per point.
    pub labels: Vec<i64>,
    /// True if they are NYU40 numbers, false if they are class numbers.
    pub are_nyu40: bool,
}

/// Scan with labels, and the recording from which it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledScene {
    /// Its name: that of the scan's file, without ScanNet's `_vh_clean_2`.
    pub name: String,
    /// The scan.
    pub scan: PathBuf,
    /// The file with the labels of its points.
    pub labels: PathBuf,
    /// Storage of the labels in that file.
    pub source: LabelSource,
    /// The recording, if there is one.
    pub recording: Option<PathBuf>,
}

/// Error of finding scenes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenesError {
    /// A folder cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The meshes of a house cannot be listed.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// The folder contains no labelled scene.
    #[error(
        "{}: no labelled scene in this folder or up to {} folders below; expected scans NAME.ply with their labels beside them as \
         NAME{SCANNET_LABELS} or as ScanNet's .aggregation.json and .segs.json, Matterport3D's {REGIONS}, or OpenScene's NAME.pth",
        folder.display(), DEPTH - 1
    )]
    None {
        /// The folder.
        folder: PathBuf,
    },
    /// Two scenes have the same name.
    #[error("{} and {}: both are scene '{name}'; expected different names", first.display(), second.display())]
    Twice {
        /// Name of both scenes.
        name: String,
        /// Labels of the first.
        first: PathBuf,
        /// Labels of the second.
        second: PathBuf,
    },
}

/// Finds the labelled scenes in `folder` and its folders, in the order of their names.
///
/// A scene is one of the following:
/// - a pair of `NAME.ply` and `NAME.labels.ply`;
/// - ScanNet's `NAME_vh_clean_2.ply` with its segments and their groups;
/// - a room of Matterport3D in `SCAN/region_segmentations`, called `SCAN_regionN`, with the recording `SCAN`;
/// - a scene of OpenScene's prepared data, `NAME.pth`. Its recording may lie in the folder `DATA_2d` beside
///   `DATA_3d`, as `NAME` in it or in a folder of the same part, or as `SCAN` for the rooms of Matterport3D.
///
/// The recording of a scene is `NAME.sens` or a recording in the folder `NAME` beside it. If a scene has its
/// own folder, that folder can be the recording.
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
            source: LabelSource::Points,
            recording: recording_of(folder, name, labels.len() == 1),
        };
        insert(scene, found)?;
    }
    if labels.is_empty() {
        raw(folder, &entries, found)?;
        for path in entries.iter().filter(|path| is_prepared(path)) {
            insert(prepared(folder, path), found)?;
        }
    }
    // The folders of a scene hold its pictures: many files, and no scenes.
    if depth > 1 && labels.is_empty() && !folder.join(REGIONS).is_dir() {
        for path in entries.iter().filter(|path| path.is_dir()) {
            walk(path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// True for a scene of OpenScene's prepared data.
fn is_prepared(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "pth") && path.is_file() && recognise(path).is_ok()
}

fn prepared(folder: &Path, path: &Path) -> LabelledScene {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = stem.strip_suffix(SCANNET_MESH).unwrap_or(&stem).to_owned();
    let recording = recording_of(folder, &name, false).or_else(|| recording_of_prepared(folder, &name));
    LabelledScene {
        name,
        scan: path.to_path_buf(),
        labels: path.to_path_buf(),
        source: LabelSource::Prepared,
        recording,
    }
}

/// The recording of the scene `name` in OpenScene's arrangement: beside a folder `DATA_3d`, which may have parts, lies
/// `DATA_2d` with a folder for each scene of ScanNet, or for each house of Matterport3D. nuScenes has the parts there
/// too.
fn recording_of_prepared(folder: &Path, name: &str) -> Option<PathBuf> {
    let absolute = std::path::absolute(folder).ok()?;
    let house = name.rsplit_once("_region").map_or(name, |(house, _)| house);
    absolute.ancestors().take(2).find_map(|folder| {
        let data = folder.file_name()?.to_str()?.split_once("_3d")?.0;
        let pictures = folder.with_file_name(format!("{data}_2d"));
        let part = absolute.strip_prefix(folder).map(|part| pictures.join(part)).unwrap_or_else(|_| pictures.clone());
        [&pictures, &part]
            .into_iter()
            .find_map(|pictures| [name, house].into_iter().find_map(|name| recording_of(pictures, name, false)))
    })
}

fn insert(scene: LabelledScene, found: &mut BTreeMap<String, LabelledScene>) -> Result<(), ScenesError> {
    let (name, second) = (scene.name.clone(), scene.labels.clone());
    match found.insert(name.clone(), scene) {
        Some(other) => Err(ScenesError::Twice { name, first: other.labels, second }),
        None => Ok(()),
    }
}

/// Finds the scenes of a folder in the form in which ScanNet and Matterport3D are downloaded, without
/// labelled meshes.
fn raw(folder: &Path, entries: &[PathBuf], found: &mut BTreeMap<String, LabelledScene>) -> Result<(), ScenesError> {
    let file_name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let scans: Vec<(String, &PathBuf)> = entries
        .iter()
        .filter_map(|path| Some((file_name(path).strip_suffix(".ply")?.strip_suffix(SCANNET_MESH)?.to_owned(), path)))
        .collect();
    for (name, scan) in &scans {
        let Some(files) = ScanNetFiles::of(folder, name) else { continue };
        let scene = LabelledScene {
            name: name.clone(),
            scan: scan.to_path_buf(),
            labels: files.groups.clone(),
            source: LabelSource::Segments(files),
            recording: recording_of(folder, name, scans.len() == 1),
        };
        insert(scene, found)?;
    }
    let house = file_name(&std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf()));
    for mesh in region_meshes(folder)? {
        let region = mesh.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let scene = LabelledScene {
            name: format!("{house}_{region}"),
            scan: mesh.clone(),
            labels: mesh,
            source: LabelSource::Faces,
            recording: recording_of(folder, &house, true),
        };
        insert(scene, found)?;
    }
    Ok(())
}

impl LabelledScene {
    /// Files from which its labels and objects are read. `root` is the folder of all scenes.
    #[must_use]
    pub fn label_files(&self, root: &Path) -> Vec<PathBuf> {
        let mut files = vec![self.labels.clone()];
        let segments = match &self.source {
            LabelSource::Points => self.segments(),
            LabelSource::Segments(files) => Some(files.clone()),
            LabelSource::Faces | LabelSource::Prepared => None,
        };
        if let Some(ScanNetFiles { groups, segments }) = segments {
            files.extend([groups, segments]);
            files.extend(find_table(&self.scan, root, SCANNET_TABLE));
        }
        if self.source == LabelSource::Faces {
            files.extend(find_table(&self.scan, root, MATTERPORT_TABLE));
        }
        files.dedup();
        files
    }

    fn segments(&self) -> Option<ScanNetFiles> {
        ScanNetFiles::of(self.labels.parent()?, &self.name)
    }

    /// Reads the number of the object of every point, if the scene tells objects apart: `instance` of a labelled mesh, or
    /// ScanNet's groups of segments. Objects of different classes may share a number.
    ///
    /// # Errors
    /// [`LabelsError`].
    pub fn read_instances(&self) -> Result<Option<Vec<i64>>, LabelsError> {
        let files = match &self.source {
            LabelSource::Points => {
                if PointCloud::read(&self.labels)?.attribute(INSTANCE).is_some() {
                    return read_labels(&self.labels, INSTANCE).map(Some);
                }
                self.segments()
            }
            LabelSource::Segments(files) => Some(files.clone()),
            LabelSource::Faces | LabelSource::Prepared => None,
        };
        files.as_ref().map(scannet_objects).transpose()
    }

    /// Reads the labels of its points, for the classes of `preset`. `root` is the folder of all scenes.
    ///
    /// A labelled mesh may have a property named after the preset, with class numbers (255: none), as
    /// `prepare` writes it. Otherwise its `label` holds NYU40 numbers. For ScanNet200 the segments and groups
    /// beside the mesh are read. For rooms of Matterport3D the categories of their faces are read. Both use
    /// the table of the data set.
    ///
    /// # Errors
    /// [`LabelsError`].
    pub fn read_labels(&self, root: &Path, preset: &Preset) -> Result<SceneLabels, LabelsError> {
        let other = |expected| LabelsError::OtherClasses { path: self.labels.clone(), preset: preset.name, expected };
        let of_classes =
            |classes: Vec<u8>| SceneLabels { labels: classes.into_iter().map(i64::from).collect(), are_nyu40: false };
        let of_segments = |files: &ScanNetFiles| {
            let table = ScanNetTable::read(&find_table(&self.scan, root, SCANNET_TABLE)?)?;
            scannet_labels(files, &table)
        };
        let nyu40 =
            |labels: Vec<u16>| SceneLabels { labels: labels.into_iter().map(i64::from).collect(), are_nyu40: true };
        let is_scannet200 = preset.name == Preset::SCANNET200.name;
        match &self.source {
            LabelSource::Points => {
                if PointCloud::read(&self.labels)?.attribute(preset.name).is_some() {
                    return Ok(SceneLabels { labels: read_labels(&self.labels, preset.name)?, are_nyu40: false });
                }
                if nyu40_from_class(preset).is_some() {
                    return Ok(SceneLabels { labels: read_labels(&self.labels, "label")?, are_nyu40: true });
                }
                match self.segments().filter(|_| is_scannet200) {
                    Some(files) => Ok(of_classes(of_segments(&files)?.scannet200)),
                    None if is_scannet200 => Err(other(
                        "a property 'scannet200' of the points, or NAME.aggregation.json and \
                         NAME_vh_clean_2.0.010000.segs.json beside the mesh; or --label-ids class, if its 'label' holds classes",
                    )),
                    None => Err(other(
                        "a property of this name, as geopurify prepare writes it; or --label-ids class, if the 'label' of its \
                         points holds classes",
                    )),
                }
            }
            LabelSource::Segments(_) if !is_scannet200 && nyu40_from_class(preset).is_none() => {
                Err(other("a scene of Matterport3D"))
            }
            LabelSource::Segments(files) => {
                let labels = of_segments(files)?;
                Ok(if is_scannet200 { of_classes(labels.scannet200) } else { nyu40(labels.nyu40) })
            }
            LabelSource::Prepared if is_scannet200 => {
                Err(other("a scan with labels of ScanNet200; or --label-ids class, if these are its classes"))
            }
            LabelSource::Prepared => Ok(SceneLabels { labels: read_labels(&self.labels, "label")?, are_nyu40: false }),
            LabelSource::Faces => {
                if is_scannet200 {
                    return Err(other("a scene of ScanNet"));
                }
                let table = MatterportTable::read(&find_table(&self.scan, root, MATTERPORT_TABLE)?)?;
                let labels = matterport_labels(&self.scan, &table)?;
                let own = MATTERPORT_PRESETS.iter().position(|own| own.name == preset.name);
                let classes = own.and_then(|own| labels.classes.into_iter().nth(own));
                Ok(classes.map_or_else(|| nyu40(labels.nyu40), of_classes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::touch;

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

    #[test]
    fn prepared_scenes_find_the_pictures_of_their_part() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let recording = root.join("nuscenes_2d/val/0003");
        touch(&recording, &["color/front.jpg", "pose/front.npy", "K/front.npy"]);
        assert_eq!(recording_of_prepared(&root.join("nuscenes_3d/val"), "0003"), Some(recording));
        assert_eq!(recording_of_prepared(&root.join("nuscenes_3d/train"), "0003"), None);
    }
}
