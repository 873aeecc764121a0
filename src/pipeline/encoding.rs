//! Features of a scan by Sonata.

use std::collections::BTreeMap;
use std::path::Path;

use burn::prelude::*;
use glam::{DMat3, DQuat, DVec3};

use super::components::principal_colors;
use super::{Compat, PipelineError, Scene};
use crate::models::sonata::{Cloud, GRID_METRES, Observed, Sonata};
use crate::ops::{OpError, float_values};
use crate::purify::estimate_normals;
use crate::stages::StageTimer;
use crate::weights::{Dtype, SafetensorsWriter, TensorSpec};

/// Names of the encoder's stages; a configuration has at most as many.
const STAGE_NAMES: [&str; 8] = ["stage 0", "stage 1", "stage 2", "stage 3", "stage 4", "stage 5", "stage 6", "stage 7"];
/// Colour of the points of a scan that has none.
const GREY: [f32; 3] = [127.5; 3];

/// Rows per write of features.
const BLOCK_ROWS: usize = 4096;

/// Options of encoding a scan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncodeOptions {
    /// Edge of a voxel, in the scan's unit. The encoder was trained with voxels of 2 cm. With larger voxels
    /// the scan appears smaller to it in proportion.
    pub voxel_size: f64,
    /// Up direction of the scan.
    pub up: DVec3,
    /// Choice between the published code and this project. With [`Compat::Reference`] colours are divided by
    /// 255 twice: by the loader, as published, and by the encoder.
    pub compat: Compat,
}

/// Features of the points of a scan that have a position.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// `[M, C]` row-major, one row per cell of 4 voxels along each axis. All points of a cell share its row.
    pub features: Vec<f32>,
    /// Number of channels, C.
    pub num_channels: usize,
    /// `[M]`: position of every cell in a grid whose unit is the cell edge, z up.
    pub cells: Vec<[i32; 3]>,
    /// `[N]`: cell of every point.
    pub cell_from_point: Vec<i32>,
    /// Number of voxels that were encoded.
    pub num_voxels: usize,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl Encoding {
    /// Writes `features [M, C]`, `cells [M, 3]` and `cell_from_point [N]` as safetensors. `cell_from_point` is
    /// that of all points of the file, -1 for points without a position. `about` is kept as a note.
    ///
    /// # Errors
    /// [`PipelineError::Weights`] if the file cannot be written.
    pub fn write_cells(
        &self,
        path: &Path,
        cell_from_point: &[i32],
        dtype: Dtype,
        about: &str,
    ) -> Result<(), PipelineError> {
        let (num_points, num_cells) = (cell_from_point.len(), self.cells.len());
        let specs = [
            TensorSpec::new("cells", Dtype::I32, [num_cells, 3]),
            TensorSpec::new("cell_from_point", Dtype::I32, [num_points]),
            TensorSpec::new("features", dtype, [num_cells, self.num_channels]),
        ];
        let mut writer = SafetensorsWriter::create(path, &specs, &metadata(about))?;
        writer.write_i32(self.cells.as_flattened())?;
        writer.write_i32(cell_from_point)?;
        for block in self.features.chunks(BLOCK_ROWS * self.num_channels.max(1)) {
            writer.write_f32(block)?;
        }
        Ok(writer.finish()?)
    }

    /// Writes `features [N, C]` instead: a row for every point of the file, of zeros for points without a
    /// position. The arguments are those of [`write_cells`](Self::write_cells).
    ///
    /// # Errors
    /// [`PipelineError::Weights`] if the file cannot be written.
    pub fn write_points(
        &self,
        path: &Path,
        cell_from_point: &[i32],
        dtype: Dtype,
        about: &str,
    ) -> Result<(), PipelineError> {
        let channels = self.num_channels;
        let specs = [TensorSpec::new("features", dtype, [cell_from_point.len(), channels])];
        let mut writer = SafetensorsWriter::create(path, &specs, &metadata(about))?;
        for cells in cell_from_point.chunks(BLOCK_ROWS) {
            let mut block = vec![0.0; cells.len() * channels];
            for (row, &cell) in block.chunks_exact_mut(channels).zip(cells) {
                if let Ok(cell) = usize::try_from(cell) {
                    row.copy_from_slice(&self.features[cell * channels..][..channels]);
                }
            }
            writer.write_f32(&block)?;
        }
        Ok(writer.finish()?)
    }

    /// Returns a colour for every point with a position, from the principal components of the features. Each
    /// cell counts as often as it has points.
    #[must_use]
    pub fn colors(&self) -> Vec<[u8; 3]> {
        let mut weights = vec![0.0; self.cells.len()];
        self.cell_from_point.iter().for_each(|&cell| weights[cell as usize] += 1.0);
        let of_cell = principal_colors(&self.features, self.num_channels, &weights);
        self.cell_from_point.iter().map(|&cell| of_cell[cell as usize]).collect()
    }
}

fn metadata(about: &str) -> BTreeMap<String, String> {
    [("geopurify".to_owned(), about.to_owned())].into()
}

/// Encodes the points of `scene` that have a position. Missing normals are estimated, missing colours are
/// grey. Both are zeros if the encoder knows such scans.
///
/// # Errors
/// [`PipelineError::Sonata`] if the scan is too large for the encoder or does not fit the device.
pub fn encode(
    scene: &Scene,
    sonata: &Sonata,
    options: &EncodeOptions,
    device: &Device,
    timer: &mut StageTimer<'_>,
) -> Result<Encoding, PipelineError> {
    let mut notes = Vec::new();
    timer.progress("prepare", 0.0);
    let turn = match options.up {
        DVec3::Z => DMat3::IDENTITY,
        up => DMat3::from_quat(DQuat::from_rotation_arc(up.normalize_or(DVec3::Z), DVec3::Z)),
    };
    let origin = DVec3::from(scene.origin());
    let turned: Vec<DVec3> = scene.positions().iter().map(|&p| turn * (DVec3::from(p) - origin)).collect();
    let scale = f64::from(GRID_METRES) / options.voxel_size;
    // Exactly 1 for a scan in metres with the usual voxels, so that positions stay unchanged.
    let scale = if (scale - 1.0).abs() < 1e-6 { 1.0 } else { scale };
    let points: Vec<[f32; 3]> = turned.iter().map(|&p| (p * scale).as_vec3().to_array()).collect();
    let normals: Vec<[f32; 3]> = match scene.normals() {
        Some(normals) => normals.iter().map(|&n| unit(turn * DVec3::from(n.map(f64::from)))).collect(),
        None if sonata.config.takes_zeros => {
            notes.push("no normals: zeros, which the encoder knows".to_owned());
            vec![[0.0; 3]; points.len()]
        }
        None => {
            notes.push("no normals: estimated from the neighbours, turned upwards".to_owned());
            estimate_normals(&turned.iter().map(|p| p.to_array()).collect::<Vec<_>>())
        }
    };
    let mut colors: Vec<[f32; 3]> = match scene.colors() {
        Some(colors) => colors.iter().map(|color| color.map(f32::from)).collect(),
        None if sonata.config.takes_zeros => {
            notes.push("no colours: zeros, which the encoder knows".to_owned());
            vec![[0.0; 3]; points.len()]
        }
        None => {
            notes.push("no colours: grey is assumed".to_owned());
            vec![GREY; points.len()]
        }
    };
    if options.compat == Compat::Reference {
        colors.as_flattened_mut().iter_mut().for_each(|value| *value /= 255.0);
    }
    timer.lap("prepare");

    let num_stages = sonata.config.enc_depths.len();
    let (mut failed, mut num_voxels) = (None, 0);
    let mut observe = |part: Observed<'_>| {
        // Waits for queued work, so that the time of a stage is its own.
        failed = failed.take().or(device.sync().err().map(|error| format!("{error:?}")));
        match part {
            Observed::Embedding(x) => {
                num_voxels = x.dims()[0];
                timer.lap("embed");
                timer.progress("encode", 0.0);
            }
            Observed::Stage { index, .. } => {
                timer.lap(STAGE_NAMES[index.min(STAGE_NAMES.len() - 1)]);
                timer.progress("encode", (index + 1) as f64 / num_stages as f64);
            }
        }
    };
    let cloud = Cloud { points: &points, colors: &colors, normals: &normals };
    let encoded = sonata.encode_observed(cloud, &mut observe)?;
    if let Some(error) = failed {
        return Err(OpError::Device(error).into());
    }
    let [_, num_channels] = encoded.features.dims();
    let features = float_values(encoded.features)?;
    timer.lap("upcast");
    let (cells, cell_from_point) = (encoded.cells, encoded.cell_from_point);
    Ok(Encoding { features, num_channels, cells, cell_from_point, num_voxels, notes })
}

/// Scales a normal to length 1; 0 if it has no direction.
fn unit(normal: DVec3) -> [f32; 3] {
    normal.normalize_or_zero().as_vec3().to_array()
}
