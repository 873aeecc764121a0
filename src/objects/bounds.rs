//! Upright boxes around points.

use std::f64::consts::{FRAC_PI_2, PI};

use glam::{DVec2, DVec3};
use serde::{Deserialize, Serialize};

/// Share of the points that a box leaves out at each of its sides: strays.
const STRAYS: f64 = 0.005;
/// Most points that a box is measured by.
const MOST_POINTS: usize = 4000;
/// Headings tried in a quarter turn, and around the best of them.
const COARSE: usize = 45;
const FINE: i32 = 8;

/// Upright box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OrientedBox {
    /// Centre, in the scan's coordinates.
    pub center: [f64; 3],
    /// Length along the heading, width, and height, in the scan's unit. The length is the larger of the first two.
    pub size: [f64; 3],
    /// Heading of its length in radians, 0 to π, about the up direction. At 0 it lies along the scan's x, or along
    /// y if x is up.
    pub yaw: f64,
    /// Unit directions of length, width and height in the scan.
    pub axes: [[f64; 3]; 3],
    /// Area of the footprint, in squares of the scan's unit.
    pub footprint: f64,
    /// Volume, in cubes of the scan's unit.
    pub volume: f64,
}

impl OrientedBox {
    /// The eight corners: the four below counter-clockwise, then those above them.
    #[must_use]
    pub fn corners(&self) -> [[f64; 3]; 8] {
        let [x, y, z] = self.axes.map(DVec3::from_array);
        let half = DVec3::from_array(self.size) / 2.0;
        let signs = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)];
        std::array::from_fn(|i| {
            let (sx, sy) = signs[i % 4];
            let sz = if i < 4 { -1.0 } else { 1.0 };
            (DVec3::from_array(self.center) + x * (sx * half.x) + y * (sy * half.y) + z * (sz * half.z)).to_array()
        })
    }
}

/// Finds boxes in a scan.
pub(super) struct BoxFinder {
    right: DVec3,
    forward: DVec3,
    up: DVec3,
}

impl BoxFinder {
    /// `up` may have any length; z is taken for one without direction.
    pub(super) fn new(up: [f64; 3]) -> Self {
        let up = DVec3::from_array(up).try_normalize().unwrap_or(DVec3::Z);
        let seed = if up.x.abs() < 0.9 { DVec3::X } else { DVec3::Y };
        let right = (seed - up * seed.dot(up)).normalize_or(DVec3::Y);
        Self { right, forward: up.cross(right), up }
    }

    /// The box with the smallest footprint around `points`, without strays. A box of zeros without points.
    pub(super) fn of(&self, positions: &[[f64; 3]], points: &[usize]) -> OrientedBox {
        let stride = points.len().div_ceil(MOST_POINTS).max(1);
        let mut chosen = points.iter().step_by(stride).filter_map(|&point| positions.get(point));
        let Some(&origin) = chosen.clone().next() else { return OrientedBox::default() };
        let origin = DVec3::from_array(origin);
        let (mut flat, mut heights) = (Vec::new(), Vec::new());
        chosen.by_ref().for_each(|&p| {
            let p = DVec3::from_array(p) - origin;
            flat.push(DVec2::new(p.dot(self.right), p.dot(self.forward)));
            heights.push(p.dot(self.up));
        });
        let mut values = Vec::with_capacity(flat.len());
        let mut range = |axis: DVec2| {
            values.clear();
            values.extend(flat.iter().map(|p| p.dot(axis)));
            quantiles(&mut values)
        };
        let mut measure = |angle: f64| {
            let along = DVec2::from_angle(angle);
            let (a, b) = (range(along), range(along.perp()));
            (a, b, (a[1] - a[0]) * (b[1] - b[0]))
        };
        let best_of = |angles: &mut dyn Iterator<Item = f64>, measure: &mut dyn FnMut(f64) -> f64| {
            let measured = angles.map(|angle| (measure(angle), angle));
            measured.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(0.0, |(_, angle)| angle)
        };
        let step = FRAC_PI_2 / COARSE as f64;
        let mut area = |angle| measure(angle).2;
        let coarse = best_of(&mut (0..COARSE).map(|i| i as f64 * step), &mut area);
        let near = (-FINE..=FINE).map(|i| coarse + f64::from(i) * step / f64::from(FINE));
        let mut angle = best_of(&mut near.into_iter(), &mut area);
        let (mut a, mut b, footprint) = measure(angle);
        if b[1] - b[0] > a[1] - a[0] {
            angle += FRAC_PI_2;
            (a, b) = (b, [-a[1], -a[0]]);
        }
        let h = quantiles(&mut heights);
        let (sin, cos) = angle.sin_cos();
        let length = self.right * cos + self.forward * sin;
        let width = self.up.cross(length);
        let middle = |range: [f64; 2]| (range[0] + range[1]) / 2.0;
        let center = origin + length * middle(a) + width * middle(b) + self.up * middle(h);
        let size = [a[1] - a[0], b[1] - b[0], h[1] - h[0]];
        OrientedBox {
            center: center.to_array(),
            size,
            yaw: angle.rem_euclid(PI),
            axes: [length, width, self.up].map(|axis| axis.to_array()),
            footprint,
            volume: footprint * size[2],
        }
    }
}

/// Where `values` are, without the strays at both ends.
fn quantiles(values: &mut [f64]) -> [f64; 2] {
    if values.is_empty() {
        return [0.0; 2];
    }
    let skip = (values.len() as f64 * STRAYS) as usize;
    let last = values.len() - 1 - skip;
    let low = *values.select_nth_unstable_by(skip, f64::total_cmp).1;
    let high = *values.select_nth_unstable_by(last, f64::total_cmp).1;
    [low, high]
}
