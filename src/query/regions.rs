//! Finds the places of an object: connected groups of voxels with a high score.

use std::collections::HashMap;

use serde::Serialize;

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

/// Finds connected groups of the voxels `coords [V]` whose `score [V]` is `level` or more. Voxels are
/// connected if they share a face, an edge or a corner. Groups are sorted by the sum of their scores above
/// the level, largest first. Groups without points are left out. `positions [N]` are the points;
/// `voxel_from_point [N]` is -1 for points without a voxel.
#[must_use]
pub fn regions(
    coords: &[[i32; 3]],
    score: &[f32],
    level: f32,
    positions: &[[f64; 3]],
    voxel_from_point: &[i32],
) -> Vec<Region> {
    let voxel_at: HashMap<[i32; 3], usize> = (coords.iter().zip(score).enumerate())
        .filter(|(_, (_, s))| **s >= level)
        .map(|(v, (at, _))| (*at, v))
        .collect();
    let mut group_of = vec![usize::MAX; coords.len()];
    let mut groups: Vec<Vec<usize>> = Vec::new();
    // Goes through the voxels in order, so that the same scene gives the same groups.
    for first in (0..coords.len()).filter(|&v| score[v] >= level) {
        if group_of[first] != usize::MAX {
            continue;
        }
        let group = groups.len();
        group_of[first] = group;
        let mut members = vec![first];
        let mut next = 0;
        while let Some(&voxel) = members.get(next) {
            next += 1;
            for offset in 0..27 {
                let step = [offset % 3 - 1, offset / 3 % 3 - 1, offset / 9 - 1];
                let at = std::array::from_fn(|axis| coords[voxel][axis] + step[axis]);
                if let Some(&other) = voxel_at.get(&at)
                    && group_of[other] == usize::MAX
                {
                    group_of[other] = group;
                    members.push(other);
                }
            }
        }
        groups.push(members);
    }
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

    #[test]
    fn touching_voxels_are_one_region_and_the_strongest_comes_first() {
        // Two voxels that touch at a corner, a single better one, and one below the level.
        let coords = [[0, 0, 0], [1, 1, 1], [5, 0, 0], [9, 9, 9]];
        let score = [0.6, 0.7, 0.9, 0.1];
        let positions = [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [10.0, 0.0, 0.0], [18.0; 3], [f64::NAN; 3]];
        let found = regions(&coords, &score, 0.5, &positions, &[0, 1, 2, 3, -1]);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].num_voxels, found[0].best, found[0].center), (1, 0.9, [10.0, 0.0, 0.0]));
        assert_eq!((found[1].num_voxels, found[1].center), (2, [1.0; 3]));
        assert_eq!((found[1].low, found[1].high), ([0.0; 3], [2.0; 3]));
        assert!((found[1].mean - 0.65).abs() < 1e-6);
        assert!(regions(&[], &[], 0.0, &[], &[]).is_empty());
    }

    #[test]
    fn the_usual_level_is_between_the_median_and_the_best() {
        assert_eq!(usual_level(&[0.0, 0.2, 1.0]), 0.6);
        assert_eq!(usual_level(&[]), 0.0);
    }
}
