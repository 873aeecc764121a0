//! ScanNet, exported: folders color, depth, pose, intrinsic.
//!
//! Poses are camera-to-world in OpenCV axes, one 4x4 matrix per file, with infinities if tracking was lost.
//! Depth is in millimetres.

use std::path::{Path, PathBuf};

use super::{by_stem, pose_of_file, require_poses};
use crate::views::calibration::{Calibration, find_calibration, read_calibration};
use crate::views::recording::{DepthFile, Listed, Listing};
use crate::views::{Layout, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 1000.0;

const COLOR_INTRINSICS: &[&str] = &[
    "intrinsic/intrinsic_color.txt",
    "intrinsic_color.txt",
    "intrinsics_color.txt",
    "intrinsic/intrinsics_color.txt",
    "intrinsic/intrinsic.txt",
    "intrinsics.txt",
    "intrinsic.txt",
    "intrinsics.json",
    "intrinsic.json",
    "../intrinsics.txt",
    "_info.txt",
];
const DEPTH_INTRINSICS: &[&str] = &[
    "intrinsic/intrinsic_depth.txt",
    "intrinsic_depth.txt",
    "intrinsics_depth.txt",
    "intrinsic/intrinsics_depth.txt",
    "_info.txt",
];

pub(super) fn fits(root: &Path) -> bool {
    color_folder(root).is_some() && root.join("pose").is_dir()
}

fn color_folder(root: &Path) -> Option<PathBuf> {
    text::folder_of(root, &["color", "rgb", "image", "images"])
}

/// Reads the intrinsics of colour and depth, if there are any.
fn intrinsics(root: &Path) -> Result<(Option<Calibration>, Option<Calibration>), ViewsError> {
    // ScanNet repeats them in a text file named like the scene.
    let scene = format!("{}.txt", text::file_name(root));
    let read = |names: &[&str], depth| {
        let file = text::file_of(root, names).or_else(|| text::file_of(root, &[scene.as_str()]));
        file.map(|path| read_calibration(&path, depth)).transpose()
    };
    Ok((read(COLOR_INTRINSICS, false)?, read(DEPTH_INTRINSICS, true)?))
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    list_as(Layout::ScanNet, root, UNITS_PER_METER)
}

/// Lists these folders for a layout with its own depth scale.
pub(super) fn list_as(layout: Layout, root: &Path, units_per_meter: f64) -> Result<Listing, ViewsError> {
    let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
    let Some(color) = color_folder(root) else {
        return Err(ViewsError::missing(root, layout, "the folder of colour pictures", "color/"));
    };
    let mut listing = Listing::new(layout, root, Some(convention), Some(units_per_meter));
    let (calibration, depth_calibration) = intrinsics(root)?;
    let calibration = match calibration {
        Some(calibration) => Some(calibration),
        None => find_calibration(root, &[], &mut listing.notes)?,
    };
    let Some(calibration) = calibration else {
        return Err(ViewsError::missing(root, layout, "the intrinsics of the camera", COLOR_INTRINSICS.join(", ")));
    };
    let depths = by_stem(&text::files_if_any(&root.join("depth"), text::DEPTH));
    for path in text::files(&color, text::COLOR)? {
        let stem = text::stem(&path);
        listing.frames.push(Listed {
            depth: depths.get(&stem).cloned().map(DepthFile::integer),
            calibration: Some(calibration),
            depth_calibration,
            pose: pose_of_file(&root.join("pose").join(format!("{stem}.txt")), convention),
            ..Listed::new(path)
        });
    }
    require_poses(&listing, "every pose", "pose/NAME.txt for color/NAME.jpg")?;
    if depths.is_empty() {
        listing.notes.push("there are no depth maps".into());
    }
    for name in ["intrinsic/extrinsic_color.txt", "intrinsic/extrinsic_depth.txt"] {
        if let Some(path) = text::file_of(root, &[name])
            && !is_identity(&text::numbers(&path)?)
        {
            listing.notes.push(format!(
                "{name} is not the identity but is ignored: both cameras are assumed to be at the same place"
            ));
        }
    }
    Ok(listing)
}

/// Returns true if 16 numbers are the identity, so that two cameras are at the same place.
pub(super) fn is_identity(matrix: &[f64]) -> bool {
    matrix.iter().enumerate().all(|(i, x)| (x - f64::from(u8::from(i % 5 == 0))).abs() < 1e-3)
}
