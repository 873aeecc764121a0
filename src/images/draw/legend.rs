//! Legends: the list of labels beside or below a picture.

use super::text::{CAP_HEIGHT, Face};
use super::{UNLABELLED_COLOR, mix};
use crate::images::{ImageError, Rgb8Image};

pub(super) const BACKGROUND: [u8; 3] = [255; 3];
pub(super) const TEXT_COLOR: [u8; 3] = [38, 38, 42];
/// Colour of less important text.
pub(super) const SHARE_COLOR: [u8; 3] = [104, 104, 110];

/// Text size in units of the square root of the picture's area, and its minimum in pixels.
const SIZE: f32 = 0.027;
const SMALLEST: f32 = 11.0;
/// Text of sheets larger than a square with this side grows more slowly than the sheet. Large sheets are
/// viewed from farther away, but not in proportion to their size.
const SHEET_SIDE: f32 = 560.0;

/// Largest number of columns beside the picture.
const MAX_COLUMNS_BESIDE: usize = 2;

/// Number of rows that a legend may have beside even a small picture.
const MIN_ROWS: usize = 12;

/// Ratio of width to height above which the legend is below the picture.
const WIDE: f32 = 1.6;

// Lengths in units of the text size.
pub(super) const BOLDNESS: f32 = 0.018;
pub(super) const ROW: f32 = 1.65;
pub(super) const MARGIN: f32 = 1.0;
const SWATCH: f32 = 1.0;
pub(super) const GAP: f32 = 0.55;
const COLUMN_GAP: f32 = 1.8;
const MAX_LABEL: f32 = 13.0;

/// One line of a legend: a label and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct LegendEntry {
    /// Colour of the swatch; `None` for pixels without a label.
    pub color: Option<[u8; 3]>,
    /// Text of the line. It is shortened if it is too long.
    pub text: String,
    /// Share of the whole, 0 to 1.
    pub share: f64,
}

/// Returns the text size on a sheet with `area` pixels of pictures.
pub(super) fn sheet_text_size(area: f32) -> f32 {
    let side = area.sqrt();
    (SIZE * (side * side.min(SHEET_SIDE)).sqrt()).max(SMALLEST).round()
}

/// Formats a share in percent with its significant digits.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent <= 0.0 => "0%".into(),
        percent if percent < 0.1 => "<0.1%".into(),
        // Larger values round to 100.
        percent if percent < 99.95 => format!("{percent:.1}%"),
        _ => "100%".into(),
    }
}

/// Adds a panel to `image` that lists `entries` in their order: to the right, or below a wide picture.
///
/// Lines that do not fit are replaced by one line that counts them.
pub(super) fn attach(image: &Rgb8Image, entries: &[LegendEntry]) -> Result<Rgb8Image, ImageError> {
    if entries.is_empty() {
        return Ok(image.clone());
    }
    let (width, height) = (image.width(), image.height());
    let size = (SIZE * ((width * height) as f32).sqrt()).max(SMALLEST).round();
    let below = width as f32 > WIDE * height as f32;
    let panel = if below { Panel::below(entries, size, width, height) } else { Panel::beside(entries, size, height) };
    let (left, top, canvas) = match below {
        true => (0, height, [width.max(panel.width()), height + panel.height()]),
        false => (width, 0, [width + panel.width(), height.max(panel.height())]),
    };
    let mut out = Rgb8Image::filled(canvas[0], canvas[1], BACKGROUND)?;
    paste(&mut out, image, [0, 0]);
    panel.paint(&mut out, [left, top]);
    Ok(out)
}

/// Copies `image` into the larger `canvas`, with its upper left corner at pixel (x, y).
pub(super) fn paste(canvas: &mut Rgb8Image, image: &Rgb8Image, [x, y]: [usize; 2]) {
    let (width, stride) = (image.width(), canvas.width());
    let rows = canvas.pixels_mut().chunks_exact_mut(stride).skip(y);
    rows.zip(image.pixels().chunks_exact(width)).for_each(|(to, from)| to[x..x + width].copy_from_slice(from));
}

/// Lines of a legend in columns, with a margin around them.
pub(super) struct Panel {
    face: Face,
    lines: Vec<LegendEntry>,
    columns: usize,
    rows: usize,
    /// Width of a column in pixels.
    column: usize,
}

impl Panel {
    /// Lays out one or two columns, at most `height` pixels high, but with at least [`MIN_ROWS`] rows. Text
    /// is `size` pixels high.
    fn beside(entries: &[LegendEntry], size: f32, height: usize) -> Self {
        Self::new(entries, size, |_, rows| (entries.len().div_ceil(rows).min(MAX_COLUMNS_BESIDE), rows), height)
    }

    /// Lays out as many columns as fit into `width` pixels, or as [`beside`](Self::beside) if none fits.
    pub(super) fn below(entries: &[LegendEntry], size: f32, width: usize, height: usize) -> Self {
        let px = |units: f32| (units * size).round() as usize;
        let usable = (width + px(COLUMN_GAP)).saturating_sub(2 * px(MARGIN));
        let columns = |column: usize| (usable / (column + px(COLUMN_GAP))).clamp(1, entries.len().max(1));
        Self::new(entries, size, |column, rows| (columns(column), rows), height)
    }

    /// Lays out the lines. `shape` gives the number of columns and rows, from the width of a column and the
    /// most rows.
    fn new(entries: &[LegendEntry], size: f32, shape: impl Fn(usize, usize) -> (usize, usize), height: usize) -> Self {
        let face = Face { size, boldness: BOLDNESS };
        let px = |units: f32| (units * size).round() as usize;
        let shortened =
            |entry: &LegendEntry| LegendEntry { text: face.shortened(&entry.text, MAX_LABEL * size), ..entry.clone() };
        let mut lines: Vec<LegendEntry> = entries.iter().map(shortened).collect();
        let widest = |lines: &mut dyn Iterator<Item = f32>| lines.fold(0.0, f32::max).ceil() as usize;
        let more_width = face.width(&more(entries.len()));
        let label_width = widest(&mut lines.iter().map(|line| face.width(&line.text)).chain([more_width]));
        // Room for any two digits, because the last line may sum up more than any single line has.
        let shares = entries.iter().map(|entry| entry.share).chain([0.888]);
        let share_width = widest(&mut shares.map(|share| face.width(&percent(share))));
        let column = px(SWATCH) + px(GAP) + label_width + px(GAP) + share_width;

        let most_rows = (height.saturating_sub(2 * px(MARGIN)) / px(ROW)).max(MIN_ROWS);
        let (columns, rows) = shape(column, most_rows);
        let rows = entries.len().div_ceil(columns.max(1)).min(rows);
        let room = columns * rows;
        if lines.len() > room {
            let share = lines[room - 1..].iter().map(|line| line.share).sum();
            let text = more(lines.len() + 1 - room);
            lines.truncate(room - 1);
            lines.push(LegendEntry { color: Some(BACKGROUND), text, share });
        }
        Self { face, lines, columns, rows, column }
    }

    fn px(&self, units: f32) -> usize {
        (units * self.face.size).round() as usize
    }

    pub(super) fn width(&self) -> usize {
        2 * self.px(MARGIN) + self.columns * self.column + self.columns.saturating_sub(1) * self.px(COLUMN_GAP)
    }

    pub(super) fn height(&self) -> usize {
        2 * self.px(MARGIN) + self.rows * self.px(ROW)
    }

    /// Draws the lines onto `image`, with the upper left corner of the panel at pixel (x, y).
    pub(super) fn paint(&self, image: &mut Rgb8Image, [left, top]: [usize; 2]) {
        let (face, size) = (self.face, self.face.size);
        for (i, LegendEntry { color, text, share }) in self.lines.iter().enumerate() {
            let x = left + self.px(MARGIN) + i / self.rows * (self.column + self.px(COLUMN_GAP));
            let y = top + self.px(MARGIN) + i % self.rows * self.px(ROW);
            let middle = y as f32 + ROW * size / 2.0;
            swatch(image, x, (middle - SWATCH * size / 2.0).round() as usize, self.px(SWATCH), *color);
            let baseline = (middle + CAP_HEIGHT * size / 2.0).round() as i32;
            let label = (x + self.px(SWATCH) + self.px(GAP)) as i32;
            face.ink(text, 0).paint(image, (label, baseline), TEXT_COLOR, 1.0);
            let share = percent(*share);
            let right = (x + self.column) as f32 - face.width(&share);
            face.ink(&share, 0).paint(image, (right.round() as i32, baseline), SHARE_COLOR, 1.0);
        }
    }
}

fn more(count: usize) -> String {
    format!("{count} more")
}

/// Draws a square of `side` pixels with round corners. It is hollow for pixels without a label.
fn swatch(image: &mut Rgb8Image, left: usize, top: usize, side: usize, color: Option<[u8; 3]>) {
    let radius = 0.22 * side as f32;
    let stroke = (0.09 * side as f32).max(1.0);
    let half = side as f32 / 2.0;
    for y in 0..side {
        for x in 0..side {
            // Signed distance of the pixel's centre from the outline, negative inside.
            let [dx, dy] = [x, y].map(|at| ((at as f32 + 0.5 - half).abs() - (half - radius)).max(0.0));
            let flat = [x, y].map(|at| (at as f32 + 0.5 - half).abs() - half);
            let distance = if dx > 0.0 && dy > 0.0 { dx.hypot(dy) - radius } else { flat[0].max(flat[1]) };
            let mut coverage = (0.5 - distance).clamp(0.0, 1.0);
            if color.is_none() {
                coverage -= (0.5 - distance - stroke).clamp(0.0, 1.0);
            }
            let (x, y) = (left + x, top + y);
            if x < image.width() && y < image.height() {
                let pixel = y * image.width() + x;
                let pixel = &mut image.pixels_mut()[pixel];
                *pixel = mix(*pixel, color.unwrap_or(UNLABELLED_COLOR), coverage);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: usize) -> Vec<LegendEntry> {
        let entry = |i: usize| LegendEntry {
            color: Some([200, i as u8, 0]),
            text: format!("label {i}"),
            share: 1.0 / count as f64,
        };
        (0..count).map(entry).collect()
    }

    fn count_color(image: &Rgb8Image, color: [u8; 3]) -> usize {
        image.pixels().iter().filter(|&&pixel| pixel == color).count()
    }

    #[test]
    fn shares_have_the_digits_that_matter() {
        let text = [0.0, 0.0004, 0.0449, 0.5, 0.9994, 0.9996, 1.0].map(percent);
        assert_eq!(text, ["0%", "<0.1%", "4.5%", "50.0%", "99.9%", "100%", "100%"]);
    }

    #[test]
    fn the_panel_is_beside_or_below() {
        let image = Rgb8Image::filled(640, 480, [1, 2, 3]).unwrap();
        let out = attach(&image, &entries(3)).unwrap();
        assert!(out.width() > 740 && out.height() == 480, "{} x {}", out.width(), out.height());
        assert_eq!(count_color(&out, [1, 2, 3]), 640 * 480);
        let wide = Rgb8Image::filled(1000, 500, [1, 2, 3]).unwrap();
        let out = attach(&wide, &entries(3)).unwrap();
        assert!(out.width() == 1000 && out.height() > 520, "{} x {}", out.width(), out.height());
        assert_eq!(out.pixels()[..1000], [[1, 2, 3]; 1000]);
        for i in 0..3 {
            assert!(count_color(&out, [200, i, 0]) > 100, "swatch {i}");
        }
        assert_eq!(attach(&image, &[]).unwrap(), image);
    }

    #[test]
    fn the_last_line_sums_up_the_rest() {
        let panel = Panel::below(&entries(200), 11.0, 300, 100);
        let LegendEntry { text, share, .. } = panel.lines.last().unwrap();
        assert_eq!((panel.lines.len(), panel.rows), (panel.columns * 12, 12));
        assert_eq!(*text, more(201 - panel.lines.len()));
        assert!((share - (201 - panel.lines.len()) as f64 / 200.0).abs() < 1e-9);
        assert!((panel.lines.iter().map(|line| line.share).sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(panel.width() <= 300);
        // All lines are listed if they fit.
        assert_eq!(Panel::below(&entries(200), 11.0, 2000, 1000).lines, entries(200));
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let image = Rgb8Image::filled(64, 48, [1, 2, 3]).unwrap();
        let out = attach(&image, &entries(200)).unwrap();
        // Two columns of twelve rows; the last row sums up the rest.
        let shown = (0..200).filter(|&i| count_color(&out, [200, i, 0]) > 20).count();
        assert_eq!(shown, 23);
        assert!(out.width() < 500 && out.height() < 260, "{} x {}", out.width(), out.height());
    }

    #[test]
    fn any_label_and_any_size_can_be_drawn() {
        for (width, height) in [(1, 1), (3000, 1), (1, 700), (90, 30)] {
            let image = Rgb8Image::filled(width, height, [1, 2, 3]).unwrap();
            let mut entries = entries(2);
            entries[0].text = "椅子 🪑 \u{202e}\0".repeat(500);
            entries[1] = LegendEntry { color: None, text: String::new(), share: f64::NAN };
            let out = attach(&image, &entries).unwrap();
            assert!(out.width() > width || out.height() > height);
        }
    }

    #[test]
    fn swatches_are_round_and_hollow_without_a_label() {
        let mut image = Rgb8Image::filled(20, 20, [255; 3]).unwrap();
        swatch(&mut image, 0, 0, 20, Some([10, 20, 30]));
        assert_eq!((image.pixels()[0], image.pixels()[10 * 20 + 10]), ([255; 3], [10, 20, 30]));
        assert_eq!(image.pixels()[10 * 20], [10, 20, 30]);
        let mut image = Rgb8Image::filled(20, 20, [255; 3]).unwrap();
        swatch(&mut image, 0, 0, 20, None);
        assert_eq!((image.pixels()[10 * 20], image.pixels()[10 * 20 + 10]), (UNLABELLED_COLOR, [255; 3]));
    }
}
