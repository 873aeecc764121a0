//! The choice of positives and negatives for contrastive distillation.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::{OpError, ShapeCheck, float_values, host_tensor, int_tensor, int_values, limits_of, plain, plain_int, run};
use crate::gpu::shaders::contrastive_pairs::{
    macro_negatives as macro_shader, micro_negatives as micro_shader, norms as norms_shader, select, similarity,
};
use crate::gpu::{Limits, check_binding, empty_f32, empty_i32, launch};

/// Most macro negatives of an anchor.
pub const MAX_MACRO: usize = select::LIST as usize - 1;

/// Most neighbours of an anchor.
pub const MAX_NEIGHBORS: usize = micro_shader::WG as usize;

/// Rows are not divided by less than this.
const MIN_NORM: f32 = similarity::MIN_NORM;

/// Similarities that exist at once on a GPU, in words.
const BLOCK_WORDS: usize = 1 << 24;

/// How many negatives an anchor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negatives {
    /// From the whole scene.
    pub num_macro: usize,
    /// From the anchor's neighbours.
    pub num_micro: usize,
}

impl Negatives {
    /// As the paper says.
    pub const PAPER: Self = Self { num_macro: 48, num_micro: 16 };
    /// As the published code does: 63, of which 48 from the whole scene.
    pub const PUBLISHED: Self = Self { num_macro: 48, num_micro: 15 };
}

/// The rows that an anchor is drawn to and pushed from; see [`contrastive_pairs`].
#[derive(Clone, Debug)]
pub struct Pairs {
    /// `[A]`: the most similar other row.
    pub positive: Tensor<1, Int>,
    /// `[A, num_macro]`: the least similar rows of all, least first.
    pub macro_negatives: Tensor<2, Int>,
    /// `[A, num_micro]`: the least similar neighbours, least first.
    pub micro_negatives: Tensor<2, Int>,
}

impl Pairs {
    /// Macro and micro negatives side by side, `[A, num_macro + num_micro]`. A row that is both stands there twice.
    #[must_use]
    pub fn negatives(self) -> Tensor<2, Int> {
        match (self.macro_negatives.dims()[1], self.micro_negatives.dims()[1]) {
            (0, _) => self.micro_negatives,
            (_, 0) => self.macro_negatives,
            _ => Tensor::cat(vec![self.macro_negatives, self.micro_negatives], 1),
        }
    }
}

/// Positive and negatives of every anchor by the cosine between rows of `features [N, D]`, a teacher's, of any
/// length: rows are divided by max(‖·‖, 10⁻¹²) here.
///
/// `anchors [A]` are rows; `neighbors [A, K]` the rows next to each anchor in space, each once, -1 for none. The
/// positive is the most similar row but the anchor itself, out of all N. Macro negatives are the least similar of
/// all N, micro negatives the least similar of the neighbours, both without the anchor and its positive, in
/// ascending order. A row may be in both. Of equally similar rows the lower index comes first; equal rows of
/// features are equally similar to the bit, on every device. (GeoPurify, 2026, `sample_contrastive_pairs_hybrid`
/// of the published code.)
///
/// The A × N similarities exist in blocks only: 2·A·N·D operations, and memory for 64 MiB of them.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] where an index is no row, a row of the features has
/// no finite length, more than [`MAX_MACRO`] macro negatives or [`MAX_NEIGHBORS`] neighbours are asked for, there
/// are no `num_macro` rows besides an anchor and its positive or no `num_micro` such neighbours;
/// [`OpError::TooLarge`] where a tensor does not fit one buffer.
pub fn contrastive_pairs(
    features: Tensor<2>,
    anchors: Tensor<1, Int>,
    neighbors: Tensor<2, Int>,
    negatives: Negatives,
) -> Result<Pairs, OpError> {
    let Negatives { num_macro, num_micro } = negatives;
    let mut shapes = ShapeCheck::new("contrastive_pairs");
    shapes.check("features", features.dims(), ["N".into(), "D".into()])?;
    shapes.check("anchors", anchors.dims(), ["A".into()])?;
    shapes.check("neighbors", neighbors.dims(), ["A".into(), "K".into()])?;
    let ([num_points, num_channels], [num_anchors, k]) = (features.dims(), neighbors.dims());
    if num_macro > MAX_MACRO || k > MAX_NEIGHBORS {
        return Err(shapes.value(format!(
            "{num_macro} macro negatives and {k} neighbours, expected at most {MAX_MACRO} and {MAX_NEIGHBORS}"
        )));
    }
    if num_channels == 0 || num_points < num_macro + 2 {
        return Err(shapes.value(format!(
            "{num_points} points of {num_channels} channels, expected an anchor, its positive and {num_macro} macro \
             negatives, of one channel at least"
        )));
    }
    if num_micro > k {
        return Err(
            shapes.value(format!("{num_micro} micro negatives out of {k} neighbours, expected no more of them"))
        );
    }
    let device = plain(features.clone()).device();
    let limits = limits_of(&device);
    check_binding(limits, "contrastive_pairs: features", num_points, num_channels * 4)?;
    check_binding(limits, "contrastive_pairs: similarities", num_anchors, select::LIST as usize * 4)?;
    if num_anchors == 0 {
        return Ok(Pairs {
            positive: int_tensor(Vec::new(), [0], &device),
            macro_negatives: int_tensor(Vec::new(), [0, num_macro], &device),
            micro_negatives: int_tensor(Vec::new(), [0, num_micro], &device),
        });
    }
    let (features, anchors, neighbors) = (plain(features), plain_int(anchors), plain_int(neighbors));
    let (least, most) = (int_values(anchors.clone().min())?[0], int_values(anchors.clone().max())?[0]);
    if least < 0 || most as usize >= num_points {
        return Err(shapes.value(format!("anchors span {least} to {most}, expected rows within 0..{num_points}")));
    }
    if k > 0 {
        let (least, most) = (int_values(neighbors.clone().min())?[0], int_values(neighbors.clone().max())?[0]);
        if least < -1 || most >= num_points as i32 {
            return Err(shapes.value(format!(
                "neighbors span {least} to {most}, expected rows within 0..{num_points}, or -1 for none"
            )));
        }
    }
    let norms: Tensor<1> = run(
        features.clone(),
        |features| norms_wgsl(&features),
        |features| host_tensor(cpu::norms(&features, num_channels), [num_points]),
    );
    let lengths = float_values(norms.clone())?;
    if let Some(row) = lengths.iter().position(|length| !length.is_finite()) {
        return Err(
            shapes.value(format!("row {row} of the features has the length {}, expected a finite one", lengths[row]))
        );
    }
    let (positive, macro_negatives, micro_negatives) = run(
        (features, norms, anchors.clone(), neighbors),
        |(features, norms, anchors, neighbors)| pairs_wgsl([&features, &norms], [&anchors, &neighbors], negatives),
        |(features, norms, anchors, neighbors)| {
            let rows = cpu::contrastive_pairs(&features, &norms, &anchors, &neighbors, negatives);
            (
                host_tensor(rows.positive, [num_anchors]),
                host_tensor(rows.macro_negatives, [num_anchors, num_macro]),
                host_tensor(rows.micro_negatives, [num_anchors, num_micro]),
            )
        },
    );
    let pairs = Pairs { positive, macro_negatives, micro_negatives };
    if num_micro > 0 && int_values(pairs.micro_negatives.clone().min())?[0] < 0 {
        let rows = int_values(pairs.micro_negatives)?;
        let counts = rows.chunks_exact(num_micro).map(|row| row.iter().filter(|n| **n >= 0).count());
        let (at, count) = counts.enumerate().min_by_key(|(_, count)| *count).unwrap_or_default();
        let anchor = int_values(anchors)?[at];
        return Err(shapes.value(format!(
            "the anchor {anchor} has {count} neighbours besides itself and its positive, expected {num_micro} micro \
             negatives at least"
        )));
    }
    Ok(pairs)
}

/// Rows of a block of similarities: a multiple of the selection's step, few enough that the block fits a buffer.
fn block_rows(limits: Limits, num_anchors: usize) -> usize {
    let step = select::WG as usize;
    let words = BLOCK_WORDS.min(usize::try_from(limits.max_binding_bytes / 4).unwrap_or(BLOCK_WORDS));
    (words / num_anchors / step * step).clamp(step, 64 * step)
}

/// Euclidean length of every row of `features [N, D]`.
fn norms_wgsl(features: &CubeTensor) -> CubeTensor {
    let [num_rows, num_channels] = features.shape().dims();
    let norms = empty_f32(features, [num_rows]);
    launch(
        &features.client,
        &norms_shader::BASE,
        num_rows,
        &norms_shader::Params { num_rows: num_rows as u32, num_channels: num_channels as u32 },
        &[&features.handle, &norms.handle],
    );
    norms
}

/// The positive `[A]`, macro negatives `[A, num_macro]` and micro negatives `[A, num_micro]` of every anchor, -1 where
/// there are too few.
fn pairs_wgsl(
    [features, norms]: [&CubeTensor; 2],
    [anchors, neighbors]: [&CubeTensor; 2],
    Negatives { num_macro, num_micro }: Negatives,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let client = &features.client;
    let [num_points, num_channels] = features.shape().dims();
    let [num_anchors, k] = neighbors.shape().dims();
    let block = block_rows(Limits::of(client), num_anchors).min(num_points);
    let similarities = empty_f32(features, [num_anchors, block]);
    let list_len = num_macro + 1;
    let least = empty_f32(features, [num_anchors, list_len]);
    let least_row = empty_i32(features, [num_anchors, list_len]);
    let (most, positive) = (empty_f32(features, [num_anchors]), empty_i32(features, [num_anchors]));
    for first_row in (0..num_points).step_by(block) {
        let num_columns = block.min(num_points - first_row);
        let tiles = num_anchors.div_ceil(similarity::ROWS as usize) * num_columns.div_ceil(similarity::COLS as usize);
        launch(
            client,
            &similarity::BASE,
            tiles,
            &similarity::Params {
                num_anchors: num_anchors as u32,
                num_channels: num_channels as u32,
                first_row: first_row as u32,
                num_columns: num_columns as u32,
            },
            &[&features.handle, &norms.handle, &anchors.handle, &similarities.handle],
        );
        launch(
            client,
            &select::BASE,
            num_anchors,
            &select::Params {
                num_anchors: num_anchors as u32,
                num_columns: num_columns as u32,
                first_row: first_row as u32,
                list_len: list_len as u32,
                first_block: u32::from(first_row == 0),
            },
            &[&similarities.handle, &anchors.handle, &least.handle, &least_row.handle, &most.handle, &positive.handle],
        );
    }
    let macro_negatives = empty_i32(features, [num_anchors, num_macro]);
    launch(
        client,
        &macro_shader::BASE,
        (num_anchors * num_macro).div_ceil(macro_shader::WG as usize),
        &macro_shader::Params { num_anchors: num_anchors as u32, num_negatives: num_macro as u32 },
        &[&least_row.handle, &positive.handle, &macro_negatives.handle],
    );
    let micro_negatives = empty_i32(features, [num_anchors, num_micro]);
    launch(
        client,
        &micro_shader::BASE,
        if num_micro == 0 { 0 } else { num_anchors },
        &micro_shader::Params {
            num_anchors: num_anchors as u32,
            num_channels: num_channels as u32,
            k: k as u32,
            num_negatives: num_micro as u32,
        },
        &[
            &features.handle,
            &norms.handle,
            &anchors.handle,
            &positive.handle,
            &neighbors.handle,
            &micro_negatives.handle,
        ],
    );
    (positive, macro_negatives, micro_negatives)
}
