//! `geopurify infer`: labels every point of scans and recordings.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::labelling::{LabellingArgs, without_prefix};
use super::progress::Bars;
use super::shown::plain;
use super::table::{stage_table, table};
use super::told_once;
use super::words::words;
use crate::files::is_full;
use crate::images::draw::{Style, labelled_picture};
use crate::images::write_png;
use crate::labels::Preset;
use crate::pipeline::{PipelineError, Scene, SeenView};
use crate::session::{Labeller, Opened, SavedResults, SessionError, Source, ViewSource, Words, stem};
use crate::stages::StageTimer;
use crate::views::Dataset;
use crate::views::fuse::FuseOptions;

/// Benchmark whose classes are looked for if no words are given.
const USUAL_PRESET: &str = "scannet20";

/// Arguments of `infer`.
#[derive(clap::Args, Debug)]
pub(super) struct InferArgs {
    /// Scans (PLY, LAS, LAZ, PCD, E57, PTX, OBJ, glTF, STL, OFF, Gaussian splats or text, also packed with gzip
    /// or zip), folders of scans, or recordings
    scans: Vec<PathBuf>,
    /// Recording of RGB-D frames, a folder or a file, in the scan's coordinates. Without a scan, the depth
    /// maps are fused into one
    #[arg(long, value_name = "DIR")]
    rgbd: Option<PathBuf>,
    /// Words to look for, separated by commas: "chair, table, lamp"
    #[arg(long, value_name = "WORDS", conflicts_with = "preset")]
    words: Vec<String>,
    /// Benchmark whose classes to look for: scannet20, scannet200, matterport21, matterport40, matterport80,
    /// matterport160 [default: scannet20]
    #[arg(long, value_name = "NAME")]
    preset: Option<Preset>,
    /// Words for things that do not matter; points nearest to them stay unlabelled [without a value:
    /// background]
    #[arg(long, value_name = "WORDS", num_args = 0..=1, default_missing_value = "background")]
    background: Option<String>,
    /// Folder for the results [default: NAME-labels beside the scan]; for several scans, a folder of such
    /// folders
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Also save each picture that the model sees, and the labels found in it
    #[arg(long, value_name = "DIR")]
    save_views: Option<PathBuf>,
    #[command(flatten)]
    labelling: LabellingArgs,
    /// Print the summaries as JSON, one per line
    #[arg(long)]
    json: bool,
}

/// One scan to be labelled.
struct Job {
    /// Name in messages.
    name: String,
    source: Source,
    output: PathBuf,
}

fn words_of(args: &InferArgs) -> Result<Words> {
    let labels = if args.words.is_empty() {
        let preset = match args.preset {
            Some(preset) => preset,
            None => {
                eprintln!("no --words: looking for the classes of {USUAL_PRESET}");
                USUAL_PRESET.parse::<Preset>()?
            }
        };
        Words::of_preset(preset)
    } else {
        Words::new(words(&args.words)?)
    };
    let background = match &args.background {
        Some(given) => words(std::slice::from_ref(given)).context("--background")?,
        None => Vec::new(),
    };
    Ok(Words { background, ..labels })
}

pub(super) fn run(args: &InferArgs) -> Result<ExitCode> {
    let words = words_of(args)?;
    let jobs = jobs(args)?;
    let session = args.labelling.session()?;
    let labeller = args.labelling.labeller(&session, words)?;
    let run = Run { args, labeller: &labeller };
    let mut failed: Vec<String> = Vec::new();
    for job in &jobs {
        if jobs.len() > 1 {
            eprintln!("== {}", plain(&job.name));
        }
        // One bad scan does not stop the others.
        if let Err(error) = run.job(job) {
            eprintln!("error: {}: {}", plain(&job.name), without_prefix(&told_once(&error), &job.name));
            if error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(is_full) {
                eprintln!("the disk is full, and no half-written file was left: free some space, or choose another -o");
            }
            failed.push(job.name.clone());
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if jobs.len() > 1 {
        eprintln!("{} of {} failed: {}", failed.len(), jobs.len(), plain(&failed.join(", ")));
    }
    Ok(ExitCode::FAILURE)
}

/// Returns the scans and recordings to label, in order.
fn jobs(args: &InferArgs) -> Result<Vec<Job>> {
    if let Some(recording) = &args.rgbd {
        let source = match args.scans.as_slice() {
            [] => Source::Recording(recording.clone()),
            [scan] => Source::ScanInRecording { scan: scan.clone(), recording: recording.clone() },
            scans => bail!("--rgbd belongs to one scan, {} were given", scans.len()),
        };
        let named = args.scans.first().unwrap_or(recording);
        let output = args.output.clone().unwrap_or_else(|| beside(named));
        return Ok(vec![Job { name: named.display().to_string(), source, output }]);
    }
    let layout = args.labelling.options().views.layout;
    let mut sources: Vec<Source> = Vec::new();
    for path in &args.scans {
        sources.extend(Source::at(path, layout)?);
    }
    if sources.is_empty() {
        bail!("nothing to label: give a scan (geopurify infer scene.ply), or a recording (--rgbd DIR)");
    }
    let several = sources.len() > 1;
    let mut taken = BTreeSet::new();
    let jobs = sources.into_iter().map(|source| {
        let path = source.path().to_path_buf();
        let output = match &args.output {
            None => beside(&path),
            Some(folder) if several => {
                // Scans of one name from different folders get separate folders.
                let name = stem(&path);
                let mut numbered = std::iter::once(name.clone()).chain((2..).map(|i| format!("{name}-{i}")));
                folder.join(numbered.find(|name| taken.insert(name.clone())).unwrap_or(name))
            }
            Some(folder) => folder.clone(),
        };
        Job { name: path.display().to_string(), source, output }
    });
    Ok(jobs.collect())
}

/// The folder `NAME-labels` beside a scan.
fn beside(path: &Path) -> PathBuf {
    let folder = format!("{}-labels", stem(path));
    match path.canonicalize().unwrap_or_else(|_| path.to_path_buf()).parent() {
        Some(parent) => parent.join(folder),
        None => folder.into(),
    }
}

struct Run<'a> {
    args: &'a InferArgs,
    labeller: &'a Labeller<'a>,
}

impl Run<'_> {
    fn job(&self, job: &Job) -> Result<()> {
        let mut bars = Bars::new();
        let mut progress = |stage, share| bars.show(stage, share);
        let mut timer = StageTimer::with_progress(&mut progress);
        match job.source.open(self.labeller.views(), &mut timer, &mut |line| eprintln!("{}", plain(line)))? {
            Opened::Scan(scene, dataset) => {
                let results = self.label(&scene, ViewSource::of(dataset.as_deref()), &job.output, &mut timer)?;
                drop(timer);
                bars.finish();
                report(self.args, &results)
            }
            Opened::Frames(dataset) => self.label_frames(&*dataset, &job.output),
        }
    }

    /// Labels each frame of a recording without poses as a separate scan.
    fn label_frames(&self, dataset: &dyn Dataset, output: &Path) -> Result<()> {
        let frames = self.labeller.views().frames_alone(dataset);
        eprintln!(
            "the recording has no poses: {} of its {} frames are labelled, each alone, in its own camera's axes",
            frames.len(),
            dataset.len()
        );
        let mut num_failed = 0;
        for &frame in &frames {
            let name = &dataset.frames()[frame].name;
            eprintln!("== frame {}", plain(name));
            if let Err(error) = self.label_frame(dataset, frame, &output.join(name.replace(['/', '\\'], "-"))) {
                eprintln!("error: frame {name}: {}", told_once(&error));
                num_failed += 1;
            }
        }
        if num_failed > 0 {
            bail!("{num_failed} of {} frames failed", frames.len());
        }
        Ok(())
    }

    fn label_frame(&self, dataset: &dyn Dataset, frame: usize, output: &Path) -> Result<()> {
        let mut bars = Bars::new();
        let mut progress = |stage, share| bars.show(stage, share);
        let mut timer = StageTimer::with_progress(&mut progress);
        let scene = Scene::of_frame(dataset, frame, &FuseOptions::default())?;
        timer.lap("fuse depth");
        let results = self.label(&scene, ViewSource::Frame(dataset, frame), output, &mut timer)?;
        drop(timer);
        bars.finish();
        report(self.args, &results)
    }

    fn label(
        &self,
        scene: &Scene,
        source: ViewSource<'_>,
        output: &Path,
        timer: &mut StageTimer<'_>,
    ) -> Result<SavedResults> {
        create_folder(output)?;
        let views_folder = self.args.save_views.as_deref().map(|folder| saved_views(folder, output, self.args));
        if let Some(folder) = &views_folder {
            create_folder(folder)?;
        }
        let words = &self.labeller.text().labels;
        let mut save_view = |seen: &SeenView<'_>| match &views_folder {
            Some(folder) => save_view(folder, seen, words),
            None => Ok(()),
        };
        let labelled = self.labeller.label(scene, source, timer, &mut save_view)?;
        labelled.save(output, timer).map_err(SessionError::into)
    }
}

fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{}: cannot make this folder; name another with -o", folder.display()))
}

/// Returns the folder for the views of a scan. Each of several scans has its own.
fn saved_views(folder: &Path, output: &Path, args: &InferArgs) -> PathBuf {
    match output.file_name() {
        Some(name) if args.output.as_deref() != Some(output) => folder.join(name),
        _ => folder.to_path_buf(),
    }
}

fn save_view(folder: &Path, seen: &SeenView<'_>, words: &[String]) -> Result<(), PipelineError> {
    let name = seen.name.replace(['/', '\\'], "-");
    write_png(&folder.join(format!("{name}.png")), seen.image)?;
    let labelled = labelled_picture(seen.image, &seen.view.label_from_pixel()?, words, &Style::default())?;
    Ok(write_png(&folder.join(format!("{name}-labels.png")), &labelled)?)
}

fn report(args: &InferArgs, results: &SavedResults) -> Result<()> {
    let SavedResults { files, summary } = results;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(summary)?)?;
        return Ok(());
    }
    for note in &summary.notes {
        writeln!(out, "note: {}", plain(note))?;
    }
    let mut classes: Vec<_> = summary.classes.iter().filter(|class| class.points > 0).collect();
    classes.sort_by_key(|class| std::cmp::Reverse(class.points));
    let rows: Vec<_> = classes
        .iter()
        .map(|class| {
            vec![
                class.name.clone(),
                class.points.to_string(),
                format!("{:.1} %", 100.0 * class.share),
                format!("{:.2}", class.area),
                format!("{:.3}", class.mean_score),
            ]
        })
        .collect();
    write!(out, "{}", table(&["label", "points", "share", summary.area_unit, "score"], &rows))?;
    write!(out, "\n{}", stage_table(&summary.stages, summary.seconds, summary.peak_memory_bytes))?;
    writeln!(
        out,
        "{} points, {} voxels, {} of {} views looked at",
        summary.points, summary.voxels, summary.views.looked_at, summary.views.views
    )?;
    for file in files {
        writeln!(out, "{}", file.display())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_go_beside_the_scan() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::write(root.join("room.ply"), b"").unwrap();
        assert_eq!(beside(&root.join("room.ply")), root.join("room-labels"));
        assert_eq!(beside(&root), root.parent().unwrap().join(format!("{}-labels", stem(&root))));
    }
}
