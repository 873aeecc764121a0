//! What training is made of, on every device: the batch norm and its gradients, the optimizer, the
//! gradient of a convolution over many voxels, and that a run can be stopped, resumed and repeated.

mod common;

use std::io::Write as _;

use burn::prelude::*;
use burn::tensor::{Device, Gradients};
use common::{Random, devices, rel_l2};
use geopurify::models::student::{AffinityPredictor, StudentConfig};
use geopurify::ops::batch_norm::batch_norm;
use geopurify::ops::kernel_map::kernel_map;
use geopurify::ops::sparse_conv::sparse_conv;
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor};
use geopurify::training::Schedule;
use geopurify::training::{AdamW, AdamWConfig, AdamWState, Group, HostMoments};
use geopurify::weights::{Dtype, SafetensorsWriter, StateDict, TensorSpec, WeightsFile};

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

#[test]
fn a_step_of_adamw_is_that_of_a_scalar_loop() {
    let (beta1, beta2, epsilon, weight_decay) = (0.9f64, 0.999f64, 1e-8, 0.3);
    let config = AdamWConfig { beta1, beta2, epsilon, weight_decay };
    for (name, device) in devices() {
        let len = 70_001;
        let mut rng = Random(5);
        let start = rng.floats(len);
        let mut expected: Vec<[f64; 3]> = start.iter().map(|&p| [p.into(), 0.0, 0.0]).collect();
        let mut param = float_tensor(start, [len], &device);
        let mut optimizer = AdamW::new(config);
        for step in 1..=12 {
            let rate = 0.02 / f64::from(step);
            // From gradients of 0 to such as ε is felt in.
            let grad: Vec<f32> = rng.floats(len).iter().enumerate().map(|(i, g)| g * [0.0, 1e-9, 1.0][i % 3]).collect();
            for ([p, m, v], g) in expected.iter_mut().zip(&grad) {
                let g = f64::from(*g);
                *p *= 1.0 - rate * weight_decay;
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                let (m, v) = (*m / (1.0 - beta1.powi(step)), *v / (1.0 - beta2.powi(step)));
                *p -= rate * m / (v.sqrt() + epsilon);
            }
            optimizer.begin_step();
            let held = param.clone();
            let before = float_values(held.clone()).unwrap();
            param = optimizer.update("p", param, float_tensor(grad, [len], &device), rate).unwrap();
            assert_eq!(float_values(held).unwrap(), before, "{name}: values that are held elsewhere changed");
        }
        let expected: Vec<f32> = expected.iter().map(|[p, ..]| *p as f32).collect();
        let off = rel_l2(&float_values(param).unwrap(), &expected);
        assert!(off < 2e-6, "{name}: off by {off}");
    }
}

#[test]
fn moments_of_another_length_are_refused() {
    let device = Device::flex();
    let moments = |a, b| HostMoments { exp_avg: vec![0.0; a], exp_avg_sq: vec![0.0; b] };
    let state = |moments| AdamWState { num_steps: 3, moments: [("p".to_owned(), moments)].into() };
    assert!(AdamW::resume(AdamWConfig::default(), state(moments(2, 3)), &device).is_err());
    let mut optimizer = AdamW::resume(AdamWConfig::default(), state(moments(2, 2)), &device).unwrap();
    let vector = || Tensor::<1>::zeros([3], &device);
    assert!(matches!(optimizer.update("p", vector(), vector(), 0.1), Err(OpError::Shape { .. })));
}

/// Distinct voxels of a thin, wavy sheet.
fn sheet(num_voxels: usize) -> Vec<i32> {
    let side = (num_voxels as f64).sqrt().ceil() as i32;
    (0..num_voxels as i32).flat_map(|i| [0, i % side, i / side, (i % side + 3 * (i / side)) / 7 % 5]).collect()
}

#[test]
fn gradients_of_a_convolution_over_many_voxels() {
    // More than a workgroup takes in one launch, in slices and not.
    let (num_voxels, num_in, num_out) = (40_000, 5, 7);
    let coords = sheet(num_voxels);
    let mut rng = Random(11);
    let (x, grad) = (rng.floats(num_voxels * num_in), rng.floats(num_voxels * num_out));
    let weight = rng.floats(27 * num_in * num_out);
    let map = kernel_map(int_tensor(coords.clone(), [num_voxels, 4], &Device::flex()), 3).unwrap();
    let map = geopurify::ops::int_values(map).unwrap();
    let mut expected_weight = vec![0.0f64; 27 * num_in * num_out];
    let mut expected_x = vec![0.0f64; num_voxels * num_in];
    for dst in 0..num_voxels {
        for k in 0..27 {
            let Ok(src) = usize::try_from(map[dst * 27 + k]) else { continue };
            for i in 0..num_in {
                for o in 0..num_out {
                    let g = f64::from(grad[dst * num_out + o]);
                    expected_weight[(k * num_in + i) * num_out + o] += f64::from(x[src * num_in + i]) * g;
                    expected_x[src * num_in + i] += f64::from(weight[(k * num_in + i) * num_out + o]) * g;
                }
            }
        }
    }
    for (name, device) in devices() {
        let device = device.autodiff();
        let x = float_tensor(x.clone(), [num_voxels, num_in], &device).require_grad();
        let weight = float_tensor(weight.clone(), [27, num_in, num_out], &device).require_grad();
        let map = kernel_map(int_tensor(coords.clone(), [num_voxels, 4], &device), 3).unwrap();
        let out = sparse_conv(x.clone(), weight.clone(), None, map).unwrap();
        let grads = (out * float_tensor(grad.clone(), [num_voxels, num_out], &device)).sum().backward();
        let off = rel_l2(&float_values(weight.grad(&grads).unwrap()).unwrap(), &narrow(&expected_weight));
        assert!(off < 1e-5, "{name}: gradient of the weight is off by {off}");
        let off = rel_l2(&float_values(x.grad(&grads).unwrap()).unwrap(), &narrow(&expected_x));
        assert!(off < 1e-5, "{name}: gradient of x is off by {off}");
    }
}

const CONFIG: StudentConfig = StudentConfig { input_dim: 9, hidden_dim: 24, embed_dim: 6 };

struct Run {
    student: AffinityPredictor,
    optimizer: AdamW,
    device: Device,
}

impl Run {
    fn start(device: &Device) -> Self {
        let device = device.clone().autodiff();
        let student = AffinityPredictor::new(&CONFIG, 7, &device);
        Self { student, optimizer: AdamW::new(AdamWConfig::default()), device }
    }

    fn gradients(&mut self) -> (f32, Gradients) {
        let num_voxels = 300;
        let features = Random(3).floats(num_voxels * CONFIG.input_dim);
        let features = float_tensor(features, [num_voxels, CONFIG.input_dim], &self.device);
        let coords = int_tensor(sheet(num_voxels), [num_voxels, 4], &self.device);
        let embedding = self.student.forward_train(features, coords).unwrap();
        let target = float_tensor(Random(4).floats(num_voxels * CONFIG.embed_dim), embedding.dims(), &self.device);
        let loss = (embedding - target).powi_scalar(2).mean();
        (float_values(loss.clone().inner()).unwrap()[0], loss.backward())
    }

    fn step(&mut self, iteration: u64) -> f32 {
        let (loss, mut gradients) = self.gradients();
        let schedule = Schedule::new(1e-2, 1, 20);
        self.optimizer.step(&mut self.student, &mut gradients, &schedule, iteration).unwrap();
        loss
    }

    fn state(&self) -> (StateDict, AdamWState) {
        (self.student.state_dict().unwrap(), self.optimizer.state().unwrap())
    }
}

#[test]
fn a_run_learns_and_repeats_and_resumes_to_the_bit() {
    for (name, device) in devices() {
        let mut run = Run::start(&device);
        let losses: Vec<f32> = (0..6).map(|i| run.step(i)).collect();
        assert!(losses[5] < 0.9 * losses[0], "{name}: {losses:?}");
        assert_eq!(run.optimizer.num_steps(), 6);

        let mut again = Run::start(&device);
        (0..3).for_each(|i| {
            again.step(i);
        });
        let (weights, moments) = again.state();
        let (mut student, config, _) = AffinityPredictor::load(weights, &again.device).unwrap();
        assert_eq!(config, CONFIG);
        assert_eq!(student.config(), CONFIG);
        student.set_num_batches_tracked(3);
        let optimizer = AdamW::resume(AdamWConfig::default(), moments, &device).unwrap();
        let mut resumed = Run { student, optimizer, device: again.device };
        (3..6).for_each(|i| {
            resumed.step(i);
        });
        assert!(resumed.state() == run.state(), "{name}: a resumed run differs");
    }
}

#[test]
fn a_gradient_reaches_every_parameter() {
    let mut run = Run::start(&Device::flex());
    let (_, mut gradients) = run.gradients();
    let mut keys = Vec::new();
    run.student
        .update(&mut gradients, |key, values, gradient| {
            let gradient = float_values(gradient).unwrap();
            assert!(gradient.iter().all(|g| g.is_finite()) && gradient.iter().any(|g| *g != 0.0), "{key}");
            keys.push(key.to_owned());
            Ok::<_, OpError>(values)
        })
        .unwrap();
    let expected: Vec<String> =
        CONFIG.keys().into_iter().map(|(key, _)| key).filter(|key| !key.contains("running_")).collect();
    assert_eq!(keys, expected);
    let groups = keys.iter().filter(|key| Group::of(key) == Group::Middle).count();
    assert_eq!(groups, 24);
    // Everything was handed back as it was.
    assert_eq!(run.student.state_dict().unwrap().tensors["output_layer.kernel"].data.len(), 24 * 6);
}

#[test]
fn a_failed_update_says_so_and_leaves_a_student() {
    let mut run = Run::start(&Device::flex());
    let before = run.student.state_dict().unwrap();
    let (_, mut gradients) = run.gradients();
    let failing = "res_blocks.1.conv2.kernel";
    let result =
        run.student.update(&mut gradients, |key, values, _| if key == failing { Err("no") } else { Ok(values) });
    assert_eq!(result, Err("no"));
    let after = run.student.state_dict().unwrap();
    for (key, tensor) in after.tensors.iter().filter(|(key, _)| !key.contains("running_")) {
        if key == failing {
            assert_eq!(tensor.shape, before.tensors[key].shape);
            assert!(tensor.data.iter().all(|x| x.is_nan()));
        } else {
            assert_eq!(tensor, &before.tensors[key], "{key}");
        }
    }
    assert!(run.gradients().0.is_nan());
}

#[test]
fn a_student_starts_as_the_reference_does() {
    let state = |seed| AffinityPredictor::new(&CONFIG, seed, &Device::flex()).state_dict().unwrap();
    let start = state(7);
    assert!(start == state(7) && start != state(8));
    for (key, shape) in CONFIG.keys() {
        let tensor = &start.tensors[&key];
        assert_eq!(tensor.shape, shape, "{key}");
        if !key.ends_with("kernel") {
            let value = if key.ends_with("weight") || key.ends_with("var") { 1.0 } else { 0.0 };
            assert!(tensor.data.iter().all(|x| *x == value), "{key}");
            continue;
        }
        let fan_in: usize = shape[..shape.len() - 1].iter().product();
        let bound = 1.0 / (fan_in as f64).sqrt();
        let values: Vec<f64> = tensor.data.iter().map(|&x| f64::from(x) / bound).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let second = values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64;
        assert!(values.iter().all(|x| x.abs() <= 1.0 + 1e-6), "{key}");
        let spread = 1.0 / (values.len() as f64).sqrt();
        assert!(mean.abs() < 3.0 * spread && (second - 1.0 / 3.0).abs() < 2.0 * spread, "{key}: {mean} {second}");
    }
    // The numbers belong to the seed, in every version.
    let kernel = &start.tensors["input_layer.0.kernel"].data;
    assert_eq!(kernel[..3], FIRST_VALUES);
    assert_ne!(start.tensors["res_blocks.0.conv1.kernel"].data, start.tensors["res_blocks.0.conv2.kernel"].data);
}

/// The first three values of the first kernel for seed 7.
const FIRST_VALUES: [f32; 3] = [0.014035324, -0.011652276, 0.06373141];

#[test]
fn an_exported_student_comes_back_from_a_file() {
    let mut run = Run::start(&Device::flex());
    (0..2).for_each(|i| {
        run.step(i);
    });
    let state = run.student.state_dict().unwrap();
    assert_eq!(state.integers.len(), 9);
    let count = &state.integers["res_blocks.3.norm2.bn.num_batches_tracked"];
    assert_eq!((count.shape.len(), count.dtype_in_file, count.data.as_slice()), (0, Dtype::I64, [2].as_slice()));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("student.safetensors");
    let counts = state.integers.iter().map(|(key, t)| TensorSpec::new(key, Dtype::I64, t.shape.clone()));
    let floats = state.tensors.iter().map(|(key, t)| TensorSpec::new(key, Dtype::F32, t.shape.clone()));
    let specs: Vec<TensorSpec> = counts.chain(floats).collect();
    let mut writer = SafetensorsWriter::create(&path, &specs, &Default::default()).unwrap();
    for count in state.integers.values() {
        count.data.iter().for_each(|value| writer.write_all(&value.to_le_bytes()).unwrap());
    }
    for tensor in state.tensors.values() {
        writer.write_f32(&tensor.data).unwrap();
    }
    writer.finish().unwrap();

    let (loaded, config, report) = AffinityPredictor::load(WeightsFile::open(&path).unwrap(), &run.device).unwrap();
    assert!(report.is_complete() && config == CONFIG, "{report}");
    assert_eq!(loaded.state_dict().unwrap().tensors, state.tensors);
    // What was trained answers as it did, folded for inference.
    let features = || float_tensor(Random(3).floats(300 * 9), [300, 9], &Device::flex());
    let coords = || int_tensor(sheet(300), [300, 4], &Device::flex());
    let of = |student: &AffinityPredictor| float_values(student.fold().forward(features(), coords()).unwrap()).unwrap();
    assert_eq!(of(&loaded), of(&run.student));
}
