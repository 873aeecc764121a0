//! What a method of labelling needs: networks, a text encoder, and settings.

use super::SessionError;
use super::method::Method;
use super::networks::{Network, Networks};
use super::options::{AffinityKind, LabelOptions};
use crate::models::minkunet::TextSpace;
use crate::pipeline::Compat;
use crate::purify::Settings;

/// A method with the networks and settings that follow from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The method.
    pub method: Method,
    /// The networks that labelling needs.
    pub networks: Vec<Network>,
    /// Text encoder of the words.
    pub text: TextSpace,
    /// Source of the weights between neighbouring voxels.
    pub affinities: AffinityKind,
    /// Number of times the affinities are applied.
    pub iterations: usize,
}

impl LabelOptions {
    /// Decides how to label with these networks. Without a method in the options it is the ensemble if the built-in demo
    /// is used, else GeoPurify, and GeoPurify for [`Compat::Reference`].
    ///
    /// A published 3D network, in the space of CLIP, answers without purification, as in its paper, unless the options
    /// ask for iterations. The student was not trained on its features, so voxels then take from their neighbours by
    /// colour and normal.
    ///
    /// # Errors
    /// [`SessionError::Store`], [`SessionError::Weights`] if the 3D network's weights are missing;
    /// [`SessionError::NoCommonSpace`] if the ensemble is asked for with a network in the space of CLIP and without fused
    /// features; [`SessionError::NoUseOfFused`] if fused features are given to anything else.
    pub fn plan(&self, networks: &Networks) -> Result<Plan, SessionError> {
        let iterations = self.iterations.unwrap_or(Settings::default().iterations);
        let of_views = || {
            let student = self.affinities.needs_student().then_some(Network::Student);
            [Network::XDecoder].into_iter().chain(student)
        };
        let demo: Vec<Network> = of_views().chain([Network::OpenScene]).collect();
        let usual = || match self.views.compat != Compat::Reference && networks.are_demo(&demo) {
            true => Method::Ensemble,
            false => Method::GeoPurify,
        };
        let method = self.method.unwrap_or_else(usual);
        let plan = |networks| {
            let (text, affinities) = (TextSpace::XDecoder, self.affinities);
            Plan { method, networks, text, affinities, iterations }
        };
        if self.fused.is_some() && method != Method::Ensemble {
            return Err(SessionError::NoUseOfFused);
        }
        if method == Method::GeoPurify {
            return Ok(plan(of_views().collect()));
        }
        let text = networks.with_demo(&demo).open_openscene()?.config.text;
        match (text, method) {
            (TextSpace::XDecoder, _) if self.fused.is_some() => Err(SessionError::NoUseOfFused),
            (TextSpace::XDecoder, _) => Ok(plan(demo)),
            (TextSpace::Clip, Method::Ensemble) if self.fused.is_none() => Err(SessionError::NoCommonSpace),
            (TextSpace::Clip, _) => Ok(Plan {
                text,
                affinities: self.affinities.without_student(),
                iterations: self.iterations.unwrap_or(0),
                ..plan(vec![Network::Clip, Network::OpenScene])
            }),
        }
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
        assert_eq!((plan.iterations, plan.text), (19, TextSpace::XDecoder));
        let uniform = LabelOptions { affinities: AffinityKind::Uniform, ..options(Some(Method::GeoPurify)) };
        assert_eq!(uniform.plan(&networks).unwrap().networks, [Network::XDecoder]);
        let fused = LabelOptions { fused: Some("fused".into()), ..options(Some(Method::Ensemble)) };
        assert!(matches!(fused.plan(&networks.with_demo(&[Network::OpenScene])), Err(SessionError::NoUseOfFused)));
    }
}
