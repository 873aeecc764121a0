//! The sources that a folder or a list names.

use std::path::{Path, PathBuf};

use super::SessionError;
use super::beside::SCAN_EXTENSIONS;
use super::scenes::scenes_at;
use super::source::Source;
use crate::views::Layout;

/// Extensions of lists.
const LIST_EXTENSIONS: [&str; 3] = ["txt", "tsv", "list"];
/// Number of levels below a list's folder in which its entries are looked for.
const LIST_DEPTH: usize = 3;

/// Finds the sources that `path` names: [`scenes_at`] a scan or a folder, or a list with one entry per line. An
/// entry is a path from the folder `data`, by default the list's own. It may be a name without extension, as
/// `select` writes it. After a tab comes the scan's recording, if it has one.
///
/// # Errors
/// [`SessionError::NoScan`], [`SessionError::Io`], [`SessionError::ListEntry`], [`SessionError::EmptyList`].
pub fn find_sources(path: &Path, data: Option<&Path>, layout: Option<Layout>) -> Result<Vec<Source>, SessionError> {
    if path.is_file() && is_list(path) { of_list(path, data, layout) } else { scenes_at(path, layout) }
}

fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|extension| LIST_EXTENSIONS.iter().any(|known| extension == *known))
}

fn of_list(path: &Path, data: Option<&Path>, layout: Option<Layout>) -> Result<Vec<Source>, SessionError> {
    let text = std::fs::read_to_string(path).map_err(|source| SessionError::Io { path: path.to_path_buf(), source })?;
    let folder = data.or(path.parent()).unwrap_or(Path::new("."));
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
        let named = folder.join(line.split('\t').next().unwrap_or_default().trim());
        // In a table from `select`, the second column is a score.
        let second = line.split('\t').nth(1).map(str::trim).filter(|column| column.parse::<f64>().is_err());
        let recording = second.filter(|column| !column.is_empty()).map(|column| folder.join(column));
        if let Some(recording) = recording.as_ref().filter(|recording| !recording.exists()) {
            return Err(missing(recording));
        }
        let scan = with_extension(&named).or_else(|| below(folder, &named)).ok_or_else(|| missing(&named))?;
        match recording {
            Some(recording) => sources.push(Source::ScanInRecording { scan, recording }),
            None => sources.extend(Source::at(&scan, layout)?),
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

/// Looks for the scan `named` in the folders below `folder`: ScanNet has a folder for each scan.
fn below(folder: &Path, named: &Path) -> Option<PathBuf> {
    let name = named.file_name()?;
    let mut folders = vec![folder.to_path_buf()];
    for _ in 0..LIST_DEPTH {
        let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        folders = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
        folders.sort();
        if let Some(found) =
            folders.iter().find_map(|folder| with_extension(&folder.join(name)).filter(|p| p.is_file()))
        {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let found = find_sources(&at("list.tsv"), None, None).unwrap();
        let scan = |name: &str| Source::Scan(at(name));
        let recorded = Source::ScanInRecording { scan: at("c.ply"), recording: at("recorded") };
        assert_eq!(found, [scan("a.ply"), scan("deep/down/b.ply"), recorded]);
    }

    #[test]
    fn a_list_with_a_missing_entry_or_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.txt");
        let find = |text: &str| {
            std::fs::write(&list, text).unwrap();
            find_sources(&list, None, None).unwrap_err()
        };
        let SessionError::ListEntry { line, entry, .. } = find("\nnowhere\n") else { panic!("another error") };
        assert_eq!((line, entry), (2, folder.path().join("nowhere")));
        assert!(matches!(find("# nothing\n"), SessionError::EmptyList { .. }));
    }
}
