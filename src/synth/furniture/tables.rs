//! Tables and desks.

use glam::{Affine3A, vec2, vec3};

use super::{Handle, Kind, Leg, Piece, Studio, Use, front, handle, leg};
use crate::labels::nyu40::{DESK, TABLE};
use crate::synth::draw::Draw;
use crate::synth::mesh::{Builder, ring, round};

/// Builds a table top around `(0, depth / 2)`: straight, rounded, or oval.
fn plate(b: &mut Builder, form: usize, [width, depth]: [f32; 2], top: f32, thick: f32) {
    let middle = Affine3A::from_translation(vec3(0.0, 0.5 * depth, 0.0));
    match form {
        0 => b.rounded(vec3(-0.5 * width, 0.0, top - thick), vec3(0.5 * width, depth, top), 0.006),
        _ => b.within(middle, |b| {
            let exponent = if form == 1 { 6.0 } else { 2.0 };
            let (x, y) = (0.5 * width, 0.5 * depth);
            b.loft(
                &[
                    ring(x - 0.006, y - 0.006, top - thick),
                    ring(x, y, top - 0.6 * thick),
                    ring(x, y, top - 0.2 * thick),
                    ring(x - 0.006, y - 0.006, top),
                ],
                exponent,
                40,
                [true, true],
            );
        }),
    }
}

/// Builds the legs or other supports of a table top.
fn support(b: &mut Builder, d: &mut Draw, form: usize, [width, depth]: [f32; 2], under: f32, round_top: bool) {
    let leg_width = d.range(0.045, 0.085);
    let legs = d.pick(&[Leg::Square, Leg::Tapered, Leg::Turned, Leg::Tube]);
    let inset = if round_top { 0.16 * width.min(depth) + leg_width } else { leg_width * 0.7 };
    let (x, y) = (0.5 * width - inset, 0.5 * depth - inset);
    let middle = vec3(0.0, 0.5 * depth, 0.0);
    match form {
        // One column.
        1 => {
            let radius = 0.28 * width.min(depth);
            b.within(Affine3A::from_translation(middle), |b| {
                let neck = leg_width * 0.6;
                b.loft(
                    &[
                        round(radius, 0.0),
                        round(radius, 0.02),
                        round(radius * 0.4, 0.05),
                        round(neck, 0.12),
                        round(neck * 0.8, 0.5 * under),
                        round(neck, under - 0.05),
                        round(radius * 0.5, under),
                    ],
                    2.0,
                    24,
                    [true, true],
                );
            });
        }
        // Two trestles and a beam.
        2 => {
            for side in [-1.0, 1.0] {
                let at = middle + vec3(side * (x - 0.08), 0.0, 0.0);
                b.block(at, vec3(0.07, depth * 0.8, 0.05));
                b.block(at + vec3(0.0, 0.0, 0.05), vec3(0.06, 0.12, under - 0.09));
                b.block(at + vec3(0.0, 0.0, under - 0.05), vec3(0.07, depth * 0.8, 0.05));
            }
            b.cuboid(middle + vec3(-x, -0.02, 0.25), middle + vec3(x, 0.02, 0.33));
        }
        // Two closed frames.
        3 => {
            for side in [-1.0, 1.0] {
                let at = |t: f32, z: f32| middle + vec3(side * x, t * y, z);
                let bar = leg_width * 0.4;
                for (p, q) in [
                    (at(-1.0, bar), at(1.0, bar)),
                    (at(-1.0, under - bar), at(1.0, under - bar)),
                    (at(-1.0, 0.0), at(-1.0, under)),
                    (at(1.0, 0.0), at(1.0, under)),
                ] {
                    b.cuboid(
                        p - vec3(bar, bar, 0.0),
                        q + vec3(bar, bar, if p.z == q.z { 2.0 * bar } else { 0.0 })
                            - vec3(0.0, 0.0, if p.z == q.z { bar } else { 0.0 }),
                    );
                }
            }
        }
        _ => {
            let splay = if legs == Leg::Square || round_top { 0.0 } else { d.range(0.0, 0.05) };
            for (sx, sy) in [(-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)] {
                leg(b, legs, middle + vec3(sx * x, sy * y, under), vec2(sx * splay, sy * splay), leg_width);
            }
            if d.chance(0.6) && !round_top {
                let drop = d.range(0.06, 0.1);
                for (from, to) in [([-x, -y], [x, -y]), ([-x, y], [x, y]), ([-x, -y], [-x, y]), ([x, -y], [x, y])] {
                    b.cuboid(
                        middle + vec3(from[0] - 0.01, from[1] - 0.01, under - drop),
                        middle + vec3(to[0] + 0.01, to[1] + 0.01, under),
                    );
                }
            }
        }
    }
}

fn table(s: &mut Studio<'_>, kind: Kind, [width, depth]: [f32; 2], height: f32, use_as: Use) -> Piece {
    let mut d = s.first_design(kind);
    let palette = s.palette();
    let round_share = if matches!(kind, Kind::SideTable) { 0.5 } else { 0.3 };
    let form = if d.chance(round_share) { 2 } else { d.count(0, 1) };
    let thick = d.range(0.02, 0.05);
    let wood = d.pick(&palette.woods);
    let top_material = d.pick(&[wood, wood, wood, palette.lacquer, palette.counter]);
    let carrier = match (form, d.count(0, 4)) {
        (2, 0..=2) => 1,
        (_, n) if form != 2 => n,
        _ => 0,
    };
    let carrier_material =
        if carrier == 3 { palette.dark_metal } else { d.pick(&[wood, wood, palette.dark_metal, palette.lacquer]) };
    let depth = if form == 2 && width < 1.3 { width } else { depth };
    let mut b = Builder::new(TABLE);
    b.paint(top_material);
    plate(&mut b, form, [width, depth], height, thick);
    b.paint(carrier_material);
    support(&mut b, &mut d, carrier, [width, depth], height - thick, form == 2);
    if matches!(kind, Kind::CoffeeTable) && carrier != 1 && form != 2 && d.chance(0.5) {
        b.paint(wood);
        b.cuboid(vec3(-0.42 * width, 0.1 * depth, 0.14), vec3(0.42 * width, 0.9 * depth, 0.16));
    }
    let margin = if form == 2 { 0.17 } else { 0.05 };
    Piece::with_top(
        b,
        [-(0.5 - margin) * width, margin * depth],
        [(0.5 - margin) * width, (1.0 - margin) * depth],
        height,
        use_as,
    )
}

/// A dining table.
pub(in crate::synth) fn dining_table(s: &mut Studio<'_>, max: [f32; 2]) -> Piece {
    let mut d = s.first_design(Kind::Small);
    let (width, depth) = (d.range(1.0, 2.0).min(max[0]), d.range(0.75, 1.0).min(max[1]));
    let height = d.range(0.72, 0.77);
    table(s, Kind::DiningTable, [width, depth], height, Use::Dining)
}

/// A low table in front of a sofa.
pub(in crate::synth) fn coffee_table(s: &mut Studio<'_>) -> Piece {
    let mut d = s.design(Kind::Small);
    let (width, depth, height) = (d.range(0.75, 1.2), d.range(0.5, 0.65), d.range(0.36, 0.46));
    table(s, Kind::CoffeeTable, [width, depth], height, Use::Low)
}

/// A small table for a corner.
pub(in crate::synth) fn side_table(s: &mut Studio<'_>) -> Piece {
    let mut d = s.design(Kind::SideTable);
    let (width, height) = (d.range(0.4, 0.55), d.range(0.5, 0.62));
    table(s, Kind::SideTable, [width, width], height, Use::Night)
}

/// A desk, with drawers on one or both sides or on thin legs.
pub(in crate::synth) fn desk(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let mut d = s.design(Kind::Desk);
    let palette = s.palette();
    let (width, depth, height) = (d.range(1.1, 1.75).min(max_width), d.range(0.58, 0.78), d.range(0.72, 0.76));
    let (half, thick) = (0.5 * width, d.range(0.022, 0.04));
    let wood = d.pick(&palette.woods);
    let body = d.pick(&[wood, wood, palette.lacquer]);
    let grip = d.pick(&[Handle::Knob, Handle::Bar, Handle::Cup]);
    let mut b = Builder::new(DESK);
    b.paint(wood);
    b.rounded(vec3(-half, 0.0, height - thick), vec3(half, depth, height), 0.005);
    let under = height - thick;
    let form = d.count(0, 3);
    let right_handed = d.chance(0.5);
    for side in [-1.0_f32, 1.0] {
        let drawers = match form {
            0 => true,
            1 | 2 => (side > 0.0) == right_handed,
            _ => false,
        };
        if drawers {
            let (x0, x1) = (side * (half - 0.02), side * (half - 0.42));
            let (x0, x1) = (x0.min(x1), x0.max(x1));
            let low = if form == 2 { 0.08 } else { 0.02 };
            b.paint(body);
            b.cuboid(vec3(x0, 0.03, low), vec3(x1, depth - 0.04, under));
            let count = if form == 0 { 3 } else { 4 };
            for i in 0..count {
                let (z0, z1) = (
                    low + (under - low) * i as f32 / count as f32,
                    low + (under - low) * (i + 1) as f32 / count as f32,
                );
                b.paint(palette.front);
                front(&mut b, [x0, z0], [x1, z1], depth - 0.04, false);
                b.paint(palette.metal);
                handle(&mut b, grip, vec3(0.5 * (x0 + x1), depth - 0.022, 0.5 * (z0 + z1)), false);
            }
        } else if form == 3 || form == 2 {
            b.paint(palette.dark_metal);
            for y in [0.06, depth - 0.06] {
                leg(&mut b, Leg::Tube, vec3(side * (half - 0.06), y, under), vec2(0.0, 0.0), 0.055);
            }
            b.rod(
                vec3(side * (half - 0.06), 0.06, 0.12),
                vec3(side * (half - 0.06), depth - 0.06, 0.12),
                0.012,
                0.012,
                6,
            );
        } else {
            b.paint(body);
            b.cuboid(vec3(side * (half - 0.02), 0.02, 0.0), vec3(side * (half - 0.045), depth - 0.03, under));
        }
    }
    b.paint(body);
    b.cuboid(vec3(-half + 0.03, 0.05, under - 0.35), vec3(half - 0.03, 0.07, under));
    Piece::with_top(b, [-half + 0.04, 0.04], [half - 0.04, depth - 0.04], height, Use::Desk)
}
