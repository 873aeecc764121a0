//! `geopurify query`: finds things by text in a scan that `infer` has labelled.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::infer::beside;
use super::networks::{ClipArgs, LSegArgs, WayOut as _, XDecoderArgs, say_device};
use super::numbers::finite;
use super::outputs::check_folder;
use super::say;
use super::shown::json_lines;
use super::table::table;
use crate::cloud::recognise;
use crate::counted::counted;
use crate::gpu::DeviceSelection;
use crate::query::saved::FILE_NAME;
use crate::session::{Answer, Networks, Session, SessionError, is_results, scenes_at};
use crate::stages::StageTimer;

/// Most folders of results that an error names.
const MOST_NAMED: usize = 5;

/// Arguments of `query`.
#[derive(clap::Args, Debug)]
pub(super) struct QueryArgs {
    /// Folder of results from `infer`
    results: PathBuf,
    /// Text to look for: "chair", or with published weights "something to sit on"
    question: String,
    /// Further words of a question without quotes, which is refused
    #[arg(hide = true, value_name = "WORD")]
    more: Vec<String>,
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
    lseg: LSegArgs,
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
    if !args.more.is_empty() {
        bail!(
            "several words are one argument: geopurify query {} \"{} {}\"",
            args.results.display(),
            args.question,
            args.more.join(" ")
        );
    }
    if args.question.trim().is_empty() {
        bail!("the question has no words: geopurify query DIR \"chair\"");
    }
    check_results(&args.results, &args.question)?;
    if let Some(output) = args.output.as_deref().filter(|path| path.extension().is_none_or(|e| e != "ply")) {
        bail!("{}: the heat map is a PLY file; end its name in .ply. Its picture goes beside it", output.display());
    }
    if let Some(output) = &args.output {
        check_folder(output)?;
    }
    let (clip, lseg) = (args.clip.choice(), args.lseg.choice());
    let session = Session::with(args.device, Networks { clip, lseg, ..args.xdecoder.networks() })?;
    say_device(session.device());
    let answer = match session.query_above(&args.results, &args.question, args.level, &mut timer) {
        Err(error @ SessionError::OtherWeights { .. }) => {
            bail!("{error}; give those with --xdecoder, --lseg or --clip")
        }
        answer => answer.or_configuration()?,
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
    let with_unit = |name: &str| answer.unit.map_or(name.to_owned(), |unit| format!("{name} ({})", unit.symbol()));
    let (centre, size) = (with_unit("centre"), with_unit("size"));
    if !answer.known {
        writeln!(out, "the model does not know \"{}\", so these places mean little", answer.question)?;
    }
    write!(out, "{}", table(&["place", &centre, &size, "voxels", "best"], &rows))?;
    if shown.len() < answer.places.len() {
        let all = answer.places.len();
        writeln!(out, "{} of {all} places, largest and most similar first; --places {all} shows all", shown.len())?;
    }
    writeln!(out, "{}; {:.2} s", told(&answer, args.level), timer.seconds())?;
    writeln!(out, "{}\n{}", cloud.display(), picture.display())?;
    Ok(())
}

/// Fails with the way out if `folder` holds no results.
fn check_results(folder: &Path, question: &str) -> Result<()> {
    if folder.join(FILE_NAME).is_file() {
        return Ok(());
    }
    let shown = folder.display();
    if is_results(Path::new(question)) {
        bail!(
            "{shown} is no folder of results, but {question} is: the folder comes first: geopurify query {question} \
             \"{shown}\""
        );
    }
    let labels = beside(folder);
    if folder.exists() && is_results(&labels) {
        bail!("{shown} is no folder of results; its results are in {}", labels.display());
    }
    if folder.is_file() {
        match folder.parent().filter(|parent| is_results(parent)) {
            Some(parent) => bail!("{shown} is a file of results; give their folder: {}", parent.display()),
            None if recognise(folder).is_ok() => bail!("{shown} is a scan; label it first: geopurify infer {shown}"),
            None => bail!("{shown} is a file; give the folder that `geopurify infer` wrote"),
        }
    }
    if !folder.is_dir() {
        bail!("{shown}: no such folder; give the folder that `geopurify infer` wrote");
    }
    let mut inner: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| shown.to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_results(path))
        .collect();
    inner.sort();
    let names: Vec<String> = inner.iter().take(MOST_NAMED).map(|path| path.display().to_string()).collect();
    if !names.is_empty() {
        let more = if inner.len() > MOST_NAMED { ", ..." } else { "" };
        bail!("{shown} holds no results itself; give one of its folders that do: {}{more}", names.join(", "));
    }
    if scenes_at(folder, None).is_ok() {
        bail!("{shown}: no results of a labelling, but scans; label them first: geopurify infer {shown}");
    }
    bail!("{shown}: no {FILE_NAME}; give the folder that `geopurify infer` wrote")
}

/// What the places are, in a line.
fn told(answer: &Answer, level: Option<f32>) -> String {
    let Answer { question, competing, nearest, places, .. } = answer;
    let count = counted(places.len(), "place");
    let others = match competing.as_slice() {
        [only] => format!("\"{only}\""),
        words => format!("{} other words", words.len()),
    };
    match (level, nearest) {
        (Some(level), _) => format!("{count} with a cosine of {level:.3} or more"),
        (None, true) => format!("{count} nearer to \"{question}\" than to {others}"),
        (None, false) => format!(
            "nothing is nearer to \"{question}\" than to {others}; the most similar: {count}, with a cosine \
             of {:.3} or more",
            answer.level
        ),
    }
}
