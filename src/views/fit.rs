//! Whether a scan and a recording belong together: the scan's depth, as the recorded cameras see it, compared
//! with the recorded depth.

use std::fmt;

use glam::{DMat3, DVec3};

use super::{Dataset, DepthImage, Intrinsics, Pose, ViewsError};

/// Number of frames that are compared.
const FRAMES: usize = 12;
/// Number of cells along the longer edge of a depth map. The nearest point of a cell is what a camera sees of
/// a scan with gaps between its points.
const CELLS: usize = 32;
/// Largest number of points that are drawn.
const POINTS: usize = 300_000;
/// Difference of depth that counts as the same surface: metres, and a share of the depth.
const TOLERANCE: (f64, f64) = (0.05, 0.02);
/// Shares of agreeing cells below which a scan is doubtful, and does not fit.
const DOUBTFUL: f64 = 0.7;
const UNFIT: f64 = 0.2;
/// Share of agreeing cells from which a scan with turned axes counts as found.
const FOUND: f64 = 0.6;

/// Agreement of a scan with a recording's depth maps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Cells of the depth maps with a recorded depth.
    pub recorded: usize,
    /// Of these, cells in which the scan has points too.
    pub compared: usize,
    /// Of these, cells in which the nearest point has the recorded depth.
    pub agreeing: usize,
    /// Median difference of depth in the compared cells, in metres.
    pub median_error: f64,
}

/// Conclusion from a [`Fit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FitVerdict {
    /// Scan and recording agree.
    Fits,
    /// They agree in part: one of them may be moved, or changed in between.
    Doubtful,
    /// They have nothing in common.
    Unfit,
}

impl Fit {
    /// Returns the share of the compared cells that agree, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.agreeing as f64 / self.compared.max(1) as f64
    }

    /// Returns the conclusion.
    #[must_use]
    pub fn verdict(&self) -> FitVerdict {
        match self.share() {
            _ if self.recorded == 0 => FitVerdict::Fits,
            share if share >= DOUBTFUL => FitVerdict::Fits,
            share if share >= UNFIT => FitVerdict::Doubtful,
            _ => FitVerdict::Unfit,
        }
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.compared == 0 {
            return f.write_str("no recorded camera sees a point of the scan");
        }
        let percent = self.share() * 100.0;
        write!(
            f,
            "{percent:.0} % of the recorded depth lies on the scan (median difference {:.2} m)",
            self.median_error
        )
    }
}

/// A frame with the range of recorded depth in each cell.
struct View {
    camera: Intrinsics,
    pose: Pose,
    /// Edge of a cell in pixels.
    edge: usize,
    columns: usize,
    ranges: Vec<Option<[f64; 2]>>,
}

impl View {
    fn new(depth: &DepthImage, camera: Intrinsics, pose: Pose) -> Self {
        let (width, height) = (depth.width(), depth.height());
        let edge = width.max(height).div_ceil(CELLS);
        let columns = width.div_ceil(edge);
        let mut ranges: Vec<Option<[f64; 2]>> = vec![None; columns * height.div_ceil(edge)];
        for (i, &meters) in depth.meters().iter().enumerate().filter(|(_, meters)| **meters > 0.0) {
            let range = &mut ranges[i / width / edge * columns + i % width / edge];
            let [low, high] = range.unwrap_or([f64::INFINITY, 0.0]);
            *range = Some([low.min(meters.into()), high.max(meters.into())]);
        }
        Self { camera, pose, edge, columns, ranges }
    }

    /// Returns the depth of the nearest point in each cell.
    fn drawn(&self, points: impl Iterator<Item = DVec3>) -> Vec<f64> {
        let mut nearest = vec![f64::INFINITY; self.ranges.len()];
        for point in points {
            let point = self.pose.to_camera(point);
            if let Some([x, y]) = self.camera.pixel(point) {
                let cell = &mut nearest[y / self.edge * self.columns + x / self.edge];
                *cell = cell.min(point.z);
            }
        }
        nearest
    }
}

/// Recorded depth that scans are compared with.
pub struct DepthViews {
    views: Vec<View>,
}

impl DepthViews {
    /// Reads some depth maps with poses, spread over the recording. Single unreadable ones are left out.
    ///
    /// # Errors
    /// Returns the first read error if no depth map can be read.
    pub fn read(dataset: &dyn Dataset) -> Result<Self, ViewsError> {
        Self::of_frames(dataset, &Vec::from_iter(0..dataset.len()))
    }

    /// Does the same as [`read`](Self::read) with the frames of these numbers only.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn of_frames(dataset: &dyn Dataset, of: &[usize]) -> Result<Self, ViewsError> {
        let frames = dataset.frames();
        let is_usable = |i: &usize| frames.get(*i).is_some_and(|f| f.has_depth() && f.pose_of_depth().is_some());
        let usable: Vec<usize> = of.iter().copied().filter(is_usable).collect();
        let count = usable.len().min(FRAMES);
        let (mut views, mut first_error) = (Vec::new(), None);
        for i in (0..count).map(|k| usable[k * usable.len() / count]) {
            let (Some(camera), Some(pose)) = (frames[i].depth, frames[i].pose_of_depth()) else { continue };
            match dataset.depth(i) {
                Ok(depth) => views.extend(depth.map(|depth| View::new(&depth, camera, pose))),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        match (views.is_empty(), first_error) {
            (true, Some(error)) => Err(error),
            _ => Ok(Self { views }),
        }
    }

    /// Compares a scan with the depth maps. `positions` are in the recording's world, in metres. Points that
    /// are not finite are left out.
    #[must_use]
    pub fn fit(&self, positions: &[[f64; 3]]) -> Fit {
        self.fit_turned(positions, DMat3::IDENTITY)
    }

    /// Returns the turn of the scan's axes with which it fits, as a rotation that maps the scan to the
    /// recording's world; `None` if there is none.
    #[must_use]
    pub fn turned(&self, positions: &[[f64; 3]]) -> Option<DMat3> {
        let best = axis_turns().into_iter().map(|turn| (turn, self.fit_turned(positions, turn).share()));
        best.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, share)| *share >= FOUND).map(|(turn, _)| turn)
    }

    fn fit_turned(&self, positions: &[[f64; 3]], turn: DMat3) -> Fit {
        let step = positions.len().div_ceil(POINTS).max(1);
        let (mut recorded, mut compared, mut agreeing, mut errors) = (0, 0, 0, Vec::new());
        for view in &self.views {
            let points = positions.iter().step_by(step).map(|&point| turn * DVec3::from_array(point));
            let drawn = view.drawn(points.filter(|point| point.is_finite()));
            for (range, nearest) in view.ranges.iter().zip(drawn) {
                let Some([low, high]) = *range else { continue };
                recorded += 1;
                if nearest == f64::INFINITY {
                    continue;
                }
                compared += 1;
                let error = (low - nearest).max(nearest - high).max(0.0);
                agreeing += usize::from(error <= TOLERANCE.0 + TOLERANCE.1 * nearest);
                errors.push(error);
            }
        }
        let middle = errors.len() / 2;
        let median_error =
            if errors.is_empty() { 0.0 } else { *errors.select_nth_unstable_by(middle, f64::total_cmp).1 };
        Fit { recorded, compared, agreeing, median_error }
    }
}

/// Returns the 23 rotations other than none that map axes to axes.
fn axis_turns() -> Vec<DMat3> {
    let axes = [DVec3::X, DVec3::Y, DVec3::Z, DVec3::NEG_X, DVec3::NEG_Y, DVec3::NEG_Z];
    let pairs = axes.into_iter().flat_map(|x| axes.into_iter().map(move |y| (x, y)));
    let turns = pairs.filter(|(x, y)| x.dot(*y) == 0.0).map(|(x, y)| DMat3::from_cols(x, y, x.cross(y)));
    turns.filter(|turn| *turn != DMat3::IDENTITY).collect()
}

/// Describes a turn of axes: `(x, -z, y)` are the coordinates in the recording's world.
#[must_use]
pub fn axes_text(turn: &DMat3) -> String {
    let coordinate = |row: usize| {
        let row = turn.row(row).to_array();
        let name = ["x", "y", "z"].into_iter().zip(row).find(|(_, sign)| *sign != 0.0);
        name.map_or_else(String::new, |(name, sign)| format!("{}{name}", if sign < 0.0 { "-" } else { "" }))
    };
    format!("({}, {}, {})", coordinate(0), coordinate(1), coordinate(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_named() {
        let turns = axis_turns();
        assert_eq!(turns.len(), 23);
        assert!(turns.iter().all(|turn| turn.determinant() == 1.0));
        // y up to z up.
        let turn = DMat3::from_cols(DVec3::X, DVec3::Z, DVec3::NEG_Y);
        assert!(turns.contains(&turn));
        assert_eq!(axes_text(&turn), "(x, -z, y)");
    }
}
