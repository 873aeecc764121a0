//! Matterport3D (Chang et al., 3DV 2017), as its download script leaves it. Each scan is a folder with zip
//! archives or their contents, or one archive with everything.

use std::fs;
use std::path::{Path, PathBuf};

use glam::DVec3;
use rayon::prelude::*;

use super::frames::{Cameras, FOLDERS, link, write_frames};
use super::unzip::unzip;
use super::{Manifest, Outcome, PrepareError, Progress, Settings, Target, check_whole};
use crate::cloud::{CloudError, Field, PointCloud, write_with_fields};
use crate::labels::SCANNET_LABELS;
use crate::labels::benchmarks::{
    MATTERPORT_PRESETS, MATTERPORT_TABLE, MatterportTable, REGIONS, find_table, matterport_labels, region_meshes,
};
use crate::views::{Dataset, Layout, OpenOptions, open};

/// Required parts of a scan.
const PARTS: [&str; 4] =
    ["undistorted_color_images", "undistorted_depth_images", "undistorted_camera_parameters", REGIONS];

/// Number of folder levels that are searched for scans.
const DEPTH: usize = 4;
/// Number of points of a room that are looked for in the depth maps.
const SITES: usize = 4096;
/// Least share of these points that a frame must see to belong to the room.
const SEEN: f64 = 0.01;
/// Largest distance of a point from the depth map, as a share of the depth there.
const DEPTH_TOLERANCE: f64 = 0.05;
/// Folder for frames and unpacked files until they are in the rooms' folders.
const STAGE: &str = "stage";
const UNPACKED: &str = "unpacked";

/// A part of a downloaded scan.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Folder(PathBuf),
    Archive(PathBuf),
}

/// A downloaded scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Name of the scan, such as `17DRP5sb8fy`.
    pub name: String,
    /// Its folder or archive.
    pub path: PathBuf,
    /// Source of each of [`PARTS`], if it is there.
    parts: Vec<Option<Part>>,
}

impl Download {
    /// Returns the scan in the folder `path`, if it holds any of the parts.
    fn in_folder(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let part = |part: &str| {
            // The data set's archives, if unpacked in place, make a folder with the scan's name.
            let folders = [path.join(part), path.join(&name).join(part)];
            let folder = folders.into_iter().find(|folder| folder.is_dir()).map(Part::Folder);
            folder.or_else(|| {
                let archive = path.join(format!("{part}.zip"));
                archive.is_file().then_some(Part::Archive(archive))
            })
        };
        let parts: Vec<Option<Part>> = PARTS.map(part).to_vec();
        parts.iter().any(Option::is_some).then(|| Self { name, path: path.to_path_buf(), parts })
    }

    /// Returns the scan in the archive `path` with all parts, if the archive's name is that of a scan.
    fn in_archive(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".zip")?.to_owned();
        let is_name = name.len() == 11 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let parts = vec![Some(Part::Archive(path.to_path_buf())); PARTS.len()];
        is_name.then(|| Self { name, path: path.to_path_buf(), parts })
    }

    /// Returns the archives, each once.
    fn archives(&self) -> Vec<&Path> {
        let mut archives: Vec<&Path> = self
            .parts
            .iter()
            .filter_map(|part| match part {
                Some(Part::Archive(path)) => Some(path.as_path()),
                _ => None,
            })
            .collect();
        archives.dedup();
        archives
    }

    /// Returns the expected duration, relative to other scans: bytes of archives, or files of pictures.
    #[must_use]
    pub fn weight(&self) -> u64 {
        // Typical size of a picture with its depth map.
        const PICTURE: u64 = 1 << 20;
        let bytes: u64 = self.archives().iter().map(|path| fs::metadata(path).map_or(0, |file| file.len())).sum();
        let pictures = match self.parts.first() {
            Some(Some(Part::Folder(folder))) => fs::read_dir(folder).map_or(0, |entries| entries.count() as u64),
            _ => 0,
        };
        (bytes + PICTURE * pictures).max(1)
    }
}

/// Finds the scans in `root` and in the folders below it, in the order of their names.
///
/// # Errors
/// [`PrepareError::Io`], and [`PrepareError::Missing`] if there is no scan or two have the same name.
pub fn find(root: &Path) -> Result<Vec<Download>, PrepareError> {
    let absolute = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
    let mut found = Vec::new();
    walk(&absolute, DEPTH, &mut found)?;
    found.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
    if found.is_empty() {
        let expected = format!("folders with {}, or these as .zip", PARTS.join(", "));
        return Err(PrepareError::missing(root, "no scan in it or the folders in it", expected));
    }
    if let Some([first, second]) = found.array_windows().find(|[a, b]| a.name == b.name) {
        let said = format!("the scan '{}' is at {} too", first.name, second.path.display());
        return Err(PrepareError::missing(&first.path, said, "a name of its own for each scan"));
    }
    Ok(found)
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<Download>) -> Result<(), PrepareError> {
    if let Some(download) = Download::in_folder(folder) {
        found.push(download);
        return Ok(());
    }
    let io = |error| PrepareError::io(folder, "read", error);
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if !path.is_dir() {
            found.extend(Download::in_archive(&path));
        } else if depth > 1 {
            walk(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// Unpacks a scan as the folder `output/SCAN`, with a folder `SCAN_regionN` for each room of
/// `region_segmentations`. A room's folder holds its mesh, the labels of its points for all of Matterport3D's
/// presets, and the frames that see at least 1 % of it, as `color`, `depth`, `pose` and `intrinsic`.
/// Matterport3D's table says what the labels mean. It is looked for up to the folder around `root`.
///
/// The folder appears only when it is complete. An existing one is kept if it has the same files and
/// settings.
///
/// # Errors
/// [`PrepareError`].
pub fn prepare(
    scan: &Download,
    root: &Path,
    output: &Path,
    settings: &Settings,
    progress: &Progress<'_>,
) -> Result<Outcome, PrepareError> {
    settings.check()?;
    for (part, name) in scan.parts.iter().zip(PARTS) {
        if part.is_none() {
            return Err(PrepareError::missing(&scan.path, format!("no {name}"), format!("{name} or {name}.zip")));
        }
    }
    let table_path = find_table(&scan.path, root, MATTERPORT_TABLE)?;
    let table = MatterportTable::read(&table_path)?;
    let mut sources: Vec<PathBuf> = scan.archives().into_iter().map(Path::to_path_buf).collect();
    sources.push(table_path);
    for part in scan.parts.iter().flatten() {
        if let Part::Folder(folder) = part {
            sources.extend(files_in(folder)?);
        }
    }
    let mut manifest = Manifest::new("matterport", &scan.name, &sources, settings)?;
    let target = match Target::new(output, &mut manifest)? {
        Ok(target) => target,
        Err(kept) => {
            progress(1.0);
            return Ok(kept);
        }
    };
    // Shares of the work: unpacking, frames, rooms.
    let part = |share: f64| move |done: f64| progress(share * done);
    let unpacked = gather(scan, &target.path().join(UNPACKED))?;
    progress(0.3);

    let options = OpenOptions { layout: Some(Layout::Matterport), ..OpenOptions::default() };
    let dataset = open(&unpacked, &options)?;
    check_whole(&*dataset, &unpacked)?;
    let every: Vec<usize> = (0..dataset.len()).step_by(settings.frame_step).collect();
    let indices: Vec<usize> = every.iter().copied().filter(|&index| dataset.frames()[index].pose.is_some()).collect();
    let meshes = region_meshes(&unpacked)?;
    if meshes.is_empty() {
        let expected = format!("{REGIONS}/region0.ply and further ones");
        return Err(PrepareError::missing(&scan.path, "no rooms with labels", expected));
    }
    let sites =
        meshes.par_iter().map(|mesh| Ok(sites(&PointCloud::read(mesh)?))).collect::<Result<Vec<_>, CloudError>>()?;
    let seen: Vec<Vec<bool>> =
        indices.par_iter().map(|&index| rooms_seen(&*dataset, index, &sites)).collect::<Result<_, PrepareError>>()?;
    progress(0.2);
    let wanted: Vec<usize> =
        (indices.iter().zip(&seen)).filter(|(_, seen)| seen.contains(&true)).map(|(&index, _)| index).collect();
    let stage = target.path().join(STAGE);
    write_frames(&*dataset, &wanted, &stage, Cameras::Each, settings.size, &part(0.3))?;

    let share = part(0.2);
    let num_rooms = meshes.len() as f64;
    meshes.par_iter().enumerate().try_for_each(|(room, mesh)| {
        let region = mesh.file_stem().unwrap_or_default().to_string_lossy();
        let name = format!("{}_{region}", scan.name);
        let folder = target.path().join(&name);
        // A room without frames is no recording, and should not look like one.
        let is_seen = seen.iter().any(|seen| seen[room]);
        for path in FOLDERS.iter().filter(|_| is_seen).map(|part| folder.join(part)).chain([folder.clone()]) {
            fs::create_dir_all(&path).map_err(|error| PrepareError::io(&path, "create", error))?;
        }
        for (&index, seen) in indices.iter().zip(&seen) {
            let Some(frame) = dataset.frames().get(index).filter(|_| seen[room]) else { continue };
            for (part, extensions) in FOLDERS.iter().zip([&["jpg", "jpeg", "png"][..], &["png"], &["txt"], &["txt"]]) {
                for extension in extensions {
                    let file = format!("{}.{extension}", frame.name);
                    let from = stage.join(part).join(&file);
                    if from.is_file() {
                        link(&from, &folder.join(part).join(&file))?;
                    }
                }
            }
        }
        link(mesh, &folder.join(format!("{name}.ply")))?;
        let labels = matterport_labels(mesh, &table)?;
        let mut fields = vec![Field::new("label", labels.nyu40)];
        fields.extend(
            MATTERPORT_PRESETS.iter().zip(labels.classes).map(|(preset, classes)| Field::new(preset.name, classes)),
        );
        write_with_fields(mesh, &folder.join(format!("{name}{SCANNET_LABELS}")), &fields)?;
        share(1.0 / num_rooms);
        Ok::<_, PrepareError>(())
    })?;
    manifest.frames = wanted.len();
    manifest.frames_without_pose = every.len() - indices.len();
    manifest.regions = meshes.len();
    manifest.labels =
        std::iter::once("label").chain(MATTERPORT_PRESETS.map(|preset| preset.name)).map(String::from).collect();
    let unseen = (0..meshes.len()).filter(|&room| seen.iter().all(|seen| !seen[room])).count();
    if unseen > 0 {
        manifest.notes.push(format!("{unseen} rooms are seen by no frame"));
    }
    drop(dataset);
    for path in [stage, target.path().join(UNPACKED)] {
        if path.exists() {
            fs::remove_dir_all(&path).map_err(|error| PrepareError::io(&path, "remove", error))?;
        }
    }
    target.finish(manifest)
}

/// Returns the files in a folder, in the order of their names.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, PrepareError> {
    let io = |error| PrepareError::io(folder, "read", error);
    let entries = fs::read_dir(folder).map_err(io)?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>().map_err(io)?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// Returns a folder with all parts: that of the download, or `to`, into which the parts are unpacked or
/// linked.
fn gather(scan: &Download, to: &Path) -> Result<PathBuf, PrepareError> {
    let parents: Vec<Option<&Path>> = scan
        .parts
        .iter()
        .map(|part| match part {
            Some(Part::Folder(folder)) => folder.parent(),
            _ => None,
        })
        .collect();
    if let Some(&Some(parent)) = parents.first()
        && parents.iter().all(|other| *other == Some(parent))
    {
        return Ok(parent.to_path_buf());
    }
    for (part, name) in scan.parts.iter().zip(PARTS) {
        if let Some(Part::Folder(folder)) = part {
            let into = to.join(name);
            fs::create_dir_all(&into).map_err(|error| PrepareError::io(&into, "create", error))?;
            for file in files_in(folder)? {
                link(&file, &into.join(file.file_name().unwrap_or_default()))?;
            }
        }
    }
    for archive in scan.archives() {
        let of_it: Vec<&str> = (scan.parts.iter().zip(PARTS))
            .filter(|(part, _)| matches!(part, Some(Part::Archive(path)) if path == archive))
            .map(|(_, name)| name)
            .collect();
        unzip(archive, to, &of_it)?;
        for name in of_it {
            if files_in(&to.join(name))?.is_empty() {
                return Err(PrepareError::missing(
                    archive,
                    format!("no files of {name} in it"),
                    format!("{name}/FILE"),
                ));
            }
        }
    }
    Ok(to.to_path_buf())
}

/// Returns points of a room, evenly spread over its file.
fn sites(cloud: &PointCloud) -> Vec<DVec3> {
    let step = cloud.len().div_ceil(SITES).max(1);
    let finite = |i: &usize| cloud.is_finite(*i);
    (0..cloud.len()).step_by(step).filter(finite).map(|i| DVec3::from(cloud.positions[i])).collect()
}

/// Returns for each room whether a frame sees enough of it.
fn rooms_seen(dataset: &dyn Dataset, index: usize, sites: &[Vec<DVec3>]) -> Result<Vec<bool>, PrepareError> {
    let frame = dataset.frames().get(index);
    let nothing = || vec![false; sites.len()];
    let Some((pose, camera)) = frame.and_then(|frame| Some((frame.pose_of_depth()?, frame.depth?))) else {
        return Ok(nothing());
    };
    let Some(depth) = dataset.depth(index)? else { return Ok(nothing()) };
    let to_camera = pose.rotation().transpose();
    let is_seen = |site: &&DVec3| {
        let local = to_camera * (**site - pose.center());
        if local.z <= 0.0 {
            return false;
        }
        let (x, y) = (camera.fx * local.x / local.z + camera.cx, camera.fy * local.y / local.z + camera.cy);
        let (x, y) = (x.round(), y.round());
        if !(x >= 0.0 && y >= 0.0) {
            return false;
        }
        let there = depth.at(x as usize, y as usize).map(f64::from);
        there.is_some_and(|there| (there - local.z).abs() <= DEPTH_TOLERANCE * there)
    };
    let share = |sites: &Vec<DVec3>| sites.iter().filter(is_seen).count() as f64 / sites.len().max(1) as f64;
    Ok(sites.iter().map(|sites| share(sites) >= SEEN).collect())
}
