//! Materials and their patterns, evaluated point by point.

use std::sync::Arc;

use glam::{Vec2, Vec3, vec2, vec3};

use super::draw::{hash, hash_unit, noise};
use super::picture::Picture;

/// Material of a surface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Material {
    pub pattern: Pattern,
    /// Colours of the pattern, linear, 0 to 1; the first is the main one.
    pub colors: [Vec3; 3],
    /// Strength of highlights, 0 to 1.
    pub gloss: f32,
    /// Light that the surface emits, in its colour.
    pub glow: f32,
    /// Probability that a depth sensor sees nothing there, 0 to 1.
    pub loss: f32,
    /// True if light passes through.
    pub clear: bool,
    /// Strength of stains and scuffs, 0 to 1.
    pub wear: f32,
    pub seed: u32,
}

/// Pattern of a material. Lengths are in metres.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pattern {
    Plain,
    /// Unevenly painted plaster.
    Plaster,
    /// Wood grain along u, of this strength.
    Wood(f32),
    /// Boards of this length and width along u.
    Planks(f32, f32),
    /// Squares of strips that change direction.
    Parquet(f32),
    /// Tiles of this width and height; true shifts every other row.
    Tiles(f32, f32, bool),
    Checker(f32),
    Carpet,
    Weave,
    /// Stripes of this width along v.
    Stripes(f32),
    Plaid(f32),
    Dots(f32),
    Flowers(f32),
    /// A two-coloured ornament, as on wallpaper.
    Damask(f32),
    Marble(f32),
    Granite,
    Brushed,
    Leather,
    /// The spine of a book, with bands across u.
    Book,
    /// A painting of this size and kind.
    Painting(f32, f32, u32),
    /// A carpet with a border, of this size and kind.
    Rug(f32, f32, u32),
    /// A screen of this size, with windows on it.
    Screen(f32, f32),
    /// Leaves.
    Leaves,
    /// A picture, times the main colour. One unit of texture coordinates is `units` pictures wide, and the surface
    /// shows `per_metre` pictures in a metre.
    Picture {
        number: u16,
        units: f32,
        per_metre: f32,
    },
    /// The world outside a window, by direction; see [`outside`].
    Outside,
}

impl Material {
    pub(super) fn new(pattern: Pattern, colors: [Vec3; 3], seed: u32) -> Self {
        Self { pattern, colors, gloss: 0.0, glow: 0.0, loss: 0.0, clear: false, wear: 0.0, seed }
    }

    pub(super) fn plain(color: Vec3) -> Self {
        Self::new(Pattern::Plain, [color; 3], 0)
    }

    pub(super) fn gloss(self, gloss: f32) -> Self {
        Self { gloss, ..self }
    }

    pub(super) fn loss(self, loss: f32) -> Self {
        Self { loss, ..self }
    }

    pub(super) fn glowing(self, glow: f32) -> Self {
        Self { glow, clear: true, ..self }
    }

    pub(super) fn worn(self, wear: f32) -> Self {
        Self { wear, ..self }
    }

    /// Returns the colour at `uv`. `footprint` is the width of a pixel in metres; finer detail is left out.
    /// `pictures` are those that patterns number.
    pub(super) fn albedo(&self, uv: Vec2, footprint: f32, pictures: &[Arc<Picture>]) -> Vec3 {
        let color = match self.pattern {
            Pattern::Picture { number, units, per_metre } => match pictures.get(usize::from(number)) {
                Some(picture) => picture.at(uv * units, footprint * per_metre) * self.colors[0],
                None => self.colors[0],
            },
            _ => self.drawn(uv, footprint),
        };
        if self.wear == 0.0 {
            return color;
        }
        let metres = match self.pattern {
            Pattern::Picture { units, per_metre, .. } => uv * (units / per_metre),
            _ => uv,
        };
        worn(color, metres, footprint, self.wear, self.seed)
    }

    /// Returns the colour of a pattern that is computed.
    fn drawn(&self, uv: Vec2, footprint: f32) -> Vec3 {
        let [a, b, c] = self.colors;
        let (u, v, seed) = (uv.x, uv.y, self.seed);
        let fine = |wavelength: f32| visible(wavelength, footprint);
        let grain = |wavelength: f32, number: u32| {
            (noise(u / wavelength, v / wavelength, seed ^ number) - 0.5) * fine(wavelength)
        };
        match self.pattern {
            Pattern::Plain | Pattern::Outside | Pattern::Picture { .. } => a,
            Pattern::Plaster => a * (1.0 + 0.05 * grain(0.6, 1) + 0.05 * grain(0.13, 2) + 0.06 * grain(0.012, 3)),
            Pattern::Wood(strength) => wood(uv, footprint, seed, strength, a, b),
            Pattern::Planks(length, width) => planks(uv, footprint, seed, [length, width], [a, b, c]),
            Pattern::Parquet(side) => {
                let (i, j) = ((u / side).floor(), (v / side).floor());
                let cell = vec2(u - i * side, v - j * side);
                let turned = (i + j).rem_euclid(2.0) > 0.5;
                let local = if turned { vec2(cell.y, cell.x) } else { cell };
                let uv = local + vec2(hash_unit(i as i32, j as i32, seed) * 8.0, 0.0);
                planks(uv, footprint, hash(i as i32, j as i32, seed), [99.0, side / 4.0], [a, b, c])
            }
            Pattern::Tiles(width, height, shifted) => {
                let row = (v / height).floor();
                let u = if shifted && row.rem_euclid(2.0) > 0.5 { u + 0.5 * width } else { u };
                let column = (u / width).floor();
                let shade = hash_unit(column as i32, row as i32, seed);
                let tile = a.lerp(c, shade * 0.35) * (1.0 + 0.06 * grain(0.04, 5) + 0.06 * grain(0.3, 6));
                let joint = joints(u, width, footprint).max(joints(v, height, footprint));
                tile.lerp(b, joint)
            }
            Pattern::Checker(side) => {
                let odd = ((u / side).floor() + (v / side).floor()).rem_euclid(2.0) > 0.5;
                let joint = joints(u, side, footprint).max(joints(v, side, footprint));
                (if odd { a } else { b } * (1.0 + 0.08 * grain(0.2, 1))).lerp(c, joint)
            }
            Pattern::Carpet => {
                let speckle = grain(0.006, 1) + 0.7 * grain(0.025, 2);
                a.lerp(b, (0.35 + 1.2 * speckle).clamp(0.0, 1.0))
                    * (1.0 + 0.12 * grain(0.35, 3) + 0.25 * grain(0.01, 4))
            }
            Pattern::Weave => {
                let threads = (u * 900.0).sin() * (v * 900.0).sin() * fine(0.007);
                let mottle = grain(0.012, 1) + grain(0.05, 2);
                a.lerp(b, (0.25 + 0.5 * mottle).clamp(0.0, 1.0)) * (1.0 + 0.10 * threads + 0.06 * grain(0.3, 3))
            }
            Pattern::Stripes(width) => {
                let phase = (v / width).rem_euclid(3.0);
                let color = if phase < 1.4 {
                    a
                } else if phase < 1.7 {
                    c
                } else {
                    b
                };
                a.lerp(color, fine(width)) * (1.0 + 0.08 * grain(0.01, 1))
            }
            Pattern::Plaid(width) => {
                let band = |t: f32| {
                    let phase = (t / width).rem_euclid(4.0);
                    if phase < 1.5 {
                        0.0
                    } else if phase < 1.8 {
                        0.9
                    } else {
                        0.45
                    }
                };
                let mixed = a.lerp(b, band(u)).lerp(c, band(v) * 0.6);
                a.lerp(mixed, fine(width)) * (1.0 + 0.08 * grain(0.01, 1))
            }
            Pattern::Dots(pitch) => {
                let row = (v / pitch).floor();
                let u = u + if row.rem_euclid(2.0) > 0.5 { 0.5 * pitch } else { 0.0 };
                let from_middle = vec2((u / pitch).fract_positive() - 0.5, (v / pitch).fract_positive() - 0.5);
                let inside = smooth(0.30, 0.24, from_middle.length());
                a.lerp(b, inside * fine(pitch)) * (1.0 + 0.08 * grain(0.01, 1))
            }
            Pattern::Flowers(pitch) => {
                let (i, j) = ((u / pitch).floor() as i32, (v / pitch).floor() as i32);
                let mut color = a * (1.0 + 0.08 * grain(0.02, 1));
                for (di, dj) in [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)] {
                    let (i, j) = (i + di, j + dj);
                    let at = |number| hash_unit(i, j, seed ^ number);
                    let middle = vec2(i as f32 + 0.2 + 0.6 * at(1), j as f32 + 0.2 + 0.6 * at(2)) * pitch;
                    let offset = (uv - middle) / (pitch * (0.32 + 0.2 * at(3)));
                    let petals = 0.62 + 0.38 * (5.0 * offset.y.atan2(offset.x) + 6.0 * at(4)).cos();
                    let r = offset.length();
                    let flower = if at(5) < 0.6 { b } else { c };
                    color = color.lerp(flower, smooth(petals, petals - 0.15, r) * fine(pitch * 0.7));
                    color = color.lerp(vec3(0.7, 0.5, 0.1), smooth(0.22, 0.15, r) * fine(pitch * 0.3));
                }
                color
            }
            Pattern::Damask(pitch) => {
                let (s, t) = (u / pitch * std::f32::consts::TAU, v / (pitch * 1.6) * std::f32::consts::TAU);
                let leaf = 1.2 * s.cos() * t.cos() + 0.5 * (2.0 * s).cos() * (0.5 * t).cos().abs();
                let wave = leaf - 0.35 * (3.0 * s).cos() * (2.0 * t).cos();
                a.lerp(b, smooth(0.25, 0.45, wave.abs()) * fine(pitch * 0.5)) * (1.0 + 0.03 * grain(0.01, 1))
            }
            Pattern::Marble(scale) => {
                let turbulence =
                    noise(u / scale, v / scale, seed) + 0.5 * noise(2.3 * u / scale, 2.3 * v / scale, seed ^ 1);
                let vein = 1.0 - ((u * 0.7 + v * 0.4) / scale * 3.0 + 5.0 * turbulence).sin().abs();
                a.lerp(b, vein.powi(5) * 0.8 * fine(scale * 0.3)) * (1.0 + 0.08 * grain(0.3, 2))
            }
            Pattern::Granite => {
                let speck = noise(u / 0.006, v / 0.006, seed) * 0.6 + noise(u / 0.015, v / 0.015, seed ^ 1) * 0.4;
                let mixed = if speck > 0.62 {
                    b
                } else if speck < 0.33 {
                    c
                } else {
                    a
                };
                a.lerp(mixed, 0.3 + 0.5 * fine(0.012))
            }
            Pattern::Brushed => {
                let streak = (noise(u / 0.4, v / 0.002, seed) - 0.5) * fine(0.006);
                a * (1.0 + 0.12 * streak + 0.10 * grain(0.5, 2))
            }
            Pattern::Leather => a * (1.0 + 0.20 * grain(0.008, 1) + 0.12 * grain(0.09, 2) + 0.10 * grain(0.4, 3)),
            Pattern::Book => {
                let t = u.rem_euclid(0.31);
                let at = 0.05 + 0.12 * hash_unit(seed as i32, 1, 3);
                let band = (t - at).abs() < 0.010 || (t - at - 0.05).abs() < 0.006;
                let title = (t - at - 0.025).abs() < 0.012 && noise(u / 0.004, v / 0.02, seed) > 0.5;
                a.lerp(b, f32::from(u8::from(band || title)) * 0.85 * fine(0.02)) * (1.0 + 0.15 * grain(0.02, 2))
            }
            Pattern::Painting(width, height, kind) => {
                let at = vec2((u / width).clamp(0.0, 1.0), (v / height).clamp(0.0, 1.0));
                painting(at, width / height, kind, seed, self.colors) * (1.0 + 0.15 * grain(0.01, 9))
            }
            Pattern::Rug(width, height, kind) => {
                let edge = u.min(width - u).min(v).min(height - v);
                let pile = 1.0 + 0.25 * grain(0.008, 1) + 0.1 * grain(0.1, 2);
                let color = if edge < 0.03 {
                    b
                } else if edge < 0.13 {
                    let motif = (u * 50.0).sin() * (v * 50.0).sin();
                    if motif > 0.2 { c } else { b }
                } else if edge < 0.16 {
                    c
                } else {
                    let (s, t) = ((u - width * 0.5) / 0.22, (v - height * 0.5) / 0.22);
                    match kind % 4 {
                        0 => {
                            if (s.abs() + t.abs()).rem_euclid(2.0) < 0.9 {
                                a
                            } else {
                                b
                            }
                        }
                        1 => {
                            if s.rem_euclid(1.0) < 0.5 {
                                a
                            } else {
                                c
                            }
                        }
                        2 => {
                            if s.hypot(t).rem_euclid(1.4) < 0.7 {
                                a
                            } else {
                                b
                            }
                        }
                        _ => a.lerp(b, noise(s, t, seed)),
                    }
                };
                a.lerp(color, fine(0.06)) * pile
            }
            Pattern::Screen(width, height) => screen(vec2(u / width, v / height), seed, a),
            Pattern::Leaves => {
                let patch = noise(u / 0.03, v / 0.03, seed);
                a.lerp(b, patch * fine(0.03)) * (0.8 + 0.4 * noise(u / 0.007, v / 0.05, seed ^ 1) * fine(0.01))
            }
        }
    }
}

/// Adds stains, faded patches and scuffs to a colour.
fn worn(color: Vec3, metres: Vec2, footprint: f32, wear: f32, seed: u32) -> Vec3 {
    let (u, v) = (metres.x, metres.y);
    let at = |wavelength: f32, number: u32| noise(u / wavelength, v / wavelength, seed ^ number);
    let stain = smooth(0.55, 0.85, 0.6 * at(0.31, 21) + 0.4 * at(0.09, 22));
    let faded = smooth(0.45, 0.9, 0.7 * at(0.55, 23) + 0.3 * at(0.13, 24));
    let scuff = smooth(0.8, 0.95, at(0.045, 25)) * visible(0.045, footprint);
    let brown = color * vec3(0.62, 0.55, 0.46);
    let pale = color.lerp(Vec3::splat(color.element_sum() / 3.0), 0.5) * 1.15 + 0.01;
    color.lerp(brown, 0.75 * wear * stain).lerp(pale, 0.7 * wear * faded) * (1.0 - 0.2 * wear * scuff)
}

trait FractPositive {
    fn fract_positive(self) -> f32;
}

impl FractPositive for f32 {
    fn fract_positive(self) -> f32 {
        self - self.floor()
    }
}

/// Returns the visible share of a wave of this length: all of it at 4 pixels, nothing at 1.
#[inline]
fn visible(wavelength: f32, footprint: f32) -> f32 {
    ((wavelength / footprint - 1.0) / 3.0).clamp(0.0, 1.0)
}

/// Returns 0 at `from`, 1 at `to`, and a smooth curve between.
#[inline]
fn smooth(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Returns the share of a pixel that is joint, for joints of 4 mm every `pitch`.
#[inline]
fn joints(t: f32, pitch: f32, footprint: f32) -> f32 {
    let from_joint = (t - (t / pitch).round() * pitch).abs();
    let width = 0.002_f32;
    let blur = (0.5 * footprint).max(0.0005);
    ((width + blur - from_joint) / (2.0 * blur)).clamp(0.0, (2.0 * width / (2.0 * blur)).min(1.0))
}

#[inline]
fn wood(uv: Vec2, footprint: f32, seed: u32, strength: f32, a: Vec3, b: Vec3) -> Vec3 {
    let (u, v) = (uv.x, uv.y);
    let bend = noise(u * 0.9, v * 4.0, seed) + 0.4 * noise(u * 2.5, v * 9.0, seed ^ 1);
    let rings = 0.5 + 0.5 * ((v * 26.0 + 5.0 * bend) * std::f32::consts::TAU * 0.5).sin();
    let pores = noise(u * 9.0, v * 420.0, seed ^ 2) - 0.5;
    let broad = noise(u * 0.5, v * 7.0, seed ^ 3) - 0.5;
    let mix = 0.35 + strength * (0.5 * (rings - 0.5) * visible(0.05, footprint) + 0.5 * broad);
    a.lerp(b, mix.clamp(0.0, 1.0)) * (1.0 + 0.25 * strength * pores * visible(0.006, footprint))
}

fn planks(uv: Vec2, footprint: f32, seed: u32, [length, width]: [f32; 2], [a, b, c]: [Vec3; 3]) -> Vec3 {
    let row = (uv.y / width).floor();
    let u = uv.x + length * hash_unit(row as i32, 0, seed);
    let column = (u / length).floor();
    let own = hash_unit(column as i32, row as i32, seed ^ 5);
    let shift = vec2(own * 31.0, row * 0.37 + own * 7.0);
    let board = wood(vec2(u, uv.y) + shift, footprint, seed, 0.7, a, b) * (0.82 + 0.36 * own);
    let joint = joints(uv.y, width, footprint).max(joints(u, length, footprint));
    board.lerp(c, joint * 0.8)
}

/// Returns the colour of a painting: a landscape, still life, portrait, abstract picture or photo.
fn painting(at: Vec2, aspect: f32, kind: u32, seed: u32, colors: [Vec3; 3]) -> Vec3 {
    let [a, b, c] = colors;
    let (x, y) = (at.x * aspect, at.y);
    let random = |number: i32| hash_unit(number, 3, seed);
    match kind % 5 {
        0 => {
            let hill = |base: f32, height: f32, number: u32| base + height * (noise(x * 2.3, 0.0, seed ^ number) - 0.3);
            let sky = vec3(0.75, 0.55, 0.35).lerp(vec3(0.15, 0.32, 0.65), smooth(0.35, 1.0, y));
            let sun = vec2(x - random(1) * aspect, y - 0.75).length();
            let mut color = sky.lerp(vec3(1.0, 0.85, 0.5), smooth(0.09, 0.06, sun));
            for (i, (base, tone)) in [(0.52, 0.55), (0.38, 0.8), (0.22, 1.0)].into_iter().enumerate() {
                if y < hill(base, 0.28, i as u32) {
                    color = vec3(0.25, 0.32, 0.40).lerp(b * 0.5 + vec3(0.02, 0.12, 0.03), tone);
                }
            }
            color * (0.85 + 0.3 * noise(x * 30.0, y * 40.0, seed))
        }
        1 => {
            // Rectangles between black lines.
            let cut = |t: f32, number: i32| {
                i32::from(t > 0.2 + 0.25 * random(number)) + i32::from(t > 0.6 + 0.25 * random(number + 1))
            };
            let (i, j) = (cut(at.x, 10), cut(at.y, 20));
            let near = |t: f32, number: i32| {
                (t - 0.2 - 0.25 * random(number)).abs().min((t - 0.6 - 0.25 * random(number + 1)).abs()) < 0.015
            };
            if near(at.x, 10) || near(at.y, 20) {
                return Vec3::splat(0.015);
            }
            [a, b, c, vec3(0.85, 0.83, 0.78), vec3(0.75, 0.6, 0.05)][hash(i, j, seed) as usize % 5]
        }
        2 => {
            let mut color = a.lerp(b, y * 0.6) * (0.6 + 0.5 * noise(x * 4.0, y * 4.0, seed));
            let shoulders = vec2((x - 0.5 * aspect) / 0.34, (y - 0.05) / 0.36).length();
            color = color.lerp(c * 0.6, smooth(1.0, 0.95, shoulders));
            let head = vec2((x - 0.5 * aspect) / 0.135, (y - 0.58) / 0.19);
            let hair = vec2((x - 0.5 * aspect) / 0.165, (y - 0.62) / 0.22).length();
            color = color.lerp(vec3(0.06, 0.035, 0.02), smooth(1.0, 0.94, hair));
            let skin = vec3(0.62, 0.38, 0.26).lerp(vec3(0.30, 0.16, 0.10), random(4));
            color = color.lerp(skin * (0.8 + 0.3 * head.x), smooth(1.0, 0.95, head.length()));
            let eyes = vec2((head.x.abs() - 0.38) / 0.14, (head.y - 0.12) / 0.08).length();
            let mouth = vec2(head.x / 0.3, (head.y + 0.45) / 0.06).length();
            color
                .lerp(vec3(0.05, 0.03, 0.03), smooth(1.0, 0.8, eyes))
                .lerp(vec3(0.4, 0.08, 0.08), smooth(1.0, 0.8, mouth))
        }
        3 => {
            let mut color = if y < 0.3 { b * 0.6 } else { a.lerp(Vec3::splat(0.25), 0.4) };
            let vase = vec2((x - 0.5 * aspect) / 0.13, (y - 0.28) / 0.17).length();
            for k in 0..9 {
                let middle = vec2(0.5 * aspect + 0.5 * (random(30 + k) - 0.5), 0.62 + 0.26 * (random(50 + k) - 0.5));
                let offset = (vec2(x, y) - middle) / (0.07 + 0.05 * random(70 + k));
                let petals = 0.7 + 0.3 * (6.0 * offset.y.atan2(offset.x) + k as f32).cos();
                let stem = (x - 0.5 * aspect - (middle.x - 0.5 * aspect) * (y - 0.4) / (middle.y - 0.4)).abs() < 0.008;
                if stem && y > 0.4 && y < middle.y {
                    color = vec3(0.05, 0.2, 0.04);
                }
                let tint = [b, c, vec3(0.8, 0.15, 0.2), vec3(0.85, 0.7, 0.1)][k as usize % 4];
                color = color.lerp(tint, smooth(petals, petals - 0.2, offset.length()));
            }
            color.lerp(c * 0.8, smooth(1.0, 0.93, vase))
        }
        _ => {
            // Soft areas of colour.
            let swirl = noise(x * 2.0, y * 2.0, seed) * 2.5;
            let wave = 0.5 + 0.5 * (x * 5.0 * (0.4 + random(2)) + swirl * 3.0 + y * 6.0 * random(3)).sin();
            let dark = noise(x * 6.0 + swirl, y * 6.0, seed ^ 4);
            a.lerp(b, wave).lerp(c, smooth(0.6, 0.75, dark))
        }
    }
}

fn screen(at: Vec2, seed: u32, base: Vec3) -> Vec3 {
    let random = |number: i32| hash_unit(number, 9, seed);
    if random(0) < 0.55 {
        return Vec3::splat(0.012);
    }
    let mut color = base * (0.6 + 0.8 * at.y);
    for k in 0..3 {
        let (x, y) = (0.05 + 0.5 * random(k * 4 + 1), 0.1 + 0.4 * random(k * 4 + 2));
        let (w, h) = (0.25 + 0.2 * random(k * 4 + 3), 0.3 + 0.2 * random(k * 4 + 4));
        let inside = at.x > x && at.x < x + w && at.y > y && at.y < y + h;
        if inside {
            let line = ((at.y - y) * 28.0).fract_positive() < 0.5
                && at.x < x + w * (0.4 + 0.5 * hash_unit((at.y * 28.0) as i32, k, seed));
            color = if at.y > y + h - 0.03 {
                Vec3::splat(0.25)
            } else if line {
                Vec3::splat(0.2)
            } else {
                Vec3::splat(0.85)
            };
        }
    }
    color
}

/// Returns the light from outside a window in a direction: sky over trees and houses. It is bright and out of
/// focus, as for a camera in a room; the sky is about 1.
pub(super) fn outside(direction: Vec3, seed: u32) -> Vec3 {
    let around = direction.y.atan2(direction.x) * 6.0;
    let up = direction.z / direction.truncate().length().max(1e-3);
    let cloud = noise(around * 1.3, up * 6.0, seed) * 0.6 + noise(around * 3.7, up * 14.0, seed ^ 1) * 0.4;
    let sky = vec3(0.72, 0.86, 1.0).lerp(Vec3::splat(1.05), smooth(0.35, 0.7, cloud));
    let house = (around * 0.8).floor() as i32;
    let roof = 0.02 + 0.10 * hash_unit(house, 5, seed);
    let trees = -0.04 + 0.11 * noise(around * 2.1, 3.0, seed ^ 2) + 0.03 * noise(around * 9.0, 4.0, seed ^ 3);
    let ground = vec3(0.34, 0.40, 0.24) * (0.8 + 0.4 * noise(around * 3.0, up * 9.0, seed ^ 5));
    let leaves = vec3(0.26, 0.36, 0.20) * (0.65 + 0.7 * noise(around * 14.0, up * 30.0, seed ^ 4));
    let walls = vec3(0.62, 0.55, 0.48) * (0.75 + 0.4 * hash_unit(house, 6, seed));
    let built = ground.lerp(walls, smooth(-0.15, -0.12, up) * smooth(roof + 0.01, roof - 0.01, up));
    let low = if up < 0.0 { built } else { sky.lerp(walls, smooth(roof + 0.01, roof - 0.01, up)) };
    low.lerp(leaves, smooth(trees + 0.02, trees - 0.02, up) * smooth(-0.22, -0.12, up))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_has_colours_and_fades_with_distance() {
        let patterns = [
            Pattern::Plain,
            Pattern::Plaster,
            Pattern::Wood(1.0),
            Pattern::Planks(1.0, 0.1),
            Pattern::Parquet(0.4),
            Pattern::Tiles(0.2, 0.1, true),
            Pattern::Checker(0.2),
            Pattern::Carpet,
            Pattern::Weave,
            Pattern::Stripes(0.1),
            Pattern::Plaid(0.1),
            Pattern::Dots(0.1),
            Pattern::Flowers(0.2),
            Pattern::Damask(0.2),
            Pattern::Marble(0.3),
            Pattern::Granite,
            Pattern::Brushed,
            Pattern::Leather,
            Pattern::Book,
            Pattern::Leaves,
            Pattern::Painting(0.5, 0.4, 0),
            Pattern::Painting(0.5, 0.4, 1),
            Pattern::Painting(0.5, 0.4, 2),
            Pattern::Painting(0.5, 0.4, 3),
            Pattern::Painting(0.5, 0.4, 4),
            Pattern::Rug(2.0, 1.0, 1),
            Pattern::Screen(0.5, 0.3),
        ];
        for pattern in patterns {
            let material = Material::new(pattern, [Vec3::splat(0.5), vec3(0.2, 0.3, 0.1), vec3(0.8, 0.7, 0.6)], 3);
            for i in 0..400 {
                let uv = vec2((i % 20) as f32 * 0.037 - 0.2, (i / 20) as f32 * 0.031 - 0.1);
                for footprint in [0.001, 0.01, 0.5] {
                    let color = material.albedo(uv, footprint, &[]);
                    assert!(
                        color.is_finite() && color.min_element() >= -0.01 && color.max_element() < 2.0,
                        "{pattern:?}"
                    );
                }
            }
        }
        // Threads finer than a pixel disappear.
        let weave = Material::new(Pattern::Weave, [Vec3::splat(0.5), Vec3::splat(0.2), Vec3::ONE], 3);
        let spread = |footprint: f32| {
            let values = (0..200).map(|i| weave.albedo(vec2(i as f32 * 0.0031, 0.01), footprint, &[]).x);
            values.clone().fold(0.0, f32::max) - values.fold(1.0, f32::min)
        };
        assert!(spread(0.0005) > 2.0 * spread(0.1));
    }
}
