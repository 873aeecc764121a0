//! Checks of output paths before the work, so that a mistyped one does not cost a run.

use std::path::Path;

use anyhow::{Result, bail};

/// Fails if the folder of `output` does not exist.
pub(super) fn check_folder(output: &Path) -> Result<()> {
    match output.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => bail!("{}: no such folder for the output", folder.display()),
        None => Ok(()),
    }
}
