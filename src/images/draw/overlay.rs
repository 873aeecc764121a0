//! Tinting regions and drawing the lines between them.

use rayon::prelude::*;

use super::{check_labels, mix};
use crate::images::{ImageError, Rgb8Image};

/// Share of its colour that the photo keeps under a tint. The photo's own hues must not be mistaken for a
/// class.
const SATURATION_BELOW: f32 = 0.55;

/// Share of its colour that an unlabelled pixel keeps.
const SATURATION_UNLABELLED: f32 = 0.35;

/// How far an unlabelled pixel moves towards light grey.
const FADING: f32 = 0.12;

const LINE_COLOR: [u8; 3] = [255; 3];
const LINE_OPACITY: f32 = 0.9;

/// Tints each pixel with the colour of its label. `opacity` is the strength, clamped to 0 to 1. Pixels with a
/// negative label only lose some colour.
///
/// # Errors
/// [`ImageError::Count`] unless there is one label per pixel, [`ImageError::UnknownLabel`] for a label without
/// a colour.
pub fn tint(image: &Rgb8Image, labels: &[i32], colors: &[[u8; 3]], opacity: f32) -> Result<Rgb8Image, ImageError> {
    check_labels(image, labels, colors.len())?;
    let opacity = if opacity.is_nan() { 0.0 } else { opacity.clamp(0.0, 1.0) };
    let mut out = image.clone();
    out.pixels_mut().par_iter_mut().zip(labels).with_min_len(1 << 14).for_each(|(pixel, &label)| {
        let grey = [luma(*pixel); 3];
        *pixel = match usize::try_from(label) {
            Ok(label) => mix(mix(grey, *pixel, SATURATION_BELOW), colors[label], opacity),
            Err(_) => mix(mix(grey, *pixel, SATURATION_UNLABELLED), [205; 3], FADING),
        };
    });
    Ok(out)
}

/// Does the same as [`tint`], and draws thin lines where labels change.
///
/// # Errors
/// As [`tint`].
pub fn overlay(image: &Rgb8Image, labels: &[i32], colors: &[[u8; 3]], opacity: f32) -> Result<Rgb8Image, ImageError> {
    let mut out = tint(image, labels, colors, opacity)?;
    let (width, height) = (image.width(), image.height());
    let thickness = (((width * height) as f32).sqrt() / 700.0).max(1.0);
    let lines = boundaries(labels, width, height, thickness);
    out.pixels_mut().par_iter_mut().zip(&lines).with_min_len(1 << 14).for_each(|(pixel, &line)| {
        if line > 0 {
            *pixel = mix(*pixel, LINE_COLOR, f32::from(line) / 255.0 * LINE_OPACITY);
        }
    });
    Ok(out)
}

/// Returns the brightness of an sRGB colour.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 54 + u32::from(green) * 183 + u32::from(blue) * 19) >> 8) as u8
}

/// Returns how much of each pixel, out of 255, is covered by lines between regions. The lines are `thickness`
/// pixels wide and run along the edges between pixels of different labels.
fn boundaries(labels: &[i32], width: usize, height: usize, thickness: f32) -> Vec<u8> {
    let reach = (thickness / 2.0 + 0.5).ceil() as isize;
    // Coverage around the edge between the pixels (0, 0) and (1, 0), by distance from that edge.
    let mut stamp = Vec::new();
    for dy in -reach..=reach {
        for dx in 1 - reach..=reach {
            let across = dx as f32 - 0.5;
            let along = (dy.unsigned_abs() as f32 - 0.5).max(0.0);
            let coverage = (thickness / 2.0 + 0.5 - across.hypot(along)).clamp(0.0, 1.0);
            if coverage > 0.0 {
                stamp.push((dx, dy, (coverage * 255.0) as u8));
            }
        }
    }
    let mut lines = vec![0_u8; labels.len()];
    for (i, &label) in labels.iter().enumerate() {
        let (x, y) = (i % width, i / width);
        let changes_right = x + 1 < width && labels[i + 1] != label;
        let changes_below = y + 1 < height && labels[i + width] != label;
        for upright in [true, false] {
            if if upright { changes_right } else { changes_below } {
                for &(across, along, coverage) in &stamp {
                    let (dx, dy) = if upright { (across, along) } else { (along, across) };
                    if let (Some(x), Some(y)) = (x.checked_add_signed(dx), y.checked_add_signed(dy))
                        && x < width
                        && y < height
                    {
                        let line = &mut lines[y * width + x];
                        *line = coverage.max(*line);
                    }
                }
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_pixels_have_known_colors() {
        let image = Rgb8Image::filled(12, 4, [100, 100, 100]).unwrap();
        let labels: Vec<i32> = (0..48).map(|i| [0, 1, -1][i % 12 / 4]).collect();
        let colors = [[200, 0, 0], [0, 200, 0]];
        let out = overlay(&image, &labels, &colors, 0.5).unwrap();
        let row: Vec<_> = (0..12).map(|x| out.pixels()[12 + x]).collect();
        assert_eq!(row[1], [150, 50, 50]);
        assert_eq!(row[6], [50, 150, 50]);
        // 100 moved by 12 % towards 205.
        assert_eq!(row[10], [113, 113, 113]);
        // A line of one pixel covers half of the pixels on either side, nine tenths opaque.
        assert_eq!(row[3], [197, 142, 142]);
        assert_eq!(row[4], [142, 197, 142]);
        assert_eq!(row[8], row[7].map(|_| row[8][0]));
        assert_eq!(overlay(&image, &labels, &colors, 0.0).unwrap().pixels()[13], [100; 3]);
        assert_eq!(overlay(&image, &labels, &colors, 7.0).unwrap().pixels()[13], [200, 0, 0]);
        assert_eq!(overlay(&image, &labels, &colors, f32::NAN).unwrap().pixels()[13], [100; 3]);
    }

    #[test]
    fn unlabelled_pixels_keep_their_look_but_lose_color() {
        let image = Rgb8Image::filled(3, 3, [200, 40, 40]).unwrap();
        let out = overlay(&image, &[-1; 9], &[], 0.8).unwrap();
        let [red, green, blue] = out.pixels()[4];
        assert!(red > green && green == blue && red - green < 70, "{red} {green} {blue}");
    }

    #[test]
    fn lines_are_as_thick_as_asked() {
        let labels: Vec<i32> = (0..20 * 9).map(|i| i32::from(i % 20 >= 10)).collect();
        for (thickness, expected) in [(1.0, 1.0_f32), (2.0, 2.0), (4.0, 4.0), (5.0, 5.0)] {
            let lines = boundaries(&labels, 20, 9, thickness);
            let row = &lines[4 * 20..5 * 20];
            let sum = row.iter().map(|&c| f32::from(c) / 255.0).sum::<f32>();
            assert!((sum - expected).abs() < 0.02, "{thickness}: {sum}");
            assert_eq!((row[9], row[0], row[19]), (row[10], 0, 0));
        }
        assert!(boundaries(&[7; 12], 4, 3, 2.0).iter().all(|&c| c == 0));
    }

    #[test]
    fn labels_must_fit() {
        let image = Rgb8Image::filled(2, 2, [0; 3]).unwrap();
        let error = overlay(&image, &[0; 3], &[[0; 3]], 0.5).unwrap_err();
        assert_eq!(error.to_string(), "3 labels for a picture of 2 x 2 pixels; expected 4");
        let error = overlay(&image, &[0, 0, 2, 0], &[[0; 3]; 2], 0.5).unwrap_err();
        assert_eq!(error.to_string(), "pixel 2 has label 2; expected below 2, or negative for none");
        assert_eq!(
            overlay(&Rgb8Image::filled(1, 1, [9; 3]).unwrap(), &[0], &[[9; 3]], 0.5).unwrap().pixels(),
            [[9; 3]]
        );
    }
}
