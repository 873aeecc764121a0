//! Lines of text: layout and antialiased glyphs.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, GlyphId, OutlinedGlyph, PxScale, PxScaleFont, ScaleFont, point};

use super::mix;
use crate::images::Rgb8Image;

/// Height of a capital letter, in units of the text size.
pub(super) const CAP_HEIGHT: f32 = 0.69;

/// The character that stands for the rest of a text that is too long.
const ELLIPSIS: char = '…';

/// Advance of the box that stands for a missing glyph, in units of the text size.
const BOX_ADVANCE: f32 = 0.6;

const UBUNTU_LIGHT: &[u8] = include_bytes!("fonts/Ubuntu-Light.ttf");
const HACK_REGULAR: &[u8] = include_bytes!("fonts/Hack-Regular.ttf");

/// Fonts in the order in which a glyph is looked for. Both have Latin, Greek and Cyrillic letters.
fn fonts() -> &'static [FontRef<'static>; 2] {
    static FONTS: OnceLock<[FontRef<'static>; 2]> = OnceLock::new();
    FONTS.get_or_init(|| {
        [UBUNTU_LIGHT, HACK_REGULAR]
            .map(|bytes| FontRef::try_from_slice(bytes).expect("the fonts are part of the program"))
    })
}

/// The file of the font in which text is set.
pub(super) fn regular_font() -> &'static [u8] {
    UBUNTU_LIGHT
}

/// Size and weight of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Face {
    /// Size of the em square in pixels.
    pub(super) size: f32,
    /// Thickening of strokes, in units of the size.
    pub(super) boldness: f32,
}

enum Shape {
    Glyph(&'static FontRef<'static>, GlyphId),
    Missing,
}

fn shape(character: char) -> Shape {
    let found = fonts().iter().map(|font| (font, font.glyph_id(character))).find(|(_, id)| id.0 != 0);
    found.map_or(Shape::Missing, |(font, id)| Shape::Glyph(font, id))
}

impl Face {
    fn scaled(self, font: &'static FontRef<'static>) -> PxScaleFont<&'static FontRef<'static>> {
        // The scale of the library is the height from descender to ascender.
        let em = font.units_per_em().unwrap_or(1000.0);
        font.as_scaled(PxScale::from(self.size * font.height_unscaled() / em))
    }

    fn advance(self, character: char) -> f32 {
        let advance = match shape(character) {
            Shape::Glyph(font, id) => self.scaled(font).h_advance(id),
            Shape::Missing => BOX_ADVANCE * self.size,
        };
        advance + self.boldness * self.size
    }

    /// Length of a line in pixels.
    pub(super) fn width(self, text: &str) -> f32 {
        visible(text).map(|character| self.advance(character)).sum()
    }

    /// `text`, or as much of its beginning as fits `max_width` pixels with an ellipsis behind it.
    pub(super) fn shortened(self, text: &str, max_width: f32) -> String {
        let ellipsis = self.advance(ELLIPSIS);
        let (mut kept, mut whole) = (String::new(), String::new());
        let mut width = 0.0;
        for character in visible(text) {
            width += self.advance(character);
            whole.push(character);
            if width > max_width {
                kept.truncate(kept.trim_end().len());
                kept.push(ELLIPSIS);
                return kept;
            }
            if width + ellipsis <= max_width {
                kept.push(character);
            }
        }
        whole
    }

    /// The ink of a line, for a baseline that starts at x = 0, y = 0, with `margin` empty pixels around it.
    pub(super) fn ink(self, text: &str, margin: usize) -> Ink {
        let mut outlines: Vec<(Option<OutlinedGlyph>, f32)> = Vec::new();
        let mut x = 0.0;
        for character in visible(text) {
            match shape(character) {
                Shape::Glyph(font, id) => {
                    let font = self.scaled(font);
                    // The shape and its copies to the right make thicker strokes.
                    for shift in [0.0, 0.5, 1.0].map(|share| share * self.boldness * self.size) {
                        let glyph = id.with_scale_and_position(font.scale(), point(x + shift, 0.0));
                        outlines.extend(font.outline_glyph(glyph).map(|outline| (Some(outline), 0.0)));
                    }
                }
                Shape::Missing => outlines.push((None, x)),
            }
            x += self.advance(character);
        }
        let below = (0.3 * self.size).ceil() as i32;
        let above = (1.1 * self.size).ceil() as i32;
        let margin_px = margin as i32 + 1;
        let left = -margin_px - (0.2 * self.size).ceil() as i32;
        let right = x.ceil() as i32 - left;
        let mut ink = Ink {
            left,
            top: -above - margin_px,
            width: (right - left) as usize,
            coverage: vec![0.0; ((right - left) * (above + below + 2 * margin_px)) as usize],
        };
        for (outline, x) in outlines {
            match outline {
                Some(outline) => {
                    let corner = outline.px_bounds().min;
                    let (left, top) = (corner.x as i32, corner.y as i32);
                    outline.draw(|x, y, coverage| ink.cover(left + x as i32, top + y as i32, coverage));
                }
                None => self.draw_box(&mut ink, x),
            }
        }
        ink
    }

    fn draw_box(self, ink: &mut Ink, x: f32) {
        let stroke = (0.07 * self.size).round().max(1.0) as i32;
        let (left, right) = ((x + 0.08 * self.size) as i32, (x + (BOX_ADVANCE - 0.08) * self.size) as i32);
        let (top, bottom) = (-(CAP_HEIGHT * self.size) as i32, 0);
        for y in top..bottom {
            for x in left..right {
                let inner =
                    (left + stroke..right - stroke).contains(&x) && (top + stroke..bottom - stroke).contains(&y);
                if !inner {
                    ink.cover(x, y, 1.0);
                }
            }
        }
    }
}

/// The characters that are drawn. White space becomes a blank; characters without a look of their own are
/// left out.
fn visible(text: &str) -> impl Iterator<Item = char> {
    let is_invisible = |c: char| {
        // Soft hyphens, joiners and marks of direction, variation selectors, byte order marks.
        matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
    };
    text.trim()
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(move |&c| !c.is_control() && !is_invisible(c))
}

/// Coverage of each pixel of a rectangle, 0 to 1.
pub(super) struct Ink {
    /// Column of the first pixel, relative to the start of the baseline.
    left: i32,
    /// Row of the first pixel.
    top: i32,
    width: usize,
    coverage: Vec<f32>,
}

impl Ink {
    fn cover(&mut self, x: i32, y: i32, coverage: f32) {
        let (x, y) = (x - self.left, y - self.top);
        if (0..self.width as i32).contains(&x)
            && y >= 0
            && let Some(pixel) = self.coverage.get_mut(y as usize * self.width + x as usize)
        {
            *pixel = pixel.max(coverage);
        }
    }

    /// The same, lightened for light text on a dark ground: half covered pixels look too dark there.
    pub(super) fn lightened(mut self) -> Self {
        self.coverage.iter_mut().for_each(|coverage| *coverage = coverage.powf(0.55));
        self
    }

    /// The same, spread by `radius` pixels in every direction and fading at the rim.
    pub(super) fn spread(&self, radius: f32) -> Self {
        let reach = radius.ceil() as i32;
        let height = (self.coverage.len() / self.width) as i32;
        let mut spread = Self { coverage: vec![0.0; self.coverage.len()], ..*self };
        let disc: Vec<(i32, i32, f32)> = (-reach..=reach)
            .flat_map(|dy| (-reach..=reach).map(move |dx| (dx, dy)))
            .map(|(dx, dy)| (dx, dy, (radius + 0.5 - ((dx * dx + dy * dy) as f32).sqrt()).clamp(0.0, 1.0)))
            .filter(|&(.., strength)| strength > 0.0)
            .collect();
        for y in 0..height {
            for x in 0..self.width as i32 {
                let ink = self.coverage[y as usize * self.width + x as usize];
                if ink > 0.0 {
                    for &(dx, dy, strength) in &disc {
                        spread.cover(x + dx + self.left, y + dy + self.top, ink * strength);
                    }
                }
            }
        }
        spread
    }

    /// Paints the ink onto `image`, with the start of the baseline at pixel (x, y). Ink outside the image is
    /// cut.
    pub(super) fn paint(&self, image: &mut Rgb8Image, (x, y): (i32, i32), color: [u8; 3], opacity: f32) {
        let (width, height) = (image.width(), image.height());
        for (row, coverage) in self.coverage.chunks_exact(self.width).enumerate() {
            let Some(y) = usize::try_from(y + self.top + row as i32).ok().filter(|&y| y < height) else { continue };
            for (column, &coverage) in coverage.iter().enumerate() {
                let x = usize::try_from(x + self.left + column as i32).ok().filter(|&x| x < width);
                if let (Some(x), true) = (x, coverage > 0.0) {
                    let pixel = &mut image.pixels_mut()[y * width + x];
                    *pixel = mix(*pixel, color, coverage * opacity);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACE: Face = Face { size: 20.0, boldness: 0.0 };

    /// Sum of the ink, in pixels, and the bounds of what is covered: left, top, right, bottom (exclusive).
    fn measure(ink: &Ink) -> (f32, [i32; 4]) {
        let mut bounds = [i32::MAX, i32::MAX, i32::MIN, i32::MIN];
        for (i, _) in ink.coverage.iter().enumerate().filter(|(_, c)| **c > 0.05) {
            let (x, y) = (ink.left + (i % ink.width) as i32, ink.top + (i / ink.width) as i32);
            bounds = [bounds[0].min(x), bounds[1].min(y), bounds[2].max(x + 1), bounds[3].max(y + 1)];
        }
        (ink.coverage.iter().sum(), bounds)
    }

    #[test]
    fn letters_stand_on_the_baseline() {
        let (area, [left, top, right, bottom]) = measure(&FACE.ink("HE", 0));
        assert!(area > 40.0 && area < 120.0, "{area}");
        assert_eq!((top, bottom), (-14, 0));
        assert!(left >= 1 && right <= FACE.width("HE").ceil() as i32, "{left} {right}");
        let (_, [.., bottom]) = measure(&FACE.ink("g", 0));
        assert!(bottom > 2, "a descender, {bottom}");
    }

    #[test]
    fn bold_has_more_ink() {
        let bold = Face { boldness: 0.05, ..FACE };
        assert!(measure(&bold.ink("chair", 0)).0 > 1.3 * measure(&FACE.ink("chair", 0)).0);
        assert!(bold.width("chair") > FACE.width("chair"));
    }

    #[test]
    fn every_text_has_a_shape() {
        for text in ["Stühle", "καρέκλα", "стул", "x₂ → ½", "\u{301}a"] {
            let missing = visible(text).filter(|&c| matches!(shape(c), Shape::Missing)).count();
            assert_eq!(missing, 0, "{text}");
        }
        for text in ["椅子", "🪑", "\u{10ffff}", "كرسي"] {
            assert!(measure(&FACE.ink(text, 0)).0 > 30.0, "{text} is drawn as boxes");
        }
        for text in ["", " \t\n", "\0\u{7}", "\u{200b}\u{feff}"] {
            assert_eq!(FACE.width(text), 0.0);
            assert_eq!(measure(&FACE.ink(text, 3)).0, 0.0);
        }
    }

    #[test]
    fn long_texts_are_shortened() {
        let width = FACE.width("a wooden chair");
        assert_eq!(FACE.shortened("a wooden chair", width + 0.1), "a wooden chair");
        let short = FACE.shortened("a wooden chair", width - 5.0);
        assert!(short.starts_with("a wooden") && short.ends_with('…') && short.len() < 17, "{short}");
        assert!(FACE.width(&short) <= width - 5.0);
        assert_eq!(FACE.shortened("chair\nleg", 1000.0), "chair leg");
        assert_eq!(FACE.shortened("chair", 1.0), "…");
        assert!(FACE.width(&FACE.shortened(&"long ".repeat(100_000), 200.0)) <= 200.0);
    }

    #[test]
    fn spreading_grows_the_ink_evenly() {
        let ink = FACE.ink("I", 4);
        let (_, [left, top, right, bottom]) = measure(&ink);
        let (_, spread) = measure(&ink.spread(3.0));
        assert_eq!(spread, [left - 3, top - 3, right + 3, bottom + 3]);
    }

    #[test]
    fn ink_outside_the_picture_is_cut() {
        let mut image = Rgb8Image::filled(4, 4, [9; 3]).unwrap();
        for corner in [(-40, -40), (100, 2), (2, 100), (0, 3), (-3, 6)] {
            FACE.ink("Stuhl", 2).paint(&mut image, corner, [255; 3], 1.0);
        }
        assert!(image.pixels().iter().any(|pixel| pixel[0] > 9));
    }
}
