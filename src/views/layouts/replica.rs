//! Replica as rendered for NICE-SLAM: traj.txt and results/.
//!
//! traj.txt has a 4x4 matrix per line, camera-to-world in OpenCV axes; depth is in 1/6553.5 m.

use std::path::Path;

use super::scannet;
use crate::views::calibration::Calibration;
use crate::views::recording::{DepthFile, Listed, Listing, PoseState};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 6553.5;
const CAMERA: &[&str] = &["cam_params.json", "../cam_params.json"];

pub(super) fn fits(root: &Path) -> bool {
    let rendered = root.join("traj.txt").is_file() && root.join("results").is_dir();
    let in_replica = || {
        let path = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
        path.to_string_lossy().to_ascii_lowercase().contains("replica")
    };
    rendered || (scannet::fits(root) && in_replica())
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let trajectory = root.join("traj.txt");
    if !trajectory.is_file() && scannet::fits(root) {
        return scannet::list_as(Layout::Replica, root, UNITS_PER_METER);
    }
    let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
    let content = match trajectory.is_file() {
        true => text::read(&trajectory)?,
        false => return Err(ViewsError::missing(root, Layout::Replica, "the trajectory", "traj.txt")),
    };
    let mut poses = Vec::new();
    for (line_number, line) in text::lines(&content) {
        let numbers = text::numbers_of_line(&trajectory, line_number, line)?;
        poses.push(PoseState::from(Pose::from_rows(&numbers, convention)));
    }
    let mut listing = Listing::new(Layout::Replica, root, Some(convention), Some(UNITS_PER_METER));
    let calibration = match text::file_of(root, CAMERA) {
        Some(path) => {
            let camera = text::read_json(&path)?;
            let scale = text::json_number(&camera, &["scale"]);
            let scale = scale.or_else(|| text::json_number(camera.get("camera")?, &["scale"]));
            if let Some(scale) = scale {
                if scale <= 0.0 {
                    return Err(ViewsError::value(&path, "scale", scale, "the number of depth units in a metre"));
                }
                listing.conventions.depth_units_per_meter = Some(scale);
            }
            calibration::read_calibration(&path, false)?
        }
        None => {
            listing.notes.push("there is no cam_params.json: the camera of the published renderings is assumed".into());
            Calibration::of([600.0, 600.0, 599.5, 339.5]).sized(1200, 680)
        }
    };
    let results = root.join("results");
    let depths = super::by_stem(&text::files_if_any(&results, text::DEPTH));
    let pictures =
        text::files(&results, text::COLOR)?.into_iter().filter(|path| !text::stem(path).starts_with("depth"));
    let mut beyond = 0;
    for (i, path) in pictures.enumerate() {
        let stem = text::stem(&path);
        let digits = stem.trim_start_matches(|c: char| !c.is_ascii_digit()).to_owned();
        // A picture's number is its line, also where only some pictures are kept.
        let line = digits.parse().unwrap_or(i);
        beyond += usize::from(line >= poses.len());
        listing.frames.push(Listed {
            depth: depths.get(&format!("depth{digits}")).cloned().map(DepthFile::integer),
            calibration: Some(calibration),
            pose: poses.get(line).copied().unwrap_or_default(),
            ..Listed::new(path)
        });
    }
    if beyond > 0 {
        listing.notes.push(format!("traj.txt has {} poses: {beyond} frames are beyond its end", poses.len()));
    }
    Ok(listing)
}
