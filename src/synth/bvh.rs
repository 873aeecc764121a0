//! Intersection of rays with triangles, for the light.

use glam::{Vec3, Vec3A};

/// Largest number of triangles in a leaf.
const LEAF: usize = 4;
/// Number of places along its longest side where a box may be split.
const BINS: usize = 12;
/// From this depth on, boxes are halved by count. So no tree is deeper than the stack.
const EVEN_DEPTH: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Node {
    min: Vec3A,
    max: Vec3A,
    /// First triangle of a leaf. For an inner node the second child; the first child follows its parent.
    next: u32,
    /// Number of triangles of a leaf; 0 for inner nodes.
    count: u16,
    /// Axis along which the two children lie apart.
    axis: u16,
}

/// A triangle with its number.
#[derive(Clone, Copy, Debug)]
struct Triangle {
    corners: [Vec3A; 3],
    number: u32,
}

impl Triangle {
    /// Returns three times the middle of the triangle.
    fn middle(&self) -> Vec3A {
        self.corners[0] + self.corners[1] + self.corners[2]
    }
}

/// Bounding volume hierarchy: a tree of boxes over triangles.
#[derive(Debug)]
pub(super) struct Bvh {
    nodes: Vec<Node>,
    /// One corner and two edges of each triangle.
    triangles: Vec<Triangle>,
}

impl Bvh {
    /// Builds the tree of triangles, given by their corners and numbers.
    pub(super) fn new(corners: impl Iterator<Item = ([Vec3; 3], u32)>) -> Self {
        let mut triangles: Vec<Triangle> =
            corners.map(|(corners, number)| Triangle { corners: corners.map(Vec3A::from), number }).collect();
        let mut nodes = Vec::with_capacity(triangles.len() / 2 + 1);
        if !triangles.is_empty() {
            build(&mut nodes, &mut triangles, 0, 0);
        }
        for Triangle { corners, .. } in &mut triangles {
            let [a, b, c] = *corners;
            *corners = [a, b - a, c - a];
        }
        Self { nodes, triangles }
    }

    /// Returns the nearest triangle on a ray within `reach`, and its distance in lengths of `direction`.
    pub(super) fn nearest(&self, origin: Vec3, direction: Vec3, reach: f32) -> Option<(f32, u32)> {
        self.walk::<false>(origin.into(), direction.into(), reach)
    }

    /// True if the ray hits anything within `reach`.
    pub(super) fn is_hit(&self, origin: Vec3, direction: Vec3, reach: f32) -> bool {
        self.walk::<true>(origin.into(), direction.into(), reach).is_some()
    }

    fn walk<const ANY: bool>(&self, origin: Vec3A, direction: Vec3A, mut reach: f32) -> Option<(f32, u32)> {
        if self.nodes.is_empty() {
            return None;
        }
        let inverse = direction.recip();
        let backwards = [direction.x < 0.0, direction.y < 0.0, direction.z < 0.0];
        let mut best = None;
        let mut stack = [0_u32; 64];
        let mut depth = 1;
        while depth > 0 {
            depth -= 1;
            let at = stack[depth] as usize;
            let node = &self.nodes[at];
            let (t0, t1) = ((node.min - origin) * inverse, (node.max - origin) * inverse);
            let (enter, leave) = (t0.min(t1).max_element(), t0.max(t1).min_element());
            if !(leave >= enter.max(0.0) && enter <= reach) {
                continue;
            }
            if node.count == 0 {
                // The nearer child comes first.
                let (first, second) = (at as u32 + 1, node.next);
                let swap = backwards[usize::from(node.axis)];
                stack[depth] = if swap { first } else { second };
                stack[depth + 1] = if swap { second } else { first };
                depth += 2;
                continue;
            }
            for &Triangle { corners: [corner, u, v], number } in
                &self.triangles[node.next as usize..][..usize::from(node.count)]
            {
                let cross = direction.cross(v);
                let from = origin - corner;
                let inverse = 1.0 / u.dot(cross);
                let s = from.dot(cross) * inverse;
                let other = from.cross(u);
                let t = direction.dot(other) * inverse;
                let along = v.dot(other) * inverse;
                if s >= 0.0 && t >= 0.0 && s + t <= 1.0 && along > 0.0 && along < reach {
                    reach = along;
                    best = Some((along, number));
                    if ANY {
                        return best;
                    }
                }
            }
        }
        best
    }
}

fn bounds_of(triangles: &[Triangle]) -> (Vec3A, Vec3A) {
    triangles
        .iter()
        .flat_map(|triangle| triangle.corners)
        .fold((Vec3A::INFINITY, Vec3A::NEG_INFINITY), |(min, max), p| (min.min(p), max.max(p)))
}

fn build(nodes: &mut Vec<Node>, triangles: &mut [Triangle], first: usize, depth: usize) {
    let (min, max) = bounds_of(triangles);
    let at = nodes.len();
    if triangles.len() <= LEAF {
        nodes.push(Node { min, max, next: first as u32, count: triangles.len() as u16, axis: 0 });
        return;
    }
    let middles = triangles.iter().map(Triangle::middle);
    let (low, high) = middles.fold((Vec3A::INFINITY, Vec3A::NEG_INFINITY), |(low, high), p| (low.min(p), high.max(p)));
    let size = high - low;
    let axis = (1..3).fold(0, |axis, other| if size[other] > size[axis] { other } else { axis });
    nodes.push(Node { min, max, next: 0, count: 0, axis: axis as u16 });
    let half = split(triangles, axis, low[axis], size[axis]).filter(|_| depth < EVEN_DEPTH).unwrap_or_else(|| {
        let half = triangles.len() / 2;
        // Numbers break ties, so that the tree is the same on every machine.
        triangles.select_nth_unstable_by(half, |p, q| {
            p.middle()[axis].total_cmp(&q.middle()[axis]).then(p.number.cmp(&q.number))
        });
        half
    });
    let (left, right) = triangles.split_at_mut(half);
    build(nodes, left, first, depth + 1);
    nodes[at].next = nodes.len() as u32;
    build(nodes, right, first + half, depth + 1);
}

/// Partitions triangles at the plane that makes rays cheapest (the surface area heuristic, MacDonald and
/// Booth 1990). Returns the number of triangles on the first side.
fn split(triangles: &mut [Triangle], axis: usize, low: f32, size: f32) -> Option<usize> {
    let scale = BINS as f32 / size;
    let bin = |triangle: &Triangle| (((triangle.middle()[axis] - low) * scale) as usize).min(BINS - 1);
    let mut bins = [(Vec3A::INFINITY, Vec3A::NEG_INFINITY, 0_usize); BINS];
    for triangle in triangles.iter() {
        let (min, max) = bounds_of(std::slice::from_ref(triangle));
        let (bin_min, bin_max, count) = &mut bins[bin(triangle)];
        (*bin_min, *bin_max, *count) = (bin_min.min(min), bin_max.max(max), *count + 1);
    }
    let cost = |bins: &[(Vec3A, Vec3A, usize)]| {
        let (min, max, count) = bins.iter().fold((Vec3A::INFINITY, Vec3A::NEG_INFINITY, 0), |all, one| {
            (all.0.min(one.0), all.1.max(one.1), all.2 + one.2)
        });
        let size = max - min;
        if count == 0 { f32::INFINITY } else { (size.x * size.y + size.y * size.z + size.z * size.x) * count as f32 }
    };
    let costs = (1..BINS).map(|plane| (cost(&bins[..plane]) + cost(&bins[plane..]), plane));
    let (best, plane) = costs.min_by(|a, b| a.0.total_cmp(&b.0))?;
    if !best.is_finite() {
        return None;
    }
    let mut count = 0;
    for i in 0..triangles.len() {
        if bin(&triangles[i]) < plane {
            triangles.swap(i, count);
            count += 1;
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use glam::vec3;

    use super::*;
    use crate::synth::draw::Draw;

    #[test]
    fn a_tree_finds_what_trying_every_triangle_finds() {
        let mut draw = Draw::new(1, &[]);
        let mut point =
            |scale: f32| vec3(draw.range(-scale, scale), draw.range(-scale, scale), draw.range(-scale, scale));
        let triangles: Vec<[Vec3; 3]> = (0..300)
            .map(|_| {
                let at = point(3.0);
                [at + point(0.5), at + point(0.5), at + point(0.5)]
            })
            .collect();
        let tree = Bvh::new(triangles.iter().copied().zip(0..));
        let alone: Vec<Bvh> = triangles.iter().map(|t| Bvh::new([(*t, 0)].into_iter())).collect();
        let mut hits = 0;
        for _ in 0..300 {
            let (origin, direction) = (point(4.0), point(1.0).normalize_or(Vec3::X));
            let all = alone
                .iter()
                .enumerate()
                .filter_map(|(i, one)| Some((one.nearest(origin, direction, 9.0)?.0, i as u32)));
            let expected = all.min_by(|a, b| a.0.total_cmp(&b.0));
            assert_eq!(tree.nearest(origin, direction, 9.0), expected);
            assert_eq!(tree.is_hit(origin, direction, 9.0), expected.is_some());
            hits += usize::from(expected.is_some());
        }
        assert!(hits > 30, "{hits}");
        assert_eq!(Bvh::new(std::iter::empty()).nearest(Vec3::ZERO, Vec3::X, 9.0), None);
    }
}
