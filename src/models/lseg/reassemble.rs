//! Taps of the transformer put together to maps of four sizes.

use burn::prelude::*;

use super::Observed;
use super::backbone::Taps;
use super::config::{FINER, LEVELS, LSegConfig, POSTPROCESS};
use crate::models::ModelError;
use crate::models::layers::{Loader, Values};
use crate::ops::OpError;
use crate::ops::conv_transpose2d::{TransposedWeight, conv_transpose2d};
use crate::ops::conv2d::{Activation, PackedWeight, conv2d, linear};

/// How a map gets its size.
#[derive(Clone, Debug)]
enum Resize {
    Finer(TransposedWeight),
    Same,
    Coarser(PackedWeight),
}

#[derive(Clone, Debug)]
struct Level {
    /// The half of the readout that reads a token.
    of_token: PackedWeight,
    /// The half that reads the class token, with the bias.
    of_class: PackedWeight,
    project: PackedWeight,
    resize: Resize,
}

impl Level {
    fn load(loader: &mut Loader<'_>, level: usize, config: &LSegConfig) -> Result<Self, ModelError> {
        let (dim, channels) = (config.vit.embed_dim, config.reassemble.channels[level]);
        let prefix = format!("{POSTPROCESS}{}", level + 1);
        let weight = loader.host(&format!("{prefix}.0.project.0.weight"), &[dim, 2 * dim])?;
        let bias = loader.values(&format!("{prefix}.0.project.0.bias"), &[dim])?;
        let columns = |first: usize| {
            Values::Host(weight.chunks_exact(2 * dim).flat_map(|row| &row[first..first + dim]).copied().collect())
        };
        let resize = format!("{prefix}.4");
        Ok(Self {
            of_token: loader.pack(columns(0), None, [dim, dim, 1])?,
            of_class: loader.pack(columns(dim), Some(bias), [dim, dim, 1])?,
            project: loader.conv2d(&format!("{prefix}.3"), [channels, dim, 1], true)?,
            resize: match level {
                2 => Resize::Same,
                3 => Resize::Coarser(loader.conv2d(&resize, [channels, channels, 3], true)?),
                _ => Resize::Finer(loader.conv_transpose2d(&resize, [channels, channels, FINER[level]])?),
            },
        })
    }

    fn forward(&self, tokens: &Tensor<3>, [rows, columns]: [usize; 2]) -> Result<Tensor<4>, OpError> {
        let [batch, num_tokens, dim] = tokens.dims();
        let mut images = Vec::with_capacity(batch);
        for image in 0..batch {
            let tokens = tokens.clone().narrow(0, image, 1);
            // What the class token gives is the same for all tokens: a bias.
            let class = linear(tokens.clone().narrow(1, 0, 1), &self.of_class, Activation::None)?;
            let readout = self.of_token.clone().with_bias(class.reshape([dim]))?;
            images.push(linear(tokens.narrow(1, 1, num_tokens - 1), &readout, Activation::Gelu)?);
        }
        let map = Tensor::cat(images, 0).reshape([batch, rows, columns, dim]);
        let map = conv2d(map, &self.project, 1, 0, Activation::None)?;
        match &self.resize {
            Resize::Finer(weight) => conv_transpose2d(map, weight),
            Resize::Same => Ok(map),
            Resize::Coarser(weight) => conv2d(map, weight, 2, 1, Activation::None),
        }
    }
}

/// The layers `net.pretrained.act_postprocess{1..4}.*`.
#[derive(Clone, Debug)]
pub(super) struct Reassemble {
    levels: Vec<Level>,
}

impl Reassemble {
    pub(super) fn load(loader: &mut Loader<'_>, config: &LSegConfig) -> Result<Self, ModelError> {
        let levels = (0..LEVELS).map(|level| Level::load(loader, level, config));
        Ok(Self { levels: levels.collect::<Result<_, _>>()? })
    }

    /// Returns the maps `[B, h, w, C]`, finest first: four times and twice as fine as the patches, as fine, and half
    /// as fine. `observe` receives `reassemble_1` to `reassemble_4`.
    pub(super) fn forward(
        &self,
        taps: &Taps,
        observe: &mut dyn FnMut(&str, Observed<'_>),
    ) -> Result<Vec<Tensor<4>>, OpError> {
        let mut maps = Vec::with_capacity(LEVELS);
        for (i, (level, tokens)) in self.levels.iter().zip(&taps.tokens).enumerate() {
            let map = level.forward(tokens, taps.grid)?;
            observe(&format!("reassemble_{}", i + 1), Observed::Map(&map));
            maps.push(map);
        }
        Ok(maps)
    }
}
