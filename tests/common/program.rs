//! The program as a user runs it.

use std::process::{Command, Output};

/// Runs the program to its end.
pub(crate) fn geopurify(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_geopurify")).args(arguments).output().unwrap()
}

/// What a run that must succeed prints.
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The message of a run that must fail with exit code 1.
pub(crate) fn failure(arguments: &[&str]) -> String {
    let output = geopurify(arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && !message.contains("panicked"), "{message}");
    message
}
