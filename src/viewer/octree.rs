//! The order in which points go to the page: an octree whose first cubes show the whole scan.

use rayon::prelude::*;

use crate::random::SplitMix64;

/// Cells along each side of a cube, of which each holds one of the cube's own points at most.
const GRID: usize = 64;
/// Most points of a cube that is not divided.
const LEAF: usize = 8192;
/// Fewer points do not make a cube of their own.
const MIN_CHILD: usize = 1024;
/// Deepest level. Points that lie in one place cannot be divided.
const MAX_LEVEL: u8 = 20;
/// Seed of the order in which points compete for cells.
const SEED: u64 = 0x0c7e_ee5e;

/// A cube of the octree with points of its own. They are a sample of all points in the cube; the children have the
/// others.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Corner with the smallest coordinates.
    pub low: [f64; 3],
    /// Length of an edge.
    pub size: f64,
    /// Index of the cube that this is an eighth of, -1 for the first.
    pub parent: i32,
    /// Place of its points in the order, first.
    pub start: usize,
    /// Number of its points.
    pub count: usize,
}

/// Points in an order that shows the whole first, and the cubes they belong to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Octree {
    /// Cubes, level by level.
    pub nodes: Vec<Node>,
    /// Index of the point at each place of the order. Every point is in it once.
    pub order: Vec<u32>,
}

/// A cube with all its points, before they are shared with its children.
struct Cube {
    low: [f64; 3],
    size: f64,
    parent: i32,
    points: Vec<u32>,
}

/// Arranges finite `points [N]`, at most `u32::MAX` of them, in an octree. The result depends on the points alone.
#[must_use]
pub fn octree(points: &[[f32; 3]]) -> Octree {
    let mut tree = Octree::default();
    if points.is_empty() {
        return tree;
    }
    let bounds = points.iter().fold([[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]], |[low, high], p| {
        let at = |axis: usize| f64::from(p[axis]);
        [std::array::from_fn(|axis| low[axis].min(at(axis))), std::array::from_fn(|axis| high[axis].max(at(axis)))]
    });
    let [low, high] = bounds;
    let size = (0..3).map(|axis| high[axis] - low[axis]).fold(0.0, f64::max).max(f64::from(f32::MIN_POSITIVE));
    let mut all: Vec<u32> = (0..points.len() as u32).collect();
    let mut random = SplitMix64::new(SEED);
    for i in (1..all.len()).rev() {
        all.swap(i, random.below(i + 1));
    }
    let mut cubes = vec![Cube { low, size, parent: -1, points: all }];
    for level in 0..=MAX_LEVEL {
        let divided: Vec<_> = cubes.into_par_iter().map(|cube| divide(cube, points, level == MAX_LEVEL)).collect();
        cubes = Vec::new();
        for (cube, own, children) in divided {
            let index = tree.nodes.len() as i32;
            let Cube { low, size, parent, .. } = cube;
            tree.nodes.push(Node { low, size, parent, start: tree.order.len(), count: own.len() });
            tree.order.extend(own);
            cubes.extend(children.into_iter().map(|child| Cube { parent: index, ..child }));
        }
    }
    tree
}

/// Takes the points of the cube itself out of all, and shares the others among its children.
fn divide(mut cube: Cube, points: &[[f32; 3]], is_last: bool) -> (Cube, Vec<u32>, Vec<Cube>) {
    let all = std::mem::take(&mut cube.points);
    if all.len() <= LEAF || is_last {
        return (cube, all, Vec::new());
    }
    let cell = |p: &[f32; 3]| -> [usize; 3] {
        std::array::from_fn(|axis| {
            let share = (f64::from(p[axis]) - cube.low[axis]) / cube.size;
            ((share * GRID as f64) as usize).min(GRID - 1)
        })
    };
    let mut is_taken = vec![false; GRID * GRID * GRID];
    let mut own = Vec::new();
    let mut shares: [Vec<u32>; 8] = Default::default();
    for &point in &all {
        let [x, y, z] = cell(&points[point as usize]);
        let taken = &mut is_taken[(z * GRID + y) * GRID + x];
        if !*taken {
            *taken = true;
            own.push(point);
        } else {
            let half = GRID / 2;
            shares[usize::from(x >= half) | usize::from(y >= half) << 1 | usize::from(z >= half) << 2].push(point);
        }
    }
    let size = cube.size * 0.5;
    let mut children = Vec::new();
    for (octant, points) in shares.into_iter().enumerate() {
        if points.len() < MIN_CHILD {
            own.extend(points);
        } else {
            let low = std::array::from_fn(|axis| cube.low[axis] + if octant >> axis & 1 == 1 { size } else { 0.0 });
            children.push(Cube { low, size, parent: -1, points });
        }
    }
    (cube, own, children)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surface(n: usize) -> Vec<[f32; 3]> {
        let mut random = SplitMix64::new(1);
        (0..n)
            .map(|_| [10.0 * random.unit() as f32, 4.0 * random.unit() as f32, 0.001 * random.unit() as f32])
            .collect()
    }

    #[test]
    fn every_point_is_in_one_cube_that_holds_it() {
        let points = surface(200_000);
        let tree = octree(&points);
        let mut seen = tree.order.clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..200_000).collect::<Vec<u32>>());
        let mut at = 0;
        for (index, node) in tree.nodes.iter().enumerate() {
            assert_eq!(node.start, at);
            at += node.count;
            for &point in &tree.order[node.start..at] {
                let p = points[point as usize].map(f64::from);
                let within =
                    |axis: usize| p[axis] >= node.low[axis] - 1e-6 && p[axis] <= node.low[axis] + node.size + 1e-6;
                assert!((0..3).all(within), "{p:?} {node:?}");
            }
            assert!(node.parent < index as i32);
            if let Ok(parent) = usize::try_from(node.parent) {
                assert_eq!(node.size, 0.5 * tree.nodes[parent].size);
            }
        }
        assert_eq!(at, 200_000);
    }

    #[test]
    fn the_first_cube_shows_the_whole() {
        let points = surface(200_000);
        let first = &octree(&points).nodes[0];
        // 64 columns by 26 rows of the grid, and what is too little for children.
        assert!((1600..16_000).contains(&first.count), "{}", first.count);
        let tree = octree(&points);
        let columns: std::collections::BTreeSet<u32> =
            tree.order[..first.count].iter().map(|&i| points[i as usize][0] as u32).collect();
        assert_eq!(columns.len(), 10);
    }

    #[test]
    fn points_in_one_place_end_the_division() {
        let tree = octree(&vec![[1.0, 2.0, 3.0]; 30_000]);
        assert_eq!(tree.order.len(), 30_000);
        assert!(tree.nodes.len() <= usize::from(MAX_LEVEL) + 1);
        assert_eq!(octree(&[]), Octree::default());
        assert_eq!(octree(&[[5.0; 3]]).order, [0]);
    }
}
