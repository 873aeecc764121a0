//! MinkUNet (Choy et al., CVPR 2019) as OpenScene (Peng et al., CVPR 2023) and CUA-O3D (CVPR 2025) use it: a sparse
//! U-Net that gives every voxel a vector, in their case one in the space of a text encoder.
//!
//! A 5 × 5 × 5 convolution, four stages that halve the resolution and four that double it again, each with basic
//! residual blocks, then a matrix for every head. A batch norm follows every convolution.

mod cells;
mod config;
mod net;
mod train;

use burn::prelude::*;
use burn::tensor::activation::relu;
pub use cells::{Cells, Grid, Input};
pub use config::{ConfigError, MinkUnetConfig, TEXT_HEAD, TextSpace};
use net::{Net, Step};
pub use train::TrainableMinkUnet;

use super::conv_norm::FoldedConv;
use crate::ops::matmul::{Form, matmul};
use crate::ops::{OpError, int_tensor, normalize_rows};
use crate::weights::{LoadReport, TensorSource, WeightsError};

/// MinkUNet for inference: its batch norms are folded into the convolutions before them.
#[derive(Clone, Debug)]
pub struct MinkUnet {
    net: Net<FoldedConv>,
    /// `[last, head]` each.
    heads: Vec<Tensor<2>>,
    config: MinkUnetConfig,
}

impl MinkUnet {
    /// Builds the network from a checkpoint of OpenScene or CUA-O3D under the names that start with `net3d.`, taken one
    /// tensor at a time. The report lists every key. A key that is missing, unknown or of another shape is an error.
    ///
    /// # Errors
    /// [`WeightsError`] with the file and the key.
    pub fn load(weights: impl TensorSource, device: &Device) -> Result<(Self, LoadReport), WeightsError> {
        let (network, report) = TrainableMinkUnet::load(weights, &device.clone().without_autodiff())?;
        Ok((network.fold(), report))
    }

    /// Builds a network of these sizes, also one that was not published.
    ///
    /// # Errors
    /// [`WeightsError`] with the file and the key.
    pub fn load_as(
        config: MinkUnetConfig,
        weights: impl TensorSource,
        device: &Device,
    ) -> Result<(Self, LoadReport), WeightsError> {
        let (network, report) = TrainableMinkUnet::load_as(config, weights, &device.clone().without_autodiff())?;
        Ok((network.fold(), report))
    }

    /// Sizes of the network.
    #[must_use]
    pub fn config(&self) -> &MinkUnetConfig {
        &self.config
    }

    /// Computes the last stage `[V, last]` of voxels with `features [V, in]` at `coords [V, 4]` (batch, x, y, z), which
    /// are distinct, not negative, below 2²¹ and in any order. The origin decides which voxels share a coarse cell: the
    /// reference moves a scan so that its smallest coordinates are 0.
    ///
    /// # Errors
    /// [`OpError`] if shapes disagree, a coordinate is out of range, or a layer does not fit the device.
    pub fn forward(&self, features: Tensor<2>, coords: Tensor<2, Int>) -> Result<Tensor<2>, OpError> {
        self.forward_observed(features, coords, |_, _, _| ())
    }

    /// Does the same as [`forward`](Self::forward), and passes to `observe` the activations of every step with its name
    /// and the coordinates of its cells, in units of their own edge: `stem`, `down1` to `down4`, `up4` to `up7`,
    /// `block1` to `block8`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_observed(
        &self,
        features: Tensor<2>,
        coords: Tensor<2, Int>,
        mut observe: impl FnMut(&str, &Tensor<2>, &Tensor<2, Int>),
    ) -> Result<Tensor<2>, OpError> {
        let mut apply = |FoldedConv { kernel, bias }: &FoldedConv, step: Step<'_>| {
            let mut x = step.reads.convolve(step.x, kernel.clone(), Some(bias.clone()))?;
            if let Some(added) = step.added {
                x = x + added;
            }
            Ok(if step.relu { relu(x) } else { x })
        };
        self.net.run(features, coords, &mut apply, &mut observe)
    }

    /// Computes the first head for every cell, `[M, head]`: the sum over `num_turns` turns of the cells about z, from
    /// 0 on, each of its unit vector. For a single turn, the vectors keep their lengths.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn features(&self, cells: &Cells, num_turns: usize, device: &Device) -> Result<Tensor<2>, OpError> {
        let of_grid = |grid: &Grid<'_>| self.head(self.forward(grid.features(device), grid.coords(device))?, 0);
        let own = of_grid(&cells.turned(0.0))?;
        if num_turns <= 1 {
            return Ok(own);
        }
        let mut sum = normalize_rows(own);
        for turn in 1..num_turns {
            let grid = cells.turned(std::f64::consts::TAU * turn as f64 / num_turns as f64);
            let rows = int_tensor(grid.row_from_cell.clone(), [cells.len()], device);
            sum = sum + normalize_rows(of_grid(&grid)?).select(0, rows);
        }
        Ok(sum)
    }

    /// Computes a head, `[V, head]`, from the last stage `[V, last]`. It is not normalised. `head` counts the heads of
    /// the [configuration](MinkUnetConfig::heads).
    ///
    /// # Errors
    /// [`OpError::Value`] if there is no such head; else as [`matmul`].
    pub fn head(&self, last: Tensor<2>, head: usize) -> Result<Tensor<2>, OpError> {
        matmul(last, head_of(&self.heads, head)?, Form::Plain)
    }

    /// Computes the products `[V, K]` of a head with the vectors `text [K, head]`, from the last stage `[V, last]`. The
    /// text is folded into the head's matrix, so the head's output, the largest tensor of all, is never made.
    ///
    /// # Errors
    /// As [`head`](Self::head).
    pub fn text_scores(&self, last: Tensor<2>, head: usize, text: Tensor<2>) -> Result<Tensor<2>, OpError> {
        let by_channel = matmul(head_of(&self.heads, head)?, text, Form::RightTransposed)?;
        matmul(last, by_channel, Form::Plain)
    }
}

/// The matrix of a head.
fn head_of(heads: &[Tensor<2>], head: usize) -> Result<Tensor<2>, OpError> {
    heads.get(head).cloned().ok_or_else(|| {
        let message = format!("head {head} is asked for; the network has {}", heads.len());
        OpError::Value { op: "minkunet", message }
    })
}
