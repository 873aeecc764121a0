//! `geopurify purify`: purifies features of a scan's points.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use glam::DMat3;
use serde_json::json;

use super::affinities::AffinityArgs;
use super::networks::open_session;
use super::outputs::check_folder;
use super::progress::Bars;
use super::say;
use super::shown::json_lines;
use super::table::{bytes, table};
use crate::counted::counted;
use crate::gpu::DeviceSelection;
use crate::pipeline::{Compat, Scene, voxel_size_for_purification};
use crate::purify::{FileFeatures, Purified, PurifyError, Settings};
use crate::session::{Network, NetworkChoice, Networks, SessionError};
use crate::stages::{StageTimer, peak_memory};
use crate::weights::SafetensorsFile;

/// Arguments of `purify`.
#[derive(clap::Args, Debug)]
pub(super) struct PurifyArgs {
    /// Scan in any format that `infer` reads
    scan: PathBuf,
    /// Features `[N, C]` of the scan's points, in the scan's order (safetensors)
    #[arg(long, value_name = "FILE")]
    features: PathBuf,
    /// Name of the tensor, if the file holds more than one
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Weights of the student: a .pth of the reference, safetensors, or a name in the store [default: the
    /// store's `student`, else the built-in `student-demo`]
    #[arg(long, value_name = "FILE|NAME")]
    student: Option<PathBuf>,
    /// Output file (safetensors): purified `features [V, C]`, `voxel_coords [V, 3]`, `voxel_from_point [N]`
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Edge length of a voxel, in the scan's unit [default: 2 cm, larger if most voxels would be alone]
    #[arg(long)]
    voxel: Option<f64>,
    /// Number of neighbours of each voxel, 1 to 128
    #[arg(long, default_value_t = Settings::default().neighbors)]
    neighbors: usize,
    /// Number of times that the affinities are applied
    #[arg(long, default_value_t = Settings::default().iterations)]
    iterations: usize,
    #[command(flatten)]
    affinities: AffinityArgs,
    /// Memory for temporary values, in MiB; it does not change the results
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    working_memory: u32,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PurifyArgs) -> Result<()> {
    check_folder(&args.output)?;
    let student = NetworkChoice { weights: args.student.clone(), config: None };
    let networks = Networks { student, ..Networks::default() };
    let affinities = args.affinities.kind().unwrap_or_default();
    let needed: &[Network] = if affinities.needs_student() { &[Network::Student] } else { &[] };
    let is_demo = !needed.is_empty() && networks.are_demo(needed);
    if !needed.is_empty() {
        // Missing weights are found before the work too.
        networks.with_demo(needed).open_student()?;
    }
    let session = open_session(args.device, networks, needed)?;
    let mut bars = Bars::new();
    let mut progress = |stage, share| bars.show(stage, share);
    let mut timer = StageTimer::with_progress(&mut progress);

    let scene = Scene::read(&args.scan)?;
    let file = SafetensorsFile::open(&args.features)?;
    let name = tensor_name(args, &file)?;
    let tensor = file.tensor(&name)?;
    if tensor.shape.first() != Some(&scene.cloud.len()) {
        bail!(
            "{}: '{name}' is {:?}, {} has {} points: one row per point is needed, in the scan's order{}",
            args.features.display(),
            tensor.shape,
            args.scan.display(),
            scene.cloud.len(),
            rows_of(&file)
        );
    }
    let features = FileFeatures::new(tensor, scene.kept())?;
    let choose = || voxel_size_for_purification(&scene.turned(DMat3::IDENTITY), Compat::Fixed);
    let (voxel_size, why) = args.voxel.map_or_else(choose, |voxel| (voxel, None));
    let settings = Settings {
        voxel_size,
        voxel_transform: None,
        neighbors: args.neighbors,
        sharpness: args.affinities.sharpness,
        iterations: args.iterations,
        working_bytes: args.working_memory as usize * (1 << 20),
    };
    let result = session.purify(&scene, &features, affinities, settings, &mut timer);
    let way_out = |error| with_way_out(error, is_demo, is_of_encode(&file));
    let mut purified = result.map_err(way_out).with_context(|| format!("purifying {}", args.scan.display()))?;
    purified.report.notes.extend(why);
    if scene.kept().is_some() {
        let dropped = scene.cloud.len() - scene.num_points();
        purified.report.notes.push(format!("{dropped} points are not finite or set aside: their voxel is -1"));
        purified.voxel_from_point = scene.for_all_points(purified.voxel_from_point, -1);
    }
    purified.write(&args.output, &settings)?;
    let seconds = timer.seconds();
    drop(timer);
    bars.finish();
    report(args, &purified, &session.device().name, seconds)
}

/// What the rows of a file are if they are not those of points.
fn rows_of(file: &SafetensorsFile) -> &'static str {
    let names = file.names();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has("cell_from_point") {
        "; these are features by cell, as `encode` writes them; write one row for each point with `encode --per-point`"
    } else if has("voxel_from_point") {
        "; these are features by voxel, as `infer` and `purify` write them; they are purified already"
    } else {
        ""
    }
}

/// True if `encode` wrote the file.
fn is_of_encode(file: &SafetensorsFile) -> bool {
    let about = file.metadata().and_then(|metadata| metadata.get("geopurify"));
    let about = about.and_then(|about| serde_json::from_str::<serde_json::Value>(about).ok());
    about.is_some_and(|about| ["scan", "voxel_size", "up"].iter().all(|key| about.get(key).is_some()))
        && !file.names().iter().any(|name| name == "voxel_from_point")
}

/// Adds to an error whose features the student takes.
fn with_way_out(error: SessionError, is_demo: bool, is_of_encode: bool) -> anyhow::Error {
    if !matches!(error, SessionError::Purify(PurifyError::ChannelCount { .. })) {
        return error.into();
    }
    let mut told = error.to_string();
    if is_of_encode {
        told += "; these are Sonata's features, as `encode` writes them, but a student takes those of the pictures; \
                 --affinities uniform takes any";
    } else if is_demo {
        told += "; this is the student of the built-in demo: name another with --student, or install the published \
                 one: geopurify weights import student geopurify.pth";
    }
    anyhow::anyhow!(told)
}

/// Returns the name of the tensor: the one asked for, else the file's only one, else `features`.
fn tensor_name(args: &PurifyArgs, file: &SafetensorsFile) -> Result<String> {
    if let Some(name) = &args.tensor {
        return Ok(name.clone());
    }
    let names = file.names();
    match names.as_slice() {
        [only] => Ok(only.clone()),
        _ if names.iter().any(|n| n == "features") => Ok("features".to_owned()),
        _ => bail!("{}: holds {names:?}; name one with --tensor", args.features.display()),
    }
}

fn report(args: &PurifyArgs, purified: &Purified, device: &str, seconds: f64) -> Result<()> {
    let report = &purified.report;
    let peak = peak_memory();
    let mut out = std::io::stdout().lock();
    if args.json {
        let json = json!({
            "scan": args.scan.to_string_lossy(), "output": args.output.to_string_lossy(), "device": device, "seconds": seconds,
            "voxel_size": purified.voxel_size, "peak_memory_bytes": peak, "report": report,
        });
        writeln!(out, "{}", json_lines(&json)?)?;
        return Ok(());
    }
    report.notes.iter().for_each(|note| say::note(note));
    let mut rows: Vec<Vec<String>> = report
        .stages
        .iter()
        .map(|s| {
            let rate = if s.seconds > 0.0 { s.bytes as f64 / s.seconds / 1e9 } else { 0.0 };
            let peak = s.peak_bytes.map_or(String::new(), bytes);
            vec![s.name.to_owned(), format!("{:.3}", s.seconds), bytes(s.bytes), format!("{rate:.2}"), peak]
        })
        .collect();
    let peak = peak.map_or(String::new(), bytes);
    rows.push(vec!["whole run".to_owned(), format!("{seconds:.3}"), String::new(), String::new(), peak]);
    if say::is_verbose() {
        write!(out, "{}", table(&["stage", "seconds", "moved", "GB/s", "peak memory"], &rows))?;
    }
    if say::is_verbose() {
        let tiles = counted(report.num_tiles, "tile");
        writeln!(out, "{tiles}; rows of A sum to 1 within {:.1e}", report.max_row_sum_error)?;
    }
    let (points, voxels) = (counted(report.num_points, "point"), counted(report.num_voxels, "voxel"));
    writeln!(out, "{points}, {voxels}")?;
    writeln!(out, "{}", args.output.display())?;
    Ok(())
}
