//! `train` on small scans, with small generated weights and a small student.

#![allow(dead_code, reason = "not every test binary has all of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

use crate::corner::corner;
use crate::weights::{WeightFiles, tiny_weights};

/// Settings of a student that trains in seconds.
pub(crate) const SETTINGS: &str = "hidden_dim = 16\nembed_dim = 8\nepochs = 3\nanchors = 128\nwarmup_epochs = 1\n";

/// Mean losses of the first and of the last `count` steps in the log of a run, and the log's first line.
pub(crate) fn losses(run: &Path, num_steps: usize, count: usize) -> ([f64; 2], Value) {
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let losses: Vec<f64> = lines.iter().filter_map(|line| line["loss"].as_f64()).collect();
    assert_eq!(losses.len(), num_steps);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    ([mean(&losses[..count]), mean(&losses[num_steps - count..])], lines[0].clone())
}

pub(crate) struct Fixture {
    pub folder: tempfile::TempDir,
    pub weights: WeightFiles,
}

/// Three corners to learn from, one to validate on, the settings and the networks; scenes are prepared once for all tests.
pub(crate) fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let weights = tiny_weights(folder.path()).unwrap();
        for (place, name, step) in
            [("scenes", "a", 0.05), ("scenes", "b", 0.055), ("scenes", "c", 0.06), ("held-out", "d", 0.058)]
        {
            fs::create_dir_all(folder.path().join(place)).unwrap();
            corner(step).write_ply(&folder.path().join(place).join(format!("{name}.ply")), &[]).unwrap();
        }
        fs::write(folder.path().join("run.toml"), SETTINGS).unwrap();
        Fixture { folder, weights }
    })
}

impl Fixture {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `train` into the folder `run`, with the scenes and the settings unless `arguments` say otherwise.
    pub(crate) fn command(&self, run: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
        command.arg("train").arg("-o").arg(self.path(run)).args(["--views", "3", "--size", "160"]);
        command.arg("--cache").arg(self.path("cache")).args(["--words", "wall, floor, box"]);
        command.arg("--xdecoder").arg(&self.weights.xdecoder).arg("--xdecoder-config").arg(&self.weights.config);
        command.arg("--teacher").arg(&self.weights.sonata).arg("--teacher-config").arg(&self.weights.sonata_config);
        if !arguments.contains(&"--max-memory") {
            command.args(["--max-memory", "2048"]);
        }
        if !arguments.contains(&"--scenes") {
            command.arg("--scenes").arg(self.path("scenes"));
        }
        if !arguments.contains(&"--config") {
            command.arg("--config").arg(self.path("run.toml"));
        }
        command.args(arguments).env("GEOPURIFY_DEVICE", "cpu").env("GEOPURIFY_HOME", self.path("home"));
        command
    }

    pub(crate) fn succeed(&self, run: &str, arguments: &[&str]) -> String {
        let (out, err) = texts(&self.command(run, arguments).output().unwrap());
        assert!(self.path(run).join("student.safetensors").is_file(), "{err}");
        out + &err
    }

    /// What a run that must fail with exit code 1 says.
    pub(crate) fn fail(&self, run: &str, arguments: &[&str]) -> String {
        let output = self.command(run, arguments).output().unwrap();
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(!err.contains("panicked"), "{err}");
        err
    }

    pub(crate) fn metrics(&self, run: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn losses(&self, run: &str) -> Vec<f64> {
        self.metrics(run).iter().filter_map(|line| line["loss"].as_f64()).collect()
    }

    pub(crate) fn student(&self, run: &str) -> Vec<u8> {
        fs::read(self.path(run).join("student.safetensors")).unwrap()
    }
}

pub(crate) fn texts(output: &Output) -> (String, String) {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).into()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
