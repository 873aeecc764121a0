//! Lifting for every kind of image model, and what it gives points.

use std::ops::Range;

use burn::prelude::*;
use rayon::prelude::*;

use super::image_model::{ImageModel, PictureView};
use crate::lift::{DenseLifted, DenseLifter, LiftError, Lifted, Lifter, Projection};
use crate::ops::OpError;
use crate::ops::project::{Camera, Visibility};
use crate::purify::FeatureSource;
use crate::query::ensemble::scores;
use crate::query::predict;
use crate::weights::WeightsError;

/// Points whose features are compared with words at once.
const BLOCK_POINTS: usize = 1 << 14;

/// Collects the views of a scan.
pub(super) enum ViewLifter {
    Queries(Lifter),
    Dense(DenseLifter),
}

impl ViewLifter {
    /// Makes a lifter for what `model` says, with the arguments of [`Lifter::new`].
    pub(super) fn new(model: ImageModel<'_>, points: Vec<[f32; 3]>, visibility: Visibility, device: &Device) -> Self {
        match model {
            ImageModel::XDecoder(_) => Self::Queries(Lifter::new(points, visibility, device)),
            ImageModel::LSeg(_) => Self::Dense(DenseLifter::new(points, visibility, device)),
        }
    }

    /// Finds the points that a camera sees, see [`Lifter::see`].
    pub(super) fn see(&self, color: Camera, depth_camera: Camera, depth: &[f32]) -> Result<Projection, LiftError> {
        match self {
            Self::Queries(lifter) => lifter.see(color, depth_camera, depth),
            Self::Dense(lifter) => lifter.see(color, depth_camera, depth),
        }
    }

    /// Adds a view of the image of `projection`.
    pub(super) fn add(&mut self, projection: &Projection, view: &PictureView) -> Result<(), LiftError> {
        match (self, view) {
            (Self::Queries(lifter), PictureView::Queries(view)) => lifter.add(projection, view).map(|_| ()),
            (Self::Dense(lifter), PictureView::Dense(picture)) => lifter.add(projection, picture.view()),
            (Self::Queries(_), PictureView::Dense(picture)) => {
                Err(LiftError::Tables { found: [picture.view().num_channels(), 0], expected: [0, 0] })
            }
            (Self::Dense(_), PictureView::Queries(view)) => {
                Err(LiftError::Tables { found: [view.num_channels(), view.num_labels()], expected: [0, 0] })
            }
        }
    }

    /// Number of views that were added and see a point.
    pub(super) fn num_views(&self) -> usize {
        match self {
            Self::Queries(lifter) => lifter.num_views(),
            Self::Dense(lifter) => lifter.num_views(),
        }
    }

    /// Computes one feature per point.
    pub(super) fn finish(self) -> Result<LiftedViews, LiftError> {
        Ok(match self {
            Self::Queries(lifter) => LiftedViews::Queries(lifter.finish()?),
            Self::Dense(lifter) => LiftedViews::Dense(lifter.finish()?),
        })
    }
}

/// Features of points from views. Read as a [`FeatureSource`], a block of channels at a time.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub enum LiftedViews {
    /// Sums of embeddings of queries, of the views that agree on a label.
    Queries(Lifted),
    /// Means over the views.
    Dense(DenseLifted),
}

impl LiftedViews {
    /// `[N]`: number of views that see each point.
    #[must_use]
    pub fn num_views_of_point(&self) -> &[u32] {
        match self {
            Self::Queries(lifted) => &lifted.num_views_of_point,
            Self::Dense(lifted) => &lifted.num_views_of_point,
        }
    }

    /// Number of points that no view sees.
    #[must_use]
    pub fn num_unseen(&self) -> usize {
        match self {
            Self::Queries(lifted) => lifted.num_unseen,
            Self::Dense(lifted) => lifted.num_unseen,
        }
    }

    /// Label of every point by its views, -1 for a background word or none: the label on which they agree, or of
    /// features of pixels the word nearest to their mean. The first `num_labels` of `words [K, C]` are labels.
    ///
    /// # Errors
    /// As [`predict`].
    pub fn labels(&self, words: &Tensor<2>, num_labels: usize) -> Result<Vec<i32>, OpError> {
        match self {
            Self::Queries(lifted) => {
                let is_label = |label: i32| usize::try_from(label).is_ok_and(|label| label < num_labels);
                Ok(lifted.consensus.iter().map(|&label| if is_label(label) { label } else { -1 }).collect())
            }
            Self::Dense(lifted) => {
                let mut labels = Vec::with_capacity(lifted.num_points());
                for points in blocks(lifted.num_points()) {
                    labels.extend(predict(&lifted.rows(points), words, num_labels, None)?.label);
                }
                Ok(labels)
            }
        }
    }

    /// Products of the features with `words [K, C]`, to be read by blocks of points.
    ///
    /// # Errors
    /// As [`scores`].
    pub(super) fn word_scores<'a>(&'a self, words: &'a Tensor<2>) -> Result<WordScores<'a>, OpError> {
        let of_query = match self {
            Self::Queries(lifted) => scores(lifted.table(), words)?,
            Self::Dense(_) => Vec::new(),
        };
        Ok(WordScores { lifted: self, words, of_query })
    }
}

/// Blocks of points, in order.
pub(super) fn blocks(num_points: usize) -> impl Iterator<Item = Range<usize>> {
    (0..num_points).step_by(BLOCK_POINTS).map(move |first| first..num_points.min(first + BLOCK_POINTS))
}

/// Products of the features of points with words.
pub(super) struct WordScores<'a> {
    lifted: &'a LiftedViews,
    words: &'a Tensor<2>,
    /// Products of the embeddings of queries, if there are any.
    of_query: Vec<f32>,
}

impl WordScores<'_> {
    /// Those of some points, `[n, K]`.
    pub(super) fn of_points(&self, points: Range<usize>) -> Result<Vec<f32>, OpError> {
        let [num_words, _] = self.words.dims();
        match self.lifted {
            LiftedViews::Dense(lifted) => scores(&lifted.rows(points), self.words),
            LiftedViews::Queries(lifted) => {
                let mut of_points = vec![0.0; points.len() * num_words];
                let rows = of_points.par_chunks_mut(num_words.max(1)).zip(points.into_par_iter());
                rows.with_min_len(256).for_each(|(of_point, point)| {
                    for (row, weight) in lifted.rows_of(point) {
                        let of_query = &self.of_query[row * num_words..][..num_words];
                        of_point.iter_mut().zip(of_query).for_each(|(score, x)| *score += weight * x);
                    }
                });
                Ok(of_points)
            }
        }
    }
}

impl FeatureSource for LiftedViews {
    fn num_points(&self) -> usize {
        match self {
            Self::Queries(lifted) => lifted.num_points(),
            Self::Dense(lifted) => lifted.num_points(),
        }
    }

    fn num_channels(&self) -> usize {
        match self {
            Self::Queries(lifted) => lifted.num_channels(),
            Self::Dense(lifted) => lifted.num_channels(),
        }
    }

    fn read(&self, channels: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        match self {
            Self::Queries(lifted) => lifted.read(channels),
            Self::Dense(lifted) => lifted.read(channels),
        }
    }
}
