//! Colours of a scan through pictures and back: if lifting puts every pixel where it belongs, it gives the points
//! the colours they have. Queries are the pictures' colours, embeddings their red, green and blue.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use burn::tensor::Device;
use geopurify::lift::{Lifted, Lifter, View};
use geopurify::ops::int_tensor;
use geopurify::ops::project::{Camera, Visibility};
use geopurify::purify::FeatureSource as _;
use geopurify::views::fuse::{FuseOptions, fuse};
use geopurify::views::render::{Renderer, Scene, pinhole, radii};
use geopurify::views::virtual_cameras::{Options, Scan, virtual_cameras};
use geopurify::views::{Intrinsics, OpenOptions, Pose, PoseConvention, open};
use glam::{DMat3, DVec3};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::common::devices;

/// A georeferenced place, as surveys have it.
const ORIGIN: [f64; 3] = [431_000.0, 5_412_000.0, 200.0];
/// Levels of a channel that are one colour of a picture.
const STEP: u8 = 8;

/// A room of 5 x 4 x 2.6 m around the origin with a table and a cupboard, `step` metres between points.
fn room(step: f32) -> (Vec<[f32; 3]>, Vec<[u8; 3]>) {
    let boxes =
        [([0.0, 0.0, 0.0], [5.0, 4.0, 2.6]), ([2.0, 1.2, 0.0], [3.2, 2.2, 0.75]), ([0.0, 2.4, 0.0], [0.6, 4.0, 2.0])];
    let hidden = |p: &[f32; 3]| {
        boxes[1..].iter().any(|(low, high)| (0..3).all(|a| p[a] > low[a] - 1e-3 && p[a] < high[a] + 1e-3))
    };
    let mut points = Vec::new();
    for (number, (low, high)) in boxes.iter().enumerate() {
        for side in 0..6 {
            let (u, v) = ((side / 2 + 1) % 3, (side / 2 + 2) % 3);
            let count = |axis: usize| ((high[axis] - low[axis]) / step) as usize;
            for (i, j) in (0..count(u)).flat_map(|i| (0..count(v)).map(move |j| (i, j))) {
                let mut p = if side % 2 == 1 { *high } else { *low };
                (p[u], p[v]) = (low[u] + (i as f32 + 0.5) * step, low[v] + (j as f32 + 0.5) * step);
                let on_the_floor = number > 0 && side == 4;
                let at_the_wall = number > 0 && (p[0] < 1e-3 || p[1] > 3.999);
                if !(on_the_floor || at_the_wall || number == 0 && hidden(&p)) {
                    points.push([p[0] - 2.5, p[1] - 2.0, p[2] - 1.3]);
                }
            }
        }
    }
    let wave = |phase: f32| (128.0 + 90.0 * phase.sin()).round() as u8;
    let color = |p: &[f32; 3]| [wave(1.1 * p[0] + 0.4 * p[2]), wave(1.3 * p[1] + 1.0), wave(1.9 * p[2] - 0.5 * p[0])];
    let colors = points.iter().map(color).collect();
    (points, colors)
}

/// A view that tells the colours of a picture; no query claims the pixels for which `is_known` is false.
fn color_view(colors: &[[u8; 3]], is_known: impl Fn(usize) -> bool, camera: &Camera, device: &Device) -> View {
    let mut queries: HashMap<[u8; 3], i32> = HashMap::new();
    let mut embeddings = Vec::new();
    let query_from_pixel = colors.iter().enumerate().map(|(pixel, color)| {
        if !is_known(pixel) {
            return -1;
        }
        let color = color.map(|value| value / STEP);
        let next = queries.len() as i32;
        *queries.entry(color).or_insert_with(|| {
            embeddings.extend(color.map(|value| f32::from(value * STEP) + f32::from(STEP - 1) / 2.0));
            next
        })
    });
    let query_from_pixel = query_from_pixel.collect();
    let query_from_pixel = int_tensor(query_from_pixel, [camera.height, camera.width], device);
    let num_queries = embeddings.len() / 3;
    View::from_parts(query_from_pixel, embeddings, vec![1.0; num_queries], num_queries).unwrap()
}

/// Nearly all points are seen, and have their own colours.
fn assert_colors(name: &str, lifted: &Lifted, colors: &[[u8; 3]]) {
    let seen = lifted.num_views_of_point.iter().filter(|count| **count > 0).count();
    let share = seen as f64 / colors.len() as f64;
    assert!(share >= 0.97, "{name}: {share} of the points are seen");
    assert_eq!(colors.len() - seen, lifted.num_unseen, "{name}");
    let found = lifted.read(0..3).unwrap();
    let mut errors: Vec<f32> =
        found.iter().zip(colors.as_flattened()).map(|(found, &own)| (found - f32::from(own)).abs()).collect();
    errors.sort_unstable_by(f32::total_cmp);
    let [median, most, worst] = [50, 95, 99].map(|percent| errors[errors.len() * percent / 100]);
    println!("{name}: {share:.4} seen; errors {median} (median), {most} (95 %), {worst} (99 %)");
    assert!(median <= 6.0 && most <= 12.0, "{name}: errors {median} (median), {most} (95 %), {worst} (99 %)");
}

#[test]
fn virtual_views_give_a_scan_its_own_colours() {
    let (points, colors) = room(0.03);
    let scan = Scan { points: &points, origin: ORIGIN, normals: None, colors: None, faces: &[], metres_per_unit: 1.0 };
    let cameras = virtual_cameras(&scan, &Options::default());
    let radii = radii(&points);
    let scene = Scene { points: &points, origin: ORIGIN, colors: &colors, faces: &[], radii: &radii };
    let renderer = Renderer::new(&scene, &Device::flex()).unwrap();
    let pictures: Vec<_> = cameras
        .cameras
        .iter()
        .map(|camera| {
            let pinhole = pinhole(&camera.intrinsics, &camera.pose, ORIGIN, camera.near);
            (Camera::from(&pinhole), renderer.picture(&pinhole, [0; 3]).unwrap())
        })
        .collect();
    assert!(pictures.len() > 3);
    for (name, device) in devices() {
        let mut lifter = Lifter::new(points.clone(), Visibility::default(), &device);
        for (camera, picture) in &pictures {
            let projection = lifter.see(*camera, *camera, &picture.depth).unwrap();
            let view = color_view(&picture.colors, |pixel| picture.index[pixel] >= 0, camera, &device);
            lifter.add(&projection, &view).unwrap();
        }
        assert_colors(&name, &lifter.finish().unwrap(), &colors);
    }
}

fn put(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn matrix(rows: [[f64; 4]; 3]) -> String {
    let rows = rows.into_iter().chain([[0.0, 0.0, 0.0, 1.0]]);
    rows.map(|row| row.map(|x| x.to_string()).join(" ") + "\n").collect()
}

fn intrinsics_file(camera: &Intrinsics) -> String {
    matrix([[camera.fx, 0.0, camera.cx, 0.0], [0.0, camera.fy, camera.cy, 0.0], [0.0, 0.0, 1.0, 0.0]])
}

/// A walk through the room, looking around and down; z is up.
fn walk() -> Vec<Pose> {
    let look = |i: usize| {
        let (turn, down) = (0.45 * i as f64, [0.05, 0.6, -0.35][i % 3]);
        let forward = DVec3::new(turn.cos(), turn.sin(), -down).normalize();
        let right = forward.cross(DVec3::Z).normalize();
        let rotation = DMat3::from_cols(right, forward.cross(right), forward);
        let center = DVec3::new(1.3 * (turn + 2.5).cos(), 0.9 * (turn + 2.5).sin(), 0.25);
        Pose::new(rotation, center, PoseConvention::OPENCV_CAMERA_TO_WORLD).unwrap()
    };
    (0..42).map(look).collect()
}

#[test]
fn a_recording_gives_the_cloud_fused_from_it_its_colours() {
    // As ScanNet has it: the picture larger than the depth map, each with a camera of its own.
    let color = Intrinsics::new(324, 242, 292.5, 292.5, 161.6, 120.6).unwrap();
    let depth = Intrinsics::new(160, 120, 144.4, 144.7, 79.4, 60.3).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (points, colors) = room(0.02);
    let radii = radii(&points);
    let scene = Scene { points: &points, origin: [0.0; 3], colors: &colors, faces: &[], radii: &radii };
    let renderer = Renderer::new(&scene, &Device::flex()).unwrap();
    for (i, pose) in walk().iter().enumerate() {
        let of = |camera: &Intrinsics| renderer.picture(&pinhole(camera, pose, [0.0; 3], 0.05), [0; 3]).unwrap();
        let (mut jpeg, mut png) = (Vec::new(), Vec::new());
        let pixels = of(&color).colors.into_flattened();
        let encoder = JpegEncoder::new_with_quality(&mut jpeg, 97);
        encoder.write_image(&pixels, 324, 242, ExtendedColorType::Rgb8).unwrap();
        let millimetres = of(&depth).depth.into_iter().flat_map(|depth| ((depth * 1e3).round() as u16).to_ne_bytes());
        let millimetres: Vec<u8> = millimetres.collect();
        PngEncoder::new(&mut png).write_image(&millimetres, 160, 120, ExtendedColorType::L16).unwrap();
        put(root.join(format!("color/{i}.jpg")), jpeg);
        put(root.join(format!("depth/{i}.png")), png);
        put(root.join(format!("pose/{i}.txt")), matrix(pose.rows()));
    }
    put(root.join("intrinsic/intrinsic_color.txt"), intrinsics_file(&color));
    put(root.join("intrinsic/intrinsic_depth.txt"), intrinsics_file(&depth));

    let dataset = open(root, &OpenOptions::default()).unwrap();
    let frames: Vec<usize> = (0..dataset.len()).collect();
    let cloud = fuse(&*dataset, &frames, &FuseOptions { voxel: 0.04, ..FuseOptions::default() }).unwrap().cloud;
    let (origin, positions) = cloud.centered();
    for (name, device) in devices() {
        // So little memory that most views go through a file.
        let mut lifter = Lifter::new(positions.clone(), Visibility { border: 3, ..Visibility::default() }, &device)
            .with_memory_budget(1 << 20);
        for (i, frame) in dataset.frames().iter().enumerate() {
            let camera = |intrinsics: &Intrinsics, pose: Option<Pose>| {
                Camera::from(&pinhole(intrinsics, &pose.unwrap(), origin, 0.05))
            };
            let color = camera(&frame.color, frame.pose);
            let depth = camera(&frame.depth.unwrap(), frame.pose_of_depth());
            assert_ne!(color, depth);
            let projection = lifter.see(color, depth, dataset.depth(i).unwrap().unwrap().meters()).unwrap();
            let view = color_view(dataset.color(i).unwrap().pixels(), |_| true, &color, &device);
            lifter.add(&projection, &view).unwrap();
        }
        assert!(lifter.bytes_spilled() > 0, "{name}");
        assert_colors(&name, &lifter.finish().unwrap(), cloud.colors.as_ref().unwrap());
    }
}
