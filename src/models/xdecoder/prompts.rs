//! Prompts: the sentences that a label is inserted into before it is encoded.
//!
//! A word from the user is first wrapped by [`scene_label`]. The result is then inserted into each of the
//! [`TEMPLATES`], so the text encoder sees "a photo of a a wall in a scene.". The weights are used with these
//! prompts; better wording would give other features.

/// Label of everything that belongs to none of the classes asked for. It is not wrapped by [`scene_label`].
pub const BACKGROUND: &str = "background";

/// Suffixes that data sets append to class names. They are removed from the prompts.
const SUFFIXES: [&str; 3] = ["-other", "-merged", "-stuff"];

/// Prompt templates, with `{}` in place of the label. The feature of a label is the mean over all of them.
pub const TEMPLATES: [&str; 81] = [
    "{}.",
    "a photo of a {}.",
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
];

/// Wraps a word into the label that is asked for in a picture of a scene.
pub fn scene_label(word: &str) -> String {
    format!("a {word} in a scene")
}

/// Returns the prompts of a label, in the order of [`TEMPLATES`]. Suffixes of data sets ("-other", "-merged",
/// "-stuff") are removed first, wherever they occur in the label.
pub fn prompts(label: &str) -> impl Iterator<Item = String> {
    let label = SUFFIXES.iter().fold(label.to_owned(), |label, suffix| label.replace(suffix, ""));
    TEMPLATES.iter().map(move |template| template.replace("{}", &label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_put_into_every_template() {
        let prompts: Vec<String> = prompts(&scene_label("wall")).collect();
        assert_eq!(prompts.len(), 81);
        assert_eq!(prompts[0], "a wall in a scene.");
        assert_eq!(prompts[1], "a photo of a a wall in a scene.");
        assert_eq!(prompts[41], "the origami a wall in a scene.");
        assert_eq!(prompts[80], "a tattoo of the a wall in a scene.");
    }

    #[test]
    fn every_template_is_another_one_and_has_one_place() {
        let distinct: std::collections::BTreeSet<_> = TEMPLATES.iter().collect();
        assert_eq!(distinct.len(), TEMPLATES.len());
        assert!(TEMPLATES.iter().all(|template| template.matches("{}").count() == 1 && template.ends_with('.')));
    }

    #[test]
    fn suffixes_of_data_sets_are_taken_out() {
        let first = |label: &str| prompts(label).next();
        assert_eq!(first("wall-other").as_deref(), Some("wall."));
        assert_eq!(first("floor-other-merged").as_deref(), Some("floor."));
        assert_eq!(first("food-stuff court").as_deref(), Some("food court."));
        assert_eq!(first("a {} in it").as_deref(), Some("a {} in it."));
        assert_eq!(first("").as_deref(), Some("."));
    }
}
