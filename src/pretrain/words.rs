//! Names of NYU40's classes. Training draws one name at a time, so that the model learns several.

use std::collections::BTreeSet;

use crate::models::clip::tokenizer::Tokenizer;
use crate::models::xdecoder::prompts::{BACKGROUND, TEMPLATES, prompts, scene_label};
use crate::random::SplitMix64;

/// A class with its names. The first name is that of the benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// NYU40's number of the class.
    pub nyu40: u8,
    /// All names.
    pub names: &'static [&'static str],
}

const fn class(nyu40: u8, names: &'static [&'static str]) -> Class {
    Class { nyu40, names }
}

/// Classes that occur in rooms of `geopurify synth`.
pub const CLASSES: [Class; 36] = [
    class(1, &["wall", "walls"]),
    class(2, &["floor", "ground", "flooring"]),
    class(3, &["cabinet", "cupboard", "wardrobe", "dresser", "kitchen cabinet", "chest of drawers", "closet"]),
    class(4, &["bed", "double bed", "mattress"]),
    class(5, &["chair", "office chair", "armchair", "seat", "dining chair"]),
    class(6, &["sofa", "couch", "settee"]),
    class(7, &["table", "coffee table", "dining table", "side table", "end table"]),
    class(8, &["door", "doorway", "closed door"]),
    class(9, &["window", "windows"]),
    class(10, &["bookshelf", "bookcase", "book shelf"]),
    class(11, &["picture", "painting", "poster", "photo"]),
    class(12, &["counter", "kitchen counter", "countertop", "worktop"]),
    class(14, &["desk", "writing desk", "office desk"]),
    class(15, &["shelves", "shelf", "wall shelf"]),
    class(16, &["curtain", "curtains", "drapes"]),
    class(18, &["pillow", "cushion", "pillows"]),
    class(19, &["mirror", "looking glass"]),
    class(20, &["floor mat", "rug", "carpet", "bath mat", "mat"]),
    class(21, &["clothes", "clothing", "jacket"]),
    class(22, &["ceiling"]),
    class(23, &["books", "book", "pile of books"]),
    class(24, &["refrigerator", "fridge", "refridgerator"]),
    class(25, &["television", "tv", "monitor", "screen"]),
    class(26, &["paper", "papers", "sheet of paper"]),
    class(27, &["towel", "towels"]),
    class(28, &["shower curtain"]),
    class(29, &["box", "boxes", "cardboard box", "storage box"]),
    class(30, &["whiteboard", "white board", "board"]),
    class(32, &["night stand", "nightstand", "bedside table"]),
    class(33, &["toilet", "lavatory", "toilet bowl"]),
    class(34, &["sink", "washbasin", "basin"]),
    class(35, &["lamp", "light", "floor lamp", "desk lamp", "ceiling lamp"]),
    class(36, &["bathtub", "bath tub", "tub"]),
    class(37, &["bag", "backpack", "handbag"]),
    class(39, &["other", "furniture", "other furniture"]),
    class(40, &["object", "thing", "prop", "plant"]),
];

/// Returns the index of NYU40's class in [`CLASSES`].
#[must_use]
pub fn class_of(nyu40: u8) -> Option<usize> {
    CLASSES.iter().position(|class| class.nyu40 == nyu40)
}

/// Returns prompts for all classes and, last, for the background: first all in one template, then all in the
/// next, for `num_templates` templates. Templates and names are drawn. Half of the time a class takes its
/// first name. All classes share the templates, so that only the names distinguish them.
#[must_use]
pub fn draw_prompts(num_templates: usize, random: &mut SplitMix64) -> Vec<String> {
    let names = CLASSES.iter().map(|class| {
        let place = if random.below(2) == 0 { 0 } else { random.below(class.names.len()) };
        scene_label(class.names.get(place).copied().unwrap_or_default())
    });
    let labels: Vec<String> = names.chain([BACKGROUND.to_owned()]).collect();
    let templates = random.sample(TEMPLATES.len(), num_templates);
    templates.iter().flat_map(|&i| labels.iter().filter_map(move |label| prompts(label).nth(i))).collect()
}

/// Returns all prompts of all classes by their first names, and of the background.
#[must_use]
pub fn usual_prompts() -> Vec<String> {
    let labels = CLASSES.iter().filter_map(|class| class.names.first()).map(|name| scene_label(name));
    labels.chain([BACKGROUND.to_owned()]).flat_map(|label| prompts(&label).collect::<Vec<_>>()).collect()
}

/// Returns every token that may occur in a prompt of training.
#[must_use]
pub fn tokens(context_length: usize) -> BTreeSet<u32> {
    let tokenizer = Tokenizer::with_context_length(context_length);
    let labels = CLASSES.iter().flat_map(|class| class.names).map(|name| scene_label(name));
    let labels = labels.chain([BACKGROUND.to_owned()]);
    labels.flat_map(|label| prompts(&label).collect::<Vec<_>>()).flat_map(|text| tokenizer.encode(&text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::nyu40::SCANNET20;

    #[test]
    fn all_that_is_measured_is_named_and_no_name_is_twice() {
        assert!(SCANNET20.iter().all(|&nyu40| class_of(nyu40).is_some()));
        let names: Vec<&str> = CLASSES.iter().flat_map(|class| class.names).copied().collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn prompts_are_made_of_the_tokens() {
        let tokens = tokens(77);
        assert!((150..400).contains(&tokens.len()), "{}", tokens.len());
        let mut random = SplitMix64::new(1);
        for _ in 0..20 {
            let texts = draw_prompts(2, &mut random);
            assert_eq!(texts.len(), 2 * (CLASSES.len() + 1));
            assert!(texts[texts.len() - 1].contains("background"));
            let tokenizer = Tokenizer::with_context_length(77);
            assert!(texts.iter().flat_map(|text| tokenizer.encode(text)).all(|token| tokens.contains(&token)));
        }
    }
}
