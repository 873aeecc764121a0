//! nerfstudio, instant-ngp and Blender: transforms.json.
//!
//! Poses are camera-to-world in OpenGL axes; the corner, not the centre, of the first pixel is at (0, 0). Depth is in
//! millimetres unless the file says otherwise.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::views::calibration::Calibration;
use crate::views::camera::{Distortion, InvalidPose};
use crate::views::recording::{DepthFile, Listed, Listing, Points, PoseState};
use crate::views::text::{json_number, json_numbers, json_size};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, depth, text};

const UNITS_PER_METER: f64 = 1000.0;
const NAMES: &[&str] = &["transforms.json", "transforms_train.json"];
/// Points beside `transforms.json` that programs of this family write or start from, where it names none.
const POINTS: &[&str] = &["sparse_pc.ply", "init.ply", "points3D.ply", "points3d.ply", "point_cloud.ply"];
/// Tried in this order where a picture's name has no extension.
const EXTENSIONS: [&str; 6] = ["", ".png", ".jpg", ".jpeg", ".JPG", ".PNG"];

/// The file, if there is one.
pub(super) fn file(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return text::file_of(path, NAMES);
    }
    let named = text::has_extension(path, &["json"]) && text::file_name(path).starts_with("transforms");
    named.then(|| path.to_path_buf())
}

pub(super) fn list(path: &Path) -> Result<Listing, ViewsError> {
    let file = file(path).or_else(|| Some(path.to_path_buf()).filter(|path| path.is_file()));
    let Some(file) = file else {
        return Err(ViewsError::missing(path, Layout::Nerfstudio, "the list of frames", NAMES.join(" or ")));
    };
    let all = text::read_json(&file)?;
    let Some(listed) = all.get("frames").and_then(Value::as_array) else {
        return Err(ViewsError::value(&file, "\"frames\"", "missing", "an array of frames"));
    };
    let folder = file.parent().unwrap_or(Path::new("."));
    let convention = PoseConvention::OPENGL_CAMERA_TO_WORLD;
    let mut listing = Listing::new(Layout::Nerfstudio, path, Some(convention), Some(UNITS_PER_METER));
    if let Some(scale) = json_number(&all, &["integer_depth_scale", "depth_unit_scale_factor"]) {
        if !(scale.is_finite() && scale > 0.0) {
            return Err(ViewsError::value(&file, "the scale of depth", scale, "a positive number of metres"));
        }
        // Digits that a reciprocal adds (1 / 0.001) say nothing.
        let units = 1.0 / scale;
        listing.conventions.depth_units_per_meter =
            Some(if (units - units.round()).abs() < 1e-6 * units { units.round() } else { units });
    }
    let mut size_of_first = None;
    for (i, frame) in listed.iter().enumerate() {
        let Some(name) = frame.get("file_path").and_then(Value::as_str) else {
            return Err(ViewsError::value(
                &file,
                format!("\"file_path\" of frame {i}"),
                "missing",
                "the name of a picture",
            ));
        };
        check_model(&file, frame)?;
        check_model(&file, &all)?;
        let color = picture(folder, name);
        let calibration = match calibration(&file, &all, frame)? {
            Known::Camera(calibration) => Some(calibration),
            // The field of view alone: the picture says how many pixels that is.
            Known::Angles(angle_x, angle_y) => {
                if size_of_first.is_none() && color.is_file() {
                    size_of_first = depth::file_image_size(&color).ok();
                }
                size_of_first.map(|size| from_angles(angle_x, angle_y, size))
            }
            Known::Nothing => None,
        };
        let depth = frame.get("depth_file_path").or_else(|| frame.get("depth_path")).and_then(Value::as_str);
        let depth = depth.map(|name| folder.join(name)).filter(|path| text::has_extension(path, text::DEPTH));
        let pose = match frame.get("transform_matrix").map(json_numbers) {
            None => PoseState::Missing,
            Some(None) => PoseState::Invalid(InvalidPose::Unreadable),
            Some(Some(rows)) => Pose::from_rows(&rows, convention).into(),
        };
        listing.frames.push(Listed { depth: depth.map(DepthFile::integer), calibration, pose, ..Listed::new(color) });
    }
    if let Some(name) = all.get("ply_file_path").and_then(Value::as_str) {
        let points = folder.join(name);
        if points.is_file() {
            listing.points = Some(Points::scan(points));
        } else {
            listing.notes.push(format!("ply_file_path names {name}, which is not there"));
        }
    } else if let Some(points) = text::file_of(folder, POINTS) {
        listing.notes.push(format!("its points are taken from {}", text::file_name(&points)));
        listing.points = Some(Points::scan(points));
    }
    if text::file_name(&file) == "transforms_train.json" {
        listing.notes.push("only the frames for training are used (transforms_train.json)".into());
    }
    Ok(listing)
}

/// Refuses cameras that are not pinholes.
fn check_model(file: &Path, value: &Value) -> Result<(), ViewsError> {
    let Some(model) = value.get("camera_model").and_then(Value::as_str) else { return Ok(()) };
    let known = ["PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL"];
    if known.iter().any(|name| name.eq_ignore_ascii_case(model)) {
        return Ok(());
    }
    let model: String = model.chars().take(40).collect();
    Err(ViewsError::unsupported(file, format!("camera_model \"{}\"", model.escape_default()), known.join(", ")))
}

/// The picture of that name, with the extension that it may lack.
fn picture(folder: &Path, name: &str) -> PathBuf {
    let candidates = EXTENSIONS.map(|extension| folder.join(format!("{name}{extension}")));
    let found = candidates.iter().find(|path| path.is_file()).cloned();
    found.unwrap_or_else(|| folder.join(name))
}

enum Known {
    Camera(Calibration),
    Angles(f64, Option<f64>),
    Nothing,
}

/// A frame's own intrinsics go before those for all.
fn calibration(file: &Path, all: &Value, frame: &Value) -> Result<Known, ViewsError> {
    let find = |keys: &[&str]| json_number(frame, keys).or_else(|| json_number(all, keys));
    let size = json_size(frame, &["w"], &["h"]).or_else(|| json_size(all, &["w"], &["h"]));
    let angle_x = find(&["camera_angle_x"]).filter(|angle| (1e-3..3.1).contains(angle));
    let angle_y = find(&["camera_angle_y"]).filter(|angle| (1e-3..3.1).contains(angle));
    let k = |key: &str| find(&[key]).unwrap_or(0.0);
    let distortion = Distortion { k1: k("k1"), k2: k("k2"), k3: k("k3"), p1: k("p1"), p2: k("p2") };
    let Some(fx) = find(&["fl_x"]) else {
        return Ok(match (angle_x, size) {
            (Some(angle_x), Some(size)) => {
                let calibration = from_angles(angle_x, angle_y, size);
                Known::Camera(Calibration { distortion: Some(distortion), ..calibration })
            }
            (Some(angle_x), None) => Known::Angles(angle_x, angle_y),
            (None, _) => Known::Nothing,
        });
    };
    let fy = find(&["fl_y"]).unwrap_or(fx);
    let middle = |axis: usize| size.map(|size| size[axis] as f64 / 2.0);
    let (Some(cx), Some(cy)) = (find(&["cx"]).or(middle(0)), find(&["cy"]).or(middle(1))) else {
        return Err(ViewsError::value(file, "the principal point", "missing", "cx and cy, or w and h"));
    };
    let calibration = Calibration::of([fx, fy, cx, cy]).with_corner_at_zero();
    Ok(Known::Camera(Calibration { size, distortion: Some(distortion), ..calibration }))
}

fn from_angles(angle_x: f64, angle_y: Option<f64>, size: [usize; 2]) -> Calibration {
    let [width, height] = size.map(|side| side as f64);
    let fx = width / 2.0 / (angle_x / 2.0).tan();
    let fy = angle_y.map_or(fx, |angle| height / 2.0 / (angle / 2.0).tan());
    Calibration::of([fx, fy, width / 2.0, height / 2.0]).with_corner_at_zero().sized(size[0], size[1])
}
