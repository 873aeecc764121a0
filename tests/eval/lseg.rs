//! `eval` with LSeg as the image model.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::labelled_corner::{TABLE, write_recording, write_scene};
use crate::weights::{LSegFiles, tiny_lseg, weight_files};

#[test]
fn a_report_of_lseg_says_so_and_is_not_one_of_x_decoder() {
    let folder = tempfile::tempdir().unwrap();
    let scenes = folder.path().join("scenes");
    let made = write_scene(&scenes, "room", TABLE, 1.0);
    write_recording(&scenes.join("room"), 3);
    let LSegFiles { weights, config } = tiny_lseg(folder.path()).unwrap();
    let (files, report) = (weight_files(), folder.path().join("report"));
    let evaluate = |networks: [(&str, &Path); 2]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
        command.arg("eval").arg(&scenes).arg("-o").arg(&report).args(["--size", "160", "--iterations", "1", "--json"]);
        command.arg("--student").arg(&files.student).env("GEOPURIFY_DEVICE", "cpu");
        for (option, path) in networks {
            command.arg(option).arg(path);
        }
        let output = command.output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{err}");
        (serde_json::from_str::<Value>(&out).unwrap(), err)
    };
    // Weights of LSeg choose it, without --image-model.
    let lseg = [("--lseg", weights.as_path()), ("--lseg-config", config.as_path())];
    let (told, said) = evaluate(lseg);
    assert!(!said.contains("done before"), "{said}");
    assert_eq!(told["about"]["settings"]["image_model"], json!("lseg"));
    assert_eq!(told["about"]["weights"][0]["model"], json!("lseg"));
    assert_eq!((&told["num_scenes"], &told["points"]), (&json!(1), &json!(made.labels.len())));
    let (again, said) = evaluate(lseg);
    assert!(said.contains("done before"), "{said}");
    assert_eq!((&again["purified"], &again["lifted"]), (&told["purified"], &told["lifted"]));
    let (other, said) = evaluate([("--xdecoder", &files.xdecoder), ("--xdecoder-config", &files.config)]);
    assert!(!said.contains("done before"), "{said}");
    assert_eq!(other["about"]["settings"]["image_model"], json!("xdecoder"));
}
