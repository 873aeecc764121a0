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

/// Data from which rows of A are computed.
pub(super) enum Basis {
    /// An embedding, as blocks of channels.
    Embedding(Vec<Tensor<2>>),
    /// Colour and unit normal of every voxel.
    Geometry(ColorNormal, Vec<[f32; GEOMETRY_CHANNELS]>),
}

impl Basis {
    /// Makes the same value for every voxel, so that all weights are equal.
    pub(super) fn uniform(num_voxels: usize, device: &Device) -> Self {
        Self::Embedding(vec![Tensor::zeros([num_voxels, 1], device)])
    }

    /// Reads colours and normals from the last columns of `matrix [V, C + 6]`.
    pub(super) fn color_normal(kernel: ColorNormal, matrix: &[f32], width: usize) -> Self {
        let geometry = matrix.par_chunks_exact(width).with_min_len(256).map(|row| {
            let mut own = [0.0; GEOMETRY_CHANNELS];
            own.copy_from_slice(&row[width - GEOMETRY_CHANNELS..]);
            let length = own[3..].iter().map(|n| n * n).sum::<f32>().sqrt();
            if length > 0.0 {
                own[3..].iter_mut().for_each(|n| *n /= length);
            }
            own
        });
        Self::Geometry(kernel, geometry.collect())
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
            let [num_rows, k] = neighbors.dims();
            let weights = match self {
                Self::Embedding(embedding) => affinity(embedding, neighbors.clone(), first, sharpness)?,
                Self::Geometry(kernel, geometry) => {
                    let device = neighbors.device();
                    let weights = kernel.weights(geometry, &int_values(neighbors.clone())?, k, first);
                    float_tensor(weights, [num_rows, k], &device)
                }
            };
            first += num_rows;
            let sums = float_values(weights.clone().sum_dim(1))?;
            let has_neighbor = num_voxels > 1;
            let errors = sums.iter().filter(|_| has_neighbor).map(|s| (f64::from(*s) - 1.0).abs());
            max_row_sum_error = errors.fold(max_row_sum_error, f64::max);
            rows.push(AffinityRows { neighbors, weights });
        }
        Ok((rows, max_row_sum_error))
    }
}
