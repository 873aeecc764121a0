//! Which voxels touch.

use super::Input;
use crate::ops::knn::cpu::knn_between;
use crate::ops::present;

/// A voxel is its own first neighbour.
const AROUND: usize = 17;
/// The neighbour whose distance says how dense the scan is in a place.
const SPACING_NEIGHBOR: usize = 8;
/// Distance up to which voxels touch, as a multiple of that distance.
const REACH: f32 = 1.3;

/// Voxels with points, and the pairs that touch.
pub(super) struct Graph {
    /// `[V]` mean of the points of every voxel, relative to a corner of the scan; `None` without points.
    pub centers: Vec<Option<[f32; 3]>>,
    /// Pairs of voxels that touch, ascending, each once.
    pub links: Vec<(u32, u32)>,
}

impl Graph {
    pub(super) fn new(input: &Input<'_>) -> Self {
        let num_voxels = input.labels.len();
        let mut sums = vec![([0.0f64; 3], 0.0f64); num_voxels];
        let finite =
            || input.positions.iter().zip(input.voxel_from_point).filter(|(p, _)| p.iter().all(|x| x.is_finite()));
        let least = |axis: usize| finite().map(|(p, _)| p[axis]).fold(f64::INFINITY, f64::min);
        let low = [least(0), least(1), least(2)];
        for (p, &voxel) in finite() {
            let Some(voxel) = present(voxel, num_voxels) else { continue };
            let (sum, count) = &mut sums[voxel];
            (0..3).for_each(|axis| sum[axis] += p[axis] - low[axis]);
            *count += 1.0;
        }
        let mean =
            |&(sum, count): &([f64; 3], f64)| (count > 0.0).then(|| sum.map(|x| ((x / count) as f32).min(f32::MAX)));
        let centers: Vec<Option<[f32; 3]>> = sums.iter().map(mean).collect();
        let (occupied, known): (Vec<usize>, Vec<[f32; 3]>) =
            centers.iter().enumerate().filter_map(|(i, center)| Some((i, (*center)?))).unzip();
        let near = knn_between(&known, &known, AROUND);
        let reach: Vec<f32> = near
            .sq_dist
            .chunks_exact(AROUND)
            .map(|row| {
                let row = row.iter().take(SPACING_NEIGHBOR + 1).filter(|sq| **sq < f32::MAX);
                row.fold(0.0, |far, &sq| f32::max(far, sq)) * REACH * REACH
            })
            .collect();
        let mut links = Vec::new();
        for (i, (row, dists)) in near.index.chunks_exact(AROUND).zip(near.sq_dist.chunks_exact(AROUND)).enumerate() {
            for (&j, &sq_dist) in row.iter().zip(dists) {
                let Some(j) = present(j, known.len()).filter(|&j| j != i) else { continue };
                if sq_dist <= reach[i].min(reach[j]) {
                    links.push((occupied[i.min(j)] as u32, occupied[i.max(j)] as u32));
                }
            }
        }
        links.sort_unstable();
        links.dedup();
        Self { centers, links }
    }
}

/// Sum of the features of `voxels`, each of length one.
pub(super) fn sum_of_units(input: &Input<'_>, voxels: &[usize]) -> Vec<f32> {
    let width = input.num_channels;
    let mut sum = vec![0.0; width];
    for row in voxels.iter().filter_map(|&voxel| input.features.get(voxel * width..(voxel + 1) * width)) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        if length > 0.0 {
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x / length);
        }
    }
    sum
}

/// Cosine of two vectors; 1 if one of them is all zeros and so says nothing.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    let length = (dot(a, a) * dot(b, b)).sqrt();
    if length > 0.0 { dot(a, b) / length } else { 1.0 }
}
