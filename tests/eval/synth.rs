//! Made rooms: the same again from the same seed, in a layout that the rest of the program reads, with labels that are
//! right where the views look.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::tensor::Device;
use geopurify::cloud::PointCloud;
use geopurify::labels::nyu40::{FLOOR, SCANNET20, WALL};
use geopurify::pipeline::surface_areas;
use geopurify::synth::{
    Assets, HomeStyle, Outcome, RoomInfo, Settings, Split, SynthError, room_name, styles_of, write_room,
};
use geopurify::views::check::{Verdict, check};
use geopurify::views::{Layout, OpenOptions, open};

/// Classes of NYU40 that rooms may have: ScanNet's 20, and those that a benchmark does not count.
const OTHERS: [u8; 16] = [13, 15, 17, 18, 19, 20, 21, 22, 23, 25, 26, 27, 29, 30, 32, 35];
const SMALL_THINGS: [u8; 2] = [37, 40];

fn settings() -> Settings {
    Settings { seed: 11, views: 24, size: [160, 120], ..Settings::default() }
}

fn make(root: &Path, split: Split, number: usize) -> RoomInfo {
    let outcome = write_room(root, split, number, &settings(), None, &Device::flex()).unwrap();
    assert!(matches!(outcome, Outcome::Made(_)));
    outcome.info().clone()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn the_same_seed_gives_the_same_files_and_what_is_there_is_kept() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let infos = [0, 1].map(|i| make(folders[i].path(), Split::Val, 2));
    assert_eq!(infos[0], infos[1]);
    let [first, second] = [0, 1].map(|i| files(folders[i].path()));
    // Four pictures and a pose per view, four cameras, two scans, what it is.
    assert_eq!((first.len(), second.len()), (24 * 5 + 7, 24 * 5 + 7));
    for (a, b) in first.iter().zip(&second) {
        assert_eq!(a.strip_prefix(folders[0].path()).unwrap(), b.strip_prefix(folders[1].path()).unwrap());
        assert!(fs::read(a).unwrap() == fs::read(b).unwrap(), "{}", a.display());
    }

    let root = folders[0].path();
    let again = write_room(root, Split::Val, 2, &settings(), None, &Device::flex()).unwrap();
    assert_eq!(again, Outcome::Kept(infos[0].clone()));
    let other = Settings { seed: 12, ..settings() };
    let refused = write_room(root, Split::Val, 2, &other, None, &Device::flex()).unwrap_err();
    assert!(matches!(refused, SynthError::Differs { .. }) && refused.to_string().contains("holds something else"));
    fs::create_dir_all(root.join("test").join(room_name(1))).unwrap();
    assert!(matches!(
        write_room(root, Split::Test, 1, &settings(), None, &Device::flex()),
        Err(SynthError::Differs { .. })
    ));
    let invalid = Settings { views: 0, ..settings() };
    assert!(matches!(
        write_room(root, Split::Val, 3, &invalid, None, &Device::flex()),
        Err(SynthError::Setting { .. })
    ));
}

/// Reads a picture of one channel.
fn grey(path: &Path) -> Vec<u16> {
    image::ImageReader::open(path).unwrap().decode().unwrap().into_luma16().into_raw()
}

#[test]
fn a_room_is_a_recording_with_a_labelled_scan() {
    let folder = tempfile::tempdir().unwrap();
    let info = make(folder.path(), Split::Train, 1);
    let room = folder.path().join("train/room_0001");
    let read = |name: &str| PointCloud::read(&room.join(format!("room_0001_vh_clean_2{name}.ply"))).unwrap();
    let (scan, labelled) = (read(""), read(".labels"));
    assert_eq!((scan.len(), &scan.positions), (info.points, &labelled.positions));
    assert!(scan.len() > 10_000, "{}", scan.len());
    let normals = scan.normals.as_ref().unwrap();
    assert!(normals.iter().all(|n| (n.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-3));
    let column = |name: &str| {
        let data = &labelled.attribute(name).unwrap().data;
        (0..labelled.len()).map(|i| data.get_f64(i).unwrap() as u16).collect::<Vec<_>>()
    };
    let (labels, instances) = (column("label"), column("instance"));
    let known: BTreeSet<u8> = SCANNET20.iter().chain(&OTHERS).chain(&SMALL_THINGS).copied().collect();
    for (label, instance) in labels.iter().zip(&instances) {
        assert!(
            known.contains(&(*label as u8)) && instance / 1000 == *label && instance % 1000 > 0,
            "{label} {instance}"
        );
    }
    for (class, points) in &info.points_of_class {
        assert_eq!(labels.iter().filter(|label| **label == u16::from(*class)).count(), *points);
    }

    let dataset = open(&room, &OpenOptions::default()).unwrap();
    assert_eq!((dataset.layout(), dataset.len()), (Layout::ScanNet, 24));
    assert!(dataset.frames().iter().all(|frame| frame.has_depth() && frame.pose.is_some()));
    let checked = check(dataset.as_ref()).unwrap();
    assert_eq!((checked.verdict, checked.depth_factor), (Verdict::Confirmed, None));
    assert!(checked.agreement.median_error < 0.02, "{:?}", checked.agreement);

    // Points fall on pixels of their class, where nothing is in front.
    let (mut met, mut same) = (0, 0);
    for (i, frame) in dataset.frames().iter().enumerate() {
        let (lens, pose) = (frame.color, frame.pose.unwrap());
        let depth = grey(&room.join(format!("depth/{}.png", 20 * i)));
        let label = grey(&room.join(format!("label/{}.png", 20 * i)));
        assert_eq!(depth.len(), 160 * 120);
        assert!(depth.iter().filter(|depth| **depth > 0).count() > depth.len() / 3, "view {i} has no depth");
        for (position, class) in scan.positions.iter().zip(&labels).step_by(17) {
            let point = pose.to_camera((*position).into());
            let Some([x, y]) = lens.pixel(point) else { continue };
            let found = f64::from(depth[y * 160 + x]) * 1e-3;
            if found > 0.0 && (found - point.z).abs() < 0.03 {
                met += 1;
                // At an edge the pixel beside it may be meant. Eight bits as sixteen: both bytes have the value.
                let mut around = (y.saturating_sub(1)..(y + 2).min(120))
                    .flat_map(|y| (x.saturating_sub(1)..(x + 2).min(160)).map(move |x| (x, y)));
                same += usize::from(around.any(|(x, y)| label[y * 160 + x] / 257 == *class));
            }
        }
    }
    assert!(met > 2000 && same * 100 > met * 97, "{same} of {met}");
}

#[test]
fn every_class_appears_and_splits_share_no_style() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen: BTreeSet<u8> = BTreeSet::new();
    let mut styles: Vec<(Split, u64)> = Vec::new();
    for (split, number) in (1..=10).map(|number| (Split::Train, number)).chain([(Split::Val, 1), (Split::Test, 1)]) {
        let coarse = Settings { views: 30, size: [96, 72], spacing: 0.04, ..settings() };
        let outcome = write_room(folder.path(), split, number, &coarse, None, &Device::flex()).unwrap();
        let info = outcome.info();
        seen.extend(info.points_of_class.keys());
        assert!(styles_of(split).contains(&info.style));
        styles.push((split, info.style));
    }
    let missing: Vec<u8> = SCANNET20.into_iter().filter(|class| !seen.contains(class)).collect();
    assert!(missing.is_empty(), "no room has {missing:?}");
    for (split, style) in &styles {
        assert!(styles.iter().all(|(other, other_style)| split == other || style != other_style));
    }
}

/// Areas of the points of each class, by the rule of `infer`.
fn areas_by_class(folder: &Path) -> BTreeMap<u8, f64> {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let scan = PointCloud::read(&folder.join(format!("{name}_vh_clean_2.labels.ply"))).unwrap();
    let labels = &scan.attribute("label").unwrap().data;
    let mut areas = BTreeMap::new();
    for (i, area) in surface_areas(&scan.positions, scan.spacing()).into_iter().enumerate() {
        *areas.entry(labels.get_f64(i).unwrap() as u8).or_default() += area;
    }
    areas
}

#[test]
fn areas_of_points_are_right_within_a_tenth() {
    let folder = tempfile::tempdir().unwrap();
    for (number, spacing) in [(1, 0.02), (3, 0.03)] {
        let settings = Settings { views: 30, size: [96, 72], spacing, ..settings() };
        let outcome = write_room(folder.path(), Split::Val, number, &settings, None, &Device::flex()).unwrap();
        let found = areas_by_class(&folder.path().join("val").join(room_name(number)));
        let right = &outcome.info().area_of_class;
        let of_class = [FLOOR, WALL].map(|class| (found[&class], right[&class]));
        let of_all = (found.values().sum(), right.values().sum());
        for (found, right) in of_class.into_iter().chain([of_all]) {
            assert!(right > 2.0 && (found / right - 1.0).abs() < 0.1, "room {number}: {found} of {right} m2");
        }
    }
}

#[test]
fn a_room_without_a_window_is_lit() {
    let folder = tempfile::tempdir().unwrap();
    // A bathroom without a window, by day.
    let settings = Settings { seed: 1, views: 4, size: [96, 72], spacing: 0.04, ..Settings::default() };
    let outcome = write_room(folder.path(), Split::Test, 1, &settings, None, &Device::flex()).unwrap();
    assert_eq!(outcome.info().rooms, ["bathroom"]);
    let scan = folder.path().join("test/room_0001/room_0001_vh_clean_2.ply");
    let colors = PointCloud::read(&scan).unwrap().colors.unwrap();
    let mean = colors.iter().flatten().map(|&value| f64::from(value)).sum::<f64>() / (3 * colors.len()) as f64;
    assert!(mean > 60.0, "the mean of its colours is {mean}");
}

#[test]
fn the_command_makes_splits_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("rooms");
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
        command
            .args(["synth", "--seed", "4", "--views", "6", "--size", "64x48", "--spacing", "0.05", "-o"])
            .arg(&root)
            .args(more);
        let output = command.env("GEOPURIFY_DEVICE", "cpu").output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), out, err)
    };
    let (code, out, err) = run(&["--train", "1"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("1 made, 0 kept") && out.contains("shower curtain"), "{out}");
    let (code, out, err) = run(&["--train", "1", "--val", "1", "--test", "1", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((report["new"].as_u64(), report["rooms"].as_array().map(Vec::len)), (Some(2), Some(3)));
    for split in ["train", "val", "test"] {
        assert!(root.join(split).join("room_0001/synth.json").is_file());
        let names: Vec<_> = fs::read_dir(root.join(split)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["room_0001"]);
    }
    let (code, _, err) = run(&["--rooms", "0"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("no rooms are asked for"), "{err}");
    assert_eq!(run(&["--rooms", "2", "--train", "2"]).0, Some(2));
}

#[test]
fn a_villa_is_another_home_and_seen_from_a_few_places() {
    let folder = tempfile::tempdir().unwrap();
    let make = |homes: HomeStyle| {
        let root = folder.path().join(homes.to_string());
        let settings = Settings { views: 24, size: [96, 72], spacing: 0.04, homes, ..settings() };
        let outcome = write_room(&root, Split::Train, 1, &settings, None, &Device::flex()).unwrap();
        let room = root.join("train/room_0001");
        let places: BTreeSet<Vec<String>> = (0..24)
            .map(|view| fs::read_to_string(room.join(format!("pose/{}.txt", view * 20))).unwrap())
            .map(|pose| pose.lines().take(3).map(|row| row.split(' ').nth(3).unwrap().to_owned()).collect())
            .collect();
        (outcome.info().clone(), places.len(), fs::read_to_string(room.join("synth.json")).unwrap())
    };
    let (flat, of_walk, told) = make(HomeStyle::Flat);
    // The usual style is not named: rooms of earlier versions have none.
    assert!(of_walk == 24 && !told.contains("homes"), "{of_walk} {told}");
    let (villa, of_stand, told) = make(HomeStyle::Villa);
    assert!(of_stand == 4 && told.contains("\"homes\": \"villa\""), "{of_stand} {told}");
    assert_ne!((villa.points, &villa.points_of_class), (flat.points, &flat.points_of_class));
    assert_eq!((villa.settings.homes, flat.settings.homes), (HomeStyle::Villa, HomeStyle::Flat));
}

#[test]
fn rooms_with_models_are_the_same_again_and_others_than_without() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/assets");
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let coarse = Settings { views: 16, size: [96, 72], spacing: 0.04, ..settings() };
    let make = |folder: &tempfile::TempDir, assets: Option<&Assets>| {
        write_room(folder.path(), Split::Train, 1, &coarse, assets, &Device::flex()).map_err(Box::new)
    };
    // Models are read anew for the second room.
    let made = [0, 1].map(|i| make(&folders[i], Some(&Assets::open(&samples, 0.9).unwrap())).unwrap());
    assert_eq!(made[0], made[1]);
    let [first, second] = [0, 1].map(|i| files(folders[i].path()));
    assert_eq!(first.len(), 16 * 5 + 7);
    for (a, b) in first.iter().zip(&second) {
        assert!(fs::read(a).unwrap() == fs::read(b).unwrap(), "{}", a.display());
    }
    let info = made[0].info();
    let used = info.assets.as_ref().unwrap();
    assert_eq!((used.models, used.share), (19, 0.9));
    assert!(info.points_of_class.len() > 5 && info.points > 1_000, "{info:?}");

    let plain = make(&folders[2], None).unwrap();
    assert!(plain.info().assets.is_none() && plain.info().points_of_class != info.points_of_class);
    // A room of other furniture is not taken for the same.
    for (folder, assets) in [(&folders[0], None), (&folders[0], Some(Assets::open(&samples, 0.5).unwrap()))] {
        let refused = make(folder, assets.as_ref()).unwrap_err();
        assert!(matches!(*refused, SynthError::Differs { .. }), "{refused}");
    }
    let again = make(&folders[0], Some(&Assets::open(&samples, 0.9).unwrap())).unwrap();
    assert_eq!(again, Outcome::Kept(info.clone()));
}
