//! The whole pipeline from a scan and words to labels. Only this module uses all the others.

mod areas;
mod compat;
mod components;
mod contact_sheet;
mod encoding;
mod error;
mod lifting;
mod results;
mod scene;
mod voxel;

pub use areas::surface_areas;
pub use compat::{Compat, UnknownCompat};
pub use components::principal_colors;
pub use contact_sheet::{HeatViews, contact_sheet, recorded_cameras};
pub use encoding::{EncodeOptions, Encoding, encode};
pub use error::PipelineError;
pub use lifting::{OnView, SceneViews, SeenView, ViewEncoder, ViewOptions, ViewReport, Views, encode_views};
pub use results::{Class, Results, SUMMARY_FILE, ScanColors, ScanOptions, Summary, Weights, write_legend};
pub use scene::{Appearance, Scene, Turned};
pub use voxel::{VOXEL_METRES, occupied_neighbors, voxel_size_for_purification, voxel_size_for_training};

use burn::prelude::*;
use glam::DMat3;

use crate::models::xdecoder::{TextEmbeddings, XDecoder};
use crate::ops::OpError;
use crate::purify::{self, Affinities, Purified, purify};
use crate::query::{Predictions, predict};
use crate::stages::StageTimer;

/// The networks and the words.
pub struct Models<'a> {
    /// The image model.
    pub xdecoder: &'a XDecoder,
    /// Affinities of voxels.
    pub affinities: Affinities<'a>,
    /// Embeddings of the words by X-Decoder: the labels, then the background words.
    pub text: &'a TextEmbeddings,
    /// Number of words that are labels.
    pub num_labels: usize,
}

/// Options of labelling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Options of encoding views.
    pub views: ViewOptions,
    /// Settings of purification.
    pub purify: purify::Settings,
    /// Rotation from the scan's axes to those in which it is purified.
    pub turn: DMat3,
    /// Smallest cosine with the nearest label; points below it stay unlabelled.
    pub threshold: Option<f32>,
}

/// Labels of a scan.
#[derive(Clone, Debug)]
pub struct Inferred {
    /// `[N]`: label on which the views of each point agree, before purification; -1 for none. Points are
    /// those with a position.
    pub lifted_label: Vec<i32>,
    /// Nearest word of every voxel after purification.
    pub of_voxel: Predictions,
    /// Purified features, and the voxel of every point.
    pub purified: Purified,
    /// How many views were used, and why others were left out.
    pub views: ViewReport,
}

impl Inferred {
    /// Label, score and margin of every point with a position.
    #[must_use]
    pub fn of_point(&self) -> Predictions {
        let voxels = || self.purified.voxel_from_point.iter().map(|&voxel| voxel as usize);
        Predictions {
            label: voxels().map(|voxel| self.of_voxel.label[voxel]).collect(),
            score: voxels().map(|voxel| self.of_voxel.score[voxel]).collect(),
            margin: voxels().map(|voxel| self.of_voxel.margin[voxel]).collect(),
        }
    }
}

/// Labels every point of `scene` that has a position. Runs the model on `views`, lifts its output to the
/// points, purifies the features by geometry, and compares them with the words.
///
/// # Errors
/// [`PipelineError`].
pub fn infer(
    input: SceneViews<'_>,
    models: &Models<'_>,
    options: &Options,
    device: &Device,
    timer: &mut StageTimer<'_>,
    on_view: &mut OnView<'_>,
) -> Result<Inferred, PipelineError> {
    let encoder = ViewEncoder { model: models.xdecoder, text: models.text };
    let (lifted, views) = encode_views(input, encoder, &options.views, device, timer, on_view)?;
    let is_label = |label: i32| usize::try_from(label).is_ok_and(|label| label < models.num_labels);
    let lifted_label = lifted.consensus.iter().map(|&label| if is_label(label) { label } else { -1 }).collect();
    let scan = input.scene.turned(options.turn);
    let purified = purify(scan.to_purify(), &lifted, models.affinities, options.purify, device, timer)?;
    drop(lifted);
    let num_words = models.text.labels.len();
    let words = models.text.rows.clone().slice_dim(0, 0..num_words);
    let of_voxel = predict(&purified.features, &words, models.num_labels, options.threshold)?;
    device.sync().map_err(|error| OpError::Device(format!("{error:?}")))?;
    timer.lap("predict");
    Ok(Inferred { lifted_label, of_voxel, purified, views })
}
