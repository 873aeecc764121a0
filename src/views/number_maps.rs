//! Depth maps as arrays of numbers: NumPy's .npy, TIFF and OpenEXR. Matrices as .npy too.
//!
//! Floats are distances in metres, as programs that write them mean them. Integers are in the recording's
//! depth units.

use std::io::{Cursor, Read};
use std::path::Path;

use flate2::read::ZlibDecoder;
use half::f16;
use tiff::decoder::{Decoder, DecodingResult, Limits};

use super::ViewsError;
use crate::files::Budget;
use crate::images::MAX_PIXELS;

const NPY: &[u8] = b"\x93NUMPY";
const EXR: &[u8] = b"\x76\x2f\x31\x01";
const TIFF: [&[u8]; 2] = [b"II\x2a\0", b"MM\0\x2a"];
/// Renderers write such a distance, or a larger one, where they see nothing.
const NOTHING: f64 = 60_000.0;
/// Longest text of a header, in bytes.
const LONGEST_HEADER: usize = 1 << 16;
/// Largest chunk of an OpenEXR picture after unpacking, in bytes. Real ones have a few megabytes.
const LARGEST_CHUNK: usize = 1 << 30;

/// Scale of stored depths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DepthScale {
    /// Of integers.
    pub units_per_meter: f64,
    /// Of floats, which are metres if nothing else is known.
    pub floats_per_meter: f64,
}

/// Returns the number of pixels of a picture, if it is allowed.
pub(super) fn num_pixels(width: u64, height: u64) -> Option<usize> {
    width.checked_mul(height).filter(|pixels| (1..=MAX_PIXELS).contains(pixels)).map(|pixels| pixels as usize)
}

/// Returns an error if so few bytes cannot hold a map of this size with `per_pixel` bytes for each pixel.
pub(super) fn check_budget(bytes: &[u8], size: [usize; 2], per_pixel: usize, path: &Path) -> Result<(), ViewsError> {
    let decoded = (size[0] as u64).saturating_mul(size[1] as u64).saturating_mul(per_pixel as u64);
    Budget::picture(bytes.len())
        .charge(decoded)
        .map_err(|error| ViewsError::decode(path, format!("a map of {} x {} pixels", size[0], size[1]), error))
}

/// Formats of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberFormat {
    Npy,
    Tiff,
    Exr,
}

impl NumberFormat {
    /// Returns the format of a file, from its first bytes.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(NPY) {
            Some(Self::Npy)
        } else if bytes.starts_with(EXR) {
            Some(Self::Exr)
        } else {
            TIFF.iter().any(|magic| bytes.starts_with(magic)).then_some(Self::Tiff)
        }
    }

    /// Returns width and height, at least 1 and within the limit of pixels.
    pub(super) fn size(self, bytes: &[u8], path: &Path) -> Result<[usize; 2], ViewsError> {
        match self {
            Self::Npy => Ok(NpyHeader::of(bytes, path)?.size),
            Self::Tiff => Ok(tiff_header(bytes, path)?.1),
            Self::Exr => Ok(ExrHeader::of(bytes, path)?.size),
        }
    }

    /// Reads a map: width, height and metres in row-major order.
    pub(super) fn read(
        self,
        bytes: &[u8],
        path: &Path,
        scale: DepthScale,
    ) -> Result<(usize, usize, Vec<f32>), ViewsError> {
        let ([width, height], meters) = match self {
            Self::Npy => read_npy(bytes, path, scale),
            Self::Tiff => read_tiff(bytes, path, scale),
            Self::Exr => read_exr(bytes, path, scale),
        }?;
        Ok((width, height, meters))
    }
}

fn allowed(width: u64, height: u64, path: &Path) -> Result<[usize; 2], ViewsError> {
    if num_pixels(width, height).is_none() {
        let (found, expected) = (format!("{width} x {height}"), format!("1 to {MAX_PIXELS} pixels"));
        return Err(ViewsError::value(path, "the declared size", found, expected));
    }
    Ok([width as usize, height as usize])
}

/// Type of a stored number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Float,
    Signed,
    Unsigned,
}

impl DepthScale {
    fn float(self, meters: f64) -> f32 {
        let meters = meters / self.floats_per_meter;
        if meters < NOTHING { meters as f32 } else { 0.0 }
    }

    /// `largest` is the largest number of the type. Sensors write it on overflow.
    fn integer(self, units: f64, largest: f64) -> f32 {
        if units == largest { 0.0 } else { (units / self.units_per_meter) as f32 }
    }
}

// NumPy.

/// Header of a NumPy file with one map.
#[derive(Debug)]
struct NpyHeader {
    kind: Kind,
    /// Bytes of a number.
    bytes: usize,
    big_endian: bool,
    by_columns: bool,
    size: [usize; 2],
    /// Byte offset of the numbers.
    data: usize,
}

impl NpyHeader {
    fn of(bytes: &[u8], path: &Path) -> Result<Self, ViewsError> {
        let cut = || ViewsError::truncated(path, 0, "the NumPy header", 128, bytes.len());
        let &[major, _, low, high, ..] = bytes.get(NPY.len()..).unwrap_or_default() else { return Err(cut()) };
        let (len, start) = match major {
            1 => (usize::from(u16::from_le_bytes([low, high])), NPY.len() + 4),
            _ => {
                let &[a, b, c, d] = bytes.get(NPY.len() + 2..NPY.len() + 6).ok_or_else(cut)? else {
                    return Err(cut());
                };
                (u32::from_le_bytes([a, b, c, d]) as usize, NPY.len() + 6)
            }
        };
        if len > LONGEST_HEADER {
            return Err(cut());
        }
        let header = bytes.get(start..start + len).ok_or_else(cut)?;
        let text = String::from_utf8_lossy(header);
        let field = |key: &str| text.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
        let refused = |what: &str, found: &str| {
            let found: String = found.chars().take(40).collect();
            let expected = "one map of numbers: height and width, of floats or integers";
            ViewsError::value(path, what.to_owned(), format!("\"{}\"", found.escape_default()), expected)
        };
        let descr = field("descr").and_then(|rest| rest.strip_prefix('\'')?.split_once('\'')).map(|(descr, _)| descr);
        let descr = descr.ok_or_else(|| refused("the NumPy header", &text))?;
        let mut chars = descr.chars();
        let (order, kind) = (chars.next(), chars.next());
        let kind = match kind {
            Some('f') => Kind::Float,
            Some('i') => Kind::Signed,
            Some('u') => Kind::Unsigned,
            _ => return Err(refused("the type of the numbers", descr)),
        };
        let bytes_each = match (kind, chars.as_str()) {
            (_, "8") => 8,
            (_, "4") => 4,
            (_, "2") => 2,
            (Kind::Signed | Kind::Unsigned, "1") => 1,
            _ => return Err(refused("the type of the numbers", descr)),
        };
        let shape = field("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).map(|(shape, _)| shape);
        let shape = shape.ok_or_else(|| refused("the NumPy header", &text))?;
        let sides: Option<Vec<u64>> =
            shape.split(',').map(str::trim).filter(|side| !side.is_empty()).map(|side| side.parse().ok()).collect();
        let [height, width] = match sides.as_deref() {
            Some(&[height, width] | &[height, width, 1] | &[1, height, width]) => [height, width],
            _ => return Err(refused("the shape", shape)),
        };
        Ok(Self {
            kind,
            bytes: bytes_each,
            big_endian: order == Some('>'),
            by_columns: field("fortran_order").is_some_and(|rest| rest.starts_with("True")),
            size: allowed(width, height, path)?,
            data: start + len,
        })
    }
}

/// Reads an array of two dimensions, row by row. `float` converts a float, `integer` an integer with the largest of its
/// type.
fn npy_rows<T: Copy>(
    bytes: &[u8],
    path: &Path,
    float: impl Fn(f64) -> T,
    integer: impl Fn(f64, f64) -> T,
) -> Result<([usize; 2], Vec<T>), ViewsError> {
    let header = NpyHeader::of(bytes, path)?;
    let [width, height] = header.size;
    let needed = width * height * header.bytes;
    let data = bytes.get(header.data..).unwrap_or_default();
    let Some(data) = data.get(..needed) else {
        return Err(ViewsError::truncated(path, header.data, "the numbers", needed as u64, data.len()));
    };
    let number = |raw: &[u8]| {
        let mut word = [0; 8];
        word[..raw.len()].copy_from_slice(raw);
        if header.big_endian {
            word[..raw.len()].reverse();
        }
        let bits = u64::from_le_bytes(word);
        let unused = 64 - 8 * raw.len() as u32;
        match (header.kind, raw.len()) {
            (Kind::Float, 2) => float(f16::from_bits(bits as u16).to_f64()),
            (Kind::Float, 4) => float(f64::from(f32::from_bits(bits as u32))),
            (Kind::Float, _) => float(f64::from_bits(bits)),
            (Kind::Signed, _) => {
                let value = (bits << unused) as i64 >> unused;
                integer(value as f64, (i64::MAX >> unused) as f64)
            }
            (Kind::Unsigned, _) => integer(bits as f64, (u64::MAX >> unused) as f64),
        }
    };
    let stored: Vec<T> = data.chunks_exact(header.bytes).map(number).collect();
    let rows = match header.by_columns {
        true => (0..width * height).map(|i| stored[i % width * height + i / width]).collect(),
        false => stored,
    };
    Ok((header.size, rows))
}

fn read_npy(bytes: &[u8], path: &Path, scale: DepthScale) -> Result<([usize; 2], Vec<f32>), ViewsError> {
    npy_rows(bytes, path, |x| scale.float(x), |x, largest| scale.integer(x, largest))
}

/// Reads the numbers of a small matrix in NumPy's format, row by row.
///
/// # Errors
/// [`ViewsError`] with the file, if it is not such a file.
pub(super) fn read_npy_matrix(bytes: &[u8], path: &Path) -> Result<Vec<f64>, ViewsError> {
    Ok(npy_rows(bytes, path, |x| x, |x, _| x)?.1)
}

// TIFF.

type Tiff<'a> = Decoder<Cursor<&'a [u8]>>;

fn tiff_header<'a>(bytes: &'a [u8], path: &Path) -> Result<(Tiff<'a>, [usize; 2]), ViewsError> {
    let failed = |error| ViewsError::decode(path, "the TIFF header", error);
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(failed)?;
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let size = allowed(width.into(), height.into(), path)?;
    check_budget(bytes, size, 4, path)?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = size[0] * size[1] * 8;
    limits.intermediate_buffer_size = size[0] * size[1] * 8;
    Ok((decoder.with_limits(limits), size))
}

fn read_tiff(bytes: &[u8], path: &Path, scale: DepthScale) -> Result<([usize; 2], Vec<f32>), ViewsError> {
    let (mut decoder, size) = tiff_header(bytes, path)?;
    let failed = |error| ViewsError::decode(path, "the TIFF picture", error);
    let color = decoder.colortype().map_err(failed)?;
    if !matches!(color, tiff::ColorType::Gray(_)) {
        let found = format!("a TIFF picture of type {color:?}");
        return Err(ViewsError::unsupported(path, found, "a grey picture of integers or floats"));
    }
    let meters: Vec<f32> = match decoder.read_image().map_err(failed)? {
        DecodingResult::F16(values) => values.iter().map(|x| scale.float(x.to_f64())).collect(),
        DecodingResult::F32(values) => values.iter().map(|&x| scale.float(x.into())).collect(),
        DecodingResult::F64(values) => values.iter().map(|&x| scale.float(x)).collect(),
        DecodingResult::U16(values) => values.iter().map(|&x| scale.integer(x.into(), u16::MAX.into())).collect(),
        DecodingResult::I16(values) => values.iter().map(|&x| scale.integer(x.into(), i16::MAX.into())).collect(),
        DecodingResult::U32(values) => values.iter().map(|&x| scale.integer(x.into(), u32::MAX.into())).collect(),
        DecodingResult::I32(values) => values.iter().map(|&x| scale.integer(x.into(), i32::MAX.into())).collect(),
        _ => {
            let found = format!("a TIFF picture of type {color:?}");
            return Err(ViewsError::unsupported(path, found, "16 or 32 bits, or floats"));
        }
    };
    if meters.len() != size[0] * size[1] {
        let found = format!("{} values", meters.len());
        return Err(ViewsError::value(path, "the TIFF picture", found, format!("{} x {}", size[0], size[1])));
    }
    Ok((size, meters))
}

// OpenEXR.

/// Channels that hold depth, best first. A channel may have a layer's name before it: `ViewLayer.Depth.Z`.
const DEPTH_CHANNELS: [&str; 5] = ["z", "depth", "v", "y", "r"];

#[derive(Debug)]
struct ExrChannel {
    name: String,
    /// 0: u32, 1: f16, 2: f32.
    kind: u32,
}

impl ExrChannel {
    fn bytes(&self) -> usize {
        if self.kind == 1 { 2 } else { 4 }
    }
}

/// Header of an OpenEXR file of one part, in lines.
#[derive(Debug)]
struct ExrHeader {
    channels: Vec<ExrChannel>,
    compression: u8,
    size: [usize; 2],
    first_row: i64,
    /// Byte offset of the table of chunks.
    table: usize,
}

impl ExrHeader {
    fn of(bytes: &[u8], path: &Path) -> Result<Self, ViewsError> {
        let cut = |at: usize| ViewsError::truncated(path, at.min(bytes.len()), "the OpenEXR header", 1, 0);
        let flags = *bytes.get(5).ok_or_else(|| cut(5))?;
        if flags & 0b1_1010 != 0 {
            let found = "an OpenEXR file of tiles, several parts or deep pixels";
            return Err(ViewsError::unsupported(path, found, "one part in lines"));
        }
        let mut at = 8;
        let (mut channels, mut compression, mut window) = (Vec::new(), None, None);
        loop {
            let name = zero_ended(bytes, at).ok_or_else(|| cut(at))?;
            at += name.len() + 1;
            if name.is_empty() {
                break;
            }
            let kind = zero_ended(bytes, at).ok_or_else(|| cut(at))?;
            at += kind.len() + 1;
            let len = le_u32(bytes, at).ok_or_else(|| cut(at))? as usize;
            at += 4;
            let value = at.checked_add(len).and_then(|end| bytes.get(at..end)).ok_or_else(|| cut(at))?;
            at += len;
            match name {
                b"channels" => channels = exr_channels(value).ok_or_else(|| cut(at - len))?,
                b"compression" => compression = value.first().copied(),
                b"dataWindow" => {
                    let side = |i: usize| le_u32(value, 4 * i).map(|x| i64::from(x as i32));
                    window = Some([side(0), side(1), side(2), side(3)]);
                }
                _ => {}
            }
        }
        let Some([Some(left), Some(top), Some(right), Some(bottom)]) = window else {
            return Err(ViewsError::value(path, "\"dataWindow\"", "missing", "the corners of the picture"));
        };
        let side = |from: i64, to: i64| u64::try_from(to - from + 1).unwrap_or(0);
        let size = allowed(side(left, right), side(top, bottom), path)?;
        let Some(compression) = compression else {
            return Err(ViewsError::value(path, "\"compression\"", "missing", "a number"));
        };
        Ok(Self { channels, compression, size, first_row: top, table: at })
    }

    /// Rows of a chunk, for the compressions that are read.
    fn rows_of_chunk(&self, path: &Path) -> Result<usize, ViewsError> {
        match self.compression {
            0 | 2 => Ok(1),
            3 => Ok(16),
            other => {
                let names = ["none", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB"];
                let name = names.get(usize::from(other)).copied().unwrap_or("an unknown kind");
                let found = format!("OpenEXR compression {name}");
                Err(ViewsError::unsupported(path, found, "none, ZIPS or ZIP: save the depth maps again"))
            }
        }
    }
}

fn zero_ended(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    rest.get(..rest.iter().take(256).position(|&byte| byte == 0)?)
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn exr_channels(value: &[u8]) -> Option<Vec<ExrChannel>> {
    let (mut at, mut channels) = (0, Vec::new());
    loop {
        let name = zero_ended(value, at)?;
        if name.is_empty() {
            return Some(channels);
        }
        at += name.len() + 1;
        let kind = le_u32(value, at)?;
        // Both samplings must be 1.
        let full = le_u32(value, at + 8)? == 1 && le_u32(value, at + 12)? == 1;
        if kind > 2 || !full {
            return None;
        }
        channels.push(ExrChannel { name: String::from_utf8_lossy(name).into_owned(), kind });
        at += 16;
    }
}

fn read_exr(bytes: &[u8], path: &Path, scale: DepthScale) -> Result<([usize; 2], Vec<f32>), ViewsError> {
    let header = ExrHeader::of(bytes, path)?;
    let [width, height] = header.size;
    let rows_of_chunk = header.rows_of_chunk(path)?;
    check_budget(bytes, header.size, 4, path)?;
    let last_part = |name: &str| name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let named = |wanted: &&str| header.channels.iter().position(|channel| last_part(&channel.name) == **wanted);
    let Some(chosen) = DEPTH_CHANNELS.iter().find_map(named) else {
        let names: Vec<&str> = header.channels.iter().map(|channel| channel.name.as_str()).take(20).collect();
        let found = format!("{:?}", names.join(", "));
        return Err(ViewsError::value(path, "the channels", found, "a channel named Z, depth, V, Y or R"));
    };
    let before: usize = header.channels[..chosen].iter().map(ExrChannel::bytes).sum();
    let of_pixel: usize = header.channels.iter().map(ExrChannel::bytes).sum();
    let channel = &header.channels[chosen];
    let mut meters = vec![0.0; width * height];
    let mut budget = Budget::picture(bytes.len());
    for chunk in 0..height.div_ceil(rows_of_chunk) {
        let entry = header.table + 8 * chunk;
        let cut = |at: usize| ViewsError::truncated(path, at.min(bytes.len()), "a chunk of the picture", 8, 0);
        let low = le_u32(bytes, entry).ok_or_else(|| cut(entry))?;
        let high = le_u32(bytes, entry + 4).ok_or_else(|| cut(entry))?;
        let start = usize::try_from((u64::from(high) << 32) | u64::from(low)).unwrap_or(usize::MAX);
        let row = start.checked_add(8).and_then(|_| le_u32(bytes, start)).ok_or_else(|| cut(start))?;
        let len = le_u32(bytes, start + 4).ok_or_else(|| cut(start))? as usize;
        let first = usize::try_from(i64::from(row as i32) - header.first_row).unwrap_or(usize::MAX);
        if first >= height {
            return Err(ViewsError::value(path, "the row of a chunk", row, format!("one of {height} rows")));
        }
        let rows = rows_of_chunk.min(height - first);
        let packed =
            (start + 8).checked_add(len).and_then(|end| bytes.get(start + 8..end)).ok_or_else(|| cut(start))?;
        let needed = of_pixel.saturating_mul(width).saturating_mul(rows);
        // Chunks may name the same bytes again and again, so all of them share one budget.
        budget.charge(needed as u64).map_err(|error| ViewsError::decode(path, "a chunk of the picture", error))?;
        if needed > LARGEST_CHUNK {
            let found = format!("{} channels of {width} x {rows} pixels", header.channels.len());
            let expected = format!("at most {LARGEST_CHUNK} bytes");
            return Err(ViewsError::value(path, "a chunk of the picture", found, expected));
        }
        let raw = unpacked(packed, needed, header.compression, path)?;
        for (i, line) in raw.chunks_exact(of_pixel * width).enumerate() {
            let from = before * width;
            let values = line[from..from + channel.bytes() * width].chunks_exact(channel.bytes());
            for (value, meters) in values.zip(&mut meters[(first + i) * width..]) {
                *meters = match *value {
                    [a, b] => scale.float(f16::from_le_bytes([a, b]).to_f64()),
                    [a, b, c, d] if channel.kind == 2 => scale.float(f32::from_le_bytes([a, b, c, d]).into()),
                    [a, b, c, d] => scale.integer(u32::from_le_bytes([a, b, c, d]).into(), u32::MAX.into()),
                    _ => 0.0,
                };
            }
        }
    }
    Ok((header.size, meters))
}

/// Unpacks a chunk of `needed` bytes. Chunks that compression did not shorten are stored as they are.
fn unpacked(packed: &[u8], needed: usize, compression: u8, path: &Path) -> Result<Vec<u8>, ViewsError> {
    if packed.len() == needed {
        return Ok(packed.to_vec());
    }
    let mut bytes = Vec::new();
    if compression != 0 {
        let mut decoder = ZlibDecoder::new(packed).take(needed as u64 + 1);
        decoder.read_to_end(&mut bytes).map_err(|error| ViewsError::decode(path, "a chunk of the picture", error))?;
    }
    if bytes.len() != needed {
        let found = format!("{} bytes", bytes.len());
        return Err(ViewsError::value(path, "a chunk of the picture", found, format!("{needed} bytes")));
    }
    // Each byte is stored as the difference to the one before, and the halves are the even and odd bytes.
    for i in 1..bytes.len() {
        bytes[i] = bytes[i].wrapping_add(bytes[i - 1]).wrapping_sub(128);
    }
    let half = needed.div_ceil(2);
    Ok((0..needed).map(|i| bytes[i / 2 + if i % 2 == 0 { 0 } else { half }]).collect())
}
