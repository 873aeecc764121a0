//! Lists of scenes that come with the program.

/// A named list of scenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SceneList {
    /// Name on the command line.
    pub name: &'static str,
    /// The list, one scene per line; lines with # say where it is from.
    text: &'static str,
}

impl SceneList {
    /// All lists.
    pub const ALL: [Self; 1] = [Self { name: "scannet-val", text: include_str!("scannet-val.txt") }];

    /// The list of this name, if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|list| list.name == name)
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
    fn scannets_validation_has_312_scenes() {
        let scenes: Vec<&str> = SceneList::named("scannet-val").unwrap().scenes().collect();
        assert_eq!((scenes.len(), scenes.iter().collect::<BTreeSet<_>>().len()), (312, 312));
        assert!(scenes.is_sorted() && scenes.contains(&"scene0011_00") && scenes.iter().all(|scene| scene.len() == 12));
        assert!(SceneList::named("scannet-test").is_none());
    }
}
