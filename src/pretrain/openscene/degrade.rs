//! Rooms as a sensor would have scanned them: turned, cut, with holes, noise and other colours.

use std::f64::consts::TAU;

use crate::labels::nyu40::CEILING;
use crate::models::minkunet::{Cells, MinkUnetConfig};
use crate::ops::voxel_grid::QuantizeError;
use crate::pretrain::scan::LabelledScan;
use crate::random::SplitMix64;

/// Rows and columns of the sphere on which a viewpoint sees the nearest surface.
const SPHERE: [usize; 2] = [90, 180];
/// Distance in metres behind the nearest surface that a viewpoint still sees.
const DEPTH: f64 = 0.15;
/// Largest number of viewpoints of a scan that holds only what they see.
const MOST_VIEWPOINTS: usize = 3;
/// Largest number of holes.
const MOST_HOLES: usize = 10;

/// How likely each change is.
const SEEN_FROM_FEW: f64 = 0.3;
const NO_CEILING: f64 = 0.5;
const CUT: f64 = 0.35;
const NO_FLOOR: f64 = 0.07;
const DOUBLED: f64 = 0.2;
const NOISY: f64 = 0.3;
const OTHER_MATERIALS: f64 = 0.5;
const COLORLESS: f64 = 0.45;

/// A room as it was scanned.
#[derive(Clone, Debug, PartialEq)]
pub struct Degraded {
    /// `[N]` positions in metres, z up.
    pub points: Vec<[f64; 3]>,
    /// `[N]` colours; `None` if the scan has none.
    pub colors: Option<Vec<[u8; 3]>>,
    /// `[N]` the points of the room that they were, ascending.
    pub kept: Vec<u32>,
}

impl Degraded {
    /// Cuts the scan into cells, as a network of this configuration takes them.
    pub(super) fn cells(&self, config: &MinkUnetConfig) -> Result<Cells, QuantizeError> {
        Cells::new(&self.points, self.colors.as_deref(), config.input, config.edge())
    }
}

/// Scans `room` once more, each time in another way: from few viewpoints, without ceiling or floor, cut in two, with
/// holes, thinned, with noise and drift; turned, mirrored and stretched; in other light and materials, or without
/// colours.
#[must_use]
pub fn degraded(room: &LabelledScan, random: &mut SplitMix64) -> Degraded {
    let kept = kept(room, random);
    let points = moved(room, &kept, random);
    let colors = colored(room, &kept, random);
    Degraded { points, colors, kept }
}

fn bounds(room: &LabelledScan) -> [[f64; 2]; 3] {
    let mut bounds = [[f64::INFINITY, f64::NEG_INFINITY]; 3];
    for p in &room.points {
        for (b, &x) in bounds.iter_mut().zip(p) {
            *b = [b[0].min(f64::from(x)), b[1].max(f64::from(x))];
        }
    }
    bounds
}

/// The points that a scan holds, ascending.
fn kept(room: &LabelledScan, random: &mut SplitMix64) -> Vec<u32> {
    let bounds = bounds(room);
    let [low, high] = bounds[2];
    let mut kept = vec![true; room.points.len()];
    let mut leave_out = |is_out: &dyn Fn(usize, [f64; 3]) -> bool| {
        for (point, kept) in kept.iter_mut().enumerate() {
            *kept &= !is_out(point, room.points[point].map(f64::from));
        }
    };
    if random.unit() < SEEN_FROM_FEW {
        let seen = seen(room, &bounds, random);
        leave_out(&|point, _| !seen[point]);
    }
    if random.unit() < NO_CEILING {
        let top = high - random.between([0.05, 0.5]);
        leave_out(&|point, p| room.classes[point] == CEILING || p[2] > top);
    }
    if random.unit() < NO_FLOOR {
        let bottom = low + random.between([0.05, 0.5]);
        leave_out(&|_, p| p[2] < bottom);
    }
    if random.unit() < CUT {
        let (sin, cos) = (TAU * random.unit()).sin_cos();
        let middle = room.points[random.below(room.points.len())].map(f64::from);
        leave_out(&|_, p| cos * (p[0] - middle[0]) + sin * (p[1] - middle[1]) > 0.3);
    }
    for _ in 0..random.below(MOST_HOLES + 1) {
        let middle = room.points[random.below(room.points.len())].map(f64::from);
        let radius = random.between([0.08, 0.6]);
        leave_out(&|_, p| (0..3).map(|axis| (p[axis] - middle[axis]).powi(2)).sum::<f64>() < radius * radius);
    }
    // Thinned evenly, or the more the farther from a sensor.
    let share = random.between([0.1, 1.0]);
    let sensor = [0, 1].map(|axis| random.between(bounds[axis]));
    let reach = if random.unit() < 0.5 { random.between([1.0, 4.0]) } else { f64::INFINITY };
    let mut left: Vec<u32> = Vec::new();
    for (point, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
        let p = room.points[point];
        let distance = (f64::from(p[0]) - sensor[0]).hypot(f64::from(p[1]) - sensor[1]);
        if random.unit() < share / (1.0 + (distance / reach).powi(2)) {
            left.push(point as u32);
        }
    }
    // In a small room, nothing may be left.
    if left.len() < 100 { (0..room.points.len() as u32).collect() } else { left }
}

/// True for the points that a few viewpoints in the room see.
fn seen(room: &LabelledScan, bounds: &[[f64; 2]; 3], random: &mut SplitMix64) -> Vec<bool> {
    let mut seen = vec![false; room.points.len()];
    for _ in 0..=random.below(MOST_VIEWPOINTS) {
        let inner = |[low, high]: [f64; 2]| [low + 0.15 * (high - low), high - 0.15 * (high - low)];
        let [x, y] = [0, 1].map(|axis| random.between(inner(bounds[axis])));
        let z = bounds[2][0] + random.between([0.8, 1.8]);
        let (towards, width) = (TAU * random.unit(), random.between([1.0, TAU]));
        let [rows, columns] = SPHERE;
        let mut nearest = vec![f64::INFINITY; rows * columns];
        let place = |p: &[f32; 3]| {
            let d = [f64::from(p[0]) - x, f64::from(p[1]) - y, f64::from(p[2]) - z];
            let distance = d.iter().map(|x| x * x).sum::<f64>().sqrt();
            let azimuth = d[1].atan2(d[0]);
            let aside = (azimuth - towards).rem_euclid(TAU);
            let row = ((d[2] / distance.max(1e-9)).clamp(-1.0, 1.0).acos() / TAU * 2.0 * rows as f64) as usize;
            let column = (azimuth.rem_euclid(TAU) / TAU * columns as f64) as usize;
            let is_ahead = aside < width / 2.0 || aside > TAU - width / 2.0;
            is_ahead.then(|| (row.min(rows - 1) * columns + column.min(columns - 1), distance))
        };
        let places: Vec<Option<(usize, f64)>> = room.points.iter().map(place).collect();
        for &(cell, distance) in places.iter().flatten() {
            nearest[cell] = nearest[cell].min(distance);
        }
        for (seen, place) in seen.iter_mut().zip(places) {
            *seen |= place.is_some_and(|(cell, distance)| distance < nearest[cell] + DEPTH);
        }
    }
    seen
}

/// Positions of the points `kept`, moved together and each on its own.
fn moved(room: &LabelledScan, kept: &[u32], random: &mut SplitMix64) -> Vec<[f64; 3]> {
    let (sin, cos) = (TAU * random.unit()).sin_cos();
    let mirror = if random.unit() < 0.5 { -1.0 } else { 1.0 };
    let scale = random.between([0.85, 1.18]);
    let stretch = [0; 3].map(|_| scale * random.between([0.94, 1.06]));
    let tilt = [0; 2].map(|_| random.between([-0.04, 0.04]));
    let jitter = if random.unit() < NOISY { random.between([0.01, 0.03]) } else { random.between([0.0, 0.01]) };
    // Drift bends what is straight by a few centimetres.
    let waves: Vec<([f64; 3], f64, [f64; 3])> = (0..3)
        .map(|_| {
            let along = [0; 3].map(|_| TAU * random.between([-0.5, 0.5]));
            (along, TAU * random.unit(), [0; 3].map(|_| random.between([-0.03, 0.03])))
        })
        .collect();
    let doubled = random.unit() < DOUBLED;
    let apart = [0; 3].map(|_| random.between([-0.06, 0.06]));
    let share = random.between([0.1, 0.4]);
    let position = |&point: &u32| {
        let mut p = room.points[point as usize].map(f64::from);
        let drift = waves.iter().fold([0.0; 3], |mut sum: [f64; 3], (along, phase, by)| {
            let wave = (along.iter().zip(p).map(|(a, x)| a * x).sum::<f64>() + phase).sin();
            sum.iter_mut().zip(by).for_each(|(sum, by)| *sum += wave * by);
            sum
        });
        let is_double = doubled && random.unit() < share;
        for axis in 0..3 {
            p[axis] += drift[axis] + jitter * random.nearly_normal() + if is_double { apart[axis] } else { 0.0 };
            p[axis] *= stretch[axis];
        }
        let [x, y, z] = [mirror * p[0], p[1], p[2] + tilt[0] * p[0] + tilt[1] * p[1]];
        [cos * x - sin * y, sin * x + cos * y, z]
    };
    kept.iter().map(position).collect()
}

/// Colours of the points `kept` in another light, and with other materials.
fn colored(room: &LabelledScan, kept: &[u32], random: &mut SplitMix64) -> Option<Vec<[u8; 3]>> {
    if random.unit() < COLORLESS {
        return None;
    }
    let others = random.unit() < OTHER_MATERIALS;
    let tints: Vec<[f64; 3]> = (0..room.spans_room.len())
        .map(|_| if others { [0; 3].map(|_| random.between([-70.0, 70.0])) } else { [0.0; 3] })
        .collect();
    let light = random.between([0.5, 1.5]);
    let gain = [0; 3].map(|_| light * random.between([0.8, 1.2]));
    let (gamma, saturation) = (random.between([0.6, 1.6]), random.between([0.0, 1.3]));
    let noise = random.between([0.0, 14.0]);
    let color = |&point: &u32| {
        let tint = tints[room.instances[point as usize] as usize];
        let rgb: [f64; 3] = std::array::from_fn(|i| {
            let value = (f64::from(room.colors[point as usize][i]) + tint[i]).clamp(0.0, 255.0);
            255.0 * (gain[i] * value / 255.0).clamp(0.0, 1.0).powf(gamma)
        });
        let grey = rgb.iter().sum::<f64>() / 3.0;
        rgb.map(|value| (grey + saturation * (value - grey) + noise * random.nearly_normal()).clamp(0.0, 255.0) as u8)
    };
    Some(kept.iter().map(color).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A closed box of 4 × 3 × 2.5 m, points 10 cm apart.
    fn room() -> LabelledScan {
        let mut points: Vec<[f32; 3]> = Vec::new();
        let mut classes = Vec::new();
        for i in 0..40 {
            for j in 0..30 {
                for (z, class) in [(0.0, 2), (2.5, CEILING)] {
                    points.push([0.1 * i as f32, 0.1 * j as f32, z]);
                    classes.push(class);
                }
            }
            for k in 0..25 {
                for y in [0.0, 3.0] {
                    points.push([0.1 * i as f32, y, 0.1 * k as f32]);
                    classes.push(1);
                }
            }
        }
        LabelledScan {
            name: "box".to_owned(),
            colors: vec![[100, 150, 200]; points.len()],
            normals: vec![[0.0, 0.0, 1.0]; points.len()],
            instances: classes.iter().map(|&class| u32::from(class == 1)).collect(),
            spans_room: vec![true, true],
            classes,
            points,
        }
    }

    #[test]
    fn a_scan_repeats_and_its_changes_are_bounded() {
        let room = room();
        let (mut colorless, mut no_ceiling, mut parts) = (0, 0, 0);
        for seed in 0..60 {
            let scan = degraded(&room, &mut SplitMix64::new(seed));
            assert_eq!(scan, degraded(&room, &mut SplitMix64::new(seed)));
            let len = scan.points.len();
            assert!(len >= 100 && len <= room.points.len() && scan.kept.len() == len && scan.kept.is_sorted());
            assert!(scan.colors.as_ref().is_none_or(|colors| colors.len() == len));
            let heights = scan.points.iter().map(|p| p[2]);
            let (low, high) = heights.fold((f64::MAX, f64::MIN), |(low, high), z| (low.min(z), high.max(z)));
            assert!(low > -0.7 && high < 4.0, "{low} {high}");
            colorless += usize::from(scan.colors.is_none());
            no_ceiling += usize::from(scan.kept.iter().all(|&point| room.classes[point as usize] != CEILING));
            parts += usize::from(len < room.points.len() / 2);
        }
        assert!((15..40).contains(&colorless) && (15..50).contains(&no_ceiling) && parts > 10);
    }

    #[test]
    fn a_viewpoint_sees_the_nearest_surface() {
        let mut room = room();
        // A board in the middle hides what is behind it.
        let bounds = bounds(&room);
        let all = seen(&room, &bounds, &mut SplitMix64::new(3)).iter().filter(|seen| **seen).count();
        assert!(all > room.points.len() / 10);
        let far = room.points.len();
        room.points.push([2.0, 1.5, -50.0]);
        let seen = seen(&room, &bounds, &mut SplitMix64::new(3));
        assert!(!seen[far]);
    }
}
