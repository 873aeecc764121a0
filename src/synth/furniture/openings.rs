//! Objects in and on walls: doors, windows, curtains, pictures.

use glam::{Affine3A, Vec3, vec2, vec3};

use super::{Kind, Piece, Studio};
use crate::labels::nyu40::{CURTAIN, DOOR, PICTURE, WINDOW};
use crate::synth::draw::noise;
use crate::synth::mesh::Builder;
use crate::synth::style::rgb;
use crate::synth::texture::{Material, Pattern};

/// Use of an opening in a wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::synth) enum OpeningKind {
    /// A closed door.
    Door,
    /// A passage to the next room; true if it has an open door.
    Passage(bool),
    Window,
}

/// A hole in a wall, from `from` to `to` along it and from height `low` to `high`.
#[derive(Clone, Copy, Debug)]
pub(in crate::synth) struct Opening {
    pub kind: OpeningKind,
    pub from: f32,
    pub to: f32,
    pub low: f32,
    pub high: f32,
}

/// A door of this width and height in its frame. The origin is on the floor, in the middle of the opening;
/// the wall lies between y = -`wall` and 0. `angle` is the angle at which the door stands open, in radians.
pub(in crate::synth) fn door(s: &mut Studio<'_>, width: f32, height: f32, wall: f32, angle: Option<f32>) -> Piece {
    let mut d = s.first_design(Kind::Door);
    let palette = s.palette();
    let form = d.count(0, 4);
    let trim = d.range(0.05, 0.09);
    let metal = d.pick(&[palette.metal, palette.brass, palette.dark_metal]);
    let half = 0.5 * width;
    let mut b = Builder::new(DOOR);
    b.paint(palette.frame);
    // The lining of the opening, and the boards around it on both sides.
    for x in [-1.0_f32, 1.0] {
        b.cuboid(vec3(x * half, -wall - 0.004, 0.0), vec3(x * (half - 0.025), 0.004, height));
        for y in [0.0, -wall - 0.016] {
            b.cuboid(vec3(x * (half - 0.01), y, 0.0), vec3(x * (half + trim), y + 0.016, height + trim));
        }
    }
    b.cuboid(vec3(-half, -wall - 0.004, height - 0.025), vec3(half, 0.004, height));
    for y in [0.0, -wall - 0.016] {
        b.cuboid(vec3(-half - trim, y, height - 0.01), vec3(half + trim, y + 0.016, height + trim));
    }
    let Some(angle) = angle else { return Piece::of(b) };
    let hinge_left = s.draw.chance(0.5);
    let side = if hinge_left { 1.0 } else { -1.0 };
    let (leaf, tall, thick) = (width - 0.056, height - 0.035, 0.04);
    let frame =
        Affine3A::from_translation(vec3(-side * (half - 0.027), 0.0, 0.006)) * Affine3A::from_rotation_z(side * angle);
    b.within(frame, |b| {
        let x = |t: f32| side * t * leaf;
        let slab = |b: &mut Builder, from: [f32; 2], to: [f32; 2], y0: f32, y1: f32| {
            b.cuboid(vec3(x(from[0]), y0 - thick, from[1] * tall), vec3(x(to[0]), y1, to[1] * tall));
        };
        b.paint(palette.door);
        let panels: &[[f32; 4]] = match form {
            0 => &[],
            1 => &[[0.16, 0.08, 0.84, 0.45], [0.16, 0.53, 0.84, 0.94]],
            2 => &[
                [0.14, 0.07, 0.46, 0.36],
                [0.54, 0.07, 0.86, 0.36],
                [0.14, 0.43, 0.46, 0.73],
                [0.54, 0.43, 0.86, 0.73],
                [0.14, 0.79, 0.46, 0.94],
                [0.54, 0.79, 0.86, 0.94],
            ],
            3 => &[
                [0.16, 0.06, 0.84, 0.22],
                [0.16, 0.28, 0.84, 0.44],
                [0.16, 0.50, 0.84, 0.66],
                [0.16, 0.72, 0.84, 0.92],
            ],
            _ => &[[0.18, 0.10, 0.82, 0.92]],
        };
        slab(b, [0.0, 0.0], [1.0, 1.0], 0.006, -0.006);
        for &[x0, z0, x1, z1] in panels {
            // Raised panels with a groove around them.
            for y in [-0.006, -thick + 0.002] {
                b.rounded(vec3(x(x0), y, z0 * tall), vec3(x(x1), y + 0.010, z1 * tall), 0.005);
            }
            let edge = 0.016;
            for (from, to) in [([x0, z0], [x1, z0]), ([x0, z1], [x1, z1]), ([x0, z0], [x0, z1]), ([x1, z0], [x1, z1])] {
                for y in [-0.008, -thick] {
                    b.cuboid(
                        vec3(x(from[0]) - 0.5 * edge, y, from[1] * tall - 0.5 * edge),
                        vec3(x(to[0]) + 0.5 * edge, y + 0.016, to[1] * tall + 0.5 * edge),
                    );
                }
            }
        }
        b.paint(metal);
        let at = vec3(x(0.925), 0.0, 1.02);
        for (y, out) in [(0.0, 1.0), (-thick, -1.0)] {
            let p = at + vec3(0.0, y, 0.0);
            b.rod(p, p + vec3(0.0, 0.05 * out, 0.0), 0.013, 0.010, 10);
            if form.is_multiple_of(2) {
                b.rod(p + vec3(0.0, 0.05 * out, 0.0), p + vec3(-side * 0.12, 0.052 * out, 0.0), 0.010, 0.009, 10);
            } else {
                b.ellipsoid(p + vec3(0.0, 0.06 * out, 0.0), vec3(0.028, 0.022, 0.028), 14);
            }
        }
    });
    Piece::of(b)
}

/// A window with its frame, bars and sill. The origin is on the floor below its middle. The wall lies between
/// y = -`wall` and 0. `pane` is the number of the pane.
pub(in crate::synth) fn window(s: &mut Studio<'_>, opening: &Opening, wall: f32, pane: u16) -> Piece {
    let mut d = s.first_design(Kind::Window);
    let palette = s.palette();
    let (half, low, high) = (0.5 * (opening.to - opening.from), opening.low, opening.high);
    let bar = d.range(0.045, 0.07);
    let y = -wall + 0.03;
    let mut b = Builder::new(WINDOW);
    b.paint(pane);
    b.quad_at(vec3(half, y + 0.02, low), vec3(-2.0 * half, 0.0, 0.0), vec3(0.0, 0.0, high - low), vec2(0.0, 0.0));
    b.paint(palette.frame);
    for x in [-1.0_f32, 1.0] {
        b.cuboid(vec3(x * half, y, low), vec3(x * (half - bar), y + 0.06, high));
    }
    b.cuboid(vec3(-half, y, low), vec3(half, y + 0.06, low + bar));
    b.cuboid(vec3(-half, y, high - bar), vec3(half, y + 0.06, high));
    let wings = ((2.0 * half) / d.range(0.6, 0.95)).round().max(1.0) as usize;
    for i in 1..wings {
        let x = -half + 2.0 * half * i as f32 / wings as f32;
        b.cuboid(vec3(x - 0.7 * bar, y, low + bar), vec3(x + 0.7 * bar, y + 0.065, high - bar));
    }
    let rows = d.count(1, 4);
    for row in 1..rows {
        let z = low + (high - low) * row as f32 / rows as f32;
        b.cuboid(vec3(-half + bar, y + 0.01, z - 0.014), vec3(half - bar, y + 0.045, z + 0.014));
    }
    if d.chance(0.5) {
        for i in 0..wings {
            let x = -half + 2.0 * half * (i as f32 + 0.5) / wings as f32;
            b.cuboid(vec3(x - 0.012, y + 0.01, low + bar), vec3(x + 0.012, y + 0.045, high - bar));
        }
    }
    if wings > 1 {
        b.paint(palette.metal);
        b.rod(vec3(0.0, y + 0.065, 0.5 * (low + high)), vec3(0.0, y + 0.10, 0.5 * (low + high)), 0.011, 0.009, 8);
        b.rod(vec3(0.0, y + 0.10, 0.5 * (low + high)), vec3(0.0, y + 0.10, 0.5 * (low + high) - 0.1), 0.009, 0.009, 8);
    }
    b.paint(palette.frame);
    b.rounded(vec3(-half - 0.05, -wall + 0.06, low - 0.03), vec3(half + 0.05, d.range(0.04, 0.12), low), 0.008);
    if d.chance(0.5) {
        let trim = 0.06;
        for x in [-1.0_f32, 1.0] {
            b.cuboid(vec3(x * half, 0.0, low), vec3(x * (half + trim), 0.014, high + trim));
        }
        b.cuboid(vec3(-half, 0.0, high), vec3(half, 0.014, high + trim));
    }
    Piece::of(b)
}

/// Curtains on a rod at a window. The window's middle is at the origin, and `half` is its half width. They
/// hang from the ceiling or above the window to the floor or the sill.
pub(in crate::synth) fn curtains(s: &mut Studio<'_>, half: f32, high: f32, low: f32) -> Piece {
    let mut d = s.first_design(Kind::Curtain);
    let palette = s.palette();
    let (y, reach) = (0.085, d.range(0.12, 0.3));
    let end = half + reach;
    let sheer = d.chance(0.25);
    let metal = d.pick(&[palette.metal, palette.dark_metal, palette.brass, palette.woods[0]]);
    let mut b = Builder::new(CURTAIN);
    b.paint(metal);
    b.rod(vec3(-end - 0.06, y, high), vec3(end + 0.06, y, high), 0.012, 0.012, 10);
    for x in [-1.0, 1.0] {
        b.ellipsoid(vec3(x * (end + 0.08), y, high), Vec3::splat(0.024), 10);
        b.rod(vec3(x * (end - 0.02), 0.0, high), vec3(x * (end - 0.02), y, high), 0.008, 0.008, 6);
    }
    let cover = s.draw.range(0.18, 0.6);
    let amplitude = s.draw.range(0.022, 0.042);
    for x in [-1.0_f32, 1.0] {
        let width = (cover * end * s.draw.range(0.8, 1.2)).min(end);
        let folds = (width / d.clone().range(0.085, 0.13)).round().max(3.0);
        let seed = s.draw.seed() as u32;
        b.paint(if sheer { palette.sheer } else { palette.curtain });
        b.sheet((folds as usize * 8).min(110), 12, 0.008, |u, v| {
            // From left to right as seen from the room, which is against y.
            let t = 1.0 - u;
            let across = if x > 0.0 { end - width * (1.0 - t) } else { -end + width * t };
            let phase = t * folds * std::f32::consts::TAU
                + 1.2 * noise(t * 4.0, 2.0, seed)
                + 0.5 * noise(t * 3.0, v * 2.0, seed ^ 1);
            let wave = amplitude * (0.75 + 0.45 * (1.0 - v)) * phase.sin();
            vec3(across, y + wave, low + (high - 0.015 - low) * v)
        });
        b.paint(metal);
        for i in 0..folds as usize {
            let across = x * (end - width * (i as f32 + 0.5) / folds);
            b.rod(vec3(across - 0.004, y, high), vec3(across + 0.004, y, high), 0.022, 0.022, 8);
        }
    }
    Piece::of(b)
}

/// A framed picture, its middle at height `z` on the wall.
pub(in crate::synth) fn picture(s: &mut Studio<'_>, [width, height]: [f32; 2], z: f32) -> Piece {
    let palette = s.palette();
    let kind = s.draw.count(0, 4) as u32;
    let colors = std::array::from_fn(|_| {
        let tone =
            s.draw.pick(&[0x9c3b2e, 0x2f5d7c, 0xd9b45b, 0x3f6b4c, 0xe4dccb, 0x6b4a7a, 0xd98a6a, 0x1f2f44, 0xa9c3cf]);
        rgb(tone)
    });
    let seed = s.draw.seed() as u32;
    let mat = s.draw.chance(0.45);
    let frame = s.draw.pick(&[palette.woods[0], palette.woods[1], palette.dark_metal, palette.white, palette.brass]);
    let bar = s.draw.range(0.015, 0.045);
    let margin = if mat { 0.16 * width.min(height) } else { 0.0 };
    let (half, tall) = (0.5 * width, 0.5 * height);
    let (inner_x, inner_z) = (half - bar - margin, tall - bar - margin);
    let canvas = s.material(Material::new(Pattern::Painting(2.0 * inner_x, 2.0 * inner_z, kind), colors, seed));
    let mut b = Builder::new(PICTURE);
    b.within(Affine3A::from_translation(vec3(0.0, 0.0, z)), |b| {
        b.paint(palette.white);
        b.cuboid(vec3(-half + 0.004, 0.0, -tall + 0.004), vec3(half - 0.004, 0.012, tall - 0.004));
        b.paint(canvas);
        b.quad_at(
            vec3(inner_x, 0.0135, -inner_z),
            vec3(-2.0 * inner_x, 0.0, 0.0),
            vec3(0.0, 0.0, 2.0 * inner_z),
            vec2(0.0, 0.0),
        );
        b.paint(frame);
        for x in [-1.0_f32, 1.0] {
            b.cuboid(vec3(x * half, 0.0, -tall), vec3(x * (half - bar), 0.025, tall));
            b.cuboid(vec3(-half + bar, 0.0, x * tall), vec3(half - bar, 0.025, x * (tall - bar)));
        }
    });
    Piece::of(b)
}
