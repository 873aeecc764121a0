//! The whole pipeline from a scan and words to labels. Only this module uses all the others.

mod areas;
mod compat;
mod components;
mod contact_sheet;
mod encoding;
mod error;
mod fused;
mod image_model;
mod lifted_views;
mod lifting;
mod mixed;
mod network;
mod results;
mod scene;
mod view_rules;
mod voxel;

pub use areas::surface_areas;
pub use compat::{Compat, UnknownCompat};
pub use components::principal_colors;
pub use contact_sheet::{HeatViews, contact_sheet, recorded_cameras};
pub use encoding::{EncodeOptions, Encoding, encode};
pub use error::PipelineError;
pub use fused::FusedFeatures;
pub use image_model::{DensePicture, ImageModel, PictureView, SeenPictures};
pub use lifted_views::LiftedViews;
pub use lifting::{OnView, SceneViews, SeenView, ViewEncoder, ViewOptions, ViewReport, Views, encode_views};
pub use mixed::Mixing;
pub use network::{Network3d, Repeats};
pub use results::{
    Class, ResultOptions, Results, SQUARE_METRES, SUMMARY_FILE, ScanColors, Summary, Weights, write_legend,
};
pub use scene::{Appearance, Scene, Turned};
pub use view_rules::ViewRules;
pub use voxel::{VOXEL_METRES, occupied_neighbors, voxel_size_for_purification, voxel_size_for_training};

use burn::prelude::*;
use glam::{DMat3, DVec3};

use crate::models::xdecoder::TextEmbeddings;
use crate::objects;
use crate::ops::OpError;
use crate::purify::{self, Affinities, FeatureSource, Purified, purify};
use crate::query::ensemble::Ensemble;
use crate::query::{Predictions, predict};
use crate::stages::StageTimer;
use mixed::Mixed;
use network::CellFeatures;

/// What gives points their features.
#[derive(Clone, Copy)]
pub enum Encoders<'a> {
    /// Views of the scan, through the image model.
    Views(ImageModel<'a>),
    /// A 3D network. No view is looked at.
    Network(Network3d<'a>),
    /// Both, in one space.
    Both {
        /// The image model.
        image_model: ImageModel<'a>,
        /// The 3D network.
        network: Network3d<'a>,
        /// How the two become one.
        mixing: Mixing,
    },
    /// Features that were fused from views beforehand. No view is looked at.
    Fused {
        /// The fused features.
        fused: &'a FusedFeatures,
        /// The 3D network that they join, if there is one, and how the two become one.
        joins: Option<(Network3d<'a>, Ensemble)>,
    },
}

/// The networks and the words.
pub struct Models<'a> {
    /// What gives points their features.
    pub encoders: Encoders<'a>,
    /// Affinities of voxels.
    pub affinities: Affinities<'a>,
    /// Embeddings of the words, in the space of the features: the labels, then the background words. Its rows end with
    /// that of the background.
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
    /// `[N]`: label of each point before purification, -1 for none: that on which its views agree, or the nearest word
    /// of features of pixels and of a 3D network. Points are those with a position.
    pub lifted_label: Vec<i32>,
    /// Nearest word of every voxel after purification.
    pub of_voxel: Predictions,
    /// Purified features, and the voxel of every point.
    pub purified: Purified,
    /// How many views were used, and why others were left out. No views for a 3D network alone.
    pub views: ViewReport,
    /// Notes for the user.
    pub notes: Vec<String>,
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

    /// What [`objects::find`] takes, of the voxels of `scene`. `names` are those of the labels, in their order, and
    /// `is_stuff` is true for those that are left whole; `up` is the scan's up direction.
    #[must_use]
    pub fn object_input<'a>(
        &'a self,
        scene: &'a Scene,
        names: &'a [String],
        is_stuff: &'a [bool],
        up: DVec3,
    ) -> objects::Input<'a> {
        objects::Input {
            positions: scene.positions(),
            colors: scene.colors(),
            voxel_from_point: &self.purified.voxel_from_point,
            features: &self.purified.features,
            num_channels: self.purified.num_channels,
            labels: &self.of_voxel.label,
            scores: &self.of_voxel.score,
            names,
            is_stuff,
            up: up.to_array(),
            metre: scene.metres_per_unit().unwrap_or(1.0).recip(),
        }
    }
}

/// Features of points, their labels, and the views they are from.
type FeaturesAndLabels = (Box<dyn FeatureSource>, Vec<i32>, ViewReport);

/// Labels every point of the scan that has a position. Gives the points features, by views that go through the image
/// model and are lifted to the points, by a 3D network, or by both. Purifies the features by geometry, and compares them
/// with the words.
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
    let (num_words, num_labels) = (models.text.labels.len(), models.num_labels);
    let words = models.text.rows.clone().slice_dim(0, 0..num_words);
    let scan = input.scene.turned(options.turn);
    let mut notes = Vec::new();
    let encoders = match models.encoders {
        Encoders::Both { image_model, network, .. } if network.finds_too_sparse(&scan) => {
            notes.push("points are too far apart for the 3D network: the views alone decide".to_owned());
            Encoders::Views(image_model)
        }
        encoders => encoders,
    };
    let of_cells = |network, timer: &mut StageTimer<'_>| CellFeatures::of(&scan, network, models.text, device, timer);
    let see = |model, timer: &mut StageTimer<'_>, on_view: &mut OnView<'_>| {
        let encoder = ViewEncoder { model, text: models.text };
        encode_views(input, encoder, &options.views, device, timer, on_view)
    };
    let of_network = |cells: CellFeatures| -> Result<FeaturesAndLabels, PipelineError> {
        let labels = cells.labels(&words, num_labels)?;
        let views = ViewReport { points: input.scene.num_points(), ..ViewReport::default() };
        Ok((Box::new(cells), labels, views))
    };
    let (features, lifted_label, views): FeaturesAndLabels = match encoders {
        Encoders::Views(image_model) => {
            let (lifted, views) = see(image_model, timer, on_view)?;
            let labels = lifted.labels(&words, num_labels)?;
            (Box::new(lifted), labels, views)
        }
        Encoders::Network(network) => of_network(of_cells(network, timer)?)?,
        Encoders::Fused { fused, joins: None } => of_network(CellFeatures::of_fused(fused, &scan))?,
        Encoders::Fused { fused, joins: Some((network, rule)) } => {
            of_network(of_cells(network, timer)?.joined(fused, rule, &words)?)?
        }
        Encoders::Both { image_model, network, mixing } => {
            let cells = of_cells(network, timer)?;
            let (lifted, views) = see(image_model, timer, on_view)?;
            let mixed = Mixed::new(lifted, cells, mixing, &words)?;
            let labels = mixed.labels(&words, num_labels)?;
            (Box::new(mixed), labels, views)
        }
    };
    let purified = purify(scan.to_purify(), &*features, models.affinities, options.purify, device, timer)?;
    drop(features);
    let of_voxel = predict(&purified.features, &words, num_labels, options.threshold)?;
    device.sync().map_err(|error| OpError::Device(format!("{error:?}")))?;
    timer.lap("predict");
    Ok(Inferred { lifted_label, of_voxel, purified, views, notes })
}
