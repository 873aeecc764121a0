//! The TUM RGB-D benchmark: pictures, depth maps and poses, each with a time.
//!
//! groundtruth.txt has lines `time tx ty tz qx qy qz qw`, camera-to-world in OpenCV axes. Depth is in 1/5000
//! m. A picture gets the depth map that associations.txt names, else the one nearest in time. Poses are
//! interpolated. Times are in seconds, or in milliseconds, microseconds or nanoseconds if they are so large.

use std::path::{Path, PathBuf};

use glam::DVec3;

use crate::views::calibration::{Calibration, find_calibration};
use crate::views::recording::{DepthFile, Listed, Listing, PoseState};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 5000.0;
/// Largest time difference between measurements that belong together, in seconds.
const MAX_DIFFERENCE: f64 = 0.02;
/// Longest gap between two poses that is interpolated, in seconds.
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

/// Published intrinsics of the benchmark's three cameras, and the fallback for others.
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

/// A file or value with its recording time.
#[derive(Clone, Debug)]
pub(super) struct Timed<T> {
    pub time: f64,
    pub what: T,
}

/// Converts times to seconds. Units are told by the size of the times, which usually count from 1970, and by
/// the usual step between them.
fn to_seconds(mut times: Vec<&mut f64>) {
    let largest = times.iter().fold(0.0, |largest: f64, time| largest.max(time.abs()));
    let mut steps: Vec<f64> = times.windows(2).map(|pair| (*pair[1] - *pair[0]).abs()).filter(|&d| d > 0.0).collect();
    let middle = steps.len() / 2;
    let step = if steps.is_empty() { 0.0 } else { *steps.select_nth_unstable_by(middle, f64::total_cmp).1 };
    let per_second = match (largest, step) {
        (1e17.., _) | (_, 1e6..) => 1e9,
        (1e14.., _) => 1e6,
        (1e11.., _) => 1e3,
        (_, 3e3..) => 1e6,
        _ => return,
    };
    times.iter_mut().for_each(|time| **time /= per_second);
}

/// Returns the entry nearest in time. `timed` is sorted by time.
pub(super) fn nearest<T>(timed: &[Timed<T>], time: f64) -> Option<&Timed<T>> {
    let after = timed.partition_point(|other| other.time < time);
    let candidates = [after.checked_sub(1), Some(after)].into_iter().flatten().filter_map(|i| timed.get(i));
    candidates.min_by(|a, b| (a.time - time).abs().total_cmp(&(b.time - time).abs()))
}

/// Reads a list of lines `time file`.
fn read_list(path: &Path) -> Result<Vec<Timed<PathBuf>>, ViewsError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let content = text::read(path)?;
    let mut list = Vec::new();
    for (line_number, line) in text::lines(&content) {
        let parsed = line.split_once([' ', '\t', ',']).and_then(|(time, file)| Some((finite(time)?, file.trim())));
        let Some((time, file)) = parsed else {
            return Err(ViewsError::line(path, line_number, quoted(line), "a time and a file name"));
        };
        list.push(Timed { time, what: text::named_file(folder, file) });
    }
    to_seconds(list.iter_mut().map(|entry| &mut entry.time).collect());
    list.sort_by(|a, b| a.time.total_cmp(&b.time));
    Ok(list)
}

/// Two pictures taken together.
pub(super) struct Pair {
    pub color: Timed<PathBuf>,
    pub depth: Timed<PathBuf>,
}

/// Reads a list of lines `time file time file`, with colour or depth first, or `file file` with times as
/// names.
pub(super) fn read_pairs(path: &Path) -> Result<Vec<Pair>, ViewsError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let content = text::read(path)?;
    let mut pairs = Vec::new();
    let time_of = |file: &str| finite(&text::stem(Path::new(file)));
    for (line_number, line) in text::lines(&content) {
        let tokens: Vec<&str> = line.split([' ', '\t', ',']).filter(|token| !token.is_empty()).collect();
        let parsed = match tokens[..] {
            [file, other] => time_of(file).zip(time_of(other)).map(|times| (times, file, other)),
            [time, file, other_time, other, ..] => {
                finite(time).zip(finite(other_time)).map(|times| (times, file, other))
            }
            _ => None,
        };
        let Some(((time, other_time), file, other)) = parsed else {
            return Err(ViewsError::line(path, line_number, quoted(line), "a time, a file, a time and a file"));
        };
        let first = Timed { time, what: text::named_file(folder, file) };
        let second = Timed { time: other_time, what: text::named_file(folder, other) };
        pairs.push(match file.contains("depth") {
            true => Pair { color: second, depth: first },
            false => Pair { color: first, depth: second },
        });
    }
    to_seconds(pairs.iter_mut().map(|pair| &mut pair.color.time).collect());
    to_seconds(pairs.iter_mut().map(|pair| &mut pair.depth.time).collect());
    Ok(pairs)
}

/// Reads a trajectory of lines `time tx ty tz qx qy qz qw` and sorts it by time.
pub(super) fn read_trajectory(path: &Path) -> Result<Vec<Timed<PoseState>>, ViewsError> {
    let content = text::read(path)?;
    // A comment may name the columns.
    let place = |line: &str, column| line.to_ascii_lowercase().find(column);
    let w_first = |line: &&str| place(line, "qw").zip(place(line, "qx")).is_some_and(|(w, x)| w < x);
    let scalar_first = content.lines().filter(|line| line.starts_with('#')).any(|line| w_first(&line));
    let mut poses = Vec::new();
    for (line_number, line) in text::lines(&content) {
        let numbers = text::numbers_of_line(path, line_number, line)?;
        let [time, x, y, z, q @ ..] = numbers.as_slice() else {
            return Err(ViewsError::line(path, line_number, quoted(line), "time tx ty tz qx qy qz qw"));
        };
        let (Some(&xyzw), true) = (q.first_chunk::<4>(), time.is_finite()) else {
            return Err(ViewsError::line(path, line_number, quoted(line), "time tx ty tz qx qy qz qw"));
        };
        let [a, b, c, d] = xyzw;
        let xyzw = if scalar_first { [b, c, d, a] } else { xyzw };
        let pose = Pose::from_quaternion(xyzw, DVec3::new(*x, *y, *z), PoseConvention::OPENCV_CAMERA_TO_WORLD);
        poses.push(Timed { time: *time, what: pose.into() });
    }
    to_seconds(poses.iter_mut().map(|pose| &mut pose.time).collect());
    poses.sort_by(|a, b| a.time.total_cmp(&b.time));
    Ok(poses)
}

/// Returns the pose at a time. It is interpolated between the two poses around the time if both are near,
/// else it is the nearest pose.
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

/// Lists the pictures of a folder whose names are times.
fn named_by_time(folder: &Path, extensions: &[&str]) -> Vec<Timed<PathBuf>> {
    let timed = |path: PathBuf| Some(Timed { time: finite(&text::stem(&path))?, what: path });
    let mut list: Vec<_> = text::files_if_any(folder, extensions).into_iter().filter_map(timed).collect();
    to_seconds(list.iter_mut().map(|entry| &mut entry.time).collect());
    list.sort_by(|a, b| a.time.total_cmp(&b.time));
    list
}

/// Returns the name of the sequence from its folder or from comments in its lists.
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
    let calibration = match find_calibration(root, CAMERA, &mut listing.notes)? {
        Some(calibration) => calibration,
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
    let list_of = |name| text::file_of(root, &[name]).map(|path| read_list(&path)).transpose();
    let listed = list_of("rgb.txt")?;
    let pairs = match text::file_of(root, ASSOCIATIONS).map(|path| read_pairs(&path)) {
        Some(Ok(pairs)) if pairs.len() >= listed.as_ref().map_or(0, Vec::len) => Some(pairs),
        // Associations may be of a part, or of other files, for example of pictures and poses. Then the lists
        // count.
        Some(Err(error)) if listed.is_none() => return Err(error),
        _ => None,
    };
    let frame = |color: Timed<PathBuf>, depth: Option<&Timed<PathBuf>>| {
        // Two clocks, if a pair is farther apart: then the picture's pose counts for both.
        let near = depth.filter(|depth| (depth.time - color.time).abs() <= MAX_DIFFERENCE);
        Listed {
            depth: depth.map(|depth| DepthFile::integer(depth.what.clone())),
            calibration: Some(calibration),
            pose: pose_at(&poses, color.time),
            depth_pose: near.and_then(|depth| pose_at(&poses, depth.time).valid()),
            ..Listed::new(color.what)
        }
    };
    if let Some(mut pairs) = pairs {
        pairs.sort_by(|a, b| a.color.time.total_cmp(&b.color.time));
        listing.frames.extend(pairs.into_iter().map(|pair| frame(pair.color, Some(&pair.depth))));
        return Ok(listing);
    }
    let existing = |list: Vec<Timed<PathBuf>>| {
        let listed = list.len();
        let there: Vec<_> = list.into_iter().filter(|picture| picture.what.is_file()).collect();
        (listed - there.len(), there)
    };
    let (colors, depths) = match listed {
        Some(listed) => {
            let (absent, colors) = existing(listed);
            listing.missing_color = absent;
            let (absent, depths) = existing(list_of("depth.txt")?.unwrap_or_default());
            listing.missing_depth = absent;
            (colors, depths)
        }
        None => (named_by_time(&root.join("rgb"), text::COLOR), named_by_time(&root.join("depth"), text::DEPTH)),
    };
    let mut alone = 0;
    for color in colors {
        let depth = nearest(&depths, color.time).filter(|depth| (depth.time - color.time).abs() <= MAX_DIFFERENCE);
        alone += usize::from(depth.is_none());
        listing.frames.push(frame(color, depth));
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
    fn times_of_every_unit_become_seconds() {
        let seconds = [1_403_636_579.75, 1_403_636_579.8, 1_403_636_580.0];
        for unit in [1.0, 1e3, 1e6, 1e9] {
            let mut times = seconds.map(|time| time * unit);
            to_seconds(times.iter_mut().collect());
            assert!(times.iter().zip(seconds).all(|(a, b)| (a - b).abs() < 1e-5), "{unit}: {times:?}");
        }
        // Times from zero on: the step tells the unit. Numbers of frames stay what they are.
        for (step, expected) in [(33e6, 0.033), (33e3, 0.033), (0.033, 0.033), (1.0, 1.0), (5.0, 5.0)] {
            let mut times = [0.0, step, 2.0 * step];
            to_seconds(times.iter_mut().collect());
            assert!((times[1] - expected).abs() < 1e-12, "{times:?}");
        }
        to_seconds(Vec::new());
        let mut times = [f64::NAN, f64::INFINITY];
        to_seconds(times.iter_mut().collect());
        assert!(times[0].is_nan() && times[1] == f64::INFINITY, "{times:?}");
    }

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
