//! Writing PLY: adds fields to an existing file, or writes a whole cloud.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use super::data::{AttributeData, CHANNELS, Endian, Field, LEGEND};
use super::error::{CloudError, Origin};
use super::ply::{BinaryRows, Header, Kind, Words};
use super::{Format, PlyEncoding, PointCloud, check_length, new_colors, write_atomic};
use crate::files::MappedFile;

/// Makes a valid PLY name: PLY separates names by blanks, and a name must not be empty.
fn ply_name(name: &str) -> String {
    if name.is_empty() {
        return "unnamed".into();
    }
    let keep = |c: char| {
        if c.is_whitespace() || c.is_control() { '_' } else { c }
    };
    name.chars().map(keep).collect()
}

/// Column to be written, and the property it replaces, if any.
struct Column<'a> {
    name: String,
    data: Cow<'a, AttributeData>,
    replaces: Option<usize>,
}

fn column<'a>(name: &str, data: &'a AttributeData, notes: &mut Vec<String>) -> Column<'a> {
    let (data, rounded) = data.for_ply();
    if rounded {
        notes.push(format!("\"{name}\": PLY has no 64-bit integers, values beyond 2^53 were rounded"));
    }
    Column { name: ply_name(name), data, replaces: None }
}

fn coordinate_name(dest: &Path, name: &str) -> CloudError {
    CloudError::Field {
        path: dest.to_path_buf(),
        field: name.into(),
        found: "the scan itself has coordinates or normals of this name".into(),
        expected: "another name".into(),
    }
}

/// Comments that hold the legends of fields.
fn comments(fields: &[Field]) -> Vec<String> {
    let plain = |line: &String| line.replace(char::is_control, " ");
    fields.iter().flat_map(|field| &field.legend).map(|line| format!("comment {LEGEND} {}", plain(line))).collect()
}

/// Copies lines of a header. Comments of an earlier legend are left out if there is a new one.
fn put_lines(lines: &[u8], has_legend: bool, out: &mut impl Write) -> std::io::Result<()> {
    let old = format!("comment {LEGEND} ");
    let is_old = |line: &[u8]| has_legend && line.trim_ascii_start().starts_with(old.as_bytes());
    lines.split_inclusive(|&byte| byte == b'\n').filter(|line| !is_old(line)).try_for_each(|line| out.write_all(line))
}

/// Checks that names stay different. Names that differ only in characters that PLY cannot write become the
/// same.
fn check_names(dest: &Path, columns: &[Column<'_>]) -> Result<(), CloudError> {
    for (i, column) in columns.iter().enumerate() {
        if columns.iter().take(i).any(|c| c.name == column.name) {
            return Err(CloudError::Field {
                path: dest.to_path_buf(),
                field: column.name.clone(),
                found: "two fields have this name in PLY".into(),
                expected: "names that differ in more than blanks".into(),
            });
        }
    }
    Ok(())
}

/// True if `fields` have one value for each vertex of the file. It is not so for a mesh whose large triangles
/// were cut when it was read.
pub(super) fn fits(path: &Path, source: &[u8], fields: &[Field]) -> Result<bool, CloudError> {
    let header = Header::parse(Origin { path, format: "PLY" }, source)?;
    let Some(vertex) = header.vertex().and_then(|i| header.elements.get(i)) else { return Ok(true) };
    let Some(length) = fields.first().map(|field| field.data.len() as u64).filter(|n| *n != vertex.count) else {
        return Ok(true);
    };
    // A field of a wrong length is refused by the copy, which names the number of vertices.
    Ok(!header.may_be_cut() || length < vertex.count)
}

/// Copies a PLY file byte by byte, with new or changed vertex properties.
pub(super) fn append(
    path: &Path,
    source: MappedFile,
    dest: &Path,
    fields: &[Field],
) -> Result<Vec<String>, CloudError> {
    let origin = Origin { path, format: "PLY" };
    let header = Header::parse(origin, &source)?;
    let Some((index, vertex)) = header.vertex().and_then(|i| Some((i, header.elements.get(i)?))) else {
        return Err(origin.line(1, "a header without vertices", "a line \"element vertex COUNT\""));
    };
    let mut notes = Vec::new();
    new_colors(dest, fields)?;
    let color_slots = vertex.color_slots();
    let mut columns: Vec<Column<'_>> = Vec::new();
    for field in fields {
        check_length(dest, field, usize::try_from(vertex.count).unwrap_or(usize::MAX))?;
        if ["x", "y", "z"].contains(&field.name.to_ascii_lowercase().as_str()) {
            return Err(coordinate_name(dest, &field.name));
        }
        let mut column = column(&field.name, &field.data, &mut notes);
        column.replaces = match field.channel() {
            Some(channel) => {
                column.name = CHANNELS[channel].into();
                color_slots[channel]
            }
            None => vertex.properties.iter().position(|p| p.name == column.name),
        };
        if let Some(old) = column.replaces.and_then(|i| vertex.properties.get(i))
            && matches!(old.kind, Kind::List { .. })
        {
            return Err(CloudError::Field {
                path: dest.to_path_buf(),
                field: field.name.clone(),
                found: "the file has a list of this name".into(),
                expected: "another name".into(),
            });
        }
        columns.push(column);
    }
    check_names(dest, &columns)?;
    write_atomic(dest, move |out| {
        let failed = |source| CloudError::io(dest, "write", source);
        put_header(&source, &header, index, (&columns, &comments(fields)), out).map_err(failed)?;
        match header.encoding {
            PlyEncoding::Ascii => put_ascii(origin, &source, &header, index, &columns, dest, out),
            _ => put_binary(origin, &source, &header, index, &columns, dest, out),
        }
    })?;
    Ok(notes)
}

fn put_header(
    bytes: &[u8],
    header: &Header,
    vertex: usize,
    (columns, comments): (&[Column<'_>], &[String]),
    out: &mut impl Write,
) -> std::io::Result<()> {
    let has_legend = !comments.is_empty();
    let Some(vertex) = header.elements.get(vertex) else {
        return Ok(());
    };
    let slice = |range: Range<usize>| bytes.get(range).unwrap_or_default();
    let newline: &[u8] = match slice(0..header.body) {
        [.., b'\r', b'\n'] => b"\r\n",
        [.., b'\r'] => b"\r",
        _ => b"\n",
    };
    let sized = vertex.properties.iter().any(|p| p.sized);
    let mut at = 0;
    for (i, property) in vertex.properties.iter().enumerate() {
        if let Some(column) = columns.iter().find(|c| c.replaces == Some(i)) {
            put_lines(slice(at..property.line.start), has_legend, out)?;
            let ty = column.data.scalar_type().ply_name(sized);
            write!(out, "property {ty} {}", column.name)?;
            at = property.line.end;
        }
    }
    put_lines(slice(at..vertex.end), has_legend, out)?;
    for column in columns.iter().filter(|c| c.replaces.is_none()) {
        let ty = column.data.scalar_type().ply_name(sized);
        write!(out, "property {ty} {}", column.name)?;
        out.write_all(newline)?;
    }
    for comment in comments {
        out.write_all(comment.as_bytes())?;
        out.write_all(newline)?;
    }
    put_lines(slice(vertex.end..header.body), has_legend, out)
}

fn put_binary(
    origin: Origin<'_>,
    bytes: &[u8],
    header: &Header,
    vertex: usize,
    columns: &[Column<'_>],
    dest: &Path,
    out: &mut BufWriter<File>,
) -> Result<(), CloudError> {
    let failed = |source| CloudError::io(dest, "write", source);
    let endian = header.endian();
    let rows = BinaryRows { origin, bytes, endian };
    let mut at = header.body;
    for element in header.elements.iter().take(vertex) {
        at = rows.skip(element, at)?;
    }
    out.write_all(bytes.get(header.body..at).unwrap_or_default()).map_err(failed)?;
    let Some(vertex) = header.elements.get(vertex) else {
        return Ok(());
    };
    let replaced: Vec<_> =
        (0..vertex.properties.len()).map(|i| columns.iter().find(|c| c.replaces == Some(i))).collect();
    let mut row = Vec::new();
    for i in 0..vertex.rows(origin, bytes, at, false)? {
        row.clear();
        for (property, replaced) in vertex.properties.iter().zip(&replaced) {
            let end = rows.property_end(property, at)?;
            match replaced {
                Some(column) => column.data.put(i, endian, &mut row),
                None => row.extend_from_slice(bytes.get(at..end).unwrap_or_default()),
            }
            at = end;
        }
        for column in columns.iter().filter(|c| c.replaces.is_none()) {
            column.data.put(i, endian, &mut row);
        }
        out.write_all(&row).map_err(failed)?;
    }
    out.write_all(bytes.get(at..).unwrap_or_default()).map_err(failed)
}

fn put_ascii(
    origin: Origin<'_>,
    bytes: &[u8],
    header: &Header,
    vertex: usize,
    columns: &[Column<'_>],
    dest: &Path,
    out: &mut BufWriter<File>,
) -> Result<(), CloudError> {
    let failed = |source| CloudError::io(dest, "write", source);
    let mut words = Words::new(origin, bytes, header);
    for element in header.elements.iter().take(vertex) {
        words.skip(element)?;
    }
    let mut copied = header.body;
    let Some(vertex) = header.elements.get(vertex) else {
        return Ok(());
    };
    let replaced: Vec<_> =
        (0..vertex.properties.len()).map(|i| columns.iter().find(|c| c.replaces == Some(i))).collect();
    let mut text = Vec::new();
    for i in 0..vertex.rows(origin, bytes, words.at, true)? {
        text.clear();
        for (property, replaced) in vertex.properties.iter().zip(&replaced) {
            let Some(column) = replaced else {
                words.skip_property(property)?;
                continue;
            };
            let word = words.next(&property.name)?;
            let before = copied..words.at - word.len();
            text.extend_from_slice(bytes.get(before).unwrap_or_default());
            column.data.put_text(i, &mut text);
            copied = words.at;
        }
        text.extend_from_slice(bytes.get(copied..words.at).unwrap_or_default());
        copied = words.at;
        for column in columns.iter().filter(|c| c.replaces.is_none()) {
            text.push(b' ');
            column.data.put_text(i, &mut text);
        }
        out.write_all(&text).map_err(failed)?;
    }
    out.write_all(bytes.get(copied..).unwrap_or_default()).map_err(failed)
}

/// Writes everything a cloud holds as a new binary file.
pub(super) fn write_cloud(cloud: &PointCloud, dest: &Path, fields: &[Field]) -> Result<Vec<String>, CloudError> {
    let mut notes = Vec::new();
    for field in fields {
        check_length(dest, field, cloud.len())?;
    }
    let single =
        (cloud.positions.iter().flatten()).all(|&x| f64::from(x as f32).to_bits() == x.to_bits() || x.is_nan());
    // Property names in use. Names may not repeat, and PLY readers would take an attribute with such a name
    // for the normal or colour.
    let mut taken: Vec<String> = ["x", "y", "z"].map(String::from).to_vec();
    if cloud.normals.is_some() {
        taken.extend(["nx", "ny", "nz"].map(String::from));
    }
    let colors: Option<Cow<'_, [[u8; 3]]>> = match new_colors(dest, fields)? {
        Some([red, green, blue]) => {
            Some(red.iter().zip(green).zip(blue).map(|((&red, &green), &blue)| [red, green, blue]).collect())
        }
        None => cloud.colors.as_deref().map(Cow::Borrowed),
    };
    if colors.is_some() {
        taken.extend(CHANNELS.map(String::from));
    }
    let others = fields.iter().filter(|f| f.channel().is_none());
    let new: Vec<Column<'_>> = others.map(|f| column(&f.name, &f.data, &mut notes)).collect();
    check_names(dest, &new)?;
    if let Some(clash) = new.iter().find(|c| taken.contains(&c.name)) {
        return Err(coordinate_name(dest, &clash.name));
    }
    taken.extend(new.iter().map(|c| c.name.clone()));
    let mut columns: Vec<Column<'_>> = Vec::new();
    for attribute in &cloud.attributes {
        if attribute.data.len() != cloud.len() || fields.iter().any(|f| f.name == attribute.name) {
            continue;
        }
        let mut column = column(&attribute.name, &attribute.data, &mut notes);
        let plain = column.name.clone();
        let mut number = 2;
        while taken.iter().any(|name| name.eq_ignore_ascii_case(&column.name)) {
            column.name = format!("{plain}_{number}");
            number += 1;
        }
        taken.push(column.name.clone());
        columns.push(column);
    }
    columns.extend(new);
    if cloud.organized.is_some() {
        notes.push("PLY has no image grid: width and height are in a comment".into());
    }
    if matches!(cloud.format, Format::E57 { .. } | Format::Las { .. } | Format::Laz { .. } | Format::Copc { .. }) {
        notes.push("PLY holds the points only: georeferencing, images and scan poses stay in the source".into());
    }
    write_atomic(dest, |out| {
        put_cloud(cloud, single, colors.as_deref(), (&columns, &comments(fields)), out)
            .map_err(|source| CloudError::io(dest, "write", source))
    })?;
    Ok(notes)
}

fn put_cloud(
    cloud: &PointCloud,
    single: bool,
    colors: Option<&[[u8; 3]]>,
    (columns, comments): (&[Column<'_>], &[String]),
    out: &mut BufWriter<File>,
) -> std::io::Result<()> {
    writeln!(out, "ply\nformat binary_little_endian 1.0")?;
    if let Some((width, height)) = cloud.organized {
        writeln!(out, "comment organized {width} {height}")?;
    }
    for comment in comments {
        writeln!(out, "{comment}")?;
    }
    writeln!(out, "element vertex {}", cloud.len())?;
    let ty = if single { "float" } else { "double" };
    for axis in ["x", "y", "z"] {
        writeln!(out, "property {ty} {axis}")?;
    }
    if cloud.normals.is_some() {
        writeln!(out, "property float nx\nproperty float ny\nproperty float nz")?;
    }
    if colors.is_some() {
        writeln!(out, "property uchar red\nproperty uchar green\nproperty uchar blue")?;
    }
    for column in columns {
        let ty = column.data.scalar_type().ply_name(false);
        writeln!(out, "property {ty} {}", column.name)?;
    }
    if !cloud.faces.is_empty() {
        let count = cloud.faces.len();
        writeln!(out, "element face {count}\nproperty list uchar uint vertex_indices")?;
    }
    writeln!(out, "end_header")?;
    let mut row = Vec::new();
    for (i, position) in cloud.positions.iter().enumerate() {
        row.clear();
        for &x in position {
            match single {
                true => row.extend_from_slice(&(x as f32).to_le_bytes()),
                false => row.extend_from_slice(&x.to_le_bytes()),
            }
        }
        if let Some(normals) = &cloud.normals {
            for x in normals.get(i).copied().unwrap_or_default() {
                row.extend_from_slice(&x.to_le_bytes());
            }
        }
        if let Some(colors) = colors {
            row.extend_from_slice(&colors.get(i).copied().unwrap_or_default());
        }
        for column in columns {
            column.data.put(i, Endian::Little, &mut row);
        }
        out.write_all(&row)?;
    }
    for face in &cloud.faces {
        out.write_all(&[3])?;
        for index in face {
            out.write_all(&index.to_le_bytes())?;
        }
    }
    Ok(())
}
