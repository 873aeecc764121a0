//! Rooms on disk, in ScanNet's layout.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;

use super::record::View;
use super::{AssetsInfo, Made, RECIPE, RoomInfo, Settings, Split, SynthError};
use crate::cloud::{Field, PointCloud};
use crate::files::AtomicFolder;
use crate::labels::Preset;
use crate::labels::nyu40::SCANNET20;
use crate::views::Intrinsics;

/// JPEG quality of the colour pictures, as in ScanNet's recordings.
pub(super) const JPEG_QUALITY: u8 = 90;
/// Step between the numbers of two frames.
const FRAME_STEP: usize = 20;
const INFO: &str = "synth.json";
/// Colour of classes that the benchmark does not count.
const UNCOUNTED: [u8; 3] = [128, 128, 128];

/// Returns the room in `folder` if one with the same settings is there.
pub(super) fn present(
    folder: &Path,
    split: Split,
    number: usize,
    settings: &Settings,
    assets: Option<AssetsInfo>,
) -> Result<Option<RoomInfo>, SynthError> {
    let path = folder.join(INFO);
    let differs = |found: String| SynthError::Differs { path: folder.to_path_buf(), found };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return if folder.exists() { Err(differs(format!("there is no {INFO}"))) } else { Ok(None) };
        }
        Err(error) => return Err(SynthError::io(&path, "read", error)),
    };
    let info: RoomInfo = serde_json::from_str(&text).map_err(|error| differs(format!("{INFO}: {error}")))?;
    let same = info.recipe == RECIPE && info.settings == *settings && info.split == split && info.number == number;
    if same && info.assets != assets {
        let found = match info.assets {
            None => "no models of assets".to_owned(),
            Some(AssetsInfo { models, share, .. }) => format!("a share of {share} of other models, {models} in all"),
        };
        return Err(differs(found));
    }
    if !same {
        let found = format!("recipe {}, {:?}, {} {}", info.recipe, info.settings, info.split, info.number);
        return Err(differs(found));
    }
    Ok(Some(info))
}

/// Writes a room as `folder`, which appears only when it is complete.
pub(super) fn write(folder: &Path, made: &Made) -> Result<(), SynthError> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(|error| SynthError::io(parent, "create", error))?;
    }
    let partial = AtomicFolder::create(folder).map_err(|error| SynthError::io(folder, "create", error))?;
    let root = partial.path();
    for name in ["color", "depth", "pose", "intrinsic", "label", "instance"] {
        let path = root.join(name);
        fs::create_dir(&path).map_err(|error| SynthError::io(&path, "create", error))?;
    }
    let text = |name: &str, text: String| {
        let path = root.join(name);
        fs::write(&path, text).map_err(|error| SynthError::io(&path, "write", error))
    };
    let Intrinsics { fx, fy, cx, cy, .. } = made.lens;
    let matrix = format!("{fx} 0 {cx} 0\n0 {fy} {cy} 0\n0 0 1 0\n0 0 0 1\n");
    let identity = "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n";
    for kind in ["color", "depth"] {
        text(&format!("intrinsic/intrinsic_{kind}.txt"), matrix.clone())?;
        text(&format!("intrinsic/extrinsic_{kind}.txt"), identity.to_owned())?;
    }
    for (i, pose) in made.poses.iter().enumerate() {
        let rows = pose.rows().map(|row| row.map(|x| x.to_string()).join(" "));
        text(&format!("pose/{}.txt", i * FRAME_STEP), format!("{}\n0 0 0 1\n", rows.join("\n")))?;
    }
    let size = [made.lens.width, made.lens.height].map(|pixels| pixels as u32);
    made.views
        .par_iter()
        .enumerate()
        .try_for_each(|(i, view)| write_view(root, i * FRAME_STEP, view, size, made.quality))?;
    write_scan(root, &super::room_name(made.info.number), made)?;
    let info = serde_json::to_string_pretty(&made.info)
        .map_err(|error| SynthError::io(&root.join(INFO), "write", std::io::Error::other(error)))?;
    text(INFO, info + "\n")?;
    partial.commit().map_err(|error| SynthError::io(folder, "create", error))
}

fn write_view(
    root: &Path,
    number: usize,
    view: &View,
    [width, height]: [u32; 2],
    quality: u8,
) -> Result<(), SynthError> {
    let save = |name: String, encode: &dyn Fn(&mut Vec<u8>) -> image::ImageResult<()>| {
        let path = root.join(name);
        let mut bytes = Vec::new();
        encode(&mut bytes).map_err(|source| SynthError::Encode { path: path.clone(), source })?;
        fs::write(&path, bytes).map_err(|error| SynthError::io(&path, "write", error))
    };
    let wide = |values: &[u16]| values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<u8>>();
    save(format!("color/{number}.jpg"), &|bytes| {
        let pixels = view.color.as_flattened();
        JpegEncoder::new_with_quality(bytes, quality).encode(pixels, width, height, ExtendedColorType::Rgb8)
    })?;
    save(format!("depth/{number}.png"), &|bytes| {
        PngEncoder::new(bytes).write_image(&wide(&view.depth), width, height, ExtendedColorType::L16)
    })?;
    save(format!("label/{number}.png"), &|bytes| {
        PngEncoder::new(bytes).write_image(&view.label, width, height, ExtendedColorType::L8)
    })?;
    save(format!("instance/{number}.png"), &|bytes| {
        PngEncoder::new(bytes).write_image(&wide(&view.instance), width, height, ExtendedColorType::L16)
    })
}

fn write_scan(root: &Path, name: &str, made: &Made) -> Result<(), SynthError> {
    let points = &made.points;
    let mut cloud = PointCloud {
        positions: points.iter().map(|point| super::scan::exact(point.position)).collect(),
        colors: Some(points.iter().map(|point| point.color).collect()),
        normals: Some(points.iter().map(|point| point.normal.to_array()).collect()),
        ..PointCloud::default()
    };
    cloud.write_ply(&root.join(format!("{name}_vh_clean_2.ply")), &[])?;
    let palette = Preset::SCANNET20.colors.unwrap_or(&[]);
    let color = |class: u8| {
        let place = SCANNET20.iter().position(|counted| *counted == class);
        place.and_then(|place| palette.get(place)).copied().unwrap_or(UNCOUNTED)
    };
    cloud.normals = None;
    cloud.colors = Some(points.iter().map(|point| color(point.class)).collect());
    let fields = [
        Field::new("label", points.iter().map(|point| u16::from(point.class)).collect::<Vec<u16>>()),
        Field::new("instance", points.iter().map(|point| point.instance).collect::<Vec<u16>>()),
    ];
    cloud.write_ply(&root.join(format!("{name}_vh_clean_2.labels.ply")), &fields)?;
    Ok(())
}
