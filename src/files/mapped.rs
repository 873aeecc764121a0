//! Files mapped into memory, read-only.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a file, mapped read-only.
///
/// Pages are read when first touched, so opening is cheap for a file of any size. Files of at most
/// [`SMALL`](Self::SMALL) bytes are read at once instead.
///
/// If another process shortens a larger file while it is mapped, a later read of what is gone faults: the system
/// sends SIGBUS. The program ends with a message then. A program that uses the library decides itself; without a
/// handler it is killed. Replacing the file by a rename, as [`write_atomic`](super::write_atomic) does, is safe.
#[derive(Debug)]
pub struct MappedFile(Bytes);

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    /// Bytes in memory, or those of an empty file.
    Held(Vec<u8>),
}

impl MappedFile {
    /// Largest file that is read at once, in bytes.
    pub const SMALL: u64 = 256 << 10;

    /// Maps `path`. An empty file gives an empty slice.
    ///
    /// # Errors
    /// Any error of opening or mapping the file. A folder is an error.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
        }
        if metadata.len() <= Self::SMALL {
            let mut bytes = Vec::with_capacity(metadata.len() as usize);
            file.read_to_end(&mut bytes)?;
            return Ok(Self::held(bytes));
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
        let bytes: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = MappedFile::open(&path).unwrap();
        assert_eq!(&*map, bytes);
        for range in [0..300_000, 5..6, 4096..8192, 7..7, 5..600_000] {
            map.release(range);
            assert_eq!(&*map, bytes);
        }
    }

    #[test]
    fn a_small_file_that_becomes_shorter_is_still_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.bin");
        let bytes = vec![7; MappedFile::SMALL as usize];
        std::fs::write(&path, &bytes).unwrap();
        let map = MappedFile::open(&path).unwrap();
        std::fs::write(&path, b"").unwrap();
        assert_eq!(&*map, bytes);
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
