//! Sources of the weights of the affinity matrix A: the student, or simpler kernels without training.

use burn::prelude::*;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::PurifyError;
use super::geometry::GEOMETRY_CHANNELS;
use super::settings::setting;
use crate::models::student::{Student, StudentConfig};
use crate::ops::affinity::{affinity, cpu};
use crate::ops::pooling::AffinityRows;
use crate::ops::{OpError, float_tensor, float_values, int_values};

/// Decides the weight of each neighbour of a voxel. All variants use the same neighbours, and every row of
/// A sums to 1.
#[derive(Clone, Copy, Debug)]
pub enum Affinities<'a> {
    /// Cosines of a student's embeddings, sharpened by a softmax whose rows sum to 1: the method of
    /// GeoPurify.
    Learned {
        /// The student.
        student: &'a Student,
        /// Layer widths of the student.
        config: StudentConfig,
    },
    /// Equal weights for all neighbours: a mean filter.
    Uniform,
    /// Largest weights for neighbours of similar colour and orientation: a bilateral filter.
    ColorNormal(ColorNormal),
    /// Products of a student's weights with those of colour and orientation, so that a neighbour must be alike in both
    /// ways. Rows are divided by their sums.
    Combined {
        /// The student.
        student: &'a Student,
        /// Layer widths of the student.
        config: StudentConfig,
        /// Kernel of colour and orientation.
        kernel: ColorNormal,
    },
}

impl<'a> Affinities<'a> {
    /// The student, if its weights count.
    pub(super) fn student(&self) -> Option<(&'a Student, StudentConfig)> {
        match *self {
            Self::Learned { student, config } | Self::Combined { student, config, .. } => Some((student, config)),
            Self::Uniform | Self::ColorNormal(_) => None,
        }
    }

    /// The kernel of colour and orientation, if its weights count.
    pub(super) fn kernel(&self) -> Option<ColorNormal> {
        match *self {
            Self::ColorNormal(kernel) | Self::Combined { kernel, .. } => Some(kernel),
            Self::Uniform | Self::Learned { .. } => None,
        }
    }
}

/// Kernel of colour and orientation. The weight of a neighbour is proportional to
/// exp(−|c − c′|² / 2σ² − (1 − |⟨n, n′⟩|) / s).
/// Here c is the mean colour of a voxel and n its mean normal, scaled to unit length. σ is
/// [`color_sigma`](Self::color_sigma), s is [`normal_scale`](Self::normal_scale).
///
/// The Gaussian of colour is that of the bilateral filter (Tomasi and Manduchi, ICCV 1998). The sign of a
/// normal does not count: where normals of a vertical wall are estimated, rounding decides their sign.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColorNormal {
    /// Standard deviation of the colour; channels are 0 to 1.
    pub color_sigma: f32,
    /// Divisor of 1 − |cosine|.
    pub normal_scale: f32,
}

impl Default for ColorNormal {
    fn default() -> Self {
        Self { color_sigma: 0.1, normal_scale: 0.1 }
    }
}

impl ColorNormal {
    pub(super) fn check(&self) -> Result<(), PurifyError> {
        let is_positive = |value: f32| value.is_finite() && value > 0.0;
        if !is_positive(self.color_sigma) {
            return setting("colour sigma", &self.color_sigma, "a number above 0");
        }
        if !is_positive(self.normal_scale) {
            return setting("normal scale", &self.normal_scale, "a number above 0");
        }
        Ok(())
    }

    /// Weights `[R, K]` of the voxels from `first_row` on. `geometry [V]` holds the colour, then a normal
    /// of unit length or 0. Missing neighbours (-1) have weight 0.
    fn weights(
        &self,
        geometry: &[[f32; GEOMETRY_CHANNELS]],
        neighbors: &[i32],
        k: usize,
        first_row: usize,
    ) -> Vec<f32> {
        let of_color = -0.5 / (self.color_sigma * self.color_sigma);
        let logit = |[r, g, b, x, y, z]: [f32; 6], [r2, g2, b2, x2, y2, z2]: [f32; 6]| {
            let color = (r - r2).powi(2) + (g - g2).powi(2) + (b - b2).powi(2);
            let cosine = x * x2 + y * y2 + z * z2;
            of_color * color - (1.0 - cosine.abs()) / self.normal_scale
        };
        let mut logits = vec![0.0; neighbors.len()];
        let rows = logits.par_chunks_exact_mut(k).with_min_len(64).zip(neighbors.par_chunks_exact(k));
        rows.enumerate().for_each(|(row, (logits, neighbors))| {
            let own = geometry[first_row + row];
            for (to, &neighbor) in logits.iter_mut().zip(neighbors) {
                if let Ok(neighbor) = usize::try_from(neighbor) {
                    *to = logit(own, geometry[neighbor]);
                }
            }
        });
        cpu::softmax(neighbors, &logits, k, geometry.len())
    }
}

/// Colour and unit normal of every voxel, and the kernel that compares them.
pub(super) struct Geometry {
    kernel: ColorNormal,
    of_voxel: Vec<[f32; GEOMETRY_CHANNELS]>,
}

/// Data from which rows of A are computed. With neither an embedding nor geometry all weights are equal; with both they
/// are multiplied.
pub(super) struct Basis {
    /// An embedding, as blocks of channels.
    pub(super) embedding: Option<Vec<Tensor<2>>>,
    pub(super) geometry: Option<Geometry>,
}

impl Geometry {
    /// Reads colours and normals from the last columns of `matrix [V, C + 6]`.
    pub(super) fn new(kernel: ColorNormal, matrix: &[f32], width: usize) -> Self {
        let geometry = matrix.par_chunks_exact(width).with_min_len(256).map(|row| {
            let mut own = [0.0; GEOMETRY_CHANNELS];
            own.copy_from_slice(&row[width - GEOMETRY_CHANNELS..]);
            let length = own[3..].iter().map(|n| n * n).sum::<f32>().sqrt();
            if length > 0.0 {
                own[3..].iter_mut().for_each(|n| *n /= length);
            }
            own
        });
        Self { kernel, of_voxel: geometry.collect() }
    }

    fn weights(&self, neighbors: &Tensor<2, Int>, first_row: usize) -> Result<Tensor<2>, OpError> {
        let ([num_rows, k], device) = (neighbors.dims(), neighbors.device());
        let weights = self.kernel.weights(&self.of_voxel, &int_values(neighbors.clone())?, k, first_row);
        Ok(float_tensor(weights, [num_rows, k], &device))
    }
}

impl Basis {
    /// Weights `[R, K]` of the voxels from `first_row` on.
    fn weights(
        &self,
        neighbors: &Tensor<2, Int>,
        first_row: usize,
        num_voxels: usize,
        sharpness: f32,
    ) -> Result<Tensor<2>, OpError> {
        let alike = [Tensor::zeros([num_voxels, 1], &neighbors.device())];
        let learned = |embedding: &[Tensor<2>]| affinity(embedding, neighbors.clone(), first_row, sharpness);
        match (&self.embedding, &self.geometry) {
            (None, None) => learned(&alike),
            (Some(embedding), None) => learned(embedding),
            (None, Some(geometry)) => geometry.weights(neighbors, first_row),
            (Some(embedding), Some(geometry)) => {
                let product = learned(embedding)? * geometry.weights(neighbors, first_row)?;
                // A row without a neighbour is 0 and stays so.
                let sums = product.clone().sum_dim(1).clamp_min(f32::MIN_POSITIVE);
                Ok(product / sums)
            }
        }
    }

    /// Rows of A for consecutive runs of neighbours `[R, K]`. Also returns the largest |row sum − 1| over
    /// the voxels that have a neighbour.
    pub(super) fn rows(
        &self,
        parts: Vec<Tensor<2, Int>>,
        num_voxels: usize,
        sharpness: f32,
    ) -> Result<(Vec<AffinityRows>, f64), OpError> {
        let mut rows = Vec::new();
        let (mut first, mut max_row_sum_error) = (0, 0.0_f64);
        for neighbors in parts {
            let weights = self.weights(&neighbors, first, num_voxels, sharpness)?;
            first += neighbors.dims()[0];
            let sums = float_values(weights.clone().sum_dim(1))?;
            let has_neighbor = num_voxels > 1;
            let errors = sums.iter().filter(|_| has_neighbor).map(|s| (f64::from(*s) - 1.0).abs());
            max_row_sum_error = errors.fold(max_row_sum_error, f64::max);
            rows.push(AffinityRows { neighbors, weights });
        }
        Ok((rows, max_row_sum_error))
    }
}
