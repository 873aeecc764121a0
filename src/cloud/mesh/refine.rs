//! Cutting large triangles.

use std::collections::HashMap;

use glam::DVec3;

use crate::cloud::{PointCloud, Unit};

/// Longest edge after cutting, in metres.
const LONGEST_EDGE: f64 = 0.04;
/// Triangles with edges above this many times the longest edge are large.
const LARGE: f64 = 5.0;
/// Share of the surface that has to lie in large triangles for the mesh to be cut.
const LARGE_SHARE: f64 = 0.2;
/// Points that cutting may add, estimated beforehand.
const MAX_ADDED: usize = 400_000;
/// Points after which cutting ends, whatever the estimate.
const MOST_ADDED: usize = 600_000;
/// Halved triangles after which cutting ends. A new point halves two triangles, or more where triangles lie
/// on each other.
const MOST_HALVED: usize = 4 * MOST_ADDED;

/// Triangles of a mesh after cutting.
pub(super) struct Pieces {
    pub triangles: Vec<[u32; 3]>,
    /// Triangle of the mesh that each piece is a part of.
    pub parents: Vec<u32>,
}

fn corner(cloud: &PointCloud, index: u32) -> DVec3 {
    cloud.positions.get(index as usize).map_or(DVec3::NAN, |&position| position.into())
}

/// Returns the longest edge that triangles shall have, in the unit of the file; `None` if the triangles are
/// small enough as they are.
pub(super) fn longest_edge(cloud: &PointCloud) -> Option<f64> {
    let (low, high) = cloud.bounds()?;
    if cloud.faces.is_empty() {
        return None;
    }
    let diagonal = DVec3::from(low).distance(high.into());
    if !diagonal.is_finite() || diagonal <= 0.0 {
        return None;
    }
    let metres = cloud.guess_unit().unit.and_then(Unit::metres).unwrap_or(1.0);
    let target = (LONGEST_EDGE / metres).clamp(diagonal * 1e-3, diagonal * 1e-2);
    let (mut area, mut large_area, mut length) = (0.0, 0.0, 0.0);
    for face in &cloud.faces {
        let [a, b, c] = face.map(|index| corner(cloud, index));
        let longest = a.distance(b).max(b.distance(c)).max(c.distance(a));
        let this = (b - a).cross(c - a).length() * 0.5;
        if !longest.is_finite() || !this.is_finite() {
            continue;
        }
        area += this;
        if longest > target * LARGE {
            large_area += this;
        }
        if longest > target {
            length += longest;
        }
    }
    if large_area <= area * LARGE_SHARE {
        return None;
    }
    // Up to 3 points fall on a square of the edge, and a narrow triangle has one per edge of its length.
    let most = MAX_ADDED as f64;
    let affordable = (length + (length * length + 12.0 * most * area).sqrt()) / (2.0 * most);
    let longest = target.max(affordable);
    (longest.is_finite() && longest < diagonal).then_some(longest)
}

/// Halves edges until none is longer than `longest`. The vertices keep their numbers; new ones follow them.
///
/// An edge is always halved in its middle, whatever triangle it belongs to. So neighbours still fit.
pub(super) fn cut(cloud: &mut PointCloud, longest: f64) -> Pieces {
    let mut pieces = Pieces { triangles: Vec::new(), parents: Vec::new() };
    let mut middles: HashMap<[u32; 2], u32> = HashMap::new();
    let faces = std::mem::take(&mut cloud.faces);
    let limit = cloud.len().saturating_add(MOST_ADDED).min(u32::MAX as usize);
    let mut open = Vec::new();
    let mut halved = 0;
    for (&face, parent) in faces.iter().zip(0_u32..) {
        open.push(face);
        while let Some([a, b, c]) = open.pop() {
            let length = |from, to| corner(cloud, from).distance(corner(cloud, to));
            // The edge comes first, the corner opposite to it last.
            let turned = [[a, b, c], [b, c, a], [c, a, b]];
            let [from, to, opposite] = turned.into_iter().fold(turned[0], |best, next| {
                if length(next[0], next[1]) > length(best[0], best[1]) { next } else { best }
            });
            let long = length(from, to);
            let middle = (long > longest && long.is_finite() && cloud.len() < limit && halved < MOST_HALVED)
                .then(|| middle_of(cloud, &mut middles, from, to))
                .flatten();
            match middle {
                Some(middle) => {
                    halved += 1;
                    open.extend([[middle, to, opposite], [from, middle, opposite]]);
                }
                None => {
                    pieces.triangles.push([a, b, c]);
                    pieces.parents.push(parent);
                }
            }
        }
    }
    cloud.faces = faces;
    pieces
}

/// The point in the middle of an edge. `None` if it would be one of the ends.
fn middle_of(cloud: &mut PointCloud, middles: &mut HashMap<[u32; 2], u32>, a: u32, b: u32) -> Option<u32> {
    let key = [a.min(b), a.max(b)];
    if let Some(&known) = middles.get(&key) {
        return Some(known);
    }
    let ends = key.map(|end| corner(cloud, end));
    let position = ends[0] * 0.5 + ends[1] * 0.5;
    if ends.contains(&position) {
        return None;
    }
    let new = u32::try_from(cloud.len()).ok()?;
    let [low, high] = key.map(|end| end as usize);
    cloud.positions.push(position.to_array());
    if let Some(colors) = &mut cloud.colors {
        let [a, b] = [low, high].map(|end| colors.get(end).copied().unwrap_or_default());
        colors.push(std::array::from_fn(|channel| a[channel].midpoint(b[channel])));
    }
    if let Some(normals) = &mut cloud.normals {
        let [a, b] = [low, high].map(|end| normals.get(end).copied().unwrap_or_default());
        normals.push(std::array::from_fn(|axis| (a[axis] + b[axis]) * 0.5));
    }
    for attribute in &mut cloud.attributes {
        let value = attribute.data.get_f64(low).unwrap_or_default();
        attribute.data.push_f64(value);
    }
    middles.insert(key, new);
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A square of `edge` in two triangles.
    fn square(edge: f64) -> PointCloud {
        let positions = vec![[0.0, 0.0, 0.0], [edge, 0.0, 0.0], [edge, edge, 0.0], [0.0, edge, 0.0]];
        PointCloud { positions, faces: vec![[0, 1, 2], [0, 2, 3]], ..PointCloud::default() }
    }

    fn area(cloud: &PointCloud, triangles: &[[u32; 3]]) -> f64 {
        let of = |face: &[u32; 3]| {
            let [a, b, c] = face.map(|index| corner(cloud, index));
            (b - a).cross(c - a).z * 0.5
        };
        triangles.iter().map(of).sum()
    }

    #[test]
    fn pieces_cover_the_surface_without_gaps() {
        let mut cloud = square(4.0);
        let longest = longest_edge(&cloud).unwrap();
        assert_eq!(longest, 0.04);
        let pieces = cut(&mut cloud, longest);
        assert!((area(&cloud, &pieces.triangles) - 16.0).abs() < 1e-9);
        // Each edge inside belongs to two pieces, once in each direction.
        let mut edges: HashMap<[u32; 2], i32> = HashMap::new();
        for [a, b, c] in &pieces.triangles {
            for [from, to] in [[a, b], [b, c], [c, a]] {
                assert!(corner(&cloud, *from).distance(corner(&cloud, *to)) <= 0.04);
                *edges.entry([*from, *to]).or_default() += 1;
                *edges.entry([*to, *from]).or_default() -= 1;
            }
        }
        let on_border = |index: u32| cloud.positions[index as usize].iter().take(2).any(|x| *x == 0.0 || *x == 4.0);
        assert!(edges.iter().all(|([a, b], sum)| *sum == 0 || (on_border(*a) && on_border(*b))));
        let share = pieces.parents.iter().filter(|parent| **parent == 0).count() * 2;
        assert_eq!(share, pieces.parents.len());
    }

    #[test]
    fn the_number_of_points_is_bounded() {
        let mut cloud = square(1e6);
        let longest = longest_edge(&cloud).unwrap();
        cut(&mut cloud, longest);
        assert!((10_000..1_000_000).contains(&cloud.len()), "{} points", cloud.len());
        // A thousand needles have no area, but they are long.
        let mut needles = PointCloud::default();
        for i in 0..1000 {
            let y = f64::from(i);
            needles.positions.extend([[0.0, y, 0.0], [1000.0, y, 0.0], [1000.0, y + 1e-3, 0.0]]);
            needles.faces.push([0, 1, 2].map(|k| 3 * i as u32 + k));
        }
        let longest = longest_edge(&needles).unwrap();
        cut(&mut needles, longest);
        assert!(needles.len() < 1_000_000, "{} points", needles.len());
    }

    #[test]
    fn small_and_impossible_triangles_stay() {
        let mut many = PointCloud::default();
        for i in 0..2000_u32 {
            let (x, y) = (f64::from(i % 50) * 0.1, f64::from(i / 50) * 0.1);
            many.positions.extend([[x, y, 0.0], [x + 0.1, y, 0.0], [x, y + 0.1, 0.0]]);
            many.faces.push([0, 1, 2].map(|k| 3 * i + k));
        }
        assert_eq!(longest_edge(&many), None);
        for bad in [f64::NAN, f64::INFINITY, 1e308, -1e308] {
            let mut cloud = square(1.0);
            cloud.positions[2][0] = bad;
            if let Some(longest) = longest_edge(&cloud) {
                cut(&mut cloud, longest);
            }
            assert!(cloud.len() < 1_000_000);
        }
        // Triangles on each other share their new points, but not their pieces.
        let mut cloud = square(1.0);
        cloud.positions.push([f64::NAN; 3]);
        cloud.faces = vec![[0, 1, 4]; 10_000];
        let pieces = cut(&mut cloud, 1e-3);
        assert!(pieces.triangles.len() <= 10_000 + MOST_HALVED, "{} pieces", pieces.triangles.len());
        // Far from zero there is no number between the ends of an edge.
        let mut cloud = square(1.0);
        cloud.positions.iter_mut().for_each(|position| position[0] += 1e16);
        cut(&mut cloud, 0.04);
        assert!(cloud.len() < 1_000_000);
    }
}
