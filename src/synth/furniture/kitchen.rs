//! Kitchens.

use glam::{Vec3, vec2, vec3};

use super::clutter::storage_box;
use super::{Handle, Kind, Piece, Studio, Top, Use, front, handle};
use crate::labels::nyu40::{BOX, CABINET, COUNTER, OTHER_FURNITURE, OTHER_PROP, REFRIGERATOR, SINK, WALL};
use crate::synth::mesh::Builder;
use crate::synth::style::rgb;
use crate::synth::texture::Material;

/// Depth of a kitchen sink, in metres.
const SINK_DEPTH: f32 = 0.17;

/// A tap at `at`, with its spout towards +y.
pub(super) fn tap(b: &mut Builder, metal: u16, at: Vec3, high: bool) {
    b.paint(metal);
    let (rise, reach) = if high { (0.26, 0.17) } else { (0.11, 0.11) };
    b.rod(at, at + vec3(0.0, 0.0, 0.03), 0.024, 0.018, 12);
    let bend = vec3(0.0, 0.5 * reach, rise + if high { 0.05 } else { 0.0 });
    b.tube(
        &[at, at + vec3(0.0, 0.0, rise), at + bend, at + vec3(0.0, reach, rise), at + vec3(0.0, reach, rise - 0.05)],
        0.011,
        8,
    );
    b.rod(at + vec3(0.03, 0.0, 0.02), at + vec3(0.085, -0.01, 0.055), 0.007, 0.007, 8);
}

/// A basin from `min` to `max` (the rim), open at the top, with walls that face inwards.
fn sunk(b: &mut Builder, min: Vec3, max: Vec3) {
    let size = max - min;
    b.quad(min, vec3(size.x, 0.0, 0.0), vec3(0.0, size.y, 0.0));
    b.quad(vec3(min.x, min.y, min.z), vec3(0.0, 0.0, size.z), vec3(size.x, 0.0, 0.0));
    b.quad(vec3(min.x, max.y, min.z), vec3(size.x, 0.0, 0.0), vec3(0.0, 0.0, size.z));
    b.quad(vec3(min.x, min.y, min.z), vec3(0.0, size.y, 0.0), vec3(0.0, 0.0, size.z));
    b.quad(vec3(max.x, min.y, min.z), vec3(0.0, 0.0, size.z), vec3(0.0, size.y, 0.0));
}

/// A plate from `min` to `max` with a hole.
fn holed(b: &mut Builder, min: Vec3, max: Vec3, hole: [[f32; 2]; 2]) {
    let [[x0, y0], [x1, y1]] = hole;
    b.cuboid(min, vec3(x0, max.y, max.z));
    b.cuboid(vec3(x1, min.y, min.z), max);
    b.cuboid(vec3(x0, min.y, min.z), vec3(x1, y0, max.z));
    b.cuboid(vec3(x0, y1, min.z), vec3(x1, max.y, max.z));
}

/// Cabinets along a wall under one counter, with a sink, a stove and cabinets above. `window` is the range
/// along x where the wall stays free above the counter, and the window's lower edge.
pub(in crate::synth) fn kitchen_run(s: &mut Studio<'_>, width: f32, window: Option<[f32; 3]>) -> Piece {
    let mut d = s.first_design(Kind::Kitchen);
    let palette = s.palette();
    let (depth, height) = (0.6, d.range(0.86, 0.93));
    let framed = d.chance(0.5);
    let grip = d.pick(&[Handle::Knob, Handle::Bar, Handle::Bar, Handle::Cup]);
    let fronts = d.pick(&[palette.front, palette.lacquer, palette.woods[0], palette.woods[2]]);
    let metal = d.pick(&[palette.metal, palette.dark_metal, palette.brass]);
    let thick = d.range(0.03, 0.05);
    let half = 0.5 * width;
    let modules = (width / 0.6).floor().max(2.0) as usize;
    let module = width / modules as f32;
    let x_of = |i: usize| -half + module * i as f32;
    // A window gets the sink below it.
    let middle_of_window = window.map(|[a, b, _]| 0.5 * (a + b));
    let sink = middle_of_window.map_or_else(
        || s.draw.count(0, modules - 1),
        |x| (((x + half) / module).floor().max(0.0) as usize).min(modules - 1),
    );
    let stove =
        (modules >= 3).then(|| (sink + s.draw.count(2, modules.max(3) - 1)) % modules).filter(|stove| *stove != sink);
    let mut b = Builder::new(CABINET);
    let under = height - thick;
    for i in 0..modules {
        let (x0, x1) = (x_of(i), x_of(i + 1));
        if Some(i) == stove {
            b.class(OTHER_FURNITURE).paint(palette.appliance);
            b.cuboid(vec3(x0 + 0.004, 0.02, 0.03), vec3(x1 - 0.004, depth - 0.02, height - 0.004));
            b.cuboid(vec3(x0 + 0.01, depth - 0.02, 0.16), vec3(x1 - 0.01, depth + 0.01, height - 0.12));
            b.paint(palette.dark);
            b.cuboid(vec3(x0 + 0.07, depth + 0.01, 0.26), vec3(x1 - 0.07, depth + 0.013, height - 0.24));
            b.cuboid(vec3(x0 + 0.01, 0.04, height - 0.004), vec3(x1 - 0.01, depth - 0.03, height + 0.006));
            b.paint(palette.metal);
            let rail = [
                vec3(x0 + 0.08, depth + 0.01, height - 0.17),
                vec3(x0 + 0.08, depth + 0.045, height - 0.17),
                vec3(x1 - 0.08, depth + 0.045, height - 0.17),
                vec3(x1 - 0.08, depth + 0.01, height - 0.17),
            ];
            b.tube(&rail, 0.009, 8);
            for k in 0..4 {
                let x = x0 + module * (k as f32 + 0.8) / 4.6;
                b.rod(vec3(x, depth - 0.02, height - 0.06), vec3(x, depth + 0.012, height - 0.06), 0.02, 0.017, 12);
            }
            b.paint(palette.dark_metal);
            for (u, v, r) in [(0.28, 0.28, 0.075), (0.72, 0.28, 0.09), (0.28, 0.70, 0.09), (0.72, 0.70, 0.07)] {
                let at = vec3(x0 + u * module, v * depth, height + 0.006);
                b.rod(at, at + vec3(0.0, 0.0, 0.010), r, r, 20);
                b.block(at + vec3(0.0, 0.0, 0.010), vec3(2.4 * r, 0.012, 0.012));
                b.block(at + vec3(0.0, 0.0, 0.010), vec3(0.012, 2.4 * r, 0.012));
            }
            if s.draw.chance(0.6) {
                // A pot on it.
                b.class(OTHER_PROP).paint(palette.metal);
                let at = vec3(x0 + 0.28 * module, 0.70 * depth, height + 0.028);
                b.rod(at, at + vec3(0.0, 0.0, 0.12), 0.1, 0.105, 24);
                b.rod(at + vec3(0.1, 0.0, 0.1), at + vec3(0.15, 0.0, 0.1), 0.012, 0.012, 8);
                b.ellipsoid(at + vec3(0.0, 0.0, 0.135), vec3(0.018, 0.018, 0.018), 10);
            }
            continue;
        }
        b.class(CABINET).paint(palette.dark);
        b.cuboid(vec3(x0, 0.02, 0.0), vec3(x1, depth - 0.08, 0.1));
        b.paint(fronts);
        if i == sink {
            // The cabinet is hollow where the basin hangs.
            let hollow = height - SINK_DEPTH - 0.02;
            b.cuboid(vec3(x0, 0.0, 0.1), vec3(x1, depth - 0.02, hollow));
            b.cuboid(vec3(x0, depth - 0.04, hollow), vec3(x1, depth - 0.02, under));
            for x in [x0, x1 - 0.018] {
                b.cuboid(vec3(x, 0.0, hollow), vec3(x + 0.018, depth - 0.04, under));
            }
        } else {
            b.cuboid(vec3(x0, 0.0, 0.1), vec3(x1, depth - 0.02, under));
        }
        let split = if s.draw.chance(0.75) { under - 0.16 } else { under };
        if split < under {
            b.paint(fronts);
            front(&mut b, [x0, split], [x1, under - 0.004], depth - 0.02, false);
            b.paint(metal);
            if i != sink {
                handle(&mut b, grip, vec3(0.5 * (x0 + x1), depth - 0.004, 0.5 * (split + under)), false);
            }
        }
        if s.draw.chance(0.25) && i != sink {
            for k in 0..2 {
                let z = |k: usize| 0.1 + (split - 0.1) * k as f32 / 2.0;
                b.paint(fronts);
                front(&mut b, [x0, z(k)], [x1, z(k + 1)], depth - 0.02, framed);
                b.paint(metal);
                handle(&mut b, grip, vec3(0.5 * (x0 + x1), depth - 0.004, 0.5 * (z(k) + z(k + 1))), false);
            }
        } else {
            b.paint(fronts);
            front(&mut b, [x0, 0.1], [x1, split], depth - 0.02, framed);
            b.paint(metal);
            let x = if i % 2 == 0 { x1 - 0.04 } else { x0 + 0.04 };
            handle(&mut b, grip, vec3(x, depth - 0.004, split - 0.14), true);
        }
    }
    // The counter, around the sink and the stove.
    let (low, high) = (under, height);
    let mut tops = Vec::new();
    for i in 0..modules {
        let (x0, x1) = (x_of(i), x_of(i + 1));
        if Some(i) == stove {
            continue;
        }
        b.class(COUNTER).paint(palette.counter);
        let (min, max) = (vec3(x0, 0.0, low), vec3(x1, depth + 0.02, high));
        if i == sink {
            let hole = [[x0 + 0.06, 0.11], [x1 - 0.06, depth - 0.07]];
            holed(&mut b, min, max, hole);
            b.class(SINK).paint(if d.clone().chance(0.7) { palette.metal } else { palette.ceramic });
            let ([hx0, hy0], [hx1, hy1]) = (hole[0], hole[1]);
            sunk(
                &mut b,
                vec3(hx0 + 0.012, hy0 + 0.012, high - SINK_DEPTH),
                vec3(hx1 - 0.012, hy1 - 0.012, high + 0.002),
            );
            holed(
                &mut b,
                vec3(hx0 - 0.012, hy0 - 0.012, high - 0.003),
                vec3(hx1 + 0.012, hy1 + 0.012, high + 0.004),
                [[hx0 + 0.012, hy0 + 0.012], [hx1 - 0.012, hy1 - 0.012]],
            );
            tap(&mut b, palette.metal, vec3(0.5 * (x0 + x1), 0.065, high), true);
        } else {
            b.cuboid(min, max);
            tops.push(Top {
                min: vec2(x0 + 0.04, 0.05),
                max: vec2(x1 - 0.04, depth - 0.08),
                z: high,
                use_as: Use::Kitchen,
            });
        }
    }
    // The tiles behind are part of the wall.
    b.class(WALL).paint(palette.wall_tiles);
    let mut cuts = vec![-half, half];
    cuts.extend(window.iter().flat_map(|[a, b, _]| [a - 0.06, b + 0.06]).filter(|x| x.abs() < half));
    cuts.sort_unstable_by(f32::total_cmp);
    for pair in cuts.windows(2) {
        let middle = 0.5 * (pair[0] + pair[1]);
        let top = match window {
            Some([a, b, low]) if middle > a - 0.06 && middle < b + 0.06 => low - 0.035,
            _ => height + 0.52,
        };
        if top > height {
            let along = vec3(pair[0] - pair[1], 0.0, 0.0);
            b.quad_at(vec3(pair[1], 0.004, height), along, vec3(0.0, 0.0, top - height), vec2(half - pair[1], 0.0));
        }
    }
    // Cabinets above, where there is no window.
    let hang = d.range(1.42, 1.5);
    let tall = d.range(0.58, 0.8);
    for i in 0..modules {
        let (x0, x1) = (x_of(i), x_of(i + 1));
        let free = window.is_none_or(|[a, b, _]| x1 <= a + 0.02 || x0 >= b - 0.02);
        if !free {
            continue;
        }
        if Some(i) == stove {
            // A hood.
            b.class(OTHER_FURNITURE).paint(palette.metal);
            b.cuboid(vec3(x0 + 0.01, 0.0, hang + 0.06), vec3(x1 - 0.01, 0.46, hang + 0.16));
            b.cuboid(vec3(0.5 * (x0 + x1) - 0.14, 0.0, hang + 0.16), vec3(0.5 * (x0 + x1) + 0.14, 0.28, hang + tall));
            continue;
        }
        b.class(CABINET).paint(fronts);
        b.cuboid(vec3(x0, 0.0, hang), vec3(x1, 0.32, hang + tall));
        front(&mut b, [x0, hang], [x1, hang + tall], 0.32, framed);
        b.paint(metal);
        let x = if i % 2 == 0 { x1 - 0.04 } else { x0 + 0.04 };
        handle(&mut b, grip, vec3(x, 0.336, hang + 0.1), true);
    }
    Piece { mesh: b.mesh, tops }
}

/// A free-standing counter.
pub(in crate::synth) fn island(s: &mut Studio<'_>) -> Piece {
    let mut d = s.first_design(Kind::Kitchen);
    let palette = s.palette();
    let (width, depth, height) = (d.range(1.1, 1.6), d.range(0.6, 0.8), d.range(0.88, 0.93));
    let fronts = d.pick(&[palette.front, palette.lacquer, palette.woods[0]]);
    let half = 0.5 * width;
    let mut b = Builder::new(CABINET);
    b.paint(fronts);
    b.cuboid(vec3(-half + 0.04, 0.06, 0.0), vec3(half - 0.04, depth - 0.06, height - 0.04));
    for i in 0..3 {
        let x = |i: usize| -half + 0.04 + (width - 0.08) * i as f32 / 3.0;
        front(&mut b, [x(i), 0.08], [x(i + 1), height - 0.05], depth - 0.06, true);
    }
    b.class(COUNTER).paint(palette.counter);
    b.rounded(vec3(-half, 0.0, height - 0.04), vec3(half, depth, height), 0.005);
    Piece::with_top(b, [-half + 0.05, 0.05], [half - 0.05, depth - 0.05], height, Use::Kitchen)
}

/// A refrigerator with one door, two doors above each other, or two side by side.
pub(in crate::synth) fn refrigerator(s: &mut Studio<'_>) -> Piece {
    let mut d = s.design(Kind::Refrigerator);
    let palette = s.palette();
    let form = d.count(0, 3);
    let (width, depth) = (if form == 3 { d.range(0.85, 0.95) } else { d.range(0.56, 0.72) }, d.range(0.62, 0.72));
    let height = if form == 0 { d.range(1.2, 1.5) } else { d.range(1.62, 1.9) };
    let (half, radius) = (0.5 * width, d.range(0.008, 0.045));
    let mut b = Builder::new(REFRIGERATOR);
    b.paint(palette.appliance);
    b.rounded(vec3(-half, 0.02, 0.04), vec3(half, depth - 0.07, height), radius);
    b.paint(palette.dark_plastic);
    b.cuboid(vec3(-half + 0.03, 0.05, 0.0), vec3(half - 0.03, depth - 0.1, 0.045));
    b.cuboid(vec3(-half + 0.01, depth - 0.075, 0.05), vec3(half - 0.01, depth - 0.06, height - 0.02));
    let split = match form {
        1 => Some(height * d.range(0.30, 0.40)),
        2 => Some(height * d.range(0.66, 0.74)),
        _ => None,
    };
    let doors: Vec<[f32; 4]> = match (form, split) {
        (3, _) => vec![[-half, 0.0, 0.05, height], [0.0, half, 0.05, height]],
        (_, Some(z)) => vec![[-half, half, 0.05, z], [-half, half, z, height]],
        _ => vec![[-half, half, 0.05, height]],
    };
    let long = d.chance(0.7);
    for (i, [x0, x1, z0, z1]) in doors.into_iter().enumerate() {
        b.paint(palette.appliance);
        b.rounded(vec3(x0 + 0.003, depth - 0.062, z0 + 0.004), vec3(x1 - 0.003, depth, z1 - 0.004), radius);
        b.paint(palette.metal);
        let x = if form == 3 && i == 1 { x0 + 0.045 } else { x1 - 0.05 };
        let (from, to) = if form == 3 {
            (0.45 * height, 0.75 * height)
        } else if i == 0 && split.is_some() {
            (z1 - 0.45_f32.min(0.7 * (z1 - z0)), z1 - 0.06)
        } else {
            (z0 + 0.06, z0 + 0.42_f32.min(0.75 * (z1 - z0)))
        };
        if long {
            b.tube(
                &[
                    vec3(x, depth - 0.005, from),
                    vec3(x, depth + 0.04, from),
                    vec3(x, depth + 0.04, to),
                    vec3(x, depth - 0.005, to),
                ],
                0.010,
                8,
            );
        } else {
            b.rounded(vec3(x - 0.012, depth - 0.005, from), vec3(x + 0.012, depth + 0.03, to), 0.008);
        }
    }
    // Notes and magnets.
    for _ in 0..s.draw.count(0, 5) {
        let (x, z) = (s.draw.range(-half + 0.08, half - 0.14), s.draw.range(0.6 * height, 0.93 * height));
        let tint = s.draw.pick(&[0xf4f1e4, 0xe8d14a, 0xd05a4a, 0x5a8fc0, 0xf0f0f0]);
        let note = s.material(Material::plain(rgb(tint)));
        let size = vec2(s.draw.range(0.03, 0.12), s.draw.range(0.04, 0.14));
        b.paint(note);
        b.cuboid(vec3(x, depth + 0.0005, z), vec3(x + size.x, depth + 0.003, z + size.y));
    }
    if s.draw.chance(0.4) {
        let at = vec3(s.draw.range(-0.1, 0.1), 0.4 * depth, height);
        b.class(BOX);
        storage_box(s, &mut b, at, vec3(0.34, 0.3, 0.16));
    }
    Piece::of(b)
}
