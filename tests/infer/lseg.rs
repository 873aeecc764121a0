//! `infer`, `segment` and `query` with LSeg as the image model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use geopurify::images::{Orientation, read_image};
use geopurify::models::lseg::{LSeg, LSegConfig};
use geopurify::ops::conv2d::Precision;
use geopurify::ops::float_values;
use geopurify::query::saved::Saved;
use geopurify::weights::store::Store;
use geopurify::weights::{HostTensor, SafetensorsFile, StateDict, WeightsFile, read_state_dict, write_state_dict};
use serde_json::{Value, json};

use crate::common::rel_l2;
use crate::corner::corner;
use crate::labelling::{check_results, summary, text, write_corner, write_recording};
use crate::network::{json as of_output, run, write_network};
use crate::weights::{LSegFiles, tiny_lseg, weight_files};

/// A folder with a corner, an LSeg, and a home without weights.
struct Fixture {
    folder: tempfile::TempDir,
    lseg: LSegFiles,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lseg = tiny_lseg(folder.path()).unwrap();
        write_corner(&folder.path().join("corner.ply"));
        Self { folder, lseg }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Value {
        of_output(&run(&self.path("home"), arguments))
    }

    /// What a command that must fail with exit code 1 says.
    fn fail(&self, arguments: &[&str]) -> String {
        let output = run(&self.path("home"), arguments);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && !err.contains("panicked"), "{err}");
        err
    }

    /// The options of LSeg and the student.
    fn networks(&self) -> [&str; 8] {
        let (LSegFiles { weights, config }, student) = (&self.lseg, &weight_files().student);
        ["--image-model", "lseg", "--lseg", text(weights), "--lseg-config", text(config), "--student", text(student)]
    }
}

/// What stands before the keys of the text side.
const CLIP: &str = "net.clip_pretrained.";
const FEW: [&str; 5] = ["--views", "4", "--size", "160", "--json"];

#[test]
fn lseg_labels_a_scan_and_the_results_answer() {
    let fixture = Fixture::new();
    let (scan, results, views) = (fixture.path("corner.ply"), fixture.path("results"), fixture.path("views"));
    let infer =
        ["infer", text(&scan), "-o", text(&results), "--words", "wall, floor, box", "--save-views", text(&views)];
    let told = fixture.run(&[&infer[..], &fixture.networks(), &FEW].concat());
    let models: Vec<&str> =
        told["weights"].as_array().unwrap().iter().filter_map(|weights| weights["model"].as_str()).collect();
    assert_eq!(models, ["lseg", "student"]);
    assert_eq!((&told["settings"]["image_model"], &told["settings"]["method"]), (&json!("lseg"), &json!("geopurify")));
    assert!(told["stages"].as_array().unwrap().iter().any(|stage| stage["name"] == "lseg"), "{told}");
    check_results(&results, corner(0.03).len(), 3);
    // Each picture that it saw is there, with its labels.
    let seen = told["views"]["looked_at"].as_u64().unwrap();
    assert!(seen > 0);
    assert_eq!(fs::read_dir(&views).unwrap().count() as u64, 2 * seen);

    let about = Saved::read(&results.join("features.safetensors")).unwrap().about;
    assert_eq!((&*about.text, about.words.len()), ("lseg", 4));
    let answer = fixture.run(&["query", text(&results), "floor", "--json"]);
    assert_eq!((&answer["known"], answer["num_places"].as_u64().unwrap() > 0), (&json!(true), true));
    let other = tiny_lseg(&fixture.path("other")).unwrap();
    let mut bytes = fs::read(&other.weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&other.weights, bytes).unwrap();
    let given = ["query", text(&results), "floor", "--lseg", text(&other.weights)];
    let refused = fixture.fail(&[&given[..], &["--lseg-config", text(&other.config)]].concat());
    assert!(refused.contains("made with other weights") && refused.contains("--lseg"), "{refused}");

    // Installed under its name, with its configuration, it is found without a file.
    let first = fs::read(results.join("labelled.ply")).unwrap();
    let (weights, config) = (text(&fixture.lseg.weights), text(&fixture.lseg.config));
    let imported = run(&fixture.path("home"), &["weights", "import", "lseg", weights, "--config", config]);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let networks = ["--image-model", "lseg", "--student", text(&weight_files().student)];
    fixture.run(&[&infer[..], &networks, &FEW].concat());
    assert!(first == fs::read(results.join("labelled.ply")).unwrap());
}

#[test]
fn a_recording_goes_through_lseg_as_published_too() {
    let fixture = Fixture::new();
    let (recording, results) = (fixture.path("recording"), fixture.path("results"));
    write_recording(&recording, 2);
    let given = ["infer", "--rgbd", text(&recording), "-o", text(&results), "--preset", "scannet20"];
    let told = fixture.run(&[&given[..], &fixture.networks(), &["--compat", "reference", "--json"]].concat());
    // The background competes with the classes of a benchmark too, unless it is taken out.
    assert_eq!(told["settings"]["background"], json!(["background"]));
    assert_eq!(told["views"]["looked_at"], 1);
    assert_eq!(Saved::read(&results.join("features.safetensors")).unwrap().num_channels, 48);
    let dry = [&given[..], &fixture.networks(), &["--no-background", "--dry-run"]].concat();
    let said = run(&fixture.path("home"), &dry);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("lseg.safetensors") && !said.contains("background:"), "{said}");
    assert_eq!(summary(&results)["settings"]["compat"], "reference");
}

#[test]
fn the_pixels_of_a_picture_get_labels_and_features() {
    let fixture = Fixture::new();
    write_recording(&fixture.path("recording"), 1);
    let (picture, output, features) =
        (fixture.path("recording/color/0.jpg"), fixture.path("labels.png"), fixture.path("features.safetensors"));
    let given = ["segment", text(&picture), "-o", text(&output), "--features", text(&features), "--size", "160"];
    let told = fixture.run(&[&given[..], &fixture.networks()[..6], &["--words", "wall, floor", "--json"]].concat());
    let labelled = read_image(&output, Orientation::Upright).unwrap();
    assert!(labelled.width() >= 320 && labelled.height() >= 240);
    assert!(told.to_string().contains("wall"), "{told}");

    // The features are those that the library gives.
    let file = SafetensorsFile::open(&features).unwrap();
    let saved = file.tensor("features").unwrap();
    assert_eq!((saved.shape, file.tensor("text_embed").unwrap().shape), (&[120, 160, 48][..], &[3, 48][..]));
    let config: LSegConfig = serde_json::from_slice(&fs::read(&fixture.lseg.config).unwrap()).unwrap();
    let device = burn::tensor::Device::flex();
    let mut source = WeightsFile::open(&fixture.lseg.weights).unwrap();
    let (model, _) = LSeg::load(&mut source, config, Precision::F32, &device).unwrap();
    let whole = read_image(&picture, Orientation::Upright).unwrap();
    let seen = geopurify::images::resize::resize_bicubic(&whole, 160, 120).unwrap();
    let values: Vec<f32> = seen.pixels().as_flattened().iter().map(|&value| f32::from(value)).collect();
    let expected = float_values(model.features_on(&values, [120, 160], [120, 160]).unwrap()).unwrap();
    let found = rel_l2(&saved.to_f32().unwrap(), &expected);
    assert!(found < 1e-3, "{found}");
}

#[test]
fn a_3d_network_of_the_same_space_joins_lseg_and_others_do_not() {
    let fixture = Fixture::new();
    let (scan, results) = (fixture.path("corner.ply"), fixture.path("results"));
    let [same, other] = [("same", 48), ("other", 32)].map(|(name, width)| {
        let path = fixture.path(name).with_extension("safetensors");
        write_network(&path, width);
        path
    });
    let with = |network: &Path| {
        let given = ["infer", text(&scan), "-o", text(&results), "--words", "wall, floor", "--method", "ensemble"];
        let all = [&given[..], &fixture.networks(), &["--openscene", text(network)], &FEW].concat();
        run(&fixture.path("home"), &all)
    };
    let told = of_output(&with(&same));
    let models: Vec<&str> =
        told["weights"].as_array().unwrap().iter().filter_map(|weights| weights["model"].as_str()).collect();
    assert_eq!(models, ["lseg", "student", "openscene"]);
    assert!(told["views"]["looked_at"].as_u64().unwrap() > 0);
    let refused = |network: &Path| {
        let output = with(network);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let error = refused(&other);
    assert!(error.contains("features of 32 channels; those of the words have 48"), "{error}");
    let error = refused(Path::new("openscene-demo"));
    let expected = "the ensemble with lseg needs a 3D network in the space of CLIP; this one is in the space of \
                    X-Decoder's words";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_has_no_use_or_is_missing_is_said_in_a_sentence() {
    let fixture = Fixture::new();
    let (scan, results) = (fixture.path("corner.ply"), fixture.path("results"));
    let infer = ["infer", text(&scan), "-o", text(&results), "--words", "wall, floor"];
    let error = fixture.fail(&[&infer[..], &["--image-model", "lseg"]].concat());
    assert!(error.contains("lseg") && error.contains("geopurify weights import lseg demo_e200.ckpt"), "{error}");
    let error = fixture.fail(&[&infer[..], &fixture.networks(), &["--method", "openscene"]].concat());
    assert!(error.contains("a 3D network without views looks at no pictures, so there is no use for lseg"), "{error}");
    let xdecoder = text(&weight_files().xdecoder);
    let error = fixture.fail(&[&infer[..], &fixture.networks(), &["--xdecoder", xdecoder]].concat());
    assert!(error.contains("--xdecoder has no use: lseg sees the pictures"), "{error}");
    let mut narrow = fixture.networks();
    narrow[7] = "student-demo";
    let error = fixture.fail(&[&infer[..], &narrow].concat());
    assert!(error.contains("the features of lseg have 48"), "{error}");
    let (weights, student) = (text(&fixture.lseg.weights), text(&weight_files().student));
    let error = fixture.fail(&[&infer[..], &["--lseg", weights, "--student", student]].concat());
    assert!(error.contains("give the model's configuration with --lseg-config FILE.json"), "{error}");
    let unknown = run(&fixture.path("home"), &[&infer[..], &["--image-model", "dino"]].concat());
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("'dino' is no image model; expected xdecoder or lseg"));
}

#[test]
fn an_lseg_without_words_takes_those_of_clip() {
    let fixture = Fixture::new();
    let whole = read_state_dict(&fixture.lseg.weights).unwrap();
    let (of_clip, without): (BTreeMap<_, _>, BTreeMap<_, _>) =
        whole.tensors.clone().into_iter().partition(|(key, _)| key.starts_with(CLIP));
    let of_clip = of_clip.into_iter().map(|(key, tensor)| (key[CLIP.len()..].to_owned(), tensor)).collect();
    let write = |name: &str, tensors: BTreeMap<String, HostTensor>| {
        let path = fixture.path(name);
        write_state_dict(&path, &StateDict { tensors, ..StateDict::default() }, &BTreeMap::new()).unwrap();
        path
    };
    let (lseg, clip) = (write("without.safetensors", without), write("clip.safetensors", of_clip));
    let import = ["weights", "import", "lseg", text(&lseg), "--config", text(&fixture.lseg.config)];
    let error = fixture.fail(&import);
    assert!(error.contains("lacks CLIP's text side") && error.contains("--clip ViT-B-32.pt"), "{error}");
    let (scan, results) = (fixture.path("corner.ply"), fixture.path("results"));
    let infer = ["infer", text(&scan), "-o", text(&results), "--words", "wall, floor", "--lseg", text(&lseg)];
    let error = fixture.fail(&[&infer[..], &["--student", text(&weight_files().student)]].concat());
    assert!(error.contains("this LSeg lacks CLIP's text side"), "{error}");
    let student = text(&weight_files().student);
    let error = fixture.fail(&["weights", "import", "student", student, "--clip", text(&clip)]);
    assert!(error.contains("student has no use for --clip"), "{error}");

    let imported = run(&fixture.path("home"), &[&import[..], &["--clip", text(&clip)]].concat());
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    assert!(String::from_utf8_lossy(&imported.stdout).contains("the text side is that of"));
    let stored = Store::at(fixture.path("home")).open("lseg", "lseg").unwrap().tensors.state_dict().unwrap();
    assert_eq!(stored.tensors.len(), whole.tensors.len());
    for (key, tensor) in &whole.tensors {
        assert_eq!(stored.tensors[key].data, tensor.data, "{key}");
    }
}
