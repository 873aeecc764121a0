//! Stray Scanner (iPhone, iPad): rgb.mp4, depth/, confidence/, odometry.csv and camera_matrix.csv.
//!
//! odometry.csv has a head line and lines `timestamp, frame, x, y, z, qx, qy, qz, qw`, camera-to-world in
//! OpenCV axes. Depth is in millimetres and coarser than the pictures. The confidence is 0 to 2. The pictures
//! are a video, from which they must be extracted: this program has no decoder of videos.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use glam::DVec3;

use super::{by_stem, require_poses};
use crate::views::calibration::{Calibration, read_calibration};
use crate::views::recording::{DepthFile, Listed, Listing, PoseState};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, text};

const UNITS_PER_METER: f64 = 1000.0;
const ODOMETRY: &str = "odometry.csv";
const CAMERA: &str = "camera_matrix.csv";
const VIDEO: &str = "rgb.mp4";

pub(super) fn fits(root: &Path) -> bool {
    root.join(ODOMETRY).is_file() && root.join(CAMERA).is_file()
}

/// A line of the odometry.
struct Row {
    pose: PoseState,
    /// Newer files have the intrinsics of each frame.
    calibration: Option<Calibration>,
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let missing = |what: &str, expected: &str| ViewsError::missing(root, Layout::Stray, what, expected);
    let file = |name: &str| text::file_of(root, &[name]);
    let odometry = file(ODOMETRY).ok_or_else(|| missing("the trajectory", ODOMETRY))?;
    let camera = file(CAMERA).ok_or_else(|| missing("the calibration", CAMERA))?;
    let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
    let mut listing = Listing::new(Layout::Stray, root, Some(convention), Some(UNITS_PER_METER));
    let calibration = read_calibration(&camera, false)?;
    let rows = read_odometry(&odometry, convention)?;
    let colors = text::folder_of(root, &["rgb", "color", "images", "frames"])
        .map(|folder| text::files_if_any(&folder, text::COLOR))
        .unwrap_or_default();
    if colors.is_empty() && root.join(VIDEO).is_file() {
        let (video, pictures) = (root.join(VIDEO), root.join("rgb"));
        let expected = format!(
            "them in rgb/, numbered from 000000. Extract them with: mkdir -p \"{1}\" && ffmpeg -noautorotate -i \"{0}\" -vsync 0 -qscale:v 2 -start_number 0 \"{1}/%06d.jpg\"",
            video.display(),
            pictures.display()
        );
        return Err(ViewsError::missing(
            root,
            Layout::Stray,
            "every picture (there is only the video rgb.mp4)",
            expected,
        ));
    }
    let number = |path: &Path| text::stem(path).trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().ok();
    let first = colors.iter().filter_map(|path| number(path)).min().unwrap_or(0);
    // Programs that extract pictures count from 1 unless they are told otherwise.
    let offset = usize::from(first == 1 && colors.len() + 1 >= rows.len());
    if offset == 1 {
        listing.notes.push("the pictures are numbered from 1: picture 1 is taken for frame 0".into());
    }
    let depths = by_number(&text::files_if_any(&root.join("depth"), text::DEPTH), number);
    let confidences = by_stem(&text::files_if_any(&root.join("confidence"), &["png"]));
    for color in colors {
        let frame = number(&color).and_then(|n| n.checked_sub(offset));
        let row = frame.and_then(|frame| rows.get(&frame));
        let depth = frame.and_then(|frame| depths.get(&frame)).map(|path| DepthFile {
            confidence: confidences.get(&text::stem(path)).cloned(),
            ..DepthFile::integer(path.clone())
        });
        listing.frames.push(Listed {
            depth,
            calibration: Some(row.and_then(|row| row.calibration).unwrap_or(calibration)),
            pose: row.map_or(PoseState::Missing, |row| row.pose),
            ..Listed::new(color)
        });
    }
    require_poses(&listing, "every pose", "a line of odometry.csv for the number of each picture")?;
    if !confidences.is_empty() {
        listing.notes.push("depth of confidence 0 is left out".into());
    }
    Ok(listing)
}

fn by_number(files: &[PathBuf], number: impl Fn(&Path) -> Option<usize>) -> HashMap<usize, PathBuf> {
    files.iter().filter_map(|path| Some((number(path)?, path.clone()))).collect()
}

fn read_odometry(path: &Path, convention: PoseConvention) -> Result<HashMap<usize, Row>, ViewsError> {
    let content = text::read(path)?;
    let mut lines = text::lines(&content);
    let (line_number, head) = lines.next().unwrap_or((1, ""));
    let names: Vec<String> = head.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    let place = |name: &str| names.iter().position(|other| other == name);
    let needed = ["frame", "x", "y", "z", "qx", "qy", "qz", "qw"].map(place);
    let [Some(frame), Some(x), Some(y), Some(z), Some(qx), Some(qy), Some(qz), Some(qw)] = needed else {
        let found: String = head.chars().take(60).collect();
        let found = format!("\"{}\"", found.escape_default());
        return Err(ViewsError::line(path, line_number, found, "timestamp, frame, x, y, z, qx, qy, qz, qw"));
    };
    let camera = ["fx", "fy", "cx", "cy"].map(place);
    let mut rows = HashMap::new();
    for (line_number, line) in lines {
        let numbers = text::numbers_of_line(path, line_number, line)?;
        let at = |i: usize| numbers.get(i).copied().unwrap_or(f64::NAN);
        let number = at(frame);
        if !(number.fract() == 0.0 && (0.0..1e9).contains(&number)) {
            return Err(ViewsError::line(path, line_number, format!("frame {number}"), "a whole number"));
        }
        let position = DVec3::new(at(x), at(y), at(z));
        let pose = Pose::from_quaternion([at(qx), at(qy), at(qz), at(qw)], position, convention).into();
        let calibration = match camera {
            [Some(fx), Some(fy), Some(cx), Some(cy)] => Some([at(fx), at(fy), at(cx), at(cy)]),
            _ => None,
        };
        let calibration = calibration.filter(|numbers| numbers.iter().all(|x| x.is_finite()));
        rows.insert(number as usize, Row { pose, calibration: calibration.map(Calibration::of) });
    }
    Ok(rows)
}
