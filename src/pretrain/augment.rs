//! Random changes of a labelled picture that leave its contents recognisable.

use super::criterion::Segments;
use super::rooms::{Labelled, NOTHING};
use crate::random::SplitMix64;

/// Side of a cell of the masks, in pixels.
pub const CELL: usize = 4;
/// Largest factor between the stretches of the picture's two axes.
const STRETCH: f64 = 1.12;
/// Sources that are denser than the result by this factor are averaged over 2 x 2 samples.
const DENSE: f32 = 1.3;

/// A picture to learn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Red, green and blue, 0 to 255, row by row.
    pub pixels: Vec<f32>,
    /// NYU40's number of each pixel; 0 if unknown.
    pub labels: Vec<u8>,
}

/// Cuts `picture` to a frame of `size` (width, height), then changes its colours and sharpness. Half of the
/// results are mirrored. `zoom` is the least and the largest enlargement, relative to the size that fits the
/// frame. Around a smaller picture, the frame shows nothing.
#[must_use]
pub fn augment(picture: &Labelled, size: [usize; 2], zoom: [f64; 2], random: &mut SplitMix64) -> Example {
    let mut example = cut(picture, size, zoom, random);
    recolor(&mut example.pixels, random);
    if random.unit() < 0.2 {
        let mixed = 0.5 * random.unit() as f32;
        blur(&mut example.pixels, size, mixed);
    }
    if random.unit() < 0.4 {
        let strength = 8.0 * random.unit() as f32;
        // The sum of two uniform numbers is close enough to a normal one.
        let mut noise = || (random.unit() + random.unit() - 1.0) as f32 * 2.45 * strength;
        example.pixels.iter_mut().for_each(|value| *value += noise());
    }
    example.pixels.iter_mut().for_each(|value| *value = value.clamp(0.0, 255.0));
    example
}

fn cut(picture: &Labelled, [width, height]: [usize; 2], zoom: [f64; 2], random: &mut SplitMix64) -> Example {
    let between = |random: &mut SplitMix64, [a, b]: [f64; 2]| a * (b / a).powf(random.unit());
    let mirrored = random.below(2) == 1;
    let (own_width, own_height) = (picture.image.width(), picture.image.height());
    let fit = (width as f64 / own_width as f64).min(height as f64 / own_height as f64);
    let factor = fit * between(random, zoom);
    let stretch = between(random, [STRETCH.recip(), STRETCH]).sqrt();
    let step = [1.0 / (factor * stretch), stretch / factor];
    // Start of the frame in the picture: inside a larger picture, or around a smaller one.
    let mut begin = |own: usize, size: usize, step: f64| (own as f64 - size as f64 * step) * random.unit();
    let start = [begin(own_width, width, step[0]), begin(own_height, height, step[1])];
    let (step, start) = (step.map(|x| x as f32), start.map(|x| x as f32));
    let offsets: &[f32] = if step[0] > DENSE { &[-0.25, 0.25] } else { &[0.0] };
    let pixels = picture.image.pixels();
    let share = 1.0 / (offsets.len() * offsets.len()) as f32;
    let mut example =
        Example { pixels: Vec::with_capacity(width * height * 3), labels: Vec::with_capacity(width * height) };
    for y in 0..height {
        for x in 0..width {
            let column = if mirrored { width - 1 - x } else { x };
            let at = |offset: [f32; 2]| {
                [
                    (column as f32 + 0.5 + offset[0]) * step[0] + start[0],
                    (y as f32 + 0.5 + offset[1]) * step[1] + start[1],
                ]
            };
            let center = at([0.0; 2]);
            let inside = center[0] >= 0.0 && center[1] >= 0.0;
            let nearest = [center[0] as usize, center[1] as usize];
            if !inside || nearest[0] >= own_width || nearest[1] >= own_height {
                example.pixels.extend(NOTHING.map(f32::from));
                example.labels.push(0);
                continue;
            }
            example.labels.push(picture.labels[nearest[1] * own_width + nearest[0]]);
            let mut color = [0.0; 3];
            for &dy in offsets {
                for &dx in offsets {
                    let sample = bilinear(pixels, [own_width, own_height], at([dx, dy]));
                    (0..3).for_each(|c| color[c] += share * sample[c]);
                }
            }
            example.pixels.extend(color);
        }
    }
    example
}

/// Returns the interpolated colour at a place in pixels. Pixel centres are at halves.
fn bilinear(pixels: &[[u8; 3]], [width, height]: [usize; 2], at: [f32; 2]) -> [f32; 3] {
    let along = |at: f32, size: usize| {
        let at = (at - 0.5).clamp(0.0, (size - 1) as f32);
        let first = at as usize;
        (first, (first + 1).min(size - 1), at - first as f32)
    };
    let ((x0, x1, fx), (y0, y1, fy)) = (along(at[0], width), along(at[1], height));
    std::array::from_fn(|c| {
        let value = |x: usize, y: usize| f32::from(pixels[y * width + x][c]);
        let upper = value(x0, y0) + fx * (value(x1, y0) - value(x0, y0));
        let lower = value(x0, y1) + fx * (value(x1, y1) - value(x0, y1));
        upper + fy * (lower - upper)
    })
}

/// Changes brightness, contrast, saturation, the tint of the light, and gamma.
fn recolor(pixels: &mut [f32], random: &mut SplitMix64) {
    let mut spread = |strength: f64| (1.0 + strength * (2.0 * random.unit() - 1.0)) as f32;
    let (brightness, contrast, saturation, gamma) = (spread(0.3), spread(0.3), spread(0.4), spread(0.25));
    let tint = [spread(0.08), spread(0.04), spread(0.08)];
    let hue = (spread(0.12) - 1.0) * std::f32::consts::PI;
    let grey = if random.unit() < 0.05 { 0.0 } else { saturation };
    let (sin, cos) = hue.sin_cos();
    // A table, because powers are slow.
    let curve: [f32; 256] = std::array::from_fn(|i| {
        let value = brightness * (i as f32 / 255.0).powf(gamma);
        128.0 + contrast * (255.0 * value - 128.0)
    });
    for pixel in pixels.as_chunks_mut::<3>().0 {
        let [r, g, b] = pixel.map(|value| curve[value.clamp(0.0, 255.0) as usize]);
        // YIQ, in which hue is an angle.
        let luma = 0.299 * r + 0.587 * g + 0.114 * b;
        let (i, q) = (0.596 * r - 0.274 * g - 0.322 * b, 0.211 * r - 0.523 * g + 0.312 * b);
        let (i, q) = (grey * (cos * i - sin * q), grey * (sin * i + cos * q));
        *pixel = [
            tint[0] * (luma + 0.956 * i + 0.621 * q),
            tint[1] * (luma - 0.272 * i - 0.647 * q),
            tint[2] * (luma - 1.106 * i + 1.703 * q),
        ];
    }
}

/// Mixes every pixel with its neighbours, first along rows, then along columns.
fn blur(pixels: &mut [f32], [width, height]: [usize; 2], mixed: f32) {
    for (line, len, step, next) in [(height, width, 3, width * 3), (width, height, width * 3, 3)] {
        for i in 0..line {
            for c in 0..3 {
                let at = |j: usize| i * next + j * step + c;
                let mut before = pixels[at(0)];
                for j in 0..len {
                    let own = pixels[at(j)];
                    let behind = pixels[at((j + 1).min(len - 1))];
                    pixels[at(j)] = own + mixed * (0.5 * (before + behind) - own);
                    before = own;
                }
            }
        }
    }
}

/// Returns the segments of labels of `size` (width, height), one for each class that covers at least `fewest`
/// pixels. `class_of` returns the text row of a label. Pixels without one count as unlabelled.
#[must_use]
pub fn segments(
    labels: &[u8],
    [width, height]: [usize; 2],
    fewest: usize,
    class_of: impl Fn(u8) -> Option<usize>,
) -> Segments {
    let (columns, rows) = (width.div_ceil(CELL), height.div_ceil(CELL));
    let mut counts = [0_usize; 256];
    labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    let mut place = [None; 256];
    let mut result = Segments { weights: vec![0.0; columns * rows], ..Segments::default() };
    let mut is_known = [false; 256];
    for label in 0..=u8::MAX {
        let Some(class) = class_of(label) else { continue };
        is_known[usize::from(label)] = true;
        if counts[usize::from(label)] >= fewest.max(1) {
            place[usize::from(label)] = Some(result.classes.len());
            result.classes.push(class);
        }
    }
    result.masks = vec![0.0; result.classes.len() * columns * rows];
    for (i, &label) in labels.iter().enumerate() {
        if !is_known[usize::from(label)] {
            continue;
        }
        let cell = (i / width / CELL) * columns + (i % width) / CELL;
        result.weights[cell] += 1.0;
        if let Some(segment) = place[usize::from(label)] {
            result.masks[segment * columns * rows + cell] += 1.0;
        }
    }
    let num_cells = columns * rows;
    for mask in result.masks.chunks_exact_mut(num_cells.max(1)) {
        mask.iter_mut().zip(&result.weights).for_each(|(covered, &known)| *covered /= known.max(1.0));
    }
    result.weights.iter_mut().for_each(|known| *known /= (CELL * CELL) as f32);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Rgb8Image;

    fn picture() -> Labelled {
        let pixels = (0..60 * 40).map(|i| [(i % 60 * 4) as u8, (i / 60 * 6) as u8, 90]).collect();
        let labels = (0..60 * 40).map(|i| if i % 60 < 30 { 1 } else { 2 }).collect();
        Labelled { image: Rgb8Image::new(60, 40, pixels).unwrap(), labels }
    }

    #[test]
    fn labels_stay_with_their_colours() {
        for seed in 0..50 {
            let example = cut(&picture(), [48, 32], [0.6, 2.0], &mut SplitMix64::new(seed));
            assert_eq!((example.pixels.len(), example.labels.len()), (48 * 32 * 3, 48 * 32));
            for (pixel, &label) in example.pixels.chunks_exact(3).zip(&example.labels) {
                // Pixels of the left half have less than 120 of red, up to those between the halves.
                match label {
                    0 => assert_eq!(pixel, [124.0, 116.0, 104.0]),
                    1 => assert!(pixel[0] < 121.0, "{pixel:?}"),
                    _ => assert!(pixel[0] > 115.0, "{pixel:?}"),
                }
            }
        }
    }

    #[test]
    fn one_stream_gives_one_example() {
        let example = |seed: u64| augment(&picture(), [48, 32], [0.6, 2.0], &mut SplitMix64::new(seed));
        assert_eq!(example(4), example(4));
        assert_ne!(example(4), example(5));
        assert!(example(6).pixels.iter().all(|value| (0.0..=255.0).contains(value)));
    }

    #[test]
    fn cells_are_covered_by_shares() {
        // Two cells. Label 1 covers the left cell and a quarter of the right one, label 2 half of it; the
        // last quarter is unknown.
        let row: [u8; 8] = [1, 1, 1, 1, 1, 2, 2, 0];
        let labels: Vec<u8> = row.iter().cycle().take(32).copied().collect();
        let found = segments(&labels, [8, 4], 8, |label| (label > 0).then(|| usize::from(label) + 4));
        assert_eq!(found.classes, [5, 6]);
        assert_eq!(found.weights, [1.0, 0.75]);
        assert_eq!(found.masks, [1.0, 1.0 / 3.0, 0.0, 2.0 / 3.0]);
        let large = segments(&labels, [8, 4], 9, |label| (label > 0).then_some(0));
        assert_eq!((large.classes.len(), large.weights[1]), (1, 0.75));
    }
}
