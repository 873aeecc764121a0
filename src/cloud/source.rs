//! The bytes of a file, and reading numbers from them without panics.

use std::io;
use std::path::Path;

use super::error::CloudError;
use crate::files::MappedFile;

/// Maps `path` into memory. It must be a regular file that is not empty.
pub(super) fn open(path: &Path) -> Result<MappedFile, CloudError> {
    let failed = |source| CloudError::io(path, "open", source);
    let kind = std::fs::metadata(path).map_err(failed)?;
    if !kind.is_file() && !kind.is_dir() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let bytes = MappedFile::open(path).map_err(failed)?;
    if bytes.is_empty() {
        return Err(CloudError::Empty { path: path.to_path_buf() });
    }
    Ok(bytes)
}

/// `N` bytes at `at`, with zeros past the end of the slice. Callers check lengths first, so the zeros are
/// only there to avoid a panic.
pub(super) fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    at.checked_add(N).and_then(|end| bytes.get(at..end)).and_then(|slice| slice.try_into().ok()).unwrap_or([0; N])
}

/// The words of a line: what blanks separate.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// The lines among the first `most` bytes, without blanks around them and without empty ones. The last one
/// is left out if it may be cut off.
pub(super) fn first_lines(bytes: &[u8], most: usize) -> impl Iterator<Item = &[u8]> {
    let whole = match bytes.get(..most).filter(|head| head.len() < bytes.len()) {
        Some(head) => head.get(..head.iter().rposition(|&byte| byte == b'\n').unwrap_or(0)).unwrap_or_default(),
        None => bytes,
    };
    let lines = whole.split(|&byte| byte == b'\n' || byte == b'\r').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty())
}

/// True if the first `most` bytes contain `text`.
pub(super) fn head_contains(bytes: &[u8], most: usize, text: &[u8]) -> bool {
    bytes.get(..most).unwrap_or(bytes).windows(text.len()).any(|window| window == text)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(take(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(take(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(take(bytes, at))
}

pub(super) fn f64_at(bytes: &[u8], at: usize) -> f64 {
    f64::from_le_bytes(take(bytes, at))
}
