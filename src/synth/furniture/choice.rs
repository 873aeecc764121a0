//! The furniture of the rooms: a real model if there are assets and chance wants it, else the parametric design.

use glam::{Affine3A, Vec3, vec3};

use super::real::{pictured_wood, real, real_with_levels};
use super::storage::fill_board;
use super::{Piece, Studio, bath, beds, clutter, kitchen, seats, storage, tables};
use crate::labels::nyu40::BOOKSHELF;
use crate::synth::assets::{Level, ModelKind};
use crate::synth::mesh::{Builder, Mesh};
use crate::synth::texture::Pattern;

/// True for sizes up to a width and a depth.
fn within(width: f32, depth: f32) -> impl Fn(Vec3) -> bool {
    move |size| size.x <= width && size.y <= depth
}

/// A chair beside others that are the same: a model, or none.
pub(in crate::synth) fn set_chair(s: &mut Studio<'_>) -> Option<Piece> {
    real(s, &[ModelKind::Chair], within(0.75, 0.75))
}

/// The parametric chair.
pub(in crate::synth) fn made_chair(s: &mut Studio<'_>) -> Piece {
    seats::chair(s)
}

/// A chair for one.
pub(in crate::synth) fn chair(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::Chair], within(0.8, 0.85)).unwrap_or_else(|| seats::chair(s))
}

/// A chair at a desk.
pub(in crate::synth) fn office_chair(s: &mut Studio<'_>) -> Piece {
    // Few models have castors, and many people sit on other chairs.
    let kinds: &[ModelKind] =
        if s.stock.is_some() && s.draw.chance(0.3) { &[ModelKind::Chair] } else { &[ModelKind::OfficeChair] };
    real(s, kinds, within(0.8, 0.8)).unwrap_or_else(|| seats::office_chair(s))
}

/// An armchair.
pub(in crate::synth) fn armchair(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::Armchair], within(1.3, 1.3)).unwrap_or_else(|| seats::armchair(s))
}

/// A stool without a back.
pub(in crate::synth) fn ottoman(s: &mut Studio<'_>) -> Piece {
    let kinds = [ModelKind::Ottoman, ModelKind::Stool];
    real(s, &kinds, within(1.0, 1.0)).unwrap_or_else(|| seats::ottoman(s))
}

/// A sofa.
pub(in crate::synth) fn sofa(s: &mut Studio<'_>, max_width: f32) -> Piece {
    real(s, &[ModelKind::Sofa], within(max_width, 2.1)).unwrap_or_else(|| seats::sofa(s, max_width))
}

/// A bed.
pub(in crate::synth) fn bed(s: &mut Studio<'_>, double: bool) -> Piece {
    let fits = |size: Vec3| (size.x > 1.25) == double;
    real(s, &[ModelKind::Bed], fits).unwrap_or_else(|| beds::bed(s, double))
}

/// A night stand.
pub(in crate::synth) fn night_stand(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::NightStand], within(0.8, 0.6)).unwrap_or_else(|| beds::night_stand(s))
}

/// A table for meals.
pub(in crate::synth) fn dining_table(s: &mut Studio<'_>, max: [f32; 2]) -> Piece {
    let fits = |size: Vec3| size.x <= max[0] + 0.1 && size.y <= max[1] + 0.25;
    real(s, &[ModelKind::Table], fits).unwrap_or_else(|| tables::dining_table(s, max))
}

/// A low table.
pub(in crate::synth) fn coffee_table(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::CoffeeTable], within(1.5, 0.9)).unwrap_or_else(|| tables::coffee_table(s))
}

/// A small table beside a sofa.
pub(in crate::synth) fn side_table(s: &mut Studio<'_>) -> Piece {
    let kinds = [ModelKind::SideTable, ModelKind::NightStand];
    real(s, &kinds, within(0.95, 0.6)).unwrap_or_else(|| tables::side_table(s))
}

/// A desk.
pub(in crate::synth) fn desk(s: &mut Studio<'_>, max_width: f32) -> Piece {
    real(s, &[ModelKind::Desk], within(max_width, 1.3)).unwrap_or_else(|| tables::desk(s, max_width))
}

/// A bookshelf.
pub(in crate::synth) fn bookshelf(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let fits = within(max_width + 0.1, 0.65);
    match real_with_levels(s, &[ModelKind::Bookshelf], fits) {
        Some((mut piece, levels)) => {
            fill(s, &mut piece.mesh, &levels);
            piece
        }
        None => storage::bookshelf(s, max_width),
    }
}

/// Puts books and other things into a shelf.
fn fill(s: &mut Studio<'_>, mesh: &mut Mesh, levels: &[Level]) {
    for level in levels.iter().filter(|level| level.z < 1.95) {
        if s.draw.chance(0.8) {
            let mut b = Builder::new(BOOKSHELF);
            let (x, y) = ([level.min.x + 0.01, level.max.x - 0.01], [level.min.y + 0.005, level.max.y - 0.005]);
            fill_board(s, &mut b, x, y, level.z, level.room.min(0.4));
            mesh.append(&b.mesh, &Affine3A::IDENTITY, 0);
        }
    }
}

/// A wardrobe.
pub(in crate::synth) fn wardrobe(s: &mut Studio<'_>, max_width: f32) -> Piece {
    real(s, &[ModelKind::Wardrobe], within(max_width, 0.75)).unwrap_or_else(|| storage::wardrobe(s, max_width))
}

/// A cabinet.
pub(in crate::synth) fn cabinet(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let fits = within(max_width.max(1.2), 0.8);
    real(s, &[ModelKind::Cabinet], fits).unwrap_or_else(|| storage::cabinet(s, max_width))
}

/// A low cabinet.
pub(in crate::synth) fn low_cabinet(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let fits = |size: Vec3| size.x <= max_width + 0.3 && size.z < 1.05;
    real(s, &[ModelKind::Cabinet], fits).unwrap_or_else(|| storage::low_cabinet(s, max_width))
}

/// A stand for a television.
pub(in crate::synth) fn tv_stand(s: &mut Studio<'_>, max_width: f32) -> Piece {
    let fits = |size: Vec3| size.x <= max_width && size.x > 0.9 && size.z < 0.75;
    let kinds = [ModelKind::TvStand, ModelKind::Cabinet];
    real(s, &kinds, fits).unwrap_or_else(|| storage::tv_stand(s, max_width))
}

/// A refrigerator.
pub(in crate::synth) fn refrigerator(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::Refrigerator], within(1.1, 1.0)).unwrap_or_else(|| kitchen::refrigerator(s))
}

/// A washing machine.
pub(in crate::synth) fn washing_machine(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::WashingMachine], within(0.8, 0.8)).unwrap_or_else(|| bath::washing_machine(s))
}

/// A toilet.
pub(in crate::synth) fn toilet(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::Toilet], within(0.8, 1.0)).unwrap_or_else(|| bath::toilet(s))
}

/// A basin.
pub(in crate::synth) fn basin(s: &mut Studio<'_>, max_width: f32) -> Piece {
    real(s, &[ModelKind::Basin], within(max_width, 0.7)).unwrap_or_else(|| bath::basin(s, max_width))
}

/// A bathtub of a length, along its wall.
pub(in crate::synth) fn bathtub(s: &mut Studio<'_>, length: f32) -> Piece {
    let Some(mut piece) = real(s, &[ModelKind::Bathtub], within(2.1, 1.0)) else { return bath::bathtub(s, length) };
    let stretch = length / piece.mesh.bounds().size().x.max(0.1);
    piece.mesh.positions.iter_mut().for_each(|p| p.x *= stretch);
    piece
}

/// A floor lamp.
pub(in crate::synth) fn floor_lamp(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::FloorLamp], within(0.7, 0.8)).unwrap_or_else(|| clutter::floor_lamp(s))
}

/// A plant on the floor.
pub(in crate::synth) fn plant(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::Plant], within(1.2, 1.2)).unwrap_or_else(|| clutter::plant(s))
}

/// A bin.
pub(in crate::synth) fn bin(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::Bin], within(0.7, 0.7)).unwrap_or_else(|| clutter::bin(s))
}

/// Boxes on the floor.
pub(in crate::synth) fn boxes(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::Box], within(1.0, 0.8)).unwrap_or_else(|| clutter::boxes(s))
}

/// A bag.
pub(in crate::synth) fn bag(s: &mut Studio<'_>) -> Piece {
    real(s, &[ModelKind::Bag], within(1.1, 0.5)).unwrap_or_else(|| clutter::bag(s))
}

/// A radiator below a window.
pub(in crate::synth) fn radiator(s: &mut Studio<'_>, width: f32) -> Piece {
    let fits = within(width + 0.1, 0.3);
    match real(s, &[ModelKind::Radiator], fits) {
        Some(mut piece) => {
            piece.mesh.transform(&Affine3A::from_translation(vec3(0.0, 0.0, 0.1)));
            piece
        }
        None => clutter::radiator(s, width),
    }
}

/// A television with its foot at the origin.
pub(in crate::synth) fn television(s: &mut Studio<'_>, max_width: f32) -> Piece {
    match real(s, &[ModelKind::Television], within(max_width.max(0.7), 0.6)) {
        Some(mut piece) => {
            let middle = piece.mesh.bounds().center().y;
            piece.mesh.transform(&Affine3A::from_translation(vec3(0.0, -middle, 0.0)));
            piece
        }
        None => clutter::television(s, max_width),
    }
}

/// Gives the materials of the style traces of use, and some of its woods a picture of wood.
pub(in crate::synth) fn lived_in(s: &mut Studio<'_>) {
    for number in 0..s.materials.len() {
        let material = s.materials[number];
        let wear = if s.draw.chance(0.5) { s.draw.range(0.05, 0.5) } else { 0.0 };
        let is_wood = matches!(material.pattern, Pattern::Wood(_));
        let pictured = if is_wood && s.draw.chance(0.4) { pictured_wood(s, material.colors[0]) } else { None };
        if !material.clear && material.glow == 0.0 {
            s.materials[number] = pictured.unwrap_or(material).worn(wear);
        }
    }
}

/// More things on the floor, where there are assets: chairs at the wall, stools, toys, boxes. Without assets none.
pub(in crate::synth) fn extras(s: &mut Studio<'_>, wet: bool) -> Vec<Piece> {
    if s.stock.is_none() {
        return Vec::new();
    }
    let kinds: &[(ModelKind, f32)] = if wet {
        &[(ModelKind::Stool, 0.2), (ModelKind::Bin, 0.15), (ModelKind::Box, 0.1)]
    } else {
        &[
            (ModelKind::Chair, 0.25),
            (ModelKind::Stool, 0.2),
            (ModelKind::BarChair, 0.12),
            (ModelKind::Armchair, 0.1),
            (ModelKind::Plant, 0.35),
            (ModelKind::Box, 0.3),
            (ModelKind::Bag, 0.25),
            (ModelKind::Bin, 0.15),
            (ModelKind::Ornament, 0.2),
            (ModelKind::NightStand, 0.1),
        ]
    };
    let mut pieces = Vec::new();
    for &(kind, likely) in kinds {
        if s.draw.chance(likely) {
            pieces.extend(real(s, &[kind], within(1.2, 1.2)));
        }
    }
    pieces
}

/// A person, in few rooms and with assets alone.
pub(in crate::synth) fn person(s: &mut Studio<'_>) -> Option<Piece> {
    s.stock?;
    if s.draw.chance(0.1) { real(s, &[ModelKind::Person], |_| true) } else { None }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::labels::nyu40;
    use crate::synth::assets::Assets;
    use crate::synth::draw::Draw;
    use crate::synth::style::Style;
    use crate::synth::{HomeStyle, Split, SynthError};

    fn samples() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/assets"))
    }

    fn classes(piece: &Piece) -> BTreeSet<u8> {
        piece.mesh.surfaces.iter().map(|surface| surface.class).collect()
    }

    #[test]
    fn models_are_of_their_class_and_size() {
        let assets = Assets::open(samples(), 1.0).unwrap();
        let style = Style::new(HomeStyle::Flat, 3);
        let mut s = Studio::new(&style, Draw::new(5, &[])).with_stock(Some(assets.stock(Split::Train)));
        for _ in 0..8 {
            let cases = [
                (chair(&mut s), nyu40::CHAIR, vec3(0.4, 0.4, 0.92)),
                (set_chair(&mut s).unwrap(), nyu40::CHAIR, vec3(0.4, 0.4, 0.92)),
                (sofa(&mut s, 3.0), nyu40::SOFA, vec3(1.96, 0.82, 0.92)),
                (dining_table(&mut s, [2.0, 1.0]), nyu40::TABLE, vec3(1.7, 0.9, 0.69)),
                (coffee_table(&mut s), nyu40::TABLE, vec3(1.32, 0.8, 0.46)),
                (bookshelf(&mut s, 1.3), nyu40::BOOKSHELF, vec3(0.8, 0.5, 0.8)),
                (boxes(&mut s), nyu40::BOX, vec3(0.38, 0.38, 0.5)),
                (floor_lamp(&mut s), nyu40::LAMP, vec3(0.24, 0.24, 1.72)),
                (television(&mut s, 1.5), nyu40::TELEVISION, vec3(1.28, 0.24, 0.85)),
            ];
            for (piece, class, size) in cases {
                assert_eq!(classes(&piece), BTreeSet::from([class]));
                let bounds = piece.mesh.bounds();
                let share = bounds.size() / size;
                // Things on a shelf may stand out.
                let most = if class == nyu40::BOOKSHELF { 1.5 } else { 1.1 };
                assert!(
                    share.cmpgt(Vec3::splat(0.9)).all() && share.cmplt(Vec3::splat(most)).all(),
                    "{class} {bounds:?}"
                );
                assert!(bounds.min.z.abs() < 1e-3 && bounds.center().x.abs() < 0.1, "{class} {bounds:?}");
                for surface in &piece.mesh.surfaces {
                    assert!(usize::from(surface.material) < s.materials.len());
                }
                let has_top = matches!(class, nyu40::TABLE);
                assert_eq!(!piece.tops.is_empty(), has_top, "{class}");
                for top in &piece.tops {
                    assert!((top.z - bounds.max.z).abs() < 0.01 && (top.max - top.min).min_element() > 0.3, "{top:?}");
                }
            }
            // Two night stands: flat colours, and a picture.
            assert_eq!(classes(&night_stand(&mut s)), BTreeSet::from([nyu40::NIGHT_STAND]));
            // There is no such model.
            assert!(classes(&toilet(&mut s)).contains(&nyu40::TOILET));
            assert!(extras(&mut s, false).iter().all(|piece| !piece.mesh.triangles.is_empty()));
        }
        assert!(!s.pictures.is_empty() && assets.unreadable().is_empty());
    }

    #[test]
    fn without_assets_nothing_is_drawn_for_them() {
        let style = Style::new(HomeStyle::Flat, 3);
        let mut s = Studio::new(&style, Draw::new(5, &[]));
        assert!(set_chair(&mut s).is_none() && extras(&mut s, false).is_empty() && person(&mut s).is_none());
        assert_eq!(s.draw.seed(), Draw::new(5, &[]).seed());
        let mut other = Studio::new(&style, Draw::new(5, &[]));
        let (piece, made) = (sofa(&mut s, 2.5), {
            other.draw.seed();
            seats::sofa(&mut other, 2.5)
        });
        assert_eq!((piece.mesh.positions, piece.mesh.surfaces), (made.mesh.positions, made.mesh.surfaces));
    }

    #[test]
    fn a_model_that_cannot_be_read_is_named_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("kenney")).unwrap();
        std::fs::write(folder.path().join("kenney/loungeSofa.glb"), b"glTF\x02\0\0\0nothing").unwrap();
        let assets = Assets::open(folder.path(), 1.0).unwrap();
        assert_eq!(assets.counts()[0], 1);
        let style = Style::new(HomeStyle::Flat, 3);
        let mut s = Studio::new(&style, Draw::new(5, &[])).with_stock(Some(assets.stock(Split::Train)));
        assert!(classes(&sofa(&mut s, 3.0)).contains(&nyu40::SOFA));
        let unread = assets.unreadable();
        assert_eq!(unread.len(), 1);
        assert!(unread[0].0.ends_with("loungeSofa.glb") && unread[0].1.contains("loungeSofa.glb"), "{unread:?}");
    }

    #[test]
    fn damaged_models_are_errors_or_furniture() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("kenney")).unwrap();
        let path = folder.path().join("kenney/cardboardBoxClosed.glb");
        let whole = std::fs::read(samples().join("kenney/cardboardBoxClosed.glb")).unwrap();
        let style = Style::new(HomeStyle::Flat, 3);
        let mut draw = Draw::new(1, &[]);
        let mut refused = 0;
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..draw.count(1, 6) {
                let at = draw.count(0, bytes.len() - 1);
                bytes[at] = draw.count(0, 255) as u8;
            }
            if draw.chance(0.1) {
                bytes.truncate(draw.count(1, whole.len()));
            }
            std::fs::write(&path, bytes).unwrap();
            let assets = Assets::open(folder.path(), 1.0).unwrap();
            let mut s = Studio::new(&style, Draw::new(5, &[])).with_stock(Some(assets.stock(Split::Train)));
            assert!(boxes(&mut s).mesh.positions.iter().all(|p| p.is_finite() && p.abs().max_element() < 3.0));
            refused += assets.unreadable().len();
        }
        assert!(refused > 5, "{refused}");
    }

    #[test]
    fn folders_without_models_and_shares_out_of_range_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Assets::open(folder.path(), 0.5).unwrap_err();
        assert!(matches!(refused, SynthError::NoModels { .. }) && refused.to_string().contains("scripts/assets"));
        for share in [-0.1, 1.5, f32::NAN] {
            assert!(matches!(Assets::open(samples(), share), Err(SynthError::Setting { .. })), "{share}");
        }
    }

    #[test]
    fn models_belong_to_one_part_of_a_data_set() {
        let assets = Assets::open(samples(), 1.0).unwrap();
        let parts = Split::ALL.map(|split| assets.models_of(split).into_iter().collect::<BTreeSet<_>>());
        assert!(parts.iter().all(|part| !part.is_empty()));
        let all: BTreeSet<_> = parts.iter().flatten().collect();
        assert_eq!(all.len(), parts.iter().map(BTreeSet::len).sum::<usize>());
        assert_eq!(all.len(), assets.counts()[0]);
        assert!(parts[2].contains(Path::new("kenney/chair.glb")) && parts[1].contains(Path::new("kenney/table.glb")));
    }
}
