//! Record3D: an .r3d file, which is a zip archive, or its unpacked content.
//!
//! The JSON text `metadata` has poses (qx qy qz qw tx ty tz), camera-to-world in ARKit's axes, which are
//! OpenGL's, and intrinsics `K` column by column. rgbd/0.jpg is a picture. rgbd/0.depth is its depth map:
//! floats in metres, compressed with LZFSE. rgbd/0.conf is the confidence of each depth, 0 to 2.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use glam::DVec3;
use rawzip::{CompressionMethod, ZipArchive};
use serde::Deserialize;

use crate::files::{Budget, MappedFile};
use crate::images::{Orientation, Rgb8Image, decode_image};
use crate::views::calibration::Calibration;
use crate::views::camera::InvalidPose;
use crate::views::dataset::{Conventions, Counts};
use crate::views::depth::{image_size, num_pixels};
use crate::views::json_rows::{Numbers, Rows};
use crate::views::recording::{PoseState, check_size};
use crate::views::{Dataset, DepthImage, Frame, Intrinsics, Layout, Pose, PoseConvention, ViewsError, text};

const METADATA: [&str; 2] = ["metadata", "metadata.json"];
/// Largest unpacked size of the metadata, which have some 200 bytes for each frame.
const LONGEST_METADATA: u64 = 16 << 20;
/// Largest unpacked size of a picture or a map.
const LONGEST_MEMBER: u64 = 1 << 28;
/// Sizes of depth maps by sensor, used if the metadata lack them: LiDAR and the front camera.
const DEPTH_SIZES: [[usize; 2]; 2] = [[192, 256], [480, 640]];

/// A file in an archive.
#[derive(Clone, Debug)]
struct Member {
    data: Range<usize>,
    deflated: bool,
    crc: u32,
}

/// Files of a recording, packed or unpacked.
#[derive(Debug)]
enum Files {
    Archive { path: PathBuf, bytes: MappedFile, members: HashMap<String, Member> },
    Folder(PathBuf),
}

fn archive(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        let files = text::files_if_any(path, &["r3d"]);
        return match files.as_slice() {
            [file] => Some(file.clone()),
            _ => None,
        };
    }
    text::has_extension(path, &["r3d"]).then(|| path.to_path_buf())
}

fn unpacked(path: &Path) -> bool {
    path.join("rgbd").is_dir() && text::file_of(path, &METADATA).is_some()
}

pub(super) fn fits(path: &Path) -> bool {
    archive(path).is_some() || unpacked(path)
}

impl Files {
    fn open(root: &Path) -> Result<Self, ViewsError> {
        if unpacked(root) {
            return Ok(Self::Folder(root.to_path_buf()));
        }
        let Some(path) = archive(root).or_else(|| Some(root.to_path_buf()).filter(|path| path.is_file())) else {
            return Err(ViewsError::missing(root, Layout::Record3d, "the recording", Layout::Record3d.expects()));
        };
        let bytes = MappedFile::open(&path).map_err(|error| ViewsError::io(&path, "open", error))?;
        let failed = |error: rawzip::Error| ViewsError::decode(&path, "the zip archive", error);
        let mut members = HashMap::new();
        {
            let archive = ZipArchive::from_slice(&bytes[..]).map_err(failed)?;
            let mut entries = archive.entries();
            while let Some(entry) = entries.next_entry().map_err(failed)? {
                let deflated = match entry.compression_method() {
                    CompressionMethod::STORE => false,
                    CompressionMethod::DEFLATE => true,
                    _ => continue,
                };
                let Ok(name) = std::str::from_utf8(entry.file_path().as_bytes()) else { continue };
                let name = name.to_owned();
                let crc = entry.crc32();
                // A damaged entry only matters if it is needed.
                let Ok(local) = archive.get_entry(entry.wayfinder()) else { continue };
                let (start, end) = local.compressed_data_range();
                members.insert(name, Member { data: start as usize..end as usize, deflated, crc });
            }
        }
        Ok(Self::Archive { path, bytes, members })
    }

    /// Returns the file name for errors.
    fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Archive { path, .. } => path.join(name),
            Self::Folder(folder) => folder.join(name),
        }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Archive { members, .. } => members.contains_key(name),
            Self::Folder(folder) => folder.join(name).is_file(),
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ViewsError> {
        self.read_at_most(name, LONGEST_MEMBER)
    }

    /// Reads a file that has at most `longest` bytes.
    fn read_at_most(&self, name: &str, longest: u64) -> Result<Vec<u8>, ViewsError> {
        let path = self.path(name);
        match self {
            Self::Archive { bytes, members, .. } => {
                let Some(member) = members.get(name) else {
                    return Err(ViewsError::missing(&path, Layout::Record3d, "a file of the archive", name));
                };
                let data = bytes.get(member.data.clone()).unwrap_or_default();
                let unpacked = match member.deflated {
                    true => Budget::picture(data.len())
                        .at_most(longest)
                        .read_all(DeflateDecoder::new(data))
                        .map_err(|error| ViewsError::decode(&path, "the file in the archive", error))?,
                    false => whole(data, longest, &path)?.to_vec(),
                };
                let mut crc = flate2::Crc::new();
                crc.update(&unpacked);
                if crc.sum() != member.crc {
                    return Err(ViewsError::decode(&path, "the file in the archive", "its checksum is another"));
                }
                Ok(unpacked)
            }
            Self::Folder(_) => {
                let bytes = MappedFile::open(&path).map_err(|error| ViewsError::io(&path, "open", error))?;
                Ok(whole(&bytes, longest, &path)?.to_vec())
            }
        }
    }
}

/// Returns the bytes, if there are at most `longest`.
fn whole<'a>(bytes: &'a [u8], longest: u64, path: &Path) -> Result<&'a [u8], ViewsError> {
    match bytes.len() as u64 > longest {
        true => Err(ViewsError::value(path, "the length", bytes.len(), format!("at most {longest} bytes"))),
        false => Ok(bytes),
    }
}

/// What is used of the metadata. The rest is skipped and not stored.
#[derive(Debug, Deserialize)]
struct Metadata {
    poses: Option<Rows>,
    #[serde(rename = "K", default)]
    camera: Option<Numbers>,
    #[serde(rename = "perFrameIntrinsicCoeffs", default)]
    of_frames: Option<Rows>,
    w: Option<Numbers>,
    h: Option<Numbers>,
    dw: Option<Numbers>,
    dh: Option<Numbers>,
}

/// Returns width and height of a picture, if both are whole numbers of pixels.
fn size(width: Option<Numbers>, height: Option<Numbers>) -> Option<[usize; 2]> {
    let side = |side: Option<Numbers>| side?.number().filter(|x| (1.0..=1e6).contains(x)).map(|x| x.round() as usize);
    Some([side(width)?, side(height)?])
}

#[derive(Debug)]
struct Record3d {
    root: PathBuf,
    files: Files,
    /// Numbers of the frames in file names.
    numbers: Vec<usize>,
    frames: Vec<Frame>,
    conventions: Conventions,
    counts: Counts,
    notes: Vec<String>,
}

pub(super) fn open(root: &Path) -> Result<impl Dataset + 'static, ViewsError> {
    let files = Files::open(root)?;
    let Some(name) = METADATA.into_iter().find(|name| files.has(name)) else {
        return Err(ViewsError::missing(root, Layout::Record3d, "the list of poses", "a file named metadata"));
    };
    let path = files.path(name);
    let metadata: Metadata = serde_json::from_slice(&files.read_at_most(name, LONGEST_METADATA)?)
        .map_err(|error| ViewsError::decode(&path, "the JSON text", error))?;
    let Some(Rows(poses)) = &metadata.poses else {
        return Err(ViewsError::value(&path, "\"poses\"", "missing", "an array of seven numbers for each frame"));
    };
    let stated = size(metadata.w, metadata.h);
    let general = match metadata.camera.as_ref().and_then(Numbers::get) {
        Some(&[fx, _, _, _, fy, _, cx, cy, _]) => Some(Calibration::of([fx, fy, cx, cy])),
        _ => None,
    };
    let calibration = |i: usize| {
        let own = metadata.of_frames.as_ref().and_then(|Rows(all)| all.get(i)?.get());
        let own = own.and_then(|numbers| Some(Calibration::of(*numbers.first_chunk::<4>()?)));
        own.or(general).map(|calibration| Calibration { size: stated, ..calibration })
    };
    let picture = |i: usize| {
        ["jpg", "png"].map(|extension| format!("rgbd/{i}.{extension}")).into_iter().find(|name| files.has(name))
    };

    let mut counts = Counts::default();
    let (mut frames, mut numbers, mut reason) = (Vec::new(), Vec::new(), None);
    let mut sizes: Option<([usize; 2], Option<[usize; 2]>)> = None;
    for (i, pose) in poses.iter().enumerate() {
        let Some(name) = picture(i) else {
            counts.missing_color += 1;
            continue;
        };
        let depth_name = format!("rgbd/{i}.depth");
        let has_depth = files.has(&depth_name);
        #[cfg(not(feature = "record3d"))]
        if has_depth {
            return Err(without_lzfse(&files.path(&depth_name)));
        }
        let (color_size, depth_size) = match sizes {
            Some(sizes) => sizes,
            None => {
                let color = image_size(&files.read(&name)?, &files.path(&name))?;
                *sizes.insert((color, size(metadata.dw, metadata.dh)))
            }
        };
        let Some(camera) = calibration(i) else {
            return Err(ViewsError::value(&path, "\"K\"", "missing", "nine numbers, column by column"));
        };
        let color = camera.fitted(camera.size.unwrap_or(color_size), color_size, &path)?;
        let depth = match (has_depth, depth_size) {
            (false, _) => None,
            (true, Some(size)) if num_pixels(size[0] as u64, size[1] as u64).is_some() => Some(size),
            (true, _) => Some(guessed_depth_size(&files, i, color_size)?),
        };
        let depth = depth.map(|size| camera.fitted(camera.size.unwrap_or(color_size), size, &path)).transpose()?;
        let convention = PoseConvention::OPENGL_CAMERA_TO_WORLD;
        let pose: PoseState = match pose.get() {
            Some(&[qx, qy, qz, qw, x, y, z]) => {
                Pose::from_quaternion([qx, qy, qz, qw], DVec3::new(x, y, z), convention).into()
            }
            _ => PoseState::Invalid(InvalidPose::Count { found: pose.count(), expected: "7" }),
        };
        match pose {
            PoseState::Valid(_) => counts.posed += 1,
            PoseState::Invalid(why) => {
                counts.invalid_poses += 1;
                reason = reason.or(Some(why));
            }
            PoseState::Missing => {}
        }
        counts.with_depth += usize::from(depth.is_some());
        numbers.push(i);
        frames.push(Frame { name: i.to_string(), color, depth, pose: pose.valid(), depth_pose: None });
    }
    counts.frames = frames.len();
    if frames.is_empty() {
        let found = format!("none of {} poses has a picture", poses.len());
        return Err(ViewsError::NoFrames { path: root.to_path_buf(), layout: Layout::Record3d, found });
    }
    let mut notes = Vec::new();
    if let Some(why) = reason {
        notes.push(format!("{} frames have an invalid pose; for the first, {why}", counts.invalid_poses));
    }
    if counts.with_depth > 0 && files.has(&format!("rgbd/{}.conf", numbers[0])) {
        notes.push("depth of confidence 0 is left out".into());
    }
    if counts.with_depth == 0 {
        notes.push("there are no depth maps (rgbd/N.depth)".into());
    }
    let conventions = Conventions {
        pose: Some(PoseConvention::OPENGL_CAMERA_TO_WORLD),
        mirrored: false,
        depth_units_per_meter: None,
        metric: true,
    };
    Ok(Record3d { root: root.to_path_buf(), files, numbers, frames, conventions, counts, notes })
}

/// Guesses the size of a depth map from its number of values.
fn guessed_depth_size(files: &Files, number: usize, color: [usize; 2]) -> Result<[usize; 2], ViewsError> {
    let name = format!("rgbd/{number}.depth");
    let largest = DEPTH_SIZES.map(|[a, b]| a * b).into_iter().max().unwrap_or_default();
    let values = unpack(&files.read(&name)?, largest * 4, &files.path(&name))?.len() / 4;
    let found = DEPTH_SIZES.into_iter().find(|[a, b]| a * b == values);
    let Some([short, long]) = found else {
        let expected = "dw and dh in the metadata, or a map of 192 x 256 or 480 x 640";
        return Err(ViewsError::value(&files.path(&name), "the depth map", format!("{values} values"), expected));
    };
    Ok(if color[0] < color[1] { [short, long] } else { [long, short] })
}

/// Unpacks LZFSE data, up to `limit` bytes.
#[cfg(feature = "record3d")]
fn unpack(bytes: &[u8], limit: usize, path: &Path) -> Result<Vec<u8>, ViewsError> {
    let mut decoder = lzfse_rust::LzfseRingDecoder::default();
    Budget::picture(bytes.len())
        .at_most(limit as u64)
        .read_all(decoder.reader_bytes(bytes))
        .map_err(|error| ViewsError::decode(path, "the LZFSE data", error))
}

#[cfg(not(feature = "record3d"))]
fn unpack(_: &[u8], _: usize, path: &Path) -> Result<Vec<u8>, ViewsError> {
    Err(without_lzfse(path))
}

/// The error of a build that has no decoder of LZFSE.
#[cfg(not(feature = "record3d"))]
fn without_lzfse(path: &Path) -> ViewsError {
    let expected = "a build with the Cargo feature `record3d`";
    ViewsError::unsupported(path, "a depth map of Record3D", expected)
}

impl Record3d {
    fn frame(&self, index: usize) -> Result<(&Frame, usize), ViewsError> {
        let unknown = ViewsError::UnknownFrame { index, count: self.frames.len() };
        self.frames.get(index).zip(self.numbers.get(index).copied()).ok_or(unknown)
    }

    /// Reads a map with `bytes` bytes per pixel.
    fn map(&self, name: &str, camera: &Intrinsics, bytes: usize) -> Result<Vec<u8>, ViewsError> {
        let (path, needed) = (self.files.path(name), camera.width * camera.height * bytes);
        let values = unpack(&self.files.read(name)?, needed, &path)?;
        if values.len() != needed {
            let found = format!("{} bytes", values.len());
            return Err(ViewsError::value(&path, "the unpacked map", found, format!("{needed} bytes")));
        }
        Ok(values)
    }
}

impl Dataset for Record3d {
    fn layout(&self) -> Layout {
        Layout::Record3d
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn frames(&self) -> &[Frame] {
        &self.frames
    }

    fn color(&self, index: usize) -> Result<Rgb8Image, ViewsError> {
        let (frame, number) = self.frame(index)?;
        let jpg = format!("rgbd/{number}.jpg");
        let name = if self.files.has(&jpg) { jpg } else { format!("rgbd/{number}.png") };
        let path = self.files.path(&name);
        let bytes = self.files.read(&name)?;
        check_size(&path, image_size(&bytes, &path)?, &frame.color)?;
        Ok(decode_image(&bytes, &path, Orientation::AsStored)?)
    }

    fn depth(&self, index: usize) -> Result<Option<DepthImage>, ViewsError> {
        let (frame, number) = self.frame(index)?;
        let Some(camera) = &frame.depth else { return Ok(None) };
        let raw = self.map(&format!("rgbd/{number}.depth"), camera, 4)?;
        let meters = raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let mut map = DepthImage::new(camera.width, camera.height, meters)?;
        let confidence = format!("rgbd/{number}.conf");
        if self.files.has(&confidence) {
            let confidence = self.map(&confidence, camera, 1)?;
            map.retain(|i| confidence[i] > 0);
        }
        Ok(Some(map))
    }

    fn conventions(&self) -> &Conventions {
        &self.conventions
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

#[cfg(all(test, not(feature = "record3d")))]
mod tests {
    use super::*;

    #[test]
    fn depth_maps_need_the_feature() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("rgbd")).unwrap();
        std::fs::write(folder.path().join("metadata"), r#"{"poses": [[0, 0, 0, 1, 0, 0, 0]]}"#).unwrap();
        for name in ["0.jpg", "0.depth"] {
            std::fs::write(folder.path().join("rgbd").join(name), b"").unwrap();
        }
        let Err(error) = open(folder.path()) else { panic!("LZFSE was decoded") };
        assert!(matches!(error, ViewsError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("0.depth") && error.to_string().contains("`record3d`"), "{error}");
    }
}
