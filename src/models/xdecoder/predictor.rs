//! The query decoder, a transformer: queries attend to the image through masks that they predicted
//! themselves.

use burn::prelude::*;
use burn::tensor::activation::softmax;

use super::config::XDecoderConfig;
use super::pixel_decoder::PixelMaps;
use super::position::sine_positions;
use crate::models::ModelError;
use crate::models::layers::{FeedForward, Loader, MultiheadAttention, Norm};
use crate::ops::attention::Mask;
use crate::ops::bicubic_antialias::bicubic_antialias;
use crate::ops::conv2d::{Activation, PackedWeight, linear};
use crate::ops::layer_norm::Fusion;
use crate::ops::matmul::{Form, matmul};
use crate::ops::{OpError, int_tensor, plain};

const PREFIX: &str = "sem_seg_head.predictor";
const EPSILON: f32 = 1e-5;
/// Constant added to a norm before division, as in the reference.
const NORM_EPSILON: f32 = 1e-7;

#[derive(Clone, Debug)]
struct DecoderLayer {
    cross_attention: MultiheadAttention,
    cross_norm: Norm,
    self_attention: MultiheadAttention,
    self_norm: Norm,
    ffn: FeedForward,
    ffn_norm: Norm,
}

/// Output of the decoder for every query.
#[derive(Clone, Debug)]
pub struct Queries {
    /// Logits of the labels `[B, Q, labels]`.
    pub pred_logits: Tensor<3>,
    /// Mask logits `[B, Q, H / 4, W / 4]`.
    pub pred_masks: Tensor<4>,
    /// Embeddings `[B, Q, dim_proj]` in the space of the text, not normalised.
    pub mask_embed: Tensor<3>,
}

impl Queries {
    /// Drops the class token, which is the last query.
    #[must_use]
    pub fn without_class_token(self) -> Self {
        let objects = 0..self.mask_embed.dims()[1].saturating_sub(1);
        Self {
            pred_logits: self.pred_logits.slice_dim(1, objects.clone()),
            pred_masks: self.pred_masks.slice_dim(1, objects.clone()),
            mask_embed: self.mask_embed.slice_dim(1, objects),
        }
    }
}

/// Intermediate result of the decoder, for observers.
#[derive(Clone, Copy, Debug)]
pub enum Observed<'a> {
    /// Attention mask `[B, Q, h · w]` before layer i: 1 where a query must not attend. Queries blocked
    /// everywhere are not yet unblocked.
    Mask(usize, &'a Tensor<3, Int>),
    /// Queries `[B, Q, C]` after i layers.
    Queries(usize, &'a Tensor<3>),
}

/// The decoder `sem_seg_head.predictor.*`, without the text encoder.
#[derive(Clone, Debug)]
pub struct Predictor {
    layers: Vec<DecoderLayer>,
    decoder_norm: Norm,
    query_feat: Tensor<3>,
    query_embed: Tensor<3>,
    level_embed: Tensor<2>,
    class_embed: PackedWeight,
    mask_embed: Vec<PackedWeight>,
    /// Mask `[1, Q, Q]` of the self-attention: 1 where a query must not attend to another.
    self_attn_mask: Tensor<3, Int>,
}

impl Predictor {
    pub(crate) fn load(loader: &mut Loader<'_>, config: &XDecoderConfig, device: &Device) -> Result<Self, ModelError> {
        let d = &config.decoder;
        let (dim, num_queries) = (d.hidden_dim, d.num_queries);
        let layers = (0..d.layers).map(|i| {
            let cross = format!("{PREFIX}.transformer_cross_attention_layers.{i}");
            let own = format!("{PREFIX}.transformer_self_attention_layers.{i}");
            let ffn = format!("{PREFIX}.transformer_ffn_layers.{i}");
            Ok(DecoderLayer {
                cross_attention: MultiheadAttention::load(loader, &format!("{cross}.multihead_attn"), dim, d.heads)?,
                cross_norm: loader.norm(&format!("{cross}.norm"), dim, EPSILON)?,
                self_attention: MultiheadAttention::load(loader, &format!("{own}.self_attn"), dim, d.heads)?,
                self_norm: loader.norm(&format!("{own}.norm"), dim, EPSILON)?,
                ffn: FeedForward {
                    first: loader.linear(&format!("{ffn}.linear1"), dim, d.ffn_dim)?,
                    second: loader.linear(&format!("{ffn}.linear2"), d.ffn_dim, dim)?,
                    activation: Activation::Relu,
                },
                ffn_norm: loader.norm(&format!("{ffn}.norm"), dim, EPSILON)?,
            })
        });
        let layers = layers.collect::<Result<_, ModelError>>()?;
        let widths = [dim, dim, config.pixel_decoder.mask_dim];
        let mask_embed = widths.into_iter().enumerate();
        let mask_embed = mask_embed.map(|(i, out)| loader.linear(&format!("{PREFIX}.mask_embed.layers.{i}"), dim, out));
        Ok(Self {
            layers,
            mask_embed: mask_embed.collect::<Result<_, _>>()?,
            decoder_norm: loader.norm(&format!("{PREFIX}.decoder_norm"), dim, EPSILON)?,
            query_feat: loader.tensor(&format!("{PREFIX}.query_feat.weight"), [num_queries, dim])?.unsqueeze(),
            query_embed: loader.tensor(&format!("{PREFIX}.query_embed.weight"), [num_queries, dim])?.unsqueeze(),
            level_embed: loader.tensor(&format!("{PREFIX}.level_embed.weight"), [3, dim])?,
            class_embed: loader.projection(&format!("{PREFIX}.class_embed"), dim, config.dim_proj)?,
            self_attn_mask: self_attn_mask(num_queries, device),
        })
    }

    /// Decodes all queries, the class token last, from the maps of the pixel decoder. `text [labels,
    /// dim_proj]` has rows of unit length. `logit_scale` is the scale of their cosines. `observe` receives
    /// each [`Observed`].
    ///
    /// # Errors
    /// [`OpError`] if a layer does not fit the device.
    pub fn forward(
        &self,
        maps: &PixelMaps,
        text: Tensor<2>,
        logit_scale: f32,
        observe: &mut dyn FnMut(Observed<'_>),
    ) -> Result<Queries, OpError> {
        let (decoded, pred_masks) = self.decode(maps, observe, &mut |_, _| ())?;
        let mask_embed = linear(decoded, &self.class_embed, Activation::None)?;
        let class = unit_rows(mask_embed.clone()) * logit_scale;
        let pred_logits = linear(class, &PackedWeight::from_rows(text), Activation::None)?;
        Ok(Queries { pred_logits, pred_masks, mask_embed })
    }

    /// Does the same as [`forward`](Self::forward), but returns the queries before the first layer and after
    /// each layer. Gradients flow to the predictor's parameters, the maps, the text and `logit_scale [1]`.
    /// None flow through the attention masks.
    ///
    /// # Errors
    /// [`OpError`] if a layer does not fit the device.
    pub fn forward_train(
        &self,
        maps: &PixelMaps,
        text: Tensor<2>,
        logit_scale: Tensor<1>,
    ) -> Result<Vec<Queries>, OpError> {
        let mut heads = Vec::with_capacity(self.layers.len() + 1);
        let keep = &mut |decoded: &Tensor<3>, masks: &Tensor<4>| heads.push((decoded.clone(), masks.clone()));
        let last = self.decode(maps, &mut |_| (), keep)?;
        heads.push(last);
        let (text, logit_scale) = (PackedWeight::from_rows(text), logit_scale.reshape([1, 1, 1]));
        let heads = heads.into_iter().map(|(decoded, pred_masks)| {
            let mask_embed = linear(decoded, &self.class_embed, Activation::None)?;
            let class = unit_rows(mask_embed.clone()) * logit_scale.clone();
            Ok(Queries { pred_logits: linear(class, &text, Activation::None)?, pred_masks, mask_embed })
        });
        heads.collect()
    }

    /// Returns the decoded queries `[B, Q, C]` and masks `[B, Q, H / 4, W / 4]` after the last layer. Those
    /// before each layer are passed to `before`.
    fn decode(
        &self,
        maps: &PixelMaps,
        observe: &mut dyn FnMut(Observed<'_>),
        before: &mut dyn FnMut(&Tensor<3>, &Tensor<4>),
    ) -> Result<(Tensor<3>, Tensor<4>), OpError> {
        let mask_features = MaskFeatures::new(maps.mask_features.clone());
        let mut sources = Vec::with_capacity(maps.multi_scale.len());
        for (level, map) in maps.multi_scale.iter().enumerate() {
            let [batch, height, width, dim] = map.dims();
            let embed = self.level_embed.clone().slice([level..level + 1, 0..dim]).reshape([1, 1, dim]);
            let value = map.clone().reshape([batch, height * width, dim]) + embed;
            let key = value.clone() + sine_positions(height, width, dim, &map.device());
            sources.push((key, value, [height, width]));
        }
        let batch = maps.mask_features.dims()[0];
        let [_, num_queries, dim] = self.query_feat.dims();
        let embed = self.query_embed.clone().expand([batch, num_queries, dim]);
        let mut queries = self.query_feat.clone().expand([batch, num_queries, dim]);
        for (i, layer) in self.layers.iter().enumerate() {
            let (key, value, size) = &sources[i % sources.len()];
            let decoded = self.decoded(queries.clone())?;
            let masks = self.masks(decoded.clone(), &mask_features)?;
            before(&decoded, &masks);
            let blocked = blocked(masks, *size)?;
            observe(Observed::Mask(i, &blocked));
            // A query that is blocked everywhere attends everywhere.
            let blind = blocked.clone().min_dim(2);
            let mask = Mask::Blocked(blocked - blind);
            let query = queries.clone() + embed.clone();
            let attended = layer.cross_attention.forward(query, key.clone(), value.clone(), mask)?;
            queries = layer.cross_norm.forward_fused(attended, Fusion::Add(queries))?;
            let query = queries.clone() + embed.clone();
            let mask = Mask::Blocked(self.self_attn_mask.clone());
            let attended = layer.self_attention.forward(query.clone(), query, queries.clone(), mask)?;
            queries = layer.self_norm.forward_fused(attended, Fusion::Add(queries))?;
            let hidden = layer.ffn.forward(queries.clone())?;
            queries = layer.ffn_norm.forward_fused(hidden, Fusion::Add(queries))?;
            observe(Observed::Queries(i + 1, &queries));
        }
        let decoded = self.decoded(queries)?;
        let masks = self.masks(decoded.clone(), &mask_features)?;
        Ok((decoded, masks))
    }

    /// Returns the normalised queries. The class token is replaced by the mean of the object queries,
    /// weighted by the softmax of their cosines with it.
    fn decoded(&self, queries: Tensor<3>) -> Result<Tensor<3>, OpError> {
        let decoded = self.decoder_norm.layer(queries)?;
        let [batch, num_queries, dim] = decoded.dims();
        let objects = decoded.clone().slice([0..batch, 0..num_queries - 1, 0..dim]);
        let class_token = decoded.slice([0..batch, num_queries - 1..num_queries, 0..dim]);
        let cosines = matmul(unit_rows(class_token), unit_rows(objects.clone()), Form::RightTransposed)?;
        let mean = matmul(softmax(cosines, 2), objects.clone(), Form::Plain)?;
        Ok(Tensor::cat(vec![objects, mean], 1))
    }

    /// Returns the mask logits `[B, Q, H / 4, W / 4]` of decoded queries.
    fn masks(&self, decoded: Tensor<3>, features: &MaskFeatures) -> Result<Tensor<4>, OpError> {
        let [first, second, third] = &self.mask_embed[..] else {
            return Err(OpError::Value {
                op: "predictor",
                message: "the mask MLP does not have three layers".to_owned(),
            });
        };
        let hidden = linear(decoded, first, Activation::Relu)?;
        let hidden = linear(hidden, second, Activation::Relu)?;
        features.masks(linear(hidden, third, Activation::None)?)
    }
}

/// Mask features of the pixel decoder, packed once as a weight for all prediction heads.
struct MaskFeatures {
    images: Vec<PackedWeight>,
    size: [usize; 2],
}

impl MaskFeatures {
    fn new(features: Tensor<4>) -> Self {
        let [batch, height, width, dim] = features.dims();
        let rows = features.reshape([batch, height * width, dim]);
        let image = |i: usize| rows.clone().slice([i..i + 1, 0..height * width, 0..dim]);
        let images = (0..batch).map(|i| PackedWeight::from_rows(image(i).reshape([height * width, dim])));
        Self { images: images.collect(), size: [height, width] }
    }

    /// Returns the mask logits `[B, Q, h, w]` of `embed [B, Q, mask_dim]`.
    fn masks(&self, embed: Tensor<3>) -> Result<Tensor<4>, OpError> {
        let [_, num_queries, dim] = embed.dims();
        let [height, width] = self.size;
        let masks = self.images.iter().enumerate().map(|(i, features)| {
            let rows = embed.clone().slice([i..i + 1, 0..num_queries, 0..dim]);
            Ok(linear(rows, features, Activation::None)?.reshape([1, num_queries, height, width]))
        });
        Ok(Tensor::cat(masks.collect::<Result<_, OpError>>()?, 0))
    }
}

/// Returns `[B, Q, h · w]`: 1 where the mask, resampled to `size`, is negative.
fn blocked(masks: Tensor<4>, size: [usize; 2]) -> Result<Tensor<3, Int>, OpError> {
    let [batch, num_queries, height, width] = masks.dims();
    let resampled = bicubic_antialias(plain(masks).reshape([batch * num_queries, height, width]), size)?;
    Ok(resampled.lower_elem(0.0).int().reshape([batch, num_queries, size[0] * size[1]]))
}

/// Divides rows by (‖row‖₂ + 1e-7).
pub(super) fn unit_rows<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let norm = x.clone().powi_scalar(2).sum_dim(D - 1).sqrt();
    x / (norm + NORM_EPSILON)
}

/// Returns the self-attention mask. Objects do not attend to the class token, which attends only to itself.
fn self_attn_mask(num_queries: usize, device: &Device) -> Tensor<3, Int> {
    let class_token = num_queries - 1;
    let blocked = (0..num_queries * num_queries).map(|i| {
        let (query, key) = (i / num_queries, i % num_queries);
        i32::from((query == class_token) != (key == class_token))
    });
    int_tensor(blocked.collect(), [1, num_queries, num_queries], device)
}
