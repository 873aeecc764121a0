//! Record3D: an .r3d file, which is a zip archive, or what it unpacks to.
//!
//! The JSON text `metadata` has poses (qx qy qz qw tx ty tz), camera-to-world in ARKit's axes, which are OpenGL's, and
//! intrinsics `K` column by column. rgbd/0.jpg is a picture, rgbd/0.depth its depth map, floats in metres compressed
//! with LZFSE, and rgbd/0.conf how certain each depth is, 0 to 2.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use glam::DVec3;
use lzfse_rust::LzfseRingDecoder;
use rawzip::{CompressionMethod, ZipArchive};

use crate::files::MappedFile;
use crate::images::{Orientation, Rgb8Image, decode_image};
use crate::views::calibration::Calibration;
use crate::views::camera::InvalidPose;
use crate::views::dataset::{Conventions, Counts};
use crate::views::depth::{image_size, num_pixels};
use crate::views::recording::{PoseState, check_size};
use crate::views::text::{json_numbers, json_size};
use crate::views::{Dataset, DepthImage, Frame, Intrinsics, Layout, Pose, PoseConvention, ViewsError, text};

const METADATA: [&str; 2] = ["metadata", "metadata.json"];
/// Longest member that is unpacked where its size is not known beforehand: a picture, or the list of poses.
const LONGEST_MEMBER: u64 = 1 << 28;
/// Sizes of depth maps by sensor, where the metadata do not say: LiDAR and the front camera.
const DEPTH_SIZES: [[usize; 2]; 2] = [[192, 256], [480, 640]];

/// A file in an archive.
#[derive(Clone, Debug)]
struct Member {
    data: Range<usize>,
    deflated: bool,
    crc: u32,
}

/// The files of a recording, packed or unpacked.
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
                // A damaged entry is missed only if it is asked for.
                let Ok(local) = archive.get_entry(entry.wayfinder()) else { continue };
                let (start, end) = local.compressed_data_range();
                members.insert(name, Member { data: start as usize..end as usize, deflated, crc });
            }
        }
        Ok(Self::Archive { path, bytes, members })
    }

    /// The file that errors name.
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
        let path = self.path(name);
        match self {
            Self::Archive { bytes, members, .. } => {
                let Some(member) = members.get(name) else {
                    return Err(ViewsError::missing(&path, Layout::Record3d, "a file of the archive", name));
                };
                let data = bytes.get(member.data.clone()).unwrap_or_default();
                let unpacked = match member.deflated {
                    true => read_limited(DeflateDecoder::new(data), LONGEST_MEMBER)
                        .map_err(|error| ViewsError::decode(&path, "the file in the archive", error))?,
                    false => data.to_vec(),
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
                Ok(bytes.to_vec())
            }
        }
    }
}

/// All that a decoder gives, unless it is more than `limit` bytes.
fn read_limited(decoder: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    decoder.take(limit + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > limit {
        return Err(std::io::Error::other(format!("more than {limit} bytes come out")));
    }
    Ok(unpacked)
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
    let metadata: serde_json::Value = serde_json::from_slice(&files.read(name)?)
        .map_err(|error| ViewsError::decode(&path, "the JSON text", error))?;
    let poses = metadata.get("poses").and_then(|poses| poses.as_array());
    let Some(poses) = poses else {
        return Err(ViewsError::value(&path, "\"poses\"", "missing", "an array of seven numbers for each frame"));
    };
    let size = json_size(&metadata, &["w"], &["h"]);
    let general = match metadata.get("K").and_then(json_numbers).as_deref() {
        Some(&[fx, _, _, _, fy, _, cx, cy, _]) => Some(Calibration::of([fx, fy, cx, cy])),
        _ => None,
    };
    let own = metadata.get("perFrameIntrinsicCoeffs").and_then(|all| all.as_array());
    let calibration = |i: usize| {
        let own = own.and_then(|all| json_numbers(all.get(i)?));
        let own = own.and_then(|numbers| Some(Calibration::of(*numbers.first_chunk::<4>()?)));
        own.or(general).map(|calibration| Calibration { size, ..calibration })
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
        let has_depth = files.has(&format!("rgbd/{i}.depth"));
        let (color_size, depth_size) = match sizes {
            Some(sizes) => sizes,
            None => {
                let color = image_size(&files.read(&name)?, &files.path(&name))?;
                *sizes.insert((color, json_size(&metadata, &["dw"], &["dh"])))
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
        let pose: PoseState = match json_numbers(pose).as_deref() {
            Some(&[qx, qy, qz, qw, x, y, z]) => {
                Pose::from_quaternion([qx, qy, qz, qw], DVec3::new(x, y, z), convention).into()
            }
            other => PoseState::Invalid(InvalidPose::Count { found: other.map_or(0, <[f64]>::len), expected: "7" }),
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
        let found = format!("of {} poses none has a picture", poses.len());
        return Err(ViewsError::NoFrames { path: root.to_path_buf(), layout: Layout::Record3d, found });
    }
    let mut notes = Vec::new();
    if let Some(why) = reason {
        notes.push(format!("{} frames have an invalid pose; of the first, {why}", counts.invalid_poses));
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

/// The size of a depth map of which only the number of values is known.
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

/// LZFSE to at most `limit` bytes.
fn unpack(bytes: &[u8], limit: usize, path: &Path) -> Result<Vec<u8>, ViewsError> {
    let mut decoder = LzfseRingDecoder::default();
    read_limited(decoder.reader_bytes(bytes), limit as u64)
        .map_err(|error| ViewsError::decode(path, "the LZFSE data", error))
}

impl Record3d {
    fn frame(&self, index: usize) -> Result<(&Frame, usize), ViewsError> {
        let unknown = ViewsError::UnknownFrame { index, count: self.frames.len() };
        self.frames.get(index).zip(self.numbers.get(index).copied()).ok_or(unknown)
    }

    /// A map with `bytes` bytes for each pixel.
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
        let image = decode_image(&self.files.read(&name)?, &path, Orientation::AsStored)?;
        check_size(&path, [image.width(), image.height()], &frame.color)?;
        Ok(image)
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
