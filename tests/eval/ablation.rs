//! `ablation` as a user runs it, on small labelled corners of a room, with small generated weights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use geopurify::images::{Orientation, read_image};
use serde_json::Value;

use crate::labelled_corner::{BOX, TABLE, write_recording, write_scene};
use crate::weights::{WeightFiles, tiny_weights};

const FILES: [&str; 3] = ["ablation.json", "ablation.md", "ablation.png"];

struct Fixture {
    folder: tempfile::TempDir,
    weights: WeightFiles,
}

impl Fixture {
    /// Rooms to learn from, to choose by and to measure; the networks.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let weights = tiny_weights(folder.path()).unwrap();
        let rooms = folder.path().join("rooms");
        for (split, scene, object, size) in [
            ("train", "room_0001", TABLE, 1.0),
            ("train", "room_0002", BOX, 1.1),
            ("val", "room_0001", TABLE, 0.95),
            ("test", "room_0001", TABLE, 0.9),
            ("test", "room_0002", BOX, 1.05),
        ] {
            write_scene(&rooms.join(split).join(scene), &format!("{scene}_vh_clean_2"), object, size);
        }
        // A scan and the recording that it is looked at in.
        write_recording(&rooms.join("train/room_0001"), 3);
        Self { folder, weights }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
        command.args(arguments).args(["--views", "3", "--size", "160"]);
        command.arg("--xdecoder").arg(&self.weights.xdecoder).arg("--xdecoder-config").arg(&self.weights.config);
        command.env("GEOPURIFY_DEVICE", "cpu").env("GEOPURIFY_HOME", self.path("home"));
        command
    }

    fn ablation(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(&["ablation"]);
        command.arg("--rooms").arg(self.path("rooms")).arg("-o").arg(self.path("ablation"));
        command.arg("--cache").arg(self.path("cache"));
        command.arg("--teacher").arg(&self.weights.sonata).arg("--teacher-config").arg(&self.weights.sonata_config);
        command.args(["--iterations", "1,18,36", "--candidates", "4", "--steps", "4"]);
        command.args(["--hidden", "16", "--embed", "8", "--anchors", "128", "--max-memory", "2048"]);
        command.args(arguments).output().unwrap()
    }

    /// Mean IoU of both columns, before and after purification, as `eval` counts the test rooms.
    fn eval(&self, name: &str, arguments: &[&str]) -> [f64; 2] {
        let report = self.path(name);
        let mut command = self.command(&["eval"]);
        let output = command.arg(self.path("rooms/test")).arg("-o").arg(&report).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json = json(&report.join("report.json"));
        ["lifted", "purified"].map(|stage| json[stage]["groups"][0]["absent_zero"]["mean_iou"].as_f64().unwrap())
    }
}

fn succeed(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{err}");
    err
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The mean IoU of a row.
fn mean_iou(ablation: &Value, group: &str, name: &str, iterations: Option<u64>, scenes: Option<u64>) -> f64 {
    let is_it = |row: &&Value| {
        row["group"] == group
            && row["name"] == name
            && row["iterations"].as_u64() == iterations
            && row["scenes"].as_u64() == scenes
    };
    let rows: Vec<&Value> = ablation["rows"].as_array().unwrap().iter().filter(is_it).collect();
    assert_eq!(rows.len(), 1, "{group}, {name}: {}", ablation["rows"]);
    rows[0]["mean_iou"]["mean"].as_f64().unwrap()
}

/// The only folder whose name starts so.
fn starting_with(folder: &Path, start: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(start)).collect();
    assert_eq!(found.len(), 1, "{start}");
    found[0].clone()
}

#[test]
fn a_study_has_all_rows_and_goes_on_where_it_was_stopped() {
    let fixture = Fixture::new();
    let arguments = ["--seeds", "1", "--scenes", "1,2"];
    let err = succeed(&fixture.ablation(&arguments));
    assert_eq!(err.matches("trained in").count(), 3, "{err}");
    let folder = fixture.path("ablation");
    let ablation = json(&folder.join("ablation.json"));

    // Groups: 3 of purification, 3 of T, 2 of negatives, 2 of scenes, 3 × 4 with what was chosen, 4 at their best.
    assert_eq!(ablation["rows"].as_array().unwrap().len(), 3 + 3 + 2 + 2 + 12 + 4);
    let full = mean_iou(&ablation, "purification", "full", Some(18), Some(2));
    assert_eq!(full, mean_iou(&ablation, "iterations", "learned", Some(18), Some(2)));
    assert_eq!(full, mean_iou(&ablation, "negatives", "hybrid negatives", Some(18), Some(2)));
    assert_eq!(full, mean_iou(&ablation, "training scenes", "learned", Some(18), Some(2)));
    mean_iou(&ablation, "negatives", "macro negatives alone", Some(18), Some(2));
    mean_iou(&ablation, "training scenes", "learned", Some(18), Some(1));
    for student in ablation["students"].as_array().unwrap() {
        assert_eq!(student["steps"], 4);
        assert_eq!(student["trained_on"].as_array().unwrap().len() as u64, student["scenes"].as_u64().unwrap());
    }
    assert_eq!(ablation["choice"]["kernels"].as_array().unwrap().len(), 4);
    let markdown = fs::read_to_string(folder.join("ablation.md")).unwrap();
    for part in ["| full | 18 | 2 |", "| uniform | 36 | – |", "## Training scenes", "chosen on 1 validation rooms"] {
        assert!(markdown.contains(part), "{part}\n{markdown}");
    }
    assert!(read_image(&folder.join("ablation.png"), Orientation::Upright).unwrap().width() > 900);

    // The figures are those of `eval`, which purifies features where the ablation pools what they say of the words.
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 2e-3, "{found} {expected}");
    let student = starting_with(&folder.join("students"), "learned-2-scenes-hybrid").join("student.safetensors");
    let [lifted, purified] = fixture.eval("learned", &["--student", student.to_str().unwrap(), "--iterations", "19"]);
    assert_eq!(mean_iou(&ablation, "purification", "labels the views agree on", None, None), lifted);
    near(full, purified);
    let [_, uniform] = fixture.eval("uniform", &["--affinities", "uniform", "--iterations", "37"]);
    near(mean_iou(&ablation, "baselines at the same T", "uniform", Some(36), None), uniform);
    let [_, unpurified] = fixture.eval("unpurified", &["--affinities", "uniform", "--iterations", "0"]);
    near(mean_iou(&ablation, "purification", "features as lifted, not purified", None, None), unpurified);
    let chosen = ablation["choice"]["kernels"].as_array().unwrap().iter().find(|kernel| kernel[0] == 1).unwrap();
    let [sigma, scale] = ["color_sigma", "normal_scale"].map(|name| chosen[1][name].to_string());
    let arguments_of_kernel = ["--affinities", "color-normal", "--color-sigma", &sigma, "--normal-scale", &scale];
    let [_, kernel] = fixture.eval("kernel", &[&arguments_of_kernel[..], &["--iterations", "2"]].concat());
    near(mean_iou(&ablation, "baselines at the same T", "colour and normal", Some(1), None), kernel);

    let chosen = ablation["choice"]["sharpness"].as_array().unwrap().iter().find(|chosen| chosen[0] == 18).unwrap();
    let sharpness = chosen[1].to_string();
    let arguments_of_student =
        ["--student", student.to_str().unwrap(), "--iterations", "19", "--sharpness", &sharpness];
    let [_, sharpened] = fixture.eval("sharpened", &arguments_of_student);
    near(mean_iou(&ablation, "baselines at the same T", "learned, its sharpness chosen", Some(18), Some(2)), sharpened);

    let chosen = ablation["choice"]["combined"].as_array().unwrap().iter().find(|kernel| kernel[0] == 18).unwrap();
    let [sigma, scale] = ["color_sigma", "normal_scale"].map(|name| chosen[1][name].to_string());
    let of_kernel = ["--affinities", "combined", "--color-sigma", &sigma, "--normal-scale", &scale];
    let of_student = ["--student", student.to_str().unwrap(), "--iterations", "19"];
    let [_, combined] = fixture.eval("combined", &[&of_kernel[..], &of_student].concat());
    let name = "learned, times colour and normal";
    near(mean_iou(&ablation, "baselines at the same T", name, Some(18), Some(2)), combined);

    // Nothing is done twice, what is lost is done again, and the table is the same to the byte.
    let read = || FILES.map(|name| fs::read(folder.join(name)).unwrap());
    let before = read();
    let err = succeed(&fixture.ablation(&arguments));
    assert!(!err.contains("measured in") && !err.contains("trained in") && read() == before, "{err}");
    fs::remove_file(folder.join("ablation.json")).unwrap();
    fs::remove_dir_all(starting_with(&folder.join("students"), "learned-2-scenes-macro")).unwrap();
    fs::remove_dir_all(folder.join("results/test/uniform")).unwrap();
    let damaged = folder.join("results/test/unpurified/room_0002.json");
    fs::write(&damaged, b"{\"key\":").unwrap();
    for entry in fs::read_dir(fixture.path("cache")).unwrap().take(2) {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let err = succeed(&fixture.ablation(&arguments));
    assert_eq!((err.matches("trained in").count(), err.matches("measured in").count()), (1, 3), "{err}");
    assert!(read() == before);
}

#[test]
fn what_cannot_be_studied_is_said_before_anything_is_done() {
    let fixture = Fixture::new();
    let fail = |arguments: &[&str]| {
        let output = fixture.ablation(arguments);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && !err.contains("panicked"), "{err}");
        err
    };
    let message = fail(&["--scenes", "2,3"]);
    assert!(message.contains("train has 2 rooms, but --scenes asks for 3; give smaller numbers"), "{message}");
    assert!(fail(&["--scenes", "2,1"]).contains("ascend"));
    fs::remove_dir_all(fixture.path("rooms/test")).unwrap();
    let message = fail(&["--scenes", "2"]);
    assert!(message.contains("no test in this folder; expected the folder around train, val, test"), "{message}");
}
