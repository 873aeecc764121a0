//! Lifts views, one after the other, to one feature per point.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use burn::prelude::*;
use rayon::prelude::*;

use super::row_numbers::RowNumbers;
use super::view::View;
use crate::ops::compact::{Compacted, compact};
use crate::ops::fuse_views::{FusedViews, TOP, fuse_views};
use crate::ops::gather_index::gather_index;
use crate::ops::knn::knn_between;
use crate::ops::project::{Camera, Visibility, project, project_unhidden};
use crate::ops::{OpError, float_tensor, float_values, int_tensor, int_values, limits_of};
use crate::purify::FeatureSource;
use crate::weights::WeightsError;

/// Row numbers per block on the device.
const BLOCK_VALUES: usize = 1 << 22;
/// Bytes of host memory in which a [`Lifter`] keeps views by default.
pub const MEMORY_BUDGET: u64 = 256 << 20;
/// Marks a point that a view does not see.
const NO_ROW: u16 = u16::MAX;

/// Error of lifting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiftError {
    /// The size of a depth map or a view differs from the camera's.
    #[error("{what} has {found} pixels, the camera {} x {}", expected[1], expected[0])]
    Size {
        /// The depth map or the view.
        what: &'static str,
        /// Number of its pixels.
        found: usize,
        /// Height and width of the camera's image.
        expected: [usize; 2],
    },
    /// A projection was made for other points.
    #[error("the projection is of {found} points, the scan has {expected}")]
    Points {
        /// Points of the projection.
        found: usize,
        /// Points of the scan.
        expected: usize,
    },
    /// Channels or labels of a view differ from those of the first view.
    #[error("a view has {found:?} channels and labels, the first view has {expected:?}")]
    Tables {
        /// Channels and labels of the view.
        found: [usize; 2],
        /// Those of the first view.
        expected: [usize; 2],
    },
    /// No view sees a point.
    #[error("none of the {views} views sees any of the {points} points: wrong poses, or depth in another unit?")]
    NothingSeen {
        /// Number of views that were added.
        views: usize,
        /// Number of points of the scan.
        points: usize,
    },
    /// Views beyond the memory budget could not be written to a temporary file or read back.
    #[error(
        "{bytes} bytes of views are past the memory budget and go to a temporary file in {}: {source}; a larger \
         budget, or TMPDIR set to a folder with more room",
        folder.display()
    )]
    Spill {
        /// Folder of temporary files.
        folder: PathBuf,
        /// Bytes that the file must hold so far.
        bytes: u64,
        /// Error of the system.
        source: io::Error,
    },
    /// The device failed.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// Pixels at which a camera sees the points, on the device.
#[derive(Clone, Debug)]
pub struct Projection {
    /// `[N]` pixel of every point, -1 if it is not seen.
    pixel_from_point: Tensor<1, Int>,
    /// Points with a pixel, and points without one.
    points: Compacted,
    size: [usize; 2],
}

impl Projection {
    /// Makes a projection from the pixel of every point: row · width + column in an image of `size` (height, width),
    /// -1 for a point that is not seen.
    ///
    /// # Errors
    /// [`OpError`] if the device fails.
    pub fn of_pixels(pixel_from_point: Vec<i32>, size: [usize; 2], device: &Device) -> Result<Self, OpError> {
        let num_points = pixel_from_point.len();
        let pixel_from_point = int_tensor(pixel_from_point, [num_points], device);
        let points = compact(pixel_from_point.clone())?;
        Ok(Self { pixel_from_point, points, size })
    }

    /// Projects `points [N, 3]`, see [`Lifter::see`].
    pub(super) fn new(
        points: &Tensor<2>,
        visibility: Visibility,
        [color, depth_camera]: [Camera; 2],
        depth: &[f32],
    ) -> Result<Self, LiftError> {
        let depth_size = [depth_camera.height, depth_camera.width];
        if depth_camera.height.checked_mul(depth_camera.width) != Some(depth.len()) {
            return Err(LiftError::Size { what: "the depth map", found: depth.len(), expected: depth_size });
        }
        let depth = float_tensor(depth.to_vec(), depth_size, &points.device());
        let pixel_from_point = if color == depth_camera {
            project(points.clone(), depth, color, visibility)?
        } else {
            let no_border = Visibility { border: 0, ..visibility };
            let depth_pixel_from_point = project(points.clone(), depth, depth_camera, no_border)?;
            let pixel_from_point = project_unhidden(points.clone(), color, visibility.border)?;
            pixel_from_point.mask_fill(depth_pixel_from_point.lower_elem(0), -1)
        };
        let points = compact(pixel_from_point.clone())?;
        Ok(Self { pixel_from_point, points, size: [color.height, color.width] })
    }

    /// Height and width of the image.
    #[must_use]
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Number of points, seen or not.
    #[must_use]
    pub fn num_points(&self) -> usize {
        self.pixel_from_point.dims()[0]
    }

    /// Number of points that are seen.
    #[must_use]
    pub fn num_visible(&self) -> usize {
        self.points.num_present
    }

    /// `[N]` row · width + column, -1 for a point that is not seen. Reads the values from the device.
    ///
    /// # Errors
    /// [`OpError::Device`].
    pub fn pixel_from_point(&self) -> Result<Vec<i32>, OpError> {
        int_values(self.pixel_from_point.clone())
    }
}

/// Point counts of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewReport {
    /// Points that the view sees.
    pub num_visible: usize,
    /// Visible points whose pixel no query claims. They got the query of the nearest point of the view that
    /// has one.
    pub num_filled: usize,
}

/// Collects views of one scan.
///
/// For each view it keeps on the host two bytes per point, and the rows of the view's tables that some point
/// uses: 4 · (D + K) bytes each. When all this exceeds the memory budget, the two bytes per point of further
/// views go to an unnamed temporary file. Tables stay in memory.
#[derive(Debug)]
pub struct Lifter {
    device: Device,
    points: Tensor<2>,
    visibility: Visibility,
    memory_budget: u64,
    rows: RowNumbers,
    /// For each view, the query of each row of its table.
    query_from_row: Vec<Vec<u16>>,
    table: Table,
}

/// Rows for the queries of all views that some point uses, view by view.
#[derive(Debug, Default)]
struct Table {
    num_channels: usize,
    num_labels: usize,
    /// `[R, D]` embeddings.
    embeddings: Vec<f32>,
    /// `[R, K]` logits.
    logits: Vec<f32>,
}

impl Lifter {
    /// Makes a lifter for `positions [N]`. All must be finite, and centred before the conversion to f32.
    #[must_use]
    pub fn new(positions: Vec<[f32; 3]>, visibility: Visibility, device: &Device) -> Self {
        let shape = [positions.len(), 3];
        Self {
            device: device.clone(),
            points: float_tensor(positions.into_flattened(), shape, device),
            visibility,
            memory_budget: MEMORY_BUDGET,
            rows: RowNumbers::default(),
            query_from_row: Vec::new(),
            table: Table::default(),
        }
    }

    /// Sets a memory budget other than [`MEMORY_BUDGET`].
    #[must_use]
    pub fn with_memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Bytes of host memory that the views take.
    #[must_use]
    pub fn bytes_in_memory(&self) -> u64 {
        let tables = size_of_val(&*self.table.embeddings) + size_of_val(&*self.table.logits);
        self.rows.bytes_in_memory() + tables as u64
    }

    /// Bytes of the views that are in a temporary file.
    #[must_use]
    pub fn bytes_spilled(&self) -> u64 {
        self.rows.num_spilled() as u64 * self.bytes_per_view()
    }

    fn bytes_per_view(&self) -> u64 {
        (self.num_points() * size_of::<u16>()) as u64
    }

    fn num_points(&self) -> usize {
        self.points.dims()[0]
    }

    /// Finds the points that the camera `color` sees, by the depth map `depth [height · width]` (0: no depth)
    /// of `depth_camera`.
    ///
    /// If both cameras are the same, a point is seen at its pixel if its depth agrees with the map. Otherwise
    /// a depth map resampled into the other camera would invent depths at every edge. So each camera decides
    /// one thing. The depth camera decides if the point is hidden, up to the border of its map. The colour
    /// camera gives the pixel, outside its border and at any depth. The two cameras must be close to each
    /// other, as in an RGB-D sensor: a point that is hidden from only one of them is not noticed.
    ///
    /// # Errors
    /// [`LiftError::Size`] if the size of the depth map differs from its camera's; [`LiftError::Op`].
    pub fn see(&self, color: Camera, depth_camera: Camera, depth: &[f32]) -> Result<Projection, LiftError> {
        Projection::new(&self.points, self.visibility, [color, depth_camera], depth)
    }

    /// Adds a view, the model's output for the image of `projection`. A visible point whose pixel no query
    /// claims gets the query of the nearest point, in space, of the same view that has one. A view without
    /// any such point adds nothing.
    ///
    /// # Errors
    /// [`LiftError::Size`] if the size of the view differs from the camera's, [`LiftError::Points`] if the
    /// projection is of other points, [`LiftError::Tables`] if channels or labels differ from those of
    /// earlier views, [`LiftError::Spill`], [`LiftError::Op`].
    pub fn add(&mut self, projection: &Projection, view: &View) -> Result<ViewReport, LiftError> {
        if view.size() != projection.size {
            let found = view.size()[0] * view.size()[1];
            return Err(LiftError::Size { what: "the view", found, expected: projection.size });
        }
        let [found] = projection.pixel_from_point.dims();
        if found != self.num_points() {
            return Err(LiftError::Points { found, expected: self.num_points() });
        }
        let (found, expected) =
            ([view.num_channels(), view.num_labels()], [self.table.num_channels, self.table.num_labels]);
        if self.num_views() > 0 && found != expected {
            return Err(LiftError::Tables { found, expected });
        }
        let num_visible = projection.num_visible();
        let nothing = ViewReport { num_visible, num_filled: 0 };
        if num_visible == 0 {
            return Ok(nothing);
        }
        let query_from_pixel = view.query_from_pixel_tensor().to_device(&self.device);
        let point_from_visible = projection.points.present();
        let pixel_from_visible = gather_index(projection.pixel_from_point.clone(), point_from_visible.clone())?;
        let query_from_visible = gather_index(query_from_pixel, pixel_from_visible)?;
        let claimed = compact(query_from_visible.clone())?;
        if claimed.num_present == 0 {
            return Ok(nothing);
        }
        let visible_points = self.points.clone().select(0, point_from_visible);
        let query_from_visible = gather_index(query_from_visible, nearest_present(visible_points, &claimed)?)?;
        // Indices past the visible points do not point into the list of visible points.
        let query_from_point = gather_index(query_from_visible, projection.points.place_from_position.clone())?;
        self.keep(view, &int_values(query_from_point)?)?;
        Ok(ViewReport { num_visible, num_filled: num_visible - claimed.num_present })
    }

    /// Stores the queries that points use as rows of the table, and the row of every point.
    fn keep(&mut self, view: &View, query_from_point: &[i32]) -> Result<(), LiftError> {
        let used = |queries: &[i32]| {
            let mut used = vec![false; view.num_queries()];
            for query in queries.iter().filter_map(|&query| usize::try_from(query).ok()) {
                used[query] = true;
            }
            used
        };
        let either = |mut a: Vec<bool>, b: Vec<bool>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a |= b);
            a
        };
        let used = query_from_point.par_chunks(1 << 16).map(used).reduce(|| vec![false; view.num_queries()], either);
        let mut row_from_query = vec![NO_ROW; view.num_queries()];
        let mut query_from_row = Vec::new();
        for query in (0..view.num_queries()).filter(|&query| used[query]) {
            row_from_query[query] = query_from_row.len() as u16;
            query_from_row.push(query as u16);
        }
        let row = |&query: &i32| usize::try_from(query).map_or(NO_ROW, |query| row_from_query[query]);
        let row_from_point: Vec<u16> = query_from_point.par_iter().with_min_len(1 << 14).map(row).collect();

        let (num_channels, num_labels) = (view.num_channels(), view.num_labels());
        let bytes = self.bytes_in_memory()
            + self.bytes_per_view()
            + (query_from_row.len() * (num_channels + num_labels) * size_of::<f32>()) as u64;
        let spilled = self.bytes_spilled() + self.bytes_per_view();
        let spill = bytes > self.memory_budget;
        self.rows.push(row_from_point, spill).map_err(|source| spill_error(spilled, source))?;
        (self.table.num_channels, self.table.num_labels) = (num_channels, num_labels);
        for &query in &query_from_row {
            let of_query = |width: usize| usize::from(query) * width..(usize::from(query) + 1) * width;
            self.table.embeddings.extend_from_slice(&view.embeddings()[of_query(num_channels)]);
            self.table.logits.extend_from_slice(&view.logits()[of_query(num_labels)]);
        }
        self.query_from_row.push(query_from_row);
        Ok(())
    }

    /// Query of every point in the view with number `view`; `None` if the point is not seen. Empty if there
    /// is no such view.
    ///
    /// # Errors
    /// [`LiftError::Spill`].
    pub fn query_from_point(&self, view: usize) -> Result<Vec<Option<usize>>, LiftError> {
        let Some(query_from_row) = self.query_from_row.get(view) else { return Ok(Vec::new()) };
        let row_from_point = self.rows.read_view(view, self.num_points()).map_err(|e| self.read_error(e))?;
        let query = |row: u16| query_from_row.get(usize::from(row)).map(|&query| query.into());
        Ok(row_from_point.into_iter().map(query).collect())
    }

    /// Number of views that were added.
    #[must_use]
    pub fn num_views(&self) -> usize {
        self.query_from_row.len()
    }

    /// Computes one feature per point. It uses up to three views: those with the largest logits for the label
    /// on which all views agree. They are weighted by the softmax of these logits. A point that no view sees
    /// gets the feature of the nearest point that is seen.
    ///
    /// # Errors
    /// [`LiftError::NothingSeen`]; [`LiftError::Spill`] if a view cannot be read back; [`LiftError::Op`].
    pub fn finish(mut self) -> Result<Lifted, LiftError> {
        let (num_points, num_views) = (self.num_points(), self.num_views());
        if num_views == 0 {
            return Err(LiftError::NothingSeen { views: 0, points: num_points });
        }
        let logits = std::mem::take(&mut self.table.logits);
        let num_rows = self.query_from_row.iter().map(Vec::len).sum();
        let logits = float_tensor(logits, [num_rows, self.table.num_labels], &self.device);
        let block = (BLOCK_VALUES.min(limits_of(&self.device).rows(size_of::<i32>())) / num_views).max(1);
        let blocks = (0..num_points).step_by(block).map(|first| first..num_points.min(first + block));
        let fused: Vec<FusedViews> =
            blocks.map(|points| self.fuse(points, &logits)).collect::<Result<_, LiftError>>()?;

        let consensus = Tensor::cat(fused.iter().map(|block| block.consensus.clone()).collect(), 0);
        let num_views_of_point = Tensor::cat(fused.iter().map(|block| block.num_views.clone()).collect(), 0);
        let agreement = Tensor::cat(fused.iter().map(|block| block.agreement.clone()).collect(), 0);
        let mut row = Tensor::cat(fused.iter().map(|block| block.row.clone()).collect(), 0);
        let mut weights = Tensor::cat(fused.iter().map(|block| block.weights.clone()).collect(), 0);
        drop(fused);
        let seen = compact(consensus.clone())?;
        if seen.num_present == 0 {
            return Err(LiftError::NothingSeen { views: num_views, points: num_points });
        }
        let num_unseen = num_points - seen.num_present;
        if num_unseen > 0 {
            let source_from_point = nearest_present(self.points, &seen)?;
            row = row.select(0, source_from_point.clone());
            weights = weights.select(0, source_from_point);
        }
        Ok(Lifted {
            consensus: int_values(consensus)?,
            num_views_of_point: int_values(num_views_of_point)?.into_iter().map(|count| count as u32).collect(),
            agreement: float_values(agreement)?.as_chunks().0.to_vec(),
            weights: float_values(weights)?.as_chunks().0.to_vec(),
            num_unseen,
            row_from_point: int_values(row)?.as_chunks().0.to_vec(),
            table: self.table.embeddings,
            num_channels: self.table.num_channels,
        })
    }

    /// Fuses the views of a block of points.
    fn fuse(&self, points: Range<usize>, logits: &Tensor<2>) -> Result<FusedViews, LiftError> {
        let shape = [self.num_views(), points.len()];
        let numbers = self.rows.read(points, self.num_points()).map_err(|e| self.read_error(e))?;
        let mut first_row = 0;
        let first_rows = self.query_from_row.iter().map(|rows| {
            first_row += rows.len() as i32;
            first_row - rows.len() as i32
        });
        let first_rows: Vec<i32> = first_rows.collect();
        let mut row_from_point = vec![-1; numbers.len()];
        let views = row_from_point.par_chunks_mut(shape[1]).zip(numbers.par_chunks(shape[1])).zip(first_rows);
        views.for_each(|((rows, numbers), first)| {
            for (row, &number) in rows.iter_mut().zip(numbers).filter(|(_, number)| **number != NO_ROW) {
                *row = first + i32::from(number);
            }
        });
        Ok(fuse_views(int_tensor(row_from_point, shape, &self.device), logits.clone())?)
    }

    fn read_error(&self, source: io::Error) -> LiftError {
        spill_error(self.bytes_spilled(), source)
    }
}

fn spill_error(bytes: u64, source: io::Error) -> LiftError {
    LiftError::Spill { folder: std::env::temp_dir(), bytes, source }
}

/// For each of `points [N, 3]`, the index of the nearest point that is present: its own if it is present
/// itself. At least one point must be present.
pub(super) fn nearest_present(points: Tensor<2>, compact: &Compacted) -> Result<Tensor<1, Int>, OpError> {
    let present = compact.present();
    if compact.num_present == points.dims()[0] {
        return Ok(present);
    }
    let without = points.clone().select(0, compact.absent());
    let nearest = knn_between(without, points.select(0, present.clone()), 1)?.index.flatten(0, 1);
    let nearest = gather_index(present.clone(), nearest)?;
    gather_index(Tensor::cat(vec![present, nearest], 0), compact.place_from_position.clone())
}

/// Features of points, see [`Lifter::finish`]. Read as a [`FeatureSource`], a block of channels at a time.
///
/// It holds 44 bytes per point, and a row of D values for every query of a view that some point uses.
#[derive(Clone, Debug)]
pub struct Lifted {
    /// `[N]`: label on which the views agree, -1 for a point that no view sees.
    pub consensus: Vec<i32>,
    /// `[N]`: number of views that see each point.
    pub num_views_of_point: Vec<u32>,
    /// `[N, 3]`: logits of that label in the best views, best first; 0 if there are fewer views.
    pub agreement: Vec<[f32; TOP]>,
    /// `[N, 3]`: weights of these views.
    pub weights: Vec<[f32; TOP]>,
    /// Number of points that no view sees.
    pub num_unseen: usize,
    /// `[N, 3]`: rows of the table, -1 if there are fewer views.
    row_from_point: Vec<[i32; TOP]>,
    /// `[R, D]`: embeddings of all views.
    table: Vec<f32>,
    num_channels: usize,
}

impl Lifted {
    /// `[R, D]`: embeddings of all queries that points use.
    #[must_use]
    pub fn table(&self) -> &[f32] {
        &self.table
    }

    /// Rows of the [`table`](Self::table) of which the feature of `point` is the weighted sum, with the weights.
    pub fn rows_of(&self, point: usize) -> impl Iterator<Item = (usize, f32)> {
        let weights = self.weights[point];
        self.row_from_point[point]
            .into_iter()
            .zip(weights)
            .filter_map(|(row, weight)| Some((usize::try_from(row).ok()?, weight)))
    }
}

impl FeatureSource for Lifted {
    fn num_points(&self) -> usize {
        self.row_from_point.len()
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
