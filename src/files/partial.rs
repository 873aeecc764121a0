//! Temporary files and folders of results in the making, removed when a signal ends the process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How the names of temporary files and folders begin.
pub(crate) const PARTIAL: &str = ".partial-";

/// Temporary files that a process ended by a signal would leave behind.
static PARTIALS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

pub(super) fn partials() -> MutexGuard<'static, BTreeSet<PathBuf>> {
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
pub(super) struct Partial(pub(super) PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        partials().remove(&self.0);
    }
}

/// The folder that `path` is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
