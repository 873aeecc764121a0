//! Host twin: the points of a band of rows are drawn together, bands in parallel.

use std::ops::Range;

use rayon::prelude::*;

use crate::gpu::shaders::splat::splat as shader;
use crate::ops::pinhole::Pinhole;

/// Points whose projection is one task.
const CHUNK: usize = 1 << 15;
/// Rows of a band: its images stay in the first-level cache.
const BAND_ROWS: usize = 8;

/// The image of a scene, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Distance along the camera's z axis; 0 where there is nothing.
    pub depth: Vec<f32>,
    /// Point or triangle; -1 where there is nothing.
    pub index: Vec<i32>,
}

/// A point in the image.
#[derive(Clone, Copy)]
struct Disc {
    /// Image coordinates of the centre, in subpixels.
    at: [i32; 2],
    /// In subpixels.
    radius: i32,
    depth: f32,
    index: u32,
}

/// See [`super::splat`]. Coordinates may be anything: points that are not finite are not drawn.
#[must_use]
pub fn splat(camera: &Pinhole, points: &[[f32; 3]], radii: &[f32], slack: f32) -> Seen {
    let num_bands = camera.height.div_ceil(BAND_ROWS);
    let chunks: Vec<Vec<Vec<Disc>>> = points
        .par_chunks(CHUNK)
        .zip(radii.par_chunks(CHUNK))
        .enumerate()
        .map(|(chunk, (points, radii))| {
            let mut bands = vec![Vec::new(); num_bands];
            for (i, (&point, &radius)) in points.iter().zip(radii).enumerate() {
                let Some(disc) = project(camera, point, radius, (chunk * CHUNK + i) as u32) else { continue };
                let [first, last] = reach(disc.at[1], disc.radius, camera.height);
                if first <= last && reach(disc.at[0], disc.radius, camera.width).is_sorted() {
                    bands[first as usize / BAND_ROWS..=last as usize / BAND_ROWS].iter_mut().for_each(|b| b.push(disc));
                }
            }
            bands
        })
        .collect();

    let mut seen = Seen { depth: vec![0.0; camera.num_pixels()], index: vec![-1; camera.num_pixels()] };
    let band_pixels = BAND_ROWS * camera.width;
    let bands = seen.depth.par_chunks_mut(band_pixels).zip(seen.index.par_chunks_mut(band_pixels)).enumerate();
    bands.for_each(|(band, (depth, index))| {
        let discs = || chunks.iter().filter_map(|bands| bands.get(band)).flatten();
        let rows = [band * BAND_ROWS, depth.len() / camera.width];
        let mut nearest = vec![f32::INFINITY; depth.len()];
        for disc in discs() {
            each_row(camera.width, rows, disc, |pixels, _| {
                for nearest in &mut nearest[pixels] {
                    *nearest = if disc.depth < *nearest { disc.depth } else { *nearest };
                }
            });
        }
        // Squared distance in the high half, index in the low one: the minimum is by both in turn.
        let mut winner = vec![u64::MAX; depth.len()];
        for disc in discs() {
            let front = disc.depth - slack * radii[disc.index as usize];
            each_row(camera.width, rows, disc, |pixels, [mut dx, dy]| {
                let (winner, depth) = (&mut winner[pixels.clone()], &mut depth[pixels.clone()]);
                for ((winner, depth), nearest) in winner.iter_mut().zip(depth).zip(&nearest[pixels]) {
                    let key = u64::from((dx * dx + dy * dy) as u32) << 32 | u64::from(disc.index);
                    if key < *winner && front <= *nearest {
                        *winner = key;
                        *depth = disc.depth;
                    }
                    dx += shader::SUBPIXELS;
                }
            });
        }
        for (index, winner) in index.iter_mut().zip(winner) {
            *index = winner as u32 as i32;
        }
    });
    seen
}

/// `None` where the point is not to be drawn, not in front of the camera, or far outside the image.
#[inline]
fn project(camera: &Pinhole, point: [f32; 3], radius: f32, index: u32) -> Option<Disc> {
    let [x, y, z] = camera.to_camera(point);
    if !(radius >= 0.0 && z >= camera.near && z < shader::MAX_DEPTH) {
        return None;
    }
    let inverse = 1.0 / z;
    let u = camera.focal[0] * (x * inverse) + camera.principal[0];
    let v = camera.focal[1] * (y * inverse) + camera.principal[1];
    let reach = camera.focal[0] * (radius * inverse) * shader::SUBPIXELS as f32;
    let radius = reach.clamp(shader::MIN_RADIUS as f32, shader::MAX_RADIUS as f32) as i32;
    let margin = (shader::MAX_RADIUS / shader::SUBPIXELS + 1) as f32;
    let inside = |at: f32, side: usize| at > -margin && at < side as f32 + margin;
    if !(inside(u, camera.width) && inside(v, camera.height)) {
        return None;
    }
    let at = [u, v].map(|at| floor(at * shader::SUBPIXELS as f32 + 0.5));
    Some(Disc { at, radius, depth: z, index })
}

/// The floor of a number that an i32 holds. [`f32::floor`] is a call where the processor is not known.
#[inline]
fn floor(value: f32) -> i32 {
    let towards_zero = value as i32;
    towards_zero - i32::from(value < towards_zero as f32)
}

/// First and last pixel of a disc along one side of the image; in descending order if there is none.
#[inline]
fn reach(at: i32, radius: i32, side: usize) -> [i32; 2] {
    let first = (at - radius + shader::SUBPIXELS - 1) >> shader::SUBPIXEL_BITS;
    let last = (at + radius) >> shader::SUBPIXEL_BITS;
    [first.max(0), last.min(side as i32 - 1)]
}

/// Calls `visit` for each row of `disc` among `rows` (first and number) with its pixels, counted from the first
/// of `rows`, and the offset of the first pixel from the disc's centre.
#[inline]
fn each_row(width: usize, rows: [usize; 2], disc: &Disc, mut visit: impl FnMut(Range<usize>, [i32; 2])) {
    let [first_y, last_y] = reach(disc.at[1], disc.radius, rows[0] + rows[1]);
    for y in first_y.max(rows[0] as i32)..=last_y {
        let dy = y * shader::SUBPIXELS - disc.at[1];
        // Exact: the root of a whole number below 2²⁴ never rounds up to the next whole number.
        let half = ((disc.radius * disc.radius - dy * dy) as f32).sqrt() as i32;
        let [first, last] = reach(disc.at[0], half, width);
        if first <= last {
            let row = (y as usize - rows[0]) * width;
            visit(row + first as usize..row + last as usize + 1, [first * shader::SUBPIXELS - disc.at[0], dy]);
        }
    }
}

/// See [`super::fill`]: one pass over an image of `width` columns.
#[must_use]
pub fn fill(depth: &[f32], index: &[i32], width: usize, reach: usize, leak: f32) -> Seen {
    let mut filled = Seen { depth: depth.to_vec(), index: index.to_vec() };
    if reach == 0 || index.is_empty() {
        return filled;
    }
    let image = Image { depth, index, width, height: index.len() / width };
    let near = |pixel: usize| if index[pixel] < 0 { f32::INFINITY } else { depth[pixel] };
    let near: Vec<f32> = (0..index.len()).map(near).collect();
    let rows = filled.depth.par_chunks_mut(width).zip(filled.index.par_chunks_mut(width)).enumerate();
    rows.with_min_len(8).for_each_init(
        || [(); 4].map(|()| vec![0.0; width]),
        |sides, (y, (depth, index))| {
            nearest_beside(&near, width, y, reach, sides);
            let at_border = |at: usize, end: usize| at < reach || at + reach >= end;
            for x in 0..width {
                let limit = if index[x] < 0 { f32::INFINITY } else { depth[x] * leak };
                let found = sides.iter().filter(|side| side[x] < limit).count();
                // One of the eight directions may have none, so one of these four may too.
                if found >= 3 || found > 0 && (at_border(x, width) || at_border(y, image.height)) {
                    let from = image.gap([x, y], reach, leak).unwrap_or(y * width + x);
                    (depth[x], index[x]) = (image.depth[from], image.index[from]);
                }
            }
        },
    );
    filled
}

/// For every pixel of row `y` the least of `near` within `reach` to the left, to the right, above and below.
fn nearest_beside(near: &[f32], width: usize, y: usize, reach: usize, sides: &mut [Vec<f32>; 4]) {
    let [left, right, above, below] = sides;
    let rows = |rows: Range<usize>| near.chunks_exact(width).take(rows.end).skip(rows.start);
    let row = &near[y * width..][..width];
    let lower = |sides: &mut [f32], values: &[f32]| {
        sides.iter_mut().zip(values).for_each(|(side, value)| *side = if *value < *side { *value } else { *side });
    };
    [&mut *left, right, above, below].into_iter().for_each(|side| side.fill(f32::INFINITY));
    for k in 1..=reach.min(width - 1) {
        lower(&mut left[k..], &row[..width - k]);
        lower(&mut right[..width - k], &row[k..]);
    }
    rows(y.saturating_sub(reach)..y).for_each(|row| lower(above, row));
    rows(y + 1..y.saturating_add(reach).saturating_add(1)).for_each(|row| lower(below, row));
}

/// An image with gaps.
struct Image<'a> {
    depth: &'a [f32],
    index: &'a [i32],
    width: usize,
    height: usize,
}

impl Image<'_> {
    /// The pixel that the gap at `at` is filled from; `None` if it is no gap.
    fn gap(&self, at: [usize; 2], reach: usize, leak: f32) -> Option<usize> {
        let pixel = at[1] * self.width + at[0];
        let empty = self.index[pixel] < 0;
        let limit = self.depth[pixel] * leak;
        let (mut found, mut missed, mut best, mut best_distance) = (0, 0, None, usize::MAX);
        for (direction, [dx, dy]) in DIRECTIONS.into_iter().enumerate() {
            missed += 1;
            for k in 1..=reach {
                let (x, y) = (at[0].wrapping_add_signed(dx * k as isize), at[1].wrapping_add_signed(dy * k as isize));
                if x >= self.width || y >= self.height {
                    missed -= 1;
                    break;
                }
                let other = y * self.width + x;
                if self.index[other] >= 0 && (empty || self.depth[other] < limit) {
                    missed -= 1;
                    found += 1;
                    let distance = (1 + direction % 2) * k * k;
                    if distance < best_distance {
                        (best, best_distance) = (Some(other), distance);
                    }
                    break;
                }
            }
            if missed > 1 {
                return None;
            }
        }
        best.filter(|_| found >= 3 + missed)
    }
}

/// From right clockwise; every other one is diagonal.
const DIRECTIONS: [[isize; 2]; 8] = [[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]];

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks along z with pixels of 0.01 at z = 1.
    fn camera(width: usize, height: usize) -> Pinhole {
        Pinhole {
            width,
            height,
            focal: [100.0; 2],
            principal: [(width / 2) as f32, (height / 2) as f32],
            axes: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            center: [0.0; 3],
            near: 0.1,
        }
    }

    fn pixels(seen: &Seen, index: i32) -> Vec<usize> {
        (0..seen.index.len()).filter(|&pixel| seen.index[pixel] == index).collect()
    }

    #[test]
    fn a_point_is_drawn_where_it_projects() {
        let camera = camera(20, 10);
        let seen = splat(&camera, &[[0.06, -0.04, 2.0]], &[0.0], 0.0);
        assert_eq!(pixels(&seen, 0), [3 * 20 + 13]);
        assert_eq!(seen.depth[3 * 20 + 13].to_bits(), 2.0_f32.to_bits());
        assert_eq!(seen.depth.iter().filter(|depth| **depth == 0.0).count(), 199);
        // A radius of 1.5 pixels: the pixel and the eight around it.
        let seen = splat(&camera, &[[0.06, -0.04, 2.0]], &[0.03], 0.0);
        let row = |y: usize| [12, 13, 14].map(|x| y * 20 + x);
        assert_eq!(pixels(&seen, 0), [row(2), row(3), row(4)].concat());
    }

    #[test]
    fn the_nearest_is_seen_and_ties_have_one_answer() {
        let camera = camera(9, 9);
        let middle = 4 * 9 + 4;
        let seen = splat(&camera, &[[0.0, 0.0, 3.0], [0.0, 0.0, 2.0], [0.0, 0.0, 2.0]], &[0.1; 3], 0.0);
        assert_eq!((seen.index[middle], seen.depth[middle]), (1, 2.0));
        // Beside each other on one surface: each has the pixels nearer to it, the lower index those between.
        let seen = splat(&camera, &[[0.02, 0.0, 1.0], [-0.02, 0.0, 1.005]], &[0.03; 2], 1.0);
        assert_eq!(seen.index[4 * 9..5 * 9], [1, 1, 1, 1, 0, 0, 0, 0, 0][..]);
        // Far behind the front it has none of them.
        let seen = splat(&camera, &[[0.0, 0.0, 1.0], [0.0, 0.0, 1.5]], &[0.03; 2], 1.0);
        assert!(pixels(&seen, 1).is_empty());
    }

    #[test]
    fn what_cannot_be_seen_is_not_drawn() {
        let camera = camera(9, 9);
        let points = [
            [0.0, 0.0, -1.0],
            [0.0, 0.0, 0.0],
            [0.0, 0.0, 0.09],
            [f32::NAN, 0.0, 1.0],
            [0.0, f32::INFINITY, 1.0],
            [0.0, 0.0, f32::INFINITY],
            [0.0, 0.0, f32::NAN],
            [50.0, 0.0, 1.0],
            [f32::MAX, 0.0, 1.0],
        ];
        assert!(splat(&camera, &points, &[0.5; 9], 2.0).index.iter().all(|index| *index < 0));
        assert!(splat(&camera, &[[0.0, 0.0, 1.0]; 2], &[-1.0, f32::NAN], 2.0).index.iter().all(|index| *index < 0));
        assert!(splat(&camera, &[], &[], 2.0).index.iter().all(|index| *index < 0));
        // Larger than the image, and larger than discs may be.
        assert_eq!(pixels(&splat(&camera, &[[0.0, 0.0, 0.2]], &[1e9], 0.0), 0).len(), 81);
        let large = self::camera(101, 101);
        let drawn = pixels(&splat(&large, &[[0.0, 0.0, 0.2]], &[1e30], 0.0), 0).len() as f32;
        assert!((drawn / (std::f32::consts::PI * 32.0 * 32.0) - 1.0).abs() < 0.02, "{drawn}");
    }

    /// The contract, pixel by pixel and point by point.
    #[test]
    fn the_definition_gives_the_same() {
        let mut state = 7_u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let points: Vec<[f32; 3]> = (0..400).map(|_| [number(), number(), 2.0 + 0.5 * number()]).collect();
        let radii: Vec<f32> = (0..400).map(|_| 0.05 * number().abs()).collect();
        let mut camera = camera(70, 50);
        camera.axes = [[0.6, 0.0, -0.8], [0.0, 1.0, 0.0], [0.8, 0.0, 0.6]];
        camera.center = [-1.0, 0.0, 0.5];
        let seen = splat(&camera, &points, &radii, 1.5);
        let discs: Vec<Disc> = (0..400).filter_map(|i| project(&camera, points[i], radii[i], i as u32)).collect();
        for pixel in 0..camera.num_pixels() {
            let at = [(pixel % 70) as i32 * 16, (pixel / 70) as i32 * 16];
            let distance = |disc: &Disc| (at[0] - disc.at[0]).pow(2) + (at[1] - disc.at[1]).pow(2);
            let over: Vec<&Disc> = discs.iter().filter(|disc| distance(disc) <= disc.radius.pow(2)).collect();
            let nearest = over.iter().map(|disc| disc.depth).fold(f32::INFINITY, f32::min);
            let front = over.iter().filter(|disc| disc.depth - 1.5 * radii[disc.index as usize] <= nearest);
            let expected = front.min_by_key(|disc| (distance(disc), disc.index));
            assert_eq!(seen.index[pixel], expected.map_or(-1, |disc| disc.index as i32));
            assert_eq!(seen.depth[pixel], expected.map_or(0.0, |disc| disc.depth));
        }
    }

    /// `#` is near (depth 1, index 1), `.` far (depth 2, index 2), a blank empty.
    fn image(rows: &[&str]) -> Seen {
        let bytes: Vec<u8> = rows.iter().flat_map(|row| row.bytes()).collect();
        Seen {
            depth: bytes
                .iter()
                .map(|b| match b {
                    b'#' => 1.0,
                    b'.' => 2.0,
                    _ => 0.0,
                })
                .collect(),
            index: bytes
                .iter()
                .map(|b| match b {
                    b'#' => 1,
                    b'.' => 2,
                    _ => -1,
                })
                .collect(),
        }
    }

    fn check_fill(rows: &[&str], reach: usize, expected: &[&str]) {
        let Seen { depth, index } = image(rows);
        assert_eq!(fill(&depth, &index, rows[0].len(), reach, 0.95), image(expected), "{rows:?}");
    }

    #[test]
    fn gaps_are_closed_and_edges_kept() {
        // An empty pixel, and the far side showing through.
        check_fill(&["#####", "## ##", "#####"], 1, &["#####", "#####", "#####"]);
        check_fill(&["#####", "##.##", "#####"], 1, &["#####", "#####", "#####"]);
        // A point before a wall hides nothing else, and a hole wider than the reach stays.
        check_fill(&[".....", "..#..", "....."], 2, &[".....", "..#..", "....."]);
        check_fill(
            &["######", "#    #", "#    #", "#    #", "######"],
            1,
            &["######", "#    #", "#    #", "#    #", "######"],
        );
        // Straight edges and corners of what is near.
        check_fill(&["###...", "###...", "###...", "......"], 2, &["###...", "###...", "###...", "......"]);
        let corner = ["....###", "....###", "....###", "....###", "#######", "#######"];
        check_fill(&corner, 2, &corner);
        // At the image's border what is outside counts, but not alone.
        check_fill(&["##  ", "##  ", "    "], 3, &["##  ", "##  ", "    "]);
        check_fill(&[" ###", "####", "####"], 1, &["####", "####", "####"]);
        check_fill(&["    ", " #  ", "    "], 3, &["    ", " #  ", "    "]);
        check_fill(&[" # "], 0, &[" # "]);
        assert_eq!(fill(&[], &[], 0, 3, 0.95), Seen { depth: Vec::new(), index: Vec::new() });
    }
}
