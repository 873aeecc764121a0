//! Checks of output paths before the work, so that a mistyped one does not cost a run.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Fails if nothing can be written into `folder`, which need not exist.
pub(super) fn check_writable(folder: &Path) -> Result<()> {
    let folder = std::path::absolute(folder).with_context(|| folder.display().to_string())?;
    let Some(there) = folder.ancestors().find(|folder| folder.exists()) else { return Ok(()) };
    if !there.is_dir() {
        bail!("{}: a file, but results need a folder; name another with -o", there.display());
    }
    let written = tempfile::tempfile_in(there);
    written.map(|_| ()).with_context(|| format!("{}: cannot write here; name another folder with -o", there.display()))
}

/// Fails if the folder of `output` does not exist.
pub(super) fn check_folder(output: &Path) -> Result<()> {
    match output.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => bail!("{}: no such folder for the output", folder.display()),
        None => Ok(()),
    }
}
