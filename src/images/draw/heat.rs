//! Heat colours for a share from 0 to 1, and the scale that explains them.

use super::legend::{BACKGROUND, BOLDNESS, GAP, MARGIN, ROW, SHARE_COLOR, TEXT_COLOR, paste, sheet_text_size};
use super::text::{CAP_HEIGHT, Face};
use crate::images::{ImageError, Rgb8Image};

// The path runs straight in Oklab's lightness, so that equal steps look equally large, and through half of
// the hue circle: from dark blue over magenta and orange to bright yellow.
const LIGHTNESS: [f32; 2] = [0.16, 0.94];
const HUE: [f32; 2] = [285.0, 465.0];
/// Chroma at both ends, and how much more the middle has. This is about as much as sRGB allows along the
/// path.
const CHROMA: [f32; 2] = [0.08, 0.13];
const BULGE: f32 = 0.3;

// Lengths in units of the text size.
const BAR_HEIGHT: f32 = 0.8;
const MIN_BAR: f32 = 6.0;
const MAX_BAR: f32 = 16.0;
const MIN_TITLE: f32 = 10.0;
/// Length of the bar in units of the picture's width.
const BAR: f32 = 0.3;

/// Returns the colour of a share, 0 to 1: from nearly black to bright yellow, in even steps of lightness.
/// Other values are clamped; NaN counts as 0.
#[must_use]
pub fn heat_color(share: f32) -> [u8; 3] {
    let t = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    let along = |[from, to]: [f32; 2]| from + (to - from) * t;
    let chroma = along(CHROMA) + BULGE * t * (1.0 - t);
    let (sin, cos) = along(HUE).to_radians().sin_cos();
    srgb([along(LIGHTNESS), chroma * cos, chroma * sin])
}

/// Converts Oklab coordinates, as Ottosson defines them, to sRGB.
fn srgb([lightness, a, b]: [f32; 3]) -> [u8; 3] {
    let l = (lightness + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
    let m = (lightness - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
    let s = (lightness - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
    let linear = [
        4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s,
        -1.268_438 * l + 2.609_757_4 * m - 0.341_319_4 * s,
        -0.004_196_086_3 * l - 0.703_418_6 * m + 1.707_614_7 * s,
    ];
    linear.map(|value| {
        let value = if value <= 0.003_130_8 { 12.92 * value } else { 1.055 * value.powf(1.0 / 2.4) - 0.055 };
        (value * 255.0 + 0.5) as u8
    })
}

/// Draws a panel below `image`: `title`, and the scale of [`heat_color`] with the numbers `low` and `high` at
/// its ends.
///
/// # Errors
/// [`ImageError::Size`] if the result would have too many pixels.
pub fn heat_bar(image: &Rgb8Image, title: &str, low: f32, high: f32) -> Result<Rgb8Image, ImageError> {
    let (width, height) = (image.width(), image.height());
    let size = sheet_text_size((width * height) as f32);
    let face = Face { size, boldness: BOLDNESS };
    let px = |units: f32| (units * size).round() as usize;
    let bar = (BAR * width as f32).clamp(MIN_BAR * size, MAX_BAR * size).round() as usize;
    let numbers = [low, high].map(|value| number(value, high - low));
    let [low_width, high_width] = [0, 1].map(|i| face.width(&numbers[i]).ceil() as usize);
    let scale = low_width + px(GAP) + bar + px(GAP) + high_width;
    let title_width = face.width(title).min(MIN_TITLE * size).ceil() as usize;
    let total = width.max(2 * px(MARGIN) + title_width + px(MARGIN) + scale);
    let mut out = Rgb8Image::filled(total, height + 2 * px(MARGIN) + px(ROW), BACKGROUND)?;
    paste(&mut out, image, [0, 0]);

    let middle = height as f32 + px(MARGIN) as f32 + ROW * size / 2.0;
    let baseline = (middle + CAP_HEIGHT * size / 2.0).round() as i32;
    let left = total - px(MARGIN) - scale;
    let title = face.shortened(title, (left - 2 * px(MARGIN)) as f32);
    face.ink(&title, 0).paint(&mut out, (px(MARGIN) as i32, baseline), TEXT_COLOR, 1.0);
    face.ink(&numbers[0], 0).paint(&mut out, (left as i32, baseline), SHARE_COLOR, 1.0);
    let right = (total - px(MARGIN) - high_width) as i32;
    face.ink(&numbers[1], 0).paint(&mut out, (right, baseline), SHARE_COLOR, 1.0);
    let (left, top) = (left + low_width + px(GAP), (middle - BAR_HEIGHT * size / 2.0).round() as usize);
    for row in out.pixels_mut().chunks_exact_mut(total).skip(top).take(px(BAR_HEIGHT)) {
        for (x, pixel) in row[left..left + bar].iter_mut().enumerate() {
            *pixel = heat_color(x as f32 / (bar - 1) as f32);
        }
    }
    Ok(out)
}

/// Formats a number with two significant digits of `range`.
fn number(value: f32, range: f32) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let digits = 1.0 - range.abs().log10().floor();
    if value.abs() >= 1e6 || (range != 0.0 && digits > 6.0) {
        return format!("{value:.1e}");
    }
    let digits = if digits.is_finite() { digits.clamp(0.0, 6.0) as usize } else { 2 };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::super::palette::tests::oklab;
    use super::*;

    #[test]
    fn lightness_grows_evenly() {
        let lightness: Vec<f64> = (0..=255).map(|i| oklab(heat_color(i as f32 / 255.0))[0]).collect();
        let steps: Vec<f64> = lightness.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // Even up to rounding to 8 bits, which matters most in dark colours.
        assert!(steps.iter().all(|step| (0.0..0.008).contains(step)), "{steps:?}");
        for (i, lightness) in lightness.iter().enumerate() {
            assert!((lightness - (0.16 + 0.78 * i as f64 / 255.0)).abs() < 0.006, "{i}: {lightness}");
        }
    }

    #[test]
    fn colors_are_stable_and_never_cut() {
        assert_eq!([0.0, 0.5, 1.0].map(heat_color), [[13, 3, 45], [196, 51, 79], [248, 240, 133]]);
        assert_eq!(heat_color(f32::NAN), heat_color(-3.0));
        assert_eq!(heat_color(f32::INFINITY), heat_color(1.0));
        // Neighbours also have similar hues: no colour was clipped to the range of sRGB.
        for i in 0..100 {
            let [a, b] = [i, i + 1].map(|i| oklab(heat_color(i as f32 / 100.0)));
            let distance = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            assert!(distance < 0.03, "{i}: {distance}");
        }
    }

    #[test]
    fn numbers_have_the_digits_that_matter() {
        let text = |low, high| [low, high].map(|value| number(value, high - low));
        assert_eq!(text(0.121, 0.314), ["0.12", "0.31"]);
        assert_eq!(text(0.0, 1.0), ["0.0", "1.0"]);
        assert_eq!(text(-12.0, 120.0), ["-12", "120"]);
        assert_eq!(text(0.2, 0.2), ["0.20", "0.20"]);
        assert_eq!(text(0.1, f32::NAN), ["0.10", "–"]);
        assert_eq!(text(1.0, 3.4e38), ["1", "3.4e38"]);
        assert_eq!(text(0.0, 1e-9), ["0.0e0", "1.0e-9"]);
    }

    #[test]
    fn the_bar_lies_below_the_picture() {
        let image = Rgb8Image::filled(640, 480, [1, 2, 3]).unwrap();
        let out = heat_bar(&image, "red chair", 0.1, 0.3).unwrap();
        assert!(out.width() == 640 && out.height() > 500 && out.height() < 560);
        for y in 0..480 {
            assert_eq!(out.pixels()[y * 640..][..640], [[1, 2, 3]; 640]);
        }
        let below = &out.pixels()[480 * 640..];
        for share in [0.0, 1.0] {
            assert!(below.contains(&heat_color(share)), "{share}");
        }
        let dark = |columns: std::ops::Range<usize>| {
            below.iter().enumerate().filter(|(i, p)| columns.contains(&(i % 640)) && p[0] < 120).count()
        };
        assert!(dark(0..150) > 50, "the title");
    }

    #[test]
    fn any_size_and_any_title_can_be_drawn() {
        for (width, height) in [(1, 1), (3000, 1), (1, 700), (90, 30)] {
            let image = Rgb8Image::filled(width, height, [1, 2, 3]).unwrap();
            for title in ["", "椅子 🪑 \u{202e}\0"] {
                let out = heat_bar(&image, &title.repeat(200), f32::NAN, f32::INFINITY).unwrap();
                assert!(out.width() >= width && out.height() > height);
            }
        }
    }
}
