//! Finds the places of an object: connected groups of voxels with a high score.

use serde::Serialize;

use crate::ops::knn::cpu::{Neighbors, knn_between};
use crate::ops::present;
use crate::unions::Unions;

/// Neighbours of a voxel that may be linked to it.
const NEIGHBORS: usize = 24;
/// A voxel is its own first neighbour.
const AROUND: usize = NEIGHBORS + 1;
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
/// `positions [N]` are the points; `voxel_from_point [N]` is -1 for points without a voxel. See
/// [`Surface::regions`].
#[must_use]
pub fn regions(
    score: &[f32],
    found: &[bool],
    level: f32,
    positions: &[[f64; 3]],
    voxel_from_point: &[i32],
) -> Vec<Region> {
    Surface::new(score.len(), positions, voxel_from_point).regions(score, found, level).regions
}

/// The voxels of a scan, and where their points are. It finds any number of regions.
#[derive(Clone, Debug)]
pub struct Surface {
    num_voxels: usize,
    /// Voxels with points, ascending.
    occupied: Vec<usize>,
    /// Mean of the points of each, relative to a corner of the scan.
    centers: Vec<[f32; 3]>,
    /// Where the points of each are.
    extents: Vec<Extent>,
    /// Neighbours of all occupied voxels, if they are kept.
    near: Option<Neighbors<f32>>,
}

/// Where some points are.
#[derive(Clone, Copy, Debug)]
struct Extent {
    count: f64,
    center: [f64; 3],
    low: [f64; 3],
    high: [f64; 3],
}

impl Extent {
    const NONE: Self = Self { count: 0.0, center: [0.0; 3], low: [f64::INFINITY; 3], high: [f64::NEG_INFINITY; 3] };

    /// Adds points. The mean is a running one: sums of map coordinates would lose their last digits.
    fn add(&mut self, other: &Self) {
        if other.count == 0.0 {
            return;
        }
        self.count += other.count;
        let share = other.count / self.count;
        for axis in 0..3 {
            self.center[axis] += (other.center[axis] - self.center[axis]) * share;
            self.low[axis] = self.low[axis].min(other.low[axis]);
            self.high[axis] = self.high[axis].max(other.high[axis]);
        }
    }
}

/// Regions, and the voxels of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The regions.
    pub regions: Vec<Region>,
    /// `[V]`: index of the region of every voxel, -1 for none.
    pub region_of_voxel: Vec<i32>,
}

impl Surface {
    /// `positions [N]` are the points; `voxel_from_point [N]` is -1 for points without a voxel.
    #[must_use]
    pub fn new(num_voxels: usize, positions: &[[f64; 3]], voxel_from_point: &[i32]) -> Self {
        let mut all = vec![Extent::NONE; num_voxels];
        let mut low = [f64::INFINITY; 3];
        for (&p, &voxel) in positions.iter().zip(voxel_from_point) {
            let Some(voxel) = present(voxel, num_voxels) else { continue };
            all[voxel].add(&Extent { count: 1.0, center: p, low: p, high: p });
            low = std::array::from_fn(|axis| low[axis].min(p[axis]));
        }
        let with_points = all.into_iter().enumerate().filter(|(_, extent)| extent.count > 0.0);
        let (occupied, extents): (Vec<usize>, Vec<Extent>) = with_points.unzip();
        // Neighbours are searched among finite positions.
        let finite = |x: f64, low: f64| ((x - low) as f32).min(f32::MAX);
        let centers = extents.iter().map(|extent| std::array::from_fn(|axis| finite(extent.center[axis], low[axis])));
        Self { num_voxels, centers: centers.collect(), occupied, extents, near: None }
    }

    /// The same surface, with the neighbours of all voxels kept. Every search for regions is faster then.
    #[must_use]
    pub fn with_neighbors(mut self) -> Self {
        self.near = Some(knn_between(&self.centers, &self.centers, AROUND));
        self
    }

    /// Usual distance of the points from each other: the median distance of a voxel from its fourth neighbour, less if
    /// voxels hold several points. On a square grid that is the grid's. `None` unless neighbours are kept, and without
    /// neighbours.
    #[must_use]
    pub fn spacing(&self) -> Option<f64> {
        let rows = self.near.as_ref()?.sq_dist.chunks_exact(AROUND);
        let mut fourth: Vec<f32> = rows.map(|row| row[4]).filter(|sq_dist| *sq_dist < f32::MAX).collect();
        let middle = fourth.len() / 2;
        let (_, median, _) = (!fourth.is_empty()).then(|| fourth.select_nth_unstable_by(middle, f32::total_cmp))?;
        let points: f64 = self.extents.iter().map(|extent| extent.count).sum();
        Some((f64::from(*median) * self.occupied.len() as f64 / points).sqrt())
    }

    /// Finds connected groups of the voxels that are `found [V]`. `score [V]` is `level` or more for each of them.
    ///
    /// Voxels are connected if they are as near as neighbouring points of the scan are in both places. So neither
    /// the size of the voxels nor a change of density cuts a surface to pieces. Groups are sorted by the sum of
    /// their scores above the level, largest first. Voxels without points are left out.
    #[must_use]
    pub fn regions(&self, score: &[f32], found: &[bool], level: f32) -> Found {
        let wanted: Vec<usize> = (0..self.occupied.len()).filter(|&i| found[self.occupied[i]]).collect();
        let mut groups: Vec<(f64, Region, Vec<usize>)> = self
            .linked(&wanted)
            .into_iter()
            .map(|members| {
                let scores = || members.iter().map(|&i| score[self.occupied[i]]);
                let mean = scores().map(f64::from).sum::<f64>() / members.len() as f64;
                let mut extent = Extent::NONE;
                members.iter().for_each(|&i| extent.add(&self.extents[i]));
                let region = Region {
                    num_voxels: members.len(),
                    best: scores().fold(f32::NEG_INFINITY, f32::max),
                    mean: mean as f32,
                    center: extent.center,
                    low: extent.low,
                    high: extent.high,
                };
                ((mean - f64::from(level)) * members.len() as f64, region, members)
            })
            .collect();
        groups.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.num_voxels.cmp(&a.1.num_voxels)));
        let mut found = Found { regions: Vec::with_capacity(groups.len()), region_of_voxel: vec![-1; self.num_voxels] };
        for (index, (_, region, members)) in (0..).zip(groups) {
            members.iter().for_each(|&i| found.region_of_voxel[self.occupied[i]] = index);
            found.regions.push(region);
        }
        found
    }

    /// Groups of the occupied voxels `wanted` that are linked to each other.
    fn linked(&self, wanted: &[usize]) -> Vec<Vec<usize>> {
        let queries: Vec<[f32; 3]> = wanted.iter().map(|&i| self.centers[i]).collect();
        let own = self.near.is_none().then(|| knn_between(&queries, &self.centers, AROUND));
        let row = |at: usize| {
            let (near, row) = match (&self.near, &own) {
                (Some(near), _) => (near, wanted[at]),
                (None, own) => (own.as_ref()?, at),
            };
            let row = row * AROUND..(row + 1) * AROUND;
            Some((&near.index[row.clone()], &near.sq_dist[row]))
        };
        let mut wanted_at = vec![usize::MAX; self.centers.len()];
        wanted.iter().enumerate().for_each(|(at, &i)| wanted_at[i] = at);
        let reach_of = |at: usize| {
            let (_, sq_dist) = row(at)?;
            let known = sq_dist.iter().take(SPACING_NEIGHBOR + 1).filter(|sq| **sq < f32::MAX);
            Some(known.fold(0.0, |farthest, &sq| f32::max(farthest, sq)) * REACH * REACH)
        };
        let reach: Vec<f32> = (0..wanted.len()).map(|at| reach_of(at).unwrap_or(0.0)).collect();
        let mut unions = Unions::new(wanted.len());
        for (at, (index, sq_dists)) in (0..wanted.len()).filter_map(|at| Some((at, row(at)?))) {
            for (&other, &sq_dist) in index.iter().zip(sq_dists) {
                let Some(other) = present(other, self.centers.len()).map(|other| wanted_at[other]) else { continue };
                if other != usize::MAX && sq_dist <= reach[at].min(reach[other]) {
                    unions.unite(at, other);
                }
            }
        }
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut group_of = vec![usize::MAX; wanted.len()];
        for at in 0..wanted.len() {
            let first = unions.root(at);
            if first == at {
                group_of[at] = groups.len();
                groups.push(Vec::new());
            }
            groups[group_of[first]].push(wanted[at]);
        }
        groups
    }
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
    fn kept_neighbours_change_nothing() {
        let points = scattered(60, 0.02);
        let mut random = SplitMix64::new(5);
        let score: Vec<f32> = points.iter().map(|_| random.unit() as f32).collect();
        let is_found: Vec<bool> = score.iter().map(|&score| score > 0.4).collect();
        let surface = Surface::new(points.len(), &points, &each(points.len()));
        let found = surface.regions(&score, &is_found, 0.4);
        assert!(found.regions.len() > 1);
        assert_eq!(surface.with_neighbors().regions(&score, &is_found, 0.4), found);
        for (voxel, &region) in found.region_of_voxel.iter().enumerate() {
            assert_eq!(region >= 0, is_found[voxel], "voxel {voxel}");
        }
        let sizes = |index: i32| found.region_of_voxel.iter().filter(|region| **region == index).count();
        assert!((0..).zip(&found.regions).all(|(index, region)| sizes(index) == region.num_voxels));
    }

    #[test]
    fn the_spacing_of_a_grid_is_its_own() {
        let points: Vec<[f64; 3]> =
            (0..900).map(|i| [7e5 + f64::from(i % 30) * 0.5, f64::from(i / 30) * 0.5, 0.0]).collect();
        let spacing =
            |points: &[[f64; 3]], voxels: &[i32]| Surface::new(900, points, voxels).with_neighbors().spacing().unwrap();
        assert!((spacing(&points, &each(900)) - 0.5).abs() < 1e-6);
        // Four points in each voxel are half as far apart.
        let four = spacing(&points.repeat(4), &each(900).repeat(4));
        assert!((four - 0.25).abs() < 1e-6, "{four}");
        assert_eq!(Surface::new(900, &points, &each(900)).spacing(), None);
        assert_eq!(Surface::new(1, &points[..1], &[0]).with_neighbors().spacing(), None);
    }

    #[test]
    fn the_usual_level_is_between_the_median_and_the_best() {
        assert_eq!(usual_level(&[0.0, 0.2, 1.0]), 0.6);
        assert_eq!(usual_level(&[]), 0.0);
    }
}
