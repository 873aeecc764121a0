//! `geopurify prepare`: unpacks downloaded data sets once.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::shown::{json_lines, plain};
use super::told_once;
use crate::counted::counted;
use crate::prepare::{Batch, DataSet, Download, Event, Outcome, Prepared, Settings, prepare_all};

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
    #[arg(long = "resolution", alias = "size", value_name = "WxH", value_parser = super::synth::size)]
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

pub(super) fn run(args: &PrepareArgs) -> Result<ExitCode> {
    let (dataset, root, frame_step, common) = match &args.dataset {
        DatasetArgs::Scannet { folder, frame_step, common } => (DataSet::Scannet, folder, frame_step, common),
        DatasetArgs::Matterport { folder, frame_step, common } => (DataSet::Matterport, folder, frame_step, common),
    };
    let downloads = dataset.find(root)?;
    let output = &common.output;
    std::fs::create_dir_all(output)
        .with_context(|| format!("{}: cannot make this folder; name another with -o", output.display()))?;
    let batch = Batch {
        root,
        output,
        settings: Settings { frame_step: *frame_step as usize, size: common.size },
        threads: common.jobs.map_or(0, |jobs| jobs as usize),
        skip_failed: common.skip_failed,
    };
    let pace = Pace::new(&downloads);
    let results = prepare_all(&downloads, &batch, &|event| pace.show(&event))?;
    pace.bar.finish_and_clear();
    report(common, downloads.len(), results, pace.start.elapsed().as_secs_f64())
}

/// Progress of a run.
struct Pace {
    start: Instant,
    bar: ProgressBar,
    num_scenes: usize,
    total: f64,
    /// Finished weight, and the part of it that was finished before this run.
    done: Mutex<[f64; 2]>,
}

impl Pace {
    fn new(downloads: &[Download]) -> Self {
        let bar = ProgressBar::new(STEPS as u64).with_message("scenes");
        // The template is a constant, and a bar without a style is better than none.
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {percent:>3}% {elapsed}, {prefix}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        let total = downloads.iter().map(|download| download.weight() as f64).sum::<f64>().max(1.0);
        Self { start: Instant::now(), bar, num_scenes: downloads.len(), total, done: Mutex::new([0.0; 2]) }
    }

    fn show(&self, event: &Event<'_>) {
        let (name, result, number, weight, seconds) = match *event {
            Event::Advanced { weight } => return self.add(weight, 0.0),
            Event::Finished { name, result, number, weight, seconds } => (name, result, number, weight, seconds),
        };
        let count = self.num_scenes;
        let line = match result {
            Ok(Outcome::Made(manifest)) => {
                let left = self.left();
                let separator = if left.is_empty() { "" } else { "; " };
                format!(
                    "{number}/{count} {name}: {}, {seconds:.1} s{separator}{left}",
                    counted(manifest.frames, "frame")
                )
            }
            Ok(Outcome::Kept(_)) => {
                self.add(0.0, weight);
                format!("{number}/{count} {name}: done before")
            }
            Err(error) => format!("error: {name}: {error}"),
        };
        let is_error = result.is_err();
        self.bar.suspend(|| if is_error { eprintln!("{}", plain(&line)) } else { super::say::line(&line) });
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

fn report(args: &CommonArgs, num_scenes: usize, results: Vec<Prepared>, seconds: f64) -> Result<ExitCode> {
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    for (name, result) in results {
        match result {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => failed.push((name, told_once(&error.into()))),
        }
    }
    let made: Vec<&Outcome> = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Made(_))).collect();
    let frames: usize = made.iter().map(|outcome| outcome.manifest().frames).sum();
    let mut out = std::io::stdout().lock();
    if args.json {
        let scenes: Vec<_> = outcomes
            .iter()
            .map(|outcome| json!({ "new": matches!(outcome, Outcome::Made(_)), "scene": outcome.manifest() }))
            .collect();
        let failed: Vec<_> = failed.iter().map(|(scene, error)| json!({ "scene": scene, "error": error })).collect();
        let json =
            json!({ "output": args.output.to_string_lossy(), "seconds": seconds, "scenes": scenes, "failed": failed });
        writeln!(out, "{}", json_lines(&json)?)?;
    } else {
        let pace = if frames > 0 { format!(", {:.0} frames a second", frames as f64 / seconds) } else { String::new() };
        writeln!(
            out,
            "{} made with {}, {} kept, {} failed in {seconds:.1} s{pace}",
            counted(made.len(), "scene"),
            counted(frames, "frame"),
            outcomes.len() - made.len(),
            failed.len(),
        )?;
        for outcome in &outcomes {
            let manifest = outcome.manifest();
            for note in &manifest.notes {
                writeln!(out, "note: {}: {}", plain(&manifest.scene), plain(note))?;
            }
        }
        writeln!(out, "{}", args.output.display())?;
    }
    if !failed.is_empty() && !args.skip_failed {
        let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
        bail!(
            "{} of {} scenes could not be prepared: {}; --skip-failed leaves them out",
            failed.len(),
            num_scenes,
            names.join(", ")
        );
    }
    // A run that prepares nothing at all has failed.
    Ok(if outcomes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
