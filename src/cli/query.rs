//! `geopurify query`: questions to a scan that `infer` has labelled.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use glam::DVec3;
use serde_json::json;

use super::labelling::note_of_unknown;
use super::segment::XDecoderArgs;
use super::table::table;
use crate::cloud::Field;
use crate::cloud::PointCloud;
use crate::gpu::{DeviceSelection, select};
use crate::images::draw::heat_color;
use crate::images::write_png;
use crate::models::xdecoder::prompts::scene_label;
use crate::pipeline::{HeatViews, PipelineError, Scene};
use crate::query::regions::{regions, usual_level};
use crate::query::saved::{FILE_NAME, Saved};
use crate::query::similarity;
use crate::stages::Laps;

/// Share of the scores below which all is coldest, and above which all is hottest.
const COLDEST: f64 = 0.05;
const HOTTEST: f64 = 0.999;

/// Arguments of `query`.
#[derive(clap::Args, Debug)]
pub(super) struct QueryArgs {
    /// Folder of results that `infer` wrote
    results: PathBuf,
    /// What to look for: "something to sit on"
    question: String,
    /// Where the heat map goes, as PLY; its picture goes beside it as PNG [default: in the folder, named by the question]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Cosine from which on a place counts as found [default: halfway from the median to the best]
    #[arg(long, value_name = "COSINE", allow_negative_numbers = true)]
    level: Option<f32>,
    /// Most places that are listed
    #[arg(long, value_name = "N", default_value_t = 5)]
    places: usize,
    #[command(flatten)]
    xdecoder: XDecoderArgs,
    /// auto, gpu, cpu, or an adapter's index as `geopurify devices` lists it
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
    /// Print the places as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &QueryArgs) -> Result<()> {
    let mut laps = Laps::default();
    let question = args.question.split_whitespace().collect::<Vec<_>>().join(" ");
    if question.is_empty() {
        bail!("the question has no words: geopurify query DIR \"something to sit on\"");
    }
    let features = args.results.join(FILE_NAME);
    if !features.is_file() {
        bail!("{}: no {FILE_NAME}: give the folder that `geopurify infer` wrote", args.results.display());
    }
    if let Some(output) = args.output.as_deref().filter(|path| path.extension().is_none_or(|e| e != "ply")) {
        bail!("{}: the heat map is a PLY file, name it so; its picture goes beside it", output.display());
    }
    let saved = Saved::read(&features)?;
    let mut weights = args.xdecoder.clone();
    weights.or(&saved.about.xdecoder, saved.about.xdecoder_config.as_deref());
    let mut opened = weights.open()?;
    let selected = select(args.device)?;
    eprintln!("device: {} ({})", selected.name, selected.why);
    laps.lap("read features");

    // Where the very file of the run is used again its length tells enough; another one has to be read whole.
    let origin = opened.origin.clone();
    let is_same_source = origin.source == saved.about.xdecoder && origin.bytes == saved.about.xdecoder_bytes;
    let is_same = || Ok::<_, anyhow::Error>(is_same_source || origin.sha256()? == saved.about.xdecoder_sha256);
    // The scan is read and looked at while the words go through the model.
    let scan_path = args.results.join(&saved.about.scan);
    let up = DVec3::from_array(saved.about.up);
    let (text, (scene, heat_views), is_same) = std::thread::scope(|threads| {
        let scene = threads.spawn(|| {
            let scene = Scene::read(&scan_path)?;
            let views = HeatViews::new(&scene, up, &selected.device)?;
            Ok::<_, PipelineError>((scene, views))
        });
        let is_same = threads.spawn(is_same);
        let text = opened.load_text_encoder(&selected.device).and_then(|encoder| {
            if let Some(note) = note_of_unknown(&encoder, std::slice::from_ref(&question)) {
                eprintln!("note: {note}");
            }
            Ok(encoder.embed_labels(&[scene_label(&question)])?)
        });
        let ended = |_| anyhow::anyhow!("a thread ended early");
        let scene = scene.join().map_err(ended)?;
        let is_same = is_same.join().map_err(ended)?;
        Ok::<_, anyhow::Error>((text?, scene?, is_same?))
    })?;
    if !is_same {
        bail!(
            "{}: the features were made with other weights of X-Decoder ({}, SHA-256 {}) than {}: give those with --xdecoder",
            features.display(),
            saved.about.xdecoder,
            saved.about.xdecoder_sha256,
            origin.source
        );
    }
    if scene.cloud.len() != saved.voxel_from_point.len() {
        bail!(
            "{}: has {} points, the features are of {}: both must be of one run",
            scan_path.display(),
            scene.cloud.len(),
            saved.voxel_from_point.len()
        );
    }
    let [_, num_channels] = text.dims();
    if num_channels != saved.num_channels {
        bail!("{}: {} channels, the words have {num_channels}", features.display(), saved.num_channels);
    }
    laps.lap("embed words");

    let score = similarity(&saved.features, &text)?;
    let level = args.level.unwrap_or_else(|| usual_level(&score));
    let found = regions(&saved.coords, &score, level, &scene.cloud.positions, &saved.voxel_from_point);
    laps.lap("answer");

    let heat = Heat::new(&score);
    let of_point: Vec<f32> = saved
        .voxel_from_point
        .iter()
        .map(|&voxel| usize::try_from(voxel).map_or(f32::NAN, |voxel| score[voxel]))
        .collect();
    let cloud_path = args.output.clone().unwrap_or_else(|| args.results.join(format!("query-{}.ply", slug(&question))));
    let picture_path = cloud_path.with_extension("png");
    write_cloud(&cloud_path, &scene, &of_point, &heat)?;
    laps.lap("write");
    let finite: Vec<f32> =
        of_point.iter().zip(0..).filter(|(_, i)| scene.cloud.is_finite(*i)).map(|(s, _)| *s).collect();
    let colors: Vec<[u8; 3]> = finite.iter().map(|&score| heat.color(score)).collect();
    let picture = heat_views.picture(&colors, &question, [heat.low, heat.high])?;
    write_png(&picture_path, &picture)?;
    laps.lap("draw");

    let mut out = std::io::stdout().lock();
    let shown = &found[..found.len().min(args.places)];
    if args.json {
        let report = json!({
            "question": question, "level": level, "places": shown, "cloud": cloud_path, "picture": picture_path,
            "best": heat.best, "seconds": laps.seconds(), "stages": laps.stages(),
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
    writeln!(out, "{} places with a cosine of {level:.3} or more; {:.2} s", found.len(), laps.seconds())?;
    writeln!(out, "{}\n{}", cloud_path.display(), picture_path.display())?;
    Ok(())
}

/// Scores to colours.
struct Heat {
    low: f32,
    high: f32,
    best: f32,
}

impl Heat {
    fn new(score: &[f32]) -> Self {
        let mut sorted = score.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let at = |share: f64| sorted.get(((sorted.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or(0.0);
        Self { low: at(COLDEST), high: at(HOTTEST), best: at(1.0) }
    }

    fn color(&self, score: f32) -> [u8; 3] {
        let span = self.high - self.low;
        heat_color(if span > 0.0 { ((score - self.low) / span).clamp(0.0, 1.0) } else { 0.0 })
    }
}

fn write_cloud(path: &Path, scene: &Scene, score: &[f32], heat: &Heat) -> Result<()> {
    let colors = score.iter().map(|&score| if score.is_finite() { heat.color(score) } else { [0; 3] }).collect();
    let cloud = PointCloud {
        positions: scene.cloud.positions.clone(),
        colors: Some(colors),
        normals: scene.cloud.normals.clone(),
        faces: scene.cloud.faces.clone(),
        ..PointCloud::default()
    };
    cloud.write_ply(path, &[Field::new("score", score.to_vec())]).with_context(|| path.display().to_string())?;
    Ok(())
}

/// A question as part of a file's name: letters and digits of any script, the rest as dashes.
fn slug(question: &str) -> String {
    let mut slug = String::new();
    for character in question.to_lowercase().chars() {
        if character.is_alphanumeric() {
            slug.push(character);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
        // File systems hold 255 bytes.
        if slug.len() > 100 {
            break;
        }
    }
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "question".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_name_files_in_any_script() {
        assert_eq!(slug("Something to sit on?"), "something-to-sit-on");
        assert_eq!(slug("椅子 или стул"), "椅子-или-стул");
        assert_eq!(slug("../.."), "question");
        assert!(slug(&"long ".repeat(100)).len() < 120);
    }

    #[test]
    fn heat_spans_the_scores() {
        let heat = Heat::new(&(0..=1000).map(|i| i as f32 / 1000.0).collect::<Vec<_>>());
        assert_eq!((heat.low, heat.high, heat.best), (0.05, 0.999, 1.0));
        assert_eq!(heat.color(-3.0), heat_color(0.0));
        assert_eq!(heat.color(1.0), heat_color(1.0));
        assert_eq!(Heat::new(&[0.3]).color(0.3), heat_color(0.0));
    }
}
