//! The sources that a folder or a list names.

use std::path::{Path, PathBuf};

use super::SessionError;
use super::beside::{SCAN_EXTENSIONS, is_results};
use super::lists::SceneList;
use super::parts::part_of;
use super::scenes::scenes_at;
use super::source::Source;
use crate::views::Layout;

/// Extensions of lists.
const LIST_EXTENSIONS: [&str; 3] = ["txt", "tsv", "list"];
/// Number of levels below a list's folder in which its entries are looked for.
const LIST_DEPTH: usize = 3;

/// Finds the sources that `path` names: [`scenes_at`] a scan or a folder, or a list with one entry per line, which may
/// be [one that comes with the program](SceneList). Of a data set with parts, only the part `split` is taken: train, val
/// or test.
///
/// An entry is a path from the folder `data`, by default the list's own. It may be a name without extension, as
/// `select` writes it, which is looked for in the part and its folders. After a tab comes the scan's recording.
/// Without one, the recording that the scan lies with belongs to it.
///
/// # Errors
/// [`SessionError::NoScan`], [`SessionError::Io`], [`SessionError::ListEntry`], [`SessionError::SeveralScenes`],
/// [`SessionError::EmptyList`], [`SessionError::NoPart`].
pub fn find_sources(
    path: &Path,
    data: Option<&Path>,
    split: &str,
    layout: Option<Layout>,
) -> Result<Vec<Source>, SessionError> {
    if let Some(list) = SceneList::at(path) {
        return of_list(path, list.text(), data, split, layout);
    }
    if path.is_file() && is_list(path) {
        let io = |source| SessionError::Io { path: path.to_path_buf(), source };
        return of_list(path, &std::fs::read_to_string(path).map_err(io)?, data, split, layout);
    }
    scenes_at(&part_of(path, split)?, layout)
}

fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|extension| LIST_EXTENSIONS.iter().any(|known| extension == *known))
}

fn of_list(
    path: &Path,
    text: &str,
    data: Option<&Path>,
    split: &str,
    layout: Option<Layout>,
) -> Result<Vec<Source>, SessionError> {
    let own_folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = data.or(own_folder).unwrap_or(Path::new("."));
    let part = part_of(folder, split)?;
    let mut sources = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with("scene\t") {
            continue;
        }
        let missing = |entry: &Path| SessionError::ListEntry {
            list: path.to_path_buf(),
            line: number + 1,
            entry: entry.to_path_buf(),
        };
        let entry = Path::new(line.split('\t').next().unwrap_or_default().trim());
        // In a table from `select`, the second column is a score.
        let second = line.split('\t').nth(1).map(str::trim).filter(|column| column.parse::<f64>().is_err());
        let recording = second.filter(|column| !column.is_empty()).map(|column| folder.join(column));
        if let Some(recording) = recording.as_ref().filter(|recording| !recording.exists()) {
            return Err(missing(recording));
        }
        let direct = [folder, &part].into_iter().find_map(|folder| with_extension(&folder.join(entry)));
        let scan = match direct.map_or_else(|| below(&part, entry), |scan| vec![scan]).as_slice() {
            [] => return Err(missing(&part.join(entry))),
            [only] => only.clone(),
            [first, second, ..] => {
                return Err(SessionError::SeveralScenes {
                    list: path.to_path_buf(),
                    line: number + 1,
                    entry: entry.to_path_buf(),
                    places: [first.clone(), second.clone()],
                });
            }
        };
        match recording {
            Some(recording) => sources.push(Source::ScanInRecording { scan, recording }),
            None if scan.is_dir() => sources.extend(scenes_at(&scan, layout)?),
            None => sources.push(Source::of_file(scan)),
        }
    }
    if sources.is_empty() {
        return Err(SessionError::EmptyList { list: path.to_path_buf() });
    }
    Ok(sources)
}

/// Returns `named` if it exists, else the scan of this name with an extension.
fn with_extension(named: &Path) -> Option<PathBuf> {
    let extended = SCAN_EXTENSIONS.iter().map(|extension| {
        let mut name = named.as_os_str().to_owned();
        name.push(format!(".{extension}"));
        PathBuf::from(name)
    });
    std::iter::once(named.to_path_buf()).chain(extended).find(|path| path.exists())
}

/// The scans called `named` in the folders below `folder`: ScanNet has a folder for each scan. Folders with results
/// are left out.
fn below(folder: &Path, named: &Path) -> Vec<PathBuf> {
    let Some(name) = named.file_name() else { return Vec::new() };
    let mut folders = vec![folder.to_path_buf()];
    let mut found = Vec::new();
    for _ in 0..LIST_DEPTH {
        let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        let inner = entries.filter_map(|entry| Some(entry.ok()?.path()));
        folders = inner.filter(|path| path.is_dir() && !is_results(path)).collect();
        folders.sort();
        found.extend(
            folders.iter().filter_map(|folder| with_extension(&folder.join(name)).filter(|path| path.is_file())),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::touch;

    #[test]
    fn a_list_names_scans_by_path_by_name_and_with_recordings() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("deep/down")).unwrap();
        std::fs::create_dir(at("recorded")).unwrap();
        for name in ["a.ply", "deep/down/b.ply", "c.ply"] {
            std::fs::write(at(name), "ply\n").unwrap();
        }
        std::fs::write(at("list.tsv"), "scene\tscore\n# no scene\n\na\t0.5\nb\nc.ply\trecorded\n").unwrap();
        let found = find_sources(&at("list.tsv"), None, "train", None).unwrap();
        let scan = |name: &str| Source::Scan(at(name));
        let recorded = Source::ScanInRecording { scan: at("c.ply"), recording: at("recorded") };
        assert_eq!(found, [scan("a.ply"), scan("deep/down/b.ply"), recorded]);
    }

    /// Rooms as `synth` makes them, with the same names in all parts.
    fn rooms(root: &Path, parts: &[&str]) {
        for part in parts {
            let room = format!("{part}/room_0001");
            touch(root, &[&format!("{room}/color/0.jpg"), &format!("{room}/pose/0.txt")]);
            touch(
                root,
                &[&format!("{room}/room_0001_vh_clean_2.ply"), &format!("{room}/room_0001_vh_clean_2.labels.ply")],
            );
        }
    }

    #[test]
    fn a_name_is_looked_for_in_the_part_and_found_with_its_recording() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        rooms(root, &["train", "val", "test"]);
        let list = root.join("chosen.txt");
        std::fs::write(&list, "room_0001_vh_clean_2\n").unwrap();
        let scene = |part: &str| {
            let recording = root.join(part).join("room_0001");
            [Source::SceneFolder { scan: recording.join("room_0001_vh_clean_2.ply"), recording }]
        };
        assert_eq!(find_sources(&list, Some(root), "train", None).unwrap(), scene("train"));
        assert_eq!(find_sources(&list, Some(root), "val", None).unwrap(), scene("val"));
        assert_eq!(find_sources(&list, Some(&root.join("test")), "train", None).unwrap(), scene("test"));
        assert_eq!(find_sources(root, None, "train", None).unwrap(), scene("train"));
        // A path from the folder itself, of a mesh and of a scene's folder, and a scene's name in the part.
        for entry in ["test/room_0001/room_0001_vh_clean_2", "test/room_0001"] {
            std::fs::write(&list, entry).unwrap();
            assert_eq!(find_sources(&list, Some(root), "train", None).unwrap(), scene("test"), "{entry}");
        }
        std::fs::write(&list, "room_0001").unwrap();
        assert_eq!(find_sources(&list, Some(root), "train", None).unwrap(), scene("train"));
    }

    #[test]
    fn a_name_in_two_places_is_refused_with_both() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        rooms(root, &["one", "two"]);
        let list = root.join("chosen.txt");
        std::fs::write(&list, "# rooms\nroom_0001_vh_clean_2\n").unwrap();
        let error = find_sources(&list, None, "train", None).unwrap_err();
        let place = |part: &str| root.join(part).join("room_0001/room_0001_vh_clean_2.ply");
        let SessionError::SeveralScenes { line, places, .. } = error else { panic!("another error: {error}") };
        assert_eq!((line, places), (2, [place("one"), place("two")]));
    }

    #[test]
    fn a_list_that_comes_with_the_program_finds_its_scenes_in_the_data() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let list = Path::new("matterport-train");
        let mesh = |room: &str| {
            let house = room.split_once('_').unwrap().0;
            format!("{house}/{room}/{room}.ply")
        };
        let rooms: Vec<&str> = SceneList::at(list).unwrap().scenes().collect();
        let meshes: Vec<String> = rooms.iter().map(|room| mesh(room)).collect();
        touch(root, &meshes[1..].iter().map(String::as_str).collect::<Vec<_>>());
        let SessionError::ListEntry { list: named, entry, .. } =
            find_sources(list, Some(root), "train", None).unwrap_err()
        else {
            panic!("another error")
        };
        assert_eq!((named.as_path(), entry), (list, root.join(rooms[0])));
        touch(root, &[&meshes[0]]);
        let found = find_sources(list, Some(root), "train", None).unwrap();
        let expected: Vec<Source> = meshes.iter().map(|mesh| Source::Scan(root.join(mesh))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_list_with_a_missing_entry_or_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.txt");
        let find = |text: &str| {
            std::fs::write(&list, text).unwrap();
            find_sources(&list, None, "train", None).unwrap_err()
        };
        let SessionError::ListEntry { line, entry, .. } = find("\nnowhere\n") else { panic!("another error") };
        assert_eq!((line, entry), (2, folder.path().join("nowhere")));
        assert!(matches!(find("# nothing\n"), SessionError::EmptyList { .. }));
    }
}
