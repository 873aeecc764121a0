//! Recordings with the peculiarities of files that people have: the same five frames of a room, written in
//! many ways. Each must give the room back, or be refused by name.

use std::fs;
use std::path::{Path, PathBuf};

use geopurify::cloud::PointCloud;
use geopurify::images::{Orientation, read_image};
use geopurify::views::check::{Reading, Verdict, check};
use geopurify::views::fit::{DepthViews, FitVerdict, axes_text};
use geopurify::views::{Dataset, Layout, OpenOptions, PoseConvention, ViewsError, detect, open, open_checked};
use glam::{DMat3, DQuat, DVec3};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use serde_json::Value;
use tempfile::TempDir;

const FRAMES: usize = 5;
const SIZE: DVec3 = DVec3::new(4.0, 3.0, 2.5);

fn room() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/views/room")
}

fn put(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn picture(i: usize) -> Vec<u8> {
    fs::read(room().join(format!("images/{i}.png"))).unwrap()
}

fn depth(i: usize) -> Vec<u8> {
    fs::read(room().join(format!("depth/{i}.png"))).unwrap()
}

/// Depth in metres, row by row.
fn meters(i: usize) -> Vec<f32> {
    open(&room(), &OpenOptions::default()).unwrap().depth(i).unwrap().unwrap().meters().to_vec()
}

fn transforms() -> Value {
    serde_json::from_slice(&fs::read(room().join("transforms.json")).unwrap()).unwrap()
}

/// Camera-to-world rotation in OpenCV axes, and centre.
fn pose(i: usize) -> (DMat3, DVec3) {
    let pose = open(&room(), &OpenOptions::default()).unwrap().frames()[i].pose.unwrap();
    (pose.rotation(), pose.center())
}

fn rows(i: usize) -> [[f64; 4]; 4] {
    let (r, t) = pose(i);
    let row = |k: usize| [r.row(k).x, r.row(k).y, r.row(k).z, t[k]];
    [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]]
}

fn text_of(rows: &[[f64; 4]; 4]) -> String {
    rows.map(|row| row.map(|x| x.to_string()).join(" ")).join("\n") + "\n"
}

/// The room with another transforms.json.
fn with_transforms(change: impl FnOnce(&mut Value)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut all = transforms();
    change(&mut all);
    for i in 0..FRAMES {
        put(folder.path().join(format!("images/{i}.png")), picture(i));
        put(folder.path().join(format!("depth/{i}.png")), depth(i));
    }
    put(folder.path().join("transforms.json"), all.to_string());
    folder
}

fn frames_of(all: &mut Value) -> &mut Vec<Value> {
    all["frames"].as_array_mut().unwrap()
}

fn opened(path: &Path) -> Box<dyn Dataset> {
    open(path, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(path: &Path) -> ViewsError {
    open(path, &OpenOptions::default()).err().unwrap()
}

/// Largest distance of nine tenths of the recorded depth to the walls, in metres.
fn off_walls(dataset: &dyn Dataset) -> f64 {
    let mut distances = Vec::new();
    for (i, frame) in dataset.frames().iter().enumerate() {
        let (Some(camera), Some(pose), Some(depth)) = (frame.depth, frame.pose_of_depth(), dataset.depth(i).unwrap())
        else {
            continue;
        };
        for (k, &meters) in depth.meters().iter().enumerate().filter(|(_, meters)| **meters > 0.0) {
            let (u, v) = ((k % depth.width()) as f64, (k / depth.width()) as f64);
            let point = pose.to_world(camera.unproject(u, v, meters.into()));
            let gaps = (0..3).flat_map(|axis| [point[axis].abs(), (SIZE[axis] - point[axis]).abs()]);
            distances.push(gaps.fold(f64::INFINITY, f64::min));
        }
    }
    distances.sort_by(f64::total_cmp);
    distances[distances.len() * 9 / 10]
}

/// The recording is the room: frames, depth, camera, and the walls where they are.
fn assert_is_room(name: &str, dataset: &dyn Dataset) {
    let counts = dataset.counts();
    assert_eq!((counts.frames, counts.posed, counts.with_depth), (FRAMES, FRAMES, FRAMES), "{name}: {counts}");
    for (i, frame) in dataset.frames().iter().enumerate() {
        let camera = frame.depth.unwrap();
        assert_eq!((camera.fx, camera.fy, camera.cx, camera.cy), (80.0, 80.0, 47.5, 35.5), "{name}");
        assert!(frame.pose.unwrap().center().abs_diff_eq(pose(i).1, 1e-4), "{name}");
        dataset.color(i).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert!(off_walls(dataset) < 0.005, "{name}: {} m off the walls", off_walls(dataset));
}

#[test]
fn the_room_is_without_a_fault() {
    assert_is_room("as it is", &*opened(&room()));
    let checked = check(&*opened(&room())).unwrap();
    assert_eq!(checked.verdict, Verdict::Confirmed, "{checked}");
}

#[test]
fn windows_paths_and_paths_of_another_machine() {
    for prefix in ["", r"C:\Users\me\room\", "/home/me/room/", r"room\", "data/room/"] {
        let folder = with_transforms(|all| {
            for frame in frames_of(all) {
                for key in ["file_path", "depth_file_path"] {
                    let mut name = format!("{prefix}{}", frame[key].as_str().unwrap());
                    if prefix.contains('\\') || prefix.is_empty() {
                        name = name.replace('/', "\\");
                    }
                    frame[key] = name.into();
                }
            }
        });
        assert_is_room(prefix, &*opened(folder.path()));
    }
    let folder =
        with_transforms(|all| frames_of(all).iter_mut().for_each(|frame| frame["file_path"] = "away/9".into()));
    let error = refused(folder.path()).to_string();
    assert!(error.contains("away/9"), "{error}");
    let folder = with_transforms(|all| frames_of(all)[1]["depth_file_path"] = r"gone\1.png".into());
    let notes = opened(folder.path()).notes().join("\n");
    assert!(notes.contains("1 depth maps are listed but missing") && notes.contains("gone/1.png"), "{notes}");
}

#[test]
fn a_pose_of_nan_leaves_one_frame_out() {
    let folder = with_transforms(|_| {});
    let path = folder.path().join("transforms.json");
    let mut all = transforms();
    all["frames"][3]["transform_matrix"][0][3] = "NAN".into();
    put(&path, all.to_string().replace("\"NAN\"", "NaN"));
    let dataset = opened(folder.path());
    assert_eq!((dataset.counts().posed, dataset.counts().invalid_poses), (4, 1));
    assert!(dataset.notes().iter().any(|note| note.contains("not finite")), "{:?}", dataset.notes());
    assert!(off_walls(&*dataset) < 0.005);
}

#[test]
fn depth_in_metres_as_numpy_writes_it() {
    let head = |descr: &str, order: &str| {
        let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': (72, 96), }}");
        let padded = format!("{text:<117}\n");
        [b"\x93NUMPY\x01\0".as_slice(), &(padded.len() as u16).to_le_bytes(), padded.as_bytes()].concat()
    };
    type Write<'a> = &'a dyn Fn(&[f32]) -> Vec<u8>;
    let kinds: [(&str, Write<'_>); 6] = [
        ("<f4", &|m| [head("<f4", "False"), m.iter().flat_map(|x| x.to_le_bytes()).collect()].concat()),
        (">f8", &|m| [head(">f8", "False"), m.iter().flat_map(|x| f64::from(*x).to_be_bytes()).collect()].concat()),
        ("<u2", &|m| {
            let units = m.iter().flat_map(|x| ((x * 1000.0).round() as u16).to_le_bytes()).collect();
            [head("<u2", "False"), units].concat()
        }),
        ("<i8", &|m| {
            let units = m.iter().flat_map(|x| ((x * 1000.0).round() as i64).to_le_bytes()).collect();
            [head("<i8", "False"), units].concat()
        }),
        ("|u4, a shape of three", &|m| {
            let bytes =
                [head("<u4", "False"), m.iter().flat_map(|x| ((x * 1000.0).round() as u32).to_le_bytes()).collect()];
            let bytes = bytes.concat();
            let at = bytes.windows(8).position(|part| part == b"(72, 96)").unwrap();
            [&bytes[..at], b"(72, 96, 1)", &bytes[at + 8..at + 8 + 20], &bytes[at + 8 + 23..]].concat()
        }),
        ("<f4, by columns", &|m| {
            let columns =
                (0..96).flat_map(|x| (0..72).map(move |y| m[y * 96 + x])).flat_map(f32::to_le_bytes).collect();
            [head("<f4", "True"), columns].concat()
        }),
    ];
    for (name, write) in kinds {
        let folder = with_transforms(|all| {
            for (i, frame) in frames_of(all).iter_mut().enumerate() {
                frame["depth_file_path"] = format!("depth/{i}.npy").into();
            }
        });
        for i in 0..FRAMES {
            put(folder.path().join(format!("depth/{i}.npy")), write(&meters(i)));
        }
        assert_is_room(name, &*opened(folder.path()));
    }
}

#[test]
fn damaged_number_maps_are_errors() {
    let folder = with_transforms(|all| frames_of(all)[0]["depth_file_path"] = "depth/0.npy".into());
    let path = folder.path().join("depth/0.npy");
    let head = |text: &str| {
        [b"\x93NUMPY\x01\0".as_slice(), &(text.len() as u16).to_le_bytes(), text.as_bytes(), &[0; 100]].concat()
    };
    for text in [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999, 99999999), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (72, 96), }",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (5, 5), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (5, 5), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 5), }",
        "{",
    ] {
        put(&path, head(text));
        let error = opened(folder.path()).depth(0).unwrap_err().to_string();
        assert!(error.contains("0.npy"), "{text}: {error}");
    }
}

#[test]
fn a_lens_that_is_not_modelled_is_refused_by_name() {
    for (key, value) in [
        ("is_fisheye", Value::from(true)),
        ("camera_model", "OPENCV_FISHEYE".into()),
        ("camera_model", "EQUIRECTANGULAR".into()),
        ("ftheta_p0", 0.5.into()),
        ("k4", 0.01.into()),
    ] {
        let folder = with_transforms(|all| all[key] = value);
        let error = refused(folder.path());
        assert!(matches!(error, ViewsError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(key), "{error}");
    }
    // What is off or zero is no lens.
    let folder = with_transforms(|all| {
        all["is_fisheye"] = false.into();
        all["k4"] = 0.0.into();
    });
    assert_is_room("not a fisheye", &*opened(folder.path()));
}

#[test]
fn a_calibration_under_another_name() {
    let matrix = "80.0 0 47.5\n0 80.0 35.5\n0 0 1\n";
    for (name, content) in [
        ("camera-intrinsics.txt", matrix),
        ("../camera-intrinsics.txt", matrix),
        ("my_calibration.txt", "80 80 47.5 35.5"),
        (
            "camera_info.yaml",
            "image_width: 96\nimage_height: 72\ncamera_matrix:\n  data: [80, 0, 47.5, 0, 80, 35.5, 0, 0, 1]\n",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("seq");
        for i in 0..FRAMES {
            put(root.join(format!("frame-{i:06}.color.png")), picture(i));
            put(root.join(format!("frame-{i:06}.depth.png")), depth(i));
            put(root.join(format!("frame-{i:06}.pose.txt")), text_of(&rows(i)));
        }
        put(root.join(name), content);
        let dataset = opened(&root);
        assert_eq!(dataset.layout(), Layout::SevenScenes);
        assert_is_room(name, &*dataset);
        let said = format!("the intrinsics are read from {}", name.trim_start_matches("../"));
        assert!(dataset.notes().contains(&said), "{:?}", dataset.notes());
    }
}

/// How a TUM recording is written.
struct Tum {
    color_time: fn(usize) -> String,
    depth_time: fn(usize) -> String,
    /// x y z w, in the order of the file.
    quaternion: fn([f64; 4]) -> [f64; 4],
    head: &'static str,
}

fn write_tum(root: &Path, tum: &Tum) {
    let mut lists = [String::new(), String::new(), tum.head.to_owned()];
    for i in 0..FRAMES {
        let (color, map) = ((tum.color_time)(i), (tum.depth_time)(i));
        put(root.join(format!("rgb/{color}.png")), picture(i));
        let units =
            meters(i).into_iter().flat_map(|x| ((x * 5000.0).round() as u16).to_ne_bytes()).collect::<Vec<u8>>();
        let mut png = Vec::new();
        PngEncoder::new(&mut png).write_image(&units, 96, 72, ExtendedColorType::L16).unwrap();
        put(root.join(format!("depth/{map}.png")), png);
        let (turn, center) = pose(i);
        let q = (tum.quaternion)(DQuat::from_mat3(&turn).to_array());
        let numbers = [center.to_array().to_vec(), q.to_vec()].concat();
        lists[0] += &format!("{color} rgb/{color}.png\n");
        lists[1] += &format!("{map} depth/{map}.png\n");
        lists[2] += &format!("{color} {}\n", numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    }
    for (name, list) in ["rgb.txt", "depth.txt", "groundtruth.txt"].into_iter().zip(lists) {
        put(root.join(name), list);
    }
    put(root.join("calibration.txt"), "80.0 80.0 47.5 35.5\n");
}

fn seconds(i: usize) -> String {
    format!("{:.3}", 579.764 + 0.033 * i as f64)
}

#[test]
fn pairs_that_a_file_names_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // The depth maps have a clock of their own: by time, picture i would get map i - 1.
    let tum = Tum {
        color_time: |i| format!("{:.3}", 100.0 + 0.033 * i as f64),
        depth_time: |i| format!("{:.3}", 100.03 + 0.033 * i as f64),
        quaternion: |q| q,
        head: "",
    };
    write_tum(root, &tum);
    let pairs = (0..FRAMES).map(|i| {
        let (color, map) = ((tum.color_time)(i), (tum.depth_time)(i));
        (format!("{color} rgb/{color}.png {map} depth/{map}.png\n"), format!("depth/{map}.png rgb/{color}.png\n"))
    });
    let (timed, named): (Vec<String>, Vec<String>) = pairs.unzip();
    for (name, pairs, lists) in
        [("with times", &timed, true), ("without lists", &timed, false), ("names", &named, false)]
    {
        put(root.join("associations.txt"), pairs.concat());
        if !lists {
            let _ = fs::remove_file(root.join("rgb.txt"));
            let _ = fs::remove_file(root.join("depth.txt"));
        }
        let dataset = opened(root);
        assert_eq!(dataset.layout(), Layout::Tum);
        assert_is_room(name, &*dataset);
        for i in 0..FRAMES {
            let found = dataset.depth(i).unwrap().unwrap();
            assert!(found.meters().iter().zip(meters(i)).all(|(a, b)| (a - b).abs() < 1e-3), "{name}: map {i}");
        }
    }
}

#[test]
fn times_in_nanoseconds() {
    let folder = tempfile::tempdir().unwrap();
    let tum = Tum {
        color_time: |i| (1_403_636_579_763_555_584_u64 + 33_000_000 * i as u64).to_string(),
        depth_time: |i| (1_403_636_579_763_556_000_u64 + 33_000_000 * i as u64).to_string(),
        quaternion: |q| q,
        head: "# timestamp tx ty tz qx qy qz qw\n",
    };
    write_tum(folder.path(), &tum);
    assert_is_room("nanoseconds", &*opened(folder.path()));
}

#[test]
fn quaternions_with_w_first_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let w_first = |[x, y, z, w]: [f64; 4]| [w, x, y, z];
    let mut tum = Tum { color_time: seconds, depth_time: seconds, quaternion: w_first, head: "" };
    write_tum(folder.path(), &tum);
    let found = check(&*opened(folder.path())).unwrap();
    assert_eq!(found.verdict, Verdict::Contradicted(Reading::ScalarFirst), "{found}");
    let checked = open_checked(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!(checked.applied, Some(Reading::ScalarFirst));
    assert_is_room("w first", &*checked.dataset);
    // Whoever asks for a reading gets it.
    let options = OpenOptions { pose: Some(Reading::ScalarFirst), ..OpenOptions::default() };
    assert_is_room("w first, as asked", &*open(folder.path(), &options).unwrap());
    let stated = OpenOptions { pose: Some(PoseConvention::OPENCV_CAMERA_TO_WORLD.into()), ..OpenOptions::default() };
    let kept = open_checked(folder.path(), &stated).unwrap();
    assert!(kept.applied.is_none() && off_walls(&*kept.dataset) > 0.05);
    // A head line says it without a check.
    tum.head = "# timestamp tx ty tz qw qx qy qz\n";
    write_tum(folder.path(), &tum);
    assert_is_room("w first, by the head line", &*opened(folder.path()));
}

#[test]
fn poses_of_a_robots_body_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let tum = Tum { color_time: seconds, depth_time: seconds, quaternion: |q| q, head: "" };
    write_tum(folder.path(), &tum);
    let camera_from_body = DMat3::from_cols_array(&[0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0]);
    let lines: String = (0..FRAMES)
        .map(|i| {
            let (turn, center) = pose(i);
            let q = DQuat::from_mat3(&(turn * camera_from_body)).to_array();
            let numbers = [center.to_array().to_vec(), q.to_vec()].concat();
            format!("{} {}\n", seconds(i), numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        })
        .collect();
    put(folder.path().join("groundtruth.txt"), lines);
    let checked = open_checked(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!(checked.applied, Some(Reading::Body), "{}", checked.check.unwrap());
    assert_is_room("body", &*checked.dataset);
}

#[test]
fn maps_beside_pictures_are_no_pictures() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..FRAMES {
        put(folder.path().join(format!("frame_{i:05}.png")), picture(i));
        put(folder.path().join(format!("depth_{i:05}.png")), depth(i));
        put(folder.path().join(format!("conf_{i:05}.png")), depth(i));
    }
    let dataset = opened(folder.path());
    assert_eq!((dataset.layout(), dataset.len()), (Layout::Images, FRAMES));
    assert!(dataset.frames().iter().all(|frame| frame.name.starts_with("frame_")));
}

#[test]
fn a_video_alone_is_refused_with_the_command_that_extracts_it() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("rgb.mp4"), "");
    put(
        folder.path().join("odometry.csv"),
        "timestamp, frame, x, y, z, qx, qy, qz, qw\n0, 000000, 0, 0, 0, 0, 0, 0, 1\n",
    );
    put(folder.path().join("camera_matrix.csv"), "80, 0, 47.5\n0, 80, 35.5\n0, 0, 1\n");
    put(folder.path().join("depth/000000.png"), depth(0));
    assert_eq!(detect(folder.path()).unwrap(), Layout::Stray);
    let error = refused(folder.path()).to_string();
    assert!(error.contains("ffmpeg -noautorotate -i") && error.contains("-start_number 0"), "{error}");
    // Extracted from 1, as ffmpeg does by itself.
    put(folder.path().join("rgb/000001.png"), picture(0));
    let dataset = opened(folder.path());
    assert_eq!((dataset.counts().posed, dataset.counts().with_depth), (1, 1));
    assert!(dataset.notes().iter().any(|note| note.contains("numbered from 1")));
}

/// Writes a model of COLMAP with the first `count` pictures. `other` is a camera before or after the one used.
fn write_colmap(folder: &Path, count: usize, name: impl Fn(usize) -> String, other: Option<(u32, bool)>) {
    let camera = |id: u32, model: u32, parameters: &[f64]| {
        let mut bytes = [id.to_le_bytes(), model.to_le_bytes()].concat();
        bytes.extend([96_u64, 72].iter().flat_map(|side| side.to_le_bytes()));
        bytes.extend(parameters.iter().flat_map(|x| x.to_le_bytes()));
        bytes
    };
    let used = camera(1, 1, &[80.0, 80.0, 48.0, 36.0]);
    let mut cameras = vec![used];
    if let Some((model, first)) = other {
        cameras.insert(usize::from(!first), camera(2, model, &[80.0; 16]));
    }
    put(folder.join("cameras.bin"), [&(cameras.len() as u64).to_le_bytes()[..], &cameras.concat()].concat());
    let mut images = (count as u64).to_le_bytes().to_vec();
    for i in 0..count {
        let (turn, center) = pose(i);
        let inverse = turn.transpose();
        let [x, y, z, w] = DQuat::from_mat3(&inverse).to_array();
        let t = -(inverse * center);
        images.extend((i as u32 + 1).to_le_bytes());
        images.extend([w, x, y, z, t.x, t.y, t.z].iter().flat_map(|x| x.to_le_bytes()));
        images.extend(1_u32.to_le_bytes());
        images.extend(format!("{}\0", name(i)).bytes());
        images.extend(0_u64.to_le_bytes());
    }
    put(folder.join("images.bin"), images);
}

fn assert_is_colmap(name: &str, dataset: &dyn Dataset) {
    assert_eq!((dataset.layout(), dataset.counts().posed), (Layout::Colmap, FRAMES), "{name}: {}", dataset.counts());
    for (i, frame) in dataset.frames().iter().enumerate() {
        assert!(frame.pose.unwrap().center().abs_diff_eq(pose(i).1, 1e-9), "{name}");
        assert_eq!((frame.color.fx, frame.color.cx, frame.color.cy), (80.0, 47.5, 35.5), "{name}");
    }
}

#[test]
fn a_camera_model_that_no_picture_uses_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    (0..FRAMES).for_each(|i| put(root.join(format!("images/{i}.png")), picture(i)));
    // Number 11 is known by name, number 99 not at all.
    for other in [(11, false), (11, true), (99, false)] {
        write_colmap(&root.join("sparse/0"), FRAMES, |i| format!("{i}.png"), Some(other));
        assert_is_colmap("unused", &*opened(root));
    }
    write_colmap(&root.join("sparse/0"), FRAMES, |i| format!("{i}.png"), Some((99, true)));
    let error = refused(root).to_string();
    assert!(error.contains("camera model number 99"), "{error}");
}

#[test]
fn backslashes_in_names_of_colmap() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    (0..FRAMES).for_each(|i| put(root.join(format!("images/left/{i}.png")), picture(i)));
    write_colmap(&root.join("sparse/0"), FRAMES, |i| format!(r"left\{i}.png"), None);
    assert_is_colmap("backslashes", &*opened(root));
}

#[test]
fn of_several_models_the_largest_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    (0..FRAMES).for_each(|i| put(root.join(format!("images/{i}.png")), picture(i)));
    write_colmap(&root.join("sparse/0"), 2, |i| format!("{i}.png"), None);
    write_colmap(&root.join("sparse/1"), FRAMES, |i| format!("{i}.png"), None);
    let dataset = opened(root);
    assert_is_colmap("two models", &*dataset);
    let said = dataset.notes().iter().any(|note| note.contains("sparse/1 with 5") && note.contains("sparse/0 with 2"));
    assert!(said, "{:?}", dataset.notes());
}

#[test]
fn rotated_bits_of_sun_rgbd_are_rotated_back() {
    let folder = tempfile::tempdir().unwrap();
    let write = |rotated: bool| {
        for i in 0..FRAMES {
            let unit = |x: f32| {
                let unit = (x * 1000.0).round() as u16;
                if rotated { unit.rotate_left(3) } else { unit }
            };
            let raw: Vec<u8> = meters(i).into_iter().flat_map(|x| unit(x).to_ne_bytes()).collect();
            let mut png = Vec::new();
            PngEncoder::new(&mut png).write_image(&raw, 96, 72, ExtendedColorType::L16).unwrap();
            put(folder.path().join(format!("color/{i}.png")), picture(i));
            put(folder.path().join(format!("depth/{i}.png")), png);
        }
        put(folder.path().join("intrinsics.txt"), "80 0 47.5\n0 80 35.5\n0 0 1\n");
        opened(folder.path())
    };
    for rotated in [true, false] {
        let dataset = write(rotated);
        assert_eq!(dataset.layout(), Layout::Images);
        assert_eq!(dataset.notes().iter().any(|note| note.contains("SUN RGB-D")), rotated, "{:?}", dataset.notes());
        for i in 0..FRAMES {
            let found = dataset.depth(i).unwrap().unwrap();
            assert!(found.meters().iter().zip(meters(i)).all(|(a, b)| (a - b).abs() < 1e-3), "map {i}");
        }
    }
}

#[test]
fn a_scan_that_does_not_fit_its_recording_is_noticed() {
    let scan = PointCloud::read(&room().with_extension("ply")).unwrap().positions;
    let views = DepthViews::read(&*opened(&room())).unwrap();
    let fit = views.fit(&scan);
    assert_eq!(fit.verdict(), FitVerdict::Fits, "{fit}");
    assert!(fit.share() > 0.9, "{fit}");
    for moved in [DVec3::new(0.5, 0.0, 0.0), DVec3::new(0.0, 0.5, 0.0), DVec3::new(0.0, -0.3, 0.4)] {
        let moved: Vec<[f64; 3]> = scan.iter().map(|&point| (DVec3::from_array(point) + moved).to_array()).collect();
        let fit = views.fit(&moved);
        assert_ne!(fit.verdict(), FitVerdict::Fits, "{fit}");
    }
    let y_up: Vec<[f64; 3]> = scan.iter().map(|&[x, y, z]| [x, z, -y]).collect();
    let fit = views.fit(&y_up);
    assert_eq!(fit.verdict(), FitVerdict::Unfit, "{fit}");
    assert_eq!(axes_text(&views.turned(&y_up).unwrap()), "(x, -z, y)");
    assert!(views.fit(&[]).to_string().contains("no recorded camera"));
    assert_eq!(views.fit(&[[f64::NAN; 3]]).verdict(), FitVerdict::Unfit);
}

#[test]
fn pictures_of_other_formats() {
    let reference = read_image(&room().join("images/0.png"), Orientation::AsStored).unwrap();
    let (width, height) = (reference.width() as u32, reference.height() as u32);
    let raw = reference.pixels().as_flattened();
    let mut written = vec![("ppm", format!("P6\n{width} {height}\n255\n").into_bytes())];
    written[0].1.extend(raw);
    let mut bmp = Vec::new();
    image::codecs::bmp::BmpEncoder::new(&mut bmp).encode(raw, width, height, ExtendedColorType::Rgb8).unwrap();
    let mut webp = Vec::new();
    let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp);
    encoder.encode(raw, width, height, ExtendedColorType::Rgb8).unwrap();
    written.extend([("bmp", bmp), ("webp", webp)]);
    for (extension, bytes) in written {
        let folder = with_transforms(|all| {
            for (i, frame) in frames_of(all).iter_mut().enumerate() {
                frame["file_path"] = format!("images/{i}.{extension}").into();
            }
        });
        (0..FRAMES).for_each(|i| put(folder.path().join(format!("images/{i}.{extension}")), &bytes));
        let dataset = opened(folder.path());
        assert_is_room(extension, &*dataset);
        assert_eq!(dataset.color(0).unwrap(), reference, "{extension}");
        // Cut off or damaged it is an error, not a panic, and a declared size allocates nothing.
        let path = folder.path().join("damaged");
        for i in 0..bytes.len().min(400) {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x5a;
            put(&path, &damaged);
            let _ = read_image(&path, Orientation::AsStored);
        }
        for len in (0..bytes.len() * 9 / 10).step_by(97) {
            put(&path, &bytes[..len]);
            assert!(read_image(&path, Orientation::AsStored).is_err(), "{extension}: {len} of {}", bytes.len());
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.ppm");
    put(&path, "P6\n999999999 999999999\n255\n");
    assert!(read_image(&path, Orientation::AsStored).is_err());
}
