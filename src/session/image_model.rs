//! The image models that a session can see with: named, with open weights, and loaded.

use std::fmt;
use std::str::FromStr;

use burn::prelude::Device;
use serde_json::{Value as Json, json};

use super::SessionError;
use super::networks::{Network, Networks, OpenLSeg, OpenXDecoder, WeightsOrigin};
use super::source::ViewSettings;
use super::text::TextModel;
use crate::models::lseg::LSeg;
use crate::models::minkunet::TextSpace;
use crate::models::xdecoder::XDecoder;
use crate::ops::conv2d::Precision;
use crate::pipeline::ImageModel;

/// Choice of the model that sees pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageModelKind {
    /// X-Decoder: masks of queries that have embeddings.
    #[default]
    XDecoder,
    /// LSeg: a feature for every pixel, in the space of CLIP.
    LSeg,
}

impl ImageModelKind {
    /// All image models.
    pub const ALL: [Self; 2] = [Self::XDecoder, Self::LSeg];

    /// Its network.
    #[must_use]
    pub fn network(self) -> Network {
        match self {
            Self::XDecoder => Network::XDecoder,
            Self::LSeg => Network::LSeg,
        }
    }

    /// The space of its features.
    #[must_use]
    pub fn text_space(self) -> TextSpace {
        match self {
            Self::XDecoder => TextSpace::XDecoder,
            Self::LSeg => TextSpace::Clip,
        }
    }

    /// True if its background competes with the classes of a benchmark too, as in the published code.
    #[must_use]
    pub fn background_competes(self) -> bool {
        self == Self::LSeg
    }
}

impl fmt::Display for ImageModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.network().name())
    }
}

/// There is no image model of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no image model; expected xdecoder or lseg")]
pub struct UnknownImageModel(String);

impl FromStr for ImageModelKind {
    type Err = UnknownImageModel;

    fn from_str(name: &str) -> Result<Self, UnknownImageModel> {
        Self::ALL.into_iter().find(|model| model.to_string() == name).ok_or_else(|| UnknownImageModel(name.to_owned()))
    }
}

/// Image model with open weights, not loaded yet.
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub enum OpenImageModel {
    /// X-Decoder.
    XDecoder(OpenXDecoder),
    /// LSeg.
    LSeg(OpenLSeg),
}

impl OpenImageModel {
    /// Opens the weights of `kind`.
    ///
    /// # Errors
    /// The same as [`Networks::open_xdecoder`].
    pub fn open(networks: &Networks, kind: ImageModelKind) -> Result<Self, SessionError> {
        Ok(match kind {
            ImageModelKind::XDecoder => Self::XDecoder(networks.open_xdecoder()?),
            ImageModelKind::LSeg => Self::LSeg(networks.open_lseg()?),
        })
    }

    /// Which of the image models it is.
    #[must_use]
    pub fn kind(&self) -> ImageModelKind {
        match self {
            Self::XDecoder(_) => ImageModelKind::XDecoder,
            Self::LSeg(_) => ImageModelKind::LSeg,
        }
    }

    /// Origin of the weights.
    #[must_use]
    pub fn origin(&self) -> &WeightsOrigin {
        match self {
            Self::XDecoder(opened) => &opened.origin,
            Self::LSeg(opened) => &opened.origin,
        }
    }

    /// Precision in which the weights will be stored.
    #[must_use]
    pub fn precision(&self) -> Precision {
        match self {
            Self::XDecoder(opened) => opened.precision,
            Self::LSeg(opened) => opened.precision,
        }
    }

    /// The model's configuration, for keys of caches.
    #[must_use]
    pub fn config(&self) -> Json {
        match self {
            Self::XDecoder(opened) => json!(opened.config),
            Self::LSeg(opened) => json!(opened.config),
        }
    }

    /// The settings of views, adapted to the model.
    #[must_use]
    pub fn views(&self, views: &ViewSettings) -> ViewSettings {
        match self {
            Self::XDecoder(opened) => views.for_model(&opened.config),
            Self::LSeg(_) => views.clone(),
        }
    }

    /// Loads the model, and what embeds its words.
    ///
    /// # Errors
    /// The same as [`OpenXDecoder::load`].
    pub fn load(&mut self, device: &Device) -> Result<(LoadedImageModel, TextModel), SessionError> {
        Ok(match self {
            Self::XDecoder(opened) => {
                let model = opened.load(device)?;
                let text = TextModel::XDecoder(model.text_encoder.clone());
                (LoadedImageModel::XDecoder(model), text)
            }
            Self::LSeg(opened) => {
                let model = opened.load(device)?;
                let text = TextModel::LSeg(model.text.clone());
                (LoadedImageModel::LSeg(model), text)
            }
        })
    }
}

/// Loaded image model.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub enum LoadedImageModel {
    /// X-Decoder.
    XDecoder(XDecoder),
    /// LSeg.
    LSeg(LSeg),
}

impl LoadedImageModel {
    /// The model, for the pipeline.
    #[must_use]
    pub fn model(&self) -> ImageModel<'_> {
        match self {
            Self::XDecoder(model) => ImageModel::XDecoder(model),
            Self::LSeg(model) => ImageModel::LSeg(model),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_models_are_read_by_their_names() {
        for model in ImageModelKind::ALL {
            assert_eq!(model.to_string().parse(), Ok(model));
        }
        let error = "clip".parse::<ImageModelKind>().unwrap_err().to_string();
        assert_eq!(error, "'clip' is no image model; expected xdecoder or lseg");
    }
}
