//! Attention within patches of voxels that follow each other on a space-filling curve.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::attention::{self, MAX_HEAD_DIM, composed_grad};
use super::radix_sort::radix_sort;
use super::run::Operands;
use super::segment_reduce::{Reduction, reduce};
use super::{
    OpError, ShapeCheck, host_tensor, int_tensor, limits_of, plain, plain_int, run, run_twin, run_wgsl, with_gradient,
};
use crate::gpu::shaders::info_nce::offsets as offsets_shader;
use crate::gpu::shaders::serialized_attention::serialized_attention as shader;
use crate::gpu::{check_binding, empty_f32, empty_i32, i32_tensor, launch, scalar_buffer};

/// Most slots of a patch.
pub const MAX_PATCH: usize = 1 << 14;
/// Most channels of a head for which the shader's base permutation has room.
const NARROW_HEAD_DIM: usize = 16;

/// How the serialized voxels of several clouds fill patches of one size, as in Point Transformer V3.
///
/// A patch has as many slots as the smallest cloud has voxels, `max_patch` at most. Each cloud begins a patch; where its
/// last one is not full, the rest of it takes the voxels that stand one patch earlier: they are keys there a second
/// time, and their results there are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Slots of a patch.
    pub patch_size: usize,
    /// `[P · patch_size]` the place in serialized order that fills each slot.
    pub pad: Vec<i32>,
    /// `[V]` the slot of each place in serialized order where its own result is.
    pub unpad: Vec<i32>,
}

impl Padding {
    /// For clouds of these sizes, one after the other; those without a voxel count for nothing.
    #[must_use]
    pub fn new(sizes: &[usize], max_patch: usize) -> Self {
        let sizes = || sizes.iter().copied().filter(|&size| size > 0);
        let patch_size = sizes().min().unwrap_or(0).min(max_patch).max(1);
        let (mut pad, mut unpad) = (Vec::new(), Vec::new());
        for size in sizes() {
            let (first, first_slot) = (unpad.len(), pad.len());
            let missing = size.next_multiple_of(patch_size) - size;
            let places = (0..size).chain(size - patch_size..size - patch_size + missing);
            // The tail of the last patch stands one patch behind the voxels that it borrows.
            pad.extend(places.map(|place| (first + place) as i32));
            unpad.extend((first_slot..first_slot + size).map(|slot| slot as i32));
        }
        Self { patch_size, pad, unpad }
    }

    /// The patches along a curve, `[P, patch_size]`, for [`serialized_attention`]: v for the slot where voxel v's result
    /// is taken, −1 − v where it is borrowed. `order` is [`Sequence::order`](super::serialization::Sequence::order).
    ///
    /// # Errors
    /// [`OpError::Shape`] where `order` has not as many voxels; [`OpError::TooLarge`] where the slots do not fit one
    /// buffer.
    pub fn patches(&self, order: &Tensor<1, Int>) -> Result<Tensor<2, Int>, OpError> {
        let shapes = &mut ShapeCheck::new("serialized_attention");
        shapes.check("order", order.dims(), [self.unpad.len().into()])?;
        let (num_slots, device) = (self.pad.len(), order.device());
        check_binding(limits_of(&device), "serialized_attention: patches", num_slots, 4)?;
        let shape = [num_slots / self.patch_size, self.patch_size];
        if num_slots == 0 {
            return Ok(int_tensor(Vec::new(), shape, &device));
        }
        let mut is_borrowed = vec![1; num_slots];
        self.unpad.iter().for_each(|&slot| is_borrowed[slot as usize] = 0);
        let sign = is_borrowed.iter().map(|borrowed| 1 - 2 * borrowed).collect();
        let pad = int_tensor(self.pad.clone(), [num_slots], &device);
        let voxel = plain_int(order.clone()).select(0, pad);
        let (sign, is_borrowed) =
            (int_tensor(sign, [num_slots], &device), int_tensor(is_borrowed, [num_slots], &device));
        Ok((voxel * sign - is_borrowed).reshape(shape))
    }
}

/// Sizes of an attention within patches.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// Patches, P.
    pub num_patches: usize,
    /// Slots of a patch, K.
    pub patch_size: usize,
    /// Heads.
    pub num_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

/// Softmax(q · kᵀ / √d) · v per head among the voxels of each patch: `qkv [V, 3 · C]`, in it q, k and v, each as
/// `num_heads` blocks of d = C / `num_heads` channels → `[V, C]`.
///
/// `patches [P, K]` holds v in exactly one slot for every voxel v, and −1 − v in slots where v is a key alone, as
/// [`Padding::patches`] makes it. A slot that names no voxel holds the last one, as a key alone. Rows are read
/// where they lie, and scores exist for a tile only.
///
/// The gradient flows to `qkv`; a voxel gets it from its own slot and from those where it is borrowed. Sums have a fixed
/// order, so two runs on one device agree to the bit.
///
/// # Errors
/// [`OpError::Shape`] where `qkv` has not three parts; [`OpError::Value`] where C is not a multiple of the heads, a head has
/// more than [`MAX_HEAD_DIM`] channels, or a patch more than [`MAX_PATCH`] slots; [`OpError::TooLarge`] where a tensor
/// does not fit one buffer.
pub fn serialized_attention(qkv: Tensor<2>, patches: Tensor<2, Int>, num_heads: usize) -> Result<Tensor<2>, OpError> {
    let mut shapes = ShapeCheck::new("serialized_attention");
    let ([num_voxels, width], [num_patches, patch_size]) = (qkv.dims(), patches.dims());
    let dim = width / 3;
    shapes.check("qkv", [num_voxels, width], ["V".into(), (3 * dim).into()])?;
    if num_heads == 0 || dim % num_heads != 0 || dim / num_heads > MAX_HEAD_DIM {
        return Err(shapes.value(format!(
            "{num_heads} heads of {dim} channels, expected a divisor that leaves at most {MAX_HEAD_DIM}"
        )));
    }
    if patch_size > MAX_PATCH {
        return Err(shapes.value(format!("patches of {patch_size} voxels, expected at most {MAX_PATCH}")));
    }
    if num_voxels * dim == 0 || num_patches * patch_size == 0 {
        return Ok(Tensor::zeros([num_voxels, dim], &qkv.device()));
    }
    let limits = limits_of(&qkv.device());
    check_binding(limits, "serialized_attention: qkv", num_voxels, width * 4)?;
    check_binding(limits, "serialized_attention: patches", num_patches, patch_size * 4)?;
    let extents = Extents { num_patches, patch_size, num_heads, head_dim: dim / num_heads };
    let (plain_qkv, patches) = (plain(qkv.clone()), plain_int(patches));
    let out = run(
        (plain_qkv.clone(), patches.clone()),
        |(qkv, patches)| forward_wgsl(&qkv, &patches, extents),
        |(qkv, patches)| host_tensor(cpu::serialized_attention(&qkv, &patches, num_voxels, extents), [num_voxels, dim]),
    );
    Ok(with_gradient((qkv,), out, move |grad, [wants]| (wants.then(|| qkv_grad(plain_qkv, grad, patches, extents)),)))
}

/// `qkv [V, 3 · C]`, `patches [P, K]` → `[V, C]`.
fn forward_wgsl(qkv: &CubeTensor, patches: &CubeTensor, extents: Extents) -> CubeTensor {
    let Extents { num_patches, patch_size, num_heads, head_dim } = extents;
    let num_voxels = qkv.shape()[0];
    let out = empty_f32(qkv, [num_voxels, num_heads * head_dim]);
    let params = shader::Params {
        num_voxels: num_voxels as u32,
        num_patches: num_patches as u32,
        patch_size: patch_size as u32,
        num_heads: num_heads as u32,
        head_dim: head_dim as u32,
        scale: 1.0 / (head_dim as f32).sqrt(),
    };
    let shader_used = if head_dim <= NARROW_HEAD_DIM { &shader::BASE } else { &shader::WIDE };
    let groups = num_patches * num_heads * patch_size.div_ceil(shader::QUERIES as usize);
    launch(&qkv.client, shader_used, groups, &params, &[&qkv.handle, &patches.handle, &out.handle]);
    out
}

/// Gradient of `qkv`, `[V, 3 · C]`, from that of the result, `[V, C]`.
fn qkv_grad(qkv: Tensor<2>, grad_out: Tensor<2>, patches: Tensor<2, Int>, extents: Extents) -> Tensor<2> {
    let Extents { num_patches, patch_size, num_heads, head_dim } = extents;
    let ([num_voxels, width], dim) = (qkv.dims(), num_heads * head_dim);
    if qkv.is_on_host() {
        return run_twin(([qkv, grad_out], patches), |([qkv, grad_out], patches)| {
            let grad = cpu::serialized_attention_grad(&qkv, &grad_out, &patches, num_voxels, extents);
            host_tensor(grad, [num_voxels, width])
        });
    }
    let limits = limits_of(&qkv.device());
    let at_once = limits.rows(num_heads * patch_size * patch_size * 4).clamp(1, num_patches);
    let slots = patches.reshape([num_patches * patch_size]);
    let last = num_voxels as i32 - 1;
    let is_borrowed = slots.clone().lower_elem(0).bool_or(slots.clone().greater_elem(last));
    let voxels = slots.clone().mask_where(slots.clone().lower_elem(0), slots.mul_scalar(-1).sub_scalar(1));
    let voxels = voxels.clamp(0, last);
    let of_patches = (0..num_patches).step_by(at_once).map(|first| {
        let batch = at_once.min(num_patches - first);
        let num_slots = batch * patch_size;
        let range = first * patch_size..first * patch_size + num_slots;
        let voxels = voxels.clone().slice([range.clone()]);
        let is_borrowed = is_borrowed.clone().slice([range]).unsqueeze_dim::<2>(1).expand([num_slots, dim]);
        let rows = qkv.clone().select(0, voxels.clone());
        let part =
            |i: usize| rows.clone().slice([0..num_slots, i * dim..(i + 1) * dim]).reshape([batch, patch_size, dim]);
        let grad_out = grad_out.clone().select(0, voxels).mask_fill(is_borrowed, 0.0);
        let grad_out = grad_out.reshape([batch, patch_size, dim]);
        let extents = attention::Extents { batch, num_queries: patch_size, num_keys: patch_size, num_heads, head_dim };
        let grads = composed_grad([part(0), part(1), part(2)], grad_out, None, extents, false, [true; 3]);
        Tensor::cat(grads.into_iter().flatten().collect(), 2).reshape([num_slots, 3 * dim])
    });
    sum_by_voxel(Tensor::cat(of_patches.collect(), 0), voxels, num_voxels)
}

/// Sums of the rows of `grads [slots, C]` that belong to each voxel, `[V, C]`, in the order of the slots.
fn sum_by_voxel(grads: Tensor<2>, voxels: Tensor<1, Int>, num_voxels: usize) -> Tensor<2> {
    // One slot behind the last voxel, so that where it begins is where the last voxel's end.
    let end = int_tensor(vec![num_voxels as i32], [1], &voxels.device());
    let keys = Tensor::cat(vec![voxels, end], 0);
    let ([num_keys], num_offsets) = (keys.dims(), num_voxels + 1);
    let (order, offsets): (Tensor<1, Int>, Tensor<1, Int>) = run_wgsl(keys, |keys| {
        let client = &keys.client;
        let order = radix_sort(client, &keys.handle, num_keys, &[usize::BITS - num_voxels.leading_zeros()]);
        let (offsets, num_pieces) = (empty_i32(&keys, [num_offsets]), scalar_buffer(client, num_offsets));
        launch(
            client,
            &offsets_shader::BASE,
            num_offsets.div_ceil(offsets_shader::WG as usize),
            &offsets_shader::Params { num_rows: num_offsets as u32, num_entries: num_keys as u32 },
            &[&keys.handle, &order, &offsets.handle, &num_pieces],
        );
        (i32_tensor(&keys, order, num_keys), offsets)
    });
    let mean = reduce(grads, order, offsets.clone(), Reduction::Mean);
    let counts = offsets.clone().slice(1..num_offsets) - offsets.slice(0..num_voxels);
    let counts = counts.unsqueeze_dim::<2>(1).expand(mean.dims());
    (mean * counts.clone().float()).mask_fill(counts.equal_elem(0), 0.0)
}
