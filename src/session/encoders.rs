//! The networks that give points their features: with open weights, and loaded.

use burn::prelude::Device;

use super::SessionError;
use super::method::Method;
use super::networks::{Network, Networks, OpenOpenScene, OpenText, OpenXDecoder, WeightsOrigin};
use super::options::LabelOptions;
use super::plan::Plan;
use super::source::ViewSettings;
use super::text::TextModel;
use crate::models::minkunet::{MinkUnet, TextSpace};
use crate::models::xdecoder::XDecoder;
use crate::pipeline::{Compat, Encoders, Network3d, Repeats};

/// Networks with open weights, not loaded yet.
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub(super) enum OpenEncoders {
    Views(OpenXDecoder),
    /// The 3D network alone, and what embeds its words.
    Network(OpenText, OpenOpenScene),
    Both(OpenXDecoder, OpenOpenScene),
}

impl OpenEncoders {
    pub(super) fn open(networks: &Networks, plan: &Plan) -> Result<Self, SessionError> {
        Ok(match plan.method {
            Method::GeoPurify => Self::Views(networks.open_xdecoder()?),
            // With features fused beforehand there are no views to look at.
            Method::Ensemble if !plan.networks.contains(&Network::Clip) => {
                Self::Both(networks.open_xdecoder()?, networks.open_openscene()?)
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

    /// Name and origin of the model that embeds the words.
    pub(super) fn text(&self) -> (&'static str, &WeightsOrigin) {
        match self {
            Self::Views(xdecoder) | Self::Both(xdecoder, _) => (Network::XDecoder.name(), &xdecoder.origin),
            Self::Network(text, _) => (text.name(), text.origin()),
        }
    }

    /// Origin of the 3D network.
    pub(super) fn network(&self) -> Option<&WeightsOrigin> {
        match self {
            Self::Views(_) => None,
            Self::Network(_, network) | Self::Both(_, network) => Some(&network.origin),
        }
    }

    /// The settings of views, adapted to the model that sees them.
    pub(super) fn views(&self, views: &ViewSettings) -> ViewSettings {
        match self {
            Self::Views(xdecoder) | Self::Both(xdecoder, _) | Self::Network(OpenText::XDecoder(xdecoder), _) => {
                views.for_model(&xdecoder.config)
            }
            Self::Network(OpenText::Clip(_), _) => views.clone(),
        }
    }

    /// Loads the networks, and what embeds the words.
    pub(super) fn load(self, device: &Device) -> Result<(LoadedEncoders, TextModel), SessionError> {
        let text_of = |xdecoder: &XDecoder| TextModel::XDecoder(xdecoder.text_encoder.clone());
        Ok(match self {
            Self::Views(mut xdecoder) => {
                let xdecoder = xdecoder.load(device)?;
                let text = text_of(&xdecoder);
                (LoadedEncoders::Views(xdecoder), text)
            }
            Self::Network(text, network) => (LoadedEncoders::Network(network.load(device)?), text.load(device)?),
            Self::Both(mut xdecoder, network) => {
                let (xdecoder, network) = (xdecoder.load(device)?, network.load(device)?);
                let text = text_of(&xdecoder);
                (LoadedEncoders::Both(xdecoder, network), text)
            }
        })
    }
}

/// Loaded networks.
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub(super) enum LoadedEncoders {
    Views(XDecoder),
    Network(MinkUnet),
    Both(XDecoder, MinkUnet),
}

impl LoadedEncoders {
    /// The networks with the options of the 3D network.
    pub(super) fn with(&self, options: &LabelOptions) -> Encoders<'_> {
        let network = |network| network_with(network, options);
        match self {
            Self::Views(xdecoder) => Encoders::Views(xdecoder),
            Self::Network(model) => Encoders::Network(network(model)),
            Self::Both(xdecoder, model) => Encoders::Both { xdecoder, network: network(model), share: options.share },
        }
    }

    pub(super) fn xdecoder(&self) -> Option<&XDecoder> {
        match self {
            Self::Views(xdecoder) | Self::Both(xdecoder, _) => Some(xdecoder),
            Self::Network(_) => None,
        }
    }

    pub(super) fn network(&self) -> Option<&MinkUnet> {
        match self {
            Self::Network(network) | Self::Both(_, network) => Some(network),
            Self::Views(_) => None,
        }
    }
}

/// The 3D network as the options use it. A published one repeats its runs under [`Compat::Reference`].
fn network_with<'a>(network: &'a MinkUnet, options: &LabelOptions) -> Network3d<'a> {
    let is_published = network.config().text == TextSpace::Clip;
    let is_repeated = is_published && options.views.compat == Compat::Reference;
    let repeats = is_repeated.then_some(Repeats { count: options.repeats, seed: options.seed });
    Network3d { network, num_turns: options.turns, repeats, rule: options.ensemble, fused: None }
}
