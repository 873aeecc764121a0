//! PTX: scans as grids of points in text, each with the pose of its scanner.

use std::path::Path;

use glam::{DMat4, DVec4};

use super::data::{Attribute, GREY, parse_f64};
use super::error::{CloudError, Origin, quoted};
use super::source::words;
use super::{Format, PointCloud};

/// Lines of a scan before its points: columns, rows, the scanner's position and axes, and the matrix.
const HEADER: [usize; 10] = [1, 1, 3, 3, 3, 3, 4, 4, 4, 4];

/// True if the bytes start with the ten lines of a scan's header.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    let mut lines = Lines { bytes: bytes.get(..4096).unwrap_or(bytes), at: 0, line: 0 };
    HEADER.iter().enumerate().all(|(i, &count)| {
        let mut numbers = [0.0; 7];
        let found = lines.next().and_then(|line| numbers_of(line, &mut numbers));
        found == Some(count) && (i > 1 || (numbers[0].fract() == 0.0 && numbers[0] >= 0.0))
    })
}

/// Lines that are not empty.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Number of the last line, from 1.
    line: u64,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        while let Some(rest) = self.bytes.get(self.at..).filter(|rest| !rest.is_empty()) {
            let length = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
            self.at += length + 1;
            self.line += 1;
            let line = rest.get(..length).unwrap_or_default().trim_ascii();
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }
}

/// The numbers of a line, at most seven; their count, or `None` if there is anything else.
fn numbers_of(line: &[u8], numbers: &mut [f64; 7]) -> Option<usize> {
    let mut count = 0;
    for word in words(line) {
        *numbers.get_mut(count)? = parse_f64(word)?;
        count += 1;
    }
    Some(count)
}

#[derive(Default)]
struct Merged {
    positions: Vec<[f64; 3]>,
    colors: Vec<[u8; 3]>,
    intensity: Vec<f64>,
    scan: Vec<u32>,
    /// Scans without colours.
    grey: Vec<u32>,
    any_color: bool,
}

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "PTX" };
    let mut lines = Lines { bytes, at: 0, line: 0 };
    let mut merged = Merged::default();
    let mut scans = 0;
    while lines.bytes.get(lines.at..).is_some_and(|rest| !rest.trim_ascii().is_empty()) {
        scan(origin, &mut lines, &mut merged, scans)?;
        scans += 1;
    }
    let mut notes = Vec::new();
    if merged.any_color {
        notes.extend(merged.grey.iter().map(|scan| format!("scan {scan} has no colours; its points are grey")));
    }
    let mut attributes = vec![Attribute::new("intensity", merged.intensity)];
    if scans > 1 {
        attributes.push(Attribute::new("scan", merged.scan));
    }
    Ok(PointCloud {
        positions: merged.positions,
        colors: merged.any_color.then_some(merged.colors),
        attributes,
        format: Format::Ptx { scans: scans as usize },
        notes,
        ..PointCloud::default()
    })
}

fn scan(origin: Origin<'_>, lines: &mut Lines<'_>, merged: &mut Merged, number: u32) -> Result<(), CloudError> {
    let mut numbers = [0.0; 7];
    let mut header = [[0.0; 7]; 10];
    for (row, count) in header.iter_mut().zip(HEADER) {
        let line = lines.next().unwrap_or_default();
        if numbers_of(line, row) != Some(count) {
            let expected = format!("{count} numbers in the header of scan {number}");
            return Err(origin.line(lines.line, quoted(line), expected));
        }
    }
    let [columns, rows] = [header[0][0], header[1][0]];
    let points = columns * rows;
    // A point takes at least four digits, three spaces and the end of its line.
    let possible = (lines.left() + 1) as f64 / 8.0;
    if !(columns >= 0.0 && rows >= 0.0 && columns.fract() == 0.0 && rows.fract() == 0.0 && points <= possible) {
        let found = format!("a grid of {columns} by {rows} points");
        return Err(origin.line(lines.line, found, format!("at most {possible:.0} points, as the file can hold")));
    }
    let pose = matrix(&header);
    let mut has_color = None;
    for _ in 0..points as u64 {
        let line = lines.next().unwrap_or_default();
        let count = numbers_of(line, &mut numbers).filter(|count| matches!(count, 4 | 7));
        let Some(count) = count.filter(|&count| has_color.is_none_or(|color| color == (count == 7))) else {
            let expected = "a point: x, y, z and intensity, all with red, green and blue or none";
            return Err(origin.line(lines.line, quoted(line), expected));
        };
        has_color = Some(count == 7);
        let [x, y, z, intensity, color @ ..] = numbers;
        let valid = [x, y, z] != [0.0; 3];
        let p = (pose * DVec4::new(x, y, z, 1.0)).truncate().to_array();
        merged.positions.push(if valid { p } else { [f64::NAN; 3] });
        merged.intensity.push(intensity);
        merged.colors.push(if count == 7 { color.map(|c| c.round() as u8) } else { GREY });
        merged.scan.push(number);
    }
    match has_color {
        Some(true) => merged.any_color = true,
        Some(false) => merged.grey.push(number),
        None => {}
    }
    Ok(())
}

/// Pose of the scanner. The file holds the matrix by rows for points as rows, so its last row is the place;
/// some programs write it the other way round.
fn matrix(header: &[[f64; 7]; 10]) -> DMat4 {
    let row = |i: usize| DVec4::new(header[i][0], header[i][1], header[i][2], header[i][3]);
    let matrix = DMat4::from_cols(row(6), row(7), row(8), row(9));
    let other_way = row(9) == DVec4::W && [6, 7, 8].iter().any(|&i| header[i][3] != 0.0);
    if other_way { matrix.transpose() } else { matrix }
}
