//! `prepare` as a user runs it, on downloads made here of a small corner of a room, and `eval` on what comes of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use geopurify::cloud::{Field, PointCloud};
use geopurify::images::{Orientation, read_image};
use geopurify::labels::Preset;
use geopurify::views::render::{Renderer, Scene, pinhole, radii};
use geopurify::views::{Intrinsics, Layout, OpenOptions, Pose, open};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use serde_json::Value;

use crate::corner::corner;
use crate::program::{failure, geopurify};
use crate::walk::poses;
use crate::weights::{tiny_weights, weight_files};

const STEP: f64 = 0.06;
const SIZE: [usize; 2] = [320, 256];
/// Of this frame tracking was lost.
const LOST: usize = 2;
const NUM_FRAMES: usize = 7;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn put(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn succeed(arguments: &[&str]) -> (String, String) {
    let output = geopurify(arguments);
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{err}");
    (out, err)
}

/// The report of an evaluation with small generated weights.
fn eval(data: &Path, preset: &str) -> Value {
    eval_as(data, preset, "fixed")
}

fn eval_as(data: &Path, preset: &str, compat: &str) -> Value {
    let files = weight_files();
    let report = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command
        .args(["eval", text(data), "-o", text(report.path()), "--preset", preset, "--compat", compat])
        .env("GEOPURIFY_DEVICE", "cpu");
    command.arg("--xdecoder").arg(&files.xdecoder).arg("--xdecoder-config").arg(&files.config);
    command.arg("--student").arg(&files.student).args(["--views", "4", "--size", "320", "--iterations", "1"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.path().join("report.md").is_file());
    json(&report.path().join("report.json"))
}

/// Points of each class that an evaluation counted, without classes that have none.
fn points_of_class(report: &Value) -> BTreeMap<String, u64> {
    let classes = report["purified"]["classes"].as_array().unwrap().iter();
    let counted = classes.map(|c| (c["name"].as_str().unwrap().to_owned(), c["points"].as_u64().unwrap()));
    counted.filter(|(_, points)| *points > 0).collect()
}

fn counts<const N: usize>(expected: [(&str, u64); N]) -> BTreeMap<String, u64> {
    expected.into_iter().map(|(name, points)| (name.to_owned(), points)).collect()
}

/// What a camera sees that walks around the corner.
struct Shot {
    pose: Pose,
    jpeg: Vec<u8>,
    /// Metres.
    depth: Vec<f32>,
}

fn lens() -> Intrinsics {
    Intrinsics::new(SIZE[0], SIZE[1], 260.0, 260.0, 158.5, 125.5).unwrap()
}

fn shots() -> &'static [Shot] {
    static SHOTS: OnceLock<Vec<Shot>> = OnceLock::new();
    SHOTS.get_or_init(|| {
        let cloud = corner(0.03);
        let (origin, points) = cloud.centered();
        let radii = radii(&points);
        let colors = cloud.colors.as_deref().unwrap();
        let scene = Scene { points: &points, origin, colors, faces: &[], radii: &radii };
        let renderer = Renderer::new(&scene, &Device::flex()).unwrap();
        let shot = |pose: Pose| {
            let picture = renderer.picture(&pinhole(&lens(), &pose, origin, 0.05), [90; 3]).unwrap();
            let mut jpeg = Vec::new();
            let [width, height] = SIZE.map(|side| side as u32);
            JpegEncoder::new_with_quality(&mut jpeg, 95)
                .encode(picture.colors.as_flattened(), width, height, ExtendedColorType::Rgb8)
                .unwrap();
            Shot { pose, jpeg, depth: picture.depth }
        };
        poses(NUM_FRAMES).into_iter().map(shot).collect()
    })
}

fn units(depth: &[f32], per_meter: f32) -> Vec<u16> {
    depth.iter().map(|meters| (meters * per_meter).round() as u16).collect()
}

fn sens(shots: &[&Shot]) -> Vec<u8> {
    let mut bytes = 4_u32.to_le_bytes().to_vec();
    bytes.extend(9_u64.to_le_bytes());
    bytes.extend(b"Synthetic");
    let identity = [1.0_f32, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    let mut camera = identity;
    let Intrinsics { fx, fy, cx, cy, .. } = lens();
    (camera[0], camera[2], camera[5], camera[6]) = (fx as f32, cx as f32, fy as f32, cy as f32);
    for matrix in [camera, identity, camera, identity] {
        bytes.extend(matrix.iter().flat_map(|x| x.to_le_bytes()));
    }
    let [width, height] = SIZE.map(|side| side as u32);
    for value in [2, 1, width, height, width, height] {
        bytes.extend(u32::to_le_bytes(value));
    }
    bytes.extend(1000_f32.to_le_bytes());
    bytes.extend((shots.len() as u64).to_le_bytes());
    for (i, shot) in shots.iter().enumerate() {
        let rows = shot.pose.rows().as_flattened().to_vec();
        let matrix = [rows, vec![0.0, 0.0, 0.0, 1.0]].concat();
        let matrix = matrix.iter().map(|&x| if i == LOST { f32::NEG_INFINITY } else { x as f32 });
        bytes.extend(matrix.flat_map(f32::to_le_bytes));
        bytes.extend([0; 16]);
        let raw: Vec<u8> = units(&shot.depth, 1000.0).iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&raw).unwrap();
        let map = encoder.finish().unwrap();
        bytes.extend([shot.jpeg.len() as u64, map.len() as u64].iter().flat_map(|len| len.to_le_bytes()));
        bytes.extend(&shot.jpeg);
        bytes.extend(map);
    }
    bytes.extend(0_u64.to_le_bytes());
    bytes
}

/// Surfaces of the corner: 0 the floor, 1 and 2 walls, 3 to 6 the box.
fn surface(color: [u8; 3]) -> u32 {
    match color {
        [150, 110, 70] => 0,
        [220, ..] => 1,
        [200, ..] => 2,
        [190, ..] => 3,
        [170, ..] => 4,
        [160, ..] => 5,
        _ => 6,
    }
}

fn surfaces(cloud: &PointCloud) -> Vec<u32> {
    cloud.colors.as_ref().unwrap().iter().map(|&color| surface(color)).collect()
}

/// NYU40's number of each surface, as the table below says; the last is of no object.
const NYU40: [u16; 7] = [2, 1, 1, 39, 39, 5, 0];
const SCANNET_TABLE: &str = "id\traw_category\tcategory\tcount\tnyu40id\tnyu40class\n\
    1\twall\twall\t8277\t1\twall\n3\tfloor\tfloor\t4000\t2\tfloor\n24\tcoffee table\tcoffee table\t258\t39\totherfurniture\n\
    10\tswivel chair\toffice chair\t100\t5\tchair\n9999\tparrot\tparrot\t1\t40\totherprop\n";

/// Writes a downloaded scene with as many frames as `shots`, with a labelled mesh or without.
fn write_scannet(root: &Path, name: &str, shots: &[&Shot], with_labels: bool) -> PointCloud {
    let folder = root.join(name);
    fs::create_dir_all(&folder).unwrap();
    put(folder.join(format!("{name}.sens")), sens(shots));
    put(folder.join(format!("{name}.txt")), "axisAlignment = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n");
    let cloud = corner(STEP);
    cloud.write_ply(&folder.join(format!("{name}_vh_clean_2.ply")), &[]).unwrap();
    let surfaces = surfaces(&cloud);
    if with_labels {
        let labels: Vec<u16> = surfaces.iter().map(|&surface| NYU40[surface as usize]).collect();
        let path = folder.join(format!("{name}_vh_clean_2.labels.ply"));
        cloud.write_ply(&path, &[Field::new("label", labels)]).unwrap();
    }
    // Numbers of segments are arbitrary.
    let segments: Vec<u32> = surfaces.iter().map(|surface| 1000 - 7 * surface).collect();
    let segments = serde_json::json!({ "params": {}, "sceneId": name, "segIndices": segments });
    put(folder.join(format!("{name}_vh_clean_2.0.010000.segs.json")), segments.to_string());
    let groups = serde_json::json!({
        "sceneId": name, "segmentsFile": format!("scannet.{name}_vh_clean_2.0.010000.segs.json"),
        "segGroups": [
            { "id": 0, "objectId": 0, "segments": [1000], "label": "floor" },
            { "id": 1, "objectId": 1, "segments": [993, 986], "label": "wall" },
            { "id": 2, "objectId": 2, "segments": [979, 972], "label": "coffee table" },
            { "id": 3, "objectId": 3, "segments": [965], "label": "swivel chair" },
        ],
    });
    put(folder.join(format!("{name}.aggregation.json")), groups.to_string());
    cloud
}

/// The files below a folder, by path.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.ends_with(".lock") => {}
                false => drop(files.insert(path.strip_prefix(root).unwrap().to_path_buf(), fs::read(&path).unwrap())),
            }
        }
    }
    files
}

fn num_points(surfaces: &[u32], wanted: &[u32]) -> u64 {
    surfaces.iter().filter(|surface| wanted.contains(surface)).count() as u64
}

#[test]
fn scannet_is_unpacked_and_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let (data, scans) = (folder.path().join("data"), folder.path().join("data/scans"));
    let shots: Vec<&Shot> = shots().iter().collect();
    let cloud = write_scannet(&scans, "scene0001_00", &shots, true);
    write_scannet(&scans, "scene0002_00", &shots, false);
    put(data.join("scannetv2-labels.combined.tsv"), SCANNET_TABLE);
    let out = folder.path().join("out");
    let (said, _) = succeed(&["prepare", "scannet", text(&scans), "-o", text(&out), "--frame-step", "2"]);
    assert!(said.contains("2 scenes made with 6 frames, 0 kept, 0 failed"), "{said}");

    // Frames 0, 2, 4, 6 without the one that was lost: pictures byte by byte, depth and poses by value.
    let scene = out.join("scene0001_00");
    let dataset = open(&scene, &OpenOptions::default()).unwrap();
    assert_eq!((dataset.layout(), dataset.len(), dataset.counts().posed), (Layout::ScanNet, 3, 3));
    for (place, frame) in [0, 4, 6].into_iter().enumerate() {
        assert_eq!(fs::read(scene.join(format!("color/{frame}.jpg"))).unwrap(), shots[frame].jpeg);
        let read = &dataset.frames()[place];
        assert_eq!((read.color, read.depth), (lens(), Some(lens())));
        let moved = read.pose.unwrap().center() - shots[frame].pose.center();
        assert!(moved.length() < 1e-6, "{moved}");
        let depth = dataset.depth(place).unwrap().unwrap();
        assert_eq!(units(depth.meters(), 1000.0), units(&shots[frame].depth, 1000.0));
    }
    let manifest = json(&scene.join("prepared.json"));
    assert_eq!((manifest["frames"].as_u64(), manifest["frames_without_pose"].as_u64()), (Some(3), Some(1)));

    // The labelled mesh that was there and the one that was made say the same.
    let labels = |name: &str, field: &str| -> Vec<f64> {
        let mesh = PointCloud::read(&out.join(format!("{name}/{name}_vh_clean_2.labels.ply"))).unwrap();
        let labels = &mesh.attribute(field).unwrap().data;
        (0..labels.len()).map(|i| labels.get_f64(i).unwrap()).collect()
    };
    let surfaces = surfaces(&cloud);
    let classes: [f64; 7] = [2.0, 0.0, 0.0, 21.0, 21.0, 9.0, 255.0];
    for name in ["scene0001_00", "scene0002_00"] {
        for (field, of_surface) in [("label", NYU40.map(f64::from)), ("scannet200", classes)] {
            let expected: Vec<f64> = surfaces.iter().map(|&surface| of_surface[surface as usize]).collect();
            assert!(labels(name, field) == expected, "{name} {field}");
        }
    }
    assert_eq!(
        [0, 2, 9, 21].map(|class| Preset::SCANNET200.labels[class]),
        ["wall", "floor", "office chair", "coffee table"]
    );

    // Evaluated, prepared or as downloaded, the same points are counted.
    let [floor, wall, table, chair] =
        [&[0][..], &[1, 2], &[3, 4], &[5]].map(|wanted| 2 * num_points(&surfaces, wanted));
    for (data, views) in [(&out, 3), (&scans, 4)] {
        let report = eval(data, "scannet20");
        assert_eq!(points_of_class(&report), counts([("wall", wall), ("floor", floor), ("chair", chair)]));
        let scene = &report["scenes"][0];
        assert_eq!((scene["recorded"].as_bool(), scene["views"].as_u64()), (Some(true), Some(views)));
        assert_eq!(report["published"][0]["mean_iou"].as_f64(), Some(55.1));
        let report = eval(data, "scannet200");
        let expected = [("wall", wall), ("floor", floor), ("coffee table", table), ("office chair", chair)];
        assert_eq!(points_of_class(&report), counts(expected));
        assert_eq!(report["published"][0]["foreground_mean_iou"].as_f64(), Some(11.9));
        assert!(report["purified"]["groups"][0]["foreground"].is_object());
    }
    // Once more: nothing is to be done. Otherwise: that is said.
    let (said, _) = succeed(&["prepare", "scannet", text(&scans), "-o", text(&out), "--frame-step", "2"]);
    assert!(said.contains("0 scenes made with 0 frames, 2 kept"), "{said}");
    let err = failure(&["prepare", "scannet", text(&scans), "-o", text(&out), "--frame-step", "3"]);
    assert!(err.contains("scene0001_00: holds something else than this scene (it was prepared with"), "{err}");

    // Smaller pictures have smaller intrinsics.
    let small = folder.path().join("small");
    succeed(&["prepare", "scannet", text(&scans), "-o", text(&small), "--size", "160x128", "--jobs", "1"]);
    let dataset = open(&small.join("scene0002_00"), &OpenOptions::default()).unwrap();
    assert_eq!(dataset.len(), 1);
    assert_eq!((dataset.frames()[0].color, dataset.frames()[0].depth), (lens().scaled_to(160, 128), Some(lens())));
    let image = read_image(&small.join("scene0002_00/color/0.jpg"), Orientation::AsStored).unwrap();
    assert_eq!([image.width(), image.height()], [160, 128]);
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (scans, out, whole) = (folder.path().join("scans"), folder.path().join("out"), folder.path().join("whole"));
    let many: Vec<&Shot> = shots().iter().cycle().take(40).collect();
    for i in 0..6 {
        write_scannet(&scans, &format!("scene000{i}_00"), &many, true);
    }
    put(scans.join("scannetv2-labels.combined.tsv"), SCANNET_TABLE);
    let arguments = |out: &Path| {
        [
            "prepare",
            "scannet",
            text(&scans),
            "-o",
            text(out),
            "--frame-step",
            "1",
            "--size",
            "648x518",
            "--jobs",
            "1",
            "--json",
        ]
        .map(String::from)
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    let mut child = command.args(arguments(&out)).stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let finished = || (0..6).filter(|i| out.join(format!("scene000{i}_00/prepared.json")).is_file()).count();
    while finished() == 0 && start.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!((1..6).contains(&finished()), "{}", finished());
    let run = |out: &Path| -> Value {
        let arguments = arguments(out);
        serde_json::from_str(&succeed(&arguments.each_ref().map(String::as_str)).0).unwrap()
    };
    let before = finished();
    let said = run(&out);
    let kept = said["scenes"].as_array().unwrap().iter().filter(|scene| scene["new"] == false).count();
    assert_eq!(kept, before);
    run(&whole);
    let (resumed, uninterrupted) = (tree(&out), tree(&whole));
    assert_eq!(resumed.keys().collect::<Vec<_>>(), uninterrupted.keys().collect::<Vec<_>>());
    assert!(resumed == uninterrupted);
    assert_eq!(uninterrupted.len(), 6 * (3 * 39 + 4 + 4));
}

#[test]
fn damage_is_named_and_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (scans, out) = (folder.path().join("scans"), folder.path().join("out"));
    let shots: Vec<&Shot> = shots().iter().collect();
    for i in 0..6 {
        write_scannet(&scans, &format!("scene000{i}_00"), &shots, true);
    }
    put(scans.join("scannetv2-labels.combined.tsv"), SCANNET_TABLE);
    let file = |i: usize, ending: &str| scans.join(format!("scene000{i}_00/scene000{i}_00{ending}"));
    let edit = |path: PathBuf, from: &str, to: &str| {
        let content = fs::read_to_string(&path).unwrap();
        assert!(content.contains(from));
        fs::write(&path, content.replacen(from, to, 1)).unwrap();
    };
    let bytes = fs::read(file(1, ".sens")).unwrap();
    fs::write(file(1, ".sens"), &bytes[..bytes.len() / 2]).unwrap();
    edit(file(2, ".aggregation.json"), "swivel chair", "unicorn");
    edit(file(3, "_vh_clean_2.0.010000.segs.json"), "\"segIndices\":[", "\"segIndices\":[7,");
    fs::remove_file(file(4, "_vh_clean_2.ply")).unwrap();
    let mut cut = bytes.clone();
    let at = cut.windows(3).rposition(|bytes| bytes == b"\xff\xd8\xff").unwrap();
    cut[at..at + 3].fill(0);
    fs::write(file(5, ".sens"), cut).unwrap();
    let arguments = ["prepare", "scannet", text(&scans), "-o", text(&out), "--frame-step", "1", "--skip-failed"];
    let (said, err) = succeed(&arguments);
    assert!(said.contains("1 scene made with 6 frames, 0 kept, 5 failed"), "{said}");
    for part in [
        "scene0001_00.sens: the recording is incomplete",
        "scene0002_00.aggregation.json: the label 'unicorn'; expected a name from the column raw_category of",
        "scene0003_00_vh_clean_2.0.010000.segs.json: ",
        "scene0004_00_vh_clean_2.ply: is not there; expected the reduced mesh",
        "scene0005_00.sens: the file begins with",
    ] {
        assert!(err.contains(part), "{part}\n{err}");
    }
    // Nothing of what failed is left.
    let names: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let err = failure(&arguments[..arguments.len() - 1]);
    assert!(err.contains("--skip-failed leaves them out"), "{err}");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(failure(&["prepare", "scannet", text(&empty), "-o", text(&out)]).contains("no scene in it"));
    assert!(failure(&["prepare", "matterport", text(&empty), "-o", text(&out)]).contains("no scan in it"));
}

#[test]
fn without_a_table_scannet200_is_missing_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (scans, out) = (folder.path().join("data/scans"), folder.path().join("out"));
    let shots: Vec<&Shot> = shots().iter().collect();
    write_scannet(&scans, "scene0001_00", &shots, true);
    let (said, _) = succeed(&["prepare", "scannet", text(&scans), "-o", text(&out)]);
    assert!(said.contains("note: scene0001_00: no labels of ScanNet200"), "{said}");
    for (data, part) in [(&scans, "scannetv2-labels.combined.tsv"), (&out, "a property 'scannet200' of the points")] {
        let report = folder.path().join("report");
        let files = tiny_weights(folder.path()).unwrap();
        let [xdecoder, config, student] = [&files.xdecoder, &files.config, &files.student].map(|path| text(path));
        let err = failure(&[
            "eval",
            text(data),
            "-o",
            text(&report),
            "--preset",
            "scannet200",
            "--device",
            "cpu",
            "--xdecoder",
            xdecoder,
            "--xdecoder-config",
            config,
            "--student",
            student,
        ]);
        assert!(err.contains(part), "{part}\n{err}");
    }
}

const HOUSE: &str = "17DRP5sb8fy";
const MATTERPORT_TABLE: &str = "index\traw_category\tcategory\tcount\tnyuId\tnyu40id\teigen13id\tnyuClass\tnyu40class\n\
    1\twall\twall\t7667\t21\t1\t12\twall\twall\n2\tdoor\tdoor\t2544\t28\t8\t12\tdoor\tdoor\n\
    3\tceiling\tceiling\t2363\t4\t22\t3\tceiling\tceiling\n4\tfloor\tfloor\t2252\t11\t2\t5\tfloor\tfloor\n\
    5\tdecor\tdecoration\t79\t\t40\t7\t\totherprop\n6\tbanjo\tbanjo\t9\t7\t40\t7\tbanjo\totherprop\n\
    7\tnightstand\tnightstand\t275\t158\t32\t6\tnight stand\tnight stand\n8\tair conditioner\tair conditioner\t26\t79\t38\t7\t\
    air conditioner\totherstructure\n9\tlamp shade\tlamp shade\t3\t859\t40\t7\tlamp shade\totherprop\n";
/// The category of each surface: the first wall is one, the second a door, of the box a side each.
const CATEGORIES: [i32; 7] = [4, 1, 2, 7, 8, 9, -1];

/// Faces between neighbours in the file, each of its first corner's surface: at the surfaces' borders they reach over.
fn faces(surfaces: &[u32]) -> Vec<([u32; 3], i32)> {
    let corners = |i: u32| [i, i + 1, i + 2];
    (0..surfaces.len() as u32 - 2).map(|i| (corners(i), CATEGORIES[surfaces[i as usize] as usize])).collect()
}

/// Parts of a scan, by path in the folder of the scan.
fn matterport_files() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let cloud = corner(STEP);
    let faces = faces(&surfaces(&cloud));
    // A second room, far away: no frame sees it.
    for (region, away) in [(0, 0.0), (1, 100.0)] {
        let mut ply = format!(
            "ply\nformat binary_little_endian 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n\
             property uchar red\nproperty uchar green\nproperty uchar blue\nelement face {}\n\
             property list uchar int vertex_indices\nproperty int material_id\nproperty int segment_id\n\
             property int category_id\nend_header\n",
            cloud.len(),
            faces.len()
        )
        .into_bytes();
        for (position, color) in cloud.positions.iter().zip(cloud.colors.as_ref().unwrap()) {
            ply.extend(position.iter().flat_map(|&x| ((x + away) as f32).to_le_bytes()));
            ply.extend(color);
        }
        for (corners, category) in &faces {
            ply.push(3);
            ply.extend(corners.iter().flat_map(|corner| corner.to_le_bytes()));
            ply.extend([0, 0, *category].iter().flat_map(|number| number.to_le_bytes()));
        }
        files.insert(format!("region_segmentations/region{region}.ply"), ply);
    }
    let Intrinsics { fx, fy, cx, cy, .. } = lens().scaled_to(1280, 1024);
    let mut conf = "dataset matterport\ndepth_directory undistorted_depth_images\n".to_owned();
    conf += &format!("intrinsics_matrix {fx} 0 {cx}  0 {fy} {} 0 0 1\n", 1023.0 - cy);
    for (i, shot) in shots().iter().enumerate() {
        files.insert(format!("undistorted_color_images/ab12_i1_{i}.jpg"), shot.jpeg.clone());
        let raw: Vec<u8> = units(&shot.depth, 4000.0).iter().flat_map(|unit| unit.to_ne_bytes()).collect();
        let mut png = Vec::new();
        let [width, height] = SIZE.map(|side| side as u32);
        PngEncoder::new(&mut png).write_image(&raw, width, height, ExtendedColorType::L16).unwrap();
        files.insert(format!("undistorted_depth_images/ab12_d1_{i}.png"), png);
        let rows = shot.pose.rows().map(|[x, y, z, t]| [x, -y, -z, t].map(|x| x.to_string()).join(" ")).join(" ");
        conf += &format!("scan ab12_d1_{i}.png ab12_i1_{i}.jpg {rows} 0 0 0 1\n");
    }
    files.insert(format!("undistorted_camera_parameters/{HOUSE}.conf"), conf.into_bytes());
    files
}

/// A zip archive, pictures stored, all else deflated.
fn zip<'a>(files: impl Iterator<Item = (&'a String, &'a Vec<u8>)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut archive = rawzip::ZipArchiveWriter::new(&mut bytes);
    for (name, content) in files {
        let is_picture = name.ends_with(".jpg");
        let method = if is_picture { rawzip::CompressionMethod::STORE } else { rawzip::CompressionMethod::DEFLATE };
        let path = format!("{HOUSE}/{name}");
        let (mut entry, config) = archive.new_file(&path).compression_method(method).start().unwrap();
        if is_picture {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(content).unwrap();
            let (_, descriptor) = writer.finish().unwrap();
            entry.finish(descriptor).unwrap();
        } else {
            let mut writer = config.wrap(flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast()));
            writer.write_all(content).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            entry.finish(descriptor).unwrap();
        }
    }
    archive.finish().unwrap();
    bytes
}

/// Points of each class by majority of the faces around them, counted by brute force.
fn by_majority(class_of_category: &dyn Fn(i32) -> Option<usize>) -> BTreeMap<usize, u64> {
    let surfaces = surfaces(&corner(STEP));
    let faces = faces(&surfaces);
    let mut points = BTreeMap::new();
    for vertex in 0..surfaces.len() as u32 {
        // The first place is for no class.
        let mut votes = [0; 256];
        for (_, category) in faces.iter().filter(|(corners, _)| corners.contains(&vertex)) {
            votes[class_of_category(*category).map_or(0, |class| class + 1)] += 1;
        }
        let most = votes.iter().max().unwrap();
        let first = votes.iter().position(|count| count == most).unwrap();
        if first > 0 {
            *points.entry(first - 1).or_default() += 1;
        }
    }
    points
}

#[test]
fn matterport_is_unpacked_and_evaluated_zipped_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let files = matterport_files();
    let of_part = |part: &str| {
        let prefix = format!("{part}/");
        files.iter().filter(move |(name, _)| name.starts_with(&prefix)).collect::<Vec<_>>()
    };
    let parts = [
        "undistorted_color_images",
        "undistorted_depth_images",
        "undistorted_camera_parameters",
        "region_segmentations",
    ];
    let [extracted, zipped, mixed, whole] =
        ["extracted", "zipped", "mixed", "whole"].map(|name| folder.path().join(name));
    for (name, content) in &files {
        put(extracted.join("v1/scans").join(HOUSE).join(name), content);
    }
    for (i, part) in parts.into_iter().enumerate() {
        let archive = zip(of_part(part).into_iter());
        put(zipped.join(HOUSE).join(format!("{part}.zip")), &archive);
        match i % 2 {
            0 => put(mixed.join(HOUSE).join(format!("{part}.zip")), &archive),
            _ => {
                of_part(part).iter().for_each(|(name, content)| put(mixed.join(HOUSE).join(HOUSE).join(name), content))
            }
        }
    }
    put(whole.join(format!("{HOUSE}.zip")), zip(files.iter()));

    let out = |data: &Path| folder.path().join(format!("out-{}", data.file_name().unwrap().to_str().unwrap()));
    let err = failure(&["prepare", "matterport", text(&zipped), "-o", text(&out(&zipped))]);
    assert!(err.contains("table category_mapping.tsv, which was not found"), "{err}");
    let mut trees = Vec::new();
    for data in [&extracted, &zipped, &mixed, &whole] {
        put(data.join("metadata/category_mapping.tsv"), MATTERPORT_TABLE);
        let out = out(data);
        let (said, _) = succeed(&["prepare", "matterport", text(data), "-o", text(&out)]);
        assert!(said.contains("1 scene made with 7 frames") && said.contains("1 rooms are seen by no frame"), "{said}");
        let mut files = tree(&out);
        // What it was made of differs.
        files.remove(&Path::new(HOUSE).join("prepared.json")).unwrap();
        assert_eq!(files.len(), 7 * 4 + 2 * 2);
        trees.push(files);
    }
    assert!(trees.iter().all(|tree| *tree == trees[0]));
    let room = out(&zipped).join(HOUSE).join(format!("{HOUSE}_region0"));
    let dataset = open(&room, &OpenOptions::default()).unwrap();
    assert_eq!((dataset.layout(), dataset.len()), (Layout::Matterport, NUM_FRAMES));
    for (i, shot) in shots().iter().enumerate() {
        let frame = &dataset.frames()[i];
        assert!((frame.pose.unwrap().center() - shot.pose.center()).length() < 1e-9);
        let off = [frame.color.fx - lens().fx, frame.color.cx - lens().cx, frame.color.cy - lens().cy];
        assert!(off.iter().all(|off| off.abs() < 1e-6), "{off:?}");
        assert_eq!(units(dataset.depth(i).unwrap().unwrap().meters(), 4000.0), units(&shot.depth, 4000.0));
        assert_eq!(fs::read(room.join(format!("color/ab12_i1_{i}.jpg"))).unwrap(), shot.jpeg);
    }

    // Wall, door, floor; in larger sets also the box's sides, each from where its name is among the classes.
    let is =
        |category: i32, of: &'static [(i32, usize)]| of.iter().find(|(c, _)| *c == category).map(|(_, class)| *class);
    let sets: [(&str, &[(i32, usize)]); 4] = [
        ("matterport21", &[(1, 0), (2, 7), (4, 1)]),
        ("matterport40", &[(1, 0), (2, 1), (4, 3), (7, 19)]),
        ("matterport80", &[(1, 0), (2, 1), (4, 3), (7, 19)]),
        ("matterport160", &[(1, 0), (2, 1), (4, 3), (7, 19), (8, 85), (9, 135)]),
    ];
    for (name, of) in sets {
        let preset: Preset = name.parse().unwrap();
        let by_hand = by_majority(&|category| is(category, of));
        assert_eq!(by_hand.len(), of.len());
        let expected: BTreeMap<String, u64> =
            by_hand.iter().map(|(&class, points)| (preset.labels[class].to_owned(), 2 * points)).collect();
        let report = eval(&out(&zipped), name);
        assert_eq!(points_of_class(&report), expected, "{name}");
        let scenes =
            [0, 1].map(|i| (report["scenes"][i]["scene"].as_str().unwrap(), report["scenes"][i]["recorded"] == true));
        assert_eq!(scenes.map(|(scene, _)| scene), [0, 1].map(|i| format!("{HOUSE}_region{i}")));
        assert_eq!(scenes.map(|(_, recorded)| recorded), [true, false]);
    }
    // As downloaded: the room that frames see, with the pictures of the whole scan. The other room has no valid view.
    let scans = extracted.join("v1/scans");
    put(extracted.join("v1/metadata/category_mapping.tsv"), MATTERPORT_TABLE);
    let report = eval(&scans, "matterport160");
    let by_hand = by_majority(&|category| is(category, sets[3].1));
    let expected = by_hand.into_iter().map(|(class, points)| (Preset::MATTERPORT160.labels[class].to_owned(), points));
    assert_eq!(points_of_class(&report), expected.collect());
    assert_eq!(report["scenes"][0]["recorded"], true);
    let without =
        |report: &Value| report["skipped"].as_array().unwrap().iter().map(|s| s["scene"].clone()).collect::<Vec<_>>();
    assert_eq!(without(&report), [format!("{HOUSE}_region1")]);
    // The published code takes all frames of a room, not every 20th, which would be the first alone. Two of the four
    // that are asked for are valid views.
    let report = eval_as(&scans, "matterport160", "reference");
    assert_eq!((report["scenes"][0]["views"].as_u64(), without(&report).len()), (Some(2), 1));

    // Damage in an archive is found by its checksum and named.
    let archive = zipped.join(HOUSE).join("undistorted_color_images.zip");
    let mut bytes = fs::read(&archive).unwrap();
    let at = bytes.windows(3).position(|bytes| bytes == b"\xff\xd8\xff").unwrap();
    bytes[at + 900] ^= 0x55;
    fs::write(&archive, &bytes).unwrap();
    let again = folder.path().join("again");
    let err = failure(&["prepare", "matterport", text(&zipped), "-o", text(&again)]);
    assert!(
        err.contains("undistorted_color_images.zip: undistorted_color_images/ab12_i1_0.jpg: its checksum is another"),
        "{err}"
    );
    fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    let err = failure(&["prepare", "matterport", text(&zipped), "-o", text(&again)]);
    assert!(err.contains("undistorted_color_images.zip: its list of files"), "{err}");
    fs::remove_file(&archive).unwrap();
    let err = failure(&["prepare", "matterport", text(&zipped), "-o", text(&again)]);
    assert!(err.contains("no undistorted_color_images; expected"), "{err}");
    assert_eq!(tree(&again).len(), 0);
}
