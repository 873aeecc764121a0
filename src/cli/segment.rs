//! `geopurify segment`: labels the pixels of pictures with the vision-language model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::networks::{WayOut as _, XDecoderArgs, open_session};
use super::outputs::check_folder;
use super::shown::plain;
use super::table::{bytes, table};
use super::told_once;
use super::words::words;
use crate::gpu::DeviceSelection;
use crate::images::draw::Style;
use crate::session::{Network, PictureFiles, PictureOptions, SegmentedPicture, SessionError};
use crate::stages::{StageTimer, peak_memory};

/// Arguments of `segment`.
#[derive(clap::Args, Debug)]
pub(super) struct SegmentArgs {
    /// Pictures: JPEG, PNG, WebP, BMP or PNM
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Words to look for, separated by commas: "chair, table, lamp"
    #[arg(long, value_name = "WORDS", required = true)]
    words: Vec<String>,
    /// Output file for the labelled picture (PNG); a folder for several pictures
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Also write the masks, embeddings and logits of the queries, and the query of each pixel (safetensors;
    /// a folder for several pictures)
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,
    /// Length in pixels to which the longer edge is scaled for the model; 0 keeps the picture's size
    #[arg(long, value_name = "PIXELS", default_value_t = 648, value_parser = clap::value_parser!(u32).range(..=32768))]
    size: u32,
    /// Opacity of the label colours over the picture, 0 to 1
    #[arg(long, default_value_t = Style::default().opacity, value_parser = opacity)]
    opacity: f32,
    /// Memory for the model's temporary values, in MiB; pictures of one size go through the model together as
    /// far as they fit
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    working_memory: u32,
    #[command(flatten)]
    model: XDecoderArgs,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SegmentArgs) -> Result<ExitCode> {
    let words = words(&args.words)?;
    let outputs = Outputs::new(args)?;
    let mut timer = StageTimer::default();
    let session = open_session(args.device, args.model.networks(), &[Network::XDecoder])?;
    let options = PictureOptions {
        longest: args.size as usize,
        style: Style { opacity: args.opacity, ..Style::default() },
        working_bytes: u64::from(args.working_memory) << 20,
    };
    let segmenter = session.segmenter(&words, options, &mut timer).or_configuration("--xdecoder-config")?;
    for note in &segmenter.notes {
        eprintln!("note: {}", plain(note));
    }
    let pictures: Vec<PictureFiles> = args.images.iter().map(|image| outputs.of(image)).collect();
    let mut failed = false;
    let results = segmenter.segment(&pictures, &mut timer, &mut |error| {
        eprintln!("error: {}", told_once(&with_way_out(error)));
        failed = true;
    });
    report(args, &words, &results.map_err(with_way_out)?, &timer, &session.device().name);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Adds to an error the options that help.
fn with_way_out(error: SessionError) -> anyhow::Error {
    match error {
        SessionError::PictureTooLarge { path, size: [height, width], bytes: needed } => anyhow::anyhow!(
            "{}: at {width} x {height} pixels it needs about {}; use a smaller --size or a larger --working-memory",
            path.display(),
            bytes(needed)
        ),
        SessionError::Seeing(_) => anyhow::Error::from(error)
            .context("a smaller --size or --working-memory needs less of the device; so does --device cpu"),
        other => other.into(),
    }
}

/// Paths of the results.
enum Outputs {
    /// Files for the one picture.
    Files { picture: PathBuf, features: Option<PathBuf> },
    /// One folder for each kind of result; files are named after the pictures.
    Folders { pictures: PathBuf, features: Option<PathBuf> },
}

impl Outputs {
    /// Checks the paths before the work: the folders exist, and no result replaces a given picture or another
    /// result.
    fn new(args: &SegmentArgs) -> Result<Self> {
        if let Some(missing) = args.images.iter().find(|image| args.images.len() == 1 && !image.is_file()) {
            // Opening the file gives the system's own error message.
            std::fs::File::open(missing).with_context(|| missing.display().to_string())?;
            bail!("{}: not a file", missing.display());
        }
        let (picture, features) = (args.output.clone(), args.features.clone());
        let both = || [Some(&picture), features.as_ref()].into_iter().flatten();
        let outputs = if args.images.len() > 1 || picture.is_dir() {
            for folder in both() {
                std::fs::create_dir_all(folder).with_context(|| {
                    format!(
                        "{}: cannot make this folder; several pictures need a folder for their results",
                        folder.display()
                    )
                })?;
            }
            let names: BTreeSet<_> = args.images.iter().map(|image| image.file_stem()).collect();
            if names.len() < args.images.len() {
                bail!("two of the pictures have the same name, and so would their results in {}", picture.display());
            }
            Self::Folders { pictures: picture, features }
        } else {
            for path in both() {
                check_folder(path)?;
            }
            Self::Files { picture, features }
        };
        for image in &args.images {
            let PictureFiles { output, features, .. } = outputs.of(image);
            for output in [Some(&output), features.as_ref()].into_iter().flatten() {
                if args.images.iter().any(|image| is_same_file(image, output)) {
                    bail!("{}: the result would replace a given picture; name another output", output.display());
                }
            }
            if features.as_deref() == Some(&*output) {
                bail!("{}: --output and --features name the same file", output.display());
            }
        }
        Ok(outputs)
    }

    /// Returns the files of `image`.
    fn of(&self, image: &Path) -> PictureFiles {
        let (output, features) = match self {
            Self::Files { picture, features } => (picture.clone(), features.clone()),
            Self::Folders { pictures, features } => {
                let name = image.file_stem().map_or("picture".into(), |stem| stem.to_string_lossy());
                let file = |folder: &PathBuf, extension: &str| folder.join(format!("{name}.{extension}"));
                (file(pictures, "png"), features.as_ref().map(|folder| file(folder, "safetensors")))
            }
        };
        PictureFiles { picture: image.to_path_buf(), output, features }
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Parses a number from 0 to 1.
fn opacity(text: &str) -> Result<f32, String> {
    let value = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("expected 0 to 1".to_owned()) }
}

fn report(args: &SegmentArgs, words: &[String], results: &[SegmentedPicture], timer: &StageTimer<'_>, device: &str) {
    let seconds = timer.seconds();
    if args.json {
        let images: Vec<_> = results.iter().map(|found| as_json(found, words)).collect();
        let stages: Vec<_> = timer.stages().iter().map(|s| json!({ "stage": s.name, "seconds": s.seconds })).collect();
        let report = json!({
            "images": images,
            "device": device,
            "stages": stages,
            "seconds": seconds,
            "peak_memory_bytes": peak_memory(),
        });
        println!("{report:#}");
        return;
    }
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    for found in results {
        let [height, width] = found.seen_size;
        println!("{}, seen at {width} x {height}, to {}", found.picture.display(), found.output.display());
        let mut order: Vec<usize> = (0..words.len()).collect();
        order.sort_by(|&a, &b| found.shares[b].total_cmp(&found.shares[a]));
        let mut rows: Vec<_> = order.iter().map(|&i| vec![words[i].clone(), percent(found.shares[i])]).collect();
        rows.push(vec!["(nothing)".to_owned(), percent(found.unlabelled())]);
        println!("{}", table(&["label", "pixels"], &rows));
    }
    let rows: Vec<_> = timer.stages().iter().map(|s| vec![s.name.to_owned(), format!("{:.2} s", s.seconds)]).collect();
    println!("{}", table(&["stage", "time"], &rows));
    let memory = peak_memory().map_or(String::new(), |peak| format!(", peak memory {}", bytes(peak)));
    println!("{seconds:.2} s on {device}{memory}");
}

fn as_json(found: &SegmentedPicture, words: &[String]) -> serde_json::Value {
    let shares: BTreeMap<_, _> = words.iter().zip(&found.shares).collect();
    json!({
        "image": found.picture.to_string_lossy(),
        "output": found.output.to_string_lossy(),
        "height": found.size[0],
        "width": found.size[1],
        "seen_height": found.seen_size[0],
        "seen_width": found.seen_size[1],
        "shares": shares,
        "unlabelled": found.unlabelled(),
    })
}
