//! The text side of CLIP (Radford et al., ICML 2021): from words to embeddings.
//!
//! LSeg compares its pixels with the embeddings of ViT-B/32, OpenScene's networks theirs with those of ViT-B/32
//! or ViT-L/14@336px. The image side is left out.

mod byte_pairs;
mod config;
mod fix_text;
mod hugging_face;
mod mojibake;
pub mod tokenizer;
mod transformer;

use burn::prelude::*;

pub use config::{ClipTextConfig, ConfigError};
pub use hugging_face::{HuggingFaceClip, is_hugging_face};

pub(crate) use config::Names;
pub(crate) use transformer::TextTransformer;

use super::ModelError;
use super::layers::Loader;
use crate::ops::conv2d::Precision;
use crate::ops::{OpError, normalize_rows};
use crate::weights::{LoadReport, TensorSource, match_keys};

/// CLIP's text side.
#[derive(Clone, Debug)]
pub struct ClipText {
    /// Configuration of the model.
    pub config: ClipTextConfig,
    transformer: TextTransformer,
}

impl ClipText {
    /// Builds the text side from a source with OpenAI's names. Keys of the image side are skipped and listed in
    /// the report. A key that is missing, unknown or of another shape is an error.
    ///
    /// # Errors
    /// [`ModelError::Clip`] if the configuration is not supported, [`ModelError::Weights`] with the file and the
    /// key, [`ModelError::Op`] if a weight does not fit the device.
    pub fn load(
        source: &mut dyn TensorSource,
        config: ClipTextConfig,
        precision: Precision,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        config.validate()?;
        let ignored: Vec<&str> = ClipTextConfig::UNUSED.iter().map(|(pattern, _)| *pattern).collect();
        let report = match_keys(source, &config.keys(), &ignored);
        report.ensure_complete()?;
        let loader = &mut Loader::new(source, device, precision);
        Ok((Self::load_part(loader, config, &Names::of_clip(""), device)?, report))
    }

    /// Loads the text side that is part of another model's checkpoint.
    pub(crate) fn load_part(
        loader: &mut Loader<'_>,
        config: ClipTextConfig,
        names: &Names,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let transformer = TextTransformer::load(loader, &config, names, device)?;
        Ok(Self { config, transformer })
    }

    /// Returns one embedding per text, `[texts, embed_dim]`, of any length. A text is cut to the length of the
    /// context. For each group of texts with the same number of tokens `observe` receives `block{i}` and `hidden`
    /// (before and after the final norm), `[texts, tokens, width]`.
    ///
    /// # Errors
    /// [`OpError::Value`] if a token is not in the vocabulary, or the error of the device.
    pub fn embed(&self, texts: &[String], observe: &mut dyn FnMut(&str, &Tensor<3>)) -> Result<Tensor<2>, OpError> {
        self.transformer.embed(texts, observe)
    }

    /// Returns one embedding of unit length per text, `[texts, embed_dim]`.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub fn embed_unit(&self, texts: &[String]) -> Result<Tensor<2>, OpError> {
        let rows = self.embed(texts, &mut |_, _| ())?;
        Ok(if texts.is_empty() { rows } else { normalize_rows(rows) })
    }

    /// Returns the words that have a token with a row of zeros in the vocabulary. Such a token was in no
    /// training text, so the word's embedding says little about it. The published vocabulary has no such row.
    #[must_use]
    pub fn unknown_words<'a>(&self, words: &'a [String]) -> Vec<&'a str> {
        self.transformer.unknown_words(words)
    }
}
