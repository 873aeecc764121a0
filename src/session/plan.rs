//! What a method of labelling needs: networks, a text encoder, and settings.

use super::SessionError;
use super::image_model::ImageModelKind;
use super::method::Method;
use super::networks::{Network, Networks};
use super::options::{AffinityKind, LabelOptions};
use crate::models::minkunet::TextSpace;
use crate::pipeline::{Compat, FusedFeatures};
use crate::purify::{ColorNormal, Settings};

/// A method with the networks and settings that follow from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The method.
    pub method: Method,
    /// The model that sees the views, if the method looks at any.
    pub image_model: ImageModelKind,
    /// The networks that labelling needs.
    pub networks: Vec<Network>,
    /// Text encoder of the words.
    pub text: TextSpace,
    /// Source of the weights between neighbouring voxels.
    pub affinities: AffinityKind,
    /// Number of times the affinities are applied.
    pub iterations: usize,
    /// Channels of fused features that answer alone; 0 for other methods.
    pub fused_channels: usize,
}

impl LabelOptions {
    /// Decides how to label with these networks. Without a method in the options it is the ensemble if the built-in demo
    /// is used, else GeoPurify, and GeoPurify for [`Compat::Reference`]. Without affinities in the options they are
    /// [combined](AffinityKind::Combined) for the demo's ensemble, else [learned](AffinityKind::Learned).
    ///
    /// A published 3D network, in the space of CLIP, answers without purification, as in its paper, unless the options
    /// ask for iterations. The student was not trained on its features, so voxels then take from their neighbours by
    /// colour and normal.
    ///
    /// # Errors
    /// [`SessionError::Store`], [`SessionError::Weights`] if the 3D network's weights are missing;
    /// [`SessionError::NoCommonSpace`] if the ensemble is asked for with a network in another space than the image
    /// model, and without fused features; [`SessionError::NoUseOfFused`] if fused features are given to anything but a
    /// network in the space of CLIP; [`SessionError::NoFused`] if none are given and they alone shall answer;
    /// [`SessionError::NoPictures`] if LSeg is asked for where no picture is looked at.
    pub fn plan(&self, networks: &Networks) -> Result<Plan, SessionError> {
        let iterations = self.iterations.unwrap_or(Settings::default().iterations);
        let image_model = self.image_model;
        let of_views = || {
            let student = self.affinities.unwrap_or_default().needs_student().then_some(Network::Student);
            [image_model.network()].into_iter().chain(student)
        };
        let both: Vec<Network> = of_views().chain([Network::OpenScene]).collect();
        let is_demo = self.views.compat != Compat::Reference && networks.are_demo(&both);
        let method = self.method.unwrap_or(if is_demo { Method::Ensemble } else { Method::GeoPurify });
        let usual = || match is_demo && method == Method::Ensemble {
            true => AffinityKind::Combined(ColorNormal::default()),
            false => AffinityKind::Learned,
        };
        let affinities = self.affinities.unwrap_or_else(usual);
        let plan = |networks| {
            let text = image_model.text_space();
            Plan { method, image_model, networks, text, affinities, iterations, fused_channels: 0 }
        };
        if self.fused.is_some() && !matches!(method, Method::Ensemble | Method::Fusion) {
            return Err(SessionError::NoUseOfFused);
        }
        if method == Method::GeoPurify {
            return Ok(plan(of_views().collect()));
        }
        // With features fused beforehand no picture is looked at.
        let sees_pictures = method == Method::Ensemble && self.fused.is_none();
        if !sees_pictures && image_model != ImageModelKind::default() {
            return Err(SessionError::NoPictures { image_model: image_model.network().name() });
        }
        let purified_by_color = |networks| Plan {
            text: TextSpace::Clip,
            affinities: affinities.without_student(),
            iterations: self.iterations.unwrap_or(0),
            ..plan(networks)
        };
        if method == Method::Fusion {
            let fused_channels = FusedFeatures::channels_at(self.fused.as_deref().ok_or(SessionError::NoFused)?)?;
            return Ok(Plan { fused_channels, ..purified_by_color(vec![Network::Clip]) });
        }
        let text = networks.with_demo(&both).open_openscene()?.config.text;
        if self.fused.is_some() && text != TextSpace::Clip {
            return Err(SessionError::NoUseOfFused);
        }
        if sees_pictures && text != image_model.text_space() {
            let (image_model, needed) = (image_model.network().name(), image_model.text_space());
            return Err(SessionError::NoCommonSpace { image_model, needed, found: text });
        }
        if sees_pictures || text == TextSpace::XDecoder {
            return Ok(plan(both));
        }
        Ok(purified_by_color(vec![Network::Clip, Network::OpenScene]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_method_given_decides_the_networks() {
        let networks = Networks::default();
        let options = |method| LabelOptions { method, ..LabelOptions::default() };
        let plan = options(Some(Method::GeoPurify)).plan(&networks).unwrap();
        assert_eq!(plan.networks, [Network::XDecoder, Network::Student]);
        assert_eq!((plan.iterations, plan.text, plan.affinities), (19, TextSpace::XDecoder, AffinityKind::Learned));
        let without = options(Some(Method::Fusion)).plan(&networks);
        assert!(matches!(without, Err(SessionError::NoFused)));
        let uniform = LabelOptions { affinities: Some(AffinityKind::Uniform), ..options(Some(Method::GeoPurify)) };
        assert_eq!(uniform.plan(&networks).unwrap().networks, [Network::XDecoder]);
        let fused = LabelOptions { fused: Some("fused".into()), ..options(Some(Method::Ensemble)) };
        assert!(matches!(fused.plan(&networks.with_demo(&[Network::OpenScene])), Err(SessionError::NoUseOfFused)));
    }

    #[test]
    fn lseg_sees_in_place_of_x_decoder_and_a_3d_network_alone_has_no_use_for_it() {
        let networks = Networks::default();
        let lseg = LabelOptions { image_model: ImageModelKind::LSeg, ..LabelOptions::default() };
        let plan = lseg.plan(&networks).unwrap();
        assert_eq!((plan.method, plan.text), (Method::GeoPurify, TextSpace::Clip));
        assert_eq!(plan.networks, [Network::LSeg, Network::Student]);
        let expected = "a 3D network without views looks at no pictures, so there is no use for lseg";
        let alone = LabelOptions { method: Some(Method::OpenScene), ..lseg.clone() };
        assert_eq!(alone.plan(&networks).unwrap_err().to_string(), expected);
        let fused = LabelOptions { method: Some(Method::Ensemble), fused: Some("fused".into()), ..lseg };
        assert_eq!(fused.plan(&networks).unwrap_err().to_string(), expected);
    }
}
