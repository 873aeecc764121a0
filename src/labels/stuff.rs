//! Words for what has no instances: surfaces of rooms and streets.

/// Last words of labels that are stuff, in the singular.
const STUFF: [&str; 17] = [
    "wall",
    "floor",
    "ceiling",
    "ground",
    "road",
    "street",
    "sidewalk",
    "pavement",
    "terrain",
    "vegetation",
    "grass",
    "lawn",
    "sky",
    "water",
    "surface",
    "manmade",
    "background",
];

/// True if `word` stands for stuff, as "walls" or "shower floor" do, and for no countable things. Case and a plural
/// do not matter; the last word decides.
#[must_use]
pub fn is_stuff(word: &str) -> bool {
    let lower = word.trim().to_lowercase();
    let last = lower.split_whitespace().next_back().unwrap_or_default();
    STUFF.contains(&last) || last.strip_suffix('s').is_some_and(|singular| STUFF.contains(&singular))
}

/// True for each of `words` that stands for stuff: by the user's list if there is one, else by [`is_stuff`].
#[must_use]
pub fn which_are_stuff(words: &[String], said: Option<&[String]>) -> Vec<bool> {
    let is_said =
        |word: &String, said: &[String]| said.iter().any(|other| other.trim().eq_ignore_ascii_case(word.trim()));
    words.iter().map(|word| said.map_or_else(|| is_stuff(word), |said| is_said(word, said))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuff_is_known_by_its_last_word() {
        assert!(["wall", "Walls", "shower floor", " ceiling ", "driveable surface"].into_iter().all(is_stuff));
        assert!(!["chair", "floor mat", "floor lamp", "", "wall clock"].into_iter().any(is_stuff));
    }

    #[test]
    fn the_user_decides_if_asked() {
        let words = ["wall".to_owned(), "chair".to_owned()];
        assert_eq!(which_are_stuff(&words, None), [true, false]);
        assert_eq!(which_are_stuff(&words, Some(&["Chair".to_owned()])), [false, true]);
    }
}
