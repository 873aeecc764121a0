//! Shelves and cabinets.

use glam::{Affine3A, Vec3, vec2, vec3};

use super::books::spine;
use super::clutter::{ornament, storage_box};
use super::{Handle, Kind, Leg, Piece, Studio, Use, front, handle, leg};
use crate::labels::nyu40::{BOOKSHELF, CABINET, OTHER_FURNITURE, SHELVES};
use crate::synth::mesh::{Builder, placed};

/// A row of books on a board from `x0` to `x1` at `z`, with their spines at `y`. They are no higher than
/// `room` and of the current class.
pub(in crate::synth) fn books(s: &mut Studio<'_>, b: &mut Builder, [x0, x1]: [f32; 2], y: f32, z: f32, room: f32) {
    // Few materials for all books of a room keep the number of materials small.
    let mut x = x0;
    while x < x1 - 0.02 {
        let height = s.draw.range(0.16, 0.29).min(room - 0.015);
        let depth = s.draw.range(0.13, 0.19);
        let run = s.draw.count(1, 5);
        let (thick, spine) = (s.draw.range(0.014, 0.048), spine(s));
        for _ in 0..run {
            let thick = thick * s.draw.range(0.8, 1.2);
            if x + thick > x1 {
                return;
            }
            let (low, high) = (
                vec3(x + 0.0006, y - depth, z),
                vec3(x + thick - 0.0006, y - s.draw.range(0.0, 0.012), z + height * s.draw.range(0.97, 1.0)),
            );
            b.paint(spine).cuboid(low, high);
            x += thick;
        }
        if s.draw.chance(0.06) {
            // The last book leans.
            let frame = Affine3A::from_translation(vec3(x + 0.01, y - 0.16, z)) * Affine3A::from_rotation_y(-0.22);
            let paint = self::spine(s);
            b.paint(paint).within(frame, |b| b.cuboid(Vec3::ZERO, vec3(0.03, 0.15, height * 0.95)));
            x += 0.1;
        }
    }
}

/// Fills a board with books, boxes and ornaments.
pub(super) fn fill_board(
    s: &mut Studio<'_>,
    b: &mut Builder,
    [x0, x1]: [f32; 2],
    [y0, y1]: [f32; 2],
    z: f32,
    room: f32,
) {
    match s.draw.count(0, 9) {
        0 => {}
        1 => {
            let (paint, width) = (spine(s), s.draw.range(0.14, 0.2));
            // A lying pile.
            let mut top = z;
            for _ in 0..s.draw.count(2, 5) {
                let thick = s.draw.range(0.02, 0.045);
                if top + thick > z + room {
                    break;
                }
                let paint = if s.draw.chance(0.5) { paint } else { spine(s) };
                b.paint(paint).cuboid(
                    vec3(x0 + 0.03, y0 + 0.02, top),
                    vec3((x0 + 0.05 + 1.4 * width).min(x1), (y0 + 0.02 + width).min(y1), top + thick),
                );
                top += thick;
            }
        }
        2 if x1 - x0 > 0.25 => {
            let height = s.draw.range(0.12, 0.24).min(room - 0.02);
            storage_box(
                s,
                b,
                vec3(0.5 * (x0 + x1), 0.5 * (y0 + y1), z),
                vec3((x1 - x0) * 0.7, (y1 - y0) * 0.85, height),
            );
        }
        3 => {
            let x = x0 + (x1 - x0) * s.draw.range(0.3, 0.7);
            ornament(s, b, vec3(x, 0.5 * (y0 + y1), z), room - 0.03);
        }
        _ => {
            let end = if s.draw.chance(0.5) { x1 } else { x0 + (x1 - x0) * s.draw.range(0.45, 0.9) };
            books(s, b, [x0, end], y1, z, room);
            if x1 - end > 0.15 && s.draw.chance(0.6) {
                ornament(s, b, vec3(0.5 * (end + x1), 0.5 * (y0 + y1), z), room - 0.03);
            }
        }
    }
}

/// A bookshelf: boards above each other, with books. Everything on them belongs to the shelf.
pub(in crate::synth) fn bookshelf(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let mut d = s.design(Kind::Bookshelf);
    let palette = s.palette();
    let (width, depth, height) = (d.range(0.6, 1.3).min(max_width), d.range(0.24, 0.34), d.range(1.3, 2.15));
    let form = d.count(0, 3);
    let columns = match form {
        3 => (width / 0.38).round().max(2.0) as usize,
        _ if width > 1.0 => 2,
        _ => 1,
    };
    let rows = if form == 3 { (height / 0.38).round() as usize } else { d.count(4, 6) };
    let thick = d.range(0.018, 0.03);
    let wood = d.pick(&[palette.woods[0], palette.woods[1], palette.woods[2], palette.lacquer]);
    let half = 0.5 * width;
    let base = if form == 3 { 0.0 } else { d.range(0.03, 0.1) };
    let mut b = Builder::new(BOOKSHELF);
    b.paint(wood);
    let open_sides = form == 2;
    if open_sides {
        b.paint(palette.dark_metal);
        for x in [-half + 0.012, half - 0.012] {
            for y in [0.015, depth - 0.015] {
                b.block(vec3(x, y, 0.0), vec3(0.024, 0.024, height));
            }
        }
        b.rod(vec3(-half, 0.012, 0.3), vec3(half, 0.012, height - 0.2), 0.006, 0.006, 6);
        b.rod(vec3(half, 0.012, 0.3), vec3(-half, 0.012, height - 0.2), 0.006, 0.006, 6);
        b.paint(wood);
    } else {
        b.cuboid(vec3(-half, 0.0, 0.0), vec3(-half + thick, depth, height));
        b.cuboid(vec3(half - thick, 0.0, 0.0), vec3(half, depth, height));
        b.cuboid(vec3(-half + thick, 0.0, base), vec3(half - thick, 0.008, height));
        b.cuboid(vec3(-half + thick, 0.02, 0.0), vec3(half - thick, depth - 0.015, base));
        for i in 1..columns {
            let x = -half + width * i as f32 / columns as f32;
            b.cuboid(vec3(x - 0.5 * thick, 0.008, base), vec3(x + 0.5 * thick, depth - 0.002, height));
        }
    }
    let step = (height - base - thick) / rows as f32;
    for row in 0..=rows {
        let z = base + step * row as f32;
        b.paint(wood);
        b.cuboid(vec3(-half + 0.3 * thick, 0.008, z), vec3(half - 0.3 * thick, depth - 0.001, z + thick));
        if row == rows {
            break;
        }
        for column in 0..columns {
            let x0 = -half + thick + width * column as f32 / columns as f32;
            let x1 = -half - thick + width * (column + 1) as f32 / columns as f32;
            fill_board(s, &mut b, [x0, x1], [0.02, depth - 0.015], z + thick, step - thick);
        }
    }
    Piece::of(b)
}

/// One or two boards on the wall. The origin is on the floor below.
pub(in crate::synth) fn wall_shelf(s: &mut Studio<'_>) -> Piece {
    let mut d = s.design(Kind::Small);
    let palette = s.palette();
    let (width, depth) = (d.range(0.6, 1.1), 0.22);
    let mut b = Builder::new(SHELVES);
    for i in 0..d.count(1, 2) {
        let z = s.draw.range(1.35, 1.45) + 0.36 * i as f32;
        b.paint(palette.woods[1]);
        b.cuboid(vec3(-0.5 * width, 0.0, z), vec3(0.5 * width, depth, z + 0.028));
        b.paint(palette.dark_metal);
        for x in [-0.35 * width, 0.35 * width] {
            b.tube(&[vec3(x, 0.004, z - 0.14), vec3(x, 0.004, z - 0.005), vec3(x, depth - 0.03, z - 0.005)], 0.007, 6);
        }
        fill_board(s, &mut b, [-0.47 * width, 0.47 * width], [0.02, depth - 0.02], z + 0.028, 0.32);
    }
    Piece::of(b)
}

/// Design of the cabinet fronts of a style.
struct Fronts {
    framed: bool,
    grip: Handle,
    body: u16,
    front: u16,
    metal: u16,
}

impl Fronts {
    fn of(s: &Studio<'_>, kind: Kind) -> Self {
        let mut d = s.first_design(kind);
        let palette = s.palette();
        let wood = d.pick(&palette.woods);
        let body = d.pick(&[wood, wood, palette.lacquer]);
        Self {
            framed: d.chance(0.5),
            grip: d.pick(&[Handle::Knob, Handle::Bar, Handle::Cup, Handle::Knob, Handle::None]),
            body,
            front: d.pick(&[body, body, palette.front, palette.lacquer]),
            metal: d.pick(&[palette.metal, palette.brass, palette.dark_metal]),
        }
    }

    fn drawer(&self, b: &mut Builder, from: [f32; 2], to: [f32; 2], y: f32) {
        b.paint(self.front);
        front(b, from, to, y, self.framed && to[1] - from[1] > 0.2);
        b.paint(self.metal);
        let z = 0.5 * (from[1] + to[1]);
        if to[0] - from[0] > 0.75 {
            for t in [0.25, 0.75] {
                handle(b, self.grip, vec3(from[0] + t * (to[0] - from[0]), y + 0.016, z), false);
            }
        } else {
            handle(b, self.grip, vec3(0.5 * (from[0] + to[0]), y + 0.016, z), false);
        }
    }

    /// Builds a door with its handle on the side `hand`, at height `z`.
    fn door(&self, b: &mut Builder, from: [f32; 2], to: [f32; 2], y: f32, hand: f32, z: f32) {
        b.paint(self.front);
        front(b, from, to, y, self.framed);
        b.paint(self.metal);
        let x = if hand > 0.0 { to[0] - 0.035 } else { from[0] + 0.035 };
        handle(b, self.grip, vec3(x, y + 0.016, z), true);
    }
}

fn body(b: &mut Builder, fronts: &Fronts, [width, depth, height]: [f32; 3], base: f32, legs: bool, leg_material: u16) {
    let half = 0.5 * width;
    if legs {
        b.paint(leg_material);
        for (x, y) in [(-1.0, 0.05), (1.0, 0.05), (-1.0, depth - 0.06), (1.0, depth - 0.06)] {
            leg(b, Leg::Tapered, vec3(x * (half - 0.06), y, base + 0.01), vec2(x * 0.015, 0.0), 0.045);
        }
        b.paint(fronts.body);
    } else {
        b.paint(fronts.body);
        b.cuboid(vec3(-half + 0.01, 0.01, 0.0), vec3(half - 0.01, depth - 0.05, base));
    }
    b.cuboid(vec3(-half, 0.0, base), vec3(half, depth - 0.02, height - 0.02));
    b.rounded(vec3(-half - 0.006, 0.0, height - 0.022), vec3(half + 0.006, depth + 0.006, height), 0.004);
}

/// A wardrobe.
pub(in crate::synth) fn wardrobe(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let mut d = s.design(Kind::Wardrobe);
    let fronts = Fronts::of(s, Kind::Wardrobe);
    let doors = d.count(2, 4);
    let width = (d.range(0.42, 0.56) * doors as f32).min(max_width);
    let doors = ((width / 0.4) as usize).clamp(1, doors);
    let (depth, height, base) = (d.range(0.52, 0.62), d.range(1.85, 2.25), d.range(0.05, 0.1));
    let with_drawers = d.chance(0.35);
    let mut b = Builder::new(CABINET);
    body(&mut b, &fronts, [width, depth, height], base, false, 0);
    let low = if with_drawers { base + 0.3 } else { base };
    for i in 0..doors {
        let (x0, x1) = (width * (i as f32 / doors as f32 - 0.5), width * ((i + 1) as f32 / doors as f32 - 0.5));
        if with_drawers {
            fronts.drawer(&mut b, [x0, base], [x1, low], depth - 0.02);
        }
        fronts.door(&mut b, [x0, low], [x1, height - 0.025], depth - 0.02, if i % 2 == 0 { 1.0 } else { -1.0 }, 1.05);
    }
    Piece::of(b)
}

fn chest(s: &mut Studio<'_>, class: u8, [width, depth, height]: [f32; 3], kind: Kind, use_as: Use) -> Piece {
    let mut d = s.design(kind);
    let fronts = Fronts::of(s, kind);
    let legs = d.chance(0.45);
    let base = if legs { d.range(0.1, 0.2) } else { 0.05 };
    let mut b = Builder::new(class);
    let wood = s.palette().woods[1];
    body(&mut b, &fronts, [width, depth, height], base, legs, wood);
    let columns = (width / 0.55).round().max(1.0) as usize;
    let (low, high, y) = (base + 0.01, height - 0.026, depth - 0.02);
    for i in 0..columns {
        let (x0, x1) = (
            width * (i as f32 / columns as f32 - 0.5) + 0.004,
            width * ((i + 1) as f32 / columns as f32 - 0.5) - 0.004,
        );
        let form = d.count(0, 2);
        if form == 0 {
            fronts.door(&mut b, [x0, low], [x1, high], y, if i % 2 == 0 { 1.0 } else { -1.0 }, 0.65 * (low + high));
        } else {
            let rows = ((high - low) / if form == 1 { 0.2 } else { 0.26 }).round().max(1.0) as usize;
            for row in 0..rows {
                let z = |row: usize| low + (high - low) * row as f32 / rows as f32;
                fronts.drawer(&mut b, [x0, z(row)], [x1, z(row + 1)], y);
            }
        }
    }
    Piece::with_top(b, [-0.5 * width + 0.05, 0.04], [0.5 * width - 0.05, depth - 0.05], height, use_as)
}

/// A chest of drawers or a cabinet, about as high as a table or higher.
pub(in crate::synth) fn cabinet(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let mut d = s.design(Kind::Cabinet);
    let size = [d.range(0.7, 1.1).min(max_width), d.range(0.38, 0.48), d.range(0.8, 1.25)];
    chest(s, CABINET, size, Kind::Cabinet, Use::Display)
}

/// A long low cabinet.
pub(in crate::synth) fn low_cabinet(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let mut d = s.design(Kind::Cabinet);
    let size = [d.range(1.2, 1.9).min(max_width), d.range(0.4, 0.48), d.range(0.68, 0.88)];
    chest(s, CABINET, size, Kind::Cabinet, Use::Display)
}

/// A stand for a television.
pub(in crate::synth) fn tv_stand(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let mut d = s.design(Kind::TvStand);
    let palette = s.palette();
    let (width, depth, height) = (d.range(1.1, 1.7).min(max_width), d.range(0.36, 0.45), d.range(0.42, 0.58));
    let fronts = Fronts::of(s, Kind::TvStand);
    let half = 0.5 * width;
    let mut b = Builder::new(OTHER_FURNITURE);
    b.paint(fronts.body);
    b.cuboid(vec3(-half, 0.0, height - 0.03), vec3(half, depth, height));
    b.cuboid(vec3(-half, 0.0, 0.08), vec3(half, depth, 0.105));
    for t in [0.0, 0.3, 0.7, 1.0] {
        let x = -half + 0.0125 + t * (width - 0.025);
        b.cuboid(vec3(x - 0.0125, 0.0, 0.105), vec3(x + 0.0125, depth - 0.002, height - 0.03));
    }
    b.cuboid(vec3(-half, 0.0, 0.105), vec3(half, 0.01, height - 0.03));
    b.cuboid(vec3(-0.2 * width, 0.01, 0.5 * height + 0.03), vec3(0.2 * width, depth - 0.03, 0.5 * height + 0.05));
    for (x0, x1) in [(-half, -0.2 * width), (0.2 * width, half)] {
        fronts.door(&mut b, [x0, 0.105], [x1, height - 0.03], depth - 0.019, -x0.signum(), 0.5 * height + 0.05);
    }
    b.paint(palette.dark_metal);
    for (x, y) in [(-1.0, 0.06), (1.0, 0.06), (-1.0, depth - 0.06), (1.0, depth - 0.06)] {
        b.block(vec3(x * (half - 0.08), y, 0.0), vec3(0.04, 0.04, 0.08));
    }
    b.paint(palette.dark_plastic);
    b.within(placed(vec3(0.0, 0.2, 0.105), 0.0), |b| b.block(Vec3::ZERO, vec3(0.3, 0.22, 0.06)));
    Piece { mesh: b.mesh, tops: Vec::new() }
}
