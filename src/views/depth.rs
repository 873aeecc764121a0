//! Depth maps, their readers, and readers of picture sizes.

use std::io::Cursor;
use std::path::Path;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder, Limits};

use super::ViewsError;
use super::camera::{Distortion, Intrinsics};
use super::number_maps::NumberFormat;
pub(super) use super::number_maps::{DepthScale, check_budget, num_pixels};
use crate::files::MappedFile;
use crate::images::{MAX_PIXELS, Rgb8Image, declared_size};

/// Largest number of bytes that a PNG decoder may use for data besides the picture.
const MAX_SIDE_DATA: u64 = 1 << 26;

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A depth map: the distance of each pixel along the viewing axis (z in camera axes, not along the ray).
/// Never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthImage {
    width: usize,
    height: usize,
    meters: Vec<f32>,
}

impl DepthImage {
    /// Creates a depth map from its values in row-major order, in metres. Values that are not finite or not
    /// positive become 0, which means no depth.
    ///
    /// # Errors
    /// [`ViewsError::Argument`] if there are no pixels or too many, or if `meters` has another length.
    pub fn new(width: usize, height: usize, mut meters: Vec<f32>) -> Result<Self, ViewsError> {
        if num_pixels(width as u64, height as u64) != Some(meters.len()) {
            let found = format!("{} for {width} x {height} pixels", meters.len());
            return Err(ViewsError::Argument { what: "the number of depths", found, expected: "one for each pixel" });
        }
        for depth in &mut meters {
            if !(depth.is_finite() && *depth > 0.0) {
                *depth = 0.0;
            }
        }
        Ok(Self { width, height, meters })
    }

    /// Returns the width in pixels, at least 1.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the height in pixels, at least 1.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Returns the depths in metres in row-major order; 0 means no depth.
    #[must_use]
    pub fn meters(&self) -> &[f32] {
        &self.meters
    }

    /// Returns the depth in metres in column `x` of row `y`; `None` without depth and outside the picture.
    #[must_use]
    pub fn at(&self, x: usize, y: usize) -> Option<f32> {
        if x >= self.width {
            return None;
        }
        let depth = *self.meters.get(y.checked_mul(self.width)? + x)?;
        (depth > 0.0).then_some(depth)
    }

    /// Returns the share of pixels that have a depth, 0 to 1.
    #[must_use]
    pub fn coverage(&self) -> f64 {
        self.meters.iter().filter(|&&depth| depth > 0.0).count() as f64 / self.meters.len() as f64
    }

    /// Removes the depth of every pixel for which `keep` returns false.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        for (i, depth) in self.meters.iter_mut().enumerate() {
            if !keep(i) {
                *depth = 0.0;
            }
        }
    }

    /// Removes the lens distortion. Each pixel takes the nearest depth, because depths must not be mixed.
    pub(super) fn undistorted(&self, camera: &Intrinsics, lens: &Distortion) -> Self {
        let mut meters = vec![0.0; self.meters.len()];
        for (i, depth) in meters.iter_mut().enumerate() {
            if let Some((u, v)) = distorted_pixel(i % self.width, i / self.width, camera, lens)
                && u > -0.5
                && v > -0.5
            {
                *depth = self.at(u.round() as usize, v.round() as usize).unwrap_or(0.0);
            }
        }
        Self { meters, ..*self }
    }
}

/// Removes the lens distortion. Pixels outside the lens's picture become black.
pub(super) fn undistorted_color(image: &Rgb8Image, camera: &Intrinsics, lens: &Distortion) -> Rgb8Image {
    let (width, height) = (image.width(), image.height());
    let source = image.pixels();
    let mut result = image.clone();
    for (i, pixel) in result.pixels_mut().iter_mut().enumerate() {
        *pixel = [0; 3];
        let Some((u, v)) = distorted_pixel(i % width, i / width, camera, lens) else { continue };
        if !(u > -0.5 && v > -0.5 && u < width as f64 - 0.5 && v < height as f64 - 0.5) {
            continue;
        }
        let (u, v) = (u.clamp(0.0, (width - 1) as f64), v.clamp(0.0, (height - 1) as f64));
        let (x, y) = (u as usize, v as usize);
        let (right, below) = ((x + 1).min(width - 1), (y + 1).min(height - 1));
        let (s, t) = (u - x as f64, v - y as f64);
        let corners = [
            source[y * width + x],
            source[y * width + right],
            source[below * width + x],
            source[below * width + right],
        ];
        for (channel, value) in pixel.iter_mut().enumerate() {
            let [a, b, c, d] = corners.map(|corner| f64::from(corner[channel]));
            *value = ((a * (1.0 - s) + b * s) * (1.0 - t) + (c * (1.0 - s) + d * s) * t).round() as u8;
        }
    }
    result
}

/// Returns the position behind the lens of column `x` and row `y` of an ideal camera.
fn distorted_pixel(x: usize, y: usize, camera: &Intrinsics, lens: &Distortion) -> Option<(f64, f64)> {
    let ideal = camera.unproject(x as f64, y as f64, 1.0);
    let (x, y) = lens.distort(ideal.x, ideal.y)?;
    Some((camera.fx * x + camera.cx, camera.fy * y + camera.cy))
}

/// Converts depth units to metres.
///
/// 0 and 65535 become 0, no depth: sensors write 0 where they see nothing and 65535 on overflow.
pub(super) fn meters_from_units(units: impl Iterator<Item = u16>, units_per_meter: f64) -> Vec<f32> {
    let meters = |units| match units {
        0 | u16::MAX => 0.0,
        units => (f64::from(units) / units_per_meter) as f32,
    };
    units.map(meters).collect()
}

/// Decodes a depth map from a file of any known format: 16-bit grey PNG or PGM, NumPy, TIFF, OpenEXR. `path`
/// names the file in errors.
pub(super) fn decode_depth(bytes: &[u8], path: &Path, scale: DepthScale) -> Result<DepthImage, ViewsError> {
    let (width, height, meters) = match NumberFormat::of(bytes) {
        Some(format) => format.read(bytes, path, scale)?,
        None => {
            let (width, height, units) = decode_units(bytes, path)?;
            (width, height, meters_from_units(units.into_iter(), scale.units_per_meter))
        }
    };
    DepthImage::new(width, height, meters)
}

/// Decodes a depth map whose bits SUN RGB-D has rotated to the left by three.
pub(super) fn decode_rotated_depth(bytes: &[u8], path: &Path, scale: DepthScale) -> Result<DepthImage, ViewsError> {
    let (width, height, units) = decode_units(bytes, path)?;
    let meters = meters_from_units(units.into_iter().map(|unit| unit.rotate_right(3)), scale.units_per_meter);
    DepthImage::new(width, height, meters)
}

/// Returns true if the depth map looks as if its bits were rotated to the left by three: in millimetres it
/// would be far beyond the reach of a sensor, and nearly every value is a multiple of eight.
pub(super) fn has_rotated_bits(bytes: &[u8], path: &Path) -> bool {
    const BEYOND: u16 = 8000;
    let Ok((_, _, mut units)) = decode_units(bytes, path) else { return false };
    units.retain(|&unit| unit != 0 && unit != u16::MAX);
    if units.is_empty() {
        return false;
    }
    let multiples = units.iter().filter(|&&unit| unit % 8 == 0).count();
    let middle = units.len() / 2;
    let median = *units.select_nth_unstable(middle).1;
    // Depths beyond 8.19 m use the three bits.
    multiples * 20 >= units.len() * 19 && median >= BEYOND
}

/// Decodes the numbers of a 16-bit grey PNG or PGM file.
fn decode_units(bytes: &[u8], path: &Path) -> Result<(usize, usize, Vec<u16>), ViewsError> {
    if let Some(header) = PgmHeader::of(bytes) {
        let needed = num_pixels(header.width, header.height).map(|pixels| pixels * 2);
        let (Some(needed), 256..=65535) = (needed, header.largest) else {
            let found = format!("a PGM picture of {} x {}, values to {}", header.width, header.height, header.largest);
            return Err(ViewsError::unsupported(path, found, "a depth map of 16 bits"));
        };
        let data = bytes.get(header.data..).unwrap_or_default();
        let Some(data) = data.get(..needed) else {
            return Err(ViewsError::truncated(path, header.data, "the depth map", needed as u64, data.len()));
        };
        let units = data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        Ok((header.width as usize, header.height as usize, units))
    } else {
        let (width, height, raw) = decode_grey16(bytes, path)?;
        let units = raw.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
        Ok((width, height, units))
    }
}

/// Decodes a map of one byte per pixel, for example of confidence.
pub(crate) fn decode_grey8(bytes: &[u8], path: &Path) -> Result<(usize, usize, Vec<u8>), ViewsError> {
    decode_png(bytes, path, ColorType::L8, "8-bit grey PNG")
}

fn decode_grey16(bytes: &[u8], path: &Path) -> Result<(usize, usize, Vec<u8>), ViewsError> {
    decode_png(bytes, path, ColorType::L16, "16-bit grey PNG")
}

fn decode_png(
    bytes: &[u8],
    path: &Path,
    color: ColorType,
    expected: &'static str,
) -> Result<(usize, usize, Vec<u8>), ViewsError> {
    if !bytes.starts_with(PNG_SIGNATURE) {
        let start = bytes.get(..8).unwrap_or(bytes).escape_ascii();
        return Err(ViewsError::unsupported(path, format!("a file that begins with \"{start}\""), expected));
    }
    // Checked here because the decoder allocates rows while it reads the header.
    let size = image_size(bytes, path)?;
    check_budget(bytes, size, usize::from(color.bytes_per_pixel()), path)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_SIDE_DATA);
    let rejected = |error: &image::ImageError| match error {
        image::ImageError::IoError(error) => ViewsError::decode(path, "the PNG picture", format!("cut off ({error})")),
        other => ViewsError::decode(path, "the PNG picture", other),
    };
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(|error| rejected(&error))?;
    if decoder.color_type() != color {
        let found = format!("a PNG picture of type {:?}", decoder.original_color_type());
        return Err(ViewsError::unsupported(path, found, expected));
    }
    let mut raw = vec![0; size[0] * size[1] * usize::from(color.bytes_per_pixel())];
    decoder.read_image(&mut raw).map_err(|error| rejected(&error))?;
    Ok((size[0], size[1], raw))
}

/// Returns width and height from the header of a picture or depth map, at least 1 and within the limit of
/// pixels.
pub(super) fn image_size(bytes: &[u8], path: &Path) -> Result<[usize; 2], ViewsError> {
    if let Some(format) = NumberFormat::of(bytes) {
        return format.size(bytes, path);
    }
    let [width, height] = if bytes.starts_with(PNG_SIGNATURE) {
        let [_, _, _, _, b'I', b'H', b'D', b'R', w0, w1, w2, w3, h0, h1, h2, h3, ..] = bytes[PNG_SIGNATURE.len()..]
        else {
            return Err(ViewsError::truncated(path, PNG_SIGNATURE.len(), "the PNG header", 16, bytes.len() - 8));
        };
        [u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3])].map(u64::from)
    } else if let Some(header) = PgmHeader::of(bytes) {
        [header.width, header.height]
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        let rejected = |error| ViewsError::decode(path, "the JPEG header", error);
        let (width, height) = JpegDecoder::new(Cursor::new(bytes)).map_err(rejected)?.dimensions();
        [width, height].map(u64::from)
    } else if bytes.is_empty() {
        return Err(ViewsError::truncated(path, 0, "a picture", 8, 0));
    } else {
        let (width, height) = declared_size(bytes, path)?;
        [width, height].map(u64::from)
    };
    if num_pixels(width, height).is_none() {
        let expected = format!("1 to {MAX_PIXELS} pixels");
        return Err(ViewsError::value(path, "the declared size", format!("{width} x {height}"), expected));
    }
    Ok([width as usize, height as usize])
}

/// Does the same as [`image_size`] for a file.
pub(super) fn file_image_size(path: &Path) -> Result<[usize; 2], ViewsError> {
    let bytes = MappedFile::open(path).map_err(|error| ViewsError::io(path, "open", error))?;
    image_size(&bytes, path)
}

/// Header of a binary grey picture of the Netpbm family (PGM).
struct PgmHeader {
    width: u64,
    height: u64,
    largest: u64,
    /// Byte offset of the pixels.
    data: usize,
}

impl PgmHeader {
    fn of(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(b"P5")?;
        let mut at = 0;
        let mut numbers = [0_u64; 3];
        for number in &mut numbers {
            loop {
                match rest.get(at)? {
                    b'#' => at += rest[at..].iter().position(|&byte| byte == b'\n')?,
                    byte if byte.is_ascii_whitespace() => at += 1,
                    _ => break,
                }
            }
            let digits = rest[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            *number = std::str::from_utf8(&rest[at..at + digits]).ok()?.parse().ok()?;
            at += digits;
        }
        let [width, height, largest] = numbers;
        // A single white-space byte ends the header.
        Some(Self { width, height, largest, data: 2 + at + 1 })
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::png::PngEncoder;
    use image::{ExtendedColorType, ImageEncoder};

    use super::*;

    const MILLIMETRES: DepthScale = DepthScale { units_per_meter: 1000.0, floats_per_meter: 1.0 };

    fn png(units: &[u16], width: u32, height: u32) -> Vec<u8> {
        let raw: Vec<u8> = units.iter().flat_map(|unit| unit.to_ne_bytes()).collect();
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(&raw, width, height, ExtendedColorType::L16).unwrap();
        bytes
    }

    #[test]
    fn png_and_pgm_hold_the_same() {
        let units = [0, 1000, 2500, 65535, 1, 65534];
        let path = Path::new("depth");
        let depth = decode_depth(&png(&units, 3, 2), path, MILLIMETRES).unwrap();
        assert_eq!(depth.meters(), [0.0, 1.0, 2.5, 0.0, 0.001, 65.534]);
        assert_eq!((depth.at(2, 0), depth.at(0, 0), depth.at(3, 0), depth.at(0, 2)), (Some(2.5), None, None, None));
        assert!((depth.coverage() - 4.0 / 6.0).abs() < 1e-12);
        let mut pgm = b"P5 # made by hand\n3 2\n65535\n".to_vec();
        pgm.extend(units.iter().flat_map(|unit| unit.to_be_bytes()));
        assert_eq!(decode_depth(&pgm, path, MILLIMETRES).unwrap(), depth);
        assert_eq!(image_size(&pgm, path).unwrap(), [3, 2]);
    }

    #[test]
    fn damaged_maps_are_errors() {
        let path = Path::new("some/depth.png");
        let whole = png(&(0..600).map(|i| i * 37).collect::<Vec<u16>>(), 30, 20);
        for len in 0..whole.len() - 12 {
            let error = decode_depth(&whole[..len], path, MILLIMETRES).unwrap_err();
            assert!(error.to_string().starts_with("some/depth.png"), "{error}");
        }
        for i in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[i] ^= 0x41;
            let _ = decode_depth(&bytes, path, MILLIMETRES);
        }
        for pgm in [
            "P5 99999999 99999999 65535\n",
            "P5 0 3 65535\n",
            "P5 3 3 255\n123456789",
            "P5 3 3 65535\n12",
            "P5",
            "P5 #",
        ] {
            assert!(decode_depth(pgm.as_bytes(), path, MILLIMETRES).is_err(), "{pgm}");
        }
        let error = decode_grey8(&whole, path).unwrap_err();
        assert!(error.to_string().contains("8-bit"), "{error}");
    }

    #[test]
    fn values_that_are_no_depth_become_none() {
        let depth = DepthImage::new(2, 2, vec![f32::NAN, f32::INFINITY, -1.0, 0.5]).unwrap();
        assert_eq!(depth.meters(), [0.0, 0.0, 0.0, 0.5]);
        assert!(DepthImage::new(2, 2, vec![1.0; 3]).is_err());
        assert!(DepthImage::new(0, 2, vec![]).is_err());
        assert!(DepthImage::new(usize::MAX, 2, vec![]).is_err());
    }

    #[test]
    fn undistorting_moves_pixels_to_where_an_ideal_camera_has_them() {
        let camera = Intrinsics::new(101, 81, 80.0, 80.0, 50.0, 40.0).unwrap();
        let lens = Distortion { k1: -0.2, p1: 0.001, ..Distortion::default() };
        // A smooth picture behind the lens, of the ideal picture value = 100 + x / 2.
        let mut seen = Rgb8Image::filled(101, 81, [0; 3]).unwrap();
        let mut meters = vec![0.0; 101 * 81];
        for y in 0..81 {
            for x in 0..101 {
                let (mut u, mut v) = (x as f64, y as f64);
                for _ in 0..50 {
                    let ideal = camera.unproject(u, v, 1.0);
                    let (dx, dy) = lens.distort(ideal.x, ideal.y).unwrap();
                    u += x as f64 - (camera.fx * dx + camera.cx);
                    v += y as f64 - (camera.fy * dy + camera.cy);
                }
                seen.pixels_mut()[y * 101 + x] = [(100.0 + u / 2.0).round() as u8; 3];
                meters[y * 101 + x] = (2.0 + u / 50.0) as f32;
            }
        }
        let ideal = undistorted_color(&seen, &camera, &lens);
        let depth = DepthImage::new(101, 81, meters).unwrap().undistorted(&camera, &lens);
        for (x, y) in [(50, 40), (10, 10), (95, 5), (0, 80), (70, 60)] {
            let value = f64::from(ideal.pixels()[y * 101 + x][0]);
            assert!((value - (100.0 + x as f64 / 2.0)).abs() <= 1.5, "{x} {y}: {value}");
            assert!((f64::from(depth.at(x, y).unwrap()) - (2.0 + x as f64 / 50.0)).abs() <= 0.02, "{x} {y}");
        }
    }
}
