//! Differences between the published code and this project on the way from a scan to labels.

use std::fmt;
use std::str::FromStr;

use glam::DMat3;

use crate::lift::Padding;
use crate::ops::project::Camera;
use crate::ops::voxel_grid::{augmented, upright};
use crate::random::SplitMix64;
use crate::views::Intrinsics;

/// Rows and columns to which the published code resizes a picture for a model with a feature for every pixel.
const REFERENCE_GRID: [usize; 2] = [240, 320];
/// Longer edge of such a grid. The model sees twice as much.
const GRID_EDGE: usize = 320;
/// Edges of a grid are multiples of this: half a patch, which is a whole one of what the model sees.
const GRID_STEP: usize = 8;
/// The published code takes every frame whose number is a multiple of this.
const REFERENCE_STRIDE: usize = 20;
/// The published code skips views that see fewer points.
const REFERENCE_MIN_VISIBLE: usize = 400;
/// The published code trains on no view that sees more points.
const REFERENCE_MOST_VISIBLE: usize = 65_000;
/// Least number of frames used of a recording, if it has as many.
const LEAST_VIEWS: usize = 60;

/// Choice between the published code and this project where they differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// Geometrically right, and without randomness.
    #[default]
    Fixed,
    /// The same as the published code, for comparison with published numbers.
    Reference,
}

impl fmt::Display for Compat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fixed => "fixed",
            Self::Reference => "reference",
        })
    }
}

/// Name that is not one of [`Compat`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither fixed nor reference")]
pub struct UnknownCompat(String);

impl FromStr for Compat {
    type Err = UnknownCompat;

    fn from_str(name: &str) -> Result<Self, UnknownCompat> {
        [Self::Fixed, Self::Reference]
            .into_iter()
            .find(|compat| compat.to_string() == name)
            .ok_or_else(|| UnknownCompat(name.to_owned()))
    }
}

impl Compat {
    /// Frames that are used, from the `usable` ones of a recording (numbers, ascending): every 20th, and at
    /// most `max_views` if that is given. This project uses more if these would be few, and spreads them
    /// evenly. The published code selects by the frames' own numbers.
    #[must_use]
    pub fn frames(self, usable: &[usize], max_views: Option<usize>) -> Vec<usize> {
        match self {
            Self::Fixed => {
                let usual = (usable.len() / REFERENCE_STRIDE).max(LEAST_VIEWS);
                let count = max_views.unwrap_or(usual).min(usable.len());
                (0..count).map(|i| usable[i * usable.len() / count]).collect()
            }
            Self::Reference => {
                let every_20th = usable.iter().copied().filter(|frame| frame.is_multiple_of(REFERENCE_STRIDE));
                every_20th.take(max_views.unwrap_or(usize::MAX)).collect()
            }
        }
    }

    /// Least number of visible points; a view that sees fewer of `num_points` points is skipped.
    #[must_use]
    pub fn min_visible(self, num_points: usize) -> usize {
        match self {
            Self::Fixed => (num_points / 100).clamp(1, REFERENCE_MIN_VISIBLE),
            Self::Reference => REFERENCE_MIN_VISIBLE,
        }
    }

    /// Most points that a view of a training scene may see; the published code skips views that see more.
    #[must_use]
    pub fn most_visible_in_training(self) -> usize {
        match self {
            Self::Fixed => usize::MAX,
            Self::Reference => REFERENCE_MOST_VISIBLE,
        }
    }

    /// Rows and columns at which a model with a feature for every pixel sees a picture of `size` (height, width). The
    /// published code always uses one size, and so squeezes other shapes.
    #[must_use]
    pub fn dense_grid(self, size: [usize; 2]) -> [usize; 2] {
        let edge = size[0].max(size[1]).max(1);
        let in_steps = |pixels: usize| (pixels.saturating_mul(2) + GRID_STEP) / (2 * GRID_STEP);
        match self {
            Self::Fixed => {
                let longest = edge.min(GRID_EDGE);
                size.map(|pixels| (in_steps(pixels.saturating_mul(longest) / edge) * GRID_STEP).max(GRID_STEP))
            }
            Self::Reference => REFERENCE_GRID,
        }
    }

    /// Handling of the padding of a picture.
    #[must_use]
    pub fn padding(self) -> Padding {
        match self {
            Self::Fixed => Padding::Cropped,
            Self::Reference => Padding::Kept,
        }
    }

    /// Rotation to the axes in which a scan is purified. `upright` turns it to have z up and its walls along x
    /// and y. The published code leaves scans as they are.
    #[must_use]
    pub fn turn(self, upright: DMat3) -> DMat3 {
        match self {
            Self::Fixed => upright,
            Self::Reference => DMat3::IDENTITY,
        }
    }

    /// Linear map from positions to voxel units. The published code rotates and scales every scene at random,
    /// in evaluation too. Here the random numbers are drawn from `seed`, see [`augmented`].
    #[must_use]
    pub fn voxel_transform(self, voxel_size: f64, seed: u64) -> [[f64; 3]; 3] {
        match self {
            Self::Fixed => upright(voxel_size),
            Self::Reference => augmented(voxel_size, &mut SplitMix64::new(seed)),
        }
    }
}

/// Intrinsics as a camera for kernels, at the origin.
pub(super) fn camera_of(lens: &Intrinsics) -> Camera {
    Camera {
        world_to_camera: [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
        focal: [lens.fx as f32, lens.fy as f32],
        center: [lens.cx as f32, lens.cy as f32],
        width: lens.width,
        height: lens.height,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_spread_or_every_twentieth() {
        let first = |count: usize| (0..count).collect::<Vec<_>>();
        assert_eq!(Compat::Reference.frames(&first(50), None), [0, 20, 40]);
        assert_eq!(Compat::Fixed.frames(&first(5), None), [0, 1, 2, 3, 4]);
        assert_eq!(Compat::Fixed.frames(&first(100), Some(4)), [0, 25, 50, 75]);
        assert_eq!(Compat::Fixed.frames(&first(2000), None).len(), 100);
        assert_eq!(Compat::Fixed.frames(&first(200), None).len(), 60);
        assert!(Compat::Fixed.frames(&[], None).is_empty() && Compat::Fixed.frames(&first(9), Some(0)).is_empty());
        // A frame without a pose does not shift the frames behind it.
        assert_eq!(Compat::Reference.frames(&first(60)[1..], None), [20, 40]);
        assert_eq!(Compat::Fixed.frames(&[3, 7, 8], Some(2)), [3, 7]);
    }

    #[test]
    fn the_reference_turns_and_scales_within_its_bounds() {
        let fixed = Compat::Fixed.voxel_transform(0.02, 7);
        assert_eq!(fixed, [[50.0, 0.0, 0.0], [0.0, 50.0, 0.0], [0.0, 0.0, 50.0]]);
        let mut scales = Vec::new();
        for seed in 0..50 {
            let [a, b, c] = Compat::Reference.voxel_transform(0.02, seed).map(glam::DVec3::from);
            let scale = a.length();
            assert!((45.0..=55.0).contains(&scale) && (b.length() - scale).abs() < 1e-9 && a.dot(b).abs() < 1e-9);
            // The up axis stays within both tilts.
            assert!(c.z / scale > (2.0 * std::f64::consts::PI / 64.0).cos());
            scales.push(scale);
        }
        assert!(scales.iter().any(|s| *s < 47.0) && scales.iter().any(|s| *s > 53.0));
        assert_eq!(Compat::Reference.voxel_transform(0.02, 3), Compat::Reference.voxel_transform(0.02, 3));
    }

    #[test]
    fn a_grid_has_the_shape_of_the_picture_or_the_published_size() {
        for (size, expected) in [
            ([484, 648], [240, 320]),
            ([648, 484], [320, 240]),
            ([512, 640], [256, 320]),
            ([120, 160], [120, 160]),
            ([1080, 1920], [184, 320]),
            ([1, 4000], [8, 320]),
            ([0, 0], [8, 8]),
        ] {
            assert_eq!(Compat::Fixed.dense_grid(size), expected, "{size:?}");
            assert_eq!(Compat::Reference.dense_grid(size), [240, 320]);
        }
    }

    #[test]
    fn names_go_there_and_back() {
        assert_eq!("reference".parse(), Ok(Compat::Reference));
        assert!("both".parse::<Compat>().is_err());
    }
}
