//! The plan of a MinkUNet, whatever its layers are: keys of a checkpoint, layers in training, or folded ones.

use burn::prelude::*;

use crate::ops::OpError;
use crate::ops::kernel_map::kernel_map;
use crate::ops::matmul::{Form, matmul};
use crate::ops::sparse_conv::{sparse_conv, sparse_conv_between};
use crate::ops::stride_map::{StrideMap, stride_map};

/// Number of stages that halve the resolution.
pub(super) const NUM_DOWN: usize = 4;
/// Edge of the first kernel, in cells.
const STEM_EDGE: usize = 5;
/// Edge of a block's kernels, in cells.
const BLOCK_EDGE: usize = 3;

/// All layers but the heads.
#[derive(Clone, Debug)]
pub(super) struct Net<L> {
    /// First convolution.
    pub(super) stem: L,
    /// Stages in the order in which they run: those that halve the resolution, then those that double it.
    pub(super) stages: Vec<Stage<L>>,
}

/// A change of resolution, and the residual blocks after it.
#[derive(Clone, Debug)]
pub(super) struct Stage<L> {
    pub(super) resample: L,
    pub(super) blocks: Vec<Block<L>>,
}

/// Two convolutions, and a matrix for the shortcut where the number of channels changes.
#[derive(Clone, Debug)]
pub(super) struct Block<L> {
    pub(super) first: L,
    pub(super) second: L,
    pub(super) shortcut: Option<L>,
}

/// Rows that a convolution reads.
pub(super) enum Reads<'a> {
    /// The same row: a kernel of one cell.
    Row,
    /// Neighbours in the same set, by their map.
    Neighbors(&'a Tensor<2, Int>),
    /// Cells of the next level, by the map and its inverse.
    Level([&'a Tensor<2, Int>; 2]),
}

/// A layer's work: the convolution of `x`, its norm, then `added` and a ReLU, where there are such.
pub(super) struct Step<'a> {
    pub(super) x: Tensor<2>,
    pub(super) reads: Reads<'a>,
    pub(super) added: Option<Tensor<2>>,
    pub(super) relu: bool,
}

/// How a layer does its work.
pub(super) type Apply<'a, L> = &'a mut dyn FnMut(&L, Step<'_>) -> Result<Tensor<2>, OpError>;
/// What is told of every step: its name, its activations, and the cells they belong to.
pub(super) type Observe<'a> = &'a mut dyn FnMut(&str, &Tensor<2>, &Tensor<2, Int>);

impl Reads<'_> {
    /// The convolution of `x` with `kernel [K, in, out]` and `bias [out]`.
    pub(super) fn convolve(
        &self,
        x: Tensor<2>,
        kernel: Tensor<3>,
        bias: Option<Tensor<1>>,
    ) -> Result<Tensor<2>, OpError> {
        match self {
            Self::Row => {
                let [_, num_in, num_out] = kernel.dims();
                let x = matmul(x, kernel.reshape([num_in, num_out]), Form::Plain)?;
                Ok(match bias {
                    Some(bias) => x + bias.unsqueeze(),
                    None => x,
                })
            }
            Self::Neighbors(map) => sparse_conv(x, kernel, bias, (*map).clone()),
            Self::Level([map, inverse]) => sparse_conv_between(x, kernel, bias, (*map).clone(), (*inverse).clone()),
        }
    }
}

impl<L> Net<L> {
    /// The same plan with other layers, made in the checkpoint's order.
    pub(super) fn try_map<T, E>(&self, mut f: impl FnMut(&L) -> Result<T, E>) -> Result<Net<T>, E> {
        let stem = f(&self.stem)?;
        let mut stages = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let resample = f(&stage.resample)?;
            let blocks = stage.blocks.iter().map(|Block { first, second, shortcut }| {
                let (first, second) = (f(first)?, f(second)?);
                Ok(Block { first, second, shortcut: shortcut.as_ref().map(&mut f).transpose()? })
            });
            stages.push(Stage { resample, blocks: blocks.collect::<Result<_, E>>()? });
        }
        Ok(Net { stem, stages })
    }

    /// Every layer in the checkpoint's order.
    pub(super) fn layers(&self) -> Vec<&L> {
        let mut layers = vec![&self.stem];
        for Stage { resample, blocks } in &self.stages {
            layers.push(resample);
            for Block { first, second, shortcut } in blocks {
                layers.extend([first, second].into_iter().chain(shortcut));
            }
        }
        layers
    }

    /// Every layer in the checkpoint's order, to be changed.
    pub(super) fn layers_mut(&mut self) -> Vec<&mut L> {
        let mut layers = vec![&mut self.stem];
        for Stage { resample, blocks } in &mut self.stages {
            layers.push(resample);
            for Block { first, second, shortcut } in blocks {
                layers.extend([first, second].into_iter().chain(shortcut));
            }
        }
        layers
    }

    /// Runs the network on `features [V, in]` at `coords [V, 4]`; the last stage, `[V, planes]`.
    pub(super) fn run(
        &self,
        features: Tensor<2>,
        coords: Tensor<2, Int>,
        apply: Apply<'_, L>,
        observe: Observe<'_>,
    ) -> Result<Tensor<2>, OpError> {
        let stem_map = kernel_map(coords.clone(), STEM_EDGE)?;
        let mut x = apply(&self.stem, Step::plain(features, Reads::Neighbors(&stem_map)))?;
        observe("stem", &x, &coords);
        let (down, up) = self.stages.split_at(NUM_DOWN);
        let mut level = Level { map: kernel_map(coords.clone(), BLOCK_EDGE)?, coords };
        // On the way up: every level that is left for a coarser one, how the two are related, and what is joined.
        let mut finer = Vec::with_capacity(down.len());
        for (stage, name) in down.iter().zip(1..) {
            let skip = x.clone();
            let stride = stride_map(level.coords.clone())?;
            let maps = [&stride.fine_from_coarse, &stride.coarse_from_fine];
            x = apply(&stage.resample, Step::plain(x, Reads::Level(maps)))?;
            let coarser = Level { map: kernel_map(stride.coords.clone(), BLOCK_EDGE)?, coords: stride.coords.clone() };
            observe(&format!("down{name}"), &x, &coarser.coords);
            x = coarser.blocks(&stage.blocks, x, apply)?;
            observe(&format!("block{name}"), &x, &coarser.coords);
            finer.push((std::mem::replace(&mut level, coarser), stride, skip));
        }
        for (stage, name) in up.iter().zip(NUM_DOWN..) {
            let Some((level, stride, skip)) = finer.pop() else { break };
            let StrideMap { fine_from_coarse, coarse_from_fine, .. } = &stride;
            x = apply(&stage.resample, Step::plain(x, Reads::Level([coarse_from_fine, fine_from_coarse])))?;
            observe(&format!("up{name}"), &x, &level.coords);
            x = level.blocks(&stage.blocks, Tensor::cat(vec![x, skip], 1), apply)?;
            observe(&format!("block{}", name + 1), &x, &level.coords);
        }
        Ok(x)
    }
}

/// The cells of a resolution, and the map of their 3 × 3 × 3 neighbours.
struct Level {
    coords: Tensor<2, Int>,
    map: Tensor<2, Int>,
}

impl Level {
    fn blocks<L>(&self, blocks: &[Block<L>], mut x: Tensor<2>, apply: Apply<'_, L>) -> Result<Tensor<2>, OpError> {
        for Block { first, second, shortcut } in blocks {
            let hidden = apply(first, Step::plain(x.clone(), Reads::Neighbors(&self.map)))?;
            let added = match shortcut {
                Some(shortcut) => apply(shortcut, Step { x, reads: Reads::Row, added: None, relu: false })?,
                None => x,
            };
            let reads = Reads::Neighbors(&self.map);
            x = apply(second, Step { x: hidden, reads, added: Some(added), relu: true })?;
        }
        Ok(x)
    }
}

impl<'a> Step<'a> {
    /// A convolution, its norm and a ReLU.
    fn plain(x: Tensor<2>, reads: Reads<'a>) -> Self {
        Self { x, reads, added: None, relu: true }
    }
}
