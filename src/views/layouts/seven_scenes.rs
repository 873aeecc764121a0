//! 7-Scenes: frame-000000.color.png, .depth.png and .pose.txt, in the folder or in seq-01, seq-02 and so on.
//!
//! Poses are camera-to-world in OpenCV axes. Depth is in millimetres; 65535 means no depth. ScanNet's own
//! tool exports the same names, with intrinsics in _info.txt.

use std::path::{Path, PathBuf};

use super::{pose_of_file, require_poses};
use crate::views::calibration::{Calibration, find_calibration, read_calibration};
use crate::views::recording::{DepthFile, Listed, Listing};
use crate::views::{Layout, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 1000.0;
/// Default intrinsics of the sensor. The authors published no better calibration.
const DEFAULT: [f64; 4] = [585.0, 585.0, 320.0, 240.0];
const COLOR: &str = ".color";
const CAMERA: &[&str] = &["intrinsics.txt", "camera.txt", "../intrinsics.txt", "../camera.txt"];

pub(super) fn fits(root: &Path) -> bool {
    sequences(root).iter().any(|folder| !pictures(folder).is_empty())
}

/// Returns the folder itself or the sequences in it.
fn sequences(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_path_buf()];
    found.extend(text::folders(root).into_iter().filter(|path| text::file_name(path).starts_with("seq")));
    found
}

fn pictures(folder: &Path) -> Vec<PathBuf> {
    let mut files = text::files_if_any(folder, text::COLOR);
    files.retain(|path| text::stem(path).ends_with(COLOR) && text::stem(path).starts_with("frame-"));
    files
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
    let mut listing = Listing::new(Layout::SevenScenes, root, Some(convention), Some(UNITS_PER_METER));
    let (calibration, depth_calibration) = match text::file_of(root, &["_info.txt"]) {
        Some(path) => (Some(read_calibration(&path, false)?), Some(read_calibration(&path, true)?)),
        None => (find_calibration(root, CAMERA, &mut listing.notes)?, None),
    };
    let calibration = match calibration {
        Some(calibration) => calibration,
        None => {
            listing.notes.push("the intrinsics are the sensor's default, f 585, c 320 240, as published".into());
            Calibration::of(DEFAULT).sized(640, 480)
        }
    };
    let several = sequences(root).iter().filter(|folder| !pictures(folder).is_empty()).count() > 1;
    for folder in sequences(root) {
        for color in pictures(&folder) {
            let name = text::stem(&color).trim_end_matches(COLOR).to_owned();
            let beside = |suffix: &str| folder.join(format!("{name}{suffix}"));
            let depth = [".depth.png", ".depth.pgm"].map(beside).into_iter().find(|path| path.is_file());
            let prefix = if several { format!("{}/", text::file_name(&folder)) } else { String::new() };
            listing.frames.push(Listed {
                name: format!("{prefix}{name}"),
                depth: depth.map(DepthFile::integer),
                calibration: Some(calibration),
                depth_calibration,
                pose: pose_of_file(&beside(".pose.txt"), convention),
                ..Listed::new(color)
            });
        }
    }
    require_poses(&listing, "every pose", "NAME.pose.txt beside NAME.color.png")?;
    Ok(listing)
}
