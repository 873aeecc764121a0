//! Polycam's raw export: keyframes/ with images, cameras, depth and confidence.
//!
//! Poses are camera-to-world in ARKit's axes, which are OpenGL's, in a world with y up. Depth is in
//! millimetres and coarser than the pictures. Corrected cameras and their pictures are used if they exist.

use std::path::{Path, PathBuf};

use super::{by_stem, require_poses, share_calibration};
use crate::views::calibration::Calibration;
use crate::views::camera::InvalidPose;
use crate::views::recording::{DepthFile, Listed, Listing, PoseState};
use crate::views::text::{json_number, json_size};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 1000.0;

fn keyframes(root: &Path) -> Option<PathBuf> {
    let folders = [root.join("keyframes"), root.to_path_buf()];
    folders.into_iter().find(|folder| folder.join("cameras").is_dir() || folder.join("corrected_cameras").is_dir())
}

pub(super) fn fits(root: &Path) -> bool {
    keyframes(root).is_some_and(|folder| text::folder_of(&folder, &["images", "corrected_images"]).is_some())
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let missing = |what, expected| ViewsError::missing(root, Layout::Polycam, what, expected);
    let folder = keyframes(root).ok_or_else(|| missing("the folder of cameras", "keyframes/cameras/"))?;
    let corrected =
        text::folder_of(&folder, &["corrected_images"]).zip(text::folder_of(&folder, &["corrected_cameras"]));
    let used_corrected = corrected.is_some();
    let plain = || text::folder_of(&folder, &["images"]).zip(text::folder_of(&folder, &["cameras"]));
    let (images, cameras) =
        corrected.or_else(plain).ok_or_else(|| missing("the folder of pictures", "keyframes/images/"))?;
    let convention = PoseConvention::OPENGL_CAMERA_TO_WORLD;
    let mut listing = Listing::new(Layout::Polycam, root, Some(convention), Some(UNITS_PER_METER));
    let depths = by_stem(&text::files_if_any(&folder.join("depth"), text::DEPTH));
    let confidences = by_stem(&text::files_if_any(&folder.join("confidence"), &["png"]));
    for color in text::files(&images, text::COLOR)? {
        let stem = text::stem(&color);
        let path = cameras.join(format!("{stem}.json"));
        if !path.is_file() {
            listing.frames.push(Listed::new(color));
            continue;
        }
        let camera = text::read_json(&path)?;
        let number = |key: &str| json_number(&camera, &[key]).unwrap_or(f64::NAN);
        let [fx, fy, cx, cy] = ["fx", "fy", "cx", "cy"].map(number);
        if ![fx, fy, cx, cy].iter().all(|x| x.is_finite()) {
            return Err(ViewsError::value(&path, "fx, fy, cx or cy", "missing", "numbers"));
        }
        let size = json_size(&camera, &["width"], &["height"]);
        let rows: Vec<f64> = (0..12).map(|i| number(&format!("t_{}{}", i / 4, i % 4))).collect();
        let has_pose = camera.get("t_00").is_some();
        let depth = depths
            .get(&stem)
            .cloned()
            .map(|path| DepthFile { confidence: confidences.get(&stem).cloned(), ..DepthFile::integer(path) });
        listing.frames.push(Listed {
            depth,
            calibration: Some(Calibration { size, ..Calibration::of([fx, fy, cx, cy]) }),
            pose: match has_pose {
                true => Pose::from_rows(&rows, convention).into(),
                false => PoseState::Invalid(InvalidPose::Count { found: 0, expected: "12" }),
            },
            ..Listed::new(color)
        });
    }
    // A picture without a camera takes the first one's intrinsics. It has no pose, so it matters little.
    share_calibration(&mut listing.frames);
    require_poses(&listing, "every camera", "cameras/NAME.json for images/NAME.jpg")?;
    if used_corrected {
        listing.notes.push("the corrected cameras and pictures are used".into());
    }
    if !depths.is_empty() {
        listing.notes.push("depth beyond 5 m is not reliable in such recordings".into());
    }
    if listing.frames.iter().any(|frame| frame.depth.as_ref().is_some_and(|depth| depth.confidence.is_some())) {
        listing.notes.push("depth of confidence 0 is left out".into());
    }
    Ok(listing)
}
