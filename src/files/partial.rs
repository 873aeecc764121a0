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
    for path in partials.iter() {
        // A path that is already gone needs no removal.
        let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    std::process::exit(code)
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
