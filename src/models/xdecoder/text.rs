//! The text encoder: prompts through a causal transformer, averaged per label.

use burn::prelude::*;

use super::TextEmbeddings;
use super::config::XDecoderConfig;
use super::predictor::unit_rows;
use super::prompts::{BACKGROUND, TEMPLATES, prompts, scene_label};
use crate::models::ModelError;
use crate::models::clip::TextTransformer;
use crate::models::layers::Loader;
use crate::ops::{OpError, float_tensor, float_values};

/// The text encoder `sem_seg_head.predictor.lang_encoder.*`.
#[derive(Clone, Debug)]
pub struct TextEncoder {
    transformer: TextTransformer,
    logit_scale: f32,
    /// `[1]` logit scale with its gradient.
    logit_scale_tracked: Tensor<1>,
}

impl TextEncoder {
    pub(crate) fn load(loader: &mut Loader<'_>, config: &XDecoderConfig, device: &Device) -> Result<Self, ModelError> {
        let names = XDecoderConfig::text_names();
        let transformer = TextTransformer::load(loader, &config.text_transformer(), &names, device)?;
        let learned_scale = loader.values(XDecoderConfig::LOGIT_SCALE, &[])?.into_tensor([1], device);
        let logit_scale = float_values(learned_scale.clone())?.first().map_or(1.0, |scale| scale.exp());
        Ok(Self { transformer, logit_scale, logit_scale_tracked: learned_scale.exp() })
    }

    /// Returns the scale of cosines between classes and text: exp of the learned scale.
    #[must_use]
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// Returns the [`logit_scale`](Self::logit_scale) as `[1]`, with a gradient to the learned scale if that
    /// is a parameter.
    #[must_use]
    pub fn logit_scale_tracked(&self) -> Tensor<1> {
        self.logit_scale_tracked.clone()
    }

    /// Returns the words that have a token with a row of zeros in the vocabulary. Such a token was in no
    /// training text, so the word's embedding says little about it. The published vocabulary has no such row.
    /// In training no word is unknown.
    #[must_use]
    pub fn unknown_words<'a>(&self, words: &'a [String]) -> Vec<&'a str> {
        self.transformer.unknown_words(words)
    }

    /// Embeds the words to look for. Each word is wrapped and inserted into the prompts as in GeoPurify. The
    /// background is added as the last row.
    ///
    /// # Errors
    /// [`OpError`] if the device fails.
    pub fn embed_words(&self, words: &[String]) -> Result<TextEmbeddings, OpError> {
        let labels: Vec<String> = words.iter().map(|word| scene_label(word)).chain([BACKGROUND.to_owned()]).collect();
        Ok(TextEmbeddings { labels: words.to_vec(), rows: self.embed_labels(&labels)?, logit_scale: self.logit_scale })
    }

    /// Returns one embedding of unit length per label, `[labels, dim_proj]`: the mean over its 81 prompts.
    ///
    /// # Errors
    /// [`OpError`] if a layer fails on the device.
    pub fn embed_labels(&self, labels: &[String]) -> Result<Tensor<2>, OpError> {
        let texts: Vec<String> = labels.iter().flat_map(|label| prompts(label)).collect();
        let embeddings = float_values(self.embed_prompts(&texts, &mut |_, _| ())?)?;
        let dim = self.transformer.embed_dim();
        let mut rows = Vec::with_capacity(labels.len() * dim);
        for prompts_of_label in embeddings.chunks_exact(TEMPLATES.len() * dim) {
            let mut mean = vec![0.0f64; dim];
            for embedding in prompts_of_label.chunks_exact(dim) {
                mean.iter_mut().zip(embedding).for_each(|(mean, x)| *mean += f64::from(*x) / TEMPLATES.len() as f64);
            }
            let norm = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
            rows.extend(mean.iter().map(|x| (x / norm) as f32));
        }
        Ok(float_tensor(rows, [labels.len(), dim], self.transformer.device()))
    }

    /// Returns one embedding of unit length per text, `[texts, dim_proj]`. Texts with the same number of
    /// tokens are encoded together, so that none is padded. For each such group `observe` receives `block{i}`
    /// and `hidden` (before and after the final norm), `[texts, tokens, width]`.
    ///
    /// # Errors
    /// [`OpError`] if a layer fails on the device.
    pub fn embed_prompts(
        &self,
        texts: &[String],
        observe: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Result<Tensor<2>, OpError> {
        Ok(of_unit_length(self.transformer.embed(texts, observe)?))
    }

    /// Does the same as [`embed_prompts`](Self::embed_prompts), with gradients to the encoder's parameters.
    ///
    /// # Errors
    /// [`OpError`] if a layer fails on the device.
    pub fn embed_texts_tracked(&self, texts: &[String]) -> Result<Tensor<2>, OpError> {
        Ok(of_unit_length(self.transformer.embed_tracked(texts)?))
    }
}

/// The rows in unit length. No rows stay no rows.
fn of_unit_length(rows: Tensor<2>) -> Tensor<2> {
    if rows.dims()[0] == 0 { rows } else { unit_rows(rows) }
}
