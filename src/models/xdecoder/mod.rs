//! X-Decoder (Zou et al., CVPR 2023): predicts masks with embeddings in the same space as text.
//!
//! This module has the parts that GeoPurify uses: the Focal backbone, the pixel decoder, the query decoder
//! and the text encoder. The heads for captions, retrieval and grounding are left out. Feature maps are
//! channels last.

mod backbone;
mod config;
mod init;
mod pixel_decoder;
mod position;
mod predictor;
pub mod prompts;
mod text;

use burn::prelude::*;

pub use backbone::FocalNet;
pub use config::{BackboneConfig, ConfigError, DecoderConfig, PixelDecoderConfig, TextConfig, XDecoderConfig};
pub use init::initial_weights;
pub use pixel_decoder::{PixelDecoder, PixelMaps};
pub use predictor::{Observed, Predictor, Queries};
pub use text::TextEncoder;

use super::ModelError;
use super::layers::Loader;
use crate::ops::conv2d::Precision;
use crate::ops::{OpError, float_tensor, limits_of};
use crate::weights::{LoadReport, TensorSource, match_keys};

/// An X-Decoder for inference. If loaded from [`Parameters`](crate::pretrain::parameters::Parameters), it can
/// also be trained.
#[derive(Clone, Debug)]
pub struct XDecoder {
    /// Configuration of the model.
    pub config: XDecoderConfig,
    /// Backbone: from images to feature maps.
    pub backbone: FocalNet,
    /// Pixel decoder: from feature maps to mask features.
    pub pixel_decoder: PixelDecoder,
    /// Query decoder: from mask features to queries.
    pub predictor: Predictor,
    /// Text encoder: from words to embeddings.
    pub text_encoder: TextEncoder,
    device: Device,
}

/// Embeddings of the labels to look for.
#[derive(Clone, Debug)]
pub struct TextEmbeddings {
    /// Words of the labels, without the background.
    pub labels: Vec<String>,
    /// Rows of unit length `[labels + 1, dim_proj]`, one per label. The last is the background's.
    pub rows: Tensor<2>,
    /// Scale of the cosines between classes and rows.
    pub logit_scale: f32,
}

impl XDecoder {
    /// Builds the model from a source of the reference's tensors. Keys that inference does not need are
    /// skipped and listed in the report. A key that is missing, unknown or of another shape is an error.
    ///
    /// # Errors
    /// [`ModelError::Config`] if the configuration is not supported, [`ModelError::Weights`] with the file
    /// and the key, [`ModelError::Op`] if a weight does not fit the device.
    pub fn load(
        source: &mut dyn TensorSource,
        config: XDecoderConfig,
        precision: Precision,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        config.validate()?;
        let ignored: Vec<&str> = XDecoderConfig::UNUSED.iter().map(|(pattern, _)| *pattern).collect();
        let report = match_keys(source, &config.keys(), &ignored);
        report.ensure_complete()?;
        let loader = &mut Loader::new(source, device, precision);
        let model = Self {
            backbone: FocalNet::load(loader, &config)?,
            pixel_decoder: PixelDecoder::load(loader, &config)?,
            predictor: Predictor::load(loader, &config, device)?,
            text_encoder: TextEncoder::load(loader, &config, device)?,
            config,
            device: device.clone(),
        };
        Ok((model, report))
    }

    /// Loads only the text encoder, for queries on features that exist already. No other tensor of the source
    /// is read.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_text_encoder(
        source: &mut dyn TensorSource,
        config: &XDecoderConfig,
        precision: Precision,
        device: &Device,
    ) -> Result<TextEncoder, ModelError> {
        config.validate()?;
        TextEncoder::load(&mut Loader::new(source, device, precision), config, device)
    }

    /// Embeds the words to look for, see [`TextEncoder::embed_words`].
    ///
    /// # Errors
    /// [`OpError`] if the device fails.
    pub fn embed_text(&self, words: &[String]) -> Result<TextEmbeddings, OpError> {
        self.text_encoder.embed_words(words)
    }

    /// Returns height and width after padding at the bottom and the right.
    #[must_use]
    pub fn padded_size(&self, [height, width]: [usize; 2]) -> [usize; 2] {
        [height, width].map(|size| size.next_multiple_of(self.config.size_divisibility))
    }

    /// Estimates the working memory in bytes for one view of `size` (height, width), without the weights,
    /// from the widths of the largest layers.
    #[must_use]
    pub fn view_bytes(&self, size: [usize; 2]) -> u64 {
        let (config, first) = (&self.config, self.config.stage_dim(0));
        // Values per cell of the finest map. First a block's MLP with its input, branch and residual. Then
        // the maps of the pyramid and the mask features, which are kept unpacked and packed, with the masks
        // of all queries.
        let backbone = config.mlp_dim(0) + 4 * first;
        let pyramid = 3 * config.pixel_decoder.conv_dim + 2 * config.pixel_decoder.mask_dim;
        let masks = 2 * config.pixel_decoder.mask_dim + 3 * config.decoder.num_queries;
        // The four output maps of the backbone together have twice the size of the first.
        let values = 2 * first + backbone.max(pyramid).max(masks);
        self.num_cells(size) * values as u64 * 4
    }

    /// Returns the number of views of `size` that fit into one batch: within `budget` bytes of working memory
    /// and the device's largest buffer, at least 1.
    #[must_use]
    pub fn views_in(&self, budget: u64, size: [usize; 2]) -> usize {
        let config = &self.config;
        let widest = config.mlp_dim(0).max(config.pixel_decoder.conv_dim).max(config.pixel_decoder.mask_dim);
        let buffer = limits_of(&self.device).max_binding_bytes / (self.num_cells(size) * widest as u64 * 4).max(1);
        let memory = budget / self.view_bytes(size).max(1);
        usize::try_from(memory.min(buffer)).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the number of cells of the finest map, which has a quarter of the padded image's height and
    /// width.
    fn num_cells(&self, size: [usize; 2]) -> u64 {
        let [height, width] = self.padded_size(size);
        (height / 4) as u64 * (width / 4) as u64
    }

    /// Normalises and pads images of one size, RGB in 0..255, `[B, H, W, 3]` flat, to a tensor of the padded
    /// size. The padding is 0, the mean colour.
    ///
    /// # Errors
    /// [`OpError::Value`] if the number of values does not match the size, or an image has no pixels.
    pub fn prepare(&self, images: &[f32], [height, width]: [usize; 2]) -> Result<Tensor<4>, OpError> {
        let image = height * width * 3;
        if image == 0 || !images.len().is_multiple_of(image) {
            let message = format!("{} values, expected images of {height} x {width} RGB pixels", images.len());
            return Err(OpError::Value { op: "xdecoder", message });
        }
        let [padded_height, padded_width] = self.padded_size([height, width]);
        let batch = images.len() / image;
        let mut values = vec![0.0; batch * padded_height * padded_width * 3];
        let (mean, std) = (self.config.pixel_mean, self.config.pixel_std);
        let rows = images.chunks_exact(width * 3).enumerate();
        for (i, row) in rows {
            let at = (i / height * padded_height + i % height) * padded_width * 3;
            for (to, from) in values[at..at + width * 3].as_chunks_mut::<3>().0.iter_mut().zip(row.as_chunks::<3>().0) {
                *to = std::array::from_fn(|c| (from[c] - mean[c]) / std[c]);
            }
        }
        Ok(float_tensor(values, [batch, padded_height, padded_width, 3], &self.device))
    }

    /// Runs the model on prepared images. The class token is dropped from the result.
    ///
    /// # Errors
    /// [`OpError`] if a layer does not fit the device.
    pub fn forward(&self, images: Tensor<4>, text: &TextEmbeddings) -> Result<Queries, OpError> {
        let maps = self.backbone.forward(images, &mut |_, _| ())?;
        let maps = self.pixel_decoder.forward(&maps, &mut |_, _| ())?;
        let queries = self.predictor.forward(&maps, text.rows.clone(), text.logit_scale, &mut |_| ())?;
        Ok(queries.without_class_token())
    }

    /// Runs the model for training. Returns the queries before the decoder's first layer and after each
    /// layer, for a loss on each of them, and the mask features `[B, H / 4, W / 4, mask_dim]`, for their own
    /// loss.
    ///
    /// Gradients flow to the parameters the model was loaded from, to `text_rows [labels, dim_proj]` of unit
    /// length, and to `logit_scale [1]` (see [`TextEncoder::embed_texts_tracked`] and
    /// [`TextEncoder::logit_scale_tracked`]). No gradient flows through the attention masks. The class token
    /// is dropped.
    ///
    /// # Errors
    /// [`OpError`] if a layer does not fit the device.
    pub fn forward_train(
        &self,
        images: Tensor<4>,
        text_rows: Tensor<2>,
        logit_scale: Tensor<1>,
    ) -> Result<(Vec<Queries>, Tensor<4>), OpError> {
        let maps = self.backbone.forward(images, &mut |_, _| ())?;
        let maps = self.pixel_decoder.forward(&maps, &mut |_, _| ())?;
        let heads = self.predictor.forward_train(&maps, text_rows, logit_scale)?;
        Ok((heads.into_iter().map(Queries::without_class_token).collect(), maps.mask_features))
    }
}
