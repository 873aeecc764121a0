//! Views of a scene: recorded RGB-D frames, and virtual cameras for scans without a recording.
//!
//! [`open`] reads a recording of any common layout as a [`Dataset`]: pictures, depth in metres, and poses
//! that are always camera-to-world with x right, y down, z forward. [`check::check`] verifies the poses with
//! the depth maps. [`fuse::fuse`] turns depth maps into a [`PointCloud`](crate::cloud::PointCloud). Files may
//! be untrusted: no memory is allocated just because a header declares it, and a damaged file gives a
//! [`ViewsError`].
//!
//! [`virtual_cameras`](mod@virtual_cameras) places cameras for a scan, [`render`] draws their pictures, and
//! [`viewpoints`](mod@viewpoints) chooses views for people to look at.

mod calibration;
pub mod camera;
pub mod check;
mod dataset;
mod depth;
mod error;
pub mod fit;
pub mod fuse;
mod heading;
mod json_rows;
mod layout;
mod layouts;
mod number_maps;
mod recording;
mod region;
pub mod render;
mod reread;
mod standing;
mod strays;
mod text;
mod upright;
pub mod viewpoints;
pub mod virtual_cameras;

pub use camera::{Axes, Direction, Intrinsics, InvalidPose, Pose, PoseConvention};
pub use dataset::{Conventions, Counts, Dataset, Frame, Stored};
pub use depth::DepthImage;
pub(crate) use depth::decode_grey8;
pub use error::ViewsError;
pub use layout::{Layout, UnknownLayoutName};
pub use layouts::{Checked, OpenOptions, detect, open, open_checked};
pub use region::{RegionFrames, frames_of_region};
