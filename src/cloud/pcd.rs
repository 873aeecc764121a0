//! PCD, the format of the Point Cloud Library.

use std::path::Path;

use super::data::{Attribute, AttributeData, Endian, ScalarType, colors_from};
use super::error::{CloudError, Origin, quoted};
use super::source::{u32_at, words};
use super::{Format, PcdEncoding, PointCloud};

const LONGEST_HEADER: usize = 1 << 16;
/// Most values per point. The longest descriptors have some 2000. Each becomes a named column, even if
/// there are no points.
const MOST_VALUES: usize = 10_000;
const LONGEST_NAME: usize = 256;

const KEYWORDS: [&[u8]; 4] = [b"VERSION", b"FIELDS", b"COLUMNS", b"# .PCD"];

/// True if the first line that is not a comment can start a PCD header.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    let head = bytes.get(..4096).unwrap_or(bytes);
    let starts = |line: &[u8]| KEYWORDS.iter().any(|k| line.starts_with(k));
    head.split(|&b| b == b'\n')
        .map(<[u8]>::trim_ascii_start)
        .find(|line| starts(line) || !(line.is_empty() || line.starts_with(b"#")))
        .is_some_and(starts)
}

struct Field {
    name: String,
    ty: ScalarType,
    count: usize,
    /// Offset in a point record, in bytes.
    offset: usize,
}

struct Header {
    fields: Vec<Field>,
    points: u64,
    size: Option<(u64, u64)>,
    encoding: PcdEncoding,
    /// Bytes per point.
    stride: usize,
    /// Start of the points, in bytes.
    body: usize,
    /// Line on which the points start, from 1.
    line: u64,
}

fn header(origin: Origin<'_>, bytes: &[u8]) -> Result<Header, CloudError> {
    let head = bytes.get(..LONGEST_HEADER).unwrap_or(bytes);
    let mut names: Vec<String> = Vec::new();
    let (mut sizes, mut types, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut width, mut height, mut points) = (None, None, None);
    let (mut at, mut line) = (0, 0);
    let encoding = loop {
        line += 1;
        let rest = head.get(at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&b| b == b'\n') else {
            return Err(origin.line(line, "no DATA line", "a header that ends with DATA"));
        };
        let text = rest.get(..length).unwrap_or_default();
        at += length + 1;
        let bad = |expected: &str| origin.line(line, quoted(text), expected);
        if text.trim_ascii_start().starts_with(b"#") {
            continue;
        }
        let words = std::str::from_utf8(text).map_err(|_| bad("text"))?;
        let mut words = words.split_ascii_whitespace();
        let key = words.next().unwrap_or_default().to_ascii_uppercase();
        let mut number = || words.next().and_then(|w| w.parse::<u64>().ok());
        match key.as_str() {
            "" | "VERSION" | "VIEWPOINT" => {}
            "FIELDS" | "COLUMNS" => names = words.map(String::from).collect(),
            "SIZE" | "COUNT" => {
                let numbers: Result<Vec<u16>, _> = words.map(str::parse).collect();
                let numbers = numbers.map_err(|_| bad("numbers from 0 to 65535"))?;
                *(if key == "SIZE" { &mut sizes } else { &mut counts }) = numbers;
            }
            "TYPE" => types = words.map(str::to_ascii_uppercase).collect(),
            "WIDTH" => width = Some(number().ok_or_else(|| bad("WIDTH and a number"))?),
            "HEIGHT" => height = Some(number().ok_or_else(|| bad("HEIGHT and a number"))?),
            "POINTS" => points = Some(number().ok_or_else(|| bad("POINTS and a number"))?),
            "DATA" => {
                break match words.next().map(str::to_ascii_lowercase).as_deref() {
                    Some("ascii") => PcdEncoding::Ascii,
                    Some("binary") => PcdEncoding::Binary,
                    Some("binary_compressed") => PcdEncoding::BinaryCompressed,
                    _ => return Err(bad("DATA ascii, binary or binary_compressed")),
                };
            }
            _ => {
                return Err(bad("a PCD header line (FIELDS, SIZE, TYPE, COUNT, WIDTH, ...)"));
            }
        }
    };
    if counts.is_empty() {
        counts = vec![1; names.len()];
    }
    if names.is_empty() || [sizes.len(), types.len(), counts.len()].iter().any(|&n| n != names.len()) {
        return Err(origin.line(
            line,
            format!("{} FIELDS, {} SIZE, {} TYPE, {} COUNT", names.len(), sizes.len(), types.len(), counts.len()),
            "the same number of each, at least one",
        ));
    }
    let mut fields = Vec::new();
    let mut stride = 0_usize;
    for (((name, size), ty), count) in names.into_iter().zip(sizes).zip(types).zip(counts) {
        let ty = match (ty.as_str(), size) {
            ("F", 4) => ScalarType::F32,
            ("F", 8) => ScalarType::F64,
            ("U", 1) => ScalarType::U8,
            ("U", 2) => ScalarType::U16,
            ("U", 4) => ScalarType::U32,
            ("U", 8) => ScalarType::U64,
            ("I", 1) => ScalarType::I8,
            ("I", 2) => ScalarType::I16,
            ("I", 4) => ScalarType::I32,
            ("I", 8) => ScalarType::I64,
            _ => {
                let found = format!("field \"{name}\" with TYPE {ty} and SIZE {size}");
                return Err(origin.line(line, found, "F with 4 or 8, I or U with 1, 2, 4 or 8"));
            }
        };
        let count = usize::from(count);
        fields.push(Field { name, ty, count, offset: stride });
        stride += ty.size() * count;
    }
    let values: usize = fields.iter().map(|f| f.count).sum();
    let longest = fields.iter().map(|f| f.name.len()).max().unwrap_or(0);
    if values > MOST_VALUES || longest > LONGEST_NAME {
        let found = format!("{values} values per point, names of up to {longest} bytes");
        return Err(origin.line(line, found, format!("at most {MOST_VALUES} and {LONGEST_NAME}")));
    }
    let size = width.zip(height);
    let grid = size.and_then(|(w, h)| w.checked_mul(h));
    let Some(points) = points.or(grid) else {
        return Err(origin.line(line, "no POINTS, nor WIDTH and HEIGHT", "a number of points"));
    };
    Ok(Header { fields, points, size, encoding, stride, body: at, line })
}

/// One column per element of each field, in field order.
type Columns = Vec<AttributeData>;

fn empty_columns(header: &Header) -> Columns {
    let columns = header.fields.iter().flat_map(|f| {
        // Text may hold more digits of a coordinate than the declared type.
        let wide = header.encoding == PcdEncoding::Ascii && (axis_of(&f.name).is_some() || packed(f).is_some());
        let ty = if wide { ScalarType::F64 } else { f.ty };
        std::iter::repeat_with(move || AttributeData::new(ty)).take(f.count)
    });
    columns.collect()
}

fn axis_of(name: &str) -> Option<usize> {
    ["x", "y", "z"].iter().position(|axis| name.eq_ignore_ascii_case(axis))
}

/// `None` if the field does not pack red, green and blue into one number; else true if it packs alpha too.
fn packed(field: &Field) -> Option<bool> {
    if field.ty.size() != 4 || field.count != 1 {
        return None;
    }
    match field.name.to_ascii_lowercase().as_str() {
        "rgb" => Some(false),
        "rgba" => Some(true),
        _ => None,
    }
}

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "PCD" };
    let header = header(origin, bytes)?;
    for axis in ["x", "y", "z"] {
        if !header.fields.iter().any(|f| f.name.eq_ignore_ascii_case(axis) && f.count > 0) {
            let found = format!("FIELDS without \"{axis}\"");
            return Err(origin.line(header.line, found, "x, y and z"));
        }
    }
    let available = bytes.len().saturating_sub(header.body) as u64;
    let values: usize = header.fields.iter().map(|f| f.count).sum();
    // For text: a digit and a separator for each value, but none after the last.
    let needed = match header.encoding {
        PcdEncoding::Ascii => (header.points.saturating_mul(values as u64).saturating_mul(2)).saturating_sub(1),
        PcdEncoding::Binary => header.points.saturating_mul(header.stride as u64),
        PcdEncoding::BinaryCompressed => 8,
    };
    if needed > available {
        let what = format!("{} points", header.points);
        return Err(origin.truncated(header.body as u64, what, needed, available));
    }
    let body = bytes.get(header.body..).unwrap_or_default();
    let mut columns = empty_columns(&header);
    match header.encoding {
        PcdEncoding::Ascii => read_ascii(origin, &header, body, &mut columns)?,
        PcdEncoding::Binary => {
            let body = body.get(..needed as usize).unwrap_or_default();
            let mut each = columns.iter_mut();
            for field in &header.fields {
                for (k, column) in each.by_ref().take(field.count).enumerate() {
                    let at = field.offset + k * field.ty.size();
                    column.reserve(header.points as usize);
                    column.extend_rows(body, header.stride, at, Endian::Little);
                }
            }
        }
        PcdEncoding::BinaryCompressed => read_compressed(origin, &header, body, &mut columns)?,
    }
    Ok(assemble(&header, columns))
}

fn read_ascii(origin: Origin<'_>, header: &Header, body: &[u8], columns: &mut Columns) -> Result<(), CloudError> {
    let mut lines = body.split(|&b| b == b'\n').zip(header.line + 1..);
    for _ in 0..header.points {
        let Some((text, number)) = lines.by_ref().find(|(text, _)| !text.trim_ascii().is_empty()) else {
            let last = header.line + body.iter().filter(|&&b| b == b'\n').count() as u64;
            let expected = format!("{} points (the file is cut off)", header.points);
            return Err(origin.line(last, "the end of the file", expected));
        };
        let mut words = words(text);
        let names = header.fields.iter().flat_map(|f| std::iter::repeat_n(&f.name, f.count));
        for (column, name) in columns.iter_mut().zip(names) {
            let word = words.next().unwrap_or_default();
            if !column.push_text(word) {
                let expected = format!("field \"{name}\" as {}", column.scalar_type().name());
                return Err(origin.line(number, quoted(word), expected));
            }
        }
    }
    Ok(())
}

fn read_compressed(origin: Origin<'_>, header: &Header, body: &[u8], columns: &mut Columns) -> Result<(), CloudError> {
    let at = header.body as u64;
    let (packed, size) = (u32_at(body, 0), u32_at(body, 4));
    let expected = header.points.saturating_mul(header.stride as u64);
    if u64::from(size) != expected {
        let expected = format!("{expected} ({} points of {} bytes)", header.points, header.stride);
        return Err(origin.value(at + 4, "uncompressed size", size, expected));
    }
    let data = body.get(8..).unwrap_or_default();
    let available = data.len() as u64;
    let Some(data) = data.get(..packed as usize) else {
        return Err(origin.truncated(at + 8, "the compressed points", u64::from(packed), available));
    };
    let data = lzf(data, size as usize).map_err(|problem| origin.decode(at + 8, "the compressed points", problem))?;
    // Stored field by field, so each field is a block.
    let points = header.points as usize;
    let mut rest = data.as_slice();
    let mut each = columns.iter_mut();
    for field in &header.fields {
        let size = field.ty.size() * field.count;
        let (block, after) = rest.split_at_checked(size * points).unwrap_or_default();
        rest = after;
        for (k, column) in each.by_ref().take(field.count).enumerate() {
            column.extend_rows(block, size, k * field.ty.size(), Endian::Little);
        }
    }
    Ok(())
}

/// Decompresses LZF data. The result must be `size` bytes long.
///
/// The format is a series of runs. A control byte n below 32 means that n + 1 bytes follow uncompressed.
/// Any other control byte is a copy of earlier output. Its upper three bits are the length minus two; if
/// they are seven, another byte is added to the length. Its lower five bits and the next byte are the
/// distance minus one.
fn lzf(mut data: &[u8], size: usize) -> Result<Vec<u8>, String> {
    // The longest copy makes 264 bytes from 3. A larger size is wrong, and would only take memory.
    if size > data.len().saturating_mul(88) {
        return Err(format!("{} bytes cannot hold {size}", data.len()));
    }
    let mut out = Vec::with_capacity(size);
    let cut = || "the data end within a run".to_string();
    while let Some((&control, rest)) = data.split_first() {
        data = rest;
        if control < 32 {
            let (run, rest) = data.split_at_checked(usize::from(control) + 1).ok_or_else(cut)?;
            out.extend_from_slice(run);
            data = rest;
        } else {
            let mut byte = || -> Result<usize, String> {
                let (&first, rest) = data.split_first().ok_or_else(cut)?;
                data = rest;
                Ok(usize::from(first))
            };
            let mut length = usize::from(control >> 5) + 2;
            if length == 9 {
                length += byte()?;
            }
            let distance = (usize::from(control & 31) << 8 | byte()?) + 1;
            let Some(start) = out.len().checked_sub(distance) else {
                return Err(format!("a copy from {distance} bytes before output {}", out.len()));
            };
            // Source and target may overlap. Then bytes just written are repeated.
            for i in start..start + length {
                let copy = out.get(i).copied().unwrap_or_default();
                out.push(copy);
            }
        }
        if out.len() > size {
            return Err(format!("more than the expected {size} bytes come out"));
        }
    }
    match out.len() {
        n if n == size => Ok(out),
        n => Err(format!("{n} bytes come out, expected {size}")),
    }
}

/// Integer that holds a packed colour.
fn packed_bits(column: &AttributeData, i: usize) -> u32 {
    match column {
        AttributeData::U32(v) => v.get(i).copied().unwrap_or_default(),
        AttributeData::I32(v) => v.get(i).copied().unwrap_or_default() as u32,
        AttributeData::F32(v) => v.get(i).copied().unwrap_or_default().to_bits(),
        other => other.get_f64(i).unwrap_or_default() as u32,
    }
}

/// The same from text. If the field is declared as float, the text has one of two forms. It is the float
/// whose bits are the colour (a tiny number, or a huge one with alpha), or the integer itself.
fn packed_text(ty: ScalarType, x: f64) -> u32 {
    match ty {
        // Opaque colours are NaN as floats, and text does not keep their bits.
        ScalarType::F32 if x.is_nan() => 0,
        ScalarType::F32 if !(1.0..=f64::from(u32::MAX)).contains(&x) => (x as f32).to_bits(),
        ScalarType::I32 => x as i32 as u32,
        _ => x as u32,
    }
}

fn assemble(header: &Header, columns: Columns) -> PointCloud {
    let mut notes = Vec::new();
    let mut axes: [Option<AttributeData>; 3] = Default::default();
    let mut colors = None;
    let mut attributes = Vec::new();
    let mut each = columns.into_iter();
    for field in &header.fields {
        let mut values = each.by_ref().take(field.count);
        if field.name == "_" {
            // Padding between fields.
            values.for_each(drop);
            continue;
        }
        if let Some(axis) = axis_of(&field.name).and_then(|a| axes.get_mut(a))
            && axis.is_none()
        {
            *axis = values.next();
        } else if let Some(alpha) = packed(field)
            && colors.is_none()
        {
            let Some(column) = values.next() else {
                continue;
            };
            let bits: Vec<u32> = match (&column, header.encoding) {
                (AttributeData::F64(v), PcdEncoding::Ascii) => v.iter().map(|&x| packed_text(field.ty, x)).collect(),
                _ => (0..column.len()).map(|i| packed_bits(&column, i)).collect(),
            };
            let rgb = |&bits: &u32| [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
            colors = Some(bits.iter().map(rgb).collect());
            if alpha {
                let alpha: Vec<u8> = bits.iter().map(|bits| (bits >> 24) as u8).collect();
                attributes.push(Attribute::new("alpha", alpha));
            }
            continue;
        }
        for (k, data) in values.enumerate() {
            let name = match field.count {
                1 => field.name.clone(),
                _ => format!("{}[{k}]", field.name),
            };
            attributes.push(Attribute::new(name, data));
        }
    }
    let n = axes.iter().flatten().map(AttributeData::len).min().unwrap_or(0);
    let positions = (0..n)
        .map(|i| axes.each_ref().map(|axis| axis.as_ref().and_then(|a| a.get_f64(i)).unwrap_or(f64::NAN)))
        .collect();
    let channels = [["r", "g", "b"], ["red", "green", "blue"]];
    let separate = channels.iter().find_map(|set| take_three(&mut attributes, set));
    if let Some([r, g, b]) = separate {
        match colors {
            None => colors = Some(colors_from(&r.data, &g.data, &b.data, &mut notes)),
            Some(_) => attributes.extend([r, g, b]),
        }
    }
    let axes = [["normal_x", "normal_y", "normal_z"], ["nx", "ny", "nz"]];
    let normals = axes.iter().find_map(|set| take_three(&mut attributes, set));
    let normals = normals.map(|set| {
        let at = |a: &Attribute, i| a.data.get_f64(i).unwrap_or(f64::NAN) as f32;
        (0..n).map(|i| set.each_ref().map(|axis| at(axis, i))).collect()
    });
    let organized = match header.size {
        Some((w, h)) if h > 1 && w.checked_mul(h) == Some(header.points) => Some((w as usize, h as usize)),
        Some((w, h)) if w.checked_mul(h) != Some(header.points) => {
            let points = header.points;
            notes.push(format!("the header gives {points} points but a grid of {w} by {h}; the grid is ignored"));
            None
        }
        _ => None,
    };
    PointCloud {
        positions,
        colors,
        normals,
        attributes,
        organized,
        format: Format::Pcd { encoding: header.encoding },
        notes,
        ..PointCloud::default()
    }
}

/// Removes three attributes if all of them exist. The case of letters does not matter.
fn take_three(attributes: &mut Vec<Attribute>, names: &[&str; 3]) -> Option<[Attribute; 3]> {
    let find = |name: &str| attributes.iter().position(|a| a.name.eq_ignore_ascii_case(name));
    let [Some(a), Some(b), Some(c)] = names.map(find) else {
        return None;
    };
    let taken = [a, b, c].map(|i| attributes.get(i).cloned());
    let [Some(x), Some(y), Some(z)] = taken else {
        return None;
    };
    let mut index = 0;
    attributes.retain(|_| {
        index += 1;
        ![a, b, c].contains(&(index - 1))
    });
    Some([x, y, z])
}

#[cfg(test)]
mod tests {
    use super::{lzf, packed_text};
    use crate::cloud::ScalarType;

    #[test]
    fn lzf_runs_and_overlapping_copies() {
        // "ab" as it is, then a copy of 5 bytes from 2 back.
        assert_eq!(lzf(&[1, b'a', b'b', 3 << 5, 1], 7).unwrap(), b"abababa");
        // A long copy: 7 + 2 + 10 bytes from 1 back.
        assert_eq!(lzf(&[0, b'x', 7 << 5, 10, 0], 20).unwrap(), [b'x'; 20]);
    }

    #[test]
    fn lzf_rejects_damage() {
        assert!(lzf(&[5, 1, 2], 6).is_err());
        assert!(lzf(&[0, 1, 1 << 5, 7], 4).is_err());
        assert!(lzf(&[0, 1], 2).is_err());
        assert!(lzf(&[0, 1, 0, 2], 1).is_err());
        assert!(lzf(&[0, 1], usize::MAX).is_err());
        assert_eq!(lzf(&[], 0).unwrap(), [0_u8; 0]);
    }

    #[test]
    fn packed_colour_text() {
        let bits = 0x00ff_8001_u32;
        assert_eq!(packed_text(ScalarType::U32, f64::from(bits)), bits);
        assert_eq!(packed_text(ScalarType::F32, f64::from(bits)), bits);
        let float = f64::from(f32::from_bits(bits));
        assert_eq!(packed_text(ScalarType::F32, float), bits);
        let opaque = f64::from(f32::from_bits(0xfe10_2030));
        assert_eq!(packed_text(ScalarType::F32, opaque), 0xfe10_2030);
    }
}
