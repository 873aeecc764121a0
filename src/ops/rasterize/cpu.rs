//! Host twin: the triangles of a band of rows are drawn together, bands in parallel.

use rayon::prelude::*;

use crate::gpu::shaders::rasterize::rasterize as shader;
use crate::ops::pinhole::Pinhole;
use crate::ops::splat::cpu::Seen;

/// Triangles whose projection is one task.
const CHUNK: usize = 1 << 14;
/// Rows of a band.
const BAND_ROWS: usize = 16;

/// A triangle in the camera's axes, corners in ascending order of their index, and the pixels it may cover.
#[derive(Clone, Copy)]
struct Triangle {
    corners: [[f32; 3]; 3],
    first: [i32; 2],
    last: [i32; 2],
    index: u32,
}

/// See [`super::rasterize`]. Indices of `triangles` are below the number of `vertices`; triangles with a
/// corner that is not finite, or with one twice, are not drawn.
#[must_use]
pub fn rasterize(camera: &Pinhole, vertices: &[[f32; 3]], triangles: &[[u32; 3]]) -> Seen {
    let num_bands = camera.height.div_ceil(BAND_ROWS);
    let chunks: Vec<Vec<Vec<Triangle>>> = triangles
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(chunk, triangles)| {
            let mut bands = vec![Vec::new(); num_bands];
            for (i, &corners) in triangles.iter().enumerate() {
                if let Some(triangle) = project(camera, vertices, corners, (chunk * CHUNK + i) as u32) {
                    let rows = triangle.first[1] as usize / BAND_ROWS..=triangle.last[1] as usize / BAND_ROWS;
                    bands[rows].iter_mut().for_each(|band| band.push(triangle));
                }
            }
            bands
        })
        .collect();

    let directions: Vec<f32> = (0..camera.width).map(|x| direction(camera, x, 0)).collect();
    let mut seen = Seen { depth: vec![0.0; camera.num_pixels()], index: vec![-1; camera.num_pixels()] };
    let band_pixels = BAND_ROWS * camera.width;
    let bands = seen.depth.par_chunks_mut(band_pixels).zip(seen.index.par_chunks_mut(band_pixels)).enumerate();
    bands.for_each(|(band, (depth, index))| {
        let first_row = band * BAND_ROWS;
        let last_row = first_row + depth.len() / camera.width - 1;
        // Chunks and what is in them come in ascending order: of equal depths the first stays.
        for triangle in chunks.iter().filter_map(|bands| bands.get(band)).flatten() {
            let rows = (triangle.first[1] as usize).max(first_row)..=(triangle.last[1] as usize).min(last_row);
            for y in rows {
                let columns = triangle.first[0] as usize..=triangle.last[0] as usize;
                let row = (y - first_row) * camera.width;
                let (depth, index) = (&mut depth[row..][..camera.width], &mut index[row..][..camera.width]);
                draw_row(camera, triangle, direction(camera, y, 1), &directions, columns, depth, index);
            }
        }
    });
    seen
}

/// One row of a triangle.
#[inline]
fn draw_row(
    camera: &Pinhole,
    triangle: &Triangle,
    direction_y: f32,
    directions: &[f32],
    columns: std::ops::RangeInclusive<usize>,
    depth: &mut [f32],
    index: &mut [i32],
) {
    let [a, b, c] = triangle.corners;
    for x in columns {
        let w = weights([a, b, c], [directions[x], direction_y]);
        let inside = w.iter().all(|w| *w >= 0.0) || w.iter().all(|w| *w <= 0.0);
        let sum = w[0] + w[1] + w[2];
        if !inside || sum == 0.0 {
            continue;
        }
        let z = (w[0] * a[2] + w[1] * b[2] + w[2] * c[2]) / sum;
        if z >= camera.near && z < shader::MAX_DEPTH && (index[x] < 0 || z < depth[x]) {
            depth[x] = z;
            index[x] = triangle.index as i32;
        }
    }
}

/// Movement of a pixel's ray along `axis` (0 for columns, 1 for rows) per unit of depth.
#[inline]
fn direction(camera: &Pinhole, pixel: usize, axis: usize) -> f32 {
    (pixel as f32 - camera.principal[axis]) * (1.0 / camera.focal[axis])
}

/// The weights of `shaders/shared/triangle.wgsl`.
#[inline]
fn weights(corners: [[f32; 3]; 3], direction: [f32; 2]) -> [f32; 3] {
    let [a, b, c] = corners.map(|p| [p[0] - direction[0] * p[2], p[1] - direction[1] * p[2]]);
    [b[0] * c[1] - b[1] * c[0], -(a[0] * c[1] - a[1] * c[0]), a[0] * b[1] - a[1] * b[0]]
}

fn ascending(mut corners: [u32; 3]) -> [u32; 3] {
    corners.sort_unstable();
    corners
}

/// `None` where the triangle is not to be drawn, or outside the image.
fn project(camera: &Pinhole, vertices: &[[f32; 3]], corners: [u32; 3], index: u32) -> Option<Triangle> {
    let [a, b, c] = ascending(corners);
    if a == b || b == c {
        return None;
    }
    let corners = [a, b, c].map(|corner| camera.to_camera(vertices[corner as usize]));
    if !corners.as_flattened().iter().all(|value| value.is_finite()) {
        return None;
    }
    let mut low = [shader::MAX_DEPTH; 2];
    let mut high = [-shader::MAX_DEPTH; 2];
    let mut extend = |p: [f32; 3]| {
        let inverse = 1.0 / p[2];
        for axis in 0..2 {
            let at = camera.focal[axis] * (p[axis] * inverse) + camera.principal[axis];
            low[axis] = low[axis].min(at);
            high[axis] = high[axis].max(at);
        }
    };
    for (p, q) in [(0, 1), (1, 2), (2, 0)].map(|(p, q)| (corners[p], corners[q])) {
        let in_front = p[2] >= camera.near;
        if in_front {
            extend(p);
        }
        if in_front != (q[2] >= camera.near) {
            let t = (camera.near - p[2]) / (q[2] - p[2]);
            extend([p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1]), camera.near]);
        }
    }
    // A pixel more on every side than rounding can need.
    let size = [camera.width as f32, camera.height as f32];
    let first = [0, 1].map(|axis| (low[axis].floor() - 1.0).clamp(0.0, size[axis]) as i32);
    let last = [0, 1].map(|axis| (high[axis].ceil() + 1.0).clamp(-1.0, size[axis] - 1.0) as i32);
    (first[0] <= last[0] && first[1] <= last[1]).then_some(Triangle { corners, first, last, index })
}

/// The corner with the largest weight at each pixel, as a row of `vertices`; -1 where `index` is of no triangle.
///
/// `index` is that of [`rasterize`] with the same triangles and camera.
#[must_use]
pub fn main_corner(camera: &Pinhole, vertices: &[[f32; 3]], triangles: &[[u32; 3]], index: &[i32]) -> Vec<i32> {
    let corner = |(pixel, &index): (usize, &i32)| {
        let Some((corners, w)) = weights_at(camera, vertices, triangles, pixel, index) else { return -1 };
        let largest = (1..3).fold(0, |largest, i| if w[i] > w[largest] { i } else { largest });
        corners[largest] as i32
    };
    index.par_iter().enumerate().with_min_len(1 << 10).map(corner).collect()
}

/// The corners of triangle `index` in ascending order, and their weights where the ray of `pixel` meets it.
#[inline]
fn weights_at(
    camera: &Pinhole,
    vertices: &[[f32; 3]],
    triangles: &[[u32; 3]],
    pixel: usize,
    index: i32,
) -> Option<([u32; 3], [f32; 3])> {
    let corners = ascending(*usize::try_from(index).ok().and_then(|index| triangles.get(index))?);
    let ray = [direction(camera, pixel % camera.width, 0), direction(camera, pixel / camera.width, 1)];
    let w = weights(corners.map(|corner| camera.to_camera(vertices[corner as usize])), ray);
    let sum = w[0] + w[1] + w[2];
    Some((corners, w.map(|w| w / sum)))
}

/// See [`super::shade`]: `colors` is `[V, channels]`, the result `[height · width, channels]`.
#[must_use]
pub fn shade(
    camera: &Pinhole,
    vertices: &[[f32; 3]],
    triangles: &[[u32; 3]],
    colors: &[f32],
    channels: usize,
    index: &[i32],
) -> Vec<f32> {
    let mut out = vec![0.0; index.len() * channels];
    let pixels = out.par_chunks_mut(channels.max(1)).zip(index).with_min_len(1 << 10).enumerate();
    pixels.for_each(|(pixel, (out, &index))| {
        let Some((corners, w)) = weights_at(camera, vertices, triangles, pixel, index) else { return };
        let [a, b, c] = corners.map(|corner| &colors[corner as usize * channels..][..channels]);
        for (channel, out) in out.iter_mut().enumerate() {
            *out = w[0] * a[channel] + w[1] * b[channel] + w[2] * c[channel];
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use glam::{DVec2, DVec3};

    use super::*;

    fn camera(width: usize, height: usize) -> Pinhole {
        Pinhole {
            width,
            height,
            focal: [100.0, 90.0],
            principal: [(width / 2) as f32, (height / 2) as f32],
            axes: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            center: [0.0; 3],
            near: 0.1,
        }
    }

    fn random(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        }
    }

    #[test]
    fn a_triangle_covers_the_pixels_whose_centres_it_holds() {
        let camera = Pinhole { focal: [100.0; 2], ..camera(11, 11) };
        // From pixel (3, 3) to (7, 3) and (3, 7), at depth 2.
        let vertices = [[-0.04, -0.04, 2.0], [0.04, -0.04, 2.0], [-0.04, 0.04, 2.0]];
        let seen = rasterize(&camera, &vertices, &[[0, 1, 2], [2, 1, 0]]);
        let covered: Vec<usize> = (0..121).filter(|&pixel| seen.index[pixel] >= 0).collect();
        let expected: Vec<usize> = (3..8).flat_map(|y| (3..11 - y).map(move |x| y * 11 + x)).collect();
        assert_eq!(covered.iter().filter(|pixel| !expected.contains(pixel)).count(), 0);
        // Centres on the border itself may go either way by rounding.
        let inner = (4..7).flat_map(|y| (4..10 - y).map(move |x| y * 11 + x));
        assert!(inner.clone().all(|pixel| seen.index[pixel] == 0 && (seen.depth[pixel] - 2.0).abs() < 1e-6));
        assert!(rasterize(&camera, &vertices, &[]).index.iter().all(|index| *index == -1));
        let flat = rasterize(&camera, &[[0.0, 0.0, 1.0], [0.1, 0.0, 1.0], [f32::NAN; 3]], &[[0, 1, 1], [0, 1, 2]]);
        assert!(flat.index.iter().all(|index| *index != 1));
        assert_eq!(main_corner(&camera, &vertices, &[[2, 1, 0]], &[-1, 0, 1])[..], [-1, 0, -1]);
    }

    #[test]
    fn neighbours_leave_no_pixel_out() {
        let camera = camera(80, 60);
        let mut random = random(3);
        // A tilted, crumpled sheet that fills the image, its vertices anywhere between pixels.
        let side = 40;
        let vertices: Vec<[f32; 3]> = (0..side * side)
            .map(|i| {
                let (x, y) = ((i % side) as f32 / 19.5 - 1.0, (i / side) as f32 / 19.5 - 1.0);
                let z = 2.0 + 0.4 * x + 0.01 * random();
                [(1.2 * x + 0.005 * random()) * z, (1.2 * y + 0.005 * random()) * z, z]
            })
            .collect();
        let corner = |x: usize, y: usize| (y * side + x) as u32;
        let triangles: Vec<[u32; 3]> = (0..(side - 1) * (side - 1))
            .flat_map(|i| {
                let (x, y) = (i % (side - 1), i / (side - 1));
                let [a, b, c, d] = [corner(x, y), corner(x + 1, y), corner(x, y + 1), corner(x + 1, y + 1)];
                [[a, b, c], [d, c, b]]
            })
            .collect();
        let seen = rasterize(&camera, &vertices, &triangles);
        assert!(seen.index.iter().all(|index| *index >= 0));
    }

    /// Depth and weights of the corners where a ray meets a triangle, in f64, and how far inside it is.
    fn cast(corners: [DVec3; 3], ray: DVec3) -> Option<(f64, DVec3, f64)> {
        let [a, b, c] = corners;
        let (ab, ac) = (b - a, c - a);
        let cross = ray.cross(ac);
        let determinant = ab.dot(cross);
        let u = -a.dot(cross) / determinant;
        let across = (-a).cross(ab);
        let v = ray.dot(across) / determinant;
        let z = ac.dot(across) / determinant;
        let weights = DVec3::new(1.0 - u - v, u, v);
        z.is_finite().then_some((z, weights, weights.min_element()))
    }

    #[test]
    fn a_ray_caster_sees_the_same() {
        let camera = camera(90, 70);
        let mut random = random(11);
        // Among them triangles that reach behind the camera.
        let vertices: Vec<[f32; 3]> = (0..60)
            .flat_map(|i| {
                let size = if i < 6 { 4.0 } else { 0.5 };
                let middle = [1.5 * random(), 1.5 * random(), 3.0 + 2.0 * random()];
                [0; 3].map(|_| middle.map(|m| m + size * random()))
            })
            .collect();
        let triangles: Vec<[u32; 3]> = (0..60).map(|i| [3 * i + 1, 3 * i, 3 * i + 2]).collect();
        let colors: Vec<f32> = vertices.iter().flatten().map(|v| v * 10.0).collect();
        let seen = rasterize(&camera, &vertices, &triangles);
        let shaded = shade(&camera, &vertices, &triangles, &colors, 3, &seen.index);
        let mut compared = 0;
        for pixel in 0..camera.num_pixels() {
            let at = DVec2::new((pixel % 90) as f64 - 45.0, (pixel / 90) as f64 - 35.0);
            let ray = DVec3::new(at.x / 100.0, at.y / 90.0, 1.0);
            let hits: Vec<(f64, usize, DVec3, f64)> = (triangles.iter().enumerate())
                .filter_map(|(i, t)| {
                    let corners = t.map(|v| DVec3::from(vertices[v as usize].map(f64::from)));
                    cast(corners, ray).map(|(z, weights, inside)| (z, i, weights, inside))
                })
                .filter(|hit| hit.0 > 0.1 - 1e-5 && hit.3 > -1e-5)
                .collect();
            // Rays that pass an edge within rounding are left to the caller of either.
            if hits.iter().any(|hit| hit.3 < 1e-5 || hit.0 < 0.1 + 1e-5) {
                continue;
            }
            compared += 1;
            let Some(first) = hits.iter().min_by(|a, b| a.0.total_cmp(&b.0)) else {
                assert_eq!(seen.index[pixel], -1);
                continue;
            };
            assert_eq!(seen.index[pixel], first.1 as i32);
            assert!((f64::from(seen.depth[pixel]) / first.0 - 1.0).abs() < 1e-4);
            for channel in 0..3 {
                let corner = |k: usize| f64::from(colors[triangles[first.1][k] as usize * 3 + channel]);
                let expected: f64 = (0..3).map(|k| first.2[k] * corner(k)).sum();
                assert!((f64::from(shaded[pixel * 3 + channel]) - expected).abs() < 1e-2);
            }
        }
        assert!(compared > 5000, "{compared}");
    }

    #[test]
    fn equally_near_triangles_have_one_answer() {
        let camera = camera(31, 31);
        let vertices = [[-1.0, -1.0, 2.0], [1.0, -1.0, 2.5], [0.0, 1.0, 2.0], [0.3, 0.2, -4.0]];
        let seen = rasterize(&camera, &vertices, &[[0, 1, 2], [2, 1, 0], [1, 0, 2]]);
        assert!(seen.index[15 * 31 + 15] == 0 && !seen.index.contains(&1) && !seen.index.contains(&2));
        // A floor with corners behind the camera: what is in front is drawn, from the near plane on.
        let floor = [[-3.0, 0.02, -1.0], [3.0, 0.02, -1.0], [0.0, 0.02, 8.0]];
        let cut = rasterize(&camera, &floor, &[[0, 1, 2]]);
        let row = |y: usize| cut.depth[y * 31 + 15];
        assert!(row(14) == 0.0 && (row(16) - 1.8).abs() < 1e-5 && (row(30) - 0.12).abs() < 1e-6);
        let nearer = rasterize(&Pinhole { near: 0.15, ..camera }, &floor, &[[0, 1, 2]]);
        assert!(nearer.depth[30 * 31 + 15] == 0.0 && nearer.depth[26 * 31 + 15] > 0.15);
        let behind = rasterize(&camera, &vertices.map(|v| [v[0], v[1], -v[2].abs()]), &[[0, 1, 2], [0, 1, 3]]);
        assert!(behind.index.iter().all(|index| *index == -1));
    }
}
