//! The causal transformer that CLIP and X-Decoder read texts with.

use std::collections::BTreeMap;

use burn::prelude::*;

use super::config::{ClipTextConfig, Names};
use super::tokenizer::{EOS, Tokenizer};
use crate::models::ModelError;
use crate::models::layers::{FeedForward, Loader, MultiheadAttention, Norm, Values};
use crate::ops::attention::Mask;
use crate::ops::conv2d::{Activation, PackedWeight, linear};
use crate::ops::{OpError, float_tensor, float_values, int_tensor};

/// Number of tokens in one pass through the transformer.
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

/// Index of a text, and its tokens.
type Tokens = (usize, Vec<u32>);

/// Tokens, layers and projection of a text side.
#[derive(Clone, Debug)]
pub(crate) struct TextTransformer {
    tokenizer: Tokenizer,
    /// `[vocabulary, width]` token embeddings. Frozen ones stay on the host, because a prompt needs only a
    /// dozen rows.
    token_embedding: Values<'static>,
    /// `[context, width]` position embeddings.
    positional_embedding: Values<'static>,
    resblocks: Vec<ResidualAttentionBlock>,
    ln_final: Norm,
    projection: PackedWeight,
    width: usize,
    vocab_size: usize,
    device: Device,
}

impl TextTransformer {
    /// Loads the tensors from where `names` says.
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        config: &ClipTextConfig,
        names: &Names,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let &ClipTextConfig { width, heads, layers, context_length, vocab_size, embed_dim, layer_norm_eps } = config;
        let root = &names.root;
        let resblocks = (0..layers).map(|i| {
            let prefix = format!("{}{i}", names.layers);
            Ok(ResidualAttentionBlock {
                ln_1: loader.norm(&format!("{prefix}.ln_1"), width, layer_norm_eps)?,
                attn: MultiheadAttention::load(loader, &format!("{prefix}.attn"), width, heads)?,
                ln_2: loader.norm(&format!("{prefix}.ln_2"), width, layer_norm_eps)?,
                mlp: FeedForward {
                    first: loader.linear(&format!("{prefix}.mlp.c_fc"), width, 4 * width)?,
                    second: loader.linear(&format!("{prefix}.mlp.c_proj"), 4 * width, width)?,
                    activation: Activation::QuickGelu,
                },
            })
        });
        let resblocks = resblocks.collect::<Result<_, ModelError>>()?;
        Ok(Self {
            tokenizer: Tokenizer::with_context_length(context_length),
            token_embedding: loader.values(&format!("{root}token_embedding.weight"), &[vocab_size, width])?,
            positional_embedding: loader.values(&format!("{root}positional_embedding"), &[context_length, width])?,
            resblocks,
            ln_final: loader.norm(&format!("{root}ln_final"), width, layer_norm_eps)?,
            projection: loader.projection(&names.projection, width, embed_dim)?,
            width,
            vocab_size,
            device: device.clone(),
        })
    }

    /// Returns the number of channels of an embedding.
    pub(crate) fn embed_dim(&self) -> usize {
        self.projection.num_out()
    }

    /// Returns the device of the weights.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the words that have a token with a row of zeros in the vocabulary. In training no word is
    /// unknown.
    pub(crate) fn unknown_words<'a>(&self, words: &'a [String]) -> Vec<&'a str> {
        let Values::Host(rows) = &self.token_embedding else {
            return Vec::new();
        };
        let is_unknown = |&token: &u32| {
            let at = token as usize * self.width;
            rows.get(at..at + self.width).is_none_or(|row| row.iter().all(|&x| x == 0.0))
        };
        let unknown = |word: &&String| {
            let tokens = self.tokenizer.encode(word);
            tokens[1..tokens.len() - 1].iter().any(is_unknown)
        };
        words.iter().filter(unknown).map(String::as_str).collect()
    }

    /// Returns the projected row of the first end-of-text token of every text, `[texts, embed_dim]`. Texts with
    /// the same number of tokens are encoded together, so that none is padded. For each such group `observe`
    /// receives `block{i}` and `hidden` (before and after the final norm), `[texts, tokens, width]`.
    pub(crate) fn embed(
        &self,
        texts: &[String],
        observe: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Result<Tensor<2>, OpError> {
        let dim = self.embed_dim();
        let mut parts = Vec::new();
        let mut part_from_text = vec![0; texts.len()];
        for (length, group) in self.by_length(texts)? {
            for group in group.chunks((PASS_TOKENS / length).max(1)) {
                for (text, _) in group {
                    part_from_text[*text] = parts.len() / dim;
                    parts.resize(parts.len() + dim, 0.0);
                }
                let tokens: Vec<u32> = group.iter().flat_map(|(_, tokens)| tokens).copied().collect();
                let rows = self.token_rows(&tokens).reshape([group.len(), length, self.width]);
                let embedded = float_values(self.encode(rows + self.positions(length), observe)?)?;
                let first = parts.len() - embedded.len();
                parts[first..].copy_from_slice(&embedded);
            }
        }
        let rows = part_from_text.iter().flat_map(|&part| &parts[part * dim..(part + 1) * dim]).copied().collect();
        Ok(float_tensor(rows, [texts.len(), dim], &self.device))
    }

    /// Does the same as [`embed`](Self::embed), with gradients to the parameters.
    pub(crate) fn embed_tracked(&self, texts: &[String]) -> Result<Tensor<2>, OpError> {
        if texts.is_empty() {
            return Ok(Tensor::zeros([0, self.embed_dim()], &self.device));
        }
        let by_length = self.by_length(texts)?;
        let tokens: Vec<u32> = by_length.values().flatten().flat_map(|(_, tokens)| tokens).copied().collect();
        // All rows at once, because the gradient of a selection is as large as the whole vocabulary.
        let rows = self.token_rows(&tokens);
        let (mut parts, mut part_from_text) = (Vec::new(), vec![0; texts.len()]);
        let (mut num_texts, mut num_tokens) = (0, 0);
        for (length, group) in by_length {
            for group in group.chunks((PASS_TOKENS / length).max(1)) {
                for (text, _) in group {
                    part_from_text[*text] = num_texts;
                    num_texts += 1;
                }
                let end = num_tokens + group.len() * length;
                let rows = rows.clone().slice(num_tokens..end).reshape([group.len(), length, self.width]);
                num_tokens = end;
                parts.push(self.encode(rows + self.positions(length), &mut |_, _| ())?);
            }
        }
        let part_from_text = int_tensor(part_from_text, [texts.len()], &self.device);
        Ok(Tensor::cat(parts, 0).select(0, part_from_text))
    }

    /// Groups the texts by their number of tokens. Returns index and tokens of each.
    fn by_length(&self, texts: &[String]) -> Result<BTreeMap<usize, Vec<Tokens>>, OpError> {
        let mut by_length: BTreeMap<usize, Vec<Tokens>> = BTreeMap::new();
        for (i, text) in texts.iter().enumerate() {
            let mut tokens = self.tokenizer.encode(text);
            // The reference reads the first end-of-text token, which has the largest id. Later tokens cannot
            // change it.
            tokens.truncate(tokens.iter().position(|&token| token == EOS).map_or(tokens.len(), |end| end + 1));
            if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
                let message = format!("token {token}, the vocabulary has {}", self.vocab_size);
                return Err(OpError::Value { op: "text_encoder", message });
            }
            by_length.entry(tokens.len()).or_default().push((i, tokens));
        }
        Ok(by_length)
    }

    /// Returns the embeddings of tokens, `[tokens, width]`.
    fn token_rows(&self, tokens: &[u32]) -> Tensor<2> {
        let width = self.width;
        match &self.token_embedding {
            Values::Host(values) => {
                let row = |&token: &u32| &values[token as usize * width..(token as usize + 1) * width];
                let rows = tokens.iter().flat_map(row).copied().collect();
                float_tensor(rows, [tokens.len(), width], &self.device)
            }
            Values::Parameter(values) => {
                let rows = tokens.iter().map(|&token| token as i32).collect();
                let rows = int_tensor(rows, [tokens.len()], &self.device);
                values.clone().reshape([self.vocab_size, width]).select(0, rows)
            }
        }
    }

    /// Returns the position embeddings `[1, length, width]`.
    fn positions(&self, length: usize) -> Tensor<3> {
        self.positional_embedding.part(0..length * self.width).into_tensor([1, length, self.width], &self.device)
    }

    /// Encodes token embeddings `[texts, tokens, width]` to one projected row per text.
    fn encode(&self, rows: Tensor<3>, observe: &mut dyn FnMut(&str, &Tensor<3>)) -> Result<Tensor<2>, OpError> {
        let [num_texts, length, width] = rows.dims();
        let mut x = rows;
        for (i, block) in self.resblocks.iter().enumerate() {
            x = block.forward(x)?;
            observe(&format!("block{i}"), &x);
        }
        let hidden = self.ln_final.layer(x)?;
        observe("hidden", &hidden);
        let last = hidden.slice([0..num_texts, length - 1..length, 0..width]).reshape([num_texts, width]);
        linear(last, &self.projection, Activation::None)
    }
}
