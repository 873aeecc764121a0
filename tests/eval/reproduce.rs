//! `reproduce` as a user runs it, on small labelled corners of a room, with small generated weights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use geopurify::images::{Orientation, read_image};
use serde_json::{Value, json};

use crate::labelled_corner::{BOX, TABLE, write_scene};
use crate::weights::{LSegFiles, WeightFiles, tiny_lseg, tiny_weights};

const STUDENT: &str = "hidden_dim = 16\nembed_dim = 8\nepochs = 2\nanchors = 128\nwarmup_epochs = 1\n";
const NETWORK: &str = "
cells = 400

[training]
steps = 6
warmup = 2
validate_every = 6
checkpoint_every = 2
export_f16 = false

[model]
in_channels = 11
init_dim = 8
planes = [8, 8, 8, 8, 8, 8, 8, 8]
layers = [1, 1, 1, 1, 1, 1, 1, 1]
heads = [[\"final\", 48]]
text = \"xdecoder\"
input = \"shape_and_color\"
edge_mm = 100
";

struct Fixture {
    folder: tempfile::TempDir,
    weights: WeightFiles,
}

impl Fixture {
    /// Two data sets with scenes to learn from and to measure, the settings, the networks.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let weights = tiny_weights(folder.path()).unwrap();
        for (place, scene, object, size) in [
            ("scannet/train", "scene0001_00", TABLE, 1.0),
            ("scannet/train", "scene0002_00", BOX, 1.1),
            ("scannet/test", "scene0003_00", TABLE, 0.9),
            ("scannet/test", "scene0004_00", BOX, 1.05),
            ("matterport/train", "room_0001", TABLE, 1.2),
            ("matterport/test", "room_0001", TABLE, 0.95),
        ] {
            write_scene(&folder.path().join(place).join(scene), &format!("{scene}_vh_clean_2"), object, size);
        }
        fs::write(folder.path().join("student.toml"), STUDENT).unwrap();
        fs::write(folder.path().join("network.toml"), NETWORK).unwrap();
        Self { folder, weights }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `reproduce` of `table` into the folder `report`, from ScanNet alone unless `arguments` have more.
    fn command(&self, table: &str, report: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
        // Paths as somebody gives them who stands in this folder.
        command.current_dir(self.folder.path()).args(["reproduce", table, "-o", report, "--scannet", "scannet"]);
        command.args(["--config", "student.toml", "--network-config", "network.toml", "--cache", "cache"]);
        command.args(["--usual-scenes", "1", "--scenes", "1,2,3", "--iterations", "1", "--max-memory", "2048"]);
        command.args(["--views", "3", "--size", "160"]);
        command.arg("--xdecoder").arg(&self.weights.xdecoder).arg("--xdecoder-config").arg(&self.weights.config);
        command.arg("--teacher").arg(&self.weights.sonata).arg("--teacher-config").arg(&self.weights.sonata_config);
        command.arg("--student").arg(&self.weights.student);
        command.args(arguments).env("GEOPURIFY_DEVICE", "cpu").env("GEOPURIFY_HOME", self.path("home"));
        command
    }

    fn succeed(&self, table: &str, report: &str, arguments: &[&str]) -> (String, String) {
        let (out, err) = texts(&self.command(table, report, arguments).output().unwrap());
        assert!(out.contains(&format!("{table}.png")), "{out}{err}");
        (out, err)
    }

    fn files(&self, table: &str, report: &str) -> [Vec<u8>; 3] {
        ["json", "md", "png"].map(|end| fs::read(self.path(report).join(format!("{table}.{end}"))).unwrap())
    }

    fn report(&self, table: &str, report: &str) -> Value {
        serde_json::from_slice(&self.files(table, report)[0]).unwrap()
    }
}

fn texts(output: &Output) -> (String, String) {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).into()
}

/// The row of this name in a part of the table.
fn row<'a>(report: &'a Value, group: &str, name: &str) -> &'a Value {
    let rows = report["rows"].as_array().unwrap();
    let found: Vec<&Value> =
        rows.iter().filter(|row| row["group"] == group && row["name"].as_str().unwrap().starts_with(name)).collect();
    assert_eq!(found.len(), 1, "{group}, {name}");
    found[0]
}

fn lacks(row: &Value) -> String {
    assert!(row["figures"].is_null(), "{row}");
    row["lacks"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect::<Vec<_>>().join("; ")
}

fn mean_iou(row: &Value) -> f64 {
    row["figures"]["mean_iou"].as_f64().unwrap_or_else(|| panic!("{row}"))
}

/// The folders of finished steps.
fn finished(report: &Path) -> usize {
    let folders = ["trainings", "evaluations"].map(|kind| fs::read_dir(report.join(kind)));
    folders
        .into_iter()
        .flatten()
        .flatten()
        .filter(|step| step.as_ref().unwrap().path().join("done.json").is_file())
        .count()
}

#[test]
fn a_table_is_whole_and_the_same_after_a_kill() {
    let fixture = Fixture::new();
    let both = ["--matterport", "matterport"];
    let (out, err) = fixture.succeed("main", "whole", &both);
    assert!(out.contains("55.1") && out.contains("40.2"), "{out}");
    let report = fixture.report("main", "whole");
    assert_eq!((report["rows"].as_array().unwrap().len(), &report["made_rooms"]), (14, &json!(false)));
    for (data, num_scenes, iou) in [("ScanNet", 2, 55.1), ("Matterport3D", 1, 40.2)] {
        let group = format!("Measured on {data}");
        for (name, published) in
            [("No purification", None), ("GeoPurify, the student", Some(iou)), ("GeoPurify, a student", Some(iou))]
        {
            let row = row(&report, &group, name);
            assert!((0.0..=1.0).contains(&mean_iou(row)), "{row}");
            assert_eq!(row["num_scenes"], num_scenes);
            match published {
                Some(iou) => assert_eq!(row["published"]["mean_iou"], iou),
                None => assert_eq!(row["published"].is_null(), data == "Matterport3D"),
            }
        }
        let network = row(&report, &group, "3D network of this kind");
        assert!(mean_iou(network) >= 0.0 && network["trained_on"].as_array().unwrap().len() == 1, "{network}");
        // What is not at hand says how to get it.
        let openscene = lacks(row(&report, &group, "OpenScene"));
        let file = if num_scenes == 2 { "scannet_openseg.pth.tar" } else { "matterport_openseg.pth.tar" };
        assert!(openscene.contains(&format!("weights import openscene {file}")), "{openscene}");
        assert!(lacks(row(&report, &group, "CUA-O3D")).ends_with("import openscene FILE --name cua-o3d"));
        assert!(lacks(row(&report, &group, "OV3D")).contains("no published figure is at hand"));
    }
    let markdown = String::from_utf8(fixture.files("main", "whole")[1].clone()).unwrap();
    for part in ["## Measured on ScanNet", "| 5 | No purification |", "| 50.2 | 68.1 |", "- Rows 4, 11: no public code"]
    {
        assert!(markdown.contains(part), "{part}\n{markdown}");
    }
    assert!(!markdown.contains("made rooms"));
    let picture = fixture.path("whole/main.png");
    assert!(read_image(&picture, Orientation::Upright).unwrap().height() > 700);

    // Killed after its third step, and run again.
    let mut killed =
        fixture.command("main", "killed", &both).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while finished(&fixture.path("killed")) < 3 && killed.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(300));
        std::thread::sleep(Duration::from_millis(20));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!fixture.path("killed/main.json").exists());
    fixture.succeed("main", "killed", &both);
    assert!(fixture.files("main", "killed") == fixture.files("main", "whole"));

    // Nothing is done twice; what is lost is done again.
    assert!(err.contains("student-scannet-1-scenes-hybrid: training"), "{err}");
    let (_, err) = fixture.succeed("main", "whole", &both);
    assert!(!err.contains("training") && !err.contains("1/2"), "{err}");
    let lost = fixture.path("whole/evaluations/scannet-by-lifted");
    fs::remove_file(lost.join("done.json")).unwrap();
    fs::remove_file(lost.join("scenes/scene0004_00.json")).unwrap();
    fs::remove_file(fixture.path("whole/main.json")).unwrap();
    let (_, err) = fixture.succeed("main", "whole", &both);
    assert!(err.contains("1/2 scene0003_00: done before") && err.contains("2/2 scene0004_00: "), "{err}");
    assert!(fixture.files("main", "killed") == fixture.files("main", "whole"));

    // Another table takes the steps that it shares.
    let (_, err) = fixture.succeed("transfer", "whole", &both);
    assert!(!err.contains("training"), "{err}");
    let transfer = fixture.report("transfer", "whole");
    let own = row(&transfer, "Measured on ScanNet", "GeoPurify, trained on ScanNet");
    assert_eq!(own["figures"], row(&report, "Measured on ScanNet", "GeoPurify, a student")["figures"]);
    let other = row(&transfer, "Measured on ScanNet", "GeoPurify, trained on Matterport3D");
    assert!(mean_iou(other) >= 0.0 && other["published"].is_null(), "{other}");
    assert_eq!(other["trained_on"], json!(["room_0001_vh_clean_2"]));

    // Settings are those of the first run.
    let output = fixture.command("main", "whole", &["--epochs", "1"]).output().unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("training is {\"epochs\":2") && err.contains("give the settings of the first run"), "{err}");
}

#[test]
fn the_ablation_and_the_image_models_are_measured_and_the_rest_says_what_it_lacks() {
    let fixture = Fixture::new();
    let output = fixture.command("ablation", "report", &["--dry-run", "--test-scenes", "1"]).output().unwrap();
    let (out, err) = texts(&output);
    let plan =
        ["would do: student-scannet-2-scenes-hybrid\n", "would do: scannet-by-student-scannet-1-scenes-macro-t18\n"];
    assert!(plan.iter().all(|line| out.contains(line)), "{out}{err}");
    assert!(out.contains("lacks: scannet-by-student-scannet-3-scenes-hybrid-t18: 3 scenes of ScanNet"), "{out}");
    assert!(!fixture.path("report").exists());

    fixture.succeed("ablation", "report", &["--test-scenes", "1"]);
    let ablation = fixture.report("ablation", "report");
    assert_eq!(ablation["rows"].as_array().unwrap().len(), 2 + 1 + 2 + 3);
    let one = row(&ablation, "Iterations, on ScanNet", "T = 1");
    assert_eq!((&one["published"]["mean_iou"], &one["num_scenes"]), (&json!(52.3), &json!(1)));
    let full = &row(&ablation, "Purification, on ScanNet", "GeoPurify")["figures"];
    assert_eq!(full, &row(&ablation, "Negatives, on ScanNet", "hybrid")["figures"]);
    assert_eq!(full, &row(&ablation, "Training scenes, on ScanNet", "1 scene")["figures"]);
    assert!(mean_iou(row(&ablation, "Negatives, on ScanNet", "macro")) >= 0.0);
    let two = row(&ablation, "Training scenes, on ScanNet", "2 scenes");
    assert_eq!(two["trained_on"].as_array().unwrap().len(), 2);
    assert!(lacks(row(&ablation, "Training scenes, on ScanNet", "3 scenes")).contains("to learn from: there are 2"));

    let arguments = ["--test-scenes", "1"];
    fixture.succeed("backbone", "report", &arguments);
    let backbone = fixture.report("backbone", "report");
    let lseg = lacks(row(&backbone, "Measured on ScanNet", "LSeg and GeoPurify"));
    assert!(lseg.contains("weights import lseg demo_e200.ckpt"), "{lseg}");
    assert!(lacks(row(&backbone, "Measured on Matterport3D", "X-Decoder and")).contains("--matterport"));

    // With the weights, the rows fill in.
    let LSegFiles { weights, config } = tiny_lseg(fixture.folder.path()).unwrap();
    let [weights, config] = [&weights, &config].map(|path| path.to_str().unwrap());
    fixture.succeed("backbone", "report", &[&arguments[..], &["--lseg", weights, "--lseg-config", config]].concat());
    let backbone = fixture.report("backbone", "report");
    for (name, published) in [("LSeg and GeoPurify", 51.2), ("X-Decoder and", 55.1)] {
        let row = row(&backbone, "Measured on ScanNet", name);
        assert!(mean_iou(row) >= 0.0 && row["published"]["mean_iou"] == published, "{row}");
    }
}
