//! SHA-256 of files.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::WeightsError;
use crate::files::MappedFile;

/// Number of bytes to hash before their memory is freed.
const STEP: usize = 16 << 20;

/// Computes the SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// [`WeightsError::Io`].
pub fn file_sha256(path: &Path) -> Result<String, WeightsError> {
    let bytes = MappedFile::open(path).map_err(|error| WeightsError::io(path, error))?;
    let mut hash = Sha256::new();
    update(&mut hash, &bytes, 0);
    Ok(hex(hash))
}

/// Computes the SHA-256 of bytes, in lower-case hexadecimal.
#[must_use]
pub fn bytes_sha256(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

/// Hashes the mapped bytes from `start` on.
pub(super) fn update(hash: &mut Sha256, bytes: &MappedFile, start: usize) {
    let mut at = start;
    for step in bytes[start..].chunks(STEP) {
        hash.update(step);
        bytes.release(at..at + step.len());
        at += step.len();
    }
}

/// Finishes a hash and returns it in lower-case hexadecimal.
pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"").unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(file_sha256(&path).unwrap(), empty);
        std::fs::write(&path, b"abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((file_sha256(&path).unwrap().as_str(), bytes_sha256(b"abc").as_str()), (abc, abc));
    }
}
