//! Precision of affinities: how often the strongest neighbours of a voxel are of its own cluster, by the
//! teacher.

use super::kmeans::{KMeansError, assign, kmeans};
use crate::random::SplitMix64;

/// Error of measuring the precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrecisionError {
    /// The lengths of the arrays do not fit each other.
    #[error("{neighbors} neighbours and {weights} weights of {voxels} voxels; expected [V, K] of each")]
    Shape {
        /// Number of voxels.
        voxels: usize,
        /// Number of neighbours of all voxels.
        neighbors: usize,
        /// Number of weights.
        weights: usize,
    },
    /// A neighbour does not exist.
    #[error("voxel {voxel} has the neighbour {neighbor}; expected below {voxels}, or -1 for none")]
    Neighbor {
        /// Index of the voxel.
        voxel: usize,
        /// Index of its neighbour.
        neighbor: i32,
        /// Number of voxels.
        voxels: usize,
    },
    /// A weight is NaN.
    #[error("a weight of voxel {0} is not a number")]
    Weight(usize),
    /// The number of strongest neighbours is 0.
    #[error("top_k is 0; expected 1 or more")]
    TopK,
}

/// Settings of clustering the teacher's features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Number of clusters; fewer if there are fewer voxels.
    pub clusters: usize,
    /// Most voxels with which the centers are found. The others are only assigned.
    pub sample: usize,
    /// Number of runs of k-means; the best one is used.
    pub restarts: usize,
    /// Seed of the sample and of the starts.
    pub seed: u64,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self { clusters: 20, sample: 8192, restarts: 3, seed: 0 }
    }
}

/// Clusters voxels by k-means of their features `[V, C]`, scaled to unit length so that distances follow the
/// cosine. Returns the cluster `[V]` of each voxel. Without voxels the result is empty.
///
/// # Errors
/// [`KMeansError`] if the shape is wrong, the number of clusters is 0, or a value is not finite.
pub fn cluster_features(
    features: &[f32],
    num_channels: usize,
    settings: &ClusterSettings,
) -> Result<Vec<u32>, KMeansError> {
    if num_channels == 0 || !features.len().is_multiple_of(num_channels) {
        return Err(KMeansError::Shape { values: features.len(), num_channels });
    }
    let num_voxels = features.len() / num_channels;
    if num_voxels == 0 {
        return Ok(Vec::new());
    }
    let mut unit = features.to_vec();
    for row in unit.chunks_exact_mut(num_channels) {
        let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
    }
    // At least as many as clusters: k-means cannot run with fewer points.
    let count = settings.sample.max(settings.clusters);
    let sampled = SplitMix64::new(settings.seed).sample(num_voxels, count);
    let sample: Vec<f32> =
        sampled.iter().flat_map(|&voxel| &unit[voxel * num_channels..][..num_channels]).copied().collect();
    let clusters = settings.clusters.min(num_voxels);
    let found = kmeans(&sample, num_channels, clusters, settings.restarts, settings.seed)?;
    let cluster_from_voxel = assign(&unit, num_channels, &found.centers)?;
    Ok(cluster_from_voxel.into_iter().map(|cluster| cluster as u32).collect())
}

/// Shares of neighbours that are of a voxel's own cluster, as means over the voxels that have a neighbour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AffinityPrecision {
    /// Share among the strongest neighbours.
    pub top: f64,
    /// Share among all neighbours, which weights without any knowledge would reach.
    pub baseline: f64,
    /// Number of voxels that have a neighbour. If it is 0 both shares are 0.
    pub num_voxels: usize,
}

/// Measures the share of a voxel's `top_k` strongest neighbours that are of its cluster, and the same share
/// of all its neighbours.
///
/// `cluster_from_voxel [V]` is the cluster of each voxel ([`cluster_features`]). `neighbors [V, K]` come from
/// [`knn_voxels`](crate::ops::knn::knn_voxels), -1 if there are fewer. `weights [V, K]` come from
/// [`affinity`](crate::ops::affinity::affinity). Among equally strong neighbours the first come first. A
/// voxel with fewer than `top_k` neighbours is judged by those it has. Affinities that have learnt the
/// teacher's geometry lie clearly above the baseline.
///
/// # Errors
/// [`PrecisionError`] if the arrays disagree, a neighbour does not exist, a weight is NaN, or `top_k` is 0.
pub fn affinity_precision(
    cluster_from_voxel: &[u32],
    neighbors: &[i32],
    weights: &[f32],
    top_k: usize,
) -> Result<AffinityPrecision, PrecisionError> {
    let voxels = cluster_from_voxel.len();
    let k = neighbors.len().checked_div(voxels).unwrap_or(0);
    if neighbors.len() != voxels * k || weights.len() != neighbors.len() {
        return Err(PrecisionError::Shape { voxels, neighbors: neighbors.len(), weights: weights.len() });
    }
    if top_k == 0 {
        return Err(PrecisionError::TopK);
    }
    let (mut top, mut baseline, mut num_voxels) = (0.0, 0.0, 0_usize);
    let mut row: Vec<(f32, bool)> = Vec::with_capacity(k);
    for (voxel, &cluster) in cluster_from_voxel.iter().enumerate() {
        row.clear();
        let range = voxel * k..(voxel + 1) * k;
        for (&neighbor, &weight) in neighbors[range.clone()].iter().zip(&weights[range]) {
            if neighbor == -1 {
                continue;
            }
            let other = usize::try_from(neighbor).ok().and_then(|other| cluster_from_voxel.get(other));
            let other = other.ok_or(PrecisionError::Neighbor { voxel, neighbor, voxels })?;
            if weight.is_nan() {
                return Err(PrecisionError::Weight(voxel));
            }
            row.push((weight, *other == cluster));
        }
        if row.is_empty() {
            continue;
        }
        num_voxels += 1;
        baseline += share(&row);
        row.sort_by(|a, b| b.0.total_cmp(&a.0));
        top += share(&row[..top_k.min(row.len())]);
    }
    let count = num_voxels.max(1) as f64;
    Ok(AffinityPrecision { top: top / count, baseline: baseline / count, num_voxels })
}

fn share(row: &[(f32, bool)]) -> f64 {
    row.iter().filter(|(_, same)| *same).count() as f64 / row.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_counted_by_hand() {
        // Voxels 0, 1 and 4 are of one cluster, 2 and 3 of the other; the last has no neighbour.
        let cluster = [7, 7, 1, 1, 7];
        #[rustfmt::skip]
        let neighbors = [
            1, 2, 3, 4,
            0, 2, 3, -1,
            0, 1, 3, 4,
            2, -1, -1, -1,
            -1, -1, -1, -1,
        ];
        #[rustfmt::skip]
        let weights = [
            0.4, 0.3, 0.1, 0.2,
            0.1, 0.6, 0.3, 0.0,
            0.25, 0.25, 0.25, 0.25,
            1.0, 0.0, 0.0, 0.0,
            0.0, 0.0, 0.0, 0.0,
        ];
        let found = affinity_precision(&cluster, &neighbors, &weights, 2).unwrap();
        // Rows: {1, 2} 1/2; {2, 3} 0; {0, 1} 0, in the order of the neighbours; {2} 1.
        assert_eq!(found.top, (0.5 + 0.0 + 0.0 + 1.0) / 4.0);
        assert_eq!(found.baseline, (0.5 + 1.0 / 3.0 + 0.25 + 1.0) / 4.0);
        assert_eq!(found.num_voxels, 4);
        let all = affinity_precision(&cluster, &neighbors, &weights, 8).unwrap();
        assert_eq!(all.top, all.baseline);
    }

    #[test]
    fn nothing_gives_nothing_and_faults_are_named() {
        let empty = AffinityPrecision { top: 0.0, baseline: 0.0, num_voxels: 0 };
        assert_eq!(affinity_precision(&[], &[], &[], 8).unwrap(), empty);
        assert_eq!(affinity_precision(&[0, 0], &[], &[], 8).unwrap(), empty);
        let error =
            |neighbors: &[i32], weights: &[f32], k| affinity_precision(&[0, 0], neighbors, weights, k).unwrap_err();
        assert_eq!(error(&[1, 0, 1], &[0.0; 3], 1), PrecisionError::Shape { voxels: 2, neighbors: 3, weights: 3 });
        assert_eq!(error(&[1, 0], &[0.0; 3], 1), PrecisionError::Shape { voxels: 2, neighbors: 2, weights: 3 });
        assert_eq!(error(&[1, 2], &[0.0; 2], 1), PrecisionError::Neighbor { voxel: 1, neighbor: 2, voxels: 2 });
        assert_eq!(error(&[1, -2], &[0.0; 2], 1), PrecisionError::Neighbor { voxel: 1, neighbor: -2, voxels: 2 });
        assert_eq!(error(&[1, 0], &[0.0, f32::NAN], 1), PrecisionError::Weight(1));
        assert_eq!(error(&[1, 0], &[0.0; 2], 0), PrecisionError::TopK);
    }

    #[test]
    fn kinds_go_by_direction_also_beyond_the_sample() {
        let mut random = SplitMix64::new(1);
        // Four directions of any length, and noise.
        let features: Vec<f32> = (0..2000)
            .flat_map(|voxel| {
                let length = 0.1 + 10.0 * random.unit() as f32;
                let noise: Vec<f32> = (0..4).map(|_| 0.1 * random.unit() as f32).collect();
                (0..4).map(move |c| length * (if c == voxel % 4 { 1.0 } else { 0.0 } + noise[c]))
            })
            .collect();
        let settings = ClusterSettings { clusters: 4, sample: 100, ..ClusterSettings::default() };
        let kinds = cluster_features(&features, 4, &settings).unwrap();
        assert!((0..2000).all(|voxel| kinds[voxel] == kinds[voxel % 4]));
        assert!((0..4).all(|a| (0..a).all(|b| kinds[a] != kinds[b])));
        assert_eq!(cluster_features(&features, 4, &settings).unwrap(), kinds);
        // Fewer voxels than clusters, none, and a row without a direction.
        assert_eq!(cluster_features(&features[..8], 4, &settings).unwrap().len(), 2);
        assert!(cluster_features(&[], 4, &settings).unwrap().is_empty());
        assert_eq!(cluster_features(&[0.0; 4], 4, &settings).unwrap(), [0]);
        assert!(cluster_features(&[f32::NAN; 4], 4, &settings).is_err());
        assert!(cluster_features(&features, 3, &settings).is_err());
    }
}
