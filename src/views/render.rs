//! Rendering of pictures of a scan from any camera.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use glam::{DVec3, Vec3};
use rayon::prelude::*;

use super::camera::{Intrinsics, Pose};
use crate::gpu::check_binding;
use crate::ops::knn::cpu::knn_points;
use crate::ops::normals::cpu::{Orientation, normals as estimate_normals};
use crate::ops::pinhole::Pinhole;
use crate::ops::rasterize::cpu::main_corner;
use crate::ops::rasterize::{Mesh, rasterize, shade};
use crate::ops::splat::{Drawn, fill, splat};
use crate::ops::{OpError, ShapeCheck, float_tensor, float_values, int_tensor, int_values, is_host, limits_of};

pub use crate::ops::splat::cpu::Seen;

/// Number of neighbours used to measure the spacing of points: enough to reach across the lines of a scanner.
const NEIGHBORS: usize = 8;
/// Number of neighbours used to estimate normals.
const NORMAL_NEIGHBORS: usize = 16;
/// Radius of a point's disc, as a share of the distance to its last neighbour. On a square grid the eighth
/// neighbour is √2 steps away, and discs of half that distance cover the plane.
const RADIUS: f32 = 0.5;
/// Largest radius relative to the median, so that lone points do not become large discs.
const MAX_RADIUS: f32 = 4.0;
/// Radius of a splat's disc in standard deviations. There a splat has a third of its full weight.
pub const SPLAT_RADIUS: f32 = 1.5;
/// Largest radius of a splat relative to that of a plain point in its place.
pub const MAX_SPLAT: f32 = 3.0;
/// Points up to this many radii behind the front of a pixel still belong to the front surface.
pub const SLACK: f32 = 2.0;
/// Reach of each gap-filling pass, in pixels of a picture with width [`FILL_WIDTH`].
const FILL_REACH: [f32; 2] = [2.0, 6.0];
const FILL_WIDTH: f32 = 648.0;
/// A point nearer than this share of a pixel's depth is in front of it.
const LEAK: f32 = 0.95;
/// Direction of the light that shades scans without colours. It makes all walls and floors differ in
/// brightness.
const LIGHT: [f32; 3] = [0.35, 0.55, 0.76];

/// A scan to render. Positions must be finite.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    /// Positions relative to `origin`.
    pub points: &'a [[f32; 3]],
    /// Origin of the positions, in the frame of the poses.
    pub origin: [f64; 3],
    /// Colour of every point. For scans without colours see [`shaded`].
    pub colors: &'a [[u8; 3]],
    /// Triangles as point indices, all in range; empty for clouds.
    pub faces: &'a [[u32; 3]],
    /// Radius of every point of a cloud, see [`radii`]. Not needed for meshes.
    pub radii: &'a [f32],
}

/// A rendered picture with depth and indices, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Red, green and blue of each pixel.
    pub colors: Vec<[u8; 3]>,
    /// Distance along the camera's z axis in the scan's unit; 0 for background.
    pub depth: Vec<f32>,
    /// Index of the point at each pixel, or of the triangle for meshes; -1 for background.
    pub index: Vec<i32>,
}

/// Computes the disc radius of each point, so that surfaces have no gaps: half the distance to its 8th
/// nearest neighbour, at most 4 times the median of these radii, and 0 for a lone point. Positions must be
/// finite.
#[must_use]
pub fn radii(points: &[[f32; 3]]) -> Vec<f32> {
    let found = knn_points(points, NEIGHBORS, false, 0..points.len());
    let radius = |(index, sq_dist): (&[i32], &[f32])| {
        let last = index.iter().zip(sq_dist).rev().find(|(index, _)| **index >= 0);
        last.map_or(0.0, |(_, sq_dist)| RADIUS * sq_dist.sqrt())
    };
    let rows = found.index.par_chunks(NEIGHBORS).zip(found.sq_dist.par_chunks(NEIGHBORS));
    let mut radii: Vec<f32> = rows.with_min_len(1 << 12).map(radius).collect();
    let mut order: Vec<f32> = radii.iter().step_by(radii.len().div_ceil(100_000).max(1)).copied().collect();
    if order.is_empty() {
        return radii;
    }
    let middle = order.len() / 2;
    let largest = MAX_RADIUS * *order.select_nth_unstable_by(middle, f32::total_cmp).1;
    if largest > 0.0 {
        radii.iter_mut().for_each(|radius| *radius = radius.min(largest));
    }
    radii
}

/// Computes the disc radius of each Gaussian splat: [`SPLAT_RADIUS`] times its standard deviation, but no less
/// than [`radii`] asks for, so that surfaces have no gaps, and at most [`MAX_SPLAT`] times as much.
/// `deviations` has one value per point.
#[must_use]
pub fn splat_radii(points: &[[f32; 3]], deviations: &[f32]) -> Vec<f32> {
    let mut radii = radii(points);
    let grown = |(radius, deviation): (&mut f32, &f32)| {
        *radius = (SPLAT_RADIUS * deviation).min(MAX_SPLAT * *radius).max(*radius);
    };
    radii.iter_mut().zip(deviations).for_each(grown);
    radii
}

/// Returns the camera in the form of the kernels, for points relative to `origin`. Nothing nearer than `near`
/// is drawn.
#[must_use]
pub fn pinhole(intrinsics: &Intrinsics, pose: &Pose, origin: [f64; 3], near: f64) -> Pinhole {
    let rotation = pose.rotation();
    Pinhole {
        width: intrinsics.width,
        height: intrinsics.height,
        focal: [intrinsics.fx as f32, intrinsics.fy as f32],
        principal: [intrinsics.cx as f32, intrinsics.cy as f32],
        axes: [rotation.x_axis, rotation.y_axis, rotation.z_axis].map(|axis| axis.as_vec3().to_array()),
        center: (pose.center() - DVec3::from_array(origin)).as_vec3().to_array(),
        near: near as f32,
    }
}

/// Renders pictures of a scan on a device.
#[derive(Clone, Debug)]
pub struct Renderer {
    surface: Surface,
    device: Device,
    fell_back: bool,
}

/// The scan on the device.
#[derive(Clone, Debug)]
enum Surface {
    Points(Arc<Points>),
    Triangles(Arc<Triangles>),
}

#[derive(Debug)]
struct Points {
    points: Tensor<2>,
    radii: Tensor<1>,
    /// On the host, because colours are looked up by point index, which is read back anyway.
    colors: Arc<[[u8; 3]]>,
}

#[derive(Debug)]
struct Triangles {
    mesh: Mesh,
    colors: Tensor<2>,
}

impl Renderer {
    /// Uploads `scene` to `device`. If it does not fit into one buffer of the device, it stays on the host
    /// and is rendered there.
    ///
    /// # Errors
    /// [`OpError::Shape`] unless there is one colour per point, and for clouds one radius; [`OpError::Value`]
    /// if a triangle has a corner outside the points; [`OpError::Device`] if the device failed.
    pub fn new(scene: &Scene<'_>, device: &Device) -> Result<Self, OpError> {
        let mut shapes = ShapeCheck::new("renderer");
        shapes.check("points", [scene.points.len()], ["N".into()])?;
        shapes.check("colors", [scene.colors.len()], ["N".into()])?;
        let rows = scene.points.len().max(scene.faces.len());
        let device = device.clone().without_autodiff();
        let fits = is_host(&device) || check_binding(limits_of(&device), "scan", rows, size_of::<[f32; 3]>()).is_ok();
        let device = if fits { device } else { Device::flex() };
        let matrix = |values: Vec<f32>| {
            let num_rows = values.len() / 3;
            float_tensor(values, [num_rows, 3], &device)
        };
        let points = matrix(scene.points.as_flattened().to_vec());
        let surface = if scene.faces.is_empty() {
            shapes.check("radii", [scene.radii.len()], ["N".into()])?;
            let radii = float_tensor(scene.radii.to_vec(), [scene.radii.len()], &device);
            Surface::Points(Arc::new(Points { points, radii, colors: scene.colors.into() }))
        } else {
            // An index that does not fit an i32 becomes negative, which is invalid as well.
            let corners = scene.faces.as_flattened().iter().map(|&corner| i32::try_from(corner).unwrap_or(-1));
            let triangles = int_tensor(corners.collect(), [scene.faces.len(), 3], &device);
            let colors = matrix(scene.colors.as_flattened().iter().map(|&value| f32::from(value)).collect());
            Surface::Triangles(Arc::new(Triangles { mesh: Mesh::new(points, triangles)?, colors }))
        };
        Ok(Self { surface, device, fell_back: !fits })
    }

    /// Returns a renderer that draws only those points, or triangles for meshes, that are `shown`. Indices do
    /// not change.
    ///
    /// # Errors
    /// [`OpError::Shape`] unless `shown` has one entry for each.
    pub fn showing(&self, shown: &[bool]) -> Result<Self, OpError> {
        let surface = match &self.surface {
            Surface::Triangles(drawn) => {
                let (mesh, colors) = (drawn.mesh.showing(shown)?, drawn.colors.clone());
                Surface::Triangles(Arc::new(Triangles { mesh, colors }))
            }
            Surface::Points(drawn) => {
                let mut shapes = ShapeCheck::new("renderer");
                shapes.check("radii", drawn.radii.dims(), ["N".into()])?;
                shapes.check("shown", [shown.len()], ["N".into()])?;
                let factors: Vec<f32> = shown.iter().map(|&shown| f32::from(u8::from(shown))).collect();
                let factors = float_tensor(factors, [shown.len()], &self.device);
                // A negative radius is not drawn.
                let radii = drawn.radii.clone() * factors.clone() + (factors - 1.0);
                let (points, colors) = (drawn.points.clone(), Arc::clone(&drawn.colors));
                Surface::Points(Arc::new(Points { points, radii, colors }))
            }
        };
        Ok(Self { surface, device: self.device.clone(), fell_back: self.fell_back })
    }

    /// Returns the device on which pictures are rendered.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns true if the scan does not fit into one buffer of the requested device, so that the host
    /// renders it.
    #[must_use]
    pub fn fell_back(&self) -> bool {
        self.fell_back
    }

    /// Renders what `camera` sees, with gaps between points closed.
    ///
    /// # Errors
    /// [`OpError::Value`] if the camera is not finite or its image has no pixels or too many;
    /// [`OpError::TooLarge`] if the image does not fit into one buffer; [`OpError::Device`] if the device
    /// failed.
    pub fn seen(&self, camera: &Pinhole) -> Result<Seen, OpError> {
        read(self.draw(camera)?)
    }

    /// Renders the picture of `camera`, with `background` in empty pixels.
    ///
    /// # Errors
    /// As [`seen`](Self::seen).
    pub fn picture(&self, camera: &Pinhole, background: [u8; 3]) -> Result<Picture, OpError> {
        let drawn = self.draw(camera)?;
        match &self.surface {
            Surface::Points(points) => {
                let Seen { depth, index } = read(drawn)?;
                let color = |index: &i32| usize::try_from(*index).map_or(background, |index| points.colors[index]);
                let colors = index.par_iter().with_min_len(1 << 12).map(color).collect();
                Ok(Picture { colors, depth, index })
            }
            Surface::Triangles(triangles) => {
                let shaded = shade(&triangles.mesh, triangles.colors.clone(), drawn.index.clone(), camera)?;
                let shaded = float_values(shaded)?;
                let Seen { depth, index } = read(drawn)?;
                let (shaded, _) = shaded.as_chunks::<3>();
                let color = |(color, index): (&[f32; 3], &i32)| {
                    if *index < 0 { background } else { color.map(|value| (value + 0.5) as u8) }
                };
                let colors = shaded.par_iter().zip(&index).with_min_len(1 << 12).map(color).collect();
                Ok(Picture { colors, depth, index })
            }
        }
    }

    fn draw(&self, camera: &Pinhole) -> Result<Drawn, OpError> {
        match &self.surface {
            Surface::Triangles(triangles) => rasterize(&triangles.mesh, camera),
            Surface::Points(points) => {
                let drawn = splat(points.points.clone(), points.radii.clone(), camera, SLACK)?;
                FILL_REACH.iter().try_fold(drawn, |drawn, reach| {
                    let reach = (reach * camera.width as f32 / FILL_WIDTH).ceil();
                    fill(drawn, reach as usize, LEAK)
                })
            }
        }
    }
}

fn read(drawn: Drawn) -> Result<Seen, OpError> {
    Ok(Seen { depth: float_values(drawn.depth)?, index: int_values(drawn.index)? })
}

/// Returns the index of the point at each pixel, -1 for background. For clouds this equals [`Seen::index`].
/// For meshes it is the corner of the triangle that is nearest to the point where the pixel's ray meets it.
///
/// `index` is the result of a [`Renderer`] of `scene` for `camera`.
#[must_use]
pub fn points_seen(scene: &Scene<'_>, camera: &Pinhole, index: &[i32]) -> Vec<i32> {
    if scene.faces.is_empty() { index.to_vec() } else { main_corner(camera, scene.points, scene.faces, index) }
}

/// Returns grey colours for scans without colours, or with a single one. Each point is shaded by the angle of
/// its surface to a light from above and aside. Normals are the given ones, else those of the faces, else
/// estimated from neighbours. They may have any length. A point without a normal gets a middle brightness.
#[must_use]
pub fn shaded(points: &[[f32; 3]], normals: Option<&[[f32; 3]]>, faces: &[[u32; 3]], up: DVec3) -> Vec<[u8; 3]> {
    let (found, neighbors): (Vec<[f32; 3]>, _);
    let (normals, neighbors) = match normals {
        Some(normals) => (normals, None),
        None => {
            (found, neighbors) = if faces.is_empty() {
                let index = knn_points(points, NORMAL_NEIGHBORS, true, 0..points.len()).index;
                (estimate_normals(points, &index, NORMAL_NEIGHBORS, 0, Orientation::Up), Some(index))
            } else {
                (of_faces(points, faces), None)
            };
            (found.as_slice(), neighbors)
        }
    };
    let up = up.as_vec3();
    let aside = up.any_orthonormal_vector();
    let light = aside * LIGHT[0] + up.cross(aside) * LIGHT[1] + up * LIGHT[2];
    // The absolute value, because scans differ in which side of a surface the normal is on.
    let facing = |normal: &[f32; 3]| Vec3::from_array(*normal).try_normalize().map_or(0.5, |n| n.dot(light).abs());
    let mut facing: Vec<f32> = normals.par_iter().with_min_len(1 << 12).map(facing).collect();
    if let Some(neighbors) = neighbors {
        // Normals estimated from few points are smoothed over as many.
        let mean = |row: &[i32]| {
            let present = row.iter().filter_map(|n| usize::try_from(*n).ok());
            let (sum, count) = present.fold((0.0, 0_u16), |(sum, count), n| (sum + facing[n], count + 1));
            if count == 0 { 0.5 } else { sum / f32::from(count) }
        };
        facing = neighbors.par_chunks(NORMAL_NEIGHBORS).with_min_len(1 << 10).map(mean).collect();
    }
    facing.iter().map(|facing| [(60.0 + 185.0 * facing) as u8; 3]).collect()
}

fn of_faces(points: &[[f32; 3]], faces: &[[u32; 3]]) -> Vec<[f32; 3]> {
    let mut normals = vec![[0.0; 3]; points.len()];
    for face in faces {
        let [a, b, c] = face.map(|corner| Vec3::from_array(points[corner as usize]));
        let normal = (b - a).cross(c - a);
        for &corner in face {
            normals[corner as usize] = (Vec3::from_array(normals[corner as usize]) + normal).to_array();
        }
    }
    normals
}

#[cfg(test)]
mod tests {
    use glam::DMat3;

    use super::super::camera::PoseConvention;
    use super::*;

    /// Returns the inside of a box of 4 x 3 x 2.5 around the origin, with points about 2 cm apart, coloured
    /// by position.
    fn room() -> (Vec<[f32; 3]>, Vec<[u8; 3]>) {
        let half = [2.0_f32, 1.5, 1.25];
        let mut state = 5_u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut points = Vec::new();
        for (axis, sign) in (0..3).flat_map(|axis| [(axis, 1.0), (axis, -1.0)]) {
            let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
            let (nu, nv) = ((half[u] / 0.01) as usize, (half[v] / 0.01) as usize);
            for (i, j) in (0..nu).flat_map(|i| (0..nv).map(move |j| (i, j))) {
                let mut p = [0.0; 3];
                p[axis] = sign * half[axis];
                p[u] = (i as f32 + 0.5 + 0.3 * number()) * 0.02 - half[u];
                p[v] = (j as f32 + 0.5 + 0.3 * number()) * 0.02 - half[v];
                points.push(p);
            }
        }
        let colors = points.iter().map(|p| p.map(|v| (v * 50.0 + 128.0) as u8)).collect();
        (points, colors)
    }

    #[test]
    fn splats_are_as_large_as_they_are_within_limits() {
        let points: Vec<[f32; 3]> = (0..400_u16).map(|i| [f32::from(i % 20), f32::from(i / 20), 0.0]).collect();
        let plain = radii(&points);
        let mut deviations = vec![0.01; 400];
        deviations[210] = 0.8 * plain[210];
        deviations[211] = 50.0;
        let grown = splat_radii(&points, &deviations);
        let factors = [(0, 1.0), (210, 1.2), (211, MAX_SPLAT)];
        assert!(factors.iter().all(|&(i, factor): &(usize, f32)| (grown[i] - factor * plain[i]).abs() < 1e-6));
    }

    fn looking_along(forward: DVec3, center: DVec3) -> (Intrinsics, Pose) {
        let x = forward.cross(DVec3::Z).normalize();
        let rotation = DMat3::from_cols(x, forward.cross(x), forward);
        let pose = Pose::new(rotation, center, PoseConvention::OPENCV_CAMERA_TO_WORLD).unwrap();
        (Intrinsics { width: 648, height: 484, fx: 500.0, fy: 500.0, cx: 323.5, cy: 241.5 }, pose)
    }

    #[test]
    fn a_closed_room_has_no_holes_and_exact_walls() {
        let (points, colors) = room();
        let origin = [3e5, 4e6, 200.0];
        let radii = radii(&points);
        let scene = Scene { points: &points, origin, colors: &colors, faces: &[], radii: &radii };
        let renderer = Renderer::new(&scene, &Device::flex()).unwrap();
        for (forward, from) in [(DVec3::X, [-1.5, 0.3, 0.1]), (DVec3::new(-0.6, 0.8, 0.0), [1.0, -1.0, 0.5])] {
            let center = DVec3::from(from) + DVec3::from(origin);
            let (intrinsics, pose) = looking_along(forward, center);
            let pinhole = pinhole(&intrinsics, &pose, origin, 0.05);
            let picture = renderer.picture(&pinhole, [0; 3]).unwrap();
            assert!(picture.index.iter().all(|index| *index >= 0));
            let mut errors: Vec<f64> = Vec::new();
            for (pixel, &depth) in picture.depth.iter().enumerate() {
                let ray = intrinsics.unproject((pixel % 648) as f64, (pixel / 648) as f64, 1.0);
                let ray = pose.rotation() * ray;
                let from = DVec3::from(from);
                let walls = (0..3).map(|a| ([2.0, 1.5, 1.25][a] * ray[a].signum() - from[a]) / ray[a]);
                let exact = walls.fold(f64::INFINITY, f64::min);
                errors.push((f64::from(depth) - exact).abs() / exact);
            }
            errors.sort_unstable_by(f64::total_cmp);
            // A point of the wall represents all within its disc of about 2 cm.
            assert!(errors[errors.len() / 2] < 0.005 && errors[errors.len() * 99 / 100] < 0.03, "{:?}", errors.last());
        }
    }

    #[test]
    fn points_have_their_own_colour_where_they_project() {
        let (points, colors) = room();
        let radii = radii(&points);
        let scene = Scene { points: &points, origin: [0.0; 3], colors: &colors, faces: &[], radii: &radii };
        let (intrinsics, pose) = looking_along(DVec3::Y, DVec3::new(0.2, -1.2, 0.0));
        let pinhole = pinhole(&intrinsics, &pose, [0.0; 3], 0.05);
        let picture = Renderer::new(&scene, &Device::flex()).unwrap().picture(&pinhole, [0; 3]).unwrap();
        let mut differences = Vec::new();
        for (point, color) in points.iter().zip(&colors) {
            let p = Vec3::from_array(pinhole.to_camera(*point)).as_dvec3();
            let Some([x, y]) = intrinsics.pixel(p) else { continue };
            let depth = f64::from(picture.depth[y * 648 + x]);
            if (10..638).contains(&x) && (10..474).contains(&y) && (depth - p.z).abs() <= 0.05 * depth {
                differences.extend(color.iter().zip(picture.colors[y * 648 + x]).map(|(a, b)| a.abs_diff(b)));
            }
        }
        differences.sort_unstable();
        assert!(differences.len() > 30_000, "{}", differences.len());
        assert_eq!(differences[differences.len() / 2], 0);
        assert!(differences[differences.len() * 95 / 100] <= 3);
    }

    #[test]
    fn meshes_are_interpolated() {
        let points = [[-1.0, 2.0, -1.0], [1.0, 2.0, -1.0], [1.0, 2.0, 1.0], [-1.0, 2.0, 1.0]];
        let colors = [[0, 0, 0], [200, 0, 0], [200, 100, 0], [0, 100, 0]];
        let faces = [[0, 1, 2], [0, 2, 3]];
        let scene = Scene { points: &points, origin: [0.0; 3], colors: &colors, faces: &faces, radii: &[0.0; 4] };
        let (intrinsics, pose) = looking_along(DVec3::Y, DVec3::ZERO);
        let camera = pinhole(&intrinsics, &pose, [0.0; 3], 0.1);
        let picture = Renderer::new(&scene, &Device::flex()).unwrap().picture(&camera, [7; 3]).unwrap();
        // Upper left and lower right of the picture: z is up, x to the right.
        assert!(picture.colors[30 * 648 + 100][1] > 80 && picture.colors[450 * 648 + 540][0] > 160);
        assert_eq!(picture.colors[241 * 648], [7; 3]);
        assert!((picture.depth[241 * 648 + 323] - 2.0).abs() < 1e-5);
        // In order: upper left, upper right, lower right, lower left, and beside the mesh.
        let corners = points_seen(&scene, &camera, &picture.index);
        let at = [30 * 648 + 100, 30 * 648 + 540, 450 * 648 + 540, 450 * 648 + 100, 241 * 648];
        assert_eq!(at.map(|pixel| corners[pixel]), [3, 2, 1, 0, -1]);
    }

    #[test]
    fn greys_tell_floor_and_walls_apart() {
        let (points, _) = room();
        let greys = shaded(&points, None, &[], DVec3::Z);
        let mut wall_greys = [0, 1, 2].map(|axis| {
            let half = [2.0, 1.5, 1.25];
            let on =
                |p: &[f32; 3]| p[axis].abs() == half[axis] && (0..3).all(|a| a == axis || p[a].abs() < half[a] - 0.2);
            let mut greys: Vec<u8> =
                points.iter().zip(&greys).filter(|(p, _)| on(p)).map(|(_, grey)| grey[0]).collect();
            greys.sort_unstable();
            assert!(greys[greys.len() * 9 / 10] - greys[greys.len() / 10] < 12);
            greys[greys.len() / 2]
        });
        wall_greys.sort_unstable();
        assert!(wall_greys[1] - wall_greys[0] > 15 && wall_greys[2] - wall_greys[1] > 15, "{wall_greys:?}");
        assert_eq!(shaded(&[[0.0; 3]], None, &[], DVec3::Z).len(), 1);
        assert!(shaded(&[], None, &[], DVec3::Z).is_empty());
        assert!(radii(&[]).is_empty());
        assert_eq!(radii(&[[1.0; 3]]), [0.0]);
        assert_eq!(radii(&[[1.0; 3]; 3]), [0.0; 3]);
    }
}
