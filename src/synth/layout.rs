//! Rooms, the openings in their walls, and the places of furniture.

use std::sync::Arc;

use glam::{Affine3A, Vec2, Vec2Swizzles as _, Vec3, vec2, vec3};

use super::assets::Stock;
use super::draw::Draw;
use super::furniture::{self as make, Opening, OpeningKind, Piece, Studio};
use super::homes::Traits;
use super::mesh::{Bounds, Builder, Mesh, placed};
use super::picture::Picture;
use super::style::Style;
use super::texture::{Material, Pattern};
use crate::labels::nyu40::{CEILING, CORE, FLOOR, WALL};

/// Thickness of walls, in metres.
const WALL_THICKNESS: f32 = 0.14;
/// Depth of the space that stays free in front of a door, in metres.
const DOOR_CLEARANCE: f32 = 0.85;

/// Use of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoomKind {
    Living,
    Bedroom,
    Kitchen,
    Bathroom,
    Office,
    Dining,
}

impl RoomKind {
    pub(super) const ALL: [Self; 6] =
        [Self::Living, Self::Bedroom, Self::Kitchen, Self::Bathroom, Self::Office, Self::Dining];

    /// Kinds of the first rooms of homes, in turn. Kitchens and bathrooms come more often, since their
    /// furniture is found nowhere else.
    pub(super) const ROUND: [Self; 8] = [
        Self::Living,
        Self::Bedroom,
        Self::Kitchen,
        Self::Bathroom,
        Self::Office,
        Self::Dining,
        Self::Bathroom,
        Self::Kitchen,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Living => "living room",
            Self::Bedroom => "bedroom",
            Self::Kitchen => "kitchen",
            Self::Bathroom => "bathroom",
            Self::Office => "office",
            Self::Dining => "dining room",
        }
    }

    /// Least and largest width and depth, in metres.
    fn sizes(self) -> [[f32; 2]; 2] {
        match self {
            Self::Living => [[3.7, 5.6], [3.5, 5.0]],
            Self::Bedroom => [[3.1, 4.4], [3.0, 4.2]],
            Self::Kitchen => [[2.8, 4.2], [2.6, 4.0]],
            Self::Bathroom => [[2.0, 2.9], [2.3, 3.2]],
            Self::Office => [[2.8, 4.4], [2.7, 4.0]],
            Self::Dining => [[3.2, 4.4], [3.1, 4.2]],
        }
    }
}

/// A room: a rectangle with openings in its walls.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub kind: RoomKind,
    pub min: Vec2,
    pub max: Vec2,
    /// Openings in the south, east, north and west wall. Seen from outside, x runs to the right along each
    /// wall.
    openings: [Vec<Opening>; 4],
}

impl Room {
    fn has_window(&self) -> bool {
        self.openings.iter().flatten().any(|opening| opening.kind == OpeningKind::Window)
    }

    /// Returns the start and the length of a wall.
    fn wall(&self, wall: usize) -> (Vec2, f32) {
        let (min, max) = (self.min, self.max);
        match wall {
            0 => (min, max.x - min.x),
            1 => (vec2(max.x, min.y), max.y - min.y),
            2 => (max, max.x - min.x),
            _ => (vec2(min.x, max.y), max.y - min.y),
        }
    }

    /// Transforms the axes of furniture to the room: to the place `along` metres along a wall and `off`
    /// metres away from it.
    fn at_wall(&self, wall: usize, along: f32, off: f32) -> Affine3A {
        let yaw = wall as f32 * std::f32::consts::FRAC_PI_2;
        let (x, y) = ([1.0, 0.0, -1.0, 0.0][wall], [0.0, 1.0, 0.0, -1.0][wall]);
        let at = self.wall(wall).0 + vec2(x, y) * along + vec2(-y, x) * off;
        placed(at.extend(0.0), yaw)
    }

    pub(super) fn center(&self) -> Vec2 {
        (self.min + self.max) * 0.5
    }

    pub(super) fn size(&self) -> Vec2 {
        self.max - self.min
    }
}

/// A piece of furniture or other object in its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub bounds: Bounds,
    /// Number of its group. Objects of one group may touch, as chairs and their table.
    pub group: u32,
}

/// A window as a light source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pane {
    /// A corner, and the two edges from it; `u x v` points into the room.
    pub corner: Vec3,
    pub u: Vec3,
    pub v: Vec3,
}

/// A furnished home.
#[derive(Debug)]
pub(super) struct Home {
    pub rooms: Vec<Room>,
    /// Passages between rooms, as rectangles through the walls.
    pub passages: Vec<[Vec2; 2]>,
    pub mesh: Mesh,
    pub materials: Vec<Material>,
    /// Pictures that the materials number.
    pub pictures: Vec<Arc<Picture>>,
    pub items: Vec<Item>,
    pub panes: Vec<Pane>,
    pub height: f32,
    /// Brightness of the day outside, 0 to 1.
    pub daylight: f32,
    /// Material of lamp shades.
    pub shade: u16,
    pub lamps_on: bool,
}

/// A home under construction.
struct Site<'a> {
    studio: Studio<'a>,
    home: Home,
    /// Areas where nothing may stand, in front of doors.
    kept_free: Vec<[Vec2; 2]>,
    next_instance: u16,
    next_group: u32,
    pane: u16,
}

/// Builds and furnishes a home of `style` whose first room is a `kind`, with models of `stock` if there is one.
pub(super) fn build(style: &Style, kind: RoomKind, stock: Option<Stock<'_>>, mut draw: Draw) -> Home {
    let homes = style.homes.traits();
    let daylight = if draw.chance(homes.daylight) { draw.range(0.35, 1.0) } else { 0.0 };
    let lamps_on = daylight < 0.5 || draw.chance(homes.lamps);
    let [low, high] = homes.heights;
    let height = draw.range(low, high);
    let rooms = plan(kind, homes, &mut draw);
    // A room with neither window nor lamp would be black.
    let lamps_on = lamps_on || !rooms.iter().all(Room::has_window);
    let mut studio = Studio::new(style, draw).with_stock(stock);
    let palette = studio.palette();
    if stock.is_some() {
        make::lived_in(&mut studio);
    }
    let outside = Material { glow: 1.0, clear: true, loss: 0.8, gloss: 0.15, ..Material::plain(Vec3::splat(0.5)) };
    let seed = studio.draw.seed() as u32;
    let pane = studio.material(Material { pattern: Pattern::Outside, seed, ..outside });
    if !lamps_on {
        studio.materials[usize::from(palette.shade)].glow = 0.0;
    }
    let home = Home {
        rooms: Vec::new(),
        passages: Vec::new(),
        mesh: Mesh::default(),
        materials: Vec::new(),
        pictures: Vec::new(),
        items: Vec::new(),
        panes: Vec::new(),
        height,
        daylight,
        shade: palette.shade,
        lamps_on,
    };
    let mut site = Site { studio, home, kept_free: Vec::new(), next_instance: 1, next_group: 1, pane };
    for (i, room) in rooms.iter().enumerate() {
        site.shell(room, i);
    }
    for room in &rooms {
        site.furnish(room);
    }
    site.home.rooms = rooms;
    site.home.materials = site.studio.materials;
    site.home.pictures = site.studio.pictures;
    site.home
}

/// Plans one to three rooms in a row, with their openings.
fn plan(kind: RoomKind, homes: &Traits, draw: &mut Draw) -> Vec<Room> {
    let count = match draw.range(0.0, 1.0) {
        x if x < homes.room_shares[0] => 1,
        x if x < homes.room_shares[1] => 2,
        _ => 3,
    };
    let size = |kind: RoomKind, draw: &mut Draw| {
        let [x, y] = kind.sizes();
        let size = vec2(draw.range(x[0], x[1]), draw.range(y[0], y[1])) * homes.size;
        if draw.chance(0.5) { size } else { size.yx() }
    };
    let first = size(kind, draw);
    let mut rooms = vec![Room { kind, min: Vec2::ZERO, max: first, openings: Default::default() }];
    for next in 1..count {
        let mut kind = draw.pick(&RoomKind::ALL);
        while rooms.iter().any(|room| room.kind == kind) {
            kind = draw.pick(&RoomKind::ALL);
        }
        let size = size(kind, draw);
        // The second room lies to the east of the first, the third to the west.
        let shift = draw.range(-0.35, 0.35) * size.y.min(first.y) + 0.5 * (first.y - size.y);
        let x = if next == 1 { first.x + WALL_THICKNESS } else { -WALL_THICKNESS - size.x };
        let min = vec2(x, shift);
        let mut room = Room { kind, min, max: min + size, openings: Default::default() };
        let (low, high) = (room.min.y.max(0.0) + 0.15, room.max.y.min(first.y) - 0.15);
        let width = if draw.chance(0.2) { draw.range(1.2, 1.6) } else { draw.range(0.85, 1.0) }.min(high - low);
        let from = draw.range(low, (high - width).max(low + 1e-3));
        let open = OpeningKind::Passage(width < 1.1 && draw.chance(0.5));
        let height = draw.range(2.0, 2.1);
        let opening = |from: f32, to: f32, kind| Opening { kind, from, to, low: 0.0, high: height };
        let bare = OpeningKind::Passage(false);
        // The eastern wall runs along y, the western one against it.
        if next == 1 {
            rooms[0].openings[1].push(opening(from, from + width, open));
            room.openings[3].push(opening(room.max.y - from - width, room.max.y - from, bare));
        } else {
            rooms[0].openings[3].push(opening(first.y - from - width, first.y - from, open));
            room.openings[1].push(opening(from - room.min.y, from + width - room.min.y, bare));
        }
        rooms.push(room);
    }
    for (i, room) in rooms.iter_mut().enumerate() {
        let outer: Vec<usize> = (0..4).filter(|wall| room.openings[*wall].is_empty()).collect();
        let order = draw.order(outer.len());
        let mut walls = order.into_iter().map(|place| outer[place]).collect::<Vec<_>>();
        // A door to the outside of the home.
        if (i == 0 || draw.chance(0.3))
            && let Some(wall) = walls.pop()
        {
            let (_, length) = room.wall(wall);
            let width = draw.range(0.8, 0.95);
            let from = if draw.chance(0.5) { draw.range(0.12, 0.4) } else { length - width - draw.range(0.12, 0.4) };
            let high = draw.range(2.0, 2.1);
            room.openings[wall].push(Opening { kind: OpeningKind::Door, from, to: from + width, low: 0.0, high });
        }
        let (windows, low, high, width) = match room.kind {
            RoomKind::Bathroom => {
                (usize::from(draw.chance(0.6)), draw.range(1.35, 1.5), draw.range(1.95, 2.1), draw.range(0.5, 0.8))
            }
            RoomKind::Kitchen => (1, draw.range(1.08, 1.15), draw.range(2.0, 2.2), draw.range(0.9, 1.3)),
            _ => {
                let low = if draw.chance(0.15) { 0.12 } else { draw.range(0.75, 0.98) };
                (draw.count(1, 2), low, draw.range(2.05, 2.25), draw.range(0.9, 1.9))
            }
        };
        for _ in 0..windows {
            let Some(wall) = walls.pop() else { break };
            let (_, length) = room.wall(wall);
            let width = width.min(length - 0.8);
            let middle = 0.5 * length + draw.range(-0.5, 0.5) * (length - width - 0.8).max(0.0);
            let (from, to) = (middle - 0.5 * width, middle + 0.5 * width);
            room.openings[wall].push(Opening { kind: OpeningKind::Window, from, to, low, high });
        }
    }
    rooms
}

impl Site<'_> {
    /// Builds floor, ceiling, walls, doors and windows.
    fn shell(&mut self, room: &Room, index: usize) {
        let palette = self.studio.palette();
        let height = self.home.height;
        let wet = matches!(room.kind, RoomKind::Bathroom | RoomKind::Kitchen);
        let floor = if wet { self.studio.draw.pick(&palette.wet_floors) } else { palette.dry_floors[index % 3] };
        let paint = palette.walls[self.studio.draw.count(0, 3)];
        let accent = (self.studio.draw.chance(0.25))
            .then(|| (self.studio.draw.count(0, 3), palette.walls[self.studio.draw.count(0, 3)]));
        let size = room.size();
        let mut b = Builder::new(FLOOR);
        b.paint(floor);
        b.quad_at(room.min.extend(0.0), vec3(size.x, 0.0, 0.0), vec3(0.0, size.y, 0.0), room.min);
        self.append(&b.mesh, &Affine3A::IDENTITY);
        let mut b = Builder::new(CEILING);
        b.paint(palette.ceiling);
        b.quad_at(room.min.extend(height), vec3(0.0, size.y, 0.0), vec3(size.x, 0.0, 0.0), Vec2::ZERO);
        b.class(CORE);
        let beyond = Vec2::splat(0.5 * WALL_THICKNESS);
        let (core, whole) = ((room.min - beyond).extend(height + beyond.x), size + 2.0 * beyond);
        b.quad_at(core, vec3(0.0, whole.y, 0.0), vec3(whole.x, 0.0, 0.0), Vec2::ZERO);
        self.append(&b.mesh, &Affine3A::IDENTITY);
        for wall in 0..4 {
            let (_, length) = room.wall(wall);
            let openings = &room.openings[wall];
            let mut b = Builder::new(WALL);
            let tiled =
                if room.kind == RoomKind::Bathroom { height * if accent.is_some() { 1.0 } else { 0.75 } } else { 0.0 };
            let upper = match accent {
                Some((wall_of, accent)) if wall_of == wall => accent,
                _ => paint,
            };
            let mut along = vec![0.0, length];
            let mut up = vec![0.0, height];
            if tiled > 0.0 {
                up.push(tiled);
            }
            for opening in openings {
                along.extend([opening.from, opening.to]);
                up.extend([opening.low, opening.high]);
            }
            for cuts in [&mut along, &mut up] {
                cuts.sort_unstable_by(f32::total_cmp);
                cuts.dedup_by(|a, b| *a - *b < 1e-4);
            }
            for x in along.windows(2) {
                let inside =
                    |opening: &&Opening| opening.from < 0.5 * (x[0] + x[1]) && 0.5 * (x[0] + x[1]) < opening.to;
                let opening = openings.iter().find(inside);
                for z in up.windows(2) {
                    let middle = 0.5 * (z[0] + z[1]);
                    if opening.is_some_and(|opening| opening.low < middle && middle < opening.high) {
                        continue;
                    }
                    // The core of the wall is never seen. It keeps the sun off everything near the surface.
                    // Cores meet in the corners.
                    let half = 0.5 * WALL_THICKNESS;
                    let core =
                        [x[0] - if x[0] == 0.0 { half } else { 0.0 }, x[1] + if x[1] == length { half } else { 0.0 }];
                    b.class(CORE);
                    b.quad_at(
                        vec3(core[1], -half, z[0]),
                        vec3(core[0] - core[1], 0.0, 0.0),
                        vec3(0.0, 0.0, z[1] - z[0]),
                        Vec2::ZERO,
                    );
                    b.class(WALL);
                    b.paint(if middle < tiled { palette.wall_tiles } else { upper });
                    // Seen from the room, the wall runs to the left.
                    b.quad_at(
                        vec3(x[1], 0.0, z[0]),
                        vec3(x[0] - x[1], 0.0, 0.0),
                        vec3(0.0, 0.0, z[1] - z[0]),
                        vec2(length - x[1], z[0]),
                    );
                }
                if tiled == 0.0 && opening.is_none_or(|opening| opening.low > 0.1) {
                    b.paint(palette.skirting);
                    b.cuboid(vec3(x[0], 0.0, 0.0), vec3(x[1], 0.013, 0.075));
                }
            }
            for opening in openings {
                if opening.kind == OpeningKind::Window {
                    reveal(&mut b, opening, upper);
                }
            }
            self.append(&b.mesh, &room.at_wall(wall, 0.0, 0.0));
            for opening in openings {
                self.fill_opening(room, wall, opening, floor);
            }
        }
    }

    fn fill_opening(&mut self, room: &Room, wall: usize, opening: &Opening, floor: u16) {
        let middle = 0.5 * (opening.from + opening.to);
        let width = opening.to - opening.from;
        let frame = room.at_wall(wall, middle, 0.0);
        match opening.kind {
            OpeningKind::Window => {
                let piece = make::window(&mut self.studio, opening, WALL_THICKNESS, self.pane);
                self.append(&piece.mesh, &frame);
                let corner = frame.transform_point3(vec3(0.5 * width, -WALL_THICKNESS + 0.055, opening.low));
                let u = frame.transform_vector3(vec3(-width, 0.0, 0.0));
                self.home.panes.push(Pane { corner, u, v: vec3(0.0, 0.0, opening.high - opening.low) });
            }
            OpeningKind::Door => {
                let angle = if self.studio.draw.chance(0.8) { 0.0 } else { self.studio.draw.range(0.05, 0.35) };
                let piece = make::door(&mut self.studio, width, opening.high, WALL_THICKNESS, Some(angle));
                self.append(&piece.mesh, &frame);
                self.keep_free(&frame, 0.5 * width, DOOR_CLEARANCE);
            }
            OpeningKind::Passage(with_door) => {
                self.keep_free(&frame, 0.5 * width, DOOR_CLEARANCE);
                // The room on the other side has the same opening. Its frame and floor are made only once.
                let first = room.min == Vec2::ZERO;
                if !first {
                    return;
                }
                let angle = with_door.then(|| self.studio.draw.range(1.2, 1.75));
                let piece = make::door(&mut self.studio, width, opening.high, WALL_THICKNESS, angle);
                self.append(&piece.mesh, &frame);
                if with_door {
                    // The leaf is the part that stands in the room.
                    let leaf = piece.mesh.positions.iter().filter(|p| p.y > 0.06).map(|&p| frame.transform_point3(p));
                    let group = self.group();
                    self.home.items.push(Item { bounds: Bounds::of(leaf), group });
                    let swing = frame.transform_point3(vec3(-0.5 * width - 0.3, 0.0, 0.0)).truncate();
                    let end = frame.transform_point3(vec3(0.5 * width + 0.3, width + 0.1, 0.0)).truncate();
                    self.kept_free.push([swing.min(end), swing.max(end)]);
                }
                let mut b = Builder::new(FLOOR);
                b.paint(floor);
                b.quad_at(
                    vec3(-0.5 * width, -WALL_THICKNESS, 0.0),
                    vec3(width, 0.0, 0.0),
                    vec3(0.0, WALL_THICKNESS, 0.0),
                    Vec2::ZERO,
                );
                self.append(&b.mesh, &frame);
                let corners = [vec3(-0.5 * width, -WALL_THICKNESS, 0.0), vec3(0.5 * width, 0.0, 0.0)]
                    .map(|p| frame.transform_point3(p).truncate());
                self.home.passages.push([corners[0].min(corners[1]), corners[0].max(corners[1])]);
            }
        }
    }

    fn keep_free(&mut self, frame: &Affine3A, half: f32, reach: f32) {
        let [a, b] = [vec3(-half, 0.0, 0.0), vec3(half, reach, 0.0)].map(|p| frame.transform_point3(p).truncate());
        self.kept_free.push([a.min(b), a.max(b)]);
    }

    fn append(&mut self, mesh: &Mesh, frame: &Affine3A) {
        self.home.mesh.append(mesh, frame, self.next_instance);
        self.next_instance = self.next_instance.saturating_add(1);
    }

    fn group(&mut self) -> u32 {
        self.next_group += 1;
        self.next_group
    }

    /// True if nothing stands in the way of an object with these bounds.
    fn is_free(&self, room: &Room, bounds: &Bounds, group: u32) -> bool {
        let slack = 0.004;
        let inside = bounds.min.x >= room.min.x - slack
            && bounds.min.y >= room.min.y - slack
            && bounds.max.x <= room.max.x + slack
            && bounds.max.y <= room.max.y + slack
            && bounds.max.z <= self.home.height;
        let before_door = |rect: &[Vec2; 2]| {
            bounds.min.x < rect[1].x && bounds.max.x > rect[0].x && bounds.min.y < rect[1].y && bounds.max.y > rect[0].y
        };
        // Flat things may be walked on, and things that hang high do not matter.
        let stands = bounds.max.z > 0.05 && bounds.min.z < 2.1;
        inside
            && !(stands && self.kept_free.iter().any(before_door))
            && !self.home.items.iter().any(|item| item.group != group && overlap(&item.bounds, bounds))
    }

    /// Places a piece and small things on it, if the place is free.
    fn put(&mut self, room: &Room, piece: &Piece, frame: &Affine3A, group: u32, density: f32) -> bool {
        let bounds = Bounds::of(piece.mesh.positions.iter().map(|&p| frame.transform_point3(p)));
        if !self.is_free(room, &bounds, group) {
            return false;
        }
        self.home.items.push(Item { bounds, group });
        self.append(&piece.mesh, frame);
        for small in make::place_clutter(&mut self.studio, piece, density) {
            self.append(&small.mesh, frame);
        }
        true
    }

    /// Places a piece at a wall, anywhere it fits. Returns the wall and the place along it.
    fn at_walls(&mut self, room: &Room, piece: &Piece, walls: &[usize], density: f32) -> Option<(usize, f32)> {
        let bounds = piece.mesh.bounds();
        for _ in 0..30 {
            let wall = self.studio.draw.pick(walls);
            let (_, length) = room.wall(wall);
            let (low, high) = (0.03 - bounds.min.x, length - 0.03 - bounds.max.x);
            if high < low {
                continue;
            }
            // Corners are preferred.
            let along = match self.studio.draw.count(0, 3) {
                0 => low,
                1 => high,
                _ => self.studio.draw.range(low, high),
            };
            if self.put_at_wall(room, piece, wall, along, density) {
                return Some((wall, along));
            }
        }
        None
    }

    fn put_at_wall(&mut self, room: &Room, piece: &Piece, wall: usize, along: f32, density: f32) -> bool {
        let bounds = piece.mesh.bounds();
        let (from, to) = (along + bounds.min.x - 0.03, along + bounds.max.x + 0.03);
        let blocked = room.openings[wall].iter().any(|opening| {
            let crosses = from < opening.to && to > opening.from;
            crosses && bounds.max.z > opening.low - 0.02 && bounds.min.z < opening.high + 0.08
        });
        if blocked {
            return false;
        }
        // Leaves space for the skirting board.
        let off = if bounds.min.z < 0.08 { 0.016 - bounds.min.y.min(0.0) } else { 0.001 - bounds.min.y.min(0.0) };
        let group = self.group();
        self.put(room, piece, &room.at_wall(wall, along, off), group, density)
    }

    /// Places chairs around a table with the given frame and bounds, on the sides in `sides` (0: +y, 1: -y,
    /// 2: +x, 3: -x).
    fn chairs(&mut self, room: &Room, frame: &Affine3A, table: &Bounds, sides: &[usize], group: u32) {
        let alike = make::set_chair(&mut self.studio);
        for &side in sides {
            let size = table.size();
            let length = if side < 2 { size.x } else { size.y };
            let count = ((length - 0.1) / 0.62).floor().clamp(1.0, 3.0) as usize;
            for i in 0..count {
                if self.studio.draw.chance(0.1) {
                    continue;
                }
                let piece = alike.clone().unwrap_or_else(|| make::made_chair(&mut self.studio));
                let reach = piece.mesh.bounds().max.y;
                let along = (i as f32 + 0.5) / count as f32;
                let out = reach - self.studio.draw.range(-0.12, 0.16);
                let turn = self.studio.draw.range(-0.18, 0.18);
                // A chair faces along its y axis, towards the table.
                let (at, yaw) = match side {
                    0 => (vec2(table.min.x + along * size.x, table.max.y + out), std::f32::consts::PI),
                    1 => (vec2(table.min.x + along * size.x, table.min.y - out), 0.0),
                    2 => (vec2(table.max.x + out, table.min.y + along * size.y), std::f32::consts::FRAC_PI_2),
                    _ => (vec2(table.min.x - out, table.min.y + along * size.y), -std::f32::consts::FRAC_PI_2),
                };
                let frame = *frame * placed(at.extend(0.0), yaw + turn);
                let bounds = Bounds::of(piece.mesh.positions.iter().map(|&p| frame.transform_point3(p)));
                // Chairs must not overlap each other, although they are in one group.
                let chairs = self.home.items.iter().filter(|item| item.group == group).skip(1);
                if chairs.clone().all(|item| !overlap(&item.bounds, &bounds)) {
                    self.put(room, &piece, &frame, group, 0.0);
                }
            }
        }
    }

    fn furnish(&mut self, room: &Room) {
        // Floor-length curtains need their place before furniture takes it.
        let dressed_first = self.studio.draw.chance(0.6);
        if dressed_first {
            self.windows_dressed(room);
        }
        match room.kind {
            RoomKind::Living => self.living(room),
            RoomKind::Bedroom => self.bedroom(room),
            RoomKind::Kitchen => self.kitchen(room),
            RoomKind::Bathroom => self.bathroom(room),
            RoomKind::Office => self.office(room),
            RoomKind::Dining => self.dining(room),
        }
        if !dressed_first {
            self.windows_dressed(room);
        }
        if room.kind != RoomKind::Bathroom {
            self.pictures(room);
        }
        self.small_furniture(room);
        let lamp = make::ceiling_lamp(&mut self.studio);
        let jitter = vec2(self.studio.draw.range(-0.2, 0.2), self.studio.draw.range(-0.2, 0.2));
        self.append(&lamp.mesh, &placed((room.center() + jitter).extend(self.home.height), 0.0));
    }

    fn longest_wall(room: &Room) -> f32 {
        room.size().max_element() - 0.2
    }

    const WALLS: [usize; 4] = [0, 1, 2, 3];

    /// Places a table with chairs in the middle of the room or near it.
    fn dining_set(&mut self, room: &Room, max: [f32; 2], anywhere: bool) -> bool {
        let table = make::dining_table(&mut self.studio, max);
        let bounds = table.mesh.bounds();
        let middle = bounds.center().truncate();
        for _ in 0..10 {
            let spread = if anywhere { 0.5 } else { 0.12 };
            let size = room.size();
            let at = room.center()
                + vec2(
                    self.studio.draw.range(-spread, spread) * (size.x - 1.8).max(0.0),
                    self.studio.draw.range(-spread, spread) * (size.y - 1.8).max(0.0),
                );
            let turned = if anywhere { self.studio.draw.chance(0.5) } else { size.y > size.x };
            let yaw = if turned { std::f32::consts::FRAC_PI_2 } else { 0.0 } + self.studio.draw.range(-0.05, 0.05);
            let frame = placed(at.extend(0.0), yaw) * Affine3A::from_translation(-middle.extend(0.0));
            let group = self.group();
            if self.put(room, &table, &frame, group, 6.0) {
                self.chairs(room, &frame, &bounds, &[0, 1, 2, 3], group);
                return true;
            }
        }
        false
    }

    fn living(&mut self, room: &Room) {
        let sofa = make::sofa(&mut self.studio, Self::longest_wall(room) - 0.4);
        if let Some((wall, along)) = self.at_walls(room, &sofa, &Self::WALLS, 0.0) {
            let reach = sofa.mesh.bounds().max.y;
            let gap = self.studio.draw.range(0.32, 0.5);
            let table = make::coffee_table(&mut self.studio);
            let group = self.group();
            let frame = room.at_wall(wall, along, reach.min(1.05) + gap);
            self.put(room, &table, &frame, group, 7.0);
            if self.studio.draw.chance(0.6) {
                let rug_size = [self.studio.draw.range(1.6, 2.3), self.studio.draw.range(1.1, 1.6)];
                let rug = make::rug(&mut self.studio, rug_size);
                self.lay(room, &rug, &room.at_wall(wall, along, reach + gap + 0.25));
            }
            // The screen stands opposite, at the same place along the room.
            let opposite = (wall + 2) % 4;
            let (_, length) = room.wall(opposite);
            let stand = make::tv_stand(&mut self.studio, length - 0.4);
            let half = 0.5 * stand.mesh.bounds().size().x + 0.05;
            let at = (length - along).clamp(half, (length - half).max(half));
            let mut standing = self.put_at_wall(room, &stand, opposite, at, 0.0).then_some((opposite, at));
            if standing.is_none() {
                standing = self.at_walls(room, &stand, &Self::WALLS, 0.0);
            }
            if let Some((wall, at)) = standing {
                let bounds = stand.mesh.bounds();
                let television = make::television(&mut self.studio, bounds.size().x - 0.1);
                let frame = room.at_wall(wall, at, 0.2) * Affine3A::from_translation(vec3(0.0, 0.0, bounds.max.z));
                let group = self.group();
                self.put(room, &television, &frame, group, 0.0);
            }
            for side in [-1.0_f32, 1.0] {
                let end = along + side * (0.5 * sofa.mesh.bounds().size().x + 0.33);
                match self.studio.draw.count(0, 3) {
                    0 => {
                        let lamp = make::floor_lamp(&mut self.studio);
                        self.put_at_wall(room, &lamp, wall, end, 0.0);
                    }
                    1 => {
                        let table = make::side_table(&mut self.studio);
                        self.put_at_wall(room, &table, wall, end, 6.0);
                    }
                    2 => {
                        // An armchair that faces the table from the side.
                        let chair = make::armchair(&mut self.studio);
                        let yaw = side * self.studio.draw.range(1.1, 1.7);
                        let frame =
                            room.at_wall(wall, along + side * 1.65, reach + gap + 0.3) * placed(Vec3::ZERO, yaw);
                        let group = self.group();
                        self.put(room, &chair, &frame, group, 0.0);
                    }
                    _ => {}
                }
            }
        }
        for _ in 0..self.studio.draw.count(1, 2) {
            let shelf = make::bookshelf(&mut self.studio, 1.3);
            self.at_walls(room, &shelf, &Self::WALLS, 0.0);
        }
        if self.studio.draw.chance(0.7) {
            let cabinet = make::low_cabinet(&mut self.studio, 1.8);
            self.at_walls(room, &cabinet, &Self::WALLS, 4.0);
        }
        if self.studio.draw.chance(0.6) {
            let chair = make::armchair(&mut self.studio);
            self.at_walls(room, &chair, &Self::WALLS, 0.0);
        }
        if self.studio.draw.chance(0.5) {
            let ottoman = make::ottoman(&mut self.studio);
            self.anywhere(room, &ottoman, 0.0);
        }
        if room.size().x * room.size().y > 17.0 {
            self.dining_set(room, [1.4, 0.85], true);
        }
    }

    fn bedroom(&mut self, room: &Room) {
        let double = room.size().x * room.size().y > 10.5 && self.studio.draw.chance(0.7);
        let bed = make::bed(&mut self.studio, double);
        if let Some((wall, along)) = self.at_walls(room, &bed, &Self::WALLS, 0.0) {
            let half = 0.5 * bed.mesh.bounds().size().x;
            for side in [-1.0_f32, 1.0] {
                let stand = make::night_stand(&mut self.studio);
                let at = along + side * (half + 0.5 * stand.mesh.bounds().size().x + 0.06);
                self.put_at_wall(room, &stand, wall, at, 6.0);
            }
            if self.studio.draw.chance(0.5) {
                let rug_size = [self.studio.draw.range(1.6, 2.4), self.studio.draw.range(1.0, 1.5)];
                let rug = make::rug(&mut self.studio, rug_size);
                self.lay(room, &rug, &room.at_wall(wall, along, 1.9));
            }
        }
        let wardrobe = make::wardrobe(&mut self.studio, Self::longest_wall(room));
        self.at_walls(room, &wardrobe, &Self::WALLS, 0.0);
        if self.studio.draw.chance(0.7) {
            let chest = make::cabinet(&mut self.studio, 1.1);
            self.at_walls(room, &chest, &Self::WALLS, 5.0);
        }
        if self.studio.draw.chance(0.5) {
            self.desk_with_chair(room, false);
        }
        if self.studio.draw.chance(0.4) {
            let shelf = make::bookshelf(&mut self.studio, 0.9);
            self.at_walls(room, &shelf, &Self::WALLS, 0.0);
        }
        if self.studio.draw.chance(0.4) {
            let chair = if self.studio.draw.chance(0.5) {
                make::armchair(&mut self.studio)
            } else {
                make::chair(&mut self.studio)
            };
            self.at_walls(room, &chair, &Self::WALLS, 0.0);
        }
        if self.studio.draw.chance(0.35) {
            let stand = make::clothes_stand(&mut self.studio);
            self.at_walls(room, &stand, &Self::WALLS, 0.0);
        }
    }

    fn desk_with_chair(&mut self, room: &Room, office: bool) -> bool {
        let desk = make::desk(&mut self.studio, Self::longest_wall(room));
        let Some((wall, along)) = self.at_walls(room, &desk, &Self::WALLS, 9.0) else { return false };
        let chair = if office || self.studio.draw.chance(0.6) {
            make::office_chair(&mut self.studio)
        } else {
            make::chair(&mut self.studio)
        };
        let bounds = desk.mesh.bounds();
        let back = chair.mesh.bounds();
        let turn = self.studio.draw.range(-0.5, 0.5);
        let out = bounds.max.y + back.max.y + self.studio.draw.range(-0.12, 0.15);
        let frame = room.at_wall(wall, along + self.studio.draw.range(-0.1, 0.1), out)
            * placed(Vec3::ZERO, std::f32::consts::PI + turn);
        let group = self.home.items.last().map_or(0, |item| item.group);
        self.put(room, &chair, &frame, group, 0.0);
        true
    }

    fn office(&mut self, room: &Room) {
        let desks = if room.size().x * room.size().y > 11.0 { 2 } else { 1 };
        for _ in 0..self.studio.draw.count(1, desks) {
            self.desk_with_chair(room, true);
        }
        for _ in 0..self.studio.draw.count(1, 3) {
            let shelf = make::bookshelf(&mut self.studio, 1.3);
            self.at_walls(room, &shelf, &Self::WALLS, 0.0);
        }
        let cabinet = if self.studio.draw.chance(0.5) {
            make::cabinet(&mut self.studio, 1.0)
        } else {
            make::low_cabinet(&mut self.studio, 1.6)
        };
        self.at_walls(room, &cabinet, &Self::WALLS, 4.0);
        if self.studio.draw.chance(0.55) {
            let board = make::whiteboard(&mut self.studio);
            self.at_walls(room, &board, &Self::WALLS, 0.0);
        }
        if room.size().x * room.size().y > 10.0 && self.studio.draw.chance(0.6) {
            self.dining_set(room, [1.3, 0.8], true);
        }
        if self.studio.draw.chance(0.4) {
            let chair = make::armchair(&mut self.studio);
            self.at_walls(room, &chair, &Self::WALLS, 0.0);
        }
    }

    fn dining(&mut self, room: &Room) {
        if self.studio.draw.chance(0.5) {
            let size = room.size() * self.studio.draw.range(0.5, 0.65);
            let rug = make::rug(&mut self.studio, size.to_array());
            self.lay(room, &rug, &placed(room.center().extend(0.0), 0.0));
        }
        let longest = (room.size().max_element() - 1.6).max(1.0);
        self.dining_set(room, [longest, 1.0], false);
        for _ in 0..self.studio.draw.count(1, 2) {
            let cabinet = if self.studio.draw.chance(0.6) {
                make::low_cabinet(&mut self.studio, 1.8)
            } else {
                make::cabinet(&mut self.studio, 1.1)
            };
            self.at_walls(room, &cabinet, &Self::WALLS, 5.0);
        }
        if self.studio.draw.chance(0.6) {
            let shelf = make::bookshelf(&mut self.studio, 1.2);
            self.at_walls(room, &shelf, &Self::WALLS, 0.0);
        }
        if self.studio.draw.chance(0.4) {
            let chair = make::armchair(&mut self.studio);
            self.at_walls(room, &chair, &Self::WALLS, 0.0);
        }
    }

    fn kitchen(&mut self, room: &Room) {
        // Finds the longest stretch of wall without a door.
        let mut stretches: Vec<(f32, usize, f32)> = Vec::new();
        for wall in 0..4 {
            let (_, length) = room.wall(wall);
            let mut cuts = vec![0.0];
            for opening in room.openings[wall].iter().filter(|opening| opening.kind != OpeningKind::Window) {
                cuts.extend([opening.from - 0.1, opening.to + 0.1]);
            }
            cuts.push(length);
            stretches.extend(cuts.chunks_exact(2).map(|cut| (cut[1] - cut[0], wall, cut[0])));
        }
        stretches.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let refrigerator = make::refrigerator(&mut self.studio);
        let cold = refrigerator.mesh.bounds().size().x + 0.03;
        // The place is at the end of the run, or anywhere.
        let mut built = false;
        for &(length, wall, from) in &stretches {
            for shrink in 0..6 {
                let length = length - 0.04 - 0.3 * shrink as f32;
                if built || length < 1.3 {
                    break;
                }
                for shift in [0.0, 0.3 * shrink as f32] {
                    built = built
                        || self.kitchen_at(
                            room,
                            wall,
                            [from + 0.02 + shift, from + 0.02 + shift + length],
                            &refrigerator,
                            cold,
                        );
                }
            }
        }
        let area = room.size().x * room.size().y;
        if area > 12.5 && self.studio.draw.chance(0.35) {
            let island = make::island(&mut self.studio);
            self.anywhere(room, &island, 5.0);
        } else {
            let size = [1.2_f32.min(room.size().x - 1.6), 0.75];
            self.dining_set(room, size, true);
        }
        if self.studio.draw.chance(0.4) {
            let cabinet = make::cabinet(&mut self.studio, 0.9);
            self.at_walls(room, &cabinet, &Self::WALLS, 5.0);
        }
    }

    /// Builds a run of cabinets along a stretch of a wall. The refrigerator stands at one end if it fits.
    fn kitchen_at(&mut self, room: &Room, wall: usize, [from, to]: [f32; 2], cold: &Piece, cold_width: f32) -> bool {
        let last = self.studio.draw.chance(0.5);
        let with_cold = to - from > cold_width + 1.7;
        let (start, end) = match (with_cold, last) {
            (false, _) => (from, to),
            (true, true) => (from, to - cold_width),
            (true, false) => (from + cold_width, to),
        };
        let width = (end - start).min(3.6);
        let middle = if last { end - 0.5 * width } else { start + 0.5 * width };
        let windows = room.openings[wall].iter().filter(|opening| opening.kind == OpeningKind::Window);
        let window = windows.clone().find(|opening| opening.from < end && opening.to > start);
        let window = window.map(|window| [window.from - middle, window.to - middle, window.low]);
        let run = make::kitchen_run(&mut self.studio, width, window);
        let group = self.group();
        if !self.put(room, &run, &room.at_wall(wall, middle, 0.016), group, 7.0) {
            return false;
        }
        let place = if last { to - 0.5 * cold_width } else { from + 0.5 * cold_width };
        if !(with_cold && self.put_at_wall(room, cold, wall, place, 0.0)) {
            self.at_walls(room, cold, &Self::WALLS, 0.0);
        }
        true
    }

    fn bathroom(&mut self, room: &Room) {
        // The tub fills a short wall, if possible.
        let mut places: Vec<(usize, f32, bool)> = Vec::new();
        let order = self.studio.draw.order(4);
        for longest in [2.0, 1.6, 1.4] {
            for &wall in &order {
                let (_, length) = room.wall(wall);
                let long = if length < 2.3 { length - 0.06 } else { self.studio.draw.range(1.55, 1.75) }.min(longest);
                let first = self.studio.draw.chance(0.5);
                places.extend([(wall, long, first), (wall, long, !first)]);
            }
        }
        for (wall, long, at_start) in places {
            let (_, length) = room.wall(wall);
            let along = if at_start { 0.5 * long + 0.03 } else { length - 0.5 * long - 0.03 };
            let blocked = |opening: &Opening| {
                opening.low < 0.8 && opening.from < along + 0.5 * long && opening.to > along - 0.5 * long
            };
            if room.openings[wall].iter().any(blocked) {
                continue;
            }
            let tub = make::bathtub(&mut self.studio, long);
            let group = self.group();
            if !self.put(room, &tub, &room.at_wall(wall, along, 0.004), group, 0.0) {
                continue;
            }
            let depth = tub.mesh.bounds().max.y;
            if self.studio.draw.chance(0.85) {
                let curtain = make::shower_curtain(&mut self.studio, long, depth + 0.035);
                self.put(room, &curtain, &room.at_wall(wall, along, 0.004), group, 0.0);
            }
            if self.studio.draw.chance(0.7) {
                let mat = make::bath_mat(&mut self.studio);
                self.lay(room, &mat, &room.at_wall(wall, along, depth + 0.15));
            }
            break;
        }
        let toilet = make::toilet(&mut self.studio);
        self.at_walls(room, &toilet, &Self::WALLS, 0.0);
        let basin = make::basin(&mut self.studio, 1.2);
        if self.at_walls(room, &basin, &Self::WALLS, 9.0).is_none() {
            let basin = make::basin(&mut self.studio, 0.6);
            self.at_walls(room, &basin, &Self::WALLS, 9.0);
        }
        if self.studio.draw.chance(0.5) {
            let washer = make::washing_machine(&mut self.studio);
            self.at_walls(room, &washer, &Self::WALLS, 5.0);
        }
        for _ in 0..self.studio.draw.count(1, 2) {
            let rail = make::towel_rail(&mut self.studio);
            self.at_walls(room, &rail, &Self::WALLS, 0.0);
        }
        if self.studio.draw.chance(0.35) {
            let cabinet = make::cabinet(&mut self.studio, 0.7);
            self.at_walls(room, &cabinet, &Self::WALLS, 5.0);
        }
    }

    /// Places a piece anywhere but at a wall.
    fn anywhere(&mut self, room: &Room, piece: &Piece, density: f32) -> bool {
        for _ in 0..12 {
            let (low, high) = (room.min + 0.7, room.max - 0.7);
            let at = vec2(
                self.studio.draw.range(low.x, high.x.max(low.x)),
                self.studio.draw.range(low.y, high.y.max(low.y)),
            );
            let yaw = self.studio.draw.count(0, 3) as f32 * std::f32::consts::FRAC_PI_2;
            let group = self.group();
            if self.put(room, piece, &placed(at.extend(0.0), yaw), group, density) {
                return true;
            }
        }
        false
    }

    /// Lays a flat piece on the floor, shifted so that it lies inside the room. Furniture may stand on it.
    fn lay(&mut self, room: &Room, piece: &Piece, frame: &Affine3A) {
        let bounds = Bounds::of(piece.mesh.positions.iter().map(|&p| frame.transform_point3(p)));
        let low = (room.min + 0.05 - bounds.min.truncate()).max(Vec2::ZERO);
        let high = (room.max - 0.05 - bounds.max.truncate()).min(Vec2::ZERO);
        let size = bounds.size().truncate();
        if size.cmpgt(room.size() - 0.1).any() {
            return;
        }
        let frame = Affine3A::from_translation((low + high).extend(0.0)) * *frame;
        self.append(&piece.mesh, &frame);
    }

    /// Adds curtains and radiators to the windows.
    fn windows_dressed(&mut self, room: &Room) {
        for wall in 0..4 {
            for opening in room.openings[wall].iter().filter(|opening| opening.kind == OpeningKind::Window) {
                let middle = 0.5 * (opening.from + opening.to);
                let half = 0.5 * (opening.to - opening.from);
                let likely = match room.kind {
                    RoomKind::Bathroom => 0.1,
                    RoomKind::Kitchen => 0.35,
                    _ => 0.85,
                };
                if self.studio.draw.chance(likely) {
                    self.curtains(room, wall, opening);
                }
                if !matches!(room.kind, RoomKind::Bathroom | RoomKind::Kitchen)
                    && opening.low > 0.5
                    && self.studio.draw.chance(0.55)
                {
                    let radiator = make::radiator(&mut self.studio, (1.6 * half).min(1.3));
                    if radiator.mesh.bounds().max.z < opening.low {
                        self.put_at_wall(room, &radiator, wall, middle, 0.0);
                    }
                }
            }
        }
    }

    /// Adds curtains to a window. They reach the floor if nothing is in the way, else the sill.
    fn curtains(&mut self, room: &Room, wall: usize, opening: &Opening) {
        let middle = 0.5 * (opening.from + opening.to);
        let half = 0.5 * (opening.to - opening.from);
        let (_, length) = room.wall(wall);
        let high = (opening.high + self.studio.draw.range(0.08, 0.2)).min(self.home.height - 0.06);
        let group = self.group();
        for low in [0.03, opening.low - 0.12] {
            if low < 0.1 && room.kind == RoomKind::Kitchen {
                continue;
            }
            for _ in 0..3 {
                let curtain = make::curtains(&mut self.studio, half, high, low);
                let bounds = curtain.mesh.bounds();
                let fits = middle + bounds.min.x > 0.02 && middle + bounds.max.x < length - 0.02;
                if fits && self.put(room, &curtain, &room.at_wall(wall, middle, 0.0), group, 0.0) {
                    return;
                }
            }
        }
    }

    fn pictures(&mut self, room: &Room) {
        for _ in 0..self.studio.draw.count(2, 5) {
            let size = [self.studio.draw.range(0.3, 1.0), self.studio.draw.range(0.3, 0.8)];
            let z = self.studio.draw.range(1.45, 1.65);
            let picture = make::picture(&mut self.studio, size, z);
            self.at_walls(room, &picture, &Self::WALLS, 0.0);
        }
        if self.studio.draw.chance(0.3) {
            let shelf = make::wall_shelf(&mut self.studio);
            self.at_walls(room, &shelf, &Self::WALLS, 0.0);
        }
        if room.kind == RoomKind::Bedroom && self.studio.draw.chance(0.3) {
            let screen = make::wall_television(&mut self.studio);
            self.at_walls(room, &screen, &Self::WALLS, 0.0);
        }
    }

    /// Places small furniture around the room.
    fn small_furniture(&mut self, room: &Room) {
        let wet = room.kind == RoomKind::Bathroom;
        let bin = make::bin(&mut self.studio);
        if self.studio.draw.chance(0.6) {
            self.at_walls(room, &bin, &Self::WALLS, 0.0);
        }
        if !wet && self.studio.draw.chance(0.6) {
            let plant = make::plant(&mut self.studio);
            self.at_walls(room, &plant, &Self::WALLS, 0.0);
        }
        if !wet && self.studio.draw.chance(0.35) {
            let boxes = make::boxes(&mut self.studio);
            self.at_walls(room, &boxes, &Self::WALLS, 0.0);
        }
        if !wet && self.studio.draw.chance(0.4) {
            let bag = make::bag(&mut self.studio);
            self.at_walls(room, &bag, &Self::WALLS, 0.0);
        }
        if !wet && self.studio.draw.chance(0.35) {
            let lamp = make::floor_lamp(&mut self.studio);
            self.at_walls(room, &lamp, &Self::WALLS, 0.0);
        }
        for piece in make::extras(&mut self.studio, wet) {
            self.at_walls(room, &piece, &Self::WALLS, 4.0);
        }
        if let Some(person) = make::person(&mut self.studio) {
            self.anywhere(room, &person, 0.0);
        }
    }
}

/// Builds the sides of a window's opening, from the wall outwards.
fn reveal(b: &mut Builder, opening: &Opening, paint: u16) {
    let (x0, x1, z0, z1, t) = (opening.from, opening.to, opening.low, opening.high, WALL_THICKNESS);
    b.paint(paint);
    let (width, height) = (x1 - x0, z1 - z0);
    b.quad_at(vec3(x0, -t, z0), vec3(width, 0.0, 0.0), vec3(0.0, t, 0.0), Vec2::ZERO);
    b.quad_at(vec3(x0, -t, z1), vec3(0.0, t, 0.0), vec3(width, 0.0, 0.0), Vec2::ZERO);
    b.quad_at(vec3(x0, -t, z0), vec3(0.0, t, 0.0), vec3(0.0, 0.0, height), Vec2::ZERO);
    b.quad_at(vec3(x1, -t, z0), vec3(0.0, 0.0, height), vec3(0.0, t, 0.0), Vec2::ZERO);
}

/// True if two boxes overlap by more than a touch.
pub(super) fn overlap(a: &Bounds, b: &Bounds) -> bool {
    let slack = 0.008;
    (0..3).all(|axis| a.min[axis] + slack < b.max[axis] && b.min[axis] + slack < a.max[axis])
}
