//! `geopurify info` for folders of scenes: data sets, and folders of scans or recordings.

use std::path::Path;

use serde_json::{Value, json};

use crate::session::{Source, scenes_at};

/// Most scenes that are listed as text.
const LISTED: usize = 20;

/// Finds the scenes of a folder that is no scene itself; `None` if there are none.
pub(super) fn scenes_in(folder: &Path) -> Option<Vec<Source>> {
    if !folder.is_dir() {
        return None;
    }
    let scenes = scenes_at(folder, None).ok()?;
    let is_itself = scenes.len() == 1 && scenes[0].recording() == Some(folder);
    (!is_itself && !scenes.is_empty()).then_some(scenes)
}

/// Path below the folder, and what is there.
fn described(folder: &Path, scene: &Source) -> (String, &'static str) {
    let path = scene.path();
    let what = match (scene.scan(), scene.recording()) {
        (Some(_), Some(_)) => "scan and recording",
        (Some(_), None) => "scan",
        _ => "recording",
    };
    (path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned(), what)
}

/// Describes the scenes of a folder as text.
pub(super) fn text(folder: &Path, scenes: &[Source]) -> String {
    let count = |wanted: &str| scenes.iter().filter(|scene| described(folder, scene).1 == wanted).count();
    let kinds: Vec<String> = ["scan and recording", "scan", "recording"]
        .into_iter()
        .filter(|kind| count(kind) > 0)
        .map(|kind| format!("{} {kind}", count(kind)))
        .collect();
    let mut lines = vec![folder.display().to_string()];
    lines.push(format!("  {:<11}{} ({})", "scenes", scenes.len(), kinds.join(", ")));
    for scene in scenes.iter().take(LISTED) {
        let (path, what) = described(folder, scene);
        lines.push(format!("  {:<11}{path} ({what})", "scene"));
    }
    if scenes.len() > LISTED {
        lines.push(format!("  {:<11}{} more", "", scenes.len() - LISTED));
    }
    lines.join("\n")
}

/// Describes the scenes of a folder as JSON.
pub(super) fn json(folder: &Path, scenes: &[Source]) -> Value {
    let path = |path: Option<&Path>| path.map(|path| path.to_string_lossy().into_owned());
    let scenes: Vec<Value> = scenes
        .iter()
        .map(|scene| json!({ "scan": path(scene.scan()), "recording": path(scene.recording()) }))
        .collect();
    json!({ "file": folder.to_string_lossy(), "format": "scenes", "num_scenes": scenes.len(), "scenes": scenes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::touch;

    #[test]
    fn a_data_set_is_described_by_its_scenes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, &["train/a/color/0.jpg", "train/a/pose/0.txt", "train/a/a_vh_clean_2.ply", "test/b.ply"]);
        let scenes = scenes_in(root).unwrap();
        let text = text(root, &scenes);
        assert!(text.contains("scenes     2 (1 scan and recording, 1 scan)"), "{text}");
        assert!(text.contains("scene      train/a (scan and recording)"), "{text}");
        assert!(text.contains("scene      test/b.ply (scan)"), "{text}");
        assert_eq!(json(root, &scenes)["num_scenes"], 2);
        assert_eq!(scenes_in(&root.join("train/a")), None);
        touch(root, &["none/readme.md"]);
        assert_eq!(scenes_in(&root.join("none")), None);
        assert_eq!(scenes_in(&root.join("test/b.ply")), None);
    }
}
