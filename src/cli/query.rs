//! `geopurify query`: finds things by text in a scan that `infer` has labelled.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::networks::{WayOut as _, XDecoderArgs};
use super::numbers::finite;
use super::shown::plain;
use super::table::table;
use crate::gpu::DeviceSelection;
use crate::session::{Session, SessionError};
use crate::stages::StageTimer;

/// Arguments of `query`.
#[derive(clap::Args, Debug)]
pub(super) struct QueryArgs {
    /// Folder of results from `infer`
    results: PathBuf,
    /// Text to look for: "something to sit on"
    question: String,
    /// Output file for the heat map (PLY); its picture goes beside it as PNG [default: in the folder, named
    /// after the question]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Lowest cosine that counts as found [default: halfway from the median to the best]
    #[arg(long, value_name = "COSINE", value_parser = finite::<f32>, allow_negative_numbers = true)]
    level: Option<f32>,
    /// Number of places to list at most
    #[arg(long, value_name = "N", default_value_t = 5)]
    places: usize,
    #[command(flatten)]
    xdecoder: XDecoderArgs,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
    /// Print the places as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &QueryArgs) -> Result<()> {
    let mut timer = StageTimer::default();
    if args.question.trim().is_empty() {
        bail!("the question has no words: geopurify query DIR \"something to sit on\"");
    }
    if let Some(output) = args.output.as_deref().filter(|path| path.extension().is_none_or(|e| e != "ply")) {
        bail!("{}: the heat map is a PLY file; end its name in .ply. Its picture goes beside it", output.display());
    }
    let session = Session::with(args.device, args.xdecoder.networks())?;
    eprintln!("device: {} ({})", session.device().name, session.device().why);
    let answer = match session.query_above(&args.results, &args.question, args.level, &mut timer) {
        Err(error @ SessionError::NoResults { .. }) => {
            return Err(error).context("give the folder that `geopurify infer` wrote");
        }
        Err(error @ SessionError::OtherWeights { .. }) => bail!("{error}; give those with --xdecoder"),
        answer => answer.or_configuration("--xdecoder-config")?,
    };
    for note in &answer.notes {
        eprintln!("note: {}", plain(note));
    }
    let cloud = args.output.clone().unwrap_or_else(|| args.results.join(format!("query-{}.ply", answer.slug())));
    let picture = cloud.with_extension("png");
    answer.write_cloud(&cloud)?;
    timer.lap("write");
    answer.write_picture(&picture)?;
    timer.lap("draw");

    let mut out = std::io::stdout().lock();
    let shown = &answer.places[..answer.places.len().min(args.places)];
    if args.json {
        let report = json!({
            "question": answer.question, "level": answer.level, "places": shown,
            "cloud": cloud.to_string_lossy(), "picture": picture.to_string_lossy(),
            "best": answer.best(), "seconds": timer.seconds(), "stages": timer.stages(),
        });
        writeln!(out, "{report:#}")?;
        return Ok(());
    }
    let position = |p: [f64; 3]| format!("{:.2} {:.2} {:.2}", p[0], p[1], p[2]);
    let rows: Vec<_> = (1..)
        .zip(shown)
        .map(|(i, region)| {
            let size = std::array::from_fn(|axis| region.high[axis] - region.low[axis]);
            vec![
                i.to_string(),
                position(region.center),
                position(size),
                region.num_voxels.to_string(),
                format!("{:.3}", region.best),
            ]
        })
        .collect();
    write!(out, "{}", table(&["place", "centre", "size", "voxels", "best"], &rows))?;
    let (places, level) = (answer.places.len(), answer.level);
    writeln!(out, "{places} places with a cosine of {level:.3} or more; {:.2} s", timer.seconds())?;
    writeln!(out, "{}\n{}", cloud.display(), picture.display())?;
    Ok(())
}
