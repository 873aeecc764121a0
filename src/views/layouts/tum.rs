//! The TUM RGB-D benchmark: pictures, depth maps and poses, each with its time.
//!
//! groundtruth.txt has lines `time tx ty tz qx qy qz qw`, camera-to-world in OpenCV axes; depth is in 1/5000 m.
//! A picture belongs to the depth map nearest in time; poses are interpolated.

use std::path::{Path, PathBuf};

use glam::DVec3;

use crate::views::calibration::Calibration;
use crate::views::recording::{DepthFile, Listed, Listing, PoseState};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 5000.0;
/// Furthest in time that two measurements belong together, in seconds.
const MAX_DIFFERENCE: f64 = 0.02;
/// Longest gap between two poses across which is interpolated, in seconds.
const MAX_GAP: f64 = 0.1;

const ASSOCIATIONS: &[&str] = &["associations.txt", "associate.txt", "association.txt", "assoc.txt"];
const CAMERA: &[&str] = &[
    "calibration.txt",
    "camera.txt",
    "intrinsics.txt",
    "camera.json",
    "intrinsics.json",
    "intrinsic.json",
    "calib.json",
];

/// Published intrinsics for the three cameras of the benchmark, and for those who know nothing better.
const PUBLISHED: [(&str, [f64; 4]); 3] = [
    ("freiburg1", [517.3, 516.5, 318.6, 255.3]),
    ("freiburg2", [520.9, 521.0, 325.1, 249.7]),
    ("freiburg3", [535.4, 539.2, 320.1, 247.6]),
];
const DEFAULT: [f64; 4] = [525.0, 525.0, 319.5, 239.5];

pub(super) fn fits(root: &Path) -> bool {
    root.join("groundtruth.txt").is_file()
        && (root.join("rgb.txt").is_file() || root.join("rgb").is_dir() || text::file_of(root, ASSOCIATIONS).is_some())
}

/// A file and when it was recorded.
#[derive(Clone, Debug)]
pub(super) struct Timed<T> {
    pub time: f64,
    pub what: T,
}

/// The nearest in time; `timed` is sorted by it.
fn nearest<T>(timed: &[Timed<T>], time: f64) -> Option<&Timed<T>> {
    let after = timed.partition_point(|other| other.time < time);
    let candidates = [after.checked_sub(1), Some(after)].into_iter().flatten().filter_map(|i| timed.get(i));
    candidates.min_by(|a, b| (a.time - time).abs().total_cmp(&(b.time - time).abs()))
}

/// A list of lines `time file`.
fn read_list(path: &Path) -> Result<Vec<Timed<PathBuf>>, ViewsError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let content = text::read(path)?;
    let mut list = Vec::new();
    for (line_number, line) in text::lines(&content) {
        let parsed = line.split_once([' ', '\t', ',']).and_then(|(time, file)| Some((finite(time)?, file.trim())));
        let Some((time, file)) = parsed else {
            return Err(ViewsError::line(path, line_number, quoted(line), "a time and a file name"));
        };
        list.push(Timed { time, what: folder.join(file) });
    }
    list.sort_by(|a, b| a.time.total_cmp(&b.time));
    Ok(list)
}

/// Two pictures that were taken together.
pub(super) struct Pair {
    pub color: Timed<PathBuf>,
    pub depth: Timed<PathBuf>,
}

/// A list of lines `time file time file`, colour or depth first.
pub(super) fn read_pairs(path: &Path) -> Result<Vec<Pair>, ViewsError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let content = text::read(path)?;
    let mut pairs = Vec::new();
    for (line_number, line) in text::lines(&content) {
        let tokens: Vec<&str> = line.split([' ', '\t', ',']).filter(|token| !token.is_empty()).collect();
        let parsed = match tokens[..] {
            [time, file, other_time, other, ..] => {
                finite(time).zip(finite(other_time)).map(|times| (times, file, other))
            }
            _ => None,
        };
        let Some(((time, other_time), file, other)) = parsed else {
            return Err(ViewsError::line(path, line_number, quoted(line), "a time, a file, a time and a file"));
        };
        let first = Timed { time, what: folder.join(file) };
        let second = Timed { time: other_time, what: folder.join(other) };
        pairs.push(match file.contains("depth") {
            true => Pair { color: second, depth: first },
            false => Pair { color: first, depth: second },
        });
    }
    Ok(pairs)
}

/// A trajectory of lines `time tx ty tz qx qy qz qw`, sorted by time.
pub(super) fn read_trajectory(path: &Path) -> Result<Vec<Timed<PoseState>>, ViewsError> {
    let content = text::read(path)?;
    let mut poses = Vec::new();
    for (line_number, line) in text::lines(&content) {
        let numbers = text::numbers_of_line(path, line_number, line)?;
        let [time, x, y, z, q @ ..] = numbers.as_slice() else {
            return Err(ViewsError::line(path, line_number, quoted(line), "time tx ty tz qx qy qz qw"));
        };
        let (Some(&xyzw), true) = (q.first_chunk::<4>(), time.is_finite()) else {
            return Err(ViewsError::line(path, line_number, quoted(line), "time tx ty tz qx qy qz qw"));
        };
        let pose = Pose::from_quaternion(xyzw, DVec3::new(*x, *y, *z), PoseConvention::OPENCV_CAMERA_TO_WORLD);
        poses.push(Timed { time: *time, what: pose.into() });
    }
    poses.sort_by(|a, b| a.time.total_cmp(&b.time));
    Ok(poses)
}

/// Where the camera was: between the two poses around that time if both are near, else at the nearest.
pub(super) fn pose_at(poses: &[Timed<PoseState>], time: f64) -> PoseState {
    let after = poses.partition_point(|pose| pose.time < time);
    if let (Some(a), Some(b)) = (after.checked_sub(1).and_then(|i| poses.get(i)), poses.get(after))
        && let (PoseState::Valid(from), PoseState::Valid(to)) = (a.what, b.what)
        && b.time - a.time <= MAX_GAP
        && b.time > a.time
    {
        return PoseState::Valid(from.interpolated(&to, (time - a.time) / (b.time - a.time)));
    }
    let found = nearest(poses, time).filter(|pose| (pose.time - time).abs() <= MAX_DIFFERENCE);
    found.map_or(PoseState::Missing, |pose| pose.what)
}

/// The pictures of a folder, whose names are the times.
fn named_by_time(folder: &Path, extensions: &[&str]) -> Vec<Timed<PathBuf>> {
    let timed = |path: PathBuf| Some(Timed { time: finite(&text::stem(&path))?, what: path });
    let mut list: Vec<_> = text::files_if_any(folder, extensions).into_iter().filter_map(timed).collect();
    list.sort_by(|a, b| a.time.total_cmp(&b.time));
    list
}

/// What a sequence is called, if its folder or the comments of its lists say so.
fn sequence_name(root: &Path) -> String {
    let mut name = root.canonicalize().unwrap_or_else(|_| root.to_path_buf()).to_string_lossy().into_owned();
    for list in ["rgb.txt", "depth.txt", "groundtruth.txt"] {
        let content = text::read(&root.join(list)).unwrap_or_default();
        name.extend(content.lines().take_while(|line| line.starts_with('#')));
    }
    name
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let trajectory = root.join("groundtruth.txt");
    if !trajectory.is_file() {
        return Err(ViewsError::missing(root, Layout::Tum, "the trajectory", "groundtruth.txt"));
    }
    let poses = read_trajectory(&trajectory)?;
    let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
    let mut listing = Listing::new(Layout::Tum, root, Some(convention), Some(UNITS_PER_METER));
    let calibration = match text::file_of(root, CAMERA) {
        Some(path) => calibration::read_calibration(&path, false)?,
        None => {
            let name = sequence_name(root);
            let published = PUBLISHED.into_iter().find(|(camera, _)| name.contains(camera));
            listing.notes.push(match published {
                Some((camera, _)) => format!("the intrinsics are those published for {camera}"),
                None => "no intrinsics were found: f 525, c 319.5 239.5 is assumed, the sensor's default".into(),
            });
            Calibration::of(published.map_or(DEFAULT, |(_, intrinsics)| intrinsics)).sized(640, 480)
        }
    };
    let existing = |list: Vec<Timed<PathBuf>>| {
        let listed = list.len();
        let there: Vec<_> = list.into_iter().filter(|picture| picture.what.is_file()).collect();
        (listed - there.len(), there)
    };
    let lists = ["rgb.txt", "depth.txt"].map(|name| text::file_of(root, &[name]));
    let (colors, depths) = match (&lists, text::file_of(root, ASSOCIATIONS)) {
        ([Some(rgb), depth], _) => {
            let (absent, colors) = existing(read_list(rgb)?);
            listing.missing_color = absent;
            let depths = depth.as_deref().map(read_list).transpose()?.unwrap_or_default();
            let (absent, depths) = existing(depths);
            listing.missing_depth = absent;
            (colors, depths)
        }
        (_, Some(pairs)) => {
            let (colors, depths): (Vec<_>, Vec<_>) =
                read_pairs(&pairs)?.into_iter().map(|pair| (pair.color, pair.depth)).unzip();
            let (absent, mut colors) = existing(colors);
            listing.missing_color = absent;
            let (absent, mut depths) = existing(depths);
            listing.missing_depth = absent;
            colors.sort_by(|a, b| a.time.total_cmp(&b.time));
            depths.sort_by(|a, b| a.time.total_cmp(&b.time));
            (colors, depths)
        }
        _ => (named_by_time(&root.join("rgb"), text::COLOR), named_by_time(&root.join("depth"), text::DEPTH)),
    };
    let mut alone = 0;
    for color in colors {
        let depth = nearest(&depths, color.time).filter(|depth| (depth.time - color.time).abs() <= MAX_DIFFERENCE);
        alone += usize::from(depth.is_none());
        listing.frames.push(Listed {
            depth: depth.map(|depth| DepthFile::integer(depth.what.clone())),
            calibration: Some(calibration),
            pose: pose_at(&poses, color.time),
            depth_pose: depth.and_then(|depth| pose_at(&poses, depth.time).valid()),
            ..Listed::new(color.what)
        });
    }
    if alone > 0 {
        listing.notes.push(format!("{alone} pictures have no depth map within {MAX_DIFFERENCE} s"));
    }
    Ok(listing)
}

fn finite(token: &str) -> Option<f64> {
    text::number(token).filter(|time| time.is_finite())
}

fn quoted(line: &str) -> String {
    format!("\"{}\"", line.chars().take(60).collect::<String>().escape_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poses_are_interpolated_across_short_gaps_only() {
        let pose = |x: f64| {
            let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
            PoseState::from(Pose::from_quaternion([0.0, 0.0, 0.0, 1.0], DVec3::new(x, 0.0, 0.0), convention))
        };
        let poses: Vec<_> = [(0.0, 1.0), (0.05, 2.0), (1.0, 3.0)].map(|(time, x)| Timed { time, what: pose(x) }).into();
        let x = |time| pose_at(&poses, time).valid().map(|pose| pose.center().x);
        assert_eq!(x(0.0), Some(1.0));
        assert!((x(0.025).unwrap() - 1.5).abs() < 1e-9);
        assert_eq!(x(0.06), Some(2.0));
        assert_eq!(x(0.5), None);
        assert_eq!(x(1.015), Some(3.0));
        assert_eq!(x(1.03), None);
        assert_eq!(x(-0.01), Some(1.0));
        assert!(matches!(pose_at(&[], 0.0), PoseState::Missing));
    }
}
