//! The networks that give points their features: with open weights, and loaded.

use burn::prelude::Device;
use serde_json::{Value as Json, json};

use super::SessionError;
use super::image_model::{ImageModelKind, LoadedImageModel, OpenImageModel};
use super::method::Method;
use super::networks::{Network, Networks, OpenOpenScene, OpenText, WeightsOrigin};
use super::options::LabelOptions;
use super::plan::Plan;
use super::source::ViewSettings;
use super::text::TextModel;
use crate::models::minkunet::{MinkUnet, TextSpace};
use crate::pipeline::{Compat, Encoders, FusedFeatures, Mixing, Network3d, Repeats};
use crate::query::ensemble::Ensemble;

/// Networks with open weights, not loaded yet.
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub(super) enum OpenEncoders {
    Views(OpenImageModel),
    /// The 3D network alone, and what embeds its words.
    Network(OpenText, OpenOpenScene),
    Both(OpenImageModel, OpenOpenScene),
    /// No network but the one that embeds the words, for fused features.
    Text(OpenText),
}

impl OpenEncoders {
    pub(super) fn open(networks: &Networks, plan: &Plan) -> Result<Self, SessionError> {
        let open_image_model = || OpenImageModel::open(networks, plan.image_model);
        Ok(match plan.method {
            Method::GeoPurify => Self::Views(open_image_model()?),
            Method::Fusion => Self::Text(OpenText::Clip(networks.open_clip(plan.fused_channels)?)),
            // With features fused beforehand there are no views to look at.
            Method::Ensemble if !plan.networks.contains(&Network::Clip) => {
                Self::Both(open_image_model()?, networks.open_openscene()?)
            }
            Method::OpenScene | Method::Ensemble => {
                let network = networks.open_openscene()?;
                let text = match plan.text {
                    TextSpace::XDecoder => OpenText::XDecoder(networks.open_xdecoder()?),
                    TextSpace::Clip => OpenText::Clip(networks.open_clip(network.config.text_width())?),
                };
                Self::Network(text, network)
            }
        })
    }

    /// The network that embeds the words, and its origin.
    pub(super) fn text(&self) -> (Network, &WeightsOrigin) {
        match self {
            Self::Views(model) | Self::Both(model, _) => (model.kind().network(), model.origin()),
            Self::Network(text, _) | Self::Text(text) => (text.network(), text.origin()),
        }
    }

    /// Origin of the 3D network.
    pub(super) fn network(&self) -> Option<&WeightsOrigin> {
        match self {
            Self::Views(_) | Self::Text(_) => None,
            Self::Network(_, network) | Self::Both(_, network) => Some(&network.origin),
        }
    }

    /// The settings of views, adapted to the model that sees them.
    pub(super) fn views(&self, views: &ViewSettings) -> ViewSettings {
        match self {
            Self::Views(model) | Self::Both(model, _) => model.views(views),
            Self::Network(OpenText::XDecoder(xdecoder), _) => views.for_model(&xdecoder.config),
            Self::Network(OpenText::Clip(_) | OpenText::LSeg(_), _) | Self::Text(_) => views.clone(),
        }
    }

    /// Loads the networks, and what embeds the words.
    pub(super) fn load(self, device: &Device) -> Result<(LoadedEncoders, TextModel), SessionError> {
        let seeing = |mut model: OpenImageModel| {
            let (kind, config) = (model.kind(), model.config());
            model.load(device).map(|(model, text)| (Seeing { model, kind, config }, text))
        };
        Ok(match self {
            Self::Views(model) => {
                let (seeing, text) = seeing(model)?;
                (LoadedEncoders::Views(seeing), text)
            }
            Self::Network(text, network) => (LoadedEncoders::Network(network.load(device)?), text.load(device)?),
            Self::Text(text) => (LoadedEncoders::Text, text.load(device)?),
            Self::Both(model, network) => {
                let ((seeing, text), network) = (seeing(model)?, network.load(device)?);
                (LoadedEncoders::Both(seeing, network), text)
            }
        })
    }
}

/// Loaded image model with its configuration.
pub(super) struct Seeing {
    model: LoadedImageModel,
    kind: ImageModelKind,
    config: Json,
}

/// Loaded networks.
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub(super) enum LoadedEncoders {
    Views(Seeing),
    Network(MinkUnet),
    Both(Seeing, MinkUnet),
    /// The features were fused beforehand.
    Text,
}

impl LoadedEncoders {
    /// The networks as the options use them. `fused` joins a 3D network that answers alone, by default where it is surer.
    ///
    /// # Errors
    /// [`SessionError::NoFused`] without fused features where nothing else gives features.
    pub(super) fn with<'a>(
        &'a self,
        options: &LabelOptions,
        fused: Option<&'a FusedFeatures>,
    ) -> Result<Encoders<'a>, SessionError> {
        let network = |network| network_with(network, options);
        let rule = options.ensemble.unwrap_or(Ensemble::Surer);
        Ok(match self {
            Self::Views(seeing) => Encoders::Views(seeing.model.model()),
            Self::Network(model) => match fused {
                None => Encoders::Network(network(model)),
                Some(fused) => Encoders::Fused { fused, joins: Some((network(model), rule)) },
            },
            Self::Text => Encoders::Fused { fused: fused.ok_or(SessionError::NoFused)?, joins: None },
            Self::Both(seeing, model) => {
                let mixing = options.ensemble.map_or(Mixing::Weighted { share: options.share }, Mixing::Rule);
                Encoders::Both { image_model: seeing.model.model(), network: network(model), mixing }
            }
        })
    }

    fn seeing(&self) -> Option<&Seeing> {
        match self {
            Self::Views(seeing) | Self::Both(seeing, _) => Some(seeing),
            Self::Network(_) | Self::Text => None,
        }
    }

    /// The image model, if there is one.
    pub(super) fn image_model(&self) -> Option<ImageModelKind> {
        self.seeing().map(|seeing| seeing.kind)
    }

    pub(super) fn network(&self) -> Option<&MinkUnet> {
        match self {
            Self::Network(network) | Self::Both(_, network) => Some(network),
            Self::Views(_) | Self::Text => None,
        }
    }

    /// The configurations on which results depend, by the networks' names.
    pub(super) fn key(&self) -> Json {
        let config_of = |kind| self.seeing().filter(|seeing| seeing.kind == kind).map(|seeing| &seeing.config);
        json!({
            "xdecoder": config_of(ImageModelKind::XDecoder), "lseg": config_of(ImageModelKind::LSeg),
            "openscene": self.network().map(MinkUnet::config),
        })
    }
}

/// The 3D network as the options use it. A published one repeats its runs under [`Compat::Reference`].
fn network_with<'a>(network: &'a MinkUnet, options: &LabelOptions) -> Network3d<'a> {
    let is_published = network.config().text == TextSpace::Clip;
    let is_repeated = is_published && options.views.compat == Compat::Reference;
    let repeats = is_repeated.then_some(Repeats { count: options.repeats, seed: options.seed });
    Network3d { network, num_turns: options.turns, repeats }
}
