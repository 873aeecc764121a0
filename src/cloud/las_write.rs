//! Adding fields to LAS and LAZ files.
//!
//! The writer of the `las` crate counts points and measures bounds anew, and drops records it does not
//! know. A copy must keep them. So points and records are copied as bytes here, and the crate writes only
//! the header and new records.

use std::fs::File;
use std::io::{BufWriter, Error, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use las::raw;
use las::raw::header::Evlr;
use las::raw::vlr::RecordLength;
use laz::{LazVlr, LazVlrBuilder, ParLasZipCompressor};

use super::data::{AttributeData, Endian, Field, LEGEND};
use super::error::{CloudError, Origin};
use super::las::{color_offset, is_standard};
use super::las_header::{EXTRA_BYTES, Extra, Header, LASZIP, Vlr};
use super::las_points::{MOST_EXTRA_COMPRESSED, for_each_batch};
use super::{check_length, extension, guarded, new_colors, write_atomic};
use crate::files::MappedFile;

/// Points per compressed chunk, the value all LAZ writers use.
const CHUNK_POINTS: u64 = 50_000;

/// Place where one field is written.
enum Target<'a> {
    /// Standard classification.
    Class(&'a [u8]),
    /// Colours, at this offset.
    Color(usize, [&'a [u8]; 3]),
    /// Extra bytes, at this offset of the new record.
    Extra(usize, &'a AttributeData),
}

struct Plan<'a> {
    targets: Vec<Target<'a>>,
    /// Parts of the old record that stay, in order.
    kept: Vec<Range<usize>>,
    record_length: usize,
    /// New content of the Extra Bytes record.
    extra_bytes: Vec<u8>,
    /// Lines that explain the fields.
    legend: String,
}

/// Number of the record of a legend.
const LEGEND_RECORD: u16 = 1;

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
    if fields.iter().any(|f| f.channel().is_some()) && color_offset(&header.format).is_none() {
        notes.push(format!("points of format {} have no colours: the new ones are left out", header.point_format));
    }
    if header.is_copc() {
        notes.push("the octree index of the COPC source is left out: its offsets are no longer valid".into());
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
    if let (Some(colors), Some(at)) = (new_colors(dest, fields)?, color_offset(&header.format)) {
        targets.push(Target::Color(at, colors));
    }
    let mut added: Vec<&Field> = Vec::new();
    for field in fields.iter().filter(|f| f.channel().is_none()) {
        if !field.as_classification {
            if field.name.len() > Extra::LONGEST_NAME || field.name.contains('\0') {
                let found = format!("the name has {} bytes", field.name.len());
                return Err(bad(field, found, format!("at most {} in LAS, none of them 0", Extra::LONGEST_NAME)));
            }
            if is_standard(&header.format, &field.name) {
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
        let largest = if header.format.is_extended { 255 } else { 31 };
        if let Some(class) = classes.iter().find(|&&class| class > largest) {
            let expected = format!("0 to {largest} in point format {}", header.point_format);
            return Err(bad(field, format!("class {class}"), expected));
        }
        targets.push(Target::Class(classes));
    }
    // A dimension of the same name and type is overwritten in place. One of another type is removed.
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
        descriptions.extend(Extra::describe(&field.name, field.data.scalar_type(), &field.description));
        if record_length > usize::from(u16::MAX) || descriptions.len() > usize::from(u16::MAX) {
            let found = format!("the point record grows to {record_length} bytes");
            let expected =
                format!("at most {} and {} extra dimensions", u16::MAX, usize::from(u16::MAX) / Extra::RECORD);
            return Err(bad(field, found, expected));
        }
    }
    let mut legend = fields.iter().flat_map(|field| &field.legend).map(|line| format!("{line}\n")).collect::<String>();
    if legend.len() > usize::from(u16::MAX) {
        legend = "the legend is too long for this file\n".to_owned();
    }
    Ok(Plan { targets, kept, record_length, extra_bytes: descriptions, legend })
}

/// Makes the description of the compression of the new records.
fn new_laszip(origin: Origin<'_>, header: &Header, plan: &Plan<'_>, dest: &Path) -> Result<LazVlr, CloudError> {
    let extra = plan.record_length - header.standard_length;
    if extra > MOST_EXTRA_COMPRESSED {
        let what = format!("{extra} extra bytes in compressed points");
        return Err(origin.unsupported(105, what, format!("at most {MOST_EXTRA_COMPRESSED}, or a las file")));
    }
    // A chunk is held in memory, so the chunk size of the source cannot be trusted.
    let chunk = header.points.clamp(1, CHUNK_POINTS) as u32;
    let builder = LazVlrBuilder::default()
        .with_point_format(header.point_format, extra as u16)
        .map_err(|e| CloudError::io(dest, "write", Error::other(e.to_string())))?;
    Ok(builder.with_fixed_chunk_size(chunk).build())
}

/// Copy that is being written.
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
        let (header, old) = (self.header, &self.header.raw);
        let refused = |error: las::Error| failed(Error::other(error));
        let records = self.records(laszip.as_ref()).map_err(refused)?;
        // Bytes between the records and the points (a signature in LAS 1.0) are kept.
        let end = header.vlrs.last().map_or(old.header_size.into(), |v| v.span.end);
        let padding = self.bytes.get(end..header.point_offset).unwrap_or_default();
        // The header is written last, because the offsets in it are not known before.
        out.seek(SeekFrom::Start(old.header_size.into())).map_err(failed)?;
        records.iter().try_for_each(|record| record.write_to(&mut *out)).map_err(refused)?;
        out.write_all(padding).map_err(failed)?;
        let point_offset = u32::try_from(out.stream_position().map_err(failed)?)
            .map_err(|_| failed(Error::other("the records before the points reach 4 GiB")))?;
        let compressed = laszip.is_some();
        match laszip {
            Some(vlr) => self.compressed(vlr, out)?,
            None => self.points(|rows| out.write_all(rows).map_err(failed))?,
        }
        let mut new = raw::Header {
            offset_to_point_data: point_offset,
            number_of_variable_length_records: records.len() as u32,
            point_data_record_format: header.point_format | if compressed { 0x80 } else { 0 },
            point_data_record_length: self.plan.record_length as u16,
            ..old.clone()
        };
        self.tail(&mut new, out).map_err(failed)?;
        let mut head = Vec::new();
        new.write_to(&mut head).map_err(refused)?;
        // Sets the version, which the crate does not know.
        put(&mut head, 25, &[header.version.1]);
        out.rewind().map_err(failed)?;
        out.write_all(&head).map_err(failed)
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
                if self.header.format.is_extended {
                    put(row, 16, &[class]);
                } else if let Some(byte) = row.get_mut(15) {
                    // The upper bits are flags of the point.
                    *byte = *byte & 0xe0 | class;
                }
            }
        }
    }

    fn compressed(&self, vlr: LazVlr, out: &mut BufWriter<File>) -> Result<(), CloudError> {
        let failed = |e: String| CloudError::io(self.dest, "write", Error::other(e));
        guarded(self.origin, self.header.point_offset as u64, "the points (compressing)", || {
            let mut compressor = ParLasZipCompressor::new(out, vlr).map_err(|e| failed(e.to_string()))?;
            self.points(|rows| compressor.compress_many(rows).map_err(|e| failed(e.to_string())))?;
            compressor.done().map_err(|e| failed(e.to_string()))
        })
    }

    /// Writes everything behind the points and corrects the offsets to it. Leaves out the octree of a COPC
    /// file, and an extended Extra Bytes record, which is replaced.
    fn tail(&self, new: &mut raw::Header, out: &mut BufWriter<File>) -> std::io::Result<()> {
        let header = self.header;
        let points = header.points.saturating_mul(header.record_length as u64);
        let uncompressed_end = (header.point_offset as u64).saturating_add(points);
        let first = header.evlrs.first().map(|v| v.span.start as u64);
        let start = match header.compressed {
            false => uncompressed_end,
            true => [first, header.waveform].into_iter().flatten().min().unwrap_or(self.bytes.len() as u64),
        };
        let dropped = |v: &&Vlr| v.is_copc() || v.is(EXTRA_BYTES);
        let dropped: Vec<Range<usize>> = header.evlrs.iter().filter(dropped).map(|v| v.span.clone()).collect();
        let moved_to = out.stream_position()?;
        let moved = |at: u64| {
            let before = dropped.iter().filter(|span| (span.start as u64) < at).map(|span| span.len() as u64);
            let before: u64 = before.sum();
            at.wrapping_sub(start).wrapping_add(moved_to).wrapping_sub(before)
        };
        let mut from = start as usize;
        for span in &dropped {
            out.write_all(self.bytes.get(from..span.start).unwrap_or_default())?;
            from = span.end;
        }
        out.write_all(self.bytes.get(from..).unwrap_or_default())?;
        if let Some(first) = first {
            let number_of_evlrs = (header.evlrs.len() - dropped.len()) as u32;
            let start_of_first_evlr = if number_of_evlrs > 0 { moved(first) } else { 0 };
            new.evlr = Some(Evlr { start_of_first_evlr, number_of_evlrs });
        }
        if let Some(at) = header.waveform {
            new.start_of_waveform_data_packet_record = Some(moved(at));
        }
        Ok(())
    }

    /// Records before the points.
    fn records(&self, laszip: Option<&LazVlr>) -> las::Result<Vec<raw::Vlr>> {
        let mut records = Vec::new();
        let mut described = self.plan.extra_bytes.is_empty();
        let is_replaced = |v: &Vlr| !self.plan.legend.is_empty() && v.is((LEGEND, LEGEND_RECORD));
        for vlr in self.header.vlrs.iter().filter(|v| !v.is(LASZIP) && !v.is_copc() && !is_replaced(v)) {
            let mut record = raw::Vlr::read_from(self.bytes.get(vlr.span.clone()).unwrap_or_default(), false)?;
            if vlr.is(EXTRA_BYTES) && !self.plan.extra_bytes.is_empty() {
                if described {
                    continue;
                }
                // The record keeps its own header, except the length.
                record.data.clone_from(&self.plan.extra_bytes);
                record.record_length_after_header = RecordLength::Vlr(record.data.len() as u16);
                described = true;
            }
            records.push(record);
        }
        let mut add = |(user, record_id): (&str, u16), description: &str, data| {
            let record = las::Vlr { user_id: user.into(), record_id, description: description.into(), data };
            record.into_raw(false).map(|record| records.push(record))
        };
        if !described {
            add(EXTRA_BYTES, "Extra Bytes Record", self.plan.extra_bytes.clone())?;
        }
        if !self.plan.legend.is_empty() {
            add((LEGEND, LEGEND_RECORD), "legend of the labels", self.plan.legend.clone().into_bytes())?;
        }
        if let Some(laszip) = laszip {
            let mut data = Vec::new();
            laszip.write_to(&mut data)?;
            add(LASZIP, LazVlr::DESCRIPTION, data)?;
        }
        Ok(records)
    }
}

/// Overwrites `bytes` from `at` on. Values past the end are dropped.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let slots = bytes.get_mut(at..).unwrap_or_default();
    for (slot, &byte) in slots.iter_mut().zip(value) {
        *slot = byte;
    }
}
