//! `geopurify pretrain`: trains the image model, the teacher and the 3D network themselves, at small widths, on
//! rooms of `geopurify synth`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::networks::{WayOut as _, XDecoderArgs, say_device};
use super::progress::{Bars, StepBar, step_message};
use super::say;
use super::table::table;
use crate::counted::counted;
use crate::gpu::{DeviceSelection, Selected, select};
use crate::pretrain::openscene::{OpenSceneSettings, OpenSceneTask};
use crate::pretrain::run::{Event, LoopSettings, RunOptions, Task, Trained, train};
use crate::pretrain::sonata::{SonataSettings, SonataTask};
use crate::pretrain::xdecoder::{XDecoderSettings, XDecoderTask};
use crate::session::Network;

/// Arguments of `pretrain`.
#[derive(clap::Args, Debug)]
pub(super) struct PretrainArgs {
    #[command(subcommand)]
    model: Model,
}

#[derive(clap::Subcommand, Debug)]
enum Model {
    /// The image model X-Decoder, which finds masks and compares them with words
    Xdecoder(RunArgs),
    /// The teacher Sonata, which learns which surfaces belong together
    Sonata(RunArgs),
    /// The 3D network OpenScene, which learns from shape and colour to find what X-Decoder's words name
    Openscene(OpenSceneArgs),
}

/// Options of the 3D network's training.
#[derive(clap::Args, Debug)]
struct OpenSceneArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    xdecoder: XDecoderArgs,
}

/// Options of all trainings.
#[derive(clap::Args, Debug)]
struct RunArgs {
    /// Folder of rooms from `geopurify synth`, with train and val
    #[arg(long = "scenes", alias = "rooms", value_name = "DIR")]
    rooms: PathBuf,
    /// Folder for weights, checkpoints and logs
    #[arg(short, long, value_name = "RUN")]
    output: PathBuf,
    /// Settings (TOML); settings that are not in the file keep their defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Number of optimizer steps
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Seed of the initial weights and of every random choice
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Continue from the last checkpoint in RUN
    #[arg(long)]
    resume: bool,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value = "auto")]
    device: DeviceSelection,
}

pub(super) fn run(args: &PretrainArgs) -> Result<()> {
    match &args.model {
        Model::Xdecoder(args) => xdecoder(args),
        Model::Sonata(args) => sonata(args),
        Model::Openscene(args) => openscene(args),
    }
}

fn xdecoder(args: &RunArgs) -> Result<()> {
    let mut settings = XDecoderSettings::parse(&args.settings()?)?;
    args.put_into(&mut settings.training);
    let selected = args.device()?;
    let mut bars = Bars::new();
    let training = settings.training.clone();
    let mut task = XDecoderTask::new(settings, &args.rooms, &args.output, &selected.device, &mut |share| {
        bars.show("draw scans", share);
    })?;
    bars.finish();
    let [recorded, scans] = task.num_views();
    say::line(&format!("{}, {} of scans", counted(recorded, "recorded view"), counted(scans, "view")));
    let trained = args.train(&mut task, &training, &selected)?;
    report(&trained)
}

fn sonata(args: &RunArgs) -> Result<()> {
    let mut settings = SonataSettings::parse(&args.settings()?)?;
    args.put_into(&mut settings.training);
    let selected = args.device()?;
    let training = settings.training.clone();
    let mut task = SonataTask::new(settings, &args.rooms, &selected.device)?;
    let [learnt, held_out] = task.num_rooms();
    say::line(&format!("{} to learn from, {held_out} to validate on", counted(learnt, "room")));
    let trained = args.train(&mut task, &training, &selected)?;
    report(&trained)
}

fn openscene(args: &OpenSceneArgs) -> Result<()> {
    let OpenSceneArgs { run, xdecoder } = args;
    let mut settings = OpenSceneSettings::parse(&run.settings()?)?;
    run.put_into(&mut settings.training);
    let networks = xdecoder.networks().with_demo(&[Network::XDecoder]);
    let selected = run.device()?;
    let encoder = networks.open_xdecoder()?.load_text_encoder(&selected.device);
    let encoder = encoder.or_configuration()?;
    let training = settings.training.clone();
    let mut task = OpenSceneTask::new(settings, &run.rooms, &encoder, &selected.device)?;
    let [learnt, held_out] = task.num_rooms();
    say::line(&format!("{} to learn from, {held_out} to validate on", counted(learnt, "room")));
    let trained = run.train(&mut task, &training, &selected)?;
    report(&trained)
}

impl RunArgs {
    /// Returns the text of the settings file, or an empty text without one.
    fn settings(&self) -> Result<String> {
        let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        Ok(self.config.as_ref().map(read).transpose()?.unwrap_or_default())
    }

    fn put_into(&self, training: &mut LoopSettings) {
        training.steps = self.steps.unwrap_or(training.steps);
        training.seed = self.seed.unwrap_or(training.seed);
    }

    fn device(&self) -> Result<Selected> {
        let selected = select(self.device)?;
        say_device(&selected);
        Ok(selected)
    }

    fn train(&self, task: &mut dyn Task, settings: &LoopSettings, selected: &Selected) -> Result<Trained> {
        run_task(&self.output, self.resume, task, settings, selected)
    }
}

/// Trains a model in the folder `output` and shows how it goes.
pub(super) fn run_task(
    output: &Path,
    resume: bool,
    task: &mut dyn Task,
    settings: &LoopSettings,
    selected: &Selected,
) -> Result<Trained> {
    let options = RunOptions { resume, device_name: selected.name.clone(), ..RunOptions::default() };
    let mut shown = Shown::new(settings.steps);
    Ok(train(output, task, settings, &options, &selected.device, &mut |event| shown.show(&event))?)
}

/// Shows the run on standard error.
struct Shown {
    steps: StepBar,
    loss: f64,
}

/// Weight of a new step's loss in the smoothed loss that is shown.
const FRESH: f64 = 0.05;

impl Shown {
    fn new(num_steps: u64) -> Self {
        Self { steps: StepBar::new(num_steps), loss: f64::NAN }
    }

    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Note(note) => self.steps.say(&format!("note: {note}")),
            Event::Step { step, report, remaining, .. } => {
                let loss = report.loss;
                self.loss = if self.loss.is_nan() { loss } else { self.loss + FRESH * (loss - self.loss) };
                let message = step_message(self.loss, report.learning_rate, report.seconds, *remaining);
                self.steps.show(*step, message);
            }
            Event::Validation { step, figures, seconds } => {
                let figures = figures.iter().filter_map(|(name, value)| Some((name.strip_prefix("val_")?, value)));
                let said: Vec<String> = figures.map(|(name, value)| format!("{name} {value:.4}")).collect();
                self.steps.say(&format!("validation after step {step}: {} ({seconds:.0} s)", said.join(", ")));
            }
        }
    }
}

pub(super) fn report(trained: &Trained) -> Result<()> {
    let [first, last] = trained.losses;
    let mut rows = vec![
        vec!["steps".to_owned(), trained.steps.to_string()],
        vec!["loss of the first step".to_owned(), format!("{first:.4}")],
        vec!["loss of the last tenth".to_owned(), format!("{last:.4}")],
    ];
    rows.extend(trained.figures.iter().map(|(name, value)| vec![name.clone(), format!("{value:.4}")]));
    let mut out = std::io::stdout().lock();
    write!(out, "{}", table(&["", ""], &rows))?;
    Ok(writeln!(out, "{}", trained.model.display())?)
}
