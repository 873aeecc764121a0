use serde::{Deserialize, Serialize};

use super::tokenizer::{CONTEXT_LENGTH, VOCABULARY};
use crate::models::keys::Keys;
use crate::ops::attention::MAX_HEAD_DIM;

/// Epsilon of CLIP's layer norms.
const EPSILON: f32 = 1e-5;
/// Channels of a head in every published model.
const HEAD_DIM: usize = 64;
/// Largest number of channels, of layers, of tokens of a text and of the vocabulary: far above any real model.
const MAX_WIDTH: usize = 1 << 16;
const MAX_LAYERS: usize = 128;
const MAX_CONTEXT: usize = 4096;
const MAX_VOCABULARY: usize = 1 << 20;

/// Configuration of CLIP's text side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipTextConfig {
    /// Channels.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Layers.
    pub layers: usize,
    /// Largest number of tokens of a text.
    pub context_length: usize,
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Channels of an embedding.
    pub embed_dim: usize,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f32,
}

/// Error for a configuration that this implementation does not support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CLIP configuration: {field} is {found}, expected {expected}")]
pub struct ConfigError {
    /// Name of the entry.
    pub field: &'static str,
    /// Its value.
    pub found: String,
    /// Supported values.
    pub expected: String,
}

/// Where the tensors of a text side are in a checkpoint.
pub(crate) struct Names {
    /// What stands before `token_embedding`, `positional_embedding` and `ln_final`, with its dot.
    pub(crate) root: String,
    /// What stands before the number of a layer, with its dot.
    pub(crate) layers: String,
    /// Key of the projection.
    pub(crate) projection: String,
}

impl Names {
    /// CLIP's own names below `root`, which ends with a dot or is empty.
    pub(crate) fn of_clip(root: &str) -> Self {
        Self {
            root: root.to_owned(),
            layers: format!("{root}transformer.resblocks."),
            projection: format!("{root}text_projection"),
        }
    }
}

impl ClipTextConfig {
    /// Keys of CLIP's files that the text side does not need, with the reason. Each is a pattern for
    /// [`key_matches`](crate::weights::key_matches).
    pub const UNUSED: &[(&str, &str)] = &[
        ("visual.*", "the image side"),
        ("vision_model.*", "the image side"),
        ("visual_projection.weight", "the image side"),
        ("logit_scale", "the scale of cosines between images and texts"),
        ("input_resolution", "the image side"),
        ("context_length", "known by the shape of the positions"),
        ("vocab_size", "known by the shape of the tokens"),
        ("text_model.embeddings.position_ids", "the numbers 0, 1, 2, ..."),
    ];

    /// Returns the configuration of ViT-B/32's text side: 512 channels.
    #[must_use]
    pub fn vit_b32() -> Self {
        Self::published(512)
    }

    /// Returns the configuration of ViT-L/14's text side, which is also that of ViT-L/14@336px: 768 channels.
    #[must_use]
    pub fn vit_l14() -> Self {
        Self::published(768)
    }

    fn published(width: usize) -> Self {
        Self {
            width,
            heads: width / HEAD_DIM,
            layers: 12,
            context_length: CONTEXT_LENGTH,
            vocab_size: VOCABULARY,
            embed_dim: width,
            layer_norm_eps: EPSILON,
        }
    }

    /// Returns true if the shapes are those of CLIP's text side under OpenAI's names, of any size.
    #[must_use]
    pub fn recognises(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> bool {
        ["token_embedding.weight", "text_projection", "transformer.resblocks.0.attn.in_proj_weight"]
            .iter()
            .all(|key| shape(key).is_some())
    }

    /// Derives the configuration from the shapes of a checkpoint under OpenAI's names. Shapes do not show
    /// heads: they have 64 channels, as in every published model. Returns `None` for other files and widths.
    #[must_use]
    pub fn of(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let config = Self::below("", shape)?;
        config.width.is_multiple_of(HEAD_DIM).then_some(config)
    }

    /// Derives the configuration from the shapes of the tensors below `root`, with heads of 64 channels, or one
    /// head where that leaves a rest.
    pub(crate) fn below(root: &str, shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let names = Names::of_clip(root);
        let dim = |key: &str, axis: usize| shape(key)?.get(axis).copied();
        let tokens = format!("{root}token_embedding.weight");
        let width = dim(&tokens, 1)?;
        let layer = |i: usize| format!("{}{i}.ln_1.weight", names.layers);
        Some(Self {
            width,
            heads: if width.is_multiple_of(HEAD_DIM) { width / HEAD_DIM } else { 1 },
            layers: (0..MAX_LAYERS).take_while(|&i| shape(&layer(i)).is_some()).count(),
            context_length: dim(&format!("{root}positional_embedding"), 0)?,
            vocab_size: dim(&tokens, 0)?,
            embed_dim: dim(&names.projection, 1)?,
            layer_norm_eps: EPSILON,
        })
    }

    /// Checks that this implementation supports the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] with the first entry that is not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, found, least, largest) in [
            ("width", self.width, 1, MAX_WIDTH),
            ("layers", self.layers, 0, MAX_LAYERS),
            ("context_length", self.context_length, 2, MAX_CONTEXT),
            ("vocab_size", self.vocab_size, 1, MAX_VOCABULARY),
            ("embed_dim", self.embed_dim, 1, MAX_WIDTH),
        ] {
            if !(least..=largest).contains(&found) {
                let expected = format!("{least} to {largest}");
                return Err(ConfigError { field, found: found.to_string(), expected });
            }
        }
        let (heads, width) = (self.heads, self.width);
        if heads == 0 || !width.is_multiple_of(heads) || width / heads > MAX_HEAD_DIM {
            let expected = format!("a divisor of {width} that leaves heads of at most {MAX_HEAD_DIM}");
            return Err(ConfigError { field: "heads", found: heads.to_string(), expected });
        }
        if !(0.0..1.0).contains(&self.layer_norm_eps) {
            let (found, expected) = (self.layer_norm_eps.to_string(), "0 to 1".to_owned());
            return Err(ConfigError { field: "layer_norm_eps", found, expected });
        }
        Ok(())
    }

    /// Returns every key that the text side needs, with its shape, under OpenAI's names.
    #[must_use]
    pub fn keys(&self) -> Vec<(String, Vec<usize>)> {
        let mut keys = Keys::default();
        self.add_keys(&Names::of_clip(""), &mut keys);
        keys.0
    }

    /// Adds the keys of the text side under the given names.
    pub(crate) fn add_keys(&self, names: &Names, keys: &mut Keys) {
        let (root, width) = (&names.root, self.width);
        keys.add(names.projection.clone(), &[width, self.embed_dim]);
        keys.add(format!("{root}positional_embedding"), &[self.context_length, width]);
        keys.add(format!("{root}token_embedding.weight"), &[self.vocab_size, width]);
        for layer in 0..self.layers {
            let prefix = format!("{}{layer}", names.layers);
            keys.attention(&format!("{prefix}.attn"), width);
            keys.affine(&format!("{prefix}.ln_1"), width);
            keys.affine(&format!("{prefix}.ln_2"), width);
            keys.linear(&format!("{prefix}.mlp.c_fc"), width, 4 * width);
            keys.linear(&format!("{prefix}.mlp.c_proj"), 4 * width, width);
        }
        keys.affine(&format!("{root}ln_final"), width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_shapes_tell_the_published_configurations() {
        for (config, parameters) in [(ClipTextConfig::vit_b32(), 63_428_096), (ClipTextConfig::vit_l14(), 123_650_304)]
        {
            config.validate().unwrap();
            let keys = config.keys();
            let shape = |key: &str| keys.iter().find(|(k, _)| k == key).map(|(_, shape)| shape.clone());
            assert!(ClipTextConfig::recognises(&shape));
            assert_eq!(ClipTextConfig::of(&shape), Some(config));
            assert_eq!(keys.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), parameters);
        }
        assert_eq!(ClipTextConfig::of(&|_| None), None);
    }

    #[test]
    fn what_does_not_run_is_named() {
        let config = ClipTextConfig { heads: 7, ..ClipTextConfig::vit_b32() };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "CLIP configuration: heads is 7, expected a divisor of 512 that leaves heads of at most 64"
        );
        let edits: [fn(&mut ClipTextConfig); 6] = [
            |c| c.width = 0,
            |c| c.layers = 1 << 20,
            |c| c.context_length = 1,
            |c| c.vocab_size = usize::MAX,
            |c| c.embed_dim = 0,
            |c| c.layer_norm_eps = f32::NAN,
        ];
        for edit in edits {
            let mut config = ClipTextConfig::vit_b32();
            edit(&mut config);
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
