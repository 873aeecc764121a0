//! 3D Scanner App (iPhone, iPad): frame_00000.jpg with .json, depth_00000.png and conf_00000.png.
//!
//! Poses are camera-to-world in ARKit's axes, which are OpenGL's, in a world with y up. Depth is in
//! millimetres and coarser than the pictures. The confidence is 0 to 2. Not every frame has a picture.

use std::path::{Path, PathBuf};

use super::{pose_of_json, require_poses, share_calibration};
use crate::views::calibration::of_matrix;
use crate::views::recording::{DepthFile, Listed, Listing};
use crate::views::text::json_numbers;
use crate::views::{Layout, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 1000.0;
const POSE: &str = "cameraPoseARFrame";

pub(super) fn fits(root: &Path) -> bool {
    let first = text::files_if_any(root, &["json"]).into_iter().find(|path| number(path).is_some());
    first.is_some_and(|path| text::read(&path).is_ok_and(|content| content.contains(POSE)))
}

/// Returns the digits of `frame_00000`.
fn number(path: &Path) -> Option<String> {
    let stem = text::stem(path);
    let digits = stem.strip_prefix("frame_")?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.to_owned())
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let convention = PoseConvention::OPENGL_CAMERA_TO_WORLD;
    let mut listing = Listing::new(Layout::ScannerApp, root, Some(convention), Some(UNITS_PER_METER));
    let existing = |name: String| Some(root.join(name)).filter(|path: &PathBuf| path.is_file());
    for color in text::files(root, text::COLOR)? {
        let Some(digits) = number(&color) else { continue };
        let Some(path) = existing(format!("frame_{digits}.json")) else {
            listing.frames.push(Listed::new(color));
            continue;
        };
        let frame = text::read_json(&path)?;
        let intrinsics = frame.get("intrinsics").and_then(json_numbers).and_then(|numbers| of_matrix(&numbers));
        let Some(calibration) = intrinsics else {
            return Err(ViewsError::value(&path, "\"intrinsics\"", "missing", "nine numbers, row by row"));
        };
        let pose = pose_of_json(frame.get(POSE), convention);
        let depth = existing(format!("depth_{digits}.png"))
            .map(|path| DepthFile { confidence: existing(format!("conf_{digits}.png")), ..DepthFile::integer(path) });
        listing.frames.push(Listed { depth, calibration: Some(calibration), pose, ..Listed::new(color) });
    }
    // A picture without a file of its own takes the first one's intrinsics. It has no pose.
    share_calibration(&mut listing.frames);
    require_poses(&listing, "every pose", "frame_N.json for frame_N.jpg")?;
    if listing.frames.iter().any(|frame| frame.depth.as_ref().is_some_and(|depth| depth.confidence.is_some())) {
        listing.notes.push("depth of confidence 0 is left out".into());
    }
    Ok(listing)
}
