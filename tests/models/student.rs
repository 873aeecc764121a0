//! The student in training: it starts as the reference does, every parameter learns, and a run can be stopped,
//! resumed and repeated.

use std::io::Write as _;

use burn::tensor::{Device, Gradients};
use geopurify::models::student::{AffinityPredictor, StudentConfig};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor};
use geopurify::training::Schedule;
use geopurify::training::{AdamW, AdamWConfig, AdamWState, Group};
use geopurify::weights::{Dtype, SafetensorsWriter, StateDict, TensorSpec, WeightsFile};

use crate::common::{Random, devices};

/// Distinct voxels of a thin, wavy sheet.
fn sheet(num_voxels: usize) -> Vec<i32> {
    let side = (num_voxels as f64).sqrt().ceil() as i32;
    (0..num_voxels as i32).flat_map(|i| [0, i % side, i / side, (i % side + 3 * (i / side)) / 7 % 5]).collect()
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
