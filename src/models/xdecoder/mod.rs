//! X-Decoder (Zou et al., CVPR 2023): masks with embeddings that live in the same space as text.
//!
//! Everything that GeoPurify asks of it: the Focal backbone, the pixel decoder, the decoder of the queries and
//! the text encoder. The heads for captions, retrieval and grounding are left out. Maps are channels last.

mod backbone;
mod byte_pairs;
mod config;
mod fix_text;
mod init;
mod mojibake;
mod pixel_decoder;
mod position;
mod predictor;
pub mod prompts;
mod text;
pub mod tokenizer;

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

/// An X-Decoder, ready for inference; where it was loaded from
/// [`Parameters`](crate::pretrain::parameters::Parameters), also for training.
#[derive(Clone, Debug)]
pub struct XDecoder {
    /// Widths and depths.
    pub config: XDecoderConfig,
    /// Images to maps.
    pub backbone: FocalNet,
    /// Maps to mask features.
    pub pixel_decoder: PixelDecoder,
    /// Mask features to queries.
    pub predictor: Predictor,
    /// Words to embeddings.
    pub text_encoder: TextEncoder,
    device: Device,
}

/// Embeddings of the labels to look for.
#[derive(Clone, Debug)]
pub struct TextEmbeddings {
    /// The labels' words, without the background.
    pub labels: Vec<String>,
    /// Rows of unit length, one per label and the background's last, `[labels + 1, dim_proj]`.
    pub rows: Tensor<2>,
    /// The factor of cosines between classes and rows.
    pub logit_scale: f32,
}

impl XDecoder {
    /// Builds the model from a source of the reference's tensors. Keys that inference has no use for are left
    /// out and named in the report; anything missing, left over or of another shape is fatal.
    ///
    /// # Errors
    /// [`ModelError::Config`] where the configuration does not run here, [`ModelError::Weights`] naming the file
    /// and the key, [`ModelError::Op`] where a weight does not fit the device.
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

    /// Loads the text encoder alone, for questions to features that are there already: of the source's other tensors
    /// none is read.
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

    /// Embeds what to look for, see [`TextEncoder::embed_words`].
    ///
    /// # Errors
    /// [`OpError`] where the device fails.
    pub fn embed_text(&self, words: &[String]) -> Result<TextEmbeddings, OpError> {
        self.text_encoder.embed_words(words)
    }

    /// Height and width after padding on the bottom and the right.
    #[must_use]
    pub fn padded_size(&self, [height, width]: [usize; 2]) -> [usize; 2] {
        [height, width].map(|size| size.next_multiple_of(self.config.size_divisibility))
    }

    /// Working memory of one view of `size` (height, width) beside the weights, in bytes: an estimate from the widths of
    /// the layers that hold most at a time.
    #[must_use]
    pub fn view_bytes(&self, size: [usize; 2]) -> u64 {
        let (config, first) = (&self.config, self.config.stage_dim(0));
        // Values per cell of the finest map: a block's MLP with its input, branch and residual, then the pyramid's
        // maps and the mask features, which stay as such and packed, with the masks of all queries.
        let backbone = config.mlp_dim(0) + 4 * first;
        let pyramid = 3 * config.pixel_decoder.conv_dim + 2 * config.pixel_decoder.mask_dim;
        let masks = 2 * config.pixel_decoder.mask_dim + 3 * config.decoder.num_queries;
        // The four maps given out by the backbone are together twice the first.
        let values = 2 * first + backbone.max(pyramid).max(masks);
        self.num_cells(size) * values as u64 * 4
    }

    /// How many views of `size` go through together: as many as fit `budget` bytes of working memory and the device's
    /// largest buffer, at least 1.
    #[must_use]
    pub fn views_in(&self, budget: u64, size: [usize; 2]) -> usize {
        let config = &self.config;
        let widest = config.mlp_dim(0).max(config.pixel_decoder.conv_dim).max(config.pixel_decoder.mask_dim);
        let buffer = limits_of(&self.device).max_binding_bytes / (self.num_cells(size) * widest as u64 * 4).max(1);
        let memory = budget / self.view_bytes(size).max(1);
        usize::try_from(memory.min(buffer)).unwrap_or(usize::MAX).max(1)
    }

    /// Cells of the finest map, a quarter of the padded image in both directions.
    fn num_cells(&self, size: [usize; 2]) -> u64 {
        let [height, width] = self.padded_size(size);
        (height / 4) as u64 * (width / 4) as u64
    }

    /// Normalises and pads images of one size, RGB in 0..255, `[B, H, W, 3]` flat, to a tensor of the padded
    /// size. The padding is 0, the mean colour.
    ///
    /// # Errors
    /// [`OpError::Value`] where the values are not as many as the size tells, or an image has no pixel.
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

    /// What the queries see in prepared images: the class token is dropped.
    ///
    /// # Errors
    /// [`OpError`] where a layer does not fit the device.
    pub fn forward(&self, images: Tensor<4>, text: &TextEmbeddings) -> Result<Queries, OpError> {
        let maps = self.backbone.forward(images, &mut |_, _| ())?;
        let maps = self.pixel_decoder.forward(&maps, &mut |_, _| ())?;
        let queries = self.predictor.forward(&maps, text.rows.clone(), text.logit_scale, &mut |_| ())?;
        Ok(queries.without_class_token())
    }

    /// What the queries see before the decoder's first layer and after each, with gradients to the parameters the model
    /// was loaded from, `text_rows [labels, dim_proj]` of unit length and `logit_scale [1]` (see
    /// [`TextEncoder::embed_texts_tracked`] and [`TextEncoder::logit_scale_tracked`]): for a loss on every one of them.
    /// The class token is dropped; no gradient flows through the masks of attention. With them come the mask features
    /// `[B, H / 4, W / 4, mask_dim]`, for a loss of their own.
    ///
    /// # Errors
    /// [`OpError`] where a layer does not fit the device.
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
