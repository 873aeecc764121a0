//! Labelling scans by words.

use std::path::PathBuf;
use std::thread::JoinHandle;

use burn::prelude::Tensor;
use serde_json::{Value as Json, json};

use super::SessionError;
use super::encoders::{LoadedEncoders, OpenEncoders};
use super::image_model::ImageModelKind;
use super::method::Method;
use super::networks::{Network, Networks, WeightsOrigin};
use super::options::LabelOptions;
use super::plan::Plan;
use super::source::ViewSettings;
use super::text::{TextModel, check_width};
use crate::gpu::Selected;
use crate::images::draw::palette;
use crate::labels::Preset;
use crate::models::student::{Student, StudentConfig};
use crate::models::xdecoder::TextEmbeddings;
use crate::models::xdecoder::prompts::BACKGROUND;
use crate::ops::conv2d::Precision;
use crate::ops::float_values;
use crate::pipeline::{Compat, Weights};
use crate::purify;
use crate::stages::StageTimer;
use crate::weights::WeightsError;

/// Words embedded between two reports of progress.
pub(super) const LABELS_AT_ONCE: usize = 8;

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
        Self { colors: palette(labels.len()), labels, background: Vec::new() }.with_background()
    }

    /// The same labels with the usual background, unless it is one of them.
    #[must_use]
    pub fn with_background(self) -> Self {
        let is_label = self.labels.iter().any(|label| label.eq_ignore_ascii_case(BACKGROUND));
        Self { background: if is_label { Vec::new() } else { vec![BACKGROUND.to_owned()] }, ..self }
    }

    /// Labels of a benchmark, in its own colours if it has any. They are meant to cover a scan, so there are
    /// no background words.
    #[must_use]
    pub fn of_preset(preset: Preset) -> Self {
        let words = Self::new(preset.labels.iter().copied()).without_background();
        let colors = preset.colors.map_or_else(|| words.colors.clone(), <[_]>::to_vec);
        Self { colors, ..words }
    }

    /// Labels of a benchmark, as a run with these options asks for them: as the published code words them if the
    /// run does as it does.
    #[must_use]
    pub fn asked(preset: Preset, options: &LabelOptions) -> Self {
        let is_published = options.views.compat == Compat::Reference
            && options.method.is_none_or(|method| method == Method::GeoPurify);
        let words = Self::of_preset(preset);
        if is_published { Self { labels: preset.published_words(), ..words } } else { words }
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

/// Loaded networks and embedded words. Labels any number of scans.
pub struct Labeller<'s> {
    pub(super) selected: &'s Selected,
    pub(super) words: Words,
    pub(super) plan: Plan,
    pub(super) encoders: LoadedEncoders,
    /// The student, if affinities are learned.
    pub(super) student: Option<(Student, StudentConfig)>,
    pub(super) text: TextEmbeddings,
    pub(super) options: LabelOptions,
    /// Settings of views, adapted to the model.
    pub(super) views: ViewSettings,
    /// Weights of all networks. The first ones embedded the words.
    pub(super) weights: Vec<Weights>,
    pub(super) text_origin: WeightsOrigin,
    pub(super) text_config: Option<PathBuf>,
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
        let plan = options.plan(networks)?;
        let networks = networks.with_demo(&plan.networks);
        // Opens weights first, so that missing ones are found before any work.
        let encoders = OpenEncoders::open(&networks, &plan)?;
        let has_student = plan.networks.contains(&Network::Student);
        let student = has_student.then(|| networks.open_student()).transpose()?;
        // Files are hashed while they are loaded.
        let (text_network, text_origin) = encoders.text();
        let text_origin = text_origin.clone();
        let network_origin = encoders.network().cloned();
        let mut hashing = vec![hash(text_network.name(), &text_origin)];
        hashing.extend(student.as_ref().map(|student| hash("student", &student.origin)));
        hashing.extend(network_origin.as_ref().map(|origin| hash("openscene", origin)));
        timer.progress("load weights", 0.0);
        let student = student.map(|student| {
            let source = student.origin.source.clone();
            student.load(&selected.device).map(|loaded| (loaded, source))
        });
        let student = student.transpose()?;
        let views = encoders.views(&options.views);
        let (encoders, text_model) = encoders.load(&selected.device)?;
        let text = embed_words(&text_model, &words.all(), timer)?;
        let [_, embedding] = text.rows.dims();
        if let (Some(network), Some(origin)) = (encoders.network(), network_origin) {
            check_width(&origin.source, network.config().text_width(), embedding)?;
        }
        if let Some(((_, config), source)) = &student
            && config.input_dim != embedding + purify::GEOMETRY_CHANNELS
        {
            return Err(SessionError::OtherStudent {
                student: source.clone(),
                found: config.input_dim,
                model: text_network.name(),
                embedding,
                geometry: purify::GEOMETRY_CHANNELS,
            });
        }
        let weights = hashing.into_iter().map(|hash| Ok(hash.join().map_err(|_| SessionError::Thread)??));
        let all = words.all();
        let unknown = text_model.unknown_words(&all).into_iter().map(str::to_owned).collect();
        let notes = Vec::from_iter(note_of_unknown(&text_model, &all));
        let text_config = networks.choice(text_network).config.clone();
        Ok(Self {
            selected,
            weights: weights.collect::<Result<_, SessionError>>()?,
            views,
            plan,
            encoders,
            student: student.map(|(student, _)| student),
            text,
            words,
            options,
            text_origin,
            text_config,
            precision: networks.precision,
            unknown,
            notes,
        })
    }

    /// Settings of views, adapted to the model.
    #[must_use]
    pub fn views(&self) -> &ViewSettings {
        &self.views
    }

    /// How scans are labelled.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The model that sees the views; `None` if no view is looked at.
    #[must_use]
    pub fn image_model(&self) -> Option<ImageModelKind> {
        self.encoders.image_model()
    }

    /// Embeddings of the words.
    #[must_use]
    pub fn text(&self) -> &TextEmbeddings {
        &self.text
    }

    /// Key of everything that results depend on, except the scene and the options.
    #[must_use]
    pub fn key(&self) -> Json {
        let mut key = json!({
            "viewing": self.views.key(),
            "weights": self.weights.iter().map(|weights| &weights.sha256).collect::<Vec<_>>(),
            "method": self.plan.method.to_string(),
            "share": self.options.share, "turns": self.options.turns, "repeats": self.options.repeats,
            "ensemble": self.options.ensemble.map(|rule| rule.to_string()),
            "fused": self.options.fused.as_ref().map(|place| place.to_string_lossy()),
            "precision": format!("{:?}", self.precision),
            "device": self.selected.name,
        });
        if let (Json::Object(key), Json::Object(of_encoders)) = (&mut key, self.encoders.key()) {
            key.extend(of_encoders);
        }
        key
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
pub fn note_of_unknown(model: &TextModel, words: &[String]) -> Option<String> {
    let unknown = model.unknown_words(words).join(", ");
    let note = || format!("the model never met these words in training, so it cannot know them: {unknown}");
    (!unknown.is_empty()).then(note)
}

/// Embeds the labels `words`, and adds a row for the background.
///
/// # Errors
/// [`SessionError::Op`].
pub fn embed_words(
    model: &TextModel,
    words: &[String],
    timer: &mut StageTimer<'_>,
) -> Result<TextEmbeddings, SessionError> {
    let prompted = model.prompted(words);
    let mut rows = Vec::new();
    for (i, labels) in prompted.chunks(LABELS_AT_ONCE).enumerate() {
        timer.progress("embed words", (i * LABELS_AT_ONCE) as f64 / prompted.len() as f64);
        rows.push(model.embed_labels(labels)?);
    }
    let text = TextEmbeddings { labels: words.to_vec(), rows: Tensor::cat(rows, 0), logit_scale: model.logit_scale() };
    float_values(text.rows.clone())?;
    Ok(text)
}
