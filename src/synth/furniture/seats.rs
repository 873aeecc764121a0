//! Chairs, armchairs, sofas.

use glam::{Affine3A, vec2, vec3};

use super::{Kind, Leg, Piece, Studio, leg};
use crate::labels::nyu40::{CHAIR, OTHER_FURNITURE, PILLOW, SOFA};
use crate::synth::mesh::{Builder, ring, round};

/// A dining chair.
pub(in crate::synth) fn chair(s: &mut Studio<'_>) -> Piece {
    let mut d = s.first_design(Kind::Chair);
    let palette = s.palette();
    let form = d.count(0, 5);
    let (width, depth) = (d.range(0.40, 0.48), d.range(0.40, 0.47));
    let (seat, top) = (d.range(0.43, 0.48), d.range(0.80, 1.02));
    let lean = d.range(0.05, 0.13);
    let wood = if d.chance(0.25) { palette.lacquer } else { d.pick(&palette.woods) };
    let mut b = Builder::new(CHAIR);
    let (half, thick) = (0.5 * width, d.range(0.030, 0.045));
    if form == 5 {
        // A shell on thin legs.
        let shell = if d.chance(0.6) { palette.plastic } else { palette.seat };
        let metal = d.chance(0.5);
        b.paint(if metal { palette.dark_metal } else { wood });
        for (x, y) in [(-1.0, 0.25), (1.0, 0.25), (-1.0, 0.85), (1.0, 0.85)] {
            let splay = vec2(0.05 * x, if y < 0.5 { -0.06 } else { 0.05 });
            let form = if metal { Leg::Tube } else { Leg::Tapered };
            leg(&mut b, form, vec3(0.30 * width * x, depth * y, seat - 0.01), splay, 0.035);
        }
        b.paint(shell);
        let tall = top - seat;
        b.sheet(14, 20, 0.012, |u, v| {
            let x = (0.5 - u) * 2.0;
            let edge = x * x;
            // The profile goes up the back, then forward along the seat.
            let (y, z) = if v < 0.5 {
                let t = 1.0 - 2.0 * v;
                (-lean * t * t + 0.05, seat + 0.02 + tall * t)
            } else {
                let t = 2.0 * v - 1.0;
                (0.05 + (depth - 0.05) * t, seat + 0.02 - 0.03 * (t * std::f32::consts::PI).sin() - 0.02 * t * t)
            };
            let narrow = if v < 0.5 { 1.0 - 0.12 * (1.0 - 2.0 * v) } else { 1.0 };
            let (forward, up) = if v < 0.5 { (0.09 * edge, 0.0) } else { (0.0, 0.05 * edge * (2.0 - 2.0 * v)) };
            vec3(x * half * narrow, y + forward, z + up)
        });
        return Piece::of(b);
    }
    b.paint(wood);
    let legs = d.pick(&[Leg::Square, Leg::Tapered, Leg::Turned]);
    let splay = if d.chance(0.5) { d.range(0.0, 0.05) } else { 0.0 };
    let inset = thick * 0.6;
    for x in [-1.0, 1.0] {
        leg(&mut b, legs, vec3(x * (half - inset), depth - inset, seat - 0.02), vec2(x * splay, splay), thick * 1.1);
        // The back legs continue as posts.
        let (low, high) =
            (vec3(x * (half - inset), inset, seat - 0.02), vec3(x * (half - inset) * 0.95, inset - lean, top));
        b.rod(vec3(x * (half - inset + splay), -splay, 0.0), low, thick * 0.45, thick * 0.6, 8);
        b.rod(low, high, thick * 0.6, thick * 0.45, 8);
    }
    for (x0, y0, x1, y1) in [(-1.0, 0.0, 1.0, 0.0), (-1.0, 1.0, 1.0, 1.0), (-1.0, 0.0, -1.0, 1.0), (1.0, 0.0, 1.0, 1.0)]
    {
        let at = |x: f32, y: f32, z: f32| vec3(x * (half - inset), inset + y * (depth - 2.0 * inset), z);
        let (p, q) = (at(x0, y0, seat - 0.075), at(x1, y1, seat - 0.02));
        b.cuboid(p - vec3(0.010, 0.010, 0.0), q + vec3(0.010, 0.010, 0.0));
        if form.is_multiple_of(2) && y0 != y1 {
            b.rod(at(x0, y0, 0.16), at(x1, y1, 0.16), 0.010, 0.010, 6);
        }
    }
    // The seat.
    if form == 2 || d.chance(0.45) {
        b.paint(palette.seat);
        b.rounded(vec3(-half, 0.005, seat - 0.02), vec3(half, depth + 0.01, seat + 0.045), 0.03);
    } else {
        b.rounded(vec3(-half, 0.0, seat - 0.02), vec3(half, depth + 0.012, seat + 0.008), 0.010);
    }
    // The back, in a frame that leans with the posts.
    let tall = top - seat;
    let frame = Affine3A::from_translation(vec3(0.0, inset, seat)) * Affine3A::from_rotation_x((lean / tall).atan());
    let inner = half - inset - 0.4 * thick;
    b.within(frame, |b| match form {
        0 => {
            b.paint(wood);
            let count = d.count(3, 6);
            b.rounded(vec3(-half, -0.014, tall - 0.08), vec3(half, 0.014, tall + 0.005), 0.01);
            b.cuboid(vec3(-inner, -0.010, 0.10), vec3(inner, 0.010, 0.135));
            for i in 0..count {
                let x = inner * (2.0 * (i as f32 + 0.5) / count as f32 - 1.0);
                b.cuboid(vec3(x - 0.014, -0.006, 0.12), vec3(x + 0.014, 0.006, tall - 0.06));
            }
        }
        1 => {
            b.paint(wood);
            b.rounded(vec3(-half + 0.01, -0.012, 0.14), vec3(half - 0.01, 0.012, tall), 0.011);
        }
        2 => {
            b.paint(palette.seat);
            b.rounded(vec3(-half + 0.01, -0.02, 0.06), vec3(half - 0.01, 0.035, tall + 0.01), 0.026);
        }
        3 => {
            b.paint(wood);
            for i in 0..d.count(2, 4) {
                let z = tall * (0.30 + 0.22 * i as f32);
                if z < tall - 0.02 {
                    b.rounded(vec3(-inner, -0.009, z - 0.028), vec3(inner, 0.012, z + 0.028), 0.008);
                }
            }
            b.rounded(vec3(-half, -0.012, tall - 0.06), vec3(half, 0.014, tall), 0.01);
        }
        _ => {
            b.paint(wood);
            b.rounded(vec3(-half, -0.012, tall - 0.07), vec3(half, 0.014, tall), 0.012);
            b.rod(vec3(-inner, 0.0, 0.06), vec3(inner, 0.0, tall - 0.05), 0.010, 0.010, 6);
            b.rod(vec3(inner, 0.0, 0.06), vec3(-inner, 0.0, tall - 0.05), 0.010, 0.010, 6);
            b.cuboid(vec3(-inner, -0.008, 0.05), vec3(inner, 0.008, 0.08));
        }
    });
    Piece::of(b)
}

/// A swivel chair on castors.
pub(in crate::synth) fn office_chair(s: &mut Studio<'_>) -> Piece {
    let mut d = s.design(Kind::OfficeChair);
    let palette = s.palette();
    let (seat, width, depth) = (d.range(0.44, 0.52), d.range(0.44, 0.52), d.range(0.44, 0.50));
    let base = if d.chance(0.5) { palette.metal } else { palette.dark_plastic };
    let cover = d.pick(&[palette.dark_plastic, palette.seat, palette.sofa]);
    let middle = vec3(0.0, 0.5 * depth, 0.0);
    let mut b = Builder::new(CHAIR);
    b.paint(base);
    for k in 0..5 {
        let (sin, cos) = (k as f32 * std::f32::consts::TAU / 5.0 + 0.3).sin_cos();
        let tip = middle + vec3(0.30 * cos, 0.30 * sin, 0.075);
        b.rod(middle + vec3(0.0, 0.0, 0.12), tip, 0.026, 0.016, 8);
        b.ellipsoid(tip - vec3(0.0, 0.0, 0.045), vec3(0.028, 0.028, 0.030), 8);
    }
    b.rod(middle + vec3(0.0, 0.0, 0.08), middle + vec3(0.0, 0.0, 0.28), 0.035, 0.032, 10);
    b.paint(palette.metal);
    b.rod(middle + vec3(0.0, 0.0, 0.28), middle + vec3(0.0, 0.0, seat - 0.03), 0.018, 0.018, 10);
    b.paint(palette.dark_plastic);
    b.block(middle + vec3(0.0, 0.0, seat - 0.05), vec3(0.22, 0.22, 0.04));
    b.paint(cover);
    b.rounded(vec3(-0.5 * width, 0.02, seat - 0.02), vec3(0.5 * width, depth + 0.02, seat + 0.06), 0.04);
    let tall = d.range(0.42, 0.68);
    let curve = d.range(0.03, 0.07);
    let narrow = d.range(0.75, 0.98);
    b.paint(palette.dark_plastic);
    b.tube(&[middle + vec3(0.0, -0.08, seat - 0.03), vec3(0.0, -0.06, seat), vec3(0.0, -0.07, seat + 0.3)], 0.022, 8);
    b.paint(cover);
    b.sheet(10, 12, 0.05, |u, v| {
        let (x, t) = (2.0 * u - 1.0, 1.0 - v);
        let lumbar = 0.035 * (t * 4.0).sin();
        let half = 0.5 * width * narrow * (1.0 - 0.25 * (2.0 * t - 1.0).powi(4));
        vec3(x * half, -0.02 + curve * x * x - 0.06 * t + lumbar, seat + 0.12 + tall * t)
    });
    if d.chance(0.7) {
        b.paint(palette.dark_plastic);
        for x in [-1.0, 1.0] {
            let side = x * (0.5 * width + 0.03);
            b.tube(
                &[
                    vec3(x * 0.12, 0.5 * depth, seat - 0.03),
                    vec3(side, 0.45 * depth, seat - 0.02),
                    vec3(side, 0.45 * depth, seat + 0.2),
                ],
                0.016,
                8,
            );
            b.rounded(
                vec3(side - 0.035, 0.22 * depth, seat + 0.2),
                vec3(side + 0.035, 0.80 * depth, seat + 0.235),
                0.014,
            );
        }
    }
    Piece::of(b)
}

/// Design that the sofas and armchairs of a style share.
struct Upholstery {
    arm: usize,
    arm_width: f32,
    depth: f32,
    seat: f32,
    back: f32,
    arm_height: f32,
    leg_height: f32,
    loose_backs: bool,
    plinth: bool,
}

impl Upholstery {
    fn of(s: &mut Studio<'_>) -> Self {
        let mut d = s.first_design(Kind::Sofa);
        Self {
            arm: d.count(0, 2),
            arm_width: d.range(0.10, 0.24),
            depth: d.range(0.80, 0.98),
            seat: d.range(0.38, 0.46),
            back: d.range(0.72, 0.92),
            arm_height: d.range(0.52, 0.66),
            leg_height: d.range(0.05, 0.16),
            loose_backs: d.chance(0.6),
            plinth: d.chance(0.3),
        }
    }

    fn build(&self, s: &mut Studio<'_>, b: &mut Builder, cloth: u16, seats: usize, seat_width: f32) -> f32 {
        let palette = s.palette();
        let inner = seats as f32 * seat_width;
        let width = inner + 2.0 * self.arm_width;
        let (half, depth) = (0.5 * width, self.depth);
        let low = if self.plinth { 0.015 } else { self.leg_height };
        if !self.plinth {
            b.paint(palette.woods[0]);
            for (x, y) in [(-1.0, 0.06), (1.0, 0.06), (-1.0, depth - 0.07), (1.0, depth - 0.07)] {
                leg(b, Leg::Tapered, vec3(x * (half - 0.08), y, low + 0.01), vec2(0.0, 0.0), 0.045);
            }
        }
        b.paint(cloth);
        b.rounded(vec3(-half + 0.01, 0.02, low), vec3(half - 0.01, depth - 0.03, self.seat - 0.12), 0.02);
        b.rounded(
            vec3(-half + 0.5 * self.arm_width, 0.0, low),
            vec3(half - 0.5 * self.arm_width, 0.20, self.back - 0.06),
            0.05,
        );
        for x in [-1.0_f32, 1.0] {
            let (outer, edge) = (x * half, x * (half - self.arm_width));
            match self.arm {
                0 => b.rounded(vec3(outer, 0.0, low), vec3(edge, depth, self.arm_height), 0.03),
                1 => {
                    b.rounded(
                        vec3(outer - x * 0.02, 0.02, low),
                        vec3(edge, depth - 0.02, self.arm_height - 0.06),
                        0.02,
                    );
                    let radius = 0.5 * self.arm_width + 0.02;
                    let middle = 0.5 * (outer + edge);
                    b.rod(
                        vec3(middle, 0.01, self.arm_height - 0.07),
                        vec3(middle, depth, self.arm_height - 0.07),
                        radius,
                        radius,
                        18,
                    );
                }
                _ => {
                    b.rounded(vec3(outer, 0.0, low), vec3(edge, depth, self.arm_height - 0.08), 0.07);
                    b.rounded(
                        vec3(outer - x * 0.01, 0.06, self.arm_height - 0.10),
                        vec3(edge, depth - 0.01, self.arm_height),
                        0.05,
                    );
                }
            }
        }
        for i in 0..seats {
            let x = -0.5 * inner + i as f32 * seat_width;
            let (from, to) = (x + 0.006, x + seat_width - 0.006);
            b.rounded(vec3(from, 0.16, self.seat - 0.13), vec3(to, depth + 0.01, self.seat), 0.045);
            let tilt = Affine3A::from_translation(vec3(0.0, 0.18, self.seat - 0.02)) * Affine3A::from_rotation_x(0.16);
            b.within(tilt, |b| {
                let tall = self.back - self.seat + 0.04;
                if self.loose_backs {
                    b.rounded(vec3(from, 0.0, 0.0), vec3(to, 0.17, tall), 0.075);
                } else {
                    b.rounded(vec3(from - 0.006, -0.02, 0.0), vec3(to + 0.006, 0.11, tall - 0.02), 0.04);
                }
            });
        }
        inner
    }
}

/// A throw pillow that leans on the backrest at `x`.
fn throw_pillow(s: &mut Studio<'_>, b: &mut Builder, at: glam::Vec3) {
    let palette = s.palette();
    let half = s.draw.range(0.19, 0.25);
    let turn = s.draw.range(-0.3, 0.3);
    b.class(PILLOW).paint(s.draw.pick(&palette.cushions));
    let frame = Affine3A::from_translation(at + vec3(0.0, 0.0, half * 0.93))
        * Affine3A::from_rotation_z(turn)
        * Affine3A::from_rotation_x(std::f32::consts::FRAC_PI_2 + 0.35);
    b.within(frame, |b| b.cushion(vec3(0.0, 0.0, 0.0), vec3(half, half, 0.09)));
}

/// A sofa with two or three seats. Some have a long seat at one end.
pub(in crate::synth) fn sofa(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let make = Upholstery::of(s);
    let cloth = s.palette().sofa;
    let mut d = s.design(Kind::Sofa);
    let seat_width = d.range(0.58, 0.74);
    let fits = ((max_width - 2.0 * make.arm_width) / seat_width) as usize;
    let seats = s.draw.count(2, 3).min(fits.max(2));
    let mut b = Builder::new(SOFA);
    let inner = make.build(s, &mut b, cloth, seats, seat_width);
    if seats == 3 && s.draw.chance(0.35) {
        let side = if s.draw.chance(0.5) { 1.0 } else { -1.0 };
        let (from, to) = (side * (0.5 * inner - seat_width), side * (0.5 * inner + make.arm_width));
        let reach = make.depth + d.range(0.45, 0.7);
        b.paint(cloth);
        b.rounded(vec3(from, make.depth - 0.1, 0.03), vec3(to, reach, make.seat - 0.12), 0.03);
        b.rounded(
            vec3(from + side * 0.006, make.depth - 0.2, make.seat - 0.13),
            vec3(to - side * 0.006, reach + 0.01, make.seat),
            0.045,
        );
    }
    for i in 0..s.draw.count(0, 3) {
        let x = match i {
            0 => -0.5 * inner + 0.24,
            1 => 0.5 * inner - 0.24,
            _ => s.draw.range(-0.2, 0.2),
        };
        throw_pillow(s, &mut b, vec3(x, 0.46, make.seat - 0.01));
    }
    Piece::of(b)
}

/// An armchair; the benchmark counts it as a chair.
pub(in crate::synth) fn armchair(s: &mut Studio<'_>) -> Piece {
    let make = Upholstery::of(s);
    let cloth = if s.first_design(Kind::Ottoman).chance(0.5) { s.palette().sofa } else { s.palette().seat };
    let width = s.first_design(Kind::Chair).range(0.52, 0.62);
    let mut b = Builder::new(CHAIR);
    make.build(s, &mut b, cloth, 1, width);
    if s.draw.chance(0.4) {
        throw_pillow(s, &mut b, vec3(0.0, 0.46, make.seat - 0.01));
    }
    Piece::of(b)
}

/// A padded stool.
pub(in crate::synth) fn ottoman(s: &mut Studio<'_>) -> Piece {
    let mut d = s.design(Kind::Ottoman);
    let palette = s.palette();
    let (width, depth, height) = (d.range(0.42, 0.85), d.range(0.4, 0.55), d.range(0.36, 0.46));
    let cloth = d.pick(&[palette.sofa, palette.seat, palette.cushions[0]]);
    let mut b = Builder::new(OTHER_FURNITURE);
    if d.chance(0.4) {
        let radius = 0.5 * depth;
        b.paint(cloth);
        b.within(Affine3A::from_translation(vec3(0.0, radius, 0.0)), |b| {
            b.loft(
                &[
                    round(radius * 0.85, 0.0),
                    round(radius, 0.06),
                    round(radius, height - 0.08),
                    round(radius * 0.93, height - 0.02),
                    ring(0.0, 0.0, height + 0.01),
                ],
                2.0,
                28,
                [true, false],
            );
        });
    } else {
        b.paint(palette.woods[1]);
        for (x, y) in [(-1.0, 0.05), (1.0, 0.05), (-1.0, depth - 0.05), (1.0, depth - 0.05)] {
            leg(&mut b, Leg::Tapered, vec3(x * (0.5 * width - 0.05), y, 0.14), vec2(0.0, 0.0), 0.04);
        }
        b.paint(cloth);
        b.rounded(vec3(-0.5 * width, 0.0, 0.13), vec3(0.5 * width, depth, height), 0.06);
    }
    Piece::of(b)
}
