//! `train --method openscene`: a 3D network learns what views put on the scenes, and labels a scan alone.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::training::{fixture, losses, text, texts};

const STEPS: usize = 40;
const NETWORK: &str = "
cells = 600

[training]
steps = 40
learning_rate = 5e-3
warmup = 3
average_decay = 0.9
validate_every = 40
checkpoint_every = 16
export_f16 = false

[model]
in_channels = 11
init_dim = 8
planes = [8, 16, 16, 16, 16, 16, 16, 16]
layers = [1, 1, 1, 1, 1, 1, 1, 1]
heads = [[\"final\", 48]]
text = \"xdecoder\"
input = \"shape_and_color\"
edge_mm = 100
";

/// `train --method openscene` into the folder `run`, on the scenes that students learn from too.
fn train(run: &str, arguments: &[&str]) -> Output {
    let fixture = fixture();
    let weights = &fixture.weights;
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command.args(["train", "--method", "openscene", "-o"]).arg(fixture.path(run));
    command.args(["--views", "3", "--size", "160", "--words", "wall, floor, box"]);
    command.arg("--cache").arg(fixture.path("cache"));
    command.arg("--xdecoder").arg(&weights.xdecoder).arg("--xdecoder-config").arg(&weights.config);
    command.arg("--teacher").arg(&weights.sonata).arg("--teacher-config").arg(&weights.sonata_config);
    command.args(arguments).env("GEOPURIFY_DEVICE", "cpu").env("GEOPURIFY_HOME", fixture.path("home"));
    command.output().unwrap()
}

#[test]
fn a_network_learns_the_lifted_features() {
    let fixture = fixture();
    let [config, scenes, held_out] = ["network.toml", "scenes", "held-out"].map(|name| fixture.path(name));
    fs::write(&config, NETWORK).unwrap();
    let arguments =
        ["--scenes", text(&scenes), "--validation", text(&held_out), "--config", text(&config), "--install", "corners"];
    let output = train("network", &arguments);
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("3 scenes to learn from, 1 to validate on"), "{err}");
    assert!(out.contains("val_cosine") && out.contains("corners"), "{out}");
    let run = fixture.path("network");
    let ([first, last], at_start) = losses(&run, STEPS, 10);
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let end: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let [before, after] = [&at_start, &end].map(|line| line["val_cosine"].as_f64().unwrap());
    assert!(last < 0.7 * first && after > before + 0.3, "{first} to {last}, {before} to {after}");

    // What it learned labels a scan that it has not seen, without a view, and the words are X-Decoder's.
    let [scan, results] = ["held-out/d.ply", "network-results"].map(|name| fixture.path(name));
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command.args(["infer", text(&scan), "-o", text(&results), "--method", "openscene", "--words", "wall, floor, box"]);
    command.args(["--openscene", "corners", "--affinities", "uniform", "--json"]);
    command.arg("--xdecoder").arg(&fixture.weights.xdecoder).arg("--xdecoder-config").arg(&fixture.weights.config);
    let output = command.env("GEOPURIFY_DEVICE", "cpu").env("GEOPURIFY_HOME", fixture.path("home")).output().unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(summary["settings"]["method"], "openscene");
    assert_eq!(summary["views"]["views"], 0);
}

#[test]
fn what_a_network_cannot_learn_from_is_refused() {
    let fixture = fixture();
    let scenes = fixture.path("scenes");
    let fail = |run: &str, arguments: &[&str]| {
        let output = train(run, arguments);
        let (_, err) = texts(&output);
        assert!(output.status.code() == Some(1) && !err.contains("panicked"), "{err}");
        err
    };
    let err = fail("refused", &["--scenes", text(&scenes), "--recipe", "reference"]);
    assert!(err.contains("--recipe is an option of the student"), "{err}");
    let err = fail("refused", &["--resume"]);
    assert!(err.contains("give --scenes again"), "{err}");
    let narrow = fixture.path("narrow.toml");
    fs::write(&narrow, NETWORK.replace("48]]", "32]]")).unwrap();
    let err = fail("refused", &["--scenes", text(&scenes), "--config", text(&narrow)]);
    assert!(err.contains("model.heads is 32, while the features have 48"), "{err}");
    let output = train("planned", &["--scenes", text(&scenes), "--epochs", "4", "--dry-run"]);
    let (out, err) = texts(&output);
    assert!(output.status.success() && out.contains("would learn from") && out.contains("6 steps, into"), "{out}{err}");
    assert!(!fixture.path("planned").exists());
}
