//! Points of a scan: the surfaces that the views saw, evenly sampled, displaced by some millimetres.

use std::collections::{BTreeMap, HashMap, HashSet};

use glam::{DVec3, Vec3};
use rayon::prelude::*;

use super::draw::{Draw, noise, normal_of};
use super::layout::Home;
use super::record::View;
use crate::labels::nyu40::CORE;
use crate::random::SplitMix64;
use crate::views::{Intrinsics, Pose};

/// Candidates per cell of the grid that thins them out.
const CANDIDATES: f32 = 2.2;
/// Tolerance between measured and true depth for a point to count as seen: in metres, and as a share of the
/// depth.
const TOLERANCE: [f32; 2] = [0.03, 0.015];
/// Least number of views that must have seen a point, if there are that many.
const MIN_VIEWS: u32 = 2;

/// A point of a scan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub position: Vec3,
    pub normal: Vec3,
    pub color: [u8; 3],
    pub class: u8,
    pub instance: u16,
}

/// A place on a surface, before its visibility is known.
#[derive(Clone, Copy)]
struct Candidate {
    position: Vec3,
    normal: Vec3,
    triangle: u32,
    /// Surface it stands for, in square metres.
    area: f64,
}

/// Returns the points that `views` saw, one for each cube of side `spacing` and side of a surface. Also returns
/// the area of the surface they were taken from, by class, in square metres. `reach` is the factor of the distances
/// at which points count as seen.
pub(super) fn scan(
    home: &Home,
    views: &[View],
    poses: &[Pose],
    lens: &Intrinsics,
    (spacing, reach): (f32, f32),
    draw: &mut Draw,
) -> (Vec<Point>, BTreeMap<u8, f64>) {
    let seed = draw.seed() as u32;
    let candidates = candidates(home, spacing, SplitMix64::new(draw.seed()));
    let (rough, bend) = (draw.range(0.0012, 0.0028), draw.range(0.004, 0.010));
    let eyes: Vec<(Vec3, [Vec3; 3])> = poses
        .iter()
        .map(|pose| {
            let axes = pose.rotation();
            (pose.center().as_vec3(), [axes.x_axis, axes.y_axis, axes.z_axis].map(|axis| axis.as_vec3()))
        })
        .collect();
    let [fx, fy, cx, cy] = [lens.fx, lens.fy, lens.cx, lens.cy].map(|x| x as f32);
    let seen = |(i, candidate): (usize, &Candidate)| {
        let surface = home.mesh.surfaces[candidate.triangle as usize];
        let (mut sum, mut weight, mut count) = (Vec3::ZERO, 0.0, 0);
        for (view, (eye, [right, down, forward])) in views.iter().zip(&eyes) {
            let from_eye = candidate.position - *eye;
            let z = forward.dot(from_eye);
            let facing = -candidate.normal.dot(from_eye);
            if !(0.3..=6.0 * reach).contains(&z) || facing < 0.12 * z {
                continue;
            }
            let (u, v) = (fx * right.dot(from_eye) / z + cx, fy * down.dot(from_eye) / z + cy);
            if !(u > -0.5 && v > -0.5 && u < lens.width as f32 - 0.5 && v < lens.height as f32 - 0.5) {
                continue;
            }
            let pixel =
                (v.round() as usize).min(lens.height - 1) * lens.width + (u.round() as usize).min(lens.width - 1);
            // Depth alone does not distinguish a picture from the wall just behind it.
            if (view.label[pixel], view.instance[pixel]) != (surface.class, surface.instance) {
                continue;
            }
            let depth = f32::from(view.depth[pixel]) * 1e-3;
            if depth == 0.0 || (depth - z).abs() > TOLERANCE[0] + TOLERANCE[1] * z {
                continue;
            }
            let w = facing / (z * z * z);
            sum += Vec3::from_array(view.color[pixel].map(f32::from)) * w;
            weight += w;
            count += 1;
        }
        if count < MIN_VIEWS.min(views.len() as u32) || weight <= 0.0 {
            return None;
        }
        let number = i as u64;
        let mut random = SplitMix64::stream(u64::from(seed), &[number]);
        let mut normal = || normal_of(random.next_u64());
        let n = candidate.normal;
        let p = candidate.position;
        // Fusion leaves surfaces wavy rather than rough.
        let wave = noise(p.x * 6.0 + p.z * 2.0, p.y * 6.0 + p.z * 5.0, seed) - 0.5;
        let tilt = Vec3::new(normal(), normal(), normal()) * 0.06;
        let position = p + n * (rough * normal() + bend * wave) + tilt * 0.01;
        let color = (sum / weight + 0.5).to_array().map(|x| x.clamp(0.0, 255.0) as u8);
        let turned = (n + tilt).normalize_or(n);
        Some(Point { position, normal: turned, color, class: surface.class, instance: surface.instance })
    };
    let points: Vec<Option<Point>> = candidates.par_iter().enumerate().map(seen).collect();
    // Objects thinner than a cell have a single surface there, as after fusion.
    let mut taken: HashSet<[i32; 3]> = HashSet::with_capacity(points.len());
    let mut area_of_class: BTreeMap<u8, f64> = BTreeMap::new();
    let mut kept = Vec::with_capacity(points.len());
    for (candidate, point) in candidates.iter().zip(points) {
        let Some(point) = point else { continue };
        if taken.insert((candidate.position / spacing).floor().to_array().map(|x| x as i32)) {
            *area_of_class.entry(point.class).or_default() += candidate.area;
            kept.push(point);
        }
    }
    // Square centimetres: so few digits come back from JSON as they were.
    area_of_class.values_mut().for_each(|area| *area = (*area * 1e4).round() / 1e4);
    (kept, area_of_class)
}

/// Samples all surfaces by area, and thins the samples to one for each cube, direction and object. The views
/// decide later which of these is in front.
fn candidates(home: &Home, spacing: f32, mut random: SplitMix64) -> Vec<Candidate> {
    let mesh = &home.mesh;
    let per_area = CANDIDATES / (spacing * spacing);
    let mut place_of: HashMap<[i32; 5], usize> = HashMap::new();
    let mut candidates: Vec<Candidate> = Vec::new();
    let area = f64::from(1.0 / per_area);
    let mut owed = 0.0;
    for (triangle, corners) in mesh.triangles.iter().enumerate() {
        if mesh.surfaces[triangle].class == CORE {
            continue;
        }
        let cross = mesh.area_normal(*corners);
        let twice = cross.length();
        owed += 0.5 * twice * per_area;
        let [a, b, c] = corners.map(|corner| mesh.positions[corner as usize]);
        let normal = corners
            .iter()
            .map(|&corner| mesh.normals[corner as usize])
            .sum::<Vec3>()
            .normalize_or(cross / twice.max(1e-12));
        while owed >= 1.0 {
            owed -= 1.0;
            let (mut s, mut t) = (random.unit() as f32, random.unit() as f32);
            if s + t > 1.0 {
                (s, t) = (1.0 - s, 1.0 - t);
            }
            let position = a + (b - a) * s + (c - a) * t;
            let cell = (position / spacing).floor();
            let side = (1..3).fold(0, |side, axis| if normal[axis].abs() > normal[side].abs() { axis } else { side });
            let side = 2 * side as i32 + i32::from(normal[side] > 0.0);
            let object = i32::from(mesh.surfaces[triangle].instance);
            let key = [cell.x as i32, cell.y as i32, cell.z as i32, side, object];
            let place = *place_of.entry(key).or_insert(candidates.len());
            match candidates.get_mut(place) {
                Some(candidate) => candidate.area += area,
                None => candidates.push(Candidate { position, normal, triangle: triangle as u32, area }),
            }
        }
    }
    candidates
}

/// Rounds a position to the precision of the files.
pub(super) fn exact(position: Vec3) -> [f64; 3] {
    let p: DVec3 = position.as_dvec3();
    p.to_array()
}
