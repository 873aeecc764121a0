//! Pictures without poses. Each frame is used on its own.
//!
//! Depth, if there is any, is in millimetres.

use std::path::Path;

use crate::views::calibration::find_calibration;
use crate::views::recording::{DepthFile, Listed, Listing};
use crate::views::{Layout, ViewsError, text};

const UNITS_PER_METER: f64 = 1000.0;
const COLOR_FOLDERS: &[&str] = &["color", "rgb", "images", "image", "frames"];
const DEPTH_FOLDERS: &[&str] = &["depth", "depths", "depth_images"];
const CAMERA: &[&str] = &[
    "intrinsics.json",
    "intrinsic.json",
    "camera.json",
    "camera_intrinsic.json",
    "intrinsics.txt",
    "intrinsic.txt",
    "camera.txt",
    "calibration.txt",
];

pub(super) fn fits(root: &Path) -> bool {
    text::folder_of(root, COLOR_FOLDERS).is_some_and(|folder| !text::files_if_any(&folder, text::COLOR).is_empty())
        || !text::files_if_any(root, text::COLOR).is_empty()
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let mut listing = Listing::new(Layout::Images, root, None, Some(UNITS_PER_METER));
    let calibration = find_calibration(root, CAMERA, false, &mut listing.notes)?;
    let colors = match text::folder_of(root, COLOR_FOLDERS) {
        Some(folder) => text::files(&folder, text::COLOR)?,
        None => text::files(root, text::COLOR)?,
    };
    let depths = text::folder_of(root, DEPTH_FOLDERS).map(|folder| text::files_if_any(&folder, text::DEPTH));
    for (color, depth) in super::paired(colors, depths.unwrap_or_default(), &mut listing.notes) {
        listing.frames.push(Listed { depth: depth.map(DepthFile::integer), calibration, ..Listed::new(color) });
    }
    listing.notes.push("there are no poses: each frame is used on its own".into());
    if listing.frames.iter().any(|frame| frame.depth.is_some()) {
        listing.notes.push("depth is assumed to be in millimetres, as seen by the colour camera".into());
    }
    Ok(listing)
}
