//! `train` on features of LSeg.

use std::fs;
use std::process::Command;

use geopurify::weights::{SafetensorsFile, WeightsFile};
use serde_json::Value;

use crate::training::{SETTINGS, fixture, texts};
use crate::weights::{LSegFiles, tiny_lseg};

#[test]
fn a_student_learns_from_features_of_lseg() {
    let fixture = fixture();
    let folder = tempfile::tempdir().unwrap();
    let LSegFiles { weights, config } = tiny_lseg(folder.path()).unwrap();
    let (run, cache) = (folder.path().join("run"), folder.path().join("cache"));
    fs::write(folder.path().join("run.toml"), SETTINGS).unwrap();
    let command = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
        command.arg("train").arg("-o").arg(&run).arg("--scenes").arg(fixture.path("scenes")).arg("--cache").arg(&cache);
        command.arg("--config").arg(folder.path().join("run.toml")).args(["--epochs", "1", "--max-memory", "2048"]);
        command.args(["--words", "wall, floor, box", "--views", "2", "--size", "160", "--image-model", "lseg"]);
        command.arg("--lseg").arg(&weights).arg("--lseg-config").arg(&config);
        command
            .arg("--teacher")
            .arg(&fixture.weights.sonata)
            .arg("--teacher-config")
            .arg(&fixture.weights.sonata_config);
        command.args(more).env("GEOPURIFY_DEVICE", "cpu").env("GEOPURIFY_HOME", folder.path().join("home"));
        command.output().unwrap()
    };
    let output = command(&["--dry-run"]);
    let (out, err) = texts(&output);
    assert!(output.status.success() && out.contains("lseg.safetensors"), "{out}{err}");
    let output = command(&[]);
    let (_, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let losses = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64());
    let losses: Vec<f64> = losses.collect();
    assert!(losses.len() == 3 && losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    // The student takes a feature, colour and normal.
    let student = WeightsFile::open(&run.join("student.safetensors")).unwrap().state_dict().unwrap();
    let shapes: Vec<&Vec<usize>> = student.tensors.values().map(|tensor| &tensor.shape).collect();
    assert!(shapes.iter().any(|shape| shape.contains(&(48 + 6))), "{shapes:?}");
    let prepared = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
    let prepared: Vec<_> = prepared.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    assert_eq!(prepared.len(), 3);
    assert!(SafetensorsFile::open(&prepared[0]).is_ok());
}
