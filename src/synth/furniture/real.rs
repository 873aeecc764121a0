//! Real models as furniture, in colours of the style.

use glam::{Affine3A, Vec2, Vec3, vec3};

use super::{Piece, Studio, Top, Use};
use crate::synth::assets::{Level, Model, ModelKind, Part};
use crate::synth::style::hsv;
use crate::synth::texture::{Material, Pattern};

/// Models that are tried if some cannot be read.
const TRIES: usize = 4;
/// Saturation below which a colour is grey.
const GREY: f32 = 0.15;
/// Share of a model's surface above which a part is repainted.
const LARGE: f32 = 0.1;

/// Returns a model of one of `kinds` whose size `fits`, as often as the assets ask for.
pub(super) fn real(s: &mut Studio<'_>, kinds: &[ModelKind], fits: impl Fn(Vec3) -> bool) -> Option<Piece> {
    real_with_levels(s, kinds, fits).map(|(piece, _)| piece)
}

/// Returns a model like [`real`], with its level places.
pub(super) fn real_with_levels(
    s: &mut Studio<'_>,
    kinds: &[ModelKind],
    fits: impl Fn(Vec3) -> bool,
) -> Option<(Piece, Vec<Level>)> {
    let stock = s.stock?;
    if !s.draw.chance(stock.share()) {
        return None;
    }
    let fitting = stock.fitting(kinds, fits);
    if fitting.is_empty() {
        return None;
    }
    for _ in 0..TRIES {
        let number = s.draw.pick(&fitting);
        if let Some((model, kind)) = stock.model(number) {
            return Some(dressed(s, &model, kind));
        }
    }
    None
}

/// Returns a model in a size and in colours of its own.
fn dressed(s: &mut Studio<'_>, model: &Model, kind: ModelKind) -> (Piece, Vec<Level>) {
    let mut mesh = model.mesh.clone();
    let all = s.draw.range(0.95, 1.05);
    let scale = vec3(s.draw.range(0.97, 1.03), s.draw.range(0.97, 1.03), s.draw.range(0.98, 1.02)) * all;
    let mirror = s.draw.chance(0.4);
    let stretch = vec3(if mirror { -scale.x } else { scale.x }, scale.y, scale.z);
    mesh.positions.iter_mut().for_each(|p| *p *= stretch);
    mesh.normals.iter_mut().for_each(|n| *n = (*n / stretch).normalize_or(*n));
    if mirror {
        mesh.triangles.iter_mut().for_each(|[_, b, c]| std::mem::swap(b, c));
    }
    let has_pictures = model.parts.iter().any(|part| part.picture.is_some());
    let materials: Vec<u16> = (model.parts.iter())
        .map(|part| {
            let material = look(s, part, kind, has_pictures);
            s.material(material)
        })
        .collect();
    for surface in &mut mesh.surfaces {
        surface.material = materials.get(usize::from(surface.material)).copied().unwrap_or(0);
    }
    let level = |level: &Level| {
        let (a, b) = (level.min * stretch.truncate(), level.max * stretch.truncate());
        Level { min: a.min(b), max: a.max(b), z: level.z * scale.z, room: level.room * scale.z }
    };
    let levels: Vec<Level> = model.levels.iter().map(level).collect();
    (Piece { mesh, tops: top(kind, &levels).into_iter().collect() }, levels)
}

/// Returns the place on a piece where small things stand.
fn top(kind: ModelKind, levels: &[Level]) -> Option<Top> {
    let use_as = match kind {
        ModelKind::Table => Use::Dining,
        ModelKind::CoffeeTable | ModelKind::SideTable => Use::Low,
        ModelKind::Desk => Use::Desk,
        ModelKind::NightStand => Use::Night,
        ModelKind::Cabinet | ModelKind::TvStand => Use::Display,
        _ => return None,
    };
    // A desk may have shelves above its top.
    let reachable = |level: &&Level| level.z < if use_as == Use::Desk { 0.88 } else { 1.6 };
    let highest = levels.iter().find(reachable)?;
    Some(Top { min: highest.min, max: highest.max, z: highest.z, use_as })
}

/// Groups of kinds by what they are made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stuff {
    Cloth,
    Seat,
    Wood,
    Ceramic,
    Appliance,
    Other,
}

fn stuff(kind: ModelKind) -> Stuff {
    match kind {
        ModelKind::Sofa | ModelKind::Armchair | ModelKind::Ottoman | ModelKind::Bed | ModelKind::OfficeChair => {
            Stuff::Cloth
        }
        ModelKind::Chair | ModelKind::BarChair | ModelKind::Stool => Stuff::Seat,
        ModelKind::Toilet | ModelKind::Basin | ModelKind::Bathtub => Stuff::Ceramic,
        ModelKind::Refrigerator | ModelKind::WashingMachine => Stuff::Appliance,
        kind if kind.has_tops() || kind == ModelKind::Wardrobe => Stuff::Wood,
        _ => Stuff::Other,
    }
}

fn saturation(color: Vec3) -> f32 {
    (color.max_element() - color.min_element()) / color.max_element().max(1e-3)
}

/// Returns the material of a part. Grey and flat parts get colours of the style, or others; pictures a tint.
fn look(s: &mut Studio<'_>, part: &Part, kind: ModelKind, has_pictures: bool) -> Material {
    let stuff = stuff(kind);
    let gloss = match stuff {
        Stuff::Cloth => 0.0,
        Stuff::Ceramic => 0.4,
        Stuff::Appliance => 0.25,
        _ => s.draw.range(0.0, 0.2),
    };
    let wear = if s.draw.chance(0.3) { s.draw.range(0.1, 0.8) } else { 0.0 };
    let shade = s.draw.range(0.82, 1.15);
    let tint = vec3(s.draw.range(0.93, 1.07), s.draw.range(0.95, 1.05), s.draw.range(0.93, 1.07)) * shade;
    let seed = s.draw.seed() as u32;
    if let Some((picture, per_metre)) = &part.picture {
        let recoloured = part.share > LARGE && matches!(stuff, Stuff::Cloth | Stuff::Wood) && s.draw.chance(0.25);
        let color = if recoloured {
            let target = if stuff == Stuff::Cloth { lively(s) } else { wood_tone(s) };
            (target / part.color.max(Vec3::splat(0.02))).min(Vec3::splat(4.0))
        } else {
            tint
        };
        let number = s.picture(picture);
        let pattern = Pattern::Picture { number, units: 1.0, per_metre: *per_metre };
        return Material::new(pattern, [color; 3], seed).gloss(gloss).worn(wear);
    }
    let grey = saturation(part.color) < GREY;
    // Beside pictures, plain colours are meant as they are more often.
    let repainted = part.share > LARGE && s.draw.chance(if has_pictures { 0.3 } else { 0.85 });
    let own = Material::plain((part.color * tint).min(Vec3::splat(0.9)));
    let material = match stuff {
        _ if !repainted => own,
        Stuff::Cloth if grey || s.draw.chance(0.5) => cloth(s),
        Stuff::Seat if grey || s.draw.chance(0.35) => match s.draw.count(0, 3) {
            0 => cloth(s),
            1 => Material::plain(lively(s)),
            _ => wood(s),
        },
        Stuff::Wood if grey || s.draw.chance(0.7) => wood(s),
        Stuff::Ceramic if s.draw.chance(0.8) => return s.materials[usize::from(s.palette().ceramic)],
        Stuff::Appliance if s.draw.chance(0.5) => return s.materials[usize::from(s.palette().appliance)],
        Stuff::Other if grey && s.draw.chance(0.6) => Material::plain(lively(s)),
        _ => own,
    };
    let gloss = if stuff == Stuff::Cloth { 0.0 } else { gloss.max(material.gloss) };
    Material { seed, ..material }.gloss(gloss).worn(wear.max(material.wear))
}

/// Returns a colour of paint, plastic or cloth.
fn lively(s: &mut Studio<'_>) -> Vec3 {
    let saturation = if s.draw.chance(0.4) { s.draw.range(0.0, 0.15) } else { s.draw.range(0.15, 0.75) };
    hsv(s.draw.range(0.0, 1.0), saturation, s.draw.range(0.18, 0.92))
}

fn wood_tone(s: &mut Studio<'_>) -> Vec3 {
    let palette = s.palette();
    let wood = s.draw.pick(&palette.woods);
    if s.draw.chance(0.6) {
        s.materials[usize::from(wood)].colors[0]
    } else {
        hsv(s.draw.range(0.05, 0.12), s.draw.range(0.15, 0.65), s.draw.range(0.2, 0.85))
    }
}

fn wood(s: &mut Studio<'_>) -> Material {
    let palette = s.palette();
    match s.draw.count(0, 7) {
        0 => s.materials[usize::from(palette.lacquer)],
        1 => Material::plain(lively(s)).gloss(0.1),
        2..=4 => {
            let tone = wood_tone(s);
            match pictured_wood(s, tone) {
                Some(material) => material,
                None => s.materials[usize::from(palette.woods[0])],
            }
        }
        _ => {
            let wood = s.draw.pick(&palette.woods);
            let tone = wood_tone(s);
            Material { colors: [tone, tone * 0.66, tone * 0.3], ..s.materials[usize::from(wood)] }
        }
    }
}

/// Returns one of the pictures of wood in this tone, if there are any.
pub(super) fn pictured_wood(s: &mut Studio<'_>, tone: Vec3) -> Option<Material> {
    let woods = s.stock.map(|stock| stock.woods()).filter(|woods| !woods.is_empty())?;
    let wood = &woods[s.draw.count(0, woods.len() - 1)];
    let number = s.picture(&wood.picture);
    let color = (tone / wood.picture.mean().max(Vec3::splat(0.02))).min(Vec3::splat(6.0));
    let pattern = Pattern::Picture { number, units: wood.width.recip(), per_metre: wood.width.recip() };
    Some(Material::new(pattern, [color; 3], s.draw.seed() as u32).gloss(0.08))
}

fn cloth(s: &mut Studio<'_>) -> Material {
    let palette = s.palette();
    if s.draw.chance(0.45) {
        let [a, b, c] = palette.cushions;
        let [d, e, f] = palette.bedding;
        return s.materials[usize::from(s.draw.pick(&[palette.sofa, palette.seat, a, b, c, d, e, f]))];
    }
    let (a, b, c) = (lively(s), lively(s), lively(s));
    let size = s.draw.range(0.03, 0.16);
    let seed = s.draw.seed() as u32;
    match s.draw.count(0, 9) {
        0 => Material::new(Pattern::Stripes(size), [a, b, c], seed),
        1 => Material::new(Pattern::Plaid(size), [a, b, c], seed),
        2 => Material::new(Pattern::Flowers(2.0 * size), [a, b, c], seed),
        3 => Material::new(Pattern::Dots(size), [a, b, c], seed),
        4 => Material::new(Pattern::Leather, [a; 3], seed).gloss(0.2),
        _ => Material::new(Pattern::Weave, [a, a * 0.72, b], seed),
    }
}

/// A small thing for a top, with the radius that it needs, no wider than `most`. Its origin is in the middle.
pub(super) fn small(s: &mut Studio<'_>, use_as: Use, most: Vec2) -> Option<(Piece, f32)> {
    let kinds: &[ModelKind] = match use_as {
        Use::Dining => &[ModelKind::Dish, ModelKind::Dish, ModelKind::SmallPlant],
        Use::Low => {
            &[ModelKind::Dish, ModelKind::Ornament, ModelKind::Books, ModelKind::SmallPlant, ModelKind::OfficeThing]
        }
        Use::Desk => {
            &[ModelKind::OfficeThing, ModelKind::Dish, ModelKind::Books, ModelKind::SmallPlant, ModelKind::Ornament]
        }
        Use::Kitchen => &[ModelKind::KitchenThing, ModelKind::KitchenThing, ModelKind::Dish],
        Use::Display => {
            &[ModelKind::Ornament, ModelKind::Ornament, ModelKind::SmallPlant, ModelKind::TableLamp, ModelKind::Books]
        }
        Use::Night => &[ModelKind::Books, ModelKind::Dish, ModelKind::Ornament],
        Use::Bath => &[ModelKind::BathThing],
    };
    s.stock?;
    let kind = s.draw.pick(kinds);
    thing(s, kind, most)
}

/// A model of `kind` as [`small`] gives it.
pub(super) fn thing(s: &mut Studio<'_>, kind: ModelKind, most: Vec2) -> Option<(Piece, f32)> {
    let most = most.min_element();
    let mut piece = real(s, &[kind], |size| size.x.hypot(size.y) < most)?;
    let bounds = piece.mesh.bounds();
    let middle = bounds.center();
    piece.mesh.transform(&Affine3A::from_translation(-vec3(middle.x, middle.y, bounds.min.z)));
    let radius = 0.5 * bounds.size().truncate().length();
    Some((piece, radius))
}
