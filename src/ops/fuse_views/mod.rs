//! Fusion of views: the label they agree on for every point.

pub mod cpu;

use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::{OpError, ShapeCheck, float_tensor, host_tensor, int_tensor, int_values, limits_of, plain_int, run};
use crate::gpu::shaders::fuse_views::consensus as consensus_shader;
use crate::gpu::shaders::fuse_views::fuse_views as shader;
use crate::gpu::{check_binding, empty_f32, empty_i32, launch};

/// Views whose embeddings a point takes, at most.
pub const TOP: usize = shader::TOP as usize;
/// Rounds of its loops that an invocation makes in one launch: Mesa's software driver ends them after 65,535.
const MAX_ROUNDS: usize = 1 << 15;

/// Sizes of a fusion.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// Views, V.
    pub num_views: usize,
    /// Points, N.
    pub num_points: usize,
    /// Labels, K.
    pub num_labels: usize,
}

/// The views fused for every point; see [`fuse_views`].
#[derive(Clone, Debug)]
pub struct FusedViews {
    /// `[N]` the label the views agree on, -1 where no view sees the point.
    pub consensus: Tensor<1, Int>,
    /// `[N]` how many views see the point.
    pub num_views: Tensor<1, Int>,
    /// `[N, 3]` the rows that speak for the label most, best first, -1 where there are fewer.
    pub row: Tensor<2, Int>,
    /// `[N, 3]` their logits of that label, 0 where there is no row.
    pub agreement: Tensor<2>,
    /// `[N, 3]` softmax of those logits, 0 where there is no row.
    pub weights: Tensor<2>,
}

/// For every point: the label with the largest mean logit over the views that see it, the up to three views' rows with
/// the largest logit of that label, and the softmax of those logits. `row_from_point [V, N]` are rows of the table of
/// all views' queries, -1 where a view does not see a point; `logits [R, K]` are the table's. Ties go to the lower label
/// and the earlier view.
///
/// # Errors
/// [`OpError::Value`] for a row that is not below R, or no label; [`OpError::TooLarge`] where a tensor does not fit one
/// buffer: fuse fewer points at a time.
pub fn fuse_views(row_from_point: Tensor<2, Int>, logits: Tensor<2>) -> Result<FusedViews, OpError> {
    let shapes = ShapeCheck::new("fuse_views");
    let ([num_views, num_points], [num_rows, num_labels]) = (row_from_point.dims(), logits.dims());
    let device = logits.device();
    if num_labels == 0 {
        return Err(shapes.value("there are no labels"));
    }
    let limits = limits_of(&device);
    check_binding(limits, "fuse_views: row_from_point", num_views * num_points, 4)?;
    check_binding(limits, "fuse_views: row", num_points, TOP * 4)?;
    check_binding(limits, "fuse_views: logits", num_rows, num_labels * 4)?;
    if num_points == 0 || num_views == 0 {
        let zeros = || float_tensor(vec![0.0; num_points * TOP], [num_points, TOP], &device);
        return Ok(FusedViews {
            consensus: int_tensor(vec![-1; num_points], [num_points], &device),
            num_views: int_tensor(vec![0; num_points], [num_points], &device),
            row: int_tensor(vec![-1; num_points * TOP], [num_points, TOP], &device),
            agreement: zeros(),
            weights: zeros(),
        });
    }
    let row_from_point = plain_int(row_from_point);
    let most = int_values(row_from_point.clone().max())?[0];
    if most >= num_rows as i32 {
        return Err(shapes.value(format!("row {most}, expected at most {num_rows} - 1")));
    }
    let extents = Extents { num_views, num_points, num_labels };
    let (consensus, num_views, row, agreement, weights) = run(
        (row_from_point, logits),
        |(row_from_point, logits)| fuse_wgsl(&row_from_point, &logits, extents),
        |(row_from_point, logits)| {
            let fused = cpu::fuse_views(&row_from_point, &logits, extents);
            (
                host_tensor(fused.consensus, [num_points]),
                host_tensor(fused.num_views, [num_points]),
                host_tensor(fused.row, [num_points, TOP]),
                host_tensor(fused.agreement, [num_points, TOP]),
                host_tensor(fused.weights, [num_points, TOP]),
            )
        },
    );
    Ok(FusedViews { consensus, num_views, row, agreement, weights })
}

/// Consensus, number of views `[N]`, row, agreement and weights `[N, 3]`.
fn fuse_wgsl(
    row_from_point: &CubeTensor,
    logits: &CubeTensor,
    extents: Extents,
) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
    let Extents { num_views, num_points: n, num_labels } = extents;
    let (best_sum, consensus, count) = (empty_f32(logits, [n]), empty_i32(logits, [n]), empty_i32(logits, [n]));
    // Four labels a round.
    let block = (MAX_ROUNDS / num_views).max(1) * 4;
    for first_label in (0..num_labels).step_by(block) {
        launch(
            &logits.client,
            &consensus_shader::BASE,
            n.div_ceil(consensus_shader::WG as usize),
            &consensus_shader::Params {
                num_views: num_views as u32,
                num_points: n as u32,
                num_labels: num_labels as u32,
                first_label: first_label as u32,
                end_label: num_labels.min(first_label + block) as u32,
            },
            &[&row_from_point.handle, &logits.handle, &best_sum.handle, &consensus.handle, &count.handle],
        );
    }
    let row = empty_i32(logits, [n, TOP]);
    let (agreement, weights) = (empty_f32(logits, [n, TOP]), empty_f32(logits, [n, TOP]));
    launch(
        &logits.client,
        &shader::BASE,
        n.div_ceil(shader::WG as usize),
        &shader::Params { num_views: num_views as u32, num_points: n as u32, num_labels: num_labels as u32 },
        &[&row_from_point.handle, &logits.handle, &consensus.handle, &row.handle, &agreement.handle, &weights.handle],
    );
    (consensus, count, row, agreement, weights)
}
