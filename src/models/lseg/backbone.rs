//! The vision transformer: an image cut into patches, through attention.

use burn::prelude::*;

use super::Observed;
use super::config::{LEVELS, LSegConfig, VIT};
use crate::models::ModelError;
use crate::models::layers::{FeedForward, Loader, MultiheadAttention, Norm};
use crate::ops::OpError;
use crate::ops::attention::Mask;
use crate::ops::bilinear::{Corners, bilinear};
use crate::ops::conv2d::{Activation, PackedWeight, conv2d};

#[derive(Clone, Debug)]
struct Block {
    norm1: Norm,
    attn: MultiheadAttention,
    norm2: Norm,
    mlp: FeedForward,
}

impl Block {
    fn load(loader: &mut Loader<'_>, prefix: &str, config: &LSegConfig) -> Result<Self, ModelError> {
        let (dim, hidden, epsilon) = (config.vit.embed_dim, config.hidden(), config.vit.layer_norm_eps);
        let input = [format!("{prefix}.attn.qkv.weight"), format!("{prefix}.attn.qkv.bias")];
        Ok(Self {
            norm1: loader.norm(&format!("{prefix}.norm1"), dim, epsilon)?,
            attn: MultiheadAttention::load_named(loader, input, &format!("{prefix}.attn.proj"), dim, config.vit.heads)?,
            norm2: loader.norm(&format!("{prefix}.norm2"), dim, epsilon)?,
            mlp: FeedForward {
                first: loader.linear(&format!("{prefix}.mlp.fc1"), dim, hidden)?,
                second: loader.linear(&format!("{prefix}.mlp.fc2"), hidden, dim)?,
                activation: Activation::Gelu,
            },
        })
    }

    fn forward(&self, x: Tensor<3>) -> Result<Tensor<3>, OpError> {
        let normed = self.norm1.layer(x.clone())?;
        let x = x + self.attn.forward(normed.clone(), normed.clone(), normed, Mask::None)?;
        let hidden = self.mlp.forward(self.norm2.layer(x.clone())?)?;
        Ok(x + hidden)
    }
}

/// The outputs of the tapped blocks.
pub(super) struct Taps {
    /// `[B, 1 + rows · columns, C]`, the class token first.
    pub(super) tokens: Vec<Tensor<3>>,
    /// Rows and columns of patches.
    pub(super) grid: [usize; 2],
}

/// The vision transformer `net.pretrained.model.*`.
#[derive(Clone, Debug)]
pub(super) struct VisionTransformer {
    patch_embed: PackedWeight,
    patch_size: usize,
    /// `[1, 1, C]`.
    cls_token: Tensor<3>,
    /// `[1, 1, C]`.
    cls_position: Tensor<3>,
    /// `[1, rows, columns, C]`.
    positions: Tensor<4>,
    /// Those up to the last that is tapped.
    blocks: Vec<Block>,
    hooks: [usize; LEVELS],
}

impl VisionTransformer {
    pub(super) fn load(loader: &mut Loader<'_>, config: &LSegConfig) -> Result<Self, ModelError> {
        let vit = &config.vit;
        let (dim, [rows, columns]) = (vit.embed_dim, vit.pos_grid);
        let positions = loader.host(&format!("{VIT}.pos_embed"), &[1, rows * columns + 1, dim])?;
        let (cls_position, grid) = positions.split_at(dim);
        let (cls_position, positions) =
            (loader.upload(cls_position.to_vec(), [1, 1, dim]), loader.upload(grid.to_vec(), [1, rows, columns, dim]));
        let blocks = (0..=vit.hooks[LEVELS - 1]).map(|i| Block::load(loader, &format!("{VIT}.blocks.{i}"), config));
        Ok(Self {
            blocks: blocks.collect::<Result<_, _>>()?,
            patch_embed: loader.conv2d(&format!("{VIT}.patch_embed.proj"), [dim, 3, vit.patch_size], true)?,
            patch_size: vit.patch_size,
            cls_token: loader.tensor(&format!("{VIT}.cls_token"), [1, 1, dim])?,
            cls_position,
            positions,
            hooks: vit.hooks,
        })
    }

    /// `observe` receives `patch_embed`, `pos_embed`, `block_0` and `hook_1` to `hook_4`.
    pub(super) fn forward(
        &self,
        images: Tensor<4>,
        observe: &mut dyn FnMut(&str, Observed<'_>),
    ) -> Result<Taps, OpError> {
        let patches = conv2d(images, &self.patch_embed, self.patch_size, 0, Activation::None)?;
        let [batch, rows, columns, dim] = patches.dims();
        let patches = patches.reshape([batch, rows * columns, dim]);
        observe("patch_embed", Observed::Tokens(&patches));
        let positions = bilinear(self.positions.clone(), [rows, columns], Corners::Free)?;
        let positions = Tensor::cat(vec![self.cls_position.clone(), positions.reshape([1, rows * columns, dim])], 1);
        observe("pos_embed", Observed::Tokens(&positions));
        let mut x = Tensor::cat(vec![self.cls_token.clone().expand([batch, 1, dim]), patches], 1) + positions;
        let mut tokens = Vec::with_capacity(LEVELS);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x)?;
            if i == 0 {
                observe("block_0", Observed::Tokens(&x));
            }
            if self.hooks.contains(&i) {
                tokens.push(x.clone());
                observe(&format!("hook_{}", tokens.len()), Observed::Tokens(&x));
            }
        }
        Ok(Taps { tokens, grid: [rows, columns] })
    }
}
