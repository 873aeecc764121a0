//! Views of a scene: recorded RGB-D, whether its poses are what they are taken for, and clouds fused from it; for scans
//! without a recording, virtual ones.
//!
//! [`open`] reads a recording of any common layout as a [`Dataset`]: pictures, depth in metres, and poses
//! that are always camera-to-world with x right, y down, z forward. [`check::check`] tests that on the depth maps
//! themselves, [`fuse::fuse`] makes a [`PointCloud`](crate::cloud::PointCloud) of them. Files are not trusted:
//! nothing is allocated because a header says so, and a damaged file gives a [`ViewsError`].
//!
//! [`virtual_cameras`](mod@virtual_cameras) places cameras for a scan, [`render`] draws what they see, and
//! [`viewpoints`](mod@viewpoints) chooses and frames views for people.

mod calibration;
pub mod camera;
pub mod check;
mod dataset;
mod depth;
mod error;
pub mod fuse;
mod layout;
mod layouts;
mod recording;
pub mod render;
mod reread;
mod text;
pub mod viewpoints;
pub mod virtual_cameras;

pub use camera::{Axes, Direction, Intrinsics, InvalidPose, Pose, PoseConvention};
pub use dataset::{Conventions, Counts, Dataset, Frame, Stored};
pub use depth::DepthImage;
pub(crate) use depth::decode_grey8;
pub use error::ViewsError;
pub use layout::{Layout, UnknownLayoutName};
pub use layouts::{OpenOptions, detect, open};
