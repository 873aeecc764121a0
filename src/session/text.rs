//! The text encoders that words can be embedded with.

use burn::prelude::Tensor;

use super::SessionError;
use crate::models::clip::ClipText;
use crate::models::xdecoder::TextEncoder;
use crate::models::xdecoder::prompts::{BACKGROUND, scene_label};
use crate::ops::OpError;

/// A text encoder, in whose space features are compared with words.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub enum TextModel {
    /// X-Decoder's: a word is the mean of its prompts in all templates.
    XDecoder(TextEncoder),
    /// CLIP's, which published 3D networks of OpenScene need: a word is one prompt.
    Clip(ClipText),
}

impl TextModel {
    /// Returns one row of unit length per label, `[labels, D]`.
    ///
    /// # Errors
    /// [`OpError`] if the device fails.
    pub fn embed_labels(&self, labels: &[String]) -> Result<Tensor<2>, OpError> {
        match self {
            Self::XDecoder(encoder) => encoder.embed_labels(labels),
            Self::Clip(encoder) => encoder.embed_unit(labels),
        }
    }

    /// Returns the words of which a part was in no training text.
    #[must_use]
    pub fn unknown_words<'a>(&self, words: &'a [String]) -> Vec<&'a str> {
        match self {
            Self::XDecoder(encoder) => encoder.unknown_words(words),
            Self::Clip(encoder) => encoder.unknown_words(words),
        }
    }

    /// Scale of cosines between queries and words; 1 without queries.
    #[must_use]
    pub fn logit_scale(&self) -> f32 {
        match self {
            Self::XDecoder(encoder) => encoder.logit_scale(),
            Self::Clip(_) => 1.0,
        }
    }
}

/// Prompts of the words, and of the background.
pub(super) fn prompted(words: &[String]) -> Vec<String> {
    words.iter().map(|word| scene_label(word)).chain([BACKGROUND.to_owned()]).collect()
}

/// Fails if features of `found` channels cannot be compared with words of `words` channels.
pub(super) fn check_width(network: &str, found: usize, words: usize) -> Result<(), SessionError> {
    if found == words { Ok(()) } else { Err(SessionError::OtherNetwork { network: network.to_owned(), found, words }) }
}
