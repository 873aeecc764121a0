//! Captions: names written into regions of a picture.

use super::text::{CAP_HEIGHT, Face};
use crate::images::Rgb8Image;

/// Captions are placed on a grid of square cells. The grid has as many cells as a square with this side.
const GRID: f32 = 450.0;

/// Share of a caption's cells that must lie in its region. Specks of other labels may cover the rest.
const INSIDE: f64 = 0.97;

/// Text sizes to try, as shares of the preferred one.
const SIZES: [f32; 4] = [1.0, 0.85, 0.72, 0.6];

/// Smallest readable text size, in pixels.
const SMALLEST: f32 = 9.0;

/// Longest caption, in units of its text size. Longer names are shortened.
const LONGEST: f32 = 11.0;

const TEXT_COLOR: [u8; 3] = [255; 3];
const HALO_COLOR: [u8; 3] = [18; 3];
const HALO_OPACITY: f32 = 0.8;

/// Length of a straight and of a diagonal step in the distance transform.
const STRAIGHT: u32 = 5;
const DIAGONAL: u32 = 7;

/// A name, and where it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Caption {
    /// Index of the name.
    pub(super) label: usize,
    /// The name, shortened if it is long.
    pub(super) text: String,
    /// Centre of the text, in pixels.
    pub(super) center: [f32; 2],
    /// Text size in pixels.
    pub(super) size: f32,
}

/// Returns the font for a text size. Small text needs thicker strokes to look white.
fn face(size: f32) -> Face {
    Face { size, boldness: 0.04 + 0.3 / size }
}

/// Returns width and height of a caption in pixels, with the space around it.
fn extent(text: &str, size: f32) -> [f32; 2] {
    [face(size).width(text) + 0.5 * size, 1.3 * size]
}

/// Writes `captions` with a dark halo.
pub(super) fn paint(image: &mut Rgb8Image, captions: &[Caption]) {
    for Caption { text, center: [x, y], size, .. } in captions {
        let face = face(*size);
        let halo = (0.1 * size).max(1.4);
        let ink = face.ink(text, halo.ceil() as usize + 1).lightened();
        let x = (x - face.width(text) / 2.0).round() as i32;
        let y = (y + CAP_HEIGHT * size / 2.0).round() as i32;
        ink.spread(halo).paint(image, (x, y), HALO_COLOR, HALO_OPACITY);
        ink.paint(image, (x, y), TEXT_COLOR, 1.0);
    }
}

/// Finds a place for the name of each label, inside the label's largest connected region. The text must fit
/// and is put as far from the region's border as possible. Labels whose text fits nowhere get no caption.
pub(super) fn place(labels: &[i32], width: usize, height: usize, names: &[&str], size: f32) -> Vec<Caption> {
    let grid = Grid::new(labels, width, height);
    let regions = grid.largest_regions(names.len());
    let depth = grid.depth();
    let mut captions = Vec::new();
    for region in regions.iter().flatten() {
        let label = grid.cells[region.cells[0] as usize] as usize;
        let text = face(size).shortened(names[label], LONGEST * size);
        if text.is_empty() {
            continue;
        }
        let inside = Inside::new(&grid, region);
        let sizes = SIZES.map(|share| (size * share).max(SMALLEST));
        let place = sizes.iter().find_map(|&size| {
            let [w, h] = extent(&text, size).map(|pixels| (pixels / grid.step as f32).ceil() as usize);
            let middle = inside.best(w, h, |cell| depth[cell])?;
            Some((middle.map(|cell| cell * grid.step as f32), size))
        });
        captions.extend(place.map(|(center, size)| Caption { label, text, center, size }));
    }
    captions
}

/// Labels at the centres of square cells.
struct Grid {
    /// Side of a cell in pixels.
    step: usize,
    width: usize,
    cells: Vec<i32>,
}

/// A connected region: its cells, and the columns and rows it spans.
struct Region {
    cells: Vec<u32>,
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

impl Grid {
    fn new(labels: &[i32], width: usize, height: usize) -> Self {
        let step = (((width * height) as f32).sqrt() / GRID).ceil() as usize;
        // A cell that reaches over the border takes the last pixel inside.
        let middle = |cell: usize, pixels: usize| (cell * step + step / 2).min(pixels - 1);
        let (columns, rows) = (width.div_ceil(step), height.div_ceil(step));
        let row = |y: usize| (0..columns).map(move |x| labels[middle(y, height) * width + middle(x, width)]);
        Self { step, width: columns, cells: (0..rows).flat_map(row).collect() }
    }

    /// Finds the largest connected region of each of the labels `0..count`.
    fn largest_regions(&self, count: usize) -> Vec<Option<Region>> {
        let mut largest: Vec<Option<Region>> = (0..count).map(|_| None).collect();
        let mut seen = vec![false; self.cells.len()];
        for start in 0..self.cells.len() {
            let label = self.cells[start];
            let Some(best) = usize::try_from(label).ok().and_then(|label| largest.get_mut(label)) else { continue };
            if std::mem::replace(&mut seen[start], true) {
                continue;
            }
            let mut cells = vec![start as u32];
            let (mut left, mut right, mut bottom) = (usize::MAX, 0, 0);
            let mut next = 0;
            while let Some(&cell) = cells.get(next) {
                next += 1;
                let cell = cell as usize;
                let x = cell % self.width;
                (left, right, bottom) = (left.min(x), right.max(x + 1), bottom.max(cell / self.width + 1));
                let beside = [
                    (x > 0).then(|| cell - 1),
                    (x + 1 < self.width).then_some(cell + 1),
                    cell.checked_sub(self.width),
                    Some(cell + self.width).filter(|&below| below < self.cells.len()),
                ];
                for cell in beside.into_iter().flatten() {
                    if self.cells[cell] == label && !std::mem::replace(&mut seen[cell], true) {
                        cells.push(cell as u32);
                    }
                }
            }
            if best.as_ref().is_none_or(|best| best.cells.len() < cells.len()) {
                *best = Some(Region { cells, left, top: start / self.width, right, bottom });
            }
        }
        largest
    }

    /// Returns the distance of each cell from the nearest cell of another label or outside, by steps in eight
    /// directions.
    fn depth(&self) -> Vec<u32> {
        let (width, height) = (self.width as isize, (self.cells.len() / self.width) as isize);
        let mut depth = vec![u32::MAX; self.cells.len()];
        let before = [(-1, 0, STRAIGHT), (-1, -1, DIAGONAL), (0, -1, STRAIGHT), (1, -1, DIAGONAL)];
        for backward in [false, true] {
            for i in 0..self.cells.len() {
                let cell = if backward { self.cells.len() - 1 - i } else { i };
                let (x, y) = (cell as isize % width, cell as isize / width);
                for (dx, dy, length) in before {
                    let (x, y) = if backward { (x - dx, y - dy) } else { (x + dx, y + dy) };
                    let inside = (0..width).contains(&x) && (0..height).contains(&y);
                    let other = (y * width + x) as usize;
                    let reached = match inside && self.cells[other] == self.cells[cell] {
                        true => depth[other].saturating_add(length),
                        false => length,
                    };
                    depth[cell] = depth[cell].min(reached);
                }
            }
        }
        depth
    }
}

/// Cells of a region, which can be counted in any rectangle (summed-area table).
struct Inside<'a> {
    region: &'a Region,
    grid_width: usize,
    /// Number of columns of `sums`: one more than the region spans.
    columns: usize,
    /// Number of the region's cells above and to the left of each cell corner.
    sums: Vec<u32>,
}

impl<'a> Inside<'a> {
    fn new(grid: &Grid, region: &'a Region) -> Self {
        let columns = region.right - region.left + 1;
        let mut sums = vec![0; columns * (region.bottom - region.top + 1)];
        for &cell in &region.cells {
            let (x, y) = (cell as usize % grid.width - region.left, cell as usize / grid.width - region.top);
            sums[(y + 1) * columns + x + 1] = 1;
        }
        for i in columns..sums.len() {
            if i % columns > 0 {
                sums[i] = (sums[i] + sums[i - 1] + sums[i - columns]) - sums[i - columns - 1];
            }
        }
        Self { region, grid_width: grid.width, columns, sums }
    }

    /// Returns the centre, in cells of the grid, of the best rectangle of `width` x `height` cells inside the
    /// region.
    fn best(&self, width: usize, height: usize, depth: impl Fn(usize) -> u32) -> Option<[f32; 2]> {
        let Region { left, top, right, bottom, .. } = *self.region;
        let needed = (INSIDE * (width * height) as f64).ceil() as u32;
        let mut best = None;
        for y in 0..(bottom - top + 1).saturating_sub(height) {
            for x in 0..(right - left + 1).saturating_sub(width) {
                let sum = |x: usize, y: usize| self.sums[y * self.columns + x];
                let inside = (sum(x + width, y + height) + sum(x, y)) - (sum(x + width, y) + sum(x, y + height));
                if inside < needed {
                    continue;
                }
                let cell = (top + y + height / 2) * self.grid_width + left + x + width / 2;
                // Of equally deep places, the one nearest to the centre of the region's bounding box wins.
                let off = |at: usize, size: usize, from: usize, to: usize| (2 * at + size).abs_diff(to - from);
                let off = off(x, width, left, right) + off(y, height, top, bottom);
                let score = (depth(cell), std::cmp::Reverse(off));
                if best.as_ref().is_none_or(|&(known, _)| known < score) {
                    let middle = |at: usize, size: usize| at as f32 + size as f32 / 2.0;
                    best = Some((score, [middle(left + x, width), middle(top + y, height)]));
                }
            }
        }
        best.map(|(_, middle)| middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the labels of a `width` x `height` picture by a rule.
    fn labels(width: usize, height: usize, rule: impl Fn(i32, i32) -> i32) -> Vec<i32> {
        (0..height as i32).flat_map(|y| (0..width as i32).map(move |x| (x, y))).map(|(x, y)| rule(x, y)).collect()
    }

    /// Returns true if all pixels of the caption have its label.
    fn lies_inside(caption: &Caption, labels: &[i32], width: usize) -> bool {
        let [w, h] = extent(&caption.text, caption.size);
        let [x, y] = caption.center;
        let rows = (y - h / 2.0 + 1.0) as usize..(y + h / 2.0 - 1.0) as usize;
        let mut pixels = rows.flat_map(|y| {
            let columns = (x - w / 2.0 + 1.0) as usize..(x + w / 2.0 - 1.0) as usize;
            columns.map(move |x| y * width + x)
        });
        pixels.all(|pixel| labels[pixel] == caption.label as i32)
    }

    #[test]
    fn a_caption_lies_in_the_middle_of_its_disc() {
        let map = labels(400, 300, |x, y| i32::from((x - 130).pow(2) + (y - 160).pow(2) < 90 * 90));
        let captions = place(&map, 400, 300, &["wall", "lamp"], 18.0);
        assert_eq!(captions.len(), 2);
        let lamp = &captions[1];
        assert_eq!((lamp.label, lamp.text.as_str(), lamp.size), (1, "lamp", 18.0));
        assert!((lamp.center[0] - 130.0).abs() < 3.0 && (lamp.center[1] - 160.0).abs() < 3.0, "{lamp:?}");
        for caption in &captions {
            assert!(lies_inside(caption, &map, 400), "{caption:?}");
        }
    }

    #[test]
    fn the_largest_region_is_taken_also_in_a_large_picture() {
        // The centre of a ring lies outside it; the text goes into its thick side. A second, smaller region
        // is ignored.
        let (width, height) = (2000, 1500);
        let ring = |x: i32, y: i32| {
            let outer = (x - 900).pow(2) + (y - 700).pow(2) < 600 * 600;
            let hole = (x - 1050).pow(2) + (y - 700).pow(2) < 350 * 350;
            i32::from(outer && !hole || x > 1700 && y > 1200) - 1
        };
        let map = labels(width, height, ring);
        let captions = place(&map, width, height, &["sofa"], 50.0);
        assert_eq!(captions.len(), 1);
        assert!(captions[0].center[0] < 700.0, "{captions:?}");
        assert!(lies_inside(&captions[0], &map, width));
    }

    #[test]
    fn text_becomes_smaller_or_is_left_out() {
        let stripe = |thickness: i32| labels(300, 100, move |_, y| i32::from((40..40 + thickness).contains(&y)) - 1);
        let size_in = |thickness| place(&stripe(thickness), 300, 100, &["chair"], 24.0).first().map(|c| c.size);
        assert_eq!(size_in(60), Some(24.0));
        assert_eq!(size_in(24), Some(24.0 * 0.72));
        assert_eq!(size_in(12), None);
        let narrow = labels(300, 100, |x, _| i32::from(x < 40) - 1);
        assert_eq!(place(&narrow, 300, 100, &["refrigerator"], 24.0), []);
        let long = place(&[0; 30_000], 300, 100, &["a framed painting of a ship"], 24.0);
        assert!(long[0].text.starts_with("a framed painting") && long[0].text.ends_with('…'), "{long:?}");
    }

    #[test]
    fn degenerate_pictures_have_no_captions() {
        assert_eq!(place(&[0], 1, 1, &["chair"], 20.0), []);
        assert_eq!(place(&[-1; 100], 10, 10, &["chair"], 20.0), []);
        assert_eq!(place(&[0; 10_000], 100, 100, &["  "], 20.0), []);
        assert_eq!(place(&[0; 10_000], 10_000, 1, &["chair"], 20.0), []);
    }

    #[test]
    fn depth_is_the_distance_to_the_border() {
        let grid = Grid::new(&[0; 35], 7, 5);
        assert_eq!(grid.depth()[2 * 7..3 * 7], [5, 10, 15, 15, 15, 10, 5]);
        let grid = Grid::new(&labels(9, 9, |x, y| i32::from(x == 4 && y == 4)), 9, 9);
        assert_eq!(grid.depth()[4 * 9..5 * 9], [5, 10, 10, 5, 5, 5, 10, 10, 5]);
    }
}
