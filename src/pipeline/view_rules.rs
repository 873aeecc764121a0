//! How recorded views are seen: by this project's rules, or by the published code's for one of its data sets.

use super::compat::{Compat, camera_of};
use crate::images::resize::{fitted, prepare_reference, resize_bicubic, resize_nearest};
use crate::images::{ImageError, Rgb8Image};
use crate::ops::project::{Camera, Visibility};
use crate::views::{DepthImage, Intrinsics, Layout};

/// Height and width to which the published code resizes ScanNet's pictures, and all others but Matterport3D's.
const SCANNET_SIZE: [usize; 2] = [484, 648];
/// Height and width to which the published code resizes Matterport3D's pictures and depth maps.
const MATTERPORT_SIZE: [usize; 2] = [512, 640];
/// Largest distance of a point from Matterport3D's depth maps in the published code, as a share of the depth.
const MATTERPORT_TOLERANCE: f32 = 0.02;

/// Rules by which the views of a recording are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewRules {
    /// This project's: geometrically right.
    Fixed,
    /// The published code's for ScanNet. It also stands for data sets that the published code does not know.
    ScanNet,
    /// The published code's for Matterport3D.
    Matterport,
}

impl ViewRules {
    /// Rules of `compat` for a recording of this layout; `None` for drawn views.
    #[must_use]
    pub fn of(compat: Compat, layout: Option<Layout>) -> Self {
        match (compat, layout) {
            (Compat::Fixed, _) => Self::Fixed,
            (Compat::Reference, Some(Layout::Matterport)) => Self::Matterport,
            (Compat::Reference, _) => Self::ScanNet,
        }
    }

    /// Frames that are used, from the `usable` ones of a recording (numbers, ascending): those of [`Compat::frames`].
    /// Of Matterport3D the published code takes all.
    #[must_use]
    pub fn frames(self, usable: &[usize], max_views: Option<usize>) -> Vec<usize> {
        match self {
            Self::Fixed => Compat::Fixed.frames(usable, max_views),
            Self::ScanNet => Compat::Reference.frames(usable, max_views),
            Self::Matterport => usable.iter().copied().take(max_views.unwrap_or(usize::MAX)).collect(),
        }
    }

    /// Rule by which a point counts as visible. `usual` is that of all data sets but Matterport3D as published.
    #[must_use]
    pub fn visibility(self, usual: Visibility) -> Visibility {
        match self {
            Self::Fixed | Self::ScanNet => usual,
            Self::Matterport => Visibility { depth_tolerance: MATTERPORT_TOLERANCE, ..usual },
        }
    }

    /// Height and width at which the model sees a picture of `size`. Its longer edge should be `longest` (0:
    /// unchanged). The published code has one size for each data set.
    #[must_use]
    pub fn seen_size(self, size: [usize; 2], longest: usize) -> [usize; 2] {
        match self {
            Self::Fixed => fitted(size, longest),
            Self::ScanNet => SCANNET_SIZE,
            Self::Matterport => MATTERPORT_SIZE,
        }
    }

    /// Resizes a picture to `size` (height, width). The published code takes every other pixel of
    /// Matterport3D's.
    ///
    /// # Errors
    /// [`ImageError::Size`] for a size without pixels or with too many.
    pub fn prepare(self, image: &Rgb8Image, [height, width]: [usize; 2]) -> Result<Rgb8Image, ImageError> {
        match self {
            Self::Fixed => resize_bicubic(image, width, height),
            Self::ScanNet => prepare_reference(image, image.width() as f64 / width as f64, width, height),
            Self::Matterport => resize_nearest(image, width, height),
        }
    }

    /// Camera for a picture seen at `size` (height, width), at the origin. The published code moves the
    /// principal point of ScanNet's cameras to the middle, and leaves that of Matterport3D's where it is.
    #[must_use]
    pub fn lens(self, lens: &Intrinsics, [height, width]: [usize; 2]) -> Camera {
        match self {
            Self::Fixed => camera_of(&lens.scaled_to(width, height)),
            Self::ScanNet => {
                Camera::centered([lens.fx as f32, lens.fy as f32], [lens.cx as f32, lens.cy as f32], [height, width])
            }
            Self::Matterport => {
                // The last pixel goes to the last pixel.
                let edge = |center: f64, to: usize, from: usize| {
                    center * to.saturating_sub(1) as f64 / from.saturating_sub(1).max(1) as f64
                };
                let whole = (height * lens.width / lens.height.max(1)) as f64;
                camera_of(&Intrinsics {
                    width,
                    height,
                    fx: lens.fx * whole / lens.width as f64,
                    fy: lens.fy * height as f64 / lens.height as f64,
                    cx: edge(lens.cx, width, lens.width),
                    cy: edge(lens.cy, height, lens.height),
                })
            }
        }
    }

    /// Camera and depths of a depth map, for a picture that `lens` sees. For ScanNet the published code uses the
    /// first rows and columns of the map for those of the picture, whatever their sizes. For Matterport3D it
    /// resizes the map like the picture.
    #[must_use]
    pub fn depth(self, map: &DepthImage, own_lens: &Intrinsics, lens: &Camera) -> (Camera, Vec<f32>) {
        let pixels = (0..lens.height).flat_map(|y| (0..lens.width).map(move |x| (x, y)));
        match self {
            Self::Fixed => (camera_of(own_lens), map.meters().to_vec()),
            Self::ScanNet => (*lens, pixels.map(|(x, y)| map.at(x, y).unwrap_or(0.0)).collect()),
            Self::Matterport => {
                let at = |(x, y): (usize, usize)| {
                    map.at(x * map.width() / lens.width, y * map.height() / lens.height).unwrap_or(0.0)
                };
                (*lens, pixels.map(at).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_depth_map_is_padded_as_published() {
        let map = DepthImage::new(2, 1, vec![1.0, 2.0]).unwrap();
        let own = Intrinsics::new(2, 1, 1.0, 1.0, 0.5, 0.0).unwrap();
        let lens = ViewRules::ScanNet.lens(&Intrinsics::new(4, 4, 2.0, 2.0, 1.0, 1.0).unwrap(), [2, 3]);
        assert_eq!((lens.focal, lens.center), ([3.0, 2.0], [1.5, 1.0]));
        let (camera, depth) = ViewRules::ScanNet.depth(&map, &own, &lens);
        assert_eq!((camera, depth), (lens, vec![1.0, 2.0, 0.0, 0.0, 0.0, 0.0]));
        assert_eq!(ViewRules::Fixed.depth(&map, &own, &lens).1, [1.0, 2.0]);
    }

    #[test]
    fn matterport_is_seen_as_published() {
        let rules = ViewRules::of(Compat::Reference, Some(Layout::Matterport));
        assert_eq!(rules, ViewRules::Matterport);
        assert_eq!(ViewRules::of(Compat::Reference, Some(Layout::Sens)), ViewRules::ScanNet);
        assert_eq!(ViewRules::of(Compat::Reference, None), ViewRules::ScanNet);
        assert_eq!(ViewRules::of(Compat::Fixed, Some(Layout::Matterport)), ViewRules::Fixed);
        assert_eq!(rules.seen_size([1024, 1280], 320), [512, 640]);
        assert_eq!((rules.frames(&[3, 20, 21], None), rules.frames(&[3, 20, 21], Some(1))), (vec![3, 20, 21], vec![3]));
        assert_eq!(rules.visibility(Visibility::default()), Visibility { border: 10, depth_tolerance: 0.02 });
        assert_eq!(ViewRules::ScanNet.visibility(Visibility::default()), Visibility::default());

        // The focal length halves; the principal point keeps its share of the way between the outer pixels.
        let own = Intrinsics::new(1280, 1024, 1076.0, 1078.0, 1279.0, 341.0).unwrap();
        let lens = rules.lens(&own, [512, 640]);
        assert_eq!((lens.focal, lens.center), ([538.0, 539.0], [639.0, (341.0_f64 * 511.0 / 1023.0) as f32]));
        // A camera that has the size already stays as it is.
        let small = Intrinsics::new(640, 512, 538.0, 539.0, 317.2, 254.9).unwrap();
        assert_eq!(rules.lens(&small, [512, 640]), camera_of(&small));

        let picture = Rgb8Image::new(4, 2, (0..8).map(|i| [i; 3]).collect()).unwrap();
        assert_eq!(rules.prepare(&picture, [1, 2]).unwrap().pixels(), [[0; 3], [2; 3]]);
        let map = DepthImage::new(4, 2, (1..9).map(|i| i as f32).collect()).unwrap();
        let lens = Camera { width: 2, height: 2, ..lens };
        let (camera, depth) = rules.depth(&map, &own, &lens);
        assert_eq!((camera, depth), (lens, vec![1.0, 3.0, 5.0, 7.0]));
    }
}
