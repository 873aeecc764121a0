//! Runs views through the image model and lifts its output onto the points.
//!
//! Frames of a recording are decoded and resampled on separate threads while the device works on earlier
//! frames. A batch is read back only after the next one has been queued on the device.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use burn::prelude::*;
use glam::DVec3;
use rayon::prelude::*;
use serde::Serialize;

use super::compat::Compat;
use super::image_model::{ImageModel, PictureView, SeenPictures};
use super::lifted_views::{LiftedViews, ViewLifter};
use super::view_rules::ViewRules;
use super::{PipelineError, Scene};
use crate::images::Rgb8Image;
use crate::lift::Projection;
use crate::models::xdecoder::TextEmbeddings;
use crate::ops::project::{Camera, Visibility};
use crate::stages::StageTimer;
use crate::views::render::{self, Renderer};
use crate::views::virtual_cameras::VirtualCamera;
use crate::views::{Dataset, DepthImage, Pose, ViewsError};

/// Background of virtual views: the mean colour of pictures, which carries no information for the model.
const BACKGROUND: [u8; 3] = [124, 116, 104];
/// Frames decoded in advance.
const AHEAD: usize = 4;
/// Near plane of a drawing camera, as a share of the scan's extent.
const NEAR: f64 = 1e-4;

/// Views of a scan.
#[derive(Clone, Copy)]
pub enum Views<'a> {
    /// Frames of a recording. The scan lies in its world.
    Recorded {
        /// The recording.
        dataset: &'a dyn Dataset,
        /// Numbers of its frames; each has a pose.
        frames: &'a [usize],
    },
    /// The single frame of a recording from which the scan was made, in the axes of its own camera.
    Alone {
        /// The recording.
        dataset: &'a dyn Dataset,
        /// Number of the frame.
        frame: usize,
    },
    /// Pictures drawn from the scan itself.
    Virtual(&'a [VirtualCamera]),
}

impl Views<'_> {
    /// Number of views.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Recorded { frames, .. } => frames.len(),
            Self::Alone { .. } => 1,
            Self::Virtual(cameras) => cameras.len(),
        }
    }

    /// True if there are no views.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rules of `compat` by which they are seen.
    fn rules(&self, compat: Compat) -> ViewRules {
        let layout = match self {
            Self::Recorded { dataset, .. } | Self::Alone { dataset, .. } => Some(dataset.layout()),
            Self::Virtual(_) => None,
        };
        ViewRules::of(compat, layout)
    }
}

/// Scan with its views and its renderer.
#[derive(Clone, Copy)]
pub struct SceneViews<'a> {
    /// The scan.
    pub scene: &'a Scene,
    /// Views of the scan.
    pub views: Views<'a>,
    /// Renderer of the scan. Draws pictures for virtual cameras, and depth for frames without a depth map.
    pub renderer: &'a Renderer,
}

/// Image model, and the words to look for.
#[derive(Clone, Copy)]
pub struct ViewEncoder<'a> {
    /// The model.
    pub model: ImageModel<'a>,
    /// Embeddings of the words.
    pub text: &'a TextEmbeddings,
}

/// Options of encoding views.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewOptions {
    /// Choice between the published code and this project.
    pub compat: Compat,
    /// Longer edge at which the model sees recorded pictures; 0 for that of the picture.
    pub longest: usize,
    /// Rule by which a point counts as visible.
    pub visibility: Visibility,
    /// Most points that a view may see; views that see more are left out.
    pub most_visible: usize,
    /// Memory for activations of the model, in bytes. It decides how many views are processed together.
    pub working_bytes: u64,
}

/// How many views were used, and why others were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ViewReport {
    /// Number of views.
    pub views: usize,
    /// Views that went through the model.
    pub looked_at: usize,
    /// Views left out because they show too few points or too many, or because the model found nothing in them.
    pub without_points: usize,
    /// Frames left out because they cannot be read.
    pub unreadable: usize,
    /// Error of the first of them.
    pub first_error: Option<String>,
    /// Frames without a depth map. Depth drawn from the scan decided which points they see.
    pub without_depth: usize,
    /// Number of points of the scan.
    pub points: usize,
    /// Points that no view sees. They get the feature of the nearest point that is seen.
    pub unseen_points: usize,
    /// Points that at least three views see.
    pub points_in_three: usize,
}

/// View with the output of the model, for pictures of it.
pub struct SeenView<'a> {
    /// Name of the frame, or a number.
    pub name: &'a str,
    /// Input picture of the model.
    pub image: &'a Rgb8Image,
    /// Output of the model.
    pub view: &'a PictureView,
}

/// Callback for every view.
pub type OnView<'a> = dyn FnMut(&SeenView<'_>) -> Result<(), PipelineError> + 'a;

/// Recorded frame, decoded and resampled by a thread.
struct Loaded {
    frame: usize,
    result: Result<(Rgb8Image, Option<DepthImage>), ViewsError>,
}

/// View with known points that waits for the model.
struct Pending {
    name: String,
    image: Rgb8Image,
    projection: Projection,
}

impl Pending {
    fn size(&self) -> [usize; 2] {
        [self.image.height(), self.image.width()]
    }
}

/// Encodes all views of a scan and gathers the model's output for every point. Calls `on_view` with every
/// view.
///
/// # Errors
/// [`PipelineError::NothingSeen`] if no view shows a point, and errors of the device, the model or `on_view`.
/// A frame that cannot be read is left out and counted.
pub fn encode_views(
    input: SceneViews<'_>,
    encoder: ViewEncoder<'_>,
    options: &ViewOptions,
    device: &Device,
    timer: &mut StageTimer<'_>,
    on_view: &mut OnView<'_>,
) -> Result<(LiftedViews, ViewReport), PipelineError> {
    let SceneViews { scene, views, renderer } = input;
    let report = ViewReport { views: views.len(), points: scene.num_points(), ..ViewReport::default() };
    let rules = views.rules(options.compat);
    let visibility = rules.visibility(options.visibility);
    let lifter = ViewLifter::new(encoder.model, scene.points().to_vec(), visibility, device);
    let mut run = Run {
        scene,
        renderer,
        encoder,
        options,
        rules,
        lifter,
        report,
        waiting: Vec::new(),
        on_device: None,
        timer,
        on_view,
    };
    run.see_all(views)?;
    run.flush()?;
    run.take_back()?;
    let Run { lifter, mut report, timer, .. } = run;
    if lifter.num_views() == 0 {
        let ViewReport { views, unreadable, first_error, .. } = report;
        return Err(PipelineError::NothingSeen { views, unreadable, first_error });
    }
    let lifted = lifter.finish()?;
    report.unseen_points = lifted.num_unseen();
    report.points_in_three = lifted.num_views_of_point().iter().filter(|views| **views >= 3).count();
    timer.lap("fuse views");
    Ok((lifted, report))
}

struct Run<'a, 'p, 'v> {
    scene: &'a Scene,
    renderer: &'a Renderer,
    encoder: ViewEncoder<'a>,
    options: &'a ViewOptions,
    rules: ViewRules,
    lifter: ViewLifter,
    report: ViewReport,
    waiting: Vec<Pending>,
    /// Batch that was queued on the device and not read back yet.
    on_device: Option<(SeenPictures, Vec<Pending>)>,
    timer: &'a mut StageTimer<'p>,
    on_view: &'a mut OnView<'v>,
}

impl Run<'_, '_, '_> {
    fn see_all(&mut self, views: Views<'_>) -> Result<(), PipelineError> {
        match views {
            Views::Virtual(cameras) => {
                for (number, camera) in cameras.iter().enumerate() {
                    self.see_virtual(number, camera)?;
                }
                Ok(())
            }
            Views::Alone { dataset, frame } => self.see_frames(dataset, &[frame], Some(Pose::IDENTITY)),
            Views::Recorded { dataset, frames } => self.see_frames(dataset, frames, None),
        }
    }

    fn see_frames(&mut self, dataset: &dyn Dataset, frames: &[usize], pose: Option<Pose>) -> Result<(), PipelineError> {
        let (rules, longest) = (self.rules, self.options.longest);
        std::thread::scope(|threads| {
            let (sender, receiver): (_, Receiver<Loaded>) = sync_channel(AHEAD);
            threads.spawn(move || load(dataset, frames, rules, longest, &sender));
            for (number, loaded) in receiver.into_iter().enumerate() {
                self.timer.lap("read pictures");
                self.see_frame(dataset, loaded, pose)?;
                self.timer.progress("encode views", (number + 1) as f64 / frames.len() as f64);
            }
            Ok(())
        })
    }

    fn see_frame(&mut self, dataset: &dyn Dataset, loaded: Loaded, pose: Option<Pose>) -> Result<(), PipelineError> {
        let frame = &dataset.frames()[loaded.frame];
        let (image, depth) = match loaded.result {
            Ok(read) => read,
            Err(error) => {
                self.report.unreadable += 1;
                self.report.first_error.get_or_insert_with(|| error.to_string());
                return Ok(());
            }
        };
        let Some(color_pose) = pose.or(frame.pose) else { return Ok(()) };
        let size = [image.height(), image.width()];
        let lens = self.rules.lens(&frame.color, size);
        let camera = placed(lens, &color_pose, self.scene.origin());
        let projection = match depth.zip(frame.depth) {
            Some((map, own_lens)) => {
                let depth_pose = pose.or(frame.pose_of_depth()).unwrap_or(color_pose);
                let (depth_lens, depth) = self.rules.depth(&map, &own_lens, &lens);
                let depth_camera = placed(depth_lens, &depth_pose, self.scene.origin());
                self.lifter.see(camera, depth_camera, &depth)?
            }
            None => {
                self.report.without_depth += 1;
                let lens = frame.color.scaled_to(size[1], size[0]);
                let near = NEAR * extent(self.scene);
                let pinhole = render::pinhole(&lens, &color_pose, self.scene.origin(), near);
                let drawn = self.renderer.seen(&pinhole)?;
                self.lifter.see(camera, Camera::from(&pinhole), &drawn.depth)?
            }
        };
        self.timer.lap("project");
        self.wait(Pending { name: frame.name.clone(), image, projection })
    }

    fn see_virtual(&mut self, number: usize, camera: &VirtualCamera) -> Result<(), PipelineError> {
        let pinhole = render::pinhole(&camera.intrinsics, &camera.pose, self.scene.origin(), camera.near);
        let picture = self.renderer.picture(&pinhole, BACKGROUND)?;
        let image = Rgb8Image::new(pinhole.width, pinhole.height, picture.colors)?;
        self.timer.lap("render");
        let camera = Camera::from(&pinhole);
        let projection = self.lifter.see(camera, camera, &picture.depth)?;
        self.timer.lap("project");
        self.wait(Pending { name: format!("{number:04}"), image, projection })?;
        self.timer.progress("encode views", (number + 1) as f64 / self.report.views as f64);
        Ok(())
    }

    /// Queues a view. Runs the model when the queue is as long as the memory allows.
    fn wait(&mut self, view: Pending) -> Result<(), PipelineError> {
        let least = self.options.compat.min_visible(self.scene.num_points());
        if !(least..=self.options.most_visible).contains(&view.projection.num_visible()) {
            self.report.without_points += 1;
            return Ok(());
        }
        if self.waiting.first().is_some_and(|first| first.size() != view.size()) {
            self.flush()?;
        }
        let ViewOptions { working_bytes, compat, .. } = *self.options;
        let capacity = self.encoder.model.views_in(working_bytes, view.size(), compat);
        self.waiting.push(view);
        if self.waiting.len() >= capacity { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), PipelineError> {
        let Some(size) = self.waiting.first().map(Pending::size) else { return Ok(()) };
        let views = std::mem::take(&mut self.waiting);
        let bytes = views.iter().flat_map(|view| view.image.pixels().as_flattened());
        let pixels: Vec<f32> = bytes.map(|&value| f32::from(value)).collect();
        let ViewEncoder { model, text } = self.encoder;
        let seen = model.see(&pixels, size, text, self.options.compat)?;
        self.timer.lap(model.stage());
        self.take_back()?;
        self.on_device = Some((seen, views));
        Ok(())
    }

    /// Reads back the last batch of the device.
    fn take_back(&mut self) -> Result<(), PipelineError> {
        let Some((seen, views)) = self.on_device.take() else { return Ok(()) };
        let ViewEncoder { model, text } = self.encoder;
        for (index, pending) in views.into_iter().enumerate() {
            let view = seen.view(index, text, pending.size(), self.options.compat)?;
            self.timer.lap(model.stage());
            let num_views = self.lifter.num_views();
            self.lifter.add(&pending.projection, &view)?;
            self.report.looked_at += 1;
            self.report.without_points += usize::from(self.lifter.num_views() == num_views);
            self.timer.lap("lift");
            (self.on_view)(&SeenView { name: &pending.name, image: &pending.image, view: &view })?;
            self.timer.lap("save views");
        }
        Ok(())
    }
}

/// Camera with pose `pose`, for points relative to `origin`.
fn placed(lens: Camera, pose: &Pose, origin: [f64; 3]) -> Camera {
    let from_world = pose.inverse();
    let [x, y, z] = from_world.rows();
    let t = pose.to_camera(DVec3::from_array(origin)).to_array();
    let row = |[a, b, c, _]: [f64; 4], t: f64| [a, b, c, t].map(|value| value as f32);
    Camera { world_to_camera: [row(x, t[0]), row(y, t[1]), row(z, t[2])], ..lens }
}

/// Largest distance from the centre of the scan along an axis; above 0.
fn extent(scene: &Scene) -> f64 {
    let largest = scene.points().iter().flatten().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    if largest > 0.0 { f64::from(largest) } else { 1.0 }
}

/// Reads frames in parallel, one per thread, and sends them in order.
fn load(dataset: &dyn Dataset, frames: &[usize], rules: ViewRules, longest: usize, to: &SyncSender<Loaded>) {
    let read = |&frame: &usize| Loaded { frame, result: load_frame(dataset, frame, rules, longest) };
    for frames in frames.chunks(rayon::current_num_threads().clamp(1, AHEAD)) {
        let loaded: Vec<Loaded> = frames.par_iter().map(read).collect();
        for frame in loaded {
            // The receiver is gone if the run has failed.
            if to.send(frame).is_err() {
                return;
            }
        }
    }
}

fn load_frame(
    dataset: &dyn Dataset,
    frame: usize,
    rules: ViewRules,
    longest: usize,
) -> Result<(Rgb8Image, Option<DepthImage>), ViewsError> {
    let color = dataset.color(frame)?;
    let size = rules.seen_size([color.height(), color.width()], longest);
    let image = rules.prepare(&color, size)?;
    Ok((image, dataset.depth(frame)?))
}

#[cfg(test)]
mod tests {
    use glam::DMat3;

    use super::super::compat::camera_of;
    use super::*;
    use crate::views::{Intrinsics, PoseConvention};

    #[test]
    fn a_placed_lens_sees_points_where_the_pose_has_them() {
        let rotation = DMat3::from_rotation_y(0.7) * DMat3::from_rotation_x(-0.4);
        let center = DVec3::new(4e5 + 1.5, -3e6, 20.0);
        let pose = Pose::new(rotation, center, PoseConvention::OPENCV_CAMERA_TO_WORLD).unwrap();
        let lens = Intrinsics::new(640, 480, 500.0, 510.0, 319.5, 239.5).unwrap();
        let origin = [4e5, -3e6 + 1.0, 19.0];
        let camera = placed(camera_of(&lens), &pose, origin);
        let world = pose.to_world(DVec3::new(0.3, -0.2, 2.0));
        let relative = (world - DVec3::from_array(origin)).as_vec3().to_array();
        let found = camera.world_to_camera.map(|[a, b, c, t]| a * relative[0] + b * relative[1] + c * relative[2] + t);
        assert!(found.iter().zip([0.3, -0.2, 2.0]).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
    }
}
