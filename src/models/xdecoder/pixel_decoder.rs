//! The pixel decoder: a transformer encoder on the coarsest map, then a feature pyramid down to the finest.

use burn::prelude::*;

use super::config::XDecoderConfig;
use super::position::sine_positions;
use crate::models::ModelError;
use crate::models::layers::{FeedForward, Loader, MultiheadAttention, Norm};
use crate::ops::OpError;
use crate::ops::attention::Mask;
use crate::ops::conv2d::{Activation, PackedWeight, conv2d, linear};
use crate::ops::group_norm::{Epilogue, group_norm};
use crate::ops::layer_norm::Fusion;

const PREFIX: &str = "sem_seg_head.pixel_decoder";
const EPSILON: f32 = 1e-5;

/// A transformer encoder layer whose norms follow its parts.
#[derive(Clone, Debug)]
struct EncoderLayer {
    self_attn: MultiheadAttention,
    norm1: Norm,
    ffn: FeedForward,
    norm2: Norm,
}

/// A convolution without bias and its group norm.
#[derive(Clone, Debug)]
struct ConvNorm {
    conv: PackedWeight,
    norm: Norm,
    padding: usize,
    num_groups: usize,
}

impl ConvNorm {
    fn load(
        loader: &mut Loader<'_>,
        prefix: &str,
        [num_out, num_in, kernel]: [usize; 3],
        num_groups: usize,
    ) -> Result<Self, ModelError> {
        let conv = loader.conv2d(prefix, [num_out, num_in, kernel], false)?;
        let norm = loader.norm(&format!("{prefix}.norm"), num_out, EPSILON)?;
        Ok(Self { conv, norm, padding: kernel / 2, num_groups })
    }

    fn forward(&self, x: Tensor<4>, epilogue: Epilogue<Tensor<4>>) -> Result<Tensor<4>, OpError> {
        let x = conv2d(x, &self.conv, 1, self.padding, Activation::None)?;
        group_norm(x, &self.norm.weight, &self.norm.bias, self.num_groups, self.norm.epsilon, epilogue)
    }
}

/// Output of the pixel decoder.
#[derive(Clone, Debug)]
pub struct PixelMaps {
    /// `[B, H / 4, W / 4, mask_dim]` mask features. A mask is their dot product with a query.
    pub mask_features: Tensor<4>,
    /// The three maps that the queries attend to, coarsest first: 1/32, 1/16 and 1/8 of the image's height
    /// and width.
    pub multi_scale: Vec<Tensor<4>>,
}

/// The pixel decoder `sem_seg_head.pixel_decoder.*`.
#[derive(Clone, Debug)]
pub struct PixelDecoder {
    input_proj: PackedWeight,
    encoder: Vec<EncoderLayer>,
    /// `adapter_1` to `adapter_3`, which map to the pyramid's channels.
    adapters: Vec<ConvNorm>,
    /// `layer_1` to `layer_4`.
    layers: Vec<ConvNorm>,
    mask_features: PackedWeight,
}

impl PixelDecoder {
    pub(crate) fn load(loader: &mut Loader<'_>, config: &XDecoderConfig) -> Result<Self, ModelError> {
        let p = &config.pixel_decoder;
        let (dim, groups) = (p.conv_dim, p.gn_groups);
        let encoder = (0..p.enc_layers).map(|i| {
            let prefix = format!("{PREFIX}.transformer.encoder.layers.{i}");
            Ok(EncoderLayer {
                self_attn: MultiheadAttention::load(loader, &format!("{prefix}.self_attn"), dim, p.heads)?,
                norm1: loader.norm(&format!("{prefix}.norm1"), dim, EPSILON)?,
                ffn: FeedForward {
                    first: loader.linear(&format!("{prefix}.linear1"), dim, p.ffn_dim)?,
                    second: loader.linear(&format!("{prefix}.linear2"), p.ffn_dim, dim)?,
                    activation: Activation::Relu,
                },
                norm2: loader.norm(&format!("{prefix}.norm2"), dim, EPSILON)?,
            })
        });
        let encoder = encoder.collect::<Result<_, ModelError>>()?;
        let adapters = (1..=3).map(|i| {
            let num_in = config.stage_dim(i - 1);
            ConvNorm::load(loader, &format!("{PREFIX}.adapter_{i}"), [dim, num_in, 1], groups)
        });
        let adapters = adapters.collect::<Result<_, _>>()?;
        let layers = (1..=4).map(|i| ConvNorm::load(loader, &format!("{PREFIX}.layer_{i}"), [dim, dim, 3], groups));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            input_proj: loader.conv2d(&format!("{PREFIX}.input_proj"), [dim, config.stage_dim(3), 1], true)?,
            encoder,
            adapters,
            mask_features: loader.conv2d(&format!("{PREFIX}.mask_features"), [p.mask_dim, dim, 3], true)?,
        })
    }

    /// Decodes the backbone's maps res2 to res5. `observe` receives `pos_res5` and `transformer_encoder`.
    ///
    /// # Errors
    /// [`OpError`] if a layer does not fit the device.
    pub fn forward(&self, maps: &[Tensor<4>], observe: &mut dyn FnMut(&str, &Tensor<4>)) -> Result<PixelMaps, OpError> {
        let [res2, res3, res4, res5] = maps else {
            let message = format!("{} maps, expected res2 to res5", maps.len());
            return Err(OpError::Value { op: "pixel_decoder", message });
        };
        let coarsest = linear(res5.clone(), &self.input_proj, Activation::None)?;
        let [batch, height, width, dim] = coarsest.dims();
        let positions = sine_positions(height, width, dim, &coarsest.device());
        observe("pos_res5", &positions.clone().reshape([1, height, width, dim]));
        let mut tokens = coarsest.reshape([batch, height * width, dim]);
        for layer in &self.encoder {
            let query = tokens.clone() + positions.clone();
            let attended = layer.self_attn.forward(query.clone(), query, tokens.clone(), Mask::None)?;
            tokens = layer.norm1.forward_fused(attended, Fusion::Add(tokens))?;
            let hidden = layer.ffn.forward(tokens.clone())?;
            tokens = layer.norm2.forward_fused(hidden, Fusion::Add(tokens))?;
        }
        let encoded = tokens.reshape([batch, height, width, dim]);
        observe("transformer_encoder", &encoded);
        let mut y = self.layers[3].forward(encoded, Epilogue::Relu)?;
        let mut multi_scale = vec![y.clone()];
        for (i, map) in [res2, res3, res4].into_iter().enumerate().rev() {
            let joined = self.adapters[i].forward(map.clone(), Epilogue::AddUpsampled(y))?;
            y = self.layers[i].forward(joined, Epilogue::Relu)?;
            if i > 0 {
                multi_scale.push(y.clone());
            }
        }
        let mask_features = conv2d(y, &self.mask_features, 1, 1, Activation::None)?;
        Ok(PixelMaps { mask_features, multi_scale })
    }
}
