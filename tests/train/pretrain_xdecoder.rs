//! Training the image model on made rooms: the loss falls, and a run that was stopped goes on to the same weights.

use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::Device;
use geopurify::models::xdecoder::{XDecoder, XDecoderConfig};
use geopurify::ops::conv2d::Precision;
use geopurify::pretrain::run::{Event, LoopSettings, MODEL_FILE, RunOptions, Trained, train};
use geopurify::pretrain::xdecoder::{PREVIEW_FILE, XDecoderSettings, XDecoderTask};
use geopurify::synth::{Settings, Split, write_room};
use geopurify::weights::WeightsFile;
use tempfile::TempDir;

/// One room to train on and one to validate on.
fn rooms() -> &'static Path {
    static ROOMS: OnceLock<TempDir> = OnceLock::new();
    let folder = ROOMS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { views: 6, size: [96, 72], spacing: 0.05, ..Settings::default() };
        for split in [Split::Train, Split::Val] {
            write_room(folder.path(), split, 1, &settings, None, &Device::flex()).unwrap();
        }
        folder
    });
    folder.path()
}

fn tiny(steps: u64) -> XDecoderSettings {
    let mut model: XDecoderConfig = XDecoderConfig::small();
    model.backbone.embed_dim = 8;
    model.backbone.depths = vec![1; 4];
    model.backbone_dim = 64;
    model.text.width = 16;
    let training = LoopSettings {
        steps,
        seed: 3,
        learning_rate: 3e-3,
        warmup: 2,
        validate_every: steps,
        checkpoint_every: 3,
        ..LoopSettings::default()
    };
    XDecoderSettings {
        batch: 2,
        size: [96, 64],
        scan_views: 3,
        scan_size: [96, 72],
        validate_on: 2,
        training,
        model,
        ..XDecoderSettings::default()
    }
}

fn run(folder: &Path, settings: &XDecoderSettings, options: &RunOptions) -> (Trained, Vec<f64>) {
    let device = Device::flex();
    let mut task = XDecoderTask::new(settings.clone(), rooms(), folder, &device, &mut |_| ()).unwrap();
    assert!(task.num_views()[0] > 0 && task.num_views()[1] > 0, "{:?}", task.num_views());
    let mut losses = Vec::new();
    let trained = train(folder, &mut task, &settings.training, options, &device, &mut |event| {
        if let Event::Step { report, .. } = event {
            losses.push(report.loss);
        }
    });
    (trained.unwrap(), losses)
}

#[test]
fn the_loss_falls_and_a_stopped_run_goes_on_to_the_bit() {
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = tiny(12);
    let (trained, losses) = run(whole.path(), &settings, &RunOptions::default());
    assert_eq!((losses.len(), trained.steps), (12, 12));
    assert!(losses[9..].iter().sum::<f64>() < 0.9 * losses[..3].iter().sum::<f64>(), "{losses:?}");
    assert!(trained.figures["val_accuracy"] >= 0.0 && whole.path().join(PREVIEW_FILE).is_file());

    // Stopped behind a checkpoint: the step after it is taken again.
    let early = RunOptions { stop_after: Some(7), ..RunOptions::default() };
    let (_, before) = run(stopped.path(), &settings, &early);
    let resumed = RunOptions { resume: true, ..RunOptions::default() };
    let (_, after) = run(stopped.path(), &settings, &resumed);
    assert_eq!([&before[..6], &after[..]].concat(), losses);
    let state =
        |folder: &TempDir, name: &str| WeightsFile::open(&folder.path().join(name)).unwrap().state_dict().unwrap();
    for name in [MODEL_FILE, "checkpoints/step-00012.safetensors"] {
        assert!(state(&whole, name).tensors == state(&stopped, name).tensors, "{name} differs");
    }

    // What is exported is the model, by its configuration.
    let config = std::fs::read_to_string(whole.path().join("config.json")).unwrap();
    let config: XDecoderConfig = serde_json::from_str(&config).unwrap();
    assert_eq!(config, settings.model);
    let mut weights = WeightsFile::open(&trained.model).unwrap();
    XDecoder::load(&mut weights, config, Precision::F32, &Device::flex()).unwrap();
}

#[test]
fn a_run_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let settings = tiny(1);
    run(folder.path(), &settings, &RunOptions::default());
    let device = Device::flex();
    let mut task = XDecoderTask::new(settings.clone(), rooms(), folder.path(), &device, &mut |_| ()).unwrap();
    let mut again = |settings: &LoopSettings, options: RunOptions| {
        train(folder.path(), &mut task, settings, &options, &device, &mut |_| ()).map_err(|error| error.to_string())
    };
    let error = again(&settings.training, RunOptions::default()).unwrap_err();
    assert!(error.contains("--resume"), "{error}");
    let wrong = LoopSettings { learning_rate: -1.0, ..settings.training.clone() };
    let error = again(&wrong, RunOptions { resume: true, ..RunOptions::default() }).unwrap_err();
    assert_eq!(error, "learning_rate is -1, expected above 0");
}
