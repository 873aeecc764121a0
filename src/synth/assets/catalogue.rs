//! The models that may stand in rooms, as `catalogue.toml` lists them.

use std::path::PathBuf;

use glam::{Mat3, Vec3, vec3};
use serde::Deserialize;

use crate::labels::nyu40;
use crate::random::SplitMix64;
use crate::synth::{Split, SynthError};

/// The list, kept beside this file.
const LIST: &str = include_str!("catalogue.toml");

/// What a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::synth) enum ModelKind {
    Chair,
    #[serde(rename = "office chair")]
    OfficeChair,
    #[serde(rename = "bar chair")]
    BarChair,
    Armchair,
    Stool,
    Ottoman,
    Sofa,
    Bed,
    Table,
    #[serde(rename = "coffee table")]
    CoffeeTable,
    #[serde(rename = "side table")]
    SideTable,
    Desk,
    #[serde(rename = "night stand")]
    NightStand,
    Cabinet,
    #[serde(rename = "tv stand")]
    TvStand,
    Wardrobe,
    Bookshelf,
    Refrigerator,
    #[serde(rename = "washing machine")]
    WashingMachine,
    Toilet,
    Basin,
    Bathtub,
    #[serde(rename = "floor lamp")]
    FloorLamp,
    #[serde(rename = "table lamp")]
    TableLamp,
    Television,
    Monitor,
    Laptop,
    Plant,
    #[serde(rename = "small plant")]
    SmallPlant,
    Box,
    Bin,
    Bag,
    Books,
    Dish,
    #[serde(rename = "kitchen thing")]
    KitchenThing,
    Ornament,
    #[serde(rename = "office thing")]
    OfficeThing,
    #[serde(rename = "bath thing")]
    BathThing,
    Radiator,
    Person,
}

impl ModelKind {
    /// Returns the class of the kind, as NYU40's number. It is that of the parametric furniture of this kind.
    pub(in crate::synth) fn class(self) -> u8 {
        match self {
            Self::Chair | Self::OfficeChair | Self::BarChair | Self::Armchair => nyu40::CHAIR,
            Self::Sofa => nyu40::SOFA,
            Self::Bed => nyu40::BED,
            Self::Table | Self::CoffeeTable | Self::SideTable => nyu40::TABLE,
            Self::Desk => nyu40::DESK,
            Self::NightStand => nyu40::NIGHT_STAND,
            Self::Cabinet | Self::TvStand | Self::Wardrobe => nyu40::CABINET,
            Self::Bookshelf => nyu40::BOOKSHELF,
            Self::Refrigerator => nyu40::REFRIGERATOR,
            Self::Toilet => nyu40::TOILET,
            Self::Basin => nyu40::SINK,
            Self::Bathtub => nyu40::BATHTUB,
            Self::FloorLamp | Self::TableLamp => nyu40::LAMP,
            Self::Television => nyu40::TELEVISION,
            Self::Box => nyu40::BOX,
            Self::Bag => nyu40::BAG,
            Self::Books => nyu40::BOOKS,
            Self::Person => nyu40::PERSON,
            Self::Stool | Self::Ottoman | Self::WashingMachine | Self::Bin | Self::Radiator => nyu40::OTHER_FURNITURE,
            Self::Monitor
            | Self::Laptop
            | Self::Plant
            | Self::SmallPlant
            | Self::Dish
            | Self::KitchenThing
            | Self::Ornament
            | Self::OfficeThing
            | Self::BathThing => nyu40::OTHER_PROP,
        }
    }

    /// True if things may stand on a piece of this kind.
    pub(in crate::synth) fn has_tops(self) -> bool {
        matches!(
            self,
            Self::Table
                | Self::CoffeeTable
                | Self::SideTable
                | Self::Desk
                | Self::NightStand
                | Self::Cabinet
                | Self::TvStand
                | Self::Bookshelf
        )
    }
}

/// A model of the list.
#[derive(Clone, Debug)]
pub(in crate::synth) struct Entry {
    /// The file, below the folder of assets.
    pub file: PathBuf,
    pub kind: ModelKind,
    /// Width, depth and height in metres.
    pub size: Vec3,
    /// Height of the underside above the floor, in metres.
    pub elevation: f32,
    /// From the axes of the file to those of furniture: x along the wall, y into the room, z up.
    pub frame: Mat3,
    /// The part of a data set that the model belongs to.
    pub split: Split,
}

/// A picture of wood, with the grain across.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::synth) struct WoodEntry {
    /// The file, below the folder of assets.
    pub file: PathBuf,
    /// Width of the picture on a surface, in metres.
    pub width: f32,
}

/// The part of the list that furnishing needs. Titles, authors and licences are for people.
#[derive(Deserialize)]
struct List {
    set: Vec<Set>,
    wood: Vec<WoodEntry>,
}

#[derive(Deserialize)]
struct Set {
    folder: String,
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    file: String,
    kind: ModelKind,
    size: [f32; 3],
    #[serde(default)]
    turn: f32,
    rotation: Option<[f32; 9]>,
    #[serde(default)]
    elevation: f32,
}

/// Returns all models, in the order of the list, and all pictures of wood.
///
/// # Errors
/// [`SynthError::Catalogue`] if the list cannot be read.
pub(in crate::synth) fn read() -> Result<(Vec<Entry>, Vec<WoodEntry>), SynthError> {
    let list: List = toml::from_str(LIST).map_err(|error| SynthError::Catalogue(error.to_string()))?;
    let mut entries = Vec::new();
    for set in list.set {
        for model in set.models {
            let file = format!("{}/{}", set.folder, model.file);
            let given = model.rotation.map_or(Mat3::IDENTITY, |rows| Mat3::from_cols_array(&rows).transpose());
            // y up and the front towards z become z up and the front towards y.
            let upright = Mat3::from_cols(vec3(-1.0, 0.0, 0.0), vec3(0.0, 0.0, 1.0), vec3(0.0, 1.0, 0.0));
            entries.push(Entry {
                kind: model.kind,
                size: Vec3::from_array(model.size),
                elevation: model.elevation,
                frame: Mat3::from_rotation_z(model.turn.to_radians()) * upright * given,
                split: split_of(&file),
                file: file.into(),
            });
        }
    }
    Ok((entries, list.wood))
}

/// Returns the part of a data set that a model belongs to: four of six are for training. It depends on the name
/// alone, so more models change nothing about those that are there.
fn split_of(file: &str) -> Split {
    let hash = file
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    match SplitMix64::new(hash).below(6) {
        0 => Split::Val,
        1 => Split::Test,
        _ => Split::Train,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_list_has_many_models_of_credible_size() {
        let (entries, woods) = read().unwrap();
        assert!(entries.len() > 400 && woods.len() == 2, "{}", entries.len());
        let names: BTreeSet<_> = entries.iter().map(|entry| &entry.file).collect();
        assert_eq!(names.len(), entries.len());
        for entry in &entries {
            let size = entry.size;
            assert!(size.min_element() > 0.0 && size.max_element() < 3.0, "{entry:?}");
            assert!((entry.frame.determinant() - 1.0).abs() < 1e-3, "{entry:?}");
            let tall = match entry.kind.class() {
                nyu40::CHAIR => 0.5..1.3,
                nyu40::SOFA => 0.6..1.1,
                nyu40::DESK => 0.6..1.2,
                nyu40::TABLE => 0.3..0.85,
                nyu40::REFRIGERATOR => 0.8..2.05,
                _ => 0.0..2.4,
            };
            assert!(tall.contains(&size.z), "{entry:?}");
        }
    }

    #[test]
    fn each_part_of_a_data_set_has_its_share_of_the_models() {
        let mut counts: BTreeMap<Split, usize> = BTreeMap::new();
        let (entries, _) = read().unwrap();
        for entry in &entries {
            *counts.entry(entry.split).or_default() += 1;
        }
        let share = |split: Split| counts[&split] as f64 / entries.len() as f64;
        assert!((0.6..0.74).contains(&share(Split::Train)), "{counts:?}");
        assert!([Split::Val, Split::Test].iter().all(|split| (0.12..0.22).contains(&share(*split))), "{counts:?}");
    }

    #[test]
    fn authors_of_models_that_ask_for_it_are_named() {
        let list: toml::Table = LIST.parse().unwrap();
        let notice = include_str!("../../../NOTICE").split_whitespace().collect::<Vec<_>>().join(" ");
        let mut named = 0;
        for set in list["set"].as_array().unwrap() {
            if !set["licence"].as_str().unwrap().starts_with("CC BY") {
                continue;
            }
            let own = set["models"].as_array().unwrap().iter().filter_map(|model| model.get("author"));
            for author in own.chain([&set["author"]]) {
                let author = author.as_str().unwrap();
                assert!(notice.contains(author), "{author}");
                named += 1;
            }
        }
        assert!(named > 70, "{named}");
    }
}
