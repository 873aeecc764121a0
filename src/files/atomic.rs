//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::partial::{PARTIAL, Partial, directory_of, partials};

/// A file that appears at its path only on [`commit`](Self::commit).
///
/// Dropping it without a commit removes the temporary file and leaves the target untouched.
#[derive(Debug)]
pub struct AtomicFile {
    // Declared first so that the handle closes before the path is removed: Windows does not
    // delete an open file.
    writer: BufWriter<File>,
    temp: TempPath,
    target: PathBuf,
    partial: Partial,
}

impl AtomicFile {
    /// Starts a file that will replace `target`.
    ///
    /// A symbolic link at `target` is replaced, not followed.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if `target` exists and is not a regular file: a device or a folder
    /// must not be replaced. Otherwise any error of creating a file in the target's folder.
    pub fn create(target: &Path) -> io::Result<Self> {
        if let Ok(existing) = std::fs::symlink_metadata(target)
            && !existing.is_file()
            && !existing.is_symlink()
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} exists and is not a regular file", target.display()),
            ));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(PARTIAL);
        // A temporary file is readable by its owner only. The result is an ordinary file, so the umask
        // decides.
        #[cfg(unix)]
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        #[cfg(unix)]
        builder.permissions(mode);
        let mut partials = partials();
        let (file, temp) = builder.tempfile_in(directory_of(target))?.into_parts();
        partials.insert(temp.to_path_buf());
        drop(partials);
        let partial = Partial(temp.to_path_buf());
        Ok(Self { writer: BufWriter::with_capacity(1 << 18, file), temp, target: target.to_path_buf(), partial })
    }

    /// Returns the path the file will have once committed.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Overwrites bytes already written, starting at `offset`. Later writes are appended as before.
    ///
    /// # Errors
    /// Any error of writing or seeking.
    pub fn patch(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = self.writer.stream_position()?;
        self.writer.seek(SeekFrom::Start(offset))?;
        self.writer.write_all(bytes)?;
        self.writer.seek(SeekFrom::Start(end))?;
        Ok(())
    }

    /// Flushes, syncs and renames the file into place.
    ///
    /// # Errors
    /// Any error of those steps. The temporary file is then removed and the target is unchanged, with one
    /// exception: if syncing the folder fails after the rename, the error is reported but the new file is in
    /// place.
    pub fn commit(self) -> io::Result<()> {
        let Self { writer, temp, target, partial } = self;
        let file = writer.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        drop(file);
        temp.persist(&target).map_err(|error| error.error)?;
        drop(partial);
        // The rename is durable only after the folder is synced. Windows has no such call.
        #[cfg(unix)]
        File::open(directory_of(&target))?.sync_all()?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Writes a whole file through `write`. `path` then holds either all of the new content or its old content.
///
/// # Errors
/// The error of `write`, or any error of creating, flushing, syncing or renaming the file (see
/// [`AtomicFile`]). No temporary file is left behind.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    write(&mut file.writer)?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::*;

    #[test]
    fn replaces_the_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.bin");
        write_atomic(&path, |w| w.write_all(b"a longer first version")).unwrap();
        write_atomic(&path, |w| w.write_all(b"second")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(names(dir.path()), ["out.bin"]);
    }

    #[test]
    fn an_error_leaves_the_earlier_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.bin");
        write_atomic(&path, |w| w.write_all(b"first")).unwrap();
        let error = write_atomic(&path, |w| {
            w.write_all(&[7; 1 << 20])?;
            Err(io::Error::other("stopped"))
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "stopped");
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(names(dir.path()), ["out.bin"]);
    }

    #[test]
    fn dropping_uncommitted_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = AtomicFile::create(&dir.path().join("out.bin")).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        drop(file);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn refuses_what_is_not_a_file_and_a_missing_directory() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_atomic(dir.path(), |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = write_atomic(&dir.path().join("no/such/file"), |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn the_mode_is_that_of_an_ordinary_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (ours, plain) = (dir.path().join("ours"), dir.path().join("plain"));
        write_atomic(&ours, |_| Ok(())).unwrap();
        std::fs::write(&plain, b"").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn patching_leaves_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.bin");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"0123456").unwrap();
        file.patch(2, b"ab").unwrap();
        file.write_all(b"78").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"01ab45678");
    }
}
