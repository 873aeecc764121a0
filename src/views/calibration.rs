//! Camera calibrations as recordings store them.

use std::path::Path;

use serde_json::Value;

use super::camera::Distortion;
use super::text::{self, has_extension, json_number, json_numbers, json_size, number, numbers, read, read_json};
use super::{Intrinsics, ViewsError};

/// Common picture sizes of recordings, for intrinsics without a size.
const COMMON_SIZES: [[usize; 2]; 9] =
    [[1296, 968], [640, 480], [648, 484], [1280, 1024], [1280, 720], [1920, 1440], [960, 720], [320, 240], [1200, 680]];

/// Camera calibration as read from a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Calibration {
    /// Width and height of the picture that the calibration is for, if the file has them.
    pub size: Option<[usize; 2]>,
    pub fx: f64,
    /// Negative in left-handed recordings.
    pub fy: f64,
    /// Principal point. The centre of the first pixel is at (0, 0).
    pub cx: f64,
    pub cy: f64,
    pub distortion: Option<Distortion>,
}

impl Calibration {
    pub(super) fn of([fx, fy, cx, cy]: [f64; 4]) -> Self {
        Self { size: None, fx, fy, cx, cy, distortion: None }
    }

    pub(super) fn sized(self, width: usize, height: usize) -> Self {
        Self { size: Some([width, height]), ..self }
    }

    /// Converts a calibration in which the corner of the first pixel, not its centre, is at (0, 0), as in
    /// COLMAP and nerfstudio.
    pub(super) fn with_corner_at_zero(self) -> Self {
        Self { cx: self.cx - 0.5, cy: self.cy - 0.5, ..self }
    }

    /// Guesses a camera with a horizontal field of view of 60 degrees and the principal point in the centre.
    pub(super) fn guess(size: [usize; 2]) -> Self {
        let [width, height] = size.map(|side| side as f64);
        let f = width / 2.0 / 30.0_f64.to_radians().tan();
        Self::of([f, f, (width - 1.0) / 2.0, (height - 1.0) / 2.0]).sized(size[0], size[1])
    }

    /// Returns the picture size that the calibration is for: its own size, else `actual` if that fits, else
    /// the common size whose centre is the principal point.
    pub(super) fn size_or(&self, actual: [usize; 2]) -> [usize; 2] {
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

    /// Returns the camera for a picture of another size.
    pub(super) fn fitted(&self, size: [usize; 2], actual: [usize; 2], path: &Path) -> Result<Intrinsics, ViewsError> {
        if !same_shape(size, actual) {
            let (path, reason) = (path.to_path_buf(), "the intrinsics say, or the same aspect ratio");
            return Err(ViewsError::Size { path, found: actual, expected: size, reason });
        }
        Intrinsics::new(size[0], size[1], self.fx, self.fy.abs(), self.cx, self.cy)
            .map(|intrinsics| intrinsics.scaled_to(actual[0], actual[1]))
            .map_err(|error| ViewsError::value(path, "the camera", error, "usable intrinsics"))
    }
}

/// Returns true if two sizes have the same aspect ratio, up to rounding and a cropped edge.
pub(super) fn same_shape(a: [usize; 2], b: [usize; 2]) -> bool {
    let ratio = |[width, height]: [usize; 2]| width as f64 / height as f64;
    (ratio(a) / ratio(b) - 1.0).abs() <= 0.03
}

/// What a lens may be. Others are refused by name, or their pictures would be read wrongly without a word.
const KNOWN_LENSES: &str =
    "a pinhole with the coefficients k1 k2 p1 p2 k3: undistort the pictures and depth maps first";

/// Finds the calibration of a recording: in one of these files, else in another file whose name says that it
/// has one, in the folder or the one above. Such a file is mentioned in `notes`.
pub(super) fn find_calibration(
    root: &Path,
    names: &[&str],
    notes: &mut Vec<String>,
) -> Result<Option<Calibration>, ViewsError> {
    if let Some(path) = text::file_of(root, names) {
        return read_calibration(&path, false).map(Some);
    }
    let lower = |path: &Path| text::file_name(path).to_ascii_lowercase();
    let is_clear = |path: &Path| lower(path).contains("intrinsic");
    let is_other = |path: &Path| ["extrinsic", "pose", "traj", "frame"].iter().any(|word| lower(path).contains(word));
    let may_be = |path: &Path| {
        let name = lower(path);
        ["intrinsic", "calib", "camera", "cam_", "cam.", "k."].iter().any(|word| match *word {
            "k." | "cam." => name.starts_with(word),
            _ => name.contains(word),
        })
    };
    let extensions = &["txt", "json", "yaml", "yml", "csv"];
    let mut files = text::files_if_any(root, extensions);
    files.retain(|path| may_be(path));
    if let Some(parent) = root.canonicalize().ok().as_deref().and_then(Path::parent) {
        files.extend(text::files_if_any(parent, extensions).into_iter().filter(|path| is_clear(path)));
    }
    files.retain(|path| !is_other(path));
    // The clearest names first; the order is otherwise kept.
    files.sort_by_key(|path| !is_clear(path));
    for path in files {
        match read_calibration(&path, false) {
            Ok(calibration) => {
                notes.push(format!("the intrinsics are read from {}", text::file_name(&path)));
                return Ok(Some(calibration));
            }
            Err(error @ ViewsError::Unsupported { .. }) => return Err(error),
            Err(error) if is_clear(&path) => return Err(error),
            Err(_) => notes.push(format!("{} was not understood as a calibration", text::file_name(&path))),
        }
    }
    Ok(None)
}

/// Reads a calibration file, JSON, YAML or text, in any of the common forms.
///
/// JSON has `intrinsic_matrix` (Open3D, column by column), `K`, or `fx fy cx cy` (also `fl_x`, `ppx` and
/// similar), in the object itself or in `camera`, and `width height` or `w h`. YAML has `camera_matrix` with
/// `data` (OpenCV, ROS) or lines `Camera.fx: 525` (ORB-SLAM). Text has a 3x3, 3x4 or 4x4 matrix, four numbers
/// fx fy cx cy, these followed by distortion or by width and height, or lines `fx_color = 1170.1` (ScanNet)
/// or `fx: 525`. `depth` selects `fx_depth` there.
pub(super) fn read_calibration(path: &Path, depth: bool) -> Result<Calibration, ViewsError> {
    let other = |found: &str, expected: &str| ViewsError::value(path, "the content", found, expected);
    if has_extension(path, &["json"]) {
        let value = read_json(path)?;
        return calibration_of_json(&value, path)?
            .ok_or_else(|| other("other", "intrinsic_matrix, K, or fx, fy, cx and cy as numbers"));
    }
    let text = read(path)?;
    if let Some(calibration) = calibration_of_opencv(&text, path)? {
        return Ok(calibration);
    }
    if text::lines(&text).any(|(_, line)| line.starts_with(|c: char| c.is_alphabetic() || c == '%')) {
        let found = match calibration_of_pairs(&text, depth) {
            None => calibration_of_keys(&text, path)?,
            found => found,
        };
        return found.ok_or_else(|| {
            let expected =
                "camera_matrix, lines \"fx: ...\" or \"fx_color = ...\" with fy, cx and cy, or m_calibrationColorIntrinsic";
            other("other", expected)
        });
    }
    let numbers = numbers(path)?;
    let is_side = |x: f64| x.fract() == 0.0 && (16.0..1e6).contains(&x);
    match *numbers.as_slice() {
        [fx, fy, cx, cy] => Ok(Calibration::of([fx, fy, cx, cy])),
        [fx, fy, cx, cy, width, height] if is_side(width) && is_side(height) => {
            Ok(Calibration::of([fx, fy, cx, cy]).sized(width as usize, height as usize))
        }
        [.., last] if (matches!(numbers.len(), 9 | 16) && last == 1.0) || numbers.len() == 12 && numbers[10] == 1.0 => {
            of_matrix(&numbers).ok_or_else(|| other("other", "a matrix"))
        }
        [fx, fy, cx, cy, ref lens @ ..] if matches!(lens.len(), 1 | 2 | 4 | 5 | 8) => {
            let distortion = distortion_of(lens, path)?;
            Ok(Calibration { distortion: Some(distortion), ..Calibration::of([fx, fy, cx, cy]) })
        }
        _ => {
            let expected = "a 3x3 or 4x4 matrix, or fx fy cx cy, with distortion or a size after them";
            Err(other(&format!("{} numbers", numbers.len()), expected))
        }
    }
}

/// Reads coefficients in OpenCV's order: k1 k2 p1 p2 k3 and those of the rational model, which must be zero.
fn distortion_of(coefficients: &[f64], path: &Path) -> Result<Distortion, ViewsError> {
    let at = |i: usize| coefficients.get(i).copied().unwrap_or(0.0);
    if coefficients.iter().skip(5).any(|&k| k != 0.0) {
        let found = format!("a lens of {} distortion coefficients", coefficients.len());
        return Err(ViewsError::unsupported(path, found, KNOWN_LENSES));
    }
    Ok(Distortion { k1: at(0), k2: at(1), p1: at(2), p2: at(3), k3: at(4) })
}

/// Returns an error if the name is that of a lens that is not modelled.
fn check_lens(name: &str, path: &Path) -> Result<(), ViewsError> {
    let lower = name.to_ascii_lowercase();
    let others = ["fisheye", "equidistant", "kannala", "kb4", "kb8", "fov", "omni", "mei", "equirect", "ucm", "ftheta"];
    if others.iter().any(|other| lower.contains(other)) {
        let shown: String = name.chars().take(40).collect();
        return Err(ViewsError::unsupported(path, format!("the lens \"{}\"", shown.escape_default()), KNOWN_LENSES));
    }
    Ok(())
}

/// Reads OpenCV's and ROS's YAML: `camera_matrix` and `distortion_coefficients` with their `data`, and the
/// size of the picture. Returns `None` if there is no such matrix.
fn calibration_of_opencv(text: &str, path: &Path) -> Result<Option<Calibration>, ViewsError> {
    let data = |key: &str| yaml_numbers(text, key);
    let Some(matrix) = data("camera_matrix") else { return Ok(None) };
    let Some(calibration) = of_matrix(&matrix) else { return Ok(None) };
    if let Some(model) = yaml_value(text, "distortion_model") {
        check_lens(model, path)?;
    }
    let side = |key: &str| {
        let side = number(yaml_value(text, key)?)?;
        (1.0..=1e6).contains(&side).then_some(side.round() as usize)
    };
    let size = side("image_width").zip(side("image_height")).map(|(width, height)| [width, height]);
    let distortion = data("distortion_coefficients").map(|lens| distortion_of(&lens, path)).transpose()?;
    Ok(Some(Calibration { size, distortion, ..calibration }))
}

/// Returns the value after `key:` at the beginning of a line.
fn yaml_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.trim().strip_prefix(key)?.trim_start().strip_prefix(':')?.trim()))
}

/// Returns the numbers in the brackets of `data`, in the block of `key`.
pub(super) fn yaml_numbers(text: &str, key: &str) -> Option<Vec<f64>> {
    let is_key = |line: &str| line.trim().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
    let mut at = 0;
    let start = text.split_inclusive('\n').find_map(|line| {
        let start = at;
        at += line.len();
        is_key(line).then_some(start)
    })?;
    let block = text.get(start..)?;
    let (_, rest) = block.split_once('[')?;
    let (inner, _) = rest.split_once(']')?;
    inner.split([',', ' ', '\t', '\r', '\n']).filter(|token| !token.is_empty()).map(number).collect()
}

/// Reads lines `fx: 525`, `fx = 525` or `fx 525`, also with a prefix that ends with a dot (`Camera.fx`).
fn calibration_of_keys(text: &str, path: &Path) -> Result<Option<Calibration>, ViewsError> {
    let mut values = std::collections::HashMap::new();
    for line in text.lines() {
        let mut words = line.splitn(2, [':', '=']);
        let (key, value) = match (words.next(), words.next()) {
            (Some(key), Some(value)) => (key, value),
            _ => match line.trim().split_once([' ', '\t', ',']) {
                Some(pair) => pair,
                None => continue,
            },
        };
        let key = key.trim().trim_matches('"').to_ascii_lowercase();
        let key = key.rsplit('.').next().unwrap_or_default().to_owned();
        let value = value.trim().trim_end_matches([',', ';']);
        if matches!(key.as_str(), "type" | "model" | "camera_model" | "distortion_model") {
            check_lens(value, path)?;
        }
        if let Some(value) = number(value) {
            values.entry(key).or_insert(value);
        }
    }
    let find = |keys: &[&str]| keys.iter().find_map(|&key| values.get(key).copied());
    let camera = [find(&["fx", "fl_x"]), find(&["fy", "fl_y"]), find(&["cx", "ppx", "mx"]), find(&["cy", "ppy", "my"])];
    let [Some(fx), Some(fy), Some(cx), Some(cy)] = camera else { return Ok(None) };
    let side = |keys: &[&str]| find(keys).filter(|x| (1.0..=1e6).contains(x)).map(|x| x.round() as usize);
    let size = side(&["width", "w", "image_width"]).zip(side(&["height", "h", "image_height"]));
    let lens = ["k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"].map(|key| find(&[key]).unwrap_or(0.0));
    let distortion = Some(distortion_of(&lens, path)?);
    Ok(Some(Calibration { size: size.map(|(w, h)| [w, h]), distortion, ..Calibration::of([fx, fy, cx, cy]) }))
}

/// Reads a 3x3, 3x4 or 4x4 matrix row by row, or the transpose of a square one.
pub(super) fn of_matrix(m: &[f64]) -> Option<Calibration> {
    let columns = match m.len() {
        9 => 3,
        12 | 16 => 4,
        _ => return None,
    };
    let at = |row: usize, column: usize| m[row * columns + column];
    let transposed = at(0, 2) == 0.0 && at(1, 2) == 0.0 && (at(2, 0) != 0.0 || at(2, 1) != 0.0);
    let (cx, cy) = if transposed { (at(2, 0), at(2, 1)) } else { (at(0, 2), at(1, 2)) };
    Some(Calibration::of([at(0, 0), at(1, 1), cx, cy]))
}

fn calibration_of_json(value: &Value, path: &Path) -> Result<Option<Calibration>, ViewsError> {
    let value = ["camera", "intrinsic", "color"]
        .iter()
        .find_map(|key| value.get(key).filter(|v| v.is_object()))
        .unwrap_or(value);
    let size = json_size(value, &["width", "w"], &["height", "h"]);
    let matrix = ["intrinsic_matrix", "K", "camera_matrix"].iter().find_map(|key| json_numbers(value.get(key)?));
    let calibration = match matrix {
        Some(matrix) => of_matrix(&matrix),
        None => {
            let keys: [&[&str]; 4] = [&["fx", "fl_x"], &["fy", "fl_y"], &["cx", "ppx"], &["cy", "ppy"]];
            match keys.map(|keys| json_number(value, keys)) {
                [Some(fx), Some(fy), Some(cx), Some(cy)] => Some(Calibration::of([fx, fy, cx, cy])),
                _ => None,
            }
        }
    };
    let Some(calibration) = calibration else { return Ok(None) };
    for key in ["distortion_model", "camera_model", "model"] {
        if let Some(name) = value.get(key).and_then(Value::as_str) {
            check_lens(name, path)?;
        }
    }
    let arrays = ["distortion_coefficients", "dist_coeffs", "distortion", "dist", "coeffs"];
    let lens = match arrays.iter().find_map(|key| json_numbers(value.get(key)?)) {
        Some(lens) => lens,
        None => ["k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"]
            .iter()
            .map(|key| json_number(value, &[key]).unwrap_or(0.0))
            .collect(),
    };
    Ok(Some(Calibration { size, distortion: Some(distortion_of(&lens, path)?), ..calibration }))
}

/// Reads lines `key = value`, which ScanNet writes beside a recording.
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
            ("p.txt", "525 526 319.5 239.5 640 480"),
            ("q.txt", "525 0 319.5 0 0 526 239.5 0 0 0 1 0"),
            ("r.txt", "fx: 525\nfy: 526\ncx: 319.5\ncy: 239.5\n"),
            (
                "s.yaml",
                "%YAML:1.0\nCamera.type: \"PinHole\"\nCamera.fx: 525.0\nCamera.fy: 526.0\nCamera.cx: 319.5\nCamera.cy: 239.5\nCamera.width: 640\nCamera.height: 480\n",
            ),
            (
                "t.yaml",
                "image_width: 640\nimage_height: 480\ncamera_matrix:\n  rows: 3\n  cols: 3\n  data: [525., 0, 319.5, 0,\n    526., 239.5, 0, 0, 1]\ndistortion_model: plumb_bob\n",
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
        let lens = Distortion { k1: 0.1, k2: 0.2, p1: 0.3, p2: 0.4, k3: 0.5 };
        for (name, content) in [
            ("a.txt", "525 526 319.5 239.5 0.1 0.2 0.3 0.4 0.5"),
            ("b.txt", "525 526 319.5 239.5\n0.1 0.2 0.3 0.4 0.5 0 0 0"),
            (
                "c.json",
                r#"{"fx": 525, "fy": 526, "cx": 319.5, "cy": 239.5, "dist_coeffs": [[0.1, 0.2, 0.3, 0.4, 0.5]]}"#,
            ),
            (
                "d.json",
                r#"{"K": [525, 0, 319.5, 0, 526, 239.5, 0, 0, 1], "k1": 0.1, "k2": 0.2, "p1": 0.3, "p2": 0.4, "k3": 0.5}"#,
            ),
            (
                "e.yaml",
                "Camera.fx: 525\nCamera.fy: 526\nCamera.cx: 319.5\nCamera.cy: 239.5\nCamera.k1: 0.1\nCamera.k2: 0.2\nCamera.p1: 0.3\nCamera.p2: 0.4\nCamera.k3: 0.5",
            ),
            (
                "f.yml",
                "camera_matrix: !!opencv-matrix\n   data: [525, 0, 319.5, 0, 526, 239.5, 0, 0, 1]\ndistortion_coefficients: !!opencv-matrix\n   data: [ 0.1, 0.2, 0.3, 0.4, 0.5 ]\n",
            ),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let read = read_calibration(&path, false).unwrap();
            assert_eq!(
                ([read.fx, read.fy, read.cx, read.cy], read.distortion),
                ([525.0, 526.0, 319.5, 239.5], Some(lens)),
                "{name}"
            );
        }
        for (name, content) in [
            ("g.txt", "525 526 319.5 239.5 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8"),
            ("h.json", r#"{"fx": 525, "fy": 526, "cx": 319.5, "cy": 239.5, "camera_model": "FISHEYE"}"#),
            (
                "i.yaml",
                "Camera.type: \"KannalaBrandt8\"\nCamera.fx: 525\nCamera.fy: 526\nCamera.cx: 319.5\nCamera.cy: 239.5\n",
            ),
            (
                "j.yaml",
                "distortion_model: equidistant\ncamera_matrix:\n  data: [525, 0, 319.5, 0, 526, 239.5, 0, 0, 1]\n",
            ),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let read = read_calibration(&path, false);
            assert!(matches!(read, Err(ViewsError::Unsupported { .. })), "{name}: {read:?}");
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
