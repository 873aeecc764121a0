//! Adding fields to LAS and LAZ files.

use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::Path;

use laz::{LazVlr, LazVlrBuilder, ParLasZipCompressor};

use super::data::{AttributeData, Endian, Field};
use super::error::{CloudError, Origin};
use super::las::{MOST_EXTRA_COMPRESSED, color_offset, for_each_batch, is_standard};
use super::las_header::{COPC, EXTRA_BYTES, Extra, Header, LASZIP, VLR_HEADER, Vlr};
use super::{check_length, extension, guarded, new_colors, write_atomic};
use crate::files::MappedFile;

const LONGEST_NAME: usize = 32;
/// Points per compressed chunk, as all LAZ writers choose it.
const CHUNK_POINTS: u64 = 50_000;

/// What becomes of one field.
enum Target<'a> {
    /// The standard classification.
    Class(&'a [u8]),
    /// The colours, at this offset.
    Color(usize, [&'a [u8]; 3]),
    /// Extra bytes at this offset of the new record.
    Extra(usize, &'a AttributeData),
}

struct Plan<'a> {
    targets: Vec<Target<'a>>,
    /// The parts of the old record that stay, in order.
    kept: Vec<std::ops::Range<usize>>,
    record_length: usize,
    /// The new content of the Extra Bytes record.
    extra_bytes: Vec<u8>,
}

pub(super) fn append(
    path: &Path,
    source: MappedFile,
    dest: &Path,
    fields: &[Field],
) -> Result<Vec<String>, CloudError> {
    let origin = Origin { path, format: "LAS" };
    let header = Header::parse(origin, &source)?;
    let points = usize::try_from(header.points).unwrap_or(usize::MAX);
    for field in fields {
        check_length(dest, field, points)?;
    }
    let mut notes = Vec::new();
    let plan = plan(&header, &source, dest, fields)?;
    let compress = match extension(dest).as_str() {
        "laz" => true,
        "las" => false,
        _ => header.compressed,
    };
    if fields.iter().any(|f| f.channel().is_some()) && color_offset(header.point_format).is_none() {
        notes.push(format!("points of format {} have no colours: the new ones are left out", header.point_format));
    }
    if header.is_copc() {
        notes.push("the octree index of the COPC source is left out: its offsets no longer hold".into());
    }
    let vlr = compress.then(|| new_laszip(origin, &header, &plan, dest)).transpose()?;
    write_atomic(dest, move |out| {
        let copy = Copy { origin, header: &header, bytes: &source, plan: &plan, dest };
        copy.write(vlr, out)
    })?;
    Ok(notes)
}

fn plan<'a>(header: &Header, bytes: &[u8], dest: &Path, fields: &'a [Field]) -> Result<Plan<'a>, CloudError> {
    let bad = |field: &Field, found: String, expected: String| CloudError::Field {
        path: dest.to_path_buf(),
        field: field.name.clone(),
        found,
        expected,
    };
    let mut targets = Vec::new();
    if let (Some(colors), Some(at)) = (new_colors(dest, fields)?, color_offset(header.point_format)) {
        targets.push(Target::Color(at, colors));
    }
    let mut added: Vec<&Field> = Vec::new();
    for field in fields.iter().filter(|f| f.channel().is_none()) {
        if !field.as_classification {
            if field.name.len() > LONGEST_NAME || field.name.contains('\0') {
                let found = format!("the name has {} bytes", field.name.len());
                return Err(bad(field, found, format!("at most {LONGEST_NAME} in LAS, none of them 0")));
            }
            if is_standard(header.point_format, &field.name) {
                let found = "the points have a standard property of this name".into();
                return Err(bad(field, found, "another name (or the field for the classification)".into()));
            }
            added.push(field);
            continue;
        }
        let AttributeData::U8(classes) = &field.data else {
            let found = format!("the data are {}", field.data.scalar_type().name());
            return Err(bad(field, found, "u8 for a LAS classification".into()));
        };
        let largest = if header.point_format < 6 { 31 } else { 255 };
        if let Some(class) = classes.iter().find(|&&class| class > largest) {
            let expected = format!("0 to {largest} in point format {}", header.point_format);
            return Err(bad(field, format!("class {class}"), expected));
        }
        targets.push(Target::Class(classes));
    }
    // A dimension of the same name and type is overwritten where it is, one of another type goes.
    let standard = 0..header.standard_length;
    let mut kept = vec![standard];
    let mut record_length = header.standard_length;
    let mut descriptions = Vec::new();
    for extra in header.extra_fields(bytes) {
        let new = added.iter().position(|f| !extra.opaque && f.name == extra.name);
        if let Some(new) = new {
            let same = added
                .get(new)
                .filter(|f| extra.elements == 1 && extra.transform.is_none() && f.data.scalar_type() == extra.ty);
            let Some(field) = same else { continue };
            targets.push(Target::Extra(record_length, &field.data));
            added.remove(new);
        }
        kept.push(extra.at..extra.at + extra.size());
        record_length += extra.size();
        match extra.record.is_empty() {
            true => descriptions.extend(Extra::describe_opaque(extra.size())),
            false => descriptions.extend_from_slice(&extra.record),
        }
    }
    for field in added {
        targets.push(Target::Extra(record_length, &field.data));
        record_length += field.data.scalar_type().size();
        descriptions.extend(Extra::describe(&field.name, field.data.scalar_type()));
        if record_length > usize::from(u16::MAX) || descriptions.len() > usize::from(u16::MAX) {
            let found = format!("the point record grows to {record_length} bytes");
            let expected =
                format!("at most {} and {} extra dimensions", u16::MAX, usize::from(u16::MAX) / Extra::RECORD);
            return Err(bad(field, found, expected));
        }
    }
    Ok(Plan { targets, kept, record_length, extra_bytes: descriptions })
}

/// The description of the compression of the new records.
fn new_laszip(origin: Origin<'_>, header: &Header, plan: &Plan<'_>, dest: &Path) -> Result<LazVlr, CloudError> {
    let extra = plan.record_length - header.standard_length;
    if extra > MOST_EXTRA_COMPRESSED {
        let what = format!("{extra} extra bytes in compressed points");
        return Err(origin.unsupported(105, what, format!("at most {MOST_EXTRA_COMPRESSED}, or a las file")));
    }
    // A chunk is held in memory, so the chunk size of the source is not to be trusted.
    let chunk = header.points.clamp(1, CHUNK_POINTS) as u32;
    let builder = LazVlrBuilder::default()
        .with_point_format(header.point_format, extra as u16)
        .map_err(|e| CloudError::io(dest, "write", std::io::Error::other(e.to_string())))?;
    Ok(builder.with_fixed_chunk_size(chunk).build())
}

/// A copy in the making.
struct Copy<'a> {
    origin: Origin<'a>,
    header: &'a Header,
    bytes: &'a [u8],
    plan: &'a Plan<'a>,
    dest: &'a Path,
}

impl Copy<'_> {
    fn write(&self, laszip: Option<LazVlr>, out: &mut BufWriter<File>) -> Result<(), CloudError> {
        let failed = |source| CloudError::io(self.dest, "write", source);
        let records = self.records(laszip.as_ref()).map_err(failed)?;
        let header = self.header;
        // Bytes between the records and the points (a signature in LAS 1.0) are kept.
        let end = header.vlrs.last().map_or(header.header_size, |v| v.span.end);
        let padding = self.bytes.get(end..header.point_offset).unwrap_or_default();
        let point_offset = header.header_size + records.bytes.len() + padding.len();
        let point_offset = u32::try_from(point_offset)
            .map_err(|_| failed(std::io::Error::other("the records before the points reach 4 GiB")))?;
        let mut head = self.bytes.get(..header.header_size).unwrap_or_default().to_vec();
        put(&mut head, 96, &point_offset.to_le_bytes());
        put(&mut head, 100, &records.count.to_le_bytes());
        let flag = if laszip.is_some() { 0x80 } else { 0 };
        put(&mut head, 104, &[header.point_format | flag]);
        put(&mut head, 105, &(self.plan.record_length as u16).to_le_bytes());
        out.write_all(&head).map_err(failed)?;
        out.write_all(&records.bytes).map_err(failed)?;
        out.write_all(padding).map_err(failed)?;
        match laszip {
            Some(vlr) => self.compressed(vlr, out)?,
            None => self.points(|rows| out.write_all(rows).map_err(failed))?,
        }
        self.tail(head, out)
    }

    fn points(&self, mut write: impl FnMut(&[u8]) -> Result<(), CloudError>) -> Result<(), CloudError> {
        let mut index = 0;
        let mut rows = Vec::new();
        for_each_batch(self.origin, self.header, self.bytes, |old| {
            rows.clear();
            for old in old.chunks_exact(self.header.record_length) {
                let start = rows.len();
                for range in &self.plan.kept {
                    rows.extend_from_slice(old.get(range.clone()).unwrap_or_default());
                }
                rows.resize(start + self.plan.record_length, 0);
                let row = rows.get_mut(start..).unwrap_or_default();
                for target in &self.plan.targets {
                    self.fill(target, index, row);
                }
                index += 1;
            }
            write(&rows)
        })
    }

    fn fill(&self, target: &Target<'_>, index: usize, row: &mut [u8]) {
        match target {
            Target::Extra(at, data) => {
                let mut value = Vec::with_capacity(8);
                data.put(index, Endian::Little, &mut value);
                put(row, *at, &value);
            }
            Target::Color(at, channels) => {
                for (i, channel) in channels.iter().enumerate() {
                    // 257 · 255 is the largest value.
                    let value = u16::from(channel.get(index).copied().unwrap_or_default()) * 257;
                    put(row, at + 2 * i, &value.to_le_bytes());
                }
            }
            Target::Class(classes) => {
                let class = classes.get(index).copied().unwrap_or_default();
                if self.header.point_format >= 6 {
                    put(row, 16, &[class]);
                } else if let Some(byte) = row.get_mut(15) {
                    // The upper bits are flags of the point.
                    *byte = *byte & 0xe0 | class;
                }
            }
        }
    }

    fn compressed(&self, vlr: LazVlr, out: &mut BufWriter<File>) -> Result<(), CloudError> {
        let failed = |e: String| CloudError::io(self.dest, "write", std::io::Error::other(e));
        guarded(self.origin, self.header.point_offset as u64, "the points (compressing)", || {
            let mut compressor = ParLasZipCompressor::new(out, vlr).map_err(|e| failed(e.to_string()))?;
            self.points(|rows| compressor.compress_many(rows).map_err(|e| failed(e.to_string())))?;
            compressor.done().map_err(|e| failed(e.to_string()))
        })
    }

    /// Writes what follows the points, and corrects the offsets to it.
    fn tail(&self, mut head: Vec<u8>, out: &mut BufWriter<File>) -> Result<(), CloudError> {
        let failed = |source| CloudError::io(self.dest, "write", source);
        let header = self.header;
        let points = header.points.saturating_mul(header.record_length as u64);
        let uncompressed_end = (header.point_offset as u64).saturating_add(points);
        let first = [header.first_evlr, header.waveform].into_iter().flatten().min();
        let start = match (header.compressed, first) {
            (false, _) => Some(uncompressed_end),
            (true, first) => first,
        };
        let Some(start) = start else { return Ok(()) };
        let moved_to = out.stream_position().map_err(failed)?;
        let moved = |at: u64| at.wrapping_sub(start).wrapping_add(moved_to);
        if self.drops_evlrs() {
            let mut count = 0_u32;
            for evlr in header.evlrs.iter().filter(|v| !self.dropped(v)) {
                if header.waveform == Some(evlr.span.start as u64) {
                    let at = out.stream_position().map_err(failed)?;
                    put(&mut head, 227, &at.to_le_bytes());
                }
                out.write_all(self.bytes.get(evlr.span.clone()).unwrap_or_default()).map_err(failed)?;
                count += 1;
            }
            put(&mut head, 235, &(if count > 0 { moved_to } else { 0 }).to_le_bytes());
            put(&mut head, 243, &count.to_le_bytes());
        } else {
            let rest = usize::try_from(start).ok().and_then(|at| self.bytes.get(at..));
            out.write_all(rest.unwrap_or_default()).map_err(failed)?;
            if let Some(at) = header.first_evlr {
                put(&mut head, 235, &moved(at).to_le_bytes());
            }
            if let Some(at) = header.waveform {
                put(&mut head, 227, &moved(at).to_le_bytes());
            }
        }
        out.rewind().map_err(failed)?;
        out.write_all(&head).map_err(failed)
    }

    /// The octree of a COPC file, and an extended Extra Bytes record, which is replaced.
    fn dropped(&self, vlr: &Vlr) -> bool {
        vlr.user() == COPC || vlr.is(EXTRA_BYTES)
    }

    fn drops_evlrs(&self) -> bool {
        self.header.evlrs.iter().any(|v| self.dropped(v))
    }

    /// The records before the points.
    fn records(&self, laszip: Option<&LazVlr>) -> std::io::Result<Records> {
        let mut records = Records { bytes: Vec::new(), count: 0 };
        let mut described = self.plan.extra_bytes.is_empty();
        for vlr in &self.header.vlrs {
            let span = self.bytes.get(vlr.span.clone()).unwrap_or_default();
            if vlr.is(EXTRA_BYTES) && self.plan.extra_bytes.is_empty() {
                records.push(span);
            } else if vlr.is(EXTRA_BYTES) && !described {
                // Keeps its own header, but for the length.
                let mut record = span.get(..VLR_HEADER).unwrap_or_default().to_vec();
                put(&mut record, 20, &(self.plan.extra_bytes.len() as u16).to_le_bytes());
                record.extend_from_slice(&self.plan.extra_bytes);
                records.push(&record);
                described = true;
            } else if !(vlr.is(LASZIP) || self.dropped(vlr)) {
                records.push(span);
            }
        }
        if !described {
            records.push(&record(EXTRA_BYTES, "Extra Bytes Record", &self.plan.extra_bytes));
        }
        if let Some(laszip) = laszip {
            let mut data = Vec::new();
            laszip.write_to(&mut data)?;
            records.push(&record(LASZIP, LazVlr::DESCRIPTION, &data));
        }
        Ok(records)
    }
}

struct Records {
    bytes: Vec<u8>,
    count: u32,
}

impl Records {
    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.count += 1;
    }
}

/// A new variable length record.
fn record((user, id): (&[u8], u16), description: &str, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0; VLR_HEADER];
    put(&mut record, 2, user);
    put(&mut record, 18, &id.to_le_bytes());
    put(&mut record, 20, &(data.len() as u16).to_le_bytes());
    put(&mut record, 22, description.as_bytes());
    record.extend_from_slice(data);
    record
}

/// Overwrites `bytes` from `at`; what does not fit is dropped.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let slots = bytes.get_mut(at..).unwrap_or_default();
    for (slot, &byte) in slots.iter_mut().zip(value) {
        *slot = byte;
    }
}
