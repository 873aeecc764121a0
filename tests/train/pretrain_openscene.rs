//! `pretrain openscene` on made rooms: the loss falls, a run goes on to the bit where it was left, and what it exports
//! labels scans, alone and together with views.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use burn::tensor::Device;
use geopurify::models::minkunet::MinkUnetConfig;
use geopurify::models::xdecoder::TextEncoder;
use geopurify::pretrain::PretrainError;
use geopurify::pretrain::openscene::{OpenSceneSettings, OpenSceneTask};
use geopurify::pretrain::run::{CONFIG_FILE, LoopSettings, MODEL_FILE, RunOptions, Trained, train};
use geopurify::session::{NetworkChoice, Networks};
use geopurify::synth::{Settings, Split, room_name, write_room};

use crate::training::losses;

/// Two rooms to learn from and one to validate on.
fn rooms() -> &'static Path {
    static ROOMS: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = ROOMS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { seed: 5, views: 16, size: [96, 72], spacing: 0.04, ..Settings::default() };
        for (split, number) in [(Split::Train, 1), (Split::Train, 2), (Split::Val, 1)] {
            write_room(folder.path(), split, number, &settings, None, &Device::flex()).unwrap();
        }
        folder
    });
    folder.path()
}

/// The demo's text encoder, with words of 64 channels.
fn encoder() -> TextEncoder {
    let xdecoder = NetworkChoice { weights: Some("xdecoder-demo".into()), config: None };
    let networks = Networks { xdecoder, ..Networks::default() };
    networks.open_xdecoder().unwrap().load_text_encoder(&Device::flex()).unwrap()
}

fn settings(steps: u64) -> OpenSceneSettings {
    OpenSceneSettings {
        cells: 2000,
        validation_rooms: 1,
        training: LoopSettings {
            steps,
            learning_rate: 5e-3,
            warmup: 3,
            average_decay: 0.9,
            validate_every: steps,
            checkpoint_every: 4,
            export_f16: false,
            ..OpenSceneSettings::default().training
        },
        model: MinkUnetConfig {
            init_dim: 8,
            planes: [8, 16, 16, 16, 16, 16, 16, 16],
            layers: [1; 8],
            edge_mm: 100,
            ..MinkUnetConfig::small(64)
        },
        ..OpenSceneSettings::default()
    }
}

fn run(folder: &Path, steps: u64, options: &RunOptions) -> Result<Trained, Box<PretrainError>> {
    let settings = settings(steps);
    let mut task = OpenSceneTask::new(settings.clone(), rooms(), &encoder(), &Device::flex())?;
    Ok(train(folder, &mut task, &settings.training, options, &Device::flex(), &mut |_| ())?)
}

#[test]
fn the_loss_falls_and_held_out_rooms_are_labelled() {
    let folder = tempfile::tempdir().unwrap();
    let trained = run(folder.path(), 60, &RunOptions::default()).unwrap();
    let ([first, last], at_start) = losses(folder.path(), 60, 10);
    assert!(last < 0.8 * first, "{first} to {last}");
    let before = at_start["val_accuracy"].as_f64().unwrap();
    let after = trained.figures["val_accuracy"];
    assert!(after > 0.3 && after > before + 0.1, "{before} to {after}");
}

#[test]
fn a_run_goes_on_to_the_bit() {
    let [whole, parts] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    run(whole.path(), 8, &RunOptions::default()).unwrap();
    run(parts.path(), 8, &RunOptions { stop_after: Some(6), ..RunOptions::default() }).unwrap();
    run(parts.path(), 8, &RunOptions { resume: true, ..RunOptions::default() }).unwrap();
    let [expected, found] = [&whole, &parts].map(|folder| fs::read(folder.path().join(MODEL_FILE)).unwrap());
    assert!(expected == found);
}

#[test]
fn a_head_of_another_width_than_the_words_is_refused() {
    let settings = OpenSceneSettings { model: MinkUnetConfig::small(32), ..settings(1) };
    let error = OpenSceneTask::new(settings, rooms(), &encoder(), &Device::flex()).unwrap_err().to_string();
    assert_eq!(error, "model.heads is 32, while the text encoder has 64, expected the width of the text encoder");
}

#[test]
fn what_is_exported_labels_scans() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let config =
        OpenSceneSettings { training: LoopSettings { export_f16: true, ..settings(3).training }, ..settings(3) };
    fs::write(path("settings.toml"), toml::to_string(&config).unwrap()).unwrap();
    let geopurify = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_geopurify"))
            .args(arguments)
            .env("GEOPURIFY_DEVICE", "cpu")
            .env("GEOPURIFY_HOME", path("home"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (rooms, run) = (rooms().display().to_string(), path("run"));
    geopurify(&["pretrain", "openscene", "--scenes", &rooms, "-o", &run, "--config", &path("settings.toml")]);
    let room = Path::new(&rooms).join("val").join(room_name(1));
    let scan = room.join(format!("{}_vh_clean_2.ply", room_name(1))).display().to_string();
    let [model, config] = [MODEL_FILE, CONFIG_FILE].map(|name| format!("{run}/{name}"));
    for (method, num_views) in [("openscene", 0), ("ensemble", 2)] {
        let results = path(method);
        let mut arguments = vec!["infer", &scan, "-o", &results, "--method", method, "--views", "2", "--json"];
        arguments.extend(["--openscene", &model, "--openscene-config", &config]);
        arguments.extend(["--xdecoder", "xdecoder-demo", "--student", "student-demo", "--iterations", "2"]);
        let summary: serde_json::Value = serde_json::from_str(&geopurify(&arguments)).unwrap();
        assert_eq!(summary["settings"]["method"], method);
        assert_eq!(summary["views"]["views"], num_views);
        let models: Vec<&str> =
            summary["weights"].as_array().unwrap().iter().map(|w| w["model"].as_str().unwrap()).collect();
        assert_eq!(models, ["xdecoder", "student", "openscene"]);
        let answer: serde_json::Value =
            serde_json::from_str(&geopurify(&["query", &results, "wall", "--json"])).unwrap();
        assert!(answer["num_places"].as_u64().unwrap() > 0);
    }
}
