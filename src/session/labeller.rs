//! Labelling scans by words.

use std::path::PathBuf;
use std::thread::JoinHandle;

use burn::prelude::Tensor;
use glam::DMat3;
use serde_json::{Value as Json, json};

use super::SessionError;
use super::networks::{Network, Networks, WeightsOrigin};
use super::source::ViewSettings;
use crate::gpu::Selected;
use crate::images::draw::palette;
use crate::labels::Preset;
use crate::models::student::{Student, StudentConfig};
use crate::models::xdecoder::prompts::{BACKGROUND, scene_label};
use crate::models::xdecoder::{TextEmbeddings, TextEncoder, XDecoder};
use crate::ops::conv2d::Precision;
use crate::ops::float_values;
use crate::pipeline::{Compat, Options, Weights};
use crate::purify::{self, Affinities, ColorNormal};
use crate::stages::StageTimer;
use crate::weights::WeightsError;

/// Words embedded between two reports of progress.
const LABELS_AT_ONCE: usize = 8;

/// Source of the weights between neighbouring voxels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum AffinityKind {
    /// Similarity of the student's embeddings.
    #[default]
    Learned,
    /// Equal weights: a baseline that needs no student.
    Uniform,
    /// Similarity of colour and normal: another baseline.
    ColorNormal(ColorNormal),
}

impl AffinityKind {
    /// The networks that labelling needs.
    #[must_use]
    pub fn networks(self) -> &'static [Network] {
        match self {
            Self::Learned => &[Network::XDecoder, Network::Student],
            Self::Uniform | Self::ColorNormal(_) => &[Network::XDecoder],
        }
    }

    /// Returns the affinities, with the student if they are learned.
    pub(super) fn with(self, student: Option<&(Student, StudentConfig)>) -> Affinities<'_> {
        match (student, self) {
            (Some((student, config)), _) => Affinities::Learned { student, config: *config },
            (None, Self::ColorNormal(kernel)) => Affinities::ColorNormal(kernel),
            (None, Self::Uniform | Self::Learned) => Affinities::Uniform,
        }
    }

    /// Description for reports and cache keys.
    #[must_use]
    pub fn to_json(self) -> Json {
        match self {
            Self::ColorNormal(kernel) => json!({ "color_normal": kernel }),
            Self::Uniform => "uniform".into(),
            Self::Learned => "learned".into(),
        }
    }
}

/// Words to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// Names of the labels.
    pub labels: Vec<String>,
    /// Colours of the labels.
    pub colors: Vec<[u8; 3]>,
    /// Background words: points nearest to them stay unlabelled.
    pub background: Vec<String>,
}

impl Words {
    /// Labels in well separated colours. The background competes with them, so that a point which is none of
    /// them stays unlabelled.
    #[must_use]
    pub fn new(labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let labels: Vec<String> = labels.into_iter().map(Into::into).collect();
        let is_label = labels.iter().any(|label| label.eq_ignore_ascii_case(BACKGROUND));
        let background = if is_label { Vec::new() } else { vec![BACKGROUND.to_owned()] };
        Self { colors: palette(labels.len()), labels, background }
    }

    /// Labels of a benchmark, in its own colours if it has any. They are meant to cover a scan, so there are
    /// no background words.
    #[must_use]
    pub fn of_preset(preset: Preset) -> Self {
        let words = Self::new(preset.labels.iter().copied()).without_background();
        let colors = preset.colors.map_or_else(|| words.colors.clone(), <[_]>::to_vec);
        Self { colors, ..words }
    }

    /// The same labels without background words: every point gets the nearest label.
    #[must_use]
    pub fn without_background(self) -> Self {
        Self { background: Vec::new(), ..self }
    }

    /// The labels, then the background words.
    pub(super) fn all(&self) -> Vec<String> {
        self.labels.iter().chain(&self.background).cloned().collect()
    }
}

/// Options of labelling, independent of the words.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelOptions {
    /// Source of the weights between neighbouring voxels.
    pub affinities: AffinityKind,
    /// Factor of the student's cosines before the softmax.
    pub sharpness: f32,
    /// Smallest cosine with the nearest word; points below it stay unlabelled.
    pub threshold: Option<f32>,
    /// Seed for [`Compat::Reference`], which rotates and scales every scene at random.
    pub seed: u64,
    /// Edge of a voxel in the scan's unit; `None` for 2 cm, or more if most voxels would be alone.
    pub voxel: Option<f64>,
    /// Neighbours per voxel, 1 to 128.
    pub neighbors: usize,
    /// Number of times the affinities are applied; 0 leaves the lifted features unchanged.
    pub iterations: usize,
    /// Settings of views.
    pub views: ViewSettings,
}

impl Default for LabelOptions {
    fn default() -> Self {
        let usual = purify::Settings::default();
        Self {
            affinities: AffinityKind::default(),
            sharpness: usual.sharpness,
            threshold: None,
            seed: 0,
            voxel: None,
            neighbors: usual.neighbors,
            iterations: usual.iterations,
            views: ViewSettings::default(),
        }
    }
}

impl LabelOptions {
    /// Options of the pipeline for voxels of edge `voxel` in a scan turned by `turn`.
    pub(super) fn of_pipeline(&self, voxel: f64, turn: DMat3, views: &ViewSettings) -> Options {
        let compat = views.compat;
        let voxel_transform = (compat == Compat::Reference).then(|| compat.voxel_transform(voxel, self.seed));
        Options {
            views: views.view_options(),
            turn,
            purify: purify::Settings {
                voxel_size: voxel,
                voxel_transform,
                neighbors: self.neighbors,
                iterations: self.iterations,
                sharpness: self.sharpness,
                working_bytes: usize::try_from(views.working_bytes()).unwrap_or(usize::MAX),
            },
            threshold: self.threshold,
        }
    }
}

/// Loaded networks and embedded words. Labels any number of scans.
pub struct Labeller<'s> {
    pub(super) selected: &'s Selected,
    pub(super) words: Words,
    pub(super) xdecoder: XDecoder,
    /// The student, if affinities are learned.
    pub(super) student: Option<(Student, StudentConfig)>,
    pub(super) text: TextEmbeddings,
    pub(super) options: LabelOptions,
    /// Settings of views, adapted to the model.
    pub(super) views: ViewSettings,
    /// Weights of X-Decoder, and of the student if there is one.
    pub(super) weights: Vec<Weights>,
    pub(super) xdecoder_origin: WeightsOrigin,
    pub(super) xdecoder_config: Option<PathBuf>,
    precision: Precision,
    /// Words that the model cannot know, see [`note_of_unknown`].
    pub(super) unknown: Vec<String>,
    /// Notes about the words, for the user.
    pub(super) notes: Vec<String>,
}

type Hashing = JoinHandle<Result<Weights, WeightsError>>;

/// Hashes the weights file of a network on another thread.
fn hash(model: &'static str, origin: &WeightsOrigin) -> Hashing {
    let origin = origin.clone();
    std::thread::spawn(move || Ok(Weights { model, source: origin.source.clone(), sha256: origin.sha256()? }))
}

impl<'s> Labeller<'s> {
    pub(super) fn load(
        selected: &'s Selected,
        networks: &Networks,
        words: Words,
        options: LabelOptions,
        timer: &mut StageTimer<'_>,
    ) -> Result<Self, SessionError> {
        let networks = networks.with_demo(options.affinities.networks());
        let is_learned = options.affinities == AffinityKind::Learned;
        // Opens weights first, so that missing ones are found before any work.
        let mut opened = networks.open_xdecoder()?;
        let student = is_learned.then(|| networks.open_student()).transpose()?;
        // Files are hashed while they are loaded.
        let mut hashing = vec![hash("xdecoder", &opened.origin)];
        hashing.extend(student.as_ref().map(|student| hash("student", &student.origin)));
        timer.progress("load weights", 0.0);
        let student = student.map(|student| {
            let source = student.origin.source.clone();
            student.load(&selected.device).map(|loaded| (loaded, source))
        });
        let student = student.transpose()?;
        let xdecoder = opened.load(&selected.device)?;
        let embedding = xdecoder.config.dim_proj;
        if let Some(((_, config), source)) = &student
            && config.input_dim != embedding + purify::GEOMETRY_CHANNELS
        {
            return Err(SessionError::OtherStudent {
                student: source.clone(),
                found: config.input_dim,
                embedding,
                geometry: purify::GEOMETRY_CHANNELS,
            });
        }
        let text = embed_words(&xdecoder, &words.all(), timer)?;
        let weights = hashing.into_iter().map(|hash| Ok(hash.join().map_err(|_| SessionError::Thread)??));
        let all = words.all();
        let unknown = xdecoder.text_encoder.unknown_words(&all).into_iter().map(str::to_owned).collect();
        let notes = Vec::from_iter(note_of_unknown(&xdecoder.text_encoder, &all));
        Ok(Self {
            selected,
            weights: weights.collect::<Result<_, SessionError>>()?,
            views: options.views.for_model(&xdecoder.config),
            xdecoder,
            student: student.map(|(student, _)| student),
            text,
            words,
            options,
            xdecoder_origin: opened.origin,
            xdecoder_config: networks.xdecoder.config.clone(),
            precision: opened.precision,
            unknown,
            notes,
        })
    }

    /// Settings of views, adapted to the model.
    #[must_use]
    pub fn views(&self) -> &ViewSettings {
        &self.views
    }

    /// Embeddings of the words by X-Decoder.
    #[must_use]
    pub fn text(&self) -> &TextEmbeddings {
        &self.text
    }

    /// Key of everything that results depend on, except the scene and the options.
    #[must_use]
    pub fn key(&self) -> Json {
        json!({
            "viewing": self.views.key(),
            "weights": self.weights.iter().map(|weights| &weights.sha256).collect::<Vec<_>>(),
            "xdecoder": self.xdecoder.config, "precision": format!("{:?}", self.precision),
            "device": self.selected.name,
        })
    }

    /// Weights that are used.
    #[must_use]
    pub fn weights(&self) -> &[Weights] {
        &self.weights
    }

    /// Device on which the networks run.
    #[must_use]
    pub fn device(&self) -> &Selected {
        self.selected
    }
}

/// Note about words that the model cannot know; `None` if it knows all of them.
#[must_use]
pub fn note_of_unknown(encoder: &TextEncoder, words: &[String]) -> Option<String> {
    let unknown = encoder.unknown_words(words).join(", ");
    let note = || format!("the model never met these words in training, so it cannot know them: {unknown}");
    (!unknown.is_empty()).then(note)
}

/// Embeds the labels `words` with X-Decoder, and adds a row for the background.
///
/// # Errors
/// [`SessionError::Op`].
pub fn embed_words(
    xdecoder: &XDecoder,
    words: &[String],
    timer: &mut StageTimer<'_>,
) -> Result<TextEmbeddings, SessionError> {
    let encoder = &xdecoder.text_encoder;
    let prompted: Vec<String> = words.iter().map(|word| scene_label(word)).chain([BACKGROUND.to_owned()]).collect();
    let mut rows = Vec::new();
    for (i, labels) in prompted.chunks(LABELS_AT_ONCE).enumerate() {
        timer.progress("embed words", (i * LABELS_AT_ONCE) as f64 / prompted.len() as f64);
        rows.push(encoder.embed_labels(labels)?);
    }
    let text =
        TextEmbeddings { labels: words.to_vec(), rows: Tensor::cat(rows, 0), logit_scale: encoder.logit_scale() };
    float_values(text.rows.clone())?;
    Ok(text)
}
