//! Compressed PLY files of Gaussian splats, as SuperSplat writes them: chunks of 256 splats, each with the
//! range of its values, and four packed integers per splat.

use std::path::Path;

use super::data::{Attribute, AttributeData};
use super::error::{CloudError, Origin};
use super::ply::{self, BinaryRows, Element, Header};
use super::source::head_contains;
use super::splats::{Splats, along_face, byte};
use super::{Format, PlyEncoding, PointCloud};

/// Splats that share the ranges of a chunk.
const CHUNK: usize = 256;
const PACKED: [&str; 4] = ["packed_position", "packed_rotation", "packed_scale", "packed_color"];
const RANGES: [[&str; 6]; 2] = [
    ["min_x", "min_y", "min_z", "max_x", "max_y", "max_z"],
    ["min_scale_x", "min_scale_y", "min_scale_z", "max_scale_x", "max_scale_y", "max_scale_z"],
];
const COLOR_RANGE: [&str; 6] = ["min_r", "min_g", "min_b", "max_r", "max_g", "max_b"];

pub(super) fn looks_like(bytes: &[u8]) -> bool {
    let has = |words: &[u8]| head_contains(bytes, 4096, words);
    ply::looks_like(bytes) && has(b"element chunk ") && has(PACKED[0].as_bytes())
}

/// Smallest and largest values of each chunk.
struct Ranges(Vec<[[f32; 3]; 2]>);

impl Ranges {
    /// `parts` of a value, each 0 to 1, between the limits of the chunk of splat `i`.
    fn between(&self, i: usize, parts: [f32; 3]) -> [f32; 3] {
        let [lo, hi] = self.0.get(i / CHUNK).copied().unwrap_or_default();
        std::array::from_fn(|axis| lo[axis] * (1.0 - parts[axis]) + hi[axis] * parts[axis])
    }
}

/// The bits of an integer as three fractions: 11 bits, 10 and 11.
fn fractions(bits: u32) -> [f32; 3] {
    [(bits >> 21) as f32 / 2047.0, (bits >> 11 & 1023) as f32 / 1023.0, (bits & 2047) as f32 / 2047.0]
}

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "compressed splat PLY" };
    let header = Header::parse(origin, bytes)?;
    if header.encoding == PlyEncoding::Ascii {
        return Err(origin.unsupported(0, "text", "a binary file"));
    }
    let rows = BinaryRows { origin, bytes, endian: header.endian() };
    let (mut chunk, mut vertex) = (None, None);
    let mut at = header.body;
    for element in &header.elements {
        let end = rows.skip(element, at)?;
        match element.name.as_str() {
            "chunk" => chunk = Some((element, at)),
            "vertex" => vertex = Some((element, at)),
            _ => {}
        }
        at = end;
    }
    let (Some((chunk, chunk_at)), Some((vertex, vertex_at))) = (chunk, vertex) else {
        return Err(origin.line(1, "a header without chunks", "the elements \"chunk\" and \"vertex\""));
    };
    let points = vertex.rows(origin, bytes, vertex_at, false)?;
    let chunks = ply::table(&rows, chunk, chunk_at)?;
    let packed = ply::table(&rows, vertex, vertex_at)?;
    if chunks.first().map_or(0, |(_, column)| column.len()) < points.div_ceil(CHUNK) {
        let found = chunk.count;
        return Err(origin.value(
            chunk_at as u64,
            "number of chunks",
            found,
            format!("{} for {points} splats", points.div_ceil(CHUNK)),
        ));
    }
    let place = ranges(origin, &chunks, &RANGES[0])?;
    let size = ranges(origin, &chunks, &RANGES[1])?;
    let tint = ranges(origin, &chunks, &COLOR_RANGE)
        .unwrap_or_else(|_| Ranges(vec![[[0.0; 3], [1.0; 3]]; chunk.count as usize]));
    let [positions, _, scales, colors] = PACKED.map(|name| integers(origin, vertex, &packed, name));
    let (positions, scales, colors) = (positions?, scales?, colors?);
    let channel = |bits: u32, shift: u32| (bits >> shift & 255) as f32 / 255.0;
    let color = |(i, &bits): (usize, &u32)| tint.between(i, [24, 16, 8].map(|shift| channel(bits, shift))).map(byte);
    let deviation = |(i, &bits): (usize, &u32)| along_face(size.between(i, fractions(bits)).map(f32::exp));
    let place = |(i, &bits): (usize, &u32)| place.between(i, fractions(bits)).map(f64::from);
    Ok(PointCloud {
        positions: positions.iter().enumerate().map(place).collect(),
        colors: Some(colors.iter().enumerate().map(color).collect()),
        splats: Some(Splats {
            deviation: scales.iter().enumerate().map(deviation).collect(),
            opacity: colors.iter().map(|&bits| channel(bits, 0)).collect(),
        }),
        attributes: packed.into_iter().map(|(name, data)| Attribute::new(name, data)).collect(),
        format: Format::PackedPly,
        ..PointCloud::default()
    })
}

fn ranges(origin: Origin<'_>, chunks: &[(String, AttributeData)], names: &[&str; 6]) -> Result<Ranges, CloudError> {
    let mut columns = Vec::new();
    for name in names {
        let Some((_, column)) = chunks.iter().find(|(found, _)| found == name) else {
            return Err(origin.line(1, format!("chunks without \"{name}\""), "the limits of positions and scales"));
        };
        columns.push(column);
    }
    let number = |column: usize, i| columns.get(column).and_then(|c| c.get_f64(i)).unwrap_or(0.0) as f32;
    let row = |i| [[0, 1, 2], [3, 4, 5]].map(|set| set.map(|column| number(column, i)));
    Ok(Ranges((0..columns.first().map_or(0, |c| c.len())).map(row).collect()))
}

fn integers(
    origin: Origin<'_>,
    vertex: &Element,
    packed: &[(String, AttributeData)],
    name: &str,
) -> Result<Vec<u32>, CloudError> {
    match packed.iter().find(|(found, _)| found == name) {
        Some((_, AttributeData::U32(values))) => Ok(values.clone()),
        _ => Err(origin.line(
            1,
            format!("element \"{}\" without uint \"{name}\"", vertex.name),
            "the four packed values of a splat",
        )),
    }
}
