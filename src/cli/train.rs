//! `geopurify train`: trains a student from scans and recordings, without labels.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::networks::{TeacherArgs, XDecoderArgs, open_session};
use super::progress::{Bars, StepBar};
use super::shown::plain;
use super::table::table;
use super::told_once;
use super::viewing::ViewingArgs;
use super::words::words;
use crate::distill::{
    Config, DistillError, Event, PrepareSettings, Preparer, Preset, RunOptions, SceneFile, Scenes, Trained,
    read_config, read_scenes, train,
};
use crate::gpu::{DeviceSelection, Selected};
use crate::labels::Preset as Words;
use crate::models::import::{ImportOptions, import};
use crate::pipeline::Compat;
use crate::session::{Network, Networks, SCAN_EXTENSIONS, Session, SessionError, Source};
use crate::stages::available_memory;
use crate::weights::is_name;
use crate::weights::registry::Registry;
use crate::weights::store::Store;

/// Benchmark whose words cut the views into masks if none are given.
const USUAL_WORDS: &str = "scannet20";
/// Number of levels below the list's folder in which its entries are looked for.
const LIST_DEPTH: usize = 3;
/// Memory for a step on a GPU, or if the free memory is unknown, in MiB.
const USUAL_MEMORY: u64 = 8192;

/// Arguments of `train`.
#[derive(clap::Args, Debug)]
pub(super) struct TrainArgs {
    /// Scenes to learn from: a folder of scans and recordings, or a list with one entry per line. An entry is
    /// a scan, a recording, or a scan, a tab, and its recording
    #[arg(long, value_name = "LIST|DIR", required_unless_present = "resume")]
    scenes: Option<PathBuf>,
    /// Validation scenes, given in the same way; the student does not learn from them
    #[arg(long, value_name = "LIST|DIR", requires = "scenes")]
    validation: Option<PathBuf>,
    /// Folder that holds the entries of a list [default: the list's own folder]
    #[arg(long, value_name = "DIR", requires = "scenes")]
    data: Option<PathBuf>,
    /// Folder for weights, checkpoints and logs
    #[arg(short, long, value_name = "RUN")]
    output: PathBuf,
    /// Preset of settings: paper or reference [default: that of --config, else paper]
    #[arg(long, value_name = "NAME")]
    preset: Option<Preset>,
    /// Settings that differ from the preset (TOML), in the form of RUN/config.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Number of epochs, instead of that in the settings
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Seed of every random choice, instead of that in the settings
    #[arg(long)]
    seed: Option<u64>,
    /// Continue from the run's last checkpoint
    #[arg(long)]
    resume: bool,
    /// Number of checkpoints to keep [default: 3; when resuming, that of the first start]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_last: Option<u32>,
    /// Number of epochs between validations [default: 1; when resuming, that of the first start]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    validate_every: Option<u32>,
    /// Memory limit of a step, in MiB; scenes that need more are cropped [default: three quarters of the free
    /// memory, 8192 on a GPU; when resuming, the limit of the first start]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    max_memory: Option<u64>,
    /// Folder for values that are computed once per scene [default: geopurify/training in the user's cache
    /// folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Leave out scenes that cannot be prepared, instead of stopping
    #[arg(long)]
    skip_failed: bool,
    /// Words that cut the views into masks, separated by commas
    #[arg(long, value_name = "WORDS", conflicts_with = "word_preset")]
    words: Vec<String>,
    /// Benchmark whose words cut the views into masks [default: scannet20]
    #[arg(long, value_name = "NAME")]
    word_preset: Option<Words>,
    /// Install the trained weights in the store under this name
    #[arg(long, value_name = "NAME")]
    install: Option<String>,
    #[command(flatten)]
    viewing: ViewingArgs,
    #[command(flatten)]
    teacher: TeacherArgs,
    #[command(flatten)]
    xdecoder: XDecoderArgs,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
}

pub(super) fn run(args: &TrainArgs) -> Result<()> {
    let config = config(args)?;
    if let Some(name) = args.install.as_deref().filter(|name| !is_name(name)) {
        bail!("--install {name}: a name in the store has letters, digits, '-', '_' and '.'");
    }
    let needed: &[Network] = if args.scenes.is_some() { &[Network::XDecoder, Network::Sonata] } else { &[] };
    let networks = Networks { sonata: args.teacher.choice(), ..args.xdecoder.networks() };
    let session = open_session(args.device, networks, needed)?;
    let selected = session.device();
    let scenes = match &args.scenes {
        Some(scenes) => prepare_all(args, &config, scenes, &session)?,
        None => scenes_of(&args.output)?,
    };
    if scenes.training.is_empty() {
        bail!("no scene to learn from");
    }
    let max_memory = args.max_memory.unwrap_or_else(|| usual_memory(selected));
    let options = RunOptions {
        resume: args.resume,
        keep_last: args.keep_last.map(|count| count as usize),
        validate_every: args.validate_every.map(|epochs| epochs as usize),
        max_memory: max_memory << 20,
        keep_max_memory: args.max_memory.is_none(),
        device_name: selected.name.clone(),
    };
    eprintln!(
        "{} scenes to learn from, {} to validate on; {} epochs",
        scenes.training.len(),
        scenes.validation.len(),
        config.epochs
    );
    if args.max_memory.is_none() && !args.resume {
        eprintln!("a step may take {max_memory} MiB (--max-memory); scenes that need more are cropped to fit");
    }
    if config.preset == Preset::Reference && args.viewing.settings().compat == Compat::Fixed {
        eprintln!(
            "note: the scenes are prepared with --compat fixed; --compat reference prepares them as published too"
        );
    }
    let mut shown = Shown::new(&scenes, &config);
    let trained = train(&args.output, &config, &scenes, &options, &selected.device, &mut |event| shown.show(&event))?;
    drop(shown);
    report(args, &trained)
}

/// Returns the scenes of a run, if their prepared files still exist.
fn scenes_of(run: &Path) -> Result<Scenes> {
    let scenes = read_scenes(run).context("--resume continues a run, which must have been started")?;
    if let Some(gone) = scenes.training.iter().chain(&scenes.validation).find(|scene| !scene.path.is_file()) {
        bail!(
            "{}: the prepared scene {} no longer exists; give --scenes again to prepare it anew",
            gone.name,
            gone.path.display()
        );
    }
    Ok(scenes)
}

/// Default memory limit of a step, in MiB: three quarters of the host's free memory. The free memory of a GPU
/// is unknown.
fn usual_memory(selected: &Selected) -> u64 {
    match available_memory() {
        Some(bytes) if selected.adapter.is_none() => (bytes / 4 * 3) >> 20,
        _ => USUAL_MEMORY,
    }
}

/// Returns the settings. A resumed run keeps its own unless others are given.
fn config(args: &TrainArgs) -> Result<Config> {
    let mut config = match (&args.config, args.preset) {
        (Some(path), preset) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Config::parse(&text, preset).with_context(|| path.display().to_string())?
        }
        (None, None) if args.resume && args.output.join(crate::distill::CONFIG_FILE).exists() => {
            read_config(&args.output)?
        }
        (None, preset) => Config::of(preset.unwrap_or_default()),
    };
    if let Some(epochs) = args.epochs {
        config.epochs = epochs;
        config.warmup_epochs = config.warmup_epochs.min(epochs.saturating_sub(1));
    }
    config.seed = args.seed.unwrap_or(config.seed);
    config.validate()?;
    Ok(config)
}

/// Prepares all scenes that are not in the cache yet.
fn prepare_all(args: &TrainArgs, config: &Config, scenes: &Path, session: &Session) -> Result<Scenes> {
    let training = sources(scenes, args)?;
    let validation = args.validation.as_deref().map_or(Ok(Vec::new()), |path| sources(path, args))?;
    let words = if args.words.is_empty() { words_of(args.word_preset)? } else { words(&args.words)? };
    let prepare = PrepareSettings {
        views: args.viewing.settings(),
        networks: session.networks().clone(),
        words,
        cache: cache_folder(args.cache.as_deref())?,
    };
    let mut say = |line: &str| eprintln!("{}", plain(line));
    let mut preparer = Preparer::new(&prepare, config, session.device(), &mut say)?;
    let mut failed = Vec::new();
    let mut bars = Bars::new();
    let mut prepare = |sources: &[Source]| -> Result<Vec<SceneFile>> {
        let mut files = Vec::new();
        for source in sources {
            let prepared = preparer.prepare(source, &mut |stage, share| bars.show(stage, share));
            bars.finish();
            match prepared.map_err(with_way_out) {
                Ok(prepared) => files.extend(prepared),
                // The other scenes are prepared all the same, and stay in the cache.
                Err(error) => {
                    eprintln!("error: {}: {}", plain(&source.path().to_string_lossy()), told_once(&error));
                    failed.push(source.path().display().to_string());
                }
            }
        }
        Ok(files)
    };
    let scenes = Scenes { training: prepare(&training)?, validation: prepare(&validation)? };
    failed.extend_from_slice(preparer.failed());
    if let Some(both) = scenes.validation.iter().find(|held| scenes.training.iter().any(|scene| scene.key == held.key))
    {
        bail!("{}: a scene to learn from cannot be one to validate on", both.name);
    }
    if !failed.is_empty() && !args.skip_failed {
        bail!("{} scenes could not be prepared: {}; --skip-failed leaves them out", failed.len(), failed.join(", "));
    }
    Ok(scenes)
}

/// Returns the scans and recordings that a folder or a list names.
fn sources(path: &Path, args: &TrainArgs) -> Result<Vec<Source>> {
    let layout = args.viewing.settings().layout;
    if path.is_file() && !is_list(path) {
        return Ok(Source::at(path, layout)?);
    }
    if path.is_file() {
        return list(path, args);
    }
    // A recording, or a folder of scans, or else a folder of recordings.
    let own = Source::at(path, layout);
    let children = || -> Result<Vec<Source>> {
        let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
        let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        folders.retain(|path| path.is_dir());
        folders.sort();
        let mut sources = Vec::new();
        for folder in folders {
            match Source::at(&folder, layout) {
                Ok(found) => sources.extend(found),
                Err(error) => eprintln!("note: left out: {}", plain(&error.to_string())),
            }
        }
        Ok(sources)
    };
    match own {
        Ok(sources) if sources.iter().any(|source| matches!(source, Source::Recording(_))) => Ok(sources),
        Ok(mut sources) => {
            sources.extend(children()?);
            Ok(sources)
        }
        Err(error) => match children()? {
            none if none.is_empty() => Err(error.into()),
            sources => Ok(sources),
        },
    }
}

/// Adds to an error the option that takes the missing configuration.
fn with_way_out(error: DistillError) -> anyhow::Error {
    let option = match &error {
        DistillError::Session(session) => match **session {
            SessionError::NeedsConfiguration { model: "sonata", .. } => "--teacher-config",
            SessionError::NeedsConfiguration { .. } => "--xdecoder-config",
            _ => return error.into(),
        },
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(format!("give the model's configuration with {option} FILE.json"))
}

fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "txt" || extension == "tsv" || extension == "list")
}

/// Returns the scenes of a list. Entries are paths, or names without extension as `select` writes them.
fn list(path: &Path, args: &TrainArgs) -> Result<Vec<Source>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let folder = args.data.as_deref().or(path.parent()).unwrap_or(Path::new("."));
    let mut sources = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with("scene\t") {
            continue;
        }
        let named = folder.join(line.split('\t').next().unwrap_or_default().trim());
        // In a table from `select`, the second column is a score.
        let second = line.split('\t').nth(1).map(str::trim).filter(|column| column.parse::<f64>().is_err());
        let recording = second.filter(|column| !column.is_empty()).map(|column| folder.join(column));
        if let Some(missing) = recording.as_ref().filter(|recording| !recording.exists()) {
            bail!("{}, line {}: the recording {} does not exist", path.display(), number + 1, missing.display());
        }
        let Some(scan) = with_extension(&named).or_else(|| below(folder, &named)) else {
            bail!(
                "{}, line {}: {} does not exist; --data DIR says where the entries are",
                path.display(),
                number + 1,
                named.display()
            );
        };
        match recording {
            Some(recording) => sources.push(Source::ScanInRecording { scan, recording }),
            None => sources.extend(Source::at(&scan, args.viewing.settings().layout)?),
        }
    }
    if sources.is_empty() {
        bail!("{}: the list names no scene", path.display());
    }
    Ok(sources)
}

/// Returns `named` if it exists, else the scan of this name with an extension.
fn with_extension(named: &Path) -> Option<PathBuf> {
    let extended = SCAN_EXTENSIONS.iter().map(|extension| {
        let mut name = named.as_os_str().to_owned();
        name.push(format!(".{extension}"));
        PathBuf::from(name)
    });
    std::iter::once(named.to_path_buf()).chain(extended).find(|path| path.exists())
}

/// Looks for the scan `named` in the folders below `folder`: ScanNet has a folder for each scan.
fn below(folder: &Path, named: &Path) -> Option<PathBuf> {
    let name = named.file_name()?;
    let mut folders = vec![folder.to_path_buf()];
    for _ in 0..LIST_DEPTH {
        let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        folders = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
        folders.sort();
        if let Some(found) =
            folders.iter().find_map(|folder| with_extension(&folder.join(name)).filter(|p| p.is_file()))
        {
            return Some(found);
        }
    }
    None
}

/// Returns the words of a benchmark that cut the views into masks; those of the default benchmark if none is
/// named.
pub(super) fn words_of(preset: Option<Words>) -> Result<Vec<String>> {
    let preset = preset.map_or_else(|| USUAL_WORDS.parse(), Ok)?;
    Ok(preset.labels.iter().map(|&label| label.to_owned()).collect())
}

/// Returns the folder for prepared scenes, and makes it if it does not exist.
pub(super) fn cache_folder(given: Option<&Path>) -> Result<PathBuf> {
    let folder = match given {
        Some(folder) => folder.to_path_buf(),
        None => dirs::cache_dir()
            .context("this user has no cache folder; name one with --cache DIR")?
            .join("geopurify/training"),
    };
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    // A run's list of scenes must find the files from any folder. The list is JSON, whose text is UTF-8.
    let folder = std::path::absolute(&folder).with_context(|| folder.display().to_string())?;
    if folder.to_str().is_none() {
        bail!("{}: the path of the cache must be UTF-8; name another folder with --cache DIR", folder.display());
    }
    Ok(folder)
}

/// Shows the run on standard error: a bar on a terminal, else a line per epoch.
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
                self.steps.bar.set_position(report.step as u64);
                self.steps.bar.set_message(format!(
                    "loss {:.4}  rate {:.2e}  {:.1} s a step  {} left",
                    report.loss,
                    report.learning_rate,
                    report.seconds,
                    duration(*remaining)
                ));
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

/// Formats seconds as hours, minutes and seconds.
fn duration(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min {:02} s", seconds % 60),
        (hours, minutes) => format!("{hours} h {minutes:02} min"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_for_people() {
        assert_eq!(duration(59.9), "59 s");
        assert_eq!(duration(61.0), "1 min 01 s");
        assert_eq!(duration(7322.0), "2 h 02 min");
        assert_eq!(duration(f64::NAN), "0 s");
    }
}
