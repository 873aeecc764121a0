//! Picture of a run's loss curve.

use crate::images::draw::{Axis, Chart, Curve, Panel, Scale, class_color};
use crate::images::{ImageError, Rgb8Image};

/// Size of the picture in pixels.
const WIDTH: usize = 1000;
const HEIGHT: usize = 600;

/// Width of the smoothing, as a share of the run.
const SMOOTHING: f64 = 1.0 / 60.0;
/// Least number of steps for a smoothed line. Shorter runs have none.
const FEWEST_TO_SMOOTH: usize = 30;

/// Data of the picture; all series are (step, value).
#[derive(Clone, Copy, Debug)]
pub struct LossCurve<'a> {
    /// Title above the picture.
    pub title: &'a str,
    /// Loss of every step.
    pub loss: &'a [(u64, f64)],
    /// Learning rate of every step.
    pub learning_rate: &'a [(u64, f64)],
    /// Validation figure with its name, on an axis of its own; it has fewer steps.
    pub validation: Option<(&'a str, &'a [(u64, f64)])>,
    /// Scale of the loss axis.
    pub scale: Scale,
}

impl LossCurve<'_> {
    /// Draws the loss as a faint line with a smoothed line and the validation over it, and the learning rate
    /// below. Values that are not finite are left out.
    ///
    /// # Errors
    /// [`ImageError`] of drawing. The size of the picture is fixed and always valid.
    pub fn draw(&self) -> Result<Rgb8Image, ImageError> {
        let points = |series: &[(u64, f64)]| series.iter().map(|&(step, value)| [step as f64, value]).collect();
        let curve = |name: &str, class: usize, points: Vec<[f64; 2]>| Curve {
            name: name.to_owned(),
            color: class_color(class),
            opacity: 1.0,
            width: 2.2,
            dots: false,
            points,
        };
        let raw: Vec<[f64; 2]> = points(self.loss);
        let losses = if raw.len() < FEWEST_TO_SMOOTH {
            vec![curve("loss", 0, raw)]
        } else {
            let smoothed = smoothed(&raw);
            let faint = Curve { opacity: 0.28, width: 1.1, ..curve("each step", 0, raw) };
            vec![faint, curve("loss", 0, smoothed)]
        };
        let right = self.validation.filter(|(_, series)| !series.is_empty()).map(|(name, series)| {
            let curve = Curve { dots: series.len() <= 100, ..curve(name, 1, points(series)) };
            Axis { name: name.to_owned(), scale: Scale::Linear, curves: vec![curve] }
        });
        let left = Axis { name: "loss".into(), scale: self.scale, curves: losses };
        let mut panels = vec![Panel { height: 3.4, left, right }];
        if !self.learning_rate.is_empty() {
            let rate = Curve { width: 1.8, ..curve("learning rate", 2, points(self.learning_rate)) };
            let left = Axis { name: "learning rate".into(), scale: Scale::Linear, curves: vec![rate] };
            panels.push(Panel { height: 1.0, left, right: None });
        }
        Chart { title: self.title.to_owned(), x_name: "step".into(), panels }.draw(WIDTH, HEIGHT)
    }
}

/// Mean whose weights fall off with the distance to both sides, so that it does not lag behind a falling
/// loss. At the ends it uses only existing values.
fn smoothed(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let points: Vec<[f64; 2]> = points.iter().copied().filter(|point| point[1].is_finite()).collect();
    let fall = 1.0 - 2.0 / (points.len() as f64 * SMOOTHING).max(4.0);
    // For each point, the weighted sum of the points up to it, and the sum of the weights.
    let sums = |values: &mut dyn Iterator<Item = f64>| {
        let (mut sum, mut weight) = (0.0, 0.0);
        let add = |y: f64| {
            (sum, weight) = (fall * sum + y, fall * weight + 1.0);
            [sum, weight]
        };
        values.map(add).collect::<Vec<[f64; 2]>>()
    };
    let before = sums(&mut points.iter().map(|point| point[1]));
    let after = sums(&mut points.iter().rev().map(|point| point[1]));
    let sides = before.iter().zip(after.iter().rev());
    // The point itself is in both sums.
    points.iter().zip(sides).map(|(&[x, y], (a, b))| [x, (a[0] + b[0] - y) / (a[1] + b[1] - 1.0)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_constant_and_calms_noise() {
        let constant: Vec<[f64; 2]> = (0..100).map(|i| [f64::from(i), 3.0]).collect();
        assert!(smoothed(&constant).iter().all(|point| (point[1] - 3.0).abs() < 1e-12));
        let noisy: Vec<[f64; 2]> = (0..1000).map(|i| [f64::from(i), f64::from(i % 2)]).collect();
        let calm = smoothed(&noisy);
        assert!(calm.iter().all(|point| (point[1] - 0.5).abs() < 0.1));
        // No lag: a straight line stays straight, except near its ends.
        let line: Vec<[f64; 2]> = (0..1000).map(|i| [f64::from(i); 2]).collect();
        assert!(smoothed(&line)[200..800].iter().all(|point| (point[1] - point[0]).abs() < 1e-3));
        // A missing step leaves the others unchanged.
        let mut holes = constant.clone();
        holes[50][1] = f64::NAN;
        assert_eq!(smoothed(&holes).len(), 99);
    }
}
