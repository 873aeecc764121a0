//! `geopurify query`: finds things by text in a scan that `infer` has labelled.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::networks::{ClipArgs, WayOut as _, XDecoderArgs, say_device};
use super::numbers::finite;
use super::outputs::check_folder;
use super::say;
use super::shown::json_lines;
use super::table::table;
use crate::gpu::DeviceSelection;
use crate::session::{Answer, Networks, Session, SessionError};
use crate::stages::StageTimer;

/// Arguments of `query`.
#[derive(clap::Args, Debug)]
pub(super) struct QueryArgs {
    /// Folder of results from `infer`
    results: PathBuf,
    /// Text to look for: "chair", or with published weights "something to sit on"
    question: String,
    /// Output file for the heat map (PLY); its picture goes beside it as PNG [default: in the folder, named
    /// after the question]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Lowest cosine that counts as found [default: what is nearer to the question than to the other words of
    /// the labelling and to the background]
    #[arg(long, value_name = "COSINE", value_parser = finite::<f32>, allow_negative_numbers = true)]
    level: Option<f32>,
    /// Number of places to list at most
    #[arg(long, value_name = "N", default_value_t = 5)]
    places: usize,
    #[command(flatten)]
    xdecoder: XDecoderArgs,
    #[command(flatten)]
    clip: ClipArgs,
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
        bail!("the question has no words: geopurify query DIR \"chair\"");
    }
    if let Some(output) = args.output.as_deref().filter(|path| path.extension().is_none_or(|e| e != "ply")) {
        bail!("{}: the heat map is a PLY file; end its name in .ply. Its picture goes beside it", output.display());
    }
    if let Some(output) = &args.output {
        check_folder(output)?;
    }
    let session = Session::with(args.device, Networks { clip: args.clip.choice(), ..args.xdecoder.networks() })?;
    say_device(session.device());
    let answer = match session.query_above(&args.results, &args.question, args.level, &mut timer) {
        Err(error @ SessionError::NoResults { .. }) => {
            return Err(error).context("give the folder that `geopurify infer` wrote");
        }
        Err(error @ SessionError::OtherWeights { .. }) => bail!("{error}; give those with --xdecoder or --clip"),
        answer => answer.or_configuration("--xdecoder-config")?,
    };
    answer.notes.iter().for_each(|note| say::note(note));
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
            "question": answer.question, "known": answer.known, "nearest": answer.nearest,
            "competing": answer.competing, "level": answer.level, "num_places": answer.places.len(), "places": shown,
            "cloud": cloud.to_string_lossy(), "picture": picture.to_string_lossy(), "best": answer.best(), "seconds": timer.seconds(),
            "stages": timer.stages(),
        });
        writeln!(out, "{}", json_lines(&report)?)?;
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
    writeln!(out, "{}; {:.2} s", told(&answer, args.level), timer.seconds())?;
    writeln!(out, "{}\n{}", cloud.display(), picture.display())?;
    Ok(())
}

/// What the places are, in a line.
fn told(answer: &Answer, level: Option<f32>) -> String {
    let Answer { question, known, competing, nearest, places, .. } = answer;
    let count = match places.len() {
        1 => "1 place".to_owned(),
        count => format!("{count} places"),
    };
    let others = match competing.as_slice() {
        [only] => format!("\"{only}\""),
        words => format!("{} other words", words.len()),
    };
    let found = match (level, nearest) {
        (Some(level), _) => format!("{count} with a cosine of {level:.3} or more"),
        (None, true) => format!("{count} nearer to \"{question}\" than to {others}"),
        (None, false) => format!(
            "nothing is nearer to \"{question}\" than to {others}; the {count} above are the most similar, with a cosine \
             of {:.3} or more",
            answer.level
        ),
    };
    if *known { found } else { format!("the model does not know \"{question}\", so this means little: {found}") }
}
