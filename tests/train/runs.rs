//! `train` as a user runs it: small scans, small generated weights, a small student.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use geopurify::weights::{SafetensorsFile, WeightsFile};

use crate::common::Random;
use crate::training::{SETTINGS, fixture, text, texts};

#[test]
fn a_run_leaves_what_a_person_looks_at() {
    let fixture = fixture();
    let held_out = fixture.path("held-out");
    let said = fixture.succeed("whole", &["--validation", text(&held_out), "--keep-last", "2"]);
    assert!(said.contains("3 scenes to learn from, 1 to validate on; 3 epochs"), "{said}");
    assert!(said.contains("affinity precision"), "{said}");
    let run = fixture.path("whole");
    for name in ["config.toml", "scenes.json", "loss.png"] {
        assert!(run.join(name).is_file(), "{name}");
    }
    let metrics = fixture.metrics("whole");
    let steps: Vec<u64> = metrics.iter().filter(|m| m["loss"].is_f64()).map(|m| m["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=9).collect::<Vec<_>>());
    let precision: Vec<f64> = metrics.iter().filter_map(|m| m["affinity_precision"].as_f64()).collect();
    assert!(precision.len() == 4 && precision.iter().all(|p| (0.0..=1.0).contains(p)), "{precision:?}");
    let checkpoints: Vec<_> = fs::read_dir(run.join("checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(checkpoints.len(), 2, "{checkpoints:?}");
    let events =
        fs::read_dir(&run).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("tfevents"));
    assert_eq!(events.count(), 1);
    // The student is one: it purifies, under the reference's keys.
    let student = WeightsFile::open(&run.join("student.safetensors")).unwrap().state_dict().unwrap();
    assert!(student.tensors.contains_key("res_blocks.3.conv2.kernel"));
    assert_eq!(student.integers["input_layer.1.bn.num_batches_tracked"].data, [9]);
}

#[test]
fn a_killed_run_goes_on_to_the_same_weights() {
    let fixture = fixture();
    fixture.succeed("unbroken", &[]);
    let mut child = fixture.command("killed", &[]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    // In the middle of the second epoch: a checkpoint is behind it, a step of no checkpoint too.
    wait_for_lines(&mut child, &fixture.path("killed").join("metrics.jsonl"), 4);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!fixture.path("killed").join("student.safetensors").exists(), "it ended before it was killed");
    let error = fixture.fail("killed", &[]);
    assert!(error.contains("--resume"), "{error}");
    let said = fixture.succeed("killed", &["--resume"]);
    assert!(said.contains("continuing after epoch"), "{said}");
    assert_eq!(fixture.student("killed"), fixture.student("unbroken"));
    assert_eq!(fixture.losses("killed"), fixture.losses("unbroken"));
}

/// From the first moment on, at moments that a seed chooses. The memory bound, the validations and the number of
/// checkpoints are those of the first start.
#[test]
fn runs_killed_at_any_moment_go_on_to_the_same_weights() {
    let fixture = fixture();
    let held_out = fixture.path("held-out");
    let options = ["--validation", text(&held_out), "--max-memory", "8", "--validate-every", "2", "--keep-last", "1"];
    let start = Instant::now();
    let said = fixture.succeed("unbroken-bound", &options);
    assert!(said.contains("cropped to"), "the bound is too large to matter: {said}");
    let whole = start.elapsed();
    let mut random = Random(17);
    for round in 0..4 {
        let run = format!("killed-{round}");
        let mut child = fixture.command(&run, &options).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        match round {
            // Before the first step.
            0 => wait_for(&mut child, &fixture.path(&run).join("scenes.json")),
            _ => std::thread::sleep(whole.mul_f64(f64::from(random.signed().abs()))),
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if !fixture.path(&run).join("student.safetensors").exists() {
            // A run that was killed before its list of scenes was written has not been started yet.
            let mut command = match fixture.path(&run).join("scenes.json").exists() {
                true => {
                    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
                    command.args(["train", "--resume", "-o"]).arg(fixture.path(&run)).env("GEOPURIFY_DEVICE", "cpu");
                    command
                }
                false => fixture.command(&run, &options),
            };
            let (_, error) = texts(&command.output().unwrap());
            assert!(fixture.path(&run).join("student.safetensors").is_file(), "{error}");
        }
        assert_eq!(fixture.student(&run), fixture.student("unbroken-bound"), "{run}");
        assert_eq!(fixture.losses(&run), fixture.losses("unbroken-bound"), "{run}");
        assert_eq!(precisions(&run), precisions("unbroken-bound"), "{run}");
    }
}

/// Steps and precisions of the validations of a run.
fn precisions(run: &str) -> Vec<(u64, f64)> {
    let metrics = fixture().metrics(run);
    metrics.iter().filter_map(|m| Some((m["step"].as_u64()?, m["affinity_precision"].as_f64()?))).collect()
}

/// Waits until a file is there.
fn wait_for(child: &mut Child, path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(120), "no file came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a log has so many lines.
fn wait_for_lines(child: &mut Child, path: &Path, lines: usize) {
    let start = Instant::now();
    while fs::read_to_string(path).map_or(0, |text| text.lines().count()) < lines {
        assert!(child.try_wait().unwrap().is_none(), "the run ended early");
        assert!(start.elapsed() < Duration::from_secs(300), "the run is too slow");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_seed_is_a_run() {
    let fixture = fixture();
    fixture.succeed("first", &["--seed", "7", "--epochs", "2"]);
    let said = fixture.succeed("second", &["--seed", "7", "--epochs", "2"]);
    assert!(said.contains("a: prepared before"), "{said}");
    assert_eq!(fixture.student("first"), fixture.student("second"));
    fixture.succeed("third", &["--seed", "8", "--epochs", "2"]);
    assert_ne!(fixture.student("first"), fixture.student("third"));
}

#[test]
fn gradients_of_several_scenes_make_a_step() {
    let fixture = fixture();
    let config = fixture.path("accumulate.toml");
    fs::write(&config, format!("{SETTINGS}accumulate = 2\n")).unwrap();
    fixture.succeed("accumulated", &["--config", text(&config)]);
    let metrics = fixture.metrics("accumulated");
    let scenes: Vec<usize> = metrics.iter().filter_map(|m| Some(m["scenes"].as_array()?.len())).collect();
    assert_eq!(scenes, [2, 1, 2, 1, 2, 1]);
}

#[test]
fn the_reference_trains_on_points() {
    let fixture = fixture();
    let config = fixture.path("reference.toml");
    fs::write(&config, format!("preset = \"reference\"\n{SETTINGS}")).unwrap();
    let arguments = ["--config", text(&config), "--install", "of-mine"];
    let said = fixture.succeed("reference", &arguments);
    assert!(fixture.losses("reference").iter().all(|loss| loss.is_finite()));
    assert!(said.contains("of-mine"), "{said}");
    let list = Command::new(env!("CARGO_BIN_EXE_geopurify"))
        .args(["weights", "list"])
        .env("GEOPURIFY_HOME", fixture.path("home"))
        .output()
        .unwrap();
    assert!(texts(&list).0.contains("of-mine"), "{}", texts(&list).0);
}

#[test]
fn scenes_past_the_memory_are_cropped_and_that_is_said() {
    let fixture = fixture();
    let said = fixture.succeed("whole-scenes", &["--epochs", "2"]);
    assert!(!said.contains("cropped to"), "{said}");
    let said = fixture.succeed("cropped", &["--max-memory", "8", "--epochs", "2"]);
    let voxels = |run: &str| fixture.metrics(run).iter().filter_map(|m| m["voxels"].as_u64()).max().unwrap();
    assert!(voxels("cropped") < voxels("whole-scenes"));
    assert!(said.contains(&format!("cropped to {} voxels per step", voxels("cropped"))), "{said}");
}

#[test]
fn mistakes_are_told_with_a_way_out() {
    let fixture = fixture();
    let list = fixture.path("list.txt");
    fs::write(&list, "scenes/a.ply\n# a comment\nscenes/none.ply\n").unwrap();
    let error = fixture.fail("mistake", &["--scenes", text(&list)]);
    assert!(error.contains("list.txt, line 3") && error.contains("none.ply does not exist"), "{error}");
    // A name as `select` writes it, in a folder below that of the data.
    fs::write(&list, "a\n").unwrap();
    fixture.succeed("named", &["--scenes", text(&list), "--data", text(fixture.folder.path()), "--epochs", "2"]);
    fs::write(&list, "scenes/a.ply\tno-recording\n").unwrap();
    let error = fixture.fail("mistake", &["--scenes", text(&list)]);
    assert!(error.contains("no-recording does not exist"), "{error}");
    // What is not a run's is not replaced.
    fs::create_dir_all(fixture.path("taken")).unwrap();
    fs::write(fixture.path("taken/config.toml"), "of = 'something else'").unwrap();
    let error = fixture.fail("taken", &[]);
    assert!(error.contains("config.toml: this would be overwritten"), "{error}");
    let config = fixture.path("mistake.toml");
    fs::write(&config, "epoch = 3").unwrap();
    let error = fixture.fail("mistake", &["--config", text(&config)]);
    assert!(error.contains("mistake.toml") && error.contains("unknown field `epoch`"), "{error}");
    let scenes = fixture.path("scenes");
    let error = fixture.fail("mistake", &["--validation", text(&scenes)]);
    assert!(error.contains("cannot be one to validate on"), "{error}");

    // Another seed, scene or memory is another run.
    fixture.succeed("changed", &["--epochs", "2"]);
    let error = fixture.fail("changed", &["--resume", "--seed", "5", "--epochs", "2"]);
    assert!(error.contains("seed is 0, not 5"), "{error}");
    let said = fixture.succeed("changed", &["--resume", "--max-memory", "4096", "--epochs", "2"]);
    assert!(said.contains("--max-memory 2048, it continues with 4096"), "{said}");
    fs::write(&list, "scenes/a.ply\n").unwrap();
    let error = fixture.fail("changed", &["--resume", "--scenes", text(&list), "--epochs", "2"]);
    assert!(error.contains("other scenes"), "{error}");

    // One bad scene: the others are prepared, and it can be left out.
    fs::write(fixture.path("bad.ply"), b"ply\nnonsense").unwrap();
    fs::write(&list, "scenes/a.ply\nbad.ply\n").unwrap();
    let error = fixture.fail("bad", &["--scenes", text(&list)]);
    assert!(error.contains("bad.ply") && error.contains("--skip-failed"), "{error}");
    fixture.succeed("bad", &["--scenes", text(&list), "--skip-failed", "--epochs", "2"]);

    let error = fixture.fail("no-memory", &["--max-memory", "1"]);
    assert!(error.contains("max_memory is 1 MiB, expected enough for"), "{error}");

    // A damaged checkpoint is told, not taken.
    let checkpoints = fixture.path("changed").join("checkpoints");
    let last = fs::read_dir(&checkpoints).unwrap().map(|e| e.unwrap().path()).max().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&last, bytes).unwrap();
    assert!(SafetensorsFile::open(&last).is_ok());
    let error = fixture.fail("changed", &["--resume", "--epochs", "2"]);
    assert!(error.contains(&last.file_name().unwrap().to_string_lossy().into_owned()), "{error}");
}

#[test]
fn two_processes_do_not_train_in_one_folder() {
    let fixture = fixture();
    let mut child =
        fixture.command("busy", &["--epochs", "200"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_for_lines(&mut child, &fixture.path("busy").join("metrics.jsonl"), 1);
    let error = fixture.fail("busy", &["--resume", "--epochs", "200"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(error.contains("another process trains here"), "{error}");
}
