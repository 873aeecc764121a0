//! Pictures without poses. Each frame is used on its own.
//!
//! Depth, if there is any, is in millimetres.

use std::path::{Path, PathBuf};

use crate::files::MappedFile;
use crate::views::calibration::find_calibration;
use crate::views::depth::has_rotated_bits;
use crate::views::recording::{DepthFile, DepthFormat, Listed, Listing};
use crate::views::{Layout, ViewsError, text};

const UNITS_PER_METER: f64 = 1000.0;
const COLOR_FOLDERS: &[&str] = &["color", "rgb", "images", "image", "frames"];
/// Beginnings of the names of maps that may lie beside pictures.
const MAPS: [&str; 3] = ["depth", "conf_", "confidence"];
const DEPTH_FOLDERS: &[&str] = &["depth", "depth_bfx", "depths", "depth_images"];
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
    let calibration = find_calibration(root, CAMERA, &mut listing.notes)?;
    let mut colors = match text::folder_of(root, COLOR_FOLDERS) {
        Some(folder) => text::files(&folder, text::COLOR)?,
        None => text::files(root, text::COLOR)?,
    };
    // Depth and confidence beside the pictures are no pictures.
    let is_map = |path: &PathBuf| MAPS.iter().any(|start| text::stem(path).to_ascii_lowercase().starts_with(start));
    if !colors.iter().all(is_map) {
        colors.retain(|path| !is_map(path));
    }
    let depths = text::folder_of(root, DEPTH_FOLDERS).map(|folder| text::files_if_any(&folder, text::DEPTH));
    let depths = depths.unwrap_or_default();
    let rotated =
        depths.first().is_some_and(|path| MappedFile::open(path).is_ok_and(|bytes| has_rotated_bits(&bytes, path)));
    let format = if rotated { DepthFormat::RotatedBits } else { DepthFormat::Integer };
    for (color, depth) in super::paired(colors, depths, &mut listing.notes) {
        let depth = depth.map(|path| DepthFile { format, ..DepthFile::integer(path) });
        listing.frames.push(Listed { depth, calibration, ..Listed::new(color) });
    }
    if rotated {
        listing.notes.push("the bits of the depth maps are rotated, as in SUN RGB-D: they are rotated back".into());
    }
    listing.notes.push("there are no poses: each frame is used on its own".into());
    if listing.frames.iter().any(|frame| frame.depth.is_some()) {
        listing.notes.push("depth is assumed to be in millimetres, as seen by the colour camera".into());
    }
    Ok(listing)
}
