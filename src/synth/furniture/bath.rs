//! Bathrooms.

use glam::{Affine3A, vec2, vec3};

use super::kitchen::tap;
use super::{Handle, Kind, Piece, Studio, Top, Use, front, handle};
use crate::labels::nyu40::{
    BATHTUB, CABINET, COUNTER, FLOOR_MAT, MIRROR, OTHER_FURNITURE, OTHER_PROP, SHOWER_CURTAIN, SINK, TOILET, TOWEL,
};
use crate::synth::draw::noise;
use crate::synth::mesh::{Builder, Ring, ring, round};

fn shifted(x: f32, y: f32, center_y: f32, z: f32) -> Ring {
    Ring { half: vec2(x, y), center: vec2(0.0, center_y), z }
}

/// A toilet, with a tank on or in the wall.
pub(in crate::synth) fn toilet(s: &mut Studio<'_>) -> Piece {
    let mut d = s.first_design(Kind::Toilet);
    let palette = s.palette();
    let (half, long, seat) = (d.range(0.175, 0.20), d.range(0.23, 0.27), d.range(0.39, 0.43));
    let tank = d.chance(0.75);
    let back = if tank { d.range(0.16, 0.2) } else { 0.05 };
    let middle = back + 0.06 + long;
    let mut b = Builder::new(TOILET);
    b.paint(palette.ceramic);
    // Foot and bowl, then the inside of the bowl.
    let hung = !tank && d.chance(0.5);
    let foot = if hung { 0.12 } else { 0.0 };
    let rings = [
        shifted(half * 0.62, long * 0.75, middle - 0.07, foot),
        shifted(half * 0.58, long * 0.68, middle - 0.07, foot + 0.05),
        shifted(half * 0.60, long * 0.70, middle - 0.06, 0.5 * (foot + seat)),
        shifted(half * 0.90, long * 0.93, middle - 0.01, seat - 0.08),
        shifted(half, long, middle, seat - 0.02),
        shifted(half, long, middle, seat),
        shifted(half * 0.74, long * 0.78, middle, seat),
        shifted(half * 0.66, long * 0.70, middle, seat - 0.05),
        shifted(half * 0.40, long * 0.42, middle - 0.02, seat - 0.17),
        shifted(half * 0.25, long * 0.25, middle - 0.03, seat - 0.20),
    ];
    b.loft(&rings, 2.3, 32, [true, true]);
    b.rounded(vec3(-half * 0.75, 0.0, foot), vec3(half * 0.75, middle - 0.15, seat - 0.015), 0.03);
    if tank {
        let (width, top) = (d.range(0.19, 0.23), d.range(0.74, 0.84));
        b.rounded(vec3(-width, 0.01, seat - 0.03), vec3(width, back, top), 0.03);
        b.rounded(vec3(-width - 0.012, 0.005, top - 0.005), vec3(width + 0.012, back + 0.012, top + 0.03), 0.012);
        b.paint(palette.metal);
        if d.chance(0.5) {
            b.rod(vec3(0.0, 0.5 * back, top + 0.03), vec3(0.0, 0.5 * back, top + 0.042), 0.024, 0.022, 16);
        } else {
            let at = vec3(-width + 0.05, back, top - 0.07);
            b.tube(&[at, at + vec3(0.0, 0.02, 0.0), at + vec3(0.07, 0.024, -0.01)], 0.007, 8);
        }
    } else {
        b.paint(palette.metal);
        b.rounded(vec3(-0.12, 0.0, 0.95), vec3(0.12, 0.012, 1.1), 0.006);
    }
    // The seat, and the lid down or up.
    let seat_paint = if d.chance(0.8) { palette.white } else { palette.woods[0] };
    b.paint(seat_paint);
    let rim = [
        shifted(half * 1.02, long * 1.02, middle, seat + 0.004),
        shifted(half * 1.03, long * 1.03, middle, seat + 0.014),
        shifted(half * 0.98, long * 0.98, middle, seat + 0.024),
        shifted(half * 0.68, long * 0.72, middle, seat + 0.024),
        shifted(half * 0.66, long * 0.70, middle, seat + 0.004),
    ];
    b.loft(&rim, 2.3, 32, [false, false]);
    let lid = |b: &mut Builder| {
        let center = long * 1.02 + 0.02;
        b.loft(
            &[
                shifted(half, long, center, 0.0),
                shifted(half * 1.02, long * 1.02, center, 0.010),
                shifted(half * 0.92, long * 0.94, center, 0.024),
            ],
            2.3,
            32,
            [true, true],
        );
    };
    let hinge = vec3(0.0, middle - long * 1.02 - 0.02, seat + 0.026);
    let angle = if s.draw.chance(0.55) { 0.0 } else { 1.65 };
    b.within(Affine3A::from_translation(hinge) * Affine3A::from_rotation_x(angle), lid);
    if s.draw.chance(0.6) {
        // Paper on the wall beside it.
        b.class(OTHER_PROP).paint(palette.white);
        let at = vec3(half + 0.16, 0.07, 0.68);
        b.rod(at - vec3(0.05, 0.0, 0.0), at + vec3(0.05, 0.0, 0.0), 0.05, 0.05, 18);
        b.paint(palette.metal);
        b.tube(&[at + vec3(0.055, -0.07, 0.0), at + vec3(0.055, 0.0, 0.0), at - vec3(0.06, 0.0, 0.0)], 0.006, 6);
    }
    Piece::of(b)
}

/// A wash basin with a tap and a mirror: on a column, in a cabinet, or as a bowl on a plate.
pub(in crate::synth) fn basin(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let mut d = s.first_design(Kind::Basin);
    let palette = s.palette();
    let form = d.count(0, 2);
    let (height, depth) = (d.range(0.80, 0.87), d.range(0.43, 0.52));
    let mut b = Builder::new(SINK);
    let mut tops = Vec::new();
    let width;
    let (bowl, deep) = (vec2(d.range(0.20, 0.26), 0.5 * depth - 0.07), 0.14);
    let middle = 0.5 * depth + 0.03;
    let bowl_rings = |from: f32| {
        let at = |x: f32, y: f32, z: f32| shifted(bowl.x * x, bowl.y * y, middle, z);
        [
            at(1.0, 1.0, from),
            at(0.92, 0.92, from - 0.03),
            at(0.70, 0.70, from - 0.8 * deep),
            at(0.25, 0.25, from - deep),
        ]
    };
    match form {
        0 => {
            width = 2.0 * bowl.x + 0.14;
            b.paint(palette.ceramic);
            let half = 0.5 * width;
            let at = |x: f32, y: f32, z: f32| shifted(half * x, 0.5 * depth * y, 0.5 * depth + 0.01, z);
            b.loft(
                &[
                    at(0.35, 0.4, height - 0.22),
                    at(0.75, 0.75, height - 0.14),
                    at(1.0, 1.0, height - 0.05),
                    at(1.0, 1.0, height),
                    shifted(bowl.x, bowl.y, middle, height),
                ],
                3.5,
                40,
                [true, false],
            );
            b.loft(&bowl_rings(height), 2.6, 40, [false, true]);
            b.within(Affine3A::from_translation(vec3(0.0, 0.42 * depth, 0.0)), |b| {
                b.loft(
                    &[
                        round(0.13, 0.0),
                        round(0.11, 0.04),
                        round(0.075, 0.15),
                        round(0.075, 0.5),
                        round(0.11, height - 0.18),
                    ],
                    2.0,
                    24,
                    [true, false],
                );
            });
            tap(&mut b, palette.metal, vec3(0.0, 0.06, height), false);
        }
        _ => {
            width = d.range(0.6, 1.2).min(max_width);
            let half = 0.5 * width;
            let fronts = d.pick(&[palette.front, palette.lacquer, palette.woods[0]]);
            let grip = d.pick(&[Handle::Knob, Handle::Bar]);
            b.class(CABINET).paint(fronts);
            let low = if d.chance(0.4) { 0.28 } else { 0.06 };
            let counter = if form == 1 { height } else { height - 0.13 };
            b.cuboid(vec3(-half + 0.01, 0.0, low), vec3(half - 0.01, depth - 0.02, counter - 0.2));
            for (x0, x1) in [(-half + 0.01, -half + 0.03), (half - 0.03, half - 0.01)] {
                b.cuboid(vec3(x0, 0.0, counter - 0.2), vec3(x1, depth - 0.02, counter - 0.03));
            }
            let doors = (width / 0.42).round().max(1.0) as usize;
            for i in 0..doors {
                let x = |i: usize| -half + 0.01 + (width - 0.02) * i as f32 / doors as f32;
                b.paint(fronts);
                front(&mut b, [x(i), low + 0.01], [x(i + 1), counter - 0.04], depth - 0.02, d.clone().chance(0.5));
                b.paint(palette.metal);
                let at = if i % 2 == 0 { x(i + 1) - 0.035 } else { x(i) + 0.035 };
                handle(&mut b, grip, vec3(at, depth - 0.004, counter - 0.14), true);
            }
            b.class(COUNTER).paint(palette.counter);
            if form == 1 {
                // The plate around the bowl: a ring from the rectangle to the rim, and the edge.
                let outer = |z: f32| Ring { half: vec2(half, 0.5 * depth), center: vec2(0.0, 0.5 * depth), z };
                b.loft(
                    &[outer(height - 0.035), outer(height), shifted(bowl.x + 0.01, bowl.y + 0.01, middle, height)],
                    24.0,
                    48,
                    [false, false],
                );
                b.class(SINK).paint(palette.ceramic);
                b.loft(
                    &[
                        shifted(bowl.x + 0.02, bowl.y + 0.02, middle, height - 0.002),
                        shifted(bowl.x + 0.018, bowl.y + 0.018, middle, height + 0.008),
                        shifted(bowl.x, bowl.y, middle, height + 0.006),
                    ],
                    2.6,
                    40,
                    [false, false],
                );
                b.loft(&bowl_rings(height + 0.006), 2.6, 40, [false, true]);
                tap(&mut b, palette.metal, vec3(0.0, 0.05, height), false);
            } else {
                b.cuboid(vec3(-half, 0.0, counter - 0.035), vec3(half, depth, counter));
                b.class(SINK).paint(palette.ceramic);
                let at = |x: f32, z: f32| shifted(bowl.x * x, bowl.y * x, middle, z);
                b.loft(
                    &[
                        at(0.6, counter),
                        at(0.9, counter + 0.06),
                        at(1.0, height),
                        at(0.95, height),
                        at(0.85, height - 0.04),
                        at(0.4, counter + 0.02),
                    ],
                    2.2,
                    40,
                    [true, true],
                );
                tap(&mut b, palette.metal, vec3(0.0, 0.05, counter), true);
            }
            for x in [-1.0_f32, 1.0] {
                let (x0, x1) = (x * (bowl.x + 0.05), x * (half - 0.03));
                if (x1 - x0).abs() > 0.1 && x1.abs() > x0.abs() {
                    tops.push(Top {
                        min: vec2(x0.min(x1), 0.05),
                        max: vec2(x0.max(x1), depth - 0.06),
                        z: counter,
                        use_as: Use::Bath,
                    });
                }
            }
        }
    }
    let mirror = d.range(0.5, 0.9).min(width);
    b.class(MIRROR).paint(palette.frame);
    let (low, high) = (height + 0.28, height + d.range(0.85, 1.1));
    b.cuboid(vec3(-0.5 * mirror - 0.02, 0.0, low - 0.02), vec3(0.5 * mirror + 0.02, 0.018, high + 0.02));
    b.paint(palette.mirror);
    b.cuboid(vec3(-0.5 * mirror, 0.018, low), vec3(0.5 * mirror, 0.022, high));
    Piece { mesh: b.mesh, tops }
}

/// A bathtub with its long side along the wall.
pub(in crate::synth) fn bathtub(s: &mut Studio<'_>, length: f32) -> Piece {
    let mut d = s.first_design(Kind::Bathtub);
    let palette = s.palette();
    let (width, height) = (d.range(0.70, 0.80), d.range(0.52, 0.60));
    let (half, middle) = (0.5 * length, 0.5 * width);
    let free = d.chance(0.25);
    let at = |x: f32, y: f32, z: f32| Ring { half: vec2(x, y), center: vec2(0.0, middle), z };
    let mut b = Builder::new(BATHTUB);
    let (rim_x, rim_y) = if free { (0.04, 0.04) } else { (0.09, 0.07) };
    if free {
        b.paint(palette.ceramic);
        b.loft(
            &[
                at(half * 0.78, middle * 0.70, 0.0),
                at(half * 0.85, middle * 0.8, 0.1),
                at(half, middle, height),
                at(half - rim_x, middle - rim_y, height),
            ],
            2.6,
            56,
            [true, false],
        );
    } else {
        b.paint(if d.chance(0.4) { palette.wall_tiles } else { palette.ceramic });
        b.cuboid(vec3(-half, 0.0, 0.0), vec3(half, 0.012, height - 0.03));
        b.quad_at(
            vec3(half, width - 0.01, 0.0),
            vec3(-length, 0.0, 0.0),
            vec3(0.0, 0.0, height - 0.03),
            vec2(0.0, 0.0),
        );
        b.quad_at(
            vec3(half - 0.002, 0.0, 0.0),
            vec3(0.0, width - 0.01, 0.0),
            vec3(0.0, 0.0, height - 0.03),
            vec2(0.0, 0.0),
        );
        b.quad_at(
            vec3(-half + 0.002, width - 0.01, 0.0),
            vec3(0.0, -width + 0.01, 0.0),
            vec3(0.0, 0.0, height - 0.03),
            vec2(0.0, 0.0),
        );
        b.paint(palette.ceramic);
        b.loft(
            &[
                at(half, middle, height - 0.04),
                at(half, middle, height - 0.008),
                at(half - 0.008, middle - 0.008, height),
            ],
            40.0,
            64,
            [false, false],
        );
        b.loft(
            &[at(half - 0.008, middle - 0.008, height), at(half - rim_x, middle - rim_y, height)],
            9.0,
            64,
            [false, false],
        );
        // Fills the space between the round rim and the corners of the box.
        b.cuboid(vec3(-half + 0.004, 0.004, height - 0.02), vec3(-half + 0.03, width - 0.004, height - 0.002));
        b.cuboid(vec3(half - 0.03, 0.004, height - 0.02), vec3(half - 0.004, width - 0.004, height - 0.002));
    }
    b.loft(
        &[
            at(half - rim_x, middle - rim_y, height),
            at(half - rim_x - 0.02, middle - rim_y - 0.015, height - 0.03),
            at(half - rim_x - 0.09, middle - rim_y - 0.06, height - 0.36),
            at(half - rim_x - 0.2, middle - rim_y - 0.12, height - 0.41),
        ],
        4.5,
        56,
        [false, true],
    );
    // Tap and hose at one end.
    let end = vec3(-half + 0.04, middle, height + 0.14);
    b.paint(palette.metal);
    b.rod(vec3(-half + 0.03, middle - 0.09, height), vec3(-half + 0.03, middle - 0.09, height + 0.14), 0.012, 0.012, 8);
    b.rod(end - vec3(0.0, 0.12, 0.0), end + vec3(0.0, 0.12, 0.0), 0.018, 0.018, 10);
    b.tube(&[end, end + vec3(0.13, 0.0, 0.0), end + vec3(0.15, 0.0, -0.05)], 0.012, 8);
    b.tube(&[end, vec3(-half + 0.02, middle, 1.9), vec3(-half + 0.16, middle, 1.98)], 0.009, 8);
    b.rod(vec3(-half + 0.15, middle, 1.98), vec3(-half + 0.19, middle, 1.93), 0.02, 0.06, 16);
    if s.draw.chance(0.5) {
        b.class(OTHER_PROP);
        for i in 0..s.draw.count(1, 3) {
            b.paint(s.draw.pick(&[palette.plastic, palette.white, palette.cushions[0]]));
            let at = vec3(half - 0.12 - 0.09 * i as f32, 0.035, height);
            b.rod(at, at + vec3(0.0, 0.0, s.draw.range(0.12, 0.2)), 0.027, 0.025, 12);
        }
    }
    Piece::of(b)
}

/// A curtain on a rod along the front of a bathtub or shower. It is drawn over a share of its length.
pub(in crate::synth) fn shower_curtain(s: &mut Studio<'_>, length: f32, y: f32) -> Piece {
    let palette = s.palette();
    let mut b = Builder::new(SHOWER_CURTAIN);
    let (rod, low) = (s.draw.range(1.92, 2.05), s.draw.range(0.16, 0.3));
    b.paint(palette.metal);
    b.rod(vec3(-0.5 * length, y, rod), vec3(0.5 * length, y, rod), 0.013, 0.013, 10);
    let share = s.draw.range(0.35, 0.85);
    let side = if s.draw.chance(0.5) { 1.0 } else { -1.0 };
    let folds = (length / 0.15).round();
    let (amplitude, seed) = (s.draw.range(0.025, 0.045) * (1.35 - share), s.draw.seed() as u32);
    b.paint(palette.shower);
    let width = length * share;
    b.sheet(96, 14, 0.006, |u, v| {
        let u = 1.0 - u;
        let phase = u * folds * std::f32::consts::TAU + 1.5 * noise(u * 5.0, 1.0, seed);
        let loose = 0.6 + 0.6 * (1.0 - v);
        let x = side * (0.5 * length - width * (1.0 - u));
        let x = if side > 0.0 { x } else { -0.5 * length + width * u };
        vec3(
            x,
            y + amplitude * loose * phase.sin() + 0.015 * (noise(u * 3.0, v * 2.0, seed) - 0.5),
            low + (rod - 0.03 - low) * v,
        )
    });
    b.paint(palette.metal);
    for i in 0..12 {
        let t = width * (i as f32 + 0.5) / 12.0;
        let x = if side > 0.0 { 0.5 * length - t } else { -0.5 * length + t };
        b.rod(vec3(x, y, rod - 0.05), vec3(x, y, rod + 0.02), 0.004, 0.004, 5);
    }
    Piece::of(b)
}

/// A washing machine.
pub(in crate::synth) fn washing_machine(s: &mut Studio<'_>) -> Piece {
    let mut d = s.first_design(Kind::Washer);
    let palette = s.palette();
    let (width, depth, height) = (0.6, d.range(0.5, 0.6), 0.85);
    let half = 0.5 * width;
    let mut b = Builder::new(OTHER_FURNITURE);
    b.paint(palette.white);
    b.rounded(vec3(-half, 0.0, 0.015), vec3(half, depth, height), 0.012);
    let at = |y: f32, r: f32| (vec3(0.0, y, 0.42), r);
    let ((p, r), (q, t)) = (at(depth - 0.01, 0.19), at(depth + 0.03, 0.175));
    b.paint(palette.metal);
    b.rod(p, q, r, t, 32);
    b.paint(palette.dark);
    b.rod(q - vec3(0.0, 0.005, 0.0), q + vec3(0.0, 0.012, 0.0), 0.135, 0.12, 32);
    b.cuboid(vec3(0.02, depth - 0.005, 0.74), vec3(0.2, depth + 0.003, 0.79));
    b.paint(palette.metal);
    b.rod(vec3(-0.02, depth, 0.765), vec3(-0.02, depth + 0.02, 0.765), 0.03, 0.027, 16);
    b.paint(palette.lacquer);
    b.cuboid(vec3(-half + 0.03, depth - 0.005, 0.73), vec3(-0.09, depth + 0.004, 0.80));
    Piece::with_top(b, [-half + 0.05, 0.06], [half - 0.05, depth - 0.06], height, Use::Bath)
}

/// A towel that hangs over a rail on the wall.
pub(in crate::synth) fn towel_rail(s: &mut Studio<'_>) -> Piece {
    let palette = s.palette();
    let mut b = Builder::new(TOWEL);
    let (height, half) = (s.draw.range(1.1, 1.4), s.draw.range(0.22, 0.34));
    b.paint(palette.metal);
    b.tube(
        &[vec3(-half, 0.0, height), vec3(-half, 0.07, height), vec3(half, 0.07, height), vec3(half, 0.0, height)],
        0.009,
        8,
    );
    let (width, drop) = (half * s.draw.range(1.1, 1.7), s.draw.range(0.4, 0.65));
    b.paint(s.draw.pick(&palette.towels));
    let seed = s.draw.seed() as u32;
    b.sheet(14, 30, 0.012, |u, v| {
        let x = (0.5 - u) * width;
        let t = (v - 0.45) * 2.0 * drop;
        let (sin, cos) = (t / 0.03).clamp(-std::f32::consts::FRAC_PI_2, std::f32::consts::FRAC_PI_2).sin_cos();
        let over = (t.abs() - 0.03 * std::f32::consts::FRAC_PI_2).max(0.0);
        let wave = 0.012 * (over * 6.0).min(1.0) * (noise(x * 9.0, t * 2.0, seed) - 0.5);
        vec3(x, 0.07 - 0.02 * sin + wave, height + 0.012 * cos - over)
    });
    Piece::of(b)
}

/// A mat in front of the tub.
pub(in crate::synth) fn bath_mat(s: &mut Studio<'_>) -> Piece {
    let palette = s.palette();
    let mut b = Builder::new(FLOOR_MAT);
    b.paint(s.draw.pick(&palette.towels));
    let (x, y) = (s.draw.range(0.3, 0.42), s.draw.range(0.2, 0.28));
    b.within(Affine3A::from_translation(vec3(0.0, y, 0.0)), |b| {
        b.loft(&[ring(x, y, 0.001), ring(x, y, 0.014), ring(x - 0.01, y - 0.01, 0.02)], 8.0, 32, [false, true]);
    });
    Piece::of(b)
}
