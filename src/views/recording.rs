//! Recordings whose frames are files: turns the listing of a layout into a [`Dataset`].

use std::path::{Path, PathBuf};

use super::calibration::Calibration;
use super::camera::{Distortion, InvalidPose};
use super::dataset::{Conventions, Counts};
use super::depth::{self, DepthImage, DepthScale};
use super::{Dataset, Frame, Intrinsics, Layout, Pose, PoseConvention, Stored, ViewsError};
use crate::cloud::{CloudError, PointCloud};
use crate::files::MappedFile;
use crate::images::{Orientation, Rgb8Image, decode_image};

/// Number of pictures whose size is tried before a recording counts as damaged.
const SIZE_TRIES: usize = 8;

/// State of a pose in a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum PoseState {
    #[default]
    Missing,
    Invalid(InvalidPose),
    Valid(Pose),
}

impl From<Result<Pose, InvalidPose>> for PoseState {
    fn from(read: Result<Pose, InvalidPose>) -> Self {
        read.map_or_else(Self::Invalid, Self::Valid)
    }
}

impl PoseState {
    pub(super) fn valid(self) -> Option<Pose> {
        match self {
            Self::Valid(pose) => Some(pose),
            _ => None,
        }
    }
}

/// The files of a depth map.
#[derive(Clone, Debug)]
pub(super) struct DepthFile {
    pub path: PathBuf,
    /// Picture of the same size that is 0 where the depth is not reliable.
    pub confidence: Option<PathBuf>,
    pub format: DepthFormat,
}

/// Format of a stored depth map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DepthFormat {
    /// Any format that its content tells: 16-bit PNG or PGM, NumPy, TIFF, OpenEXR.
    Integer,
    /// 16-bit PNG with bits rotated to the left by three: SUN RGB-D.
    RotatedBits,
    /// A line `width&height&channels&`, then 32-bit floats: COLMAP.
    Colmap,
}

impl DepthFile {
    pub(super) fn integer(path: PathBuf) -> Self {
        Self { path, confidence: None, format: DepthFormat::Integer }
    }

    fn size(&self) -> Result<[usize; 2], ViewsError> {
        match self.format {
            DepthFormat::Integer | DepthFormat::RotatedBits => depth::file_image_size(&self.path),
            DepthFormat::Colmap => {
                let bytes = map(&self.path)?;
                let (width, height, _) = colmap_header(&bytes, &self.path)?;
                Ok([width, height])
            }
        }
    }

    fn read(&self, scale: DepthScale) -> Result<DepthImage, ViewsError> {
        let bytes = map(&self.path)?;
        match self.format {
            DepthFormat::Integer => depth::decode_depth(&bytes, &self.path, scale),
            DepthFormat::RotatedBits => depth::decode_rotated_depth(&bytes, &self.path, scale),
            DepthFormat::Colmap => {
                let (width, height, values) = colmap_header(&bytes, &self.path)?;
                let floats = values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                DepthImage::new(width, height, floats.collect())
            }
        }
    }
}

/// Returns width, height and values of a depth map of COLMAP.
fn colmap_header<'a>(bytes: &'a [u8], path: &Path) -> Result<(usize, usize, &'a [u8]), ViewsError> {
    let mut parts = bytes.splitn(4, |&byte| byte == b'&');
    let mut number = || {
        let digits = parts.next().filter(|digits| digits.len() <= 10)?;
        std::str::from_utf8(digits).ok()?.trim().parse::<u64>().ok()
    };
    let header = (number(), number(), number());
    let (Some(width), Some(height), Some(1)) = header else {
        return Err(ViewsError::unsupported(path, "a file of this content", "a depth map of COLMAP: width&height&1&"));
    };
    let data = parts.next().unwrap_or_default();
    let Some(needed) = depth::num_pixels(width, height).map(|pixels| pixels * 4) else {
        return Err(ViewsError::value(
            path,
            "the declared size",
            format!("{width} x {height}"),
            "a depth map with pixels",
        ));
    };
    let Some(values) = data.get(..needed) else {
        return Err(ViewsError::truncated(path, bytes.len() - data.len(), "the depth map", needed as u64, data.len()));
    };
    Ok((width as usize, height as usize, values))
}

fn map(path: &Path) -> Result<MappedFile, ViewsError> {
    MappedFile::open(path).map_err(|error| ViewsError::io(path, "open", error))
}

/// A frame as a layout lists it.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub name: String,
    pub color: PathBuf,
    pub depth: Option<DepthFile>,
    /// Calibration of the colour camera; `None` to guess it from the size of the picture.
    pub calibration: Option<Calibration>,
    /// Calibration of the depth camera; `None` if it is that of the colour camera.
    pub depth_calibration: Option<Calibration>,
    pub pose: PoseState,
    pub depth_pose: Option<Pose>,
}

impl Listed {
    /// Creates a frame with only a picture.
    pub(super) fn new(color: PathBuf) -> Self {
        Self {
            name: super::text::stem(&color),
            color,
            depth: None,
            calibration: None,
            depth_calibration: None,
            pose: PoseState::Missing,
            depth_pose: None,
        }
    }
}

/// Everything that a layout lists for a recording.
#[derive(Debug)]
pub(super) struct Listing {
    pub layout: Layout,
    pub root: PathBuf,
    pub frames: Vec<Listed>,
    pub conventions: Conventions,
    pub notes: Vec<String>,
    pub points: Option<Points>,
    /// Scale of depth maps with floats; 1 for metres.
    pub floats_per_meter: f64,
    /// Number of frames that the layout left out because their picture is missing.
    pub missing_color: usize,
    /// Number of depth maps that the layout left out because they are missing.
    pub missing_depth: usize,
}

impl Listing {
    /// Creates a listing without frames.
    pub(super) fn new(layout: Layout, root: &Path, pose: Option<PoseConvention>, units_per_meter: Option<f64>) -> Self {
        Self {
            layout,
            root: root.to_path_buf(),
            frames: Vec::new(),
            conventions: Conventions { pose, mirrored: false, depth_units_per_meter: units_per_meter, metric: true },
            notes: Vec::new(),
            points: None,
            floats_per_meter: 1.0,
            missing_color: 0,
            missing_depth: 0,
        }
    }
}

/// Function that reads the points that come with a recording.
type Read = fn(&Path) -> Result<PointCloud, ViewsError>;

/// Points that come with a recording.
#[derive(Clone, Debug)]
pub(super) struct Points {
    pub path: PathBuf,
    pub read: Read,
}

impl Points {
    /// Points in a scan file of any format that [`PointCloud::read`] knows.
    pub(super) fn scan(path: PathBuf) -> Self {
        Self { path, read: |path| PointCloud::read(path).map_err(|error: CloudError| error.into()) }
    }
}

/// A recording whose frames are files.
#[derive(Debug)]
pub(super) struct Recording {
    layout: Layout,
    root: PathBuf,
    frames: Vec<Frame>,
    sources: Vec<Source>,
    conventions: Conventions,
    counts: Counts,
    notes: Vec<String>,
    points: Option<Points>,
    floats_per_meter: f64,
}

#[derive(Debug)]
struct Source {
    color: PathBuf,
    depth: Option<DepthFile>,
    distortion: Option<Distortion>,
}

impl Recording {
    /// Leaves out frames without a picture, finds the sizes of pictures and depth maps, and fits the
    /// intrinsics to them.
    pub(super) fn new(listing: Listing) -> Result<Self, ViewsError> {
        let Listing { layout, root, frames: mut listed, mut conventions, mut notes, points, .. } = listing;
        let (missing_color, missing_depth) = (listing.missing_color, listing.missing_depth);
        let floats_per_meter = listing.floats_per_meter;
        let mut counts = Counts { missing_color, missing_depth, ..Counts::default() };
        let (mut absent, mut absent_depth) = (Vec::new(), Vec::new());
        listed.retain(|frame| {
            let exists = frame.color.is_file();
            if !exists {
                absent.push(frame.color.clone());
            }
            exists
        });
        counts.missing_color += absent.len();
        for frame in &mut listed {
            if let Some(depth) = frame.depth.take_if(|depth| !depth.path.is_file()) {
                absent_depth.push(depth.path);
            }
        }
        if listed.is_empty() {
            let found = match (counts.missing_color, absent.first()) {
                (0, _) => "none is listed".to_owned(),
                (count, None) => format!("{count} are listed, but their pictures are missing"),
                (count, Some(path)) => {
                    format!("{count} are listed, but their pictures are missing, the first: {}", path.display())
                }
            };
            return Err(ViewsError::NoFrames { path: root, layout, found });
        }
        counts.missing_depth += absent_depth.len();
        for (what, paths) in [("pictures", absent), ("depth maps", absent_depth)] {
            if let Some(path) = paths.first() {
                notes.push(format!("{} {what} are listed but missing, the first: {}", paths.len(), path.display()));
            }
        }
        let (first, color_size) =
            first_size(listed.iter().enumerate().map(|(i, frame)| (i, depth::file_image_size(&frame.color))))?;
        let with_depth = listed.iter().enumerate().filter_map(|(i, frame)| Some((i, frame.depth.as_ref()?)));
        let depth_size = match with_depth.clone().next() {
            Some(_) => Some(first_size(with_depth.map(|(i, depth)| (i, depth.size())))?.1),
            None => None,
        };
        // Pictures may be smaller than their intrinsics say, but all by the same factor.
        let calibration = |i: usize| listed[i].calibration.unwrap_or_else(|| Calibration::guess(color_size));
        let declared = calibration(first).size_or(color_size);
        let mut frames = Vec::with_capacity(listed.len());
        let mut sources = Vec::with_capacity(listed.len());
        let mut reasons: Vec<InvalidPose> = Vec::new();
        let mirrored = listed.iter().any(|frame| frame.calibration.is_some_and(|camera| camera.fy < 0.0));
        let handed = |pose: Pose| if mirrored { pose.mirrored() } else { pose };
        for (i, frame) in listed.iter().enumerate() {
            let camera = calibration(i);
            let own = camera.size_or(color_size);
            let scaled = |axis: usize, to: [usize; 2]| {
                ((own[axis] as f64 * to[axis] as f64 / declared[axis] as f64).round() as usize).max(1)
            };
            let color = camera.fitted(own, [scaled(0, color_size), scaled(1, color_size)], &frame.color)?;
            let depth = match (&frame.depth, depth_size) {
                (Some(file), Some(size)) => Some(match frame.depth_calibration {
                    Some(camera) => camera.fitted(camera.size_or(size), size, &file.path)?,
                    None => camera.fitted(own, [scaled(0, size), scaled(1, size)], &file.path)?,
                }),
                _ => None,
            };
            match frame.pose {
                PoseState::Valid(_) => counts.posed += 1,
                PoseState::Invalid(reason) => {
                    counts.invalid_poses += 1;
                    reasons.push(reason);
                }
                PoseState::Missing => {}
            }
            counts.with_depth += usize::from(depth.is_some());
            let pose = frame.pose.valid().map(handed);
            let depth_pose = frame.depth_pose.map(handed);
            frames.push(Frame { name: frame.name.clone(), color, depth, pose, depth_pose });
            let distortion = camera.distortion.filter(Distortion::is_finite).and_then(Distortion::unless_zero);
            sources.push(Source { color: frame.color.clone(), depth: frame.depth.clone(), distortion });
        }
        counts.frames = frames.len();
        conventions.mirrored = mirrored;
        if depth_size.is_none() {
            conventions.depth_units_per_meter = None;
        }
        if counts.posed + counts.invalid_poses == 0 {
            conventions.pose = None;
        }
        if declared != color_size {
            let [[w, h], [to_w, to_h]] = [declared, color_size];
            notes.push(format!("the intrinsics are for pictures of {w} x {h} and were scaled to {to_w} x {to_h}"));
        }
        if let Some(size) = depth_size
            && depth_size != Some(color_size)
        {
            let [[w, h], [color_w, color_h]] = [size, color_size];
            notes.push(format!("depth maps are {w} x {h}, pictures {color_w} x {color_h}"));
        }
        if listed.iter().any(|frame| frame.calibration.is_none()) {
            notes.push("no intrinsics were found: a field of view of 60 degrees is assumed".into());
        }
        if sources.iter().any(|source| source.distortion.is_some()) {
            notes.push("the lens distortion is removed when pictures and depth maps are read".into());
        }
        if mirrored {
            notes.push(
                "the vertical focal length is negative, so the recording's world is left-handed: y is negated".into(),
            );
        }
        if let Some(reason) = reasons.first() {
            notes.push(format!("{} frames have an invalid pose; for the first, {reason}", reasons.len()));
        }
        Ok(Self { layout, root, frames, sources, conventions, counts, notes, points, floats_per_meter })
    }

    fn source(&self, index: usize) -> Result<(&Frame, &Source), ViewsError> {
        let unknown = ViewsError::UnknownFrame { index, count: self.frames.len() };
        self.frames.get(index).zip(self.sources.get(index)).ok_or(unknown)
    }
}

/// Returns the first size that can be read among the first few, with its index. Returns the first error if
/// none can.
fn first_size(
    sizes: impl Iterator<Item = (usize, Result<[usize; 2], ViewsError>)>,
) -> Result<(usize, [usize; 2]), ViewsError> {
    let mut first_error = None;
    for (i, size) in sizes.take(SIZE_TRIES) {
        match size {
            Ok(size) => return Ok((i, size)),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or(ViewsError::UnknownFrame { index: 0, count: 0 }))
}

/// Returns an error if a picture's size differs from that of its intrinsics.
pub(super) fn check_size(path: &Path, found: [usize; 2], camera: &Intrinsics) -> Result<(), ViewsError> {
    let expected = [camera.width, camera.height];
    if found == expected {
        return Ok(());
    }
    Err(ViewsError::Size { path: path.to_path_buf(), found, expected, reason: "the recording's other frames" })
}

impl Dataset for Recording {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn frames(&self) -> &[Frame] {
        &self.frames
    }

    fn color(&self, index: usize) -> Result<Rgb8Image, ViewsError> {
        let (frame, source) = self.source(index)?;
        // The size is compared first: a picture of another size is not worth decoding.
        let bytes = map(&source.color)?;
        check_size(&source.color, depth::image_size(&bytes, &source.color)?, &frame.color)?;
        let image = decode_image(&bytes, &source.color, Orientation::AsStored)?;
        Ok(match &source.distortion {
            Some(lens) => depth::undistorted_color(&image, &frame.color, lens),
            None => image,
        })
    }

    fn depth(&self, index: usize) -> Result<Option<DepthImage>, ViewsError> {
        let (frame, source) = self.source(index)?;
        let (Some(camera), Some(file)) = (&frame.depth, &source.depth) else { return Ok(None) };
        let units_per_meter = self.conventions.depth_units_per_meter.unwrap_or(1.0);
        let mut map = file.read(DepthScale { units_per_meter, floats_per_meter: self.floats_per_meter })?;
        check_size(&file.path, [map.width(), map.height()], camera)?;
        if let Some(path) = &file.confidence {
            let bytes = self::map(path)?;
            let (width, height, values) = depth::decode_grey8(&bytes, path)?;
            check_size(path, [width, height], camera)?;
            map.retain(|i| values[i] > 0);
        }
        Ok(Some(match &source.distortion {
            Some(lens) => map.undistorted(camera, lens),
            None => map,
        }))
    }

    fn stored_color(&self, index: usize) -> Result<Option<Stored<'_>>, ViewsError> {
        let (frame, source) = self.source(index)?;
        check_size(&source.color, depth::file_image_size(&source.color)?, &frame.color)?;
        Ok(source.distortion.is_none().then_some(Stored::File(&source.color)))
    }

    fn stored_depth(&self, index: usize) -> Result<Option<Stored<'_>>, ViewsError> {
        let (frame, source) = self.source(index)?;
        let (Some(camera), Some(file)) = (&frame.depth, &source.depth) else { return Ok(None) };
        check_size(&file.path, file.size()?, camera)?;
        let is_plain = file.confidence.is_none()
            && file.format == DepthFormat::Integer
            && super::text::has_extension(&file.path, &["png"])
            && source.distortion.is_none();
        Ok(is_plain.then_some(Stored::File(&file.path)))
    }

    fn points(&self) -> Result<Option<PointCloud>, ViewsError> {
        self.points.as_ref().map(|points| (points.read)(&points.path)).transpose()
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
