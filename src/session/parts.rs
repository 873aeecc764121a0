//! The part of a data set that a command takes: `train`, `val` or `test`.

use std::path::{Path, PathBuf};

use super::SessionError;
use super::beside::{SPLITS, split_of};

/// The scenes of `folder` that belong to the part `split`: `folder/split` if the folder is divided into parts,
/// `folder` itself otherwise.
///
/// # Errors
/// [`SessionError::NoPart`] if the folder has parts, but not this one.
pub fn part_of(folder: &Path, split: &str) -> Result<PathBuf, SessionError> {
    let parts = parts_in(folder);
    match split_of(folder, split) {
        Some(part) => Ok(part),
        None if parts.len() < 2 => Ok(folder.to_path_buf()),
        None => Err(SessionError::NoPart {
            folder: folder.to_path_buf(),
            split: split.to_owned(),
            way_out: format!("it has {}: give the one that is meant", parts.join(" and ")),
        }),
    }
}

/// The part `split` of `root`, the folder around all parts.
///
/// # Errors
/// [`SessionError::NoPart`] if there is no such part. It names the folder around `root`, if that has the part.
pub fn part_in(root: &Path, split: &str) -> Result<PathBuf, SessionError> {
    let part = root.join(split);
    if part.is_dir() {
        return Ok(part);
    }
    let absolute = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
    let around = absolute.ancestors().skip(1).take(2).find(|folder| split_of(folder, split).is_some());
    let way_out = match around {
        Some(folder) => format!("the folder with all parts is {}", folder.display()),
        None => format!("expected the folder around {}", SPLITS.join(", ")),
    };
    Err(SessionError::NoPart { folder: root.to_path_buf(), split: split.to_owned(), way_out })
}

/// Names of the parts that `folder` has.
fn parts_in(folder: &Path) -> Vec<&'static str> {
    SPLITS.into_iter().filter(|split| folder.join(split).is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::touch;

    #[test]
    fn a_command_takes_its_part_or_says_which_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, &["train/a/a.ply", "val/b/b.ply", "plain/c.ply"]);
        assert_eq!(part_of(root, "train").unwrap(), root.join("train"));
        assert_eq!(part_of(&root.join("plain"), "test").unwrap(), root.join("plain"));
        let message = part_of(root, "test").unwrap_err().to_string();
        assert!(
            message.ends_with("no test in this folder; it has train and val: give the one that is meant"),
            "{message}"
        );
    }

    #[test]
    fn the_folder_around_the_parts_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, &["rooms/train/a/a.ply", "rooms/val/b/b.ply", "other/c.ply"]);
        assert_eq!(part_in(&root.join("rooms"), "val").unwrap(), root.join("rooms/val"));
        for inside in ["rooms/train", "rooms/train/a"] {
            let message = part_in(&root.join(inside), "val").unwrap_err().to_string();
            let end = format!("no val in this folder; the folder with all parts is {}", root.join("rooms").display());
            assert!(message.ends_with(&end), "{message}");
        }
        let message = part_in(&root.join("other"), "train").unwrap_err().to_string();
        assert!(message.ends_with("no train in this folder; expected the folder around train, val, test"), "{message}");
    }
}
