//! What all recordings have in common.

use std::fmt;
use std::path::Path;

use super::ViewsError;
use super::camera::{Intrinsics, Pose, PoseConvention};
use super::depth::DepthImage;
use super::layout::Layout;
use crate::cloud::PointCloud;
use crate::images::Rgb8Image;

/// A recording: pictures, most often with depth maps and poses.
///
/// Frames are in the order of recording. Pictures are read when asked for, from any thread.
pub trait Dataset: Send + Sync {
    /// What the recording was read as.
    fn layout(&self) -> Layout;

    /// The file or folder it was opened from.
    fn root(&self) -> &Path;

    /// Everything known of the frames without reading their pictures.
    fn frames(&self) -> &[Frame];

    /// The colour picture of frame `index`, free of lens distortion, of the size that
    /// [`Frame::color`] has.
    ///
    /// # Errors
    /// [`ViewsError::UnknownFrame`], or what reading gives: a file that is damaged, or of another size than the
    /// recording's ([`ViewsError::Size`]).
    fn color(&self, index: usize) -> Result<Rgb8Image, ViewsError>;

    /// The depth map of frame `index`, free of lens distortion, of the size that [`Frame::depth`] has; `None` if
    /// there is none.
    ///
    /// # Errors
    /// As for [`color`](Self::color).
    fn depth(&self, index: usize) -> Result<Option<DepthImage>, ViewsError>;

    /// The file that the colour picture of frame `index` is, where it can be taken as it is: with nothing to remove from
    /// it, and of the size that [`Frame::color`] has.
    ///
    /// # Errors
    /// As for [`color`](Self::color).
    fn stored_color(&self, index: usize) -> Result<Option<Stored<'_>>, ViewsError> {
        let _ = index;
        Ok(None)
    }

    /// The PNG file of 16 bits that the depth map of frame `index` is, where it can be taken as it is.
    ///
    /// # Errors
    /// As for [`depth`](Self::depth).
    fn stored_depth(&self, index: usize) -> Result<Option<Stored<'_>>, ViewsError> {
        let _ = index;
        Ok(None)
    }

    /// Points that come with the recording in the axes of its poses, if any: those of COLMAP, or a PLY file that
    /// `transforms.json` names.
    ///
    /// # Errors
    /// What reading them gives.
    fn points(&self) -> Result<Option<PointCloud>, ViewsError> {
        Ok(None)
    }

    /// How poses and depths are written in this recording.
    fn conventions(&self) -> &Conventions;

    /// What became of the frames.
    fn counts(&self) -> &Counts;

    /// What was missing, assumed or left out, for the user.
    fn notes(&self) -> &[String];

    /// Number of frames.
    fn len(&self) -> usize {
        self.frames().len()
    }

    /// True if there are no frames; never the case for a recording that [`open`](super::open) returned.
    fn is_empty(&self) -> bool {
        self.frames().is_empty()
    }
}

/// A picture or depth map in the form in which it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// A file of its own.
    File(&'a Path),
    /// The content of a file, and the extension that it should have.
    Bytes(&'a [u8], &'static str),
}

/// One frame of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Its name in the recording, most often the picture's file name without extension.
    pub name: String,
    /// The camera of the colour picture.
    pub color: Intrinsics,
    /// The camera of the depth map, which looks from the same place; `None` without a depth map.
    pub depth: Option<Intrinsics>,
    /// Where the camera was; `None` if that is not known or not valid, see [`Counts`].
    pub pose: Option<Pose>,
    /// Where the camera was when the depth map was taken, if the recording tells that apart from [`pose`](Self::pose).
    pub depth_pose: Option<Pose>,
}

impl Frame {
    /// True if the frame has a depth map.
    #[must_use]
    pub fn has_depth(&self) -> bool {
        self.depth.is_some()
    }

    /// The pose that belongs to the depth map.
    #[must_use]
    pub fn pose_of_depth(&self) -> Option<Pose> {
        self.depth_pose.or(self.pose)
    }
}

/// How a recording writes what it measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conventions {
    /// How poses are written; `None` without poses. What is handed out is always camera-to-world in OpenCV axes.
    pub pose: Option<PoseConvention>,
    /// True if the recording's world is left-handed (a negative vertical focal length, as in ICL-NUIM): world and
    /// cameras are then mirrored in y, so y has the opposite sign of the recording's own.
    pub mirrored: bool,
    /// Numbers in a depth map that make a metre; `None` if the maps are in metres, or there are none.
    pub depth_units_per_meter: Option<f64>,
    /// False if the scale of the world is arbitrary (COLMAP).
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

/// What became of the frames that a recording lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that can be used, with or without pose and depth.
    pub frames: usize,
    /// Of these, frames with a valid pose.
    pub posed: usize,
    /// Of these, frames whose pose is there but invalid (NaN, infinite, no rotation): to be skipped.
    pub invalid_poses: usize,
    /// Of these, frames with a depth map.
    pub with_depth: usize,
    /// Frames left out because their colour picture is listed but not there.
    pub missing_color: usize,
    /// Depth maps that are listed but not there.
    pub missing_depth: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, posed, invalid_poses, with_depth, missing_color, missing_depth } = *self;
        write!(f, "{frames} frames, {posed} with a valid pose, {with_depth} with depth")?;
        let dropped = [
            (invalid_poses, "with an invalid pose"),
            (frames.saturating_sub(posed + invalid_poses), "without a pose"),
            (missing_color, "left out because the picture is not there"),
            (missing_depth, "depth maps listed but not there"),
        ];
        dropped.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, ", {count} {what}"))
    }
}
