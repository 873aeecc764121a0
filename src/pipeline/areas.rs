//! Surface that every point of a cloud stands for.
//!
//! The points are first thinned to the mean of every small cell. Around such a mean, a plane is laid through
//! its neighbours. The part of the plane that is nearer to the mean than to any neighbour is its surface. So
//! areas depend neither on the density of the points nor on the direction of the surface.

use std::collections::HashMap;
use std::f64::consts::PI;

use glam::{DVec2, DVec3};
use rayon::prelude::*;

use crate::ops::{knn, normals, present};

/// Neighbours that a plane is laid through.
const NEIGHBORS: usize = 24;
/// Thickness of a neighbourhood as a share of its width, from which on the cells are too small: they would
/// see noise as surface.
const THICK: f64 = 0.15;
/// Factor of a cell's edge from one try to the next, and the most tries.
const GROWTH: f64 = 1.5;
const TRIES: usize = 8;
/// Corners of the disc that bounds the surface of a mean.
const CORNERS: usize = 16;
/// Radius of that disc as a multiple of the spacing. Random points leave gaps of this size.
const DISC: f64 = 1.35;
/// Shift of the neighbours' centre, as a share of their radius, from which on a mean lies at a border.
const AT_BORDER: f64 = 0.3;
/// The same for a mean on a straight border.
const ON_BORDER: f64 = 4.0 / (3.0 * PI);

/// Area that each of `positions [N]` stands for, in squares of their unit. They sum to the area of the
/// surface. All are 0 where no surface can be seen in the points. `spacing` is the median distance to the
/// nearest neighbour, as [`PointCloud::spacing`](crate::cloud::PointCloud::spacing) gives it.
#[must_use]
pub fn surface_areas(positions: &[[f64; 3]], spacing: Option<f64>) -> Vec<f64> {
    // Neighbours are searched in f32.
    let fits = positions.iter().flatten().all(|x| x.abs() < f64::from(f32::MAX) / 4.0);
    let Some(spacing) = spacing.filter(|spacing| fits && *spacing > 0.0) else {
        return vec![0.0; positions.len()];
    };
    let mut edge = spacing;
    let mut surface = Surface::new(positions, edge);
    for _ in 1..TRIES {
        if surface.thickness() <= THICK {
            break;
        }
        edge *= GROWTH;
        surface = Surface::new(positions, edge);
    }
    let areas = surface.areas();
    let share = |&mean: &u32| areas[mean as usize] / f64::from(surface.counts[mean as usize]);
    surface.mean_of.iter().map(share).collect()
}

/// Means of the points in small cells, with their neighbours.
struct Surface {
    /// `[M]`: means, relative to a corner of the scan.
    means: Vec<[f32; 3]>,
    /// `[M]`: number of points of each mean.
    counts: Vec<u32>,
    /// `[N]`: mean of every point.
    mean_of: Vec<u32>,
    /// `[M]`: normals.
    normals: Vec<[f32; 3]>,
    /// `[M, k]`: neighbours by distance, -1 for none.
    neighbors: Vec<i32>,
}

impl Surface {
    fn new(positions: &[[f64; 3]], edge: f64) -> Self {
        let low = (positions.iter()).fold([f64::INFINITY; 3], |low, p| std::array::from_fn(|i| low[i].min(p[i])));
        let mut index_of: HashMap<[i64; 3], u32> = HashMap::new();
        let (mut sums, mut counts) = (Vec::<DVec3>::new(), Vec::<u32>::new());
        let mut mean_of = Vec::with_capacity(positions.len());
        for p in positions {
            let p = DVec3::from(*p) - DVec3::from(low);
            let cell = (p / edge).to_array().map(|x| x.floor() as i64);
            let mean = *index_of.entry(cell).or_insert(sums.len() as u32);
            if mean as usize == sums.len() {
                sums.push(DVec3::ZERO);
                counts.push(0);
            }
            sums[mean as usize] += p;
            counts[mean as usize] += 1;
            mean_of.push(mean);
        }
        let means: Vec<[f32; 3]> =
            sums.iter().zip(&counts).map(|(sum, &count)| (*sum / f64::from(count)).as_vec3().to_array()).collect();
        let neighbors = knn::cpu::knn_points(&means, NEIGHBORS, false, 0..means.len()).index;
        let normals = normals::cpu::normals(&means, &neighbors, NEIGHBORS, 0, normals::cpu::Orientation::Up);
        Self { means, counts, mean_of, normals, neighbors }
    }

    /// Offsets of the neighbours of `mean`, by distance.
    fn around(&self, mean: usize) -> impl Iterator<Item = DVec3> {
        let at = |i: usize| DVec3::from(self.means[i].map(f64::from));
        let row = &self.neighbors[mean * NEIGHBORS..(mean + 1) * NEIGHBORS];
        row.iter().filter_map(|&i| present(i, self.means.len())).map(move |i| at(i) - at(mean))
    }

    /// The median over the means: how far neighbours lie from the plane, as a share of how far they lie along
    /// it.
    fn thickness(&self) -> f64 {
        let one = |mean: usize| {
            let normal = DVec3::from(self.normals[mean].map(f64::from));
            let (off, all) = self.around(mean).fold((0.0, 0.0), |(off, all), offset| {
                (off + offset.dot(normal).powi(2), all + offset.length_squared())
            });
            if all > off { (off / (all - off)).sqrt() } else { 0.0 }
        };
        let mut all: Vec<f64> = (0..self.means.len()).into_par_iter().map(one).collect();
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    }

    fn areas(&self) -> Vec<f64> {
        (0..self.means.len()).into_par_iter().map(|mean| self.area(mean)).collect()
    }

    /// Area of the part of the plane through `mean` that is nearer to it than to its neighbours.
    fn area(&self, mean: usize) -> f64 {
        let normal = DVec3::from(self.normals[mean].map(f64::from));
        let (u, v) = normal.any_orthonormal_pair();
        let offsets: Vec<DVec3> = self.around(mean).collect();
        let radius = offsets.last().map_or(0.0, |offset| offset.length());
        if radius <= 0.0 {
            return 0.0;
        }
        // Neighbours on another surface say nothing about this one. The layers of a noisy surface do.
        let flat: Vec<DVec2> = (offsets.iter())
            .map(|offset| (DVec2::new(offset.dot(u), offset.dot(v)), offset.dot(normal).abs()))
            .filter(|(along, off)| *off <= 0.3 * radius || *off <= 0.5 * along.length())
            .map(|(along, _)| along)
            .collect();
        let shift = flat.iter().sum::<DVec2>() / (flat.len() + 1) as f64;
        // At a border, the disc of the neighbours is filled by half.
        let filled = (1.0 - 0.5 * shift.length() / (ON_BORDER * radius)).clamp(0.25, 1.0);
        let spacing = radius * (PI * filled / (offsets.len() + 1) as f64).sqrt();
        let mut part = disc(DISC * spacing);
        if shift.length() > AT_BORDER * radius {
            clip(&mut part, -shift.normalize(), 0.5 * spacing);
        }
        let mut in_one_place = 1.0;
        for along in flat {
            let distance = along.length();
            if distance < 1e-3 * spacing {
                in_one_place += 1.0;
            } else if distance < 2.0 * DISC * spacing {
                clip(&mut part, along / distance, 0.5 * distance);
            }
        }
        area_of(&part) / in_one_place
    }
}

/// Polygon with the area of a disc.
fn disc(radius: f64) -> Vec<DVec2> {
    let turn = 2.0 * PI / CORNERS as f64;
    let out = radius * (turn / turn.sin()).sqrt();
    (0..CORNERS).map(|i| DVec2::from_angle(turn * i as f64) * out).collect()
}

/// Cuts the part of a convex `polygon` off that lies farther than `distance` in the direction `along`.
fn clip(polygon: &mut Vec<DVec2>, along: DVec2, distance: f64) {
    let beyond = |p: DVec2| p.dot(along) - distance;
    if polygon.iter().all(|&p| beyond(p) <= 0.0) {
        return;
    }
    let mut kept = Vec::with_capacity(polygon.len() + 1);
    for (i, &p) in polygon.iter().enumerate() {
        let next = polygon[(i + 1) % polygon.len()];
        let (here, there) = (beyond(p), beyond(next));
        if here <= 0.0 {
            kept.push(p);
        }
        if (here <= 0.0) != (there <= 0.0) {
            kept.push(p + (next - p) * (here / (here - there)));
        }
    }
    *polygon = kept;
}

fn area_of(polygon: &[DVec2]) -> f64 {
    let next = polygon.iter().cycle().skip(1);
    0.5 * polygon.iter().zip(next).map(|(a, b)| a.perp_dot(*b)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::PointCloud;
    use crate::random::SplitMix64;

    /// Sum of the areas of a cloud.
    fn total(positions: Vec<[f64; 3]>) -> f64 {
        let cloud = PointCloud { positions, ..PointCloud::default() };
        surface_areas(&cloud.positions, cloud.spacing()).iter().sum()
    }

    /// Noise with a standard deviation of 1: the sum of uniform numbers.
    fn noise(random: &mut SplitMix64) -> f64 {
        (0..12).map(|_| random.unit()).sum::<f64>() - 6.0
    }

    /// A plane of 4 x 3 with the given normal, points at random, with noise along the normal.
    fn plane(normal: DVec3, per_square: f64, thickness: f64) -> Vec<[f64; 3]> {
        let mut random = SplitMix64::new(3);
        let normal = normal.normalize();
        let (u, v) = normal.any_orthonormal_pair();
        let mut point = || {
            let along = u * (4.0 * random.unit()) + v * (3.0 * random.unit());
            (along + normal * (thickness * noise(&mut random)) + DVec3::new(700.0, -30.0, 5.0)).to_array()
        };
        (0..(12.0 * per_square) as usize).map(|_| point()).collect()
    }

    #[test]
    fn planes_have_their_area_in_every_direction_density_and_noise() {
        for normal in [DVec3::Z, DVec3::new(1.0, 1.0, 0.0), DVec3::new(1.0, 2.0, 3.0)] {
            for (per_square, thickness) in
                [(200.0, 0.0), (900.0, 0.0), (900.0, 0.005), (900.0, 0.02), (5000.0, 0.0), (5000.0, 0.01)]
            {
                let area = total(plane(normal, per_square, thickness));
                assert!((area / 12.0 - 1.0).abs() < 0.05, "{normal}, {per_square}, {thickness}: {area}");
            }
        }
    }

    #[test]
    fn grids_and_repeated_points_have_the_area_of_their_surface() {
        let grid: Vec<[f64; 3]> =
            (0..100 * 80).map(|i| [f64::from(i % 100) * 0.04, f64::from(i / 100) * 0.04, 1.0]).collect();
        let true_area = 100.0 * 80.0 * 0.04 * 0.04;
        assert!((total(grid.clone()) / true_area - 1.0).abs() < 0.05, "{}", total(grid));
        let twice: Vec<[f64; 3]> = grid.iter().chain(&grid).copied().collect();
        assert!((total(twice.clone()) / true_area - 1.0).abs() < 0.05, "{}", total(twice));
    }

    #[test]
    fn a_room_and_a_ball_have_their_area() {
        // The six sides of a box of 4 x 3 x 2.5, then a ball of radius 1.
        let mut random = SplitMix64::new(5);
        let size = [4.0, 3.0, 2.5];
        let mut room = Vec::new();
        for axis in 0..3 {
            let [a, b] = [size[(axis + 1) % 3], size[(axis + 2) % 3]];
            for side in [0.0, size[axis]] {
                for _ in 0..(a * b * 1000.0) as usize {
                    let mut p = [0.0; 3];
                    p[axis] = side + 0.003 * noise(&mut random);
                    p[(axis + 1) % 3] = a * random.unit();
                    p[(axis + 2) % 3] = b * random.unit();
                    room.push(p);
                }
            }
        }
        let area = total(room);
        assert!((area / 59.0 - 1.0).abs() < 0.05, "{area}");
        let ball = (0..12_000).map(|_| DVec3::from_array([0; 3].map(|_| noise(&mut random))).normalize().to_array());
        let area = total(ball.collect());
        assert!((area / (4.0 * PI) - 1.0).abs() < 0.05, "{area}");
    }

    #[test]
    fn too_few_points_have_no_area() {
        assert_eq!(total(vec![[1.0; 3]]), 0.0);
        assert!(total(vec![[0.0; 3], [3.0, 4.0, 0.0]]).is_finite());
        assert_eq!(surface_areas(&[], None), [0.0; 0]);
    }
}
