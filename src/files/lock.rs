//! Locks against other processes.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// A lock that this process holds until the value is dropped.
///
/// It is released on drop, not by closing the file. A process that another thread starts holds a copy of the
/// open file for a moment, and the lock would live on with the copy.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock that the file `path` stands for, and makes the file if it is missing. Returns `None` if
    /// another holder has it. On a file system without locks, nothing is locked.
    ///
    /// # Errors
    /// Any error of making or locking the file.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => unlocked(file, error).map(Some),
        }
    }

    /// Takes the lock of a folder: of the file `.lock` in it. See [`take`](Self::take).
    ///
    /// # Errors
    /// Those of [`take`](Self::take).
    pub fn of_folder(folder: &Path) -> io::Result<Option<Self>> {
        Self::take(&folder.join(".lock"))
    }

    /// Like [`take`](Self::take), but waits until the lock is free.
    ///
    /// # Errors
    /// Those of [`take`](Self::take).
    pub fn wait_for(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        match file.lock() {
            Ok(()) => Ok(Self(file)),
            Err(error) => unlocked(file, error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // If it fails, closing the file releases the lock.
        let _ = self.0.unlock();
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Goes on without a lock on a file system that has none.
fn unlocked(file: File, error: io::Error) -> io::Result<Lock> {
    if error.kind() == io::ErrorKind::Unsupported { Ok(Lock(file)) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = Lock::of_folder(dir.path()).unwrap().unwrap();
        assert!(Lock::of_folder(dir.path()).unwrap().is_none());
        drop(held);
        assert!(Lock::of_folder(dir.path()).unwrap().is_some());
        drop(Lock::wait_for(&dir.path().join(".lock")).unwrap());
        assert!(Lock::take(&dir.path().join("none").join("file")).is_err());
    }

    /// A copy of the open file stands for the one that a starting process holds.
    #[test]
    fn a_copy_of_the_open_file_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let held = Lock::of_folder(dir.path()).unwrap().unwrap();
        let copy = held.0.try_clone().unwrap();
        drop(held);
        assert!(Lock::of_folder(dir.path()).unwrap().is_some());
        drop(copy);
    }
}
