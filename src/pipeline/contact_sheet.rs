//! Contact sheets: pictures of the scan and of the results, from good viewpoints.

use burn::prelude::*;
use glam::DVec3;

use super::{Appearance, Class, PipelineError, Scene};
use crate::images::Rgb8Image;
use crate::images::draw::{self, LegendEntry, heat_bar, tint};
use crate::views::Dataset;
use crate::views::render::{self, Picture, Renderer, points_seen, shaded};
use crate::views::viewpoints::{Viewpoint, viewpoints};
use crate::views::virtual_cameras::{Options, SceneKind, VirtualCamera, VirtualCameras, virtual_cameras};

/// Height and width of each picture.
const SIZE: [usize; 2] = [484, 648];
/// Rows of pictures on a sheet.
const ROWS: usize = 3;
/// Pictures of a heat map, side by side.
const HEAT_COLUMNS: usize = 2;
/// Pictures of which those that show the answer are taken.
const HEAT_SHOTS: usize = 6;
/// Least share of the points in a column for a line in the legend.
const LEAST_SHARE: f64 = 5e-4;
/// Opacity of the label colours.
const OPACITY: f32 = 0.68;
/// Largest share of a heat map's brightness that shading takes away.
const SHADE: f32 = 0.4;
/// Near plane in metres, if no virtual camera gives one.
const NEAR: f64 = 0.01;
/// Colour of pixels that show no part of the scan.
const BACKGROUND: [u8; 3] = [255; 3];

/// Picture from one viewpoint.
struct Shot {
    image: Rgb8Image,
    /// Point at each pixel, see [`points_seen`]; -1 for pixels without a point.
    point: Vec<i32>,
}

/// Draws `scene` from the best `count` viewpoints. `drawn` is how it looks; `renderer` must have been made
/// for it.
fn shots(
    scene: &Scene,
    drawn: &render::Scene<'_>,
    renderer: &Renderer,
    cameras: &VirtualCameras,
    count: usize,
) -> Result<Vec<Shot>, PipelineError> {
    let found = viewpoints(&scene.to_cameras(), cameras, count, SIZE[1], SIZE[0]);
    let shot = |viewpoint: &Viewpoint| {
        let VirtualCamera { intrinsics, pose, near } = viewpoint.camera;
        let pinhole = render::pinhole(&intrinsics, &pose, scene.origin(), near);
        let Picture { colors, index, .. } = match &viewpoint.shown {
            Some(shown) => renderer.showing(shown)?.picture(&pinhole, BACKGROUND)?,
            None => renderer.picture(&pinhole, BACKGROUND)?,
        };
        let point = points_seen(drawn, &pinhole, &index);
        Ok(Shot { image: Rgb8Image::new(pinhole.width, pinhole.height, colors)?, point })
    };
    found.iter().map(shot).collect()
}

/// Cameras of a recording, for pictures of its scan. Good viewpoints are chosen only where the camera has
/// been. `placed` are the virtual cameras of the same scan.
#[must_use]
pub fn recorded_cameras(dataset: &dyn Dataset, frames: &[usize], placed: &VirtualCameras) -> VirtualCameras {
    let near = placed.cameras.first().map_or(NEAR, |camera| camera.near);
    let camera = |&frame: &usize| {
        let frame = &dataset.frames()[frame];
        Some(VirtualCamera { intrinsics: frame.color, pose: frame.pose?, near })
    };
    let kind = if placed.kind == SceneKind::Terrain { SceneKind::Terrain } else { SceneKind::Interior };
    VirtualCameras { kind, cameras: frames.iter().filter_map(camera).collect(), ..placed.clone() }
}

/// Draws the contact sheet of a run. For each viewpoint it shows the scan, and beside it the labels of each
/// of `columns`. There is one legend of `classes` (labels in their order, unlabelled last).
///
/// `renderer` draws `scene` with this `appearance`. A column is a title and labels `[N]` of the points with a
/// position, -1 for none. The legend lists the labels that have more than 0.05 % of the points in some
/// column, with their shares from `classes`.
///
/// # Errors
/// [`PipelineError::Op`] if the device fails, [`PipelineError::Image`].
pub fn contact_sheet(
    scene: &Scene,
    appearance: &Appearance,
    renderer: &Renderer,
    cameras: &VirtualCameras,
    columns: &[(&str, &[i32])],
    classes: &[Class],
) -> Result<Rgb8Image, PipelineError> {
    let colors: Vec<[u8; 3]> = classes.iter().filter(|class| class.label >= 0).map(|class| class.color).collect();
    let mut rows = Vec::new();
    for Shot { image, point } in shots(scene, &appearance.of(scene), renderer, cameras, ROWS)? {
        let labelled = |labels: &[i32]| {
            let of_pixel: Vec<i32> =
                point.iter().map(|&point| usize::try_from(point).map_or(-1, |point| labels[point])).collect();
            let mut drawn = tint(&image, &of_pixel, &colors, OPACITY)?;
            // Pixels outside the scan keep the background colour: they are not unlabelled points.
            for (pixel, &point) in drawn.pixels_mut().iter_mut().zip(&point) {
                if point < 0 {
                    *pixel = BACKGROUND;
                }
            }
            Ok::<_, PipelineError>(drawn)
        };
        let pictures = columns.iter().map(|(_, labels)| labelled(labels)).collect::<Result<Vec<_>, _>>()?;
        rows.push(std::iter::once(image).chain(pictures).collect());
    }
    // A label of a handful of points would be a line of 0 %.
    let least = (scene.num_points() as f64 * LEAST_SHARE) as usize;
    let is_shown = |class: &&Class| {
        let is_label = |label: &&i32| **label == class.label;
        columns.iter().any(|(_, labels)| labels.iter().filter(is_label).nth(least).is_some())
    };
    let mut shown: Vec<&Class> = classes.iter().filter(is_shown).collect();
    shown.sort_by_key(|class| (class.label < 0, std::cmp::Reverse(class.points), class.label));
    let legend: Vec<LegendEntry> = shown
        .into_iter()
        .map(|class| LegendEntry {
            color: (class.label >= 0).then_some(class.color),
            text: class.title(),
            share: class.share,
        })
        .collect();
    let caption = format!("{} points; shares of the points, after purification", scene.num_points());
    let titles: Vec<&str> = std::iter::once("scan").chain(columns.iter().map(|&(title, _)| title)).collect();
    Ok(draw::contact_sheet(&rows, &titles, &legend, &caption)?)
}

/// Pictures of a scan from good viewpoints, to be coloured with the answer to a query. They can be drawn
/// before the answer is known.
pub struct HeatViews {
    shots: Vec<Shot>,
    /// `[N]`: brightness of each point, from `1 - SHADE` to 1.
    light: Vec<f32>,
}

impl HeatViews {
    /// Draws `scene` from good viewpoints; `up` is its up direction.
    ///
    /// # Errors
    /// [`PipelineError::Op`] if the device fails, [`PipelineError::Image`].
    pub fn new(scene: &Scene, up: DVec3, device: &Device) -> Result<Self, PipelineError> {
        let options = Options { up: Some(up), max_views: HEAT_COLUMNS * 4, ..Options::default() };
        let cameras = virtual_cameras(&scene.to_cameras(), &options);
        let appearance = scene.appearance(up);
        let drawn = appearance.of(scene);
        let renderer = Renderer::new(&drawn, device)?;
        let shots = shots(scene, &drawn, &renderer, &cameras, HEAT_SHOTS)?;
        // Shading shows the shapes under the heat colours.
        let greys = shaded(scene.points(), scene.normals(), scene.faces(), up);
        let light = greys.iter().map(|grey| 1.0 - SHADE + SHADE * f32::from(grey[0]) / 255.0).collect();
        Ok(Self { shots, light })
    }

    /// Picture of the answer: the points with a position in `colors [N]`, and the scale of their scores,
    /// whose ends are `range`. The viewpoints are those that show most of the points that are `found [N]`.
    ///
    /// # Errors
    /// [`PipelineError::Image`].
    pub fn picture(
        &self,
        colors: &[[u8; 3]],
        found: &[bool],
        title: &str,
        range: [f32; 2],
    ) -> Result<Rgb8Image, PipelineError> {
        let row = self.showing(found).into_iter().map(|shot| self.painted(shot, colors));
        let pictures = draw::contact_sheet(&[row.collect::<Result<Vec<_>, _>>()?], &[], &[], "")?;
        Ok(heat_bar(&pictures, title, range[0], range[1])?)
    }

    /// The shots that show most of the points `found [N]`, in the order of the shots.
    fn showing(&self, found: &[bool]) -> Vec<&Shot> {
        let is_found = |point: &&i32| usize::try_from(**point).is_ok_and(|point| found.get(point) == Some(&true));
        let seen: Vec<usize> = self.shots.iter().map(|shot| shot.point.iter().filter(is_found).count()).collect();
        let mut order: Vec<usize> = (0..self.shots.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(seen[i]), i));
        order.truncate(HEAT_COLUMNS);
        order.sort_unstable();
        order.into_iter().map(|i| &self.shots[i]).collect()
    }

    /// For each viewpoint, the scan, and beside it its points in `colors [N]`. The second column is titled
    /// `title`.
    ///
    /// # Errors
    /// [`PipelineError::Image`].
    pub fn beside_scan(&self, colors: &[[u8; 3]], title: &str, caption: &str) -> Result<Rgb8Image, PipelineError> {
        let row = |shot: &Shot| Ok::<_, PipelineError>(vec![shot.image.clone(), self.painted(shot, colors)?]);
        let rows = self.shots.iter().take(HEAT_COLUMNS).map(row).collect::<Result<Vec<_>, _>>()?;
        Ok(draw::contact_sheet(&rows, &["scan", title], &[], caption)?)
    }

    /// Picture of a shot with other colours for its points, shaded.
    fn painted(&self, shot: &Shot, colors: &[[u8; 3]]) -> Result<Rgb8Image, PipelineError> {
        let pixel = |&point: &i32| {
            let point = usize::try_from(point).ok();
            point.map_or(BACKGROUND, |i| colors[i].map(|value| (f32::from(value) * self.light[i]) as u8))
        };
        let pixels = shot.point.iter().map(pixel).collect();
        Ok(Rgb8Image::new(shot.image.width(), shot.image.height(), pixels)?)
    }
}
