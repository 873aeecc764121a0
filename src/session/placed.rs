//! Views and cameras of a scan.

use std::path::Path;

use burn::prelude::Device;

use super::SessionError;
use super::source::ViewSettings;
use crate::pipeline::{Appearance, Scene, SceneViews, Views, recorded_cameras};
use crate::views::Dataset;
use crate::views::render::Renderer;
use crate::views::virtual_cameras::{VirtualCameras, virtual_cameras};

/// Source of the views of a scan.
#[derive(Clone, Copy)]
pub enum ViewSource<'a> {
    /// Pictures drawn from the scan itself.
    Drawn,
    /// Frames of a recording. The scan lies in its world.
    Recorded(&'a dyn Dataset),
    /// The single frame from which the scan was made, by its number.
    Frame(&'a dyn Dataset, usize),
}

impl<'a> ViewSource<'a> {
    /// The recording if there is one, otherwise drawn views.
    #[must_use]
    pub fn of(dataset: Option<&'a dyn Dataset>) -> Self {
        dataset.map_or(Self::Drawn, Self::Recorded)
    }
}

/// Cameras, appearance and renderer of a scan.
pub struct Placed<'a> {
    /// Virtual cameras of the scan. They are its views if there is no recording, and give the up direction.
    pub cameras: VirtualCameras,
    /// Appearance of the scan.
    pub appearance: Appearance,
    /// Renderer of the scan.
    pub renderer: Renderer,
    /// Notes for the user.
    pub notes: Vec<String>,
    source: ViewSource<'a>,
    frames: Vec<usize>,
}

impl<'a> Placed<'a> {
    /// Places cameras for `scene`, or chooses the frames of its recording.
    ///
    /// # Errors
    /// [`SessionError::Op`] if the device fails.
    pub fn new(
        scene: &Scene,
        source: ViewSource<'a>,
        settings: &ViewSettings,
        device: &Device,
    ) -> Result<Self, SessionError> {
        let cameras = virtual_cameras(&scene.to_cameras(), &settings.camera_options(scene));
        let appearance = scene.appearance(cameras.up);
        let renderer = Renderer::new(&appearance.of(scene), device)?;
        let mut notes = Vec::new();
        if renderer.fell_back() {
            notes.push("the scan does not fit one buffer of the device: the host draws pictures of it".into());
        }
        let mut frames = Vec::new();
        match source {
            ViewSource::Drawn => notes.push(format!(
                "{} virtual cameras for a scene of kind {}: {:.1} % of the points in at least one picture, {:.1} % in three",
                cameras.cameras.len(),
                cameras.kind,
                100.0 * cameras.seen_once,
                100.0 * cameras.seen_enough
            )),
            ViewSource::Recorded(dataset) => {
                let posed: Vec<usize> = (0..dataset.len()).filter(|&i| dataset.frames()[i].pose.is_some()).collect();
                frames = settings.compat.frames(&posed, settings.max_views);
                let counts = dataset.counts();
                if counts.invalid_poses > 0 {
                    notes.push(format!("{} frames with an invalid pose were left out", counts.invalid_poses));
                }
            }
            ViewSource::Frame(..) => {}
        }
        Ok(Self { cameras, appearance, renderer, notes, source, frames })
    }

    /// `scene` with its views. It must be the scan for which the cameras were placed.
    #[must_use]
    pub fn views<'s>(&'s self, scene: &'s Scene) -> SceneViews<'s> {
        let views = match self.source {
            ViewSource::Drawn => Views::Virtual(&self.cameras.cameras),
            ViewSource::Recorded(dataset) => Views::Recorded { dataset, frames: &self.frames },
            ViewSource::Frame(dataset, frame) => Views::Alone { dataset, frame },
        };
        SceneViews { scene, views, renderer: &self.renderer }
    }

    /// Cameras from which pictures of the results are chosen.
    #[must_use]
    pub fn shown_from(&self) -> VirtualCameras {
        match self.source {
            ViewSource::Recorded(dataset) => recorded_cameras(dataset, &self.frames, &self.cameras),
            ViewSource::Frame(..) | ViewSource::Drawn => self.cameras.clone(),
        }
    }

    /// Folder or file of the recording.
    #[must_use]
    pub fn recording(&self) -> Option<&'a Path> {
        match self.source {
            ViewSource::Drawn => None,
            ViewSource::Recorded(dataset) | ViewSource::Frame(dataset, _) => Some(dataset.root()),
        }
    }
}
