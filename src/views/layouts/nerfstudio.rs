//! nerfstudio, instant-ngp and Blender: transforms.json.
//!
//! Poses are camera-to-world in OpenGL axes. The corner, not the centre, of the first pixel is at (0, 0).
//! Depth is in millimetres unless the file says otherwise.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::pose_of_json;
use crate::views::calibration::Calibration;
use crate::views::camera::Distortion;
use crate::views::recording::{DepthFile, Listed, Listing, Points};
use crate::views::text::{json_number, json_size};
use crate::views::{Layout, PoseConvention, ViewsError, depth, text};

const UNITS_PER_METER: f64 = 1000.0;
const NAMES: &[&str] = &["transforms.json", "transforms_train.json"];
/// Names of point files beside `transforms.json` that programs of this family write or start from. They are
/// used if it names no file.
const POINTS: &[&str] = &["sparse_pc.ply", "init.ply", "points3D.ply", "points3d.ply", "point_cloud.ply"];
/// Keys of instant-ngp and nerfstudio that mean another lens than a pinhole with Brown's distortion, if they
/// are true or not zero. The coefficients are of fisheye, f-theta and rational models.
const LENSES: &[&str] = &[
    "is_fisheye",
    "fisheye",
    "ftheta",
    "is_ftheta",
    "latlong",
    "lat_long",
    "is_latlong",
    "equirectangular",
    "orthographic",
    "ftheta_p0",
    "ftheta_p1",
    "ftheta_p2",
    "ftheta_p3",
    "ftheta_p4",
    "k4",
    "k5",
    "k6",
];
/// Extensions to try, in this order, if a picture's name has none.
const EXTENSIONS: [&str; 6] = ["", ".png", ".jpg", ".jpeg", ".JPG", ".PNG"];

/// Returns the file, if there is one.
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
        // Removes digits that only come from the reciprocal (1 / 0.001).
        let units = 1.0 / scale;
        listing.conventions.depth_units_per_meter =
            Some(if (units - units.round()).abs() < 1e-6 * units { units.round() } else { units });
    }
    let mut size_of_first = None;
    let mut unknown_depth = 0;
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
            // Only the field of view is known. The picture gives the number of pixels.
            Known::Angles(angle_x, angle_y) => {
                if size_of_first.is_none() && color.is_file() {
                    size_of_first = depth::file_image_size(&color).ok();
                }
                size_of_first.map(|size| from_angles(angle_x, angle_y, size))
            }
            Known::Nothing => None,
        };
        let depth = frame.get("depth_file_path").or_else(|| frame.get("depth_path")).and_then(Value::as_str);
        let depth = depth.map(|name| text::named_file(folder, name)).filter(|path| {
            let is_known = text::has_extension(path, text::DEPTH);
            unknown_depth += usize::from(!is_known);
            is_known
        });
        let pose = pose_of_json(frame.get("transform_matrix"), convention);
        listing.frames.push(Listed { depth: depth.map(DepthFile::integer), calibration, pose, ..Listed::new(color) });
    }
    if unknown_depth > 0 {
        let known = text::DEPTH.join(", ");
        listing.notes.push(format!("{unknown_depth} depth maps are not used: their format is none of {known}"));
    }
    if let Some(name) = all.get("ply_file_path").and_then(Value::as_str) {
        let points = text::named_file(folder, name);
        if points.is_file() {
            listing.points = Some(Points::scan(points));
        } else {
            listing.notes.push(format!("ply_file_path names {name}, which does not exist"));
        }
    } else if let Some(points) = text::file_of(folder, POINTS) {
        listing.notes.push(format!("the points are read from {}", text::file_name(&points)));
        listing.points = Some(Points::scan(points));
    }
    if text::file_name(&file) == "transforms_train.json" {
        listing.notes.push("only the training frames are used (transforms_train.json)".into());
    }
    Ok(listing)
}

/// Returns an error for cameras that are not pinholes with Brown's distortion.
fn check_model(file: &Path, value: &Value) -> Result<(), ViewsError> {
    let is_set = |key: &&str| match value.get(*key) {
        Some(Value::Bool(set)) => *set,
        Some(other) => other.as_f64().is_some_and(|number| number != 0.0),
        None => false,
    };
    if let Some(key) = LENSES.iter().find(|key| is_set(key)) {
        let expected = "a pinhole with k1, k2, k3, p1, p2: undistort the pictures and depth maps first";
        return Err(ViewsError::unsupported(file, format!("the lens of \"{key}\""), expected));
    }
    let Some(model) = value.get("camera_model").and_then(Value::as_str) else { return Ok(()) };
    let known = ["PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL"];
    if known.iter().any(|name| name.eq_ignore_ascii_case(model)) {
        return Ok(());
    }
    let model: String = model.chars().take(40).collect();
    Err(ViewsError::unsupported(file, format!("camera_model \"{}\"", model.escape_default()), known.join(", ")))
}

/// Returns the picture of that name, with an extension added if the name lacks one.
fn picture(folder: &Path, name: &str) -> PathBuf {
    let candidates = EXTENSIONS.map(|extension| text::named_file(folder, &format!("{name}{extension}")));
    let found = candidates.iter().find(|path| path.is_file()).cloned();
    found.unwrap_or_else(|| text::named_file(folder, name))
}

enum Known {
    Camera(Calibration),
    Angles(f64, Option<f64>),
    Nothing,
}

/// Returns the intrinsics of a frame. Its own take precedence over those for all frames.
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
