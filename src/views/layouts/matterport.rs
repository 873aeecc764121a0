//! Matterport3D: 18 pictures from each place, with intrinsics for each camera.
//!
//! Three forms. Undistorted: a .conf file with camera-to-world matrices in OpenGL axes, and principal points
//! counted from the lower left corner. Raw: poses camera-to-world in OpenCV axes, a file each, and lens distortion.
//! Exported: folders color, depth, pose (OpenCV axes), and intrinsic with a file for each picture. Depth is in
//! 1/4000 m.

use std::path::{Path, PathBuf};

use super::{pose_of_file, require_poses};
use crate::views::calibration::Calibration;
use crate::views::camera::Distortion;
use crate::views::recording::{DepthFile, Listed, Listing};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 4000.0;
/// Height of the pictures, from whose lower edge the undistorted principal points are counted.
const SIZE: [usize; 2] = [1280, 1024];

enum Form {
    Undistorted(PathBuf),
    Raw { color: PathBuf, depth: PathBuf, pose: PathBuf, intrinsic: PathBuf },
    Exported,
}

fn form(root: &Path) -> Option<Form> {
    let folders = [root.join("undistorted_camera_parameters"), root.to_path_buf()];
    let conf = folders.iter().flat_map(|folder| text::files_if_any(folder, &["conf"])).next();
    if let Some(conf) = conf
        && color_folder(root).is_some()
    {
        return Some(Form::Undistorted(conf));
    }
    let or_root = |name: &str| Some(root.join(name)).filter(|path| path.is_dir()).unwrap_or_else(|| root.to_path_buf());
    let (color, pose) = (or_root("matterport_color_images"), or_root("matterport_camera_poses"));
    let one_pose = || text::files_if_any(&pose, &["txt"]).into_iter().any(|path| text::stem(&path).contains("_pose_"));
    if (color != root || pose == root) && one_pose() {
        let (depth, intrinsic) = (or_root("matterport_depth_images"), or_root("matterport_camera_intrinsics"));
        return Some(Form::Raw { color, depth, pose, intrinsic });
    }
    let exported = root.join("color").is_dir() && root.join("pose").is_dir() && root.join("intrinsic").is_dir();
    // One file of intrinsics for a picture, not one for all.
    let own_intrinsics = || {
        let first = text::files_if_any(&root.join("color"), text::COLOR).into_iter().next()?;
        text::file_of(&root.join("intrinsic"), &[&format!("{}.txt", text::stem(&first))])
    };
    (exported && own_intrinsics().is_some()).then_some(Form::Exported)
}

fn color_folder(root: &Path) -> Option<PathBuf> {
    text::folder_of(root, &["undistorted_color_images", "color"])
}

pub(super) fn fits(root: &Path) -> bool {
    form(root).is_some()
}

/// Parts of a picture's name: place, camera and turn of `17de_i1_4`.
fn parts(stem: &str) -> Option<(&str, &str, &str)> {
    let (rest, turn) = stem.rsplit_once('_')?;
    let (place, camera) = rest.rsplit_once('_')?;
    Some((place, camera.strip_prefix(['i', 'd'])?, turn))
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let Some(form) = form(root) else {
        return Err(ViewsError::missing(root, Layout::Matterport, "every known form", Layout::Matterport.expects()));
    };
    let opengl = matches!(form, Form::Undistorted(_));
    let convention =
        if opengl { PoseConvention::OPENGL_CAMERA_TO_WORLD } else { PoseConvention::OPENCV_CAMERA_TO_WORLD };
    let mut listing = Listing::new(Layout::Matterport, root, Some(convention), Some(UNITS_PER_METER));
    match form {
        Form::Undistorted(conf) => list_undistorted(root, &conf, convention, &mut listing.frames)?,
        Form::Raw { color, depth, pose, intrinsic } => {
            for path in text::files(&color, text::COLOR)? {
                let stem = text::stem(&path);
                let Some((place, camera, turn)) = parts(&stem).filter(|_| stem.contains("_i")) else { continue };
                let intrinsics = intrinsic.join(format!("{place}_intrinsics_{camera}.txt"));
                listing.frames.push(Listed {
                    depth: Some(DepthFile::integer(depth.join(format!("{place}_d{camera}_{turn}.png")))),
                    calibration: Some(raw_calibration(&intrinsics)?),
                    pose: pose_of_file(&pose.join(format!("{place}_pose_{camera}_{turn}.txt")), convention),
                    ..Listed::new(path)
                });
            }
        }
        Form::Exported => {
            for path in text::files(&root.join("color"), text::COLOR)? {
                let stem = text::stem(&path);
                let named =
                    |stem: &str| Some(root.join("depth").join(format!("{stem}.png"))).filter(|path| path.is_file());
                let depth = parts(&stem).and_then(|(place, camera, turn)| named(&format!("{place}_d{camera}_{turn}")));
                let depth = depth.or_else(|| named(&stem));
                let file = |folder: &str| root.join(folder).join(format!("{stem}.txt"));
                listing.frames.push(Listed {
                    depth: depth.map(DepthFile::integer),
                    calibration: Some(calibration::read_calibration(&file("intrinsic"), false)?),
                    pose: pose_of_file(&file("pose"), convention),
                    ..Listed::new(path)
                });
            }
        }
    }
    require_poses(&listing, "every pose", "a camera-to-world matrix for each picture")?;
    Ok(listing)
}

/// A line `width height fx fy cx cy k1 k2 p1 p2 k3`.
fn raw_calibration(path: &Path) -> Result<Calibration, ViewsError> {
    let numbers = text::numbers(path)?;
    let (Some(&[width, height, fx, fy, cx, cy]), true) = (numbers.first_chunk(), numbers.iter().all(|x| x.is_finite()))
    else {
        let found = format!("{} numbers", numbers.len());
        return Err(ViewsError::value(path, "the content", found, "width height fx fy cx cy k1 k2 p1 p2 k3"));
    };
    if !((1.0..1e6).contains(&width) && (1.0..1e6).contains(&height)) {
        return Err(ViewsError::value(path, "the size", format!("{width} x {height}"), "that of a picture"));
    }
    let k = |i: usize| numbers.get(6 + i).copied().unwrap_or(0.0);
    let distortion = Distortion { k1: k(0), k2: k(1), p1: k(2), p2: k(3), k3: k(4) };
    let calibration = Calibration::of([fx, fy, cx, cy]).sized(width as usize, height as usize);
    Ok(Calibration { distortion: Some(distortion), ..calibration })
}

fn list_undistorted(
    root: &Path,
    conf: &Path,
    convention: PoseConvention,
    frames: &mut Vec<Listed>,
) -> Result<(), ViewsError> {
    let content = text::read(conf)?;
    let color_folder = color_folder(root).unwrap_or_else(|| root.to_path_buf());
    let depth_folder =
        text::folder_of(root, &["undistorted_depth_images", "depth"]).unwrap_or_else(|| root.to_path_buf());
    let mut calibration = None;
    for (line_number, line) in text::lines(&content) {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "intrinsics_matrix" => {
                let m = text::numbers_of_line(conf, line_number, rest)?;
                let Some(&[fx, _, cx, _, fy, cy, ..]) = m.first_chunk::<9>() else {
                    return Err(ViewsError::line(conf, line_number, format!("{} numbers", m.len()), "a 3x3 matrix"));
                };
                let cy = (SIZE[1] - 1) as f64 - cy;
                calibration = Some(Calibration::of([fx, fy, cx, cy]).sized(SIZE[0], SIZE[1]));
            }
            "scan" => {
                let mut words = rest.splitn(3, char::is_whitespace);
                let (Some(depth), Some(color), Some(matrix)) = (words.next(), words.next(), words.next()) else {
                    return Err(ViewsError::line(
                        conf,
                        line_number,
                        "too few words",
                        "scan DEPTH COLOR and a 4x4 matrix",
                    ));
                };
                let Some(calibration) = calibration else {
                    return Err(ViewsError::line(conf, line_number, "a scan", "an intrinsics_matrix before it"));
                };
                let rows = text::numbers_of_line(conf, line_number, matrix)?;
                frames.push(Listed {
                    depth: Some(DepthFile::integer(depth_folder.join(depth))),
                    calibration: Some(calibration),
                    pose: Pose::from_rows(&rows, convention).into(),
                    ..Listed::new(color_folder.join(color))
                });
            }
            _ => {}
        }
    }
    Ok(())
}
