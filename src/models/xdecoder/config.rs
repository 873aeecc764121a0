use serde::{Deserialize, Serialize};

use crate::models::clip::tokenizer::VOCABULARY;
use crate::models::clip::{ClipTextConfig, Names};
use crate::models::keys::Keys;
use crate::ops::attention::MAX_HEAD_DIM;

/// Configuration of the Focal modulation backbone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackboneConfig {
    /// `focal` or `focal_dw`. Blocks of `focal_dw` have a depthwise convolution before the modulation and
    /// before the MLP, and their norms are over the sum of input and branch.
    pub kind: String,
    /// Channels of the first stage. Each further stage has twice as many.
    pub embed_dim: usize,
    /// Blocks per stage.
    pub depths: Vec<usize>,
    /// Number of depthwise convolutions per block, by stage.
    pub focal_levels: Vec<usize>,
    /// Kernel size of the first depthwise convolution, by stage.
    pub focal_windows: Vec<usize>,
    /// Growth of the kernel size from one level to the next.
    pub focal_factor: usize,
    /// Stride of the stem.
    pub patch_size: usize,
    /// Hidden channels of a block's MLP, as a multiple of its channels.
    pub mlp_ratio: f64,
    /// True if a layer norm follows the stem and every downsampling.
    pub patch_norm: bool,
    /// True for overlapping convolutions in the stem and between stages.
    pub use_conv_embed: bool,
    /// True if the modulator is divided by the number of levels, including the global one.
    pub scaling_modulator: bool,
    /// True if norms come after the modulation and the MLP, not before.
    pub use_postln: bool,
    /// True for one more norm inside the modulation.
    pub use_postln_in_modulation: bool,
    /// True for a learned factor per channel on every residual branch.
    pub use_layerscale: bool,
}

/// Backbone kind of the small models.
const FOCAL_DW: &str = "focal_dw";

impl BackboneConfig {
    /// Returns true if blocks have their own depthwise convolutions (kind `focal_dw`).
    #[must_use]
    pub fn has_depthwise(&self) -> bool {
        self.kind == FOCAL_DW
    }
}

/// Configuration of the pixel decoder: a transformer encoder on the coarsest map, then a feature pyramid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PixelDecoderConfig {
    /// Must be `transformer_encoder_fpn`, the only supported kind.
    pub kind: String,
    /// Channels of every map.
    pub conv_dim: usize,
    /// Channels of the mask features.
    pub mask_dim: usize,
    /// `GN`: group norm.
    pub norm: String,
    /// Groups of the group norm.
    pub gn_groups: usize,
    /// Transformer encoder layers.
    pub enc_layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden channels of the feed-forward layers.
    pub ffn_dim: usize,
    /// True if norms come before the layers. Only false (norms after the layers) is supported.
    pub pre_norm: bool,
}

/// Configuration of the transformer decoder of the queries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderConfig {
    /// Channels of the queries.
    pub hidden_dim: usize,
    /// Number of queries, including the class token, which is the last.
    pub num_queries: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden channels of the feed-forward layers.
    pub ffn_dim: usize,
    /// Decoder layers.
    pub layers: usize,
    /// True if norms come before the layers. Only false (norms after the layers) is supported.
    pub pre_norm: bool,
    /// Number of tokens of a caption. Only the unused captioning head depends on it.
    pub context_length: usize,
    /// Channels of class and text embeddings.
    pub dim_proj: usize,
}

/// Configuration of the text transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextConfig {
    /// Channels.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Layers.
    pub layers: usize,
    /// Largest number of tokens of a prompt.
    pub context_length: usize,
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Channels of class and text embeddings.
    pub dim_proj: usize,
    /// True if every token attends only to itself and to earlier tokens.
    pub autoregressive: bool,
}

/// Configuration of an X-Decoder: widths and depths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct XDecoderConfig {
    /// Image backbone.
    pub backbone: BackboneConfig,
    /// Pixel decoder: from feature maps to mask features.
    pub pixel_decoder: PixelDecoderConfig,
    /// Query decoder: from queries to masks and classes.
    pub decoder: DecoderConfig,
    /// Text encoder: from words to embeddings.
    pub text: TextConfig,
    /// Channels of the backbone's last stage.
    pub backbone_dim: usize,
    /// Channels of class and text embeddings.
    pub dim_proj: usize,
    /// Image sizes are padded to a multiple of this.
    pub size_divisibility: usize,
    /// Mean of the channels R, G, B, in 0..255.
    pub pixel_mean: [f32; 3],
    /// Standard deviation of the channels R, G, B, in 0..255.
    pub pixel_std: [f32; 3],
    /// Longer edge of the pictures that the model was trained on. At this size objects have the size it
    /// knows. `None` for the published models, whose users choose the size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_size: Option<u32>,
}

/// Error for a configuration that this implementation does not support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("X-Decoder configuration: {field} is {found}, expected {expected}")]
pub struct ConfigError {
    /// Path of the entry.
    pub field: &'static str,
    /// Its value.
    pub found: String,
    /// Supported values.
    pub expected: String,
}

/// Channels of the transformers in every published variant. They have 8 heads.
const PUBLISHED_WIDTH: usize = 512;
/// Epsilon of the text encoder's own layer norm.
const TEXT_EPSILON: f32 = 1e-12;
/// Largest number of channels of any layer.
const MAX_WIDTH: usize = 1 << 16;
/// Largest number of layers of any kind, per stage.
const MAX_LAYERS: usize = 128;

const BACKBONE: &str = "backbone";
const PIXEL_DECODER: &str = "sem_seg_head.pixel_decoder";
const PREDICTOR: &str = "sem_seg_head.predictor";

impl XDecoderConfig {
    /// Key of the learned scale of cosines.
    pub(super) const LOGIT_SCALE: &str = "sem_seg_head.predictor.lang_encoder.logit_scale";

    /// Keys of the checkpoint that inference does not need, with the reason. Each is a pattern for
    /// [`match_keys`](crate::weights::match_keys).
    pub const UNUSED: &[(&str, &str)] = &[
        ("backbone_proj", "image-text retrieval"),
        ("sem_seg_head.predictor.caping_embed", "captioning"),
        ("sem_seg_head.predictor.pos_embed_caping.weight", "captioning"),
        ("criterion.*", "training loss"),
        ("sem_seg_head.predictor.self_attn_mask", "rebuilt from the number of queries"),
    ];

    /// Returns the configuration of the published large model: Focal-L, 201 queries, 512-d embeddings.
    #[must_use]
    pub fn focal_l() -> Self {
        Self::focal("focal", 192, vec![2, 2, 18, 2], 4, 201)
    }

    /// Returns the configuration of the published small model: Focal-T with depthwise convolutions, 101
    /// queries, 512-d embeddings.
    #[must_use]
    pub fn focal_t() -> Self {
        Self::focal(FOCAL_DW, 96, vec![2, 2, 6, 2], 3, 101)
    }

    /// Returns the configuration of a model for pictures of about 200 pixels, which two CPU cores train
    /// within hours. Its three decoder layers use each of the three maps once. It has 40 queries and the
    /// class token, three times the number of objects in a view of a room.
    #[must_use]
    pub fn small() -> Self {
        const EMBED_DIM: usize = 32;
        const DIM: usize = 64;
        let large = Self::focal_l();
        Self {
            backbone: BackboneConfig {
                embed_dim: EMBED_DIM,
                depths: vec![1, 1, 3, 1],
                focal_levels: vec![3; 4],
                mlp_ratio: 3.0,
                ..large.backbone
            },
            pixel_decoder: PixelDecoderConfig {
                conv_dim: DIM,
                mask_dim: DIM,
                gn_groups: 8,
                enc_layers: 1,
                heads: 4,
                ffn_dim: 4 * DIM,
                ..large.pixel_decoder
            },
            decoder: DecoderConfig {
                hidden_dim: DIM,
                num_queries: 41,
                heads: 4,
                ffn_dim: 4 * DIM,
                layers: 3,
                dim_proj: DIM,
                ..large.decoder
            },
            text: TextConfig { width: 32, heads: 2, layers: 2, dim_proj: DIM, ..large.text },
            backbone_dim: EMBED_DIM << 3,
            dim_proj: DIM,
            image_size: Some(192),
            ..large
        }
    }

    fn focal(kind: &str, embed_dim: usize, depths: Vec<usize>, levels: usize, num_queries: usize) -> Self {
        let stages = depths.len();
        Self {
            backbone: BackboneConfig {
                kind: kind.to_owned(),
                embed_dim,
                depths,
                focal_levels: vec![levels; stages],
                focal_windows: vec![3; stages],
                focal_factor: 2,
                patch_size: 4,
                mlp_ratio: 4.0,
                patch_norm: true,
                use_conv_embed: true,
                scaling_modulator: true,
                use_postln: true,
                use_postln_in_modulation: false,
                use_layerscale: true,
            },
            pixel_decoder: PixelDecoderConfig {
                kind: "transformer_encoder_fpn".to_owned(),
                conv_dim: 512,
                mask_dim: 512,
                norm: "GN".to_owned(),
                gn_groups: 32,
                enc_layers: 6,
                heads: 8,
                ffn_dim: 2048,
                pre_norm: false,
            },
            decoder: DecoderConfig {
                hidden_dim: 512,
                num_queries,
                heads: 8,
                ffn_dim: 2048,
                layers: 9,
                pre_norm: false,
                context_length: 77,
                dim_proj: 512,
            },
            text: TextConfig {
                width: 512,
                heads: 8,
                layers: 12,
                context_length: 77,
                vocab_size: VOCABULARY,
                dim_proj: 512,
                autoregressive: true,
            },
            backbone_dim: embed_dim << (stages - 1),
            dim_proj: 512,
            size_divisibility: 32,
            pixel_mean: [123.675, 116.28, 103.53],
            pixel_std: [58.395, 57.12, 57.375],
            image_size: None,
        }
    }

    /// Returns true if the shapes are those of an X-Decoder with a Focal backbone, of any size.
    #[must_use]
    pub fn recognises(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> bool {
        shape(&format!("{PREDICTOR}.query_feat.weight")).is_some()
            && shape(&format!("{BACKBONE}.layers.0.blocks.0.modulation.f.weight")).is_some()
    }

    /// Derives the configuration from the shapes of a checkpoint. Returns `None` if it is not an X-Decoder,
    /// or one of other widths than the published models. Shapes do not show attention heads, so such a
    /// variant needs an explicit configuration.
    #[must_use]
    pub fn of(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let dim = |key: &str, axis: usize| shape(key)?.get(axis).copied();
        let count = |key: &dyn Fn(usize) -> String| (0..).take_while(|&i| shape(&key(i)).is_some()).count();
        let embed_dim = dim("backbone.patch_embed.proj.weight", 0)?;
        let num_stages = count(&|s| format!("{BACKBONE}.layers.{s}.blocks.0.norm1.weight"));
        if num_stages != 4 {
            return None;
        }
        let level = |s: usize, l: usize| format!("{BACKBONE}.layers.{s}.blocks.0.modulation.focal_layers.{l}.0.weight");
        let depths: Vec<_> =
            (0..num_stages).map(|s| count(&|b| format!("{BACKBONE}.layers.{s}.blocks.{b}.norm1.weight"))).collect();
        let windows: Option<Vec<_>> = (0..num_stages).map(|s| dim(&level(s, 0), 2)).collect();
        let kind =
            if shape(&format!("{BACKBONE}.layers.0.blocks.0.dw1.weight")).is_some() { FOCAL_DW } else { "focal" };
        let mut config = Self::focal(kind, embed_dim, depths, 0, dim(&format!("{PREDICTOR}.query_feat.weight"), 0)?);
        config.backbone.focal_levels = (0..num_stages).map(|s| count(&|l| level(s, l))).collect();
        config.backbone.focal_windows = windows?;
        config.backbone.use_layerscale = shape(&format!("{BACKBONE}.layers.0.blocks.0.gamma_1")).is_some();
        let hidden = dim(&format!("{BACKBONE}.layers.0.blocks.0.mlp.fc1.weight"), 0)?;
        config.backbone.mlp_ratio = hidden as f64 / embed_dim.max(1) as f64;

        let encoder = |i: usize| format!("{PIXEL_DECODER}.transformer.encoder.layers.{i}.linear1.weight");
        config.pixel_decoder.conv_dim = dim(&format!("{PIXEL_DECODER}.input_proj.weight"), 0)?;
        config.pixel_decoder.mask_dim = dim(&format!("{PIXEL_DECODER}.mask_features.weight"), 0)?;
        config.pixel_decoder.enc_layers = count(&encoder);
        config.pixel_decoder.ffn_dim = dim(&encoder(0), 0)?;

        let ffn = |i: usize| format!("{PREDICTOR}.transformer_ffn_layers.{i}.linear1.weight");
        config.decoder.hidden_dim = dim(&format!("{PREDICTOR}.query_feat.weight"), 1)?;
        config.decoder.layers = count(&ffn);
        config.decoder.ffn_dim = dim(&ffn(0), 0)?;
        config.dim_proj = dim(&format!("{PREDICTOR}.class_embed"), 1)?;
        config.decoder.dim_proj = config.dim_proj;

        let text = format!("{PREDICTOR}.lang_encoder.lang_encoder");
        config.text.width = dim(&format!("{text}.token_embedding.weight"), 1)?;
        config.text.vocab_size = dim(&format!("{text}.token_embedding.weight"), 0)?;
        config.text.context_length = dim(&format!("{text}.positional_embedding"), 0)?;
        config.text.layers = count(&|i| format!("{text}.resblocks.{i}.ln_1.weight"));
        config.text.dim_proj = config.dim_proj;
        let widths = [config.pixel_decoder.conv_dim, config.decoder.hidden_dim, config.text.width];
        widths.iter().all(|&width| width == PUBLISHED_WIDTH).then_some(config)
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
        let b = &self.backbone;
        self.validate_sizes()?;
        let known = b.kind == "focal" || b.has_depthwise();
        check(known, "backbone.kind", b.kind.clone(), "focal or focal_dw")?;
        check(b.depths.len() == 4, "backbone.depths", format!("{:?}", b.depths), "four stages")?;
        for (field, found) in [("backbone.focal_levels", &b.focal_levels), ("backbone.focal_windows", &b.focal_windows)]
        {
            check(found.len() == 4, field, format!("{found:?}"), "an entry per stage")?;
        }
        let largest = b.focal_levels.iter().zip(&b.focal_windows).map(|(l, w)| w + b.focal_factor * l).max();
        check(largest <= Some(31), "backbone.focal_windows", format!("{:?}", b.focal_windows), "kernels up to 31")?;
        let odd = b.focal_windows.iter().all(|w| w % 2 == 1) && b.focal_factor.is_multiple_of(2);
        check(odd, "backbone.focal_windows", format!("{:?}", b.focal_windows), "odd kernels")?;
        check(b.patch_size == 4, "backbone.patch_size", b.patch_size.to_string(), "4")?;
        for (field, found, expected) in [
            ("backbone.patch_norm", b.patch_norm, true),
            ("backbone.use_conv_embed", b.use_conv_embed, true),
            ("backbone.use_postln", b.use_postln, true),
            ("backbone.use_postln_in_modulation", b.use_postln_in_modulation, false),
            ("pixel_decoder.pre_norm", self.pixel_decoder.pre_norm, false),
            ("decoder.pre_norm", self.decoder.pre_norm, false),
            ("text.autoregressive", self.text.autoregressive, true),
        ] {
            check(found == expected, field, found.to_string(), &expected.to_string())?;
        }
        let p = &self.pixel_decoder;
        check(p.kind == "transformer_encoder_fpn", "pixel_decoder.kind", p.kind.clone(), "transformer_encoder_fpn")?;
        check(p.norm == "GN", "pixel_decoder.norm", p.norm.clone(), "GN")?;
        let groups = p.gn_groups;
        check(divides(groups, p.conv_dim), "pixel_decoder.gn_groups", groups.to_string(), "a divisor of conv_dim")?;
        let hidden = self.decoder.hidden_dim;
        check(hidden == p.conv_dim, "decoder.hidden_dim", hidden.to_string(), "pixel_decoder.conv_dim")?;
        check(hidden.is_multiple_of(4), "decoder.hidden_dim", hidden.to_string(), "a multiple of 4")?;
        for (field, heads, channels) in [
            ("pixel_decoder.heads", p.heads, p.conv_dim),
            ("decoder.heads", self.decoder.heads, hidden),
            ("text.heads", self.text.heads, self.text.width),
        ] {
            let fits = divides(heads, channels) && channels / heads <= MAX_HEAD_DIM;
            let expected = format!("a divisor of {channels} that leaves heads of at most {MAX_HEAD_DIM}");
            check(fits, field, heads.to_string(), &expected)?;
        }
        let (last, width) = (self.backbone_dim, self.stage_dim(3));
        check(last == width, "backbone_dim", last.to_string(), &format!("8 × embed_dim = {width}"))?;
        let divisor = self.size_divisibility;
        check(divisor > 0 && divisor.is_multiple_of(32), "size_divisibility", divisor.to_string(), "a multiple of 32")?;
        check(self.pixel_std.iter().all(|s| *s > 0.0), "pixel_std", format!("{:?}", self.pixel_std), "above 0")
    }

    /// Checks every number against a bound far above all real ones, so that the network fits into memory.
    fn validate_sizes(&self) -> Result<(), ConfigError> {
        let (b, p, d, t) = (&self.backbone, &self.pixel_decoder, &self.decoder, &self.text);
        let most = |values: &[usize]| values.iter().copied().max().unwrap_or(0);
        for (field, found, least, largest) in [
            ("backbone.embed_dim", b.embed_dim, 1, MAX_WIDTH),
            ("backbone.depths", most(&b.depths), 1, MAX_LAYERS),
            ("backbone.focal_levels", most(&b.focal_levels), 1, 15),
            ("backbone.focal_windows", most(&b.focal_windows), 1, 31),
            ("backbone.focal_factor", b.focal_factor, 0, 31),
            ("pixel_decoder.conv_dim", p.conv_dim, 1, MAX_WIDTH),
            ("pixel_decoder.mask_dim", p.mask_dim, 1, MAX_WIDTH),
            ("pixel_decoder.enc_layers", p.enc_layers, 0, MAX_LAYERS),
            ("pixel_decoder.ffn_dim", p.ffn_dim, 1, MAX_WIDTH),
            ("decoder.hidden_dim", d.hidden_dim, 1, MAX_WIDTH),
            ("decoder.num_queries", d.num_queries, 2, 4096),
            ("decoder.layers", d.layers, 0, MAX_LAYERS),
            ("decoder.ffn_dim", d.ffn_dim, 1, MAX_WIDTH),
            ("text.width", t.width, 1, MAX_WIDTH),
            ("text.layers", t.layers, 0, MAX_LAYERS),
            ("text.context_length", t.context_length, 2, 4096),
            ("text.vocab_size", t.vocab_size, 1, 1 << 20),
            ("dim_proj", self.dim_proj, 1, MAX_WIDTH),
            ("size_divisibility", self.size_divisibility, 32, 1024),
        ] {
            if !(least..=largest).contains(&found) {
                let expected = format!("{least} to {largest}");
                return Err(ConfigError { field, found: found.to_string(), expected });
            }
        }
        let ratio = b.mlp_ratio;
        if !(ratio * b.embed_dim as f64 >= 1.0 && ratio <= 64.0) {
            let expected = "1 / embed_dim to 64".to_owned();
            return Err(ConfigError { field: "backbone.mlp_ratio", found: ratio.to_string(), expected });
        }
        Ok(())
    }

    /// Returns the number of channels of a stage of the backbone, 0 to 3.
    #[must_use]
    pub fn stage_dim(&self, stage: usize) -> usize {
        self.backbone.embed_dim << stage
    }

    /// Returns the number of hidden channels of the MLPs of a stage of the backbone.
    #[must_use]
    pub fn mlp_dim(&self, stage: usize) -> usize {
        (self.stage_dim(stage) as f64 * self.backbone.mlp_ratio) as usize
    }

    /// Returns every key that inference reads, with its shape.
    #[must_use]
    pub fn keys(&self) -> Vec<(String, Vec<usize>)> {
        let mut keys = Keys::default();
        self.backbone_keys(&mut keys);
        self.pixel_decoder_keys(&mut keys);
        self.predictor_keys(&mut keys);
        keys.0
    }

    fn backbone_keys(&self, keys: &mut Keys) {
        let b = &self.backbone;
        let dim = self.stage_dim(0);
        keys.add(format!("{BACKBONE}.patch_embed.proj.weight"), &[dim, 3, 7, 7]);
        keys.add(format!("{BACKBONE}.patch_embed.proj.bias"), &[dim]);
        keys.affine(&format!("{BACKBONE}.patch_embed.norm"), dim);
        for stage in 0..b.depths.len() {
            let (dim, mlp) = (self.stage_dim(stage), self.mlp_dim(stage));
            for block in 0..b.depths[stage] {
                let prefix = format!("{BACKBONE}.layers.{stage}.blocks.{block}");
                if b.use_layerscale {
                    keys.add(format!("{prefix}.gamma_1"), &[dim]);
                    keys.add(format!("{prefix}.gamma_2"), &[dim]);
                }
                if b.has_depthwise() {
                    for name in ["dw1", "dw2"] {
                        keys.add(format!("{prefix}.{name}.weight"), &[dim, 1, 3, 3]);
                        keys.add(format!("{prefix}.{name}.bias"), &[dim]);
                    }
                }
                keys.affine(&format!("{prefix}.norm1"), dim);
                keys.affine(&format!("{prefix}.norm2"), dim);
                keys.linear(&format!("{prefix}.modulation.f"), dim, 2 * dim + b.focal_levels[stage] + 1);
                keys.add(format!("{prefix}.modulation.h.weight"), &[dim, dim, 1, 1]);
                keys.add(format!("{prefix}.modulation.h.bias"), &[dim]);
                keys.linear(&format!("{prefix}.modulation.proj"), dim, dim);
                for level in 0..b.focal_levels[stage] {
                    let window = b.focal_windows[stage] + b.focal_factor * level;
                    keys.add(format!("{prefix}.modulation.focal_layers.{level}.0.weight"), &[dim, 1, window, window]);
                }
                keys.linear(&format!("{prefix}.mlp.fc1"), dim, mlp);
                keys.linear(&format!("{prefix}.mlp.fc2"), mlp, dim);
            }
            if stage + 1 < b.depths.len() {
                let prefix = format!("{BACKBONE}.layers.{stage}.downsample");
                keys.add(format!("{prefix}.proj.weight"), &[2 * dim, dim, 3, 3]);
                keys.add(format!("{prefix}.proj.bias"), &[2 * dim]);
                keys.affine(&format!("{prefix}.norm"), 2 * dim);
            }
            keys.affine(&format!("{BACKBONE}.norm{stage}"), dim);
        }
    }

    fn pixel_decoder_keys(&self, keys: &mut Keys) {
        let p = &self.pixel_decoder;
        let dim = p.conv_dim;
        for level in 1..=4 {
            if level < 4 {
                keys.add(format!("{PIXEL_DECODER}.adapter_{level}.weight"), &[dim, self.stage_dim(level - 1), 1, 1]);
                keys.affine(&format!("{PIXEL_DECODER}.adapter_{level}.norm"), dim);
            }
            keys.add(format!("{PIXEL_DECODER}.layer_{level}.weight"), &[dim, dim, 3, 3]);
            keys.affine(&format!("{PIXEL_DECODER}.layer_{level}.norm"), dim);
        }
        keys.add(format!("{PIXEL_DECODER}.mask_features.weight"), &[p.mask_dim, dim, 3, 3]);
        keys.add(format!("{PIXEL_DECODER}.mask_features.bias"), &[p.mask_dim]);
        keys.add(format!("{PIXEL_DECODER}.input_proj.weight"), &[dim, self.stage_dim(3), 1, 1]);
        keys.add(format!("{PIXEL_DECODER}.input_proj.bias"), &[dim]);
        for layer in 0..p.enc_layers {
            let prefix = format!("{PIXEL_DECODER}.transformer.encoder.layers.{layer}");
            keys.attention(&format!("{prefix}.self_attn"), dim);
            keys.linear(&format!("{prefix}.linear1"), dim, p.ffn_dim);
            keys.linear(&format!("{prefix}.linear2"), p.ffn_dim, dim);
            keys.affine(&format!("{prefix}.norm1"), dim);
            keys.affine(&format!("{prefix}.norm2"), dim);
        }
    }

    fn predictor_keys(&self, keys: &mut Keys) {
        let d = &self.decoder;
        let dim = d.hidden_dim;
        keys.add(format!("{PREDICTOR}.class_embed"), &[dim, self.dim_proj]);
        for layer in 0..d.layers {
            let attention = format!("{PREDICTOR}.transformer_self_attention_layers.{layer}");
            keys.attention(&format!("{attention}.self_attn"), dim);
            keys.affine(&format!("{attention}.norm"), dim);
            let attention = format!("{PREDICTOR}.transformer_cross_attention_layers.{layer}");
            keys.attention(&format!("{attention}.multihead_attn"), dim);
            keys.affine(&format!("{attention}.norm"), dim);
            let ffn = format!("{PREDICTOR}.transformer_ffn_layers.{layer}");
            keys.linear(&format!("{ffn}.linear1"), dim, d.ffn_dim);
            keys.linear(&format!("{ffn}.linear2"), d.ffn_dim, dim);
            keys.affine(&format!("{ffn}.norm"), dim);
        }
        keys.affine(&format!("{PREDICTOR}.decoder_norm"), dim);
        keys.add(format!("{PREDICTOR}.query_feat.weight"), &[d.num_queries, dim]);
        keys.add(format!("{PREDICTOR}.query_embed.weight"), &[d.num_queries, dim]);
        keys.add(format!("{PREDICTOR}.level_embed.weight"), &[3, dim]);
        for (layer, num_out) in [dim, dim, self.pixel_decoder.mask_dim].into_iter().enumerate() {
            keys.linear(&format!("{PREDICTOR}.mask_embed.layers.{layer}"), dim, num_out);
        }
        keys.add(Self::LOGIT_SCALE.to_owned(), &[]);
        self.text_transformer().add_keys(&Self::text_names(), keys);
    }

    /// Returns where the text encoder's tensors are.
    pub(super) fn text_names() -> Names {
        let root = format!("{PREDICTOR}.lang_encoder.lang_encoder.");
        let layers = format!("{root}resblocks.");
        Names { root, layers, projection: format!("{PREDICTOR}.lang_encoder.lang_proj") }
    }

    /// Returns the text encoder's transformer, which is CLIP's but for its epsilon.
    pub(super) fn text_transformer(&self) -> ClipTextConfig {
        let t = &self.text;
        ClipTextConfig {
            width: t.width,
            heads: t.heads,
            layers: t.layers,
            context_length: t.context_length,
            vocab_size: t.vocab_size,
            embed_dim: self.dim_proj,
            layer_norm_eps: TEXT_EPSILON,
        }
    }
}

fn divides(divisor: usize, number: usize) -> bool {
    divisor > 0 && number > 0 && number.is_multiple_of(divisor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_shapes_tell_the_published_configurations() {
        for config in [XDecoderConfig::focal_l(), XDecoderConfig::focal_t()] {
            config.validate().unwrap();
            let keys = config.keys();
            let shape = |key: &str| keys.iter().find(|(k, _)| k == key).map(|(_, shape)| shape.clone());
            assert_eq!(XDecoderConfig::of(&shape), Some(config));
        }
    }

    #[test]
    fn focal_l_has_the_published_number_of_parameters() {
        let count: usize = XDecoderConfig::focal_l().keys().iter().map(|(_, s)| s.iter().product::<usize>()).sum();
        assert_eq!(count, 340_463_353);
    }

    #[test]
    fn what_does_not_run_is_named() {
        let mut config = XDecoderConfig::focal_l();
        config.decoder.heads = 7;
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "X-Decoder configuration: decoder.heads is 7, expected a divisor of 512 that leaves heads of at most 64"
        );
        config = XDecoderConfig::focal_l();
        config.backbone.use_postln = false;
        assert!(config.validate().is_err());
        let edits: [fn(&mut XDecoderConfig); 8] = [
            |c| c.backbone.embed_dim = usize::MAX,
            |c| c.backbone.depths = vec![1 << 20; 4],
            |c| c.backbone.focal_levels = vec![0; 4],
            |c| c.backbone.mlp_ratio = f64::NAN,
            |c| c.pixel_decoder.ffn_dim = 0,
            |c| c.decoder.num_queries = 1 << 18,
            |c| c.text.context_length = 1,
            |c| c.size_divisibility = 1 << 20,
        ];
        for edit in edits {
            let mut config = XDecoderConfig::focal_l();
            edit(&mut config);
            assert!(config.validate().is_err(), "{config:?}");
        }
        // Blocks without a stage, as in a broken file.
        let few = |key: &str| ["patch_embed.proj.weight", "query_feat.weight"].iter().any(|k| key.ends_with(k));
        assert_eq!(XDecoderConfig::of(&|key| few(key).then(|| vec![96, 3, 7, 7])), None);
        assert_eq!(XDecoderConfig::of(&|_| None), None);
    }
}
