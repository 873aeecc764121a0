//! Redwood and Open3D: folders of pictures and depth maps, and a trajectory.log.
//!
//! The trajectory has a line of two or three integers and then a 4x4 matrix for each frame, camera-to-world
//! in OpenCV axes. Depth is in millimetres.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::views::calibration::{Calibration, find_calibration};
use crate::views::recording::{DepthFile, Listed, Listing, PoseState};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 1000.0;
const CAMERA: &[&str] = &[
    "camera_primesense.json",
    "camera_intrinsic.json",
    "intrinsic.json",
    "intrinsics.json",
    "camera.json",
    "camera_intrinsics.json",
    "intrinsics.txt",
];
const TRAJECTORY: &[&str] = &["trajectory.log", "scene/trajectory.log", "camera_trajectory.log", "traj.log"];
/// Suffixes of the Redwood benchmark's names: livingroom1-color, livingroom1-depth-clean,
/// livingroom1-traj.txt.
const COLOR_SUFFIX: &str = "-color";

pub(super) fn fits(root: &Path) -> bool {
    trajectory(root).is_some() && color_folder(root).is_some()
}

fn color_folder(root: &Path) -> Option<PathBuf> {
    text::folder_of(root, &["color", "image", "rgb", "images"])
        .or_else(|| text::folders(root).into_iter().find(|path| text::file_name(path).ends_with(COLOR_SUFFIX)))
}

fn depth_folder(root: &Path) -> Option<PathBuf> {
    text::folder_of(root, &["depth"])
        .or_else(|| text::folders(root).into_iter().find(|path| text::file_name(path).contains("-depth")))
}

fn trajectory(root: &Path) -> Option<PathBuf> {
    text::file_of(root, TRAJECTORY).or_else(|| {
        text::files_if_any(root, &["txt", "log"]).into_iter().find(|path| {
            let stem = text::stem(path);
            stem.ends_with("-traj") || stem.ends_with("_traj")
        })
    })
}

/// Reads the poses, each with the frame number that the trajectory gives.
fn read_trajectory(path: &Path, notes: &mut Vec<String>) -> Result<Vec<(usize, PoseState)>, ViewsError> {
    let content = text::read(path)?;
    let lines: Vec<(usize, &str)> = text::lines(&content).collect();
    let mut poses = Vec::with_capacity(lines.len() / 5);
    let blocks = lines.chunks_exact(5);
    if !blocks.remainder().is_empty() {
        notes.push(format!("{} ends inside a pose: it is cut off", text::file_name(path)));
    }
    for block in blocks {
        let (line_number, line) = block[0];
        let head = text::numbers_of_line(path, line_number, line)?;
        let number = head.first().filter(|x| x.fract() == 0.0 && (0.0..1e9).contains(*x));
        let (2 | 3, Some(number)) = (head.len(), number) else {
            return Err(ViewsError::line(
                path,
                line_number,
                format!("\"{line}\""),
                "two or three integers, then a 4x4 matrix",
            ));
        };
        let mut rows = Vec::with_capacity(16);
        for &(line_number, line) in &block[1..] {
            let row = text::numbers_of_line(path, line_number, line)?;
            if row.len() != 4 {
                return Err(ViewsError::line(
                    path,
                    line_number,
                    format!("{} numbers", row.len()),
                    "a row of a 4x4 matrix",
                ));
            }
            rows.extend(row);
        }
        let pose = Pose::from_rows(&rows, PoseConvention::OPENCV_CAMERA_TO_WORLD);
        poses.push((*number as usize, pose.into()));
    }
    // If the numbers are not ascending, the order of the poses counts.
    if !poses.is_sorted_by(|a, b| a.0 < b.0) {
        poses.iter_mut().enumerate().for_each(|(i, pose)| pose.0 = i);
    }
    Ok(poses)
}

/// Reads lines `depth/0.png color/0.jpg`.
fn read_match(path: &Path) -> Result<Vec<(PathBuf, PathBuf)>, ViewsError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let content = text::read(path)?;
    let mut pairs = Vec::new();
    for (line_number, line) in text::lines(&content) {
        let Some((depth, color)) = line.split_once([' ', '\t']) else {
            return Err(ViewsError::line(path, line_number, format!("\"{line}\""), "a depth map and a picture"));
        };
        pairs.push((text::named_file(folder, color.trim()), text::named_file(folder, depth)));
    }
    Ok(pairs)
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let missing = |what, expected| ViewsError::missing(root, Layout::Redwood, what, expected);
    let trajectory = trajectory(root).ok_or_else(|| missing("the trajectory", "trajectory.log"))?;
    let color = color_folder(root).ok_or_else(|| missing("the folder of colour pictures", "color/, image/ or rgb/"))?;
    let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
    let mut listing = Listing::new(Layout::Redwood, root, Some(convention), Some(UNITS_PER_METER));
    let poses: HashMap<usize, PoseState> = read_trajectory(&trajectory, &mut listing.notes)?.into_iter().collect();
    let calibration = match find_calibration(root, CAMERA, &mut listing.notes)? {
        Some(calibration) => calibration,
        None => {
            listing
                .notes
                .push("no intrinsics were found: f 525, c 319.5 239.5 is assumed, PrimeSense's default".into());
            Calibration::of([525.0, 525.0, 319.5, 239.5]).sized(640, 480)
        }
    };
    let pairs: Vec<(PathBuf, Option<PathBuf>)> = match text::file_of(root, &["rgbd.match"]) {
        Some(path) => read_match(&path)?.into_iter().map(|(color, depth)| (color, Some(depth))).collect(),
        None => {
            let colors = text::files(&color, text::COLOR)?;
            let depths = depth_folder(root).map(|folder| text::files_if_any(&folder, text::DEPTH)).unwrap_or_default();
            super::paired(colors, depths, &mut listing.notes)
        }
    };
    for (i, (color, depth)) in pairs.into_iter().enumerate() {
        listing.frames.push(Listed {
            depth: depth.map(DepthFile::integer),
            calibration: Some(calibration),
            pose: poses.get(&i).copied().unwrap_or_default(),
            ..Listed::new(color)
        });
    }
    super::require_poses(&listing, "every pose", "a pose for each picture in trajectory.log")?;
    Ok(listing)
}
