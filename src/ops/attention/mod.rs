//! Multi-head scaled dot-product attention.

pub mod cpu;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn::tensor::activation::softmax;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, into_cube, limits_of, plain_int};
use crate::gpu::shaders::attention::attention as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// Most channels of a head: what a workgroup's shared memory holds.
pub const MAX_HEAD_DIM: usize = 64;

/// Which keys a query may not attend to.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub enum Mask {
    /// It sees all of them.
    None,
    /// It sees those up to its own position.
    Causal,
    /// It does not see those where this `[B, Nq, Nk]` (or `[1, Nq, Nk]` for all images) is not 0. A query that
    /// sees none gives zeros.
    Blocked(Tensor<3, Int>),
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// Sequences, B.
    pub batch: usize,
    /// Queries of a sequence.
    pub num_queries: usize,
    /// Keys of a sequence.
    pub num_keys: usize,
    /// Heads.
    pub num_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

/// Backend side of [`attention`]; preconditions are checked there.
#[backend_extension(Cube, Flex, Autodiff)]
pub trait AttentionBackend: Backend {
    /// `q [B, Nq, E]`, `k`, `v [B, Nk, E]` → `[B, Nq, E]`.
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        extents: Extents,
        causal: bool,
    ) -> FloatTensor<Self>;

    /// As `attention`, without the keys that `blocked [B or 1, Nq, Nk]` marks.
    fn attention_blocked(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        blocked: IntTensor<Self>,
        extents: Extents,
    ) -> FloatTensor<Self>;
}

/// The backward side of [`attention`].
pub trait AttentionGradBackend: Backend {
    /// Gradients of `qkv`, those that are `wanted`, from that of the result, `[B, Nq, E]`.
    fn attention_grad(
        qkv: [FloatTensor<Self>; 3],
        grad_out: FloatTensor<Self>,
        blocked: Option<IntTensor<Self>>,
        extents: Extents,
        causal: bool,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3];
}

/// Softmax(q · kᵀ / √d) · v per head, heads being consecutive blocks of d = E / `num_heads` channels:
/// `q [B, Nq, E]`, `k` and `v [B, Nk, E]` → `[B, Nq, E]`. Neither scores nor weights are kept.
///
/// Gradients flow to `q`, `k` and `v`, for which the weights are made again. They are summed in a fixed order, so two
/// runs on one device agree to the bit.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] where E is not a multiple of the heads or
/// a head has more than [`MAX_HEAD_DIM`] channels; [`OpError::TooLarge`] where a tensor does not fit one buffer.
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, num_heads: usize, mask: Mask) -> Result<Tensor<3>, OpError> {
    let mut shapes = ShapeCheck::new("attention");
    shapes.check("q", q.dims(), ["B".into(), "Nq".into(), "E".into()])?;
    shapes.check("k", k.dims(), ["B".into(), "Nk".into(), "E".into()])?;
    shapes.check("v", v.dims(), ["B".into(), "Nk".into(), "E".into()])?;
    let ([batch, num_queries, dim], [_, num_keys, _]) = (q.dims(), k.dims());
    if num_heads == 0 || dim % num_heads != 0 || dim / num_heads > MAX_HEAD_DIM {
        return Err(shapes.value(format!(
            "{num_heads} heads of {dim} channels, expected a divisor that leaves at most {MAX_HEAD_DIM}"
        )));
    }
    if let Mask::Blocked(blocked) = &mask {
        let images = if blocked.dims()[0] == 1 { 1 } else { batch };
        shapes.check("blocked", blocked.dims(), [images.into(), "Nq".into(), "Nk".into()])?;
    }
    if batch * num_queries * num_keys * dim == 0 {
        return Ok(Tensor::zeros([batch, num_queries, dim], &q.device()));
    }
    let limits = limits_of(&q.device());
    check_binding(limits, "attention: q", batch * num_queries, dim * 4)?;
    check_binding(limits, "attention: k", batch * num_keys, dim * 4)?;
    if let Mask::Blocked(blocked) = &mask {
        check_binding(limits, "attention: blocked", blocked.dims()[0] * num_queries, num_keys * 4)?;
    }
    let extents = Extents { batch, num_queries, num_keys, num_heads, head_dim: dim / num_heads };
    let d = |x: Tensor<3>| x.into_dispatch();
    Ok(Tensor::from_dispatch(match mask {
        Mask::None => Dispatch::attention(d(q), d(k), d(v), extents, false),
        Mask::Causal => Dispatch::attention(d(q), d(k), d(v), extents, true),
        Mask::Blocked(blocked) => {
            Dispatch::attention_blocked(d(q), d(k), d(v), plain_int(blocked).into_dispatch(), extents)
        }
    }))
}

fn launch_wgsl(
    [q, k, v]: [FloatTensor<CubeBackend>; 3],
    blocked: Option<IntTensor<CubeBackend>>,
    extents: Extents,
    causal: bool,
) -> FloatTensor<CubeBackend> {
    let (q, k, v) = (into_contiguous(q), into_contiguous(k), into_contiguous(v));
    let blocked = blocked.map(into_contiguous);
    let Extents { batch, num_queries, num_keys, num_heads, head_dim } = extents;
    let out = empty_f32(&q, [batch, num_queries, num_heads * head_dim]);
    let params = shader::Params {
        batch: batch as u32,
        num_queries: num_queries as u32,
        num_keys: num_keys as u32,
        num_heads: num_heads as u32,
        head_dim: head_dim as u32,
        causal: causal.into(),
        per_image: blocked.as_ref().is_some_and(|b| b.shape()[0] > 1).into(),
        scale: 1.0 / (head_dim as f32).sqrt(),
    };
    let mut buffers = vec![&q.handle, &k.handle, &v.handle, &out.handle];
    let shader_used = match &blocked {
        Some(blocked) => {
            buffers.push(&blocked.handle);
            &shader::BLOCKED
        }
        None => &shader::BASE,
    };
    let groups = batch * num_heads * num_queries.div_ceil(shader::QUERIES as usize);
    launch(&q.client, shader_used, groups, &params, &buffers);
    out
}

impl AttentionBackend for CubeBackend {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        extents: Extents,
        causal: bool,
    ) -> FloatTensor<Self> {
        launch_wgsl([q, k, v], None, extents, causal)
    }

    fn attention_blocked(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        blocked: IntTensor<Self>,
        extents: Extents,
    ) -> FloatTensor<Self> {
        launch_wgsl([q, k, v], Some(blocked), extents, false)
    }
}

fn run_cpu(qkv: [FloatTensor<Flex>; 3], blocked: cpu::Blocked<'_>, extents: Extents) -> FloatTensor<Flex> {
    let [q, k, v] = qkv.map(Host::<f32>::new);
    let out = cpu::attention(&q, &k, &v, blocked, extents);
    host_tensor(out, [extents.batch, extents.num_queries, extents.num_heads * extents.head_dim])
}

impl AttentionBackend for Flex {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        extents: Extents,
        causal: bool,
    ) -> FloatTensor<Self> {
        run_cpu([q, k, v], if causal { cpu::Blocked::Causal } else { cpu::Blocked::None }, extents)
    }

    fn attention_blocked(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        blocked: IntTensor<Self>,
        extents: Extents,
    ) -> FloatTensor<Self> {
        let blocked = Host::<i32>::new(blocked);
        run_cpu([q, k, v], cpu::Blocked::At(&blocked), extents)
    }
}

impl AttentionGradBackend for CubeBackend {
    fn attention_grad(
        qkv: [FloatTensor<Self>; 3],
        grad_out: FloatTensor<Self>,
        blocked: Option<IntTensor<Self>>,
        extents: Extents,
        causal: bool,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        let blocked = blocked.map(Tensor::from_primitive::<Self>);
        let qkv = qkv.map(Tensor::from_primitive::<Self>);
        let grads = composed_grad(qkv, Tensor::from_primitive::<Self>(grad_out), blocked, extents, causal, wanted);
        grads.map(|grad| grad.map(into_cube))
    }
}

/// The gradients by matrix products over all scores, of plain tensors.
pub(crate) fn composed_grad(
    qkv: [Tensor<3>; 3],
    grad_out: Tensor<3>,
    blocked: Option<Tensor<3, Int>>,
    extents: Extents,
    causal: bool,
    [wants_q, wants_k, wants_v]: [bool; 3],
) -> [Option<Tensor<3>>; 3] {
    let Extents { batch, num_queries, num_keys, num_heads, head_dim } = extents;
    let heads = |x: Tensor<3>| {
        let [_, len, _] = x.dims();
        x.reshape([batch, len, num_heads, head_dim]).swap_dims(1, 2)
    };
    let joined = |x: Tensor<4>| {
        let [_, _, len, _] = x.dims();
        x.swap_dims(1, 2).reshape([batch, len, num_heads * head_dim])
    };
    let [q, k, v] = qkv.map(heads);
    let grad_out = heads(grad_out);
    let scale = 1.0 / (head_dim as f64).sqrt();
    let hidden = if causal {
        let positions = |len: usize| Tensor::<1, Int>::arange(0..len as i64, &q.device());
        let behind = positions(num_keys).reshape([1, 1, 1, num_keys]).expand([1, 1, num_queries, num_keys]);
        let own = positions(num_queries).reshape([1, 1, num_queries, 1]).expand([1, 1, num_queries, num_keys]);
        Some(behind.greater(own))
    } else {
        blocked.map(|blocked| blocked.not_equal_elem(0).unsqueeze_dim::<4>(1))
    };
    let hidden = hidden.map(|hidden| hidden.expand([batch, num_heads, num_queries, num_keys]));
    let scores = q.clone().matmul(k.clone().swap_dims(2, 3)) * scale;
    let weights = match hidden {
        // A query that sees none has equal weights after the softmax, which are then taken from it.
        Some(hidden) => softmax(scores.mask_fill(hidden.clone(), f32::MIN), 3).mask_fill(hidden, 0.0),
        None => softmax(scores, 3),
    };
    let grad_v = wants_v.then(|| joined(weights.clone().swap_dims(2, 3).matmul(grad_out.clone())));
    if !(wants_q || wants_k) {
        return [None, None, grad_v];
    }
    let grad_weights = grad_out.matmul(v.swap_dims(2, 3));
    let mean = (weights.clone() * grad_weights.clone()).sum_dim(3);
    let grad_scores = weights * (grad_weights - mean) * scale;
    let grad_q = wants_q.then(|| joined(grad_scores.clone().matmul(k)));
    let grad_k = wants_k.then(|| joined(grad_scores.swap_dims(2, 3).matmul(q)));
    [grad_q, grad_k, grad_v]
}

impl AttentionGradBackend for Flex {
    fn attention_grad(
        qkv: [FloatTensor<Self>; 3],
        grad_out: FloatTensor<Self>,
        blocked: Option<IntTensor<Self>>,
        extents: Extents,
        causal: bool,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        let Extents { batch, num_queries, num_keys, num_heads, head_dim } = extents;
        let [q, k, v] = qkv.map(Host::<f32>::new);
        let blocked = blocked.map(Host::<i32>::new);
        let hidden = match &blocked {
            Some(blocked) => cpu::Blocked::At(blocked),
            None if causal => cpu::Blocked::Causal,
            None => cpu::Blocked::None,
        };
        let grads = cpu::attention_grad([&q, &k, &v], &Host::new(grad_out), hidden, extents, wanted);
        let mut parts = wanted.into_iter().zip([num_queries, num_keys, num_keys]);
        grads.map(|grad| {
            let (is_wanted, num_rows) = parts.next()?;
            is_wanted.then(|| host_tensor(grad, [batch, num_rows, num_heads * head_dim]))
        })
    }
}

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct State<B: Backend> {
    qkv: [FloatTensor<B>; 3],
    blocked: Option<IntTensor<B>>,
    extents: Extents,
    causal: bool,
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: AttentionGradBackend> Backward<B, 3> for AttentionBackward {
    type State = State<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad_out = grads.consume::<B>(&ops.node);
        let State { qkv, blocked, extents, causal } = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let grads_of_inputs = B::attention_grad(qkv, grad_out, blocked, extents, causal, wanted);
        for (parent, grad) in ops.parents.into_iter().zip(grads_of_inputs) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                grads.register::<B>(parent.id, grad);
            }
        }
    }
}

fn run_tracked<B: AttentionBackend + AttentionGradBackend, C: CheckpointStrategy>(
    qkv: [FloatTensor<Autodiff<B, C>>; 3],
    blocked: Option<IntTensor<B>>,
    extents: Extents,
    causal: bool,
) -> FloatTensor<Autodiff<B, C>> {
    let prep = AttentionBackward.prepare::<C>(qkv.each_ref().map(|x| x.node())).compute_bound().stateful();
    let qkv = qkv.map(|x| x.into_primitive());
    let [q, k, v] = qkv.clone();
    let out = match &blocked {
        Some(blocked) => B::attention_blocked(q, k, v, blocked.clone(), extents),
        None => <B as AttentionBackend>::attention(q, k, v, extents, causal),
    };
    match prep {
        OpsKind::Tracked(prep) => prep.finish(State { qkv, blocked, extents, causal }, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

impl<B: AttentionBackend + AttentionGradBackend, C: CheckpointStrategy> AttentionBackend for Autodiff<B, C> {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        extents: Extents,
        causal: bool,
    ) -> FloatTensor<Self> {
        run_tracked::<B, C>([q, k, v], None, extents, causal)
    }

    fn attention_blocked(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        blocked: IntTensor<Self>,
        extents: Extents,
    ) -> FloatTensor<Self> {
        run_tracked::<B, C>([q, k, v], Some(blocked), extents, false)
    }
}
