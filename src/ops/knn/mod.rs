//! Exact K nearest neighbours, of voxels and of points.

pub mod cpu;

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::radix_sort::radix_sort;
use super::voxel_grid::COORDINATE_BITS;
use super::{
    OpError, ShapeCheck, float_tensor, float_values, host_tensor, int_tensor, int_values, limits_of, plain, plain_int,
    rows, run,
};
use crate::gpu::shaders::knn::{encode, gather, search};
use crate::gpu::{Handle, Shader, check_binding, empty_f32, empty_i32, launch, scalar_buffer};

/// Most neighbours that can be asked for.
pub const MAX_K: usize = search::MAX_K as usize;

/// Neighbours of voxels, nearest first; see [`knn_voxels`].
#[derive(Clone, Debug)]
pub struct VoxelNeighbors {
    /// `[R, K]`, -1 where there are fewer than K.
    pub index: Tensor<2, Int>,
    /// `[R, K]` squared distance in voxels, saturating at 2³¹ − 1, which also stands beside -1.
    pub sq_dist: Tensor<2, Int>,
}

/// Neighbours of points, nearest first; see [`knn_points`].
#[derive(Clone, Debug)]
pub struct PointNeighbors {
    /// `[R, K]`, -1 where there are fewer than K.
    pub index: Tensor<2, Int>,
    /// `[R, K]` squared distance in the points' unit, `f32::MAX` beside -1.
    pub sq_dist: Tensor<2>,
}

/// The scalars of a search.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// Neighbours per row.
    k: usize,
    /// A position is its own neighbour.
    include_self: bool,
    /// First position searched for.
    first_query: usize,
    /// Number of positions searched for.
    num_queries: usize,
    /// Corner of the grid laid over real points.
    origin: [f32; 3],
    /// Finest cells per unit of length of that grid.
    cells_per_unit: f32,
    /// Low bits of a grid coordinate that are in use.
    coordinate_bits: u32,
}

impl Search {
    fn queries(&self) -> Range<usize> {
        self.first_query..self.first_query + self.num_queries
    }

    /// The shape of the result.
    fn shape(&self) -> [usize; 2] {
        [self.num_queries, self.k]
    }
}

/// The `k` nearest voxels of the voxels `queries` among `coords [V, 3]`, exact.
///
/// Distances are exact integers; a row is ordered by (squared distance, index), so ties have one
/// answer on every device. `include_self` lists a voxel as its own neighbour. Squared distances
/// saturate at 2³¹ − 1 (46,340 voxels, 926 m at 2 cm): beyond it neighbours are ordered by index.
/// Near-linear in V: over Morton-sorted cells that grow until the K-th distance is safe on a GPU, through
/// a k-d tree on the host.
///
/// # Errors
/// [`OpError::Shape`] where `coords` is not `[V, 3]`; [`OpError::Value`] where `k` is not in
/// 1..=[`MAX_K`], `queries` leaves 0..V, or a coordinate is negative or not below 2²¹;
/// [`OpError::TooLarge`] where the voxels or the result do not fit one buffer: ask for fewer queries at a
/// time.
pub fn knn_voxels(
    coords: Tensor<2, Int>,
    k: usize,
    include_self: bool,
    queries: Range<usize>,
) -> Result<VoxelNeighbors, OpError> {
    let coords = plain_int(coords);
    let device = coords.device();
    let check = check(coords.dims(), "coords", k, &queries, &device)?;
    if queries.is_empty() {
        return Ok(VoxelNeighbors {
            index: int_tensor(Vec::new(), [0, k], &device),
            sq_dist: int_tensor(Vec::new(), [0, k], &device),
        });
    }
    let least = int_values(coords.clone().min())?[0];
    let most = int_values(coords.clone().max())?[0];
    if least < 0 || most >> COORDINATE_BITS != 0 {
        return Err(check.value(format!("coordinates span {least} to {most}, expected 0 to 2^{COORDINATE_BITS} - 1")));
    }
    let search = Search {
        k,
        include_self,
        first_query: queries.start,
        num_queries: queries.len(),
        origin: [0.0; 3],
        cells_per_unit: 1.0,
        coordinate_bits: i32::BITS - most.leading_zeros(),
    };
    let (index, sq_dist) = run(
        coords,
        |coords| {
            let (index, sq_dist) = (empty_i32(&coords, search.shape()), empty_i32(&coords, search.shape()));
            search_wgsl(&coords, None, search, &VOXELS, [&index.handle, &sq_dist.handle]);
            (index, sq_dist)
        },
        |coords| {
            let found = cpu::knn_voxels(rows(&coords), k, include_self, search.queries());
            (host_tensor(found.index, search.shape()), host_tensor(found.sq_dist, search.shape()))
        },
    );
    Ok(VoxelNeighbors { index, sq_dist })
}

/// The `k` nearest points of the points `queries` among `points [N, 3]`, exact in f32.
///
/// Squared distances are dx² + dy² + dz² in f32; a row is ordered by (squared distance, index). A point
/// is left out of its own row by index, not by distance: coincident points are neighbours at 0.
/// Centre coordinates before they become f32 (see `PointCloud::centered`).
///
/// # Errors
/// As [`knn_voxels`]; [`OpError::Value`] also where a coordinate is not finite.
pub fn knn_points(
    points: Tensor<2>,
    k: usize,
    include_self: bool,
    queries: Range<usize>,
) -> Result<PointNeighbors, OpError> {
    let points = plain(points);
    let device = points.device();
    let check = check(points.dims(), "points", k, &queries, &device)?;
    if queries.is_empty() {
        return Ok(no_neighbors(0, k, &device));
    }
    let search = Search { include_self, ..search_of(&check, &points, k, queries)? };
    let (index, sq_dist) = run(
        points,
        |points| points_wgsl(&points, None, search, &POINTS),
        |points| {
            let found = cpu::knn_points(rows(&points), k, include_self, search.queries());
            (host_tensor(found.index, search.shape()), host_tensor(found.sq_dist, search.shape()))
        },
    );
    Ok(PointNeighbors { index, sq_dist })
}

/// The `k` nearest of `points [N, 3]` to every one of `queries [Q, 3]`, which are other positions: index and squared
/// distance `[Q, k]`, else as [`knn_points`].
///
/// # Errors
/// As [`knn_points`].
pub fn knn_between(queries: Tensor<2>, points: Tensor<2>, k: usize) -> Result<PointNeighbors, OpError> {
    let (queries, points) = (plain(queries), plain(points));
    let device = points.device();
    let [num_queries, _] = queries.dims();
    let check = check(points.dims(), "points", k, &(0..0), &device)?;
    ShapeCheck::new("knn").check("queries", queries.dims(), ["Q".into(), 3.into()])?;
    check_binding(limits_of(&device), "knn: neighbours", num_queries, k * 4)?;
    if num_queries == 0 || points.dims()[0] == 0 {
        return Ok(no_neighbors(num_queries, k, &device));
    }
    if !float_values(queries.clone().abs().sum())?[0].is_finite() {
        return Err(check.value("queries are not all finite"));
    }
    let search = search_of(&check, &points, k, 0..num_queries)?;
    let (index, sq_dist) = run(
        (queries, points),
        |(queries, points)| points_wgsl(&points, Some(&queries.handle), search, &BETWEEN),
        |(queries, points)| {
            let found = cpu::knn_between(rows(&queries), rows(&points), k);
            (host_tensor(found.index, search.shape()), host_tensor(found.sq_dist, search.shape()))
        },
    );
    Ok(PointNeighbors { index, sq_dist })
}

fn no_neighbors(num_queries: usize, k: usize, device: &Device) -> PointNeighbors {
    PointNeighbors {
        index: int_tensor(vec![-1; num_queries * k], [num_queries, k], device),
        sq_dist: float_tensor(vec![f32::MAX; num_queries * k], [num_queries, k], device),
    }
}

/// The search over a grid laid on `points`, of which there is one at least.
fn search_of(check: &ShapeCheck, points: &Tensor<2>, k: usize, queries: Range<usize>) -> Result<Search, OpError> {
    let least = float_values(points.clone().min_dim(0))?;
    let most = float_values(points.clone().max_dim(0))?;
    // A NaN anywhere survives the sum but not always min and max.
    let total = float_values(points.clone().abs().sum())?[0];
    if !total.is_finite() {
        return Err(check.value(format!("points span {least:?} to {most:?}, expected finite coordinates")));
    }
    let extent = least.iter().zip(&most).map(|(a, b)| b - a).fold(0.0_f32, f32::max);
    Ok(Search {
        k,
        include_self: true,
        first_query: queries.start,
        num_queries: queries.len(),
        origin: [least[0], least[1], least[2]],
        cells_per_unit: if extent > 0.0 { (encode::CELLS / extent).min(f32::MAX) } else { 1.0 },
        coordinate_bits: COORDINATE_BITS - 1,
    })
}

fn check(
    dims: [usize; 2],
    tensor: &'static str,
    k: usize,
    queries: &Range<usize>,
    device: &Device,
) -> Result<ShapeCheck, OpError> {
    let mut shapes = ShapeCheck::new("knn");
    shapes.check(tensor, dims, ["N".into(), 3.into()])?;
    if !(1..=MAX_K).contains(&k) {
        return Err(shapes.value(format!("k is {k}, expected 1 to {MAX_K}")));
    }
    if queries.start > queries.end || queries.end > dims[0] {
        return Err(shapes.value(format!("queries {queries:?}, expected within 0..{}", dims[0])));
    }
    check_binding(limits_of(device), "knn: positions", dims[0], 12)?;
    check_binding(limits_of(device), "knn: neighbours", queries.len(), k * 4)?;
    Ok(shapes)
}

/// The shader permutations for one kind of position.
struct Permutation {
    encode: &'static Shader,
    gather: &'static Shader,
    search: &'static Shader,
}

static VOXELS: Permutation = Permutation { encode: &encode::VOXELS, gather: &gather::VOXELS, search: &search::VOXELS };
static POINTS: Permutation = Permutation { encode: &encode::BASE, gather: &gather::BASE, search: &search::BASE };
static BETWEEN: Permutation = Permutation { encode: &encode::BASE, gather: &gather::BASE, search: &search::BETWEEN };

fn points_wgsl(
    points: &CubeTensor,
    queries: Option<&Handle>,
    search: Search,
    permutation: &Permutation,
) -> (CubeTensor, CubeTensor) {
    let (index, sq_dist) = (empty_i32(points, search.shape()), empty_f32(points, search.shape()));
    search_wgsl(points, queries, search, permutation, [&index.handle, &sq_dist.handle]);
    (index, sq_dist)
}

/// Writes index and squared distance, `found`.
fn search_wgsl(
    positions: &CubeTensor,
    queries: Option<&Handle>,
    s: Search,
    permutation: &Permutation,
    found: [&Handle; 2],
) {
    let client = &positions.client;
    let n = positions.shape()[0];
    let num_positions = n as u32;
    let groups = n.div_ceil(encode::WG as usize);
    let [origin_x, origin_y, origin_z] = s.origin;
    let cells_per_unit = s.cells_per_unit;

    let codes = scalar_buffer(client, n * 2);
    launch(
        client,
        permutation.encode,
        groups,
        &encode::Params { num_positions, origin_x, origin_y, origin_z, cells_per_unit },
        &[&positions.handle, &codes],
    );
    let code_bits = 3 * s.coordinate_bits;
    let order = radix_sort(client, &codes, n, &[code_bits.min(32), code_bits.saturating_sub(32)]);
    let sorted_codes = scalar_buffer(client, n * 2);
    let sorted_positions = scalar_buffer(client, n * 3);
    launch(
        client,
        permutation.gather,
        groups,
        &gather::Params { num_positions },
        &[&positions.handle, &codes, &order, &sorted_codes, &sorted_positions],
    );
    let mut buffers = vec![&sorted_codes, &order, &sorted_positions, found[0], found[1]];
    buffers.extend(queries);
    let num_threads = if queries.is_some() { s.num_queries } else { n };
    launch(
        client,
        permutation.search,
        num_threads.div_ceil(search::WG as usize),
        &search::Params {
            num_positions,
            k: s.k as u32,
            include_self: u32::from(s.include_self),
            // A flat cell of 2/3 K positions has about K within one cell side of its middle.
            min_in_cell: (s.k as u32 * 2).div_ceil(3),
            first_query: s.first_query as u32,
            num_queries: s.num_queries as u32,
            origin_x,
            origin_y,
            origin_z,
            cells_per_unit,
        },
        &buffers,
    );
}
