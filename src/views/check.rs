//! Whether poses and depths are what they are taken for, told from the depth maps themselves.
//!
//! Points of one depth map are put into the camera of another and compared with its depth. With the right convention
//! they agree within the sensor's noise; with a wrong one they are off by about as much as the camera moved.

use std::fmt;

use super::camera::{Axes, Direction};
use super::{Dataset, DepthImage, Intrinsics, Pose, PoseConvention, ViewsError};

/// Frames that are compared with a neighbour.
const ANCHORS: usize = 8;
/// How far ahead neighbours are looked for, in frames.
const OFFSETS: [usize; 9] = [1, 2, 3, 5, 8, 13, 21, 34, 55];
/// Largest angle between neighbours, in radians: they must see the same things.
const MAX_ANGLE: f64 = 0.35;
/// Largest distance of neighbours as a share of the median depth.
const MAX_BASELINE: f64 = 0.35;
/// Points of a depth map that are put into the other camera.
const SAMPLES: usize = 4000;
/// How many times better a reading must be to count as clearly better.
const CLEARLY: f64 = 2.0;
/// Largest median error of a reading that can be right, as a share of the median depth.
const MAX_ERROR: f64 = 0.04;
/// Smallest share of points that must meet a depth in the other map.
const MIN_OVERLAP: f64 = 0.05;
/// Median depths of rooms and of what one walks past, in metres.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 0.2..=20.0;
/// What depths are off by where a scale is mistaken for another (millimetres, 1/4000, 1/5000, 1/6553.5 m).
const SCALES: [f64; 12] =
    [0.001, 1.0 / 6.5535, 0.2, 0.25, 5.0 / 6.5535, 0.8, 1.25, 6.5535 / 5.0, 4.0, 5.0, 6.5535, 1000.0];

/// How far to either side of a scale another one must be worse.
const BRACKET: f64 = 10.0;

/// A way to read the poses of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// By this convention.
    Convention(PoseConvention),
    /// By the stated convention, but the rotation stored column by column.
    Transposed,
    /// By the stated convention, but in left-handed axes.
    LeftHanded,
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Convention(convention) => write!(f, "{convention}"),
            Self::Transposed => f.write_str("rotations stored column by column"),
            Self::LeftHanded => f.write_str("left-handed axes"),
        }
    }
}

/// How well depth maps agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Median of |depth expected − depth found| in metres; infinite without overlap.
    pub median_error: f64,
    /// Share of points that meet a depth in the other map, 0 to 1.
    pub overlap: f64,
}

impl Agreement {
    /// Smaller is better; points that meet nothing speak against a reading as well.
    fn score(&self) -> f64 {
        if self.overlap > 0.0 { self.median_error / self.overlap } else { f64::INFINITY }
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median error {:.1} mm, overlap {:.0} %", self.median_error * 1e3, self.overlap * 1e2)
    }
}

/// What the depth maps say of the poses.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The stated convention is clearly the best.
    Confirmed,
    /// Another reading is clearly better.
    Contradicted(Reading),
    /// Nothing can be said, for this reason.
    Undecided(&'static str),
}

/// The result of [`check`].
#[derive(Clone, Debug, PartialEq)]
pub struct PoseCheck {
    /// The convention by which the poses were read, `None` without poses.
    pub stated: Option<PoseConvention>,
    /// How well depth maps agree by it, with depths multiplied by `depth_factor` where there is one.
    pub agreement: Agreement,
    /// How well they agree when the poses are read otherwise.
    pub others: Vec<(Reading, Agreement)>,
    /// What follows for the poses.
    pub verdict: Verdict,
    /// By what all depths should be multiplied for the maps to agree with the poses, if that is clear.
    pub depth_factor: Option<f64>,
    /// Median of all depths that were looked at, in metres; 0 without depth.
    pub median_depth: f64,
    /// False if the scale is metric and no room has depths like these.
    pub plausible_depth: bool,
    /// Pairs of frames that were compared.
    pub pairs: usize,
}

impl fmt::Display for PoseCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stated = self.stated.map_or_else(|| "no poses".to_owned(), |convention| convention.to_string());
        match &self.verdict {
            Verdict::Confirmed => write!(f, "the poses are {stated}, as the depth maps confirm ({}", self.agreement)?,
            Verdict::Contradicted(better) => {
                let found = self.others.iter().find(|(reading, _)| reading == better);
                write!(f, "the poses are taken for {stated} ({}", self.agreement)?;
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

/// A pose that was read by one convention, read by another.
pub(super) fn reread(pose: &Pose, from: PoseConvention, to: PoseConvention) -> Pose {
    let flip = |pose: Pose, axes| if axes == Axes::OpenGl { pose.with_flipped_yz() } else { pose };
    let turn = |pose: Pose, direction| if direction == Direction::WorldToCamera { pose.inverse() } else { pose };
    let written = turn(flip(*pose, from.axes), from.direction);
    flip(turn(written, to.direction), to.axes)
}

/// A depth map and the camera that took it.
struct Shot {
    depth: DepthImage,
    camera: Intrinsics,
    pose: Pose,
}

/// All ways to read poses that are compared, with what each makes of a pose read as stated.
fn readings(stated: PoseConvention, mirrored: bool) -> Vec<(Reading, impl Fn(&Pose) -> Pose)> {
    let conventions = [Axes::OpenCv, Axes::OpenGl].into_iter().flat_map(|axes| {
        [Direction::CameraToWorld, Direction::WorldToCamera].map(|direction| PoseConvention { axes, direction })
    });
    let others = conventions.filter(move |&convention| convention != stated).map(Reading::Convention);
    let all = others.chain([Reading::Transposed, Reading::LeftHanded]);
    let pose_as = move |reading: Reading, pose: &Pose| {
        let handed = |pose: &Pose| if mirrored { pose.mirrored() } else { *pose };
        match reading {
            Reading::Convention(convention) => handed(&reread(&handed(pose), stated, convention)),
            Reading::Transposed => {
                let written = reread(&handed(pose), stated, PoseConvention::OPENCV_CAMERA_TO_WORLD);
                let turned = written.with_transposed_rotation();
                handed(&reread(&turned, PoseConvention::OPENCV_CAMERA_TO_WORLD, stated))
            }
            Reading::LeftHanded => pose.mirrored(),
        }
    };
    all.map(|reading| (reading, move |pose: &Pose| pose_as(reading, pose))).collect()
}

/// Tests the poses and the scale of depth of a recording on up to 8 pairs of neighbouring frames.
///
/// # Errors
/// None of its own: a depth map that cannot be read is left out. If no depth map can, the first error.
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
            Some(stated) if !pairs.is_empty() => readings(stated, conventions.mirrored)
                .into_iter()
                .map(|(reading, pose_as)| (reading, agreement(&pairs, pose_as, factor)))
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
    // Another convention explains more than another scale does.
    if !best.is_some_and(|(_, other)| clearly_better(&other, &stated_agreement, 1.0))
        && let Some(found) = better_scale(&pairs)
    {
        factor = found;
        (stated_agreement, others, best) = compare(factor);
    }
    let verdict = match best {
        _ if conventions.pose.is_none() => Verdict::Undecided("the recording has no poses"),
        _ if usable.is_empty() => Verdict::Undecided("no frame has both depth and a valid pose"),
        _ if pairs.is_empty() => Verdict::Undecided("no two frames with depth and valid poses look the same way"),
        Some((reading, other)) if clearly_better(&other, &stated_agreement, factor) => Verdict::Contradicted(reading),
        _ if !is_right(&stated_agreement, median_depth * factor) => {
            Verdict::Undecided("the depth maps agree by no reading of the poses")
        }
        Some((_, other)) if stated_agreement.score() * CLEARLY < other.score() => Verdict::Confirmed,
        _ => Verdict::Undecided("the camera moves too little to tell one reading from another"),
    };
    let depth_factor = (factor != 1.0).then_some(factor);
    let (stated, pairs) = (conventions.pose, pairs.len());
    let agreement = stated_agreement;
    Ok(PoseCheck { stated, agreement, others, verdict, depth_factor, median_depth, plausible_depth, pairs })
}

fn is_right(agreement: &Agreement, median_depth: f64) -> bool {
    agreement.overlap >= MIN_OVERLAP && agreement.median_error <= MAX_ERROR * median_depth
}

/// By what all depths should be multiplied, if one of the known mistakes explains the maps far better than the scale
/// as it is.
fn better_scale(pairs: &[[Shot; 2]]) -> Option<f64> {
    // Relative to the depth: in metres everything agrees better if it is smaller.
    let relative = |factor: f64| agreement(pairs, |pose| *pose, factor).score() / factor;
    let (factor, score) =
        SCALES.into_iter().map(|factor| (factor, relative(factor))).min_by(|a, b| a.1.total_cmp(&b.1))?;
    // A scale is only told where a larger one is worse again: scaled up far enough, every error of a position vanishes.
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

/// The frame among those after `usable[anchor]` that is furthest from it and yet sees much of the same, as far as
/// that can be told without knowing the convention: angles are the same in both directions, distances are not.
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
    // If all seem far away, the scale of depth may be wrong.
    furthest.or_else(|| parallel.iter().min_by(|a, b| a.1.1.total_cmp(&b.1.1))).map(|(i, _)| *i)
}

fn median(mut values: Vec<f32>) -> Option<f32> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f32::total_cmp).1)
}

/// Puts points of each frame into the other of its pair, with depths multiplied by `factor`.
fn agreement(pairs: &[[Shot; 2]], pose_as: impl Fn(&Pose) -> Pose, factor: f64) -> Agreement {
    let mut errors: Vec<f32> = Vec::new();
    let mut tried = 0_usize;
    for [a, b] in pairs {
        for (from, to) in [(a, b), (b, a)] {
            let (here, there) = (pose_as(&from.pose), pose_as(&to.pose));
            let (width, meters) = (from.depth.width(), from.depth.meters());
            // Not a multiple of the width, so that columns differ from row to row.
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
