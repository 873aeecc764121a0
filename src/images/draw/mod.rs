//! Drawing of pictures with results: labels of pixels, heat maps, and contact sheets of many pictures.
//!
//! Labels are one i32 per pixel in row-major order: the index of a name, or negative for no label.

mod bars;
mod captions;
mod chart;
mod contact_sheet;
mod heat;
mod legend;
mod matrix;
mod overlay;
mod palette;
mod text;

pub use bars::{Bars, bars};
pub use chart::{Axis, Chart, Curve, Panel, Scale};
pub use contact_sheet::contact_sheet;
pub use heat::{heat_bar, heat_color};
pub use legend::LegendEntry;
pub use matrix::matrix;
pub use overlay::{overlay, tint};
pub use palette::{class_color, palette};

use super::{ImageError, Rgb8Image, check_count};

/// Size of captions, in units of the square root of the picture's area, and its minimum in pixels.
const CAPTION_SIZE: f32 = 0.034;
const SMALLEST_CAPTION: f32 = 10.0;

/// Colour of pixels without a label.
pub const UNLABELLED_COLOR: [u8; 3] = [160, 160, 164];
const UNLABELLED_TEXT: &str = "unlabelled";

/// Style of a labelled picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Style {
    /// Strength of the tint over the photo, 0 to 1.
    pub opacity: f32,
    /// If true, names are written into regions where they fit.
    pub captions: bool,
    /// If true, a list of names with their shares is attached: beside the picture, or below a wide one.
    pub legend: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { opacity: 0.5, captions: true, legend: true }
    }
}

/// Draws `image` with each pixel tinted by its label, with lines between regions, names in the regions and a
/// legend.
///
/// The colour of name i is [`class_color`] of i. The legend lists the names that occur, largest share first,
/// and the pixels without a label last. With a legend the result is larger than `image`.
///
/// # Errors
/// [`ImageError::Count`] unless there is one label per pixel, [`ImageError::UnknownLabel`] for a label without
/// a name, [`ImageError::Size`] if the result would have too many pixels.
pub fn labelled_picture<S: AsRef<str>>(
    image: &Rgb8Image,
    labels: &[i32],
    names: &[S],
    style: &Style,
) -> Result<Rgb8Image, ImageError> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let mut out = overlay(image, labels, &palette(names.len()), style.opacity)?;
    let (width, height) = (image.width(), image.height());
    if style.captions {
        let size = (CAPTION_SIZE * ((width * height) as f32).sqrt()).max(SMALLEST_CAPTION);
        let captions = captions::place(labels, width, height, &names, size);
        captions::paint(&mut out, &captions);
    }
    if style.legend {
        out = legend::attach(&out, &entries(labels, &names))?;
    }
    Ok(out)
}

/// Returns the lines of the legend.
fn entries(labels: &[i32], names: &[&str]) -> Vec<LegendEntry> {
    let mut counts = vec![0_usize; names.len()];
    for &label in labels {
        if let Some(count) = usize::try_from(label).ok().and_then(|label| counts.get_mut(label)) {
            *count += 1;
        }
    }
    let share = |count: usize| count as f64 / labels.len() as f64;
    let unlabelled = labels.len() - counts.iter().sum::<usize>();
    let mut order: Vec<usize> = (0..names.len()).filter(|&label| counts[label] > 0).collect();
    order.sort_by_key(|&label| (std::cmp::Reverse(counts[label]), label));
    let named = order.into_iter().map(|label| LegendEntry {
        color: Some(class_color(label)),
        text: names[label].to_owned(),
        share: share(counts[label]),
    });
    let rest = LegendEntry { color: None, text: UNLABELLED_TEXT.to_owned(), share: share(unlabelled) };
    named.chain((unlabelled > 0).then_some(rest)).collect()
}

/// Checks that every pixel has a label, and that each label is negative or below `count`.
fn check_labels(image: &Rgb8Image, labels: &[i32], count: usize) -> Result<(), ImageError> {
    check_count("labels", labels.len(), image.pixels().len(), image.width(), image.height())?;
    let unknown = |&label: &i32| usize::try_from(label).is_ok_and(|label| label >= count);
    match labels.iter().position(unknown) {
        Some(pixel) => Err(ImageError::UnknownLabel { pixel, label: labels[pixel], count }),
        None => Ok(()),
    }
}

/// Mixes two colours: moves `from` by `share`, 0 to 1, towards `to`.
fn mix(from: [u8; 3], to: [u8; 3], share: f32) -> [u8; 3] {
    std::array::from_fn(|c| {
        let (from, to) = (f32::from(from[c]), f32::from(to[c]));
        (from + (to - from) * share + 0.5) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legend_lists_what_occurs_by_share() {
        let labels = [2, 2, 2, 0, 0, -1, -7, 3, 2, 2];
        let lines: Vec<_> = entries(&labels, &["chair", "table", "lamp", "cup"])
            .into_iter()
            .map(|entry| (entry.text, entry.share, entry.color))
            .collect();
        assert_eq!(
            lines,
            [
                ("lamp".into(), 0.5, Some(class_color(2))),
                ("chair".into(), 0.2, Some(class_color(0))),
                ("cup".into(), 0.1, Some(class_color(3))),
                ("unlabelled".to_owned(), 0.2, None),
            ]
        );
    }

    #[test]
    fn a_picture_has_tints_captions_and_a_legend() {
        let image = Rgb8Image::filled(200, 160, [90; 3]).unwrap();
        let labels: Vec<i32> = (0..200 * 160).map(|i| i32::from(i % 200 >= 100)).collect();
        let names = ["chair", "lamp"];
        let plain = Style { captions: false, legend: false, ..Style::default() };
        let tinted = labelled_picture(&image, &labels, &names, &plain).unwrap();
        assert_eq!(tinted, overlay(&image, &labels, &palette(2), 0.5).unwrap());

        let captioned = labelled_picture(&image, &labels, &names, &Style { captions: true, ..plain.clone() }).unwrap();
        let bright = |image: &Rgb8Image, columns: std::ops::Range<usize>| {
            let pixels = image.pixels().iter().enumerate().filter(|(i, _)| columns.contains(&(i % image.width())));
            pixels.filter(|(_, pixel)| pixel.iter().all(|&value| value > 190)).count()
        };
        assert_eq!(bright(&tinted, 20..80) + bright(&tinted, 120..180), 0);
        assert!(bright(&captioned, 20..80) > 10 && bright(&captioned, 120..180) > 10);

        let whole = labelled_picture(&image, &labels, &names, &Style::default()).unwrap();
        assert!(whole.width() > 260 && whole.height() >= 160);
        for y in 0..160 {
            assert_eq!(whole.pixels()[y * whole.width()..][..200], captioned.pixels()[y * 200..][..200]);
        }
        for color in palette(2) {
            assert!(whole.pixels().contains(&color), "swatch {color:?}");
        }
    }

    #[test]
    fn the_smallest_picture_can_be_drawn() {
        let image = Rgb8Image::filled(1, 1, [0; 3]).unwrap();
        for labels in [[0], [-1]] {
            let out = labelled_picture(&image, &labels, &["chair"], &Style::default()).unwrap();
            assert!(out.width() > 1);
        }
        let out = labelled_picture(&image, &[-1], &[] as &[&str], &Style::default()).unwrap();
        assert!(out.width() > 1);
    }

    #[test]
    fn labels_must_fit() {
        let image = Rgb8Image::filled(2, 2, [0; 3]).unwrap();
        let style = Style::default();
        let error = labelled_picture(&image, &[0; 5], &["chair"], &style).unwrap_err();
        assert!(matches!(error, ImageError::Count { what: "labels", found: 5, expected: 4, .. }));
        let error = labelled_picture(&image, &[0, -1, 0, 1], &["chair"], &style).unwrap_err();
        assert!(matches!(error, ImageError::UnknownLabel { pixel: 3, label: 1, count: 1 }));
    }
}
