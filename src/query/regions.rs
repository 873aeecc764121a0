//! Finds the places of an object: connected groups of voxels with a high score.

use serde::Serialize;

use crate::ops::knn::cpu::knn_between;
use crate::ops::present;

/// Neighbours of a voxel that may be linked to it.
const NEIGHBORS: usize = 24;
/// The neighbour whose distance says how dense the scan is in a place: a grid has eight around a point.
const SPACING_NEIGHBOR: usize = 8;
/// Distance up to which voxels are linked, as a multiple of that distance. It bridges single gaps.
const REACH: f32 = 1.5;

/// Connected group of voxels with a high score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Region {
    /// Number of voxels of the group.
    pub num_voxels: usize,
    /// Largest score in the group.
    pub best: f32,
    /// Mean score of the group.
    pub mean: f32,
    /// Mean position of its points, in the coordinates of the scan.
    pub center: [f64; 3],
    /// Smallest coordinates of its points.
    pub low: [f64; 3],
    /// Largest coordinates of its points.
    pub high: [f64; 3],
}

/// Finds connected groups of the voxels that are `found [V]`. `score [V]` is `level` or more for each of them.
/// `positions [N]` are the points; `voxel_from_point [N]` is -1 for points without a voxel.
///
/// Voxels are connected if they are as near as neighbouring points of the scan are in both places. So neither
/// the size of the voxels nor a change of density cuts a surface to pieces. Groups are sorted by the sum of
/// their scores above the level, largest first. Voxels without points are left out.
#[must_use]
pub fn regions(
    score: &[f32],
    found: &[bool],
    level: f32,
    positions: &[[f64; 3]],
    voxel_from_point: &[i32],
) -> Vec<Region> {
    let (occupied, centers) = centers(score.len(), positions, voxel_from_point);
    let wanted: Vec<usize> = (0..occupied.len()).filter(|&i| found[occupied[i]]).collect();
    let groups = linked(&centers, &wanted);
    let mut group_of = vec![usize::MAX; score.len()];
    for (group, members) in groups.iter().enumerate() {
        members.iter().for_each(|&i| group_of[occupied[i]] = group);
    }
    let groups: Vec<Vec<usize>> =
        groups.into_iter().map(|members| members.into_iter().map(|i| occupied[i]).collect()).collect();
    let mut found: Vec<(f64, Region, f64)> = groups
        .iter()
        .map(|members| {
            let scores = || members.iter().map(|&voxel| score[voxel]);
            let mean = scores().map(f64::from).sum::<f64>() / members.len() as f64;
            let region = Region {
                num_voxels: members.len(),
                best: scores().fold(f32::NEG_INFINITY, f32::max),
                mean: mean as f32,
                center: [0.0; 3],
                low: [f64::INFINITY; 3],
                high: [f64::NEG_INFINITY; 3],
            };
            ((mean - f64::from(level)) * members.len() as f64, region, 0.0)
        })
        .collect();
    for (position, &voxel) in positions.iter().zip(voxel_from_point) {
        let Some(&group) = usize::try_from(voxel).ok().and_then(|voxel| group_of.get(voxel)) else { continue };
        let Some((_, region, count)) = found.get_mut(group) else { continue };
        *count += 1.0;
        for (axis, &x) in position.iter().enumerate() {
            // A running mean: sums of map coordinates would lose their last digits.
            region.center[axis] += (x - region.center[axis]) / *count;
            region.low[axis] = region.low[axis].min(x);
            region.high[axis] = region.high[axis].max(x);
        }
    }
    found.retain(|(_, _, count)| *count > 0.0);
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.num_voxels.cmp(&a.1.num_voxels)));
    found.into_iter().map(|(_, region, _)| region).collect()
}

/// Voxels with points, ascending, and the mean of the points of each, relative to a corner of the scan.
fn centers(num_voxels: usize, positions: &[[f64; 3]], voxel_from_point: &[i32]) -> (Vec<usize>, Vec<[f32; 3]>) {
    let points = || {
        let voxels = voxel_from_point.iter().map(|&voxel| present(voxel, num_voxels));
        positions.iter().zip(voxels).filter_map(|(p, voxel)| voxel.map(|voxel| (*p, voxel)))
    };
    let low = points().fold([f64::INFINITY; 3], |low, (p, _)| std::array::from_fn(|axis| low[axis].min(p[axis])));
    let mut sums = vec![[0.0; 4]; num_voxels];
    for (p, voxel) in points() {
        let [x, y, z] = std::array::from_fn(|axis| p[axis] - low[axis]);
        sums[voxel].iter_mut().zip([x, y, z, 1.0]).for_each(|(sum, value)| *sum += value);
    }
    let with_points = sums.into_iter().enumerate().filter(|(_, [_, _, _, count])| *count > 0.0);
    // Neighbours are searched among finite positions.
    let finite = |sum: f64, count: f64| ((sum / count) as f32).min(f32::MAX);
    with_points.map(|(voxel, [x, y, z, count])| (voxel, [x, y, z].map(|sum| finite(sum, count)))).unzip()
}

/// Groups of the positions `wanted` of `centers` that are linked to each other.
fn linked(centers: &[[f32; 3]], wanted: &[usize]) -> Vec<Vec<usize>> {
    let queries: Vec<[f32; 3]> = wanted.iter().map(|&i| centers[i]).collect();
    // A position is its own first neighbour.
    let around = NEIGHBORS + 1;
    let near = knn_between(&queries, centers, around);
    let mut wanted_at = vec![usize::MAX; centers.len()];
    wanted.iter().enumerate().for_each(|(at, &i)| wanted_at[i] = at);
    let reach: Vec<f32> = near
        .sq_dist
        .chunks_exact(around)
        .map(|row| {
            let known = row.iter().take(SPACING_NEIGHBOR + 1).filter(|sq| **sq < f32::MAX);
            known.fold(0.0, |farthest, &sq| f32::max(farthest, sq)) * REACH * REACH
        })
        .collect();
    // The root of a group is its first member. So the same scene gives the same groups.
    let mut parent: Vec<usize> = (0..wanted.len()).collect();
    let rows = near.index.chunks_exact(around).zip(near.sq_dist.chunks_exact(around));
    for (at, (row, sq_dists)) in rows.enumerate() {
        for (&other, &sq_dist) in row.iter().zip(sq_dists) {
            let Some(other) = present(other, centers.len()).map(|other| wanted_at[other]) else { continue };
            if other != usize::MAX && sq_dist <= reach[at].min(reach[other]) {
                let (a, b) = (root(&mut parent, at), root(&mut parent, other));
                parent[a.max(b)] = a.min(b);
            }
        }
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut group_of = vec![usize::MAX; wanted.len()];
    for at in 0..wanted.len() {
        let first = root(&mut parent, at);
        if first == at {
            group_of[at] = groups.len();
            groups.push(Vec::new());
        }
        groups[group_of[first]].push(wanted[at]);
    }
    groups
}

/// The root of `at`, with the way to it halved.
fn root(parent: &mut [usize], mut at: usize) -> usize {
    while parent[at] != at {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    at
}

/// Default score from which voxels count as found: halfway between the median and the largest score.
#[must_use]
pub fn usual_level(score: &[f32]) -> f32 {
    let mut sorted: Vec<f32> = score.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(middle), Some(best)) => 0.5 * (middle + best),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// Points of a square of `side` by `side` voxels at random, on average one in each. Every point is a voxel.
    fn scattered(side: usize, voxel: f64) -> Vec<[f64; 3]> {
        let mut random = SplitMix64::new(2);
        let length = side as f64 * voxel;
        (0..side * side).map(|_| [5e5 + length * random.unit(), length * random.unit(), 3.0]).collect()
    }

    /// Regions of the voxels with a score of `level` or more.
    fn found(score: &[f32], level: f32, points: &[[f64; 3]], voxels: &[i32]) -> Vec<Region> {
        let is_found: Vec<bool> = score.iter().map(|&score| score >= level).collect();
        regions(score, &is_found, level, points, voxels)
    }

    fn each(count: usize) -> Vec<i32> {
        (0..count as i32).collect()
    }

    #[test]
    fn a_sparse_surface_is_one_place_whatever_its_scale() {
        for voxel in [0.02, 3.0] {
            let points = scattered(100, voxel);
            let found = found(&vec![1.0; points.len()], 0.5, &points, &each(points.len()));
            let largest = found.first().map_or(0, |region| region.num_voxels);
            assert!(found.len() <= 3 && largest >= 9990, "{} places, the first of {largest}", found.len());
        }
    }

    #[test]
    fn places_apart_are_apart_and_the_strongest_comes_first() {
        // Two patches of a floor with a score; between them the floor has none.
        let points: Vec<[f64; 3]> =
            (0..40 * 20).map(|i| [f64::from(i % 40) * 0.1, f64::from(i / 40) * 0.1, 0.0]).collect();
        let score: Vec<f32> = points
            .iter()
            .map(|p| {
                if p[0] < 0.95 {
                    0.6
                } else if p[0] > 2.45 {
                    0.9
                } else {
                    0.1
                }
            })
            .collect();
        let found = found(&score, 0.5, &points, &each(points.len()));
        let sizes: Vec<usize> = found.iter().map(|region| region.num_voxels).collect();
        assert_eq!(sizes, [15 * 20, 10 * 20]);
        assert_eq!((found[0].best, found[0].low[0], found[0].high[0]), (0.9, 2.5, 3.9000000000000004));
        assert!((found[1].center[0] - 0.45).abs() < 1e-9 && (found[1].mean - 0.6).abs() < 1e-6);
        assert!(regions(&[], &[], 0.0, &[], &[]).is_empty());
    }

    #[test]
    fn a_stray_point_joins_nothing() {
        // It is as far from the others as they are from each other at most, but not as their neighbours are.
        let mut points: Vec<[f64; 3]> =
            (0..30 * 30).map(|i| [f64::from(i % 30) * 0.1, f64::from(i / 30) * 0.1, 0.0]).collect();
        points.push([1.5, 1.5, 0.5]);
        points.push([f64::NAN; 3]);
        let mut voxels = each(points.len() - 1);
        voxels.push(-1);
        let found = found(&vec![1.0; points.len() - 1], 0.5, &points, &voxels);
        assert_eq!(found.iter().map(|region| region.num_voxels).collect::<Vec<_>>(), [900, 1]);
    }

    #[test]
    fn the_usual_level_is_between_the_median_and_the_best() {
        assert_eq!(usual_level(&[0.0, 0.2, 1.0]), 0.6);
        assert_eq!(usual_level(&[]), 0.0);
    }
}
