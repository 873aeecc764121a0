//! Files on disk: whole-file replacement and read-only mapping.
//!
//! A result file appears under its name only when it is complete. Everything is written to a
//! temporary file in the same directory, synced, and renamed over the target, so a reader
//! never sees half a file and a failed run leaves an earlier result as it was.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::Mmap;
use tempfile::TempPath;

/// A file that appears at its path only on [`commit`](Self::commit).
///
/// Dropping it uncommitted removes the temporary file and leaves the target untouched.
#[derive(Debug)]
pub struct AtomicFile {
    // Declared first so that the handle closes before the path is removed: Windows does not
    // delete an open file.
    writer: BufWriter<File>,
    temp: TempPath,
    target: PathBuf,
    partial: Partial,
}

/// How the temporary files of [`AtomicFile`] begin.
pub(crate) const PARTIAL: &str = ".partial-";

/// Temporary files that a process ended by a signal would leave behind.
static PARTIALS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn partials() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    // A set of paths is whole whatever panicked beside it.
    PARTIALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process with `code`, removing the temporary files of everything that is being written: for where a signal
/// is handled, since no destructor runs then.
pub fn exit_without_partials(code: i32) -> ! {
    // Held to the end, so that no other thread starts a file meanwhile.
    let partials = partials();
    for path in partials.iter() {
        // What is gone already needs no removing.
        let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    std::process::exit(code)
}

/// An entry of [`PARTIALS`].
#[derive(Debug)]
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        partials().remove(&self.0);
    }
}

impl AtomicFile {
    /// Starts a file that will replace `target`.
    ///
    /// A symbolic link at `target` is replaced, not followed.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if `target` exists and is no regular file (renaming
    /// over a device or a directory is never meant); otherwise whatever creating a file in
    /// the target's directory gives.
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
        // The default mode of a temporary file is private to its owner; the result is an
        // ordinary file, whose mode the umask decides.
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

    /// Path the file will have once committed.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Overwrites bytes already written, from `offset` on; what follows is appended as before.
    ///
    /// # Errors
    ///
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
    ///
    /// Any error of those steps; the temporary file is then removed and the target is as it
    /// was before. The one exception is a failure to sync the directory after the rename,
    /// which is reported although the new file is in place.
    pub fn commit(self) -> io::Result<()> {
        let Self { writer, temp, target, partial } = self;
        let file = writer.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        drop(file);
        temp.persist(&target).map_err(|error| error.error)?;
        drop(partial);
        // The rename itself is durable only once the directory is. Windows has no such call.
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

/// A folder that appears at its path only on [`commit`](Self::commit), with all that was put into it.
///
/// Dropping it uncommitted removes it.
#[derive(Debug)]
pub struct AtomicFolder {
    temp: tempfile::TempDir,
    target: PathBuf,
    partial: Partial,
}

impl AtomicFolder {
    /// Starts a folder that will be `target`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if there is a `target`; otherwise whatever creating a folder beside it gives.
    pub fn create(target: &Path) -> io::Result<Self> {
        if std::fs::symlink_metadata(target).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", target.display())));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".partial-");
        #[cfg(unix)]
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        #[cfg(unix)]
        builder.permissions(mode);
        let mut partials = partials();
        let temp = builder.tempdir_in(directory_of(target))?;
        partials.insert(temp.path().to_path_buf());
        drop(partials);
        let partial = Partial(temp.path().to_path_buf());
        Ok(Self { temp, target: target.to_path_buf(), partial })
    }

    /// Where to put its content.
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Renames the folder into place.
    ///
    /// # Errors
    ///
    /// Any error of renaming; the content is then removed.
    pub fn commit(self) -> io::Result<()> {
        let Self { temp, target, partial } = self;
        std::fs::rename(temp.path(), &target)?;
        // There is nothing left to remove under the old name.
        let _ = temp.keep();
        drop(partial);
        #[cfg(unix)]
        File::open(directory_of(&target))?.sync_all()?;
        Ok(())
    }
}

/// Writes a whole file through `write`, so that `path` holds either all of it or what it held
/// before.
///
/// # Errors
///
/// What `write` returned, or any error of creating, flushing, syncing or renaming the file
/// (see [`AtomicFile`]). Nothing is left behind.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    write(&mut file.writer)?;
    file.commit()
}

/// The bytes of a file, mapped read-only.
///
/// Pages are read when touched, so opening costs nothing however large the file is. A file
/// that another process shortens while it is mapped makes a later read fault; files that are
/// replaced by renaming, as [`write_atomic`] does, are safe.
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

/// Bytes that can still be written below `directory`, `None` where the system does not tell.
#[must_use]
pub fn free_space(directory: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        let path = std::ffi::CString::new(directory.as_os_str().as_bytes()).ok()?;
        let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: `path` ends in a zero byte and `stat` is large enough; it is read only after success.
        let stat = unsafe {
            if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
                return None;
            }
            stat.assume_init()
        };
        #[allow(clippy::unnecessary_cast, reason = "the fields are narrower on some systems")]
        Some((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
    }
    #[cfg(not(unix))]
    {
        let _ = directory;
        None
    }
}

/// Keeps other processes that ask as well out of `folder`, as long as the file is open. `None` where one is there already. A
/// file system without locks keeps nobody out.
///
/// # Errors
///
/// Whatever making or locking the file `.lock` in the folder gives.
pub fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).append(true).open(folder.join(".lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(Some(file)),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Whether an error says that no more can be written: a full disk, a quota, a limit on a file's size.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

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
    fn a_folder_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("room");
        let folder = AtomicFolder::create(&target).unwrap();
        std::fs::write(folder.path().join("a"), b"1").unwrap();
        assert!(!target.exists());
        drop(folder);
        assert!(names(dir.path()).is_empty());
        let folder = AtomicFolder::create(&target).unwrap();
        std::fs::write(folder.path().join("a"), b"2").unwrap();
        folder.commit().unwrap();
        assert_eq!(names(dir.path()), ["room"]);
        assert_eq!(std::fs::read(target.join("a")).unwrap(), b"2");
        assert_eq!(AtomicFolder::create(&target).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
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

    #[cfg(unix)]
    #[test]
    fn free_space_is_known_on_unix() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_space(dir.path()).unwrap() > 0);
        assert_eq!(free_space(&dir.path().join("none")), None);
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
