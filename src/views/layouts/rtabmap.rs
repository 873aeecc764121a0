//! RTAB-Map's export: rgb/, depth/, calib/ with a YAML file for each picture, and poses.txt.
//!
//! poses.txt has lines `time x y z qx qy qz qw`, in its form with numbers also the picture's number.
//! Without numbers the poses are camera-to-world in OpenCV axes. With numbers they are poses of the robot's
//! body, and the YAML files say in local_transform where the camera is on it. Depth is in millimetres.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use glam::{DMat3, DVec3};

use super::tum::{Timed, nearest, pose_at};
use super::{by_stem, require_poses, share_calibration};
use crate::views::calibration::{Calibration, read_calibration, yaml_numbers};
use crate::views::recording::{DepthFile, Listed, Listing, PoseState};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 1000.0;
/// Longest time between a picture and its pose, in seconds.
const ROUNDING: f64 = 0.001;

/// Files of an export. Their names may begin with that of the database.
struct Export {
    color: PathBuf,
    depth: Option<PathBuf>,
    calib: PathBuf,
    poses: PathBuf,
}

fn export(root: &Path) -> Option<Export> {
    let folders = text::folders(root);
    let folder = |end: &str| {
        let named = |path: &&PathBuf| {
            let name = text::file_name(path);
            name == end || name.ends_with(&format!("_{end}"))
        };
        folders.iter().find(named).cloned()
    };
    let poses = text::files_if_any(root, &["txt"]).into_iter().find(|path| text::stem(path).ends_with("poses"))?;
    let calib = folder("calib").filter(|folder| !text::files_if_any(folder, &["yaml", "yml"]).is_empty())?;
    Some(Export { color: folder("rgb")?, depth: folder("depth"), calib, poses })
}

pub(super) fn fits(root: &Path) -> bool {
    export(root).is_some()
}

/// Poses by time and, if the file has them, by number.
struct Poses {
    timed: Vec<Timed<PoseState>>,
    numbered: HashMap<u64, PoseState>,
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let Some(export) = export(root) else {
        let expected = Layout::RtabMap.expects();
        return Err(ViewsError::missing(root, Layout::RtabMap, "a folder or file of the export", expected));
    };
    let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
    let mut listing = Listing::new(Layout::RtabMap, root, Some(convention), Some(UNITS_PER_METER));
    let poses = read_poses(&export.poses, convention)?;
    let of_body = !poses.numbered.is_empty();
    let depths = export.depth.map(|folder| by_stem(&text::files_if_any(&folder, text::DEPTH))).unwrap_or_default();
    let cameras = by_stem(&text::files_if_any(&export.calib, &["yaml", "yml"]));
    for color in text::files(&export.color, text::COLOR)? {
        let stem = text::stem(&color);
        let number = stem.parse::<u64>().ok().and_then(|number| poses.numbered.get(&number)).copied();
        let time = text::number(&stem).filter(|time| time.is_finite());
        let at = |time: f64| {
            let near = nearest(&poses.timed, time).filter(|pose| (pose.time - time).abs() <= ROUNDING);
            if near.is_some() { pose_at(&poses.timed, time) } else { PoseState::Missing }
        };
        let pose = number.or_else(|| time.map(at)).unwrap_or_default();
        let path = cameras.get(&stem);
        let camera = path.map(|path| read_camera(path)).transpose()?;
        let pose = match (pose, camera.as_ref().and_then(|(_, on_body)| *on_body)) {
            (PoseState::Valid(pose), Some(on_body)) if of_body => {
                let rotation = pose.rotation() * on_body.rotation();
                Pose::new(rotation, pose.to_world(on_body.center()), convention).into()
            }
            (pose, _) => pose,
        };
        listing.frames.push(Listed {
            depth: depths.get(&stem).cloned().map(DepthFile::integer),
            calibration: camera.map(|(calibration, _)| calibration),
            pose,
            ..Listed::new(color)
        });
    }
    share_calibration(&mut listing.frames);
    require_poses(&listing, "every pose", "a line in poses.txt for the number or time of each picture")?;
    Ok(listing)
}

/// Reads intrinsics, and the pose of the camera on the body, if the file has it.
fn read_camera(path: &Path) -> Result<(Calibration, Option<Pose>), ViewsError> {
    let calibration = read_calibration(path, false)?;
    let rows = yaml_numbers(&text::read(path)?, "local_transform");
    let on_body = rows.and_then(|m| {
        let m: &[f64; 12] = m.first_chunk()?;
        let rotation = DMat3::from_cols_array(&[m[0], m[4], m[8], m[1], m[5], m[9], m[2], m[6], m[10]]);
        let position = DVec3::new(m[3], m[7], m[11]);
        Pose::new(rotation, position, PoseConvention::OPENCV_CAMERA_TO_WORLD).ok()
    });
    Ok((calibration, on_body))
}

fn read_poses(path: &Path, convention: PoseConvention) -> Result<Poses, ViewsError> {
    let content = text::read(path)?;
    let (mut timed, mut numbered) = (Vec::new(), HashMap::new());
    for (line_number, line) in text::lines(&content) {
        let numbers = text::numbers_of_line(path, line_number, line)?;
        let Some(&[time, x, y, z, qx, qy, qz, qw]) = numbers.first_chunk::<8>().filter(|line| line[0].is_finite())
        else {
            let found = format!("{} numbers", numbers.len());
            return Err(ViewsError::line(path, line_number, found, "time x y z qx qy qz qw, in RGBD-SLAM's format"));
        };
        let pose = PoseState::from(Pose::from_quaternion([qx, qy, qz, qw], DVec3::new(x, y, z), convention));
        timed.push(Timed { time, what: pose });
        if let Some(&number) = numbers.get(8).filter(|number| number.fract() == 0.0 && (0.0..1e15).contains(*number)) {
            numbered.insert(number as u64, pose);
        }
    }
    timed.sort_by(|a: &Timed<PoseState>, b| a.time.total_cmp(&b.time));
    Ok(Poses { timed, numbered })
}
