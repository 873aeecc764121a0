//! Import of a model's checkpoint into the store.
//!
//! The store handles tensors and knows no model. The models know their keys and no files. This module
//! connects the two.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::clip::{ClipTextConfig, HuggingFaceClip, is_hugging_face};
use super::lseg::{LSegConfig, WithClip};
use super::minkunet::MinkUnetConfig;
use super::signature::{self, OtherFile};
use super::sonata::{PointceptEncoder, SonataConfig};
use super::student::StudentConfig;
use super::xdecoder::XDecoderConfig;
use crate::weights::registry::{Licence, Published, Registry};
use crate::weights::store::{Installed, Manifest, Store, StoreError, today};
use crate::weights::{LoadReport, TensorSource, WeightsError, WeightsFile, file_sha256, key_matches, match_keys};

/// A configuration, and the keys with their shapes that belong to it.
type Plan = (Json, Vec<(String, Vec<usize>)>);
/// Function that returns the shape of a tensor of the checkpoint.
type Shapes<'a> = &'a dyn Fn(&str) -> Option<Vec<usize>>;

/// A model whose weights can be imported.
#[derive(Debug)]
pub struct ModelKind {
    /// Name on the command line and in the store.
    pub name: &'static str,
    /// Entry of a checkpoint that holds the configuration, if the reference writes one.
    config_key: Option<&'static str>,
    /// Returns configuration and keys. The configuration is the given one, else derived from the shapes, else
    /// the published one, so that the report can list what is missing.
    plan: fn(Option<Json>, Shapes) -> Result<Plan, String>,
    /// Patterns of keys that are not imported, with the reason.
    unused: &'static [(&'static str, &'static str)],
}

/// The model that may take its text side from another file.
const LSEG: &str = "lseg";
/// Licence of weights whose terms nobody stated.
const UNKNOWN: &str = "unknown";

/// Every model whose weights can be imported.
pub const MODELS: &[ModelKind] = &[
    ModelKind {
        name: "student",
        config_key: None,
        plan: |given, shape| {
            let guess = || StudentConfig::of(shape).unwrap_or(StudentConfig::PUBLISHED);
            plan(given, guess, |_| Ok::<_, String>(()), StudentConfig::keys)
        },
        unused: StudentConfig::UNUSED,
    },
    ModelKind {
        name: "sonata",
        config_key: Some("config"),
        plan: |given, shape| {
            let guess = || SonataConfig::of(shape).unwrap_or_else(SonataConfig::published);
            plan(given, guess, SonataConfig::validate, SonataConfig::keys)
        },
        unused: SonataConfig::UNUSED,
    },
    ModelKind {
        name: "xdecoder",
        config_key: None,
        plan: |given, shape| {
            let guess = || XDecoderConfig::of(shape).unwrap_or_else(XDecoderConfig::focal_l);
            plan(given, guess, XDecoderConfig::validate, XDecoderConfig::keys)
        },
        unused: XDecoderConfig::UNUSED,
    },
    ModelKind {
        name: "openscene",
        config_key: None,
        plan: |given, shape| {
            let guess = || MinkUnetConfig::of(shape).unwrap_or_else(MinkUnetConfig::openscene);
            plan(given, guess, MinkUnetConfig::validate, MinkUnetConfig::keys)
        },
        unused: MinkUnetConfig::UNUSED,
    },
    ModelKind {
        name: LSEG,
        config_key: None,
        plan: |given, shape| {
            let guess = || LSegConfig::of(shape).unwrap_or_else(LSegConfig::published);
            plan(given, guess, LSegConfig::validate, LSegConfig::keys)
        },
        unused: LSegConfig::UNUSED,
    },
    ModelKind {
        name: "clip",
        config_key: None,
        plan: |given, shape| {
            let guess = || ClipTextConfig::of(shape).unwrap_or_else(ClipTextConfig::vit_b32);
            plan(given, guess, ClipTextConfig::validate, ClipTextConfig::keys)
        },
        unused: ClipTextConfig::UNUSED,
    },
];

fn plan<C: Serialize + DeserializeOwned, E: std::fmt::Display>(
    given: Option<Json>,
    guess: impl FnOnce() -> C,
    validate: impl FnOnce(&C) -> Result<(), E>,
    keys: impl FnOnce(&C) -> Vec<(String, Vec<usize>)>,
) -> Result<Plan, String> {
    let config = match given {
        Some(json) => serde_json::from_value(json).map_err(|error| error.to_string())?,
        None => guess(),
    };
    validate(&config).map_err(|error| error.to_string())?;
    let json = serde_json::to_value(&config).map_err(|error| error.to_string())?;
    Ok((json, keys(&config)))
}

impl ModelKind {
    /// Returns the model of this name.
    ///
    /// # Errors
    /// [`ImportError::UnknownModel`], which lists the known names.
    pub fn named(name: &str) -> Result<&'static Self, ImportError> {
        MODELS.iter().find(|kind| kind.name == name).ok_or_else(|| {
            let known: Vec<_> = MODELS.iter().map(|kind| kind.name).collect();
            ImportError::UnknownModel { name: name.to_owned(), known: known.join(", ") }
        })
    }
}

/// Options of an import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name in the store; by default the model's name.
    pub name: Option<String>,
    /// JSON file with the model's configuration, used instead of the checkpoint's own.
    pub config: Option<PathBuf>,
    /// Terms of use to record, instead of those of the published weights.
    pub licence: Option<String>,
    /// Origin of the weights to record, instead of the registry's.
    pub origin: Option<String>,
    /// File with CLIP's text side, for an LSeg that lacks it.
    pub clip: Option<PathBuf>,
    /// If true, keys that the model does not know are skipped instead of being an error.
    pub allow_unused: bool,
}

/// Result of an import.
#[derive(Debug)]
pub struct Imported {
    /// The weights in the store.
    pub installed: Installed,
    /// True if weights of that name were replaced.
    pub replaced: bool,
    /// Report of every key.
    pub report: LoadReport,
    /// Keys that were not imported, by reason.
    pub skipped: Vec<Skipped>,
    /// Further notes for the user.
    pub notes: Vec<String>,
}

/// Keys of a checkpoint that were not imported for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The reason.
    pub reason: String,
    /// The keys.
    pub keys: Vec<String>,
}

/// Error of an import.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// There is no model of this name.
    #[error("there is no model '{name}'; there are {known}")]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// The known names.
        known: String,
    },
    /// The file is of another system.
    #[error(transparent)]
    OtherFile(#[from] OtherFile),
    /// An LSeg lacks the text side that belongs to it.
    #[error(
        "{}: this LSeg lacks CLIP's text side; import it with one: geopurify weights import lseg {} --clip ViT-B-32.pt",
        path.display(),
        path.display()
    )]
    NoText {
        /// File concerned.
        path: PathBuf,
    },
    /// A text side was given for a model that is not LSeg.
    #[error("{model} has no use for --clip: only LSeg takes CLIP's text side")]
    NoUseForClip {
        /// The model asked for.
        model: &'static str,
    },
    /// The configuration is not valid for the model.
    #[error("{}: {reason}", path.display())]
    Config {
        /// File the configuration is in.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },
    /// The checkpoint lacks weights that the model needs, or has others.
    #[error("{source}\na variant of the model needs its configuration: --config FILE.json")]
    Incomplete {
        /// Report of every key.
        source: WeightsError,
    },
    /// An error of reading the checkpoint.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An error of the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Imports the weights in `file` into the store, one tensor at a time. Neither the checkpoint nor the stored
/// weights are ever in memory as a whole. `progress` receives the bytes written and their total.
///
/// # Errors
/// [`ImportError`]. The store is then unchanged.
pub fn import(
    store: &Store,
    registry: &Registry,
    model: &str,
    file: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Imported, ImportError> {
    let kind = ModelKind::named(model)?;
    let name = options.name.as_deref().unwrap_or(kind.name);
    let replaced = store.path(name)?.exists();
    let mut weights = WeightsFile::open(file)?;

    // A file exported by a store has a manifest that describes it.
    let of_store = Manifest::within(&weights);
    let own_config = if options.config.is_none() { own_config(&weights, kind)? } else { None };
    let OwnNames { source, skipped: of_training, note } = in_own_names(&mut weights);
    let mut clip = options.clip.as_deref().map(WeightsFile::open).transpose()?;
    let mut weights: Box<dyn TensorSource + '_> = match &mut clip {
        Some(clip) if kind.name == LSEG => Box::new(WithClip::new(source, in_own_names(clip).source)),
        Some(_) => return Err(ImportError::NoUseForClip { model: kind.name }),
        None => source,
    };
    let inventory = weights.inventory().into_owned();

    signature::expect(kind.name, &inventory)?;
    // A tensor without elements may declare any extents, so it is ignored. The others are limited by the
    // file.
    let shapes = |key: &str| inventory.shape(key).filter(|shape| !shape.contains(&0));
    if kind.name == LSEG && LSegConfig::lacks_text(&shapes) {
        return Err(ImportError::NoText { path: file.to_path_buf() });
    }
    let (given, given_in) = match &options.config {
        Some(path) => (Some(read_config(path)?), path.as_path()),
        None => (own_config, file),
    };
    let invalid = |reason| ImportError::Config { path: given_in.to_path_buf(), reason };
    let (mut config, keys) = (kind.plan)(given, &shapes).map_err(invalid)?;

    let patterns: Vec<_> = kind.unused.iter().map(|(pattern, _)| *pattern).collect();
    let mut report = match_keys(&*weights, &keys, &patterns);
    let mut skipped = skipped(kind, &report);
    skipped.extend(of_training);
    if options.allow_unused && !report.unused.is_empty() {
        let keys = std::mem::take(&mut report.unused);
        report.ignored.extend(keys.iter().cloned());
        report.ignored.sort();
        skipped.push(Skipped { reason: "the model has no such keys (--allow-unused)".to_owned(), keys });
    }
    report.ensure_complete().map_err(|source| ImportError::Incomplete { source })?;

    let source_sha256 = file_sha256(file)?;
    let published = published(registry, kind, file, &source_sha256).filter(|_| of_store.is_none());
    if let Some(entry) = published.filter(|entry| options.config.is_none() && is_the_file(entry, file, &source_sha256))
        && let Some(config) = config.as_object_mut()
    {
        config.extend(entry.config.clone());
    }
    let terms = |id: &str| Licence { id: id.to_owned(), url: None, non_commercial: false, note: None };
    let manifest = Manifest {
        model: kind.name.to_owned(),
        config,
        licence: match (&options.licence, &of_store, published) {
            (Some(id), ..) => terms(id),
            (None, Some(of_store), _) => of_store.licence.clone(),
            (None, None, Some(published)) => published.licence.clone(),
            (None, None, None) => terms(UNKNOWN),
        },
        origin: options.origin.clone().or(of_store.map(|of_store| of_store.origin)).unwrap_or_else(|| {
            let published = published.filter(|published| !differs(published, &source_sha256));
            published.map_or("a file of the user's", |published| published.origin()).to_owned()
        }),
        source_file: file.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned()),
        source_bytes: std::fs::metadata(file).map_or(0, |metadata| metadata.len()),
        source_sha256,
        imported: today(),
    };
    let mut notes: Vec<String> = note.into_iter().chain(notes(&manifest, published)).collect();
    notes.extend(options.clip.as_ref().map(|clip| format!("the text side is that of {}", clip.display())));
    let installed = store.install(name, &mut &mut *weights, &keys, &manifest, progress)?;
    Ok(Imported { installed, replaced, report, skipped, notes })
}

/// The tensors of a file under the names that the models know them by.
pub struct OwnNames<'a> {
    /// The tensors.
    pub source: Box<dyn TensorSource + 'a>,
    /// Tensors of the file that belong to a training, not to the model.
    pub skipped: Option<Skipped>,
    /// Note for the user.
    pub note: Option<String>,
}

/// Gives the tensors of a file the names that the models know. CLIP in Hugging Face's layout and encoders in
/// checkpoints of Pointcept's training have others.
pub fn in_own_names(weights: &mut WeightsFile) -> OwnNames<'_> {
    fn plain<'a>(source: Box<dyn TensorSource + 'a>) -> OwnNames<'a> {
        OwnNames { source, skipped: None, note: None }
    }
    if is_hugging_face(&|key| weights.contents().shape(key)) {
        return plain(Box::new(HuggingFaceClip::new(weights)));
    }
    match PointceptEncoder::new(weights) {
        Err(source) => plain(Box::new(source)),
        Ok(mut encoder) => {
            let keys = std::mem::take(&mut encoder.others);
            let reason = format!("parts of the training that are not the {}'s encoder", encoder.whose);
            let note = format!("a checkpoint of a training: the encoder of its {} is used", encoder.whose);
            let skipped = (!keys.is_empty()).then_some(Skipped { reason, keys });
            OwnNames { source: Box::new(encoder), skipped, note: Some(note) }
        }
    }
}

/// True if a file has the hash or the name of the published one.
fn is_the_file(published: &Published, file: &Path, sha256: &str) -> bool {
    published.sha256.as_deref() == Some(sha256) || file.file_name().is_some_and(|name| name == published.file.as_str())
}

/// Finds the published weights that a file most likely is: those with the same hash, else with the same file
/// name. A file whose hash differs from the only one that is published counts as made of it, so that terms
/// are not lost. Where no hash is published, as for the student, another file is the user's own.
fn published<'a>(registry: &'a Registry, kind: &ModelKind, file: &Path, sha256: &str) -> Option<&'a Published> {
    let of_model = || registry.entries.iter().filter(|entry| entry.model == kind.name);
    of_model()
        .find(|entry| entry.sha256.as_deref() == Some(sha256))
        .or_else(|| of_model().find(|entry| file.file_name().is_some_and(|name| name == entry.file.as_str())))
        .or_else(|| of_model().find(|entry| entry.sha256.is_some()))
}

/// Returns true if a file is known to differ from the published one.
fn differs(published: &Published, sha256: &str) -> bool {
    published.sha256.as_ref().is_some_and(|expected| *expected != sha256)
}

fn notes(manifest: &Manifest, published: Option<&Published>) -> Vec<String> {
    let mut notes = vec![format!("licence: {}", manifest.licence)];
    if manifest.licence.id == UNKNOWN {
        notes
            .push("these are weights of your own: state their terms with --license, their origin with --origin".into());
    }
    if published.is_some_and(|published| differs(published, &manifest.source_sha256)) {
        notes.push(
            "this is not the published file, going by its SHA-256; the licence recorded is that of the published \
             one unless --license states another"
                .to_owned(),
        );
    }
    notes
}

fn read_config(path: &Path) -> Result<Json, ImportError> {
    let invalid = |reason: String| ImportError::Config { path: path.to_path_buf(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| invalid(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))
}

/// Returns the configuration of `model` in a file: a checkpoint with the reference's own entry, or a file
/// exported by a store.
///
/// # Errors
/// [`ImportError::UnknownModel`], or [`ImportError::Weights`] if the entry cannot be read.
pub fn config_in(weights: &WeightsFile, model: &str) -> Result<Option<Json>, ImportError> {
    Ok(own_config(weights, ModelKind::named(model)?)?)
}

/// Returns the configuration that the file itself holds.
fn own_config(weights: &WeightsFile, kind: &ModelKind) -> Result<Option<Json>, WeightsError> {
    let (Some(checkpoint), Some(key)) = (weights.checkpoint(), kind.config_key) else {
        return Ok(Manifest::within(weights)
            .filter(|of_store| of_store.model == kind.name)
            .map(|of_store| of_store.config));
    };
    if !checkpoint.entries().iter().any(|(name, _)| name == key) {
        return Ok(None);
    }
    checkpoint.json(&[key]).map(Some)
}

fn skipped(kind: &ModelKind, report: &LoadReport) -> Vec<Skipped> {
    let mut skipped: Vec<Skipped> = Vec::new();
    for key in &report.ignored {
        let reason = kind.unused.iter().find(|(pattern, _)| key_matches(pattern, key)).map_or("", |(_, reason)| reason);
        match skipped.iter_mut().find(|group| group.reason == reason) {
            Some(group) => group.keys.push(key.clone()),
            None => skipped.push(Skipped { reason: reason.to_owned(), keys: vec![key.clone()] }),
        }
    }
    skipped
}
