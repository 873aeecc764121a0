//! Files mapped into memory, read-only.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a file, mapped read-only.
///
/// Pages are read when first touched, so opening is cheap for a file of any size. If another process shortens
/// the file while it is mapped, a later read faults. Replacing the file by a rename, as
/// [`write_atomic`](super::write_atomic) does, is safe.
#[derive(Debug)]
pub struct MappedFile(Bytes);

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    /// Bytes in memory, or those of an empty file.
    Held(Vec<u8>),
}

impl MappedFile {
    /// Maps `path`. An empty file gives an empty slice.
    ///
    /// # Errors
    /// Any error of opening or mapping the file. A folder is an error.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
        }
        if metadata.len() == 0 {
            return Ok(Self::held(Vec::new()));
        }
        // SAFETY: the map is read-only and handed out as plain bytes, for which every value is valid. The
        // type's documentation tells callers to avoid concurrent modification.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(Bytes::Mapped(map)))
    }

    /// Wraps bytes that are already in memory.
    #[must_use]
    pub fn held(bytes: Vec<u8>) -> Self {
        Self(Bytes::Held(bytes))
    }

    /// Frees the memory that holds these bytes. They are read from the file again when next touched.
    ///
    /// Until then, touched pages of a mapped file count as memory of the process. Does nothing if the system
    /// has no such call.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.0
            && range.start < range.end
            && range.end <= map.len()
        {
            // SAFETY: the map is shared and read-only, so its pages belong to the file and dropping them
            // loses nothing. If the call is refused, the memory stays.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Mapped(map) => map,
            Bytes::Held(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.bin");
        let bytes: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = MappedFile::open(&path).unwrap();
        assert_eq!(&*map, bytes);
        for range in [0..100_000, 5..6, 4096..8192, 7..7, 5..200_000] {
            map.release(range);
            assert_eq!(&*map, bytes);
        }
    }

    #[test]
    fn maps_files_empty_ones_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.bin");
        std::fs::write(&path, b"").unwrap();
        assert!(MappedFile::open(&path).unwrap().is_empty());
        std::fs::write(&path, b"bytes").unwrap();
        assert_eq!(&*MappedFile::open(&path).unwrap(), b"bytes");
        assert!(MappedFile::open(dir.path()).is_err());
    }
}
