//! SPZ, packed Gaussian splats. The files are gzip files; this reader gets what they hold.

use std::path::Path;

use super::data::{Attribute, AttributeData, Endian, ScalarType};
use super::error::{CloudError, Origin};
use super::source::{take, u16_at, u32_at};
use super::splats::{Splats, along_face, color_of};
use super::{Format, PointCloud};

pub(super) const MAGIC: &[u8] = b"NGSP";
const HEADER: usize = 16;
/// Contrast of the stored colours.
const COLOR_SCALE: f32 = 0.15;

/// Bytes per splat in each of the blocks, which follow each other.
struct Layout {
    position: usize,
    rotation: usize,
    harmonics: usize,
}

impl Layout {
    fn row(&self) -> usize {
        // Opacity, colour and deviations lie between positions and rotations.
        self.position + 1 + 3 + 3 + self.rotation + self.harmonics
    }
}

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "SPZ" };
    if bytes.len() < HEADER {
        return Err(origin.truncated(0, "the header", HEADER as u64, bytes.len() as u64));
    }
    let (version, points) = (u32_at(bytes, 4), u32_at(bytes, 8) as usize);
    let [degree, fraction_bits] = take(bytes, 12);
    if !(1..=3).contains(&version) {
        return Err(origin.unsupported(4, format!("version {version}"), "version 1, 2 or 3"));
    }
    if degree > 4 {
        return Err(origin.value(12, "degree of the harmonics", degree, "0 to 4"));
    }
    if fraction_bits > 24 {
        return Err(origin.value(13, "number of fractional bits", fraction_bits, "0 to 24"));
    }
    let harmonics = 3 * ((usize::from(degree) + 1).pow(2) - 1);
    let layout =
        Layout { position: if version == 1 { 6 } else { 9 }, rotation: if version == 3 { 4 } else { 3 }, harmonics };
    let (needed, available) = ((points as u64).saturating_mul(layout.row() as u64), (bytes.len() - HEADER) as u64);
    if needed > available {
        return Err(origin.truncated(HEADER as u64, format!("{points} splats"), needed, available));
    }
    let mut rest = bytes.get(HEADER..).unwrap_or_default();
    let mut block = |size: usize| {
        let (block, after) = rest.split_at_checked(size * points).unwrap_or_default();
        rest = after;
        block
    };
    let [positions, alphas, colors, scales, rotations] = [layout.position, 1, 3, 3, layout.rotation].map(&mut block);
    let unit = f64::from(1_u32 << fraction_bits).recip();
    let position = |row: &[u8]| match version {
        1 => [0, 2, 4].map(|at| f64::from(half::f16::from_bits(u16_at(row, at)).to_f32())),
        _ => [0, 3, 6].map(|at| {
            let [a, b, c] = take(row, at);
            // Shifted up and down again, so that the sign spreads.
            f64::from(i32::from_le_bytes([0, a, b, c]) >> 8) * unit
        }),
    };
    let harmonic = |row: &[u8]| color_of(take::<3>(row, 0).map(|c| (f32::from(c) / 255.0 - 0.5) / COLOR_SCALE));
    let scale_of = |s: u8| (f32::from(s) / 16.0 - 10.0).exp();
    let mut attributes = Vec::new();
    for axis in 0..3 {
        let values: Vec<f32> = scales.iter().skip(axis).step_by(3).map(|&s| scale_of(s)).collect();
        attributes.push(Attribute::new(format!("splat_scale_{axis}"), values));
    }
    for part in 0..layout.rotation {
        let mut values = AttributeData::new(ScalarType::U8);
        values.extend_rows(rotations, layout.rotation, part, Endian::Little);
        attributes.push(Attribute::new(format!("splat_rotation_{part}"), values));
    }
    attributes.push(Attribute::new("alpha", alphas.to_vec()));
    let mut notes = Vec::new();
    if degree > 0 {
        notes.push(format!("of the spherical harmonics, of degree {degree}, only the constant colour is used"));
    }
    Ok(PointCloud {
        positions: positions.chunks_exact(layout.position).map(position).collect(),
        colors: Some(colors.chunks_exact(3).map(harmonic).collect()),
        splats: Some(Splats {
            deviation: scales.chunks_exact(3).map(|row| along_face(take::<3>(row, 0).map(scale_of))).collect(),
            opacity: alphas.iter().map(|&alpha| f32::from(alpha) / 255.0).collect(),
        }),
        attributes,
        format: Format::Spz { version },
        notes,
        ..PointCloud::default()
    })
}
