//! `geopurify segment`: labels the pixels of pictures with the vision-language model.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::networks::{ImageModelArgs, WayOut as _, open_session, write_used};
use super::outputs::check_folder;
use super::say;
use super::shown::json_lines;
use super::table::{bytes, stage_table, table};
use super::told_once;
use super::words::words;
use crate::gpu::DeviceSelection;
use crate::images::draw::Style;
use crate::images::{is_written, recognise_image};
use crate::labels::Preset;
use crate::session::{PictureFiles, PictureOptions, SegmentedPicture, SessionError};
use crate::stages::{StageTimer, peak_memory};

/// Benchmark whose classes are looked for if no words are given.
const USUAL_PRESET: &str = "scannet20";
/// Extensions of pictures in folders.
const PICTURES: [&str; 9] = ["jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "pbm", "pnm"];

/// Arguments of `segment`.
#[derive(clap::Args, Debug)]
pub(super) struct SegmentArgs {
    /// Pictures (JPEG, PNG, WebP, BMP or PNM), and folders of pictures
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Words to look for, separated by commas: "chair, table, lamp"
    #[arg(long, value_name = "WORDS", conflicts_with = "preset")]
    words: Vec<String>,
    /// Benchmark whose classes to look for: scannet20, scannet200, matterport21, matterport40, matterport80,
    /// matterport160, nuscenes16, nyu40 [default: scannet20]
    #[arg(long, value_name = "NAME")]
    preset: Option<Preset>,
    /// Output file for the labelled picture, PNG or JPEG by its name; a folder for several pictures
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Also write what the model says (safetensors; a folder for several pictures): of X-Decoder the masks, embeddings
    /// and logits of the queries, and the query of each pixel; of LSeg the features of the pixels
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,
    /// Length of the longer edge of the pictures that the model sees; 0 keeps the pictures as they are
    /// [default: as in the model's training, 648 for the published weights]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(..=32768))]
    size: Option<u32>,
    /// Opacity of the label colours over the picture, 0 to 1
    #[arg(long, default_value_t = Style::default().opacity, value_parser = opacity)]
    opacity: f32,
    /// Memory for the model's temporary values, in MiB; pictures of one size go through the model together as
    /// far as they fit
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    working_memory: u32,
    #[command(flatten)]
    model: ImageModelArgs,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
    /// Check everything and print what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// Words to look for.
fn words_of(args: &SegmentArgs) -> Result<Vec<String>> {
    if !args.words.is_empty() {
        return words(&args.words);
    }
    let preset = match args.preset {
        Some(preset) => preset,
        None => {
            say::line(&format!("no --words: looking for the classes of {USUAL_PRESET}"));
            USUAL_PRESET.parse::<Preset>()?
        }
    };
    Ok(preset.labels.iter().map(|&label| label.to_owned()).collect())
}

/// The pictures of the arguments: files, and those in folders.
fn pictures_of(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut pictures = Vec::new();
    for path in given {
        if !path.is_dir() {
            pictures.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
        let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        found.retain(|path| {
            let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
            path.is_file() && PICTURES.contains(&extension.as_str())
        });
        if found.is_empty() {
            bail!("{}: no picture in this folder: {} are read", path.display(), PICTURES.join(", "));
        }
        found.sort();
        pictures.extend(found);
    }
    Ok(pictures)
}

pub(super) fn run(args: &SegmentArgs) -> Result<ExitCode> {
    args.model.check()?;
    let words = words_of(args)?;
    let images = pictures_of(&args.images)?;
    let outputs = Outputs::new(args, &images)?;
    // Of several pictures, the others are labelled if one fails.
    if let [only] = images.as_slice() {
        recognise_image(only)?;
    }
    if args.dry_run {
        let mut out = std::io::stdout().lock();
        let mut failed = false;
        for image in &images {
            if let Err(error) = recognise_image(image) {
                eprintln!("error: {}", told_once(&error.into()));
                failed = true;
                continue;
            }
            writeln!(out, "would label {}, to {}", image.display(), outputs.of(image).output.display())?;
        }
        writeln!(out, "words: {}", words.join(", "))?;
        write_used(&mut out, args.device, &args.model.networks(), &[args.model.kind().network()])?;
        return Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let mut timer = StageTimer::default();
    let session = open_session(args.device, args.model.networks(), &[args.model.kind().network()])?;
    let options = PictureOptions {
        image_model: args.model.kind(),
        longest: args.size.map(|size| size as usize),
        style: Style { opacity: args.opacity, ..Style::default() },
        working_bytes: u64::from(args.working_memory) << 20,
    };
    let segmenter = session.segmenter(&words, options, &mut timer).or_configuration()?;
    segmenter.notes.iter().for_each(|note| say::note(note));
    let pictures: Vec<PictureFiles> = images.iter().map(|image| outputs.of(image)).collect();
    let mut failed = false;
    let results = segmenter.segment(&pictures, &mut timer, &mut |error| {
        eprintln!("error: {}", told_once(&with_way_out(error)));
        failed = true;
    });
    let run = Run { words: &words, unknown: &segmenter.unknown, timer: &timer, device: &session.device().name };
    run.report(args, &results.map_err(with_way_out)?)?;
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
    fn new(args: &SegmentArgs, images: &[PathBuf]) -> Result<Self> {
        if let Some(missing) = images.iter().find(|image| images.len() == 1 && !image.is_file()) {
            // Opening the file gives the system's own error message.
            std::fs::File::open(missing).with_context(|| missing.display().to_string())?;
            bail!("{}: not a file", missing.display());
        }
        let (picture, features) = (args.output.clone(), args.features.clone());
        let both = || [Some(&picture), features.as_ref()].into_iter().flatten();
        let outputs = if images.len() > 1 || args.images[0].is_dir() || picture.is_dir() {
            for folder in both().filter(|_| !args.dry_run) {
                std::fs::create_dir_all(folder).with_context(|| {
                    format!(
                        "{}: cannot make this folder; several pictures need a folder for their results",
                        folder.display()
                    )
                })?;
            }
            let names: BTreeSet<_> = images.iter().map(|image| image.file_stem()).collect();
            if names.len() < images.len() {
                bail!("two of the pictures have the same name, and so would their results in {}", picture.display());
            }
            Self::Folders { pictures: picture, features }
        } else {
            for path in both() {
                check_folder(path)?;
            }
            if !is_written(&picture) {
                bail!("{}: the labelled picture is PNG or JPEG; end its name in .png or .jpg", picture.display());
            }
            Self::Files { picture, features }
        };
        for image in images {
            let PictureFiles { output, features, .. } = outputs.of(image);
            for output in [Some(&output), features.as_ref()].into_iter().flatten() {
                if images.iter().any(|image| is_same_file(image, output)) {
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

/// A run, for its report.
struct Run<'a> {
    words: &'a [String],
    /// Those that the model does not know.
    unknown: &'a [String],
    timer: &'a StageTimer<'a>,
    device: &'a str,
}

impl Run<'_> {
    fn report(&self, args: &SegmentArgs, results: &[SegmentedPicture]) -> Result<()> {
        let Self { words, unknown, timer, device } = *self;
        let mut out = std::io::stdout().lock();
        let seconds = timer.seconds();
        if args.json {
            let images: Vec<_> = results.iter().map(|found| as_json(found, words)).collect();
            let report = json!({
                "images": images,
                "unknown_words": unknown,
                "device": device,
                "stages": timer.stages(),
                "seconds": seconds,
                "peak_memory_bytes": peak_memory(),
            });
            writeln!(out, "{}", json_lines(&report)?)?;
            return Ok(());
        }
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        for found in results {
            let [height, width] = found.seen_size;
            writeln!(out, "{}, seen at {width} x {height}, to {}", found.picture.display(), found.output.display())?;
            // Words that are not in the picture are left out.
            let mut order: Vec<usize> = (0..words.len()).filter(|&i| found.shares[i] > 0.0).collect();
            order.sort_by(|&a, &b| found.shares[b].total_cmp(&found.shares[a]));
            let title = |word: &String| if unknown.contains(word) { format!("{word} (unknown)") } else { word.clone() };
            let mut rows: Vec<_> = order.iter().map(|&i| vec![title(&words[i]), percent(found.shares[i])]).collect();
            rows.push(vec!["(nothing)".to_owned(), percent(found.unlabelled())]);
            writeln!(out, "{}", table(&["label", "pixels"], &rows))?;
        }
        if say::is_verbose() {
            write!(out, "{}", stage_table(timer.stages(), seconds, peak_memory()))?;
        }
        writeln!(out, "{seconds:.2} s on {device}")?;
        Ok(())
    }
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
