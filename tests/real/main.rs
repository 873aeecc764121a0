//! Whole runs on what a machine may lack, and what it lacks is counted as ignored.
//!
//! Sample scans and recordings are not part of this repository: `GEOPURIFY_DATA=DIR cargo test --release --test real`.
//! Graphics adapters are compared with the host, unless `GEOPURIFY_DEVICE` is `cpu`.

#[path = "../common/corner.rs"]
mod corner;
mod labelling;
#[path = "../common/labelling.rs"]
mod labelling_runs;
mod recordings;
mod scans;
mod training;
#[path = "../common/training.rs"]
mod training_runs;
#[path = "../common/walk.rs"]
mod walk;
#[path = "../common/weights.rs"]
mod weights;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

type Outcome = Result<(), String>;
/// What is run on the folder of sample data.
type Run = Box<dyn FnOnce(&Path) -> Outcome + Send>;

fn main() -> ExitCode {
    let data = std::env::var_os("GEOPURIFY_DATA").map(PathBuf::from);
    let needs_data = |name: &str, run: Run| {
        let Some(folder) = data.clone() else {
            let trial = Trial::test(name, || Err("GEOPURIFY_DATA is not set".into()));
            return trial.with_kind("wants GEOPURIFY_DATA").with_ignored_flag(true);
        };
        Trial::test(name, move || Ok(run(&folder)?))
    };
    let whole = |name: &str, run: fn(&Path)| {
        needs_data(
            name,
            Box::new(move |folder| {
                run(folder);
                Ok(())
            }),
        )
    };
    let mut trials = scans::trials(&needs_data);
    trials.push(whole("recordings are read, checked and fused", recordings::are_read_checked_and_fused));
    trials.push(whole("scans and recordings are labelled", labelling::runs_end_to_end));
    trials.push(whole("scans and recordings are learnt from", training::learns));
    let on_host_alone = std::env::var("GEOPURIFY_DEVICE").is_ok_and(|device| device == "cpu");
    let adapters = Trial::test("every adapter gives the labels of the host", || {
        labelling::every_adapter_gives_the_labels_of_the_host();
        Ok(())
    });
    let kind = if on_host_alone { "wants another GEOPURIFY_DEVICE than cpu" } else { "" };
    trials.push(adapters.with_kind(kind).with_ignored_flag(on_host_alone));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
