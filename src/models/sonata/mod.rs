//! Sonata (Wu et al., CVPR 2025): a self-supervised Point Transformer V3 encoder, the student's teacher.
//!
//! It is for inference only. The published code shuffles the curves at random in every forward pass. Here
//! block i of a stage always uses curve i mod 4, so the same scan gives the same features.

mod block;
mod concerto;
mod config;
mod init;
mod level;
mod pointcept;
mod pooling;
mod transform;

use burn::prelude::*;

pub use block::{Attention, Block, BlockShape};
pub use concerto::ConcertoSize;
pub use config::{ConfigError, SonataConfig};
pub use level::Level;
pub use pointcept::PointceptEncoder;
pub use pooling::{GridPooling, Pooled};
pub use transform::{Cloud, Prepared, RowOrder, SonataError, transform};

use super::ModelError;
use super::layers::{Loader, Norm};
use crate::ops::conv2d::{Activation, PackedWeight, Precision, linear};
use crate::ops::serialization::Curve;
use crate::ops::{OpError, int_tensor, int_values};
use crate::weights::{LoadReport, TensorSource, match_keys};

/// Layer norm's ε, as in the reference.
const EPSILON: f32 = 1e-5;
/// Edge of a voxel that the encoder was trained with, in metres.
pub const GRID_METRES: f32 = 0.02;
/// Number of coarse levels whose features are concatenated to those of the next finer one.
const CONCATENATED_LEVELS: usize = 2;

/// A Sonata encoder ready for inference.
#[derive(Clone, Debug)]
pub struct Sonata {
    /// Widths and depths.
    pub config: SonataConfig,
    embedding: Embedding,
    stages: Vec<Stage>,
    curves: Vec<Curve>,
    device: Device,
}

#[derive(Clone, Debug)]
struct Embedding {
    linear: PackedWeight,
    norm: Norm,
}

#[derive(Clone, Debug)]
struct Stage {
    /// Pooling from the stage before.
    down: Option<GridPooling>,
    blocks: Vec<Block>,
    max_patch: usize,
}

/// Features of a cloud. They are constant over cubes of 2² voxels along each axis (8 cm): all points of a
/// cell share one row.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// `[M, C]` features, one row per cell. The published encoder has 192 channels of the cell's own level,
    /// then 384 and 512 of the two coarser levels.
    pub features: Tensor<2>,
    /// `[N]` index of the cell of every point.
    pub cell_from_point: Vec<i32>,
    /// `[M]` position of every cell, in units of its edge.
    pub cells: Vec<[i32; 3]>,
}

impl Encoded {
    /// Returns the features of every point, `[N, C]`.
    #[must_use]
    pub fn of_points(&self) -> Tensor<2> {
        let len = self.cell_from_point.len();
        self.features.clone().select(0, int_tensor(self.cell_from_point.clone(), [len], &self.features.device()))
    }
}

/// Result of the forward pass.
#[derive(Clone, Debug)]
pub struct Cells {
    /// `[M, C]` features of the cells.
    pub features: Tensor<2>,
    /// `[M, 4]` (batch, x, y, z) of the cells, in ascending order.
    pub coords: Tensor<2, Int>,
    /// `[V]` index of the cell of every voxel.
    pub cell_from_voxel: Tensor<1, Int>,
}

/// Intermediate result of the forward pass, for observers.
#[derive(Clone, Copy, Debug)]
pub enum Observed<'a> {
    /// Embedding of the voxels, `[V, C]`.
    Embedding(&'a Tensor<2>),
    /// Output of a stage.
    Stage {
        /// Index of the stage, from 0.
        index: usize,
        /// Its voxels.
        level: &'a Level,
        /// `[V, C]` at this level.
        features: &'a Tensor<2>,
        /// Index of the cell of every voxel of the level before; `None` for the first stage.
        cell_from_voxel: Option<&'a Tensor<1, Int>>,
    },
}

impl Sonata {
    /// Builds the encoder from a source of the reference's tensors. Keys that inference does not need are
    /// skipped and listed in the report. A key that is missing, unknown or of another shape is an error.
    ///
    /// # Errors
    /// [`ModelError::Sonata`] if the configuration is not supported, [`ModelError::Weights`] with the file
    /// and the key, [`ModelError::Op`] if a weight does not fit the device.
    pub fn load(
        mut weights: impl TensorSource,
        config: &SonataConfig,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        config.validate()?;
        let ignored: Vec<&str> = SonataConfig::UNUSED.iter().map(|(pattern, _)| *pattern).collect();
        let report = match_keys(&weights, &config.keys(), &ignored);
        report.ensure_complete()?;
        let embedding = {
            let mut loader = Loader::new(&mut weights, device, Precision::F32);
            let first = config.enc_channels[0];
            let linear = loader.linear("embedding.stem.linear", config.in_channels, first)?;
            Embedding { linear, norm: loader.norm("embedding.stem.norm", first, EPSILON)? }
        };
        let mut stages = Vec::with_capacity(config.enc_depths.len());
        for (stage, &depth) in config.enc_depths.iter().enumerate() {
            let channels = config.enc_channels[stage];
            let prefix = format!("enc.enc{stage}");
            let down = match stage.checked_sub(1) {
                Some(before) => {
                    let widths = [config.enc_channels[before], channels];
                    let stride = config.stride[before];
                    Some(GridPooling::load(&mut weights, &format!("{prefix}.down."), widths, stride, device)?)
                }
                None => None,
            };
            let shape = BlockShape {
                channels,
                num_heads: config.enc_num_head[stage],
                hidden: config.hidden(stage),
                qkv_bias: config.qkv_bias,
            };
            let block = |i| Block::load(&mut weights, &format!("{prefix}.block{i}."), shape, device);
            let blocks = (0..depth).map(block).collect::<Result<_, _>>()?;
            stages.push(Stage { down, blocks, max_patch: config.enc_patch_size[stage] });
        }
        let curves = config.order.iter().filter_map(|name| name.parse().ok()).collect();
        Ok((Self { config: config.clone(), embedding, stages, curves, device: device.clone() }, report))
    }

    /// Returns the number of channels of the result.
    #[must_use]
    pub fn num_channels(&self) -> usize {
        let channels = &self.config.enc_channels;
        channels[channels.len().saturating_sub(1 + CONCATENATED_LEVELS)..].iter().sum()
    }

    /// Computes the features of a cloud. Each voxel of edge [`GRID_METRES`] is represented by its first point
    /// in the cloud's order.
    ///
    /// # Errors
    /// [`SonataError`] if the cloud is empty, too long, or incomplete, or if the encoder takes other channels
    /// than position, colour and normal; [`SonataError::Op`] if a layer does not fit the device.
    pub fn encode(&self, cloud: Cloud<'_>) -> Result<Encoded, SonataError> {
        self.encode_observed(cloud, &mut |_| ())
    }

    /// Does the same as [`encode`](Self::encode), and passes intermediate results to `observe`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_observed(
        &self,
        cloud: Cloud<'_>,
        observe: &mut dyn FnMut(Observed<'_>),
    ) -> Result<Encoded, SonataError> {
        let prepared = transform(cloud, GRID_METRES, RowOrder::Morton)?;
        let voxel_from_point = &prepared.voxel_from_point;
        let cells = self.forward(prepared.features(&self.device), prepared.coords(&self.device), observe)?;
        let cell_from_voxel = int_values(cells.cell_from_voxel)?;
        let coords = int_values(cells.coords)?;
        Ok(Encoded {
            features: cells.features,
            cell_from_point: voxel_from_point.iter().map(|&voxel| cell_from_voxel[voxel as usize]).collect(),
            cells: coords.as_chunks::<4>().0.iter().map(|&[_, x, y, z]| [x, y, z]).collect(),
        })
    }

    /// Computes the features of the cells of distinct voxels `coords [V, 4]` (batch, x, y, z) with input
    /// features `[V, in_channels]`. `observe` receives intermediate results.
    ///
    /// # Errors
    /// [`OpError`] if shapes disagree, a coordinate is above 2¹⁶ − 2, or a layer does not fit the device.
    pub fn forward(
        &self,
        features: Tensor<2>,
        coords: Tensor<2, Int>,
        observe: &mut dyn FnMut(Observed<'_>),
    ) -> Result<Cells, OpError> {
        let Embedding { linear: layer, norm } = &self.embedding;
        let mut x = gelu(norm.layer(linear(features, layer, Activation::None)?)?);
        observe(Observed::Embedding(&x));
        let num_stages = self.stages.len();
        // Index of the level whose voxels are the cells of the result.
        let of_result = num_stages.saturating_sub(1 + CONCATENATED_LEVELS);
        let (mut coords, mut cells, mut cell_from_voxel) = (coords, None, None);
        // From that level on: features, and the cell of each voxel of the level before.
        let mut kept: Vec<(Tensor<2>, Option<Tensor<1, Int>>)> = Vec::new();
        for (index, stage) in self.stages.iter().enumerate() {
            let mut cluster = None;
            if let Some(down) = &stage.down {
                let pooled = down.forward(x, &coords, &mut |_, _| ())?;
                (x, coords, cluster) = (pooled.features, pooled.coords, Some(pooled.cell_from_voxel));
            }
            let level = Level::new(coords.clone(), &self.curves, stage.blocks.len(), stage.max_patch)?;
            for (i, block) in stage.blocks.iter().enumerate() {
                x = block.forward(x, &level, i, &mut |_, _| ())?;
            }
            observe(Observed::Stage { index, level: &level, features: &x, cell_from_voxel: cluster.as_ref() });
            if index <= of_result
                && let Some(cluster) = &cluster
            {
                cell_from_voxel = Some(match cell_from_voxel {
                    Some(before) => cluster.clone().select(0, before),
                    None => cluster.clone(),
                });
            }
            if index == of_result {
                cells = Some(coords.clone());
            }
            if index >= of_result {
                kept.push((x.clone(), cluster));
            }
        }
        let (mut features, mut cluster) = (x, None);
        for (i, (of_level, cluster_of_level)) in kept.into_iter().rev().enumerate() {
            if i > 0
                && let Some(cluster) = cluster
            {
                features = Tensor::cat(vec![of_level, features.select(0, cluster)], 1);
            }
            cluster = cluster_of_level;
        }
        let coords = cells.unwrap_or(coords);
        let own = || {
            let [num_voxels, _] = coords.dims();
            int_tensor((0..num_voxels as i32).collect(), [num_voxels], &coords.device())
        };
        let cell_from_voxel = cell_from_voxel.unwrap_or_else(own);
        Ok(Cells { features, coords, cell_from_voxel })
    }
}

/// Computes x · Φ(x), with the error function.
fn gelu(x: Tensor<2>) -> Tensor<2> {
    burn::tensor::activation::gelu(x)
}
