//! Options of labelling.

use std::path::PathBuf;

use glam::DMat3;
use serde_json::{Value as Json, json};

use super::image_model::ImageModelKind;
use super::method::Method;
use super::source::ViewSettings;
use crate::models::student::{Student, StudentConfig};
use crate::pipeline::{Compat, Options};
use crate::purify::{self, Affinities, ColorNormal};
use crate::query::ensemble::Ensemble;

/// Weight of the 3D network in the ensemble.
const USUAL_SHARE: f32 = 0.75;
/// Turns over which the 3D network's features are averaged.
const USUAL_TURNS: usize = 4;
/// Runs of the published evaluation of OpenScene and CUA-O3D on ScanNet.
const REFERENCE_REPEATS: usize = 5;

/// Source of the weights between neighbouring voxels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum AffinityKind {
    /// Similarity of the student's embeddings.
    #[default]
    Learned,
    /// Equal weights: a baseline that needs no student.
    Uniform,
    /// Similarity of colour and normal: another baseline.
    ColorNormal(ColorNormal),
    /// Similarity in both ways: of the student's embeddings, and of colour and normal.
    Combined(ColorNormal),
}

impl AffinityKind {
    /// True if the student's embeddings count.
    #[must_use]
    pub fn needs_student(self) -> bool {
        matches!(self, Self::Learned | Self::Combined(_))
    }

    /// What is left without a student.
    pub(super) fn without_student(self) -> Self {
        match self {
            Self::Learned => Self::ColorNormal(ColorNormal::default()),
            Self::Combined(kernel) => Self::ColorNormal(kernel),
            other => other,
        }
    }

    /// Returns the affinities, with the student if its embeddings count.
    pub(super) fn with(self, student: Option<&(Student, StudentConfig)>) -> Affinities<'_> {
        match (student, self) {
            (Some(&(ref student, config)), Self::Combined(kernel)) => Affinities::Combined { student, config, kernel },
            (Some((student, config)), _) => Affinities::Learned { student, config: *config },
            (None, Self::ColorNormal(kernel) | Self::Combined(kernel)) => Affinities::ColorNormal(kernel),
            (None, Self::Uniform | Self::Learned) => Affinities::Uniform,
        }
    }

    /// Description for reports and cache keys.
    #[must_use]
    pub fn to_json(self) -> Json {
        match self {
            Self::ColorNormal(kernel) => json!({ "color_normal": kernel }),
            Self::Combined(kernel) => json!({ "combined": kernel }),
            Self::Uniform => "uniform".into(),
            Self::Learned => "learned".into(),
        }
    }
}

/// Options of labelling, independent of the words.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelOptions {
    /// Way to label; `None` for the usual one, see [`plan`](Self::plan).
    pub method: Option<Method>,
    /// Model that sees the views.
    pub image_model: ImageModelKind,
    /// Weight of the 3D network in the ensemble, 0 to 1.
    pub share: f32,
    /// Number of turns about the up direction over which the 3D network's features are averaged.
    pub turns: usize,
    /// Published rule by which the ensemble decides; `None` for the weighted sum, by [`share`](Self::share).
    pub ensemble: Option<Ensemble>,
    /// OpenScene's fused features, alone or for the ensemble with a published 3D network: the file of a scan, or a folder of them,
    /// see [`FusedFeatures::file_of`](crate::pipeline::FusedFeatures::file_of).
    pub fused: Option<PathBuf>,
    /// Number of runs of a published 3D network whose scores are added under [`Compat::Reference`].
    pub repeats: usize,
    /// Source of the weights between neighbouring voxels; `None` for the usual one, see [`plan`](Self::plan).
    pub affinities: Option<AffinityKind>,
    /// Factor of the student's cosines before the softmax.
    pub sharpness: f32,
    /// Smallest cosine with the nearest word; points below it stay unlabelled.
    pub threshold: Option<f32>,
    /// Seed for [`Compat::Reference`], which rotates and scales every scene at random.
    pub seed: u64,
    /// Edge of a voxel in the scan's unit; `None` for 2 cm, or more if most voxels would be alone.
    pub voxel: Option<f64>,
    /// Neighbours per voxel, 1 to 128.
    pub neighbors: usize,
    /// Number of times the affinities are applied; 0 leaves the features unchanged. `None` for the usual number, see
    /// [`plan`](Self::plan).
    pub iterations: Option<usize>,
    /// Settings of views.
    pub views: ViewSettings,
}

impl Default for LabelOptions {
    fn default() -> Self {
        let usual = purify::Settings::default();
        Self {
            method: None,
            image_model: ImageModelKind::default(),
            share: USUAL_SHARE,
            turns: USUAL_TURNS,
            ensemble: None,
            fused: None,
            repeats: REFERENCE_REPEATS,
            affinities: None,
            sharpness: usual.sharpness,
            threshold: None,
            seed: 0,
            voxel: None,
            neighbors: usual.neighbors,
            iterations: None,
            views: ViewSettings::default(),
        }
    }
}

impl LabelOptions {
    /// Options of the pipeline for voxels of edge `voxel` in a scan turned by `turn`.
    pub(super) fn of_pipeline(&self, voxel: f64, turn: DMat3, views: &ViewSettings, iterations: usize) -> Options {
        let compat = views.compat;
        let voxel_transform = (compat == Compat::Reference).then(|| compat.voxel_transform(voxel, self.seed));
        Options {
            views: views.view_options(),
            turn,
            purify: purify::Settings {
                voxel_size: voxel,
                voxel_transform,
                neighbors: self.neighbors,
                iterations,
                sharpness: self.sharpness,
                working_bytes: usize::try_from(views.working_bytes()).unwrap_or(usize::MAX),
            },
            threshold: self.threshold,
        }
    }
}
