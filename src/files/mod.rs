//! Files on disk: whole-file replacement, read-only mapping, locks.
//!
//! A result file appears under its name only when it is complete. Everything is written to a temporary file in the same
//! directory, synced, and renamed over the target. A reader never sees half a file, and a failed run leaves an earlier
//! result as it was.

mod atomic;
mod folder;
mod mapped;
mod partial;
mod system;

pub use atomic::{AtomicFile, write_atomic};
pub use folder::AtomicFolder;
pub use mapped::MappedFile;
pub(crate) use partial::PARTIAL;
pub use partial::exit_without_partials;
pub use system::{free_space, is_full, lock};

#[cfg(test)]
fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
