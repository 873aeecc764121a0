//! The up direction of a room, found by its floor, its walls and what stands on the floor.
//!
//! Every axis, either way, is a guess that gets a score. A guess other than +z must be far ahead, because most
//! files have z up.

use std::collections::{BTreeMap, BTreeSet};

use glam::{DVec3, Vec3};

/// Edge of the cubes in which a room is examined, in metres.
const CUBE: f32 = 0.05;
/// Thickness of a side of the room, in metres.
const SIDE: f32 = 0.15;
/// Heights of rooms in metres: usual ones, and all that are believed. A scan may end below the ceiling.
const USUAL: [f32; 2] = [2.0, 3.3];
const BELIEVED: [f32; 2] = [1.5, 4.5];
/// What a metre above or below the usual heights costs, and the most that it costs.
const TOO_HIGH: f32 = 1.0;
const TOO_LOW: f32 = 0.35;
const MOST: f32 = 3.0;
/// Heights of tables, seats and beds, in metres.
const TOPS: [f32; 2] = [0.35, 1.1];
/// What the largest of these counts, and its share of all furniture that counts fully.
const TOP: f32 = 2.0;
const LARGE_TOP: f32 = 0.5;
/// Smallest share of a side that must be there: for a floor, for a wall along the axes, and for floor and
/// ceiling.
const FLOOR: f32 = 0.25;
const WALL: f32 = 0.15;
const BOTH: f32 = 0.25;
/// Share of the height that a wall fills, in whatever direction it runs, and how long the walls must be, as a
/// share of half the way around the room. In twelve made rooms with oblique walls they are 1.2 to 1.8 long, and
/// up to 0.36 where another axis is taken for up.
const FILLED: f32 = 0.5;
const WALLS: f32 = 0.8;
/// How far ahead of +z a guess must be.
const AHEAD: f32 = 0.5;
/// How far ahead of every other guess it must be.
const CLEAR: f32 = 0.4;

/// Points of a scan to find the up direction for.
pub(super) struct Shape<'a> {
    /// Points spread evenly over the surfaces.
    pub(super) positions: &'a [Vec3],
    /// Bounds of nearly all of them.
    pub(super) bounds: [Vec3; 2],
    /// Distance between neighbours.
    pub(super) gap: f32,
    /// Number of units per metre.
    pub(super) unit: f32,
    /// Brightness, 0 to 1, of points near a side, given by its axis and whether it is the upper one.
    pub(super) brightness: [[Option<f32>; 2]; 3],
}

/// Both sides of a room along an axis, and what is between them.
struct Along {
    /// Extent in metres.
    height: f32,
    /// Share of each side that is there.
    covered: [f32; 2],
    brightness: [Option<f32>; 2],
    /// Mean height of furniture above the lower side, as a share of the extent.
    middle: f32,
    /// Length of what is as tall as a wall, as a share of half the way around.
    walls: f32,
    /// Largest share of the furniture in one layer at the height of table tops above either side.
    top: [f32; 2],
}

/// Returns the up direction of a room if it clearly is not +z.
pub(super) fn of_room(shape: &Shape<'_>) -> Option<DVec3> {
    let axes = [0, 1, 2].map(|axis| Along::new(shape, axis));
    let usual = axes[2].score(0);
    let mut rooms = Vec::new();
    for (axis, along) in axes.iter().enumerate() {
        for (floor, sign) in [1.0, -1.0].into_iter().enumerate() {
            if along.is_room(floor, &axes, axis) {
                rooms.push((along.score(floor), DVec3::AXES[axis] * sign));
            }
        }
    }
    rooms.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (best, up) = *rooms.first()?;
    let second = rooms.get(1).map_or(f32::NEG_INFINITY, |(score, _)| *score);
    (best > usual + AHEAD && best > second + CLEAR).then_some(up)
}

impl Along {
    fn new(shape: &Shape<'_>, axis: usize) -> Self {
        let [low, high] = shape.bounds;
        let cube = (CUBE * shape.unit).max(1.2 * shape.gap);
        let cell = |v: f32| (v / cube).floor() as i64;
        let [u, v] = [(axis + 1) % 3, (axis + 2) % 3];
        let side = (SIDE * shape.unit).max(2.0 * cube);
        let column = |p: &Vec3| (cell(p[u]), cell(p[v]));
        let columns = |keep: &dyn Fn(&Vec3) -> bool| {
            let kept = shape.positions.iter().filter(|p| keep(p));
            kept.map(column).collect::<BTreeSet<_>>().len() as f32
        };
        let covered = [columns(&|p| p[axis] <= low[axis] + side), columns(&|p| p[axis] >= high[axis] - side)];
        let extent = high[axis] - low[axis];
        let mut filled: BTreeMap<(i64, i64), BTreeSet<i64>> = BTreeMap::new();
        for p in shape.positions {
            filled.entry(column(p)).or_default().insert(cell(p[axis] - low[axis]));
        }
        let all = filled.len().max(1) as f32;
        let tall = filled.values().filter(|layers| layers.len() as f32 * cube >= FILLED * extent).count();
        let around = (high[u] - low[u]) + (high[v] - low[v]);
        let is_inside = |p: &&Vec3| p.cmpge(low + side).all() && p.cmple(high - side).all();
        let inside: BTreeSet<(i64, (i64, i64))> =
            shape.positions.iter().filter(is_inside).map(|p| (cell(p[axis] - low[axis]), column(p))).collect();
        let heights: Vec<i64> = inside.iter().map(|(height, _)| *height).collect();
        let count = heights.len().max(1) as f32;
        let at = |height: i64| (height as f32 + 0.5) * cube;
        let middle = heights.iter().map(|height| at(*height)).sum::<f32>() / count / extent;
        let mut top = [0.0_f32; 2];
        for layer in heights.chunk_by(|a, b| a == b) {
            let share = layer.len() as f32 / count;
            for (floor, above) in [at(layer[0]), extent - at(layer[0])].into_iter().enumerate() {
                if above >= TOPS[0] * shape.unit && above <= TOPS[1] * shape.unit {
                    top[floor] = top[floor].max(share);
                }
            }
        }
        Self {
            height: extent / shape.unit,
            covered: covered.map(|columns| columns / all),
            brightness: shape.brightness[axis],
            walls: if around > 0.0 { tall as f32 * cube / around } else { 0.0 },
            middle: if heights.is_empty() { 0.5 } else { middle },
            top,
        }
    }

    /// Returns how well side `floor`, 0 for the lower one, does as the floor.
    fn score(&self, floor: usize) -> f32 {
        let ceiling = 1 - floor;
        let height =
            (TOO_HIGH * (self.height - USUAL[1]).max(0.0) + TOO_LOW * (USUAL[0] - self.height).max(0.0)).min(MOST);
        // Ceilings are brighter than floors, where both are there.
        let brighter = match (self.brightness[ceiling], self.brightness[floor]) {
            (Some(ceiling), Some(floor)) => (2.5 * (ceiling - floor)).clamp(-1.0, 1.0),
            _ => 0.0,
        };
        let both = (2.0 * self.covered[0].min(self.covered[1])).min(1.0);
        // Furniture stands on the floor.
        let standing = if floor == 0 { 0.5 - self.middle } else { self.middle - 0.5 };
        let top = TOP * self.top[floor].min(LARGE_TOP);
        both * brighter - height + self.covered[floor] + 2.0 * standing + top
    }

    /// Returns true if height, floor and walls are those of a room. `axes` are all axes, of which this is
    /// `axis`.
    fn is_room(&self, floor: usize, axes: &[Self; 3], axis: usize) -> bool {
        let others = || (0..3).filter(|other| *other != axis).flat_map(|other| axes[other].covered);
        let walls = others().filter(|covered| *covered >= WALL).count();
        let is_closed = self.covered[0].min(self.covered[1]) >= BOTH;
        let is_believed = self.height >= BELIEVED[0] && self.height <= BELIEVED[1];
        is_believed && self.covered[floor] >= FLOOR && (walls >= 2 || is_closed || self.walls >= WALLS)
    }
}

/// Returns the mean brightness, 0 to 1, of the points near each side of `bounds`; `None` without points there.
pub(super) fn brightness<'a>(
    points: impl Iterator<Item = (Vec3, &'a [u8; 3])>,
    bounds: [Vec3; 2],
    unit: f32,
) -> [[Option<f32>; 2]; 3] {
    let side = SIDE * unit;
    let mut sums = [[(0_u64, 0_u64); 2]; 3];
    for (p, color) in points {
        let value = color.iter().map(|&value| u64::from(value)).sum::<u64>();
        for (axis, ends) in sums.iter_mut().enumerate() {
            let is_near = [p[axis] <= bounds[0][axis] + side, p[axis] >= bounds[1][axis] - side];
            for (end, _) in ends.iter_mut().zip(is_near).filter(|(_, is_near)| *is_near) {
                *end = (end.0 + value, end.1 + 3 * 255);
            }
        }
    }
    sums.map(|ends| ends.map(|(sum, most)| (most > 0).then(|| sum as f32 / most as f32)))
}
