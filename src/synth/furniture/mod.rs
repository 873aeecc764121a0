//! Furniture, one function per kind.
//!
//! A piece has its own axes: x along its wall, y from there into the room, z up. The origin is on the floor,
//! in the middle of the back. The style's designs decide dimensions and forms. The room's own choices decide
//! the small things.

mod bath;
mod beds;
mod books;
mod choice;
mod clutter;
mod kitchen;
mod openings;
mod real;
mod seats;
mod storage;
mod tables;

pub(super) use bath::{bath_mat, shower_curtain, towel_rail};
pub(super) use choice::{
    armchair, bag, basin, bathtub, bed, bin, bookshelf, boxes, cabinet, chair, coffee_table, desk, dining_table,
    extras, floor_lamp, lived_in, low_cabinet, made_chair, night_stand, office_chair, ottoman, person, plant, radiator,
    refrigerator, set_chair, side_table, sofa, television, toilet, tv_stand, wardrobe, washing_machine,
};
pub(super) use clutter::{ceiling_lamp, clothes_stand, place_clutter, rug, wall_television, whiteboard};
pub(super) use kitchen::{island, kitchen_run};
pub(super) use openings::{Opening, OpeningKind, curtains, door, picture, window};
pub(super) use storage::wall_shelf;

use std::sync::Arc;

use glam::{Vec2, Vec3, vec2, vec3};

use super::assets::Stock;
use super::draw::Draw;
use super::mesh::{Builder, Mesh};
use super::picture::Picture;
use super::style::{Palette, Style};
use super::texture::Material;

/// Number of designs that a style has of each kind.
const VARIANTS: usize = 2;

/// The materials and choices that furniture is made with.
#[derive(Debug)]
pub(super) struct Studio<'a> {
    pub style: &'a Style,
    /// Materials of the style, and those of single pieces.
    pub materials: Vec<Material>,
    /// Random choices of the room.
    pub draw: Draw,
    /// Real models, if there are any.
    pub stock: Option<Stock<'a>>,
    /// Pictures that the materials number.
    pub pictures: Vec<Arc<Picture>>,
}

impl<'a> Studio<'a> {
    pub(super) fn new(style: &'a Style, draw: Draw) -> Self {
        Self { style, materials: style.materials.clone(), draw, stock: None, pictures: Vec::new() }
    }

    pub(super) fn with_stock(self, stock: Option<Stock<'a>>) -> Self {
        Self { stock, ..self }
    }

    pub(super) fn palette(&self) -> &'a Palette {
        &self.style.palette
    }

    /// Returns one of the style's designs of a kind.
    fn design(&mut self, kind: Kind) -> Draw {
        let variant = self.draw.count(0, VARIANTS - 1);
        self.style.design(kind as u64, variant as u64)
    }

    /// Returns the style's first design of a kind, for pieces that are alike within a room.
    fn first_design(&self, kind: Kind) -> Draw {
        self.style.design(kind as u64, 0)
    }

    pub(super) fn material(&mut self, material: Material) -> u16 {
        self.materials.push(material);
        (self.materials.len() - 1) as u16
    }

    /// Returns the number of a picture for materials.
    fn picture(&mut self, picture: &Arc<Picture>) -> u16 {
        let known = self.pictures.iter().position(|other| Arc::ptr_eq(other, picture));
        known.unwrap_or_else(|| {
            self.pictures.push(Arc::clone(picture));
            self.pictures.len() - 1
        }) as u16
    }
}

/// Kinds of designs.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Chair,
    OfficeChair,
    Sofa,
    Ottoman,
    DiningTable,
    CoffeeTable,
    SideTable,
    Desk,
    Bookshelf,
    Wardrobe,
    Cabinet,
    NightStand,
    TvStand,
    Bed,
    Kitchen,
    Refrigerator,
    Toilet,
    Basin,
    Bathtub,
    Washer,
    Door,
    Window,
    Curtain,
    Lamp,
    Small,
}

/// A level surface for small things.
#[derive(Clone, Copy, Debug)]
pub(super) struct Top {
    pub min: Vec2,
    pub max: Vec2,
    pub z: f32,
    pub use_as: Use,
}

/// Use of a top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Dining,
    Low,
    Desk,
    Kitchen,
    Display,
    Night,
    Bath,
}

/// A piece of furniture.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub mesh: Mesh,
    pub tops: Vec<Top>,
}

impl Piece {
    fn of(builder: Builder) -> Self {
        Self { mesh: builder.mesh, tops: Vec::new() }
    }

    fn with_top(builder: Builder, [x0, y0]: [f32; 2], [x1, y1]: [f32; 2], z: f32, use_as: Use) -> Self {
        let top = Top { min: vec2(x0, y0), max: vec2(x1, y1), z, use_as };
        Self { mesh: builder.mesh, tops: vec![top] }
    }
}

/// Forms of legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Square,
    Tapered,
    Turned,
    Tube,
}

/// Builds a leg from under `top` to the floor. Its foot is shifted by `splay`.
fn leg(b: &mut Builder, form: Leg, top: Vec3, splay: Vec2, width: f32) {
    let foot = vec3(top.x + splay.x, top.y + splay.y, 0.0);
    match form {
        Leg::Square if splay == Vec2::ZERO => b.block(foot, vec3(width, width, top.z)),
        Leg::Square | Leg::Tapered => b.rod(foot, top, width * 0.3, width * 0.62, 10),
        Leg::Tube => b.rod(foot, top, width * 0.35, width * 0.35, 8),
        Leg::Turned => {
            let at = |t: f32| foot.lerp(top, t);
            let stops =
                [(0.0, 0.30), (0.08, 0.45), (0.16, 0.28), (0.55, 0.50), (0.72, 0.34), (0.78, 0.58), (1.0, 0.60)];
            for pair in stops.windows(2) {
                b.rod(at(pair[0].0), at(pair[1].0), pair[0].1 * width, pair[1].1 * width, 10);
            }
        }
    }
}

/// Handles of drawers and doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handle {
    Knob,
    Bar,
    Cup,
    None,
}

/// Builds a handle on a front at `at`. It sticks out along +y; `upright` turns bars.
fn handle(b: &mut Builder, form: Handle, at: Vec3, upright: bool) {
    match form {
        Handle::None => {}
        Handle::Knob => {
            b.rod(at, at + vec3(0.0, 0.018, 0.0), 0.007, 0.009, 8);
            b.ellipsoid(at + vec3(0.0, 0.024, 0.0), vec3(0.015, 0.010, 0.015), 10);
        }
        Handle::Bar => {
            let half = if upright { vec3(0.0, 0.0, 0.075) } else { vec3(0.07, 0.0, 0.0) };
            let out = vec3(0.0, 0.028, 0.0);
            b.tube(&[at - half, at - half + out, at + half + out, at + half], 0.006, 6);
        }
        Handle::Cup => b.rounded(at - vec3(0.05, 0.0, 0.012), at + vec3(0.05, 0.022, 0.016), 0.010),
    }
}

/// Builds the front of a door or drawer in the plane y. It stands out by `thick` and may have a frame.
fn front(b: &mut Builder, [x0, z0]: [f32; 2], [x1, z1]: [f32; 2], y: f32, framed: bool) {
    let (gap, thick) = (0.0025, 0.018);
    let (x0, x1, z0, z1) = (x0 + gap, x1 - gap, z0 + gap, z1 - gap);
    let rail = 0.055_f32.min(0.22 * (x1 - x0)).min(0.3 * (z1 - z0));
    if !framed {
        return b.cuboid(vec3(x0, y, z0), vec3(x1, y + thick, z1));
    }
    b.cuboid(vec3(x0, y, z0), vec3(x0 + rail, y + thick, z1));
    b.cuboid(vec3(x1 - rail, y, z0), vec3(x1, y + thick, z1));
    b.cuboid(vec3(x0 + rail, y, z0), vec3(x1 - rail, y + thick, z0 + rail));
    b.cuboid(vec3(x0 + rail, y, z1 - rail), vec3(x1 - rail, y + thick, z1));
    b.cuboid(vec3(x0 + rail, y, z0 + rail), vec3(x1 - rail, y + thick * 0.4, z1 - rail));
}
