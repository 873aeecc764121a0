//! ScanNet++, the iPhone's part: iphone/ with rgb/, depth/ and pose_intrinsic_imu.json.
//!
//! The JSON file has for each picture's name a camera-to-world matrix in OpenCV axes and a 3x3 matrix of
//! intrinsics. `aligned_pose` is in the world of the scan. Depth is in millimetres and coarser than the
//! pictures. Pictures and depth maps are those that the data set's own tools extract.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{by_stem, pose_of_json, require_poses, share_calibration};
use crate::views::calibration::of_matrix;
use crate::views::recording::{DepthFile, Listed, Listing};
use crate::views::text::json_numbers;
use crate::views::{Layout, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 1000.0;
const POSES: &str = "pose_intrinsic_imu.json";
/// Keys of the poses, best first.
const POSE: [&str; 4] = ["aligned_pose", "aligned_poses", "pose", "poses"];

/// Returns the folder of the iPhone: the recording itself or iphone/ in it.
fn folder(root: &Path) -> Option<PathBuf> {
    [root.to_path_buf(), root.join("iphone")].into_iter().find(|folder| folder.join(POSES).is_file())
}

pub(super) fn fits(root: &Path) -> bool {
    folder(root).is_some()
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let missing = |what: &str, expected: &str| ViewsError::missing(root, Layout::ScanNetPp, what, expected);
    let folder = folder(root).ok_or_else(|| missing("the list of poses", "iphone/pose_intrinsic_imu.json"))?;
    let path = folder.join(POSES);
    let all = text::read_json(&path)?;
    let colors = text::folder_of(&folder, &["rgb"]).map(|rgb| text::files_if_any(&rgb, text::COLOR));
    let colors = colors.unwrap_or_default();
    let video = text::file_of(&folder, &["rgb.mkv", "rgb.mp4"]);
    if colors.is_empty() && video.is_some() {
        let expected = "them in iphone/rgb/ and depth maps in iphone/depth/, as iphone.prepare_iphone_data of ScanNet++'s toolbox extracts them";
        return Err(missing("every picture (there is only a video)", expected));
    }
    let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
    let mut listing = Listing::new(Layout::ScanNetPp, root, Some(convention), Some(UNITS_PER_METER));
    let depths = by_stem(&text::files_if_any(&folder.join("depth"), text::DEPTH));
    for color in colors {
        let stem = text::stem(&color);
        let entry = all.get(&stem).unwrap_or(&Value::Null);
        listing.frames.push(Listed {
            depth: depths.get(&stem).cloned().map(DepthFile::integer),
            calibration: entry.get("intrinsic").and_then(json_numbers).and_then(|numbers| of_matrix(&numbers)),
            pose: pose_of_json(POSE.iter().find_map(|key| entry.get(key)), convention),
            ..Listed::new(color)
        });
    }
    share_calibration(&mut listing.frames);
    require_poses(&listing, "every pose", "an entry in pose_intrinsic_imu.json for each picture in rgb/")?;
    Ok(listing)
}
