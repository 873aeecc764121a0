//! Views of a depth camera along a path: pictures, noisy depth, and the class and object of each pixel.

use burn::tensor::Device;
use glam::{Vec2, Vec3, vec2, vec3};
use rayon::prelude::*;

use super::SynthError;
use super::draw::{Draw, hash, noise, normal_of};
use super::homes::Traits;
use super::layout::Home;
use super::light::Light;
use super::mesh::Bounds;
use super::texture::{Pattern, outside};
use crate::ops::pinhole::Pinhole;
use crate::random::SplitMix64;
use crate::views::render::{Renderer, Scene, pinhole};
use crate::views::{Intrinsics, Pose};

/// Samples per pixel along each axis.
const SAMPLES: usize = 2;
/// Nearest distance that is rendered, in metres.
const NEAR: f64 = 0.05;
/// Side of the sun's shadow map in pixels, and the distance from which it is rendered in metres.
const SUN_MAP: usize = 1400;
const SUN_DISTANCE: f32 = 60.0;
/// Slack of the shadow map in metres: a surface this far behind the lit one still counts as lit.
const SUN_SLACK: f32 = 0.03;
/// Least and largest depth that is measured, in metres.
const DEPTH_RANGE: [f32; 2] = [0.35, 6.5];
/// Mean brightness that the camera exposes for.
const GREY: f32 = 0.25;

/// A view.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub color: Vec<[u8; 3]>,
    /// Depth in millimetres, 0 for no measurement.
    pub depth: Vec<u16>,
    /// NYU40's number of the class of each pixel.
    pub label: Vec<u8>,
    /// Number of the object in the scene, for each pixel.
    pub instance: Vec<u16>,
}

/// Faults of a real camera, for rooms with real models.
#[derive(Clone, Debug)]
pub(super) struct Optics {
    /// Factors of red, green and blue by a wrong white balance.
    balance: Vec3,
    /// Factor of the exposure of each view.
    exposures: Vec<f32>,
    /// Way that the picture of each view moved while it was taken, as a share of its width.
    blurs: Vec<Vec2>,
    /// Factor of the noise.
    noise: f32,
    /// Quality of the pictures as JPEG.
    pub quality: u8,
}

impl Optics {
    /// Draws the faults of a camera that takes `views`.
    pub(super) fn new(views: usize, mut draw: Draw) -> Self {
        let warm = 0.09 * draw.normal();
        let balance = vec3(1.0 + warm, 1.0 + 0.03 * draw.normal(), 1.0 - warm + 0.04 * draw.normal());
        let exposure = 0.16 * draw.normal();
        let shaky = draw.range(0.0, 0.5);
        let exposures = (0..views).map(|_| (exposure + 0.08 * draw.normal()).exp2()).collect();
        let blurs = (0..views)
            .map(|_| {
                let length = if draw.chance(shaky) { draw.range(0.003, 0.02) } else { 0.0 };
                Vec2::from_angle(draw.range(0.0, std::f32::consts::PI)) * length
            })
            .collect();
        let (noise, quality) = (draw.range(0.6, 1.8), draw.count(58, 94) as u8);
        Self { balance: balance.clamp(Vec3::splat(0.7), Vec3::splat(1.4)), exposures, blurs, noise, quality }
    }
}

/// A view before exposure.
struct Exposure {
    radiance: Vec<Vec3>,
    depth: Vec<u16>,
    label: Vec<u8>,
    instance: Vec<u16>,
    /// Logarithm of the mean brightness.
    brightness: f32,
}

/// Renders a home with its light.
struct Studio<'a> {
    home: &'a Home,
    light: &'a Light,
    sun_map: Option<(Pinhole, Vec<f32>)>,
    homes: &'a Traits,
    seed: u32,
}

/// The point where a ray hits a surface.
struct Hit {
    radiance: Vec3,
    /// Brightness of the material, and the cosine of the viewing angle; depth sensors depend on both.
    albedo: f32,
    cosine: f32,
    loss: f32,
}

/// The camera that takes the pictures and measures depth.
#[derive(Clone, Copy)]
pub(super) struct Sensor<'a> {
    pub lens: &'a Intrinsics,
    /// What the style of homes says of it.
    pub homes: &'a Traits,
    /// Its faults; none for an ideal one.
    pub optics: Option<&'a Optics>,
}

/// Renders the views of `home` along `poses`.
///
/// # Errors
/// [`SynthError::Render`] if the device fails.
pub(super) fn record(
    home: &Home,
    light: &Light,
    poses: &[Pose],
    Sensor { lens, homes, optics }: Sensor<'_>,
    device: &Device,
    draw: &mut Draw,
) -> Result<Vec<View>, SynthError> {
    let points: Vec<[f32; 3]> = home.mesh.positions.iter().map(Vec3::to_array).collect();
    let black = vec![[0; 3]; points.len()];
    let scene = Scene { points: &points, origin: [0.0; 3], colors: &black, faces: &home.mesh.triangles, radii: &[] };
    let renderer = Renderer::new(&scene, device)?;
    let sun_map = match light.sun {
        None => None,
        Some(sun) => {
            let camera = sun_camera(&home.mesh.bounds(), sun.direction);
            let solid: Vec<bool> =
                home.mesh.surfaces.iter().map(|surface| !home.materials[usize::from(surface.material)].clear).collect();
            Some((camera, renderer.showing(&solid)?.seen(&camera)?.depth))
        }
    };
    let studio = Studio { home, light, sun_map, homes, seed: draw.seed() as u32 };
    let exposures: Vec<Exposure> = (poses.par_iter().enumerate())
        .map(|(view, pose)| studio.look(&renderer, lens, pose, view))
        .collect::<Result<_, _>>()?;

    // The exposure follows the brightness with some delay, and drifts.
    let (drift, phase) = (draw.range(0.05, 0.22), draw.range(0.0, 6.3));
    let tint = vec3(1.0 + 0.05 * draw.normal(), 1.0, 1.0 + 0.06 * draw.normal());
    let noise_level = draw.range(0.5, 1.4);
    let mut follows = exposures.first().map_or(0.0, |first| first.brightness);
    let gains: Vec<f32> = (exposures.iter().enumerate())
        .map(|(i, exposure)| {
            follows += 0.45 * (exposure.brightness - follows);
            let wander = drift * (0.33 * i as f32 + phase).sin();
            GREY / (follows + wander).exp().max(1e-3)
        })
        .collect();
    let seed = draw.seed();
    let develop = |(i, (exposure, gain)): (usize, (Exposure, &f32))| {
        let random = SplitMix64::stream(seed, &[i as u64]);
        let color = match optics {
            None => develop(&exposure.radiance, lens, *gain, tint, noise_level, random),
            Some(optics) => {
                let blurred = moved(&exposure.radiance, lens, optics.blurs[i]);
                let (gain, tint) = (gain * optics.exposures[i], tint * optics.balance);
                develop(&blurred, lens, gain, tint, noise_level * optics.noise, random)
            }
        };
        View { color, depth: exposure.depth, label: exposure.label, instance: exposure.instance }
    };
    Ok(exposures.into_par_iter().zip(&gains).enumerate().map(develop).collect())
}

/// Returns a distant camera whose picture holds the whole home.
fn sun_camera(bounds: &Bounds, direction: Vec3) -> Pinhole {
    let radius = 0.5 * bounds.size().length() + 0.2;
    let right = direction.any_orthonormal_vector();
    let down = direction.cross(right);
    let focal = 0.5 * SUN_MAP as f32 * (SUN_DISTANCE - radius) / radius;
    Pinhole {
        width: SUN_MAP,
        height: SUN_MAP,
        focal: [focal; 2],
        principal: [0.5 * SUN_MAP as f32; 2],
        axes: [right, down, direction].map(|axis| axis.to_array()),
        center: (bounds.center() - direction * SUN_DISTANCE).to_array(),
        near: SUN_DISTANCE - radius,
    }
}

impl Studio<'_> {
    /// Returns the share of sunlight that reaches a place, 0 to 1.
    fn sunlight(&self, at: Vec3) -> f32 {
        let Some((camera, depth)) = &self.sun_map else { return 0.0 };
        let [x, y, z] = camera.to_camera(at.to_array());
        let (u, v) =
            (camera.focal[0] * x / z + camera.principal[0] - 0.5, camera.focal[1] * y / z + camera.principal[1] - 0.5);
        let (i, j) = (u.floor(), v.floor());
        let (s, t) = (u - i, v - j);
        let lit = |i: f32, j: f32| {
            let inside = i >= 0.0 && j >= 0.0 && i < camera.width as f32 && j < camera.height as f32;
            let first = if inside { depth[j as usize * camera.width + i as usize] } else { 0.0 };
            f32::from(u8::from(first == 0.0 || z < first + SUN_SLACK))
        };
        let row = |j: f32| lit(i, j) * (1.0 - s) + lit(i + 1.0, j) * s;
        row(j) * (1.0 - t) + row(j + 1.0) * t
    }

    /// Returns the hit of a ray on triangle `number`, with the light along the ray. The z of `direction` in
    /// the camera is 1. `pixel` is the width of a pixel at a depth of 1.
    fn hit(&self, number: usize, origin: Vec3, direction: Vec3, pixel: f32) -> Hit {
        let mesh = &self.home.mesh;
        let corners = mesh.triangles[number].map(|corner| corner as usize);
        let [a, b, c] = corners.map(|corner| mesh.positions[corner]);
        let (ab, ac) = (b - a, c - a);
        let plane = ab.cross(ac);
        let along = plane.dot(a - origin) / plane.dot(direction);
        let at = origin + direction * along;
        // Weights are areas. Samples may lie slightly outside.
        let inverse = 1.0 / plane.length_squared().max(1e-20);
        let from_a = at - a;
        let v = (plane.dot(from_a.cross(ac)) * inverse).clamp(0.0, 1.0);
        let w = (plane.dot(ab.cross(from_a)) * inverse).clamp(0.0, 1.0 - v);
        let weights = [1.0 - v - w, v, w];
        let mix = |values: &[Vec3]| (0..3).map(|i| values[corners[i]] * weights[i]).sum::<Vec3>();
        let uv =
            mesh.uvs[corners[0]] * weights[0] + mesh.uvs[corners[1]] * weights[1] + mesh.uvs[corners[2]] * weights[2];
        let view = direction.normalize_or(Vec3::X);
        let normal = mix(&mesh.normals).normalize_or(plane.normalize_or(Vec3::Z));
        let normal = if normal.dot(view) > 0.0 { -normal } else { normal };
        let cosine = -normal.dot(view);
        let material = &self.home.materials[usize::from(mesh.surfaces[number].material)];
        let footprint = pixel * along / cosine.max(0.15);
        if matches!(material.pattern, Pattern::Outside) {
            let sky = self.light.sky.max_element().max(0.02);
            let radiance = outside(view, material.seed) * sky;
            return Hit { radiance, albedo: 0.5, cosine, loss: material.loss };
        }
        let albedo = material.albedo(uv, footprint, &self.home.pictures).max(Vec3::ZERO);
        let steady = mix(&self.light.at_vertex);
        let mut light = steady;
        let mut shine = Vec3::ZERO;
        if let Some(sun) = self.light.sun {
            let share = -normal.dot(sun.direction);
            if share > 0.0 {
                let reached = self.sunlight(at) * share;
                light += sun.color * reached;
                let half = (-view - sun.direction).normalize_or(normal);
                shine += sun.color * (reached * normal.dot(half).max(0.0).powi(60));
            }
        }
        if material.gloss > 0.0 {
            for lamp in &self.light.lamps {
                let to = lamp.at - at;
                let half = (to.normalize_or(normal) - view).normalize_or(normal);
                shine += lamp.color * (normal.dot(half).max(0.0).powi(60) / to.length_squared().max(0.3));
            }
            // Surfaces at a grazing angle mirror their surroundings.
            shine += steady * (0.25 + 1.5 * (1.0 - cosine).powi(4));
        }
        let glow = albedo * material.glow * if matches!(material.pattern, Pattern::Screen(..)) { 1.2 } else { 2.4 };
        let radiance = albedo * light * (1.0 - 0.5 * material.gloss) + shine * (material.gloss * 0.45) + glow;
        let albedo = albedo.dot(vec3(0.3, 0.6, 0.1));
        Hit { radiance, albedo, cosine, loss: material.loss }
    }

    fn look(&self, renderer: &Renderer, lens: &Intrinsics, pose: &Pose, view: usize) -> Result<Exposure, SynthError> {
        let fine = lens.scaled_to(lens.width * SAMPLES, lens.height * SAMPLES);
        let camera = pinhole(&fine, pose, [0.0; 3], NEAR);
        let seen = renderer.seen(&camera)?;
        let mesh = &self.home.mesh;
        let origin = Vec3::from_array(camera.center);
        let [right, down, forward] = camera.axes.map(Vec3::from_array);
        let ray = |x: f32, y: f32| {
            let (u, v) = ((x - camera.principal[0]) / camera.focal[0], (y - camera.principal[1]) / camera.focal[1]);
            right * u + down * v + forward
        };
        let pixel = 1.0 / lens.fx as f32;
        let num_pixels = lens.width * lens.height;
        let mut exposure = Exposure {
            radiance: Vec::with_capacity(num_pixels),
            depth: Vec::with_capacity(num_pixels),
            label: Vec::with_capacity(num_pixels),
            instance: Vec::with_capacity(num_pixels),
            brightness: 0.0,
        };
        let seed = self.seed ^ hash(view as i32, 0, 1);
        let mut sum = 0.0_f64;
        for row in 0..lens.height {
            for column in 0..lens.width {
                let at = |k: usize| (row * SAMPLES + k / SAMPLES) * camera.width + column * SAMPLES + k % SAMPLES;
                let samples: [(i32, f32); SAMPLES * SAMPLES] =
                    std::array::from_fn(|k| (seen.index[at(k)], seen.depth[at(k)]));
                let first = samples[0];
                let surface = |index: i32| usize::try_from(index).ok().map(|index| mesh.surfaces[index]);
                let near = |(index, depth): (i32, f32)| {
                    surface(index) == surface(first.0) && (depth - first.1).abs() < 0.02 * first.1
                };
                let is_one = samples.iter().all(|sample| near(*sample));
                let (x, y) = ((column * SAMPLES) as f32 + 0.5, (row * SAMPLES) as f32 + 0.5);
                let (mut radiance, mut facts) = (Vec3::ZERO, None);
                if is_one && first.0 >= 0 {
                    let hit = self.hit(first.0 as usize, origin, ray(x, y), pixel);
                    radiance = hit.radiance;
                    facts = Some(hit);
                } else {
                    for (k, (index, _)) in samples.iter().enumerate() {
                        let Ok(index) = usize::try_from(*index) else { continue };
                        let at = ray(x - 0.5 + (k % SAMPLES) as f32, y - 0.5 + (k / SAMPLES) as f32);
                        let hit = self.hit(index, origin, at, pixel);
                        radiance += hit.radiance / samples.len() as f32;
                        facts = facts.or(Some(hit));
                    }
                }
                let surface = samples.iter().find_map(|(index, _)| surface(*index));
                exposure.label.push(surface.map_or(0, |surface| surface.class));
                exposure.instance.push(surface.map_or(0, |surface| surface.instance));
                let brightness = radiance.dot(vec3(0.3, 0.6, 0.1));
                sum += f64::from((brightness.min(4.0) + 0.01).ln());
                exposure.radiance.push(radiance);
                let depth = facts.map_or(0, |facts| {
                    let depths = samples.map(|sample| sample.1);
                    measured(&depths, is_one, &facts, self.homes, [column, row], seed)
                });
                exposure.depth.push(depth);
            }
        }
        exposure.brightness = (sum / num_pixels as f64) as f32;
        Ok(exposure)
    }
}

/// Returns the measurement of a depth sensor at a pixel, in millimetres; 0 for none.
fn measured(depths: &[f32], is_one: bool, facts: &Hit, homes: &Traits, [column, row]: [usize; 2], seed: u32) -> u16 {
    let dice = hash(column as i32, row as i32, seed);
    let &Traits { reach, noise: noise_of_sensor, .. } = homes;
    let depth = if is_one { depths.iter().sum::<f32>() / depths.len() as f32 } else { depths[0] };
    if !(DEPTH_RANGE[0]..DEPTH_RANGE[1] * reach).contains(&depth) {
        return 0;
    }
    // Drop-outs come in patches, not in single pixels.
    let (x, y) = (column as f32, row as f32);
    let patch = 0.6 * noise(x / 7.0, y / 7.0, seed) + 0.4 * noise(x / 2.5, y / 2.5, seed ^ 1);
    let far = ((depth - 4.6 * reach) / (2.2 * reach)).clamp(0.0, 1.0);
    let flat = ((0.22 - facts.cosine) / 0.22).clamp(0.0, 1.0);
    let dark = ((0.03 - facts.albedo) / 0.03).clamp(0.0, 1.0) * 0.35;
    let edge = if is_one { 0.0 } else { 0.42 };
    let lost = (facts.loss + far + 0.9 * flat + dark + edge).min(1.0);
    // The patch noise is rarely above 0.85 or below 0.15.
    if patch < 0.13 + 0.75 * lost && lost > 0.0 {
        return 0;
    }
    let sigma = noise_of_sensor * (0.0010 + 0.0017 * (depth - 0.4).max(0.0).powi(2));
    let wave = noise(x / 5.0, y / 5.0, seed ^ 2) - 0.5;
    let random = normal_of(u64::from(dice).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let value = depth + sigma * (0.55 * random + 2.2 * wave);
    // Steps of disparity grow with the square of the distance.
    let step = noise_of_sensor * 0.0008 * value * value;
    let value = (value / step).round() * step;
    (value * 1000.0).round().clamp(0.0, f32::from(u16::MAX - 1)) as u16
}

/// Returns the light of a picture that moved by `way`, a share of its width, while it was taken.
fn moved(radiance: &[Vec3], lens: &Intrinsics, way: Vec2) -> Vec<Vec3> {
    let steps = (way.length() * lens.width as f32).round() as usize;
    if steps == 0 {
        return radiance.to_vec();
    }
    let taps: Vec<Vec2> =
        (0..=steps).map(|step| way * (lens.width as f32 * (step as f32 / steps as f32 - 0.5))).collect();
    let at = |x: f32, y: f32| {
        let inside = |value: f32, size: usize| (value.round().max(0.0) as usize).min(size - 1);
        radiance[inside(y, lens.height) * lens.width + inside(x, lens.width)].min(Vec3::splat(6.0))
    };
    let mean = |place: usize| {
        let (x, y) = ((place % lens.width) as f32, (place / lens.width) as f32);
        taps.iter().map(|tap| at(x + tap.x, y + tap.y)).sum::<Vec3>() / taps.len() as f32
    };
    (0..radiance.len()).map(mean).collect()
}

/// Turns light into the pixels of a file: vignette, blur, noise, tone.
fn develop(
    radiance: &[Vec3],
    lens: &Intrinsics,
    gain: f32,
    tint: Vec3,
    noise_level: f32,
    mut random: SplitMix64,
) -> Vec<[u8; 3]> {
    let (width, height) = (lens.width, lens.height);
    let diagonal = vec2(width as f32, height as f32).length() * 0.5;
    let exposed: Vec<Vec3> = (radiance.iter().enumerate())
        .map(|(i, light)| {
            let from_middle =
                vec2((i % width) as f32 - 0.5 * width as f32, (i / width) as f32 - 0.5 * height as f32) / diagonal;
            *light * tint * (gain * (1.0 - 0.22 * from_middle.length_squared()))
        })
        .map(|light| light.min(Vec3::splat(6.0)))
        .collect();
    let at = |x: usize, y: usize| exposed[y * width + x];
    let mut pixels = Vec::with_capacity(exposed.len());
    for y in 0..height {
        for x in 0..width {
            let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
            let (above, below) = (y.saturating_sub(1), (y + 1).min(height - 1));
            let blurred = at(x, y) * 0.72 + (at(left, y) + at(right, y) + at(x, above) + at(x, below)) * 0.07;
            let bits = [random.next_u64(), random.next_u64(), random.next_u64()];
            let grain = Vec3::from_array(bits.map(normal_of));
            let spread = (blurred.max(Vec3::ZERO) * 0.00028 + 0.000012).map(f32::sqrt) * noise_level;
            pixels.push(tone(blurred + grain * spread));
        }
    }
    pixels
}

/// Compresses bright light, then converts to sRGB.
fn tone(light: Vec3) -> [u8; 3] {
    light.to_array().map(|x| {
        let x = x.max(0.0);
        let x = if x < 0.5 { x } else { 0.5 + 0.5 * (1.0 - (-(x - 0.5) * 1.6).exp()) };
        let encoded = if x <= 0.003_130_8 { 12.92 * x } else { 1.055 * x.powf(1.0 / 2.4) - 0.055 };
        (encoded * 255.0 + 0.5).clamp(0.0, 255.0) as u8
    })
}

/// Returns ScanNet's instance number of each class and object: `label · 1000 + number`, counted in each class
/// from 1. Objects without a class get 0.
pub(super) fn instance_ids(home: &Home) -> std::collections::HashMap<(u8, u16), u16> {
    let mut ids = std::collections::HashMap::new();
    let mut counts = [0_u16; 64];
    for surface in &home.mesh.surfaces {
        ids.entry((surface.class, surface.instance)).or_insert_with(|| {
            let count = &mut counts[usize::from(surface.class) % 64];
            // Walls, floors and ceilings are one object each.
            if *count == 0
                || !matches!(
                    surface.class,
                    crate::labels::nyu40::WALL | crate::labels::nyu40::FLOOR | crate::labels::nyu40::CEILING
                )
            {
                *count += 1;
            }
            u16::from(surface.class) * 1000 + (*count).min(999)
        });
    }
    ids
}
