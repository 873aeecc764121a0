//! Evaluation of many scenes. Each is labelled, counted and drawn once, and its result is kept in the
//! report's folder.

use std::borrow::Cow;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use glam::DVec3;
use serde_json::{Value as Json, json};

use super::instance_report::SceneInstances;
use super::instances::{Compared, Told, TrueInstances};
use super::parts::parts;
use super::report::{About, Counts, Figures, Missing, Report, ReportError, SceneResult};
use super::scenes::{LabelSource, LabelledScene, SceneLabels};
use super::truth::{Truth, TruthError};
use crate::files::write_atomic;
use crate::images::draw::{matrix, palette};
use crate::images::{ImageError, Rgb8Image, write_png};
use crate::labels::{LabelIds, LabelsError, Preset, Protocol, is_stuff, nyu40_from_class, read_labels};
use crate::objects;
use crate::pipeline::{Inferred, PipelineError, Results, Scene, contact_sheet};
use crate::session::{LabelOptions, Labelled, Labeller, Opened, SessionError, Source, ViewSource, Words};
use crate::stages::StageTimer;
use crate::weights::{WeightsError, bytes_sha256, file_sha256};

/// Version of result files. Results of another version are computed again.
const FORMAT: u32 = 2;
/// Number of worst scenes whose contact sheets are copied.
const NUM_SHEETS: usize = 3;

const SCENES_FOLDER: &str = "scenes";
const WORST_FOLDER: &str = "worst";
const JSON_FILE: &str = "report.json";
const MARKDOWN_FILE: &str = "report.md";
const CONFUSION_FILE: &str = "confusion.png";

/// Error of a scene or a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// The label set does not use NYU40 classes.
    #[error("the classes of {0} are not NYU40 classes")]
    NotNyu40(&'static str),
    /// A source is a recording without a scan.
    #[error("{}: a recording, not a scan", .0.display())]
    NoScan(PathBuf),
    /// A folder cannot be made.
    #[error("{}: cannot make this folder", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The report's folder cannot be locked or tidied.
    #[error("{}: {source}", path.display())]
    Lock {
        /// The folder.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// Another process writes into the report's folder.
    #[error("{}: another process evaluates here", .0.display())]
    Busy(PathBuf),
    /// The disk is full.
    #[error("the disk is full; finished scenes are kept")]
    DiskFull,
    /// None of so many scenes could be evaluated.
    #[error("not one of {0} scenes could be evaluated")]
    NoneEvaluated(usize),
    /// The labels cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// Labels and predictions cannot be compared.
    #[error(transparent)]
    Truth(#[from] TruthError),
    /// The scene cannot be read or labelled.
    #[error(transparent)]
    Session(Box<SessionError>),
    /// The contact sheet cannot be drawn.
    #[error(transparent)]
    Pipeline(Box<PipelineError>),
    /// A picture cannot be drawn or written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The report cannot be made or written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A file cannot be hashed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl EvaluationError {
    /// True if no view shows enough of the scene, although every frame can be read. Such a scene is left out and
    /// counted, as in the published code. It is no failure.
    #[must_use]
    pub fn is_without_views(&self) -> bool {
        let Self::Session(error) = self else { return false };
        matches!(**error, SessionError::Pipeline(PipelineError::NothingSeen { unreadable: 0, .. }))
    }
}

impl From<SessionError> for EvaluationError {
    fn from(error: SessionError) -> Self {
        Self::Session(Box::new(error))
    }
}

impl From<PipelineError> for EvaluationError {
    fn from(error: PipelineError) -> Self {
        Self::Pipeline(Box::new(error))
    }
}

/// Settings of an evaluation.
#[derive(Clone, Debug)]
pub struct EvaluationSettings {
    /// Folder of labelled scenes.
    pub folder: PathBuf,
    /// Folder of the report.
    pub output: PathBuf,
    /// Label set.
    pub preset: Preset,
    /// Meaning of label numbers. By default NYU40 numbers if the label set uses NYU40 classes, otherwise class
    /// numbers.
    pub label_ids: LabelIds,
    /// Property of points that holds the labels, if it is not the usual one.
    pub field: Option<String>,
    /// Novel classes, if they differ from the benchmark's. All others are base classes.
    pub novel: Option<Vec<usize>>,
    /// Labels that are not counted, in addition to those that the benchmark leaves out.
    pub ignore: Vec<i64>,
    /// True if the connected parts of a class are its true objects in scenes that tell none apart.
    pub parts_as_instances: bool,
}

/// Running evaluation.
pub struct Evaluation {
    settings: EvaluationSettings,
    protocol: Protocol,
    words: Words,
    /// NYU40 number of each class, if labels are NYU40 numbers.
    nyu40: Option<Vec<i64>>,
    /// Settings on which results depend.
    used: Json,
    /// Key of everything that the result of any scene depends on.
    key: Json,
}

impl Evaluation {
    /// Makes the report's folders.
    ///
    /// # Errors
    /// [`EvaluationError::NotNyu40`], [`EvaluationError::Folder`].
    pub fn new(settings: EvaluationSettings, options: &LabelOptions) -> Result<Self, EvaluationError> {
        let preset = settings.preset;
        let protocol = Protocol::of_preset(&preset);
        let protocol = match &settings.novel {
            Some(novel) => protocol.with_novel(novel.clone()),
            None => protocol,
        };
        let nyu40 = match (settings.label_ids, nyu40_from_class(&preset)) {
            (LabelIds::Auto, nyu40) => nyu40,
            (LabelIds::Class, _) => None,
            (LabelIds::Nyu40, Some(nyu40)) => Some(nyu40),
            (LabelIds::Nyu40, None) => return Err(EvaluationError::NotNyu40(preset.name)),
        };
        let mut labels = Words::asked(preset, options).labels;
        labels.truncate(protocol.num_classes);
        let colors = preset.colors.map_or_else(|| palette(labels.len()), |colors| colors[..labels.len()].to_vec());
        let LabelOptions { image_model, sharpness, threshold, seed, voxel, neighbors, views, .. } = options;
        let used = json!({
            "label_ids": if nyu40.is_some() { "nyu40" } else { "class" },
            "field": settings.field.as_deref().unwrap_or("auto"), "ignore": settings.ignore,
            "parts_as_instances": settings.parts_as_instances,
            "threshold": threshold, "seed": seed, "voxel": voxel, "neighbors": neighbors, "sharpness": sharpness,
            "compat": views.compat.to_string(), "views": views.max_views,
        });
        for path in [settings.output.clone(), settings.output.join(SCENES_FOLDER), settings.output.join(WORST_FOLDER)] {
            std::fs::create_dir_all(&path).map_err(|source| EvaluationError::Folder { path, source })?;
        }
        let words = Words { labels, colors, background: Vec::new() };
        let words = if image_model.background_competes() { words.with_background() } else { words };
        Ok(Self { settings, protocol, words, nyu40, used, key: Json::Null })
    }

    /// Folder of the report.
    #[must_use]
    pub fn output(&self) -> &Path {
        &self.settings.output
    }

    /// Words by which scenes are labelled.
    #[must_use]
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// Protocol by which labels are counted.
    #[must_use]
    pub fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    /// Adds the networks to the keys of results.
    pub fn with_labeller(mut self, labeller: &Labeller<'_>) -> Self {
        let plan = labeller.plan();
        self.used["size"] = labeller.views().size().into();
        self.used["method"] = plan.method.to_string().into();
        self.used["image_model"] = labeller.image_model().map(|model| model.to_string()).into();
        self.used["iterations"] = plan.iterations.into();
        self.used["affinities"] = plan.affinities.to_json();
        // Which classes are novel changes no count.
        let counting = Protocol { novel: Cow::Borrowed(&[]), ..self.protocol.clone() };
        let mut key = json!({
            "format": FORMAT, "geopurify": env!("CARGO_PKG_VERSION"), "protocol": counting,
            "labels": self.words.labels, "background": self.words.background, "nyu40": self.nyu40, "settings": self.used,
        });
        if let (Json::Object(key), Json::Object(of_labeller)) = (&mut key, labeller.key()) {
            key.extend(of_labeller);
        }
        self.key = key;
        self
    }

    /// Key of everything that the result of `scene` depends on. A recording counts by its path and, if it is
    /// a file, its length.
    fn scene_key(&self, scene: &LabelledScene) -> Result<String, EvaluationError> {
        let folder = &self.settings.folder;
        let recording = scene.recording.as_ref().map(|path| {
            let bytes = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
            json!({ "path": path.strip_prefix(folder).unwrap_or(path).to_string_lossy(), "bytes": bytes })
        });
        let mut files = vec![file_sha256(&scene.scan)?];
        for path in scene.label_files(folder) {
            files.push(file_sha256(&path)?);
        }
        let key = json!({ "of_all": self.key, "name": scene.name, "files": files, "recording": recording });
        Ok(bytes_sha256(key.to_string().as_bytes()))
    }

    fn truth(&self, scene: &LabelledScene) -> Result<Truth, EvaluationError> {
        let EvaluationSettings { folder, preset, field, label_ids, ignore, .. } = &self.settings;
        let SceneLabels { labels, are_nyu40 } = match (field, label_ids, &scene.source) {
            (None, LabelIds::Auto, _) | (_, _, LabelSource::Segments(_) | LabelSource::Faces) => {
                scene.read_labels(folder, preset)?
            }
            (field, ..) => {
                let labels = read_labels(&scene.labels, field.as_deref().unwrap_or("label"))?;
                SceneLabels { labels, are_nyu40: self.nyu40.is_some() }
            }
        };
        let nyu40 = self.nyu40.as_deref().filter(|_| are_nyu40);
        Ok(Truth::new(&scene.labels, labels, nyu40, ignore, &self.protocol)?)
    }

    /// Labels a scene and counts its points. The contact sheet is written before the result.
    fn evaluate(
        &self,
        scene: &LabelledScene,
        key: String,
        labeller: &Labeller<'_>,
        say: &mut dyn FnMut(&str),
    ) -> Result<SceneResult, EvaluationError> {
        let mut timer = StageTimer::default();
        let truth = self.truth(scene)?;
        timer.lap("read labels");
        let source = Source::of(&scene.scan, scene.recording.as_deref());
        let Opened::Scan(scan, dataset) = source.open(labeller.views(), &mut timer, say)? else {
            return Err(EvaluationError::NoScan(source.path().to_path_buf()));
        };
        let scan: &Scene = &scan;
        truth.check(&scene.scan, scan.cloud.len())?;
        let source = ViewSource::of(dataset.as_deref());
        let labelled = labeller.label(scan, source, &mut timer, &mut |_| Ok(()))?;
        let Labelled { placed, inferred, mut notes, .. } = labelled;

        let results = Results::new(scan, &inferred, &self.words.labels, &self.words.colors);
        let (lifted, purified) = (&inferred.lifted_label, &results.of_point().label);
        // Points without a position have a label but no prediction.
        let count = |labels: &[i32]| truth.count(&scan.for_all_points(labels.to_vec(), -1), &self.protocol);
        let counts = [count(lifted)?, count(purified)?];
        let (classes, _) = results.classes();
        let truth = truth.classes(&self.protocol);
        let instances = self.instances(scene, scan, &truth, &inferred, placed.cameras.up, &mut notes);
        timer.lap("compare objects");
        let truth = scan.kept().map_or_else(|| truth.clone(), |kept| kept.iter().map(|&i| truth[i as usize]).collect());
        let columns: [(&str, &[i32]); 3] = [("truth", &truth), ("lifted", lifted), ("purified", purified)];
        let cameras = placed.shown_from();
        let picture = contact_sheet(scan, &placed.appearance, &placed.renderer, &cameras, &columns, &classes)?;
        write_png(&self.scene_file(&scene.name, "png"), &picture)?;
        timer.lap("draw");
        let [lifted, purified] = counts.each_ref().map(Counts::from);
        Ok(SceneResult {
            key,
            scene: scene.name.clone(),
            points: scan.cloud.len() as u64,
            views: inferred.views.looked_at as u64,
            recorded: scene.recording.is_some(),
            notes,
            lifted,
            purified,
            instances,
            seconds: timer.seconds(),
        })
    }

    /// Compares objects with the true ones; `None` if the scene tells none apart. `class_of_point [N]` are the true
    /// classes.
    fn instances(
        &self,
        scene: &LabelledScene,
        scan: &Scene,
        class_of_point: &[i32],
        inferred: &Inferred,
        up: DVec3,
        notes: &mut Vec<String>,
    ) -> Option<SceneInstances> {
        let is_thing = self.is_thing();
        let thing = |&class: &i32| if is_thing.get(class as usize).is_some_and(|is| *is) { class } else { -1 };
        let classes: Vec<i32> = class_of_point.iter().map(thing).collect();
        let (numbers, of_parts) = match scene.read_instances() {
            Ok(Some(numbers)) => (numbers, false),
            Ok(None) if self.settings.parts_as_instances => (parts_of(scan, &classes), true),
            Ok(None) => return None,
            Err(error) => {
                notes.push(format!("objects are not measured: {error}"));
                return None;
            }
        };
        if numbers.len() != classes.len() {
            let (numbers, points) = (numbers.len(), classes.len());
            notes.push(format!("objects are not measured: {numbers} numbers of objects for {points} points"));
            return None;
        }
        let truth = TrueInstances::new(&classes, &numbers);
        let is_stuff: Vec<bool> = is_thing.iter().map(|is| !is).collect();
        let input = inferred.object_input(scan, &self.words.labels, &is_stuff, up);
        let compare = |found| Compared::new(&truth, &told_of(&found, scan, inferred, &is_thing));
        Some(SceneInstances {
            of_parts,
            objects: compare(objects::find(&input)),
            baseline: compare(objects::baseline(&input)),
        })
    }

    /// `[C]`: true for classes of objects, false for surfaces of the room.
    fn is_thing(&self) -> Vec<bool> {
        let is_background = |class: usize| self.protocol.background.contains(&class);
        let labels = self.settings.preset.labels[..self.protocol.num_classes].iter().enumerate();
        labels.map(|(class, name)| !is_background(class) && !is_stuff(name)).collect()
    }

    fn scene_file(&self, name: &str, extension: &str) -> PathBuf {
        // `with_extension` would not work: a scene's name may contain dots.
        self.settings.output.join(SCENES_FOLDER).join(format!("{name}.{extension}"))
    }

    /// Stored result of a scene, if its key is the same.
    fn done(&self, name: &str, key: &str) -> Option<SceneResult> {
        let text = std::fs::read(self.scene_file(name, "json")).ok()?;
        let result: SceneResult = serde_json::from_slice(&text).ok()?;
        let is_whole =
            |counts: &Counts| counts.rows.len() == self.protocol.num_classes && counts.to_confusion().is_ok();
        let is_same = result.key == key && result.scene == name;
        let instances_are_whole =
            result.instances.as_ref().is_none_or(|instances| instances.is_whole(self.protocol.num_classes));
        let is_whole = is_whole(&result.lifted) && is_whole(&result.purified) && instances_are_whole;
        (is_same && is_whole && self.scene_file(name, "png").is_file()).then_some(result)
    }

    /// Returns the result of a scene, computed now or stored before. The flag is true if it was computed now.
    /// Reports notes about its recording to `say`.
    ///
    /// # Errors
    /// [`EvaluationError`]; stored results stay.
    pub fn result(
        &self,
        scene: &LabelledScene,
        labeller: &Labeller<'_>,
        say: &mut dyn FnMut(&str),
    ) -> Result<(SceneResult, bool), EvaluationError> {
        let key = self.scene_key(scene)?;
        if let Some(result) = self.done(&scene.name, &key) {
            return Ok((result, false));
        }
        let path = self.scene_file(&scene.name, "json");
        // Removes the old result first. It must not be mistaken for the result of the picture that is drawn
        // now.
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(ReportError::Write { path, source }.into());
            }
            _ => {}
        }
        let result = self.evaluate(scene, key, labeller, say)?;
        write_json(&path, |out| serde_json::to_writer(out, &result))?;
        Ok((result, true))
    }

    /// Makes the report of `results`, with the scenes that are `missing` among them.
    ///
    /// # Errors
    /// [`EvaluationError::Report`].
    pub fn report(
        &self,
        labeller: &Labeller<'_>,
        results: &[SceneResult],
        missing: Missing,
    ) -> Result<Report, EvaluationError> {
        let about = About {
            geopurify: env!("CARGO_PKG_VERSION"),
            preset: self.settings.preset.name,
            labels: self.words.labels.clone(),
            protocol: self.protocol.clone(),
            settings: self.used.clone(),
            weights: labeller.weights().to_vec(),
            device: labeller.device().name.clone(),
        };
        Ok(Report::new(about, results, missing)?)
    }

    /// Writes all files except those of single scenes, `report.json` last. Returns the files.
    ///
    /// # Errors
    /// [`EvaluationError::Report`], [`EvaluationError::Image`].
    pub fn write(&self, report: &Report) -> Result<Vec<PathBuf>, EvaluationError> {
        let folder = &self.settings.output;
        let sheets = self.write_worst(&report.worst[..report.worst.len().min(NUM_SHEETS)])?;
        let confusion = folder.join(CONFUSION_FILE);
        write_png(&confusion, &self.confusion_picture(&report.purified)?)?;
        let markdown = folder.join(MARKDOWN_FILE);
        let mut text = report.to_markdown();
        let links: Vec<String> =
            report.worst.iter().zip(&sheets).map(|(name, _)| format!("[{name}]({WORST_FOLDER}/{name}.png)")).collect();
        if !links.is_empty() {
            text += &format!("\nSheets of the worst scenes: {}\n", links.join(", "));
        }
        let written = write_atomic(&markdown, |out| out.write_all(text.as_bytes()));
        written.map_err(|source| ReportError::Write { path: markdown.clone(), source })?;
        let json = folder.join(JSON_FILE);
        write_json(&json, |out| serde_json::to_writer_pretty(out, report))?;
        Ok([vec![json, markdown, confusion], sheets].concat())
    }

    /// Copies the contact sheets of the worst scenes. Removes those copied by an earlier report.
    fn write_worst(&self, worst: &[String]) -> Result<Vec<PathBuf>, ReportError> {
        let folder = self.settings.output.join(WORST_FOLDER);
        let at = |path: &Path, source| ReportError::Write { path: path.to_path_buf(), source };
        for entry in std::fs::read_dir(&folder).map_err(|source| at(&folder, source))? {
            let path = entry.map_err(|source| at(&folder, source))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_copy = self.settings.output.join(SCENES_FOLDER).join(&name).is_file() && name.ends_with(".png");
            let is_worst = worst.iter().any(|scene| name == format!("{scene}.png"));
            if is_copy && !is_worst {
                std::fs::remove_file(&path).map_err(|source| at(&path, source))?;
            }
        }
        let copy = |name: &String| {
            let (from, to) = (self.scene_file(name, "png"), folder.join(format!("{name}.png")));
            let bytes = std::fs::read(&from).map_err(|source| at(&from, source))?;
            write_atomic(&to, |out| out.write_all(&bytes)).map_err(|source| at(&to, source))?;
            Ok(to)
        };
        worst.iter().map(copy).collect()
    }

    fn confusion_picture(&self, figures: &Figures) -> Result<Rgb8Image, ImageError> {
        let labels = &self.words.labels;
        let columns: Vec<String> = labels.iter().cloned().chain(["unlabelled".to_owned()]).collect();
        let shares: Vec<Option<f64>> = figures
            .confusion
            .rows
            .iter()
            .flat_map(|row| {
                let total: u64 = row.iter().sum();
                row.iter().map(move |&count| (total > 0).then(|| count as f64 / total as f64))
            })
            .collect();
        let title = "Where the points of each class go, percent of the row";
        matrix(labels, &columns, &shares, title, ["truth", "prediction"])
    }
}

/// What is told of objects of the scan. Surfaces of the room, and objects that no word names, are left out.
fn told_of(found: &objects::Found, scan: &Scene, inferred: &Inferred, is_thing: &[bool]) -> Vec<Told> {
    let of_voxel = |&voxel: &i32| found.of_voxel.get(voxel as usize).copied().unwrap_or(-1);
    let of_point = inferred.purified.voxel_from_point.iter().map(of_voxel).collect();
    let objects: Vec<(usize, f32)> = (found.objects.iter())
        .map(|object| (usize::try_from(object.label).unwrap_or(usize::MAX), object.score as f32))
        .collect();
    let mut told = Told::of_points(&objects, &scan.for_all_points(of_point, -1));
    told.retain(|object| is_thing.get(object.class).is_some_and(|is| *is));
    told
}

/// The connected parts of each class, `[N]` for all points of the scan.
fn parts_of(scan: &Scene, class_of_point: &[i32]) -> Vec<i64> {
    let metres = scan.metres_per_unit().unwrap_or(1.0);
    let positions: Vec<[f64; 3]> = scan.positions().iter().map(|p| p.map(|x| x * metres)).collect();
    let of_kept = |kept: &[u32]| kept.iter().map(|&i| class_of_point[i as usize]).collect();
    let classes: Vec<i32> = scan.kept().map_or_else(|| class_of_point.to_vec(), of_kept);
    scan.for_all_points(parts(&positions, &classes), -1)
}

fn write_json(
    path: &Path,
    write: impl FnOnce(&mut std::io::BufWriter<std::fs::File>) -> serde_json::Result<()>,
) -> Result<(), ReportError> {
    let written = write_atomic(path, |out| {
        write(out)?;
        out.write_all(b"\n")
    });
    written.map_err(|source| ReportError::Write { path: path.to_path_buf(), source })
}
