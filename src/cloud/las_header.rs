//! Header and variable length records of LAS files.
//!
//! The `las` crate reads the header, but does not check sizes, offsets and counts. They are checked here.

use std::ops::Range;

use las::point::Format;
use las::{Transform, Version, copc, raw};
use laz::LazVlr;

use super::data::{AttributeData, Endian, ScalarType};
use super::error::{CloudError, Origin};
use super::source::{f64_at, take, u16_at, u32_at, u64_at};

pub(super) const EXTRA_BYTES: (&str, u16) = ("LASF_Spec", 4);
pub(super) const LASZIP: (&str, u16) = (LazVlr::USER_ID, LazVlr::RECORD_ID);

pub(super) struct Header {
    /// Header as the crate reads it. It takes a file of LAS 1.5 as 1.4 with a longer header.
    pub raw: raw::Header,
    pub version: (u8, u8),
    pub point_offset: usize,
    pub point_format: u8,
    /// Fields in the standard part of a point record.
    pub format: Format,
    pub compressed: bool,
    pub record_length: usize,
    /// Length of the standard part of a record; extra bytes follow.
    pub standard_length: usize,
    pub points: u64,
    /// Scale and offset of each axis, from stored integers to coordinates.
    pub transforms: [Transform; 3],
    pub vlrs: Vec<Vlr>,
    pub evlrs: Vec<Vlr>,
    /// Start of the waveform record, if it is in the file.
    pub waveform: Option<u64>,
}

/// Place of a variable length record, extended or not.
pub(super) struct Vlr {
    user: [u8; 16],
    record: u16,
    /// The whole record with its header.
    pub span: Range<usize>,
    pub data: Range<usize>,
}

impl Vlr {
    pub(super) fn is(&self, (user, record): (&str, u16)) -> bool {
        self.is_by(user) && self.record == record
    }

    pub(super) fn is_copc(&self) -> bool {
        self.is_by(copc::USER_ID)
    }

    fn is_by(&self, user: &str) -> bool {
        self.user.split(|&byte| byte == 0).next() == Some(user.as_bytes())
    }
}

impl Header {
    pub(super) fn parse(origin: Origin<'_>, bytes: &[u8]) -> Result<Self, CloudError> {
        let size = bytes.len() as u64;
        if size < 227 {
            return Err(origin.truncated(0, "the header", 227, size));
        }
        let [major, minor] = take::<2>(bytes, 24);
        if major != 1 || minor > 5 {
            return Err(origin.value(24, "version", format!("{major}.{minor}"), "1.0 to 1.4"));
        }
        let known = Version::new(1, minor.min(4));
        let (header_size, least) = (u16_at(bytes, 94), known.header_size());
        if header_size < least {
            return Err(origin.value(94, "header size", header_size, format!("{least} or more")));
        }
        let Some(head) = bytes.get(..usize::from(header_size)) else {
            return Err(origin.truncated(0, "the header", header_size.into(), size));
        };
        let mut head = head.to_vec();
        head[25] = known.minor;
        let raw = raw::Header::read_from(head.as_slice()).map_err(|e| origin.decode(0, "the header", e))?;
        let point_offset = raw.offset_to_point_data;
        if point_offset < header_size.into() || u64::from(point_offset) > size {
            let expected = format!("{header_size} (end of the header) to {size} (end of the file)");
            return Err(origin.value(96, "offset to point data", point_offset, expected));
        }
        // Bit 7 marks compression; LASzip also used bit 6 in the past.
        let (point_format, flags) = (raw.point_data_record_format & 0x3f, raw.point_data_record_format & 0xc0);
        let Ok(format) = Format::new(point_format) else {
            return Err(origin.value(104, "point format", point_format, "0 to 10"));
        };
        let (record_length, standard) = (raw.point_data_record_length, format.len());
        if record_length < standard {
            let expected = format!("{standard} or more for point format {point_format}");
            return Err(origin.value(105, "point record length", record_length, expected));
        }
        let points = match raw.large_file {
            Some(large) if large.number_of_point_records > 0 => large.number_of_point_records,
            _ => raw.number_of_point_records.into(),
        };
        let axis = |scale, offset| Transform { scale, offset };
        let transforms = [
            axis(raw.x_scale_factor, raw.x_offset),
            axis(raw.y_scale_factor, raw.y_offset),
            axis(raw.z_scale_factor, raw.z_offset),
        ];
        for (at, Transform { scale, offset }) in (0_u64..).step_by(8).zip(transforms) {
            if !scale.is_finite() || scale == 0.0 {
                return Err(origin.value(131 + at, "scale factor", scale, "a finite number other than 0"));
            }
            if !offset.is_finite() {
                return Err(origin.value(155 + at, "offset", offset, "a finite number"));
            }
        }
        let point_offset = point_offset as usize;
        let count = raw.number_of_variable_length_records;
        let vlrs = records(origin, bytes, header_size.into(), count, point_offset, false)?;
        // Other data must not overlap the points. The end of the points is known if they are not
        // compressed.
        let plain_end = points.saturating_mul(record_length.into()).saturating_add(point_offset as u64);
        let points_end = if flags != 0 || plain_end > size { point_offset } else { plain_end as usize };
        let mut evlrs = Vec::new();
        if known.minor == 4 && u32_at(bytes, 243) > 0 {
            let (start, count) = (u64_at(bytes, 235), u32_at(bytes, 243));
            if start < points_end as u64 || start > size {
                let expected = format!("{points_end} (behind the points) to {size} (end of the file)");
                return Err(origin.value(235, "start of the extended records", start, expected));
            }
            evlrs = records(origin, bytes, start as usize, count, bytes.len(), true)?;
        }
        let waveform = raw.start_of_waveform_data_packet_record;
        Ok(Self {
            version: (major, minor),
            point_offset,
            point_format,
            format,
            compressed: flags != 0,
            record_length: record_length.into(),
            standard_length: standard.into(),
            points,
            transforms,
            vlrs,
            evlrs,
            waveform: waveform.filter(|&at| at >= points_end as u64 && at < size),
            raw,
        })
    }

    pub(super) fn is_copc(&self) -> bool {
        self.vlrs.first().is_some_and(|v| v.is((copc::USER_ID, copc::CopcInfoVlr::RECORD_ID)))
    }

    /// Data of the first record of a kind, extended or not.
    pub(super) fn find<'a>(&self, kind: (&str, u16), bytes: &'a [u8]) -> Option<&'a [u8]> {
        let record = self.vlrs.iter().chain(&self.evlrs).find(|v| v.is(kind))?;
        bytes.get(record.data.clone())
    }

    /// Meaning of the extra bytes of a record, in order. Gaps are described as plain bytes.
    pub(super) fn extra_fields(&self, bytes: &[u8]) -> Vec<Extra> {
        let mut at = self.standard_length;
        let mut extras = Vec::new();
        for record in self.find(EXTRA_BYTES, bytes).unwrap_or_default().chunks_exact(Extra::RECORD) {
            let Some(extra) = Extra::parse(record, at).filter(|e| at + e.size() <= self.record_length) else {
                break;
            };
            at += extra.size();
            extras.push(extra);
        }
        if at < self.record_length {
            extras.push(Extra::unknown(at, self.record_length - at));
        }
        extras
    }
}

/// Finds the `count` records from byte `at` on. They must end by byte `end`.
fn records(
    origin: Origin<'_>,
    bytes: &[u8],
    mut at: usize,
    count: u32,
    end: usize,
    extended: bool,
) -> Result<Vec<Vlr>, CloudError> {
    let (header, field, name, place) = match extended {
        false => (54, 100, "variable length record", format!("before the points at byte {end}")),
        true => (60, 243, "extended record", "in the rest of the file".into()),
    };
    let room = end.saturating_sub(at) / header;
    if count as usize > room {
        return Err(origin.value(
            field,
            format!("number of {name}s"),
            count,
            format!("at most {room}, as fit {place}"),
        ));
    }
    let mut records = Vec::new();
    for i in 0..count {
        let length = if extended { u64_at(bytes, at + 20) } else { u16_at(bytes, at + 20).into() };
        let (needed, left) = (length.saturating_add(header as u64), end.saturating_sub(at) as u64);
        if needed > left {
            return Err(origin.truncated(at as u64, format!("{name} {i}"), needed, left));
        }
        let stop = at + needed as usize;
        let (user, record) = (take(bytes, at + 2), u16_at(bytes, at + 18));
        records.push(Vlr { user, record, span: at..stop, data: at + header..stop });
        at = stop;
    }
    Ok(records)
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
    /// True if the file gives no description, or describes bytes without meaning.
    pub opaque: bool,
    /// Description as stored; empty if there is none.
    pub record: Vec<u8>,
}

/// Types by their number in a description, from 1 on.
const TYPES: [ScalarType; 10] = {
    use ScalarType::{F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
    [U8, I8, U16, I16, U32, I32, U64, I64, F32, F64]
};

impl Extra {
    pub(super) const RECORD: usize = 192;
    pub(super) const LONGEST_NAME: usize = 32;
    /// Place of the description in a record; 32 bytes to the end.
    const ABOUT: usize = 160;

    fn parse(record: &[u8], at: usize) -> Option<Self> {
        let [data_type, options] = take(record, 2);
        let name = take::<{ Self::LONGEST_NAME }>(record, 4);
        let name = String::from_utf8_lossy(name.split(|&b| b == 0).next().unwrap_or_default()).trim().to_string();
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
        let transform = (data_type != 0 && options & 24 != 0).then_some((scale, offset));
        Some(Self { name, at, ty, elements, transform, opaque: data_type == 0, record: record.to_vec() })
    }

    fn unknown(at: usize, elements: usize) -> Self {
        let (name, ty) = ("extra_bytes".into(), ScalarType::U8);
        Self { name, at, ty, elements, transform: None, opaque: true, record: Vec::new() }
    }

    pub(super) fn size(&self) -> usize {
        self.ty.size() * self.elements
    }

    /// Appends element `k` of each record in `rows`.
    pub(super) fn extend(&self, k: usize, rows: &[u8], stride: usize, out: &mut AttributeData) {
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

    /// Makes the description of a new field.
    pub(super) fn describe(name: &str, ty: ScalarType, about: &str) -> [u8; Self::RECORD] {
        let code = TYPES.iter().position(|&t| t == ty).map_or(0, |i| i as u8 + 1);
        let mut record = Self::description(name, code, 0);
        let mut end = about.len().min(Self::RECORD - Self::ABOUT);
        while !about.is_char_boundary(end) {
            end -= 1;
        }
        let about = about.bytes().take(end);
        record.iter_mut().skip(Self::ABOUT).zip(about).for_each(|(slot, byte)| *slot = byte);
        record
    }

    /// Makes descriptions for bytes that the file leaves undescribed. They are needed because the offset of
    /// a later field is the sum of the sizes before it.
    pub(super) fn describe_opaque(bytes: usize) -> Vec<u8> {
        let some = |i: usize| (bytes - 255 * i).min(255) as u8;
        let describe = |i| Self::description(&format!("undocumented {i}"), 0, some(i));
        (0..bytes.div_ceil(255)).flat_map(describe).collect()
    }

    fn description(name: &str, data_type: u8, options: u8) -> [u8; Self::RECORD] {
        let mut record = [0; Self::RECORD];
        let content = [data_type, options].into_iter().chain(name.bytes().take(Self::LONGEST_NAME));
        record.iter_mut().skip(2).zip(content).for_each(|(slot, byte)| *slot = byte);
        record
    }
}
