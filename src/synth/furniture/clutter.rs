//! Small things and free-standing ones: lamps, plants, screens, boxes, dishes, books.

use glam::{Affine3A, Vec2, Vec3, vec2, vec3};

use super::books::spine;
use super::real;
use super::{Kind, Piece, Studio, Top, Use};
use crate::labels::nyu40::{
    BAG, BOOKS, BOX, CLOTHES, FLOOR_MAT, LAMP, OTHER_FURNITURE, OTHER_PROP, PAPER, TELEVISION, WHITEBOARD,
};
use crate::synth::assets::ModelKind;
use crate::synth::draw::noise;
use crate::synth::mesh::{Builder, placed, ring, round};
use crate::synth::style::rgb;
use crate::synth::texture::{Material, Pattern};

/// A box of cardboard, wicker or plastic, in the current class, standing at `at`.
pub(super) fn storage_box(s: &mut Studio<'_>, b: &mut Builder, at: Vec3, size: Vec3) {
    let palette = s.palette();
    b.paint(s.draw.pick(&[
        palette.cardboard,
        palette.cardboard,
        palette.plastic,
        palette.lacquer,
        palette.cushions[1],
    ]));
    b.rounded_block(at, size, 0.008);
    if s.draw.chance(0.6) {
        b.rounded_block(
            at + vec3(0.0, 0.0, size.z * 0.8),
            vec3(size.x + 0.012, size.y + 0.012, size.z * 0.2 + 0.004),
            0.006,
        );
    }
}

/// A vase, bowl or figure in the current class, no higher than `room`.
pub(super) fn ornament(s: &mut Studio<'_>, b: &mut Builder, at: Vec3, room: f32) {
    let palette = s.palette();
    let tall = s.draw.range(0.09, 0.24).min(room.max(0.04));
    let r = tall * s.draw.range(0.2, 0.36);
    b.paint(s.draw.pick(&[palette.ceramic, palette.plastic, palette.pot, palette.brass, palette.woods[1]]));
    let rings = match s.draw.count(0, 3) {
        0 => vec![
            round(r * 0.6, 0.0),
            round(r, tall * 0.35),
            round(r * 0.4, tall * 0.8),
            round(r * 0.55, tall),
            round(r * 0.45, tall),
        ],
        1 => vec![round(r * 0.8, 0.0), round(r * 0.8, tall * 0.9), round(r * 0.3, tall)],
        2 => vec![
            round(r * 0.5, 0.0),
            round(r * 1.2, tall * 0.45),
            round(r * 1.1, tall * 0.45),
            round(r * 0.4, tall * 0.08),
        ],
        _ => vec![round(r * 0.7, 0.0), round(r * 0.2, tall * 0.2), round(r * 0.8, tall * 0.6), round(0.0, tall)],
    };
    b.within(Affine3A::from_translation(at), |b| b.loft(&rings, 2.0, 20, [true, true]));
}

/// A plant in a pot, `tall` metres high in all.
fn plant_at(s: &mut Studio<'_>, b: &mut Builder, at: Vec3, tall: f32) {
    let palette = s.palette();
    let r = tall * s.draw.range(0.13, 0.2);
    let pot = tall * s.draw.range(0.22, 0.34);
    b.class(OTHER_PROP);
    b.within(Affine3A::from_translation(at), |b| {
        b.paint(palette.pot);
        b.loft(
            &[round(r * 0.72, 0.0), round(r, pot), round(r * 0.9, pot), round(r * 0.88, pot - 0.02)],
            2.0,
            22,
            [true, false],
        );
        b.paint(palette.soil);
        b.loft(&[round(r * 0.9, pot - 0.02), round(0.0, pot - 0.018)], 2.0, 22, [false, false]);
        b.paint(palette.leaves);
        let form = s.draw.count(0, 2);
        let count = s.draw.count(12, 22);
        for k in 0..count {
            let angle = k as f32 * 2.4 + s.draw.range(-0.3, 0.3);
            let (sin, cos) = angle.sin_cos();
            let reach = r * s.draw.range(0.9, 2.1);
            let rise = (tall - pot) * s.draw.range(0.45, 1.0);
            let wide = match form {
                0 => 0.05,
                1 => 0.11,
                _ => 0.03,
            } * tall.sqrt();
            let base = vec3(0.25 * r * cos, 0.25 * r * sin, pot - 0.02);
            let stem = s.draw.range(0.2, 0.6);
            // A thin leaf that bends outwards.
            b.sheet(2, 8, 0.004, |u, v| {
                let v = v.clamp(0.0, 1.0);
                let width = wide
                    * match form {
                        0 => (1.0 - v) * (v * 9.0).min(1.0),
                        1 => ((v - stem).max(0.0) * (1.0 - v)).sqrt() * 1.6 + 0.05,
                        _ => 1.0 - 0.9 * v,
                    };
                let out = reach * v * v;
                let up = rise * (v - 0.35 * v * v * v) * if form == 1 { 1.2 } else { 1.4 };
                let side = (u - 0.5) * width;
                base + vec3(cos * out - sin * side, sin * out + cos * side, up + 0.3 * side.abs())
            });
        }
    });
}

/// A table lamp of about this height.
fn table_lamp(s: &mut Studio<'_>, b: &mut Builder, at: Vec3, tall: f32) {
    let mut d = s.design(Kind::Lamp);
    let palette = s.palette();
    let r = tall * d.range(0.22, 0.32);
    let cone = d.range(0.55, 1.0);
    b.class(LAMP).paint(d.pick(&[
        palette.ceramic,
        palette.brass,
        palette.woods[0],
        palette.dark_metal,
        palette.plastic,
    ]));
    b.within(Affine3A::from_translation(at), |b| {
        if d.chance(0.5) {
            b.loft(
                &[round(0.07, 0.0), round(0.07, 0.015), round(0.011, 0.03), round(0.011, tall * 0.7)],
                2.0,
                18,
                [true, false],
            );
        } else {
            b.loft(
                &[
                    round(0.05, 0.0),
                    round(0.09, tall * 0.22),
                    round(0.04, tall * 0.5),
                    round(0.015, tall * 0.55),
                    round(0.012, tall * 0.7),
                ],
                2.0,
                20,
                [true, false],
            );
        }
        b.paint(palette.shade);
        b.loft(
            &[
                round(r, tall * 0.58),
                round(r * cone, tall),
                round(r * cone - 0.004, tall - 0.002),
                round(r - 0.004, tall * 0.58),
            ],
            2.0,
            26,
            [false, false],
        );
    });
}

/// A floor lamp.
pub(in crate::synth) fn floor_lamp(s: &mut Studio<'_>) -> Piece {
    let mut d = s.design(Kind::Lamp);
    let palette = s.palette();
    let (tall, r, cone) = (d.range(1.45, 1.75), d.range(0.15, 0.24), d.range(0.55, 0.95));
    let mut b = Builder::new(LAMP);
    b.within(Affine3A::from_translation(vec3(0.0, 0.25, 0.0)), |b| {
        b.paint(d.pick(&[palette.dark_metal, palette.metal, palette.brass]));
        if d.chance(0.6) {
            b.loft(&[round(0.14, 0.0), round(0.14, 0.018), round(0.02, 0.03)], 2.0, 24, [true, false]);
            b.rod(vec3(0.0, 0.0, 0.02), vec3(0.0, 0.0, tall - 0.1), 0.012, 0.012, 8);
        } else {
            for k in 0..3 {
                let (sin, cos) = (k as f32 * std::f32::consts::TAU / 3.0).sin_cos();
                b.rod(vec3(0.22 * cos, 0.22 * sin, 0.0), vec3(0.02 * cos, 0.02 * sin, tall - 0.25), 0.012, 0.016, 8);
            }
        }
        b.paint(palette.shade);
        b.loft(
            &[
                round(r, tall - 0.3),
                round(r * cone, tall),
                round(r * cone - 0.004, tall - 0.002),
                round(r - 0.004, tall - 0.3),
            ],
            2.0,
            28,
            [false, false],
        );
    });
    Piece::of(b)
}

/// A ceiling lamp that hangs down from the origin.
pub(in crate::synth) fn ceiling_lamp(s: &mut Studio<'_>) -> Piece {
    let mut d = s.first_design(Kind::Lamp);
    let palette = s.palette();
    let mut b = Builder::new(LAMP);
    match d.count(0, 2) {
        0 => {
            b.paint(palette.shade);
            let r = d.range(0.15, 0.24);
            b.loft(
                &[round(0.0, -0.11), round(r * 0.6, -0.10), round(r * 0.95, -0.06), round(r, -0.01), round(r, 0.0)],
                2.0,
                30,
                [false, false],
            );
        }
        1 => {
            let drop = d.range(0.35, 0.55);
            b.paint(palette.dark_metal);
            b.rod(vec3(0.0, 0.0, -drop), vec3(0.0, 0.0, 0.0), 0.005, 0.005, 6);
            b.rod(vec3(0.0, 0.0, -0.03), vec3(0.0, 0.0, 0.0), 0.05, 0.05, 14);
            b.paint(palette.shade);
            let r = d.range(0.14, 0.24);
            b.loft(&[round(r, -drop - 0.16), round(r * 0.85, -drop - 0.05), round(0.04, -drop)], 2.0, 28, [true, true]);
        }
        _ => {
            b.paint(palette.white);
            b.block(vec3(0.0, 0.0, -0.035), vec3(0.64, 0.34, 0.035));
            b.paint(palette.shade);
            b.block(vec3(0.0, 0.0, -0.045), vec3(0.58, 0.28, 0.012));
        }
    }
    Piece::of(b)
}

/// A plant that stands on the floor.
pub(in crate::synth) fn plant(s: &mut Studio<'_>) -> Piece {
    let tall = s.draw.range(0.7, 1.5);
    let mut b = Builder::new(OTHER_PROP);
    plant_at(s, &mut b, vec3(0.0, 0.3, 0.0), tall);
    Piece::of(b)
}

/// A bin.
pub(in crate::synth) fn bin(s: &mut Studio<'_>) -> Piece {
    let mut d = s.design(Kind::Small);
    let palette = s.palette();
    let (r, tall) = (d.range(0.11, 0.16), d.range(0.26, 0.5));
    let mut b = Builder::new(OTHER_FURNITURE);
    b.paint(d.pick(&[palette.metal, palette.plastic, palette.dark_plastic, palette.white]));
    let exponent = if d.chance(0.6) { 2.0 } else { 6.0 };
    b.within(Affine3A::from_translation(vec3(0.0, r, 0.0)), |b| {
        if d.chance(0.4) {
            b.loft(
                &[round(r, 0.0), round(r, tall), round(r * 0.7, tall + 0.05), round(0.0, tall + 0.06)],
                exponent,
                26,
                [true, false],
            );
        } else {
            b.loft(
                &[round(r * 0.75, 0.0), round(r, tall), round(r * 0.95, tall), round(r * 0.7, 0.02)],
                exponent,
                26,
                [true, true],
            );
        }
    });
    Piece::of(b)
}

/// A stack of one to three boxes.
pub(in crate::synth) fn boxes(s: &mut Studio<'_>) -> Piece {
    let mut b = Builder::new(BOX);
    let mut z = 0.0;
    for _ in 0..s.draw.count(1, 3) {
        let size = vec3(s.draw.range(0.3, 0.5), s.draw.range(0.25, 0.4), s.draw.range(0.18, 0.38));
        let turn = s.draw.range(-0.25, 0.25);
        b.paint(s.palette().cardboard);
        b.within(placed(vec3(0.0, 0.3, z), turn), |b| {
            b.block(Vec3::ZERO, size);
            b.paint(s.palette().white);
            b.block(vec3(0.0, 0.0, size.z), vec3(size.x, 0.05, 0.001));
        });
        z += size.z;
        if z > 0.6 {
            break;
        }
    }
    Piece::of(b)
}

/// A bag on the floor.
pub(in crate::synth) fn bag(s: &mut Studio<'_>) -> Piece {
    let palette = s.palette();
    let mut b = Builder::new(BAG);
    b.paint(s.draw.pick(&[palette.dark_plastic, palette.cushions[0], palette.cushions[2], palette.plastic]));
    let (x, y, z) = (s.draw.range(0.14, 0.22), s.draw.range(0.07, 0.1), s.draw.range(0.3, 0.44));
    b.within(Affine3A::from_translation(vec3(0.0, y + 0.02, 0.0)) * Affine3A::from_rotation_x(0.12), |b| {
        b.loft(
            &[
                ring(x * 0.9, y, 0.0),
                ring(x, y * 1.15, z * 0.3),
                ring(x * 0.95, y, z * 0.75),
                ring(x * 0.55, y * 0.45, z),
            ],
            3.5,
            28,
            [true, true],
        );
        b.rounded(vec3(-x * 0.7, y * 0.9, z * 0.1), vec3(x * 0.7, y * 1.5, z * 0.5), 0.03);
        b.tube(
            &[
                vec3(-0.05, 0.0, z - 0.02),
                vec3(-0.04, 0.0, z + 0.06),
                vec3(0.04, 0.0, z + 0.06),
                vec3(0.05, 0.0, z - 0.02),
            ],
            0.009,
            8,
        );
    });
    Piece::of(b)
}

/// A stand with clothes on it.
pub(in crate::synth) fn clothes_stand(s: &mut Studio<'_>) -> Piece {
    let palette = s.palette();
    let mut b = Builder::new(OTHER_FURNITURE);
    let tall = s.draw.range(1.65, 1.8);
    b.paint(palette.woods[1]);
    b.within(Affine3A::from_translation(vec3(0.0, 0.27, 0.0)), |b| {
        b.rod(vec3(0.0, 0.0, 0.0), vec3(0.0, 0.0, tall), 0.022, 0.018, 10);
        for k in 0..4 {
            let (sin, cos) = (k as f32 * std::f32::consts::FRAC_PI_2 + 0.4).sin_cos();
            b.rod(vec3(0.24 * cos, 0.24 * sin, 0.0), vec3(0.0, 0.0, 0.28), 0.014, 0.014, 8);
            b.tube(
                &[
                    vec3(0.0, 0.0, tall - 0.12),
                    vec3(0.13 * cos, 0.13 * sin, tall - 0.06),
                    vec3(0.16 * cos, 0.16 * sin, tall + 0.02),
                ],
                0.010,
                8,
            );
            if s.draw.chance(0.6) {
                let seed = s.draw.seed() as u32;
                b.class(CLOTHES).paint(s.draw.pick(&[
                    palette.cushions[0],
                    palette.cushions[1],
                    palette.towels[0],
                    palette.dark_plastic,
                    palette.sofa,
                ]));
                let long = s.draw.range(0.6, 0.95);
                let at = vec3(0.13 * cos, 0.13 * sin, tall - 0.06);
                b.sheet(20, 12, 0.02, |u, v| {
                    let t = u * std::f32::consts::TAU;
                    let down = 1.0 - v;
                    let r =
                        0.03 + 0.12 * down.clamp(0.0, 1.0).powf(0.5) + 0.03 * (noise(t * 2.0, down * 2.0, seed) - 0.5);
                    at + vec3(r * t.cos(), 0.75 * r * t.sin(), -long * down)
                });
                b.class(OTHER_FURNITURE).paint(palette.woods[1]);
            }
        }
    });
    Piece::of(b)
}

/// A radiator of this width at the wall.
pub(in crate::synth) fn radiator(s: &mut Studio<'_>, width: f32) -> Piece {
    let palette = s.palette();
    let mut b = Builder::new(OTHER_FURNITURE);
    b.paint(palette.white);
    let count = (width / 0.055) as usize;
    let tall = s.draw.range(0.5, 0.62);
    for i in 0..count {
        let x = -0.5 * width + 0.055 * (i as f32 + 0.5);
        b.rounded(vec3(x - 0.022, 0.04, 0.12), vec3(x + 0.022, 0.12, 0.12 + tall), 0.012);
    }
    for z in [0.17, 0.07 + tall] {
        b.rod(vec3(-0.5 * width, 0.08, z), vec3(0.5 * width, 0.08, z), 0.018, 0.018, 8);
    }
    b.rod(vec3(-0.5 * width + 0.02, 0.08, 0.0), vec3(-0.5 * width + 0.02, 0.08, 0.17), 0.010, 0.010, 8);
    Piece::of(b)
}

/// A carpet on the floor around the origin.
pub(in crate::synth) fn rug(s: &mut Studio<'_>, [width, depth]: [f32; 2]) -> Piece {
    let kind = s.draw.count(0, 3) as u32;
    let colors = std::array::from_fn(|_| {
        rgb(s.draw.pick(&[0x7a2f2a, 0xcdb892, 0x2f4258, 0x8a8f8a, 0xb98a4a, 0xe3dccb, 0x4d5a44, 0x9a5a55]))
    });
    let seed = s.draw.seed() as u32;
    let pile = s.material(Material::new(Pattern::Rug(width, depth, kind), colors, seed));
    let mut b = Builder::new(FLOOR_MAT);
    b.paint(pile);
    let (x, y) = (0.5 * width, 0.5 * depth);
    if s.draw.chance(0.2) {
        b.loft(&[ring(x, y, 0.001), ring(x, y, 0.010), ring(0.0, 0.0, 0.011)], 2.0, 44, [false, false]);
    } else {
        b.cuboid(vec3(-x, -y, 0.001), vec3(x, y, 0.008));
        b.quad_at(vec3(-x, -y, 0.010), vec3(width, 0.0, 0.0), vec3(0.0, depth, 0.0), Vec2::ZERO);
    }
    Piece::of(b)
}

fn display(s: &mut Studio<'_>, b: &mut Builder, [width, height]: [f32; 2], low: f32, y: f32) {
    let palette = s.palette();
    let seed = s.draw.seed() as u32;
    let tone = s.draw.pick(&[0x26547c, 0x3c6e47, 0x50385a, 0x7c4a26]);
    let mut screen = Material::new(Pattern::Screen(width, height), [rgb(tone); 3], seed).gloss(0.5).loss(0.6);
    if s.draw.chance(0.45) {
        screen.glow = 0.6;
    }
    let screen = s.material(screen);
    let bezel = 0.012;
    b.paint(palette.dark_plastic);
    b.rounded(
        vec3(-0.5 * width - bezel, y - 0.035, low),
        vec3(0.5 * width + bezel, y, low + height + 2.0 * bezel),
        0.008,
    );
    b.paint(screen);
    b.quad_at(vec3(0.5 * width, y + 0.001, low + bezel), vec3(-width, 0.0, 0.0), vec3(0.0, 0.0, height), Vec2::ZERO);
}

/// A standing television with its foot at the origin.
pub(in crate::synth) fn television(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let width = s.draw.range(0.8, 1.25).min(max_width);
    let mut b = Builder::new(TELEVISION);
    b.paint(s.palette().dark_plastic);
    b.block(vec3(0.0, 0.0, 0.0), vec3(0.4 * width, 0.2, 0.015));
    b.block(vec3(0.0, -0.02, 0.0), vec3(0.08, 0.04, 0.12));
    display(s, &mut b, [width, width * 0.56], 0.07, 0.02);
    Piece::of(b)
}

/// A television on the wall, with its origin on the floor.
pub(in crate::synth) fn wall_television(s: &mut Studio<'_>) -> Piece {
    let width = s.draw.range(0.9, 1.3);
    let mut b = Builder::new(TELEVISION);
    let z = s.draw.range(0.95, 1.1);
    display(s, &mut b, [width, width * 0.56], z, 0.07);
    Piece::of(b)
}

/// A whiteboard.
pub(in crate::synth) fn whiteboard(s: &mut Studio<'_>) -> Piece {
    let palette = s.palette();
    let mut b = Builder::new(WHITEBOARD);
    let (half, low, high) = (s.draw.range(0.5, 0.9), 0.95, s.draw.range(1.8, 2.0));
    b.paint(palette.metal);
    b.cuboid(vec3(-half, 0.0, low), vec3(half, 0.016, high));
    b.cuboid(vec3(-half * 0.6, 0.016, low - 0.01), vec3(half * 0.6, 0.07, low + 0.005));
    b.paint(palette.white);
    b.cuboid(vec3(-half + 0.025, 0.016, low + 0.025), vec3(half - 0.025, 0.018, high - 0.025));
    for _ in 0..s.draw.count(2, 7) {
        let ink = s.draw.pick(&[palette.dark_plastic, palette.plastic, palette.dark_metal]);
        let (x, z, long) =
            (s.draw.range(-half + 0.1, half - 0.4), s.draw.range(low + 0.12, high - 0.1), s.draw.range(0.1, 0.35));
        b.paint(ink);
        b.cuboid(vec3(x, 0.018, z), vec3(x + long, 0.0185, z + 0.008));
    }
    Piece::of(b)
}

/// Returns small things for the tops of `piece`, about `density` per square metre. They do not touch each
/// other.
pub(in crate::synth) fn place_clutter(s: &mut Studio<'_>, piece: &Piece, density: f32) -> Vec<Piece> {
    piece.tops.iter().flat_map(|top| clutter_on(s, top, density)).collect()
}

fn clutter_on(s: &mut Studio<'_>, top: &Top, density: f32) -> Vec<Piece> {
    let size = top.max - top.min;
    let mut taken: Vec<(Vec2, f32)> = Vec::new();
    let mut pieces = Vec::new();
    let place = |s: &mut Studio<'_>,
                 taken: &mut Vec<(Vec2, f32)>,
                 at: Option<Vec2>,
                 radius: f32,
                 build: &dyn Fn(&mut Studio<'_>, &mut Builder, Vec3)| {
        for _ in 0..8 {
            let margin = radius.min(0.5 * size.min_element());
            let p = at.unwrap_or_else(|| {
                vec2(
                    s.draw.range(top.min.x + margin, top.max.x - margin),
                    s.draw.range(top.min.y + margin, top.max.y - margin),
                )
            });
            if taken.iter().all(|(q, r)| q.distance(p) > r + radius) {
                taken.push((p, radius));
                let mut b = Builder::new(OTHER_PROP);
                build(s, &mut b, p.extend(top.z));
                return Some(Piece::of(b));
            }
            if at.is_some() {
                return None;
            }
        }
        None
    };
    if top.use_as == Use::Desk {
        let x = 0.5 * (top.min.x + top.max.x) + s.draw.range(-0.12, 0.12);
        let screens = if size.x > 1.3 && s.draw.chance(0.35) { 2 } else { 1 };
        if s.draw.chance(0.75) {
            for i in 0..screens {
                let at = vec2(x + (i as f32 - 0.5 * (screens - 1) as f32) * 0.58, top.min.y + 0.16);
                let screen = real::thing(s, ModelKind::Monitor, Vec2::splat(0.8));
                pieces.extend(match screen {
                    Some((screen, _)) => place(s, &mut taken, Some(at), 0.27, &|_, b, at| stand(b, &screen, at, 0.0)),
                    None => place(s, &mut taken, Some(at), 0.27, &monitor),
                });
            }
            pieces.extend(place(s, &mut taken, Some(vec2(x, top.max.y - 0.1)), 0.12, &keyboard));
        } else {
            let at = Some(vec2(x, top.max.y - 0.16));
            let screen = real::thing(s, ModelKind::Laptop, Vec2::splat(0.6));
            pieces.extend(match screen {
                Some((screen, _)) => place(s, &mut taken, at, 0.2, &|_, b, at| stand(b, &screen, at, 0.0)),
                None => place(s, &mut taken, at, 0.2, &laptop),
            });
        }
        if s.draw.chance(0.6) {
            let side = if s.draw.chance(0.5) { top.min.x + 0.12 } else { top.max.x - 0.12 };
            pieces.extend(place(s, &mut taken, Some(vec2(side, top.min.y + 0.14)), 0.12, &|s, b, at| {
                table_lamp(s, b, at, 0.42)
            }));
        }
    }
    if top.use_as == Use::Night && s.draw.chance(0.75) {
        let at = vec2(0.5 * (top.min.x + top.max.x), top.min.y + 0.13);
        let lamp = real::thing(s, ModelKind::TableLamp, size.min(Vec2::splat(0.6)));
        pieces.extend(match lamp {
            Some((lamp, radius)) => place(s, &mut taken, Some(at), 0.7 * radius, &|_, b, at| stand(b, &lamp, at, 0.0)),
            None => place(s, &mut taken, Some(at), 0.11, &|s, b, at| {
                let tall = s.draw.range(0.36, 0.48);
                table_lamp(s, b, at, tall);
            }),
        });
    }
    let count = (density * size.x * size.y * s.draw.range(0.5, 1.5)).round() as usize;
    for _ in 0..count.min(9) {
        if let Some((thing, radius)) = real::small(s, top.use_as, size) {
            let turn = s.draw.range(0.0, std::f32::consts::TAU);
            pieces.extend(place(s, &mut taken, None, radius, &|_, b, at| stand(b, &thing, at, turn)));
            continue;
        }
        let kinds: &[usize] = match top.use_as {
            Use::Dining => &[0, 0, 1, 1, 2, 3, 5, 6],
            Use::Low => &[0, 2, 3, 4, 4, 6, 7, 10],
            Use::Desk => &[0, 4, 4, 5, 7, 7, 7, 10],
            Use::Kitchen => &[1, 1, 2, 5, 5, 8, 9, 11, 3],
            Use::Display => &[2, 3, 4, 6, 6, 10, 12],
            Use::Night => &[0, 4, 7],
            Use::Bath => &[5, 5, 13, 0],
        };
        let kind = s.draw.pick(kinds);
        let piece = match kind {
            0 => place(s, &mut taken, None, 0.06, &cup),
            1 => place(s, &mut taken, None, 0.13, &plate),
            2 => place(s, &mut taken, None, 0.14, &bowl),
            3 => place(s, &mut taken, None, 0.13, &|s, b, at| {
                let tall = s.draw.range(0.2, 0.4);
                plant_at(s, b, at, tall);
            }),
            4 => place(s, &mut taken, None, 0.15, &pile_of_books),
            5 => place(s, &mut taken, None, 0.05, &bottle),
            6 => place(s, &mut taken, None, 0.10, &|s, b, at| ornament(s, b, at, 0.35)),
            7 => place(s, &mut taken, None, 0.16, &papers),
            8 => place(s, &mut taken, None, 0.14, &kettle),
            9 => place(s, &mut taken, None, 0.26, &microwave),
            10 => place(s, &mut taken, None, 0.15, &|s, b, at| {
                b.class(BOX);
                storage_box(s, b, at, vec3(0.2, 0.15, 0.1));
            }),
            11 => place(s, &mut taken, None, 0.19, &cutting_board),
            12 => place(s, &mut taken, None, 0.14, &|s, b, at| table_lamp(s, b, at, 0.5)),
            _ => place(s, &mut taken, None, 0.14, &folded_towel),
        };
        pieces.extend(piece);
    }
    pieces
}

/// Stands a piece with its origin at `at`.
fn stand(b: &mut Builder, piece: &Piece, at: Vec3, turn: f32) {
    b.mesh.append(&piece.mesh, &placed(at, turn), 0);
}

fn cup(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    let palette = s.palette();
    let (r, tall) = (s.draw.range(0.035, 0.045), s.draw.range(0.08, 0.11));
    b.paint(s.draw.pick(&[palette.ceramic, palette.plastic, palette.white, palette.pot]));
    b.within(placed(at, s.draw.range(0.0, 6.0)), |b| {
        b.loft(
            &[round(r * 0.8, 0.0), round(r, tall), round(r * 0.9, tall), round(r * 0.75, 0.01)],
            2.0,
            18,
            [true, true],
        );
        b.tube(
            &[
                vec3(r * 0.9, 0.0, tall * 0.8),
                vec3(r + 0.025, 0.0, tall * 0.75),
                vec3(r + 0.025, 0.0, tall * 0.35),
                vec3(r * 0.85, 0.0, tall * 0.25),
            ],
            0.005,
            6,
        );
    });
}

fn plate(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    b.paint(s.palette().ceramic);
    b.within(Affine3A::from_translation(at), |b| {
        b.loft(&[round(0.06, 0.0), round(0.125, 0.02), round(0.12, 0.022), round(0.065, 0.006)], 2.0, 28, [true, true])
    });
    if s.draw.chance(0.4) {
        cup(s, b, at + vec3(0.0, 0.0, 0.008));
    }
}

fn bowl(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    let palette = s.palette();
    let (r, tall) = (s.draw.range(0.09, 0.14), s.draw.range(0.06, 0.09));
    b.paint(s.draw.pick(&[palette.ceramic, palette.woods[0], palette.plastic, palette.metal]));
    b.within(Affine3A::from_translation(at), |b| {
        b.loft(
            &[
                round(r * 0.5, 0.0),
                round(r * 0.85, tall * 0.45),
                round(r, tall),
                round(r * 0.94, tall),
                round(r * 0.78, tall * 0.5),
                round(r * 0.4, 0.012),
            ],
            2.0,
            28,
            [true, true],
        )
    });
    if s.draw.chance(0.6) {
        for k in 0..s.draw.count(3, 6) {
            let (sin, cos) = (k as f32 * 1.3).sin_cos();
            let fruit = s.draw.pick(&[0xb5322a, 0xd98a26, 0x8fae3a, 0xd9c23a]);
            let fruit = s.material(Material::plain(rgb(fruit)).gloss(0.1));
            b.paint(fruit);
            b.ellipsoid(at + vec3(0.45 * r * cos, 0.45 * r * sin, tall * 0.85), Vec3::splat(0.036), 12);
        }
    }
}

fn bottle(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    let (r, tall) = (s.draw.range(0.028, 0.04), s.draw.range(0.17, 0.3));
    let tone = s.draw.pick(&[0x1f3d24, 0x5a2e1a, 0xc9dbe0, 0xe8e6df, 0x2a6fa0, 0xc04a3a, 0xe0c04a]);
    let glass = s.material(Material::plain(rgb(tone)).gloss(0.35).loss(0.2));
    b.paint(glass);
    b.within(Affine3A::from_translation(at), |b| {
        b.loft(
            &[
                round(r, 0.0),
                round(r, tall * 0.62),
                round(r * 0.4, tall * 0.78),
                round(r * 0.36, tall),
                round(0.0, tall),
            ],
            2.0,
            18,
            [true, false],
        )
    });
}

fn pile_of_books(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    b.class(BOOKS);
    let mut z = 0.0;
    for _ in 0..s.draw.count(1, 4) {
        let size = vec3(s.draw.range(0.17, 0.25), s.draw.range(0.12, 0.18), s.draw.range(0.015, 0.04));
        let paint = spine(s);
        b.paint(paint);
        b.within(placed(at + vec3(0.0, 0.0, z), s.draw.range(-0.4, 0.4)), |b| b.block(Vec3::ZERO, size));
        z += size.z;
    }
}

fn papers(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    b.class(PAPER).paint(s.palette().white);
    for k in 0..s.draw.count(1, 3) {
        b.within(placed(at + vec3(0.0, 0.0, 0.0015 * k as f32), s.draw.range(-0.5, 0.5)), |b| {
            b.block(Vec3::ZERO, vec3(0.21, 0.297, 0.0014))
        });
    }
}

fn kettle(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    let palette = s.palette();
    b.paint(s.draw.pick(&[palette.metal, palette.plastic, palette.white]));
    b.within(placed(at, s.draw.range(0.0, 6.0)), |b| {
        b.loft(
            &[round(0.075, 0.0), round(0.08, 0.03), round(0.055, 0.18), round(0.05, 0.20), round(0.0, 0.21)],
            2.0,
            24,
            [true, false],
        );
        b.tube(
            &[vec3(0.05, 0.0, 0.19), vec3(0.12, 0.0, 0.18), vec3(0.12, 0.0, 0.06), vec3(0.075, 0.0, 0.04)],
            0.011,
            8,
        );
        b.rod(vec3(-0.055, 0.0, 0.14), vec3(-0.1, 0.0, 0.18), 0.018, 0.010, 10);
    });
}

fn microwave(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    let palette = s.palette();
    b.paint(palette.appliance);
    b.within(Affine3A::from_translation(at), |b| {
        b.rounded_block(Vec3::ZERO, vec3(0.46, 0.34, 0.27), 0.01);
        b.paint(palette.dark);
        b.cuboid(vec3(-0.12, 0.165, 0.04), vec3(0.21, 0.173, 0.23));
        b.cuboid(vec3(-0.21, 0.165, 0.19), vec3(-0.14, 0.172, 0.23));
        b.paint(palette.metal);
        b.rod(vec3(-0.125, 0.19, 0.06), vec3(-0.125, 0.19, 0.21), 0.008, 0.008, 8);
    });
}

fn cutting_board(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    b.paint(s.palette().woods[0]);
    b.within(placed(at, s.draw.range(-0.5, 0.5)), |b| b.rounded_block(Vec3::ZERO, vec3(0.34, 0.22, 0.02), 0.006));
}

fn folded_towel(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    b.class(crate::labels::nyu40::TOWEL).paint(s.draw.pick(&s.palette().towels));
    for k in 0..s.draw.count(1, 3) {
        b.rounded_block(at + vec3(0.0, 0.0, 0.045 * k as f32), vec3(0.24, 0.17, 0.045), 0.02);
    }
}

fn monitor(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    let width = s.draw.range(0.46, 0.56);
    b.within(placed(at, s.draw.range(-0.12, 0.12)), |b| {
        b.paint(s.palette().dark_plastic);
        b.block(Vec3::ZERO, vec3(0.2, 0.16, 0.012));
        b.block(vec3(0.0, -0.03, 0.0), vec3(0.06, 0.03, 0.2));
        display(s, b, [width, width * 0.57], 0.11, 0.02);
    });
}

fn keyboard(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    let palette = s.palette();
    b.paint(s.draw.pick(&[palette.dark_plastic, palette.white]));
    b.within(placed(at, s.draw.range(-0.06, 0.06)), |b| {
        b.rounded_block(Vec3::ZERO, vec3(0.42, 0.13, 0.018), 0.005);
        b.paint(palette.dark_plastic);
        for row in 0..4 {
            b.block(vec3(0.0, -0.045 + 0.03 * row as f32, 0.018), vec3(0.39, 0.022, 0.006));
        }
        b.ellipsoid(vec3(-0.28, 0.0, 0.016), vec3(0.03, 0.05, 0.016), 12);
    });
}

fn laptop(s: &mut Studio<'_>, b: &mut Builder, at: Vec3) {
    let metal = s.palette().metal;
    b.within(placed(at, s.draw.range(-0.2, 0.2)), |b| {
        b.paint(metal);
        b.rounded_block(Vec3::ZERO, vec3(0.33, 0.23, 0.016), 0.004);
        b.paint(s.palette().dark_plastic);
        b.block(vec3(0.0, -0.03, 0.016), vec3(0.29, 0.11, 0.002));
        b.within(Affine3A::from_translation(vec3(0.0, -0.11, 0.015)) * Affine3A::from_rotation_x(0.32), |b| {
            display(s, b, [0.31, 0.19], 0.0, 0.0)
        });
    });
}

#[cfg(test)]
mod tests {
    use super::super::{Leg, leg};
    use super::*;
    use crate::synth::draw::Draw;
    use crate::synth::homes::HomeStyle;
    use crate::synth::style::Style;

    #[test]
    fn clutter_stays_on_its_top() {
        let style = Style::new(HomeStyle::Flat, 4);
        let mut s = Studio::new(&style, Draw::new(1, &[2]));
        for use_as in [Use::Dining, Use::Low, Use::Desk, Use::Kitchen, Use::Display, Use::Night, Use::Bath] {
            let mut b = Builder::new(1);
            leg(&mut b, Leg::Square, vec3(0.0, 0.0, 0.7), Vec2::ZERO, 0.1);
            let top = Top { min: vec2(-0.7, 0.0), max: vec2(0.7, 0.7), z: 0.7, use_as };
            let pieces = place_clutter(&mut s, &Piece { mesh: b.mesh, tops: vec![top] }, 12.0);
            assert!(!pieces.is_empty(), "{use_as:?}");
            for piece in pieces {
                let bounds = piece.mesh.bounds();
                assert!(bounds.min.z >= 0.699 && bounds.size().z < 0.9, "{use_as:?} {bounds:?}");
                let center = bounds.center();
                assert!(center.x.abs() < 0.9 && (-0.2..0.9).contains(&center.y), "{use_as:?} {bounds:?}");
            }
        }
    }
}
