//! Placement of virtual cameras for scans without pictures.
//!
//! The scan is thinned to *sites*, spread evenly over its surfaces. Candidate cameras are placed by the kind
//! of scene. A coarse drawing of the sites shows which of them each candidate sees. Cameras are then selected
//! greedily until nearly every visible site is seen by several. Nothing is random: the same scan gives the
//! same cameras.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

use glam::{DMat3, DVec3, Mat3, Vec2, Vec3};
use rayon::prelude::*;

use super::camera::{Intrinsics, Pose, PoseConvention};
use super::heading;
use super::render::SLACK;
use super::standing::{Standing, Surfaces};
use super::strays::Core;
use super::upright::{self, Shape};
use crate::ops::knn::cpu::knn_points;
use crate::ops::normals::cpu::{Orientation, normals as estimate_normals};
use crate::ops::pinhole::Pinhole;
use crate::ops::splat::cpu::{fill, splat};

/// Largest number of sites of a scan.
const MAX_SITES: usize = 24_000;
/// Number of samples on the triangles of a mesh before thinning.
const MESH_SAMPLES: f32 = 200_000.0;
/// Largest number of places for candidates.
const MAX_PLACES: usize = 100;
/// Edge in pixels of the six cube faces on which the view from a place is drawn.
const FACE: usize = 160;
/// Width in pixels of gaps between sites that are closed.
const FILL_REACH: usize = 4;
/// A site is hidden if something is nearer by more than this share. Lifting of features uses the same value.
const DEPTH_TOLERANCE: f32 = 0.05;
/// Border of the picture, as a share of its width, in which sites do not count as seen. Lifting of features
/// uses the same value.
const BORDER: f32 = 10.0 / 648.0;
/// Gain for seeing a site the first, second and third time. Further times count as the third.
const GAINS: [f32; 3] = [1.0, 0.6, 0.4];
/// Smallest share of all sites that a camera must add to be selected.
const MIN_GAIN: f32 = 4e-4;
/// Smallest share of sites visible from the coordinate origin for a scan from a single viewpoint.
const SINGLE_VIEWPOINT: f32 = 0.95;
/// Smallest extent in metres of a scan around a scanner that stands in the middle of it.
const AROUND_SCANNER: f32 = 3.0;
/// Smallest length of the mean unit vector from the scanner for a scan that lies on one side of it.
const NARROW: f32 = 0.5;
/// Smallest extent across in metres of a terrain, and of one whose points are more than [`COARSE`] metres
/// apart.
const WIDE: f32 = 30.0;
const WIDE_COARSE: f32 = 12.0;
const COARSE: f32 = 0.2;
/// Smallest ratio of extent across to height of a terrain.
const FLAT: f32 = 6.0;
/// Edge in metres of the cubes in which places to stand are sought.
const STANDING_CELL: f32 = 0.1;
/// Largest number of places beside the floor, and how much their views count.
const MAX_ASIDE: usize = 40;
const ASIDE: f32 = 0.5;
/// Largest number of colours that are looked at.
const MAX_COLORS: usize = 200_000;
/// Number of neighbours used to estimate normals of sites.
const NEIGHBORS: usize = 12;
/// Distance in pixels between neighbouring points of a terrain in its pictures.
const PIXELS_PER_POINT: f32 = 4.0;

/// Kind of scene, which decides where cameras are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SceneKind {
    /// Rooms, whole or in part: cameras stand on the floor and look around.
    Interior,
    /// Everything was seen from the coordinate origin, by a scanner or in one depth picture. Cameras stay
    /// close to it, because elsewhere they would look at its shadows.
    SingleViewpoint,
    /// An object or a fragment of a scene: cameras circle around it.
    Object,
    /// Terrain from above: cameras fly over it.
    Terrain,
}

impl fmt::Display for SceneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interior => "interior",
            Self::SingleViewpoint => "single viewpoint",
            Self::Object => "object",
            Self::Terrain => "terrain",
        })
    }
}

/// A scan to place cameras for. Positions must be finite.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// Positions relative to `origin`.
    pub points: &'a [[f32; 3]],
    /// Origin of the positions, in the frame of the resulting poses.
    pub origin: [f64; 3],
    /// Normals of the points, of any length, if the scan has them. Surfaces are then seen from the front
    /// only.
    pub normals: Option<&'a [[f32; 3]]>,
    /// Colours of the points, if the scan has them. They help to tell a floor from a ceiling.
    pub colors: Option<&'a [[u8; 3]]>,
    /// Triangles as point indices, all in range; empty for clouds.
    pub faces: &'a [[u32; 3]],
    /// Metres per unit of the positions; 1 if unknown.
    pub metres_per_unit: f64,
}

/// Options of the placement.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Up direction of the scan; `None` to guess it, see [`guess_up`].
    pub up: Option<DVec3>,
    /// Kind of scene; `None` to decide it by shape. If no camera of that kind would see anything, cameras
    /// circle around the scan as for an object.
    pub kind: Option<SceneKind>,
    /// Largest number of cameras.
    pub max_views: usize,
    /// Number of pictures that should show each point.
    pub views_per_point: usize,
    /// Share of the visible points that should be shown that often.
    pub coverage: f64,
    /// Width of the pictures in pixels, at most [`MAX_SIDE`](crate::ops::pinhole::MAX_SIDE).
    pub width: usize,
    /// Height of the pictures in pixels, at most [`MAX_SIDE`](crate::ops::pinhole::MAX_SIDE).
    pub height: usize,
    /// Horizontal field of view in radians, below π.
    pub horizontal_fov: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            up: None,
            kind: None,
            max_views: 60,
            views_per_point: 3,
            coverage: 0.98,
            width: 648,
            height: 484,
            horizontal_fov: 66_f64.to_radians(),
        }
    }
}

/// A virtual camera.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VirtualCamera {
    /// Size of the picture and the lens, the same for all cameras.
    pub intrinsics: Intrinsics,
    /// Camera pose in the frame of the scan's file.
    pub pose: Pose,
    /// Smallest distance that is drawn, in the scan's unit.
    pub near: f64,
}

/// The cameras of a scan, best first, and their coverage.
#[derive(Clone, Debug)]
pub struct VirtualCameras {
    /// Kind of scene that was assumed.
    pub kind: SceneKind,
    /// Up direction that was assumed, of length one.
    pub up: DVec3,
    /// Rotation from the scan's axes to upright ones, in which the cameras stand: z is `up`, and x and y are along
    /// most walls. Which way x looks follows from the scan too. So the same room comes out the same, however its
    /// file is turned. Without walls to go by, x and y stay about as they are.
    pub turn: DMat3,
    /// The cameras.
    pub cameras: Vec<VirtualCamera>,
    /// Share of the points that some candidate sees. The rest is hidden from everywhere.
    pub reachable: f64,
    /// Share of all points seen by at least one camera.
    pub seen_once: f64,
    /// Share of all points seen by as many cameras as requested.
    pub seen_enough: f64,
    /// Number of points far outside the rest. They are not looked at.
    pub strays: usize,
}

/// Places cameras for `scan`. Returns no cameras if it has no points or `max_views` is 0.
///
/// Coverage is measured on the sites, each of which represents the points around it. The function cannot
/// fail: cameras circle around degenerate scans (a single point, all points in one place, a line) as around
/// objects.
#[must_use]
pub fn virtual_cameras(scan: &Scan<'_>, options: &Options) -> VirtualCameras {
    let may_be_room = options.kind.is_none_or(|kind| kind == SceneKind::Interior);
    let stated = options.up.and_then(DVec3::try_normalize).or_else(|| stated_up(scan));
    let found = || if may_be_room { room_up(scan) } else { None };
    let up = stated.or_else(found).unwrap_or(DVec3::Z);
    let turn = heading::turn(scan.points, scan.faces, up);
    let frame = Frame::new(turn, scan.points);
    let sites = Sites::new(scan, &frame);
    let mut result = VirtualCameras {
        kind: options.kind.unwrap_or(SceneKind::Object),
        up,
        turn,
        cameras: Vec::new(),
        reachable: 0.0,
        seen_once: 0.0,
        seen_enough: 0.0,
        strays: sites.strays,
    };
    if sites.positions.is_empty() || options.max_views == 0 {
        return result;
    }
    let lens = Lens::new(options.width, options.height, options.horizontal_fov);
    let surveyor = Surveyor::new(scan, &frame, &sites);
    let (mut kind, places) = surveyor.places(options.kind, &lens);
    let mut candidates = surveyor.candidates(&places, &lens);
    if candidates.iter().all(|candidate| candidate.seen.is_empty()) {
        kind = SceneKind::Object;
        candidates = surveyor.candidates(&surveyor.circling(surveyor.bounds(), &lens), &lens);
    }
    result.kind = kind;
    let total: f64 = sites.weights.iter().map(|&w| f64::from(w)).sum();
    let share = |least: u8, times: &[u8]| {
        let seen = times.iter().zip(&sites.weights).filter(|(times, _)| **times >= least);
        seen.fold(0.0, |sum, (_, &weight)| sum + f64::from(weight)) / total
    };
    let mut any = vec![0_u8; sites.positions.len()];
    candidates.iter().flat_map(|candidate| &candidate.seen).for_each(|&site| any[site as usize] = 1);
    result.reachable = share(1, &any);

    let enough = u8::try_from(options.views_per_point.clamp(1, 200)).unwrap_or(u8::MAX);
    let mut times = vec![0_u8; sites.positions.len()];
    let mut taken: Vec<usize> = Vec::new();
    // The gain of a candidate only shrinks as others are selected, so its earlier gain is an upper bound. The
    // empty sum is −0, whose bits would be the largest, so `abs` is needed.
    let gain = |candidate: &Candidate, times: &[u8]| candidate.gain(&sites.weights, times, enough).abs().to_bits();
    let bounds: Vec<_> = candidates.par_iter().enumerate().map(|(i, c)| (gain(c, &times), Reverse(i))).collect();
    let mut bounds = BinaryHeap::from(bounds);
    while taken.len() < options.max_views && share(enough, &times) < options.coverage * result.reachable {
        let best = loop {
            let Some((_, Reverse(i))) = bounds.pop() else { break None };
            if taken.iter().any(|&other| candidates[i].resembles(&candidates[other])) {
                continue;
            }
            let bound = (gain(&candidates[i], &times), Reverse(i));
            if bounds.peek().is_none_or(|next| *next <= bound) {
                break Some((f32::from_bits(bound.0), i));
            }
            bounds.push(bound);
        };
        let Some((gain, best)) = best else { break };
        // The first camera is always selected, so that there is one.
        if !taken.is_empty() && gain < MIN_GAIN * total as f32 {
            break;
        }
        taken.push(best);
        candidates[best].seen.iter().for_each(|&site| times[site as usize] = times[site as usize].saturating_add(1));
    }
    let intrinsics = lens.intrinsics();
    result.cameras = (taken.iter())
        .map(|&i| &candidates[i])
        .filter_map(|candidate| {
            Some(VirtualCamera {
                intrinsics,
                pose: frame.pose(scan.origin, candidate.eye, &candidate.axes)?,
                near: f64::from(candidate.near) / frame.scale,
            })
        })
        .collect();
    result.seen_once = share(1, &times);
    result.seen_enough = share(enough, &times);
    result
}

/// Guesses the up direction. It is +z, as in most scans, with these exceptions.
///
/// It is −y if the scan is in camera axes (y down, z forward). Then all of it lies in a cone in front of the
/// origin, or its mean normal points to −z, which would mean a scene seen from below. It is +y if far more
/// normals point along +y than along any other axis. It is another axis if the scan clearly is a room that
/// lies on its side or head: by its floor and ceiling, its height, its walls, and what stands on the floor.
#[must_use]
pub fn guess_up(scan: &Scan<'_>) -> DVec3 {
    stated_up(scan).or_else(|| room_up(scan)).unwrap_or(DVec3::Z)
}

/// Returns the up direction that camera axes or normals state.
fn stated_up(scan: &Scan<'_>) -> Option<DVec3> {
    let origin = DVec3::from_array(scan.origin).as_vec3();
    let step = scan.points.len().div_ceil(20_000).max(1);
    // Smallest and largest x/z and y/z: a picture extends to both sides, a far object does not.
    let (mut low, mut high) = (Vec2::INFINITY, Vec2::NEG_INFINITY);
    let in_cone = scan.points.iter().step_by(step).all(|point| {
        let p = Vec3::from_array(*point) + origin;
        low = low.min(p.truncate() / p.z);
        high = high.max(p.truncate() / p.z);
        p.z > 0.0 && p.x.hypot(p.y) < 1.2 * p.z
    });
    if in_cone && low.max_element() < -0.2 && high.min_element() > 0.2 {
        return Some(DVec3::NEG_Y);
    }
    let normals = scan.normals?;
    let (mut mean, mut along, mut count) = (Vec3::ZERO, [0_usize; 6], 0_usize);
    for normal in normals.iter().step_by(step).filter_map(|n| Vec3::from_array(*n).try_normalize()) {
        mean += normal;
        count += 1;
        for axis in 0..3 {
            along[2 * axis] += usize::from(normal[axis] > 0.94);
            along[2 * axis + 1] += usize::from(normal[axis] < -0.94);
        }
    }
    let others = [0, 1, 3, 4, 5].map(|i| along[i]).into_iter().max().unwrap_or(0);
    if mean.z < -0.4 * count as f32 {
        Some(DVec3::NEG_Y)
    } else if along[2] * 10 > count && along[2] * 2 > others * 3 {
        Some(DVec3::Y)
    } else {
        None
    }
}

/// Returns the up direction of a room if it clearly is not +z.
fn room_up(scan: &Scan<'_>) -> Option<DVec3> {
    let frame = Frame::new(DMat3::IDENTITY, scan.points);
    let sites = Sites::new(scan, &frame);
    if sites.positions.is_empty() {
        return None;
    }
    let surveyor = Surveyor::new(scan, &frame, &sites);
    let bounds = surveyor.bounds();
    let step = scan.points.len().div_ceil(MAX_COLORS).max(1);
    let colored = scan.colors.into_iter().flat_map(|colors| scan.points.iter().zip(colors).step_by(step));
    let colored = colored.map(|(point, color)| (frame.turned(*point), color));
    let brightness = upright::brightness(colored, bounds, surveyor.unit);
    let shape = Shape { positions: &sites.positions, bounds, gap: sites.gap, unit: surveyor.unit, brightness };
    upright::of_room(&shape)
}

/// The scan's frame, rotated so that z is up, and scaled so that no square overflows or vanishes.
pub(super) struct Frame {
    /// Rotation from the scan's axes.
    turn: DMat3,
    pub(super) scale: f64,
}

impl Frame {
    pub(super) fn new(turn: DMat3, points: &[[f32; 3]]) -> Self {
        let largest = points.par_iter().map(|p| p.iter().fold(0.0_f32, |m, v| m.max(v.abs()))).reduce(|| 0.0, f32::max);
        let scale = if largest > 0.0 { 1.0 / f64::from(largest) } else { 1.0 };
        Self { turn, scale }
    }

    pub(super) fn turned(&self, v: [f32; 3]) -> Vec3 {
        (self.turn * Vec3::from_array(v).as_dvec3() * self.scale).as_vec3()
    }

    /// Returns the origin of the scan's file in this frame.
    fn scanner(&self, scan: &Scan<'_>) -> Vec3 {
        (self.turn * -DVec3::from_array(scan.origin) * self.scale).as_vec3()
    }

    /// Returns the camera's centre of a pose in this frame.
    pub(super) fn eye(&self, origin: [f64; 3], pose: &Pose) -> Vec3 {
        (self.turn * (pose.center() - DVec3::from_array(origin)) * self.scale).as_vec3()
    }

    /// Returns the camera axes of a pose, as columns.
    pub(super) fn axes(&self, pose: &Pose) -> Mat3 {
        (self.turn * pose.rotation()).as_mat3()
    }

    /// Returns the pose of a camera. Returns `None` if the axes are not a rotation, which only happens with
    /// an extremely large origin.
    pub(super) fn pose(&self, origin: [f64; 3], eye: Vec3, axes: &Mat3) -> Option<Pose> {
        let back = self.turn.transpose();
        let center = back * eye.as_dvec3() / self.scale + DVec3::from_array(origin);
        Pose::new(back * axes.as_dmat3(), center, PoseConvention::OPENCV_CAMERA_TO_WORLD).ok()
    }
}

/// Points spread evenly over the surfaces of the scan without its strays, in the frame with z up.
#[derive(Default)]
pub(super) struct Sites {
    pub(super) positions: Vec<Vec3>,
    /// Normals; zero if the scan has none.
    normals: Vec<Vec3>,
    /// Normals estimated from neighbouring sites, on either side.
    pub(super) surfaces: Vec<Vec3>,
    /// Number of points or mesh samples that each site represents.
    pub(super) weights: Vec<f32>,
    /// Edge of the cubes that contain one site each.
    pub(super) cell: f32,
    /// Median distance between neighbouring sites, and at least `cell`.
    gap: f32,
    /// Number of points that were left out as strays.
    strays: usize,
    /// True if the sites are samples of triangles.
    are_faces: bool,
}

impl Sites {
    pub(super) fn new(scan: &Scan<'_>, frame: &Frame) -> Self {
        let normal = |i: usize| {
            let turned = |n: [f32; 3]| frame.turn * Vec3::from_array(n).as_dvec3().normalize_or_zero();
            scan.normals.map_or(Vec3::ZERO, |n| turned(n[i]).as_vec3())
        };
        let core = Core::of(scan.points);
        let kept: Vec<usize> = (0..scan.points.len()).filter(|&i| core.contains(scan.points[i])).collect();
        let mut sites = Self { strays: scan.points.len() - kept.len(), ..Self::default() };
        if scan.faces.is_empty() {
            sites.positions = kept.par_iter().map(|&i| frame.turned(scan.points[i])).collect();
            sites.normals = kept.par_iter().map(|&i| normal(i)).collect();
            sites.weights = vec![1.0; kept.len()];
        } else {
            sites.add_faces(scan, frame, &core, normal);
        }
        let mut low = Vec3::INFINITY;
        let mut high = Vec3::NEG_INFINITY;
        sites.positions.iter().for_each(|p| (low, high) = (low.min(*p), high.max(*p)));
        let extent = (high - low).max_element();
        if extent <= 0.0 {
            sites.thin(1.0, low);
            return sites.measured();
        }
        // Start as fine as a surface across the whole scene would allow, then get coarser until there are few
        // enough.
        let mut cell = extent / (MAX_SITES as f32).sqrt() / 2.0;
        loop {
            sites.thin(cell, low);
            if sites.positions.len() <= MAX_SITES {
                return sites.measured();
            }
            cell *= 1.25;
        }
    }

    /// Returns the same sites with their distances and estimated normals.
    fn measured(mut self) -> Self {
        let positions: Vec<[f32; 3]> = self.positions.iter().map(Vec3::to_array).collect();
        if positions.is_empty() {
            return self;
        }
        let neighbors = knn_points(&positions, NEIGHBORS, false, 0..positions.len());
        let mut nearest: Vec<f32> = neighbors.sq_dist.chunks(NEIGHBORS).map(|row| row[0]).collect();
        let middle = nearest.len() / 2;
        if positions.len() > 1 {
            self.gap = nearest.select_nth_unstable_by(middle, f32::total_cmp).1.sqrt();
        }
        self.gap = self.gap.max(self.cell);
        let normals = estimate_normals(&positions, &neighbors.index, NEIGHBORS, 0, Orientation::Up);
        self.surfaces = normals.into_iter().map(Vec3::from_array).collect();
        self
    }

    /// Returns the distance between neighbouring points, or 0 for meshes.
    fn spacing(&self) -> f32 {
        let mean_weight = self.weights.iter().sum::<f32>() / self.weights.len() as f32;
        if self.are_faces { 0.0 } else { self.gap / mean_weight.max(1.0).sqrt() }
    }

    /// Returns true if the front of a site faces `eye`, or if its front is unknown.
    pub(super) fn faces(&self, site: usize, eye: Vec3) -> bool {
        let normal = self.normals[site];
        normal == Vec3::ZERO || normal.dot(self.positions[site] - eye) < 0.0
    }

    /// Samples the triangles, so that large ones count more and hide what is behind them.
    fn add_faces(&mut self, scan: &Scan<'_>, frame: &Frame, core: &Core, normal: impl Fn(usize) -> Vec3) {
        self.are_faces = true;
        let is_kept = |face: &&[u32; 3]| face.iter().all(|&i| core.contains(scan.points[i as usize]));
        let mut faces: Vec<&[u32; 3]> = scan.faces.iter().filter(is_kept).collect();
        if faces.is_empty() {
            // All triangles reach to strays, which are the scan then.
            faces = scan.faces.iter().collect();
            self.strays = 0;
        }
        let corners = |face: &[u32; 3]| face.map(|i| frame.turned(scan.points[i as usize]));
        let area = |face: &[u32; 3]| {
            let [a, b, c] = corners(face);
            (b - a).cross(c - a).length() / 2.0
        };
        let total: f32 = faces.iter().map(|face| area(face)).sum();
        // The area of tiny triangles vanishes. Then each has one sample.
        let per_area = Some(MESH_SAMPLES / total).filter(|per_area| per_area.is_finite()).unwrap_or(0.0);
        for face in faces {
            let [a, b, c] = corners(face);
            let normal = face.iter().map(|&i| normal(i as usize)).sum::<Vec3>().normalize_or_zero();
            // n² equal triangles, each with a sample in its middle.
            let n = (area(face) * per_area).sqrt().ceil().clamp(1.0, 512.0) as usize;
            for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let (u, v) = ((i as f32 + 1.0 / 3.0) / n as f32, (j as f32 + 1.0 / 3.0) / n as f32);
                // The upper half of the square is mirrored onto the lower one.
                let (u, v) = if i + j < n { (u, v) } else { (1.0 - u, 1.0 - v) };
                self.positions.push(a + (b - a) * u + (c - a) * v);
                self.normals.push(normal);
                self.weights.push(if per_area > 0.0 { area(face) / (n * n) as f32 * per_area } else { 1.0 });
            }
        }
    }

    /// Keeps the first position in every cube of edge `cell`, with the total weight of the cube. `low` is the
    /// middle of the first cube: walls must not lie between two cubes, where rounding would decide.
    fn thin(&mut self, cell: f32, low: Vec3) {
        let low = low - 0.5 * cell;
        let key = |p: &Vec3| {
            // 21 bits each. Extremely large coordinates share the last cube.
            let [x, y, z] = ((*p - low) / cell).to_array().map(|v| (v as u64).min((1 << 21) - 1));
            x << 42 | y << 21 | z
        };
        let mut order: Vec<(u64, u32)> =
            self.positions.par_iter().enumerate().map(|(i, p)| (key(p), i as u32)).collect();
        order.par_sort_unstable();
        let mut kept = Self { cell, strays: self.strays, are_faces: self.are_faces, ..Self::default() };
        for group in order.chunk_by(|a, b| a.0 == b.0) {
            let first = group[0].1 as usize;
            kept.positions.push(self.positions[first]);
            kept.normals.push(self.normals[first]);
            kept.weights.push(group.iter().map(|(_, i)| self.weights[*i as usize]).sum());
        }
        *self = kept;
    }
}

/// The lens that all cameras share.
pub(super) struct Lens {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) focal: f32,
}

impl Lens {
    pub(super) fn new(width: usize, height: usize, horizontal_fov: f64) -> Self {
        let half = (horizontal_fov / 2.0).clamp(0.01, 1.55).tan();
        Self { width, height, focal: (width as f64 / 2.0 / half) as f32 }
    }

    pub(super) fn intrinsics(&self) -> Intrinsics {
        Intrinsics {
            width: self.width,
            height: self.height,
            fx: f64::from(self.focal),
            fy: f64::from(self.focal),
            cx: (self.width as f64 - 1.0) / 2.0,
            cy: (self.height as f64 - 1.0) / 2.0,
        }
    }

    /// Returns the largest |x/z| and |y/z| that count as seen.
    pub(super) fn reach(&self) -> Vec2 {
        let border = BORDER * self.width as f32;
        (Vec2::new(self.width as f32, self.height as f32) / 2.0 - border).max(Vec2::splat(0.5)) / self.focal
    }
}

/// A place with the directions of its candidates.
struct Place {
    eye: Vec3,
    directions: Vec<Vec3>,
    /// Smallest distance that is drawn.
    near: f32,
    /// Distance beyond which surfaces count less and less.
    range: f32,
    /// How much its views count.
    worth: f32,
}

/// A camera that may be selected.
struct Candidate {
    eye: Vec3,
    /// The camera's x, y and z axes as columns.
    axes: Mat3,
    near: f32,
    /// Sites in the picture. `value` has the weight of each.
    seen: Vec<u32>,
    value: Vec<f32>,
}

impl Candidate {
    /// Returns the gain of this camera if sites were seen `times` before.
    fn gain(&self, weights: &[f32], times: &[u8], enough: u8) -> f32 {
        let gain = |(site, value): (&u32, &f32)| {
            let times = times[*site as usize];
            let counts = GAINS[usize::from(times).min(GAINS.len() - 1)];
            if times < enough { weights[*site as usize] * value * counts } else { 0.0 }
        };
        self.seen.iter().zip(&self.value).map(gain).sum()
    }

    /// Returns true if the two pictures would hardly differ.
    fn resembles(&self, other: &Self) -> bool {
        self.axes.z_axis.dot(other.axes.z_axis) > 0.97 && (self.eye - other.eye).length() < 3.0 * self.near
    }
}

/// Returns the x, y and z axes, as columns, of an upright camera that looks along `forward`.
pub(super) fn look(forward: Vec3) -> Mat3 {
    let z = forward.normalize();
    // When looking straight up or down, y of the frame is up in the picture.
    let up = if z.z.abs() > 0.999 { Vec3::Y } else { Vec3::Z };
    let x = z.cross(up).normalize();
    Mat3::from_cols(x, z.cross(x), z)
}

/// Returns directions around the horizon: `turns` of them at each pitch, in degrees above the horizon.
pub(super) fn around(turns: usize, pitches: &[f32]) -> Vec<Vec3> {
    let direction = |pitch: f32, turn: usize| {
        let (yaw, pitch) = (turn as f32 / turns as f32 * std::f32::consts::TAU, pitch.to_radians());
        Vec3::new(yaw.cos() * pitch.cos(), yaw.sin() * pitch.cos(), pitch.sin())
    };
    pitches.iter().flat_map(|&pitch| (0..turns).map(move |turn| direction(pitch, turn))).collect()
}

/// Size of the discs that are drawn to find hidden sites.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Discs {
    /// Large discs: surfaces have no gaps.
    Closed,
    /// Small discs: a site hides little of what is beside it.
    Loose,
}

/// Finds places for cameras and the sites visible from them.
pub(super) struct Surveyor<'a> {
    sites: &'a Sites,
    /// Number of units per metre.
    unit: f32,
    /// Origin of the scan's file in the frame of the sites.
    scanner: Vec3,
}

impl<'a> Surveyor<'a> {
    pub(super) fn new(scan: &Scan<'_>, frame: &Frame, sites: &'a Sites) -> Self {
        Self { sites, unit: (frame.scale / scan.metres_per_unit) as f32, scanner: frame.scanner(scan) }
    }

    /// Returns the kind of scene and the places of candidates.
    fn places(&self, wanted: Option<SceneKind>, lens: &Lens) -> (SceneKind, Vec<Place>) {
        let wants = |kind| wanted.is_none_or(|wanted| wanted == kind);
        if wants(SceneKind::SingleViewpoint) && (wanted.is_some() || self.all_seen_by_scanner()) {
            return (SceneKind::SingleViewpoint, self.near_scanner(lens));
        }
        let bounds = self.bounds();
        let size = bounds[1] - bounds[0];
        let across = size.truncate().max_element();
        let narrow = size.truncate().min_element();
        let flat = across > FLAT * size.z && narrow > WIDE * self.unit;
        let coarse = self.sites.spacing() > COARSE * self.unit && narrow > (WIDE_COARSE * self.unit).max(size.z);
        if wanted == Some(SceneKind::Terrain) || (wanted.is_none() && (flat || coarse)) {
            return (SceneKind::Terrain, self.over(bounds, lens));
        }
        if wants(SceneKind::Interior) {
            let places = self.standing(bounds, wanted.is_some());
            if !places.is_empty() {
                return (SceneKind::Interior, places);
            }
        }
        (SceneKind::Object, self.circling(bounds, lens))
    }

    /// Returns the bounds of all but the outermost sites.
    pub(super) fn bounds(&self) -> [Vec3; 2] {
        let mut bounds = [Vec3::ZERO; 2];
        for axis in 0..3 {
            let mut values: Vec<f32> = self.sites.positions.iter().map(|p| p[axis]).collect();
            values.sort_unstable_by(f32::total_cmp);
            let stray = values.len() / 200;
            (bounds[0][axis], bounds[1][axis]) = (values[stray], values[values.len() - 1 - stray]);
        }
        bounds
    }

    /// Returns true if nearly all sites are visible from the origin of the file's coordinates.
    fn all_seen_by_scanner(&self) -> bool {
        let sites = &self.sites.positions;
        if sites.len() < 500 {
            return false;
        }
        let near = sites.iter().map(|p| (*p - self.scanner).length()).fold(f32::INFINITY, f32::min);
        let bounds = self.bounds();
        let size = bounds[1] - bounds[0];
        // From far away nothing is hidden in a flat scene, and from closer than a cell everything is.
        let outside = (self.scanner.clamp(bounds[0], bounds[1]) - self.scanner).length();
        if outside > size.length() || near < self.sites.cell {
            return false;
        }
        // Objects are often centred on the origin, from where only their inside is visible.
        if outside == 0.0 && (self.sites.are_faces || size.max_element() < AROUND_SCANNER * self.unit) {
            return false;
        }
        let visible = self.visible(self.scanner, self.sites.cell / 4.0, Discs::Loose);
        visible.len() as f32 > SINGLE_VIEWPOINT * sites.len() as f32
    }

    /// Returns the median distance from the scanner.
    fn distance(&self) -> f32 {
        let mut distances: Vec<f32> = self.sites.positions.iter().map(|p| (*p - self.scanner).length()).collect();
        let middle = distances.len() / 2;
        *distances.select_nth_unstable_by(middle, f32::total_cmp).1
    }

    /// Returns position and direction of the scanner's own view, if all of the scan lies on one side of it.
    /// The camera is moved forward, up to a limit, until the scan just fits into the picture.
    pub(super) fn own_view(&self, lens: &Lens) -> Option<(Vec3, Vec3)> {
        let (sites, distance) = (&self.sites.positions, self.distance());
        let towards: Vec3 = sites.iter().map(|p| (*p - self.scanner).normalize_or_zero()).sum();
        let on_one_side = towards.length() > NARROW * sites.len() as f32;
        if !on_one_side {
            return None;
        }
        let axes = look(look(towards) * self.middle(&look(towards)).extend(1.0));
        let reach = lens.reach();
        let fits = |eye: Vec3| {
            let inside = sites
                .iter()
                .map(|p| axes.transpose() * (*p - eye))
                .filter(|p| p.z > 0.05 * distance && p.x.abs() <= reach.x * p.z && p.y.abs() <= reach.y * p.z);
            inside.count() as f32 > 0.98 * sites.len() as f32
        };
        let steps = (1..=10).map(|step| self.scanner + axes.z_axis * (0.05 * step as f32 * distance));
        Some((steps.take_while(|eye| fits(*eye)).last().unwrap_or(self.scanner), axes.z_axis))
    }

    /// Returns the centre of what the scanner sees, as (x/z, y/z) for a camera at its place with `axes`. The
    /// outermost sites are left out.
    fn middle(&self, axes: &Mat3) -> Vec2 {
        let seen = self.sites.positions.iter().map(|p| axes.transpose() * (*p - self.scanner)).filter(|p| p.z > 0.0);
        let seen: Vec<Vec2> = seen.map(|p| p.truncate() / p.z).collect();
        let middle = |axis: usize| {
            let mut values: Vec<f32> = seen.iter().map(|p| p[axis]).collect();
            values.sort_unstable_by(f32::total_cmp);
            let stray = values.len() / 100;
            values.get(stray).zip(values.iter().nth_back(stray)).map_or(0.0, |(low, high)| (low + high) / 2.0)
        };
        Vec2::new(middle(0), middle(1))
    }

    /// Returns places around the scanner, close enough to see little of its shadows.
    fn near_scanner(&self, lens: &Lens) -> Vec<Place> {
        let distance = self.distance();
        let own_view = self.own_view(lens);
        let eye = own_view.map_or(self.scanner, |(eye, _)| eye);
        let own_direction = own_view.map(|(_, forward)| forward);
        let directions: Vec<Vec3> =
            own_direction.into_iter().chain(around(16, &[0.0, -25.0, 25.0, -50.0, 50.0])).collect();
        let step = 0.08 * distance;
        let offsets = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 0.0]];
        let offsets = offsets.into_iter().chain([[0.0, 0.0, 1.0], [0.0, 0.0, -0.6]]);
        let place = |offset: [f32; 3]| Place {
            eye: eye + Vec3::from_array(offset) * step,
            directions: directions.clone(),
            near: 0.02 * distance,
            range: f32::INFINITY,
            worth: 1.0,
        };
        offsets.map(place).collect()
    }

    /// Returns places on circles around an object that show all of it, and on smaller ones.
    fn circling(&self, bounds: [Vec3; 2], lens: &Lens) -> Vec<Place> {
        let middle = (bounds[0] + bounds[1]) / 2.0;
        let inside = self.sites.positions.iter().map(|p| p.clamp(bounds[0], bounds[1]));
        let radius = inside.map(|p| p.distance(middle)).fold(self.sites.cell, f32::max);
        let narrower = lens.reach().min_element();
        // The bounding sphere touches the frame of the picture.
        let distance = radius * (1.0 + 1.0 / (narrower * narrower)).sqrt();
        let mut places = Vec::new();
        for (scale, turns, pitches) in
            [(1.0, 12, [15.0, 40.0, 65.0, 88.0, -20.0]), (0.6, 12, [10.0, 30.0, 55.0, 88.0, -30.0])]
        {
            for direction in around(turns, &pitches) {
                let eye = middle + direction * distance * scale;
                let (near, range) = (0.02 * distance, 2.0 * distance);
                places.push(Place { eye, directions: vec![-direction], near, range, worth: 1.0 });
            }
        }
        places
    }

    /// Returns places above terrain that look down and at a slant. At their height, points are a few pixels
    /// apart in the picture.
    fn over(&self, bounds: [Vec3; 2], lens: &Lens) -> Vec<Place> {
        let size = bounds[1] - bounds[0];
        // Width and height of the ground in a picture from straight above, per unit of height.
        let [wide, high] = (lens.reach() * 2.0).to_array();
        let spacing = self.sites.spacing();
        // A flat mesh has neither spacing nor height.
        let lowest = (1.5 * size.z).max(f32::MIN_POSITIVE);
        let mut height = (lens.width as f32 / PIXELS_PER_POINT * spacing / wide).max(lowest);
        let steps = |height: f32| {
            let count = |extent: f32, footprint: f32| (extent / (0.5 * footprint)).ceil().max(1.0) as usize;
            [count(size.x, wide * height), count(size.y, high * height)]
        };
        let [mut columns, mut rows] = steps(height);
        while columns.saturating_mul(rows) > MAX_PLACES {
            height *= 1.15;
            [columns, rows] = steps(height);
        }
        let ground = bounds[0].z + 0.25 * size.z;
        let down = [Vec3::NEG_Z];
        let directions: Vec<Vec3> = down.into_iter().chain(around(4, &[-45.0])).chain(around(8, &[-60.0])).collect();
        let at = |step: usize, steps: usize| (step as f32 + 0.5) / steps as f32;
        let place = |column: usize, row: usize| Place {
            eye: Vec3::new(
                bounds[0].x + size.x * at(column, columns),
                bounds[0].y + size.y * at(row, rows),
                ground + height,
            ),
            directions: directions.clone(),
            near: 0.02 * height,
            range: 1.5 * height,
            worth: 1.0,
        };
        (0..rows).flat_map(|row| (0..columns).map(move |column| place(column, row))).collect()
    }

    /// Returns places at eye height on floors and beside them. Unless `anywhere`, there are none if the scan
    /// is no room.
    fn standing(&self, bounds: [Vec3; 2], anywhere: bool) -> Vec<Place> {
        let sites = self.sites;
        let found = Standing::find(
            &Surfaces {
                positions: &sites.positions,
                normals: &sites.surfaces,
                weights: &sites.weights,
                bounds,
                cell: (STANDING_CELL * self.unit).max(1.5 * sites.gap),
                spacing: sites.spacing(),
                unit: self.unit,
            },
            anywhere,
        );
        if !anywhere && !found.is_room {
            return Vec::new();
        }
        let directions = around(8, &[-20.0, 5.0, -45.0, 30.0, 60.0]);
        let (near, range) = (0.1 * self.unit, 6.0 * self.unit);
        let place = |eye, worth| Place { eye, directions: directions.clone(), near, range, worth };
        let few = |eyes: &[Vec3], most: usize| {
            // In a large scan fewer from the start. The square of the distance must not vanish.
            let mut apart = (0.5 * self.unit).max((bounds[1] - bounds[0]).max_element() / 64.0).max(1e-18);
            let mut kept = spread(eyes, bounds[0], apart);
            while kept.len() > most && apart.is_finite() {
                apart *= 1.2;
                kept = spread(eyes, bounds[0], apart);
            }
            kept
        };
        let inside = few(&found.inside, MAX_PLACES).into_iter().map(|eye| place(eye, 1.0));
        inside.chain(few(&found.aside, MAX_ASIDE).into_iter().map(|eye| place(eye, ASIDE))).collect()
    }

    fn candidates(&self, places: &[Place], lens: &Lens) -> Vec<Candidate> {
        let limit = lens.reach();
        let from = |place: &Place| {
            let visible = self.visible(place.eye, place.near, Discs::Closed);
            let positions: Vec<Vec3> =
                visible.iter().map(|&site| self.sites.positions[site as usize] - place.eye).collect();
            let candidate = |direction: &Vec3| {
                let axes = look(*direction);
                let (mut seen, mut value) = (Vec::new(), Vec::new());
                for (&site, p) in visible.iter().zip(&positions) {
                    let z = axes.z_axis.dot(*p);
                    let inside = |axis: Vec3, limit: f32| axis.dot(*p).abs() <= limit * z;
                    if z >= place.near && inside(axes.x_axis, limit.x) && inside(axes.y_axis, limit.y) {
                        seen.push(site);
                        value.push(place.worth / (1.0 + (z / place.range).powi(2)));
                    }
                }
                Candidate { eye: place.eye, axes, near: place.near, seen, value }
            };
            place.directions.iter().map(candidate).collect::<Vec<_>>()
        };
        places.par_iter().flat_map_iter(from).collect()
    }

    /// Returns the sites that are visible from `eye`, found by drawing discs on the faces of a cube around
    /// it. Sites with normals must face `eye`.
    pub(super) fn visible(&self, eye: Vec3, near: f32, discs: Discs) -> Vec<u32> {
        let positions: Vec<[f32; 3]> = self.sites.positions.iter().map(|p| (*p - eye).to_array()).collect();
        // Neighbouring sites may be almost two cells apart.
        let radius = if discs == Discs::Closed { self.sites.gap } else { 0.75 * self.sites.cell };
        let radii = vec![radius; positions.len()];
        let mut visible = Vec::new();
        for (axis, sign) in [(0, 1.0), (0, -1.0), (1, 1.0), (1, -1.0), (2, 1.0), (2, -1.0)] {
            let mut axes = [[0.0; 3]; 3];
            axes[0][(axis + 1) % 3] = 1.0;
            axes[1][(axis + 2) % 3] = sign;
            axes[2][axis] = sign;
            let camera = Pinhole {
                width: FACE,
                height: FACE,
                focal: [FACE as f32 / 2.0; 2],
                principal: [(FACE - 1) as f32 / 2.0; 2],
                axes,
                center: [0.0; 3],
                near,
            };
            let mut drawn = splat(&camera, &positions, &radii, SLACK);
            if discs == Discs::Closed {
                drawn = fill(&drawn.depth, &drawn.index, FACE, FILL_REACH, 1.0 - DEPTH_TOLERANCE);
            }
            for (site, position) in positions.iter().enumerate() {
                let [x, y, z] = camera.to_camera(*position);
                if !(z >= near && x.abs() <= z && y.abs() <= z) {
                    continue;
                }
                let pixel = |at: f32| ((camera.focal[0] * at / z + camera.principal[0]).round() as usize).min(FACE - 1);
                let front = drawn.depth[pixel(y) * FACE + pixel(x)];
                if self.sites.faces(site, eye) && z <= front * (1.0 + DEPTH_TOLERANCE) + self.sites.cell {
                    visible.push(site as u32);
                }
            }
        }
        visible
    }
}

/// Selects the place nearest to the middle of every cube of edge `apart`, from the corner `low` on. A place more
/// or less changes only what is selected in its own cube.
fn spread(places: &[Vec3], low: Vec3, apart: f32) -> Vec<Vec3> {
    let mut nearest: BTreeMap<[i64; 3], (u32, Vec3)> = BTreeMap::new();
    for place in places {
        // Places are whole steps apart. One that is just between two cubes belongs to the upper one.
        let at = (*place - low) / apart + 1e-3;
        // Rounded, so that of places equally far from the middle the first is taken, whatever the last digits.
        let off = (4096.0 * (at - at.floor() - 0.5).length_squared()).round() as u32;
        let cube = at.floor().to_array().map(|cells| cells as i64);
        let best = nearest.entry(cube).or_insert((off, *place));
        if off < best.0 {
            *best = (off, *place);
        }
    }
    nearest.into_values().map(|(_, place)| place).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::views::render::{self, Renderer, Scene};

    pub(in super::super) fn scan(points: &[[f32; 3]]) -> Scan<'_> {
        Scan { points, origin: [0.0; 3], normals: None, colors: None, faces: &[], metres_per_unit: 1.0 }
    }

    /// Returns points `step` apart on one side of a box.
    fn side(low: [f32; 3], high: [f32; 3], axis: usize, upper: bool, step: f32) -> Vec<[f32; 3]> {
        let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
        let count = |axis: usize| ((high[axis] - low[axis]) / step) as usize;
        let point = |i: usize, j: usize| {
            let mut p = if upper { high } else { low };
            (p[u], p[v]) = (low[u] + i as f32 * step, low[v] + j as f32 * step);
            p
        };
        (0..=count(u)).flat_map(|i| (0..=count(v)).map(move |j| point(i, j))).collect()
    }

    /// Returns a room of 6 x 4 x 2.6 m with a table and a cupboard, without the surfaces that these hide. z
    /// is up, and the origin is in the centre of the room.
    pub(in super::super) fn room(step: f32) -> Vec<[f32; 3]> {
        let (table, cupboard) = (([4.0, 1.0, 0.0], [5.2, 2.2, 0.75]), ([0.0, 1.0, 0.0], [0.6, 2.5, 2.0]));
        let outside = |p: &[f32; 3]| {
            let inside = |(low, high): ([f32; 3], [f32; 3])| (0..3).all(|a| p[a] >= low[a] && p[a] <= high[a]);
            !inside(table) && !inside(cupboard)
        };
        let whole = (0..6).flat_map(|i| side([0.0; 3], [6.0, 4.0, 2.6], i / 2, i % 2 == 1, step));
        let mut points: Vec<[f32; 3]> = whole.filter(outside).collect();
        for i in [0, 1, 2, 3, 5] {
            points.extend(side(table.0, table.1, i / 2, i % 2 == 1, step));
        }
        for i in [1, 2, 3, 5] {
            points.extend(side(cupboard.0, cupboard.1, i / 2, i % 2 == 1, step));
        }
        points.iter().map(|p| [p[0] - 3.0, p[1] - 2.0, p[2] - 1.3]).collect()
    }

    /// Returns the number of pictures, drawn at full size, that show each point.
    fn times_seen(scan: &Scan<'_>, cameras: &VirtualCameras) -> Vec<usize> {
        let radii = render::radii(scan.points);
        let colors = vec![[0; 3]; scan.points.len()];
        let scene =
            Scene { points: scan.points, origin: scan.origin, colors: &colors, faces: scan.faces, radii: &radii };
        let renderer = Renderer::new(&scene, &Device::flex()).unwrap();
        let mut times = vec![0; scan.points.len()];
        for camera in &cameras.cameras {
            let pinhole = render::pinhole(&camera.intrinsics, &camera.pose, scan.origin, camera.near);
            let depth = renderer.seen(&pinhole).unwrap().depth;
            for (times, point) in times.iter_mut().zip(scan.points) {
                let p = Vec3::from_array(pinhole.to_camera(*point)).as_dvec3();
                if let Some([x, y]) = camera.intrinsics.pixel(p) {
                    let d = f64::from(depth[y * pinhole.width + x]);
                    *times += usize::from((d - p.z).abs() <= 0.05 * d);
                }
            }
        }
        times
    }

    #[test]
    fn nearly_all_of_a_furnished_room_is_in_three_pictures() {
        let points = room(0.03);
        let scan = Scan { origin: [500_103.0, 4_000_002.0, 101.3], ..scan(&points) };
        let cameras = virtual_cameras(&scan, &Options::default());
        assert_eq!(cameras.kind, SceneKind::Interior);
        assert!(cameras.reachable > 0.99 && cameras.seen_enough >= 0.98 * cameras.reachable, "{cameras:?}");
        for camera in &cameras.cameras {
            let p = camera.pose.center() - DVec3::from_array(scan.origin);
            assert!(p.x.abs() < 3.0 && p.y.abs() < 2.0 && p.z.abs() < 1.3, "{p}");
            // Upright: y points down.
            assert!((camera.pose.rotation() * DVec3::Y).z < 0.0);
        }
        let times = times_seen(&scan, &cameras);
        let share = times.iter().filter(|times| **times >= 3).count() as f64 / points.len() as f64;
        assert!(share >= 0.97, "{share}");
        assert_eq!(cameras.cameras, virtual_cameras(&scan, &Options::default()).cameras);
        let few = virtual_cameras(&scan, &Options { max_views: 5, ..Options::default() });
        assert_eq!(few.cameras, cameras.cameras[..5]);
    }

    #[test]
    fn the_kind_follows_from_the_shape_in_any_unit_and_with_any_up() {
        let points = room(0.05);
        let millimetres: Vec<[f32; 3]> = points.iter().map(|p| p.map(|v| v * 1e3)).collect();
        let in_millimetres = Scan { metres_per_unit: 1e-3, origin: [1e5; 3], ..scan(&millimetres) };
        assert_eq!(virtual_cameras(&in_millimetres, &Options::default()).kind, SceneKind::Interior);
        let y_up: Vec<[f32; 3]> = points.iter().map(|p| [p[0], p[2], -p[1]]).collect();
        let turned = Scan { origin: [1e5; 3], ..scan(&y_up) };
        let cameras = virtual_cameras(&turned, &Options { up: Some(DVec3::Y * 2.0), ..Options::default() });
        assert_eq!((cameras.kind, cameras.up), (SceneKind::Interior, DVec3::Y));
        assert!(cameras.cameras.iter().all(|camera| (camera.pose.rotation() * DVec3::Y).y < 0.0));

        let ball: Vec<[f32; 3]> = around(80, &[-80.0, -60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0, 80.0])
            .iter()
            .map(|p| (*p * 0.2).to_array())
            .collect();
        let cameras = virtual_cameras(&scan(&ball), &Options::default());
        assert_eq!(cameras.kind, SceneKind::Object);
        assert!(cameras.seen_enough > 0.95, "{cameras:?}");

        let land: Vec<[f32; 3]> = (0..40_000)
            .map(|i| [(i % 200) as f32 * 2.0, (i / 200) as f32 * 2.0, ((i % 17) * (i / 200 % 13)) as f32 * 0.02])
            .collect();
        let cameras = virtual_cameras(&Scan { origin: [0.0; 3], ..scan(&land) }, &Options::default());
        assert_eq!(cameras.kind, SceneKind::Terrain);
        assert!(cameras.seen_enough >= 0.95, "{cameras:?}");
    }

    #[test]
    fn a_single_depth_picture_is_looked_at_from_where_it_was_taken() {
        // A wall with a box in front of it, as seen by a camera at the origin: y down, z forward.
        let mut points = Vec::new();
        for (x, y) in (-60..=60).flat_map(|x| (-45..=45).map(move |y| (x as f32 * 0.01, y as f32 * 0.01))) {
            let z = if x.abs() < 0.2 && y > 0.0 { 2.0 } else { 3.5 };
            points.push([x * z, y * z, z - 3.0]);
        }
        let scan = Scan { origin: [0.0, 0.0, 3.0], ..scan(&points) };
        let cameras = virtual_cameras(&scan, &Options::default());
        assert_eq!((cameras.kind, cameras.up), (SceneKind::SingleViewpoint, DVec3::NEG_Y));
        let first = &cameras.cameras[0].pose;
        assert!(first.center().length() < 1.5 && (first.rotation() * DVec3::Z).z > 0.95, "{first:?}");
        assert!((first.rotation() * DVec3::Y).y > 0.95, "{first:?}");
    }

    #[test]
    fn normals_say_from_which_side() {
        let points: Vec<[f32; 3]> =
            (0..10_000).map(|i| [(i % 100) as f32 * 0.01 - 0.5, (i / 100) as f32 * 0.01 - 0.5, 0.0]).collect();
        let normals = vec![[0.0, 0.0, 3.0]; points.len()];
        let with_normals = Scan { normals: Some(&normals), origin: [9.0; 3], ..scan(&points) };
        let options = Options { kind: Some(SceneKind::Object), ..Options::default() };
        let cameras = virtual_cameras(&with_normals, &options);
        assert!(cameras.seen_enough > 0.95);
        assert!(cameras.cameras.iter().all(|camera| camera.pose.center().z > 9.0));
        let downwards = vec![[0.0, 0.0, -1.0]; points.len()];
        assert_eq!(guess_up(&Scan { normals: Some(&downwards), ..with_normals }), DVec3::NEG_Y);
        let y_up = vec![[0.0, 1.0, 0.0]; points.len()];
        assert_eq!(guess_up(&Scan { normals: Some(&y_up), ..with_normals }), DVec3::Y);
    }

    #[test]
    fn a_mesh_of_few_vertices_hides_and_is_seen() {
        // A closed box of 12 triangles.
        let points: Vec<[f32; 3]> = (0..8).map(|i| [i & 1, i >> 1 & 1, i >> 2].map(|v| v as f32 - 0.5)).collect();
        let faces = [
            [0, 1, 3],
            [0, 3, 2],
            [4, 5, 7],
            [4, 7, 6],
            [0, 1, 5],
            [0, 5, 4],
            [2, 3, 7],
            [2, 7, 6],
            [0, 2, 6],
            [0, 6, 4],
            [1, 3, 7],
            [1, 7, 5],
        ];
        let cameras = virtual_cameras(&Scan { faces: &faces, ..scan(&points) }, &Options::default());
        assert_eq!(cameras.kind, SceneKind::Object);
        assert!(cameras.seen_enough > 0.9, "{cameras:?}");
        for camera in &cameras.cameras {
            // No picture shows more than half of a closed box.
            let p = camera.pose.center();
            assert!(p.abs().max_element() > 0.5, "{p}");
        }
    }

    #[test]
    fn degenerate_scans_get_cameras() {
        let line: Vec<[f32; 3]> = (0..1000).map(|i| [i as f32 * 0.01 - 5.0, 0.0, 0.0]).collect();
        let (far, near) = ([1e38, -1e38, 1e38], [1e-30, 0.0, 0.0]);
        let kinds = [SceneKind::Interior, SceneKind::SingleViewpoint, SceneKind::Object, SceneKind::Terrain];
        for points in [vec![[1.0; 3]], vec![[0.5; 3]; 1000], line, vec![[0.0; 3], far], vec![[0.0; 3], near]] {
            for kind in kinds.into_iter().map(Some).chain([None]) {
                let cameras = virtual_cameras(&scan(&points), &Options { kind, ..Options::default() });
                assert!(!cameras.cameras.is_empty() && cameras.seen_once > 0.0, "{points:?}: {cameras:?}");
            }
        }
        assert!(virtual_cameras(&scan(&[]), &Options::default()).cameras.is_empty());
        let none = Options { max_views: 0, ..Options::default() };
        assert!(virtual_cameras(&scan(&[[0.0; 3]]), &none).cameras.is_empty());
        let wide = Options { horizontal_fov: 9.0, up: Some(DVec3::ZERO), ..Options::default() };
        assert!(!virtual_cameras(&scan(&[[0.0; 3]]), &wide).cameras.is_empty());
    }

    #[test]
    fn degenerate_meshes_get_cameras() {
        let square = vec![[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]];
        let line: Vec<[f32; 3]> = (0..4).map(|i| [i as f32, 0.0, 0.0]).collect();
        // Every triangle reaches to a stray.
        let mut far = vec![[0.0; 3], [1.0, 0.0, 0.0], [900.0, 0.0, 0.0], [0.0, 900.0, 0.0]];
        far.extend((0..396).map(|i| [(i % 20) as f32 * 0.1, (i / 20) as f32 * 0.1, 0.0]));
        for points in [square, line, vec![[1.0; 3]; 4], far] {
            for kind in [Some(SceneKind::Terrain), None] {
                let mesh = Scan { faces: &[[0, 1, 2], [0, 2, 3]], ..scan(&points) };
                let cameras = virtual_cameras(&mesh, &Options { kind, ..Options::default() });
                assert!(!cameras.cameras.is_empty() && cameras.seen_once > 0.0, "{points:?}: {cameras:?}");
            }
        }
    }
}
