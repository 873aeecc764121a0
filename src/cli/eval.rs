//! `geopurify eval`: how good the labelling is, on scenes whose labels are known.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::labelling::{Labelled, LabellingArgs, Loaded, without_prefix};
use super::select::{LabelIds, name_the_field};
use super::table::table;
use super::told_once;
use super::viewing::{Look, Opened, Source};
use crate::eval::labels::{Truth, nyu40_from_class, read_labels};
use crate::eval::metrics::{AbsentClasses, Protocol};
use crate::eval::report::{About, Counts, Failure, Figures, Report, ReportError, SceneResult};
use crate::eval::scenes::{LabelSource, LabelledScene, SceneLabels, find_scenes};
use crate::files::{is_full, lock, write_atomic};
use crate::images::draw::{matrix, palette};
use crate::images::{Rgb8Image, write_png};
use crate::pipeline::{Results, Scene, sheet};
use crate::query::presets::Preset;
use crate::stages::Laps;
use crate::weights::{bytes_sha256, file_sha256};

/// Of the scenes' results: those of another format are done again.
const FORMAT: u32 = 1;
/// Scenes whose sheets are copied for a look.
const NUM_SHEETS: usize = 3;

const SCENES_FOLDER: &str = "scenes";
const WORST_FOLDER: &str = "worst";
const JSON_FILE: &str = "report.json";
const MARKDOWN_FILE: &str = "report.md";
const CONFUSION_FILE: &str = "confusion.png";

/// Arguments of `eval`.
#[derive(clap::Args, Debug)]
pub(super) struct EvalArgs {
    /// Folder of labelled scenes: NAME.ply and NAME.labels.ply (as ScanNet has them), in it or up to two folders down; with
    /// the recording as NAME.sens, in a folder NAME, or in the scene's own folder, else drawn views are looked at. Scenes of
    /// ScanNet may have segments and groups instead of labelled meshes; of Matterport3D, SCAN/region_segmentations are read
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Classes, as a benchmark has them: scannet20 (whose last, "other", is not counted), scannet200, matterport21,
    /// matterport40, matterport80, matterport160
    #[arg(long, value_name = "NAME", default_value = "scannet20")]
    preset: Preset,
    /// Folder for the report. Scenes that are done there with the same settings and weights are not done again
    #[arg(short, long, value_name = "REPORT")]
    output: PathBuf,
    /// Evaluate the scenes of this list alone, a name a line
    #[arg(long, value_name = "FILE.txt")]
    scenes: Option<PathBuf>,
    /// What the labels are: numbers of classes, or NYU40's [auto: nyu40 where the preset's classes are taken from them]
    #[arg(long, value_enum, default_value_t = LabelIds::Auto)]
    label_ids: LabelIds,
    /// Property of the points that holds the labels [default: the one called as the preset, which has numbers of classes, else
    /// label]
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// Labels that are not counted, beside those that the benchmark leaves out
    #[arg(long, value_name = "LABEL,..", value_delimiter = ',', allow_hyphen_values = true)]
    ignore: Vec<i64>,
    #[command(flatten)]
    labelling: LabellingArgs,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// What is evaluated.
struct Task<'a> {
    args: &'a EvalArgs,
    protocol: Protocol,
    labels: Vec<String>,
    colors: Vec<[u8; 3]>,
    /// NYU40's number of each class, where labels are NYU40's.
    nyu40: Option<Vec<i64>>,
    /// Settings that figures depend on.
    settings: Value,
}

impl<'a> Task<'a> {
    fn new(args: &'a EvalArgs) -> Result<Self> {
        let Preset { name, labels, colors, .. } = args.preset;
        let protocol = Protocol::of_preset(&args.preset);
        let nyu40 = nyu40_from_class(&args.preset);
        let nyu40 = match args.label_ids {
            LabelIds::Auto => nyu40,
            LabelIds::Class => None,
            LabelIds::Nyu40 if nyu40.is_some() => nyu40,
            LabelIds::Nyu40 => bail!("the classes of {name} are not taken from NYU40's: say --label-ids class"),
        };
        let labels: Vec<String> = labels[..protocol.num_classes].iter().map(|&label| label.to_owned()).collect();
        let colors = colors.map_or_else(|| palette(labels.len()), |colors| colors[..labels.len()].to_vec());
        let LabellingArgs { threshold, seed, voxel, neighbors, iterations, affinities, viewing, .. } = &args.labelling;
        let settings = json!({
            "label_ids": if nyu40.is_some() { "nyu40" } else { "class" },
            "field": args.field.as_deref().unwrap_or("auto"), "ignore": args.ignore,
            "threshold": threshold, "seed": seed, "voxel": voxel, "neighbors": neighbors, "iterations": iterations,
            "affinities": affinities.to_json(), "sharpness": affinities.sharpness,
            "compat": viewing.compat.to_string(), "views": viewing.views,
        });
        Ok(Self { args, protocol, labels, colors, nyu40, settings })
    }

    /// What the result of any scene depends on.
    fn key(&self, loaded: &Loaded) -> Value {
        json!({
            "format": FORMAT, "geopurify": env!("CARGO_PKG_VERSION"), "protocol": self.protocol, "labels": self.labels,
            "nyu40": self.nyu40, "settings": self.settings, "viewing": loaded.viewing.key(),
            "weights": loaded.weights.iter().map(|weights| &weights.sha256).collect::<Vec<_>>(),
            "xdecoder": loaded.xdecoder_config(), "precision": format!("{:?}", loaded.precision),
            "device": loaded.selected.name,
        })
    }

    /// What the result of `scene` depends on. Of a recording, its place and, if it is a file, its length.
    fn scene_key(&self, scene: &LabelledScene, of_all: &Value) -> Result<String> {
        let recording = scene.recording.as_ref().map(|path| {
            let bytes = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
            json!({ "path": path.strip_prefix(&self.args.folder).unwrap_or(path), "bytes": bytes })
        });
        let mut files = vec![file_sha256(&scene.scan)?];
        for path in scene.label_files(&self.args.folder, &self.args.preset) {
            files.push(file_sha256(&path)?);
        }
        let key = json!({ "of_all": of_all, "name": scene.name, "files": files, "recording": recording });
        Ok(bytes_sha256(key.to_string().as_bytes()))
    }

    fn truth(&self, scene: &LabelledScene) -> Result<Truth> {
        let EvalArgs { folder, preset, field, label_ids, ignore, .. } = self.args;
        let labels = match (field, label_ids, &scene.source) {
            (None, LabelIds::Auto, _) | (_, _, LabelSource::Segments(_) | LabelSource::Faces) => {
                scene.read_labels(folder, preset)
            }
            (field, ..) => read_labels(&scene.labels, field.as_deref().unwrap_or("label"))
                .map(|labels| SceneLabels { labels, are_nyu40: self.nyu40.is_some() }),
        };
        let SceneLabels { labels, are_nyu40 } = labels.map_err(name_the_field)?;
        let nyu40 = self.nyu40.as_deref().filter(|_| are_nyu40);
        let truth = Truth::new(&scene.labels, labels, nyu40, ignore, &self.protocol);
        let say = "say what the numbers are with --label-ids, and which of them do not count with --ignore";
        truth.map_err(|error| anyhow::anyhow!("{error}: {say}"))
    }

    /// Labels a scene and counts. The picture of it is there before the result is.
    fn evaluate(&self, scene: &LabelledScene, key: String, loaded: &Loaded) -> Result<SceneResult> {
        let mut laps = Laps::default();
        let truth = self.truth(scene)?;
        laps.lap("read labels");
        let source = match &scene.recording {
            Some(recording) => Source::ScanInRecording { scan: scene.scan.clone(), recording: recording.clone() },
            None => Source::Scan(scene.scan.clone()),
        };
        let Opened::Scan(scan, dataset) = source.open(&self.args.labelling.viewing, &mut laps)? else {
            bail!("{}: a recording, not a scan", source.path().display());
        };
        let scan: &Scene = &scan;
        truth.check(&scene.scan, scan.cloud.len())?;
        let look = Look::of(dataset.as_deref());
        let num_labels = self.labels.len();
        let labelled = self.args.labelling.label(scan, look, loaded, num_labels, &mut laps, &mut |_| Ok(()))?;
        let Labelled { placed, inferred, notes, .. } = labelled;

        let results = Results::new(scan, &inferred, &self.labels, &self.colors);
        let (lifted, purified) = (&inferred.lifted_label, &results.of_point().label);
        // Points without a position have no prediction, but a label.
        let count = |labels: &[i32]| truth.count(&scan.for_all_points(labels.to_vec(), -1), &self.protocol);
        let counts = [count(lifted)?, count(purified)?];
        let (classes, _) = results.classes();
        let truth = truth.classes(&self.protocol);
        let truth = scan.kept().map_or_else(|| truth.clone(), |kept| kept.iter().map(|&i| truth[i as usize]).collect());
        let columns: [(&str, &[i32]); 3] = [("truth", &truth), ("lifted", lifted), ("purified", purified)];
        let picture = sheet(scan, &placed.appearance, &placed.renderer, &placed.shown_from(), &columns, &classes)?;
        write_png(&self.scene_file(&scene.name, "png"), &picture)?;
        laps.lap("draw");
        let [lifted, purified] = counts.each_ref().map(Counts::from);
        Ok(SceneResult {
            key,
            scene: scene.name.clone(),
            points: scan.cloud.len() as u64,
            views: inferred.look.looked_at as u64,
            recorded: scene.recording.is_some(),
            notes,
            lifted,
            purified,
            seconds: laps.seconds(),
        })
    }

    fn scene_file(&self, name: &str, extension: &str) -> PathBuf {
        // Not `with_extension`: a scene's name may hold dots.
        self.args.output.join(SCENES_FOLDER).join(format!("{name}.{extension}"))
    }

    /// The result of a scene that is done, if it was done with the same.
    fn done(&self, name: &str, key: &str) -> Option<SceneResult> {
        let text = std::fs::read(self.scene_file(name, "json")).ok()?;
        let result: SceneResult = serde_json::from_slice(&text).ok()?;
        let is_whole =
            |counts: &Counts| counts.rows.len() == self.protocol.num_classes && counts.to_confusion().is_ok();
        let is_same = result.key == key && result.scene == name;
        (is_same && is_whole(&result.lifted) && is_whole(&result.purified) && self.scene_file(name, "png").is_file())
            .then_some(result)
    }

    /// The result of a scene, done now or before; and whether it was done now.
    fn result(&self, scene: &LabelledScene, of_all: &Value, loaded: &Loaded) -> Result<(SceneResult, bool)> {
        let key = self.scene_key(scene, of_all)?;
        if let Some(result) = self.done(&scene.name, &key) {
            return Ok((result, false));
        }
        let path = self.scene_file(&scene.name, "json");
        // A result of other settings must not be taken for that of the picture which is about to be drawn.
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(ReportError::Write { path, source }.into());
            }
            _ => {}
        }
        let result = self.evaluate(scene, key, loaded)?;
        write_json(&path, |out| serde_json::to_writer(out, &result))?;
        Ok((result, true))
    }
}

pub(super) fn run(args: &EvalArgs) -> Result<ExitCode> {
    let mut task = Task::new(args)?;
    let scenes = listed(args, find_scenes(&args.folder)?)?;
    for folder in [args.output.clone(), args.output.join(SCENES_FOLDER), args.output.join(WORST_FOLDER)] {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("{}: cannot make this folder; name another with -o", folder.display()))?;
    }
    let locked = lock(&args.output).with_context(|| args.output.display().to_string())?;
    let Some(_alone) = locked else { bail!("{}: another process evaluates here", args.output.display()) };
    let loaded = args.labelling.load(&task.labels)?;
    task.settings["size"] = loaded.viewing.size().into();
    let of_all = task.key(&loaded);

    let (mut results, mut failed) = (Vec::new(), Vec::new());
    let (mut num_new, mut seconds) = (0, 0.0);
    for (i, scene) in (1..).zip(&scenes) {
        // One bad scene does not keep the others from being evaluated.
        match task.result(scene, &of_all, &loaded) {
            Ok((result, is_new)) => {
                let took = if is_new { format!("{:.1} s", result.seconds) } else { "done before".to_owned() };
                let figures = of_scene(&task, &result)?;
                eprintln!("{i}/{} {}: {figures}; {took}", scenes.len(), scene.name);
                if is_new {
                    num_new += 1;
                    seconds += result.seconds;
                }
                results.push(result);
            }
            Err(error) => {
                let told = told_once(&error);
                eprintln!("error: {}: {}", scene.name, without_prefix(&told, &scene.name));
                if error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(is_full) {
                    bail!("the disk is full: free some space and say the same again; what is done stays");
                }
                failed.push(Failure { scene: scene.name.clone(), error: told });
            }
        }
    }
    if results.is_empty() {
        bail!("not one of {} scenes could be evaluated", scenes.len());
    }
    let about = About {
        geopurify: env!("CARGO_PKG_VERSION"),
        preset: args.preset.name,
        labels: task.labels.clone(),
        protocol: task.protocol,
        settings: task.settings.clone(),
        weights: loaded.weights.clone(),
        device: loaded.selected.name.clone(),
    };
    let report = Report::new(about, &results, failed)?;
    let files = write_report(&task, &report)?;
    print(args, &report, &files)?;
    if num_new > 0 && !args.json {
        println!("{:.1} s for each of {num_new} scenes, without loading weights", seconds / f64::from(num_new));
    }
    Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The scenes of `--scenes`, in the order of their names.
fn listed(args: &EvalArgs, scenes: Vec<LabelledScene>) -> Result<Vec<LabelledScene>> {
    let Some(path) = &args.scenes else { return Ok(scenes) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let wanted: BTreeSet<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let kept: Vec<LabelledScene> = scenes.into_iter().filter(|scene| wanted.contains(scene.name.as_str())).collect();
    let missing: Vec<&str> =
        wanted.iter().copied().filter(|&name| kept.iter().all(|scene| scene.name != name)).collect();
    match missing.as_slice() {
        [] if kept.is_empty() => bail!("{}: no name in it", path.display()),
        [] => Ok(kept),
        [first, ..] => bail!(
            "{}: {} of its {} scenes are not in {}, the first: '{first}'",
            path.display(),
            missing.len(),
            wanted.len(),
            args.folder.display()
        ),
    }
}

/// The mean IoU of a scene over the classes that occur in it.
fn of_scene(task: &Task<'_>, result: &SceneResult) -> Result<String> {
    let mut texts = Vec::new();
    for counts in [&result.lifted, &result.purified] {
        let scores = counts.to_confusion()?.scores(&task.protocol.all(), AbsentClasses::Skipped)?;
        texts.push(percent(scores.mean_iou));
    }
    Ok(format!("mIoU {} lifted, {} purified", texts[0], texts[1]))
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", 100.0 * share))
}

fn write_json(
    path: &Path,
    write: impl FnOnce(&mut std::io::BufWriter<std::fs::File>) -> serde_json::Result<()>,
) -> Result<()> {
    let written = write_atomic(path, |out| {
        write(out)?;
        out.write_all(b"\n")
    });
    Ok(written.map_err(|source| ReportError::Write { path: path.to_path_buf(), source })?)
}

/// Writes everything but the scenes' own files; last the one that machines read.
fn write_report(task: &Task<'_>, report: &Report) -> Result<Vec<PathBuf>> {
    let folder = &task.args.output;
    let sheets = write_worst(task, &report.worst[..report.worst.len().min(NUM_SHEETS)])?;
    let confusion = folder.join(CONFUSION_FILE);
    write_png(&confusion, &confusion_picture(task, &report.purified)?)?;
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

/// Copies the sheets of the worst scenes, and removes those that an earlier report copied.
fn write_worst(task: &Task<'_>, worst: &[String]) -> Result<Vec<PathBuf>> {
    let folder = task.args.output.join(WORST_FOLDER);
    let at = |path: &Path, source| ReportError::Write { path: path.to_path_buf(), source };
    for entry in std::fs::read_dir(&folder).map_err(|source| at(&folder, source))? {
        let path = entry.map_err(|source| at(&folder, source))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_copy = task.args.output.join(SCENES_FOLDER).join(&name).is_file() && name.ends_with(".png");
        let is_worst = worst.iter().any(|scene| name == format!("{scene}.png"));
        if is_copy && !is_worst {
            std::fs::remove_file(&path).map_err(|source| at(&path, source))?;
        }
    }
    let copy = |name: &String| {
        let (from, to) = (task.scene_file(name, "png"), folder.join(format!("{name}.png")));
        let bytes = std::fs::read(&from).map_err(|source| at(&from, source))?;
        write_atomic(&to, |out| out.write_all(&bytes)).map_err(|source| at(&to, source))?;
        Ok(to)
    };
    worst.iter().map(copy).collect()
}

fn confusion_picture(task: &Task<'_>, figures: &Figures) -> Result<Rgb8Image> {
    let columns: Vec<String> = task.labels.iter().cloned().chain(["unlabelled".to_owned()]).collect();
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
    Ok(matrix(&task.labels, &columns, &shares, title, ["truth", "prediction"])?)
}

fn print(args: &EvalArgs, report: &Report, files: &[PathBuf]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
        return Ok(());
    }
    let mut rows = Vec::new();
    for (name, figures) in [("lifted", &report.lifted), ("purified", &report.purified)] {
        for group in &figures.groups {
            for (absent, scores, foreground) in [
                ("0", group.absent_zero, group.foreground.as_ref().map(|f| f.absent_zero)),
                ("skipped", group.absent_skipped, group.foreground.as_ref().map(|f| f.absent_skipped)),
            ] {
                let figures =
                    [scores.mean_iou, scores.mean_accuracy, scores.all_accuracy, foreground.and_then(|f| f.mean_iou)];
                let names = [format!("{} {name}", group.name), absent.to_owned()];
                rows.push(names.into_iter().chain(figures.map(percent)).collect());
            }
        }
    }
    write!(out, "{}", table(&["classes", "absent", "mIoU", "mAcc", "allAcc", "f-mIoU"], &rows))?;
    writeln!(
        out,
        "{} scenes, {} points, {} of them counted",
        report.num_scenes,
        report.points,
        report.points - report.ignored
    )?;
    if !report.failed.is_empty() {
        let names: Vec<&str> = report.failed.iter().map(|failure| failure.scene.as_str()).collect();
        writeln!(out, "{} scenes failed and are missing in all figures: {}", names.len(), names.join(", "))?;
    }
    for file in files {
        writeln!(out, "{}", file.display())?;
    }
    Ok(())
}
