//! Writes the frames of a recording as files.

use std::fs;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;

use super::{PrepareError, Progress};
use crate::images::resize::resize_bicubic;
use crate::views::{Dataset, DepthImage, Intrinsics, Pose, Stored};

/// JPEG quality of pictures that are encoded again.
const JPEG_QUALITY: u8 = 95;

/// Folders of the frames' files.
pub(super) const FOLDERS: [&str; 4] = ["color", "depth", "pose", "intrinsic"];

/// Number of cameras: one for all frames, as in ScanNet, or one for each frame, as in Matterport3D.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cameras {
    One,
    Each,
}

/// Writes the frames `indices` of a recording into folders of `root`: `color`, `depth` (16-bit PNG in the
/// recording's units), `pose` (camera-to-world, OpenCV axes) and `intrinsic`. Files are named after the
/// frames.
///
/// Stored pictures are copied if possible and if no `size` is given.
pub(super) fn write_frames(
    dataset: &dyn Dataset,
    indices: &[usize],
    root: &Path,
    cameras: Cameras,
    size: Option<[usize; 2]>,
    progress: &Progress<'_>,
) -> Result<(), PrepareError> {
    for name in FOLDERS {
        let path = root.join(name);
        fs::create_dir_all(&path).map_err(|error| PrepareError::io(&path, "create", error))?;
    }
    let Some(first) = indices.first().and_then(|&index| dataset.frames().get(index)) else { return Ok(()) };
    if cameras == Cameras::One {
        let scaled = size.map_or(first.color, |[width, height]| first.color.scaled_to(width, height));
        let mut files = vec![("color", scaled)];
        files.extend(first.depth.map(|depth| ("depth", depth)));
        for (kind, camera) in files {
            let Intrinsics { fx, fy, cx, cy, .. } = camera;
            let matrix = format!("{fx} 0 {cx} 0\n0 {fy} {cy} 0\n0 0 1 0\n0 0 0 1\n");
            write(&root.join(format!("intrinsic/intrinsic_{kind}.txt")), matrix.as_bytes())?;
            let identity = b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n";
            write(&root.join(format!("intrinsic/extrinsic_{kind}.txt")), identity)?;
        }
    }
    indices.par_iter().try_for_each(|&index| {
        let Some(frame) = dataset.frames().get(index) else { return Ok(()) };
        let Some(pose) = frame.pose else { return Ok(()) };
        let path = |folder: &str, extension: &str| root.join(folder).join(format!("{}.{extension}", frame.name));
        write_color(dataset, index, size, &path)?;
        write_depth(dataset, index, &path("depth", "png"))?;
        write(&path("pose", "txt"), pose_text(&pose).as_bytes())?;
        if cameras == Cameras::Each {
            let camera = size.map_or(frame.color, |[width, height]| frame.color.scaled_to(width, height));
            let Intrinsics { fx, fy, cx, cy, .. } = camera;
            write(&path("intrinsic", "txt"), format!("{fx} 0 {cx}\n0 {fy} {cy}\n0 0 1\n").as_bytes())?;
        }
        progress(1.0 / indices.len() as f64);
        Ok(())
    })
}

fn pose_text(pose: &Pose) -> String {
    let rows = pose.rows().map(|row| row.map(|x| x.to_string()).join(" "));
    format!("{}\n0 0 0 1\n", rows.join("\n"))
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), PrepareError> {
    fs::write(path, bytes).map_err(|error| PrepareError::io(path, "write", error))
}

/// Makes a hard link to a file, or a copy if the file system has no links.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), PrepareError> {
    // A hard link to a symbolic link would break together with its target.
    let from = fs::canonicalize(from).map_err(|error| PrepareError::io(from, "find", error))?;
    if fs::hard_link(&from, to).is_ok() {
        return Ok(());
    }
    fs::copy(&from, to).map(drop).map_err(|error| PrepareError::io(to, "write", error))
}

fn store(stored: Stored<'_>, path: impl Fn(&str) -> PathBuf) -> Result<(), PrepareError> {
    match stored {
        Stored::File(file) => {
            let extension = file.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
            link(file, &path(&extension))
        }
        Stored::Bytes(bytes, extension) => write(&path(extension), bytes),
    }
}

fn write_color(
    dataset: &dyn Dataset,
    index: usize,
    size: Option<[usize; 2]>,
    path: &impl Fn(&str, &str) -> PathBuf,
) -> Result<(), PrepareError> {
    if size.is_none()
        && let Some(stored) = dataset.stored_color(index)?
    {
        return store(stored, |extension| path("color", extension));
    }
    let image = dataset.color(index)?;
    let image = match size {
        Some([width, height]) => resize_bicubic(&image, width, height)?,
        None => image,
    };
    let path = path("color", "jpg");
    let (width, height) = (image.width() as u32, image.height() as u32);
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .encode(image.pixels().as_flattened(), width, height, ExtendedColorType::Rgb8)
        .map_err(|source| PrepareError::Encode { path: path.clone(), source })?;
    write(&path, &bytes)
}

fn write_depth(dataset: &dyn Dataset, index: usize, path: &Path) -> Result<(), PrepareError> {
    if let Some(stored) = dataset.stored_depth(index)? {
        return store(stored, |_| path.to_path_buf());
    }
    let Some(map) = dataset.depth(index)? else { return Ok(()) };
    let per_meter = dataset.conventions().depth_units_per_meter.unwrap_or(1000.0);
    write(path, &encode_depth(&map, per_meter, path)?)
}

/// Encodes a depth map as 16-bit PNG.
fn encode_depth(map: &DepthImage, per_meter: f64, path: &Path) -> Result<Vec<u8>, PrepareError> {
    let unit = |&meters: &f32| (f64::from(meters) * per_meter).round().min(f64::from(u16::MAX)) as u16;
    let raw: Vec<u8> = map.meters().iter().flat_map(|meters| unit(meters).to_ne_bytes()).collect();
    let mut bytes = Vec::new();
    let (width, height) = (map.width() as u32, map.height() as u32);
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Sub)
        .write_image(&raw, width, height, ExtendedColorType::L16)
        .map_err(|source| PrepareError::Encode { path: path.to_path_buf(), source })?;
    Ok(bytes)
}
