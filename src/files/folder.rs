//! Folders that appear whole or not at all.

#[cfg(unix)]
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::partial::{PARTIAL, Partial, directory_of, partials};

/// A folder that appears at its path, with everything put into it, only on [`commit`](Self::commit).
///
/// Dropping it without a commit removes it.
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
    /// [`io::ErrorKind::AlreadyExists`] if `target` exists; otherwise any error of creating a folder beside
    /// it.
    pub fn create(target: &Path) -> io::Result<Self> {
        if std::fs::symlink_metadata(target).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", target.display())));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(PARTIAL);
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

    /// Returns the temporary path to put the content into.
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Renames the folder into place.
    ///
    /// # Errors
    /// Any error of renaming. The content is then removed.
    pub fn commit(self) -> io::Result<()> {
        let Self { temp, target, partial } = self;
        std::fs::rename(temp.path(), &target)?;
        // The rename moved the folder, so the old path needs no cleanup.
        let _ = temp.keep();
        drop(partial);
        #[cfg(unix)]
        File::open(directory_of(&target))?.sync_all()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::*;

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
}
