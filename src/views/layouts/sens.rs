//! ScanNet's own file, `.sens`, version 4.
//!
//! Everything is little-endian. The header has the version, the sensor's name, intrinsics and extrinsics of
//! colour and of depth (4x4, row by row), compressions, sizes, and units per metre. The frames follow. Each
//! has a camera-to-world matrix in OpenCV axes (infinities if tracking was lost), two times, and the
//! compressed picture and depth map. Frames are read on demand from the mapped file.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::read::ZlibDecoder;

use super::scannet::is_identity;
use crate::files::MappedFile;
use crate::images::{Orientation, Rgb8Image, decode_image};
use crate::views::dataset::{Conventions, Counts};
use crate::views::depth::{check_budget, image_size, meters_from_units, num_pixels};
use crate::views::recording::check_size;
use crate::views::{Dataset, DepthImage, Frame, Intrinsics, Layout, Pose, PoseConvention, Stored, ViewsError, text};

const VERSION: u32 = 4;
const LONGEST_NAME: u64 = 1 << 16;
/// Length of a frame's header in bytes: matrix, two times and two lengths.
const FRAME_HEADER: usize = 64 + 4 * 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColorCoding {
    Raw,
    Png,
    Jpeg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DepthCoding {
    Raw,
    Zlib,
}

#[derive(Debug)]
struct Sens {
    root: PathBuf,
    path: PathBuf,
    bytes: MappedFile,
    color_coding: ColorCoding,
    depth_coding: DepthCoding,
    frames: Vec<Frame>,
    /// Byte ranges of each frame's colour picture and depth map.
    blobs: Vec<[Range<usize>; 2]>,
    conventions: Conventions,
    counts: Counts,
    notes: Vec<String>,
}

/// Returns the file if `path` is one, or a folder with exactly one.
pub(super) fn file(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        let files = text::files_if_any(path, &["sens"]);
        return match files.as_slice() {
            [file] => Some(file.clone()),
            _ => None,
        };
    }
    text::has_extension(path, &["sens"]).then(|| path.to_path_buf())
}

/// Reader of consecutive numbers.
struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ViewsError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(&array) = rest.first_chunk() else {
            return Err(ViewsError::truncated(self.path, self.at, what, N as u64, rest.len()));
        };
        self.at += N;
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32, ViewsError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, ViewsError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn matrix(&mut self, what: &str) -> Result<[f64; 16], ViewsError> {
        let mut matrix = [0.0; 16];
        for number in &mut matrix {
            *number = f64::from(f32::from_le_bytes(self.array(what)?));
        }
        Ok(matrix)
    }

    /// Skips a part of declared length, if the file has it.
    fn skip(&mut self, len: u64) -> Option<Range<usize>> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len))?;
        if end > self.bytes.len() {
            return None;
        }
        let start = std::mem::replace(&mut self.at, end);
        Some(start..end)
    }
}

pub(super) fn open(root: &Path, units_per_meter: Option<f64>) -> Result<impl Dataset + 'static, ViewsError> {
    let Some(path) = file(root).or_else(|| Some(root.to_path_buf()).filter(|path| path.is_file())) else {
        return Err(ViewsError::missing(root, Layout::Sens, "the file", "exactly one .sens file"));
    };
    let bytes = MappedFile::open(&path).map_err(|error| ViewsError::io(&path, "open", error))?;
    let mut reader = Reader { path: &path, bytes: &bytes, at: 0 };
    let version = reader.u32("the version")?;
    if version != VERSION {
        return Err(ViewsError::unsupported(&path, format!("version {version} of the format"), "version 4"));
    }
    let name_len = reader.u64("the sensor's name")?;
    if name_len > LONGEST_NAME || reader.skip(name_len).is_none() {
        return Err(ViewsError::value(&path, "the length of the sensor's name", name_len, "a few bytes"));
    }
    let [color_matrix, color_extrinsic, depth_matrix, depth_extrinsic] = [
        reader.matrix("the intrinsics of colour")?,
        reader.matrix("the extrinsics of colour")?,
        reader.matrix("the intrinsics of depth")?,
        reader.matrix("the extrinsics of depth")?,
    ];
    let color_coding = match reader.u32("the compression of colour")? {
        0 => ColorCoding::Raw,
        1 => ColorCoding::Png,
        2 => ColorCoding::Jpeg,
        other => {
            let found = format!("compression {} of colour", other as i32);
            return Err(ViewsError::unsupported(&path, found, "0 (raw), 1 (PNG) or 2 (JPEG)"));
        }
    };
    let depth_coding = match reader.u32("the compression of depth")? {
        0 => DepthCoding::Raw,
        1 => DepthCoding::Zlib,
        2 => {
            let found = "depth compressed with the codec of the Occipital library (2)";
            return Err(ViewsError::unsupported(&path, found, "0 (raw) or 1 (zlib), which ScanNet's files have"));
        }
        other => {
            let found = format!("compression {} of depth", other as i32);
            return Err(ViewsError::unsupported(&path, found, "0 (raw) or 1 (zlib)"));
        }
    };
    let mut size =
        || -> Result<[u64; 2], ViewsError> { Ok([reader.u32("a size")?.into(), reader.u32("a size")?.into()]) };
    let [color_size, depth_size] = [size()?, size()?];
    let shift = f64::from(f32::from_le_bytes(reader.array("the units per metre")?));
    let units_per_meter = units_per_meter.unwrap_or(shift);
    if !(units_per_meter.is_finite() && units_per_meter > 0.0) {
        return Err(ViewsError::value(&path, "the number of depth units in a metre", shift, "a positive number"));
    }
    let camera = |what: &str, [width, height]: [u64; 2], m: &[f64; 16]| {
        if num_pixels(width, height).is_none() {
            return Err(ViewsError::value(&path, what, format!("{width} x {height} pixels"), "a picture with pixels"));
        }
        Intrinsics::new(width as usize, height as usize, m[0], m[5], m[2], m[6])
            .map_err(|error| ViewsError::value(&path, what, error, "usable intrinsics"))
    };
    let color = camera("the colour camera", color_size, &color_matrix)?;
    // A size of 0 marks a recording without depth.
    let depth = if depth_size == [0, 0] { None } else { Some(camera("the depth camera", depth_size, &depth_matrix)?) };
    let declared = reader.u64("the number of frames")?;

    let mut notes = Vec::new();
    let (mut frames, mut blobs) = (Vec::new(), Vec::new());
    let (mut counts, mut reason) = (Counts::default(), None);
    // The declared number is not trusted: the loop also ends with the file.
    for i in 0..declared {
        if bytes.len() - reader.at < FRAME_HEADER {
            break;
        }
        let pose = Pose::from_rows(&reader.matrix("a pose")?, PoseConvention::OPENCV_CAMERA_TO_WORLD);
        let _times = [reader.u64("a time")?, reader.u64("a time")?];
        let lengths = [reader.u64("a length")?, reader.u64("a length")?];
        let Some((color_blob, depth_blob)) = reader.skip(lengths[0]).zip(reader.skip(lengths[1])) else { break };
        let depth = depth.filter(|_| !depth_blob.is_empty());
        match pose {
            Ok(_) => counts.posed += 1,
            Err(why) => {
                counts.invalid_poses += 1;
                reason = reason.or(Some(why));
            }
        }
        counts.with_depth += usize::from(depth.is_some());
        frames.push(Frame { name: i.to_string(), color, depth, pose: pose.ok(), depth_pose: None });
        blobs.push([color_blob, depth_blob]);
    }
    counts.frames = frames.len();
    counts.missing_color = usize::try_from(declared).unwrap_or(usize::MAX) - frames.len();
    if frames.is_empty() {
        let found = format!("the file declares {declared} frames, but not one is complete");
        return Err(ViewsError::NoFrames { path, layout: Layout::Sens, found });
    }
    if (frames.len() as u64) < declared {
        notes.push(format!("the file is cut off: {} of {declared} frames are complete", frames.len()));
    }
    if let Some(why) = reason {
        notes.push(format!("{} frames have an invalid pose; for the first, {why}", counts.invalid_poses));
    }
    if !(is_identity(&color_extrinsic) && is_identity(&depth_extrinsic)) {
        notes.push(
            "the extrinsics are not the identity but are ignored: both cameras are assumed to be at the same place"
                .into(),
        );
    }
    let conventions = Conventions {
        pose: Some(PoseConvention::OPENCV_CAMERA_TO_WORLD),
        mirrored: false,
        depth_units_per_meter: depth.map(|_| units_per_meter),
        metric: true,
    };
    // Free the memory of the pages touched so far, which would count as the process's own.
    bytes.release(0..bytes.len());
    let root = root.to_path_buf();
    Ok(Sens { root, path, bytes, color_coding, depth_coding, frames, blobs, conventions, counts, notes })
}

impl Sens {
    fn blob(&self, index: usize, which: usize) -> Result<(&Frame, &[u8]), ViewsError> {
        let unknown = ViewsError::UnknownFrame { index, count: self.frames.len() };
        let (frame, blobs) = self.frames.get(index).zip(self.blobs.get(index)).ok_or(unknown)?;
        Ok((frame, self.bytes.get(blobs[which].clone()).unwrap_or_default()))
    }
}

impl Dataset for Sens {
    fn layout(&self) -> Layout {
        Layout::Sens
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn frames(&self) -> &[Frame] {
        &self.frames
    }

    fn color(&self, index: usize) -> Result<Rgb8Image, ViewsError> {
        let (frame, bytes) = self.blob(index, 0)?;
        let Intrinsics { width, height, .. } = frame.color;
        if self.color_coding == ColorCoding::Raw {
            let needed = width * height * 3;
            if bytes.len() != needed {
                let what = format!("the length of picture {index}");
                return Err(ViewsError::value(&self.path, what, bytes.len(), format!("{needed} bytes")));
            }
            return Ok(Rgb8Image::new(width, height, bytes.as_chunks().0.to_vec())?);
        }
        check_size(&self.path, image_size(bytes, &self.path)?, &frame.color)?;
        Ok(decode_image(bytes, &self.path, Orientation::AsStored)?)
    }

    fn depth(&self, index: usize) -> Result<Option<DepthImage>, ViewsError> {
        let (frame, bytes) = self.blob(index, 1)?;
        let Some(Intrinsics { width, height, .. }) = frame.depth else { return Ok(None) };
        check_budget(bytes, [width, height], 2, &self.path)?;
        let mut raw = vec![0; width * height * 2];
        match self.depth_coding {
            DepthCoding::Raw => {
                if bytes.len() != raw.len() {
                    let what = format!("the length of depth map {index}");
                    return Err(ViewsError::value(&self.path, what, bytes.len(), format!("{} bytes", raw.len())));
                }
                raw.copy_from_slice(bytes);
            }
            DepthCoding::Zlib => ZlibDecoder::new(bytes)
                .read_exact(&mut raw)
                .map_err(|error| ViewsError::decode(&self.path, format!("depth map {index}"), error))?,
        }
        // The depth map of a frame is read last, so its pages can be freed afterwards.
        if let Some([color, depth]) = self.blobs.get(index) {
            self.bytes.release(color.start..depth.end);
        }
        let units = raw.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair));
        let scale = self.conventions.depth_units_per_meter.unwrap_or(1.0);
        DepthImage::new(width, height, meters_from_units(units, scale)).map(Some)
    }

    fn stored_color(&self, index: usize) -> Result<Option<Stored<'_>>, ViewsError> {
        let extension = match self.color_coding {
            ColorCoding::Raw => return Ok(None),
            ColorCoding::Png => "png",
            ColorCoding::Jpeg => "jpg",
        };
        let (frame, bytes) = self.blob(index, 0)?;
        check_size(&self.path, image_size(bytes, &self.path)?, &frame.color)?;
        Ok(Some(Stored::Bytes(bytes, extension)))
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
