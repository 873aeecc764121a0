//! Check of a recording's pose convention and depth scale, from its own depth maps.
//!
//! Points of one depth map are projected into the camera of another and compared with its depth. With the
//! right convention they agree within the sensor's noise. With a wrong one the error is about as large as the
//! camera's motion.

use std::fmt;

use glam::{DMat3, DQuat};

use super::camera::{Axes, Direction};
use super::{Conventions, Dataset, DepthImage, Intrinsics, Pose, PoseConvention, ViewsError};

/// Number of frames that are compared with a neighbour.
const ANCHORS: usize = 8;
/// Offsets in frames at which a neighbour is looked for.
const OFFSETS: [usize; 9] = [1, 2, 3, 5, 8, 13, 21, 34, 55];
/// Largest angle between neighbours, in radians, so that they see the same things.
const MAX_ANGLE: f64 = 0.35;
/// Largest distance between neighbours, as a share of the median depth.
const MAX_BASELINE: f64 = 0.35;
/// Number of points of a depth map that are projected into the other camera.
const SAMPLES: usize = 4000;
/// Ratio of scores from which one reading counts as clearly better than another.
const CLEARLY: f64 = 2.0;
/// Largest median error of a correct reading, as a share of the median depth.
const MAX_ERROR: f64 = 0.04;
/// Smallest share of points that must have a depth in the other map.
const MIN_OVERLAP: f64 = 0.05;
/// Plausible median depths of indoor scenes and of scenes at walking distance, in metres.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 0.2..=20.0;
/// Depth factors that correct one scale mistaken for another (millimetres, 1/4000, 1/5000, 1/6553.5 m).
const SCALES: [f64; 12] =
    [0.001, 1.0 / 6.5535, 0.2, 0.25, 5.0 / 6.5535, 0.8, 1.25, 6.5535 / 5.0, 4.0, 5.0, 6.5535, 1000.0];

/// Factor around a scale within which a larger and a smaller scale must be worse.
const BRACKET: f64 = 10.0;

/// A way to interpret the poses of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// In this convention.
    Convention(PoseConvention),
    /// In the stated convention, but with the rotation stored column by column.
    Transposed,
    /// In the stated convention, but in left-handed axes.
    LeftHanded,
    /// In the stated convention, but with quaternions stored as w x y z and read as x y z w.
    ScalarFirst,
    /// In the stated direction, but of a robot's body instead of the camera's: x forward, y left, z up.
    Body,
}

impl From<PoseConvention> for Reading {
    fn from(convention: PoseConvention) -> Self {
        Self::Convention(convention)
    }
}

impl Reading {
    /// Converts a pose that was read in the stated convention of a recording to this reading.
    pub(super) fn of(self, pose: &Pose, conventions: &Conventions) -> Pose {
        let Some(stated) = conventions.pose else { return *pose };
        let handed = |pose: &Pose| if conventions.mirrored { pose.mirrored() } else { *pose };
        // As the numbers were before they were read.
        let written = || reread(&handed(pose), stated, PoseConvention::OPENCV_CAMERA_TO_WORLD);
        let read = |written: &Pose| handed(&reread(written, PoseConvention::OPENCV_CAMERA_TO_WORLD, stated));
        match self {
            Self::Convention(convention) => handed(&reread(&handed(pose), stated, convention)),
            Self::Transposed => read(&written().with_transposed_rotation()),
            Self::LeftHanded => pose.mirrored(),
            Self::ScalarFirst => {
                let written = written();
                let [w, x, y, z] = DQuat::from_mat3(&written.rotation()).to_array();
                read(&written.with_rotation(DQuat::from_xyzw(x, y, z, w)))
            }
            Self::Body => {
                let body_from_camera = DMat3::from_cols_array(&[0.0, -1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0]);
                let body = reread(&handed(pose), stated, PoseConvention { axes: Axes::OpenCv, ..stated });
                let turned = body.rotation() * body_from_camera;
                handed(&body.with_rotation(DQuat::from_mat3(&turned)))
            }
        }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Convention(convention) => write!(f, "{convention}"),
            Self::Transposed => f.write_str("rotations stored column by column"),
            Self::LeftHanded => f.write_str("left-handed axes"),
            Self::ScalarFirst => f.write_str("quaternions with w first"),
            Self::Body => f.write_str("poses of a robot's body (x forward, y left, z up)"),
        }
    }
}

/// Agreement of depth maps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Median of |depth expected − depth found| in metres; infinite without overlap.
    pub median_error: f64,
    /// Share of points that have a depth in the other map, 0 to 1.
    pub overlap: f64,
}

impl Agreement {
    /// Returns the score of a reading; smaller is better. Points without a depth in the other map increase
    /// it.
    fn score(&self) -> f64 {
        if self.overlap > 0.0 { self.median_error / self.overlap } else { f64::INFINITY }
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median error {:.1} mm, overlap {:.0} %", self.median_error * 1e3, self.overlap * 1e2)
    }
}

/// Conclusion about the poses from the depth maps.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The stated convention is clearly the best.
    Confirmed,
    /// Another reading is clearly better.
    Contradicted(Reading),
    /// The depth maps allow no conclusion, for this reason.
    Undecided(&'static str),
}

/// Result of [`check`].
#[derive(Clone, Debug, PartialEq)]
pub struct PoseCheck {
    /// Convention in which the poses were read; `None` without poses.
    pub stated: Option<PoseConvention>,
    /// Agreement of the depth maps in that convention. Depths are multiplied by `depth_factor` if there is
    /// one.
    pub agreement: Agreement,
    /// Agreement for each other reading of the poses.
    pub others: Vec<(Reading, Agreement)>,
    /// Conclusion about the poses.
    pub verdict: Verdict,
    /// Factor by which all depths should be multiplied to agree with the poses, if it is clear.
    pub depth_factor: Option<f64>,
    /// Median of all checked depths, in metres; 0 without depth.
    pub median_depth: f64,
    /// False if the scale is metric and the depths are implausible for a room.
    pub plausible_depth: bool,
    /// Number of pairs of frames compared.
    pub pairs: usize,
}

impl fmt::Display for PoseCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stated = self.stated.map_or_else(|| "no poses".to_owned(), |convention| convention.to_string());
        match &self.verdict {
            Verdict::Confirmed => write!(f, "the poses are {stated}, as the depth maps confirm ({}", self.agreement)?,
            Verdict::Contradicted(better) => {
                let found = self.others.iter().find(|(reading, _)| reading == better);
                write!(f, "the poses were read as {stated} ({}", self.agreement)?;
                if let Some((_, agreement)) = found {
                    write!(f, "), but the depth maps agree better with {better} ({agreement}")?;
                }
            }
            Verdict::Undecided(why) if self.pairs == 0 => write!(f, "the poses ({stated}) cannot be checked: {why}")?,
            Verdict::Undecided(why) => write!(f, "the poses ({stated}) cannot be checked: {why} ({}", self.agreement)?,
        }
        match self.pairs {
            0 => {}
            1 => f.write_str("; 1 pair of frames)")?,
            pairs => write!(f, "; {pairs} pairs of frames)")?,
        }
        if let Some(factor) = self.depth_factor {
            write!(
                f,
                "; the scale of depth seems wrong: the maps agree with the poses if depths are multiplied by {factor:.4}"
            )?;
        } else if !self.plausible_depth {
            write!(f, "; the median depth of {:.3} m is implausible: is the scale of depth right?", self.median_depth)?;
        }
        Ok(())
    }
}

/// Converts a pose read in one convention to another convention.
pub(super) fn reread(pose: &Pose, from: PoseConvention, to: PoseConvention) -> Pose {
    let flip = |pose: Pose, axes| if axes == Axes::OpenGl { pose.with_flipped_yz() } else { pose };
    let turn = |pose: Pose, direction| if direction == Direction::WorldToCamera { pose.inverse() } else { pose };
    let written = turn(flip(*pose, from.axes), from.direction);
    flip(turn(written, to.direction), to.axes)
}

/// A depth map with its camera and pose.
struct Shot {
    depth: DepthImage,
    camera: Intrinsics,
    pose: Pose,
}

/// Returns all other readings of poses.
fn readings(stated: PoseConvention) -> impl Iterator<Item = Reading> {
    let conventions = [Axes::OpenCv, Axes::OpenGl].into_iter().flat_map(|axes| {
        [Direction::CameraToWorld, Direction::WorldToCamera].map(|direction| PoseConvention { axes, direction })
    });
    let others = conventions.filter(move |&convention| convention != stated).map(Reading::Convention);
    others.chain([Reading::Transposed, Reading::LeftHanded, Reading::ScalarFirst, Reading::Body])
}

/// Checks the poses and the depth scale of a recording on up to 8 pairs of neighbouring frames.
///
/// # Errors
/// Returns the first read error if no depth map can be read. Single unreadable depth maps are skipped.
pub fn check(dataset: &dyn Dataset) -> Result<PoseCheck, ViewsError> {
    let conventions = dataset.conventions();
    let usable: Vec<usize> = (0..dataset.len())
        .filter(|&i| {
            let frame = &dataset.frames()[i];
            frame.has_depth() && (conventions.pose.is_none() || frame.pose_of_depth().is_some())
        })
        .collect();
    let mut first_error = None;
    let mut pairs: Vec<[Shot; 2]> = Vec::new();
    let mut depths: Vec<f32> = Vec::new();
    let anchors = usable.len().min(ANCHORS);
    for anchor in (0..anchors).map(|k| k * usable.len() / anchors) {
        let Some(first) = shot(dataset, usable[anchor], &mut first_error) else { continue };
        let median = median(first.depth.meters().iter().copied().filter(|&depth| depth > 0.0).step_by(7).collect());
        let Some(median) = median else { continue };
        depths.extend(first.depth.meters().iter().filter(|&&depth| depth > 0.0).step_by(97));
        if let Some(neighbor) = neighbor(dataset, &usable, anchor, f64::from(median))
            && let Some(second) = shot(dataset, neighbor, &mut first_error)
        {
            pairs.push([first, second]);
        }
    }
    if let (true, Some(error)) = (depths.is_empty(), first_error) {
        return Err(error);
    }
    let median_depth = median(depths).map_or(0.0, f64::from);
    let plausible_depth = !conventions.metric || median_depth == 0.0 || PLAUSIBLE.contains(&median_depth);

    let compare = |factor: f64| {
        let stated = agreement(&pairs, |pose| *pose, factor);
        let others: Vec<(Reading, Agreement)> = match conventions.pose {
            Some(stated) if !pairs.is_empty() => readings(stated)
                .map(|reading| (reading, agreement(&pairs, |pose| reading.of(pose, conventions), factor)))
                .collect(),
            _ => Vec::new(),
        };
        let best = others.iter().min_by(|a, b| a.1.score().total_cmp(&b.1.score())).copied();
        (stated, others, best)
    };
    let (mut stated_agreement, mut others, mut best) = compare(1.0);
    let clearly_better = |other: &Agreement, stated: &Agreement, factor: f64| {
        is_right(other, median_depth * factor) && other.score() * CLEARLY < stated.score()
    };
    let mut factor = 1.0;
    // Another convention is tried first, because it explains more than another scale.
    if !best.is_some_and(|(_, other)| clearly_better(&other, &stated_agreement, 1.0))
        && let Some(found) = better_scale(&pairs)
    {
        factor = found;
        (stated_agreement, others, best) = compare(factor);
    }
    let verdict = match best {
        _ if conventions.pose.is_none() => Verdict::Undecided("the recording has no poses"),
        _ if usable.is_empty() => Verdict::Undecided("no frame has both depth and a valid pose"),
        _ if pairs.is_empty() => {
            Verdict::Undecided("no two frames with depth and valid poses look in the same direction")
        }
        Some((reading, other)) if clearly_better(&other, &stated_agreement, factor) => Verdict::Contradicted(reading),
        _ if !is_right(&stated_agreement, median_depth * factor) => {
            Verdict::Undecided("the depth maps agree in no convention of the poses")
        }
        Some((_, other)) if stated_agreement.score() * CLEARLY < other.score() => Verdict::Confirmed,
        _ => Verdict::Undecided("the camera moves too little to tell the conventions apart"),
    };
    let depth_factor = (factor != 1.0).then_some(factor);
    let (stated, pairs) = (conventions.pose, pairs.len());
    let agreement = stated_agreement;
    Ok(PoseCheck { stated, agreement, others, verdict, depth_factor, median_depth, plausible_depth, pairs })
}

fn is_right(agreement: &Agreement, median_depth: f64) -> bool {
    agreement.overlap >= MIN_OVERLAP && agreement.median_error <= MAX_ERROR * median_depth
}

/// Returns the factor for all depths if one of the known scale mistakes explains the maps far better than the
/// scale as it is.
fn better_scale(pairs: &[[Shot; 2]]) -> Option<f64> {
    // Relative to the depth, because in metres any smaller scale agrees better.
    let relative = |factor: f64| agreement(pairs, |pose| *pose, factor).score() / factor;
    let (factor, score) =
        SCALES.into_iter().map(|factor| (factor, relative(factor))).min_by(|a, b| a.1.total_cmp(&b.1))?;
    // Accept a scale only if a larger one is worse again. At a large enough scale, every error of a position
    // vanishes.
    let worse = [1.0, factor / BRACKET, factor * BRACKET];
    let clear =
        worse.into_iter().zip([CLEARLY * CLEARLY, CLEARLY, CLEARLY]).all(|(other, by)| score * by < relative(other));
    clear.then_some(factor)
}

fn shot(dataset: &dyn Dataset, index: usize, first_error: &mut Option<ViewsError>) -> Option<Shot> {
    let frame = &dataset.frames()[index];
    let (camera, pose) = (frame.depth?, frame.pose_of_depth().unwrap_or_default());
    match dataset.depth(index) {
        Ok(depth) => depth.map(|depth| Shot { depth, camera, pose }),
        Err(error) => {
            *first_error = first_error.take().or(Some(error));
            None
        }
    }
}

/// Chooses the neighbour of `usable[anchor]`: the later frame farthest from it that still sees much of the
/// same. The convention is unknown here. Angles do not depend on the direction of the poses, but distances
/// do, so the smaller one counts.
fn neighbor(dataset: &dyn Dataset, usable: &[usize], anchor: usize, median_depth: f64) -> Option<usize> {
    let pose = |i: usize| dataset.frames()[i].pose_of_depth();
    let here = pose(usable[anchor])?;
    let motion = |there: &Pose| {
        let forward = here.center().distance(there.center());
        let backward = here.inverse().center().distance(there.inverse().center());
        (here.angle_to(there), forward.min(backward) / median_depth)
    };
    let near = OFFSETS.iter().filter_map(|offset| usable.get(anchor + offset).copied());
    let parallel: Vec<_> =
        near.filter_map(|i| Some((i, motion(&pose(i)?)))).filter(|(_, (angle, _))| *angle <= MAX_ANGLE).collect();
    let fitting = parallel.iter().filter(|(_, (_, baseline))| *baseline <= MAX_BASELINE);
    let furthest = fitting.max_by(|a, b| (a.1.0 + a.1.1).total_cmp(&(b.1.0 + b.1.1)));
    // If all frames seem too far away, the depth scale may be wrong, so take the nearest.
    furthest.or_else(|| parallel.iter().min_by(|a, b| a.1.1.total_cmp(&b.1.1))).map(|(i, _)| *i)
}

fn median(mut values: Vec<f32>) -> Option<f32> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f32::total_cmp).1)
}

/// Projects points of each frame into the other of its pair, with depths multiplied by `factor`.
fn agreement(pairs: &[[Shot; 2]], pose_as: impl Fn(&Pose) -> Pose, factor: f64) -> Agreement {
    let mut errors: Vec<f32> = Vec::new();
    let mut tried = 0_usize;
    for [a, b] in pairs {
        for (from, to) in [(a, b), (b, a)] {
            let (here, there) = (pose_as(&from.pose), pose_as(&to.pose));
            let (width, meters) = (from.depth.width(), from.depth.meters());
            // The step is odd, so that the sampled columns differ from row to row.
            let step = (meters.len() / SAMPLES) | 1;
            for i in (0..meters.len()).step_by(step).filter(|&i| meters[i] > 0.0) {
                tried += 1;
                let (u, v) = ((i % width) as f64, (i / width) as f64);
                let point = from.camera.unproject(u, v, f64::from(meters[i]) * factor);
                let point = there.to_camera(here.to_world(point));
                let Some([x, y]) = to.camera.pixel(point) else { continue };
                if let Some(depth) = to.depth.at(x, y) {
                    errors.push((point.z - f64::from(depth) * factor).abs() as f32);
                }
            }
        }
    }
    let overlap = errors.len() as f64 / tried.max(1) as f64;
    Agreement { median_error: median(errors).map_or(f64::INFINITY, f64::from), overlap }
}
