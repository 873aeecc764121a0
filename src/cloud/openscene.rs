//! Scenes of OpenScene's prepared data: coordinates, colours and labels of points, saved by PyTorch as one tuple.
//!
//! OpenScene's scripts save (coordinates, colours, labels); GeoPurify's put normals before the labels. Colours go
//! from -1 to 1 (by the loaders also from 0 to 1), or are the number 0 for none. Labels are numbers of classes.

use std::path::Path;

use super::error::Origin;
use super::{Attribute, AttributeData, CloudError, Format, PointCloud};
use crate::weights::{Item, NumberArray, read_items};

/// Name of the property with the labels.
const LABEL: &str = "label";
/// Label of points without a class.
const NO_CLASS: f64 = 255.0;
/// The same in the oldest files.
const OLD_NO_CLASS: f64 = -100.0;

/// What files of `torch.save` begin with: an archive whose first entry is the pickle, or the older stream.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    const STREAM: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    // The name of the first entry comes after the 30 bytes of its header.
    let is_archive = bytes.starts_with(b"PK\x03\x04") && super::source::head_contains(bytes, 256, b"data.pkl");
    is_archive || bytes.starts_with(STREAM)
}

/// Reads a scene. It is read from its path, not from the mapped bytes.
pub(super) fn read(path: &Path, _bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "scene of OpenScene's data" };
    let items = read_items(path).map_err(|error| {
        let (text, prefix) = (error.to_string(), format!("{}: ", path.display()));
        origin.decode(0, "the tuple", text.strip_prefix(&prefix).unwrap_or(&text))
    })?;
    let (coordinates, colors, normals, labels) = match items.as_slice() {
        [coordinates, colors, labels] => (coordinates, colors, None, labels),
        [coordinates, colors, normals, labels] => (coordinates, colors, Some(normals), labels),
        _ => {
            let found = format!("{} items", items.len());
            return Err(origin.value(
                0,
                "the tuple",
                found,
                "coordinates, colours, and labels, with normals or without",
            ));
        }
    };
    let positions = triples(origin, "coordinates", coordinates, None)?;
    let num_points = positions.len();
    let mut notes = Vec::new();
    let colors = match colors {
        Item::Number(_) => {
            notes.push("no colours".to_owned());
            None
        }
        colors => Some(to_bytes(&triples(origin, "colours", colors, Some(num_points))?, &mut notes)),
    };
    let normals = normals.map(|normals| triples(origin, "normals", normals, Some(num_points))).transpose()?;
    let normals = normals.map(|normals| normals.into_iter().map(|normal| normal.map(|x| x as f32)).collect());
    Ok(PointCloud {
        positions,
        colors,
        normals,
        attributes: vec![Attribute::new(LABEL, of_points(origin, labels, num_points)?)],
        format: Format::OpenScene,
        notes,
        ..PointCloud::default()
    })
}

/// The rows of an array `[N, 3]`, with N as given.
fn triples(
    origin: Origin<'_>,
    what: &str,
    item: &Item,
    num_points: Option<usize>,
) -> Result<Vec<[f64; 3]>, CloudError> {
    let expected = || format!("an array of {} x 3 numbers", num_points.map_or("N".to_owned(), |n| n.to_string()));
    match item {
        Item::Array(NumberArray { shape, values }) => match shape.as_slice() {
            &[rows, 3] if num_points.is_none_or(|wanted| wanted == rows) => Ok(values.as_chunks::<3>().0.to_vec()),
            _ => Err(origin.value(0, what, format!("an array of {shape:?}"), expected())),
        },
        Item::Number(number) => Err(origin.value(0, what, number, expected())),
        Item::Other(name) => Err(origin.value(0, what, format!("a {name}"), expected())),
    }
}

/// Colours from 0 to 255. The values tell their range: from -1, or to 1, or to 255.
fn to_bytes(colors: &[[f64; 3]], notes: &mut Vec<String>) -> Vec<[u8; 3]> {
    let values = || colors.iter().flatten().copied().filter(|value| value.is_finite());
    let (low, high) = (values().fold(0.0, f64::min), values().fold(0.0, f64::max));
    let (range, to_byte): (&str, fn(f64) -> f64) = match (low, high) {
        (low, _) if low < 0.0 => ("-1 to 1", |value| (value + 1.0) * 127.5),
        (_, high) if high <= 1.0 => ("0 to 1", |value| value * 255.0),
        _ => ("0 to 255", |value| value),
    };
    notes.push(format!("the colours are taken as going from {range}"));
    // NaN becomes 0.
    colors.iter().map(|color| color.map(|value| to_byte(value).round().clamp(0.0, 255.0) as u8)).collect()
}

/// One label for each point, whole numbers as such.
fn of_points(origin: Origin<'_>, item: &Item, num_points: usize) -> Result<AttributeData, CloudError> {
    let expected = format!("an array of {num_points} numbers");
    let Item::Array(NumberArray { shape, values }) = item else {
        let found = match item {
            Item::Other(name) => format!("a {name}"),
            Item::Number(number) => number.to_string(),
            Item::Array(_) => String::new(),
        };
        return Err(origin.value(0, "labels", found, expected));
    };
    if !matches!(shape.as_slice(), [n] | [n, 1] if *n == num_points) {
        return Err(origin.value(0, "labels", format!("an array of {shape:?}"), expected));
    }
    let values = values.iter().map(|&value| if value == OLD_NO_CLASS { NO_CLASS } else { value });
    let is_whole = |value: f64| value.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value);
    Ok(match values.clone().all(is_whole) {
        true => values.map(|value| value as i32).collect::<Vec<_>>().into(),
        false => values.collect::<Vec<_>>().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_tell_their_range() {
        let bytes = |colors: &[[f64; 3]]| {
            let mut notes = Vec::new();
            (to_bytes(colors, &mut notes), notes.concat())
        };
        let (colors, note) = bytes(&[[-1.0, 0.0, 1.0], [f64::NAN, 0.2, 2.0]]);
        assert_eq!(colors, [[0, 128, 255], [0, 153, 255]]);
        assert_eq!(note, "the colours are taken as going from -1 to 1");
        assert_eq!(bytes(&[[0.0, 0.5, 1.0]]).0, [[0, 128, 255]]);
        assert_eq!(bytes(&[[0.0, 7.0, 255.0]]).0, [[0, 7, 255]]);
    }

    #[test]
    fn labels_are_one_for_each_point() {
        let origin = Origin { path: Path::new("a.pth"), format: "scene" };
        let item = |shape: &[usize], values: &[f64]| {
            Item::Array(NumberArray { shape: shape.to_vec(), values: values.to_vec() })
        };
        let labels = of_points(origin, &item(&[3], &[0.0, -100.0, 19.0]), 3).unwrap();
        assert_eq!(labels, AttributeData::from(vec![0_i32, 255, 19]));
        let halves = of_points(origin, &item(&[2, 1], &[0.5, 1.0]), 2).unwrap();
        assert_eq!(halves, AttributeData::from(vec![0.5_f64, 1.0]));
        let message = of_points(origin, &item(&[2], &[0.0, 1.0]), 3).unwrap_err().to_string();
        assert!(message.contains("labels is an array of [2]; expected an array of 3 numbers"), "{message}");
    }
}
