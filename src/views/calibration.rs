//! Cameras as files of recordings have them.

use std::path::Path;

use serde_json::Value;

use super::camera::Distortion;
use super::text::{has_extension, json_number, json_numbers, json_size, number, numbers, read, read_json};
use super::{Intrinsics, ViewsError};

/// Sizes of pictures that recordings come in, for intrinsics that do not say theirs.
const COMMON_SIZES: [[usize; 2]; 9] =
    [[1296, 968], [640, 480], [648, 484], [1280, 1024], [1280, 720], [1920, 1440], [960, 720], [320, 240], [1200, 680]];

/// A camera as a file has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Calibration {
    /// Size of the picture it is made for, if that is said.
    pub size: Option<[usize; 2]>,
    pub fx: f64,
    /// Negative in left-handed recordings.
    pub fy: f64,
    /// The principal point, with the centre of the first pixel at (0, 0).
    pub cx: f64,
    pub cy: f64,
    pub distortion: Option<Distortion>,
}

impl Calibration {
    pub fn of([fx, fy, cx, cy]: [f64; 4]) -> Self {
        Self { size: None, fx, fy, cx, cy, distortion: None }
    }

    pub fn sized(self, width: usize, height: usize) -> Self {
        Self { size: Some([width, height]), ..self }
    }

    /// From one whose first pixel has its corner, not its centre, at (0, 0): COLMAP, nerfstudio.
    pub fn with_corner_at_zero(self) -> Self {
        Self { cx: self.cx - 0.5, cy: self.cy - 0.5, ..self }
    }

    /// A guess: 60 degrees wide, looking through the middle.
    pub fn guess(size: [usize; 2]) -> Self {
        let [width, height] = size.map(|side| side as f64);
        let f = width / 2.0 / 30.0_f64.to_radians().tan();
        Self::of([f, f, (width - 1.0) / 2.0, (height - 1.0) / 2.0]).sized(size[0], size[1])
    }

    /// The size it is made for: what it says, what fits `actual`, or the common size that its principal point is
    /// the middle of.
    pub fn size_or(&self, actual: [usize; 2]) -> [usize; 2] {
        if let Some(size) = self.size {
            return size;
        }
        let middle = [self.cx, self.cy].map(|c| 2.0 * c + 1.0);
        let fits = |size: [usize; 2], tolerance: f64| {
            (0..2).all(|axis| (middle[axis] / size[axis] as f64 - 1.0).abs() <= tolerance)
        };
        if fits(actual, 0.2) {
            return actual;
        }
        COMMON_SIZES.into_iter().find(|&size| fits(size, 0.1) && same_shape(size, actual)).unwrap_or(actual)
    }

    /// The camera for a picture of another size.
    pub fn fitted(&self, size: [usize; 2], actual: [usize; 2], path: &Path) -> Result<Intrinsics, ViewsError> {
        if !same_shape(size, actual) {
            let (path, reason) = (path.to_path_buf(), "the intrinsics say, or the same shape");
            return Err(ViewsError::Size { path, found: actual, expected: size, reason });
        }
        Intrinsics::new(size[0], size[1], self.fx, self.fy.abs(), self.cx, self.cy)
            .map(|intrinsics| intrinsics.scaled_to(actual[0], actual[1]))
            .map_err(|error| ViewsError::value(path, "the camera", error, "usable intrinsics"))
    }
}

/// Whether two sizes have the same aspect ratio but for rounding and a cropped edge.
pub(super) fn same_shape(a: [usize; 2], b: [usize; 2]) -> bool {
    let ratio = |[width, height]: [usize; 2]| width as f64 / height as f64;
    (ratio(a) / ratio(b) - 1.0).abs() <= 0.03
}

/// A file that says what the camera is: JSON or text, in any of the common ways.
///
/// JSON: `intrinsic_matrix` (Open3D, column by column), `K`, or `fx fy cx cy` (`fl_x`, `ppx` and such), in the
/// object itself or in `camera`; `width height` or `w h`. Text: a 3x3 or 4x4 matrix, four numbers fx fy cx cy, or
/// lines `fx_color = 1170.1` (ScanNet), where `depth` chooses `fx_depth`.
pub(super) fn read_calibration(path: &Path, depth: bool) -> Result<Calibration, ViewsError> {
    if has_extension(path, &["json"]) {
        let value = read_json(path)?;
        return calibration_of_json(&value).ok_or_else(|| {
            ViewsError::value(path, "the content", "other", "intrinsic_matrix, K, or fx, fy, cx and cy as numbers")
        });
    }
    let text = read(path)?;
    if text.contains('=') {
        return calibration_of_pairs(&text, depth).ok_or_else(|| {
            let expected = "lines \"fx_color = ...\", fy_, mx_, my_, or m_calibrationColorIntrinsic";
            ViewsError::value(path, "the content", "other", expected)
        });
    }
    let numbers = numbers(path)?;
    let calibration = match numbers.len() {
        4 => Some(Calibration::of([numbers[0], numbers[1], numbers[2], numbers[3]])),
        9 | 16 => of_matrix(&numbers),
        _ => None,
    };
    calibration.ok_or_else(|| {
        ViewsError::value(
            path,
            "the content",
            format!("{} numbers", numbers.len()),
            "a 3x3 or 4x4 matrix, or fx fy cx cy",
        )
    })
}

/// A 3x3 or 4x4 matrix row by row, or its transpose.
fn of_matrix(m: &[f64]) -> Option<Calibration> {
    let side = match m.len() {
        9 => 3,
        16 => 4,
        _ => return None,
    };
    let at = |row: usize, column: usize| m[row * side + column];
    let transposed = at(0, 2) == 0.0 && at(1, 2) == 0.0 && (at(2, 0) != 0.0 || at(2, 1) != 0.0);
    let (cx, cy) = if transposed { (at(2, 0), at(2, 1)) } else { (at(0, 2), at(1, 2)) };
    Some(Calibration::of([at(0, 0), at(1, 1), cx, cy]))
}

fn calibration_of_json(value: &Value) -> Option<Calibration> {
    let value = ["camera", "intrinsic", "color"]
        .iter()
        .find_map(|key| value.get(key).filter(|v| v.is_object()))
        .unwrap_or(value);
    let size = json_size(value, &["width", "w"], &["height", "h"]);
    let matrix = ["intrinsic_matrix", "K", "camera_matrix"].iter().find_map(|key| json_numbers(value.get(key)?));
    let calibration = match matrix {
        Some(matrix) => of_matrix(&matrix)?,
        None => Calibration::of([
            json_number(value, &["fx", "fl_x"])?,
            json_number(value, &["fy", "fl_y"])?,
            json_number(value, &["cx", "ppx"])?,
            json_number(value, &["cy", "ppy"])?,
        ]),
    };
    Some(Calibration { size, ..calibration })
}

/// Lines `key = value` as ScanNet writes them beside a recording.
fn calibration_of_pairs(text: &str, depth: bool) -> Option<Calibration> {
    let find = |name: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
    };
    let scalar = |name: String| find(&name).and_then(number);
    let size = |width: String, height: String| {
        let side = |name| scalar(name).filter(|x| (1.0..=1e6).contains(x)).map(|x| x.round() as usize);
        Some([side(width)?, side(height)?])
    };
    let (kind, upper) = if depth { ("depth", "Depth") } else { ("color", "Color") };
    if let Some(matrix) = find(&format!("m_calibration{upper}Intrinsic")) {
        let numbers: Option<Vec<f64>> = matrix.split_whitespace().map(number).collect();
        let size = size(format!("m_{kind}Width"), format!("m_{kind}Height"));
        return Some(Calibration { size, ..of_matrix(&numbers?)? });
    }
    let [fx, fy, cx, cy] = ["fx", "fy", "mx", "my"].map(|name| scalar(format!("{name}_{kind}")));
    let size = size(format!("{kind}Width"), format!("{kind}Height"));
    Some(Calibration { size, ..Calibration::of([fx?, fy?, cx?, cy?]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intrinsics_in_all_their_forms() {
        let folder = tempfile::tempdir().unwrap();
        let forms = [
            (
                "a.json",
                r#"{"width": 640, "height": 480, "intrinsic_matrix": [525.0, 0, 0, 0, 526.0, 0, 319.5, 239.5, 1]}"#,
            ),
            (
                "b.json",
                r#"{"camera": {"w": 640, "h": 480, "fx": 525, "fy": 526, "cx": 319.5, "cy": 239.5, "scale": 6553.5}}"#,
            ),
            ("c.json", r#"{"width": 640, "height": 480, "fx": 525, "fy": 526, "ppx": 319.5, "ppy": 239.5}"#),
            ("d.json", r#"{"w": 640, "h": 480, "K": [[525, 0, 319.5], [0, 526, 239.5], [0, 0, 1]]}"#),
            ("e.txt", "525 0 319.5 0\n0 526 239.5 0\n0 0 1 0\n0 0 0 1\n"),
            ("f.txt", "5.25e+02,0,319.5\n0,526,239.5\n0,0,1"),
            ("g.txt", "# fx fy cx cy\n525 526 319.5 239.5"),
            (
                "h.txt",
                "colorWidth = 640\ncolorHeight = 480\nfx_color = 525\nfy_color = 526\nmx_color = 319.5\nmy_color = 239.5\n",
            ),
            (
                "i.txt",
                "m_colorWidth = 640\nm_colorHeight = 480\nm_calibrationColorIntrinsic = 525 0 319.5 0 0 526 239.5 0 0 0 1 0 0 0 0 1\n",
            ),
        ];
        for (name, content) in forms {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let read = read_calibration(&path, false).unwrap();
            assert_eq!([read.fx, read.fy, read.cx, read.cy], [525.0, 526.0, 319.5, 239.5], "{name}");
            assert!(matches!(read.size, None | Some([640, 480])), "{name}");
        }
        for (name, content) in [
            ("j.json", "{}"),
            ("k.json", "{"),
            ("l.txt", "1 2 3"),
            ("m.txt", "fx = 3"),
            ("n.txt", "a b c d"),
            ("o.txt", ""),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let error = read_calibration(&path, false).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
