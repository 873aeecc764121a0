//! `geopurify infer`: labels every point of scans and recordings.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
#[cfg(feature = "viewer")]
use clap::Parser as _;

use super::labelling::{LabellingArgs, without_prefix};
use super::outputs::check_writable;
use super::progress::Bars;
use super::say;
use super::shown::{json_line, plain};
use super::table::{stage_table, table};
use super::told_once;
use super::words::words;
use crate::cloud::recognise;
use crate::counted::counted;
use crate::files::is_full;
#[cfg(feature = "viewer")]
use crate::gpu::DeviceSelection;
use crate::images::draw::{Style, labelled_picture};
use crate::images::write_png;
use crate::labels::{Preset, asprs_class};
use crate::models::xdecoder::TextEmbeddings;
use crate::pipeline::{PipelineError, ResultOptions, SUMMARY_FILE, ScanColors, Scene, SeenView, Summary};
use crate::session::{
    Labeller, Opened, SavedResults, SessionError, Source, ViewSource, Words, holds_only_results, scenes_at, stem,
};
use crate::stages::StageTimer;
use crate::views::fuse::FuseOptions;
use crate::views::{Dataset, Layout, detect};

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
    /// matterport160, nuscenes16, nyu40 [default: scannet20]
    #[arg(long, value_name = "NAME")]
    preset: Option<Preset>,
    /// Words for things that do not matter; points nearest to them stay unlabelled [default: background with
    /// --words, none with --preset; background with --image-model lseg]
    #[arg(long, value_name = "WORDS")]
    background: Option<String>,
    /// Label every point by its nearest word, without a background
    #[arg(long, conflicts_with = "background")]
    no_background: bool,
    /// Folder for the results [default: NAME-labels beside the scan]; for several scans, a folder of such
    /// folders
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace the results of another scan in the folder
    #[arg(long)]
    force: bool,
    /// Colours of the labelled scan: its own (labelled), those of the labels (labels-coloured), or both files
    #[arg(long, value_enum, default_value_t = ColorsArg::Both)]
    colors: ColorsArg,
    /// For LAS and LAZ: set the classification of every point to the ASPRS class of its label. `WORD=CLASS,..`
    /// adds to the usual words, such as ground, tree, building
    #[arg(long, value_name = "WORD=CLASS,..", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    classification: Option<String>,
    /// Words for what has no instances and is left whole, separated by commas: "wall, floor"; "" for none [default: walls,
    /// floors, ceilings, roads and the like]
    #[arg(long, value_name = "WORDS")]
    stuff: Option<String>,
    /// Also save each picture that the model sees, and the labels found in it
    #[arg(long, value_name = "DIR")]
    save_views: Option<PathBuf>,
    #[command(flatten)]
    labelling: LabellingArgs,
    /// Check everything and print what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
    /// Print the summaries as JSON, one per line
    #[arg(long)]
    json: bool,
}

/// Colours of the labelled scan on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ColorsArg {
    Both,
    Scan,
    Labels,
}

impl From<ColorsArg> for ScanColors {
    fn from(arg: ColorsArg) -> Self {
        match arg {
            ColorsArg::Both => Self::Both,
            ColorsArg::Scan => Self::Scan,
            ColorsArg::Labels => Self::Labels,
        }
    }
}

/// One scan to be labelled.
struct Job {
    /// Name in messages.
    name: String,
    source: Source,
    output: PathBuf,
}

impl Job {
    /// The scan, if the job fails without it.
    fn scan_alone(&self) -> Option<&Path> {
        match &self.source {
            Source::Scan(scan) | Source::ScanInRecording { scan, .. } => Some(scan),
            Source::Recording(_) | Source::SceneFolder { .. } => None,
        }
    }
}

fn words_of(args: &InferArgs) -> Result<Words> {
    let labels = if args.words.is_empty() {
        let preset = match args.preset {
            Some(preset) => preset,
            None => {
                say::line(&format!("no --words: looking for the classes of {USUAL_PRESET}"));
                USUAL_PRESET.parse::<Preset>()?
            }
        };
        Words::asked(preset, &args.labelling.options())
    } else {
        Words::new(words(&args.words)?)
    };
    let labels = match &args.background {
        Some(file) if Path::new(file).exists() => {
            bail!("--background takes words, but {file} is a file: give the scan before it")
        }
        Some(given) => {
            let background = words(std::slice::from_ref(given)).context("--background")?;
            Words { background, ..labels }
        }
        None if args.no_background => labels.without_background(),
        None if args.labelling.options().image_model.background_competes() => labels.with_background(),
        None => labels,
    };
    Ok(labels)
}

/// Says why points stay unlabelled.
fn say_background(words: &Words) {
    if words.background.is_empty() {
        return;
    }
    let background = words.background.join(", ");
    say::line(&match words.labels.as_slice() {
        [word] => format!("one word: points nearer to \"{background}\" than to \"{word}\" stay unlabelled"),
        _ => format!("points nearer to \"{background}\" than to every word stay unlabelled"),
    });
}

/// ASPRS classes of the labels, if they are asked for.
fn classification(args: &InferArgs, words: &Words) -> Result<Option<Vec<u8>>> {
    let Some(text) = &args.classification else { return Ok(None) };
    let mut own = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let parsed =
            pair.split_once('=').and_then(|(word, class)| Some((word.trim(), class.trim().parse::<u8>().ok()?)));
        let Some((word, class)) = parsed else {
            bail!("--classification: \"{pair}\" is not WORD=CLASS with a class from 0 to 255");
        };
        if !words.labels.iter().any(|label| label.eq_ignore_ascii_case(word)) {
            bail!("--classification: \"{word}\" is none of the words");
        }
        own.insert(word.to_lowercase(), class);
    }
    let class = |label: &String| own.get(&label.to_lowercase()).copied().unwrap_or_else(|| asprs_class(label));
    Ok(Some(words.labels.iter().map(class).collect()))
}

pub(super) fn run(args: &InferArgs) -> Result<ExitCode> {
    let words = words_of(args)?;
    let jobs = jobs(args)?;
    check(args, &jobs)?;
    say_background(&words);
    // An empty list is one too: then nothing is stuff.
    let stuff = args.stuff.as_ref().map(|given| self::words(std::slice::from_ref(given)).unwrap_or_default());
    let scan = ResultOptions { colors: args.colors.into(), classification: classification(args, &words)?, stuff };
    if args.dry_run {
        return dry_run(args, &words, &jobs);
    }
    let session = args.labelling.session()?;
    let labels = words.labels.clone();
    let labeller = args.labelling.labeller(&session, words)?;
    let run = Run { args, labeller: &labeller, words: &labels, scan: &scan };
    let mut failed: Vec<String> = Vec::new();
    let mut next = None;
    for job in &jobs {
        if jobs.len() > 1 {
            say::line(&format!("== {}", job.name));
        }
        // One bad scan does not stop the others.
        match run.job(job) {
            Ok(example) => next = next.or(example.map(|example| (job, example))),
            Err(error) => {
                eprintln!("error: {}: {}", plain(&job.name), without_prefix(&told_once(&error), &job.name));
                if error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(is_full) {
                    eprintln!(
                        "the disk is full, and no half-written file was left: free some space, or choose another -o"
                    );
                }
                failed.push(job.name.clone());
            }
        }
    }
    if let Some((job, example)) = next {
        say::line(&format!("next: geopurify query {} \"{example}\"", job.output.display()));
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if jobs.len() > 1 {
        eprintln!("{} of {} failed: {}", failed.len(), jobs.len(), plain(&failed.join(", ")));
    }
    Ok(ExitCode::FAILURE)
}

/// Labels a scan or a recording as `infer` does without options. Returns the folder of the results; `None` if that
/// failed.
#[cfg(feature = "viewer")]
pub(super) fn usual(scan: &Path, device: DeviceSelection) -> Result<Option<PathBuf>> {
    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        infer: InferArgs,
    }
    let mut alone =
        Alone::try_parse_from([std::ffi::OsStr::new("infer"), std::ffi::OsStr::new("--"), scan.as_os_str()])?;
    alone.infer.labelling.set_device(device);
    let is_done = run(&alone.infer)? == ExitCode::SUCCESS;
    Ok(is_done.then(|| beside(scan)))
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
        if is_a_word(path) && !args.words.is_empty() {
            let others = args.scans.iter().filter(|path| is_a_word(path)).map(|path| path.display().to_string());
            let all: Vec<String> = args.words.iter().cloned().chain(others).collect();
            bail!(
                "{}: no such file; several words are one argument: --words \"{}\"",
                path.display().to_string().trim_end_matches(','),
                words(&all)?.join(", ")
            );
        }
        refuse_results(path)?;
        sources.extend(scenes_at(path, layout)?);
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
            Some(folder) if several => folder.join(stem(&path)),
            Some(folder) => folder.clone(),
        };
        // Scans of one name get separate folders.
        let numbered = |i: usize| {
            let mut name = output.as_os_str().to_owned();
            name.push(format!("-{i}"));
            PathBuf::from(name)
        };
        let mut free = std::iter::once(output.clone()).chain((2..).map(numbered));
        let output = free.find(|folder| taken.insert(folder.clone())).unwrap_or(output);
        Job { name: path.display().to_string(), source, output }
    });
    Ok(jobs.collect())
}

/// Fails for a folder that holds nothing but the results of a labelling.
pub(super) fn refuse_results(path: &Path) -> Result<()> {
    if holds_only_results(path) {
        let path = path.display();
        bail!("{path}: results of a labelling; search them with geopurify query {path} \"chair\"");
    }
    Ok(())
}

/// True for an argument that was meant as a word, not as a file.
fn is_a_word(path: &Path) -> bool {
    !path.exists() && path.extension().is_none() && path.components().count() == 1
}

/// The folder `NAME-labels` beside a scan.
pub(super) fn beside(path: &Path) -> PathBuf {
    let folder = format!("{}-labels", stem(path));
    match path.canonicalize().unwrap_or_else(|_| path.to_path_buf()).parent() {
        Some(parent) => parent.join(folder),
        None => folder.into(),
    }
}

/// Finds faults of files and folders before networks are loaded.
fn check(args: &InferArgs, jobs: &[Job]) -> Result<()> {
    for job in jobs {
        // Of several scans, the others are labelled if one fails.
        if let ([_], Some(scan)) = (jobs, job.scan_alone()) {
            recognise(scan)?;
        }
        if let Some(recording) = job.source.recording() {
            detect_or(recording, args.labelling.options().views.layout)?;
        }
        check_results(&job.output, &job.source, args.force)?;
    }
    let folders = jobs.iter().map(|job| job.output.as_path()).chain(args.save_views.as_deref());
    folders.into_iter().try_for_each(check_writable)
}

fn detect_or(recording: &Path, layout: Option<Layout>) -> Result<Layout> {
    let found = layout.map_or_else(|| detect(recording), Ok);
    if found.is_err() && recording.is_file() && recognise(recording).is_ok() {
        bail!("{}: a scan, not a recording; give it without --rgbd", recording.display());
    }
    Ok(found?)
}

/// Fails if `folder` holds the results of another scan, or the scan itself as a result.
fn check_results(folder: &Path, source: &Source, force: bool) -> Result<()> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    if source.path().is_file() && source.path().parent().is_some_and(|parent| real(parent) == real(folder)) {
        let name = source.path().file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("labelled.") || name.starts_with("labels-coloured.") {
            bail!("{}: the results would replace this scan; name another folder with -o", source.path().display());
        }
    }
    let Ok(text) = std::fs::read(folder.join(SUMMARY_FILE)) else { return Ok(()) };
    let Ok(summary) = serde_json::from_slice::<serde_json::Value>(&text) else { return Ok(()) };
    let olds = ["scan", "recording"].map(|key| summary[key].as_str().map(Path::new));
    // A relative path was given in another folder, perhaps.
    let is =
        |old: &Path, path: &Path| real(old) == real(path) || old.is_relative() && old.file_name() == path.file_name();
    let news = || [Some(source.path()), source.recording()].into_iter().flatten();
    let is_same = olds.iter().flatten().any(|old| news().any(|path| is(old, path)));
    match olds.into_iter().flatten().next() {
        Some(old) if !is_same && !force => bail!(
            "{}: holds the results of {}; name another folder with -o, or replace them with --force",
            folder.display(),
            old.display()
        ),
        _ => Ok(()),
    }
}

/// Prints what a run would do.
fn dry_run(args: &InferArgs, words: &Words, jobs: &[Job]) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let mut failed = false;
    for job in jobs {
        if let Some(Err(error)) = job.scan_alone().map(recognise) {
            eprintln!("error: {}", plain(&told_once(&error.into())));
            failed = true;
            continue;
        }
        let from = match job.source.recording() {
            Some(recording) if recording != job.source.path() => format!(" with {}", recording.display()),
            Some(_) => " (a recording)".to_owned(),
            None => String::new(),
        };
        writeln!(out, "would label {}{from}, into {}", job.name, job.output.display())?;
    }
    writeln!(out, "words: {}", words.labels.join(", "))?;
    if !words.background.is_empty() {
        writeln!(out, "background: {}", words.background.join(", "))?;
    }
    args.labelling.write_used(&mut out)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Run<'a> {
    args: &'a InferArgs,
    labeller: &'a Labeller<'a>,
    words: &'a [String],
    scan: &'a ResultOptions,
}

impl Run<'_> {
    /// Returns a word to ask for in the results, if the folder of the job holds them.
    fn job(&self, job: &Job) -> Result<Option<String>> {
        let mut bars = Bars::new();
        let mut progress = |stage, share| bars.show(stage, share);
        let mut timer = StageTimer::with_progress(&mut progress);
        match job.source.open(self.labeller.views(), &mut timer, &mut say::line)? {
            Opened::Scan(scene, dataset) => {
                let results = self.label(&scene, ViewSource::of(dataset.as_deref()), &job.output, &mut timer)?;
                drop(timer);
                bars.finish();
                report(self.args, &results)?;
                Ok(example(&results.summary))
            }
            Opened::Frames(dataset) => self.label_frames(&*dataset, &job.output).map(|()| None),
        }
    }

    /// A note if `folder` holds results for other words, which will be replaced.
    fn replaced(&self, folder: &Path) -> Option<String> {
        let text = std::fs::read(folder.join(SUMMARY_FILE)).ok()?;
        let summary = serde_json::from_slice::<serde_json::Value>(&text).ok()?;
        let old: Vec<String> = serde_json::from_value(summary["settings"]["words"].clone()).ok()?;
        let note = || format!("this replaces the results for other words: {}", some_of(&old));
        (old != self.words).then(note)
    }

    /// Labels each frame of a recording without poses as a separate scan.
    fn label_frames(&self, dataset: &dyn Dataset, output: &Path) -> Result<()> {
        let frames = self.labeller.views().frames_alone(dataset);
        say::line(&format!(
            "the recording has no poses: {} of its {} are labelled, each alone, in its own camera's axes",
            frames.len(),
            counted(dataset.len(), "frame")
        ));
        let mut num_failed = 0;
        for &frame in &frames {
            let name = &dataset.frames()[frame].name;
            say::line(&format!("== frame {name}"));
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
        let text = self.labeller.text();
        let mut save_view = |seen: &SeenView<'_>| match &views_folder {
            Some(folder) => save_view(folder, seen, text),
            None => Ok(()),
        };
        if let Some(note) = self.replaced(output) {
            say::note(&note);
        }
        let labelled = self.labeller.label(scene, source, timer, &mut save_view)?;
        labelled.save_as(output, self.scan, timer).map_err(SessionError::into)
    }
}

/// Words in a row, not too many of them.
fn some_of(words: &[String]) -> String {
    const MOST: usize = 6;
    let more = if words.len() > MOST { format!(", ... ({} words)", words.len()) } else { String::new() };
    words[..words.len().min(MOST)].join(", ") + &more
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

fn save_view(folder: &Path, seen: &SeenView<'_>, text: &TextEmbeddings) -> Result<(), PipelineError> {
    let name = seen.name.replace(['/', '\\'], "-");
    write_png(&folder.join(format!("{name}.png")), seen.image)?;
    let labels = seen.view.label_from_pixel(text)?;
    let labelled = labelled_picture(seen.image, &labels, &text.labels, &Style::default())?;
    Ok(write_png(&folder.join(format!("{name}-labels.png")), &labelled)?)
}

/// Returns a label that the scan has and that is neither its largest nor its smallest: one of the things in it.
fn example(summary: &Summary) -> Option<String> {
    let mut classes: Vec<_> = summary.classes.iter().filter(|class| class.label >= 0 && class.points > 0).collect();
    classes.sort_by_key(|class| std::cmp::Reverse(class.points));
    classes.get(3).or(classes.last()).map(|class| class.name.clone())
}

fn report(args: &InferArgs, results: &SavedResults) -> Result<()> {
    let SavedResults { files, summary } = results;
    summary.notes.iter().for_each(|note| say::note(note));
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json_line(summary)?)?;
        return Ok(());
    }
    // Of a benchmark's many classes, those without points would hide the others.
    let is_asked_for = |label: i32| label >= 0 && !args.words.is_empty();
    let mut classes: Vec<_> =
        summary.classes.iter().filter(|class| class.points > 0 || is_asked_for(class.label)).collect();
    classes.sort_by_key(|class| std::cmp::Reverse(class.points));
    let rows: Vec<_> = classes
        .iter()
        .map(|class| {
            vec![
                class.title(),
                class.points.to_string(),
                format!("{:.1} %", 100.0 * class.share),
                format!("{:.2}", class.area),
                // Unlabelled points have no word, so their cosine is of none.
                if class.label >= 0 && class.points > 0 { format!("{:.3}", class.mean_score) } else { String::new() },
            ]
        })
        .collect();
    write!(out, "{}", table(&["label", "points", "share", summary.area_unit, "score"], &rows))?;
    if say::is_verbose() {
        write!(out, "\n{}", stage_table(&summary.stages, summary.seconds, summary.peak_memory_bytes))?;
    }
    writeln!(
        out,
        "{}, {}, {}, {} of {} looked at, {:.1} s",
        counted(summary.points, "point"),
        counted(summary.voxels, "voxel"),
        counted(summary.objects, "object"),
        summary.views.looked_at,
        counted(summary.views.views, "view"),
        summary.seconds
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
