//! Sizes of a MinkUNet, and its keys.

use serde::{Deserialize, Serialize};

use super::cells::Input;
use super::net::{Block, NUM_DOWN, Net, Stage};
use crate::models::conv_norm::ConvKeys;

/// Number of stages: four down, four up.
const NUM_STAGES: usize = 8;
/// Number of cells of the first kernel, of edge 5.
const STEM_VOLUME: usize = 125;
/// Number of cells of a block's kernels, of edge 3.
const BLOCK_VOLUME: usize = 27;
/// Number of cells of the kernels that change the resolution, of edge 2.
const STRIDE_VOLUME: usize = 8;
/// Key of the first kernel.
const STEM_KEY: &str = "net3d.conv0p1s1.kernel";
/// Name of the head whose output is compared with text, in the published networks.
pub const TEXT_HEAD: &str = "final";
/// Names of CUA-O3D's other heads, which it needs for its training only.
const OTHER_HEADS: [&str; 2] = ["final_dinov2", "final_sd"];

/// Reasons why a configuration is not one of a MinkUNet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number of channels or of blocks is 0.
    #[error("{0} is 0; expected 1 or more")]
    Zero(String),
    /// The number of input channels is not that of the input.
    #[error("in_channels is {found}; expected {expected}, the channels of the input")]
    Input {
        /// The number of input channels.
        found: usize,
        /// Channels of the input.
        expected: usize,
    },
    /// There is nothing that the network answers with.
    #[error("there are no heads; expected one or more")]
    NoHeads,
    /// Two heads share a name.
    #[error("two heads are called '{0}'; expected different names")]
    SameHead(String),
}

/// Text encoder in whose space a network's first head is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextSpace {
    /// CLIP's: ViT-B/32 for 512 channels, ViT-L/14@336px for 768, as published.
    #[default]
    Clip,
    /// X-Decoder's.
    XDecoder,
}

/// Sizes of a MinkUNet with basic blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinkUnetConfig {
    /// Channels of the input; 3 in the published networks.
    pub in_channels: usize,
    /// Channels after the first convolution.
    pub init_dim: usize,
    /// Channels of each stage: four down, four up.
    pub planes: [usize; NUM_STAGES],
    /// Number of residual blocks of each stage.
    pub layers: [usize; NUM_STAGES],
    /// Heads on the last stage with their channels. In the published networks the first one, `final`, is compared with
    /// text.
    pub heads: Vec<(String, usize)>,
    /// Text encoder in whose space the first head is.
    #[serde(default)]
    pub text: TextSpace,
    /// What the network is told of a voxel. Nothing in the published networks.
    #[serde(default)]
    pub input: Input,
    /// Edge of a voxel in millimetres; 20 in the published networks.
    #[serde(default = "published_edge")]
    pub edge_mm: u32,
}

fn published_edge() -> u32 {
    20
}

impl MinkUnetConfig {
    /// Keys of the checkpoint that inference does not need, with the reason. Each is a pattern for
    /// [`key_matches`](crate::weights::key_matches).
    pub const UNUSED: &[(&str, &str)] = &[("num_batches_tracked", "batch norm's count of training steps")];

    /// MinkUNet18A with features in the space of OpenSeg, as OpenScene published it.
    #[must_use]
    pub fn openscene() -> Self {
        Self {
            in_channels: 3,
            init_dim: 32,
            planes: [32, 64, 128, 256, 128, 128, 96, 96],
            layers: [2; NUM_STAGES],
            heads: vec![(TEXT_HEAD.to_owned(), 768)],
            text: TextSpace::Clip,
            input: Input::Ones,
            edge_mm: published_edge(),
        }
    }

    /// A small network that knows shape and colour, with features of `dim` channels, for training on a CPU.
    #[must_use]
    pub fn small(dim: usize) -> Self {
        Self {
            in_channels: Input::ShapeAndColor.num_channels(),
            init_dim: 24,
            planes: [32, 64, 96, 96, 96, 64, 48, 48],
            layers: [1, 1, 1, 2, 1, 1, 1, 1],
            heads: vec![(TEXT_HEAD.to_owned(), dim)],
            text: TextSpace::XDecoder,
            input: Input::ShapeAndColor,
            edge_mm: 50,
        }
    }

    /// Edge of a voxel in metres.
    #[must_use]
    pub fn edge(&self) -> f64 {
        f64::from(self.edge_mm) * 1e-3
    }

    /// Derives the sizes from the shapes of a checkpoint. Returns `None` if it is not a published network, of any size.
    #[must_use]
    pub fn of(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let &[STEM_VOLUME, in_channels, init_dim] = shape(STEM_KEY)?.as_slice() else { return None };
        let (mut planes, mut layers) = ([0; NUM_STAGES], [0; NUM_STAGES]);
        for (stage, (planes, layers)) in planes.iter_mut().zip(&mut layers).enumerate() {
            let kernel = |block: usize| shape(&format!("{}.{block}.conv1.kernel", block_key(stage)));
            *planes = *kernel(0)?.last()?;
            *layers = (0..).take_while(|&block| kernel(block).is_some()).count();
        }
        let head = |name: &str| Some((name.to_owned(), *shape(&head_key(name))?.last()?));
        let heads = std::iter::once(head(TEXT_HEAD)?).chain(OTHER_HEADS.into_iter().filter_map(head)).collect();
        let config = Self { in_channels, init_dim, planes, layers, heads, ..Self::openscene() };
        config.validate().is_ok().then_some(config)
    }

    /// Checks that there is something to compute.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        let edge = [self.edge_mm as usize];
        let sizes = [("in_channels", &[self.in_channels][..]), ("init_dim", &[self.init_dim]), ("edge_mm", &edge)];
        let of_stages = [("planes", &self.planes[..]), ("layers", &self.layers)];
        for (name, sizes) in sizes.into_iter().chain(of_stages) {
            if sizes.contains(&0) {
                return Err(ConfigError::Zero(name.to_owned()));
            }
        }
        for (at, (name, channels)) in self.heads.iter().enumerate() {
            if *channels == 0 {
                return Err(ConfigError::Zero(format!("head '{name}'")));
            }
            if self.heads[..at].iter().any(|(other, _)| other == name) {
                return Err(ConfigError::SameHead(name.clone()));
            }
        }
        let expected = self.input.num_channels();
        if self.input != Input::Ones && self.in_channels != expected {
            return Err(ConfigError::Input { found: self.in_channels, expected });
        }
        if self.heads.is_empty() { Err(ConfigError::NoHeads) } else { Ok(()) }
    }

    /// Returns every key of the checkpoint with its shape, in the checkpoint's order.
    #[must_use]
    pub fn keys(&self) -> Vec<(String, Vec<usize>)> {
        let net = self.net();
        let heads = self.heads.iter().map(|(name, channels)| (head_key(name), vec![self.last(), *channels]));
        net.layers().into_iter().flat_map(ConvKeys::shapes).chain(heads).collect()
    }

    /// Channels of the last stage.
    #[must_use]
    pub fn last(&self) -> usize {
        self.planes[NUM_STAGES - 1]
    }

    /// Channels of the first head, which is compared with text.
    #[must_use]
    pub fn text_width(&self) -> usize {
        self.heads.first().map_or(0, |(_, channels)| *channels)
    }

    /// The plan of the network, its layers by their keys.
    pub(super) fn net(&self) -> Net<ConvKeys> {
        let layer = |name: &str, norm: &str, shape: [usize; 3]| {
            let (kernel, norm) = (format!("net3d.{name}.kernel"), format!("net3d.{norm}.bn"));
            ConvKeys { kernel, norm, shape }
        };
        let stem = layer("conv0p1s1", "bn0", [STEM_VOLUME, self.in_channels, self.init_dim]);
        // What is joined on the way up: the first convolution, then each stage on the way down.
        let skips: Vec<usize> = std::iter::once(self.init_dim).chain(self.planes).collect();
        let mut channels = self.init_dim;
        let stage = |at: usize| {
            let planes = self.planes[at];
            let (resample, joined) = if at < NUM_DOWN {
                let (name, norm) = (format!("conv{}p{}s2", at + 1, 1 << at), format!("bn{}", at + 1));
                (layer(&name, &norm, [STRIDE_VOLUME, channels, channels]), channels)
            } else {
                let level = 2 * NUM_DOWN - at;
                let (name, norm) = (format!("convtr{at}p{}s2", 1 << level), format!("bntr{at}"));
                (layer(&name, &norm, [STRIDE_VOLUME, channels, planes]), planes + skips[level - 1])
            };
            channels = planes;
            let block = |block: usize| {
                let num_in = if block == 0 { joined } else { planes };
                let key = format!("block{}.{block}", at + 1);
                let half = |half: usize, num_in: usize| {
                    let (name, norm) = (format!("{key}.conv{half}"), format!("{key}.norm{half}"));
                    layer(&name, &norm, [BLOCK_VOLUME, num_in, planes])
                };
                let (name, norm) = (format!("{key}.downsample.0"), format!("{key}.downsample.1"));
                let shortcut = (num_in != planes).then(|| layer(&name, &norm, [1, num_in, planes]));
                Block { first: half(1, num_in), second: half(2, planes), shortcut }
            };
            Stage { resample, blocks: (0..self.layers[at]).map(block).collect() }
        };
        Net { stem, stages: (0..NUM_STAGES).map(stage).collect() }
    }
}

/// Prefix of a stage's blocks.
fn block_key(stage: usize) -> String {
    format!("net3d.block{}", stage + 1)
}

/// Key of a head's matrix.
pub(super) fn head_key(name: &str) -> String {
    format!("net3d.{name}.kernel")
}
