//! LAS, LAZ and COPC: the points.

use std::io::Cursor;
use std::path::Path;

use laz::LazVlr;
use laz::laszip::ChunkTable;
use laz::record::{LayeredPointRecordDecompressor, RecordDecompressor, SequentialPointRecordDecompressor};
use rayon::prelude::*;

use super::data::{Attribute, AttributeData, Endian, ScalarType};
use super::error::{CloudError, Origin};
use super::las_header::{Header, LASZIP};
use super::source::{take, u16_at, u32_at, u64_at};
use super::units::Unit;
use super::{Format, PointCloud, guarded};

/// Decoded bytes handled at a time.
const BATCH: usize = 32 << 20;
/// Compressed points may decode to this many bytes for each of theirs, on top of [`FREE`]. Scans stay
/// below 20; only constant data could be packed tighter, and a forged header must not fill memory.
const MOST_EXPANSION: u64 = 512;
const FREE: u64 = 4 << 20;
/// The decoder keeps kilobytes of state for each extra byte of a record.
pub(super) const MOST_EXTRA_COMPRESSED: usize = 1024;

/// Calls `visit` with one batch of whole point records after the other.
pub(super) fn for_each_batch(
    origin: Origin<'_>,
    header: &Header,
    bytes: &[u8],
    mut visit: impl FnMut(&[u8]) -> Result<(), CloudError>,
) -> Result<(), CloudError> {
    if header.compressed {
        return laz_batches(origin, header, bytes, &mut visit);
    }
    let at = header.point_offset;
    let data = bytes.get(at..).unwrap_or_default();
    let needed = header.points.saturating_mul(header.record_length as u64);
    if needed > data.len() as u64 {
        let what = format!("{} points of {} bytes", header.points, header.record_length);
        return Err(origin.truncated(at as u64, what, needed, data.len() as u64));
    }
    let batch = (BATCH / header.record_length).max(1) * header.record_length;
    let data = data.get(..needed as usize).unwrap_or_default();
    data.chunks(batch).try_for_each(visit)
}

/// A compressed piece that can be decoded by itself.
struct Chunk<'a> {
    offset: u64,
    data: &'a [u8],
    points: usize,
}

fn laz_batches(
    origin: Origin<'_>,
    header: &Header,
    bytes: &[u8],
    visit: &mut impl FnMut(&[u8]) -> Result<(), CloudError>,
) -> Result<(), CloudError> {
    if header.points == 0 {
        return Ok(());
    }
    let vlr = laszip(origin, header, bytes)?;
    let chunks = chunks(origin, header, bytes, &vlr)?;
    let layered = vlr.items().first().is_some_and(|i| i.version() >= 3);
    let length = header.record_length;
    let mut rest = chunks.as_slice();
    let mut buffer = Vec::new();
    while !rest.is_empty() {
        let mut points = 0_usize;
        let full = |chunk: &Chunk<'_>| {
            points += chunk.points;
            points * length > BATCH
        };
        let some = rest.iter().position(full).unwrap_or(rest.len()).max(1);
        let (batch, after) = rest.split_at_checked(some).unwrap_or((rest, &[]));
        rest = after;
        let total: usize = batch.iter().map(|c| c.points).sum();
        buffer.clear();
        buffer.resize(total * length, 0_u8);
        let mut outputs = Vec::new();
        let mut free = buffer.as_mut_slice();
        for chunk in batch {
            let (out, after) = free.split_at_mut_checked(chunk.points * length).unwrap_or_default();
            outputs.push((chunk, out));
            free = after;
        }
        outputs.into_par_iter().try_for_each(|(chunk, out)| decompress(origin, &vlr, layered, length, chunk, out))?;
        visit(&buffer)?;
    }
    Ok(())
}

fn decompress(
    origin: Origin<'_>,
    vlr: &LazVlr,
    layered: bool,
    record_length: usize,
    chunk: &Chunk<'_>,
    out: &mut [u8],
) -> Result<(), CloudError> {
    let what = format!("a chunk of {} points", chunk.points);
    let failed = |error: String| origin.decode(chunk.offset, &what, error);
    if layered {
        check_layers(origin, vlr, record_length, chunk)?;
    }
    guarded(origin, chunk.offset, &what, || {
        let input = Cursor::new(chunk.data);
        let mut decoder: Box<dyn RecordDecompressor<_>> = if layered {
            Box::new(LayeredPointRecordDecompressor::new(input))
        } else {
            Box::new(SequentialPointRecordDecompressor::new(input))
        };
        decoder.set_fields_from(vlr.items()).map_err(|e| failed(e.to_string()))?;
        decoder.decompress_many(out).map_err(|e| failed(e.to_string()))
    })
}

/// Layers are read into memory by the sizes stored before them, so these must fit the chunk.
fn check_layers(origin: Origin<'_>, vlr: &LazVlr, record_length: usize, chunk: &Chunk<'_>) -> Result<(), CloudError> {
    use laz::LazItemType::{Byte14, Point14, RGB14, RGBNIR14, WavePacket14};
    let layers: usize = (vlr.items().iter())
        .map(|item| match item.item_type() {
            Point14 => 9,
            RGB14 | WavePacket14 => 1,
            RGBNIR14 => 2,
            Byte14(n) => usize::from(n),
            _ => 0,
        })
        .sum();
    // The first point as it is, the number of points, the sizes.
    let sizes = record_length + 4;
    let start = sizes + 4 * layers;
    let total: u64 = (0..layers).map(|i| u64::from(u32_at(chunk.data, sizes + 4 * i))).sum();
    let needed = total + start as u64;
    if needed > chunk.data.len() as u64 {
        let what = format!("{layers} layers of a compressed chunk");
        return Err(origin.truncated(chunk.offset, what, needed, chunk.data.len() as u64));
    }
    Ok(())
}

/// The description of the compression, checked against the point format.
fn laszip(origin: Origin<'_>, header: &Header, bytes: &[u8]) -> Result<LazVlr, CloudError> {
    let Some(record) = header.vlrs.iter().find(|v| v.is(LASZIP)) else {
        let found = "not followed by a LASzip record";
        return Err(origin.value(104, "compression flag", found, "a record \"laszip encoded\" 22204"));
    };
    let at = record.data.start as u64;
    let data = bytes.get(record.data.clone()).unwrap_or_default();
    let (compressor, coder) = (u16_at(data, 0), u16_at(data, 2));
    if !matches!(compressor, 2 | 3) || coder != 0 {
        let what = format!("LASzip compressor {compressor} with coder {coder}");
        return Err(origin.unsupported(at, what, "chunked compression (2 or 3) with coder 0"));
    }
    let vlr = LazVlr::from_buffer(data).map_err(|e| origin.decode(at, "the LASzip record", e))?;
    let extra = header.record_length - header.standard_length;
    if extra > MOST_EXTRA_COMPRESSED {
        let what = format!("{extra} extra bytes in compressed points");
        return Err(origin.unsupported(105, what, format!("at most {MOST_EXTRA_COMPRESSED}")));
    }
    let expected = laz::LazItemRecordBuilder::default_for_point_format_id(header.point_format, extra as u16)
        .map_err(|e| origin.decode(at, "the LASzip record", e))?;
    let layered = header.point_format >= 6;
    let versions = if layered { 3..=4 } else { 1..=2 };
    let same = expected.len() == vlr.items().len()
        && (expected.iter().zip(vlr.items())).all(|(e, item)| {
            e.item_type() == item.item_type() && e.size() == item.size() && versions.contains(&item.version())
        });
    if !same || layered != (compressor == 3) || (!vlr.uses_variable_size_chunks() && vlr.chunk_size() == 0) {
        let found = format!("{:?}", vlr.items().iter().map(|i| i.item_type()).collect::<Vec<_>>());
        let expected = format!("those of point format {} with {extra} extra bytes", header.point_format);
        return Err(origin.value(at, "list of compressed items", found, expected));
    }
    Ok(vlr)
}

/// Reads the chunk table, and checks that the chunks lie in the file and hold all points.
fn chunks<'a>(
    origin: Origin<'_>,
    header: &Header,
    bytes: &'a [u8],
    vlr: &LazVlr,
) -> Result<Vec<Chunk<'a>>, CloudError> {
    let start = header.point_offset;
    let first = start + 8;
    let size = bytes.len() as u64;
    if first as u64 > size {
        return Err(origin.truncated(start as u64, "the chunk table offset", 8, size - start as u64));
    }
    let mut table = u64_at(bytes, start);
    if table == u64::MAX || table <= start as u64 {
        // Writers that cannot seek put the offset at the very end.
        table = u64_at(bytes, bytes.len().saturating_sub(8));
    }
    if table < first as u64 || table.saturating_add(8) > size {
        let expected = format!("{first} to {}", size.saturating_sub(8));
        return Err(origin.value(start as u64, "chunk table offset", table, expected));
    }
    let available = table - first as u64;
    // Decoded size is bounded by the compressed size before anything is decoded.
    let decoded = header.points.saturating_mul(header.record_length as u64);
    let most = available.saturating_mul(MOST_EXPANSION).saturating_add(FREE);
    if decoded > most {
        let expected = format!("points that can come from {available} compressed bytes");
        return Err(origin.value(107, "number of points", header.points, expected));
    }
    let table_at = table as usize;
    let count = u64::from(u32_at(bytes, table_at + 4));
    let needed = match vlr.uses_variable_size_chunks() {
        true => 1,
        false => header.points.div_ceil(u64::from(vlr.chunk_size())),
    };
    // The first point of each chunk is stored as it is.
    let possible = available / header.record_length as u64;
    if count < needed || count > possible {
        let expected = format!("{needed} to {possible}");
        return Err(origin.value(table + 4, "number of chunks", count, expected));
    }
    let entries = guarded(origin, table, "the chunk table", || {
        let mut source = Cursor::new(bytes.get(table_at..).unwrap_or_default());
        ChunkTable::read(&mut source, vlr.uses_variable_size_chunks())
            .map_err(|e| origin.decode(table, "the chunk table", e))
    })?;
    let mut chunks = Vec::new();
    let (mut at, mut left) = (first as u64, header.points);
    for (i, entry) in entries.into_iter().enumerate() {
        if left == 0 {
            break;
        }
        let points = match vlr.uses_variable_size_chunks() {
            true => entry.point_count,
            false => u64::from(vlr.chunk_size()).min(left),
        };
        let end = at.saturating_add(entry.byte_count);
        if points > left || end > table || (points > 0 && entry.byte_count < header.record_length as u64) {
            let found = format!("chunk {i} with {points} points in {} bytes", entry.byte_count);
            let expected = format!("at most {left} points in {} bytes", table - at);
            return Err(origin.value(table, "chunk table", found, expected));
        }
        if points > 0 {
            chunks.push(Chunk {
                offset: at,
                data: bytes.get(at as usize..end as usize).unwrap_or_default(),
                points: points as usize,
            });
        }
        at = end;
        left -= points;
    }
    if left > 0 {
        let found = format!("{left} points fewer than the header promises");
        return Err(origin.value(table, "chunk table", found, format!("{} points", header.points)));
    }
    Ok(chunks)
}

struct Standard {
    name: &'static str,
    at: usize,
    ty: ScalarType,
    /// Shift and mask for a part of a byte.
    bits: Option<(u8, u8)>,
}

const fn whole(name: &'static str, at: usize, ty: ScalarType) -> Standard {
    Standard { name, at, ty, bits: None }
}

const fn part(name: &'static str, at: usize, shift: u8, mask: u8) -> Standard {
    Standard { name, at, ty: ScalarType::U8, bits: Some((shift, mask)) }
}

/// Where the properties of a point format are; the second value is the offset of the colours.
fn layout(format: u8) -> (Vec<Standard>, Option<usize>) {
    use ScalarType::{F32, F64, I8, I16, U8, U16, U32, U64};
    let mut all = vec![whole("intensity", 12, U16)];
    let mut end;
    if format < 6 {
        all.extend([
            part("return_number", 14, 0, 7),
            part("number_of_returns", 14, 3, 7),
            part("scan_direction_flag", 14, 6, 1),
            part("edge_of_flight_line", 14, 7, 1),
            part("classification", 15, 0, 31),
            part("synthetic", 15, 5, 1),
            part("key_point", 15, 6, 1),
            part("withheld", 15, 7, 1),
            whole("scan_angle_rank", 16, I8),
            whole("user_data", 17, U8),
            whole("point_source_id", 18, U16),
        ]);
        end = 20;
        if matches!(format, 1 | 3 | 4 | 5) {
            all.push(whole("gps_time", 20, F64));
            end = 28;
        }
    } else {
        all.extend([
            part("return_number", 14, 0, 15),
            part("number_of_returns", 14, 4, 15),
            part("synthetic", 15, 0, 1),
            part("key_point", 15, 1, 1),
            part("withheld", 15, 2, 1),
            part("overlap", 15, 3, 1),
            part("scanner_channel", 15, 4, 3),
            part("scan_direction_flag", 15, 6, 1),
            part("edge_of_flight_line", 15, 7, 1),
            whole("classification", 16, U8),
            whole("user_data", 17, U8),
            whole("scan_angle", 18, I16),
            whole("point_source_id", 20, U16),
            whole("gps_time", 22, F64),
        ]);
        end = 30;
    }
    let color = matches!(format, 2 | 3 | 5 | 7 | 8 | 10).then_some(end);
    if color.is_some() {
        end += 6;
    }
    if matches!(format, 8 | 10) {
        all.push(whole("nir", end, U16));
        end += 2;
    }
    if matches!(format, 4 | 5 | 9 | 10) {
        all.extend([
            whole("wavepacket_index", end, U8),
            whole("wavepacket_offset", end + 1, U64),
            whole("wavepacket_size", end + 9, U32),
            whole("return_point_wave_location", end + 13, F32),
            whole("x_t", end + 17, F32),
            whole("y_t", end + 21, F32),
            whole("z_t", end + 25, F32),
        ]);
    }
    (all, color)
}

/// Where points of this format have their colours: three values of 16 bits.
pub(super) fn color_offset(format: u8) -> Option<usize> {
    layout(format).1
}

/// True if points of this format have a standard property called `name`.
pub(super) fn is_standard(format: u8, name: &str) -> bool {
    layout(format).0.iter().any(|standard| standard.name == name)
}

impl Standard {
    fn extend(&self, rows: &[u8], stride: usize, out: &mut AttributeData) {
        match (self.bits, &mut *out) {
            (Some((shift, mask)), AttributeData::U8(out)) => {
                let byte = |row| take::<1>(row, self.at)[0] >> shift & mask;
                out.extend(rows.chunks_exact(stride).map(byte));
            }
            (_, out) => out.extend_rows(rows, stride, self.at, Endian::Little),
        }
    }
}

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "LAS" };
    let header = Header::parse(origin, bytes)?;
    let (standard, color) = layout(header.point_format);
    let extras = header.extra_fields(bytes);
    let mut attributes: Vec<Attribute> =
        standard.iter().map(|s| Attribute::new(s.name, AttributeData::new(s.ty))).collect();
    for extra in &extras {
        let ty = match extra.transform {
            Some(_) => ScalarType::F64,
            None => extra.ty,
        };
        for k in 0..extra.elements {
            let name = match extra.elements {
                1 if !extra.opaque => extra.name.clone(),
                _ => format!("{}[{k}]", extra.name),
            };
            attributes.push(Attribute::new(name, AttributeData::new(ty)));
        }
    }
    let mut positions: Vec<[f64; 3]> = Vec::new();
    let mut wide: Vec<[u16; 3]> = Vec::new();
    let length = header.record_length;
    for_each_batch(origin, &header, bytes, |rows| {
        positions.extend(rows.chunks_exact(length).map(|row| {
            std::array::from_fn(|axis| {
                let raw = i32::from_le_bytes(take(row, 4 * axis));
                // The order of operations is that of the specification, to the last bit.
                f64::from(raw) * header.scale[axis] + header.offset[axis]
            })
        }));
        if let Some(at) = color {
            let rgb = |row| [0, 2, 4].map(|channel| u16_at(row, at + channel));
            wide.extend(rows.chunks_exact(length).map(rgb));
        }
        let mut columns = attributes.iter_mut().map(|a| &mut a.data);
        for (standard, column) in standard.iter().zip(columns.by_ref()) {
            standard.extend(rows, length, column);
        }
        for extra in &extras {
            for (k, column) in columns.by_ref().take(extra.elements).enumerate() {
                extra.extend(k, rows, length, column);
            }
        }
        Ok(())
    })?;
    let mut notes = Vec::new();
    if extras.iter().any(|e| e.record.is_empty()) {
        notes.push("the points have extra bytes that no record describes".into());
    }
    let unit = unit(&header, bytes);
    if let (Some(across), Some(up)) = (unit, vertical_unit(&header, bytes))
        && across != up
    {
        notes.push(format!("x and y are in {across}, heights in {up}"));
    }
    let (version, point_format) = (header.version, header.point_format);
    let format = match header.compressed {
        true if header.is_copc() => Format::Copc { version, point_format },
        true => Format::Laz { version, point_format },
        false => Format::Las { version, point_format },
    };
    Ok(PointCloud {
        positions,
        colors: color.and_then(|_| colors(&wide, &mut notes)),
        attributes,
        format,
        unit,
        notes,
        ..PointCloud::default()
    })
}

fn colors(wide: &[[u16; 3]], notes: &mut Vec<String>) -> Option<Vec<[u8; 3]>> {
    let max = wide.iter().flatten().copied().max()?;
    if max == 0 {
        notes.push("all colours are black, taken as missing".into());
        return None;
    }
    if max <= 255 {
        notes.push("8-bit colours in 16-bit fields, kept as they are".into());
    }
    let shift = if max <= 255 { 0 } else { 8 };
    Some(wide.iter().map(|rgb| rgb.map(|x| (x >> shift) as u8)).collect())
}

const PROJECTION: &[u8] = b"LASF_Projection";
const WKT: u16 = 2112;
const GEO_KEYS: u16 = 34735;

/// The unit that the coordinate reference system states for x and y.
fn unit(header: &Header, bytes: &[u8]) -> Option<Unit> {
    let data = |record| bytes.get(header.find((PROJECTION, record))?.data.clone());
    if let Some(text) = data(WKT) {
        let text = String::from_utf8_lossy(text).to_ascii_lowercase();
        let across = text.split("vert_cs").next()?.split("vertcrs").next()?;
        return if across.contains("projcs") || across.contains("projcrs") {
            wkt_unit(across)
        } else {
            (across.contains("geogcs") || across.contains("geogcrs")).then_some(Unit::Degree)
        };
    }
    let keys = data(GEO_KEYS)?;
    geo_key(keys, 3076).and_then(epsg_unit).or_else(|| {
        // The model is geographic.
        (geo_key(keys, 1024) == Some(2)).then_some(Unit::Degree)
    })
}

/// The unit that it states for heights.
fn vertical_unit(header: &Header, bytes: &[u8]) -> Option<Unit> {
    let data = |record| bytes.get(header.find((PROJECTION, record))?.data.clone());
    if let Some(text) = data(WKT) {
        let text = String::from_utf8_lossy(text).to_ascii_lowercase();
        let start = text.find("vert_cs").or_else(|| text.find("vertcrs"))?;
        return wkt_unit(text.get(start..)?);
    }
    geo_key(data(GEO_KEYS)?, 4099).and_then(epsg_unit)
}

/// The value of a GeoTIFF key that is stored in place.
fn geo_key(keys: &[u8], wanted: u16) -> Option<u16> {
    let mut keys = keys.chunks_exact(8).skip(1);
    let key = keys.find(|key| u16_at(key, 0) == wanted && u16_at(key, 2) == 0)?;
    Some(u16_at(key, 6))
}

fn epsg_unit(code: u16) -> Option<Unit> {
    match code {
        9001 => Some(Unit::Metre),
        9002 => Some(Unit::Foot),
        9003 => Some(Unit::UsSurveyFoot),
        _ => None,
    }
}

/// The last unit of length in a piece of WKT: units of angles come before it.
fn wkt_unit(text: &str) -> Option<Unit> {
    let (_, last) = text.rsplit_once("unit[\"")?;
    match last.split('"').next()? {
        name if name.contains("survey") || name.contains("us-ft") || name.contains("ftus") => Some(Unit::UsSurveyFoot),
        name if name.contains("foot") || name.contains("feet") => Some(Unit::Foot),
        name if name.starts_with("met") || name == "m" => Some(Unit::Metre),
        _ => None,
    }
}
