//! Submanifold sparse convolution, with gradients.

pub mod cpu;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};

use super::gemm::{pack, panel_width};
use super::{Host, OpError, ShapeCheck, host_tensor, plain, plain_int};
use crate::gpu::shaders::sparse_conv::{forward, grad_weight, sum_slices};
use crate::gpu::{Limits, Shader, check_binding, empty_f32, launch};

/// Backend side of [`sparse_conv`]; preconditions are checked there.
#[backend_extension(Cube, Flex, Autodiff)]
pub trait SparseConvBackend: Backend {
    /// `x [V, in]`, `weight [K, in, out]`, `src_from_dst [V, K]` → `[V, out]`.
    fn sparse_conv(x: FloatTensor<Self>, weight: FloatTensor<Self>, src_from_dst: IntTensor<Self>)
    -> FloatTensor<Self>;

    /// As `sparse_conv`, plus `bias [out]` on every row.
    fn sparse_conv_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Gradient of `x`, `[V, in]`, from `grad_out [V, out]`.
    fn sparse_conv_grad_x(
        grad_out: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Gradient of the weight, `[K, in, out]`, from `x [V, in]` and `grad_out [V, out]`.
    fn sparse_conv_grad_weight(
        x: FloatTensor<Self>,
        grad_out: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

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
    let ([num_voxels, num_in], [_, _, num_out]) = (x.dims(), weight.dims());
    if num_voxels == 0 || num_in == 0 || num_out == 0 {
        return Ok(Tensor::zeros([num_voxels, num_out], &x.device()));
    }
    let limits = super::limits_of(&x.device());
    check_binding(limits, "sparse_conv: x", num_voxels, num_in * 4)?;
    check_binding(limits, "sparse_conv: out", num_voxels, num_out * 4)?;
    let (x, weight, map) = (x.into_dispatch(), weight.into_dispatch(), plain_int(src_from_dst).into_dispatch());
    Ok(Tensor::from_dispatch(match bias {
        Some(bias) => Dispatch::sparse_conv_bias(x, weight, bias.into_dispatch(), map),
        None => Dispatch::sparse_conv(x, weight, map),
    }))
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
    dims: cpu::Dims,
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
        let width = if super::is_host(device) { panel_width() } else { num_out };
        let num_panels = num_out.div_ceil(width.max(1));
        check_binding(super::limits_of(device), "sparse_conv: weight", num_panels * depth, width * 4)?;
        let zyx_from_xyz = |k: usize| (k % edge * edge + k / edge % edge) * edge + k / (edge * edge);
        let value = |d: usize, col: usize| weight[col * depth + zyx_from_xyz(d / num_in) * num_in + d % num_in];
        let panels = super::float_tensor(pack(depth, num_out, width, value), [num_panels, depth, width], device);
        let weight = if super::is_host(device) { panels } else { panels.reshape([kernel_volume, num_in, num_out]) };
        let dims = cpu::Dims { kernel_volume, num_in, num_out };
        Ok(Self { weight, is_trained: false, bias: super::float_tensor(bias, [num_out], device), dims })
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
        Ok(Self { weight, is_trained: true, bias, dims: cpu::Dims { kernel_volume, num_in, num_out } })
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
    let cpu::Dims { kernel_volume, num_in, num_out } = kernel.dims;
    let mut shapes = ShapeCheck::new("sparse_conv");
    shapes.check("x", x.dims(), ["V".into(), num_in.into()])?;
    shapes.check("src_from_dst", src_from_dst.dims(), ["V".into(), kernel_volume.into()])?;
    let [num_voxels, _] = x.dims();
    if num_voxels == 0 || num_in == 0 || num_out == 0 {
        return Ok(Tensor::zeros([num_voxels, num_out], &x.device()));
    }
    let limits = super::limits_of(&x.device());
    check_binding(limits, "sparse_conv: x", num_voxels, num_in * 4)?;
    check_binding(limits, "sparse_conv: out", num_voxels, num_out * 4)?;
    Ok(Tensor::from_dispatch(Dispatch::sparse_conv_packed(
        plain(x).into_dispatch(),
        kernel.weight.clone().into_dispatch(),
        kernel.bias.clone().into_dispatch(),
        plain_int(src_from_dst).into_dispatch(),
        kernel.dims,
    )))
}

/// Backend side of [`sparse_conv_packed`].
#[backend_extension(Cube, Flex)]
pub trait PackedSparseConvBackend: Backend {
    /// `x [V, in]`, the packed weight, `bias [out]`, `src_from_dst [V, K]` → `[V, out]`.
    fn sparse_conv_packed(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
        dims: cpu::Dims,
    ) -> FloatTensor<Self>;
}

impl PackedSparseConvBackend for CubeBackend {
    fn sparse_conv_packed(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
        _dims: cpu::Dims,
    ) -> FloatTensor<Self> {
        forward_wgsl(x, weight, Some(bias), src_from_dst)
    }
}

impl PackedSparseConvBackend for Flex {
    fn sparse_conv_packed(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
        dims: cpu::Dims,
    ) -> FloatTensor<Self> {
        let (weight, bias) = (Host::<f32>::new(weight), Host::<f32>::new(bias));
        let map = Host::<i32>::new(src_from_dst);
        let out = cpu::forward_packed(&Host::new(x), &weight, Some(&bias), &map, dims);
        host_tensor(out, [map.len() / dims.kernel_volume, dims.num_out])
    }
}

/// A product with every offset's matrix: `num_in`, `num_out` as the shader sees them.
fn launch_forward(
    shader: &'static Shader,
    x: &CubeTensor,
    weight: &CubeTensor,
    bias: Option<&CubeTensor>,
    map: &CubeTensor,
    [num_in, num_out]: [usize; 2],
) -> CubeTensor {
    let [num_dst, kernel_volume] = map.shape().dims();
    let out = empty_f32(x, [num_dst, num_out]);
    let groups = num_dst.div_ceil(forward::ROWS as usize) * num_out.div_ceil(forward::COLS as usize);
    let params = forward::Params {
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

fn forward_wgsl(
    x: FloatTensor<CubeBackend>,
    weight: FloatTensor<CubeBackend>,
    bias: Option<FloatTensor<CubeBackend>>,
    src_from_dst: IntTensor<CubeBackend>,
) -> FloatTensor<CubeBackend> {
    let (x, weight, map) = (into_contiguous(x), into_contiguous(weight), into_contiguous(src_from_dst));
    let bias = bias.map(into_contiguous);
    let [_, num_in, num_out] = weight.shape().dims();
    let shader = if bias.is_some() { &forward::BIAS } else { &forward::BASE };
    launch_forward(shader, &x, &weight, bias.as_ref(), &map, [num_in, num_out])
}

/// Workgroups that keep a large GPU busy: with fewer tiles than this, the voxels are shared out too.
const ENOUGH_WORKGROUPS: usize = 1024;
/// Fewest voxels of a workgroup of the weight's gradient.
const MIN_SLICE: usize = 2048;
/// Voxels of a workgroup in one launch: Mesa's software driver ends all loops of an invocation after 65,535
/// rounds, and a block of `DEPTH` voxels takes about 41.
const LAUNCH_ROWS: usize = 16_384;

fn grad_weight_wgsl(x: CubeTensor, grad_out: CubeTensor, map: CubeTensor) -> CubeTensor {
    let (x, grad_out, map) = (into_contiguous(x), into_contiguous(grad_out), into_contiguous(map));
    let [num_dst, kernel_volume] = map.shape().dims();
    let (num_in, num_out) = (x.shape()[1], grad_out.shape()[1]);
    let tiles = num_in.div_ceil(grad_weight::ROWS as usize) * num_out.div_ceil(grad_weight::COLS as usize);
    let num_values = kernel_volume * num_in * num_out;
    let most = Limits::of(&x.client).rows(num_values * 4).min(num_dst.div_ceil(MIN_SLICE));
    let num_slices = ENOUGH_WORKGROUPS.div_ceil(kernel_volume * tiles).min(most);
    let slice_rows = num_dst.div_ceil(num_slices);
    let partial = empty_f32(&x, [num_slices * kernel_volume, num_in, num_out]);
    for first in (0..slice_rows).step_by(LAUNCH_ROWS) {
        launch(
            &x.client,
            &grad_weight::BASE,
            num_slices * kernel_volume * tiles,
            &grad_weight::Params {
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
    let grad = empty_f32(&x, [kernel_volume, num_in, num_out]);
    launch(
        &x.client,
        &sum_slices::BASE,
        num_values.div_ceil(sum_slices::WG as usize),
        &sum_slices::Params { num_values: num_values as u32, num_slices: num_slices as u32 },
        &[&partial.handle, &grad.handle],
    );
    grad
}

impl SparseConvBackend for CubeBackend {
    fn sparse_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        forward_wgsl(x, weight, None, src_from_dst)
    }

    fn sparse_conv_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        forward_wgsl(x, weight, Some(bias), src_from_dst)
    }

    fn sparse_conv_grad_x(
        grad_out: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let (grad_out, weight) = (into_contiguous(grad_out), into_contiguous(weight));
        let [_, num_in, num_out] = weight.shape().dims();
        let map = into_contiguous(src_from_dst);
        launch_forward(&forward::TRANSPOSED, &grad_out, &weight, None, &map, [num_out, num_in])
    }

    fn sparse_conv_grad_weight(
        x: FloatTensor<Self>,
        grad_out: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        grad_weight_wgsl(x, grad_out, src_from_dst)
    }
}

fn forward_cpu(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    bias: Option<FloatTensor<Flex>>,
    src_from_dst: IntTensor<Flex>,
) -> FloatTensor<Flex> {
    let [kernel_volume, num_in, num_out] = weight.shape().dims();
    let num_dst = src_from_dst.shape()[0];
    let dims = cpu::Dims { kernel_volume, num_in, num_out };
    let bias = bias.map(Host::<f32>::new);
    let out = cpu::forward(&Host::new(x), &Host::new(weight), bias.as_deref(), &Host::new(src_from_dst), dims);
    host_tensor(out, [num_dst, num_out])
}

impl SparseConvBackend for Flex {
    fn sparse_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        forward_cpu(x, weight, None, src_from_dst)
    }

    fn sparse_conv_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        forward_cpu(x, weight, Some(bias), src_from_dst)
    }

    fn sparse_conv_grad_x(
        grad_out: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let [kernel_volume, num_in, num_out] = weight.shape().dims();
        let num_dst = src_from_dst.shape()[0];
        let dims = cpu::Dims { kernel_volume, num_in, num_out };
        let grad = cpu::grad_x(&Host::new(grad_out), &Host::new(weight), &Host::new(src_from_dst), dims);
        host_tensor(grad, [num_dst, num_in])
    }

    fn sparse_conv_grad_weight(
        x: FloatTensor<Self>,
        grad_out: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let kernel_volume = src_from_dst.shape()[1];
        let (num_in, num_out) = (x.shape()[1], grad_out.shape()[1]);
        let dims = cpu::Dims { kernel_volume, num_in, num_out };
        let grad = cpu::grad_weight(&Host::new(x), &Host::new(grad_out), &Host::new(src_from_dst), dims);
        host_tensor(grad, [kernel_volume, num_in, num_out])
    }
}

/// What the backward pass of a convolution needs.
#[derive(Clone, Debug)]
struct ConvState<B: Backend> {
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    src_from_dst: IntTensor<B>,
}

impl<B: SparseConvBackend> ConvState<B> {
    fn register(&self, x_id: Option<NodeId>, weight_id: Option<NodeId>, grad: &FloatTensor<B>, grads: &mut Gradients) {
        if let Some(id) = x_id {
            let grad_x = B::sparse_conv_grad_x(grad.clone(), self.weight.clone(), self.src_from_dst.clone());
            grads.register::<B>(id, grad_x);
        }
        if let Some(id) = weight_id {
            let grad_weight = B::sparse_conv_grad_weight(self.x.clone(), grad.clone(), self.src_from_dst.clone());
            grads.register::<B>(id, grad_weight);
        }
    }
}

#[derive(Debug)]
struct ConvBackward;

impl<B: SparseConvBackend> Backward<B, 2> for ConvBackward {
    type State = ConvState<B>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [x, weight] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        ops.state.register(x.map(|n| n.id), weight.map(|n| n.id), &grad, grads);
    }
}

#[derive(Debug)]
struct ConvBiasBackward;

impl<B: SparseConvBackend> Backward<B, 3> for ConvBiasBackward {
    type State = ConvState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [x, weight, bias] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        ops.state.register(x.map(|n| n.id), weight.map(|n| n.id), &grad, grads);
        if let Some(bias) = bias {
            let num_out = grad.shape()[1];
            grads.register::<B>(bias.id, B::float_reshape(B::float_sum_dim(grad, 0), Shape::from([num_out])));
        }
    }
}

impl<B: SparseConvBackend, C: CheckpointStrategy> SparseConvBackend for Autodiff<B, C> {
    fn sparse_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let prep = ConvBackward.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful();
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let out = B::sparse_conv(x.clone(), weight.clone(), src_from_dst.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish(ConvState { x, weight, src_from_dst }, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn sparse_conv_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let prep = ConvBiasBackward.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful();
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let out = B::sparse_conv_bias(x.clone(), weight.clone(), bias.into_primitive(), src_from_dst.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish(ConvState { x, weight, src_from_dst }, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn sparse_conv_grad_x(
        grad_out: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let grad = B::sparse_conv_grad_x(grad_out.into_primitive(), weight.into_primitive(), src_from_dst);
        <Self as AutodiffBackend>::from_inner(grad)
    }

    fn sparse_conv_grad_weight(
        x: FloatTensor<Self>,
        grad_out: FloatTensor<Self>,
        src_from_dst: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let grad = B::sparse_conv_grad_weight(x.into_primitive(), grad_out.into_primitive(), src_from_dst);
        <Self as AutodiffBackend>::from_inner(grad)
    }
}
