//! Fusion of depth maps with poses into one point cloud.
//!
//! Every depth becomes a point. Its colour is that of the picture, and its normal follows from the depths
//! around it. Points in the same voxel are averaged. Unreliable depths are left out: next to a jump or a gap,
//! where sensors mix near and far, and on surfaces seen at a grazing angle.

use std::collections::HashMap;
use std::fmt;

use glam::DVec3;
use rayon::prelude::*;

use super::{Dataset, DepthImage, Intrinsics, Pose, ViewsError};
use crate::cloud::{PointCloud, Unit};
use crate::counted::counted;
use crate::images::Rgb8Image;

/// Number of tables that the voxels are spread over, so that they can be filled in parallel.
const SHARDS: usize = 64;
/// Noise of depth sensors as a share of the depth, in addition to the slope of a surface.
const NOISE: f64 = 0.01;
/// Focal length in pixels per pixel of distance between the depths that a normal is computed from.
const FOCAL_PER_STEP: f64 = 150.0;

/// Options of the fusion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FuseOptions {
    /// Edge of a voxel in metres.
    pub voxel: f64,
    /// Smallest depth used, in metres.
    pub min_depth: f64,
    /// Largest depth used, in metres.
    pub max_depth: f64,
    /// Largest angle between the line of sight and the normal, in degrees below 90.
    pub max_incidence: f64,
    /// Largest number of voxels. Each takes about 100 bytes during fusion.
    pub max_voxels: usize,
}

impl Default for FuseOptions {
    fn default() -> Self {
        Self { voxel: 0.02, min_depth: 0.1, max_depth: 10.0, max_incidence: 75.0, max_voxels: 50_000_000 }
    }
}

impl FuseOptions {
    fn check(&self) -> Result<(), ViewsError> {
        let refuse = |what, found: String, expected| Err(ViewsError::Argument { what, found, expected });
        if !(self.voxel.is_finite() && self.voxel > 0.0) {
            return refuse("the voxel", self.voxel.to_string(), "a positive length in metres");
        }
        if !(self.min_depth >= 0.0 && self.max_depth > self.min_depth) {
            let found = format!("{} to {}", self.min_depth, self.max_depth);
            return refuse("the range of depth", found, "from 0 or more to something larger");
        }
        if !(self.max_incidence > 0.0 && self.max_incidence < 90.0) {
            return refuse(
                "the largest angle of incidence",
                self.max_incidence.to_string(),
                "degrees between 0 and 90",
            );
        }
        Ok(())
    }
}

/// The fused cloud and its report.
#[derive(Clone, Debug)]
pub struct Fused {
    /// Points in the axes of the poses, sorted by voxel, with colours and with normals of length one that
    /// face the cameras.
    pub cloud: PointCloud,
    /// Numbers of frames and pixels used and left out.
    pub report: FuseReport,
}

/// Numbers of frames and pixels used and left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FuseReport {
    /// Frames fused.
    pub frames: usize,
    /// Frames left out because they have no valid pose.
    pub without_pose: usize,
    /// Frames left out because they have no depth map.
    pub without_depth: usize,
    /// Frames left out because their picture or depth map cannot be read.
    pub unreadable: usize,
    /// Error of the first unreadable frame.
    pub first_error: Option<String>,
    /// Pixels of all depth maps fused.
    pub pixels: u64,
    /// Pixels without depth among them.
    pub no_depth: u64,
    /// Depths that are too small or too large, or too far away for voxel indices.
    pub out_of_range: u64,
    /// Depths next to a jump, a gap or the edge.
    pub edges: u64,
    /// Depths of surfaces seen at a grazing angle.
    pub grazing: u64,
    /// Depths outside the view of the colour camera.
    pub without_color: u64,
    /// Depths fused.
    pub fused: u64,
    /// Points of the cloud.
    pub points: usize,
}

impl fmt::Display for FuseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (points, frames) = (counted(self.points, "point"), counted(self.frames, "frame"));
        write!(f, "{points} from {frames}, {} of {} pixels", self.fused, self.pixels)?;
        let counts = [
            (self.no_depth, "pixels without depth"),
            (self.out_of_range, "out of range"),
            (self.edges, "at edges"),
            (self.grazing, "grazing"),
            (self.without_color, "outside the picture"),
            (self.without_pose as u64, "frames without a valid pose"),
            (self.without_depth as u64, "frames without depth"),
            (self.unreadable as u64, "frames unreadable"),
        ];
        counts.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, ", {count} {what}"))
    }
}

type Key = [i32; 3];

/// Sums over the points of a voxel.
#[derive(Clone, Copy, Debug, Default)]
struct Voxel {
    position: DVec3,
    normal: DVec3,
    color: [u64; 3],
    count: u32,
}

impl Voxel {
    fn add(&mut self, other: &Self) {
        self.position += other.position;
        self.normal += other.normal;
        self.color.iter_mut().zip(other.color).for_each(|(sum, x)| *sum += x);
        self.count = self.count.saturating_add(other.count);
    }
}

/// Result of one frame.
#[derive(Default)]
struct Part {
    report: FuseReport,
    /// Its voxels by shard, each sorted.
    shards: Vec<Vec<(Key, Voxel)>>,
}

/// Fuses the given frames. The result does not depend on the number of threads.
///
/// Frames without depth or valid pose and unreadable frames are left out and counted. A single frame without
/// a pose is fused in its own camera axes.
///
/// # Errors
/// [`ViewsError::Argument`] for invalid options, [`ViewsError::UnknownFrame`], [`ViewsError::TooManyVoxels`],
/// and [`ViewsError::NothingToFuse`] if no frame can be used. If no frame can be read, the first read error.
pub fn fuse(dataset: &dyn Dataset, frames: &[usize], options: &FuseOptions) -> Result<Fused, ViewsError> {
    options.check()?;
    if let Some(&index) = frames.iter().find(|&&index| index >= dataset.len()) {
        return Err(ViewsError::UnknownFrame { index, count: dataset.len() });
    }
    let mut report = FuseReport::default();
    let mut usable: Vec<(usize, Pose)> = Vec::with_capacity(frames.len());
    for &index in frames {
        let frame = &dataset.frames()[index];
        let alone = if frames.len() == 1 { Some(Pose::IDENTITY) } else { None };
        match frame.pose_of_depth().or(alone) {
            _ if !frame.has_depth() => report.without_depth += 1,
            None => report.without_pose += 1,
            Some(pose) => usable.push((index, pose)),
        }
    }
    let mut shards: Vec<HashMap<Key, Voxel>> = (0..SHARDS).map(|_| HashMap::new()).collect();
    let mut first_error = None;
    for batch in usable.chunks(rayon::current_num_threads().max(1) * 2) {
        let parts: Vec<_> = batch.par_iter().map(|&(index, pose)| fuse_frame(dataset, index, &pose, options)).collect();
        let mut read = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Ok(part) => {
                    report.add(&part.report);
                    read.push(part);
                }
                Err(error) => {
                    report.unreadable += 1;
                    report.first_error.get_or_insert_with(|| error.to_string());
                    first_error.get_or_insert(error);
                }
            }
        }
        // In the order of frames, so that rounding is always the same.
        shards.par_iter_mut().enumerate().for_each(|(i, shard)| {
            for (key, voxel) in read.iter().filter_map(|part| part.shards.get(i)).flatten() {
                shard.entry(*key).or_default().add(voxel);
            }
        });
        if shards.iter().map(HashMap::len).sum::<usize>() > options.max_voxels {
            return Err(ViewsError::TooManyVoxels { limit: options.max_voxels, voxel: options.voxel });
        }
    }
    if let (0, Some(error)) = (report.frames, first_error) {
        return Err(error);
    }
    if report.frames == 0 {
        let (pose, depth) = (report.without_pose, report.without_depth);
        let found = format!("{pose} without a valid pose, {depth} without depth");
        return Err(ViewsError::NothingToFuse { frames: frames.len(), found });
    }
    let mut voxels: Vec<(Key, Voxel)> = shards.into_par_iter().flat_map_iter(|shard| shard.into_iter()).collect();
    voxels.par_sort_unstable_by_key(|(key, _)| *key);
    let mut cloud = cloud(&voxels, options.voxel);
    report.points = cloud.len();
    cloud.unit = dataset.conventions().metric.then_some(Unit::Metre);
    cloud.notes.push(format!("fused from depth maps: {report}"));
    if let Some(error) = &report.first_error {
        cloud.notes.push(format!("the first frame that could not be read: {error}"));
    }
    Ok(Fused { cloud, report })
}

impl FuseReport {
    fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.pixels += other.pixels;
        self.no_depth += other.no_depth;
        self.out_of_range += other.out_of_range;
        self.edges += other.edges;
        self.grazing += other.grazing;
        self.without_color += other.without_color;
        self.fused += other.fused;
    }
}

fn cloud(voxels: &[(Key, Voxel)], edge: f64) -> PointCloud {
    let mut cloud = PointCloud::default();
    let (mut colors, mut normals) = (Vec::with_capacity(voxels.len()), Vec::with_capacity(voxels.len()));
    cloud.positions.reserve_exact(voxels.len());
    for (key, voxel) in voxels {
        // Normals of both sides of a thin object can cancel out. Then no normal is better than another.
        let Some(normal) = voxel.normal.try_normalize() else { continue };
        let count = f64::from(voxel.count);
        let position = (corner(*key) + voxel.position / count) * edge;
        cloud.positions.push(position.to_array());
        normals.push(normal.as_vec3().to_array());
        colors.push(voxel.color.map(|sum| (sum as f64 / count).round() as u8));
    }
    cloud.colors = Some(colors);
    cloud.normals = Some(normals);
    cloud
}

fn corner(key: Key) -> DVec3 {
    DVec3::from_array(key.map(f64::from))
}

fn shard_of(key: Key) -> usize {
    let mixed =
        key.iter().fold(0_u64, |hash, &part| (hash ^ u64::from(part as u32)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (mixed >> 32) as usize % SHARDS
}

fn fuse_frame(dataset: &dyn Dataset, index: usize, pose: &Pose, options: &FuseOptions) -> Result<Part, ViewsError> {
    let frame = &dataset.frames()[index];
    let (Some(map), Some(camera)) = (dataset.depth(index)?, frame.depth) else {
        return Ok(Part { report: FuseReport { without_depth: 1, ..FuseReport::default() }, shards: Vec::new() });
    };
    let image = dataset.color(index)?;
    let colors = Colors {
        image: &image,
        camera: &frame.color,
        moved: frame.pose.filter(|color| color != pose).zip(Some(*pose)),
    };
    let mut report = FuseReport { frames: 1, pixels: map.meters().len() as u64, ..FuseReport::default() };
    let mut points: Vec<(Key, Voxel)> = Vec::new();
    let surface = Surface::new(&map, &camera, options);
    for y in 0..map.height() {
        for x in 0..map.width() {
            let Some(depth) = map.at(x, y).map(f64::from) else {
                report.no_depth += 1;
                continue;
            };
            if !(options.min_depth..=options.max_depth).contains(&depth) {
                report.out_of_range += 1;
                continue;
            }
            let Some(normal) = surface.normal(x, y, depth) else {
                report.edges += 1;
                continue;
            };
            let point = camera.unproject(x as f64, y as f64, depth);
            if -normal.dot(point) < surface.min_cosine * point.length() {
                report.grazing += 1;
                continue;
            }
            let Some(color) = colors.of(point) else {
                report.without_color += 1;
                continue;
            };
            let position = pose.to_world(point) / options.voxel;
            let cell = position.floor();
            let countable = cell.abs().max_element() < f64::from(i32::MAX);
            if !countable {
                report.out_of_range += 1;
                continue;
            }
            report.fused += 1;
            let key = cell.to_array().map(|x| x as i32);
            let voxel = Voxel {
                position: position - cell,
                normal: pose.rotation() * normal,
                color: color.map(u64::from),
                count: 1,
            };
            points.push((key, voxel));
        }
    }
    // Sorted by index within a voxel, so that points are added in the order of pixels.
    let mut order: Vec<(Key, u32)> = points.iter().zip(0..).map(|((key, _), i)| (*key, i)).collect();
    order.sort_unstable();
    let mut shards = vec![Vec::new(); SHARDS];
    for voxel in order.chunk_by(|a, b| a.0 == b.0) {
        let mut sum = Voxel::default();
        voxel.iter().for_each(|&(_, i)| sum.add(&points[i as usize].1));
        let key = voxel[0].0;
        shards[shard_of(key)].push((key, sum));
    }
    Ok(Part { report, shards })
}

/// Lookup of the picture's colour for points in the axes of the depth camera.
struct Colors<'a> {
    image: &'a Rgb8Image,
    camera: &'a Intrinsics,
    /// Poses of the camera for the picture and for the depth map, if they differ.
    moved: Option<(Pose, Pose)>,
}

impl Colors<'_> {
    fn of(&self, point: DVec3) -> Option<[u8; 3]> {
        let point = match &self.moved {
            Some((color, depth)) => color.to_camera(depth.to_world(point)),
            None => point,
        };
        let [x, y] = self.camera.pixel(point)?;
        self.image.pixels().get(y * self.image.width() + x).copied()
    }
}

/// A depth map as a surface with normals.
struct Surface<'a> {
    map: &'a DepthImage,
    camera: &'a Intrinsics,
    /// Distances in pixels to the neighbours used for a normal, best first.
    steps: [usize; 2],
    /// Largest difference of depths from one pixel to the next, as a share of the depth.
    slope: f64,
    min_cosine: f64,
}

impl<'a> Surface<'a> {
    fn new(map: &'a DepthImage, camera: &'a Intrinsics, options: &FuseOptions) -> Self {
        let angle = options.max_incidence.to_radians();
        let focal = camera.fx.min(camera.fy);
        let step = (focal / FOCAL_PER_STEP).round().clamp(1.0, 16.0) as usize;
        // At the edge of the picture a surface is steeper against the camera's axis than against the line of
        // sight.
        let slant = (camera.horizontal_fov() / 2.0).min(0.8).tan();
        Self { map, camera, steps: [step, 1], slope: (angle.tan() + slant) / focal, min_cosine: angle.cos() }
    }

    /// Computes the normal at a pixel, of length one and towards the camera. Returns `None` next to a jump, a
    /// gap or the edge.
    fn normal(&self, x: usize, y: usize, depth: f64) -> Option<DVec3> {
        self.steps.into_iter().find_map(|step| {
            let limit = depth * (self.slope * step as f64 + NOISE);
            let at = |x: usize, y: usize| {
                let found = f64::from(self.map.at(x, y)?);
                ((found - depth).abs() <= limit).then(|| self.camera.unproject(x as f64, y as f64, found))
            };
            let (left, right) = (at(x.checked_sub(step)?, y)?, at(x + step, y)?);
            let (above, below) = (at(x, y.checked_sub(step)?)?, at(x, y + step)?);
            let normal = (below - above).cross(right - left).try_normalize()?;
            Some(if normal.dot(self.camera.unproject(x as f64, y as f64, depth)) > 0.0 { -normal } else { normal })
        })
    }
}
