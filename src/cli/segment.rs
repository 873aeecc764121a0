//! `geopurify segment`: labels the pixels of pictures with the vision-language model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::networks::{WayOut as _, XDecoderArgs, open_session};
use super::table::{bytes, table};
use super::told_once;
use super::words::words;
use crate::gpu::DeviceSelection;
use crate::images::draw::{Style, labelled_picture};
use crate::images::resize::{fitted, resize_bicubic};
use crate::images::{Orientation, Rgb8Image, read_image, write_png};
use crate::lift::{Padding, View};
use crate::models::xdecoder::{Queries, TextEmbeddings, XDecoder};
use crate::ops::float_values;
use crate::session::{Network, note_of_unknown};
use crate::stages::{StageTimer, peak_memory};
use crate::weights::{Dtype, SafetensorsWriter, TensorSpec};

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
    let needed = &[Network::XDecoder];
    let session = open_session(args.device, args.model.networks(), needed)?;
    let opened = session.networks().with_demo(needed).open_xdecoder();
    let model = opened.and_then(|mut opened| opened.load(&session.device().device));
    let model = model.or_configuration("--xdecoder-config")?;
    timer.lap("load the weights");
    if let Some(note) = note_of_unknown(&model.text_encoder, &words) {
        eprintln!("note: {note}");
    }
    let text = model.embed_text(&words)?;
    float_values(text.rows.clone())?;
    timer.lap("embed the words");

    let style = Style { opacity: args.opacity, ..Style::default() };
    let budget = u64::from(args.working_memory) << 20;
    let mut results = Vec::with_capacity(args.images.len());
    let mut num_failed = 0;
    let mut batch: Vec<Picture> = Vec::new();
    let mut see_all = |batch: &mut Vec<Picture<'_>>, timer: &mut StageTimer<'_>| -> Result<()> {
        results.extend(see(&model, &text, std::mem::take(batch), &outputs, &style, timer)?);
        Ok(())
    };
    for path in &args.images {
        // One bad picture does not stop the others.
        let picture = match Picture::read(path, args.size, &model, budget) {
            Ok(picture) => picture,
            Err(error) => {
                eprintln!("error: {}", told_once(&error));
                num_failed += 1;
                continue;
            }
        };
        timer.lap("read");
        if batch.first().is_some_and(|first| first.seen_size != picture.seen_size) {
            see_all(&mut batch, &mut timer)?;
        }
        let views = model.views_in(budget, picture.seen_size);
        batch.push(picture);
        if batch.len() >= views {
            see_all(&mut batch, &mut timer)?;
        }
    }
    see_all(&mut batch, &mut timer)?;
    report(args, &words, &results, &timer, &session.device().name);
    Ok(if num_failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
                if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty() && !f.is_dir()) {
                    bail!("{}: no such folder for the output", folder.display());
                }
            }
            Self::Files { picture, features }
        };
        for image in &args.images {
            let (picture, features) = outputs.of(image);
            for output in [Some(&picture), features.as_ref()].into_iter().flatten() {
                if args.images.iter().any(|image| is_same_file(image, output)) {
                    bail!("{}: the result would replace a given picture; name another output", output.display());
                }
            }
            if features.as_deref() == Some(&*picture) {
                bail!("{}: --output and --features name the same file", picture.display());
            }
        }
        Ok(outputs)
    }

    /// Returns the paths of the labelled picture and of the features of `image`.
    fn of(&self, image: &Path) -> (PathBuf, Option<PathBuf>) {
        match self {
            Self::Files { picture, features } => (picture.clone(), features.clone()),
            Self::Folders { pictures, features } => {
                let name = image.file_stem().map_or("picture".into(), |stem| stem.to_string_lossy());
                let file = |folder: &PathBuf, extension: &str| folder.join(format!("{name}.{extension}"));
                (file(pictures, "png"), features.as_ref().map(|folder| file(folder, "safetensors")))
            }
        }
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// A picture in full, and at the size that the model sees.
struct Picture<'a> {
    path: &'a Path,
    whole: Rgb8Image,
    /// Height and width of the picture that the model sees.
    seen_size: [usize; 2],
    seen: Vec<f32>,
}

impl<'a> Picture<'a> {
    fn read(path: &'a Path, longest: u32, model: &XDecoder, budget: u64) -> Result<Self> {
        let whole = read_image(path, Orientation::Upright)?;
        let seen_size = fitted([whole.height(), whole.width()], longest as usize);
        let estimate = model.view_bytes(seen_size);
        if estimate > budget {
            bail!(
                "{}: at {} x {} pixels it needs about {}; use a smaller --size or a larger --working-memory",
                path.display(),
                seen_size[1],
                seen_size[0],
                bytes(estimate)
            );
        }
        let seen = resize_bicubic(&whole, seen_size[1], seen_size[0])?;
        let seen = seen.pixels().as_flattened().iter().map(|&value| value.into()).collect();
        Ok(Self { path, whole, seen_size, seen })
    }
}

/// Labels found in one picture.
struct Found {
    path: PathBuf,
    output: PathBuf,
    size: [usize; 2],
    seen_size: [usize; 2],
    /// Share of the pixels, for each word.
    shares: Vec<f64>,
}

impl Found {
    fn unlabelled(&self) -> f64 {
        (1.0 - self.shares.iter().sum::<f64>()).max(0.0)
    }
}

/// Runs pictures of one size through the model, then draws and writes each result.
fn see(
    model: &XDecoder,
    text: &TextEmbeddings,
    pictures: Vec<Picture<'_>>,
    outputs: &Outputs,
    style: &Style,
    timer: &mut StageTimer<'_>,
) -> Result<Vec<Found>> {
    let Some(seen_size) = pictures.first().map(|picture| picture.seen_size) else { return Ok(Vec::new()) };
    let images = pictures.iter().flat_map(|picture| &picture.seen).copied().collect::<Vec<_>>();
    let way_out = "a smaller --size or --working-memory needs less of the device; so does --device cpu";
    let queries = model.forward(model.prepare(&images, seen_size)?, text).context(way_out)?;
    float_values(queries.pred_logits.clone()).context(way_out)?;
    timer.lap("see");
    let mut found = Vec::with_capacity(pictures.len());
    for (index, picture) in pictures.into_iter().enumerate() {
        let view = View::new(&queries, index, text, seen_size, Padding::Cropped)?;
        let labels = view.label_from_pixel()?;
        let size = [picture.whole.height(), picture.whole.width()];
        let drawn = labelled_picture(&picture.whole, &enlarged(&labels, seen_size, size), &text.labels, style)?;
        let (output, features) = outputs.of(picture.path);
        write_png(&output, &drawn)?;
        if let Some(path) = features {
            write_features(&path, &queries, index, text, &view)?;
        }
        let mut counts = vec![0usize; text.labels.len()];
        labels.iter().filter_map(|&label| usize::try_from(label).ok()).for_each(|label| counts[label] += 1);
        let shares = counts.iter().map(|&count| count as f64 / labels.len() as f64).collect();
        found.push(Found { path: picture.path.to_path_buf(), output, size, seen_size, shares });
    }
    timer.lap("draw and write");
    Ok(found)
}

/// Parses a number from 0 to 1.
fn opacity(text: &str) -> Result<f32, String> {
    let value = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("expected 0 to 1".to_owned()) }
}

/// Scales labels of `size` to another size. Each pixel takes the nearest label.
fn enlarged(labels: &[i32], size: [usize; 2], to: [usize; 2]) -> Vec<i32> {
    let nearest = |i: usize, axis: usize| (2 * i + 1) * size[axis] / (2 * to[axis]);
    let row = |y: usize| (0..to[1]).map(move |x| labels[nearest(y, 0) * size[1] + nearest(x, 1)]);
    (0..to[0]).flat_map(row).collect()
}

fn write_features(path: &Path, queries: &Queries, index: usize, text: &TextEmbeddings, view: &View) -> Result<()> {
    let [_, num_queries, _, _] = queries.pred_masks.dims();
    let cells = view.size().map(|pixels| pixels.div_ceil(4));
    let of_image = index..index + 1;
    let masks = queries.pred_masks.clone().slice([of_image.clone(), 0..num_queries, 0..cells[0], 0..cells[1]]);
    let [_, _, num_logits] = queries.pred_logits.dims();
    let [_, _, dim] = queries.mask_embed.dims();
    let f32_of = |name: &str, shape: &[usize]| TensorSpec::new(name, Dtype::F32, shape);
    let specs = [
        f32_of("pred_masks", &[num_queries, cells[0], cells[1]]),
        f32_of("mask_embed", &[num_queries, dim]),
        f32_of("pred_logits", &[num_queries, num_logits]),
        f32_of("text_embed", &[num_logits, dim]),
        TensorSpec::new("query_from_pixel", Dtype::I32, view.size()),
    ];
    let metadata = [
        ("words".to_owned(), text.labels.join(", ")),
        ("logit_scale".to_owned(), text.logit_scale.to_string()),
        (
            "about".to_owned(),
            "masks are logits of 4 x 4 pixels; query_from_pixel is -1 where no query claims one".to_owned(),
        ),
    ];
    let mut file = SafetensorsWriter::create(path, &specs, &metadata.into_iter().collect::<BTreeMap<_, _>>())?;
    file.write_f32(&float_values(masks)?)?;
    file.write_f32(&float_values(queries.mask_embed.clone().slice_dim(0, of_image.clone()))?)?;
    file.write_f32(&float_values(queries.pred_logits.clone().slice_dim(0, of_image))?)?;
    file.write_f32(&float_values(text.rows.clone())?)?;
    file.write_i32(&view.query_from_pixel()?)?;
    file.finish()?;
    Ok(())
}

fn report(args: &SegmentArgs, words: &[String], results: &[Found], timer: &StageTimer<'_>, device: &str) {
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
        println!("{}, seen at {width} x {height}, to {}", found.path.display(), found.output.display());
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

fn as_json(found: &Found, words: &[String]) -> serde_json::Value {
    let shares: BTreeMap<_, _> = words.iter().zip(&found.shares).collect();
    json!({
        "image": found.path.to_string_lossy(),
        "output": found.output.to_string_lossy(),
        "height": found.size[0],
        "width": found.size[1],
        "seen_height": found.seen_size[0],
        "seen_width": found.seen_size[1],
        "shares": shares,
        "unlabelled": found.unlabelled(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_enlarged_by_the_nearest() {
        assert_eq!(enlarged(&[1, 2], [1, 2], [2, 4]), [1, 1, 2, 2, 1, 1, 2, 2]);
        assert_eq!(enlarged(&[1, 2, 3, 4], [2, 2], [1, 1]), [4]);
    }
}
