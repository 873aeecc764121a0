//! Viewpoints of a whole scan for people to look at: overviews from outside, then the most informative of its
//! cameras.

use std::cmp::Reverse;
use std::fmt;

use glam::{Mat3, Vec2, Vec3};
use rayon::prelude::*;

use super::render::SLACK;
use super::virtual_cameras::{Discs, Frame, Lens, Scan, SceneKind, Sites, Surveyor, VirtualCamera, VirtualCameras};
use super::virtual_cameras::{around, look};
use crate::ops::knn::cpu::knn_between;
use crate::ops::pinhole::Pinhole;
use crate::ops::splat::cpu::splat;

/// Horizontal field of view of overviews in degrees. It is narrower than that of the cameras inside, to limit
/// distortion.
const FOV: f64 = 40.0;
/// Share of the picture left free on each side of an overview.
const FREE: f32 = 0.03;
/// Number of directions around the horizon to choose the first overview from.
const TURNS: usize = 16;
/// Angle in degrees by which overviews look down: of interiors, of scans from one viewpoint, of terrain, and
/// of objects.
const PITCH_INTERIOR: f32 = 55.0;
const PITCH_SCANNER: f32 = 35.0;
const PITCH_TERRAIN: f32 = 40.0;
const PITCH_OBJECT: f32 = 25.0;
/// Largest number of camera positions used to tell the front of a surface from its back: the bits of a u64.
const MAX_EYES: usize = 64;
/// Width of the pictures in which views are compared, in pixels.
const TRIAL_WIDTH: usize = 160;
/// Factor on a site's weight for each earlier view that shows it.
const SEEN_BEFORE: f32 = 0.3;
/// Smallest share of all sites that a view must add.
const MIN_GAIN: f32 = 0.04;
/// Two views are alike if both the cosine of the angle between them and their share of common sites exceed
/// these.
const ALIKE: f32 = 0.94;
const ALIKE_SEEN: f32 = 0.65;
/// Share of the points at either end of each axis that an overview may leave out. It is larger for interiors,
/// which see much through windows and doors.
const STRAY_OUTSIDE: f32 = 0.002;
const STRAY_INSIDE: f32 = 0.01;
/// Limits for overviews of objects and terrain: their largest number, the least difference of their
/// directions in units of [`TURNS`], and the least score relative to the best.
const MAX_OVERVIEWS: usize = 4;
const MIN_TURNS: usize = 3;
const MIN_SCORE: f32 = 0.6;

/// Purpose of a viewpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewpointKind {
    /// Overview of the whole scan, from outside.
    Overview,
    /// View of a part of the scan, as seen by a person there.
    View,
}

impl fmt::Display for ViewpointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overview => "overview",
            Self::View => "view",
        })
    }
}

/// A camera, its purpose, and what it shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Viewpoint {
    /// Purpose of the viewpoint.
    pub kind: ViewpointKind,
    /// The camera.
    pub camera: VirtualCamera,
    /// One entry per point, or per triangle of meshes: true if it is drawn, see
    /// [`Renderer::showing`](super::render::Renderer::showing). `None` if all are. Surfaces that hide the
    /// inside of a room from outside are not drawn.
    pub shown: Option<Vec<bool>>,
}

/// Returns at most `count` viewpoints of `scan` for pictures of `width` x `height` pixels, the most
/// informative first. Returns none if the scan has no points.
///
/// `cameras` must come from [`virtual_cameras`](super::virtual_cameras::virtual_cameras) for the same scan.
/// Overviews that fill the picture come first:
/// - For interiors, one from above. Surfaces that turn their back to it are not drawn: the ceiling, and the
///   walls on the near side.
/// - For a scan from a single viewpoint, the scanner's own view if all of the scan is on one side, and one
///   from above the scanner.
/// - For objects and terrain, several from different sides.
///
/// Then follow those `cameras` that together show most, preferably level ones, until they show nothing new.
#[must_use]
pub fn viewpoints(
    scan: &Scan<'_>,
    cameras: &VirtualCameras,
    count: usize,
    width: usize,
    height: usize,
) -> Vec<Viewpoint> {
    let frame = Frame::new(cameras.turn, scan.points);
    let sites = Sites::new(scan, &frame);
    if sites.positions.is_empty() || count == 0 {
        return Vec::new();
    }
    let presenter = Presenter::new(scan, cameras, &frame, &sites, [width, height]);
    let mut found = presenter.overviews(count);
    let missing = count - found.len();
    found.extend(presenter.views(missing, &found));
    found
}

/// Finds the viewpoints of one scan.
struct Presenter<'a> {
    scan: &'a Scan<'a>,
    cameras: &'a VirtualCameras,
    frame: &'a Frame,
    sites: &'a Sites,
    surveyor: Surveyor<'a>,
    size: [usize; 2],
    /// Bounds of nearly all points.
    bounds: [Vec3; 2],
    /// Fronts of the surfaces, for interiors and scans from a single viewpoint only.
    fronts: Option<Fronts>,
}

impl<'a> Presenter<'a> {
    fn new(
        scan: &'a Scan<'a>,
        cameras: &'a VirtualCameras,
        frame: &'a Frame,
        sites: &'a Sites,
        size: [usize; 2],
    ) -> Self {
        let surveyor = Surveyor::new(scan, frame, sites);
        let is_inside = matches!(cameras.kind, SceneKind::Interior | SceneKind::SingleViewpoint);
        let fronts = is_inside.then(|| Fronts::new(scan, cameras, frame, sites, &surveyor));
        let bounds = bounds(sites, if is_inside { STRAY_INSIDE } else { STRAY_OUTSIDE });
        Self { scan, cameras, frame, sites, surveyor, size, bounds, fronts }
    }

    fn overviews(&self, count: usize) -> Vec<Viewpoint> {
        let kind = self.cameras.kind;
        let own_view = (kind == SceneKind::SingleViewpoint).then(|| self.own_view()).flatten();
        let pitch = match (kind, &own_view) {
            (SceneKind::SingleViewpoint, Some(_)) => PITCH_SCANNER,
            (SceneKind::Interior | SceneKind::SingleViewpoint, _) => PITCH_INTERIOR,
            (SceneKind::Terrain, _) => PITCH_TERRAIN,
            (SceneKind::Object, _) => PITCH_OBJECT,
        };
        let directions = around(TURNS, &[-pitch]);
        let mut found: Vec<Viewpoint> = Vec::new();
        let turns = if let Some((view, forward)) = own_view {
            found.push(view);
            // Score of directions by how far they come from behind the scanner.
            let along: Vec<f32> = directions.iter().map(|d| d.truncate().dot(forward.truncate())).collect();
            best(&along).into_iter().collect()
        } else {
            let scores: Vec<f32> = directions.par_iter().map(|direction| self.score(*direction)).collect();
            let is_outside = matches!(kind, SceneKind::Object | SceneKind::Terrain);
            sides(&scores, if is_outside { MAX_OVERVIEWS } else { 1 })
        };
        found.extend(turns.into_iter().filter_map(|turn: usize| self.overview(directions[turn])));
        found.truncate(count);
        found
    }

    /// Returns the scanner's own view and its direction.
    fn own_view(&self) -> Option<(Viewpoint, Vec3)> {
        let [width, height] = self.size;
        let fov = self.cameras.cameras.first()?.intrinsics.horizontal_fov();
        let lens = Lens::new(width, height, fov);
        let (eye, forward) = self.surveyor.own_view(&lens)?;
        let camera = VirtualCamera {
            intrinsics: lens.intrinsics(),
            pose: self.frame.pose(self.scan.origin, eye, &look(forward))?,
            near: self.cameras.cameras.first()?.near,
        };
        Some((Viewpoint { kind: ViewpointKind::View, camera, shown: None }, forward))
    }

    /// Returns the overview of the whole scan along `direction`.
    fn overview(&self, direction: Vec3) -> Option<Viewpoint> {
        let Overview { eye, axes, near, .. } = self.framed(direction, self.size)?;
        let [width, height] = self.size;
        let camera = VirtualCamera {
            intrinsics: Lens::new(width, height, FOV.to_radians()).intrinsics(),
            pose: self.frame.pose(self.scan.origin, eye, &axes)?,
            near: f64::from(near) / self.frame.scale,
        };
        let shown = self.fronts.as_ref().map(|fronts| fronts.shown(eye));
        Some(Viewpoint { kind: ViewpointKind::Overview, camera, shown })
    }

    /// Returns the score of a direction, by how much of the scan it shows and how large.
    fn score(&self, direction: Vec3) -> f32 {
        let Some(overview) = self.framed(direction, self.trial_size()) else { return 0.0 };
        let lens = Lens::new(self.trial_size()[0], self.trial_size()[1], FOV.to_radians());
        let camera = pinhole(&lens, overview.eye, &overview.axes, overview.near);
        let trial = Trial::new(self.sites, &camera, Some(&overview.shown));
        trial.seen.iter().map(|&site| self.sites.weights[site as usize]).sum::<f32>() * trial.filled.sqrt()
    }

    fn trial_size(&self) -> [usize; 2] {
        let [width, height] = self.size;
        let scale = TRIAL_WIDTH as f32 / width.max(height).max(1) as f32;
        [width, height].map(|side| ((side as f32 * scale) as usize).max(1))
    }

    /// Returns the nearest camera along `direction` that has all of the scan in front of it and in its
    /// picture of `size`.
    fn framed(&self, direction: Vec3, size: [usize; 2]) -> Option<Overview> {
        let axes = look(direction);
        let lens = Lens::new(size[0], size[1], FOV.to_radians());
        let reach = Vec2::new(size[0] as f32, size[1] as f32) * (0.5 - FREE) / lens.focal;
        let bounds = self.bounds;
        let inside = |p: &Vec3| p.clamp(bounds[0], bounds[1]).distance(*p) <= self.sites.cell;
        // The drawn surfaces depend on the camera's position, but only slightly, so start from far away.
        let far =
            (bounds[0] + bounds[1]) / 2.0 - axes.z_axis * ((bounds[1] - bounds[0]).length() + self.sites.cell) * 2.0;
        let mut shown = self.shown_sites(far);
        let framed = |shown: &[bool]| {
            let kept = self.sites.positions.iter().zip(shown).filter(|(p, shown)| **shown && inside(p));
            let positions: Vec<Vec3> = kept.map(|(p, _)| axes.transpose() * *p).collect();
            fit(&positions, reach, self.sites.cell)
        };
        let (eye, near) = framed(&shown).or_else(|| {
            shown.fill(true);
            framed(&shown)
        })?;
        let eye = axes * eye;
        shown = self.shown_sites(eye);
        (eye.is_finite() && near > 0.0).then_some(Overview { eye, axes, near, shown })
    }

    fn shown_sites(&self, eye: Vec3) -> Vec<bool> {
        match &self.fronts {
            Some(fronts) => fronts.shown_sites(self.sites, eye),
            None => vec![true; self.sites.positions.len()],
        }
    }

    /// Returns the cameras that show most of what `before` does not.
    fn views(&self, count: usize, before: &[Viewpoint]) -> Vec<Viewpoint> {
        let [width, height] = self.size;
        let trial = |camera: &VirtualCamera| {
            let [width, height] = self.trial_size();
            let lens = Lens::new(width, height, camera.intrinsics.horizontal_fov());
            let (eye, axes) = (self.frame.eye(self.scan.origin, &camera.pose), self.frame.axes(&camera.pose));
            let near = (camera.near * self.frame.scale) as f32;
            Trial::new(self.sites, &pinhole(&lens, eye, &axes, near), None)
        };
        let total: f32 = self.sites.weights.iter().sum();
        let mut counts = vec![1.0_f32; self.sites.positions.len()];
        let mut shown: Vec<Trial> = before.iter().map(|view| trial(&view.camera)).collect();
        for (trial, _) in shown.iter().zip(before).filter(|(_, view)| view.kind == ViewpointKind::View) {
            trial.seen.iter().for_each(|&site| counts[site as usize] *= SEEN_BEFORE);
        }
        let trials: Vec<Trial> = self.cameras.cameras.par_iter().map(trial).collect();
        let mut left: Vec<(&VirtualCamera, Trial)> = self.cameras.cameras.iter().zip(trials).collect();
        let mut found = Vec::new();
        while found.len() < count {
            left.retain(|(_, trial)| !shown.iter().any(|other| trial.resembles(other)));
            let gain = |(_, trial): &(&VirtualCamera, Trial)| {
                let seen = trial.seen.iter().map(|&site| counts[site as usize] * self.sites.weights[site as usize]);
                // Level views are preferred, as people look around and not at the ground. Empty pixels show
                // nothing.
                seen.sum::<f32>() * trial.filled * (1.0 - trial.forward.z * trial.forward.z)
            };
            let gains: Vec<f32> = left.par_iter().map(gain).collect();
            let Some(best) = best(&gains).filter(|&best| gains[best] > MIN_GAIN * total) else { break };
            let (camera, trial) = left.remove(best);
            trial.seen.iter().for_each(|&site| counts[site as usize] *= SEEN_BEFORE);
            shown.push(trial);
            let intrinsics = Lens::new(width, height, camera.intrinsics.horizontal_fov()).intrinsics();
            let camera = VirtualCamera { intrinsics, ..*camera };
            found.push(Viewpoint { kind: ViewpointKind::View, camera, shown: None });
        }
        found
    }
}

/// Returns the bounds of the points, without a share of `stray` at either end of each axis.
fn bounds(sites: &Sites, stray: f32) -> [Vec3; 2] {
    let total: f32 = sites.weights.iter().sum();
    let mut bounds = [Vec3::ZERO; 2];
    for axis in 0..3 {
        let values = sites.positions.iter().map(|p| p[axis]);
        let mut values: Vec<(f32, f32)> = values.zip(sites.weights.iter().copied()).collect();
        values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let bound = |values: &[(f32, f32)]| {
            let mut before = 0.0;
            let reached = values.iter().find(|(_, weight)| {
                before += weight;
                before >= stray * total
            });
            reached.map_or(0.0, |(value, _)| *value)
        };
        bounds[0][axis] = bound(&values);
        values.reverse();
        bounds[1][axis] = bound(&values);
    }
    bounds
}

/// Returns the index of the largest score, the first of equal ones.
fn best(scores: &[f32]) -> Option<usize> {
    (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]).then(b.cmp(a)))
}

/// Returns the best of [`TURNS`] directions around the horizon, then those farthest from the earlier ones, if
/// they are nearly as good.
fn sides(scores: &[f32], count: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = best(scores).into_iter().collect();
    while let Some(&first) = chosen.first().filter(|_| chosen.len() < count) {
        let apart = |turn: usize| {
            let between = |other: &usize| turn.abs_diff(*other).min(TURNS - turn.abs_diff(*other));
            chosen.iter().map(between).min().unwrap_or(0)
        };
        let worth = |turn: usize| if scores[turn] >= MIN_SCORE * scores[first] { apart(turn) } else { 0 };
        let Some(next) = (0..scores.len()).max_by_key(|&turn| (worth(turn), Reverse(turn))) else { break };
        if worth(next) < MIN_TURNS {
            break;
        }
        chosen.push(next);
    }
    chosen
}

/// A camera with all of the scan in its picture.
struct Overview {
    eye: Vec3,
    axes: Mat3,
    near: f32,
    /// One entry per site: true if it is drawn.
    shown: Vec<bool>,
}

/// Finds the place nearest to all `positions` from which they are at most `reach` (|x/z|, |y/z|) from the
/// centre of the picture and at least `least` in front. Returns it with half the depth of the nearest
/// position; `None` without positions. All values are in the camera's axes.
fn fit(positions: &[Vec3], reach: Vec2, least: f32) -> Option<(Vec3, f32)> {
    let nearest = positions.iter().map(|p| p.z).reduce(f32::min)?;
    // Each side of the picture is a plane that the positions touch from inside.
    let (mut low, mut high) = (Vec2::INFINITY, Vec2::NEG_INFINITY);
    for p in positions {
        low = low.min(p.truncate() + reach * p.z);
        high = high.max(p.truncate() - reach * p.z);
    }
    let z = ((low - high) / (2.0 * reach)).min_element().min(nearest - least);
    Some((((low + high) / 2.0).extend(z), (nearest - z) / 2.0))
}

fn pinhole(lens: &Lens, eye: Vec3, axes: &Mat3, near: f32) -> Pinhole {
    Pinhole {
        width: lens.width,
        height: lens.height,
        focal: [lens.focal; 2],
        principal: [(lens.width - 1) as f32 / 2.0, (lens.height - 1) as f32 / 2.0],
        axes: [axes.x_axis, axes.y_axis, axes.z_axis].map(|axis| axis.to_array()),
        center: eye.to_array(),
        near,
    }
}

/// Result of drawing a small picture.
struct Trial {
    /// Visible sites in the picture.
    seen: Vec<u32>,
    /// Share of the pixels that are not empty.
    filled: f32,
    forward: Vec3,
}

impl Trial {
    fn new(sites: &Sites, camera: &Pinhole, shown: Option<&[bool]>) -> Self {
        let is_shown = |site: usize| shown.is_none_or(|shown| shown[site]);
        let positions: Vec<[f32; 3]> = sites.positions.iter().map(Vec3::to_array).collect();
        let radii: Vec<f32> = (0..positions.len()).map(|i| if is_shown(i) { sites.cell } else { -1.0 }).collect();
        let drawn = splat(camera, &positions, &radii, SLACK);
        let is_seen = |&site: &u32| {
            let [x, y, z] = camera.to_camera(positions[site as usize]);
            let [x, y] = [x, y].map(|at| camera.focal[0] * at / z);
            let [x, y] = [x + camera.principal[0], y + camera.principal[1]].map(f32::round);
            let inside = x >= 0.0 && y >= 0.0 && x < camera.width as f32 && y < camera.height as f32;
            is_shown(site as usize)
                && sites.faces(site as usize, Vec3::from_array(camera.center))
                && z >= camera.near
                && inside
                && z <= drawn.depth[y as usize * camera.width + x as usize] + 2.0 * sites.cell
        };
        let seen = (0..positions.len() as u32).filter(is_seen).collect();
        let filled = drawn.index.iter().filter(|index| **index >= 0).count();
        let forward = Vec3::from_array(camera.axes[2]);
        Self { seen, filled: filled as f32 / drawn.index.len() as f32, forward }
    }

    /// Returns true if both views look in the same direction at nearly the same sites.
    fn resembles(&self, other: &Self) -> bool {
        if self.forward.dot(other.forward) < ALIKE {
            return false;
        }
        let common = self.seen.iter().filter(|site| other.seen.binary_search(site).is_ok()).count();
        common as f32 > ALIKE_SEEN * (self.seen.len() + other.seen.len() - common) as f32
    }
}

/// Camera positions from which the surfaces of a scan were seen. They tell front from back.
struct Fronts {
    /// Positions of the cameras.
    eyes: Vec<Vec3>,
    /// For every site, the `eyes` that see it, as one bit each.
    seen_from: Vec<u64>,
    /// Normal of every site, on either side.
    normals: Vec<Vec3>,
    /// For every point or triangle: position, normal on either side, and index of the nearest site.
    elements: Vec<(Vec3, Vec3, u32)>,
}

impl Fronts {
    fn new(scan: &Scan<'_>, cameras: &VirtualCameras, frame: &Frame, sites: &Sites, surveyor: &Surveyor<'_>) -> Self {
        let mut eyes: Vec<(Vec3, f32)> = Vec::new();
        for camera in &cameras.cameras {
            let eye = frame.eye(scan.origin, &camera.pose);
            if eyes.len() < MAX_EYES && eyes.iter().all(|(other, _)| other.distance(eye) > sites.cell) {
                eyes.push((eye, (camera.near * frame.scale) as f32));
            }
        }
        let visible: Vec<Vec<u32>> =
            eyes.par_iter().map(|(eye, near)| surveyor.visible(*eye, *near, Discs::Closed)).collect();
        let mut seen_from = vec![0_u64; sites.positions.len()];
        for (bit, visible) in visible.iter().enumerate() {
            visible.iter().for_each(|&site| seen_from[site as usize] |= 1 << bit);
        }
        let eyes: Vec<Vec3> = eyes.into_iter().map(|(eye, _)| eye).collect();
        // A few sites are seen by no camera. The nearest camera counts for them.
        for (seen_from, position) in
            seen_from.iter_mut().zip(&sites.positions).filter(|(seen_from, _)| **seen_from == 0)
        {
            let distance = |i: &usize| eyes[*i].distance_squared(*position);
            let nearest = (0..eyes.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)));
            *seen_from = nearest.map_or(0, |bit| 1 << bit);
        }
        let positions: Vec<[f32; 3]> = sites.positions.iter().map(Vec3::to_array).collect();
        let normals = sites.surfaces.clone();

        let of_face = |face: &[u32; 3]| {
            let [a, b, c] = face.map(|corner| frame.turned(scan.points[corner as usize]));
            ((a + b + c) / 3.0, (b - a).cross(c - a).normalize_or_zero())
        };
        let elements: Vec<(Vec3, Vec3)> = match scan.faces {
            [] => scan.points.par_iter().map(|p| (frame.turned(*p), Vec3::ZERO)).collect(),
            faces => faces.par_iter().map(of_face).collect(),
        };
        let queries: Vec<[f32; 3]> = elements.iter().map(|(p, _)| p.to_array()).collect();
        let nearest = knn_between(&queries, &positions, 1).index;
        let with_site = |((position, normal), site): ((Vec3, Vec3), i32)| {
            let site = u32::try_from(site).unwrap_or(0);
            (position, if scan.faces.is_empty() { normals[site as usize] } else { normal }, site)
        };
        let elements = elements.into_iter().zip(nearest).map(with_site).collect();
        Self { eyes, seen_from, normals, elements }
    }

    /// Returns true if a position `from` is on the same side of a surface as one of the cameras that see it.
    fn faces(&self, from: Vec3, position: Vec3, normal: Vec3, site: usize) -> bool {
        let side = normal.dot(from - position);
        let mut seen_from = self.seen_from[site];
        while seen_from != 0 {
            let eye = self.eyes[seen_from.trailing_zeros() as usize];
            if side * normal.dot(eye - position) > 0.0 {
                return true;
            }
            seen_from &= seen_from - 1;
        }
        false
    }

    fn shown_sites(&self, sites: &Sites, from: Vec3) -> Vec<bool> {
        let sites = sites.positions.iter().zip(&self.normals).enumerate();
        sites.map(|(site, (position, normal))| self.faces(from, *position, *normal, site)).collect()
    }

    /// Returns one entry per point or triangle: true if it is drawn.
    fn shown(&self, from: Vec3) -> Vec<bool> {
        let shown = |(position, normal, site): &(Vec3, Vec3, u32)| self.faces(from, *position, *normal, *site as usize);
        self.elements.par_iter().with_min_len(1 << 12).map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use glam::DVec3;

    use super::super::render::{self, Renderer, Scene};
    use super::super::virtual_cameras::tests::{room, scan};
    use super::super::virtual_cameras::{Options, virtual_cameras};
    use super::*;

    fn found(scan: &Scan<'_>, count: usize) -> (VirtualCameras, Vec<Viewpoint>) {
        let cameras = virtual_cameras(scan, &Options::default());
        let views = viewpoints(scan, &cameras, count, 640, 480);
        for view in &views {
            let [x, y] = [view.camera.intrinsics.width, view.camera.intrinsics.height];
            assert_eq!((x, y), (640, 480));
            // Upright: y points down.
            assert!((view.camera.pose.rotation() * DVec3::Y).dot(cameras.up) < 0.0);
        }
        (cameras, views)
    }

    /// Returns true for each element that some pixel shows.
    fn seen(scan: &Scan<'_>, view: &Viewpoint) -> Vec<bool> {
        let radii = render::radii(scan.points);
        let colors = vec![[0; 3]; scan.points.len()];
        let scene =
            Scene { points: scan.points, origin: scan.origin, colors: &colors, faces: scan.faces, radii: &radii };
        let mut renderer = Renderer::new(&scene, &Device::flex()).unwrap();
        if let Some(shown) = &view.shown {
            renderer = renderer.showing(shown).unwrap();
        }
        let pinhole = render::pinhole(&view.camera.intrinsics, &view.camera.pose, scan.origin, view.camera.near);
        let index = renderer.seen(&pinhole).unwrap().index;
        let mut seen = vec![false; if scan.faces.is_empty() { scan.points.len() } else { scan.faces.len() }];
        index.iter().filter_map(|i| usize::try_from(*i).ok()).for_each(|i| seen[i] = true);
        seen
    }

    /// Returns the smallest and largest column and row of the drawn points, as shares of the picture.
    fn extent(scan: &Scan<'_>, view: &Viewpoint) -> [f64; 4] {
        let mut extent = [f64::MAX, f64::MAX, f64::MIN, f64::MIN];
        for (i, point) in scan.points.iter().enumerate() {
            if view.shown.as_ref().is_none_or(|shown| shown[i]) {
                let p = DVec3::from(point.map(f64::from)) + DVec3::from(scan.origin);
                let at = view.camera.intrinsics.project(view.camera.pose.to_camera(p)).unwrap();
                let [x, y] = [(at.x + 0.5) / 640.0, (at.y + 0.5) / 480.0];
                extent = [extent[0].min(x), extent[1].min(y), extent[2].max(x), extent[3].max(y)];
            }
        }
        extent
    }

    fn is_filled([left, top, right, bottom]: [f64; 4]) -> bool {
        let inside = left >= 0.0 && top >= 0.0 && right <= 1.0 && bottom <= 1.0;
        inside && (right - left > 0.85 || bottom - top > 0.85)
    }

    #[test]
    fn the_overview_of_a_room_looks_in_from_above() {
        let points = room(0.04);
        let scan = Scan { origin: [500_103.0, 4_000_002.0, 101.3], ..scan(&points) };
        let (cameras, views) = found(&scan, 4);
        assert_eq!(cameras.kind, SceneKind::Interior);
        assert_eq!(views.iter().map(|view| view.kind).collect::<Vec<_>>(), {
            use ViewpointKind::{Overview, View};
            [Overview, View, View, View]
        });
        let overview = &views[0];
        assert!(overview.camera.pose.center().z - scan.origin[2] > 2.0);
        assert!(is_filled(extent(&scan, overview)), "{:?}", extent(&scan, overview));
        let shown = overview.shown.as_ref().unwrap();
        let share = |of: &dyn Fn(&[f32; 3]) -> bool, what: &[bool]| {
            let chosen: Vec<bool> = points.iter().zip(what).filter(|(p, _)| of(p)).map(|(_, is)| *is).collect();
            chosen.iter().filter(|is| **is).count() as f64 / chosen.len() as f64
        };
        let inner = |p: &[f32; 3]| p[0].abs() < 2.8 && p[1].abs() < 1.8;
        let floor = |p: &[f32; 3]| inner(p) && p[2] < -1.29;
        let ceiling = |p: &[f32; 3]| inner(p) && p[2] > 1.29;
        assert!(share(&floor, shown) > 0.97 && share(&ceiling, shown) < 0.03, "{}", share(&ceiling, shown));
        // 12 % of the floor is below the furniture.
        let seen = seen(&scan, overview);
        assert!(share(&floor, &seen) > 0.7, "{}", share(&floor, &seen));
        assert_eq!(viewpoints(&scan, &cameras, 4, 640, 480), views);
    }

    #[test]
    fn a_mesh_is_cut_open_by_triangles() {
        // A room of two triangles per side, seen by cameras inside.
        let points: Vec<[f32; 3]> = (0..8)
            .map(|i| [(i & 1) as f32 * 6.0 - 3.0, (i >> 1 & 1) as f32 * 4.0 - 2.0, (i >> 2) as f32 * 2.6])
            .collect();
        let quads = [[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]];
        let faces: Vec<[u32; 3]> = quads.iter().flat_map(|[a, b, c, d]| [[*a, *b, *c], [*a, *c, *d]]).collect();
        let scan = Scan { faces: &faces, ..scan(&points) };
        let options = Options { kind: Some(SceneKind::Interior), ..Options::default() };
        let cameras = virtual_cameras(&scan, &options);
        assert_eq!(cameras.kind, SceneKind::Interior);
        let views = viewpoints(&scan, &cameras, 1, 640, 480);
        let shown = views[0].shown.as_ref().unwrap();
        assert_eq!(shown[..4], [true, true, false, false]);
        // One or two walls are in the way.
        assert!((6..=8).contains(&shown.iter().filter(|shown| **shown).count()), "{shown:?}");
        assert_eq!(seen(&scan, &views[0]), *shown);
    }

    #[test]
    fn objects_are_shown_from_several_sides() {
        let ball: Vec<[f32; 3]> = around(80, &[-80.0, -60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0, 80.0])
            .iter()
            .map(|p| (*p * 0.2).to_array())
            .collect();
        let scan = scan(&ball);
        let (_, views) = found(&scan, 6);
        // After overviews from four sides, few more views are needed.
        assert!((4..=6).contains(&views.len()), "{}", views.len());
        for view in &views[..4] {
            assert_eq!((view.kind, &view.shown), (ViewpointKind::Overview, &None));
            assert!(is_filled(extent(&scan, view)), "{:?}", extent(&scan, view));
            assert!(view.camera.pose.center().z > 0.1);
        }
        let forward = |view: &Viewpoint| view.camera.pose.rotation() * DVec3::Z;
        let level = |view: &Viewpoint| forward(view).truncate().normalize();
        assert!(level(&views[0]).dot(level(&views[1])) < -0.99);
    }

    #[test]
    fn sides_are_good_and_far_apart() {
        assert_eq!(sides(&[1.0; TURNS], 4), [0, 8, 4, 12]);
        assert_eq!(sides(&[1.0; TURNS], 1), [0]);
        // Only one side has good directions.
        let scores: Vec<f32> = (0..TURNS).map(|turn| if (3..8).contains(&turn) { turn as f32 } else { 0.5 }).collect();
        assert_eq!(sides(&scores, 4), [7]);
        assert_eq!(sides(&[], 4), [0; 0]);
    }

    #[test]
    fn a_fitted_camera_touches_what_it_shows() {
        let positions = [Vec3::new(-2.0, 0.0, 5.0), Vec3::new(1.0, 0.5, 4.0), Vec3::new(0.0, -1.0, 9.0)];
        let reach = Vec2::new(0.5, 0.25);
        let (eye, near) = fit(&positions, reach, 0.1).unwrap();
        let seen = positions.map(|p| (p - eye).truncate() / (p - eye).z / reach);
        let most = seen.iter().flat_map(|p| p.abs().to_array()).fold(0.0, f32::max);
        assert!((most - 1.0).abs() < 1e-5, "{seen:?}");
        assert!((near - (4.0 - eye.z) / 2.0).abs() < 1e-6);
        assert_eq!(fit(&[], reach, 0.1), None);
        // A single point is viewed from a small distance.
        assert_eq!(fit(&positions[..1], reach, 0.1).unwrap().0.z, 4.9);
    }

    #[test]
    fn a_scanners_own_view_comes_first() {
        let mut points = Vec::new();
        for (x, y) in (-60..=60).flat_map(|x| (-45..=45).map(move |y| (x as f32 * 0.01, y as f32 * 0.01))) {
            let z = if x.abs() < 0.2 && y > 0.0 { 2.0 } else { 3.5 };
            points.push([x * z, y * z, z - 3.0]);
        }
        let scan = Scan { origin: [0.0, 0.0, 3.0], ..scan(&points) };
        let (cameras, views) = found(&scan, 3);
        assert_eq!(cameras.kind, SceneKind::SingleViewpoint);
        // Another camera shows only edges of what is in front.
        let kinds: Vec<ViewpointKind> = views.iter().map(|view| view.kind).collect();
        assert_eq!(kinds, [ViewpointKind::View, ViewpointKind::Overview, ViewpointKind::View]);
        let own = &views[0].camera.pose;
        assert!((own.rotation() * DVec3::Z).z > 0.98 && own.center().truncate().length() < 0.1, "{own:?}");
        assert!(seen(&scan, &views[0]).iter().filter(|seen| **seen).count() * 10 > points.len() * 9);
        // It looks from behind and above, which is −y.
        let overview = &views[1].camera.pose;
        assert!(overview.center().y < -1.0 && overview.center().z < 2.0, "{overview:?}");
    }

    #[test]
    fn degenerate_scans_and_sizes_do_no_harm() {
        let line: Vec<[f32; 3]> = (0..1000).map(|i| [i as f32 * 0.01 - 5.0, 0.0, 0.0]).collect();
        let kinds = [SceneKind::Interior, SceneKind::SingleViewpoint, SceneKind::Object, SceneKind::Terrain];
        for points in [vec![[1.0; 3]], vec![[0.5; 3]; 1000], line, vec![[0.0; 3], [1e38, -1e38, 1e38]]] {
            for kind in kinds {
                let cameras = virtual_cameras(&scan(&points), &Options { kind: Some(kind), ..Options::default() });
                let views = viewpoints(&scan(&points), &cameras, 9, 64, 48);
                assert!(!views.is_empty(), "{kind}: {points:?}");
                for (width, height) in [(0, 0), (1, 1), (1, 4000)] {
                    let _ = viewpoints(&scan(&points), &cameras, 2, width, height);
                }
            }
        }
        let cameras = virtual_cameras(&scan(&[]), &Options::default());
        assert!(viewpoints(&scan(&[]), &cameras, 3, 640, 480).is_empty());
        let one = [[1.0; 3]];
        let cameras = virtual_cameras(&scan(&one), &Options::default());
        assert!(viewpoints(&scan(&one), &cameras, 0, 640, 480).is_empty());
    }
}
