//! Memory of which sealed files are whole, so that each is read for it only once.
//!
//! A file counts as unchanged as long as its length, its times of modification and of change, and its number
//! in the file system are the same. This process remembers every file that it verified. The store also
//! remembers its files from one process to the next, each in a small file. A file that was written in the last
//! second is not remembered yet, because a system's clock of files may stand still that long.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::files::write_atomic;

/// State of a file on disk, in text. It changes when the file does.
type Stamp = String;

/// Files that this process verified, with their state then.
static VERIFIED: Mutex<Option<HashMap<PathBuf, Stamp>>> = Mutex::new(None);

/// Age from which a file is remembered.
const SETTLED: Duration = Duration::from_secs(1);

/// Returns the state of the file at `path`; `None` if there is no file, it is too young, or the system tells no
/// time.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    let modified = metadata.modified().ok()?;
    if modified.elapsed().ok()? < SETTLED {
        return None;
    }
    let modified = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(format!("{} {} {}", metadata.len(), modified.as_nanos(), identity(&metadata)))
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> String {
    use std::os::unix::fs::MetadataExt as _;
    format!("{} {} {}", metadata.ctime(), metadata.ctime_nsec(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> String {
    String::new()
}

/// Verifies the file at `path` by `verify`, unless it was verified before and has not changed since. `memory` is
/// the file that remembers it from process to process.
///
/// # Errors
/// Those of `verify`.
pub(super) fn verify_once<E>(
    path: &Path,
    memory: Option<&Path>,
    verify: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let now = stamp(path);
    let known = |found: Option<Stamp>| now.is_some() && found == now;
    {
        let verified = VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
        if known(verified.as_ref().and_then(|verified| verified.get(path).cloned())) {
            return Ok(());
        }
    }
    let remembered = memory.and_then(|path| std::fs::read_to_string(path).ok());
    let is_known = known(remembered);
    if !is_known {
        verify()?;
    }
    let Some(now) = now else { return Ok(()) };
    if let Some(memory) = memory.filter(|_| !is_known) {
        let folder = memory.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = folder.and_then(|()| write_atomic(memory, |out| out.write_all(now.as_bytes())));
        // A store that cannot be written is verified by every process.
        if let Err(error) = written {
            log::debug!("{}: {error}", memory.display());
        }
    }
    let mut verified = VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    verified.get_or_insert_default().insert(path.to_path_buf(), now);
    Ok(())
}
