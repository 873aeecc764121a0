//! Labelling a scan by words, as `infer` and `eval` do it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use burn::prelude::{Device, Tensor};

use super::affinities::AffinityArgs;
use super::progress::Bars;
use super::segment::XDecoderArgs;
use super::viewing::{Look, Placed, ViewingArgs};
use super::weights::{WeightsOrigin, demo_of, demo_stands_in, open_weights};
use crate::gpu::{DeviceSelection, Selected, select};
use crate::models::student::{AffinityPredictor, Student, StudentConfig};
use crate::models::xdecoder::prompts::{BACKGROUND, scene_label};
use crate::models::xdecoder::{TextEmbeddings, TextEncoder, XDecoder, XDecoderConfig};
use crate::ops::conv2d::Precision;
use crate::ops::float_values;
use crate::pipeline::{Compat, Inferred, Models, OnView, Options, Scene, Weights, infer, voxel_size};
use crate::purify;
use crate::stages::Laps;

/// Words that are embedded between two steps of the progress bar.
const LABELS_AT_ONCE: usize = 8;

/// Arguments that say how scans are labelled, whatever the words.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct LabellingArgs {
    /// Points whose cosine with the nearest word is lower stay unlabelled, -1 to 1
    #[arg(long, value_name = "COSINE", value_parser = cosine, allow_negative_numbers = true)]
    pub(super) threshold: Option<f32>,
    /// For --compat reference, which turns and scales every scene at random
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Edge of a voxel, in the scan's unit [default: 2 cm, more where points are farther apart]
    #[arg(long)]
    pub(super) voxel: Option<f64>,
    /// Neighbours per voxel, 1 to 128
    #[arg(long, default_value_t = purify::Settings::default().neighbors)]
    pub(super) neighbors: usize,
    /// How often the affinities are applied; 0 leaves features as they were lifted
    #[arg(long, default_value_t = purify::Settings::default().iterations)]
    pub(super) iterations: usize,
    #[command(flatten)]
    pub(super) affinities: AffinityArgs,
    #[command(flatten)]
    pub(super) viewing: ViewingArgs,
    #[command(flatten)]
    pub(super) xdecoder: XDecoderArgs,
    /// Weights of the student: .pth as the reference writes it, safetensors, or a name in the store
    /// [default: the store's `student`, else the built-in `student-demo`]
    #[arg(long, value_name = "FILE|NAME")]
    student: Option<PathBuf>,
    /// auto, gpu, cpu, or an adapter's index as `geopurify devices` lists it
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
}

/// A number from -1 to 1.
fn cosine(text: &str) -> Result<f32, String> {
    let value = text.parse().map_err(|error| format!("{error}"))?;
    if (-1.0..=1.0).contains(&value) { Ok(value) } else { Err("expected -1 to 1".to_owned()) }
}

/// The models as they are used for all scans of a run.
pub(super) struct Loaded {
    pub(super) selected: Selected,
    xdecoder: XDecoder,
    /// Where affinities are learned.
    student: Option<(Student, StudentConfig)>,
    pub(super) text: TextEmbeddings,
    /// Of X-Decoder, and of the student where there is one.
    pub(super) weights: Vec<Weights>,
    pub(super) xdecoder_origin: WeightsOrigin,
    pub(super) precision: Precision,
    /// How scenes are looked at, as suits the model.
    pub(super) viewing: ViewingArgs,
    /// What the user should know of the words.
    notes: Vec<String>,
}

impl Loaded {
    /// What X-Decoder is built as.
    pub(super) fn xdecoder_config(&self) -> &XDecoderConfig {
        &self.xdecoder.config
    }
}

/// A scan with its labels.
pub(super) struct Labelled<'a> {
    pub(super) placed: Placed<'a>,
    pub(super) inferred: Inferred,
    /// As they were used.
    pub(super) options: Options,
    /// What the user should know.
    pub(super) notes: Vec<String>,
}

impl LabellingArgs {
    /// Loads the networks and embeds `words`.
    pub(super) fn load(&self, words: &[String]) -> Result<Loaded> {
        let mut bars = Bars::new();
        let (mut xdecoder, mut student) = (self.xdecoder.clone(), self.student.clone());
        let needed: &[&str] = if self.affinities.are_learned() { &["xdecoder", "student"] } else { &["xdecoder"] };
        // The two belong together: where one is there, the other must be its.
        if xdecoder.is_usual() && student.is_none() && demo_stands_in(needed) {
            xdecoder.take_demo();
            student = demo_of("student");
        }
        // Missing weights should not cost any work.
        let mut opened = xdecoder.open()?;
        let given = student.as_deref();
        let weights = self.affinities.are_learned().then(|| open_weights(given, "student")).transpose()?;
        let student =
            weights.map(|(weights, manifest)| (weights, WeightsOrigin::new(given, "student", manifest.as_ref())));
        // The files are hashed while they are loaded.
        let origins = [("xdecoder", Some(&opened.origin)), ("student", student.as_ref().map(|(_, origin)| origin))];
        let hashing: Vec<_> = origins
            .into_iter()
            .filter_map(|(model, origin)| Some((model, origin?.clone())))
            .map(|(model, origin)| (model, origin.source.clone(), std::thread::spawn(move || origin.sha256())))
            .collect();
        let selected = select(self.device)?;
        eprintln!("device: {} ({})", selected.name, selected.why);
        bars.show("load weights", 0.0);
        let loaded = student.map(|(weights, origin)| -> Result<_> {
            let (predictor, config, report) = AffinityPredictor::load(weights, &selected.device)?;
            log::info!("{report}");
            Ok((predictor.fold(), config, origin))
        });
        let loaded = loaded.transpose()?;
        let xdecoder = opened.load(&selected.device)?;
        let dim = xdecoder.config.dim_proj;
        if let Some((_, config, origin)) = &loaded
            && config.input_dim != dim + purify::GEOMETRY_CHANNELS
        {
            bail!(
                "{}: the student takes {} channels, X-Decoder's embeddings have {dim} and colour and normal {}: these weights do not belong together",
                origin.source,
                config.input_dim,
                purify::GEOMETRY_CHANNELS
            );
        }
        let text = embed_words(&xdecoder, words, &mut bars)?;
        bars.finish();
        let weights = hashing.into_iter().map(|(model, source, hash)| {
            let sha256 = hash.join().map_err(|_| anyhow::anyhow!("hashing the weights ended early"))??;
            Ok(Weights { model, source, sha256 })
        });
        let weights = weights.collect::<Result<Vec<_>>>()?;
        let xdecoder_origin = opened.origin;
        let precision = opened.precision;
        let student = loaded.map(|(student, config, _)| (student, config));
        let viewing = self.viewing.for_model(&xdecoder.config);
        let notes = Vec::from_iter(note_of_unknown(&xdecoder.text_encoder, words));
        Ok(Loaded { selected, xdecoder, student, text, weights, xdecoder_origin, precision, viewing, notes })
    }

    /// How a scan is labelled, in voxels of this edge.
    fn options(&self, voxel: f64, viewing: &ViewingArgs) -> Options {
        let compat = viewing.compat;
        let voxel_transform = (compat == Compat::Reference).then(|| compat.voxel_transform(voxel, self.seed));
        Options {
            look: viewing.look_options(),
            purify: purify::Settings {
                voxel_size: voxel,
                voxel_transform,
                neighbors: self.neighbors,
                iterations: self.iterations,
                sharpness: self.affinities.sharpness,
                working_bytes: (viewing.working_memory as usize) << 20,
            },
            threshold: self.threshold,
        }
    }

    /// Labels `scene` by the first `num_labels` words that were loaded; those behind them stand for the background.
    pub(super) fn label<'a>(
        &self,
        scene: &Scene,
        look: Look<'a>,
        loaded: &Loaded,
        num_labels: usize,
        laps: &mut Laps,
        on_view: &mut OnView<'_>,
    ) -> Result<Labelled<'a>> {
        let device: &Device = &loaded.selected.device;
        let mut notes: Vec<String> = loaded.notes.iter().chain(&scene.notes).cloned().collect();
        let mut bars = Bars::new();
        bars.show("place cameras", 0.0);
        let placed = Placed::new(scene, look, &loaded.viewing, device)?;
        notes.extend(placed.notes.iter().cloned());
        laps.lap("place cameras");

        let (voxel, why) = self.voxel.map_or_else(|| voxel_size(scene), |voxel| (voxel, None));
        notes.extend(why);
        let options = self.options(voxel, &loaded.viewing);
        let models = Models {
            xdecoder: &loaded.xdecoder,
            affinities: self.affinities.with(loaded.student.as_ref()),
            text: &loaded.text,
            num_labels,
        };
        let result = infer(
            scene,
            placed.views(),
            &placed.renderer,
            &models,
            &options,
            device,
            laps,
            &mut |stage, share| bars.show(stage, share),
            on_view,
        );
        bars.finish();
        let inferred = result?;
        notes.extend(inferred.purified.report.notes.iter().cloned());
        notes.extend(notes_of(&inferred));
        Ok(Labelled { placed, inferred, options, notes })
    }
}

/// What to say of words that the model cannot know.
pub(super) fn note_of_unknown(encoder: &TextEncoder, words: &[String]) -> Option<String> {
    let unknown = encoder.unknown_words(words).join(", ");
    let said = || format!("the model never met these words in training, expect nothing of them: {unknown}");
    (!unknown.is_empty()).then(said)
}

/// The labels `words` as X-Decoder embeds them, and what stands for the background.
pub(super) fn embed_words(xdecoder: &XDecoder, words: &[String], bars: &mut Bars) -> Result<TextEmbeddings> {
    let encoder = &xdecoder.text_encoder;
    let prompted: Vec<String> = words.iter().map(|word| scene_label(word)).chain([BACKGROUND.to_owned()]).collect();
    let mut rows = Vec::new();
    for (i, labels) in prompted.chunks(LABELS_AT_ONCE).enumerate() {
        bars.show("embed words", (i * LABELS_AT_ONCE) as f64 / prompted.len() as f64);
        rows.push(encoder.embed_labels(labels)?);
    }
    let text =
        TextEmbeddings { labels: words.to_vec(), rows: Tensor::cat(rows, 0), logit_scale: encoder.logit_scale() };
    float_values(text.rows.clone())?;
    Ok(text)
}

/// Errors of the library name the file themselves.
pub(super) fn without_prefix<'a>(text: &'a str, name: &str) -> &'a str {
    text.strip_prefix(name).map_or(text, |rest| rest.trim_start_matches(": "))
}

/// What the user should know of the views.
fn notes_of(inferred: &Inferred) -> Vec<String> {
    let look = &inferred.look;
    let mut notes = Vec::new();
    if look.without_points > 0 {
        notes.push(format!("{} of {} views show too little and were left out", look.without_points, look.views));
    }
    if let Some(error) = &look.first_error {
        notes.push(format!("{} frames could not be read, the first: {error}", look.unreadable));
    }
    if look.without_depth > 0 {
        notes.push(format!(
            "{} frames have no depth map: what hides what was decided by depth drawn from the scan",
            look.without_depth
        ));
    }
    if look.unseen_points > 0 {
        notes.push(format!(
            "{} of {} points are in no view: they take what the nearest seen point has",
            look.unseen_points, look.points
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_cosines() {
        assert_eq!(cosine("-0.5"), Ok(-0.5));
        assert!(cosine("1.5").is_err() && cosine("NaN").is_err() && cosine("x").is_err());
    }
}
