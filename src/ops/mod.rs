//! The operations: each a directory with its contract, tensor interface and the launch of its WGSL
//! (`mod.rs`), and its CPU twin on plain slices (`cpu.rs`).
//!
//! Every operation is a burn backend extension, so the same model code runs on a GPU and on the host:
//! the twin is the oracle of the tests and what `--device cpu` runs. Shapes are checked at the door.
//!
//! Vocabulary: voxels are `[V, 4]` integers (batch, x, y, z), 0 ≤ x, y, z < 2²¹; index tensors are
//! i32 with -1 for "none", and named `dst_from_src`; features are f32, one row per point or voxel.

pub mod adamw;
pub mod affinity;
pub mod attention;
pub mod batch_norm;
pub mod bicubic_antialias;
pub mod compact;
pub mod contrastive_pairs;
pub mod conv2d;
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
pub mod voxel_grid;

mod shape;

use burn::prelude::*;
use burn::tensor::{DType, IntDType, TensorData};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use burn_flex::FlexTensor;

use crate::gpu::{LaunchError, Limits};
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
        /// What was found and what was expected.
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

/// Whether a tensor's device is the host, where the twins run.
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

/// Takes a tensor into the autodiff layer, as a constant, where `tracked` says that others are in it: burn
/// does not mix the two.
pub(crate) fn beside<const D: usize>(tensor: Tensor<D>, tracked: bool) -> Tensor<D> {
    if tracked && !tensor.device().is_autodiff() { Tensor::from_inner(tensor) } else { tensor }
}

/// A GPU tensor as one of burn's interface, in which backward passes are composed.
pub(crate) fn from_cube<const D: usize>(tensor: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<CubeBackend>(tensor)
}

/// The inverse of [`from_cube`].
pub(crate) fn into_cube<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    tensor.try_into_primitive::<CubeBackend>().expect("what is computed from a GPU's tensors is one")
}

/// As [`into_cube`], of integers.
pub(crate) fn into_cube_int<const D: usize>(tensor: Tensor<D, Int>) -> CubeTensor {
    tensor.try_into_primitive::<CubeBackend>().expect("what is computed from a GPU's tensors is one")
}

/// The elements of a host tensor, in row-major order.
pub(crate) struct Host<E> {
    tensor: FlexTensor,
    element: std::marker::PhantomData<E>,
}

impl<E: burn::tensor::Element + bytemuck::Pod> Host<E> {
    pub(crate) fn new(tensor: FlexTensor) -> Self {
        Self { tensor: tensor.to_contiguous(), element: std::marker::PhantomData }
    }
}

impl<E: burn::tensor::Element + bytemuck::Pod> std::ops::Deref for Host<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        self.tensor.as_slice().expect("contiguous, and the dtype is fixed at the operation's door")
    }
}

pub(crate) fn host_tensor<E: burn::tensor::Element, const D: usize>(values: Vec<E>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Rows divided by max(‖row‖₂, 1e-12), as PyTorch's `normalize`.
#[must_use]
pub fn normalize_rows(x: Tensor<2>) -> Tensor<2> {
    // Below the root, so that a row of zeros has a gradient of zeros.
    let norm = x.clone().powi_scalar(2).sum_dim(1).clamp_min(1e-24).sqrt();
    x / norm
}

/// Rows of `N` consecutive elements.
pub(crate) fn rows<E: bytemuck::Pod, const N: usize>(values: &[E]) -> &[[E; N]] {
    bytemuck::cast_slice(values)
}
