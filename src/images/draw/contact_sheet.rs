//! Many pictures on one sheet.

use super::legend::{
    BACKGROUND, BOLDNESS, GAP, LegendEntry, MARGIN, Panel, ROW, SHARE_COLOR, TEXT_COLOR, paste, sheet_text_size,
};
use super::text::{CAP_HEIGHT, Face};
use crate::images::{ImageError, Rgb8Image};

/// Size and boldness of titles, in units of the text size.
const TITLE_SIZE: f32 = 1.25;
const TITLE_BOLDNESS: f32 = 0.035;
/// A column is at least this wide if its title needs it, in units of the text size.
const MIN_COLUMN: f32 = 8.0;
/// Height that a legend may have, in units of that of the pictures.
const LEGEND_HEIGHT: f32 = 0.6;

/// Where everything goes, in pixels.
struct Layout {
    /// Text size.
    size: f32,
    /// Left edge and width of every column.
    columns: Vec<[usize; 2]>,
    /// Upper edge and height of every row of pictures.
    rows: Vec<[usize; 2]>,
    /// Upper edge of the titles, legend and caption, and the lower edge of the sheet.
    titles: usize,
    legend: usize,
    caption: usize,
    bottom: usize,
    /// Width of the sheet.
    width: usize,
}

/// Lays out `rows` of pictures below one another: over each column its title, below them one legend for all, and
/// last a line of text.
///
/// A column is as wide as its widest picture, a row as high as its highest; smaller ones are in the middle. Rows may
/// be of different lengths; empty ones, titles, legend and caption take no room. What is written grows with the sheet,
/// and is shortened where it is too long. The legend keeps the order of `legend`; lines for which there is no room
/// become one that sums them up.
///
/// # Errors
/// [`ImageError::Size`] without any picture, or if the result would have too many pixels.
pub fn contact_sheet(
    rows: &[Vec<Rgb8Image>],
    titles: &[&str],
    legend: &[LegendEntry],
    caption: &str,
) -> Result<Rgb8Image, ImageError> {
    let rows: Vec<&[Rgb8Image]> = rows.iter().map(Vec::as_slice).filter(|row| !row.is_empty()).collect();
    let (layout, panel) = lay_out(&rows, titles, legend, caption)?;
    let Layout { size, .. } = layout;
    let mut out = Rgb8Image::filled(layout.width, layout.bottom, BACKGROUND)?;
    for (row, [top, height]) in rows.iter().zip(&layout.rows) {
        for (image, [left, width]) in row.iter().zip(&layout.columns) {
            paste(&mut out, image, [left + (width - image.width()) / 2, top + (height - image.height()) / 2]);
        }
    }
    let baseline = |top: usize, row: f32, size: f32| (top as f32 + (row + CAP_HEIGHT) * size / 2.0).round() as i32;
    let face = Face { size: TITLE_SIZE * size, boldness: TITLE_BOLDNESS };
    for (title, [left, width]) in titles.iter().zip(&layout.columns) {
        let title = face.shortened(title, *width as f32 - GAP * size);
        let at = (*left as i32, baseline(layout.titles, ROW, face.size));
        face.ink(&title, 0).paint(&mut out, at, TEXT_COLOR, 1.0);
    }
    if let Some(panel) = panel {
        panel.paint(&mut out, [0, layout.legend]);
    }
    let face = Face { size, boldness: BOLDNESS };
    let margin = layout.columns[0][0];
    let caption = face.shortened(caption, (layout.width - 2 * margin) as f32);
    let at = (margin as i32, baseline(layout.caption, ROW, size));
    face.ink(&caption, 0).paint(&mut out, at, SHARE_COLOR, 1.0);
    Ok(out)
}

/// `rows` have no empty ones.
fn lay_out(
    rows: &[&[Rgb8Image]],
    titles: &[&str],
    legend: &[LegendEntry],
    caption: &str,
) -> Result<(Layout, Option<Panel>), ImageError> {
    let num_pictures: usize = rows.iter().map(|row| row.len()).sum();
    if num_pictures == 0 {
        return Err(ImageError::Size { width: 0, height: 0 });
    }
    let area = rows.iter().copied().flatten().map(|image| (image.width() * image.height()) as f32).sum();
    let size = sheet_text_size(area);
    let px = |units: f32| (units * size).round() as usize;
    let (margin, gap) = (px(MARGIN), px(GAP));

    let face = Face { size: TITLE_SIZE * size, boldness: TITLE_BOLDNESS };
    let num_columns = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(titles.len());
    let column_width = |column: usize| {
        let widest = rows.iter().filter_map(|row| row.get(column)).map(Rgb8Image::width).max().unwrap_or(0);
        let title = titles.get(column).map_or(0.0, |title| face.width(title) + GAP * size).min(MIN_COLUMN * size);
        widest.max(title.ceil() as usize)
    };
    let mut right = margin;
    let columns: Vec<[usize; 2]> = (0..num_columns)
        .map(|column| {
            let (left, width) = (right, column_width(column));
            right += width + gap;
            [left, width]
        })
        .collect();
    let titles_height = if titles.iter().all(|title| face.width(title) == 0.0) { 0 } else { px(ROW * TITLE_SIZE) };
    let mut below = margin + titles_height;
    let heights = rows.iter().map(|row| row.iter().map(Rgb8Image::height).max().unwrap_or(0));
    let row_edges: Vec<[usize; 2]> = heights
        .map(|height| {
            let top = below;
            below += height + gap;
            [top, height]
        })
        .collect();
    let bottom = below - gap;

    let inner = right - gap + margin;
    let legend_height = (LEGEND_HEIGHT * (bottom - margin - titles_height) as f32) as usize;
    let panel = (!legend.is_empty()).then(|| Panel::below(legend, size, inner, legend_height));
    let (panel_width, panel_height) = panel.as_ref().map_or((0, margin), |panel| (panel.width(), panel.height()));
    let caption_top = bottom + panel_height;
    let has_caption = Face { size, boldness: BOLDNESS }.width(caption) > 0.0;
    let layout = Layout {
        size,
        columns,
        rows: row_edges,
        titles: margin - margin / 4,
        legend: bottom,
        caption: caption_top,
        bottom: if has_caption { caption_top + px(ROW) + margin } else { caption_top },
        width: inner.max(panel_width),
    };
    Ok((layout, panel))
}

#[cfg(test)]
mod tests {
    use super::super::class_color;
    use super::*;

    const GREY: [u8; 3] = [90, 91, 92];

    fn picture(width: usize, height: usize) -> Rgb8Image {
        Rgb8Image::filled(width, height, GREY).unwrap()
    }

    fn legend(count: usize) -> Vec<LegendEntry> {
        let entry = |i: usize| LegendEntry {
            color: Some(class_color(i)),
            text: format!("label {i}"),
            share: 1.0 / count as f64,
        };
        (0..count).map(entry).collect()
    }

    /// Dark pixels, which only text has, in a rectangle given by its columns and rows.
    fn ink(image: &Rgb8Image, [left, right]: [usize; 2], [top, bottom]: [usize; 2]) -> usize {
        let rows = image.pixels().chunks_exact(image.width()).take(bottom).skip(top);
        rows.flat_map(|row| &row[left..right]).filter(|pixel| pixel[0] < 85).count()
    }

    fn count_color(image: &Rgb8Image, color: [u8; 3]) -> usize {
        image.pixels().iter().filter(|&&pixel| pixel == color).count()
    }

    #[test]
    fn pictures_titles_legend_and_caption_have_their_places() {
        let rows = vec![vec![picture(300, 200), picture(200, 180)], vec![picture(300, 220), picture(260, 200)]];
        let titles = ["colour", "labels"];
        let out = contact_sheet(&rows, &titles, &legend(3), "room.ply, 200,000 points").unwrap();
        let borrowed: Vec<&[Rgb8Image]> = rows.iter().map(Vec::as_slice).collect();
        let (layout, _) = lay_out(&borrowed, &titles, &legend(3), "x").unwrap();
        let size = layout.size as usize;
        assert_eq!(layout.columns, [[size, 300], [size + 300 + (0.55 * layout.size).round() as usize, 260]]);
        assert_eq!((out.width(), out.height()), (layout.columns[1][0] + 260 + size, layout.bottom));
        assert_eq!([layout.rows[0][1], layout.rows[1][1]], [200, 220]);
        assert_eq!(count_color(&out, GREY), 300 * 200 + 200 * 180 + 300 * 220 + 260 * 200);
        // The smaller picture is in the middle of its cell.
        let at = |x: usize, y: usize| out.pixels()[y * out.width() + x];
        let ([left, _], [top, _]) = (layout.columns[1], layout.rows[0]);
        assert_eq!([at(left + 29, top + 100), at(left + 30, top + 100)], [BACKGROUND, GREY]);
        assert_eq!([at(left + 130, top + 9), at(left + 130, top + 10)], [BACKGROUND, GREY]);
        for [left, width] in layout.columns {
            assert!(ink(&out, [left, left + width], [0, layout.rows[0][0]]) > 30, "a title at {left}");
        }
        for i in 0..3 {
            assert!(count_color(&out, class_color(i)) > 40, "swatch {i}");
        }
        assert!(ink(&out, [0, out.width()], [layout.legend, layout.caption]) > 100);
        let grey = |pixel: &&[u8; 3]| pixel[0] < 150;
        assert!(out.pixels()[layout.caption * out.width()..].iter().filter(grey).count() > 100, "the caption");
    }

    #[test]
    fn what_is_not_there_takes_no_room() {
        let rows = [vec![picture(400, 300)], Vec::new()];
        let bare = contact_sheet(&rows, &[], &[], "").unwrap();
        let margin = (bare.width() - 400) / 2;
        assert_eq!((bare.width(), bare.height()), (400 + 2 * margin, 300 + 2 * margin));
        let heights = [
            contact_sheet(&rows, &["title"], &[], "").unwrap().height(),
            contact_sheet(&rows, &[], &legend(1), "").unwrap().height(),
            contact_sheet(&rows, &[], &[], "caption").unwrap().height(),
        ];
        assert!(heights.iter().all(|height| *height > bare.height() + 10), "{heights:?}");
        for blank in [&[""][..], &[" ", "\u{200b}"]] {
            assert_eq!(contact_sheet(&rows, blank, &[], " ").unwrap().height(), bare.height());
        }
        assert!(matches!(contact_sheet(&[], &["a"], &[], "b"), Err(ImageError::Size { width: 0, height: 0 })));
        assert!(contact_sheet(&[Vec::new()], &[], &[], "").is_err());
    }

    #[test]
    fn every_title_is_drawn_within_its_column() {
        let rows = vec![vec![picture(120, 90), picture(120, 90)], vec![picture(120, 90)]];
        let titles = ["a very long title that does not fit over a picture", "椅子 🪑 كرسي", "no picture"];
        let out = contact_sheet(&rows, &titles, &[], "").unwrap();
        let borrowed: Vec<&[Rgb8Image]> = rows.iter().map(Vec::as_slice).collect();
        let (layout, _) = lay_out(&borrowed, &titles, &[], "").unwrap();
        assert_eq!(layout.columns.len(), 3);
        let top = [0, layout.rows[0][0]];
        let mut before = 0;
        for [left, width] in layout.columns {
            assert!(ink(&out, [left, left + width], top) > 15, "a title at {left}");
            assert_eq!(ink(&out, [before, left], top), 0, "between columns");
            before = left + width;
        }
    }

    #[test]
    fn a_long_legend_is_cut_and_summed_up() {
        let rows = vec![vec![picture(640, 480); 3]; 2];
        let some = contact_sheet(&rows, &[], &legend(12), "").unwrap();
        let shown = (0..12).filter(|&i| count_color(&some, class_color(i)) > 100).count();
        assert_eq!(shown, 12);
        let many = contact_sheet(&rows, &[], &legend(200), "").unwrap();
        assert!(many.width() == some.width() && many.height() < 480 * 2 * 2, "{}", many.height());
        let shown = (0..60).filter(|&i| count_color(&many, class_color(i)) > 100).count();
        assert_eq!(shown, 60);
    }

    #[test]
    fn any_size_can_be_drawn() {
        let wild = "椅子 🪑 \u{202e}\0".repeat(300);
        for rows in [vec![vec![picture(1, 1)]], vec![vec![picture(3000, 1), picture(1, 700)]]] {
            let mut entries = legend(2);
            entries[0].text.clone_from(&wild);
            entries[1] = LegendEntry { color: None, text: String::new(), share: f64::NAN };
            let out = contact_sheet(&rows, &[&wild], &entries, &wild).unwrap();
            assert!(out.width() < 3500 && out.height() < 1000, "{} x {}", out.width(), out.height());
        }
    }
}
