//! What the affinities come from, on the command line.

use crate::purify::{ColorNormal, Settings};
use crate::session::AffinityKind;

/// Arguments that say what decides how much a voxel takes of its neighbours.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct AffinityArgs {
    /// What decides how much a voxel takes of its neighbours: a student, or one of two baselines that need none
    #[arg(long, value_enum, default_value_t = Kind::Learned)]
    affinities: Kind,
    /// Standard deviation of colours for color-normal, whose channels are 0 to 1
    #[arg(long, value_name = "SIGMA", default_value_t = ColorNormal::default().color_sigma)]
    color_sigma: f32,
    /// What 1 - |cosine| of normals is divided by for color-normal
    #[arg(long, value_name = "SCALE", default_value_t = ColorNormal::default().normal_scale)]
    normal_scale: f32,
    /// Factor of the student's cosines before the softmax
    #[arg(long, default_value_t = Settings::default().sharpness)]
    pub(super) sharpness: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Similarity in the student's embedding
    Learned,
    /// Every neighbour the same
    Uniform,
    /// Similarity of colour and normal
    ColorNormal,
}

impl AffinityArgs {
    pub(super) fn kind(&self) -> AffinityKind {
        let Self { color_sigma, normal_scale, .. } = *self;
        match self.affinities {
            Kind::Learned => AffinityKind::Learned,
            Kind::Uniform => AffinityKind::Uniform,
            Kind::ColorNormal => AffinityKind::ColorNormal(ColorNormal { color_sigma, normal_scale }),
        }
    }
}
