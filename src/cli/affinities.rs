//! What the affinities come from, on the command line.

use serde_json::{Value, json};

use crate::models::student::{Student, StudentConfig};
use crate::purify::{Affinities, ColorNormal, Settings};

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
    /// Whether a student is needed.
    pub(super) fn are_learned(&self) -> bool {
        self.affinities == Kind::Learned
    }

    /// With the student where there is one.
    pub(super) fn with<'a>(&self, student: Option<&'a (Student, StudentConfig)>) -> Affinities<'a> {
        match (student, self.kernel()) {
            (Some((student, config)), _) => Affinities::Learned { student, config: *config },
            (None, Some(kernel)) => Affinities::ColorNormal(kernel),
            (None, None) => Affinities::Uniform,
        }
    }

    fn kernel(&self) -> Option<ColorNormal> {
        let Self { color_sigma, normal_scale, .. } = *self;
        (self.affinities == Kind::ColorNormal).then_some(ColorNormal { color_sigma, normal_scale })
    }

    /// For reports and keys.
    pub(super) fn to_json(&self) -> Value {
        match (self.affinities, self.kernel()) {
            (_, Some(kernel)) => json!({ "color_normal": kernel }),
            (Kind::Uniform, None) => "uniform".into(),
            (Kind::Learned | Kind::ColorNormal, None) => "learned".into(),
        }
    }
}
