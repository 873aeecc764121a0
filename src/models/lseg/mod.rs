//! LSeg (Li et al., ICLR 2022): a feature for every pixel in the same space as CLIP's texts.
//!
//! This module has the network of the published demo model: a vision transformer, a decoder of dense predictions
//! (DPT, Ranftl et al., ICCV 2021), and CLIP's text side out of the same checkpoint. Feature maps are channels last.

mod backbone;
mod config;
mod decoder;
mod evaluator;
mod reassemble;

use burn::prelude::*;

pub use config::{ConfigError, DptConfig, LSegConfig, ReassembleConfig, VitConfig};
pub use evaluator::{enlarged, network_side, normalized};

use super::ModelError;
use super::clip::ClipText;
use super::layers::Loader;
use crate::ops::OpError;
use crate::ops::conv2d::Precision;
use crate::weights::{LoadReport, TensorSource, match_keys};
use backbone::VisionTransformer;
use decoder::Decoder;
use reassemble::Reassemble;

/// Scale of the cosines between pixels and texts: 1 / 0.07, the constant that LSeg was trained with.
pub const LOGIT_SCALE: f32 = 14.285_714;

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
        let path = self.path(images, observe)?;
        self.decoder.features(path, observe)
    }

    /// Runs the network up to the map that the head reads: `[B, H / 2, W / 2, dpt.features]`.
    fn path(&self, images: Tensor<4>, observe: &mut dyn FnMut(&str, Observed<'_>)) -> Result<Tensor<4>, OpError> {
        let [_, height, width, _] = images.dims();
        let divisor = self.config.size_divisibility;
        if height * width == 0 || !height.is_multiple_of(divisor) || !width.is_multiple_of(divisor) {
            let message = format!("an image of {height} x {width}, expected multiples of {divisor}");
            return Err(OpError::Value { op: "lseg", message });
        }
        let taps = self.backbone.forward(images, observe)?;
        let maps = self.reassemble.forward(&taps, observe)?;
        self.decoder.forward(maps, observe)
    }
}
