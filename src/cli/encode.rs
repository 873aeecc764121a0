//! `geopurify encode`: computes Sonata's features for the points of a scan.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use glam::DVec3;
use serde_json::json;

use super::networks::{WayOut as _, open_session};
use super::numbers::length;
use super::outputs::check_folder;
use super::progress::Bars;
use super::say;
use super::shown::json_lines;
use super::table::stage_table;
use super::viewing::UpArg;
use crate::cloud::{Field, write_with_fields};
use crate::gpu::DeviceSelection;
use crate::images::write_png;
use crate::pipeline::{Encoding, HeatViews, Scene};
use crate::session::{Encoded, Network, NetworkChoice, Networks};
use crate::stages::{Stage, StageTimer, peak_memory};
use crate::weights::Dtype;

/// Arguments of `encode`.
#[derive(clap::Args, Debug)]
pub(super) struct EncodeArgs {
    /// Scan in any format that `infer` reads
    scan: PathBuf,
    /// Output file (safetensors): `features [M, C]` for each cell, `cell_from_point [N]` (-1 for points
    /// without a position), `cells [M, 3]`. The features of a point are `features[cell_from_point]`
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write `features [N, C]` instead, one row for each point
    #[arg(long)]
    per_point: bool,
    /// Write the features as 32-bit floats instead of 16-bit
    #[arg(long)]
    f32: bool,
    /// Also draw the features as colours, from their three principal components (PNG)
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Also write the scan in these colours, as PLY, or as LAS or LAZ if the scan is in that format
    #[arg(long, value_name = "FILE")]
    colored: Option<PathBuf>,
    /// Weights of Sonata or Concerto: the published .pth, safetensors, or a name in the store [default: the
    /// store's `sonata`, else the built-in `sonata-demo`]
    #[arg(long = "teacher", aliases = ["sonata", "weights"], value_name = "FILE|NAME")]
    weights: Option<PathBuf>,
    /// Sonata's configuration (JSON), if neither the file nor its shapes determine it
    #[arg(long = "teacher-config", alias = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Edge length of a voxel, in the scan's unit [default: 2 cm, larger if the points are farther apart]
    #[arg(long, value_parser = length)]
    voxel: Option<f64>,
    /// Direction that points up, if the scan does not tell
    #[arg(long, value_enum, value_name = "AXIS", allow_hyphen_values = true)]
    up: Option<UpArg>,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &EncodeArgs) -> Result<()> {
    check(args)?;
    let sonata = NetworkChoice { weights: args.weights.clone(), config: args.config.clone() };
    let networks = Networks { sonata, ..Networks::default() };
    let session = open_session(args.device, networks, &[Network::Sonata])?;
    let mut bars = Bars::new();
    let mut progress = |stage, share| bars.show(stage, share);
    let mut timer = StageTimer::with_progress(&mut progress);
    let scene = Scene::read(&args.scan)?;
    timer.lap("read scan");
    let up = args.up.map(DVec3::from);
    let encoded = session.encode(&scene, args.voxel, up, &mut timer).or_configuration();
    let Encoded { encoding, voxel_size, up, mut notes } =
        encoded.with_context(|| format!("encoding {}", args.scan.display()))?;

    timer.progress("write", 0.0);
    let about = json!({ "scan": args.scan.to_string_lossy(), "voxel_size": voxel_size, "up": up.to_array() });
    let cell_from_point = scene.for_all_points(encoding.cell_from_point.clone(), -1);
    let dtype = if args.f32 { Dtype::F32 } else { Dtype::F16 };
    let write = if args.per_point { Encoding::write_points } else { Encoding::write_cells };
    write(&encoding, &args.output, &cell_from_point, dtype, &about.to_string())?;
    timer.lap("write");
    let mut files = vec![args.output.as_path()];
    if args.picture.is_some() || args.colored.is_some() {
        timer.progress("components", 0.0);
        let colors = encoding.colors();
        timer.lap("components");
        if let Some(path) = &args.colored {
            let all = scene.for_all_points(colors.clone(), [0; 3]);
            notes.extend(write_with_fields(&args.scan, path, &Field::colors(&all))?);
            files.push(path);
            timer.lap("write");
        }
        if let Some(path) = &args.picture {
            timer.progress("draw", 0.0);
            let caption = format!("{} points in {} cells; principal components", colors.len(), encoding.cells.len());
            let device = &session.device().device;
            let picture = HeatViews::new(&scene, up, device)?.beside_scan(&colors, "features", &caption)?;
            write_png(path, &picture)?;
            files.push(path);
            timer.lap("draw");
        }
    }
    let (stages, seconds) = (timer.stages().to_vec(), timer.seconds());
    drop(timer);
    bars.finish();
    let run = Run { device: &session.device().name, notes: &notes, stages: &stages, seconds, files: &files };
    report(args, &encoding, &run)
}

/// Results of a run, for its report.
struct Run<'a> {
    device: &'a str,
    notes: &'a [String],
    stages: &'a [Stage],
    seconds: f64,
    files: &'a [&'a Path],
}

/// Finds faults of the arguments before the run, so that they do not cost one.
fn check(args: &EncodeArgs) -> Result<()> {
    let outputs = [Some(&args.output), args.picture.as_ref(), args.colored.as_ref()];
    let mut taken = vec![(args.scan.canonicalize().unwrap_or_else(|_| args.scan.clone()), "the scan")];
    for output in outputs.into_iter().flatten() {
        check_folder(output)?;
        let path = output.canonicalize().unwrap_or_else(|_| output.clone());
        if let Some((_, what)) = taken.iter().find(|(other, _)| *other == path) {
            bail!("{}: this would replace {what}", output.display());
        }
        taken.push((path, "another result of this run"));
    }
    if let Some(path) = &args.colored {
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        if !matches!(extension.as_str(), "ply" | "las" | "laz") {
            bail!("{}: the coloured scan is PLY, LAS or LAZ; end its name in .ply, .las or .laz", path.display());
        }
    }
    if let Some(voxel) = args.voxel.filter(|voxel| !(voxel.is_finite() && *voxel > 0.0)) {
        bail!("--voxel is {voxel}, expected a length above 0");
    }
    Ok(())
}

fn report(args: &EncodeArgs, encoding: &Encoding, run: &Run<'_>) -> Result<()> {
    let Run { device, notes, stages, seconds, files } = *run;
    let peak = peak_memory();
    let (points, cells, voxels) = (encoding.cell_from_point.len(), encoding.cells.len(), encoding.num_voxels);
    let mut out = std::io::stdout().lock();
    if args.json {
        let files: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
        let json = json!({
            "scan": args.scan.to_string_lossy(), "files": files, "device": device, "points": points, "voxels": voxels, "cells": cells,
            "channels": encoding.num_channels, "notes": notes, "stages": stages, "seconds": seconds,
            "peak_memory_bytes": peak,
        });
        writeln!(out, "{}", json_lines(&json)?)?;
        return Ok(());
    }
    notes.iter().for_each(|note| say::note(note));
    if say::is_verbose() {
        write!(out, "{}", stage_table(stages, seconds, peak))?;
    }
    let channels = encoding.num_channels;
    writeln!(out, "{points} points, {voxels} voxels, {cells} cells of {channels} channels, {seconds:.1} s")?;
    for file in files {
        writeln!(out, "{}", file.display())?;
    }
    Ok(())
}
