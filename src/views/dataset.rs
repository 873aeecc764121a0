//! The interface that all recordings share.

use std::fmt;
use std::path::Path;

use super::ViewsError;
use super::camera::{Intrinsics, Pose, PoseConvention};
use super::depth::DepthImage;
use super::layout::Layout;
use crate::cloud::PointCloud;
use crate::counted::counted;
use crate::images::Rgb8Image;

/// A recording: pictures, usually with depth maps and poses.
///
/// Frames are in the order of recording. Pictures are read on demand, from any thread.
pub trait Dataset: Send + Sync {
    /// Returns the layout in which the recording was read.
    fn layout(&self) -> Layout;

    /// Returns the file or folder that was opened.
    fn root(&self) -> &Path;

    /// Returns everything known about the frames without reading their pictures.
    fn frames(&self) -> &[Frame];

    /// Reads the colour picture of frame `index`. Lens distortion is removed, and the size is that of
    /// [`Frame::color`].
    ///
    /// # Errors
    /// [`ViewsError::UnknownFrame`], or any read error, for example if the file is damaged or its size
    /// differs from the recording's ([`ViewsError::Size`]).
    fn color(&self, index: usize) -> Result<Rgb8Image, ViewsError>;

    /// Reads the depth map of frame `index`, or returns `None` if there is none. Lens distortion is removed,
    /// and the size is that of [`Frame::depth`].
    ///
    /// # Errors
    /// As for [`color`](Self::color).
    fn depth(&self, index: usize) -> Result<Option<DepthImage>, ViewsError>;

    /// Returns the stored file of the colour picture of frame `index`, if it can be used unchanged: without
    /// lens distortion and of the size of [`Frame::color`].
    ///
    /// # Errors
    /// As for [`color`](Self::color).
    fn stored_color(&self, index: usize) -> Result<Option<Stored<'_>>, ViewsError> {
        let _ = index;
        Ok(None)
    }

    /// Returns the stored 16-bit PNG file of the depth map of frame `index`, if it can be used unchanged.
    ///
    /// # Errors
    /// As for [`depth`](Self::depth).
    fn stored_depth(&self, index: usize) -> Result<Option<Stored<'_>>, ViewsError> {
        let _ = index;
        Ok(None)
    }

    /// Reads the points that come with the recording, if any, in the axes of its poses. These are the points
    /// of COLMAP, or a PLY file that `transforms.json` names.
    ///
    /// # Errors
    /// Any read error.
    fn points(&self) -> Result<Option<PointCloud>, ViewsError> {
        Ok(None)
    }

    /// Returns the conventions of the recording's poses and depths.
    fn conventions(&self) -> &Conventions;

    /// Returns how many frames are usable, and how many have which defect.
    fn counts(&self) -> &Counts;

    /// Returns notes for the user about missing, assumed or skipped data.
    fn notes(&self) -> &[String];

    /// Returns the number of frames.
    fn len(&self) -> usize {
        self.frames().len()
    }

    /// Returns true if there are no frames. A recording from [`open`](super::open) always has frames.
    fn is_empty(&self) -> bool {
        self.frames().is_empty()
    }
}

/// A picture or depth map as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// Path of its file.
    File(&'a Path),
    /// Content of its file, and the extension for it.
    Bytes(&'a [u8], &'static str),
}

/// One frame of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Name in the recording, usually the picture's file name without extension.
    pub name: String,
    /// The camera of the colour picture.
    pub color: Intrinsics,
    /// The camera of the depth map, at the same place; `None` without a depth map.
    pub depth: Option<Intrinsics>,
    /// Camera pose; `None` if it is missing or invalid, see [`Counts`].
    pub pose: Option<Pose>,
    /// Camera pose at the time of the depth map, if the recording has one besides [`pose`](Self::pose).
    pub depth_pose: Option<Pose>,
}

impl Frame {
    /// Returns true if the frame has a depth map.
    #[must_use]
    pub fn has_depth(&self) -> bool {
        self.depth.is_some()
    }

    /// Returns the pose of the depth map.
    #[must_use]
    pub fn pose_of_depth(&self) -> Option<Pose> {
        self.depth_pose.or(self.pose)
    }
}

/// Conventions in which a recording stores poses and depths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conventions {
    /// Convention of the stored poses; `None` without poses. Poses returned by a [`Dataset`] are always
    /// camera-to-world in OpenCV axes.
    pub pose: Option<PoseConvention>,
    /// True if the recording's world is left-handed, as in ICL-NUIM (negative vertical focal length). World
    /// and cameras are then mirrored in y, so y has the opposite sign of the recording's own.
    pub mirrored: bool,
    /// Number of depth units per metre; `None` if the maps are in metres, or if there are none.
    pub depth_units_per_meter: Option<f64>,
    /// False if the scale of the world is arbitrary, as in COLMAP.
    pub metric: bool,
}

impl fmt::Display for Conventions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pose {
            Some(pose) => write!(f, "poses {pose}")?,
            None => f.write_str("no poses")?,
        }
        if self.mirrored {
            f.write_str(", left-handed: mirrored in y")?;
        }
        if let Some(units) = self.depth_units_per_meter {
            write!(f, "; depth in 1/{units} m")?;
        }
        if !self.metric {
            f.write_str("; the scale is arbitrary, not metres")?;
        }
        Ok(())
    }
}

/// Numbers of usable frames, and of frames and depth maps with defects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Usable frames, with or without pose and depth.
    pub frames: usize,
    /// Usable frames with a valid pose.
    pub posed: usize,
    /// Usable frames with an invalid pose (NaN, infinite, not a rotation), to be skipped.
    pub invalid_poses: usize,
    /// Usable frames with a depth map.
    pub with_depth: usize,
    /// Frames left out because their colour picture is listed but missing.
    pub missing_color: usize,
    /// Depth maps that are listed but missing.
    pub missing_depth: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, posed, invalid_poses, with_depth, missing_color, missing_depth } = *self;
        write!(f, "{}, {posed} with a valid pose, {with_depth} with depth", counted(frames, "frame"))?;
        let dropped = [
            (invalid_poses, "with an invalid pose"),
            (frames.saturating_sub(posed + invalid_poses), "without a pose"),
            (missing_color, "left out because the picture is missing"),
            (missing_depth, "depth maps listed but missing"),
        ];
        dropped.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, ", {count} {what}"))
    }
}
