//! Books.

use super::Studio;
use crate::synth::style::rgb;
use crate::synth::texture::{Material, Pattern};

/// Colours of book covers.
const SPINES: [u32; 14] = [
    0x7a2a26, 0x2b4a6f, 0x2f5a3c, 0xc9b48a, 0xe8e4d8, 0x1e1e22, 0xb5762e, 0x5a3a5f, 0x9aa5ad, 0xd0553a, 0x3f8a8c,
    0xd8b93e, 0x6a4a32, 0xf1f1ee,
];

/// Returns the material of one of the room's book spines.
pub(super) fn spine(s: &mut Studio<'_>) -> u16 {
    let book = |material: &Material| matches!(material.pattern, Pattern::Book);
    let known = s.materials.iter().filter(|material| book(material)).count();
    if known >= 24 {
        let nth = s.draw.count(0, known - 1);
        let place = s.materials.iter().enumerate().filter(|(_, material)| book(material)).nth(nth);
        return place.map_or(0, |(place, _)| place as u16);
    }
    let main = rgb(s.draw.pick(&SPINES)) * s.draw.range(0.7, 1.15);
    let second = rgb(s.draw.pick(&SPINES));
    let seed = s.draw.seed() as u32;
    s.material(Material::new(Pattern::Book, [main, second, main], seed))
}
