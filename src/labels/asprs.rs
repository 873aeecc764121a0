//! Classes of points as ASPRS numbers them in LAS files.

/// Class of points that no class describes.
pub const UNCLASSIFIED: u8 = 1;

/// Words, and the class that each stands for. A word counts if it is the label or its last part: "oak tree".
const CLASSES: [(u8, &[&str]); 14] = [
    (2, &["ground", "terrain", "soil", "earth", "sand", "gravel", "floor", "sidewalk", "pavement"]),
    (3, &["grass", "lawn", "low vegetation", "meadow", "field"]),
    (4, &["bush", "bushes", "shrub", "hedge", "medium vegetation"]),
    (5, &["tree", "trees", "vegetation", "high vegetation", "forest", "plant"]),
    (6, &["building", "buildings", "house", "roof", "facade", "wall"]),
    (9, &["water", "river", "lake", "sea", "pond"]),
    (10, &["rail", "rails", "railway", "track"]),
    (11, &["road", "street", "road surface", "asphalt", "parking lot"]),
    (13, &["guard wire"]),
    (14, &["wire", "power line", "cable", "conductor"]),
    (15, &["transmission tower", "pylon", "power pole"]),
    (17, &["bridge", "bridge deck", "overpass"]),
    (7, &["noise"]),
    (UNCLASSIFIED, &["other", "unclassified"]),
];

/// The ASPRS class of a label; [`UNCLASSIFIED`] if none fits.
#[must_use]
pub fn asprs_class(label: &str) -> u8 {
    let label = label.to_lowercase();
    let classes = || CLASSES.iter().flat_map(|(class, words)| words.iter().map(move |word| (*class, *word)));
    let exact = classes().find(|(_, word)| *word == label);
    let is_last = |word: &str| label.strip_suffix(word).is_some_and(|rest| rest.ends_with(' '));
    let last = || classes().filter(|(_, word)| is_last(word)).max_by_key(|(_, word)| word.len());
    exact.or_else(last).map_or(UNCLASSIFIED, |(class, _)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_class_that_they_mean() {
        let class =
            ["Ground", "oak tree", "tree house", "low vegetation", "power line", "chair", "street"].map(asprs_class);
        assert_eq!(class, [2, 5, 6, 3, 14, 1, 11]);
        assert_eq!(asprs_class("treehouse"), UNCLASSIFIED);
    }
}
