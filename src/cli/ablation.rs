//! `geopurify ablation`: measures how much each part of the method contributes, on rooms that no network has
//! learned from.

use std::cell::RefCell;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::cache::CacheArgs;
use super::networks::{TeacherArgs, XDecoderArgs, open_session};
use super::progress::Bars;
use super::say;
use super::shown::json_line;
use super::table::table;
use super::viewing::ViewingArgs;
use crate::ablation::{
    AblationEvent, AblationInputs, AblationOrigin, AblationReport, AblationSettings, AblationWords, CHART_FILE,
    JSON_FILE, LabelledRooms, MARKDOWN_FILE, PreparedRooms, ablation, prepare_rooms,
};
use crate::distill::{self, Config, PrepareSettings};
use crate::gpu::DeviceSelection;
use crate::labels::{Preset, Protocol};
use crate::purify;
use crate::session::{ImageModelKind, Network, Networks};

/// Arguments of `ablation`.
#[derive(clap::Args, Debug)]
pub(super) struct AblationArgs {
    /// Folder of rooms from `synth`, with train, val and test
    #[arg(long, value_name = "DIR")]
    rooms: PathBuf,
    /// Folder for the students, the results and the table. Finished work in it is not repeated
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Classes: scannet20 (without its last class, "other") or matterport21
    #[arg(long, value_name = "NAME", default_value = "scannet20")]
    preset: Preset,
    /// Number of students of each kind, each with its own seed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: u32,
    /// Numbers of rooms that students learn from; comparisons of other settings use the largest [default: those
    /// of 5,10,20,50 that there are; all rooms if they are fewer]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    scenes: Vec<usize>,
    /// Values of T, the paper's number of iterations: affinities are applied T + 1 times
    #[arg(long, value_name = "T,..", value_delimiter = ',', default_value = "1,18,36")]
    iterations: Vec<usize>,
    /// Further values of T to try on the validation rooms, for learned affinities and for the baselines
    #[arg(long, value_name = "T,..", value_delimiter = ',', default_value = "0,2,4,8,12,24,54")]
    candidates: Vec<usize>,
    /// Number of rooms to measure at most [default: all of DIR/test]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    test_rooms: Option<u32>,
    /// Number of rooms of DIR/val to choose settings by, at most
    #[arg(long, value_name = "N", default_value_t = 5)]
    validation_rooms: u32,
    /// Optimizer steps of each student, rounded to whole epochs
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Channels of the students' hidden layers
    #[arg(long, value_name = "N", default_value_t = 64)]
    hidden: usize,
    /// Channels of the students' embeddings
    #[arg(long, value_name = "N", default_value_t = 64)]
    embed: usize,
    /// Number of anchors in a training scene
    #[arg(long, value_name = "N", default_value_t = 2048)]
    anchors: usize,
    /// Other training settings (TOML), in the form that `train --config` takes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Memory limit of a training step, in MiB; rooms that need more are cropped
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    max_memory: u64,
    /// Number of neighbours of each voxel, 1 to 128
    #[arg(long, default_value_t = purify::Settings::default().neighbors)]
    neighbors: usize,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    viewing: ViewingArgs,
    #[command(flatten)]
    teacher: TeacherArgs,
    #[command(flatten)]
    xdecoder: XDecoderArgs,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &AblationArgs) -> Result<()> {
    let mut settings = settings(args)?;
    let most = args.test_rooms.map_or(usize::MAX, |n| n as usize);
    let mut found =
        LabelledRooms::find(&args.rooms, args.preset, [settings.most_scenes(), args.validation_rooms as usize, most])?;
    let num_training = found.training.len();
    if args.scenes.is_empty() {
        settings.scenes = AblationSettings::usual_scenes(num_training);
        found.training.truncate(settings.most_scenes());
    }
    if settings.most_scenes() > num_training {
        bail!(
            "{} has {num_training} rooms, but --scenes asks for {}; give smaller numbers, or make more rooms with \
             geopurify synth",
            args.rooms.join("train").display(),
            settings.most_scenes()
        );
    }
    settings.check(num_training)?;
    if found.validation.is_empty() {
        say::note("there are no validation rooms, so no settings are chosen for the baselines");
    }
    let networks = Networks { sonata: args.teacher.choice(), ..args.xdecoder.networks() };
    let session = open_session(args.device, networks.clone(), &[Network::XDecoder, Network::Sonata])?;
    let selected = session.device();
    let prepare = PrepareSettings {
        views: args.viewing.settings(),
        image_model: ImageModelKind::XDecoder,
        networks,
        words: args.preset.words(),
        cache: args.cache.folder()?,
    };

    let bars = RefCell::new(Bars::new());
    let PreparedRooms { rooms, words, weights } = prepare_rooms(
        &found,
        &prepare,
        &settings,
        selected,
        &mut |stage, share| bars.borrow_mut().show(stage, share),
        &mut |line| bars.borrow_mut().say(line),
    )?;
    let protocol = Protocol::of_preset(&args.preset);
    let labels = &args.preset.words()[..protocol.num_classes];
    let words = AblationWords { labels, rows: words, protocol };
    let origin = AblationOrigin { weights, device: selected.name.clone() };
    let mut shown = Shown { bars: bars.into_inner(), is_terminal: std::io::stderr().is_terminal() };
    let inputs = AblationInputs { rooms: &rooms, words: &words, origin: &origin };
    let report = ablation(&args.output, &settings, inputs, &selected.device, &mut |event| shown.show(event))?;
    shown.bars.finish();
    print(args, &report)
}

fn settings(args: &AblationArgs) -> Result<AblationSettings> {
    let base = match &args.config {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Config::parse(&text, None).with_context(|| path.display().to_string())?
        }
        None => Config::of(distill::Recipe::Paper),
    };
    let training = Config { hidden_dim: args.hidden, embed_dim: args.embed, anchors: args.anchors, ..base };
    training.validate()?;
    Ok(AblationSettings {
        seeds: args.seeds as usize,
        scenes: if args.scenes.is_empty() { AblationSettings::USUAL_SCENES.to_vec() } else { args.scenes.clone() },
        iterations: args.iterations.clone(),
        candidates: args.candidates.clone(),
        kernels: AblationSettings::usual_kernels(),
        sharpness: AblationSettings::USUAL_SHARPNESS.to_vec(),
        steps: args.steps as usize,
        training,
        max_memory: args.max_memory << 20,
        purify: purify::Settings {
            neighbors: args.neighbors,
            working_bytes: usize::try_from(args.viewing.settings().working_bytes()).unwrap_or(usize::MAX),
            ..purify::Settings::default()
        },
    })
}

/// Shows the ablation on standard error: bars on a terminal, and a line for each finished step.
struct Shown {
    bars: Bars,
    is_terminal: bool,
}

impl Shown {
    fn show(&mut self, event: &AblationEvent<'_>) {
        match event {
            AblationEvent::Training { event: distill::Event::Step { report, num_steps, .. }, .. }
                if self.is_terminal =>
            {
                self.bars.show("train", report.step as f64 / *num_steps as f64);
            }
            AblationEvent::Training { run, event: distill::Event::Note(note) } => log::info!("{run}: {note}"),
            AblationEvent::Training { .. } => {}
            AblationEvent::Trained { run, seconds } => {
                self.bars.say(&format!("{run}: {}", took("trained", *seconds)));
            }
            AblationEvent::Measured { way, room, seconds } => {
                if seconds.is_some() {
                    self.bars.say(&format!("{room}, {way}: {}", took("measured", *seconds)));
                }
            }
        }
    }
}

fn took(done: &str, seconds: Option<f64>) -> String {
    seconds.map_or_else(|| format!("{done} before"), |seconds| format!("{done} in {seconds:.1} s"))
}

fn print(args: &AblationArgs, report: &AblationReport) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json_line(report)?)?;
        return Ok(());
    }
    let count = |value: Option<usize>| value.map_or_else(String::new, |value| value.to_string());
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            vec![
                row.group.to_owned(),
                row.name.clone(),
                count(row.iterations),
                count(row.scenes),
                format!("{:.2} %", 100.0 * row.mean_iou.mean),
                format!("{:.2}", 100.0 * row.mean_iou.deviation),
                format!("{:+.2}", row.gain.mean),
                format!("{:+.2} to {:+.2}", row.gain.least, row.gain.most),
            ]
        })
        .collect();
    let header = ["what", "", "T", "scenes", "mIoU", "deviation", "gain", "least to largest"];
    write!(out, "{}", table(&header, &rows))?;
    for name in [JSON_FILE, MARKDOWN_FILE, CHART_FILE] {
        writeln!(out, "{}", args.output.join(name).display())?;
    }
    Ok(())
}
