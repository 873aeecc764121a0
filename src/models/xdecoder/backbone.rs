//! The Focal modulation backbone: four stages of blocks on ever coarser maps, channels last.

use burn::prelude::*;

use super::config::XDecoderConfig;
use crate::models::ModelError;
use crate::models::layers::{FeedForward, Loader, Norm};
use crate::ops::OpError;
use crate::ops::conv2d::{Activation, PackedWeight, conv2d, linear};
use crate::ops::depthwise_conv2d::depthwise_conv2d;
use crate::ops::focal_modulation::{Levels, focal_modulation};
use crate::ops::layer_norm::Fusion;

const EPSILON: f32 = 1e-5;

/// Focal modulation: the context of every pixel, gathered in ever larger windows, times a query of the pixel
/// itself.
#[derive(Clone, Debug)]
struct FocalModulation {
    // The three parts of the reference's single layer `f`.
    query: PackedWeight,
    context: PackedWeight,
    gates: PackedWeight,
    focal_layers: Tensor<2>,
    levels: Levels,
    h: PackedWeight,
    proj: PackedWeight,
}

impl FocalModulation {
    fn load(loader: &mut Loader<'_>, prefix: &str, dim: usize, levels: Levels) -> Result<Self, ModelError> {
        let num_gates = levels.num_levels + 1;
        let weight = loader.values(&format!("{prefix}.f.weight"), &[2 * dim + num_gates, dim])?;
        let bias = loader.values(&format!("{prefix}.f.bias"), &[2 * dim + num_gates])?;
        let rows = |first: usize, count: usize| loader.pack_rows(&weight, &bias, first..first + count, dim);
        let (query, context, gates) = (rows(0, dim)?, rows(dim, dim)?, rows(2 * dim, num_gates)?);
        let focal_layers = (0..levels.num_levels)
            .map(|level| loader.depthwise(&format!("{prefix}.focal_layers.{level}.0"), dim, levels.kernel(level)));
        let focal_layers = Tensor::cat(focal_layers.collect::<Result<_, _>>()?, 0);
        let h = loader.conv2d(&format!("{prefix}.h"), [dim, dim, 1], true)?;
        let proj = loader.linear(&format!("{prefix}.proj"), dim, dim)?;
        Ok(Self { query, context, gates, focal_layers, levels, h, proj })
    }

    fn forward(&self, x: Tensor<4>) -> Result<Tensor<4>, OpError> {
        let query = linear(x.clone(), &self.query, Activation::None)?;
        let context = linear(x.clone(), &self.context, Activation::None)?;
        let gates = linear(x, &self.gates, Activation::None)?;
        let modulator = focal_modulation(context, gates, self.focal_layers.clone(), self.levels)?;
        let modulator = linear(modulator, &self.h, Activation::None)?;
        linear(query * modulator, &self.proj, Activation::None)
    }
}

/// A depthwise 3 × 3 convolution with a residual connection.
#[derive(Clone, Debug)]
struct Depthwise {
    weight: Tensor<2>,
    bias: Tensor<1>,
}

impl Depthwise {
    fn load(loader: &mut Loader<'_>, prefix: &str, dim: usize) -> Result<Self, ModelError> {
        Ok(Self { weight: loader.depthwise(prefix, dim, 3)?, bias: loader.tensor(&format!("{prefix}.bias"), [dim])? })
    }

    fn forward(&self, x: Tensor<4>) -> Result<Tensor<4>, OpError> {
        Ok(depthwise_conv2d(x.clone(), self.weight.clone(), self.bias.clone(), 3)? + x)
    }
}

/// Focal block: modulation, then MLP. Each is followed by a norm and a factor per channel.
#[derive(Clone, Debug)]
struct FocalBlock {
    /// Depthwise convolutions before the modulation and before the MLP, in `focal_dw` only.
    depthwise: Option<[Depthwise; 2]>,
    modulation: FocalModulation,
    norm1: Norm,
    gamma_1: Tensor<1>,
    mlp: FeedForward,
    norm2: Norm,
    gamma_2: Tensor<1>,
}

impl FocalBlock {
    fn load(loader: &mut Loader<'_>, prefix: &str, config: &XDecoderConfig, stage: usize) -> Result<Self, ModelError> {
        let (dim, hidden) = (config.stage_dim(stage), config.mlp_dim(stage));
        let levels = Levels {
            num_levels: config.backbone.focal_levels[stage],
            window: config.backbone.focal_windows[stage],
            growth: config.backbone.focal_factor,
            scaled: config.backbone.scaling_modulator,
        };
        let mut gamma = |name: &str| match config.backbone.use_layerscale {
            true => loader.tensor(&format!("{prefix}.{name}"), [dim]),
            false => Ok(loader.upload(vec![1.0; dim], [dim])),
        };
        let (gamma_1, gamma_2) = (gamma("gamma_1")?, gamma("gamma_2")?);
        let depthwise = match config.backbone.has_depthwise() {
            true => Some([
                Depthwise::load(loader, &format!("{prefix}.dw1"), dim)?,
                Depthwise::load(loader, &format!("{prefix}.dw2"), dim)?,
            ]),
            false => None,
        };
        Ok(Self {
            depthwise,
            modulation: FocalModulation::load(loader, &format!("{prefix}.modulation"), dim, levels)?,
            norm1: loader.norm(&format!("{prefix}.norm1"), dim, EPSILON)?,
            gamma_1,
            mlp: FeedForward {
                first: loader.linear(&format!("{prefix}.mlp.fc1"), dim, hidden)?,
                second: loader.linear(&format!("{prefix}.mlp.fc2"), hidden, dim)?,
                activation: Activation::Gelu,
            },
            norm2: loader.norm(&format!("{prefix}.norm2"), dim, EPSILON)?,
            gamma_2,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Result<Tensor<4>, OpError> {
        let Some([before_modulation, before_mlp]) = &self.depthwise else {
            let branch = self.modulation.forward(x.clone())?;
            let x = self.norm1.forward_fused(branch, residual(x, &self.gamma_1))?;
            let branch = self.mlp.forward(x.clone())?;
            return self.norm2.forward_fused(branch, residual(x, &self.gamma_2));
        };
        let x = before_modulation.forward(x)?;
        let branch = self.modulation.forward(x.clone())? * self.gamma_1.clone().unsqueeze();
        let x = before_mlp.forward(self.norm1.forward_fused(branch, Fusion::Add(x))?)?;
        let branch = self.mlp.forward(x.clone())? * self.gamma_2.clone().unsqueeze();
        self.norm2.forward_fused(branch, Fusion::Add(x))
    }
}

fn residual(x: Tensor<4>, gamma: &Tensor<1>) -> Fusion<Tensor<4>> {
    Fusion::Residual { residual: x, scale: gamma.clone().unsqueeze() }
}

/// A strided convolution and its norm: the stem, or the step from one stage to the next.
#[derive(Clone, Debug)]
struct PatchEmbed {
    proj: PackedWeight,
    norm: Norm,
    stride: usize,
    padding: usize,
}

impl PatchEmbed {
    fn forward(&self, x: Tensor<4>) -> Result<Tensor<4>, OpError> {
        self.norm.layer(conv2d(x, &self.proj, self.stride, self.padding, Activation::None)?)
    }
}

#[derive(Clone, Debug)]
struct BasicLayer {
    /// The stem for the first stage, the downsampling for all others.
    embed: PatchEmbed,
    blocks: Vec<FocalBlock>,
    /// Norm of the stage's output. The next stage takes the features before this norm.
    norm: Norm,
}

/// The backbone `backbone.*`.
#[derive(Clone, Debug)]
pub struct FocalNet {
    layers: Vec<BasicLayer>,
}

impl FocalNet {
    /// Loads `backbone.*`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key.
    pub(crate) fn load(loader: &mut Loader<'_>, config: &XDecoderConfig) -> Result<Self, ModelError> {
        let layers = config.backbone.depths.iter().enumerate().map(|(stage, &depth)| {
            let dim = config.stage_dim(stage);
            let embed = match stage.checked_sub(1) {
                // The padding of the stem is 2 in `focal`, not half its kernel.
                None => PatchEmbed {
                    proj: loader.conv2d("backbone.patch_embed.proj", [dim, 3, 7], true)?,
                    norm: loader.norm("backbone.patch_embed.norm", dim, EPSILON)?,
                    stride: 4,
                    padding: if config.backbone.has_depthwise() { 3 } else { 2 },
                },
                Some(before) => {
                    let prefix = format!("backbone.layers.{before}.downsample");
                    PatchEmbed {
                        proj: loader.conv2d(&format!("{prefix}.proj"), [dim, config.stage_dim(before), 3], true)?,
                        norm: loader.norm(&format!("{prefix}.norm"), dim, EPSILON)?,
                        stride: 2,
                        padding: 1,
                    }
                }
            };
            let blocks = (0..depth)
                .map(|i| FocalBlock::load(loader, &format!("backbone.layers.{stage}.blocks.{i}"), config, stage))
                .collect::<Result<_, _>>()?;
            Ok(BasicLayer { embed, blocks, norm: loader.norm(&format!("backbone.norm{stage}"), dim, EPSILON)? })
        });
        Ok(Self { layers: layers.collect::<Result<_, ModelError>>()? })
    }

    /// Maps normalised images `[B, H, W, 3]`, with H and W multiples of 32, to the feature maps res2 to res5.
    /// The first is `[B, H / 4, W / 4, C]`; each further one has half the height and width. `observe`
    /// receives `patch_embed` and `layer{i}_block{j}`.
    ///
    /// # Errors
    /// [`OpError`] if a layer does not fit the device.
    pub fn forward(
        &self,
        images: Tensor<4>,
        observe: &mut dyn FnMut(&str, &Tensor<4>),
    ) -> Result<Vec<Tensor<4>>, OpError> {
        let mut x = images;
        let mut maps = Vec::with_capacity(self.layers.len());
        for (stage, layer) in self.layers.iter().enumerate() {
            x = layer.embed.forward(x)?;
            if stage == 0 {
                observe("patch_embed", &x);
            }
            for (i, block) in layer.blocks.iter().enumerate() {
                x = block.forward(x)?;
                observe(&format!("layer{stage}_block{i}"), &x);
            }
            maps.push(layer.norm.layer(x.clone())?);
        }
        Ok(maps)
    }
}
