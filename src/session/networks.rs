//! Choice of weights for a session, and their configuration and origin.

use std::path::{Path, PathBuf};

use burn::prelude::Device;
use serde::de::DeserializeOwned;

use super::SessionError;
use super::text::TextModel;
use crate::models::ModelError;
use crate::models::clip::{ClipText, ClipTextConfig};
use crate::models::import::{ImportError, config_in, in_own_names};
use crate::models::lseg::{LSeg, LSegConfig};
use crate::models::minkunet::{MinkUnet, MinkUnetConfig};
use crate::models::signature;
use crate::models::sonata::{Sonata, SonataConfig};
use crate::models::student::{AffinityPredictor, Student, StudentConfig};
use crate::models::xdecoder::{TextEncoder, XDecoder, XDecoderConfig};
use crate::ops::conv2d::Precision;
use crate::purify::GEOMETRY_CHANNELS;
use crate::weights::store::{Manifest, Store, StoredWeights};
use crate::weights::{TensorSource as _, WeightsError, WeightsFile, demo, file_sha256, is_name};

/// Choice of weights for one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkChoice {
    /// File, or name in the store. `None` uses the store's weights under the network's own name, or else the
    /// demo's.
    pub weights: Option<PathBuf>,
    /// Configuration (JSON), if it follows neither from the file nor from its shapes.
    pub config: Option<PathBuf>,
}

/// Choice of weights for all networks.
#[derive(Clone, Debug, PartialEq)]
pub struct Networks {
    /// The vision-language model.
    pub xdecoder: NetworkChoice,
    /// The other image model, with a feature for every pixel.
    pub lseg: NetworkChoice,
    /// The student; its configuration follows from its shapes.
    pub student: NetworkChoice,
    /// The teacher of geometry.
    pub sonata: NetworkChoice,
    /// The 3D network.
    pub openscene: NetworkChoice,
    /// CLIP's text side, which published 3D networks need.
    pub clip: NetworkChoice,
    /// Precision in which the image model's weights are stored.
    pub precision: Precision,
}

impl Default for Networks {
    fn default() -> Self {
        let [xdecoder, lseg, student, sonata, openscene, clip] = [(); 6].map(|()| NetworkChoice::default());
        Self { xdecoder, lseg, student, sonata, openscene, clip, precision: Precision::F32 }
    }
}

/// Name of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// X-Decoder: pictures and words.
    XDecoder,
    /// LSeg: a feature for every pixel, and words.
    LSeg,
    /// The student: affinities of voxels.
    Student,
    /// Sonata: features of a scan's geometry.
    Sonata,
    /// A 3D network of OpenScene's architecture: features of a scan in the space of words.
    OpenScene,
    /// CLIP's text side: words, for published 3D networks.
    Clip,
}

impl Network {
    /// Its name in the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::XDecoder => "xdecoder",
            Self::LSeg => "lseg",
            Self::Student => "student",
            Self::Sonata => "sonata",
            Self::OpenScene => "openscene",
            Self::Clip => "clip",
        }
    }
}

impl Networks {
    /// The choice for `network`.
    #[must_use]
    pub fn choice(&self, network: Network) -> &NetworkChoice {
        match network {
            Network::XDecoder => &self.xdecoder,
            Network::LSeg => &self.lseg,
            Network::Student => &self.student,
            Network::Sonata => &self.sonata,
            Network::OpenScene => &self.openscene,
            Network::Clip => &self.clip,
        }
    }

    pub(super) fn choice_mut(&mut self, network: Network) -> &mut NetworkChoice {
        match network {
            Network::XDecoder => &mut self.xdecoder,
            Network::LSeg => &mut self.lseg,
            Network::Student => &mut self.student,
            Network::Sonata => &mut self.sonata,
            Network::OpenScene => &mut self.openscene,
            Network::Clip => &mut self.clip,
        }
    }

    /// True if the demo's weights replace `networks`: none of them was given and none is installed. They are
    /// trained to work together, so the demo replaces all or none.
    #[must_use]
    pub fn are_demo(&self, networks: &[Network]) -> bool {
        let is_built_in = |network: &Network| demo::BuiltIn::of_model(network.name()).is_some();
        networks.iter().all(|&network| self.choice(network).weights.is_none())
            && networks.iter().all(is_built_in)
            // Nothing is installed if there is no folder for a store.
            && !Store::at_home().is_ok_and(|store| networks.iter().any(|network| store.contains(network.name())))
    }

    /// The same choices, with the demo's weights if they replace `networks`.
    #[must_use]
    pub fn with_demo(&self, networks: &[Network]) -> Self {
        let mut chosen = self.clone();
        if self.are_demo(networks) {
            for &network in networks {
                let weights = demo::BuiltIn::of_model(network.name()).map(|built_in| built_in.name.into());
                chosen.choice_mut(network).weights = weights;
            }
        } else if self.needs_demo_xdecoder(networks) {
            chosen.xdecoder.weights = demo::BuiltIn::of_model("xdecoder").map(|built_in| built_in.name.into());
        }
        chosen
    }

    /// True if the demo's X-Decoder belongs to the student: the student has its width, no X-Decoder was given,
    /// and none of that width is installed.
    fn needs_demo_xdecoder(&self, networks: &[Network]) -> bool {
        let both = [Network::XDecoder, Network::Student].iter().all(|network| networks.contains(network));
        let Some(built_in) = demo::BuiltIn::of_model("xdecoder").filter(|_| both && self.xdecoder.weights.is_none())
        else {
            return false;
        };
        let Some(width) = self.student_width() else { return false };
        let Ok(store) = Store::at_home() else { return false };
        let fits = |name: &str| {
            let config = store.describe(name).ok().map(|installed| installed.manifest.config);
            config
                .and_then(|config| config["dim_proj"].as_u64())
                .is_some_and(|dim| dim as usize + GEOMETRY_CHANNELS == width)
        };
        fits(built_in.name) && !fits("xdecoder")
    }

    /// Number of channels that the student takes.
    fn student_width(&self) -> Option<usize> {
        let weights = self.open(Network::Student).ok()?.weights;
        let inventory = weights.inventory().into_owned();
        Some(StudentConfig::of(&|key: &str| inventory.shape(key))?.input_dim)
    }

    /// The weights that would be used for `networks`: the name or file of each.
    ///
    /// # Errors
    /// [`SessionError::Store`], [`SessionError::Weights`] if they are missing or cannot be opened.
    pub fn origins(&self, networks: &[Network]) -> Result<Vec<String>, SessionError> {
        let chosen = self.with_demo(networks);
        networks.iter().map(|&network| Ok(chosen.open(network)?.origin.source)).collect()
    }

    /// Opens X-Decoder's weights and determines their configuration.
    ///
    /// # Errors
    /// [`SessionError::Store`], [`SessionError::Weights`], [`SessionError::Configuration`].
    pub fn open_xdecoder(&self) -> Result<OpenXDecoder, SessionError> {
        let OpenWeights { mut weights, manifest, origin } = self.open(Network::XDecoder)?;
        let config = configuration(&mut weights, manifest, self.xdecoder.config.as_deref(), "xdecoder", |shapes| {
            XDecoderConfig::of(shapes).unwrap_or_else(XDecoderConfig::focal_l)
        })?;
        Ok(OpenXDecoder { weights, config, precision: self.precision, origin })
    }

    /// Opens LSeg's weights and determines their configuration.
    ///
    /// # Errors
    /// The same as [`open_xdecoder`](Self::open_xdecoder).
    pub fn open_lseg(&self) -> Result<OpenLSeg, SessionError> {
        let OpenWeights { mut weights, manifest, origin } = self.open(Network::LSeg)?;
        let inventory = weights.inventory();
        if LSegConfig::lacks_text(&|key| inventory.shape(key)) {
            return Err(ImportError::NoText { path: weights.path().to_path_buf() }.into());
        }
        drop(inventory);
        let config = configuration(&mut weights, manifest, self.lseg.config.as_deref(), "lseg", |shapes| {
            LSegConfig::of(shapes).unwrap_or_else(LSegConfig::published)
        })?;
        Ok(OpenLSeg { weights, config, precision: self.precision, origin })
    }

    /// Opens Sonata's weights and determines their configuration.
    ///
    /// # Errors
    /// The same as [`open_xdecoder`](Self::open_xdecoder).
    pub fn open_sonata(&self) -> Result<OpenSonata, SessionError> {
        let OpenWeights { mut weights, manifest, origin } = self.open(Network::Sonata)?;
        let config = configuration(&mut weights, manifest, self.sonata.config.as_deref(), "sonata", |shapes| {
            SonataConfig::of(shapes).unwrap_or_else(SonataConfig::published)
        })?;
        Ok(OpenSonata { weights, config, origin })
    }

    /// Opens the 3D network's weights and determines their configuration.
    ///
    /// # Errors
    /// The same as [`open_xdecoder`](Self::open_xdecoder).
    pub fn open_openscene(&self) -> Result<OpenOpenScene, SessionError> {
        let OpenWeights { mut weights, manifest, origin } = self.open(Network::OpenScene)?;
        let config = configuration(&mut weights, manifest, self.openscene.config.as_deref(), "openscene", |shapes| {
            MinkUnetConfig::of(shapes).unwrap_or_else(MinkUnetConfig::openscene)
        })?;
        Ok(OpenOpenScene { weights, config, origin })
    }

    /// Opens the weights of CLIP's text side and determines their configuration. Without a choice they are those under
    /// the name that the registry has for a text side of `dim` channels.
    ///
    /// # Errors
    /// The same as [`open_xdecoder`](Self::open_xdecoder).
    pub fn open_clip(&self, dim: usize) -> Result<OpenClip, SessionError> {
        let mut chosen = self.clone();
        if chosen.clip.weights.is_none() {
            let name = if dim == ClipTextConfig::vit_l14().embed_dim { "clip-vit-l-14-336" } else { "clip-vit-b-32" };
            chosen.clip.weights = Some(name.into());
        }
        let OpenWeights { mut weights, manifest, origin } = chosen.open(Network::Clip)?;
        let config = configuration(&mut weights, manifest, self.clip.config.as_deref(), "clip", |shapes| {
            ClipTextConfig::of(shapes).unwrap_or_else(ClipTextConfig::vit_b32)
        })?;
        Ok(OpenClip { weights, config, precision: self.precision, origin })
    }

    /// Opens the student's weights.
    ///
    /// # Errors
    /// [`SessionError::Store`], [`SessionError::Weights`].
    pub fn open_student(&self) -> Result<OpenStudent, SessionError> {
        let OpenWeights { weights, origin, .. } = self.open(Network::Student)?;
        Ok(OpenStudent { weights, origin })
    }

    /// Opens the given file, or the stored weights of the given name, or those stored under the network's
    /// name.
    fn open(&self, network: Network) -> Result<OpenWeights, SessionError> {
        let (given, model) = (self.choice(network).weights.as_deref(), network.name());
        let (weights, manifest) = match name_in_store(given, model)? {
            Some(name) => {
                let StoredWeights { installed, tensors } = Store::at_home()?.open(name, model)?;
                (tensors, Some(installed.manifest))
            }
            None => {
                let mut weights = WeightsFile::open(given.unwrap_or(Path::new(model)))?;
                signature::expect(model, &in_own_names(&mut weights).source.inventory())?;
                (weights, None)
            }
        };
        let origin = WeightsOrigin::new(given, model, manifest.as_ref());
        Ok(OpenWeights { weights, manifest, origin })
    }
}

/// Name in the store given by `given`; `None` if it is a file.
fn name_in_store<'a>(given: Option<&'a Path>, model: &'a str) -> Result<Option<&'a str>, SessionError> {
    let Some(path) = given else { return Ok(Some(model)) };
    let Some(name) = path.to_str().filter(|name| is_name(name) && !path.is_file()) else { return Ok(None) };
    // A path that is not a file may be a name. If it has a dot it was more likely meant as a file.
    let is_known = !name.contains('.') || Store::at_home()?.contains(name);
    Ok(is_known.then_some(name))
}

struct OpenWeights {
    weights: WeightsFile,
    manifest: Option<Manifest>,
    origin: WeightsOrigin,
}

/// Configuration of a model's weights, from the first of these sources: the given file, the store, the
/// weights file, the shapes of the weights, the published model.
fn configuration<C: DeserializeOwned>(
    weights: &mut WeightsFile,
    manifest: Option<Manifest>,
    given: Option<&Path>,
    model: &str,
    of_shapes: impl FnOnce(&dyn Fn(&str) -> Option<Vec<usize>>) -> C,
) -> Result<C, SessionError> {
    if let Some(path) = given {
        let text =
            std::fs::read_to_string(path).map_err(|source| SessionError::Io { path: path.to_path_buf(), source })?;
        let place = path.display().to_string();
        return serde_json::from_str(&text).map_err(|source| SessionError::Configuration { place, source });
    }
    let own = match manifest {
        Some(manifest) => Some(manifest.config),
        None => config_in(weights, model)?,
    };
    match own {
        Some(json) => serde_json::from_value(json).map_err(|source| {
            let place = format!("{}: its configuration", weights.path().display());
            SessionError::Configuration { place, source }
        }),
        None => {
            let inventory = in_own_names(weights).source.inventory().into_owned();
            Ok(of_shapes(&|key| inventory.shape(key)))
        }
    }
}

/// Origin of opened weights, for reports.
#[derive(Clone, Debug)]
pub struct WeightsOrigin {
    /// Full path of the file, or name in the store.
    pub source: String,
    /// Length of the weights file in bytes.
    pub bytes: u64,
    /// Hash from the store, or the file to be hashed.
    hash: Hash,
}

#[derive(Clone, Debug)]
enum Hash {
    Known(String),
    Of(PathBuf),
}

impl WeightsOrigin {
    fn new(given: Option<&Path>, model: &str, manifest: Option<&Manifest>) -> Self {
        match (given, manifest) {
            (given, Some(manifest)) => Self {
                source: given.map_or(model.into(), |name| name.to_string_lossy().into_owned()),
                bytes: manifest.source_bytes,
                hash: Hash::Known(manifest.source_sha256.clone()),
            },
            (given, None) => {
                let path = given.unwrap_or(Path::new(model));
                let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
                let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
                Self { source: path.to_string_lossy().into_owned(), bytes, hash: Hash::Of(path) }
            }
        }
    }

    /// SHA-256 of the weights file. Reads the whole file if the store does not have the hash.
    ///
    /// # Errors
    /// [`WeightsError`] if the file cannot be read.
    pub fn sha256(&self) -> Result<String, WeightsError> {
        match &self.hash {
            Hash::Known(hash) => Ok(hash.clone()),
            Hash::Of(path) => file_sha256(path),
        }
    }
}

/// X-Decoder with open weights, not loaded yet.
pub struct OpenXDecoder {
    weights: WeightsFile,
    /// Configuration of the model.
    pub config: XDecoderConfig,
    /// Precision in which its weights will be stored.
    pub precision: Precision,
    /// Origin of its weights.
    pub origin: WeightsOrigin,
}

impl OpenXDecoder {
    /// Loads the model.
    ///
    /// # Errors
    /// [`SessionError::NeedsConfiguration`] if the weights do not fit, [`SessionError::Model`].
    pub fn load(&mut self, device: &Device) -> Result<XDecoder, SessionError> {
        let Self { weights, config, precision, .. } = self;
        let (model, report) = XDecoder::load(weights, config.clone(), *precision, device)
            .map_err(|error| needs_configuration("xdecoder", error))?;
        log::info!("{report}");
        Ok(model)
    }

    /// Loads only the text encoder.
    ///
    /// # Errors
    /// The same as [`load`](Self::load).
    pub fn load_text_encoder(&mut self, device: &Device) -> Result<TextEncoder, SessionError> {
        let Self { weights, config, precision, .. } = self;
        XDecoder::load_text_encoder(weights, config, *precision, device)
            .map_err(|error| needs_configuration("xdecoder", error))
    }
}

/// LSeg with open weights, not loaded yet.
pub struct OpenLSeg {
    weights: WeightsFile,
    /// Configuration of the model.
    pub config: LSegConfig,
    /// Precision in which its weights will be stored.
    pub precision: Precision,
    /// Origin of its weights.
    pub origin: WeightsOrigin,
}

impl OpenLSeg {
    /// Loads the model.
    ///
    /// # Errors
    /// [`SessionError::NeedsConfiguration`] if the weights do not fit, [`SessionError::Model`].
    pub fn load(&mut self, device: &Device) -> Result<LSeg, SessionError> {
        let Self { weights, config, precision, .. } = self;
        let (model, report) = LSeg::load(weights, config.clone(), *precision, device)
            .map_err(|error| needs_configuration("lseg", error))?;
        log::info!("{report}");
        Ok(model)
    }

    /// Loads only the text side.
    ///
    /// # Errors
    /// The same as [`load`](Self::load).
    pub fn load_text(&mut self, device: &Device) -> Result<ClipText, SessionError> {
        let Self { weights, config, precision, .. } = self;
        LSeg::load_text(weights, config, *precision, device).map_err(|error| needs_configuration("lseg", error))
    }
}

fn needs_configuration(model: &'static str, error: ModelError) -> SessionError {
    match error {
        ModelError::Weights(source) => SessionError::NeedsConfiguration { model, source },
        other => other.into(),
    }
}

/// Sonata with open weights, not loaded yet.
pub struct OpenSonata {
    weights: WeightsFile,
    /// Configuration of the model.
    pub config: SonataConfig,
    /// Origin of its weights.
    pub origin: WeightsOrigin,
}

impl OpenSonata {
    /// Loads the model.
    ///
    /// # Errors
    /// [`SessionError::NeedsConfiguration`] if the weights do not fit, [`SessionError::Model`].
    pub fn load(&mut self, device: &Device) -> Result<Sonata, SessionError> {
        let mut names = in_own_names(&mut self.weights);
        let loaded = Sonata::load(&mut *names.source, &self.config, device);
        let (model, report) = loaded.map_err(|error| needs_configuration("sonata", error))?;
        log::info!("{report}");
        Ok(model)
    }
}

/// Text encoder with open weights, not loaded yet.
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub enum OpenText {
    /// X-Decoder's. The rest of the model can be loaded too.
    XDecoder(OpenXDecoder),
    /// CLIP's.
    Clip(OpenClip),
    /// LSeg's, which is CLIP's out of its own checkpoint.
    LSeg(OpenLSeg),
}

impl OpenText {
    /// Opens the text side of `network`. Only X-Decoder, LSeg and CLIP have one; for all others it is X-Decoder's.
    /// `dim` is the number of channels of the words, for CLIP.
    ///
    /// # Errors
    /// The same as [`Networks::open_xdecoder`].
    pub fn open(networks: &Networks, network: Network, dim: usize) -> Result<Self, SessionError> {
        Ok(match network {
            Network::Clip => Self::Clip(networks.open_clip(dim)?),
            Network::LSeg => Self::LSeg(networks.open_lseg()?),
            _ => Self::XDecoder(networks.with_demo(&[Network::XDecoder]).open_xdecoder()?),
        })
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> Network {
        match self {
            Self::XDecoder(_) => Network::XDecoder,
            Self::Clip(_) => Network::Clip,
            Self::LSeg(_) => Network::LSeg,
        }
    }

    /// Origin of the weights.
    #[must_use]
    pub fn origin(&self) -> &WeightsOrigin {
        match self {
            Self::XDecoder(opened) => &opened.origin,
            Self::Clip(opened) => &opened.origin,
            Self::LSeg(opened) => &opened.origin,
        }
    }

    /// Loads the text encoder alone.
    ///
    /// # Errors
    /// The same as [`OpenXDecoder::load`] and [`OpenClip::load`].
    pub fn load(self, device: &Device) -> Result<TextModel, SessionError> {
        Ok(match self {
            Self::XDecoder(mut opened) => TextModel::XDecoder(opened.load_text_encoder(device)?),
            Self::Clip(opened) => TextModel::Clip(opened.load(device)?),
            Self::LSeg(mut opened) => TextModel::LSeg(opened.load_text(device)?),
        })
    }
}

/// 3D network with open weights, not loaded yet.
pub struct OpenOpenScene {
    weights: WeightsFile,
    /// Configuration of the network.
    pub config: MinkUnetConfig,
    /// Origin of its weights.
    pub origin: WeightsOrigin,
}

impl OpenOpenScene {
    /// Loads the network.
    ///
    /// # Errors
    /// [`SessionError::Weights`] naming the key that does not fit.
    pub fn load(self, device: &Device) -> Result<MinkUnet, SessionError> {
        let (network, report) = MinkUnet::load_as(self.config, self.weights, device)?;
        log::info!("{report}");
        Ok(network)
    }
}

/// CLIP's text side with open weights, not loaded yet.
pub struct OpenClip {
    weights: WeightsFile,
    /// Configuration of the text side.
    pub config: ClipTextConfig,
    precision: Precision,
    /// Origin of its weights.
    pub origin: WeightsOrigin,
}

impl OpenClip {
    /// Loads the text side.
    ///
    /// # Errors
    /// [`SessionError::Model`].
    pub fn load(mut self, device: &Device) -> Result<ClipText, SessionError> {
        let (text, report) =
            ClipText::load(&mut *in_own_names(&mut self.weights).source, self.config, self.precision, device)?;
        log::info!("{report}");
        Ok(text)
    }
}

/// Student with open weights, not loaded yet.
pub struct OpenStudent {
    weights: WeightsFile,
    /// Origin of its weights.
    pub origin: WeightsOrigin,
}

impl OpenStudent {
    /// Loads the student. Its batch norms are folded into its convolutions.
    ///
    /// # Errors
    /// [`SessionError::Weights`].
    pub fn load(self, device: &Device) -> Result<(Student, StudentConfig), SessionError> {
        let (predictor, config, report) = AffinityPredictor::load(self.weights, device)?;
        log::info!("{report}");
        Ok((predictor.fold(), config))
    }
}
