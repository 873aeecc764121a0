//! Labelled corners of a room on disk, with or without a recording, as ScanNet has its scenes.

#![allow(dead_code, reason = "not every test has all kinds of labels")]

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use geopurify::cloud::Field;
use geopurify::views::render::{Renderer, Scene, pinhole, radii};
use geopurify::views::{Intrinsics, Pose, PoseConvention};
use glam::{DMat3, DVec3};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::corner::corner;

pub(crate) const STEP: f64 = 0.06;
// NYU40's; a box is no class of ScanNet's 20.
// The networks know nothing: with a wall of what they see everywhere, something is right.
pub(crate) const WALL: u16 = 1;
pub(crate) const SHOWER_CURTAIN: u16 = 28;
pub(crate) const FLOOR: u16 = 2;
pub(crate) const BOX: u16 = 29;
pub(crate) const TABLE: u16 = 7;

/// A labelled scene: labels by surface, the box's last side without one.
pub(crate) struct Made {
    pub scan: PathBuf,
    pub labels: Vec<u16>,
}

/// Writes a corner as `folder/base.ply` and its labels beside it.
pub(crate) fn write_scene(folder: &Path, base: &str, object: u16, size: f64) -> Made {
    fs::create_dir_all(folder).unwrap();
    let mut cloud = corner(STEP);
    cloud.positions.iter_mut().flatten().for_each(|x| *x *= size);
    let scan = folder.join(format!("{base}.ply"));
    cloud.write_ply(&scan, &[]).unwrap();
    let colors = cloud.colors.as_ref().unwrap();
    let label = |color: &[u8; 3]| match color {
        [150, 110, 70] => FLOOR,
        [220, ..] => WALL,
        [200, ..] => SHOWER_CURTAIN,
        [150, 40, 30] => 0,
        _ => object,
    };
    let labels: Vec<u16> = colors.iter().map(label).collect();
    cloud.write_ply(&folder.join(format!("{base}.labels.ply")), &[Field::new("label", labels.clone())]).unwrap();
    Made { scan, labels }
}

/// Pictures of the corner from where a camera walks, in ScanNet's layout, 320 x 240, with depth in millimetres.
pub(crate) fn write_recording(folder: &Path, count: usize) {
    let cloud = corner(0.03);
    let (origin, points) = cloud.centered();
    let radii = radii(&points);
    let colors = cloud.colors.as_deref().unwrap();
    let renderer =
        Renderer::new(&Scene { points: &points, origin, colors, faces: &[], radii: &radii }, &Device::flex()).unwrap();
    let lens = Intrinsics::new(320, 240, 260.0, 260.0, 159.5, 119.5).unwrap();
    for name in ["color", "depth", "pose", "intrinsic"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    for name in ["intrinsic_color.txt", "intrinsic_depth.txt"] {
        let matrix = "260 0 159.5 0\n0 260 119.5 0\n0 0 1 0\n0 0 0 1\n";
        fs::write(folder.join("intrinsic").join(name), matrix).unwrap();
    }
    for i in 0..count {
        let angle = (0.2 + 0.6 * i as f64 / count as f64) * std::f64::consts::FRAC_PI_2;
        let eye = DVec3::new(1.0 + 2.4 * angle.cos(), 1.0 + 2.4 * angle.sin(), 1.5);
        let forward = (DVec3::new(1.0, 1.0, 0.5) - eye).normalize();
        let right = forward.cross(DVec3::Z).normalize();
        let rotation = DMat3::from_cols(right, forward.cross(right), forward);
        let pose = Pose::new(rotation, eye, PoseConvention::OPENCV_CAMERA_TO_WORLD).unwrap();
        let picture = renderer.picture(&pinhole(&lens, &pose, origin, 0.05), [90; 3]).unwrap();
        let mut jpeg = Vec::new();
        let pixels = picture.colors.as_flattened();
        JpegEncoder::new_with_quality(&mut jpeg, 95).encode(pixels, 320, 240, ExtendedColorType::Rgb8).unwrap();
        fs::write(folder.join(format!("color/{i}.jpg")), jpeg).unwrap();
        let depth: Vec<u8> = picture.depth.iter().flat_map(|d| ((d * 1000.0).round() as u16).to_ne_bytes()).collect();
        let mut png = Vec::new();
        PngEncoder::new(&mut png).write_image(&depth, 320, 240, ExtendedColorType::L16).unwrap();
        fs::write(folder.join(format!("depth/{i}.png")), png).unwrap();
        let rows = pose.rows().map(|row| row.map(|x| x.to_string()).join(" "));
        fs::write(folder.join(format!("pose/{i}.txt")), format!("{}\n0 0 0 1\n", rows.join("\n"))).unwrap();
    }
}
