//! MinkUNet in training, at sizes of its own: its gradients are central differences, it learns, and a run can be
//! stopped, resumed and repeated. The golden cases compare its answers with the reference's.

use std::collections::{BTreeMap, BTreeSet};

use burn::prelude::*;
use burn::tensor::Gradients;
use burn::tensor::activation::log_softmax;
use geopurify::models::minkunet::{ConfigError, MinkUnetConfig, TrainableMinkUnet};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor};
use geopurify::training::{AdamW, AdamWConfig, AdamWState};
use geopurify::weights::StateDict;

use crate::common::{Random, devices, rel_l2};

const NUM_IN: usize = 5;
const NUM_LABELS: usize = 4;

fn tiny() -> MinkUnetConfig {
    MinkUnetConfig {
        in_channels: NUM_IN,
        init_dim: 4,
        planes: [4, 5, 6, 8, 6, 5, 4, 6],
        layers: [1, 2, 1, 1, 1, 1, 1, 1],
        heads: vec![("final".to_owned(), NUM_LABELS), ("normals".to_owned(), 3)],
        ..MinkUnetConfig::openscene()
    }
}

/// Voxels of a corner of a room: floor and two walls, 40 cells wide. The coarsest level has 19 cells.
fn corner() -> Vec<[i32; 4]> {
    let cells = (0..40).flat_map(|a| (0..40).map(move |b| (a, b))).filter(|(a, b)| (a * 7 + b * 3) % 5 < 2);
    cells.flat_map(|(a, b)| [[0, a, b, 0], [0, a, 0, b + 1], [0, 0, a + 1, b + 1]]).collect()
}

fn features(num_voxels: usize, device: &Device) -> Tensor<2> {
    float_tensor(Random(3).floats(num_voxels * NUM_IN), [num_voxels, NUM_IN], device)
}

fn coords(voxels: &[[i32; 4]], device: &Device) -> Tensor<2, Int> {
    int_tensor(voxels.as_flattened().to_vec(), [voxels.len(), 4], device)
}

/// Both heads, one after the other, in a row.
fn answer(network: &mut TrainableMinkUnet, voxels: &[[i32; 4]], device: &Device) -> Tensor<2> {
    let last = network.forward_train(features(voxels.len(), device), coords(voxels, device)).unwrap();
    Tensor::cat(vec![network.head(last.clone(), 0).unwrap(), network.head(last, 1).unwrap()], 1)
}

/// The gradients of Σ answer · factor, by key.
fn gradients_of(state: &StateDict, voxels: &[[i32; 4]], device: &Device) -> BTreeMap<String, Vec<f32>> {
    let device = device.clone().autodiff();
    let (mut network, _) = TrainableMinkUnet::load_as(tiny(), state.clone(), &device).unwrap();
    let answer = answer(&mut network, voxels, &device);
    let factors = float_tensor(factors(voxels.len()), answer.dims(), &device);
    let mut gradients = (answer * factors).sum().backward();
    let mut found = BTreeMap::new();
    let keep = |key: &str, values: Tensor<1>, gradient: Tensor<1>| {
        found.insert(key.to_owned(), float_values(gradient).unwrap());
        Ok::<_, OpError>(values)
    };
    network.update(&mut gradients, keep).unwrap();
    found
}

fn factors(num_voxels: usize) -> Vec<f32> {
    Random(4).floats(num_voxels * (NUM_LABELS + 3))
}

/// An untrained network that stays off the bends of its ReLUs, where differences say little: every channel is passed on
/// or, the last one of each block's first layer, cut off.
fn off_the_bends() -> StateDict {
    let mut state = TrainableMinkUnet::new(&tiny(), 7, &Device::flex()).unwrap().state_dict().unwrap();
    for (key, tensor) in state.tensors.iter_mut().filter(|(key, _)| key.ends_with("bn.bias")) {
        tensor.data.fill(8.0);
        if key.contains("norm1") {
            *tensor.data.last_mut().unwrap() = -8.0;
        }
    }
    state
}

/// Steps of central differences, along a direction of length 1 or so: long ones for weak gradients, short ones for
/// those that turn.
const STEPS: [f64; 3] = [0.1, 0.03, 0.01];

#[test]
fn gradients_of_every_layer_are_central_differences() {
    let voxels = corner();
    let host = Device::flex();
    let state = off_the_bends();
    let gradients = gradients_of(&state, &voxels, &host);
    let score = |state: StateDict| -> f64 {
        let (mut network, _) = TrainableMinkUnet::load_as(tiny(), state, &host).unwrap();
        let answer = float_values(answer(&mut network, &voxels, &host)).unwrap();
        answer.iter().zip(factors(voxels.len())).map(|(a, f)| f64::from(*a) * f64::from(f)).sum()
    };
    let keys: Vec<String> =
        tiny().keys().into_iter().map(|(key, _)| key).filter(|key| !key.contains("running_")).collect();
    assert!(gradients.keys().eq(&keys.iter().cloned().collect::<BTreeSet<_>>()));
    for key in &keys {
        let gradient = &gradients[key];
        let norm = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let random = Random(9).floats(gradient.len());
        let (of_gradient, of_random) = (norm(gradient).max(1e-30), norm(&random));
        let direction = |i: usize| f64::from(gradient[i]) / of_gradient + f64::from(random[i]) / of_random;
        let expected: f64 = (0..gradient.len()).map(|i| f64::from(gradient[i]) * direction(i)).sum();
        let error = |step: f64| {
            let moved = |step: f64| {
                let mut state = state.clone();
                let data = &mut state.tensors.get_mut(key).unwrap().data;
                data.iter_mut().enumerate().for_each(|(i, value)| *value += (step * direction(i)) as f32);
                score(state)
            };
            ((moved(step) - moved(-step)) / (2.0 * step) - expected).abs() / (of_gradient + 0.05)
        };
        assert!(STEPS.iter().any(|&step| error(step) < ALLOWED), "{key} is off by {:?}", STEPS.map(error));
    }
    for (name, device) in devices() {
        for (key, found) in gradients_of(&state, &voxels, &device) {
            let off = rel_l2(&found, &gradients[&key]);
            assert!(off < 1e-4, "{name}: {key} is off by {off:e}");
        }
    }
}

/// Largest difference along the direction, relative to the gradient's length; weak gradients have more of the rounding.
const ALLOWED: f64 = 0.03;

struct Run {
    network: TrainableMinkUnet,
    optimizer: AdamW,
    device: Device,
}

impl Run {
    fn start(device: &Device) -> Self {
        let device = device.clone().autodiff();
        let network = TrainableMinkUnet::new(&tiny(), 7, &device).unwrap();
        Self { network, optimizer: AdamW::new(AdamWConfig::default()), device }
    }

    /// The cross-entropy of the first head with a label for floor, either wall, and a box in the middle of the floor.
    fn loss(&mut self) -> (f32, Gradients) {
        let voxels = corner();
        let label = |&[_, x, y, z]: &[i32; 4]| match (x, y, z) {
            (12..28, 12..28, 0) => 3,
            (_, _, 0) => 0,
            (_, 0, _) => 1,
            _ => 2,
        };
        let labels: Vec<i32> = voxels.iter().map(label).collect();
        let input = features(voxels.len(), &self.device);
        let last = self.network.forward_train(input, coords(&voxels, &self.device)).unwrap();
        let likelihoods = log_softmax(self.network.head(last, 0).unwrap(), 1);
        let labels = int_tensor(labels, [voxels.len(), 1], &self.device);
        let loss = -likelihoods.gather(1, labels).mean();
        (float_values(loss.clone().inner()).unwrap()[0], loss.backward())
    }

    fn step(&mut self) -> f32 {
        let (loss, mut gradients) = self.loss();
        self.optimizer.begin_step();
        let step = |key: &str, values, gradient| self.optimizer.update(key, values, gradient, 2e-2);
        self.network.update(&mut gradients, step).unwrap();
        loss
    }

    fn state(&self) -> (StateDict, AdamWState) {
        (self.network.state_dict().unwrap(), self.optimizer.state().unwrap())
    }
}

#[test]
fn a_run_learns_and_resumes_to_the_bit() {
    let mut run = Run::start(&Device::flex());
    let losses: Vec<f32> = (0..NUM_STEPS).map(|_| run.step()).collect();
    assert!(losses[0] > 1.0 && losses[NUM_STEPS - 1] < LEARNT, "{losses:?}");

    let mut again = Run::start(&Device::flex());
    (0..8).for_each(|_| {
        again.step();
    });
    let (weights, moments) = again.state();
    let (mut network, report) = TrainableMinkUnet::load_as(tiny(), weights, &again.device).unwrap();
    assert!(report.is_complete(), "{report}");
    network.set_num_batches_tracked(8);
    let optimizer = AdamW::resume(AdamWConfig::default(), moments, &Device::flex()).unwrap();
    let mut resumed = Run { network, optimizer, device: again.device };
    (8..NUM_STEPS).for_each(|_| {
        resumed.step();
    });
    assert!(resumed.state() == run.state(), "a resumed run differs");
    assert_eq!(resumed.network.num_batches_tracked(), NUM_STEPS as u64);

    for (name, device) in devices() {
        let mut run = Run::start(&device);
        let found = [run.step(), run.step()];
        assert!(rel_l2(&found, &losses[..2]) < 1e-4, "{name}: {found:?}, {:?}", &losses[..2]);
    }
}

/// Steps of the whole run, on the host.
const NUM_STEPS: usize = 24;

/// Cross-entropy after them; that of a guess is 1.39.
const LEARNT: f32 = 0.2;

#[test]
fn text_is_folded_into_a_head() {
    let voxels = corner();
    let text = float_tensor(Random(5).floats(7 * NUM_LABELS), [7, NUM_LABELS], &Device::flex());
    let network = TrainableMinkUnet::new(&tiny(), 3, &Device::flex()).unwrap().fold();
    let last = network.forward(features(voxels.len(), &Device::flex()), coords(&voxels, &Device::flex())).unwrap();
    let expected = network.head(last.clone(), 0).unwrap().matmul(text.clone().transpose());
    let found = network.text_scores(last.clone(), 0, text).unwrap();
    assert!(rel_l2(&float_values(found).unwrap(), &float_values(expected).unwrap()) < 1e-6);
    let message = network.head(last, 2).unwrap_err().to_string();
    assert!(message.contains("head 2 is asked for; the network has 2"), "{message}");
}

#[test]
fn sizes_are_free_and_are_found_in_a_checkpoint() {
    let narrow = MinkUnetConfig {
        in_channels: 10,
        init_dim: 24,
        planes: [32, 64, 96, 96, 96, 64, 48, 32],
        layers: [2, 1, 1, 3, 1, 1, 1, 1],
        heads: vec![("final".to_owned(), 20)],
        ..MinkUnetConfig::openscene()
    };
    for config in [narrow.clone(), MinkUnetConfig::openscene()] {
        let keys: BTreeMap<String, Vec<usize>> = config.keys().into_iter().collect();
        assert_eq!(MinkUnetConfig::of(&|key| keys.get(key).cloned()), Some(config.clone()));
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<MinkUnetConfig>(&json).unwrap(), config);
    }
    // As counted in the published network.
    let keys = MinkUnetConfig::openscene().keys();
    let of_learning = keys.iter().filter(|(key, _)| !key.contains("running_"));
    assert_eq!(of_learning.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), 15_564_960);

    // Files of earlier versions say neither the input nor the edge: they are those of the published networks.
    let old = r#"{"in_channels": 3, "init_dim": 32, "planes": [32, 64, 128, 256, 128, 128, 96, 96],
        "layers": [2, 2, 2, 2, 2, 2, 2, 2], "heads": [["final", 768]]}"#;
    assert_eq!(serde_json::from_str::<MinkUnetConfig>(old).unwrap(), MinkUnetConfig::openscene());
    let other = MinkUnetConfig { in_channels: 3, ..MinkUnetConfig::small(64) };
    assert_eq!(other.validate(), Err(ConfigError::Input { found: 3, expected: 11 }));
    let no_heads = MinkUnetConfig { heads: Vec::new(), ..narrow.clone() };
    assert_eq!(no_heads.validate(), Err(ConfigError::NoHeads));
    let empty = MinkUnetConfig { layers: [0; 8], ..narrow.clone() };
    assert_eq!(TrainableMinkUnet::new(&empty, 1, &Device::flex()).unwrap_err(), ConfigError::Zero("layers".to_owned()));
    let twice = MinkUnetConfig { heads: vec![("a".to_owned(), 1), ("a".to_owned(), 2)], ..narrow };
    assert_eq!(twice.validate(), Err(ConfigError::SameHead("a".to_owned())));
}

#[test]
fn too_few_cells_are_refused_and_change_nothing() {
    let device = Device::flex();
    let mut network = TrainableMinkUnet::new(&tiny(), 7, &device).unwrap();
    let before = network.state_dict().unwrap();
    // Four voxels in one coarse cell.
    let voxels = [[0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0], [0, 9, 9, 9]];
    let refused = network.forward_train(features(4, &device), coords(&voxels, &device));
    assert!(matches!(refused, Err(OpError::Value { op: "batch_norm", .. })));
    assert!(network.state_dict().unwrap() == before);
    let outside = network.fold().forward(features(1, &device), coords(&[[0, -1, 0, 0]], &device));
    assert!(matches!(outside, Err(OpError::Value { .. })));
}
