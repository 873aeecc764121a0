//! The operations, each in a directory of its own.
//!
//! `mod.rs` holds an operation's contract, the checks of shapes and the launch of its WGSL; `cpu.rs` its twin on plain
//! slices. The same call runs on a GPU and on the host, so model code has no device in it. `--device cpu` runs the
//! twins, and the tests compare the kernels with them.
//!
//! Vocabulary: voxels are `[V, 4]` integers (batch, x, y, z), 0 ≤ x, y, z < 2²¹. Features are f32, one row per point or
//! voxel. Index tensors are i32 and named `dst_from_src`; -1 stands for "none". An index from outside may be anything:
//! an operation that takes indices refuses one that is out of range, or says what it stands for.
//!
//! # How to add an operation
//!
//! Five places, here for an operation `scale` that multiplies rows by factors:
//!
//! 1. `shaders/scale/scale.wgsl`, and a line in `shaders/permutations` where it has variants. `build.rs` makes
//!    `crate::gpu::shaders::scale` of it: its `Params`, its constants and its permutations.
//! 2. `src/ops/scale/cpu.rs`, the twin: plain slices in, a `Vec` out.
//! 3. `src/ops/scale/mod.rs`, the public function. It checks shapes and sizes, then calls `run` with the launch and
//!    the twin; an operation with gradients ties them to the result by `with_gradient`:
//!
//!    ```ignore
//!    pub fn scale(x: Tensor<2>, factors: Tensor<1>) -> Result<Tensor<2>, OpError> {
//!        let mut shapes = ShapeCheck::new("scale");
//!        shapes.check("x", x.dims(), ["N".into(), "C".into()])?;
//!        shapes.check("factors", factors.dims(), ["N".into()])?;
//!        let shape = x.dims();
//!        check_binding(limits_of(&x.device()), "scale: x", shape[0], shape[1] * 4)?;
//!        let constants = plain(factors.clone());
//!        let out = run(
//!            (x.clone(), factors),
//!            |(x, factors)| scale_wgsl(&x, &factors),
//!            |(x, factors)| host_tensor(cpu::scale(&x, &factors), shape),
//!        );
//!        Ok(with_gradient((x,), out, move |grad, [wants]| (wants.then(|| grad * constants.unsqueeze_dim(1)),)))
//!    }
//!    ```
//! 4. `pub mod scale;` below.
//! 5. Its tests, and a benchmark where its speed matters.

pub mod adamw;
pub mod affinity;
pub mod attention;
pub mod batch_norm;
pub mod bicubic_antialias;
pub mod bilinear;
pub mod compact;
pub mod contrastive_pairs;
pub mod conv2d;
pub mod conv_transpose2d;
pub mod depthwise_conv2d;
pub mod focal_modulation;
pub mod fuse_views;
pub mod gather_index;
mod gemm;
pub mod group_norm;
pub mod hash_grid;
pub mod info_nce;
pub mod kernel_map;
pub mod knn;
pub mod layer_norm;
mod math;
pub mod matmul;
pub mod normals;
pub mod pinhole;
pub mod pixel_queries;
mod planes;
pub mod pooling;
pub(crate) mod prefix_sum;
pub mod project;
pub mod radix_sort;
pub mod rasterize;
pub mod segment_reduce;
pub mod serialization;
pub mod serialized_attention;
pub mod sparse_conv;
pub mod splat;
pub mod stride_map;
pub mod voxel_grid;

mod gradient;
mod run;
mod shape;

use burn::prelude::*;
use burn::tensor::{DType, IntDType, TensorData};
use burn_wgpu::CubeBackend;

use crate::gpu::{LaunchError, Limits};
pub(crate) use gradient::with_gradient;
pub(crate) use run::{host_tensor, rows, run, run_twin, run_wgsl};
pub(crate) use shape::ShapeCheck;

/// Why an operation refused its input or failed on the device.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// A tensor's shape does not fit the others.
    #[error("{op}: {tensor} is {found:?}, expected [{expected}]")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The argument.
        tensor: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// Named dimensions, with the sizes bound so far.
        expected: String,
    },
    /// A value is outside what the operation is defined for.
    #[error("{op}: {message}")]
    Value {
        /// The operation.
        op: &'static str,
        /// The value found, and the one expected.
        message: String,
    },
    /// A tensor is too large for one buffer of the device.
    #[error(transparent)]
    TooLarge(#[from] LaunchError),
    /// The device failed to run what was queued.
    #[error("the device failed: {0}")]
    Device(String),
}

/// The limits of the device a tensor is on, see [`Limits`].
#[must_use]
pub fn limits_of(device: &Device) -> Limits {
    match max_binding(device) {
        Some(max_binding_bytes) => Limits { max_binding_bytes, max_workgroups: 65_535 }.lowered(),
        None => Limits::HOST.lowered(),
    }
}

/// Is the device the host, where the twins run?
pub(crate) fn is_host(device: &Device) -> bool {
    max_binding(device).is_none()
}

/// Largest buffer of a GPU, `None` on the host.
fn max_binding(device: &Device) -> Option<u64> {
    let probe = Tensor::<1>::zeros([1], &device.clone().without_autodiff());
    let probe = probe.try_into_primitive::<CubeBackend>().ok()?;
    Some(Limits::of(&probe.client).max_binding_bytes)
}

/// A float tensor from host values.
#[must_use]
pub fn float_tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// An i32 tensor from host values, whatever the device's default integer is.
#[must_use]
pub fn int_tensor<const D: usize>(values: Vec<i32>, shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::I32))
}

/// The values of a float tensor as f32. Waits for the device.
///
/// # Errors
/// [`OpError::Device`] where a queued kernel failed.
pub fn float_values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, OpError> {
    values(tensor.cast(burn::tensor::FloatDType::F32).try_into_data())
}

/// The values of an integer tensor as i32. Waits for the device.
///
/// # Errors
/// [`OpError::Device`] where a queued kernel failed.
pub fn int_values<const D: usize>(tensor: Tensor<D, Int>) -> Result<Vec<i32>, OpError> {
    values(as_i32(tensor).try_into_data())
}

fn values<E: burn::tensor::Element, X: std::fmt::Debug>(data: Result<TensorData, X>) -> Result<Vec<E>, OpError> {
    data.map_err(|e| OpError::Device(format!("{e:?}")))?.try_into_vec().map_err(|e| OpError::Device(format!("{e:?}")))
}

pub(crate) fn as_i32<const D: usize>(tensor: Tensor<D, Int>) -> Tensor<D, Int> {
    if tensor.dtype() == DType::I32 { tensor } else { tensor.cast(IntDType::I32) }
}

/// Drops the autodiff layer: operations without a gradient take and give plain tensors.
pub(crate) fn plain<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.device().is_autodiff() { tensor.inner() } else { tensor }
}

/// Drops the autodiff layer of an integer tensor.
pub(crate) fn plain_int<const D: usize>(tensor: Tensor<D, Int>) -> Tensor<D, Int> {
    let tensor = as_i32(tensor);
    if tensor.device().is_autodiff() { tensor.inner() } else { tensor }
}

/// Divides every row by max(‖row‖₂, 1e-12), as PyTorch's `normalize`.
#[must_use]
pub fn normalize_rows(x: Tensor<2>) -> Tensor<2> {
    // Below the root, so that a row of zeros has a gradient of zeros.
    let norm = x.clone().powi_scalar(2).sum_dim(1).clamp_min(1e-24).sqrt();
    x / norm
}

/// An index that came from outside, where it is one of `count`; -1 and all else that is not, is no index.
#[inline(always)]
pub(crate) fn present(index: i32, count: usize) -> Option<usize> {
    usize::try_from(index).ok().filter(|index| *index < count)
}
