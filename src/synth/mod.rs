//! Synthetic furnished rooms: labelled scans with recorded RGB-D views. They serve for training and
//! evaluation where no data set is available.
//!
//! A home of one to three rooms is planned, furnished in one style, and lit. The project's own renderer
//! ([`crate::views::render`]) films it along a walk. The scan then holds only points that the views saw, with
//! the noise and the holes of a depth camera. Everything follows from a seed. The same seed gives the same
//! files on one device.
//!
//! With [`Assets`], a share of the furniture are real models, surfaces show traces of use, and the camera has the
//! faults of real ones. Models belong to one split each, too.
//!
//! A style decides the materials and the designs of all furniture. There are 120 styles, the same for every
//! seed, and each belongs to a single split. [`HomeStyle`] has two catalogues of them, for homes that differ as
//! those of two data sets do.
//!
//! A room is written in ScanNet's layout:
//!
//! | file | holds |
//! |---|---|
//! | `NAME_vh_clean_2.ply` | points with normals and colours, in metres, z up |
//! | `NAME_vh_clean_2.labels.ply` | the same points with `label`, NYU40's number of the class, and `instance`, `label · 1000 + number` |
//! | `color/N.jpg`, `depth/N.png` | views, depth in millimetres, 0 where nothing was measured |
//! | `pose/N.txt`, `intrinsic/*.txt` | camera to world, x right, y down, z forward; colour and depth share one camera |
//! | `label/N.png`, `instance/N.png` | class and object of every pixel, numbered as in the labelled scan |
//! | `synth.json` | what the room was made from, and how many points each class has |
//!
//! Frames are numbered in steps of 20, like an export of every 20th frame of a recording. All twenty classes
//! of the benchmark occur ([`SCANNET20`](crate::labels::nyu40::SCANNET20)). So do classes that no benchmark
//! counts: ceilings (22), pillows (18), books (23), lamps (35), small things (40) and the like.

mod assets;
mod batch;
mod bvh;
mod draw;
mod error;
mod furniture;
mod homes;
mod layout;
mod light;
mod mesh;
mod path;
mod picture;
mod record;
mod scan;
mod style;
mod texture;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use burn::tensor::Device;
use glam::{Affine3A, DMat3, vec3};
use serde::{Deserialize, Serialize};

use crate::labels::nyu40;

pub use assets::{Assets, AssetsInfo};
pub use batch::{Room, counts_of, write_rooms};
pub use error::SynthError;
pub use homes::{HomeStyle, UnknownHomeStyle};

use draw::Draw;
use layout::{Home, RoomKind};
use light::Light;
use record::{Optics, Sensor, View};
use scan::Point;
use style::Style;

use crate::views::{Intrinsics, Pose, PoseConvention};

/// Version of the generator, increased when the same seed gives other rooms.
const RECIPE: u32 = 1;
/// Longest edges of triangles, in metres, for the light: of walls, of surfaces full of small things, and of
/// all others.
const LIT_EDGES: [f32; 3] = [0.15, 0.22, 0.13];
/// Number of homes to plan until one can be walked through.
const ATTEMPTS: u64 = 64;
/// Purposes of the streams of random numbers.
const STYLE_ORDER: u64 = 1;
const KIND_ORDER: u64 = 2;
const ROOM: u64 = 3;
const OPTICS: u64 = 4;

/// Part of a data set to which a room belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training.
    Train,
    /// For choosing settings.
    Val,
    /// For measuring.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        })
    }
}

/// Settings for generating rooms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Seed of every random choice.
    pub seed: u64,
    /// Number of views of each room, 1 to 10,000.
    pub views: usize,
    /// Width and height of the views in pixels, 32 x 24 to 648 x 484.
    pub size: [usize; 2],
    /// Distance between neighbouring points of a scan, in metres, 0.005 to 0.1.
    pub spacing: f32,
    /// Style of the homes.
    #[serde(default, skip_serializing_if = "HomeStyle::is_usual")]
    pub homes: HomeStyle,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seed: 0, views: 60, size: [320, 240], spacing: 0.02, homes: HomeStyle::Flat }
    }
}

impl Settings {
    /// Checks that all settings are in range.
    ///
    /// # Errors
    /// [`SynthError::Setting`] for a setting out of its range.
    pub fn check(&self) -> Result<(), SynthError> {
        let [width, height] = self.size;
        if !(1..=10_000).contains(&self.views) {
            let found = self.views.to_string();
            return Err(SynthError::Setting { what: "the number of views", found, expected: "1 to 10000" });
        }
        if !(32..=648).contains(&width) || !(24..=484).contains(&height) {
            let found = format!("{width}x{height}");
            return Err(SynthError::Setting { what: "the size of the views", found, expected: "32x24 to 648x484" });
        }
        if !(0.005..=0.1).contains(&self.spacing) {
            let found = self.spacing.to_string();
            return Err(SynthError::Setting { what: "the spacing of points", found, expected: "0.005 to 0.1 m" });
        }
        Ok(())
    }
}

/// Origin and contents of a room, as in `synth.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomInfo {
    /// Version of the generator.
    pub recipe: u32,
    /// Settings it was generated with.
    pub settings: Settings,
    /// Split of the data set.
    pub split: Split,
    /// Number of the room in its split, from 1.
    pub number: usize,
    /// Number of its style.
    pub style: u64,
    /// Uses of its rooms.
    pub rooms: Vec<String>,
    /// Number of points of the scan.
    pub points: usize,
    /// Number of points of each class, by NYU40's number.
    pub points_of_class: BTreeMap<u8, usize>,
    /// Area of the scanned surface of each class in square metres, by NYU40's number. Empty for rooms of
    /// earlier versions.
    #[serde(default)]
    pub area_of_class: BTreeMap<u8, f64>,
    /// The models it was furnished from, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assets: Option<AssetsInfo>,
}

/// Result of [`write_room`].
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The room was generated.
    Made(RoomInfo),
    /// The same room was already there.
    Kept(RoomInfo),
}

impl Outcome {
    /// Returns the room's description.
    #[must_use]
    pub fn info(&self) -> &RoomInfo {
        match self {
            Self::Made(info) | Self::Kept(info) => info,
        }
    }
}

/// A generated room in memory.
struct Made {
    info: RoomInfo,
    lens: Intrinsics,
    poses: Vec<Pose>,
    views: Vec<View>,
    points: Vec<Point>,
    /// Quality of the pictures as JPEG.
    quality: u8,
}

/// Returns the name of room `number` of a split. The folder has this name, and the names of its files begin
/// with it.
#[must_use]
pub fn room_name(number: usize) -> String {
    format!("room_{number:04}")
}

/// Returns the styles of a split's rooms, in ascending order. Splits share no style.
#[must_use]
pub fn styles_of(split: Split) -> Vec<u64> {
    (0..Style::count_of()).map(|k| 3 * k + split as u64).collect()
}

/// Generates room `number` (from 1) of `split` in the folder `root/SPLIT/NAME`, with real models of `assets` among
/// its furniture if they are given. The views are rendered on `device`.
///
/// The folder appears only when it is complete. An existing one is kept if it has the same settings.
///
/// # Errors
/// [`SynthError::Setting`] for settings out of range, [`SynthError::Differs`] if the folder holds anything
/// else, and errors of rendering and writing.
pub fn write_room(
    root: &Path,
    split: Split,
    number: usize,
    settings: &Settings,
    assets: Option<&Assets>,
    device: &Device,
) -> Result<Outcome, SynthError> {
    settings.check()?;
    let folder = root.join(split.to_string()).join(room_name(number));
    if let Some(info) = write::present(&folder, split, number, settings, assets.map(Assets::info))? {
        return Ok(Outcome::Kept(info));
    }
    let made = make(split, number, settings, assets, device)?;
    write::write(&folder, &made)?;
    Ok(Outcome::Made(made.info))
}

/// Returns the style and the kind of a room. Both go round, so that a split has all of them early.
fn choices(split: Split, number: usize, seed: u64) -> (u64, RoomKind) {
    let index = number.saturating_sub(1);
    let styles = styles_of(split);
    let order = |purpose: u64, count: usize| {
        let round = (index / count) as u64;
        Draw::new(seed, &[split as u64, purpose, round]).order(count)[index % count]
    };
    (styles[order(STYLE_ORDER, styles.len())], RoomKind::ROUND[order(KIND_ORDER, RoomKind::ROUND.len())])
}

fn make(
    split: Split,
    number: usize,
    settings: &Settings,
    assets: Option<&Assets>,
    device: &Device,
) -> Result<Made, SynthError> {
    let (style_number, kind) = choices(split, number, settings.seed);
    let style = Style::new(settings.homes, style_number);
    let homes = settings.homes.traits();
    let stream = |attempt: u64| Draw::new(settings.seed, &[split as u64, ROOM, number as u64, attempt]);
    let stock = assets.map(|assets| assets.stock(split));
    let planned = (0..ATTEMPTS).find_map(|attempt| {
        let mut draw = stream(attempt);
        let home = layout::build(&style, kind, stock, Draw::new(draw.seed(), &[]));
        let way = if homes.on_stand { path::stand } else { path::walk };
        let poses = way(&home, settings.views, &mut draw)?;
        Some((home, poses, draw))
    });
    let Some((mut home, poses, mut draw)) = planned else {
        let found = settings.seed.to_string();
        return Err(SynthError::Setting { what: "the seed", found, expected: "one with a room to walk in" });
    };
    home.mesh.refine(|surface| match surface.class {
        nyu40::CORE => f32::INFINITY,
        nyu40::WALL | nyu40::FLOOR | nyu40::CEILING => LIT_EDGES[0],
        nyu40::BOOKSHELF | nyu40::BOOKS | nyu40::DOOR | nyu40::WINDOW => LIT_EDGES[1],
        _ => LIT_EDGES[2],
    });
    let [width, height] = settings.size;
    // The view of somebody who walks is about 60 degrees wide, as with a tablet's camera.
    let focal = width as f64 * f64::from(draw.range(homes.focal[0], homes.focal[1]));
    let lens = Intrinsics::new(width, height, focal, focal, 0.5 * (width as f64 - 1.0), 0.5 * (height as f64 - 1.0))?;
    // As long as walls are along the axes, rays meet few boxes.
    let mut light = Light::new(&home, &mut draw);
    let poses = turn(&mut home, &mut light, &poses, &mut draw);
    let optics =
        assets.map(|_| Optics::new(poses.len(), Draw::new(settings.seed, &[split as u64, OPTICS, number as u64])));
    let sensor = Sensor { lens: &lens, homes, optics: optics.as_ref() };
    let mut views = record::record(&home, &light, &poses, sensor, device, &mut draw)?;
    let (mut points, area_of_class) =
        scan::scan(&home, &views, &poses, &lens, (settings.spacing, homes.reach), &mut draw);
    let ids = record::instance_ids(&home);
    let id = |class: u8, instance: u16| ids.get(&(class, instance)).copied().unwrap_or(0);
    for view in &mut views {
        view.instance.iter_mut().zip(&view.label).for_each(|(instance, &label)| *instance = id(label, *instance));
    }
    let mut points_of_class = BTreeMap::new();
    for point in &mut points {
        point.instance = id(point.class, point.instance);
        *points_of_class.entry(point.class).or_default() += 1;
    }
    let info = RoomInfo {
        recipe: RECIPE,
        settings: *settings,
        split,
        number,
        style: style_number,
        rooms: home.rooms.iter().map(|room| room.kind.name().to_owned()).collect(),
        points: points.len(),
        points_of_class,
        area_of_class,
        assets: assets.map(Assets::info),
    };
    let quality = optics.map_or(write::JPEG_QUALITY, |optics| optics.quality);
    Ok(Made { info, lens, poses, views, points, quality })
}

/// Rotates a home by a random angle, since scans are not aligned to anything. Then moves it so that all
/// coordinates are positive.
fn turn(home: &mut Home, light: &mut Light, poses: &[Pose], draw: &mut Draw) -> Vec<Pose> {
    let turn = Affine3A::from_rotation_z(draw.range(0.0, std::f32::consts::TAU));
    home.mesh.transform(&turn);
    let min = home.mesh.bounds().min;
    let shift = Affine3A::from_translation(vec3(0.3 - min.x, 0.3 - min.y, 0.0));
    home.mesh.transform(&shift);
    let frame = shift * turn;
    light.transform(&frame);
    // Makes the rotation orthonormal again, since it comes from f32.
    let [x, y, _] =
        frame.matrix3.to_cols_array_2d().map(|column| glam::Vec3::from_array(column).as_dvec3().normalize());
    let z = x.cross(y).normalize();
    let rotation = DMat3::from_cols(x, z.cross(x), z);
    let moved = |pose: &Pose| {
        let center = rotation * pose.center() + glam::Vec3::from(frame.translation).as_dvec3();
        Pose::new(rotation * pose.rotation(), center, PoseConvention::OPENCV_CAMERA_TO_WORLD).ok()
    };
    poses.iter().filter_map(moved).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use layout::overlap;

    #[test]
    fn splits_share_no_style() {
        let all: Vec<u64> = Split::ALL.into_iter().flat_map(styles_of).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        for split in Split::ALL {
            let styles: BTreeSet<u64> = styles_of(split).into_iter().collect();
            for number in 1..100 {
                assert!(styles.contains(&choices(split, number, 5).0));
            }
        }
    }

    #[test]
    fn rooms_go_round_all_kinds() {
        for seed in 0..4 {
            let kinds: BTreeSet<&str> = (1..=8).map(|number| choices(Split::Train, number, seed).1.name()).collect();
            assert_eq!(kinds.len(), 6);
        }
    }

    #[test]
    fn nothing_stands_in_something_else_and_all_can_be_walked() {
        for (homes, number) in HomeStyle::ALL.into_iter().flat_map(|homes| (1..=24).map(move |number| (homes, number)))
        {
            let (style, kind) = choices(Split::Train, number, 3);
            let home = layout::build(&Style::new(homes, style), kind, None, Draw::new(number as u64, &[]));
            for (i, a) in home.items.iter().enumerate() {
                for b in &home.items[..i] {
                    assert!(a.group == b.group || !overlap(&a.bounds, &b.bounds), "{a:?} {b:?}");
                }
                let inside = home.rooms.iter().any(|room| {
                    let [low, high] = [a.bounds.min.truncate(), a.bounds.max.truncate()];
                    low.cmpge(room.min - 0.01).all() && high.cmple(room.max + 0.01).all()
                });
                assert!(inside && a.bounds.max.z <= home.height, "{a:?}");
            }
            let way = if homes.traits().on_stand { path::stand } else { path::walk };
            let Some(poses) = way(&home, 40, &mut Draw::new(1, &[number as u64])) else { continue };
            assert_eq!(poses.len(), 40);
            for pose in poses {
                let eye = pose.center().as_vec3();
                let free = home
                    .items
                    .iter()
                    .all(|item| !(eye.cmpgt(item.bounds.min).all() && eye.cmplt(item.bounds.max).all()));
                assert!(free && (1.1..2.0).contains(&eye.z), "{eye}");
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let usual = Settings::default();
        assert!(usual.check().is_ok());
        for settings in [
            Settings { views: 0, ..usual },
            Settings { size: [700, 480], ..usual },
            Settings { size: [320, 8], ..usual },
            Settings { spacing: f32::NAN, ..usual },
            Settings { spacing: 0.0, ..usual },
        ] {
            assert!(matches!(settings.check(), Err(SynthError::Setting { .. })), "{settings:?}");
        }
    }
}
