//! Temporary files and folders of unfinished results, and their removal when a signal ends the process.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Prefix of the names of temporary files and folders.
pub(crate) const PARTIAL: &str = ".partial-";

/// Time after its last change, from which on a temporary file that another process might own counts as left by
/// a killed one. Files are written without pauses.
pub(crate) const LEFTOVER: Duration = Duration::from_secs(600);

/// Times that a temporary path is removed, and the time between two of them.
const REMOVALS: usize = 100;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(5);

/// Temporary paths that would be left behind if a signal ended the process now.
static PARTIALS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

pub(super) fn partials() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    // The set stays valid if a thread panics while holding the lock.
    PARTIALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the temporary files of all unfinished results and ends the process with `code`. Call it from a
/// signal handler's thread, because no destructor runs when a signal ends the process.
pub fn exit_without_partials(code: i32) -> ! {
    // Held until exit, so that no other thread starts a file meanwhile.
    let partials = partials();
    partials.iter().for_each(|path| remove_for_good(path));
    std::process::exit(code)
}

/// Removes a file or a folder that other threads may still write into: a file that appears meanwhile keeps a folder
/// from being removed. Gives up after half a second.
fn remove_for_good(path: &Path) {
    for _ in 0..REMOVALS {
        // A path that is already gone needs no removal.
        let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        if std::fs::symlink_metadata(path).is_err() {
            return;
        }
        std::thread::sleep(BETWEEN_REMOVALS);
    }
}

/// Removes the temporary files and folders in `folder` that a killed process left there. Those that changed
/// within `age` stay: another process may still write them.
///
/// # Errors
/// Any error of reading the folder or of removing from it.
pub(crate) fn remove_partials(folder: &Path, age: Duration) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            continue;
        }
        // A time in the future counts as now.
        let changed = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if changed >= age {
            let path = entry.path();
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
    }
    Ok(())
}

/// An entry of [`PARTIALS`].
#[derive(Debug)]
pub(super) struct Partial(pub(super) PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        partials().remove(&self.0);
    }
}

/// Returns the folder that contains `path`.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{names, touch};
    use super::*;

    #[test]
    fn a_folder_that_is_written_into_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("room");
        std::fs::create_dir(&folder).unwrap();
        std::thread::scope(|threads| {
            // Ends when the folder is gone: no file can be made in it.
            threads.spawn(|| (0..).take_while(|i| std::fs::write(folder.join(i.to_string()), b"").is_ok()).count());
            remove_for_good(&folder);
            assert!(!folder.exists());
        });
    }

    #[test]
    fn only_what_a_killed_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, &[".partial-a", ".partial-b/c", "labelled.ply"]);
        remove_partials(root, Duration::from_secs(3600)).unwrap();
        assert_eq!(names(root), [".partial-a", ".partial-b", "labelled.ply"]);
        remove_partials(root, Duration::ZERO).unwrap();
        assert_eq!(names(root), ["labelled.ply"]);
        assert!(remove_partials(&root.join("none"), Duration::ZERO).is_err());
    }
}
