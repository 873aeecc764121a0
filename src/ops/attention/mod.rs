//! Multi-head scaled dot-product attention.

pub mod cpu;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain, plain_int};
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
#[backend_extension(Cube, Flex)]
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

/// Softmax(q · kᵀ / √d) · v per head, heads being consecutive blocks of d = E / `num_heads` channels:
/// `q [B, Nq, E]`, `k` and `v [B, Nk, E]` → `[B, Nq, E]`. Neither scores nor weights are kept.
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
    let d = |x: Tensor<3>| plain(x).into_dispatch();
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
