//! Sparse convolution within a voxel set and from one to another, with gradients.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::gemm::{pack, panel_width};
use super::{OpError, ShapeCheck, float_tensor, host_tensor, is_host, limits_of, plain, plain_int, run, with_gradient};
use crate::gpu::shaders::sparse_conv::{forward, grad_weight as grad_weight_shader, sum_slices};
use crate::gpu::{Limits, Shader, check_binding, empty_f32, launch};

pub use cpu::Dims;

/// out\[v\] = Σₖ x\[src_from_dst\[v, k\]\] · weight\[k\] (+ bias), the sum over kernel cells that hold a voxel.
///
/// `x [V, in]`, `weight [K, in, out]` in MinkowskiEngine's order (see
/// [`kernel_map`](super::kernel_map::kernel_map), which makes `src_from_dst [V, K]`; spconv's weights
/// are brought into it by [`weight_from_spconv`]), `bias [out]`. It is a correlation: the kernel is not
/// flipped. The map must be the submanifold map of one voxel set, as `kernel_map` makes it: the
/// gradient for `x` relies on its symmetry. Gradients flow to `x`, `weight` and `bias`; they are
/// summed in a fixed order, so two runs on one device agree to the bit.
///
/// # Errors
/// [`OpError::Shape`] where shapes disagree; [`OpError::TooLarge`] where `x` or the result does not
/// fit one buffer.
pub fn sparse_conv(
    x: Tensor<2>,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    src_from_dst: Tensor<2, Int>,
) -> Result<Tensor<2>, OpError> {
    let mut shapes = ShapeCheck::new("sparse_conv");
    shapes.check("x", x.dims(), ["V".into(), "in".into()])?;
    shapes.check("weight", weight.dims(), ["K".into(), "in".into(), "out".into()])?;
    shapes.check("src_from_dst", src_from_dst.dims(), ["V".into(), "K".into()])?;
    if let Some(bias) = &bias {
        shapes.check("bias", bias.dims(), ["out".into()])?;
    }
    let [kernel_volume, num_in, num_out] = weight.dims();
    let dims = Dims { kernel_volume, num_in, num_out };
    if !has_values(&x, dims)? {
        return Ok(Tensor::zeros([x.dims()[0], num_out], &x.device()));
    }
    let map = plain_int(src_from_dst);
    let (plain_x, plain_weight) = (plain(x.clone()), plain(weight.clone()));
    let out = forward((plain_x.clone(), plain_weight.clone(), bias.clone(), map.clone()), dims);
    Ok(with_gradient((x, weight, bias), out, move |grad: Tensor<2>, [wants_x, wants_weight, wants_bias]| {
        let grad_x = wants_x.then(|| grad_x(grad.clone(), plain_weight, map.clone(), dims));
        let grad_weight = wants_weight.then(|| grad_weight(plain_x, grad.clone(), map, dims));
        (grad_x, grad_weight, wants_bias.then(|| grad.sum_dim(0).reshape([num_out])))
    }))
}

/// out\[d\] = Σₖ x\[src_from_dst\[d, k\]\] · weight\[k\] (+ bias): [`sparse_conv`] from one voxel set to another, as
/// [`stride_map`](super::stride_map::stride_map) relates them.
///
/// `x [S, in]`, `weight [K, in, out]`, `bias [out]`, `src_from_dst [D, K]`; the result is `[D, out]`. `dst_from_src
/// [S, K]` is the inverse: `dst_from_src[s, k] = d` exactly where `src_from_dst[d, k] = s`. The gradient for `x` relies
/// on it. Gradients flow to `x`, `weight` and `bias`; they are summed in a fixed order. An index that is no row of the
/// other set stands for no voxel.
///
/// # Errors
/// [`OpError::Shape`] where shapes disagree; [`OpError::TooLarge`] where `x` or the result does not fit one buffer.
pub fn sparse_conv_between(
    x: Tensor<2>,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    src_from_dst: Tensor<2, Int>,
    dst_from_src: Tensor<2, Int>,
) -> Result<Tensor<2>, OpError> {
    let mut shapes = ShapeCheck::new("sparse_conv_between");
    shapes.check("x", x.dims(), ["S".into(), "in".into()])?;
    shapes.check("weight", weight.dims(), ["K".into(), "in".into(), "out".into()])?;
    shapes.check("src_from_dst", src_from_dst.dims(), ["D".into(), "K".into()])?;
    shapes.check("dst_from_src", dst_from_src.dims(), ["S".into(), "K".into()])?;
    if let Some(bias) = &bias {
        shapes.check("bias", bias.dims(), ["out".into()])?;
    }
    let [kernel_volume, num_in, num_out] = weight.dims();
    let dims = Dims { kernel_volume, num_in, num_out };
    let [num_dst, _] = src_from_dst.dims();
    if num_dst == 0 || !has_values(&x, dims)? {
        return Ok(Tensor::zeros([num_dst, num_out], &x.device()));
    }
    check_binding(limits_of(&x.device()), "sparse_conv_between: out", num_dst, num_out * 4)?;
    let map = plain_int(src_from_dst);
    let (plain_x, plain_weight) = (plain(x.clone()), plain(weight.clone()));
    let out = forward((plain_x.clone(), plain_weight.clone(), bias.clone(), map.clone()), dims);
    Ok(with_gradient((x, weight, bias), out, move |grad: Tensor<2>, [wants_x, wants_weight, wants_bias]| {
        // `grad_x` takes the inverse with its kernel reversed, which a submanifold map is by itself.
        let grad_x = wants_x.then(|| grad_x(grad.clone(), plain_weight, plain_int(dst_from_src).flip([1]), dims));
        let grad_weight = wants_weight.then(|| grad_weight(plain_x, grad.clone(), map, dims));
        (grad_x, grad_weight, wants_bias.then(|| grad.sum_dim(0).reshape([num_out])))
    }))
}

/// Is there anything to compute? If so, it fits the device.
fn has_values(x: &Tensor<2>, Dims { num_in, num_out, .. }: Dims) -> Result<bool, OpError> {
    let [num_voxels, _] = x.dims();
    if num_voxels == 0 || num_in == 0 || num_out == 0 {
        return Ok(false);
    }
    let limits = limits_of(&x.device());
    check_binding(limits, "sparse_conv: x", num_voxels, num_in * 4)?;
    check_binding(limits, "sparse_conv: out", num_voxels, num_out * 4)?;
    Ok(true)
}

/// `x [V, in]`, weight `[K, in, out]`, bias `[out]` and map `[V, K]` → `[V, out]`.
fn forward(operands: (Tensor<2>, Tensor<3>, Option<Tensor<1>>, Tensor<2, Int>), dims: Dims) -> Tensor<2> {
    run(
        operands,
        |(x, weight, bias, map)| {
            let shader = if bias.is_some() { &forward::BIAS } else { &forward::BASE };
            forward_wgsl(shader, [&x, &weight, &map], bias.as_ref(), [dims.num_in, dims.num_out])
        },
        |(x, weight, bias, map)| {
            let out = cpu::forward(&x, &weight, bias.as_deref(), &map, dims);
            host_tensor(out, [map.dims::<2>()[0], dims.num_out])
        },
    )
}

/// Gradient of `x`, `[V, in]`, from that of the result, `[V, out]`.
fn grad_x(grad: Tensor<2>, weight: Tensor<3>, map: Tensor<2, Int>, dims: Dims) -> Tensor<2> {
    run(
        (grad, weight, map),
        |(grad, weight, map)| grad_x_wgsl(&grad, &weight, &map),
        |(grad, weight, map)| host_tensor(cpu::grad_x(&grad, &weight, &map, dims), [map.dims::<2>()[0], dims.num_in]),
    )
}

/// Gradient of the weight, `[K, in, out]`, from `x [V, in]` and the gradient of the result, `[V, out]`.
fn grad_weight(x: Tensor<2>, grad: Tensor<2>, map: Tensor<2, Int>, dims: Dims) -> Tensor<3> {
    let Dims { kernel_volume, num_in, num_out } = dims;
    run(
        (x, grad, map),
        |(x, grad, map)| grad_weight_wgsl(&x, &grad, &map),
        |(x, grad, map)| host_tensor(cpu::grad_weight(&x, &grad, &map, dims), [kernel_volume, num_in, num_out]),
    )
}

/// A spconv weight `[out, kx, ky, kz, in]` (z fastest) as `[K, in, out]` with x fastest.
///
/// Both are correlations over the axes (x, y, z), so only the order of the memory differs.
#[must_use]
pub fn weight_from_spconv(weight: Tensor<5>) -> Tensor<3> {
    let [num_out, kx, ky, kz, num_in] = weight.dims();
    weight.permute([3, 2, 1, 4, 0]).reshape([kx * ky * kz, num_in, num_out])
}

/// A weight `[K, in, out]` with its bias: frozen in the order in which its device reads it, or with gradients.
#[derive(Clone, Debug)]
pub struct PackedKernel {
    /// In training and on a GPU `[K, in, out]`; frozen on the host `[panels, K · in, width]`.
    weight: Tensor<3>,
    is_trained: bool,
    bias: Tensor<1>,
    dims: Dims,
}

impl PackedKernel {
    /// Packs spconv's weight `[out, k, k, k, in]` (see [`weight_from_spconv`]), given flat, and its bias `[out]`.
    ///
    /// # Errors
    /// [`OpError::Value`] where the lengths are not those of the extents; [`OpError::TooLarge`] where the weight does not
    /// fit one buffer.
    pub fn from_spconv(
        weight: &[f32],
        bias: Vec<f32>,
        [num_out, edge, num_in]: [usize; 3],
        device: &Device,
    ) -> Result<Self, OpError> {
        let kernel_volume = edge.pow(3);
        let depth = kernel_volume * num_in;
        if weight.len() != num_out * depth || bias.len() != num_out {
            return Err(ShapeCheck::new("sparse_conv").value(format!(
                "a weight of {} and a bias of {} values, expected [{num_out}, {edge}, {edge}, {edge}, {num_in}] and [{num_out}]",
                weight.len(),
                bias.len()
            )));
        }
        // A GPU reads whole rows: one panel.
        let width = if is_host(device) { panel_width() } else { num_out };
        let num_panels = num_out.div_ceil(width.max(1));
        check_binding(limits_of(device), "sparse_conv: weight", num_panels * depth, width * 4)?;
        let zyx_from_xyz = |k: usize| (k % edge * edge + k / edge % edge) * edge + k / (edge * edge);
        let value = |d: usize, col: usize| weight[col * depth + zyx_from_xyz(d / num_in) * num_in + d % num_in];
        let panels = float_tensor(pack(depth, num_out, width, value), [num_panels, depth, width], device);
        let weight = if is_host(device) { panels } else { panels.reshape([kernel_volume, num_in, num_out]) };
        let dims = Dims { kernel_volume, num_in, num_out };
        Ok(Self { weight, is_trained: false, bias: float_tensor(bias, [num_out], device), dims })
    }

    /// Spconv's weight `[out, k, k, k, in]` and its bias `[out]`, which gradients flow to.
    ///
    /// # Errors
    /// [`OpError::Shape`] where they disagree.
    pub fn from_tensor(weight: Tensor<5>, bias: Tensor<1>) -> Result<Self, OpError> {
        let mut shapes = ShapeCheck::new("sparse_conv");
        let cube = ["out".into(), "k".into(), "k".into(), "k".into(), "in".into()];
        shapes.check("weight", weight.dims(), cube)?;
        shapes.check("bias", bias.dims(), ["out".into()])?;
        let weight = weight_from_spconv(weight);
        let [kernel_volume, num_in, num_out] = weight.dims();
        Ok(Self { weight, is_trained: true, bias, dims: Dims { kernel_volume, num_in, num_out } })
    }
}

/// [`sparse_conv`] with a packed weight; no gradient flows, unless it is [of tensors](PackedKernel::from_tensor).
///
/// # Errors
/// As [`sparse_conv`].
pub fn sparse_conv_packed(
    x: Tensor<2>,
    kernel: &PackedKernel,
    src_from_dst: Tensor<2, Int>,
) -> Result<Tensor<2>, OpError> {
    if kernel.is_trained {
        return sparse_conv(x, kernel.weight.clone(), Some(kernel.bias.clone()), src_from_dst);
    }
    let (dims, weight, bias) = (kernel.dims, kernel.weight.clone(), kernel.bias.clone());
    let mut shapes = ShapeCheck::new("sparse_conv");
    shapes.check("x", x.dims(), ["V".into(), dims.num_in.into()])?;
    shapes.check("src_from_dst", src_from_dst.dims(), ["V".into(), dims.kernel_volume.into()])?;
    let out_shape = [x.dims()[0], dims.num_out];
    if !has_values(&x, dims)? {
        return Ok(Tensor::zeros(out_shape, &x.device()));
    }
    Ok(run(
        (x, weight, bias, src_from_dst),
        |(x, weight, bias, map)| {
            forward_wgsl(&forward::BIAS, [&x, &weight, &map], Some(&bias), [dims.num_in, dims.num_out])
        },
        |(x, weight, bias, map)| host_tensor(cpu::forward_packed(&x, &weight, Some(&bias), &map, dims), out_shape),
    ))
}

/// `grad_out [num_dst, out]`, `weight [K, in, out]` and the map `[num_src, K]` of the inverse, its kernel reversed
/// (which for a voxel set is the map itself) → `[num_src, in]`.
pub(crate) fn grad_x_wgsl(grad_out: &CubeTensor, weight: &CubeTensor, map: &CubeTensor) -> CubeTensor {
    let [_, num_in, num_out] = weight.shape().dims();
    forward_wgsl(&forward::TRANSPOSED, [grad_out, weight, map], None, [num_out, num_in])
}

/// The products of `x` with every offset's matrix, added up, from `x`, weight and map; `num_in` and `num_out` are what
/// the shader calls so.
fn forward_wgsl(
    shader: &'static Shader,
    [x, weight, map]: [&CubeTensor; 3],
    bias: Option<&CubeTensor>,
    [num_in, num_out]: [usize; 2],
) -> CubeTensor {
    let [num_dst, kernel_volume] = map.shape().dims();
    let out = empty_f32(x, [num_dst, num_out]);
    let groups = num_dst.div_ceil(forward::ROWS as usize) * num_out.div_ceil(forward::COLS as usize);
    let params = forward::Params {
        num_src: x.shape()[0] as u32,
        num_dst: num_dst as u32,
        num_in: num_in as u32,
        num_out: num_out as u32,
        kernel_volume: kernel_volume as u32,
    };
    let mut buffers = vec![&x.handle, &weight.handle, &map.handle, &out.handle];
    buffers.extend(bias.map(|bias| &bias.handle));
    launch(&x.client, shader, groups, &params, &buffers);
    out
}

/// Workgroups that keep a large GPU busy: with fewer tiles than this, the voxels are shared out too.
const ENOUGH_WORKGROUPS: usize = 1024;
/// Fewest voxels of a workgroup of the weight's gradient.
const MIN_SLICE: usize = 2048;
/// Voxels of a workgroup in one launch: Mesa's software driver ends all loops of an invocation after 65,535
/// rounds, and a block of `DEPTH` voxels takes about 41.
const LAUNCH_ROWS: usize = 16_384;

/// `x [num_src, in]`, `grad_out [num_dst, out]` and the map `[num_dst, K]` → `[K, in, out]`.
pub(crate) fn grad_weight_wgsl(x: &CubeTensor, grad_out: &CubeTensor, map: &CubeTensor) -> CubeTensor {
    let [num_dst, kernel_volume] = map.shape().dims();
    let (num_in, num_out) = (x.shape()[1], grad_out.shape()[1]);
    let tiles =
        num_in.div_ceil(grad_weight_shader::ROWS as usize) * num_out.div_ceil(grad_weight_shader::COLS as usize);
    let num_values = kernel_volume * num_in * num_out;
    let most = Limits::of(&x.client).rows(num_values * 4).min(num_dst.div_ceil(MIN_SLICE));
    let num_slices = ENOUGH_WORKGROUPS.div_ceil(kernel_volume * tiles).min(most);
    let slice_rows = num_dst.div_ceil(num_slices);
    let partial = empty_f32(x, [num_slices * kernel_volume, num_in, num_out]);
    for first in (0..slice_rows).step_by(LAUNCH_ROWS) {
        launch(
            &x.client,
            &grad_weight_shader::BASE,
            num_slices * kernel_volume * tiles,
            &grad_weight_shader::Params {
                num_src: x.shape()[0] as u32,
                num_dst: num_dst as u32,
                num_in: num_in as u32,
                num_out: num_out as u32,
                kernel_volume: kernel_volume as u32,
                num_slices: num_slices as u32,
                slice_rows: slice_rows as u32,
                first: first as u32,
                num_rows: LAUNCH_ROWS as u32,
            },
            &[&x.handle, &grad_out.handle, &map.handle, &partial.handle],
        );
    }
    if num_slices == 1 {
        return partial;
    }
    let grad = empty_f32(x, [kernel_volume, num_in, num_out]);
    launch(
        &x.client,
        &sum_slices::BASE,
        num_values.div_ceil(sum_slices::WG as usize),
        &sum_slices::Params { num_values: num_values as u32, num_slices: num_slices as u32 },
        &[&partial.handle, &grad.handle],
    );
    grad
}
