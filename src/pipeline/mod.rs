//! The whole pipeline from a scan and words to labels. Only this module uses all the others.

mod compat;
mod components;
mod contact_sheet;
mod encoding;
mod error;
mod lifting;
mod results;
mod scene;

pub use compat::{Compat, UnknownCompat};
pub use components::principal_colors;
pub use contact_sheet::{HeatViews, contact_sheet, recorded_cameras};
pub use encoding::{EncodeOptions, Encoding, encode};
pub use error::PipelineError;
pub use lifting::{OnView, SceneViews, SeenView, ViewEncoder, ViewOptions, ViewReport, Views, encode_views};
pub use results::{Class, Results, Summary, Weights};
pub use scene::{Appearance, Scene};

use burn::prelude::*;

use crate::models::xdecoder::{TextEmbeddings, XDecoder};
use crate::ops::OpError;
use crate::purify::{self, Affinities, Purified, purify};
use crate::query::{Predictions, predict};
use crate::stages::StageTimer;

/// Voxel edge in metres for which the student was trained.
pub const VOXEL_METRES: f64 = 0.02;
/// Voxel edge as a multiple of the distance between points, if points are too sparse for [`VOXEL_METRES`].
/// With it most voxels have neighbours.
const VOXELS_PER_SPACING: f64 = 1.5;
/// Least number of voxels along the longest side of a scan that still shows its parts.
const MIN_VOXELS_ACROSS: f64 = 64.0;

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

/// Voxel edge for `scene`, in its unit, and the reason if it is not the usual one.
///
/// The usual edge is 2 cm. It is smaller for a scan that would be only a handful of voxels. It is larger if
/// points are so far apart that hardly any voxel would have a neighbour: in a landscape, or a scan of unknown
/// unit.
#[must_use]
pub fn voxel_size(scene: &Scene) -> (f64, Option<String>) {
    let usual = VOXEL_METRES / scene.metres_per_unit().unwrap_or(1.0);
    let bounds = scene.cloud.bounds().unwrap_or_default();
    let extent = (0..3).map(|axis| bounds.1[axis] - bounds.0[axis]).fold(0.0, f64::max);
    let finest = if extent > 0.0 { usual.min(extent / MIN_VOXELS_ACROSS) } else { usual };
    match scene.cloud.spacing() {
        Some(spacing) if spacing > finest => {
            let size = spacing * VOXELS_PER_SPACING;
            let why = || format!("points are {spacing:.3} apart: voxels of {size:.3} instead of {usual:.3}");
            (size, (size != usual).then(why))
        }
        _ if finest < usual => {
            (finest, Some(format!("the scan is {extent:.3} across: voxels of {finest:.4} instead of {usual:.3}")))
        }
        _ => (usual, None),
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
    let purified = purify(input.scene.to_purify(), &lifted, models.affinities, options.purify, device, timer)?;
    drop(lifted);
    let num_words = models.text.labels.len();
    let words = models.text.rows.clone().slice_dim(0, 0..num_words);
    let of_voxel = predict(&purified.features, &words, models.num_labels, options.threshold)?;
    device.sync().map_err(|error| OpError::Device(format!("{error:?}")))?;
    timer.lap("predict");
    Ok(Inferred { lifted_label, of_voxel, purified, views })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{PointCloud, Unit};

    #[test]
    fn voxels_are_two_centimetres_unless_points_are_far_apart() {
        let grid = |step: f64, unit| {
            let positions = (0..40_000).map(|i| [f64::from(i % 200) * step, f64::from(i / 200) * step, 0.0]).collect();
            Scene::new(PointCloud { positions, unit, ..PointCloud::default() }, None).unwrap()
        };
        assert_eq!(voxel_size(&grid(0.01, Some(Unit::Metre))), (0.02, None));
        assert_eq!(voxel_size(&grid(8.0, Some(Unit::Millimetre))).0, 20.0);
        let (size, why) = voxel_size(&grid(1.0, Some(Unit::Metre)));
        assert!((size - 1.5).abs() < 1e-9 && why.unwrap().contains("1.000 apart"));
        let (size, why) = voxel_size(&grid(0.001, Some(Unit::Metre)));
        assert!((size - 0.199 / 64.0).abs() < 1e-9 && why.unwrap().contains("0.199 across"));
        let one = PointCloud { positions: vec![[1.0; 3]], unit: Some(Unit::Metre), ..PointCloud::default() };
        assert_eq!(voxel_size(&Scene::new(one, None).unwrap()), (0.02, None));
    }
}
