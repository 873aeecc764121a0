//! Rooms of `geopurify synth`, as pictures with a class for each pixel. The pictures are recorded views, and
//! views of the scan as they are drawn for scans without pictures.

use std::path::{Path, PathBuf};

use burn::prelude::*;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;

use super::PretrainError;
use crate::files::AtomicFolder;
use crate::images::resize::{fitted, resize_bicubic};
use crate::images::{ImageError, Orientation, Rgb8Image, read_image, write_png};
use crate::labels::read_labels;
use crate::pipeline::Scene;
use crate::random::SplitMix64;
use crate::session::part_in;
use crate::views::decode_grey8;
use crate::views::render::{Renderer, pinhole};
use crate::views::virtual_cameras::{Options, virtual_cameras};

/// Background colour of scan views: the mean colour of pictures, as when a scan is labelled.
pub const NOTHING: [u8; 3] = [124, 116, 104];

/// Stream of random numbers for the order of the rooms.
const ORDER: u64 = u64::MAX;

/// A picture with its labels, on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledView {
    /// File of the colours.
    pub colors: PathBuf,
    /// File of the labels, an 8-bit picture of NYU40's numbers; 0 for unknown.
    pub labels: PathBuf,
}

/// A picture with its labels, in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// Colours.
    pub image: Rgb8Image,
    /// NYU40's number of each pixel, row by row; 0 for unknown.
    pub labels: Vec<u8>,
}

impl LabelledView {
    /// Reads the picture and its labels.
    ///
    /// # Errors
    /// [`PretrainError`] if a file cannot be read, or if the sizes differ.
    pub fn read(&self) -> Result<Labelled, PretrainError> {
        let image = read_image(&self.colors, Orientation::AsStored)?;
        let (width, height, labels) = self.decode_labels()?;
        if [width, height] != [image.width(), image.height()] {
            let [w, h] = [image.width(), image.height()];
            let message = format!("labels of {width} x {height} pixels for a picture of {w} x {h}");
            return Err(PretrainError::Rooms { path: self.labels.clone(), message });
        }
        Ok(Labelled { image, labels })
    }

    /// Reads only the labels: NYU40's number of each pixel, row by row.
    ///
    /// # Errors
    /// [`PretrainError`] if the file cannot be read.
    pub fn read_labels(&self) -> Result<Vec<u8>, PretrainError> {
        Ok(self.decode_labels()?.2)
    }

    fn decode_labels(&self) -> Result<(usize, usize, Vec<u8>), PretrainError> {
        let bytes = std::fs::read(&self.labels).map_err(|error| io(&self.labels, error))?;
        Ok(decode_grey8(&bytes, &self.labels)?)
    }
}

impl Labelled {
    /// Scales the picture so that its longer edge is `longest`, as models see pictures; 0 keeps the size.
    /// Each pixel takes the label of the nearest one.
    ///
    /// # Errors
    /// [`ImageError::Size`] for a size with too many pixels.
    pub fn fitted(self, longest: usize) -> Result<Self, ImageError> {
        let [old_height, old_width] = [self.image.height(), self.image.width()];
        let [height, width] = fitted([old_height, old_width], longest);
        let nearest = |i: usize, old: usize, new: usize| (2 * i + 1) * old / (2 * new);
        let label = |i: usize| {
            let (row, column) = (nearest(i / width, old_height, height), nearest(i % width, old_width, width));
            self.labels[row * old_width + column]
        };
        let labels = (0..height * width).map(label).collect();
        Ok(Self { image: resize_bicubic(&self.image, width, height)?, labels })
    }
}

/// Returns the folders of the rooms in the part `split` of `root`, sorted by name.
///
/// # Errors
/// [`PretrainError::Io`], [`PretrainError::NoPart`], and [`PretrainError::Rooms`] if there is no room in it.
pub fn find_rooms(root: &Path, split: &str) -> Result<Vec<PathBuf>, PretrainError> {
    let split = part_in(root, split).map_err(|error| PretrainError::NoPart(Box::new(error)))?;
    let mut rooms = Vec::new();
    for entry in std::fs::read_dir(&split).map_err(|error| io(&split, error))? {
        let path = entry.map_err(|error| io(&split, error))?.path();
        if path.join("label").is_dir() {
            rooms.push(path);
        }
    }
    rooms.sort();
    if rooms.is_empty() {
        let message = "no room with a folder \"label\"; expected a folder of rooms from `geopurify synth`".to_owned();
        return Err(PretrainError::Rooms { path: split, message });
    }
    Ok(rooms)
}

/// Returns which of `num_rooms` rooms a run of `seed` sees at place `at`. Every room comes once before any comes again.
#[must_use]
pub fn room_at(num_rooms: usize, seed: u64, at: u64) -> usize {
    let (round, at) = (at / num_rooms.max(1) as u64, (at % num_rooms.max(1) as u64) as usize);
    let order = SplitMix64::stream(seed, &[ORDER, round]).permutation(num_rooms);
    order.get(at).copied().unwrap_or_default()
}

/// Returns the recorded views of a room that have labels, sorted by number.
///
/// # Errors
/// [`PretrainError::Io`], and [`PretrainError::Rooms`] if there is no such view.
pub fn recorded_views(room: &Path) -> Result<Vec<LabelledView>, PretrainError> {
    let folder = room.join("color");
    let mut views = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|error| io(&folder, error))? {
        let colors = entry.map_err(|error| io(&folder, error))?.path();
        let stem = colors.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let labels = room.join("label").join(format!("{stem}.png"));
        if let Ok(number) = stem.parse::<u64>()
            && labels.is_file()
        {
            views.push((number, LabelledView { colors, labels }));
        }
    }
    if views.is_empty() {
        return Err(PretrainError::Rooms { path: folder, message: "no picture has labels".to_owned() });
    }
    views.sort_by_key(|(number, _)| *number);
    Ok(views.into_iter().map(|(_, view)| view).collect())
}

/// Number and size of the views of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanViews {
    /// Largest number of views of a room.
    pub most: usize,
    /// Width and height in pixels.
    pub size: [usize; 2],
}

/// Returns views of a room's scan. The cameras are those of scans without pictures. The views are drawn once,
/// into a folder of `cache` named after the room and the settings. The folder appears only when it is
/// complete.
///
/// # Errors
/// [`PretrainError`] if the scan or its labels cannot be read or drawn, or if the folder cannot be written.
pub fn scan_views(
    room: &Path,
    cache: &Path,
    asked: ScanViews,
    device: &Device,
) -> Result<Vec<LabelledView>, PretrainError> {
    let name = room.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let [width, height] = asked.size;
    let folder = cache.join(format!("{name}-{}-{width}x{height}", asked.most));
    if !folder.is_dir() {
        std::fs::create_dir_all(cache).map_err(|error| io(cache, error))?;
        let partial = AtomicFolder::create(&folder).map_err(|error| io(&folder, error))?;
        draw(room, &name, partial.path(), asked, device)?;
        partial.commit().map_err(|error| io(&folder, error))?;
    }
    let view = |i: usize| LabelledView {
        colors: folder.join(format!("{i}.png")),
        labels: folder.join(format!("{i}.label.png")),
    };
    Ok((0..asked.most).map(view).take_while(|view| view.labels.is_file()).collect())
}

fn draw(room: &Path, name: &str, to: &Path, asked: ScanViews, device: &Device) -> Result<(), PretrainError> {
    let scene = Scene::read(&room.join(format!("{name}_vh_clean_2.ply")))?;
    let labels_path = room.join(format!("{name}_vh_clean_2.labels.ply"));
    let rooms = |message: String| PretrainError::Rooms { path: labels_path.clone(), message };
    let labels = read_labels(&labels_path, "label").map_err(|error| rooms(error.to_string()))?;
    if labels.len() != scene.num_points() || scene.kept().is_some() {
        return Err(rooms(format!("{} labels for a scan of {} points", labels.len(), scene.num_points())));
    }
    let [width, height] = asked.size;
    let options = Options { max_views: asked.most, width, height, ..Options::default() };
    let cameras = virtual_cameras(&scene.to_cameras(), &options);
    let appearance = scene.appearance(cameras.up);
    let renderer = Renderer::new(&appearance.of(&scene), device)?;
    cameras.cameras.par_iter().enumerate().try_for_each(|(i, camera)| {
        let pinhole = pinhole(&camera.intrinsics, &camera.pose, scene.origin(), camera.near);
        let picture = renderer.picture(&pinhole, NOTHING)?;
        let label = |&point: &i32| {
            let label = usize::try_from(point).ok().and_then(|point| labels.get(point));
            label.and_then(|&label| u8::try_from(label).ok()).unwrap_or(0)
        };
        let of_pixel: Vec<u8> = picture.index.iter().map(label).collect();
        write_png(&to.join(format!("{i}.png")), &Rgb8Image::new(width, height, picture.colors)?)?;
        let path = to.join(format!("{i}.label.png"));
        let mut bytes = Vec::new();
        let size = [width, height].map(|pixels| u32::try_from(pixels).unwrap_or(u32::MAX));
        PngEncoder::new(&mut bytes)
            .write_image(&of_pixel, size[0], size[1], ExtendedColorType::L8)
            .map_err(|error| PretrainError::Rooms { path: path.clone(), message: error.to_string() })?;
        std::fs::write(&path, bytes).map_err(|error| io(&path, error))
    })
}

fn io(path: &Path, source: std::io::Error) -> PretrainError {
    PretrainError::Io { path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_room_comes_once_before_any_comes_again() {
        for round in 0..3 {
            let mut seen: Vec<usize> = (0..5).map(|at| room_at(5, 7, 5 * round + at)).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4]);
        }
        assert_ne!(
            (0..5).map(|at| room_at(5, 7, at)).collect::<Vec<_>>(),
            (5..10).map(|at| room_at(5, 7, at)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn labels_follow_their_pixels() {
        let pixels = (0..12 * 8).map(|i| if i % 12 < 6 { [0; 3] } else { [200; 3] }).collect();
        let labels: Vec<u8> = (0..12 * 8).map(|i| if i % 12 < 6 { 1 } else { 2 }).collect();
        let labelled = Labelled { image: Rgb8Image::new(12, 8, pixels).unwrap(), labels };
        assert_eq!(labelled.clone().fitted(0).unwrap(), labelled);
        for longest in [6, 24] {
            let fitted = labelled.clone().fitted(longest).unwrap();
            let width = fitted.image.width();
            assert_eq!([width, fitted.image.height()], [longest, longest * 2 / 3]);
            let expected: Vec<u8> =
                (0..fitted.labels.len()).map(|i| if i % width < width / 2 { 1 } else { 2 }).collect();
            assert_eq!(fitted.labels, expected);
            assert_eq!((fitted.image.pixels()[0][0], fitted.image.pixels()[width - 1][0]), (0, 200));
        }
    }
}
