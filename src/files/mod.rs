//! Files on disk: whole-file replacement, read-only mapping, locks, and bounds on what is decoded from them.
//!
//! A result file appears under its name only when it is complete: everything is written to a temporary file
//! in the same folder, synced, and renamed over the target. Readers never see half a file, and a failed run
//! leaves an earlier result unchanged.

mod atomic;
mod budget;
mod folder;
mod lock;
pub(crate) mod lossy;
mod mapped;
mod partial;
mod system;

pub use atomic::{AtomicFile, write_atomic};
pub use budget::{Budget, OverBudget};
pub use folder::AtomicFolder;
pub use lock::Lock;
pub use mapped::MappedFile;
pub use partial::exit_without_partials;
pub(crate) use partial::{LEFTOVER, remove_partials};
pub use system::{free_space, is_full};

/// A value between the double quotes of CSV.
pub(crate) fn csv_quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Makes empty files below `root`, and the folders that they are in.
#[cfg(test)]
pub(crate) fn touch(root: &std::path::Path, files: &[&str]) {
    for file in files {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }
}

#[cfg(test)]
fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
