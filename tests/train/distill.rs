//! The trainer on a small made-up scene, on every device.

use burn::tensor::Device;
use geopurify::distill::{Config, Recipe, Samples, Trainer, TrainingScene};
use geopurify::weights::StateDict;

use crate::common::{Random, devices};

/// Three planes that meet in a corner, of which the teacher knows which is which and, vaguely, where on it a cell is. The
/// student sees noisy colours.
fn corner(width: i32) -> TrainingScene {
    let mut random = Random(3);
    let mut coords: Vec<[i32; 3]> = Vec::new();
    for plane in 0..3 {
        let (u, v) = ((plane + 1) % 3, (plane + 2) % 3);
        for i in 0..width * width {
            let mut voxel = [0; 3];
            (voxel[u], voxel[v]) = (1 + i % width, 1 + i / width);
            coords.push(voxel);
        }
    }
    let plane = |voxel: &[i32; 3]| voxel.iter().position(|&c| c == 0).unwrap();
    let mut features = Vec::new();
    for voxel in &coords {
        features.extend((0..6).map(|i| f32::from(u8::from(i == plane(voxel))) + 0.5 * random.signed()));
    }
    let cells = width.div_euclid(4) + 1;
    let cell = |voxel: &[i32; 3]| {
        let [x, y, z] = voxel.map(|c| c / 4);
        plane(voxel) as i32 * cells * cells * cells + (x * cells + y) * cells + z
    };
    let mut teacher = Vec::new();
    for row in 0..3 * cells * cells * cells {
        let plane = (row / (cells * cells * cells)) as usize;
        teacher.extend((0..8).map(|i| f32::from(u8::from(i == plane)) + 0.3 * random.signed()));
    }
    let scene = TrainingScene {
        name: "corner".to_owned(),
        samples: Samples::Voxels,
        positions: coords.iter().map(|voxel| voxel.map(|c| c as f32)).collect(),
        features,
        num_channels: 6,
        voxel_from_sample: (0..coords.len() as i32).collect(),
        teacher,
        teacher_dim: 8,
        teacher_from_sample: coords.iter().map(cell).collect(),
        voxel_size: 1.0,
        voxel_metres: 0.02,
        up: [0.0, 0.0, 1.0],
        voxel_coords: coords,
    };
    scene.validate().unwrap();
    scene
}

fn settings(epochs: usize) -> Config {
    Config {
        epochs,
        warmup_epochs: epochs / 20,
        learning_rate: 3e-3,
        anchors: 200,
        hidden_dim: 32,
        embed_dim: 16,
        seed: 5,
        ..Config::of(Recipe::Paper)
    }
}

fn trainer(config: &Config, device: &Device) -> Trainer {
    Trainer::new(config, 6, 1, device)
}

/// Losses of the epochs `epochs`, one step each.
fn train(trainer: &mut Trainer, scene: &TrainingScene, epochs: std::ops::Range<usize>) -> Vec<f64> {
    let mut step = |epoch| trainer.step(epoch, std::iter::once((0, Ok(scene.clone()))), u64::MAX).unwrap();
    epochs.map(|epoch| step(epoch).loss).collect()
}

fn bits(state: &StateDict) -> Vec<(&str, Vec<u32>)> {
    state.tensors.iter().map(|(key, t)| (key.as_str(), t.data.iter().map(|v| v.to_bits()).collect())).collect()
}

#[test]
fn one_scene_is_learnt_by_heart() {
    let (scene, config) = (corner(18), settings(200));
    let mut trainer = trainer(&config, &Device::flex());
    let losses = train(&mut trainer, &scene, 0..200);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (losses[0], mean(&losses[190..]));
    assert!(last < 0.5 * first, "InfoNCE went from {first} to {last}");
    assert!(losses.iter().all(|loss| loss.is_finite()));
}

#[test]
fn runs_of_one_seed_and_resumed_runs_are_equal_to_the_bit() {
    let scene = corner(10);
    for (name, device) in devices() {
        let config = settings(6);
        let mut whole = trainer(&config, &device);
        let losses = train(&mut whole, &scene, 0..6);
        let mut again = trainer(&config, &device);
        assert_eq!(train(&mut again, &scene, 0..3), losses[..3], "{name}");
        let kept = again.state().unwrap();
        drop(again);
        let mut resumed = trainer(&config, &device);
        resumed.restore(kept, 3).unwrap();
        assert_eq!(train(&mut resumed, &scene, 3..6), losses[3..], "{name}");
        let (whole, resumed) = (whole.state().unwrap(), resumed.state().unwrap());
        assert_eq!(bits(&whole), bits(&resumed), "{name}");
        assert_eq!(whole.integers, resumed.integers, "{name}");
    }
}

#[test]
fn two_scenes_in_a_step_have_the_mean_of_their_gradients() {
    // A scene twice: the same mean gradient as once, were the anchors the same; the loss is the mean of both.
    let (scene, device) = (corner(10), Device::flex());
    let config = Config { accumulate: 2, ..settings(2) };
    let mut both = trainer(&config, &device);
    let scenes = [(0, Ok(scene.clone())), (1, Ok(scene.clone()))];
    let report = both.step(0, scenes.into_iter(), u64::MAX).unwrap();
    assert_eq!(report.scenes.len(), 2);
    let alone = |number| {
        let mut one = trainer(&config, &device);
        one.step(0, std::iter::once((number, Ok(scene.clone()))), u64::MAX).unwrap().loss
    };
    // The network of the second has seen the first: its running statistics, not what its loss depends on.
    assert!((report.loss - (alone(0) + alone(1)) / 2.0).abs() < 1e-6, "{}", report.loss);
    // Its step is not that of either scene alone.
    let exp_avg = |scenes: &[usize]| {
        let mut one = trainer(&config, &device);
        one.step(0, scenes.iter().copied().map(|n| (n, Ok(scene.clone()))), u64::MAX).unwrap();
        one.state().unwrap().tensors["optimizer.exp_avg.output_layer.kernel"].data.clone()
    };
    let (first, second, sum) = (exp_avg(&[0]), exp_avg(&[1]), exp_avg(&[0, 1]));
    for ((first, second), both) in first.iter().zip(&second).zip(&sum) {
        assert!(((first + second) / 2.0 - both).abs() < 1e-6 + 1e-4 * both.abs(), "{first}, {second}: {both}");
    }
}

#[test]
fn a_scene_of_other_channels_is_refused() {
    let mut trainer = Trainer::new(&settings(2), 7, 1, &Device::flex());
    let error = trainer.step(0, std::iter::once((0, Ok(corner(10)))), u64::MAX).unwrap_err().to_string();
    assert_eq!(error, "corner: features of 6 channels, the student takes 7");
}
