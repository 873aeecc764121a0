//! Drawing of a matrix of shares with names along its edges.

use super::legend::{BACKGROUND, BOLDNESS, SHARE_COLOR, TEXT_COLOR};
use super::mix;
use super::text::{CAP_HEIGHT, Face};
use crate::images::{ImageError, Rgb8Image, check_count};

/// Colour of share 1. Share 0 is [`BACKGROUND`].
const FULL: [u8; 3] = [8, 60, 125];
/// Colour of rows without shares, and of the lines between cells.
const EMPTY: [u8; 3] = [240, 240, 243];
const LINE: [u8; 3] = [226, 226, 232];
/// Colour of the frames around cells whose row and column have the same name.
const FRAME: [u8; 3] = [120, 120, 128];
/// Share of the way to [`FULL`] above which the text in a cell is light.
const DARK: f32 = 0.6;

// Lengths in pixels.
const TITLE_SIZE: f32 = 22.0;
const MARGIN: usize = 24;
const GAP: usize = 10;
const MAX_NAME: f32 = 190.0;

/// Size of cells and of the text beside them.
struct Size {
    cell: usize,
    text: f32,
    /// Size of the numbers in the cells, if they fit.
    number: Option<f32>,
}

impl Size {
    /// Returns the size for a number of columns.
    fn of(num_columns: usize) -> Self {
        match num_columns {
            0..=32 => Self { cell: 40, text: 16.0, number: Some(14.0) },
            33..=90 => Self { cell: 20, text: 13.0, number: None },
            _ => Self { cell: 12, text: 10.0, number: None },
        }
    }
}

/// Draws `shares [R][C]`, row-major and each 0 to 1. Larger shares are darker, and are written in percent
/// where there is room. `None` in `shares` means that the row has nothing to share out. Cells of row i and
/// column i are framed.
///
/// `title` is written above. `axes` are the names of the rows' and the columns' axis.
///
/// # Errors
/// [`ImageError::Count`] unless there is a share for each row and column, [`ImageError::Size`] if the result
/// would have too many pixels.
pub fn matrix<S: AsRef<str>>(
    rows: &[S],
    columns: &[S],
    shares: &[Option<f64>],
    title: &str,
    axes: [&str; 2],
) -> Result<Rgb8Image, ImageError> {
    check_count("shares", shares.len(), rows.len() * columns.len(), columns.len(), rows.len())?;
    let Size { cell, text, number } = Size::of(columns.len());
    let face = Face { size: text, boldness: BOLDNESS };
    let heading = Face { size: TITLE_SIZE, boldness: 0.03 };
    let short = |names: &[S]| names.iter().map(|name| face.shortened(name.as_ref(), MAX_NAME)).collect::<Vec<_>>();
    let (rows, columns) = (short(rows), short(columns));
    let widest = |names: &[String]| names.iter().map(|name| face.width(name).ceil() as usize).max().unwrap_or(0);
    let line = text as usize + GAP;

    let left = MARGIN + line + widest(&rows) + GAP;
    let top = MARGIN + TITLE_SIZE as usize + GAP + line + widest(&columns) + GAP;
    let wide = (left + columns.len() * cell).max(MARGIN + heading.width(title).min(4096.0).ceil() as usize) + MARGIN;
    let mut image = Rgb8Image::filled(wide, top + rows.len() * cell + MARGIN, BACKGROUND)?;

    let title = heading.shortened(title, (wide - 2 * MARGIN) as f32);
    let at = (MARGIN as i32, MARGIN as i32 + (CAP_HEIGHT * TITLE_SIZE) as i32);
    heading.ink(&title, 0).paint(&mut image, at, TEXT_COLOR, 1.0);
    let baseline = (MARGIN + TITLE_SIZE as usize + GAP) as i32 + text as i32;
    face.ink(axes[1], 0).paint(&mut image, (left as i32, baseline), SHARE_COLOR, 1.0);
    let half_cap = (CAP_HEIGHT * text / 2.0).round() as i32;
    for (row, name) in rows.iter().enumerate() {
        let x = (left - GAP) as f32 - face.width(name);
        let y = (top + row * cell + cell / 2) as i32 + half_cap;
        face.ink(name, 0).paint(&mut image, (x.round() as i32, y), TEXT_COLOR, 1.0);
    }
    for (column, name) in columns.iter().enumerate() {
        let x = (left + column * cell + cell / 2) as i32 + half_cap;
        upwards(&mut image, face, name, [x, (top - GAP) as i32], TEXT_COLOR)?;
    }
    let x = MARGIN as i32 + (CAP_HEIGHT * text).round() as i32;
    upwards(&mut image, face, axes[0], [x, (top + face.width(axes[0]).ceil() as usize) as i32], SHARE_COLOR)?;

    for (i, share) in shares.iter().enumerate() {
        let (row, column) = (i / columns.len(), i % columns.len());
        let corner = [left + column * cell, top + row * cell];
        let share = share.map(|share| if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) });
        // The square root makes a tenth visible and keeps a half distinct from the whole.
        let depth = share.map(|share| share.sqrt() as f32);
        let color = depth.map_or(EMPTY, |depth| mix(BACKGROUND, FULL, depth));
        fill(&mut image, corner, cell, if row == column { FRAME } else { LINE });
        fill(&mut image, [corner[0] + 1, corner[1] + 1], cell - if row == column { 2 } else { 1 }, color);
        if let (Some(share), Some(depth), Some(size)) = (share, depth, number) {
            let face = Face { size, boldness: BOLDNESS };
            let percent = (100.0 * share).round();
            let written = if percent > 0.0 { format!("{percent}") } else { String::new() };
            let x = corner[0] as f32 + (cell as f32 - face.width(&written)) / 2.0;
            let y = (corner[1] + cell / 2) as i32 + (CAP_HEIGHT * size / 2.0).round() as i32;
            let ink = face.ink(&written, 0);
            let (ink, color) = if depth > DARK { (ink.lightened(), BACKGROUND) } else { (ink, TEXT_COLOR) };
            ink.paint(&mut image, (x.round() as i32, y), color, 1.0);
        }
    }
    Ok(image)
}

/// Writes `text` rotated a quarter turn to the left. Its baseline runs upwards from pixel `at`.
fn upwards(image: &mut Rgb8Image, face: Face, text: &str, at: [i32; 2], color: [u8; 3]) -> Result<(), ImageError> {
    let (length, height) = (face.width(text).ceil() as usize + 2, (1.6 * face.size).ceil() as usize);
    let baseline = (1.1 * face.size).round() as i32;
    let mut written = Rgb8Image::filled(length, height, BACKGROUND)?;
    face.ink(text, 0).paint(&mut written, (0, baseline), color, 1.0);
    let (width, image_height) = (image.width(), image.height());
    for (i, &pixel) in written.pixels().iter().enumerate() {
        let (x, y) = ((i % length) as i32, (i / length) as i32);
        let (x, y) = (usize::try_from(at[0] + y - baseline), usize::try_from(at[1] - x));
        if let (Ok(x), Ok(y)) = (x, y)
            && pixel != BACKGROUND
            && x < width
            && y < image_height
        {
            image.pixels_mut()[y * width + x] = pixel;
        }
    }
    Ok(())
}

fn fill(image: &mut Rgb8Image, [left, top]: [usize; 2], side: usize, color: [u8; 3]) {
    let width = image.width();
    for row in image.pixels_mut().chunks_exact_mut(width).skip(top).take(side) {
        row[left..left + side].fill(color);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_as_dark_as_their_share() {
        let names = ["wall", "a chair", "lamp"];
        let shares = [Some(1.0), Some(0.0), Some(0.0), Some(0.25), Some(0.25), Some(0.5), None, None, None];
        let image = matrix(&names, &names, &shares, "Shares", ["truth", "prediction"]).unwrap();
        // Cells end at the margins. A corner of each has no text.
        let (left, top) = (image.width() - MARGIN - 3 * 40, image.height() - MARGIN - 3 * 40);
        let at =
            |row: usize, column: usize| image.pixels()[(top + row * 40 + 3) * image.width() + left + column * 40 + 3];
        assert_eq!([at(0, 0), at(0, 1), at(2, 1)], [FULL, BACKGROUND, EMPTY]);
        assert_eq!((at(1, 0), at(1, 1)), (mix(BACKGROUND, FULL, 0.5), mix(BACKGROUND, FULL, 0.5)));
        assert!(at(1, 2)[0] < at(1, 1)[0]);
        // Names are beside and above the cells, and numbers in them.
        let dark = |xs: std::ops::Range<usize>, ys: std::ops::Range<usize>| {
            let pixel = |(x, y): (usize, usize)| image.pixels()[y * image.width() + x][0] < 120;
            ys.flat_map(|y| xs.clone().map(move |x| (x, y))).filter(|&at| pixel(at)).count()
        };
        for i in 0..3 {
            assert!(dark(MARGIN..left, top + i * 40..top + (i + 1) * 40) > 20, "row {i}");
            assert!(dark(left + i * 40..left + (i + 1) * 40, top - 60..top) > 20, "column {i}");
        }
        assert_eq!(dark(left + 41..left + 79, top + 1..top + 39), 0, "nothing is written where nothing is");
    }

    #[test]
    fn any_matrix_can_be_drawn() {
        for (rows, columns) in [(0, 0), (1, 2), (40, 41), (200, 201)] {
            let names: Vec<String> = (0..columns).map(|i| format!("椅子 {i} {}", "long ".repeat(i))).collect();
            let shares = vec![Some(f64::NAN); rows * columns];
            let image = matrix(&names[..rows], &names, &shares, &"title ".repeat(90), ["", "x"]).unwrap();
            assert!(image.width() > 12 * columns && image.height() > 12 * rows);
        }
        let error = matrix(&["a"], &["b"], &[], "", ["", ""]).unwrap_err();
        assert!(matches!(error, ImageError::Count { what: "shares", found: 0, expected: 1, .. }));
    }
}
