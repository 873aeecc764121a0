//! nuScenes, a moment of its six cameras as OpenScene prepares it: folders color, pose and K.
//!
//! For `color/front.jpg` there are `pose/front.npy`, a 4x4 camera-to-world matrix in OpenCV axes, and `K/front.npy`, the
//! intrinsics of that picture. There is no depth: the scan is one of the lidar.

use std::path::Path;

use super::require_poses;
use crate::files::MappedFile;
use crate::views::calibration::{Calibration, of_matrix};
use crate::views::camera::InvalidPose;
use crate::views::number_maps::read_npy_matrix;
use crate::views::recording::{Listed, Listing, PoseState};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, text};

const INTRINSICS: &str = "K";

pub(super) fn fits(root: &Path) -> bool {
    let has_matrices = |folder: &str| !text::files_if_any(&root.join(folder), &["npy"]).is_empty();
    root.join("color").is_dir() && has_matrices("pose") && has_matrices(INTRINSICS)
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
    let Some(color) = text::folder_of(root, &["color"]) else {
        return Err(ViewsError::missing(root, Layout::NuScenes, "the folder of colour pictures", "color/"));
    };
    let mut listing = Listing::new(Layout::NuScenes, root, Some(convention), None);
    for path in text::files(&color, text::COLOR)? {
        let matrix = |folder: &str| matrix(&root.join(folder).join(format!("{}.npy", text::stem(&path))));
        let calibration = matrix(INTRINSICS)?.map(|numbers| calibration(root, &path, &numbers)).transpose()?;
        let pose = match matrix("pose") {
            Ok(None) => PoseState::Missing,
            Ok(Some(numbers)) => Pose::from_rows(&numbers, convention).into(),
            Err(_) => PoseState::Invalid(InvalidPose::Unreadable),
        };
        let Some(calibration) = calibration else {
            let expected = format!("{INTRINSICS}/{}.npy", text::stem(&path));
            return Err(ViewsError::missing(root, Layout::NuScenes, "the intrinsics of a camera", expected));
        };
        listing.frames.push(Listed { calibration: Some(calibration), pose, ..Listed::new(path) });
    }
    require_poses(&listing, "every pose", "pose/NAME.npy for color/NAME.jpg")?;
    listing.notes.push("there are no depth maps".into());
    Ok(listing)
}

/// The numbers of a file, row by row, if there is one.
fn matrix(path: &Path) -> Result<Option<Vec<f64>>, ViewsError> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = MappedFile::open(path).map_err(|error| ViewsError::io(path, "open", error))?;
    read_npy_matrix(&bytes, path).map(Some)
}

fn calibration(root: &Path, picture: &Path, numbers: &[f64]) -> Result<Calibration, ViewsError> {
    of_matrix(numbers).ok_or_else(|| {
        let path = root.join(INTRINSICS).join(format!("{}.npy", text::stem(picture)));
        ViewsError::value(&path, "the intrinsics", format!("{} numbers", numbers.len()), "a matrix of 3 x 3 or 4 x 4")
    })
}
