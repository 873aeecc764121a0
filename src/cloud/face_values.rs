//! Values that a PLY mesh stores per face.

use std::path::Path;

use super::error::{CloudError, Origin};
use super::ply::{BinaryRows, Element, Header, Kind, Words, is_face, is_index_list};
use super::{PlyEncoding, unpack};

/// Calls `visit` for every face of a PLY mesh, in the order of the file, with the vertex indices of its
/// corners and the value of its property `name`.
///
/// # Errors
/// [`CloudError::Line`] if the mesh has no face element with corners and an integer property `name`.
/// [`CloudError::Value`] if a corner is not a vertex. Otherwise the errors of reading the file.
pub fn for_each_face(path: &Path, name: &str, mut visit: impl FnMut(&[u32], i64)) -> Result<(), CloudError> {
    let bytes = unpack::open(path)?.bytes;
    let origin = Origin { path, format: "PLY" };
    let header = Header::parse(origin, &bytes)?;
    let vertices = header.vertex().and_then(|i| header.elements.get(i)).map_or(0, |vertex| vertex.count);
    let columns = |element: &Element| {
        let corners = element.properties.iter().position(is_index_list)?;
        let value = element.properties.iter().position(|p| p.name == name && matches!(p.kind, Kind::Scalar(_)))?;
        Some((corners, value))
    };
    let faces = header.elements.iter().position(is_face);
    let found = faces.and_then(|faces| Some((faces, columns(header.elements.get(faces)?)?)));
    let Some((faces, (corners_at, value_at))) = found else {
        let expected = format!("a face element with \"vertex_indices\" and \"{name}\"");
        return Err(origin.line(1, "a header without it", expected));
    };
    let Some(element) = header.elements.get(faces) else { return Ok(()) };
    let last = element.properties.len() - 1;
    let corner = |index: i64| u32::try_from(index).ok().filter(|&index| u64::from(index) < vertices);
    let expected = || format!("a vertex number from 0 to below {vertices}");
    let (mut corners, mut value) = (Vec::new(), 0);
    if header.encoding == PlyEncoding::Ascii {
        let mut words = Words::new(origin, &bytes, &header);
        for before in &header.elements[..faces] {
            words.skip(before)?;
        }
        let number = |word: &[u8]| std::str::from_utf8(word).ok().and_then(|word| word.parse::<i64>().ok());
        for _ in 0..element.rows(origin, &bytes, words.at, true)? {
            corners.clear();
            for (i, property) in element.properties.iter().enumerate() {
                if i == corners_at {
                    for _ in 0..words.count(property)? {
                        let word = words.next(&property.name)?;
                        let Some(index) = number(word).and_then(corner) else {
                            return Err(words.bad(word, expected()));
                        };
                        corners.push(index);
                    }
                } else if i == value_at {
                    let word = words.next(&property.name)?;
                    let Some(number) = number(word) else {
                        return Err(words.bad(word, format!("{name} as a whole number")));
                    };
                    value = number;
                } else {
                    words.skip_property(property)?;
                }
            }
            visit(&corners, value);
        }
        return Ok(());
    }
    let rows = BinaryRows { origin, bytes: &bytes, endian: header.endian() };
    let mut at = header.body;
    for before in &header.elements[..faces] {
        at = rows.skip(before, at)?;
    }
    rows.walk(element, at, |i, at| {
        let Some(property) = element.properties.get(i) else { return Ok(()) };
        let end = rows.property_end(property, at)?;
        match property.kind {
            Kind::List { count, item } if i == corners_at => {
                corners.clear();
                for at in (at + count.size()..end).step_by(item.size()) {
                    let index = item.read_i64(&bytes, at, rows.endian);
                    let Some(index) = corner(index) else {
                        return Err(origin.value(at as u64, "a face's corner", index, expected()));
                    };
                    corners.push(index);
                }
            }
            Kind::Scalar(ty) if i == value_at => value = ty.read_i64(&bytes, at, rows.endian),
            _ => {}
        }
        if i == last {
            visit(&corners, value);
        }
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(Vec<u32>, i64)>, CloudError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut faces = Vec::new();
        for_each_face(file.path(), "category_id", |corners, value| faces.push((corners.to_vec(), value)))?;
        Ok(faces)
    }

    #[test]
    fn faces_are_read_from_text_and_binary_files() {
        let properties = "element vertex 4\nproperty uchar x\nelement face 2\nproperty list uchar int vertex_indices\n\
                          property short material_id\nproperty int category_id\nend_header\n";
        let text = format!("ply\nformat ascii 1.0\n{properties}0 0 0 0\n3 0 1 2 9 -1\n4 0 1 2 3 9 40000\n");
        let expected = vec![(vec![0, 1, 2], -1), (vec![0, 1, 2, 3], 40000)];
        assert_eq!(read(text.as_bytes()).unwrap(), expected);
        let mut binary = format!("ply\nformat binary_big_endian 1.0\n{properties}").into_bytes();
        binary.extend([0; 4]);
        for (corners, value) in &expected {
            binary.push(corners.len() as u8);
            binary.extend(corners.iter().flat_map(|corner| corner.to_be_bytes()));
            binary.extend(9_i16.to_be_bytes());
            binary.extend((*value as i32).to_be_bytes());
        }
        assert_eq!(read(&binary).unwrap(), expected);
        assert!(read(&binary[..binary.len() - 1]).is_err());
        let message = read(text.replace("4 0 1 2 3", "4 0 1 2 4").as_bytes()).unwrap_err().to_string();
        assert!(message.contains("0 to below 4"), "{message}");
        let message = read(text.replace("category_id", "label").as_bytes()).unwrap_err().to_string();
        assert!(message.contains("\"category_id\""), "{message}");
    }
}
