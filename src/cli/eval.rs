//! `geopurify eval`: measures the labels of scenes whose true labels are known.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::label_ids::LabelIds;
use super::labelling::{LabellingArgs, without_prefix};
use super::outputs::check_writable;
use super::say;
use super::shown::{json_line, plain};
use super::table::table;
use super::told_once;
use crate::counted::counted;
use crate::eval::evaluation::{Evaluation, EvaluationError, EvaluationSettings};
use crate::eval::metrics::AbsentClasses;
use crate::eval::report::{Counts, Failure, Report, Skipped};
use crate::eval::run::{Evaluated, SceneEvent};
use crate::eval::scenes::{LabelledScene, find_scenes};
use crate::labels::{LabelsError, Preset, Protocol};
use crate::session::lists::{SceneList, names};
use crate::session::part_of;

/// Arguments of `eval`.
#[derive(clap::Args, Debug)]
pub(super) struct EvalArgs {
    /// Folder of labelled scenes: NAME.ply and NAME.labels.ply (ScanNet's names), in it or up to two folders
    /// down. The recording is NAME.sens, a folder NAME, or the scene's own folder; without one, views are
    /// drawn. Scenes of ScanNet may have segments and groups instead of labelled meshes; for Matterport3D,
    /// SCAN/region_segmentations is read. Scenes of OpenScene's prepared data are NAME.pth. Of a folder with train,
    /// val and test, test is taken
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Benchmark that defines the classes: scannet20 (without its last class, "other"), scannet200,
    /// matterport21, matterport40, matterport80, matterport160, nuscenes16, nyu40
    #[arg(long, value_name = "NAME", default_value = "scannet20")]
    preset: Preset,
    /// Folder for the report. Scenes already evaluated there with the same settings and weights are not
    /// repeated
    #[arg(short, long, value_name = "REPORT")]
    output: PathBuf,
    /// Evaluate only the scenes in this list, one name per line, or in a list that comes with the program:
    /// scannet-val, the 312 validation scenes of ScanNet, or matterport-test, the 406 rooms of Matterport3D's test houses
    #[arg(long = "only", alias = "scenes", value_name = "FILE.txt|LIST")]
    scenes: Option<PathBuf>,
    /// Meaning of the label numbers: class (numbers of classes) or nyu40 [auto: nyu40 if the preset takes its
    /// classes from NYU40's, else class]
    #[arg(long, value_enum, default_value_t = LabelIds::Auto)]
    label_ids: LabelIds,
    /// Property of the points that holds the labels [default: the one named like the preset, with numbers of
    /// classes, else label]
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// Labels to ignore, in addition to those that the benchmark ignores
    #[arg(long, value_name = "LABEL,..", value_delimiter = ',', allow_hyphen_values = true)]
    ignore: Vec<i64>,
    /// Novel classes, separated by commas, or a file with one per line; all others are base classes [default: those
    /// of the benchmark's published configuration]
    #[arg(long, value_name = "CLASSES|FILE")]
    novel: Option<String>,
    /// In scenes that tell no objects apart, take the connected parts of a class as its true objects. Parts are 20 cm or
    /// more from each other
    #[arg(long)]
    parts_as_instances: bool,
    #[command(flatten)]
    labelling: LabellingArgs,
    /// Check everything and print which scenes would be evaluated
    #[arg(long)]
    dry_run: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl EvalArgs {
    fn settings(&self, folder: &Path) -> Result<EvaluationSettings> {
        Ok(EvaluationSettings {
            folder: folder.to_path_buf(),
            output: self.output.clone(),
            preset: self.preset,
            label_ids: self.label_ids.into(),
            field: self.field.clone(),
            ignore: self.ignore.clone(),
            parts_as_instances: self.parts_as_instances,
            novel: self.novel.as_deref().map(|given| novel(given, self.preset)).transpose()?,
        })
    }
}

/// Adds to an error the option that helps.
fn with_way_out(error: EvaluationError) -> anyhow::Error {
    match error {
        EvaluationError::NotNyu40(_) => anyhow::anyhow!("{error}; use --label-ids class"),
        EvaluationError::Folder { .. } => {
            let text = format!("{error}; name another with -o");
            anyhow::Error::from(error).context(text)
        }
        EvaluationError::Labels(LabelsError::NoField { .. }) => {
            anyhow::anyhow!("{error}; name the labels' property with --field")
        }
        EvaluationError::DiskFull => anyhow::anyhow!("{error}; free some space and run the command again"),
        EvaluationError::Truth(_) => anyhow::anyhow!(
            "{error}; set the meaning of the numbers with --label-ids, and labels to ignore with --ignore"
        ),
        other => other.into(),
    }
}

pub(super) fn run(args: &EvalArgs) -> Result<ExitCode> {
    let folder = part_of(&args.folder, "test")?;
    if folder != args.folder {
        say::note(&format!("{} has parts: {} is evaluated", args.folder.display(), folder.display()));
    }
    let scenes = listed(args, find_scenes(&folder)?)?;
    check_writable(&args.output)?;
    if args.dry_run {
        let mut out = std::io::stdout().lock();
        for scene in &scenes {
            let from = scene.recording.as_ref().map_or(String::new(), |path| format!(" with {}", path.display()));
            writeln!(out, "would evaluate {}: {}{from}", scene.name, scene.scan.display())?;
        }
        args.labelling.write_used(&mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let evaluation = Evaluation::new(args.settings(&folder)?, &args.labelling.options()).map_err(with_way_out)?;
    let _alone = evaluation.lock()?;
    let session = args.labelling.session()?;
    let labeller = args.labelling.labeller(&session, evaluation.words().clone())?;
    let protocol = evaluation.protocol().clone();
    let told = |error| told_once(&with_way_out(error));
    let evaluated = evaluation.run(&scenes, &labeller, &told, &mut |event| show(&event, &protocol, scenes.len()));
    let Evaluated { report, files, num_new, seconds } = evaluated.map_err(with_way_out)?;
    print(args, &report, &files)?;
    if num_new > 0 && !args.json {
        let each = seconds / num_new as f64;
        say::line(&format!("{} in {each:.1} s each, without loading weights", counted(num_new, "scene")));
    }
    Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the result of a scene, or why it has none.
fn show(event: &SceneEvent<'_>, protocol: &Protocol, num_scenes: usize) {
    match event {
        SceneEvent::Note(note) => say::line(note),
        SceneEvent::Done { number, result, is_new } => {
            let took = if *is_new { format!("{:.1} s", result.seconds) } else { "done before".to_owned() };
            let [lifted, purified] =
                [&result.lifted, &result.purified].map(|counts| percent(mean_iou(protocol, counts)));
            let scene = &result.scene;
            say::line(&format!("{number}/{num_scenes} {scene}: mIoU {lifted} lifted, {purified} purified; {took}"));
        }
        SceneEvent::Skipped { number, skipped: Skipped { scene, reason } } => {
            say::line(&format!("{number}/{num_scenes} {}: left out: {reason}", plain(scene)));
        }
        SceneEvent::Failed(Failure { scene, error }) => {
            eprintln!("error: {}: {}", plain(scene), without_prefix(error, scene));
        }
    }
}

/// Returns the numbers of the classes that `--novel` names, or the file it names.
fn novel(given: &str, preset: Preset) -> Result<Vec<usize>> {
    let text = match Path::new(given).is_file() {
        true => std::fs::read_to_string(given).with_context(|| given.to_owned())?,
        false => given.to_owned(),
    };
    let labels = &preset.labels[..Protocol::of_preset(&preset).num_classes];
    let names = text.split([',', '\n']).map(str::trim).filter(|name| !name.is_empty());
    let number = |name: &str| {
        let place = labels.iter().position(|label| label.eq_ignore_ascii_case(name));
        place.with_context(|| format!("--novel: '{name}' is no class that is evaluated of {preset}"))
    };
    names.map(number).collect()
}

/// Returns the scenes that `--scenes` lists, or all of them, in the order of their names.
fn listed(args: &EvalArgs, scenes: Vec<LabelledScene>) -> Result<Vec<LabelledScene>> {
    let Some(path) = &args.scenes else { return Ok(scenes) };
    let built_in = SceneList::at(path);
    let text = match built_in {
        Some(_) => String::new(),
        None => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
    };
    let wanted: BTreeSet<&str> = built_in.map_or_else(|| names(&text).collect(), |list| list.scenes().collect());
    let kept: Vec<LabelledScene> = scenes.into_iter().filter(|scene| wanted.contains(scene.name.as_str())).collect();
    let missing: Vec<&str> =
        wanted.iter().copied().filter(|&name| kept.iter().all(|scene| scene.name != name)).collect();
    match missing.as_slice() {
        [] if kept.is_empty() => bail!("{}: the list names no scene", path.display()),
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

/// Returns a scene's mean IoU over the classes that occur in it.
fn mean_iou(protocol: &Protocol, counts: &Counts) -> Option<f64> {
    counts.to_confusion().ok()?.scores(&protocol.all(), AbsentClasses::Skipped).ok()?.mean_iou
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", 100.0 * share))
}

fn print(args: &EvalArgs, report: &Report, files: &[PathBuf]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json_line(report)?)?;
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
    if let Some(instances) = &report.instances {
        let mut rows = Vec::new();
        for (name, figures) in [("objects", &instances.objects), ("regions", &instances.baseline)] {
            for (classes, scores) in [("told apart", figures.class_aware), ("as one", figures.class_agnostic)] {
                let figures = [scores.ap, scores.ap50, scores.ap25].map(percent);
                rows.push([name.to_owned(), classes.to_owned()].into_iter().chain(figures).collect());
            }
        }
        write!(out, "{}", table(&["objects", "classes", "AP", "AP50", "AP25"], &rows))?;
        let apart = counted(instances.num_scenes - instances.num_of_parts, "scene");
        writeln!(
            out,
            "{} in {apart} and the parts of classes in {}",
            counted(instances.num_true, "true object"),
            instances.num_of_parts
        )?;
    }
    writeln!(
        out,
        "{}, {} points, {} of them counted",
        counted(report.num_scenes, "scene"),
        report.points,
        report.points - report.ignored
    )?;
    if !report.failed.is_empty() {
        let names: Vec<&str> = report.failed.iter().map(|failure| failure.scene.as_str()).collect();
        writeln!(out, "{} failed, missing from all figures: {}", counted(names.len(), "scene"), names.join(", "))?;
    }
    if !report.skipped.is_empty() {
        let names: Vec<&str> = report.skipped.iter().map(|skipped| skipped.scene.as_str()).collect();
        writeln!(out, "{} without a valid view, left out: {}", counted(names.len(), "scene"), names.join(", "))?;
    }
    for file in files {
        writeln!(out, "{}", file.display())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn novel_classes_are_names_or_a_file_of_names() {
        assert_eq!(novel("faucet, Wall", Preset::MATTERPORT40).unwrap(), [39, 0]);
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("novel.txt");
        std::fs::write(&list, "photo\n\nbucket\r\n").unwrap();
        assert_eq!(novel(list.to_str().unwrap(), Preset::MATTERPORT80).unwrap(), [40, 79]);
        // The last class of ScanNet's 20 is not evaluated.
        let message = novel("other", Preset::SCANNET20).unwrap_err().to_string();
        assert_eq!(message, "--novel: 'other' is no class that is evaluated of scannet20");
    }
}
