//! Views, one after the other, to one feature per point.

use std::ops::Range;

use burn::prelude::*;
use rayon::prelude::*;

use super::view::{NO_QUERY, View};
use crate::ops::fuse_views::{TOP, fuse_views};
use crate::ops::knn::knn_between;
use crate::ops::project::{Camera, Visibility, project};
use crate::ops::{OpError, float_tensor, float_values, int_tensor, int_values};
use crate::purify::FeatureSource;
use crate::weights::WeightsError;

/// Queries per point and view that are on the device at a time.
const BLOCK_VALUES: usize = 1 << 24;

/// Why points could not be lifted to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiftError {
    /// A depth map or a view does not have the camera's size.
    #[error("{what} has {found} pixels, the camera {} x {}", expected[1], expected[0])]
    Size {
        /// The depth map or the view.
        what: &'static str,
        /// Its pixels.
        found: usize,
        /// Height and width of the camera's image.
        expected: [usize; 2],
    },
    /// A view's tables do not have the size of the first one's.
    #[error("a view of {found:?} queries, channels and labels after one of {expected:?}")]
    Tables {
        /// Queries, channels and labels of the view.
        found: [usize; 3],
        /// Those of the first view.
        expected: [usize; 3],
    },
    /// No view sees a point.
    #[error("none of the {views} views sees any of the {points} points: wrong poses, or depth in another unit?")]
    NothingSeen {
        /// Views that were added.
        views: usize,
        /// Points of the scan.
        points: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// The pixels at which a camera sees the points.
#[derive(Clone, Debug)]
pub struct Sight {
    /// `[N]` row · width + column, -1 where a point is not seen.
    pub pixel_from_point: Vec<i32>,
    /// How many points are seen.
    pub num_visible: usize,
    size: [usize; 2],
}

/// What became of the points of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewReport {
    /// Points the view sees.
    pub num_visible: usize,
    /// Points among them that no query claims: they took that of the nearest point of the view that has one.
    pub num_filled: usize,
}

/// Collects views of one scan.
#[derive(Debug)]
pub struct Lifter {
    device: Device,
    positions: Vec<[f32; 3]>,
    points: Tensor<2>,
    visibility: Visibility,
    views: Vec<Seen>,
}

/// A view that was added.
#[derive(Debug)]
struct Seen {
    /// `[N]`, [`NO_QUERY`] where a point is not seen.
    query_from_point: Vec<u16>,
    /// `[Q, D]`, of unit length.
    embeddings: Vec<f32>,
    /// `[Q, K]`.
    logits: Vec<f32>,
    /// Q, D, K.
    extents: [usize; 3],
}

impl Lifter {
    /// For `positions [N]`, every one finite and centred before it became f32.
    #[must_use]
    pub fn new(positions: Vec<[f32; 3]>, visibility: Visibility, device: &Device) -> Self {
        let points = float_tensor(positions.as_flattened().to_vec(), [positions.len(), 3], device);
        Self { device: device.clone(), positions, points, visibility, views: Vec::new() }
    }

    /// Which points `camera` sees, by its `depth [height · width]` (0: none).
    ///
    /// # Errors
    /// [`LiftError::Size`] where the depth map has not the camera's size; [`LiftError::Op`].
    pub fn see(&self, camera: Camera, _d: Camera, depth: &[f32]) -> Result<Sight, LiftError> {
        let size = [camera.height, camera.width];
        if depth.len() != camera.height * camera.width {
            return Err(LiftError::Size { what: "the depth map", found: depth.len(), expected: size });
        }
        let depth = float_tensor(depth.to_vec(), size, &self.device);
        let pixel_from_point = int_values(project(self.points.clone(), depth, camera, self.visibility)?)?;
        let num_visible = pixel_from_point.iter().filter(|&&pixel| pixel >= 0).count();
        Ok(Sight { pixel_from_point, num_visible, size })
    }

    /// Adds what X-Decoder says of the pixels of `sight`. A visible point whose pixel no query claims takes the query of
    /// the nearest point, in space, of the same view that has one; a view without any such point adds nothing.
    ///
    /// # Errors
    /// [`LiftError::Size`] where the view is not of the camera's size, [`LiftError::Tables`] where it has other
    /// queries, channels or labels than the views before it, [`LiftError::Op`].
    pub fn add(&mut self, sight: &Sight, view: &View) -> Result<ViewReport, LiftError> {
        if view.size != sight.size {
            let found = view.size[0] * view.size[1];
            return Err(LiftError::Size { what: "the view", found, expected: sight.size });
        }
        let num_queries = view.logits.len() / view.num_labels.max(1);
        let extents = [num_queries, view.embeddings.len() / num_queries.max(1), view.num_labels];
        if let Some(first) = self.views.first()
            && first.extents != extents
        {
            return Err(LiftError::Tables { found: extents, expected: first.extents });
        }
        let mut query_from_point = vec![NO_QUERY; sight.pixel_from_point.len()];
        let (mut claimed, mut unclaimed) = (Vec::new(), Vec::new());
        for (point, &pixel) in sight.pixel_from_point.iter().enumerate() {
            if let Ok(pixel) = usize::try_from(pixel) {
                let query = view.query_from_pixel[pixel];
                query_from_point[point] = query;
                if query == NO_QUERY { unclaimed.push(point) } else { claimed.push(point) }
            }
        }
        let num_filled = if claimed.is_empty() { 0 } else { unclaimed.len() };
        for (&point, nearest) in unclaimed.iter().zip(self.nearest(&unclaimed, &claimed)?) {
            query_from_point[point] = query_from_point[nearest];
        }
        let num_visible = sight.num_visible;
        if !claimed.is_empty() {
            let (embeddings, logits) = (view.embeddings.clone(), view.logits.clone());
            self.views.push(Seen { query_from_point, embeddings, logits, extents });
        }
        Ok(ViewReport { num_visible, num_filled })
    }

    /// For every one of `points` the nearest of `among`; nothing where there is none.
    fn nearest(&self, points: &[usize], among: &[usize]) -> Result<Vec<usize>, LiftError> {
        if points.is_empty() || among.is_empty() {
            return Ok(Vec::new());
        }
        let gather = |rows: &[usize]| {
            let values: Vec<f32> = rows.iter().flat_map(|&row| self.positions[row]).collect();
            float_tensor(values, [rows.len(), 3], &self.device)
        };
        let found = knn_between(gather(points), gather(among), 1)?;
        Ok(int_values(found.index)?.into_iter().map(|i| among[i as usize]).collect())
    }

    /// The query every point has in the view added as number `view`, `None` where it is not seen.
    #[must_use]
    pub fn query_from_point(&self, view: usize) -> Vec<Option<usize>> {
        let queries = self.views.get(view).map_or(&[][..], |view| &view.query_from_point);
        queries.iter().map(|&query| (query != NO_QUERY).then_some(query.into())).collect()
    }

    /// Views that were added.
    #[must_use]
    pub fn num_views(&self) -> usize {
        self.views.len()
    }

    /// One feature per point: the up to three views that speak most for the label all views agree on, weighted by the
    /// softmax of their logits. A point that no view sees takes all of the nearest one that some view sees.
    ///
    /// # Errors
    /// [`LiftError::NothingSeen`]; [`LiftError::Op`].
    pub fn finish(self) -> Result<Lifted, LiftError> {
        let num_points = self.positions.len();
        let Some(&[num_queries, dim, num_labels]) = self.views.first().map(|view| &view.extents) else {
            return Err(LiftError::NothingSeen { views: 0, points: num_points });
        };
        let logits: Vec<f32> = self.views.iter().flat_map(|view| &view.logits).copied().collect();
        let logits = float_tensor(logits, [self.views.len(), num_queries, num_labels], &self.device);
        let mut lifted = Lifted {
            consensus: Vec::with_capacity(num_points),
            num_views_of_point: vec![0; num_points],
            row_from_point: Vec::with_capacity(num_points),
            agreement: Vec::with_capacity(num_points),
            weights: Vec::with_capacity(num_points),
            table: self.views.iter().flat_map(|view| &view.embeddings).copied().collect(),
            num_channels: dim,
            num_unseen: 0,
        };
        let block = (BLOCK_VALUES / self.views.len()).max(1);
        for first in (0..num_points).step_by(block) {
            let points = first..num_points.min(first + block);
            self.fuse(points, &logits, num_queries, &mut lifted)?;
        }
        let (seen, unseen): (Vec<usize>, Vec<usize>) = (0..num_points).partition(|&i| lifted.consensus[i] >= 0);
        if seen.is_empty() {
            return Err(LiftError::NothingSeen { views: self.views.len(), points: num_points });
        }
        for (&point, nearest) in unseen.iter().zip(self.nearest(&unseen, &seen)?) {
            lifted.row_from_point[point] = lifted.row_from_point[nearest];
            lifted.weights[point] = lifted.weights[nearest];
        }
        lifted.num_unseen = unseen.len();
        Ok(lifted)
    }

    fn fuse(
        &self,
        points: Range<usize>,
        logits: &Tensor<3>,
        num_queries: usize,
        lifted: &mut Lifted,
    ) -> Result<(), LiftError> {
        let mut queries = Vec::with_capacity(self.views.len() * points.len());
        for view in &self.views {
            let of_view = &view.query_from_point[points.clone()];
            let counts = &mut lifted.num_views_of_point[points.clone()];
            queries.extend(of_view.iter().zip(counts).map(|(&query, count)| match query {
                NO_QUERY => -1,
                query => {
                    *count += 1;
                    i32::from(query)
                }
            }));
        }
        let shape = [self.views.len(), points.len()];
        let fused = fuse_views(int_tensor(queries, shape, &self.device), logits.clone())?;
        lifted.consensus.extend(int_values(fused.consensus)?);
        let agreement = float_values(fused.agreement)?;
        lifted.agreement.extend_from_slice(agreement.as_chunks::<TOP>().0);
        lifted.weights.extend_from_slice(float_values(fused.weights)?.as_chunks::<TOP>().0);
        let views = int_values(fused.view)?;
        let rows = points.zip(views.as_chunks::<TOP>().0).map(|(point, views)| {
            views.map(|view| match usize::try_from(view) {
                Ok(view) => (view * num_queries) as i32 + i32::from(self.views[view].query_from_point[point]),
                Err(_) => -1,
            })
        });
        lifted.row_from_point.extend(rows);
        Ok(())
    }
}

/// Features on points, see [`Lifter::finish`]. Read as a [`FeatureSource`], a block of channels at a time.
#[derive(Clone, Debug)]
pub struct Lifted {
    /// `[N]` the label the views agree on, -1 where no view sees a point.
    pub consensus: Vec<i32>,
    /// `[N]` how many views see a point.
    pub num_views_of_point: Vec<u32>,
    /// `[N, 3]` logits of that label in the best views, best first, 0 where there are fewer.
    pub agreement: Vec<[f32; TOP]>,
    /// `[N, 3]` their weights.
    pub weights: Vec<[f32; TOP]>,
    /// Points that no view sees.
    pub num_unseen: usize,
    /// `[N, 3]` rows of the table, -1 where there are fewer.
    row_from_point: Vec<[i32; TOP]>,
    /// `[V · Q, D]` embeddings of all views.
    table: Vec<f32>,
    num_channels: usize,
}

impl FeatureSource for Lifted {
    fn num_points(&self) -> usize {
        self.consensus.len()
    }

    fn num_channels(&self) -> usize {
        self.num_channels
    }

    fn read(&self, channels: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        let width = channels.len();
        let mut values = vec![0.0; self.num_points() * width];
        let rows = values.par_chunks_mut(width.max(1)).zip(&self.row_from_point).zip(&self.weights);
        rows.with_min_len(256).for_each(|((out, rows), weights)| {
            for (&row, weight) in rows.iter().zip(weights) {
                if let Ok(row) = usize::try_from(row) {
                    let embedding = &self.table[row * self.num_channels..][channels.clone()];
                    out.iter_mut().zip(embedding).for_each(|(out, x)| *out += weight * x);
                }
            }
        });
        Ok(values)
    }
}
