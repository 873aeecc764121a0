//! A recording whose poses are read in another way than its layout's.

use std::path::Path;

use super::check::Reading;
use super::dataset::{Conventions, Counts};
use super::{Dataset, DepthImage, Frame, Layout, ViewsError};
use crate::cloud::PointCloud;
use crate::images::Rgb8Image;

pub(super) struct Reread {
    inner: Box<dyn Dataset>,
    frames: Vec<Frame>,
    conventions: Conventions,
    notes: Vec<String>,
}

impl Reread {
    /// `why` says in a note who wants it: "as requested".
    pub(super) fn new(inner: Box<dyn Dataset>, reading: Reading, why: &str) -> Self {
        let mut conventions = *inner.conventions();
        let (mut frames, mut notes) = (inner.frames().to_vec(), inner.notes().to_vec());
        if let Some(stated) = conventions.pose {
            for pose in frames.iter_mut().flat_map(|frame| [&mut frame.pose, &mut frame.depth_pose]).flatten() {
                *pose = reading.of(pose, inner.conventions());
            }
            if let Reading::Convention(convention) = reading {
                conventions.pose = Some(convention);
            }
            notes.push(format!("poses are read as {reading}, {why}; layout {} has {stated}", inner.layout()));
        }
        Self { inner, frames, conventions, notes }
    }
}

impl Dataset for Reread {
    fn layout(&self) -> Layout {
        self.inner.layout()
    }

    fn root(&self) -> &Path {
        self.inner.root()
    }

    fn frames(&self) -> &[Frame] {
        &self.frames
    }

    fn color(&self, index: usize) -> Result<Rgb8Image, ViewsError> {
        self.inner.color(index)
    }

    fn depth(&self, index: usize) -> Result<Option<DepthImage>, ViewsError> {
        self.inner.depth(index)
    }

    fn points(&self) -> Result<Option<PointCloud>, ViewsError> {
        self.inner.points()
    }

    fn conventions(&self) -> &Conventions {
        &self.conventions
    }

    fn counts(&self) -> &Counts {
        self.inner.counts()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}
