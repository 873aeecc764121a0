//! Beds.

use glam::{Affine3A, vec2, vec3};

use super::{Handle, Kind, Leg, Piece, Studio, Use, front, handle, leg};
use crate::labels::nyu40::{BED, NIGHT_STAND, PILLOW};
use crate::synth::draw::noise;
use crate::synth::mesh::Builder;

/// A bed for one or two, head at the wall, with bedding and pillows.
pub(in crate::synth) fn bed(s: &mut Studio<'_>, double: bool) -> Piece {
    let mut d = s.design(Kind::Bed);
    let palette = s.palette();
    let width = if double { d.range(1.45, 1.85) } else { d.range(0.92, 1.15) };
    let (length, top) = (d.range(1.98, 2.1), d.range(0.46, 0.60));
    let frame = d.range(0.22, 0.32);
    let wood = d.pick(&[palette.woods[0], palette.woods[1], palette.woods[2], palette.lacquer]);
    let half = 0.5 * width;
    let mut b = Builder::new(BED);
    // The headboard.
    let head = d.range(0.85, 1.2);
    match d.count(0, 4) {
        0 => {
            b.paint(wood);
            b.rounded(vec3(-half - 0.04, 0.0, 0.0), vec3(half + 0.04, 0.05, head), 0.015);
        }
        1 => {
            b.paint(wood);
            for x in [-half - 0.01, half + 0.01] {
                b.block(vec3(x, 0.03, 0.0), vec3(0.06, 0.06, head));
            }
            b.cuboid(vec3(-half, 0.012, head - 0.1), vec3(half, 0.048, head - 0.03));
            b.cuboid(vec3(-half, 0.012, top - 0.05), vec3(half, 0.048, top + 0.02));
            let count = (width / 0.11) as usize;
            for i in 0..count {
                let x = -half + width * (i as f32 + 0.5) / count as f32;
                b.cuboid(vec3(x - 0.016, 0.02, top), vec3(x + 0.016, 0.04, head - 0.08));
            }
        }
        2 => {
            b.paint(palette.sofa);
            let panels = if double { 4 } else { 2 };
            for i in 0..panels {
                let (x0, x1) = (
                    -half - 0.03 + (width + 0.06) * i as f32 / panels as f32,
                    -half - 0.03 + (width + 0.06) * (i + 1) as f32 / panels as f32,
                );
                b.rounded(vec3(x0, 0.0, 0.1), vec3(x1, 0.1, head), 0.04);
            }
        }
        3 => {
            b.paint(palette.dark_metal);
            for x in [-half, half] {
                b.rod(vec3(x, 0.03, 0.0), vec3(x, 0.03, head), 0.02, 0.02, 10);
                b.ellipsoid(vec3(x, 0.03, head), vec3(0.03, 0.03, 0.03), 10);
            }
            for z in [top + 0.02, head - 0.08] {
                b.rod(vec3(-half, 0.03, z), vec3(half, 0.03, z), 0.014, 0.014, 8);
            }
            for i in 1..9 {
                let x = -half + width * i as f32 / 9.0;
                b.rod(vec3(x, 0.03, top), vec3(x, 0.03, head - 0.08), 0.008, 0.008, 6);
            }
        }
        _ => {}
    }
    // The frame.
    b.paint(wood);
    for (x, y) in [(-1.0, 0.1), (1.0, 0.1), (-1.0, length - 0.02), (1.0, length - 0.02)] {
        leg(&mut b, Leg::Square, vec3(x * (half - 0.05), y, frame), vec2(0.0, 0.0), 0.07);
    }
    let low = frame - d.range(0.1, 0.18);
    b.rounded(vec3(-half - 0.02, 0.05, low), vec3(half + 0.02, length + 0.05, frame), 0.012);
    if d.chance(0.3) {
        b.rounded(
            vec3(-half - 0.02, length + 0.02, 0.0),
            vec3(half + 0.02, length + 0.06, top + d.range(0.0, 0.15)),
            0.012,
        );
    }
    // The mattress.
    b.paint(palette.white);
    b.rounded(vec3(-half, 0.07, frame), vec3(half, length + 0.02, top), 0.06);
    // The cover hangs over the sides.
    let hang = s.draw.range(0.12, 0.3).min(top - 0.08);
    let start = if s.draw.chance(0.7) { s.draw.range(0.45, 0.75) } else { 0.12 };
    let seed = s.draw.seed() as u32;
    let end = length + 0.035;
    b.paint(palette.bedding[0]);
    let puff = s.draw.range(0.03, 0.07);
    b.sheet(34, 26, 0.02, |u, v| {
        // Distance along the cover from its middle, over the edge and down.
        let across = (2.0 * u - 1.0) * (half + hang);
        let along = start + v * (end - start + hang);
        let over_x = (across.abs() - half).max(0.0);
        let over_y = (along - end).max(0.0);
        let x = across.clamp(-half - 0.03, half + 0.03);
        let y = along.min(end + 0.03);
        let over = over_x.max(over_y);
        let bump = puff * (0.5 + 0.9 * (noise(across * 3.5, along * 3.5, seed) - 0.3)) * (1.0 - (over * 12.0).min(1.0));
        let wave =
            0.02 * ((along * 16.0 + 5.0 * noise(along * 3.0, 1.0, seed)).sin() * f32::from(u8::from(over_x > 0.02)));
        let wave_y = 0.02 * ((across * 16.0).sin() * f32::from(u8::from(over_y > 0.02)));
        vec3(x + wave * across.signum() + 0.015 * across.signum(), y + wave_y, top + 0.022 + bump - over)
    });
    if start > 0.4 && s.draw.chance(0.6) {
        // The cover is turned back at the head.
        b.paint(palette.bedding[1]);
        b.sheet(20, 6, 0.02, |u, v| {
            let across = (2.0 * u - 1.0) * (half + 0.5 * hang);
            let over = (across.abs() - half).max(0.0);
            vec3(
                across.clamp(-half - 0.05, half + 0.05),
                start - 0.03 + 0.24 * v,
                top + 0.05 + puff * 0.8 - over + 0.01 * (v * std::f32::consts::PI).sin(),
            )
        });
    }
    if s.draw.chance(0.35) {
        // A folded blanket at the foot.
        b.paint(palette.bedding[2]);
        b.sheet(20, 6, 0.03, |u, v| {
            let across = (2.0 * u - 1.0) * (half + 0.25);
            let over = (across.abs() - half).max(0.0);
            vec3(across.clamp(-half - 0.06, half + 0.06), length - 0.62 + 0.45 * v, top + 0.06 + puff - over)
        });
    }
    // Pillows.
    let count = if double { 2 } else { 1 };
    b.class(PILLOW);
    for i in 0..count {
        let x = if double { (i as f32 - 0.5) * width * 0.5 } else { 0.0 };
        b.paint(if s.draw.chance(0.5) { palette.white } else { palette.bedding[1] });
        let lean = if s.draw.chance(0.4) { 0.8 } else { 0.12 };
        let at = vec3(x + s.draw.range(-0.03, 0.03), 0.30 - 0.06 * lean, top + 0.07 + 0.13 * lean);
        let frame = Affine3A::from_translation(at)
            * Affine3A::from_rotation_z(s.draw.range(-0.08, 0.08))
            * Affine3A::from_rotation_x(-lean);
        b.within(frame, |b| b.cushion(vec3(0.0, 0.0, 0.0), vec3(0.33, 0.21, 0.085)));
        if s.draw.chance(0.35) {
            b.paint(s.draw.pick(&palette.cushions));
            let frame = Affine3A::from_translation(vec3(x, 0.48, top + 0.19)) * Affine3A::from_rotation_x(-1.1);
            b.within(frame, |b| b.cushion(vec3(0.0, 0.0, 0.0), vec3(0.2, 0.2, 0.08)));
        }
    }
    Piece::of(b)
}

/// A small cabinet beside a bed.
pub(in crate::synth) fn night_stand(s: &mut Studio<'_>) -> Piece {
    let mut d = s.first_design(Kind::NightStand);
    let palette = s.palette();
    let (width, depth, height) = (d.range(0.38, 0.52), d.range(0.34, 0.42), d.range(0.45, 0.62));
    let half = 0.5 * width;
    let body = d.pick(&[palette.woods[0], palette.woods[1], palette.lacquer]);
    let grip = d.pick(&[Handle::Knob, Handle::Cup, Handle::Bar]);
    let open = d.chance(0.4);
    let mut b = Builder::new(NIGHT_STAND);
    b.paint(body);
    b.cuboid(vec3(-half, 0.0, height - 0.025), vec3(half, depth, height));
    for x in [-half, half - 0.02] {
        b.cuboid(vec3(x, 0.0, 0.0), vec3(x + 0.02, depth - 0.01, height - 0.025));
    }
    b.cuboid(vec3(-half + 0.02, 0.0, 0.08), vec3(half - 0.02, depth - 0.01, 0.1));
    b.cuboid(vec3(-half + 0.02, 0.0, 0.1), vec3(half - 0.02, 0.012, height - 0.025));
    let split = 0.5 * height;
    b.cuboid(vec3(-half + 0.02, 0.0, split), vec3(half - 0.02, depth - 0.02, split + 0.02));
    let mut fronts = vec![(split + 0.02, height - 0.025)];
    if !open {
        fronts.push((0.1, split));
    }
    for (z0, z1) in fronts {
        b.paint(palette.front);
        front(&mut b, [-half + 0.02, z0], [half - 0.02, z1], depth - 0.025, false);
        b.paint(palette.metal);
        handle(&mut b, grip, vec3(0.0, depth - 0.008, 0.5 * (z0 + z1)), false);
    }
    Piece::with_top(b, [-half + 0.03, 0.03], [half - 0.03, depth - 0.03], height, Use::Night)
}
