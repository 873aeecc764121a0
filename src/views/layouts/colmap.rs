//! COLMAP, text and binary: cameras, images and points3D.
//!
//! Poses are world-to-camera in OpenCV axes. The corner, not the centre, of the first pixel is at (0, 0). The
//! scale of the world is arbitrary. Depth maps from dense stereo, if any, are floats in stereo/depth_maps.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use glam::DVec3;

use crate::cloud::PointCloud;
use crate::files::MappedFile;
use crate::views::calibration::Calibration;
use crate::views::camera::Distortion;
use crate::views::recording::{DepthFile, DepthFormat, Listed, Listing, Points, PoseState};
use crate::views::{Layout, Pose, PoseConvention, ViewsError, text};

const MODELS: &[&str] =
    &["sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "dense/0/sparse", "dense/sparse", "0", ""];
const IMAGES: &[&str] = &["images", "../images", "../../images", "../../../images", "rgb", "color", ""];

/// Names and numbers of parameters of the camera models, by their number in binary files.
const CAMERA_MODELS: [(&str, usize); 12] = [
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
    ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
];

/// A model in a folder.
pub(super) struct Model {
    folder: PathBuf,
    is_binary: bool,
}

impl Model {
    fn in_folder(folder: PathBuf) -> Option<Self> {
        let has = |extension: &str| {
            ["cameras", "images"].iter().all(|file| folder.join(format!("{file}.{extension}")).is_file())
        };
        let is_binary = has("bin");
        (is_binary || has("txt")).then_some(Self { folder, is_binary })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.{}", if self.is_binary { "bin" } else { "txt" }))
    }

    fn images(&self) -> Result<Vec<Image>, ViewsError> {
        match self.is_binary {
            true => binary_images(&self.file("images")),
            false => text_images(&self.file("images")),
        }
    }

    fn cameras(&self) -> Result<Cameras, ViewsError> {
        match self.is_binary {
            true => binary_cameras(&self.file("cameras")),
            false => text_cameras(&self.file("cameras")),
        }
    }
}

/// Returns the first model.
pub(super) fn model(root: &Path) -> Option<Model> {
    MODELS.iter().find_map(|name| Model::in_folder(root.join(name)))
}

/// Returns the model with the most pictures: COLMAP writes one for each part of a scene that it could not
/// join, in folders 0, 1, 2 and so on. Says so if there are several.
fn largest_model(root: &Path, notes: &mut Vec<String>) -> Result<Option<(Model, Vec<Image>)>, ViewsError> {
    let Some(first) = model(root) else { return Ok(None) };
    let is_numbered = |path: &Path| text::file_name(path).bytes().all(|byte| byte.is_ascii_digit());
    let mut others = match first.folder.parent() {
        Some(parent) if is_numbered(&first.folder) && first.folder != root => text::folders(parent),
        _ => Vec::new(),
    };
    others.retain(|path| is_numbered(path) && *path != first.folder);
    let mut best = (first.images()?, first);
    let mut sizes = vec![(best.1.folder.clone(), best.0.len())];
    for other in others.into_iter().filter_map(Model::in_folder) {
        let images = other.images()?;
        sizes.push((other.folder.clone(), images.len()));
        if images.len() > best.0.len() {
            best = (images, other);
        }
    }
    let (images, model) = best;
    if sizes.len() > 1 {
        let name = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
        let left: Vec<String> = sizes
            .iter()
            .filter(|(folder, _)| *folder != model.folder)
            .map(|(folder, count)| format!("{} with {count}", name(folder)))
            .collect();
        let (used, count, left) = (name(&model.folder), images.len(), left.join(", "));
        notes
            .push(format!("of several models the one with the most pictures is used: {used} with {count}, not {left}"));
    }
    Ok(Some((model, images)))
}

struct Image {
    name: String,
    camera: u32,
    pose: PoseState,
}

pub(super) fn list(root: &Path) -> Result<Listing, ViewsError> {
    let convention = PoseConvention::OPENCV_WORLD_TO_CAMERA;
    let mut listing = Listing::new(Layout::Colmap, root, Some(convention), None);
    listing.conventions.metric = false;
    let Some((model, mut images)) = largest_model(root, &mut listing.notes)? else {
        let expected = "cameras.bin and images.bin, or .txt, in sparse/0/, sparse/ or the folder itself";
        return Err(ViewsError::missing(root, Layout::Colmap, "the model", expected));
    };
    let cameras = model.cameras()?;
    let mut order: Vec<PathBuf> = images.iter().map(|image| image.name.clone().into()).collect();
    text::sort_naturally(&mut order);
    let rank: HashMap<PathBuf, usize> = order.into_iter().enumerate().map(|(i, name)| (name, i)).collect();
    images.sort_by_key(|image| rank.get(Path::new(&image.name)).copied());
    // The folder that has the first picture found in any of them.
    let folders = [root, model.folder.as_path()].into_iter().flat_map(|base| IMAGES.iter().map(|name| base.join(name)));
    let pictures =
        folders.into_iter().find(|folder| images.iter().any(|image| text::named_file(folder, &image.name).is_file()));
    let pictures = pictures.unwrap_or_else(|| root.join("images"));
    let maps = text::folder_of(root, &["stereo/depth_maps", "dense/0/stereo/depth_maps", "dense/stereo/depth_maps"]);
    for image in images {
        let Some(camera) = cameras.known.get(&image.camera) else {
            if let Some(number) = cameras.unknown_model {
                let found = format!("camera model number {number}");
                return Err(ViewsError::unsupported(&model.file("cameras"), found, "a number of COLMAP, 0 to 11"));
            }
            let found = format!("{} (of {})", image.camera, image.name);
            let expected = "a number listed in cameras";
            return Err(ViewsError::value(&model.file("images"), "a camera's number", found, expected));
        };
        let depth = maps.as_ref().and_then(|folder| {
            let named = |kind| text::named_file(folder, &format!("{}.{kind}.bin", image.name));
            let kinds = ["geometric", "photometric"].map(named);
            let path = kinds.into_iter().find(|path| path.is_file())?;
            Some(DepthFile { path, confidence: None, format: DepthFormat::Colmap })
        });
        listing.frames.push(Listed {
            depth,
            calibration: Some(camera.calibration()?),
            pose: image.pose,
            ..Listed::new(text::named_file(&pictures, &image.name))
        });
    }
    let path = model.file("points3D");
    if path.is_file() {
        listing.points = Some(Points { path, read: if model.is_binary { binary_points } else { text_points } });
    }
    if maps.is_none() {
        listing.notes.push("there are no depth maps, only pictures, poses and sparse points".into());
    }
    Ok(listing)
}

/// Cameras by their numbers.
#[derive(Default)]
struct Cameras {
    known: HashMap<u32, Camera>,
    /// Number of a camera model that is not known. The cameras after it cannot be read.
    unknown_model: Option<u32>,
}

/// A camera of the model, or the error for a model that is not a pinhole.
#[derive(Clone)]
enum Camera {
    Known(Calibration),
    Unsupported { path: PathBuf, model: String },
}

impl Camera {
    fn calibration(&self) -> Result<Calibration, ViewsError> {
        match self {
            Self::Known(calibration) => Ok(*calibration),
            Self::Unsupported { path, model } => {
                let known = "SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV: undistort the pictures first";
                Err(ViewsError::unsupported(path, format!("camera model {model}"), known))
            }
        }
    }

    fn new(path: &Path, model: &str, size: [f64; 2], p: &[f64]) -> Result<Self, ViewsError> {
        let zero = Distortion::default();
        let (pinhole, lens) = match (model, p) {
            ("SIMPLE_PINHOLE", &[f, cx, cy]) => ([f, f, cx, cy], zero),
            ("PINHOLE", &[fx, fy, cx, cy]) => ([fx, fy, cx, cy], zero),
            ("SIMPLE_RADIAL", &[f, cx, cy, k1]) => ([f, f, cx, cy], Distortion { k1, ..zero }),
            ("RADIAL", &[f, cx, cy, k1, k2]) => ([f, f, cx, cy], Distortion { k1, k2, ..zero }),
            ("OPENCV", &[fx, fy, cx, cy, k1, k2, p1, p2]) => ([fx, fy, cx, cy], Distortion { k1, k2, k3: 0.0, p1, p2 }),
            ("FULL_OPENCV", &[fx, fy, cx, cy, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0]) => {
                ([fx, fy, cx, cy], Distortion { k1, k2, k3, p1, p2 })
            }
            _ => {
                let model: String = model.chars().take(40).collect();
                let model = format!("{} with {} parameters", model.escape_default(), p.len());
                return Ok(Self::Unsupported { path: path.to_path_buf(), model });
            }
        };
        if !size.iter().all(|side| (1.0..1e6).contains(side)) {
            return Err(ViewsError::value(
                path,
                "a camera's size",
                format!("{} x {}", size[0], size[1]),
                "the size of a picture",
            ));
        }
        let calibration = Calibration::of(pinhole).with_corner_at_zero().sized(size[0] as usize, size[1] as usize);
        Ok(Self::Known(Calibration { distortion: Some(lens), ..calibration }))
    }
}

fn pose(q: [f64; 4], t: [f64; 3]) -> PoseState {
    let [w, x, y, z] = q;
    Pose::from_quaternion([x, y, z, w], DVec3::from_array(t), PoseConvention::OPENCV_WORLD_TO_CAMERA).into()
}

fn text_cameras(path: &Path) -> Result<Cameras, ViewsError> {
    let content = text::read(path)?;
    let mut cameras = Cameras::default();
    for (line_number, line) in text::lines(&content) {
        let mut words = line.split_whitespace();
        let id = words.next().and_then(|word| word.parse().ok());
        let (Some(id), Some(model)) = (id, words.next()) else {
            return Err(ViewsError::line(path, line_number, "too few words", "CAMERA_ID MODEL WIDTH HEIGHT PARAMS"));
        };
        let rest: Vec<&str> = words.collect();
        let numbers = text::numbers_of_line(path, line_number, &rest.join(" "))?;
        let [width, height, parameters @ ..] = numbers.as_slice() else {
            return Err(ViewsError::line(path, line_number, "too few numbers", "CAMERA_ID MODEL WIDTH HEIGHT PARAMS"));
        };
        cameras.known.insert(id, Camera::new(path, model, [*width, *height], parameters)?);
    }
    Ok(cameras)
}

/// Reads two lines for each picture. The second lists the points in it and may be empty.
fn text_images(path: &Path) -> Result<Vec<Image>, ViewsError> {
    let content = text::read(path)?;
    let mut lines = content.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    let mut images = Vec::new();
    while let Some((i, line)) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let mut rest = line.trim();
        let mut words = Vec::with_capacity(9);
        while words.len() < 9
            && let Some((word, after)) = rest.split_once(char::is_whitespace)
        {
            words.push(word);
            rest = after.trim_start();
        }
        let numbers: Option<Vec<f64>> = words.iter().map(|word| text::number(word)).collect();
        let parsed = numbers.as_deref().and_then(<[f64]>::first_chunk::<9>).filter(|_| !rest.is_empty());
        let Some(&[_, w, x, y, z, tx, ty, tz, camera]) = parsed else {
            let expected = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME";
            return Err(ViewsError::line(path, i + 1, "other content", expected));
        };
        images.push(Image { name: rest.to_owned(), camera: camera as u32, pose: pose([w, x, y, z], [tx, ty, tz]) });
        lines.next();
    }
    Ok(images)
}

fn text_points(path: &Path) -> Result<PointCloud, ViewsError> {
    let content = text::read(path)?;
    let (mut positions, mut colors) = (Vec::new(), Vec::new());
    for (line_number, line) in text::lines(&content) {
        let words: Vec<&str> = line.split_whitespace().take(7).collect();
        let numbers = text::numbers_of_line(path, line_number, &words.join(" "))?;
        let Some(&[_, x, y, z, red, green, blue]) = numbers.first_chunk() else {
            return Err(ViewsError::line(path, line_number, "too few numbers", "POINT3D_ID X Y Z R G B ERROR TRACK"));
        };
        positions.push([x, y, z]);
        colors.push([red, green, blue].map(|value| value as u8));
    }
    Ok(cloud(positions, colors))
}

fn cloud(positions: Vec<[f64; 3]>, colors: Vec<[u8; 3]>) -> PointCloud {
    let notes = vec!["the sparse points of COLMAP, in an arbitrary scale".into()];
    PointCloud { positions, colors: Some(colors), notes, ..PointCloud::default() }
}

/// Reader of consecutive little-endian numbers.
struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], ViewsError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken =
            rest.get(..len).ok_or_else(|| ViewsError::truncated(self.path, self.at, what, len as u64, rest.len()))?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ViewsError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32, ViewsError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, ViewsError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn f64s<const N: usize>(&mut self, what: &str) -> Result<[f64; N], ViewsError> {
        let mut numbers = [0.0; N];
        for number in &mut numbers {
            *number = f64::from_le_bytes(self.array(what)?);
        }
        Ok(numbers)
    }

    /// Reads a number of records of at least `size` bytes and checks that the rest of the file can hold them.
    fn count(&mut self, size: usize, what: &str) -> Result<usize, ViewsError> {
        let count = self.u64(what)?;
        let left = self.bytes.len() - self.at;
        let needed = count.saturating_mul(size as u64);
        if needed > left as u64 {
            return Err(ViewsError::truncated(self.path, self.at, format!("{count} {what}"), needed, left));
        }
        Ok(count as usize)
    }
}

fn with_reader<T>(path: &Path, read: impl FnOnce(&mut Reader<'_>) -> Result<T, ViewsError>) -> Result<T, ViewsError> {
    let bytes = MappedFile::open(path).map_err(|error| ViewsError::io(path, "open", error))?;
    read(&mut Reader { path, bytes: &bytes, at: 0 })
}

fn binary_cameras(path: &Path) -> Result<Cameras, ViewsError> {
    with_reader(path, |reader| {
        let mut cameras = Cameras::default();
        for _ in 0..reader.count(24, "cameras")? {
            let id = reader.u32("a camera")?;
            let model = reader.u32("a camera")?;
            let size = [reader.u64("a camera")?, reader.u64("a camera")?].map(|side| side as f64);
            let Some(&(name, count)) = CAMERA_MODELS.get(model as usize) else {
                // Its number of parameters is not known, so the next camera cannot be found.
                cameras.unknown_model = Some(model);
                break;
            };
            let mut parameters = Vec::with_capacity(count);
            for _ in 0..count {
                parameters.extend(reader.f64s::<1>("a camera")?);
            }
            cameras.known.insert(id, Camera::new(path, name, size, &parameters)?);
        }
        Ok(cameras)
    })
}

fn binary_images(path: &Path) -> Result<Vec<Image>, ViewsError> {
    with_reader(path, |reader| {
        let mut images = Vec::new();
        for _ in 0..reader.count(73, "images")? {
            reader.u32("an image")?;
            let pose = pose(reader.f64s("an image")?, reader.f64s("an image")?);
            let camera = reader.u32("an image")?;
            let rest = &reader.bytes[reader.at..];
            let Some(len) = rest.iter().position(|&byte| byte == 0) else {
                return Err(ViewsError::truncated(
                    path,
                    reader.at,
                    "the name of an image",
                    rest.len() as u64 + 1,
                    rest.len(),
                ));
            };
            let name = String::from_utf8_lossy(reader.take(len + 1, "a name")?).trim_end_matches('\0').to_owned();
            let points = reader.count(24, "points of an image")?;
            reader.take(points * 24, "points of an image")?;
            images.push(Image { name, camera, pose });
        }
        Ok(images)
    })
}

fn binary_points(path: &Path) -> Result<PointCloud, ViewsError> {
    with_reader(path, |reader| {
        let (mut positions, mut colors) = (Vec::new(), Vec::new());
        for _ in 0..reader.count(51, "points")? {
            reader.u64("a point")?;
            positions.push(reader.f64s("a point")?);
            colors.push(reader.array("a point")?);
            reader.f64s::<1>("a point")?;
            let track = reader.count(8, "a point's track")?;
            reader.take(track * 8, "a point's track")?;
        }
        Ok(cloud(positions, colors))
    })
}
