//! The commands that label, on a furnished corner of a room, with small generated weights.

#![allow(dead_code, reason = "not every test binary has all of it")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::Device;
use geopurify::cloud::PointCloud;
use geopurify::images::{Orientation, read_image};
use geopurify::query::saved::Saved;
use geopurify::views::Intrinsics;
use geopurify::views::render::{Renderer, Scene, pinhole, radii};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use serde_json::Value;

use crate::corner::corner;
use crate::walk::poses;
use crate::weights::weight_files;

/// The command with the small networks, on the host unless the test says otherwise.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let files = weight_files();
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command.args(arguments).env("GEOPURIFY_DEVICE", "cpu");
    command.arg("--xdecoder").arg(&files.xdecoder).arg("--xdecoder-config").arg(&files.config);
    if arguments[0] == "infer" {
        command.arg("--student").arg(&files.student);
    }
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub(crate) fn succeed(arguments: &[&str]) -> (String, String) {
    let output = run(arguments);
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    (out, err)
}

/// What a run that must fail with exit code 1 says.
pub(crate) fn fail(arguments: &[&str]) -> String {
    let output = run(arguments);
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(!err.contains("panicked"), "{err}");
    err
}

pub(crate) fn texts(output: &Output) -> (String, String) {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).into()
}

pub(crate) fn summary(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("summary.json")).unwrap()).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// No file of a run is left half-written.
pub(crate) fn assert_no_partials(folder: &Path) {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let partial: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(".partial")).collect();
    assert!(partial.is_empty(), "{partial:?}");
}

pub(crate) fn write_corner(path: &Path) {
    corner(0.03).write_ply(path, &[]).unwrap();
}

/// A recording of the corner in ScanNet's layout, 320 x 240, with depth in millimetres.
pub(crate) fn write_recording(folder: &Path, count: usize) {
    write_recording_of(folder, count, [320, 240]);
}

pub(crate) fn write_recording_of(folder: &Path, count: usize, [width, height]: [usize; 2]) {
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
pub(crate) fn check_results(folder: &Path, num_points: usize, num_labels: usize) -> PointCloud {
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
