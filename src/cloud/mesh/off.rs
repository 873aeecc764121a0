//! OFF: vertices and polygons as text, with colours and normals.

use std::path::Path;

use super::detect::off_letters;
use super::{Cutting, Look, Mesh, differ, fan, numbers};
use crate::cloud::data::parse_f64;
use crate::cloud::error::{Origin, quoted};
use crate::cloud::source::words;
use crate::cloud::{CloudError, Format, PointCloud};

/// Lines with content, and their numbers.
struct Rows<'a> {
    origin: Origin<'a>,
    lines: Box<dyn Iterator<Item = (u64, &'a [u8])> + 'a>,
    last: u64,
}

impl<'a> Rows<'a> {
    fn new(origin: Origin<'a>, bytes: &'a [u8]) -> Self {
        let content = |line: &'a [u8]| line.split(|&byte| byte == b'#').next().unwrap_or_default().trim_ascii();
        let lines = (1_u64..).zip(bytes.split(|&byte| byte == b'\n').map(content));
        Self { origin, lines: Box::new(lines.filter(|(_, line)| !line.is_empty())), last: 1 }
    }

    fn next(&mut self, what: &str) -> Result<(u64, &'a [u8]), CloudError> {
        let row = self.lines.next().ok_or_else(|| {
            self.origin.line(self.last, "the end of the file", format!("{what} (the file is cut off)"))
        })?;
        self.last = row.0;
        Ok(row)
    }
}

/// Numbers per vertex besides the position.
struct Columns {
    normal: bool,
    color: bool,
    place: bool,
}

pub(in crate::cloud) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "OFF" };
    let mut rows = Rows::new(origin, bytes);
    let (number, first) = rows.next("\"OFF\"")?;
    let (letters, rest) = off_letters(first).ok_or_else(|| origin.line(number, quoted(first), "\"OFF\""))?;
    let rest = rest.trim_ascii();
    let has = |letter| letters.contains(&letter);
    if has(b'4') || has(b'n') {
        return Err(origin.unsupported(0, "a mesh in other than three dimensions", "OFF, COFF, NOFF or STOFF"));
    }
    if rest.starts_with(b"BINARY") {
        return Err(origin.unsupported(0, "binary OFF", "OFF as text"));
    }
    let columns = Columns { normal: has(b'N'), color: has(b'C'), place: has(b'S') };
    let (number, counts) =
        if rest.is_empty() { rows.next("the numbers of vertices and faces")? } else { (number, rest) };
    let mut words = words(counts);
    let mut count = || words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse::<u64>().ok());
    let (Some(vertices), Some(faces)) = (count(), count()) else {
        return Err(origin.line(number, quoted(counts), "the numbers of vertices and faces"));
    };
    let mut notes = Vec::new();
    let cloud = read_vertices(&mut rows, vertices, &columns, &mut notes)?;
    let (triangles, looks) = read_faces(&mut rows, faces, vertices, &mut notes)?;
    if columns.place {
        notes.push("places in a picture are not used: OFF names no picture".into());
    }
    let looks = if differ(cloud.colors.as_deref()) { Vec::new() } else { looks };
    if !looks.is_empty() {
        notes.push("vertices have the colours of their faces".into());
    }
    let cloud = PointCloud { faces: triangles, format: Format::Off, notes, ..cloud };
    Ok(Mesh { cloud, looks, places: Vec::new(), skins: Vec::new() }.into_cloud(Cutting::Always))
}

/// Colours as the file has them: whole numbers to 255, or fractions to 1 if any has a decimal point.
#[derive(Default)]
struct Colors {
    values: Vec<[f64; 3]>,
    fractions: bool,
}

impl Colors {
    fn push(&mut self, words: [&[u8]; 3]) -> Option<()> {
        let mut color = [0.0; 3];
        for (channel, word) in color.iter_mut().zip(words) {
            *channel = parse_f64(word)?;
            self.fractions |= word.contains(&b'.');
        }
        self.values.push(color);
        Some(())
    }

    fn into_bytes(self) -> Vec<[u8; 3]> {
        let scale = if self.fractions { 255.0 } else { 1.0 };
        // Casting saturates and turns what is no number into 0.
        self.values.into_iter().map(|color| color.map(|x| (x * scale).round() as u8)).collect()
    }
}

fn read_vertices(
    rows: &mut Rows<'_>,
    count: u64,
    columns: &Columns,
    notes: &mut Vec<String>,
) -> Result<PointCloud, CloudError> {
    let mut cloud = PointCloud::default();
    let mut normals = Vec::new();
    let mut colors = Colors::default();
    let mut more = 0_u64;
    let what = format!("{count} vertices");
    for _ in 0..count {
        let (number, line) = rows.next(&what)?;
        let bad = |expected: &str| rows.origin.line(number, quoted(line), expected);
        let mut words = words(line);
        cloud.positions.push(numbers(&mut words).ok_or_else(|| bad("X Y Z of a vertex"))?);
        if columns.normal {
            let normal: [f64; 3] = numbers(&mut words).ok_or_else(|| bad("a normal behind X Y Z"))?;
            normals.push(normal.map(|x| x as f32));
        }
        if columns.color {
            let color = [words.next(), words.next(), words.next()].map(Option::unwrap_or_default);
            colors.push(color).ok_or_else(|| bad("a colour of the vertex"))?;
        } else if !columns.place {
            more += u64::from(words.next().is_some());
        }
    }
    if more > 0 {
        notes
            .push(format!("{more} vertices have more numbers than the first line of the file says; they are not used"));
    }
    if columns.normal {
        cloud.normals = Some(normals);
    }
    if columns.color {
        cloud.colors = Some(colors.into_bytes());
    }
    Ok(cloud)
}

fn read_faces(
    rows: &mut Rows<'_>,
    count: u64,
    vertices: u64,
    notes: &mut Vec<String>,
) -> Result<(Vec<[u32; 3]>, Vec<Look>), CloudError> {
    let mut triangles = Vec::new();
    let mut color_of = Vec::new();
    let mut colors = Colors::default();
    let (mut degenerate, mut indexed) = (0_u64, 0_u64);
    let mut corners = Vec::new();
    let what = format!("{count} faces");
    for _ in 0..count {
        let (number, line) = rows.next(&what)?;
        let bad = |expected: String| rows.origin.line(number, quoted(line), expected);
        let mut words = words(line);
        let mut whole = || words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse::<u64>().ok());
        let length = whole().ok_or_else(|| bad("the number of corners".into()))?;
        corners.clear();
        for _ in 0..length {
            let index = whole().filter(|index| *index < vertices).and_then(|index| u32::try_from(index).ok());
            corners.push(index.ok_or_else(|| bad(format!("{length} vertex numbers from 0 to below {vertices}")))?);
        }
        let rest: Vec<&[u8]> = words.collect();
        let mut color = None;
        match *rest {
            [] => {}
            [red, green, blue] | [red, green, blue, _] => {
                color = Some(colors.values.len());
                colors.push([red, green, blue]).ok_or_else(|| bad("a colour behind the corners".into()))?;
            }
            _ => indexed += 1,
        }
        degenerate += u64::from(corners.len() < 3);
        for triangle in fan(corners.len()) {
            triangles.push(triangle.map(|corner| corners[corner]));
            color_of.push(color);
        }
    }
    if degenerate > 0 {
        notes.push(format!("{degenerate} faces have fewer than three corners"));
    }
    if indexed > 0 {
        notes.push(format!("the colours of {indexed} faces are not used: they are numbers in a table"));
    }
    if colors.values.is_empty() {
        return Ok((triangles, Vec::new()));
    }
    let colors = colors.into_bytes();
    let look = |color: Option<usize>| color.and_then(|at| colors.get(at)).map_or(Look::Vertices, |&c| Look::Flat(c));
    let looks = color_of.into_iter().map(look).collect();
    Ok((triangles, looks))
}
