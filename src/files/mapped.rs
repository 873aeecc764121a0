//! Files mapped into memory, read-only.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a file, mapped read-only.
///
/// Pages are read when touched, so opening costs nothing however large the file is. A file
/// that another process shortens while it is mapped makes a later read fault; files that are
/// replaced by renaming, as [`write_atomic`](super::write_atomic) does, are safe.
#[derive(Debug)]
pub struct MappedFile(Bytes);

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    /// Of what is no file, or of an empty one.
    Held(Vec<u8>),
}

impl MappedFile {
    /// Maps `path`; an empty file gives an empty slice.
    ///
    /// # Errors
    ///
    /// Any error of opening or mapping the file; a directory is an error.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
        }
        if metadata.len() == 0 {
            return Ok(Self::held(Vec::new()));
        }
        // SAFETY: the map is read-only and handed out as plain bytes, for which every value
        // is valid. Concurrent modification by another process is the caller's to avoid, as
        // the type's documentation says.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(Bytes::Mapped(map)))
    }

    /// The same of bytes that are in memory.
    #[must_use]
    pub fn held(bytes: Vec<u8>) -> Self {
        Self(Bytes::Held(bytes))
    }

    /// Gives back the memory that holds these bytes; touched again, they are read again.
    ///
    /// Pages of a mapped file count as the process's memory until then. Does nothing where the system has
    /// no such call.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.0
            && range.start < range.end
            && range.end <= map.len()
        {
            // SAFETY: the map is shared and read-only, so its pages are the file's own and dropping them loses
            // nothing. Refusal only means that the memory stays.
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
