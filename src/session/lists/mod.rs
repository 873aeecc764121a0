//! Lists of scenes that come with the program.

use std::path::Path;

/// A named list of scenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SceneList {
    /// Name on the command line.
    pub name: &'static str,
    /// The list, one scene per line; lines with # say where it is from.
    text: &'static str,
}

impl SceneList {
    /// All lists: what the published student learned from and what it was measured on, of both data sets.
    pub const ALL: [Self; 4] = [
        Self { name: "scannet-train", text: include_str!("scannet-train.txt") },
        Self { name: "scannet-val", text: include_str!("scannet-val.txt") },
        Self { name: "matterport-train", text: include_str!("matterport-train.txt") },
        Self { name: "matterport-test", text: include_str!("matterport-test.txt") },
    ];

    /// The list that `path` names, if there is one and no file or folder of that name.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let list = Self::ALL.into_iter().find(|list| path == Path::new(list.name));
        list.filter(|_| !path.exists())
    }

    /// Its lines.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.text
    }

    /// Names of the scenes.
    pub fn scenes(self) -> impl Iterator<Item = &'static str> {
        names(self.text)
    }
}

/// Names in the text of a list: a line each, without empty lines and lines with #.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn lists_have_the_published_numbers_of_scenes() {
        let expected = [
            ("scannet-train", 20, "scene0126_00"),
            ("scannet-val", 312, "scene0011_00"),
            ("matterport-train", 20, "VzqfbhrpDEA_region7"),
            ("matterport-test", 406, "2t7WUuJeko7_region0"),
        ];
        for ((name, num_scenes, first), list) in expected.into_iter().zip(SceneList::ALL) {
            let scenes: Vec<&str> = SceneList::at(Path::new(name)).unwrap().scenes().collect();
            let num_different = scenes.iter().collect::<BTreeSet<_>>().len();
            assert_eq!((list.name, scenes.len(), num_different, scenes[0]), (name, num_scenes, num_scenes, first));
            let is_room = |scene: &&str| match name.starts_with("scannet") {
                true => scene.len() == 12 && scene.starts_with("scene0"),
                false => scene[11..].strip_prefix("_region").is_some_and(|number| number.parse::<u32>().is_ok()),
            };
            assert!(scenes.iter().all(is_room), "{name}");
        }
        assert_eq!(SceneList::at(Path::new("scannet-test")), None);
    }

    #[test]
    fn no_scene_is_learned_from_and_measured() {
        for [train, measured] in [["scannet-train", "scannet-val"], ["matterport-train", "matterport-test"]] {
            // Rooms of a house, and further scans of a room, belong to the same part.
            let places = |name: &str| -> BTreeSet<&str> {
                SceneList::at(Path::new(name)).unwrap().scenes().map(|scene| scene.split_once('_').unwrap().0).collect()
            };
            assert!(places(train).is_disjoint(&places(measured)), "{train}");
        }
    }
}
