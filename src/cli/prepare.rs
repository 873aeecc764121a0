//! `geopurify prepare`: unpacks downloaded data sets once.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use serde_json::json;

use super::told_once;
use crate::files::{is_full, lock};
use crate::prepare::{Outcome, PrepareError, Progress, Settings, clean, matterport, scannet};

/// Steps of the bar.
const STEPS: f64 = 10_000.0;

/// Arguments of `prepare`.
#[derive(clap::Args, Debug)]
pub(super) struct PrepareArgs {
    #[command(subcommand)]
    dataset: DatasetArgs,
}

/// The data set.
#[derive(clap::Subcommand, Debug)]
enum DatasetArgs {
    /// ScanNet scenes: NAME.sens, NAME_vh_clean_2.ply, and labels as a mesh or as .aggregation.json and
    /// .segs.json
    ///
    /// Writes OUT/NAME/{color,depth,pose,intrinsic}, the mesh and its labels, in the form that every other
    /// command reads. The table scannetv2-labels.combined.tsv adds the classes of ScanNet200. It belongs in
    /// the data set's folder or the folder around it.
    Scannet {
        /// Folder of the downloaded scenes
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Use every N-th frame
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        frame_step: u32,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Matterport3D scans: undistorted pictures, depth maps, cameras and region_segmentations, as folders or
    /// archives
    ///
    /// Writes OUT/SCAN/SCAN_regionN for each room: its mesh, its labels for all of Matterport3D's presets,
    /// and the frames that see it. The table category_mapping.tsv is required. It belongs in the data set's
    /// folder, the folder around it, or a folder metadata there.
    Matterport {
        /// Folder of the downloaded scans
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Use every N-th frame
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        frame_step: u32,
        #[command(flatten)]
        common: CommonArgs,
    },
}

/// Options for both data sets.
#[derive(clap::Args, Debug)]
struct CommonArgs {
    /// Folder for the prepared scenes; scenes that are already there are kept
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Width and height of the colour pictures [default: unchanged, which is fastest]
    #[arg(long, value_name = "WxH", value_parser = super::synth::size)]
    size: Option<[usize; 2]>,
    /// Number of threads [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs: Option<u32>,
    /// Leave out scenes that cannot be prepared, instead of stopping
    #[arg(long)]
    skip_failed: bool,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// A scene to be prepared.
struct Job<'a> {
    name: &'a str,
    weight: u64,
    prepare: Box<Prepare<'a>>,
}

type Prepare<'a> = dyn Fn(&Progress<'_>) -> Result<Outcome, PrepareError> + Send + Sync + 'a;

pub(super) fn run(args: &PrepareArgs) -> Result<ExitCode> {
    let (DatasetArgs::Scannet { common, .. } | DatasetArgs::Matterport { common, .. }) = &args.dataset;
    let settings = |frame_step: u32| Settings { frame_step: frame_step as usize, size: common.size };
    match &args.dataset {
        DatasetArgs::Scannet { folder, frame_step, .. } => {
            let (scenes, settings) = (scannet::find(folder)?, settings(*frame_step));
            let job = |scene| {
                let scene: &scannet::Download = scene;
                let prepare =
                    move |progress: &Progress<'_>| scannet::prepare(scene, folder, &common.output, &settings, progress);
                Job { name: &scene.name, weight: scene.weight(), prepare: Box::new(prepare) }
            };
            prepare_all(common, scenes.iter().map(job).collect())
        }
        DatasetArgs::Matterport { folder, frame_step, .. } => {
            let (scans, settings) = (matterport::find(folder)?, settings(*frame_step));
            let job = |scan| {
                let scan: &matterport::Download = scan;
                let prepare = move |progress: &Progress<'_>| {
                    matterport::prepare(scan, folder, &common.output, &settings, progress)
                };
                Job { name: &scan.name, weight: scan.weight(), prepare: Box::new(prepare) }
            };
            prepare_all(common, scans.iter().map(job).collect())
        }
    }
}

/// Progress of a run.
struct Pace {
    start: Instant,
    bar: ProgressBar,
    total: f64,
    /// Finished weight, and the part of it that was finished before this run.
    done: Mutex<[f64; 2]>,
}

impl Pace {
    fn new(total: f64) -> Self {
        let bar = ProgressBar::new(STEPS as u64).with_message("scenes");
        // The template is a constant, and a bar without a style is better than none.
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {percent:>3}% {elapsed}, {prefix}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { start: Instant::now(), bar, total, done: Mutex::new([0.0; 2]) }
    }

    fn add(&self, weight: f64, kept: f64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done[0] += weight;
        done[1] += kept;
        self.bar.set_position((STEPS * done[0] / self.total) as u64);
        drop(done);
        self.bar.set_prefix(self.left());
    }

    /// Returns the remaining time, in words.
    fn left(&self) -> String {
        let [done, kept] = *self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let (work, rest) = (done - kept, (self.total - done).max(0.0));
        if work <= 0.0 {
            return String::new();
        }
        let seconds = self.start.elapsed().as_secs_f64() * rest / work;
        match seconds {
            s if s < 90.0 => format!("{s:.0} s left"),
            s if s < 5400.0 => format!("{:.0} min left", s / 60.0),
            s => format!("{:.1} h left", s / 3600.0),
        }
    }
}

fn prepare_all(args: &CommonArgs, jobs: Vec<Job<'_>>) -> Result<ExitCode> {
    let output: &Path = &args.output;
    std::fs::create_dir_all(output)
        .with_context(|| format!("{}: cannot make this folder; name another with -o", output.display()))?;
    let locked = lock(output).with_context(|| output.display().to_string())?;
    let Some(_alone) = locked else { bail!("{}: another process prepares here", output.display()) };
    clean(output)?;
    let threads = args.jobs.map_or(0, |jobs| jobs as usize);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;

    let pace = Pace::new(jobs.iter().map(|job| job.weight as f64).sum::<f64>().max(1.0));
    let (count, finished, stopped) = (jobs.len(), AtomicUsize::new(0), AtomicBool::new(false));
    let one = |job: &Job<'_>| -> Option<Result<Outcome>> {
        if stopped.load(Ordering::Relaxed) {
            return None;
        }
        let (start, weight) = (Instant::now(), job.weight as f64);
        let result = (job.prepare)(&|share| pace.add(share * weight, 0.0));
        let number = finished.fetch_add(1, Ordering::Relaxed) + 1;
        let line = match &result {
            Ok(Outcome::Made(manifest)) => {
                let left = pace.left();
                format!(
                    "{number}/{count} {}: {} frames, {:.1} s{}{left}",
                    job.name,
                    manifest.frames,
                    start.elapsed().as_secs_f64(),
                    if left.is_empty() { "" } else { "; " },
                )
            }
            Ok(Outcome::Kept(_)) => {
                pace.add(0.0, weight);
                format!("{number}/{count} {}: done before", job.name)
            }
            Err(error) => {
                let is_disk_full = matches!(error, PrepareError::Io { source, .. } if is_full(source));
                if !args.skip_failed || is_disk_full {
                    stopped.store(true, Ordering::Relaxed);
                }
                format!("error: {}: {error}", job.name)
            }
        };
        pace.bar.suspend(|| eprintln!("{line}"));
        Some(result.map_err(anyhow::Error::from))
    };
    let start = Instant::now();
    // The threads share the frames of a scene. A thread that finds no frame left takes another scene.
    let results: Vec<Option<Result<Outcome>>> = pool.install(|| jobs.par_iter().with_max_len(1).map(one).collect());
    pace.bar.finish_and_clear();
    report(args, &jobs, &results, start.elapsed().as_secs_f64())
}

fn report(args: &CommonArgs, jobs: &[Job<'_>], results: &[Option<Result<Outcome>>], seconds: f64) -> Result<ExitCode> {
    let outcomes: Vec<&Outcome> = results.iter().flatten().filter_map(|result| result.as_ref().ok()).collect();
    let failed: Vec<(&str, String)> = (jobs.iter().zip(results))
        .filter_map(|(job, result)| Some((job.name, told_once(result.as_ref()?.as_ref().err()?))))
        .collect();
    let made: Vec<&Outcome> = outcomes.iter().copied().filter(|outcome| matches!(outcome, Outcome::Made(_))).collect();
    let frames: usize = made.iter().map(|outcome| outcome.manifest().frames).sum();
    let mut out = std::io::stdout().lock();
    if args.json {
        let scenes: Vec<_> = outcomes
            .iter()
            .map(|outcome| json!({ "new": matches!(outcome, Outcome::Made(_)), "scene": outcome.manifest() }))
            .collect();
        let failed: Vec<_> = failed.iter().map(|(scene, error)| json!({ "scene": scene, "error": error })).collect();
        let json = json!({ "output": args.output, "seconds": seconds, "scenes": scenes, "failed": failed });
        writeln!(out, "{json:#}")?;
    } else {
        let pace = if frames > 0 { format!(", {:.0} frames a second", frames as f64 / seconds) } else { String::new() };
        writeln!(
            out,
            "{} scenes made with {frames} frames, {} kept, {} failed in {seconds:.1} s{pace}",
            made.len(),
            outcomes.len() - made.len(),
            failed.len(),
        )?;
        for outcome in &outcomes {
            let manifest = outcome.manifest();
            for note in &manifest.notes {
                writeln!(out, "note: {}: {note}", manifest.scene)?;
            }
        }
        writeln!(out, "{}", args.output.display())?;
    }
    if !failed.is_empty() && !args.skip_failed {
        let names: Vec<&str> = failed.iter().map(|(name, _)| *name).collect();
        bail!(
            "{} of {} scenes could not be prepared: {}; --skip-failed leaves them out",
            failed.len(),
            jobs.len(),
            names.join(", ")
        );
    }
    // A run that prepares nothing at all has failed.
    Ok(if outcomes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
