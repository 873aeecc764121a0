//! ARKitScenes: lowres_wide/, lowres_depth/, lowres_wide_intrinsics/ and lowres_wide.traj.
//!
//! Files are named VIDEO_TIME. The trajectory has lines `time rx ry rz tx ty tz`: axis times angle, and
//! translation, world-to-camera in OpenCV axes. A .pincam file has `width height fx fy cx cy`. Depth is in
//! millimetres. The confidence is 0 to 2.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use glam::{DQuat, DVec3};

use super::tum::{Timed, nearest, pose_at};
use super::{by_stem, require_poses, share_calibration};
use crate::views::calibration::Calibration;
use crate::views::recording::{DepthFile, Listed, Listing, PoseState};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 1000.0;
const TRAJECTORY: &str = "lowres_wide.traj";
/// Times in names are rounded to milliseconds, so those of a picture and of its files may differ by one.
const ROUNDING: f64 = 0.0015;

/// Returns the folder of the frames: the recording itself or VIDEO_frames in it.
fn frames(root: &Path) -> Option<PathBuf> {
    let inner = text::folders(root).into_iter().filter(|path| text::file_name(path).ends_with("_frames"));
    std::iter::once(root.to_path_buf())
        .chain(inner)
        .find(|folder| folder.join(TRAJECTORY).is_file() && folder.join("lowres_wide").is_dir())
}

pub(super) fn fits(root: &Path) -> bool {
    frames(root).is_some()
}

fn time_of(stem: &str) -> Option<f64> {
    text::number(stem.rsplit('_').next()?).filter(|time| time.is_finite())
}

/// Files by their names and by the times in them.
struct Files {
    named: HashMap<String, PathBuf>,
    timed: Vec<Timed<PathBuf>>,
}

impl Files {
    fn of(folder: &Path, extensions: &[&str]) -> Self {
        let files = text::files_if_any(folder, extensions);
        let named = by_stem(&files);
        let timed = |path: PathBuf| Some(Timed { time: time_of(&text::stem(&path))?, what: path });
        let mut timed: Vec<_> = files.into_iter().filter_map(timed).collect();
        timed.sort_by(|a, b| a.time.total_cmp(&b.time));
        Self { named, timed }
    }

    /// Finds the file of a picture by its name, else by a time that differs by a rounding.
    fn beside(&self, stem: &str) -> Option<PathBuf> {
        if let Some(path) = self.named.get(stem) {
            return Some(path.clone());
        }
        let time = time_of(stem)?;
        let near = nearest(&self.timed, time).filter(|file| (file.time - time).abs() <= ROUNDING);
        near.map(|file| file.what.clone())
    }
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let Some(folder) = frames(root) else {
        let expected = "lowres_wide.traj beside lowres_wide/";
        return Err(ViewsError::missing(root, Layout::ArkitScenes, "the trajectory", expected));
    };
    let convention = PoseConvention::OPENCV_WORLD_TO_CAMERA;
    let mut listing = Listing::new(Layout::ArkitScenes, root, Some(convention), Some(UNITS_PER_METER));
    let poses = read_trajectory(&folder.join(TRAJECTORY), convention)?;
    let depths = Files::of(&folder.join("lowres_depth"), text::DEPTH);
    let confidences = by_stem(&text::files_if_any(&folder.join("confidence"), &["png"]));
    let cameras = Files::of(&folder.join("lowres_wide_intrinsics"), &["pincam"]);
    let mut last = None;
    for color in text::files(&folder.join("lowres_wide"), text::COLOR)? {
        let stem = text::stem(&color);
        let calibration = match cameras.beside(&stem) {
            Some(path) => Some(read_pincam(&path)?),
            None => last,
        };
        last = calibration;
        let depth = depths.beside(&stem).map(|path| DepthFile {
            confidence: confidences.get(&text::stem(&path)).cloned(),
            ..DepthFile::integer(path)
        });
        let pose = time_of(&stem).map_or(PoseState::Missing, |time| pose_at(&poses, time));
        listing.frames.push(Listed { depth, calibration, pose, ..Listed::new(color) });
    }
    // The first pictures may lack a camera.
    share_calibration(&mut listing.frames);
    if listing.frames.first().is_some_and(|frame| frame.calibration.is_none()) {
        let expected = "lowres_wide_intrinsics/NAME.pincam";
        return Err(ViewsError::missing(root, Layout::ArkitScenes, "the intrinsics of the camera", expected));
    }
    require_poses(&listing, "every pose", "a line in lowres_wide.traj for the time of each picture")?;
    if !confidences.is_empty() {
        listing.notes.push("depth of confidence 0 is left out".into());
    }
    Ok(listing)
}

fn read_trajectory(path: &Path, convention: PoseConvention) -> Result<Vec<Timed<PoseState>>, ViewsError> {
    let content = text::read(path)?;
    let mut poses = Vec::new();
    for (line_number, line) in text::lines(&content) {
        let numbers = text::numbers_of_line(path, line_number, line)?;
        let Some(&[time, rx, ry, rz, x, y, z]) = numbers.first_chunk::<7>().filter(|line| line[0].is_finite()) else {
            let found = format!("{} numbers", numbers.len());
            return Err(ViewsError::line(path, line_number, found, "time rx ry rz tx ty tz"));
        };
        let turn = DQuat::from_scaled_axis(DVec3::new(rx, ry, rz));
        let pose = Pose::from_quaternion(turn.to_array(), DVec3::new(x, y, z), convention);
        poses.push(Timed { time, what: pose.into() });
    }
    poses.sort_by(|a, b| a.time.total_cmp(&b.time));
    Ok(poses)
}

fn read_pincam(path: &Path) -> Result<Calibration, ViewsError> {
    let numbers = text::numbers(path)?;
    match numbers.as_slice() {
        &[width, height, fx, fy, cx, cy] if [width, height].iter().all(|side| (1.0..1e6).contains(side)) => {
            Ok(Calibration::of([fx, fy, cx, cy]).sized(width as usize, height as usize))
        }
        other => {
            let found = format!("{} numbers", other.len());
            Err(ViewsError::value(path, "the content", found, "width height fx fy cx cy"))
        }
    }
}
