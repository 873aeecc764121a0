//! Input and devices of the benchmarks.
//!
//! `GEOPURIFY_DEVICE` names the device (default `cpu`), `GEOPURIFY_BENCH_MAX` the largest number of
//! voxels (default 50,000: the larger sizes take minutes on two cores), and `GEOPURIFY_BENCH_PRECISION` the precision
//! of image models: `f32` (default), `f16` or `bf16`.

use std::borrow::Cow;
use std::sync::OnceLock;

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::select;
use geopurify::ops::conv2d::Precision;
use geopurify::ops::{float_tensor, int_tensor};
use geopurify::weights::{Dtype, HostTensor, Inventory, TensorInfo, TensorSource, WeightsError};

#[global_allocator]
static ALLOCATOR: geopurify::alloc::HugePages = geopurify::alloc::HugePages;

/// Precision of the weights of image models.
#[allow(dead_code, reason = "operations are measured in several")]
pub(crate) fn precision() -> Precision {
    match std::env::var("GEOPURIFY_BENCH_PRECISION").as_deref() {
        Ok("f16") => Precision::F16,
        Ok("bf16") => Precision::Bf16,
        Err(_) | Ok("f32") => Precision::F32,
        Ok(other) => panic!("GEOPURIFY_BENCH_PRECISION is {other}, expected f32, f16 or bf16"),
    }
}

/// Sizes to measure, in voxels or points.
#[allow(dead_code, reason = "stages have sizes of their own")]
pub(crate) fn sizes() -> Vec<usize> {
    let most = std::env::var("GEOPURIFY_BENCH_MAX").map_or(50_000, |v| v.parse().expect("a number of voxels"));
    [10_000, 20_000, 50_000, 200_000, 1_000_000].into_iter().filter(|n| *n <= most).collect()
}

/// The device under test, opened once.
pub(crate) fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let open = || {
        let name = std::env::var("GEOPURIFY_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
        select(name.parse().expect("auto, gpu, cpu or an index")).expect("the device opens").device
    };
    DEVICE.get_or_init(open).clone()
}

/// `n` distinct voxels of a furnished room: floor, walls and boxes, two voxels thick in places, in
/// Morton order. About 10 of the 27 cells around a voxel are occupied, as in real scans.
pub(crate) fn room(n: usize) -> Vec<[i32; 3]> {
    // A floor and four walls of half its height hold about 3 · side² voxels, a fifth of them doubled.
    let side = ((n as f64 / 3.6).sqrt()) as i32;
    let mut voxels = std::collections::BTreeSet::new();
    let mut state = 1_u64;
    let mut coin = |odds: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).is_multiple_of(odds)
    };
    let mut z = 0;
    while voxels.len() < n {
        for a in 0..side {
            for b in 0..side {
                if z == 0 {
                    voxels.insert([a, b, 0]);
                    if coin(5) {
                        voxels.insert([a, b, 1]);
                    }
                }
            }
            for wall in [[0, a, z], [side - 1, a, z], [a, 0, z], [a, side - 1, z]] {
                voxels.insert(wall);
                if coin(5) {
                    voxels.insert([wall[0].clamp(1, side - 2), wall[1].clamp(1, side - 2), z]);
                }
            }
        }
        z += 1;
    }
    let mut voxels: Vec<[i32; 3]> = voxels.into_iter().collect();
    voxels.sort_by_key(|v| geopurify::ops::voxel_grid::cpu::morton_code(v[0] as u32, v[1] as u32, v[2] as u32));
    voxels.truncate(n);
    voxels
}

/// The room as `[V, 4]` with batch 0.
pub(crate) fn room_batched(n: usize) -> Tensor<2, Int> {
    let flat: Vec<i32> = room(n).iter().flat_map(|v| [0, v[0], v[1], v[2]]).collect();
    int_tensor(flat, [n, 4], &device())
}

/// The room as `[V, 3]`.
#[allow(dead_code, reason = "stages want batches")]
pub(crate) fn room_coords(n: usize) -> Tensor<2, Int> {
    int_tensor(room(n).into_flattened(), [n, 3], &device())
}

/// Values in -1..1, `[rows, cols]`.
pub(crate) fn features(rows: usize, cols: usize) -> Tensor<2> {
    let mut state = 7_u64;
    let values = (0..rows * cols).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    });
    float_tensor(values.collect(), [rows, cols], &device())
}

/// Waits until everything queued has run.
pub(crate) fn finish() {
    device().sync().expect("the device runs what was queued");
}

/// Weights of the usual size: uniform, of the variance that keeps activations where they are.
#[allow(dead_code, reason = "operations have no weights")]
pub(crate) struct RandomWeights(Inventory);

impl RandomWeights {
    #[allow(dead_code, reason = "operations have no weights")]
    pub(crate) fn new(keys: Vec<(String, Vec<usize>)>) -> Self {
        let info = |shape| TensorInfo { shape, dtype: Dtype::F32 };
        let tensors = keys.into_iter().map(|(key, shape)| (key, info(shape))).collect();
        Self(Inventory { tensors, ..Inventory::default() })
    }
}

impl TensorSource for RandomWeights {
    fn inventory(&self) -> Cow<'_, Inventory> {
        Cow::Borrowed(&self.0)
    }

    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        let mut state = key.len() as u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let fan_in: usize = shape.iter().skip(1).product();
        let scale = (3.0 / fan_in.max(1) as f32).sqrt();
        let is_scale = shape.len() == 1 && (key.ends_with("weight") || key.ends_with("running_var"));
        let center = if is_scale { 1.0 } else { 0.0 };
        let scale = if shape.len() < 2 { 0.1 } else { scale };
        let data = (0..shape.iter().product()).map(|_| center + scale * random()).collect();
        Ok(HostTensor { shape: shape.to_vec(), dtype_in_file: Dtype::F32, data })
    }
}
