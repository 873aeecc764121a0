//! Table of an ablation, as JSON, as Markdown, and as a picture.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    AblationError, AblationOrigin, AblationRooms, AblationSettings, AblationWords, Negatives, StudentRun,
    TrainedStudent,
};
use crate::eval::metrics::{AbsentClasses, Confusion};
use crate::images::draw::{Axis, Chart, Curve, Panel, Scale, class_color};
use crate::images::{ImageError, Rgb8Image};
use crate::labels::Protocol;
use crate::pipeline::Weights;
use crate::purify::ColorNormal;

/// Name of the table as JSON, in an ablation's folder.
pub const JSON_FILE: &str = "ablation.json";
/// Name of the table as Markdown.
pub const MARKDOWN_FILE: &str = "ablation.md";
/// Name of the picture.
pub const CHART_FILE: &str = "ablation.png";

const CHART_WIDTH: usize = 1100;
const CHART_HEIGHT: usize = 460;

const LEARNED: &str = "learned";
const SHARPENED: &str = "learned, its sharpness chosen";
const UNIFORM: &str = "uniform";
const COLOR_NORMAL: &str = "colour and normal";
const COMBINED: &str = "learned, times colour and normal";
const UNPURIFIED: &str = "not purified";

/// Figure over one or more seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Values of the seeds; a single value for a row without seeds.
    pub values: Vec<f64>,
    /// Mean of the values.
    pub mean: f64,
    /// Sample standard deviation (divisor n − 1); 0 for one value.
    pub deviation: f64,
    /// Smallest value.
    pub least: f64,
    /// Largest value.
    pub most: f64,
}

impl Figure {
    /// Makes a figure of at least one value.
    fn new(values: Vec<f64>) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count.max(1.0);
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Self { values, mean, deviation, least, most }
    }
}

/// Row of the table. Shares are 0 to 1; gains are in percentage points.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Comparison to which the row belongs.
    pub group: &'static str,
    /// Name of the variant.
    pub name: String,
    /// T as counted in the paper: A was applied T + 1 times.
    pub iterations: Option<usize>,
    /// Number of the student's training scenes.
    pub scenes: Option<usize>,
    /// Mean IoU over all classes. An absent class counts as 0, like in the reference.
    pub mean_iou: Figure,
    /// Mean IoU over the classes that occur in labels or predictions.
    pub mean_iou_present: Figure,
    /// `mean_iou` minus that of unpurified features, in percentage points, seed by seed.
    pub gain: Figure,
    /// The same gain of `mean_iou_present`.
    pub gain_present: Figure,
}

/// Settings chosen on the validation rooms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Kernel of colour and normal for each T.
    pub kernels: Vec<(usize, ColorNormal)>,
    /// Kernel of colour and normal that learned affinities are multiplied by, for each T.
    pub combined: Vec<(usize, ColorNormal)>,
    /// Sharpness of learned affinities for each T.
    pub sharpness: Vec<(usize, f32)>,
    /// Best T of learned, uniform, and colour-and-normal affinities, and of learned ones times colour and normal, each
    /// with the constants chosen for it. `None` without validation rooms.
    pub best: Option<[usize; 4]>,
}

impl Choice {
    /// All kernels that were chosen, each once.
    pub(super) fn all_kernels(&self) -> Vec<ColorNormal> {
        each_once(&self.kernels)
    }

    /// All kernels that were chosen to multiply learned affinities by, each once.
    pub(super) fn all_combined(&self) -> Vec<ColorNormal> {
        each_once(&self.combined)
    }
}

fn each_once(chosen: &[(usize, ColorNormal)]) -> Vec<ColorNormal> {
    let mut kernels: Vec<ColorNormal> = Vec::new();
    for (_, kernel) in chosen {
        if !kernels.contains(kernel) {
            kernels.push(*kernel);
        }
    }
    kernels
}

/// What was chosen for one T.
fn chosen<T: Copy>(of_t: &[(usize, T)], iterations: usize) -> Result<T, AblationError> {
    let found = of_t.iter().find(|(t, _)| *t == iterations).map(|(_, value)| *value);
    found.ok_or_else(|| AblationError::settings(format!("nothing was chosen for T = {iterations}")))
}

/// Constants of kernels, and the T they were chosen for.
fn constants(chosen: &[(usize, ColorNormal)]) -> String {
    let of_t = |(t, kernel): &(usize, ColorNormal)| {
        format!("σ {} and s {} at T = {t}", kernel.color_sigma, kernel.normal_scale)
    };
    chosen.iter().map(of_t).collect::<Vec<_>>().join(", ")
}

/// Curve of the picture: x, then mean, smallest and largest mean IoU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Name of the curve.
    pub name: &'static str,
    /// Points of the curve.
    pub points: Vec<[f64; 4]>,
}

/// Report of an ablation.
#[derive(Clone, Debug, Serialize)]
pub struct AblationReport {
    /// Version of this program.
    pub geopurify: &'static str,
    /// Labels used, class by class.
    pub labels: Vec<String>,
    /// Protocol of counting.
    pub protocol: Protocol,
    /// Settings of the ablation.
    pub settings: AblationSettings,
    /// Weights of the networks.
    pub weights: Vec<Weights>,
    /// Device on which it ran.
    pub device: String,
    /// Names of the test rooms.
    pub test_rooms: Vec<String>,
    /// Names of the validation rooms.
    pub validation_rooms: Vec<String>,
    /// Settings chosen on the validation rooms.
    pub choice: Choice,
    /// Trained students.
    pub students: Vec<TrainedStudent>,
    /// Rows of the table.
    pub rows: Vec<Row>,
    /// Mean IoU by T.
    pub by_iterations: Vec<Series>,
    /// Mean IoU by training scenes, at the usual T.
    pub by_scenes: Vec<Series>,
}

/// Confusion matrices over all test rooms.
pub(super) struct Measured<'a> {
    /// Matrices of the labels on which the views agree, and of the unpurified features.
    pub(super) unpurified: &'a [Confusion],
    /// One matrix per T.
    pub(super) uniform: &'a [Confusion],
    /// One matrix per T, for each kernel.
    pub(super) kernels: Vec<(ColorNormal, &'a Vec<Confusion>)>,
    /// One matrix per T, for each student and sharpness.
    pub(super) students: Vec<(StudentRun, f32, &'a Vec<Confusion>)>,
    /// One matrix per T, for each usual student and kernel that its affinities were multiplied by.
    pub(super) combined: Vec<(StudentRun, ColorNormal, &'a Vec<Confusion>)>,
}

/// Derives figures from confusion matrices.
struct Reader<'a> {
    settings: &'a AblationSettings,
    protocol: &'a Protocol,
    iterations: Vec<usize>,
    choice: &'a Choice,
    measured: &'a Measured<'a>,
}

impl Reader<'_> {
    fn mean_iou(&self, confusion: &Confusion, absent: AbsentClasses) -> Result<f64, AblationError> {
        Ok(confusion.scores(&self.protocol.all(), absent)?.mean_iou.unwrap_or(0.0))
    }

    fn figure(&self, confusions: &[&Confusion], absent: AbsentClasses) -> Result<Figure, AblationError> {
        let values = confusions.iter().map(|confusion| self.mean_iou(confusion, absent));
        Ok(Figure::new(values.collect::<Result<_, _>>()?))
    }

    fn at(&self, iterations: usize) -> Result<usize, AblationError> {
        let at = self.iterations.iter().position(|&t| t == iterations);
        at.ok_or_else(|| AblationError::settings(format!("T = {iterations} was not measured")))
    }

    fn uniform(&self, iterations: usize) -> Result<Vec<&Confusion>, AblationError> {
        Ok(vec![&self.measured.uniform[self.at(iterations)?]])
    }

    fn kernel(&self, iterations: usize) -> Result<Vec<&Confusion>, AblationError> {
        let (at, chosen) = (self.at(iterations)?, chosen(&self.choice.kernels, iterations)?);
        let found = self.measured.kernels.iter().filter(|(kernel, _)| *kernel == chosen);
        Ok(found.map(|(_, of_t)| &of_t[at]).collect())
    }

    /// Usual students, their affinities times the kernel chosen for this T.
    fn combined(&self, iterations: usize) -> Result<Vec<&Confusion>, AblationError> {
        let (at, chosen) = (self.at(iterations)?, chosen(&self.choice.combined, iterations)?);
        let found = self.measured.combined.iter().filter(|(_, kernel, _)| *kernel == chosen);
        Ok(found.map(|(_, _, of_t)| &of_t[at]).collect())
    }

    fn learned(
        &self,
        scenes: usize,
        negatives: Negatives,
        iterations: usize,
    ) -> Result<Vec<&Confusion>, AblationError> {
        let sharpness = self.settings.purify.sharpness;
        self.students(|run| run.scenes == scenes && run.negatives == negatives, sharpness, iterations)
    }

    /// Usual students with the sharpness chosen for this T.
    fn sharpened(&self, iterations: usize) -> Result<Vec<&Confusion>, AblationError> {
        let chosen = chosen(&self.choice.sharpness, iterations)?;
        self.students(|run| run.is_usual(self.settings), chosen, iterations)
    }

    fn students(
        &self,
        is_asked: impl Fn(&StudentRun) -> bool,
        sharpness: f32,
        iterations: usize,
    ) -> Result<Vec<&Confusion>, AblationError> {
        let at = self.at(iterations)?;
        let students = self.measured.students.iter();
        let asked = students.filter(|(run, own, _)| is_asked(run) && *own == sharpness);
        Ok(asked.map(|(_, _, of_t)| &of_t[at]).collect())
    }

    fn row(
        &self,
        group: &'static str,
        name: &str,
        iterations: Option<usize>,
        scenes: Option<usize>,
        confusions: &[&Confusion],
    ) -> Result<Row, AblationError> {
        let unpurified = &self.measured.unpurified[1];
        let both = |absent| -> Result<[Figure; 2], AblationError> {
            let figure = self.figure(confusions, absent)?;
            let before = self.mean_iou(unpurified, absent)?;
            let gain = Figure::new(figure.values.iter().map(|after| 100.0 * (after - before)).collect());
            Ok([figure, gain])
        };
        let [mean_iou, gain] = both(AbsentClasses::Zero)?;
        let [mean_iou_present, gain_present] = both(AbsentClasses::Skipped)?;
        Ok(Row { group, name: name.to_owned(), iterations, scenes, mean_iou, mean_iou_present, gain, gain_present })
    }

    fn rows(&self) -> Result<Vec<Row>, AblationError> {
        let (most, usual) = (self.settings.most_scenes(), self.settings.usual_iterations());
        let hybrid = Negatives::Hybrid;
        let mut rows = Vec::new();
        let [agreed, unpurified] = [&self.measured.unpurified[0], &self.measured.unpurified[1]];
        rows.push(self.row("purification", "labels the views agree on", None, None, &[agreed])?);
        rows.push(self.row("purification", "features as lifted, not purified", None, None, &[unpurified])?);
        let full = self.learned(most, hybrid, usual)?;
        rows.push(self.row("purification", "full", Some(usual), Some(most), &full)?);
        for &t in &self.settings.iterations {
            rows.push(self.row("iterations", LEARNED, Some(t), Some(most), &self.learned(most, hybrid, t)?)?);
        }
        for (name, negatives) in [("macro negatives alone", Negatives::Macro), ("hybrid negatives", hybrid)] {
            let found = self.learned(most, negatives, usual)?;
            rows.push(self.row("negatives", name, Some(usual), Some(most), &found)?);
        }
        for &scenes in &self.settings.scenes {
            let found = self.learned(scenes, hybrid, usual)?;
            rows.push(self.row("training scenes", LEARNED, Some(usual), Some(scenes), &found)?);
        }
        for &t in &self.settings.iterations {
            rows.push(self.row("baselines at the same T", UNIFORM, Some(t), None, &self.uniform(t)?)?);
            rows.push(self.row("baselines at the same T", COLOR_NORMAL, Some(t), None, &self.kernel(t)?)?);
            rows.push(self.row("baselines at the same T", SHARPENED, Some(t), Some(most), &self.sharpened(t)?)?);
            rows.push(self.row("baselines at the same T", COMBINED, Some(t), Some(most), &self.combined(t)?)?);
        }
        if let Some([learned, uniform, kernel, combined]) = self.choice.best {
            let group = "each at its best T on validation rooms";
            rows.push(self.row(group, SHARPENED, Some(learned), Some(most), &self.sharpened(learned)?)?);
            rows.push(self.row(group, UNIFORM, Some(uniform), None, &self.uniform(uniform)?)?);
            rows.push(self.row(group, COLOR_NORMAL, Some(kernel), None, &self.kernel(kernel)?)?);
            rows.push(self.row(group, COMBINED, Some(combined), Some(most), &self.combined(combined)?)?);
        }
        Ok(rows)
    }

    fn point(&self, x: usize, confusions: &[&Confusion]) -> Result<[f64; 4], AblationError> {
        let figure = self.figure(confusions, AbsentClasses::Zero)?;
        Ok([x as f64, figure.mean, figure.least, figure.most])
    }

    fn by_iterations(&self) -> Result<Vec<Series>, AblationError> {
        let most = self.settings.most_scenes();
        let series = |name, of_t: &dyn Fn(usize) -> Result<[f64; 4], AblationError>| -> Result<Series, AblationError> {
            Ok(Series { name, points: self.iterations.iter().map(|&t| of_t(t)).collect::<Result<_, _>>()? })
        };
        Ok(vec![
            series(LEARNED, &|t| self.point(t, &self.learned(most, Negatives::Hybrid, t)?))?,
            series(UNIFORM, &|t| self.point(t, &self.uniform(t)?))?,
            series(COLOR_NORMAL, &|t| self.point(t, &self.kernel(t)?))?,
            series(UNPURIFIED, &|t| self.point(t, &[&self.measured.unpurified[1]]))?,
            series(SHARPENED, &|t| self.point(t, &self.sharpened(t)?))?,
            series(COMBINED, &|t| self.point(t, &self.combined(t)?))?,
        ])
    }

    fn by_scenes(&self) -> Result<Vec<Series>, AblationError> {
        let (scenes, usual) = (&self.settings.scenes, self.settings.usual_iterations());
        let series =
            |name, of_count: &dyn Fn(usize) -> Result<[f64; 4], AblationError>| -> Result<Series, AblationError> {
                Ok(Series { name, points: scenes.iter().map(|&count| of_count(count)).collect::<Result<_, _>>()? })
            };
        let most = self.settings.most_scenes();
        let macro_alone = self.point(most, &self.learned(most, Negatives::Macro, usual)?)?;
        Ok(vec![
            series(LEARNED, &|count| self.point(count, &self.learned(count, Negatives::Hybrid, usual)?))?,
            series(UNIFORM, &|count| self.point(count, &self.uniform(usual)?))?,
            series(COLOR_NORMAL, &|count| self.point(count, &self.kernel(usual)?))?,
            series(UNPURIFIED, &|count| self.point(count, &[&self.measured.unpurified[1]]))?,
            Series { name: "macro negatives alone", points: vec![macro_alone] },
        ])
    }
}

impl AblationReport {
    pub(super) fn new(
        settings: &AblationSettings,
        rooms: &AblationRooms,
        words: &AblationWords<'_>,
        origin: &AblationOrigin,
        choice: Choice,
        students: Vec<TrainedStudent>,
        measured: &Measured<'_>,
    ) -> Result<Self, AblationError> {
        let protocol = words.protocol.clone();
        let iterations = settings.all_iterations();
        let reader = Reader { settings, protocol: &words.protocol, iterations, choice: &choice, measured };
        let (rows, by_iterations, by_scenes) = (reader.rows()?, reader.by_iterations()?, reader.by_scenes()?);
        let names = |rooms: &[crate::distill::SceneFile]| rooms.iter().map(|room| room.name.clone()).collect();
        Ok(Self {
            geopurify: env!("CARGO_PKG_VERSION"),
            labels: words.labels.to_vec(),
            protocol,
            settings: settings.clone(),
            weights: origin.weights.clone(),
            device: origin.device.clone(),
            test_rooms: names(&rooms.test),
            validation_rooms: names(&rooms.validation),
            choice,
            students,
            rows,
            by_iterations,
            by_scenes,
        })
    }

    /// The table as Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let AblationSettings { seeds, steps, training, .. } = &self.settings;
        let mut text = format!(
            "# Ablation on {} held-out rooms\n\nMean IoU in percent over {} classes. A gain is in percentage points \
             over the lifted features: seed by seed, then mean ± standard deviation (smallest to largest). *Present* leaves out \
             classes that occur in neither labels nor predictions. The other figures count them as 0, like the reference.\n",
            self.test_rooms.len(),
            self.protocol.num_classes
        );
        let mut group = "";
        for row in &self.rows {
            if row.group != group {
                group = row.group;
                text += &format!(
                    "\n## {}\n\n| | T | scenes | mIoU | mIoU, present | gain by seed | gain | gain, present |\n|---|---|---|---|---|---|---|---|\n",
                    capitalized(group)
                );
            }
            let count = |value: Option<usize>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
            let by_seed: Vec<String> = row.gain.values.iter().map(|gain| format!("{gain:+.2}")).collect();
            text += &format!(
                "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
                row.name,
                count(row.iterations),
                count(row.scenes),
                percent(&row.mean_iou),
                percent(&row.mean_iou_present),
                by_seed.join(", "),
                points(&row.gain),
                points(&row.gain_present)
            );
        }
        text += "\n## How\n\n";
        let mut say = |line: String| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "- {line}");
        };
        say("T is counted as in the paper: A is applied T + 1 times, as its code does.".to_owned());
        say(format!(
            "Seeds: {seeds}. A seed decides a student's first weights, the order of scenes, the anchors and the crops. \
             It also chooses the training rooms of a student that learns from fewer than {}. Baselines have no seed.",
            self.settings.most_scenes()
        ));
        let mut made: Vec<usize> = self.students.iter().map(|student| student.steps).collect();
        made.sort_unstable();
        made.dedup();
        let made: Vec<String> = made.iter().map(ToString::to_string).collect();
        say(format!(
            "Students have {} hidden channels and {} embedding channels. Each makes {} optimizer steps, whatever the number \
             of scenes ({steps}, rounded to whole epochs).",
            training.hidden_dim,
            training.embed_dim,
            made.join(" or ")
        ));
        say(format!(
            "Hybrid negatives: {} from the whole scene and {} from nearby. Macro negatives: only the former.",
            training.macro_negatives, training.micro_negatives
        ));
        say(
            "Uniform: all neighbours of a voxel have the same weight. Colour and normal: the weight is proportional to \
             exp(−|c − c′|² / 2σ² − (1 − |⟨n, n′⟩|) / s). Neighbours, features and everything else are the same for all."
                .to_owned(),
        );
        say(format!("Sharpness of learned affinities, unless it was chosen: {}.", self.settings.purify.sharpness));
        let sharpness: Vec<String> =
            self.choice.sharpness.iter().map(|(t, sharpness)| format!("{sharpness} at T = {t}")).collect();
        match self.choice.best {
            Some([learned, uniform, kernel, combined]) => {
                say(format!(
                    "Constants of colour and normal, chosen on {} validation rooms for each T among {} pairs: {}.",
                    self.validation_rooms.len(),
                    self.settings.kernels.len(),
                    constants(&self.choice.kernels)
                ));
                say(format!(
                    "Constants of colour and normal that learned affinities are multiplied by, chosen in the same way: {}.",
                    constants(&self.choice.combined)
                ));
                say(format!(
                    "Sharpness of learned affinities, chosen on the same rooms for each T among {}: {}.",
                    self.settings.all_sharpness().iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                    sharpness.join(", ")
                ));
                say(format!(
                    "Best T on the same rooms, among {}: {learned} for learned affinities, {uniform} for uniform ones, {kernel} for colour and \
                     normal, {combined} for learned affinities times colour and normal.",
                    self.settings.all_iterations().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                ));
            }
            None => say(format!(
                "There were no validation rooms: the constants of colour and normal were not chosen ({}).",
                constants(self.choice.kernels.get(..1).unwrap_or_default())
            )),
        }
        say(format!("geopurify {} on {}.", self.geopurify, self.device));
        for Weights { model, source, sha256 } in &self.weights {
            say(format!("{model}: {source} (SHA-256 {sha256})"));
        }
        text
    }

    /// Draws mean IoU by T, and below it by number of training scenes.
    ///
    /// # Errors
    /// [`ImageError`] of drawing.
    pub fn chart(&self) -> Result<Rgb8Image, ImageError> {
        let usual = self.settings.usual_iterations();
        let charts = [
            chart("Mean IoU by T", "T", &self.by_iterations),
            chart(&format!("Mean IoU by training scenes, T = {usual}"), "training scenes", &self.by_scenes),
        ];
        let mut pixels = Vec::with_capacity(2 * CHART_WIDTH * CHART_HEIGHT);
        for chart in charts {
            pixels.extend(chart.draw(CHART_WIDTH, CHART_HEIGHT)?.into_pixels());
        }
        Rgb8Image::new(CHART_WIDTH, 2 * CHART_HEIGHT, pixels)
    }
}

fn chart(title: &str, x_name: &str, series: &[Series]) -> Chart {
    let mut curves = Vec::new();
    for (class, Series { name, points }) in series.iter().enumerate() {
        let curve = |name: &str, value: usize, faint: bool| Curve {
            name: name.to_owned(),
            color: class_color(class),
            opacity: if faint { 0.35 } else { 1.0 },
            width: if faint { 1.2 } else { 2.2 },
            dots: !faint,
            points: points.iter().map(|point| [point[0], 100.0 * point[value]]).collect(),
        };
        if points.iter().any(|[_, _, least, most]| least != most) {
            curves.extend([curve("", 2, true), curve("", 3, true)]);
        }
        curves.push(curve(name, 1, false));
    }
    let left =
        Axis { name: "percent; thin lines: least and largest of the seeds".to_owned(), scale: Scale::Linear, curves };
    Chart { title: title.to_owned(), x_name: x_name.to_owned(), panels: vec![Panel { height: 1.0, left, right: None }] }
}

fn percent(figure: &Figure) -> String {
    match figure.values.len() {
        1 => format!("{:.2}", 100.0 * figure.mean),
        _ => format!("{:.2} ± {:.2}", 100.0 * figure.mean, 100.0 * figure.deviation),
    }
}

fn points(figure: &Figure) -> String {
    let Figure { values, mean, deviation, least, most } = figure;
    match values.len() {
        1 => format!("{mean:+.2}"),
        _ => format!("{mean:+.2} ± {deviation:.2} ({least:+.2} to {most:+.2})"),
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_means_and_spreads() {
        let figure = Figure::new(vec![1.0, 2.0, 6.0]);
        assert_eq!((figure.mean, figure.least, figure.most), (3.0, 1.0, 6.0));
        assert!((figure.deviation - 7.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!(points(&figure), "+3.00 ± 2.65 (+1.00 to +6.00)");
        assert_eq!(percent(&Figure::new(vec![0.25])), "25.00");
        assert_eq!(Figure::new(vec![4.0]).deviation, 0.0);
    }
}
