//! Files of numbers, folders of files, and the many ways in which intrinsics are written.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ViewsError;
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
}
