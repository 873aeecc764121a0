//! Light in rooms, computed at every vertex: lamps, windows, the sun, shadows and one bounce.

use std::collections::HashMap;
use std::sync::Arc;

use glam::{Affine3A, Mat3, Vec3, vec3};
use rayon::prelude::*;

use super::bvh::Bvh;
use super::draw::Draw;
use super::layout::{Home, Pane};
use super::mesh::{Bounds, Mesh, Surface};
use super::picture::Picture;
use super::texture::Material;
use crate::labels::nyu40::CORE;

/// Number of rays that gather the light around a vertex.
const RAYS: usize = 20;
/// Number of places that represent all sunlit surfaces.
const SUNLIT: usize = 12;
/// Distance from a surface at which its rays begin, in metres.
const OFFSET: f32 = 0.004;
/// Distance in metres within which vertices on one plane share their light: direct light, and light from the
/// surroundings.
const SHARED_DIRECT: f32 = 0.04;
const SHARED_AROUND: f32 = 0.09;
/// Least distance between two planes that count as different, in metres.
const PLANE: f32 = 0.006;
/// Width of gaps that nobody looks into, in metres.
const HIDDEN: f32 = 0.06;
/// Brightest light that is gathered ray by ray. Few rays find a small bright spot, and would make speckles.
const BRIGHTEST: f32 = 1.6;
/// Light of a sample that is too faint to test for shadow.
const FAINT: f32 = 0.004;
/// Brightness of the sky at full daylight, of the sun on a surface that faces it, and of lamps at 1 m.
const SKY: f32 = 5.0;
const SUN: f32 = 7.0;
const CEILING_LAMP: f32 = 2.6;
const OTHER_LAMP: f32 = 0.5;

/// A lamp.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lamp {
    pub at: Vec3,
    pub color: Vec3,
    /// Radius of the glowing part.
    radius: f32,
}

/// The sun, as parallel light.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sun {
    /// Direction in which it shines.
    pub direction: Vec3,
    pub color: Vec3,
}

/// The light in a home. A surface is as bright as its colour times the light on it.
#[derive(Debug)]
pub(super) struct Light {
    /// Light that falls on each vertex, without direct sunlight.
    pub at_vertex: Vec<Vec3>,
    pub lamps: Vec<Lamp>,
    pub sun: Option<Sun>,
    /// Colour of the sky that windows show.
    pub sky: Vec3,
}

impl Light {
    /// Computes the light at every vertex of `home`.
    pub(super) fn new(home: &Home, draw: &mut Draw) -> Self {
        let lamps = lamps(home, draw);
        let sun = sun(home, draw);
        let sky = vec3(0.92, 0.98, 1.08) * SKY * home.daylight;
        let mesh = &home.mesh;
        let colors: Vec<Vec3> = home.materials.iter().map(|material| mean_color(material, &home.pictures)).collect();
        let is_solid =
            |surface: &Surface| surface.class != CORE && !home.materials[usize::from(surface.material)].clear;
        let triangles =
            mesh.triangles.iter().zip(&mesh.surfaces).zip(0..).filter(|((_, surface), _)| is_solid(surface));
        let tree =
            Bvh::new(triangles.map(|((t, _), number)| (t.map(|corner| mesh.positions[corner as usize]), number)));
        let (near, near_of_vertex) = sites(&mesh.positions, &mesh.normals, SHARED_DIRECT);
        let direct: Vec<[Vec3; 2]> =
            near.par_iter().map(|&[p, n]| direct(&tree, &lamps, &home.panes, sky, sun, p, n)).collect();
        let steady_at = |corner: u32| direct[near_of_vertex[corner as usize] as usize][0];
        let sunlit = sunlit(mesh, &colors, |corner| direct[near_of_vertex[corner as usize] as usize][1], home);
        // Light that has bounced more than once is taken as the same everywhere.
        let rest = direct.iter().map(|[steady, _]| steady.min(Vec3::splat(BRIGHTEST))).sum::<Vec3>()
            / direct.len().max(1) as f32
            * 0.35
            + sunlit.iter().map(|spot| spot.power).sum::<Vec3>() * 0.01;
        let rays = hemisphere();
        let (around, around_of_vertex) = sites(&mesh.positions, &mesh.normals, SHARED_AROUND);
        let gathered: Vec<Option<Vec3>> = around
            .par_iter()
            .map(|&[p, n]| {
                let across = n.any_orthonormal_vector();
                let frame = Mat3::from_cols(across, n.cross(across), n);
                let from = p + n * OFFSET;
                let (mut sum, mut behind, mut close) = (Vec3::ZERO, 0, 0);
                for ray in &rays {
                    let direction = frame * *ray;
                    let Some((distance, triangle)) = tree.nearest(from, direction, 12.0) else { continue };
                    let corners = mesh.triangles[triangle as usize];
                    behind += usize::from(mesh.area_normal(corners).dot(direction) > 0.0);
                    close += usize::from(distance < HIDDEN);
                    let light = corners.iter().map(|&corner| steady_at(corner)).sum::<Vec3>() / 3.0;
                    let light = light.min(Vec3::splat(BRIGHTEST)) + rest;
                    sum += light * colors[usize::from(mesh.surfaces[triangle as usize].material)];
                }
                // A place that sees things from behind is inside one. A place that sees only close things is
                // behind one.
                if 2 * behind > RAYS || 10 * close > 8 * RAYS {
                    return None;
                }
                let spots = sunlit.iter().map(|spot| spot.on(&tree, from, n)).sum::<Vec3>();
                Some(sum / RAYS as f32 + spots + rest * 0.06)
            })
            .collect();
        let at_vertex = (0..mesh.positions.len() as u32)
            .map(|corner| Some(steady_at(corner) + gathered[around_of_vertex[corner as usize] as usize]?))
            .collect();
        Self { at_vertex: spread(at_vertex, &mesh.triangles), lamps, sun, sky }
    }

    /// Moves lamps and sun along with a home that was moved.
    pub(super) fn transform(&mut self, frame: &Affine3A) {
        self.lamps.iter_mut().for_each(|lamp| lamp.at = frame.transform_point3(lamp.at));
        if let Some(sun) = &mut self.sun {
            sun.direction = frame.transform_vector3(sun.direction);
        }
    }
}

/// Fills in the light of vertices inside objects from their neighbours. Such vertices are never seen, but the
/// surfaces between them and others are.
fn spread(mut light: Vec<Option<Vec3>>, triangles: &[[u32; 3]]) -> Vec<Vec3> {
    for _ in 0..12 {
        let mut sums: HashMap<u32, (Vec3, f32)> = HashMap::new();
        for triangle in triangles {
            let known: Vec<Vec3> = triangle.iter().filter_map(|&corner| light[corner as usize]).collect();
            if known.is_empty() || known.len() == 3 {
                continue;
            }
            for &corner in triangle.iter().filter(|&&corner| light[corner as usize].is_none()) {
                let (sum, count) = sums.entry(corner).or_default();
                *sum += known.iter().sum::<Vec3>();
                *count += known.len() as f32;
            }
        }
        if sums.is_empty() {
            break;
        }
        for (corner, (sum, count)) in sums {
            light[corner as usize] = Some(sum / count);
        }
    }
    light.into_iter().map(|light| light.unwrap_or(Vec3::ZERO)).collect()
}

/// A sunlit place, as a light source.
struct Spot {
    at: Vec3,
    normal: Vec3,
    /// Brightness times area.
    power: Vec3,
}

impl Spot {
    /// Returns the light that falls from here on a place.
    fn on(&self, tree: &Bvh, from: Vec3, normal: Vec3) -> Vec3 {
        let to = self.at + self.normal * 0.02 - from;
        let square = to.length_squared();
        let share = normal.dot(to) * -self.normal.dot(to) / (square * square.max(0.6) * std::f32::consts::PI);
        let matters =
            share * self.power.max_element() > 0.3 * FAINT && self.normal.dot(to) < 0.0 && normal.dot(to) > 0.0;
        if matters && !tree.is_hit(from, to, 1.0) { self.power * share } else { Vec3::ZERO }
    }
}

/// Returns sunlit places, spread by the light that they reflect. `sun_at` gives the sun's light at a vertex.
fn sunlit(mesh: &Mesh, colors: &[Vec3], sun_at: impl Fn(u32) -> Vec3, home: &Home) -> Vec<Spot> {
    let mut lit: Vec<(usize, Vec3)> = Vec::new();
    let mut whole = 0.0;
    for (i, (triangle, surface)) in mesh.triangles.iter().zip(&mesh.surfaces).enumerate() {
        let light = triangle.iter().map(|&corner| sun_at(corner)).sum::<Vec3>() / 3.0;
        if light == Vec3::ZERO || home.materials[usize::from(surface.material)].clear {
            continue;
        }
        let power = light * colors[usize::from(surface.material)] * (0.5 * mesh.area_normal(*triangle).length());
        whole += power.element_sum();
        lit.push((i, power));
    }
    let total = lit.iter().map(|(_, power)| *power).sum::<Vec3>();
    let (mut passed, mut next) = (0.0, 0);
    let mut spots = Vec::with_capacity(SUNLIT);
    for (i, power) in lit {
        passed += power.element_sum();
        while next < SUNLIT && passed > whole * (next as f32 + 0.5) / SUNLIT as f32 {
            let corners = mesh.triangles[i];
            let at = corners.iter().map(|&corner| mesh.positions[corner as usize]).sum::<Vec3>() / 3.0;
            spots.push(Spot {
                at,
                normal: mesh.area_normal(corners).normalize_or(Vec3::Z),
                power: total / SUNLIT as f32,
            });
            next += 1;
        }
    }
    spots
}

/// Returns the places with their normals at which light is computed, and the place that each vertex takes its
/// light from. One place represents all vertices within `shared` on its plane.
fn sites(positions: &[Vec3], normals: &[Vec3], shared: f32) -> (Vec<[Vec3; 2]>, Vec<u32>) {
    let mut known: HashMap<[i32; 7], u32> = HashMap::with_capacity(positions.len());
    let mut sites = Vec::new();
    let of_vertex = positions.iter().zip(normals).map(|(&p, &n)| {
        let (cell, side, plane) = ((p / shared).round(), (n * 3.0).round(), (p.dot(n) / PLANE).round());
        let key = [cell.x, cell.y, cell.z, side.x, side.y, side.z, plane].map(|x| x as i32);
        *known.entry(key).or_insert_with(|| {
            sites.push([p, n]);
            sites.len() as u32 - 1
        })
    });
    let of_vertex = of_vertex.collect();
    (sites, of_vertex)
}

/// Returns the light that falls on a place directly: steady light, and the sun's.
fn direct(
    tree: &Bvh,
    lamps: &[Lamp],
    panes: &[Pane],
    sky: Vec3,
    sun: Option<Sun>,
    at: Vec3,
    normal: Vec3,
) -> [Vec3; 2] {
    let from = at + normal * OFFSET;
    let mut steady = Vec3::ZERO;
    for lamp in lamps {
        for offset in [vec3(1.0, 0.0, 0.4), vec3(-0.5, 0.87, -0.4), vec3(-0.5, -0.87, 0.1)] {
            let to = lamp.at + offset * lamp.radius - from;
            let square = to.length_squared();
            let share = normal.dot(to) / square.sqrt() / square.max(0.05) / 3.0;
            if share * lamp.color.max_element() > FAINT && !tree.is_hit(from, to, 1.0) {
                steady += lamp.color * share;
            }
        }
    }
    for pane in panes.iter().filter(|_| sky.max_element() > 0.0) {
        let facing = pane.u.cross(pane.v);
        for (s, t) in [(0.2, 0.3), (0.8, 0.25), (0.5, 0.55), (0.25, 0.8), (0.75, 0.85)] {
            let to = pane.corner + pane.u * s + pane.v * t - from;
            let square = to.length_squared();
            // The length of `facing` contains the area. A full sky all around would give 1.
            let share = normal.dot(to) * -facing.dot(to) / (square * square).max(0.02) / (5.0 * std::f32::consts::PI);
            if share * sky.max_element() > FAINT && facing.dot(to) < 0.0 && !tree.is_hit(from, to, 0.999) {
                steady += sky * share;
            }
        }
    }
    let sun = sun.map_or(Vec3::ZERO, |sun| {
        let share = -normal.dot(sun.direction);
        if share > 0.0 && !tree.is_hit(from, -sun.direction, 30.0) { sun.color * share } else { Vec3::ZERO }
    });
    [steady, sun]
}

/// Returns directions around +z, denser where they count more.
fn hemisphere() -> [Vec3; RAYS] {
    std::array::from_fn(|i| {
        let r = ((i as f32 + 0.5) / RAYS as f32).sqrt();
        let (sin, cos) = (i as f32 * 2.399_963_2).sin_cos();
        vec3(r * cos, r * sin, (1.0 - r * r).sqrt())
    })
}

/// Returns the mean colour of a material, for the light that it reflects.
fn mean_color(material: &Material, pictures: &[Arc<Picture>]) -> Vec3 {
    let place = |i: usize| glam::vec2((i % 4) as f32 * 0.137, (i / 4) as f32 * 0.113);
    let samples = (0..16).map(|i| material.albedo(place(i), 0.05, pictures));
    samples.sum::<Vec3>() / 16.0
}

/// Returns a lamp in the middle of every lamp shade.
fn lamps(home: &Home, draw: &mut Draw) -> Vec<Lamp> {
    let warm = draw.range(0.0, 1.0);
    let tint = vec3(1.0, 0.95, 0.88).lerp(vec3(1.0, 0.80, 0.56), warm);
    let strength = draw.range(0.8, 1.2);
    if !home.lamps_on {
        return Vec::new();
    }
    let mut shades: Vec<(u16, Bounds)> = Vec::new();
    let triangles =
        home.mesh.triangles.iter().zip(&home.mesh.surfaces).filter(|(_, surface)| surface.material == home.shade);
    for (triangle, surface) in triangles {
        let corners = Bounds::of(triangle.map(|corner| home.mesh.positions[corner as usize]));
        match shades.last_mut() {
            Some((instance, bounds)) if *instance == surface.instance => {
                *bounds = Bounds { min: bounds.min.min(corners.min), max: bounds.max.max(corners.max) };
            }
            _ => shades.push((surface.instance, corners)),
        }
    }
    let lamp = |(_, bounds): &(u16, Bounds)| {
        let is_ceiling = bounds.max.z > 1.9;
        let power = strength * if is_ceiling { CEILING_LAMP } else { OTHER_LAMP };
        let down = if is_ceiling { -0.05 } else { 0.0 };
        let at = bounds.center() + vec3(0.0, 0.0, down);
        Lamp { at, color: tint * power, radius: bounds.size().truncate().max_element() * 0.4 }
    };
    shades.iter().map(lamp).collect()
}

/// On bright days, returns a sun that may shine in at a window.
fn sun(home: &Home, draw: &mut Draw) -> Option<Sun> {
    let (shines, which) = (draw.chance(0.55), draw.range(0.0, 1.0));
    let (aside, elevation) = (draw.range(-0.9, 0.9), draw.range(0.35, 0.95));
    if home.daylight < 0.5 || !shines || home.panes.is_empty() {
        return None;
    }
    let pane = home.panes[((which * home.panes.len() as f32) as usize).min(home.panes.len() - 1)];
    let inwards = pane.u.cross(pane.v).normalize_or(Vec3::X);
    let level = Mat3::from_rotation_z(aside) * inwards;
    let direction = (level * elevation.cos() - Vec3::Z * elevation.sin()).normalize_or(-Vec3::Z);
    Some(Sun { direction, color: vec3(1.0, 0.93, 0.80) * SUN * home.daylight })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn light_comes_from_the_lamp_and_stops_at_things() {
        let square = |z: f32, half: f32| {
            let corner = |x: f32, y: f32| vec3(x * half, y * half, z);
            let [a, b, c, d] = [corner(-1.0, -1.0), corner(1.0, -1.0), corner(1.0, 1.0), corner(-1.0, 1.0)];
            [[a, b, c], [a, c, d]]
        };
        let lamp = Lamp { at: vec3(0.0, 0.0, 2.0), color: Vec3::splat(4.0), radius: 0.05 };
        let free = Bvh::new(square(0.0, 3.0).into_iter().zip(0..));
        let shaded = Bvh::new(square(0.0, 3.0).into_iter().chain(square(1.0, 0.5)).zip(0..));
        let light = |tree: &Bvh, at: Vec3| direct(tree, &[lamp], &[], Vec3::ZERO, None, at, Vec3::Z)[0].x;
        assert!((light(&free, Vec3::ZERO) - 1.0).abs() < 0.05);
        assert!(light(&free, vec3(2.0, 0.0, 0.0)) < 0.5);
        assert_eq!(light(&shaded, Vec3::ZERO), 0.0);
        assert!(light(&shaded, vec3(2.0, 0.0, 0.0)) > 0.3);
        // Nothing from behind.
        assert_eq!(direct(&free, &[lamp], &[], Vec3::ZERO, None, Vec3::ZERO, -Vec3::Z)[0], Vec3::ZERO);
    }
}
