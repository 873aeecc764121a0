use serde::{Deserialize, Serialize};

use super::concerto::ConcertoSize;
use crate::ops::serialization::Curve;
use crate::ops::serialized_attention::MAX_PATCH;

/// Cells along each axis of the position encoding's kernel.
const KERNEL: usize = 3;
/// Largest number of stages, of blocks in a stage, and of channels. They are far above any published variant
/// and keep a checkpoint's own configuration from declaring an absurd network.
const MAX_STAGES: usize = 8;
const MAX_DEPTH: usize = 128;
const MAX_CHANNELS: usize = 8192;

/// Widths and depths of the encoder, named as in the reference's constructor. Entries that only affect
/// training or the choice of a kernel are not read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SonataConfig {
    /// Input channels: position, colour, normal.
    pub in_channels: usize,
    /// Serialization curves. The blocks of a stage use them in turn.
    pub order: Vec<String>,
    /// Number of voxels along an axis that pooling merges, between stages.
    pub stride: Vec<usize>,
    /// Blocks per stage.
    pub enc_depths: Vec<usize>,
    /// Channels per stage.
    pub enc_channels: Vec<usize>,
    /// Attention heads per stage.
    pub enc_num_head: Vec<usize>,
    /// Largest number of voxels that attend to each other, per stage.
    pub enc_patch_size: Vec<usize>,
    /// Hidden channels of a block's MLP, as a multiple of its channels.
    pub mlp_ratio: f64,
    /// True if queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// True if norms come before attention and MLP.
    #[serde(default = "yes")]
    pub pre_norm: bool,
    /// True for an encoder without a decoder.
    #[serde(default = "yes")]
    pub enc_mode: bool,
    /// True if attention has a relative position encoding.
    #[serde(default)]
    pub enable_rpe: bool,
    /// Learned factor on every residual branch, if there is one.
    #[serde(default)]
    pub layer_scale: Option<f64>,
    /// Factor of the attention scores, if it is not 1 / √(channels of a head).
    #[serde(default)]
    pub qk_scale: Option<f64>,
    /// True if the encoder learned from scans without colours or normals, whose channels were 0. The reference does
    /// not write it.
    #[serde(default)]
    pub takes_zeros: bool,
}

fn yes() -> bool {
    true
}

/// Error for a configuration that this implementation does not support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Sonata configuration: {field} is {found}, expected {expected}")]
pub struct ConfigError {
    /// Name of the entry.
    pub field: &'static str,
    /// Its value.
    pub found: String,
    /// Supported values.
    pub expected: String,
}

impl SonataConfig {
    /// Keys of the checkpoint that inference does not need, with the reason. Each is a pattern for
    /// [`key_matches`](crate::weights::key_matches).
    pub const UNUSED: &[(&str, &str)] = &[("embedding.mask_token", "stands in for masked points in training")];

    /// Returns the configuration of the published encoder: 108 million parameters.
    #[must_use]
    pub fn published() -> Self {
        Self {
            in_channels: 9,
            order: Curve::ALL.map(|curve| curve.name().to_owned()).to_vec(),
            stride: vec![2; 4],
            enc_depths: vec![3, 3, 3, 12, 3],
            enc_channels: vec![48, 96, 192, 384, 512],
            enc_num_head: vec![3, 6, 12, 24, 32],
            enc_patch_size: vec![1024; 5],
            mlp_ratio: 4.0,
            qkv_bias: true,
            pre_norm: true,
            enc_mode: true,
            enable_rpe: false,
            layer_scale: None,
            qk_scale: None,
            takes_zeros: false,
        }
    }

    /// Returns the configuration of a published encoder of Concerto. Whether it takes zeros, only its name tells.
    #[must_use]
    pub fn concerto(size: ConcertoSize) -> Self {
        Self {
            enc_depths: size.depths().to_vec(),
            enc_channels: size.channels().to_vec(),
            enc_num_head: size.heads().to_vec(),
            ..Self::published()
        }
    }

    /// Derives the configuration from the shapes of a checkpoint: a published one with other input channels
    /// and depths. Returns `None` if it is no encoder of Sonata or Concerto, or if the number of heads is
    /// unknown. Shapes do not show heads, so every stage must be as wide as in a published encoder. A
    /// checkpoint of the reference contains its configuration, which takes precedence.
    #[must_use]
    pub fn of(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let width = |key: &str| shape(key)?.last().copied();
        let count = |key: &dyn Fn(usize) -> String| (0..).take_while(|&i| shape(&key(i)).is_some()).count();
        let block = |stage: usize, block: usize| format!("enc.enc{stage}.block{block}.attn.proj.weight");
        let size = ConcertoSize::of(shape)?;
        let config = Self::concerto(size);
        Some(Self {
            in_channels: width("embedding.stem.linear.weight")?,
            enc_depths: (0..config.enc_depths.len()).map(|stage| count(&|b| block(stage, b))).collect(),
            qkv_bias: shape("enc.enc0.block0.attn.qkv.bias").is_some(),
            ..config
        })
    }

    /// Returns true if the shapes of a checkpoint are those of a Sonata encoder, of any size.
    #[must_use]
    pub fn recognises(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> bool {
        shape("embedding.stem.linear.weight").is_some() && shape("enc.enc0.block0.cpe.0.weight").is_some()
    }

    /// Returns the number of hidden channels of the MLPs of a stage.
    #[must_use]
    pub fn hidden(&self, stage: usize) -> usize {
        (self.enc_channels[stage] as f64 * self.mlp_ratio) as usize
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
        let stages = self.enc_depths.len();
        let within = |n: usize, most: usize| (1..=most).contains(&n);
        check(within(stages, MAX_STAGES), "enc_depths", format!("{stages} stages"), "1 to 8 stages")?;
        for (field, list, len, most) in [
            ("enc_depths", &self.enc_depths, stages, MAX_DEPTH),
            ("enc_channels", &self.enc_channels, stages, MAX_CHANNELS),
            ("enc_num_head", &self.enc_num_head, stages, MAX_CHANNELS),
            ("enc_patch_size", &self.enc_patch_size, stages, MAX_PATCH),
            ("stride", &self.stride, stages - 1, 16),
        ] {
            let fits = list.len() == len && list.iter().all(|&n| within(n, most));
            check(fits, field, format!("{list:?}"), &format!("{len} values from 1 to {most}"))?;
        }
        for (&heads, &channels) in self.enc_num_head.iter().zip(&self.enc_channels) {
            check(channels % heads == 0, "enc_num_head", heads.to_string(), &format!("a divisor of {channels}"))?;
        }
        let pooling = self.stride.iter().all(|stride| stride.is_power_of_two());
        check(pooling, "stride", format!("{:?}", self.stride), "powers of two")?;
        check(within(self.in_channels, 64), "in_channels", self.in_channels.to_string(), "1 to 64")?;
        let known = !self.order.is_empty() && self.order.iter().all(|order| order.parse::<Curve>().is_ok());
        check(known, "order", format!("{:?}", self.order), &format!("some of {:?}", Curve::ALL.map(Curve::name)))?;
        let ratio = self.mlp_ratio;
        check((0.125..=16.0).contains(&ratio), "mlp_ratio", ratio.to_string(), "0.125 to 16")?;
        for (field, found, expected) in [
            ("pre_norm", self.pre_norm, true),
            ("enc_mode", self.enc_mode, true),
            ("enable_rpe", self.enable_rpe, false),
        ] {
            check(found == expected, field, found.to_string(), &expected.to_string())?;
        }
        for (field, found) in [("layer_scale", self.layer_scale), ("qk_scale", self.qk_scale)] {
            check(found.is_none(), field, format!("{found:?}"), "none")?;
        }
        Ok(())
    }

    /// Returns every key that inference needs with its shape, in the checkpoint's order. The configuration
    /// must be [valid](Self::validate).
    #[must_use]
    pub fn keys(&self) -> Vec<(String, Vec<usize>)> {
        let mut keys = Vec::new();
        // Adds a layer with weight and bias. A norm's weight is as long as its bias.
        let mut layer = |name: String, weight: Vec<usize>, bias: bool| {
            let num_out = weight[0];
            keys.push((format!("{name}.weight"), weight));
            if bias {
                keys.push((format!("{name}.bias"), vec![num_out]));
            }
        };
        layer("embedding.stem.linear".to_owned(), vec![self.enc_channels[0], self.in_channels], true);
        layer("embedding.stem.norm".to_owned(), vec![self.enc_channels[0]], true);
        for (stage, (&depth, &c)) in self.enc_depths.iter().zip(&self.enc_channels).enumerate() {
            let prefix = format!("enc.enc{stage}");
            if stage > 0 {
                layer(format!("{prefix}.down.proj"), vec![c, self.enc_channels[stage - 1]], true);
                layer(format!("{prefix}.down.norm.0"), vec![c], true);
            }
            let hidden = self.hidden(stage);
            for block in 0..depth {
                let prefix = format!("{prefix}.block{block}");
                layer(format!("{prefix}.cpe.0"), vec![c, KERNEL, KERNEL, KERNEL, c], true);
                layer(format!("{prefix}.cpe.1"), vec![c, c], true);
                layer(format!("{prefix}.cpe.2"), vec![c], true);
                layer(format!("{prefix}.norm1.0"), vec![c], true);
                layer(format!("{prefix}.attn.qkv"), vec![3 * c, c], self.qkv_bias);
                layer(format!("{prefix}.attn.proj"), vec![c, c], true);
                layer(format!("{prefix}.norm2.0"), vec![c], true);
                layer(format!("{prefix}.mlp.0.fc1"), vec![hidden, c], true);
                layer(format!("{prefix}.mlp.0.fc2"), vec![c, hidden], true);
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_encoder_has_its_parameters() {
        let config = SonataConfig::published();
        config.validate().unwrap();
        let keys = config.keys();
        // One more key is the mask token, [1, 48].
        assert_eq!(keys.len(), 452);
        let parameters: usize = keys.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(parameters + 48, 108_461_376);
    }

    #[test]
    fn concerto_has_its_parameters_and_channels() {
        let sizes = [(4_860_512, 448), (38_648_992, 896), (108_461_376, 1088), (207_667_456, 1536)];
        for (size, (parameters, channels)) in ConcertoSize::ALL.into_iter().zip(sizes) {
            let config = SonataConfig::concerto(size);
            config.validate().unwrap();
            let count: usize = config.keys().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            // One more key is the mask token, as wide as the first stage.
            assert_eq!(count + config.enc_channels[0], parameters, "{size:?}");
            assert_eq!(config.enc_channels[2..].iter().sum::<usize>(), channels, "{size:?}");
            let keys: std::collections::HashMap<_, _> = config.keys().into_iter().collect();
            assert_eq!(SonataConfig::of(&|key| keys.get(key).cloned()), Some(config));
        }
        assert_eq!(SonataConfig::concerto(ConcertoSize::Base), SonataConfig::published());
    }

    #[test]
    fn shapes_tell_the_published_widths_and_no_others() {
        let of = |config: &SonataConfig| {
            let keys: std::collections::HashMap<_, _> = config.keys().into_iter().collect();
            let shape = |key: &str| keys.get(key).cloned();
            assert!(SonataConfig::recognises(&shape));
            SonataConfig::of(&shape)
        };
        let published = SonataConfig::published();
        assert_eq!(of(&published), Some(published.clone()));
        let shallow = SonataConfig { enc_depths: vec![1, 2, 1, 1, 2], qkv_bias: false, ..published.clone() };
        assert_eq!(of(&shallow), Some(shallow.clone()));
        let narrow = SonataConfig { enc_channels: vec![16, 24, 32, 48, 64], ..published };
        assert_eq!(of(&narrow), None);
        assert!(!SonataConfig::recognises(&|_| None));
    }

    #[test]
    fn what_does_not_run_is_named() {
        type Change = fn(&mut SonataConfig);
        let changes: [(Change, &str); 9] = [
            (|c| c.enc_depths.clear(), "enc_depths"),
            (|c| c.enc_depths[0] = usize::MAX, "enc_depths"),
            (|c| c.enc_channels[4] = 0, "enc_channels"),
            (|c| c.enc_num_head[1] = 7, "enc_num_head"),
            (|c| c.stride[0] = 3, "stride"),
            (|c| c.order[0] = "xyz".to_owned(), "order"),
            (|c| c.mlp_ratio = f64::NAN, "mlp_ratio"),
            (|c| c.enable_rpe = true, "enable_rpe"),
            (|c| c.layer_scale = Some(0.1), "layer_scale"),
        ];
        for (change, field) in changes {
            let mut config = SonataConfig::published();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().field, field);
        }
    }
}
