//! What the views agree on for every point.

pub mod cpu;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{Host, OpError, ShapeCheck, float_tensor, host_tensor, int_tensor, limits_of, plain, plain_int};
use crate::gpu::shaders::fuse_views::fuse_views as shader;
use crate::gpu::{check_binding, empty_f32, empty_i32, launch};

/// Views whose embeddings a point takes, at most.
pub const TOP: usize = shader::TOP as usize;

/// Sizes of a fusion.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// Views, V.
    pub num_views: usize,
    /// Points, N.
    pub num_points: usize,
    /// Queries of a view, Q.
    pub num_queries: usize,
    /// Labels, K.
    pub num_labels: usize,
}

/// What the views say of every point, best first; see [`fuse_views`].
#[derive(Clone, Debug)]
pub struct FusedViews {
    /// `[N]` the label the views agree on, -1 where no view sees the point.
    pub consensus: Tensor<1, Int>,
    /// `[N, 3]` the views that speak for it most, -1 where there are fewer.
    pub view: Tensor<2, Int>,
    /// `[N, 3]` their logits of that label, 0 where there is no view.
    pub agreement: Tensor<2>,
    /// `[N, 3]` softmax of those logits, 0 where there is no view.
    pub weights: Tensor<2>,
}

/// Backend side of [`fuse_views`]; preconditions are checked there.
#[backend_extension(Cube, Flex)]
pub trait FuseViewsBackend: Backend {
    /// (consensus `[N]`, view, agreement, weights `[N, 3]`).
    fn fuse_views(
        query_from_point: IntTensor<Self>,
        logits: FloatTensor<Self>,
        extents: Extents,
    ) -> (IntTensor<Self>, IntTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// For every point: the label with the largest mean logit over the views that see it, the up to three views with the largest
/// logit of that label, and the softmax of those logits. `query_from_point [V, N]` is -1 where a view does not see a
/// point; `logits [V, Q, K]` are those of every view's queries. Ties go to the lower label and the earlier view.
///
/// # Errors
/// [`OpError::Shape`] where the views differ; [`OpError::Value`] for a query outside 0..Q, or no label;
/// [`OpError::TooLarge`] where a tensor does not fit one buffer: fuse fewer points at a time.
pub fn fuse_views(query_from_point: Tensor<2, Int>, logits: Tensor<3>) -> Result<FusedViews, OpError> {
    let mut shapes = ShapeCheck::new("fuse_views");
    shapes.check("query_from_point", query_from_point.dims(), ["V".into(), "N".into()])?;
    shapes.check("logits", logits.dims(), ["V".into(), "Q".into(), "K".into()])?;
    let [num_views, num_points] = query_from_point.dims();
    let [_, num_queries, num_labels] = logits.dims();
    let device = logits.device();
    if num_labels == 0 {
        return Err(shapes.value("there are no labels"));
    }
    let limits = limits_of(&device);
    check_binding(limits, "fuse_views: query_from_point", num_views * num_points, 4)?;
    check_binding(limits, "fuse_views: logits", num_views * num_queries, num_labels * 4)?;
    if num_points == 0 || num_views == 0 {
        let zeros = || float_tensor(vec![0.0; num_points * TOP], [num_points, TOP], &device);
        return Ok(FusedViews {
            consensus: int_tensor(vec![-1; num_points], [num_points], &device),
            view: int_tensor(vec![-1; num_points * TOP], [num_points, TOP], &device),
            agreement: zeros(),
            weights: zeros(),
        });
    }
    let query_from_point = plain_int(query_from_point);
    let most = super::int_values(query_from_point.clone().max())?[0];
    if most >= num_queries as i32 {
        return Err(shapes.value(format!("query {most}, expected at most {num_queries} - 1")));
    }
    let extents = Extents { num_views, num_points, num_queries, num_labels };
    let (consensus, view, agreement, weights) =
        Dispatch::fuse_views(query_from_point.into_dispatch(), plain(logits).into_dispatch(), extents);
    Ok(FusedViews {
        consensus: Tensor::from_dispatch(consensus),
        view: Tensor::from_dispatch(view),
        agreement: Tensor::from_dispatch(agreement),
        weights: Tensor::from_dispatch(weights),
    })
}

impl FuseViewsBackend for CubeBackend {
    fn fuse_views(
        query_from_point: IntTensor<Self>,
        logits: FloatTensor<Self>,
        extents: Extents,
    ) -> (IntTensor<Self>, IntTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (query_from_point, logits) = (into_contiguous(query_from_point), into_contiguous(logits));
        let n = extents.num_points;
        let (consensus, view) = (empty_i32(&logits, [n]), empty_i32(&logits, [n, TOP]));
        let (agreement, weights) = (empty_f32(&logits, [n, TOP]), empty_f32(&logits, [n, TOP]));
        launch(
            &logits.client,
            &shader::BASE,
            n.div_ceil(shader::WG as usize),
            &shader::Params {
                num_views: extents.num_views as u32,
                num_points: n as u32,
                num_queries: extents.num_queries as u32,
                num_labels: extents.num_labels as u32,
            },
            &[
                &query_from_point.handle,
                &logits.handle,
                &consensus.handle,
                &view.handle,
                &agreement.handle,
                &weights.handle,
            ],
        );
        (consensus, view, agreement, weights)
    }
}

impl FuseViewsBackend for Flex {
    fn fuse_views(
        query_from_point: IntTensor<Self>,
        logits: FloatTensor<Self>,
        extents: Extents,
    ) -> (IntTensor<Self>, IntTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let fused = cpu::fuse_views(&Host::new(query_from_point), &Host::new(logits), extents);
        let n = extents.num_points;
        (
            host_tensor(fused.consensus, [n]),
            host_tensor(fused.view, [n, TOP]),
            host_tensor(fused.agreement, [n, TOP]),
            host_tensor(fused.weights, [n, TOP]),
        )
    }
}
