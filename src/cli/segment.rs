//! `geopurify segment`: what the vision-language model sees in one picture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::prelude::*;
use serde_json::json;

use super::table::{bytes, table};
use super::weights::open_weights;
use crate::gpu::{DeviceSelection, select};
use crate::images::draw::{Style, labelled_picture};
use crate::images::resize::resize_bicubic;
use crate::images::{Orientation, Rgb8Image, read_image, write_png};
use crate::lift::{NO_QUERY, Padding, View};
use crate::models::xdecoder::{Queries, TextEmbeddings, XDecoder, XDecoderConfig};
use crate::ops::conv2d::Precision;
use crate::ops::float_values;
use crate::purify::peak_memory;
use crate::weights::{Dtype, SafetensorsWriter, TensorSource, TensorSpec};

/// Arguments of `segment`.
#[derive(clap::Args, Debug)]
pub(super) struct SegmentArgs {
    /// The picture: JPEG or PNG
    image: PathBuf,
    /// What to look for, as words separated by commas: "chair, table, lamp"
    #[arg(long, value_name = "WORDS", required = true)]
    words: Vec<String>,
    /// Where the labelled picture goes (PNG)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Also write masks, embeddings and logits of the queries, and the query of every pixel (safetensors)
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,
    /// Longer edge the picture is brought to before the model sees it; 0 leaves it as it is
    #[arg(long, value_name = "PIXELS", default_value_t = 648)]
    size: usize,
    /// Strength of the colours over the picture, 0 to 1
    #[arg(long, default_value_t = Style::default().opacity)]
    opacity: f32,
    #[command(flatten)]
    model: XDecoderArgs,
    /// auto, gpu, cpu, or an adapter's index as `geopurify devices` lists it
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// Which X-Decoder to load.
#[derive(clap::Args, Debug)]
pub(super) struct XDecoderArgs {
    /// Weights of X-Decoder: .pt as the reference publishes it, safetensors, or a name in the store
    /// [default: the store's `xdecoder`]
    #[arg(long, value_name = "FILE|NAME")]
    xdecoder: Option<PathBuf>,
    /// X-Decoder's configuration, where a file's shapes do not tell it (JSON)
    #[arg(long, value_name = "FILE")]
    xdecoder_config: Option<PathBuf>,
    /// How its weights are held: f32 is the reference, f16 takes half the memory
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PrecisionArg {
    F32,
    F16,
}

impl XDecoderArgs {
    /// Opens and loads the model.
    pub(super) fn load(&self, device: &Device) -> Result<XDecoder> {
        let (mut weights, manifest) = open_weights(self.xdecoder.as_deref(), "xdecoder")?;
        let config: XDecoderConfig = match (&self.xdecoder_config, manifest) {
            (Some(path), _) => {
                let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                serde_json::from_str(&text).with_context(|| path.display().to_string())?
            }
            (None, Some(manifest)) => serde_json::from_value(manifest.config).context("the stored configuration")?,
            (None, None) => {
                let inventory = weights.inventory().into_owned();
                XDecoderConfig::of(&|key| inventory.shape(key)).unwrap_or_else(XDecoderConfig::focal_l)
            }
        };
        let precision = match self.precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::F16 => Precision::F16,
        };
        let (model, report) = XDecoder::load(&mut weights, config, precision, device)?;
        log::info!("{report}");
        Ok(model)
    }
}

pub(super) fn run(args: &SegmentArgs) -> Result<()> {
    let words = words(&args.words)?;
    // A mistyped folder should not cost a run.
    for path in [Some(&args.output), args.features.as_ref()].into_iter().flatten() {
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty() && !f.is_dir()) {
            bail!("{}: no such folder for the output", folder.display());
        }
    }
    let mut clock = Clock::new();
    let picture = read_image(&args.image, Orientation::Upright)?;
    let view_size = fitted([picture.height(), picture.width()], args.size);
    let small = resize_bicubic(&picture, view_size[1], view_size[0])?;
    clock.lap("read the picture");
    let selected = select(args.device)?;
    eprintln!("device: {} ({})", selected.name, selected.why);
    let model = args.model.load(&selected.device)?;
    clock.lap("load the weights");
    let text = model.embed_text(&words)?;
    float_values(text.rows.clone())?;
    clock.lap("embed the words");
    let pixels: Vec<f32> = small.pixels().as_flattened().iter().map(|&value| value.into()).collect();
    let queries = model.forward(model.prepare(&pixels, view_size)?, &text)?;
    float_values(queries.pred_logits.clone())?;
    clock.lap("see");
    let view = View::new(&queries, 0, &text, view_size, Padding::Cropped)?;
    let labels = view.label_from_pixel();
    let style = Style { opacity: args.opacity, ..Style::default() };
    let full = enlarged(&labels, view_size, [picture.height(), picture.width()]);
    write_png(&args.output, &labelled_picture(&picture, &full, &words, &style)?)?;
    if let Some(path) = &args.features {
        write_features(path, &queries, &text, &view)?;
    }
    clock.lap("draw and write");
    report(args, &picture, view_size, &words, &labels, &clock, &selected.name);
    Ok(())
}

/// The words of all `--words`, in their order, each once.
fn words(given: &[String]) -> Result<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    for word in given.iter().flat_map(|words| words.split([',', '\n'])).map(str::trim).filter(|w| !w.is_empty()) {
        if !words.iter().any(|known| known == word) {
            words.push(word.to_owned());
        }
    }
    if words.is_empty() {
        bail!("--words names nothing to look for: \"chair, table, lamp\"");
    }
    Ok(words)
}

/// Height and width with `longest` as the longer edge, `size` itself where that is 0.
fn fitted(size: [usize; 2], longest: usize) -> [usize; 2] {
    if longest == 0 {
        return size;
    }
    let edge = size[0].max(size[1]).max(1);
    size.map(|pixels| ((pixels * longest * 2 + edge) / (2 * edge)).max(1))
}

/// Labels of `size` at another size, each pixel taking the nearest.
fn enlarged(labels: &[i32], size: [usize; 2], to: [usize; 2]) -> Vec<i32> {
    let nearest = |i: usize, axis: usize| (2 * i + 1) * size[axis] / (2 * to[axis]);
    let row = |y: usize| (0..to[1]).map(move |x| labels[nearest(y, 0) * size[1] + nearest(x, 1)]);
    (0..to[0]).flat_map(row).collect()
}

fn write_features(path: &Path, queries: &Queries, text: &TextEmbeddings, view: &View) -> Result<()> {
    let [_, num_queries, _, _] = queries.pred_masks.dims();
    let cells = view.size.map(|pixels| pixels.div_ceil(4));
    let masks = queries.pred_masks.clone().slice([0..1, 0..num_queries, 0..cells[0], 0..cells[1]]);
    let [_, _, num_logits] = queries.pred_logits.dims();
    let [_, _, dim] = queries.mask_embed.dims();
    let f32_of = |name: &str, shape: &[usize]| TensorSpec::new(name, Dtype::F32, shape);
    let specs = [
        f32_of("pred_masks", &[num_queries, cells[0], cells[1]]),
        f32_of("mask_embed", &[num_queries, dim]),
        f32_of("pred_logits", &[num_queries, num_logits]),
        f32_of("text_embed", &[num_logits, dim]),
        TensorSpec::new("query_from_pixel", Dtype::I32, view.size),
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
    file.write_f32(&float_values(queries.mask_embed.clone())?)?;
    file.write_f32(&float_values(queries.pred_logits.clone())?)?;
    file.write_f32(&float_values(text.rows.clone())?)?;
    let query = |&query: &u16| if query == NO_QUERY { -1 } else { i32::from(query) };
    file.write_i32(&view.query_from_pixel.iter().map(query).collect::<Vec<_>>())?;
    file.finish()?;
    Ok(())
}

/// Seconds of what was done, in order.
struct Clock {
    start: Instant,
    last: Instant,
    laps: Vec<(&'static str, f64)>,
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Self { start: now, last: now, laps: Vec::new() }
    }

    fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        self.laps.push((name, (now - self.last).as_secs_f64()));
        self.last = now;
    }
}

fn report(
    args: &SegmentArgs,
    picture: &Rgb8Image,
    view_size: [usize; 2],
    words: &[String],
    labels: &[i32],
    clock: &Clock,
    device: &str,
) {
    let mut counts = vec![0usize; words.len()];
    labels.iter().filter_map(|&label| usize::try_from(label).ok()).for_each(|label| counts[label] += 1);
    let share = |count: usize| count as f64 / labels.len().max(1) as f64;
    let unlabelled = labels.len() - counts.iter().sum::<usize>();
    let seconds = clock.start.elapsed().as_secs_f64();
    if args.json {
        let shares: BTreeMap<_, _> = words.iter().zip(&counts).map(|(word, &count)| (word, share(count))).collect();
        let stages: Vec<_> = clock.laps.iter().map(|(name, s)| json!({ "stage": name, "seconds": s })).collect();
        let report = json!({
            "image": args.image.to_string_lossy(),
            "output": args.output.to_string_lossy(),
            "width": picture.width(),
            "height": picture.height(),
            "seen_width": view_size[1],
            "seen_height": view_size[0],
            "device": device,
            "shares": shares,
            "unlabelled": share(unlabelled),
            "stages": stages,
            "seconds": seconds,
            "peak_memory_bytes": peak_memory(),
        });
        println!("{report:#}");
        return;
    }
    let mut order: Vec<usize> = (0..words.len()).collect();
    order.sort_by_key(|&label| std::cmp::Reverse(counts[label]));
    let percent = |count: usize| format!("{:.1} %", 100.0 * share(count));
    let mut rows: Vec<Vec<String>> = order.iter().map(|&i| vec![words[i].clone(), percent(counts[i])]).collect();
    rows.push(vec!["(nothing)".to_owned(), percent(unlabelled)]);
    println!("{}", table(&["label", "pixels"], &rows));
    let rows: Vec<_> = clock.laps.iter().map(|(name, s)| vec![(*name).to_owned(), format!("{s:.2} s")]).collect();
    println!("{}", table(&["stage", "time"], &rows));
    let memory = peak_memory().map_or(String::new(), |peak| format!(", peak memory {}", bytes(peak)));
    println!(
        "{} seen at {} x {} on {device}: {seconds:.2} s{memory}",
        args.image.display(),
        view_size[1],
        view_size[0]
    );
    println!("wrote {}", args.output.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_trimmed_and_kept_once() {
        let given = ["chair,  dining table ,, lamp".to_owned(), "lamp,sofa".to_owned()];
        assert_eq!(words(&given).unwrap(), ["chair", "dining table", "lamp", "sofa"]);
        assert!(words(&[" , ".to_owned()]).is_err());
    }

    #[test]
    fn a_picture_is_fitted_by_its_longer_edge() {
        assert_eq!(fitted([968, 1296], 648), [484, 648]);
        assert_eq!(fitted([4000, 3000], 648), [648, 486]);
        assert_eq!(fitted([1, 4000], 648), [1, 648]);
        assert_eq!(fitted([481, 640], 0), [481, 640]);
    }

    #[test]
    fn labels_are_enlarged_by_the_nearest() {
        assert_eq!(enlarged(&[1, 2], [1, 2], [2, 4]), [1, 1, 2, 2, 1, 1, 2, 2]);
        assert_eq!(enlarged(&[1, 2, 3, 4], [2, 2], [1, 1]), [4]);
    }
}
