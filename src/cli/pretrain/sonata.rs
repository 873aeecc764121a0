//! `geopurify pretrain sonata`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::gpu::{DeviceSelection, select};
use crate::pretrain::run::{Event, RunOptions, SETTINGS_FILE, train};
use crate::pretrain::teacher::{TeacherSettings, TeacherTask};

/// Arguments of `pretrain sonata`.
#[derive(clap::Args, Debug)]
pub(super) struct SonataArgs {
    /// Rooms as `geopurify synth` makes them: DIR/train to learn from, DIR/val to look how well it goes
    #[arg(long, value_name = "DIR")]
    rooms: PathBuf,
    /// Folder of the run: weights come out as RUN/model.safetensors, with RUN/config.json
    #[arg(short, long, value_name = "RUN")]
    output: PathBuf,
    /// Settings that differ from the usual ones (TOML), as RUN/settings.toml has them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Steps of the optimizer, instead of what the settings say
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Seed of everything random, instead of what the settings say
    #[arg(long)]
    seed: Option<u64>,
    /// Go on from the run's last checkpoint
    #[arg(long)]
    resume: bool,
    /// auto, gpu, cpu, or an adapter's index as `geopurify devices` lists it
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
}

pub(super) fn run(args: &SonataArgs) -> Result<()> {
    let settings = settings(args)?;
    let rooms = folders(&args.rooms.join("train"))?;
    let validation = folders(&args.rooms.join("val"))?;
    let selected = select(args.device)?;
    eprintln!("device: {} ({})", selected.name, selected.why);
    eprintln!("{} rooms to learn from, {} to validate on; {} steps", rooms.len(), validation.len(), settings.training.steps);
    let training = settings.training.clone();
    let mut task = TeacherTask::new(settings, rooms, validation, &selected.device)?;
    let options = RunOptions { resume: args.resume, device_name: selected.name.clone(), ..RunOptions::default() };
    let bar = ProgressBar::new(training.steps);
    // The template is a constant, and a bar without a style is better than none.
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    let say = |text: String| if bar.is_hidden() { eprintln!("{text}") } else { bar.println(text) };
    let trained = train(&args.output, &mut task, &training, &options, &selected.device, &mut |event| match event {
        Event::Note(text) => say(text),
        Event::Step { step, report, remaining, .. } => {
            bar.set_position(step);
            bar.set_message(format!("loss {:.3}, {remaining:.0} s left", report.loss));
        }
        Event::Validation { step, figures, seconds } => {
            let figures: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            say(format!("step {step}: {} ({seconds:.1} s)", figures.join(", ")));
        }
    })?;
    bar.finish_and_clear();
    println!(
        "{}: {} steps, loss {:.3} to {:.3}",
        trained.model.display(),
        trained.steps,
        trained.losses[0],
        trained.losses[1]
    );
    Ok(())
}

/// The settings: of the run that is resumed where no others are given.
fn settings(args: &SonataArgs) -> Result<TeacherSettings> {
    let own = args.output.join(SETTINGS_FILE);
    let path = match &args.config {
        Some(path) => Some(path),
        None => (args.resume && own.is_file()).then_some(&own),
    };
    let mut settings: TeacherSettings = match path {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            toml::from_str(&text).with_context(|| path.display().to_string())?
        }
        None => TeacherSettings::default(),
    };
    let training = &mut settings.training;
    training.steps = args.steps.unwrap_or(training.steps);
    training.seed = args.seed.unwrap_or(training.seed);
    Ok(settings)
}

/// The folders in `path`, by name; none where it does not exist.
fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => bail!("{}: {error}", path.display()),
    };
    let entries = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut folders = entries.with_context(|| path.display().to_string())?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    Ok(folders)
}
