//! Readers of number files and folders, and of the many forms of intrinsics.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ViewsError;
use crate::files::MappedFile;

/// Extensions of supported colour pictures.
pub(super) const COLOR: &[&str] = &["jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "pnm"];
/// Extensions of supported depth maps.
pub(super) const DEPTH: &[&str] = &["png", "pgm", "npy", "tif", "tiff", "exr"];

/// Longest JSON text in bytes. A text becomes up to thirty times as large in memory.
const LONGEST_JSON: usize = 16 << 20;
/// Longest name of a file that is looked for in other places, in bytes: what systems take for a path.
const LONGEST_NAME: usize = 4096;

/// Reads the text of a file, without a byte order mark.
pub(super) fn read(path: &Path) -> Result<String, ViewsError> {
    let bytes = MappedFile::open(path).map_err(|error| ViewsError::io(path, "open", error))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let found = format!("byte {} is not UTF-8", error.valid_up_to());
        ViewsError::decode(path, "the text", found)
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
}

/// Reads a JSON file. NaN and Infinity, which Python writes although JSON has none, become null.
pub(super) fn read_json(path: &Path) -> Result<Value, ViewsError> {
    let text = read(path)?;
    if text.len() > LONGEST_JSON {
        let expected = format!("at most {LONGEST_JSON} bytes");
        return Err(ViewsError::value(path, "the length of the JSON text", text.len(), expected));
    }
    let parsed = serde_json::from_str(&text);
    let parsed = if parsed.is_err() { serde_json::from_str(&without_nan(&text)) } else { parsed };
    parsed.map_err(|error| ViewsError::decode(path, "the JSON text", error))
}

/// Replaces the numbers NaN, Infinity and -Infinity of a JSON text by null, outside of its strings.
fn without_nan(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| !in_string && rest.starts_with(word));
        let taken = match word {
            Some(word) => word.len(),
            // The character after a backslash ends no string.
            None if in_string && c == '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            None => c.len_utf8(),
        };
        in_string ^= c == '"';
        result.push_str(if word.is_some() { "null" } else { &rest[..taken] });
        rest = &rest[taken..];
    }
    result
}

/// Returns the file that a recording names, relative to `folder`. Names may have backslashes, and may be
/// paths of the machine on which they were written: then the longest end of the path that exists counts.
/// Returns the name as it is, in `folder`, if nothing exists.
pub(super) fn named_file(folder: &Path, name: &str) -> PathBuf {
    let plain = folder.join(name);
    if plain.is_file() || name.len() > LONGEST_NAME {
        return plain;
    }
    let slashed = name.replace('\\', "/");
    // Of a relative path the folder is kept, so that depth/0.png is not taken for 0.png.
    let is_absolute = slashed.starts_with('/') || slashed.get(1..3) == Some(":/");
    let fewest = if is_absolute { 1 } else { 2 };
    let mut rest = slashed.trim_start_matches('/');
    while rest == slashed || rest.split('/').count() >= fewest {
        let path = folder.join(rest);
        if path.is_file() {
            return path;
        }
        let Some((_, after)) = rest.split_once('/') else { break };
        rest = after;
    }
    folder.join(&slashed)
}

/// Returns the lines that are neither empty nor comments, with their numbers from 1.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Parses a number in the forms that trackers and spreadsheets write. Those of lost tracking become NaN or
/// infinite.
pub(super) fn number(token: &str) -> Option<f64> {
    // Windows prints NaN and infinity as "-1.#IND", "1.#QNAN" and "1.#INF".
    if token.contains(".#") {
        return Some(f64::NAN);
    }
    // Exponents of three digits and a leading plus are accepted.
    token.parse().ok()
}

fn tokens(line: &str) -> impl Iterator<Item = &str> {
    line.split([' ', '\t', ',', ';']).filter(|token| !token.is_empty())
}

/// Parses the numbers of one line.
pub(super) fn numbers_of_line(path: &Path, line_number: usize, line: &str) -> Result<Vec<f64>, ViewsError> {
    let parse = |token| {
        number(token).ok_or_else(|| {
            let found: String = token.chars().take(40).collect();
            ViewsError::line(path, line_number, format!("\"{}\"", found.escape_default()), "a number")
        })
    };
    tokens(line).map(parse).collect()
}

/// Reads all numbers of a file that contains only numbers.
pub(super) fn numbers(path: &Path) -> Result<Vec<f64>, ViewsError> {
    let text = read(path)?;
    let mut all = Vec::new();
    for (line_number, line) in lines(&text) {
        all.extend(numbers_of_line(path, line_number, line)?);
    }
    Ok(all)
}

/// Returns a sort key for natural order: `frame2` before `frame10`.
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
            // Without leading zeros, a longer number is larger.
            let digits = run.trim_start_matches('0');
            *run = format!("{:>40}", digits);
        }
    }
    key
}

/// Sorts paths in natural order of their file names.
pub(super) fn sort_naturally(paths: &mut [PathBuf]) {
    paths.sort_by_cached_key(|path| (natural_key(&path.to_string_lossy()), path.clone()));
}

/// Lists the files of a folder with one of these extensions, in natural order, without hidden ones.
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

/// Does the same as [`files`], but returns none if the folder does not exist.
pub(super) fn files_if_any(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    files(folder, extensions).unwrap_or_default()
}

/// Lists the folders in a folder, in natural order.
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

/// Returns the file name without extension.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the first of these names that is a folder in `root`.
pub(super) fn folder_of(root: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| root.join(name)).find(|path| path.is_dir())
}

/// Returns the first of these names that is a file in `root`.
pub(super) fn file_of(root: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| root.join(name)).find(|path| path.is_file())
}

/// Returns the first of these keys that holds a number.
pub(super) fn json_number(value: &Value, keys: &[&str]) -> Option<f64> {
    keys.iter().find_map(|key| value.get(key)?.as_f64())
}

/// Returns width and height of a picture, if both exist and are whole numbers.
pub(super) fn json_size(value: &Value, width: &[&str], height: &[&str]) -> Option<[usize; 2]> {
    let side = |keys| json_number(value, keys).filter(|x| (1.0..=1e6).contains(x)).map(|x| x.round() as usize);
    Some([side(width)?, side(height)?])
}

/// Returns the numbers of an array, or of an array of arrays; `None` if it contains anything else.
pub(super) fn json_numbers(value: &Value) -> Option<Vec<f64>> {
    let mut numbers = Vec::new();
    for element in value.as_array()? {
        match element {
            Value::Array(_) => numbers.extend(json_numbers(element)?),
            // Some writers put null for NaN.
            Value::Null => numbers.push(f64::NAN),
            other => numbers.push(other.as_f64()?),
        }
    }
    Some(numbers)
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
    fn numbers_that_json_lacks_become_null() {
        let text = r#"{"a": [NaN, -Infinity, Infinity, 1.5], "NaN": "\\\"NaN, é Infinity", "b": NaN}"#;
        let value: Value = serde_json::from_str(&without_nan(text)).unwrap();
        let numbers = json_numbers(&value["a"]).unwrap();
        assert!(numbers[..3].iter().all(|x| x.is_nan()) && numbers[3] == 1.5, "{numbers:?}");
        assert_eq!(value["NaN"], "\\\"NaN, é Infinity");
        assert!(value["b"].is_null());
        for cut in ["\"\\", "Na", "-Inf", "\""] {
            assert!(serde_json::from_str::<Value>(&without_nan(cut)).is_err());
        }
    }

    #[test]
    fn paths_of_other_machines_are_found_by_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("images/left/0.png");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        for name in [
            "images/left/0.png",
            r"images\left\0.png",
            r"C:\Users\me\room\images\left\0.png",
            "/home/me/images/left/0.png",
        ] {
            assert_eq!(named_file(folder.path(), name), file, "{name}");
        }
        // The folder is part of a relative name.
        assert_ne!(named_file(&folder.path().join("images/left"), "depth/0.png"), file);
        let absent = named_file(folder.path(), r"images\1.png");
        assert_eq!(absent, folder.path().join("images/1.png"));
    }

    #[test]
    fn lost_tracking_is_not_finite() {
        for token in ["nan", "-nan", "NaN", "inf", "-inf", "-1.#IND", "1.#QNAN", "1.#INF"] {
            assert!(!number(token).is_some_and(f64::is_finite), "{token}");
        }
        assert_eq!(number("+3.08668e-005"), Some(3.08668e-5));
        assert_eq!(number("x"), None);
    }
}
