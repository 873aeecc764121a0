use serde::{Deserialize, Serialize};

use crate::models::clip::{ClipTextConfig, Names};
use crate::models::keys::Keys;
use crate::ops::attention::MAX_HEAD_DIM;

/// Largest number of channels, of layers, and of positions along a side: far above any real model.
const MAX_WIDTH: usize = 1 << 14;
const MAX_LAYERS: usize = 128;
const MAX_SIDE: usize = 1 << 10;
/// Number of taps, and of the maps made of them.
pub(crate) const LEVELS: usize = 4;
/// How often the maps of the first two levels are finer than the patches.
pub(crate) const FINER: [usize; 2] = [4, 2];
/// Channels of a head in every published ViT.
const HEAD_DIM: usize = 64;

/// Where the parts of the network are in a checkpoint.
pub(crate) const VIT: &str = "net.pretrained.model";
pub(crate) const POSTPROCESS: &str = "net.pretrained.act_postprocess";
pub(crate) const SCRATCH: &str = "net.scratch";
pub(crate) const CLIP: &str = "net.clip_pretrained.";

/// Configuration of the vision transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VitConfig {
    /// Pixels along a side of a patch.
    pub patch_size: usize,
    /// Channels of a token.
    pub embed_dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden channels of a block's MLP, as a multiple of its channels.
    pub mlp_ratio: f64,
    /// Rows and columns of the learned positions.
    pub pos_grid: [usize; 2],
    /// Blocks whose outputs are used, from 0.
    pub hooks: [usize; LEVELS],
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f32,
}

/// Configuration of the maps that are made of the taps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReassembleConfig {
    /// What becomes of the class token. Must be `project`: it is joined to every other token.
    pub readout: String,
    /// Channels of the maps, finest first.
    pub channels: [usize; LEVELS],
}

/// Configuration of the decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DptConfig {
    /// Channels.
    pub features: usize,
    /// True if batch norms follow the convolutions of the residual units.
    pub use_bn: bool,
    /// Epsilon of the batch norms.
    pub bn_eps: f32,
}

/// Configuration of an LSeg: widths and depths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LSegConfig {
    /// Vision transformer.
    pub vit: VitConfig,
    /// Maps made of its taps.
    pub reassemble: ReassembleConfig,
    /// Decoder.
    pub dpt: DptConfig,
    /// Text side.
    pub text: ClipTextConfig,
    /// Channels of a pixel's features, and of a text's.
    pub out_channels: usize,
    /// Height and width of an image are multiples of this.
    pub size_divisibility: usize,
}

/// Error for a configuration that this implementation does not support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("LSeg configuration: {field} is {found}, expected {expected}")]
pub struct ConfigError {
    /// Path of the entry.
    pub field: &'static str,
    /// Its value.
    pub found: String,
    /// Supported values.
    pub expected: String,
}

impl LSegConfig {
    /// Keys of the checkpoint that features do not need, with the reason. Each is a pattern for
    /// [`key_matches`](crate::weights::key_matches).
    pub const UNUSED: &[(&str, &str)] = &[
        ("net.pretrained.model.norm.*", "its result is dropped"),
        ("net.pretrained.model.head.*", "classes of ImageNet"),
        ("net.scratch.refinenet4.resConfUnit1.*", "the coarsest map has none before it to be added to"),
        ("net.clip_pretrained.visual.*", "CLIP's image side"),
        ("net.clip_pretrained.logit_scale", "CLIP's own scale of cosines, which LSeg replaces by a constant"),
        ("num_batches_tracked", "training statistics"),
    ];

    /// Returns the configuration of the published demo model: ViT-L/16, 512-d features, CLIP ViT-B/32's text
    /// side.
    #[must_use]
    pub fn published() -> Self {
        Self {
            vit: VitConfig {
                patch_size: 16,
                embed_dim: 1024,
                depth: 24,
                heads: 16,
                mlp_ratio: 4.0,
                pos_grid: [24, 24],
                hooks: [5, 11, 17, 23],
                layer_norm_eps: 1e-6,
            },
            reassemble: ReassembleConfig { readout: "project".to_owned(), channels: [256, 512, 1024, 1024] },
            dpt: DptConfig { features: 256, use_bn: true, bn_eps: 1e-5 },
            text: ClipTextConfig::vit_b32(),
            out_channels: 512,
            size_divisibility: 32,
        }
    }

    /// Returns true if the shapes are those of an LSeg, of any size.
    #[must_use]
    pub fn recognises(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> bool {
        ["net.pretrained.model.cls_token", "net.scratch.head1.weight", "net.clip_pretrained.text_projection"]
            .iter()
            .all(|key| shape(key).is_some())
    }

    /// Returns true if the shapes are those of an LSeg without CLIP's text side.
    #[must_use]
    pub fn lacks_text(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> bool {
        let has = |key: &str| shape(key).is_some();
        has("net.pretrained.model.cls_token")
            && has("net.scratch.head1.weight")
            && !has("net.clip_pretrained.text_projection")
    }

    /// Derives the configuration from the shapes of a checkpoint. Shapes do not show which blocks are tapped, nor
    /// the heads: returns `None` if it is not an LSeg, or if the number of blocks or their width is not that of
    /// the published model.
    #[must_use]
    pub fn of(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let dim = |key: &str, axis: usize| shape(key)?.get(axis).copied();
        let published = Self::published();
        let embed_dim = dim(&format!("{VIT}.cls_token"), 2)?;
        let block = |i: usize| format!("{VIT}.blocks.{i}.norm1.weight");
        let depth = (0..MAX_LAYERS).take_while(|&i| shape(&block(i)).is_some()).count();
        if depth != published.vit.depth || !embed_dim.is_multiple_of(HEAD_DIM) {
            return None;
        }
        let positions = dim(&format!("{VIT}.pos_embed"), 1)?.checked_sub(1)?;
        let side = positions.isqrt();
        let mut channels = [0; LEVELS];
        for (level, channels) in channels.iter_mut().enumerate() {
            *channels = dim(&format!("{POSTPROCESS}{}.3.weight", level + 1), 0)?;
        }
        let hidden = dim(&format!("{VIT}.blocks.0.mlp.fc1.weight"), 0)?;
        Some(Self {
            vit: VitConfig {
                patch_size: dim(&format!("{VIT}.patch_embed.proj.weight"), 2)?,
                embed_dim,
                heads: embed_dim / HEAD_DIM,
                mlp_ratio: hidden as f64 / embed_dim as f64,
                pos_grid: [side, side],
                ..published.vit
            },
            reassemble: ReassembleConfig { channels, ..published.reassemble },
            dpt: DptConfig { features: dim(&format!("{SCRATCH}.layer1_rn.weight"), 0)?, ..published.dpt },
            text: ClipTextConfig::below(CLIP, shape)?,
            out_channels: dim(&format!("{SCRATCH}.head1.weight"), 0)?,
            size_divisibility: published.size_divisibility,
        })
    }

    /// Checks that this implementation supports the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] with the first entry that is not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |holds: bool, field, found: String, expected: &str| match holds {
            true => Ok(()),
            false => Err(ConfigError { field, found, expected: expected.to_owned() }),
        };
        let (vit, channels) = (&self.vit, self.reassemble.channels);
        for (field, found, largest) in [
            ("vit.patch_size", vit.patch_size, 64),
            ("vit.embed_dim", vit.embed_dim, MAX_WIDTH),
            ("vit.depth", vit.depth, MAX_LAYERS),
            ("vit.pos_grid", vit.pos_grid[0], MAX_SIDE),
            ("vit.pos_grid", vit.pos_grid[1], MAX_SIDE),
            ("reassemble.channels", channels.iter().copied().min().unwrap_or(0), MAX_WIDTH),
            ("reassemble.channels", channels.iter().copied().max().unwrap_or(0), MAX_WIDTH),
            ("dpt.features", self.dpt.features, MAX_WIDTH),
            ("out_channels", self.out_channels, MAX_WIDTH),
        ] {
            let expected = format!("1 to {largest}");
            check((1..=largest).contains(&found), field, found.to_string(), &expected)?;
        }
        let (heads, width) = (vit.heads, vit.embed_dim);
        let fits = heads > 0 && width.is_multiple_of(heads) && width / heads <= MAX_HEAD_DIM;
        let expected = format!("a divisor of {width} that leaves heads of at most {MAX_HEAD_DIM}");
        check(fits, "vit.heads", heads.to_string(), &expected)?;
        let ratio = vit.mlp_ratio;
        let fits = ratio * width as f64 >= 1.0 && ratio <= 64.0;
        check(fits, "vit.mlp_ratio", ratio.to_string(), "1 / embed_dim to 64")?;
        let ascending = vit.hooks.windows(2).all(|pair| pair[0] < pair[1]) && vit.hooks[LEVELS - 1] < vit.depth;
        check(ascending, "vit.hooks", format!("{:?}", vit.hooks), "four blocks, ascending")?;
        for (field, found) in [("vit.layer_norm_eps", vit.layer_norm_eps), ("dpt.bn_eps", self.dpt.bn_eps)] {
            check((0.0..1.0).contains(&found), field, found.to_string(), "0 to 1")?;
        }
        let readout = &self.reassemble.readout;
        check(readout == "project", "reassemble.readout", readout.clone(), "project")?;
        check(self.dpt.use_bn, "dpt.use_bn", self.dpt.use_bn.to_string(), "true")?;
        // The coarsest map has half as many rows and columns as there are patches.
        let (divisor, expected) = (self.size_divisibility, 2 * vit.patch_size);
        check(divisor == expected, "size_divisibility", divisor.to_string(), &expected.to_string())?;
        let dim = self.text.embed_dim;
        check(dim == self.out_channels, "text.embed_dim", dim.to_string(), "out_channels")?;
        let text = |error: crate::models::clip::ConfigError| ConfigError {
            field: "text",
            found: format!("{} {}", error.field, error.found),
            expected: error.expected,
        };
        self.text.validate().map_err(text)
    }

    /// Returns the number of hidden channels of a block's MLP.
    #[must_use]
    pub fn hidden(&self) -> usize {
        (self.vit.embed_dim as f64 * self.vit.mlp_ratio) as usize
    }

    /// Returns where the text side's tensors are.
    pub(crate) fn text_names() -> Names {
        Names::of_clip(CLIP)
    }

    /// Returns every key that features of pixels and texts need, with its shape.
    #[must_use]
    pub fn keys(&self) -> Vec<(String, Vec<usize>)> {
        let mut keys = Keys::default();
        self.vit_keys(&mut keys);
        self.reassemble_keys(&mut keys);
        self.decoder_keys(&mut keys);
        self.text.add_keys(&Self::text_names(), &mut keys);
        keys.0
    }

    fn vit_keys(&self, keys: &mut Keys) {
        let VitConfig { patch_size, embed_dim: dim, depth, pos_grid, .. } = self.vit;
        keys.add(format!("{VIT}.cls_token"), &[1, 1, dim]);
        keys.add(format!("{VIT}.pos_embed"), &[1, pos_grid[0] * pos_grid[1] + 1, dim]);
        keys.add(format!("{VIT}.patch_embed.proj.weight"), &[dim, 3, patch_size, patch_size]);
        keys.add(format!("{VIT}.patch_embed.proj.bias"), &[dim]);
        for block in 0..depth {
            let prefix = format!("{VIT}.blocks.{block}");
            keys.affine(&format!("{prefix}.norm1"), dim);
            keys.linear(&format!("{prefix}.attn.qkv"), dim, 3 * dim);
            keys.linear(&format!("{prefix}.attn.proj"), dim, dim);
            keys.affine(&format!("{prefix}.norm2"), dim);
            keys.linear(&format!("{prefix}.mlp.fc1"), dim, self.hidden());
            keys.linear(&format!("{prefix}.mlp.fc2"), self.hidden(), dim);
        }
    }

    fn reassemble_keys(&self, keys: &mut Keys) {
        let dim = self.vit.embed_dim;
        for (level, channels) in self.reassemble.channels.into_iter().enumerate() {
            let prefix = format!("{POSTPROCESS}{}", level + 1);
            keys.linear(&format!("{prefix}.0.project.0"), 2 * dim, dim);
            keys.add(format!("{prefix}.3.weight"), &[channels, dim, 1, 1]);
            keys.add(format!("{prefix}.3.bias"), &[channels]);
            let kernel = match level {
                2 => continue,
                3 => 3,
                _ => FINER[level],
            };
            keys.add(format!("{prefix}.4.weight"), &[channels, channels, kernel, kernel]);
            keys.add(format!("{prefix}.4.bias"), &[channels]);
        }
    }

    fn decoder_keys(&self, keys: &mut Keys) {
        let dim = self.dpt.features;
        for (level, channels) in self.reassemble.channels.into_iter().enumerate() {
            keys.add(format!("{SCRATCH}.layer{}_rn.weight", level + 1), &[dim, channels, 3, 3]);
        }
        for level in 1..=LEVELS {
            let prefix = format!("{SCRATCH}.refinenet{level}");
            keys.add(format!("{prefix}.out_conv.weight"), &[dim, dim, 1, 1]);
            keys.add(format!("{prefix}.out_conv.bias"), &[dim]);
            // The first unit of the coarsest level has no map to be added to.
            for unit in if level == LEVELS { 2..=2 } else { 1..=2 } {
                for part in 1..=2 {
                    let prefix = format!("{prefix}.resConfUnit{unit}");
                    keys.add(format!("{prefix}.conv{part}.weight"), &[dim, dim, 3, 3]);
                    keys.affine(&format!("{prefix}.bn{part}"), dim);
                    keys.add(format!("{prefix}.bn{part}.running_mean"), &[dim]);
                    keys.add(format!("{prefix}.bn{part}.running_var"), &[dim]);
                }
            }
        }
        keys.add(format!("{SCRATCH}.head1.weight"), &[self.out_channels, dim, 1, 1]);
        keys.add(format!("{SCRATCH}.head1.bias"), &[self.out_channels]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_shapes_tell_the_published_configuration() {
        let config = LSegConfig::published();
        config.validate().unwrap();
        let keys = config.keys();
        let shape = |key: &str| keys.iter().find(|(k, _)| k == key).map(|(_, shape)| shape.clone());
        assert!(LSegConfig::recognises(&shape) && !LSegConfig::lacks_text(&shape));
        assert!(LSegConfig::lacks_text(&|key| shape(key).filter(|_| !key.starts_with(CLIP))));
        assert!(!ClipTextConfig::recognises(&shape));
        assert_eq!(LSegConfig::of(&shape), Some(config));
        assert_eq!(LSegConfig::of(&|_| None), None);
    }

    #[test]
    fn the_published_model_has_as_many_parameters() {
        let count = |part: &str| -> usize {
            let keys = LSegConfig::published().keys();
            keys.iter().filter(|(key, _)| key.starts_with(part)).map(|(_, shape)| shape.iter().product::<usize>()).sum()
        };
        assert_eq!(count(CLIP), 63_428_096);
        assert_eq!(count("net.pretrained.model"), 303_688_704);
        assert_eq!(count(""), 405_086_720);
    }

    #[test]
    fn what_does_not_run_is_named() {
        let mut config = LSegConfig::published();
        config.vit.hooks = [5, 11, 17, 24];
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "LSeg configuration: vit.hooks is [5, 11, 17, 24], expected four blocks, ascending"
        );
        let edits: [fn(&mut LSegConfig); 9] = [
            |c| c.vit.embed_dim = usize::MAX,
            |c| c.vit.depth = 1 << 20,
            |c| c.vit.heads = 7,
            |c| c.vit.mlp_ratio = f64::NAN,
            |c| c.vit.pos_grid = [0, 3],
            |c| c.reassemble.channels[2] = 0,
            |c| c.dpt.use_bn = false,
            |c| c.size_divisibility = 16,
            |c| c.text.heads = 5,
        ];
        for edit in edits {
            let mut config = LSegConfig::published();
            edit(&mut config);
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
