//! `infer` and `query` as a user runs them, on a furnished corner of a room, with small generated weights.
//!
//! `GEOPURIFY_DATA=DIR cargo test --test infer` also labels real scans and recordings, which are not part of this
//! repository; where it is not set, that is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use geopurify::cloud::{Field, PointCloud};
use geopurify::images::{Orientation, read_image};
use geopurify::query::saved::Saved;
use geopurify::views::render::{Renderer, Scene, pinhole, radii};
use geopurify::views::{Intrinsics, Pose, PoseConvention};
use glam::{DMat3, DVec3};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use serde_json::Value;

use crate::corner::corner;
use crate::weights::{WeightFiles, tiny_weights};

fn weight_files() -> &'static WeightFiles {
    static FILES: OnceLock<(tempfile::TempDir, WeightFiles)> = OnceLock::new();
    let (_, files) = FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let files = tiny_weights(folder.path()).unwrap();
        (folder, files)
    });
    files
}

/// The command with the small networks, on the host unless the test says otherwise.
fn command(arguments: &[&str]) -> Command {
    let files = weight_files();
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command.args(arguments).env("GEOPURIFY_DEVICE", "cpu");
    command.arg("--xdecoder").arg(&files.xdecoder).arg("--xdecoder-config").arg(&files.config);
    if arguments[0] == "infer" {
        command.arg("--student").arg(&files.student);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn succeed(arguments: &[&str]) -> (String, String) {
    let output = run(arguments);
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    (out, err)
}

/// What a run that must fail with exit code 1 says.
fn fail(arguments: &[&str]) -> String {
    let output = run(arguments);
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(!err.contains("panicked"), "{err}");
    err
}

fn texts(output: &Output) -> (String, String) {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).into()
}

fn summary(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("summary.json")).unwrap()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// No file of a run is left half-written.
fn assert_no_partials(folder: &Path) {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let partial: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(".partial")).collect();
    assert!(partial.is_empty(), "{partial:?}");
}

fn write_corner(path: &Path) {
    corner(0.03).write_ply(path, &[]).unwrap();
}

/// Poses of a camera that walks around the corner and looks at the box.
fn poses(count: usize) -> Vec<Pose> {
    let pose = |i: usize| {
        let angle = (0.2 + 0.6 * i as f64 / count as f64) * std::f64::consts::FRAC_PI_2;
        let eye = DVec3::new(1.0 + 2.4 * angle.cos(), 1.0 + 2.4 * angle.sin(), 1.5);
        let forward = (DVec3::new(1.0, 1.0, 0.5) - eye).normalize();
        let right = forward.cross(DVec3::Z).normalize();
        let rotation = DMat3::from_cols(right, forward.cross(right), forward);
        Pose::new(rotation, eye, PoseConvention::OPENCV_CAMERA_TO_WORLD).unwrap()
    };
    (0..count).map(pose).collect()
}

/// A recording of the corner in ScanNet's layout, 320 x 240, with depth in millimetres.
fn write_recording(folder: &Path, count: usize) {
    write_recording_of(folder, count, [320, 240]);
}

fn write_recording_of(folder: &Path, count: usize, [width, height]: [usize; 2]) {
    let cloud = corner(0.03);
    let (origin, points) = cloud.centered();
    let radii = radii(&points);
    let colors = cloud.colors.as_deref().unwrap();
    let scene = Scene { points: &points, origin, colors, faces: &[], radii: &radii };
    let renderer = Renderer::new(&scene, &Device::flex()).unwrap();
    let (half_width, half_height) = (width as f64 / 2.0, height as f64 / 2.0);
    let focal = 1.625 * half_width;
    let lens = Intrinsics::new(width, height, focal, focal, half_width - 0.5, half_height - 0.5).unwrap();
    let size = [width, height].map(|pixels| pixels as u32);
    for name in ["color", "depth", "pose", "intrinsic"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let matrix = format!("{} 0 {} 0\n0 {} {} 0\n0 0 1 0\n0 0 0 1\n", lens.fx, lens.cx, lens.fy, lens.cy);
    for name in ["intrinsic_color.txt", "intrinsic_depth.txt"] {
        fs::write(folder.join("intrinsic").join(name), &matrix).unwrap();
    }
    for (i, pose) in poses(count).iter().enumerate() {
        let picture = renderer.picture(&pinhole(&lens, pose, origin, 0.05), [90, 90, 90]).unwrap();
        let mut jpeg = Vec::new();
        let pixels = picture.colors.as_flattened();
        JpegEncoder::new_with_quality(&mut jpeg, 95).encode(pixels, size[0], size[1], ExtendedColorType::Rgb8).unwrap();
        fs::write(folder.join(format!("color/{i}.jpg")), jpeg).unwrap();
        let depth: Vec<u8> = picture.depth.iter().flat_map(|d| ((d * 1000.0).round() as u16).to_ne_bytes()).collect();
        let mut png = Vec::new();
        PngEncoder::new(&mut png).write_image(&depth, size[0], size[1], ExtendedColorType::L16).unwrap();
        fs::write(folder.join(format!("depth/{i}.png")), png).unwrap();
        let rows = pose.rows().map(|row| row.map(|x| x.to_string()).join(" "));
        fs::write(folder.join(format!("pose/{i}.txt")), format!("{}\n0 0 0 1\n", rows.join("\n"))).unwrap();
    }
}

/// Checks what every run must leave: a label for each point, a summary that adds up, features, and a sheet.
fn check_results(folder: &Path, num_points: usize, num_labels: usize) -> PointCloud {
    assert_no_partials(folder);
    let summary = summary(folder);
    let labelled = PointCloud::read(Path::new(summary["output"].as_str().unwrap())).unwrap();
    assert_eq!(labelled.len(), num_points);
    let column = |name: &str| {
        let data = &labelled.attribute(name).unwrap_or_else(|| panic!("no {name}")).data;
        (0..num_points).map(|i| data.get_f64(i).unwrap()).collect::<Vec<f64>>()
    };
    let (labels, scores, margins) = (column("label"), column("score"), column("margin"));
    assert!(labels.iter().all(|l| (-1.0..num_labels as f64).contains(l) && l.fract() == 0.0));
    assert!(scores.iter().all(|s| (-1.0..=1.0 + 1e-5).contains(s)));
    // Of one word alone the margin is the cosine itself.
    let least = if num_labels == 1 { -1.0 } else { 0.0 };
    assert!(margins.iter().all(|m| (least..=2.0).contains(m)));
    let classes = summary["classes"].as_array().unwrap();
    assert_eq!(classes.len(), num_labels + 1);
    let total: u64 = classes.iter().map(|class| class["points"].as_u64().unwrap()).sum();
    assert_eq!(total, summary["points"].as_u64().unwrap());
    let share: f64 = classes.iter().map(|class| class["share"].as_f64().unwrap()).sum();
    assert!((share - 1.0).abs() < 1e-9);
    for (i, class) in classes.iter().enumerate() {
        let label = class["label"].as_i64().unwrap();
        assert_eq!(label, if i == num_labels { -1 } else { i as i64 });
        let points = labels.iter().filter(|l| **l == label as f64).count();
        // Points without a position are unlabelled in the file and not counted.
        if label >= 0 {
            assert_eq!(class["points"].as_u64().unwrap() as usize, points);
        }
    }
    for weights in summary["weights"].as_array().unwrap() {
        assert_eq!(weights["sha256"].as_str().unwrap().len(), 64);
    }
    let saved = Saved::read(&folder.join("features.safetensors")).unwrap();
    assert_eq!((saved.voxel_from_point.len(), saved.num_channels), (num_points, 48));
    assert_eq!(saved.coords.len() as u64, summary["voxels"].as_u64().unwrap());
    let sheet = read_image(&folder.join("sheet.png"), Orientation::Upright).unwrap();
    assert!(sheet.width() > 3 * 600 && sheet.height() > 400, "{} x {}", sheet.width(), sheet.height());
    labelled
}

#[test]
fn a_scan_without_pictures_is_labelled_and_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (scan, results) = (folder.path().join("corner.ply"), folder.path().join("results"));
    write_corner(&scan);
    let views = folder.path().join("views");
    let words = "floor, wall, Kiste, 椅子";
    let arguments =
        ["infer", text(&scan), "--words", words, "-o", text(&results), "--views", "5", "--save-views", text(&views)];
    let (out, _) = succeed(&arguments);
    let cloud = corner(0.03);
    let labelled = check_results(&results, cloud.len(), 4);
    assert_eq!(labelled.positions, cloud.positions);
    assert!(out.contains("sheet.png") && out.contains("whole run"), "{out}");
    let report = summary(&results);
    assert_eq!(report["settings"]["words"].as_array().unwrap().len(), 4);
    assert_eq!(report["views"]["looked_at"], 5);
    // Labels' colours replace the scan's.
    let colors = report["classes"].as_array().unwrap();
    let label = labelled.attribute("label").unwrap().data.get_f64(0).unwrap() as usize;
    let expected: Vec<u8> = serde_json::from_value(colors[label]["color"].clone()).unwrap();
    assert_eq!(labelled.colors.as_ref().unwrap()[0].to_vec(), expected);
    assert_eq!(fs::read_dir(&views).unwrap().count(), 10);

    // The same again is the same to the last bit.
    let again = folder.path().join("again");
    succeed(&["infer", text(&scan), "--words", words, "-o", text(&again), "--views", "5"]);
    for name in ["labelled.ply", "sheet.png"] {
        assert!(fs::read(results.join(name)).unwrap() == fs::read(again.join(name)).unwrap(), "{name}");
    }
    let features = |folder: &Path| Saved::read(&folder.join("features.safetensors")).unwrap().features;
    assert_eq!(features(&results), features(&again));

    let (answer, _) = succeed(&["query", text(&results), "something to sit on", "--json"]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert!(!answer["places"].as_array().unwrap().is_empty(), "{answer}");
    let heat = PointCloud::read(&results.join("query-something-to-sit-on.ply")).unwrap();
    let score = &heat.attribute("score").unwrap().data;
    let best = (0..heat.len()).map(|i| score.get_f64(i).unwrap()).fold(f64::MIN, f64::max);
    assert!((best - answer["best"].as_f64().unwrap()).abs() < 1e-6);
    assert!(read_image(&results.join("query-something-to-sit-on.png"), Orientation::Upright).unwrap().width() > 1000);
    let center: Vec<f64> = serde_json::from_value(answer["places"][0]["center"].clone()).unwrap();
    assert!(center.iter().all(|x| (-0.1..3.1).contains(x)), "{center:?}");
    assert!(fail(&["query", text(&results), "  "]).contains("has no words"));
    let picture = text(&folder.path().join("heat.png")).to_owned();
    assert!(fail(&["query", text(&results), "chair", "-o", &picture]).contains("heat map is a PLY file"));
    assert!(fail(&["query", text(folder.path()), "chair"]).contains("features.safetensors"));
}

#[test]
fn a_recording_is_fused_or_looked_at_with_its_scan() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, scan) = (folder.path().join("recording"), folder.path().join("corner.ply"));
    write_recording(&recording, 6);
    write_corner(&scan);
    let fused = folder.path().join("fused");
    let (_, err) = succeed(&["infer", "--rgbd", text(&recording), "--words", "floor, wall, box", "-o", text(&fused)]);
    assert!(err.contains("recording: scannet, 6 frames") && err.contains("confirm"), "{err}");
    let report = summary(&fused);
    let num_points = report["points"].as_u64().unwrap() as usize;
    assert!(num_points > 10_000 && report["scan"].is_null(), "{report}");
    let labelled = check_results(&fused, num_points, 3);
    assert_eq!(report["views"]["looked_at"], 6);
    // All points were made from these very pictures; those along the edges of all that show them count as unseen.
    assert!(report["views"]["unseen_points"].as_u64().unwrap() * 20 < num_points as u64, "{report}");
    assert!(labelled.normals.is_some());

    let with_scan = folder.path().join("with_scan");
    let arguments =
        ["infer", text(&scan), "--rgbd", text(&recording), "--words", "floor, wall", "-o", text(&with_scan)];
    succeed(&arguments);
    check_results(&with_scan, corner(0.03).len(), 2);
    assert_eq!(summary(&with_scan)["views"]["without_depth"], 0);

    // As published: every 20th frame, so here the first alone; and depth maps must be as large as the picture.
    let (large, reference) = (folder.path().join("large"), folder.path().join("reference"));
    write_recording_of(&large, 2, [640, 480]);
    let more = ["-o", text(&reference), "--compat", "reference", "--seed", "4"];
    succeed(&[&["infer", text(&scan), "--rgbd", text(&large), "--words", "floor, wall"], &more[..]].concat());
    assert_eq!(
        (summary(&reference)["views"]["views"].as_u64(), summary(&reference)["views"]["looked_at"].as_u64()),
        (Some(1), Some(1))
    );

    // Without depth the scan's own hides what is behind.
    fs::remove_dir_all(recording.join("depth")).unwrap();
    let without_depth = folder.path().join("without_depth");
    succeed(&[&arguments[..6], &["-o", text(&without_depth)]].concat());
    let report = summary(&without_depth);
    assert_eq!((report["views"]["without_depth"].as_u64(), report["views"]["looked_at"].as_u64()), (Some(6), Some(6)));
    let error = fail(&["infer", "--rgbd", text(&recording), "--words", "floor", "-o", text(&without_depth)]);
    assert!(error.contains("neither depth maps with poses nor points"), "{error}");
}

#[test]
fn bad_frames_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("recording");
    write_recording(&recording, 5);
    fs::write(recording.join("pose/0.txt"), "nan nan nan nan\n".repeat(4)).unwrap();
    // Cut off, and of another size.
    let jpeg = fs::read(recording.join("color/1.jpg")).unwrap();
    fs::write(recording.join("color/1.jpg"), &jpeg[..jpeg.len() / 3]).unwrap();
    let mut small = Vec::new();
    JpegEncoder::new(&mut small).encode(&[90; 16 * 16 * 3], 16, 16, ExtendedColorType::Rgb8).unwrap();
    fs::write(recording.join("color/2.jpg"), small).unwrap();
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    let results = folder.path().join("results");
    let (out, _) =
        succeed(&["infer", text(&scan), "--rgbd", text(&recording), "--words", "floor, wall", "-o", text(&results)]);
    let views = &summary(&results)["views"];
    assert_eq!((views["views"].as_u64(), views["looked_at"].as_u64()), (Some(4), Some(2)), "{views}");
    assert_eq!(views["unreadable"], 2);
    assert!(out.contains("2 frames could not be read, the first: ") && out.contains("invalid pose"), "{out}");
    check_results(&results, corner(0.03).len(), 2);
}

#[test]
fn poses_that_do_not_show_the_scan_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, scan) = (folder.path().join("recording"), folder.path().join("far.ply"));
    write_recording(&recording, 2);
    let mut cloud = corner(0.03);
    cloud.positions.iter_mut().for_each(|p| p[0] += 1e4);
    cloud.write_ply(&scan, &[]).unwrap();
    let results = folder.path().join("results");
    let error = fail(&["infer", text(&scan), "--rgbd", text(&recording), "--words", "floor", "-o", text(&results)]);
    assert!(error.contains("none of the 2 views shows the scan"), "{error}");
    assert_eq!(fs::read_dir(&results).unwrap().count(), 0);
}

#[test]
fn frames_without_poses_stand_alone() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("recording");
    write_recording(&recording, 2);
    fs::remove_dir_all(recording.join("pose")).unwrap();
    fs::remove_dir_all(recording.join("intrinsic")).unwrap();
    fs::write(recording.join("intrinsics.txt"), "260 0 159.5\n0 260 119.5\n0 0 1\n").unwrap();
    let results = folder.path().join("results");
    let (_, err) = succeed(&["infer", text(&recording), "--words", "floor, wall", "-o", text(&results)]);
    assert!(err.contains("no poses: 2 of its 2 frames are labelled, each alone"), "{err}");
    for name in ["0", "1"] {
        let report = summary(&results.join(name));
        check_results(&results.join(name), report["points"].as_u64().unwrap() as usize, 2);
        assert!(report["points"].as_u64().unwrap() > 5000, "{report}");
    }
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    let error = fail(&["infer", text(&scan), "--rgbd", text(&recording), "--words", "floor", "-o", text(&results)]);
    assert!(error.contains("no poses, so nothing says where in the scan"), "{error}");
}

#[test]
fn a_folder_of_scans_goes_on_after_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    let scans = folder.path().join("scans");
    fs::create_dir(&scans).unwrap();
    write_corner(&scans.join("a.ply"));
    fs::write(scans.join("b.ply"), "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nend_header\n1\n")
        .unwrap();
    // A single point, and one without a position beside it; no colours.
    fs::write(scans.join("c.xyz"), "1 2 3\nnan nan nan\n").unwrap();
    let results = folder.path().join("results");
    let output =
        run(&["infer", text(&scans), "--words", "floor, wall", "-o", text(&results), "--views", "3", "--json"]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("b.ply") && err.contains("1 of 3 failed"), "{err}");
    assert_eq!(out.lines().count(), 2);
    check_results(&results.join("a"), corner(0.03).len(), 2);
    let labelled = check_results(&results.join("c"), 2, 2);
    assert_eq!(labelled.attribute("label").unwrap().data.get_f64(1), Some(-1.0));
    assert!(summary(&results.join("c"))["notes"].to_string().contains("1 points have no position"));
}

#[test]
fn background_and_threshold_leave_points_unlabelled() {
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    let unlabelled = |name: &str, more: &[&str]| {
        let results = folder.path().join(name);
        let arguments = ["infer", text(&scan), "--words", "floor", "-o", text(&results), "--views", "3"];
        succeed(&[&arguments[..], more].concat());
        check_results(&results, corner(0.03).len(), 1);
        summary(&results)["classes"][1]["points"].as_u64().unwrap()
    };
    assert_eq!(unlabelled("plain", &[]), 0);
    assert_eq!(unlabelled("threshold", &["--threshold", "1"]), corner(0.03).len() as u64);
    assert!(unlabelled("background", &["--background", "wall, ceiling, lamp, chair, sofa, box"]) > 0);
}

#[test]
fn arguments_that_cannot_be_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none.ply");
    assert!(fail(&["infer", text(&none), "--words", "floor"]).contains("none.ply"));
    assert!(fail(&["infer"]).contains("nothing to label"));
    assert!(fail(&["infer", text(folder.path()), "--words", "floor"]).contains("no scan in this folder"));
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    assert!(fail(&["infer", text(&scan), "--words", " , "]).contains("names nothing to look for"));
    let other = folder.path().join("other.ply");
    write_corner(&other);
    let error = fail(&["infer", text(&scan), text(&other), "--rgbd", text(folder.path()), "--words", "floor"]);
    assert!(error.contains("--rgbd belongs to one scan"), "{error}");
    let output = run(&["infer", text(&scan), "--preset", "scannet"]);
    let (_, err) = texts(&output);
    assert!(output.status.code() == Some(2) && err.contains("matterport160"), "{err}");
    // A student of other widths.
    let student = folder.path().join("student.safetensors");
    let (_, published) =
        (weight_files(), geopurify::models::student::StudentConfig { input_dim: 22, hidden_dim: 8, embed_dim: 4 });
    let keys = published.keys();
    let specs: Vec<_> = keys
        .iter()
        .map(|(key, shape)| geopurify::weights::TensorSpec::new(key, geopurify::weights::Dtype::F32, shape.clone()))
        .collect();
    let mut writer = geopurify::weights::SafetensorsWriter::create(&student, &specs, &Default::default()).unwrap();
    keys.iter().for_each(|(_, shape)| writer.write_f32(&vec![0.1; shape.iter().product()]).unwrap());
    writer.finish().unwrap();
    let files = weight_files();
    let output = Command::new(env!("CARGO_BIN_EXE_geopurify"))
        .args(["infer", text(&scan), "--words", "floor", "--device", "cpu"])
        .args(["--xdecoder", text(&files.xdecoder), "--xdecoder-config", text(&files.config)])
        .args(["--student", text(&student)])
        .output()
        .unwrap();
    let (_, err) = texts(&output);
    assert!(output.status.code() == Some(1) && err.contains("do not belong together"), "{err}");
}

/// Waits until `done`, or fails.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_no_half_written_file() {
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    let results = folder.path().join("results");
    let views = folder.path().join("views");
    let mut child = command(&[
        "infer",
        text(&scan),
        "--words",
        "floor, wall",
        "-o",
        text(&results),
        "--views",
        "40",
        "--save-views",
        text(&views),
    ])
    .stderr(Stdio::null())
    .stdout(Stdio::null())
    .spawn()
    .unwrap();
    // In the middle of writing pictures.
    wait_for("pictures of views", || fs::read_dir(&views).is_ok_and(|entries| entries.count() >= 3));
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert_no_partials(&views);
    assert_no_partials(&results);
    assert!(!results.join("summary.json").exists());
    for entry in fs::read_dir(&views).unwrap() {
        read_image(&entry.unwrap().path(), Orientation::Upright).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_leaves_nothing_half_written() {
    use std::os::unix::process::CommandExt as _;
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    let results = folder.path().join("results");
    let mut command = command(&["infer", text(&scan), "--words", "floor, wall", "-o", text(&results), "--views", "3"]);
    let limit = libc::rlimit { rlim_cur: 100_000, rlim_max: 100_000 };
    // SAFETY: both calls are async-signal-safe, and nothing is allocated between fork and exec.
    unsafe {
        command.pre_exec(move || {
            // A file that grows past the limit then gives an error instead of ending the process.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            if libc::setrlimit(libc::RLIMIT_FSIZE, &limit) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let (_, err) = texts(&command.output().unwrap());
    assert!(err.contains("labelled.ply") && err.contains("the disk is full") && !err.contains("panicked"), "{err}");
    assert_no_partials(&results);
    assert!(!results.join("labelled.ply").exists());
}

/// Real scans and recordings, labelled by networks that know nothing: what is tested is that everything runs, and that
/// every point gets an answer.
#[test]
fn real_data_runs_end_to_end() {
    let Some(data) = std::env::var_os("GEOPURIFY_DATA").map(PathBuf::from) else {
        eprintln!("GEOPURIFY_DATA is not set: real scans and recordings were NOT labelled");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let scans =
        ["pcd/livingroom_fragment.pcd", "pcd/office1.pcd", "ply/livingroom_mesh_binary.ply", "las/autzen_trim.laz"];
    for name in scans {
        let (scan, results) = (data.join(name), folder.path().join(name));
        succeed(&["infer", text(&scan), "-o", text(&results), "--views", "6"]);
        let source = PointCloud::read(&scan).unwrap();
        let labelled = check_results(&results, source.len(), 20);
        let same = |(a, b): (&[f64; 3], &[f64; 3])| {
            (0..3).all(|axis| a[axis] == b[axis] || (a[axis].is_nan() && b[axis].is_nan()))
        };
        assert!(source.positions.iter().zip(&labelled.positions).all(same), "{name}");
        let extension = if name.ends_with("laz") { "laz" } else { "ply" };
        assert!(summary(&results)["output"].as_str().unwrap().ends_with(extension));
    }
    for (name, least_points) in
        [("icl-redwood-rgbd5", 20_000), ("tum-fr1-desk-5", 10_000), ("colmap-text-4", 1039), ("nerfstudio-1", 10)]
    {
        let (recording, results) = (data.join(name), folder.path().join(name));
        succeed(&["infer", "--rgbd", text(&recording), "-o", text(&results)]);
        let points = summary(&results)["points"].as_u64().unwrap() as usize;
        assert!(points >= least_points, "{name}: {points}");
        check_results(&results, points, 20);
    }
    let (recording, results) = (data.join("realsense-noposes-4"), folder.path().join("realsense"));
    let (_, err) = succeed(&["infer", text(&recording), "-o", text(&results)]);
    assert!(err.contains("no poses: 4 of its 4 frames are labelled, each alone"), "{err}");
    assert_eq!(fs::read_dir(&results).unwrap().count(), 4);
}

/// Scans that hold fields of the results' names already, as the results themselves do.
#[test]
fn results_can_be_labelled_again() {
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("corner.ply");
    let cloud = corner(0.03);
    cloud
        .write_ply(
            &scan,
            &[Field::new("label", vec![7_i32; cloud.len()]), Field::new("score", vec![9.0_f32; cloud.len()])],
        )
        .unwrap();
    let results = folder.path().join("results");
    succeed(&["infer", text(&scan), "--words", "floor, wall", "-o", text(&results), "--views", "3"]);
    check_results(&results, cloud.len(), 2);
}

#[test]
fn every_adapter_gives_the_labels_of_the_host() {
    if std::env::var("GEOPURIFY_DEVICE").is_ok_and(|device| device == "cpu") {
        eprintln!("GEOPURIFY_DEVICE is cpu: graphics adapters were NOT compared");
        return;
    }
    let adapters = geopurify::gpu::adapters();
    assert!(!adapters.is_empty(), "no graphics adapter: install a Vulkan driver, or set GEOPURIFY_DEVICE=cpu");
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("recording");
    write_recording(&recording, 3);
    let (scan, host) = (folder.path().join("corner.ply"), folder.path().join("host"));
    write_corner(&scan);
    let with = |views: &[&str], device: &str, results: &Path| {
        let arguments = ["infer", text(&scan), "--words", "floor, wall, box", "--size", "192", "-o", text(results)];
        succeed(&[&arguments[..], views, &["--device", device]].concat());
        let labelled = check_results(results, corner(0.03).len(), 3);
        let label = &labelled.attribute("label").unwrap().data;
        (0..labelled.len()).map(|i| label.get_f64(i).unwrap() as i32).collect::<Vec<_>>()
    };
    for views in [&["--views", "2"][..], &["--rgbd", text(&recording)]] {
        let expected = with(views, "cpu", &host);
        for adapter in &adapters {
            let found =
                with(views, &adapter.index.to_string(), &folder.path().join(format!("adapter{}", adapter.index)));
            // Products are summed in another order, so a pixel whose two best queries are equal may go to the other.
            let same = found.iter().zip(&expected).filter(|(a, b)| a == b).count();
            assert!(same * 100 >= expected.len() * 99, "{}: {same} of {}", adapter.name, expected.len());
        }
    }
}
