//! Pictures: reading, resampling as the reference does, and drawing of results.
//!
//! [`read_image`] opens JPEG, PNG, WebP, BMP and PNM files, which may be untrusted. [`resize`] has the two
//! 8-bit resamplings between a recorded frame and the network. [`draw`] draws pictures with labels.

#[cfg(feature = "session")]
pub mod draw;
mod error;
pub mod resize;

use std::io::{self, BufWriter, Cursor};
use std::path::Path;

use image::codecs::bmp::BmpDecoder;
use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::codecs::png::{CompressionType, FilterType, PngDecoder, PngEncoder};
use image::codecs::pnm::PnmDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation as Turn;
use image::{ExtendedColorType, ImageDecoder, ImageEncoder, Limits};

pub use error::ImageError;

use crate::files::{self, Budget, MappedFile};

/// Largest number of pixels of a picture: 768 MiB at three bytes each.
pub const MAX_PIXELS: u64 = 1 << 28;

/// Largest number of bytes that a PNG decoder may use for profiles and texts.
const MAX_SIDE_DATA: u64 = 1 << 26;

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG_SIGNATURE: &[u8] = b"\xff\xd8\xff";
const BMP_SIGNATURE: &[u8] = b"BM";

/// A picture with 8 bits each of red, green and blue per pixel. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8Image {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Rgb8Image {
    /// Creates a picture from its pixels in row-major order.
    ///
    /// # Errors
    /// [`ImageError::Size`] without pixels or above [`MAX_PIXELS`], [`ImageError::Count`] if `pixels` has
    /// another length.
    pub fn new(width: usize, height: usize, pixels: Vec<[u8; 3]>) -> Result<Self, ImageError> {
        let expected = area(width, height)?;
        check_count("pixels", pixels.len(), expected, width, height)?;
        Ok(Self { width, height, pixels })
    }

    /// Creates a picture of one colour.
    ///
    /// # Errors
    /// [`ImageError::Size`] without pixels or above [`MAX_PIXELS`].
    pub fn filled(width: usize, height: usize, color: [u8; 3]) -> Result<Self, ImageError> {
        Ok(Self { width, height, pixels: vec![color; area(width, height)?] })
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

    /// Returns the pixels in row-major order.
    #[must_use]
    pub fn pixels(&self) -> &[[u8; 3]] {
        &self.pixels
    }

    /// Returns the pixels in row-major order, mutable.
    pub fn pixels_mut(&mut self) -> &mut [[u8; 3]] {
        &mut self.pixels
    }

    /// Converts the picture into its pixels in row-major order.
    #[must_use]
    pub fn into_pixels(self) -> Vec<[u8; 3]> {
        self.pixels
    }

    /// Turns and mirrors the picture as an EXIF orientation asks.
    fn turned(self, turn: Turn) -> Self {
        let Self { width, height, mut pixels } = self;
        match turn {
            Turn::NoTransforms => {}
            Turn::Rotate180 => pixels.reverse(),
            Turn::FlipHorizontal => pixels.chunks_exact_mut(width).for_each(<[_]>::reverse),
            Turn::FlipVertical => pixels = pixels.chunks_exact(width).rev().flatten().copied().collect(),
            Turn::Rotate90 | Turn::Rotate270 | Turn::Rotate90FlipH | Turn::Rotate270FlipH => {
                let column = |x: usize| pixels.iter().skip(x).step_by(width).copied();
                let mut turned = Vec::with_capacity(pixels.len());
                for i in 0..width {
                    match turn {
                        Turn::Rotate90 => turned.extend(column(i).rev()),
                        Turn::Rotate270 => turned.extend(column(width - 1 - i)),
                        Turn::Rotate90FlipH => turned.extend(column(i)),
                        _ => turned.extend(column(width - 1 - i).rev()),
                    }
                }
                return Self { width: height, height: width, pixels: turned };
            }
        }
        Self { width, height, pixels }
    }
}

/// How a picture's EXIF orientation is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// The picture is turned as its EXIF orientation asks, as in a viewer. For single photos.
    Upright,
    /// The picture stays as stored. For frames with a depth map or camera intrinsics, which do not follow
    /// EXIF.
    AsStored,
}

/// Reads a JPEG, PNG, WebP, BMP or PNM (PPM, PGM) file, whatever its extension.
///
/// Grey pictures get three equal channels. Of 16-bit samples the upper 8 bits are used. Transparency is
/// dropped, not blended: a pixel keeps the colour it has in the file.
///
/// # Errors
/// [`ImageError`] with the file's path, if it cannot be read, is of another format, declares more than
/// [`MAX_PIXELS`], is cut off, or is damaged.
pub fn read_image(path: &Path, orientation: Orientation) -> Result<Rgb8Image, ImageError> {
    let bytes = MappedFile::open(path).map_err(|source| ImageError::io(path, "open", source))?;
    decode_image(&bytes, path, orientation)
}

/// Reads a picture from the bytes of a file, as [`read_image`] does. `path` names the file in errors; the
/// picture may be a part of it.
///
/// # Errors
/// As [`read_image`].
pub fn decode_image(bytes: &[u8], path: &Path, orientation: Orientation) -> Result<Rgb8Image, ImageError> {
    let reader = Cursor::new(bytes);
    if bytes.starts_with(PNG_SIGNATURE) {
        // Checked here because the decoder allocates rows while it reads the header.
        if let [_, _, _, _, b'I', b'H', b'D', b'R', w0, w1, w2, w3, h0, h1, h2, h3, ..] = bytes[PNG_SIGNATURE.len()..] {
            let (width, height) = (u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3]));
            check_declared(path, "PNG", width, height)?;
        }
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_SIDE_DATA);
        let decoder = PngDecoder::with_limits(reader, limits).map_err(|error| rejected(path, "PNG", &error))?;
        decode(Source { path, format: "PNG", len: bytes.len() }, decoder, orientation)
    } else if bytes.starts_with(JPEG_SIGNATURE) {
        // The decoder would fill in the missing part.
        if !jpeg_is_whole(bytes) {
            let found = "there is no end-of-image marker".into();
            return Err(ImageError::Truncated { path: path.to_path_buf(), format: "JPEG", found });
        }
        let decoder = JpegDecoder::new(reader).map_err(|error| rejected(path, "JPEG", &error))?;
        decode(Source { path, format: "JPEG", len: bytes.len() }, decoder, orientation)
    } else if is_webp(bytes) {
        let mut decoder = WebPDecoder::new(reader).map_err(|error| rejected(path, "WebP", &error))?;
        let (width, height) = decoder.dimensions();
        let mut limits = Limits::no_limits();
        // The decoder has two pictures of four bytes a pixel at most.
        limits.max_alloc = Some(check_declared(path, "WebP", width, height)? as u64 * 8 + MAX_SIDE_DATA);
        decoder.set_limits(limits).map_err(|error| rejected(path, "WebP", &error))?;
        decode(Source { path, format: "WebP", len: bytes.len() }, decoder, orientation)
    } else if bytes.starts_with(BMP_SIGNATURE) {
        let decoder = BmpDecoder::new(reader).map_err(|error| rejected(path, "BMP", &error))?;
        decode(Source { path, format: "BMP", len: bytes.len() }, decoder, orientation)
    } else if is_pnm(bytes) {
        let decoder = PnmDecoder::new(reader).map_err(|error| rejected(path, "PNM", &error))?;
        decode(Source { path, format: "PNM", len: bytes.len() }, decoder, orientation)
    } else {
        Err(ImageError::UnknownFormat { path: path.to_path_buf(), found: describe(bytes) })
    }
}

/// Fails if a file is no picture that [`read_image`] reads, by its first bytes.
///
/// # Errors
/// [`ImageError`] with the file's path, if it cannot be opened or is of another format.
pub fn recognise_image(path: &Path) -> Result<(), ImageError> {
    let bytes = MappedFile::open(path).map_err(|source| ImageError::io(path, "open", source))?;
    let signatures = [PNG_SIGNATURE, JPEG_SIGNATURE, BMP_SIGNATURE];
    if signatures.iter().any(|signature| bytes.starts_with(signature)) || is_webp(&bytes) || is_pnm(&bytes) {
        return Ok(());
    }
    Err(ImageError::UnknownFormat { path: path.to_path_buf(), found: describe(&bytes) })
}

/// Returns the width and height that the header of a WebP, BMP or PNM file declares.
pub(crate) fn declared_size(bytes: &[u8], path: &Path) -> Result<(u32, u32), ImageError> {
    let reader = Cursor::new(bytes);
    let (format, size) = if is_webp(bytes) {
        ("WebP", WebPDecoder::new(reader).map(|decoder| decoder.dimensions()))
    } else if bytes.starts_with(BMP_SIGNATURE) {
        ("BMP", BmpDecoder::new(reader).map(|decoder| decoder.dimensions()))
    } else if is_pnm(bytes) {
        ("PNM", PnmDecoder::new(reader).map(|decoder| decoder.dimensions()))
    } else {
        return Err(ImageError::UnknownFormat { path: path.to_path_buf(), found: describe(bytes) });
    };
    size.map_err(|error| rejected(path, format, &error))
}

fn is_webp(bytes: &[u8]) -> bool {
    matches!(bytes, [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..])
}

/// PBM, PGM and PPM, as text and binary.
fn is_pnm(bytes: &[u8]) -> bool {
    matches!(bytes, [b'P', b'1'..=b'6', white, ..] if white.is_ascii_whitespace() || *white == b'#')
}

/// Writes a PNG file, whole or not at all.
///
/// # Errors
/// [`ImageError::Io`] if the file cannot be written.
pub fn write_png(path: &Path, image: &Rgb8Image) -> Result<(), ImageError> {
    files::write_atomic(path, |out: &mut BufWriter<_>| {
        let encoder = PngEncoder::new_with_quality(out, CompressionType::Fast, FilterType::Adaptive);
        let (width, height) = (image.width as u32, image.height as u32);
        encoder.write_image(image.pixels.as_flattened(), width, height, ExtendedColorType::Rgb8).map_err(|error| {
            match error {
                image::ImageError::IoError(source) => source,
                other => io::Error::other(other),
            }
        })
    })
    .map_err(|source| ImageError::io(path, "write", source))
}

/// Quality of JPEG pictures, 1 to 100.
const JPEG_QUALITY: u8 = 92;

fn is_jpeg(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("jpg") || e.eq_ignore_ascii_case("jpeg"))
}

/// True if the name of a file is that of a picture that [`write_picture`] writes.
#[must_use]
pub fn is_written(path: &Path) -> bool {
    is_jpeg(path) || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"))
}

/// Writes a picture as JPEG if the name of the file ends in `.jpg` or `.jpeg`, else as PNG. The file is
/// written completely or not at all.
///
/// # Errors
/// [`ImageError::Io`] if the file cannot be written.
pub fn write_picture(path: &Path, image: &Rgb8Image) -> Result<(), ImageError> {
    if !is_jpeg(path) {
        return write_png(path, image);
    }
    files::write_atomic(path, |out: &mut BufWriter<_>| {
        let (width, height) = (image.width as u32, image.height as u32);
        let mut encoder = JpegEncoder::new_with_quality(out, JPEG_QUALITY);
        let written = encoder.encode(image.pixels.as_flattened(), width, height, ExtendedColorType::Rgb8);
        written.map_err(|error| match error {
            image::ImageError::IoError(source) => source,
            other => io::Error::other(other),
        })
    })
    .map_err(|source| ImageError::io(path, "write", source))
}

/// Returns the number of pixels of a picture, if it is allowed.
fn area(width: usize, height: usize) -> Result<usize, ImageError> {
    let pixels = width.checked_mul(height).filter(|&pixels| (1..=MAX_PIXELS).contains(&(pixels as u64)));
    pixels.ok_or(ImageError::Size { width, height })
}

fn check_count(
    what: &'static str,
    found: usize,
    expected: usize,
    width: usize,
    height: usize,
) -> Result<(), ImageError> {
    if found == expected {
        return Ok(());
    }
    Err(ImageError::Count { what, found, expected, width, height })
}

/// A picture being decoded: its file, its format, and the length of its data in bytes.
struct Source<'a> {
    path: &'a Path,
    format: &'static str,
    len: usize,
}

fn decode(
    source: Source<'_>,
    mut decoder: impl ImageDecoder,
    orientation: Orientation,
) -> Result<Rgb8Image, ImageError> {
    let Source { path, format, len } = source;
    let (width, height) = decoder.dimensions();
    let num_pixels = check_declared(path, format, width, height)?;
    let decoded = num_pixels as u64 * u64::from(decoder.color_type().bytes_per_pixel());
    Budget::picture(len).charge(decoded).map_err(|source| {
        let path = path.to_path_buf();
        ImageError::OutOfProportion { path, format, width, height, bytes: len, source }
    })?;
    let turn = match orientation {
        Orientation::Upright => decoder.orientation().map_err(|error| rejected(path, format, &error))?,
        Orientation::AsStored => Turn::NoTransforms,
    };
    let channels = usize::from(decoder.color_type().channel_count());
    let bytes_per_pixel = usize::from(decoder.color_type().bytes_per_pixel());
    let mut pixels = vec![[0_u8; 3]; num_pixels];
    if bytes_per_pixel == 3 {
        decoder.read_image(pixels.as_flattened_mut()).map_err(|error| rejected(path, format, &error))?;
    } else {
        let mut raw = vec![0; num_pixels * bytes_per_pixel];
        decoder.read_image(&mut raw).map_err(|error| rejected(path, format, &error))?;
        // 16-bit samples have the byte order of this machine.
        let width = bytes_per_pixel / channels;
        let upper = if cfg!(target_endian = "little") { width - 1 } else { 0 };
        let [red, green, blue] = if channels < 3 { [0; 3] } else { [0, 1, 2] }.map(|c: usize| c * width + upper);
        for (to, from) in pixels.iter_mut().zip(raw.chunks_exact(bytes_per_pixel)) {
            *to = [from[red], from[green], from[blue]];
        }
    }
    Ok(Rgb8Image { width: width as usize, height: height as usize, pixels }.turned(turn))
}

/// Returns the number of pixels of a picture of a declared size, if it is allowed.
fn check_declared(path: &Path, format: &'static str, width: u32, height: u32) -> Result<usize, ImageError> {
    area(width as usize, height as usize).map_err(|_| {
        let path = path.to_path_buf();
        ImageError::DeclaredSize { path, format, width, height, limit: MAX_PIXELS }
    })
}

fn rejected(path: &Path, format: &'static str, error: &image::ImageError) -> ImageError {
    let path = path.to_path_buf();
    match error {
        // The data are in memory, so the only possible I/O error is their end.
        image::ImageError::IoError(error) => ImageError::Truncated { path, format, found: error.to_string() },
        other => ImageError::Decode { path, format, message: other.to_string() },
    }
}

/// Returns true if an end-of-image marker follows the start of the first scan. Inside a scan the marker is
/// unambiguous: a data byte 0xff is always followed by 0.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xff, marker, after @ ..] = rest {
        let is_fill = *marker == 0xff;
        let stands_alone = matches!(marker, 0x01 | 0xd0..=0xd7);
        rest = match (after, *marker) {
            _ if is_fill => &rest[1..],
            _ if stands_alone => after,
            (_, START_OF_SCAN) => return after.windows(2).any(|pair| pair == [0xff, 0xd9]),
            ([high, low, ..], _) => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                after.get(length..).unwrap_or_default()
            }
            _ => return false,
        };
    }
    // The data are not a segment. The decoder reports the error, unless the file is cut off here.
    !matches!(rest, [] | [0xff])
}

/// Describes a file of an unknown format.
fn describe(bytes: &[u8]) -> String {
    let known = match bytes {
        [] => return "the file is empty (0 bytes)".into(),
        [b'G', b'I', b'F', b'8', ..] => "a GIF picture",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "a TIFF picture or a camera's raw file",
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f', ..] => "an AVIF picture",
        [_, _, _, _, b'f', b't', b'y', b'p', b'h' | b'm', ..] => "a HEIC picture or a video",
        [b'%', b'P', b'D', b'F', ..] => "a PDF document",
        [b'p', b'l', b'y', b'\n' | b'\r', ..] => "a PLY point cloud or mesh",
        _ => {
            let start = bytes[..bytes.len().min(8)].escape_ascii();
            return format!("the file begins with \"{start}\"");
        }
    };
    format!("the file is {known}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Rgb8Image {
        let pixels = (0..6).map(|i| [i * 40, 255 - i * 40, i]).collect();
        Rgb8Image::new(3, 2, pixels).unwrap()
    }

    fn on_disk(bytes: &[u8], check: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("picture");
        std::fs::write(&path, bytes).unwrap();
        check(&path);
    }

    fn png(pixels: &[u8], width: u32, height: u32, color: ExtendedColorType) -> Vec<u8> {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(pixels, width, height, color).unwrap();
        bytes
    }

    fn jpeg(image: &Rgb8Image) -> Vec<u8> {
        let mut bytes = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
        let (width, height) = (image.width() as u32, image.height() as u32);
        encoder.write_image(image.pixels().as_flattened(), width, height, ExtendedColorType::Rgb8).unwrap();
        bytes
    }

    /// Returns `jpeg` with an EXIF segment that gives `orientation`.
    fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let tiff = [b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(), &[orientation], &[0; 6]].concat();
        let length = (2 + 6 + tiff.len()) as u16;
        [&jpeg[..2], b"\xff\xe1", &length.to_be_bytes(), b"Exif\0\0", &tiff, &jpeg[2..]].concat()
    }

    fn read(bytes: &[u8]) -> Result<Rgb8Image, ImageError> {
        let mut outcome = None;
        on_disk(bytes, |path| outcome = Some(read_image(path, Orientation::Upright)));
        outcome.unwrap()
    }

    #[test]
    fn a_picture_has_as_many_pixels_as_it_says() {
        assert!(matches!(Rgb8Image::new(0, 5, Vec::new()), Err(ImageError::Size { width: 0, height: 5 })));
        assert!(matches!(Rgb8Image::filled(1 << 20, 1 << 20, [0; 3]), Err(ImageError::Size { .. })));
        assert!(matches!(Rgb8Image::filled(usize::MAX, 2, [0; 3]), Err(ImageError::Size { .. })));
        let error = Rgb8Image::new(2, 2, vec![[0; 3]; 3]).unwrap_err();
        assert_eq!(error.to_string(), "3 pixels for a picture of 2 x 2 pixels; expected 4");
    }

    #[test]
    fn png_reads_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.png");
        write_png(&path, &picture()).unwrap();
        assert_eq!(read_image(&path, Orientation::AsStored).unwrap(), picture());
        let error = write_png(&dir.path().join("none/out.png"), &picture()).unwrap_err();
        assert!(matches!(error, ImageError::Io { action: "write", .. }), "{error}");
    }

    #[test]
    fn png_of_every_kind_becomes_rgb() {
        let one = |bytes: &[u8]| read(bytes).unwrap().pixels()[0];
        assert_eq!(one(&png(&[77], 1, 1, ExtendedColorType::L8)), [77; 3]);
        assert_eq!(one(&png(&[77, 0], 1, 1, ExtendedColorType::La8)), [77; 3]);
        assert_eq!(one(&png(&[1, 2, 3, 0], 1, 1, ExtendedColorType::Rgba8)), [1, 2, 3]);
        let wide = |samples: &[u16]| samples.iter().flat_map(|s| s.to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(one(&png(&wide(&[0x4dff]), 1, 1, ExtendedColorType::L16)), [0x4d; 3]);
        assert_eq!(one(&png(&wide(&[0x01ff, 0x0200, 0xffff]), 1, 1, ExtendedColorType::Rgb16)), [1, 2, 255]);
        assert_eq!(one(&png(&wide(&[0x0100, 0x0200, 0x0300, 9]), 1, 1, ExtendedColorType::Rgba16)), [1, 2, 3]);
    }

    #[test]
    fn png_with_a_palette() {
        // 2 x 1 pixels of one bit; palette (10, 20, 30), (200, 100, 50); pixels 1, 0.
        let bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x01\x01\x03\0\0\0\xce\xec\xed\xc9\
            \0\0\0\x06PLTE\n\x14\x1e\xc8d2w\xa0\xb3\x9c\
            \0\0\0\rIDATx\x01\x01\x02\0\xfd\xff\0\x80\0\x82\0\x81\xc3n%\xe0\0\0\0\0IEND\xaeB`\x82";
        assert_eq!(read(bytes).unwrap().pixels(), [[200, 100, 50], [10, 20, 30]]);
    }

    #[test]
    fn jpeg_is_close_to_what_was_stored() {
        let image = Rgb8Image::filled(20, 11, [200, 90, 30]).unwrap();
        let read = read(&jpeg(&image)).unwrap();
        assert_eq!((read.width(), read.height()), (20, 11));
        for pixel in read.pixels() {
            assert!(pixel.iter().zip([200, 90, 30]).all(|(&a, b): (_, u8)| a.abs_diff(b) <= 3), "{pixel:?}");
        }
    }

    #[test]
    fn exif_orientation_is_applied_only_upright() {
        // Dark except for the upper right corner.
        let mut stored = Rgb8Image::filled(32, 16, [20; 3]).unwrap();
        for y in 0..8 {
            stored.pixels_mut()[y * 32 + 24..(y + 1) * 32].fill([240; 3]);
        }
        let bright_corner = |image: &Rgb8Image| {
            let (w, h) = (image.width(), image.height());
            let corners = [(2, 2), (w - 3, 2), (2, h - 3), (w - 3, h - 3)];
            corners.iter().position(|&(x, y)| image.pixels()[y * w + x][0] > 128).unwrap()
        };
        // 0 and 1: the upper corners, 2 and 3: the lower ones.
        for (orientation, size, corner) in [
            (1, (32, 16), 1),
            (2, (32, 16), 0),
            (3, (32, 16), 2),
            (4, (32, 16), 3),
            (5, (16, 32), 2),
            (6, (16, 32), 3),
            (7, (16, 32), 1),
            (8, (16, 32), 0),
        ] {
            on_disk(&with_orientation(&jpeg(&stored), orientation), |path| {
                let upright = read_image(path, Orientation::Upright).unwrap();
                assert_eq!((upright.width(), upright.height()), size, "orientation {orientation}");
                assert_eq!(bright_corner(&upright), corner, "orientation {orientation}");
                let as_stored = read_image(path, Orientation::AsStored).unwrap();
                assert_eq!((as_stored.width(), bright_corner(&as_stored)), (32, 1));
            });
        }
    }

    #[test]
    fn turning_moves_every_pixel() {
        let numbered = Rgb8Image::new(3, 2, (0..6).map(|i| [i; 3]).collect()).unwrap();
        for (turn, size, expected) in [
            (Turn::NoTransforms, (3, 2), [0, 1, 2, 3, 4, 5]),
            (Turn::FlipHorizontal, (3, 2), [2, 1, 0, 5, 4, 3]),
            (Turn::Rotate180, (3, 2), [5, 4, 3, 2, 1, 0]),
            (Turn::FlipVertical, (3, 2), [3, 4, 5, 0, 1, 2]),
            (Turn::Rotate90, (2, 3), [3, 0, 4, 1, 5, 2]),
            (Turn::Rotate270, (2, 3), [2, 5, 1, 4, 0, 3]),
            (Turn::Rotate90FlipH, (2, 3), [0, 3, 1, 4, 2, 5]),
            (Turn::Rotate270FlipH, (2, 3), [5, 2, 4, 1, 3, 0]),
        ] {
            let turned = numbered.clone().turned(turn);
            assert_eq!((turned.width(), turned.height()), size);
            assert_eq!(turned.pixels().iter().map(|p| p[0]).collect::<Vec<_>>(), expected, "{turn:?}");
        }
    }

    #[test]
    fn what_is_no_picture_is_named() {
        let message = |bytes: &[u8]| match read(bytes).unwrap_err() {
            ImageError::UnknownFormat { found, .. } => found,
            other => panic!("{other}"),
        };
        assert_eq!(message(b""), "the file is empty (0 bytes)");
        assert_eq!(message(b"GIF89a...."), "the file is a GIF picture");
        assert_eq!(message(b"\0\0\0\x18ftypheic"), "the file is a HEIC picture or a video");
        assert_eq!(message(b"hello\0world"), "the file begins with \"hello\\x00wo\"");
        let error = read_image(Path::new("/none/such.png"), Orientation::Upright).unwrap_err();
        assert!(error.to_string().starts_with("/none/such.png: cannot open: "), "{error}");
    }

    #[test]
    fn a_cut_file_is_refused_wherever_it_ends() {
        let pixels = (0..64 * 48_usize).map(|i| [(i * 7 % 256) as u8, (i * 31 % 251) as u8, (i / 9) as u8]).collect();
        let image = Rgb8Image::new(64, 48, pixels).unwrap();
        let whole = png(image.pixels().as_flattened(), 64, 48, ExtendedColorType::Rgb8);
        // The last chunk only marks the end.
        for end in (PNG_SIGNATURE.len()..whole.len() - 16).step_by(61) {
            let error = read(&whole[..end]).unwrap_err();
            assert!(matches!(error, ImageError::Truncated { .. }), "{end} of {}: {error}", whole.len());
        }
        let whole = jpeg(&image);
        for end in (JPEG_SIGNATURE.len()..whole.len()).step_by(61).chain([whole.len() - 1]) {
            let error = read(&whole[..end]).unwrap_err();
            assert!(matches!(error, ImageError::Truncated { .. }), "{end} of {}: {error}", whole.len());
        }
    }

    #[test]
    fn bytes_after_the_picture_do_not_matter() {
        for mut bytes in [png(&[9; 12], 2, 2, ExtendedColorType::Rgb8), jpeg(&picture())] {
            let image = read(&bytes).unwrap();
            bytes.extend([0; 100]);
            assert_eq!(read(&bytes).unwrap(), image);
        }
    }

    #[test]
    fn huge_declared_sizes_are_refused_before_they_are_allocated() {
        // A header with 65500 x 65500 pixels and next to no data.
        let mut bytes = jpeg(&picture());
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error, ImageError::DeclaredSize { width: 65_500, height: 65_500, .. }), "{error}");

        // 2147483647 x 2147483647, with the matching checksum.
        let mut bytes = png(&[0; 3], 1, 1, ExtendedColorType::Rgb8);
        bytes[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        bytes[29..33].copy_from_slice(&[0x9b, 0xab, 0x9c, 0x31]);
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error, ImageError::DeclaredSize { width: 0x7fff_ffff, .. }), "{error}");
    }

    #[test]
    fn damaged_files_give_errors_or_pictures_but_no_panic() {
        let image = Rgb8Image::filled(24, 24, [120, 60, 200]).unwrap();
        for whole in [png(image.pixels().as_flattened(), 24, 24, ExtendedColorType::Rgb8), jpeg(&image)] {
            for i in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[i] ^= 0x5a;
                let _ = read(&bytes);
            }
        }
    }
}
