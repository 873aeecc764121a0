//! LAS, LAZ and COPC: reading the points.

use std::path::Path;

use las::point::Format as PointFormat;
use las::point::ScanDirection::LeftToRight;
use las::raw;
use las::raw::point::{Flags, Waveform};

use super::data::{Attribute, AttributeData, ColorRange, ScalarType};
use super::error::{CloudError, Origin};
use super::georef::{self, Globe};
use super::las_header::Header;
use super::las_points::for_each_batch;
use super::source::u16_at;
use super::units::Unit;
use super::{Format, PointCloud};

/// Points parsed at a time: few enough to stay in the cache until their properties are taken out.
const TOGETHER: usize = 1 << 10;

/// Property in the standard part of a point.
struct Standard {
    name: &'static str,
    ty: ScalarType,
    extend: fn(&[raw::Point], &mut AttributeData),
}

/// `property!(name, type, |point| value)`, where `type` is a scalar type.
macro_rules! property {
    ($name:literal, $ty:ident, |$point:ident| $value:expr) => {
        Standard {
            name: $name,
            ty: ScalarType::$ty,
            extend: |points, out| {
                if let AttributeData::$ty(out) = out {
                    out.extend(points.iter().map(|$point| $value));
                }
            },
        }
    };
}

/// Properties of points of a format, in the order of their bytes and bits.
fn properties(format: &PointFormat) -> Vec<Standard> {
    let mut all = vec![
        property!("intensity", U16, |p| p.intensity),
        property!("return_number", U8, |p| p.flags.return_number()),
        property!("number_of_returns", U8, |p| p.flags.number_of_returns()),
    ];
    let ways = [
        property!("scan_direction_flag", U8, |p| u8::from(p.flags.scan_direction() == LeftToRight)),
        property!("edge_of_flight_line", U8, |p| u8::from(p.flags.is_edge_of_flight_line())),
    ];
    let class = property!("classification", U8, |p| match p.flags {
        Flags::TwoByte(_, class) => class & 31,
        Flags::ThreeByte(_, _, class) => class,
    });
    let marks = [
        property!("synthetic", U8, |p| u8::from(p.flags.is_synthetic())),
        property!("key_point", U8, |p| u8::from(p.flags.is_key_point())),
        property!("withheld", U8, |p| u8::from(p.flags.is_withheld())),
    ];
    let user = property!("user_data", U8, |p| p.user_data);
    if format.is_extended {
        all.extend(marks);
        all.push(property!("overlap", U8, |p| u8::from(p.flags.is_overlap())));
        all.push(property!("scanner_channel", U8, |p| p.flags.scanner_channel()));
        all.extend(ways);
        all.extend([class, user, property!("scan_angle", I16, |p| i16::from(p.scan_angle))]);
    } else {
        all.extend(ways);
        all.push(class);
        all.extend(marks);
        all.extend([property!("scan_angle_rank", I8, |p| i8::from(p.scan_angle)), user]);
    }
    all.push(property!("point_source_id", U16, |p| p.point_source_id));
    if format.has_gps_time {
        all.push(property!("gps_time", F64, |p| p.gps_time.unwrap_or_default()));
    }
    if format.has_nir {
        all.push(property!("nir", U16, |p| p.nir.unwrap_or_default()));
    }
    if format.has_waveform {
        fn wave(point: &raw::Point) -> Waveform {
            point.waveform.unwrap_or_default()
        }
        all.extend([
            property!("wavepacket_index", U8, |p| wave(p).wave_packet_descriptor_index),
            property!("wavepacket_offset", U64, |p| wave(p).byte_offset_to_waveform_data),
            property!("wavepacket_size", U32, |p| wave(p).waveform_packet_size_in_bytes),
            property!("return_point_wave_location", F32, |p| wave(p).return_point_waveform_location),
            property!("x_t", F32, |p| wave(p).x_t),
            property!("y_t", F32, |p| wave(p).y_t),
            property!("z_t", F32, |p| wave(p).z_t),
        ]);
    }
    all
}

/// Offset of the colours in points of this format: three values of 16 bits.
pub(super) fn color_offset(format: &PointFormat) -> Option<usize> {
    // The format without the fields behind the colours: colours would come next.
    let before = PointFormat { has_color: false, has_nir: false, has_waveform: false, ..*format };
    format.has_color.then(|| before.len().into())
}

/// True if points of this format have a standard property called `name`.
pub(super) fn is_standard(format: &PointFormat, name: &str) -> bool {
    properties(format).iter().any(|standard| standard.name == name)
}

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "LAS" };
    let header = Header::parse(origin, bytes)?;
    let standard = properties(&header.format);
    let extras = header.extra_fields(bytes);
    let mut attributes: Vec<Attribute> =
        standard.iter().map(|s| Attribute::new(s.name, AttributeData::new(s.ty))).collect();
    for extra in &extras {
        let ty = if extra.transform.is_some() { ScalarType::F64 } else { extra.ty };
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
    let mut points: Vec<raw::Point> = Vec::with_capacity(TOGETHER);
    let length = header.record_length;
    for_each_batch(origin, &header, bytes, |rows| {
        for rows in rows.chunks(TOGETHER * length) {
            // The extra bytes are not parsed: the crate would allocate memory for each point.
            points.clear();
            for row in rows.chunks_exact(length) {
                let point = raw::Point::read_from(row, &header.format);
                points.push(point.map_err(|e| origin.decode(header.point_offset as u64, "a point", e))?);
            }
            let [x, y, z] = header.transforms;
            positions.extend(points.iter().map(|p| [x.direct(p.x), y.direct(p.y), z.direct(p.z)]));
            wide.extend(points.iter().filter_map(|p| p.color).map(|c| [c.red, c.green, c.blue]));
            let mut columns = attributes.iter_mut().map(|a| &mut a.data);
            standard.iter().zip(columns.by_ref()).for_each(|(s, column)| (s.extend)(&points, column));
            for extra in &extras {
                for (k, column) in columns.by_ref().take(extra.elements).enumerate() {
                    extra.extend(k, rows, length, column);
                }
            }
        }
        Ok(())
    })?;
    let mut notes = Vec::new();
    if extras.iter().any(|e| e.record.is_empty()) {
        notes.push("the points have extra bytes that no record describes".into());
    }
    let Reference { unit, vertical, globe, crs } = reference(&header, bytes);
    if let (Some(across), Some(up)) = (unit, vertical)
        && across != up
        && globe.is_none()
    {
        notes.push(format!("x and y are in {across}, heights in {up}"));
    }
    let (version, point_format) = (header.version, header.point_format);
    let format = match header.compressed {
        true if header.is_copc() => Format::Copc { version, point_format },
        true => Format::Laz { version, point_format },
        false => Format::Las { version, point_format },
    };
    let colors = if header.format.has_color { colors(&wide, &mut notes) } else { None };
    let mut cloud = PointCloud { positions, colors, attributes, format, unit, crs, notes, ..PointCloud::default() };
    if let Some(globe) = globe {
        cloud.unit = None;
        georef::to_local(&mut cloud, globe, vertical.and_then(Unit::metres).unwrap_or(1.0));
    }
    Ok(cloud)
}

fn colors(wide: &[[u16; 3]], notes: &mut Vec<String>) -> Option<Vec<[u8; 3]>> {
    let max = wide.iter().flatten().copied().max()?;
    if max == 0 {
        notes.push("all colours are black, taken as missing".into());
        return None;
    }
    let (range, over) = ColorRange::of(wide.iter().flatten().map(|&x| x.into()), false);
    if range == ColorRange::Words {
        return Some(wide.iter().map(|rgb| rgb.map(|x| (x >> 8) as u8)).collect());
    }
    notes.push("8-bit colours in 16-bit fields, kept as they are".into());
    range.note(over, notes);
    Some(wide.iter().map(|rgb| rgb.map(|x| x.min(255) as u8)).collect())
}

const PROJECTION: &str = "LASF_Projection";
const WKT: u16 = 2112;
const GEO_KEYS: u16 = 34735;

/// What the coordinate reference system states.
#[derive(Default)]
struct Reference {
    /// Unit of x and y.
    unit: Option<Unit>,
    /// Unit of heights.
    vertical: Option<Unit>,
    /// Kind of coordinates, if they are not on a plane.
    globe: Option<Globe>,
    crs: Option<String>,
}

fn reference(header: &Header, bytes: &[u8]) -> Reference {
    if let Some(text) = header.find((PROJECTION, WKT), bytes) {
        return wkt(&String::from_utf8_lossy(text));
    }
    let Some(keys) = header.find((PROJECTION, GEO_KEYS), bytes) else { return Reference::default() };
    let unit = |key| geo_key(keys, key).and_then(epsg_unit);
    // The kind of model: on a plane, geographic or geocentric.
    let globe = match geo_key(keys, 1024) {
        Some(2) => Some(Globe::Geographic),
        Some(3) => Some(Globe::Geocentric),
        _ => None,
    };
    let degrees = (globe == Some(Globe::Geographic)).then_some(Unit::Degree);
    // Codes of the plane or of the globe; 32767 stands for one of the user's own.
    let code = [3072, 2048].into_iter().find_map(|key| geo_key(keys, key).filter(|code| (1024..32767).contains(code)));
    Reference {
        unit: unit(3076).or(degrees),
        vertical: unit(4099),
        globe,
        crs: code.map(|code| format!("EPSG:{code}")),
    }
}

fn wkt(text: &str) -> Reference {
    let name = text.split('"').nth(1).map(str::to_owned);
    let text = text.to_ascii_lowercase();
    let start = ["vert_cs", "vertcrs"].iter().filter_map(|name| text.find(name)).min();
    let (across, up) = text.split_at_checked(start.unwrap_or(text.len())).unwrap_or_default();
    let has = |names: &[&str]| names.iter().any(|name| across.contains(name));
    let globe = if has(&["projcs", "projcrs"]) {
        None
    } else if has(&["geoccs"]) || (has(&["geodcrs", "geodeticcrs"]) && has(&["cartesian"])) {
        Some(Globe::Geocentric)
    } else if has(&["geogcs", "geogcrs", "geographiccrs", "geodcrs", "geodeticcrs"]) {
        Some(Globe::Geographic)
    } else {
        None
    };
    let unit = match globe {
        Some(Globe::Geographic) => Some(Unit::Degree),
        Some(Globe::Geocentric) => Some(Unit::Metre),
        None => has(&["projcs", "projcrs"]).then(|| wkt_unit(across)).flatten(),
    };
    Reference { unit, vertical: wkt_unit(up), globe, crs: name }
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

/// Last unit of length in a piece of WKT. Units of angles come before it.
fn wkt_unit(text: &str) -> Option<Unit> {
    let (_, last) = text.rsplit_once("unit[\"")?;
    match last.split('"').next()? {
        name if name.contains("survey") || name.contains("us-ft") || name.contains("ftus") => Some(Unit::UsSurveyFoot),
        name if name.contains("foot") || name.contains("feet") => Some(Unit::Foot),
        name if name.starts_with("met") || name == "m" => Some(Unit::Metre),
        _ => None,
    }
}
