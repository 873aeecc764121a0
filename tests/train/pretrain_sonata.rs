//! `pretrain sonata` on one made room: the loss falls, a run goes on to the bit where it was left, and what it exports is a
//! teacher for the other subcommands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use burn::tensor::Device;
use geopurify::models::sonata::{Cloud, Sonata, SonataConfig};
use geopurify::ops::float_values;
use geopurify::pretrain::PretrainError;
use geopurify::pretrain::run::{CONFIG_FILE, LoopSettings, MODEL_FILE, RunOptions, Trained, train};
use geopurify::pretrain::scan::LabelledScan;
use geopurify::pretrain::sonata::{SonataSettings, SonataTask, object_precision};
use geopurify::synth::{Settings, Split, room_name, write_room};
use geopurify::weights::WeightsFile;

use crate::training::losses;

/// A room to learn from and one to validate on.
fn rooms() -> &'static Path {
    static ROOMS: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = ROOMS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { seed: 5, views: 16, size: [96, 72], spacing: 0.04, ..Settings::default() };
        for split in [Split::Train, Split::Val] {
            write_room(folder.path(), split, 1, &settings, None, &Device::flex()).unwrap();
        }
        folder
    });
    folder.path()
}

fn settings(steps: u64) -> SonataSettings {
    SonataSettings {
        points: 1500,
        anchors: 128,
        negatives: 16,
        validation_rooms: 1,
        training: LoopSettings {
            steps,
            learning_rate: 3e-3,
            warmup: 3,
            average_decay: 0.9,
            validate_every: steps,
            checkpoint_every: 4,
            export_f16: false,
            ..SonataSettings::default().training
        },
        model: SonataConfig {
            enc_depths: vec![1; 5],
            enc_channels: vec![8, 8, 16, 16, 16],
            enc_num_head: vec![1, 1, 2, 2, 2],
            enc_patch_size: vec![32; 5],
            ..SonataConfig::small()
        },
        ..SonataSettings::default()
    }
}

fn run(folder: &Path, steps: u64, options: &RunOptions) -> Result<Trained, Box<PretrainError>> {
    let settings = settings(steps);
    let mut task = SonataTask::new(settings.clone(), rooms(), &Device::flex())?;
    Ok(train(folder, &mut task, &settings.training, options, &Device::flex(), &mut |_| ())?)
}

#[test]
fn the_loss_falls_and_objects_part() {
    let folder = tempfile::tempdir().unwrap();
    let trained = run(folder.path(), 120, &RunOptions::default()).unwrap();
    let ([first, last], at_start) = losses(folder.path(), 120, 20);
    assert!(last < 0.92 * first, "{first} to {last}");
    let before = at_start["val_border_precision"].as_f64().unwrap();
    assert!(
        trained.figures["val_border_precision"] > before.max(trained.figures["val_border_uniform"]),
        "{:?}",
        trained.figures
    );
}

#[test]
fn a_run_goes_on_to_the_bit() {
    let [whole, parts] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    run(whole.path(), 8, &RunOptions::default()).unwrap();
    run(parts.path(), 8, &RunOptions { stop_after: Some(6), ..RunOptions::default() }).unwrap();
    assert!(run(parts.path(), 8, &RunOptions::default()).is_err());
    run(parts.path(), 8, &RunOptions { resume: true, ..RunOptions::default() }).unwrap();
    let [expected, found] = [&whole, &parts].map(|folder| fs::read(folder.path().join(MODEL_FILE)).unwrap());
    assert!(expected == found);
}

#[test]
fn what_is_exported_is_a_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let config = toml::to_string(&SonataSettings {
        training: LoopSettings { steps: 3, export_f16: true, ..settings(3).training },
        ..settings(3)
    });
    fs::write(path("settings.toml"), config.unwrap()).unwrap();
    let geopurify = |arguments: &[&Path]| {
        let output = Command::new(env!("CARGO_BIN_EXE_geopurify"))
            .args(arguments)
            .env("GEOPURIFY_DEVICE", "cpu")
            .env("GEOPURIFY_HOME", path("home"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let p = Path::new;
    geopurify(&[
        p("pretrain"),
        p("sonata"),
        p("--rooms"),
        rooms(),
        p("-o"),
        &path("run"),
        p("--config"),
        &path("settings.toml"),
    ]);
    let (model, config) = (path("run").join(MODEL_FILE), path("run").join(CONFIG_FILE));
    let room = rooms().join("val").join(room_name(1));
    let scan: PathBuf = room.join(format!("{}_vh_clean_2.ply", room_name(1)));
    geopurify(&[
        p("encode"),
        &scan,
        p("-o"),
        &path("encoded.safetensors"),
        p("--weights"),
        &model,
        p("--config"),
        &config,
    ]);
    assert!(path("encoded.safetensors").is_file());

    let config: SonataConfig = serde_json::from_str(&fs::read_to_string(config).unwrap()).unwrap();
    assert_eq!(config, settings(3).model);
    let (model, _) = Sonata::load(WeightsFile::open(&model).unwrap(), &config, &Device::flex()).unwrap();
    let scan = LabelledScan::read(&room).unwrap();
    let colors: Vec<[f32; 3]> = scan.colors.iter().map(|color| color.map(f32::from)).collect();
    let encoded = model.encode(Cloud { points: &scan.points, colors: &colors, normals: &scan.normals }).unwrap();
    // Cells of 8 cm, with the channels of the three coarsest levels.
    assert_eq!(encoded.features.dims(), [encoded.cells.len(), 48]);
    assert!(float_values(encoded.features).unwrap().iter().all(|x| x.is_finite()));
    let of_first = scan.points.iter().zip(&encoded.cell_from_point).filter(|(_, cell)| **cell == 0).map(|(p, _)| p[2]);
    let (least, most) = of_first.fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), z| (a.min(z), b.max(z)));
    assert!(most - least < 0.081);
    let found = object_precision(&model, &scan).unwrap();
    assert_eq!(found.num_cells, encoded.cells.len());
    assert!(found.uniform > 0.5 && found.border_uniform < found.uniform && found.precision <= 1.0, "{found:?}");
}

#[test]
fn settings_and_rooms_are_checked() {
    let refuse =
        |settings: SonataSettings| SonataTask::new(settings, rooms(), &Device::flex()).unwrap_err().to_string();
    assert!(refuse(SonataSettings { temperature: 0.0, ..settings(1) }).starts_with("temperature is 0"));
    assert!(refuse(SonataSettings { negatives: 0, ..settings(1) }).starts_with("negatives is 0"));
    let of_six = SonataConfig { in_channels: 6, ..settings(1).model };
    assert!(refuse(SonataSettings { model: of_six, ..settings(1) }).starts_with("in_channels is 6"));
    assert!(SonataSettings::parse("pionts = 3").unwrap_err().to_string().contains("pionts"));
    let parsed = SonataSettings::parse("points = 300\n[training]\nsteps = 7\n").unwrap();
    assert_eq!((parsed.points, parsed.training.steps, parsed.anchors), (300, 7, SonataSettings::default().anchors));
    assert_eq!(parsed.training.learning_rate, SonataSettings::default().training.learning_rate);
    let empty = tempfile::tempdir().unwrap();
    assert!(SonataTask::new(settings(1), empty.path(), &Device::flex()).is_err());
    assert!(LabelledScan::read(empty.path()).is_err());
}
