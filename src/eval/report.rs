//! Report of an evaluation of many scenes: counts per scene and figures over all, as JSON and as Markdown.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::instance_report::{InstanceReport, SceneInstances};
use super::instances::{InstanceScores, MIN_POINTS};
use super::metrics::{AbsentClasses, ClassCounts, Confusion, MetricsError, Scores};
use super::parts::APART;
use super::published::{Published, published};
use crate::labels::Protocol;
use crate::pipeline::Weights;

/// Number of worst scenes that are listed.
const NUM_WORST: usize = 10;

/// A [`Confusion`] in the form of result files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// `[C][C + 1]`: points with a label (row) and a prediction (column). The last column counts points
    /// without a prediction.
    pub rows: Vec<Vec<u64>>,
    /// Number of points left out because of their label.
    pub ignored: u64,
}

impl From<&Confusion> for Counts {
    fn from(confusion: &Confusion) -> Self {
        let rows = confusion.counts().chunks_exact(confusion.num_classes() + 1).map(<[u64]>::to_vec).collect();
        Self { rows, ignored: confusion.num_ignored() }
    }
}

impl Counts {
    /// The confusion matrix.
    ///
    /// # Errors
    /// [`MetricsError::Counts`] unless every row has one element more than there are rows.
    pub fn to_confusion(&self) -> Result<Confusion, MetricsError> {
        let num_classes = self.rows.len();
        if let Some(row) = self.rows.iter().find(|row| row.len() != num_classes + 1) {
            return Err(MetricsError::Counts { found: row.len() * num_classes, num_classes });
        }
        Confusion::from_counts(num_classes, self.rows.concat(), self.ignored)
    }
}

/// Result of one scene.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SceneResult {
    /// Key of its inputs: two results with the same key have the same counts.
    pub key: String,
    /// Name of the scene.
    pub scene: String,
    /// Number of points, with or without a position.
    pub points: u64,
    /// Number of views that went through the model.
    pub views: u64,
    /// True if the views are from a recording, false if they were drawn.
    pub recorded: bool,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// Counts of the labels on which the views agree, before purification.
    pub lifted: Counts,
    /// Counts of the labels after purification.
    pub purified: Counts,
    /// Objects compared with the true ones, if the scene tells these apart.
    pub instances: Option<SceneInstances>,
    /// Time in seconds. It is not part of a report, because it varies.
    pub seconds: f64,
}

/// Scene that could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Name of the scene.
    pub scene: String,
    /// Error message.
    pub error: String,
}

/// Scene that was left out because no view shows enough of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Name of the scene.
    pub scene: String,
    /// Reason.
    pub reason: String,
}

/// Scenes that are missing in all figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Scenes that failed.
    pub failed: Vec<Failure>,
    /// Scenes without a view that shows enough of them.
    pub skipped: Vec<Skipped>,
}

/// Settings, networks and device of an evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// Version of this program.
    pub geopurify: &'static str,
    /// Name of the label set.
    pub preset: &'static str,
    /// Labels used, class by class.
    pub labels: Vec<String>,
    /// Protocol of counting.
    pub protocol: Protocol,
    /// Settings of the evaluation.
    pub settings: serde_json::Value,
    /// Weights of the networks.
    pub weights: Vec<Weights>,
    /// Device on which it ran.
    pub device: String,
}

/// Figures of a group of classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// `all`, `base` or `novel`.
    pub name: &'static str,
    /// Classes of the group.
    pub classes: Vec<usize>,
    /// Scores that count an absent class as 0, like the reference.
    pub absent_zero: Scores,
    /// Scores that skip absent classes.
    pub absent_skipped: Scores,
    /// Scores without background classes; `None` if the protocol has none.
    pub foreground: Option<Foreground>,
}

/// Scores of a group of classes without wall, floor and ceiling.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Foreground {
    /// Scores that count an absent class as 0.
    pub absent_zero: Scores,
    /// Scores that skip absent classes.
    pub absent_skipped: Scores,
}

impl Group {
    fn scores(&self, absent: AbsentClasses) -> (Scores, Option<Scores>) {
        match absent {
            AbsentClasses::Zero => (self.absent_zero, self.foreground.as_ref().map(|f| f.absent_zero)),
            AbsentClasses::Skipped => (self.absent_skipped, self.foreground.as_ref().map(|f| f.absent_skipped)),
        }
    }
}

/// Figures of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassFigures {
    /// Label of the class.
    pub name: String,
    /// Points with this label.
    pub points: u64,
    /// Points with this label and this prediction.
    pub found: u64,
    /// Intersection over union; `None` if the class is in neither labels nor predictions.
    pub iou: Option<f64>,
    /// Share of its points that are found; `None` if it has none.
    pub accuracy: Option<f64>,
}

/// All figures of one set of predictions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// All classes, base classes and novel classes.
    pub groups: Vec<Group>,
    /// Figures of each class.
    pub classes: Vec<ClassFigures>,
    /// Number of counted points without a prediction.
    pub unlabelled: u64,
    /// Confusion matrix from which all figures follow.
    pub confusion: Counts,
}

impl Figures {
    /// Derives all figures from a confusion matrix of the classes `labels`.
    ///
    /// # Errors
    /// [`MetricsError::Class`] if `protocol` has more classes than `confusion`.
    pub fn new(confusion: &Confusion, protocol: &Protocol, labels: &[String]) -> Result<Self, MetricsError> {
        let group = |name, classes: Vec<usize>| {
            let both = |classes: &[usize]| {
                Ok::<_, MetricsError>((
                    confusion.scores(classes, AbsentClasses::Zero)?,
                    confusion.scores(classes, AbsentClasses::Skipped)?,
                ))
            };
            let (absent_zero, absent_skipped) = both(&classes)?;
            let foreground = if protocol.background.is_empty() {
                None
            } else {
                let kept: Vec<usize> = classes.iter().copied().filter(|c| !protocol.background.contains(c)).collect();
                let (absent_zero, absent_skipped) = both(&kept)?;
                Some(Foreground { absent_zero, absent_skipped })
            };
            Ok(Group { name, classes, absent_zero, absent_skipped, foreground })
        };
        let mut groups = vec![group("all", protocol.all())?];
        if !protocol.novel.is_empty() {
            groups.push(group("base", protocol.base())?);
            groups.push(group("novel", protocol.novel.to_vec())?);
        }
        let classes = confusion.classes().into_iter().zip(labels).map(|(counts, name)| {
            let ClassCounts { intersection, target, .. } = counts;
            let (iou, accuracy) = (counts.iou(), counts.accuracy());
            ClassFigures { name: name.clone(), points: target, found: intersection, iou, accuracy }
        });
        let rows = confusion.counts().chunks_exact(confusion.num_classes() + 1);
        Ok(Self {
            groups,
            classes: classes.collect(),
            unlabelled: rows.filter_map(<[u64]>::last).sum(),
            confusion: confusion.into(),
        })
    }
}

/// Figures of one scene, over the classes that occur in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SceneFigures {
    /// Name of the scene.
    pub scene: String,
    /// Number of its points.
    pub points: u64,
    /// Number of its points that are not counted.
    pub ignored: u64,
    /// Number of views that went through the model.
    pub views: u64,
    /// True if the views are from a recording, false if they were drawn.
    pub recorded: bool,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// Scores before purification.
    pub lifted: Scores,
    /// Scores after purification.
    pub purified: Scores,
}

/// Report of an evaluation over scenes. The same results give the same report, byte for byte, whatever their
/// times.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Settings, networks and device.
    pub about: About,
    /// Number of scenes that were evaluated.
    pub num_scenes: usize,
    /// Number of their points.
    pub points: u64,
    /// Number of their points that are not counted.
    pub ignored: u64,
    /// Figures before purification, of the labels on which the views agree.
    pub lifted: Figures,
    /// Figures after purification.
    pub purified: Figures,
    /// Figures of objects, over the scenes that tell their true objects apart; `None` if there are none.
    pub instances: Option<InstanceReport>,
    /// Scenes with the lowest mean IoU after purification, the worst first. Equal ones are sorted by name.
    pub worst: Vec<String>,
    /// Every scene, in the order of `results`.
    pub scenes: Vec<SceneFigures>,
    /// Scenes that failed. They are missing in all figures.
    pub failed: Vec<Failure>,
    /// Scenes that were left out because no view shows enough of them, as the published code leaves them out.
    /// They are missing in all figures.
    pub skipped: Vec<Skipped>,
    /// Published figures on this data set.
    pub published: &'static [Published],
}

/// Error of making a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The counts of a scene do not fit the protocol.
    #[error("scene '{scene}': {source}")]
    Scene {
        /// The scene.
        scene: String,
        /// Reason.
        source: MetricsError,
    },
    /// The protocol does not fit the labels.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A file of the report cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
}

impl Report {
    /// Combines `results`, and names the scenes that are `missing` among them. Counts are added over scenes before
    /// anything is divided, like in the reference.
    ///
    /// # Errors
    /// [`ReportError::Scene`] if counts do not fit the protocol's classes.
    pub fn new(about: About, results: &[SceneResult], missing: Missing) -> Result<Self, ReportError> {
        let num_classes = about.protocol.num_classes;
        let all: Vec<usize> = about.protocol.all();
        let mut sums = [Confusion::new(num_classes)?, Confusion::new(num_classes)?];
        let mut scenes = Vec::new();
        for result in results {
            let scene = |source| ReportError::Scene { scene: result.scene.clone(), source };
            let mut scores = Vec::new();
            for (sum, counts) in sums.iter_mut().zip([&result.lifted, &result.purified]) {
                let confusion = counts.to_confusion().map_err(scene)?;
                sum.merge(&confusion).map_err(scene)?;
                scores.push(confusion.scores(&all, AbsentClasses::Skipped)?);
            }
            scenes.push(SceneFigures {
                scene: result.scene.clone(),
                points: result.points,
                ignored: result.purified.ignored,
                views: result.views,
                recorded: result.recorded,
                notes: result.notes.clone(),
                lifted: scores[0],
                purified: scores[1],
            });
        }
        let [lifted, purified] = &sums;
        let instances: Vec<&SceneInstances> = results.iter().filter_map(|result| result.instances.as_ref()).collect();
        Ok(Self {
            lifted: Figures::new(lifted, &about.protocol, &about.labels)?,
            purified: Figures::new(purified, &about.protocol, &about.labels)?,
            instances: InstanceReport::new(&instances, &about.labels),
            worst: worst(&scenes),
            num_scenes: results.len(),
            points: results.iter().map(|result| result.points).sum(),
            published: published(about.preset, results.iter().map(|result| result.scene.as_str())),
            ignored: purified.num_ignored(),
            about,
            scenes,
            failed: missing.failed,
            skipped: missing.skipped,
        })
    }

    /// The report as Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, out: &mut String) -> std::fmt::Result {
        let Self { about, lifted, purified, .. } = self;
        writeln!(out, "# Labelling evaluated on {}\n", about.preset)?;
        writeln!(
            out,
            "{} scenes, {} points, {} of them counted. Protocol {}: {} classes, predictions compete over all of them. A counted \
             point without a prediction is a wrong one: {} before purification, {} after.",
            self.num_scenes,
            self.points,
            self.points - self.ignored,
            about.protocol.name,
            about.protocol.num_classes,
            lifted.unlabelled,
            purified.unlabelled,
        )?;
        if !self.failed.is_empty() {
            writeln!(out, "\n**{} scenes failed and are missing in all figures**, see below.", self.failed.len())?;
        }
        if !self.skipped.is_empty() {
            writeln!(out, "\n**{} scenes without a valid view were left out**, see below.", self.skipped.len())?;
        }
        let conventions = [
            (AbsentClasses::Zero, "A class that occurs nowhere counts as 0 (as the published code counts)"),
            (AbsentClasses::Skipped, "A class that occurs nowhere counts nowhere"),
        ];
        for (absent, title) in conventions {
            writeln!(out, "\n## {title}\n")?;
            writeln!(out, "Percent; the gain is in percentage points. f-: without wall, floor and ceiling.\n")?;
            let figures = ["mIoU", "mAcc", "allAcc", "f-mIoU", "f-mAcc"];
            head(out, &[&["classes", "labels"][..], &figures[..]].concat(), 2)?;
            for (before, after) in lifted.groups.iter().zip(&purified.groups) {
                let group = format!("{} ({})", after.name, after.classes.len());
                let [before, after] = [before, after].map(|group| row_of(group.scores(absent)));
                row(out, &[vec![group.clone(), "lifted".into()], before.map(percent).to_vec()].concat())?;
                row(out, &[vec![group.clone(), "purified".into()], after.map(percent).to_vec()].concat())?;
                let gains = std::array::from_fn::<_, 5, _>(|i| gain(before[i], after[i]));
                row(out, &[vec![group, "gain".into()], gains.to_vec()].concat())?;
            }
        }

        if !self.published.is_empty() {
            self.write_published(out)?;
        }

        if let Some(instances) = &self.instances {
            write_instances(out, instances)?;
        }

        writeln!(out, "\n## Classes\n\nPercent. In brackets: novel.\n")?;
        let columns =
            ["class", "points", "IoU lifted", "IoU purified", "gain", "Acc lifted", "Acc purified", "most taken for"];
        head(out, &columns, 1)?;
        for (class, (before, after)) in lifted.classes.iter().zip(&purified.classes).enumerate() {
            let is_novel = about.protocol.novel.contains(&class);
            let name = if is_novel { format!("({})", cell(&after.name)) } else { cell(&after.name) };
            let cells = [
                name,
                after.points.to_string(),
                percent(before.iou),
                percent(after.iou),
                gain(before.iou, after.iou),
                percent(before.accuracy),
                percent(after.accuracy),
                self.taken_for(class),
            ];
            row(out, &cells)?;
        }
        writeln!(out, "\nWhat is taken for what: [confusion.png](confusion.png)")?;

        writeln!(out, "\n## Worst scenes\n\nMeans over the classes that occur in a scene, percent.\n")?;
        head(out, &["scene", "views", "points", "counted", "mIoU lifted", "mIoU purified", "allAcc purified"], 1)?;
        for name in &self.worst {
            let Some(scene) = self.scenes.iter().find(|scene| scene.scene == *name) else { continue };
            let views = format!("{} {}", scene.views, if scene.recorded { "recorded" } else { "drawn" });
            let cells = [
                cell(name),
                views,
                scene.points.to_string(),
                (scene.points - scene.ignored).to_string(),
                percent(scene.lifted.mean_iou),
                percent(scene.purified.mean_iou),
                percent(scene.purified.all_accuracy),
            ];
            row(out, &cells)?;
        }

        if !self.failed.is_empty() {
            writeln!(out, "\n## Failed scenes\n")?;
            for Failure { scene, error } in &self.failed {
                writeln!(out, "- {scene}: {}", error.replace('\n', " "))?;
            }
        }
        if !self.skipped.is_empty() {
            writeln!(out, "\n## Scenes without a valid view\n")?;
            for Skipped { scene, reason } in &self.skipped {
                writeln!(out, "- {scene}: {}", reason.replace('\n', " "))?;
            }
        }
        writeln!(out, "\n## Made with\n")?;
        writeln!(out, "- geopurify {} on {}", about.geopurify, about.device)?;
        for Weights { model, source, sha256 } in &about.weights {
            writeln!(out, "- {model}: {source}, SHA-256 {sha256}")?;
        }
        writeln!(out, "- asked for: {}", about.labels.join(", "))?;
        writeln!(out, "- settings: `{}`", about.settings)
    }

    fn write_published(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## Published\n")?;
        writeln!(
            out,
            "Percent, as their authors count them, over all scenes of the benchmark; here it is {} scenes.\n",
            self.num_scenes
        )?;
        head(out, &["method", "data", "source", "mIoU", "mAcc", "f-mIoU", "f-mAcc"], 3)?;
        let own = self.purified.groups.first().map(|group| row_of(group.scores(AbsentClasses::Zero)));
        let Some([mean_iou, mean_accuracy, _, f_mean_iou, f_mean_accuracy]) = own else { return Ok(()) };
        let own = [mean_iou, mean_accuracy, f_mean_iou, f_mean_accuracy].map(percent);
        row(out, &[["this program", "these scenes", "above"].map(str::to_owned).to_vec(), own.to_vec()].concat())?;
        for figures in self.published {
            let names = [figures.method, figures.data, figures.source].map(cell);
            let figures = [
                figures.mean_iou,
                figures.mean_accuracy,
                figures.foreground_mean_iou,
                figures.foreground_mean_accuracy,
            ];
            let percents = figures.map(|figure| figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.1}")));
            row(out, &[names.to_vec(), percents.to_vec()].concat())?;
        }
        Ok(())
    }

    /// The wrong prediction that most points of a class have, and their share.
    fn taken_for(&self, class: usize) -> String {
        let row = &self.purified.confusion.rows[class];
        let total: u64 = row.iter().sum();
        let wrong = row.iter().enumerate().filter(|&(column, count)| column != class && *count > 0);
        // Takes the first of equal ones.
        let Some((column, &count)) = wrong.rev().max_by_key(|(_, count)| **count) else { return "–".into() };
        let name = self.purified.classes.get(column).map_or("nothing", |class| class.name.as_str());
        format!("{} {}", cell(name), percent(Some(count as f64 / total as f64)))
    }
}

fn write_instances(out: &mut String, report: &InstanceReport) -> std::fmt::Result {
    let InstanceReport { num_scenes, num_of_parts, num_true, objects, baseline } = report;
    writeln!(out, "\n## Objects\n")?;
    writeln!(
        out,
        "Average precision in percent, as ScanNet's instance benchmark counts it, over the {num_true} true objects of \
         {MIN_POINTS} points or more in {num_scenes} scenes. AP: mean over overlaps from 0.5 to 0.9. Surfaces of the room are \
         no objects.\n"
    )?;
    if *num_of_parts > 0 {
        writeln!(
            out,
            "In {num_of_parts} of these scenes nothing tells objects apart. There the connected parts of a class, {APART} m or \
             more from each other, count as its true objects.\n"
        )?;
    }
    head(out, &["objects", "classes", "told", "AP", "AP50", "AP25"], 2)?;
    for (name, figures) in [("objects", objects), ("connected regions", baseline)] {
        for (classes, scores) in [("told apart", figures.class_aware), ("as one", figures.class_agnostic)] {
            let names = [name.to_owned(), classes.to_owned(), figures.num_told.to_string()];
            row(out, &[names, ap_row(scores)].concat())?;
        }
    }
    writeln!(out)?;
    head(out, &["class", "true objects", "AP", "AP50", "AP25", "AP50 of regions"], 1)?;
    for (class, of_baseline) in objects.classes.iter().zip(&baseline.classes) {
        let names = vec![cell(&class.name), class.num_true.to_string()];
        row(out, &[names, ap_row(class.scores).to_vec(), vec![percent(of_baseline.scores.ap50)]].concat())?;
    }
    Ok(())
}

/// AP, AP50 and AP25.
fn ap_row(scores: InstanceScores) -> [String; 3] {
    [scores.ap, scores.ap50, scores.ap25].map(percent)
}

/// Scenes with the lowest mean IoU. A scene without counted points has no IoU and is left out.
fn worst(scenes: &[SceneFigures]) -> Vec<String> {
    let mut known: Vec<(f64, &str)> =
        scenes.iter().filter_map(|scene| Some((scene.purified.mean_iou?, scene.scene.as_str()))).collect();
    known.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    known.into_iter().take(NUM_WORST).map(|(_, name)| name.to_owned()).collect()
}

/// mIoU, mAcc, allAcc, f-mIoU, f-mAcc.
fn row_of((scores, foreground): (Scores, Option<Scores>)) -> [Option<f64>; 5] {
    let Scores { mean_iou, mean_accuracy, all_accuracy } = scores;
    let (f_mean_iou, f_mean_accuracy) = (foreground.and_then(|f| f.mean_iou), foreground.and_then(|f| f.mean_accuracy));
    [mean_iou, mean_accuracy, all_accuracy, f_mean_iou, f_mean_accuracy]
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.2}", 100.0 * share))
}

fn gain(before: Option<f64>, after: Option<f64>) -> String {
    let Some((before, after)) = before.zip(after) else { return "–".to_owned() };
    let points = 100.0 * (after - before);
    // A value that rounds to zero has no sign.
    format!("{:+.2}", if points.abs() < 0.005 { 0.0 } else { points })
}

/// Escapes a text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// Head of a table. The first `num_names` columns are left-aligned, the others right-aligned.
fn head(out: &mut String, columns: &[&str], num_names: usize) -> std::fmt::Result {
    writeln!(out, "| {} |", columns.join(" | "))?;
    let rules: Vec<&str> = (0..columns.len()).map(|i| if i < num_names { "---" } else { "---:" }).collect();
    writeln!(out, "| {} |", rules.join(" | "))
}

fn row(out: &mut String, cells: &[String]) -> std::fmt::Result {
    writeln!(out, "| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::instances::{Compared, Told, TrueInstances};
    use super::*;

    const PROTOCOL: Protocol =
        Protocol { name: "test", num_classes: 4, ignore: &[9], novel: Cow::Borrowed(&[2, 3]), background: &[0] };

    fn about() -> About {
        About {
            geopurify: "1",
            preset: "test",
            labels: ["wall", "chair", "lamp", "a|b"].map(str::to_owned).to_vec(),
            protocol: PROTOCOL,
            settings: serde_json::json!({ "views": 3 }),
            weights: vec![Weights { model: "student", source: "s".into(), sha256: "5ha".into() }],
            device: "host".into(),
        }
    }

    fn counts(labels: &[i32], predictions: &[i32]) -> Counts {
        let mut confusion = Confusion::new(4).unwrap();
        confusion.add(labels, predictions, &[9]).unwrap();
        (&confusion).into()
    }

    fn result(scene: &str, labels: &[i32], lifted: &[i32], purified: &[i32]) -> SceneResult {
        SceneResult {
            key: String::new(),
            scene: scene.into(),
            points: labels.len() as u64,
            views: 3,
            recorded: false,
            notes: Vec::new(),
            lifted: counts(labels, lifted),
            purified: counts(labels, purified),
            instances: None,
            seconds: 1.0,
        }
    }

    fn results() -> [SceneResult; 3] {
        [
            // IoU: wall 2/2, chair 1/2, lamp 0/1 after; wall 1/2, chair 0/2 before.
            result("a", &[0, 0, 1, 1, 9], &[0, -1, -1, 0, 0], &[0, 0, 1, 2, 3]),
            // Lamp 1/2, wall 0/1.
            result("b", &[2, 2], &[2, 2], &[2, 0]),
            result("empty", &[9], &[0], &[0]),
        ]
    }

    fn near(found: Option<f64>, expected: f64) -> bool {
        (found.unwrap() - expected).abs() < 1e-9
    }

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        let report = Report::new(about(), &results(), Missing::default()).unwrap();
        assert_eq!((report.num_scenes, report.points, report.ignored), (3, 8, 2));
        // Summed: truth wall 2, chair 2, lamp 2. After: wall 2 of union 3, chair 1 of 2, lamp 1 of 3.
        let [all, base, novel] = report.purified.groups.as_slice() else { panic!() };
        assert_eq!((all.name, base.name, novel.name), ("all", "base", "novel"));
        let ious = [2.0 / 3.0, 0.5, 1.0 / 3.0];
        assert!(near(all.absent_zero.mean_iou, ious.iter().sum::<f64>() / 4.0));
        assert!(near(all.absent_skipped.mean_iou, ious.iter().sum::<f64>() / 3.0));
        assert!(near(all.absent_zero.mean_accuracy, (1.0 + 0.5 + 0.5) / 4.0));
        assert!(near(all.absent_zero.all_accuracy, 4.0 / 6.0));
        assert!(near(base.absent_zero.mean_iou, (ious[0] + ious[1]) / 2.0));
        assert!(near(novel.absent_zero.mean_iou, ious[2] / 2.0) && near(novel.absent_skipped.mean_iou, ious[2]));
        let foreground = all.foreground.as_ref().unwrap();
        assert!(near(foreground.absent_zero.mean_iou, (ious[1] + ious[2]) / 3.0));
        assert!(near(base.foreground.as_ref().unwrap().absent_zero.mean_iou, ious[1]));
        // Before: wall 1 of union 3, chair 0 of 2, lamp 2 of 2.
        assert!(near(report.lifted.groups[0].absent_skipped.mean_iou, (1.0 / 3.0 + 0.0 + 1.0) / 3.0));
        assert_eq!((report.lifted.unlabelled, report.purified.unlabelled), (2, 0));
        assert_eq!(report.purified.classes[3].iou, None);
        // Scene a: (1 + 0.5 + 0) / 3; scene b: (0 + 0.5) / 2; the other has no counted point.
        assert_eq!(report.worst, ["b", "a"]);
        assert!(near(report.scenes[0].purified.mean_iou, 0.5) && near(report.scenes[1].purified.mean_iou, 0.25));
        assert_eq!(report.scenes[2].purified.mean_iou, None);
    }

    #[test]
    fn markdown_has_the_figures() {
        let missing = Missing {
            failed: vec![Failure { scene: "c".into(), error: "no\nfile".into() }],
            skipped: vec![Skipped { scene: "d".into(), reason: "none of 3 views".into() }],
        };
        let text = Report::new(about(), &results(), missing).unwrap().to_markdown();
        for line in [
            "3 scenes, 8 points, 6 of them counted.",
            "| all (4) | lifted | 33.33 | 37.50 | 50.00 | 33.33 | 33.33 |",
            "| all (4) | purified | 37.50 | 50.00 | 66.67 | 27.78 | 33.33 |",
            "| all (4) | gain | +4.17 | +12.50 | +16.67 | -5.56 | +0.00 |",
            "| novel (2) | purified | 33.33 | 50.00 | 50.00 | 33.33 | 50.00 |",
            "| wall | 2 | 33.33 | 66.67 | +33.33 | 50.00 | 100.00 | – |",
            "| chair | 2 | 0.00 | 50.00 | +50.00 | 0.00 | 50.00 | lamp 50.00 |",
            "| (a\\|b) | 0 | – | – | – | – | – | – |",
            "| b | 3 drawn | 2 | 2 | 100.00 | 25.00 | 50.00 |",
            "**1 scenes failed and are missing in all figures**",
            "- c: no file",
            "**1 scenes without a valid view were left out**",
            "## Scenes without a valid view\n\n- d: none of 3 views",
            "- student: s, SHA-256 5ha",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn objects_are_in_the_report_if_they_are_measured() {
        let truth = TrueInstances::new(&[vec![1; 200], vec![3; 150], vec![-1; 50]].concat(), &[5; 400]);
        let told = |class, points: std::ops::Range<u32>| Told { class, score: 0.5, points: points.collect() };
        let objects = Compared::new(&truth, &[told(1, 0..200), told(1, 200..350)]);
        let baseline = Compared::new(&truth, &[told(1, 0..350)]);
        let mut results = results();
        results[1].instances = Some(SceneInstances { of_parts: true, objects, baseline });
        let report = Report::new(about(), &results, Missing::default()).unwrap();
        assert_eq!(report.instances.as_ref().map(|instances| instances.num_true), Some(2));
        let text = report.to_markdown();
        for line in [
            "over the 2 true objects of 100 points or more in 1 scenes.",
            "In 1 of these scenes nothing tells objects apart.",
            "the connected parts of a class, 0.2 m or more",
            "| objects | told apart | 2 | 37.50 | 37.50 | 37.50 |",
            "| objects | as one | 2 | 100.00 | 100.00 | 100.00 |",
            "| connected regions | told apart | 1 | 11.11 | 50.00 | 50.00 |",
            "| chair | 1 | 75.00 | 75.00 | 75.00 | 100.00 |",
            "| a\\|b | 1 | 0.00 | 0.00 | 0.00 | 0.00 |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let without = Report::new(about(), &self::results(), Missing::default()).unwrap();
        assert!(without.instances.is_none() && !without.to_markdown().contains("## Objects"));
    }

    #[test]
    fn times_change_no_report() {
        let mut later = results();
        later[0].seconds = 77.0;
        later[0].key = "other".into();
        let json = |results: &[SceneResult]| {
            serde_json::to_string(&Report::new(about(), results, Missing::default()).unwrap()).unwrap()
        };
        assert_eq!(json(&results()), json(&later));
    }

    #[test]
    fn counts_must_be_of_the_protocol() {
        let mut wrong = results();
        wrong[1].purified.rows.pop();
        let error = Report::new(about(), &wrong, Missing::default()).unwrap_err().to_string();
        assert!(error.starts_with("scene 'b': a matrix of"), "{error}");
        let text = serde_json::to_string(&wrong[0]).unwrap();
        assert_eq!(serde_json::from_str::<SceneResult>(&text).unwrap(), wrong[0]);
    }

    #[test]
    fn a_set_without_novel_classes_has_one_group() {
        let protocol = Protocol { novel: Cow::Borrowed(&[]), background: &[], ..PROTOCOL };
        let report = Report::new(About { protocol, ..about() }, &results(), Missing::default()).unwrap();
        assert_eq!(report.purified.groups.len(), 1);
        assert!(report.to_markdown().contains("| all (4) | purified | 37.50 | 50.00 | 66.67 | – | – |"));
    }
}
