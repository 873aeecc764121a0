//! Options that choose the affinities.

use super::numbers::finite;
use crate::purify::{ColorNormal, Settings};
use crate::session::AffinityKind;

/// Options that decide how much each voxel takes from its neighbours.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct AffinityArgs {
    /// Source of the affinities, which say how much a voxel takes from each neighbour: the student, one of
    /// two baselines that need no student, or the student together with colours and normals [default: combined for the
    /// ensemble of the built-in demo, else learned]
    #[arg(long, value_enum)]
    affinities: Option<Kind>,
    /// For color-normal and combined: standard deviation of the colours, whose channels are 0 to 1
    #[arg(long, value_name = "SIGMA", requires = "affinities", default_value_t = ColorNormal::default().color_sigma, value_parser = finite::<f32>)]
    color_sigma: f32,
    /// For color-normal and combined: divisor of 1 - |cosine| of two normals
    #[arg(long, value_name = "SCALE", requires = "affinities", default_value_t = ColorNormal::default().normal_scale, value_parser = finite::<f32>)]
    normal_scale: f32,
    /// Factor on the student's cosines before the softmax
    #[arg(long, default_value_t = Settings::default().sharpness, value_parser = finite::<f32>)]
    pub(super) sharpness: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Similarity of the student's embeddings
    Learned,
    /// The same weight for every neighbour
    Uniform,
    /// Similarity of colours and normals
    ColorNormal,
    /// Similarity of the student's embeddings, times that of colours and normals
    Combined,
}

impl AffinityArgs {
    /// The kind that is asked for, if any is.
    pub(super) fn kind(&self) -> Option<AffinityKind> {
        let Self { color_sigma, normal_scale, .. } = *self;
        self.affinities.map(|kind| match kind {
            Kind::Learned => AffinityKind::Learned,
            Kind::Uniform => AffinityKind::Uniform,
            Kind::ColorNormal => AffinityKind::ColorNormal(ColorNormal { color_sigma, normal_scale }),
            Kind::Combined => AffinityKind::Combined(ColorNormal { color_sigma, normal_scale }),
        })
    }
}
