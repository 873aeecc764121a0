//! `eval` as a user runs it, on small labelled corners of a room, with small generated weights.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use geopurify::cloud::{Field, PointCloud};
use geopurify::images::{Orientation, read_image};
use geopurify::labels::Preset;
use serde_json::Value;

use crate::corner::corner;
use crate::labelled_corner::{BOX, FLOOR, Made, SHOWER_CURTAIN, STEP, TABLE, WALL, write_recording, write_scene};
use crate::prepared::write_prepared;
use crate::weights::weight_files;

fn run(arguments: &[&str]) -> Output {
    let files = weight_files();
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command.args(arguments).env("GEOPURIFY_DEVICE", "cpu");
    command.arg("--xdecoder").arg(&files.xdecoder).arg("--xdecoder-config").arg(&files.config);
    command.arg("--student").arg(&files.student).args(["--views", "4", "--size", "320", "--iterations", "1"]);
    command.output().unwrap()
}

fn succeed(arguments: &[&str]) -> (String, String) {
    let output = run(arguments);
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{err}");
    (out, err)
}

/// What a run that must fail with exit code 1 says.
fn fail(arguments: &[&str]) -> String {
    let output = run(arguments);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && !err.contains("panicked"), "{err}");
    err
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Two scenes as ScanNet has them, and one pair of files.
fn write_scenes(root: &Path) -> [Made; 3] {
    let scannet = |split: &str, scene: &str, object, size| {
        write_scene(&root.join(split).join(scene), &format!("{scene}_vh_clean_2"), object, size)
    };
    [
        scannet("val", "scene0001_00", TABLE, 1.0),
        scannet("val", "scene0002_00", BOX, 1.1),
        write_scene(&root.join("pairs"), "room", TABLE, 0.9),
    ]
}

const NAMES: [&str; 3] = ["scene0001_00", "scene0002_00", "room"];

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn matrix(value: &Value) -> Vec<Vec<u64>> {
    serde_json::from_value(value["rows"].clone()).unwrap()
}

/// The files of a report that are the same however often it was stopped, by name.
fn comparable(report: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in [report.to_path_buf(), report.join("worst")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                files.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Counts what `infer` says of a scene, without any of the evaluation's code.
fn counted_by_hand(made: &Made, folder: &Path) -> Vec<Vec<u64>> {
    let results = folder.join("infer");
    let words = Preset::SCANNET20.labels[..19].join(", ");
    succeed(&["infer", text(&made.scan), "--words", &words, "--no-background", "-o", text(&results)]);
    let labelled = PointCloud::read(&results.join("labelled.ply")).unwrap();
    let predicted = &labelled.attribute("label").unwrap().data;
    let mut rows = vec![vec![0; 20]; 19];
    for (i, label) in made.labels.iter().enumerate() {
        let class = match *label {
            WALL => 0,
            FLOOR => 1,
            TABLE => 6,
            SHOWER_CURTAIN => 15,
            _ => continue,
        };
        let prediction = predicted.get_f64(i).unwrap();
        rows[class][if prediction < 0.0 { 19 } else { prediction as usize }] += 1;
    }
    rows
}

#[test]
fn scenes_are_counted_and_a_report_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (data, report) = (folder.path().join("data"), folder.path().join("report"));
    let made = write_scenes(&data);
    let (out, err) = succeed(&["eval", text(&data), "-o", text(&report)]);
    assert!(out.contains("all purified") && out.contains("report.json"), "{out}");
    assert!(err.contains("3/3 scene0002_00: mIoU"), "{err}");
    let whole = json(&report.join("report.json"));
    assert_eq!((whole["num_scenes"].as_u64(), whole["failed"].as_array().unwrap().len()), (Some(3), 0));

    let by_hand = counted_by_hand(&made[0], folder.path());
    let scene = json(&report.join("scenes/scene0001_00.json"));
    assert_eq!(matrix(&scene["purified"]), by_hand);
    let several = (0..20).filter(|&class| by_hand.iter().any(|row| row[class] > 0)).count();
    assert!(several > 3 && by_hand[15][15] > 0, "{by_hand:?}");
    let unlabelled = made[0].labels.iter().filter(|&&label| label == 0).count();
    assert_eq!(scene["purified"]["ignored"].as_u64(), Some(unlabelled as u64));
    assert_ne!(scene["lifted"], scene["purified"]);

    // The report's matrices are the sums of the scenes', and its figures follow from them.
    for stage in ["lifted", "purified"] {
        let mut sum = vec![vec![0; 20]; 19];
        for name in NAMES {
            let rows = matrix(&json(&report.join(format!("scenes/{name}.json")))[stage]);
            sum.iter_mut().flatten().zip(rows.iter().flatten()).for_each(|(sum, count)| *sum += count);
        }
        assert_eq!(matrix(&whole[stage]["confusion"]), sum);
        let column = |class: usize| sum.iter().map(|row| row[class]).sum::<u64>();
        let iou = |class: usize| {
            let (row, hit) = (sum[class].iter().sum::<u64>(), sum[class][class]);
            hit as f64 / ((row + column(class) - hit) as f64 + 1e-10)
        };
        let mean = |classes: &[usize]| classes.iter().map(|&class| iou(class)).sum::<f64>() / classes.len() as f64;
        let novel = [9, 10, 11, 12, 14, 15, 16, 17, 18];
        let base: Vec<usize> = (0..19).filter(|class| !novel.contains(class)).collect();
        let groups = whole[stage]["groups"].as_array().unwrap();
        for (group, classes) in groups.iter().zip([(0..19).collect(), base, novel.to_vec()]) {
            let found = group["absent_zero"]["mean_iou"].as_f64().unwrap();
            assert!((found - mean(&classes)).abs() < 1e-12, "{stage}: {group}");
            let foreground: Vec<usize> = classes.into_iter().filter(|&class| class > 1).collect();
            let found = group["foreground"]["absent_zero"]["mean_iou"].as_f64().unwrap();
            assert!((found - mean(&foreground)).abs() < 1e-12, "{stage}: {group}");
        }
        let hits: u64 = (0..19).map(|class| sum[class][class]).sum();
        let total: u64 = sum.iter().flatten().sum();
        let found = groups[0]["absent_zero"]["all_accuracy"].as_f64().unwrap();
        assert!((found - hits as f64 / total as f64).abs() < 1e-9);
    }
    let markdown = fs::read_to_string(report.join("report.md")).unwrap();
    for part in
        ["| all (19) | purified |", "| novel (9) | gain |", "| wall |", "## Worst scenes", "SHA-256", "scannet20"]
    {
        assert!(markdown.contains(part), "{part}\n{markdown}");
    }
    for file in ["confusion.png", "scenes/room.png", "worst/room.png"] {
        assert!(read_image(&report.join(file), Orientation::Upright).unwrap().width() > 900, "{file}");
    }

    // What is lost is done again, what is there is not, and the report is the same.
    let before = comparable(&report);
    fs::remove_file(report.join("scenes/room.json")).unwrap();
    fs::remove_file(report.join("report.json")).unwrap();
    let (_, err) = succeed(&["eval", text(&data), "-o", text(&report)]);
    assert_eq!(err.matches("done before").count(), 2, "{err}");
    assert!(comparable(&report) == before);
    // A damaged result counts as none; that of another scan's content as well.
    fs::write(report.join("scenes/room.json"), b"{\"key\":").unwrap();
    write_scene(&data.join("val/scene0002_00"), "scene0002_00_vh_clean_2", TABLE, 1.1);
    let (_, err) = succeed(&["eval", text(&data), "-o", text(&report)]);
    assert_eq!(err.matches("done before").count(), 1, "{err}");
    assert!(comparable(&report) != before);
    // Other settings give other results.
    let list = folder.path().join("list.txt");
    fs::write(&list, "room\n\n").unwrap();
    let arguments = ["eval", text(&data), "-o", text(&report), "--neighbors", "64", "--scenes", text(&list), "--json"];
    let (out, err) = succeed(&arguments);
    let printed: Value = serde_json::from_str(&out).unwrap();
    assert!(!err.contains("done before") && printed["num_scenes"] == 1, "{err}");
    assert_eq!(printed, json(&report.join("report.json")));
    let sheets: Vec<_> = fs::read_dir(report.join("worst")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(sheets, ["room.png"]);
    fs::write(&list, "room\nhall\n").unwrap();
    assert!(fail(&arguments).contains("1 of its 2 scenes are not in"));
}

#[test]
fn a_bad_scene_is_reported_and_the_others_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (data, report) = (folder.path().join("data"), folder.path().join("report"));
    write_scene(&data, "good", TABLE, 1.0);
    for bad in ["missing", "shorter", "stranger"] {
        write_scene(&data, bad, TABLE, 1.0);
    }
    fs::remove_file(data.join("missing.ply")).unwrap();
    let cloud = PointCloud { positions: vec![[0.0; 3]; 7], ..PointCloud::default() };
    cloud.write_ply(&data.join("shorter.labels.ply"), &[Field::new("label", vec![1_u16; 7])]).unwrap();
    let cloud = corner(STEP);
    cloud.write_ply(&data.join("stranger.labels.ply"), &[Field::new("label", vec![77_u16; cloud.len()])]).unwrap();
    let err = fail(&["eval", text(&data), "-o", text(&report)]);
    let counts =
        format!("shorter.labels.ply has 7 labels, {} has {} points", text(&data.join("shorter.ply")), cloud.len());
    for part in ["missing.ply", &counts, "stranger.labels.ply: point 0 has the label 77", "good: mIoU"] {
        assert!(err.contains(part), "{part}\n{err}");
    }
    let whole = json(&report.join("report.json"));
    let failed: Vec<&str> =
        whole["failed"].as_array().unwrap().iter().map(|failure| failure["scene"].as_str().unwrap()).collect();
    assert_eq!((whole["num_scenes"].as_u64(), failed), (Some(1), vec!["missing", "shorter", "stranger"]));
    let markdown = fs::read_to_string(report.join("report.md")).unwrap();
    assert!(markdown.contains("**3 scenes failed") && markdown.contains("- shorter: "), "{markdown}");

    fs::remove_file(data.join("good.labels.ply")).unwrap();
    assert!(fail(&["eval", text(&data), "-o", text(&report)]).contains("not one of 3 scenes"));
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(fail(&["eval", text(&empty), "-o", text(&report)]).contains("no labelled scene"));
    let arguments = ["eval", text(&data), "-o", text(&report), "--preset", "scannet200", "--label-ids", "nyu40"];
    assert!(fail(&arguments).contains("--label-ids class"));
}

#[test]
fn a_recording_beside_the_scan_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let (data, report) = (folder.path().join("data"), folder.path().join("report"));
    let scene = data.join("scene0003_00");
    write_scene(&scene, "scene0003_00_vh_clean_2", TABLE, 1.0);
    write_recording(&scene, 3);
    // Of several scenes in one folder, each has its recording in a folder of its name.
    write_scene(&data.join("pairs"), "left", TABLE, 1.0);
    write_scene(&data.join("pairs"), "right", TABLE, 1.0);
    write_recording(&data.join("pairs/right"), 2);
    succeed(&["eval", text(&data), "-o", text(&report)]);
    let whole = json(&report.join("report.json"));
    let scenes = whole["scenes"].as_array().unwrap().iter();
    let seen: Vec<_> =
        scenes.map(|s| (s["scene"].as_str().unwrap(), s["views"].as_u64().unwrap(), s["recorded"] == true)).collect();
    assert_eq!(seen, [("left", 4, false), ("right", 2, true), ("scene0003_00", 3, true)]);
}

#[test]
fn of_a_data_set_the_test_part_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (data, report) = (folder.path().join("data"), folder.path().join("report"));
    write_scene(&data.join("train/a"), "a", TABLE, 1.0);
    write_scene(&data.join("test/b"), "b", TABLE, 1.0);
    let (_, err) = succeed(&["eval", text(&data), "-o", text(&report)]);
    assert!(err.contains("has parts"), "{err}");
    let whole = json(&report.join("report.json"));
    let scenes: Vec<&str> =
        whole["scenes"].as_array().unwrap().iter().map(|scene| scene["scene"].as_str().unwrap()).collect();
    assert_eq!(scenes, ["b"]);
    // A killed run's half a file goes, and nothing else does.
    for name in [".partial-old", "mine.txt"] {
        fs::write(report.join(name), "").unwrap();
    }
    succeed(&["eval", text(&data), "-o", text(&report)]);
    assert!(!report.join(".partial-old").exists() && report.join("mine.txt").exists());
}

#[test]
fn a_data_set_without_a_test_part_is_asked_about() {
    let folder = tempfile::tempdir().unwrap();
    let (data, report) = (folder.path().join("data"), folder.path().join("report"));
    write_scene(&data.join("train/a"), "a", TABLE, 1.0);
    write_scene(&data.join("val/b"), "b", TABLE, 1.0);
    let err = fail(&["eval", text(&data), "-o", text(&report)]);
    assert!(err.contains("no test in this folder; it has train and val: give the one that is meant"), "{err}");
    assert!(!report.exists());
    let (out, _) = succeed(&["eval", text(&data.join("val")), "-o", text(&report), "--dry-run"]);
    assert!(out.contains("would evaluate b") && !out.contains("would evaluate a"), "{out}");
}

#[test]
fn a_scene_without_a_valid_view_is_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (data, report) = (folder.path().join("data"), folder.path().join("report"));
    write_scene(&data.join("drawn"), "drawn", TABLE, 1.0);
    let scene = data.join("scene0004_00");
    write_scene(&scene, "scene0004_00_vh_clean_2", TABLE, 1.0);
    write_recording(&scene, 3);
    // The published code takes every 20th frame: of three the first, whose pose is lost here.
    let lost = "-inf -inf -inf -inf\n".repeat(4);
    fs::write(scene.join("pose/0.txt"), lost).unwrap();
    let (out, err) = succeed(&["eval", text(&data), "-o", text(&report), "--compat", "reference"]);
    assert!(out.contains("1 scene without a valid view, left out: scene0004_00"), "{out}");
    assert!(err.contains("scene0004_00: left out: "), "{err}");
    let whole = json(&report.join("report.json"));
    assert_eq!((whole["num_scenes"].as_u64(), whole["failed"].as_array().map(Vec::len)), (Some(1), Some(0)));
    assert_eq!(whole["skipped"][0]["scene"], "scene0004_00");
    let markdown = fs::read_to_string(report.join("report.md")).unwrap();
    assert!(markdown.contains("## Scenes without a valid view\n\n- scene0004_00: "), "{markdown}");
    // A frame that cannot be read is damage: the scene fails.
    fs::remove_dir_all(&report).unwrap();
    write_recording(&scene, 1);
    for other in ["1", "2"] {
        fs::remove_file(scene.join(format!("color/{other}.jpg"))).unwrap();
    }
    let depth = fs::read(scene.join("depth/0.png")).unwrap();
    fs::write(scene.join("depth/0.png"), &depth[..depth.len() / 2]).unwrap();
    let err = fail(&["eval", text(&data), "-o", text(&report), "--compat", "reference"]);
    assert!(err.contains("scene0004_00"), "{err}");
}

#[test]
fn scenes_of_openscenes_data_are_counted_with_the_pictures_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let (data, report) = (folder.path().join("scannet_3d"), folder.path().join("report"));
    let made = write_scene(&folder.path().join("made"), "made", TABLE, 1.0);
    let cloud = PointCloud::read(&made.scan).unwrap();
    // Classes of ScanNet's 20: wall, floor, table, shower curtain; 255 for none.
    let class = |&label: &u16| match label {
        WALL => 0.0,
        FLOOR => 1.0,
        TABLE => 6.0,
        SHOWER_CURTAIN => 15.0,
        _ => 255.0,
    };
    let labels: Vec<f64> = made.labels.iter().map(class).collect();
    for name in ["scene0001_00", "scene0002_00"] {
        let path = data.join("val").join(format!("{name}_vh_clean_2.pth"));
        write_prepared(&path, &cloud.positions, cloud.colors.as_ref().unwrap(), &labels);
    }
    write_recording(&folder.path().join("scannet_2d/scene0002_00"), 2);
    succeed(&["eval", text(&data.join("val")), "-o", text(&report)]);
    let whole = json(&report.join("report.json"));
    let scenes: Vec<(&str, bool)> = whole["scenes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|scene| (scene["scene"].as_str().unwrap(), scene["recorded"] == true))
        .collect();
    assert_eq!(scenes, [("scene0001_00", false), ("scene0002_00", true)]);
    let points = |class: usize| whole["purified"]["classes"][class]["points"].as_u64().unwrap();
    let by_hand = |label: u16| 2 * made.labels.iter().filter(|&&l| l == label).count() as u64;
    assert_eq!([points(0), points(1), points(6), points(15)], [WALL, FLOOR, TABLE, SHOWER_CURTAIN].map(by_hand));
    // The labels are those of another set.
    let other = folder.path().join("other");
    let err = fail(&["eval", text(&data), "-o", text(&other), "--preset", "scannet200"]);
    assert!(err.contains("--label-ids class"), "{err}");
}

#[test]
fn objects_are_compared_with_true_ones_if_there_are_any() {
    let folder = tempfile::tempdir().unwrap();
    let (data, report) = (folder.path().join("data"), folder.path().join("report"));
    let made = write_scene(&data, "room", TABLE, 1.0);
    let arguments = ["eval", text(&data), "-o", text(&report)];
    let told = |extra: &[&str]| {
        let (out, _) = succeed(&[&arguments[..], extra].concat());
        (out, json(&report.join("report.json"))["instances"].clone())
    };
    let (out, instances) = told(&[]);
    assert!(instances.is_null() && !out.contains("AP50"), "{out}");

    // Each class is one part. The floor and the wall are no objects.
    let size = |label: u16| made.labels.iter().filter(|own| **own == label).count();
    assert!(size(TABLE) > 400 && size(SHOWER_CURTAIN) > 400);
    let (out, instances) = told(&["--parts-as-instances"]);
    assert!(out.contains("AP50") && instances["num_of_parts"] == 1 && instances["num_true"] == 2, "{out}{instances}");
    let markdown = fs::read_to_string(report.join("report.md")).unwrap();
    assert!(markdown.contains("## Objects") && markdown.contains("| connected regions | as one |"), "{markdown}");

    // The scan tells two tables apart, and numbers every object.
    let cloud = PointCloud::read(&made.scan).unwrap();
    let number = |(i, &label): (usize, &u16)| if label == TABLE { 1 + (i % 2) as u16 } else { 1 };
    let numbers: Vec<u16> = made.labels.iter().enumerate().map(number).collect();
    let fields = [Field::new("label", made.labels.clone()), Field::new("instance", numbers)];
    cloud.write_ply(&data.join("room.labels.ply"), &fields).unwrap();
    let (_, instances) = told(&["--parts-as-instances"]);
    assert_eq!((&instances["num_of_parts"], &instances["num_true"]), (&0.into(), &3.into()));
    for way in ["objects", "baseline"] {
        let table = &instances[way]["classes"][0];
        assert_eq!((&table["name"], &table["num_true"]), (&"table".into(), &2.into()));
        // No half of the table can be told from the other.
        assert_eq!(table["scores"]["ap50"], 0.0, "{way}");
    }
}

#[test]
fn novel_classes_can_be_named() {
    let folder = tempfile::tempdir().unwrap();
    let (data, report) = (folder.path().join("data"), folder.path().join("report"));
    write_scene(&data, "a", TABLE, 1.0);
    let classes = |whole: &Value| {
        let groups = whole["purified"]["groups"].as_array().unwrap();
        groups.iter().map(|group| (group["name"].as_str().unwrap().to_owned(), group["classes"].clone())).collect()
    };
    let arguments = ["eval", text(&data), "-o", text(&report)];
    succeed(&arguments);
    let (_, err) = succeed(&[&arguments[..], &["--novel", "table,wall"]].concat());
    assert!(err.contains("done before"), "which classes are novel needs no new labels: {err}");
    let found: Vec<(String, Value)> = classes(&json(&report.join("report.json")));
    assert_eq!((found[1].0.as_str(), found[2].0.as_str()), ("base", "novel"));
    assert_eq!((found[1].1.as_array().unwrap().len(), &found[2].1), (17, &serde_json::json!([0, 6])));
    assert!(fail(&[&arguments[..], &["--novel", "sky"]].concat()).contains("'sky' is no class"));
    let err = fail(&[&arguments[..], &["--only", "scannet-val"]].concat());
    assert!(err.contains("scannet-val: 312 of its 312 scenes are not in"), "{err}");
}

#[test]
fn two_prompts_are_those_of_the_published_code_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (data, report) = (folder.path().join("data"), folder.path().join("report"));
    write_scene(&data, "a", TABLE, 1.0);
    let labels = |arguments: &[&str]| {
        let _ = fs::remove_dir_all(&report);
        succeed(&[&["eval", text(&data), "-o", text(&report), "--preset", "matterport21"], arguments].concat());
        let whole = json(&report.join("report.json"));
        [14, 19].map(|class| whole["about"]["labels"][class].as_str().unwrap().to_owned())
    };
    assert_eq!(labels(&[]), ["refrigerator", "other"]);
    assert_eq!(labels(&["--compat", "reference"]), ["refridgerator", "otherfurniture"]);
}
