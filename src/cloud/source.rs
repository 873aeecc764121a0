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
