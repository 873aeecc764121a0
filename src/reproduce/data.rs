//! The scenes of a data set: those to learn from, and those to measure.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::error::ReproduceError;
use crate::eval::scenes::{LabelledScene, find_scenes};
use crate::labels::Preset;
use crate::random::SplitMix64;
use crate::session::lists::SceneList;
use crate::session::{SessionError, Source, find_sources, split_of};
use crate::views::Layout;

/// Stream of random numbers that chooses the scenes to learn from.
const SCENES: u64 = 0x5265;
/// File in a room that `synth` made.
const OF_MADE_ROOM: &str = "synth.json";

/// Where a data set lies.
#[derive(Clone, Debug, PartialEq)]
pub struct DataFolder {
    /// Its folder: with `train` and `test` or `val`, or of scenes without such parts.
    pub folder: PathBuf,
    /// List of the scenes to learn from. By default these are the scenes of `train`; of a folder without parts those
    /// that are not measured.
    pub training: Option<PathBuf>,
    /// Classes by which it is measured.
    pub preset: Preset,
}

impl DataFolder {
    pub(super) fn to_json(&self) -> Json {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        json!({
            "folder": text(&self.folder), "training": self.training.as_ref().map(text), "preset": self.preset.name,
        })
    }
}

/// The scenes of a data set.
#[derive(Clone, Debug)]
pub(super) struct Scenes {
    /// Folder of the scenes that are measured.
    pub root: PathBuf,
    pub preset: Preset,
    /// Scenes to learn from, in an order drawn by the seed. Fewer scenes are the first of them.
    pub training: Vec<Source>,
    /// Scenes to measure.
    pub measured: Vec<LabelledScene>,
    /// True if all of these are made rooms.
    pub are_made: bool,
}

impl Scenes {
    /// Finds the scenes of a data set, at most `most` to measure. A scene to learn from is never measured.
    pub(super) fn find(
        data: &DataFolder,
        most: Option<usize>,
        seed: u64,
        layout: Option<Layout>,
    ) -> Result<Self, ReproduceError> {
        let DataFolder { folder, training: list, preset } = data;
        let part = split_of(folder, "test").or_else(|| split_of(folder, "val"));
        let root = part.clone().unwrap_or_else(|| folder.clone());
        let mut measured = find_scenes(&root)?;
        if part.is_none() {
            keep_validation(&mut measured);
        }
        let has_training = list.is_some() || part.is_none() || split_of(folder, "train").is_some();
        let mut training = match list {
            _ if !has_training => Vec::new(),
            Some(list) => find_sources(list, Some(folder), "train", layout)?,
            None => match find_sources(folder, None, "train", layout) {
                // Scenes that can be measured only, such as OpenScene's prepared data.
                Err(SessionError::NoScan { .. }) => Vec::new(),
                found => found?,
            },
        };
        let is_of = |source: &Source, scene: &LabelledScene| source.scan() == Some(scene.scan.as_path());
        match list {
            Some(_) => measured.retain(|scene| !training.iter().any(|source| is_of(source, scene))),
            None => training.retain(|source| !measured.iter().any(|scene| is_of(source, scene))),
        }
        if measured.is_empty() {
            let text = format!("{}: no scene is left to measure: all are scenes to learn from", folder.display());
            return Err(ReproduceError::Settings(text));
        }
        measured.truncate(most.unwrap_or(usize::MAX));
        let order = SplitMix64::stream(seed, &[SCENES]).permutation(training.len());
        Ok(Self {
            training: order.into_iter().map(|place| training[place].clone()).collect(),
            are_made: measured.iter().all(is_made),
            root,
            preset: *preset,
            measured,
        })
    }

    /// The first `count` scenes to learn from, in the order of their names.
    pub(super) fn to_learn_from(&self, count: usize) -> Vec<Source> {
        let mut chosen: Vec<Source> = self.training.iter().take(count).cloned().collect();
        chosen.sort_by_key(|source| (source.name(), source.path().to_path_buf()));
        chosen
    }
}

/// Of scenes of ScanNet without parts, only those of its validation are measured. Other scenes stay.
fn keep_validation(scenes: &mut Vec<LabelledScene>) {
    let Some(list) = SceneList::at(Path::new("scannet-val")) else { return };
    let names: Vec<&str> = list.scenes().collect();
    if scenes.iter().any(|scene| names.contains(&scene.name.as_str())) {
        scenes.retain(|scene| names.contains(&scene.name.as_str()));
    }
}

fn is_made(scene: &LabelledScene) -> bool {
    scene.scan.parent().unwrap_or(Path::new("")).join(OF_MADE_ROOM).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::touch;

    fn data(folder: &Path) -> DataFolder {
        DataFolder { folder: folder.to_path_buf(), training: None, preset: Preset::SCANNET20 }
    }

    fn names(scenes: &Scenes) -> [Vec<String>; 2] {
        let training = scenes.to_learn_from(usize::MAX).iter().map(|source| source.name()).collect();
        [training, scenes.measured.iter().map(|scene| scene.name.clone()).collect()]
    }

    #[test]
    fn parts_are_learned_from_and_measured() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let scene = |part: &str, name: &str| {
            touch(root, &[&format!("{part}/{name}/{name}.ply"), &format!("{part}/{name}/{name}.labels.ply")]);
        };
        (0..6).for_each(|i| scene("train", &format!("a{i}")));
        scene("val", "v");
        let found = Scenes::find(&data(root), None, 0, None).unwrap();
        assert_eq!(names(&found)[1], ["v"]);
        scene("test", "t");
        scene("test", "u");
        let found = Scenes::find(&data(root), Some(1), 0, None).unwrap();
        assert_eq!(names(&found)[0].len(), 6);
        assert_eq!((names(&found)[1].as_slice(), found.are_made), (["t".to_owned()].as_slice(), false));
        touch(root, &["test/t/synth.json"]);
        assert!(Scenes::find(&data(root), Some(1), 0, None).unwrap().are_made);
        // Fewer are among the more, another seed draws others.
        let few = |count, seed| -> Vec<String> {
            let scenes = Scenes::find(&data(root), None, seed, None).unwrap().to_learn_from(count);
            scenes.iter().map(Source::name).collect()
        };
        assert!(few(2, 0).iter().all(|name| few(4, 0).contains(name)));
        assert!((1..9).any(|seed| few(2, seed) != few(2, 0)));
    }

    #[test]
    fn without_parts_a_list_or_scannets_own_decides() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["scene0011_00", "scene0000_00", "scene0001_00"] {
            touch(root, &[&format!("{name}/{name}_vh_clean_2.ply"), &format!("{name}/{name}_vh_clean_2.labels.ply")]);
        }
        let found = Scenes::find(&data(root), None, 0, None).unwrap();
        let [training, measured] = names(&found);
        assert_eq!((training.len(), measured.as_slice()), (2, ["scene0011_00".to_owned()].as_slice()));
        let list = root.join("chosen.txt");
        std::fs::write(&list, "scene0011_00\n").unwrap();
        let listed = DataFolder { training: Some(list), ..data(root) };
        let message = Scenes::find(&listed, None, 0, None).unwrap_err().to_string();
        assert!(message.ends_with("no scene is left to measure: all are scenes to learn from"), "{message}");
    }
}
