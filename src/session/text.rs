//! The text encoders that words can be embedded with.

use burn::prelude::Tensor;

use super::SessionError;
use crate::models::clip::ClipText;
use crate::models::lseg;
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
    /// LSeg's, which is CLIP's with a background of its own.
    LSeg(ClipText),
}

impl TextModel {
    /// Returns one row of unit length per label, `[labels, D]`.
    ///
    /// # Errors
    /// [`OpError`] if the device fails.
    pub fn embed_labels(&self, labels: &[String]) -> Result<Tensor<2>, OpError> {
        match self {
            Self::XDecoder(encoder) => encoder.embed_labels(labels),
            Self::Clip(encoder) | Self::LSeg(encoder) => encoder.embed_unit(labels),
        }
    }

    /// Returns the label that is asked for in place of a word.
    #[must_use]
    pub fn prompt(&self, word: &str) -> String {
        match self {
            Self::LSeg(_) if word == BACKGROUND => self.background().to_owned(),
            _ => scene_label(word),
        }
    }

    /// Returns the label of everything that belongs to none of the words.
    #[must_use]
    pub fn background(&self) -> &'static str {
        match self {
            Self::XDecoder(_) | Self::Clip(_) => BACKGROUND,
            Self::LSeg(_) => lseg::BACKGROUND,
        }
    }

    /// Returns the words of which a part was in no training text.
    #[must_use]
    pub fn unknown_words<'a>(&self, words: &'a [String]) -> Vec<&'a str> {
        match self {
            Self::XDecoder(encoder) => encoder.unknown_words(words),
            Self::Clip(encoder) | Self::LSeg(encoder) => encoder.unknown_words(words),
        }
    }

    /// Scale of cosines between features and words; 1 if there is none.
    #[must_use]
    pub fn logit_scale(&self) -> f32 {
        match self {
            Self::XDecoder(encoder) => encoder.logit_scale(),
            Self::Clip(_) => 1.0,
            Self::LSeg(_) => lseg::LOGIT_SCALE,
        }
    }

    /// Prompts of the words, and of the background.
    pub(super) fn prompted(&self, words: &[String]) -> Vec<String> {
        words.iter().map(|word| self.prompt(word)).chain([self.background().to_owned()]).collect()
    }
}

/// Fails if features of `found` channels cannot be compared with words of `words` channels.
pub(super) fn check_width(network: &str, found: usize, words: usize) -> Result<(), SessionError> {
    if found == words { Ok(()) } else { Err(SessionError::OtherNetwork { network: network.to_owned(), found, words }) }
}
