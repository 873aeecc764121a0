//! Pictures on surfaces, with smaller copies for views from afar.

use std::sync::LazyLock;

use glam::{Vec2, Vec3};

use crate::cloud::Wrap;
use crate::images::Rgb8Image;

/// Longest side that is kept, in pixels.
const LONGEST_SIDE: usize = 512;

static LINEAR: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|value| to_linear(value as f32 / 255.0)));

/// A picture, as colours of a surface.
#[derive(Debug)]
pub(super) struct Picture {
    /// The picture, then copies of half the size each, down to one pixel.
    levels: Vec<Level>,
    /// Across and down.
    wrap: [Wrap; 2],
}

#[derive(Debug)]
struct Level {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Level {
    fn halved(&self) -> Self {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let pixel =
            |x: usize, y: usize| linear(self.pixels[y.min(self.height - 1) * self.width + x.min(self.width - 1)]);
        let mean = |place: usize| {
            let (x, y) = (2 * (place % width), 2 * (place / width));
            stored((pixel(x, y) + pixel(x + 1, y) + pixel(x, y + 1) + pixel(x + 1, y + 1)) * 0.25)
        };
        Self { width, height, pixels: (0..width * height).map(mean).collect() }
    }

    fn at(&self, place: Vec2, wrap: [Wrap; 2]) -> Vec3 {
        let (x, y) = (place.x * self.width as f32 - 0.5, place.y * self.height as f32 - 0.5);
        let (left, above) = (x.floor(), y.floor());
        let (s, t) = (x - left, y - above);
        let pixel = |x: f32, y: f32| {
            let (x, y) = (wrapped(x, self.width, wrap[0]), wrapped(y, self.height, wrap[1]));
            linear(self.pixels[y * self.width + x])
        };
        let row = |y: f32| pixel(left, y).lerp(pixel(left + 1.0, y), s);
        row(above).lerp(row(above + 1.0), t)
    }
}

/// Returns the pixel of a row that shows a place. A place that is no number becomes 0.
fn wrapped(place: f32, size: usize, wrap: Wrap) -> usize {
    let length = size as f32;
    let inside = match wrap {
        Wrap::Repeat => place.rem_euclid(length),
        Wrap::Mirror => length - 0.5 - ((place + 0.5).rem_euclid(2.0 * length) - length).abs(),
        Wrap::Clamp => place,
    };
    (inside as usize).min(size - 1)
}

/// Converts a value of sRGB, 0 to 1, to linear light.
pub(super) fn to_linear(value: f32) -> f32 {
    if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

fn linear(color: [u8; 3]) -> Vec3 {
    Vec3::from_array(color.map(|value| LINEAR[usize::from(value)]))
}

fn stored(light: Vec3) -> [u8; 3] {
    light.to_array().map(|x| {
        let x = if x <= 0.003_130_8 { 12.92 * x } else { 1.055 * x.powf(1.0 / 2.4) - 0.055 };
        (x * 255.0 + 0.5) as u8
    })
}

impl Picture {
    /// Takes a picture, with factors of linear red, green and blue.
    pub(super) fn new(image: &Rgb8Image, factor: [f32; 3], wrap: [Wrap; 2]) -> Self {
        let factor = Vec3::from_array(factor);
        let tinted = |&color: &[u8; 3]| if factor == Vec3::ONE { color } else { stored(linear(color) * factor) };
        let pixels = image.pixels().iter().map(tinted).collect();
        let mut level = Level { width: image.width(), height: image.height(), pixels };
        while level.width.max(level.height) > LONGEST_SIDE {
            level = level.halved();
        }
        let mut levels = vec![level];
        while let Some(last) = levels.last().filter(|last| last.width.max(last.height) > 1) {
            levels.push(last.halved());
        }
        Self { levels, wrap }
    }

    /// Returns the linear colour at a place; (0, 0) is the upper left corner, (1, 1) the lower right one.
    /// `footprint` is the width of a pixel of the view, as a share of the picture.
    pub(super) fn at(&self, place: Vec2, footprint: f32) -> Vec3 {
        let pixels = footprint * self.levels[0].width.max(self.levels[0].height) as f32;
        // Casting saturates.
        let level = (pixels.max(1.0).log2() as usize).min(self.levels.len() - 1);
        self.levels[level].at(place, self.wrap)
    }

    /// Returns the mean colour, linear.
    pub(super) fn mean(&self) -> Vec3 {
        self.levels.last().map_or(Vec3::splat(0.5), |last| linear(last.pixels[0]))
    }
}

#[cfg(test)]
mod tests {
    use glam::vec2;

    use super::*;

    #[test]
    fn near_views_show_pixels_and_far_ones_the_mean() {
        let image = Rgb8Image::new(2, 1, vec![[255, 0, 0], [0, 0, 255]]).unwrap();
        let picture = Picture::new(&image, [1.0; 3], [Wrap::Repeat; 2]);
        assert_eq!(picture.at(vec2(0.25, 0.5), 0.1), Vec3::X);
        assert_eq!(picture.at(vec2(0.75, 0.5), 0.1), Vec3::Z);
        // Half the light, within a step of the stored values.
        for color in [picture.at(vec2(0.25, 0.5), 5.0), picture.mean()] {
            assert!((color - Vec3::new(0.5, 0.0, 0.5)).abs().max_element() < 0.005, "{color}");
        }
        // A place that is no number may give any colour.
        picture.at(vec2(f32::NAN, f32::INFINITY), f32::NAN);
    }

    #[test]
    fn places_outside_of_a_picture() {
        for (place, repeat, mirror, clamp) in
            [(0.0, 0, 0, 0), (3.0, 3, 3, 3), (4.0, 0, 3, 3), (-1.0, 3, 0, 0), (9.0, 1, 1, 3)]
        {
            let found = [Wrap::Repeat, Wrap::Mirror, Wrap::Clamp].map(|wrap| wrapped(place, 4, wrap));
            assert_eq!(found, [repeat, mirror, clamp], "{place}");
        }
    }

    #[test]
    fn large_pictures_are_halved() {
        let picture = Picture::new(&Rgb8Image::filled(1300, 40, [100; 3]).unwrap(), [0.5; 3], [Wrap::Clamp; 2]);
        assert_eq!((picture.levels[0].width, picture.levels[0].height), (325, 10));
        assert!((picture.mean().x / (to_linear(100.0 / 255.0) * 0.5) - 1.0).abs() < 0.02);
    }
}
