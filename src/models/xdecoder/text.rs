//! The text encoder: prompts through a causal transformer, averaged per label.

use std::collections::BTreeMap;

use burn::prelude::*;

use super::TextEmbeddings;
use super::config::XDecoderConfig;
use super::predictor::{projection, unit_rows};
use super::prompts::{BACKGROUND, TEMPLATES, prompts, scene_label};
use super::tokenizer::{EOS, Tokenizer};
use crate::models::ModelError;
use crate::models::layers::{FeedForward, Loader, MultiheadAttention, Norm};
use crate::ops::attention::Mask;
use crate::ops::conv2d::{Activation, PackedWeight, linear};
use crate::ops::{OpError, float_tensor, float_values};

const PREFIX: &str = "sem_seg_head.predictor.lang_encoder";
/// The text encoder's own layer norm.
const EPSILON: f32 = 1e-12;
/// Tokens of one pass through the transformer.
const PASS_TOKENS: usize = 2048;

#[derive(Clone, Debug)]
struct ResidualAttentionBlock {
    ln_1: Norm,
    attn: MultiheadAttention,
    ln_2: Norm,
    mlp: FeedForward,
}

impl ResidualAttentionBlock {
    fn forward(&self, x: Tensor<3>) -> Result<Tensor<3>, OpError> {
        let normed = self.ln_1.layer(x.clone())?;
        let x = x + self.attn.forward(normed.clone(), normed.clone(), normed, Mask::Causal)?;
        let hidden = self.mlp.forward(self.ln_2.layer(x.clone())?)?;
        Ok(x + hidden)
    }
}

/// The text encoder `sem_seg_head.predictor.lang_encoder.*`.
#[derive(Clone, Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    /// `[vocabulary, width]`, on the host: a prompt needs a dozen rows of it.
    token_embedding: Vec<f32>,
    /// `[context, width]`, on the host.
    positional_embedding: Vec<f32>,
    resblocks: Vec<ResidualAttentionBlock>,
    ln_final: Norm,
    lang_proj: PackedWeight,
    logit_scale: f32,
    width: usize,
    device: Device,
}

impl TextEncoder {
    pub(crate) fn load(loader: &mut Loader<'_>, config: &XDecoderConfig, device: &Device) -> Result<Self, ModelError> {
        let t = &config.text;
        let width = t.width;
        let prefix = format!("{PREFIX}.lang_encoder");
        let resblocks = (0..t.layers).map(|i| {
            let prefix = format!("{prefix}.resblocks.{i}");
            Ok(ResidualAttentionBlock {
                ln_1: loader.norm(&format!("{prefix}.ln_1"), width, EPSILON)?,
                attn: MultiheadAttention::load(loader, &format!("{prefix}.attn"), width, t.heads)?,
                ln_2: loader.norm(&format!("{prefix}.ln_2"), width, EPSILON)?,
                mlp: FeedForward {
                    first: loader.linear(&format!("{prefix}.mlp.c_fc"), width, 4 * width)?,
                    second: loader.linear(&format!("{prefix}.mlp.c_proj"), 4 * width, width)?,
                    activation: Activation::QuickGelu,
                },
            })
        });
        let resblocks = resblocks.collect::<Result<_, ModelError>>()?;
        let logit_scale = loader.values(&format!("{PREFIX}.logit_scale"), &[])?;
        Ok(Self {
            tokenizer: Tokenizer::with_context_length(t.context_length),
            token_embedding: loader.values(&format!("{prefix}.token_embedding.weight"), &[t.vocab_size, width])?,
            positional_embedding: loader
                .values(&format!("{prefix}.positional_embedding"), &[t.context_length, width])?,
            resblocks,
            ln_final: loader.norm(&format!("{prefix}.ln_final"), width, EPSILON)?,
            lang_proj: projection(loader, &format!("{PREFIX}.lang_proj"), width, config.dim_proj)?,
            logit_scale: logit_scale.first().map_or(1.0, |scale| scale.exp()),
            width,
            device: device.clone(),
        })
    }

    /// The factor of cosines between classes and text: exp of the learned scale.
    #[must_use]
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// Embeds what to look for. Each label is the object's own word; it is wrapped and put into the prompts as
    /// GeoPurify does, and the background joins as the last row.
    ///
    /// # Errors
    /// [`OpError`] where the device fails.
    pub fn embed_words(&self, words: &[String]) -> Result<TextEmbeddings, OpError> {
        let labels: Vec<String> = words.iter().map(|word| scene_label(word)).chain([BACKGROUND.to_owned()]).collect();
        Ok(TextEmbeddings { labels: words.to_vec(), rows: self.embed_labels(&labels)?, logit_scale: self.logit_scale })
    }

    /// One embedding of unit length per label, `[labels, dim_proj]`: the mean of those of its 81 prompts.
    ///
    /// # Errors
    /// [`OpError`] where a layer fails on the device.
    pub fn embed_labels(&self, labels: &[String]) -> Result<Tensor<2>, OpError> {
        let texts: Vec<String> = labels.iter().flat_map(|label| prompts(label)).collect();
        let embeddings = float_values(self.embed_prompts(&texts, &mut |_, _| ())?)?;
        let dim = self.lang_proj.num_out();
        let mut rows = Vec::with_capacity(labels.len() * dim);
        for prompts_of_label in embeddings.chunks_exact(TEMPLATES.len() * dim) {
            let mut mean = vec![0.0f64; dim];
            for embedding in prompts_of_label.chunks_exact(dim) {
                mean.iter_mut().zip(embedding).for_each(|(mean, x)| *mean += f64::from(*x) / TEMPLATES.len() as f64);
            }
            let norm = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
            rows.extend(mean.iter().map(|x| (x / norm) as f32));
        }
        Ok(float_tensor(rows, [labels.len(), dim], &self.device))
    }

    /// One embedding of unit length per text, `[texts, dim_proj]`. Texts of the same number of tokens go through
    /// the transformer together, so that none is filled up. `observe` sees `block{i}` and `hidden` (before and
    /// behind the final norm), `[texts, tokens, width]`, of every such group.
    ///
    /// # Errors
    /// [`OpError`] where a layer fails on the device.
    pub fn embed_prompts(
        &self,
        texts: &[String],
        observe: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Result<Tensor<2>, OpError> {
        let mut by_length: BTreeMap<usize, Vec<(usize, Vec<u32>)>> = BTreeMap::new();
        for (i, text) in texts.iter().enumerate() {
            let mut tokens = self.tokenizer.encode(text);
            // The reference reads the first end of text; what follows cannot change it.
            tokens.truncate(tokens.iter().position(|&token| token == EOS).map_or(tokens.len(), |end| end + 1));
            by_length.entry(tokens.len()).or_default().push((i, tokens));
        }
        let dim = self.lang_proj.num_out();
        let mut parts = Vec::new();
        let mut part_from_text = vec![0; texts.len()];
        for (length, group) in by_length {
            for group in group.chunks((PASS_TOKENS / length).max(1)) {
                for (text, _) in group {
                    part_from_text[*text] = parts.len() / dim;
                    parts.resize(parts.len() + dim, 0.0);
                }
                let embedded = float_values(self.embed_tokens(group, length, observe)?)?;
                let first = parts.len() - embedded.len();
                parts[first..].copy_from_slice(&embedded);
            }
        }
        let rows = part_from_text.iter().flat_map(|&part| &parts[part * dim..(part + 1) * dim]).copied().collect();
        Ok(float_tensor(rows, [texts.len(), dim], &self.device))
    }

    /// Texts of `length` tokens each.
    fn embed_tokens(
        &self,
        group: &[(usize, Vec<u32>)],
        length: usize,
        observe: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Result<Tensor<2>, OpError> {
        let width = self.width;
        let mut values = Vec::with_capacity(group.len() * length * width);
        for (_, tokens) in group {
            for (&token, position) in tokens.iter().zip(self.positional_embedding.chunks_exact(width)) {
                let at = token as usize * width;
                let embedding = self.token_embedding.get(at..at + width).ok_or_else(|| OpError::Value {
                    op: "text_encoder",
                    message: format!("token {token}, the vocabulary has {}", self.token_embedding.len() / width),
                })?;
                values.extend(embedding.iter().zip(position).map(|(x, position)| x + position));
            }
        }
        let mut x: Tensor<3> = float_tensor(values, [group.len(), length, width], &self.device);
        for (i, block) in self.resblocks.iter().enumerate() {
            x = block.forward(x)?;
            observe(&format!("block{i}"), &x);
        }
        let hidden = self.ln_final.layer(x)?;
        observe("hidden", &hidden);
        let last = hidden.slice([0..group.len(), length - 1..length, 0..width]).reshape([group.len(), width]);
        Ok(unit_rows(linear(last, &self.lang_proj, Activation::None)?))
    }
}
