//! Styles: the shared look of a home's furniture and materials.

use glam::{Vec3, vec3};

use super::draw::Draw;
use super::homes::{HomeStyle, Traits};
use super::picture::to_linear;
use super::texture::{Material, Pattern};

/// Number of styles. Each belongs to one split; see [`Style::count_of`].
pub(super) const NUM_STYLES: u64 = 120;

/// Materials by their use, as numbers of [`Style::materials`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    pub ceiling: u16,
    pub skirting: u16,
    pub walls: [u16; 4],
    pub dry_floors: [u16; 3],
    pub wet_floors: [u16; 2],
    pub wall_tiles: u16,
    pub woods: [u16; 3],
    pub lacquer: u16,
    pub front: u16,
    pub metal: u16,
    pub dark_metal: u16,
    pub brass: u16,
    pub plastic: u16,
    pub dark_plastic: u16,
    pub ceramic: u16,
    pub sofa: u16,
    pub seat: u16,
    pub curtain: u16,
    pub sheer: u16,
    pub bedding: [u16; 3],
    pub cushions: [u16; 3],
    pub counter: u16,
    pub door: u16,
    pub frame: u16,
    pub shower: u16,
    pub appliance: u16,
    pub dark: u16,
    pub white: u16,
    pub cardboard: u16,
    pub leaves: u16,
    pub pot: u16,
    pub mirror: u16,
    pub shade: u16,
    pub towels: [u16; 2],
    pub soil: u16,
}

/// A style: its materials, and a source of designs.
#[derive(Clone, Debug)]
pub(super) struct Style {
    pub homes: HomeStyle,
    pub number: u64,
    pub materials: Vec<Material>,
    pub palette: Palette,
}

/// Converts sRGB, as 0xRRGGBB, to linear.
pub(super) fn rgb(hex: u32) -> Vec3 {
    let channel = |shift: u32| to_linear(((hex >> shift) & 255) as f32 / 255.0);
    vec3(channel(16), channel(8), channel(0))
}

/// Converts hue from 0 to 1, saturation and value, as in sRGB, to linear.
pub(super) fn hsv(hue: f32, saturation: f32, value: f32) -> Vec3 {
    let channel = |offset: f32| {
        let t = ((hue + offset).rem_euclid(1.0) * 6.0 - 3.0).abs() - 1.0;
        to_linear(value * (1.0 - saturation + saturation * t.clamp(0.0, 1.0)))
    };
    vec3(channel(0.0), channel(2.0 / 3.0), channel(1.0 / 3.0))
}

const FABRICS: [u32; 20] = [
    0x6f7b88, 0x3b4a63, 0xa39684, 0xc8bba6, 0x7a3b34, 0x4e6b57, 0xb78a4a, 0x2f3136, 0x8a8f94, 0x9b5d6b, 0x5d4a3b,
    0x3f6f7f, 0xd3cbb9, 0x6a5478, 0xa4462f, 0x8fa28b, 0xc79a9a, 0x23404f, 0xb4b7b3, 0x7d6a3e,
];

impl Style {
    /// Returns the number of styles of a split. Splits share no style.
    pub(super) const fn count_of() -> u64 {
        NUM_STYLES / 3
    }

    /// Returns style `number`, below [`NUM_STYLES`], of the catalogue of `homes`.
    pub(super) fn new(homes: HomeStyle, number: u64) -> Self {
        let &Traits { catalogue, paints, woods: kinds_of_wood, .. } = homes.traits();
        let mut d = Draw::new(catalogue, &[number]);
        let mut materials = Vec::new();
        let mut add = |material: Material| {
            materials.push(material);
            (materials.len() - 1) as u16
        };
        let seed = |d: &mut Draw| d.seed() as u32;
        let jitter = |d: &mut Draw, color: Vec3| {
            let shade = d.range(0.85, 1.12);
            (color * vec3(d.range(0.94, 1.06), d.range(0.95, 1.05), d.range(0.92, 1.08)) * shade)
                .clamp(Vec3::ZERO, Vec3::splat(0.92))
        };
        let chosen = |d: &mut Draw, colors: &[u32]| {
            let color = rgb(d.pick(colors));
            jitter(d, color)
        };
        let palette = {
            let wood = |d: &mut Draw, add: &mut dyn FnMut(Material) -> u16| {
                let [a, b] = d.pick(kinds_of_wood).map(rgb);
                let (a, b) = (jitter(d, a), jitter(d, b));
                let strength = d.range(0.5, 1.1);
                let gloss = d.range(0.02, 0.14);
                add(Material::new(Pattern::Wood(strength), [a, b, b * 0.3], seed(d)).gloss(gloss))
            };
            let fabric = |d: &mut Draw, lively: f32| {
                let a = chosen(d, &FABRICS);
                let a =
                    if d.chance(0.35) { hsv(d.range(0.0, 1.0), d.range(0.15, 0.6), d.range(0.35, 0.85)) } else { a };
                let b = hsv(d.range(0.0, 1.0), d.range(0.1, 0.6), d.range(0.3, 0.9));
                let c = if d.chance(0.5) { Vec3::splat(0.75) } else { a * 0.4 };
                let pattern = if d.chance(lively) {
                    let size = d.range(0.04, 0.16);
                    d.pick(&[
                        Pattern::Stripes(size),
                        Pattern::Plaid(size),
                        Pattern::Dots(size),
                        Pattern::Flowers(size * 2.0),
                        Pattern::Damask(size * 2.0),
                    ])
                } else {
                    Pattern::Weave
                };
                let colors = if matches!(pattern, Pattern::Weave) { [a, a * 0.72, c] } else { [a, b, c] };
                Material::new(pattern, colors, seed(d))
            };
            let woods = [wood(&mut d, &mut add), wood(&mut d, &mut add), wood(&mut d, &mut add)];
            let walls = std::array::from_fn(|i| {
                let color = if d.chance(0.3) {
                    hsv(d.range(0.0, 1.0), d.range(0.08, 0.38), d.range(0.65, 0.93))
                } else {
                    chosen(&mut d, paints)
                };
                let second = color * d.range(0.72, 0.9);
                let size = d.range(0.12, 0.35);
                let pattern = match d.count(0, 9) {
                    0 if i > 0 => Pattern::Damask(size),
                    1 if i > 0 => Pattern::Stripes(size * 0.4),
                    2 if i > 0 => Pattern::Flowers(size),
                    _ => Pattern::Plaster,
                };
                add(Material::new(pattern, [color, second, color * 0.9 + 0.06], seed(&mut d)))
            });
            let dry_floors = std::array::from_fn(|_| {
                let [a, b] = d.pick(kinds_of_wood).map(rgb);
                let (a, b) = (jitter(&mut d, a), jitter(&mut d, b));
                let gloss = d.range(0.05, 0.25);
                let material = match d.count(0, 5) {
                    0 => {
                        let a = chosen(&mut d, &FABRICS);
                        Material::new(Pattern::Carpet, [a, a * 0.65, a], seed(&mut d))
                    }
                    1 => {
                        Material::new(Pattern::Parquet(d.range(0.28, 0.5)), [a, b, b * 0.2], seed(&mut d)).gloss(gloss)
                    }
                    2 => {
                        let a = jitter(&mut d, rgb(0xcfc6b8));
                        let side = d.range(0.3, 0.6);
                        Material::new(Pattern::Tiles(side, side, false), [a, a * 0.45, a * 0.85], seed(&mut d))
                            .gloss(gloss)
                    }
                    _ => {
                        let (length, width) = (d.range(0.7, 1.8), d.range(0.07, 0.2));
                        Material::new(Pattern::Planks(length, width), [a, b, b * 0.15], seed(&mut d)).gloss(gloss)
                    }
                };
                add(material)
            });
            let wet_floors = std::array::from_fn(|_| {
                let tone = d.range(0.25, 0.85);
                let a = jitter(&mut d, vec3(tone, tone * 0.97, tone * 0.92));
                let side = d.range(0.1, 0.45);
                let pattern = match d.count(0, 3) {
                    0 => Pattern::Checker(side),
                    1 => Pattern::Tiles(side * 1.8, side, true),
                    _ => Pattern::Tiles(side, side, false),
                };
                let colors = match pattern {
                    Pattern::Checker(_) => {
                        [a, d.pick(&[rgb(0x2a2c30), rgb(0x7d5a4a), rgb(0x56727a)]), Vec3::splat(0.3)]
                    }
                    _ => [a, Vec3::splat(d.range(0.2, 0.6)), a * 0.8],
                };
                add(Material::new(pattern, colors, seed(&mut d)).gloss(d.range(0.1, 0.3)))
            });
            let tile = if d.chance(0.5) {
                rgb(0xe9ecec)
            } else {
                hsv(d.range(0.0, 1.0), d.range(0.1, 0.45), d.range(0.55, 0.9))
            };
            let side = d.range(0.07, 0.22);
            let pattern =
                if d.chance(0.5) { Pattern::Tiles(side * 2.0, side, true) } else { Pattern::Tiles(side, side, false) };
            let wall_tiles =
                add(Material::new(pattern, [tile, Vec3::splat(d.range(0.3, 0.7)), tile * 0.9], seed(&mut d))
                    .gloss(0.25));
            let painted = |d: &mut Draw| {
                if d.chance(0.6) {
                    jitter(d, rgb(0xe8e6e0))
                } else {
                    hsv(d.range(0.0, 1.0), d.range(0.1, 0.5), d.range(0.3, 0.9))
                }
            };
            let lacquer = add(Material::plain(painted(&mut d)).gloss(0.12));
            let front =
                if d.chance(0.5) { woods[d.count(0, 2)] } else { add(Material::plain(painted(&mut d)).gloss(0.1)) };
            let steel = Material::new(Pattern::Brushed, [Vec3::splat(0.52); 3], 3).gloss(0.5).loss(0.25);
            let dark = rgb(0x26282b);
            let is_leather = d.chance(0.25);
            let leather = |d: &mut Draw| {
                let color = rgb(d.pick(&[0x4a2e20, 0x1f1e1e, 0x7b4a2a, 0xd8cdbb, 0x5a1f1a]));
                Material::new(Pattern::Leather, [jitter(d, color); 3], seed(d)).gloss(0.22)
            };
            let sofa = if is_leather { leather(&mut d) } else { fabric(&mut d, 0.12) };
            let seat = if d.chance(0.2) { leather(&mut d) } else { fabric(&mut d, 0.2) };
            let curtain_cloth = {
                let mut cloth = fabric(&mut d, 0.4);
                cloth.colors = cloth.colors.map(|c| c * 0.75 + 0.16);
                cloth
            };
            let shower_cloth = {
                let base = d.pick(&[rgb(0xe6ebec), rgb(0xcfe3e6), rgb(0xf0ead8), rgb(0xd6cfe2), rgb(0x9fc4cc)]);
                let second = hsv(d.range(0.0, 1.0), d.range(0.3, 0.7), d.range(0.4, 0.9));
                let size = d.range(0.08, 0.2);
                let pattern = d.pick(&[
                    Pattern::Plain,
                    Pattern::Stripes(size),
                    Pattern::Dots(size),
                    Pattern::Flowers(size * 1.5),
                    Pattern::Checker(size),
                ]);
                Material::new(pattern, [base, second, base * 0.7], seed(&mut d)).gloss(0.15)
            };
            let stone = chosen(&mut d, &[0x3a3a3c, 0x8d8378, 0xd9d4ca, 0x5d4a3f, 0xb9b6b0]);
            let counter = match d.count(0, 3) {
                0 => Material::new(Pattern::Marble(0.3), [rgb(0xe4e2de), rgb(0x77757a), stone], seed(&mut d)),
                1 => Material::new(Pattern::Wood(0.9), [rgb(0xb98d5b), rgb(0x8a5f35), stone], seed(&mut d)),
                2 => Material::plain(stone),
                _ => Material::new(Pattern::Granite, [stone, stone * 0.35, stone * 1.6 + 0.05], seed(&mut d)),
            };
            let appliance = match d.count(0, 3) {
                0 | 1 => Material::plain(rgb(0xe9eaea)).gloss(0.2),
                2 => Material::new(Pattern::Brushed, [Vec3::splat(0.48); 3], 5).gloss(0.4).loss(0.1),
                _ => Material::plain(d.pick(&[rgb(0x26282b), rgb(0x9c2f2a), rgb(0x9cc0b4), rgb(0xe2d3ae)])).gloss(0.25),
            };
            let white_door = d.chance(0.6);
            Palette {
                ceiling: add(Material::new(Pattern::Plaster, [rgb(0xf2f1ec); 3], 1)),
                skirting: if d.chance(0.6) { add(Material::plain(rgb(0xe9e7e1))) } else { woods[0] },
                walls,
                dry_floors,
                wet_floors,
                wall_tiles,
                woods,
                lacquer,
                front,
                metal: add(steel),
                dark_metal: add(Material::plain(rgb(0x2e2f31)).gloss(0.15)),
                brass: add(Material::plain(rgb(0xa98440)).gloss(0.4)),
                plastic: add(
                    Material::plain(hsv(d.range(0.0, 1.0), d.range(0.0, 0.7), d.range(0.35, 0.95))).gloss(0.15)
                ),
                dark_plastic: add(Material::plain(dark).gloss(0.12).loss(0.1)),
                ceramic: add(Material::plain(rgb(0xf0f0ec)).gloss(0.45).loss(0.03)),
                sofa: add(sofa),
                seat: add(seat),
                curtain: add(curtain_cloth),
                sheer: add(Material::new(Pattern::Weave, [rgb(0xf0eee6), rgb(0xd8d6cc), rgb(0xffffff)], 9)),
                bedding: std::array::from_fn(|i| {
                    let mut cloth = fabric(&mut d, if i == 0 { 0.5 } else { 0.15 });
                    if d.chance(0.5) {
                        cloth.colors = cloth.colors.map(|c| c * 0.45 + 0.42);
                    }
                    add(cloth)
                }),
                cushions: std::array::from_fn(|_| add(fabric(&mut d, 0.45))),
                counter: add(counter.gloss(0.2)),
                door: if white_door { add(Material::plain(rgb(0xe6e3db)).gloss(0.08)) } else { woods[d.count(0, 2)] },
                frame: if white_door { add(Material::plain(rgb(0xf0eee8)).gloss(0.08)) } else { woods[1] },
                shower: add(shower_cloth),
                appliance: add(appliance),
                dark: add(Material::plain(rgb(0x17181a)).gloss(0.3).loss(0.35)),
                white: add(Material::plain(rgb(0xe8e8e6)).gloss(0.1)),
                cardboard: add(Material::new(Pattern::Plaster, [rgb(0xb08b5e), rgb(0x8b6a44), rgb(0xc0a070)], 11)),
                leaves: add(Material::new(Pattern::Leaves, [rgb(0x3f6b34), rgb(0x7c9c4e), rgb(0x2c4a26)], 12)),
                pot: add(Material::plain(d.pick(&[rgb(0xb5653c), rgb(0xe2e0da), rgb(0x3d4448), rgb(0x7b8c6a)]))),
                mirror: add(Material::plain(rgb(0x9aa6ab)).gloss(0.8).loss(0.85)),
                shade: add(Material::plain(rgb(0xf3e3c0)).glowing(1.0)),
                towels: std::array::from_fn(|_| add(fabric(&mut d, 0.25))),
                soil: add(Material::plain(rgb(0x2b1d14))),
            }
        };
        Self { homes, number, materials, palette }
    }

    /// Returns the random choices of one design of this style. They are the same in every room.
    pub(super) fn design(&self, kind: u64, variant: u64) -> Draw {
        Draw::new(self.homes.traits().catalogue, &[self.number, 1 + kind, variant])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_are_the_same_again_and_all_different() {
        let main = |homes: HomeStyle, number| -> Vec<[f32; 3]> {
            Style::new(homes, number).materials.iter().map(|m| m.colors[0].to_array()).collect()
        };
        for homes in HomeStyle::ALL {
            assert_eq!(main(homes, 7), main(homes, 7));
            for number in 1..NUM_STYLES {
                assert_ne!(main(homes, number), main(homes, number - 1));
            }
        }
        assert_ne!(main(HomeStyle::Flat, 7), main(HomeStyle::Villa, 7));
        assert_eq!(NUM_STYLES % 3, 0);
    }
}
