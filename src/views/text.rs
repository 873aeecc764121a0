//! Files of numbers, folders of files, and the many ways in which intrinsics are written.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ViewsError;
use super::recording::Calibration;
use crate::files::MappedFile;

/// Extensions of colour pictures that are read.
pub(super) const COLOR: &[&str] = &["jpg", "jpeg", "png"];
/// Extensions of depth maps that are read.
pub(super) const DEPTH: &[&str] = &["png", "pgm"];

/// The text of a file, without a byte order mark.
pub(super) fn read(path: &Path) -> Result<String, ViewsError> {
    let bytes = MappedFile::open(path).map_err(|error| ViewsError::io(path, "open", error))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let found = format!("byte {} is not UTF-8", error.valid_up_to());
        ViewsError::decode(path, "the text", found)
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
}

/// A JSON file.
pub(super) fn read_json(path: &Path) -> Result<Value, ViewsError> {
    serde_json::from_str(&read(path)?).map_err(|error| ViewsError::decode(path, "the JSON text", error))
}

/// Lines that are neither empty nor comments, with their numbers from 1.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// A number as trackers and spreadsheets write it: those of lost tracking become NaN or infinite.
pub(super) fn number(token: &str) -> Option<f64> {
    // What Windows prints for NaN and infinity: "-1.#IND", "1.#QNAN", "1.#INF".
    if token.contains(".#") {
        return Some(f64::NAN);
    }
    // Exponents of three digits and a leading plus are all understood.
    token.parse().ok()
}

fn tokens(line: &str) -> impl Iterator<Item = &str> {
    line.split([' ', '\t', ',', ';']).filter(|token| !token.is_empty())
}

/// The numbers of one line.
pub(super) fn numbers_of_line(path: &Path, line_number: usize, line: &str) -> Result<Vec<f64>, ViewsError> {
    let parse = |token| {
        number(token).ok_or_else(|| {
            let found: String = token.chars().take(40).collect();
            ViewsError::line(path, line_number, format!("\"{}\"", found.escape_default()), "a number")
        })
    };
    tokens(line).map(parse).collect()
}

/// All numbers of a file of nothing but numbers.
pub(super) fn numbers(path: &Path) -> Result<Vec<f64>, ViewsError> {
    let text = read(path)?;
    let mut all = Vec::new();
    for (line_number, line) in lines(&text) {
        all.extend(numbers_of_line(path, line_number, line)?);
    }
    Ok(all)
}

/// Orders names as people do: `frame2` before `frame10`.
fn natural_key(name: &str) -> Vec<(u8, String)> {
    let mut key: Vec<(u8, String)> = Vec::new();
    for c in name.chars() {
        let kind = u8::from(!c.is_ascii_digit());
        match key.last_mut() {
            Some((last, run)) if *last == kind => run.push(c),
            _ => key.push((kind, c.into())),
        }
    }
    for (kind, run) in &mut key {
        if *kind == 0 {
            // Without leading zeros, a longer number is a larger one.
            let digits = run.trim_start_matches('0');
            *run = format!("{:>40}", digits);
        }
    }
    key
}

/// Sorts paths as people sort file names.
pub(super) fn sort_naturally(paths: &mut [PathBuf]) {
    paths.sort_by_cached_key(|path| (natural_key(&path.to_string_lossy()), path.clone()));
}

/// The files of a folder with one of these extensions, in natural order; hidden ones do not count.
pub(super) fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, ViewsError> {
    let failed = |error| ViewsError::io(folder, "list", error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if has_extension(&path, extensions) && !file_name(&path).starts_with('.') {
            found.push(path);
        }
    }
    found.retain(|path| path.is_file());
    sort_naturally(&mut found);
    Ok(found)
}

/// [`files`], none where there is no such folder.
pub(super) fn files_if_any(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    files(folder, extensions).unwrap_or_default()
}

/// The folders in a folder, in natural order.
pub(super) fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    sort_naturally(&mut found);
    found
}

pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    extensions.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// File name without extension.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The first of these names that is a folder in `root`.
pub(super) fn folder_of(root: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| root.join(name)).find(|path| path.is_dir())
}

/// The first of these names that is a file in `root`.
pub(super) fn file_of(root: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| root.join(name)).find(|path| path.is_file())
}

/// A file that says what the camera is: JSON or text, in any of the common ways.
///
/// JSON: `intrinsic_matrix` (Open3D, column by column), `K`, or `fx fy cx cy` (`fl_x`, `ppx` and such), in the
/// object itself or in `camera`; `width height` or `w h`. Text: a 3x3 or 4x4 matrix, four numbers fx fy cx cy, or
/// lines `fx_color = 1170.1` (ScanNet), where `depth` chooses `fx_depth`.
pub(super) fn calibration(path: &Path, depth: bool) -> Result<Calibration, ViewsError> {
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

/// The first of these keys that holds a number.
pub(super) fn json_number(value: &Value, keys: &[&str]) -> Option<f64> {
    keys.iter().find_map(|key| value.get(key)?.as_f64())
}

/// Width and height of a picture, if both are there and whole.
pub(super) fn json_size(value: &Value, width: &[&str], height: &[&str]) -> Option<[usize; 2]> {
    let side = |keys| json_number(value, keys).filter(|x| (1.0..=1e6).contains(x)).map(|x| x.round() as usize);
    Some([side(width)?, side(height)?])
}

/// The numbers of an array, flattened if it is one of arrays; `None` if something else is in it.
pub(super) fn json_numbers(value: &Value) -> Option<Vec<f64>> {
    let mut numbers = Vec::new();
    for element in value.as_array()? {
        match element {
            Value::Array(_) => numbers.extend(json_numbers(element)?),
            // Null is how some writers put NaN.
            Value::Null => numbers.push(f64::NAN),
            other => numbers.push(other.as_f64()?),
        }
    }
    Some(numbers)
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
    fn names_sort_as_people_sort_them() {
        let mut paths =
            ["f10.png", "f9.png", "f1.png", "f09b.png", "a.png", "1305031453.404816.png", "1305031453.374112.png"]
                .map(PathBuf::from);
        sort_naturally(&mut paths);
        let sorted = paths.map(|path| path.to_string_lossy().into_owned());
        assert_eq!(
            sorted,
            ["1305031453.374112.png", "1305031453.404816.png", "a.png", "f1.png", "f9.png", "f09b.png", "f10.png"]
        );
    }

    #[test]
    fn lost_tracking_is_not_finite() {
        for token in ["nan", "-nan", "NaN", "inf", "-inf", "-1.#IND", "1.#QNAN", "1.#INF"] {
            assert!(!number(token).is_some_and(f64::is_finite), "{token}");
        }
        assert_eq!(number("+3.08668e-005"), Some(3.08668e-5));
        assert_eq!(number("x"), None);
    }

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
            let read = calibration(&path, false).unwrap();
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
            let error = calibration(&path, false).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
