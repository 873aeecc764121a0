//! E57: all scans of a file as one cloud, each moved by its pose.

use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::path::Path;

use e57::{E57Reader, RecordDataType, RecordName, RecordValue};
use glam::{DQuat, DVec3};

use super::data::{Attribute, AttributeData, GREY, ScalarType};
use super::error::{CloudError, Origin};
use super::source::{u16_at, u64_at};
use super::units::Unit;
use super::{Format, PointCloud, guarded};
use crate::files::Budget;

/// Page size in bytes; the standard allows no other.
const PAGE: usize = 1024;
/// Bytes of data per page; a checksum follows them.
const PAYLOAD: usize = PAGE - 4;
/// Most fields per point. No scanner records as many; the standard itself names 20.
const MOST_FIELDS: usize = 1000;
/// Points may take this many bytes in memory for each byte of the file, but always [`FLOOR`] bytes. Real scans stay
/// below 10. Only identical points with fields of one bit or less are packed tighter.
const MOST_EXPANSION: u64 = 128;
const FLOOR: u64 = 4 << 20;
/// Most attributes of an XML element, and most elements. The standard's have four attributes, and a scan has some
/// hundred elements.
const MOST_XML_ATTRIBUTES: usize = 1000;
const MOST_XML_ELEMENTS: usize = 200_000;
/// Most attributes that a note lists by name.
const MOST_NAMED: usize = 8;

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "E57" };
    let size = bytes.len() as u64;
    if size < 48 {
        return Err(origin.truncated(0, "the header", 48, size));
    }
    let (page, start, length) = (u64_at(bytes, 40), u64_at(bytes, 24), u64_at(bytes, 32));
    if page != PAGE as u64 {
        return Err(origin.value(40, "page size", page, PAGE.to_string()));
    }
    if start >= size || length > size - start {
        let available = size.saturating_sub(start);
        return Err(origin.truncated(start, "the XML section", length, available));
    }
    check_xml(origin, bytes, start, length)?;
    let (scans, crs) = guarded(origin, start, "the XML section", || {
        let reader = E57Reader::new(Cursor::new(bytes)).map_err(|e| origin.decode(start, "the XML section", e))?;
        Ok((reader.pointclouds(), reader.coordinate_metadata().and_then(crs_name)))
    })?;
    guarded(origin, 0, "the pages", || {
        E57Reader::validate_crc(Cursor::new(bytes)).map_err(|e| origin.decode(0, "the pages", e))
    })?;
    check_fields(origin, &scans)?;
    let mut merged = Merged::new(&scans);
    merged.check_sizes(origin, &scans, size)?;
    for (i, scan) in scans.iter().enumerate() {
        merged.add(origin, bytes, i, scan)?;
    }
    Ok(PointCloud { crs, ..merged.finish(scans.len()) })
}

/// Bounds the elements and attributes of the XML section. The parser compares each attribute with all others of
/// its element, and takes some 100 bytes for each element.
fn check_xml(origin: Origin<'_>, bytes: &[u8], start: u64, length: u64) -> Result<(), CloudError> {
    let mut pages = Pages { bytes, at: 0 };
    pages.seek(start);
    let mut xml = Vec::new();
    let whole = usize::try_from(length).is_ok_and(|length| pages.read(length, &mut xml));
    if !whole {
        let available = (bytes.len() as u64).saturating_sub(start);
        return Err(origin.truncated(start, "the XML section", length, available));
    }
    let (mut elements, mut attributes) = (0_usize, 0);
    for &byte in &xml {
        match byte {
            b'<' => (elements, attributes) = (elements + 1, 0),
            b'=' => attributes += 1,
            _ => {}
        }
        if attributes > MOST_XML_ATTRIBUTES {
            let expected = format!("at most {MOST_XML_ATTRIBUTES} attributes or equal signs from element to element");
            return Err(origin.value(start, "the XML section", "an element with too many attributes", expected));
        }
        if elements > MOST_XML_ELEMENTS {
            let expected = format!("at most {MOST_XML_ELEMENTS} elements");
            return Err(origin.value(start, "the XML section", "longer than that of any scan", expected));
        }
    }
    Ok(())
}

/// Name of a coordinate reference system: the first name in WKT, or a short text as it is.
fn crs_name(text: &str) -> Option<String> {
    const LONGEST: usize = 100;
    let name = text.split('"').nth(1).unwrap_or(text).trim();
    (!name.is_empty() && name.len() <= LONGEST).then(|| name.to_owned())
}

/// Bits per stored value; 0 if the limits of the field are equal.
fn bits(ty: &RecordDataType) -> u32 {
    match *ty {
        RecordDataType::Single { .. } => 32,
        RecordDataType::Double { .. } => 64,
        RecordDataType::ScaledInteger { min, max, .. } | RecordDataType::Integer { min, max } => {
            let range = (i128::from(max) - i128::from(min)).max(0) as u128;
            u128::BITS - range.leading_zeros()
        }
    }
}

/// Checks that the fields of each scan can be decoded.
fn check_fields(origin: Origin<'_>, scans: &[e57::PointCloud]) -> Result<(), CloudError> {
    for (i, scan) in scans.iter().enumerate() {
        let offset = scan.file_offset;
        let prototype = || format!("prototype of scan {i}");
        if scan.prototype.len() > MOST_FIELDS {
            let found = format!("{} fields", scan.prototype.len());
            return Err(origin.value(offset, prototype(), found, format!("at most {MOST_FIELDS}")));
        }
        let possible = |r: &e57::Record| match r.data_type {
            RecordDataType::ScaledInteger { min, max, scale, offset } => {
                min <= max && scale.is_finite() && offset.is_finite()
            }
            RecordDataType::Integer { min, max } => min <= max,
            _ => true,
        };
        let mut names = HashSet::new();
        if let Some(twice) = scan.prototype.iter().find(|r| !names.insert(&r.name)) {
            let found = format!("with field \"{}\" twice", name(&twice.name));
            return Err(origin.value(offset, prototype(), found, "each field once"));
        }
        if !scan.prototype.iter().all(possible) {
            let found = "limits or scales that are not possible";
            return Err(origin.value(offset, prototype(), found, "minimum up to maximum, finite scales"));
        }
        if scan.records == 0 {
            continue;
        }
        if scan.prototype.iter().all(|r| bits(&r.data_type) == 0) {
            let what = format!("scan {i}, whose points have no data (all limits equal)");
            return Err(origin.unsupported(offset, what, "at least one field that varies"));
        }
        if !scan.has_cartesian() && !scan.has_spherical() {
            return Err(origin.value(offset, prototype(), "without coordinates", "cartesianX, Y, Z or spherical ones"));
        }
    }
    Ok(())
}

/// The content of the file without the checksums.
struct Pages<'a> {
    bytes: &'a [u8],
    /// Position in the content, checksums not counted.
    at: usize,
}

impl Pages<'_> {
    /// Moves to an offset of the file, which counts the checksums.
    fn seek(&mut self, physical: u64) {
        let physical = usize::try_from(physical).unwrap_or(usize::MAX);
        self.at = physical / PAGE * PAYLOAD + (physical % PAGE).min(PAYLOAD);
    }

    /// Current position as an offset in the file.
    fn offset(&self) -> u64 {
        (self.at / PAYLOAD * PAGE + self.at % PAYLOAD) as u64
    }

    /// Appends the next `length` bytes to `out`. Returns false if the file ends before.
    fn read(&mut self, mut length: usize, out: &mut Vec<u8>) -> bool {
        while length > 0 {
            let (page, from) = (self.at / PAYLOAD, self.at % PAYLOAD);
            let some = length.min(PAYLOAD - from);
            let start = page.saturating_mul(PAGE).saturating_add(from);
            let Some(part) = self.bytes.get(start..start.saturating_add(some)) else {
                return false;
            };
            out.extend_from_slice(part);
            self.at += some;
            length -= some;
        }
        true
    }
}

/// Values of one field, packed bit by bit. A packet may end within a value.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    /// First bit not yet read.
    bit: usize,
}

impl Stream {
    fn next(&mut self, bits: u32) -> u64 {
        let mut window = [0; 16];
        let rest = self.bytes.get(self.bit / 8..).unwrap_or_default();
        for (slot, &byte) in window.iter_mut().zip(rest).take(9) {
            *slot = byte;
        }
        let value = (u128::from_le_bytes(window) >> (self.bit % 8)) as u64;
        self.bit += bits as usize;
        match bits {
            64.. => value,
            _ => value & ((1 << bits) - 1),
        }
    }

    fn available(&self, bits: u32) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.bit).checked_div(bits as usize).unwrap_or(usize::MAX)
    }

    /// Drops the bytes already read, once they are the larger part. So each byte moves only a few times.
    fn compact(&mut self) {
        if self.bit / 8 * 2 >= self.bytes.len() {
            self.bytes.drain(..(self.bit / 8).min(self.bytes.len()));
            self.bit %= 8;
        }
    }
}

/// The packets of a scan.
struct Packets<'a> {
    origin: Origin<'a>,
    number: usize,
    pages: Pages<'a>,
    streams: Vec<Stream>,
    bits: Vec<u32>,
}

impl<'a> Packets<'a> {
    fn open(origin: Origin<'a>, bytes: &'a [u8], number: usize, scan: &e57::PointCloud) -> Result<Self, CloudError> {
        let mut pages = Pages { bytes, at: 0 };
        let bits: Vec<u32> = scan.prototype.iter().map(|r| bits(&r.data_type)).collect();
        let streams = bits.iter().map(|_| Stream::default()).collect();
        pages.seek(scan.file_offset);
        let mut packets = Self { origin, number, pages, streams, bits };
        let mut header = Vec::new();
        packets.read(32, &mut header)?;
        match header.first() {
            Some(1) => packets.pages.seek(u64_at(&header, 16)),
            id => {
                let found = id.copied().unwrap_or_default();
                return Err(origin.value(scan.file_offset, format!("section of scan {number}"), found, "1"));
            }
        }
        Ok(packets)
    }

    fn read(&mut self, length: usize, out: &mut Vec<u8>) -> Result<(), CloudError> {
        let at = self.pages.offset();
        match self.pages.read(length, out) {
            true => Ok(()),
            false => {
                let available = (self.pages.bytes.len() as u64).saturating_sub(at);
                let what = format!("the points of scan {}", self.number);
                Err(self.origin.truncated(at, what, length as u64, available))
            }
        }
    }

    /// Reads packets until at least one point is complete, and returns the number of complete points.
    fn advance(&mut self) -> Result<usize, CloudError> {
        loop {
            let points = self.streams.iter().zip(&self.bits).map(|(s, &bits)| s.available(bits)).min();
            match points {
                Some(points) if points > 0 => return Ok(points),
                _ => self.packet()?,
            }
        }
    }

    fn packet(&mut self) -> Result<(), CloudError> {
        let (start, at) = (self.pages.at, self.pages.offset());
        let mut header = Vec::new();
        self.read(6, &mut header)?;
        let (id, count) = (header.first().copied().unwrap_or_default(), usize::from(u16_at(&header, 4)));
        let end = start + usize::from(u16_at(&header, 2)) + 1;
        let (origin, number) = (self.origin, self.number);
        let bad = |field: &str, found: String, expected: String| {
            Err(origin.value(at, format!("{field} of a packet of scan {number}"), found, expected))
        };
        match id {
            1 if count != self.streams.len() => {
                return bad("number of streams", count.to_string(), format!("{}, one per field", self.streams.len()));
            }
            1 => {}
            // An index packet, or one to be ignored.
            0 | 2 => {
                self.pages.at = end;
                return Ok(());
            }
            _ => return bad("type", id.to_string(), "0, 1 or 2".into()),
        }
        let mut sizes = Vec::new();
        self.read(2 * count, &mut sizes)?;
        let total: usize = (0..count).map(|i| usize::from(u16_at(&sizes, 2 * i))).sum();
        if self.pages.at + total > end {
            let room = end.saturating_sub(self.pages.at);
            return bad("size of the streams", total.to_string(), format!("at most {room}"));
        }
        for i in 0..count {
            let size = usize::from(u16_at(&sizes, 2 * i));
            let mut bytes = self.streams.get_mut(i).map(|s| std::mem::take(&mut s.bytes)).unwrap_or_default();
            self.read(size, &mut bytes)?;
            if let Some(stream) = self.streams.get_mut(i) {
                stream.bytes = bytes;
            }
        }
        self.pages.at = end;
        Ok(())
    }
}

/// How the values of a field are stored, and where they are put.
struct StoredField {
    bits: u32,
    ty: RecordDataType,
    role: Option<Role>,
    /// Smallest and largest value, if the field is a colour channel.
    color: (f64, f64),
}

/// Use of a field of a scan.
enum Role {
    Cartesian(usize),
    Spherical(usize),
    Invalid,
    Color(usize),
    Normal(usize),
    Attribute(usize),
}

fn name(record: &RecordName) -> String {
    let plain = match record {
        RecordName::CartesianX => "cartesianX",
        RecordName::CartesianY => "cartesianY",
        RecordName::CartesianZ => "cartesianZ",
        RecordName::CartesianInvalidState => "cartesianInvalidState",
        RecordName::SphericalRange => "sphericalRange",
        RecordName::SphericalAzimuth => "sphericalAzimuth",
        RecordName::SphericalElevation => "sphericalElevation",
        RecordName::SphericalInvalidState => "sphericalInvalidState",
        RecordName::Intensity => "intensity",
        RecordName::IsIntensityInvalid => "isIntensityInvalid",
        RecordName::ColorRed => "colorRed",
        RecordName::ColorGreen => "colorGreen",
        RecordName::ColorBlue => "colorBlue",
        RecordName::IsColorInvalid => "isColorInvalid",
        RecordName::RowIndex => "rowIndex",
        RecordName::ColumnIndex => "columnIndex",
        RecordName::ReturnCount => "returnCount",
        RecordName::ReturnIndex => "returnIndex",
        RecordName::TimeStamp => "timeStamp",
        RecordName::IsTimeStampInvalid => "isTimeStampInvalid",
        RecordName::Unknown { namespace, name } => return format!("{namespace}:{name}"),
    };
    plain.into()
}

/// The smallest type that holds every value of a field.
fn scalar_type(ty: &RecordDataType) -> ScalarType {
    let RecordDataType::Integer { min, .. } = *ty else {
        return match ty {
            RecordDataType::Single { .. } => ScalarType::F32,
            _ => ScalarType::F64,
        };
    };
    // The stored bits can hold more than the stated maximum.
    let max = i128::from(min) + ((1_i128 << bits(ty)) - 1);
    let fits = |lo: i64, hi: i64| min >= lo && max <= i128::from(hi);
    let types = [
        (ScalarType::U8, 0, i64::from(u8::MAX)),
        (ScalarType::I8, i64::from(i8::MIN), i64::from(i8::MAX)),
        (ScalarType::U16, 0, i64::from(u16::MAX)),
        (ScalarType::I16, i64::from(i16::MIN), i64::from(i16::MAX)),
        (ScalarType::U32, 0, i64::from(u32::MAX)),
        (ScalarType::I32, i64::from(i32::MIN), i64::from(i32::MAX)),
    ];
    types.into_iter().find(|&(_, lo, hi)| fits(lo, hi)).map_or(ScalarType::I64, |(ty, ..)| ty)
}

fn normal_axis(name: &RecordName) -> Option<usize> {
    let RecordName::Unknown { name, .. } = name else {
        return None;
    };
    ["normalX", "normalY", "normalZ"].iter().position(|n| n == name)
}

fn has_normals(scan: &e57::PointCloud) -> bool {
    (0..3).all(|axis| scan.prototype.iter().any(|r| normal_axis(&r.name) == Some(axis)))
}

/// Smallest and largest value of a colour channel, from the scan or from the type of the field.
fn color_range(scan: &e57::PointCloud, channel: usize, ty: &RecordDataType) -> (f64, f64) {
    let plain = |value: &Option<RecordValue>| match value {
        Some(RecordValue::Single(x)) => Some(f64::from(*x)),
        Some(RecordValue::Double(x)) => Some(*x),
        Some(RecordValue::Integer(x)) => Some(*x as f64),
        _ => None,
    };
    let stated = scan.color_limits.as_ref().and_then(|limits| {
        let (min, max) = match channel {
            0 => (&limits.red_min, &limits.red_max),
            1 => (&limits.green_min, &limits.green_max),
            _ => (&limits.blue_min, &limits.blue_max),
        };
        plain(min).zip(plain(max))
    });
    let (min, max) = stated.unwrap_or(match *ty {
        RecordDataType::Integer { min, max } => (min as f64, max as f64),
        RecordDataType::Single { min, max } => (min.unwrap_or(0.0).into(), max.unwrap_or(1.0).into()),
        RecordDataType::Double { min, max } => (min.unwrap_or(0.0), max.unwrap_or(1.0)),
        RecordDataType::ScaledInteger { min, max, scale, offset } => {
            (min as f64 * scale + offset, max as f64 * scale + offset)
        }
    });
    if max > min && max - min <= 65535.0 { (min, max) } else { (0.0, 255.0) }
}

#[derive(Default)]
struct Merged {
    positions: Vec<[f64; 3]>,
    colors: Option<Vec<[u8; 3]>>,
    normals: Option<Vec<[f32; 3]>>,
    attributes: Vec<Attribute>,
    /// Position of each attribute, by its name.
    index: HashMap<String, usize>,
    /// Scan number of each point, if there are several scans.
    scan: Option<Vec<u32>>,
    notes: Vec<String>,
}

impl Merged {
    fn new(scans: &[e57::PointCloud]) -> Self {
        let mut merged = Self {
            colors: scans.iter().any(e57::PointCloud::has_color).then(Vec::new),
            normals: scans.iter().any(has_normals).then(Vec::new),
            scan: (scans.len() > 1).then(Vec::new),
            ..Self::default()
        };
        for scan in scans {
            for record in &scan.prototype {
                if !merged.is_attribute(scan, &record.name) {
                    continue;
                }
                let (name, ty) = (name(&record.name), scalar_type(&record.data_type));
                let known = merged.index.get(&name).and_then(|&i| merged.attributes.get_mut(i));
                match known {
                    None => {
                        merged.index.insert(name.clone(), merged.attributes.len());
                        merged.attributes.push(Attribute::new(name, AttributeData::new(ty)));
                    }
                    Some(known) if known.data.scalar_type() != ty => {
                        known.data = AttributeData::new(ScalarType::F64);
                    }
                    Some(_) => {}
                }
            }
        }
        merged
    }

    /// Checks that the points promised by all scans together fit in the file (sections do not overlap) and
    /// in a memory in proportion to it.
    fn check_sizes(&self, origin: Origin<'_>, scans: &[e57::PointCloud], size: u64) -> Result<(), CloudError> {
        let columns: u64 = self.attributes.iter().map(|a| a.data.scalar_type().size() as u64).sum();
        // Positions, colours, normals and the number of the scan.
        let row = columns + 24 + 3 + 12 + 4;
        let (mut stored, mut points) = (0_u64, 0_u64);
        for (i, scan) in scans.iter().enumerate() {
            let per_point: u64 = scan.prototype.iter().map(|r| u64::from(bits(&r.data_type))).sum();
            stored = stored.saturating_add((scan.records.saturating_mul(per_point)).div_ceil(8));
            points = points.saturating_add(scan.records);
            if stored > size {
                let what = format!("scan {i} with {} points", scan.records);
                return Err(origin.truncated(scan.file_offset, what, stored, size));
            }
            if Budget::new(size, MOST_EXPANSION, FLOOR).charge(points.saturating_mul(row)).is_err() {
                let expected = format!("points that can come from a file of {size} bytes");
                return Err(origin.value(scan.file_offset, "number of points", points, expected));
            }
        }
        Ok(())
    }

    fn is_attribute(&self, scan: &e57::PointCloud, name: &RecordName) -> bool {
        match name {
            RecordName::CartesianX | RecordName::CartesianY | RecordName::CartesianZ => !scan.has_cartesian(),
            RecordName::SphericalRange | RecordName::SphericalAzimuth | RecordName::SphericalElevation => {
                scan.has_cartesian() || !scan.has_spherical()
            }
            RecordName::CartesianInvalidState => !scan.has_cartesian(),
            RecordName::SphericalInvalidState => scan.has_cartesian() || !scan.has_spherical(),
            RecordName::ColorRed | RecordName::ColorGreen | RecordName::ColorBlue => !scan.has_color(),
            other => normal_axis(other).is_none() || !has_normals(scan),
        }
    }

    fn role(&self, scan: &e57::PointCloud, record: &e57::Record) -> Option<Role> {
        if self.is_attribute(scan, &record.name) {
            let name = name(&record.name);
            return self.index.get(&name).copied().map(Role::Attribute);
        }
        Some(match &record.name {
            RecordName::CartesianX => Role::Cartesian(0),
            RecordName::CartesianY => Role::Cartesian(1),
            RecordName::CartesianZ => Role::Cartesian(2),
            RecordName::SphericalRange => Role::Spherical(0),
            RecordName::SphericalAzimuth => Role::Spherical(1),
            RecordName::SphericalElevation => Role::Spherical(2),
            RecordName::ColorRed => Role::Color(0),
            RecordName::ColorGreen => Role::Color(1),
            RecordName::ColorBlue => Role::Color(2),
            RecordName::CartesianInvalidState | RecordName::SphericalInvalidState => Role::Invalid,
            other => Role::Normal(normal_axis(other)?),
        })
    }

    fn add(
        &mut self,
        origin: Origin<'_>,
        bytes: &[u8],
        number: usize,
        scan: &e57::PointCloud,
    ) -> Result<(), CloudError> {
        if scan.records == 0 {
            return Ok(());
        }
        let fields: Vec<StoredField> = (scan.prototype.iter())
            .map(|record| {
                let role = self.role(scan, record);
                let color = match role {
                    Some(Role::Color(channel)) => color_range(scan, channel, &record.data_type),
                    _ => (0.0, 1.0),
                };
                StoredField { bits: bits(&record.data_type), ty: record.data_type.clone(), role, color }
            })
            .collect();
        let pose = pose(scan, number, &mut self.notes);
        let cartesian = scan.has_cartesian();
        let mut packets = Packets::open(origin, bytes, number, scan)?;
        let mut left = scan.records;
        while left > 0 {
            let points = (packets.advance()? as u64).min(left);
            for _ in 0..points {
                self.point(&fields, &mut packets.streams, cartesian, pose);
            }
            left -= points;
            packets.streams.iter_mut().for_each(Stream::compact);
        }
        let n = self.positions.len();
        if let Some(scans) = &mut self.scan {
            scans.resize(n, number as u32);
        }
        self.level(number, scan);
        Ok(())
    }

    /// Reads one value from each stream.
    fn point(&mut self, fields: &[StoredField], streams: &mut [Stream], cartesian: bool, pose: Option<(DQuat, DVec3)>) {
        let (mut xyz, mut spherical) = ([f64::NAN; 3], [f64::NAN; 3]);
        let (mut rgb, mut normal, mut valid) = (GREY, [f64::NAN; 3], true);
        for (field, stream) in fields.iter().zip(streams) {
            let raw = stream.next(field.bits);
            let x = || number_of(&field.ty, raw);
            match field.role {
                Some(Role::Cartesian(axis)) => set(&mut xyz, axis, x()),
                Some(Role::Spherical(part)) => set(&mut spherical, part, x()),
                Some(Role::Normal(axis)) => set(&mut normal, axis, x()),
                Some(Role::Invalid) => valid &= x() == 0.0,
                Some(Role::Color(channel)) => {
                    let (min, max) = field.color;
                    set(&mut rgb, channel, ((x() - min) / (max - min) * 255.0).round() as u8);
                }
                Some(Role::Attribute(i)) => {
                    if let Some(attribute) = self.attributes.get_mut(i) {
                        match field.ty {
                            RecordDataType::Integer { min, .. } => {
                                attribute.data.push_i64(min.wrapping_add_unsigned(raw));
                            }
                            _ => attribute.data.push_f64(x()),
                        }
                    }
                }
                None => {}
            }
        }
        if !cartesian {
            let [range, azimuth, elevation] = spherical;
            let flat = range * elevation.cos();
            xyz = [flat * azimuth.cos(), flat * azimuth.sin(), range * elevation.sin()];
        }
        if let Some((rotation, translation)) = pose {
            xyz = (rotation * DVec3::from(xyz) + translation).to_array();
            normal = (rotation * DVec3::from(normal)).to_array();
        }
        self.positions.push(if valid { xyz } else { [f64::NAN; 3] });
        if let Some(colors) = &mut self.colors {
            colors.push(rgb);
        }
        if let Some(normals) = &mut self.normals {
            normals.push(normal.map(|x| x as f32));
        }
    }

    /// Pads the columns that other scans have and this one lacks.
    fn level(&mut self, number: usize, scan: &e57::PointCloud) {
        let n = self.positions.len();
        let mut lacking = Vec::new();
        if self.colors.is_some() && !scan.has_color() {
            lacking.push("colours".into());
            self.notes.push(format!("the points of scan {number} are grey"));
        }
        if self.normals.is_some() && !has_normals(scan) {
            lacking.push("normals".into());
        }
        let mut more = 0;
        for attribute in &mut self.attributes {
            if attribute.data.len() < n && lacking.len() < MOST_NAMED {
                lacking.push(format!("\"{}\"", attribute.name));
            } else if attribute.data.len() < n {
                more += 1;
            }
            while attribute.data.len() < n {
                // An integer column gets zeros.
                attribute.data.push_f64(f64::NAN);
            }
        }
        if more > 0 {
            lacking.push(format!("{more} others"));
        }
        if !lacking.is_empty() {
            self.notes.push(format!("scan {number} has no {}", lacking.join(", ")));
        }
    }

    fn finish(mut self, scans: usize) -> PointCloud {
        if let Some(scan) = self.scan {
            self.attributes.push(Attribute::new("scan", scan));
        }
        PointCloud {
            positions: self.positions,
            colors: self.colors,
            normals: self.normals,
            attributes: self.attributes,
            format: Format::E57 { scans },
            // The standard prescribes metres.
            unit: Some(Unit::Metre),
            notes: self.notes,
            ..PointCloud::default()
        }
    }
}

/// Converts stored bits to the value of a field. Integers are stored relative to their minimum.
fn number_of(ty: &RecordDataType, raw: u64) -> f64 {
    match *ty {
        RecordDataType::Single { .. } => f32::from_bits(raw as u32).into(),
        RecordDataType::Double { .. } => f64::from_bits(raw),
        RecordDataType::Integer { min, .. } => min.wrapping_add_unsigned(raw) as f64,
        RecordDataType::ScaledInteger { min, scale, offset, .. } => {
            min.wrapping_add_unsigned(raw) as f64 * scale + offset
        }
    }
}

fn set<T>(array: &mut [T; 3], i: usize, value: T) {
    if let Some(slot) = array.get_mut(i) {
        *slot = value;
    }
}

/// Rotation and translation of a scan; `None` if it has no pose.
fn pose(scan: &e57::PointCloud, number: usize, notes: &mut Vec<String>) -> Option<(DQuat, DVec3)> {
    let transform = scan.transform.as_ref()?;
    let (q, t) = (&transform.rotation, &transform.translation);
    let rotation = DQuat::from_xyzw(q.x, q.y, q.z, q.w);
    let length = rotation.length();
    let rotation = if length.is_finite() && length > 1e-9 {
        rotation.normalize()
    } else {
        notes.push(format!("the rotation of scan {number} is invalid and is ignored"));
        DQuat::IDENTITY
    };
    Some((rotation, DVec3::new(t.x, t.y, t.z)))
}
