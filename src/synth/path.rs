//! Path of a hand-held camera through the rooms, looking at the furniture.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use glam::{DMat3, DVec3, Vec2, Vec3, vec2};

use super::draw::Draw;
use super::layout::{Home, Room};
use crate::views::{Pose, PoseConvention};

/// Side of a cell in the map of the walkable floor, in metres.
const CELL: f32 = 0.08;
/// Distances that a walker keeps from furniture and walls, in metres. The largest that the rooms allow is
/// taken.
const CLEARANCES: [f32; 4] = [0.30, 0.20, 0.12, 0.05];
/// Number of views of a whole turn on a stand.
const TURNS: usize = 6;
/// Largest height that is stepped over, in metres.
const STEP: f32 = 0.12;

/// Map of the walkable floor.
struct Floor {
    min: Vec2,
    columns: usize,
    rows: usize,
    free: Vec<bool>,
}

impl Floor {
    fn new(home: &Home, clearance: f32) -> Self {
        let min = home.rooms.iter().fold(Vec2::INFINITY, |min, room| min.min(room.min));
        let max = home.rooms.iter().fold(Vec2::NEG_INFINITY, |max, room| max.max(room.max));
        let size = ((max - min) / CELL).ceil();
        let (columns, rows) = (size.x as usize + 1, size.y as usize + 1);
        let mut floor = Self { min, columns, rows, free: vec![false; columns * rows] };
        for cell in 0..columns * rows {
            let at = floor.center(cell);
            let within = |low: Vec2, high: Vec2| at.cmpge(low).all() && at.cmple(high).all();
            let in_room = home.rooms.iter().any(|room| within(room.min + clearance, room.max - clearance));
            // Passages reach into the rooms on both sides, and stay as narrow there.
            let in_passage = home.passages.iter().any(|[low, high]| {
                let size = *high - *low;
                let along = if size.x < size.y { vec2(0.5, -0.2) } else { vec2(-0.2, 0.5) };
                within(*low - along, *high + along)
            });
            let blocked = home.items.iter().any(|item| {
                let margin = Vec2::splat(clearance);
                let bounds = &item.bounds;
                bounds.max.z > STEP
                    && bounds.min.z < 1.8
                    && within(bounds.min.truncate() - margin, bounds.max.truncate() + margin)
            });
            floor.free[cell] = (in_room || in_passage) && !blocked;
        }
        floor
    }

    fn center(&self, cell: usize) -> Vec2 {
        self.min + vec2((cell % self.columns) as f32, (cell / self.columns) as f32) * CELL
    }

    /// True for a free cell in `room`.
    fn is_in(&self, room: &Room, cell: usize) -> bool {
        let at = self.center(cell);
        self.free[cell] && at.cmpgt(room.min).all() && at.cmplt(room.max).all()
    }

    fn neighbors(&self, cell: usize) -> impl Iterator<Item = (usize, u32)> + '_ {
        let (x, y) = ((cell % self.columns) as isize, (cell / self.columns) as isize);
        let around =
            [(1, 0, 10), (-1, 0, 10), (0, 1, 10), (0, -1, 10), (1, 1, 14), (1, -1, 14), (-1, 1, 14), (-1, -1, 14)];
        around.into_iter().filter_map(move |(dx, dy, cost)| {
            let (x, y) = (x + dx, y + dy);
            let inside = (0..self.columns as isize).contains(&x) && (0..self.rows as isize).contains(&y);
            let cell = (y * self.columns as isize + x) as usize;
            (inside && self.free[cell]).then_some((cell, cost))
        })
    }

    /// Keeps only the largest connected part free. Returns its number of cells.
    fn keep_largest(&mut self) -> usize {
        let mut part_of = vec![0_usize; self.free.len()];
        let mut sizes = vec![0];
        for start in 0..self.free.len() {
            if !self.free[start] || part_of[start] > 0 {
                continue;
            }
            let part = sizes.len();
            sizes.push(0);
            part_of[start] = part;
            let mut open = vec![start];
            while let Some(cell) = open.pop() {
                sizes[part] += 1;
                for (next, _) in self.neighbors(cell) {
                    if part_of[next] == 0 {
                        part_of[next] = part;
                        open.push(next);
                    }
                }
            }
        }
        let largest = (1..sizes.len()).max_by_key(|&part| (sizes[part], Reverse(part))).unwrap_or(0);
        for (free, part) in self.free.iter_mut().zip(part_of) {
            *free &= part == largest;
        }
        sizes[largest]
    }

    /// Returns the free cell nearest to a place.
    fn nearest(&self, to: Vec2) -> Option<usize> {
        let free = (0..self.free.len()).filter(|&cell| self.free[cell]);
        free.min_by(|&a, &b| self.center(a).distance_squared(to).total_cmp(&self.center(b).distance_squared(to)))
    }

    /// Returns the shortest way between two cells, both included.
    fn way(&self, from: usize, to: usize) -> Vec<usize> {
        let mut best: BTreeMap<usize, (u32, usize)> = BTreeMap::from([(from, (0, from))]);
        let mut open = BinaryHeap::from([Reverse((0_u32, from))]);
        while let Some(Reverse((cost, cell))) = open.pop() {
            if cell == to {
                break;
            }
            if best.get(&cell).is_some_and(|known| known.0 < cost) {
                continue;
            }
            for (next, step) in self.neighbors(cell) {
                let cost = cost + step;
                if best.get(&next).is_none_or(|known| cost < known.0) {
                    best.insert(next, (cost, cell));
                    open.push(Reverse((cost, next)));
                }
            }
        }
        let mut way = vec![to];
        while let Some(&(_, before)) = way.last().and_then(|cell| best.get(cell))
            && way.last() != Some(&from)
        {
            way.push(before);
        }
        way.reverse();
        way
    }
}

/// A place on the way, and the point looked at from there.
#[derive(Clone, Copy)]
struct Stop {
    at: Vec2,
    look: Vec3,
}

/// Returns the floor that can be walked on, or `None` if there is a room that nobody can stand in.
fn walkable(home: &Home) -> Option<Floor> {
    let area: f32 = home.rooms.iter().map(|room| room.size().x * room.size().y).sum();
    // Walking close to furniture is better than being shut out of a room.
    CLEARANCES.iter().find_map(|&clearance| {
        let mut floor = Floor::new(home, clearance);
        let cells = floor.keep_largest();
        let reached = home.rooms.iter().all(|room| {
            (0..floor.free.len()).filter(|&cell| floor.is_in(room, cell)).count() as f32 * CELL * CELL > 0.3
        });
        (reached && cells as f32 * CELL * CELL > 0.04 * area).then_some(floor)
    })
}

/// Returns `count` poses of a camera on a stand, or `None` if there is a room that it cannot stand in. At each place
/// it turns once, a sixth at a time, and looks a little down at every second view. Places are shared out by the size
/// of the rooms, each as far as can be from those before it.
pub(super) fn stand(home: &Home, count: usize, draw: &mut Draw) -> Option<Vec<Pose>> {
    let floor = walkable(home)?;
    let num_places = count.div_ceil(TURNS).max(home.rooms.len());
    let area = |room: &Room| room.size().x * room.size().y;
    let mut places: Vec<Vec<Vec2>> = vec![Vec::new(); home.rooms.len()];
    for _ in 0..num_places {
        // The next room is that with the most floor for each of its places; empty ones come first.
        let room = (0..places.len()).max_by(|&a, &b| {
            let share = |room: usize| match places[room].len() {
                0 => f32::INFINITY,
                taken => area(&home.rooms[room]) / taken as f32,
            };
            share(a).total_cmp(&share(b)).then(b.cmp(&a))
        })?;
        let taken = &places[room];
        let free: Vec<Vec2> = (0..floor.free.len())
            .filter(|&cell| floor.is_in(&home.rooms[room], cell))
            .map(|cell| floor.center(cell))
            .collect();
        let place = match taken.is_empty() {
            true => floor.center(floor.nearest(home.rooms[room].center())?),
            false => {
                let room = |at: &Vec2| taken.iter().map(|other| other.distance(*at)).fold(f32::INFINITY, f32::min);
                free.iter().copied().max_by(|a, b| room(a).total_cmp(&room(b)))?
            }
        };
        places[room].push(place);
    }
    let height = draw.range(1.4, 1.6);
    let mut poses = Vec::with_capacity(count);
    let places: Vec<Vec2> = places.into_iter().flatten().collect();
    // Every place gets its first views before any gets its last: fewer views still show all rooms.
    let starts: Vec<f32> = places.iter().map(|_| draw.range(0.0, std::f32::consts::TAU)).collect();
    for view in 0..count {
        let (turn, place) = (view / places.len(), view % places.len());
        let angle = starts[place] + turn as f32 / TURNS as f32 * std::f32::consts::TAU;
        let pitch = if turn.is_multiple_of(2) { -0.12 } else { -0.42 };
        let forward = vec2(angle.cos(), angle.sin()).extend(pitch).normalize().as_dvec3();
        let right = forward.cross(DVec3::Z).normalize();
        let axes = DMat3::from_cols(right, forward.cross(right), forward);
        let center = places[place].extend(height).as_dvec3();
        poses.push(Pose::new(axes, center, PoseConvention::OPENCV_CAMERA_TO_WORLD).ok()?);
    }
    Some(poses)
}

/// Returns `count` poses along a walk through all rooms, or `None` if there is a room that nobody can stand
/// in.
pub(super) fn walk(home: &Home, count: usize, draw: &mut Draw) -> Option<Vec<Pose>> {
    let floor = walkable(home)?;
    let eye = draw.range(1.38, 1.62);
    // The walk visits the rooms from west to east.
    let mut order: Vec<usize> = (0..home.rooms.len()).collect();
    order.sort_unstable_by(|&a, &b| home.rooms[a].min.x.total_cmp(&home.rooms[b].min.x));
    let mut places: Vec<Stop> = Vec::new();
    let mut last_cell = None;
    for &room in &order {
        let room = &home.rooms[room];
        let start = draw.range(0.0, std::f32::consts::TAU);
        let turns = draw.range(1.25, 1.55);
        let turn = if draw.chance(0.5) { 1.0 } else { -1.0 };
        let stops = 20;
        for k in 0..stops {
            let angle = start + turn * turns * k as f32 / stops as f32 * std::f32::consts::TAU;
            let side = vec2(angle.cos(), angle.sin());
            let half = room.size() * 0.5;
            // The camera stands across the room from its target, now nearer, now farther.
            let wanted = room.center() - half * side * draw.range(0.3, 0.85);
            let Some(cell) = floor.nearest(wanted.clamp(room.min + 0.15, room.max - 0.15)) else { continue };
            let look = target(home, room, side, draw);
            for cell in last_cell.map_or_else(|| vec![cell], |last| floor.way(last, cell)) {
                places.push(Stop { at: floor.center(cell), look });
            }
            last_cell = Some(cell);
        }
    }
    if places.is_empty() {
        return None;
    }
    let smooth = smoothed(&places, &floor);
    Some(poses(&smooth, count, eye, draw))
}

/// Returns a target on one side of a room: a piece of furniture, or else a place on the wall.
fn target(home: &Home, room: &Room, side: Vec2, draw: &mut Draw) -> Vec3 {
    let half = room.size() * 0.5;
    let there = |center: Vec3| {
        let offset = (center.truncate() - room.center()) / half;
        offset.abs().cmplt(Vec2::ONE).all() && offset.length() > 0.25 && offset.normalize_or_zero().dot(side) > 0.86
    };
    let centers: Vec<Vec3> =
        home.items.iter().map(|item| item.bounds.center()).filter(|center| there(*center)).collect();
    let down = draw.range(0.3, 1.3);
    match centers.is_empty() || draw.chance(0.12) {
        true => (room.center() + half * side * 0.95).extend(down),
        false => draw.pick(&centers),
    }
}

/// Smooths the way, so that it has no corners and the view changes gradually.
fn smoothed(places: &[Stop], floor: &Floor) -> Vec<Stop> {
    let mean = |from: usize, to: usize, value: &dyn Fn(&Stop) -> Vec3| {
        let (from, to) = (from.min(places.len() - 1), to.min(places.len() - 1));
        places[from..=to].iter().map(value).sum::<Vec3>() / (to - from + 1) as f32
    };
    let stop = |i: usize| {
        let at = mean(i.saturating_sub(6), i + 6, &|stop| stop.at.extend(0.0)).truncate();
        let free = floor.nearest(at).is_some_and(|cell| floor.center(cell).distance(at) < CELL);
        // Averages directions instead of targets, since targets may lie on all sides.
        let toward = mean(i.saturating_sub(7), i + 7, &|stop| (stop.look - stop.at.extend(1.5)).normalize_or(Vec3::X));
        let at = if free { at } else { places[i].at };
        Stop { at, look: toward }
    };
    (0..places.len()).map(stop).collect()
}

fn poses(way: &[Stop], count: usize, eye: f32, draw: &mut Draw) -> Vec<Pose> {
    // Time passes with steps and with turns.
    let mut times = vec![0.0_f32];
    for pair in way.windows(2) {
        let turn = pair[0].look.normalize_or(Vec3::X).angle_between(pair[1].look.normalize_or(Vec3::X));
        times.push(times[times.len() - 1] + pair[0].at.distance(pair[1].at) + 0.9 * turn + 1e-4);
    }
    let whole = times[times.len() - 1];
    let waves: Vec<[f32; 3]> =
        (0..8).map(|_| [draw.range(0.25, 0.9), draw.range(0.0, 6.3), draw.range(0.5, 1.0)]).collect();
    let sway = |t: f32, which: usize| {
        let [f, p, a] = waves[which];
        let [g, q, b] = waves[which + 1];
        0.6 * a * (t * f * 3.0 + p).sin() + 0.4 * b * (t * g * 8.0 + q).sin()
    };
    let pose = |k: usize| {
        let t = whole * (k as f32 + 0.5) / count as f32;
        let i = times.partition_point(|&time| time <= t).clamp(1, way.len().max(2) - 1) - 1;
        let j = (i + 1).min(way.len() - 1);
        let s = if j > i { ((t - times[i]) / (times[j] - times[i])).clamp(0.0, 1.0) } else { 0.0 };
        let at = way[i].at.lerp(way[j].at, s);
        let look = way[i].look.lerp(way[j].look, s).normalize_or(Vec3::X);
        let jitter = Vec3::new(draw_small(k, 1), draw_small(k, 2), draw_small(k, 3)) * 0.01;
        let pitch = 0.07 * sway(t, 0);
        let look = (look + Vec3::Z * pitch + jitter).normalize_or(Vec3::X);
        // The camera does not film the floor at the walker's feet, nor the ceiling alone.
        let level = look.truncate().normalize_or(Vec2::X);
        let rise = (look.z / look.truncate().length().max(1e-3)).clamp(-0.75, 0.22);
        let forward = level.extend(rise).normalize().as_dvec3();
        let roll = f64::from(0.05 * sway(t, 2) + 0.3 * jitter.x);
        let right = forward.cross(DVec3::Z).normalize();
        let down = forward.cross(right);
        let (sin, cos) = roll.sin_cos();
        let (right, down) = (right * cos + down * sin, down * cos - right * sin);
        let height = eye + 0.06 * sway(t, 4) + 0.02 * sway(t * 2.3, 5);
        let center = at.extend(height).as_dvec3();
        Pose::new(DMat3::from_cols(right, down, forward), center, PoseConvention::OPENCV_CAMERA_TO_WORLD)
    };
    (0..count).filter_map(|k| pose(k).ok()).collect()
}

/// Returns a number from -1 to 1, different for every view.
fn draw_small(view: usize, which: i32) -> f32 {
    2.0 * super::draw::hash_unit(view as i32, which, 77) - 1.0
}
