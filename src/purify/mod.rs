//! Geometric purification: point features in, features cleaned by the student's affinities out.
//!
//! Voxel means → student embedding → K nearest voxels → affinity matrix A → A applied again and again. What weighs the
//! neighbours may also be something simpler than the student, to compare with ([`Affinities`]).
//!
//! A scene of any size goes through in pieces that fit the device: the means and the pooling in blocks
//! of channels (channels do not mix), the student in spatial tiles with a halo as wide as it sees, the
//! neighbours and the rows of A in runs of voxels. None of this approximates: a tiled scene equals the
//! untiled one to rounding. What is kept whole lives on the host: one `[V, C + 6]` matrix, whose first C
//! columns the pooled features overwrite, and the embedding.

mod affinities;
mod source;
mod tiles;

use std::time::{Duration, Instant};

use burn::prelude::*;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::gpu::{Limits, check_binding};
use crate::models::student::{RECEPTIVE_RADIUS, Student, StudentConfig, normalize_rows};
use crate::ops::knn::{self, knn_voxels};
use crate::ops::normals::{self, Orientation};
use crate::ops::pooling::{AffinityRows, CHANNEL_BLOCK, pooling};
use crate::ops::segment_reduce::{Reduction, segment_reduce};
use crate::ops::voxel_grid::{self, QuantizeError, quantize, upright, voxel_grid};
use crate::ops::{OpError, float_tensor, float_values, int_tensor, int_values, limits_of};
use crate::stages::{Progress, Stage, peak_memory};
use crate::weights::WeightsError;

use affinities::Basis;
pub use affinities::{Affinities, ColorNormal};
pub use source::{FeatureSource, FileFeatures, MemoryFeatures};
pub use tiles::{Tile, tiles};

/// Neighbours used to estimate a normal.
const NORMAL_NEIGHBORS: usize = 30;
/// Channels appended to the semantic features: colour and normal.
pub const GEOMETRY_CHANNELS: usize = 6;

/// How the features are purified. The defaults are the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Edge of a voxel, in the scan's unit (metres).
    pub voxel_size: f64,
    /// Voxels per unit as a linear map of positions (rows x, y, z), for turned or scaled grids; `None` for upright cubes of
    /// `voxel_size`.
    pub voxel_transform: Option<[[f64; 3]; 3]>,
    /// Neighbours per voxel, the voxel itself excluded.
    pub neighbors: usize,
    /// Factor of the cosines before the softmax (1/α of the paper).
    pub sharpness: f32,
    /// How often A is applied. The paper counts 18 after the first: the reference applies it 19 times.
    pub iterations: usize,
    /// Host memory for temporary values, in bytes; the results do not depend on it.
    pub working_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            voxel_size: 0.02,
            voxel_transform: None,
            neighbors: 96,
            sharpness: 20.0,
            iterations: 19,
            working_bytes: 1 << 30,
        }
    }
}

impl Settings {
    /// The linear map from positions to voxels.
    fn voxels_per_unit(&self) -> [[f64; 3]; 3] {
        self.voxel_transform.unwrap_or_else(|| upright(self.voxel_size))
    }
}

/// A scan, point by point.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    /// Positions in the scan's unit; every one finite.
    pub positions: &'a [[f64; 3]],
    /// Colours 0..=255; grey (0.5) where a scan has none.
    pub colors: Option<&'a [[u8; 3]]>,
    /// Unit normals; estimated where a scan has none.
    pub normals: Option<&'a [[f32; 3]]>,
}

/// Purified features.
#[derive(Clone, Debug)]
pub struct Purified {
    /// `[V, C]`, row-major.
    pub features: Vec<f32>,
    /// C.
    pub num_channels: usize,
    /// Edge of a voxel, in the scan's unit.
    pub voxel_size: f64,
    /// `[V]` integer voxel coordinates, from the smallest voxel of the scan on, in Morton order.
    pub coords: Vec<[i32; 3]>,
    /// `[N]`, the voxel of every point.
    pub voxel_from_point: Vec<i32>,
    /// What was done and how long it took.
    pub report: Report,
}

/// What a run did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Number of points.
    pub num_points: usize,
    /// Number of voxels.
    pub num_voxels: usize,
    /// Spatial tiles the student ran in.
    pub num_tiles: usize,
    /// Largest |row sum of A − 1| over the voxels that have a neighbour.
    pub max_row_sum_error: f64,
    /// Things the user should know: what was missing and what was done about it.
    pub notes: Vec<String>,
    /// Times and bytes, in order.
    pub stages: Vec<Stage>,
}

/// Why purification stopped.
#[derive(Debug, thiserror::Error)]
pub enum PurifyError {
    /// The scan has no points.
    #[error("the scan has no points")]
    Empty,
    /// Features and scan do not belong together.
    #[error("features have {features} rows, the scan has {points} points: one row per point, in the scan's order")]
    RowCount {
        /// Rows of the features.
        features: usize,
        /// Points of the scan.
        points: usize,
    },
    /// Features and student do not belong together.
    #[error(
        "features have {features} channels, the student takes {student}: {expected} semantic ones, colour and normal"
    )]
    ChannelCount {
        /// Channels of the features.
        features: usize,
        /// Input channels of the student.
        student: usize,
        /// Semantic channels among them.
        expected: usize,
    },
    /// A setting is out of range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The points do not fit the voxel grid.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The features could not be read.
    #[error(transparent)]
    Features(#[from] WeightsError),
}

/// Purifies `features [N, C]` of the points of `scan` by `affinities` on `device`.
///
/// # Errors
/// [`PurifyError`]; nothing is computed on input that does not fit together.
pub fn purify(
    scan: Scan<'_>,
    features: &dyn FeatureSource,
    affinities: Affinities<'_>,
    settings: Settings,
    device: &Device,
    progress: &mut Progress<'_>,
) -> Result<Purified, PurifyError> {
    check_scan(&scan, features, settings)?;
    let num_channels = features.num_channels();
    check(affinities, num_channels, settings)?;
    let limits = limits_of(device);
    let mut clock = Clock { stages: Vec::new(), progress };
    let mut notes = Vec::new();

    let mut voxelized = voxelized(&scan, features, settings, device, &mut clock, &mut notes)?;
    let num_voxels = voxelized.coords.len();
    let (basis, num_tiles) = basis(affinities, &voxelized, num_channels, settings, device, &mut clock)?;
    let parts =
        clock.run("neighbours", |tick| neighbor_parts(&voxelized.coords, settings.neighbors, limits, device, tick))?;
    clock.bytes(num_voxels * (12 + 8 * settings.neighbors));

    let (matrix_a, max_row_sum_error) = clock.run("affinity", |_| basis.rows(parts, num_voxels, settings.sharpness))?;
    let compared = match affinities {
        Affinities::Learned { config, .. } => config.embed_dim,
        Affinities::Uniform => 1,
        Affinities::ColorNormal(_) => GEOMETRY_CHANNELS,
    };
    clock.bytes(num_voxels * (settings.neighbors * 8 + compared * 4));
    drop(basis);

    let width = num_channels + GEOMETRY_CHANNELS;
    let matrix = &mut voxelized.matrix;
    clock.run("pooling", |tick| {
        let block = channel_block(limits, settings, num_voxels);
        for first in (0..num_channels).step_by(block) {
            let channels = first..(first + block).min(num_channels);
            let x = gather_columns(matrix, width, first, channels.len());
            let x = float_tensor(x, [num_voxels, channels.len()], device);
            let pooled = float_values(pooling(x, &matrix_a, settings.iterations)?)?;
            scatter_columns(matrix, width, first, &pooled, channels.len());
            tick(channels.end as f64 / num_channels as f64);
        }
        Ok::<_, OpError>(())
    })?;
    clock.bytes(num_voxels * (settings.neighbors * 8 + num_channels * 8) * settings.iterations);

    let Voxelized { mut matrix, coords, voxel_from_point } = voxelized;
    narrow_rows(&mut matrix, width, num_channels);
    let report = Report {
        num_points: scan.positions.len(),
        num_voxels,
        num_tiles,
        max_row_sum_error,
        notes,
        stages: clock.stages,
    };
    Ok(Purified { features: matrix, num_channels, voxel_size: settings.voxel_size, coords, voxel_from_point, report })
}

/// What A is computed from, and the tiles that the student ran in.
fn basis(
    affinities: Affinities<'_>,
    voxelized: &Voxelized,
    num_channels: usize,
    settings: Settings,
    device: &Device,
    clock: &mut Clock<'_, '_>,
) -> Result<(Basis, usize), OpError> {
    let Voxelized { matrix, coords, .. } = voxelized;
    let (num_voxels, width) = (coords.len(), num_channels + GEOMETRY_CHANNELS);
    let (student, config) = match affinities {
        Affinities::Learned { student, config } => (student, config),
        Affinities::Uniform => return Ok((Basis::uniform(num_voxels, device), 0)),
        Affinities::ColorNormal(kernel) => return Ok((Basis::color_normal(kernel, matrix, width), 0)),
    };
    let limits = limits_of(device);
    let mut num_tiles = 0;
    let embedding = clock.run("student", |tick| {
        let tiles = tiles(coords, RECEPTIVE_RADIUS as i32, tile_voxels(limits, settings, config));
        num_tiles = tiles.len();
        embed(&tiles, matrix, width, coords, student, config, device, tick)
    })?;
    clock.bytes(num_voxels * 4 * (width + config.hidden_dim * 26 + config.embed_dim));
    Ok((Basis::Embedding(channel_blocks(&embedding, config.embed_dim, limits, device)), num_tiles))
}

/// The neighbours `[R, K]` of all voxels, in runs of as many as the device binds.
fn neighbor_parts(
    coords: &[[i32; 3]],
    neighbors: usize,
    limits: Limits,
    device: &Device,
    tick: &mut dyn FnMut(f64),
) -> Result<Vec<Tensor<2, Int>>, OpError> {
    let num_voxels = coords.len();
    let rows_per_part = limits.rows(neighbors * 4).min(num_voxels);
    let mut parts = Vec::new();
    let flat: Vec<i32> = coords.iter().flatten().copied().collect();
    let voxels = int_tensor(flat, [num_voxels, 3], device);
    for first in (0..num_voxels).step_by(rows_per_part) {
        let queries = first..(first + rows_per_part).min(num_voxels);
        parts.push(knn_voxels(voxels.clone(), neighbors, false, queries.clone())?.index);
        tick(queries.end as f64 / num_voxels as f64);
    }
    device.sync().map_err(|e| OpError::Device(format!("{e:?}")))?;
    Ok(parts)
}

/// Voxels whose neighbours are known, for who compares several ways to weigh them.
pub struct Graph {
    voxelized: Voxelized,
    num_channels: usize,
    parts: Vec<Tensor<2, Int>>,
}

impl Graph {
    /// Finds the neighbours of `voxelized`, which [`voxel_means`] made of features of `num_channels` channels.
    ///
    /// # Errors
    /// [`PurifyError::Empty`] without voxels, [`PurifyError::Setting`], [`PurifyError::Op`].
    pub fn new(
        voxelized: Voxelized,
        num_channels: usize,
        settings: Settings,
        device: &Device,
    ) -> Result<Self, PurifyError> {
        check(Affinities::Uniform, num_channels, settings)?;
        if voxelized.coords.is_empty() {
            return Err(PurifyError::Empty);
        }
        let coords = &voxelized.coords;
        let parts = neighbor_parts(coords, settings.neighbors, limits_of(device), device, &mut |_| ())?;
        Ok(Self { voxelized, num_channels, parts })
    }

    /// The voxels.
    #[must_use]
    pub fn voxelized(&self) -> &Voxelized {
        &self.voxelized
    }

    /// A, as [`purify`] would apply it.
    ///
    /// # Errors
    /// As [`purify`].
    pub fn rows(
        &self,
        affinities: Affinities<'_>,
        settings: Settings,
        device: &Device,
    ) -> Result<Vec<AffinityRows>, PurifyError> {
        check(affinities, self.num_channels, settings)?;
        let mut clock = Clock { stages: Vec::new(), progress: &mut |_, _| () };
        let (basis, _) = basis(affinities, &self.voxelized, self.num_channels, settings, device, &mut clock)?;
        Ok(basis.rows(self.parts.clone(), self.voxelized.coords.len(), settings.sharpness)?.0)
    }
}

/// Refuses a setting.
fn setting(name: &'static str, value: &dyn std::fmt::Display, expected: &'static str) -> Result<(), PurifyError> {
    Err(PurifyError::Setting { name, value: value.to_string(), expected })
}

fn check(affinities: Affinities<'_>, num_channels: usize, settings: Settings) -> Result<(), PurifyError> {
    if !(1..=knn::MAX_K).contains(&settings.neighbors) {
        return setting("neighbors", &settings.neighbors, "1 to 128");
    }
    if !settings.sharpness.is_finite() {
        return setting("sharpness", &settings.sharpness, "a finite number");
    }
    match affinities {
        Affinities::Learned { config, .. } if num_channels + GEOMETRY_CHANNELS != config.input_dim => {
            Err(PurifyError::ChannelCount {
                features: num_channels,
                student: config.input_dim,
                expected: config.input_dim.saturating_sub(GEOMETRY_CHANNELS),
            })
        }
        Affinities::Learned { .. } | Affinities::Uniform => Ok(()),
        Affinities::ColorNormal(kernel) => kernel.check(),
    }
}

fn check_scan(scan: &Scan<'_>, features: &dyn FeatureSource, settings: Settings) -> Result<(), PurifyError> {
    if !(settings.voxel_size.is_finite() && settings.voxel_size > 0.0) {
        return setting("voxel size", &settings.voxel_size, "a length above 0");
    }
    if !settings.voxels_per_unit().as_flattened().iter().all(|value| value.is_finite()) {
        return setting("voxel transform", &format!("{:?}", settings.voxel_transform), "finite numbers");
    }
    if scan.positions.is_empty() {
        return Err(PurifyError::Empty);
    }
    if features.num_points() != scan.positions.len() {
        return Err(PurifyError::RowCount { features: features.num_points(), points: scan.positions.len() });
    }
    Ok(())
}

/// Stage names, times and bytes as they come.
struct Clock<'a, 'b> {
    stages: Vec<Stage>,
    progress: &'a mut Progress<'b>,
}

impl Clock<'_, '_> {
    fn run<T, E>(
        &mut self,
        name: &'static str,
        body: impl FnOnce(&mut dyn FnMut(f64)) -> Result<T, E>,
    ) -> Result<T, E> {
        let start = Instant::now();
        (self.progress)(name, 0.0);
        let result = body(&mut |share| (self.progress)(name, share));
        (self.progress)(name, 1.0);
        let elapsed: Duration = start.elapsed();
        self.stages.push(Stage { name, seconds: elapsed.as_secs_f64(), bytes: 0, peak_bytes: peak_memory() });
        result
    }

    fn bytes(&mut self, bytes: usize) {
        if let Some(stage) = self.stages.last_mut() {
            stage.bytes = bytes as u64;
        }
    }
}

/// A scan as the student takes it.
#[derive(Clone, Debug)]
pub struct Voxelized {
    /// `[V, C + 6]`: the means of semantic features, colour in 0..1, and normal.
    pub matrix: Vec<f32>,
    /// `[V]` coordinates, from the smallest voxel of the scan on, in Morton order.
    pub coords: Vec<[i32; 3]>,
    /// `[N]`.
    pub voxel_from_point: Vec<i32>,
}

/// Brings `scan` and its `features [N, C]` into voxels.
///
/// # Errors
/// [`PurifyError`] as [`purify`].
pub fn voxel_means(
    scan: &Scan<'_>,
    features: &dyn FeatureSource,
    settings: Settings,
    device: &Device,
    progress: &mut Progress<'_>,
) -> Result<Voxelized, PurifyError> {
    check_scan(scan, features, settings)?;
    voxelized(scan, features, settings, device, &mut Clock { stages: Vec::new(), progress }, &mut Vec::new())
}

fn voxelized(
    scan: &Scan<'_>,
    features: &dyn FeatureSource,
    settings: Settings,
    device: &Device,
    clock: &mut Clock<'_, '_>,
    notes: &mut Vec<String>,
) -> Result<Voxelized, PurifyError> {
    let limits = limits_of(device);
    let voxels = clock.run("voxel grid", |_| voxelize(scan.positions, &settings.voxels_per_unit(), device))?;
    let num_voxels = voxels.coords.len();
    check_binding(limits, "voxels", num_voxels, 12).map_err(OpError::from)?;
    clock.bytes(scan.positions.len() * (24 + 16 + 8) + num_voxels * 20);

    let width = features.num_channels() + GEOMETRY_CHANNELS;
    let mut matrix = vec![0.0_f32; num_voxels * width];
    clock.run("voxel means", |tick| {
        let geometry = MemoryFeatures { values: geometry_channels(scan, notes), num_channels: GEOMETRY_CHANNELS };
        let sources: [&dyn FeatureSource; 2] = [features, &geometry];
        let block = channel_block(limits, settings, features.num_points());
        let mut column = 0;
        for source in sources {
            let count = source.num_channels();
            for first in (0..count).step_by(block) {
                let channels = first..(first + block).min(count);
                let num = channels.len();
                let rows = float_tensor(source.read(channels)?, [source.num_points(), num], device);
                let (order, offsets) = (voxels.point_from_sorted.clone(), voxels.offsets.clone());
                let means = segment_reduce(rows, order, offsets, Reduction::Mean)?;
                scatter_columns(&mut matrix, width, column, &float_values(means)?, num);
                column += num;
                tick(column as f64 / width as f64);
            }
        }
        Ok::<_, PurifyError>(())
    })?;
    clock.bytes((features.num_points() + num_voxels) * width * 4);
    Ok(Voxelized { matrix, coords: voxels.coords, voxel_from_point: voxels.voxel_from_point })
}

/// The voxels of a scan.
struct Voxels {
    coords: Vec<[i32; 3]>,
    voxel_from_point: Vec<i32>,
    point_from_sorted: Tensor<1, Int>,
    offsets: Tensor<1, Int>,
}

/// Voxels of points under a linear map. The coordinates are re-centred and rounded down on the host in
/// f64, which no GPU language has: every device sees the same partition. More points than the device can
/// bind are also grouped there.
fn voxelize(positions: &[[f64; 3]], voxels_per_unit: &[[f64; 3]; 3], device: &Device) -> Result<Voxels, PurifyError> {
    let (cells, _) = quantize(positions, voxels_per_unit)?;
    let coords: Vec<[i32; 4]> = cells.iter().map(|&[x, y, z]| [0, x, y, z]).collect();
    let without_batch = |coords: &[[i32; 4]]| coords.iter().map(|&[_, x, y, z]| [x, y, z]).collect();
    let limits = limits_of(device);
    if coords.len() <= limits.rows(16) {
        let grid = voxel_grid(int_tensor(coords.into_flattened(), [positions.len(), 4], device))?;
        return Ok(Voxels {
            coords: without_batch(int_values(grid.coords)?.as_chunks().0),
            voxel_from_point: int_values(grid.voxel_from_point)?,
            point_from_sorted: grid.point_from_sorted,
            offsets: grid.offsets,
        });
    }
    let grid = voxel_grid::cpu::voxel_grid(&coords);
    let on_device = |values: Vec<i32>| -> Result<Tensor<1, Int>, OpError> {
        check_binding(limits, "points", values.len(), 4)?;
        let len = values.len();
        Ok(int_tensor(values, [len], device))
    };
    Ok(Voxels {
        coords: without_batch(&grid.coords),
        voxel_from_point: grid.voxel_from_point,
        point_from_sorted: on_device(grid.point_from_sorted)?,
        offsets: on_device(grid.offsets)?,
    })
}

/// `values [V, channels]` on the device, in as many blocks of channels as its buffers ask for.
fn channel_blocks(values: &[f32], channels: usize, limits: Limits, device: &Device) -> Vec<Tensor<2>> {
    let num_voxels = values.len() / channels;
    let block = usize::try_from(limits.max_binding_bytes).unwrap_or(usize::MAX) / (num_voxels * 4);
    let firsts = (0..channels).step_by(block.clamp(1, channels));
    firsts
        .map(|first| {
            let count = block.clamp(1, channels - first);
            float_tensor(gather_columns(values, channels, first, count), [num_voxels, count], device)
        })
        .collect()
}

/// `[N, 6]`: colour in 0..1, then the unit normal.
pub(crate) fn geometry_channels(scan: &Scan<'_>, notes: &mut Vec<String>) -> Vec<f32> {
    let num_points = scan.positions.len();
    let estimated;
    let normals = match scan.normals {
        Some(normals) => normals,
        None => {
            notes.push(format!("no normals: estimated from {NORMAL_NEIGHBORS} neighbours, turned upwards"));
            estimated = estimate_normals(scan.positions);
            &estimated
        }
    };
    if scan.colors.is_none() {
        notes.push("no colours: grey is assumed".to_owned());
    }
    let mut channels = Vec::with_capacity(num_points * GEOMETRY_CHANNELS);
    for (i, normal) in normals.iter().enumerate() {
        match scan.colors {
            Some(colors) => channels.extend(colors[i].map(|c| f32::from(c) / 255.0)),
            None => channels.extend([0.5; 3]),
        }
        channels.extend(normal.map(|n| if n.is_finite() { n } else { 0.0 }));
    }
    channels
}

/// Normals of points, every one finite, from their neighbours, turned upwards: a scan without normals has
/// no view point.
///
/// Host work, whatever the device: on a vertical wall rounding decides which way is up, and a normal that
/// differs between devices by its sign would change everything after it.
pub(crate) fn estimate_normals(positions: &[[f64; 3]]) -> Vec<[f32; 3]> {
    let mut origin = [f64::INFINITY; 3];
    for p in positions {
        for axis in 0..3 {
            origin[axis] = origin[axis].min(p[axis]);
        }
    }
    let points: Vec<[f32; 3]> =
        positions.iter().map(|p| [0, 1, 2].map(|axis| (p[axis] - origin[axis]) as f32)).collect();
    let neighbors = knn::cpu::knn_points(&points, NORMAL_NEIGHBORS, false, 0..points.len());
    normals::cpu::normals(&points, &neighbors.index, NORMAL_NEIGHBORS, 0, Orientation::Up)
}

/// Channels per block so that `rows` × block fits a binding and, on the host, the working memory.
fn channel_block(limits: Limits, settings: Settings, rows: usize) -> usize {
    let on_device = usize::try_from(limits.max_binding_bytes).unwrap_or(usize::MAX) / (rows * 4).max(1);
    // A block is there up to four times: read, on the device, as a result, and read back.
    let fits = on_device.min(settings.working_bytes / (rows * 16).max(1)).max(1);
    if fits > CHANNEL_BLOCK { fits - fits % CHANNEL_BLOCK } else { fits }
}

/// Voxels per tile so that the widest activation fits a binding and about five of them the memory.
fn tile_voxels(limits: Limits, settings: Settings, config: StudentConfig) -> usize {
    let widest = config.input_dim.max(config.hidden_dim) * 4;
    limits.rows(widest).min(settings.working_bytes / (5 * widest)).max(1)
}

fn gather_columns(matrix: &[f32], width: usize, first: usize, count: usize) -> Vec<f32> {
    let mut columns = vec![0.0; matrix.len() / width * count];
    let rows = columns.par_chunks_exact_mut(count).zip(matrix.par_chunks_exact(width));
    rows.with_min_len(256).for_each(|(to, row)| to.copy_from_slice(&row[first..first + count]));
    columns
}

fn scatter_columns(matrix: &mut [f32], width: usize, first: usize, columns: &[f32], count: usize) {
    let rows = matrix.par_chunks_exact_mut(width).zip(columns.par_chunks_exact(count));
    rows.with_min_len(256).for_each(|(row, values)| row[first..first + count].copy_from_slice(values));
}

/// Keeps the first `keep` of `width` columns, in place.
fn narrow_rows(matrix: &mut Vec<f32>, width: usize, keep: usize) {
    let rows = matrix.len() / width;
    for row in 1..rows {
        matrix.copy_within(row * width..row * width + keep, row * keep);
    }
    matrix.truncate(rows * keep);
}

/// Embedding `[V, embed]`, normalised, of voxels at `coords [V]` with `features [V, C + 6]`, in as many tiles as memory and
/// device ask for.
///
/// # Errors
/// [`OpError`].
pub(crate) fn embed_voxels(
    features: &[f32],
    coords: &[[i32; 3]],
    student: &Student,
    config: StudentConfig,
    settings: Settings,
    device: &Device,
) -> Result<Vec<f32>, OpError> {
    let tiles = tiles(coords, RECEPTIVE_RADIUS as i32, tile_voxels(limits_of(device), settings, config));
    embed(&tiles, features, config.input_dim, coords, student, config, device, &mut |_| ())
}

#[allow(clippy::too_many_arguments, reason = "one call site, all of it the state of the student stage")]
fn embed(
    tiles: &[Tile],
    matrix: &[f32],
    width: usize,
    coords: &[[i32; 3]],
    student: &Student,
    config: StudentConfig,
    device: &Device,
    tick: &mut dyn FnMut(f64),
) -> Result<Vec<f32>, OpError> {
    let dim = config.embed_dim;
    let mut embedding = vec![0.0_f32; coords.len() * dim];
    let mut done = 0;
    for tile in tiles {
        let n = tile.voxels.len();
        let mut features = Vec::with_capacity(n * width);
        let mut tile_coords = Vec::with_capacity(n * 4);
        for &voxel in &tile.voxels {
            let voxel = voxel as usize;
            features.extend_from_slice(&matrix[voxel * width..(voxel + 1) * width]);
            tile_coords.extend([0, coords[voxel][0], coords[voxel][1], coords[voxel][2]]);
        }
        let features = float_tensor(features, [n, width], device);
        let rows = student.forward(features, int_tensor(tile_coords, [n, 4], device))?;
        let rows = float_values(normalize_rows(rows))?;
        for (&voxel, row) in tile.voxels.iter().zip(rows.chunks_exact(dim)).take(tile.num_inner) {
            embedding[voxel as usize * dim..(voxel as usize + 1) * dim].copy_from_slice(row);
        }
        done += tile.num_inner;
        tick(done as f64 / coords.len() as f64);
    }
    Ok(embedding)
}
