//! The two 8-bit resamplings that a recorded frame passes before the network.

use rayon::prelude::*;

use super::{ImageError, Rgb8Image, area};
use crate::ops::bicubic_antialias::cpu::{Windows, windows};

/// Fraction bits of the bicubic weights. The sample's 8 bits and 2 bits of headroom fill an i32. The headroom
/// is needed because weights may be negative and their sums exceed one.
const BICUBIC_BITS: u32 = 32 - 8 - 2;

/// Fraction bits of the bilinear weights.
const BILINEAR_BITS: u32 = 11;

/// Number of bytes that a column pass sums in registers.
const BLOCK: usize = 32;

/// Resamples by bicubic convolution with antialiasing, bit for bit as `Image.resize((w, h))` of Pillow 10 to
/// 12 does with RGB. Weights have 22 fraction bits. Rows are resampled first, then columns, with 8 bits in
/// between. (Pillow 13 starts with the columns at some sizes, which rounds differently.)
///
/// # Errors
/// [`ImageError::Size`] if `width` x `height` has no pixels or too many.
pub fn resize_bicubic(image: &Rgb8Image, width: usize, height: usize) -> Result<Rgb8Image, ImageError> {
    area(width, height)?;
    area(width, image.height)?;
    // Rounded half away from zero.
    let fixed = |weight: f64| (weight * f64::from(1 << BICUBIC_BITS)).round() as i32;
    let arch = pulp::Arch::new();
    let mut pixels = Vec::new();
    if width != image.width {
        let columns = windows(image.width, width, fixed);
        pixels = vec![[0; 3]; width * image.height];
        pixels.par_chunks_exact_mut(width).zip(image.pixels.par_chunks_exact(image.width)).for_each(|(to, row)| {
            arch.dispatch(AlongRow { row, columns: &columns, to });
        });
    }
    if height != image.height {
        let from = if width == image.width { &image.pixels } else { &pixels };
        let rows = windows(image.height, height, fixed);
        let mut resized = vec![[0; 3]; width * height];
        resized.par_chunks_exact_mut(width).enumerate().for_each(|(y, to)| {
            let weights = &rows.weights[y * rows.num_taps..][..rows.num_taps];
            let from = from[rows.first[y] as usize * width..].as_flattened();
            arch.dispatch(AcrossRows { rows: from, weights, to: to.as_flattened_mut() });
        });
        pixels = resized;
    }
    if (width, height) == (image.width, image.height) {
        pixels.clone_from(&image.pixels);
    }
    Ok(Rgb8Image { width, height, pixels })
}

/// Resamples bilinearly between the nearest pixels, without antialiasing, bit for bit as `cv2.resize` of
/// OpenCV 4 and 5 does by default. Weights have 11 fraction bits, intermediate values 15 bits.
///
/// # Errors
/// [`ImageError::Size`] if `width` x `height` has no pixels or too many.
pub fn resize_bilinear(image: &Rgb8Image, width: usize, height: usize) -> Result<Rgb8Image, ImageError> {
    let mut pixels = vec![[0; 3]; area(width, height)?];
    if (width, height) == (image.width, image.height) {
        pixels.copy_from_slice(&image.pixels);
        return Ok(Rgb8Image { width, height, pixels });
    }
    let columns: Vec<Pair> = (0..width).map(|x| Pair::new(x, image.width, width, true)).collect();
    let arch = pulp::Arch::new();
    pixels.par_chunks_exact_mut(width).enumerate().for_each(|(y, to)| {
        let pair = Pair::new(y, image.height, height, false);
        let rows = pair.from.map(|y| &image.pixels[y * image.width..][..image.width]);
        arch.dispatch(Between { rows, weights: pair.weights, columns: &columns, to });
    });
    Ok(Rgb8Image { width, height, pixels })
}

/// Takes the nearest pixels, without blending, as `cv2.resize` of OpenCV with `INTER_NEAREST`: pixel x comes from
/// pixel ⌊x · old / new⌋.
///
/// # Errors
/// [`ImageError::Size`] if `width` x `height` has no pixels or too many.
pub fn resize_nearest(image: &Rgb8Image, width: usize, height: usize) -> Result<Rgb8Image, ImageError> {
    let mut pixels = vec![[0; 3]; area(width, height)?];
    pixels.par_chunks_exact_mut(width).enumerate().for_each(|(y, to)| {
        let row = &image.pixels[y * image.height / height * image.width..][..image.width];
        to.iter_mut().enumerate().for_each(|(x, pixel)| *pixel = row[x * image.width / width]);
    });
    Ok(Rgb8Image { width, height, pixels })
}

/// Prepares a picture as the reference does for its network. The picture is reduced by `scale` with
/// [`resize_bicubic`] (sizes rounded down, at least one pixel), then resized to `width` x `height` with
/// [`resize_bilinear`].
///
/// # Errors
/// [`ImageError::Size`] if a size has no pixels or too many, or if `scale` is not a positive number.
pub fn prepare_reference(image: &Rgb8Image, scale: f64, width: usize, height: usize) -> Result<Rgb8Image, ImageError> {
    let reduced = |size: usize| match scale > 0.0 {
        true => ((size as f64 / scale) as usize).max(1),
        false => 0,
    };
    let half = resize_bicubic(image, reduced(image.width), reduced(image.height))?;
    resize_bilinear(&half, width, height)
}

/// Returns height and width scaled so that the longer edge is `longest`, or `size` itself if `longest` is 0.
#[must_use]
pub fn fitted(size: [usize; 2], longest: usize) -> [usize; 2] {
    if longest == 0 {
        return size;
    }
    let edge = size[0].max(size[1]).max(1);
    size.map(|pixels| ((pixels * longest * 2 + edge) / (2 * edge)).max(1))
}

/// Resamples one row to another width.
struct AlongRow<'a> {
    row: &'a [[u8; 3]],
    columns: &'a Windows<i32>,
    to: &'a mut [[u8; 3]],
}

impl pulp::NullaryFnOnce for AlongRow<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let windows = self.columns.first.iter().zip(self.columns.weights.chunks_exact(self.columns.num_taps));
        for (to, (&first, weights)) in self.to.iter_mut().zip(windows) {
            let mut sums = [1 << (BICUBIC_BITS - 1); 3];
            for (pixel, &weight) in self.row[first as usize..].iter().zip(weights) {
                for channel in 0..3 {
                    sums[channel] += weight * i32::from(pixel[channel]);
                }
            }
            *to = sums.map(to_byte);
        }
    }
}

/// Sums one row from several rows of the input, each as long as `to`, with a weight for each.
struct AcrossRows<'a> {
    rows: &'a [u8],
    weights: &'a [i32],
    to: &'a mut [u8],
}

impl pulp::NullaryFnOnce for AcrossRows<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let mut x = 0;
        while x < self.to.len() {
            x += match self.to.len() - x {
                BLOCK.. => byte_block::<BLOCK>(self.rows, self.weights, x, self.to),
                _ => byte_block::<1>(self.rows, self.weights, x, self.to),
            };
        }
    }
}

/// Computes the bytes `x..x + WIDTH` of the row. Returns WIDTH.
#[inline(always)]
fn byte_block<const WIDTH: usize>(rows: &[u8], weights: &[i32], x: usize, to: &mut [u8]) -> usize {
    let mut sums = [1 << (BICUBIC_BITS - 1); WIDTH];
    for (row, &weight) in rows.chunks_exact(to.len()).zip(weights) {
        let bytes = &row[x..x + WIDTH];
        for lane in 0..WIDTH {
            sums[lane] += weight * i32::from(bytes[lane]);
        }
    }
    to[x..x + WIDTH].copy_from_slice(&sums.map(to_byte));
    WIDTH
}

#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> BICUBIC_BITS).clamp(0, 255) as u8
}

/// The two samples around a point of an axis, with their weights.
struct Pair {
    from: [usize; 2],
    weights: [i32; 2],
}

impl Pair {
    /// Computes output sample `i` when `num_in` samples are resampled to `num_out`. Beyond the outermost
    /// centres the border is repeated. With `whole` this is one sample of weight one; otherwise it is the
    /// same sample twice, which rounds differently.
    fn new(i: usize, num_in: usize, num_out: usize, whole: bool) -> Self {
        let scale = 1.0 / (num_out as f64 / num_in as f64);
        let position = ((i as f64 + 0.5) * scale - 0.5) as f32;
        let below = position.floor();
        let mut fraction = position - below;
        let last = num_in as isize - 1;
        let below = below as isize;
        if whole && !(0..last).contains(&below) {
            fraction = 0.0;
        }
        let one = (1 << BILINEAR_BITS) as f32;
        let fixed = |weight: f32| (weight * one).round_ties_even() as i32;
        Self {
            from: [below, below + 1].map(|sample| sample.clamp(0, last) as usize),
            weights: [fixed(1.0 - fraction), fixed(fraction)],
        }
    }
}

/// Interpolates one row between two, at another width.
struct Between<'a> {
    rows: [&'a [[u8; 3]]; 2],
    weights: [i32; 2],
    columns: &'a [Pair],
    to: &'a mut [[u8; 3]],
}

impl pulp::NullaryFnOnce for Between<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (to, Pair { from, weights }) in self.to.iter_mut().zip(self.columns) {
            for channel in 0..3 {
                let [above, below] = self.rows.map(|row| {
                    let [left, right] = from.map(|x| i32::from(row[x][channel]));
                    left * weights[0] + right * weights[1]
                });
                // The four lowest bits are dropped first, so that the product fits into 32 bits. The last two
                // round.
                let sum = ((self.weights[0] * (above >> 4)) >> 16) + ((self.weights[1] * (below >> 4)) >> 16);
                to[channel] = ((sum + 2) >> 2) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes 5 x 4 pixels in an irregular pattern.
    fn picture() -> Rgb8Image {
        let channel = |x: usize, y: usize, c: usize| ((37 * x + 101 * y + 53 * c * c + 11 * x * y) % 256) as u8;
        let pixels = (0..20).map(|i| [0, 1, 2].map(|c| channel(i % 5, i / 5, c))).collect();
        Rgb8Image::new(5, 4, pixels).unwrap()
    }

    #[test]
    fn bicubic_is_that_of_pillow() {
        // Values from Pillow 11.0.0.
        let image = picture();
        let smaller =
            [[71, 128, 162], [130, 154, 112], [138, 138, 153], [104, 158, 99], [108, 153, 119], [101, 141, 125]];
        assert_eq!(resize_bicubic(&image, 3, 2).unwrap().pixels(), smaller);
        let mixed = [
            [[24, 78, 189], [113, 173, 63]],
            [[91, 141, 140], [140, 137, 143]],
            [[149, 195, 100], [161, 115, 201]],
            [[93, 145, 145], [131, 170, 100]],
            [[93, 147, 110], [94, 153, 105]],
            [[110, 163, 66], [69, 122, 137]],
        ];
        assert_eq!(resize_bicubic(&image, 2, 6).unwrap().pixels(), mixed.as_flattened());
        let larger = resize_bicubic(&image, 7, 5).unwrap();
        assert_eq!(larger.pixels()[..4], [[0, 47, 217], [13, 66, 254], [43, 96, 201], [69, 122, 25]]);
        assert_eq!(larger.pixels()[31..], [[192, 245, 148], [40, 93, 219], [13, 66, 137], [70, 123, 11]]);
        // Overshoot is clipped.
        let edge = Rgb8Image::new(2, 1, vec![[0; 3], [255; 3]]).unwrap();
        let stretched = resize_bicubic(&edge, 6, 1).unwrap();
        assert_eq!(stretched.pixels(), [[0; 3], [0; 3], [76; 3], [179; 3], [255; 3], [255; 3]]);
    }

    #[test]
    fn bilinear_is_that_of_opencv() {
        // Values from OpenCV 4.10.0.
        let image = picture();
        let smaller =
            [[65, 118, 149], [136, 189, 92], [121, 131, 162], [103, 156, 102], [126, 179, 82], [105, 158, 104]];
        assert_eq!(resize_bilinear(&image, 3, 2).unwrap().pixels(), smaller);
        let mixed = [
            [[28, 81, 240], [120, 173, 76]],
            [[82, 135, 166], [157, 114, 145]],
            [[123, 176, 111], [184, 77, 193]],
            [[68, 121, 184], [147, 168, 113]],
            [[77, 130, 129], [78, 131, 130]],
            [[99, 152, 55], [18, 71, 166]],
        ];
        assert_eq!(resize_bilinear(&image, 2, 6).unwrap().pixels(), mixed.as_flattened());
        let larger = resize_bilinear(&image, 7, 5).unwrap();
        assert_eq!(larger.pixels()[..4], [[0, 53, 212], [21, 74, 233], [48, 100, 186], [74, 127, 30]]);
        assert_eq!(larger.pixels()[31..], [[187, 240, 143], [54, 107, 193], [31, 84, 133], [71, 124, 27]]);
    }

    #[test]
    fn a_frame_goes_through_both() {
        // Values from Pillow 11.0.0 and OpenCV 4.10.0: to 2 x 2, then to 3 x 2.
        let expected =
            [[90, 139, 144], [115, 142, 139], [140, 144, 134], [105, 157, 105], [105, 151, 115], [105, 145, 124]];
        assert_eq!(prepare_reference(&picture(), 2.0, 3, 2).unwrap().pixels(), expected);
        // At its own size and scale a frame stays as it is.
        assert_eq!(prepare_reference(&picture(), 1.0, 5, 4).unwrap(), picture());
        assert_eq!(prepare_reference(&picture(), 100.0, 1, 1).unwrap().pixels().len(), 1);
    }

    #[test]
    fn one_color_stays_that_color() {
        let image = Rgb8Image::filled(13, 7, [0, 255, 93]).unwrap();
        for (width, height) in [(1, 1), (13, 7), (13, 3), (40, 7), (64, 99)] {
            let expected = Rgb8Image::filled(width, height, [0, 255, 93]).unwrap();
            assert_eq!(resize_bicubic(&image, width, height).unwrap(), expected);
            assert_eq!(resize_bilinear(&image, width, height).unwrap(), expected);
        }
    }

    #[test]
    fn sizes_without_pixels_are_refused() {
        let image = Rgb8Image::filled(3, 3, [1; 3]).unwrap();
        assert!(matches!(resize_bicubic(&image, 0, 3), Err(ImageError::Size { width: 0, height: 3 })));
        assert!(matches!(resize_bilinear(&image, 3, 0), Err(ImageError::Size { .. })));
        assert!(matches!(resize_bilinear(&image, 1 << 20, 1 << 20), Err(ImageError::Size { .. })));
        for scale in [0.0, -2.0, f64::NAN] {
            assert!(matches!(prepare_reference(&image, scale, 3, 3), Err(ImageError::Size { .. })));
        }
    }

    #[test]
    fn a_picture_is_fitted_by_its_longer_edge() {
        assert_eq!(fitted([968, 1296], 648), [484, 648]);
        assert_eq!(fitted([4000, 3000], 648), [648, 486]);
        assert_eq!(fitted([1, 4000], 648), [1, 648]);
        assert_eq!(fitted([481, 640], 0), [481, 640]);
    }
}
