//! `geopurify reproduce`: measures the paper's tables, with its own figures beside ours.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::cache::CacheArgs;
use super::networks::{ClipArgs, LSegArgs, TeacherArgs, XDecoderArgs, open_session};
use super::outputs::check_writable;
use super::progress::Bars;
use super::say;
use super::shown::{json_line, plain};
use super::table::table;
use super::viewing::ViewingArgs;
use crate::distill::{self, Config, Recipe};
use crate::gpu::DeviceSelection;
use crate::labels::Preset;
use crate::pretrain::openscene::LiftedSettings;
use crate::reproduce::{
    DataFolder, Given, ReproduceError, ReproduceReport, ReproduceSettings, Table, TableSettings, files_of, plan,
    reproduce,
};
use crate::session::{Network, NetworkChoice, Networks};

/// Arguments of `reproduce`.
#[derive(clap::Args, Debug)]
pub(super) struct ReproduceArgs {
    /// Table: main (the method beside others), transfer (trained on one data set, measured on the other), ablation
    /// (T, negatives, training scenes), backbone (X-Decoder and LSeg, without and with GeoPurify)
    #[arg(value_name = "TABLE")]
    table: Table,
    /// Folder of ScanNet: with train and test or val, as `prepare` and `synth` write them, or as downloaded
    #[arg(long, value_name = "DIR")]
    scannet: Option<PathBuf>,
    /// Folder of Matterport3D, likewise
    #[arg(long, value_name = "DIR")]
    matterport: Option<PathBuf>,
    /// Folder for the steps and the tables. Finished steps in it are not repeated; several tables may share it
    #[arg(short, long, value_name = "REPORT")]
    output: PathBuf,
    /// List of the scenes of ScanNet to learn from, as `select` writes it [default: those of train; without parts,
    /// those that are not in ScanNet's validation]
    #[arg(long, value_name = "LIST", requires = "scannet")]
    scannet_training: Option<PathBuf>,
    /// List of the scenes of Matterport3D to learn from [default: those of train]
    #[arg(long, value_name = "LIST", requires = "matterport")]
    matterport_training: Option<PathBuf>,
    /// Classes of ScanNet
    #[arg(long, value_name = "NAME", default_value = "scannet20")]
    scannet_preset: Preset,
    /// Classes of Matterport3D
    #[arg(long, value_name = "NAME", default_value = "matterport21")]
    matterport_preset: Preset,
    /// Numbers of training scenes in the ablation
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = TableSettings::default().scenes)]
    scenes: Vec<usize>,
    /// Number of training scenes in all other rows
    #[arg(long, value_name = "N", default_value_t = TableSettings::default().usual_scenes)]
    usual_scenes: usize,
    /// Values of T in the ablation, the paper's number of iterations: affinities are applied T + 1 times
    #[arg(long, value_name = "T,..", value_delimiter = ',', default_values_t = TableSettings::default().iterations)]
    iterations: Vec<usize>,
    /// Number of scenes of a data set to measure at most [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    test_scenes: Option<u32>,
    /// Settings of the students' training: paper, reference, reference-matterport80 or reference-matterport160
    /// [default: those of --config, else paper]
    #[arg(long, value_name = "NAME")]
    recipe: Option<Recipe>,
    /// Settings of the students' training that differ from the usual ones (TOML), in the form that `train` takes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Number of epochs of a student, instead of that in the settings
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Settings of the 3D networks' training that differ from the usual ones (TOML), in the form that `train --method
    /// openscene` takes
    #[arg(long, value_name = "FILE")]
    network_config: Option<PathBuf>,
    /// Number of steps of a 3D network's training, instead of that in the settings
    #[arg(long, value_name = "N")]
    network_steps: Option<u64>,
    /// Seed of every random choice, instead of that in the settings
    #[arg(long)]
    seed: Option<u64>,
    /// Memory limit of a student's step, in MiB; scenes that need more are cropped [default: that of the first run in
    /// REPORT, which took three quarters of the free memory, 8192 on a GPU]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    max_memory: Option<u64>,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    viewing: ViewingArgs,
    #[command(flatten)]
    teacher: TeacherArgs,
    #[command(flatten)]
    xdecoder: XDecoderArgs,
    #[command(flatten)]
    lseg: LSegArgs,
    /// Weights of the student in the row of the installed one: a .pth of the reference, safetensors, or a name in the
    /// store [default: the store's `student`, else the built-in `student-demo`]
    #[arg(long, value_name = "FILE|NAME")]
    student: Option<PathBuf>,
    /// OpenScene's published 3D network for ScanNet: its checkpoint, safetensors, or a name in the store [default: the
    /// store's `openscene`]
    #[arg(long, value_name = "FILE|NAME")]
    openscene: Option<PathBuf>,
    /// OpenScene's published 3D network for Matterport3D, likewise [default: the store's `openscene-matterport`]
    #[arg(long, value_name = "FILE|NAME")]
    openscene_matterport: Option<PathBuf>,
    /// CUA-O3D's published 3D network, likewise [default: the store's `cua-o3d`]
    #[arg(long, value_name = "FILE|NAME")]
    cua: Option<PathBuf>,
    #[command(flatten)]
    clip: ClipArgs,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
    /// Check everything, print the steps and what rows lack, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReproduceArgs) -> Result<ExitCode> {
    check_writable(&args.output)?;
    let settings = settings(args)?;
    if args.dry_run {
        let planned = plan(&args.output, args.table, &settings).map_err(with_way_out)?;
        let mut out = std::io::stdout().lock();
        for step in &planned.steps {
            let what = if step.is_done { "finished" } else { "would do" };
            writeln!(out, "{what}: {}", step.name)?;
        }
        for (name, lacks) in &planned.lacking {
            writeln!(out, "lacks: {name}: {}", plain(&lacks.join("; ")))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    // Says the device and whether the demo is used.
    open_session(args.device, settings.given.networks.clone(), &[Network::XDecoder, Network::Sonata])?;
    let bars = RefCell::new(Bars::new());
    let report = reproduce(
        &args.output,
        args.table,
        &settings,
        &mut |stage, share| bars.borrow_mut().show(stage, share),
        &mut |line| bars.borrow_mut().say(line),
    );
    bars.borrow_mut().finish();
    let report = report.map_err(with_way_out)?;
    print(args, &report)?;
    Ok(if report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Adds to an error what helps.
fn with_way_out(error: ReproduceError) -> anyhow::Error {
    match error {
        ReproduceError::Differs { .. } => {
            anyhow::anyhow!("{error}; give the settings of the first run, or another folder with -o")
        }
        other => other.into(),
    }
}

fn settings(args: &ReproduceArgs) -> Result<ReproduceSettings> {
    let data = |folder: &Option<PathBuf>, training: &Option<PathBuf>, preset: Preset| {
        folder.as_ref().map(|folder| DataFolder { folder: folder.clone(), training: training.clone(), preset })
    };
    let networks = Networks {
        lseg: args.lseg.choice(),
        sonata: args.teacher.choice(),
        student: NetworkChoice { weights: args.student.clone(), config: None },
        clip: args.clip.choice(),
        ..args.xdecoder.networks()
    };
    Ok(ReproduceSettings {
        data: [
            data(&args.scannet, &args.scannet_training, args.scannet_preset),
            data(&args.matterport, &args.matterport_training, args.matterport_preset),
        ],
        tables: TableSettings {
            scenes: args.scenes.clone(),
            usual_scenes: args.usual_scenes,
            iterations: args.iterations.clone(),
            ..TableSettings::default()
        },
        training: training(args)?,
        network: network(args)?,
        views: args.viewing.settings(),
        max_memory: args.max_memory.map(|mib| mib << 20),
        most_measured: args.test_scenes.map(|count| count as usize),
        given: Given {
            networks,
            openscene: [args.openscene.clone(), args.openscene_matterport.clone()],
            cua: args.cua.clone(),
        },
        cache: args.cache.folder()?,
        device: args.device,
    })
}

fn read(path: &PathBuf) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Settings of the students' training.
fn training(args: &ReproduceArgs) -> Result<distill::Config> {
    let mut config = match &args.config {
        Some(path) => Config::parse(&read(path)?, args.recipe).with_context(|| path.display().to_string())?,
        None => Config::of(args.recipe.unwrap_or_default()),
    };
    if let Some(epochs) = args.epochs {
        config = config.with_epochs(epochs);
    }
    config.seed = args.seed.unwrap_or(config.seed);
    Ok(config)
}

/// Settings of the 3D networks' training.
fn network(args: &ReproduceArgs) -> Result<LiftedSettings> {
    let mut settings = match &args.network_config {
        Some(path) => LiftedSettings::parse(&read(path)?).with_context(|| path.display().to_string())?,
        None => LiftedSettings::default(),
    };
    let training = &mut settings.training;
    training.steps = args.network_steps.unwrap_or(training.steps);
    training.seed = args.seed.unwrap_or(training.seed);
    Ok(settings)
}

fn print(args: &ReproduceArgs, report: &ReproduceReport) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json_line(report)?)?;
        return Ok(());
    }
    let percent = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), |share| format!("{:.2}", 100.0 * share));
    let published = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            vec![
                row.group.clone(),
                row.name.clone(),
                percent(row.figures.and_then(|figures| figures.mean_iou)),
                percent(row.figures.and_then(|figures| figures.mean_accuracy)),
                published(row.published.and_then(|published| published.mean_iou)),
                published(row.published.and_then(|published| published.mean_accuracy)),
            ]
        })
        .collect();
    write!(out, "{}", table(&["", "", "mIoU", "mAcc", "published mIoU", "mAcc"], &rows))?;
    for row in &report.rows {
        for scene in &row.failed {
            writeln!(out, "failed: {}: {}", row.name, plain(scene))?;
        }
    }
    let lacking = report.rows.iter().filter(|row| !row.lacks.is_empty()).count();
    if lacking > 0 {
        say::line(&format!("{lacking} rows lack something: {} says what to get", files_of(args.table)[1]));
    }
    if report.made_rooms {
        say::line("these are made rooms: the figures cannot be compared with the published ones");
    }
    for name in files_of(args.table) {
        writeln!(out, "{}", args.output.join(name).display())?;
    }
    Ok(())
}
