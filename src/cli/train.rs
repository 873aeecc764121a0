//! `geopurify train`: trains a student from scans and recordings, without labels.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::cache::CacheArgs;
use super::networks::{ImageModelArgs, TeacherArgs, configuration_option, open_session, write_used};
use super::outputs::check_writable;
use super::progress::{Bars, StepBar, step_message};
use super::say;
use super::shown::plain;
use super::table::table;
use super::told_once;
use super::viewing::ViewingArgs;
use super::words::words;
use crate::counted::counted;
use crate::distill::{
    Config, DistillError, Event, PrepareSettings, PreparedScenes, Preparer, Recipe, RunOptions, Scenes, Trained,
    check_run_folder, prepare_scenes, read_config, read_scenes, train, usual_memory,
};
use crate::gpu::DeviceSelection;
use crate::labels::{Preset, UnknownPreset};
use crate::models::import::{ImportOptions, import};
use crate::pipeline::Compat;
use crate::session::{Network, Networks, Session, SessionError, Source, find_sources, split_of};
use crate::weights::is_name;
use crate::weights::registry::Registry;
use crate::weights::store::Store;

/// Benchmark whose words cut the views into masks if none are given.
const USUAL_WORDS: &str = "scannet20";

/// Arguments of `train`.
#[derive(clap::Args, Debug)]
pub(super) struct TrainArgs {
    /// Scenes to learn from: a folder of scans and recordings, or a list with one entry per line. An entry is
    /// a scan, a recording, or a scan, a tab, and its recording. The lists scannet-train and matterport-train come
    /// with the program: the 20 scenes of the published students. Of a folder with train, val and test, train is taken
    #[arg(long, value_name = "LIST|DIR", required_unless_present = "resume")]
    pub(super) scenes: Option<PathBuf>,
    /// Validation scenes, given in the same way; the student does not learn from them. Of a folder with train, val
    /// and test, val is taken
    #[arg(long, value_name = "LIST|DIR", requires = "scenes")]
    validation: Option<PathBuf>,
    /// Folder that holds the entries of a list; of one with train and val, the part that is needed [default: the
    /// list's own folder]
    #[arg(long, value_name = "DIR", requires = "scenes")]
    data: Option<PathBuf>,
    /// What learns: the student, which purifies features, or a 3D network, which learns the features themselves
    #[cfg(feature = "lab")]
    #[arg(long, value_enum, default_value_t = Learner::Geopurify)]
    method: Learner,
    /// Folder for weights, checkpoints and logs
    #[arg(short, long, value_name = "RUN")]
    pub(super) output: PathBuf,
    /// Settings of the training: paper, reference, reference-matterport80 or reference-matterport160 [default:
    /// those of --config, else paper]
    #[arg(long, value_name = "NAME")]
    pub(super) recipe: Option<Recipe>,
    /// Settings that differ from the usual ones (TOML), in the form of RUN/config.toml; of RUN/settings.toml for a
    /// 3D network
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Number of epochs, instead of that in the settings
    #[arg(long, value_name = "N")]
    pub(super) epochs: Option<usize>,
    /// Seed of every random choice, instead of that in the settings
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Continue from the run's last checkpoint
    #[arg(long)]
    pub(super) resume: bool,
    /// Number of checkpoints to keep [default: 3; when resuming, that of the first start]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) keep_last: Option<u32>,
    /// Number of epochs between validations [default: 1; when resuming, that of the first start]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) validate_every: Option<u32>,
    /// Memory limit of a step, in MiB; scenes that need more are cropped [default: three quarters of the free
    /// memory, 8192 on a GPU; when resuming, the limit of the first start]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub(super) max_memory: Option<u64>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Leave out scenes that cannot be prepared, instead of stopping
    #[arg(long)]
    skip_failed: bool,
    /// Words that cut the views into masks, separated by commas
    #[arg(long, value_name = "WORDS", conflicts_with = "preset")]
    words: Vec<String>,
    /// Benchmark whose words cut the views into masks [default: scannet20]
    #[arg(long, alias = "word-preset", value_name = "NAME", value_parser = benchmark)]
    preset: Option<Preset>,
    /// Check everything and print what would be done, without doing it
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Install the trained weights in the store under this name
    #[arg(long, value_name = "NAME")]
    pub(super) install: Option<String>,
    #[command(flatten)]
    viewing: ViewingArgs,
    #[command(flatten)]
    pub(super) teacher: TeacherArgs,
    #[command(flatten)]
    pub(super) image: ImageModelArgs,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    pub(super) device: DeviceSelection,
}

/// What learns from scenes.
#[cfg(feature = "lab")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Learner {
    /// The student
    Geopurify,
    /// A 3D network of OpenScene's architecture
    Openscene,
}

#[cfg(feature = "lab")]
impl TrainArgs {
    /// True if a 3D network learns, and no student.
    pub(super) fn trains_network(&self) -> bool {
        self.method == Learner::Openscene
    }
}

/// Checks the name under which the weights are to be installed.
pub(super) fn check_name(args: &TrainArgs) -> Result<()> {
    match args.install.as_deref().filter(|name| !is_name(name)) {
        Some(name) => bail!("--install {name}: a name in the store has letters, digits, '-', '_' and '.'"),
        None => Ok(()),
    }
}

pub(super) fn run(args: &TrainArgs) -> Result<()> {
    check_name(args)?;
    let config = config(args)?;
    check_run_folder(&args.output, args.resume)?;
    check_writable(&args.output)?;
    args.image.check()?;
    let preparing = [args.image.kind().network(), Network::Sonata];
    let needed: &[Network] = if args.scenes.is_some() { &preparing } else { &[] };
    let networks = Networks { sonata: args.teacher.choice(), ..args.image.networks() };
    if args.dry_run {
        let mut out = std::io::stdout().lock();
        dry_run(args, &config, &mut out)?;
        return write_used(&mut out, args.device, &networks, needed);
    }
    let session = open_session(args.device, networks, needed)?;
    let selected = session.device();
    let scenes = match &args.scenes {
        Some(scenes) => prepare_all(args, &config, scenes, &session)?,
        None => scenes_of(&args.output)?,
    };
    if scenes.training.is_empty() {
        bail!("no scene to learn from");
    }
    let max_memory = args.max_memory.map_or_else(|| usual_memory(selected), |mib| mib << 20);
    let options = RunOptions {
        resume: args.resume,
        keep_last: args.keep_last.map(|count| count as usize),
        validate_every: args.validate_every.map(|epochs| epochs as usize),
        max_memory,
        keep_max_memory: args.max_memory.is_none(),
        device_name: selected.name.clone(),
    };
    let [num_training, num_validation] = [&scenes.training, &scenes.validation].map(Vec::len);
    say::line(&format!(
        "{} to learn from, {num_validation} to validate on; {}",
        counted(num_training, "scene"),
        counted(config.epochs, "epoch")
    ));
    if args.max_memory.is_none() && !args.resume {
        let mib = max_memory >> 20;
        say::line(&format!("a step may take {mib} MiB (--max-memory); scenes that need more are cropped to fit"));
    }
    if config.recipe != Recipe::Paper && args.viewing.settings().compat == Compat::Fixed {
        say::note("the scenes are prepared with --compat fixed; --compat reference prepares them as published too");
    }
    let mut shown = Shown::new(&scenes, &config);
    let trained = train(&args.output, &config, &scenes, &options, &selected.device, &mut |event| shown.show(&event))?;
    drop(shown);
    report(args, &trained)
}

/// Returns the settings. A resumed run keeps its own unless others are given.
fn config(args: &TrainArgs) -> Result<Config> {
    let mut config = match (&args.config, args.recipe) {
        (Some(path), recipe) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Config::parse(&text, recipe).with_context(|| path.display().to_string())?
        }
        (None, None) if args.resume && args.output.join(crate::distill::CONFIG_FILE).exists() => {
            read_config(&args.output)?
        }
        (None, recipe) => Config::of(recipe.unwrap_or_default()),
    };
    if let Some(epochs) = args.epochs {
        config = config.with_epochs(epochs);
    }
    config.seed = args.seed.unwrap_or(config.seed);
    config.validate()?;
    Ok(config)
}

/// The preset of words. Recipes had this option's name before.
fn benchmark(name: &str) -> Result<Preset, String> {
    if name.parse::<Recipe>().is_ok() {
        return Err(format!("{name} is a recipe: --recipe {name}"));
    }
    name.parse().map_err(|error: UnknownPreset| error.to_string())
}

/// Finds the training and the validation scenes.
pub(super) fn find(args: &TrainArgs, scenes: &Path) -> Result<[Vec<Source>; 2]> {
    let find = |path: &Path, split: &str| {
        find_sources(path, args.data.as_deref(), split, args.viewing.settings().layout).map_err(with_data)
    };
    let found = [find(scenes, "train")?, args.validation.as_deref().map_or(Ok(Vec::new()), |path| find(path, "val"))?];
    for (path, split, use_of_it) in
        [(Some(scenes), "train", "learned from"), (args.validation.as_deref(), "val", "validated on")]
    {
        if let Some((path, part)) = path.and_then(|path| Some((path, split_of(path, split)?))) {
            say::note(&format!("{} has parts: {} is {use_of_it}", path.display(), part.display()));
        }
    }
    if let Some(part) = split_of(scenes, "val").filter(|_| args.validation.is_none()) {
        let (part, root) = (part.display(), scenes.display());
        say::note(&format!("{part} is not used; --validation {root} validates the student on it"));
    }
    Ok(found)
}

/// Prints what a run would do.
fn dry_run(args: &TrainArgs, config: &Config, out: &mut dyn std::io::Write) -> Result<()> {
    let Some(scenes) = &args.scenes else {
        let scenes = scenes_of(&args.output)?;
        let [training, validation] = [&scenes.training, &scenes.validation].map(Vec::len);
        writeln!(out, "would resume with {} to learn from, {validation} to validate on", counted(training, "scene"))?;
        return Ok(());
    };
    let [training, validation] = find(args, scenes)?;
    write_sources(out, [&training, &validation])?;
    let (steps, recipe) = (config.epochs * training.len().div_ceil(config.accumulate), config.recipe);
    let (epochs, steps) = (counted(config.epochs, "epoch"), counted(steps, "step"));
    writeln!(out, "{epochs}, {steps}, by the recipe {recipe}, into {}", args.output.display())?;
    Ok(())
}

/// Prints the scenes to learn from and to validate on.
pub(super) fn write_sources(out: &mut dyn std::io::Write, [training, validation]: [&[Source]; 2]) -> Result<()> {
    for (what, sources) in [("learn from", training), ("validate on", validation)] {
        for source in sources {
            writeln!(out, "would {what} {}", plain(&source.path().to_string_lossy()))?;
        }
    }
    Ok(())
}

/// Prepares all scenes that are not in the cache yet.
pub(super) fn prepare_all(args: &TrainArgs, config: &Config, scenes: &Path, session: &Session) -> Result<Scenes> {
    let views = args.viewing.settings();
    let [training, validation] = find(args, scenes)?;
    let words = match args.words.as_slice() {
        [] => {
            let preset: Preset = args.preset.map_or_else(|| USUAL_WORDS.parse(), Ok)?;
            if views.compat == Compat::Reference { preset.published_words() } else { preset.words() }
        }
        given => words(given)?,
    };
    let (networks, cache) = (session.networks().clone(), args.cache.folder()?);
    let prepare = PrepareSettings { views, image_model: args.image.kind(), networks, words, cache };
    let bars = RefCell::new(Bars::new());
    let mut say = |line: &str| bars.borrow_mut().say(line);
    let mut preparer = Preparer::new(&prepare, config, session.device(), &mut say)?;
    let PreparedScenes { scenes, failed } = prepare_scenes(
        &mut preparer,
        [&training, &validation],
        &mut |stage, share| bars.borrow_mut().show(stage, share),
        &mut |source, error| {
            let line = format!("error: {}: {}", source.path().display(), told_once(&with_way_out(error)));
            bars.borrow_mut().say(&line);
        },
    )?;
    if !failed.is_empty() && !args.skip_failed {
        bail!(
            "{} could not be prepared: {}; --skip-failed leaves them out",
            counted(failed.len(), "scene"),
            failed.join(", ")
        );
    }
    Ok(scenes)
}

/// Adds to an error the option that says where a list's entries are.
fn with_data(error: SessionError) -> anyhow::Error {
    match error {
        SessionError::ListEntry { .. } => anyhow::anyhow!("{error}; --data DIR says where the entries are"),
        SessionError::SeveralScenes { .. } => {
            anyhow::anyhow!("{error}; name the folder of the one that is meant with --data DIR")
        }
        _ => error.into(),
    }
}

/// Adds to an error the option that takes the missing configuration.
fn with_way_out(error: DistillError) -> anyhow::Error {
    let option = match &error {
        DistillError::Session(session) => match **session {
            SessionError::NeedsConfiguration { model, .. } => configuration_option(model),
            _ => return error.into(),
        },
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(format!("give the model's configuration with {option} FILE.json"))
}

/// Reads the scenes of a run that is resumed.
fn scenes_of(run: &Path) -> Result<Scenes> {
    read_scenes(run).map_err(|error| match error {
        DistillError::Gone { .. } => anyhow::anyhow!("{error}; give --scenes again to prepare it anew"),
        _ => anyhow::Error::from(error).context("--resume continues a run, which must have been started"),
    })
}

/// Shows the run on standard error: its steps, and a line per epoch.
struct Shown {
    steps: StepBar,
    num_epochs: usize,
}

impl Shown {
    fn new(scenes: &Scenes, config: &Config) -> Self {
        let num_steps = config.epochs * scenes.training.len().div_ceil(config.accumulate);
        Self { steps: StepBar::new(num_steps as u64), num_epochs: config.epochs }
    }

    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Note(note) => self.steps.say(&format!("note: {note}")),
            Event::Step { report, remaining, .. } => {
                let message = step_message(report.loss, report.learning_rate, report.seconds, *remaining);
                self.steps.show(report.step as u64, message);
            }
            Event::Epoch { epochs, loss, validation } => {
                let found = validation.map_or_else(String::new, |precision| {
                    format!(
                        ", affinity precision {:.4} (equal weights: {:.4})",
                        precision.affinity_precision, precision.uniform_precision
                    )
                });
                self.steps.say(&format!("epoch {epochs} of {}: loss {loss:.4}{found}", self.num_epochs));
            }
        }
    }
}

fn report(args: &TrainArgs, trained: &Trained) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let [first, last] = trained.losses;
    let mut rows = vec![
        vec!["steps".to_owned(), trained.steps.to_string()],
        vec!["loss of the first step".to_owned(), format!("{first:.4}")],
        vec!["loss of the last epoch".to_owned(), format!("{last:.4}")],
    ];
    if let Some(precision) = &trained.validation {
        rows.push(vec!["affinity precision".to_owned(), format!("{:.4}", precision.affinity_precision)]);
        rows.push(vec!["with equal weights".to_owned(), format!("{:.4}", precision.uniform_precision)]);
    }
    write!(out, "{}", table(&["", ""], &rows))?;
    for name in [crate::training::METRICS_FILE, crate::training::CURVE_FILE] {
        writeln!(out, "{}", args.output.join(name).display())?;
    }
    writeln!(out, "{}", trained.student.display())?;
    if let Some(name) = &args.install {
        let options = ImportOptions {
            name: Some(name.clone()),
            licence: Some("unstated".to_owned()),
            ..ImportOptions::default()
        };
        let registry = Registry::load(None)?;
        let imported = import(&Store::at_home()?, &registry, "student", &trained.student, &options, &mut |_, _| ())?;
        writeln!(out, "{}", imported.installed.path.display())?;
    }
    Ok(())
}
