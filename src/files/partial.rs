//! Temporary files and folders of unfinished results, and their removal when a signal ends the process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Prefix of the names of temporary files and folders.
pub(crate) const PARTIAL: &str = ".partial-";

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
