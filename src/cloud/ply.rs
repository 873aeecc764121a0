//! PLY: the header, and the reader.

mod faces;

use std::ops::Range;
use std::path::Path;

use super::data::{Attribute, AttributeData, CHANNELS, Endian, ScalarType, colors_from};
use super::error::{CloudError, Origin, quoted};
use super::splats::{Splats, along_face, color_of, sigmoid};
use super::{Format, PlyEncoding, PointCloud};
use faces::{Faces, is_strips};

/// Longest header in bytes, far above any real one. The limit keeps a file without an end of header from
/// being held as lines.
const LONGEST_HEADER: usize = 1 << 20;

pub(super) fn looks_like(bytes: &[u8]) -> bool {
    [&b"ply\n"[..], b"ply\r", b"ply "].iter().any(|start| bytes.starts_with(start))
}

pub(super) struct Header {
    pub encoding: PlyEncoding,
    pub elements: Vec<Element>,
    /// Files of pictures that the comments name.
    pub pictures: Vec<String>,
    /// Start of the first element, in bytes.
    pub body: usize,
}

pub(super) struct Element {
    pub name: String,
    pub count: u64,
    pub properties: Vec<Property>,
    /// Position just after the last line of this element. Another property can be inserted there.
    pub end: usize,
}

pub(super) struct Property {
    pub name: String,
    pub kind: Kind,
    /// The text of the header line, without its end.
    pub line: Range<usize>,
    /// True if types are written with names like `float32` instead of `float`.
    pub sized: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Scalar(ScalarType),
    List { count: ScalarType, item: ScalarType },
}

impl Header {
    pub(super) fn endian(&self) -> Endian {
        match self.encoding {
            PlyEncoding::BinaryBigEndian => Endian::Big,
            _ => Endian::Little,
        }
    }

    pub(super) fn parse(origin: Origin<'_>, bytes: &[u8]) -> Result<Self, CloudError> {
        let mut encoding = None;
        let mut elements: Vec<Element> = Vec::new();
        let mut pictures = Vec::new();
        let head = bytes.get(..LONGEST_HEADER).unwrap_or(bytes);
        let (mut at, mut number) = (0, 0);
        loop {
            number += 1;
            let rest = head.get(at..).unwrap_or_default();
            let Some(length) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                return Err(origin.line(
                    number,
                    "no end of the header",
                    format!("\"end_header\" within the first {} bytes", head.len()),
                ));
            };
            let text = rest.get(..length).unwrap_or_default();
            let line = at..at + length;
            let crlf = rest.get(length..length + 2) == Some(b"\r\n".as_slice());
            at += length + if crlf { 2 } else { 1 };
            let bad = |expected: &str| origin.line(number, quoted(text), expected);
            // Comments may hold any bytes; everything else is ASCII.
            let comment = text.starts_with(b"comment") || text.starts_with(b"obj_info");
            if comment && number > 1 {
                pictures.extend(picture_name(text));
                continue;
            }
            let Ok(words) = std::str::from_utf8(text) else {
                return Err(bad("text"));
            };
            let mut words = words.split_ascii_whitespace();
            match words.next() {
                Some("ply") if number == 1 => {}
                Some("format") => {
                    encoding = Some(match words.next() {
                        Some("ascii") => PlyEncoding::Ascii,
                        Some("binary_little_endian") => PlyEncoding::BinaryLittleEndian,
                        Some("binary_big_endian") => PlyEncoding::BinaryBigEndian,
                        _ => {
                            return Err(bad("format ascii, binary_little_endian or binary_big_endian"));
                        }
                    });
                }
                Some("element") => {
                    let (Some(name), Some(Ok(count))) = (words.next(), words.next().map(str::parse)) else {
                        return Err(bad("\"element NAME COUNT\""));
                    };
                    elements.push(Element { name: name.to_string(), count, properties: Vec::new(), end: at });
                }
                Some("property") => {
                    let Some(element) = elements.last_mut() else {
                        return Err(bad("an element before its properties"));
                    };
                    let kind_name = words.next().unwrap_or_default();
                    let kind = if kind_name == "list" {
                        let mut scalar = || words.next().and_then(ScalarType::from_ply);
                        match (scalar(), scalar()) {
                            (Some(ScalarType::F32 | ScalarType::F64), _) => None,
                            (Some(count), Some(item)) => Some(Kind::List { count, item }),
                            _ => None,
                        }
                    } else {
                        ScalarType::from_ply(kind_name).map(Kind::Scalar)
                    };
                    let (Some(kind), Some(name)) = (kind, words.next()) else {
                        return Err(bad("\"property TYPE NAME\" or \"property list TYPE TYPE NAME\""));
                    };
                    element.properties.push(Property {
                        name: name.to_string(),
                        kind,
                        line,
                        sized: kind_name.ends_with(|c: char| c.is_ascii_digit()),
                    });
                    element.end = at;
                }
                Some("end_header") => break,
                None => {}
                _ => {
                    return Err(bad("format, element, property, comment, obj_info or end_header"));
                }
            }
        }
        let Some(encoding) = encoding else {
            return Err(origin.line(number, "end_header without a format", "a line \"format ...\""));
        };
        Ok(Self { encoding, elements, pictures, body: at })
    }

    /// True if the file is a mesh whose large triangles may be cut: it has colours besides those of vertices.
    pub(super) fn may_be_cut(&self) -> bool {
        let colored = |element: &Element| element.properties.iter().any(|p| p.name.eq_ignore_ascii_case(CHANNELS[0]));
        !self.pictures.is_empty() || self.elements.iter().any(|element| is_face(element) && colored(element))
    }

    pub(super) fn vertex(&self) -> Option<usize> {
        (self.elements.iter()).position(|e| e.name.eq_ignore_ascii_case("vertex"))
    }
}

/// The file that a comment "TextureFile NAME" names.
fn picture_name(comment: &[u8]) -> Option<String> {
    let text = comment.strip_prefix(b"comment")?.trim_ascii();
    let name = text.strip_prefix(b"TextureFile")?.trim_ascii();
    Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty())
}

/// Property names of colours. The first set of which the file has all three names is used.
const COLORS: [[&str; 3]; 3] = [CHANNELS, ["r", "g", "b"], ["diffuse_red", "diffuse_green", "diffuse_blue"]];

impl Element {
    /// Properties that new colours replace. `None` marks a property that must be added.
    pub(super) fn color_slots(&self) -> [Option<usize>; 3] {
        let find = |name| self.properties.iter().position(|p| p.name.eq_ignore_ascii_case(name));
        let plain = CHANNELS.map(find);
        // If the file has some of the plain names, other colours must not be renamed to them: the name
        // would repeat.
        if plain.iter().any(Option::is_some) {
            return plain;
        }
        let scalar = |slot: &Option<usize>| {
            let property = slot.and_then(|i| self.properties.get(i));
            property.is_some_and(|p| matches!(p.kind, Kind::Scalar(_)))
        };
        COLORS.map(|set| set.map(find)).into_iter().find(|slots| slots.iter().all(scalar)).unwrap_or_default()
    }

    /// Bytes per row in binary files, if all rows have the same length.
    pub(super) fn stride(&self) -> Option<usize> {
        self.properties
            .iter()
            .map(|p| match p.kind {
                Kind::Scalar(ty) => Some(ty.size()),
                Kind::List { .. } => None,
            })
            .sum()
    }

    /// Smallest number of bytes that one row can take in the file.
    fn smallest_row(&self, ascii: bool) -> u64 {
        self.properties
            .iter()
            .map(|p| match p.kind {
                // A digit and a separator.
                _ if ascii => 2,
                Kind::Scalar(ty) => ty.size() as u64,
                Kind::List { count, .. } => count.size() as u64,
            })
            .sum()
    }

    /// Number of rows. Checks that the rest of the file from `at` can hold them.
    pub(super) fn rows(&self, origin: Origin<'_>, bytes: &[u8], at: usize, ascii: bool) -> Result<usize, CloudError> {
        let available = bytes.len().saturating_sub(at) as u64;
        let needed = self.count.saturating_mul(self.smallest_row(ascii));
        // The last value of a text file needs no separator.
        if needed > available + u64::from(ascii) {
            let what = format!("element \"{}\" with {} rows", self.name, self.count);
            return Err(origin.truncated(at as u64, what, needed, available));
        }
        match self.smallest_row(ascii) {
            0 => Ok(0),
            _ => Ok(self.count as usize),
        }
    }
}

/// Walks the rows of an element in a binary file.
pub(super) struct BinaryRows<'a> {
    pub origin: Origin<'a>,
    pub bytes: &'a [u8],
    pub endian: Endian,
}

impl BinaryRows<'_> {
    /// End of the property that starts at `at`.
    pub(super) fn property_end(&self, property: &Property, at: usize) -> Result<usize, CloudError> {
        let need = |at: usize, length: usize| match at.checked_add(length) {
            Some(end) if end <= self.bytes.len() => Ok(end),
            _ => Err(self.origin.truncated(
                at as u64,
                format!("property \"{}\"", property.name),
                length as u64,
                self.bytes.len().saturating_sub(at) as u64,
            )),
        };
        match property.kind {
            Kind::Scalar(ty) => need(at, ty.size()),
            Kind::List { count, item } => {
                let start = need(at, count.size())?;
                let items = count.read_i64(self.bytes, at, self.endian);
                let Ok(items) = usize::try_from(items) else {
                    let field = format!("length of list \"{}\"", property.name);
                    return Err(self.origin.value(at as u64, field, items, "zero or more"));
                };
                need(start, items.saturating_mul(item.size()))
            }
        }
    }

    /// Calls `visit` with the start of every property of every row. Returns the end of the last.
    pub(super) fn walk(
        &self,
        element: &Element,
        mut at: usize,
        mut visit: impl FnMut(usize, usize) -> Result<(), CloudError>,
    ) -> Result<usize, CloudError> {
        for _ in 0..element.rows(self.origin, self.bytes, at, false)? {
            for (i, property) in element.properties.iter().enumerate() {
                visit(i, at)?;
                at = self.property_end(property, at)?;
            }
        }
        Ok(at)
    }

    /// End of the element that starts at `at`.
    pub(super) fn skip(&self, element: &Element, at: usize) -> Result<usize, CloudError> {
        match element.stride() {
            Some(stride) => Ok(at + element.rows(self.origin, self.bytes, at, false)? * stride),
            None => self.walk(element, at, |_, _| Ok(())),
        }
    }
}

/// Words in the body of a text file.
pub(super) struct Words<'a> {
    pub origin: Origin<'a>,
    pub bytes: &'a [u8],
    pub at: usize,
    pub line: u64,
}

impl<'a> Words<'a> {
    pub(super) fn new(origin: Origin<'a>, bytes: &'a [u8], header: &Header) -> Self {
        let head = bytes.get(..header.body).unwrap_or_default();
        Self { origin, bytes, at: header.body, line: head.iter().filter(|&&b| b == b'\n').count() as u64 + 1 }
    }

    pub(super) fn next(&mut self, what: &str) -> Result<&'a [u8], CloudError> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !byte.is_ascii_whitespace() {
                break;
            }
            self.line += u64::from(byte == b'\n');
            self.at += 1;
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        if length == 0 {
            let expected = format!("a value for {what} (the file is cut off)");
            return Err(self.origin.line(self.line, "the end of the file", expected));
        }
        self.at += length;
        Ok(rest.get(..length).unwrap_or_default())
    }

    pub(super) fn bad(&self, word: &[u8], expected: String) -> CloudError {
        self.origin.line(self.line, quoted(word), expected)
    }

    pub(super) fn count(&mut self, property: &Property) -> Result<u64, CloudError> {
        let word = self.next(&property.name)?;
        let count = std::str::from_utf8(word).ok().and_then(|w| w.parse().ok());
        count.ok_or_else(|| self.bad(word, format!("the length of list \"{}\"", property.name)))
    }

    pub(super) fn skip_property(&mut self, property: &Property) -> Result<(), CloudError> {
        let words = match property.kind {
            Kind::Scalar(_) => 1,
            Kind::List { .. } => self.count(property)?,
        };
        for _ in 0..words {
            self.next(&property.name)?;
        }
        Ok(())
    }

    pub(super) fn skip(&mut self, element: &Element) -> Result<(), CloudError> {
        for _ in 0..element.rows(self.origin, self.bytes, self.at, true)? {
            for property in &element.properties {
                self.skip_property(property)?;
            }
        }
        Ok(())
    }
}

/// Columns of the vertex element, and the faces.
struct Body {
    columns: Vec<Option<AttributeData>>,
    points: usize,
    faces: Faces,
}

pub(super) fn is_index_list(property: &Property) -> bool {
    matches!(property.kind, Kind::List { .. })
        && ["vertex_indices", "vertex_index"].contains(&property.name.to_ascii_lowercase().as_str())
}

pub(super) fn is_face(element: &Element) -> bool {
    element.name.eq_ignore_ascii_case("face")
}

fn axis_of(name: &str) -> Option<usize> {
    ["x", "y", "z"].iter().position(|axis| name.eq_ignore_ascii_case(axis))
}

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "PLY" };
    let header = Header::parse(origin, bytes)?;
    let Some(vertex) = header.vertex().and_then(|i| header.elements.get(i)) else {
        return Err(origin.line(1, "a header without vertices", "a line \"element vertex COUNT\""));
    };
    for axis in ["x", "y", "z"] {
        let found =
            vertex.properties.iter().any(|p| p.name.eq_ignore_ascii_case(axis) && matches!(p.kind, Kind::Scalar(_)));
        if !found {
            return Err(origin.line(
                1,
                format!("a header without vertex property \"{axis}\""),
                "vertices with x, y and z",
            ));
        }
    }
    let mut body = match header.encoding {
        PlyEncoding::Ascii => read_ascii(origin, bytes, &header)?,
        _ => read_binary(origin, bytes, &header)?,
    };
    let faces = std::mem::take(&mut body.faces);
    Ok(faces::finish(path, &header, faces, assemble(&header, vertex, body)))
}

fn read_binary(origin: Origin<'_>, bytes: &[u8], header: &Header) -> Result<Body, CloudError> {
    let endian = header.endian();
    let rows = BinaryRows { origin, bytes, endian };
    let (vertex, mut at) = (header.vertex(), header.body);
    let vertices = vertex.and_then(|v| header.elements.get(v)).map_or(0, |v| v.count);
    let mut body = Body { columns: Vec::new(), points: 0, faces: Faces::default() };
    for (i, element) in header.elements.iter().enumerate() {
        if Some(i) == vertex {
            body.points = element.rows(origin, bytes, at, false)?;
            body.columns = columns(element, |ty| ty);
            at = binary_vertices(&rows, element, at, &mut body.columns)?;
        } else if is_face(element) && element.properties.iter().any(is_index_list) {
            at = body.faces.read_binary(&rows, element, at, vertices)?;
        } else if is_strips(element) {
            at = body.faces.read_binary_strips(&rows, element, at, vertices)?;
        } else {
            at = rows.skip(element, at)?;
        }
    }
    Ok(body)
}

fn binary_vertices(
    rows: &BinaryRows<'_>,
    element: &Element,
    at: usize,
    columns: &mut [Option<AttributeData>],
) -> Result<usize, CloudError> {
    if let Some(stride) = element.stride() {
        let end = rows.skip(element, at)?;
        let block = rows.bytes.get(at..end).unwrap_or_default();
        let mut offset = 0;
        for (property, column) in element.properties.iter().zip(columns) {
            let Kind::Scalar(ty) = property.kind else {
                continue;
            };
            if let Some(column) = column {
                column.reserve(block.len() / stride.max(1));
                column.extend_rows(block, stride, offset, rows.endian);
            }
            offset += ty.size();
        }
        return Ok(end);
    }
    rows.walk(element, at, |i, at| {
        let (Some(property), Some(Some(column))) = (element.properties.get(i), columns.get_mut(i)) else {
            return Ok(());
        };
        let end = rows.property_end(property, at)?;
        let value = rows.bytes.get(at..end).unwrap_or_default();
        column.extend_rows(value, value.len(), 0, rows.endian);
        Ok(())
    })
}

/// The scalar columns of an element of a binary file, with their names.
pub(super) fn table(
    rows: &BinaryRows<'_>,
    element: &Element,
    at: usize,
) -> Result<Vec<(String, AttributeData)>, CloudError> {
    let mut columns = columns(element, |ty| ty);
    binary_vertices(rows, element, at, &mut columns)?;
    let named = element.properties.iter().zip(columns);
    Ok(named.filter_map(|(property, column)| Some((property.name.clone(), column?))).collect())
}

/// An empty column for each scalar property.
fn columns(element: &Element, ty_of: impl Fn(ScalarType) -> ScalarType) -> Vec<Option<AttributeData>> {
    let column = |property: &Property| match property.kind {
        // Text keeps more digits of a coordinate than the declared type may hold.
        Kind::Scalar(ty) if axis_of(&property.name).is_some() => Some(AttributeData::new(ty_of(ty))),
        Kind::Scalar(ty) => Some(AttributeData::new(ty)),
        Kind::List { .. } => None,
    };
    element.properties.iter().map(column).collect()
}

fn read_ascii(origin: Origin<'_>, bytes: &[u8], header: &Header) -> Result<Body, CloudError> {
    let mut words = Words::new(origin, bytes, header);
    let vertex = header.vertex();
    let vertices = vertex.and_then(|v| header.elements.get(v)).map_or(0, |v| v.count);
    let mut body = Body { columns: Vec::new(), points: 0, faces: Faces::default() };
    for (i, element) in header.elements.iter().enumerate() {
        if Some(i) == vertex {
            body.points = element.rows(origin, bytes, words.at, true)?;
            body.columns = columns(element, |_| ScalarType::F64);
            for column in body.columns.iter_mut().flatten() {
                column.reserve(body.points);
            }
            for _ in 0..body.points {
                for (property, column) in element.properties.iter().zip(&mut body.columns) {
                    let Some(column) = column else {
                        words.skip_property(property)?;
                        continue;
                    };
                    let word = words.next(&property.name)?;
                    if !column.push_text(word) {
                        let ty = column.scalar_type().name();
                        return Err(words.bad(word, format!("{} as {ty}", property.name)));
                    }
                }
            }
        } else if is_face(element) && element.properties.iter().any(is_index_list) {
            body.faces.read_ascii(&mut words, element, vertices)?;
        } else if is_strips(element) {
            body.faces.read_ascii_strips(&mut words, element, vertices)?;
        } else {
            words.skip(element)?;
        }
    }
    Ok(body)
}

fn assemble(header: &Header, vertex: &Element, mut body: Body) -> PointCloud {
    let mut notes = Vec::new();
    let mut take = |names: &[&str]| -> Option<AttributeData> {
        let found = vertex
            .properties
            .iter()
            .zip(&mut body.columns)
            .find(|(p, column)| column.is_some() && names.iter().any(|name| p.name.eq_ignore_ascii_case(name)));
        found.and_then(|(_, column)| column.take())
    };
    let axes = [take(&["x"]), take(&["y"]), take(&["z"])];
    let n = body.points;
    let positions = (0..n).map(|i| std::array::from_fn(|a| value(axes.get(a).and_then(Option::as_ref), i))).collect();
    let has = |names: &[&str]| {
        let named = |p: &Property| names.iter().any(|name| p.name.eq_ignore_ascii_case(name));
        vertex.properties.iter().any(|p| named(p) && matches!(p.kind, Kind::Scalar(_)))
    };
    // A single channel means something else ("r" may be a radius), so all three are required.
    let mut colors = None;
    if let Some(set) = COLORS.iter().find(|set| set.iter().all(|name| has(&[name])))
        && let [Some(r), Some(g), Some(b)] = set.map(|name| take(&[name]))
    {
        colors = Some(colors_from(&r, &g, &b, &mut notes));
    }
    let sets = [["nx", "ny", "nz"], ["normal_x", "normal_y", "normal_z"]];
    let mut normals = None;
    if let Some(set) = sets.iter().find(|set| set.iter().all(|name| has(&[name])))
        && let [Some(x), Some(y), Some(z)] = set.map(|name| take(&[name]))
    {
        let normal = |i| [&x, &y, &z].map(|axis| value(Some(axis), i) as f32);
        normals = Some((0..n).map(normal).collect());
    }
    let mut attributes: Vec<Attribute> = Vec::new();
    for (property, column) in vertex.properties.iter().zip(body.columns) {
        match column {
            Some(data) => attributes.push(Attribute::new(&property.name, data)),
            None if matches!(property.kind, Kind::List { .. }) => {
                notes.push(format!("list \"{}\" of the vertices is not used", property.name));
            }
            None => {}
        }
    }
    let splats = splats(&attributes, n);
    if let (None, Some(columns)) = (&colors, three(&attributes, ["f_dc_0", "f_dc_1", "f_dc_2"])) {
        colors = Some((0..n).map(|i| color_of(columns.map(|column| value(Some(column), i) as f32))).collect());
    }
    PointCloud {
        positions,
        colors,
        normals,
        splats,
        attributes,
        format: Format::Ply { encoding: header.encoding },
        notes,
        ..PointCloud::default()
    }
}

fn three<'a>(attributes: &'a [Attribute], names: [&str; 3]) -> Option<[&'a AttributeData; 3]> {
    let find = |name: &str| attributes.iter().find(|a| a.name == name).map(|a| &a.data);
    match names.map(find) {
        [Some(a), Some(b), Some(c)] => Some([a, b, c]),
        _ => None,
    }
}

/// Sizes and opacities of Gaussian splats, which are stored as logarithms and before the sigmoid. Flat splats
/// have two sizes.
fn splats(attributes: &[Attribute], points: usize) -> Option<Splats> {
    let find = |name: &str| attributes.iter().find(|a| a.name == name).map(|a| &a.data);
    let (opacity, first, second) = (find("opacity")?, find("scale_0")?, find("scale_1")?);
    find("f_dc_0")?;
    let sizes = [Some(first), Some(second), find("scale_2")];
    let size = |column: Option<&AttributeData>, i| column.map_or(0.0, |c| (value(Some(c), i) as f32).exp());
    Some(Splats {
        deviation: (0..points).map(|i| along_face(sizes.map(|column| size(column, i)))).collect(),
        opacity: (0..points).map(|i| sigmoid(value(Some(opacity), i) as f32)).collect(),
    })
}

fn value(column: Option<&AttributeData>, i: usize) -> f64 {
    column.and_then(|c| c.get_f64(i)).unwrap_or(f64::NAN)
}
