//! The header and variable length records of LAS files.

use std::ops::Range;

use super::data::{AttributeData, Endian, ScalarType};
use super::error::{CloudError, Origin};
use super::source::{f64_at, take, u16_at, u32_at, u64_at};

/// Bytes of the standard part of point formats 0 to 10.
const RECORD_LENGTHS: [u16; 11] = [20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67];

pub(super) const EXTRA_BYTES: (&[u8], u16) = (b"LASF_Spec", 4);
pub(super) const LASZIP: (&[u8], u16) = (b"laszip encoded", 22204);
pub(super) const COPC: &[u8] = b"copc";

pub(super) struct Header {
    pub version: (u8, u8),
    pub header_size: usize,
    pub point_offset: usize,
    pub point_format: u8,
    pub compressed: bool,
    pub record_length: usize,
    /// Length of the standard part of a record; extra bytes follow.
    pub standard_length: usize,
    pub points: u64,
    pub scale: [f64; 3],
    pub offset: [f64; 3],
    pub vlrs: Vec<Vlr>,
    pub evlrs: Vec<Vlr>,
    /// Where the records after the points start, if there are any.
    pub first_evlr: Option<u64>,
    /// Where the waveform record starts, if it is in the file.
    pub waveform: Option<u64>,
}

/// A (possibly extended) variable length record.
pub(super) struct Vlr {
    user: [u8; 16],
    pub record: u16,
    /// The whole record with its header.
    pub span: Range<usize>,
    pub data: Range<usize>,
}

impl Vlr {
    pub fn user(&self) -> &[u8] {
        let end = self.user.iter().position(|&b| b == 0);
        self.user.get(..end.unwrap_or(16)).unwrap_or_default()
    }

    pub fn is(&self, (user, record): (&[u8], u16)) -> bool {
        self.user() == user && self.record == record
    }
}

pub(super) const VLR_HEADER: usize = 54;
const EVLR_HEADER: usize = 60;

impl Header {
    pub fn parse(origin: Origin<'_>, bytes: &[u8]) -> Result<Self, CloudError> {
        let size = bytes.len() as u64;
        if bytes.len() < 227 {
            return Err(origin.truncated(0, "the header", 227, size));
        }
        let version = (take::<1>(bytes, 24)[0], take::<1>(bytes, 25)[0]);
        if version.0 != 1 || version.1 > 5 {
            let found = format!("{}.{}", version.0, version.1);
            return Err(origin.value(24, "version", found, "1.0 to 1.4"));
        }
        let header_size = usize::from(u16_at(bytes, 94));
        let least = match version.1 {
            0..=2 => 227,
            3 => 235,
            _ => 375,
        };
        if header_size < least {
            return Err(origin.value(94, "header size", header_size, format!("{least} or more")));
        }
        if header_size > bytes.len() {
            return Err(origin.truncated(0, "the header", header_size as u64, size));
        }
        let point_offset = u32_at(bytes, 96);
        if (point_offset as usize) < header_size || u64::from(point_offset) > size {
            let expected = format!("{header_size} (end of the header) to {size} (end of the file)");
            return Err(origin.value(96, "offset to point data", point_offset, expected));
        }
        // Bit 7 marks compression; LASzip once also used bit 6.
        let raw_format = take::<1>(bytes, 104)[0];
        let (point_format, compressed) = (raw_format & 0x3f, raw_format & 0xc0 != 0);
        let Some(&standard) = RECORD_LENGTHS.get(usize::from(point_format)) else {
            return Err(origin.value(104, "point format", point_format, "0 to 10"));
        };
        let record_length = u16_at(bytes, 105);
        if record_length < standard {
            let expected = format!("{standard} or more for point format {point_format}");
            return Err(origin.value(105, "point record length", record_length, expected));
        }
        let legacy = u64::from(u32_at(bytes, 107));
        let points = match version.1 {
            4.. if u64_at(bytes, 247) > 0 => u64_at(bytes, 247),
            _ => legacy,
        };
        let triple = |at| [at, at + 8, at + 16].map(|at| f64_at(bytes, at));
        let (scale, offset) = (triple(131), triple(155));
        for (axis, &scale) in scale.iter().enumerate() {
            if !scale.is_finite() || scale == 0.0 {
                let at = 131 + 8 * axis as u64;
                return Err(origin.value(at, "scale factor", scale, "a finite number other than 0"));
            }
        }
        for (axis, &offset) in offset.iter().enumerate() {
            if !offset.is_finite() {
                return Err(origin.value(155 + 8 * axis as u64, "offset", offset, "a finite number"));
            }
        }
        let point_offset = point_offset as usize;
        let vlrs = vlrs(origin, bytes, header_size, u32_at(bytes, 100), point_offset)?;
        // Other data must not overlap the points, whose end is known if they are not compressed.
        let plain_end = points.saturating_mul(record_length.into()).saturating_add(point_offset as u64);
        let points_end = if compressed || plain_end > size { point_offset } else { plain_end as usize };
        let (mut evlrs, mut first_evlr) = (Vec::new(), None);
        if version.1 >= 4 && u32_at(bytes, 243) > 0 {
            let start = u64_at(bytes, 235);
            evlrs = extended(origin, bytes, start, u32_at(bytes, 243), points_end)?;
            first_evlr = Some(start);
        }
        let waveform = (version.1 >= 3).then(|| u64_at(bytes, 227)).filter(|&at| at >= points_end as u64 && at < size);
        Ok(Self {
            version,
            header_size,
            point_offset,
            point_format,
            compressed,
            record_length: usize::from(record_length),
            standard_length: usize::from(standard),
            points,
            scale,
            offset,
            vlrs,
            evlrs,
            first_evlr,
            waveform,
        })
    }

    pub fn is_copc(&self) -> bool {
        self.vlrs.first().is_some_and(|v| v.is((COPC, 1)))
    }

    /// The first record of a kind, extended or not.
    pub fn find(&self, kind: (&[u8], u16)) -> Option<&Vlr> {
        self.vlrs.iter().chain(&self.evlrs).find(|v| v.is(kind))
    }

    /// What the extra bytes of a record mean, in order; gaps are described as plain bytes.
    pub fn extra_fields(&self, bytes: &[u8]) -> Vec<Extra> {
        let mut at = self.standard_length;
        let mut extras = Vec::new();
        let data = self.find(EXTRA_BYTES).and_then(|v| bytes.get(v.data.clone())).unwrap_or_default();
        for record in data.chunks_exact(Extra::RECORD) {
            let Some(extra) = Extra::parse(record, at) else {
                break;
            };
            if at + extra.size() > self.record_length {
                break;
            }
            at += extra.size();
            extras.push(extra);
        }
        if at < self.record_length {
            extras.push(Extra::unknown(at, self.record_length - at));
        }
        extras
    }
}

fn vlrs(origin: Origin<'_>, bytes: &[u8], mut at: usize, count: u32, end: usize) -> Result<Vec<Vlr>, CloudError> {
    let room = end.saturating_sub(at) / VLR_HEADER;
    if count as usize > room {
        let expected = format!("at most {room}, as fit before the points at byte {end}");
        return Err(origin.value(100, "number of variable length records", count, expected));
    }
    let mut vlrs = Vec::new();
    for i in 0..count {
        let data = at + VLR_HEADER;
        let stop = data + usize::from(u16_at(bytes, at + 20));
        if stop > end {
            let what = format!("variable length record {i}");
            return Err(origin.truncated(at as u64, what, (stop - at) as u64, end.saturating_sub(at) as u64));
        }
        vlrs.push(Vlr { user: take(bytes, at + 2), record: u16_at(bytes, at + 18), span: at..stop, data: data..stop });
        at = stop;
    }
    Ok(vlrs)
}

fn extended(origin: Origin<'_>, bytes: &[u8], start: u64, count: u32, least: usize) -> Result<Vec<Vlr>, CloudError> {
    let size = bytes.len();
    let mut at = match usize::try_from(start) {
        Ok(at) if at >= least && at <= size => at,
        _ => {
            let expected = format!("{least} (behind the points) to {size} (end of the file)");
            return Err(origin.value(235, "start of the extended records", start, expected));
        }
    };
    let room = (size - at) / EVLR_HEADER;
    if count as usize > room {
        let expected = format!("at most {room}, as fit in the rest of the file");
        return Err(origin.value(243, "number of extended records", count, expected));
    }
    let mut evlrs = Vec::new();
    for i in 0..count {
        let data = at + EVLR_HEADER;
        let length = u64_at(bytes, at + 20);
        let stop = usize::try_from(length).ok().and_then(|length| data.checked_add(length));
        let Some(stop) = stop.filter(|&stop| stop <= size) else {
            let what = format!("extended record {i}");
            let needed = length.saturating_add(EVLR_HEADER as u64);
            return Err(origin.truncated(at as u64, what, needed, (size - at) as u64));
        };
        evlrs.push(Vlr { user: take(bytes, at + 2), record: u16_at(bytes, at + 18), span: at..stop, data: data..stop });
        at = stop;
    }
    Ok(evlrs)
}

/// One extra dimension of the points, as an Extra Bytes record describes it.
pub(super) struct Extra {
    pub name: String,
    /// Offset in a point record, in bytes.
    pub at: usize,
    /// Type of each element.
    pub ty: ScalarType,
    pub elements: usize,
    /// Scale and offset of each element, if the record has them.
    pub transform: Option<([f64; 3], [f64; 3])>,
    /// Not described by the file, or described as bytes without meaning.
    pub opaque: bool,
    /// The description as stored; empty if there is none.
    pub record: Vec<u8>,
}

const TYPES: [ScalarType; 10] = [
    ScalarType::U8,
    ScalarType::I8,
    ScalarType::U16,
    ScalarType::I16,
    ScalarType::U32,
    ScalarType::I32,
    ScalarType::U64,
    ScalarType::I64,
    ScalarType::F32,
    ScalarType::F64,
];

impl Extra {
    pub const RECORD: usize = 192;
    pub const NAME: Range<usize> = 4..36;

    fn parse(record: &[u8], at: usize) -> Option<Self> {
        let [data_type, options] = take::<2>(record, 2);
        let name = record.get(Self::NAME).unwrap_or_default();
        let name = name.split(|&b| b == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).trim().to_string();
        let (ty, elements) = match data_type {
            0 => (ScalarType::U8, usize::from(options)),
            1..=30 => {
                let index = usize::from(data_type - 1);
                (*TYPES.get(index % 10)?, index / 10 + 1)
            }
            _ => return None,
        };
        let triple = |at| [at, at + 8, at + 16].map(|at| f64_at(record, at));
        let scale = if options & 8 != 0 { triple(112) } else { [1.0; 3] };
        let offset = if options & 16 != 0 { triple(136) } else { [0.0; 3] };
        Some(Self {
            name,
            at,
            ty,
            elements,
            transform: (data_type != 0 && options & 24 != 0).then_some((scale, offset)),
            opaque: data_type == 0,
            record: record.to_vec(),
        })
    }

    fn unknown(at: usize, elements: usize) -> Self {
        Self {
            name: "extra_bytes".into(),
            at,
            ty: ScalarType::U8,
            elements,
            transform: None,
            opaque: true,
            record: Vec::new(),
        }
    }

    pub fn size(&self) -> usize {
        self.ty.size() * self.elements
    }

    /// Appends element `k` of each record in `rows`.
    pub fn extend(&self, k: usize, rows: &[u8], stride: usize, out: &mut AttributeData) {
        let at = self.at + k * self.ty.size();
        match (self.transform, &mut *out) {
            (Some((scale, offset)), AttributeData::F64(out)) => {
                let (scale, offset) = (scale.get(k).unwrap_or(&1.0), offset.get(k).unwrap_or(&0.0));
                let raw = rows.chunks_exact(stride).map(|r| self.ty.read_f64(r, at, Endian::Little));
                out.extend(raw.map(|x| x * scale + offset));
            }
            (_, out) => out.extend_rows(rows, stride, at, Endian::Little),
        }
    }

    /// The description of a new field.
    pub fn describe(name: &str, ty: ScalarType) -> Vec<u8> {
        let mut record = vec![0; Self::RECORD];
        let code = TYPES.iter().position(|&t| t == ty).map_or(0, |i| i as u8 + 1);
        if let Some(slot) = record.get_mut(2) {
            *slot = code;
        }
        put_text(&mut record, Self::NAME, name);
        record
    }

    /// Descriptions of bytes that the file leaves undescribed: later fields count from the ones before.
    pub fn describe_opaque(mut bytes: usize) -> Vec<u8> {
        let mut records = Vec::new();
        let mut number = 0;
        while bytes > 0 {
            let some = bytes.min(255);
            let mut record = vec![0; Self::RECORD];
            if let Some(slot) = record.get_mut(3) {
                *slot = some as u8;
            }
            put_text(&mut record, Self::NAME, &format!("undocumented {number}"));
            records.extend(record);
            bytes -= some;
            number += 1;
        }
        records
    }
}

fn put_text(record: &mut [u8], range: Range<usize>, text: &str) {
    for (slot, byte) in record.get_mut(range).unwrap_or_default().iter_mut().zip(text.bytes()) {
        *slot = byte;
    }
}
