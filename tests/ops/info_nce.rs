//! The contrastive loss against its definition in f64, and its gradient against burn's.

use burn::prelude::*;
use burn::tensor::Device;
use burn::tensor::activation::log_softmax;
use geopurify::gpu::{Limits, shaders, with_limits};
use geopurify::ops::info_nce::info_nce;
use geopurify::ops::normalize_rows;
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor};

use crate::common::{Random, devices, rel_l2};

/// A loss with its values.
struct Contrast {
    num_channels: usize,
    embedding: Vec<f32>,
    anchors: Vec<i32>,
    positives: Vec<i32>,
    num_negatives: usize,
    negatives: Vec<i32>,
    temperature: f32,
}

impl Contrast {
    fn new(num_rows: usize, num_channels: usize, num_anchors: usize, num_negatives: usize) -> Self {
        let mut random = Random(num_rows as u64);
        let mut draw = |len: usize| -> Vec<i32> { (0..len).map(|_| random.below(num_rows) as i32).collect() };
        let (anchors, positives) = (draw(num_anchors), draw(num_anchors));
        let negatives = draw(num_anchors * num_negatives);
        let embedding = Random(3).floats(num_rows * num_channels);
        let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
        let embedding = embedding.chunks(num_channels).flat_map(|row| row.iter().map(move |x| x / length(row)));
        Self {
            num_channels,
            embedding: embedding.collect(),
            anchors,
            positives,
            num_negatives,
            negatives,
            temperature: 0.07,
        }
    }

    fn num_rows(&self) -> usize {
        self.embedding.len() / self.num_channels
    }

    /// Loss, and share of right answers, at an embedding in f64.
    fn definition(&self, embedding: &[f64]) -> (f64, f64) {
        let row = |i: i32| &embedding[i as usize * self.num_channels..][..self.num_channels];
        let (mut loss, mut right) = (0.0, 0.0);
        for (a, anchor) in self.anchors.iter().enumerate() {
            let logit = |i: i32| -> f64 {
                let dot: f64 = row(*anchor).iter().zip(row(i)).map(|(x, y)| x * y).sum();
                dot / f64::from(self.temperature)
            };
            let positive = logit(self.positives[a]);
            let negatives: Vec<f64> =
                self.negatives[a * self.num_negatives..][..self.num_negatives].iter().map(|i| logit(*i)).collect();
            let sum: f64 = negatives.iter().map(|l| (l - positive).exp()).sum();
            loss += sum.ln_1p();
            right += f64::from(negatives.iter().all(|l| *l < positive));
        }
        (loss / self.anchors.len() as f64, right / self.anchors.len() as f64)
    }

    /// Gradient by the rule of the softmax, in f64.
    fn definition_grad(&self) -> Vec<f64> {
        let e: Vec<f64> = self.embedding.iter().map(|x| f64::from(*x)).collect();
        let at = |i: i32| i as usize * self.num_channels;
        let mut grad = vec![0.0; e.len()];
        for (a, &anchor) in self.anchors.iter().enumerate() {
            let mut targets = vec![self.positives[a]];
            targets.extend(&self.negatives[a * self.num_negatives..][..self.num_negatives]);
            let dot = |i: i32| -> f64 { (0..self.num_channels).map(|c| e[at(anchor) + c] * e[at(i) + c]).sum() };
            let logits: Vec<f64> = targets.iter().map(|i| dot(*i) / f64::from(self.temperature)).collect();
            let largest = logits.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
            for (j, (&target, logit)) in targets.iter().zip(&logits).enumerate() {
                let slope = (logit - largest).exp() / total - f64::from(j == 0);
                let slope = slope / f64::from(self.temperature) / self.anchors.len() as f64;
                for c in 0..self.num_channels {
                    grad[at(anchor) + c] += slope * e[at(target) + c];
                    grad[at(target) + c] += slope * e[at(anchor) + c];
                }
            }
        }
        grad
    }

    fn tensors(&self, device: &Device) -> (Tensor<1, Int>, Tensor<1, Int>, Tensor<2, Int>) {
        let n = self.anchors.len();
        (
            int_tensor(self.anchors.clone(), [n], device),
            int_tensor(self.positives.clone(), [n], device),
            int_tensor(self.negatives.clone(), [n, self.num_negatives], device),
        )
    }

    /// Loss, accuracy, and the gradient of `factor` times the loss.
    fn run(&self, factor: f32, device: &Device) -> (f32, f32, Vec<f32>) {
        let device = device.clone().autodiff();
        let (anchors, positives, negatives) = self.tensors(&device);
        let shape = [self.num_rows(), self.num_channels];
        let embedding = float_tensor(self.embedding.clone(), shape, &device).require_grad();
        let found = info_nce(embedding.clone(), anchors, positives, negatives, self.temperature).unwrap();
        let grads = (found.loss.clone() * factor).backward();
        let grad = float_values(embedding.grad(&grads).unwrap()).unwrap();
        (float_values(found.loss.inner()).unwrap()[0], float_values(found.accuracy).unwrap()[0], grad)
    }

    /// The rounding of f32 behind a division by the temperature: 14 times that of the dot products.
    #[track_caller]
    fn check(&self) {
        let embedding: Vec<f64> = self.embedding.iter().map(|x| f64::from(*x)).collect();
        let (loss, accuracy) = self.definition(&embedding);
        let grad: Vec<f32> = self.definition_grad().into_iter().map(|x| x as f32).collect();
        let folded = Limits { max_binding_bytes: u64::MAX, max_workgroups: 3 };
        for (name, device) in devices() {
            let found = self.run(1.0, &device);
            assert!((f64::from(found.0) - loss).abs() <= 3e-6 * loss.max(1.0), "{name}: {} for {loss}", found.0);
            assert!((f64::from(found.1) - accuracy).abs() < 1e-6, "{name}: {} for {accuracy}", found.1);
            let difference = rel_l2(&found.2, &grad);
            assert!(difference <= 5e-6, "{name}: the gradient is off by {difference:e}");
            assert!(self.run(1.0, &device) == found, "{name}: a second run differs");
            assert!(with_limits(folded, || self.run(1.0, &device)) == found, "{name}: folded");
        }
    }
}

#[test]
fn the_rule_of_the_softmax_gives_the_slope_of_the_loss() {
    let case = Contrast::new(9, 5, 7, 4);
    let grad = case.definition_grad();
    let embedding: Vec<f64> = case.embedding.iter().map(|x| f64::from(*x)).collect();
    for (i, slope) in grad.iter().enumerate() {
        let moved = |by: f64| {
            let mut embedding = embedding.clone();
            embedding[i] += by;
            case.definition(&embedding).0
        };
        let measured = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        assert!((measured - slope).abs() < 1e-6, "{i}: {slope}, measured {measured}");
    }
}

#[test]
fn loss_and_gradient_are_those_of_the_definition() {
    let threads = shaders::info_nce::softmax::WG as usize;
    for (num_rows, num_channels, num_anchors, num_negatives) in [
        (1, 1, 1, 1),
        (2, 3, 5, 1),
        (9, 5, 7, 4),
        (300, 128, 64, 63),
        (77, threads + 1, 33, threads - 2),
        (500, threads - 1, 65, threads - 1),
        (40, 16, 130, threads),
        (50, 2 * threads + 5, 20, 3 * threads),
    ] {
        Contrast::new(num_rows, num_channels, num_anchors, num_negatives).check();
    }
}

#[test]
fn a_row_that_everyone_names_is_summed_in_pieces() {
    let piece = shaders::info_nce::offsets::PIECE as usize;
    for num_anchors in [piece - 1, piece, piece + 1] {
        let mut case = Contrast::new(600, 8, num_anchors, 1);
        case.negatives.fill(599);
        case.check();
    }
    // More contributions than a software adapter's loop has iterations.
    let mut case = Contrast::new(30, 8, 1100, 64);
    case.negatives.fill(11);
    case.positives.fill(12);
    case.check();
}

#[test]
fn extreme_logits_stay_finite() {
    let mut case = Contrast::new(40, 16, 30, 10);
    case.temperature = 1e-3;
    case.check();
    // Every anchor is its own positive: next to nothing is left to learn.
    let mut case = Contrast::new(40, 64, 30, 10);
    case.positives = case.anchors.clone();
    case.negatives.iter_mut().enumerate().for_each(|(i, n)| {
        if *n == case.anchors[i / 10] {
            *n = (*n + 1) % 40;
        }
    });
    case.check();
    for (name, device) in devices() {
        assert_eq!(case.run(1.0, &device).1, 1.0, "{name}");
    }
}

#[test]
fn the_gradient_is_that_of_burn_and_follows_a_factor() {
    let case = Contrast::new(60, 24, 40, 12);
    for (name, device) in devices() {
        let (loss, _, grad) = case.run(1.0, &device);
        let (_, _, scaled) = case.run(-0.25, &device);
        let expected: Vec<f32> = grad.iter().map(|x| x * -0.25).collect();
        assert!(rel_l2(&scaled, &expected) < 1e-6, "{name}");

        // Through a normalisation, as the trainer has it.
        let device = device.autodiff();
        let (anchors, positives, negatives) = case.tensors(&device);
        let raw = || float_tensor(Random(8).floats(60 * 24), [60, 24], &device).require_grad();
        let (ours, theirs) = (raw(), raw());
        let found = info_nce(
            normalize_rows(ours.clone()),
            anchors.clone(),
            positives.clone(),
            negatives.clone(),
            case.temperature,
        );
        let grads = found.unwrap().loss.backward();
        let found = float_values(ours.grad(&grads).unwrap()).unwrap();

        let e = normalize_rows(theirs.clone());
        let own: Tensor<3> = e.clone().select(0, anchors).unsqueeze_dim(1);
        let targets: Tensor<2, Int> = Tensor::cat(vec![positives.unsqueeze_dim(1), negatives], 1);
        let others: Tensor<3> = e.select(0, targets.reshape([40 * 13])).reshape([40, 13, 24]);
        let logits: Tensor<2> = (own * others).sum_dim(2).squeeze_dim(2) / case.temperature;
        let grads = log_softmax(logits, 1).slice([0..40, 0..1]).mean().neg().backward();
        let expected = float_values(theirs.grad(&grads).unwrap()).unwrap();
        let difference = rel_l2(&found, &expected);
        assert!(difference < 5e-6, "{name}: {difference:e}");
        assert!(loss > 0.0, "{name}");
    }
}

#[test]
fn losses_add_up_and_need_no_gradient() {
    let (first, second) = (Contrast::new(30, 8, 10, 5), Contrast::new(30, 8, 12, 3));
    for (name, device) in devices() {
        let (.., a) = first.run(1.0, &device);
        let (.., b) = second.run(1.0, &device);
        let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let plain = float_tensor(first.embedding.clone(), [30, 8], &device);
        let (anchors, positives, negatives) = first.tensors(&device);
        let loss = info_nce(plain, anchors, positives, negatives, 0.07).unwrap().loss;
        assert_eq!(float_values(loss).unwrap()[0], first.run(1.0, &device).0, "{name}");

        let device = device.autodiff();
        let embedding = float_tensor(first.embedding.clone(), [30, 8], &device).require_grad();
        let loss = [&first, &second].map(|case| {
            let (anchors, positives, negatives) = case.tensors(&device);
            info_nce(embedding.clone(), anchors, positives, negatives, 0.07).unwrap().loss
        });
        let [a, b] = loss;
        let grads = (a + b).backward();
        let found = float_values(embedding.grad(&grads).unwrap()).unwrap();
        assert!(rel_l2(&found, &expected) < 1e-6, "{name}");
    }
}

#[test]
fn losses_that_cannot_be_are_refused() {
    for (name, device) in devices() {
        let refused = |case: Contrast, expected: &str| {
            let (anchors, positives, negatives) = case.tensors(&device);
            let embedding = float_tensor(case.embedding.clone(), [case.num_rows(), case.num_channels], &device);
            let error = info_nce(embedding, anchors, positives, negatives, case.temperature).unwrap_err();
            assert_eq!(error.to_string(), format!("info_nce: {expected}"), "{name}");
        };
        let case = || Contrast::new(9, 5, 7, 4);
        refused(Contrast::new(9, 5, 0, 4), "0 anchors with 4 negatives of 5 channels, expected one of each at least");
        refused(Contrast::new(9, 5, 7, 0), "7 anchors with 0 negatives of 5 channels, expected one of each at least");
        for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            refused(
                Contrast { temperature, ..case() },
                &format!("a temperature of {temperature}, expected a positive number"),
            );
        }
        let mut outside = case();
        outside.negatives[5] = 9;
        let least = *outside.negatives.iter().chain(&outside.positives).min().unwrap();
        refused(outside, &format!("positives and negatives span {least} to 9, expected rows within 0..9"));
        let mut outside = case();
        outside.anchors[5] = -1;
        let most = *outside.anchors.iter().max().unwrap();
        refused(outside, &format!("anchors span -1 to {most}, expected rows within 0..9"));
        let error = info_nce(
            Tensor::zeros([9, 5], &device),
            int_tensor(vec![0; 7], [7], &device),
            int_tensor(vec![0; 6], [6], &device),
            int_tensor(vec![0; 28], [7, 4], &device),
            0.07,
        );
        assert_eq!(error.unwrap_err().to_string(), "info_nce: positives is [6], expected [A = 7]", "{name}");
        let small = Limits { max_binding_bytes: 100, max_workgroups: 65_535 };
        let case = case();
        let (anchors, positives, negatives) = case.tensors(&device);
        let error = with_limits(small, || {
            info_nce(Tensor::zeros([9, 5], &device), anchors, positives, negatives, 0.07).unwrap_err()
        });
        assert!(matches!(error, OpError::TooLarge(_)), "{name}: {error}");
    }
}
