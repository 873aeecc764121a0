//! LSeg (Li et al., ICLR 2022): a feature for every pixel in the same space as CLIP's texts.
//!
//! This module has the network of the published demo model: a vision transformer, a decoder of dense predictions
//! (DPT, Ranftl et al., ICCV 2021), and CLIP's text side out of the same checkpoint. Feature maps are channels last.

mod backbone;
mod config;
mod decoder;
mod evaluator;
mod reassemble;
mod with_clip;

use burn::prelude::*;

pub use config::{ConfigError, DptConfig, LSegConfig, ReassembleConfig, VitConfig};
pub use evaluator::{enlarged, network_side, normalized};
pub use with_clip::WithClip;

use super::ModelError;
use super::clip::ClipText;
use super::layers::Loader;
use crate::ops::conv2d::Precision;
use crate::ops::{OpError, limits_of};
use crate::weights::{LoadReport, TensorSource, match_keys};
use backbone::VisionTransformer;
use decoder::Decoder;
use reassemble::Reassemble;

/// Scale of the cosines between pixels and texts: 1 / 0.07, the constant that LSeg was trained with.
pub const LOGIT_SCALE: f32 = 14.285_714;
/// Prompt of everything that belongs to none of the classes asked for.
pub const BACKGROUND: &str = "background and other objects";

/// A value on the way through the network.
#[derive(Clone, Copy, Debug)]
pub enum Observed<'a> {
    /// Tokens `[B, N, C]`.
    Tokens(&'a Tensor<3>),
    /// A map `[B, h, w, C]`.
    Map(&'a Tensor<4>),
}

/// An LSeg for inference.
#[derive(Clone, Debug)]
pub struct LSeg {
    /// Configuration of the model.
    pub config: LSegConfig,
    /// CLIP's text side, in whose space the features are.
    pub text: ClipText,
    backbone: VisionTransformer,
    reassemble: Reassemble,
    decoder: Decoder,
    device: Device,
}

impl LSeg {
    /// Builds the model from a source of the reference's tensors. Keys that features do not need are skipped and
    /// listed in the report. A key that is missing, unknown or of another shape is an error.
    ///
    /// # Errors
    /// [`ModelError::LSeg`] if the configuration is not supported, [`ModelError::Weights`] with the file and the
    /// key, [`ModelError::Op`] if a weight does not fit the device.
    pub fn load(
        source: &mut dyn TensorSource,
        config: LSegConfig,
        precision: Precision,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        config.validate()?;
        let ignored: Vec<&str> = LSegConfig::UNUSED.iter().map(|(pattern, _)| *pattern).collect();
        let report = match_keys(source, &config.keys(), &ignored);
        report.ensure_complete()?;
        let loader = &mut Loader::new(source, device, precision);
        let model = Self {
            backbone: VisionTransformer::load(loader, &config)?,
            reassemble: Reassemble::load(loader, &config)?,
            decoder: Decoder::load(loader, &config)?,
            text: ClipText::load_part(loader, config.text.clone(), &LSegConfig::text_names(), device)?,
            config,
            device: device.clone(),
        };
        Ok((model, report))
    }

    /// Loads only the text side. No other tensor of the source is read.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_text(
        source: &mut dyn TensorSource,
        config: &LSegConfig,
        precision: Precision,
        device: &Device,
    ) -> Result<ClipText, ModelError> {
        config.validate()?;
        let loader = &mut Loader::new(source, device, precision);
        ClipText::load_part(loader, config.text.clone(), &LSegConfig::text_names(), device)
    }

    /// Returns the device of the weights.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Estimates the working memory in bytes for one picture whose pixels are those of `grid` (rows, columns), without
    /// the weights, from the widths of the largest layers.
    #[must_use]
    pub fn view_bytes(&self, grid: [usize; 2]) -> u64 {
        let side = network_side(grid, self.config.size_divisibility);
        let vit = &self.config.vit;
        // A residual unit of the finest map keeps its input, its branch and what it is added to.
        let decoder = self.num_cells(side) * 4 * self.config.dpt.features as u64;
        let num_tokens = ((side / vit.patch_size.max(1)) as u64).pow(2);
        let backbone = num_tokens * (self.config.hidden() + 8 * vit.embed_dim) as u64;
        // Those of both passes, and their sum.
        let features = 3 * self.num_values(grid);
        4 * (decoder.max(backbone) + features)
    }

    /// Returns the number of pictures with the pixels of `grid` that fit into one batch: within `budget` bytes of
    /// working memory and the device's largest buffer, at least 1.
    #[must_use]
    pub fn views_in(&self, budget: u64, grid: [usize; 2]) -> usize {
        let side = network_side(grid, self.config.size_divisibility);
        let largest = (self.num_cells(side) * self.config.dpt.features as u64).max(self.num_values(grid));
        let buffer = limits_of(&self.device).max_binding_bytes / (4 * largest).max(1);
        let memory = budget / self.view_bytes(grid).max(1);
        usize::try_from(memory.min(buffer)).unwrap_or(usize::MAX).max(1)
    }

    /// Number of cells of the finest map of a square of `side` pixels.
    fn num_cells(&self, side: usize) -> u64 {
        ((side / 2) as u64).pow(2)
    }

    /// Number of values of the features of a grid.
    fn num_values(&self, [rows, columns]: [usize; 2]) -> u64 {
        rows as u64 * columns as u64 * self.config.out_channels as u64
    }

    /// Runs the network on [`normalized`] images `[B, H, W, 3]`, whose height and width are multiples of
    /// `size_divisibility`. Returns features of unit length `[B, H / 2, W / 2, out_channels]`. `observe` receives
    /// the values that the reference's parts give, under the names `patch_embed`, `pos_embed`, `block_0`, `hook_1`
    /// to `hook_4`, `reassemble_1` to `reassemble_4`, `layer_rn_1` to `layer_rn_4`, `path_4` to `path_1`, `head`.
    ///
    /// # Errors
    /// [`OpError::Value`] for an image of another size, or the error of a layer that does not fit the device.
    pub fn forward(
        &self,
        images: Tensor<4>,
        observe: &mut dyn FnMut(&str, Observed<'_>),
    ) -> Result<Tensor<4>, OpError> {
        let [_, height, ..] = images.dims();
        let path = self.path(images, height / 2, observe)?;
        self.decoder.features(path, observe)
    }

    /// Runs the network up to the map that the head reads: `[B, H / 2, W / 2, dpt.features]`, of which the first
    /// `num_rows` are right.
    fn path(
        &self,
        images: Tensor<4>,
        num_rows: usize,
        observe: &mut dyn FnMut(&str, Observed<'_>),
    ) -> Result<Tensor<4>, OpError> {
        let [_, height, width, _] = images.dims();
        let divisor = self.config.size_divisibility;
        if height * width == 0 || !height.is_multiple_of(divisor) || !width.is_multiple_of(divisor) {
            let message = format!("an image of {height} x {width}, expected multiples of {divisor}");
            return Err(OpError::Value { op: "lseg", message });
        }
        let taps = self.backbone.forward(images, observe)?;
        let maps = self.reassemble.forward(&taps, observe)?;
        self.decoder.forward(maps, num_rows, observe)
    }
}
