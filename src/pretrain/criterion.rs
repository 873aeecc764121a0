//! The loss of mask classification, as in Mask2Former (Cheng et al., CVPR 2022), with text in place of class
//! weights.
//!
//! The matching needs the predictions on the host. So the loss and its derivative are computed there too, in
//! one pass over them, in f32 with sums in f64. Only this derivative flows back through the model: the loss
//! is returned as the linear function with the same value and derivative.

use std::collections::BTreeMap;

use burn::prelude::*;
use rayon::prelude::*;

use super::PretrainError;
use super::hungarian::assign;
use crate::models::xdecoder::Queries;
use crate::ops::{OpError, ShapeCheck, float_tensor, float_values, plain};

/// Segments of an image, at the resolution of the masks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segments {
    /// Text row of each segment.
    pub classes: Vec<usize>,
    /// Share of each cell's labelled part that a segment covers, `[segments, cells]`.
    pub masks: Vec<f32>,
    /// Labelled share of each cell, `[cells]`.
    pub weights: Vec<f32>,
}

/// Rule that assigns queries to segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignment {
    /// The query that fits the segment, by the matching of least cost. This is Mask2Former's rule.
    #[default]
    Matched,
    /// The query with the number of the segment's class. It works because there is one segment for each
    /// class. Queries then need not find out which class they stand for, which takes matching most of its
    /// steps.
    ByClass,
}

/// Weights of the parts of the loss. They count in the matching too, except for the classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Rule that assigns queries to segments.
    pub assignment: Assignment,
    /// Weight of the cross entropy of the classes.
    pub class: f32,
    /// Weight of the classes' probabilities in the matching.
    pub class_cost: f32,
    /// Weight of the binary cross entropy of the masks.
    pub mask: f32,
    /// Weight of the dice loss of the masks.
    pub dice: f32,
    /// Factor on the classes' cross entropy for queries without a segment.
    pub background: f32,
    /// Weight of the cross entropy of the cells, see [`cell_criterion`].
    pub cells: f32,
}

impl Default for Weights {
    /// Mask2Former's weights, except that the class counts 10 instead of 2 in the matching. So queries that
    /// know their class do not lose it to a slightly sharper mask. The loss of the cells is about as strong
    /// as one head.
    fn default() -> Self {
        Self {
            assignment: Assignment::Matched,
            class: 2.0,
            class_cost: 10.0,
            mask: 5.0,
            dice: 5.0,
            background: 0.1,
            cells: 6.0,
        }
    }
}

/// Loss of one head on one image, with its derivatives.
struct OfImage {
    class: f64,
    mask: f64,
    dice: f64,
    /// Number of matched queries with their segment's logit as the largest.
    correct: usize,
    grad_logits: Vec<f32>,
    grad_masks: Vec<f32>,
}

/// Returns the sum of the losses of all `heads`. The last text row is the background. The parts are those of
/// the last head, without weights. `class_accuracy` is the share of its matched queries that predict the
/// class of their segment.
///
/// # Errors
/// [`OpError::Shape`] if `segments` do not fit the images and masks, and errors of the device.
pub fn criterion(
    heads: &[Queries],
    segments: &[Segments],
    weights: Weights,
) -> Result<(Tensor<1>, BTreeMap<String, f64>), PretrainError> {
    let mut total: Option<Tensor<1>> = None;
    let mut parts = BTreeMap::new();
    for (i, head) in heads.iter().enumerate() {
        let (loss, of_head) = of_head(head, segments, weights)?;
        total = Some(match total {
            Some(total) => total + loss,
            None => loss,
        });
        if i + 1 == heads.len() {
            parts = of_head;
        }
    }
    let message = || OpError::Value { op: "criterion", message: "there is no head".to_owned() };
    Ok((total.ok_or_else(message)?, parts))
}

fn of_head(
    head: &Queries,
    segments: &[Segments],
    weights: Weights,
) -> Result<(Tensor<1>, BTreeMap<String, f64>), PretrainError> {
    let [num_images, num_queries, height, width] = head.pred_masks.dims();
    let [_, _, num_texts] = head.pred_logits.dims();
    let num_cells = height * width;
    let mut shapes = ShapeCheck::new("criterion");
    shapes.check("pred_logits", head.pred_logits.dims(), [num_images.into(), num_queries.into(), num_texts.into()])?;
    shapes.check("segments", [segments.len()], [num_images.into()])?;
    for of_image in segments {
        shapes.check("weights", [of_image.weights.len()], [num_cells.into()])?;
        shapes.check("masks", [of_image.masks.len()], [(of_image.classes.len() * num_cells).into()])?;
        if of_image.classes.iter().any(|&class| class + 1 >= num_texts) || of_image.classes.len() > num_queries {
            return Err(shapes.value("segments of other classes, or more than there are queries".to_owned()).into());
        }
        let by_class = weights.assignment == Assignment::ByClass;
        if by_class && of_image.classes.iter().any(|&class| class >= num_queries) {
            return Err(shapes.value(format!("a class above the {num_queries} queries")).into());
        }
    }
    let logits = float_values(plain(head.pred_logits.clone()))?;
    let masks = float_values(plain(head.pred_masks.clone()))?;
    let num_segments: usize = segments.iter().map(|of_image| of_image.classes.len()).sum();
    let per_segment = 1.0 / num_segments.max(1) as f32;
    // PyTorch's weighted mean divides by the sum of the weights of all targets.
    let num_others = num_images * num_queries - num_segments;
    let per_query = 1.0 / (num_segments as f32 + weights.background * num_others as f32).max(1e-6);
    let images = segments.par_iter().enumerate().map(|(i, of_image)| {
        let logits = &logits[i * num_queries * num_texts..][..num_queries * num_texts];
        let masks = &masks[i * num_queries * num_cells..][..num_queries * num_cells];
        of_one_image(logits, masks, num_queries, of_image, weights, per_segment, per_query)
    });
    let images: Vec<OfImage> = images.collect();
    let sum = |part: fn(&OfImage) -> f64| images.iter().map(part).sum::<f64>();
    let (class, mask, dice) = (sum(|image| image.class), sum(|image| image.mask), sum(|image| image.dice));
    let loss = f64::from(weights.class) * class + f64::from(weights.mask) * mask + f64::from(weights.dice) * dice;
    let correct: usize = images.iter().map(|image| image.correct).sum();
    let grad_logits: Vec<f32> = images.iter().flat_map(|image| &image.grad_logits).copied().collect();
    let grad_masks: Vec<f32> = images.iter().flat_map(|image| &image.grad_masks).copied().collect();
    let by_logits = linearised(head.pred_logits.clone(), grad_logits, loss);
    let by_masks = linearised(head.pred_masks.clone(), grad_masks, 0.0);
    let parts = [
        ("class", class),
        ("mask", mask),
        ("dice", dice),
        ("class_accuracy", correct as f64 / num_segments.max(1) as f64),
    ];
    Ok((by_logits + by_masks, parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
}

/// Returns the mean cross entropy of the cells of the mask features, times its weight. `logits [B, cells,
/// classes]` predict the class of each cell; the segments of the cell are the targets. In the beginning,
/// matching tells the mask features little, because any query may still take any segment. This loss tells
/// every cell its class. A class counts by the square root of its area, so that small ones are learned too.
/// The share of correctly predicted cells is among the parts.
///
/// # Errors
/// [`OpError::Shape`] if `segments` do not fit the logits, and errors of the device.
pub fn cell_criterion(
    logits: Tensor<3>,
    segments: &[Segments],
    weights: Weights,
) -> Result<(Tensor<1>, BTreeMap<String, f64>), PretrainError> {
    let [num_images, num_cells, num_classes] = logits.dims();
    let mut shapes = ShapeCheck::new("cell_criterion");
    shapes.check("segments", [segments.len()], [num_images.into()])?;
    let mut areas = vec![0.0_f32; num_classes];
    for of_image in segments {
        shapes.check("weights", [of_image.weights.len()], [num_cells.into()])?;
        shapes.check("masks", [of_image.masks.len()], [(of_image.classes.len() * num_cells).into()])?;
        for (&class, mask) in of_image.classes.iter().zip(of_image.masks.chunks_exact(num_cells.max(1))) {
            let area = areas.get_mut(class).ok_or_else(|| shapes.value(format!("class {class} of {num_classes}")))?;
            *area += mask.iter().zip(&of_image.weights).map(|(t, w)| t * w).sum::<f32>();
        }
    }
    let total: f32 = areas.iter().map(|area| area.sqrt()).sum::<f32>().max(1e-6);
    let factors: Vec<f32> = areas.iter().map(|area| 1.0 / (area.max(1e-6).sqrt() * total)).collect();
    let values = float_values(plain(logits.clone()))?;
    let images = segments.par_iter().zip(values.par_chunks(num_cells * num_classes)).map(|(of_image, values)| {
        let mut grad = vec![0.0; values.len()];
        let (mut loss, mut correct, mut known) = (0.0_f64, 0.0_f64, 0.0_f64);
        for (cell, (row, grad)) in values.chunks_exact(num_classes).zip(grad.chunks_exact_mut(num_classes)).enumerate()
        {
            let probabilities = softmax(row);
            let largest = (0..num_classes).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            let mut sum = 0.0;
            for (segment, &class) in of_image.classes.iter().enumerate() {
                let covered = of_image.masks[segment * num_cells + cell] * of_image.weights[cell];
                let target = covered * factors[class];
                loss -= f64::from(target * probabilities[class].max(1e-30).ln());
                correct += f64::from(if largest == Some(class) { covered } else { 0.0 });
                known += f64::from(covered);
                grad[class] -= weights.cells * target;
                sum += target;
            }
            grad.iter_mut().zip(&probabilities).for_each(|(grad, p)| *grad += weights.cells * sum * p);
        }
        (grad, [loss, correct, known])
    });
    let images: Vec<(Vec<f32>, [f64; 3])> = images.collect();
    let [loss, correct, known] = std::array::from_fn(|part| images.iter().map(|(_, parts)| parts[part]).sum::<f64>());
    let grad: Vec<f32> = images.iter().flat_map(|(grad, _)| grad).copied().collect();
    let parts = [("cells", loss), ("cell_accuracy", correct / known.max(1e-6))];
    let parts = parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok((linearised(logits, grad, f64::from(weights.cells) * loss), parts))
}

/// Returns the linear function of `x` that has the value `value` and the derivative `grad` here, as a tensor
/// `[1]`. `grad` has the shape of `x`.
fn linearised<const D: usize>(x: Tensor<D>, grad: Vec<f32>, value: f64) -> Tensor<1> {
    let grad = float_tensor(grad, x.dims(), &x.device());
    let here = (plain(x.clone()) * plain(grad.clone())).sum();
    let here = if x.device().is_autodiff() { Tensor::from_inner(here) } else { here };
    (x * grad).sum() - here + value
}

/// Computes the matching, its loss, and the weighted derivatives by `logits [Q, texts]` and `masks [Q,
/// cells]`. The sums of the parts are already divided by `per_segment` and `per_query`.
fn of_one_image(
    logits: &[f32],
    masks: &[f32],
    num_queries: usize,
    segments: &Segments,
    weights: Weights,
    per_segment: f32,
    per_query: f32,
) -> OfImage {
    let num_texts = logits.len() / num_queries.max(1);
    let num_cells = segments.weights.len();
    let num_segments = segments.classes.len();
    let probabilities: Vec<f32> = logits.chunks_exact(num_texts).flat_map(softmax).collect();
    let area: f32 = segments.weights.iter().sum::<f32>().max(1e-6);
    // For each segment, the labelled share of each cell that it covers.
    let covered: Vec<f32> = segments
        .masks
        .chunks_exact(num_cells.max(1))
        .flat_map(|mask| mask.iter().zip(&segments.weights).map(|(t, w)| t * w))
        .collect();
    let sizes: Vec<f32> = covered.chunks_exact(num_cells.max(1)).map(|mask| mask.iter().sum()).collect();
    let mut costs = vec![0.0; num_segments * num_queries];
    let mut sigmoids = vec![0.0; num_queries * num_cells];
    for (query, (x, sigmoid)) in
        masks.chunks_exact(num_cells).zip(sigmoids.chunks_exact_mut(num_cells)).enumerate().take(num_queries)
    {
        let (mut softplus, mut size) = (0.0, 0.0);
        for ((x, s), w) in x.iter().zip(sigmoid.iter_mut()).zip(&segments.weights) {
            let e = (-x.abs()).exp();
            *s = if *x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) };
            softplus += w * (x.max(0.0) + e.ln_1p());
            size += w * *s;
        }
        if weights.assignment == Assignment::ByClass {
            continue;
        }
        for (segment, covered) in covered.chunks_exact(num_cells).enumerate() {
            let (along, common) = dots(covered, x, sigmoid);
            let mask = (softplus - along) / area;
            let dice = 1.0 - (2.0 * common + 1.0) / (size + sizes[segment] + 1.0);
            let class = -probabilities[query * num_texts + segments.classes[segment]];
            costs[segment * num_queries + query] =
                weights.class_cost * class + weights.mask * mask + weights.dice * dice;
        }
    }
    let query_from_segment = match weights.assignment {
        Assignment::Matched => assign(&costs, num_segments, num_queries).unwrap_or_default(),
        Assignment::ByClass => segments.classes.clone(),
    };

    let mut result = OfImage {
        class: 0.0,
        mask: 0.0,
        dice: 0.0,
        correct: 0,
        grad_logits: probabilities,
        grad_masks: vec![0.0; num_queries * num_cells],
    };
    let mut targets = vec![num_texts - 1; num_queries];
    for (segment, &query) in query_from_segment.iter().enumerate() {
        targets[query] = segments.classes[segment];
        let x = &masks[query * num_cells..][..num_cells];
        let sigmoid = &sigmoids[query * num_cells..][..num_cells];
        let grad = &mut result.grad_masks[query * num_cells..][..num_cells];
        let covered = &covered[segment * num_cells..][..num_cells];
        let (_, common) = dots(covered, x, sigmoid);
        let size: f32 = sigmoid.iter().zip(&segments.weights).map(|(s, w)| s * w).sum();
        let (above, below) = (2.0 * common + 1.0, size + sizes[segment] + 1.0);
        result.dice += f64::from(per_segment * (1.0 - above / below));
        let (of_mask, of_dice) = (weights.mask * per_segment / area, weights.dice * per_segment);
        let mut cross_entropy = 0.0;
        for cell in 0..num_cells {
            let (x, s, w, c) = (x[cell], sigmoid[cell], segments.weights[cell], covered[cell]);
            cross_entropy += w * (x.max(0.0) + (-x.abs()).exp().ln_1p()) - c * x;
            let by_sigmoid = -(2.0 * c * below - above * w) / (below * below);
            grad[cell] = of_mask * (w * s - c) + of_dice * by_sigmoid * s * (1.0 - s);
        }
        result.mask += f64::from(per_segment * cross_entropy / area);
    }
    for (query, (row, target)) in result.grad_logits.chunks_exact_mut(num_texts).zip(targets).enumerate() {
        let is_background = target == num_texts - 1;
        let weight = per_query * if is_background { weights.background } else { 1.0 };
        let logits = &logits[query * num_texts..][..num_texts];
        let largest = (0..num_texts).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        result.correct += usize::from(!is_background && largest == Some(target));
        result.class -= f64::from(weight * row[target].max(1e-30).ln());
        row[target] -= 1.0;
        row.iter_mut().for_each(|value| *value *= weights.class * weight);
    }
    result
}

/// Returns ⟨a, x⟩ and ⟨a, y⟩.
fn dots(a: &[f32], x: &[f32], y: &[f32]) -> (f32, f32) {
    const LANES: usize = 8;
    let (mut with_x, mut with_y) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let (a8, a_rest) = a.as_chunks::<LANES>();
    let (x8, x_rest) = x.as_chunks::<LANES>();
    let (y8, y_rest) = y.as_chunks::<LANES>();
    for ((a, x), y) in a8.iter().zip(x8).zip(y8) {
        for lane in 0..LANES {
            with_x[lane] += a[lane] * x[lane];
            with_y[lane] += a[lane] * y[lane];
        }
    }
    let rest = |z: &[f32]| a_rest.iter().zip(z).map(|(a, z)| a * z).sum::<f32>();
    (with_x.iter().sum::<f32>() + rest(x_rest), with_y.iter().sum::<f32>() + rest(y_rest))
}

fn softmax(row: &[f32]) -> Vec<f32> {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut values: Vec<f32> = row.iter().map(|x| (x - largest).exp()).collect();
    let total: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= total);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    const QUERIES: usize = 4;
    const TEXTS: usize = 5;
    const CELLS: usize = 11;

    fn example() -> (Vec<f32>, Vec<f32>, Segments) {
        let mut random = SplitMix64::new(8);
        let mut floats = |len: usize| (0..len).map(|_| 4.0 * random.unit() as f32 - 2.0).collect::<Vec<f32>>();
        let (logits, masks) = (floats(QUERIES * TEXTS), floats(QUERIES * CELLS));
        let weights: Vec<f32> = floats(CELLS).iter().map(|x| (x / 4.0 + 0.6).clamp(0.0, 1.0)).collect();
        let first: Vec<f32> = floats(CELLS).iter().map(|x| (x + 0.5).clamp(0.0, 1.0)).collect();
        let second: Vec<f32> = first.iter().map(|x| 1.0 - x).collect();
        (logits, masks, Segments { classes: vec![3, 1], masks: [first, second].concat(), weights })
    }

    fn total(logits: &[f32], masks: &[f32], segments: &Segments, w: Weights) -> f64 {
        let found = of_one_image(logits, masks, QUERIES, segments, w, 0.5, 0.4);
        f64::from(w.class) * found.class + f64::from(w.mask) * found.mask + f64::from(w.dice) * found.dice
    }

    #[test]
    fn derivatives_are_those_of_the_loss() {
        let (logits, masks, segments) = example();
        let step = 1e-2_f32;
        let central = |values: &[f32], i: usize, loss: &dyn Fn(&[f32]) -> f64| {
            let moved = |by: f32| {
                let mut values = values.to_vec();
                values[i] += by;
                loss(&values)
            };
            (moved(step) - moved(-step)) / f64::from(2.0 * step)
        };
        for assignment in [Assignment::Matched, Assignment::ByClass] {
            let weights = Weights { assignment, ..Weights::default() };
            let found = of_one_image(&logits, &masks, QUERIES, &segments, weights, 0.5, 0.4);
            for i in 0..logits.len() {
                let expected = central(&logits, i, &|logits| total(logits, &masks, &segments, weights));
                assert!((f64::from(found.grad_logits[i]) - expected).abs() < 2e-4, "{assignment:?}, logit {i}");
            }
            for i in 0..masks.len() {
                let expected = central(&masks, i, &|masks| total(&logits, masks, &segments, weights));
                assert!((f64::from(found.grad_masks[i]) - expected).abs() < 2e-4, "{assignment:?}, mask {i}");
            }
            let of_first = &found.grad_masks[3 * CELLS..];
            assert!(assignment == Assignment::Matched || of_first.iter().any(|&x| x != 0.0));
        }
    }

    #[test]
    fn what_is_right_costs_next_to_nothing() {
        let (_, _, mut segments) = example();
        segments.masks.iter_mut().for_each(|covered| *covered = covered.round());
        let mut logits = vec![0.0; QUERIES * TEXTS];
        let mut masks = vec![-30.0; QUERIES * CELLS];
        // Query 2 has the first segment and query 0 the second.
        for (query, text) in [(0, 1), (1, 4), (2, 3), (3, 4)] {
            logits[query * TEXTS + text] = 30.0;
        }
        for (query, segment) in [(2, 0), (0, 1)] {
            for cell in 0..CELLS {
                masks[query * CELLS + cell] = if segments.masks[segment * CELLS + cell] > 0.5 { 30.0 } else { -30.0 };
            }
        }
        assert!(total(&logits, &masks, &segments, Weights::default()) < 1e-5);
        let found = of_one_image(&logits, &masks, QUERIES, &segments, Weights::default(), 0.5, 0.4);
        assert_eq!(found.correct, 2);
    }

    #[test]
    fn cells_are_told_by_the_classes_that_cover_them() {
        const CLASSES: usize = 4;
        let device = Device::flex().autodiff();
        let (_, _, segments) = example();
        let mut random = SplitMix64::new(9);
        let values: Vec<f32> = (0..2 * CELLS * CLASSES).map(|_| 4.0 * random.unit() as f32 - 2.0).collect();
        let segments = [segments.clone(), Segments { classes: vec![1, 3], ..segments }];
        let run = |values: &[f32]| {
            let logits = float_tensor(values.to_vec(), [2, CELLS, CLASSES], &device).require_grad();
            let (loss, parts) = cell_criterion(logits.clone(), &segments, Weights::default()).unwrap();
            let value = float_values(loss.clone().inner()).unwrap()[0];
            let gradient = float_values(logits.grad(&loss.backward()).unwrap()).unwrap();
            (f64::from(value), gradient, parts)
        };
        let (value, gradient, parts) = run(&values);
        assert!((value - 6.0 * parts["cells"]).abs() < 1e-4);
        let step = 1e-2_f32;
        for i in 0..values.len() {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[i] += by;
                run(&values).0
            };
            let expected = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            // Losses of about 10 in f32, over a difference of 0.02.
            assert!((f64::from(gradient[i]) - expected).abs() < 5e-4, "{i}: {} {expected}", gradient[i]);
        }
        // All cells are predicted correctly. Two classes share every cell, so only the smaller share can be
        // wrong.
        let right: Vec<f32> = (0..2 * CELLS * CLASSES)
            .map(|i| {
                let (image, cell, class) = (i / (CELLS * CLASSES), i / CLASSES % CELLS, i % CLASSES);
                let of_image = &segments[image];
                let segment = usize::from(of_image.masks[cell] < of_image.masks[CELLS + cell]);
                if of_image.classes[segment] == class { 30.0 } else { 0.0 }
            })
            .collect();
        let known: f32 = segments[0].weights.iter().sum();
        let larger: f32 = (0..CELLS)
            .map(|cell| segments[0].weights[cell] * segments[0].masks[cell].max(segments[0].masks[CELLS + cell]))
            .sum();
        let (_, _, parts) = run(&right);
        assert!((parts["cell_accuracy"] - f64::from(larger / known)).abs() < 1e-5, "{parts:?}");
        let others = Segments { classes: vec![9, 1], ..segments[0].clone() };
        let logits = float_tensor(values, [2, CELLS, CLASSES], &device);
        assert!(cell_criterion(logits.clone(), &[others, segments[0].clone()], Weights::default()).is_err());
        assert!(cell_criterion(logits, &segments[..1], Weights::default()).is_err());
    }

    #[test]
    fn a_linear_function_has_the_value_and_the_gradient() {
        let device = Device::flex().autodiff();
        let x = float_tensor(vec![1.0, -2.0, 3.0], [3], &device).require_grad();
        let loss = linearised(x.clone(), vec![0.5, 0.25, -1.0], 7.0);
        assert_eq!(float_values(loss.clone().inner()).unwrap(), [7.0]);
        let gradient = x.grad(&loss.backward()).unwrap();
        assert_eq!(float_values(gradient).unwrap(), [0.5, 0.25, -1.0]);
    }
}
