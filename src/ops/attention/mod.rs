//! Multi-head scaled dot-product attention.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn::tensor::activation::softmax;
use burn_wgpu::CubeTensor;

use super::matmul::{Form, product};
use super::run::Operands;
use super::{OpError, ShapeCheck, host_tensor, limits_of, plain, plain_int, run, run_twin, with_gradient};
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
    let (blocked, causal) = match mask {
        Mask::None => (None, false),
        Mask::Causal => (None, true),
        Mask::Blocked(blocked) => (Some(plain_int(blocked)), false),
    };
    let qkv = [q.clone(), k.clone(), v.clone()].map(plain);
    let out = run(
        (qkv.clone(), blocked.clone()),
        |(qkv, blocked)| forward_wgsl(&qkv, blocked.as_ref(), extents, causal),
        |([q, k, v], blocked)| {
            let out = cpu::attention(&q, &k, &v, cpu::Blocked::new(blocked.as_deref(), causal), extents);
            host_tensor(out, [batch, num_queries, dim])
        },
    );
    Ok(with_gradient((q, k, v), out, move |grad, wants| {
        let [grad_q, grad_k, grad_v] = attention_grad(qkv, grad, blocked, extents, causal, wants);
        (grad_q, grad_k, grad_v)
    }))
}

/// q, k and v → `[B, Nq, E]`.
fn forward_wgsl(
    [q, k, v]: &[CubeTensor; 3],
    blocked: Option<&CubeTensor>,
    extents: Extents,
    causal: bool,
) -> CubeTensor {
    let Extents { batch, num_queries, num_keys, num_heads, head_dim } = extents;
    let out = empty_f32(q, [batch, num_queries, num_heads * head_dim]);
    let params = shader::Params {
        batch: batch as u32,
        num_queries: num_queries as u32,
        num_keys: num_keys as u32,
        num_heads: num_heads as u32,
        head_dim: head_dim as u32,
        causal: causal.into(),
        per_image: blocked.is_some_and(|b| b.shape()[0] > 1).into(),
        scale: 1.0 / (head_dim as f32).sqrt(),
    };
    let mut buffers = vec![&q.handle, &k.handle, &v.handle, &out.handle];
    buffers.extend(blocked.map(|blocked| &blocked.handle));
    let shader_used = if blocked.is_some() { &shader::BLOCKED } else { &shader::BASE };
    let groups = batch * num_heads * num_queries.div_ceil(shader::QUERIES as usize);
    launch(&q.client, shader_used, groups, &params, &buffers);
    out
}

/// The gradients of `qkv`, those that are `wanted`, from that of the result, `[B, Nq, E]`.
fn attention_grad(
    qkv: [Tensor<3>; 3],
    grad_out: Tensor<3>,
    blocked: Option<Tensor<3, Int>>,
    extents: Extents,
    causal: bool,
    wanted: [bool; 3],
) -> [Option<Tensor<3>>; 3] {
    if !grad_out.is_on_host() {
        return composed_grad(qkv, grad_out, blocked, extents, causal, wanted);
    }
    let shapes = qkv.each_ref().map(Tensor::dims);
    run_twin((qkv, grad_out, blocked), |([q, k, v], grad_out, blocked)| {
        let blocked = cpu::Blocked::new(blocked.as_deref(), causal);
        let grads = cpu::attention_grad([&q, &k, &v], &grad_out, blocked, extents, wanted);
        let mut parts = wanted.into_iter().zip(shapes);
        grads.map(|grad| {
            let (is_wanted, shape) = parts.next()?;
            is_wanted.then(|| host_tensor(grad, shape))
        })
    })
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
    let scores = product(q.clone(), k.clone(), Form::RightTransposed) * scale;
    let weights = match hidden {
        // A query that sees none has equal weights after the softmax, which are then taken from it.
        Some(hidden) => softmax(scores.mask_fill(hidden.clone(), f32::MIN), 3).mask_fill(hidden, 0.0),
        None => softmax(scores, 3),
    };
    let grad_v = wants_v.then(|| joined(product(weights.clone(), grad_out.clone(), Form::LeftTransposed)));
    if !(wants_q || wants_k) {
        return [None, None, grad_v];
    }
    let grad_weights = product(grad_out, v, Form::RightTransposed);
    let mean = (weights.clone() * grad_weights.clone()).sum_dim(3);
    let grad_scores = weights * (grad_weights - mean) * scale;
    let grad_q = wants_q.then(|| joined(product(grad_scores.clone(), k, Form::Plain)));
    let grad_k = wants_k.then(|| joined(product(grad_scores, q, Form::LeftTransposed)));
    [grad_q, grad_k, grad_v]
}
