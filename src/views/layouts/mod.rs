//! Layouts of recordings: detection and listing of their files.

mod arkitscenes;
mod colmap;
mod icl;
mod images;
mod matterport;
mod nerfstudio;
mod nuscenes;
mod polycam;
mod record3d;
mod redwood;
mod replica;
mod rtabmap;
mod scanner_app;
mod scannet;
mod scannetpp;
mod sens;
mod seven_scenes;
mod stray;
mod tum;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::camera::InvalidPose;
use super::check::{PoseCheck, Reading, Verdict, check};
use super::recording::{Listed, Listing, PoseState, Recording};
use super::reread::Reread;
use super::text;
use super::{Dataset, Layout, Pose, PoseConvention, ViewsError};

/// Options for opening a recording. They override what is detected.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OpenOptions {
    /// Layout; `None` to detect it.
    pub layout: Option<Layout>,
    /// Number of depth units per metre; `None` for the layout's own.
    pub depth_units_per_meter: Option<f64>,
    /// How the stored poses are read; `None` for the layout's own convention.
    pub pose: Option<Reading>,
}

/// A recording that was opened and checked.
pub struct Checked {
    /// The recording. If its depth maps clearly agree better with another reading of the poses, they are read
    /// that way, unless the options ask for one.
    pub dataset: Box<dyn Dataset>,
    /// Result of the check, before the poses were read in another way; `None` without poses or depth.
    pub check: Option<PoseCheck>,
    /// The reading that was taken instead of the layout's.
    pub applied: Option<Reading>,
}

/// Detects the layout of a recording from its files and folders and from the beginning of files.
///
/// # Errors
/// [`ViewsError::Io`] if `path` does not exist, [`ViewsError::Empty`] if it is a folder without files,
/// [`ViewsError::UnknownLayout`] if no layout matches.
pub fn detect(path: &Path) -> Result<Layout, ViewsError> {
    std::fs::metadata(path).map_err(|error| ViewsError::io(path, "open", error))?;
    Layout::ALL.into_iter().find(|layout| layout.fits(path)).ok_or_else(|| {
        if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()) {
            return ViewsError::Empty { path: path.to_path_buf() };
        }
        let found = if path.is_file() { format!("a file named \"{}\"", text::file_name(path)) } else { describe(path) };
        ViewsError::UnknownLayout { path: path.to_path_buf(), found }
    })
}

/// Opens a recording: a folder, or a file for layouts that are one.
///
/// # Errors
/// As for [`detect`]. Also if the recording is too incomplete: no frame with a picture
/// ([`ViewsError::NoFrames`]), missing poses or intrinsics that the layout requires
/// ([`ViewsError::Missing`]), or a damaged file of them. Single frames without depth or with an invalid pose
/// are not an error, see [`Dataset::counts`].
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn Dataset>, ViewsError> {
    if let Some(units) = options.depth_units_per_meter
        && !(units.is_finite() && units > 0.0)
    {
        let (what, expected) = ("the number of depth units in a metre", "a positive number");
        return Err(ViewsError::Argument { what, found: units.to_string(), expected });
    }
    std::fs::metadata(path).map_err(|error| ViewsError::io(path, "open", error))?;
    let layout = match options.layout {
        Some(layout) => layout,
        None => detect(path)?,
    };
    let dataset = open_as(layout, path, options)?;
    Ok(match options.pose {
        Some(reading) => Box::new(Reread::new(dataset, reading, "as requested")),
        None => dataset,
    })
}

/// Does the same as [`open`], then [checks](check()) the poses and reads them as the depth maps ask.
///
/// Left-handed axes are only found, not applied: they would mirror the world, to which a scan may belong.
///
/// # Errors
/// As for [`open`] and [`check`](check()).
pub fn open_checked(path: &Path, options: &OpenOptions) -> Result<Checked, ViewsError> {
    let dataset = open(path, options)?;
    if dataset.counts().with_depth == 0 || dataset.conventions().pose.is_none() {
        return Ok(Checked { dataset, check: None, applied: None });
    }
    let checked = check(&*dataset)?;
    let applied = match checked.verdict {
        Verdict::Contradicted(reading) if options.pose.is_none() && reading != Reading::LeftHanded => Some(reading),
        _ => None,
    };
    let dataset: Box<dyn Dataset> = match applied {
        Some(reading) => Box::new(Reread::new(dataset, reading, "as the depth maps ask")),
        None => dataset,
    };
    Ok(Checked { dataset, check: Some(checked), applied })
}

fn open_as(layout: Layout, path: &Path, options: &OpenOptions) -> Result<Box<dyn Dataset>, ViewsError> {
    let mut listing = match layout {
        Layout::Sens => return Ok(Box::new(sens::open(path, options.depth_units_per_meter)?)),
        Layout::Record3d => return Ok(Box::new(record3d::open(path)?)),
        Layout::ScanNet => scannet::list(path),
        Layout::Matterport => matterport::list(path),
        Layout::Replica => replica::list(path),
        Layout::Tum => tum::list(path),
        Layout::Redwood => redwood::list(path),
        Layout::Icl => icl::list(path),
        Layout::Nerfstudio => nerfstudio::list(path),
        Layout::NuScenes => nuscenes::list(path),
        Layout::Colmap => colmap::list(path),
        Layout::Polycam => polycam::list(path),
        Layout::SevenScenes => seven_scenes::list(path),
        Layout::ScannerApp => scanner_app::list(path),
        Layout::ArkitScenes => arkitscenes::list(path),
        Layout::ScanNetPp => scannetpp::list(path),
        Layout::RtabMap => rtabmap::list(path),
        Layout::Stray => stray::list(path),
        Layout::Images => images::list(path),
    }?;
    if let Some(units) = options.depth_units_per_meter {
        listing.floats_per_meter = units;
        listing.conventions.depth_units_per_meter = Some(units);
    }
    Ok(Box::new(Recording::new(listing)?))
}

impl Layout {
    fn fits(self, path: &Path) -> bool {
        match self {
            Self::Sens => sens::file(path).is_some(),
            Self::Record3d => record3d::fits(path),
            Self::Nerfstudio => nerfstudio::file(path).is_some(),
            _ if !path.is_dir() => false,
            Self::ScanNet => scannet::fits(path),
            Self::Matterport => matterport::fits(path),
            Self::NuScenes => nuscenes::fits(path),
            Self::Replica => replica::fits(path),
            Self::Tum => tum::fits(path),
            Self::Redwood => redwood::fits(path),
            Self::Icl => icl::fits(path),
            Self::Colmap => colmap::model(path).is_some(),
            Self::Polycam => polycam::fits(path),
            Self::SevenScenes => seven_scenes::fits(path),
            Self::ScannerApp => scanner_app::fits(path),
            Self::ArkitScenes => arkitscenes::fits(path),
            Self::ScanNetPp => scannetpp::fits(path),
            Self::RtabMap => rtabmap::fits(path),
            Self::Stray => stray::fits(path),
            Self::Images => images::fits(path),
        }
    }
}

/// Describes a folder that is not a recording, and mentions a recording inside it.
fn describe(folder: &Path) -> String {
    const LISTED: usize = 8;
    let Ok(entries) = std::fs::read_dir(folder) else { return "the folder cannot be listed".into() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    text::sort_naturally(&mut paths);
    let inner = paths.iter().filter(|path| path.is_dir()).find_map(|path| {
        let layout = Layout::ALL.into_iter().find(|layout| layout.fits(path))?;
        Some(format!("; {} inside it is a recording of layout {layout}", text::file_name(path)))
    });
    let names: Vec<String> = paths.iter().take(LISTED).map(|path| text::file_name(path)).collect();
    let more = if paths.len() > LISTED { format!(" and {} more", paths.len() - LISTED) } else { String::new() };
    format!("the folder holds {}{more}{}", names.join(", "), inner.unwrap_or_default())
}

/// Maps the files of a folder by their names without extension.
fn by_stem(files: &[PathBuf]) -> HashMap<String, PathBuf> {
    files.iter().map(|path| (text::stem(path), path.clone())).collect()
}

/// Reads a pose from a file with only a matrix, row by row.
fn pose_of_file(path: &Path, convention: PoseConvention) -> PoseState {
    if !path.is_file() {
        return PoseState::Missing;
    }
    match text::numbers(path) {
        Ok(numbers) => Pose::from_rows(&numbers, convention).into(),
        Err(_) => PoseState::Invalid(InvalidPose::Unreadable),
    }
}

/// Reads a pose from a JSON value with only a matrix, row by row.
fn pose_of_json(value: Option<&Value>, convention: PoseConvention) -> PoseState {
    match value.map(text::json_numbers) {
        None => PoseState::Missing,
        Some(None) => PoseState::Invalid(InvalidPose::Unreadable),
        Some(Some(rows)) => Pose::from_rows(&rows, convention).into(),
    }
}

/// Gives frames without a calibration that of the first frame that has one.
fn share_calibration(frames: &mut [Listed]) {
    let any = frames.iter().find_map(|frame| frame.calibration);
    frames.iter_mut().for_each(|frame| frame.calibration = frame.calibration.or(any));
}

/// Returns an error if no frame has a pose, for layouts with poses.
fn require_poses(listing: &Listing, what: &str, expected: &str) -> Result<(), ViewsError> {
    let posed = |frame: &Listed| !matches!(frame.pose, PoseState::Missing);
    if listing.frames.is_empty() || listing.frames.iter().any(posed) {
        return Ok(());
    }
    Err(ViewsError::missing(&listing.root, listing.layout, what, expected))
}

/// Pairs pictures with depth maps: by name, else by order if there are as many of both. Otherwise no picture
/// gets a depth map.
fn paired(colors: Vec<PathBuf>, depths: Vec<PathBuf>, notes: &mut Vec<String>) -> Vec<(PathBuf, Option<PathBuf>)> {
    let named = by_stem(&depths);
    let by_name = colors.iter().any(|color| named.contains_key(&text::stem(color)));
    let by_order = !by_name && colors.len() == depths.len();
    if !by_name && !depths.is_empty() {
        notes.push(if by_order {
            "pictures and depth maps have different names and are paired by order".into()
        } else {
            let (colors, depths) = (colors.len(), depths.len());
            format!("{colors} pictures and {depths} depth maps have different names: the depth maps are left out")
        });
    }
    let pair = |(i, color): (usize, PathBuf)| {
        let depth = if by_order { depths.get(i) } else { named.get(&text::stem(&color)) };
        (color, depth.cloned())
    };
    colors.into_iter().enumerate().map(pair).collect()
}
