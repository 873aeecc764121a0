//! The demo pack: what the program labels with on a machine where nothing is installed.

use std::path::Path;
use std::process::{Command, Output};

use geopurify::cloud::PointCloud;
use geopurify::models::student::StudentConfig;
use geopurify::purify::GEOMETRY_CHANNELS;
use geopurify::weights::demo::{BuiltIn, PACK};
use geopurify::weights::store::Store;
use geopurify::weights::{Dtype, SafetensorsWriter, TensorSpec};
use serde_json::Value;

/// Most bytes of the pack, which is in the repository and in the program.
const MOST: u64 = 24_000_000;

/// The program on the host, with `home` for its store.
fn run(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command.args(arguments).env("GEOPURIFY_HOME", home).env("GEOPURIFY_DEVICE", "cpu");
    command.output().unwrap()
}

fn succeed(home: &Path, arguments: &[&str]) -> String {
    let output = run(home, arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{message}");
    message
}

#[test]
fn the_pack_is_small_whole_and_the_projects_own() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::at(home.path());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/demo");
    let bytes: u64 = folder.read_dir().unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    for built_in in PACK {
        let installed = store.verify(built_in.name).unwrap();
        assert_eq!(installed.manifest.model, built_in.model);
        assert_eq!(installed.manifest.licence.id, "Apache-2.0");
        assert!(!store.contains(built_in.name), "{} counts as installed", built_in.name);
        assert_eq!(BuiltIn::of_model(built_in.model).unwrap().name, built_in.name);
    }
    assert!(bytes < MOST, "{bytes} bytes");
    assert!(store.names().unwrap().is_empty());
}

#[test]
fn exported_weights_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (home, file) = (folder.path().join("home"), folder.path().join("file.safetensors"));
    let (store, name) = (Store::at(&home), "xdecoder-demo");
    store.export(name, &file, Dtype::F16).unwrap();
    succeed(&home, &["weights", "import", "xdecoder", file.to_str().unwrap(), "--name", "copy"]);
    let (built_in, copy) = (store.describe(name).unwrap().manifest, store.describe("copy").unwrap().manifest);
    assert_eq!((&copy.config, &copy.licence, &copy.origin), (&built_in.config, &built_in.licence, &built_in.origin));
    let mut tensors = [name, "copy"].map(|name| store.open(name, "xdecoder").unwrap().tensors.state_dict().unwrap());
    for (key, tensor) in std::mem::take(&mut tensors[1].tensors) {
        assert_eq!(tensor.data, tensors[0].tensors[&key].data, "{key}");
    }
}

#[test]
fn without_weights_the_demo_labels_a_scan_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (home, results) = (folder.path().join("home"), folder.path().join("results"));
    let scan = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/room.ply");
    let results_text = results.to_str().unwrap();
    let message = succeed(&home, &["infer", scan, "-o", results_text]);
    let said: Vec<&str> = message.lines().filter(|line| line.contains("built-in demo")).collect();
    assert!(said.len() == 1 && said[0].contains("geopurify weights list"), "{message}");
    let summary: Value = serde_json::from_slice(&std::fs::read(results.join("summary.json")).unwrap()).unwrap();
    let sources: Vec<&str> =
        summary["weights"].as_array().unwrap().iter().filter_map(|w| w["source"].as_str()).collect();
    assert_eq!(sources, ["xdecoder-demo", "student-demo", "openscene-demo"]);
    assert_eq!(summary["settings"]["method"], "ensemble");
    assert!(results.join("sheet.png").is_file());

    check_objects(&home, &results, &summary);

    // Where things are in this room; the boxes are of the labels that it was made with. Half of the sofa is taken
    // for a chair: the cameras that gave it more gave the bed less than half.
    let labelled = PointCloud::read(&results.join("labelled.ply")).unwrap();
    let classes = summary["classes"].as_array().unwrap();
    let labels = &labelled.attribute("label").unwrap().data;
    for (name, low, high, least) in [
        ("floor", [-1.0, -1.0, -1.0], [20.0, 20.0, 0.02], 0.8),
        ("bed", [8.35, 0.44, 0.17], [9.35, 2.44, 0.97], 0.6),
        ("sofa", [0.55, 0.70, 0.13], [1.24, 2.94, 0.87], 0.4),
    ] {
        let class = classes.iter().position(|class| class["name"] == name).unwrap();
        let is_in = |i: &usize| (0..3).all(|axis| (low[axis]..high[axis]).contains(&labelled.positions[*i][axis]));
        let inside: Vec<usize> = (0..labelled.len()).filter(is_in).collect();
        let right = inside.iter().filter(|&&i| labels.get_f64(i) == Some(class as f64)).count();
        assert!(right as f64 > least * inside.len() as f64, "{name}: {right} of {} points", inside.len());
    }

    // Voxels are large enough to have others around. Areas are those of the room, whatever the voxels.
    let voxel = summary["settings"]["purify"]["voxel_size"].as_f64().unwrap();
    assert!((0.03..0.04).contains(&voxel) && summary["voxel_neighbors"].as_f64().unwrap() >= 6.0, "{voxel}");
    let floor = classes.iter().find(|class| class["name"] == "floor").unwrap()["area"].as_f64().unwrap();
    assert!((floor / 24.9 - 1.0).abs() < 0.1 && summary["area_from"] == "points", "{floor}");

    // What fills a part of the room is one place. What is not there is said.
    let ask = |question: &str| -> Value {
        let output = run(&home, &["query", results_text, question, "--json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let floor = ask("floor");
    let voxels = |place: &Value| place["num_voxels"].as_u64().unwrap();
    let total: u64 = floor["places"].as_array().unwrap().iter().map(voxels).sum();
    assert!(voxels(&floor["places"][0]) * 10 > total * 8 && floor["nearest"] == true, "{floor}");
    assert_eq!((&ask("towel")["nearest"], &ask("giraffe")["known"]), (&Value::Bool(false), &Value::Bool(false)));
    // No label of the run names the lamp that hangs in the bedroom.
    let lamp = ask("lamp");
    let center: Vec<f64> = lamp["places"][0]["center"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    assert!(
        lamp["nearest"] == true && [7.94, 2.27, 1.89].iter().zip(&center).all(|(a, b)| (a - b).abs() < 0.1),
        "{lamp}"
    );

    // One word is a search: the bed is a fiftieth of the room.
    let one = folder.path().join("one");
    let message = succeed(&home, &["infer", scan, "--words", "red bed", "-o", one.to_str().unwrap(), "--views", "30"]);
    assert!(message.contains("one word: points nearer to \"background\""), "{message}");
    let summary: Value = serde_json::from_slice(&std::fs::read(one.join("summary.json")).unwrap()).unwrap();
    let class = &summary["classes"][0];
    assert!((0.005..0.05).contains(&class["share"].as_f64().unwrap()) && class["known"] == false, "{class}");

    // The results can be asked, and the demo is found again by its name.
    let unknown = "never met these words";
    assert!(!succeed(&home, &["query", results_text, "chair"]).contains(unknown));
    assert!(succeed(&home, &["query", results_text, "giraffe"]).contains(&format!("{unknown} in training")));
    let answer = String::from_utf8_lossy(&run(&home, &["query", results_text, "giraffe"]).stdout).into_owned();
    assert!(answer.starts_with("the model does not know \"giraffe\"") && answer.contains("centre (m)"), "{answer}");
}

/// The objects in `results` are as documented, as the summary and the points say, and where the bed and the floor are.
fn check_objects(home: &Path, results: &Path, summary: &Value) {
    let read = |file: &Path| -> Value { serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap() };
    let catalogue = read(&results.join("objects.json"));
    let schema = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/objects.schema.json"));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&catalogue), keys(&schema["properties"]));
    let objects = catalogue["objects"].as_array().unwrap();
    assert_eq!(summary["objects"], objects.len());
    let labelled = PointCloud::read(&results.join("labelled.ply")).unwrap();
    let instance = &labelled.attribute("instance").unwrap().data;
    let mut points = vec![0u64; objects.len()];
    for object in (0..labelled.len()).filter_map(|i| instance.get_f64(i)).filter(|object| *object >= 0.0) {
        points[object as usize] += 1;
    }
    for (id, object) in objects.iter().enumerate() {
        let bounds = &object["box"];
        assert_eq!(keys(object), keys(&schema["$defs"]["object"]["properties"]));
        assert_eq!(keys(bounds), keys(&schema["$defs"]["box"]["properties"]));
        assert_eq!((&object["id"], &object["points"]), (&Value::from(id), &Value::from(points[id])));
        let size: Vec<f64> = bounds["size"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
        assert!(size.len() == 3 && size[0] >= size[1] && size[2] >= 0.0, "{object}");
        let volume = bounds["volume"].as_f64().unwrap();
        assert!((volume - size.iter().product::<f64>()).abs() < 1e-9 && object["score"].as_f64().unwrap() <= 1.0);
    }
    assert_eq!(objects.iter().filter(|object| object["name"] == "floor").count(), 1);
    // The largest bed is the bed; its pillow is an object of its own.
    let bed = objects.iter().find(|object| object["name"] == "bed").unwrap();
    let center: Vec<f64> = bed["box"]["center"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    assert!((8.35..9.35).contains(&center[0]) && (0.44..2.44).contains(&center[1]), "{bed}");

    let boxes = results.with_extension("ply");
    let output = run(home, &["objects", results.to_str().unwrap(), "--export", boxes.to_str().unwrap()]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && table.lines().count() == objects.len() + 3, "{table}");
    let mesh = PointCloud::read(&boxes).unwrap();
    assert_eq!((mesh.len(), mesh.faces.len()), (8 * objects.len(), 12 * objects.len()));
    let output = run(home, &["objects", results.to_str().unwrap(), "--json"]);
    // Numbers may differ in their last digit, as they are read and written once more.
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names =
        |value: &Value| value["objects"].as_array().unwrap().iter().map(|o| o["name"].clone()).collect::<Vec<_>>();
    assert_eq!((names(&printed), &printed["up"]), (names(&catalogue), &catalogue["up"]));
    let output = run(home, &["objects", home.parent().unwrap().to_str().unwrap()]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no objects.json"));
}

/// A student as `train` writes it with the demo as its teachers.
fn write_student(path: &Path, input_dim: usize) {
    let keys = StudentConfig { input_dim, hidden_dim: 8, embed_dim: 4 }.keys();
    let specs: Vec<_> = keys.iter().map(|(key, shape)| TensorSpec::new(key, Dtype::F32, shape.clone())).collect();
    let mut writer = SafetensorsWriter::create(path, &specs, &Default::default()).unwrap();
    keys.iter().for_each(|(_, shape)| writer.write_f32(&vec![0.1; shape.iter().product()]).unwrap());
    writer.finish().unwrap();
}

#[test]
fn a_student_of_ones_own_finds_the_demo_and_keeps_no_other_licence() {
    let folder = tempfile::tempdir().unwrap();
    let (home, student) = (folder.path().join("home"), folder.path().join("student.safetensors"));
    let store = Store::at(&home);
    let config = store.describe("xdecoder-demo").unwrap().manifest.config;
    write_student(&student, config["dim_proj"].as_u64().unwrap() as usize + GEOMETRY_CHANNELS);
    let scan = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/room.ply");
    let results = folder.path().join("results");
    let student_text = student.to_str().unwrap();
    let arguments = ["infer", scan, "--student", student_text, "-o", results.to_str().unwrap(), "--dry-run"];
    let output = run(&home, &arguments);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && out.contains("weights: xdecoder-demo\nweights: "), "{out}");

    succeed(&home, &["weights", "import", "student", student_text]);
    let manifest = store.describe("student").unwrap().manifest;
    assert_eq!((&*manifest.licence.id, &*manifest.origin), ("unknown", "a file of the user's"));
    // The store's student finds the demo too.
    let output = run(&home, &["infer", scan, "-o", results.to_str().unwrap(), "--dry-run"]);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && out.contains("weights: xdecoder-demo\nweights: student\ndevice: "), "{out}");
    // Another width does not.
    write_student(&student, 22);
    assert_eq!(run(&home, &arguments).status.code(), Some(1));
}

#[test]
fn pictures_of_a_folder_are_labelled_by_a_preset() {
    let folder = tempfile::tempdir().unwrap();
    let (home, pictures, out) = (folder.path().join("home"), folder.path().join("in"), folder.path().join("out"));
    std::fs::create_dir(&pictures).unwrap();
    for (name, grey) in [("a.png", 200_u8), ("b.jpg", 90)] {
        let picture = image::RgbImage::from_pixel(96, 64, image::Rgb([grey, grey / 2, 40]));
        picture.save(pictures.join(name)).unwrap();
    }
    std::fs::write(pictures.join("notes.txt"), "no picture").unwrap();
    let [pictures, out_text] = [&pictures, &out].map(|path| path.to_str().unwrap());

    let arguments = ["segment", pictures, "--preset", "matterport21", "-o", out_text, "--dry-run"];
    let output = run(&home, &arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success()
            && said.contains("out/b.png\nwords: wall, floor, ")
            && said.contains(", ceiling\nweights: xdecoder-demo\ndevice: "),
        "{said}"
    );
    assert!(!out.exists());

    let output = run(&home, &["segment", pictures, "--preset", "matterport21", "-o", out_text, "--json", "-q"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["images"].as_array().unwrap().len(), 2);
    for name in ["a.png", "b.png"] {
        // The picture, the labels, and the legend.
        assert!(image::open(out.join(name)).unwrap().width() > 2 * 96, "{name}");
    }
    // The format follows the name, and another one is refused before the work.
    let one = folder.path().join("in/a.png");
    let [one, jpeg, other] = [one, folder.path().join("one.jpg"), folder.path().join("one.webp")];
    succeed(&home, &["segment", one.to_str().unwrap(), "--words", "wall", "-o", jpeg.to_str().unwrap()]);
    assert_eq!(&std::fs::read(&jpeg).unwrap()[..2], [0xff, 0xd8]);
    let output = run(&home, &["segment", one.to_str().unwrap(), "--words", "wall", "-o", other.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("end its name in .png or .jpg"), "{said}");
}

#[test]
fn labels_become_the_classification_of_a_las_file() {
    let folder = tempfile::tempdir().unwrap();
    let (home, results) = (folder.path().join("home"), folder.path().join("results"));
    let scan = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cloud/cases/05-degrees.las");
    let arguments = [
        "infer",
        scan,
        "--words",
        "floor, wall, chair",
        "--no-background",
        "--views",
        "6",
        "-o",
        results.to_str().unwrap(),
    ];
    succeed(&home, &[&arguments[..], &["--classification=floor=2,chair=19"]].concat());
    let labelled = PointCloud::read(&results.join("labelled.las")).unwrap();
    let column = |name: &str| {
        let data = &labelled.attribute(name).unwrap().data;
        (0..labelled.len()).map(|i| data.get_f64(i).unwrap()).collect::<Vec<f64>>()
    };
    // Walls are buildings: 6.
    let class_of = |label: f64| [2.0, 6.0, 19.0][label as usize];
    let (labels, classes) = (column("label"), column("classification"));
    let wrong = labels.iter().zip(&classes).find(|(label, class)| **label < 0.0 || class_of(**label) != **class);
    assert_eq!((labels.len(), wrong), (406, None));
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let scan = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cloud/cases/05-degrees.las");
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command.arg("info").args([scan; 40]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}
