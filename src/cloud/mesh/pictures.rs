//! Pictures of a mesh: finding them beside its file, and reading them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::cloud::CloudError;
use crate::cloud::source;
use crate::files::MappedFile;
use crate::images::{MAX_PIXELS, Orientation, Rgb8Image, decode_image};

/// Pictures that a mesh names. Each is read once.
pub(in crate::cloud) struct Pictures<'a> {
    /// The mesh.
    path: &'a Path,
    known: BTreeMap<String, Option<Rc<Rgb8Image>>>,
    /// Pixels of all pictures that were decoded, used or not.
    pixels: u64,
    notes: Vec<String>,
}

impl<'a> Pictures<'a> {
    pub(in crate::cloud) fn of(path: &'a Path) -> Self {
        Self { path, known: BTreeMap::new(), pixels: 0, notes: Vec::new() }
    }

    /// Reads the picture that the mesh calls `name`. Says in a note why there is none.
    pub(in crate::cloud) fn named(&mut self, name: &str) -> Option<Rc<Rgb8Image>> {
        self.once(name, |pictures| match open_beside(pictures.path, name) {
            Ok((path, bytes)) => pictures.decoded(&bytes, &path),
            Err(why) => {
                pictures.notes.push(format!("a picture is not used: {why}"));
                None
            }
        })
    }

    /// Reads a picture that is a part of the mesh's file.
    #[cfg(feature = "meshes")]
    pub(super) fn inside(&mut self, name: &str, bytes: &[u8]) -> Option<Rc<Rgb8Image>> {
        self.once(name, |pictures| pictures.decoded(bytes, &pictures.path.join(name)))
    }

    fn once(&mut self, name: &str, read: impl FnOnce(&mut Self) -> Option<Rc<Rgb8Image>>) -> Option<Rc<Rgb8Image>> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let picture = read(self);
        self.known.insert(name.to_owned(), picture.clone());
        picture
    }

    fn decoded(&mut self, bytes: &[u8], path: &Path) -> Option<Rc<Rgb8Image>> {
        // Once they are too many, no other is decoded.
        if self.pixels <= MAX_PIXELS {
            match decode_image(bytes, path, Orientation::AsStored) {
                Ok(picture) => {
                    self.pixels = self.pixels.saturating_add(picture.pixels().len() as u64);
                    if self.pixels <= MAX_PIXELS {
                        return Some(Rc::new(picture));
                    }
                }
                Err(error) => {
                    self.notes.push(format!("a picture is not used: {error}"));
                    return None;
                }
            }
        }
        let path = path.display();
        self.notes.push(format!("a picture is not used: {path}: all pictures together have over {MAX_PIXELS} pixels"));
        None
    }

    /// Says which pictures were used.
    pub(in crate::cloud) fn into_notes(self) -> Vec<String> {
        const NAMED: usize = 5;
        let used: Vec<&str> =
            self.known.iter().filter(|(_, picture)| picture.is_some()).map(|(name, _)| name.as_str()).collect();
        let mut notes = Vec::new();
        if !used.is_empty() {
            let named = used.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            let more = if used.len() > NAMED { " and others" } else { "" };
            let pictures = if used.len() == 1 { "picture" } else { "pictures" };
            notes.push(format!("colours from {} {pictures}: {named}{more}", used.len()));
        }
        let left_out = self.notes.len().saturating_sub(NAMED);
        notes.extend(self.notes.into_iter().take(NAMED));
        if left_out > 0 {
            notes.push(format!("{left_out} more pictures are not used"));
        }
        notes
    }
}

/// Opens the file that a mesh calls `name`. Only the folder of the mesh and folders in it are looked at: a
/// mesh of a stranger may not name other files. The error says which path was tried.
pub(super) fn open_beside(mesh: &Path, name: &str) -> Result<(PathBuf, MappedFile), String> {
    let folder = mesh.parent().unwrap_or(Path::new(""));
    let plain = name.trim().replace('\\', "/");
    let file = plain.rsplit('/').next().unwrap_or_default();
    let by_name = (!file.is_empty() && file != "." && file != ".." && !file.contains(':')).then(|| folder.join(file));
    let tried = match inside(&plain) {
        Some(relative) => folder.join(relative),
        None => by_name.clone().ok_or_else(|| format!("\"{name}\" is not in the folder of the mesh"))?,
    };
    let open = |path: &Path| source::open(path).map(|bytes| (path.to_path_buf(), bytes));
    // A path of another machine: the file itself often lies beside the mesh.
    let second = by_name.filter(|path| *path != tried && !tried.exists() && path.exists());
    open(second.as_deref().unwrap_or(&tried)).map_err(|error| match (&error, inside(&plain)) {
        (CloudError::Io { source, .. }, None) if source.kind() == std::io::ErrorKind::NotFound => {
            format!("\"{name}\" is not in the folder of the mesh, and {} is not there", tried.display())
        }
        (CloudError::Io { source, .. }, _) if source.kind() == std::io::ErrorKind::NotFound => {
            format!("{} is not there", tried.display())
        }
        _ => error.to_string(),
    })
}

/// The parts of a relative path that stays in its folder; `None` for others.
fn inside(path: &str) -> Option<PathBuf> {
    if path.starts_with('/') || path.contains(':') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_folder_of_the_mesh() {
        let path = |text: &str| inside(text).map(|path| path.display().to_string());
        assert_eq!(path("a.png").as_deref(), Some("a.png"));
        assert_eq!(path("./maps/../maps/a b.png").as_deref(), Some("maps/a b.png"));
        for outside in ["", "/etc/passwd", "../a.png", "maps/../../a.png", "C:/a.png", "file:///etc/passwd"] {
            assert_eq!(path(outside), None, "{outside}");
        }
    }

    #[test]
    fn files_are_found_by_their_name_if_the_path_is_of_another_machine() {
        let folder = tempfile::tempdir().unwrap();
        let mesh = folder.path().join("scan/room.obj");
        std::fs::create_dir(folder.path().join("scan")).unwrap();
        std::fs::write(folder.path().join("scan/wall.png"), "picture").unwrap();
        std::fs::write(folder.path().join("secret.png"), "secret").unwrap();
        for name in ["wall.png", "C:\\scans\\wall.png", "/home/me/wall.png", "textures\\wall.png", "../wall.png"] {
            let (path, bytes) = open_beside(&mesh, name).unwrap();
            assert_eq!((path, &bytes[..]), (folder.path().join("scan/wall.png"), b"picture".as_slice()), "{name}");
        }
        let error = open_beside(&mesh, "../secret.png").unwrap_err();
        assert!(error.starts_with("\"../secret.png\" is not in the folder"), "{error}");
        let error = open_beside(&mesh, "maps/none.png").unwrap_err();
        assert!(error.ends_with("scan/maps/none.png is not there"), "{error}");
        assert!(open_beside(&mesh, "..").is_err());
    }
}
