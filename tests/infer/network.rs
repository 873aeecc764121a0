//! `infer --method openscene` with a 3D network of the published kind: its words come from CLIP, and it looks at no view.

use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::Device;
use geopurify::models::clip::ClipTextConfig;
use geopurify::models::minkunet::{MinkUnetConfig, TrainableMinkUnet};
use geopurify::random::SplitMix64;
use geopurify::weights::{Dtype, SafetensorsWriter, TensorSpec, write_state_dict};
use serde_json::Value;

use crate::corner::corner;

/// Channels of words and features.
const WIDTH: usize = 32;

/// A small network with the published input, told nothing but where voxels are.
pub(crate) fn write_network(path: &Path, width: usize) {
    let config = MinkUnetConfig {
        init_dim: 8,
        planes: [8, 12, 16, 16, 16, 12, 8, 8],
        layers: [1; 8],
        heads: vec![("final".to_owned(), width)],
        ..MinkUnetConfig::openscene()
    };
    let network = TrainableMinkUnet::new(&config, 3, &Device::flex()).unwrap();
    write_state_dict(path, &network.state_dict().unwrap(), &Default::default()).unwrap();
}

/// A small text side with words of `embed_dim` channels.
fn write_clip(path: &Path, embed_dim: usize) {
    let config = ClipTextConfig { width: 64, heads: 1, layers: 1, embed_dim, ..ClipTextConfig::vit_b32() };
    let keys = config.keys();
    let specs: Vec<_> = keys.iter().map(|(key, shape)| TensorSpec::new(key, Dtype::F16, shape.clone())).collect();
    let mut writer = SafetensorsWriter::create(path, &specs, &Default::default()).unwrap();
    let mut random = SplitMix64::new(5);
    for (_, shape) in &keys {
        let center = if shape.len() == 1 { 1.0 } else { 0.0 };
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| (center + random.between([-0.3, 0.3])) as f32).collect();
        writer.write_f32(&values).unwrap();
    }
    writer.finish().unwrap();
}

pub(crate) fn run(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command.args(arguments).env("GEOPURIFY_HOME", home).env("GEOPURIFY_DEVICE", "cpu");
    command.output().unwrap()
}

pub(crate) fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_network_in_the_space_of_clip_labels_a_scan_and_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let home = folder.path().join("home");
    corner(0.03).write_ply(Path::new(&path("corner.ply")), &[]).unwrap();
    write_network(Path::new(&path("network.safetensors")), WIDTH);
    write_clip(Path::new(&path("clip.safetensors")), WIDTH);
    let (scan, results) = (path("corner.ply"), path("results"));
    let (network, clip) = (path("network.safetensors"), path("clip.safetensors"));
    let words = ["--words", "wall, floor, chair", "--no-background", "--json"];
    let given = ["infer", &scan, "-o", &results, "--method", "openscene", "--openscene", &network, "--clip", &clip];
    let summary = json(&run(&home, &[&given[..], &words].concat()));
    let models: Vec<&str> =
        summary["weights"].as_array().unwrap().iter().filter_map(|weights| weights["model"].as_str()).collect();
    assert_eq!(models, ["clip", "openscene"]);
    assert_eq!((&summary["views"]["views"], &summary["settings"]["purify"]["iterations"]), (&0.into(), &0.into()));
    let labelled: u64 =
        summary["classes"].as_array().unwrap().iter().map(|class| class["points"].as_u64().unwrap()).sum();
    assert_eq!(labelled, corner(0.03).len() as u64);
    // The saved features say which text encoder their words came from.
    let answer = json(&run(&home, &["query", &results, "floor", "--json"]));
    assert_eq!((&answer["known"], answer["num_places"].as_u64().unwrap() > 0), (&Value::Bool(true), true));

    // Installed under the registry's names, nothing has to be given.
    let first = std::fs::read(folder.path().join("results/labelled.ply")).unwrap();
    assert!(run(&home, &["weights", "import", "openscene", &network]).status.success());
    assert!(run(&home, &["weights", "import", "clip", &clip, "--name", "clip-vit-b-32"]).status.success());
    let installed = ["infer", &scan, "-o", &results, "--method", "openscene"];
    json(&run(&home, &[&installed[..], &words].concat()));
    assert!(first == std::fs::read(folder.path().join("results/labelled.ply")).unwrap());
}

#[test]
fn what_does_not_share_a_space_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let home = folder.path().join("home");
    corner(0.05).write_ply(Path::new(&path("corner.ply")), &[]).unwrap();
    write_network(Path::new(&path("network.safetensors")), WIDTH);
    write_clip(Path::new(&path("clip.safetensors")), WIDTH + 1);
    let (scan, results, network, clip) =
        (path("corner.ply"), path("results"), path("network.safetensors"), path("clip.safetensors"));
    let message = |method: &str| {
        let given = ["infer", &scan, "-o", &results, "--method", method, "--openscene", &network, "--clip", &clip];
        let output = run(&home, &given);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let refused = message("ensemble");
    assert!(refused.contains("this one is in the space of CLIP, so it can only answer alone"), "{refused}");
    let refused = message("openscene");
    assert!(refused.contains("features of 32 channels; those of the words have 33"), "{refused}");
}
