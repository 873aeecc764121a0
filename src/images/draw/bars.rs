//! Drawing of numbers as bars, a group for each name.

use super::legend::{BACKGROUND, BOLDNESS, SHARE_COLOR, TEXT_COLOR};
use super::text::{CAP_HEIGHT, Face};
use crate::images::{ImageError, Rgb8Image};

/// Colour of the line from which bars start.
const LINE: [u8; 3] = [200, 200, 206];

// Lengths in pixels.
const TITLE_SIZE: f32 = 22.0;
const TEXT_SIZE: f32 = 16.0;
const NUMBER_SIZE: f32 = 13.0;
const MARGIN: usize = 24;
const GAP: usize = 10;
const BAR: usize = 13;
/// Distance between groups.
const BETWEEN: usize = 14;
/// Room for the number behind a bar.
const NUMBER: usize = 48;

/// Numbers of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// The name, written to the left.
    pub name: String,
    /// A number for every series, none where it is not known.
    pub values: Vec<Option<f64>>,
}

/// Draws `rows` as bars from left to right, those of a name below each other. `series` are the names and colours of the
/// series. A bar of length `full` reaches the right edge; longer ones end there. Numbers are written with one decimal.
///
/// # Errors
/// [`ImageError::Size`] if the result would have too many pixels.
pub fn bars(
    title: &str,
    series: &[(&str, [u8; 3])],
    rows: &[Bars],
    full: f64,
    width: usize,
) -> Result<Rgb8Image, ImageError> {
    let heading = Face { size: TITLE_SIZE, boldness: 0.03 };
    let face = Face { size: TEXT_SIZE, boldness: BOLDNESS };
    let number = Face { size: NUMBER_SIZE, boldness: BOLDNESS };
    let group = series.len().max(1) * BAR;
    let top = MARGIN + TITLE_SIZE as usize + GAP;
    let height = top + rows.len() * (group + BETWEEN) + MARGIN;
    let mut image = Rgb8Image::filled(width, height, BACKGROUND)?;

    let baseline = MARGIN as i32 + (CAP_HEIGHT * TITLE_SIZE) as i32;
    let mut right = width as f32 - MARGIN as f32;
    for (name, color) in series.iter().rev() {
        right -= face.width(name);
        face.ink(name, 0).paint(&mut image, (right as i32, baseline), TEXT_COLOR, 1.0);
        right -= (BAR + GAP) as f32;
        fill(&mut image, [right.max(0.0) as usize, (baseline as usize).saturating_sub(BAR)], [BAR, BAR], *color);
        right -= (2 * GAP) as f32;
    }
    let title = heading.shortened(title, right - MARGIN as f32);
    heading.ink(&title, 0).paint(&mut image, (MARGIN as i32, baseline), TEXT_COLOR, 1.0);

    let most = (width / 2) as f32;
    let names: Vec<String> = rows.iter().map(|row| face.shortened(&row.name, most)).collect();
    let widest = names.iter().map(|name| face.width(name).ceil() as usize).max().unwrap_or(0);
    let left = MARGIN + widest + GAP;
    let room = width.saturating_sub(left + NUMBER + MARGIN) as f64;
    let half_cap = |face: Face| (CAP_HEIGHT * face.size / 2.0).round() as i32;
    for (i, (row, name)) in rows.iter().zip(&names).enumerate() {
        let y = top + i * (group + BETWEEN) + BETWEEN / 2;
        let x = (left - GAP) as f32 - face.width(name);
        let middle = (y + group / 2) as i32 + half_cap(face);
        face.ink(name, 0).paint(&mut image, (x.round() as i32, middle), TEXT_COLOR, 1.0);
        for (place, ((_, color), value)) in series.iter().zip(&row.values).enumerate() {
            let y = y + place * BAR;
            let value = value.filter(|value| value.is_finite());
            let share = value.map_or(0.0, |value| (value / full).clamp(0.0, 1.0));
            let length = (room * if share.is_nan() { 0.0 } else { share }).round() as usize;
            fill(&mut image, [left, y + 1], [length, BAR - 2], *color);
            let text = value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
            let at = ((left + length + GAP / 2) as i32, (y + BAR / 2) as i32 + half_cap(number));
            number.ink(&text, 0).paint(&mut image, at, SHARE_COLOR, 1.0);
        }
    }
    if !rows.is_empty() {
        fill(&mut image, [left - 1, top], [1, rows.len() * (group + BETWEEN)], LINE);
    }
    Ok(image)
}

/// Fills a rectangle, as far as it is inside the picture.
fn fill(image: &mut Rgb8Image, [left, top]: [usize; 2], [wide, high]: [usize; 2], color: [u8; 3]) {
    let width = image.width();
    let [from, to] = [left, left + wide].map(|x| x.min(width));
    for row in image.pixels_mut().chunks_exact_mut(width).skip(top).take(high) {
        row[from..to].fill(color);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_numbers() {
        let series = [("here", [10, 20, 200]), ("there", [200, 90, 10])];
        let row = |name: &str, values: [Option<f64>; 2]| Bars { name: name.to_owned(), values: values.to_vec() };
        let rows = [row("one", [Some(25.0), Some(50.0)]), row("two", [Some(f64::NAN), None])];
        let image = bars("Numbers", &series, &rows, 50.0, 600).unwrap();
        assert_eq!((image.width(), image.height()), (600, 24 + 22 + 10 + 2 * (26 + 14) + 24));
        // Below the legend.
        let below = &image.pixels()[600 * 56..];
        let count = |color: [u8; 3]| below.iter().filter(|pixel| **pixel == color).count();
        let [here, there] = series.map(|(_, color)| count(color) / (BAR - 2));
        assert!(there > 300 && here == there.div_ceil(2), "{here} {there}");
        assert!(bars("", &[], &[], 0.0, 10).is_ok() && bars("", &series, &rows, 0.0, 3).is_ok());
    }
}
