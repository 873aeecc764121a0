//! The binary as a user runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use geopurify::gpu::adapters;
use geopurify::weights::{Dtype, SafetensorsFile, SafetensorsWriter, TensorSpec};
use serde_json::Value;

use crate::common::{Random, rel_l2};
use crate::program::{failure, geopurify, stdout};

/// A scan of 900 points in a corner, two of them without a position, with its features.
struct Inputs {
    dir: tempfile::TempDir,
}

const NUM_POINTS: usize = 900;

impl Inputs {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random(31);
        let mut ply = format!(
            "ply\nformat ascii 1.0\nelement vertex {NUM_POINTS}\nproperty float x\nproperty float y\n\
             property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
        );
        for i in 0..NUM_POINTS {
            let (a, b) = (random.signed(), random.signed());
            let [x, y, z] = [[a, b, 0.0], [a, 0.0, b], [0.0, a, b]][i % 3];
            match i {
                5 | 77 => ply.push_str("nan nan nan 0 0 0\n"),
                _ => ply.push_str(&format!("{x} {y} {z} {} 20 30\n", i % 256)),
            }
        }
        std::fs::write(dir.path().join("scan.ply"), ply).unwrap();
        let inputs = Self { dir };
        inputs.features("features.safetensors", NUM_POINTS, 16);
        inputs
    }

    fn features(&self, name: &str, rows: usize, channels: usize) -> PathBuf {
        let path = self.dir.path().join(name);
        let specs = [TensorSpec::new("features", Dtype::F32, [rows, channels])];
        let mut writer = SafetensorsWriter::create(&path, &specs, &Default::default()).unwrap();
        writer.write_f32(&Random(32).floats(rows * channels)).unwrap();
        writer.finish().unwrap();
        path
    }

    /// Features by cell, as `encode` writes them.
    fn cells(&self, name: &str) {
        let specs = [
            TensorSpec::new("features", Dtype::F32, [2, 16]),
            TensorSpec::new("cell_from_point", Dtype::I32, [NUM_POINTS]),
        ];
        let mut writer = SafetensorsWriter::create(self.dir.path().join(name), &specs, &Default::default()).unwrap();
        writer.write_f32(&Random(33).floats(32)).unwrap();
        writer.write_i32(&[0; NUM_POINTS]).unwrap();
        writer.finish().unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn arguments(&self) -> Vec<String> {
        let student = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/geopurify/student_tiny_module.pth");
        let words = ["purify", "--device", "cpu", "--student"].map(str::to_owned);
        let files = [self.path("scan.ply"), "--features".into(), self.path("features.safetensors")];
        let output = ["-o".to_owned(), self.path("out.safetensors")];
        words.into_iter().chain([student.to_str().unwrap().to_owned()]).chain(files).chain(output).collect()
    }

    /// `arguments` with one value replaced.
    fn with(&self, from: &str, to: &str) -> Vec<String> {
        let found: Vec<String> =
            self.arguments().iter().map(|a| if a.ends_with(from) { to.to_owned() } else { a.clone() }).collect();
        assert_ne!(found, self.arguments());
        found
    }
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn devices_lists_the_host_and_says_what_auto_takes() {
    let text = stdout(&geopurify(&["devices"]));
    assert!(text.contains("cpu: the host") && text.contains("--device auto takes "), "{text}");
    let json: Value = serde_json::from_str(&stdout(&geopurify(&["devices", "--json"]))).unwrap();
    assert_eq!(json["adapters"].as_array().unwrap().len(), adapters().len());
    assert!(json["auto"]["why"].is_string());
    for adapter in json["adapters"].as_array().unwrap() {
        for key in ["name", "backend", "driver", "max_binding_bytes", "subgroups", "f16", "timestamps"] {
            assert!(adapter.get(key).is_some(), "{key} in {adapter}");
        }
    }
}

#[test]
fn info_describes_a_scan_and_fails_on_what_is_none() {
    let inputs = Inputs::new();
    let scan = inputs.path("scan.ply");
    let text = stdout(&geopurify(&["info", &scan]));
    assert!(text.contains("900") && text.contains("PLY, ascii"), "{text}");
    let json: Value = serde_json::from_str(&stdout(&geopurify(&["info", "--json", &scan]))).unwrap();
    assert_eq!(json["points"], NUM_POINTS);
    let message = failure(&["info", &inputs.path("none.ply"), &scan]);
    assert!(message.contains("none.ply"), "{message}");
}

#[test]
fn purify_gives_the_same_on_the_host_and_on_every_adapter() {
    let inputs = Inputs::new();
    let mut arguments = inputs.arguments();
    arguments.push("--json".to_owned());
    let report: Value = serde_json::from_str(&stdout(&geopurify(&words(&arguments)))).unwrap();
    let report = &report["report"];
    assert_eq!(report["num_points"], NUM_POINTS - 2);
    let stages: Vec<&str> = report["stages"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(stages, ["voxel grid", "voxel means", "student", "neighbours", "affinity", "pooling"]);
    assert!(report["notes"].to_string().contains("2 points are not finite"), "{report}");

    let read = || {
        let file = SafetensorsFile::open(inputs.dir.path().join("out.safetensors")).unwrap();
        let features = file.tensor("features").unwrap();
        let (shape, values) = (features.shape.to_vec(), features.to_f32().unwrap());
        let coords = file.tensor("voxel_coords").unwrap().to_i64().unwrap();
        (shape, values, coords, file.tensor("voxel_from_point").unwrap().to_i64().unwrap())
    };
    let (shape, values, coords, voxel_from_point) = read();
    let num_voxels = report["num_voxels"].as_u64().unwrap() as usize;
    assert_eq!((shape, coords.len()), (vec![num_voxels, 16], 3 * num_voxels));
    assert_eq!(voxel_from_point.len(), NUM_POINTS);
    for (point, &voxel) in voxel_from_point.iter().enumerate() {
        assert_eq!(voxel == -1, [5, 77].contains(&point));
        assert!(voxel < num_voxels as i64);
    }

    for adapter in adapters() {
        let mut arguments = inputs.with("cpu", &adapter.index.to_string());
        arguments.push("-v".to_owned());
        let table = stdout(&geopurify(&words(&arguments)));
        assert!(table.contains("pooling") && table.contains("whole run"), "{table}");
        let found = read();
        assert_eq!((&found.2, &found.3), (&coords, &voxel_from_point), "{}", adapter.name);
        let difference = rel_l2(&found.1, &values);
        assert!(difference < 1e-4, "{}: {difference:e}", adapter.name);
    }
}

#[test]
fn the_student_comes_from_the_store() {
    let inputs = Inputs::new();
    let home = inputs.path("home");
    let arguments = inputs.arguments();
    let at = arguments.iter().position(|argument| argument == "--student").unwrap();
    let file = arguments[at + 1].clone();
    let without = [&arguments[..at], &arguments[at + 2..]].concat();
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_geopurify")).args(arguments).env("GEOPURIFY_HOME", &home).output().unwrap()
    };
    let output = run(&words(&without));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    for expected in ["built-in demo", "16 channels", "geopurify weights import student geopurify.pth"] {
        assert!(message.contains(expected), "{message}");
    }

    stdout(&run(&["weights", "import", "student", &file]));
    stdout(&run(&words(&without)));
    let stored = std::fs::read(inputs.path("out.safetensors")).unwrap();
    stdout(&run(&words(&arguments)));
    assert!(stored == std::fs::read(inputs.path("out.safetensors")).unwrap(), "the store's student gives the same");
}

#[test]
fn faults_are_named_and_leave_the_old_output_alone() {
    let inputs = Inputs::new();
    let output = inputs.path("out.safetensors");
    std::fs::write(&output, "an older result").unwrap();
    inputs.features("short.safetensors", 899, 16);
    inputs.features("narrow.safetensors", NUM_POINTS, 9);
    inputs.cells("cells.safetensors");
    std::fs::write(inputs.path("text.pth"), "not a checkpoint").unwrap();
    std::fs::write(inputs.path("cut.ply"), "ply\nformat ascii 1.0\nelement vertex 1000000000000\n").unwrap();
    let cases = [
        ("scan.ply", inputs.path("none.ply"), "none.ply"),
        ("scan.ply", inputs.path("cut.ply"), "cut.ply"),
        ("features.safetensors", inputs.path("short.safetensors"), "one row per point"),
        ("features.safetensors", inputs.path("cells.safetensors"), "encode --per-point"),
        ("features.safetensors", inputs.path("narrow.safetensors"), "9 channels"),
        ("features.safetensors", inputs.path("scan.ply"), "scan.ply"),
        ("module.pth", inputs.path("text.pth"), "text.pth"),
        ("module.pth", inputs.path("features.safetensors"), "input_layer.0.kernel"),
        ("cpu", "99".to_owned(), "99"),
    ];
    for (from, to, expected) in cases {
        let message = failure(&words(&inputs.with(from, &to)));
        assert!(message.contains(expected), "{from} → {to}: {message}");
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "an older result", "{from} → {to}");
    }
    let message = failure(&words(&inputs.with("out.safetensors", &inputs.path("no/such/folder/out.safetensors"))));
    assert!(message.contains("no/such/folder"), "{message}");
    let left: Vec<_> = std::fs::read_dir(inputs.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("tmp")), "{left:?}");
    assert_eq!(geopurify(&["purify"]).status.code(), Some(2), "missing arguments");
}
