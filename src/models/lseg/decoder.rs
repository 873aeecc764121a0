//! The decoder: maps of four sizes joined from the coarsest to the finest, and the head.

use burn::prelude::*;
use burn::tensor::activation::relu;

use super::Observed;
use super::config::{LEVELS, LSegConfig, SCRATCH};
use crate::models::ModelError;
use crate::models::layers::Loader;
use crate::ops::bilinear::{Corners, bilinear};
use crate::ops::conv2d::{Activation, PackedWeight, conv2d};
use crate::ops::{OpError, normalize_rows};

/// Two convolutions around which the input is carried.
#[derive(Clone, Debug)]
struct ResidualUnit {
    /// Convolutions with their norms.
    convs: [PackedWeight; 2],
}

impl ResidualUnit {
    fn load(loader: &mut Loader<'_>, prefix: &str, config: &LSegConfig) -> Result<Self, ModelError> {
        let (dim, epsilon) = (config.dpt.features, config.dpt.bn_eps);
        let mut conv = |part: usize| {
            let names = [format!("{prefix}.conv{part}"), format!("{prefix}.bn{part}")];
            loader.conv2d_norm((&names[0], &names[1]), [dim, dim, 3], epsilon)
        };
        Ok(Self { convs: [conv(1)?, conv(2)?] })
    }

    fn forward(&self, x: Tensor<4>) -> Result<Tensor<4>, OpError> {
        let hidden = conv2d(relu(x.clone()), &self.convs[0], 1, 1, Activation::Relu)?;
        Ok(x + conv2d(hidden, &self.convs[1], 1, 1, Activation::None)?)
    }
}

/// The step from one level to the next finer one.
#[derive(Clone, Debug)]
struct Fusion {
    /// The unit of the map that joins; none at the coarsest level.
    joining: Option<ResidualUnit>,
    unit: ResidualUnit,
    out_conv: PackedWeight,
}

impl Fusion {
    fn load(loader: &mut Loader<'_>, level: usize, config: &LSegConfig) -> Result<Self, ModelError> {
        let (dim, prefix) = (config.dpt.features, format!("{SCRATCH}.refinenet{level}"));
        let mut unit = |unit: usize| ResidualUnit::load(loader, &format!("{prefix}.resConfUnit{unit}"), config);
        Ok(Self {
            joining: if level == LEVELS { None } else { Some(unit(1)?) },
            unit: unit(2)?,
            out_conv: loader.conv2d(&format!("{prefix}.out_conv"), [dim, dim, 1], true)?,
        })
    }

    /// Returns a map of twice `height` rows, of which the first `num_rows` are right. The maps that are joined may lack
    /// rows that these do not need.
    fn forward(
        &self,
        map: Tensor<4>,
        coarser: Option<Tensor<4>>,
        [num_rows, height]: [usize; 2],
    ) -> Result<Tensor<4>, OpError> {
        let [batch, _, width, _] = map.dims();
        let num_read = rows_read(num_rows, height);
        let first = |map: Tensor<4>, reach: usize| {
            let [_, height, width, dim] = map.dims();
            map.slice([0..batch, 0..height.min(num_read + reach), 0..width, 0..dim])
        };
        let (map, coarser) = (first(map, REACH_OF_MAP), coarser.map(|coarser| first(coarser, REACH_OF_MAP)));
        let joined = match (coarser, &self.joining) {
            (Some(coarser), Some(joining)) => coarser + joining.forward(map)?,
            _ => map,
        };
        let map = self.unit.forward(joined)?;
        // The reference resamples first. A 1 × 1 convolution of means is the mean of the convolutions, and there are
        // four times fewer of them here.
        let map = conv2d(first(map, 0), &self.out_conv, 1, 0, Activation::None)?;
        let [_, num_made, _, dim] = map.dims();
        let map = match num_made < height {
            true => {
                Tensor::cat(vec![map.clone(), Tensor::zeros([batch, height - num_made, width, dim], &map.device())], 1)
            }
            false => map,
        };
        bilinear(map, [2 * height, 2 * width], Corners::Aligned)
    }
}

/// Rows of a fusion's maps below those that its result reads: four convolutions of 3 × 3 see a row further each.
const REACH_OF_MAP: usize = 4;
/// The convolution before a fusion sees one row more.
const REACH_OF_LAYER: usize = REACH_OF_MAP + 1;

/// Number of rows, of `height`, that the first `num_rows` of a map of twice the height are interpolated from.
fn rows_read(num_rows: usize, height: usize) -> usize {
    let last = num_rows.saturating_sub(1) * height.saturating_sub(1) / (2 * height).saturating_sub(1).max(1);
    (last + 2).min(height)
}

/// The decoder `net.scratch.*`.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    /// `layer1_rn` to `layer4_rn`.
    layers: Vec<PackedWeight>,
    /// `refinenet1` to `refinenet4`.
    fusions: Vec<Fusion>,
    head: PackedWeight,
}

impl Decoder {
    pub(super) fn load(loader: &mut Loader<'_>, config: &LSegConfig) -> Result<Self, ModelError> {
        let dim = config.dpt.features;
        let layers = config.reassemble.channels.iter().enumerate();
        let layers = layers.map(|(level, &channels)| {
            loader.conv2d(&format!("{SCRATCH}.layer{}_rn", level + 1), [dim, channels, 3], false)
        });
        let layers = layers.collect::<Result<_, _>>()?;
        let fusions = (1..=LEVELS).map(|level| Fusion::load(loader, level, config));
        Ok(Self {
            layers,
            fusions: fusions.collect::<Result<_, _>>()?,
            head: loader.conv2d(&format!("{SCRATCH}.head1"), [config.out_channels, dim, 1], true)?,
        })
    }

    /// Joins maps `[B, h, w, C]`, finest first, to one of twice the size of the finest, of which the first `num_rows`
    /// are right: what lies under the picture is not computed to the end. `observe` receives `layer_rn_1` to
    /// `layer_rn_4` and `path_4` to `path_1`.
    pub(super) fn forward(
        &self,
        maps: Vec<Tensor<4>>,
        num_rows: usize,
        observe: &mut dyn FnMut(&str, Observed<'_>),
    ) -> Result<Tensor<4>, OpError> {
        let mut path: Option<Tensor<4>> = None;
        for (level, map) in maps.into_iter().enumerate().rev() {
            let [batch, height, width, dim] = map.dims();
            // Coarser maps take little time, so they are made whole.
            let num_rows = if level == 0 { num_rows } else { 2 * height };
            let num_read = height.min(rows_read(num_rows, height) + REACH_OF_LAYER);
            let map = map.slice([0..batch, 0..num_read, 0..width, 0..dim]);
            let map = conv2d(map, &self.layers[level], 1, 1, Activation::None)?;
            observe(&format!("layer_rn_{}", level + 1), Observed::Map(&map));
            let joined = self.fusions[level].forward(map, path.take(), [num_rows, height])?;
            observe(&format!("path_{}", level + 1), Observed::Map(&joined));
            path = Some(joined);
        }
        path.ok_or_else(|| OpError::Value { op: "lseg", message: "no maps, expected four".to_owned() })
    }

    /// Returns features of unit length of a part of the joined map: `[B, h, w, out]`. `observe` receives `head`.
    pub(super) fn features(
        &self,
        path: Tensor<4>,
        observe: &mut dyn FnMut(&str, Observed<'_>),
    ) -> Result<Tensor<4>, OpError> {
        let head = conv2d(path, &self.head, 1, 0, Activation::None)?;
        observe("head", Observed::Map(&head));
        let [batch, height, width, dim] = head.dims();
        Ok(normalize_rows(head.reshape([batch * height * width, dim])).reshape([batch, height, width, dim]))
    }
}
