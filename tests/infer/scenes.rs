//! `infer` and `query` as a user runs them, on a furnished corner of a room, with small generated weights.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use geopurify::cloud::{Field, PointCloud};
use geopurify::images::{Orientation, read_image};
use geopurify::query::saved::Saved;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use serde_json::Value;

use crate::corner::corner;
use crate::labelling::{
    assert_no_partials, check_results, command, fail, run, succeed, summary, text, texts, write_corner,
    write_recording, write_recording_of,
};
use crate::weights::weight_files;

#[test]
fn a_scan_without_pictures_is_labelled_and_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (scan, results) = (folder.path().join("corner.ply"), folder.path().join("results"));
    write_corner(&scan);
    let views = folder.path().join("views");
    let words = "floor, wall, Kiste, 椅子";
    let arguments =
        ["infer", text(&scan), "--words", words, "-o", text(&results), "--views", "5", "--save-views", text(&views)];
    let (out, err) = succeed(&arguments);
    let cloud = corner(0.03);
    let labelled = check_results(&results, cloud.len(), 4);
    assert_eq!(labelled.positions, cloud.positions);
    // Results are on standard output, what is said of them beside it. Times of stages are for those who ask.
    assert!(out.contains("sheet.png") && !out.contains("whole run") && !out.contains("note:"), "{out}");
    assert!(err.contains("note: 5 virtual cameras") && err.contains("next: geopurify query"), "{err}");
    // Every word has its row, and why points stay unlabelled is said.
    let has_row = |word: &str| out.lines().any(|line| line.starts_with(word));
    assert!(["floor", "wall", "Kiste", "椅子"].into_iter().all(has_row), "{out}");
    assert!(err.contains("points nearer to \"background\" than to every word stay unlabelled"), "{err}");
    let report = summary(&results);
    assert_eq!(report["settings"]["words"].as_array().unwrap().len(), 4);
    assert_eq!(report["views"]["looked_at"], 5);
    // The scan keeps its colours. Those of the labels are in a file of their own, and the legend in all.
    assert_eq!(labelled.colors, cloud.colors);
    let coloured = PointCloud::read(&results.join("labels-coloured.ply")).unwrap();
    let classes = report["classes"].as_array().unwrap();
    let label = |i| labelled.attribute("label").unwrap().data.get_f64(i).unwrap();
    let of_label = |label: f64| classes.iter().find(|class| class["label"].as_f64() == Some(label)).unwrap();
    for i in [0, 1000, cloud.len() - 1] {
        let expected: Vec<u8> = serde_json::from_value(of_label(label(i))["color"].clone()).unwrap();
        assert_eq!(coloured.colors.as_ref().unwrap()[i].to_vec(), expected);
    }
    let [red, green, blue]: [u8; 3] = serde_json::from_value(classes[2]["color"].clone()).unwrap();
    let line = format!("comment geopurify label 2 color {red} {green} {blue} name Kiste\n");
    for name in ["labelled.ply", "labels-coloured.ply"] {
        let bytes = fs::read(results.join(name)).unwrap();
        assert!(String::from_utf8_lossy(&bytes[..2000]).contains(&line), "{name}");
    }
    let legend = fs::read_to_string(results.join("legend.csv")).unwrap();
    assert_eq!(legend.lines().count(), 6);
    assert!(legend.lines().nth(3).unwrap().starts_with(&format!("2,\"Kiste\",true,{red},{green},{blue},")), "{legend}");
    assert_eq!(fs::read_dir(&views).unwrap().count(), 10);

    // The same again is the same to the last bit.
    let again = folder.path().join("again");
    succeed(&["infer", text(&scan), "--words", words, "-o", text(&again), "--views", "5"]);
    for name in ["labelled.ply", "labels-coloured.ply", "legend.csv", "sheet.png"] {
        assert!(fs::read(results.join(name)).unwrap() == fs::read(again.join(name)).unwrap(), "{name}");
    }
    let features = |folder: &Path| Saved::read(&folder.join("features.safetensors")).unwrap().features;
    assert_eq!(features(&results), features(&again));

    let (answer, _) = succeed(&["query", text(&results), "something to sit on", "--json"]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert!(!answer["places"].as_array().unwrap().is_empty(), "{answer}");
    // The question competes with the words of the labelling and with the background.
    let competing: Vec<String> = serde_json::from_value(answer["competing"].clone()).unwrap();
    assert!(competing.iter().all(|word| words.contains(word) || word == "background"), "{answer}");
    assert_eq!(answer["known"], true);
    let heat = PointCloud::read(&results.join("query-something-to-sit-on.ply")).unwrap();
    let score = &heat.attribute("score").unwrap().data;
    let best = (0..heat.len()).map(|i| score.get_f64(i).unwrap()).fold(f64::MIN, f64::max);
    assert!((best - answer["best"].as_f64().unwrap()).abs() < 1e-6);
    assert!(read_image(&results.join("query-something-to-sit-on.png"), Orientation::Upright).unwrap().width() > 1000);
    let center: Vec<f64> = serde_json::from_value(answer["places"][0]["center"].clone()).unwrap();
    assert!(center.iter().all(|x| (-0.1..3.1).contains(x)), "{center:?}");
    assert!(fail(&["query", text(&results), "  "]).contains("has no words"));
    let picture = text(&folder.path().join("heat.png")).to_owned();
    assert!(fail(&["query", text(&results), "chair", "-o", &picture]).contains("heat map is a PLY file"));
    let error = fail(&["query", text(folder.path()), "chair"]);
    assert!(error.contains("give one of its folders that do") && error.contains(text(&results)), "{error}");
    let error = fail(&["query", "chair", text(&results)]);
    assert!(error.contains("the folder comes first") && !error.contains("device:"), "{error}");
    let error = fail(&["query", text(&scan), "chair"]);
    assert!(error.contains("is a scan; label it first: geopurify infer"), "{error}");
    let error = fail(&["query", text(&results), "red", "chair"]);
    assert!(error.contains("several words are one argument") && error.contains("\"red chair\""), "{error}");
    let error = fail(&["infer", text(&results), "--words", words]);
    assert!(error.contains("results of a labelling; search them with geopurify query"), "{error}");
    let error = fail(&["infer", "--rgbd", text(&scan), "--words", words]);
    assert!(error.contains("a scan, not a recording; give it without --rgbd"), "{error}");

    // Labels of another run make answers stale, and results of another scan are not mixed.
    let other = folder.path().join("other.ply");
    write_corner(&other);
    let again = ["infer", text(&other), "--words", words, "-o", text(&results), "--views", "2"];
    let error = fail(&again);
    assert!(error.contains("holds the results of") && error.contains("--force"), "{error}");
    assert!(results.join("query-something-to-sit-on.ply").exists());
    succeed(&[&again[..], &["--force", "--colors", "scan", "-v"]].concat());
    for name in ["query-something-to-sit-on.ply", "query-something-to-sit-on.png", "labels-coloured.ply"] {
        assert!(!results.join(name).exists(), "{name}");
    }
    let (_, err) = succeed(&["infer", text(&other), "--words", "floor", "-o", text(&results), "--views", "2"]);
    assert!(err.contains("note: this replaces the results for other words: floor, wall, Kiste, 椅子"), "{err}");
}

#[test]
fn a_scene_folder_is_a_scan_with_its_recording() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("rooms/room");
    write_recording(&recording, 3);
    write_corner(&recording.join("room.ply"));
    let results = folder.path().join("results");
    let arguments = ["infer", text(recording.parent().unwrap()), "--words", "floor, wall", "-o", text(&results)];
    let (out, _) = succeed(&[&arguments[..], &["--dry-run"]].concat());
    assert!(out.contains(&format!("would label {}", recording.display())) && !results.exists(), "{out}");
    let (_, err) = succeed(&[&arguments[..], &["-q"]].concat());
    assert_eq!(err, "");
    let report = summary(&results);
    assert!(report["scan"].as_str().unwrap().ends_with("room.ply"), "{report}");
    assert_eq!(report["recording"].as_str(), Some(text(&recording)));
    check_results(&results, corner(0.03).len(), 2);

    // A scan that is elsewhere is said, and the recording is taken without it.
    let mut cloud = corner(0.03);
    cloud.positions.iter_mut().for_each(|p| p[0] += 1e4);
    cloud.write_ply(&recording.join("room.ply"), &[]).unwrap();
    let (_, err) = succeed(&arguments);
    assert!(err.contains("warning:") && err.contains("taken without this scan"), "{err}");
    assert!(summary(&results)["scan"].is_null());
}

#[test]
fn a_recording_is_fused_or_looked_at_with_its_scan() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, scan) = (folder.path().join("recording"), folder.path().join("corner.ply"));
    write_recording(&recording, 6);
    write_corner(&scan);
    let fused = folder.path().join("fused");
    let (_, err) = succeed(&["infer", "--rgbd", text(&recording), "--words", "floor, wall, box", "-o", text(&fused)]);
    assert!(err.contains("recording: scannet, 6 frames") && err.contains("confirm"), "{err}");
    let report = summary(&fused);
    let num_points = report["points"].as_u64().unwrap() as usize;
    assert!(num_points > 10_000 && report["scan"].is_null(), "{report}");
    let labelled = check_results(&fused, num_points, 3);
    assert_eq!(report["views"]["looked_at"], 6);
    // All points were made from these very pictures; those along the edges of all that show them count as unseen.
    assert!(report["views"]["unseen_points"].as_u64().unwrap() * 20 < num_points as u64, "{report}");
    assert!(labelled.normals.is_some());

    let with_scan = folder.path().join("with_scan");
    let arguments =
        ["infer", text(&scan), "--rgbd", text(&recording), "--words", "floor, wall", "-o", text(&with_scan)];
    succeed(&arguments);
    check_results(&with_scan, corner(0.03).len(), 2);
    assert_eq!(summary(&with_scan)["views"]["without_depth"], 0);

    // As published: every 20th frame, so here the first alone; and depth maps must be as large as the picture.
    let (large, reference) = (folder.path().join("large"), folder.path().join("reference"));
    write_recording_of(&large, 2, [640, 480]);
    let more = ["-o", text(&reference), "--compat", "reference", "--seed", "4"];
    succeed(&[&["infer", text(&scan), "--rgbd", text(&large), "--words", "floor, wall"], &more[..]].concat());
    assert_eq!(
        (summary(&reference)["views"]["views"].as_u64(), summary(&reference)["views"]["looked_at"].as_u64()),
        (Some(1), Some(1))
    );

    // Without depth the scan's own hides what is behind.
    fs::remove_dir_all(recording.join("depth")).unwrap();
    let without_depth = folder.path().join("without_depth");
    succeed(&[&arguments[..6], &["-o", text(&without_depth)]].concat());
    let report = summary(&without_depth);
    assert_eq!((report["views"]["without_depth"].as_u64(), report["views"]["looked_at"].as_u64()), (Some(6), Some(6)));
    let error = fail(&["infer", "--rgbd", text(&recording), "--words", "floor", "-o", text(&without_depth)]);
    assert!(error.contains("neither depth maps with poses nor points"), "{error}");
}

#[test]
fn bad_frames_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("recording");
    write_recording(&recording, 5);
    fs::write(recording.join("pose/0.txt"), "nan nan nan nan\n".repeat(4)).unwrap();
    // Cut off, and of another size.
    let jpeg = fs::read(recording.join("color/1.jpg")).unwrap();
    fs::write(recording.join("color/1.jpg"), &jpeg[..jpeg.len() / 3]).unwrap();
    let mut small = Vec::new();
    JpegEncoder::new(&mut small).encode(&[90; 16 * 16 * 3], 16, 16, ExtendedColorType::Rgb8).unwrap();
    fs::write(recording.join("color/2.jpg"), small).unwrap();
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    let results = folder.path().join("results");
    let (_, err) =
        succeed(&["infer", text(&scan), "--rgbd", text(&recording), "--words", "floor, wall", "-o", text(&results)]);
    let views = &summary(&results)["views"];
    assert_eq!((views["views"].as_u64(), views["looked_at"].as_u64()), (Some(4), Some(2)), "{views}");
    assert_eq!(views["unreadable"], 2);
    assert!(err.contains("2 frames could not be read, the first: ") && err.contains("invalid pose"), "{err}");
    check_results(&results, corner(0.03).len(), 2);
}

#[test]
fn poses_that_do_not_show_the_scan_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, scan) = (folder.path().join("recording"), folder.path().join("far.ply"));
    write_recording(&recording, 2);
    let mut cloud = corner(0.03);
    cloud.positions.iter_mut().for_each(|p| p[0] += 1e4);
    cloud.write_ply(&scan, &[]).unwrap();
    let results = folder.path().join("results");
    let error = fail(&["infer", text(&scan), "--rgbd", text(&recording), "--words", "floor", "-o", text(&results)]);
    assert!(error.contains("no recorded camera sees a point of the scan"), "{error}");
    assert_eq!(fs::read_dir(&results).map_or(0, Iterator::count), 0);
}

#[test]
fn frames_without_poses_stand_alone() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("recording");
    write_recording(&recording, 2);
    fs::remove_dir_all(recording.join("pose")).unwrap();
    fs::remove_dir_all(recording.join("intrinsic")).unwrap();
    fs::write(recording.join("intrinsics.txt"), "260 0 159.5\n0 260 119.5\n0 0 1\n").unwrap();
    let results = folder.path().join("results");
    let (_, err) = succeed(&["infer", text(&recording), "--words", "floor, wall", "-o", text(&results)]);
    assert!(err.contains("no poses: 2 of its 2 frames are labelled, each alone"), "{err}");
    for name in ["0", "1"] {
        let report = summary(&results.join(name));
        check_results(&results.join(name), report["points"].as_u64().unwrap() as usize, 2);
        assert!(report["points"].as_u64().unwrap() > 5000, "{report}");
    }
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    let error = fail(&["infer", text(&scan), "--rgbd", text(&recording), "--words", "floor", "-o", text(&results)]);
    assert!(error.contains("no poses, so nothing says where in the scan"), "{error}");
}

#[test]
fn a_folder_of_scans_goes_on_after_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    let scans = folder.path().join("scans");
    fs::create_dir(&scans).unwrap();
    write_corner(&scans.join("a.ply"));
    fs::write(scans.join("b.ply"), "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nend_header\n1\n")
        .unwrap();
    // A single point, and one without a position beside it; no colours.
    fs::write(scans.join("c.xyz"), "1 2 3\nnan nan nan\n").unwrap();
    let results = folder.path().join("results");
    let output =
        run(&["infer", text(&scans), "--words", "floor, wall", "-o", text(&results), "--views", "3", "--json"]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("b.ply") && err.contains("1 of 3 failed"), "{err}");
    assert_eq!(out.lines().count(), 2);
    check_results(&results.join("a"), corner(0.03).len(), 2);
    let labelled = check_results(&results.join("c"), 2, 2);
    assert_eq!(labelled.attribute("label").unwrap().data.get_f64(1), Some(-1.0));
    assert!(summary(&results.join("c"))["notes"].to_string().contains("1 points have no position"));
}

#[test]
fn background_and_threshold_leave_points_unlabelled() {
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    let unlabelled = |name: &str, more: &[&str]| {
        let results = folder.path().join(name);
        let arguments = ["infer", text(&scan), "--words", "floor", "-o", text(&results), "--views", "3"];
        succeed(&[&arguments[..], more].concat());
        check_results(&results, corner(0.03).len(), 1);
        summary(&results)["classes"][1]["points"].as_u64().unwrap()
    };
    assert_eq!(unlabelled("plain", &["--no-background"]), 0);
    let all = corner(0.03).len() as u64;
    assert_eq!(unlabelled("threshold", &["--threshold", "1", "--no-background"]), all);
    // One word is a search: the background takes what is nearer to it.
    let results = summary(&folder.path().join("plain"));
    assert_eq!(results["settings"]["background"].as_array().unwrap().len(), 0);
    unlabelled("usual", &[]);
    assert_eq!(summary(&folder.path().join("usual"))["settings"]["background"][0], "background");
    assert!(unlabelled("background", &["--background", "wall, ceiling, lamp, chair, sofa, box"]) > 0);
}

#[test]
fn arguments_that_cannot_be_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none.ply");
    assert!(fail(&["infer", text(&none), "--words", "floor"]).contains("none.ply"));
    assert!(fail(&["infer"]).contains("nothing to label"));
    assert!(fail(&["infer", text(folder.path()), "--words", "floor"]).contains("no scan in this folder"));
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    assert!(fail(&["infer", text(&scan), "--words", " , "]).contains("names nothing to look for"));
    // Arguments that took what belongs to others.
    let error = fail(&["infer", text(&scan), "--words", "chair", "table"]);
    assert!(error.contains("--words \"chair, table\""), "{error}");
    let error = fail(&["infer", text(&scan), "--words", "chair,", "table,", "wall"]);
    assert!(error.contains("table: no such file") && error.contains("--words \"chair, table, wall\""), "{error}");
    let error = fail(&["infer", "--words", "chair", "--background", text(&scan)]);
    assert!(error.contains("--background takes words"), "{error}");
    let error = fail(&["infer", text(&scan), "--words", "chair", "-o", text(&scan)]);
    assert!(error.contains("results need a folder"), "{error}");
    let error = fail(&["infer", text(&scan), "--words", "tree", "--classification=tree"]);
    assert!(error.contains("is not WORD=CLASS"), "{error}");
    let other = folder.path().join("other.ply");
    write_corner(&other);
    let error = fail(&["infer", text(&scan), text(&other), "--rgbd", text(folder.path()), "--words", "floor"]);
    assert!(error.contains("--rgbd belongs to one scan"), "{error}");
    let output = run(&["infer", text(&scan), "--preset", "scannet"]);
    let (_, err) = texts(&output);
    assert!(output.status.code() == Some(2) && err.contains("matterport160"), "{err}");
    // A student of other widths.
    let student = folder.path().join("student.safetensors");
    let (_, published) =
        (weight_files(), geopurify::models::student::StudentConfig { input_dim: 22, hidden_dim: 8, embed_dim: 4 });
    let keys = published.keys();
    let specs: Vec<_> = keys
        .iter()
        .map(|(key, shape)| geopurify::weights::TensorSpec::new(key, geopurify::weights::Dtype::F32, shape.clone()))
        .collect();
    let mut writer = geopurify::weights::SafetensorsWriter::create(&student, &specs, &Default::default()).unwrap();
    keys.iter().for_each(|(_, shape)| writer.write_f32(&vec![0.1; shape.iter().product()]).unwrap());
    writer.finish().unwrap();
    let files = weight_files();
    let output = Command::new(env!("CARGO_BIN_EXE_geopurify"))
        .args(["infer", text(&scan), "--words", "floor", "--device", "cpu"])
        .args(["--xdecoder", text(&files.xdecoder), "--xdecoder-config", text(&files.config)])
        .args(["--student", text(&student)])
        .output()
        .unwrap();
    let (_, err) = texts(&output);
    assert!(output.status.code() == Some(1) && err.contains("do not belong together"), "{err}");
}

/// Waits until `done`, or fails.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_no_half_written_file() {
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    let results = folder.path().join("results");
    let views = folder.path().join("views");
    let mut child = command(&[
        "infer",
        text(&scan),
        "--words",
        "floor, wall",
        "-o",
        text(&results),
        "--views",
        "40",
        "--save-views",
        text(&views),
    ])
    .stderr(Stdio::null())
    .stdout(Stdio::null())
    .spawn()
    .unwrap();
    // In the middle of writing pictures.
    wait_for("pictures of views", || fs::read_dir(&views).is_ok_and(|entries| entries.count() >= 3));
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert_no_partials(&views);
    assert_no_partials(&results);
    assert!(!results.join("summary.json").exists());
    for entry in fs::read_dir(&views).unwrap() {
        read_image(&entry.unwrap().path(), Orientation::Upright).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_leaves_nothing_half_written() {
    use std::os::unix::process::CommandExt as _;
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("corner.ply");
    write_corner(&scan);
    let results = folder.path().join("results");
    let mut command = command(&["infer", text(&scan), "--words", "floor, wall", "-o", text(&results), "--views", "3"]);
    let limit = libc::rlimit { rlim_cur: 100_000, rlim_max: 100_000 };
    // SAFETY: both calls are async-signal-safe, and nothing is allocated between fork and exec.
    unsafe {
        command.pre_exec(move || {
            // A file that grows past the limit then gives an error instead of ending the process.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            if libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
    let (_, err) = texts(&command.output().unwrap());
    assert!(err.contains("labelled.ply") && err.contains("the disk is full") && !err.contains("panicked"), "{err}");
    assert_no_partials(&results);
    assert!(!results.join("labelled.ply").exists());
}

/// Scans that hold fields of the results' names already, as the results themselves do.
#[test]
fn results_can_be_labelled_again() {
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("corner.ply");
    let cloud = corner(0.03);
    cloud
        .write_ply(
            &scan,
            &[Field::new("label", vec![7_i32; cloud.len()]), Field::new("score", vec![9.0_f32; cloud.len()])],
        )
        .unwrap();
    let results = folder.path().join("results");
    succeed(&["infer", text(&scan), "--words", "floor, wall", "-o", text(&results), "--views", "3"]);
    check_results(&results, cloud.len(), 2);
}
