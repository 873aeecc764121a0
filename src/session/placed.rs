//! Views and cameras of a scan.

use std::path::Path;

use burn::prelude::Device;
use glam::DVec3;

use super::SessionError;
use super::source::ViewSettings;
use crate::counted::counted;
use crate::pipeline::{Appearance, Scene, SceneViews, ViewRules, Views, recorded_cameras};
use crate::views::render::Renderer;
use crate::views::virtual_cameras::{VirtualCameras, virtual_cameras};
use crate::views::{Dataset, Layout, RegionFrames, frames_of_region};

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

/// Name of a direction: an axis, or its three values.
fn axis_name(direction: DVec3) -> String {
    let axes = DVec3::AXES.into_iter().zip(["x", "y", "z"]);
    let mut signed = axes.flat_map(|(axis, name)| [(axis, name.to_owned()), (-axis, format!("-{name}"))]);
    let name = signed.find(|(axis, _)| axis.dot(direction) > 0.9999).map(|(_, name)| name);
    let [x, y, z] = direction.to_array();
    name.unwrap_or_else(|| format!("({x:.2}, {y:.2}, {z:.2})"))
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
            ViewSource::Drawn => {
                let is_given = settings.up.or(scene.up).is_some();
                notes.push(format!(
                    "{} virtual cameras for a scene of kind {}; up is {}{}",
                    cameras.cameras.len(),
                    cameras.kind,
                    axis_name(cameras.up),
                    if is_given { ", as given" } else { "" }
                ));
                if cameras.strays > 0 {
                    notes.push(format!("{} points far outside the rest are not looked at", cameras.strays));
                }
            }
            ViewSource::Recorded(dataset) => {
                let posed: Vec<usize> = (0..dataset.len()).filter(|&i| dataset.frames()[i].pose.is_some()).collect();
                let usable = of_scene(dataset, posed, scene, &mut notes);
                let rules = ViewRules::of(settings.compat, Some(dataset.layout()));
                frames = rules.frames(&usable, settings.max_views);
                let counts = dataset.counts();
                if counts.invalid_poses > 0 {
                    notes.push(format!("{} with an invalid pose left out", counted(counts.invalid_poses, "frame")));
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

/// The frames of `posed` that belong to the scan: a room of Matterport3D has a recording of the whole house.
fn of_scene(dataset: &dyn Dataset, posed: Vec<usize>, scene: &Scene, notes: &mut Vec<String>) -> Vec<usize> {
    if dataset.layout() != Layout::Matterport {
        return posed;
    }
    let RegionFrames { frames, are_inside } = frames_of_region(dataset.frames(), &posed, scene.positions());
    let all = counted(posed.len(), "frame");
    if !are_inside {
        notes.push(format!("no camera is inside the scan's box: of {all}, the nearest {} are used", frames.len()));
    } else if frames.len() < posed.len() {
        notes.push(format!("of {all}, {} are used: those with a camera inside the scan's box", frames.len()));
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_named_by_their_axis() {
        assert_eq!([DVec3::Z, DVec3::NEG_Y].map(axis_name), ["z", "-y"]);
        assert_eq!(axis_name(DVec3::new(0.6, 0.0, -0.8)), "(0.60, 0.00, -0.80)");
    }
}
