//! Splat files without a header: 32 bytes for each Gaussian.

use std::path::Path;

use super::data::{Attribute, AttributeData, Endian};
use super::error::{CloudError, Origin};
use super::source::take;
use super::splats::{Splats, along_face};
use super::{Format, PointCloud};

/// Bytes per splat: position and deviations as three floats each, colour with opacity and rotation as four
/// bytes each.
const ROW: usize = 32;
/// Splats that are looked at to tell the format.
const LOOKS: usize = 256;

fn floats(row: &[u8], at: usize) -> [f32; 3] {
    [at, at + 4, at + 8].map(|at| f32::from_le_bytes(take(row, at)))
}

/// True if the bytes can be splats: the rotations are quaternions of length one, the deviations positive.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    if bytes.is_empty() || !bytes.len().is_multiple_of(ROW) {
        return false;
    }
    let possible = |row: &[u8]| {
        let quaternion = take::<4>(row, 28).map(|q| (f32::from(q) - 128.0) / 128.0);
        let length = quaternion.iter().map(|q| q * q).sum::<f32>().sqrt();
        let position = floats(row, 0).iter().all(|x| x.is_finite() && x.abs() < 1e6);
        let size = floats(row, 12).iter().all(|s| *s > 0.0 && *s < 1e4);
        position && size && (length - 1.0).abs() < 0.05
    };
    bytes.chunks_exact(ROW).take(LOOKS).all(possible)
}

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "splat" };
    let (rows, rest) = bytes.as_chunks::<ROW>();
    if !rest.is_empty() {
        let at = bytes.len() - rest.len();
        return Err(origin.truncated(at as u64, "a splat", ROW as u64, rest.len() as u64));
    }
    let deviation = rows.iter().map(|row| along_face(floats(row, 12))).collect();
    let opacity = rows.iter().map(|row| f32::from(row[27]) / 255.0).collect();
    let mut attributes = Vec::new();
    for axis in 0..3 {
        let values: Vec<f32> = rows.iter().map(|row| floats(row, 12)[axis]).collect();
        attributes.push(Attribute::new(format!("splat_scale_{axis}"), values));
    }
    for part in 0..4 {
        let mut values = AttributeData::U8(Vec::new());
        values.extend_rows(bytes, ROW, 28 + part, Endian::Little);
        attributes.push(Attribute::new(format!("splat_rotation_{part}"), values));
    }
    let alpha: Vec<u8> = rows.iter().map(|row| row[27]).collect();
    attributes.push(Attribute::new("alpha", alpha));
    Ok(PointCloud {
        positions: rows.iter().map(|row| floats(row, 0).map(f64::from)).collect(),
        colors: Some(rows.iter().map(|row| take(row, 24)).collect()),
        splats: Some(Splats { deviation, opacity }),
        attributes,
        format: Format::Splat,
        ..PointCloud::default()
    })
}
