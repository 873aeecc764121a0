//! The contrastive loss of the distillation (InfoNCE), with its gradient.

pub mod cpu;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::IntTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::prefix_sum::prefix_sum;
use super::radix_sort::radix_sort;
use super::{Host, OpError, ShapeCheck, host_tensor, int_values, limits_of, plain, plain_int};
use crate::gpu::shaders::info_nce::{anchor_grad, combine, mean, offsets, pieces, softmax, sum_pieces};
use crate::gpu::{check_binding, empty_f32, launch, scalar_buffer};

/// The loss of a set of anchors, and how well it is told.
#[derive(Clone, Debug)]
pub struct InfoNce {
    /// Mean over the anchors of the cross entropy, `[1]`; gradients flow from it to the embedding.
    pub loss: Tensor<1>,
    /// Share of the anchors whose positive is more similar than every negative, `[1]`; without a gradient.
    pub accuracy: Tensor<1>,
}

/// Backend side of [`info_nce`]; preconditions are checked there.
#[backend_extension(Cube, Flex, Autodiff)]
pub trait InfoNceBackend: Backend {
    /// (loss `[1]`, accuracy `[1]`, derivative of the loss by every dot product `[A, T]`) of `embedding [V, E]`,
    /// `anchors [A]` and `targets [A, T]`, the positive first.
    fn info_nce(
        embedding: FloatTensor<Self>,
        anchors: IntTensor<Self>,
        targets: IntTensor<Self>,
        temperature: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Gradient of the loss by the embedding, `[V, E]`, from the `coefficients [A, T]` of `info_nce`.
    fn info_nce_grad(
        embedding: FloatTensor<Self>,
        anchors: IntTensor<Self>,
        targets: IntTensor<Self>,
        coefficients: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// Mean over the anchors of −log(exp(⟨a, p⟩ / τ) / (exp(⟨a, p⟩ / τ) + Σₘ exp(⟨a, nₘ⟩ / τ))): the cross entropy with the
/// positive as the right class (van den Oord et al., "Representation learning with contrastive predictive coding",
/// 2018).
///
/// `anchors [A]`, `positives [A]` and `negatives [A, M]` are rows of `embedding [V, E]`, which the caller has
/// normalised if cosines are meant (see [`normalize_rows`](crate::ops::normalize_rows)); `temperature`
/// is τ. Any row may be named any number of times, and a negative that is named twice counts twice.
/// The gradient flows to `embedding`. Its rows are sums in a fixed order, so two runs on one device agree to the
/// bit; neither it nor the loss needs memory for A × M × E values.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] where there is no anchor or no negative, an index
/// is no row of the embedding, or the temperature is not positive and finite; [`OpError::TooLarge`] where a tensor
/// does not fit one buffer.
pub fn info_nce(
    embedding: Tensor<2>,
    anchors: Tensor<1, Int>,
    positives: Tensor<1, Int>,
    negatives: Tensor<2, Int>,
    temperature: f32,
) -> Result<InfoNce, OpError> {
    let mut shapes = ShapeCheck::new("info_nce");
    shapes.check("embedding", embedding.dims(), ["V".into(), "E".into()])?;
    shapes.check("anchors", anchors.dims(), ["A".into()])?;
    shapes.check("positives", positives.dims(), ["A".into()])?;
    shapes.check("negatives", negatives.dims(), ["A".into(), "M".into()])?;
    let ([num_rows, num_channels], [num_anchors, num_negatives]) = (embedding.dims(), negatives.dims());
    if num_anchors == 0 || num_negatives == 0 || num_channels == 0 {
        return Err(shapes.value(format!(
            "{num_anchors} anchors with {num_negatives} negatives of {num_channels} channels, expected one of each at \
             least"
        )));
    }
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(shapes.value(format!("a temperature of {temperature}, expected a positive number")));
    }
    let num_targets = 1 + num_negatives;
    let most_sums = num_anchors.saturating_mul(num_targets + 1).div_ceil(PIECE) + num_rows;
    let limits = limits_of(&embedding.device());
    check_binding(limits, "info_nce: targets", num_anchors, num_targets * 4)?;
    check_binding(limits, "info_nce: gradients by anchor", num_anchors, num_channels * 4)?;
    check_binding(limits, "info_nce: sums of the gradient", most_sums, num_channels * 4)?;
    let anchors = plain_int(anchors);
    let positives = plain_int(positives).reshape([num_anchors, 1]);
    let targets = Tensor::cat(vec![positives, plain_int(negatives)], 1);
    for (name, least, most) in [
        ("anchors", anchors.clone().min(), anchors.clone().max()),
        ("positives and negatives", targets.clone().min(), targets.clone().max()),
    ] {
        let (least, most) = (int_values(least)?[0], int_values(most)?[0]);
        if least < 0 || most as usize >= num_rows {
            return Err(shapes.value(format!("{name} span {least} to {most}, expected rows within 0..{num_rows}")));
        }
    }
    let (loss, accuracy, _) =
        Dispatch::info_nce(embedding.into_dispatch(), anchors.into_dispatch(), targets.into_dispatch(), temperature);
    Ok(InfoNce { loss: Tensor::from_dispatch(loss), accuracy: plain(Tensor::from_dispatch(accuracy)) })
}

/// Most contributions to a row that one thread adds up.
const PIECE: usize = offsets::PIECE as usize;

impl InfoNceBackend for CubeBackend {
    fn info_nce(
        embedding: FloatTensor<Self>,
        anchors: IntTensor<Self>,
        targets: IntTensor<Self>,
        temperature: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (embedding, anchors, targets) =
            (into_contiguous(embedding), into_contiguous(anchors), into_contiguous(targets));
        let num_channels = embedding.shape()[1] as u32;
        let [num_anchors, num_targets] = targets.shape().dims();
        let coefficients = empty_f32(&embedding, [num_anchors, num_targets]);
        let (losses, correct) = (empty_f32(&embedding, [num_anchors]), empty_f32(&embedding, [num_anchors]));
        let (loss, accuracy) = (empty_f32(&embedding, [1]), empty_f32(&embedding, [1]));
        launch(
            &embedding.client,
            &softmax::BASE,
            num_anchors,
            &softmax::Params {
                num_anchors: num_anchors as u32,
                num_targets: num_targets as u32,
                num_channels,
                temperature,
            },
            &[
                &embedding.handle,
                &anchors.handle,
                &targets.handle,
                &coefficients.handle,
                &losses.handle,
                &correct.handle,
            ],
        );
        launch(
            &embedding.client,
            &mean::BASE,
            1,
            &mean::Params { num_anchors: num_anchors as u32 },
            &[&losses.handle, &correct.handle, &loss.handle, &accuracy.handle],
        );
        (loss, accuracy, coefficients)
    }

    fn info_nce_grad(
        embedding: FloatTensor<Self>,
        anchors: IntTensor<Self>,
        targets: IntTensor<Self>,
        coefficients: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (embedding, coefficients) = (into_contiguous(embedding), into_contiguous(coefficients));
        let (anchors, targets) = (into_contiguous(anchors), into_contiguous(targets));
        let client = &embedding.client;
        let [num_rows, num_channels] = embedding.shape().dims();
        let [num_anchors, num_targets] = targets.shape().dims();
        let num_entries = num_anchors * (num_targets + 1);
        let to_anchors = empty_f32(&embedding, [num_anchors, num_channels]);
        launch(
            client,
            &anchor_grad::BASE,
            (num_anchors * num_channels).div_ceil(anchor_grad::WG as usize),
            &anchor_grad::Params {
                num_anchors: num_anchors as u32,
                num_targets: num_targets as u32,
                num_channels: num_channels as u32,
            },
            &[&embedding.handle, &targets.handle, &coefficients.handle, &to_anchors.handle],
        );

        let flat = Self::int_reshape(targets, Shape::from([num_anchors * num_targets]));
        let row_from_entry = into_contiguous(Self::int_cat(vec![flat, anchors.clone()], 0));
        let row_bits = usize::BITS - (num_rows - 1).leading_zeros();
        let order = radix_sort(client, &row_from_entry.handle, num_entries, &[row_bits]);
        let (row_offsets, num_pieces) = (scalar_buffer(client, num_rows), scalar_buffer(client, num_rows));
        launch(
            client,
            &offsets::BASE,
            num_rows.div_ceil(offsets::WG as usize),
            &offsets::Params { num_rows: num_rows as u32, num_entries: num_entries as u32 },
            &[&row_from_entry.handle, &order, &row_offsets, &num_pieces],
        );
        let piece_offsets = prefix_sum(client, &num_pieces, num_rows);
        // Every row that has contributions may leave one piece unfilled.
        let max_pieces = num_entries.div_ceil(PIECE) + num_rows.min(num_entries);
        let piece_first = scalar_buffer(client, max_pieces + 1);
        launch(
            client,
            &pieces::BASE,
            (max_pieces + 1).div_ceil(pieces::WG as usize),
            &pieces::Params {
                num_rows: num_rows as u32,
                num_entries: num_entries as u32,
                max_pieces: max_pieces as u32,
                piece_len: offsets::PIECE,
            },
            &[&row_offsets, &piece_offsets, &piece_first],
        );

        let sums = scalar_buffer(client, max_pieces * num_channels);
        launch(
            client,
            &sum_pieces::BASE,
            max_pieces,
            &sum_pieces::Params {
                num_anchors: num_anchors as u32,
                num_targets: num_targets as u32,
                num_channels: num_channels as u32,
                num_pieces: max_pieces as u32,
            },
            &[
                &embedding.handle,
                &anchors.handle,
                &coefficients.handle,
                &to_anchors.handle,
                &order,
                &piece_first,
                &sums,
            ],
        );
        let grad = empty_f32(&embedding, [num_rows, num_channels]);
        launch(
            client,
            &combine::BASE,
            (num_rows * num_channels).div_ceil(combine::WG as usize),
            &combine::Params { num_rows: num_rows as u32, num_channels: num_channels as u32 },
            &[&sums, &piece_offsets, &grad.handle],
        );
        grad
    }
}

impl InfoNceBackend for Flex {
    fn info_nce(
        embedding: FloatTensor<Self>,
        anchors: IntTensor<Self>,
        targets: IntTensor<Self>,
        temperature: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let num_channels = embedding.shape()[1];
        let shape: [usize; 2] = targets.shape().dims();
        let (embedding, anchors, targets) = (Host::new(embedding), Host::new(anchors), Host::new(targets));
        let forward = cpu::forward(&embedding, num_channels, &anchors, &targets, shape[1], temperature);
        (
            host_tensor(vec![forward.loss], [1]),
            host_tensor(vec![forward.accuracy], [1]),
            host_tensor(forward.coefficients, shape),
        )
    }

    fn info_nce_grad(
        embedding: FloatTensor<Self>,
        anchors: IntTensor<Self>,
        targets: IntTensor<Self>,
        coefficients: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let shape: [usize; 2] = embedding.shape().dims();
        let num_targets = targets.shape()[1];
        let (embedding, coefficients) = (Host::new(embedding), Host::new(coefficients));
        let (anchors, targets) = (Host::new(anchors), Host::new(targets));
        host_tensor(cpu::grad(&embedding, shape[1], &anchors, &targets, num_targets, &coefficients), shape)
    }
}

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct State<B: Backend> {
    embedding: FloatTensor<B>,
    anchors: IntTensor<B>,
    targets: IntTensor<B>,
    coefficients: FloatTensor<B>,
}

#[derive(Debug)]
struct InfoNceBackward;

impl<B: InfoNceBackend> Backward<B, 1> for InfoNceBackward {
    type State = State<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [embedding] = ops.parents;
        let scale = grads.consume::<B>(&ops.node);
        if let Some(embedding) = embedding {
            let State { embedding: values, anchors, targets, coefficients } = ops.state;
            // The coefficients carry the factor, so that it costs no pass over the gradient.
            let coefficients = B::float_mul(coefficients, B::float_reshape(scale, Shape::from([1, 1])));
            grads.register::<B>(embedding.id, B::info_nce_grad(values, anchors, targets, coefficients));
        }
    }
}

impl<B: InfoNceBackend, C: CheckpointStrategy> InfoNceBackend for Autodiff<B, C> {
    fn info_nce(
        embedding: FloatTensor<Self>,
        anchors: IntTensor<Self>,
        targets: IntTensor<Self>,
        temperature: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let prep = InfoNceBackward.prepare::<C>([embedding.node()]).compute_bound().stateful();
        let embedding = embedding.into_primitive();
        let (loss, accuracy, coefficients) =
            B::info_nce(embedding.clone(), anchors.clone(), targets.clone(), temperature);
        let loss = match prep {
            OpsKind::Tracked(prep) => {
                let coefficients = coefficients.clone();
                prep.finish(State { embedding, anchors, targets, coefficients }, loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(loss),
        };
        (loss, <Self as AutodiffBackend>::from_inner(accuracy), <Self as AutodiffBackend>::from_inner(coefficients))
    }

    fn info_nce_grad(
        embedding: FloatTensor<Self>,
        anchors: IntTensor<Self>,
        targets: IntTensor<Self>,
        coefficients: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (embedding, coefficients) = (embedding.into_primitive(), coefficients.into_primitive());
        <Self as AutodiffBackend>::from_inner(B::info_nce_grad(embedding, anchors, targets, coefficients))
    }
}
