//! The point records of LAS files as bytes, decompressed if necessary.
//!
//! The `laz` crate decompresses one chunk at a time. Its readers of whole files, and those of `las`,
//! allocate as much memory as the file asks for. So the places and sizes of the chunks are checked here
//! instead.

use std::io::Cursor;

use laz::laszip::{ChunkTable, ChunkTableEntry};
use laz::{LazItem, LazItemRecordBuilder, LazVlr, par_decompress};
use rayon::prelude::*;

use super::error::{CloudError, Origin};
use super::guarded;
use super::las_header::{Header, LASZIP};
use super::source::{u16_at, u32_at, u64_at};
use crate::files::Budget;

/// Decoded bytes per batch.
const BATCH: usize = 32 << 20;
/// Compressed points may decode to this many bytes per compressed byte, but always [`FLOOR`] bytes. Scans stay
/// below 20. Only constant data could be packed tighter, and a forged header must not fill the memory.
const MOST_EXPANSION: u64 = 512;
const FLOOR: u64 = 4 << 20;
/// Most extra bytes in compressed points. The decoder keeps kilobytes of state for each extra byte of a
/// record.
pub(super) const MOST_EXTRA_COMPRESSED: usize = 1024;

/// Calls `visit` with whole point records, batch by batch.
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

/// Compressed piece that can be decoded by itself.
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
    let decoded = |chunk: &Chunk<'_>| chunk.points * header.record_length;
    let largest = chunks.iter().map(decoded).max().unwrap_or_default().max(1);
    let mut buffer = Vec::new();
    for batch in chunks.chunks((BATCH / largest).max(1)) {
        buffer.clear();
        buffer.resize(batch.iter().map(decoded).sum(), 0_u8);
        let mut free = buffer.as_mut_slice();
        let outputs: Vec<_> =
            batch.iter().map(|chunk| (chunk, free.split_off_mut(..decoded(chunk)).unwrap_or_default())).collect();
        outputs.into_par_iter().try_for_each(|(chunk, out)| decompress(origin, header, &vlr, chunk, out))?;
        visit(&buffer)?;
    }
    Ok(())
}

fn decompress(
    origin: Origin<'_>,
    header: &Header,
    vlr: &LazVlr,
    chunk: &Chunk<'_>,
    out: &mut [u8],
) -> Result<(), CloudError> {
    let format = &header.format;
    if format.is_extended {
        // The decoder allocates as much for each layer as the size stored in front says, so the sizes must
        // fit the chunk. The chunk starts with the first point, uncompressed, and the number of points; the
        // sizes follow.
        let parts = [format.has_color, format.has_nir, format.has_waveform];
        let parts = parts.into_iter().map(usize::from).sum::<usize>();
        let layers = 9 + parts + header.record_length - header.standard_length;
        let sizes = header.record_length + 4;
        let total: u64 = (0..layers).map(|i| u64::from(u32_at(chunk.data, sizes + 4 * i))).sum();
        let (needed, available) = (total + (sizes + 4 * layers) as u64, chunk.data.len() as u64);
        if needed > available {
            let what = format!("{layers} layers of a compressed chunk");
            return Err(origin.truncated(chunk.offset, what, needed, available));
        }
    }
    let what = format!("a chunk of {} points", chunk.points);
    let entry = ChunkTableEntry { point_count: chunk.points as u64, byte_count: chunk.data.len() as u64 };
    guarded(origin, chunk.offset, &what, || {
        par_decompress(chunk.data, out, vlr, &[entry]).map_err(|e| origin.decode(chunk.offset, &what, e))
    })
}

/// Description of the compression, checked against the point format.
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
    let failed = |e| origin.decode(at, "the LASzip record", e);
    let vlr = LazVlr::from_buffer(data).map_err(failed)?;
    let extra = header.record_length - header.standard_length;
    if extra > MOST_EXTRA_COMPRESSED {
        let what = format!("{extra} extra bytes in compressed points");
        return Err(origin.unsupported(105, what, format!("at most {MOST_EXTRA_COMPRESSED}")));
    }
    let expected = LazItemRecordBuilder::default_for_point_format_id(header.point_format, extra as u16);
    let kinds = |items: &[LazItem]| items.iter().map(|i| (i.item_type(), i.size())).collect::<Vec<_>>();
    let (found, expected) = (kinds(vlr.items()), kinds(&expected.map_err(failed)?));
    let (kind, versions) = if header.format.is_extended { (3, 3..=4) } else { (2, 1..=2) };
    let same = found == expected && vlr.items().iter().all(|item| versions.contains(&item.version()));
    if !same || compressor != kind || (!vlr.uses_variable_size_chunks() && vlr.chunk_size() == 0) {
        let expected = format!("those of point format {} with {extra} extra bytes", header.point_format);
        return Err(origin.value(at, "list of compressed items", format!("{found:?}"), expected));
    }
    Ok(vlr)
}

/// Reads the chunk table. Checks that the chunks lie in the file and hold all points.
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
    // The compressed size bounds the decoded size before anything is decoded.
    let decoded = header.points.saturating_mul(header.record_length as u64);
    if Budget::new(available, MOST_EXPANSION, FLOOR).charge(decoded).is_err() {
        let expected = format!("points that can come from {available} compressed bytes");
        return Err(origin.value(107, "number of points", header.points, expected));
    }
    let table_at = table as usize;
    let count = u64::from(u32_at(bytes, table_at + 4));
    let needed = match vlr.uses_variable_size_chunks() {
        true => 1,
        false => header.points.div_ceil(u64::from(vlr.chunk_size())),
    };
    // The first point of each chunk is stored uncompressed.
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
