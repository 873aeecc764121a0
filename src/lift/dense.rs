//! Lifts features of pixels to points: the mean over the views that see a point.

use std::ops::Range;

use burn::prelude::*;
use rayon::prelude::*;

use super::lifter::{LiftError, Projection, nearest_present};
use crate::ops::bilinear::Corners;
use crate::ops::bilinear::cpu::axis;
use crate::ops::compact::compact;
use crate::ops::project::{Camera, Visibility};
use crate::ops::{float_tensor, int_tensor, int_values};
use crate::purify::FeatureSource;
use crate::weights::WeightsError;

/// Features of a view's pixels, at the size at which the model gives them.
#[derive(Clone, Copy, Debug)]
pub struct DenseView<'a> {
    /// Rows and columns of the features.
    pub grid: [usize; 2],
    /// `[rows · columns, C]` features.
    pub values: &'a [f32],
}

impl DenseView<'_> {
    /// Channels of a feature, C; 0 if there are no pixels.
    #[must_use]
    pub fn num_channels(&self) -> usize {
        self.values.len() / (self.grid[0] * self.grid[1]).max(1)
    }
}

/// Collects views of one scan. It keeps on the host 4 · C bytes per point, however many views there are.
#[derive(Debug)]
pub struct DenseLifter {
    points: Tensor<2>,
    visibility: Visibility,
    num_views: usize,
    num_channels: usize,
    /// `[N, C]` sums over the views that see the point.
    sums: Vec<f32>,
    /// `[N]` views that see the point.
    num_views_of_point: Vec<u32>,
}

impl DenseLifter {
    /// Makes a lifter for `positions [N]`. All must be finite, and centred before the conversion to f32.
    #[must_use]
    pub fn new(positions: Vec<[f32; 3]>, visibility: Visibility, device: &Device) -> Self {
        let num_points = positions.len();
        Self {
            points: float_tensor(positions.into_flattened(), [num_points, 3], device),
            visibility,
            num_views: 0,
            num_channels: 0,
            sums: Vec::new(),
            num_views_of_point: vec![0; num_points],
        }
    }

    /// Finds the points that a camera sees, see [`Lifter::see`](super::Lifter::see).
    ///
    /// # Errors
    /// [`LiftError::Size`] if the size of the depth map differs from its camera's; [`LiftError::Op`].
    pub fn see(&self, color: Camera, depth_camera: Camera, depth: &[f32]) -> Result<Projection, LiftError> {
        Projection::new(&self.points, self.visibility, [color, depth_camera], depth)
    }

    /// Adds a view of the image of `projection`. The features are resampled to the image's pixels, bilinearly with the
    /// corners aligned, and read where points are seen.
    ///
    /// # Errors
    /// [`LiftError::Points`] if the projection is of other points, [`LiftError::Tables`] if the channels differ from
    /// those of earlier views, [`LiftError::Size`] if there are no features, [`LiftError::Op`].
    pub fn add(&mut self, projection: &Projection, view: DenseView<'_>) -> Result<(), LiftError> {
        let (found, expected) = (projection.num_points(), self.num_views_of_point.len());
        if found != expected {
            return Err(LiftError::Points { found, expected });
        }
        let (channels, [rows, columns]) = (view.num_channels(), view.grid);
        if channels == 0 || view.values.len() != rows * columns * channels {
            return Err(LiftError::Size { what: "the view", found: view.values.len(), expected: view.grid });
        }
        if self.num_views > 0 && channels != self.num_channels {
            return Err(LiftError::Tables { found: [channels, 0], expected: [self.num_channels, 0] });
        }
        if projection.num_visible() == 0 {
            return Ok(());
        }
        let pixel_from_point = projection.pixel_from_point()?;
        let [height, width] = projection.size();
        self.num_channels = channels;
        self.sums.resize(expected * channels, 0.0);
        let (above, left) = (axis(rows, height, Corners::Aligned), axis(columns, width, Corners::Aligned));
        let points = self.sums.par_chunks_mut(channels).zip(&mut self.num_views_of_point).zip(pixel_from_point);
        points.with_min_len(64).for_each(|((sum, count), pixel)| {
            let Ok(pixel) = usize::try_from(pixel) else { return };
            *count += 1;
            for (row, row_weight) in above.taps(pixel / width) {
                for (column, weight) in left.taps(pixel % width) {
                    let weight = row_weight * weight;
                    let feature = &view.values[(row * columns + column) * channels..][..channels];
                    sum.iter_mut().zip(feature).for_each(|(sum, x)| *sum += weight * x);
                }
            }
        });
        self.num_views += 1;
        Ok(())
    }

    /// Number of views that were added and see a point.
    #[must_use]
    pub fn num_views(&self) -> usize {
        self.num_views
    }

    /// Computes one feature per point: the mean over the views that see it. A point that no view sees gets the feature
    /// of the nearest point that is seen.
    ///
    /// # Errors
    /// [`LiftError::NothingSeen`]; [`LiftError::Op`].
    pub fn finish(self) -> Result<DenseLifted, LiftError> {
        let num_points = self.num_views_of_point.len();
        if self.num_views == 0 {
            return Err(LiftError::NothingSeen { views: 0, points: num_points });
        }
        let present = self.num_views_of_point.iter().map(|&views| if views == 0 { -1 } else { 0 }).collect();
        let seen = compact(int_tensor(present, [num_points], &self.points.device()))?;
        let num_unseen = num_points - seen.num_present;
        Ok(DenseLifted {
            source_from_point: int_values(nearest_present(self.points, &seen)?)?,
            sums: self.sums,
            num_channels: self.num_channels,
            num_views_of_point: self.num_views_of_point,
            num_unseen,
        })
    }
}

/// Features of points, see [`DenseLifter::finish`]. Read as a [`FeatureSource`], a block of channels at a time.
#[derive(Clone, Debug)]
pub struct DenseLifted {
    /// `[N]`: number of views that see each point.
    pub num_views_of_point: Vec<u32>,
    /// Number of points that no view sees.
    pub num_unseen: usize,
    /// `[N]`: the point whose feature a point has.
    source_from_point: Vec<i32>,
    /// `[N, C]` sums over views.
    sums: Vec<f32>,
    num_channels: usize,
}

impl DenseLifted {
    /// Features of some of the points, `[n, C]`. All of them must exist.
    #[must_use]
    pub fn rows(&self, points: Range<usize>) -> Vec<f32> {
        let mut rows = vec![0.0; points.len() * self.num_channels];
        let sources = self.source_from_point[points].par_iter();
        rows.par_chunks_mut(self.num_channels.max(1)).zip(sources).with_min_len(64).for_each(|(row, &source)| {
            let source = source as usize;
            let views = self.num_views_of_point[source] as f32;
            let sums = &self.sums[source * self.num_channels..][..self.num_channels];
            row.iter_mut().zip(sums).for_each(|(x, sum)| *x = sum / views);
        });
        rows
    }
}

impl FeatureSource for DenseLifted {
    fn num_points(&self) -> usize {
        self.source_from_point.len()
    }

    fn num_channels(&self) -> usize {
        self.num_channels
    }

    fn read(&self, channels: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        let width = channels.len();
        let mut values = vec![0.0; self.num_points() * width];
        let points = values.par_chunks_mut(width.max(1)).zip(&self.source_from_point);
        points.with_min_len(256).for_each(|(out, &source)| {
            let source = source as usize;
            let views = self.num_views_of_point[source] as f32;
            let sums = &self.sums[source * self.num_channels..][channels.clone()];
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum / views);
        });
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifter() -> DenseLifter {
        let points = vec![[0.0; 3], [1.0, 0.0, 0.0], [1.2, 0.0, 0.0]];
        DenseLifter::new(points, Visibility { border: 0, depth_tolerance: 0.1 }, &Device::flex())
    }

    fn seen(pixels: [i32; 3]) -> Projection {
        Projection::of_pixels(pixels.to_vec(), [3, 3], &Device::flex()).unwrap()
    }

    #[test]
    fn points_get_the_mean_of_their_views_or_of_their_neighbour() {
        let mut lifter = lifter();
        // The middle pixel of the image lies between all four of the view.
        let values = [0.0, 10.0, 2.0, 10.0, 4.0, 10.0, 6.0, 30.0];
        let view = DenseView { grid: [2, 2], values: &values };
        lifter.add(&seen([4, 8, -1]), view).unwrap();
        lifter.add(&seen([-1, 0, -1]), view).unwrap();
        lifter.add(&seen([-1; 3]), view).unwrap();
        assert_eq!(lifter.num_views(), 2);
        let lifted = lifter.finish().unwrap();
        assert_eq!((lifted.num_unseen, &*lifted.num_views_of_point), (1, &[1, 2, 0][..]));
        assert_eq!(lifted.read(0..2).unwrap(), [3.0, 15.0, 3.0, 20.0, 3.0, 20.0]);
        assert_eq!(lifted.read(1..2).unwrap(), [15.0, 20.0, 20.0]);
        assert_eq!(lifted.rows(1..3), [3.0, 20.0, 3.0, 20.0]);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let mut lifter = lifter();
        let view = DenseView { grid: [2, 1], values: &[1.0, 2.0] };
        let short = Projection::of_pixels(vec![0], [3, 3], &Device::flex()).unwrap();
        let error = lifter.add(&short, view).unwrap_err().to_string();
        assert_eq!(error, "the projection is of 1 points, the scan has 3");
        assert!(lifter.add(&seen([0; 3]), DenseView { grid: [2, 1], values: &[] }).is_err());
        assert!(lifter.add(&seen([0; 3]), DenseView { grid: [2, 1], values: &[1.0; 3] }).is_err());
        lifter.add(&seen([0; 3]), view).unwrap();
        let error = lifter.add(&seen([0; 3]), DenseView { grid: [1, 1], values: &[1.0; 2] }).unwrap_err();
        assert!(matches!(error, LiftError::Tables { found: [2, 0], expected: [1, 0] }));
        let none = DenseLifter::new(vec![[0.0; 3]], Visibility { border: 0, depth_tolerance: 0.1 }, &Device::flex());
        assert!(matches!(none.finish(), Err(LiftError::NothingSeen { points: 1, .. })));
    }
}
