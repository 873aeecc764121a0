//! ICL-NUIM in its TUM-compatible form: rgb/, depth/ and a *.gt.freiburg trajectory.
//!
//! Poses are camera-to-world, in lines `number tx ty tz qx qy qz qw`. Depth is in 1/5000 m. The scenes were
//! rendered in left-handed axes, which shows as a negative vertical focal length.

use std::path::{Path, PathBuf};

use super::tum::{Timed, pose_at, read_pairs, read_trajectory};
use super::{by_stem, require_poses};
use crate::views::calibration::{Calibration, find_calibration};
use crate::views::recording::{DepthFile, Listed, Listing, PoseState};
use crate::views::{Layout, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 5000.0;
const CAMERA: &[&str] = &["calibration.txt", "camera.json", "intrinsics.json", "intrinsics.txt"];

pub(super) fn fits(root: &Path) -> bool {
    trajectory(root).is_some() && root.join("rgb").is_dir()
}

fn trajectory(root: &Path) -> Option<PathBuf> {
    let named = text::files_if_any(root, &["freiburg"]).into_iter().next();
    named
        .or_else(|| text::file_of(root, &["traj.gt.txt", "groundtruth.txt"]))
        .filter(|path| text::file_name(path) != "groundtruth.txt" || !root.join("rgb.txt").is_file())
        .filter(|path| text::has_extension(path, &["freiburg"]) || numbered(root))
}

/// Returns true if pictures are named by numbers from zero instead of times.
fn numbered(root: &Path) -> bool {
    root.join("rgb/0.png").is_file() || root.join("rgb/1.png").is_file()
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let Some(trajectory) = trajectory(root) else {
        return Err(ViewsError::missing(root, Layout::Icl, "the trajectory", "a file *.gt.freiburg"));
    };
    let poses = read_trajectory(&trajectory)?;
    let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
    let mut listing = Listing::new(Layout::Icl, root, Some(convention), Some(UNITS_PER_METER));
    let calibration = match find_calibration(root, CAMERA, &mut listing.notes)? {
        Some(calibration) => calibration,
        None => {
            listing.notes.push("the intrinsics are those published for ICL-NUIM (f 481.2, -480)".into());
            Calibration::of([481.2, -480.0, 319.5, 239.5]).sized(640, 480)
        }
    };
    let frame = |color: &Path, depth: Option<PathBuf>, pose: PoseState| Listed {
        depth: depth.map(DepthFile::integer),
        calibration: Some(calibration),
        pose,
        ..Listed::new(color.to_path_buf())
    };
    if let Some(pairs) = text::file_of(root, &["associations.txt", "associate.txt"]) {
        for pair in read_pairs(&pairs)? {
            let pose = pose_of_number(&poses, pair.color.time);
            listing.frames.push(frame(&pair.color.what, Some(pair.depth.what), pose));
        }
    } else {
        let depths = by_stem(&text::files_if_any(&root.join("depth"), text::DEPTH));
        for color in text::files(&root.join("rgb"), text::COLOR)? {
            let number = text::number(&text::stem(&color)).unwrap_or(f64::NAN);
            let depth = depths.get(&text::stem(&color)).cloned();
            listing.frames.push(frame(&color, depth, pose_of_number(&poses, number)));
        }
    }
    require_poses(&listing, "every pose", "a line for each picture's number")?;
    Ok(listing)
}

/// Returns the pose of a picture's number. Numbers are not times, so there is no interpolation.
fn pose_of_number(poses: &[Timed<PoseState>], number: f64) -> PoseState {
    if number.is_finite() { pose_at(poses, number) } else { PoseState::Missing }
}
