//! Batch norm and its gradients against the definition in f64.

use burn::prelude::*;
use geopurify::ops::batch_norm::batch_norm;
use geopurify::ops::{OpError, float_tensor, float_values};

use crate::common::{Random, devices, rel_l2};

const EPSILON: f64 = 1e-5;

/// Input of a batch norm in f64.
#[derive(Clone)]
struct Input {
    dim: usize,
    x: Vec<f64>,
    residual: Option<Vec<f64>>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    relu: bool,
}

struct Expected {
    y: Vec<f64>,
    mean: Vec<f64>,
    unbiased_variance: Vec<f64>,
}

/// The definition, column by column.
fn by_definition(input: &Input) -> Expected {
    let Input { dim, x, residual, weight, bias, relu } = input;
    let num_rows = x.len() / dim;
    let column = |c: usize| (0..num_rows).map(move |r| x[r * dim + c]);
    let mean: Vec<f64> = (0..*dim).map(|c| column(c).sum::<f64>() / num_rows as f64).collect();
    let squares: Vec<f64> = (0..*dim).map(|c| column(c).map(|x| (x - mean[c]).powi(2)).sum()).collect();
    let y = x.iter().enumerate().map(|(i, x)| {
        let c = i % dim;
        let scale = (squares[c] / num_rows as f64 + EPSILON).sqrt();
        let y = (x - mean[c]) / scale * weight[c] + bias[c] + residual.as_ref().map_or(0.0, |residual| residual[i]);
        if *relu { y.max(0.0) } else { y }
    });
    let y = y.collect();
    let unbiased_variance = squares.iter().map(|s| s / (num_rows as f64 - 1.0)).collect();
    Expected { y, mean, unbiased_variance }
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

/// Values that f32 holds exactly, around `center`.
fn random(random: &mut Random, len: usize, center: f64) -> Vec<f64> {
    random.floats(len).into_iter().map(|x| center + f64::from(x)).map(|x| f64::from(x as f32)).collect()
}

/// Sum of the result times fixed factors: a scalar whose gradient reaches every input.
fn score(input: &Input, factors: &[f64]) -> f64 {
    by_definition(input).y.iter().zip(factors).map(|(y, factor)| y * factor).sum()
}

/// Central differences of [`score`] by every `stride`-th element of what `part` picks.
fn differences(input: &Input, factors: &[f64], stride: usize, part: impl Fn(&mut Input) -> &mut Vec<f64>) -> Vec<f64> {
    const STEP: f64 = 1e-6;
    let mut input = input.clone();
    let len = part(&mut input).len();
    (0..len)
        .step_by(stride)
        .map(|i| {
            let value = part(&mut input)[i];
            let mut at = |x: f64| {
                part(&mut input)[i] = x;
                score(&input, factors)
            };
            let slope = (at(value + STEP) - at(value - STEP)) / (2.0 * STEP);
            at(value);
            slope
        })
        .collect()
}

fn every<T: Copy>(values: &[T], stride: usize) -> Vec<T> {
    values.iter().copied().step_by(stride).collect()
}

#[test]
fn batch_norm_and_its_gradients_are_those_of_the_definition() {
    for (name, device) in devices() {
        let device = device.autodiff();
        for (num_rows, dim, add, relu) in [
            (2, 1, false, false),
            (70, 37, false, true),
            (70, 5, true, true),
            (1100, 33, true, true),
            (600, 8, true, false),
        ] {
            let what = format!("{name}, {num_rows} rows of {dim}, residual {add}, relu {relu}");
            let mut rng = Random(num_rows as u64);
            let input = Input {
                dim,
                // A mean away from 0, which the variance must not depend on.
                x: random(&mut rng, num_rows * dim, 4.0),
                residual: add.then(|| random(&mut rng, num_rows * dim, 0.0)),
                weight: random(&mut rng, dim, 1.5),
                bias: random(&mut rng, dim, 0.0),
                relu,
            };
            let factors = random(&mut rng, num_rows * dim, 0.3);
            let matrix = |values: &[f64]| float_tensor(narrow(values), [num_rows, dim], &device).require_grad();
            let vector = |values: &[f64]| float_tensor(narrow(values), [dim], &device).require_grad();
            let (x, residual) = (matrix(&input.x), input.residual.as_deref().map(matrix));
            let (weight, bias) = (vector(&input.weight), vector(&input.bias));
            let run = || batch_norm(x.clone(), residual.clone(), weight.clone(), bias.clone(), EPSILON as f32, relu);
            let normed = run().unwrap();

            let expected = by_definition(&input);
            let y = float_values(normed.y.clone().inner()).unwrap();
            assert!(rel_l2(&y, &narrow(&expected.y)) < 1e-5, "{what}: y");
            assert!(!normed.mean.device().is_autodiff(), "{what}: statistics carry no gradient");
            assert!(rel_l2(&float_values(normed.mean).unwrap(), &narrow(&expected.mean)) < 1e-6, "{what}: mean");
            let variance = float_values(normed.unbiased_variance).unwrap();
            assert!(rel_l2(&variance, &narrow(&expected.unbiased_variance)) < 1e-5, "{what}: variance");

            let backward = |y: Tensor<2>| -> Vec<Vec<f32>> {
                let factors = float_tensor(narrow(&factors), [num_rows, dim], &device);
                let grads = (y * factors).sum().backward();
                let of = |grad: Option<Tensor<1>>| float_values(grad.expect("a gradient")).unwrap();
                let flat = |tensor: &Tensor<2>| of(tensor.grad(&grads).map(|grad| grad.reshape([num_rows * dim])));
                let mut all = vec![flat(&x), of(weight.grad(&grads)), of(bias.grad(&grads))];
                all.extend(residual.as_ref().map(flat));
                all
            };
            let grads = backward(normed.y);
            let stride = if num_rows > 100 { 97 } else { 1 };
            let check = |index: usize, part: &str, stride: usize, expected: Vec<f64>| {
                let off = rel_l2(&every(&grads[index], stride), &narrow(&expected));
                assert!(off < 2e-5, "{what}: gradient of {part} is off by {off}");
            };
            // Two rows have normalised values of ±1 whatever they are: the gradient is the rounding of ε.
            if num_rows > 2 {
                check(0, "x", stride, differences(&input, &factors, stride, |input| &mut input.x));
            }
            check(1, "weight", 1, differences(&input, &factors, 1, |input| &mut input.weight));
            check(2, "bias", 1, differences(&input, &factors, 1, |input| &mut input.bias));
            if add {
                let slopes = differences(&input, &factors, stride, |input| input.residual.as_mut().unwrap());
                check(3, "residual", stride, slopes);
            }
            assert_eq!(backward(run().unwrap().y), grads, "{what}: a second run differs");
        }
    }
}

#[test]
fn batch_norm_refuses_what_has_no_variance() {
    for (name, device) in devices() {
        let vector = || Tensor::<1>::ones([3], &device);
        let run = |x: Tensor<2>, residual| batch_norm(x, residual, vector(), vector(), 1e-5, true);
        for num_rows in [0, 1] {
            let result = run(Tensor::zeros([num_rows, 3], &device), None);
            assert!(matches!(result, Err(OpError::Value { op: "batch_norm", .. })), "{name}");
        }
        let other = Tensor::zeros([4, 3], &device);
        assert!(matches!(run(Tensor::zeros([5, 3], &device), Some(other)), Err(OpError::Shape { .. })), "{name}");
    }
}
